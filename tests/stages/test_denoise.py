from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy import ndimage

from restorekit.errors import StageError
from restorekit.facts import Facts
from restorekit.frame import Frame
from restorekit.stage import Stage, run
from restorekit.stages.denoise import Guided, NlMeans, from_opponent, noise_sigma, opponent
from restorekit.state import ImageState
from restorekit.testing import StageLaws, rgb_frame

ENCODED = ImageState("rgb", "display", "srgb", "bt709")
SCENE = ImageState("rgb", "scene", "linear", "bt2020")
BOTH: tuple[Stage, ...] = (NlMeans(), Guided())


class TestNlMeansLaws(StageLaws):
    stages = (NlMeans(), NlMeans(luma_sigma=0.05, chroma_sigma=0.02, search_radius_px=3, patch_radius_px=1))
    frames = (rgb_frame(63, 40, state=ENCODED), rgb_frame(state=ENCODED.changed({"transfer": "gamma"})))


class TestGuidedLaws(StageLaws):
    stages = (Guided(), Guided(luma_sigma=0.05, chroma_sigma=0.1, radius_px=5))
    frames = (rgb_frame(63, 40, state=ENCODED), rgb_frame(state=SCENE, peak=2.0))


class TestGuidedFollowsExposure(StageLaws):
    stages = (Guided(),)
    frames = (rgb_frame(state=SCENE),)
    scales_with_exposure = True


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * (a - b).square().mean().log10())


def noisy(clean: torch.Tensor, sigma: float) -> torch.Tensor:
    noise = np.random.default_rng(0).normal(0, sigma, tuple(clean.shape)).astype(np.float32)
    return clean + torch.from_numpy(noise)


def test_opponent_space_is_inverted_exactly() -> None:
    rgb = torch.rand(3, 5, 6)
    assert torch.allclose(from_opponent(opponent(rgb)), rgb, atol=1e-6)
    gray = opponent(torch.full((3, 2, 2), 0.3))
    assert torch.allclose(gray[0], torch.full((2, 2), 0.3))
    assert float(gray[1:].abs().max()) < 1e-7


@pytest.mark.parametrize("sigma", [0.002, 0.02, 0.1])
def test_noise_is_measured(sigma: float) -> None:
    y, x = torch.meshgrid(torch.linspace(0, 1, 300), torch.linspace(0, 1, 300), indexing="ij")
    scene = torch.stack((y, x * y, (x > 0.5).float()))
    assert noise_sigma(noisy(scene, sigma)) == pytest.approx((sigma,) * 3, rel=0.06)


def test_noise_of_images_without_an_inside_is_none() -> None:
    assert noise_sigma(torch.rand(3, 2, 9)) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("stage", BOTH, ids=str)
class TestBoth:
    def test_takes_noise_out_and_keeps_edges(self, stage: Stage) -> None:
        clean = torch.full((3, 96, 96), 0.3)
        clean[:, :, 48:] = 0.7
        image = noisy(clean, 0.03)
        result = stage(Frame(image, ENCODED)).pixels
        assert psnr(result, clean) > psnr(image, clean) + 6
        profile = result.mean(1)[:, 46:50]
        assert float((profile[:, 2] - profile[:, 1]).min()) > 0.35

    def test_is_worth_it_on_photographs(self, stage: Stage, shared_data: Path) -> None:
        image = cv2.imread(str(shared_data / "bench" / "kodak24" / "23.png"))
        assert image is not None
        clean = torch.from_numpy(image[150:350, 200:450, ::-1].transpose(2, 0, 1).astype(np.float32) / 255)
        for sigma, gain in ((10 / 255, 6), (25 / 255, 8)):
            dirty = noisy(clean, sigma)
            assert psnr(stage(Frame(dirty, ENCODED)).pixels, clean) > psnr(dirty, clean) + gain

    @pytest.mark.parametrize("size", [(1, 1), (1, 20), (2, 2), (19, 1)])
    def test_constant_images_of_any_size_stay(self, stage: Stage, size: tuple[int, int]) -> None:
        pixels = torch.full((3, *size), 0.4)
        assert torch.allclose(stage(Frame(pixels, ENCODED)).pixels, pixels, atol=1e-4)

    def test_gray(self, stage: Stage) -> None:
        clean = torch.full((1, 64, 64), 0.5)
        image = noisy(clean, 0.02)
        result = stage(Frame(image, ENCODED.changed({"layout": "gray"}))).pixels
        assert psnr(result, clean) > psnr(image, clean) + 6

    def test_apply_without_measure_says_so(self, stage: Stage) -> None:
        with pytest.raises(StageError, match="has not measured"):
            run(stage, rgb_frame(state=ENCODED))


class TestNlMeans:
    def test_keeps_more_than_eight_bits_and_values_out_of_range(self) -> None:
        ramp = torch.linspace(-0.2, 1.3, 64 * 64).reshape(1, 64, 64).repeat(3, 1, 1)
        result = NlMeans(luma_sigma=0.001, chroma_sigma=0.001)(Frame(ramp, ENCODED)).pixels
        assert torch.allclose(result, ramp, atol=2e-3)
        assert len(result[0, 20:40].unique()) > 1000

    def test_luma_and_colour_are_apart(self) -> None:
        frame = Frame(noisy(torch.full((3, 48, 48), 0.5), 0.03), ENCODED)
        result = opponent(NlMeans(strength=0, luma_sigma=0.02, chroma_sigma=0.02)(frame).pixels)
        before = opponent(frame.pixels)
        assert torch.allclose(result[0], before[0], atol=1e-6)
        assert float(result[1].std()) < 0.5 * float(before[1].std())


class TestGuided:
    def test_is_the_guided_filter(self) -> None:
        """Against box filters of SciPy, in double precision."""
        gray = torch.from_numpy(np.random.default_rng(1).random((40, 50)).astype(np.float32))
        frame = Frame(gray[None], ENCODED.changed({"layout": "gray"}))
        sigma, radius = 0.2, 3
        image = gray.double().numpy()

        def box(x: np.ndarray) -> np.ndarray:
            return np.asarray(ndimage.uniform_filter(x, 2 * radius + 1, mode="nearest"))

        mean, variance = box(image), box(image * image) - box(image) ** 2
        slope = variance / (variance + (1.5 * sigma) ** 2)
        wanted = box(slope) * image + box((1 - slope) * mean)
        result = Guided(luma_sigma=sigma, radius_px=radius)(frame).pixels[0].double().numpy()
        inner = np.s_[2 * radius : -2 * radius, 2 * radius : -2 * radius]
        assert np.abs(result - wanted)[inner].max() < 1e-5

    def test_the_noise_model_smooths_bright_parts_as_they_need(self) -> None:
        a = 1e-3
        clean = torch.full((3, 64, 128), 0.02)
        clean[:, :, 64:] = 1.0
        noise = np.random.default_rng(3).normal(0, 1, tuple(clean.shape)).astype(np.float32)
        image = clean + torch.from_numpy(noise) * (a * clean).sqrt()
        frame = Frame(image, SCENE, facts=Facts(noise=((a, 0.0),) * 3))
        assert not Guided().needs_measure(frame)
        result = Guided().apply(frame).pixels
        for part in (np.s_[:, :, 8:56], np.s_[:, :, 72:120]):
            assert float((result - clean)[part].std()) < 0.5 * float((image - clean)[part].std())

    def test_given_noise_overrides_the_model(self) -> None:
        frame = replace(rgb_frame(state=SCENE), facts=Facts(noise=((1.0, 1.0),) * 3))
        stage = Guided(luma_sigma=1e-5, chroma_sigma=1e-5)
        assert torch.allclose(stage(frame).pixels, frame.pixels, atol=1e-3)
