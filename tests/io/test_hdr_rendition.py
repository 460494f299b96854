"""The HDR rendition beside a standard picture: equal in the mid-tones, proportional to the scene in the lights."""

from __future__ import annotations

import math

import pytest
import torch

from restorekit.frame import Frame
from restorekit.io.hdr_rendition import (
    FULL_BLEND,
    MIDDLE_GRAY,
    SceneScale,
    luminance,
    rendition,
    scene_scale,
    shoulder,
)
from restorekit.stages.tone import Filmic
from restorekit.state import ImageState

SCENE = ImageState("rgb", "scene", "linear", "bt709")


def gray(values: torch.Tensor) -> torch.Tensor:
    return values.reshape(1, 1, -1).repeat(3, 1, 1)


def toned(scene: torch.Tensor) -> torch.Tensor:
    """The standard picture of a scene by a global curve."""
    return Filmic()(Frame(scene, SCENE)).pixels


def ramp(count: int = 2048, low_ev: float = -8, high_ev: float = 6) -> torch.Tensor:
    return torch.linspace(low_ev, high_ev, count).exp2_()


def test_up_to_the_mid_tones_nothing_changes() -> None:
    random = torch.Generator().manual_seed(1)
    scene = torch.rand(3, 20, 30, generator=random) * 8
    sdr = torch.rand(3, 20, 30, generator=random) * MIDDLE_GRAY
    shown = rendition(sdr, scene, "bt709", SceneScale(1.0, 8.0, 8.0))
    assert torch.equal(shown, sdr)


def test_lights_are_in_proportion_to_the_scene() -> None:
    scene = ramp(low_ev=0, high_ev=1.9)
    sdr = torch.full_like(scene, 0.9)
    shown = rendition(gray(sdr), gray(scene), "bt709", SceneScale(1.0, 8.0, 8.0))
    torch.testing.assert_close(shown, gray(scene), rtol=1e-5, atol=0)


def test_it_is_never_darker_than_the_standard_picture_and_never_above_the_peak() -> None:
    random = torch.Generator().manual_seed(2)
    sdr = torch.rand(3, 40, 50, generator=random)
    scene = torch.rand(3, 40, 50, generator=random).mul_(14).sub_(8).exp2_()
    scale = SceneScale(1.3, 6.0, 80.0)
    shown = rendition(sdr, scene, "bt709", scale)
    assert (luminance(shown, "bt709") - luminance(sdr, "bt709")).min() > -1e-5
    assert shown.min() >= 0
    assert shown.max() <= scale.peak * (1 + 1e-5)


@pytest.mark.parametrize("tint", [(1.0, 1.0, 1.0), (1.0, 0.6, 0.3), (0.2, 0.3, 1.0)])
def test_along_a_tone_curve_luminance_rises_with_the_scene(tint: tuple[float, float, float]) -> None:
    scene = gray(ramp()) * torch.tensor(tint)[:, None, None]
    sdr = toned(scene)
    y = luminance(sdr, "bt709").flatten()
    scale = scene_scale(y, luminance(scene, "bt709").flatten(), float(luminance(scene, "bt709").max()), 3.0)
    shown = luminance(rendition(sdr, scene, "bt709", scale), "bt709").flatten().double()
    assert (shown.diff() > -1e-6 * shown[:-1]).all()
    steps = (shown[1:] / shown[:-1]).log2()
    assert steps.max() < 4 * 14 / len(steps), "no edge shows"


@pytest.mark.parametrize("sdr", [0.05, 0.25, 0.45, 0.9])
def test_at_one_standard_value_luminance_rises_with_the_scene(sdr: float) -> None:
    scene = gray(ramp())
    shown = rendition(torch.full_like(scene, sdr), scene, "bt709", SceneScale(1.0, 8.0, 64.0))
    assert (luminance(shown, "bt709").flatten().diff() >= -1e-6).all()


def test_hue_goes_over_from_one_rendition_to_the_other_without_a_jump() -> None:
    scene = gray(ramp()) * torch.tensor([0.2, 0.5, 1.0])[:, None, None]
    sdr = toned(scene)
    shown = rendition(sdr, scene, "bt709", SceneScale(1.0, 8.0, 64.0))
    shares = shown / shown.sum(0)
    assert shares.diff(dim=2).abs().max() < 0.01
    chosen = (luminance(sdr, "bt709")[0] > FULL_BLEND) & (shown.amax(0) < 4) & (shown.amin(0) > 1e-3)
    assert chosen.any()
    torch.testing.assert_close(shares[:, chosen], (scene / scene.sum(0))[:, chosen], atol=1e-3, rtol=0)


def test_where_the_standard_picture_was_lifted_far_above_the_scene_it_stays() -> None:
    sdr = torch.tensor([0.6, 0.4, 0.3])[:, None, None]
    scene = torch.tensor([0.01, 0.02, 0.05])[:, None, None]
    torch.testing.assert_close(rendition(sdr, scene, "bt709", SceneScale(1.0, 8.0, 8.0)), sdr)


def test_the_shoulder_is_straight_then_bends_to_the_peak() -> None:
    scale = SceneScale(1.0, 8.0, 100.0)
    light = torch.linspace(0, 100, 20001)
    shown = shoulder(light, scale)
    torch.testing.assert_close(shown[light <= 4], light[light <= 4])
    assert shown[-1] == pytest.approx(8.0, rel=1e-5)
    slopes = shown.diff() / light.diff()
    assert slopes.min() >= -1e-4
    assert slopes.diff().abs().max() < 2e-2, "the slope has no jump"
    assert shoulder(torch.tensor([1e4]), scale)[0] == pytest.approx(8.0, rel=1e-5)


def test_without_brighter_light_than_the_headroom_nothing_bends() -> None:
    scale = scene_scale(torch.full((100,), 0.18), torch.full((100,), 0.18), 5.0, 3.0)
    assert (scale.peak, scale.brightest) == (5.0, 5.0)
    light = torch.linspace(0, 5, 100)
    torch.testing.assert_close(shoulder(light, scale), light)


@pytest.mark.parametrize("gain", [0.01, 1.0, 300.0])
def test_the_scale_is_found_whatever_the_exposure_of_the_scene(gain: float) -> None:
    scene = ramp()
    sdr = toned(gray(scene))[0].flatten()
    plain = scene_scale(sdr, scene, 64.0, 3.0)
    scaled = scene_scale(sdr, scene * gain, 64.0 * gain, 3.0)
    assert scaled.exposure * gain == pytest.approx(plain.exposure, rel=1e-4)
    assert scaled.peak == pytest.approx(plain.peak, rel=1e-4) == 8.0
    assert plain.exposure == pytest.approx(1.0, rel=0.1), "filmic keeps middle gray"


def test_outliers_do_not_move_the_scale() -> None:
    scene = torch.full((1000,), 0.2)
    sdr = torch.full((1000,), 0.2)
    scene[:300] = 1e-4
    scene[300:310] = float("inf")
    assert scene_scale(sdr, scene, math.inf, 3.0) == SceneScale(1.0, 8.0, 8.0)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_pictures_without_mid_tones_have_a_scale(value: float) -> None:
    scale = scene_scale(torch.full((9,), value), torch.full((9,), 2.0 * value), 2.0 * value, 3.0)
    assert scale == (SceneScale(0.5, 1.0, 1.0) if value else SceneScale())
