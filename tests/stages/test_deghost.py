"""What moved is marked where it is not to be used, and nothing else is."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from restorekit.color.transfer import encode
from restorekit.facts import Camera, Exposure, Facts
from restorekit.frame import Bracket, Frame
from restorekit.stages.align import Homography
from restorekit.stages.deghost import Deghost
from restorekit.stages.exposures import Exposures
from restorekit.stages.merge import Radiance, Weighting
from restorekit.stages.response import Response
from restorekit.state import SHORTHANDS, ImageState
from restorekit.testing import BracketLaws

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

SCENE, SRGB = SHORTHANDS["scene-linear"], SHORTHANDS["display-srgb"]
EVS = (-2.0, 0.0, 2.0)
HEIGHT, WIDTH, RADIUS = 220, 320, 22
NOISE = (1 / 12000, (4 / 12000) ** 2)
"""Of a sensor of 12,000 electrons with a read noise of 4."""
PLACES = ((90, 60), (110, 160), (130, 260))
"""Centre (y, x) of the moving thing in every shot."""


@cache
def background(seed: int = 1, stops_below_white: float = 3.5) -> Array:
    """Textured light ``[3,H,W]``, with edges."""
    random = np.random.default_rng(seed)
    stops = sum(cv2.resize(random.normal(0, s, (n, n)), (WIDTH, HEIGHT)) for n, s in ((4, 0.7), (12, 0.5), (60, 0.3)))
    stops += 0.7 * (np.indices((HEIGHT, WIDTH)).sum(0) // 40 % 2)
    tint = np.array([1.1, 1.0, 0.7])[:, None, None]
    return np.asarray(2.0 ** (np.clip(stops, -2, 2.5) - stops_below_white) * tint, np.float64)


def disc(place: tuple[int, int], radius: float = RADIUS) -> Mask:
    y, x = np.indices((HEIGHT, WIDTH))
    return np.asarray(np.hypot(y - place[0], x - place[1]) <= radius)


def with_thing(light: Array, shot: int, brightness: float = 2.5) -> Array:
    """A textured disc, so many times brighter than what it hides, where it is in a shot."""
    texture = brightness * light.mean() * (1 + 0.3 * np.sin(np.arange(WIDTH) / 3))
    return np.where(disc(PLACES[shot]), texture, light)


def expose(light: Array, ev: float, seed: int = 0, noise: tuple[float, float] = NOISE) -> Frame:
    exposed = light * 2.0**ev
    deviation = np.sqrt(noise[0] * exposed + noise[1])
    exposed = exposed + np.random.default_rng(seed).normal(0, 1, light.shape) * deviation
    pixels = torch.from_numpy(np.minimum(exposed, 1)).half()
    facts = Facts(clip_level=(1.0,) * 3, noise=(noise,) * 3, exposure_gain=(2.0**-ev,) * 3)
    return Frame(pixels, SCENE, masks={"clipped": pixels >= 1}, exposure=Exposure(ev_offset=ev), facts=facts)


def bracket(lights: list[Array], evs: tuple[float, ...] = EVS) -> Bracket:
    return Bracket(tuple(expose(light, ev, seed) for seed, (light, ev) in enumerate(zip(lights, evs, strict=True))))


def marked(frames: Bracket, **parameters: object) -> Bracket:
    result = Deghost(**parameters).run(frames)  # type: ignore[arg-type]
    assert isinstance(result, Bracket)
    return result


def motion(frame: Frame) -> Mask:
    if "motion" not in frame.masks:
        return np.zeros((frame.height, frame.width), bool)
    mask = frame.masks["motion"]
    assert mask.shape == (1, frame.height, frame.width) and mask.dtype == torch.bool
    return np.asarray(mask[0].numpy())


def moving(brightness: float = 2.5) -> Bracket:
    return bracket([with_thing(background(), shot, brightness) for shot in range(3)])


class TestLaws(BracketLaws):
    stages = (Deghost(), Deghost(threshold=8, margin=1))
    brackets = (moving(), bracket([background()] * 3))


def differs(index: int, brightness: float = 2.5) -> Mask:
    """Where all channels of a shot are at least a stop brighter or darker than in the reference."""
    here, there = (with_thing(background(), shot, brightness) for shot in (index, 1))
    return np.asarray((np.abs(np.log2(here / there)) > 1).all(0))


def as_photos(frames: Bracket) -> Bracket:
    """sRGB pictures of 8 bits whose exposures are not known."""
    photos = []
    for frame in frames:
        codes = encode(frame.pixels.float().clamp(0, 1), "srgb").mul(255).round().to(torch.uint8)
        photos.append(Frame(codes, SRGB))
    return Bracket(tuple(photos))


@pytest.mark.parametrize("brightness", [0.3, 3.0, 6.0])
def test_a_thing_at_three_places_is_marked_where_the_reference_has_it_not(brightness: float) -> None:
    """Each other frame: where it has the thing, and where the reference has it. The reference: nowhere."""
    result = marked(moving(brightness))
    assert not motion(result.reference).any()
    for index in (0, 2):
        found = motion(result.frames[index])
        for place in (PLACES[index], PLACES[1]):
            assert found[disc(place, RADIUS - 1) & differs(index, brightness)].mean() > 0.98
        near = disc(PLACES[index], RADIUS + 14) | disc(PLACES[1], RADIUS + 14)
        assert found[~near].mean() < 0.003
    share = result.reference.facts.measured["merge.deghost moved"]
    assert (
        isinstance(share, tuple)
        and share[1] == 0
        and share[0] == pytest.approx(motion(result.frames[0]).mean(), abs=0.01)
    )


@pytest.mark.parametrize("noise", [NOISE, (1e-3, 1e-5), (4e-3, 2e-4)])
def test_static_noise_is_no_motion(noise: tuple[float, float]) -> None:
    result = marked(Bracket(tuple(expose(background(), ev, k, noise) for k, ev in enumerate(EVS))))
    assert max(motion(frame).mean() for frame in result) < 0.002


def test_a_static_scene_with_highlights_and_shadows_is_no_motion() -> None:
    """Half of it clipped in the brightest frame, a tenth in the reference, much of the dark one in noise."""
    light = background() ** 2 * 40
    assert (light > 1).mean() > 0.1 and (light > 0.25).mean() > 0.4
    assert max(motion(frame).mean() for frame in marked(bracket([light] * 3))) < 0.002


def test_a_rest_of_misalignment_is_no_motion() -> None:
    shifted = []
    for light, dx in ((background(), 0.4), (background(), 0.0), (background(), -0.4)):
        matrix = np.array([(1, 0, dx), (0, 1, dx / 2)])
        planes = [cv2.warpAffine(p, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC, borderMode=1) for p in light]
        shifted.append(np.stack(planes))
    assert max(motion(frame).mean() for frame in marked(bracket(shifted))) < 0.002


@pytest.mark.parametrize("kind", ["vignetting", "flicker", "white balance"])
def test_what_changes_slowly_is_no_motion(kind: str) -> None:
    y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    light = background()
    change = {
        "vignetting": 2.0 ** (-0.3 * (x**2 + y**2)) * np.ones((3, 1, 1)),
        "flicker": 2.0 ** (0.25 * np.sin(2.5 * y)) * np.ones((3, 1, 1)),
        "white balance": np.array([1.15, 1.0, 0.87])[:, None, None],
    }[kind]
    assert max(motion(frame).mean() for frame in marked(bracket([light * change, light, light / change]))) < 0.003


def test_another_response_is_no_motion() -> None:
    """Frames on which a curve was left: a power of 1.1."""
    frames = [
        replace(frame, pixels=frame.pixels.float().clamp_min(0).pow(power).half())
        for frame, power in zip(bracket([background()] * 3), (1.1, 1, 0.93), strict=True)
    ]
    assert max(motion(frame).mean() for frame in marked(Bracket(tuple(frames)))) < 0.002


def test_clipped_light_of_the_reference_comes_from_the_darker_frame() -> None:
    """A static lamp: the darker frame has what the reference has not, and must not be marked."""
    light = np.where(disc((110, 160), 40), 2.0 + 0.4 * np.sin(np.arange(WIDTH) / 5), background())
    result = marked(bracket([light] * 3))
    assert not any(motion(frame)[disc((110, 160), 36)].any() for frame in result)
    merged = Radiance().run(result)
    assert isinstance(merged, Frame)
    inside = torch.from_numpy(disc((110, 160), 36))
    assert merged.pixels[:, inside].numpy() == pytest.approx(light[:, inside.numpy()], rel=0.08)


def test_what_stands_before_clipped_light_is_not_believed() -> None:
    """A dark thing that walks before a bright sky in the dark frame: the reference says that the sky is bright."""
    sky = np.full((3, HEIGHT, WIDTH), 2.5) * (1 + 0.2 * np.sin(np.arange(WIDTH) / 6))
    light = np.where(np.indices((HEIGHT, WIDTH))[0] < 150, sky, background())
    person = disc((80, 160), 25)
    dark = np.where(person, 0.05, light)
    result = marked(bracket([dark, light, light]))
    assert motion(result.frames[0])[person].mean() > 0.99
    assert not motion(result.reference)[person].any()
    merged = Radiance().run(result)
    assert isinstance(merged, Frame)
    inside = torch.from_numpy(person)
    assert float(merged.pixels[:, inside].min()) >= 1.0, "at least as bright as what clips"
    assert float(merged.pixels[:, inside].max()) <= sky.max() * 1.05
    assert bool(merged.masks["clipped"][:, inside].all())


def test_dark_parts_come_from_the_brighter_frame_without_motion_in_it() -> None:
    """What drowns in the noise of the reference is compared with nothing there, and believed of the next brighter."""
    light = background() * np.where(np.indices((HEIGHT, WIDTH))[1] < 140, 1e-3, 1.0)
    result = marked(bracket([light] * 3))
    assert max(motion(frame).mean() for frame in result) < 0.003
    merged = Radiance().run(result)
    assert isinstance(merged, Frame)
    dark = merged.pixels[:, :, 10:120].numpy().mean()
    assert dark == pytest.approx(light[:, :, 10:120].mean(), rel=0.02)


def test_photos_need_no_exposures() -> None:
    result = marked(as_photos(moving()))
    assert not motion(result.reference).any()
    for index in (0, 2):
        found = motion(result.frames[index])
        for place in (PLACES[index], PLACES[1]):
            assert found[disc(place, RADIUS - 1) & differs(index)].mean() > 0.97
        near = disc(PLACES[index], RADIUS + 14) | disc(PLACES[1], RADIUS + 14)
        assert found[~near].mean() < 0.01
    assert result.state == SRGB and result.reference.pixels.dtype == torch.uint8
    assert max(motion(frame).mean() for frame in marked(as_photos(bracket([background()] * 3)))) < 0.005


def test_photos_with_hardly_anything_in_common_have_no_motion() -> None:
    """A dark room with a bright window: what one frame shows is black or clipped in the other."""
    room = np.full((3, 120, 160), 0.002)
    room[:, 30:90, 50:110] = 40 * (1 + 0.3 * np.sin(np.arange(60) / 3))
    noisy = [expose(room, ev, seed) for seed, ev in enumerate((-6, 1))]
    photos = as_photos(Bracket(tuple(noisy)))
    assert not any(motion(frame).any() for frame in marked(photos))


def test_mosaics_are_looked_at_as_they_are() -> None:
    frames = []
    for frame in moving():
        mosaic = frame.pixels[1:2].clone()
        mosaic[:, 0::2, 0::2] = frame.pixels[0, 0::2, 0::2]
        mosaic[:, 1::2, 1::2] = frame.pixels[2, 1::2, 1::2]
        state = ImageState("bayer", "scene", "linear", "camera")
        frames.append(
            replace(frame, pixels=mosaic, masks={"clipped": mosaic >= 1}, state=state, camera=Camera(cfa=("RG", "GB")))
        )
    result = marked(Bracket(tuple(frames)))
    assert not motion(result.reference).any()
    for index in (0, 2):
        found = motion(result.frames[index])
        for place in (PLACES[index], PLACES[1]):
            assert found[disc(place, RADIUS - 2) & differs(index)].mean() > 0.97
        assert found[~(disc(PLACES[index], RADIUS + 14) | disc(PLACES[1], RADIUS + 14))].mean() < 0.005


def test_masks_that_were_there_stay() -> None:
    frames = list(moving())
    known = torch.from_numpy(disc((40, 300), 10))[None]
    frames[0] = replace(frames[0], masks={**frames[0].masks, "motion": known})
    result = marked(Bracket(tuple(frames)))
    assert bool(result.frames[0].masks["motion"][known].all())
    assert motion(result.frames[0])[disc(PLACES[0], RADIUS - 1) & differs(0)].mean() > 0.97, "and what moved is added"
    assert all(torch.equal(out.masks["clipped"], f.masks["clipped"]) for out, f in zip(result, frames, strict=True))
    assert torch.equal(frames[0].masks["motion"], known), "the input is not changed"


def psnr(found: Array, truth: Array, where: Mask) -> float:
    return float(10 * np.log10(1 / np.mean((found - truth)[:, where] ** 2)))


@pytest.mark.parametrize("brightness", [0.3, 2.5])
@pytest.mark.parametrize("weighting", ["poisson", "exposure", "debevec"])
def test_merging_leaves_no_trace_of_the_other_places(brightness: float, weighting: Weighting) -> None:
    """Where something moved the result is as near to the truth as the reference frame alone, or nearer."""
    frames = moving(brightness)
    exposed = Exposures().run(frames)
    assert isinstance(exposed, Bracket)
    merged = Radiance(weighting=weighting).run(marked(exposed))
    assert isinstance(merged, Frame)
    truth = with_thing(background(), 1, brightness)
    found, alone = merged.pixels.double().numpy(), frames.reference.pixels.double().numpy()
    everywhere = disc(PLACES[0], RADIUS + 14) | disc(PLACES[1], RADIUS + 14) | disc(PLACES[2], RADIUS + 14)
    assert psnr(found, truth, everywhere) > psnr(alone, truth, everywhere) - 0.5
    assert psnr(found, truth, ~everywhere) > psnr(alone, truth, ~everywhere)
    deviation = np.sqrt(NOISE[0] * truth + NOISE[1])
    assert (np.abs(found - truth) > 6 * deviation + 0.02 * truth).mean() < 2e-4, "no double edges"


def test_real_people_come_from_the_reference(shared_data: Path) -> None:
    """A man swings his arm before a window, in three photographs: where he moved, the result is the middle one."""
    folder = shared_data / "brackets" / "motion_pingpong"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    frames = []
    for path in sorted(folder.iterdir()):
        with Image.open(path) as file:
            small = np.asarray(file.convert("RGB").resize((480, 270), Image.Resampling.BOX))
        frames.append(Frame(torch.from_numpy(small.copy()).permute(2, 0, 1).contiguous(), SRGB))
    bracket = Bracket.of(frames)
    for stage in (Response(), Homography(border="fill"), Exposures(), Deghost()):
        result = stage.run(bracket)
        assert isinstance(result, Bracket)
        bracket = result
    reference = bracket.reference
    assert not motion(reference).any() and all(
        motion(frame).mean() > 0.02 for frame in (bracket.frames[0], bracket.frames[2])
    )
    moved = cv2.erode(
        (motion(bracket.frames[0]) & motion(bracket.frames[2])).astype(np.uint8), np.ones((3, 3), np.uint8)
    )
    held = reference.pixels.float().numpy()
    alone = (moved > 0) & (held.max(0) < 0.8) & (held.min(0) > 0.01)
    assert alone.sum() > 500
    merged = Radiance().run(bracket)
    assert isinstance(merged, Frame)
    assert np.abs(np.log2(merged.pixels.numpy()[:, alone] / held[:, alone])).max() < 0.01


def test_without_it_there_are_traces() -> None:
    """That the last test can fail: where the brightest shot has the thing, a plain merge is far from the truth."""
    truth, there = with_thing(background(), 1), disc(PLACES[2])
    plain, deghosted = Radiance().run(moving()), Radiance().run(marked(moving()))
    assert isinstance(plain, Frame) and isinstance(deghosted, Frame)
    quality = [psnr(merged.pixels.double().numpy(), truth, there) for merged in (plain, deghosted)]
    assert quality[0] < quality[1] - 15


def test_a_higher_threshold_marks_less_a_wider_margin_more() -> None:
    shares = [motion(marked(moving(1.3), threshold=t).frames[0]).mean() for t in (2, 6, 20, 50)]
    assert shares == sorted(shares, reverse=True) and shares[0] > shares[-1]
    widths = [motion(marked(moving(), margin=m).frames[0]).mean() for m in (0, 0.4, 3)]
    assert widths[0] < widths[1] < widths[2]


def test_more_than_three_frames() -> None:
    """Five frames, the thing in the darkest alone: only that one is marked."""
    lights = [with_thing(background(), 0, 8.0), *[background()] * 4]
    result = marked(bracket(lights, (-3.0, -1.5, 0.0, 1.5, 3.0)))
    assert motion(result.frames[0])[disc(PLACES[0], RADIUS - 1)].mean() > 0.98
    assert max(motion(frame).mean() for frame in result.frames[1:]) < 0.003


def test_gray_frames_and_two_frames() -> None:
    """Of two frames the brighter one is the reference."""
    gray = [
        Frame(
            frame.pixels[1:2],
            SCENE.changed({"layout": "gray"}),
            facts=Facts(clip_level=(1.0,), noise=(NOISE,), exposure_gain=(gain,)),
        )
        for frame, gain in zip(moving(6.0), (4.0, 1.0), strict=False)
    ]
    result = marked(Bracket(tuple(gray)))
    assert not motion(result.frames[1]).any()
    assert min(motion(result.frames[0])[disc(place, RADIUS - 1)].mean() for place in PLACES[:2]) > 0.95


@pytest.mark.parametrize("size", [(1, 1), (1, 8), (5, 3), (8, 8)])
def test_tiny_black_and_broken_pictures(size: tuple[int, int]) -> None:
    for value in (0.0, 0.3, 2.0, -0.1, float("nan"), float("inf")):
        pixels = torch.full((3, *size), value)
        result = marked(Bracket((Frame(pixels, SCENE), Frame(pixels.clone(), SCENE), Frame(pixels.clone(), SCENE))))
        assert not any(motion(frame).any() for frame in result)


def test_values_that_are_no_numbers_change_nothing_elsewhere() -> None:
    frames = list(moving())
    wanted = marked(Bracket(tuple(frames)))
    for index in range(3):
        damaged = frames[index].pixels.clone()
        damaged[0, 20, 200], damaged[1, 21, 210], damaged[2, 30, 220] = torch.nan, torch.inf, -torch.inf
        changed = [*frames[:index], frames[index].with_pixels(damaged), *frames[index + 1 :]]
        result = marked(Bracket(tuple(changed)))
        for frame, known in zip(result, wanted, strict=True):
            differs = motion(frame) != motion(known)
            differs[10:42, 190:232] = False
            assert differs.mean() < 0.001
