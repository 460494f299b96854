from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from restorekit.frame import Frame
from restorekit.stages.finish import Dither, Saturation, Sharpen
from restorekit.stages.tone import luminance
from restorekit.state import ImageState
from restorekit.testing import StageLaws, rgb_frame

LINEAR = ImageState("rgb", "display", "linear", "bt709")
ENCODED = ImageState("rgb", "display", "srgb", "bt709")
SCENE = ImageState("rgb", "scene", "linear", "bt2020")


class TestSharpenLaws(StageLaws):
    stages = (Sharpen(), Sharpen(radius_px=3.0, amount=2, threshold=0.02), Sharpen(overshoot=1.0))
    frames = (rgb_frame(state=LINEAR), rgb_frame(67, 35, state=ENCODED))


class TestScenesSharpenAlikeAtAnyExposure(StageLaws):
    stages = (Sharpen(), Saturation(saturation=1.4, vibrance=0.5))
    frames = (rgb_frame(state=SCENE, peak=4.0),)
    scales_with_exposure = True


class TestPointwiseLaws(StageLaws):
    stages = (Saturation(saturation=0.5), Saturation(vibrance=0.6))
    frames = (rgb_frame(state=LINEAR), rgb_frame(state=ENCODED))


class TestDitherLaws(StageLaws):
    stages = (Dither(), Dither(bits=4))
    frames = (rgb_frame(67, 52, state=ENCODED),)


class TestSharpen:
    def test_is_the_unsharp_mask(self) -> None:
        frame = rgb_frame(60, 80, state=LINEAR)
        result = Sharpen(radius_px=1.0, amount=0.8, overshoot=1.0)(frame)
        y = luminance(frame.pixels, "bt709")[0].numpy()
        blurred = cv2.GaussianBlur(y, (7, 7), 1.0, borderType=cv2.BORDER_REPLICATE)
        wanted = torch.from_numpy(0.8 * (y - blurred))
        added = result.pixels - frame.pixels
        inside = (added[0] - wanted).abs() < 1e-5
        assert float(inside.float().mean()) > 0.98  # where the limit to overshoot did not bite
        assert torch.allclose(added[0], added[2], atol=1e-6)

    @pytest.mark.parametrize("overshoot", [0.0, 0.1])
    def test_halos_are_bounded_by_the_neighbourhood(self, overshoot: float) -> None:
        pixels = torch.full((1, 20, 20), 0.2)
        pixels[:, :, 10:] = 0.7
        frame = Frame(pixels, LINEAR.changed({"layout": "gray"}))
        result = Sharpen(amount=5, overshoot=overshoot)(frame).pixels
        assert float(result.max()) == pytest.approx(0.7 + overshoot * 0.5, abs=1e-5)
        assert float(result.min()) == pytest.approx(0.2 - overshoot * 0.5, abs=1e-5)

    def test_edges_become_steeper(self) -> None:
        ramp = torch.tensor([0.2, 0.2, 0.2, 0.3, 0.45, 0.6, 0.7, 0.7, 0.7]).repeat(3, 9, 1)
        result = Sharpen(amount=1)(Frame(ramp, LINEAR)).pixels[0, 4]
        assert float(result[5] - result[3]) > 0.33

    def test_detail_below_the_threshold_stays(self) -> None:
        random = torch.from_numpy(np.random.default_rng(0).uniform(0.49, 0.51, (3, 30, 30)).astype(np.float32))
        frame = Frame(random, ENCODED)
        assert torch.allclose(Sharpen(threshold=0.03)(frame).pixels, random, atol=1e-6)
        assert float((Sharpen()(frame).pixels - random).abs().max()) > 1e-3

    @pytest.mark.parametrize("size", [(1, 1), (1, 30), (2, 3), (31, 1)])
    def test_constant_images_of_any_size_stay(self, size: tuple[int, int]) -> None:
        pixels = torch.full((3, *size), 0.4)
        assert torch.allclose(Sharpen(radius_px=4)(Frame(pixels, LINEAR)).pixels, pixels, atol=1e-6)


class TestSaturation:
    def test_keeps_luminance(self) -> None:
        frame = rgb_frame(state=LINEAR)
        for stage in (Saturation(saturation=0.3), Saturation(saturation=1.8), Saturation(vibrance=0.7)):
            after = luminance(stage(frame).pixels, "bt709")
            assert torch.allclose(after, luminance(frame.pixels, "bt709"), atol=1e-5)

    def test_ends(self) -> None:
        frame = rgb_frame(state=LINEAR)
        gray = Saturation(saturation=0)(frame).pixels
        assert torch.allclose(gray, luminance(frame.pixels, "bt709").expand_as(gray), atol=1e-6)
        assert torch.equal(Saturation()(frame).pixels, frame.pixels)

    def test_vibrance_moves_weak_colours_most(self) -> None:
        weak, strong = torch.tensor([0.5, 0.45, 0.4]), torch.tensor([0.5, 0.1, 0.0])
        pixels = torch.stack((weak, strong), 1)[:, None]
        result = Saturation(vibrance=1.0)(Frame(pixels, LINEAR)).pixels

        def chroma(x: torch.Tensor) -> torch.Tensor:
            return x.amax(0) - x.amin(0)

        growth = (chroma(result) / chroma(pixels))[0]
        assert float(growth[0]) == pytest.approx(1 + 0.4 / 0.5, rel=1e-4)
        assert float(growth[1]) == pytest.approx(1.0, rel=1e-4)


class TestDither:
    def quantised(self, value: float, bits: int = 8) -> torch.Tensor:
        frame = Frame(torch.full((3, 256, 256), value), ENCODED)
        return (Dither(bits=bits)(frame).pixels * (2**bits - 1)).round() - value * (2**bits - 1)

    @pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.8])
    def test_the_mean_survives_rounding_and_the_error_is_even(self, share: float) -> None:
        error = self.quantised((100 + share) / 255)
        assert float(error.mean()) == pytest.approx(0, abs=0.01)
        assert float(error.var()) == pytest.approx(0.25, abs=0.02)  # triangular: 1/6 + 1/12, whatever the signal
        assert float(error.abs().max()) <= 1.5

    def test_small_areas_keep_their_mean(self) -> None:
        error = self.quantised(100.4 / 255)
        means = torch.nn.functional.avg_pool2d(error, 16)
        assert float(means.abs().max()) < 0.25

    def test_channels_get_their_own_noise(self) -> None:
        noise = self.quantised(100.5 / 255).flatten(1).numpy()
        assert np.abs(np.corrcoef(noise) - np.eye(3)).max() < 0.1

    def test_depends_on_the_place_alone(self) -> None:
        frame = rgb_frame(80, 52, state=ENCODED)
        other = replace(frame, pixels=frame.pixels * 0.5)
        first, second = Dither()(frame).pixels - frame.pixels, Dither()(other).pixels - other.pixels
        assert torch.allclose(first, second, atol=1e-6)
