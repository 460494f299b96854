"""A pane adds light of another picture, twice where its faces lie apart, and as much as Fresnel's equations say."""

from __future__ import annotations

import math
import pickle
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from restorekit.color.transfer import decode
from restorekit.data.degradation import Degradation, PictureList, quantized, seeded
from restorekit.data.folders import Pictures, unpaired
from restorekit.data.kernels import disk
from restorekit.data.reflection import (
    FOCAL_PX,
    INDEX,
    PASSED,
    Method,
    Reflection,
    cut,
    fresnel,
    incidence,
    shifted,
    unveiled,
)
from restorekit.metrics.psnr import psnr
from restorekit.planes import to_float

SIDE = 48

NORMAL = ((INDEX - 1) / (INDEX + 1)) ** 2
"""What one face reflects of light that meets it at right angles."""

METHODS: Sequence[Method] = ("physical", "screen", "ceilnet")


def gray(level: float, height: int = SIDE, width: int = SIDE) -> Tensor:
    return torch.full((3, height, width), level)


def bytes_of(level: int, height: int = SIDE, width: int = SIDE) -> Tensor:
    return torch.full((3, height, width), level, dtype=torch.uint8)


def noise(seed: int, height: int = SIDE, width: int = SIDE) -> Tensor:
    return torch.randint(0, 256, (3, height, width), generator=seeded(seed), dtype=torch.uint8)


def sharp(pictures: PictureList = (), *, exposure: float = 3.0, ghost: float = 0.0, cast: float = 0.0) -> Reflection:
    """A thin pane looked through at right angles, with the other scene in focus."""
    pane = Reflection(
        methods=("physical",),
        exposure=(exposure, exposure),
        highlights=(0, 0),
        angle=(0, 0),
        defocus=(0, 0),
        ghost=(ghost, ghost),
        cast=(cast, cast),
    )
    return pane.given(pictures)


def ceilnet(pictures: PictureList, weight: float = 1.0) -> Degradation:
    return Reflection(methods=("ceilnet",), weight=(weight, weight)).given(pictures)


class TestPhysical:
    def test_light_is_only_added(self) -> None:
        pane = Reflection(methods=("physical",)).given([noise(1), noise(2)])
        clean = quantized(to_float(noise(3)))
        for seed in range(6):
            result = pane.degrade(clean, seeded(seed))
            assert bool((result >= clean).all()) and not torch.equal(result, clean)

    def test_two_faces_add_what_fresnel_says(self) -> None:
        """White, 3 EV lighter, at right angles: the share of the front face, and nearly as much of the back one."""
        light = decode(sharp([bytes_of(255)]).degrade(gray(0.0, 9, 9), seeded(0)), "srgb")[:, 4, 4]
        least, most = (8 * NORMAL * (1 + (1 - NORMAL) ** 2 * passed) for passed in PASSED)
        assert least - 0.01 < float(light.min()) <= float(light.max()) < most + 0.01

    def test_lights_of_both_scenes_add_up(self) -> None:
        behind, reflected = (
            decode(sharp([bytes_of(200)]).degrade(gray(level), seeded(1)), "srgb") for level in (0.4, 0.0)
        )
        assert torch.allclose(behind, decode(gray(0.4), "srgb") + reflected, atol=0.008)

    def test_more_light_is_further_from_the_good_picture(self) -> None:
        clean = gray(0.3)
        results = [sharp([noise(4)], exposure=exposure).degrade(clean, seeded(2)) for exposure in (-2.0, 0.0, 2.0)]
        assert bool((results[0] <= results[1]).all()) and bool((results[1] <= results[2]).all())
        scores = [psnr(result, clean) for result in results]
        assert scores[0] > scores[1] + 3 > scores[2] + 6

    def test_a_point_is_seen_twice(self) -> None:
        """The second time fainter, and as far away as is said."""
        point = bytes_of(0)
        point[:, SIDE // 2, SIDE // 2] = 255
        for seed in range(4):
            light = decode(sharp([point], ghost=10.0).degrade(gray(0.0), seeded(seed)), "srgb")[1]
            (first, second), places = light.flatten().topk(2)
            rows, columns = places // SIDE, places % SIDE
            assert math.hypot(rows[1] - rows[0], columns[1] - columns[0]) == pytest.approx(10.0, abs=0.8)
            assert int((light > 0).sum()) == 2
            assert (1 - NORMAL) ** 2 * PASSED[0] - 0.03 < float(second / first) < (1 - NORMAL) ** 2 + 0.03

    def test_a_point_out_of_focus_is_a_disk(self) -> None:
        point = bytes_of(0, 41, 41)
        point[:, 20, 20] = 255
        pane = Reflection(
            methods=("physical",), exposure=(8, 8), defocus=(6, 6), ghost=(0, 0), angle=(0, 0), cast=(0, 0)
        )
        light = decode(pane.given([point]).degrade(gray(0.0, 41, 41), seeded(0))[1], "srgb")
        lit = light > light[20, 20] / 2
        assert int(lit.sum()) == pytest.approx(math.pi * 6**2, rel=0.2)
        assert bool(lit[15, 20] and lit[25, 20] and lit[20, 15]) and not bool(lit[15, 15] or lit[13, 20])

    def test_the_other_light_has_its_colour(self) -> None:
        red, green, blue = decode(sharp([bytes_of(128)], cast=1.0).degrade(gray(0.0), seeded(0)), "srgb").mean((1, 2))
        assert float(red / green) == pytest.approx(2.0, rel=0.05) == float(blue / green)


class TestCeilnet:
    def test_encoded_values_add_up_below_white(self) -> None:
        result = ceilnet([bytes_of(102)]).degrade(gray(51 / 255), seeded(0))
        assert torch.allclose(result, gray(153 / 255), atol=1e-6)
        half = ceilnet([bytes_of(102)], 0.5).degrade(gray(51 / 255), seeded(0))
        assert torch.allclose(half, gray(102 / 255), atol=1e-6)

    def test_what_goes_beyond_white_is_taken_off(self) -> None:
        """0.8 + 0.6 is 0.4 too much: 1.3 times that is taken off 0.6."""
        result = ceilnet([bytes_of(153)]).degrade(gray(204 / 255), seeded(0))
        assert torch.allclose(result, gray(0.8 + 0.6 - 1.3 * 0.4), atol=0.003)

    def test_the_reflection_is_blurred(self) -> None:
        stripes = (torch.arange(SIDE) % 2 * 255).to(torch.uint8).expand(3, SIDE, SIDE)
        assert float(ceilnet([stripes]).degrade(gray(0.0), seeded(0)).std()) < 0.05


class TestScreen:
    def test_the_darkness_of_both_is_multiplied(self) -> None:
        """0.4 and half of 0.8: 1 - 0.6 * 0.6. White stays white."""
        pane = Reflection(methods=("screen",), weight=(0.5, 0.5)).given([bytes_of(204)])
        assert torch.allclose(pane.degrade(gray(0.4), seeded(0)), quantized(gray(0.64)), atol=1e-6)
        assert torch.equal(pane.degrade(gray(1.0), seeded(0)), gray(1.0))

    def test_the_reflection_is_out_of_focus(self) -> None:
        stripes = (torch.arange(SIDE) % 2 * 255).to(torch.uint8).expand(3, SIDE, SIDE)
        sharp, soft = (
            Reflection(methods=("screen",), weight=(1, 1), defocus=(radius, radius)).given([stripes])
            for radius in (0.0, 6.0)
        )
        assert float(sharp.degrade(gray(0.0), seeded(0)).std()) > 0.4
        assert float(soft.degrade(gray(0.0), seeded(0)).std()) < 0.1

    def test_the_weight_is_drawn(self) -> None:
        pane = Reflection(methods=("screen",), weight=(0.2, 0.6)).given([bytes_of(255)])
        drawn = [float(pane.degrade(gray(0.0), seeded(seed)).mean()) for seed in range(20)]
        assert 0.19 < min(drawn) < 0.3 and 0.5 < max(drawn) < 0.61


class TestOtherPictures:
    @pytest.mark.parametrize("method", METHODS)
    def test_black_ones_leave_the_picture(self, method: Method) -> None:
        clean = quantized(to_float(noise(6)))
        for seed in range(3):
            assert torch.equal(Reflection(methods=(method,)).given([bytes_of(0)]).degrade(clean, seeded(seed)), clean)

    def test_all_are_drawn(self) -> None:
        seen = {
            round(
                float(ceilnet([bytes_of(level) for level in (51, 102, 153)]).degrade(gray(0.0), seeded(seed)).mean()), 2
            )
            for seed in range(20)
        }
        assert seen == {0.2, 0.4, 0.6}

    def test_they_are_mirrored(self) -> None:
        left = bytes_of(0)
        left[:, :, : SIDE // 2] = 255
        added = sharp([left]).degrade(gray(0.0), seeded(0))
        assert float(added[:, :, : SIDE // 2].max()) == 0.0 < float(added[:, :, SIDE // 2 :].min())

    def test_without_any_it_is_the_picture_upside_down(self) -> None:
        clean = gray(0.0)
        clean[:, :10, :20] = 1.0
        added = sharp().degrade(clean, seeded(0))
        assert torch.equal(added > 0, (clean > 0) | (clean.flip(1, 2) > 0))

    @pytest.mark.parametrize("size", [(200, 30), (30, 200), (20, 20), (SIDE, 31)])
    def test_small_ones_are_enlarged(self, size: tuple[int, int]) -> None:
        for seed in range(3):
            part = cut(bytes_of(51, *size), SIDE, 31, seeded(seed))
            assert part.shape == (3, SIDE, 31) and torch.allclose(part, torch.tensor(0.2))

    def test_every_place_is_drawn(self) -> None:
        picture = torch.arange(6, dtype=torch.uint8).reshape(1, 2, 3).expand(3, 2, 3)
        seen = {int(cut(picture, 1, 1, seeded(seed))[0, 0, 0] * 255 + 0.5) for seed in range(60)}
        assert seen == set(range(6))

    def test_they_are_no_parameters(self) -> None:
        pane = Reflection()
        with_some = pane.given([noise(1)])
        assert with_some == pane and repr(with_some) == repr(pane) and hash(with_some) == hash(pane)
        clean = to_float(noise(2))
        before = pane.degrade(clean, seeded(0))
        assert not torch.equal(with_some.degrade(clean, seeded(0)), before), "they are mixed in"
        assert torch.equal(pane.degrade(clean, seeded(0)), before), "the one they were given to is as it was"

    def test_they_go_with_it_to_other_processes(self) -> None:
        pane = Reflection().given([noise(1), noise(2)])
        clean = to_float(noise(3))
        assert torch.equal(pickle.loads(pickle.dumps(pane)).degrade(clean, seeded(4)), pane.degrade(clean, seeded(4)))

    def test_photographs_reflect_each_other_from_faint_to_strong(self, shared_data: Path) -> None:
        photographs = Pictures(unpaired(shared_data / "photos" / "train")[::26])
        for method in METHODS:
            pane, scores = Reflection(methods=(method,)).given(photographs), []
            for number in range(4 * len(photographs)):
                clean = to_float(photographs[number % len(photographs)][:, 100:196, 100:196])
                scores.append(psnr(pane.degrade(clean, seeded(number)), clean))
            tenth, median, ninth = (sorted(scores)[round(share * len(scores))] for share in (0.1, 0.5, 0.9))
            assert 8 < tenth < 20 and 17 < median < 30 and ninth > 24, "dB"


class TestPane:
    def test_fresnel_at_known_angles(self) -> None:
        """At right angles, at Brewster's angle, where light along the plane of incidence passes, and along the pane."""
        brewster = math.atan(INDEX)
        normal, polarized, grazing = fresnel(torch.tensor([1.0, math.cos(brewster), 0.0])).tolist()
        assert normal == pytest.approx(NORMAL, rel=1e-4)
        assert polarized == pytest.approx(0.5 * math.cos(2 * brewster) ** 2, rel=1e-4)
        assert grazing == pytest.approx(1.0)

    def test_the_angle_is_that_of_the_middle_and_grows_towards_a_side(self) -> None:
        for direction, row, column in ((0.0, 50, 100), (math.pi / 2, 100, 50)):
            angles = incidence(101, 101, 0.6, direction).acos()
            assert float(angles[50, 50]) == pytest.approx(0.6, abs=1e-4)
            assert float(angles[row, column]) == pytest.approx(0.6 + math.atan(50 / FOCAL_PX), abs=1e-4)

    def test_nobody_looks_along_the_pane(self) -> None:
        assert math.degrees(float(incidence(9, 4001, 1.2, 0.3).min().acos())) == pytest.approx(80.0, abs=0.01)

    def test_disks_have_their_area_and_light(self) -> None:
        assert disk(0.0).tolist() == [[1.0]]
        for radius in (0.7, 3.3, 8.0):
            kernel = disk(radius)
            assert kernel.sum() == pytest.approx(1.0)
            assert 1 / kernel.max() == pytest.approx(math.pi * radius**2, rel=0.2)

    def test_a_moved_picture_repeats_its_edge(self) -> None:
        picture = torch.arange(6.0).reshape(1, 2, 3)
        assert shifted(picture, 0, 1).tolist() == [[[0, 0, 1], [3, 3, 4]]]
        assert shifted(picture, -1, 0).tolist() == [[[3, 4, 5], [3, 4, 5]]]

    def test_highlights_are_as_much_lighter_as_is_said(self) -> None:
        light = torch.tensor([0.0, 0.01, 1.0])
        assert unveiled(light, 2.0).tolist() == pytest.approx([0.0, 0.01, 4.0], rel=0.01)
        assert torch.equal(unveiled(light, 0.0), light)
