"""Structural similarity."""

from __future__ import annotations

import math

from torch import Tensor

from restorekit.metrics.window import WINDOW, moments, window_strips, windows_inside


def ssim(first: Tensor, second: Tensor, peak: float = 1.0, valid: Tensor | None = None) -> float:
    """Mean SSIM of two ``[C,H,W]`` tensors, 0..``peak``, at least 11x11.

    Gaussian window 11x11 with sigma 1.5, only where it fits, K1 = 0.01 and K2 = 0.03
    (Wang, Bovik, Sheikh, Simoncelli: Image quality assessment, IEEE TIP 2004). With ``valid``, bool ``[H,W]``, only
    windows that lie in it count; NaN where none does. In float64, strip by strip.

    Raises ValueError for different shapes or images smaller than the window.
    """
    if first.shape != second.shape:
        raise ValueError(f"shapes differ: {tuple(first.shape)} and {tuple(second.shape)}")
    _, height, width = first.shape
    if min(height, width) < WINDOW:
        raise ValueError(f"SSIM needs at least {WINDOW}x{WINDOW} px, got {width}x{height}")
    total, count = 0.0, 0
    for rows in window_strips(height, width):
        inside = None if valid is None else windows_inside(valid[rows])
        for a, b in zip(first[:, rows], second[:, rows], strict=True):
            scores = ssim_map(a.double(), b.double(), peak)
            scores = scores if inside is None else scores[inside]
            total += float(scores.sum())
            count += scores.numel()
    return total / count if count else math.nan


def ssim_map(first: Tensor, second: Tensor, peak: float = 1.0) -> Tensor:
    """SSIM ``[H-10,W-10]`` of each window of two float64 planes ``[H,W]``, 0..``peak``; see :func:`ssim`."""
    mean_a, mean_b, var_a, var_b, both = moments(first, second)
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    score = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    return score.div_((mean_a * mean_a + mean_b * mean_b + c1) * (var_a + var_b + c2))
