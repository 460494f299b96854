"""Local tone mapping by what surrounds a pixel: dodging and burning, and base and detail."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from restorekit.stage import StageSpec, param, parameters
from restorekit.stages.guided import guided
from restorekit.stages.tone import LINEAR_PICTURE
from restorekit.stages.tone_base import LocalOperator, compression
from restorekit.stages.tone_luminance import quantile

SCALES, SCALE_RATIO = 8, 1.6
"""Surrounds that dodging and burning compares, each so much wider than the one before."""


@parameters
class GuidedTone(LocalOperator):
    """Base and detail: compresses the base layer of log luminance and keeps the detail, for a picture in 0..1.

    The base is the guided filter of log luminance, which keeps strong edges, so that no halos arise along them
    (Durand and Dorsey take a bilateral filter). Its range, but for the outermost hundredths of the picture, is
    compressed to ``range_ev``, never stretched. The log-average of the result is exposed to ``key``.
    """

    spec = StageSpec(
        name="tone.guided",
        source="Durand & Dorsey, Fast Bilateral Filtering for the Display of High-Dynamic-Range Images, SIGGRAPH 2002; "
        "He, Sun & Tang, Guided Image Filtering, TPAMI 35 (2013)",
        accepts=LINEAR_PICTURE,
        emits={"reference": "display"},
    )
    range_ev: Annotated[float, param("Stops that the base layer keeps; lower: flatter", unit="EV", ge=1, le=20)] = 5.0
    detail: Annotated[float, param("Scale of the detail layer", ge=0, le=4)] = 1.0
    radius: Annotated[float, param("Radius of the base's window, share of the diagonal", gt=0, le=0.2)] = 0.02
    edge_ev: Annotated[float, param("Contrast that counts as an edge", unit="EV", gt=0, le=4)] = 0.5
    key: Annotated[float, param("Where the log-average luminance is rendered", gt=0, le=0.9)] = 0.18
    saturation: Annotated[float, param("Saturation of the result", ge=0, le=2)] = 0.9

    def gain(self, stops: Tensor) -> Tensor:
        radius = max(1, round(self.radius * math.hypot(*stops.shape)))
        base = guided(stops, radius, self.edge_ev**2)
        return base.mul(compression(base, self.range_ev) - 1).add_(stops - base, alpha=self.detail - 1)


@parameters
class ReinhardLocal(LocalOperator):
    """Dodging and burning: Reinhard's curve with each pixel's surroundings in place of its own luminance.

    ``L (1 + L / white^2) / (1 + V)``, V the mean over the widest surround that still looks like the pixel: widening
    stops, gradually, where the next Gaussian differs by more than ``threshold_ev`` from the one before. Within a
    surround contrast stays whole, and no surround reaches across a strong edge, so that there is no halo. The
    log-average of the result is exposed to ``key``.
    """

    spec = StageSpec(
        name="tone.reinhard_local",
        source="Reinhard et al., Photographic Tone Reproduction for Digital Images, SIGGRAPH 2002, eq. 4 to 9; "
        "changed: the surround grows gradually, from the pixel itself",
        accepts=LINEAR_PICTURE,
        emits={"reference": "display"},
    )
    radius: Annotated[float, param("Sigma of the widest surround, share of the diagonal", gt=0, le=0.1)] = 0.015
    threshold_ev: Annotated[
        float, param("Difference that ends a surround; lower: safer edges", unit="EV", gt=0, le=4)
    ] = 0.8
    white: Annotated[float | None, param("Scaled luminance that becomes white; none: the largest", gt=0)] = None
    key: Annotated[float, param("Where the log-average luminance is rendered", gt=0, le=0.9)] = 0.18
    saturation: Annotated[float, param("Saturation of the result", ge=0, le=2)] = 1.0

    def gain(self, stops: Tensor) -> Tensor:
        y = (stops + math.log2(self.key)).exp2_()
        white = self.white or quantile(y, 0.999)
        inner = torch.log2(y + self.key)
        surround, trust = inner.clone(), torch.ones_like(inner)
        widest = self.radius * math.hypot(*stops.shape)
        for index in range(SCALES):
            outer = gaussian(y, widest * SCALE_RATIO ** (index + 1 - SCALES)).add_(self.key).log2_()
            change = outer - inner
            trust.mul_((change / self.threshold_ev).square_().neg_().exp_())
            surround.addcmul_(trust, change)
            inner = outer
        adapted = surround.exp2_().add_(1.0 - self.key).log2_()
        return (y / white**2).log1p_().mul_(1 / math.log(2)).sub_(adapted)


def gaussian(plane: Tensor, sigma: float) -> Tensor:
    """``[h,w]`` blurred; beyond the border the nearest pixel counts."""
    reach = max(1, math.ceil(3 * sigma))
    offsets = torch.arange(-reach, reach + 1, dtype=plane.dtype, device=plane.device)
    kernel = offsets.square_().mul_(-0.5 / sigma**2).exp_()
    kernel /= kernel.sum()
    padded = F.pad(plane[None, None], (0, 0, reach, reach), mode="replicate")
    down = F.conv2d(padded, kernel[None, None, :, None])
    return F.conv2d(F.pad(down, (reach, reach, 0, 0), mode="replicate"), kernel[None, None, None])[0, 0]
