"""Bicubic resampling is MATLAB's: against its published algorithm in scalar loops, and by its laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from restorekit.stages.resampling import BLOCK, bicubic, resampled

SIZES = [
    ((24, 30), (12, 10)),
    ((24, 30), (8, 15)),
    ((13, 17), (52, 51)),
    ((75, 9), (70, 20)),
    ((5, 4), (1, 1)),
    ((2, 1), (1, 6)),
    ((1, 3), (9, 2)),
]
RNG = np.random.default_rng(0)


def cubic(t: float) -> float:
    t = abs(t)
    if t <= 1:
        return 1.5 * t**3 - 2.5 * t**2 + 1
    return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t <= 2 else 0.0


def resized_line(line: NDArray[np.float64], target: int) -> list[float]:
    """One line of ``imresize``, in MATLAB's own terms: coordinates from 1, contributions, indices mirrored."""
    source = len(line)
    scale = target / source
    shrink = min(scale, 1.0)
    kernel_width = 4 / shrink
    mirrored = [*range(source), *reversed(range(source))]
    result = []
    for out in range(1, target + 1):
        u = out / scale + 0.5 * (1 - 1 / scale)
        left = math.floor(u - kernel_width / 2)
        indices = [left + k for k in range(math.ceil(kernel_width) + 2)]
        weights = [shrink * cubic(shrink * (u - index)) for index in indices]
        values = [line[mirrored[(index - 1) % len(mirrored)]] for index in indices]
        result.append(sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights))
    return result


def resized(plane: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    tall = np.array([resized_line(column, height) for column in plane.T]).T
    return np.array([resized_line(row, width) for row in tall])


def bicubically(planes: Tensor, size: tuple[int, int]) -> Tensor:
    return resampled(planes, *size, bicubic)


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_is_matlabs_imresize(before: tuple[int, int], after: tuple[int, int]) -> None:
    plane = RNG.random(before)
    found = bicubically(torch.from_numpy(plane)[None], after)[0].numpy()
    assert np.abs(found - resized(plane, *after)).max() < 1e-12


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_constant_stays_constant(before: tuple[int, int], after: tuple[int, int]) -> None:
    found = bicubically(torch.full((2, *before), 0.7, dtype=torch.float64), after)
    assert found.shape == (2, *after) and float((found - 0.7).abs().max()) < 1e-14


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_mirrored_and_transposed_pictures_give_so_results(before: tuple[int, int], after: tuple[int, int]) -> None:
    planes = torch.from_numpy(RNG.random((3, *before)))
    found = bicubically(planes, after)
    for axis in (1, 2):
        assert torch.allclose(bicubically(planes.flip(axis), after), found.flip(axis), rtol=0, atol=1e-13)
    assert torch.allclose(bicubically(planes.mT, after[::-1]).mT, found, rtol=0, atol=1e-13)


def test_the_same_size_is_the_same_picture() -> None:
    planes = torch.from_numpy(RNG.random((3, BLOCK + 7, 11)))
    for axis_weights in (bicubic(40, 40, 0, 40), bicubic(5, 5, 0, 5)):
        assert axis_weights[0] == 0 and np.array_equal(axis_weights[1], np.eye(len(axis_weights[1])))
    assert torch.equal(bicubically(planes, (BLOCK + 7, 11)), planes)


def test_blocks_do_not_matter() -> None:
    start, whole = bicubic(200, 90, 0, 90)
    assert start == 0
    for first, last in ((0, 32), (32, 64), (64, 90), (89, 90)):
        start, weights = bicubic(200, 90, first, last)
        expected = np.zeros((last - first, 200))
        expected[:, start : start + weights.shape[1]] = weights
        assert np.abs(expected - whole[first:last]).max() < 1e-15
