"""Controls come from declarations: all of them, within their ranges, and none that names a file."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import pytest

from restorekit import bundled
from restorekit.json_schema import describe
from restorekit.pipeline import Pipeline, parameter_problems
from restorekit.registry import stage_class
from restorekit.stage import Stage, param, parameters
from restorekit.stages import BUILT_IN
from restorekit.web.controls import Control, controls, file_parameters


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_parameter_has_a_control_or_names_a_file(name: str) -> None:
    declared = stage_class(name)
    fields = {field.name for field in dataclasses.fields(declared)}  # type: ignore[arg-type]
    shown = {control.name for control in controls(declared)}
    assert shown | file_parameters(declared) == fields
    assert not shown & file_parameters(declared)


@pytest.mark.parametrize("name", BUILT_IN)
def test_controls_say_what_the_declaration_says(name: str) -> None:
    declared = stage_class(name)
    rows = {row["name"]: row for row in describe(declared)}
    for control in controls(declared):
        row = rows[control.name]
        assert (control.doc, control.unit) == (row["doc"], row["unit"])
        if control.kind in ("slider", "number"):
            assert control.maximum == row["maximum"]
            assert control.minimum == row["minimum"] or row["exclusive"]
        for choice in row["choices"]:
            assert choice in control.choices


@pytest.mark.parametrize("name", BUILT_IN)
def test_what_a_control_offers_is_accepted(name: str) -> None:
    """The ends of every slider, every choice, and both sides of every switch."""
    declared = stage_class(name)
    for control in controls(declared):
        for shown in offered(control):
            said = list(parameter_problems(declared, {control.name: control.given(shown)}))
            assert not [text for text in said if text.startswith(f"parameter '{control.name}'")]


@pytest.mark.parametrize("name", BUILT_IN)
def test_usual_ranges_lie_within_the_ranges_and_hold_the_default(name: str) -> None:
    for control in controls(stage_class(name)):
        if control.usual is not None:
            low, high = control.usual
            assert control.minimum is not None and control.maximum is not None
            assert control.minimum <= low <= control.default <= high <= control.maximum
            for value in (low, high):
                said = parameter_problems(stage_class(name), {control.name: control.given(value)})
                assert not [text for text in said if text.startswith(f"parameter '{control.name}'")]


def test_a_stop_is_more_than_a_millimetre_of_a_slider_of_exposure() -> None:
    ev = next(control for control in controls(stage_class("tone.exposure")) if control.name == "ev")
    assert ev.ends(0.0) == (-5, 5) and ev.step == 0.01
    assert ev.ends(12.0) == (-5, 12) and ev.ends(-8) == (-8, 5)
    assert ev.ends(100.0) == (-5, 20) and ev.ends("loud") == (-5, 5)
    assert (ev.minimum, ev.maximum) == (-20, 20)
    assert ev.about == "Exposure change (in YAML from -20 to 20)"
    assert list(parameter_problems(stage_class("tone.exposure"), {"ev": 12.0})) == []


def offered(control: Control) -> tuple[object, ...]:
    if control.kind == "slider":
        return control.minimum, control.maximum
    return {"switch": (True, False), "choice": control.choices}.get(control.kind, ())


@pytest.mark.parametrize("name", BUILT_IN)
def test_defaults_go_there_and_back(name: str) -> None:
    for control in controls(stage_class(name)):
        assert control.given(control.shown(control.default)) == control.default


@pytest.mark.parametrize("name", sorted(bundled.pipelines()))
def test_no_number_field_stands_empty(name: str) -> None:
    """The browser would send 0 for it, which may be outside its range or mean something else."""
    for step in Pipeline.load(name).steps:
        for control in controls(type(step.stage)):
            if control.kind in ("slider", "number"):
                assert control.shown(getattr(step.stage, control.name)) is not None


@parameters
class Several(Stage):
    gain: Annotated[float, param("Gain", gt=0, le=2, unit="EV")] = 1.0
    count: Annotated[int, param("Count", ge=1, le=9)] = 3
    limit: Annotated[float | None, param("Limit", ge=0, le=4)] = None
    gains: Annotated[tuple[float, float] | None, param("Gains")] = None
    keep: Annotated[bool | None, param("Keep")] = None


def test_kinds_of_controls() -> None:
    found = {control.name: control for control in controls(Several)}
    assert {name: control.kind for name, control in found.items()} == {
        "gain": "slider",
        "count": "slider",
        "limit": "values",
        "gains": "values",
        "keep": "choice",
    }
    assert found["gain"].minimum == found["gain"].step == 0.002  # 0 itself is not in the range
    assert found["gain"].label == "gain (EV)"
    assert found["count"].step == 1
    assert [found["limit"].given(text) for text in ("", "2.5")] == [None, 2.5]
    assert found["limit"].shown(2.5) == "2.5" and found["limit"].about == "Limit (from 0 to 4)"
    assert found["gains"].given("[1.0, 2.5]") == [1.0, 2.5]
    assert found["gains"].given("") is None
    assert [found["keep"].given(choice) for choice in found["keep"].choices] == [None, True, False]
