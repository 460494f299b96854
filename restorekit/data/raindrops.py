"""Drops of rain on the glass in front of a camera: each shows the scene, small and upside down, and out of focus."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import cv2
import numpy as np
import pydantic
import torch
from torch import Tensor
from torch.nn import functional as F

from restorekit.color.transfer import decode, encode
from restorekit.data.degradation import Degradation, log_uniform, quantized, uniform, whole
from restorekit.data.kernels import disk
from restorekit.data.ranges import ORDERED
from restorekit.data.reflection import shifted
from restorekit.data.sensor import Positives, Shares
from restorekit.stage import param, parameters

Contact = Annotated[float, pydantic.Field(gt=0, le=48)]
Sky = Annotated[float, pydantic.Field(ge=0, le=10)]

INDEX = 1.33
"""Refractive index of water."""

HEAD_ON = ((INDEX - 1.0) / (INDEX + 1.0)) ** 2
"""The share of light that water reflects where it meets it at a right angle."""

CAPS = 4
"""Most spherical caps that merge to one drop."""

AT_ONCE = 200
"""So many caps at a time, so that what is in between stays small."""

WARPED = 0.15
"""Standard deviation of how far outlines stray from those of caps, as a share of the radius."""

CELLS = 3.0
"""Cells of the grid that the noise of ``blur`` lies on, to a radius."""

BALLS = 0.1
"""Share of these cells that hold a ball."""

SPREAD_PX, BRIGHTER, STRAY, SOFT = (3.0, 10.0), (1.0, 1.6), 2.0, (0.1, 0.6)
"""Of ``blur``: standard deviation under drops, gain, most shift in radii, and rise of a blob as a share of its top."""


@parameters
class Raindrops(Degradation):
    """Puts drops of water on a pane in front of the camera, in linear light, and rounds to 8 bits.

    ``refraction`` follows light. A drop is a height field, of spherical caps that merged; it meets the glass at the
    angle of ``contact``. By Snell's law each place of it shows another direction, some tens of degrees away at its rim,
    so that it holds a small picture of the scene turned upside down, its rim darker by Fresnel's equations. What is
    beyond the picture is mirrored, and ``sky`` makes light from above brighter than that from below, which a drop shows
    at its bottom. The camera looks through the pane, so that drops are out of focus, by a disk. ``blur`` strongly blurs
    and shifts the picture, and brightens it a little, under soft blobs of noise; it shares nothing with the first, so
    that networks trained on one are judged on the other.

    ``cover`` is how much of the picture is under drops, in about this share: the rest stays as it was. ``radius`` is
    drawn once for a picture; its drops have from half to one and a half times as much.
    """

    source = (
        "Qian, Tan, Yang, Su & Liu, Attentive Generative Adversarial Network for Raindrop Removal from a Single Image, "
        "CVPR 2018; refraction: Roser & Geiger, Video-based Raindrop Detection for Improved Image Registration, ICCV "
        "Workshops 2009, and Schlick, An Inexpensive BRDF Model for Physically-based Rendering, Eurographics 1994"
    )
    methods: Annotated[
        tuple[Literal["refraction", "blur"], ...], pydantic.Field(min_length=1), param("Kinds of drops, each as likely")
    ] = ("refraction", "blur")
    radius: Annotated[Positives, param("Of drops, by its logarithm", unit="px")] = (5.0, 25.0)
    cover: Annotated[Shares, param("Share of the picture under drops, drawn")] = (0.05, 0.35)
    contact: Annotated[
        tuple[Contact, Contact], ORDERED, param("Of refraction: angle of drops to the glass, drawn", unit="degrees")
    ] = (25.0, 48.0)
    focal: Annotated[Positives, param("Of refraction: focal length, by its logarithm", unit="px")] = (400.0, 1600.0)
    defocus: Annotated[Positives, param("Of refraction: radius of the disk of a point, drawn", unit="px")] = (1.5, 6.0)
    sky: Annotated[
        tuple[Sky, Sky], ORDERED, param("Of refraction: light from above beside that from ahead, drawn", unit="EV")
    ] = (0.0, 5.0)

    def degrade(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        method = self.methods[whole(generator, 0, len(self.methods) - 1)]
        radius, cover = log_uniform(generator, self.radius), uniform(generator, self.cover)
        light = decode(clean, "srgb")
        drops = self._refracting if method == "refraction" else _blurring
        shown, covered = drops(light, radius, cover, generator)
        return quantized(encode(light.mul_(1.0 - covered).add_(shown), "srgb"))

    def _refracting(
        self, light: Tensor, radius: float, cover: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The light of drops ``[3,H,W]`` as far as they cover the picture, and how far that is, ``[H,W]`` in 0..1."""
        contact, focal = math.radians(uniform(generator, self.contact)), log_uniform(generator, self.focal)
        _, height, width = light.shape
        surface = heights(height, width, radius, cover, contact, generator)
        smaller = focal * (INDEX - 1.0) * contact / radius
        shown = refracted(light, surface, focal, smaller, uniform(generator, self.sky))
        drops = torch.cat([shown, torch.ones_like(surface)[None]]).mul_(surface > 0)
        planes = np.ascontiguousarray(drops.permute(1, 2, 0).numpy())
        planes = cv2.filter2D(planes, -1, disk(uniform(generator, self.defocus)), borderType=cv2.BORDER_REFLECT)
        blurred = torch.from_numpy(planes).permute(2, 0, 1).clamp_(min=0.0)
        return blurred[:3], blurred[3].clamp(max=1.0)


def heights(height: int, width: int, radius: float, cover: float, contact: float, generator: torch.Generator) -> Tensor:
    """Drops of water on glass: how thick it is at each pixel, ``[H,W]`` in px, 0 where the glass is dry.

    Each drop is made of caps of spheres, which meet the glass at ``contact`` radians; where they overlap, the root of
    their squares merges them without a crease.
    """
    most = 2.0 * radius
    high, wide = height + 2 * most, width + 2 * most
    expected = cover * high * wide / (math.pi * radius**2)
    count = max(1, int(torch.poisson(torch.tensor(expected, dtype=torch.float64), generator)))
    down, right, size = torch.rand((3, count, 1), generator=generator).unbind()
    share, angle, apart = torch.rand((3, count, CAPS), generator=generator).unbind()
    size, angle = radius * (0.5 + size), math.tau * angle
    radii = (size * (0.3 + 0.5 * share)).index_copy_(1, torch.tensor([0]), 0.9 * size)
    apart = (size * (0.3 + 0.6 * apart)).index_fill_(1, torch.tensor([0]), 0.0)
    there = torch.rand((count, CAPS), generator=generator) < torch.linspace(1.0, 0.2, CAPS)
    row = (down * high - most + apart * angle.sin())[there]
    column = (right * wide - most + apart * angle.cos())[there]
    return merged(row, column, radii[there], contact, _warp(height, width, radius, generator))


def merged(row: Tensor, column: Tensor, radius: Tensor, contact: float, warp: Tensor) -> Tensor:
    """Caps of these places and radii in px, seen through a ``warp`` ``[2,H,W]`` of the glass: thickness ``[H,W]``."""
    _, height, width = warp.shape
    squares = torch.zeros(height * width)
    reach = (radius + warp.abs().max()).ceil().long()
    side = 2 * reach + 1
    for caps in torch.split(torch.arange(len(radius)), AT_ONCE):
        count = side[caps].square()
        cap = caps.repeat_interleave(count)
        place = torch.arange(len(cap)) - (count.cumsum(0) - count).repeat_interleave(count)
        down = row.round().long()[cap] - reach[cap] + place // side[cap]
        right = column.round().long()[cap] - reach[cap] + place % side[cap]
        inside = (down >= 0) & (down < height) & (right >= 0) & (right < width)
        cap, down, right = cap[inside], down[inside], right[inside]
        away = (down + warp[0, down, right] - row[cap]).square() + (right + warp[1, down, right] - column[cap]).square()
        sphere = radius[cap] / math.sin(contact)
        thick = ((sphere.square() - away).clamp_(min=0.0).sqrt_() - sphere * math.cos(contact)).clamp_(min=0.0)
        squares.index_add_(0, down * width + right, thick.square_())
    return squares.sqrt_().view(height, width)


def _warp(height: int, width: int, radius: float, generator: torch.Generator) -> Tensor:
    """How far outlines stray, down and right, ``[2,H,W]`` in px: smooth over a diameter."""
    cells = (math.ceil(height / (2 * radius)) + 2, math.ceil(width / (2 * radius)) + 2)
    coarse = torch.randn((1, 2, *cells), generator=generator).clamp_(-2.0, 2.0).mul_(WARPED * radius)
    return F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)[0]


def refracted(light: Tensor, surface: Tensor, focal: float, smaller: float, sky: float) -> Tensor:
    """The light ``[3,H,W]`` that a surface of water ``[H,W]`` in px sends into the camera; right where it is not flat.

    Rays come through the glass and leave the water by Snell's law, away from its normal. The scene is far away and
    mirrored beyond its edges; it is first reduced ``smaller`` times, about by as much as it appears smaller.
    """
    slope_down, slope_right = torch.gradient(surface)
    slope = torch.hypot(slope_down, slope_right).clamp_(min=1e-6)
    within = slope / (1.0 + slope.square()).sqrt()
    beyond = (INDEX * within).clamp_(max=0.999)
    turned = beyond.asin().sub_(within.asin())
    up = turned.sin().mul_(slope_down).div_(slope).neg_()
    shift = turned.tan_().mul_(focal).div_(slope)
    height, width = surface.shape
    size = [max(4, round(side / max(1.0, smaller))) for side in (width, height)]
    scene = cv2.resize(light.permute(1, 2, 0).contiguous().numpy(), size, interpolation=cv2.INTER_AREA)
    down = (torch.arange(height)[:, None] + 0.5 + shift * slope_down) * (size[1] / height) - 0.5
    right = (torch.arange(width) + 0.5 + shift * slope_right) * (size[0] / width) - 0.5
    seen = cv2.remap(scene, right.numpy(), down.numpy(), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    passed = 1.0 - HEAD_ON - (1.0 - HEAD_ON) * (1.0 - (1.0 - beyond.square_()).sqrt_()).pow_(5)
    return torch.from_numpy(seen).permute(2, 0, 1) * up.mul_(sky).exp2_().mul_(passed)


def _blurring(light: Tensor, radius: float, cover: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The same as of refracting drops, for blobs under which the picture is blurred, shifted and brightened."""
    _, height, width = light.shape
    stray = STRAY * radius
    down, right = (round(uniform(generator, (-stray, stray))) for _ in range(2))
    spread = uniform(generator, SPREAD_PX)
    size = [max(1, round(side / 2)) for side in (width, height)]
    half = cv2.resize(
        shifted(light, down, right).permute(1, 2, 0).contiguous().numpy(), size, interpolation=cv2.INTER_AREA
    )
    half = cv2.GaussianBlur(half, (0, 0), spread / 2)
    seen = torch.from_numpy(cv2.resize(half, (width, height), interpolation=cv2.INTER_LINEAR)).permute(2, 0, 1)
    covered = blobs(height, width, radius, cover, generator)
    return seen * (uniform(generator, BRIGHTER) * covered), covered


def blobs(height: int, width: int, radius: float, cover: float, generator: torch.Generator) -> Tensor:
    """Soft round spots that merge where they meet, ``[H,W]`` in 0..1: so much of the area is over 0.

    Noise is thinned out and blurred to balls; where they add up to enough, there is a blob (Blinn, A Generalization of
    Algebraic Surface Drawing, ACM TOG 1, 1982).
    """
    cells = [math.ceil(side * CELLS / radius) + 2 for side in (height, width)]
    noise = torch.rand((1, 1, *cells), generator=generator)
    balls = cv2.GaussianBlur((noise[0, 0] - 1.0 + BALLS).clamp_(min=0.0).numpy(), (0, 0), CELLS / 2)
    field = F.interpolate(torch.from_numpy(balls)[None, None], (height, width), mode="bicubic")[0, 0]
    values = field.flatten()
    least = values.kthvalue(max(1, round((1.0 - cover) * len(values)))).values
    rise = (field.max() - least).mul_(uniform(generator, SOFT)).clamp_(min=1e-6)
    rising = field.sub_(least).div_(rise).clamp_(0.0, 1.0)
    return rising.square() * (3.0 - 2.0 * rising)
