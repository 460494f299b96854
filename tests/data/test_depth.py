"""Depth-like maps keep to 0..1, recede upwards, and take over the outlines of a picture."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor

from restorekit.data.degradation import seeded
from restorekit.data.depth import Method, attenuated, depth, followed, fractal

METHODS: tuple[Method, ...] = get_args(Method)


def halves(left: float, right: float, side: int = 96) -> Tensor:
    picture = torch.full((3, side, side), left)
    picture[:, :, side // 2 :] = right
    return picture


def steps(map_: Tensor) -> Tensor:
    return map_.diff(dim=1).abs()


@pytest.mark.parametrize("method", METHODS)
class TestBoth:
    @pytest.mark.parametrize("size", [(1, 1), (5, 3), (32, 32), (33, 190), (300, 41)])
    def test_any_size_has_distances_of_0_to_1(self, method: Method, size: tuple[int, int]) -> None:
        for seed in range(12):
            map_ = depth(*size, seeded(seed), method)
            assert map_.shape == size and map_.dtype == torch.float32
            assert float(map_.min()) >= 0.0 and float(map_.max()) <= 1.0

    def test_the_generator_alone_decides(self, method: Method) -> None:
        first = depth(40, 50, seeded(1), method)
        torch.rand(1)
        assert torch.equal(depth(40, 50, seeded(1), method), first)
        assert not torch.equal(depth(40, 50, seeded(2), method), first)

    def test_what_is_higher_up_is_farther_as_a_rule(self, method: Method) -> None:
        maps = torch.stack([depth(200, 200, seeded(seed), method) for seed in range(60)])
        assert float(maps[:, :50].mean()) > float(maps[:, -50:].mean()) + 0.1


class TestLayout:
    def test_a_small_picture_shows_a_part_of_the_scene(self) -> None:
        """So that distances in it differ less."""
        small, large = (
            torch.stack([depth(side, side, seeded(seed)).std() for seed in range(40)]) for side in (24, 600)
        )
        assert float(small.mean()) < 0.5 * float(large.mean())

    def test_some_scenes_have_outlines(self) -> None:
        assert any(float(steps(depth(200, 300, seeded(seed))).max()) > 0.1 for seed in range(12))


class TestFractal:
    def test_it_spans_all_distances(self) -> None:
        for seed in range(5):
            map_ = depth(50, 70, seeded(seed), "fractal")
            assert (float(map_.min()), float(map_.max())) == (0.0, 1.0)

    def test_noise_has_no_preferred_level(self) -> None:
        fields = torch.stack([fractal(40, 60, 0.7, seeded(seed)) for seed in range(300)])
        assert abs(float(fields.mean())) < 0.1
        assert float(fields.var()) == pytest.approx(0.8, abs=0.3)

    def test_a_larger_exponent_is_smoother(self) -> None:
        rough, smooth = (steps(fractal(128, 128, hurst, seeded(3))).mean() for hurst in (0.3, 1.0))
        assert float(smooth) < 0.7 * float(rough)


class TestFollowed:
    def test_outlines_are_where_the_picture_has_them(self) -> None:
        picture = halves(0.2, 0.8)
        changes = torch.stack([steps(followed(picture, seeded(seed))).mean(0) for seed in range(30)]).mean(0)
        assert int(changes.argmax()) == 47
        assert float(changes[47]) > 5 * float(changes.median())

    def test_without_outlines_it_is_smooth(self) -> None:
        even = torch.full((3, 200, 300), 0.5)
        for seed in range(12):
            assert float(steps(followed(even, seeded(seed))).max()) < 0.1

    def test_what_goes_beyond_0_to_1_counts_as_clipped(self) -> None:
        within, beyond = (followed(halves(*levels), seeded(1)) for levels in ((0.0, 1.0), (-0.5, 1.5)))
        assert torch.equal(within, beyond)


class TestAttenuated:
    def test_pale_and_bright_is_farthest(self) -> None:
        white, black = (float(attenuated(torch.full((3, 9, 9), level)).mean()) for level in (1.0, 0.0))
        red = float(attenuated(torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(3, 9, 9)).mean())
        assert white == 1.0 and black < 0.13 and red == pytest.approx(0.121779 + 0.959710 - 0.780245, abs=0.01)

    def test_specks_go_and_outlines_stay(self) -> None:
        picture = halves(0.2, 0.8)
        specks = picture.clone()
        specks[:, ::8, ::8] = 1.0
        assert torch.equal(attenuated(specks), attenuated(picture))
        assert float(steps(attenuated(picture))[:, 47].min()) > 0.5
