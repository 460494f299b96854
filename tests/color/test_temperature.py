from __future__ import annotations

import colour
import numpy as np
import pytest
from colour.temperature import CCT_to_uv_Robertson1968, uv_to_CCT_Robertson1968

from restorekit.color.adaptation import D50, D65
from restorekit.color.temperature import temperature_and_duv, xy_from_temperature

A = (0.44758, 0.40745)


@pytest.mark.parametrize("white", [A, D50, D65, (0.29903, 0.31488), (0.3457, 0.38), (0.33, 0.32), (0.5, 0.42)])
def test_temperature_matches_colour_science(white: tuple[float, float]) -> None:
    expected = uv_to_CCT_Robertson1968(colour.UCS_to_uv(colour.XYZ_to_UCS(colour.xy_to_XYZ(white))))
    temperature, duv = temperature_and_duv(white)
    assert temperature == pytest.approx(expected[0], rel=1e-3)
    assert duv == pytest.approx(expected[1], abs=1e-4)


def test_known_lights() -> None:
    """CIE 15: A is 2856 K on the Planckian locus; D65 is 6504 K, above it."""
    temperature, duv = temperature_and_duv(A)
    assert temperature == pytest.approx(2856, abs=10)
    assert abs(duv) < 5e-4
    temperature, duv = temperature_and_duv(D65)
    assert temperature == pytest.approx(6504, abs=15)
    assert duv == pytest.approx(0.0032, abs=3e-4)


@pytest.mark.parametrize("temperature_k", [1800.0, 2856.0, 4321.0, 6504.0, 9000.0, 25000.0])
@pytest.mark.parametrize("duv", [-0.01, 0.0, 0.01])
def test_chromaticity_and_temperature_invert_each_other(temperature_k: float, duv: float) -> None:
    white = xy_from_temperature(temperature_k, duv)
    expected = colour.UCS_uv_to_xy(CCT_to_uv_Robertson1968([temperature_k, duv]))
    assert np.allclose(white, expected, atol=2e-4)
    temperature, offset = temperature_and_duv(white)
    assert temperature == pytest.approx(temperature_k, rel=2e-3)
    assert offset == pytest.approx(duv, abs=2e-4)


def test_temperature_falls_without_a_jump_along_a_line_through_the_whites() -> None:
    blue, red = np.array([0.25, 0.26]), np.array([0.52, 0.42])
    temperatures = [temperature_and_duv(tuple(blue + s * (red - blue)))[0] for s in np.linspace(0, 1, 400)]
    assert (np.diff(temperatures) < 0).all()
    assert (np.abs(np.diff(1e6 / np.array(temperatures))) < 3).all()


def test_limits() -> None:
    assert temperature_and_duv((0.6, 0.38))[0] == pytest.approx(1667, abs=1)
    assert temperature_and_duv((0.2, 0.2))[0] == 100_000
    assert xy_from_temperature(500) == xy_from_temperature(1e6 / 600)
