"""Correlated colour temperature, by the isotemperature lines of Robertson (1968).

The table is that of Wyszecki and Stiles, Color Science (1982), table 1(3.11): 31 lines in the
CIE 1960 uv diagram from 0 to 600 reciprocal megakelvins (1667 K to infinity).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from restorekit.color.adaptation import XY

_LINES: NDArray[np.float64] = np.array(
    [
        # mired, u, v of the Planckian locus, slope of the isotemperature line
        (0, 0.18006, 0.26352, -0.24341),
        (10, 0.18066, 0.26589, -0.25479),
        (20, 0.18133, 0.26846, -0.26876),
        (30, 0.18208, 0.27119, -0.28539),
        (40, 0.18293, 0.27407, -0.30470),
        (50, 0.18388, 0.27709, -0.32675),
        (60, 0.18494, 0.28021, -0.35156),
        (70, 0.18611, 0.28342, -0.37915),
        (80, 0.18740, 0.28668, -0.40955),
        (90, 0.18880, 0.28997, -0.44278),
        (100, 0.19032, 0.29326, -0.47888),
        (125, 0.19462, 0.30141, -0.58204),
        (150, 0.19962, 0.30921, -0.70471),
        (175, 0.20525, 0.31647, -0.84901),
        (200, 0.21142, 0.32312, -1.0182),
        (225, 0.21807, 0.32909, -1.2168),
        (250, 0.22511, 0.33439, -1.4512),
        (275, 0.23247, 0.33904, -1.7298),
        (300, 0.24010, 0.34308, -2.0637),
        (325, 0.24792, 0.34655, -2.4681),
        (350, 0.25591, 0.34951, -2.9641),
        (375, 0.26400, 0.35200, -3.5814),
        (400, 0.27218, 0.35407, -4.3633),
        (425, 0.28039, 0.35577, -5.3762),
        (450, 0.28863, 0.35714, -6.7262),
        (475, 0.29685, 0.35823, -8.5955),
        (500, 0.30505, 0.35907, -11.324),
        (525, 0.31320, 0.35968, -15.628),
        (550, 0.32129, 0.36011, -23.325),
        (575, 0.32931, 0.36038, -40.770),
        (600, 0.33724, 0.36051, -116.45),
    ]
)
_MIRED, _LOCUS, _SLOPE = _LINES[:, 0], _LINES[:, 1:3], _LINES[:, 3:]
_UPWARD = -np.concatenate([np.ones_like(_SLOPE), _SLOPE], axis=1) / np.sqrt(1 + _SLOPE**2)
"""Unit vectors along the isotemperature lines, away from the locus on the green side."""

COOLEST_K, WARMEST_K = 1e5, 1e6 / 600
"""The temperatures that results are limited to."""


def temperature_and_duv(white: XY) -> tuple[float, float]:
    """Correlated colour temperature in kelvin of a chromaticity, and its distance Duv from the Planckian locus.

    Duv is measured in CIE 1960 uv, positive above the locus (greenish) and negative below it (magenta).
    The reciprocal temperature is interpolated between the two lines that enclose the point, by the
    distances from them. Temperatures are limited to 1667..100,000 K.
    """
    x, y = white
    uv = np.array([4 * x, 6 * y]) / (-2 * x + 12 * y + 3)
    offset = uv - _LOCUS
    warmer = offset[:, 0] * _UPWARD[:, 1] - offset[:, 1] * _UPWARD[:, 0]
    after = next((i for i in range(1, len(_LINES)) if warmer[i] <= 0), len(_LINES) - 1)
    share = warmer[after - 1] / (warmer[after - 1] - warmer[after])
    mired = float(_MIRED[after - 1] + np.clip(share, 0, 1) * (_MIRED[after] - _MIRED[after - 1]))
    locus, upward = _at(mired)
    return 1e6 / max(mired, 1e6 / COOLEST_K), float((uv - locus) @ upward)


def xy_from_temperature(temperature_k: float, duv: float = 0.0) -> XY:
    """The chromaticity of a correlated colour temperature, ``duv`` away from the Planckian locus.

    The inverse of :func:`temperature_and_duv` within 0.1 %. Temperatures are limited to 1667..100,000 K.
    """
    locus, upward = _at(1e6 / min(max(temperature_k, WARMEST_K), COOLEST_K))
    u, v = locus + duv * upward
    divisor = 2 * u - 8 * v + 4
    return float(3 * u / divisor), float(2 * v / divisor)


def _at(mired: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The point of the locus, and the unit vector of the isotemperature line through it."""
    locus, upward = (np.array([np.interp(mired, _MIRED, axis) for axis in table.T]) for table in (_LOCUS, _UPWARD))
    return locus, upward / np.hypot(*upward)
