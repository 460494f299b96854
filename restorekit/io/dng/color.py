"""The colour of a camera as DNG tags tell it (DNG 1.7.1, chapter 6): calibrations, profile, white of the shot."""

from __future__ import annotations

import math
import struct
from typing import Literal

import numpy as np

from restorekit.color.adaptation import XY
from restorekit.color.camera import illuminant_temperature_k, neutral_of_white, white_of_spectrum
from restorekit.color.temperature import temperature_and_duv
from restorekit.facts import Calibration, Camera, CameraProfile, Matrix, Table
from restorekit.io.tiff import Directory, Field

AS_SHOT_NEUTRAL, AS_SHOT_WHITE_XY = 50728, 50729
BASELINE_SHARPNESS, BASELINE_EXPOSURE_OFFSET = 50732, 51109
CALIBRATION_SIGNATURE, PROFILE_SIGNATURE = 50931, 50932
CALIBRATIONS = ((50778, 50721, 50964, 50723), (50779, 50722, 50965, 50724), (52529, 52531, 52532, 52530))
"""Tags of each calibration: CalibrationIlluminant, ColorMatrix, ForwardMatrix, CameraCalibration."""
ILLUMINANT_DATA = (52533, 52534, 52535)
HUE_SAT_DIMS, HUE_SAT_DATA, HUE_SAT_ENCODING = 50937, (50938, 50939, 52537), 51107
LOOK_DIMS, LOOK_DATA, LOOK_ENCODING = 50981, 50982, 51108
PROFILE_NAME, TONE_CURVE, DYNAMIC_RANGE = 50936, 50940, 52551
LOCAL_TONE = {52525: "ProfileGainTableMap", 52544: "ProfileGainTableMap2", 52543: "RGBTables"}

OTHER_LIGHT = 255
_UNKNOWN_LIGHT_K = 5003.0


def neutral(main: Directory, camera: Camera) -> tuple[float, float, float] | None:
    values = main.numbers(AS_SHOT_NEUTRAL)
    if len(values) == 3 and all(math.isfinite(value) and value > 0 for value in values):
        return values[0] / values[1], 1.0, values[2] / values[1]
    white = main.numbers(AS_SHOT_WHITE_XY)
    if len(white) == 2 and all(0 < value < 1 for value in white) and camera.calibrations:
        return neutral_of_white(camera, (white[0], white[1]))
    return None


def baseline_sharpness(main: Directory) -> float:
    """How much sharpening the camera needs beside a reference camera; 1 where it is not told."""
    value = next(iter(main.numbers(BASELINE_SHARPNESS)), 1.0)
    return value if math.isfinite(value) and value > 0 else 1.0


def calibrations(profile: Directory, main: Directory | None = None) -> tuple[Calibration, ...]:
    """The colour calibrations of a profile; only the first one where another is for a light that has no temperature.

    ``main`` is the first directory of the DNG in which the profile lies: it holds what is special about this camera
    (CameraCalibration), which counts where its signature is that of the profile.
    """
    individual = main is not None and main.text(CALIBRATION_SIGNATURE) == profile.text(PROFILE_SIGNATURE)
    found: list[tuple[float | None, Calibration]] = []
    tags = zip(CALIBRATIONS, ILLUMINANT_DATA, HUE_SAT_DATA, strict=True)
    for (light, color, forward, calibration), light_data, hue_sat in tags:
        matrix = _matrix(profile, color)
        if matrix is not None:
            temperature_k = _temperature_k(profile, light, light_data)
            own = _matrix(main, calibration) if individual and main is not None else None
            table = None if _hdr_table(profile, HUE_SAT_DIMS) else _table(profile, HUE_SAT_DIMS, hue_sat)
            known = temperature_k or _UNKNOWN_LIGHT_K
            found.append((temperature_k, Calibration(known, matrix, _matrix(profile, forward), own, table)))
    if any(temperature_k is None for temperature_k, _ in found):
        found = found[:1]
    return tuple(calibration for _, calibration in found)


def camera_profile(directory: Directory) -> CameraProfile:
    """The look of a profile. What is damaged or meant for HDR rendering is left out; :func:`notes` names it."""
    offset = next(iter(directory.numbers(BASELINE_EXPOSURE_OFFSET)), 0.0)
    return CameraProfile(
        name=directory.text(PROFILE_NAME),
        hue_sat_encoding=_encoding(directory, HUE_SAT_ENCODING),
        look_table=None if _hdr_table(directory, LOOK_DIMS) else _table(directory, LOOK_DIMS, LOOK_DATA),
        look_encoding=_encoding(directory, LOOK_ENCODING),
        tone_curve=None if _is_hdr(directory) else _curve(directory),
        baseline_exposure_ev=offset if math.isfinite(offset) else 0.0,
    )


def damaged(directory: Directory) -> tuple[str, ...]:
    """The parts of a profile that are there but cannot be what they say."""
    tables = [(f"ProfileHueSatMapData{k}", HUE_SAT_DIMS, tag) for k, tag in enumerate(HUE_SAT_DATA, 1)]
    tables.append(("ProfileLookTableData", LOOK_DIMS, LOOK_DATA))
    bad = [name for name, dims, data in tables if data in directory.fields and _table(directory, dims, data) is None]
    if TONE_CURVE in directory.fields and _curve(directory) is None:
        bad.append("ProfileToneCurve")
    return tuple(bad)


def notes(profile: Directory, *others: Directory) -> tuple[str, ...]:
    """What is not as the profile, or the ``other`` directories of its DNG, want it."""
    said = []
    bad = damaged(profile)
    if bad:
        said.append(f"its camera profile has a damaged {', '.join(bad)}, which is left out")
    if _is_hdr(profile):
        said.append("its camera profile is for HDR rendering, whose tone curve and tables by value are left out")
    local = [name for tag, name in LOCAL_TONE.items() if any(tag in one.fields for one in (profile, *others))]
    if local:
        said.append(f"local adjustments of its camera profile are not applied: {', '.join(local)}")
    return tuple(said)


def _temperature_k(directory: Directory, code_tag: int, data_tag: int) -> float | None:
    """Colour temperature of a calibration's light, ``None`` where it is not told."""
    code = directory.integer(code_tag, 0)
    if code != OTHER_LIGHT or data_tag not in directory.fields:
        return illuminant_temperature_k(code)
    white = _white(directory.fields[data_tag])
    return None if white is None else temperature_and_duv(white)[0]


def _white(data: Field) -> XY | None:
    """CIE xy of a DNG IlluminantData: a SHORT, then two rationals (0), or a spectrum (1)."""
    try:
        kind, samples = struct.unpack_from(data.order + "HI", data.data)
        rationals, start_at = (2, 2) if kind == 0 else (2 + samples, 6)
        raw = struct.unpack_from(f"{data.order}{2 * rationals}I", data.data, start_at)
    except struct.error:
        return None
    values = np.array([n / d if d else math.nan for n, d in zip(raw[::2], raw[1::2], strict=True)])
    if kind not in (0, 1) or not np.isfinite(values).all():
        return None
    if kind == 0:
        white: XY = (float(values[0]), float(values[1]))
    else:
        start, step, power = values[0], values[1], values[2:]
        if len(power) < 2 or not step > 0 or not power.max() > 0:
            return None
        white = white_of_spectrum(start + step * np.arange(len(power)), power)
    return white if min(white) > 0 and sum(white) < 1 else None


def _is_hdr(directory: Directory) -> bool:
    """Whether a profile is for HDR rendering (ProfileDynamicRange), whose tables and curve count on encoded values."""
    field = directory.fields.get(DYNAMIC_RANGE)
    return field is not None and len(field.data) >= 4 and struct.unpack_from(field.order + "HH", field.data)[1] == 1


def _hdr_table(directory: Directory, dims: int) -> bool:
    """Whether a table cannot be used because its value steps are those of HDR rendering."""
    return _is_hdr(directory) and directory.integers(dims)[2:] != (1,)


def _encoding(directory: Directory, tag: int) -> Literal["linear", "srgb"]:
    return "srgb" if directory.integer(tag, 0) == 1 else "linear"


def _table(directory: Directory, dims: int, data: int) -> Table | None:
    """A hue, saturation and value table ``[V,H,S,3]``; ``None`` where it is missing or damaged."""
    divisions, values = directory.integers(dims), np.asarray(directory.numbers(data), np.float32)
    if len(divisions) != 3 or values.size == 0 or not np.isfinite(values).all():
        return None
    hues, saturations, steps = divisions
    if hues < 1 or saturations < 2 or steps < 1 or values.size != 3 * hues * saturations * steps:
        return None
    return values.reshape(steps, hues, saturations, 3)


def _curve(directory: Directory) -> Table | None:
    """The points ``[N,2]`` of the tone curve; ``None`` where it is missing or damaged."""
    values = np.asarray(directory.numbers(TONE_CURVE), np.float32)
    if values.size < 4 or values.size % 2 or not np.isfinite(values).all():
        return None
    points = values.reshape(-1, 2)
    return points if (np.diff(points[:, 0]) > 0).all() else None


def _matrix(directory: Directory, tag: int) -> Matrix | None:
    values = finite(directory.numbers(tag))
    matrix = np.asarray(values, np.float64)
    return matrix.reshape(3, 3) if matrix.size == 9 and matrix.any() else None


def finite(values: tuple[float, ...]) -> tuple[float, ...]:
    return values if all(math.isfinite(value) for value in values) else ()
