"""Brackets aligned: what all frames show lies at the same place afterwards, and nothing else has changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from restorekit.errors import StageError
from restorekit.facts import Matrix, Metadata
from restorekit.frame import Bracket, Frame
from restorekit.stage import BracketStage
from restorekit.stages import align
from restorekit.stages.align import Homography, Mtb, aligned, bracket_poses, view
from restorekit.stages.patches import View
from restorekit.stages.pose import Pose, projected
from restorekit.stages.registration import find_pose
from restorekit.state import SHORTHANDS, ImageState
from restorekit.testing import BracketLaws, Scene, coded, mosaicked

HEIGHT, WIDTH = 300, 400
LINEAR = SHORTHANDS["scene-linear"]


def moved(dx: float, dy: float, degrees: float = 0.0) -> Matrix:
    """A turn about the middle of the picture, then a shift."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    x, y = (WIDTH - 1) / 2, (HEIGHT - 1) / 2
    return np.array([[c, -s, dx + x - c * x + s * y], [s, c, dy + y - s * x - c * y], [0, 0, 1]], dtype=np.float64)


HAND = (moved(4.4, -3.2, 0.5), np.eye(3), moved(-6.1, 2.3, -0.8))
EVS = (-2.0, 0.0, 2.0)


@cache
def scene() -> Scene:
    return Scene(HEIGHT, WIDTH)


@cache
def lights(poses: str = "hand") -> tuple[torch.Tensor, ...]:
    """The shots of a bracket, -2, 0 and 2 EV."""
    each = HAND if poses == "hand" else (np.eye(3),) * 3
    return tuple(scene().shot(pose, ev=ev, seed=seed) for seed, (pose, ev) in enumerate(zip(each, EVS, strict=True)))


def bracket_from(kind: str, poses: str = "hand") -> Bracket:
    shots = lights(poses)
    if kind in ("RGGB", "GBRG"):
        return Bracket(tuple(mosaicked(light, kind) for light in shots))
    if kind == "half":
        return Bracket(tuple(Frame(light.half(), LINEAR) for light in shots))
    if kind == "gray":
        return Bracket(tuple(coded(light.mean(0, keepdim=True)) for light in shots))
    return Bracket(tuple(coded(light) for light in shots))


def crops(result: Frame | Bracket) -> Bracket:
    assert isinstance(result, Bracket)
    return result


def alignment(frame: Frame) -> Matrix:
    assert frame.facts.alignment is not None
    return frame.facts.alignment


def errors_px(result: Bracket, poses: Sequence[Matrix]) -> list[float]:
    """How far the way back of each frame is at most from the truth, seen from the reference, which was cropped too."""
    height, width = result.reference.height, result.reference.width
    grid = np.stack(np.meshgrid(np.linspace(0, width - 1, 9), np.linspace(0, height - 1, 7)), -1).reshape(-1, 2)
    place = projected(alignment(result.reference), grid)
    return [
        float(np.hypot(*(projected(alignment(frame), grid) - projected(pose, place)).T).max())
        for frame, pose in zip(result, poses, strict=True)
    ]


@pytest.mark.parametrize("kind", ["codes", "half", "gray", "RGGB", "GBRG"])
def test_a_bracket_from_the_hand(kind: str) -> None:
    frames = bracket_from(kind)
    result = crops(Homography().run(frames))
    assert max(errors_px(result, HAND)) < 0.3
    height, width = result.reference.height, result.reference.width
    assert HEIGHT - 20 < height < HEIGHT and WIDTH - 25 < width < WIDTH
    for before, after in zip(frames, result, strict=True):
        assert after.pixels.dtype == before.pixels.dtype and after.state == before.state
        assert "outside" not in after.masks and not after.masks.keys() ^ before.masks.keys()
    np.testing.assert_array_equal(alignment(result.reference)[:2, :2], np.eye(2))
    x, y = (round(v) for v in alignment(result.reference)[:2, 2])
    assert torch.equal(
        result.reference.pixels.float(), frames.reference.pixels[:, y : y + height, x : x + width].float()
    )
    if kind in ("RGGB", "GBRG"):
        assert x % 2 == y % 2 == height % 2 == width % 2 == 0, "the pattern keeps its phase"
    assert not result.reference.notes


def test_aligned_pictures_show_the_same() -> None:
    result = crops(Homography(border="fill").run(bracket_from("half")))
    for frame, ev in zip(result, EVS, strict=True):
        truth = scene().light() * 2.0**ev
        seen = ~frame.masks.get("outside", torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)) & (truth < 0.9).all(0)
        error = ((frame.pixels.float() - truth).abs() / (truth + 0.02))[seen.expand(3, -1, -1)]
        assert float(error.median()) < 0.02 and float(error.quantile(0.9)) < 0.06


@pytest.mark.parametrize("stage", [Homography(), Homography(border="fill"), Mtb()], ids=str)
@pytest.mark.parametrize("kind", ["codes", "half", "RGGB"])
def test_a_bracket_from_a_tripod_stays_bit_by_bit(stage: BracketStage, kind: str) -> None:
    frames = bracket_from(kind, "tripod")
    result = crops(stage.run(frames))
    for before, after in zip(frames, result, strict=True):
        assert torch.equal(before.pixels, after.pixels)
        assert before.masks.keys() == after.masks.keys()
        np.testing.assert_array_equal(alignment(after), np.eye(3))
    assert not result.reference.notes


def test_fill_keeps_the_reference_and_marks_what_is_not_seen() -> None:
    frames = bracket_from("codes")
    result = crops(Homography(border="fill").run(frames))
    assert torch.equal(result.reference.pixels, frames.reference.pixels) and not result.reference.masks
    for frame, pose in zip(result, HAND, strict=True):
        if frame is result.reference:
            continue
        y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
        at = projected(pose, np.stack((x.ravel(), y.ravel()), -1).astype(np.float64))
        inside = np.minimum(at, (WIDTH - 1, HEIGHT - 1) - at).min(1).reshape(HEIGHT, WIDTH)
        outside = frame.masks["outside"][0].numpy()
        assert outside[inside < -0.3].all() and not outside[inside > 0.3].any()


@pytest.mark.parametrize("stage", [Homography(model="translation"), Homography(model="affine"), Mtb()], ids=str)
def test_models_with_less_freedom(stage: BracketStage) -> None:
    poses = (moved(6.0, -4.0), np.eye(3), moved(-9.0, 12.0))
    shots = (coded(scene().shot(pose, ev=ev, seed=5)) for pose, ev in zip(poses, EVS, strict=True))
    result = crops(stage.run(Bracket(tuple(shots))))
    assert max(errors_px(result, poses)) < 0.15
    measured = result.reference.facts.measured
    assert len(measured[f"{stage.spec.name} residual_px"]) == 3
    np.testing.assert_allclose(measured[f"{stage.spec.name} 2"], alignment(result.frames[2]).ravel())


@pytest.mark.parametrize("largest", [16, 64])
@pytest.mark.parametrize("kind", ["codes", "half", "RGGB"])
def test_bitmaps_find_whole_shifts_exactly(kind: str, largest: int) -> None:
    poses = (moved(8.0, -14.0), np.eye(3), moved(-12.0, 2.0))
    shots = [scene().shot(pose, ev=ev, seed=5) for pose, ev in zip(poses, EVS, strict=True)]
    makers = {"codes": coded, "half": lambda light: Frame(light.half(), LINEAR), "RGGB": mosaicked}
    frames = Bracket(tuple(makers[kind](light) for light in shots))
    result = crops(Mtb(largest_shift=largest).run(frames))
    assert max(errors_px(result, poses)) == 0, "to the pixel, and in the right direction"
    (x0, y0), (x1, y1) = ((round(v) for v in alignment(frame)[:2, 2]) for frame in (result.frames[0], result.reference))
    height, width = result.reference.height, result.reference.width
    assert (x0 - x1, y0 - y1) == (8, -14) and (height, width) == (HEIGHT - 16, WIDTH - 20)
    assert torch.equal(result.frames[0].pixels, frames.frames[0].pixels[:, y0 : y0 + height, x0 : x0 + width])


def test_bitmaps_move_mosaics_by_even_numbers_only() -> None:
    poses = (moved(7.0, -3.0), np.eye(3))
    frames = Bracket(tuple(mosaicked(scene().shot(pose, seed=5)) for pose in poses))
    result = crops(Mtb(border="fill").run(frames))
    assert max(errors_px(result, poses)) <= 2**0.5
    assert (alignment(result.frames[0])[:2, 2] % 2 == 0).all()


def test_frames_with_nothing_in_common_are_matched_through_their_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Views told apart by number: the first ones are known from their neighbour alone, the fifth is not known."""
    frames = tuple(Frame(torch.full((1, 40, 40), float(index)), ImageState("gray", "display")) for index in range(6))
    step = Pose(np.array([[1, 0, 2], [0, 1, 0], [0, 0, 1.0]]), "translation")
    views = {id(each): index for index, each in enumerate(frames)}
    known = {(3, 2), (2, 1), (1, 0), (3, 5)}

    def find(fixed: View, moving: View) -> Pose:
        pair = int(fixed.gray[0, 0]), int(moving.gray[0, 0])
        return step if pair in known else Pose(np.eye(3))

    def numbered(frame: Frame) -> View:
        return View(np.full((4, 4), views[id(frame)], np.uint8), np.full((4, 4), 255, np.uint8))

    monkeypatch.setattr(align, "view", numbered)
    poses = bracket_poses(Bracket(frames), find)
    assert [pose.matrix[0, 2] for pose in poses] == [6, 4, 2, 0, 0, 2]
    assert [pose.model for pose in poses] == ["translation"] * 4 + ["none", "translation"]


def test_a_bracket_of_thirteen_stops() -> None:
    """The brightest frame shows a twentieth of the picture: enough for a shift, not for a turn of 0.3 degrees."""
    poses = (moved(3.0, 2.0, 0.2), moved(-2.0, 5.0), np.eye(3), moved(4.0, -3.0, -0.3))
    shots = (scene().shot(pose, ev=ev, seed=7) for pose, ev in zip(poses, (-8.0, -4.0, 0.0, 5.0), strict=True))
    result = crops(Homography().run(Bracket(tuple(coded(light) for light in shots))))
    assert max(errors_px(result, poses)[:3]) < 0.4
    turn_px = 0.3 * np.pi / 180 * np.hypot(WIDTH, HEIGHT) / 2
    assert errors_px(result, poses)[3] < 2 * turn_px
    assert len({frame.pixels.shape for frame in result}) == 1


FLAT = {"flat": 0.4, "black": 0.0, "clipped": 1.0}


@pytest.mark.parametrize("kind", FLAT)
def test_frames_that_show_nothing_stay_as_they_are_and_are_named(kind: str) -> None:
    shots = lights()
    odd = replace(coded(torch.full_like(shots[0], FLAT[kind])), source=Path("odd.jpg"))
    result = crops(Homography(border="fill").run(Bracket((odd, coded(shots[1]), coded(shots[2])))))
    assert torch.equal(result.frames[0].pixels, odd.pixels) and "outside" not in result.frames[0].masks
    np.testing.assert_array_equal(alignment(result.frames[0]), np.eye(3))
    assert len(result.reference.notes) == 1 and "odd.jpg: could not be aligned" in result.reference.notes[0]
    assert errors_px(result, HAND)[2] < 0.3
    nothing = crops(Homography().run(Bracket((odd, odd, odd))))
    assert all(torch.equal(frame.pixels, odd.pixels) for frame in nothing)
    assert len(nothing.reference.notes) == 1


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 12), (3, 5), (8, 8), (12, 12)])
@pytest.mark.parametrize("count", [2, 9])
def test_tiny_brackets(size: tuple[int, int], count: int) -> None:
    random = torch.Generator().manual_seed(1)
    light = [torch.rand(3, *size, generator=random) for _ in range(count)]
    for stage in (Homography(), Homography(border="fill"), Mtb(), Mtb(border="fill")):
        for make in (coded, mosaicked, lambda each: Frame(each.half(), LINEAR)):
            if make is mosaicked and min(size) < 2:
                continue
            result = crops(stage.run(Bracket(tuple(make(each) for each in light))))
            assert len(result) == count
            for frame in result:
                assert frame.pixels.numel() and bool(frame.pixels.isfinite().all())
                assert np.isfinite(alignment(frame)).all()


@pytest.mark.parametrize("mosaic", [False, True])
def test_values_that_are_no_numbers(mosaic: bool) -> None:
    """They are taken for clipped, do not sway the pose, and do not spread."""
    shots = [light.clone() for light in lights()]
    for light, wrong in zip(shots, (torch.nan, torch.inf, -torch.inf), strict=True):
        light[:, 100:104, 150:154] = wrong
    frames = Bracket(tuple(mosaicked(light) if mosaic else Frame(light, LINEAR) for light in shots))
    for stage in (Homography(), Mtb()):
        result = crops(stage.run(frames))
        for frame in result:
            assert int((~frame.pixels.isfinite()).sum()) < 3 * 20 * 20
        if isinstance(stage, Homography):
            assert max(errors_px(result, HAND)) < 0.3
    everything = Bracket(tuple(frame.with_pixels(torch.full_like(frame.pixels, torch.nan)) for frame in frames))
    for stage in (Homography(), Mtb()):
        assert len(crops(stage.run(everything))) == 3


def test_opcodes_keep_the_whole_picture() -> None:
    frames = bracket_from("RGGB")
    camera = replace(frames.reference.camera, opcode_lists=(b"", b"", b"some"))
    result = crops(Homography().run(Bracket(tuple(replace(frame, camera=camera) for frame in frames))))
    assert (result.reference.height, result.reference.width) == (HEIGHT, WIDTH)
    assert any("corrections" in note for note in result.reference.notes)
    assert "outside" in result.frames[0].masks and result.reference.camera.opcode_lists == camera.opcode_lists


def test_too_little_in_common_keeps_the_whole_picture() -> None:
    wide = Scene(200, 700, seed=2).shot()
    frames = Bracket(tuple(coded(wide[:, :, x : x + 260].contiguous()) for x in (0, 200, 400)))
    fixed = [Pose(np.array([[1, 0, dx], [0, 1, 0], [0, 0, 1.0]]), "translation") for dx in (200.0, 0.0, -200.0)]
    result = aligned(frames, fixed, "crop", "align.homography")
    assert (result.reference.height, result.reference.width) == (200, 260)
    assert any("too little in common" in note for note in result.reference.notes)
    assert bool(result.frames[0].masks["outside"].any())


def test_crops_that_are_pending_and_masks_move_along() -> None:
    frames = bracket_from("codes")
    metadata = Metadata(crop=(20, 30, 280, 380), orientation=3)
    marks = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.bool)
    marks[:, 100:110, 200:210] = True
    dressed = [replace(frame, metadata=metadata, masks={"clipped": marks}, alpha=marks[:1].float()) for frame in frames]
    result = crops(Homography().run(Bracket(tuple(dressed))))
    x, y = (round(v) for v in alignment(result.reference)[:2, 2])
    for frame, pose in zip(result, HAND, strict=True):
        assert frame.metadata.crop == (20 - y, 30 - x, 280 - y, 380 - x) and frame.metadata.orientation == 3
        places = np.argwhere(frame.masks["clipped"][0].numpy()).mean(0)[::-1]
        wanted = projected(np.linalg.inv(pose), np.array([[204.5, 104.5]]))[0] - (x, y)
        np.testing.assert_allclose(places, wanted, atol=0.5)
        assert frame.alpha is not None and abs(float(frame.alpha.sum()) - 100) < 2
    turned = result.reference.upright()
    assert (turned.height, turned.width) <= (260, 350)


def test_more_frames_and_even_numbers_of_them() -> None:
    """Nine frames, and two: the reference is the one after the middle."""
    poses = [moved(2.0 * index - 8, 5.0 - index) for index in range(9)]
    poses[4] = np.eye(3)
    shots = [coded(scene().shot(pose, ev=(i - 4) / 2, seed=i)) for i, pose in enumerate(poses)]
    assert max(errors_px(crops(Mtb().run(Bracket(tuple(shots)))), poses)) == 0
    pair = crops(Mtb(border="fill").run(Bracket((shots[0], shots[4]))))
    assert torch.equal(pair.reference.pixels, shots[4].pixels)


def test_states_that_cannot_be_aligned_are_refused() -> None:
    frames = bracket_from("RGGB")
    raw = Bracket(tuple(replace(frame, state=SHORTHANDS["sensor-bayer"]) for frame in frames))
    for stage in (Homography(), Mtb()):
        with pytest.raises(StageError, match=r"raw\.black_level"):
            stage.run(raw)


SMALL = Scene(96, 120)


class TestLaws(BracketLaws):
    stages = (Homography(), Homography(border="fill", model="affine"), Mtb(), Mtb(border="fill", largest_shift=32))
    brackets = tuple(
        Bracket((make(SMALL.shot(ev=-1)), make(SMALL.shot(np.array([[1, 0.01, 3], [-0.01, 1, 2], [0, 0, 1]])))))
        for make in (coded, mosaicked)
    )


def read(paths: Sequence[Path]) -> Bracket:
    pictures = [np.ascontiguousarray(cv2.imread(str(path))[:, :, ::-1]) for path in paths]
    return Bracket.of([Frame(torch.from_numpy(each.transpose(2, 0, 1).copy())) for each in pictures])


def detail_left(result: Bracket) -> list[float]:
    """How far the corners of the darkest and the brightest frame still are from the reference, px."""
    left = []
    fixed = view(result.reference)
    for frame in (result.frames[0], result.frames[-1]):
        pose = find_pose(fixed, view(frame))
        assert pose.model != "none"
        ends = np.array([[0, 0], [fixed.gray.shape[1] - 1, fixed.gray.shape[0] - 1]], dtype=np.float64)
        left.append(float(np.hypot(*(projected(pose.matrix, ends) - ends).T).max()))
    return left


def test_a_real_bracket_from_the_hand(shared_data: Path) -> None:
    """Seven frames of a phone, near things in front of far ones."""
    frames = read(sorted((shared_data / "brackets" / "dario_crusader").iterdir()))
    assert len(frames) == 7
    result = crops(Homography().run(frames))
    assert not result.reference.notes
    assert max(result.reference.facts.measured["align.homography residual_px"]) < 5
    assert result.reference.height > 0.8 * frames.reference.height


def test_a_real_bracket_of_fifteen_stops(shared_data: Path) -> None:
    frames = read(sorted((shared_data / "brackets" / "jamyl_house").iterdir()))
    result = crops(Homography().run(frames))
    ends = np.array([[0.0, 0.0], [result.reference.width - 1.0, result.reference.height - 1.0]])
    for frame in result:
        moved_px = projected(alignment(frame), ends) - projected(alignment(result.reference), ends)
        assert np.abs(moved_px).max() < 12


def test_a_real_bracket_with_people_who_move(shared_data: Path) -> None:
    frames = read(sorted((shared_data / "brackets" / "motion_SculptureGarden").iterdir()))
    result = crops(Homography().run(frames))
    assert not result.reference.notes
    assert max(detail_left(result)) < 0.5
