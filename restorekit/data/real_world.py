"""What happens to pictures on their way through the web: the second-order degradation of Real-ESRGAN."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Self

import cv2
import numpy as np
import pydantic
import torch
from numpy.typing import NDArray
from torch import Tensor

from restorekit.color.ycbcr import luma
from restorekit.data.degradation import Degradation, chance, choice, quantized, uniform, whole
from restorekit.data.jpeg import compressed
from restorekit.data.kernels import filtered, gaussian, low_pass, plateau
from restorekit.data.ranges import ORDERED, Quality, Share, Width
from restorekit.stage import param, parameters

RADII = (3, 10)
"""Of kernels, px: 7 to 21 px a side."""

KERNELS = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
"""Shares of kernels: Gaussian, generalized Gaussian, plateau; of each first the round ones, then the others."""

GENERALIZED, PLATEAU = (0.5, 4.0), (1.0, 2.0)
"""Their exponents; half of them lie below 1, half above."""

LEVELS = 256.0
"""Photons at white, before the noise of them is weighted."""

MARGIN = 24
"""About the reach of a kernel and of a block, px; a multiple of every scale."""

Sigma = Annotated[float, pydantic.Field(ge=0, le=255)]
Reduction = Annotated[float, pydantic.Field(gt=0, le=1)]
Enlargement = Annotated[float, pydantic.Field(ge=1, le=8)]
Weight = Annotated[float, pydantic.Field(ge=0, le=20)]


@parameters
class Pass:
    """One pass: blur, resizing, noise and JPEG. The defaults are those of the first pass of Real-ESRGAN."""

    blurred: Annotated[Share, param("Share of pictures that are blurred at all")] = 1.0
    width: Annotated[
        tuple[Width, Width], ORDERED, param("Standard deviation of the blur along an axis, drawn", unit="px")
    ] = (0.2, 3.0)
    ringing: Annotated[Share, param("Share of blurs that are an ideal low-pass filter, which rings")] = 0.1
    enlarged: Annotated[Share, param("Share of pictures enlarged in between")] = 0.2
    reduced: Annotated[Share, param("Share of pictures reduced in between; the rest keeps its size")] = 0.7
    factor: Annotated[tuple[Reduction, Enlargement], param("Least and largest factor of both sides")] = (0.15, 1.5)
    gaussian: Annotated[Share, param("Share of pictures with Gaussian noise; the others have Poisson noise")] = 0.5
    sigma: Annotated[
        tuple[Sigma, Sigma], ORDERED, param("Standard deviation of Gaussian noise, drawn", unit="of 255")
    ] = (1.0, 30.0)
    poisson: Annotated[
        tuple[Weight, Weight], ORDERED, param("Poisson noise, drawn: 1 is that of 256 photons at white")
    ] = (0.05, 3.0)
    gray: Annotated[Share, param("Share of noise that is the same in all channels")] = 0.4
    quality: Annotated[tuple[Quality, Quality], ORDERED, param("Quality of JPEG as libjpeg counts, drawn")] = (30, 95)
    subsampled: Annotated[Share, param("Share of JPEGs with chroma of half the size (4:2:0)")] = 1.0

    @pydantic.model_validator(mode="after")
    def _check_shares(self) -> Self:
        if self.enlarged + self.reduced > 1.0 + 1e-9:
            raise ValueError(f"enlarged and reduced are {self.enlarged} and {self.reduced} of all; make it 1 at most")
        return self

    def weakened(self, strength: float) -> Self:
        """The same pass with all ranges and the share that rings shrunk towards those that change nothing."""

        def shrunk(between: tuple[float, float], neutral: float) -> tuple[float, float]:
            least, most = (strength * value + (1.0 - strength) * neutral for value in between)
            return least, most

        least, most = shrunk(self.quality, 100)
        return replace(
            self,
            width=shrunk(self.width, 0.0),
            ringing=strength * self.ringing,
            factor=shrunk(self.factor, 1.0),
            sigma=shrunk(self.sigma, 0.0),
            poisson=shrunk(self.poisson, 0.0),
            quality=(round(least), round(most)),
        )

    def blur(self, picture: Tensor, generator: torch.Generator) -> Tensor:
        """``[3,H,W]`` blurred by a kernel of one of the shapes, or as it is."""
        if not chance(generator, self.blurred):
            return picture
        radius = whole(generator, *RADII)
        if chance(generator, self.ringing):
            slowest = math.pi / 3 if radius < 6 else math.pi / 5
            return filtered(picture, low_pass(radius, uniform(generator, (slowest, math.pi))))
        return filtered(picture, self._kernel(radius, generator))

    def _kernel(self, radius: int, generator: torch.Generator) -> NDArray[np.float64]:
        kind, elongated = divmod(choice(generator, KERNELS), 2)
        first = uniform(generator, self.width)
        widths = (first, uniform(generator, self.width) if elongated else first)
        angle = uniform(generator, (-math.pi, math.pi))
        if kind == 0:
            return gaussian(radius, widths, angle)
        least, most = GENERALIZED if kind == 1 else PLATEAU
        shape = uniform(generator, (least, 1.0) if chance(generator, 0.5) else (1.0, most))
        return gaussian(radius, widths, angle, shape) if kind == 1 else plateau(radius, widths, angle, shape)

    def resize(self, picture: Tensor, height: int, width: int, generator: torch.Generator) -> Tensor:
        """``[3,H,W]`` at a drawn multiple of a size."""
        least, most = self.factor
        ranges = ((1.0, most), (least, 1.0), (1.0, 1.0))
        shares = (self.enlarged, self.reduced, max(0.0, 1.0 - self.enlarged - self.reduced))
        factor = uniform(generator, ranges[choice(generator, shares)])
        return resized(picture, max(1, round(height * factor)), max(1, round(width * factor)), generator)

    def noise(self, picture: Tensor, generator: torch.Generator) -> Tensor:
        """``[3,H,W]`` with noise, clipped to 0..1."""
        picture = picture.clamp(0.0, 1.0)
        gray = chance(generator, self.gray)
        if chance(generator, self.gaussian):
            sigma = uniform(generator, self.sigma) / 255.0
            return (picture + sigma * torch.randn(picture[: 1 if gray else 3].shape, generator=generator)).clamp(0, 1)
        weight = uniform(generator, self.poisson)
        signal = luma(picture, limited=False) if gray else picture
        photons = torch.poisson(signal * LEVELS, generator=generator)
        return (picture + weight * (photons / LEVELS - signal)).clamp(0, 1)

    def compress(self, picture: Tensor, generator: torch.Generator) -> Tensor:
        """``[3,H,W]`` as it comes back from a JPEG file."""
        return compressed(picture, whole(generator, *self.quality), chance(generator, self.subsampled))


@parameters
class SecondPass(Pass):
    """The defaults are those of the second pass of Real-ESRGAN."""

    blurred: Annotated[Share, param("Share of pictures that are blurred at all")] = 0.8
    width: Annotated[
        tuple[Width, Width], ORDERED, param("Standard deviation of the blur along an axis, drawn", unit="px")
    ] = (0.2, 1.5)
    enlarged: Annotated[Share, param("Share of pictures enlarged in between")] = 0.3
    reduced: Annotated[Share, param("Share of pictures reduced in between; the rest keeps its size")] = 0.4
    factor: Annotated[tuple[Reduction, Enlargement], param("Least and largest factor of both sides")] = (0.3, 1.2)
    sigma: Annotated[
        tuple[Sigma, Sigma], ORDERED, param("Standard deviation of Gaussian noise, drawn", unit="of 255")
    ] = (1.0, 25.0)
    poisson: Annotated[
        tuple[Weight, Weight], ORDERED, param("Poisson noise, drawn: 1 is that of 256 photons at white")
    ] = (0.05, 2.5)


@parameters
class RealWorld(Degradation):
    """Blur, resizing, noise and JPEG twice over, at last the final size with ringing before or after the last JPEG.

    At ``strength`` 1 the parameters are those of Real-ESRGAN, made for the worst of the web; below it all ranges shrink
    towards no change, so that 0 leaves the final resizing and JPEG of quality 100. Clean pictures are not sharpened
    here, and JPEG is libjpeg's. The result has 8 bits, and lies where the clean picture lies.

    What surrounds a patch reaches further than any margin would be worth: pictures in between may be a thirteenth of
    the size, with kernels of 21 px and blocks of 16 px. ``margin`` keeps off most of what comes from mirrored edges; a
    patch is no part of the result for the whole picture.
    """

    source = (
        "Wang, Xie, Dong & Shan, Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data, "
        "ICCVW 2021, and its published configuration (train_realesrgan_x4plus.yml)"
    )
    scale: Annotated[int, param("By how much the result is smaller", ge=1, le=4)] = 4
    strength: Annotated[float, param("How much of the ranges is used", ge=0, le=1)] = 1.0
    first: Annotated[Pass, param("The first pass")] = Pass()
    second: Annotated[SecondPass, param("The second pass")] = SecondPass()
    ringing: Annotated[Share, param("Share of pictures that ring at the end")] = 0.8

    @property
    def margin(self) -> int:
        return MARGIN

    def degrade(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        _, height, width = clean.shape
        size = height // self.scale, width // self.scale
        first, second = self.first.weakened(self.strength), self.second.weakened(self.strength)
        picture = first.resize(first.blur(clean, generator), height, width, generator)
        picture = first.compress(first.noise(picture, generator), generator)
        picture = second.resize(second.blur(picture, generator), *size, generator)
        picture = second.noise(picture, generator)
        if chance(generator, 0.5):
            return second.compress(self._finished(picture, *size, generator), generator)
        return quantized(self._finished(second.compress(picture, generator), *size, generator))

    def _finished(self, picture: Tensor, height: int, width: int, generator: torch.Generator) -> Tensor:
        picture = resized(picture, height, width, generator)
        if not chance(generator, self.strength * self.ringing):
            return picture
        return filtered(picture, low_pass(whole(generator, *RADII), uniform(generator, (math.pi / 3, math.pi))))


def resized(picture: Tensor, height: int, width: int, generator: torch.Generator) -> Tensor:
    """``[3,H,W]`` at another size by area, bilinear or bicubic weights, without antialiasing, the corners in place."""
    method = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC)[whole(generator, 0, 2)]
    if picture.shape[1:] == (height, width):
        return picture
    pixels = np.ascontiguousarray(picture.permute(1, 2, 0).numpy())
    result = cv2.resize(pixels, (width, height), interpolation=method)
    return torch.from_numpy(result).permute(2, 0, 1).contiguous()
