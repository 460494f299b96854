"""The light of a reduced picture, carried to the full size: what it gets right, and what it keeps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from restorekit.metrics.psnr import psnr
from restorekit.stages import carried as carrying
from restorekit.stages.carried import carried_difference, carried_gain, enlarged, reduced, reduced_size
from restorekit.stages.resampling import area, resampled

SMALL = 96, 144
TALL, WIDE = 5 * SMALL[0], 5 * SMALL[1]


def scene(seed: int = 0, dark: float = 1.0) -> Tensor:
    """``[3,480,720]``: patches with edges between them, and detail of one px over them."""
    generator = torch.Generator().manual_seed(seed)
    patches = torch.rand((3, 8, 12), generator=generator).mul_(0.8).add_(0.1)
    flat = F.interpolate(patches[None], (TALL, WIDE), mode="nearest")[0]
    detail = torch.randn((3, TALL, WIDE), generator=generator).mul_(0.03)
    return flat.add_(detail).clamp_(0.0, 1.0) * dark


def at_full_size(picture: Tensor, small: Tensor, lit: Tensor) -> Tensor:
    return torch.cat([rows for _, rows in carried_gain(picture, small, lit)], 1)


def by_curve(picture: Tensor) -> Tensor:
    return picture.pow(0.5)


def in_colour(picture: Tensor) -> Tensor:
    return picture * torch.tensor([1.5, 1.0, 0.5]).view(3, 1, 1)


def from_left_to_right(picture: Tensor) -> Tensor:
    return picture.pow(torch.linspace(0.3, 1.0, picture.shape[2]))


@pytest.mark.parametrize("light", [by_curve, in_colour, from_left_to_right])
@pytest.mark.parametrize("dark", [1.0, 0.2])
def test_light_that_varies_slowly_is_that_of_the_full_size(light: Callable[[Tensor], Tensor], dark: float) -> None:
    picture = scene(dark=dark)
    small = reduced(picture, *SMALL)
    found = at_full_size(picture, small, light(small))
    assert psnr(found, light(picture)) > 38.0


@pytest.mark.parametrize("light", [by_curve, from_left_to_right])
def test_a_guide_is_worth_its_trouble(light: Callable[[Tensor], Tensor]) -> None:
    picture = scene()
    small = reduced(picture, *SMALL)
    gain = F.interpolate((light(small) / small.clamp_min(1e-3))[None], (TALL, WIDE), mode="bilinear")[0]
    found, without = at_full_size(picture, small, light(small)), picture * gain
    assert psnr(found, light(picture)) > psnr(without, light(picture)) + 2.0


def test_nothing_done_is_nothing_changed() -> None:
    picture = scene()
    small = reduced(picture, *SMALL)
    torch.testing.assert_close(at_full_size(picture, small, small), picture, atol=1e-6, rtol=0)


def test_what_changes_in_one_place_changes_nothing_elsewhere() -> None:
    picture = scene()
    small = reduced(picture, *SMALL)
    lit = small.clone()
    lit[:, 40:44, 60:64] *= 2.0
    off = (at_full_size(picture, small, lit) - picture).abs()
    assert float(off[:, 205:215, 305:315].mean()) > 0.2
    off[:, 150:270, 250:370] = 0.0
    assert float(off.max()) < 1e-6


def test_where_the_light_jumps_at_an_edge_its_halo_is_faint() -> None:
    picture = torch.full((3, TALL, WIDE), 0.1)
    picture[:, :, WIDE // 2 :] = 0.8
    small = reduced(picture, *SMALL)
    found = at_full_size(picture, small, torch.where(small < 0.4, small * 4.0, small))
    wanted = picture.clone()
    wanted[:, :, : WIDE // 2] = 0.4
    off = (found / wanted - 1.0).abs()
    assert float(off.max()) < 0.12
    assert float(off[:, :, : WIDE // 2 - 25].max()) < 1e-3 and float(off[:, :, WIDE // 2 + 25 :].max()) < 1e-3


def test_a_network_that_smooths_lowers_the_contrast_of_detail_and_blurs_none() -> None:
    picture = scene()
    small = reduced(picture, *SMALL)
    smooth = F.avg_pool2d(small[None], 5, 1, 2, count_include_pad=False)[0]
    found = at_full_size(picture, small, smooth)

    def finest(x: Tensor) -> Tensor:
        return x - F.avg_pool2d(x[None], 3, 1, 1, count_include_pad=False)[0]

    here, there = finest(found), finest(picture)
    assert float((here * there).sum() / (here.norm() * there.norm())) > 0.9
    assert float(here.norm() / there.norm()) < 0.9


@pytest.mark.parametrize("height", [1, 7, carrying.ROWS, carrying.ROWS + 3])
def test_rows_are_all_there_and_in_order(height: int) -> None:
    picture = torch.rand((1, height, 40), generator=torch.Generator().manual_seed(1))
    small = reduced(picture, max(1, height // 3), 14)
    tops = [(top, rows.shape[1]) for top, rows in carried_gain(picture, small, small)]
    assert [top for top, _ in tops] == list(range(0, height, carrying.ROWS))
    assert sum(count for _, count in tops) == height


def test_black_and_what_a_network_makes_darker_than_black_stay_finite() -> None:
    picture = scene()
    picture[:, :200] = 0.0
    small = reduced(picture, *SMALL)
    found = at_full_size(picture, small, small - 0.3)
    assert bool(found.isfinite().all())
    assert float(found.min()) >= -carrying.DARK and float(found[:, :150].abs().max()) < 1e-6


def test_reduced_is_the_mean_over_areas() -> None:
    picture = torch.randint(0, 256, (3, 70, 90), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(reduced(picture, 35, 30), resampled(picture.float() / 255, 35, 30, area))
    pooled = F.avg_pool2d(picture[None].float() / 255, (2, 3))[0]
    torch.testing.assert_close(reduced(picture, 35, 30), pooled)


def test_enlarged_is_linear_interpolation() -> None:
    planes = torch.rand((2, 9, 13), generator=torch.Generator().manual_seed(3))
    whole = F.interpolate(planes[None], (50, 61), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(enlarged(planes, 50, 61, 17, 40), whole[:, 17:40], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("size", "longest", "found"),
    [
        ((480, 640), 320, (240, 320)),
        ((640, 480), 320, (320, 240)),
        ((100, 80), 320, (100, 80)),
        ((1, 9000), 90, (1, 90)),
    ],
)
def test_reduced_size(size: tuple[int, int], longest: int, found: tuple[int, int]) -> None:
    assert reduced_size(*size, longest) == found


class TestDifference:
    """What was added to the reduced picture is added to the picture."""

    def test_what_is_soft_goes_at_full_size(self) -> None:
        """A veil without edges, over edges and detail: exact but for the linear interpolation."""
        picture = scene() * 0.6
        down, right = torch.linspace(0, 3, TALL)[:, None], torch.linspace(0, 5, WIDE)
        veiled = picture + (0.2 + 0.1 * down.sin() * right.cos())
        small = reduced(veiled, *SMALL)
        bands = list(carried_difference(veiled, small, reduced(picture, *SMALL)))
        found = torch.cat([rows for _, rows in bands], 1)
        assert psnr(found, picture) > 55.0 > psnr(veiled, picture)
        assert [top for top, _ in bands] == list(range(0, TALL, carrying.ROWS))

    def test_nothing_changed_is_the_picture_itself(self) -> None:
        eight_bit = scene().mul(255).round().to(torch.uint8)
        small = reduced(eight_bit, *SMALL)
        found = torch.cat([rows for _, rows in carried_difference(eight_bit, small, small)], 1)
        assert torch.equal(found.mul(255).round().to(torch.uint8), eight_bit)
