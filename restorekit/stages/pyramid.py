"""Gaussian and Laplacian pyramids, and blending pictures in them strip by strip."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restorekit.strips import side_by_side

HALO_ROWS = 4
"""Rows around a strip that ``down`` (2) and then ``up`` (1 of the smaller picture) look at."""

STRIP_PIXELS = 3 << 18
"""Pixels of all layers of a strip together."""

LEAST_COVERAGE = 1e-12
"""What a divisor is at least; there is no weight where coverage is so small."""


@dataclass(frozen=True)
class Layer:
    """Rows of one picture of a blend.

    ``planes`` ``[C,h,w]`` float32; ``weight`` ``[h,w]``, over all layers of sum 1; ``coverage`` ``[h,w]``, which share
    of the surroundings has values at all (``None``: all of it). Nothing is known of planes where it is 0.
    """

    planes: Tensor
    weight: Tensor
    coverage: Tensor | None = None


class Layers(ABC):
    """The pictures of a blend, all of one size, which are given in rows as they are asked for.

    ``partial`` names those that have a coverage anywhere.
    """

    def __init__(self, count: int, height: int, width: int, partial: Collection[int] = ()) -> None:
        self.count, self.height, self.width = count, height, width
        self.partial = partial

    @abstractmethod
    def rows(self, start: int, stop: int) -> list[Layer]:
        """Rows ``start..stop`` of every picture; called from several threads."""

    def strips(self) -> list[tuple[int, int]]:
        """First (even) and last row (exclusive) of the strips to work in."""
        step = max(32, STRIP_PIXELS // (self.count * self.width) // 2 * 2)
        return [(top, min(top + step, self.height)) for top in range(0, self.height, step)]


class _Halved(Layers):
    """Layers at half the size of others, held with 16 bits, their coverage with 8 (never rounded to none). Their
    weights are brought back to sum 1."""

    def __init__(self, whole: Layers, channels: int) -> None:
        size = (whole.height + 1) // 2, (whole.width + 1) // 2
        super().__init__(whole.count, *size, whole.partial)
        self.planes = torch.empty((self.count, channels, *size), dtype=torch.float16)
        self.weights = torch.empty((self.count, *size), dtype=torch.uint16)
        self.coverage = {index: torch.empty(size, dtype=torch.uint8) for index in whole.partial}

    def rows(self, start: int, stop: int) -> list[Layer]:
        weights = self.weights[:, start:stop].float()
        weights /= weights.sum(0)  # which is never 0
        covers = [
            self.coverage[k][start:stop].float().mul_(1 / 255) if k in self.coverage else None
            for k in range(self.count)
        ]
        return [
            Layer(self.planes[k, :, start:stop].float(), weight, covers[k]) for k, weight in enumerate(weights.unbind())
        ]


def blend(
    layers: Layers, levels: int, channels: int = 3, limits: tuple[float, float] = (-math.inf, math.inf)
) -> Tensor:
    """Pictures blended by weights in a Laplacian pyramid of ``levels`` halvings, ``[C,H,W]`` float32.

    At every level the details of the pictures are summed by their weights, smoothed as much as the level is, so that
    no seam shows (Burt & Adelson, A Multiresolution Spline, ACM ToG 1983). Where a picture has no values its pyramid
    is continued from the values around (normalised convolution: Knutsson & Westin, CVPR 1993), so that what lies in a
    masked part does not shine through beside it. The result is clamped to ``limits``.

    Every level is computed strip by strip; only the halved pictures are held, with 16 bits. What that rounds
    away goes into the details of the finer level.
    """
    height, width = layers.height, layers.width
    result = torch.empty((channels, height, width))
    if levels == 0:
        for top, bottom in layers.strips():
            _sum(layers.rows(top, bottom), result[:, top:bottom])
        return result.clamp_(*limits)
    halved = _Halved(layers, channels)

    def analyse(top: int, bottom: int) -> None:
        start, stop = max(0, top - HALO_ROWS), min(height, bottom + HALO_ROWS)
        out = result[:, top:bottom].zero_()
        for index, layer in enumerate(layers.rows(start, stop)):
            _add_details(out, layer, halved, index, (start, top, bottom))

    side_by_side(analyse, layers.strips())
    coarse = blend(halved, levels - 1, channels)

    def synthesise(top: int, bottom: int) -> None:
        for plane, low in zip(result[:, top:bottom], coarse, strict=True):
            plane += _up(low, top, bottom, width)
            plane.clamp_(*limits)

    side_by_side(synthesise, layers.strips())
    return result


def _sum(layers: list[Layer], out: Tensor) -> None:
    out.zero_()
    for layer in layers:
        out.addcmul_(layer.planes, layer.weight)


def _add_details(out: Tensor, layer: Layer, halved: _Halved, index: int, place: tuple[int, int, int]) -> None:
    """Add a layer's weighted details to rows of the result, and write its halved rows.

    ``place``: first row of the layer's strip, first and last (exclusive) row of ``out``.
    """
    start, top, bottom = place
    inner = slice(top - start, bottom - start)
    small = slice(top // 2, (bottom + 1) // 2)
    small_inner = slice(small.start - start // 2, small.stop - start // 2)
    halved.weights[index, small] = _down(layer.weight)[small_inner].mul_(65535.0).round_().to(torch.uint16)
    cover = layer.coverage
    if cover is None and index in halved.coverage:
        halved.coverage[index][small] = 255
    small_cover = None if cover is None else _down(cover)
    if small_cover is not None:
        halved.coverage[index][small] = (small_cover[small_inner] * 255.0).ceil_().clamp_(max=255.0).to(torch.uint8)
        small_cover.clamp_(min=LEAST_COVERAGE)
    for plane, kept, result in zip(layer.planes, halved.planes[index], out, strict=True):
        coarse = _down(plane if cover is None else plane * cover)
        if small_cover is not None:
            coarse /= small_cover
        rounded = coarse.half()
        kept[small] = rounded[small_inner]
        smooth = torch.from_numpy(_array(cv2.pyrUp(rounded.float().numpy())))
        result.addcmul_(plane[inner] - smooth[inner, : plane.shape[1]], layer.weight[inner])


def filled(planes: Tensor, known: Tensor) -> Tensor:
    """``[C,H,W]`` with what is not known (``known`` ``[H,W]``: 1 or 0, or a share) taken from what is around it.

    Pull and push (Gortler et al., The Lumigraph, SIGGRAPH 1996): 0 where nothing is known at all.
    """
    return _push(planes * known, known[None])


def _push(sums: Tensor, known: Tensor) -> Tensor:
    height, width = sums.shape[1:]
    if max(height, width) == 1:
        return sums / known.clamp(min=LEAST_COVERAGE)
    around = up(_push(down(sums), down(known)), 0, height, width)
    return around.mul_(1 - known).add_(sums)


def down(planes: Tensor) -> Tensor:
    """``[C,H,W]`` smoothed by the binomial kernel (1 4 6 4 1)/16 and halved (Burt & Adelson 1983), edges reflected."""
    return torch.stack([_down(plane) for plane in planes])


def up(planes: Tensor, top: int, bottom: int, width: int) -> Tensor:
    """The rows ``top..bottom`` (``top`` even) of ``[C,H,W]`` doubled and smoothed by the binomial kernel."""
    return torch.stack([_up(plane, top, bottom, width) for plane in planes])


def _down(plane: Tensor) -> Tensor:
    return torch.from_numpy(_array(cv2.pyrDown(plane.numpy())))


def _up(plane: Tensor, top: int, bottom: int, width: int) -> Tensor:
    first = max(0, top // 2 - 1)
    doubled = torch.from_numpy(_array(cv2.pyrUp(plane[first : (bottom + 1) // 2 + 1].numpy())))
    return doubled[top - 2 * first : bottom - 2 * first, :width]


def _array(image: cv2.typing.MatLike) -> NDArray[np.float32]:
    return np.asarray(image, np.float32)
