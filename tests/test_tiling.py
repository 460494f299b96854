"""Tiles cover the image once, lie on the grid, and share what they should."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from restorekit.tiling import Tiling, fixed_plan, mirrored, plan, ramps

CASES = [
    (length, side, grid, halo)
    for length in (1, 5, 16, 17, 100, 239, 1000, 1085)
    for side in (16, 64, 100, 512)
    for grid, halo in ((1, 0), (1, 4), (1, 32), (8, 8), (16, 16), (16, 32))
]


@pytest.mark.parametrize("make", [plan, fixed_plan])
@pytest.mark.parametrize(("length", "side", "grid", "halo"), CASES)
def test_tiles_cover_the_image_once(make: object, length: int, side: int, grid: int, halo: int) -> None:
    tiling = Tiling("exact", grid, halo)
    padded = tiling.padded(length)
    if make is fixed_plan:
        axis = fixed_plan(length, padded, max(tiling.up(side), tiling.overlap + grid), tiling.overlap, grid)
    else:
        axis = plan(length, padded, side, tiling.overlap, grid)
    assert axis.side % grid == 0
    assert all(origin % grid == 0 for origin in axis.origins)
    assert axis.origins[0] == 0
    assert axis.origins[-1] + axis.side == padded
    assert all(left + axis.side - right >= tiling.overlap for left, right in pairwise(axis.origins))
    for scale in (1, 3):
        total = torch.zeros(length * scale)
        for origin, (start, weights) in zip(axis.origins, ramps(axis, halo, scale), strict=True):
            assert start >= scale * (origin + (halo if origin else 0)), "what lies in the halo counts"
            assert start + len(weights) <= scale * min(origin + axis.side, length)
            total[start : start + len(weights)] += weights
        torch.testing.assert_close(total, torch.ones_like(total))


def test_tiles_shrink_to_what_the_image_needs() -> None:
    axis = plan(1000, 1008, 512, 48, 16)
    assert len(axis.origins) == 3
    assert axis.side == 368  # (1008 + 2 * 48) / 3
    fixed = fixed_plan(1000, 1008, 512, 48, 16)
    assert len(fixed.origins) == 3
    assert fixed.side == 512


@pytest.mark.parametrize("length", [1, 2, 5, 16])
@pytest.mark.parametrize("padding", ["reflect", "flip"])
def test_mirrored_is_numpys_padding(length: int, padding: str) -> None:
    import numpy as np

    mode = "reflect" if padding == "reflect" else "symmetric"
    wanted = np.pad(np.arange(length), (0, 40), mode=mode)
    assert mirrored(0, length + 40, length, padding).tolist() == wanted.tolist()  # type: ignore[arg-type]


def test_origins_keep_the_phase_of_windows_that_the_network_fills_itself() -> None:
    tiling = Tiling("approximate", phase=32, halo=16, minimum=16)
    assert tiling.axis(250, 256).side == 250, "an image that fits is left as it is"
    axis = tiling.axis(601, 256)
    assert axis.side == 256
    assert all(origin % 32 == 0 for origin in axis.origins)
    assert axis.origins[-1] + 256 >= 601


def test_flip_always_adds_something() -> None:
    tiling = Tiling("approximate", grid=16)
    assert [tiling.padded(length, "flip") for length in (15, 16, 17)] == [16, 32, 32]
    assert [tiling.padded(length) for length in (15, 16, 17)] == [16, 16, 32]
