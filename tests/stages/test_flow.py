"""Brackets of scenes with depth: each layer is brought onto its own place, what is hidden is left out."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from restorekit.errors import StageError
from restorekit.facts import Matrix
from restorekit.frame import Bracket, Frame
from restorekit.stages.align import Homography
from restorekit.stages.flow import Flow
from restorekit.state import SHORTHANDS
from restorekit.testing import BracketLaws, Scene, coded, mosaicked

HEIGHT, WIDTH = 300, 400
NEAR = (slice(90, 220), slice(130, 280))
FAR_PX, NEAR_PX = (3, -2), (12, 1)
LINEAR = SHORTHANDS["scene-linear"]


def shifted(dx: float, dy: float) -> Matrix:
    return np.array([[1, 0, dx], [0, 1, dy], [0, 0, 1]], dtype=np.float64)


@cache
def layers() -> tuple[Scene, Scene]:
    return Scene(HEIGHT, WIDTH), Scene(HEIGHT, WIDTH, seed=3)


def near(dx: int = 0, dy: int = 0) -> tuple[slice, slice, slice]:
    rows, columns = NEAR
    return slice(None), slice(rows.start + dy, rows.stop + dy), slice(columns.start + dx, columns.stop + dx)


def shot(ev: float, moved: bool, seed: int = 0) -> torch.Tensor:
    """The far layer with the near one before it, as the reference camera sees them or one that has moved."""
    behind, before = layers()
    far_px, near_px = (FAR_PX, NEAR_PX) if moved else ((0, 0), (0, 0))
    light = behind.shot(shifted(*far_px), ev=ev, seed=seed)
    light[near(*near_px)] = before.shot(shifted(*near_px), ev=ev, seed=seed)[near(*near_px)]
    return light


@cache
def bracket() -> Bracket:
    return Bracket((coded(shot(-1.5, moved=True, seed=1)), coded(shot(0, moved=False))))


def aligned(stage: Flow | Homography, frames: Bracket) -> Bracket:
    result = stage.run(frames)
    assert isinstance(result, Bracket)
    return result


@cache
def deep() -> Bracket:
    return aligned(Flow(), bracket())


@cache
def flat() -> Bracket:
    return aligned(Homography(border="fill"), bracket())


def error(frame: Frame) -> torch.Tensor:
    """How far the dark frame is from what the reference camera would have shot, in codes, ``[H,W]``."""
    truth = coded(shot(-1.5, moved=False, seed=2)).pixels.float()
    return (frame.pixels.float() - truth).abs().mean(0)


def hidden() -> np.ndarray:
    """What of the far layer the near one hides from the camera that moved, ``[H,W]``."""
    here, there = np.zeros((2, HEIGHT, WIDTH), bool)
    here[NEAR] = True
    dx, dy = NEAR_PX[0] - FAR_PX[0], NEAR_PX[1] - FAR_PX[1]
    there[near(dx, dy)[1:]] = True
    return there & ~here


def test_layers_at_different_depths_are_brought_onto_each_other() -> None:
    away = torch.from_numpy(~hidden())
    away[:20], away[-20:], away[:, :20], away[:, -20:] = False, False, False, False
    inner = (slice(NEAR[0].start + 12, NEAR[0].stop - 12), slice(NEAR[1].start + 12, NEAR[1].stop - 12))
    assert float(error(deep().frames[0])[inner].mean()) < 0.3 * float(error(flat().frames[0])[inner].mean())
    assert float(error(deep().frames[0])[away].mean()) < 0.6 * float(error(flat().frames[0])[away].mean())
    assert float(error(deep().frames[0])[away].median()) < 2.5


def test_what_is_hidden_is_left_out() -> None:
    frame = deep().frames[0]
    motion = frame.masks["motion"][0].numpy()
    assert motion[hidden()].mean() > 0.6
    far_off = np.ones((HEIGHT, WIDTH), bool)
    far_off[NEAR[0].start - 25 : NEAR[0].stop + 25, NEAR[1].start - 25 : NEAR[1].stop + 35] = False
    assert motion[far_off].mean() < 0.01
    assert "motion" not in aligned(Flow(occlusions=False), bracket()).frames[0].masks


def test_the_reference_stays_bit_by_bit() -> None:
    before = bracket().reference
    after = deep().reference
    assert torch.equal(before.pixels, after.pixels) and not after.masks
    np.testing.assert_array_equal(after.facts.alignment, np.eye(3))


def test_a_flat_scene_needs_no_flow() -> None:
    """What a homography says is not made worse."""
    scene = layers()[0]
    frames = Bracket((coded(scene.shot(shifted(5.5, -3.2), ev=-1.5, seed=1)), coded(scene.shot())))
    truth = coded(scene.shot(ev=-1.5, seed=2)).pixels.float()
    errors = [
        float((aligned(stage, frames).frames[0].pixels.float() - truth)[:, 12:-12, 12:-12].abs().mean())
        for stage in (Homography(border="fill"), Flow())
    ]
    assert errors[1] < errors[0] + 0.5
    frame = aligned(Flow(), frames).frames[0]
    assert frame.facts.alignment is not None
    np.testing.assert_allclose(frame.facts.alignment, shifted(5.5, -3.2), atol=0.05)
    assert "motion" not in frame.masks or float(frame.masks["motion"].float().mean()) < 0.01


def test_where_a_frame_is_clipped_the_flow_of_its_surroundings_is_carried_on() -> None:
    """A near thing whose middle is clipped moves as one: the marks in the clipped middle go where its rim goes."""
    marks = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.bool)
    frames = []
    for moved in (True, False):
        light = shot(0, moved=moved, seed=int(moved))
        dx, dy = NEAR_PX if moved else (0, 0)
        light[:, 135 + dy : 175 + dy, 180 + dx : 230 + dx] = 1.0
        frames.append(coded(light))
    marks[:, 150 + NEAR_PX[1] : 160 + NEAR_PX[1], 200 + NEAR_PX[0] : 210 + NEAR_PX[0]] = True
    frames[0] = replace(frames[0], masks={"mine": marks[:1]})
    result = aligned(Flow(), Bracket(tuple(frames))).frames[0]
    middle = np.argwhere(result.masks["mine"][0].numpy()).mean(0)
    np.testing.assert_allclose(middle, (154.5, 204.5), atol=1.0)
    area = int(result.masks["mine"].sum())
    assert 90 <= area <= 150, "the flow is smooth there"
    assert bool((result.pixels[:, 145:165, 190:220] >= 250).all())


@pytest.mark.parametrize("kind", ["codes", "sixteen bits", "half", "float", "gray"])
def test_types_masks_and_alpha_are_kept(kind: str) -> None:
    lights = shot(-1.5, moved=True, seed=1), shot(0, moved=False)
    make = {
        "codes": coded,
        "sixteen bits": lambda light: Frame((coded(light).as_float().pixels * 65535).to(torch.uint16)),
        "half": lambda light: Frame(light.half(), LINEAR),
        "float": lambda light: Frame(light, LINEAR),
        "gray": lambda light: coded(light.mean(0, keepdim=True)),
    }[kind]
    frames = [make(light) for light in lights]
    clipped = torch.zeros_like(frames[0].pixels, dtype=torch.bool)
    clipped[:, 40:50, 50:60] = True
    alpha = torch.full((1, HEIGHT, WIDTH), 0.5)
    frames[0] = replace(frames[0], masks={"clipped": clipped, "mine": clipped[:1]}, alpha=alpha)
    result = aligned(Flow(), Bracket(tuple(frames))).frames[0]
    assert result.pixels.dtype == frames[0].pixels.dtype and result.pixels.shape == frames[0].pixels.shape
    assert bool(result.as_float().pixels.isfinite().all())
    assert result.alpha is not None and torch.allclose(result.alpha, alpha)
    for name, least, most in (("mine", 90, 150), ("clipped", 150, 260)):
        assert least <= int(result.masks[name][0].sum()) <= most, name
        place = np.argwhere(result.masks[name][0].numpy()).mean(0)
        np.testing.assert_allclose(place, (44.5 - FAR_PX[1], 54.5 - FAR_PX[0]), atol=1.0)


def test_integer_alpha_is_kept() -> None:
    alpha = torch.full((1, HEIGHT, WIDTH), 255, dtype=torch.uint8)
    dark, reference = bracket()
    result = aligned(Flow(), Bracket((replace(dark, alpha=alpha), reference))).frames[0]
    assert result.alpha is not None and torch.equal(result.alpha, alpha)
    half = replace(dark, alpha=torch.full((1, HEIGHT, WIDTH), 0.5, dtype=torch.float16))
    result = aligned(Flow(), Bracket((half, reference))).frames[0]
    assert result.alpha is not None and result.alpha.dtype == torch.float16 and bool((result.alpha == 0.5).all())


def test_outside_is_where_there_is_no_data() -> None:
    scene = layers()[0]
    frames = Bracket((coded(scene.shot(shifted(9.0, -7.0), ev=-1, seed=1)), coded(scene.shot())))
    outside = aligned(Flow(), frames).frames[0].masks["outside"][0]
    assert bool(outside[:, -8:].all()) and bool(outside[:6].all())
    assert not bool(outside[9:, :-11].any())


def test_flow_does_not_depend_on_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = deep().frames[0]
    monkeypatch.setattr("restorekit.stages.flow.STRIP_ROWS", 64)
    strips = aligned(Flow(), bracket()).frames[0]
    assert int((whole.pixels.int() - strips.pixels.int()).abs().max()) <= 2
    assert torch.equal(whole.masks["motion"], strips.masks["motion"])


def test_large_pictures_use_a_reduced_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("restorekit.stages.flow.FLOW_PX", 200)
    small = aligned(Flow(), bracket()).frames[0]
    inner = (slice(NEAR[0].start + 20, NEAR[0].stop - 20), slice(NEAR[1].start + 20, NEAR[1].stop - 20))
    assert float(error(small)[inner].mean()) < 0.5 * float(error(flat().frames[0])[inner].mean())


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0, float("nan"), float("inf")])
def test_frames_that_show_nothing(value: float) -> None:
    """They are used as they are, and named."""
    odd = Frame(torch.full((3, HEIGHT, WIDTH), value), LINEAR)
    real = Frame(shot(0, moved=False), LINEAR)
    result = aligned(Flow(), Bracket((odd, real)))
    assert any("could not be aligned" in note for note in result.reference.notes)
    assert "outside" not in result.frames[0].masks
    if np.isfinite(value):
        assert torch.allclose(result.frames[0].pixels, odd.pixels, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2), (5, 3), (8, 8), (12, 12), (17, 30)])
def test_tiny_brackets(size: tuple[int, int]) -> None:
    random = torch.Generator().manual_seed(1)
    frames = Bracket(tuple(coded(torch.rand(3, *size, generator=random)) for _ in range(3)))
    for frame in aligned(Flow(), frames):
        assert frame.pixels.shape == (3, *size)


def test_mosaics_are_refused() -> None:
    frames = Bracket(tuple(mosaicked(shot(0, moved=moved)) for moved in (True, False)))
    with pytest.raises(StageError, match=r"raw\.demosaic"):
        Flow().run(frames)


SMALL = Scene(96, 120)


class TestLaws(BracketLaws):
    stages = (Flow(), Flow(occlusions=False))
    brackets = (Bracket((coded(SMALL.shot(shifted(3, 2), ev=-1)), coded(SMALL.shot()))),)
