"""Kernels that blur and ring, and pictures filtered with them.

All have an odd size, ``2 * radius + 1`` px a side, and the sum 1.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LEAST_WIDTH = 0.01
"""In px; a blur below it is one of it, which changes nothing."""


def gaussian(
    radius: int, widths: tuple[float, float], angle: float, shape: float = 1.0, shift: float = 0.0
) -> NDArray[np.float64]:
    """A Gaussian of two standard deviations in px, the first ``angle`` (radians) from the x axis.

    ``shape`` is the exponent of the generalized one: below 1 it is more peaked, above more like a disk (Pascal et al.,
    Parameter Estimation for Multivariate Generalized Gaussian Distributions, IEEE TSP 2013). Its centre lies ``shift``
    px right of and below the middle pixel.
    """
    power = _squared_distance(radius, widths, angle, shift) ** shape
    return _normalized(np.exp(-0.5 * (power - power.min())))


def plateau(radius: int, widths: tuple[float, float], angle: float, shape: float) -> NDArray[np.float64]:
    """``1 / (1 + d^(2 shape))`` of the distance d in widths: a flat top and long tails (Real-ESRGAN)."""
    return _normalized(1.0 / (1.0 + _squared_distance(radius, widths, angle) ** shape))


def low_pass(radius: int, cutoff: float) -> NDArray[np.float64]:
    """An ideal circular low-pass filter cut off by its window: it rings. ``cutoff`` in radians a px, at most pi."""
    axis = np.arange(-radius, radius + 1)
    distance = np.hypot(axis[:, None], axis)
    distance[radius, radius] = 1.0
    bessel = torch.special.bessel_j1(torch.from_numpy(cutoff * distance)).numpy()
    kernel = cutoff * bessel / (2 * math.pi * distance)
    kernel[radius, radius] = cutoff**2 / (4 * math.pi)
    return _normalized(kernel)


def disk(radius: float) -> NDArray[np.float64]:
    """The picture of a point out of focus: a disk of this radius in px, its sum 1; pixels at its edge count in part."""
    axis = np.arange(-math.ceil(radius), math.ceil(radius) + 1)
    kernel = np.clip(radius + 0.5 - np.hypot(axis[:, None], axis), 0.0, 1.0)
    return _normalized(kernel)


def line(length: float, slant: float) -> NDArray[np.float64]:
    """A kernel of sum 1: a line a pixel wide, ``slant`` degrees from the vertical, its lower end to the right."""
    radius = math.ceil(length / 2)
    right = np.arange(-radius, radius + 1)
    down, angle = right[:, None], math.radians(slant)
    across = np.abs(right * math.cos(angle) - down * math.sin(angle))
    along = np.abs(right * math.sin(angle) + down * math.cos(angle))
    kernel = np.clip(1.0 - across, 0.0, 1.0) * np.clip(length / 2 + 0.5 - along, 0.0, 1.0)
    return _normalized(kernel)


def filtered(picture: Tensor, kernel: NDArray[np.float64]) -> Tensor:
    """``[3,H,W]`` float32 weighted by a kernel; mirrored beyond its edges, edge pixels repeated."""
    pixels = np.ascontiguousarray(picture.permute(1, 2, 0).numpy())
    result = cv2.filter2D(pixels, -1, kernel, borderType=cv2.BORDER_REFLECT)
    return torch.from_numpy(result).permute(2, 0, 1).contiguous()


def _squared_distance(
    radius: int, widths: tuple[float, float], angle: float, shift: float = 0.0
) -> NDArray[np.float64]:
    axis = np.arange(-radius, radius + 1) - shift
    x, y = axis, axis[:, None]
    first, second = (max(width, LEAST_WIDTH) for width in widths)
    along = (math.cos(angle) * x + math.sin(angle) * y) / first
    across = (math.cos(angle) * y - math.sin(angle) * x) / second
    distance: NDArray[np.float64] = along**2 + across**2
    return distance


def _normalized(kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    normalized: NDArray[np.float64] = kernel / kernel.sum()
    return normalized
