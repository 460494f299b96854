"""Drops show the scene upside down by Snell's law, leave what is beside them alone, and come in two kinds."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch import Tensor

from restorekit.data import raindrops
from restorekit.data.degradation import quantized, seeded
from restorekit.data.raindrops import HEAD_ON, INDEX, Raindrops, blobs, heights, merged, refracted

Kind = Literal["refraction", "blur"]
METHODS: tuple[Kind, ...] = ("refraction", "blur")
SIDE = 96


def picture(side: int = SIDE) -> Tensor:
    return quantized(torch.rand((3, side, side), generator=seeded(5)))


def drop(radius: float = 14.0, contact: float = 0.7) -> Tensor:
    """One cap in the middle of a pane."""
    middle = torch.tensor([SIDE / 2 - 0.5])
    return merged(middle, middle, torch.tensor([radius]), contact, torch.zeros(2, SIDE, SIDE))


def ramp() -> Tensor:
    """Light that is its column."""
    return torch.arange(SIDE, dtype=torch.float32).expand(3, SIDE, SIDE).contiguous()


class TestHeights:
    @pytest.mark.parametrize("contact", [0.3, 0.8])
    def test_a_cap_is_as_high_as_its_angle_says(self, contact: float) -> None:
        assert float(drop(20.0, contact).max()) == pytest.approx(20.0 * math.tan(contact / 2), rel=0.01)

    @pytest.mark.parametrize("contact", [0.3, 0.8])
    def test_a_cap_meets_the_glass_at_its_angle(self, contact: float) -> None:
        row = drop(40.0, contact)[SIDE // 2]
        outer = torch.nonzero(row)[0].item()
        assert float(row[outer + 1] - row[outer]) == pytest.approx(math.tan(contact), rel=0.1)

    def test_caps_merge_without_a_crease(self) -> None:
        place = torch.tensor([30.0, 50.0])
        both = merged(torch.tensor([40.0, 40.0]), place, torch.tensor([16.0, 16.0]), 0.7, torch.zeros(2, 80, 80))
        assert float(both[40].diff()[20:60].diff().abs().max()) < 0.2

    @pytest.mark.parametrize("radius", [5.0, 20.0])
    def test_they_cover_about_as_much_as_is_said(self, radius: float) -> None:
        shares = [float((heights(128, 160, radius, 0.2, 0.7, seeded(seed)) > 0).float().mean()) for seed in range(12)]
        assert sum(shares) / len(shares) == pytest.approx(0.2, rel=0.35)


class TestRefraction:
    def test_flat_water_shows_what_is_behind(self) -> None:
        clean = picture()
        seen = refracted(clean, torch.ones(SIDE, SIDE), 500.0, 1.0, 3.0)
        assert torch.allclose(seen, clean * (1.0 - HEAD_ON), atol=1e-4)

    @pytest.mark.parametrize("slope", [0.2, 0.5])
    def test_a_slope_shifts_the_scene_by_snells_law(self, slope: float) -> None:
        focal, angle = 60.0, math.atan(slope)
        wedge = slope * torch.arange(SIDE).expand(SIDE, SIDE)
        shift = focal * math.tan(math.asin(INDEX * math.sin(angle)) - angle)
        seen = refracted(ramp(), wedge, focal, 1.0, 0.0)[0, :, 20:60] / (1.0 - HEAD_ON)
        assert torch.allclose(seen, ramp()[0, :, 20:60] + shift, rtol=0.01)

    def test_a_drop_shows_the_scene_turned(self) -> None:
        across = refracted(ramp(), drop(), 110.0, 1.0, 0.0)[0]
        down = refracted(ramp().transpose(1, 2).contiguous(), drop(), 110.0, 1.0, 0.0)[0].T
        for seen in (across, down):
            assert float(seen[38:58, 38:48].mean()) > float(seen[38:58, 48:58].mean()) + 5.0

    def test_a_bright_sky_is_seen_at_the_bottom(self) -> None:
        gray = torch.full((3, SIDE, SIDE), 0.3)
        even, bright = (refracted(gray, drop(), 500.0, 4.0, sky)[0, :, SIDE // 2] for sky in (0.0, 4.0))
        assert float(even[38:48].mean()) == pytest.approx(float(even[48:58].mean()), rel=0.01)
        assert float(bright[48:58].mean()) > 1.5 * float(bright[38:48].mean())

    def test_a_steep_rim_is_dark(self) -> None:
        gray = torch.full((3, SIDE, SIDE), 0.3)
        seen = refracted(gray, drop(30.0, math.radians(48.0)), 500.0, 4.0, 0.0)[0, SIDE // 2]
        assert float(seen[19]) < 0.92 * float(seen[SIDE // 2])


class TestOutside:
    def test_what_is_farther_than_the_defocus_stays(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(raindrops, "heights", lambda *_: drop())
        result = Raindrops(methods=("refraction",), defocus=(4.0, 4.0)).degrade(picture(), seeded(1))
        axis = torch.arange(SIDE) - (SIDE / 2 - 0.5)
        away = torch.hypot(axis[:, None], axis)
        assert torch.equal(result[:, away > 19.0], picture()[:, away > 19.0])
        assert float((result - picture())[:, away < 10.0].abs().mean()) > 0.05

    def test_what_is_beside_blobs_stays(self, monkeypatch: pytest.MonkeyPatch) -> None:
        covered = torch.zeros(SIDE, SIDE)
        covered[30:60, 30:60] = 1.0
        monkeypatch.setattr(raindrops, "blobs", lambda *_: covered)
        result = Raindrops(methods=("blur",)).degrade(picture(), seeded(1))
        assert torch.equal(result[:, covered == 0], picture()[:, covered == 0])
        assert float(result[:, 35:55, 35:55].std()) < 0.3 * float(picture().std())

    @pytest.mark.parametrize("method", METHODS)
    def test_more_drops_change_more(self, method: Kind) -> None:
        shares = [
            sum(
                float(
                    (Raindrops(methods=(method,), cover=(cover, cover)).degrade(picture(), seeded(n)) != picture())
                    .float()
                    .mean()
                )
                for n in range(3)
            )
            / 3
            for cover in (0.02, 0.15, 0.4)
        ]
        assert shares == sorted(shares) and 0.0 < shares[0] < 0.2 and shares[-1] > 0.3


@pytest.mark.parametrize("cover", [0.05, 0.3])
def test_blobs_cover_as_much_as_is_said(cover: float) -> None:
    spots = blobs(90, 120, 9.0, cover, seeded(2))
    assert float((spots > 0).float().mean()) == pytest.approx(cover, abs=0.01)
    assert float(spots.min()) >= 0.0 and float(spots.max()) == 1.0
