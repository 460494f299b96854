from __future__ import annotations

import colour
import numpy as np
import pytest
import torch

from restorekit.color.oklab import cube_root, oklab_to_rgb, rgb_to_oklab
from restorekit.color.primaries import CHROMATICITIES, rgb_to_xyz
from restorekit.state import Primaries


@pytest.mark.parametrize(
    ("xyz", "lab"),
    [
        ((0.950, 1.000, 1.089), (1.000, 0.000, 0.000)),
        ((1.000, 0.000, 0.000), (0.450, 1.236, -0.019)),
        ((0.000, 1.000, 0.000), (0.922, -0.671, 0.263)),
        ((0.000, 0.000, 1.000), (0.153, -1.415, -0.449)),
    ],
)
def test_published_pairs(xyz: tuple[float, ...], lab: tuple[float, ...]) -> None:
    got = rgb_to_oklab(torch.tensor(xyz, dtype=torch.float64), "xyz")
    assert np.allclose(got, lab, atol=2e-3)


@pytest.mark.parametrize("primaries", ["bt709", "p3", "bt2020", "adobe-rgb"])
def test_is_that_of_colour_science(primaries: Primaries) -> None:
    rgb = torch.rand((3, 500), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = colour.XYZ_to_Oklab((rgb_to_xyz(primaries) @ rgb.numpy()).T).T
    assert np.allclose(rgb_to_oklab(rgb, primaries), expected, atol=3e-4)  # its white is not exactly D65


@pytest.mark.parametrize("primaries", [name for name in CHROMATICITIES if name != "xyz"])
def test_neutrals_have_no_chroma_under_any_white(primaries: Primaries) -> None:
    gray = torch.tensor([0.0, 0.001, 0.18, 1.0, 8.0], dtype=torch.float64)
    lightness, a, b = rgb_to_oklab(gray.expand(3, 5), primaries)
    assert np.allclose(lightness, gray.numpy() ** (1 / 3), atol=1e-12)
    assert float(a.abs().max()) < 1e-12 and float(b.abs().max()) < 1e-12


@pytest.mark.parametrize("primaries", ["bt709", "bt2020", "ap1", "prophoto"])
def test_round_trip_with_negative_values(primaries: Primaries) -> None:
    rgb = torch.randn((3, 7, 9), dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(oklab_to_rgb(rgb_to_oklab(rgb, primaries), primaries), rgb, atol=1e-9)
    narrow = oklab_to_rgb(rgb_to_oklab(rgb.float(), primaries), primaries)
    assert narrow.dtype == torch.float32 and torch.allclose(narrow.double(), rgb, atol=3e-5)


def test_cube_root_keeps_signs_and_zero() -> None:
    values = torch.tensor([-27.0, -1e-9, 0.0, 1e-9, 0.125, 1000.0])
    assert torch.allclose(cube_root(values), torch.tensor([-3.0, -1e-3, 0.0, 1e-3, 0.5, 10.0]), rtol=1e-6)
    assert float(cube_root(values)[2]) == 0.0


def test_camera_primaries_are_refused() -> None:
    with pytest.raises(ValueError, match="camera"):
        rgb_to_oklab(torch.zeros(3, 2), "camera")
