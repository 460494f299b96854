"""The YAML of the page says what the page does, and names no file of the server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from restorekit import bundled
from restorekit.errors import PipelineError
from restorekit.pipeline import output_problems
from restorekit.schema import load, parse
from restorekit.web.deliverables import AS_SAID, deliverables
from restorekit.web.drafts import checked, empty, read, shipped


@pytest.mark.parametrize("name", bundled.pipelines())
def test_yaml_of_a_shipped_pipeline_is_that_pipeline(name: str) -> None:
    draft = shipped(name)
    assert parse(draft.text, "mine.yaml").fingerprint == load(name).fingerprint
    assert read(draft.text).text == draft.text
    assert draft.problems() == ()


@pytest.mark.parametrize("name", bundled.pipelines())
def test_what_is_offered_can_be_written(name: str) -> None:
    pipeline = load(name)
    states, ids = pipeline.states(), [step.id for step in pipeline.steps]
    found = deliverables(pipeline)
    assert found[AS_SAID] == pipeline.outputs
    for specs in found.values():
        assert not [text for spec in specs for text in output_problems(spec, ids, states)]


def test_wanted_formats_stand_in_the_yaml() -> None:
    draft = shipped("raw-to-srgb")
    offered = deliverables(draft.pipeline())
    assert {"JPEG", "PNG, 16 bit", "TIFF, 16 bit", "EXR, linear light", "Ultra HDR JPEG", "AVIF, 10 bit"} < set(offered)
    for name, (spec, *_) in offered.items():
        made = parse(replace(draft, wanted=name).text, "mine.yaml").outputs
        assert made[0] == spec


def test_a_parameter_that_is_set_stands_in_the_yaml_and_a_default_does_not() -> None:
    draft = shipped("photo-enhance")
    index = [part.name for part in draft.parts].index("tone.curve")
    assert draft.value(index, "contrast") == 0.15
    changed = draft.set(index, "contrast", 0.4)
    assert parse(changed.text, "x").steps[index].stage.contrast == 0.4  # type: ignore[attr-defined]
    assert changed.set(index, "contrast", 0.15).pipeline() == draft.pipeline()
    assert "highlights" not in draft.set(index, "highlights", 0.0).text


def test_stages_are_added_moved_and_removed() -> None:
    draft = empty("display-linear")
    for name in ("finish.sharpen", "tone.curve", "color.encode"):
        draft = draft.added(name, len(draft.parts))
    assert draft.problems() == ()
    wrong = draft.moved(2, -1)
    assert [part.name for part in wrong.parts] == ["finish.sharpen", "color.encode", "tone.curve"]
    problem, *_ = wrong.problems()
    assert problem.startswith("mine.yaml:7:5: tone.curve wants transfer linear")
    assert wrong.text.splitlines()[6] == "  - tone.curve"
    assert wrong.removed(2).problems() == ()


def test_complaints_name_stages_by_number_and_no_places_in_files() -> None:
    wrong = empty("display-linear").added("color.encode", 0).added("tone.curve", 1)
    first, *_ = wrong.complaints()
    assert first.startswith("Stage 2, tone.curve: wants transfer linear")
    assert not any("mine.yaml" in text for text in wrong.complaints())
    assert empty("display-linear").added("color.encode", 0).complaints() == ()


def test_a_removed_stage_leaves_no_preview_behind() -> None:
    draft = read(
        "restorekit: 1\nname: x\ninput: {state: display-linear}\npreview: {finish.sharpen: skip}\n"
        "stages:\n  - finish.sharpen\n  - color.encode\n"
    )
    assert "preview" not in yaml.safe_load(draft.removed(0).text)
    assert "preview" in yaml.safe_load(draft.removed(1).text)


FILES = (
    ("color.soft_proof", "{profile: %s}"),
    ("raw.dark_frame", "{file: %s}"),
    ("raw.hot_pixels", "{bad_pixels: %s}"),
    ("color.camera_matrix", "{profile: %s}"),
    ("restore", "{model: %s}"),
)


@pytest.mark.parametrize(("stage", "params"), FILES)
@pytest.mark.parametrize("exists", [True, False])
def test_files_of_the_server_are_refused_whether_they_exist_or_not(
    stage: str, params: str, exists: bool, tmp_path: Path
) -> None:
    """The same words for both, so that the page does not tell which files there are."""
    path = tmp_path / "weights.safetensors"
    if exists:
        path.write_bytes(b"x")
    text = f"restorekit: 1\ninput: {{state: sensor-bayer}}\nstages:\n  - {stage}: {params % path}\n"
    for look in (read, checked):
        with pytest.raises(PipelineError) as refused:
            look(text)
        (problem,) = refused.value.problems
        assert problem.line == 4
        assert "does not take" in problem.message or "id of a model" in problem.message
        assert str(tmp_path) not in problem.message


@pytest.mark.parametrize(
    "text",
    ["", "stages: [", "a: &a [1]\nb: *a\n", "[" * 5000, "restorekit: 1\nstages: 3\n", "x" * 70000, "stages: [{a: 1}]"],
    ids=["nothing", "broken", "alias", "deep", "no list", "long", "no mapping"],
)
def test_what_is_no_pipeline_is_said_and_not_taken(text: str) -> None:
    with pytest.raises(PipelineError) as refused:
        read(text)
    assert all(line.startswith("mine.yaml:") for line in str(refused.value).splitlines())
