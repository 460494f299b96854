"""The stored values of a DNG's RAW image, however they are compressed (DNG 1.7.1, chapter 2)."""

from __future__ import annotations

import logging
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from restorekit.errors import InputError
from restorekit.io.dng.float24 import is_predicted_float24, read_float24
from restorekit.io.jxl import header as jxl
from restorekit.io.tiff import Directory

if TYPE_CHECKING:
    import tifffile

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what is wrong with a file is raised, not logged

JPEG_XL = 52546
BITS, WHITE_LEVEL = 258, 50717
_DAMAGE = (
    *(ArithmeticError, LookupError, MemoryError, OSError, RuntimeError, StopIteration, TypeError, ValueError),
    *(struct.error, zlib.error),
)
"""What decoders raise for damaged data."""

COMPRESSION, VC5 = 259, 9
SUB_TILE_BLOCK, ROW_INTERLEAVE, COLUMN_INTERLEAVE = 50974, 50975, 52547


def stored_values(path: Path, file: BinaryIO, raw: Directory) -> NDArray[Any]:
    """The stored numbers ``[H,W]`` or ``[H,W,3]`` of the directory of a RAW image, in the order of the image.

    Integers of 8 to 16 bits, floats of 16 to 32. Mosaics that are stored as the images of their cell, one beside the
    other (RowInterleaveFactor and ColumnInterleaveFactor), since these compress better, are put together.

    Raises InputError for what cannot be decoded.
    """
    stored = _decoded(path, file, raw)
    if stored.dtype not in (np.uint8, np.uint16, np.float16, np.float32):
        raise InputError(
            f"{path}: stores numbers of type {stored.dtype}, supported are integers of up to 16 bits and floats of up "
            "to 32; convert it with a DNG converter"
        )
    if raw.integers(SUB_TILE_BLOCK) not in ((), (1, 1)):
        raise InputError(f"{path}: stores its tiles in blocks, which is not supported; convert it with a DNG converter")
    if stored.ndim not in (2, 3) or (stored.ndim == 3 and stored.shape[2] != 3):
        channels = stored.shape[-1] if stored.ndim == 3 else stored.ndim
        raise InputError(f"{path}: has {channels} values a pixel, supported are 1 and 3; convert it to a linear DNG")
    for axis, tag in ((0, ROW_INTERLEAVE), (1, COLUMN_INTERLEAVE)):
        fields = raw.integer(tag, 1)
        size = stored.shape[axis]
        if 1 < fields < size:
            order = np.concatenate([np.arange(field, size, fields) for field in range(fields)])
            stored = np.take(stored, np.argsort(order), axis)
    return stored


def _decoded(path: Path, file: BinaryIO, raw: Directory) -> NDArray[Any]:
    """The stored values ``[H,W]`` or ``[H,W,C]`` of a directory."""
    import tifffile

    if raw.integer(COMPRESSION, 1) == VC5:
        raise InputError(
            f"{path}: is compressed by VC-5 (GoPro), which cannot be read; convert it with Adobe DNG Converter"
        )
    try:
        if is_predicted_float24(raw):
            return read_float24(file, raw)
        with tifffile.TiffFile(path) as tiff:
            page = next(page for page in _pages(tiff.pages) if page.offset == raw.offset)
            array: NDArray[Any] = page.asarray()
            separate = page.planarconfig == 2 and array.ndim == 3
            if page.compression == JPEG_XL and array.dtype == np.uint16:
                file.seek(page.dataoffsets[0])
                array = _of_levels(array, file.read(page.databytecounts[0]), raw)
    except _DAMAGE as error:
        raise InputError(
            f"{path}: its RAW image cannot be decoded ({_first_line(error)}); copy it again from the camera or card, "
            "or convert it with a DNG converter"
        ) from error
    return np.moveaxis(array, 0, -1) if separate else array


def _of_levels(numbers: NDArray[np.uint16], piece: bytes, raw: Directory) -> NDArray[np.uint16]:
    """Numbers of JPEG XL in the range that the levels and tables of the file are meant for.

    Adobe's reader stretches samples of fewer than 16 bits to 16, and files are written for it; those whose white
    level fits into the fewer bits are taken as they are.
    """
    largest = (1 << min(jxl.header(jxl.codestream(piece)).bits, 16)) - 1
    white = raw.numbers(WHITE_LEVEL) or (float((1 << raw.integer(BITS, 16)) - 1),)
    if max(white) <= largest:
        return numbers
    stretched = np.rint(np.arange(largest + 1) * (65535 / largest)).astype(np.uint16)
    result: NDArray[np.uint16] = np.take(stretched, np.minimum(numbers, largest))
    return result


def _pages(pages: tifffile.TiffPages) -> list[tifffile.TiffPage]:
    found: list[tifffile.TiffPage] = []
    for page in pages:
        assert not isinstance(page, type(None))
        found.append(page)  # type: ignore[arg-type]
        inside = getattr(page, "pages", None)
        if inside is not None:
            found += _pages(inside)
    return found


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
