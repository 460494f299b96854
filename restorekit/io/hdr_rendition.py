"""The HDR rendition that goes with a standard picture of the same scene.

Given the standard picture (linear, 0..1, luminance ``S``) and the light of the scene (linear, luminance ``Y``), the
rendition is the standard picture up to its mid-tones, and above them goes over to light in proportion to the scene::

    r = shoulder(k Y)                                  scene light on the scale of the display, at most the peak P
    T = max(r, S)                                      an HDR display never shows less
    w = smoothstep(log2 S; log2 0.18 .. log2 0.7)      0 up to the mid-tones
    c = lerp(sdr / S, scene / Y; smoothstep(r / S; 0.5 .. 1))
    H = sdr + w (T c - sdr)                            luminance S + w (T - S)

- ``k`` is the exposure: ``2 ** median(log2(S / Y))`` over the mid-tones of the standard picture, whose tone mapping may
  be a local one. ``P`` is ``2 ** headroom``, or the brightest of the scene where that is less.
- The shoulder is straight up to half of the peak, then the curve of Reinhard et al. (Photographic Tone Reproduction for
  Digital Images, SIGGRAPH 2002, eq. 4) that meets it with the same slope and brings the brightest light to the peak.
- ``c`` is colour at luminance 1: that of the scene, or of the standard picture where this was lifted far above it.
  What lies outside of the gamut or above the peak moves towards gray of the same luminance until it does not.

All of it is continuous, so no edge of a threshold shows; for one ``S`` it is monotone in ``Y``, and along a global
tone curve as well, as ``S``, ``w`` and ``T`` are. Values of a display that is HDR already are taken as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from restorekit.color.primaries import luminance
from restorekit.state import Primaries

MIDDLE_GRAY, FULL_BLEND = 0.18, 0.7
"""Luminance of the standard picture up to which nothing changes, and from which scene light stands alone."""

_MID_TONES = (0.05, 0.5)
_ENOUGH = 64
_TINY = 1e-6


@dataclass(frozen=True)
class SceneScale:
    """How scene light lies on the scale of a display: ``exposure`` multiplies it, to ``brightest`` at most.

    ``peak`` is the largest value of the rendition, at least 1.
    """

    exposure: float = 1.0
    peak: float = 1.0
    brightest: float = 1.0


def scene_scale(sdr: Tensor, scene: Tensor, brightest: float, headroom_ev: float) -> SceneScale:
    """The scale on which scene luminances meet those of the standard picture, both samples ``[N]`` of the same pixels.

    ``brightest`` is the largest luminance of the scene. Where there are no mid-tones all that is not black counts, and
    where nothing is, the scale is 1.
    """
    lit = (scene > 0) & (sdr > 0) & scene.isfinite()
    mid = lit & (sdr > _MID_TONES[0]) & (sdr < _MID_TONES[1])
    chosen = mid if int(mid.sum()) >= min(_ENOUGH, sdr.numel() // 2) and bool(mid.any()) else lit
    ratios = sdr[chosen].log2() - scene[chosen].log2()
    exposure = 2.0 ** float(ratios.median()) if ratios.numel() else 1.0
    most = max(brightest * exposure, 1.0) if math.isfinite(brightest) else 2.0**headroom_ev
    return SceneScale(exposure, min(2.0**headroom_ev, most), most)


def shoulder(light: Tensor, scale: SceneScale) -> Tensor:
    """Exposed light of any shape as the display shows it: straight to half the peak, then bent to meet it."""
    knee = scale.peak / 2
    white = (scale.brightest - knee) / (scale.peak - knee)
    above = (light - knee).clamp_min_(0.0).mul_(1 / (scale.peak - knee)).clamp_max_(white)
    bent = (above * (1 / white**2)).add_(1.0).mul_(above).div_(above + 1.0).mul_(scale.peak - knee)
    return bent.add_(light.clamp(max=knee))


def rendition(sdr: Tensor, scene: Tensor, primaries: Primaries, scale: SceneScale) -> Tensor:
    """The HDR rendition ``[3,H,W]``, linear, 0..``scale.peak``, 1.0 = diffuse white; see the formula of this module.

    ``sdr`` ``[3,H,W]`` is linear, 0..1; ``scene`` ``[3,H,W]`` finite linear light of the same primaries.
    """
    base = luminance(sdr, primaries)
    exposed = luminance(scene, primaries).clamp_min_(0.0).mul_(scale.exposure)
    shown = shoulder(exposed, scale)
    target = torch.maximum(shown, base)
    share = smoothstep(base.clamp_min(_TINY).log2_(), math.log2(MIDDLE_GRAY), math.log2(FULL_BLEND))
    own = smoothstep(shown / base.clamp_min(_TINY), 0.5, 1.0)
    color = sdr / base.clamp_min(_TINY)
    color += (scene * (scale.exposure / exposed.clamp_min(_TINY)) - color).mul_(own)
    light = _fitted(color.mul_(target), target, scale.peak)
    return light.sub_(sdr).mul_(share).add_(sdr)


def smoothstep(values: Tensor, start: float, end: float) -> Tensor:
    """0 up to ``start``, 1 from ``end``, in between a cubic without a bend at either."""
    t = ((values - start) / (end - start)).clamp_(0.0, 1.0)
    return (3.0 - 2.0 * t).mul_(t).mul_(t)


def _fitted(rgb: Tensor, gray: Tensor, peak: float) -> Tensor:
    """RGB mixed in place with gray of its luminance just so far that it lies in 0..``peak``."""
    over = rgb.amax(0, keepdim=True).sub_(gray).clamp_min_(_TINY)
    under = (gray - rgb.amin(0, keepdim=True)).clamp_min_(_TINY)
    share = torch.minimum((peak - gray).div_(over), gray / under).clamp_(0.0, 1.0)
    return rgb.sub_(gray).mul_(share).add_(gray)
