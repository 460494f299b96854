"""DNG files by the DNG 1.7 specification (Adobe): mosaics and linear images.

Reading gives the stored values after the linearization table, cropped to the active area, with all levels as the
tags tell them. Nothing of it goes through another RAW decoder, so that no level is subtracted twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from restorekit.errors import InputError
from restorekit.facts import Camera, Metadata
from restorekit.frame import Frame
from restorekit.io import metadata
from restorekit.io.cfa import check_supported
from restorekit.io.dng import color as dng_color
from restorekit.io.dng import dcp, opcode_lists
from restorekit.io.dng.color import finite
from restorekit.io.dng.opcode_lists import Rectangle
from restorekit.io.dng.pixels import stored_values
from restorekit.io.optical_black import with_measured_black
from restorekit.io.tiff import (
    Directory,
    TiffError,
    read_directories,
)
from restorekit.state import ImageState

COPY_AGAIN = "the file is damaged, copy it again from the camera or card"

CFA, LINEAR_RAW = 32803, 34892
PHOTOMETRIC, SUBFILE_TYPE, BITS, XMP = 262, 254, 258, 700
DNG_VERSION = 50706
LINEARIZATION_TABLE, BLACK_REPEAT, BLACK_LEVEL, BLACK_DELTA_H, BLACK_DELTA_V, WHITE_LEVEL = range(50712, 50718)
CFA_REPEAT, CFA_PATTERN, CFA_PLANE_COLOR, CFA_LAYOUT = 33421, 33422, 50710, 50711
ANALOG_BALANCE, AS_SHOT_NEUTRAL, AS_SHOT_WHITE_XY, BASELINE_EXPOSURE = range(50727, 50731)
UNIQUE_MODEL, ACTIVE_AREA, MASKED_AREAS, NOISE_PROFILE = 50708, 50829, 50830, 51041
DEFAULT_SCALE, CROP_ORIGIN, CROP_SIZE, USER_CROP = 50718, 50719, 50720, 51125


def read_dng(path: Path) -> Frame:
    """A DNG as a sensor-referred frame: a mosaic ``[1,H,W]``, or ``[3,H,W]`` for a linear (already demosaiced) one.

    Pixels are digital numbers of the stored type, after the first opcode list and the linearization table. Where the
    file maps its values to linear light by polynomials (lossy linear DNG), these are applied, and the pixels are
    float32 with black 0 and white 1. The rest of the second opcode list, and the third, stay in
    ``camera.opcode_lists``, in coordinates of the frame, which is the active area. The default crop, the
    default user crop and TrimBounds of the first two lists are pending in ``metadata.crop``.

    Raises InputError for files that are damaged, end early, or hold a mosaic that is neither Bayer nor X-Trans.
    """
    with path.open("rb") as file:
        try:
            directories = read_directories(file)
        except TiffError as error:
            raise InputError(f"{path}: is damaged, {error}; copy it again from the camera or card") from error
        main, raw = directories[0], raw_directory(directories)
        if raw is None:
            raise InputError(f"{path}: holds no RAW image, only previews; use the original file")
        check_complete(path, file, raw)
        profile = dcp.as_shot(file, main)
        exif = metadata.raw_exif(file)
        stored = stored_values(path, file, raw)
    area = _area(path, raw, stored.shape[:2])
    top, left, bottom, right = area
    channels = 1 if stored.ndim == 2 else stored.shape[2]
    camera = _camera(path, main, raw, profile, (channels, bottom - top, right - left))
    lists = opcode_lists.opcode_lists(raw)
    green_parity = (top + left + (camera.cfa[0][0] != "G")) % 2 if len(camera.cfa) == 2 else None
    stored, notes = opcode_lists.corrected(stored, lists.first, green_parity)
    stored = _linearized(stored, raw)
    camera = with_measured_black(camera, stored, area, raw.integers(MASKED_AREAS))
    stored = stored[top:bottom, left:right]
    trims = (*opcode_lists.trims(lists.first, top, left), *opcode_lists.trims(lists.second))
    crop = _crop(raw, bottom - top, right - left, trims)
    pixels, camera, second, more = opcode_lists.linear(stored, camera, lists.second)
    camera = replace(camera, opcode_lists=opcode_lists.remaining(second, lists.third))
    planes = torch.from_numpy(pixels)
    layout = "gray" if planes.ndim == 2 else "rgb"
    if camera.cfa:
        layout = "bayer" if len(camera.cfa) == 2 else "xtrans"
    state = ImageState().changed({"layout": layout, "reference": "sensor", "transfer": "linear", "primaries": "camera"})
    xmp = main.fields[XMP].data if XMP in main.fields else b""
    orientation = main.integer(metadata.ORIENTATION, 1)
    frame = Frame(
        planes[None] if planes.ndim == 2 else planes.permute(2, 0, 1),
        state,
        exposure=metadata.exposure_from_exif(exif),
        camera=camera,
        metadata=Metadata(
            exif=exif,
            xmp=metadata.clean_xmp(xmp),
            orientation=orientation if orientation in range(1, 9) else 1,
            crop=crop,
        ),
        source=path,
    )
    for note in (*lists.notes, *notes, *more, *_notes(main, raw), *dng_color.notes(profile, main, raw)):
        frame = frame.with_note(f"{path.name}: {note}")
    return frame


def raw_directory(directories: tuple[Directory, ...]) -> Directory | None:
    """The directory of the full-size RAW image."""
    full = [
        d for d in directories if d.integer(PHOTOMETRIC, 0) in (CFA, LINEAR_RAW) and d.integer(SUBFILE_TYPE, 0) == 0
    ]
    return max(full, key=lambda d: d.extent()[0], default=None)


def check_complete(path: Path, file: BinaryIO, directory: Directory) -> None:
    """Raise InputError when the image data of a directory lie beyond the end of the file."""
    size = file.seek(0, 2)
    end = directory.extent()[1]
    if end > size:
        raise InputError(
            f"{path}: is cut off, {size} of at least {end} bytes are there; copy it again from the camera or card"
        )


def _area(path: Path, raw: Directory, size: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The active area within the stored image: top, left, bottom, right."""
    area = raw.integers(ACTIVE_AREA)
    if len(area) != 4:
        return 0, 0, size[0], size[1]
    top, left, bottom, right = area[0], area[1], min(area[2], size[0]), min(area[3], size[1])
    if not (0 <= top < bottom and 0 <= left < right):
        raise InputError(f"{path}: its active area {area} lies outside of its image; {COPY_AGAIN}")
    return top, left, bottom, right


def _crop(raw: Directory, height: int, width: int, trims: Sequence[Rectangle]) -> Rectangle | None:
    """The part of the active area that is the picture, ``None`` for all of it.

    DefaultCropOrigin and DefaultCropSize, in them DefaultUserCrop, and all of it within ``trims``.
    """
    origin, size = finite(raw.numbers(CROP_ORIGIN)), finite(raw.numbers(CROP_SIZE))
    x, y = origin if len(origin) == 2 else (0.0, 0.0)
    w, h = size if len(size) == 2 else (width - x, height - y)
    user = finite(raw.numbers(USER_CROP))
    valid = len(user) == 4 and 0 <= user[0] < user[2] <= 1 and 0 <= user[1] < user[3] <= 1
    shares = user if valid else (0.0, 0.0, 1.0, 1.0)
    edges = [start + share * size for share, start, size in zip(shares, (y, x) * 2, (h, w) * 2, strict=True)]
    inside = [max(0.0, min(edge, limit)) for edge, limit in zip(edges, (height, width) * 2, strict=True)]
    crop = _common((0, 0, height, width), tuple(round(edge) for edge in inside))
    for trim in trims:
        crop = _common(crop, trim)
    return None if crop == (0, 0, height, width) else crop


def _common(one: Rectangle, other: tuple[int, ...]) -> Rectangle:
    """What two rectangles share; the first where they share nothing, which no camera means."""
    top, left, bottom, right = (
        max(one[0], other[0]),
        max(one[1], other[1]),
        min(one[2], other[2]),
        min(one[3], other[3]),
    )
    return (top, left, bottom, right) if top < bottom and left < right else one


def _notes(main: Directory, raw: Directory) -> Iterator[str]:
    """What tags of the picture ask for and is not done, or say and is not believed."""
    scale = finite(raw.numbers(DEFAULT_SCALE))
    if len(scale) == 2 and scale != (1, 1):
        yield f"its pixels are to be scaled by {scale[0]:g} x {scale[1]:g} (DefaultScale); not resampled"
    if not _noise_profile(main, raw) and (NOISE_PROFILE in raw.fields or NOISE_PROFILE in main.fields):
        yield "its NoiseProfile is damaged and left out"


def _noise_profile(main: Directory, raw: Directory) -> tuple[tuple[float, float], ...]:
    """Scale and offset of the noise variance for one plane or each; empty where it is missing or damaged."""
    numbers = raw.numbers(NOISE_PROFILE) or main.numbers(NOISE_PROFILE)
    pairs = tuple(zip(numbers[::2], numbers[1::2], strict=False))
    return pairs if all(math.isfinite(a) and math.isfinite(b) and a >= 0 for a, b in pairs) else ()


def _linearized(stored: NDArray[Any], raw: Directory) -> NDArray[Any]:
    """Values after the LinearizationTable; those beyond its end take its last entry."""
    table = np.asarray(raw.numbers(LINEARIZATION_TABLE)).clip(0, 65535).astype(np.uint16)
    if table.size == 0 or stored.dtype.kind != "u":
        return stored
    full = np.full(np.iinfo(stored.dtype).max + 1, table[-1], np.uint16)
    full[: table.size] = table[: full.size]
    return np.take(full, stored)


def _camera(path: Path, main: Directory, raw: Directory, profile: Directory, shape: tuple[int, int, int]) -> Camera:
    """What the tags say of the camera, for pixels ``[C,H,W]`` of the active area."""
    channels, height, width = shape
    bits = raw.integer(BITS, 16)
    floating = raw.integer(339, 1) == 3
    black = raw.numbers(BLACK_LEVEL) or (0.0,)
    repeat = raw.integers(BLACK_REPEAT) or (1, 1)
    if len(repeat) != 2 or repeat[0] * repeat[1] * channels != len(black):
        if len(black) not in (1, channels):
            raise InputError(f"{path}: has {len(black)} black levels for {repeat} photosites; {COPY_AGAIN}")
        repeat = 1, 1
    white = raw.numbers(WHITE_LEVEL) or (1.0 if floating else float(2**bits - 1),)
    deltas = [np.asarray(raw.numbers(tag), np.float32) for tag in (BLACK_DELTA_V, BLACK_DELTA_H)]
    balance = finite(main.numbers(ANALOG_BALANCE))
    for delta, lines in zip(deltas, (height, width), strict=True):
        if delta.size not in (0, lines) or not np.isfinite(delta).all():
            raise InputError(f"{path}: its black levels of rows or columns do not fit the image; {COPY_AGAIN}")
    exposure_ev = main.numbers(BASELINE_EXPOSURE)
    camera = Camera(
        make=main.text(metadata.MAKE),
        model=main.text(metadata.MODEL) or main.text(UNIQUE_MODEL),
        cfa=_pattern(path, raw) if raw.integer(PHOTOMETRIC, 0) == CFA else (),
        black=np.resize(np.asarray(black, np.float32), (repeat[0], repeat[1], channels)),
        white=np.resize(np.asarray(white, np.float32), channels),
        black_rows=deltas[0] if deltas[0].any() else None,
        black_columns=deltas[1] if deltas[1].any() else None,
        calibrations=dng_color.calibrations(profile, main),
        analog_balance=(balance[0], balance[1], balance[2]) if len(balance) == 3 else (1.0, 1.0, 1.0),
        baseline_exposure_ev=exposure_ev[0] if exposure_ev and math.isfinite(exposure_ev[0]) else 0.0,
        baseline_sharpness=dng_color.baseline_sharpness(main),
        noise_profile=_noise_profile(main, raw),
        profile=dng_color.camera_profile(profile),
    )
    if not (camera.white is not None and camera.black is not None and (camera.white > camera.black.max((0, 1))).all()):
        raise InputError(f"{path}: its white level is not above its black level; {COPY_AGAIN}")
    return replace(camera, neutral=dng_color.neutral(main, camera))


def _pattern(path: Path, raw: Directory) -> tuple[str, ...]:
    """The colours of the repeating cell, from the top left of the active area."""
    rows, columns = (*raw.integers(CFA_REPEAT), 2, 2)[:2]
    codes = raw.integers(CFA_PATTERN)
    planes = raw.integers(CFA_PLANE_COLOR) or (0, 1, 2)
    layout = raw.integer(CFA_LAYOUT, 1)
    if layout != 1:
        raise InputError(
            f"{path}: the rows or columns of its mosaic are staggered (CFALayout {layout}), supported are rectangular "
            "ones; convert it to a linear DNG"
        )
    cell = "".join("RGBCMYW"[code] if code < 7 else "?" for code in codes)
    lines = tuple(cell[row * columns : (row + 1) * columns] for row in range(rows))
    check_supported(path, lines)
    if planes[:3] != (0, 1, 2):
        raise InputError(f"{path}: orders its colours {planes}, not red, green, blue; convert it to a linear DNG")
    return lines
