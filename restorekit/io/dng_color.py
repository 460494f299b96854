"""The colour of a camera as DNG tags tell it (DNG 1.7, chapter 6): calibrations, the profile, the white of the shot."""

from __future__ import annotations

import math

import numpy as np

from restorekit.color.camera import illuminant_temperature_k, neutral_of_white
from restorekit.facts import Calibration, Camera, Matrix
from restorekit.io.tiff import Directory

AS_SHOT_NEUTRAL, AS_SHOT_WHITE_XY = 50728, 50729
CALIBRATION_SIGNATURE, PROFILE_SIGNATURE = 50931, 50932
CALIBRATIONS = ((50778, 50721, 50964, 50723), (50779, 50722, 50965, 50724), (52529, 52531, 52532, 52530))
"""Tags of each calibration: CalibrationIlluminant, ColorMatrix, ForwardMatrix, CameraCalibration."""

_UNKNOWN_LIGHT_K = 5003.0


def neutral(main: Directory, camera: Camera) -> tuple[float, float, float] | None:
    values = main.numbers(AS_SHOT_NEUTRAL)
    if len(values) == 3 and all(math.isfinite(value) and value > 0 for value in values):
        return values[0] / values[1], 1.0, values[2] / values[1]
    white = main.numbers(AS_SHOT_WHITE_XY)
    if len(white) == 2 and all(0 < value < 1 for value in white) and camera.calibrations:
        return neutral_of_white(camera, (white[0], white[1]))
    return None


def calibrations(main: Directory) -> tuple[Calibration, ...]:
    """The colour calibrations; only the first one where a second is for a light that has no temperature."""
    individual = main.text(CALIBRATION_SIGNATURE) == main.text(PROFILE_SIGNATURE)
    found: list[tuple[float | None, Calibration]] = []
    for light, color, forward, calibration in CALIBRATIONS:
        matrix = _matrix(main, color)
        if matrix is not None:
            temperature_k = illuminant_temperature_k(main.integer(light, 0))
            own = _matrix(main, calibration) if individual else None
            known = temperature_k or _UNKNOWN_LIGHT_K
            found.append((temperature_k, Calibration(known, matrix, _matrix(main, forward), own)))
    if any(temperature_k is None for temperature_k, _ in found):
        found = found[:1]
    return tuple(calibration for _, calibration in found)


def _matrix(main: Directory, tag: int) -> Matrix | None:
    values = finite(main.numbers(tag))
    matrix = np.asarray(values, np.float64)
    return matrix.reshape(3, 3) if matrix.size == 9 and matrix.any() else None


def finite(values: tuple[float, ...]) -> tuple[float, ...]:
    return values if all(math.isfinite(value) for value in values) else ()
