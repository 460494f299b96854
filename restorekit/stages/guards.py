"""Guards for what a learned network makes of a picture: its detail, its colours and its edges, held to the input."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from restorekit.color.transfer import decode, encode
from restorekit.errors import InputError
from restorekit.stages.guard_strips import (
    MARGIN,
    STRIP,
    Original,
    Strip,
    enlarged,
    limits,
    looking_around,
    reduced,
    strips,
    taken,
    with_columns,
)
from restorekit.state import Transfer

SPLINE = (6 / 16, 4 / 16, 1 / 16)
"""The B3 spline with which the a-trous wavelet smooths: the weight of a pixel, and of those beside it."""

SPLINE_REACH = 6
"""Input px around that two levels of the wavelet look at: 2 and 4."""

SIGMA = 2.0
"""Of the Gaussian that makes low frequencies, in cells of ``STRIP`` input px: 16 input px."""

RADIUS = 5
"""Cells on either side that the Gaussian covers."""

PEDESTAL = 0.01
"""Linear light added before low frequencies are divided: far below it a cast is taken off as an offset, not a gain."""

NEUTRAL_TOLERANCE = 0.2 / 255
"""How far R-G and B-G may leave the range of the input."""

NEUTRAL_WIDENING = 0.25
"""How far they may leave it besides, as a share of that range: sharper edges have sharper colours."""

LUMA_RED, LUMA_BLUE = 0.2126, 0.0722


@dataclass(frozen=True)
class Guards:
    """Limits to what a network may change; values encoded by ``transfer``, gray or RGB.

    ``detail``, ``lock_color`` and ``overshoot`` work in this order, ``amount`` on their result. The input enlarged is
    bicubic (a = -0.5), at scale 1 the input itself.

    ``amount`` 0..1: the share of the result, the rest is the input enlarged. ``detail`` 0..1: the share of the finest
    detail that is the input's in place of the network's, where fine is what two levels of the a-trous wavelet with
    the B3 spline take off at the scale of the input (Starck, Murtagh & Fadili, Sparse Image and Signal Processing,
    2010, ch. 3). ``lock_color``: a gain a channel that varies slowly gives linear light the low frequencies (a Gaussian
    of 16 input px) of the input, and R-G and B-G keep to about the range they have in 3x3 input px, so that gray stays
    gray. ``overshoot``: values keep to the range of the channel in 3x3 input px, widened by this share of it; None
    for no limit.

    Raises InputError for values out of range.
    """

    amount: float = 1.0
    detail: float = 0.0
    lock_color: bool = False
    overshoot: float | None = None
    transfer: Transfer = "srgb"

    def __post_init__(self) -> None:
        for name, value in (("amount", self.amount), ("detail", self.detail)):
            if not 0.0 <= value <= 1.0:
                raise InputError(f"{name} is {value:g}; give a share from 0 to 1")
        if self.overshoot is not None and not 0.0 <= self.overshoot < math.inf:
            raise InputError(f"overshoot is {self.overshoot:g}; give a share of the local range, 0 or more, or None")

    @property
    def idle(self) -> bool:
        """Whether there is nothing to guard."""
        return self.amount == 1.0 and self.detail == 0.0 and not self.lock_color and self.overshoot is None

    @property
    def halo(self) -> int:
        """Input px around a pixel that its result depends on; a part of a picture begins at multiples of ``STRIP``."""
        return MARGIN + (STRIP if self.detail > 0 else 0) + ((RADIUS + 2) * STRIP if self.lock_color else 0)

    def apply(
        self, bands: Iterator[tuple[int, Tensor]], source: Callable[[int, int], Tensor], height: int, scale: int
    ) -> Iterator[tuple[int, Tensor]]:
        """The guarded output, in bands of ``8 * scale`` rows whatever the bands given: same pixels, bit by bit.

        ``bands``: (first row, ``[C,rows,scale*W]``) of the output in order, every row once, float32, about 0..1.
        ``source(top, bottom)``: these rows of the input, ``[C,rows,W]`` float32, 0..1; called more than once.
        ``height``: rows of the input. Values that are not finite are replaced by the input enlarged. About ``halo``
        rows of the input are held at the size of the output, and one strip. Results are not clamped to 0..1.

        Raises InputError where bands are missing or do not fit.
        """
        original = Original(source, height, scale)
        guarded: Iterator[Strip] = (_finite(strip, original) for strip in strips(bands, height, scale))
        if self.detail > 0:
            guarded = _with_fine_detail(guarded, original, self.detail)
        if self.lock_color:
            guarded = _with_low_frequencies(guarded, original, self.transfer)
        for strip in guarded:
            yield strip.top * scale, self._limited(strip, original)

    def _limited(self, strip: Strip, original: Original) -> Tensor:
        pixels = strip.pixels
        neutral = self.lock_color and pixels.shape[0] == 3
        if not neutral and self.overshoot is None and self.amount == 1.0:
            return pixels
        around = original.around(strip)
        if neutral:
            _keep_neutral(pixels, around, original.scale)
        if self.overshoot is not None:
            low, high = limits(around, original.scale, self.overshoot, 0.0)
            pixels = torch.minimum(torch.maximum(pixels, low), high)
        if self.amount < 1.0:
            pixels = torch.lerp(enlarged(around, original.scale), pixels, self.amount)
        return pixels


def _finite(strip: Strip, original: Original) -> Strip:
    if bool(strip.pixels.sum().isfinite()):
        return strip
    pixels = torch.where(strip.pixels.isfinite(), strip.pixels, original.enlarged(strip))
    return Strip(strip.top, strip.bottom, pixels)


def _with_fine_detail(guarded: Iterator[Strip], original: Original, share: float) -> Iterator[Strip]:
    """Fine is a picture less its smoothed self: averaged to the input's grid, two wavelet levels down, enlarged.

    All is linear, so that only the difference of the two pictures is smoothed.
    """
    scale, height = original.scale, original.height

    def measured() -> Iterator[tuple[Strip, Tensor]]:
        for strip in guarded:
            change = original.enlarged(strip) - strip.pixels
            pixels = strip.pixels.add_(change, alpha=share)
            yield Strip(strip.top, strip.bottom, pixels), reduced(change, scale)

    for strip, first, changes in looking_around(measured(), 1):
        top, bottom = strip.top - MARGIN, strip.bottom + MARGIN
        margin = MARGIN + SPLINE_REACH
        near = taken(torch.cat(changes, 1), first * STRIP, top - SPLINE_REACH, bottom + SPLINE_REACH, height)
        coarse = _smoothed(_smoothed(with_columns(near, margin), 1), 2)
        strip.pixels.sub_(enlarged(coarse, scale), alpha=share)
        yield strip


def _smoothed(planes: Tensor, spacing: int) -> Tensor:
    """A level of the a-trous wavelet, without the ``2 * spacing`` rows and columns at the edges."""
    for dim in (1, 2):
        size = planes.shape[dim] - 4 * spacing
        taps = [planes.narrow(dim, place * spacing, size) for place in range(5)]
        planes = (taps[1] + taps[3]).mul_(SPLINE[1]).add_(taps[2], alpha=SPLINE[0])
        planes.add_(taps[0] + taps[4], alpha=SPLINE[2])
    return planes


def _with_low_frequencies(guarded: Iterator[Strip], original: Original, transfer: Transfer) -> Iterator[Strip]:
    """The low frequencies of the input in linear light, by a gain that varies slowly.

    A gain and not the difference, which would leave highlights tinted and tint the shadows beside them the other way.
    The output is averaged to the input's grid as it is, encoded: networks learn from pictures reduced like that, and
    averages of linear light would take restored detail for too much light.
    """
    scale, last = original.scale, (original.height - 1) // STRIP

    def measured() -> Iterator[tuple[Strip, Tensor]]:
        for strip in guarded:
            planes = original.rows(strip.top, strip.bottom), reduced(strip.pixels, scale)
            yield strip, torch.stack([_cells(decode(encoded, transfer)) for encoded in planes])

    for strip, first, cells in looking_around(measured(), RADIUS + 1):
        index, (rows, columns) = strip.top // STRIP, strip.pixels.shape[1:]
        nearest = [max(index - 1, 0), index, min(index + 1, last)]
        wanted, found = _blurred(torch.stack(cells, 2), [place - first for place in nearest]).clamp_(min=0.0)
        gain = (wanted + PEDESTAL) / (found + PEDESTAL)
        gain = F.interpolate(gain, scale_factor=STRIP * scale, mode="linear")[..., :columns]
        place = (torch.arange(rows)[:, None] + 0.5) / (STRIP * scale) - 0.5  # in cells, from the middle of this one
        tent = (1 - (place - torch.tensor([-1, 0, 1])).abs()).clamp_(min=0)
        light = decode(strip.pixels, transfer).add_(PEDESTAL).mul_(tent @ gain).sub_(PEDESTAL)
        yield Strip(strip.top, strip.bottom, encode(light, transfer))


def _cells(light: Tensor) -> Tensor:
    """Means ``[C,cells]`` of all rows and ``STRIP`` columns; the last cell has what is left."""
    return F.avg_pool1d(light.mean(1), STRIP, ceil_mode=True, count_include_pad=False)


def _blurred(cells: Tensor, rows: list[int]) -> Tensor:
    """These rows of ``[2,C,rows,columns]``, Gaussian; at the edges of the picture what is there weighs in full."""
    apart = torch.arange(cells.shape[2]) - torch.tensor(rows)[:, None]
    down = torch.exp(-0.5 * (apart / SIGMA).square()) * (apart.abs() <= RADIUS)
    tall = (down / down.sum(1, keepdim=True)) @ cells
    along = torch.exp(-0.5 * (torch.arange(-RADIUS, RADIUS + 1) / SIGMA).square()).view(1, 1, -1)
    total = F.conv1d(torch.ones(1, 1, cells.shape[3]), along, padding=RADIUS)
    return F.conv1d(tall.reshape(-1, 1, cells.shape[3]), along, padding=RADIUS).div_(total).view_as(tall)


def _keep_neutral(pixels: Tensor, around: Tensor, scale: int) -> None:
    """Limits R-G and B-G of pixels to about their range in 3x3 px of the input, in place; the luma stays."""
    low, high = limits(around[::2] - around[1], scale, NEUTRAL_WIDENING, NEUTRAL_TOLERANCE)
    difference = pixels[::2] - pixels[1]
    change = torch.minimum(torch.maximum(difference, low), high).sub_(difference)
    pixels -= change[0] * LUMA_RED + change[1] * LUMA_BLUE
    pixels[::2] += change
