"""Poses of one picture on another: known ones are found between exposures, and what cannot be known is not made up."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from restorekit.facts import Matrix
from restorekit.frame import Frame
from restorekit.stages.align import view
from restorekit.stages.patches import View, view_of_codes
from restorekit.stages.pose import Model, Pose, composed, corners, projected, scaled
from restorekit.stages.registration import find_pose
from restorekit.state import SHORTHANDS, ImageState
from restorekit.testing import Scene, coded, mosaicked

HEIGHT, WIDTH = 360, 480


def moved(dx: float, dy: float, degrees: float = 0.0, bend: tuple[float, float] = (0.0, 0.0)) -> Matrix:
    """A turn and a little perspective about the middle of the picture, then a shift."""
    middle = np.array([[1, 0, -(WIDTH - 1) / 2], [0, 1, -(HEIGHT - 1) / 2], [0, 0, 1]])
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    matrix = np.linalg.inv(middle) @ np.array([[c, -s, dx], [s, c, dy], [*bend, 1]]) @ middle
    return np.asarray(matrix / matrix[2, 2], dtype=np.float64)


SHIFT, TURN, TILT = moved(7.3, -4.6), moved(12.0, 5.0, 3.0), moved(-9.0, 11.4, -1.2, (3e-5, -2e-5))


@cache
def scene() -> Scene:
    return Scene(HEIGHT, WIDTH)


@cache
def reference() -> Frame:
    return coded(scene().shot())


def errors_px(found: Matrix, truth: Matrix) -> np.ndarray:
    """How far two poses are apart on a grid over the picture."""
    grid = np.stack(np.meshgrid(np.linspace(0, WIDTH - 1, 21), np.linspace(0, HEIGHT - 1, 16)), -1).reshape(-1, 2)
    return np.hypot(*(projected(found, grid) - projected(truth, grid)).T)


def assert_found(pose: Pose, truth: Matrix, model: Model = "homography") -> None:
    errors = errors_px(pose.matrix, truth)
    assert pose.model == model
    assert np.median(errors) <= 0.1 and np.quantile(errors, 0.95) <= 0.25, f"{np.median(errors)}, {errors.max()} px"


@pytest.mark.parametrize("ev", [-2, 0, 2])
@pytest.mark.parametrize("truth", [SHIFT, TURN, TILT], ids=["shift", "turn", "tilt"])
def test_known_poses_between_exposures(truth: Matrix, ev: int) -> None:
    moving = coded(scene().shot(truth, ev=ev, seed=1))
    assert_found(find_pose(view(reference()), view(moving)), truth)


@pytest.mark.parametrize("kind", ["half", "sixteen bits", "gray", "RGGB", "GRBG", "GBRG", "BGGR"])
def test_known_poses_in_every_kind_of_frame(kind: str) -> None:
    truth = TILT
    lights = scene().shot(), scene().shot(truth, ev=1.5, seed=1)
    if kind == "half":
        pair = [Frame(light.half(), SHORTHANDS["scene-linear"]) for light in lights]
    elif kind == "sixteen bits":
        pair = [Frame((coded(light).as_float().pixels * 65535).to(torch.uint16)) for light in lights]
    elif kind == "gray":
        pair = [coded(light.mean(0, keepdim=True)) for light in lights]
    else:
        pair = [mosaicked(light, kind) for light in lights]
    pose = find_pose(view(pair[0]), view(pair[1]))
    cell = 2.0 if pair[0].state.is_mosaic else 1.0
    assert_found(Pose(scaled(pose.matrix, cell), pose.model), truth)


def test_poses_nine_stops_apart_are_near_or_not_claimed() -> None:
    for truth in (moved(5.0, 6.0, 1.0), moved(0.0, 0.0)):
        dark, bright = scene().shot(ev=-4.5), scene().shot(truth, ev=4.5, seed=1)
        pose = find_pose(view(coded(dark)), view(coded(bright)))
        assert pose.model == "none" or np.median(errors_px(pose.matrix, truth)) <= 1.0


@pytest.mark.parametrize("mover", [(14, 0), (-3, 2)])
def test_what_moves_does_not_sway_the_pose(mover: tuple[int, int]) -> None:
    """A quarter of the picture, full of detail, goes its own way."""
    dx, dy = mover
    thing = Scene(HEIGHT, WIDTH, seed=5)
    place = (slice(None), slice(90, 270), slice(120, 360))
    fixed, moving = scene().shot(), scene().shot(TILT, ev=1, seed=1)
    fixed[place] = thing.shot()[place]
    moving[:, 90 + dy : 270 + dy, 120 + dx : 360 + dx] = thing.shot(ev=1, seed=3)[place]
    assert_found(find_pose(view(coded(fixed)), view(coded(moving))), TILT)


def test_the_pose_of_the_same_picture_is_still() -> None:
    for ev in (-2, 0, 2):
        pose = find_pose(view(reference()), view(coded(scene().shot(ev=ev, seed=4))))
        assert pose.is_still(HEIGHT, WIDTH) and pose.model == "homography"
    assert not Pose(moved(0.2, 0.0)).is_still(HEIGHT, WIDTH)


def test_large_shifts_are_found_where_a_part_is_seen_in_both() -> None:
    truth = moved(50.0, -48.0)
    assert_found(find_pose(view(reference()), view(coded(scene().shot(truth, seed=1)))), truth)


def test_pictures_larger_than_the_coarse_ones() -> None:
    """1100 px wide: found at half size, refined at full size."""
    large = Scene(400, 1100, seed=2)
    middle = np.array([[1, 0, 310], [0, 1, 20], [0, 0, 1]])
    truth = middle @ moved(21.3, -14.8, 1.5) @ np.linalg.inv(middle)
    pose = find_pose(view(coded(large.shot())), view(coded(large.shot(truth, ev=-1.5, seed=1))))
    ends = corners(400, 1100)
    assert np.abs(projected(pose.matrix, ends) - projected(truth, ends)).max() < 0.25


@pytest.mark.parametrize("model", ["affine", "translation"])
def test_models_with_less_freedom(model: Model) -> None:
    turned = moved(6.0, 3.0, 1.0)
    moving = view(coded(scene().shot(turned, seed=1)))
    if model == "affine":
        pose = find_pose(view(reference()), moving, model=model)
        assert_found(pose, turned, "affine")
        assert pose.matrix[2].tolist() == [0, 0, 1]
    shift = find_pose(view(reference()), view(coded(scene().shot(SHIFT, seed=1))), model=model)
    assert_found(shift, SHIFT, model)
    if model == "translation":
        np.testing.assert_array_equal(shift.matrix[:2, :2], np.eye(2))


def test_a_third_of_the_picture_in_common_is_enough() -> None:
    wide = Scene(HEIGHT, 800, seed=3).shot()
    fixed, moving = view(coded(wide[:, :, :WIDTH])), view(coded(wide[:, :, -WIDTH:]))
    truth = moved(WIDTH - 800.0, 0.0)
    pose = find_pose(fixed, moving)
    assert pose.model != "none" and np.median(errors_px(pose.matrix, truth)) < 0.1


FLAT = {
    "gray": np.full((120, 160, 3), 128, np.uint8),
    "black": np.zeros((120, 160, 3), np.uint8),
    "clipped": np.full((120, 160, 3), 255, np.uint8),
    "noise": np.random.default_rng(1).integers(0, 256, (120, 160, 3)).astype(np.uint8),
}


@pytest.mark.parametrize("kind", FLAT)
def test_nothing_is_made_up_where_there_is_nothing_to_see(kind: str) -> None:
    real = view_of_codes(np.ascontiguousarray(reference().pixels[:, :120, :160].permute(1, 2, 0).numpy()))
    other = view_of_codes(FLAT[kind])
    for fixed, moving in ((real, other), (other, real)):
        pose = find_pose(fixed, moving)
        assert pose.model == "none"
        np.testing.assert_array_equal(pose.matrix, np.eye(3))
    if kind != "noise":
        assert find_pose(other, other).model == "none"


@pytest.mark.parametrize("size", [(1, 1), (1, 12), (12, 1), (2, 2), (3, 5), (8, 8), (9, 12), (12, 12), (1, 300)])
def test_tiny_pictures_have_a_pose(size: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    fixed, moving = (view_of_codes(random.integers(0, 256, (*size, 3)).astype(np.uint8)) for _ in range(2))
    for model in ("homography", "affine", "translation"):
        for pose in (find_pose(fixed, moving, model=model), find_pose(fixed, fixed, model=model)):
            assert np.isfinite(pose.matrix).all()
            assert pose.model in ("none", "homography", "affine", "translation")


def test_only_models_that_enough_patches_carry() -> None:
    """Detail in a corner alone carries no homography: its patches do not spread over the picture."""
    fixed, moving = (scene().shot(pose, seed=seed) for pose, seed in ((None, 0), (SHIFT, 1)))
    for picture in (fixed, moving):
        picture[:, :, 150:] = 0.3
        picture[:, 130:] = 0.3
    pose = find_pose(view(coded(fixed)), view(coded(moving)))
    assert pose.model in ("translation", "affine", "none")
    if pose.model == "translation":
        assert np.median(errors_px(pose.matrix, SHIFT)) < 0.5


def test_poses_are_scaled_about_pixels_as_areas() -> None:
    """A shift doubles; a corner's area stays a corner's area."""
    np.testing.assert_allclose(scaled(moved(3.0, 5.0), 2.0), moved(6.0, 10.0), atol=1e-12)
    outer = np.array([[-0.5, -0.5], [WIDTH - 0.5, HEIGHT - 0.5]])
    grown = (outer + 0.5) * 4 - 0.5
    wanted = (projected(TILT, outer) + 0.5) * 4 - 0.5
    np.testing.assert_allclose(projected(scaled(TILT, 4.0), grown), wanted, atol=1e-9)
    np.testing.assert_allclose(scaled(scaled(TILT, 4.0), 0.25), TILT, atol=1e-12)


def test_poses_follow_each_other() -> None:
    """The fixed picture on the second, the second on the third."""
    both = composed(Pose(TURN, "homography"), Pose(SHIFT, "translation"))
    points = corners(HEIGHT, WIDTH)
    np.testing.assert_allclose(projected(both.matrix, points), projected(SHIFT, projected(TURN, points)), atol=1e-9)
    assert both.model == "homography" and both.matrix[2, 2] == 1
    assert composed(Pose(np.eye(3)), Pose(np.eye(3))).model == "none"


def test_what_a_view_takes_for_well_exposed() -> None:
    codes = np.full((4, 6, 3), 128, np.uint8)
    codes[0], codes[1] = 0, 255
    codes[2, :, 0] = 255
    seen = view_of_codes(codes)
    assert seen.usable.tolist() == [[0] * 6, [0] * 6, [255] * 6, [255] * 6]
    assert View(seen.gray, seen.usable).reduced(2).usable.tolist() == [[0] * 3, [255] * 3]


def test_views_of_mosaics_are_the_means_of_their_cells() -> None:
    light = torch.rand(3, 8, 10) * 0.5
    for pattern in ("RGGB", "GBRG"):
        seen = view(mosaicked(light, pattern))
        mosaic = mosaicked(light, pattern).pixels[0].numpy()
        means = np.sqrt(mosaic.reshape(4, 2, 5, 2).mean((1, 3)))
        assert np.abs(seen.gray - means * np.median(seen.gray / means)).max() <= 1.5


def test_views_know_what_clipped_and_what_is_no_number() -> None:
    light = torch.full((3, 8, 8), 0.3)
    light[:, 0] = torch.nan
    light[:, 1] = torch.inf
    light[0, 2] = 1.0
    light[:, 3] = 1.0
    light[:, 4] = -torch.inf
    usable = view(Frame(light, SHORTHANDS["scene-linear"])).usable[:, 0].tolist()
    assert usable == [0, 0, 255, 0, 0, 255, 255, 255]
    assert view(Frame(torch.full((1, 4, 4), torch.nan), ImageState("gray", "scene", "linear"))).gray.max() == 0
