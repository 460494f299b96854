"""Previews: what is kept of the one before changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from restorekit import engine
from restorekit.frame import Frame
from restorekit.io.read import read
from restorekit.pipeline import Pipeline
from restorekit.reduction import reduced
from restorekit.web import previews
from restorekit.web.display import Picture
from restorekit.web.previews import Preview

LAKE = Path(__file__).parents[2] / "docs" / "sample" / "lake.dng"

CHANGES = {
    "tone.exposure": {"ev": 0.4},
    "raw.demosaic": {"method": "bilinear"},
    "raw.highlights": {"method": "clip"},
    "tone.filmic": {"contrast": 1.3},
}


@pytest.fixture(params=[1, 6])
def lake(request: pytest.FixtureRequest) -> Frame:
    """A mosaic in small, as sessions keep it, held level or turned."""
    frame = reduced(read(LAKE), (400, 400))
    return replace(frame, metadata=replace(frame.metadata, orientation=request.param))


def never() -> bool:
    return False


def alone(pipeline: Pipeline, frame: Frame) -> Picture:
    return Preview().make(pipeline, frame, never)


@pytest.mark.parametrize("step", CHANGES)
def test_a_changed_step_shows_what_it_would_have_shown_at_first(lake: Frame, step: str) -> None:
    pipeline, preview = Pipeline.load("raw-to-srgb"), Preview()
    preview.make(pipeline, lake, never)
    changed = pipeline.set(step, **CHANGES[step])
    for _ in range(2):
        made = preview.make(changed, lake, never)
        assert int(np.abs(made.astype(int) - alone(changed, lake)).max()) <= 1
    back = preview.make(pipeline, lake, never)
    assert int(np.abs(back.astype(int) - alone(pipeline, lake)).max()) <= 1


def test_one_slider_after_another_runs_only_what_comes_after(lake: Frame, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, ...]] = []

    def counted(pipeline: Pipeline, *arguments: object) -> Frame:
        ran.append(tuple(step.id for step in pipeline.steps))
        return engine.process(pipeline, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(previews, "process", counted)
    pipeline, preview = Pipeline.load("raw-to-srgb"), Preview()
    steps = [step.id for step in pipeline.steps]
    for ev in (0.1, 0.2, 0.3):
        preview.make(pipeline.set("tone.exposure", ev=ev), lake, never)
    later = tuple(steps[steps.index("tone.exposure") :])
    assert ran == [tuple(steps), tuple(steps[: steps.index("tone.exposure")]), later, later]
    ran.clear()
    after = pipeline.set("tone.exposure", ev=0.3)
    preview.make(after.set("tone.filmic", contrast=1.2), lake, never)
    first, second = steps.index("tone.exposure"), steps.index("tone.filmic")
    assert ran == [tuple(steps[first:second]), tuple(steps[second:])]


def test_another_picture_starts_anew(lake: Frame) -> None:
    pipeline, preview = Pipeline.load("raw-to-srgb"), Preview()
    preview.make(pipeline, lake, never)
    preview.make(pipeline.set("tone.filmic", contrast=1.2), lake, never)
    other = lake.with_pixels(lake.pixels.roll(31, -1))
    made = preview.make(pipeline.set("tone.filmic", contrast=1.2), other, never)
    assert np.array_equal(made, alone(pipeline.set("tone.filmic", contrast=1.2), other))
