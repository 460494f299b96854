"""Made brackets show what they say: exact multiples without effects, known poses, known ways of what moves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from restorekit.data.brackets import KnownBracket, MovingBracket, moving_bracket
from restorekit.data.degradation import seeded
from restorekit.errors import InputError
from restorekit.frame import Bracket
from restorekit.stages.align import Homography
from restorekit.stages.exposures import Exposures
from restorekit.stages.merge import Radiance
from restorekit.stages.pose import apart
from restorekit.stages.raw import BlackLevel
from restorekit.stages.reprojection import Window, reprojected
from restorekit.testing import Scene

NOTHING: dict[str, Any] = {
    "shift": (0.0, 0.0),
    "turn": (0.0, 0.0),
    "tilt": (0.0, 0.0),
    "objects": 0,
    "clipped": None,
    "electrons": None,
    "read_noise": None,
    "bits": None,
}
HAND: dict[str, Any] = {"shift": (3.0, 9.0), "turn": (0.2, 0.6), "tilt": (0.0005, 0.001)}


@pytest.fixture(scope="module")
def scene() -> Tensor:
    return Scene(180, 240, seed=2).light()


def only(**effects: Any) -> MovingBracket:
    return MovingBracket(**{**NOTHING, **effects})


def same(one: KnownBracket, other: KnownBracket) -> bool:
    return all(torch.equal(a.pixels, b.pixels) for a, b in zip(one.bracket, other.bracket, strict=True))


def test_without_effects_frames_are_exact_multiples(scene: Tensor) -> None:
    for evs in ((-2.0, 0.0, 2.0), (1.0, -3.0), (0.0, 1.0, 2.0, 3.0)):
        dim = scene * 0.01
        known = moving_bracket(dim, seeded(1), only(evs=evs))
        assert torch.equal(known.radiance, dim)
        offsets = [frame.exposure.ev_offset for frame in known.bracket]
        assert offsets == [ev - sorted(evs)[len(evs) // 2] for ev in sorted(evs)]
        for frame in known.bracket:
            assert torch.equal(frame.pixels, dim * 2.0 ** (frame.exposure.ev_offset or 0.0))
            assert not frame.masks["clipped"].any()
        assert all(np.array_equal(pose, np.eye(3)) for pose in known.poses)


@pytest.mark.parametrize("layout", ["rgb", "bayer"])
def test_a_seed_repeats_and_the_scene_stays(scene: Tensor, layout: Any) -> None:
    before = scene.clone()
    options = MovingBracket(layout=layout, objects=2)
    first, again, other = (moving_bracket(scene, seeded(seed), options) for seed in (3, 3, 4))
    assert same(first, again)
    assert not same(first, other)
    assert torch.equal(scene, before)
    margin = options.margin_px(180, 240)
    assert all((frame.height, frame.width) == (180 - 2 * margin, 240 - 2 * margin) for frame in first.bracket)
    assert first.radiance.shape == (3, 180 - 2 * margin, 240 - 2 * margin)


def test_cameras_never_look_beyond_the_scene() -> None:
    options = only(shift=(9.0, 9.0), turn=(2.0, 2.0), tilt=(0.01, 0.01))
    margin = options.margin_px(120, 160)
    for seed in range(20):
        scene = torch.ones(3, 120, 160)
        scene[:, 1:-1, 1:-1] = 0.5
        known = moving_bracket(scene, seeded(seed), options)
        assert float(known.bracket.frames[0].pixels.max()) < 0.125 * 1.001, f"saw the rim at a margin of {margin}"


def test_poses_lead_from_the_middle_shot_to_the_others(scene: Tensor) -> None:
    known = moving_bracket(scene, seeded(5), only(**HAND, evs=(-1.0, 0.0, 1.0)))
    height, width = known.radiance.shape[1:]
    for frame, pose in zip(known.bracket, known.poses, strict=True):
        back = reprojected(frame, pose, Window(0, 0, height, width)).pixels * 2.0 ** -(frame.exposure.ev_offset or 0.0)
        inner = slice(None), slice(20, -20), slice(20, -20)
        error = ((back - known.radiance)[inner].abs() / (known.radiance[inner] + 0.01)).flatten()
        limit = known.bracket.frames[1].facts.clip_level
        assert limit == (1.0,) * 3
        assert float(error[known.radiance[inner].flatten() < 0.4].quantile(0.95)) < 0.02
    moved = [apart(pose, np.eye(3), height, width) for pose in known.poses]
    assert moved[1] == 0
    assert min(moved[0], moved[2]) > 2


def test_lamps_do_not_ring() -> None:
    night = torch.full((3, 100, 120), 1e-3)
    night[:, 40:60, 50:52] = 100.0
    known = moving_bracket(night, seeded(3), only(**HAND))
    for frame, gain in zip(known.bracket, (0.25, 1.0, 4.0), strict=True):
        assert float(frame.pixels.min()) >= 1e-3 * gain * (1 - 1e-5)


def test_alignment_finds_the_poses_through_noise_and_motion(scene: Tensor) -> None:
    known = moving_bracket(scene, seeded(0), MovingBracket(objects=1, size=(0.15, 0.2), evs=(-1.0, 0.0, 1.0)))
    found = Homography(border="fill").run(known.bracket)
    assert isinstance(found, Bracket)
    for frame, pose in zip(found, known.poses, strict=True):
        assert frame.facts.alignment is not None
        assert apart(frame.facts.alignment, pose, frame.height, frame.width) < 0.4


def test_things_move_by_the_known_way(scene: Tensor) -> None:
    dim = scene * 0.01
    known = moving_bracket(dim, seeded(7), only(objects=1, size=(0.2, 0.2), motion=(11.0, 11.0)))
    thing = known.objects[0]
    (y0, x0), (y1, x1), (y2, x2) = thing.corners
    assert np.hypot(y1 - y0, x1 - x0) == pytest.approx(11, abs=1)
    assert (y2 - y1, x2 - x1) == pytest.approx((y1 - y0, x1 - x0), abs=1)
    height, width = thing.alpha.shape[1:]
    solid = (thing.alpha == 1).expand(3, -1, -1)
    assert float(solid.float().mean()) > 0.4
    for shot, (frame, (top, left)) in enumerate(zip(known.bracket, thing.corners, strict=True)):
        light = frame.pixels * 2.0 ** -(frame.exposure.ev_offset or 0.0)
        here = light[:, top : top + height, left : left + width]
        assert torch.equal(here[solid], thing.light[solid]), "the thing is where its corner says"
        beside = ~known.covered(shot).expand(3, -1, -1)
        assert torch.equal(light[beside], known.background[beside]), "and nothing else changes"
        assert torch.equal(light, known.scene(shot))
    assert torch.equal(known.scene(1), known.radiance)


def test_things_stay_in_the_scene_and_may_leave_the_picture(scene: Tensor) -> None:
    options = MovingBracket(objects=4, motion=(40.0, 60.0), evs=(-2.0, -1.0, 0.0, 1.0, 2.0))
    margin = options.margin_px(180, 240)
    for seed in range(5):
        known = moving_bracket(scene, seeded(seed), options)
        for thing in known.objects:
            height, width = thing.alpha.shape[1:]
            assert all(-margin <= top <= 180 - margin - height for top, _ in thing.corners)
            assert all(-margin <= left <= 240 - margin - width for _, left in thing.corners)
            assert 0 <= thing.corners[2][0] <= 180 - 2 * margin - height


@pytest.mark.parametrize("share", [0.02, 0.2])
def test_the_middle_shot_clips_in_the_drawn_share(scene: Tensor, share: float) -> None:
    known = moving_bracket(scene * 7, seeded(1), only(clipped=(share, share), objects=1, size=(0.3, 0.3)))
    dark, middle, bright = (float(frame.masks["clipped"].any(0).float().mean()) for frame in known.bracket)
    assert middle == pytest.approx(share, abs=0.002)
    assert dark < middle < bright
    assert all(float(frame.pixels.max()) <= 1 for frame in known.bracket)
    assert float((known.radiance >= 1).any(0).float().mean()) == pytest.approx(share, abs=0.002)


def test_noise_follows_the_light_of_each_shot() -> None:
    flat = torch.full((3, 150, 150), 0.2)
    known = moving_bracket(flat, seeded(2), only(electrons=(3000.0, 3000.0), read_noise=(2e-3, 2e-3)))
    for frame, level in zip(known.bracket, (0.05, 0.2, 0.8), strict=True):
        assert float(frame.pixels.double().var()) == pytest.approx(level / 3000 + 4e-6, rel=0.04)
        assert frame.facts.noise is not None
        assert frame.facts.noise[2] == pytest.approx((1 / 3000, 4e-6))


def test_raw_shots_are_digital_numbers_of_each_photosites_colour(scene: Tensor) -> None:
    known = moving_bracket(scene, seeded(3), only(layout="bayer", clipped=(0.05, 0.05), bits=14))
    assert str(known.bracket.state) == "bayer-sensor-linear-camera"
    for frame in known.bracket:
        assert frame.pixels.dtype == torch.uint16
        light = (known.radiance * 2.0 ** (frame.exposure.ev_offset or 0.0)).clamp(max=1.0)
        seen = BlackLevel()(frame).pixels[0]
        for (row, column), channel in {(0, 0): 0, (0, 1): 1, (1, 0): 1, (1, 1): 2}.items():
            error = seen[row::2, column::2] - light[channel, row::2, column::2]
            assert float(error.abs().max()) < 0.6 / (15 / 16 * 2**14)


def test_merging_gives_the_light_back(scene: Tensor) -> None:
    known = moving_bracket(scene, seeded(4), MovingBracket(shift=(0, 0), turn=(0, 0), tilt=(0, 0), objects=0))
    exposed = Exposures().run(known.bracket)
    assert isinstance(exposed, Bracket)
    merged = Radiance().run(exposed)
    assert not isinstance(merged, Bracket)
    shown = (known.radiance > 0.02) & (known.radiance < 3.0)
    error = (merged.pixels / known.radiance - 1)[shown].abs()
    assert float(error.median()) < 0.02


def test_what_cannot_be_shot_says_so() -> None:
    with pytest.raises(InputError, match="too small"):
        moving_bracket(torch.ones(3, 40, 40), seeded(1), MovingBracket())
    with pytest.raises(InputError, match="without light"):
        moving_bracket(torch.zeros(3, 90, 90), seeded(1), MovingBracket())
    with pytest.raises(InputError, match="at least two"):
        moving_bracket(torch.ones(3, 90, 90), seeded(1), only(evs=(0.0,)))
