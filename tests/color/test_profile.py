"""Tables and curves of camera profiles against the letter of the specification, pixel by pixel."""

from __future__ import annotations

import colour
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from restorekit.color.profile import Encoding, hue_sat_mapped, is_identity, tone_curve_table, tone_mapped

Array = NDArray[np.float64]
RANDOM = np.random.default_rng(5)
COLORS = torch.from_numpy(RANDOM.uniform(0, 1, (3, 8, 9)).astype(np.float32))
WILD = torch.from_numpy(RANDOM.uniform(-0.5, 4, (3, 40, 50)).astype(np.float32))


def identity(steps: int = 1, hues: int = 6, saturations: int = 4) -> NDArray[np.float32]:
    return np.tile(np.array([0, 1, 1], np.float32), (steps, hues, saturations, 1))


def random_table(steps: int, hues: int, saturations: int) -> NDArray[np.float32]:
    """Any table, but for the value factor of grays, which is 1."""
    table = RANDOM.uniform((-60, 0.3, 0.7), (60, 1.6, 1.3), (steps, hues, saturations, 3)).astype(np.float32)
    table[:, :, 0, 2] = 1
    return table


def by_the_letter(rgb: Array, table: NDArray[np.float32], encoding: Encoding) -> Array:
    """One colour ``[3]`` in 0..1 as DNG 1.7.1 says, without the clipping of the value."""
    hue, saturation, value = colour.RGB_to_HSV(rgb)
    if encoding == "srgb":
        value = colour.cctf_encoding(value, "sRGB")
    sizes = table.shape[:3]
    places = (value * (sizes[0] - 1), hue * sizes[1], saturation * (sizes[2] - 1))
    modify = np.zeros(3)
    for corner in range(8):
        weight, index = 1.0, []
        for axis, (place, size) in enumerate(zip(places, sizes, strict=True)):
            upper = corner >> axis & 1
            share = place - np.floor(place)
            weight *= share if upper else 1 - share
            step = int(np.floor(place)) + upper
            index.append(step % size if axis == 1 else min(step, size - 1))
        modify += weight * table[tuple(index)]
    shift, saturate, scale = modify
    value *= scale
    if encoding == "srgb":
        value = colour.cctf_decoding(value, "sRGB")
    hsv = np.array([(hue + shift / 360) % 1, min(saturation * saturate, 1), value])
    return np.asarray(colour.HSV_to_RGB(hsv))


@pytest.mark.parametrize("encoding", ["linear", "srgb"])
@pytest.mark.parametrize("sizes", [(1, 6, 4), (1, 1, 2), (5, 7, 3), (2, 1, 2), (16, 36, 8)])
def test_a_table_does_what_the_specification_says(sizes: tuple[int, int, int], encoding: Encoding) -> None:
    table = random_table(*sizes)
    got = hue_sat_mapped(COLORS, table, encoding).double().numpy().reshape(3, -1)
    told = encoding if sizes[0] > 1 else "linear"  # without value steps, the encoding does not apply
    wanted = [by_the_letter(rgb, table, told) for rgb in COLORS.double().numpy().reshape(3, -1).T]
    assert np.abs(got - np.array(wanted).T).max() < 5e-5  # steps of this table are as steep as 120 degrees


@pytest.mark.parametrize("encoding", ["linear", "srgb"])
@pytest.mark.parametrize("steps", [1, 8])
def test_the_identity_changes_nothing(steps: int, encoding: Encoding) -> None:
    assert is_identity(identity(steps))
    assert not is_identity(random_table(1, 6, 4))
    assert torch.allclose(hue_sat_mapped(COLORS, identity(steps), encoding), COLORS, atol=1e-6)
    assert torch.allclose(hue_sat_mapped(WILD, identity(steps), encoding), WILD, atol=4e-6), "also out of 0..1"


@pytest.mark.parametrize("degrees", [-170.0, -30.0, 45.0, 120.0, 200.0])
def test_a_hue_shift_turns_the_hue_alone(degrees: float) -> None:
    table = identity()
    table[..., 0] = degrees
    turned = colour.RGB_to_HSV(hue_sat_mapped(COLORS, table).permute(1, 2, 0).double().numpy())
    before = colour.RGB_to_HSV(COLORS.permute(1, 2, 0).double().numpy())
    off = (turned[..., 0] - before[..., 0] - degrees / 360 + 0.5) % 1 - 0.5
    assert np.abs(off).max() < 1e-5
    assert np.abs(turned[..., 1:] - before[..., 1:]).max() < 1e-5


def test_grays_stay_gray_at_any_brightness() -> None:
    gray = torch.linspace(0, 20, 50).expand(3, 1, 50)
    for table in (random_table(1, 6, 4), random_table(5, 6, 4)):
        assert torch.allclose(hue_sat_mapped(gray, table), gray, rtol=1e-6)


@pytest.mark.parametrize("gain", [0.01, 0.5, 8.0, 1000.0])
def test_without_value_steps_exposure_does_not_matter(gain: float) -> None:
    table = random_table(1, 12, 5)
    assert torch.allclose(hue_sat_mapped(COLORS * gain, table), hue_sat_mapped(COLORS, table) * gain, atol=2e-6 * gain)


@pytest.mark.parametrize("encoding", ["linear", "srgb"])
def test_light_above_white_takes_the_brightest_step(encoding: Encoding) -> None:
    dark, bright = random_table(1, 6, 4), random_table(1, 6, 4)
    bright[..., 2] = 1
    light = COLORS / COLORS.amax(0) * 3
    mapped = hue_sat_mapped(light, np.concatenate((dark, bright)), encoding)
    assert torch.allclose(mapped, hue_sat_mapped(light, bright), atol=1e-5)
    assert float(mapped.max()) > 2.5


def test_what_lies_outside_of_prophoto_may_lose_saturation_but_not_gain() -> None:
    outside = torch.tensor([0.8, 0.3, -0.2])[:, None, None]
    more, less = identity(), identity()
    more[..., 1], less[..., 1] = 2.0, 0.5
    assert torch.allclose(hue_sat_mapped(outside, more), outside, atol=1e-6)
    assert torch.allclose(hue_sat_mapped(outside, less), 0.8 - (0.8 - outside) / 2, atol=1e-6)
    inside = torch.tensor([0.8, 0.5, 0.3])[:, None, None]
    assert torch.allclose(hue_sat_mapped(inside, more)[2], torch.zeros(1), atol=1e-6), "others reach 1 at most"


def test_nothing_becomes_nan() -> None:
    odd = torch.tensor([[0.0, 0, 0], [-1, -2, -3], [-1, 2, -3], [1e-20, 0, 0], [0, -1e-12, 0], [1e8, 1, 0]])
    for table in (random_table(1, 6, 4), random_table(5, 6, 4)):
        for encoding in ("linear", "srgb"):
            mapped = hue_sat_mapped(odd.T[:, None], table, encoding)  # type: ignore[arg-type]
            assert mapped.isfinite().all()
            assert (mapped[:, 0, 0] == 0).all(), "black stays black"


def curve(count: int = 12) -> NDArray[np.float32]:
    x = np.sort(np.concatenate(([0.0, 1.0], RANDOM.uniform(0.02, 0.98, count))))
    return np.stack((x, np.sort(RANDOM.uniform(0, 1, len(x)))), axis=1).astype(np.float32)


@pytest.mark.parametrize("count", [0, 1, 12])
def test_the_curve_is_the_natural_spline_through_its_points(count: int) -> None:
    points = curve(count).astype(np.float64)
    at = np.linspace(0, 1, 4096) ** 2
    wanted = CubicSpline(points[:, 0], points[:, 1], bc_type="natural")(at) if count else np.interp(at, *points.T)
    assert np.abs(tone_curve_table(points) - wanted).max() < 1e-6


def test_a_curve_that_ends_early_keeps_its_last_value() -> None:
    table = tone_curve_table(np.array([[0.2, 0.1], [0.5, 0.7]], np.float32))
    assert (table[0], table[-1]) == pytest.approx((0.1, 0.7))


def test_extreme_channels_follow_the_curve_and_the_hue_stays() -> None:
    points = np.array([[0, 0], [0.1, 0.05], [0.5, 0.7], [1, 1]], np.float32)
    exact = CubicSpline(*points.T.astype(np.float64), bc_type="natural")
    mapped = tone_mapped(COLORS, tone_curve_table(points))
    for extreme in (torch.amin, torch.amax):
        assert np.abs(extreme(mapped, 0).numpy() - exact(extreme(COLORS, 0).numpy())).max() < 1e-5
    before, after = (colour.RGB_to_HSV(x.permute(1, 2, 0).double().numpy())[..., 0] for x in (COLORS, mapped))
    assert np.abs((after - before + 0.5) % 1 - 0.5).max() < 1e-4


def test_the_curve_clamps_what_it_does_not_know() -> None:
    table = tone_curve_table(np.array([[0, 0], [1, 1]], np.float32))
    mapped = tone_mapped(torch.tensor([-0.3, 0.25, 7.0])[:, None, None], table)
    assert torch.allclose(mapped.flatten(), torch.tensor([0.0, 0.25, 1.0]), atol=1e-6)
