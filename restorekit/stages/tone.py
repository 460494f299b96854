"""Brightness and contrast: exposure in stops, and the ways from scene light to a picture on a display."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restorekit.color import primaries as spaces
from restorekit.errors import StageError
from restorekit.facts import Facts
from restorekit.frame import Frame
from restorekit.stage import Stage, StageSpec, param, parameters
from restorekit.stages.illuminant import block_means
from restorekit.state import Primaries

MIDDLE_GRAY = 0.18
"""Display-linear value of a surface that reflects 18 %."""

CAMERA_WEIGHTS = (0.25, 0.5, 0.25)
"""Stands for luminance where the primaries are the camera's: the share of each colour in a Bayer mosaic."""

METERED = 1 << 18
"""The most blocks whose light is measured for an exposure."""

LINEAR_PICTURE = {"layout": ("rgb", "gray"), "reference": ("scene", "display"), "transfer": ("linear",)}


def luminance(pixels: Tensor, primaries: Primaries) -> Tensor:
    """``[C,H,W]`` as one plane ``[1,H,W]``: Y of linear RGB, luma of encoded RGB, gray as it is (a view)."""
    if primaries == "camera" and pixels.shape[0] == 3:
        return spaces.weighted(pixels, CAMERA_WEIGHTS)
    return spaces.luminance(pixels, primaries)


@parameters
class Exposure(Stage):
    """Multiply linear light by ``2^ev``: a pure gain, as well on a mosaic (where it costs a third) as on RGB.

    ``fixed`` adds ``ev`` and, for scene-referred frames with ``baseline``, the exposure that the camera's
    maker and its profile want added to its RAW files; that is then taken from the camera facts, so that it is added
    once. A profile that ``color.camera_matrix`` brings has its exposure added where this stage comes after it.
    ``auto`` brings the log-average luminance of the unclipped blocks of the image to ``middle_gray``, within
    ``min_ev`` and ``max_ev`` (``ev`` comes on top). It never brightens so far that more than
    ``highlights_percent`` of the unclipped blocks come to lie over ``headroom_ev`` above middle gray, or over
    1.0 in a display-referred frame. An all black or wholly clipped image is left as it is.

    Nothing is clamped. ``facts.scale``, ``clip_level`` and ``noise`` follow.
    """

    spec = StageSpec(
        name="tone.exposure",
        source="Reinhard et al., Photographic Tone Reproduction for Digital Images, SIGGRAPH 2002, eq. 1-2 (auto); "
        "DNG 1.7.1, BaselineExposure, BaselineExposureOffset (fixed)",
        accepts={**LINEAR_PICTURE, "layout": ("rgb", "gray", "bayer", "xtrans")},
    )
    ev: Annotated[float, param("Exposure change", unit="EV", ge=-20, le=20, usual=(-5, 5))] = 0.0
    mode: Annotated[Literal["fixed", "auto"], param("Take ev as it is, or measure the image")] = "fixed"
    baseline: Annotated[bool, param("Add the camera's baseline exposure in fixed mode")] = True
    middle_gray: Annotated[float, param("Where auto puts the log-average luminance", gt=0, le=1)] = MIDDLE_GRAY
    min_ev: Annotated[float, param("Least change by auto", unit="EV", ge=-20, le=0, usual=(-10, 0))] = -6.0
    max_ev: Annotated[float, param("Greatest change by auto", unit="EV", ge=0, le=20, usual=(0, 10))] = 4.0
    strength: Annotated[float, param("Share of the measured change that auto applies", ge=0, le=1)] = 1.0
    highlights_percent: Annotated[
        float, param("Area that auto may push to white", unit="%", ge=0, le=100, usual=(0, 10))
    ] = 1.0
    headroom_ev: Annotated[float, param("Stops above middle gray that count as white", unit="EV", ge=1, le=10)] = 3.0

    def needs_measure(self, frame: Frame) -> bool:
        return self.mode == "auto"

    def measure(self, frame: Frame) -> Facts:
        return replace(frame.facts, measured={**frame.facts.measured, self.spec.name: self._measured_ev(frame)})

    def _measured_ev(self, frame: Frame) -> float:
        means = block_means(frame, METERED)
        values = means.values
        if frame.state.primaries == "camera" and frame.facts.illuminant and frame.facts.white_balance is None:
            values = values / values.new_tensor(frame.facts.illuminant)[:, None, None]
        y = luminance(values, frame.state.primaries)[0]
        y = y[means.clean & y.isfinite()]
        average = log_average(y)
        if average is None:
            return 0.0
        wanted = math.log2(self.middle_gray / average)
        if wanted > 0:
            rank = max(1, math.ceil((1 - self.highlights_percent / 100) * y.numel()))
            white = self.middle_gray * 2**self.headroom_ev
            white = min(white, 1.0) if frame.state.reference == "display" else white
            room = math.log2(white / max(float(y.kthvalue(rank).values), 1e-9))
            wanted = min(wanted, max(room, 0.0))
        return self.strength * min(max(wanted, self.min_ev), self.max_ev)

    def apply(self, frame: Frame) -> Frame:
        ev = self.ev
        if self.mode == "auto":
            ev += _number(frame.facts, self.spec.name)
        elif self.baseline and frame.state.reference == "scene":
            wanted = frame.camera.baseline_exposure_ev + frame.camera.profile.baseline_exposure_ev
            if wanted:
                done = replace(frame.camera.profile, baseline_exposure_ev=0.0)
                frame = replace(frame, camera=replace(frame.camera, baseline_exposure_ev=0.0, profile=done))
                ev += wanted
        if ev == 0:
            return frame
        gain = 2.0**ev
        return replace(frame, pixels=frame.pixels * gain, facts=frame.facts.scaled((gain,)))


def log_average(values: Tensor) -> float | None:
    """``exp(mean(log(y)))`` of the positive among luminances ``[N]``, or ``None`` where there are none.

    Values below a millionth of the largest count as that, so that black borders do not rule.
    """
    peak = float(values.max()) if values.numel() else 0.0
    if peak <= 0:
        return None
    return float(values.clamp_min(1e-6 * peak).double().log_().mean().exp_())


def _number(facts: Facts, name: str) -> float:
    value = facts.measured.get(name)
    if not isinstance(value, float):
        raise StageError(f"{name} has not measured the image; run it through a pipeline or call the stage itself")
    return value


@parameters
class Curve(Stage):
    """A smooth monotone tone curve for finished pictures, with the hue kept.

    Values between ``black`` and ``white`` become 0..1. What lies beyond is clamped in scene-referred light, and goes
    on with slope 1 in display-referred pictures: there it is a colour outside the gamut. The curve is a monotone
    cubic through six points on the square-root axis (near to how bright a value looks); ``contrast`` turns it
    steeper around middle gray, ``shadows`` and ``highlights`` lift (> 0) or lower (< 0) its ends. It is
    applied to the largest and the smallest channel of a pixel, the one between keeps its relative place: the
    hue of the HSV hexcone stays, and so do neutrals. The result is display-referred and linear.
    """

    spec = StageSpec(
        name="tone.curve",
        source="Fritsch & Carlson, Monotone Piecewise Cubic Interpolation, SIAM J. Numer. Anal. 17 (1980); "
        "Smith, Color Gamut Transform Pairs, SIGGRAPH 1978 (hexcone hue)",
        accepts=LINEAR_PICTURE,
        emits={"reference": "display"},
    )
    contrast: Annotated[float, param("Steeper (> 0) or flatter around middle gray", ge=-1, le=1)] = 0.0
    shadows: Annotated[float, param("Lift or lower the shadows", ge=-1, le=1)] = 0.0
    highlights: Annotated[float, param("Lift or lower the highlights", ge=-1, le=1)] = 0.0
    black: Annotated[float, param("Linear value that becomes 0", ge=-0.2, le=0.5)] = 0.0
    white: Annotated[float, param("Linear value that becomes 1", ge=0.55, le=64, usual=(0.55, 4))] = 1.0

    def apply(self, frame: Frame) -> Frame:
        x = frame.pixels - self.black
        x = x.mul_(1 / (self.white - self.black))
        if frame.state.reference == "scene":
            x = x.clamp_(0.0, 1.0)
        if self.contrast == self.shadows == self.highlights == 0:
            return frame.with_pixels(x)
        table = torch.from_numpy(_curve_table(self.contrast, self.shadows, self.highlights)).to(x.device)
        if x.shape[0] == 1:
            return frame.with_pixels(_looked_up(x, table))
        low, high = x.amin(0, keepdim=True), x.amax(0, keepdim=True)
        new_low, new_high = _looked_up(low, table), _looked_up(high, table)
        spread = (new_high - new_low).div_((high - low).clamp_min_(1e-7))
        x = x.sub_(low).mul_(spread).add_(new_low)
        return frame.with_pixels(x.clamp_max_(1.0) if frame.state.reference == "scene" else x)


CURVE_ENTRIES = 4096


@lru_cache(maxsize=16)
def _curve_table(contrast: float, shadows: float, highlights: float) -> NDArray[np.float32]:
    """Linear output ``[4096]`` of the tone curve, evenly spaced on the square root of linear input 0..1."""
    gray = math.sqrt(MIDDLE_GRAY)
    x = np.array([0.0, 0.12, 0.25, gray, 0.70, 1.0])
    y = x.copy()
    y[1:3] += (0.06 * shadows - 0.03 * contrast, 0.09 * shadows - 0.06 * contrast)
    y[4] += 0.08 * contrast + 0.12 * highlights
    y = np.maximum.accumulate(np.clip(y, 0.0, 1.0))
    root = _monotone_cubic(x, y, np.linspace(0.0, 1.0, CURVE_ENTRIES))
    return (root**2).astype(np.float32)


def _monotone_cubic(x: NDArray[np.float64], y: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cubic Hermite interpolation whose slopes are limited by Fritsch and Carlson so that it stays monotone."""
    steps = np.diff(x)
    secants = np.diff(y) / steps
    slopes = np.concatenate(([secants[0]], (secants[:-1] + secants[1:]) / 2, [secants[-1]]))
    for left, secant in enumerate(secants.tolist()):
        pair = slice(left, left + 2)
        steepest = math.hypot(*slopes[pair]) / secant if secant else math.inf
        slopes[pair] *= min(1.0, 3 / steepest)
    k = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(steps) - 1)
    t = (at - x[k]) / steps[k]
    value = y[k] * (1 + 2 * t) * (1 - t) ** 2 + y[k + 1] * t**2 * (3 - 2 * t)
    return np.asarray(value + steps[k] * t * (1 - t) * (slopes[k] * (1 - t) - slopes[k + 1] * t))


def _looked_up(values: Tensor, table: Tensor) -> Tensor:
    """A table over the square root of values in 0..1, linear between its entries; beyond them with slope 1."""
    inside = values.clamp(0.0, 1.0)
    beyond = values - inside
    position = inside.sqrt_().mul_(CURVE_ENTRIES - 1)
    index = position.to(torch.int32).clamp_max_(CURVE_ENTRIES - 2)
    share = position.sub_(index)
    below = table[index]
    return torch.lerp(below, table[index + 1], share).add_(beyond)


@parameters
class Reinhard(Stage):
    """Reinhard's global operator on luminance, from scene or display light to a display-referred picture in 0..1.

    The log-average luminance of the image (of block means, whatever its size) becomes ``key``;
    ``L (1 + L / white^2) / (1 + L)`` compresses it. ``white`` is the least scaled luminance that turns white;
    left out, it is the largest of the image, so that nothing burns out. RGB follows luminance; a colour that
    would leave 0..1 is desaturated until it fits, its luminance kept.
    """

    spec = StageSpec(
        name="tone.reinhard",
        source="Reinhard et al., Photographic Tone Reproduction for Digital Images, SIGGRAPH 2002, eq. 1, 2, 4",
        accepts=LINEAR_PICTURE,
        emits={"reference": "display"},
    )
    key: Annotated[float, param("Value that the log-average luminance is scaled to", gt=0, le=2, usual=(0.02, 1))] = (
        0.18
    )
    white: Annotated[float | None, param("Scaled luminance that becomes white; none: the largest", gt=0)] = None

    def measure(self, frame: Frame) -> Facts:
        blocks = luminance(block_means(frame).values, frame.state.primaries)
        average = log_average(blocks[blocks.isfinite()]) or 1.0
        peak = luminance(frame.pixels, frame.state.primaries).nan_to_num_(0.0, 0.0, 0.0).max()
        return replace(frame.facts, measured={**frame.facts.measured, self.spec.name: (average, float(peak))})

    def apply(self, frame: Frame) -> Frame:
        measured = frame.facts.measured.get(self.spec.name)
        if not isinstance(measured, tuple):
            raise StageError(f"{frame.name}: {self.spec.name} has not measured the image; call the stage itself")
        scale = self.key / measured[0]
        white = self.white or max(measured[1] * scale, 1e-6)
        y = luminance(frame.pixels, frame.state.primaries).clamp(1e-9, 1e9)
        scaled = y * scale
        target = (scaled / white**2).add_(1.0).mul_(scaled).div_(scaled + 1.0).clamp_max_(1.0)
        if frame.pixels.shape[0] == 1:
            return frame.with_pixels(target)
        rgb = frame.pixels.clamp(0.0, 1e9).mul_(target / y)
        return frame.with_pixels(_fitted(rgb, target))


def _fitted(rgb: Tensor, y: Tensor) -> Tensor:
    """Non-negative RGB mixed in place with the gray ``y`` (``[1,H,W]``, at most 1) just so far that it is at most 1."""
    excess = rgb.amax(0, keepdim=True).sub_(y).clamp_min_(1e-9)
    share = (1.0 - y).div_(excess).clamp_max_(1.0)
    return rgb.sub_(y).mul_(share).add_(y).clamp_(0.0, 1.0)


@parameters
class Filmic(Stage):
    """A film-like curve with toe and shoulder, from scene light to a display-referred picture in 0..1.

    A log-logistic curve (the Naka-Rushton response) whose toe runs out straight to black: scene value 0 gives
    0, ``middle_gray`` gives 0.18, ``white_ev`` stops above it 1. ``contrast`` is its slope at middle gray on
    log-log axes. The curve acts on each channel after the colours were moved towards gray by
    ``path_to_white``, and moves them back after it: so bright saturated light fades to white, and a clipped
    sun is white. ``keep_hue`` mixes in a rendering that keeps the hexcone hue; at 0 fire turns yellow as it
    does on film, at 1 hues stay and fire turns pink. Negative light counts as none.

    Without ``white_ev`` white lies where the sensor clips (``facts.clip_level``), 2.5 to 10 stops above
    middle gray, or at 5 stops where that is not known.
    """

    spec = StageSpec(
        name="tone.filmic",
        source="Naka & Rushton, J. Physiol. 185 (1966), log-logistic response; Lottes, Advanced Techniques and "
        "Optimization of HDR Color Pipelines, GDC 2016; Sobotka, AgX (2022), curve between inset and outset",
        accepts=LINEAR_PICTURE,
        emits={"reference": "display"},
    )
    middle_gray: Annotated[float, param("Scene value rendered as middle gray", gt=0, le=10, usual=(0.02, 1))] = (
        MIDDLE_GRAY
    )
    white_ev: Annotated[float | None, param("White, stops above middle gray", unit="EV", ge=2.5, le=20)] = None
    black_ev: Annotated[float, param("Bend of the toe, stops below middle gray", unit="EV", ge=3, le=20)] = 6.0
    contrast: Annotated[float, param("Slope at middle gray", ge=1.0, le=3.0)] = 1.25
    saturation: Annotated[float, param("Saturation of the result", ge=0, le=2)] = 1.0
    path_to_white: Annotated[float, param("How readily bright colours turn white", ge=0, le=0.8)] = 0.3
    keep_hue: Annotated[float, param("Share of the rendering that keeps hues", ge=0, le=1)] = 0.4

    def apply(self, frame: Frame) -> Frame:
        toe = self.middle_gray * 2.0**-self.black_ev
        slope, offset, height, floor = _log_logistic(self._white_ev(frame), self.black_ev, self.contrast)
        x = frame.pixels
        if frame.state.layout == "gray":
            light = x + toe
        else:
            toward_gray = (x[0] + x[1]).add_(x[2]).mul_(self.path_to_white / 3).add_(toe)
            light = torch.add(toward_gray, x, alpha=1 - self.path_to_white)
        light.clamp_(toe, 1e9)
        curve = light.log() if self.keep_hue else light.log_()
        curve.mul_(slope).add_(offset - slope * math.log(self.middle_gray + toe)).sigmoid_()
        curve.clamp_max_((1 + floor) / height)  # what is white in all channels must not be tinted on the way back
        if frame.state.layout == "gray":
            return frame.with_pixels(curve.mul_(height).sub_(floor).clamp_(0.0, 1.0))
        if self.keep_hue:
            _mix_in_hue(curve, light, self.keep_hue)
        back = self.saturation / (1 - self.path_to_white)
        gray = (curve[0] + curve[1]).add_(curve[2]).mul_(height * (1 - back) / 3).sub_(floor)
        return frame.with_pixels(curve.mul_(height * back).add_(gray).clamp_(0.0, 1.0))

    def _white_ev(self, frame: Frame) -> float:
        if self.white_ev is not None:
            return self.white_ev
        clip = frame.facts.clip_level
        return min(max(math.log2(min(clip) / self.middle_gray), 2.5), 10.0) if clip and min(clip) > 0 else 5.0


def _mix_in_hue(curve: Tensor, light: Tensor, share: float) -> None:
    """Move ``curve`` ``[3,H,W]`` in place towards the colour between its extremes that has the hue of ``light``."""
    low, span = light.amin(0), light.amax(0)
    span.sub_(low).clamp_min_(1e-9)
    dark, spread = curve.amin(0), curve.amax(0)
    spread.sub_(dark).div_(span)
    curve.lerp_(light.sub_(low).mul_(spread).add_(dark), share)


@lru_cache(maxsize=64)
def _log_logistic(white_ev: float, black_ev: float, contrast: float) -> tuple[float, float, float, float]:
    """``(slope, offset, height, floor)`` of ``y = height * sigmoid(slope * ln(q) + offset) - floor``.

    ``q`` is light plus the toe over middle gray plus the toe; y is 0 at no light, 0.18 at middle gray, 1 at
    white. The slope is found by bisection so that ``d ln y / d ln x`` at middle gray is the contrast.
    """
    toe = 2.0**-black_ev
    white, black = (2.0**white_ev + toe) / (1 + toe), toe / (1 + toe)

    def solved(slope: float) -> tuple[float, float, float, float] | None:
        top, bottom = white**slope, black**slope
        bend = MIDDLE_GRAY * (top - bottom) - (1 - bottom)
        if bend <= 0:  # even a curve without a shoulder would not reach white
            return None
        half = ((1 - bottom) * top - MIDDLE_GRAY * (top - bottom)) / bend
        height = 1 / (top / (top + half) - bottom / (bottom + half))
        steepness = height * slope * half / (1 + half) ** 2 / (1 + toe) / MIDDLE_GRAY
        return half, height, height * bottom / (bottom + half), steepness

    low, high = 0.2, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        found = solved(middle)
        low, high = (middle, high) if found is None or found[3] < contrast else (low, middle)
    final = solved(high)
    assert final is not None
    half, height, floor, _ = final
    return high, -math.log(half), height, floor
