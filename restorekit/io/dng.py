"""DNG files by the DNG 1.7 specification (Adobe): mosaics and linear images.

Reading gives the stored values after the linearization table, cropped to the active area, with all levels as the
tags tell them. Nothing of it goes through another RAW decoder, so that no level is subtracted twice.
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from restorekit.errors import InputError
from restorekit.facts import Camera, Metadata
from restorekit.frame import BayerPattern, Frame
from restorekit.io import dng_color, metadata, opcodes
from restorekit.io.optical_black import with_measured_black
from restorekit.io.tiff import (
    Directory,
    TiffError,
    read_directories,
)
from restorekit.state import ImageState

if TYPE_CHECKING:
    import tifffile

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what is wrong with a file is raised, not logged

CFA, LINEAR_RAW = 32803, 34892
PHOTOMETRIC, SUBFILE_TYPE, BITS, XMP = 262, 254, 258, 700
DNG_VERSION = 50706
LINEARIZATION_TABLE, BLACK_REPEAT, BLACK_LEVEL, BLACK_DELTA_H, BLACK_DELTA_V, WHITE_LEVEL = range(50712, 50718)
CFA_REPEAT, CFA_PATTERN, CFA_PLANE_COLOR, CFA_LAYOUT = 33421, 33422, 50710, 50711
ANALOG_BALANCE, AS_SHOT_NEUTRAL, AS_SHOT_WHITE_XY, BASELINE_EXPOSURE = range(50727, 50731)
UNIQUE_MODEL, ACTIVE_AREA, NOISE_PROFILE = 50708, 50829, 51041


def read_dng(path: Path) -> Frame:
    """A DNG as a sensor-referred frame: a mosaic ``[1,H,W]``, or ``[3,H,W]`` for a linear (already demosaiced) one.

    Pixels are digital numbers of the stored type. Where the file maps its values to linear light by polynomials
    (lossy linear DNG), these are applied, and the pixels are float32 with black 0 and white 1.

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
        exif = metadata.raw_exif(file)
    stored = _linearized(_decode(path, raw.offset), raw)
    camera = _camera(path, main, raw, channels=1 if stored.ndim == 2 else stored.shape[2])
    area = raw.integers(ACTIVE_AREA)
    if len(area) == 4:
        top, left, bottom, right = area
        camera = with_measured_black(camera, stored, (top, left, bottom, right))
        stored = stored[top:bottom, left:right]
    pixels, camera, notes = opcodes.applied(stored, camera, main, raw)
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
            exif=exif, xmp=metadata.clean_xmp(xmp), orientation=orientation if orientation in range(1, 9) else 1
        ),
        source=path,
    )
    for note in notes:
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


def _decode(path: Path, offset: int) -> NDArray[Any]:
    """The stored values ``[H,W]`` or ``[H,W,C]`` of the directory at an offset."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            page = next(page for page in _pages(tiff.pages) if page.offset == offset)
            array: NDArray[Any] = page.asarray()
            separate = page.planarconfig == 2 and array.ndim == 3
    except (ValueError, RuntimeError, OSError, KeyError, StopIteration) as error:
        raise InputError(
            f"{path}: its RAW image cannot be decoded ({_first_line(error)}); it is damaged or of an unknown kind"
        ) from error
    return np.moveaxis(array, 0, -1) if separate else array


def _pages(pages: tifffile.TiffPages) -> list[tifffile.TiffPage]:
    found: list[tifffile.TiffPage] = []
    for page in pages:
        assert not isinstance(page, type(None))
        found.append(page)  # type: ignore[arg-type]
        inside = getattr(page, "pages", None)
        if inside is not None:
            found += _pages(inside)
    return found


def _linearized(stored: NDArray[Any], raw: Directory) -> NDArray[Any]:
    """Values after the LinearizationTable; those beyond its end take its last entry."""
    table = np.asarray(raw.integers(LINEARIZATION_TABLE), np.uint16)
    if table.size == 0 or stored.dtype.kind != "u":
        return stored
    full = np.full(np.iinfo(stored.dtype).max + 1, table[-1], np.uint16)
    full[: table.size] = table[: full.size]
    return np.take(full, stored)


def _camera(path: Path, main: Directory, raw: Directory, channels: int) -> Camera:
    bits = raw.integer(BITS, 16)
    floating = raw.integer(339, 1) == 3
    repeat = raw.integers(BLACK_REPEAT) or (1, 1)
    black = raw.numbers(BLACK_LEVEL) or (0.0,)
    cells = repeat[0] * repeat[1] * channels
    white = raw.numbers(WHITE_LEVEL) or (1.0 if floating else float(2**bits - 1),)
    deltas = [np.asarray(raw.numbers(tag), np.float32) for tag in (BLACK_DELTA_V, BLACK_DELTA_H)]
    balance = dng_color.finite(main.numbers(ANALOG_BALANCE))
    noise = raw.numbers(NOISE_PROFILE) or main.numbers(NOISE_PROFILE)
    exposure_ev = main.numbers(BASELINE_EXPOSURE)
    camera = Camera(
        make=main.text(metadata.MAKE),
        model=main.text(metadata.MODEL) or main.text(UNIQUE_MODEL),
        cfa=_pattern(path, raw) if raw.integer(PHOTOMETRIC, 0) == CFA else (),
        black=np.resize(np.asarray(black, np.float32), cells).reshape(repeat[0], repeat[1], channels),
        white=np.resize(np.asarray(white, np.float32), channels),
        black_rows=deltas[0] if deltas[0].any() else None,
        black_columns=deltas[1] if deltas[1].any() else None,
        calibrations=dng_color.calibrations(main),
        analog_balance=(balance[0], balance[1], balance[2]) if len(balance) == 3 else (1.0, 1.0, 1.0),
        baseline_exposure_ev=exposure_ev[0] if exposure_ev and math.isfinite(exposure_ev[0]) else 0.0,
        noise_profile=tuple(zip(noise[::2], noise[1::2], strict=False)),
    )
    if not (camera.white is not None and camera.black is not None and (camera.white > camera.black.max((0, 1))).all()):
        raise InputError(f"{path}: its white level is not above its black level; the file is damaged")
    return replace(camera, neutral=dng_color.neutral(main, camera))


def _pattern(path: Path, raw: Directory) -> tuple[str, ...]:
    """The colours of the repeating cell, from the top left of the active area."""
    rows, columns = (*raw.integers(CFA_REPEAT), 2, 2)[:2]
    codes = raw.integers(CFA_PATTERN)
    planes = raw.integers(CFA_PLANE_COLOR) or (0, 1, 2)
    cell = "".join("RGBCMYW"[code] if code < 7 else "?" for code in codes)
    lines = tuple(cell[row * columns : (row + 1) * columns] for row in range(rows))
    bayer = (rows, columns) == (2, 2) and cell in get_args(BayerPattern)
    xtrans = (rows, columns) == (6, 6) and len(cell) == 36 and set(cell) == set("RGB")
    if planes[:3] != (0, 1, 2) or raw.integer(CFA_LAYOUT, 1) != 1 or not (bayer or xtrans):
        cell = "/".join(lines) or "?"
        raise InputError(f"{path}: its colour filters {cell} are neither Bayer nor X-Trans, which alone are supported")
    return lines


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
