"""Frames made small for previews. A RAW mosaic becomes RGB on the way: the mean of each colour in a block.

Blocks of whole CFA cells need no demosaicing and keep all light; the frame stays sensor-referred, so that pipelines for
RAW run on it as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restorekit.errors import InputError
from restorekit.facts import Camera
from restorekit.frame import Bracket, Frame
from restorekit.io.buffers import Packed
from restorekit.strips import side_by_side

Box = tuple[int, int]
"""Width and height in px that a picture must fit into."""

LARGEST_SUM = 4
"""Packed RAW is summed over at most so many cells a side, which low bits of a byte bear; resizing does the rest."""

STRIP = 128
"""Rows of blocks that a thread takes at a time."""


def fitted(width: int, height: int, box: Box) -> Box:
    """The size of a picture that keeps its shape and fits into a box; it is never enlarged."""
    share = min(1.0, box[0] / width, box[1] / height)
    return max(1, round(width * share)), max(1, round(height * share))


def reduced(image: Frame | Bracket | Packed, box: Box) -> Frame | Bracket:
    """An image that fits into a box of ``(width, height)`` px, as it will be seen: cropped and turned.

    Pixels are means over areas, of the numbers as they are. Finished pictures and light keep type and state; a mosaic
    becomes sensor-referred RGB, float32, of at most a side's half (X-Trans: a sixth), without what is left over beside
    whole blocks, less than a pixel of it. Corrections of the lens that the
    file asks for are left out, since their coordinates are those of the full size.

    Raises InputError for a box without pixels and for mosaics smaller than their cell.
    """
    if min(box) < 1:
        raise InputError(f"a preview has at least one pixel; {box[0]}x{box[1]} has none")
    if isinstance(image, Bracket):
        return Bracket(tuple(_reduced(frame, box) for frame in image))
    if isinstance(image, Packed):
        return _packed(image, box)
    return _reduced(image, box)


def _reduced(frame: Frame, box: Box) -> Frame:
    frame = _cropped(frame)
    box = (box[1], box[0]) if frame.metadata.orientation >= 5 else box
    size = fitted(frame.width, frame.height, box)
    frame = replace(frame, camera=replace(frame.camera, opcode_lists=(b"", b"", b"")))
    if frame.state.is_mosaic:
        return _of_mosaic(frame, size)
    if size == (frame.width, frame.height):
        return frame
    return frame.planes(lambda plane: _resized(plane, size))


def _cropped(frame: Frame) -> Frame:
    """A frame without what its metadata crop; of a mosaic in whole cells."""
    if frame.metadata.crop is None:
        return frame
    top, left, bottom, right = frame.metadata.crop
    if frame.state.is_mosaic and frame.camera.cfa:
        rows, columns = len(frame.camera.cfa), len(frame.camera.cfa[0])
        top, left = -(-top // rows) * rows, -(-left // columns) * columns
    cut = frame.planes(lambda plane: plane[:, top:bottom, left:right])
    return replace(cut, metadata=replace(frame.metadata, crop=None))


def _of_mosaic(frame: Frame, size: Box) -> Frame:
    cell = _cell(frame)
    mosaic = frame.pixels[0].numpy()
    blocks = _blocks(frame.width, frame.height, cell, size)
    rows, columns = cell[0] * blocks, cell[1] * blocks

    def sums(top: int, bottom: int) -> NDArray[np.generic]:
        return _block_sums(mosaic[top * rows : bottom * rows], cell, blocks)

    return _rgb(frame, sums, (frame.height // rows, frame.width // columns), blocks, size)


def _packed(packed: Packed, box: Box) -> Frame:
    size = fitted(packed.width, packed.height, box)
    blocks = min(LARGEST_SUM, _blocks(packed.width, packed.height, (2, 2), size))
    blocks -= blocks % 2 if packed.bits == 10 else 0
    if blocks == 0:
        return _of_mosaic(packed.frame(), size)
    shape = packed.height // (2 * blocks), packed.width // (2 * blocks)
    like = packed.frame(np.zeros((2, 2), np.uint16))
    return _rgb(like, lambda top, bottom: packed.block_sums(blocks, top, bottom), shape, blocks, size)


def _cell(frame: Frame) -> Box:
    cfa = frame.camera.cfa
    if not cfa:
        raise InputError(f"{frame.name}: a mosaic without the pattern of its colours (camera.cfa); demosaic needs it")
    if frame.height < len(cfa) or frame.width < len(cfa[0]):
        raise InputError(f"{frame.name}: {frame.width}x{frame.height} px are less than a cell of its mosaic")
    return len(cfa), len(cfa[0])


def _blocks(width: int, height: int, cell: Box, size: Box) -> int:
    """How many cells a side are summed, so that no less than the wanted size comes out, where there is so much."""
    return max(1, min(width // (cell[1] * size[0]), height // (cell[0] * size[1])))


def _block_sums(mosaic: NDArray[np.generic], cell: Box, blocks: int) -> NDArray[np.generic]:
    """Sums over the photosites of a place in the cell, in blocks of cells: ``[rows,columns,h,w]``."""
    rows, columns = cell
    height, width = mosaic.shape[0] // (rows * blocks), mosaic.shape[1] // (columns * blocks)
    kind = np.uint32 if np.issubdtype(mosaic.dtype, np.integer) else np.float32
    down = mosaic.reshape(height, blocks, rows, -1).sum(1, dtype=kind)
    result = np.zeros((rows, columns, height, width), kind)
    step = columns * blocks
    for column in range(columns):
        for start in range(column, step, columns):
            result[:, column] += down[:, :, start : width * step : step].transpose(1, 0, 2)
    return result


def _rgb(frame: Frame, sums: Callable[[int, int], NDArray[np.generic]], shape: Box, blocks: int, size: Box) -> Frame:
    """A linear RAW frame of the same camera, from what gives the sums at each place in the cell for rows of blocks."""
    cfa, (height, width) = frame.camera.cfa, shape
    places = {
        color: [(y, x) for y, row in enumerate(cfa) for x, each in enumerate(row) if each == color] for color in "RGB"
    }
    counts = [len(found) * blocks * blocks for found in places.values()]
    colors = np.empty((3, height, width), np.float32)
    small = min(size[0], width), min(size[1], height)
    pixels = np.empty((3, small[1], small[0]), np.float32)

    def gather(top: int, bottom: int) -> None:
        planes = sums(top, bottom)
        for color, found, count in zip(colors, places.values(), counts, strict=True):
            part = color[top:bottom]
            part[:] = planes[found[0]]
            for place in found[1:]:
                part += planes[place]
            part *= 1.0 / count

    def resize(first: int, last: int) -> None:
        for channel in range(first, last):
            _resized_plane(colors[channel], small, pixels[channel])

    side_by_side(gather, [(top, min(top + STRIP, height)) for top in range(0, height, STRIP)])
    side_by_side(resize, [(0, 1), (1, 2), (2, 3)])
    return replace(
        frame,
        pixels=torch.from_numpy(pixels),
        state=frame.state.changed({"layout": "rgb"}),
        alpha=None,
        masks={},
        camera=_of_rgb(frame.camera, places, counts),
    )


def _of_rgb(camera: Camera, places: dict[str, list[tuple[int, int]]], counts: list[int]) -> Camera:
    """What a camera says of means over so many photosites of each colour."""
    black = camera.black
    if black is not None:
        height, width = black.shape[:2]
        means = [np.mean([black[y % height, x % width, 0] for y, x in found]) for found in places.values()]
        black = np.asarray(means, np.float32).reshape(1, 1, 3)
    noise = camera.noise_profile
    if noise:
        each = noise * 3 if len(noise) == 1 else noise
        noise = tuple((a / count, b / count) for (a, b), count in zip(each, counts, strict=False))
    white = None if camera.white is None else np.full(3, camera.white[0], np.float32)
    return replace(camera, cfa=(), black=black, white=white, black_rows=None, black_columns=None, noise_profile=noise)


def _resized(plane: Tensor, size: Box) -> Tensor:
    """``[C,H,W]`` as means over areas; a mask is set where any of it is."""
    kind = plane.dtype
    if kind == torch.bool:
        return _resized(plane.to(torch.uint8) * 255, size) > 0
    source = (plane.float() if kind == torch.float16 else plane).numpy()
    result = np.empty((len(source), size[1], size[0]), source.dtype)
    for each, channel in zip(source, result, strict=True):
        _resized_plane(each, size, channel)
    return torch.from_numpy(result).to(kind)


def _resized_plane(plane: NDArray[Any], size: Box, result: NDArray[Any]) -> None:
    """Means over areas; where less than two px become one, bilinear, which is as good there and much faster."""
    if (plane.shape[1], plane.shape[0]) == size:
        result[:] = plane
        return
    near = plane.shape[1] < 2 * size[0] and plane.shape[0] < 2 * size[1]
    way = cv2.INTER_LINEAR if near else cv2.INTER_AREA
    cv2.resize(np.ascontiguousarray(plane), size, dst=result, interpolation=way)
