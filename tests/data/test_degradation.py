"""What all degradations promise, chains of them, and what they draw from."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from restorekit.data import DEGRADATIONS, create
from restorekit.data.degradation import (
    Chain,
    Degradation,
    chance,
    choice,
    log_uniform,
    quantized,
    seeded,
    uniform,
    whole,
)
from restorekit.errors import RestorekitError

SIDE = 48
"""A multiple of every scale below."""

NOTHING_DRAWN = {"bicubic"}


def picture(height: int = SIDE, width: int = SIDE) -> Tensor:
    small = torch.rand((1, 3, 9, 9), generator=seeded(5))
    smooth = torch.nn.functional.interpolate(small, (height, width), mode="bicubic")[0]
    return quantized(smooth + 0.1 * torch.rand((3, height, width), generator=seeded(6)) - 0.05)


@pytest.mark.parametrize("name", DEGRADATIONS)
class TestEveryDegradation:
    def test_a_seed_gives_the_same_whatever_ran_before(self, name: str) -> None:
        degradation = create(name)
        first = degradation.degrade(picture(), seeded(1))
        torch.rand(3)
        degradation.degrade(picture(), seeded(2))
        assert torch.equal(create(name).degrade(picture(), seeded(1)), first)

    def test_other_seeds_give_other_results(self, name: str) -> None:
        results = [create(name).degrade(picture(), seeded(0, number)) for number in range(3)]
        assert all(torch.equal(results[0], other) == (name in NOTHING_DRAWN) for other in results[1:])

    def test_the_result_is_smaller_by_the_scale_and_finite(self, name: str) -> None:
        degradation = create(name)
        result = degradation.degrade(picture(SIDE, 2 * SIDE), seeded(3))
        assert result.shape == (3, SIDE // degradation.scale, 2 * SIDE // degradation.scale)
        assert result.dtype == torch.float32 and bool(result.isfinite().all())

    def test_the_clean_picture_stays(self, name: str) -> None:
        clean = picture()
        for number in range(4):
            create(name).degrade(clean, seeded(number))
        assert torch.equal(clean, picture())

    def test_the_margin_is_a_multiple_of_the_scale(self, name: str) -> None:
        degradation = create(name)
        assert degradation.margin >= 0 and degradation.margin % degradation.scale == 0

    def test_says_where_it_is_from(self, name: str) -> None:
        assert any(character.isdigit() for character in create(name).source)

    def test_refuses_what_it_does_not_know(self, name: str) -> None:
        with pytest.raises(RestorekitError, match=f"degradation {name}: strenght"):
            create(name, strenght=1.0)


MADE_IN_TWO_WAYS = ("low_light", "rain", "raindrops", "snow", "haze", "reflection")


def ways(name: str) -> tuple[Degradation, Degradation]:
    """Each way of a degradation alone."""
    one, other = create(name).methods  # type: ignore[attr-defined]
    return create(name, methods=(one,)), create(name, methods=(other,))


@pytest.mark.parametrize("name", MADE_IN_TWO_WAYS)
class TestTwoWays:
    def test_both_are_drawn_and_differ(self, name: str) -> None:
        both, (one, other) = create(name), ways(name)
        drawn = set()
        for number in range(8):
            results = [way.degrade(picture(), seeded(number)) for way in (one, other)]
            assert not torch.equal(*results)
            drawn |= {torch.equal(both.degrade(picture(), seeded(number)), result) for result in results[:1]}
            assert any(torch.equal(both.degrade(picture(), seeded(number)), result) for result in results)
        assert drawn == {True, False}

    def test_what_went_beyond_comes_back_within(self, name: str) -> None:
        """Noise of a step before, beyond black and white."""
        for way in ways(name):
            result = way.degrade(picture() * 1.4 - 0.2, seeded(0))
            assert float(result.min()) >= 0.0 and float(result.max()) <= 1.0
            assert torch.equal(result, quantized(result))

    @pytest.mark.parametrize("size", [(32, 32), (33, 150)])
    def test_any_size(self, name: str, size: tuple[int, int]) -> None:
        for way in ways(name):
            for number in range(4):
                result = way.degrade(picture(*size), seeded(number))
                assert result.shape == (3, *size) and torch.equal(result, quantized(result))

    def test_there_is_one_at_least(self, name: str) -> None:
        with pytest.raises(RestorekitError, match="methods"):
            create(name, methods=())


def test_a_misspelt_name_gets_a_hint() -> None:
    with pytest.raises(RestorekitError, match="did you mean 'bicubic'"):
        create("bicubik")


class Step(Degradation):
    """Takes every n-th pixel, and adds a number so that the order shows."""

    def __init__(self, scale: int, margin: int, added: float = 0.0) -> None:
        self._scale, self._margin, self.added = scale, margin, added

    @property
    def scale(self) -> int:
        return self._scale

    @property
    def margin(self) -> int:
        return self._margin

    def degrade(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        return clean[:, :: self.scale, :: self.scale] * 2.0 + self.added


class TestChain:
    def test_steps_run_in_order(self) -> None:
        assert Chain([Step(1, 0, 1.0), Step(1, 0, 3.0)])(torch.zeros(3, 4, 4), seeded(0)).unique().item() == 5.0

    def test_scales_multiply(self) -> None:
        chain = Chain([Step(2, 0), Step(1, 0), Step(3, 0)])
        assert chain.scale == 6
        assert chain(torch.zeros(3, 12, 24), seeded(0)).shape == (3, 2, 4)

    def test_a_margin_counts_in_pixels_of_the_clean_picture(self) -> None:
        assert Chain([Step(1, 5), Step(2, 4), Step(1, 3)]).margin == 5 + 4 + 2 * 3 + 1  # a multiple of the scale

    @pytest.mark.parametrize("scales", [(3, 1, 2), (1, 4), (2, 2, 2)])
    def test_a_margin_can_be_trimmed_from_the_result(self, scales: tuple[int, ...]) -> None:
        chain = Chain([Step(scale, 5 * scale) for scale in scales])
        assert chain.margin % chain.scale == 0 and chain.margin >= 5 * max(scales)

    def test_steps_draw_one_after_another(self) -> None:
        noise = create("gaussian_noise", sigma=(10, 10))
        once, twice = (Chain([noise] * count)(torch.zeros(3, 64, 64), seeded(1)) for count in (1, 2))
        assert float(twice.std()) == pytest.approx(math.sqrt(2) * float(once.std()), rel=0.05)


class TestSeeds:
    def test_all_numbers_count_and_their_order(self) -> None:
        numbers = [(1, 2, 3), (3, 2, 1), (1, 2, 4), (1, 0, 3), (0, 2, 3), (2**40, 2, 3)]
        assert len({float(torch.rand((), generator=seeded(*each))) for each in numbers}) == len(numbers)

    def test_neighbours_are_independent(self) -> None:
        first, second = (
            torch.stack([torch.randn((), generator=seeded(0, number + shift)) for number in range(400)])
            for shift in (0, 1)
        )
        assert abs(float((first * second).mean())) < 0.2


class TestDraws:
    def test_uniform(self) -> None:
        generator = seeded(0)
        values = torch.tensor([uniform(generator, (-2.0, 4.0)) for _ in range(2000)])
        assert -2.0 <= float(values.min()) < -1.9 and 3.9 < float(values.max()) <= 4.0
        assert float(values.mean()) == pytest.approx(1.0, abs=0.15)

    def test_log_uniform_has_as_many_below_the_geometric_mean(self) -> None:
        generator = seeded(0)
        values = torch.tensor([log_uniform(generator, (0.01, 100.0)) for _ in range(2000)])
        assert float(values.min()) >= 0.01 * 0.999 and float(values.max()) <= 100.0 * 1.001
        assert float((values < 1.0).double().mean()) == pytest.approx(0.5, abs=0.04)

    def test_whole_reaches_both_ends(self) -> None:
        generator = seeded(0)
        assert {whole(generator, 3, 6) for _ in range(100)} == {3, 4, 5, 6}
        assert whole(generator, 7, 7) == 7

    def test_chance(self) -> None:
        generator = seeded(0)
        never, always = ([chance(generator, share) for _ in range(100)] for share in (0.0, 1.0))
        assert not any(never) and all(always)
        assert sum(chance(generator, 0.2) for _ in range(2000)) == pytest.approx(400, abs=70)

    def test_choice(self) -> None:
        generator = seeded(0)
        drawn = [choice(generator, (0.5, 0.0, 1.5)) for _ in range(1000)]
        assert drawn.count(1) == 0 and drawn.count(0) == pytest.approx(250, abs=55)


class TestEightBit:
    def test_keeps_what_has_eight_bits(self) -> None:
        codes = torch.arange(256) / 255.0
        assert torch.equal(quantized(codes), codes)

    def test_rounds_halves_up_and_clips(self) -> None:
        values = torch.tensor([-0.3, 0.49 / 255, 0.5 / 255, 1.0, 1.7])
        assert quantized(values).mul(255).tolist() == [0.0, 0.0, 1.0, 255.0, 255.0]
