"""Kernels have the widths and directions that were asked for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from restorekit.data.kernels import filtered, gaussian, low_pass, plateau

KERNELS = {
    "gaussian": gaussian(9, (3.0, 1.0), 0.5),
    "peaked": gaussian(9, (2.0, 1.0), 0.5, shape=0.5),
    "disk": gaussian(9, (2.0, 1.0), 0.5, shape=4.0),
    "plateau": plateau(9, (2.0, 1.0), 0.5, shape=1.5),
    "low-pass": low_pass(9, 1.0),
}


def moments(kernel: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mean (x, y) and the covariance of a kernel, px."""
    radius = len(kernel) // 2
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    places = np.stack([x.ravel(), y.ravel()])
    mean = places @ kernel.ravel()
    return mean, (places - mean[:, None]) * kernel.ravel() @ (places - mean[:, None]).T


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_are_centred_and_keep_the_mean(name: str) -> None:
    kernel = KERNELS[name]
    assert kernel.shape == (19, 19)
    assert kernel.sum() == pytest.approx(1.0)
    assert np.allclose(kernel, kernel[::-1, ::-1], atol=1e-12)
    assert kernel.argmax() == 9 * 19 + 9


@pytest.mark.parametrize("angle", [0.0, 0.7, math.pi / 2, 2.5])
def test_a_gaussian_has_its_widths_along_its_axes(angle: float) -> None:
    axes = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    mean, covariance = moments(gaussian(16, (3.0, 1.2), angle))
    assert np.allclose(mean, 0.0, atol=1e-9)
    assert np.allclose(covariance, axes @ np.diag([9.0, 1.44]) @ axes.T, atol=0.01)


def test_its_centre_can_lie_between_pixels() -> None:
    mean, _ = moments(gaussian(12, (2.0, 1.5), 0.3, shift=0.5))
    assert np.allclose(mean, 0.5, atol=1e-3)


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_no_width_changes_nothing_but_the_place(shift: float) -> None:
    kernel = gaussian(3, (0.0, 0.0), 0.0, shift=shift)
    assert np.allclose(kernel.max(), 1.0 if shift == 0 else 0.25)
    assert kernel[3, 3] == kernel.max() and np.isfinite(kernel).all()


def test_no_width_changes_nothing_for_long_tails() -> None:
    assert plateau(3, (0.0, 0.0), 0.0, shape=1.0)[3, 3] > 0.99


def test_shapes_range_from_peaked_to_flat() -> None:
    """All fall to the same share one width from the centre; before that the flat ones are higher."""
    kernels = [gaussian(10, (2.0, 2.0), 0.0, shape) for shape in (0.5, 1.0, 4.0)]
    near, at_width = ([float(kernel[10, 10 + px] / kernel[10, 10]) for kernel in kernels] for px in (1, 2))
    assert at_width == pytest.approx([math.exp(-0.5)] * 3)
    assert near == sorted(near) and near[-1] > 0.99


@pytest.mark.parametrize("cutoff", [math.pi / 3, math.pi / 2])
def test_a_low_pass_filter_keeps_slow_waves_and_stops_fast_ones(cutoff: float) -> None:
    kernel, x = low_pass(100, cutoff), np.arange(-100, 101)
    kept, stopped = (float(kernel.sum(0) @ np.cos(factor * cutoff * x)) for factor in (0.6, 1.6))
    assert kept == pytest.approx(1.0, abs=0.03) and stopped == pytest.approx(0.0, abs=0.03)
    assert kernel.min() < 0.0, "it rings"


def test_filtering_weighs_the_neighbours() -> None:
    kernel = np.zeros((5, 5))
    kernel[1, 4] = 1.0  # one px above, two px to the right
    picture = torch.rand((3, 12, 14), generator=torch.Generator().manual_seed(0))
    result = filtered(picture, kernel)
    assert torch.equal(result[:, 1:, :-2], picture[:, :-1, 2:])
    assert torch.equal(result[:, 1:, -2:], picture[:, :-1, [-1, -2]]), "mirrored, edge pixels repeated"
