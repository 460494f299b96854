from __future__ import annotations

from dataclasses import replace

import colour
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from restorekit.color.transfer import DIFFUSE_WHITE_NITS
from restorekit.errors import StageError
from restorekit.frame import Frame
from restorekit.stage import run
from restorekit.stages.tone import luminance
from restorekit.stages.tone_hdr import Bt2390, Expand
from restorekit.state import ImageState
from restorekit.testing import StageLaws, rgb_frame

SCENE = ImageState("rgb", "scene", "linear", "bt2020")
DISPLAY = ImageState("rgb", "display", "linear", "bt709")
GRAY = SCENE.changed({"layout": "gray"})
PEAK = 1000 / DIFFUSE_WHITE_NITS


class TestBt2390Laws(StageLaws):
    stages = (Bt2390(), Bt2390(peak_nits=300, method="max_rgb"), Bt2390(peak_nits=400, source_peak_nits=2000))
    frames = (rgb_frame(state=SCENE, peak=30.0), rgb_frame(33, 47, state=DISPLAY, peak=8.0))


class TestExpandLaws(StageLaws):
    stages = (Expand(), Expand(peak_nits=4000, knee=0.3, area_percent=50, radius=0.03))
    frames = (rgb_frame(state=DISPLAY), rgb_frame(33, 47, state=DISPLAY.changed({"primaries": "p3"})))


def eetf(nits: NDArray[np.float64], source: float, peak: float) -> NDArray[np.float64]:
    """BT.2390, steps 1 to 4 with black at 0, in absolute light by colour-science's PQ."""
    top = colour.models.eotf_inverse_ST2084(source)
    e1 = np.minimum(colour.models.eotf_inverse_ST2084(nits) / top, 1)
    max_lum = colour.models.eotf_inverse_ST2084(peak) / top
    ks = 1.5 * max_lum - 0.5
    t = (e1 - ks) / (1 - ks)
    p = (2 * t**3 - 3 * t**2 + 1) * ks + (t**3 - 2 * t**2 + t) * (1 - ks) + (-2 * t**3 + 3 * t**2) * max_lum
    return np.asarray(colour.models.eotf_ST2084(np.where(e1 < ks, e1, p) * top))


class TestBt2390:
    @pytest.mark.parametrize(
        ("source", "peak"), [(4000.0, 1000.0), (10000.0, 600.0), (1200.0, 1000.0), (10000.0, 100.0)]
    )
    def test_is_the_reports_curve(self, source: float, peak: float) -> None:
        nits = np.geomspace(0.01, source, 300)
        frame = Frame(torch.from_numpy((nits / DIFFUSE_WHITE_NITS).astype(np.float32))[None, None], GRAY)
        got = Bt2390(source_peak_nits=source, peak_nits=peak)(frame).pixels[0, 0].double().numpy()
        wanted = eetf(nits, source, peak)
        assert np.allclose(got * DIFFUSE_WHITE_NITS, wanted, rtol=2e-3, atol=1e-3)
        assert got[-1] * DIFFUSE_WHITE_NITS == pytest.approx(peak, rel=1e-3)
        assert np.diff(got).min() > -1e-6

    @pytest.mark.parametrize("method", ["luminance", "max_rgb"])
    def test_midtones_stay_and_the_brightest_becomes_the_peak(self, method: str) -> None:
        frame = rgb_frame(state=SCENE)
        frame.pixels[:, :4, :4] = 40.0
        result = Bt2390(method=method)(frame).pixels  # type: ignore[arg-type]
        assert torch.allclose(result[:, 10:], frame.pixels[:, 10:], rtol=2e-3)
        assert float(result.max()) == pytest.approx(PEAK, rel=2e-3)

    def test_a_source_within_the_peak_is_left_as_it_is(self) -> None:
        frame = rgb_frame(state=SCENE, peak=4.0)
        assert torch.equal(Bt2390()(frame).pixels, frame.pixels)

    @pytest.mark.parametrize("method", ["luminance", "max_rgb"])
    def test_bright_colours_stay_in_range_and_keep_their_order(self, method: str) -> None:
        light = 2.0 ** torch.linspace(-6, 10, 300)
        pixels = torch.tensor([0.03, 0.1, 1.0])[:, None, None] * light
        result = Bt2390(method=method)(Frame(pixels, SCENE)).pixels  # type: ignore[arg-type]
        red, green, blue = result
        assert float(result.max()) <= PEAK + 1e-5
        assert bool(((blue >= green) & (green >= red)).all())
        assert float(luminance(result, "bt2020").diff(dim=2).min()) > -1e-4
        if method == "luminance":
            assert float(red[0, -1] / blue[0, -1]) > 0.9
        else:
            assert float(red[0, -1] / blue[0, -1]) == pytest.approx(0.03, rel=1e-3)

    @pytest.mark.parametrize("method", ["luminance", "max_rgb"])
    def test_a_small_light_keeps_its_hue(self, method: str) -> None:
        """Too small to show in means of blocks, it is what the peak is measured by."""
        frame = Frame(torch.full((3, 1100, 1000), 0.3), SCENE)
        orange = frame.pixels[:, 1001, 501] = torch.tensor([16.0, 4.0, 0.8])
        result = Bt2390(method=method)(frame)  # type: ignore[arg-type]
        assert result.facts.measured["tone.bt2390"] == pytest.approx(16 * DIFFUSE_WHITE_NITS)
        self.assert_hue(result.pixels[:, 1001, 501], orange)

    @pytest.mark.parametrize("method", ["luminance", "max_rgb"])
    @pytest.mark.parametrize(("source", "peak"), [(800.0, 1000.0), (1000.0, 1000.0), (1500.0, 1000.0), (20000, 10000)])
    def test_what_exceeds_the_peak_of_the_source_keeps_its_hue(self, method: str, source: float, peak: float) -> None:
        frame = rgb_frame(state=SCENE)
        orange = frame.pixels[:, 2, 3] = torch.tensor([200.0, 50.0, 10.0])
        stage = Bt2390(peak_nits=peak, source_peak_nits=source, method=method)  # type: ignore[arg-type]
        found = stage(frame).pixels
        assert float(found.max()) <= peak / DIFFUSE_WHITE_NITS + 1e-5
        assert torch.allclose(found[:, 10:], frame.pixels[:, 10:], rtol=2e-3)
        self.assert_hue(found[:, 2, 3], orange)

    @staticmethod
    def assert_hue(found: torch.Tensor, light: torch.Tensor) -> None:
        """The channels stand in the order of the light, and their differences in its ratio, or all are equal."""
        red, green, blue = found.tolist()
        share = (light[1] - light[2]) / (light[0] - light[2])
        assert green - blue == pytest.approx(float(share) * (red - blue), abs=1e-3)
        assert red >= green >= blue

    def test_a_pixel_without_a_number_is_no_peak(self) -> None:
        frame = rgb_frame(state=SCENE)
        frame.pixels[:, 0, :2] = torch.tensor([torch.inf, torch.nan])
        result = Bt2390()(frame)
        brightest = float(frame.pixels[frame.pixels.isfinite()].max())
        assert result.facts.measured["tone.bt2390"] == pytest.approx(brightest * DIFFUSE_WHITE_NITS)
        assert torch.equal(result.pixels[:, 1:], frame.pixels[:, 1:])

    def test_bad_values(self) -> None:
        pixels = torch.full((3, 4, 4), 0.2)
        pixels[:, 0, :3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
        result = Bt2390()(Frame(pixels, SCENE)).pixels
        assert bool(result.isfinite().all())
        assert float(result[:, 0, 1].min()) > 0.99 * PEAK
        assert float(result[:, 0, 0].max()) < 1e-6

    @pytest.mark.parametrize("value", [0.0, 1.0])
    @pytest.mark.parametrize("size", [(1, 1), (1, 9), (8, 8)])
    def test_sizes(self, size: tuple[int, int], value: float) -> None:
        frame = Frame(torch.full((3, *size), value), SCENE)
        assert torch.equal(Bt2390()(frame).pixels, frame.pixels)
        assert torch.equal(
            Expand(area_percent=100)(replace(frame, state=DISPLAY)).pixels >= frame.pixels, frame.pixels >= 0
        )

    def test_apply_without_measure_says_so(self) -> None:
        with pytest.raises(StageError, match="has not measured"):
            run(Bt2390(), rgb_frame(state=SCENE))


def picture(noise: float = 0.0) -> Frame:
    """A ramp with a clipped disk in it, display-linear, as an 8-bit file holds it."""
    y, x = np.mgrid[0:240, 0:360]
    ramp = np.clip(x / 300, 0, 1) ** 2.2 * 0.9
    disk = np.hypot(x - 90, y - 120) < 25
    values = np.where(disk, 1.0, ramp) + np.random.default_rng(0).normal(0, noise, x.shape)
    return Frame(torch.from_numpy(np.clip(values, 0, 1).astype(np.float32)).expand(3, -1, -1).clone(), DISPLAY)


class TestExpand:
    def test_midtones_are_unchanged_and_white_is_raised(self) -> None:
        frame = picture()
        result = Expand(area_percent=50)(frame).pixels
        dark = frame.pixels < 0.45
        dark[:, 80:160, 50:130] = False  # near the disk's edge
        assert torch.allclose(result[dark], frame.pixels[dark], rtol=1e-3)
        assert float(result[0, 120, 90]) > 0.7 * PEAK
        assert float(result.max()) <= PEAK
        assert float(Expand(peak_nits=400)(frame).pixels.max()) <= 400 / DIFFUSE_WHITE_NITS + 1e-6

    def test_brighter_stays_brighter(self) -> None:
        row = Expand()(picture()).pixels[0, 220]
        assert float(row.diff().min()) > -1e-3

    def test_clipped_areas_grow_towards_their_middle(self) -> None:
        row = Expand(area_percent=50)(picture()).pixels[0, 120, 68:91]
        assert float(row.diff().min()) > -1e-3
        assert float(row[-1]) > 1.1 * float(row[2])
        assert float(row.diff().max()) < 0.5

    def test_noise_is_not_raised_with_brightness(self) -> None:
        frame = picture(noise=0.008)
        result = Expand()(frame).pixels
        for part in ((slice(200, 230), slice(230, 245)), (slice(200, 230), slice(300, 340))):
            before = frame.pixels[0][part] - picture().pixels[0][part]
            after = result[0][part] / Expand()(picture()).pixels[0][part] - 1
            assert float(after.std()) < 1.4 * float((before / picture().pixels[0][part]).std())

    def test_white_paper_is_raised_less_than_a_lamp(self) -> None:
        paper = Frame(torch.full((3, 90, 120), 0.98), DISPLAY)
        assert 1.0 < float(Expand()(paper).pixels.mean()) < 2.0

    def test_does_not_depend_on_the_size_of_the_image(self) -> None:
        frame = picture()
        large = replace(frame, pixels=frame.pixels.repeat_interleave(5, 1).repeat_interleave(5, 2))
        result = Expand()(large).pixels[:, 2::5, 2::5]
        assert float((result - Expand()(frame).pixels).abs().mean()) < 0.02

    def test_hue_stays_and_bad_values_go(self) -> None:
        frame = picture()
        frame.pixels[1] *= 0.9
        frame.pixels[:, 0, :2] = torch.tensor([torch.nan, torch.inf])
        result = Expand()(frame).pixels
        assert bool(result.isfinite().all())
        assert torch.allclose(result[1, 5:], result[0, 5:] * 0.9, rtol=1e-4)
