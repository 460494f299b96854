"""From the codes of photographs back to the light of the scene: the response of the camera undone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restorekit.color.transfer import decode
from restorekit.frame import Bracket, Frame
from restorekit.io.write import HALF_MAX
from restorekit.planes import strip_rows, to_float
from restorekit.stage import BracketStage, StageSpec, param, parameters
from restorekit.stages.bracket_blocks import CLIPPED, GUESSED
from restorekit.stages.color import Convert
from restorekit.stages.exposures import nominal_stops
from restorekit.state import ImageState, Primaries, Transfer

CODES = 256
CLIPPED_FROM = 0.985
"""Share of the largest code from which on a value counts as clipped."""

GUESSED_FROM = 0.94
"""Share of the largest code from which on a recovered curve tells little: a shoulder packs much light into few codes,
and what brackets tell of them gives false colours."""

LOWEST, HIGHEST = 8, 248
"""Codes between which brackets tell about the curve."""

QUANTILES = 256
REFUSED_EV = 0.5
"""A recovered curve that leaves more is none."""

AGREES_EV = 0.2
"""The curve of the file's colour space is kept while the exposures it implies are this near to those known."""

SHAPE_EV, SAME_CONTRAST = 0.06, 1.15
"""Frames have the shape of a curve up to so much, and pairs of frames the same contrast up to this ratio."""

SMOOTHNESS, ANCHOR, ROUNDS = 30.0, 100.0, 8
"""Weights of smoothness and of the middle code in the least squares, and how often it is reweighted."""

LEAST_PAIRS, LEAST_EV = 16, 0.25
NOISE_CODES = 1.2
"""Standard deviation of the codes of a photograph in JPEG, of 255."""

NOISE_AT = 0.2


@parameters
class Response(BracketStage):
    """Photographs as scene-linear light: the transfer function undone, or the camera's own curve where it is another.

    A photograph is taken for what its colour space says, sRGB mostly. Cameras add contrast to that; where the frames
    contradict the colour space by more than 0.2 EV, the curve is recovered from how the brightness of one frame maps
    to that of the next: from their histograms, so that frames from the hand need not be aligned. Frames that have the
    shape of the colour space, but whose exposures would need another contrast for each pair of them, follow it: their
    files tell wrong exposures. Where exposures are unknown only the shape of a curve shows, not its contrast, which is
    then left as near to the colour space as can be. One curve serves all channels, so that grays stay gray.
    ``curve: srgb`` never looks for another one, ``recover`` always does.

    Gives scene-referred linear half floats in the primaries ``to``, 1.0 = the largest code, the mask ``clipped`` (codes
    from 98.5 % on; of any channel where primaries change), clip levels and the noise of an 8-bit JPEG; of a recovered
    curve also the mask ``guessed`` (any channel from 94 % on), which counts only where no other frame tells.
    """

    spec = StageSpec(
        name="merge.response",
        source="Grossberg & Nayar, Determining the Camera Response from Images: What Is Knowable?, PAMI 25(11), 2003 "
        "(histograms); Debevec & Malik, SIGGRAPH 1997, eq. 3 (smoothness)",
        accepts={
            "frames": ("bracket", "burst"),
            "layout": ("rgb", "gray"),
            "reference": ("display",),
            "transfer": ("srgb", "gamma", "linear"),
        },
        emits={"reference": "scene", "transfer": "linear"},
    )
    curve: Annotated[
        Literal["auto", "srgb", "recover"], param("The curve of the file's colour space, or one found in the frames")
    ] = "auto"
    to: Annotated[
        Literal["own", "bt709", "p3", "bt2020", "adobe-rgb", "prophoto", "ap1"], param("Primaries of the result")
    ] = "own"

    def emits(self, state: ImageState) -> ImageState:
        changed = self.to != "own" and state.layout == "rgb"
        return super().emits(state).changed({"primaries": self.to} if changed else {})

    def combine(self, bracket: Bracket) -> Bracket:
        transfer = bracket.state.transfer
        own = _curve_of(transfer)
        stops = nominal_stops(bracket.frames)
        pairs = [] if self.curve == "srgb" else _pairs(bracket.frames, stops)
        found = _found(own, pairs, always=self.curve == "recover")
        notes = []
        if found is not None and stops is not None and _contradiction(found, pairs) > REFUSED_EV:
            notes.append("no curve fits the frames and the exposures of their files, which are not used for it")
            stops, pairs = None, _pairs(bracket.frames, None)
            found = _found(own, pairs, always=self.curve == "recover")
        if found is not None:
            off, left = _contradiction(own, pairs), _contradiction(found, pairs)
            guess = "; its contrast is a guess, since exposures are unknown" if stops is None else ""
            why = "do not follow" if off > AGREES_EV else "follow"
            notes.append(
                f"the frames {why} {transfer} (off by {off:.2f} EV): the camera's curve was recovered "
                f"from them (off by {left:.2f} EV){guess}"
            )
        elif self.curve == "recover":
            notes.append("the frames do not differ enough to recover the camera's curve; that of their files is used")
        curve = own if found is None else found
        target = self.emits(bracket.state).primaries
        frames = [_linear(frame, curve, target, recovered=curve is not own) for frame in bracket]
        middle = len(frames) // 2
        for note in notes:
            frames[middle] = frames[middle].with_note(f"{self.spec.name}: {note}")
        return Bracket(tuple(frames))


Curve = NDArray[np.float64]
"""Light ``[256]`` at evenly spaced codes, 1 at the last."""


@dataclass(frozen=True, eq=False)
class Pair:
    """Codes ``[N]`` (0..255) of equal rank in a darker and a brighter frame, and the stops between them, if known."""

    low: Curve
    high: Curve
    stops: float | None

    def error(self, logs: Curve) -> Curve:
        """How far the stops that a curve (log2 of light by code) implies are from those known, or from their median."""
        at = np.arange(CODES)
        implied = np.interp(self.high, at, logs) - np.interp(self.low, at, logs)
        return np.asarray(implied - (np.median(implied) if self.stops is None else self.stops), dtype=np.float64)


def _curve_of(transfer: Transfer) -> Curve:
    codes = torch.linspace(0, 1, CODES, dtype=torch.float64)
    return decode(codes, transfer).numpy().astype(np.float64)


def _found(own: Curve, pairs: Sequence[Pair], *, always: bool) -> Curve | None:
    """The camera's curve, where the frames call for another one than ``own``."""
    if not pairs or not (always or (_contradiction(own, pairs) > AGREES_EV and not _tells_wrong_exposures(own, pairs))):
        return None
    return _recovered(own, pairs)


def _pairs(frames: Sequence[Frame], stops: Sequence[float] | None) -> list[Pair]:
    """What neighbouring frames make of the same light, by the ranks of their values, all channels together."""
    ranks = np.linspace(0.002, 0.998, QUANTILES)
    ranked = [np.quantile(_sample(frame), ranks, axis=1).T for frame in frames]
    brightness = [float(values.mean()) for values in ranked] if stops is None else stops
    order = sorted(range(len(frames)), key=lambda index: brightness[index])
    values = [ranked[index] for index in order]
    found = []
    for (a, dark), (b, bright) in pairwise(zip(order, values, strict=True)):
        step = None if stops is None else stops[b] - stops[a]
        kept = (dark > LOWEST) & (bright > LOWEST) & (dark < HIGHEST) & (bright < HIGHEST)
        if kept.sum() >= LEAST_PAIRS and (step is None or step >= LEAST_EV):
            found.append(Pair(dark[kept], bright[kept], step))
    return found


def _sample(frame: Frame) -> Curve:
    """Codes ``[C,N]`` (0..255) of a sparse sample of the pixels."""
    step = max(1, int(math.sqrt(frame.height * frame.width / 300_000)))
    values = to_float(frame.pixels[:, ::step, ::step]).flatten(1)
    return values.nan_to_num_(0.0, 1.0, 0.0).clamp_(0, 1).double().mul_(255).numpy()


def _contradiction(curve: Curve, pairs: Sequence[Pair]) -> float:
    """The median error of the stops that a curve implies."""
    logs = np.log2(np.maximum(curve, 1e-6))
    return float(np.median(np.abs(np.concatenate([pair.error(logs) for pair in pairs])))) if pairs else 0.0


def _tells_wrong_exposures(own: Curve, pairs: Sequence[Pair]) -> bool:
    """Whether all pairs have the shape of a curve, and only their stops, each by another factor, contradict it."""
    if _contradiction(own, [replace(pair, stops=None) for pair in pairs]) > SHAPE_EV:
        return False
    logs = np.log2(np.maximum(own, 1e-6))
    factors = [1 + float(np.median(pair.error(logs))) / pair.stops for pair in pairs if pair.stops]
    return len(factors) == 1 or max(factors) > SAME_CONTRAST * min(factors)


def _recovered(own: Curve, pairs: Sequence[Pair]) -> Curve:
    """The curve whose logarithm differs by the known stops at codes of equal rank, else as near as can be to ``own``.

    Least squares on the logarithm of light at every code: the equations of the pairs, reweighted by Cauchy's weights,
    and second differences of the departure from ``own`` (Debevec & Malik, eq. 3). What comes out falling is made flat.
    """
    base = np.log2(np.maximum(own, own[1] / 2))
    rows = torch.from_numpy(np.concatenate([_weights(pair.high) - _weights(pair.low) for pair in pairs]))
    second = torch.eye(CODES, dtype=torch.float64).diff(n=2, dim=0) * SMOOTHNESS
    prior = second.T @ second
    prior[CODES // 2, CODES // 2] += ANCHOR**2
    even = CODES / len(rows)
    change = np.zeros(CODES)
    for _ in range(ROUNDS):
        error = np.concatenate([pair.error(base + change) for pair in pairs])
        spread = max(1.4826 * float(np.median(np.abs(error))), 0.02)
        weighted = rows * torch.from_numpy(even / (1 + (error / (2 * spread)) ** 2))[:, None]
        right = weighted.T @ (rows @ torch.from_numpy(change) - torch.from_numpy(error))
        change = torch.linalg.solve(rows.T @ weighted + prior, right).numpy()
    logs = np.maximum.accumulate(base + change)
    light = np.asarray(2.0 ** (logs - logs[-1]), dtype=np.float64)
    light[0] = 0.0
    return light


def _weights(codes: Curve) -> Curve:
    """``[N,256]``: linear interpolation of a table at codes."""
    below = np.clip(np.floor(codes).astype(int), 0, CODES - 2)
    share = codes - below
    rows = np.zeros((len(codes), CODES))
    rows[np.arange(len(codes)), below] = 1 - share
    rows[np.arange(len(codes)), below + 1] = share
    return rows


def _linear(frame: Frame, curve: Curve, target: Primaries, *, recovered: bool) -> Frame:
    """A frame as light in half floats of the target primaries, with what is known of such light."""
    channels, height, width = frame.pixels.shape
    mixes = target != frame.state.primaries
    light = torch.empty((channels, height, width), dtype=torch.float16)
    clipped = torch.empty((1 if mixes else channels, height, width), dtype=torch.bool)
    masks = {CLIPPED: clipped}
    if recovered:
        masks[GUESSED] = torch.empty((1, height, width), dtype=torch.bool)
    table = curve.astype(np.float32)
    facts = replace(frame.facts, clip_level=(1.0,) * channels, noise=(_noise(curve),) * channels, scale=1.0)
    start = replace(frame, state=frame.state.changed({"reference": "scene", "transfer": "linear"}), facts=facts)
    rows = strip_rows(width)
    for top in range(0, height, rows):
        strip = frame.pixels[:, top : top + rows]
        into = slice(top, top + strip.shape[1])
        burnt = torch.from_numpy(strip.numpy() >= _least(CLIPPED_FROM, strip.dtype))  # torch does not compare uint16
        clipped[:, into] = burnt.any(0) if mixes or recovered else burnt
        if recovered:
            masks[GUESSED][:, into] = torch.from_numpy(strip.numpy() >= _least(GUESSED_FROM, strip.dtype)).any(0)
        linear = start.with_pixels(_at_codes(strip, table, frame.state.transfer if not recovered else None))
        if mixes:
            linear = Convert(to=target).apply(linear)  # type: ignore[arg-type]
            facts = linear.facts
        light[:, into] = linear.pixels.clamp(-HALF_MAX, HALF_MAX)
    return replace(frame, pixels=light, masks={**frame.masks, **masks}, facts=facts)


def _least(share: float, kind: torch.dtype) -> float:
    """The least value of a type that is at least a share of the largest."""
    return share if kind.is_floating_point else math.ceil(share * torch.iinfo(kind).max)


def _at_codes(stored: Tensor, table: NDArray[np.float32], transfer: Transfer | None) -> Tensor:
    """Light ``[C,h,W]`` of stored codes by a table, or by a transfer function."""
    if stored.dtype == torch.uint8:
        numbers = np.ascontiguousarray(stored.permute(1, 2, 0).numpy())
        return torch.from_numpy(cv2.LUT(numbers, table).reshape(numbers.shape)).permute(2, 0, 1).contiguous()
    codes = to_float(stored)
    if transfer is not None:
        return decode(codes, transfer)
    position = codes.nan_to_num(0.0, 1.0, 0.0).clamp(0, 1).mul_(CODES - 1)
    below = position.to(torch.int32).clamp_max_(CODES - 2)
    light = torch.from_numpy(table)
    return torch.lerp(light[below], light[below + 1], position.sub_(below))


def _noise(curve: Curve) -> tuple[float, float]:
    """``variance = a x + b`` that even noise of the codes is like in light: as much in black, and at 0.2."""
    sigma = NOISE_CODES / (CODES - 1)
    slope = np.gradient(curve, 1 / (CODES - 1))
    floor = (sigma * max(float(curve[4] * (CODES - 1) / 4), 1e-4)) ** 2
    at = int(np.searchsorted(curve, NOISE_AT))
    variance = (sigma * float(slope[min(at, CODES - 1)])) ** 2
    return max(variance - floor, 1e-9) / NOISE_AT, floor
