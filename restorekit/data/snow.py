"""Snow that falls in front of a scene: flakes, and the veil of those too far away to be seen one by one."""

from __future__ import annotations

import math
from typing import Annotated, Literal, NamedTuple

import cv2
import numpy as np
import pydantic
import torch
from torch import Tensor
from torch.nn import functional as F

from restorekit.color.transfer import decode, encode
from restorekit.data.degradation import Degradation, chance, log_uniform, quantized, uniform, whole
from restorekit.data.depth import followed
from restorekit.data.haze import hazed
from restorekit.data.kernels import line
from restorekit.data.precipitation import Precipitation
from restorekit.data.ranges import ORDERED
from restorekit.data.sensor import Positives, Shares
from restorekit.stage import param, parameters

Method = Literal["flakes", "noise"]
Wind = Annotated[float, pydantic.Field(ge=-20, le=20)]

FLAKES_PER_MM = 3800.0
"""N0 of Gunn & Marshall at 1 mm/h, by melted diameter: 1 / (m3 mm)."""

DENSITY = 0.17
"""Of flakes in g/cm3 (or of water) times their diameter in mm: Holroyd, The Meso- and Microscale Structure of Great
Lakes Snowstorm Bands, 1971."""

LARGEST_MM, NEAREST_M = 15.0, 0.4
"""Larger flakes break; nearer ones are kept off the lens."""

NARROWEST_PX, CROWDED = 0.4, 0.04
"""Flakes that are narrower in the picture, or more than so many to a px, are only seen as a veil."""

FAINTEST = 0.01
"""Flakes that cover less of what is behind them are not drawn."""

GUSTS = 0.25
"""Standard deviation of the velocity of single flakes, as a share of what is typical."""

LOBES, ROUGH = (2, 3, 5), 0.45
"""Outlines stray by waves so many to a turn, by up to this share of the radius in all."""

SMALLEST_PX, OPAQUE = 0.6, 0.99
"""Radius of the image of a point; most of the light that a flake takes."""

BATCH_PX = 1 << 20
"""So many pixels of flakes are worked on at a time."""

GRAY = (0.75, 1.0)
"""Light of single flakes beside that of the snow in the air."""

PARTICLES_PX = ((1.5, 3.0), (3.5, 7.0), (8.0, 16.0))
"""Of noise: widths of small, medium and large particles."""

COVER, RISE, SHIFT_PX, VEIL = (0.01, 0.1), (0.15, 0.8), 0.6, 0.35
"""Of noise: share under a layer, softness of its particles, most shift between colours, most of the veil."""


class Flakes(NamedTuple):
    """Images of flakes, a row each."""

    top: Tensor
    left: Tensor
    """Where the path begins, px."""
    down: Tensor
    right: Tensor
    """The path while the shutter is open, px."""
    radius: Tensor
    """px"""
    blur: Tensor
    """Radius of the disk of a point out of focus, px."""
    gray: Tensor
    """Light beside that of the snow in the air, 0..1."""
    waves: Tensor
    """Of the outline, ``[N,2,3]``: amplitudes, and phases in turns, 0..1, for each of ``LOBES``."""


@parameters
class Snow(Degradation):
    """Lets it snow in front of a picture, and rounds to 8 bits.

    ``flakes`` photographs snow, in linear light. Flakes are drawn one by one all over the view, of melted diameters
    after Gunn & Marshall for the ``rate``, and as wide as their density makes them. They sink at about 1 m/s and drift
    with the ``wind``, each a little otherwise, so that their streaks are short. They are opaque and of irregular
    outline, white to gray as the ``light`` around, and fainter the farther they move and the more they are out of
    focus. All that are too small to be seen are a veil over what is far. More ``rate`` makes more and larger flakes and
    a denser veil.

    ``noise`` draws on the encoded picture what published sets have: three layers of small, medium and large particles,
    of filtered noise where it is above a threshold, smeared in one direction, translucent, its colours a little apart,
    and screened; at times under a veil. It shares nothing with the first, so that networks trained on one are judged on
    the other.
    """

    source = (
        "Gunn & Marshall, The Distribution with Size of Aggregate Snowflakes, J. Meteorology 15 (1958); Locatelli & "
        "Hobbs, Fall Speeds and Masses of Solid Precipitation Particles, J. Geophys. Res. 79 (1974); noise: Liu, Jaw, "
        "Huang & Hwang, DesnowNet: Context-Aware Deep Network for Snow Removal, IEEE TIP 27 (2018)"
    )
    methods: Annotated[tuple[Method, ...], pydantic.Field(min_length=1), param("Ways of snowing, each as likely")] = (
        "flakes",
        "noise",
    )
    rate: Annotated[Positives, param("Of flakes: snow as water, by its logarithm", unit="mm/h")] = (0.5, 5.0)
    wind: Annotated[tuple[Wind, Wind], ORDERED, param("Of flakes: across the picture, drawn", unit="m/s")] = (-2.0, 2.0)
    exposure: Annotated[Positives, param("Of flakes: time the shutter is open, by its logarithm", unit="s")] = (
        1 / 2000,
        1 / 100,
    )
    focal: Annotated[Positives, param("Of flakes: focal length, by its logarithm", unit="px")] = (600.0, 2400.0)
    aperture: Annotated[Positives, param("Of flakes: diameter of the aperture, by its logarithm", unit="mm")] = (
        1.0,
        8.0,
    )
    distance: Annotated[Positives, param("Of flakes: farthest of the scene, by its logarithm", unit="m")] = (3.0, 50.0)
    light: Annotated[Shares, param("Of flakes: linear light of the snow in the air, drawn")] = (0.35, 0.9)
    opacity: Annotated[Shares, param("Of noise: of the densest particles of a layer, drawn")] = (0.3, 1.0)
    smear: Annotated[Positives, param("Of noise: beside the width of particles, by its logarithm")] = (0.3, 2.5)
    veiled: Annotated[float, param("Of noise: share of pictures under a veil", ge=0, le=1)] = 0.5

    def degrade(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        if self.methods[whole(generator, 0, len(self.methods) - 1)] == "noise":
            return self._drawn(clean, generator)
        return self._photographed(clean, generator)

    def _photographed(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        far = log_uniform(generator, self.distance)
        fall = Precipitation(
            log_uniform(generator, self.rate),
            uniform(generator, self.wind),
            log_uniform(generator, self.exposure),
            log_uniform(generator, self.focal),
            log_uniform(generator, self.aperture),
            far,
        )
        snow = uniform(generator, self.light)
        _, height, width = clean.shape
        passed = followed(clean, generator).mul_(-extinction(fall.rate) * far).exp_()
        light = hazed(decode(clean, "srgb"), passed, torch.full((3,), snow))
        thickness, gray = covered(height, width, drawn_flakes(height, width, fall, generator))
        return quantized(encode(torch.lerp(gray.mul_(snow), light, thickness.neg_().exp_()), "srgb"))

    def _drawn(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        _, height, width = clean.shape
        slant, smear = uniform(generator, (-60.0, 60.0)), log_uniform(generator, self.smear)
        if chance(generator, self.veiled):
            clean = torch.lerp(clean, torch.ones(()), uniform(generator, (0.0, VEIL)))
        for widths in PARTICLES_PX:
            grain = log_uniform(generator, widths)
            layer = particles(height, width, grain, log_uniform(generator, COVER), generator)
            if smear * grain > 1.0:
                layer = torch.from_numpy(cv2.filter2D(layer.numpy(), -1, line(smear * grain, slant)))
            layer = layer.clamp_(0.0, 1.0).mul_(uniform(generator, self.opacity))
            clean = 1.0 - (1.0 - clean) * (1.0 - apart(layer, uniform(generator, (-SHIFT_PX, SHIFT_PX))))
        return quantized(clean)


def steepness(rate: float) -> float:
    """Of the distribution of melted diameters, in 1/mm, for a rate in mm/h of water: Gunn & Marshall."""
    return 2.55 * math.pow(rate, -0.48)


def extinction(rate: float) -> float:
    """Share of light that snow takes off a beam, in 1/m, for a rate in mm/h of water.

    Flakes of melted diameter d have the area ``pi / 4 d^3 / DENSITY`` mm2, and take twice that, as everything does that
    is large beside the wavelength (van de Hulst, Light Scattering by Small Particles, 1957).
    """
    return 2e-6 * _number(rate) * math.pi / 4 / DENSITY * math.gamma(4) / math.pow(steepness(rate), 4)


def velocity(diameter: Tensor) -> Tensor:
    """Terminal velocity of flakes in m/s, for diameters in mm: Locatelli & Hobbs, aggregates of dendrites."""
    return diameter.pow(0.16).mul_(0.8)


def drawn_flakes(height: int, width: int, fall: Precipitation, generator: torch.Generator) -> Flakes:
    """All flakes over a picture that are wide enough to be seen, the largest where there are very many.

    A flake of diameter D is seen as far as it is ``NARROWEST_PX`` wide, in a volume that grows as D^3, or d^4.5 of its
    melted diameter d: of all that are seen, d has a gamma distribution.
    """
    area = float(height * width)
    expected = _number(fall.rate) * area / fall.focal**2 / 3.0 * (1e-3 * fall.focal) ** 3
    expected *= DENSITY**-1.5 * math.gamma(5.5) / steepness(fall.rate) ** 5.5
    narrowest = max(NARROWEST_PX, (expected / (CROWDED * area)) ** (1 / 3))
    count = int(torch.poisson(torch.tensor(expected / narrowest**3, dtype=torch.float64), generator))
    halves = torch.rand((5, count), generator=generator).clamp_(min=1e-7).log_().sum(0).neg_()
    melted = halves.add_(torch.randn(count, generator=generator).square_().mul_(0.5)).div_(steepness(fall.rate))
    diameter = melted.pow(1.5).mul_(DENSITY**-0.5)
    distance = 1e-3 * fall.focal / narrowest * diameter * torch.rand(count, generator=generator).pow_(1 / 3)
    seen = (diameter < LARGEST_MM) & (distance > NEAREST_M)
    diameter, distance = diameter[seen], distance[seen]
    down, right = torch.randn((2, len(diameter)), generator=generator).mul_(GUSTS)
    speed = velocity(diameter)
    moved = fall.exposure * fall.focal / distance
    down, right = moved * speed * (1.0 + down), moved * (fall.wind * (1.0 + right) + right)
    radius = 0.5e-3 * fall.focal * diameter / distance
    blur = 0.5e-3 * fall.focal * fall.aperture * (1.0 / distance - 1.0 / fall.focus).abs_()
    top, left, gray = torch.rand((3, len(diameter)), generator=generator)
    top, left, gray = top * height - down / 2, left * width - right / 2, gray * (GRAY[1] - GRAY[0]) + GRAY[0]
    waves = torch.rand((len(diameter), 2, len(LOBES)), generator=generator)
    return Flakes(top, left, down, right, radius, blur, gray, waves)


def covered(height: int, width: int, flakes: Flakes) -> tuple[Tensor, Tensor]:
    """Optical thickness of flakes ``[H,W]``, light passed is exp(-it); and their mean light where they are, 0..1.

    A flake covers a place for as much of the exposure as it takes to move past it; out of focus it is spread over a
    larger disk. Those that cover less than ``FAINTEST`` are left out.
    """
    thickness, light = torch.zeros((2, height * width))
    top, left, rows, columns = _box(height, width, flakes)
    pixels = rows * columns
    batches = pixels.cumsum(0) // BATCH_PX
    for number in range(1 + int(batches[-1]) if len(batches) else 0):
        chosen = torch.nonzero(batches == number)[:, 0]
        counts = pixels[chosen]
        flake = chosen.repeat_interleave(counts)
        place = torch.arange(len(flake)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
        down, right = top[flake] + place // columns[flake], left[flake] + place % columns[flake]
        thick = _hidden(down + 0.5, right + 0.5, flake, flakes).neg_().log1p_().neg_()
        pixel = down * width + right
        thickness.index_add_(0, pixel, thick)
        light.index_add_(0, pixel, thick * flakes.gray[flake])
    return thickness.view(height, width), light.div_(thickness.clamp(min=1e-6)).view(height, width)


def _spread(flakes: Flakes) -> tuple[Tensor, Tensor]:
    """Radius in px of what flakes cover at a time, and the share of light that they take there."""
    wide = torch.hypot(flakes.radius, flakes.blur).clamp_(min=SMALLEST_PX)
    return wide, flakes.radius.div(wide).square_()


def _box(height: int, width: int, flakes: Flakes) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """First row, first column, number of rows, of columns of what each flake covers of the picture; none if faint."""
    wide, opacity = _spread(flakes)
    reach = (1.0 + ROUGH) * wide + 1.0
    ends = []
    for start, moved, size in ((flakes.top, flakes.down, height), (flakes.left, flakes.right, width)):
        least, most = start + moved.clamp(max=0.0) - reach, start + moved.clamp(min=0.0) + reach
        first = least.floor().clamp_(0, size).long()
        ends += [first, most.ceil().clamp_(0, size).long() - first]
    length = torch.hypot(flakes.down, flakes.right)
    seen = opacity * (2.0 * wide / length.clamp(min=1e-6)).clamp_(max=1.0) > FAINTEST
    return ends[0], ends[2], ends[1] * seen, ends[3]


def _hidden(down: Tensor, right: Tensor, flake: Tensor, flakes: Flakes) -> Tensor:
    """The share of light that a flake takes from each of some places (px), 0..1, ``flake`` the number of its own."""
    wide, opacity = _spread(flakes)
    length = torch.hypot(flakes.down, flakes.right).clamp_(min=1e-3)
    direction = torch.atan2(flakes.right, flakes.down)
    unit_down, unit_right = direction.cos(), direction.sin()
    sharp = (ROUGH / len(LOBES)) * flakes.radius / torch.hypot(flakes.radius, flakes.blur)
    amplitudes, phases = (flakes.waves * torch.stack([sharp, torch.ones_like(sharp)], 1)[:, :, None]).unbind(1)
    soft = torch.minimum(flakes.radius, flakes.blur).add_(SMALLEST_PX)

    below, beside, moved = down - flakes.top[flake], right - flakes.left[flake], length[flake]
    along = below * unit_down[flake] + beside * unit_right[flake]
    across = beside * unit_down[flake] - below * unit_right[flake]
    beyond = along - torch.minimum(along.clamp(min=0.0), moved)
    turned = torch.atan2(beyond, across)[:, None] * torch.tensor(LOBES)
    stray = turned.add_(phases[flake], alpha=math.tau).cos_().mul_(amplitudes[flake]).sum(1)
    radius = stray.add_(1.0).mul_(wide[flake])
    edge = ((radius - torch.hypot(beyond, across)) / soft[flake]).add_(0.5).clamp_(0.0, 1.0)
    chord = (radius.square() - across.square()).clamp_(min=0.25).sqrt_()
    time = torch.minimum(along + chord, moved).sub_((along - chord).clamp_(min=0.0)).div_(moved).clamp_(0.0, 1.0)
    return edge.mul_(torch.where(moved > 1.0, time, 1.0)).mul_(opacity[flake]).clamp_(max=OPAQUE)


def particles(height: int, width: int, grain: float, cover: float, generator: torch.Generator) -> Tensor:
    """Soft spots ``[H,W]`` in 0..1, about ``grain`` px wide, over so much of the picture."""
    cell = max(1.0, grain / 3.0)
    cells = [math.ceil(side / cell) + 1 for side in (height, width)]
    noise = torch.randn(cells, generator=generator).numpy()
    field = torch.from_numpy(cv2.GaussianBlur(noise, (0, 0), grain / cell / 2.5))
    values = field.flatten()
    least = values.kthvalue(max(1, round((1.0 - cover) * len(values)))).values
    field = F.interpolate(field[None, None], (height, width), mode="bicubic", align_corners=True)[0, 0]
    rise = uniform(generator, RISE) * float(values.max() - least)
    return field.sub_(least).div_(max(rise, 1e-6)).clamp_(0.0, 1.0)


def apart(layer: Tensor, shift: float) -> Tensor:
    """A plane ``[H,W]`` as three ``[3,H,W]``: red lies so many px to the left of green, and blue to its right."""
    size, planes = (layer.shape[1], layer.shape[0]), []
    for to in (-shift, 0.0, shift):
        matrix = np.array([[1.0, 0.0, to], [0.0, 1.0, 0.0]])
        planes.append(torch.from_numpy(cv2.warpAffine(layer.numpy(), matrix, size, borderMode=cv2.BORDER_REFLECT)))
    return torch.stack(planes)


def _number(rate: float) -> float:
    """N0 for a rate, 1 / (m3 mm): Gunn & Marshall."""
    return FLAKES_PER_MM * math.pow(rate, -0.87)
