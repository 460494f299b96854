"""Exposure fusion: the best exposed parts of a bracket in one picture, without going through radiance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from restorekit.errors import StageError
from restorekit.facts import Facts
from restorekit.frame import Bracket, Frame
from restorekit.planes import strip_rows, to_float
from restorekit.stage import BracketStage, StageSpec, param, parameters
from restorekit.stages.tone import luminance
from restorekit.state import Primaries

HALO_ROWS = 4
"""Rows around a strip that its weights (1) and the pyramid kernel (2) look at, even."""


@parameters
class Mertens(BracketStage):
    """Exposure fusion by Mertens, Kautz and Van Reeth, from encoded frames to one encoded frame.

    Every pixel of every frame is weighted by local contrast, saturation and nearness to 0.5, each to the power
    of its parameter (all 1 in the paper); the frames are blended with these weights in a Laplacian pyramid.
    The frames must be aligned. The result has metadata, exposure and alpha of the bracket's reference frame;
    masks and facts are dropped. The sum of the pyramid is clamped to the range of the frames, at least 0..1.

    The finest level is computed strip by strip from the frames as they are stored, so that no frame and no
    weight exists as floats at full size.

    Raises StageError when there are fewer than two frames, or frames that differ in size or state.
    """

    spec = StageSpec(
        name="fusion.mertens",
        source="Mertens, Kautz & Van Reeth, Exposure Fusion, Pacific Graphics 2007",
        accepts={
            "frames": ("bracket",),
            "reference": ("display",),
            "transfer": ("srgb", "gamma"),
            "layout": ("rgb",),
        },
        emits={"frames": "single"},
    )
    contrast: Annotated[float, param("Exponent of local contrast", ge=0, le=4)] = 1.0
    saturation: Annotated[float, param("Exponent of saturation", ge=0, le=4)] = 1.0
    exposedness: Annotated[float, param("Exponent of nearness to middle brightness", ge=0, le=4)] = 1.0
    sigma: Annotated[float, param("Width of what counts as well exposed, around 0.5", gt=0.01, le=2)] = 0.2

    def combine(self, bracket: Bracket) -> Frame:
        reference = bracket.reference.upright()
        frames = [frame.upright() for frame in bracket]
        self._check_bracket(frames, reference)
        low, high = _range(frames)
        halves, half_weights = self._halved(frames)
        coarse = _blended(halves, half_weights)
        del half_weights
        pixels = torch.empty_like(reference.pixels, dtype=torch.float32)
        for top, bottom in _strips(reference):
            strips, weights, inner = self._weighted(frames, top, bottom)
            rows = up(coarse, top, bottom, reference.width)
            for strip, weight, small in zip(strips, weights, halves, strict=True):
                detail = strip[:, inner] - up(small, top, bottom, reference.width)
                rows.addcmul_(detail, weight[inner])
            pixels[:, top:bottom] = rows.clamp_(low, high)
        notes = tuple(dict.fromkeys(note for frame in frames for note in frame.notes))
        state = self.emits(reference.state)
        return replace(reference, pixels=pixels, state=state, masks={}, facts=Facts(), notes=notes)

    def _check_bracket(self, frames: Sequence[Frame], reference: Frame) -> None:
        if len(frames) < 2:
            raise StageError(f"{reference.name}: {self.spec.name} needs at least two exposures, this is one frame")
        for frame in frames:
            self.check(frame)
            if (frame.height, frame.width) != (reference.height, reference.width):
                raise StageError(
                    f"{frame.name}: is {frame.width}x{frame.height}, {reference.name} is "
                    f"{reference.width}x{reference.height}; {self.spec.name} needs frames of one size: "
                    "take the odd one out of the bracket, or group the files anew"
                )
            if frame.state != reference.state:
                raise StageError(
                    f"{frame.name}: is {frame.state}, {reference.name} is {reference.state}; "
                    f"{self.spec.name} needs frames of one kind: convert the odd one, or take it out"
                )

    def _halved(self, frames: Sequence[Frame]) -> tuple[list[Tensor], list[Tensor]]:
        """Every frame ``[3,h,w]`` and every normalised weight ``[1,h,w]`` at half size."""
        height, width = (frames[0].height + 1) // 2, (frames[0].width + 1) // 2
        halves = [torch.empty(3, height, width) for _ in frames]
        half_weights = [torch.empty(1, height, width) for _ in frames]
        for top, bottom in _strips(frames[0]):
            strips, weights, inner = self._weighted(frames, top, bottom)
            rows = slice(inner.start // 2, (inner.stop + 1) // 2)
            for strip, weight, small, small_weight in zip(strips, weights, halves, half_weights, strict=True):
                small[:, top // 2 : (bottom + 1) // 2] = down(strip)[:, rows]
                small_weight[:, top // 2 : (bottom + 1) // 2] = down(weight[None])[:, rows]
        return halves, half_weights

    def _weighted(self, frames: Sequence[Frame], top: int, bottom: int) -> tuple[list[Tensor], list[Tensor], slice]:
        """Strips ``[3,h,w]`` with some rows around ``top..bottom``, weights ``[h,w]`` of sum 1, and where they lie."""
        start, stop = max(0, top - HALO_ROWS), min(frames[0].height, bottom + HALO_ROWS)
        strips = [to_float(frame.pixels[:, start:stop]) for frame in frames]
        weights = [self._weight(strip, frame.state.primaries) for strip, frame in zip(strips, frames, strict=True)]
        total = weights[0].clone()
        for weight in weights[1:]:
            total += weight
        for weight in weights:
            weight /= total
        return strips, weights, slice(top - start, bottom - start)

    def _weight(self, rgb: Tensor, primaries: Primaries) -> Tensor:
        """The quality ``[h,w]`` of every pixel, above 0."""
        weight = torch.full(rgb.shape[1:], 1.0)
        if self.exposedness:
            distance = (rgb[0] - 0.5).square_()
            for plane in rgb[1:]:
                distance.add_((plane - 0.5).square_())
            weight = distance.mul_(-0.5 * self.exposedness / self.sigma**2).exp_()
        if self.saturation:
            mean = (rgb[0] + rgb[1]).add_(rgb[2]).mul_(1 / 3)
            variance = (rgb[0] - mean).square_()
            for plane in rgb[1:]:
                variance.add_((plane - mean).square_())
            weight.mul_(_power(variance.mul_(1 / 3), self.saturation / 2))
        if self.contrast:
            gray = F.pad(luminance(rgb, primaries), (1, 1, 1, 1), mode="replicate")[0]
            across = gray[1:-1, :-2] + gray[1:-1, 2:]
            laplacian = across.add_(gray[:-2, 1:-1]).add_(gray[2:, 1:-1]).sub_(gray[1:-1, 1:-1], alpha=4.0)
            weight.mul_(_power(laplacian.abs_(), self.contrast))
        return weight.add_(1e-12)


def _power(values: Tensor, exponent: float) -> Tensor:
    """Values >= 0 to a power, in place."""
    if exponent == 1:
        return values
    return values.sqrt_() if exponent == 0.5 else values.pow_(exponent)


def _range(frames: Sequence[Frame]) -> tuple[float, float]:
    """The least and the largest value of the frames, at most 0 and at least 1: colours outside the gamut go beyond."""
    floats = [frame.pixels for frame in frames if frame.pixels.dtype.is_floating_point]
    values = [float(extreme) for pixels in floats for extreme in torch.aminmax(pixels)]
    return min(0.0, *values, 0.0), max(1.0, *values, 1.0)


def _strips(frame: Frame) -> list[tuple[int, int]]:
    """First and last row (exclusive) of the strips of a frame; the first is even."""
    step = strip_rows(frame.width)
    return [(top, min(top + step, frame.height)) for top in range(0, frame.height, step)]


def _blended(images: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """Images ``[3,h,w]`` blended by weights ``[1,h,w]`` in a Laplacian pyramid."""
    levels = int(math.log2(min(images[0].shape[1:])))
    blend: list[Tensor] = []
    for start, start_weight in zip(images, weights, strict=True):
        image, weight = start, start_weight
        for level in range(levels + 1):
            if len(blend) == level:
                blend.append(torch.zeros_like(image))
            if level == levels:
                blend[level].addcmul_(image, weight)
                break
            coarser = down(image)
            for out, plane, low in zip(blend[level], image, coarser, strict=True):  # one by one: small temporaries
                out.addcmul_(plane - up(low[None], 0, *plane.shape)[0], weight[0])
            image, weight = coarser, down(weight)
    result = blend.pop()
    while blend:
        finer = blend.pop()
        result = finer.add_(up(result, 0, finer.shape[1], finer.shape[2]))
    return result


def down(planes: Tensor) -> Tensor:
    """``[C,H,W]`` smoothed by the binomial kernel (1 4 6 4 1)/16 and halved (Burt & Adelson 1983), edges reflected."""
    height, width = planes.shape[1:]
    mode = "reflect" if min(height, width) > 2 else "replicate"
    padded = F.pad(planes[None], (2, 2, 2, 2), mode=mode)[0]
    rows = _binomial([padded[:, k : k + height : 2] for k in range(5)])
    return _binomial([rows[:, :, k : k + width : 2] for k in range(5)])


def _binomial(taps: Sequence[Tensor]) -> Tensor:
    result = (taps[0] + taps[4]).mul_(1 / 16)
    result.add_(taps[1], alpha=4 / 16).add_(taps[3], alpha=4 / 16)
    return result.add_(taps[2], alpha=6 / 16)


def up(planes: Tensor, top: int, bottom: int, width: int) -> Tensor:
    """The rows ``top..bottom`` (``top`` even) of ``[C,H,W]`` doubled and smoothed by the binomial kernel."""
    first, last = top // 2, (bottom + 1) // 2
    index = torch.arange(first - 1, last + 1).clamp_(0, planes.shape[1] - 1)
    source = F.pad(planes[:, index], (1, 1, 0, 0), mode="replicate")
    rows = source.new_empty((planes.shape[0], 2 * (last - first), source.shape[2]))
    _interpolated(source[:, :-2], source[:, 1:-1], source[:, 2:], rows[:, 0::2], rows[:, 1::2])
    wide = rows.new_empty((planes.shape[0], rows.shape[1], 2 * planes.shape[2]))
    _interpolated(rows[:, :, :-2], rows[:, :, 1:-1], rows[:, :, 2:], wide[:, :, 0::2], wide[:, :, 1::2])
    return wide[:, : bottom - top, :width]


def _interpolated(before: Tensor, here: Tensor, after: Tensor, even: Tensor, odd: Tensor) -> None:
    """The two halves of doubling: ``(1 6 1)/8`` on the old samples, ``(1 1)/2`` between them."""
    torch.add(before, after, out=even).mul_(1 / 8).add_(here, alpha=6 / 8)
    torch.add(here, after, out=odd).mul_(1 / 2)
