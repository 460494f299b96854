"""Holes filled from what is bright around them."""

from __future__ import annotations

import pytest
import torch

from restorekit.stages.inpaint import filled_in


def hole(height: int, width: int, rows: slice, columns: slice) -> torch.Tensor:
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    mask[:, rows, columns] = True
    return mask


@pytest.mark.parametrize("size", [(40, 60), (33, 47), (64, 64), (5, 90)])
def test_even_surroundings_go_on(size: tuple[int, int]) -> None:
    pixels = torch.full((1, *size), 2.5)
    mask = hole(*size, slice(1, 4), slice(3, size[1] // 2))
    pixels[mask] = 0.1
    filled_in(pixels, mask, (1.0,))
    assert torch.allclose(pixels, torch.full((1, *size), 2.5), rtol=1e-5)


def test_only_the_hidden_changes_and_stays_within_what_is_around() -> None:
    pixels = 1 + torch.rand(3, 50, 70, generator=torch.Generator().manual_seed(1))
    mask = hole(50, 70, slice(10, 30), slice(20, 60)).expand(3, -1, -1).clone()
    before = pixels.clone()
    filled_in(pixels, mask, (1.0, 1.0, 1.0))
    assert torch.equal(pixels[~mask], before[~mask])
    for plane, old, holes in zip(pixels, before, mask, strict=True):
        assert float(old[~holes].min()) <= float(plane[holes].min())
        assert float(plane[holes].max()) <= float(old[~holes].max())


def test_the_nearest_counts_most() -> None:
    pixels = torch.full((1, 40, 80), 1.0)
    pixels[..., 40:] = 4.0
    mask = hole(40, 80, slice(10, 30), slice(20, 60))
    filled_in(pixels, mask, (0.5,))
    filled = pixels[0, 20, 20:60]
    assert float(filled[0]) < 1.6 and float(filled[-1]) > 3.2
    assert bool((filled[1:] >= filled[:-1] - 1e-3).all()), "from the dark side to the bright one"


def test_what_is_darker_than_the_floor_does_not_count() -> None:
    pixels = torch.full((1, 40, 60), 0.2)
    pixels[:, 5:10, 5:50] = 3.0
    mask = hole(40, 60, slice(15, 30), slice(20, 40))
    filled_in(pixels, mask, (1.0,))
    assert torch.allclose(pixels[mask], torch.tensor(3.0), rtol=1e-4)


def test_without_bright_surroundings_it_is_the_floor_of_each_channel() -> None:
    pixels = torch.full((3, 20, 30), 0.2)
    mask = torch.zeros(3, 20, 30, dtype=torch.bool)
    mask[:, 5:9, 5:9] = True
    filled_in(pixels, mask, (1.0, 2.0, 3.0))
    assert pixels[:, 6, 6].tolist() == [1.0, 2.0, 3.0]
    everything = torch.full((3, 20, 30), 0.2)
    filled_in(everything, torch.ones_like(mask), (1.5,))
    assert bool((everything == 1.5).all())


def test_planes_of_a_mosaic_are_filled_apart() -> None:
    cell = torch.tensor([[2.0, 3.0], [4.0, 5.0]])
    pixels = cell.repeat(20, 25)[None].clone()
    wanted = pixels.clone()
    mask = hole(40, 50, slice(11, 24), slice(13, 31))
    pixels[mask] = 0
    filled_in(pixels, mask, (1.0,), step=2)
    assert torch.allclose(pixels, wanted, rtol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (2, 3)])
@pytest.mark.parametrize("step", [1, 2])
def test_tiny_pictures(size: tuple[int, int], step: int) -> None:
    pixels = torch.full((1, *size), 2.0)
    mask = torch.zeros(1, *size, dtype=torch.bool)
    mask[0, 0, 0] = True
    filled_in(pixels, mask, (1.0,), step)
    assert 1.0 <= float(pixels[0, 0, 0]) <= 2.0 and bool(pixels.isfinite().all())
