"""Photographs of a bracket become the light of the scene, whatever curve the camera put on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from restorekit.color.transfer import decode
from restorekit.edge import bridge
from restorekit.engine import process
from restorekit.errors import InputError
from restorekit.facts import Exposure
from restorekit.frame import Bracket, Frame
from restorekit.schema import parse
from restorekit.stages.color import Convert
from restorekit.stages.response import Response
from restorekit.state import SHORTHANDS, ImageState
from restorekit.testing import BracketLaws

Array = NDArray[np.float64]
Curve = Callable[[Array], Array]

SRGB = SHORTHANDS["display-srgb"]
WANTED = SHORTHANDS["scene-linear"].changed({"frames": "bracket"})
EVS = (-2.0, 0.0, 2.0)
WELL_EXPOSED = 25, 230
"""Codes between which a recovered curve must be right."""


def scene(height: int = 180, width: int = 240, seed: int = 1) -> Array:
    """Light ``[H,W,3]`` over 12 stops, smooth at several scales, coloured."""
    random = np.random.default_rng(seed)
    stops = sum(cv2.resize(random.normal(0, 1.6, (n, n, 1)), (width, height)) for n in (4, 9, 25))
    tint = cv2.resize(random.normal(0, 0.4, (6, 6, 3)), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(2.0 ** (np.clip(stops, -5.5, 4.5)[..., None] + tint - 2.5), np.float64)


def srgb(light: Array) -> Array:
    """IEC 61966-2-1, written out."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)


def camera(light: Array) -> Array:
    """sRGB with an S of contrast on it, as cameras add: off by up to half a stop."""
    code = srgb(light)
    return 0.45 * code + 0.55 * code**2 * (3 - 2 * code)


def shot(light: Array, ev: float, curve: Curve, *, known: bool = True, noise: float = 0.004, seed: int = 0) -> Frame:
    """An 8-bit photograph of light ``[H,W,3]``."""
    codes = curve(np.clip(light * 2.0**ev, 0, 1))
    codes = codes + np.random.default_rng(seed).normal(0, noise, codes.shape)
    pixels = torch.from_numpy(np.rint(codes.clip(0, 1) * 255).astype(np.uint8)).permute(2, 0, 1).contiguous()
    return Frame(pixels, SRGB, exposure=Exposure(time_s=0.01 * 2.0**ev, iso=100) if known else Exposure())


@cache
def bracket(curve: Curve, *, known: bool = True, shift: int = 0) -> Bracket:
    """Three shots two stops apart; ``shift`` px between one and the next."""
    light = scene()
    views = [light[shift * k : 160 + shift * k, shift * k : 210 + shift * k] for k in range(3)]
    return Bracket(
        tuple(shot(view, ev, curve, known=known, seed=k) for k, (view, ev) in enumerate(zip(views, EVS, strict=True)))
    )


@cache
def run(frames: Bracket, **parameters: object) -> Bracket:
    result = Response(**parameters).run(frames)  # type: ignore[arg-type]
    assert isinstance(result, Bracket)
    return result


def off_ev(found: Frame, codes: Frame, curve: Curve) -> Array:
    """By how many stops light is wrong at every well exposed code, one common factor left out."""
    levels = np.arange(*WELL_EXPOSED)
    dense = np.linspace(0, 1, 20001)
    truth = np.interp(levels / 255, curve(dense), dense)
    measured = np.array(
        [found.pixels[codes.pixels == int(level)].float().mean().item() for level in levels], dtype=np.float64
    )
    seen = np.isfinite(measured)
    assert seen.mean() > 0.95, "the frame shows nearly all codes"
    error = np.log2(measured[seen] / truth[seen])
    return np.asarray(error - np.median(error), np.float64)


def told(frames: Bracket) -> str:
    return "; ".join(frames.reference.notes)


@pytest.mark.parametrize("kind", [torch.uint8, torch.uint16, torch.float32])
def test_srgb_codes_are_decoded_exactly(kind: torch.dtype) -> None:
    """Every value of the type, up to what half floats hold."""
    most = {torch.uint8: 255, torch.uint16: 65535}.get(kind, 1)
    ramp = torch.linspace(0, 1, 256 * 257, dtype=torch.float64).mul(most)
    codes = (ramp.round() if most > 1 else ramp).to(kind).reshape(1, 256, 257).expand(3, -1, -1).contiguous()
    result = run(Bracket((Frame(codes, SRGB), Frame(codes.clone(), SRGB))))
    wanted = decode(codes.double() / most, "srgb")
    for frame in result:
        assert frame.pixels.dtype == torch.float16
        assert torch.allclose(frame.pixels.double(), wanted, rtol=2**-11 + 1e-6, atol=2**-24)
        assert float(frame.pixels.max()) == 1.0 and float(frame.pixels.min()) == 0.0
        assert not frame.notes


def test_srgb_frames_keep_the_curve_of_their_file() -> None:
    frames = bracket(srgb)
    for found, frame in zip(run(frames), frames, strict=True):
        assert torch.allclose(found.pixels.float(), decode(frame.as_float().pixels, "srgb"), rtol=1e-3, atol=1e-6)
        assert not found.notes


def test_a_camera_curve_is_recovered_from_known_exposures() -> None:
    frames = bracket(camera)
    result = run(frames)
    for found, codes in zip(result, frames, strict=True):
        assert np.abs(off_ev(found, codes, camera)).max() < 0.1
        assert np.abs(off_ev(run(frames, curve="srgb").reference, frames.reference, camera)).max() > 0.3
    assert "do not follow srgb" in told(result) and "camera's curve was recovered" in told(result)
    assert "guess" not in told(result)
    assert not result.frames[0].notes and not result.frames[2].notes, "it is said once"


def test_frames_need_not_be_aligned() -> None:
    frames = bracket(camera, shift=9)
    result = run(frames)
    for found, codes in zip(result, frames, strict=True):
        assert np.abs(off_ev(found, codes, camera)).max() < 0.15


def test_the_curve_of_sixteen_bits_and_of_floats_is_the_same() -> None:
    frames = bracket(camera)
    wanted = run(frames).reference.pixels.float()
    deep = Bracket(tuple(replace(f, pixels=(f.pixels.int() * 257).to(torch.uint16)) for f in frames))
    floats = Bracket(tuple(f.as_float() for f in frames))
    for other in (deep, floats):
        assert torch.allclose(run(other).reference.pixels.float(), wanted, rtol=0.01, atol=1e-5)


def test_of_unknown_exposures_the_shape_shows() -> None:
    """The ratio between two frames is the same at all levels: what merging needs."""
    frames = bracket(camera, known=False)

    def uneven(curve: str) -> float:
        dark, bright = (frame.pixels.float() for frame in run(frames, curve=curve).frames[:2])
        codes = frames.reference.pixels
        steps = [
            float((bright[here] / dark[here]).log2().median())
            for low in range(28, 236, 16)
            if (here := (codes >= low) & (codes < low + 16) & (dark > 0)).sum() > 50
        ]
        return max(steps) - min(steps)

    assert uneven("recover") < 0.1 < 0.4 < uneven("srgb")
    assert "its contrast is a guess" in told(run(frames, curve="recover"))


@pytest.mark.parametrize("times", [(1 / 800, 1 / 100, 1 / 25), (1 / 400, 1 / 50, 1 / 25), (1 / 400, 1 / 100, 1 / 12)])
def test_files_that_tell_wrong_exposures_make_no_curve(times: tuple[float, ...]) -> None:
    """One of them is wrong by a stop; merge.exposures finds it out, given the light of the scene."""
    wrong = [
        replace(frame, exposure=replace(frame.exposure, time_s=time))
        for frame, time in zip(bracket(srgb), times, strict=True)
    ]
    result = run(Bracket(tuple(wrong)))
    assert not told(result)
    assert torch.allclose(result.reference.pixels.float(), decode(wrong[1].as_float().pixels, "srgb"), rtol=1e-3)


def test_exposures_that_no_curve_fits_are_left_aside() -> None:
    """The times of the darkest and the brightest shot exchanged: the shape is found as if nothing were known."""
    frames = bracket(camera).frames
    times = [frame.exposure for frame in frames]
    wrong = run(Bracket(tuple(replace(f, exposure=e) for f, e in zip(frames, times[::-1], strict=True))))
    unknown = run(bracket(camera, known=False))
    assert "no curve fits" in told(wrong)
    for one, other in zip(wrong, unknown, strict=True):
        assert torch.equal(one.pixels, other.pixels)


def test_more_contrast_is_a_curve_too() -> None:
    """A power of sRGB has its shape; all frames agree about the contrast."""

    def contrasty(light: Array) -> Array:
        return np.asarray(srgb(light) ** 1.3)

    frames = bracket(contrasty)
    assert np.abs(off_ev(run(frames).reference, frames.reference, contrasty)).max() < 0.1


def test_gray_pictures() -> None:
    gray = [replace(f, pixels=f.pixels[1:2], state=SRGB.changed({"layout": "gray"})) for f in bracket(camera)]
    result = run(Bracket(tuple(gray)))
    assert np.abs(off_ev(result.reference, gray[1], camera)).max() < 0.15
    assert result.reference.facts.clip_level == (1.0,) and result.reference.masks["clipped"].shape[0] == 1


def test_one_curve_serves_all_channels() -> None:
    light = scene().mean(2, keepdims=True).repeat(3, 2)
    frames = Bracket(tuple(shot(light, ev, camera, noise=0) for ev in EVS))
    result = run(frames)
    assert "recovered" in told(result)
    assert all(torch.equal(frame.pixels[0], frame.pixels[channel]) for frame in result for channel in (1, 2))


def test_more_code_is_never_less_light() -> None:
    random = np.random.default_rng(5)
    noise = [Frame(torch.from_numpy(random.integers(0, 256, (3, 60, 60), np.uint8)), SRGB) for _ in range(3)]
    for frames in (bracket(camera), bracket(camera, known=False), Bracket(tuple(noise))):
        for found, codes in zip(run(frames, curve="recover"), frames, strict=True):
            order = codes.pixels.flatten().int().argsort()
            assert bool((found.pixels.flatten()[order].float().diff() >= 0).all())
            assert bool(found.pixels.isfinite().all())


def test_the_file_is_believed_where_it_is_told_to_be() -> None:
    frames = bracket(camera)
    result = run(frames, curve="srgb")
    assert not told(result)
    assert torch.allclose(
        result.reference.pixels.float(), decode(frames.reference.as_float().pixels, "srgb"), rtol=1e-3
    )


def test_a_curve_that_cannot_be_recovered_is_said() -> None:
    one = shot(scene(), 0, camera)
    result = run(Bracket((one, one)), curve="recover")
    assert "do not differ enough" in told(result)
    black = replace(one, pixels=torch.zeros_like(one.pixels))
    for same in (Bracket((black, black)), Bracket((one, black))):
        found = run(same, curve="recover")
        assert "do not differ enough" in told(found) and bool(found.reference.pixels.isfinite().all())


def test_what_is_clipped_is_marked_and_what_is_known_of_noise_told() -> None:
    codes = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16).expand(3, -1, -1).clone()
    codes[1:] = 100
    result = run(Bracket((Frame(codes, SRGB), Frame(codes, SRGB)))).reference
    assert torch.equal(result.masks["clipped"], codes >= 252)  # 0.985 * 255 = 251.2, channel by channel
    assert result.facts.clip_level == (1.0, 1.0, 1.0)
    assert result.facts.noise is not None and len(result.facts.noise) == 3
    a, b = result.facts.noise[0]
    assert b == pytest.approx((1.2 / 255 / 12.92) ** 2, rel=0.02), "1.2 codes on the straight part of sRGB"
    slope = 2.4 / 1.055 * ((0.4845 + 0.055) / 1.055) ** 1.4  # of the curve at 0.2, whose code is 0.4845
    assert a * 0.2 + b == pytest.approx((1.2 / 255 * slope) ** 2, rel=0.02)
    assert result.state == SRGB.changed({"reference": "scene", "transfer": "linear"})


def test_the_last_codes_of_a_recovered_curve_are_guessed() -> None:
    photos = bracket(camera)
    for found, codes in zip(run(photos), photos, strict=True):
        assert torch.equal(found.masks["guessed"], (codes.pixels >= 240).any(0, keepdim=True))  # 0.94 * 255 = 239.7
        assert torch.equal(found.masks["clipped"], (codes.pixels >= 252).any(0).expand(3, -1, -1))
    assert "guessed" not in run(bracket(srgb)).reference.masks


def test_values_that_are_no_numbers_stay_within_bounds() -> None:
    floats = [frame.as_float() for frame in bracket(camera)]
    damaged = floats[1].pixels.clone()
    damaged[0, 5, 5], damaged[1, 6, 6], damaged[2, 7, 7] = torch.nan, torch.inf, -torch.inf
    result = run(Bracket((floats[0], floats[1].with_pixels(damaged), floats[2])), curve="recover")
    good = torch.ones_like(damaged, dtype=torch.bool)
    good[:, 5:8, 5:8] = False
    wanted = run(Bracket(tuple(floats)), curve="recover").reference.pixels
    assert torch.allclose(result.reference.pixels[good].float(), wanted[good].float(), rtol=0.01)
    assert bool(result.reference.pixels.isfinite().all())


@pytest.mark.parametrize("size", [(1, 1), (1, 8), (8, 1), (3, 2)])
def test_tiny_pictures(size: tuple[int, int]) -> None:
    frames = Bracket(tuple(Frame(torch.full((3, *size), code, dtype=torch.uint8), SRGB) for code in (10, 40, 160)))
    assert all(bool(frame.pixels.isfinite().all()) for frame in run(frames, curve="recover"))


class TestLaws(BracketLaws):
    stages = (Response(), Response(curve="srgb", to="bt2020"))
    brackets = (bracket(camera),)


def test_strips_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = bracket(camera)
    whole = run(frames).reference
    monkeypatch.setattr("restorekit.stages.response.strip_rows", lambda _: 16)
    strips = run(Bracket(frames.frames)).reference
    assert torch.equal(whole.pixels, strips.pixels) and torch.equal(whole.masks["clipped"], strips.masks["clipped"])


@pytest.mark.parametrize("curve", ["srgb", "recover"])
def test_other_primaries_are_what_converting_gives(curve: str) -> None:
    """In one pass; what any channel clipped is then clipped in all of them."""
    frames = bracket(camera)
    for mixed, own in zip(run(frames, curve=curve, to="bt2020"), run(frames, curve=curve), strict=True):
        wanted = Convert(to="bt2020")(own)
        assert torch.allclose(mixed.pixels.float(), wanted.pixels, rtol=2e-3, atol=1e-4)
        assert mixed.state == wanted.state
        assert (mixed.facts.noise, mixed.facts.clip_level) == (wanted.facts.noise, wanted.facts.clip_level)
        assert torch.equal(mixed.masks["clipped"][0], own.masks["clipped"].any(0))
        assert mixed.pixels.dtype == torch.float16


COLOR_SPACES = {
    "srgb": SRGB,
    "p3": SRGB.changed({"primaries": "p3"}),
    "adobe-rgb": SRGB.changed({"primaries": "adobe-rgb", "transfer": "gamma"}),
}


@pytest.mark.parametrize("have", COLOR_SPACES.values(), ids=COLOR_SPACES)
def test_photos_meet_pipelines_of_scene_light_through_it(have: ImageState) -> None:
    steps = bridge(have.changed({"frames": "bracket"}), WANTED, "a.jpg")
    assert steps[0].id == "edge.merge.response"
    state = have.changed({"frames": "bracket"})
    for step in steps:
        state = step.stage.emits(state)
    assert state == WANTED


def test_it_is_not_put_where_photos_are_wanted() -> None:
    photos = SRGB.changed({"frames": "bracket"})
    assert bridge(photos, photos, "a.jpg") == ()
    with pytest.raises(InputError, match=r"a\.jpg: the pipeline starts from scene-referred images"):
        bridge(SRGB, WANTED.changed({"frames": "single"}), "a.jpg")


@pytest.mark.parametrize("transfer", ["pq", "hlg"])
def test_hdr_encodings_are_refused(transfer: str) -> None:
    have = SRGB.changed({"frames": "bracket", "transfer": transfer, "primaries": "bt2020"})
    with pytest.raises(InputError, match=r"^a\.avif: is .*no scene light can be found; use RAW, EXR or sRGB files$"):
        bridge(have, WANTED, "a.avif")


@pytest.mark.parametrize("name", COLOR_SPACES)
def test_colours_arrive_in_the_space_the_pipeline_wants(name: str) -> None:
    """A gray and a red of the file's space, merged to linear Rec. 2020, by the primaries of the standards."""
    xy = {
        "srgb": ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)),
        "p3": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
        "adobe-rgb": ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)),
        "bt2020": ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    }

    def to_xyz(space: str) -> Array:
        columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in xy[space]]).T
        white = np.array((0.3127 / 0.3290, 1, (1 - 0.3127 - 0.3290) / 0.3290))
        return np.asarray(columns * np.linalg.solve(columns, white), np.float64)

    colors = np.array([(0.2, 0.2, 0.2), (0.4, 0.02, 0.05)])
    exponent = 1 / 2.2
    frames = []
    for ev in (-1.0, 0.0, 1.0):
        light = colors * 2.0**ev
        codes = light**exponent if name == "adobe-rgb" else srgb(light)
        pixels = torch.from_numpy(codes.T.astype(np.float32)).repeat_interleave(20, 1)[:, None].expand(3, 40, 40)
        frames.append(Frame(pixels.contiguous(), COLOR_SPACES[name], exposure=Exposure(ev_offset=ev)))
    text = (
        "restorekit: 1\nname: t\ninput: {state: scene-linear, frames: bracket}\n"
        "stages: [merge.exposures, merge.radiance]\noutput: {format: exr}\n"
    )
    found = process(parse(text, "t.yaml"), Bracket(tuple(frames))).pixels[:, 20, (5, 35)].numpy().T
    wanted = colors @ np.linalg.solve(to_xyz("bt2020"), to_xyz(name)).T
    assert found == pytest.approx(wanted, abs=5e-4)
