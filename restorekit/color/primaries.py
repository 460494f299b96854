"""RGB colour spaces by their primaries and white, and the 3x3 matrices between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restorekit.color.adaptation import D50, D65, XY, adaptation, white_xyz
from restorekit.facts import Matrix
from restorekit.state import Primaries


@dataclass(frozen=True)
class Chromaticities:
    """CIE 1931 xy of the three primaries and the white."""

    red: XY
    green: XY
    blue: XY
    white: XY


CHROMATICITIES: Mapping[Primaries, Chromaticities] = {
    "bt709": Chromaticities((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), D65),
    "p3": Chromaticities((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), D65),
    "bt2020": Chromaticities((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), D65),
    "adobe-rgb": Chromaticities((0.640, 0.330), (0.210, 0.710), (0.150, 0.060), D65),
    "prophoto": Chromaticities((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001), D50),
    "ap1": Chromaticities((0.713, 0.293), (0.165, 0.830), (0.128, 0.044), (0.32168, 0.33767)),
    "xyz": Chromaticities((1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (1 / 3, 1 / 3)),
}
"""ITU-R BT.709-6, SMPTE EG 432-1 with D65 (Display P3), ITU-R BT.2020-2, Adobe RGB (1998), ISO 22028-2 (ROMM),
SMPTE ST 2113/ACES S-2014-004 (AP1), CIE 15 (XYZ)."""


@lru_cache
def rgb_to_xyz(primaries: Primaries) -> Matrix:
    """``[3,3]`` linear RGB to XYZ, so that (1, 1, 1) is the white with Y = 1 (SMPTE RP 177). Read-only.

    Raises ValueError for ``camera``, whose primaries no standard defines.
    """
    if primaries not in CHROMATICITIES:
        raise ValueError(f"primaries {primaries!r} have no standard chromaticities; camera RGB needs a camera matrix")
    space = CHROMATICITIES[primaries]
    if primaries == "xyz":
        matrix = np.eye(3)
    else:
        columns = np.stack([_xyz_of(xy) for xy in (space.red, space.green, space.blue)], axis=1)
        matrix = columns * np.linalg.solve(columns, white_xyz(space.white))
    matrix.flags.writeable = False
    return matrix


@lru_cache
def conversion(source: Primaries, target: Primaries) -> Matrix:
    """``[3,3]`` linear RGB to linear RGB of other primaries, white to white. Read-only.

    Whites that differ are adapted by Bradford. XYZ has no white of its own: to and from it nothing is adapted.

    Raises ValueError for ``camera``.
    """
    forward, backward = rgb_to_xyz(source), np.linalg.inv(rgb_to_xyz(target))
    adapted = np.eye(3)
    if "xyz" not in (source, target):
        adapted = adaptation(CHROMATICITIES[source].white, CHROMATICITIES[target].white)
    matrix: Matrix = np.eye(3) if source == target else backward @ adapted @ forward
    matrix.flags.writeable = False
    return matrix


def luminance_weights(primaries: Primaries) -> NDArray[np.float64]:
    """``[3]`` what each channel adds to the relative luminance Y; the sum is 1.

    Raises ValueError for ``camera``.
    """
    weights: NDArray[np.float64] = rgb_to_xyz(primaries)[1]
    return weights


def luminance(pixels: Tensor, primaries: Primaries) -> Tensor:
    """``[C,H,W]`` as one plane ``[1,H,W]``: Y of linear RGB, luma of encoded RGB, gray as it is (a view).

    Raises ValueError for ``camera`` and ``icc``.
    """
    return pixels if pixels.shape[0] == 1 else weighted(pixels, luminance_weights(primaries).tolist())


def weighted(pixels: Tensor, weights: Sequence[float]) -> Tensor:
    """The weighted sum ``[1,...]`` of the channels of ``[3,...]`` float pixels."""
    red, green, blue = weights
    return torch.mul(pixels[0:1], red).add_(pixels[1:2], alpha=green).add_(pixels[2:3], alpha=blue)


def transformed(pixels: Tensor, matrix: Matrix) -> Tensor:
    """``[3,...]`` float pixels multiplied by a ``[3,3]`` matrix, as a new tensor.

    Row by row in place: as fast as a matrix product on planes, with the same bits for a strip as for the whole.
    """
    red, green, blue = pixels
    result = torch.empty_like(pixels)
    for plane, (r, g, b) in zip(result, matrix.tolist(), strict=True):
        torch.mul(red, r, out=plane).add_(green, alpha=g).add_(blue, alpha=b)
    return result


def _xyz_of(xy: XY) -> NDArray[np.float64]:
    x, y = xy
    return np.array([x, y, 1.0 - x - y])
