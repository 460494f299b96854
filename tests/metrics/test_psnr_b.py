"""PSNR-B: PSNR where blocks do not show, less where they do."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from restorekit.metrics.psnr import psnr
from restorekit.metrics.psnr_b import blocking_effect, psnr_b

RNG = torch.Generator().manual_seed(0)


def picture(channels: int = 1, height: int = 48, width: int = 64) -> Tensor:
    return torch.rand(channels, height, width, generator=RNG, dtype=torch.float64) * 255


def blocky(height: int = 48, width: int = 64, block: int = 8) -> Tensor:
    """One value a block."""
    values = torch.rand(1, height // block, width // block, generator=RNG, dtype=torch.float64) * 255
    return values.repeat_interleave(block, 1).repeat_interleave(block, 2)


def test_without_steeper_edges_of_blocks_it_is_psnr() -> None:
    flat = torch.full((1, 48, 64), 90.0)
    ramp = torch.arange(64.0).expand(1, 48, 64)
    assert psnr_b(flat + 20, flat, 255) == pytest.approx(psnr(flat + 20, flat, 255))
    assert psnr_b(flat, ramp, 255) == pytest.approx(psnr(flat, ramp, 255))
    assert psnr_b(flat, flat, 255) == math.inf


def test_blocks_of_the_restored_picture_count_and_those_of_the_reference_do_not() -> None:
    blocks, smooth = blocky(), torch.full((1, 48, 64), 128.0, dtype=torch.float64)
    assert psnr_b(smooth, blocks, 255) < psnr(smooth, blocks, 255) - 1
    assert psnr_b(blocks, smooth, 255) == psnr(blocks, smooth, 255)


def test_blocks_elsewhere_are_no_blocks_of_jpeg() -> None:
    assert blocking_effect(blocky()[0].roll((4, 4), (0, 1))) == 0 < blocking_effect(blocky()[0])


def test_the_effect_is_the_published_formula() -> None:
    """Mean squared steps at edges of blocks less those elsewhere, pair by pair, times log2 8 / log2 min(H, W)."""
    plane = picture(1, 24, 40)[0] + blocky(24, 40)[0]
    edges, others = [], []
    for y in range(24):
        for x in range(40):
            if x + 1 < 40:
                (edges if (x + 1) % 8 == 0 else others).append(float(plane[y, x] - plane[y, x + 1]) ** 2)
            if y + 1 < 24:
                (edges if (y + 1) % 8 == 0 else others).append(float(plane[y, x] - plane[y + 1, x]) ** 2)
    excess = math.fsum(edges) / len(edges) - math.fsum(others) / len(others)
    assert excess > 0
    assert blocking_effect(plane) == pytest.approx(excess * math.log2(8) / math.log2(24))


def test_colours_are_the_mean_of_their_channels() -> None:
    first, second = picture(3), blocky().expand(3, -1, -1) + picture(3)
    each = [psnr_b(a[None], b[None], 255) for a, b in zip(first, second, strict=True)]
    assert psnr_b(first, second, 255) == pytest.approx(math.fsum(each) / 3)


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        psnr_b(picture(1), picture(3))
    with pytest.raises(ValueError, match="at least 9 px"):
        psnr_b(picture(1, 8, 20), picture(1, 8, 20))
