"""Structural similarity."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

WINDOW = 11
SIGMA = 1.5


def ssim(first: Tensor, second: Tensor, peak: float = 1.0) -> float:
    """Mean SSIM of two ``[C,H,W]`` tensors, 0..``peak``, at least 11x11.

    Gaussian window 11x11 with sigma 1.5, only where it fits, K1 = 0.01 and K2 = 0.03
    (Wang, Bovik, Sheikh, Simoncelli: Image quality assessment, IEEE TIP 2004).

    Raises ValueError for different shapes or images smaller than the window.
    """
    if first.shape != second.shape:
        raise ValueError(f"shapes differ: {tuple(first.shape)} and {tuple(second.shape)}")
    if min(first.shape[-2:]) < WINDOW:
        raise ValueError(f"SSIM needs at least {WINDOW}x{WINDOW} px, got {first.shape[-1]}x{first.shape[-2]}")
    a, b = first.double()[:, None], second.double()[:, None]
    mean_a, mean_b = _blur(a), _blur(b)
    var_a = _blur(a * a) - mean_a * mean_a
    var_b = _blur(b * b) - mean_b * mean_b
    both = _blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    score = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    score /= (mean_a * mean_a + mean_b * mean_b + c1) * (var_a + var_b + c2)
    return float(score.mean())


def _blur(planes: Tensor) -> Tensor:
    offsets = torch.arange(WINDOW, dtype=planes.dtype, device=planes.device) - WINDOW // 2
    kernel = torch.exp(-offsets.square() / (2 * SIGMA**2))
    kernel /= kernel.sum()
    return F.conv2d(F.conv2d(planes, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
