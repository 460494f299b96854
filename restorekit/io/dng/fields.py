"""What a DNG says of a frame beside its samples: camera, profile, mosaic, exposure (DNG 1.7, chapters 3 to 6)."""

from __future__ import annotations

import struct

import numpy as np

from restorekit.color.camera import ILLUMINANT_TEMPERATURES_K
from restorekit.color.temperature import xy_from_temperature
from restorekit.facts import Calibration, Camera, Exposure, Table
from restorekit.frame import Frame
from restorekit.io import metadata
from restorekit.io.dng.color import (
    AS_SHOT_NEUTRAL,
    BASELINE_EXPOSURE_OFFSET,
    BASELINE_SHARPNESS,
    CALIBRATIONS,
    HUE_SAT_DATA,
    HUE_SAT_DIMS,
    HUE_SAT_ENCODING,
    ILLUMINANT_DATA,
    LOOK_DATA,
    LOOK_DIMS,
    LOOK_ENCODING,
    OTHER_LIGHT,
    PROFILE_NAME,
    TONE_CURVE,
)
from restorekit.io.dng.opcodes import OPCODE_LISTS, parse
from restorekit.io.dng.read import (
    ACTIVE_AREA,
    ANALOG_BALANCE,
    BASELINE_EXPOSURE,
    BITS,
    BLACK_DELTA_H,
    BLACK_DELTA_V,
    BLACK_LEVEL,
    BLACK_REPEAT,
    CFA,
    CFA_LAYOUT,
    CFA_PATTERN,
    CFA_PLANE_COLOR,
    CFA_REPEAT,
    CROP_ORIGIN,
    CROP_SIZE,
    DEFAULT_SCALE,
    DNG_VERSION,
    NOISE_PROFILE,
    PHOTOMETRIC,
    SUBFILE_TYPE,
    UNIQUE_MODEL,
    WHITE_LEVEL,
    XMP,
)
from restorekit.io.tiff import (
    ASCII,
    BYTE,
    DOUBLE,
    FLOAT,
    LONG,
    RATIONAL,
    SHORT,
    SRATIONAL,
    UNDEFINED,
    Field,
    Tree,
)

BACKWARD_VERSION = 50707
"""The oldest version of the specification by which a reader develops the file as it is meant."""

ENCODINGS = ("linear", "srgb")

Version = tuple[int, ...]


def picture_fields(frame: Frame, software: str, version: Version, oldest: Version) -> Tree:
    """The fields of a DNG's first directory: what is known of the picture and its camera.

    ``version`` is that of the specification which the samples follow, ``oldest`` the one which a reader needs for
    them; calibrations and opcodes may ask for later ones.
    """
    camera = frame.camera
    mandatory = [operation for data in camera.opcode_lists for operation in parse(data) if not operation.optional]
    if len(camera.calibrations) > 2 or any(_light_code(c.temperature_k) is None for c in camera.calibrations):
        version, oldest = max(version, (1, 6, 0, 0)), max(oldest, (1, 6, 0, 0))
    oldest = max([oldest, *(operation.version for operation in mandatory)])
    tree = metadata.output_exif(
        frame.metadata.exif, width=frame.width, height=frame.height, software=software, order="<"
    )
    tree |= {
        metadata.MAKE: Field.of(ASCII, camera.make),
        metadata.MODEL: Field.of(ASCII, camera.model),
        metadata.ORIENTATION: Field.of(SHORT, (frame.metadata.orientation,)),
        DNG_VERSION: Field.of(BYTE, max(version, oldest)),
        BACKWARD_VERSION: Field.of(BYTE, oldest),
        UNIQUE_MODEL: Field.of(ASCII, camera.name),
        ANALOG_BALANCE: Field.of(RATIONAL, camera.analog_balance),
        BASELINE_EXPOSURE: Field.of(SRATIONAL, (camera.baseline_exposure_ev,)),
    }
    if camera.neutral is not None:
        tree[AS_SHOT_NEUTRAL] = Field.of(RATIONAL, camera.neutral)
    if frame.metadata.xmp:
        tree[XMP] = Field.of(BYTE, frame.metadata.xmp)
    tree |= _calibration_fields(camera.calibrations) | _profile_fields(camera)
    photo = tree.setdefault(metadata.EXIF_IFD, {})
    assert isinstance(photo, dict)
    photo |= _exposure_fields(frame.exposure)
    photo.setdefault(metadata.EXIF_VERSION, Field.of(UNDEFINED, b"0232"))
    return tree


def mosaic_fields(frame: Frame, bits: int) -> Tree:
    """The fields of the directory of a mosaic, but how and where its samples are stored.

    Levels, noise and opcode lists are those of ``frame.camera``.
    """
    camera = frame.camera
    top, left, bottom, right = frame.metadata.crop or (0, 0, frame.height, frame.width)
    black = np.zeros((1, 1, 1), np.float32) if camera.black is None else camera.black
    white = 65535.0 if camera.white is None else float(camera.white[0])
    tree: Tree = {
        SUBFILE_TYPE: Field.of(LONG, (0,)),
        256: Field.of(LONG, (frame.width,)),
        257: Field.of(LONG, (frame.height,)),
        BITS: Field.of(SHORT, (bits,)),
        PHOTOMETRIC: Field.of(SHORT, (CFA,)),
        277: Field.of(SHORT, (1,)),
        284: Field.of(SHORT, (1,)),
        CFA_REPEAT: Field.of(SHORT, (2, 2)),
        CFA_PATTERN: Field.of(BYTE, ["RGB".index(color) for color in "".join(camera.cfa)]),
        CFA_PLANE_COLOR: Field.of(BYTE, (0, 1, 2)),
        CFA_LAYOUT: Field.of(SHORT, (1,)),
        BLACK_REPEAT: Field.of(SHORT, black.shape[:2]),
        BLACK_LEVEL: Field.of(RATIONAL, black.reshape(-1).tolist()),
        WHITE_LEVEL: Field.of(LONG, (round(white),)),
        DEFAULT_SCALE: Field.of(RATIONAL, (1, 1)),
        CROP_ORIGIN: Field.of(LONG, (left, top)),
        CROP_SIZE: Field.of(LONG, (right - left, bottom - top)),
        ACTIVE_AREA: Field.of(LONG, (0, 0, frame.height, frame.width)),
    }
    noise = [value for pair in camera.noise_profile for value in pair]
    if noise:
        tree[NOISE_PROFILE] = Field.of(DOUBLE, noise)
    for tag, operations in zip(OPCODE_LISTS, camera.opcode_lists, strict=True):
        if operations:
            tree[tag] = Field.of(UNDEFINED, operations)
    for tag, levels in ((BLACK_DELTA_V, camera.black_rows), (BLACK_DELTA_H, camera.black_columns)):
        if levels is not None:
            tree[tag] = Field.of(SRATIONAL, levels.tolist())
    return tree


def _calibration_fields(calibrations: tuple[Calibration, ...]) -> Tree:
    tree: Tree = {}
    for calibration, tags, data_tag, table_tag in zip(
        calibrations, CALIBRATIONS, ILLUMINANT_DATA, HUE_SAT_DATA, strict=False
    ):
        code = _light_code(calibration.temperature_k)
        if code is None:
            white = Field.of(RATIONAL, xy_from_temperature(calibration.temperature_k)).data
            tree[data_tag] = Field(UNDEFINED, struct.pack("<H", 0) + white)
        matrices = (calibration.color_matrix, calibration.forward_matrix, calibration.camera_calibration)
        tree[tags[0]] = Field.of(SHORT, (OTHER_LIGHT if code is None else code,))
        for tag, matrix in zip(tags[1:], matrices, strict=True):
            if matrix is not None:
                tree[tag] = Field.of(SRATIONAL, matrix.reshape(-1).tolist())
        if calibration.hue_sat_map is not None:
            tree |= _table(HUE_SAT_DIMS, table_tag, calibration.hue_sat_map)
    return tree


def _profile_fields(camera: Camera) -> Tree:
    """The look of the camera's profile."""
    profile = camera.profile
    tree: Tree = {BASELINE_SHARPNESS: Field.of(RATIONAL, (camera.baseline_sharpness,))}
    if profile.name:
        tree[PROFILE_NAME] = Field.of(ASCII, profile.name)
    if any(calibration.hue_sat_map is not None for calibration in camera.calibrations):
        tree[HUE_SAT_ENCODING] = Field.of(LONG, (ENCODINGS.index(profile.hue_sat_encoding),))
    if profile.look_table is not None:
        tree |= _table(LOOK_DIMS, LOOK_DATA, profile.look_table)
        tree[LOOK_ENCODING] = Field.of(LONG, (ENCODINGS.index(profile.look_encoding),))
    if profile.tone_curve is not None:
        tree[TONE_CURVE] = Field.of(FLOAT, profile.tone_curve.reshape(-1).tolist())
    if profile.baseline_exposure_ev:
        tree[BASELINE_EXPOSURE_OFFSET] = Field.of(SRATIONAL, (profile.baseline_exposure_ev,))
    return tree


def _table(dims: int, data: int, table: Table) -> Tree:
    """The fields of a table ``[V,H,S,3]``, whose size is told as hue, saturation and value."""
    value, hue, saturation = table.shape[:3]
    return {
        dims: Field.of(LONG, (hue, saturation, value)),
        data: Field.of(FLOAT, table.astype(np.float32).reshape(-1).tolist()),
    }


def _light_code(temperature_k: float) -> int | None:
    """The EXIF light source of a temperature, CIE illuminants before lamps and weather."""
    codes = sorted(ILLUMINANT_TEMPERATURES_K, key=lambda code: code not in range(17, 24))
    return next((code for code in codes if abs(ILLUMINANT_TEMPERATURES_K[code] - temperature_k) < 1), None)


def _exposure_fields(exposure: Exposure) -> Tree:
    tree: Tree = {}
    if exposure.time_s is not None:
        tree[metadata.EXPOSURE_TIME] = Field.of(RATIONAL, (exposure.time_s,))
    if exposure.f_number is not None:
        tree[metadata.F_NUMBER] = Field.of(RATIONAL, (exposure.f_number,))
    if exposure.iso is not None:
        tree[metadata.ISO] = Field.of(SHORT, (min(round(exposure.iso), 65535),))
        if exposure.iso >= 65535:
            tree[34864] = Field.of(SHORT, (2,))
            tree[metadata.RECOMMENDED_INDEX] = Field.of(LONG, (round(exposure.iso),))
    return tree
