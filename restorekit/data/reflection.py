"""A second scene, reflected by a glass pane in front of the camera."""

from __future__ import annotations

import copy
import math
from typing import Annotated, ClassVar, Literal, Self

import pydantic
import torch
from torch import Tensor
from torch.nn import functional as F

from restorekit.color.transfer import decode, encode
from restorekit.data.degradation import Degradation, PictureList, quantized, uniform, whole
from restorekit.data.kernels import disk, filtered, gaussian
from restorekit.data.ranges import ORDERED, Share
from restorekit.planes import to_float
from restorekit.stage import param, parameters

Method = Literal["physical", "screen", "ceilnet"]
Exposure = Annotated[float, pydantic.Field(ge=-10, le=10)]
Highlights = Annotated[float, pydantic.Field(ge=0, le=6)]
Angle = Annotated[float, pydantic.Field(ge=0, le=75)]
Radius = Annotated[float, pydantic.Field(ge=0, le=50)]
Shift = Annotated[float, pydantic.Field(ge=0, le=100)]
Cast = Annotated[float, pydantic.Field(ge=-2, le=2)]

INDEX = 1.52
"""Refractive index of window glass."""

PASSED = (0.9, 1.0)
"""Share of light that is left on its way to the back of the pane and to the front again: clear glass of up to 10 mm."""

FOCAL_PX = 1000.0
"""Focal length of the camera: a picture of 1000 px shows 53 degrees."""

STEEPEST = math.cos(math.radians(80.0))
"""Cosine of the steepest angle at which the pane is looked through."""

SIGMA_PX, RADIUS_PX, OVERFLOW = (2.0, 5.0), 5, 1.3
"""Of ceilnet: the Gaussian and its 11 x 11 kernel, and by how much more than the mean overflow is taken off."""


@parameters
class Reflection(Degradation):
    """Adds what a glass pane reflects, one of the other pictures, and rounds to 8 bits; the scene behind stays.

    ``physical`` adds light. The other scene is out of focus by a disk, and seen twice, in the front face of the pane
    and fainter, shifted, in its back face. Both reflect by Fresnel's equations, more where the pane is looked at from
    the side, which differs over the picture. White of the other picture stands for as much light or more, as skies and
    lamps have. ``screen`` takes encoded values, which never go beyond white: a part of the other scene, out of focus by
    a disk, is blended with this one so that the darkness of both is multiplied. As published it is blurred by a
    Gaussian, and this scene becomes darker. ``ceilnet`` adds encoded values as published: blurred by a Gaussian, less
    the mean of what goes beyond white; it shares nothing with the first, so that networks trained on one are judged on
    the other.

    The other picture is drawn from those of ``given``, mirrored, cut to size at a place that is drawn, and enlarged
    where it is too small. Without any it is the picture itself, turned by 180 degrees.
    """

    source = (
        "Shih, Krishnan, Durand & Freeman, Reflection Removal using Ghosting Cues, CVPR 2015 (two faces); Kim, Huo & "
        "Yoon, Single Image Reflection Removal with Physically-Based Training Images, CVPR 2020; Born & Wolf, "
        "Principles of Optics, 1.5 (Fresnel); screen: Hu & Guo, Single Image Reflection Separation via Component "
        "Synergy, ICCV 2023; ceilnet: Fan, Yang, Hua, Chen & Wipf, A Generic Deep Architecture for "
        "Single Image Reflection Removal and Image Smoothing, ICCV 2017"
    )
    methods: Annotated[tuple[Method, ...], pydantic.Field(min_length=1), param("Ways of adding, each as likely")] = (
        "physical",
        "ceilnet",
    )
    exposure: Annotated[
        tuple[Exposure, Exposure],
        ORDERED,
        param("Light of the reflected scene beside that of the scene behind the pane, drawn", unit="EV"),
    ] = (-1.0, 1.5)
    highlights: Annotated[
        tuple[Highlights, Highlights],
        ORDERED,
        param("Light of the reflected scene's white above what its picture shows, drawn", unit="EV"),
    ] = (0.0, 2.0)
    angle: Annotated[
        tuple[Angle, Angle],
        ORDERED,
        param("Between the direction of view and the pane's normal, in the middle, drawn", unit="degrees"),
    ] = (0.0, 60.0)
    defocus: Annotated[tuple[Radius, Radius], ORDERED, param("Radius of the disk of a point, drawn", unit="px")] = (
        0.0,
        8.0,
    )
    ghost: Annotated[
        tuple[Shift, Shift], ORDERED, param("From the reflection in one face to that in the other, drawn", unit="px")
    ] = (0.0, 10.0)
    cast: Annotated[
        tuple[Cast, Cast], ORDERED, param("Red and blue of the reflected scene's light, each drawn", unit="EV")
    ] = (-0.4, 0.4)
    weight: Annotated[
        tuple[Share, Share],
        ORDERED,
        param("Of the reflection that screen and ceilnet add, drawn; as published 0.4 to 1, and 1"),
    ] = (0.2, 1.0)

    _pictures: ClassVar[PictureList] = ()
    """Hidden by those of an instance: beside its parameters, so that these alone are compared, shown and written."""

    def given(self, pictures: PictureList) -> Self:
        made = copy.copy(self)
        object.__setattr__(made, "_pictures", pictures)
        return made

    def degrade(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        method = self.methods[whole(generator, 0, len(self.methods) - 1)]
        other = self._other(clean, generator)
        if method == "ceilnet":
            return _added(clean, other, uniform(generator, SIGMA_PX), uniform(generator, self.weight))
        if method == "screen":
            added = filtered(other, disk(uniform(generator, self.defocus))).mul_(uniform(generator, self.weight))
            return quantized(1.0 - (1.0 - clean) * (1.0 - added))
        return quantized(encode(decode(clean, "srgb") + self._light(other, generator), "srgb"))

    def _other(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """What is mixed in, ``[3,H,W]`` in 0..1 like the clean picture."""
        if not self._pictures:
            return clean.flip(1, 2).clamp(0.0, 1.0)
        picture = self._pictures[whole(generator, 0, len(self._pictures) - 1)]
        _, height, width = clean.shape
        return cut(picture, height, width, generator).flip(2)

    def _light(self, other: Tensor, generator: torch.Generator) -> Tensor:
        """What the pane adds to the light of the scene behind it, ``[3,H,W]``."""
        gains = [uniform(generator, self.cast), 0.0, uniform(generator, self.cast)]
        exposure = torch.tensor(gains).add_(uniform(generator, self.exposure)).exp2_()
        light = unveiled(decode(other, "srgb"), uniform(generator, self.highlights)).mul_(exposure[:, None, None])
        light = filtered(light, disk(uniform(generator, self.defocus)))
        _, height, width = other.shape
        angle = math.radians(uniform(generator, self.angle))
        front = fresnel(incidence(height, width, angle, uniform(generator, (0.0, math.tau))))
        passed = (1.0 - front).square_().mul_(uniform(generator, PASSED))
        length, direction = uniform(generator, self.ghost), uniform(generator, (0.0, math.tau))
        down, right = round(length * math.sin(direction)), round(length * math.cos(direction))
        return shifted(light, down, right).mul_(passed).add_(light).mul_(front)


def cut(picture: Tensor, height: int, width: int, generator: torch.Generator) -> Tensor:
    """A part of a picture ``[3,H,W]`` of 8 bits at a place that is drawn, in 0..1; of a small one it is enlarged."""
    _, high, wide = picture.shape
    share = min(1.0, high / height, wide / width)
    rows, columns = math.floor(share * height), math.floor(share * width)
    top, left = whole(generator, 0, high - rows), whole(generator, 0, wide - columns)
    part = to_float(picture[:, top : top + rows, left : left + columns])
    return part if share == 1.0 else F.interpolate(part[None], (height, width), mode="bilinear")[0]


def unveiled(display: Tensor, highlights: float) -> Tensor:
    """Scene light of display light in 0..1, ``highlights`` EV more for white and none for black.

    The inverse of a shoulder, ``light / (1 + a light)`` (Reinhard, Stark, Shirley & Ferwerda, SIGGRAPH 2002, eq. 3).
    """
    shoulder: float = 1.0 - 2.0**-highlights
    return display / (1.0 - shoulder * display)


def incidence(height: int, width: int, angle: float, direction: float) -> Tensor:
    """Cosine of the angle (radians) to the normal of a pane at which each pixel looks through it, ``[H,W]``.

    In the middle it is that of ``angle``, which grows towards ``direction`` (radians, from right to down).
    """
    down = torch.linspace(-(height - 1) / 2, (height - 1) / 2, height)[:, None].div_(FOCAL_PX)
    right = torch.linspace(-(width - 1) / 2, (width - 1) / 2, width).div_(FOCAL_PX)
    along = right * math.cos(direction) + down * math.sin(direction)
    lengths = (1.0 + right.square() + down.square()).sqrt_()
    return along.mul_(-math.sin(angle)).add_(math.cos(angle)).div_(lengths).clamp_(min=STEEPEST)


def fresnel(cosines: Tensor) -> Tensor:
    """The share of unpolarized light that a face of glass reflects, by the cosine of the angle of incidence."""
    refracted = (1.0 - (1.0 - cosines.square()) / INDEX**2).sqrt_()
    across = (cosines - INDEX * refracted) / (cosines + INDEX * refracted)
    along = (refracted - INDEX * cosines) / (refracted + INDEX * cosines)
    return across.square_().add_(along.square_()).mul_(0.5)


def shifted(picture: Tensor, down: int, right: int) -> Tensor:
    """A picture ``[C,H,W]`` moved by whole px; its edge is repeated where nothing comes in."""
    _, height, width = picture.shape
    rows = (torch.arange(height) - down).clamp_(0, height - 1)
    columns = (torch.arange(width) - right).clamp_(0, width - 1)
    return picture[:, rows[:, None], columns]


def _added(clean: Tensor, other: Tensor, sigma: float, weight: float) -> Tensor:
    """The synthesis of CEILNet: encoded values, the mean of those beyond white taken off the reflection."""
    blurred = filtered(other, gaussian(RADIUS_PX, (sigma, sigma), 0.0))
    beyond = (clean + blurred - 1.0).clamp_(min=0.0)
    overflow = float(beyond.sum()) / max(1, int(beyond.count_nonzero()))
    return quantized(clean + weight * (blurred - OVERFLOW * overflow).clamp_(0.0, 1.0))
