"""Global tone curves of the literature: one curve for the whole picture, fixed or set by its statistics."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Annotated

import numpy as np

from restorekit.color.primaries import conversion, luminance_weights, transformed
from restorekit.errors import StageError
from restorekit.facts import Facts, Matrix
from restorekit.frame import Frame
from restorekit.stage import Stage, StageSpec, param, parameters
from restorekit.stages.illuminant import block_means
from restorekit.stages.tone import LINEAR_PICTURE, MIDDLE_GRAY
from restorekit.stages.tone_luminance import light, positive_luminance, range_of, recoloured
from restorekit.state import Primaries

DEFINED = {**LINEAR_PICTURE, "primaries": ("bt709", "p3", "bt2020", "adobe-rgb", "prophoto", "ap1")}
"""Linear pictures whose primaries a standard defines."""


@parameters
class Drago(Stage):
    """Logarithms whose base grows with brightness, from scene or display light to a picture in 0..1.

    ``bias`` bends the change from base 2 in the shadows to base 10 at the brightest part of the image (of block
    means, whatever its size), which becomes white. The exposure before it is such that the log-average luminance
    (deep shadows count little) is rendered at ``key``, as far as the range of the image allows. RGB follows
    luminance; bright saturated light turns white.
    """

    spec = StageSpec(
        name="tone.drago",
        source="Drago, Myszkowski, Annen & Chiba, Adaptive Logarithmic Mapping for Displaying High Contrast Scenes, "
        "Computer Graphics Forum 22 (2003), eq. 4",
        accepts=LINEAR_PICTURE,
        emits={"reference": "display"},
    )
    key: Annotated[float, param("Where the log-average luminance is rendered", gt=0, le=0.9)] = 0.18
    bias: Annotated[float, param("Lower: brighter shadows, flatter highlights", ge=0.5, le=1)] = 0.85
    saturation: Annotated[float, param("Saturation of the result", ge=0, le=2)] = 1.0

    def measure(self, frame: Frame) -> Facts:
        blocks = light(block_means(frame).values)
        found = range_of(positive_luminance(blocks, frame.state.primaries).log2_())
        return replace(
            frame.facts, measured={**frame.facts.measured, self.spec.name: (2.0**found.mean, 2.0**found.top)}
        )

    def apply(self, frame: Frame) -> Frame:
        measured = frame.facts.measured.get(self.spec.name)
        if not isinstance(measured, tuple):
            raise StageError(f"{frame.name}: {self.spec.name} has not measured the image; call the stage itself")
        average, brightest = measured
        ratio = max(brightest / average, 1.0)
        exposure = _drago_exposure(ratio, self.bias, self.key)
        clean = light(frame.pixels)
        y = positive_luminance(clean, frame.state.primaries)
        world = y * (exposure / average)
        peak = exposure * ratio
        base = (world / peak).pow_(math.log(self.bias) / math.log(0.5)).mul_(8.0).add_(2.0).log_()
        target = world.log1p_().div_(base).mul_(1 / math.log10(peak + 1)).clamp_(0.0, 1.0)
        return frame.with_pixels(recoloured(clean, y, target, saturation=self.saturation))


def _drago_exposure(ratio: float, bias: float, key: float) -> float:
    """The scaled log-average luminance that is rendered at ``key`` where the peak is ``ratio`` times as bright."""
    base = math.log(2 + 8 * ratio ** (-math.log(bias) / math.log(0.5)))
    return _solved(lambda x: math.log1p(x) / base / math.log10(x * ratio + 1), key)


def _solved(curve: Callable[[float], float], value: float) -> float:
    """Where a rising curve takes a value, between 1e-6 and 1e6."""
    low, high = 1e-6, 1e6
    for _ in range(80):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if curve(middle) < value else (low, middle)
    return high


@parameters
class Hable(Stage):
    """The filmic curve of the game Uncharted 2: strong toe, long shoulder; a picture in 0..1.

    ``((x (A x + C B) + D E) / (x (A x + B) + D F) - E / F)``, over its value at ``white``, on each channel, scaled
    so that ``middle_gray`` is rendered as 0.18. Before the curve colours are moved towards gray by
    ``path_to_white`` and back after it, so that bright saturated light fades to white; neutrals are those of the
    published curve. Negative light counts as none.
    """

    spec = StageSpec(
        name="tone.hable",
        source="Hable, Uncharted 2: HDR Lighting, GDC 2010; A to F and white as published in Filmic Tonemapping "
        "Operators (2010)",
        accepts=LINEAR_PICTURE,
        emits={"reference": "display"},
    )
    middle_gray: Annotated[float, param("Scene value rendered as middle gray", gt=0, le=10, usual=(0.02, 1))] = (
        MIDDLE_GRAY
    )
    white: Annotated[float, param("Value on the curve's own scale that becomes white", ge=2, le=200, usual=(2, 40))] = (
        11.2
    )
    path_to_white: Annotated[float, param("How readily bright colours turn white", ge=0, le=0.8)] = 0.3

    def apply(self, frame: Frame) -> Frame:
        top = _uncharted(self.white)
        gain = _solved(lambda x: _uncharted(x) / top, MIDDLE_GRAY) / self.middle_gray
        x = light(frame.pixels).mul_(gain)
        if x.shape[0] == 3:
            x = (x[0:1] + x[1:2]).add_(x[2:3]).mul_(self.path_to_white / 3).add(x, alpha=1 - self.path_to_white)
        x.clamp_max_(self.white)
        below = (x * 0.15).add_(0.50).mul_(x).add_(0.20 * 0.30)
        curve = (x * 0.15).add_(0.10 * 0.50).mul_(x).add_(0.20 * 0.02).div_(below).sub_(0.02 / 0.30).mul_(1 / top)
        if x.shape[0] == 3:
            back = 1 / (1 - self.path_to_white)
            gray = (curve[0:1] + curve[1:2]).add_(curve[2:3]).mul_((1 - back) / 3)
            curve.mul_(back).add_(gray)
        return frame.with_pixels(curve.clamp_(0.0, 1.0))


def _uncharted(x: float) -> float:
    return (x * (0.15 * x + 0.10 * 0.50) + 0.20 * 0.02) / (x * (0.15 * x + 0.50) + 0.20 * 0.30) - 0.02 / 0.30


@parameters
class Aces(Stage):
    """The look of ACES: its reference rendering and the output transform of an SDR display, as one fitted curve.

    In AP1 primaries, desaturated by 0.96 before a rational curve and by 0.93 after it; bright saturated light
    turns white, blue on a way through violet as it does in ACES. ``middle_gray`` is rendered as 0.18; ACES itself
    is darker, as for a cinema: ``middle_gray: 0.263`` is its own exposure. Colours that leave the frame's primaries
    are clipped to 0..1, channel by channel.
    """

    spec = StageSpec(
        name="tone.aces",
        source="Hill's fit of the ACES 1.0 RRT and sRGB ODT, in Pettineo & Hill, Baking Lab, ACES.hlsl (2016); "
        "TB-2014-009 and ACESlib.ODT_Common (saturation matrices)",
        accepts=DEFINED,
        emits={"reference": "display"},
    )
    middle_gray: Annotated[float, param("Scene value rendered as middle gray", gt=0, le=10, usual=(0.02, 1))] = (
        MIDDLE_GRAY
    )

    def apply(self, frame: Frame) -> Frame:
        gain = _solved(_aces_curve, MIDDLE_GRAY) / self.middle_gray
        x = frame.pixels.nan_to_num(0.0, 1e9, -1e9).clamp_(-1e9, 1e9).mul_(gain)
        gray = frame.state.layout == "gray"
        before, after = aces_matrices(frame.state.primaries)
        v = (x if gray else transformed(x, before)).clamp_(0.0, 1e9)
        below = (v * 0.983729).add_(0.4329510).mul_(v).add_(0.238081)
        curve = (v + 0.0245786).mul_(v).sub_(0.000090537).div_(below)
        return frame.with_pixels((curve if gray else transformed(curve, after)).clamp_(0.0, 1.0))


def _aces_curve(v: float) -> float:
    return (v * (v + 0.0245786) - 0.000090537) / (v * (0.983729 * v + 0.4329510) + 0.238081)


@lru_cache
def aces_matrices(primaries: Primaries) -> tuple[Matrix, Matrix]:
    """``[3,3]`` linear RGB to the desaturated AP1 that the ACES curve works in, and back from its result."""
    before = _saturation(0.96) @ conversion(primaries, "ap1")
    after = conversion("ap1", primaries) @ _saturation(0.93)
    return before, after


def _saturation(share: float) -> Matrix:
    """``[3,3]`` that mixes AP1 with its luminance."""
    matrix: Matrix = share * np.eye(3) + (1 - share) * luminance_weights("ap1")[None, :]
    return matrix
