"""Merged frames are the light of the scene, with as little noise as the frames allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from restorekit.errors import StageError
from restorekit.facts import Camera, Exposure, Facts, Metadata
from restorekit.frame import Bracket, Frame
from restorekit.stages.merge import Radiance, Weighting
from restorekit.stages.response import Response
from restorekit.state import SHORTHANDS, ImageState
from restorekit.testing import BracketLaws

Array = NDArray[np.float64]
Noise = tuple[float, float]

SCENE, SRGB = SHORTHANDS["scene-linear"], SHORTHANDS["display-srgb"]
MOSAIC = ImageState("bayer", "scene", "linear", "camera")
WEIGHTINGS: tuple[Weighting, ...] = ("poisson", "exposure", "debevec")
NOISE: Noise = (1 / 12000, (4 / 12000) ** 2)
"""Of a sensor of 12,000 electrons with a read noise of 4."""
HALF_STEP = 2.0**-11


@cache
def scene(low_ev: float, high_ev: float, height: int = 120, width: int = 160) -> Array:
    """Light ``[3,H,W]`` that spans the given stops against the white level of the reference evenly."""
    random = np.random.default_rng(7)
    smooth = sum(cv2.resize(random.normal(0, 1, (n, n)), (width, height)) for n in (3, 8, 20))
    ranks = smooth.ravel().argsort().argsort().reshape(height, width) / (height * width - 1)
    tints = np.array([0.0, -0.3, -0.6])[:, None, None]
    return np.asarray(2.0 ** (low_ev + 0.6 + (high_ev - low_ev - 0.6) * ranks + tints), np.float64)


def expose(
    light: Array,
    ev: float,
    noise: Noise | None = None,
    seed: int = 0,
    *,
    gain: float | tuple[float, ...] | None = None,
    kind: torch.dtype = torch.float16,
) -> Frame:
    """Light of ``[C,H,W]`` as a frame sees it: with noise, clipped at 1."""
    exposed = light * 2.0**ev
    if noise is not None:
        deviation = np.sqrt(noise[0] * exposed + noise[1])
        exposed = exposed + np.random.default_rng(seed).normal(0, 1, light.shape) * deviation
    pixels = torch.from_numpy(np.minimum(exposed, 1)).to(kind)
    channels = len(light)
    gains = (2.0**-ev if gain is None else gain,) * channels if not isinstance(gain, tuple) else gain
    facts = Facts(clip_level=(1.0,) * channels, noise=(noise or NOISE,) * channels, exposure_gain=gains)
    state = SCENE if channels == 3 else SCENE.changed({"layout": "gray"})
    return Frame(pixels, state, masks={"clipped": pixels >= 1}, exposure=Exposure(ev_offset=ev), facts=facts)


def bracket(light: Array, evs: Sequence[float], noise: Noise | None = None, seed: int = 0) -> Bracket:
    return Bracket(tuple(expose(light, ev, noise, 1000 * seed + k) for k, ev in enumerate(evs)))


def merge(frames: Bracket, weighting: Weighting = "poisson") -> Frame:
    result = Radiance(weighting=weighting).run(frames)
    assert isinstance(result, Frame)
    return result


def values(frame: Frame) -> Array:
    assert frame.pixels.dtype == torch.float32
    return np.asarray(frame.pixels.double().numpy())


def changed(frames: Bracket, index: int, frame: Frame) -> Bracket:
    return Bracket((*frames.frames[:index], frame, *frames.frames[index + 1 :]))


class TestLaws(BracketLaws):
    stages = tuple(Radiance(weighting=weighting) for weighting in WEIGHTINGS)
    brackets = (bracket(scene(-8, 2.4), (-2, 0, 2), NOISE), bracket(scene(-8, 2.4)[:1], (-2, 0)))


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize(
    "evs", [(-1, 0), (-2, 0, 2), (-4, -1, 2, 5), (-7.5, 0, 7.5), tuple(np.linspace(-7.5, 7.5, 9).tolist())], ids=len
)
def test_the_scene_comes_back_within_the_steps_of_half_floats(evs: tuple[float, ...], weighting: Weighting) -> None:
    """From what is clipped in all frames but the darkest to a step of 2^-10 in the brightest."""
    reference = evs[len(evs) // 2]
    evs = tuple(ev - reference for ev in evs)
    light = scene(-10 - evs[-1], -0.3 - evs[0])
    assert light.max() / light.min() > 2 ** (9.5 + evs[-1] - evs[0])
    result = merge(bracket(light, evs), weighting)
    error = np.abs(values(result) / light - 1)
    # The hat gives weight to what dark frames hold in steps of 2^-24, with logarithms of it that are far off.
    assert error.max() < (0.01 if weighting == "debevec" else 1.1 * HALF_STEP)
    assert np.median(error) < 0.6 * HALF_STEP
    assert not bool(result.masks["clipped"].any())


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("evs", [(-2, 0, 2), (-6, -4, -2, 0, 2, 4, 6)], ids=len)
def test_photos_come_back_within_their_steps(evs: tuple[float, ...], weighting: Weighting) -> None:
    """8-bit sRGB: no light is wrong by more than a code of the brightest frame that is well exposed there."""
    light = scene(-6 - evs[-1], -0.3 - evs[0])
    frames = []
    for ev in evs:
        exposed = np.minimum(light * 2.0**ev, 1)
        codes = np.where(exposed <= 0.0031308, 12.92 * exposed, 1.055 * exposed ** (1 / 2.4) - 0.055)
        frames.append(Frame(torch.from_numpy(np.rint(codes * 255).astype(np.uint8)), SRGB))
    linear = Response(curve="srgb").run(Bracket(tuple(frames)))
    assert isinstance(linear, Bracket)
    known = [
        replace(frame, facts=replace(frame.facts, exposure_gain=(2.0**-ev,) * 3))
        for frame, ev in zip(linear, evs, strict=True)
    ]
    error = np.abs(values(merge(Bracket(tuple(known)), weighting)) - light)
    step = np.full_like(light, np.inf)
    for ev in evs:
        exposed = light * 2.0**ev
        slope = np.where(exposed <= 0.0031308, 1 / 12.92, 2.4 / 1.055 * (np.maximum(exposed, 1e-9) / 1) ** (1.4 / 2.4))
        step = np.where(exposed < 0.8, np.minimum(step, slope / 255 / 2.0**ev), step)
    fine = np.isfinite(step)
    assert fine.mean() > 0.9
    assert (error / step)[fine].max() < (2.5 if weighting == "debevec" else 1.6)
    assert np.median((error / step)[fine]) < 0.35


LEVELS = (3e-4, 1e-3, 3e-3, 0.01, 0.04, 0.12, 0.5, 2.0, 2.8)
"""Light of the patches of the Monte Carlo tests; none lies where a frame rolls off."""


def bound(level: float, evs: Sequence[float], noise: Noise) -> float:
    """The least variance that an unbiased mean of the frames that are not clipped can have."""
    used = [ev for ev in evs if level * 2.0**ev < 0.8]
    return 1 / sum(4.0**ev / (noise[0] * level * 2.0**ev + noise[1]) for ev in used)


def patches(noise: Noise) -> tuple[Array, Bracket]:
    light = np.broadcast_to(np.repeat(LEVELS, 30)[None, None], (3, 150, 30 * len(LEVELS)))
    return np.asarray(light), bracket(np.asarray(light), (-2, 0, 2), noise)


def mse(found: Array, light: Array) -> list[float]:
    squares = (found - light) ** 2
    return [float(squares[:, :, 30 * k : 30 * k + 30].mean()) for k in range(len(LEVELS))]


@pytest.mark.parametrize("noise", [NOISE, (1e-3, 1e-5), (2e-3, 1e-7)])
def test_noise_comes_within_half_a_decibel_of_the_bound(noise: Noise) -> None:
    light, frames = patches(noise)
    errors = mse(values(merge(frames)), light)
    for level, found in zip(LEVELS, errors, strict=True):
        assert 10 * np.log10(found / bound(level, (-2, 0, 2), noise)) < 0.5, f"at {level}"
    older = mse(values(merge(frames, "debevec")), light)
    assert all(ours <= 1.02 * theirs for ours, theirs in zip(errors, older, strict=True))
    assert np.mean(10 * np.log10(np.divide(older, errors))) > 0.5, "and is better than the hat"


@pytest.mark.parametrize("highlights", [0.1, 4.0])
@pytest.mark.parametrize("level", [1e-5, 1e-4, 1e-3, 1e-2])
def test_shadows_have_no_bias(level: float, highlights: float) -> None:
    """Even far below the noise, and whatever else stands in the picture: less than 3 % of the noise of a pixel."""
    light = np.full((3, 200, 240), level)
    light[:, :, 200:] = highlights
    found = values(merge(bracket(light, (-2, 0, 2), NOISE)))[:, :, :200]
    deviation = bound(level, (-2, 0, 2), NOISE) ** 0.5
    assert abs(found.mean() - level) < 0.03 * deviation
    assert found.min() < 0 or level >= 1e-3, "negative noise is kept"


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_clipping_leaves_no_seam(weighting: Weighting) -> None:
    """A ramp, the gain of the bright frame wrong by 3 %: neighbours never differ by more than a hundredth of that."""
    light = np.broadcast_to(np.linspace(0.05, 0.8, 4000), (3, 4, 4000))
    frames = bracket(np.asarray(light), (-2, 0, 2))
    wrong = replace(frames.frames[2].facts, exposure_gain=(0.25 * 1.03,) * 3)
    result = values(merge(changed(frames, 2, replace(frames.frames[2], facts=wrong)), weighting))
    off = np.log(result / light)[0, 0]
    assert off.min() >= -HALF_STEP and off.max() < 0.031 and off[-1] < HALF_STEP < 0.01 < off[0]
    assert np.abs(np.diff(off)).max() < 0.0012


def test_channels_clip_apart() -> None:
    """Where red alone is clipped in a frame, its green and blue still count."""
    light = np.broadcast_to(np.array([0.6, 0.05, 0.02])[:, None, None], (3, 20, 20))
    frames = bracket(np.asarray(light), (-2, 0, 2))
    bright = frames.frames[2]
    spoilt = merge(changed(frames, 2, bright.with_pixels(bright.pixels * 0.5 + 0.5 * (bright.pixels >= 1))))
    found, wanted = values(spoilt)[:, 10, 10], values(merge(frames))[:, 10, 10]
    assert wanted == pytest.approx(light[:, 0, 0], rel=HALF_STEP)
    assert found[0] == pytest.approx(wanted[0]) and (found[1:] < 0.8 * wanted[1:]).all()


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_what_is_clipped_in_all_frames_is_as_bright_as_the_darkest_can_see(weighting: Weighting) -> None:
    light = scene(-8, 0).copy()
    light[:, 40:60, 50:90] = 100.0
    light[0, 80:90, 50:90] = 100.0
    result = merge(bracket(light, (-3, 0, 2)), weighting)
    assert torch.equal(result.masks["clipped"], torch.from_numpy(light > 8))
    assert result.facts.clip_level == (8.0, 8.0, 8.0)
    assert values(result)[light > 8] == pytest.approx(8.0, rel=1e-6)


def test_clip_levels_and_gains_by_channel() -> None:
    """White balance moves the clip level of each channel, and flicker its gain."""
    level, gains = (2.0, 1.0, 1.5), (4.4, 4.0, 3.8)
    light = np.full((3, 20, 20), 50.0)
    frames = []
    for ev, gain in ((-2, gains), (0, (1.0, 1.0, 1.0))):
        frame = expose(light, ev, gain=gain)
        pixels = torch.tensor(level, dtype=torch.float16)[:, None, None].expand(3, 20, 20).contiguous()
        frames.append(replace(frame, pixels=pixels, masks={}, facts=replace(frame.facts, clip_level=level)))
    result = merge(Bracket(tuple(frames)))
    wanted = [a * b for a, b in zip(level, gains, strict=True)]
    assert result.facts.clip_level == pytest.approx(wanted)
    assert values(result)[:, 5, 5] == pytest.approx(wanted, rel=1e-6) and bool(result.masks["clipped"].all())


def test_nothing_is_darker_than_a_frame_that_clips_there() -> None:
    """Something too small to be marked stands before clipped light in the darker frame."""
    light = np.full((3, 40, 40), 3.0)
    light[:, :5] = 1e-5
    frames = bracket(light, (-2, 0, 2), NOISE)
    leaf = frames.frames[0].pixels.clone()
    leaf[:, 20, 20] = 0.01
    found = values(merge(changed(frames, 0, frames.frames[0].with_pixels(leaf))))
    assert found[:, 20, 20] == pytest.approx(1.0) and found[:, 5:].min() >= 0.98
    assert found[:, :5].min() < 0, "and what is not clipped stays as it is"


def test_what_is_raised_so_takes_the_colour_of_the_frame_that_saw_it() -> None:
    """Of a leaf before the sky only some channels contradict it; raised alone they would be a speck of colour."""
    light = np.broadcast_to(np.array([0.6, 2.0, 3.0])[:, None, None], (3, 40, 40))
    frames = bracket(np.asarray(light), (-2, 0), NOISE)
    leaf = frames.frames[0].pixels.clone()
    leaf[:, 20, 20] = 0.01
    found = values(merge(changed(frames, 0, frames.frames[0].with_pixels(leaf))))[:, 20, 20]
    assert found == pytest.approx([0.6, 1.0, 1.0], rel=0.02)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_guessed_values_count_only_where_nothing_else_does(weighting: Weighting) -> None:
    light = np.full((3, 20, 20), 0.1)
    frames = bracket(light, (-2, 0, 2))
    bright = frames.frames[2]
    guessed = torch.zeros(1, 20, 20, dtype=torch.bool)
    guessed[:, :, 10:] = True
    wrong = replace(bright.with_pixels(bright.pixels * 1.5), masks={**bright.masks, "guessed": guessed})
    found = values(merge(changed(frames, 2, wrong), weighting))
    assert found[:, :, 10:] == pytest.approx(0.1, rel=2 * HALF_STEP) and (found[:, :, :10] > 0.11).all()
    everywhere = torch.ones(1, 20, 20, dtype=torch.bool)
    all_guessed = Bracket(tuple(replace(each, masks={**each.masks, "guessed": everywhere}) for each in frames))
    assert values(merge(all_guessed, weighting)) == pytest.approx(values(merge(frames, weighting)), rel=1e-5)


def test_a_frame_that_must_be_clipped_is_not_believed() -> None:
    """JPEG leaves clipped pixels somewhat below the largest code, unmarked; darker frames show the light."""
    light = np.full((3, 40, 50), 3.0)
    frames = bracket(light, (-3, 0, 3))
    for index in (1, 2):
        frame = frames.frames[index]
        noisy = torch.full_like(frame.pixels, 0.9)
        frames = changed(frames, index, replace(frame.with_pixels(noisy), masks={}))
    for weighting in WEIGHTINGS:
        assert np.abs(values(merge(frames, weighting)) / light - 1).max() < 2 * HALF_STEP, weighting


def test_the_blended_edge_of_motion_overrules_nothing() -> None:
    """A bright thing in the darkest frame alone, left out there; beside it the frame hardly counts."""
    light = np.full((3, 80, 120), 0.5)
    frames = bracket(light, (-2, 0, 2))
    dark = frames.frames[0]
    pixels = dark.pixels.clone()
    pixels[:, :, 63:] = 0.9
    motion = torch.zeros(1, 80, 120, dtype=torch.bool)
    motion[:, :, 64:] = True
    frames = changed(frames, 0, replace(dark, pixels=pixels, masks={**dark.masks, "motion": motion}))
    assert values(merge(frames)).max() < 0.6


def test_rebuilt_highlights_do_not_overrule_measured_light() -> None:
    """A frame whose clipped red was rebuilt far too high knows only that red is above where it clips."""
    light = np.full((3, 40, 50), 0.5)
    light[0] = 1.2
    frames = bracket(light, (-2, 0))
    bright = frames.frames[1]
    pixels = bright.pixels.clone()
    pixels[0] = 1.8
    result = values(merge(changed(frames, 1, bright.with_pixels(pixels))))
    assert np.abs(result / light - 1).max() < 2 * HALF_STEP


def test_the_noise_that_is_told_is_that_of_merged_shadows() -> None:
    """Of black, 200 x 200 times, the variance is b; of dim light the slope is a."""
    evs = (-2, 0, 2)
    merged = merge(bracket(np.zeros((1, 200, 200)), evs, NOISE, seed=3))
    assert merged.facts.noise is not None
    a, b = merged.facts.noise[0]
    assert values(merged).var() == pytest.approx(b, rel=0.1)
    assert a == pytest.approx(NOISE[0] / sum(2.0**ev for ev in evs))


@pytest.mark.parametrize("name", ["motion", "outside"])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("index", [0, 2])
def test_masked_parts_have_no_weight(name: str, weighting: Weighting, index: int) -> None:
    """Whatever stands there, the result is the same, there and everywhere."""
    light = scene(-6, -1)
    mask = torch.zeros(1, 120, 160, dtype=torch.bool)
    mask[:, 40:80, 50:100] = True
    results = []
    for junk in (0.0, 0.4, 1.0, float("nan")):
        frames = bracket(light, (-2, 0, 2))
        frame = frames.frames[index]
        pixels = frame.pixels.masked_fill(mask, junk)
        masks = {name: mask, "clipped": pixels >= 1}
        results.append(values(merge(changed(frames, index, replace(frame, pixels=pixels, masks=masks)), weighting)))
    for result in results:
        assert np.array_equal(result, results[0])
        assert np.abs(result / light - 1).max() < 3 * HALF_STEP


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_the_edge_of_a_mask_blends(weighting: Weighting) -> None:
    """The bright frame is off by 10 %, and left out in a part: from there on its weight grows without a step."""
    light = np.full((3, 240, 320), 0.1)
    frames = bracket(light, (-2, 0, 2))
    mask = torch.zeros(1, 240, 320, dtype=torch.bool)
    mask[:, :, :160] = True
    bright = frames.frames[2]
    masked = replace(bright, pixels=bright.pixels * 1.1, masks={**bright.masks, "motion": mask})
    row = values(merge(changed(frames, 2, masked), weighting))[1, 120]
    assert row[:160] == pytest.approx(0.1, rel=HALF_STEP) and row[200:] == pytest.approx(row[-1], rel=1e-5)
    assert row[-1] > 0.103 and (np.diff(row) >= -1e-7).all()
    assert np.diff(row).max() < 0.6 * (row[-1] - row[0])


def test_where_every_frame_is_left_out_the_reference_is_used_where_it_can_be() -> None:
    light = scene(-6, -1)
    everything = {"outside": torch.ones(1, 120, 160, dtype=torch.bool)}
    frames = Bracket(tuple(replace(frame, masks=everything) for frame in bracket(light, (-2, 0, 2))))
    result = values(merge(frames))
    assert np.isfinite(result).all() and (result >= light * (1 - HALF_STEP)).all()


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_hidden_light_is_filled_from_what_is_bright_around(weighting: Weighting) -> None:
    """A person before a bright window in the dark frame, the window clipped in the others."""
    light = np.full((3, 120, 160), 0.1)
    light[:, 20:100, 30:130] = np.linspace(2.0, 3.0, 100)
    frames = bracket(light, (-2, 0, 2))
    person = torch.zeros(1, 120, 160, dtype=torch.bool)
    person[:, 50:100, 60:100] = True
    dark = frames.frames[0]
    masks = {"clipped": dark.masks["clipped"], "motion": person}
    result = merge(
        changed(frames, 0, replace(dark, pixels=dark.pixels.masked_fill(person, 0.02), masks=masks)), weighting
    )
    inside = values(result)[:, 52:98, 64:96]
    assert inside.min() >= 1.0, "at least as bright as the reference can see"
    assert inside == pytest.approx(light[:, 52:98, 64:96], rel=0.2)
    assert bool(result.masks["clipped"][:, 52:98, 64:96].all())
    outside = ~np.isin(np.arange(160), np.arange(52, 108))
    assert values(result)[:, :, outside] == pytest.approx(light[:, :, outside], rel=3 * HALF_STEP)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_values_that_are_no_numbers_have_no_weight(weighting: Weighting) -> None:
    light = scene(-6, -1)
    frames = bracket(light, (-2, 0, 2))
    for index in range(3):
        damaged = frames.frames[index].pixels.clone()
        damaged[0, 10, 10], damaged[1, 20, 20], damaged[2, 30, 30] = torch.nan, torch.inf, -torch.inf
        result = merge(changed(frames, index, frames.frames[index].with_pixels(damaged)), weighting)
        assert np.abs(values(result) / light - 1).max() < 4 * HALF_STEP
        assert result.notes == ("merge.radiance: 3 values are no numbers and left out",)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_what_is_a_number_in_no_frame_is_black_with_a_note(weighting: Weighting) -> None:
    frames = []
    for frame in bracket(scene(-6, -1), (-2, 0, 2)):
        damaged = frame.pixels.clone()
        damaged[1, 20, 20:23] = torch.nan
        frames.append(frame.with_pixels(damaged))
    result = merge(Bracket(tuple(frames)), weighting)
    assert np.isfinite(values(result)).all() and values(result)[1, 20, 20:23] == pytest.approx(0, abs=1e-8)
    assert result.notes == (
        "merge.radiance: 9 values are no numbers and left out, 3 are one in no frame and become black",
    )


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_strips_do_not_show(weighting: Weighting, monkeypatch: pytest.MonkeyPatch) -> None:
    light = scene(-8, 2.4).copy()
    light[:, 100:110, 100:140] = 50
    frames = list(bracket(light, (-2, 0, 2), NOISE))
    mask = torch.zeros(1, 120, 160, dtype=torch.bool)
    mask[:, 20:70, 20:90] = True
    frames[0] = replace(frames[0], masks={**frames[0].masks, "motion": mask})
    frames[2] = replace(frames[2], masks={**frames[2].masks, "outside": mask.flip(2)})
    whole = merge(Bracket(tuple(frames)), weighting)
    for rows in (16, 34):
        monkeypatch.setattr("restorekit.stages.merge.strip_rows", lambda _, rows=rows: rows)
        strips = merge(Bracket(tuple(frames)), weighting)
        assert torch.equal(strips.pixels, whole.pixels)
        assert torch.equal(strips.masks["clipped"], whole.masks["clipped"])


@pytest.mark.parametrize("pattern", ["RGGB", "BGGR", "GRBG", "GBRG"])
def test_every_photosite_of_a_mosaic_has_the_gain_of_its_colour(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    light = scene(-6, -1)
    mosaic = np.empty((1, 120, 160))
    gains = np.ones((1, 120, 160))
    by_colour = (1.2, 1.0, 0.8)
    for site, colour in enumerate(pattern):
        part = slice(site // 2, None, 2), slice(site % 2, None, 2)
        mosaic[0][part] = light["RGB".index(colour)][part]
        gains[0][part] = by_colour["RGB".index(colour)]
    frames = []
    for ev in (-2, 0, 2):
        flicker = gains if ev else np.ones_like(gains)
        pixels = torch.from_numpy(np.minimum(mosaic * 2.0**ev / flicker, 1)).half()
        gain = tuple(2.0**-ev * (c if ev else 1.0) for c in by_colour)
        facts = Facts(clip_level=(1.0,), noise=(NOISE,) * 3, exposure_gain=gain)
        camera = Camera(model="M", cfa=(pattern[:2], pattern[2:]))
        frames.append(Frame(pixels, MOSAIC, masks={"clipped": pixels >= 1}, camera=camera, facts=facts))
    result = merge(Bracket(tuple(frames)))
    assert np.abs(values(result) / mosaic - 1).max() < 2 * HALF_STEP
    assert result.state == MOSAIC and result.camera.cfa == (pattern[:2], pattern[2:])
    assert result.facts.clip_level == pytest.approx((0.8 * 4,)), "the least of its colours"
    monkeypatch.setattr("restorekit.stages.merge.strip_rows", lambda _: 34)
    assert torch.equal(merge(Bracket(tuple(frames))).pixels, result.pixels)


def test_gray_frames() -> None:
    light = scene(-8, 1)[:1]
    result = merge(bracket(light, (-2, 0, 2)))
    assert np.abs(values(result) / light - 1).max() < 2 * HALF_STEP and result.state.layout == "gray"


def test_the_result_is_the_reference_but_for_its_pixels() -> None:
    frames = [
        replace(
            frame,
            camera=Camera(model=f"camera {k}"),
            metadata=Metadata(exif=bytes([k]), orientation=6),
            source=Path(f"{k}.dng"),
            notes=("of all", f"of {k}"),
        )
        for k, frame in enumerate(bracket(scene(-6, -1), (-2, 0, 2)))
    ]
    result = merge(Bracket(tuple(frames)))
    reference = frames[1]
    assert (result.camera, result.metadata, result.exposure, result.source) == (
        reference.camera,
        reference.metadata,
        reference.exposure,
        reference.source,
    )
    assert result.notes == ("of all", "of 0", "of 1", "of 2")
    assert result.state == SCENE and result.state.frames == "single"
    assert result.facts.exposure_gain is None and set(result.masks) == {"clipped"}


def test_storage_types_give_the_same_and_inputs_stay() -> None:
    light = scene(-6, 1.7)
    results = []
    for kind in (torch.float16, torch.float32):
        frames = Bracket(tuple(expose(light, ev, kind=kind) for ev in (-2, 0, 2)))
        before = [(frame.pixels.clone(), frame.masks["clipped"].clone()) for frame in frames]
        results.append(values(merge(frames)))
        for frame, (pixels, clipped) in zip(frames, before, strict=True):
            assert torch.equal(frame.pixels, pixels) and torch.equal(frame.masks["clipped"], clipped)
    assert np.abs(results[0] / results[1] - 1).max() < 3 * HALF_STEP


def test_one_frame_is_refused() -> None:
    frame = replace(expose(scene(-6, -1), 0), source=Path("a.exr"))
    with pytest.raises(
        StageError,
        match=r"^a\.exr: merge\.radiance needs at least two exposures, this is one frame; group its files with ",
    ):
        merge(Bracket((frame,)))
    unknown = replace(frame, facts=replace(frame.facts, exposure_gain=None))
    with pytest.raises(StageError, match=r"a\.exr: .*exposure_gain.*add merge\.exposures before it"):
        merge(Bracket((unknown, unknown)))


@pytest.mark.parametrize("size", [(1, 1), (1, 8), (7, 2)])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_tiny_black_and_broken_pictures(size: tuple[int, int], weighting: Weighting) -> None:
    for value in (0.0, 0.2, 1.0, 5.0, -0.1, float("nan"), float("inf")):
        frames = Bracket(tuple(expose(np.full((3, *size), value), ev) for ev in (-2, 0, 2)))
        found = values(merge(frames, weighting))
        assert np.isfinite(found).all()
        wanted = {0.2: 0.2, 5.0: 4.0, float("inf"): 4.0, 0.0: 0.0}.get(value)
        if wanted is not None:
            assert found == pytest.approx(wanted, rel=HALF_STEP, abs=1e-6)
