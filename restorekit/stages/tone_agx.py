"""AgX: a sigmoid over stops between an inset and an outset of the primaries."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Annotated

import numpy as np
from torch import Tensor

from restorekit.color.adaptation import white_xyz
from restorekit.color.primaries import CHROMATICITIES, conversion, luminance_weights, rgb_to_xyz, transformed
from restorekit.facts import Matrix
from restorekit.frame import Frame
from restorekit.stage import Stage, StageSpec, param, parameters
from restorekit.stages.tone import MIDDLE_GRAY
from restorekit.stages.tone_global import DEFINED

INSET = 0.20
"""How far the primaries move towards the white in xy before the curve."""

STOPS_BELOW, STOPS_ABOVE = 10.0, 6.5
"""The range of the curve about middle gray."""

PIVOT = STOPS_BELOW / (STOPS_BELOW + STOPS_ABOVE)
SLOPE, TOE_POWER, SHOULDER_POWER = 2.0, 3.0, 3.25
GAMMA = 2.2
"""Of the display that the curve's result, a signal 0..1, is meant for."""


@parameters
class Agx(Stage):
    """The base look of AgX, from scene or display light to a picture in 0..1: soft, and calm where colours are bright.

    BT.709 primaries, moved towards white (the inset), log2 over 16.5 stops, a sigmoid, the way back (the outset),
    decoded for a display of gamma 2.2. Bright saturated light turns white along its hue. ``middle_gray`` is
    rendered as 0.18; AgX itself gives 0.22: ``middle_gray: 0.142`` is its own exposure. Colours outside BT.709 are
    mixed with gray until they are inside it.
    """

    spec = StageSpec(
        name="tone.agx",
        source="Sobotka, AgX (2022), AgX Base: inset 20 %, -10 to +6.5 EV, slope 2, powers 3.0 and 3.25; sigmoid by "
        "Jed Smith",
        accepts=DEFINED,
        emits={"reference": "display"},
    )
    middle_gray: Annotated[float, param("Scene value rendered as middle gray", gt=0, le=10, usual=(0.02, 1))] = (
        MIDDLE_GRAY
    )

    def apply(self, frame: Frame) -> Frame:
        gain = _own_middle_gray() / self.middle_gray
        x = frame.pixels.nan_to_num(0.0, 1e9, -1e9).clamp_(-1e9, 1e9).mul_(gain)
        if frame.state.layout == "gray":
            return frame.with_pixels(_sigmoid(_stops(x)).pow_(GAMMA).clamp_(0.0, 1.0))
        primaries = frame.state.primaries
        inside = _inside(transformed(x, conversion(primaries, "bt709")))
        inset, outset = agx_matrices()
        signal = transformed(_sigmoid(_stops(transformed(inside, inset))), outset)
        display = signal.clamp_(0.0, 1.0).pow_(GAMMA)
        return frame.with_pixels(transformed(display, conversion("bt709", primaries)).clamp_(0.0, 1.0))


@lru_cache
def agx_matrices() -> tuple[Matrix, Matrix]:
    """Inset and outset, its inverse: ``[3,3]`` BT.709 light as if its primaries lay 20 % nearer to the white in xy."""
    space = CHROMATICITIES["bt709"]
    white = np.array(space.white)
    inner = [white + (np.array(xy) - white) * (1 - INSET) for xy in (space.red, space.green, space.blue)]
    columns = np.stack([np.array([x, y, 1 - x - y]) for x, y in inner], axis=1)
    to_xyz = columns * np.linalg.solve(columns, white_xyz(space.white))
    inset: Matrix = np.linalg.inv(rgb_to_xyz("bt709")) @ to_xyz
    outset: Matrix = np.linalg.inv(to_xyz) @ rgb_to_xyz("bt709")
    return inset, outset


def _inside(rgb: Tensor) -> Tensor:
    """BT.709 mixed in place with the gray of its luminance just so far that no channel is negative."""
    red, green, blue = luminance_weights("bt709").tolist()
    y = (rgb[0:1] * red).add_(rgb[1:2], alpha=green).add_(rgb[2:3], alpha=blue).clamp_min_(0.0)
    lack = (y - rgb.amin(0, keepdim=True)).clamp_min_(1e-9)
    return rgb.sub_(y).mul_((y / lack).clamp_max_(1.0)).add_(y).clamp_min_(0.0)


def _stops(x: Tensor) -> Tensor:
    """Linear values as positions 0..1 on the curve's range of stops, in place."""
    x = x.clamp_min_(MIDDLE_GRAY * 2.0**-STOPS_BELOW).mul_(1 / MIDDLE_GRAY).log2_()
    return x.add_(STOPS_BELOW).mul_(1 / (STOPS_BELOW + STOPS_ABOVE)).clamp_(0.0, 1.0)


def _sigmoid(x: Tensor) -> Tensor:
    """The signal at positions ``x`` 0..1, which it overwrites: 0 and 1 at the ends, 0.5 at the pivot."""
    below = (PIVOT - x).clamp_min_(0.0)
    above = x.sub_(PIVOT).clamp_min_(0.0)
    return _limb(above, 1 - PIVOT, SHOULDER_POWER).sub_(_limb(below, PIVOT, TOE_POWER)).add_(0.5)


def _limb(distance: Tensor, length: float, power: float) -> Tensor:
    """``u / (1 + u^p)^(1/p)`` from 0 with the slope, scaled in place to reach 0.5 at ``length``."""
    scale = _limb_scale(length, power)
    u = distance.mul_(SLOPE / scale)
    return u.div_(u.pow(power).add_(1.0).pow_(1 / power)).mul_(scale)


def _limb_scale(length: float, power: float) -> float:
    reach = SLOPE * length
    return float(reach / ((reach / 0.5) ** power - 1) ** (1 / power))


@lru_cache
def _own_middle_gray() -> float:
    """The scene value that the published curve renders as 0.18; it lies on the toe."""
    scale = _limb_scale(PIVOT, TOE_POWER)
    drop = (0.5 - MIDDLE_GRAY ** (1 / GAMMA)) / scale
    u = drop / (1 - drop**TOE_POWER) ** (1 / TOE_POWER)
    position = PIVOT - u * scale / SLOPE
    return MIDDLE_GRAY * math.exp2(position * (STOPS_BELOW + STOPS_ABOVE) - STOPS_BELOW)
