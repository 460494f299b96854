"""Low light darkens by the exposure that is said, buries tones in noise, and does so in two independent ways."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor

from restorekit.color.transfer import decode
from restorekit.data.degradation import seeded
from restorekit.data.low_light import GAMMA, LowLight, lamps
from restorekit.metrics.psnr import psnr

Way = Literal["raw", "curve"]


def gray(level: float, side: int = 64) -> Tensor:
    return torch.full((3, side, side), level)


def dark(exposure: float, method: Way = "raw", uneven: float = 0.0) -> LowLight:
    return LowLight(methods=(method,), exposure=(exposure, exposure), uneven=(uneven, uneven), shot=(1e-5, 1e-5))


def test_light_falls_by_the_exposure() -> None:
    """Below the tone curve's shoulder display light is about in proportion to that of the scene."""
    for level in (0.2, 0.4):
        one, four = (
            float(decode(dark(exposure).degrade(gray(level), seeded(4)), "srgb").mean()) for exposure in (-1.0, -3.0)
        )
        assert one / four == pytest.approx(4.0, rel=0.25)


def test_less_light_is_further_from_the_good_picture() -> None:
    picture = torch.rand((3, 8, 8), generator=seeded(0)).repeat_interleave(8, 1).repeat_interleave(8, 2)
    scores = [psnr(dark(exposure).degrade(picture, seeded(2)), picture) for exposure in (-1.0, -2.0, -4.0)]
    assert scores == sorted(scores, reverse=True)


def test_noise_weighs_more_in_less_light() -> None:
    """Relative to the level that is left, also where the sensor is the same."""

    def relative(exposure: float) -> float:
        result = LowLight(methods=("raw",), exposure=(exposure, exposure), uneven=(0, 0), shot=(2e-3, 2e-3)).degrade(
            gray(0.6), seeded(7)
        )
        light = decode(result, "srgb")[1]
        return float(light.std() / light.mean())

    assert relative(-4.0) > 1.7 * relative(-1.0)


def test_nothing_becomes_brighter() -> None:
    for seed in range(4):
        for level in (0.3, 0.7):
            result = LowLight(exposure=(-3.0, -1.0), uneven=(2.0, 2.0)).degrade(gray(level), seeded(seed))
            assert float(result.mean()) < level + 0.01


def test_light_is_uneven_only_where_that_is_asked() -> None:
    even, uneven = (decode(dark(-2.0, uneven=spread).degrade(gray(0.6), seeded(3)), "srgb") for spread in (0.0, 1.0))
    blocks = [light.mean(0).unfold(0, 16, 16).unfold(1, 16, 16).mean((2, 3)) for light in (even, uneven)]
    assert float(blocks[0].max() / blocks[0].min()) < 1.1
    assert float(blocks[1].max() / blocks[1].min()) > 1.5


def test_lamps_have_no_preferred_level() -> None:
    fields = torch.stack([lamps(20, 30, seeded(seed)) for seed in range(300)])
    assert abs(float(fields.mean())) < 0.1
    assert float(fields.var()) == pytest.approx(0.8, abs=0.3)


def test_a_curve_darkens_by_a_power_of_the_encoded_value() -> None:
    """Two levels of one picture tell the power; it is one that is drawn."""
    halves = torch.cat([gray(0.9), gray(0.8)], 2)
    for seed in range(6):
        result = LowLight(methods=("curve",)).degrade(halves, seeded(seed))
        ratio = result[:, :, :64].mean().log() - result[:, :, 64:].mean().log()
        power = float(ratio / torch.tensor(0.9 / 0.8).log())
        assert GAMMA[0] * 0.9 < power < GAMMA[1] * 1.1
