"""Maps that look like the depth of scenes: planes, things that stand in front of each other, and rough ground."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from restorekit.color.ycbcr import luma
from restorekit.data.degradation import chance, log_uniform, uniform, whole
from restorekit.stages.guided import linear_model

Method = Literal["layout", "fractal"]

SCENE_PX = (300.0, 1200.0)
"""Longer side of the scenes of ``layout``, by its logarithm; smaller pictures show a part of one."""

GROUND, SKY = 0.75, 0.6
"""Share of scenes that stand on a ground; of these, the share without a backdrop."""

HORIZON, TILT = (-0.1, 0.7), 0.08
"""Place of the horizon as a share of the height, and the most that it rises, as a share of the width."""

NEAREST, BACKDROP = (0.04, 0.5), (0.3, 1.0)
"""Distance of the ground at the lower edge, by its logarithm, and of what ends it."""

THINGS, TALL, SLIM = 14, (0.3, 5.0), (0.25, 2.0)
"""Most things in a scene; their height beside that of the camera, and width to height, by their logarithms."""

VERTICES, ROUGH, SQUARE = 40, (0.0, 0.25), (2.0, 12.0)
"""Outlines of things: superellipses of an exponent, whose radius strays."""

VARIATION = 0.08
"""Standard deviation of what is smoothly added to a layout's distances, as a share of them."""

WINDOW, FLAT = 1 / 24, 1e-3
"""Of a picture's longer side; and the variance of luma up to which it has no outlines."""

FINE_PX = 4
"""Fractals are smooth over so many px."""


def depth(height: int, width: int, generator: torch.Generator, method: Method = "layout") -> Tensor:
    """Relative distances ``[H,W]`` in 0..1, 1 the farthest, as scenes have them; that of a picture they cannot know.

    ``layout`` puts things, each at one distance, on a ground that recedes to a horizon under a sky or before a
    backdrop, or hangs them before a slanted wall. The picture shows a part of the scene, a smaller one all of less.
    ``fractal`` is a slope and fractional Brownian noise (Saupe, in The Science of Fractal Images, 1988), from 0 to 1.
    With the first, whose distances vary a little by such noise, it shares no more than that.
    """
    return _fractal(height, width, generator) if method == "fractal" else _layout(height, width, generator)


def followed(picture: Tensor, generator: torch.Generator) -> Tensor:
    """Distances ``[H,W]`` of a layout whose outlines are those of an encoded picture ``[3,H,W]``: guided filter."""
    _, height, width = picture.shape
    guide = luma(picture.clamp(0.0, 1.0), limited=False)[0]
    slope, offset = linear_model(guide, depth(height, width, generator), 2 * window(height, width), FLAT)
    return slope.mul_(guide).add_(offset).clamp_(0.0, 1.0)


def attenuated(picture: Tensor) -> Tensor:
    """Distances ``[H,W]`` in 0..1 guessed from an encoded picture ``[3,H,W]``: what is bright and pale is far.

    That holds in haze (Zhu, Mai & Shao, A Fast Single Image Haze Removal Algorithm Using Color Attenuation Prior, IEEE
    TIP 24 (2015), whose coefficients these are), and for skies without it. A median keeps outlines and drops texture.
    """
    picture = picture.clamp(0.0, 1.0)
    value = picture.amax(0)
    saturation = 1.0 - picture.amin(0) / value.clamp(min=1e-3)
    guess = (0.121779 + 0.959710 * value - 0.780245 * saturation).clamp_(0.0, 1.0)
    levels = guess.mul_(255.0).round_().byte().numpy()
    return torch.from_numpy(cv2.medianBlur(levels, 2 * window(*levels.shape) + 1)).div(255.0)


def window(height: int, width: int) -> int:
    """Radius in px of what depth keeps of a picture of this size."""
    return max(2, round(WINDOW * max(height, width)))


def fractal(height: int, width: int, hurst: float, generator: torch.Generator) -> Tensor:
    """Noise ``[H,W]`` in octaves, of mean 0 and variance about 1, the smoother the nearer ``hurst`` is to 1."""
    rows, columns = math.ceil(height / FINE_PX), math.ceil(width / FINE_PX)
    field, power = torch.zeros((1, 1, rows, columns)), 0.0
    cell, amplitude = float(max(2, rows, columns)), 1.0
    while cell >= 2.0:
        nodes = (math.ceil(rows / cell) + 1, math.ceil(columns / cell) + 1)
        octave = torch.randn((1, 1, *nodes), generator=generator)
        field += amplitude * F.interpolate(octave, (rows, columns), mode="bicubic", align_corners=True)
        power += amplitude**2
        cell, amplitude = cell / 2, amplitude / 2**hurst
    return F.interpolate(field.mul_(power**-0.5), (height, width), mode="bicubic")[0, 0]


class _Thing(NamedTuple):
    """What stands in a scene; lengths are shares of the scene's height, but for ``column``, one of its width."""

    distance: float
    foot: float
    column: float
    height: float
    width: float


def _layout(height: int, width: int, generator: torch.Generator) -> Tensor:
    shown = min(1.0, max(height, width) / log_uniform(generator, SCENE_PX))
    high, wide = height / shown, width / shown
    top, left = uniform(generator, (0.0, high - height)), uniform(generator, (0.0, wide - width))
    down = torch.arange(height)[:, None].add(top + 0.5).div_(high)
    right = torch.arange(width).add(left + 0.5).div_(wide)
    make = _standing if chance(generator, GROUND) else _hanging
    distances, things = make(down, right, generator)
    map_ = distances.contiguous().numpy()
    for thing in sorted(things, reverse=True):
        outline = _outline(generator) * np.array([thing.width, thing.height]) / 2
        outline += np.array([thing.column * wide / high, thing.foot - thing.height / 2])
        points = np.rint(outline * high - np.array([left, top])).astype(np.int32)
        cv2.fillPoly(map_, [points], thing.distance)
    roughness = fractal(height, width, 0.7, generator).mul_(VARIATION).add_(1.0)
    return distances.mul_(roughness).clamp_(0.0, 1.0)


def _standing(down: Tensor, right: Tensor, generator: torch.Generator) -> tuple[Tensor, list[_Thing]]:
    """A ground seen from above it, and what stands on it."""
    horizon, tilt = uniform(generator, HORIZON), uniform(generator, (-TILT, TILT))
    nearest = log_uniform(generator, NEAREST)
    farthest = 1.0 if chance(generator, SKY) else max(nearest, uniform(generator, BACKDROP))
    reach = nearest * (1.0 - horizon)
    ground = reach / (down - horizon - tilt * (right - 0.5)).clamp_(min=reach / farthest)
    things = []
    for _ in range(whole(generator, 0, THINGS)):
        distance = min(farthest, log_uniform(generator, (nearest, farthest)))
        tall = log_uniform(generator, TALL) * reach / distance
        things.append(
            _Thing(
                distance,
                horizon + reach / distance,
                uniform(generator, (-0.1, 1.1)),
                tall,
                tall * log_uniform(generator, SLIM),
            )
        )
    return ground, things


def _hanging(down: Tensor, right: Tensor, generator: torch.Generator) -> tuple[Tensor, list[_Thing]]:
    """A wall, in about the direction of the picture, and what is before it."""
    middle = uniform(generator, BACKDROP)
    up, across = (uniform(generator, (-0.4, 0.4)) for _ in range(2))
    wall = middle * (1.0 + up * (0.5 - down) + across * (right - 0.5))
    things = []
    for _ in range(whole(generator, 0, THINGS // 2)):
        tall = log_uniform(generator, (0.1, 0.8))
        things.append(
            _Thing(
                middle * uniform(generator, (0.2, 0.9)),
                uniform(generator, (0.0, 1.0 + tall)),
                uniform(generator, (-0.1, 1.1)),
                tall,
                tall * log_uniform(generator, SLIM),
            )
        )
    return wall, things


def _outline(generator: torch.Generator) -> NDArray[np.float64]:
    """Points ``[N,2]`` (right, down) around a shape that about fills -1..1: from smooth and square to rough."""
    exponent, rough = log_uniform(generator, SQUARE), uniform(generator, ROUGH)
    angle = torch.linspace(0.0, math.tau * (1.0 - 1.0 / VERTICES), VERTICES, dtype=torch.float64)
    x, y = angle.cos(), angle.sin()
    radius = (x.abs().pow(exponent) + y.abs().pow(exponent)).pow(-1.0 / exponent)
    radius *= 1.0 + rough * (torch.rand(VERTICES, generator=generator, dtype=torch.float64) - 0.5)
    points: NDArray[np.float64] = torch.stack([radius * x, radius * y], 1).numpy()
    return points


def _fractal(height: int, width: int, generator: torch.Generator) -> Tensor:
    angle = math.radians(45.0) * float(torch.randn((), generator=generator))
    strength = uniform(generator, (0.0, 4.0))
    down, right = torch.linspace(-0.5, 0.5, height)[:, None], torch.linspace(-0.5, 0.5, width)
    slope = right * (strength * math.sin(angle)) - down * (strength * math.cos(angle))
    field = fractal(height, width, uniform(generator, (0.4, 1.0)), generator).add_(slope)
    return field.sub_(field.min()).div_(field.max().clamp_(min=1e-6))
