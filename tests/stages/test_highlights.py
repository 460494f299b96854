from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from restorekit.errors import StageError
from restorekit.facts import Camera, Facts
from restorekit.frame import Frame
from restorekit.stages.color import WhiteBalance
from restorekit.stages.demosaic import Demosaic
from restorekit.stages.highlights import Highlights
from restorekit.state import ImageState
from restorekit.testing import StageLaws

LIGHT = (0.5, 1.0, 0.65)
WHITEST = 1 / 0.5
XTRANS = ("GBGGRG", "RGRBGB", "GBGGRG", "GRGGBG", "BGBRGR", "GRGGBG")
BAYER = tuple((p[:2], p[2:]) for p in ("RGGB", "BGGR", "GRBG", "GBRG"))
LAYOUTS = (*BAYER, XTRANS, ())


def sensed(balanced: np.ndarray, cfa: tuple[str, ...] = ("RG", "GB"), noise: float = 0.0) -> Frame:
    """What a sensor under LIGHT makes of a scene [3,H,W] in balanced values; no cfa: three full channels."""
    light = balanced * np.array(LIGHT)[:, None, None]
    light = light + np.random.default_rng(0).normal(0, noise, light.shape) if noise else light
    _, height, width = light.shape
    layout = {0: "rgb", 2: "bayer", 6: "xtrans"}[len(cfa)]
    if cfa:
        cell = np.array([["RGB".index(colour) for colour in row] for row in cfa])
        where = np.tile(cell, (-(-height // len(cfa)), -(-width // len(cfa[0]))))[:height, :width]
        light = np.take_along_axis(light, where[None], 0)
    pixels = torch.from_numpy(light.clip(max=1).astype(np.float32))
    facts = Facts(illuminant=LIGHT, clip_level=(1.0,) * len(pixels))
    state = ImageState(layout, "scene", "linear", "camera")  # type: ignore[arg-type]
    return Frame(pixels, state, masks={"clipped": pixels >= 0.999}, camera=Camera(cfa=cfa), facts=facts)


def balanced(frame: Frame) -> Tensor:
    """The picture [3,H,W] in balanced values: X-Trans by the nearest photosites, without LibRaw's rounding."""
    method = "libraw" if frame.state.layout == "xtrans" else "bilinear"
    picture = Demosaic(method=method)(frame).pixels  # type: ignore[arg-type]
    return picture / torch.tensor(LIGHT).view(3, 1, 1)


def ramp(top: float = 3.0, height: int = 42, width: int = 240) -> np.ndarray:
    return np.broadcast_to(np.linspace(0.2, top, width), (3, height, width))


def sun(height: int = 90, width: int = 97) -> np.ndarray:
    """A blown disc with a warm, soft rim on a blue sky."""
    y, x = np.mgrid[0:height, 0:width]
    glow = np.exp(-((y - 40) ** 2 + (x - 50) ** 2) / 300)[None]
    return np.array([0.2, 0.3, 0.5])[:, None, None] + glow * np.array([4.0, 3.0, 2.0])[:, None, None]


class TestLaws(StageLaws):
    stages = (Highlights(), Highlights(method="clip"))
    frames = (
        *(sensed(sun(), cfa, noise=0.01) for cfa in LAYOUTS),
        sensed(sun(47, 51)),
        sensed(sun() * 0.1),
        WhiteBalance()(sensed(sun())),
        *(sensed(np.full((3, height, width), 3.0)) for height, width in ((2, 2), (3, 5), (8, 7))),
    )
    tolerance = 0.0


class TestExposure(StageLaws):
    stages = TestLaws.stages
    frames = tuple(sensed(sun(), cfa) for cfa in LAYOUTS)
    scales_with_exposure = True


@pytest.mark.parametrize("method", ["clip", "reconstruct"])
@pytest.mark.parametrize("cfa", LAYOUTS)
def test_a_clipped_gray_wall_comes_out_neutral(method: str, cfa: tuple[str, ...]) -> None:
    frame = sensed(np.full((3, 48, 54), 5.0), cfa)
    got = balanced(Highlights(method=method)(frame))  # type: ignore[arg-type]
    level = WHITEST if method == "reconstruct" else 1.0
    torch.testing.assert_close(got, torch.full((3, 48, 54), level), rtol=0, atol=2e-3)


@pytest.mark.parametrize("cfa", [*BAYER, ()])
def test_a_gray_ramp_stays_gray_and_reaches_the_highest_level(cfa: tuple[str, ...]) -> None:
    got = balanced(Highlights()(sensed(ramp(), cfa))).numpy()[:, 6:-6, 6:-6]
    want = np.minimum(ramp(), WHITEST)[:, 6:-6, 6:-6]
    assert np.abs(got - want).max() < 0.03, "green and blue follow red until it clips"
    assert (got.max(0) - got.min(0)).max() < 0.03


def test_without_it_the_same_ramp_is_magenta() -> None:
    got = balanced(sensed(ramp())).numpy()[:, 6:-6, 6:-6]
    assert (got.max(0) - got.min(0)).max() > 0.9


def test_colour_of_the_rim_goes_on_inside() -> None:
    """Green clips first on an orange wall that gets brighter; red and the surround tell what it was."""
    colour = np.array([1.3, 0.9, 0.5])[:, None, None]
    scene = ramp(1.6) * colour
    plain = balanced(sensed(scene)).numpy()
    got = balanced(Highlights()(sensed(scene))).numpy()
    clipped = (scene[1] > 1.03) & (scene[0] < 1.95)
    assert np.abs(got - scene)[1][clipped].mean() < 0.25 * np.abs(plain - scene)[1][clipped].mean()


def test_there_are_no_seams() -> None:
    """Where the scene is smooth, the result is: its steps are at most three times the scene's own."""
    scene = sun()
    got = balanced(Highlights()(sensed(scene))).numpy()[:, 4:-4, 4:-4]
    for axis in (1, 2):
        own = np.abs(np.diff(scene, axis=axis)).max()
        assert np.abs(np.diff(got, axis=axis)).max() < 3 * own


def test_only_clipped_values_change_and_only_upwards() -> None:
    frame = sensed(sun(), noise=0.01)
    got = Highlights()(frame)
    change = got.pixels - frame.pixels
    assert (change[~frame.masks["clipped"]] == 0).all() and (change >= 0).all() and (change > 0.05).any()
    assert got.facts is frame.facts
    assert torch.equal(got.masks["clipped"], frame.masks["clipped"])


def test_frame_without_clipping_is_left_as_it_is() -> None:
    frame = sensed(sun() * 0.1)
    assert Highlights()(frame).pixels is frame.pixels


@pytest.mark.parametrize("cfa", LAYOUTS)
def test_before_and_after_white_balance_is_the_same(cfa: tuple[str, ...]) -> None:
    for stage in TestLaws.stages:
        frame = sensed(sun(), cfa)
        first = WhiteBalance()(stage(frame))
        last = stage(WhiteBalance()(frame))
        torch.testing.assert_close(first.pixels, last.pixels, rtol=0, atol=2e-5)
        assert first.facts.clip_level == pytest.approx(last.facts.clip_level)


def test_clip_says_where_it_cut() -> None:
    frame = sensed(ramp())
    got = Highlights(method="clip")(frame)
    assert got.facts.clip_level == pytest.approx((0.5, 1.0, 0.65))
    at_red = got.pixels[0, ::2, ::2]
    assert float(at_red.max()) == 0.5
    assert torch.equal(got.masks["clipped"][0, ::2, ::2], at_red == 0.5)


def test_works_after_demosaicing_too() -> None:
    frame = Demosaic(method="bilinear")(sensed(np.full((3, 40, 44), 5.0)))
    got = Highlights()(frame).pixels / torch.tensor(LIGHT).view(3, 1, 1)
    torch.testing.assert_close(got, torch.full_like(got, WHITEST))


def test_a_small_blown_part_of_a_wide_rgb_picture() -> None:
    """Only a window around it is looked at; it is as in a picture of that part alone."""
    scene = np.full((3, 96, 1600), 0.2)
    scene[:, 40:52, 232:244] = 5.0
    wide, part = (Highlights()(sensed(scene[:, :, left:right], ())).pixels for left, right in ((0, 1600), (128, 352)))
    assert float(wide[1, 46, 238]) > 1.5 and torch.allclose(wide[:, :, 200:280], part[:, :, 72:152], atol=1e-6)


def test_missing_facts_and_masks_are_named() -> None:
    frame = sensed(sun())
    with pytest.raises(StageError, match="illuminant"):
        Highlights()(replace(frame, facts=Facts(clip_level=(1.0,))))
    with pytest.raises(StageError, match=r"raw\.black_level"):
        Highlights()(replace(frame, masks={}))
    with pytest.raises(StageError, match="not positive"):
        Highlights()(replace(frame, facts=replace(frame.facts, illuminant=(0.0, 1.0, 1.0))))
