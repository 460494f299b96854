"""The brackets of the benchmark are what their truth says, and its measures give the values known for simple cases."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from PIL import Image

import restorekit as rk
from restorekit.io.brackets import group_brackets

EVS = (-2, 0, 2)


@pytest.fixture(scope="module")
def modules(checkout: Path) -> tuple[ModuleType, ModuleType]:
    """``make_bracket`` and ``hdr_metrics``, programs beside the package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(checkout / "benchmarks"))
        return importlib.import_module("make_bracket"), importlib.import_module("hdr_metrics")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture with shadows, a bright sky and details of all sizes."""
    random = np.random.default_rng(3)
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(384)[None]) + 1 / 384
    light = np.fft.irfft2(np.fft.rfft2(random.normal(size=(256, 384))) / frequency)
    light = 0.4 + 0.13 * light / light.std() + np.linspace(0.3, -0.2, 256)[:, None]
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray((np.clip(light[..., None] * (1, 0.95, 0.9), 0, 1) * 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def bracket(modules, photo, tmp_path_factory):
    """A folder with a small bracket in which an object moves, and its truth."""
    folder = tmp_path_factory.mktemp("bracket")
    modules[0].make_bracket([photo], folder, kind="motion", megapixels=0.4, evs=EVS)
    return folder, modules[0].Truth.load(folder)


def test_a_pose_takes_a_pixel_of_the_reference_to_the_pixel_that_shows_the_same(modules, photo):
    make, _ = modules
    width, height, margin = 600, 400, 100
    pose = make.draw_poses("handheld", 3, width, height, np.random.default_rng(5))[0]
    scene = make.scene_of(photo, width + 2 * margin, height + 2 * margin)
    shot = make.seen(scene, pose, width, height, margin)
    back = cv2.warpPerspective(shot, pose, (width, height), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)
    inner = np.s_[margin:-margin, margin:-margin]
    wanted = scene[margin:-margin, margin:-margin][inner]
    assert np.abs(back[inner] - wanted).mean() < 0.02 * wanted.mean()
    assert np.abs(shot[inner] - wanted).mean() > 0.2 * wanted.mean()


def test_only_the_middle_shot_stays_in_place(modules):
    poses = modules[0].draw_poses("static", 5, 6000, 4000, np.random.default_rng(1))
    shifts = [modules[1].pose_error(np.eye(3), pose, 6000, 4000) for pose in poses]
    assert shifts[2].max == 0
    assert all(4 < shift.median < 14 for shift in (*shifts[:2], *shifts[3:]))


def test_shots_are_one_bracket_with_their_exposures(bracket):
    folder, truth = bracket
    for pattern in ("b*.jpg", "r*.dng"):
        paths = sorted(folder.glob(pattern))
        assert group_brackets(paths) == [tuple(paths)]
        light = [rk.read(path).exposure.relative for path in paths]
        assert np.allclose(np.log2(np.divide(light, light[1])), truth.evs, atol=1e-6)


def test_the_reference_raw_is_the_truth_with_the_noise_that_its_file_tells(modules, bracket):
    folder, truth = bracket
    frame = rk.read(folder / "r1.dng")
    ((a, b), *_) = frame.camera.noise_profile
    wanted = modules[0].mosaic_of(truth.radiance)
    got = (frame.pixels[0].numpy() - 512.0) / (16383 - 512)
    visible = wanted < 0.9
    deviation = ((got - wanted) / np.sqrt(a * wanted + b))[visible]
    assert abs(deviation.mean()) < 0.02
    assert deviation.std() == pytest.approx(1, abs=0.02)


def test_the_reference_jpeg_is_the_clipped_truth(modules, bracket):
    folder, truth = bracket
    with Image.open(folder / "b1.jpg") as file:
        got = np.asarray(file, np.float32) / 255
    assert np.abs(got - modules[0].encoded(truth.radiance.clip(0, 1))).mean() < 0.01


def test_the_object_is_in_the_truth_where_the_reference_has_it(bracket):
    _, truth = bracket
    shape = truth.radiance.shape[:2]
    assert np.allclose(truth.scene(truth.reference), truth.radiance, rtol=2e-3, atol=1e-3)
    for shot in range(3):
        elsewhere = ~truth.object.covers(shape, shot)
        assert np.array_equal(truth.scene(shot)[elsewhere], truth.background[elsewhere])
        assert not np.allclose(truth.scene(shot)[~elsewhere], truth.background[~elsewhere], rtol=0.1)


def test_pose_error_of_a_shift_is_its_length(modules):
    shifted = np.array([[1, 0, 3], [0, 1, 4], [0, 0, 1]], float)
    error = modules[1].pose_error(shifted, np.eye(3), 600, 400)
    assert (error.median, error.p95, error.max, error.count) == pytest.approx((5, 5, 5, 280))


def test_poses_of_a_report_do_not_depend_on_how_the_result_was_cropped(modules, checkout, monkeypatch):
    monkeypatch.syspath_prepend(str(checkout / "benchmarks"))
    contenders = importlib.import_module("hdr_contenders")
    pose = modules[0].draw_poses("handheld", 3, 600, 400, np.random.default_rng(1))[0]
    crop = np.array([[1, 0, 31], [0, 1, 17], [0, 0, 1]], float)
    measured = {"align.homography 0": tuple((pose @ crop).ravel()), "align.homography 1": tuple(crop.ravel())}
    found = contenders.poses_of(measured | {"align.homography residual_px": (0.1, 0.0)}, 1)
    assert np.allclose(found[0], pose) and np.allclose(found[1], np.eye(3))


def test_tile_residual_finds_a_shift_between_exposures(modules, photo):
    make, metrics = modules
    scene = make.scene_of(photo, 1264, 864)
    dark, bright = (
        np.rint(make.encoded((scene[4:-4, 4 + x : 1260 + x] * gain).clip(0, 1)) * 255).astype(np.uint8)
        for x, gain in ((0, 0.4), (3, 1.2))
    )
    assert metrics.tile_residual(dark, bright).median == pytest.approx(3, abs=0.2)


def test_pu21_of_100_nit_is_256_and_its_range_ends_at_595(modules):
    values = modules[1].pu21(np.array([0.005, 100, 10000], np.float32) / 203)
    assert values == pytest.approx([0, 256, 595.4], abs=0.5)


def test_radiance_is_compared_but_for_one_scale_and_one_shift(modules, bracket):
    metrics, truth = modules[1], bracket[1].radiance
    assert metrics.radiance_score(truth * 3, truth).pu21_db > 80
    moved = np.roll(truth, (2, -1), (0, 1))
    assert metrics.radiance_score(moved, truth).pu21_db > 50
    assert np.round(metrics.radiance_score(moved, truth).shift).tolist() == [-1, 2]
    tinted = metrics.radiance_score(truth * np.array([1.2, 1, 1], np.float32), truth)
    assert tinted.angle == pytest.approx(5.2, abs=0.3)  # of (1, 0.95, 0.9) and (1.2, 0.95, 0.9) in light: 5.2
    twice_in_the_dark = np.where(truth.max(-1, keepdims=True) < 0.1, truth * 2, truth)
    assert metrics.radiance_score(twice_in_the_dark, truth).log2_rmse["dark"] == pytest.approx(1, abs=0.2)


def test_the_least_variance_worked_by_hand(modules):
    """0.5 is seen at -2 EV (0.125) and 0 EV (0.5); at +2 EV it clips."""
    read = (4 / 12000) ** 2
    dark, middle = (0.125 / 12000 + read) * 16, 0.5 / 12000 + read
    bound = modules[1].least_variance(np.array([0.5, 5.0], np.float32), EVS)
    assert bound[0] == pytest.approx(1 / (1 / dark + 1 / middle), rel=1e-5)
    assert np.isinf(bound[1])


def test_the_best_merge_meets_the_bound_and_a_mean_does_not(modules, bracket):
    make, metrics = modules
    truth = bracket[1]
    signal = make.mosaic_of(truth.radiance)
    random = np.random.default_rng(2)
    shots = [make.recorded(signal * np.float32(2.0**ev), random) / 2.0**ev for ev in EVS]
    weights = [1 / metrics.least_variance(signal, (ev,)) for ev in EVS]
    weights[0] += np.float32(1e-6)
    best = sum(w * shot for w, shot in zip(weights, shots, strict=True)) / sum(weights)
    score = metrics.mosaic_score((best * 0.7).astype(np.float32), truth)
    assert score.excess_db == pytest.approx(0, abs=0.1)
    assert score.psnr_db == pytest.approx(score.bound_db, abs=0.2)
    moved = metrics.mosaic_score(np.roll(best, (4, -2), (0, 1)).astype(np.float32), truth)
    assert moved.psnr_db == pytest.approx(score.psnr_db, abs=0.1)
    assert metrics.mosaic_score(shots[0], truth).excess_db > 3


def test_ghosts_are_the_share_of_another_shot(modules, bracket):
    metrics, truth = modules[1], bracket[1]
    alone = truth.radiance.clip(0, 1)
    clean = metrics.motion_score(truth.radiance, truth, alone)
    assert max(clean.intruders, clean.hole) < 0.02 and clean.pu21_db > 60 > clean.reference_db
    wrong = metrics.motion_score(truth.scene(2), truth, alone)
    assert min(wrong.intruders, wrong.hole) > 0.9
    double = np.sqrt((truth.radiance + 0.003) * (truth.scene(2) + 0.003)) - 0.003
    both = metrics.motion_score(double, truth, alone, radiance=False)
    assert (both.intruders, both.hole) == pytest.approx((0.5, 0.5), abs=0.05)
    assert np.isnan(both.pu21_db)
