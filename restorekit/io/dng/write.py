"""DNG files written: Bayer mosaics by the DNG 1.7 specification (Adobe)."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import torch

from restorekit.color.camera import ILLUMINANT_TEMPERATURES_K
from restorekit.color.temperature import xy_from_temperature
from restorekit.errors import OutputError
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
    DNG_VERSION,
    NOISE_PROFILE,
    PHOTOMETRIC,
    SUBFILE_TYPE,
    UNIQUE_MODEL,
    WHITE_LEVEL,
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
    lay_out,
)
from restorekit.io.write import SOFTWARE, replacing

BACKWARD_VERSION = 50707
"""The oldest version of the specification by which a reader develops the file as it is meant."""

ENCODINGS = ("linear", "srgb")


def write_dng(path: Path, frame: Frame, *, software: str = SOFTWARE) -> None:
    """Write a sensor-referred Bayer mosaic of 16-bit digital numbers as an uncompressed DNG 1.4, or 1.6 where its
    calibrations (three of them, or lights that EXIF has no name for) or its opcodes need that.

    Camera with its profile, exposure, EXIF, orientation, pending crop and opcode lists go with it;
    :func:`restorekit.io.dng.read.read_dng` gives them back. ``software`` is the program that the file names.

    Raises OutputError for other frames, and where the file cannot be written.
    """
    if frame.state.layout != "bayer" or frame.state.reference != "sensor" or frame.pixels.dtype != torch.uint16:
        raise OutputError(
            f"{path}: dng takes a Bayer mosaic of 16-bit digital numbers, this is {frame.state}; write exr or tiff"
        )
    mosaic = np.ascontiguousarray(frame.pixels[0].cpu().numpy(), dtype="<u2")
    tree = _fields(frame, software)

    def block(start: int) -> bytes:
        return lay_out({**tree, 273: Field.of(LONG, (start,)), 279: Field.of(LONG, (mosaic.nbytes,))})

    start = -(-len(block(0)) // 16) * 16
    with replacing(path) as file:
        file.write(block(start).ljust(start, b"\0"))
        file.write(mosaic.data)


def _fields(frame: Frame, software: str) -> Tree:
    """All fields of a DNG but the place of its strip."""
    camera = frame.camera
    top, left, bottom, right = frame.metadata.crop or (0, 0, frame.height, frame.width)
    black = np.zeros((1, 1, 1), np.float32) if camera.black is None else camera.black
    white = 65535.0 if camera.white is None else float(camera.white[0])
    noise = [value for pair in camera.noise_profile for value in pair]
    mandatory = [operation for data in camera.opcode_lists for operation in parse(data) if not operation.optional]
    new = len(camera.calibrations) > 2 or any(_light_code(c.temperature_k) is None for c in camera.calibrations)
    oldest = max([(1, 6, 0, 0) if new else (1, 2, 0, 0), *(operation.version for operation in mandatory)])
    tree = metadata.output_exif(
        frame.metadata.exif, width=frame.width, height=frame.height, software=software, order="<"
    )
    tree |= {
        metadata.MAKE: Field.of(ASCII, camera.make),
        metadata.MODEL: Field.of(ASCII, camera.model),
        metadata.ORIENTATION: Field.of(SHORT, (frame.metadata.orientation,)),
        SUBFILE_TYPE: Field.of(LONG, (0,)),
        256: Field.of(LONG, (frame.width,)),
        257: Field.of(LONG, (frame.height,)),
        BITS: Field.of(SHORT, (16,)),
        259: Field.of(SHORT, (1,)),
        PHOTOMETRIC: Field.of(SHORT, (CFA,)),
        277: Field.of(SHORT, (1,)),
        278: Field.of(LONG, (frame.height,)),
        284: Field.of(SHORT, (1,)),
        CFA_REPEAT: Field.of(SHORT, (2, 2)),
        CFA_PATTERN: Field.of(BYTE, ["RGB".index(color) for color in "".join(camera.cfa)]),
        CFA_PLANE_COLOR: Field.of(BYTE, (0, 1, 2)),
        CFA_LAYOUT: Field.of(SHORT, (1,)),
        DNG_VERSION: Field.of(BYTE, max((1, 6, 0, 0) if new else (1, 4, 0, 0), oldest)),
        BACKWARD_VERSION: Field.of(BYTE, oldest),
        UNIQUE_MODEL: Field.of(ASCII, camera.name),
        BLACK_REPEAT: Field.of(SHORT, black.shape[:2]),
        BLACK_LEVEL: Field.of(RATIONAL, black.reshape(-1).tolist()),
        WHITE_LEVEL: Field.of(LONG, (round(white),)),
        50718: Field.of(RATIONAL, (1, 1)),
        50719: Field.of(LONG, (left, top)),
        50720: Field.of(LONG, (right - left, bottom - top)),
        ANALOG_BALANCE: Field.of(RATIONAL, camera.analog_balance),
        BASELINE_EXPOSURE: Field.of(SRATIONAL, (camera.baseline_exposure_ev,)),
        ACTIVE_AREA: Field.of(LONG, (0, 0, frame.height, frame.width)),
    }
    if camera.neutral is not None:
        tree[AS_SHOT_NEUTRAL] = Field.of(RATIONAL, camera.neutral)
    if noise:
        tree[NOISE_PROFILE] = Field.of(DOUBLE, noise)
    if frame.metadata.xmp:
        tree[700] = Field.of(BYTE, frame.metadata.xmp)
    for tag, operations in zip(OPCODE_LISTS, camera.opcode_lists, strict=True):
        if operations:
            tree[tag] = Field.of(UNDEFINED, operations)
    for tag, levels in ((BLACK_DELTA_V, camera.black_rows), (BLACK_DELTA_H, camera.black_columns)):
        if levels is not None:
            tree[tag] = Field.of(SRATIONAL, levels.tolist())
    tree |= _calibration_fields(camera.calibrations) | _profile_fields(camera)
    photo = tree.setdefault(metadata.EXIF_IFD, {})
    assert isinstance(photo, dict)
    photo |= _exposure_fields(frame.exposure)
    photo.setdefault(metadata.EXIF_VERSION, Field.of(UNDEFINED, b"0232"))
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
