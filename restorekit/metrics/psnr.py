"""Peak signal-to-noise ratio."""

from __future__ import annotations

import math

from torch import Tensor


def psnr(first: Tensor, second: Tensor, peak: float = 1.0) -> float:
    """``10 log10(peak^2 / MSE)`` in dB over all elements of two tensors of one shape; inf when equal.

    Raises ValueError for different shapes.
    """
    if first.shape != second.shape:
        raise ValueError(f"shapes differ: {tuple(first.shape)} and {tuple(second.shape)}")
    error = float((first.double() - second.double()).square().mean())
    return math.inf if error == 0 else 10 * math.log10(peak * peak / error)
