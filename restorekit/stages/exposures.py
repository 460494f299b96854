"""How the frames of a bracket were exposed, as they say themselves and as their pixels show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from restorekit.errors import StageError
from restorekit.frame import Bracket, Frame
from restorekit.stage import BracketStage, StageSpec, param, parameters
from restorekit.stages.bracket_blocks import Blocks, bracket_blocks

BLOCKS = 1 << 17
LEAST_BLOCKS, BEST_SHARE = 48, 0.3
"""Ratios are measured on the brightest blocks that are well exposed in both frames: this share, at least so many."""

BRIGHTEST, DARKEST = 0.8, 2e-3
"""Limits of well exposed block means, as shares of the clip level."""

SNAP = math.log2(1.03)
"""Nominal exposures this near to a third or half of a stop are that."""

REFINED_EV = 0.5
"""The pixels correct what a file says by so much without a word."""

SAME_EV = 0.05
TIGHT_EV = 0.35
"""Spread of the ratios of blocks up to which pixels are believed more than files."""


@parameters
class Exposures(BracketStage):
    """Work out what every frame of a bracket is multiplied by to be on the scale of its reference, the middle one.

    The exposures are those given (``--ev``, ``exposures``, ``Exposure.ev_offset``), else those of EXIF (time, ISO,
    aperture; snapped to a third or half of a stop within 3 %), else they are measured, which is noted. They are then
    refined by the light of blocks that are well exposed in two neighbouring frames: the median ratio, which moving
    things and noise do not sway, where the ratios agree among themselves. Such pixels win with a note even where they
    contradict a file by more than half a stop. With ``equalize`` each channel gets its own ratio, so that differences
    of white balance and flicker between frames vanish. The frames are then in the order of their light.

    Gives ``facts.exposure_gain`` and ``exposure.ev_offset``. Frames of one exposure pass, with a note.

    Raises StageError when nothing tells the exposure of a frame: no EXIF, and no part well exposed in its neighbour.
    """

    spec = StageSpec(
        name="merge.exposures",
        source="ratios of irradiance as in Mitsunaga & Nayar, Radiometric Self Calibration, CVPR 1999, by medians",
        accepts={
            "frames": ("bracket", "burst"),
            "layout": ("bayer", "rgb", "gray"),
            "reference": ("scene",),
            "transfer": ("linear",),
        },
        adds=("exposure_gain",),
    )
    exposures: Annotated[
        tuple[float, ...] | None, param("Exposures of the frames, in their order; none: as the files say", unit="EV")
    ] = None
    refine: Annotated[bool, param("Correct the exposures by what the pixels show")] = True
    equalize: Annotated[bool, param("Measure each channel by itself: evens out white balance and flicker")] = True

    def combine(self, bracket: Bracket) -> Bracket:
        frames = bracket.frames
        if len(frames) < 2:
            raise StageError(
                f"{frames[0].name}: {self.spec.name} needs at least two exposures, this is one frame; "
                "group its files with --group folder or --group N"
            )
        said = self._said(frames)
        blocks = bracket_blocks(frames, BLOCKS) if self.refine or said is None else []
        notes: list[str] = []
        steps: list[tuple[float, ...]] = []
        for index in range(len(frames) - 1):
            measured = _ratio(frames[index], blocks[index], frames[index + 1], blocks[index + 1]) if blocks else None
            nominal = None if said is None else said[index + 1] - said[index]
            steps.append(self._step(nominal, measured, frames[index], frames[index + 1], notes))
        if said is None:
            notes.append("exposures are unknown and measured from the pixels; give them with --ev where you know them")
        middle = len(frames) // 2
        channels = len(steps[0])
        brighter = [tuple(sum(step[c] for step in steps[:k]) for c in range(channels)) for k in range(len(frames))]
        order = sorted(range(len(frames)), key=lambda index: sum(brighter[index]))
        if order != list(range(len(frames))):
            notes.append("the frames are put into the order of their light, which is not that of their files")
        known = {key: value for frame in frames for key, value in frame.facts.measured.items()}
        frames, brighter = tuple(frames[index] for index in order), [brighter[index] for index in order]
        stops = [tuple(ev - own for ev, own in zip(row, brighter[middle], strict=True)) for row in brighter]
        means = [sum(row) / channels for row in stops]
        if max(means) - min(means) < SAME_EV:
            notes.append("all frames have the same exposure; merging them lowers noise but adds no range")
        result = [
            replace(
                frame,
                exposure=replace(frame.exposure, ev_offset=round(mean, 4)),
                facts=replace(frame.facts, exposure_gain=tuple(2.0**-ev for ev in row)),
            )
            for frame, row, mean in zip(frames, stops, means, strict=True)
        ]
        own = result[middle]
        for note in notes:
            own = own.with_note(note)
        measured_ev = tuple(round(mean, 3) for mean in means)
        facts = replace(own.facts, measured={**known, f"{self.spec.name} ev": measured_ev})
        return Bracket(tuple(result)).with_reference(replace(own, facts=facts))

    def _said(self, frames: Sequence[Frame]) -> list[float] | None:
        """Stops of light by frame as far as it is told."""
        if self.exposures is not None:
            if len(self.exposures) != len(frames):
                raise StageError(
                    f"{frames[0].name}: {self.spec.name} is given {len(self.exposures)} exposures for {len(frames)} "
                    "frames; give one a frame"
                )
            return list(self.exposures)
        return nominal_stops(frames)

    def _step(
        self, nominal: float | None, measured: _Ratio | None, darker: Frame, brighter: Frame, notes: list[str]
    ) -> tuple[float, ...]:
        """Stops from one frame to the next, by channel."""
        pair = f"{darker.name} and {brighter.source.name if brighter.source else 'the next frame'}"
        if measured is None:
            if nominal is None:
                raise StageError(
                    f"{pair}: nothing tells their exposures: no EXIF times, and no part is well exposed in both; "
                    "give them with --ev, or take a frame between them"
                )
            if self.refine:
                notes.append(f"{pair}: no part is well exposed in both, {nominal:+.2f} EV as the files say is used")
            return (nominal,) * (1 if darker.state.layout == "gray" else 3)
        if nominal is not None:
            contradicts = abs(measured.mean - nominal) > REFINED_EV
            if measured.spread > TIGHT_EV:
                if contradicts:
                    notes.append(f"{pair}: the pixels tell no clear ratio, {nominal:.2f} EV as the files say is used")
                return (nominal,) * len(measured.stops)
            if contradicts:
                said, shown = f"{nominal:+.2f} EV", f"{measured.mean:+.2f} EV"
                notes.append(f"{pair}: the files say {said}, the pixels {shown}; the pixels are believed")
        return measured.stops if self.equalize else (measured.mean,) * len(measured.stops)


@dataclass(frozen=True)
class _Ratio:
    """Stops from one frame to another by channel, and how much blocks differ about it."""

    stops: tuple[float, ...]
    spread: float

    @property
    def mean(self) -> float:
        return sum(self.stops) / len(self.stops)


def _ratio(darker: Frame, dark: Blocks, brighter: Frame, bright: Blocks) -> _Ratio | None:
    """The median ratio over well exposed blocks; ``None`` where there are too few."""
    both = dark.clean & dark.shown & bright.clean & bright.shown
    stops, spreads = [], []
    for channel in range(dark.values.shape[0]):
        low, high = dark.values[channel][both], bright.values[channel][both]
        fits = (high < BRIGHTEST * _clip(brighter, channel)) & (low > DARKEST * _clip(darker, channel)) & (high > 0)
        low, high = low[fits], high[fits]
        if low.numel() < LEAST_BLOCKS:
            return None
        kept = max(LEAST_BLOCKS, round(BEST_SHARE * low.numel()))
        best = torch.topk(high, min(kept, high.numel())).indices
        ratios = (high[best] / low[best]).log2_()
        middle = ratios.median()
        stops.append(float(middle))
        spreads.append(1.4826 * float((ratios - middle).abs_().median()))
    return _Ratio(tuple(stops), sorted(spreads)[len(spreads) // 2])


def _clip(frame: Frame, channel: int) -> float:
    level = frame.facts.clip_level or (1.0,)
    return level[channel] if len(level) > channel else min(level)


def nominal_stops(frames: Sequence[Frame]) -> list[float] | None:
    """Stops of light by frame: as given (``ev_offset``), else by EXIF, snapped; ``None`` where one does not tell."""
    offsets = [frame.exposure.ev_offset for frame in frames]
    if all(offset is not None for offset in offsets):
        return [offset for offset in offsets if offset is not None]
    light = [frame.exposure.relative for frame in frames]
    if not all(light):
        return None
    stops = [math.log2(value) for value in light if value]
    return [_snapped(value - stops[0]) for value in stops]


def _snapped(stops: float) -> float:
    """A nominal difference at the nearest third or half of a stop, where it is within 3 %."""
    for part in (3, 2):
        nearest = round(stops * part) / part
        if abs(stops - nearest) <= SNAP:
            return nearest
    return stops


def gains(frame: Frame) -> Tensor:
    """``facts.exposure_gain`` of a frame as ``[C,1,1]``, 1 where it is not known."""
    known = frame.facts.exposure_gain or (1.0,)
    return torch.tensor(known, dtype=torch.float32)[:, None, None]
