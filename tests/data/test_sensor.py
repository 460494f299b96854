"""Noise has the variance that it says, a bent response is smooth, levels are whole numbers."""

from __future__ import annotations

import pytest
import torch

from restorekit.data.degradation import seeded
from restorekit.data.sensor import bent, noisy, quantised


@pytest.mark.parametrize(("shot", "read"), [(1e-2, 0.0), (2e-4, 1e-5), (0.0, 1e-4), (5e-2, 1e-3)])
@pytest.mark.parametrize("light", [0.0, 0.02, 0.6])
def test_variance_follows_light(light: float, shot: float, read: float) -> None:
    flat = torch.full((3, 160, 200), light)
    seen = noisy(flat, shot, read, seeded(4)).double()
    expected = shot * light + read
    count = flat.numel()
    kurtosis = shot**2 * light * shot / max(expected, 1e-12) ** 2  # of the Poisson share
    assert float(seen.mean()) == pytest.approx(light, abs=4 * (expected / count) ** 0.5 + 1e-7)
    assert float(seen.var()) == pytest.approx(expected, rel=4 * ((2 + kurtosis) / count) ** 0.5, abs=1e-12)


def test_without_noise_light_stays() -> None:
    light = torch.rand((1, 8, 8), generator=seeded(1)) - 0.2
    assert torch.equal(noisy(light, 0.0, 0.0, seeded(2)), light)


def test_few_electrons_are_skewed_and_many_are_not() -> None:
    flat = torch.full((1, 200, 200), 0.05)
    skews = []
    for shot in (2e-2, 1e-5):
        deviation = noisy(flat, shot, 0.0, seeded(3)).double() - 0.05
        skews.append(float(deviation.pow(3).mean() / deviation.pow(2).mean() ** 1.5))
    assert skews[0] == pytest.approx((0.05 / 2e-2) ** -0.5, rel=0.1)
    assert abs(skews[1]) < 0.06


@pytest.mark.parametrize("knee", [0.0, 0.7, 0.999, 1.0])
def test_response_is_linear_to_its_knee_and_ends_at_one(knee: float) -> None:
    light = torch.linspace(-0.5, 3.0, 70001, dtype=torch.float64)
    response = bent(light, knee)
    assert torch.equal(response[light <= knee], light[light <= knee])
    assert torch.allclose(response[light >= 2 - knee], torch.ones(1, dtype=torch.float64))
    slopes = response.diff() / light.diff()
    assert float(slopes.min()) >= -1e-9
    assert float(slopes.max()) <= 1 + 1e-9
    if knee < 0.9:
        assert float(slopes.diff().abs().max()) < 1e-3


def test_levels_are_whole_below_zero_too() -> None:
    values = torch.rand((3, 20, 20), generator=seeded(1)) * 1.2 - 0.1
    levels = quantised(values, 10) * 1023
    assert torch.allclose(levels, levels.round(), atol=1e-3)
    assert float((levels / 1023 - values).abs().max()) <= 0.5 / 1023 + 1e-6
