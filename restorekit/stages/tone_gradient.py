"""Local tone mapping in the gradient domain: large gradients are attenuated, a Poisson equation gives the picture."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from restorekit.stage import StageSpec, param, parameters
from restorekit.stages.tone import LINEAR_PICTURE
from restorekit.stages.tone_base import LocalOperator, inner_range

FINEST_PX, COARSEST_PX = 640, 32
"""Gradients count on the levels of the pyramid whose longer side is at most the first and whose shorter side is at
least the second, so that the look does not depend on the size of the image."""


@parameters
class Gradient(LocalOperator):
    """Gradient-domain compression of log luminance: drastic changes of light shrink, fine texture stays or grows.

    Gradients on all scales that exceed ``threshold`` times the mean are attenuated to the power ``strength``, smaller
    ones raised; the picture with these gradients is found by solving the Poisson equation with a cosine transform.
    Its range, but for the outermost hundredths, is scaled to ``range_ev``, or to that of the scene where this is less.
    The log-average is exposed to ``key``.
    """

    spec = StageSpec(
        name="tone.gradient",
        source="Fattal, Lischinski & Werman, Gradient Domain High Dynamic Range Compression, SIGGRAPH 2002",
        accepts=LINEAR_PICTURE,
        emits={"reference": "display"},
    )
    strength: Annotated[float, param("Power of gradients; lower: flatter", gt=0, le=1)] = 0.9
    threshold: Annotated[float, param("Gradient that stays, share of the mean; higher: more texture", gt=0, le=1)] = 0.1
    range_ev: Annotated[float, param("Stops that the picture keeps; lower: flatter", unit="EV", ge=1, le=20)] = 6.0
    key: Annotated[float, param("Where the log-average luminance is rendered", gt=0, le=0.9)] = 0.18
    saturation: Annotated[float, param("Saturation of the result", ge=0, le=2)] = 0.9

    def gain(self, stops: Tensor) -> Tensor:
        attenuation = self._attenuation(stops[None, None])[0, 0]
        across = (stops[:, 1:] - stops[:, :-1]).mul_((attenuation[:, 1:] + attenuation[:, :-1]).mul_(0.5))
        down = (stops[1:] - stops[:-1]).mul_((attenuation[1:] + attenuation[:-1]).mul_(0.5))
        divergence = torch.zeros_like(stops)
        divergence[:, :-1] += across
        divergence[:, 1:] -= across
        divergence[:-1] += down
        divergence[1:] -= down
        solution = solve_poisson(divergence)
        wanted = min(self.range_ev, inner_range(stops))
        return solution.mul_(wanted / max(inner_range(solution), 1e-3)).sub_(stops)

    def _attenuation(self, level: Tensor) -> Tensor:
        """Factors ``[1,1,h,w]`` of the gradients of a level of the pyramid, all coarser ones included."""
        coarsest = min(level.shape[2:]) < 2 * COARSEST_PX
        own = _factors(level, self.threshold, self.strength) if max(level.shape[2:]) <= FINEST_PX or coarsest else None
        if own is not None and coarsest:
            return own
        coarser = self._attenuation(F.avg_pool2d(level, 2, ceil_mode=True))
        wide = F.interpolate(coarser, scale_factor=2.0, mode="bilinear")[..., : level.shape[2], : level.shape[3]]
        return wide if own is None else own.mul_(wide)


def _factors(level: Tensor, threshold: float, strength: float) -> Tensor:
    """The factors ``[1,1,h,w]`` of one level's gradients (eq. 8)."""
    padded = F.pad(level, (1, 1, 1, 1), mode="replicate")
    across = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    down = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    size = across.square_().add_(down.square_()).sqrt_().mul_(0.5)
    unit = max(threshold * float(size.mean()), 1e-6)
    return size.clamp_min_(unit / 4).mul_(1 / unit).pow_(strength - 1)


def solve_poisson(divergence: Tensor) -> Tensor:
    """The plane ``[h,w]`` of mean 0 whose five-point Laplacian is ``divergence`` (of mean 0), no flow at the border.

    The even extension turns the cosine transform that diagonalises the Laplacian into a Fourier transform.
    """
    height, width = divergence.shape
    even = torch.cat((divergence, divergence.flip(0)), 0)
    even = torch.cat((even, even.flip(1)), 1).double()
    spectrum = torch.fft.rfft2(even)
    rows = torch.arange(2 * height, dtype=torch.float64, device=even.device).mul_(math.pi / height).cos_()
    columns = torch.arange(width + 1, dtype=torch.float64, device=even.device).mul_(math.pi / width).cos_()
    eigenvalues = (rows[:, None] + columns[None]).mul_(2.0).sub_(4.0)
    eigenvalues[0, 0] = 1.0
    spectrum.div_(eigenvalues)[0, 0] = 0.0
    solution: Tensor = torch.fft.irfft2(spectrum, s=(2 * height, 2 * width))
    return solution[:height, :width].to(divergence.dtype)
