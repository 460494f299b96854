"""Pipeline files: every problem at once, each with its place and its cure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jsonschema
import pydantic
import pytest
import yaml

from restorekit import bundled
from restorekit.errors import ParameterError, PipelineError, RestorekitError
from restorekit.io.formats import OutputSpec
from restorekit.json_schema import describe, json_schema
from restorekit.pipeline import Pipeline, parameter_problems
from restorekit.registry import stage_class, stage_entries
from restorekit.schema import parse
from restorekit.stages import Exposure
from restorekit.state import SHORTHANDS

GOOD = """\
restorekit: 1
name: small
input: {state: scene-linear}
stages:
  - tone.exposure: {ev: 0.5, id: brighten}
  - tone.reinhard: {key: 0.2}
  - color.encode: {to: srgb}
output:
  - {format: png, bits: 16}
  - {format: exr, from: brighten, name: "{stem}_linear"}
"""


def problems(text: str) -> list[str]:
    with pytest.raises(PipelineError) as caught:
        parse(text, "p.yaml")
    return str(caught.value).splitlines()


def test_a_good_pipeline_is_read_as_written() -> None:
    pipe = parse(GOOD, "p.yaml")
    assert [step.id for step in pipe.steps] == ["brighten", "tone.reinhard", "color.encode"]
    assert pipe.steps[0].stage.ev == 0.5  # type: ignore[attr-defined]
    assert [(spec.format, spec.from_) for spec in pipe.outputs] == [("png", None), ("exr", "brighten")]


def test_a_pipeline_survives_the_way_through_its_own_yaml() -> None:
    pipe = parse(GOOD, "p.yaml")
    again = parse(yaml.safe_dump(pipe.as_dict(), sort_keys=False), "again.yaml")
    assert again == pipe and again.fingerprint == pipe.fingerprint


@pytest.mark.parametrize("name", sorted(bundled.pipelines()))
def test_every_shipped_pipeline_is_sound_and_named_as_its_file(name: str) -> None:
    pipe = Pipeline.load(name)
    assert pipe.name == name and pipe.summary
    assert parse(yaml.safe_dump(pipe.as_dict(), sort_keys=False), "again.yaml").fingerprint == pipe.fingerprint


def test_every_problem_is_reported_at_once_with_its_place() -> None:
    text = """\
restorekit: 1
nmae: x
input: {state: sensor-bayr}
stages:
  - raw.black_levle
  - tone.reinhard: {kye: 0.2}
  - tone.exposure:
      ev: 99
  - finish.sharpen: 3
output: {format: jpg2000}
"""
    lines = problems(text)
    assert all(line.startswith("p.yaml:") for line in lines)
    assert any(line.startswith("p.yaml:2:1: unknown key 'nmae'") and "did you mean 'name'?" in line for line in lines)
    assert any(line.startswith("p.yaml:3:16:") and "did you mean 'sensor-bayer'?" in line for line in lines)
    assert any(line.startswith("p.yaml:5:5:") and "did you mean 'raw.black_level'?" in line for line in lines)
    assert any(line.startswith("p.yaml:6:21:") and "did you mean 'key'?" in line for line in lines)
    assert any(line.startswith("p.yaml:8:7:") and "'ev'" in line and "99" in line for line in lines)
    assert any(line.startswith("p.yaml:9:") and "mapping" in line for line in lines)
    assert any(line.startswith("p.yaml:10:") and "jpg2000" in line for line in lines)
    assert len(lines) == 7


def test_states_that_do_not_fit_are_explained() -> None:
    text = """\
restorekit: 1
input: {state: scene-linear}
stages:
  - color.encode: {to: srgb}
"""
    (line,) = problems(text)
    assert line.startswith("p.yaml:4:5: color.encode wants display-referred") and "tone-mapping" in line


def test_a_missing_fact_is_explained() -> None:
    text = """\
restorekit: 1
input: {state: sensor-bayer}
stages:
  - raw.black_level
  - color.white_balance
  - raw.demosaic
output: {format: exr}
"""
    lines = problems(text)
    assert any("illuminant" in line and line.startswith("p.yaml:5:5:") for line in lines)


def test_one_mistake_is_reported_once() -> None:
    text = """\
restorekit: 1
input: {state: scene-linear}
stages:
  - tone.filmic
  - tone.filmc
  - color.encode: {to: srgb}
  - finish.sharpen
"""
    (line,) = problems(text)
    assert "did you mean 'tone.filmic'?" in line


def test_a_bad_parameter_leaves_the_state_known() -> None:
    text = """\
restorekit: 1
input: {state: scene-linear}
stages:
  - tone.reinhard: {key: -1}
  - color.encode: {to: srgb}
output: {format: jpeg}
"""
    (line,) = problems(text)
    assert "'key'" in line


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("{format: jpeg, from: brighten}", "scene-referred"),
        ("{format: exr}", "linear"),
        ("{format: jpeg, from: brigthen}", "did you mean 'brighten'?"),
        ("{format: jpeg, bits: 16}", "bit"),
        ("[{format: png}, {format: png}]", "same file"),
        ("{format: png, colour: red}", "unknown key 'colour'"),
    ],
)
def test_outputs_are_checked(output: str, says: str) -> None:
    text = GOOD.partition("output:")[0] + f"output: {output}\n"
    lines = problems(text)
    assert any(says in line and ":8:" in line for line in lines), lines


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "mapping"),
        ("- a\n- b\n", "mapping"),
        ("restorekit: 2\ninput: {state: scene-linear}\nstages: [tone.filmic]\n", "restorekit: 1"),
        ("restorekit: 1\nstages: [tone.filmic]\n", "'input' is missing"),
        ("restorekit: 1\ninput: {state: scene-linear}\n", "'stages' is missing"),
        ("restorekit: 1\nrestorekit: 1\ninput: {state: scene-linear}\nstages: [tone.filmic]\n", "stands twice"),
        ("restorekit: [1\n", "not valid YAML"),
        ("a: &x [1]\nb: *x\n", "aliases"),
        ("[" * 3000 + "]" * 3000, "nested too deeply"),
        ("restorekit: !!python/object/apply:os.system ['true']\n", "restorekit: 1"),
        ("restorekit: 1\nname: !!python/object:os.system x\n", "no plain value"),
        ("restorekit: 1\nname: !!int abc\n", "no plain value"),
        ("restorekit: 1\nsummary: 2020-13-45\n", "no plain value"),
        ("restorekit: true\n", "not known"),
    ],
)
def test_files_that_are_no_pipelines(text: str, says: str) -> None:
    assert any(says in line for line in problems(text))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("restorekit: 1\ninput: {state: display-srgb\nstages: []\n", "2:8: not valid YAML: this { has no }"),
        ("restorekit: 1\noutput: [{format: png}\n", "2:9: not valid YAML: this [ has no ]"),
        ("restorekit: 1\ninput:\n\tstate: display-srgb\n", "3:1: not valid YAML: a tab cannot stand here; indent by"),
        ("restorekit: 1\nstages\n  - color.decode\ninput: {}\n", "2:1: not valid YAML: a colon is missing"),
        ("restorekit 1\ninput: {}\n", "2:6: not valid YAML: this colon cannot stand here"),
        ("summary: Photos: mine\n", "1:16: not valid YAML: this colon cannot stand here; put text"),
        ("stages:\n  - color.decode\n - color.encode\n", "3:2: not valid YAML: this does not begin in the column"),
        ("restorekit: 1\nname: 'mine\n", "2:7: not valid YAML: this quote has no end"),
        ("name: @mine\n", "1:7: not valid YAML: no value begins with @"),
        ("restorekit: 1\nname: a\x01b\n", "2:8: not valid YAML: the character 0x1 cannot stand in YAML"),
        ("name: 'mine' again\n", "1:14: not valid YAML: expected <block end>, but found '<scalar>'; look at"),
    ],
)
def test_mistakes_of_syntax_are_one_line_at_their_place_with_the_cure(text: str, says: str) -> None:
    (line,) = problems(text)
    assert line.startswith(f"p.yaml:{says}")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "1:1: this is no text; a pipeline is a YAML file"),
        (b"restorekit: 1\nname: caf\xe9\n", "2:10: the byte 0xe9 is no UTF-8; save the file in UTF-8"),
    ],
)
def test_files_that_are_no_text_are_told_from_those_in_another_encoding(data: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(data)
    with pytest.raises(PipelineError) as caught:
        Pipeline.load(path)
    assert str(caught.value).startswith(f"{path}:{says}")


def test_unknown_names_and_files(tmp_path: Path) -> None:
    with pytest.raises(RestorekitError, match=r"did you mean 'raw-to-srgb'\?"):
        Pipeline.load("raw-to-srg")
    with pytest.raises(RestorekitError, match="no such pipeline file"):
        Pipeline.load(tmp_path / "none.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RestorekitError, match="UTF-8"):
        Pipeline.load(binary)


def test_setting_parameters() -> None:
    pipe = parse(GOOD, "p.yaml")
    changed = pipe.set("brighten", ev=1.0).set("tone.reinhard", key=0.3)
    assert changed.steps[0].stage.ev == 1.0  # type: ignore[attr-defined]
    assert pipe.steps[0].stage.ev == 0.5  # type: ignore[attr-defined]
    assert changed.fingerprint != pipe.fingerprint
    with pytest.raises(PipelineError, match=r"did you mean 'brighten'\?"):
        pipe.set("brigten", ev=1)
    with pytest.raises(PipelineError, match=r"did you mean 'ev'\?"):
        pipe.set("brighten", evv=1)
    with pytest.raises(PipelineError, match=r"unknown parameter 'eV'; did you mean 'ev'\?"):
        pipe.set("brighten", eV=1)
    with pytest.raises(PipelineError, match=r"no step 'outptu'; did you mean 'output'\?"):
        pipe.set("outptu", bits=8)


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"ev": 99}, "tone.exposure: parameter 'ev': should be less than or equal to 20, got 99"),
        ({"eV": 1}, "tone.exposure: unknown parameter 'eV'; did you mean 'ev'?"),
        ({"light": 1, "ev": "a lot"}, "tone.exposure: parameter 'ev': should be a valid number"),
    ],
)
def test_wrong_parameters_of_a_stage_are_one_line_with_the_cure(parameters: dict[str, object], says: str) -> None:
    with pytest.raises(ParameterError) as caught:
        Exposure(**parameters)  # type: ignore[arg-type]
    assert str(caught.value).startswith(says) and "\n" not in str(caught.value)
    assert len(caught.value.mistakes) == len(parameters)


def test_wrong_parameters_of_an_output_are_one_line() -> None:
    with pytest.raises(ParameterError, match=r"^OutputSpec: parameter 'format': should be 'jpeg', .*, got 'jpg'$"):
        OutputSpec(format="jpg")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match=r"^OutputSpec: ultrahdr takes its two pictures from"):
        OutputSpec(format="ultrahdr", from_="tone")


def test_what_is_wrong_with_a_pipeline_that_no_file_holds_has_no_line() -> None:
    with pytest.raises(PipelineError, match=r"^pipeline: no step 'tone' \(the pipeline has none\)$"):
        Pipeline([]).set("tone", ev=1)
    with pytest.raises(PipelineError, match=r"^pipeline: tone.exposure: parameter 'ev'"):
        Pipeline([Exposure()]).set("tone.exposure", ev=99)
    sensor = SHORTHANDS["sensor-bayer"]
    with pytest.raises(PipelineError, match=r"^pipeline: stage 1, tone.exposure: "):
        Pipeline([Exposure()]).states(sensor)


def test_parameters_are_given_by_name() -> None:
    with pytest.raises(ParameterError, match="parameters are given by name"):
        Exposure(1.0)  # type: ignore[misc]


def test_the_json_schema_knows_every_stage_and_parameter() -> None:
    schema = json_schema()
    assert set(schema["$defs"]) == set(stage_entries())
    validator = jsonschema.Draft202012Validator(schema)
    for path in bundled.pipelines().values():
        assert not list(validator.iter_errors(yaml.safe_load(path.read_text(encoding="utf-8"))))
    assert list(validator.iter_errors({**yaml.safe_load(GOOD), "stages": [{"tone.reinhard": {"kye": 1}}]}))


@pytest.mark.parametrize(
    ("old", "new", "good"),
    [
        ("{key: 0.2}", "", True),
        ("{key: 0.2}", "null", True),
        ("{key: 0.2}", "3", False),
        ("scene-linear}", "scene-linear, group: {by: 3}}", True),
        ("scene-linear}", 'scene-linear, group: {by: "3"}}', True),
        ("scene-linear}", 'scene-linear, group: {by: "12"}}', True),
        ("scene-linear}", "scene-linear, group: {by: folder}}", True),
        ("scene-linear}", 'scene-linear, group: {by: "1"}}', False),
        ("scene-linear}", "scene-linear, group: {by: 1}}", False),
        ("scene-linear}", "scene-linear, group: {by: files}}", False),
        ("scene-linear}", "scene-linear, frames: bracket, exposures: [-2]}", False),
        ("scene-linear}", "scene-linear, frames: bracket, exposures: [-2, dark]}", False),
        ("scene-linear}", "scene-linear, frames: bracket, exposures: -2}", False),
    ],
)
def test_the_json_schema_and_the_reader_agree(old: str, new: str, good: bool) -> None:
    text = GOOD.replace(old, new)
    validator = jsonschema.Draft202012Validator(json_schema())
    assert validator.is_valid(yaml.safe_load(text)) == good
    if good:
        parse(text, "p.yaml")
    else:
        assert problems(text)


def test_exposures_belong_to_brackets() -> None:
    start = "input: {state: display-srgb, frames: bracket, exposures: [-2, 0, 2.5]}"
    fusing = f"restorekit: 1\n{start}\nstages:\n  - fusion.mertens\n"
    pipeline = parse(fusing, "p.yaml")
    assert pipeline.input is not None and pipeline.input.exposures == (-2.0, 0.0, 2.5)
    assert pipeline.fingerprint != parse(fusing.replace("2.5", "2"), "p.yaml").fingerprint
    text = GOOD.replace("scene-linear}", "scene-linear, exposures: [-2, 0, 2]}")
    assert problems(text) == ["p.yaml:3:41: exposures are those of a bracket; add frames: bracket"]


def test_parameters_are_described_with_their_limits() -> None:
    rows = {row["name"]: row for row in describe(stage_class("tone.reinhard"))}
    assert (rows["key"]["minimum"], rows["key"]["exclusive"], rows["key"]["maximum"]) == (0, True, 2)
    assert (rows["white"]["minimum"], rows["white"]["exclusive"], rows["white"]["type"]) == (0, True, "number or null")
    rows = {row["name"]: row for row in describe(stage_class("tone.exposure"))}
    assert (rows["ev"]["minimum"], rows["ev"]["exclusive"], rows["ev"]["maximum"]) == (-20, False, 20)
    assert rows["mode"]["choices"] == ["fixed", "auto"] and rows["mode"]["minimum"] is None


def test_mistakes_that_concern_several_parameters_are_reported() -> None:
    text = GOOD.replace("- tone.reinhard: {key: 0.2}", "- geometry.resize: {long_edge: 5, scale: 2}\n  - tone.filmic")
    (line,) = problems(text)
    assert line.startswith("p.yaml:6:5: geometry.resize: the size is given in two ways")


@pytest.mark.parametrize("name", sorted(stage_entries()))
def test_every_parameter_is_documented_and_every_stage_cites_its_source(name: str) -> None:
    cls = stage_class(name)
    assert cls.spec.name == name and cls.spec.source
    assert cls.__doc__ and not cls.__doc__.startswith(f"{cls.__name__}(")
    for parameter, schema in pydantic.TypeAdapter(cls).json_schema().get("properties", {}).items():
        assert schema.get("description"), f"{name}.{parameter} has no doc"
    needed = {row["name"] for row in describe(cls) if row["needed"]}
    complaints = list(parameter_problems(cls, {}))
    assert complaints == [f"parameter '{parameter}' is needed" for parameter in sorted(needed)]


def test_what_a_stage_needs_is_asked_for() -> None:
    text = GOOD.replace("- tone.reinhard: {key: 0.2}", "- tone.filmic\n  - color.soft_proof: {paper: true}")
    assert "p.yaml:7:5: color.soft_proof: parameter 'profile' is needed" in problems(text)


def test_a_pipeline_without_stages_only_converts() -> None:
    pipe = parse("restorekit: 1\ninput: {state: sensor-bayer}\nstages: []\noutput: {format: dng}\n", "p.yaml")
    assert pipe.steps == () and pipe.outputs[0].format == "dng"


def test_outputs_are_set_as_steps_are() -> None:
    pipe = parse(GOOD, "p.yaml")
    changed = pipe.set("output", color="p3")
    assert {spec.color for spec in changed.outputs} == {"p3"}
    assert [replace(spec, color=None) for spec in changed.outputs] == list(pipe.outputs)
    with pytest.raises(PipelineError, match=r"output: unknown parameter 'colour'; did you mean 'color'\?"):
        pipe.set("output", colour="p3")
    with pytest.raises(PipelineError, match="output: parameter 'bits': must be"):
        pipe.set("output", bits=7)


PREVIEWED = GOOD + "preview: {tone.reinhard: {key: 0.1}, brighten: skip}\n"


def test_previews_leave_steps_out_or_change_them_and_results_stay() -> None:
    plain, pipe = parse(GOOD, "p.yaml"), parse(PREVIEWED, "p.yaml")
    small = pipe.previewed()
    assert [step.id for step in small.steps] == ["tone.reinhard", "color.encode"]
    assert small.steps[0].stage.key == 0.1 and not small.outputs  # type: ignore[attr-defined]
    assert pipe.fingerprint == plain.fingerprint and pipe.steps == plain.steps
    assert plain.previewed().steps == plain.steps
    assert pipe.set("tone.reinhard", white=4.0).previewed().steps[0].stage.white == 4.0  # type: ignore[attr-defined]
    again = parse(yaml.safe_dump(pipe.as_dict(), sort_keys=False), "again.yaml")
    assert again.preview == pipe.preview


@pytest.mark.parametrize(
    ("preview", "says"),
    [
        ("{brighte: skip}", "p.yaml:11:11: preview: no step 'brighte'; did you mean 'brighten'?"),
        ("{tone.reinhard: {kye: 1}}", "preview: tone.reinhard: unknown parameter 'kye'"),
        ("{tone.reinhard: {key: -1}}", "preview: tone.reinhard: parameter 'key'"),
        ("{tone.reinhard: {white: 4}}", None),
        ("{tone.reinhard: false}", "preview: tone.reinhard is 'skip' or a mapping of parameters"),
        ("[brighten]", "'preview' is a mapping of steps to skip or parameters"),
        ("{tone.reinhard: skip}", "preview: color.encode wants display-referred"),
    ],
)
def test_previews_are_checked(preview: str, says: str | None) -> None:
    text = f"{GOOD}preview: {preview}\n"
    if says is None:
        assert parse(text, "p.yaml").preview
    else:
        assert says in problems(text)[0] and len(problems(text)) == 1


@pytest.mark.parametrize("name", sorted(bundled.pipelines()))
def test_previews_of_shipped_pipelines_run_without_networks(name: str) -> None:
    assert not any(step.stage.spec.name == "restore" for step in Pipeline.load(name).previewed().steps)
