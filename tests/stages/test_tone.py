from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from restorekit.errors import StageError
from restorekit.facts import Camera, Facts
from restorekit.frame import Frame, Region
from restorekit.stage import Stage, run
from restorekit.stages.tone import Curve, Exposure, Filmic, Reinhard, log_average, luminance
from restorekit.state import ImageState
from restorekit.testing import StageLaws, bayer_frame, rgb_frame

SCENE = ImageState("rgb", "scene", "linear", "bt2020")
DISPLAY = ImageState("rgb", "display", "linear", "bt709")
GRAY = SCENE.changed({"layout": "gray"})
CURVES: tuple[Stage, ...] = (
    Filmic(),
    Filmic(keep_hue=0, path_to_white=0),
    Filmic(white_ev=8, contrast=2, keep_hue=1),
    Reinhard(),
    Reinhard(key=0.5, white=2),
    Curve(contrast=0.7),
    Curve(shadows=1, highlights=-1, white=4),
    Curve(contrast=1, shadows=-1, highlights=1),
)
SIZES = ((1, 1), (1, 37), (41, 1), (33, 47))


def gray_ramp(state: ImageState = SCENE, last: float = 20.0) -> Frame:
    values = torch.cat((torch.zeros(1), torch.logspace(-5, math.log10(last), 400)))
    return Frame(values.expand(3 if state.layout == "rgb" else 1, 1, -1).clone(), state)


class TestCurveLaws(StageLaws):
    stages = CURVES
    frames = (rgb_frame(state=SCENE, peak=3.0), rgb_frame(33, 47, state=DISPLAY))


class TestExposureLaws(StageLaws):
    stages = (Exposure(ev=1.3), Exposure())
    frames = (rgb_frame(state=SCENE), bayer_frame())
    scales_with_exposure = True


class TestAutoExposureLaws(StageLaws):
    stages = (Exposure(mode="auto"),)
    frames = (rgb_frame(state=SCENE), rgb_frame(state=DISPLAY), bayer_frame())


@pytest.mark.parametrize("stage", CURVES, ids=str)
class TestEveryCurve:
    def test_neutrals_stay_neutral_in_range_and_in_order(self, stage: Stage) -> None:
        result = stage(gray_ramp())
        red, green, blue = result.pixels
        assert float((red - green).abs().max()) < 1e-6
        assert float((blue - green).abs().max()) < 1e-6
        assert float(result.pixels.min()) >= 0
        assert float(result.pixels.max()) <= 1
        assert float(green.diff().min()) > -1e-6
        assert float(green[0, 0]) < 1e-6
        assert green[0, -1] > 0.9

    def test_gray_frames_are_rendered_like_gray_rgb(self, stage: Stage) -> None:
        of_gray = stage(gray_ramp(GRAY)).pixels
        assert torch.allclose(of_gray[0], stage(gray_ramp()).pixels[1], atol=1e-6)

    def test_colours_stay_in_range(self, stage: Stage) -> None:
        random = np.random.default_rng(5)
        wild = torch.from_numpy((2.0 ** random.uniform(-12, 8, (3, 40, 40))).astype(np.float32))
        wild[0, :4] *= -1
        wild[1, 4:8] = 0
        result = stage(Frame(wild, SCENE)).pixels
        assert bool(result.isfinite().all())
        assert float(result.min()) >= 0
        assert float(result.max()) <= 1

    @pytest.mark.parametrize("size", SIZES)
    def test_sizes_and_constant_images(self, stage: Stage, size: tuple[int, int]) -> None:
        result = stage(Frame(torch.full((3, *size), 0.2), SCENE))
        assert result.pixels.shape == (3, *size)
        assert float(result.pixels.std(unbiased=False)) < 1e-6
        assert result.state == SCENE.changed({"reference": "display"})

    def test_black_stays_black(self, stage: Stage) -> None:
        assert float(stage(Frame(torch.zeros(3, 5, 6), SCENE)).pixels.abs().max()) < 1e-6


def test_luminance() -> None:
    rgb = torch.tensor([0.2, 0.5, 0.9])[:, None, None]
    assert float(luminance(rgb, "bt709")) == pytest.approx(0.2126 * 0.2 + 0.7152 * 0.5 + 0.0722 * 0.9, abs=1e-4)
    assert float(luminance(rgb, "bt2020")) == pytest.approx(0.2627 * 0.2 + 0.6780 * 0.5 + 0.0593 * 0.9, abs=1e-4)
    assert float(luminance(rgb, "camera")) == pytest.approx(0.25 * 0.2 + 0.5 * 0.5 + 0.25 * 0.9)
    assert float(luminance(rgb[2:], "camera")) == pytest.approx(0.9)


class TestExposure:
    def test_fixed_is_a_gain_in_stops(self) -> None:
        frame = replace(rgb_frame(state=SCENE), facts=Facts(clip_level=(1.0, 1.0, 1.0), noise=((1e-3, 1e-5),) * 3))
        result = Exposure(ev=2)(frame)
        assert torch.equal(result.pixels, frame.pixels * 4)
        assert result.facts.scale == 4
        assert result.facts.clip_level == (4.0, 4.0, 4.0)
        assert result.facts.noise == ((4e-3, pytest.approx(16e-5)),) * 3

    def test_the_cameras_baseline_is_added_once_and_to_scenes_only(self) -> None:
        camera = Camera(baseline_exposure_ev=0.5)
        frame = replace(rgb_frame(state=SCENE), camera=camera)
        once = Exposure(ev=0.5)(frame)
        assert torch.allclose(once.pixels, frame.pixels * 2)
        assert torch.equal(Exposure()(once).pixels, once.pixels)
        assert torch.equal(Exposure(baseline=False)(frame).pixels, frame.pixels)
        assert torch.equal(Exposure()(replace(frame, state=DISPLAY)).pixels, frame.pixels)
        assert Exposure(mode="auto")(frame).camera.baseline_exposure_ev == 0.5

    def test_auto_brings_the_log_average_to_middle_gray(self) -> None:
        random = np.random.default_rng(2)
        values = torch.from_numpy((2.0 ** random.normal(-5, 1, (1, 60, 70))).astype(np.float32)).repeat(3, 1, 1)
        for gain in (0.5, 1.0, 4.0):
            result = Exposure(mode="auto", highlights_percent=100)(Frame(values * gain, SCENE))
            assert float(result.pixels.log().mean().exp()) == pytest.approx(0.18, rel=1e-3)
        assert result.facts.scale == pytest.approx(0.18 / float((values * gain).log().mean().exp()), rel=1e-3)

    def test_auto_keeps_its_limits(self) -> None:
        dark = Frame(torch.full((3, 20, 20), 1e-4), SCENE)
        assert Exposure(mode="auto", max_ev=3)(dark).facts.scale == pytest.approx(8)
        bright = Frame(torch.full((3, 20, 20), 100.0), SCENE)
        assert Exposure(mode="auto", min_ev=-2)(bright).facts.scale == pytest.approx(0.25)
        gray = Frame(torch.full((3, 20, 20), 0.09), SCENE)
        assert Exposure(mode="auto", strength=0.5)(gray).facts.scale == pytest.approx(2**0.5)
        assert Exposure(mode="auto", ev=-1)(gray).facts.scale == pytest.approx(1.0)

    def test_auto_protects_highlights(self) -> None:
        pixels = torch.full((3, 100, 100), 0.01)
        pixels[:, :5] = 0.5  # 5 % of the picture
        result = Exposure(mode="auto", highlights_percent=1)(Frame(pixels, DISPLAY))
        assert float(result.pixels.max()) == pytest.approx(1.0, rel=1e-4)
        freely = Exposure(mode="auto", highlights_percent=10)(Frame(pixels, DISPLAY))
        assert float(freely.pixels.max()) > 4

    def test_auto_does_not_count_clipped_parts(self) -> None:
        pixels = torch.full((3, 40, 40), 0.05)
        pixels[:, :10] = 1.0
        clipped = pixels[:1] >= 1
        result = Exposure(mode="auto")(Frame(pixels, SCENE, masks={"clipped": clipped}))
        assert result.facts.scale == pytest.approx(0.18 / 0.05, rel=1e-3)

    def test_auto_measures_a_mosaic_like_the_balanced_picture(self) -> None:
        frame = bayer_frame(64, 64)
        flat = replace(frame, pixels=torch.full((1, 64, 64), 0.05), masks={})
        flat.pixels[0, 0::2, 0::2] *= 0.5
        flat.pixels[0, 1::2, 1::2] *= 0.7  # the illuminant of this frame is 0.5, 1, 0.7
        assert Exposure(mode="auto")(flat).facts.scale == pytest.approx(0.18 / 0.05, rel=1e-3)

    @pytest.mark.parametrize("value", [0.0, 1.0])
    def test_auto_leaves_an_image_without_content(self, value: float) -> None:
        frame = Frame(torch.full((3, 9, 9), value), SCENE, facts=Facts(clip_level=(1.0, 1.0, 1.0)))
        assert torch.equal(Exposure(mode="auto")(frame).pixels, frame.pixels)

    def test_apply_without_measure_says_so(self) -> None:
        with pytest.raises(StageError, match="has not measured"):
            run(Exposure(mode="auto"), rgb_frame(state=SCENE))


class TestCurve:
    def test_default_is_the_identity(self) -> None:
        frame = rgb_frame(state=DISPLAY)
        assert torch.allclose(Curve()(frame).pixels, frame.pixels.clamp(0, 1), atol=1e-6)

    def test_levels(self) -> None:
        frame = Frame(torch.tensor([0.05, 0.1, 0.35, 0.6, 0.7]).expand(3, 1, 5).clone(), DISPLAY)
        result = Curve(black=0.1, white=0.6)(frame)
        assert result.pixels[0, 0].tolist() == pytest.approx([-0.1, 0, 0.5, 1, 1.2], abs=1e-6)
        scene = Curve(black=0.1, white=0.6)(replace(frame, state=SCENE))
        assert scene.pixels[0, 0].tolist() == pytest.approx([0, 0, 0.5, 1, 1], abs=1e-6)

    def test_colours_outside_the_gamut_stay_outside(self) -> None:
        """Display P3's green and blue, in linear sRGB, through the curve of a finished picture."""
        outside = torch.tensor([[-0.2249, 1.0420, -0.0786], [0.0, 0.0, 1.0983]]).T[:, None].contiguous()
        result = Curve(contrast=0.15, shadows=0.15)(Frame(outside, DISPLAY)).pixels
        assert torch.allclose(result, outside, atol=1e-4)

    def test_what_the_sliders_do(self) -> None:
        frame = Frame(torch.tensor([0.02, 0.18, 0.6]).expand(3, 1, 3).clone(), DISPLAY)
        dark, gray, bright = Curve(contrast=0.5)(frame).pixels[0, 0].tolist()
        assert dark < 0.02
        assert gray == pytest.approx(0.18, abs=1e-4)
        assert bright > 0.6
        assert float(Curve(shadows=0.5)(frame).pixels[0, 0, 0]) > 0.025
        assert float(Curve(highlights=-0.5)(frame).pixels[0, 0, 2]) < 0.55

    def test_hue_stays(self) -> None:
        frame = rgb_frame(state=DISPLAY, seed=4)
        result = Curve(contrast=0.8, shadows=0.3)(frame)

        def place_of_the_middle(pixels: torch.Tensor) -> torch.Tensor:
            low, middle, high = pixels.sort(0).values
            return (middle - low) / (high - low)

        before, after = place_of_the_middle(frame.pixels), place_of_the_middle(result.pixels)
        colourful = frame.pixels.amax(0) - frame.pixels.amin(0) > 0.05
        assert torch.allclose(before[colourful], after[colourful], atol=1e-3)
        assert torch.equal(frame.pixels.argmax(0)[colourful], result.pixels.argmax(0)[colourful])

    def test_every_setting_is_monotone(self) -> None:
        ramp = Frame(torch.linspace(0, 1, 2001).expand(3, 1, -1).clone(), DISPLAY)
        for contrast in (-1, 0.3, 1):
            for shadows in (-1, 0, 1):
                for highlights in (-1, 0, 1):
                    result = Curve(contrast=contrast, shadows=shadows, highlights=highlights)(ramp).pixels[0, 0]
                    assert float(result.diff().min()) >= -1e-6
                    assert result[0] == 0
                    assert result[-1] == pytest.approx(1, abs=1e-6)


class TestReinhard:
    def test_is_the_papers_formula(self) -> None:
        frame = gray_ramp()
        y = frame.pixels[0].double()
        result = Reinhard(key=0.36, white=3.0)(frame)
        average = log_average(y)
        assert average is not None
        scaled = 0.36 / average * y
        wanted = (scaled * (1 + scaled / 9) / (1 + scaled)).clamp_max(1)
        assert torch.allclose(result.pixels[0].double(), wanted, atol=1e-5)

    def test_log_average(self) -> None:
        values = torch.tensor([0.1, 1.0, 10.0])
        assert log_average(values) == pytest.approx(1.0, rel=1e-5)
        assert log_average(torch.zeros(4)) is None

    def test_does_not_depend_on_the_size_of_the_image(self) -> None:
        frame = rgb_frame(40, 50, state=SCENE, peak=5)
        larger = replace(frame, pixels=frame.pixels.repeat_interleave(3, 1).repeat_interleave(3, 2))
        assert torch.allclose(Reinhard()(larger).pixels[:, 1::3, 1::3], Reinhard()(frame).pixels, atol=1e-6)

    def test_does_not_depend_on_the_exposure(self) -> None:
        frame = rgb_frame(state=SCENE, peak=5)
        brighter = replace(frame, pixels=frame.pixels * 16)
        assert torch.allclose(Reinhard()(brighter).pixels, Reinhard()(frame).pixels, atol=1e-5)

    def test_the_largest_luminance_becomes_white_by_default(self) -> None:
        frame = gray_ramp()
        assert float(Reinhard()(frame).pixels.max()) == pytest.approx(1.0, abs=1e-5)

    def test_colours_too_bright_keep_luminance_and_are_desaturated(self) -> None:
        pixels = torch.full((3, 4, 4), 0.18)
        pixels[:, 0, 0] = torch.tensor([0.0, 0.0, 30.0])
        result = Reinhard(white=2.0)(Frame(pixels, DISPLAY)).pixels
        blue = result[:, 0, 0]
        assert float(blue[2]) == pytest.approx(1, abs=1e-5)
        assert float(blue[0]) == pytest.approx(float(blue[1]), abs=1e-6)
        assert float(blue[0]) > 0.1


class TestFilmic:
    def value(self, stage: Filmic, scene: float, clip: float | None = None) -> float:
        facts = Facts(clip_level=(clip,) * 3 if clip else None)
        return float(stage(Frame(torch.full((3, 1, 1), scene), SCENE, facts=facts)).pixels[1, 0, 0])

    @pytest.mark.parametrize("contrast", [1.0, 1.25, 2.0, 3.0])
    @pytest.mark.parametrize("white_ev", [2.5, 4.0, 10.0])
    @pytest.mark.parametrize("black_ev", [3.0, 6.0, 12.0])
    def test_goes_through_its_three_points_with_its_contrast(
        self, contrast: float, white_ev: float, black_ev: float
    ) -> None:
        stage = Filmic(middle_gray=0.3, white_ev=white_ev, black_ev=black_ev, contrast=contrast)
        assert self.value(stage, 0.0) == pytest.approx(0, abs=1e-6)
        assert self.value(stage, 0.3) == pytest.approx(0.18, abs=1e-4)
        assert self.value(stage, 0.3 * 2**white_ev) == pytest.approx(1, abs=1e-4)
        assert self.value(stage, 0.3 * 2 ** min(white_ev - 0.5, 4)) < 1
        step = 1.02
        slope = math.log(self.value(stage, 0.3 * step) / self.value(stage, 0.3 / step)) / (2 * math.log(step))
        assert slope == pytest.approx(contrast, abs=0.02)

    def test_white_lies_where_the_sensor_clips(self) -> None:
        assert self.value(Filmic(), 0.999, clip=1.02) < 1
        assert self.value(Filmic(), 2.001, clip=2.0) == 1
        assert self.value(Filmic(), 1.99, clip=2.0) < 1
        assert self.value(Filmic(), 0.18 * 2**4.9) < 1

    def test_a_clipped_sun_is_white_whatever_the_gains(self) -> None:
        clipped = torch.tensor([2.1, 1.0, 1.6])[:, None, None] * 1.02
        for stage in (Filmic(white_ev=2.5), Filmic(white_ev=2.5, keep_hue=1), Filmic(white_ev=2.5, saturation=1.5)):
            result = stage(Frame(clipped, SCENE)).pixels
            assert float(result.min()) > 0.999

    @pytest.mark.parametrize("keep_hue", [0.0, 0.4, 1.0])
    def test_bright_colours_go_smoothly_to_white(self, keep_hue: float) -> None:
        light = 2.0 ** torch.linspace(-4, 14, 200)
        for colour in ([1.0, 0.02, 0.02], [0.03, 1.0, 0.05], [0.02, 0.04, 1.0], [1.0, 0.6, 0.0]):
            pixels = torch.tensor(colour)[:, None, None] * light
            result = Filmic(keep_hue=keep_hue)(Frame(pixels, SCENE)).pixels
            spread = result.amax(0) - result.amin(0)
            assert float(spread[0, -1]) < 0.01
            assert float(result[:, 0, -1].min()) > 0.98
            assert float(result.diff(dim=2).abs().max()) < 0.12  # no jump within 0.09 stops
            assert float(luminance(result, "bt2020").diff(dim=2).min()) > -1e-4

    def test_keep_hue_keeps_the_hexcone_hue_of_colours_in_range(self) -> None:
        colour = torch.tensor([0.4, 0.2, 0.05])[:, None, None]
        kept = Filmic(keep_hue=1)(Frame(colour, SCENE)).pixels.flatten()
        place = (kept[1] - kept[2]) / (kept[0] - kept[2])
        assert float(place) == pytest.approx((0.2 - 0.05) / (0.4 - 0.05), abs=1e-3)

    def test_saturation(self) -> None:
        frame = Frame(torch.tensor([0.3, 0.2, 0.1])[:, None, None], SCENE)
        none, some, more = (Filmic(saturation=s)(frame).pixels.flatten() for s in (0.0, 1.0, 1.4))
        assert float(none.max() - none.min()) < 1e-6
        assert float(more.max() - more.min()) > float(some.max() - some.min())
        assert float(more.mean()) == pytest.approx(float(some.mean()), abs=1e-5)

    def test_infinite_light_is_white(self) -> None:
        pixels = torch.full((3, 1, 2), torch.inf)
        pixels[1:, 0, 1] = 0.0
        result = Filmic()(Frame(pixels, SCENE)).pixels
        assert result[:, 0, 0].tolist() == pytest.approx([1, 1, 1], abs=1e-5)
        assert bool(result.isfinite().all())

    def test_a_strip_needs_no_measure(self) -> None:
        frame = replace(rgb_frame(state=SCENE), region=Region(16, 400))
        assert not Filmic().needs_measure(frame)
        assert torch.equal(run(Filmic(), frame).pixels, Filmic()(replace(frame, region=None)).pixels)
