"""Rain in front of a scene: streaks of falling drops, and the veil of those too far away to be seen one by one."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import cv2
import pydantic
import torch
from torch import Tensor
from torch.nn import functional as F

from restorekit.color.transfer import decode, encode
from restorekit.data.degradation import Degradation, chance, log_uniform, quantized, uniform, whole
from restorekit.data.depth import followed
from restorekit.data.kernels import disk, line
from restorekit.data.precipitation import Precipitation
from restorekit.data.ranges import ORDERED
from restorekit.data.sensor import Positives, Shares
from restorekit.stage import param, parameters

Wind = Annotated[float, pydantic.Field(ge=-30, le=30)]
Highlights = Annotated[float, pydantic.Field(ge=-6, le=6)]
Layers = Annotated[int, pydantic.Field(ge=1, le=20)]
Slant = Annotated[float, pydantic.Field(ge=-80, le=80)]
Grain = Annotated[float, pydantic.Field(ge=1, le=20)]

DROPS_PER_MM = 8000.0
"""N0 of Marshall & Palmer: drops of nearly no diameter, in 1 / (m3 mm)."""

SMALLEST_MM, LARGEST_MM = 0.3, 6.0
"""Diameters of drops: smaller ones drift, larger ones break."""

NEAREST_M = 0.5
"""Nearer drops are kept off the lens by what is above it."""

NARROWEST_PX = 0.33
"""Drops that are narrower in the picture are only seen as a veil."""

OSCILLATION, TENSION = 0.5, 0.0728
"""Most that brightness swings along a streak, as drops wobble; surface tension of water, N/m."""

GRAY = 0.75
"""How much of the colour of a picture the sky, which lights rain, has not."""

OPAQUE = 0.95
"""Most of the exposure that a drop may cover a pixel."""

AT_ONCE = 20000
"""So many drops at a time, so that what is in between stays small."""

TURNED = 30.0
"""Most degrees that the directions of two layers of noise are from their mean."""


@parameters
class Rain(Degradation):
    """Lets it rain in front of a picture, and rounds to 8 bits.

    ``drops`` photographs rain, in linear light. Drops are drawn one by one, of diameters after Marshall & Palmer for
    the ``rate``, all over the view. Each falls at its terminal velocity and drifts with the ``wind`` while the shutter
    is open: a streak, as transparent as it is long beside the drop, that is as bright as the surroundings, which a drop
    shows nearly all of. Near ones are wide, and out of focus. The many that are too far to be seen are a veil: it hides
    what is far, by extinction in rain, behind the light of the surroundings. More ``rate`` makes more and larger drops
    and a denser veil, also with a larger ``distance``; shorter ``exposure`` makes shorter, less transparent streaks,
    more ``surroundings`` brighter ones.

    ``noise`` draws streaks on the encoded picture as published sets of pairs have them, Rain100L (one layer) to
    Rain100H (five, in several directions): sparse noise, enlarged and smeared along a slanted line, then added or
    screened. It shares nothing with the first, so that networks trained on one are judged on the other.

    The ranges reach from a steady rain, hardly seen, to a cloudburst: the luma of rainy photographs has a PSNR of 12 to
    32 dB in nine draws of ten, 21 dB in the middle. Published are 13.6 dB for Rain100H and 26.9 dB for Rain100L.
    """

    source = (
        "Garg & Nayar, Vision and Rain, IJCV 75 (2007); Marshall & Palmer, The Distribution of Raindrops with Size, "
        "J. Meteorology 5 (1948); Atlas, Srivastava & Sekhon, Doppler Radar Characteristics of Precipitation at "
        "Vertical Incidence, Rev. Geophysics 11 (1973); noise: Yang, Tan, Feng, Liu, Guo & Yan, Deep Joint Rain "
        "Detection and Removal from a Single Image, CVPR 2017 (added), Luo, Xu & Ji, Removing Rain from a Single Image "
        "via Discriminative Sparse Coding, ICCV 2015 (screened)"
    )
    methods: Annotated[
        tuple[Literal["drops", "noise"], ...], pydantic.Field(min_length=1), param("Ways of raining, each as likely")
    ] = ("drops", "noise")
    rate: Annotated[Positives, param("Of drops: rain, by its logarithm", unit="mm/h")] = (10.0, 150.0)
    wind: Annotated[tuple[Wind, Wind], ORDERED, param("Of drops: across the picture, drawn", unit="m/s")] = (-4.0, 4.0)
    exposure: Annotated[Positives, param("Of drops: time the shutter is open, by its logarithm", unit="s")] = (
        1 / 400,
        1 / 40,
    )
    focal: Annotated[Positives, param("Of drops: focal length, by its logarithm", unit="px")] = (600.0, 2400.0)
    aperture: Annotated[Positives, param("Of drops: diameter of the aperture, by its logarithm", unit="mm")] = (
        1.0,
        8.0,
    )
    distance: Annotated[Positives, param("Of drops: farthest of the scene, by its logarithm", unit="m")] = (20.0, 150.0)
    surroundings: Annotated[
        tuple[Highlights, Highlights],
        ORDERED,
        param("Of drops: light around the camera beside that of the picture, drawn", unit="EV"),
    ] = (1.5, 5.0)
    layers: Annotated[tuple[Layers, Layers], ORDERED, param("Of noise: layers, each its direction, drawn")] = (1, 5)
    slant: Annotated[
        tuple[Slant, Slant], ORDERED, param("Of noise: streaks from the vertical, drawn", unit="degrees")
    ] = (-45.0, 45.0)
    cover: Annotated[Positives, param("Of noise: share of the picture under a layer's streaks, by its logarithm")] = (
        0.05,
        0.45,
    )
    length: Annotated[Positives, param("Of noise: of streaks, by its logarithm", unit="px")] = (12.0, 60.0)
    width: Annotated[tuple[Grain, Grain], ORDERED, param("Of noise: of streaks, drawn", unit="px")] = (1.0, 3.0)
    opacity: Annotated[Shares, param("Of noise: of the densest streaks, drawn")] = (0.3, 0.9)

    def degrade(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        if self.methods[whole(generator, 0, len(self.methods) - 1)] == "noise":
            return self._drawn(clean, generator)
        return self._photographed(clean, generator)

    def _photographed(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        far = log_uniform(generator, self.distance)
        shower = Precipitation(
            log_uniform(generator, self.rate),
            uniform(generator, self.wind),
            log_uniform(generator, self.exposure),
            log_uniform(generator, self.focal),
            log_uniform(generator, self.aperture),
            far,
        )
        light = decode(clean, "srgb")
        color = light.mean((1, 2), keepdim=True)
        around = color.lerp(color.mean(), GRAY).mul_(2.0 ** uniform(generator, self.surroundings))
        distances = followed(clean, generator).contiguous().mul_(far)
        veil = distances.mul(-extinction(shower.rate)).exp_()
        covered = streaks(distances, shower, generator).neg_().exp_()
        light = torch.lerp(around / around.max().clamp(min=1.0), light, veil)
        return quantized(encode(torch.lerp(around, light, covered), "srgb"))

    def _drawn(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        slant, turned = uniform(generator, self.slant), uniform(generator, (0.0, TURNED))
        _, height, width = clean.shape
        rain = torch.zeros(height, width)
        for _ in range(whole(generator, *self.layers)):
            angle = slant + uniform(generator, (-turned, turned))
            angle = min(max(angle, self.slant[0]), self.slant[1])
            length, grain = log_uniform(generator, self.length), uniform(generator, self.width)
            layer = smeared(height, width, log_uniform(generator, self.cover), grain, length, angle, generator)
            rain += layer.mul_(uniform(generator, self.opacity))
        rain.clamp_(max=1.0)
        return quantized(clean + rain if chance(generator, 0.5) else torch.lerp(clean, torch.ones(()), rain))


def steepness(rate: float) -> float:
    """Of the distribution of diameters, ``N0 exp(-steepness diameter)``, in 1/mm, for a rain rate in mm/h."""
    return 4.1 * math.pow(rate, -0.21)


def extinction(rate: float) -> float:
    """Share of light that rain takes off a beam, in 1/m, for a rate in mm/h.

    Drops take twice their cross section, as everything does that is large beside the wavelength (van de Hulst, Light
    Scattering by Small Particles, 1957).
    """
    return 1e-6 * math.pi * DROPS_PER_MM / steepness(rate) ** 3


def velocity(diameter: Tensor) -> Tensor:
    """Terminal velocity of drops in m/s, for diameters in mm above 0.2: Atlas, Srivastava & Sekhon."""
    return (-0.6 * diameter).exp_().mul_(-10.3).add_(9.65)


def drawn_drops(area: float, rate: float, focal: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Diameters in mm and distances in m of all drops that are not too narrow to be seen, over so many square px.

    Those of a diameter are seen to a distance in proportion to it, in a volume of its cube: of all that are seen, the
    diameter has a gamma distribution.
    """
    reach = 1e-3 * focal / NARROWEST_PX
    expected = DROPS_PER_MM * area / focal**2 * 2.0 * reach**3 / steepness(rate) ** 4
    count = int(torch.poisson(torch.tensor(expected, dtype=torch.float64), generator))
    diameter = torch.rand((4, count), generator=generator).clamp_(min=1e-7).log_().sum(0).div_(-steepness(rate))
    distance = diameter * reach * torch.rand(count, generator=generator).pow_(1 / 3)
    seen = (diameter > SMALLEST_MM) & (diameter < LARGEST_MM) & (distance > NEAREST_M)
    return diameter[seen], distance[seen]


def streaks(distances: Tensor, shower: Precipitation, generator: torch.Generator) -> Tensor:
    """Optical thickness of the streaks in front of a scene at ``distances`` ``[H,W]`` in m: light passed is exp(-it).

    A drop covers each place on its streak for as much of the exposure as its area is of the streak's (Garg & Nayar).
    Drops wobble at the frequency of Rayleigh (On the Capillary Phenomena of Jets, 1879). Streaks that leave the picture
    enter it on the other side.
    """
    height, width = distances.shape
    diameter, distance = drawn_drops(height * width, shower.rate, shower.focal, generator)
    shown = shower.exposure * shower.focal / distance
    fall, drift = shown * velocity(diameter), shown * shower.wind
    length = torch.hypot(fall, drift)
    size = 1e-3 * shower.focal * diameter / distance
    unsharp = 1e-3 * shower.focal * shower.aperture * (1.0 / distance - 1.0 / shower.focus).abs_()
    wide = torch.hypot(size, unsharp).clamp_(min=1.0)
    area = (length + math.pi / 4 * wide) * wide
    mass = (math.pi / 4 * size.square() / area).clamp_(max=OPAQUE).neg_().log1p_().neg_().mul_(area)
    ring = shower.exposure * (64.0 * TENSION / 1000.0 / (1e-3 * diameter) ** 3).sqrt_()
    swing, start, top, left = torch.rand((4, len(diameter)), generator=generator).unbind()

    result = torch.zeros(height, width)
    octave = wide.log2().mul_(2.0).round_().int()
    for step in torch.unique(octave).tolist():
        layer, wider = torch.zeros(height, width), 2.0 ** (step / 2)
        for drops in torch.split(torch.nonzero(octave == step)[:, 0], AT_ONCE):
            count = (length[drops] / max(1.0, wider / 2)).ceil_().long().add_(1)
            drop, each = drops.repeat_interleave(count), count.repeat_interleave(count)
            along = (torch.arange(len(drop)) - (count.cumsum(0) - count).repeat_interleave(count)).add(0.5).div_(each)
            wobble = torch.cos(ring[drop] * along + math.tau * start[drop]).mul_(OSCILLATION * swing[drop]).add_(1.0)
            down, right = top[drop] * height + fall[drop] * along, left[drop] * width + drift[drop] * along
            _splat(layer, down, right, wobble.mul_(mass[drop]).div_(each), distance[drop], distances)
        result += torch.from_numpy(cv2.filter2D(layer.numpy(), -1, disk(wider / 2))) if step else layer
    return result


def _splat(layer: Tensor, down: Tensor, right: Tensor, mass: Tensor, distance: Tensor, distances: Tensor) -> None:
    """Add points at these px to ``[H,W]``, each shared out among four pixels, but for those behind the scene."""
    height, width = layer.shape
    row, column = down.floor(), right.floor()
    for below in (0, 1):
        for beside in (0, 1):
            share = (1.0 - (down - row - below).abs_()) * (1.0 - (right - column - beside).abs_()) * mass
            pixel = (row.long() + below).remainder_(height) * width + (column.long() + beside).remainder_(width)
            layer.view(-1).index_add_(0, pixel, share * (distance < distances.flatten()[pixel]))


def smeared(
    height: int, width: int, cover: float, grain: float, length: float, slant: float, generator: torch.Generator
) -> Tensor:
    """Streaks of noise ``[H,W]``, 0..1: ``grain`` px wide, ``length`` px long, ``slant`` degrees from the vertical.

    ``cover`` is the share of the area that they would cover side by side.
    """
    around = math.ceil(length / 2) + 1
    high, wide = height + 2 * around, width + 2 * around
    noise = torch.rand((1, 1, math.ceil(high / grain), math.ceil(wide / grain)), generator=generator)
    least = 1.0 - min(1.0, cover * grain / length)
    sparse = (noise - least).clamp_(min=0.0).div_(1.0 - least)
    grains = F.interpolate(sparse, (high, wide), mode="bilinear")[0, 0]
    streaked = cv2.filter2D(grains.numpy(), -1, line(length, slant) * (length / grain))
    return torch.from_numpy(streaked)[around : around + height, around : around + width].clamp(max=1.0)
