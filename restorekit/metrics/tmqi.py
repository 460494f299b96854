"""TMQI: how well an SDR picture renders an HDR image.

H. Yeganeh, Z. Wang: Objective Quality Assessment of Tone-Mapped Images, IEEE TIP 22(2), 2013. Written from the paper,
with what it leaves open as its authors' program does it: the HDR luminance is normalised linearly, its smallest value
to 0 and its largest to 2^32 - 1, and the local contrast of the naturalness is that of blocks of 11x11 px side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from restorekit.metrics.window import WINDOW, moments, window_strips, windows_inside
from restorekit.planes import strip_rows

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of the five scales, each half as large as the one before (those of MS-SSIM)."""

FREQUENCIES = (16, 8, 4, 2, 1)
"""Cycles per degree that the five scales stand for, seen from where a degree has 32 px."""

MINIMUM = (WINDOW - 1) * 2 ** (len(SCALE_WEIGHTS) - 1) + 1
"""The shortest side in px for which the window fits into the smallest scale."""

HDR_RANGE = 2.0**32 - 1
SHARE, FIDELITY_POWER, NATURALNESS_POWER = 0.8012, 0.3046, 0.7088
BRIGHTNESS_MEAN, BRIGHTNESS_DEVIATION = 115.94, 27.99
CONTRAST_ALPHA, CONTRAST_BETA, CONTRAST_RANGE = 4.4, 10.1, 64.29

_C1, _C2 = 0.01, 10.0
_ROUNDING = 64 * torch.finfo(torch.float64).eps
"""Share of the mean square below which a local variance is nothing but rounding of float64 sums."""


@dataclass(frozen=True)
class Tmqi:
    """``quality`` 0..1 from structural ``fidelity`` 0..1 and statistical ``naturalness`` 0..1.

    ``scales`` is the fidelity -1..1 at each scale, finest first.
    """

    quality: float
    fidelity: float
    naturalness: float
    scales: tuple[float, ...]


def tmqi(hdr: Tensor, sdr: Tensor, valid: Tensor | None = None) -> Tmqi:
    """The tone-mapped image quality index of an SDR picture and the HDR image that it renders.

    ``hdr`` is linear luminance ``[H,W]`` of any scale, ``sdr`` the luma of encoded values, 0..255, both at least
    161 px high and wide. Pixels that are not among the ``valid`` ones, bool ``[H,W]``, are left out, with every window
    and block that holds one; coarser scales average those that are left. In float64, strip by strip.

    Raises ValueError for different shapes, smaller images, values that are not finite, or no window without a gap.
    """
    if hdr.shape != sdr.shape or hdr.ndim != 2:
        raise ValueError(f"TMQI needs two [H,W] images of one shape, got {tuple(hdr.shape)} and {tuple(sdr.shape)}")
    if min(hdr.shape) < MINIMUM:
        raise ValueError(f"TMQI needs at least {MINIMUM}x{MINIMUM} px, got {hdr.shape[1]}x{hdr.shape[0]}")
    if valid is not None and bool(valid.all()):
        valid = None
    a, b = _normalised(hdr, valid), sdr if valid is None else torch.where(valid, sdr, 0)
    natural = naturalness(b, valid)
    scales = []
    for frequency in FREQUENCIES:
        scales.append(_fidelity(a, b, valid, frequency))
        if frequency != FREQUENCIES[-1]:
            a, b, valid = _halved(a, valid), _halved(b, valid), _halved_mask(valid)
    fidelity = math.prod(max(s, 0.0) ** weight for s, weight in zip(scales, SCALE_WEIGHTS, strict=True))
    quality = SHARE * fidelity**FIDELITY_POWER + (1 - SHARE) * natural**NATURALNESS_POWER
    return Tmqi(quality, fidelity, natural, tuple(scales))


def naturalness(sdr: Tensor, valid: Tensor | None = None) -> float:
    """How likely mean brightness and mean local contrast of luma ``[H,W]``, 0..255, are for a photograph, 0..1.

    The product of two densities over their maxima (equations 11 to 14): normal for brightness, beta for contrast.
    """
    count, brightness = 0, 0.0
    blocks, contrast = 0, 0.0
    rows = max(1, strip_rows(sdr.shape[1]) // WINDOW) * WINDOW
    for top in range(0, sdr.shape[0], rows):
        strip = sdr[top : top + rows].double()
        kept = None if valid is None else valid[top : top + rows]
        brightness += float(strip.sum() if kept is None else strip[kept].sum())
        count += strip.numel() if kept is None else int(kept.sum())
        if strip.shape[0] < WINDOW:
            break
        deviations = _blocks(strip).var(dim=(1, 3)).sqrt()
        if kept is not None:
            deviations = deviations[_blocks(kept).all(3).all(1)]
        contrast += float(deviations.sum())
        blocks += deviations.numel()
    if not blocks:
        raise ValueError("TMQI finds no block of 11x11 px without a gap")
    away = (brightness / count - BRIGHTNESS_MEAN) / BRIGHTNESS_DEVIATION
    mode = (CONTRAST_ALPHA - 1) / (CONTRAST_ALPHA + CONTRAST_BETA - 2)
    spread = min(contrast / blocks / CONTRAST_RANGE, 1.0)
    likely = (spread / mode) ** (CONTRAST_ALPHA - 1) * ((1 - spread) / (1 - mode)) ** (CONTRAST_BETA - 1)
    return float(math.exp(-away * away / 2) * likely)


def _blocks(strip: Tensor) -> Tensor:
    """Whole blocks of a strip as ``[down,11,across,11]``."""
    down, across = strip.shape[0] // WINDOW, strip.shape[1] // WINDOW
    return strip[: down * WINDOW, : across * WINDOW].reshape(down, WINDOW, across, WINDOW)


def _normalised(hdr: Tensor, valid: Tensor | None) -> Tensor:
    """HDR luminance as float32, 0..2^32 - 1; 0 where it is not valid."""
    kept = hdr if valid is None else hdr[valid]
    if not kept.numel():
        raise ValueError("TMQI finds no pixel that is valid")
    low, high = (float(edge) for edge in kept.aminmax())
    if not math.isfinite(high - low):
        raise ValueError("TMQI needs finite luminances")
    gain = HDR_RANGE / (high - low) if high > low else 0.0
    result = torch.empty(hdr.shape, dtype=torch.float32, device=hdr.device)
    step = strip_rows(hdr.shape[1])
    for top in range(0, hdr.shape[0], step):
        strip = hdr[top : top + step].double()
        if valid is not None:
            strip = torch.where(valid[top : top + step], strip, low)
        result[top : top + step] = strip.sub(low).mul_(gain)
    return result


def _fidelity(hdr: Tensor, sdr: Tensor, valid: Tensor | None, frequency: float) -> float:
    """The mean local structural fidelity at one scale (equations 1 to 8)."""
    sensitivity = 100 * 2.6 * (0.0192 + 0.114 * frequency) * math.exp(-((0.114 * frequency) ** 1.1))
    threshold = 128 / (math.sqrt(2) * sensitivity)
    total, count = 0.0, 0
    for rows in window_strips(*hdr.shape):
        score = _local(hdr[rows].double(), sdr[rows].double(), threshold)
        if valid is not None:
            score = score[windows_inside(valid[rows])]
        total += float(score.sum())
        count += score.numel()
    if not count:
        raise ValueError("TMQI finds no window of 11x11 px without a gap")
    return total / count


def _local(hdr: Tensor, sdr: Tensor, threshold: float) -> Tensor:
    """Fidelity of each window: visible contrast stays visible and invisible one invisible, times structure.

    Deviations count as visible by a normal distribution about the threshold, with a third of it for sigma.
    """
    mean_a, mean_b, var_a, var_b, both = moments(hdr, sdr)
    dev_a, dev_b = _deviation(var_a, mean_a), _deviation(var_b, mean_b)
    seen_a, seen_b = (torch.special.ndtr((dev - threshold) * (3 / threshold)) for dev in (dev_a, dev_b))
    bound = dev_a * dev_b
    both = torch.maximum(torch.minimum(both, bound), -bound)  # Cauchy-Schwarz, which rounding can break
    visible = (2 * seen_a * seen_b + _C1) / (seen_a * seen_a + seen_b * seen_b + _C1)
    score: Tensor = visible * (both + _C2) / (bound + _C2)
    return score


def _deviation(variance: Tensor, mean: Tensor) -> Tensor:
    floor = (mean * mean).add_(variance).mul_(_ROUNDING)
    return torch.where(variance > floor, variance, 0).sqrt_()


def _halved(plane: Tensor, valid: Tensor | None) -> Tensor:
    """Means of the valid ones of 2x2 px, as float64; an odd last row or column makes pairs."""
    if valid is None:
        return _by_strips(plane, lambda rows: _pooled(plane[rows].double()))
    shares = _by_strips(plane, lambda rows: _pooled(valid[rows].double()))
    sums = _by_strips(plane, lambda rows: _pooled(plane[rows].double() * valid[rows]))
    return torch.where(shares > 0, sums / shares, 0)


def _halved_mask(valid: Tensor | None) -> Tensor | None:
    if valid is None:
        return None
    return _by_strips(valid, lambda rows: _pooled(valid[rows].float()) > 0)


def _pooled(plane: Tensor) -> Tensor:
    return F.avg_pool2d(plane[None], 2, ceil_mode=True, count_include_pad=False)[0]


def _by_strips(plane: Tensor, halve: Callable[[slice], Tensor]) -> Tensor:
    step = strip_rows(plane.shape[1])
    return torch.cat([halve(slice(top, top + step)) for top in range(0, plane.shape[0], step)])
