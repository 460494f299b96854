"""Luminance out of colour and colour back onto it: what operators that map luminance share."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from restorekit.stages.tone import luminance
from restorekit.state import Primaries

LEAST, MOST = 1e-9, 1e9
"""Light outside this range counts as none, or as this much."""

SHADOW_EV = 5.5
"""For the mean that exposure is set by, shadows count as no deeper than this below the 95th percentile."""

NIGHT_EV = 9.5
"""What is deeper than this below the 99th percentile (or than 6.5 stops below the 95th) is night, not to be lifted."""


def light(pixels: Tensor) -> Tensor:
    """Linear pixels ``[C,H,W]`` as a new tensor without negative, infinite or undefined values."""
    return pixels.nan_to_num(0.0, MOST, 0.0).clamp_(0.0, MOST)


def positive_luminance(clean: Tensor, primaries: Primaries) -> Tensor:
    """``[1,H,W]`` luminance of what :func:`light` gave, never 0, as a new tensor."""
    return luminance(clean, primaries).clamp(LEAST, MOST)


def recoloured(clean: Tensor, y: Tensor, target: Tensor, *, saturation: float = 1.0, peak: float = 1.0) -> Tensor:
    """Light ``[C,H,W]`` of luminance ``y`` brought to the luminance ``target`` (``[1,H,W]``, 0..``peak``), in place.

    RGB is scaled, so that the hue stays as it is in linear light. A colour that comes near to ``peak`` in one
    channel is mixed with the gray of its luminance, smoothly and ever more: bright saturated light becomes white.
    """
    if clean.shape[0] == 1:
        return clean.copy_(target * (clean > 0))
    colour = clean.mul_(target / y).sub_(target)
    if saturation != 1:
        colour.mul_(saturation)
    excess = colour.amax(0, keepdim=True).clamp_min_(0.0)
    excess.div_((peak - target).clamp_min_(1e-6)).square_().square_().add_(1.0)
    return colour.mul_(excess.sqrt_().rsqrt_()).add_(target).clamp_(0.0, peak)


def shouldered(value: Tensor, knee: float, white: float) -> Tensor:
    """Values above ``knee`` bent in place so that ``white`` becomes 1, with slope 1 at the knee; clamped at 1.

    The part above the knee is the extended Reinhard curve ``u (1 + u / w^2) / (1 + u)``.
    """
    if white <= 1:
        return value.clamp_max_(1.0)
    top = (white - knee) / (1 - knee)
    above = value.sub(knee).clamp_min_(0.0).mul_(1 / (1 - knee))
    bent = (above / top**2).add_(1.0).mul_(above).div_(above.add_(1.0)).mul_(1 - knee)
    return value.clamp_max_(knee).add_(bent).clamp_max_(1.0)


@dataclass(frozen=True)
class Range:
    """Luminances of a picture in stops: the log-average, below what it is night, and the largest."""

    mean: float
    night: float
    top: float


def range_of(stops: Tensor) -> Range:
    """What exposure and compression are set by, from luminances in stops; where all is black, all 0.

    Deep shadows count little for the mean, so that a night around a lamp, or a black border, does not burn the lamp
    out.
    """
    stops = stops[stops > math.log2(LEAST)]
    if stops.numel() == 0:
        return Range(0.0, 0.0, 0.0)
    bright, brighter = quantile(stops, 0.95), quantile(stops, 0.99)
    mean = float(stops.clamp_min(bright - SHADOW_EV).double().mean())
    return Range(mean, min(bright - 6.5, brighter - NIGHT_EV), float(stops.max()))


def quantile(plane: Tensor, share: float) -> float:
    """The value below which this share of a plane lies."""
    return float(plane.flatten().kthvalue(max(1, math.ceil(share * plane.numel()))).values)
