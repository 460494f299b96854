"""Local tone mapping by local Laplacian filters: pyramids whose coefficients come from remapped copies."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from restorekit.stage import StageSpec, param, parameters
from restorekit.stages.tone import LINEAR_PICTURE
from restorekit.stages.tone_base import LocalOperator, compression

SAMPLES_AN_EDGE, SAMPLES_A_DETAIL, MOST_SAMPLES = 1.0, 4.0, 60
"""Reference levels in the span of an edge, where details are kept and where they change; the most of them in all."""


@parameters
class LocalLaplacian(LocalOperator):
    """Local Laplacian filter on log luminance: edges are compressed, details kept or raised, for a picture in 0..1.

    Differences up to ``edge_ev`` are detail, raised to the power ``detail``; what exceeds it is edge and shrinks so
    that the range, but for the outermost hundredths of the picture, becomes ``range_ev``. No halos, no reversed
    gradients. The remapping is sampled at levels of luminance and interpolated (the fast variant). The log-average of
    the result is exposed to ``key``.
    """

    spec = StageSpec(
        name="tone.local_laplacian",
        source="Paris, Hasinoff & Kautz, Local Laplacian Filters, SIGGRAPH 2011, eq. 1 to 3; "
        "Aubry et al., Fast Local Laplacian Filters, TOG 33 (2014)",
        accepts=LINEAR_PICTURE,
        emits={"reference": "display"},
    )
    range_ev: Annotated[float, param("Stops that the picture keeps; lower: flatter", unit="EV", ge=1, le=20)] = 5.0
    detail: Annotated[float, param("Exponent of details; below 1: stronger", ge=0.3, le=2)] = 1.0
    edge_ev: Annotated[float, param("Contrast that counts as an edge", unit="EV", ge=0.2, le=4)] = 1.0
    key: Annotated[float, param("Where the log-average luminance is rendered", gt=0, le=0.9)] = 0.18
    saturation: Annotated[float, param("Saturation of the result", ge=0, le=2)] = 0.9

    def gain(self, stops: Tensor) -> Tensor:
        slope = compression(stops, self.range_ev)
        if slope == 1 and self.detail == 1:
            return torch.zeros_like(stops)
        height, width = stops.shape
        depth = max(1, math.ceil(math.log2(max(height, width))))
        unit = 1 << min(depth, 6)
        padded = F.pad(stops[None, None], (0, -width % unit, 0, -height % unit), mode="replicate")
        pyramid = [padded]
        for _ in range(depth):
            pyramid.append(_halved(pyramid[-1]))
        low, high = float(stops.min()), float(stops.max())
        density = SAMPLES_AN_EDGE if self.detail == 1 else SAMPLES_A_DETAIL
        count = min(MOST_SAMPLES, max(2, math.ceil((high - low) / self.edge_ev * density) + 1))
        step = max((high - low) / (count - 1), 1e-6)
        layers = [torch.zeros_like(level) for level in pyramid[:-1]]
        for index in range(count):
            reference = low + index * step
            finer = self._remapped(padded, reference, slope)
            for layer, level in zip(layers, pyramid, strict=False):
                coarser = _halved(finer)
                weight = (level - reference).abs_().mul_(-1 / step).add_(1.0).clamp_min_(0.0)
                layer.addcmul_(weight, finer.sub_(_doubled(coarser, finer)))
                finer = coarser
        result = pyramid[-1].mul(slope)
        for layer in reversed(layers):
            result = layer.add_(_doubled(result, layer))
        return result[0, 0, :height, :width] - stops

    def _remapped(self, stops: Tensor, reference: float, slope: float) -> Tensor:
        """Stops with details about a reference kept and what lies beyond them compressed, as a new tensor."""
        away = stops - reference
        near = away.clamp(-self.edge_ev, self.edge_ev)
        beyond = away.sub_(near).mul_(slope)
        if self.detail != 1:
            near = (near.abs() / self.edge_ev).pow_(self.detail).mul_(self.edge_ev).copysign_(near)
        return beyond.add_(near).add_(reference)


def _halved(plane: Tensor) -> Tensor:
    """``[1,1,h,w]`` means of 2x2 px, of what there is at an odd border."""
    return F.avg_pool2d(plane, 2, ceil_mode=True)


def _doubled(plane: Tensor, like: Tensor) -> Tensor:
    """``[1,1,h,w]`` at twice the size, linear between, cropped to the shape of ``like``."""
    wide = F.interpolate(plane, scale_factor=2.0, mode="bilinear")
    return wide[..., : like.shape[2], : like.shape[3]]
