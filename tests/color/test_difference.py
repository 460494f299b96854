from __future__ import annotations

import colour
import numpy as np
import pytest
import torch

from restorekit.color.adaptation import D50, D65
from restorekit.color.difference import ciede2000, rgb_to_lab, xyz_to_lab

SHARMA = [
    ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
    ((50, -1.3802, -84.2814), (50, 0, -82.7485), 1.0000),
    ((50, 0, 0), (50, -1, 2), 2.3669),
    ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
    ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
    ((50, -0.001, 2.49), (50, 0.0011, -2.49), 4.7461),
    ((50, 2.5, 0), (50, 0, -2.5), 4.3065),
    ((50, 2.5, 0), (73, 25, -18), 27.1492),
    ((50, 2.5, 0), (50, 3.2592, 0.335), 1.0000),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ((22.7233, 20.0904, -46.694), (23.0331, 14.973, -42.5619), 2.0373),
    ((90.9257, -0.5406, -0.9208), (88.6381, -0.8985, -0.7239), 1.5381),
    ((2.0776, 0.0795, -1.135), (0.9033, -0.0636, -0.5514), 0.9082),
]
"""Pairs from the test data of Sharma, Wu and Dalal (2005), table 1."""


def test_published_pairs() -> None:
    first, second = (torch.tensor([pair[i] for pair in SHARMA], dtype=torch.float64).T for i in (0, 1))
    expected = [pair[2] for pair in SHARMA]
    assert ciede2000(first, second).tolist() == pytest.approx(expected, abs=1e-4)


def test_random_colours_match_colour_science() -> None:
    random = np.random.default_rng(3)
    first, second = (random.uniform((0, -90, -90), (100, 90, 90), (2000, 3)) for _ in range(2))
    got = ciede2000(torch.from_numpy(first.T), torch.from_numpy(second.T)).numpy()
    assert np.abs(got - colour.delta_E(first, second, method="CIE 2000")).max() < 1e-6


def test_difference_is_symmetric_and_zero_for_the_same_colour() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (100 * torch.rand(3, 4, 5, generator=generator) - 20 for _ in range(2))
    assert torch.allclose(ciede2000(first, second), ciede2000(second, first), atol=1e-4)
    assert ciede2000(first, first).abs().max() == 0
    gray = torch.zeros(3, 2, 2)
    assert ciede2000(gray, gray).abs().max() == 0


@pytest.mark.parametrize("white", [D50, D65])
def test_lab_matches_colour_science(white: tuple[float, float]) -> None:
    xyz = np.random.default_rng(5).uniform(0, 1.1, (500, 3)) ** 3
    got = xyz_to_lab(torch.from_numpy(xyz.T), white).numpy().T
    assert np.abs(got - colour.XYZ_to_Lab(xyz, np.array(white))).max() < 1e-6


def test_rgb_white_is_lab_white_under_any_light() -> None:
    ones = torch.ones(3, 1, dtype=torch.float64)
    for primaries in ("bt709", "bt2020", "prophoto"):
        for white in (None, D50, D65):
            assert rgb_to_lab(ones, primaries, white).flatten().tolist() == pytest.approx([100, 0, 0], abs=1e-6)


def test_rgb_red_under_d50() -> None:
    """The sRGB red in a D50 connection space: L* 54.29, a* 80.81, b* 69.89 (ICC v4 rendering)."""
    red = torch.tensor([[1.0], [0.0], [0.0]], dtype=torch.float64)
    assert rgb_to_lab(red, "bt709", D50).flatten().tolist() == pytest.approx([54.29, 80.81, 69.89], abs=0.05)


def test_camera_rgb_has_no_lab() -> None:
    with pytest.raises(ValueError, match="camera"):
        rgb_to_lab(torch.ones(3, 1), "camera")
