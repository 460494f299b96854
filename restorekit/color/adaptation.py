"""Chromatic adaptation: what a colour seen under one white looks like under another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from restorekit.facts import Matrix

XY = tuple[float, float]
"""CIE 1931 chromaticity."""

D50: XY = (0.3457, 0.3585)
D65: XY = (0.3127, 0.3290)

BRADFORD: Matrix = np.array(
    [
        [0.8951, 0.2664, -0.1614],
        [-0.7502, 1.7135, 0.0367],
        [0.0389, -0.0685, 1.0296],
    ]
)
"""XYZ to the sharpened cone responses of Lam (1985), as in ICC.1 annex E."""


def white_xyz(white: XY) -> NDArray[np.float64]:
    """XYZ ``[3]`` of a chromaticity, with Y = 1."""
    x, y = white
    return np.array([x / y, 1.0, (1.0 - x - y) / y])


def chromaticity(xyz: NDArray[np.float64]) -> XY:
    """CIE xy of XYZ ``[3]``."""
    total = float(xyz.sum())
    return float(xyz[0]) / total, float(xyz[1]) / total


def adaptation(source: XY, target: XY) -> Matrix:
    """``[3,3]`` XYZ under the source white to XYZ under the target white.

    Linear Bradford adaptation (ICC.1:2022 annex E; the one DNG 1.7 asks for): the cone responses
    are scaled so that the source white becomes the target white.
    """
    if source == target:
        return np.eye(3)
    gains = (BRADFORD @ white_xyz(target)) / (BRADFORD @ white_xyz(source))
    return np.asarray(np.linalg.solve(BRADFORD, gains[:, None] * BRADFORD), np.float64)
