"""A frame resampled onto another by a homography: pixels of any type, mosaics photosite by photosite, masks along."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restorekit.facts import Matrix, Metadata
from restorekit.frame import Frame
from restorekit.planes import to_float
from restorekit.stages.bracket_blocks import CLIPPED, OUTSIDE
from restorekit.stages.demosaic import Domain, demosaic, noise_offset
from restorekit.stages.mosaic import cfa_at, red_parity
from restorekit.stages.pose import corners, projected

STRIP_ROWS = 256
MARGIN_ROWS = 12
"""Rows beside a strip of a mosaic that its demosaicing and interpolation look at."""

MASK_MARGIN_PX, MOSAIC_MARGIN_PX = 2, 4
"""How far bicubic interpolation, and the demosaicing of mosaics before it, spread a clipped pixel."""


@dataclass(frozen=True)
class Window:
    """The part of the reference picture that is kept, rows ``top..bottom``, columns ``left..right``."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left

    @property
    def shift(self) -> Matrix:
        """``[3,3]`` pixels of the window to pixels of the whole picture."""
        return np.array([[1, 0, self.left], [0, 1, self.top], [0, 0, 1]], dtype=np.float64)


def common_window(height: int, width: int, poses: Sequence[Matrix], step: int = 1) -> Window | None:
    """The upright rectangle of the reference picture that all pictures cover; ``None`` where less than a tenth is left.

    ``step`` 2 keeps its edges on even rows and columns, as Bayer mosaics need.
    """
    top, left, bottom, right = 0.0, 0.0, float(height - 1), float(width - 1)
    for pose in poses:
        back = np.asarray(np.linalg.inv(pose), dtype=np.float64)
        (x00, y00), (x01, y01), (x10, y10), (x11, y11) = projected(back, corners(height, width))
        top, bottom = max(top, y00, y01), min(bottom, y10, y11)
        left, right = max(left, x00, x10), min(right, x01, x11)
    edges = [-(-first // step) * step for first in (top, left)] + [
        (last + 1) // step * step for last in (bottom, right)
    ]
    window = Window(*(int(edge) for edge in edges))
    kept_height, kept_width = window.size
    return window if kept_height > 0 < kept_width and kept_height * kept_width >= 0.1 * height * width else None


def reprojected(frame: Frame, pose: Matrix, window: Window) -> Frame:
    """The window of the reference picture as ``frame`` shows it, ``pose`` mapping pixels of the reference to its own.

    Pixels by bicubic interpolation (Keys 1981) in the type they have; what lies beyond the frame repeats its edge and
    is marked in the mask ``outside``. The mask ``clipped`` grows by what interpolation mixes. Mosaics are demosaiced
    (Menon et al. 2007, on square roots) and resampled at the photosites of each colour. A pose of whole pixels (on
    mosaics: even ones) only moves. ``facts.alignment`` is the way back.
    """
    place = np.asarray(pose @ window.shift, dtype=np.float64)
    place /= place[2, 2]
    whole = _whole_shift(place, 2 if frame.state.is_mosaic else 1)
    outside = _outside(frame, place, window.size)
    if whole is not None:
        moved = frame.planes(lambda plane: _moved(plane, whole, window.size))
    else:
        pixels = (
            _mosaic(frame, place, window.size) if frame.state.is_mosaic else _planes(frame.pixels, place, window.size)
        )
        alpha = None if frame.alpha is None else _planes(frame.alpha, place, window.size)
        margin = MOSAIC_MARGIN_PX if frame.state.is_mosaic else MASK_MARGIN_PX
        masks = {
            name: _mask(mask, place, window.size, margin if name == CLIPPED else 0)
            for name, mask in frame.masks.items()
        }
        moved = replace(frame, pixels=pixels, alpha=alpha, masks=masks)
    masks = dict(moved.masks)
    if outside is not None:
        masks[OUTSIDE] = outside | masks[OUTSIDE] if OUTSIDE in masks else outside
    facts = replace(frame.facts, alignment=way_back(frame, place))
    return replace(moved, masks=masks, facts=facts, metadata=cropped_metadata(frame, window))


def way_back(frame: Frame, place: Matrix) -> Matrix:
    """``facts.alignment`` after a frame, which may be aligned already, was resampled by ``place``."""
    matrix = place if frame.facts.alignment is None else frame.facts.alignment @ place
    return np.asarray(matrix / matrix[2, 2], dtype=np.float64)


def cropped_metadata(frame: Frame, window: Window) -> Metadata:
    """The metadata with the crop that is still pending moved along with the window."""
    if frame.metadata.crop is None:
        return frame.metadata
    height, width = window.size
    top, left, bottom, right = frame.metadata.crop
    top, bottom = (min(max(edge - window.top, 0), height) for edge in (top, bottom))
    left, right = (min(max(edge - window.left, 0), width) for edge in (left, right))
    return replace(frame.metadata, crop=(top, left, bottom, right))


def _whole_shift(place: Matrix, step: int) -> tuple[int, int] | None:
    """Rows and columns of a pose that only moves by whole steps."""
    dy, dx = round(place[1, 2] / step) * step, round(place[0, 2] / step) * step
    exact = np.array([[1, 0, dx], [0, 1, dy], [0, 0, 1]], dtype=np.float64)
    return (dy, dx) if np.abs(place - exact).max() < 1e-9 else None


def _moved(plane: Tensor, shift: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """``[C,H,W]`` moved by whole pixels, edges repeated."""
    indices = [
        torch.arange(start, start + length).clamp_(0, limit - 1)
        for start, length, limit in zip(shift, size, plane.shape[1:], strict=True)
    ]
    if all(int(index[-1]) - int(index[0]) + 1 == len(index) for index in indices):
        rows, columns = (slice(int(index[0]), int(index[-1]) + 1) for index in indices)
        return plane[:, rows, columns]
    if plane.dtype == torch.uint16:
        return _moved(plane.view(torch.int16), shift, size).view(torch.uint16)
    return plane[:, indices[0]][:, :, indices[1]]


def _outside(frame: Frame, place: Matrix, size: tuple[int, int]) -> Tensor | None:
    """Where a frame has no data, ``[1,H,W]``; ``None`` where it has everywhere."""
    x, y = projected(place, corners(*size)).T
    slack = 1e-3
    if (
        x.min() >= -slack
        and y.min() >= -slack
        and x.max() <= frame.width - 1 + slack
        and y.max() <= frame.height - 1 + slack
    ):
        return None
    inside = _warp(np.full((frame.height, frame.width), 255, np.uint8), place, size, cv2.INTER_LINEAR, border=0)
    return torch.from_numpy(inside < 255)[None]


def _warp(
    plane: NDArray[Any], place: Matrix, size: tuple[int, int], flags: int, border: int | None = None
) -> NDArray[Any]:
    mode = cv2.BORDER_REPLICATE if border is None else cv2.BORDER_CONSTANT
    return cv2.warpPerspective(
        plane, place, size[::-1], flags=flags | cv2.WARP_INVERSE_MAP, borderMode=mode, borderValue=border or 0
    )


def _planes(pixels: Tensor, place: Matrix, size: tuple[int, int]) -> Tensor:
    """``[C,H,W]`` interpolated, of the type and the order in memory that it has."""
    interleaved = pixels.permute(1, 2, 0)
    if pixels.dtype in (torch.uint8, torch.uint16) and interleaved.is_contiguous():
        warped = _warp(interleaved.numpy(), place, size, cv2.INTER_CUBIC)
        return torch.from_numpy(warped.reshape(*size, -1)).permute(2, 0, 1)
    result = torch.empty((pixels.shape[0], *size), dtype=pixels.dtype)
    for top, bottom, rows, here in _bands(place, size, pixels.shape[1]):
        for plane, into in zip(pixels[:, rows], result, strict=True):
            source = plane.float() if plane.dtype == torch.float16 else plane
            warped = _warp(source.contiguous().numpy(), here, (bottom - top, size[1]), cv2.INTER_CUBIC)
            into[top:bottom] = torch.from_numpy(warped)
    return result


def _bands(place: Matrix, size: tuple[int, int], height: int) -> Iterator[tuple[int, int, slice, Matrix]]:
    """Bands ``top..bottom`` of a result, the rows of the source that they need, and the pose between the two."""
    for top in range(0, size[0], STRIP_ROWS):
        bottom = min(top + STRIP_ROWS, size[0])
        ends = np.array([[x, y] for x in (0, size[1] - 1) for y in (top, bottom - 1)], dtype=np.float64)
        rows = projected(place, ends)[:, 1]
        first = int(np.clip(np.floor(rows.min()) - MARGIN_ROWS, 0, max(height - 2, 0))) // 2 * 2
        last = int(np.clip(np.ceil(rows.max()) + MARGIN_ROWS, min(first + 2, height), height))
        moved = np.array([[1, 0, 0], [0, 1, -first], [0, 0, 1]]) @ place @ np.array([[1, 0, 0], [0, 1, top], [0, 0, 1]])
        yield top, bottom, slice(first, last), np.asarray(moved, dtype=np.float64)


def _mask(mask: Tensor, place: Matrix, size: tuple[int, int], margin: int) -> Tensor:
    """``[C,H,W]`` bool: where any of the pixels that were mixed is marked."""
    kernel = np.ones((2 * margin + 1,) * 2, np.uint8)
    result = torch.empty((mask.shape[0], *size), dtype=torch.bool)
    for plane, into in zip(mask, result, strict=True):
        marks = plane.numpy().view(np.uint8) * np.uint8(255)
        if not marks.any():
            into.fill_(False)
            continue
        marks = _warp(cv2.dilate(marks, kernel) if margin else marks, place, size, cv2.INTER_LINEAR)
        into.copy_(torch.from_numpy(marks > 0))
    return result


def _mosaic(frame: Frame, place: Matrix, size: tuple[int, int]) -> Tensor:
    """A Bayer mosaic ``[1,H,W]`` interpolated at the photosites of each colour, a strip of rows at a time."""
    cell = cfa_at(frame)
    red = red_parity(cell, frame.name)
    light = (None if frame.facts.white_balance else frame.facts.illuminant or frame.camera.neutral) or (1.0, 1.0, 1.0)
    domain = Domain((1 / light[0], 1 / light[1], 1 / light[2]), noise_offset(frame))
    height, width = size
    result = torch.empty((1, height, width), dtype=frame.pixels.dtype)
    for top, bottom, rows, here in _bands(place, size, frame.height):
        mosaic = to_float(frame.pixels[0, rows], digital_numbers=True)
        rgb = demosaic(mosaic, red, "menon", domain)
        for channel, plane in enumerate(rgb):
            warped = _warp(plane.contiguous().numpy(), here, (bottom - top, width), cv2.INTER_CUBIC)
            for row, colors in enumerate(cell):
                for column, color in enumerate(colors):
                    if "RGB".index(color) == channel:
                        result[0, top + row : bottom : 2, column::2] = torch.from_numpy(warped[row::2, column::2])
    return result
