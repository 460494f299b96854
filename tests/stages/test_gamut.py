from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from restorekit.color.gamut import ACES_LIMITS, compressed, into_gamut
from restorekit.errors import ParameterError, StageError
from restorekit.frame import Frame
from restorekit.stages.color import Convert
from restorekit.stages.gamut import Gamut
from restorekit.state import ImageState, Primaries
from restorekit.testing import StageLaws, rgb_frame

DISPLAY = ImageState("rgb", "display", "linear", "bt2020")
SCENE = ImageState("rgb", "scene", "linear", "bt2020")


def saturated(state: ImageState, peak: float = 1.0) -> Frame:
    """A frame that holds much that narrower gamuts lack, and some that its own lacks."""
    frame = rgb_frame(state=state)
    gray = frame.pixels.mean(0, keepdim=True)
    return frame.with_pixels(((frame.pixels - gray) * 3 + gray) * peak)


def flat(values: tuple[float, float, float], state: ImageState) -> Frame:
    return replace(rgb_frame(state=state), pixels=torch.tensor(values).reshape(3, 1, 1).expand(3, 4, 6))


class TestDisplayLaws(StageLaws):
    stages = (Gamut(), Gamut(to="p3"), Gamut(to="bt2020"), Gamut(method="aces"), Gamut(knee=0.2), Gamut(peak=0.5))
    frames = (
        saturated(DISPLAY),
        saturated(DISPLAY, 2.0),
        rgb_frame(),
        rgb_frame(state=ImageState("rgb", "display", "linear", "prophoto")),
    )
    tolerance = 2e-5


class TestSceneLaws(StageLaws):
    stages = (Gamut(), Gamut(to="ap1"), Gamut(method="aces"), Gamut(to="ap1", method="aces"), Gamut(knee=0.2))
    frames = (saturated(SCENE), saturated(SCENE, 6.0), rgb_frame(state=SCENE))
    tolerance = 5e-5
    scales_with_exposure = True


@pytest.mark.parametrize("to", ["bt709", "p3"])
@pytest.mark.parametrize("method", ["oklch", "aces"])
def test_display_colours_come_inside(to: str, method: str) -> None:
    frame = saturated(DISPLAY, 1.5)
    converted = Convert(to=to)(frame).pixels  # type: ignore[arg-type]
    assert float(converted.min()) < -0.05 and float(converted.max()) > 1.05
    result = Gamut(to=to, method=method)(frame)  # type: ignore[arg-type]
    assert result.state.primaries == to
    assert float(result.pixels.min()) >= 0 and float(result.pixels.max()) <= 1


def test_colours_of_the_gamut_are_those_of_convert() -> None:
    frame = saturated(DISPLAY)
    plain, result = Convert()(frame).pixels, Gamut()(frame).pixels
    inside = (plain.amin(0) >= 0) & (plain.amax(0) <= 1)
    assert 0.05 < float(inside.float().mean()) < 0.95
    assert torch.equal(result[:, inside], plain[:, inside])
    assert not torch.equal(result, plain)


def test_scene_light_keeps_its_brightness() -> None:
    frame = flat((9.0, 8.0, 7.0), SCENE)
    assert torch.equal(Gamut()(frame).pixels, Convert()(frame).pixels)
    assert float(Gamut()(flat((9.0, 0.1, 0.1), SCENE)).pixels.max()) > 5


def test_peak_is_that_of_the_display() -> None:
    frame = flat((3.0, 2.0, 1.0), DISPLAY)
    assert float(Gamut()(frame).pixels.max()) == pytest.approx(1.0, abs=1e-4)
    assert torch.equal(Gamut(peak=4.9)(frame).pixels, Convert()(frame).pixels)


def test_same_primaries_are_mapped_too() -> None:
    frame = flat((-0.2, 0.5, 1.3), ImageState("rgb", "display", "linear", "bt709"))
    assert torch.equal(Gamut()(frame).pixels, into_gamut(frame.pixels, "bt709"))
    calm = rgb_frame()
    assert Gamut()(calm).pixels is calm.pixels


def test_aces_has_the_published_limits_for_camera_colours() -> None:
    frame = saturated(SCENE)
    expected = compressed(Convert(to="ap1")(frame).pixels, ACES_LIMITS).clamp_min(0)
    assert torch.equal(Gamut(to="ap1", method="aces")(frame).pixels, expected)


def test_aces_leaves_rendered_colours_of_the_source_distinct() -> None:
    ramp = torch.linspace(0, 0.5, 60)
    frame = replace(rgb_frame(state=DISPLAY), pixels=torch.stack([ramp, torch.full_like(ramp, 0.5), ramp])[:, None])
    result = Gamut(method="aces")(frame).pixels
    assert bool((result[0, 0].diff() > 0).all())


def test_facts_change_as_in_convert() -> None:
    frame = saturated(SCENE)
    mapped, converted = Gamut(to="p3")(frame).facts, Convert(to="p3")(frame).facts
    assert mapped.clip_level == converted.clip_level == (1.0, 1.0, 1.0)
    assert mapped.noise == converted.noise != frame.facts.noise


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (ImageState("rgb", "scene", "linear", "camera"), "add color.camera_matrix before it"),
        (ImageState("rgb", "display", "srgb", "bt709"), "add color.decode before it"),
    ],
)
def test_other_states_are_refused_with_the_cure(state: ImageState, said: str) -> None:
    with pytest.raises(StageError, match=said):
        Gamut()(rgb_frame(state=state))


def test_knee_with_aces_is_warned_about() -> None:
    assert Gamut(method="aces", knee=0.2).warnings(DISPLAY) == ("knee has no effect with method aces",)
    assert Gamut(knee=0.2).warnings(DISPLAY) == ()


@pytest.mark.parametrize("wrong", [{"knee": 0.9}, {"peak": 0.0}, {"to": "camera"}, {"method": "clip"}])
def test_wrong_parameters_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ParameterError):
        Gamut(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("to", ["bt709", "p3", "bt2020", "adobe-rgb", "ap1"])
def test_emits_the_primaries_asked_for(to: Primaries) -> None:
    assert Gamut(to=to).emits(DISPLAY).primaries == to  # type: ignore[arg-type]
