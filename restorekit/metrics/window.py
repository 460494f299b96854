"""The Gaussian window of SSIM, and pictures in strips that it can slide over."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import torch
from torch import Tensor

from restorekit.planes import strip_rows

WINDOW = 11
SIGMA = 1.5
OVERLAP = WINDOW - 1

_INNER = slice(WINDOW // 2, -(WINDOW // 2))
_TAPS = np.exp(-np.square(np.arange(WINDOW) - WINDOW // 2) / (2 * SIGMA**2))
_TAPS /= _TAPS.sum()


def window_mean(plane: Tensor) -> Tensor:
    """Weighted means ``[H-10,W-10]`` of a float64 plane ``[H,W]`` in each window that fits."""
    means = cv2.sepFilter2D(plane.numpy(), cv2.CV_64F, _TAPS, _TAPS)
    return torch.from_numpy(means)[_INNER, _INNER]


def windows_inside(valid: Tensor) -> Tensor:
    """``[H-10,W-10]``: whether all pixels of a window are among the ``valid`` ones, bool ``[H,W]``."""
    inside = cv2.erode(valid.to(torch.uint8).numpy(), np.ones((WINDOW, WINDOW), np.uint8))
    return torch.from_numpy(inside)[_INNER, _INNER].bool()


def window_strips(height: int, width: int) -> Iterator[slice]:
    """Rows of strips that overlap so that each window of the picture lies whole in exactly one of them."""
    step = max(64, strip_rows(width))
    for top in range(0, height - OVERLAP, step):
        yield slice(top, min(top + step + OVERLAP, height))


def moments(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Means, variances and the covariance of two float64 planes ``[H,W]`` in each window, as ``[H-10,W-10]``."""
    mean_a, mean_b = window_mean(first), window_mean(second)
    var_a = window_mean(first * first).addcmul_(mean_a, mean_a, value=-1)
    var_b = window_mean(second * second).addcmul_(mean_b, mean_b, value=-1)
    both = window_mean(first * second).addcmul_(mean_a, mean_b, value=-1)
    return mean_a, mean_b, var_a, var_b, both
