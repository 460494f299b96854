"""Haze moves colours to that of the airlight, the more the less far one sees, in two independent ways."""

from __future__ import annotations

import math
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor

from restorekit.color.transfer import decode
from restorekit.data.degradation import quantized, seeded
from restorekit.data.folders import Pictures, unpaired
from restorekit.data.haze import RESIDE_BETA, RESIDE_LIGHT, Haze, Method, extinction, hazed
from restorekit.metrics.psnr import psnr
from restorekit.planes import to_float

METHODS: tuple[Method, ...] = get_args(Method)


def noise(seed: int, side: int = 48) -> Tensor:
    return quantized(torch.rand((3, side, side), generator=seeded(seed)))


def gray(level: float, side: int = 48) -> Tensor:
    return torch.full((3, side, side), level)


def even(visibility: float, airlight: float = 0.8, cast: float = 0.0) -> Haze:
    return Haze(
        methods=("koschmieder",),
        visibility=(visibility, visibility),
        airlight=(airlight, airlight),
        cast=(cast, cast),
        patchiness=(0, 0),
    )


class TestHazed:
    def test_what_is_near_stays_and_what_is_far_is_airlight(self) -> None:
        light, airlight = noise(1), torch.tensor([0.7, 0.8, 0.9])
        assert torch.equal(hazed(light, torch.ones(48, 48), airlight), light)
        assert torch.allclose(hazed(light, torch.zeros(48, 48), airlight), airlight[:, None, None].expand(3, 48, 48))

    def test_colours_move_along_the_line_to_the_airlight(self) -> None:
        light, airlight = noise(1), torch.tensor([0.7, 0.8, 0.9])[:, None, None]
        result = hazed(light, torch.full((48, 48), 0.3), airlight[:, 0, 0])
        assert torch.allclose(airlight - result, 0.3 * (airlight - light), atol=1e-6)

    def test_two_percent_of_contrast_are_left_at_the_limit_of_visibility(self) -> None:
        for visibility in (0.5, 200.0):
            assert math.exp(-extinction(visibility) * visibility) == pytest.approx(0.02)


class TestKoschmieder:
    def test_clear_air_leaves_the_picture(self) -> None:
        assert torch.equal(even(1e6).degrade(noise(1), seeded(0)), noise(1))

    def test_the_less_far_one_sees_the_less_contrast_is_left(self) -> None:
        for seed in range(4):
            contrasts = [
                float(decode(even(visibility).degrade(noise(1), seeded(seed)), "srgb").std())
                for visibility in (8.0, 4.0, 2.0, 1.0)
            ]
            assert contrasts == sorted(contrasts, reverse=True)

    def test_dense_haze_is_airlight_of_its_colour(self) -> None:
        red, green, blue = decode(even(1e-3, 0.5, 0.5).degrade(noise(1), seeded(0)), "srgb").mean((1, 2))
        assert float(green) == pytest.approx(0.5, abs=0.01)
        assert float(red / green) == pytest.approx(math.sqrt(2.0), rel=0.02) == float(blue / green)

    def test_light_moves_by_one_share_in_all_channels(self) -> None:
        """Over a black picture haze has the airlight's colour everywhere, whatever the distance."""
        light = decode(even(2.0, 0.6, 0.6).degrade(gray(0.0), seeded(1)), "srgb")
        assert float(light[1].min()) > 0.005
        assert torch.allclose(light[0] / light[1], torch.full((48, 48), 2.0**0.6), rtol=0.15)

    def test_it_is_denser_in_some_patches_and_less_in_others(self) -> None:
        uniform, patchy = (
            torch.stack(
                [
                    Haze(methods=("koschmieder",), patchiness=(spread, spread)).degrade(gray(0.0), seeded(seed))
                    for seed in range(8)
                ]
            )
            for spread in (0.0, 0.3)
        )
        assert float((patchy - uniform).max()) > 0.02 and float((uniform - patchy).max()) > 0.02


class TestReside:
    def test_black_becomes_gray_as_the_ranges_say(self) -> None:
        for seed in range(8):
            result = Haze(methods=("reside",)).degrade(gray(0.0), seeded(seed))
            assert torch.equal(result[0], result[1]) and torch.equal(result[1], result[2])
            assert float(result.max()) <= RESIDE_LIGHT[1] * (1.0 - math.exp(-RESIDE_BETA[1])) + 1 / 255

    def test_encoded_values_are_mixed(self) -> None:
        """The same share of single pixels is left, whatever they are; these do not change the depth."""
        for seed in range(4):
            twice, once = (_left(gray(0.2), seed, added) for added in (0.6, 0.3))
            assert torch.allclose(twice, once, atol=2 / 255 / 0.3)
            assert math.exp(-RESIDE_BETA[1]) - 0.02 < float(twice.min()) and float(twice.max()) <= 1.01

    def test_the_picture_tells_what_is_far_to_some_degree(self) -> None:
        halves = gray(0.05)
        halves[:, :, 24:] = 0.6
        left = torch.stack([_left(halves, seed, 0.3) for seed in range(30)])
        assert float(left[:, :, 3:].mean()) < float(left[:, :, :3].mean()) - 0.02


def _left(picture: Tensor, seed: int, added: float) -> Tensor:
    """The share that is left of what is added to every eighth pixel."""
    specks = picture.clone()
    specks[:, 4::8, 4::8] += added
    one, other = (Haze(methods=("reside",)).degrade(each, seeded(seed)) for each in (picture, specks))
    return (other - one)[0, 4::8, 4::8] / added


@pytest.mark.parametrize("method", METHODS)
class TestBoth:
    def test_photographs_are_hazed_from_faint_to_dense(self, method: Method, shared_data: Path) -> None:
        photographs = Pictures(unpaired(shared_data / "photos" / "train")[::38])
        scores = []
        for number in range(6 * len(photographs)):
            clean = to_float(photographs[number % len(photographs)][:, 100:196, 100:196])
            scores.append(psnr(Haze(methods=(method,)).degrade(clean, seeded(number)), clean))
        tenth, median, ninth = (sorted(scores)[round(share * len(scores))] for share in (0.1, 0.5, 0.9))
        assert 7 < tenth < 15 and 12 < median < 22 and 19 < ninth < 40, "dB"
