"""Pictures taken with too little light: dark, noisy, and darker in some places than in others."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic
import torch
from torch import Tensor
from torch.nn import functional as F

from restorekit.data.camera_noise import CameraNoise
from restorekit.data.degradation import Degradation, quantized, uniform, whole
from restorekit.data.ranges import ORDERED
from restorekit.data.sensor import Positives, noisy
from restorekit.stage import param, parameters

Exposure = Annotated[float, pydantic.Field(ge=-12, le=0)]
Unevenness = Annotated[float, pydantic.Field(ge=0, le=4)]

PATCHES = 4
"""The light of lamps and shadows is drawn at so many places along each side, and smooth in between."""

SHARE, GAMMA, GAIN = (0.9, 1.0), (1.5, 5.0), (0.5, 1.0)
"""Of the curve that darkens, ``gain * (share * value) ^ gamma``: Lv et al., section 4.1."""

CURVE_SHOT, CURVE_READ = (2e-4, 4e-3), (1e-6, 1e-4)
"""Variances of the noise over that curve, at white and at black."""


@parameters
class LowLight(Degradation):
    """Darkens a picture, with the noise that little light has, and rounds it to 8 bits as a camera does.

    ``raw`` takes it back to a RAW mosaic, lets so many EV less light fall on the sensor, unevenly as lamps do, records
    that with shot and read noise and develops it as if nothing were wrong: dark tones lie among few levels, are tinted
    where they are cut at black, and their noise is that of a demosaiced sensor. ``curve`` darkens the encoded picture
    by a power and adds white noise, as published sets of pairs are made; it shares nothing with the first, so that
    networks trained on one are judged on the other.
    """

    source = (
        "Brooks, Mildenhall, Xue, Chen, Sharlet & Barron, Unprocessing Images for Learned Raw Denoising, CVPR 2019; "
        "curve: Lv, Li & Lu, Attention Guided Low-Light Image Enhancement with a Large Scale Low-Light Simulation "
        "Dataset, IJCV 129 (2021)"
    )
    methods: Annotated[
        tuple[Literal["raw", "curve"], ...], pydantic.Field(min_length=1), param("Ways of darkening, each as likely")
    ] = ("raw", "curve")
    exposure: Annotated[
        tuple[Exposure, Exposure], ORDERED, param("Exposure of raw beside that of the good picture, drawn", unit="EV")
    ] = (-5.0, -1.0)
    uneven: Annotated[
        tuple[Unevenness, Unevenness],
        ORDERED,
        param("Standard deviation of the light over raw pictures, drawn", unit="EV"),
    ] = (0.0, 0.8)
    shot: Annotated[Positives, param("Variance of raw's shot noise where it clips, by its logarithm")] = (1e-4, 4e-3)

    @property
    def margin(self) -> int:
        return self._camera.margin if "raw" in self.methods else 0

    @property
    def _camera(self) -> CameraNoise:
        return CameraNoise(shot=self.shot, sharpened=0.0, methods=("malvar", "menon"))

    def degrade(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        if self.methods[whole(generator, 0, len(self.methods) - 1)] == "curve":
            return _darkened(clean, generator)
        _, height, width = clean.shape
        exposure = uniform(generator, self.exposure)
        light = exposure + uniform(generator, self.uneven) * lamps(height, width, generator)
        return self._camera.lit(clean, torch.exp2(light.clamp_(max=0.0)), generator)


def lamps(height: int, width: int, generator: torch.Generator) -> Tensor:
    """How light varies over a scene, ``[H,W]``: smooth, of mean 0 and variance about 1 over many draws."""
    places = torch.randn((1, 1, PATCHES, PATCHES), generator=generator)
    return F.interpolate(places, (height, width), mode="bicubic", align_corners=True)[0, 0]


def _darkened(clean: Tensor, generator: torch.Generator) -> Tensor:
    share, gamma, gain = (uniform(generator, between) for between in (SHARE, GAMMA, GAIN))
    dark = clean.clamp(0.0, 1.0).mul_(share).pow_(gamma).mul_(gain)
    shot, read = uniform(generator, CURVE_SHOT), uniform(generator, CURVE_READ)
    return quantized(noisy(dark, shot, read, generator))
