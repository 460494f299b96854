"""What sliders show at once: a pipeline run on the small copy, with what was merged of a bracket kept.

Learned models have to see the full size, and are tried on a part of the picture.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import torch

from restorekit.engine import Run, process
from restorekit.errors import PipelineError, RestorekitError
from restorekit.frame import Bracket, Frame
from restorekit.pipeline import Pipeline, Step, tap_index
from restorekit.stage import BracketStage, Stage
from restorekit.stages import Restore
from restorekit.strips import RowStage
from restorekit.web.controls import controls
from restorekit.web.display import Picture, shown

PREVIEW_PX = 1280
"""The longer side of the small copy of a picture."""

BRACKET_PX = 640
"""That of each frame of a bracket, whose frames are aligned and merged first."""

PART_PX = 256
"""The side of the part of a photograph that learned models are tried on: most take a second for it on one core."""

LIGHT = ("low-light", "enhancement")
"""Tasks of models that judge how a picture as a whole is lit."""

IN_BROWSERS = ("ultrahdr", "jpeg", "webp", "avif", "png", "tiff")
"""Formats of finished pictures, which tell more of a pipeline than the light that it writes beside them."""


def shown_output(pipeline: Pipeline) -> int:
    """The number of the output that is looked at: the first finished picture, else the first."""
    kinds = [spec.format for spec in pipeline.outputs]
    return next((number for number, kind in enumerate(kinds) if kind in IN_BROWSERS), 0)


def runs_model(pipeline: Pipeline) -> bool:
    """Whether a pipeline runs a network, which takes its time and has to see the picture at its full size."""
    return any(isinstance(step.stage, RowStage) for step in pipeline.steps)


def shows_in(part: Frame, pipeline: Pipeline) -> bool:
    """Whether a part of a picture shows what a pipeline makes of all of it: no stage judges or moves the whole."""
    return not any(_takes_all(step.stage, part) for step in pipeline.steps)


def _takes_all(stage: Stage, part: Frame) -> bool:
    if isinstance(stage, Restore):
        card = stage.card
        by_card = card.estimate if stage.estimate is None and card else stage.estimate
        return bool(by_card) or (card is not None and card.task in LIGHT)
    return stage.needs_measure(part) or (stage.reach().kind == "global" and not isinstance(stage, RowStage))


def middle(frame: Frame) -> Frame:
    """The middle of a picture, at most :data:`PART_PX` wide and high."""
    top, left, bottom, right = frame.metadata.crop or (0, 0, frame.height, frame.width)
    top, left = (start + max(stop - start - PART_PX, 0) // 2 for start, stop in ((top, bottom), (left, right)))
    bottom, right = min(top + PART_PX, bottom), min(left + PART_PX, right)
    part = frame.planes(lambda plane: plane[:, top:bottom, left:right])
    return replace(part, metadata=replace(frame.metadata, crop=None))


def takes_bracket(pipeline: Pipeline) -> bool:
    """Whether a pipeline makes one picture of several frames."""
    return pipeline.input is not None and pipeline.input.state.frames != "single"


def require_bracket(pipeline: Pipeline, brought: Frame | Bracket) -> None:
    """Raises RestorekitError for one picture where a pipeline makes one of several."""
    if takes_bracket(pipeline) and isinstance(brought, Frame):
        raise RestorekitError(f"{pipeline.name} makes one picture of several: drop all exposures of the scene together")


def for_reduced(pipeline: Pipeline, share: float) -> Pipeline:
    """A pipeline for a picture of this share of the size: what is declared in px becomes so many px less."""
    for step in pipeline.steps if share < 1 else ():
        lengths = {control.name: control for control in controls(type(step.stage)) if control.unit == "px"}
        given = {f.name: getattr(step.stage, f.name) for f in dataclasses.fields(step.stage) if f.name in lengths}  # type: ignore[arg-type]
        changed = {}
        for name, value in given.items():
            if not value:
                continue
            least = lengths[name].minimum or 0
            small = max(value * share, least)
            changed[name] = max(round(small), 1) if isinstance(value, int) else small
        with suppress(PipelineError):  # two lengths no longer go together: those of the full size are tried
            pipeline = pipeline.set(step.id, **changed) if changed else pipeline
    return pipeline


@dataclass
class _Kept:
    """What the first steps of a pipeline made of a picture."""

    steps: tuple[Step, ...]
    image: Frame | Bracket
    frame: Frame | Bracket

    def begins(self, steps: tuple[Step, ...], image: Frame | Bracket) -> bool:
        return self.image is image and self.steps == steps[: len(self.steps)]


class Preview:
    """Previews of one picture, one after the other.

    What stands before the first step that changed is kept, so that a slider costs its own stage and those after it; and
    what a bracket was merged to.
    """

    def __init__(self) -> None:
        self._kept: _Kept | None = None
        self._last: tuple[Step, ...] = ()

    def make(
        self,
        pipeline: Pipeline,
        small: Frame | Bracket,
        cancelled: Callable[[], bool],
        device: torch.device | None = None,
    ) -> Picture:
        """What a pipeline's output shows of a small copy, or of a part.

        Raises Cancelled once it is not wanted any more, and RestorekitError where the picture does not fit.
        """
        if isinstance(small, Bracket) and not takes_bracket(pipeline):
            small = small.reference
        require_bracket(pipeline, small)
        run = Run(device or torch.device("cpu"), cancelled=cancelled, keep_memory=True)
        last = tap_index(pipeline.outputs[shown_output(pipeline)], [step.id for step in pipeline.steps])
        steps = pipeline.steps[: last + 1]
        image, done = self._begun(pipeline, steps, small, run)
        first = None if done else pipeline.input
        return shown(process(Pipeline(steps[done:], first, name=pipeline.name), image, run))

    def _begun(
        self, pipeline: Pipeline, steps: tuple[Step, ...], small: Frame | Bracket, run: Run
    ) -> tuple[Frame | Bracket, int]:
        """What the first steps made, and how many they are."""
        merging = [number for number, step in enumerate(steps) if isinstance(step.stage, BracketStage)]
        least = merging[-1] + 1 if merging else 0
        same = next((n for n, (a, b) in enumerate(zip(steps, self._last, strict=False)) if a != b), 0)
        self._last = steps
        wanted = max(least, same)
        known = self._kept if self._kept is not None and self._kept.begins(steps, small) else None
        if known is None or len(known.steps) < wanted:
            image, done = (small, 0) if known is None else (known.frame, len(known.steps))
            if wanted > done:
                head = Pipeline(steps[done:wanted], None if done else pipeline.input, name=pipeline.name)
                known = self._kept = _Kept(steps[:wanted], small, process(head, image, run))
        return (small, 0) if known is None else (known.frame, len(known.steps))
