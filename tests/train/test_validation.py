"""A validation measures the middle of each picture, always the same, and leaves the network as it was."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from restorekit.architectures._network import Network
from restorekit.data.steps import Step, chain
from restorekit.errors import InputError
from restorekit.metrics.psnr import psnr
from restorekit.train.validation import SIDE, Validation

CPU = torch.device("cpu")


def picture(height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


class Nearest(Network):
    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        self.seen.append(tuple(x.shape))
        return F.interpolate(x, scale_factor=self.scale) if self.scale > 1 else x


def noisy(count: int = 1) -> Validation:
    steps = chain([Step(name="gaussian_noise", parameters={"sigma": [20, 20]})])
    return Validation([picture(100, 70)] * count, ["a.png"] * count, None, steps)


def test_noise_is_that_of_the_seed_and_the_picture() -> None:
    network = Nearest(1)
    assert noisy().score(network, CPU) == noisy().score(network, CPU)
    assert noisy().score(network, CPU) == pytest.approx(22.1, abs=0.7)
    first, second = noisy(2).pairs
    assert not torch.equal(first[0], second[0])


def test_other_targets_are_mixed_in() -> None:
    steps = chain([Step(name="reflection", parameters={"methods": ["ceilnet"]})])
    black, white = torch.zeros(3, 64, 64, dtype=torch.uint8), torch.full((3, 64, 64), 255, dtype=torch.uint8)
    made = Validation([*[black] * 6, white], ["a"] * 7, None, steps)
    assert any(float(poor.max()) > 0.1 for poor, _ in made.pairs[:6])
    alone = Validation([black] * 6, ["a"] * 6, None, steps)
    assert all(float(poor.max()) == 0.0 for poor, _ in alone.pairs)


def test_middle_is_cut_to_whole_multiples() -> None:
    network = Nearest(1)
    noisy().score(network, CPU)
    Validation([picture(2 * SIDE, 3 * SIDE)], ["a"], None, chain([Step(name="gaussian_noise")])).score(network, CPU)
    assert network.seen == [(1, 3, 96, 64), (1, 3, SIDE, SIDE)]


def test_sides_are_multiples_of_the_grid_of_the_network() -> None:
    network = Nearest(1)
    Validation([picture(100, 170)], ["a"], None, chain([Step(name="gaussian_noise")]), grid=48).score(network, CPU)
    assert network.seen == [(1, 3, 96, 96)]


def test_degraded_pairs_are_reduced() -> None:
    """The noise of 4 px is a quarter as strong, of pictures of half the size."""
    network = Nearest(1)
    flat = torch.full((3, 4 * SIDE, 70), 128, dtype=torch.uint8)
    steps = chain([Step(name="gaussian_noise", parameters={"sigma": [20, 20]})])
    made = Validation([flat], ["a"], None, steps, estimate=2.0)
    assert [tuple(side.shape) for side in made.pairs[0]] == [(3, SIDE, 32)] * 2
    assert made.score(network, CPU) == pytest.approx(20 * math.log10(255 / 10), abs=0.3)
    with pytest.raises(InputError, match=r"a: too small to be measured, .* take pictures of 80 px"):
        Validation([flat], ["a"], None, steps, estimate=2.5)


def test_border_of_the_scale_is_left_out() -> None:
    good = picture(64, 64)
    poor = good[:, ::2, ::2]
    made = Validation([good], ["a"], [poor], scale=2)
    result = (poor / 255).repeat_interleave(2, 1).repeat_interleave(2, 2)
    expected = psnr(result[:, 2:-2, 2:-2], (good / 255)[:, 2:-2, 2:-2])
    assert made.score(Nearest(2), CPU) == pytest.approx(expected)


def test_network_goes_on_as_it_was() -> None:
    network = Nearest(1).train()
    noisy().score(network, CPU)
    assert network.training


def test_small_pictures_are_counted_and_all_of_them_refused() -> None:
    steps = chain([Step(name="gaussian_noise")])
    assert Validation([picture(64, 64), picture(20, 64)], ["a", "b"], None, steps).left_out == 1
    with pytest.raises(InputError, match=r"small\.png: too small"):
        Validation([picture(20, 64)], ["small.png"], None, steps)


def test_inputs_of_another_size_are_refused() -> None:
    with pytest.raises(InputError, match=r"a\.png: is 64x64 px, its input 40x40; targets are 2 times"):
        Validation([picture(64, 64)], ["a.png"], [picture(40, 40)], scale=2)
