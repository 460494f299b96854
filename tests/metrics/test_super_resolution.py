"""The protocol of super-resolution: each step, and the published numbers of the bicubic baseline."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from restorekit.color.ycbcr import luma
from restorekit.io import read
from restorekit.metrics.psnr import psnr
from restorekit.metrics.ssim import ssim
from restorekit.metrics.super_resolution import (
    Bicubic,
    eight_bit,
    fidelity,
    inside,
    reduced,
    smallest_side,
    whole_multiple,
)
from restorekit.stages.resampling import bicubic, resampled

RNG = torch.Generator().manual_seed(0)


def picture(height: int = 40, width: int = 50) -> Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=RNG)


def noisy(reference: Tensor, sigma: float = 5.0) -> Tensor:
    noise = torch.randn(reference.shape, generator=RNG) * sigma
    return (reference + noise).round().clamp(0, 255).byte()


def luma255(rgb: Tensor) -> Tensor:
    """Luma 16..235 of RGB in 0..1."""
    return luma(rgb, limited=True) * 255


def full_range_luma(rgb: Tensor) -> Tensor:
    """Luma 0..255 of JPEG files and OpenCV, which the field does not measure."""
    return torch.tensordot(torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64), rgb.double(), 1)[None]


class TestLuma:
    def test_values_are_those_of_rgb2ycbcr(self) -> None:
        colors = torch.tensor([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
        expected = [16, 235, 81.481, 144.553, 40.966]
        assert luma255(colors.T[:, None])[0, 0].tolist() == pytest.approx(expected, abs=1e-9)

    def test_full_range_would_score_lower(self) -> None:
        """The same errors weigh 255/219 times as much there: 1.32 dB."""
        reference = picture()
        restored = noisy(reference)
        full = psnr(full_range_luma(reference), full_range_luma(restored), 255.0)
        lost = fidelity(reference, restored, 0).psnr_y - full
        assert lost == pytest.approx(20 * math.log10(255 / 219), abs=1e-3)
        assert lost == pytest.approx(1.32, abs=0.01)


class TestFidelity:
    def test_is_psnr_and_ssim_of_the_inside(self) -> None:
        reference = picture()
        restored = noisy(reference)
        found = fidelity(reference, restored, 3)
        a, b = (luma255(image[:, 3:-3, 3:-3].double() / 255) for image in (reference, restored))
        assert found.psnr_y == pytest.approx(10 * math.log10(255**2 / float((a - b).square().mean())))
        assert found.ssim_y == pytest.approx(ssim(a / 255, b / 255))
        error = (reference[:, 3:-3, 3:-3].double() - restored[:, 3:-3, 3:-3].double()).square().mean()
        assert found.psnr_rgb == pytest.approx(10 * math.log10(255**2 / float(error)))

    def test_the_border_does_not_count_and_what_is_next_to_it_does(self) -> None:
        reference = picture()
        restored = reference.clone()
        restored[:, :2] ^= 255
        restored[:, -2:] ^= 255
        restored[:, :, :2] ^= 255
        restored[:, :, -2:] ^= 255
        equal = fidelity(reference, restored, 2)
        assert (equal.psnr_y, equal.psnr_rgb) == (math.inf, math.inf) and equal.ssim_y == pytest.approx(1)
        restored[:, 2, 2] ^= 255
        assert fidelity(reference, restored, 2).psnr_y < 60

    @pytest.mark.parametrize("scale", [2, 3, 4, 8])
    def test_the_smallest_side_is_enough_and_less_is_not(self, scale: int) -> None:
        side = smallest_side(scale)
        assert side % scale == 0 and fidelity(picture(side, side), picture(side, side), scale).ssim_y < 1
        with pytest.raises(ValueError, match="11x11"):
            fidelity(picture(side - scale, side), picture(side - scale, side), scale)


class TestReduction:
    def test_rows_and_columns_that_do_not_fit_are_left_out_at_the_end(self) -> None:
        image = picture(41, 50)
        assert torch.equal(whole_multiple(image, 3), image[:, :39, :48])
        assert torch.equal(whole_multiple(image, 1), image)

    def test_is_rounded_halves_up_and_clipped(self) -> None:
        image = torch.zeros(1, 8, 8, dtype=torch.uint8)
        image[:, :, 4:] = 255
        exact = resampled(image.double(), 4, 4, bicubic)
        assert float(exact.min()) < -1 and float(exact.max()) > 256
        assert torch.equal(reduced(image, 2), exact.add(0.5).floor().clamp(0, 255).byte())
        assert eight_bit(torch.tensor([0.5, 1.5, 2.5, -3, 300]) / 255).tolist() == [1, 2, 3, 0, 255]

    def test_bicubic_takes_a_batch(self) -> None:
        x = torch.rand(2, 3, 7, 9, generator=RNG)
        found = Bicubic(3)(x)
        assert found.shape == (2, 3, 21, 27) and found.dtype == x.dtype
        assert torch.equal(found[1], Bicubic(3)(x[1:])[0])


@pytest.fixture(scope="module")
def set5(shared_data: Path) -> list[Tensor]:
    return [read(path).pixels for path in sorted((shared_data / "bench" / "set5").iterdir())]


PUBLISHED = [(2, 33.66, 0.9299), (3, 30.39, 0.8682), (4, 28.42, 0.8104)]
"""Scale, PSNR and SSIM of bicubic interpolation on Set5, as in most tables since SRCNN."""


@pytest.mark.parametrize(("scale", "psnr_db", "similarity"), PUBLISHED)
class TestSet5:
    def test_the_published_baseline_comes_out_by_its_own_steps(
        self, set5: list[Tensor], scale: int, psnr_db: float, similarity: float
    ) -> None:
        """Luma rounded to 8 bits is reduced, not rounded, and enlarged: what the published numbers were made with."""
        scores = []
        for image in set5:
            y = luma255(whole_multiple(image, scale).double() / 255).round()
            height, width = y.shape[1:]
            small = resampled(y, height // scale, width // scale, bicubic)
            large = resampled(small, height, width, bicubic).round().clamp(0, 255)
            pair = inside(y, scale), inside(large, scale)
            scores.append((psnr(*pair, 255.0), ssim(*pair, 255.0)))
        assert np.mean(scores, 0).tolist() == [
            pytest.approx(psnr_db, abs=0.005),
            pytest.approx(similarity, abs=1e-4),
        ]

    def test_the_protocol_gives_the_published_baseline(
        self, set5: list[Tensor], scale: int, psnr_db: float, similarity: float
    ) -> None:
        """8 bits between, but luma that is not rounded, which makes up to 0.02 dB more."""
        found = []
        for image in set5:
            reference = whole_multiple(image, scale)
            x = reduced(reference, scale)[None].float() / 255
            found.append(fidelity(reference, eight_bit(Bicubic(scale)(x)[0]), scale))
        assert np.mean([one.psnr_y for one in found]) == pytest.approx(psnr_db, abs=0.025)
        assert np.mean([one.ssim_y for one in found]) == pytest.approx(similarity, abs=1e-3)
