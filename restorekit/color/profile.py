"""How a camera profile changes colours (DNG 1.7.1, chapter 6): hue, saturation and value by a table, tone by a curve.

Both act on linear RGB with the primaries of ProPhoto (RIMM), white D50. The specification clips to 0..1 on the way;
here only what is said below is clipped, so that light above white and colours outside of ProPhoto stay.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from restorekit.color.transfer import decode, encode
from restorekit.facts import Table

Encoding = Literal["linear", "srgb"]
"""How the value steps of a table are spaced: on linear light, or on its sRGB encoding."""

_DARKEST = 1e-9
"""Values are divided by at least this."""


def hue_sat_mapped(rgb: Tensor, table: Table, encoding: Encoding = "linear") -> Tensor:
    """Linear ProPhoto RGB ``[3,H,W]`` after a table ``[V,H,S,3]`` of hue shift (degrees), saturation and value factors.

    A pixel's place in the table is that of its HSV hexcone coordinates, interpolated trilinearly; hue wraps around,
    saturation and value beyond the table take its end. Grays keep their hue, so all that moves them is a value factor.

    Light above 1 is scaled like the brightest that the table knows, never clipped; a table without value steps
    scales with exposure. A colour with a negative component counts as fully saturated in the table; its saturation
    may be lowered but not raised. Others are raised to 1 at most, as the specification says. The result is finite
    where the input is.
    """
    high, low = rgb.amax(0), rgb.amin(0)
    gap = high - low
    hue = _hexcone_hue(rgb, low, gap)
    saturation = gap / high.clamp_min(_DARKEST)
    shift, saturate, scale = _looked_up(table, hue, saturation.clamp_(0.0, 1.0), high, encoding)
    hue.add_(shift, alpha=1 / 60)
    hue.sub_(torch.floor(hue * (1 / 6)), alpha=6.0)
    chroma = torch.minimum(saturate.mul_(gap), torch.maximum(gap, high, out=gap), out=gap).mul_(scale)
    floor = high.mul_(scale).sub_(chroma)
    result = torch.empty_like(rgb)
    for plane, middle in zip(result, (3.0, 2.0, 4.0), strict=True):  # how full a channel is, by the hue's distance
        torch.sub(hue, middle, out=plane).abs_()
        plane = plane.sub_(1.0) if middle == 3.0 else plane.neg_().add_(2.0)
        plane.clamp_(0.0, 1.0).mul_(chroma).add_(floor)
    return result


def is_identity(table: Table) -> bool:
    """Whether a table ``[V,H,S,3]`` changes nothing."""
    return bool((table == np.array([0.0, 1.0, 1.0], np.float32)).all())


def _hexcone_hue(rgb: Tensor, low: Tensor, gap: Tensor) -> Tensor:
    """Hue ``[H,W]`` in 0..6, red at 0 and 6, green at 2, blue at 4; of grays, any.

    With channels scaled to 0 (the least) and 1 (the largest), its distance from cyan is ``2 + r - g - b`` all around
    the circle, and green and blue tell the side.
    """
    red, green, blue = rgb
    from_cyan = torch.sub(red, green).sub_(blue).add_(low).div_(gap.clamp_min(_DARKEST)).add_(2.0).clamp_(0.0, 3.0)
    return from_cyan.copysign_(blue - green).add_(3.0)


def _looked_up(
    table: Table, hue: Tensor, saturation: Tensor, value: Tensor, encoding: Encoding
) -> tuple[Tensor, Tensor, Tensor]:
    """Hue shift, saturation factor and value factor ``[H,W]`` at hue 0..6, saturation 0..1 and any value.

    The steps of value lie below each other in one image of hue (rows, the first repeated after the last) by
    saturation (columns), which is sampled bilinearly, once for the step below the value and once for that above.
    """
    steps, hues, _, _ = table.shape
    wrapped = np.concatenate((table, table[:, :1]), 1).reshape(steps * (hues + 1), -1, 3)
    image = torch.from_numpy(np.ascontiguousarray(wrapped.transpose(2, 0, 1)))[None].to(hue.device)
    row = hue * (hues / 6)
    if steps == 1:
        shift, saturate, scale = _sampled(image, row, saturation)
        return shift, saturate, scale
    light = value.clamp_min(_DARKEST)
    encoded = encode(light, "srgb") if encoding == "srgb" else light
    place = encoded.clamp(0.0, 1.0).mul_(steps - 1)
    step = torch.floor(place).clamp_max_(steps - 2)
    row.add_(step, alpha=hues + 1)
    below, above = _sampled(image, row, saturation), _sampled(image, row + (hues + 1), saturation)
    shift, saturate, scale = below.lerp_(above, place - step)
    if encoding == "srgb":
        scale = decode(encoded.mul_(scale), "srgb").div_(light)
    return shift, saturate, scale


def _sampled(image: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """``[3,H,W]`` of an image ``[1,3,h,w]`` at fractional rows and at columns 0..1, bilinear."""
    grid = torch.empty((1, *row.shape, 2), device=row.device)
    torch.mul(column, 2.0, out=grid[0, ..., 0]).sub_(1.0)
    torch.mul(row, 2.0 / (image.shape[2] - 1), out=grid[0, ..., 1]).sub_(1.0)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=True)[0]


CURVE_ENTRIES = 4096


def tone_curve_table(points: Table) -> NDArray[np.float32]:
    """Linear output ``[4096]`` of a curve of points ``[N,2]`` (input rising, output), evenly spaced on the square root
    of linear input 0..1.

    The curve is the natural cubic spline through the points: smooth in its second derivative, which is zero at both
    ends (DNG 1.7.1, ProfileToneCurve; the spline of Adobe's DNG SDK). Beyond the points it keeps their last value.
    """
    return _curve_table(np.asarray(points, np.float32).tobytes())


@lru_cache(maxsize=8)
def _curve_table(points: bytes) -> NDArray[np.float32]:
    x, y = np.frombuffer(points, np.float32).reshape(-1, 2).astype(np.float64).T
    return _natural_spline(x, y, np.linspace(0.0, 1.0, CURVE_ENTRIES) ** 2).astype(np.float32)


def tone_mapped(rgb: Tensor, table: NDArray[np.float32]) -> Tensor:
    """Linear ProPhoto RGB ``[3,H,W]``, clamped to 0..1, after a curve of :func:`tone_curve_table`.

    The largest and the smallest channel follow the curve, the one between keeps its relative place: the hue of the
    hexcone stays (as in Adobe's DNG SDK).
    """
    x = rgb.clamp(0.0, 1.0)
    curve = torch.from_numpy(table).to(rgb.device)
    low, high = x.amin(0), x.amax(0)
    new_low, new_high = _on_curve(low, curve), _on_curve(high, curve)
    spread = (new_high - new_low).div_((high - low).clamp_min_(1e-7))
    return x.sub_(low).mul_(spread).add_(new_low)


def _on_curve(values: Tensor, curve: Tensor) -> Tensor:
    position = values.sqrt().mul_(CURVE_ENTRIES - 1)
    index = position.to(torch.int32).clamp_max_(CURVE_ENTRIES - 2)
    return torch.lerp(curve[index], curve[index + 1], position.sub_(index))


def _natural_spline(x: NDArray[np.float64], y: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """The cubic spline through ``y`` at rising ``x``, second derivatives at its ends zero, constant outside of them."""
    steps = np.diff(x)
    secants = np.diff(y) / steps
    bends = np.zeros_like(x)  # second derivatives, by the tridiagonal algorithm
    shares = np.zeros_like(x)
    for k in range(1, len(x) - 1):
        pivot = 2 * (steps[k - 1] + steps[k]) - steps[k - 1] * shares[k - 1]
        shares[k] = steps[k] / pivot
        bends[k] = (6 * (secants[k] - secants[k - 1]) - steps[k - 1] * bends[k - 1]) / pivot
    for k in range(len(x) - 2, 0, -1):
        bends[k] -= shares[k] * bends[k + 1]
    at = np.clip(at, x[0], x[-1])
    left = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(steps) - 1)
    t = at - x[left]
    slope = secants[left] - steps[left] * (2 * bends[left] + bends[left + 1]) / 6
    cubic = (bends[left + 1] - bends[left]) / (6 * steps[left])
    return np.asarray(y[left] + t * (slope + t * (bends[left] / 2 + t * cubic)))
