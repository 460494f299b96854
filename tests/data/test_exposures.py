"""Pairs of exposures: exact multiples without effects, and each effect as large as it says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from restorekit.data.degradation import seeded
from restorekit.data.exposures import DualExposure, dual_exposure, dual_exposure_frames
from restorekit.errors import InputError
from restorekit.frame import Bracket
from restorekit.testing import Scene, bayer_frame, rgb_frame

NOTHING: dict[str, Any] = {"clipped": None, "electrons": None, "read_noise": None, "black_error": 0.0, "bits": None}


@pytest.fixture(scope="module")
def scene() -> Tensor:
    return Scene(120, 160, seed=3).light()


def only(**effects: Any) -> DualExposure:
    return DualExposure(**{**NOTHING, **effects})


def test_without_effects_frames_are_exact_multiples(scene: Tensor) -> None:
    short, long = dual_exposure(scene * 5, 3.0, seeded(1), only())
    assert torch.equal(long, scene * 5)
    assert torch.equal(short * 8, long)


def test_a_seed_repeats_and_another_differs(scene: Tensor) -> None:
    before = scene.clone()
    first, again, other = (dual_exposure(scene, 2.5, seeded(seed), DualExposure()) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[1], other[1])
    assert torch.equal(scene, before)


@pytest.mark.parametrize("knee", [None, (0.8, 0.95)])
@pytest.mark.parametrize("share", [0.05, 0.25])
@pytest.mark.parametrize("scale", [1e-3, 40.0])
def test_the_drawn_share_of_the_long_frame_clips(scene: Tensor, share: float, scale: float, knee: Any) -> None:
    short, long = dual_exposure(scene * scale, 3.0, seeded(5), only(clipped=(share, share), knee=knee))
    assert float((long >= 1 - 1e-6).any(0).float().mean()) == pytest.approx(share, abs=0.002)
    assert float(long.max()) <= 1.0
    assert float((short >= 1 - 1e-6).float().mean()) < share / 4
    assert len({float((channel >= 1 - 1e-6).float().mean()) for channel in long}) == 3, "each channel clips by itself"


def test_the_default_clips_between_5_and_25_percent_through_noise(scene: Tensor) -> None:
    for seed in range(8):
        frame = replace(rgb_frame(), pixels=scene, state=bayer_frame().state.changed({"layout": "rgb"}))
        _, long = dual_exposure_frames(frame, 3.0, seeded(seed), DualExposure())
        assert 0.04 <= float(long.masks["clipped"].any(0).float().mean()) <= 0.27


def test_a_share_of_none_lets_the_brightest_just_reach_the_end(scene: Tensor) -> None:
    _, long = dual_exposure(scene, 2.0, seeded(1), only(clipped=(0.0, 0.0)))
    assert float(long.max()) == pytest.approx(1.0, abs=1e-6)
    assert int((long >= 1 - 1e-6).sum()) == 1


def test_noise_follows_electrons_in_both_frames() -> None:
    flat = torch.full((3, 200, 200), 0.4)
    for options, shot, read in (
        (only(electrons=(2000.0, 2000.0)), 1 / 2000, 0.0),
        (only(read_noise=(2e-3, 2e-3)), 0.0, 4e-6),
    ):
        for frame, level in zip(dual_exposure(flat, 3.0, seeded(9), options), (0.05, 0.4), strict=True):
            assert float(frame.double().var()) == pytest.approx(shot * level + read, rel=0.03)
            assert float(frame.double().mean()) == pytest.approx(level, rel=1e-3)


def test_black_level_errs_by_channel_and_frame_within_its_bound(scene: Tensor) -> None:
    exact = dual_exposure(scene, 3.0, seeded(1), only())
    shifted = dual_exposure(scene, 3.0, seeded(1), only(black_error=0.01))
    errors = torch.stack([(a - b).flatten(1) for a, b in zip(shifted, exact, strict=True)])
    assert float((errors - errors.mean(2, keepdim=True)).abs().max()) < 1e-6
    means = errors.mean(2).flatten()
    assert float(means.abs().max()) <= 0.01
    assert len(set(means.tolist())) == 6


def test_a_knee_bends_bright_light_only(scene: Tensor) -> None:
    straight = dual_exposure(scene, 1.0, seeded(1), only())[1]
    curved = dual_exposure(scene, 1.0, seeded(1), only(knee=(0.5, 0.5)))[1]
    below = straight <= 0.5
    assert torch.equal(curved[below], straight[below])
    assert bool((curved[~below] < straight[~below]).all())


def test_mosaics_get_the_same_effects(scene: Tensor) -> None:
    frame = bayer_frame()
    before = frame.pixels.clone()
    short, long = dual_exposure_frames(frame, 2.0, seeded(1), only())
    assert torch.equal(long.pixels, before)
    assert torch.equal(short.pixels * 4, before)
    short, long = dual_exposure_frames(frame, 2.0, seeded(1), only(clipped=(0.2, 0.2)))
    cells = torch.nn.functional.max_pool2d(long.masks["clipped"].float(), 2)
    assert float(cells.mean()) == pytest.approx(0.2, abs=0.01)
    assert torch.equal(long.masks["clipped"], long.pixels >= 1.0)
    assert torch.equal(frame.pixels, before)
    assert long.pixels.shape == frame.pixels.shape
    assert long.pixels.dtype == torch.float32


def test_frames_tell_what_is_known() -> None:
    options = DualExposure(electrons=(4000.0, 4000.0), read_noise=(1e-3, 1e-3))
    short, long = dual_exposure_frames(bayer_frame(), 3.0, seeded(1), options)
    assert (short.exposure.ev_offset, long.exposure.ev_offset) == (-3.0, 0.0)
    assert long.facts.clip_level == (1.0,)
    assert long.facts.noise is not None
    assert long.facts.noise[0] == pytest.approx((1 / 4000, 1e-6))
    assert Bracket.of((long, short), ev=(0.0, -3.0)).frames[0].pixels is short.pixels
    assert short.camera is long.camera


def test_what_cannot_be_exposed_says_so() -> None:
    with pytest.raises(InputError, match="without light"):
        dual_exposure(torch.zeros(3, 8, 8), 2.0, seeded(1), DualExposure())
    with pytest.raises(InputError, match="scene-linear camera RGB"):
        dual_exposure_frames(rgb_frame(), 2.0, seeded(1), DualExposure())
    with pytest.raises(InputError, match="whole 2x2 cells"):
        dual_exposure_frames(bayer_frame(45, 52), 2.0, seeded(1), DualExposure())
