from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.fft
import torch
from numpy.typing import NDArray

from restorekit.frame import Frame
from restorekit.stage import Stage
from restorekit.stages.guided import box_mean, guided
from restorekit.stages.tone_base import WORKING_PIXELS
from restorekit.stages.tone_gradient import Gradient, solve_poisson
from restorekit.stages.tone_laplacian import LocalLaplacian
from restorekit.stages.tone_local import GuidedTone, ReinhardLocal, gaussian
from restorekit.state import ImageState
from restorekit.testing import StageLaws, rgb_frame

SCENE = ImageState("rgb", "scene", "linear", "bt2020")
GRAY = SCENE.changed({"layout": "gray"})
LOCAL: tuple[Stage, ...] = (GuidedTone(), ReinhardLocal(), LocalLaplacian(), Gradient())
HALO_EV = 0.4
"""No rendering of an 8-stop edge overshoots by more than this on either side."""


def lit(height: int, width: int, seed: int = 3) -> Frame:
    """A scene of 14 stops: a dim room with smooth shapes and texture, and a bright window with its own."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / height
    stops = np.sin(5 * x) * np.cos(4 * y) * 1.5 - 5 + random.normal(0, 0.1, (height, width))
    window = (x > 0.4) & (x < 0.8) & (y > 0.2) & (y < 0.6)
    stops = np.where(window, 3 + np.sin(30 * x) + 0.5 * np.cos(25 * y), stops)
    colour = np.stack((1 + 0.2 * np.sin(9 * y), np.ones_like(x), 1 - 0.3 * np.sin(7 * x)))
    return Frame(torch.from_numpy((2.0**stops * colour).astype(np.float32)), SCENE)


def halves(height: int, width: int, shape: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Where the bright part of an edge lies, and what is far from the edge."""
    y, x = np.mgrid[0:height, 0:width]
    distance = {
        "straight": x - 0.503 * width,
        "slanted": x + 0.31 * y - 0.62 * width,
        "round": 0.25 * height - np.hypot(x - width / 2.03, y - height / 2.01),
    }[shape]
    return distance > 0, np.abs(distance) > 0.12 * height


class TestLaws(StageLaws):
    stages = (
        *LOCAL,
        GuidedTone(range_ev=3, detail=2, radius=0.05, edge_ev=1),
        ReinhardLocal(radius=0.03, threshold_ev=0.3, white=4),
        LocalLaplacian(range_ev=2, detail=0.6, edge_ev=0.5, saturation=1.2),
        Gradient(strength=0.7, range_ev=3, key=0.3),
    )
    frames = (rgb_frame(state=SCENE, peak=3.0), rgb_frame(33, 47, state=SCENE.changed({"reference": "display"})))


@pytest.mark.parametrize("stage", LOCAL, ids=lambda stage: stage.spec.name)
class TestEveryOperator:
    @pytest.mark.parametrize("shape", ["straight", "slanted", "round"])
    @pytest.mark.parametrize("size", [(300, 400), (1300, 1800)], ids=["working size", "larger"])
    def test_no_halo_along_an_edge_of_eight_stops(self, stage: Stage, shape: str, size: tuple[int, int]) -> None:
        assert (size[0] * size[1] > WORKING_PIXELS) == (size[0] > 1000)
        bright, far = halves(*size, shape)
        pixels = torch.from_numpy(np.where(bright, 1.0, 2.0**-8).astype(np.float32))[None]
        result = stage(Frame(pixels, GRAY)).pixels[0].log2().numpy()
        high, low = np.median(result[bright & far]), np.median(result[~bright & far])
        assert 3 < high - low < 7.5, "it is compressed, and still an edge"
        assert float(result[bright].max() - high) < HALO_EV
        assert float(low - result[~bright].min()) < HALO_EV

    def test_range_is_compressed_and_the_window_shows(self, stage: Stage) -> None:
        frame = lit(200, 260)
        result = stage(frame).pixels.mean(0)
        window, room = result[45:115, 85:155], result[130:, :]
        assert float((window < 0.98).float().mean()) > 0.9
        assert float(room.median()) > 0.01
        assert float(window.median() / room.median()) < 100 < 2**8
        assert float(window.std() / window.mean()) > 0.05

    def test_does_not_depend_on_the_scale_of_values(self, stage: Stage) -> None:
        frame = lit(120, 150)
        result = stage(frame).pixels
        for factor in (4.0, 1e-3):
            other = stage(replace(frame, pixels=frame.pixels * factor)).pixels
            assert torch.allclose(other, result, atol=2e-4)

    def test_does_not_depend_on_the_size_of_the_image(self, stage: Stage) -> None:
        frame = lit(900, 1300)
        twice = replace(frame, pixels=frame.pixels.repeat_interleave(2, 1).repeat_interleave(2, 2))
        small, large = stage(frame).pixels, stage(twice).pixels[:, ::2, ::2]
        assert float((large - small).abs().mean()) < 0.01
        assert float((large - small).abs().flatten().kthvalue(int(0.99 * small.numel())).values) < 0.06

    def test_radii_follow_the_size_of_the_image(self, stage: Stage) -> None:
        frame = lit(420, 580)
        twice = replace(frame, pixels=frame.pixels.repeat_interleave(2, 1).repeat_interleave(2, 2))
        assert float((stage(twice).pixels[:, ::2, ::2] - stage(frame).pixels).abs().mean()) < 0.02

    def test_gray_frames_are_rendered_like_gray_rgb(self, stage: Stage) -> None:
        gray = lit(60, 80).pixels[:1]
        of_rgb = stage(Frame(gray.expand(3, -1, -1).clone(), SCENE)).pixels
        assert float((of_rgb.amax(0) - of_rgb.amin(0)).max()) < 1e-5
        assert torch.allclose(stage(Frame(gray, GRAY)).pixels[0], of_rgb[1], atol=1e-3)

    @pytest.mark.parametrize("size", [(1, 1), (1, 37), (41, 1), (2, 2), (7, 8)])
    @pytest.mark.parametrize("value", [0.0, 0.2, 1e-7])
    def test_sizes_and_constant_images(self, stage: Stage, size: tuple[int, int], value: float) -> None:
        result = stage(Frame(torch.full((3, *size), value), SCENE)).pixels
        assert result.shape == (3, *size)
        assert float(result.std(unbiased=False)) < 1e-5
        assert float(result.mean()) == pytest.approx(0.18 if value else 0.0, abs=0.05)

    def test_bad_values_and_black(self, stage: Stage) -> None:
        frame = lit(80, 90)
        pixels = frame.pixels.clone()
        pixels[:, :9] = 0
        pixels[:, 10, :3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
        pixels[0, 20:22] *= -1
        result = stage(replace(frame, pixels=pixels)).pixels
        assert bool(result.isfinite().all())
        assert float(result.min()) >= 0 and float(result.max()) <= 1
        assert float(result[:, :9].max()) < 1e-8
        assert float(result[:, 10, 1].min()) > 0.99

    def test_bright_colours_turn_white_and_keep_their_hue_on_the_way(self, stage: Stage) -> None:
        frame = lit(100, 120)
        frame.pixels[:, 40:44] = torch.tensor([0.02, 0.05, 1.0])[:, None, None] * 2.0 ** torch.linspace(-8, 14, 120)
        red, green, blue = stage(frame).pixels[:, 42]
        assert float(torch.stack((red, green, blue))[:, -1].min()) > 0.9
        assert bool(((blue >= green - 1e-6) & (green >= red - 1e-6)).all())
        assert float(torch.stack((red, green, blue)).diff(dim=1).abs().max()) < 0.35


class TestGuided:
    def test_box_mean_of_an_impulse(self) -> None:
        plane = torch.zeros(9, 9)
        plane[4, 4] = 25.0
        means = box_mean(plane, 2)
        assert torch.equal(means.nonzero().amin(0), torch.tensor([2, 2]))
        assert torch.allclose(means[2:7, 2:7], torch.ones(5, 5))

    def test_smooths_below_epsilon_and_keeps_edges_above(self) -> None:
        noise = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (80, 80)).astype(np.float32))
        noise[:, 40:] += 8
        smooth = guided(noise, 5, 0.5**2)
        assert float(smooth[:, :30].std()) < 0.02
        assert abs(float(smooth[:, 38].mean())) < 0.1 and abs(float(smooth[:, 41].mean()) - 8) < 0.1


class TestGaussian:
    @pytest.mark.parametrize("sigma", [0.8, 2.0, 6.0])
    def test_has_its_sigma(self, sigma: float) -> None:
        plane = torch.zeros(61, 61)
        plane[30, 30] = 1
        blurred = gaussian(plane, sigma)
        offsets = torch.arange(61) - 30.0
        assert float(blurred.sum()) == pytest.approx(1, abs=1e-4)
        assert float((blurred.sum(0) * offsets**2).sum()) == pytest.approx(sigma**2, rel=0.05)


class TestLocalLaplacian:
    def test_without_compression_it_is_the_identity(self) -> None:
        stops = lit(70, 90).pixels[1].log2()
        assert float(LocalLaplacian(range_ev=20).gain(stops).abs().max()) == 0
        nearly = LocalLaplacian(range_ev=20, detail=1.000001).gain(stops)
        assert float(nearly.abs().max()) < 1e-3

    def test_is_near_to_the_filter_without_sampling(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Paris et al.: every coefficient from a copy remapped about its own level, here with dense sampling."""
        stops = lit(64, 64).pixels[1].log2()
        sampled = LocalLaplacian(range_ev=4).gain(stops)
        dense = LocalLaplacian(range_ev=4, edge_ev=1.0)
        monkeypatch.setattr("restorekit.stages.tone_laplacian.SAMPLES_AN_EDGE", 30.0)
        monkeypatch.setattr("restorekit.stages.tone_laplacian.MOST_SAMPLES", 1000)
        exact = dense.gain(stops)
        assert float((sampled - exact).abs().mean()) < 0.1

    def test_detail_below_one_raises_texture(self) -> None:
        stops = lit(64, 64).pixels[1].log2()
        raised, kept = (stops + LocalLaplacian(range_ev=4, detail=d).gain(stops) for d in (0.6, 1.0))
        raised, kept = (float(image[50:, :20].diff(dim=1).abs().mean()) for image in (raised, kept))
        assert raised > 1.2 * kept


class TestGradient:
    def test_poisson_solver(self) -> None:
        """The five-point Laplacian with no flow at the border, and its inverse by SciPy's cosine transform."""
        wanted = np.random.default_rng(1).normal(0, 1, (23, 34))
        wanted -= wanted.mean()
        padded = np.pad(wanted, 1, mode="edge")
        laplacian = padded[2:, 1:-1] + padded[:-2, 1:-1] + padded[1:-1, 2:] + padded[1:-1, :-2] - 4 * wanted
        got = solve_poisson(torch.from_numpy(laplacian)).numpy()
        assert np.allclose(got, wanted, atol=1e-9)
        spectrum = scipy.fft.dctn(laplacian)
        angles = [math.pi * np.arange(n) / n for n in wanted.shape]
        eigenvalues = 2 * np.cos(angles[0])[:, None] + 2 * np.cos(angles[1])[None] - 4
        eigenvalues[0, 0] = np.inf
        assert np.allclose(scipy.fft.idctn(spectrum / eigenvalues), got, atol=1e-9)

    def test_strength_one_only_scales_the_range(self) -> None:
        stops = lit(70, 90).pixels[1].log2()
        result = stops + Gradient(strength=1.0, range_ev=6).gain(stops)
        line = np.polyfit(stops.numpy().ravel(), result.numpy().ravel(), 1)
        assert np.allclose(np.polyval(line, stops.numpy()), result.numpy(), atol=1e-3)

    def test_large_gradients_shrink_more_than_small_ones(self) -> None:
        stops = lit(128, 160).pixels[1].log2()
        result = stops + Gradient(range_ev=4).gain(stops)
        texture = float(result[100:, :30].diff(dim=1).abs().mean() / stops[100:, :30].diff(dim=1).abs().mean())
        edge = float((result[50, 70] - result[50, 20]) / (stops[50, 70] - stops[50, 20]))
        assert texture > 1.2 * edge
