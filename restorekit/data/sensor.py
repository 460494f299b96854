"""What a sensor makes of light: noise of photons and of reading, a response that bends, a mosaic, whole numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import pydantic
import torch
from torch import Tensor

from restorekit.data.ranges import ORDERED, Share
from restorekit.errors import InputError
from restorekit.frame import Frame

Positive = Annotated[float, pydantic.Field(gt=0)]
Shares = Annotated[tuple[Share, Share], ORDERED]
Positives = Annotated[tuple[Positive, Positive], ORDERED]
"""Ranges ``(least, most)`` to draw from."""

Bits = Annotated[int, pydantic.Field(ge=4, le=16)]
"""Of a sensor's levels."""

PEDESTAL = 1 / 16
"""Black level of recorded frames, as a share of their levels."""


def noisy(light: Tensor, shot: float, read: float, generator: torch.Generator) -> Tensor:
    """Light of any shape, 1.0 = where the sensor clips, with noise of variance ``shot * light + read``.

    ``shot`` is one over the electrons at 1.0; they are counted (Poisson), so that few of them are as skewed as they
    are on a sensor. Reading adds Gaussian noise. Zero leaves either out. Neither clipped nor rounded; light below
    zero, as colours outside of a sensor's gamut have it, stays without shot noise.

    Source: Foi et al., Practical Poissonian-Gaussian Noise Modeling and Fitting for Single-Image Raw-Data, IEEE TIP
    17(10), 2008.
    """
    seen = light
    if shot > 0:
        seen = torch.poisson(light.clamp(min=0.0).mul_(1.0 / shot), generator).mul_(shot).add_(light.clamp(max=0.0))
    return seen + read**0.5 * torch.randn(light.shape, generator=generator) if read > 0 else seen


def bent(light: Tensor, knee: float) -> Tensor:
    """The response of a sensor that is linear up to ``knee`` (0..1) and reaches 1.0 at ``2 - knee``, flat.

    A parabola joins the two with the same slopes; beyond, the response stays 1.0.
    """
    if knee >= 1:
        return light.clamp(max=1.0)
    over = (light.clamp(max=2.0 - knee) - knee).clamp_(min=0.0)
    return light.clamp(max=knee) + over - over.square() / (4.0 * (1.0 - knee))


def level_reached(scene: Tensor, share: float) -> float:
    """The level that this share of the pixels of ``[C,H,W]`` reaches in a channel; the highest one for a share of 0.

    Raises InputError for a scene without light.
    """
    brightest = scene.amax(0).flatten()
    count = brightest.numel()
    level = float(brightest.kthvalue(min(count - round(share * count) + 1, count)).values)
    if not level > 0:
        raise InputError("a scene without light cannot be exposed until it clips; leave out dark pictures")
    return level


def mosaicked(light: Tensor, cfa: tuple[str, ...]) -> Tensor:
    """``[3,H,W]`` as a mosaic ``[1,H,W]``: each photosite keeps the colour that the repeating cell ``cfa`` names."""
    mosaic = torch.empty_like(light[:1])
    for row, colours in enumerate(cfa):
        for column, colour in enumerate(colours):
            sites = slice(row, None, len(cfa)), slice(column, None, len(colours))
            mosaic[0][sites] = light["RGB".index(colour)][sites]
    return mosaic


def quantised(values: Tensor, bits: int) -> Tensor:
    """Values rounded to multiples of ``1 / (2^bits - 1)``, those below zero too: cameras digitise above a pedestal."""
    levels = 2.0**bits - 1.0
    return (values * levels).round_().div_(levels)


def recorded(frame: Frame, shot: float, read: float, bits: int, generator: torch.Generator) -> Frame:
    """A scene-referred Bayer mosaic, 1.0 = where the sensor clips, as the digital numbers that the sensor gives.

    With the noise of :func:`noisy`, which ``camera.noise_profile`` tells, rounded to ``bits``; a sixteenth of the range
    below black is kept.

    Raises InputError for other frames.
    """
    if (frame.state.layout, frame.state.reference) != ("bayer", "scene") or not frame.camera.cfa:
        raise InputError(f"{frame.name}: is {frame.state}; digital numbers are made of scene-referred Bayer mosaics")
    white = 2.0**bits - 1.0
    black = round(PEDESTAL * white)
    seen = noisy(frame.pixels[0], shot, read, generator)
    numbers = (seen * (white - black)).add_(black).round_().clamp_(0.0, white)
    camera = replace(frame.camera, noise_profile=((shot, read),) * 3)
    made = Frame.from_bayer(
        numbers.to(torch.uint16),
        pattern="".join(camera.cfa),  # type: ignore[arg-type]
        black=black,
        white=white,
        exposure=frame.exposure,
        camera=camera,
    )
    return replace(made, facts=replace(frame.facts, clip_level=None))
