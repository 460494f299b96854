"""The last touches to a picture: sharpness, colourfulness, and noise against banding."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from restorekit.frame import Frame
from restorekit.stage import Reach, Stage, StageSpec, local, param, parameters
from restorekit.stages.tone import luminance


@parameters
class Sharpen(Stage):
    """Unsharp mask on luminance, added to all channels alike, so that no colour fringes arise.

    Works on linear and on encoded values (there on luma). Detail below ``threshold`` is noise and not
    amplified. The sharpened luminance stays between the least and the largest of its 3x3 neighbours, but for
    ``overshoot`` times their difference: halos cannot grow. Nothing else is clamped. For a camera that says how much
    sharpening it needs beside others (DNG BaselineSharpness), ``amount`` is multiplied by that.
    """

    spec = StageSpec(
        name="finish.sharpen",
        source="Gonzalez & Woods, Digital Image Processing, 4th ed., ch. 3.6 (unsharp masking); "
        "DNG 1.7.1, BaselineSharpness",
        accepts={"layout": ("rgb", "gray"), "reference": ("scene", "display")},
    )
    radius_px: Annotated[
        float, param("Standard deviation of the Gaussian", unit="px", ge=0.3, le=20, usual=(0.3, 3))
    ] = 0.8
    amount: Annotated[float, param("Strength", ge=0, le=5, usual=(0, 2))] = 0.7
    threshold: Annotated[float, param("Least detail that is sharpened", ge=0, le=0.2)] = 0.0
    overshoot: Annotated[float, param("Share of the local contrast by which edges may overshoot", ge=0, le=1)] = 0.1

    def _taps(self) -> list[float]:
        """Weights of a Gaussian from its middle outwards; both sides together sum to 1."""
        radius = max(1, math.ceil(2.5 * self.radius_px))
        half = [math.exp(-0.5 * (k / self.radius_px) ** 2) for k in range(radius + 1)]
        total = half[0] + 2 * sum(half[1:])
        return [weight / total for weight in half]

    def reach(self) -> Reach:
        return local(len(self._taps()) - 1)

    def apply(self, frame: Frame) -> Frame:
        amount = self.amount * frame.camera.baseline_sharpness
        if amount == 0:
            return frame
        taps = self._taps()
        radius = len(taps) - 1
        height, width = frame.height, frame.width
        y = F.pad(luminance(frame.pixels, frame.state.primaries), (radius,) * 4, mode="replicate")[0]
        blurred = y[radius : radius + height] * taps[0]
        for k in range(1, radius + 1):
            blurred.add_(y[radius - k :][:height], alpha=taps[k]).add_(y[radius + k :][:height], alpha=taps[k])
        rows, blurred = blurred, blurred[:, radius : radius + width] * taps[0]
        for k in range(1, radius + 1):
            blurred.add_(rows[:, radius - k :][:, :width], alpha=taps[k])
            blurred.add_(rows[:, radius + k :][:, :width], alpha=taps[k])
        around = y[radius - 1 : radius + height + 1, radius - 1 : radius + width + 1]
        middle = around[1:-1, 1:-1]
        detail = torch.sub(middle, blurred, out=blurred).mul_(amount)
        if self.threshold:
            detail -= detail.clamp(-self.threshold * amount, self.threshold * amount)
        low, high = _neighbours(around, torch.minimum), _neighbours(around, torch.maximum)
        margin = (high - low).mul_(self.overshoot)
        low.sub_(margin).sub_(middle)
        high.add_(margin).sub_(middle)
        detail = torch.maximum(torch.minimum(detail, high, out=high), low, out=low)
        return frame.with_pixels(frame.pixels + detail)


def _neighbours(padded: Tensor, extreme: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The extreme of every 3x3 neighbourhood: ``[H+2,W+2]`` gives ``[H,W]``."""
    rows = extreme(extreme(padded[:-2], padded[1:-1]), padded[2:])
    return extreme(extreme(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])


@parameters
class Saturation(Stage):
    """More or less colour, luminance (of encoded values: luma) kept.

    ``saturation`` scales the distance from gray of all colours alike; ``vibrance`` that of weak colours most,
    and leaves fully saturated ones alone. Nothing is clamped.
    """

    spec = StageSpec(
        name="finish.saturation",
        source="Haeberli & Voorhies, Image Processing by Linear Interpolation and Extrapolation, IRIS Universe (1994)",
        accepts={"layout": ("rgb",), "reference": ("scene", "display")},
    )
    saturation: Annotated[float, param("Scale of all colours; 0 is gray, 1 leaves them", ge=0, le=4, usual=(0, 2))] = (
        1.0
    )
    vibrance: Annotated[float, param("Additional scale of weak colours", ge=-1, le=2)] = 0.0

    def apply(self, frame: Frame) -> Frame:
        x = frame.pixels
        y = luminance(x, frame.state.primaries)
        if self.vibrance == 0:
            return frame if self.saturation == 1 else frame.with_pixels(torch.lerp(y, x, self.saturation))
        high = x.amax(0, keepdim=True).clamp_min_(1e-9)
        weakness = x.amin(0, keepdim=True).clamp_min_(0.0).div_(high)  # 1 - HSV saturation
        factor = weakness.mul_(self.vibrance).add_(1.0).mul_(self.saturation)
        return frame.with_pixels((x - y).mul_(factor).add_(y))


@parameters
class Dither(Stage):
    """Triangular noise of one code value, so that rounding to few bits shows no bands.

    The noise is interleaved gradient noise, whose neighbours differ as much as possible, remapped to a
    triangular distribution in -1..1 code values, which makes the mean and the variance of the rounding error
    independent of the signal. It depends on the position in the image alone: the same image gives the same
    bytes. Nothing is clamped.
    """

    spec = StageSpec(
        name="finish.dither",
        source="Jimenez, Next Generation Post Processing in Call of Duty: Advanced Warfare, SIGGRAPH 2014 (noise); "
        "Lipshitz, Wannamaker & Vanderkooy, Quantization and Dither, J. Audio Eng. Soc. 40 (1992)",
        accepts={"reference": ("display",), "transfer": ("srgb", "gamma", "pq", "hlg"), "layout": ("rgb", "gray")},
    )
    bits: Annotated[int, param("Bits a channel of the file that will be written", ge=1, le=16)] = 8

    def apply(self, frame: Frame) -> Frame:
        top = frame.region.top if frame.region else 0
        step = 1.0 / (2**self.bits - 1)
        result = torch.empty_like(frame.pixels)
        for plane, slope, noisy in zip(frame.pixels, NOISE_SLOPES, result, strict=False):
            noise = _gradient_noise(slope, top, frame.height, frame.width).to(plane.device)
            torch.add(plane, _triangular(noise), alpha=step, out=noisy)
        return frame.with_pixels(result)


NOISE_SLOPES = ((0.00583715, 0.06711056), (0.06711056, 0.00583715), (0.00583715, 1 - 0.06711056))
"""How interleaved gradient noise grows along rows and columns: as published, transposed, and mirrored."""


def _gradient_noise(slope: tuple[float, float], top: int, height: int, width: int) -> Tensor:
    """Interleaved gradient noise ``[H,W]`` in 0..1, a function of row and column alone."""
    rows = torch.arange(top, top + height, dtype=torch.float64).mul_(slope[0]).frac_()
    columns = torch.arange(width, dtype=torch.float64).mul_(slope[1]).frac_()
    return (rows.float()[:, None] + columns.float()).frac_().mul_(52.9829189).frac_()


def _triangular(uniform: Tensor) -> Tensor:
    """Numbers spread evenly over 0..1 as numbers of a triangular distribution over -1..1 (inverse CDF)."""
    signed = uniform.mul_(2.0).sub_(1.0)
    size = 1.0 - (1.0 - signed.abs()).clamp_min_(0.0).sqrt_()
    return size.copysign_(signed)
