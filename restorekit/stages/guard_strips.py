"""An enlarged picture strip by strip, beside the rows of the picture it was made from.

Bands of any height are cut anew into strips of ``STRIP`` input px, so that what is computed a strip at a time does not
depend on the bands. Beyond its edges a picture is mirrored, edge pixels repeated. Planes are ``[C,rows,columns]``
float32.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from restorekit.errors import InputError
from restorekit.stages.resampling import bicubic
from restorekit.tiling import mirrored

STRIP = 8
"""Rows of the input that belong to a strip; the last strip has what is left."""

MARGIN = 2
"""Rows and columns around a strip that ``Original.around`` adds."""


@dataclass(frozen=True)
class Strip:
    """Rows ``top..bottom`` of the input, as they are in the output: ``pixels`` ``[C,scale*rows,scale*W]``."""

    top: int
    bottom: int
    pixels: Tensor


@dataclass(frozen=True)
class Original:
    """The picture that was enlarged: ``source(top, bottom)`` gives rows of it, ``[C,rows,W]``, out of ``height``.

    Values that are not finite count as 0 (NaN, negative) or 1.
    """

    source: Callable[[int, int], Tensor] = field(repr=False)
    height: int
    scale: int

    def rows(self, top: int, bottom: int) -> Tensor:
        """Rows that lie in the picture."""
        rows = self.source(top, bottom)
        return rows if bool(rows.sum().isfinite()) else rows.nan_to_num(0.0, 1.0, 0.0)

    def around(self, strip: Strip) -> Tensor:
        """The input of a strip with ``MARGIN`` more rows and columns on all sides."""
        top, bottom = strip.top - MARGIN, strip.bottom + MARGIN
        first = max(0, top)
        rows = self.rows(first, min(self.height, bottom))
        return with_columns(taken(rows, first, top, bottom, self.height), MARGIN)

    def enlarged(self, strip: Strip) -> Tensor:
        """The input at the size of the output, by cubic convolution (Keys 1981, a = -0.5)."""
        return enlarged(self.around(strip), self.scale)


def strips(bands: Iterable[tuple[int, Tensor]], height: int, scale: int) -> Iterator[Strip]:
    """Bands ``(first row, [C,rows,scale*W])`` cut into strips, whose pixels are copies.

    Raises InputError where the bands do not follow each other, differ in width, or are not ``height * scale`` rows.
    """
    top = row = 0
    pixels: Tensor | None = None
    for first, band in bands:
        channels, count, width = band.shape
        if first != row or row + count > height * scale or width % scale:
            raise InputError(
                f"a band of {count} rows and {width} columns begins at row {first}, after {row} of "
                f"{height * scale} rows at scale {scale}; give the bands in order, every row once"
            )
        done = 0
        while done < count:
            bottom = min(top + STRIP, height)
            if pixels is None:
                pixels = band.new_empty((channels, (bottom - top) * scale, width))
            if pixels.shape[::2] != (channels, width):
                raise InputError(f"a band has shape {tuple(band.shape)}, those before had {tuple(pixels.shape[::2])}")
            begin = row - top * scale
            end = min(begin + count - done, pixels.shape[1])
            pixels[:, begin:end] = band[:, done : done + end - begin]
            done, row = done + end - begin, row + end - begin
            if end == pixels.shape[1]:
                yield Strip(top, bottom, pixels)
                top, pixels = bottom, None
    if row != height * scale:
        raise InputError(f"the bands end after {row} of {height * scale} rows; give all of them")


def looking_around(measured: Iterable[tuple[Strip, Tensor]], radius: int) -> Iterator[tuple[Strip, int, list[Tensor]]]:
    """Every strip with what was measured on those up to ``radius`` before and after it, and the first one's index.

    Only the strips that wait for measurements after them are held.
    """
    waiting: deque[Strip] = deque()
    known: deque[Tensor] = deque()
    first = 0

    def ready() -> tuple[Strip, int, list[Tensor]]:
        nonlocal first
        strip = waiting.popleft()
        while first < strip.top // STRIP - radius:
            known.popleft()
            first += 1
        return strip, first, list(known)

    for strip, measurement in measured:
        waiting.append(strip)
        known.append(measurement)
        if len(waiting) > radius:
            yield ready()
    while waiting:
        yield ready()


def taken(rows: Tensor, first: int, top: int, bottom: int, height: int) -> Tensor:
    """Rows ``top..bottom`` of a picture of ``height``, mirrored at its edges, of rows that begin at ``first``."""
    if top >= first and bottom <= first + rows.shape[1]:
        return rows[:, top - first : bottom - first]
    return rows[:, mirrored(top, bottom, height, "flip") - first]


def with_columns(planes: Tensor, margin: int) -> Tensor:
    """Planes with ``margin`` more columns on either side, mirrored at the edges."""
    width = planes.shape[2]
    left, right = mirrored(-margin, 0, width, "flip"), mirrored(width, width + margin, width, "flip")
    return torch.cat((planes[:, :, left], planes, planes[:, :, right]), 2)


def enlarged(around: Tensor, scale: int) -> Tensor:
    """Planes without their ``MARGIN``, bicubic at ``scale`` times the size."""
    if scale == 1:
        return around[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
    start, kernel = bicubic(9, 9 * scale, 4 * scale, 5 * scale)  # a pixel and four on either side
    weights = around.new_zeros((scale, 1, 2 * MARGIN + 1))
    skipped = 4 - MARGIN - start
    known = torch.from_numpy(kernel).to(around)[:, max(skipped, 0) :]
    weights[:, 0, max(-skipped, 0) :][:, : known.shape[1]] = known
    tall = F.conv2d(around[:, None], weights[..., None]).permute(0, 2, 1, 3)
    tall = tall.reshape(around.shape[0], 1, -1, around.shape[2])
    return F.conv2d(tall, weights[:, :, None]).permute(0, 2, 3, 1).reshape(around.shape[0], tall.shape[2], -1)


def reduced(planes: Tensor, scale: int) -> Tensor:
    """Planes at the size of the input: means of ``scale`` by ``scale`` px."""
    if scale == 1:
        return planes
    rows = planes.reshape(planes.shape[0], -1, scale, planes.shape[2]).mean(2)
    return torch.stack([rows[..., phase::scale] for phase in range(scale)]).mean(0)


def limits(around: Tensor, scale: int, widening: float, tolerance: float) -> tuple[Tensor, Tensor]:
    """The smallest and largest value of 3x3 input px, bilinear at ``scale`` times the size and without the margin.

    They are apart by ``widening`` times their difference more on either side, and by ``tolerance``.
    """
    low, high = _least(around), _least(-around).neg_()
    room = (high - low).mul_(widening).add_(tolerance)
    return _bilinear(low.sub_(room), scale), _bilinear(high.add_(room), scale)


def _least(planes: Tensor) -> Tensor:
    """Minima of 3x3 px, without a margin of 1."""
    rows = torch.minimum(torch.minimum(planes[:, :-2], planes[:, 1:-1]), planes[:, 2:])
    return torch.minimum(torch.minimum(rows[..., :-2], rows[..., 1:-1]), rows[..., 2:])


def _bilinear(planes: Tensor, scale: int) -> Tensor:
    """Planes without a margin of 1 at ``scale`` times the size; exact where neighbours are equal."""
    channels, height, width = planes.shape[0], planes.shape[1] - 2, planes.shape[2] - 2
    if scale == 1:
        return planes[:, 1:-1, 1:-1]
    tall = planes.new_empty((channels, height, scale, width + 2))
    wide = planes.new_empty((channels, height * scale, width, scale))
    for phase in range(scale):
        away = (phase + 0.5) / scale - 0.5
        nearest, other = 1, 1 + (away > 0) - (away < 0)
        tall[:, :, phase] = torch.lerp(
            planes[:, nearest : nearest + height], planes[:, other : other + height], abs(away)
        )
    rows = tall.reshape(channels, height * scale, width + 2)
    for phase in range(scale):
        away = (phase + 0.5) / scale - 0.5
        nearest, other = 1, 1 + (away > 0) - (away < 0)
        wide[..., phase] = torch.lerp(rows[..., nearest : nearest + width], rows[..., other : other + width], abs(away))
    return wide.reshape(channels, height * scale, width * scale)
