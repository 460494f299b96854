"""PU21 and the mu-law: published anchors, and values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from restorekit.metrics.mu_law import mu_law, mu_law_psnr
from restorekit.metrics.pu21 import BRIGHTEST_NITS, DARKEST_NITS, PEAK, pu21_encode, pu21_psnr, pu21_ssim

NITS = torch.logspace(-2.3, 4, 5000, dtype=torch.float64)
RNG = torch.Generator().manual_seed(0)


def encoded(nits: float) -> float:
    return float(pu21_encode(torch.tensor([nits], dtype=torch.float64)))


def test_anchors_of_the_paper() -> None:
    """100 cd/m2, white of an SDR display, is at the peak of 8-bit values, and the darkest luminance at 0."""
    assert encoded(100) == pytest.approx(256, abs=0.5)
    assert encoded(DARKEST_NITS) == pytest.approx(0, abs=1e-3)
    assert encoded(BRIGHTEST_NITS) == pytest.approx(595.4, abs=0.1)


def test_value_worked_out_by_hand() -> None:
    """1 cd/m2, where all powers of luminance are 1."""
    value = 596.3148142 * (((0.353487901 + 0.3734658629) / (1 + 8.277049286e-05)) ** 0.09150303166 - 0.9099517204)
    assert encoded(1.0) == pytest.approx(value, abs=1e-9)


def test_encoding_rises_and_is_clamped() -> None:
    values = pu21_encode(NITS)
    assert bool((values.diff() > 0).all())
    assert encoded(-5.0) == encoded(0.0) == encoded(DARKEST_NITS)
    assert encoded(1e9) == encoded(BRIGHTEST_NITS)


def test_float32_is_near_float64() -> None:
    assert (pu21_encode(NITS.float()).double() - pu21_encode(NITS)).abs().max() < 1e-3


def test_input_is_left_alone() -> None:
    nits = torch.tensor([0.0, 1.0, 1e6])
    pu21_encode(nits)
    mu_law(nits)
    assert nits.tolist() == [0.0, 1.0, 1e6]


def test_psnr_of_two_flat_images() -> None:
    first, second = torch.full((3, 4, 4), 1.0), torch.full((3, 4, 4), 2.0)
    error = encoded(406) - encoded(203)
    assert pu21_psnr(first, second) == pytest.approx(20 * math.log10(PEAK / error), abs=1e-4)
    assert pu21_psnr(first, second, peak=595.4) - pu21_psnr(first, second) == pytest.approx(7.331, abs=1e-3)
    assert pu21_psnr(first, second, white_nits=406) == pytest.approx(pu21_psnr(first * 2, second * 2), abs=1e-4)
    assert pu21_psnr(first, first) == math.inf


def test_ssim_is_one_for_equal_images_and_falls_with_noise() -> None:
    light = torch.rand(1, 40, 40, generator=RNG) * 5
    noise = torch.randn(1, 40, 40, generator=RNG)
    scores = [pu21_ssim(light, light * (1 + share * noise)) for share in (0.0, 0.02, 0.1, 0.3)]
    assert scores[0] == pytest.approx(1, abs=1e-12) and scores == sorted(scores, reverse=True)


def test_mu_law_worked_out_by_hand() -> None:
    ends = mu_law(torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)).tolist()
    assert ends == pytest.approx([0.0, 0.0, 1.0])
    assert float(mu_law(torch.tensor(0.1))) == pytest.approx(math.log(501) / math.log(5001), rel=1e-6)


def test_mu_law_psnr_does_not_depend_on_a_common_scale() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((3, 20, 20)) ** 3
    other = truth * rng.uniform(0.9, 1.1, (3, 20, 20))
    error = np.log((truth.max() + 5000 * truth) / (truth.max() + 5000 * other)) / np.log(5001)
    expected = -10 * math.log10(float(np.mean(np.square(error))))
    reference, test = torch.from_numpy(truth), torch.from_numpy(other)
    assert mu_law_psnr(reference, test) == pytest.approx(expected, abs=1e-9)
    assert mu_law_psnr(reference * 7, test * 7) == pytest.approx(expected, abs=1e-9)
    with pytest.raises(ValueError, match="no positive value"):
        mu_law_psnr(reference * 0, test)
