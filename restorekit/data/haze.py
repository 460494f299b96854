"""Haze and fog between the camera and a scene."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import pydantic
import torch
from torch import Tensor

from restorekit.color.transfer import decode, encode
from restorekit.data.degradation import Degradation, log_uniform, quantized, uniform, whole
from restorekit.data.depth import attenuated, depth, followed, fractal
from restorekit.data.ranges import ORDERED
from restorekit.data.sensor import Positives, Shares
from restorekit.stage import param, parameters

Method = Literal["koschmieder", "reside"]
Cast = Annotated[float, pydantic.Field(ge=-1, le=1)]
Patchiness = Annotated[float, pydantic.Field(ge=0, le=1)]

LEAST_CONTRAST = 0.02
"""What is left of the contrast of black against the sky at the limit of visibility (Koschmieder, 1924)."""

RESIDE_LIGHT, RESIDE_BETA = (0.7, 1.0), (0.6, 1.8)
"""Airlight and extinction of RESIDE: Li et al., section III."""

SHOWN = (0.2, 1.0)
"""Share of the depth of a scene that a picture shows, drawn."""


@parameters
class Haze(Degradation):
    """Puts haze in front of a picture, the denser the farther the scene is, and rounds to 8 bits.

    Of the light of the scene the share ``t = exp(-beta distance)`` is left, and ``1 - t`` of the airlight is added.
    ``koschmieder`` does so in linear light, with an airlight that is slightly tinted and a patchy ``beta``; the scene
    has planes and things, whose outlines follow those of the picture. ``reside`` makes pairs in the way of that set: in
    encoded values, with gray airlight and one ``beta``, over a fractal depth, mixed with a guess that what is bright
    and pale is far. It shares little with the first, so that networks trained on one are judged on the other. Either
    depth is drawn, as that of a picture is not known.
    """

    source = (
        "Koschmieder, Theorie der horizontalen Sichtweite, Beitr. Phys. Atmos. 12 (1924); Narasimhan & Nayar, Vision "
        "and the Atmosphere, IJCV 48 (2002); reside: Li, Ren, Fu, Tao, Feng, Zeng & Wang, Benchmarking Single-Image "
        "Dehazing and Beyond, IEEE TIP 28 (2019)"
    )
    methods: Annotated[tuple[Method, ...], pydantic.Field(min_length=1), param("Ways of making, each as likely")] = (
        "koschmieder",
        "reside",
    )
    visibility: Annotated[
        Positives, param("Of koschmieder: how far one sees, 1 = the farthest of the scene, by its logarithm")
    ] = (2.0, 16.0)
    airlight: Annotated[Shares, param("Of koschmieder: linear light of haze alone, drawn")] = (0.45, 1.0)
    cast: Annotated[
        tuple[Cast, Cast], ORDERED, param("Of koschmieder: red and blue of the airlight, each drawn", unit="EV")
    ] = (-0.12, 0.12)
    patchiness: Annotated[
        tuple[Patchiness, Patchiness],
        ORDERED,
        param("Of koschmieder: standard deviation of the logarithm of beta over the picture, drawn"),
    ] = (0.0, 0.3)

    def degrade(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        if self.methods[whole(generator, 0, len(self.methods) - 1)] == "reside":
            return _reside(clean, generator)
        beta = extinction(log_uniform(generator, self.visibility))
        light = uniform(generator, self.airlight)
        airlight = light * torch.tensor([uniform(generator, self.cast), 0.0, uniform(generator, self.cast)]).exp2_()
        _, height, width = clean.shape
        patches = fractal(height, width, 1.0, generator).mul_(uniform(generator, self.patchiness)).exp_()
        passed = patches.mul_(followed(clean, generator)).mul_(-beta).exp_()
        return quantized(encode(hazed(decode(clean, "srgb"), passed, airlight.clamp_(max=1.0)), "srgb"))


def extinction(visibility: float) -> float:
    """The extinction coefficient beta, in one over the unit of the visibility."""
    return -math.log(LEAST_CONTRAST) / visibility


def hazed(light: Tensor, passed: Tensor, airlight: Tensor) -> Tensor:
    """Light ``[3,H,W]`` of which the share ``passed`` ``[H,W]`` is left, and the airlight ``[3]`` in its place."""
    return torch.lerp(airlight[:, None, None], light, passed)


def _reside(clean: Tensor, generator: torch.Generator) -> Tensor:
    airlight, beta = uniform(generator, RESIDE_LIGHT), uniform(generator, RESIDE_BETA)
    _, height, width = clean.shape
    distances = depth(height, width, generator, "fractal").lerp_(attenuated(clean), uniform(generator, (0.0, 1.0)))
    shown = uniform(generator, SHOWN)
    nearest = uniform(generator, (0.0, 1.0 - shown))
    passed = distances.mul_(shown).add_(nearest).mul_(-beta).exp_()
    return quantized(hazed(clean, passed, torch.full((3,), airlight)))
