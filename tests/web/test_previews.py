"""Previews: what is kept of the one before changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from restorekit import engine
from restorekit.facts import Metadata
from restorekit.frame import Frame
from restorekit.io.read import read
from restorekit.pipeline import Pipeline
from restorekit.reduction import reduced
from restorekit.state import SHORTHANDS
from restorekit.web import previews
from restorekit.web.display import Picture, shown
from restorekit.web.drafts import empty
from restorekit.web.previews import PART_PX, Preview, middle, shows_in

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


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_the_middle_is_that_of_the_upright_picture_in_its_crop(orientation: int) -> None:
    pixels = torch.arange(3 * 500 * 700).remainder(251).to(torch.uint8).reshape(3, 500, 700)
    frame = Frame(
        pixels, SHORTHANDS["display-srgb"], metadata=Metadata(orientation=orientation, crop=(20, 40, 420, 640))
    )
    whole, part = shown(frame), shown(middle(frame))
    top, left = ((length - PART_PX) // 2 for length in whole.shape[:2])
    assert np.array_equal(part, whole[top : top + PART_PX, left : left + PART_PX])
    small = frame.planes(lambda plane: plane[:, 20:120, 40:190])
    assert np.array_equal(
        shown(middle(replace(small, metadata=Metadata()))), shown(replace(small, metadata=Metadata()))
    )


def test_a_learned_model_makes_of_a_part_what_it_makes_of_the_picture(photo: Callable[..., Path]) -> None:
    frame, pipeline = read(photo("a.jpg", width=400, height=320)), Pipeline.load("denoise")
    part = middle(frame)
    assert shows_in(part, pipeline)
    whole, made = alone(pipeline, frame), alone(pipeline, part)
    inside = slice(64, PART_PX - 64)  # beyond the reach of what lies outside
    top, left = ((length - PART_PX) // 2 for length in whole.shape[:2])
    expected = whole[top : top + PART_PX, left : left + PART_PX]
    assert np.abs(made[inside, inside].astype(int) - expected[inside, inside]).max() <= 1


@pytest.mark.parametrize(
    ("stage", "params"),
    [
        ("geometry.resize", {"long_edge": 800}),
        ("geometry.crop", {"width": 90, "height": 60}),
        ("tone.exposure", {"mode": "auto"}),
        ("restore", {"model": "drunet.denoise", "estimate": 128}),
        ("restore", {"model": "iagc.lowlight"}),
    ],
)
def test_stages_that_take_all_of_a_picture_are_not_shown_in_a_part(stage: str, params: dict[str, object]) -> None:
    part = Frame(torch.zeros(3, 64, 64), SHORTHANDS["display-linear"])
    plain = empty("display-linear").added("color.encode", 0).added("restore", 1).set(1, "model", "drunet.denoise")
    assert shows_in(part, plain.pipeline())
    place = 2 if stage == "restore" else 0
    draft = plain.added(stage, place)
    for name, value in params.items():
        draft = draft.set(place, name, value)
    assert not shows_in(part, draft.pipeline())
