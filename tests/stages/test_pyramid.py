from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from restorekit.stages.pyramid import Layer, Layers, blend, down, filled, up


class Whole(Layers):
    """Layers that are held as they are."""

    def __init__(self, layers: list[Layer]) -> None:
        partial = [k for k, layer in enumerate(layers) if layer.coverage is not None]
        super().__init__(len(layers), *layers[0].weight.shape, partial)
        self.layers = layers

    def rows(self, start: int, stop: int) -> list[Layer]:
        part = slice(start, stop)
        return [
            Layer(
                layer.planes[:, part].clone(),
                layer.weight[part].clone(),
                None if layer.coverage is None else layer.coverage[part].clone(),
            )
            for layer in self.layers
        ]


def interpolation(size: int) -> np.ndarray:
    """The matrix that doubles ``size`` samples: (1 6 1)/8 on the old ones, (1 1)/2 between them."""
    matrix = np.zeros((2 * size, size))
    for k in range(size):
        for offset, weight in ((-1, 1), (0, 6), (1, 1)):
            index = k + offset
            matrix[2 * k, min(abs(index), size - 1)] += weight / 8
        matrix[2 * k + 1, k] += 0.5
        matrix[2 * k + 1, min(k + 1, size - 1)] += 0.5
    return matrix


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 3), (37, 52)])
def test_down_is_the_binomial_kernel(size: tuple[int, int]) -> None:
    plane = np.random.default_rng(1).random(size, dtype=np.float32)
    taps = np.array([1, 4, 6, 4, 1]) / 16
    smooth = cv2.sepFilter2D(plane, -1, taps, taps, borderType=cv2.BORDER_REFLECT_101)
    assert np.abs(down(torch.from_numpy(plane)[None])[0].numpy() - smooth[::2, ::2]).max() < 1e-6


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 3), (37, 52)])
def test_up_doubles(size: tuple[int, int]) -> None:
    plane = np.random.default_rng(1).random(size, dtype=np.float32)
    wanted = interpolation(size[0]) @ plane @ interpolation(size[1]).T
    height, width = 2 * size[0], 2 * size[1] - 1
    got = up(torch.from_numpy(plane)[None], 0, height, width)
    assert np.abs(got[0].numpy() - wanted[:, :width]).max() < 1e-6
    rows = up(torch.from_numpy(plane)[None], height // 4 * 2, height - 1, width)
    assert torch.equal(rows, got[:, height // 4 * 2 : height - 1])


def test_one_layer_comes_out_as_it_went_in() -> None:
    planes = torch.rand(2, 53, 38, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(blend(Whole([Layer(planes, torch.ones(53, 38))]), 5, 2), planes, atol=1e-6)


def test_the_blend_is_that_of_the_whole_pyramids() -> None:
    """Burt and Adelson's spline of two pictures, built here level by level."""
    random = torch.Generator().manual_seed(0)
    pictures = [torch.rand(1, 48, 64, generator=random) for _ in range(2)]
    share = torch.rand(48, 64, generator=random)
    got = blend(Whole([Layer(pictures[0], share), Layer(pictures[1], 1 - share)]), 3, 1)
    total = None
    weights, levels = [share[None], 1 - share[None]], []
    for level in range(4):
        smaller = [down(picture) for picture in pictures]
        parts = pictures if level == 3 else [p - up(s, 0, *p.shape[1:]) for p, s in zip(pictures, smaller, strict=True)]
        levels.append(sum(p * w for p, w in zip(parts, weights, strict=True)))
        pictures, weights = smaller, [down(weight) for weight in weights]
    for level in reversed(levels):
        total = level if total is None else level + up(total, 0, *level.shape[1:])
    assert total is not None
    assert torch.allclose(got, total, atol=1e-3)  # pictures are halved in half precision


def test_values_beside_what_is_not_covered_are_those_around() -> None:
    """A flat picture with a hole in it stays flat, up to where it ends."""
    flat, hole = torch.full((1, 40, 50), 0.3), torch.ones(40, 50)
    hole[12:30, 20:35] = 0
    layer = Layer(torch.where(hole > 0, flat, 0.0), hole, hole)
    result = blend(Whole([layer, Layer(flat, 1 - hole)]), 5, 1)
    assert torch.allclose(result, flat, atol=1e-3)


def test_holes_are_filled_from_around() -> None:
    """Of a dark and a bright half each fills its own hole; what is known stays."""
    picture = torch.full((1, 33, 46), 0.25)
    picture[:, :, 23:] = 4.0
    known = torch.ones(33, 46)
    known[10:20, 3:9] = known[10:20, 36:42] = 0
    result = filled(torch.where(known > 0, picture, 99.0), known)
    assert torch.equal(result[0][known > 0], picture[0][known > 0])
    assert float(result[:, 10:20, 3:9].max()) < 0.5
    assert float(result[:, 10:20, 36:42].min()) > 3.5
    assert torch.equal(filled(picture, torch.zeros(33, 46)), torch.zeros(1, 33, 46))
