"""Peak signal-to-noise ratio."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from restorekit.planes import strip_rows


def psnr(first: Tensor, second: Tensor, peak: float = 1.0) -> float:
    """``10 log10(peak^2 / MSE)`` in dB over all elements of two tensors of one shape; inf when equal.

    Raises ValueError for different shapes.
    """
    if first.shape != second.shape:
        raise ValueError(f"shapes differ: {tuple(first.shape)} and {tuple(second.shape)}")
    pairs = zip(_strips(first), _strips(second), strict=True)
    error = sum(float((a.double() - b.double()).square_().sum()) for a, b in pairs) / first.numel()
    return math.inf if error == 0 else 10 * math.log10(peak * peak / error)


def _strips(values: Tensor) -> tuple[Tensor, ...]:
    """Rows of an image ``[...,H,W]``, so that temporaries are small; other tensors whole."""
    return torch.split(values, strip_rows(values.shape[-1]), -2) if values.ndim > 1 else (values,)
