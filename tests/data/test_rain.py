"""Rain falls along its slant, hides no more than its drops cover, and is drawn in two independent ways."""

from __future__ import annotations

import math
from typing import Literal

import cv2
import pytest
import torch
from torch import Tensor

from restorekit.color.transfer import decode, encode
from restorekit.data.degradation import quantized, seeded
from restorekit.data.kernels import line
from restorekit.data.precipitation import Precipitation
from restorekit.data.rain import (
    DROPS_PER_MM,
    NEAREST_M,
    Rain,
    drawn_drops,
    extinction,
    smeared,
    steepness,
    streaks,
    velocity,
)
from restorekit.metrics.psnr import psnr

METHODS: tuple[Literal["drops", "noise"], ...] = ("drops", "noise")
EMPTY = torch.full((128, 128), math.inf)
"""Distances of a scene with nothing in it."""


def shower(rate: float = 40.0, wind: float = 0.0, exposure: float = 0.01, aperture: float = 0.1) -> Precipitation:
    return Precipitation(rate=rate, wind=wind, exposure=exposure, focal=1500.0, aperture=aperture, focus=1e6)


def picture(side: int = 96) -> Tensor:
    small = torch.rand((1, 3, 9, 9), generator=seeded(5))
    return quantized(torch.nn.functional.interpolate(small, (side, side), mode="bilinear")[0] * 0.6)


def slant(rain: Tensor) -> float:
    """Degrees from the vertical of what varies least, by the structure tensor; positive: its lower end to the right."""
    down, right = torch.gradient(torch.from_numpy(cv2.GaussianBlur(rain.numpy(), (0, 0), 1.5)))
    moment = 0.5 * math.atan2(2 * float((down * right).sum()), float((right.square() - down.square()).sum()))
    return -math.degrees(moment)


class TestDrops:
    @pytest.mark.parametrize(("diameter", "speed"), [(0.5, 2.06), (1.0, 4.03), (2.0, 6.49), (3.0, 8.06), (5.0, 9.09)])
    def test_they_fall_as_fast_as_was_measured(self, diameter: float, speed: float) -> None:
        """Gunn & Kinzer, The Terminal Velocity of Fall for Water Droplets in Stagnant Air, 1949."""
        assert float(velocity(torch.tensor(diameter))) == pytest.approx(speed, rel=0.05)

    @pytest.mark.parametrize("rate", [5.0, 25.0, 100.0])
    def test_so_much_water_falls_as_the_rate_says(self, rate: float) -> None:
        diameter = torch.arange(0.25, 10.0, 0.01)
        number = DROPS_PER_MM * (-steepness(rate) * diameter).exp()
        volume = math.pi / 6 * diameter**3 * number * velocity(diameter) * 0.01  # mm3 m-3 m/s
        assert float(volume.sum()) * 1e-6 * 3600 == pytest.approx(rate, rel=0.2)

    @pytest.mark.parametrize("rate", [5.0, 100.0])
    def test_they_take_twice_their_cross_section(self, rate: float) -> None:
        diameter = torch.arange(0.005, 20.0, 0.01, dtype=torch.float64)
        area = math.pi / 4 * diameter**2 * DROPS_PER_MM * (-steepness(rate) * diameter).exp() * 0.01
        assert 2e-6 * float(area.sum()) == pytest.approx(extinction(rate), rel=1e-3)

    def test_near_the_camera_there_are_all_that_are_in_the_view(self) -> None:
        rate, focal, area = 30.0, 2000.0, 1e6
        diameter, distance = drawn_drops(area, rate, focal, seeded(1))
        near = (distance > 1.0) & (distance < 2.0) & (diameter > 0.7)
        number = DROPS_PER_MM / steepness(rate) * math.exp(-0.7 * steepness(rate))
        assert int(near.sum()) == pytest.approx(number * area / focal**2 * (8.0 - 1.0) / 3.0, rel=0.1)


class TestStreaks:
    @pytest.mark.parametrize("exposure", [0.004, 0.01])
    def test_drops_cover_as_much_whatever_the_exposure(self, exposure: float) -> None:
        """Longer streaks are as much more transparent: the sum is that of the drops' areas."""
        weather = shower(rate=20.0, exposure=exposure)
        diameter, distance = drawn_drops(EMPTY.numel(), weather.rate, weather.focal, seeded(3))
        areas = math.pi / 4 * (1e-3 * weather.focal * diameter / distance).square()
        assert float(streaks(EMPTY, weather, seeded(3)).sum()) == pytest.approx(float(areas.sum()), rel=0.1)

    @pytest.mark.parametrize("wind", [-6.0, 0.0, 3.0])
    def test_they_lie_as_the_wind_blows(self, wind: float) -> None:
        measured = slant(streaks(EMPTY, shower(wind=wind), seeded(4)))
        slow, fast = (math.degrees(math.atan2(wind, float(velocity(torch.tensor(size))))) for size in (1.0, 5.0))
        assert min(slow, fast) - 3.0 < measured < max(slow, fast) + 3.0

    def test_a_wide_aperture_spreads_near_ones(self) -> None:
        sharp, wide = (streaks(EMPTY, shower(aperture=aperture), seeded(5)) for aperture in (0.1, 8.0))
        assert float(wide.std()) < 0.85 * float(sharp.std())
        assert float(wide.sum()) == pytest.approx(float(sharp.sum()), rel=0.1)

    def test_none_are_behind_the_scene(self) -> None:
        half = EMPTY.clone()
        half[:, :64] = NEAREST_M
        thickness = streaks(half, shower(aperture=0.0), seeded(6))
        assert float(thickness[:, :50].abs().max()) < 1e-4 < 1e-2 < float(thickness[:, 64:].max())


class TestNoise:
    @pytest.mark.parametrize("angle", [-40.0, 0.0, 25.0])
    def test_streaks_lie_along_the_slant(self, angle: float) -> None:
        assert slant(smeared(160, 160, 0.1, 2.0, 40.0, angle, seeded(1))) == pytest.approx(angle, abs=3.0)

    def test_a_pictures_streaks_are_slanted_as_is_said(self) -> None:
        rainy = Rain(methods=("noise",), slant=(30.0, 30.0), width=(2.0, 2.0), length=(40.0, 40.0))
        result = rainy.degrade(torch.full((3, 160, 160), 0.2), seeded(2))
        assert slant(result[0]) == pytest.approx(30.0, abs=3.0)

    def test_it_only_brightens(self) -> None:
        clean = picture()
        for seed in range(6):
            assert bool((Rain(methods=("noise",)).degrade(clean, seeded(seed)) >= clean).all())

    def test_twice_the_cover_is_twice_the_rain(self) -> None:
        one, two = (float(smeared(400, 400, cover, 2.0, 30.0, 10.0, seeded(3)).mean()) for cover in (0.02, 0.04))
        assert two == pytest.approx(2 * one, rel=0.15)

    def test_lines_keep_the_sum(self) -> None:
        for length, angle in ((1.0, 0.0), (12.5, 33.0), (60.0, -80.0)):
            assert line(length, angle).sum() == pytest.approx(1.0)

    def test_reaches_the_strength_of_published_sets(self) -> None:
        """Rain100H: 13.6 dB, Rain100L: 26.9 dB."""
        heavy = Rain(methods=("noise",), layers=(5, 5), cover=(0.4, 0.4), opacity=(0.8, 0.8))
        light = Rain(methods=("noise",), layers=(1, 1), cover=(0.05, 0.05), opacity=(0.4, 0.4))
        assert psnr(heavy.degrade(picture(), seeded(4)), picture()) < 13.6
        assert psnr(light.degrade(picture(), seeded(4)), picture()) > 26.9


class TestLight:
    def test_rain_is_as_bright_as_the_surroundings(self) -> None:
        """All of a gray scene becomes brighter, and nothing brighter than they are."""
        clean = torch.full((3, 96, 96), round(255 * float(encode(torch.tensor([0.1]), "srgb"))) / 255)
        for seed in range(4):
            result = Rain(methods=("drops",), surroundings=(2.0, 2.0)).degrade(clean, seeded(seed))
            most = 4.0 * float(decode(clean, "srgb").max())
            assert bool((result >= clean).all()) and float(decode(result, "srgb").max()) < most + 0.01
            assert not torch.equal(result, clean)

    @pytest.mark.parametrize("level", [0, 128])
    def test_rain_in_an_even_field_is_not_seen(self, level: int) -> None:
        clean = torch.full((3, 64, 64), level / 255)
        result = Rain(methods=("drops",), surroundings=(0.0, 0.0)).degrade(clean, seeded(1))
        assert float((result - clean).abs().max()) < 1.01 / 255

    def test_more_rain_is_further_from_the_good_picture(self) -> None:
        scores = [
            sum(
                psnr(Rain(methods=("drops",), rate=(rate, rate)).degrade(picture(), seeded(n)), picture())
                for n in (1, 2)
            )
            for rate in (2.0, 15.0, 120.0)
        ]
        assert scores == sorted(scores, reverse=True)

    def test_a_far_scene_is_veiled(self) -> None:
        """In rain too fine to be seen otherwise: contrast falls with the distance."""
        near, far = (
            Rain(methods=("drops",), distance=(away, away), rate=(50.0, 50.0)).degrade(picture(), seeded(8))
            for away in (10.0, 400.0)
        )
        assert float(far.std()) < 0.8 * float(near.std())
