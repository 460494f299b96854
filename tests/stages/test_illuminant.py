from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from restorekit.errors import StageError
from restorekit.facts import Calibration, Camera, Facts
from restorekit.frame import Frame
from restorekit.stage import Stage
from restorekit.stages.illuminant import AsShot, GrayEdge, GrayWorld, ShadesOfGray, WhitePatch, block_means
from restorekit.state import ImageState
from restorekit.testing import StageLaws, bayer_frame

CAMERA_RGB = ImageState("rgb", "scene", "linear", "camera")
LIGHT = (0.45, 1.0, 0.62)
XTRANS = ("GBGGRG", "RGRBGB", "GBGGRG", "GRGGBG", "BGBRGR", "GRGGBG")
ESTIMATORS = (GrayWorld(), ShadesOfGray(), WhitePatch(), GrayEdge(), GrayEdge(order=2))


class TestLaws(StageLaws):
    stages = (AsShot(), *ESTIMATORS)
    frames = (
        bayer_frame(),
        bayer_frame(70, 91, pattern="GBRG"),
        replace(bayer_frame(), camera=Camera(cfa=("RG", "GB"))),
    )


def gray_scene(height: int = 120, width: int = 150, seed: int = 1) -> torch.Tensor:
    """Random gray rectangles ``[H,W]``, values 0.1..0.6: every estimator's assumption holds."""
    random = np.random.default_rng(seed)
    scene = np.full((height, width), 0.2, np.float32)
    for _ in range(120):
        y, x = random.integers(0, height - 12), random.integers(0, width - 12)
        scene[y : y + random.integers(6, 40), x : x + random.integers(6, 40)] = random.uniform(0.1, 0.6)
    return torch.from_numpy(scene)


def lit(scene: torch.Tensor, light: tuple[float, float, float] = LIGHT) -> Frame:
    return Frame(scene[None] * torch.tensor(light)[:, None, None], CAMERA_RGB)


def mosaic(frame: Frame, cfa: tuple[str, ...], layout: str) -> Frame:
    rows, columns = len(cfa), len(cfa[0])
    plane = torch.empty(1, frame.height, frame.width)
    for y in range(rows):
        for x in range(columns):
            plane[0, y::rows, x::columns] = frame.pixels["RGB".index(cfa[y][x]), y::rows, x::columns]
    return replace(frame, pixels=plane, state=frame.state.changed({"layout": layout}), camera=Camera(cfa=cfa))


def angle(a: tuple[float, ...] | None, b: tuple[float, ...]) -> float:
    assert a is not None
    u, v = np.array(a), np.array(b)
    return float(np.degrees(np.arccos(np.clip(u @ v / np.linalg.norm(u) / np.linalg.norm(v), -1, 1))))


@pytest.mark.parametrize("stage", ESTIMATORS, ids=str)
def test_a_gray_scene_gives_its_light(stage: Stage) -> None:
    frame = lit(gray_scene())
    for image in (frame, mosaic(frame, ("GR", "BG"), "bayer"), mosaic(frame, XTRANS, "xtrans")):
        tolerance = 0.01 if image is frame else 1.5  # colours of a mosaic are sampled beside each other
        assert angle(stage(image).facts.illuminant, LIGHT) < tolerance


@pytest.mark.parametrize("stage", ESTIMATORS, ids=str)
def test_the_light_does_not_depend_on_the_exposure(stage: Stage) -> None:
    frame = bayer_frame(64, 80, peak=0.5)
    brighter = replace(frame, pixels=frame.pixels * 1.7)
    assert angle(stage(brighter).facts.illuminant, stage(frame).facts.illuminant or ()) < 1e-3


@pytest.mark.parametrize("stage", ESTIMATORS, ids=str)
def test_clipped_and_black_parts_do_not_count(stage: Stage) -> None:
    frame = lit(gray_scene())
    spoiled = frame.pixels.clone()
    spoiled[:, :40, :60] = torch.tensor([1.0, 0.2, 0.2])[:, None, None]
    spoiled[:, 90:, :] *= 1e-4
    spoiled[2, 90:, :] += 0.001  # a blue cast of the black
    clipped = torch.zeros_like(spoiled, dtype=torch.bool)
    clipped[0, :40, :60] = True
    masked = replace(frame, pixels=spoiled, masks={"clipped": clipped})
    by_level = replace(frame, pixels=spoiled, facts=Facts(clip_level=(0.99, 0.99, 0.99)))
    for image in (masked, by_level):
        assert angle(stage(image).facts.illuminant, LIGHT) < 0.5


def test_gray_world_and_minkowski_are_the_formulas() -> None:
    pixels = torch.from_numpy(np.random.default_rng(3).uniform(0.3, 0.8, (3, 40, 50)).astype(np.float32))
    frame = Frame(pixels, CAMERA_RGB)
    flat = pixels.double().numpy().reshape(3, -1)
    mean = flat.mean(1)
    assert GrayWorld()(frame).facts.illuminant == pytest.approx(tuple(mean / mean[1]), rel=1e-5)
    norm = (flat**4).mean(1) ** 0.25
    assert ShadesOfGray(p=4)(frame).facts.illuminant == pytest.approx(tuple(norm / norm[1]), rel=1e-5)
    peak = np.sort(flat, axis=1)[:, round(0.9 * flat.shape[1]) - 1]
    assert WhitePatch(percentile=90)(frame).facts.illuminant == pytest.approx(tuple(peak / peak[1]), rel=1e-5)


def test_gray_edge_sees_edges_alone() -> None:
    """A coloured surround without edges changes gray world, not gray edge."""
    scene = torch.zeros(3, 200, 200) + torch.tensor([0.6, 0.2, 0.2])[:, None, None]
    scene[:, 60:140, 60:140] += 0.2 * gray_scene(80, 80)[None] * torch.tensor(LIGHT)[:, None, None]
    frame = Frame(scene, CAMERA_RGB)
    assert angle(GrayEdge(sigma_px=1)(frame).facts.illuminant, LIGHT) < 1
    assert angle(GrayWorld()(frame).facts.illuminant, LIGHT) > 20


def test_large_images_are_averaged_over_blocks() -> None:
    frame = bayer_frame(120, 160)
    means = block_means(frame, most=300)
    assert means.values.shape[1] * means.values.shape[2] <= 300
    size = 120 // means.values.shape[1]
    block = frame.pixels[0, :size, :size]
    assert means.values[0, 0, 0] == pytest.approx(float(block[0::2, 0::2].mean()), rel=1e-5)
    assert means.values[2, 0, 0] == pytest.approx(float(block[1::2, 1::2].mean()), rel=1e-5)
    both = (block[0::2, 1::2].mean() + block[1::2, 0::2].mean()) / 2
    assert means.values[1, 0, 0] == pytest.approx(float(both), rel=1e-5)


def test_gains_already_applied_are_taken_out() -> None:
    gains = (1 / LIGHT[0], 1.0, 1 / LIGHT[2])
    balanced = replace(lit(gray_scene(), (1.0, 1.0, 1.0)), facts=Facts(white_balance=gains))
    assert angle(GrayWorld()(balanced).facts.illuminant, LIGHT) < 0.01


@pytest.mark.parametrize("stage", ESTIMATORS, ids=str)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_nothing_to_measure_is_an_error(stage: Stage, value: float) -> None:
    frame = Frame(torch.full((3, 60, 60), value), CAMERA_RGB, facts=Facts(clip_level=(1.0, 1.0, 1.0)))
    with pytest.raises(StageError, match=r"no lit, unclipped part.*illuminant\.as_shot"):
        stage(frame)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2), (3, 3)])
def test_tiny_images(size: tuple[int, int]) -> None:
    frame = Frame(torch.full((3, *size), 0.5), CAMERA_RGB)
    assert GrayWorld()(frame).facts.illuminant == pytest.approx((1.0, 1.0, 1.0))


def test_as_shot_takes_the_cameras_neutral_without_a_pass() -> None:
    frame = bayer_frame()
    frame = replace(frame, camera=replace(frame.camera, neutral=(1.0, 2.0, 1.5)))
    assert not AsShot().needs_measure(frame)
    result = AsShot()(frame)
    assert result.facts.illuminant == (0.5, 1.0, 0.75)
    assert result.notes == ()


@pytest.mark.parametrize("neutral", [None, (-1.0, 1.0, 1.0), (0.0, 1.0, 0.5), (float("nan"), 1.0, 1.0)])
def test_as_shot_falls_back_with_a_note(neutral: tuple[float, float, float] | None) -> None:
    frame = mosaic(lit(gray_scene()), ("RG", "GB"), "bayer")
    frame = replace(frame, camera=replace(frame.camera, neutral=neutral, model="Nameless"))
    assert AsShot().needs_measure(frame)
    result = AsShot()(frame)
    assert angle(result.facts.illuminant, LIGHT) < 1.5
    assert result.notes == ("the camera (Nameless) stored no white balance; gray world is used",)
    with pytest.raises(StageError, match="fallback: gray_world"):
        AsShot(fallback="error")(frame)


@pytest.mark.parametrize("fallback", ["gray_world", "daylight"])
@pytest.mark.parametrize("value", [0.0, 1.0, float("nan")])
def test_as_shot_leaves_colours_alone_where_nothing_can_be_measured(fallback: str, value: float) -> None:
    """Also where an earlier stage found a light: gains already applied stay, since these are multiplied by 1."""
    facts = Facts(illuminant=(0.5, 1.0, 0.5), clip_level=(1.0,))
    frame = Frame(torch.full((1, 20, 24), value), CAMERA_RGB.changed({"layout": "bayer"}), facts=facts)
    frame = replace(frame, camera=Camera(cfa=("RG", "GB"), model="Nameless"))
    result = AsShot(fallback=fallback)(frame)
    assert result.facts.illuminant == (1.0, 1.0, 1.0)
    (note,) = result.notes
    assert note.endswith("and no part of the picture can be measured; white balance is left as it is")


def test_as_shot_needs_a_pattern_of_colours_to_measure() -> None:
    with pytest.raises(StageError, match="pattern of its colours"):
        AsShot()(replace(bayer_frame(), camera=Camera()))


@pytest.mark.parametrize("stage", [*ESTIMATORS, AsShot()], ids=str)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("size", [(24, 30), (120, 150)])
def test_one_value_that_is_not_finite_does_not_spoil_the_estimate(
    stage: Stage, value: float, size: tuple[int, int]
) -> None:
    stage = replace(stage, sigma_px=0.5) if isinstance(stage, GrayEdge) else stage
    frame = mosaic(lit(gray_scene()), ("RG", "GB"), "bayer")
    frame = replace(frame, pixels=frame.pixels[:, : size[0], : size[1]].clone())
    expected = stage(frame).facts.illuminant
    frame.pixels[0, 11, 13] = value
    assert angle(stage(frame).facts.illuminant, expected or ()) < 2


def test_as_shot_daylight_is_the_calibrated_response_to_d65() -> None:
    matrix = np.array([[0.6, 0.1, 0.0], [-0.4, 1.2, 0.2], [0.0, 0.1, 0.5]])
    calibrations = (Calibration(2856.0, np.eye(3)), Calibration(6504.0, matrix))
    frame = bayer_frame()
    frame = replace(frame, camera=replace(frame.camera, neutral=None, calibrations=calibrations))
    stage = AsShot(fallback="daylight")
    assert not stage.needs_measure(frame)
    result = stage(frame)
    white = matrix @ np.array([0.9505, 1.0, 1.0888])
    assert result.facts.illuminant == pytest.approx(tuple(white / white[1]), abs=1e-3)
    assert "daylight" in result.notes[0]
    without = replace(frame, camera=replace(frame.camera, calibrations=()))
    assert "gray world" in stage(without).notes[0]
