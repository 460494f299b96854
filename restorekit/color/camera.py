"""The colour model of DNG 1.7 (chapter 6, "Mapping Camera Color Space to CIE XYZ Space").

A camera is calibrated under one or more lights. Its matrices are interpolated linearly in reciprocal
colour temperature between the two calibrations that enclose the temperature of the scene's white, and
kept constant outside them; a third calibration needs nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from restorekit.color.adaptation import D50, XY, adaptation, chromaticity, white_xyz
from restorekit.color.primaries import CHROMATICITIES, rgb_to_xyz
from restorekit.color.temperature import temperature_and_duv
from restorekit.errors import InputError
from restorekit.facts import Calibration, Camera, Matrix
from restorekit.state import Primaries

Neutral = tuple[float, float, float]
"""Camera RGB of the scene's white, at any scale."""

ILLUMINANT_TEMPERATURES_K: Mapping[int, float] = {
    1: 5500,  # daylight
    2: 4150,  # fluorescent
    3: 2856,  # tungsten
    4: 5500,  # flash
    9: 5500,  # fine weather
    10: 6500,  # cloudy weather
    11: 7500,  # shade
    12: 6400,  # daylight fluorescent, 5700..7100 K
    13: 5050,  # day white fluorescent, 4600..5500 K
    14: 4150,  # cool white fluorescent, 3800..4500 K
    15: 3525,  # white fluorescent, 3250..3800 K
    16: 2925,  # warm white fluorescent, 2600..3250 K
    17: 2856,  # CIE standard illuminant A
    18: 4874,  # CIE standard illuminant B
    19: 6774,  # CIE standard illuminant C
    20: 5503,  # D55
    21: 6504,  # D65
    22: 7504,  # D75
    23: 5003,  # D50
    24: 3200,  # ISO studio tungsten
}
"""EXIF LightSource (CIPA DC-008, tag 37384) to kelvin: CIE 15 for the CIE illuminants, the middle of the range
that EXIF names for fluorescent lamps, and what Adobe's DNG SDK takes for the weather."""


def illuminant_temperature_k(code: int) -> float | None:
    """Colour temperature in kelvin of an EXIF LightSource or DNG CalibrationIlluminant code.

    ``None`` for codes that name no light: 0 (unknown), 255 (other), and unassigned ones.
    """
    return ILLUMINANT_TEMPERATURES_K.get(code)


def white_of_neutral(camera: Camera, neutral: Neutral) -> XY:
    """CIE xy of the light whose white has this camera RGB.

    The colour matrix that gives the answer depends on its temperature, so it is found by iteration from
    D50 (DNG 1.7, "Translating Camera Neutral Coordinates to White Balance xy Coordinates").

    Raises InputError for a camera without matrices, a singular matrix, or a neutral that is no light.
    """
    white = D50
    for _ in range(30):
        last, white = white, _white_seen(camera, neutral, white)
        if abs(white[0] - last[0]) + abs(white[1] - last[1]) < 1e-9:
            return white
    return (white[0] + last[0]) / 2, (white[1] + last[1]) / 2


def neutral_of_white(camera: Camera, white: XY) -> Neutral:
    """Camera RGB of a light of this chromaticity, green = 1: the inverse of :func:`white_of_neutral`.

    Raises InputError for a camera without matrices.
    """
    response = xyz_to_camera(camera, temperature_and_duv(white)[0]) @ white_xyz(white)
    red, green, blue = (response / response[1]).tolist()
    return red, green, blue


def temperature_of_neutral(camera: Camera, neutral: Neutral) -> float:
    """Correlated colour temperature in kelvin of the light whose white has this camera RGB.

    Raises InputError as :func:`white_of_neutral` does.
    """
    return temperature_and_duv(white_of_neutral(camera, neutral))[0]


def xyz_to_camera(camera: Camera, temperature_k: float) -> Matrix:
    """``[3,3]`` XYZ to camera RGB under a light: ``AB * CC * CM``.

    Raises InputError for a camera without matrices.
    """
    if not camera.calibrations:
        raise InputError(f"{camera.name} has no colour matrix; give its calibrations, or take its RGB as it is")
    color = _interpolated(camera.calibrations, [c.color_matrix for c in camera.calibrations], temperature_k)
    matrix: Matrix = _individual(camera, temperature_k) @ color
    return matrix


@lru_cache(maxsize=64)
def camera_to_xyz_d50(camera: Camera, neutral: Neutral) -> Matrix:
    """``[3,3]`` camera RGB to XYZ under D50, so that the neutral becomes the white of D50 with Y = 1. Read-only.

    With forward matrices ``FM * D * inv(AB * CC)``, where ``D`` divides by the neutral of the reference camera,
    and the rows of ``FM`` are scaled so that it takes (1, 1, 1) to D50 exactly; without them
    ``inv(AB * CC * CM)`` followed by Bradford adaptation.

    Raises InputError as :func:`white_of_neutral` does.
    """
    temperature_k = temperature_of_neutral(camera, neutral)
    response = np.asarray(neutral, np.float64)
    forward = [(c, c.forward_matrix) for c in camera.calibrations if c.forward_matrix is not None]
    matrix: Matrix
    if forward:
        balanced = _interpolated([c for c, _ in forward], [m for _, m in forward], temperature_k)
        balanced = balanced * (white_xyz(D50) / balanced.sum(axis=1))[:, None]
        to_reference = _inverse(_individual(camera, temperature_k), camera)
        matrix = balanced @ (to_reference / (to_reference @ response)[:, None])
    else:
        to_xyz = _inverse(xyz_to_camera(camera, temperature_k), camera)
        seen: NDArray[np.float64] = to_xyz @ response
        matrix = adaptation(chromaticity(seen), D50) @ to_xyz / seen[1]
    matrix.flags.writeable = False
    return matrix


@lru_cache(maxsize=64)
def camera_to_rgb(camera: Camera, neutral: Neutral, primaries: Primaries) -> Matrix:
    """``[3,3]`` camera RGB to linear RGB, so that the neutral becomes (1, 1, 1). Read-only.

    Raises InputError as :func:`white_of_neutral` does, and ValueError for primaries ``camera``.
    """
    to_target = np.linalg.inv(rgb_to_xyz(primaries)) @ adaptation(D50, CHROMATICITIES[primaries].white)
    matrix: Matrix = to_target @ camera_to_xyz_d50(camera, neutral)
    matrix.flags.writeable = False
    return matrix


def _white_seen(camera: Camera, neutral: Neutral, guess: XY) -> XY:
    """The chromaticity of the neutral, by the matrices for the temperature of a guess."""
    to_xyz = _inverse(xyz_to_camera(camera, temperature_and_duv(guess)[0]), camera)
    xyz: NDArray[np.float64] = to_xyz @ np.asarray(neutral, np.float64)
    if not (np.isfinite(xyz).all() and xyz[1] > 0 and xyz.sum() > xyz[1]):
        said = ", ".join(f"{value:.4g}" for value in neutral)
        raise InputError(f"no light gives {camera.name} the neutral ({said}); use another illuminant or gains")
    return chromaticity(xyz)


def _individual(camera: Camera, temperature_k: float) -> Matrix:
    """``AB * CC``: the reference camera to this one."""
    calibrations = [np.eye(3) if c.camera_calibration is None else c.camera_calibration for c in camera.calibrations]
    individual = _interpolated(camera.calibrations, calibrations, temperature_k)
    matrix: Matrix = np.asarray(camera.analog_balance, np.float64)[:, None] * individual
    return matrix


def _interpolated(calibrations: Sequence[Calibration], matrices: Sequence[Matrix], temperature_k: float) -> Matrix:
    """The matrix at a temperature, linear in its reciprocal, constant beyond the outermost calibrations."""
    mired = np.array([1e6 / c.temperature_k for c in calibrations])
    order = np.argsort(mired)
    weights = [np.interp(1e6 / temperature_k, mired[order], row[order]) for row in np.eye(len(mired))]
    blended: Matrix = np.tensordot(np.array(weights), np.stack(matrices), axes=1)
    return blended


def _inverse(matrix: Matrix, camera: Camera) -> Matrix:
    try:
        return np.asarray(np.linalg.inv(matrix), np.float64)
    except np.linalg.LinAlgError as error:
        raise InputError(f"the colour matrix of {camera.name} cannot be inverted; its file is damaged") from error
