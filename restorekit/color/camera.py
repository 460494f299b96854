"""The colour model of DNG 1.7.1 (chapter 6, "Mapping Camera Color Space to CIE XYZ Space").

A camera is calibrated under one or more lights. Its matrices and tables are interpolated linearly in reciprocal
colour temperature between the two calibrations that enclose the temperature of the scene's white, and
kept constant outside them. How to interpolate between three is left open by the specification; here it is the same,
and of two for the same temperature the later one counts, which is meant for the light of the shot.
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
from restorekit.facts import Calibration, Camera, Matrix, Table
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


def white_of_spectrum(wavelength_nm: NDArray[np.float64], power: NDArray[np.float64]) -> XY:
    """CIE xy of a light by its spectral power ``[N]`` at rising wavelengths ``[N]``.

    Between samples power is linear, beyond them constant; it is weighted from 360 to 830 nm by the analytic fit to
    the CIE 1931 observer of Wyman, Sloan and Shirley (JCGT 2(2), 2013, eq. 4), within 0.002 of the tables in xy.
    """
    at = np.arange(360.0, 831.0)

    def lobe(peak: float, below: float, above: float) -> NDArray[np.float64]:
        return np.asarray(np.exp(-0.5 * ((at - peak) / np.where(at < peak, below, above)) ** 2))

    x = 1.056 * lobe(599.8, 37.9, 31.0) + 0.362 * lobe(442.0, 16.0, 26.7) - 0.065 * lobe(501.1, 20.4, 26.2)
    y = 0.821 * lobe(568.8, 46.9, 40.5) + 0.286 * lobe(530.9, 16.3, 31.1)
    z = 1.217 * lobe(437.0, 11.8, 36.0) + 0.681 * lobe(459.0, 26.0, 13.8)
    return chromaticity(np.stack((x, y, z)) @ np.interp(at, wavelength_nm, power))


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


def camera_to_xyz_d50(camera: Camera, neutral: Neutral) -> Matrix:
    """``[3,3]`` camera RGB to XYZ under D50, so that the neutral becomes the white of D50 with Y = 1. Read-only.

    With forward matrices ``FM * D * inv(AB * CC)``, where ``D`` divides by the neutral of the reference camera,
    and the rows of ``FM`` are scaled so that it takes (1, 1, 1) to D50 exactly; without them
    ``inv(AB * CC * CM)`` followed by Bradford adaptation.

    Raises InputError as :func:`white_of_neutral` does.
    """
    return _camera_to_xyz_d50(_colors(camera), neutral)


@lru_cache(maxsize=64)
def _camera_to_xyz_d50(camera: Camera, neutral: Neutral) -> Matrix:
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


def camera_to_rgb(camera: Camera, neutral: Neutral, primaries: Primaries) -> Matrix:
    """``[3,3]`` camera RGB to linear RGB, so that the neutral becomes (1, 1, 1). Read-only.

    Raises InputError as :func:`white_of_neutral` does, and ValueError for primaries ``camera``.
    """
    return _camera_to_rgb(_colors(camera), neutral, primaries)


@lru_cache(maxsize=64)
def _camera_to_rgb(camera: Camera, neutral: Neutral, primaries: Primaries) -> Matrix:
    to_target = np.linalg.inv(rgb_to_xyz(primaries)) @ adaptation(D50, CHROMATICITIES[primaries].white)
    matrix: Matrix = to_target @ camera_to_xyz_d50(camera, neutral)
    matrix.flags.writeable = False
    return matrix


def hue_sat_map(camera: Camera, neutral: Neutral) -> Table | None:
    """The hue, saturation and value table ``[V,H,S,3]`` for a light; ``None`` for a camera without. Read-only.

    Raises InputError as :func:`white_of_neutral` does.
    """
    return _hue_sat_map(_colors(camera), neutral)


@lru_cache(maxsize=64)
def _hue_sat_map(camera: Camera, neutral: Neutral) -> Table | None:
    tables = [(c, c.hue_sat_map) for c in camera.calibrations if c.hue_sat_map is not None]
    if not tables:
        return None
    weights = _weights([c for c, _ in tables], temperature_of_neutral(camera, neutral))
    blended = np.tensordot(weights, np.stack([table for _, table in tables]), axes=1).astype(np.float32)
    blended.flags.writeable = False
    return blended


def _colors(camera: Camera) -> Camera:
    """What of a camera tells its colours, the same object for all cameras that agree in it: a key for caches."""
    return _colors_of(camera.make, camera.model, camera.calibrations, camera.analog_balance)


@lru_cache(maxsize=64)
def _colors_of(make: str, model: str, calibrations: tuple[Calibration, ...], balance: Neutral) -> Camera:
    return Camera(make, model, calibrations=calibrations, analog_balance=balance)


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
    """The matrix at a temperature."""
    blended: Matrix = np.tensordot(_weights(calibrations, temperature_k), np.stack(matrices), axes=1)
    return blended


def _weights(calibrations: Sequence[Calibration], temperature_k: float) -> NDArray[np.float64]:
    """What each calibration counts at a temperature: linear in its reciprocal, constant beyond the outermost."""
    mired = [1e6 / c.temperature_k for c in calibrations]
    latest = {round(place, 3): index for index, place in enumerate(mired)}
    order = sorted(latest.values(), key=lambda index: mired[index])
    places = [mired[index] for index in order]
    rows = np.eye(len(mired))[:, order]
    return np.array([np.interp(1e6 / temperature_k, places, row) for row in rows])


def _inverse(matrix: Matrix, camera: Camera) -> Matrix:
    try:
        return np.asarray(np.linalg.inv(matrix), np.float64)
    except np.linalg.LinAlgError as error:
        raise InputError(f"the colour matrix of {camera.name} cannot be inverted; its file is damaged") from error
