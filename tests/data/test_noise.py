"""White noise has the spread that was asked for, and nothing else."""

from __future__ import annotations

import pydantic
import pytest
import torch

from restorekit.data.degradation import seeded
from restorekit.data.noise import GaussianNoise

FLAT = torch.full((3, 96, 96), 0.5)


@pytest.mark.parametrize("sigma", [5.0, 25.0, 50.0])
class TestSpread:
    def test_standard_deviation_and_mean_on_a_flat_field(self, sigma: float) -> None:
        noise = GaussianNoise(sigma=(sigma, sigma)).degrade(FLAT, seeded(1)) - FLAT
        assert float(noise.std()) * 255 == pytest.approx(sigma, rel=0.02)
        assert abs(float(noise.mean())) * 255 < 0.03 * sigma

    def test_is_independent_of_the_picture(self, sigma: float) -> None:
        noises = [GaussianNoise(sigma=(sigma, sigma)).degrade(flat, seeded(1)) - flat for flat in (FLAT, FLAT * 0.2)]
        assert torch.allclose(*noises, atol=1e-6)

    def test_is_white(self, sigma: float) -> None:
        """Neither channels nor neighbours share it."""
        noise = GaussianNoise(sigma=(sigma, sigma)).degrade(FLAT, seeded(1)) - FLAT
        pairs = [(noise[0], noise[1]), (noise[:, 1:], noise[:, :-1]), (noise[..., 1:], noise[..., :-1])]
        assert all(abs(float((one * other).mean() / noise.var())) < 0.04 for one, other in pairs)


def test_spreads_are_drawn_between_two() -> None:
    spreads = [
        float((GaussianNoise(sigma=(10, 30)).degrade(FLAT, seeded(0, number)) - FLAT).std()) * 255
        for number in range(100)
    ]
    assert 9.7 < min(spreads) < 12 and 28 < max(spreads) < 31
    assert sum(spreads) / len(spreads) == pytest.approx(20, abs=2)


def test_no_noise_changes_nothing() -> None:
    assert torch.equal(GaussianNoise(sigma=(0, 0)).degrade(FLAT, seeded(1)), FLAT)


def test_only_clipped_pictures_have_eight_bits() -> None:
    bright = torch.ones(3, 32, 32)
    free, clipped = (GaussianNoise(sigma=(25, 25), clipped=share).degrade(bright, seeded(1)) for share in (0, 1))
    assert float(free.max()) > 1.1
    assert float(clipped.max()) == 1.0
    assert torch.equal(clipped.mul(255).round().div(255), clipped)


@pytest.mark.parametrize("parameters", [{"clipped": 1.5}, {"clipped": -0.1}, {"sigma": (1, 2, 3)}, {"sigma": "low"}])
def test_parameters_out_of_range_are_refused(parameters: dict[str, object]) -> None:
    with pytest.raises(pydantic.ValidationError):
        GaussianNoise(**parameters)  # type: ignore[arg-type]
