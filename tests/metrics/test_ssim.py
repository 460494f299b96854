"""PSNR and SSIM against straightforward computations of the whole image at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from restorekit.metrics.psnr import psnr
from restorekit.metrics.ssim import ssim
from restorekit.metrics.window import window_strips, windows_inside

RNG = np.random.default_rng(0)


def whole_ssim(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    def mean(x: NDArray[np.float64]) -> NDArray[np.float64]:
        blurred: NDArray[np.float64] = gaussian_filter(x, 1.5, radius=5, axes=(1, 2))[:, 5:-5, 5:-5]
        return blurred

    ma, mb = mean(a), mean(b)
    va, vb, both = mean(a * a) - ma * ma, mean(b * b) - mb * mb, mean(a * b) - ma * mb
    score = (2 * ma * mb + 1e-4) * (2 * both + 9e-4) / ((ma * ma + mb * mb + 1e-4) * (va + vb + 9e-4))
    return float(score.mean())


@pytest.mark.parametrize("shape", [(3, 200, 70), (1, 11, 11), (1, 90, 9000)])
def test_strips_give_what_the_whole_gives(shape: tuple[int, int, int]) -> None:
    a = RNG.random(shape)
    b = np.clip(a + RNG.normal(0, 0.1, shape), 0, 1)
    assert ssim(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(whole_ssim(a, b), abs=1e-12)
    expected = -10 * np.log10(np.mean(np.square(a - b)))
    assert psnr(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(("height", "width"), [(11, 11), (64, 5), (65, 9000), (74, 9000), (75, 9000), (500, 4000)])
def test_each_window_lies_in_one_strip(height: int, width: int) -> None:
    tops = [top for rows in window_strips(height, width) for top in range(rows.start, rows.stop - 10)]
    assert tops == list(range(height - 10))


def test_windows_with_a_gap_are_found() -> None:
    valid = torch.ones(30, 40, dtype=torch.bool)
    valid[14, 20] = False
    inside = windows_inside(valid)
    expected = torch.ones(20, 30, dtype=torch.bool)
    expected[4:15, 10:21] = False
    assert torch.equal(inside, expected)
