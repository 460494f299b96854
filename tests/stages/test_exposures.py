"""How the frames of a bracket were exposed: what is said, what the pixels show, and who wins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from restorekit.errors import StageError
from restorekit.facts import Camera, Exposure, Facts
from restorekit.frame import Bracket, Frame
from restorekit.stages.exposures import Exposures
from restorekit.state import SHORTHANDS, ImageState
from restorekit.testing import BracketLaws

Array = NDArray[np.float64]
Gains = tuple[float, ...]

SCENE = SHORTHANDS["scene-linear"]
NOISE = (2e-4, 4e-7)


def scene(seed: int = 1, height: int = 180, width: int = 240) -> Array:
    """Light ``[3,H,W]`` over 10 stops."""
    random = np.random.default_rng(seed)
    stops = sum(cv2.resize(random.normal(0, 1.4, (n, n)), (width, height)) for n in (4, 9, 25))
    tint = random.uniform(0.6, 1.4, (3, 1, 1))
    return np.asarray(2.0 ** (np.clip(stops, -5, 5) - 2.5) * tint, np.float64)


def shot(
    light: Array, ev: float | Gains, *, time_s: float | None = None, noise: tuple[float, float] = NOISE, seed: int = 0
) -> Frame:
    """Light exposed by ``ev`` stops (one a channel), with noise, clipped, in half floats."""
    exposed = light * 2.0 ** np.reshape(ev, (-1, 1, 1))
    random = np.random.default_rng(seed + 100)
    exposed = exposed + random.normal(0, 1, exposed.shape) * np.sqrt(noise[0] * exposed + noise[1])
    pixels = torch.from_numpy(np.minimum(exposed, 1)).half()
    facts = Facts(clip_level=(1.0,) * len(pixels), noise=(noise,) * len(pixels))
    masks = {"clipped": pixels >= 1}
    return Frame(pixels, SCENE, masks=masks, exposure=Exposure(time_s=time_s, iso=100), facts=facts)


def bracket(*evs: float | Gains, times: tuple[float | None, ...] = (), light: Array | None = None) -> Bracket:
    light = scene() if light is None else light
    times = times or (None,) * len(evs)
    shots = (shot(light, ev, time_s=time, seed=k) for k, (ev, time) in enumerate(zip(evs, times, strict=True)))
    return Bracket(tuple(replace(f, source=Path(f"{name}.exr")) for f, name in zip(shots, "abcdefghi", strict=False)))


def run(frames: Bracket, **parameters: object) -> Bracket:
    result = Exposures(**parameters).run(frames)  # type: ignore[arg-type]
    assert isinstance(result, Bracket)
    return result


def stops(frames: Bracket) -> Array:
    """Stops ``[N,C]`` of the frames against the reference, of ``exposure_gain``."""
    return -np.log2(np.array([cast(Gains, frame.facts.exposure_gain) for frame in frames]))


def told(frames: Bracket) -> str:
    return "; ".join(frames.reference.notes)


ONE_PERCENT = float(np.log2(1.01))


def test_given_exposures_are_used_as_they_are() -> None:
    result = run(bracket(-2, 0, 2, times=(1.0, 1.0, 1.0)), exposures=(-1.5, 1.0, 2.0), refine=False)
    assert stops(result) == pytest.approx(np.array([[-2.5] * 3, [0] * 3, [1.0] * 3]))
    assert [frame.exposure.ev_offset for frame in result] == [-2.5, 0.0, 1.0]
    assert not told(result)


def test_offsets_of_the_frames_come_before_exif() -> None:
    frames = bracket(-2, 0, 2, times=(1.0, 1.0, 1.0))
    marked = [replace(f, exposure=replace(f.exposure, ev_offset=ev)) for f, ev in zip(frames, (-3, -1, 1), strict=True)]
    assert stops(run(Bracket(tuple(marked)), refine=False))[:, 0] == pytest.approx([-2, 0, 2])


@pytest.mark.parametrize(
    ("times", "wanted"),
    [
        ((1 / 250, 1 / 60, 1 / 15), (-2.0589, 2)),  # more than 3 % off is not snapped
        ((1 / 320, 1 / 80, 1 / 25), (-2, 5 / 3)),  # 1.678 stops as they stand there
        ((1 / 125, 1 / 100, 1 / 80), (-1 / 3, 1 / 3)),
        ((1 / 350, 1 / 250, 1 / 180), (-0.5, 0.5)),  # 0.485 and 0.474 stops as they stand there
        ((1 / 1300, 1 / 1000, 1 / 100), (-0.3785, 3.3219)),  # 0.3785 stops lie between a third and a half
        ((1 / 100, 1 / 87, 1 / 70), (-0.201, 0.3137)),
    ],
)
def test_exif_is_snapped_to_thirds_and_halves_of_a_stop(times: tuple[float, ...], wanted: tuple[float, float]) -> None:
    result = stops(run(bracket(-2, 0, 2, times=times), refine=False))[:, 0]
    expected = [w if min(abs(w * n - round(w * n)) for n in (2, 3)) < 1e-9 else None for w in wanted]
    for found, nominal, said in zip((result[0], result[2]), expected, wanted, strict=True):
        assert found == pytest.approx(said if nominal is None else nominal, abs=0.045 if nominal is None else 1e-6)


def test_aperture_and_sensitivity_count() -> None:
    frames = bracket(-2, 0, 2)
    how = [Exposure(0.01, 8.0, 100), Exposure(0.01, 4.0, 100), Exposure(0.01, 4.0, 400)]
    told_so = Bracket(tuple(replace(f, exposure=e) for f, e in zip(frames, how, strict=True)))
    assert stops(run(told_so, refine=False))[:, 0] == pytest.approx([-2, 0, 2])


def test_pixels_refine_what_exif_rounds() -> None:
    """1/60 s is a true 1/64 s, 1/15 s a true 1/16 s."""
    result = run(bracket(-2, 0, 2, times=(1 / 250, 1 / 60, 1 / 15)))
    assert np.abs(stops(result) - np.array([[-2], [0], [2]])).max() < ONE_PERCENT
    odd = run(bracket(-1.9, 0, 2.12, times=(1 / 250, 1 / 60, 1 / 15)))
    assert np.abs(stops(odd) - np.array([[-1.9], [0], [2.12]])).max() < ONE_PERCENT
    assert not told(result) and not told(odd)


def test_unknown_exposures_are_measured_and_it_is_said() -> None:
    result = run(bracket(-2.6, -1, 0, 1.3, 3))
    assert np.abs(stops(result)[:, 0] - [-2.6, -1, 0, 1.3, 3]).max() < 2 * ONE_PERCENT
    assert "exposures are unknown and measured from the pixels" in told(result) and "--ev" in told(result)
    assert result.reference.facts.measured["merge.exposures ev"] == pytest.approx((-2.6, -1, 0, 1.3, 3), abs=0.03)


def test_pixels_win_where_exif_is_wrong_by_a_stop() -> None:
    result = run(bracket(-2, 0, 2, times=(1 / 400, 1 / 50, 1 / 25)))
    assert np.abs(stops(result)[:, 0] - [-2, 0, 2]).max() < ONE_PERCENT
    assert "a.exr and b.exr: the files say +3.00 EV, the pixels +2.00 EV; the pixels are believed" in told(result)
    assert "b.exr and c.exr: the files say +1.00 EV, the pixels +2.00 EV; the pixels are believed" in told(result)


def test_files_win_where_pixels_tell_no_clear_ratio() -> None:
    """Frames of different scenes, whose ratios say whatever they say."""
    frames = Bracket(tuple(shot(scene(seed), ev, time_s=2.0**ev) for seed, ev in ((1, -2), (2, 0), (3, 2))))
    result = run(frames)
    assert stops(result)[:, 0] == pytest.approx([-2, 0, 2])
    assert "the pixels tell no clear ratio, 2.00 EV as the files say is used" in told(result)


def test_flicker_of_colour_is_evened_out() -> None:
    """Lamps that change between shots: the first frame is redder, the last bluer."""
    truth = np.array([(-1.8, -2.0, -2.1), (0, 0, 0), (1.9, 2.0, 2.25)])
    frames = bracket(*(tuple(row) for row in truth.tolist()), times=(1 / 400, 1 / 100, 1 / 25))
    assert np.abs(stops(run(frames)) - truth).max() < ONE_PERCENT
    together = stops(run(frames, equalize=False))
    assert np.ptp(together, axis=1).max() == 0
    assert np.abs(together[:, 0] - truth.mean(1)).max() < ONE_PERCENT


def test_frames_come_in_the_order_of_their_light() -> None:
    """Whatever their files say of it; the middle one is then the reference."""
    right = run(bracket(-2, 0, 2, times=(0.01, 0.01, 0.01)))
    wrong = run(bracket(2, 0, -2, times=(0.01, 0.01, 0.01)))
    assert np.allclose(stops(wrong), stops(right), atol=0.02)
    assert "order of their light" in told(wrong) and "order of their light" not in told(right)
    assert [frame.pixels.float().mean() for frame in wrong] == sorted(frame.pixels.float().mean() for frame in wrong)


def test_equal_frames_pass_with_a_note() -> None:
    result = run(bracket(0, 0, 0, times=(0.01,) * 3))
    assert np.abs(stops(result)).max() < ONE_PERCENT
    assert "all frames have the same exposure" in told(result)


def test_no_exif_and_no_overlap_is_one_line_that_names_both_files() -> None:
    light = scene()
    with pytest.raises(StageError) as caught:
        run(bracket(-13, 6, light=light))
    text = str(caught.value)
    assert text.startswith("a.exr and b.exr: nothing tells their exposures") and "--ev" in text and "\n" not in text


def test_no_overlap_is_no_matter_where_exif_tells() -> None:
    result = run(bracket(-13, 6, times=(2.0**-13, 2.0**6)))
    assert stops(result)[:, 0] == pytest.approx([-19, 0])


def test_another_number_of_exposures_than_frames() -> None:
    with pytest.raises(
        StageError, match=r"^a\.exr: merge\.exposures is given 2 exposures for 3 frames; give one a frame$"
    ):
        run(bracket(-2, 0, 2), exposures=(0.0, 1.0))
    with pytest.raises(StageError, match=r"a\.exr: .* needs at least two exposures"):
        run(Bracket(bracket(-2, 0).frames[:1]))


def test_moving_things_do_not_sway_the_ratio() -> None:
    """A fifth of the picture is something else in every frame, bright in one and dark in the next."""
    light = scene()
    frames = []
    for k, ev in enumerate((-2, 0, 2)):
        here = light.copy()
        here[:, 40:140, 10 + 70 * k : 96 + 70 * k] = 0.02 * 8 ** (k % 2) * (1 + 0.2 * scene(9)[:, :100, :86])
        frames.append(shot(here, ev, seed=k))
    assert np.abs(stops(run(Bracket(tuple(frames))))[:, 0] - [-2, 0, 2]).max() < 0.05


def test_strong_noise_does_not_sway_the_ratio() -> None:
    """At a signal to noise ratio of 3 in a dark frame."""
    light = scene()
    frames = tuple(shot(light, ev, noise=(4e-3, 4e-4), seed=k) for k, ev in enumerate((-2, 0, 2)))
    assert np.abs(stops(run(Bracket(frames))) - np.array([[-2], [0], [2]])).max() < 0.06


def test_masked_parts_are_not_looked_at() -> None:
    frames = list(bracket(-2, 0, 2))
    outside = torch.zeros(1, 180, 240, dtype=torch.bool)
    outside[:, :, :150] = True
    spoilt = frames[0].pixels.clone()
    spoilt[:, :, :150] = 0.3
    frames[0] = replace(frames[0], pixels=spoilt, masks={**frames[0].masks, "outside": outside})
    assert np.abs(stops(run(Bracket(tuple(frames)))) - np.array([[-2], [0], [2]])).max() < ONE_PERCENT


@pytest.mark.parametrize("pattern", ["RGGB", "GBRG"])
def test_mosaics_tell_each_colour(pattern: str) -> None:
    truth = np.array([(-2.1, -2.0, -1.9), (0, 0, 0), (2.0, 2.0, 2.1)])
    light = scene()
    frames = []
    for k, row in enumerate(truth):
        colours = shot(light, tuple(row), seed=k).pixels
        mosaic = torch.empty(1, 180, 240, dtype=torch.float16)
        for site, colour in enumerate(pattern):
            part = slice(site // 2, None, 2), slice(site % 2, None, 2)
            mosaic[0][part] = colours["RGB".index(colour)][part]
        state = ImageState("bayer", "scene", "linear", "camera")
        frames.append(
            Frame(
                mosaic,
                state,
                masks={"clipped": mosaic >= 1},
                camera=Camera(cfa=(pattern[:2], pattern[2:])),
                facts=Facts(clip_level=(1.0,)),
            )
        )
    assert np.abs(stops(run(Bracket(tuple(frames)))) - truth).max() < ONE_PERCENT


def test_gray_frames_have_one_gain() -> None:
    frames = [
        replace(f, pixels=f.pixels[1:2], masks={}, state=SCENE.changed({"layout": "gray"})) for f in bracket(-2, 0)
    ]
    assert [len(cast(Gains, f.facts.exposure_gain)) for f in run(Bracket(tuple(frames)))] == [1, 1]


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (8, 8)])
def test_tiny_black_and_broken_pictures(size: tuple[int, int]) -> None:
    for value in (0.0, float("nan"), float("inf"), -0.1):
        frames = tuple(
            Frame(torch.full((3, *size), value), SCENE, exposure=Exposure(time_s=t), facts=Facts()) for t in (0.1, 0.4)
        )
        assert stops(run(Bracket(frames)))[:, 0] == pytest.approx([-2, 0])


class TestLaws(BracketLaws):
    stages = (Exposures(), Exposures(refine=False), Exposures(exposures=(-2, 0, 2), equalize=False))
    brackets = (bracket(-2, 0, 2, times=(1 / 400, 1 / 100, 1 / 25)),)


def test_pixels_are_not_copied() -> None:
    frames = bracket(-2, 0, 2)
    result = run(frames)
    assert all(out.pixels is frame.pixels for out, frame in zip(result, frames, strict=True))
    assert all(out.masks.keys() == frame.masks.keys() for out, frame in zip(result, frames, strict=True))
