"""Flakes take the light that their areas take, near and far, at rest and moving; noise has the cover that it says."""

from __future__ import annotations

import math
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor

from restorekit.data import snow
from restorekit.data.degradation import quantized, seeded
from restorekit.data.folders import Pictures, unpaired
from restorekit.data.precipitation import Precipitation
from restorekit.data.snow import (
    DENSITY,
    FLAKES_PER_MM,
    LOBES,
    Flakes,
    Method,
    Snow,
    apart,
    covered,
    drawn_flakes,
    extinction,
    particles,
    steepness,
    velocity,
)
from restorekit.metrics.psnr import psnr
from restorekit.planes import to_float

METHODS: tuple[Method, ...] = get_args(Method)

FALL = Precipitation(rate=1.5, wind=1.0, exposure=1 / 200, focal=1000.0, aperture=2.0, focus=20.0)


def gray(level: float, side: int = 64) -> Tensor:
    return torch.full((3, side, side), level)


def flake(
    radius: float, *, blur: float = 0.0, down: float = 0.0, right: float = 0.0, lobed: float = 0.0, light: float = 1.0
) -> Flakes:
    """One whose path begins at (40, 40)."""
    numbers = [torch.tensor([number]) for number in (40.0, 40.0, down, right, radius, blur, light)]
    return Flakes(*numbers, waves=torch.full((1, 2, len(LOBES)), lobed))


def hidden(flakes: Flakes) -> Tensor:
    thickness, _ = covered(80, 80, flakes)
    return 1.0 - thickness.neg().exp()


class TestCovered:
    @pytest.mark.parametrize("radius", [0.3, 1.0, 4.0, 12.0])
    @pytest.mark.parametrize("blur", [0.0, 2.0])
    def test_a_flake_hides_its_area_in_focus_or_not(self, radius: float, blur: float) -> None:
        assert float(hidden(flake(radius, blur=blur)).sum()) == pytest.approx(math.pi * radius**2, rel=0.3)

    @pytest.mark.parametrize("path", [(12.0, 0.0), (9.0, -9.0), (0.0, 25.0)])
    def test_and_also_while_it_moves(self, path: tuple[float, float]) -> None:
        moving = hidden(flake(4.0, down=path[0], right=path[1]))
        assert float(moving.sum()) == pytest.approx(math.pi * 16.0, rel=0.2)
        assert float(moving[40 + round(path[0] / 2), 40 + round(path[1] / 2)]) == pytest.approx(
            8.0 / math.hypot(*path), abs=0.15
        )

    def test_it_is_opaque_in_focus_and_at_rest(self) -> None:
        alone = hidden(flake(5.0))
        assert float(alone[38:43, 38:43].min()) > 0.98
        assert float(alone[:, :32].max()) == 0.0 == float(alone[48:].max())

    def test_lobes_make_it_irregular(self) -> None:
        round_, lobed = hidden(flake(10.0)), hidden(flake(10.0, lobed=0.8))
        assert float((round_ - lobed).abs().max()) > 0.9
        assert torch.allclose(round_, round_.rot90(), atol=0.01)

    def test_light_is_that_of_the_flakes_there(self) -> None:
        thickness, light = covered(80, 80, flake(5.0, light=0.7))
        assert float(light[40, 40]) == pytest.approx(0.7)
        assert float(light[thickness > 0].max()) == pytest.approx(0.7)

    def test_any_number_at_a_time_gives_the_same(self, monkeypatch: pytest.MonkeyPatch) -> None:
        flakes = drawn_flakes(80, 80, FALL, seeded(1))
        together = covered(80, 80, flakes)
        monkeypatch.setattr(snow, "BATCH_PX", 500)
        for one, other in zip(together, covered(80, 80, flakes), strict=True):
            assert torch.allclose(one, other, atol=1e-5)

    def test_no_flakes_hide_nothing(self) -> None:
        none = Flakes(*(each[:0] for each in flake(1.0)))
        assert float(hidden(none).max()) == 0.0


class TestSnowfall:
    def test_the_air_takes_light_as_all_flakes_do(self) -> None:
        """Twice their areas, added up over the distribution of their melted diameters."""
        for rate in (0.5, 3.0):
            melted = torch.linspace(0.0, 40.0, 200001, dtype=torch.float64)
            number = FLAKES_PER_MM * rate**-0.87 * (-steepness(rate) * melted).exp()
            area = math.pi / 4 * melted**3 / DENSITY
            assert extinction(rate) == pytest.approx(2e-6 * float(torch.trapezoid(number * area, melted)), rel=1e-3)

    def test_what_falls_adds_up_to_the_rate(self) -> None:
        """Water of all flakes, 1 mm3 on 1 m2 being 1e-6 mm, at about a metre a second."""
        for rate in (0.5, 1.0, 3.0):
            number = FLAKES_PER_MM * rate**-0.87
            water = number * math.pi / 6 * math.gamma(4) / steepness(rate) ** 4
            assert water * 1e-6 * 3600 == pytest.approx(rate, rel=0.1)

    def test_one_sees_less_than_a_kilometre_in_moderate_snow(self) -> None:
        """1 mm/h: some 800 m (e.g. Rasmussen, Vivekanandan, Cole, Myers & Masters, J. Appl. Meteor. 38 (1999))."""
        assert 500 < 3.912 / extinction(1.0) < 1200

    def test_flakes_sink_at_about_a_metre_a_second(self) -> None:
        assert velocity(torch.tensor([1.0, 4.0, 10.0])).tolist() == pytest.approx([0.8, 1.0, 1.156], abs=0.01)

    def test_they_lie_all_over_the_picture(self) -> None:
        flakes = drawn_flakes(300, 200, FALL, seeded(1))
        down, right = flakes.top + flakes.down / 2, flakes.left + flakes.right / 2
        assert float(down.mean()) == pytest.approx(150, rel=0.1) and float(right.mean()) == pytest.approx(100, rel=0.1)

    def test_small_images_are_more_by_the_cube(self) -> None:
        """As many are wider than twice a width as fill an eighth of the view."""
        radius = drawn_flakes(1000, 1000, FALL, seeded(1)).radius
        assert int((radius > 0.5).sum()) / int((radius > 1.0).sum()) == pytest.approx(8.0, rel=0.3)

    def test_paths_are_as_long_as_the_exposure(self) -> None:
        short, long = (drawn_flakes(200, 200, FALL._replace(exposure=time), seeded(1)) for time in (0.001, 0.004))
        assert torch.allclose(4.0 * short.down, long.down, rtol=1e-4)
        assert torch.allclose(4.0 * short.right, long.right, rtol=1e-4)

    def test_wind_drives_them_to_its_side(self) -> None:
        for wind in (-3.0, 3.0):
            assert float(drawn_flakes(200, 200, FALL._replace(wind=wind), seeded(1)).right.mean()) * wind > 0

    def test_there_are_no_more_than_can_be_told_apart(self) -> None:
        heavy = drawn_flakes(200, 200, FALL._replace(rate=50.0, focal=4000.0), seeded(1))
        assert len(heavy.radius) <= 1.2 * snow.CROWDED * 200 * 200


class TestFlakes:
    @pytest.mark.parametrize("level", [0.0, 0.2, 1.0])
    def test_snow_lies_between_the_picture_and_its_own_light(self, level: float) -> None:
        flakes = Snow(methods=("flakes",), light=(0.5, 0.5))
        for seed in range(4):
            result = flakes.degrade(gray(level), seeded(seed))
            away = (result - quantized(gray(level))) * (1.0 if level < 0.5 else -1.0)
            assert float(away.min()) >= 0.0 and float(away.max()) > 0.1

    def test_more_snow_hides_more(self) -> None:
        light = [
            float(
                torch.stack(
                    [Snow(methods=("flakes",), rate=(rate, rate)).degrade(gray(0.0), seeded(seed)) for seed in range(6)]
                ).mean()
            )
            for rate in (0.3, 1.0, 4.0)
        ]
        assert light == sorted(light) and light[2] > 2 * light[0]

    def test_it_has_no_colour(self) -> None:
        result = Snow(methods=("flakes",)).degrade(gray(0.1), seeded(3))
        assert torch.equal(result[0], result[1]) and torch.equal(result[1], result[2])


class TestNoise:
    def test_a_dark_picture_becomes_brighter_only(self) -> None:
        for seed in range(6):
            clean = quantized(torch.rand((3, 64, 64), generator=seeded(seed)))
            result = Snow(methods=("noise",)).degrade(clean, seeded(seed))
            assert bool((result >= clean).all()) and not torch.equal(result, clean)

    @pytest.mark.parametrize("grain", [1.5, 5.0, 12.0])
    def test_particles_cover_what_is_said(self, grain: float) -> None:
        for cover in (0.02, 0.1):
            share = torch.stack([(particles(150, 200, grain, cover, seeded(seed)) > 0).float() for seed in range(4)])
            assert float(share.mean()) == pytest.approx(cover, rel=0.35)

    def test_larger_particles_are_fewer_edges(self) -> None:
        edges = [
            float((particles(150, 150, grain, 0.1, seeded(1)) > 0.0).float().diff().abs().sum())
            for grain in (1.5, 5.0, 12.0)
        ]
        assert edges == sorted(edges, reverse=True) and edges[0] > 3 * edges[2]

    def test_colours_lie_apart(self) -> None:
        bar = torch.zeros(9, 9)
        bar[:, 4] = 1.0
        red, green, blue = apart(bar, 1.0)
        assert torch.equal(green, bar)
        assert torch.equal(red, bar.roll(-1, 1)) and torch.equal(blue, bar.roll(1, 1))
        assert all(torch.equal(plane, bar) for plane in apart(bar, 0.0))


@pytest.mark.parametrize("method", METHODS)
class TestBoth:
    def test_photographs_are_covered_from_little_to_much(self, method: Method, shared_data: Path) -> None:
        photographs = Pictures(unpaired(shared_data / "photos" / "train")[::38])
        scores = []
        for number in range(6 * len(photographs)):
            clean = to_float(photographs[number % len(photographs)][:, 100:196, 100:196])
            scores.append(psnr(Snow(methods=(method,)).degrade(clean, seeded(number)), clean))
        tenth, median, ninth = (sorted(scores)[round(share * len(scores))] for share in (0.1, 0.5, 0.9))
        assert 11 < tenth < 21 and 17 < median < 28 and 23 < ninth < 40, "dB"
