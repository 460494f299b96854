"""Noise as photographs have it: made on the sensor, and coloured by all that turns its mosaic into a picture."""

from __future__ import annotations

import math
from typing import Annotated

import pydantic
import torch
from torch import Tensor

from restorekit.data.degradation import Degradation, chance, log_uniform, quantized, uniform, whole
from restorekit.data.ranges import ORDERED, Share
from restorekit.data.sensor import Bits, Positives, recorded
from restorekit.data.unprocess import Development, Method, developed, random_camera, unprocess
from restorekit.stage import param, parameters
from restorekit.stages.demosaic import Demosaic
from restorekit.stages.finish import Sharpen
from restorekit.stages.raw import BlackLevel

White = Annotated[float, pydantic.Field(ge=0.55, le=1)]
Contrast = Annotated[float, pydantic.Field(ge=-1, le=1)]
Sharpness = Annotated[float, pydantic.Field(ge=0, le=5)]

SOME = pydantic.Field(min_length=1)

READ_SLOPE, READ_LEVEL, READ_SPREAD = 2.18, 1.20, 0.26
"""Logarithm of the read noise's variance over that of the shot noise, and its spread: Brooks et al., section 3.1."""


@parameters
class CameraNoise(Degradation):
    """Takes a picture back to RAW, adds shot and read noise there, rounds to a sensor's levels, and develops it again.

    Camera, light, tone curve and demosaicing are drawn anew for each picture. ``shot`` is the variance of shot noise
    at full scale, one over the electrons of a photosite that just clips: 0.0001 is base ISO, 0.01 a phone at night.
    Read noise follows from it, as gain amplifies both. The result has 8 bits.

    Demosaicing errs on pictures that are sharp to the pixel, also without noise: menon by some 4 of 255 (root mean
    square over photographs), malvar by 9, bilinear by 14.
    """

    source = "Brooks, Mildenhall, Xue, Chen, Sharlet & Barron, Unprocessing Images for Learned Raw Denoising, CVPR 2019"
    shot: Annotated[Positives, param("Variance of shot noise where it clips, by its logarithm")] = (1e-4, 1.2e-2)
    red_gain: Annotated[Positives, param("Gain of red that balances the light")] = (1.9, 2.4)
    blue_gain: Annotated[Positives, param("Gain of blue that balances the light")] = (1.5, 1.9)
    white: Annotated[
        tuple[White, White], ORDERED, param("Level of green that is shown as white, 1 = where it clips")
    ] = (0.6, 1.0)
    contrast: Annotated[tuple[Contrast, Contrast], ORDERED, param("Contrast of the tone curve")] = (0.0, 1.0)
    bits: Annotated[tuple[Bits, ...], SOME, param("Bits of the sensor's levels, each as likely")] = (12, 14)
    methods: Annotated[tuple[Method, ...], SOME, param("Ways of demosaicing, each as likely")] = ("menon",)
    sharpened: Annotated[Share, param("Share of pictures that are sharpened")] = 0.25
    sharpness: Annotated[tuple[Sharpness, Sharpness], ORDERED, param("Amount of finish.sharpen")] = (0.2, 0.8)

    @property
    def margin(self) -> int:
        sharpening = Sharpen().reach().halo if self.sharpened else 0
        return max(Demosaic(method=method).reach().halo for method in self.methods) + sharpening

    def degrade(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        return self.lit(clean, 1.0, generator)

    def lit(self, clean: Tensor, light: Tensor | float, generator: torch.Generator) -> Tensor:
        """The same where only so much light (a factor, or a map ``[H,W]`` of them) falls on the sensor."""
        camera = random_camera(generator, uniform(generator, self.red_gain), uniform(generator, self.blue_gain))
        development = Development(
            camera,
            uniform(generator, self.white),
            uniform(generator, self.contrast),
            uniform(generator, self.sharpness) if chance(generator, self.sharpened) else 0.0,
        )
        shot = log_uniform(generator, self.shot)
        spread = READ_SPREAD * float(torch.randn((), generator=generator))
        read = read_noise(shot, spread)
        bits = self.bits[whole(generator, 0, len(self.bits) - 1)]
        method = self.methods[whole(generator, 0, len(self.methods) - 1)]
        scene = unprocess(clean, development)
        numbers = recorded(scene.with_pixels(scene.pixels * light), shot, read, bits, generator)
        return quantized(developed(BlackLevel()(numbers), development, method).pixels)


def read_noise(shot: float, spread: float = 0.0) -> float:
    """The variance of read noise that goes with a variance of shot noise at white, both for white at 1."""
    return math.exp(READ_SLOPE * math.log(shot) + READ_LEVEL + spread)
