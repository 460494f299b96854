"""Oklab: lightness, green to red, blue to yellow, in a space whose hue angles keep the hue of most colours.

Björn Ottosson, A perceptual color space for image processing (2020), with the matrices as corrected in 2021.
Cone responses are normalised so that D65 (0.3127, 0.3290) gives three equal ones and neutrals have no chroma.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from torch import Tensor

from restorekit.color.adaptation import D65, white_xyz
from restorekit.color.primaries import conversion, rgb_to_xyz, transformed
from restorekit.facts import Matrix
from restorekit.state import Primaries

XYZ_TO_LMS: Matrix = np.array(
    [
        [0.8189330101, 0.3618667424, -0.1288597137],
        [0.0329845436, 0.9293118715, 0.0361456387],
        [0.0482003018, 0.2643662691, 0.6338517070],
    ]
)
"""XYZ under D65 to the cone responses of Oklab (M1)."""
XYZ_TO_LMS /= (XYZ_TO_LMS @ white_xyz(D65))[:, None]

ROOTS_TO_LAB: Matrix = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
"""Cube roots of the cone responses to L, a, b (M2)."""
ROOTS_TO_LAB[:, 1] += (1.0, 0.0, 0.0) - ROOTS_TO_LAB.sum(axis=1)

LAB_TO_ROOTS: Matrix = np.asarray(np.linalg.inv(ROOTS_TO_LAB), np.float64)
"""L, a, b to the cube roots of the cone responses; L counts fully in each."""


@lru_cache
def rgb_to_lms(primaries: Primaries) -> Matrix:
    """``[3,3]`` linear RGB to the cone responses of Oklab; white gives (1, 1, 1). Read-only.

    Whites other than D65 are adapted by Bradford.

    Raises ValueError for primaries ``camera``.
    """
    matrix: Matrix = XYZ_TO_LMS @ rgb_to_xyz("bt709") @ conversion(primaries, "bt709")
    matrix.flags.writeable = False
    return matrix


@lru_cache
def lms_to_rgb(primaries: Primaries) -> Matrix:
    """``[3,3]`` the inverse of :func:`rgb_to_lms`. Read-only."""
    matrix: Matrix = np.asarray(np.linalg.inv(rgb_to_lms(primaries)), np.float64)
    matrix.flags.writeable = False
    return matrix


def rgb_to_oklab(linear: Tensor, primaries: Primaries) -> Tensor:
    """Linear RGB ``[3,...]`` (1.0 = white) as Oklab ``[3,...]``: L (white = 1), a and b (about -0.4..0.4).

    Unclamped: roots of negative cone responses are negative.

    Raises ValueError for primaries ``camera``.
    """
    return lms_to_oklab(transformed(linear, rgb_to_lms(primaries)))


def oklab_to_rgb(lab: Tensor, primaries: Primaries) -> Tensor:
    """Oklab ``[3,...]`` as linear RGB ``[3,...]`` (1.0 = white), unclamped: the inverse of :func:`rgb_to_oklab`.

    Raises ValueError for primaries ``camera``.
    """
    roots = transformed(lab, LAB_TO_ROOTS)
    return transformed(roots.square().mul_(roots), lms_to_rgb(primaries))


def lms_to_oklab(lms: Tensor) -> Tensor:
    """Cone responses ``[3,...]`` (white = 1, 1, 1) as Oklab ``[3,...]``."""
    return transformed(cube_root(lms), ROOTS_TO_LAB)


def cube_root(values: Tensor) -> Tensor:
    """Cube roots with the sign of their values, as a new tensor, within 3e-7 in float32."""
    return values.abs().log2_().mul_(1 / 3).exp2_().copysign_(values)
