"""The weights with which pixels become pixels of another grid, and planes resampled with them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LANCZOS_LOBES = 3

BLOCK = 32
"""Output rows that are computed by one matrix product."""

Kernel = Callable[[int, int, int, int], tuple[int, NDArray[np.float64]]]
"""``(source, target, first, last)``: the weights ``[last - first, n]`` of output pixels ``first..last`` of an axis
resampled from ``source`` to ``target`` pixels, and the source pixel to which the first of n columns belongs."""


def lanczos(source: int, target: int, first: int, last: int) -> tuple[int, NDArray[np.float64]]:
    """A Kernel: Lanczos with three lobes, antialiased.

    Pixel centres lie at half integers. To reduce, the kernel is widened by the factor; at the edges what lies
    outside is left out and the rest weighs in full.
    """
    scale = source / target
    width = max(scale, 1.0)
    centers = (np.arange(first, last)[:, None] + 0.5) * scale
    start = max(0, math.floor(centers[0, 0] - LANCZOS_LOBES * width))
    stop = min(source, math.ceil(centers[-1, 0] + LANCZOS_LOBES * width))
    t = (np.arange(start, stop) + 0.5 - centers) / width
    weights = np.where(np.abs(t) < LANCZOS_LOBES, np.sinc(t) * np.sinc(t / LANCZOS_LOBES), 0.0)
    return start, weights / weights.sum(1, keepdims=True)


def area(source: int, target: int, first: int, last: int) -> tuple[int, NDArray[np.float64]]:
    """A Kernel: the shares of source pixels in the area of a target pixel."""
    scale = source / target
    low = np.arange(first, last)[:, None] * scale
    start, stop = math.floor(low[0, 0]), min(source, math.ceil(low[-1, 0] + scale))
    pixels = np.arange(start, stop)
    weights = np.clip(np.minimum(pixels + 1, low + scale) - np.maximum(pixels, low), 0.0, None)
    return start, weights / weights.sum(1, keepdims=True)


def bicubic(source: int, target: int, first: int, last: int) -> tuple[int, NDArray[np.float64]]:
    """A Kernel: cubic convolution (Keys 1981, a = -0.5), antialiased, as MATLAB's ``imresize`` takes it.

    To reduce, the kernel is widened by the factor. Beyond its edges the picture is mirrored, edge pixels repeated.
    """
    scale = source / target
    width = max(scale, 1.0)
    centers = (np.arange(first, last)[:, None] + 0.5) * scale
    pixels = np.arange(math.floor(centers[0, 0] - 2 * width), math.ceil(centers[-1, 0] + 2 * width))
    t = np.abs(pixels + 0.5 - centers) / width
    near, far = (1.5 * t - 2.5) * t * t + 1.0, ((-0.5 * t + 2.5) * t - 4.0) * t + 2.0
    weights = np.where(t <= 1.0, near, np.where(t < 2.0, far, 0.0))
    weights /= weights.sum(1, keepdims=True)
    place = pixels % (2 * source)
    place = np.minimum(place, 2 * source - 1 - place)
    start = int(place.min())
    folding = place[:, None] == np.arange(start, place.max() + 1)
    return start, weights @ folding.astype(np.float64)


def resampled(planes: Tensor, height: int, width: int, kernel: Kernel) -> Tensor:
    """``[C,H,W]`` float planes at another size, first the columns, then the rows."""
    if height != planes.shape[1]:
        tall = planes.new_empty((planes.shape[0], height, planes.shape[2]))
        for first in range(0, height, BLOCK):
            last = min(first + BLOCK, height)
            start, weights = kernel(planes.shape[1], height, first, last)
            matrix = torch.from_numpy(weights).to(planes)
            tall[:, first:last] = matrix @ planes[:, start : start + weights.shape[1]]
        planes = tall
    if width != planes.shape[2]:
        wide = planes.new_empty((planes.shape[0], planes.shape[1], width))
        for first in range(0, width, BLOCK):
            last = min(first + BLOCK, width)
            start, weights = kernel(planes.shape[2], width, first, last)
            matrix = torch.from_numpy(weights).to(planes)
            wide[:, :, first:last] = planes[:, :, start : start + weights.shape[1]] @ matrix.T
        planes = wide
    return planes


def enlarged_rows(planes: Callable[[int, int], Tensor], height: int, scale: int, first: int, last: int) -> Tensor:
    """The rows ``first..last`` of planes enlarged ``scale`` times by ``bicubic``.

    ``planes`` gives float rows ``[C,rows,W]`` of the ``height`` there are; only those that are needed are asked for.
    """
    if scale == 1:
        return planes(first, last)
    start, weights = bicubic(height, height * scale, first, last)
    rows = planes(start, start + weights.shape[1])
    rows = torch.from_numpy(weights).to(rows) @ rows
    return resampled(rows, rows.shape[1], rows.shape[2] * scale, bicubic)
