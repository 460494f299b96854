"""From digital numbers to light: black level, linearisation, clip mask; and stuck photosites."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restorekit.errors import InputError, StageError
from restorekit.facts import Camera
from restorekit.frame import Frame
from restorekit.stage import Reach, Stage, StageSpec, changed_at, local, param, parameters
from restorekit.stages.mosaic import cfa_at, nearest

CLIP_MARGIN = 0.01
"""A photosite counts as clipped from this share of the range below the white level on: full wells differ a little."""

RELATIVE_MARGIN, NOISE_MARGIN, LONELY = 0.25, 0.25, 1 / 7
"""Shares of a neighbour's value, of the neighbours' spread and of the excess in the test for stuck photosites."""

BESIDE = ((0, -1), (0, 1), (-1, 0), (1, 0))
RGB_CELL = ("G",)
"""A channel of an RGB image seen as a mosaic: one colour everywhere."""


@parameters
class BlackLevel(Stage):
    """Digital numbers to values proportional to light: linearise, subtract black, divide by the range.

    Takes ``[C,H,W]`` digital numbers, gives the same shape with 0 = black and 1 = white level, unclamped: noise
    below black stays negative. As in the DNG specification all photosites of a channel are divided by
    white minus the highest black of the channel, since they share one gain. The mask
    ``clipped`` ``[C,H,W]`` says which numbers reach the white level (from 1 % of the range below it on).

    Raises StageError for a frame without black and white levels.
    """

    spec: ClassVar[StageSpec] = StageSpec(
        name="raw.black_level",
        source="DNG 1.7.1, chapter 5, Mapping Raw Values to Linear Reference Values",
        accepts={"reference": ("sensor",), "transfer": ("linear",)},
        emits={"reference": "scene"},
        adds=("clip_level",),
    )

    def apply(self, frame: Frame) -> Frame:
        camera, channels = frame.camera, frame.pixels.shape[0]
        if camera.black is None or camera.white is None:
            raise StageError(
                f"{frame.name}: raw.black_level needs black and white levels, this file names none; "
                "give them with input.headerless or Frame.from_bayer"
            )
        black = np.broadcast_to(camera.black, (*camera.black.shape[:2], channels))
        white = np.broadcast_to(camera.white, channels)
        span = white - highest_black(camera, channels)
        if not (span > 0).all():
            raise StageError(
                f"{frame.name}: white level {white.tolist()} is not above black; "
                "give the levels with input.headerless or Frame.from_bayer"
            )
        numbers = frame.pixels if camera.linearization is None else _linearised(frame.pixels, camera.linearization)
        light, clipped = torch.empty_like(numbers), torch.empty_like(numbers, dtype=torch.bool)
        top = frame.region.top if frame.region else 0
        for channel in range(channels):
            rows = _black_rows(camera, black[:, :, channel], frame.width).to(numbers.device)
            for row in range(min(len(rows), frame.height)):
                part = slice(row, None, len(rows))
                torch.sub(numbers[channel, part], rows[(top + row) % len(rows)], out=light[channel, part])
            if camera.black_rows is not None:
                light[channel] -= torch.from_numpy(camera.black_rows[top : top + frame.height]).to(light)[:, None]
            light[channel] *= 1 / float(span[channel])
            torch.ge(numbers[channel], float(white[channel] - CLIP_MARGIN * span[channel]), out=clipped[channel])
        facts = replace(frame.facts, clip_level=(1.0,) * channels, noise=camera.noise_profile or frame.facts.noise)
        return replace(frame, pixels=light, masks={**frame.masks, "clipped": clipped}, facts=facts)


def highest_black(camera: Camera, channels: int) -> NDArray[np.float32]:
    """The highest black level ``[C]`` at any photosite of each channel, with the row and column deltas."""
    assert camera.black is not None
    height, width = camera.black.shape[:2]
    levels = np.broadcast_to(camera.black, (height, width, channels)).astype(np.float32)
    for axis, deltas, period in ((0, camera.black_rows, height), (1, camera.black_columns, width)):
        if deltas is not None:
            highest = [deltas[phase::period].max(initial=-np.inf) for phase in range(period)]
            levels = levels + np.asarray(highest, dtype=np.float32).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
    highest_levels: NDArray[np.float32] = levels.max(axis=(0, 1))
    return highest_levels


def _black_rows(camera: Camera, black: NDArray[np.float32], width: int) -> Tensor:
    """The black levels of a channel ``[h,W]``: the repeating rows, with what each column adds."""
    rows = np.tile(black, (1, -(-width // black.shape[1])))[:, :width].astype(np.float32)
    if camera.black_columns is not None:
        rows += camera.black_columns[:width]
    return torch.from_numpy(rows)


def _linearised(numbers: Tensor, table: NDArray[np.float32]) -> Tensor:
    """Digital numbers looked up in the LinearizationTable; those beyond its end get its last entry."""
    index = numbers.round().clamp_(0, len(table) - 1).to(torch.int32)
    return torch.from_numpy(np.asarray(table, dtype=np.float32)).to(numbers.device)[index]


@parameters
class HotPixels(Stage):
    """Replace stuck photosites by the median of their nearest neighbours of the same colour.

    Takes and gives scene-referred ``[C,H,W]``, 1 = white level. On a mosaic a photosite is stuck when it is
    brighter, or darker, than all of its eight nearest neighbours of the same colour (X-Trans: and those one
    cell to the left and right) by more than ``threshold`` + a quarter of their value + the difference
    between the brightest and the darkest of them, which grows with noise and texture; and while none of the
    four photosites beside it stands out of its own neighbours by a seventh of that excess. A lens
    spreads a point of light over neighbouring photosites of all colours, so stars and glints pass; a defect
    stands alone. Two stuck photosites side by side need a dark frame or a list. RGB images are not
    searched: interpolation has spread their defects.

    A dark frame (same camera, lens cap on) marks the photosites that are brighter than ``threshold`` in it. A
    list is a text file of ``x y`` lines as dcraw's (further columns and ``#`` comments are ignored), or an image of
    the frame's size that is not black where a photosite is bad. Both work on RGB too.

    Replaced photosites leave the mask ``clipped``. Raises InputError for a dark frame or list that cannot be
    read or does not fit.
    """

    spec: ClassVar[StageSpec] = StageSpec(
        name="raw.hot_pixels",
        source="outlier test against same-colour neighbours, compared with the photosites beside: N. El-Yamany, Robust "
        "defect pixel detection and correction for Bayer imaging systems, IS&T Electronic Imaging, 2017",
        accepts={"reference": ("scene",), "transfer": ("linear",)},
    )

    threshold: Annotated[
        float, param("Least excess over all neighbours, as a share of white", gt=0, le=1, usual=(0.002, 0.2))
    ] = 0.02
    detect: Annotated[bool, param("Search for stuck photosites in the image itself")] = True
    dark_frame: Annotated[Path | None, param("RAW file taken with the lens cap on: marks its bright photosites")] = None
    bad_pixels: Annotated[Path | None, param("Text file of x y lines, or image, that marks bad photosites")] = None

    def reach(self) -> Reach:
        return local(4)

    def apply(self, frame: Frame) -> Frame:
        cell = cfa_at(frame) if frame.state.is_mosaic else RGB_CELL
        bad = self._marked(frame)
        if self.detect and frame.state.is_mosaic:
            found = stuck(frame.pixels[0], cell, self.threshold)
            if len(found[0]):
                bad = torch.zeros_like(frame.pixels, dtype=torch.bool) if bad is None else bad.clone()
                bad[0, found[0], found[1]] = True
        if bad is None or not bad.any():
            return frame
        mended = torch.stack([mend(plane, marks, cell) for plane, marks in zip(frame.pixels, bad, strict=True)])
        masks = dict(frame.masks)
        if "clipped" in masks:
            masks["clipped"] = masks["clipped"] & ~bad
        return replace(frame, pixels=mended, masks=masks)

    def _marked(self, frame: Frame) -> Tensor | None:
        """What the dark frame and the list mark in this frame or strip ``[C,H,W]``, or None without them."""
        channels, height, width = frame.pixels.shape
        top, full_height = (frame.region.top, frame.region.full_height) if frame.region else (0, height)
        shape = (channels, full_height, width)
        marks = []
        if self.dark_frame is not None:
            marks.append(_bright(self.dark_frame, changed_at(self.dark_frame, self), shape, self.threshold))
        if self.bad_pixels is not None:
            marks.append(_listed(self.bad_pixels, changed_at(self.bad_pixels, self), shape))
        if not marks:
            return None
        rows = [mark[:, top : top + height] for mark in marks]
        return (rows[0] if len(rows) == 1 else rows[0] | rows[1]).to(frame.pixels.device)


def stuck(plane: Tensor, cell: tuple[str, ...], threshold: float) -> tuple[Tensor, Tensor]:
    """Rows and columns of the stuck photosites of a mosaic ``[H,W]``, by the rule of ``HotPixels``.

    First the cheap part of the test on all photosites, against the nearest ones of their colour in the row; then
    the rest on the few that stand out there.
    """
    y, x = _outstanding(plane, len(cell[0]), threshold).nonzero(as_tuple=True)
    value, same = plane[y, x], _seen(plane, y, x, nearest(cell, 0, 0, 8, 0))
    highest, lowest = same.nan_to_num(-torch.inf).amax(1), same.nan_to_num(torch.inf).amin(1)
    spread, above, below = highest - lowest, value - highest, lowest - value
    bright = above - RELATIVE_MARGIN * highest.abs() > threshold + spread
    alone = bright | (below - RELATIVE_MARGIN * lowest.abs() > threshold + spread)
    y, x, bright = y[alone], x[alone], bright[alone]
    limit = LONELY * torch.maximum(above, below)[alone] + NOISE_MARGIN * spread[alone]
    lonely, sign = torch.ones_like(bright), torch.where(bright, 1.0, -1.0)
    for dy, dx in BESIDE:
        beside = _seen(plane, y, x, np.array([[[[dy, dx]]]]))[:, 0] * sign
        around = _seen(plane, y, x, nearest(cell, dy, dx, 5, 1)) * sign[:, None]
        lonely &= ~(beside - around.nan_to_num(-torch.inf).amax(1) > limit)
    return y[lonely], x[lonely]


def mend(plane: Tensor, bad: Tensor, cell: tuple[str, ...]) -> Tensor:
    """A copy of ``[H,W]`` with the bad photosites replaced by the median of the good nearest of their colour.

    Those without a good one among their eight nearest stay as they are.
    """
    y, x = bad.nonzero(as_tuple=True)
    if not len(y):
        return plane
    good = plane.masked_fill(bad, torch.nan)
    median = _seen(good, y, x, nearest(cell, 0, 0, 8, 0)).nanquantile(0.5, dim=1)
    mended = plane.clone()
    mended[y, x] = torch.where(median.isnan(), plane[y, x], median)
    return mended


def _outstanding(plane: Tensor, period: int, threshold: float) -> Tensor:
    """Where a photosite ``[H,W]`` leaves the values of those one period to its sides by more than the margin.

    True as well at the left and right border, where there is only one of them.
    """
    result = torch.ones_like(plane, dtype=torch.bool)
    if plane.shape[1] > 2 * period:
        left, own, right = plane[:, : -2 * period], plane[:, period:-period], plane[:, 2 * period :]
        high, low = torch.maximum(left, right), torch.minimum(left, right)
        above = torch.sub(own, high, alpha=2 + RELATIVE_MARGIN).add_(low)
        below = low.mul_(2 - RELATIVE_MARGIN).sub_(high).sub_(own)
        torch.gt(torch.maximum(above, below, out=above), threshold, out=result[:, period:-period])
    return result


def _seen(plane: Tensor, y: Tensor, x: Tensor, offsets: NDArray[np.int64]) -> Tensor:
    """Values ``[N,K]`` of ``[H,W]`` at the offsets ``[h,w,K,2]`` of a cell from N photosites; NaN outside the image."""
    height, width = plane.shape
    table = torch.from_numpy(offsets).to(plane.device)
    away = table[y % table.shape[0], x % table.shape[1]]
    rows, columns = y[:, None] + away[..., 0], x[:, None] + away[..., 1]
    outside = (rows < 0) | (rows >= height) | (columns < 0) | (columns >= width)
    return plane[rows.clamp_(0, height - 1), columns.clamp_(0, width - 1)].masked_fill_(outside, torch.nan)


@lru_cache(maxsize=2)
def _bright(path: Path, changed: int, shape: tuple[int, int, int], threshold: float) -> Tensor:
    """The photosites ``[C,H,W]`` that are brighter than a threshold in a dark frame."""
    from restorekit.io import read

    dark = read(path)
    if dark.state.reference != "sensor" or tuple(dark.pixels.shape) != shape:
        raise InputError(
            f"{path}: this dark frame is {dark.width}x{dark.height} px, {dark.state.reference} {dark.state.layout}; "
            f"the frame has {shape[0]} channels of {shape[2]}x{shape[1]} px; take a RAW file of the same camera"
        )
    return BlackLevel()(dark).pixels > threshold


@lru_cache(maxsize=2)
def _listed(path: Path, changed: int, shape: tuple[int, int, int]) -> Tensor:
    """The photosites ``[C,H,W]`` that a text file or an image marks."""
    _, height, width = shape
    marks = torch.zeros(height, width, dtype=torch.bool)
    if path.suffix.lower() in ("", ".txt", ".badpixels"):
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            if len(words) < 2 or not (words[0].isdecimal() and words[1].isdecimal()):
                raise InputError(
                    f"{path}:{number}: '{line.strip()[:40]}' is not 'x y'; write a column and a row on each line"
                )
            x, y = int(words[0]), int(words[1])
            if x >= width or y >= height:
                raise InputError(
                    f"{path}:{number}: {x} {y} lies outside of {width}x{height} px; use the list of this camera"
                )
            marks[y, x] = True
    else:
        from restorekit.io import read

        image = read(path)
        if (image.height, image.width) != (height, width):
            raise InputError(
                f"{path}: as bad pixel list it is {image.width}x{image.height} px, the frame {width}x{height}; use an "
                "image of the same size"
            )
        marks = (image.pixels != 0).any(0)
    return marks.expand(shape)
