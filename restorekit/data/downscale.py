"""Smaller pictures: by cubic convolution, and by blur and taking every n-th pixel."""

from __future__ import annotations

import functools
import math
from typing import Annotated

import torch
from torch import Tensor

from restorekit.data.degradation import Degradation, quantized, uniform
from restorekit.data.kernels import filtered, gaussian
from restorekit.data.ranges import ORDERED, Width
from restorekit.stage import param, parameters
from restorekit.stages.resampling import bicubic, resampled

_bicubic = functools.lru_cache(maxsize=512)(bicubic)
"""The same weights serve every patch of a size."""


@parameters
class Bicubic(Degradation):
    """Reduces by antialiased cubic convolution and rounds to 8 bits, as super-resolution is measured.

    Of a picture of 8 bits it makes exactly what ``restorekit.metrics.super_resolution.reduced`` makes.
    """

    source = "Keys, Cubic Convolution Interpolation for Digital Image Processing, IEEE TASSP 29 (1981); MATLAB imresize"
    scale: Annotated[int, param("By how much the result is smaller", ge=2, le=8)] = 4

    @property
    def margin(self) -> int:
        return 2 * self.scale

    def degrade(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        _, height, width = clean.shape
        values = clean.mul(255.0).double()  # whole numbers, where the picture has 8 bits
        values = resampled(values, height // self.scale, width // self.scale, _bicubic)
        return values.add_(0.5).floor_().clamp_(0.0, 255.0).float().div_(255.0)


@parameters
class Blur(Degradation):
    """Blurs by an anisotropic Gaussian, takes every n-th pixel, and rounds to 8 bits.

    A pixel of the result lies in the middle of the ``scale`` x ``scale`` px that it stands for, as one of ``Bicubic``
    does: for an even scale that is between four pixels, and the kernel's centre half a pixel from its middle. The
    narrowest of them is then a mean of the four.
    """

    source = (
        "Zhang, Zuo & Zhang, Learning a Single Convolutional Super-Resolution Network for Multiple Degradations, CVPR "
        "2018; centred as in Zhang, Liang, Van Gool & Timofte, Designing a Practical Degradation Model, ICCV 2021"
    )
    scale: Annotated[int, param("By how much the result is smaller", ge=1, le=8)] = 1
    width: Annotated[
        tuple[Width, Width],
        ORDERED,
        param("Standard deviation along either axis of the blur, drawn between two", unit="px of the clean picture"),
    ] = (0.2, 2.0)

    @property
    def margin(self) -> int:
        return math.ceil(_radius(self.width[1]) / self.scale) * self.scale

    def degrade(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        widths = uniform(generator, self.width), uniform(generator, self.width)
        angle = uniform(generator, (0.0, math.pi))
        first = (self.scale - 1) // 2
        shift = (self.scale - 1) / 2 - first
        kernel = gaussian(_radius(max(widths)), widths, angle, shift=shift)
        return quantized(filtered(clean, kernel)[:, first :: self.scale, first :: self.scale])


def _radius(width: float) -> int:
    """Of the kernel of a blur, px: three standard deviations, and the half pixel that its centre may be off."""
    return math.ceil(3.0 * width + 0.5)
