from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from restorekit.data.degradation import seeded
from restorekit.data.exposures import DualExposure as Effects
from restorekit.data.exposures import dual_exposure_frames
from restorekit.errors import StageError
from restorekit.facts import Camera, Facts
from restorekit.frame import Bracket, Frame
from restorekit.stages.illuminant_dual import DualExposure, observed
from restorekit.state import ImageState
from restorekit.testing import BracketLaws

CAMERA_RGB = ImageState("rgb", "scene", "linear", "camera")
LIGHT = (0.55, 1.0, 0.6)
STAGES = (DualExposure(), DualExposure(method="emlp"))
EFFECTS = Effects(electrons=(500.0, 500.0), read_noise=(4e-3, 4e-3))
every_method = pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.method)


def scene(light: tuple[float, float, float] = LIGHT, seed: int = 0, height: int = 240, width: int = 320) -> Frame:
    """Surfaces of muted colours, most of them gray, bright and dark."""
    random = np.random.default_rng(seed)
    pixels = np.full((3, height, width), 0.2)
    for _ in range(150):
        y, x, h, w = random.integers(0, height - 8), random.integers(0, width - 8), *random.integers(12, 80, 2)
        color = random.uniform(0.03, 0.6) * np.exp(random.normal(0, 0.15, (3, 1, 1)))
        pixels[:, y : y + h, x : x + w] = color
    return Frame(torch.from_numpy(pixels).float() * torch.tensor(light)[:, None, None], CAMERA_RGB)


def as_bayer(frame: Frame) -> Frame:
    plane = frame.pixels[1:2].clone()
    plane[:, 0::2, 0::2], plane[:, 1::2, 1::2] = frame.pixels[:1, 0::2, 0::2], frame.pixels[2:, 1::2, 1::2]
    camera = Camera(cfa=("RG", "GB"))
    return replace(frame, pixels=plane, state=frame.state.changed({"layout": "bayer"}), camera=camera)


def bracket(frame: Frame, seed: int = 0, stops: float = 3.0) -> Bracket:
    return Bracket(dual_exposure_frames(frame, stops, seeded(seed), EFFECTS))


def angle(found: Frame, light: tuple[float, float, float]) -> float:
    assert found.facts.illuminant is not None
    cosine = np.dot(found.facts.illuminant, light) / np.linalg.norm(found.facts.illuminant) / np.linalg.norm(light)
    return float(np.degrees(np.arccos(min(cosine, 1.0))))


class TestLaws(BracketLaws):
    stages = STAGES
    brackets = (bracket(scene()), bracket(as_bayer(scene())))


@every_method
@pytest.mark.parametrize("light", [LIGHT, (1.0, 1.0, 0.35), (0.5, 1.0, 0.65)])
def test_a_scene_of_muted_colours_tells_its_light(stage: DualExposure, light: tuple[float, float, float]) -> None:
    for frame in (scene(light), as_bayer(scene(light))):
        result = stage.run(bracket(frame))
        assert isinstance(result, Bracket)
        lights = {shot.facts.illuminant for shot in result}
        assert len(lights) == 1, "both frames get the same"
        assert angle(result.reference, light) < 6.0


def test_the_frames_may_come_in_any_order() -> None:
    pair = bracket(scene())
    backwards = DualExposure().run(Bracket(pair.frames[::-1]))
    assert next(iter(backwards)).facts.illuminant == next(iter(DualExposure().run(pair))).facts.illuminant


def test_of_more_frames_the_outermost_count() -> None:
    pair = bracket(scene())
    middle = replace(pair.frames[0], pixels=pair.frames[0].pixels * 2)
    three = DualExposure().run(Bracket((pair.frames[0], middle, pair.frames[1])))
    assert [f.facts.illuminant for f in three] == [next(iter(DualExposure().run(pair))).facts.illuminant] * 3


@every_method
def test_gains_already_applied_are_taken_out(stage: DualExposure) -> None:
    gains = (2.0, 1.0, 1.5)
    pair = bracket(scene())
    balanced = [
        replace(
            frame,
            pixels=frame.pixels * torch.tensor(gains)[:, None, None],
            facts=replace(frame.facts.scaled(gains), white_balance=gains),
        )
        for frame in pair
    ]
    found, plain = stage.run(Bracket(tuple(balanced))), stage.run(pair)
    assert next(iter(found)).facts.illuminant == pytest.approx(next(iter(plain)).facts.illuminant, rel=1e-3)


def test_cells_are_taken_as_they_are_however_large_the_picture() -> None:
    """A picture four times as large, of the same cells, has the same feature: noise is not averaged away."""
    short, long = bracket(scene(height=300, width=400))
    large = [frame.planes(lambda p: p.repeat_interleave(2, 1).repeat_interleave(2, 2)) for frame in (short, long)]
    assert torch.allclose(observed(*large)[0], observed(short, long)[0], atol=0.02)


def test_a_single_frame_is_refused_with_a_cure() -> None:
    with pytest.raises(StageError, match=r"needs a short and a long exposure.*illuminant\.gray_world"):
        DualExposure()(scene())
    with pytest.raises(StageError, match=r"needs a short and a long exposure.*illuminant\.gray_world"):
        DualExposure().run(Bracket((scene(),)))


def test_one_exposure_twice_is_refused() -> None:
    with pytest.raises(StageError, match="not half a stop apart"):
        DualExposure().run(Bracket((scene(), scene())))


@pytest.mark.parametrize("value", [0.0, 1.0, float("nan")])
def test_nothing_to_measure_is_an_error(value: float) -> None:
    frame = Frame(torch.full((3, 60, 60), value), CAMERA_RGB, facts=Facts(clip_level=(1.0, 1.0, 1.0)))
    with pytest.raises(StageError, match=r"illuminant\."):
        DualExposure().run(Bracket((frame, frame)))


def test_a_pair_without_clipping_is_told() -> None:
    dark = scene()
    pair = Bracket((replace(dark, pixels=dark.pixels / 8), dark))
    result = DualExposure().run(pair)
    assert isinstance(result, Bracket)
    assert any("0.0% is clipped" in note for note in result.reference.notes)
    assert not any(frame.notes for frame in DualExposure().run(bracket(scene())))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_one_value_that_is_not_finite_does_not_spoil_the_estimate(value: float) -> None:
    short, long = bracket(scene())
    spoiled = short.pixels.clone()
    spoiled[0, 7, 9] = value
    found = DualExposure().run(Bracket((replace(short, pixels=spoiled), long)))
    assert (
        angle(next(iter(found)), next(iter(DualExposure().run(Bracket((short, long))))).facts.illuminant or LIGHT) < 1
    )
