from __future__ import annotations

import colour
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from restorekit.color.gamut import (
    ACES_LIMITS,
    ACES_THRESHOLDS,
    aces_limits,
    compressed,
    desaturated,
    dimmed,
    into_gamut,
)
from restorekit.color.oklab import lms_to_oklab, lms_to_rgb, oklab_to_rgb, rgb_to_lms, rgb_to_oklab
from restorekit.color.primaries import conversion, rgb_to_xyz, transformed
from restorekit.color.transfer import decode, encode
from restorekit.state import Primaries

INF, NAN = float("inf"), float("nan")

GAMUT_COMP_13 = (
    ((0.8, 0.05, -0.1), (0.8, 0.076528, 0.01408)),
    ((-0.05, 0.6, 0.02), (0.011794, 0.6, 0.035541)),
    ((0.02, -0.03, 0.9), (0.057917, 0.048576, 0.9)),
    ((0.5, 0.5, 0.05), (0.5, 0.5, 0.050703)),
    ((0.3, 0.29, 0.31), (0.3, 0.29, 0.31)),
    ((1.2, -0.3, 0.1), (1.2, 0.002645, 0.105917)),
    ((-0.2, 0.4, 0.4), (-0.024196, 0.4, 0.4)),
    ((-0.1, -0.2, -0.05), (-0.097332, -0.103491, -0.05)),
)
"""ACEScg before and after the fixed function ACES_GamutComp13 of OpenColorIO 2.6 with the published parameters."""


def wide(to: Primaries, source: Primaries = "bt2020", count: int = 4000, dtype: torch.dtype = torch.float64) -> Tensor:
    """Seeded colours of a source in a target, a good part of them outside, up to a little above white."""
    rgb = torch.rand((3, count), dtype=torch.float64, generator=torch.Generator().manual_seed(3)).square() * 1.2
    return transformed(rgb, conversion(source, to)).to(dtype)


def hue(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """Degrees, for colours ``[N,3]``."""
    return np.degrees(np.arctan2(lab[:, 2], lab[:, 1]))


def turned(before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.abs((after - before + 180) % 360 - 180)


def oklab(rgb: Tensor, primaries: Primaries) -> NDArray[np.float64]:
    """``[N,3]`` by colour-science."""
    return np.asarray(colour.XYZ_to_Oklab((rgb_to_xyz(primaries) @ rgb.double().numpy()).T))


def test_what_is_inside_is_the_same_tensor() -> None:
    rgb = torch.rand((3, 5, 7), generator=torch.Generator().manual_seed(4))
    assert into_gamut(rgb, "p3") is rgb
    assert into_gamut(rgb * 9, "p3", peak=None) is not None
    bright = rgb * 9
    assert into_gamut(bright, "p3", peak=None) is bright
    assert into_gamut(rgb[:, :0], "p3").shape == (3, 0, 7)


@pytest.mark.parametrize("to", ["bt709", "p3"])
def test_colours_inside_stay_bit_for_bit_beside_others(to: Primaries) -> None:
    rgb = wide(to, dtype=torch.float32)
    inside = (rgb.amin(0) >= 0) & (rgb.amax(0) <= 1)
    assert 0.1 < float(inside.float().mean()) < 0.9
    assert torch.equal(into_gamut(rgb, to)[:, inside], rgb[:, inside])


@pytest.mark.parametrize("method", ["oklch", "aces"])
@pytest.mark.parametrize("source", ["p3", "bt2020", "adobe-rgb", "prophoto", "ap1", "xyz"])
@pytest.mark.parametrize("to", ["bt709", "p3", "bt2020", "ap1"])
def test_everything_comes_inside(method: str, source: Primaries, to: Primaries) -> None:
    rgb = wide(to, source, 800, torch.float32) * 3 - 0.2
    for peak in (1.0, 4.0):
        result = into_gamut(rgb, to, peak=peak, method=method)  # type: ignore[arg-type]
        assert float(result.min()) >= 0 and float(result.max()) <= peak
    assert float(into_gamut(rgb, to, peak=None, method=method).min()) >= 0  # type: ignore[arg-type]


def on_the_way(rgb: Tensor, to: Primaries, share: Tensor) -> Tensor:
    """Colours from gray (share 0) on: straight in cone responses to the power of 2/3, then at the first lightness."""
    lms = transformed(rgb, rgb_to_lms(to)).clamp_min(0)
    lms = torch.maximum(lms, 0.02 * lms.amax(0))
    lightness = lms_to_oklab(lms)[0]
    mixed = (share * lms ** (2 / 3) + (1 - share) * lightness**2).clamp_min(0) ** 1.5
    return transformed(mixed * (lightness / lms_to_oklab(mixed)[0]) ** 3, lms_to_rgb(to))


def share_at_edge(rgb: Tensor, to: Primaries) -> Tensor:
    """Of the way to each colour, and up to twice as far: what is before the first negative component."""
    shares = torch.linspace(0, 2, 4001, dtype=torch.float64)
    inside = torch.stack([on_the_way(rgb, to, share).amin(0) >= 0 for share in shares])
    return shares[inside.long().cumprod(0).sum(0) - 1]


@pytest.mark.parametrize("to", ["bt709", "p3"])
def test_lightness_stays_and_hue_nearly(to: Primaries) -> None:
    rgb = wide(to)
    before, after = oklab(rgb, to), oklab(desaturated(rgb, to), to)
    assert np.abs(after[:, 0] - before[:, 0]).max() < 1e-4
    coloured = np.hypot(after[:, 1], after[:, 2]) > 0.02
    turn = turned(hue(before), hue(after))[coloured]
    cyan_to_blue = np.abs(hue(before)[coloured] + 135) < 45
    assert turn.mean() < 1 and turn.max() < 15 and turn[~cyan_to_blue].max() < 3


@pytest.mark.parametrize("to", ["bt709", "p3", "ap1"])
def test_colours_outside_come_to_the_edge_straight_in_the_power_of_two_thirds(to: Primaries) -> None:
    rgb = wide(to, source="xyz" if to == "ap1" else "bt2020", count=300)
    rgb = rgb[:, rgb.amin(0) < -1e-3]
    result = desaturated(rgb, to)
    assert torch.allclose(result, on_the_way(rgb, to, share_at_edge(rgb, to)), atol=1e-3)
    assert float(result.amin(0).max()) < 1e-4


@pytest.mark.parametrize("to", ["bt709", "p3", "adobe-rgb", "ap1"])
def test_the_way_from_gray_to_any_edge_is_inside(to: Primaries) -> None:
    corners, along = torch.eye(3, dtype=torch.float64), torch.linspace(0, 1, 501, dtype=torch.float64)
    edge = torch.cat([corners[:, [i]] * along + corners[:, [i - 1]] * (1 - along) for i in range(3)], 1)
    lightness = rgb_to_oklab(edge, to)[0]
    for share in torch.linspace(0, 0.99, 34, dtype=torch.float64):
        least = on_the_way(edge, to, share).amin(0) / lightness**3
        assert float(least.min()) > 0.2 * (1 - share)  # so it meets the edge at an angle, and none touches it before


def srgb_steps(codes: Tensor, step: Tensor, to: Primaries, gamma: float | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Of colours in Rec.2020 codes (0..255) and their neighbours: the differences after mapping in codes and in Oklab,
    and in Oklab before."""

    def linear(codes: Tensor) -> Tensor:
        light = decode(codes / 255, "srgb") if gamma is None else (codes / 255) ** gamma
        return transformed(light, conversion("bt2020", to))

    one, other = linear(codes), linear(codes + step)
    mapped, neighbour = into_gamut(one, to), into_gamut(other, to)
    differences = (
        (encode(mapped, "srgb") - encode(neighbour, "srgb")) * 255,
        rgb_to_oklab(mapped, to) - rgb_to_oklab(neighbour, to),
        rgb_to_oklab(one, to) - rgb_to_oklab(other, to),
    )
    in_codes, after, before = differences
    return in_codes.abs().amax(0), after.norm(dim=0), before.norm(dim=0)


def codes_of_rec2020(red: range, green: range, blue: range) -> Tensor:
    axes = [torch.arange(axis.start, axis.stop, axis.step, dtype=torch.float64) for axis in (red, green, blue)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).reshape(3, -1)


GRID = codes_of_rec2020(range(0, 255, 6), range(0, 255, 6), range(2, 255, 6))
BLUE_CORNER = codes_of_rec2020(range(30, 75, 2), range(45), range(195, 255, 2))
STEPS = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]], dtype=torch.float64)[..., None]


@pytest.mark.parametrize("to", ["bt709", "p3"])
@pytest.mark.parametrize("codes", [GRID, BLUE_CORNER], ids=["grid", "blue corner"])
def test_neighbours_stay_neighbours(codes: Tensor, to: Primaries) -> None:
    for step in STEPS:
        in_codes, after, before = srgb_steps(codes, step, to)
        # Without any mapping 22 codes are met too, where a component is just above 0 and the curve of sRGB is steep.
        assert float(in_codes.max()) < 22
        assert float((in_codes > 6).double().mean()) < 0.08
        assert bool((after < 4 * before + 1e-3).all())


@pytest.mark.parametrize("to", ["bt709", "p3"])
def test_smaller_steps_are_smaller(to: Primaries) -> None:
    for step in STEPS:
        in_codes, *_ = srgb_steps(BLUE_CORNER, step, to)
        worst = BLUE_CORNER[:, in_codes.topk(20).indices]
        parts = torch.cat([worst + step * part / 100 for part in range(100)], 1)
        fine, *_ = srgb_steps(parts, step / 100, to)
        assert float(fine.max()) < float(in_codes.max()) / 10


def test_blues_of_a_chart_have_no_salt_and_pepper() -> None:
    blue = torch.tensor([[57.0], [31.0], [228.0]], dtype=torch.float64)
    in_codes, after, before = srgb_steps(blue, torch.ones_like(blue), "bt709", gamma=2.2)
    assert float(in_codes) < 11 and float(after) < 3 * float(before)


def test_twice_the_light_gives_twice_the_result() -> None:
    rgb = wide("bt709", dtype=torch.float32)
    assert torch.allclose(desaturated(rgb * 8, "bt709"), desaturated(rgb, "bt709") * 8, atol=2e-4)


REDS = ((1, 0, 0), (1, 0, 0.1), (1, 0, 0.25), (1, 0.1, 0), (1, 0.25, 0))
BLUES = tuple(color[::-1] for color in REDS)
OTHER_SPACES = {
    "IPT": colour.XYZ_to_IPT,
    "ICtCp": lambda xyz: colour.XYZ_to_ICtCp(xyz * 203),
    "JzAzBz": lambda xyz: colour.XYZ_to_Jzazbz(xyz * 203),
}


@pytest.mark.parametrize("space", OTHER_SPACES)
@pytest.mark.parametrize("colors", [REDS, BLUES], ids=["reds", "blues"])
@pytest.mark.parametrize("to", ["bt709", "p3"])
def test_hue_of_saturated_ramps_in_other_spaces(
    to: Primaries, colors: tuple[tuple[float, ...], ...], space: str
) -> None:
    share = torch.linspace(0.05, 1, 12, dtype=torch.float64)
    pure = torch.tensor(colors, dtype=torch.float64).T[:, :, None]
    ramps = torch.cat([pure * share, pure * share + 1 - share], 2).reshape(3, -1)
    rgb = transformed(ramps, conversion("bt2020", to))
    rgb = rgb[:, (rgb.amin(0) < -1e-6) | (rgb.amax(0) > 1 + 1e-6)]
    before, mapped, clipped = (
        hue(OTHER_SPACES[space]((rgb_to_xyz(to) @ color.numpy()).T))
        for color in (rgb, into_gamut(rgb, to), rgb.clamp(0, 1))
    )
    assert turned(before, mapped).mean() < 3
    assert turned(before, mapped).mean() < 0.7 * turned(before, clipped).mean()


@pytest.mark.parametrize("angle", [-1.67, 0.5, 2.5])
def test_knee_leaves_the_core_and_keeps_colours_apart(angle: float) -> None:
    steps = torch.linspace(0.02, 0.3, 60, dtype=torch.float64)
    lab = torch.stack([torch.full_like(steps, 0.6), steps * np.cos(angle), steps * np.sin(angle)])
    rgb = oklab_to_rgb(lab, "bt709")
    distance = 1 / share_at_edge(rgb, "bt709")  # of the colour, where that of the edge is 1
    result = desaturated(rgb, "bt709", knee=0.3)
    core = distance < 0.699
    assert 0 < int(core.sum()) < 50 and torch.equal(result[:, core], rgb[:, core])
    chroma = rgb_to_oklab(result, "bt709")[1:].norm(dim=0)
    assert bool((chroma.diff() > 0).all()) and bool((chroma <= steps + 1e-12).all())
    expected = 0.7 + 0.3 * (1 - 1 / (1 + (distance - 0.7).clamp_min(0) / 0.3))
    assert torch.allclose(result[:, ~core], on_the_way(rgb, "bt709", expected / distance)[:, ~core], atol=1e-3)
    assert float(result[:, ~core].min()) > 0
    with pytest.raises(ValueError, match="knee"):
        desaturated(rgb, "bt709", knee=1.0)


def test_neutrals_and_great_light_become_white() -> None:
    rgb = torch.tensor([[1.2, 30.0, 9.0, 40.0], [1.2, 30.0, 7.0, 12.0], [1.2, 30.0, 5.0, 12.0]])
    assert torch.allclose(dimmed(rgb, "bt709"), torch.ones(3, 4), atol=2e-5)


def test_a_little_too_bright_keeps_its_saturation() -> None:
    colors = torch.tensor([[1.0, 0.2, 0.1], [0.1, 0.3, 1.0], [0.9, 1.0, 0.2]], dtype=torch.float64)
    assert torch.allclose(dimmed(colors * 1.02, "bt709"), colors / colors.amax(0), atol=0.01)


def test_two_stops_too_bright_keeps_its_lightness() -> None:
    colors = torch.tensor([[0.0, 0.2, 0.5], [0.02, 0.0, 0.0], [1.0, 1.0, 1.0]], dtype=torch.float64) * 4
    before, after = rgb_to_oklab(colors, "bt709"), rgb_to_oklab(dimmed(colors, "bt709"), "bt709")
    assert float(before[0].max()) < 1
    assert torch.allclose(after[0], before[0], atol=1e-4)


def test_dimmed_keeps_oklab_hue_and_scales_with_the_peak() -> None:
    rgb = torch.rand((3, 500), dtype=torch.float64, generator=torch.Generator().manual_seed(5)) * 2.5
    result = dimmed(rgb, "p3")
    before, after = oklab(rgb, "p3"), oklab(result, "p3")
    coloured = np.hypot(after[:, 1], after[:, 2]) > 0.02
    assert turned(hue(before), hue(after))[coloured].max() < 0.5
    assert torch.allclose(dimmed(rgb * 4.9, "p3", 4.9), result * 4.9, atol=1e-4)


@pytest.mark.parametrize("color", [(1.0, 0.05, 0.02), (0.3, 0.8, 1.0), (1.0, 0.9, 0.1)])
def test_ramps_of_light_have_no_steps(color: tuple[float, float, float]) -> None:
    light = torch.logspace(-2, 1, 3001, dtype=torch.float64)
    ramp = torch.tensor(color, dtype=torch.float64)[:, None] * light
    steps = dimmed(ramp, "bt709").pow(1 / 2.4).diff(dim=1).abs()
    assert float(steps.max()) < 0.006


def test_colours_no_light_can_have() -> None:
    rgb = torch.tensor([[-0.05, -1.0, 0.0, -1e-4], [-0.02, -2.0, 0.0, -2e-4], [1.0, -3.0, 0.0, 1e-5]])
    lamp, *dark = desaturated(rgb, "bt709").T
    assert float(lamp[2]) > 0.1 and lamp.argmax() == 2
    assert all(float(color.max()) < 1e-5 for color in dark)


def test_nan_stays_and_infinite_light_is_white() -> None:
    rgb = torch.tensor([[NAN, INF, 0.5], [-1.0, INF, 0.5], [0.2, INF, -0.5]])
    for method in ("oklch", "aces"):
        result = into_gamut(rgb, "bt709", method=method)  # type: ignore[arg-type]
        assert bool(result[:, 0].isnan().any())
        assert torch.allclose(result[:, 1], torch.ones(3), atol=1e-4)
        assert float(result[:, 2].min()) >= 0 and float(result[:, 2].max()) <= 1


def test_single_precision_is_enough() -> None:
    rgb = wide("bt709")
    assert torch.allclose(into_gamut(rgb.float(), "bt709").double(), into_gamut(rgb, "bt709"), atol=5e-5)


@pytest.mark.parametrize(("before", "after"), GAMUT_COMP_13)
def test_published_compression_is_that_of_opencolorio(before: tuple[float, ...], after: tuple[float, ...]) -> None:
    assert torch.allclose(compressed(torch.tensor(before)), torch.tensor(after), atol=2e-6)


def test_thresholds_protect_and_limits_reach_the_edge() -> None:
    below = torch.eye(3, dtype=torch.float64).new_tensor([1 - t for t in ACES_THRESHOLDS])
    for component, limit in enumerate(ACES_LIMITS):
        color = torch.ones(3, dtype=torch.float64)
        color[component] = below[component] + 1e-9
        assert torch.equal(compressed(color), color)
        color[component] = 1 - limit
        assert abs(float(compressed(color)[component])) < 1e-12


@pytest.mark.parametrize(("source", "to"), [("bt2020", "bt709"), ("bt2020", "p3"), ("p3", "bt709"), ("ap1", "bt2020")])
def test_limits_bring_the_hull_of_the_source_to_that_of_the_target(source: Primaries, to: Primaries) -> None:
    limits = aces_limits(source, to)
    rgb = wide(to, source)
    assert float(rgb.min()) < -0.01
    mapped = compressed(rgb, limits)
    assert float(mapped.min()) >= -1e-9
    assert torch.equal(mapped.amax(0), rgb.amax(0))
    corners = transformed(
        torch.tensor([[1.0, 0, 0, 1, 0, 1], [0, 1, 0, 1, 1, 0], [0, 0, 1, 0, 1, 1]]), conversion(source, to)
    )
    farthest = (compressed(corners.double(), limits) / corners.amax(0)).amin(1)
    assert float(farthest.min()) < 1e-3


def test_limits_within_the_target_leave_colours_alone() -> None:
    assert max(aces_limits("bt709", "bt2020")) <= 1
    rgb = wide("bt2020", "bt709")
    assert compressed(rgb, aces_limits("bt709", "bt2020")) is rgb
    assert aces_limits("p3", "p3") == pytest.approx((1, 1, 1))


def test_camera_primaries_are_refused() -> None:
    with pytest.raises(ValueError, match="camera"):
        into_gamut(torch.tensor([1.0, -1.0, 0.5]), "camera")
