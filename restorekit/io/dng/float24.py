"""24-bit floats (DNG 1.4, TIFF Technical Note 3): a sign, 7 bits of exponent with a bias of 64 - 1, 16 of mantissa.

Image data of them are read as HDRMerge writes them: deflated and predicted.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from restorekit.io.tiff import STRIP_OFFSETS, STRIP_SIZES, TILE_OFFSETS, TILE_SIZES, Directory

SAMPLE_FORMAT, PREDICTOR, FLOATING = 339, 317, 3
DISTANCES = {3: 1, 34894: 2, 34895: 4}
"""Pixels between a sample and the one it was predicted from, by Predictor."""

_EXPONENT_SHIFT = np.uint32((127 - 63) << 16)
_LARGEST = np.uint32(0x7EFFFF)


def is_predicted_float24(directory: Directory) -> bool:
    """Whether a directory holds 24-bit floats that are deflated and predicted."""
    deflated = directory.integer(259, 1) in (8, 32946)
    predicted = directory.integer(PREDICTOR, 1) in DISTANCES
    return (
        directory.integer(SAMPLE_FORMAT, 1) == FLOATING and directory.integer(258, 0) == 24 and deflated and predicted
    )


def read_float24(file: BinaryIO, directory: Directory) -> NDArray[np.float32]:
    """The values ``[H,W]`` or ``[H,W,C]`` of a directory for which the above holds.

    Of each tile no more is unpacked than it holds. Raises ValueError or zlib.error for data that are damaged.
    """
    height, width, channels = directory.integer(257, 0), directory.integer(256, 0), directory.integer(277, 1)
    distance = DISTANCES[directory.integer(PREDICTOR, 1)]
    image = np.empty((height, width, channels), np.float32)
    for top, left, rows, columns, data in _pieces(file, directory, height, width):
        unpacked = zlib.decompressobj().decompress(data, 3 * rows * columns * channels)
        piece = _decoded(unpacked, rows, columns, channels, distance)
        target = image[top : top + rows, left : left + columns]
        target[...] = piece[: target.shape[0], : target.shape[1]]
    return image[..., 0] if channels == 1 else image


def _pieces(
    file: BinaryIO, directory: Directory, height: int, width: int
) -> Iterator[tuple[int, int, int, int, bytes]]:
    """Corner, size and bytes of each tile or strip; tiles at the right and lower border are whole, strips are not."""
    tiled = TILE_OFFSETS in directory.fields
    offsets, sizes = (TILE_OFFSETS, TILE_SIZES) if tiled else (STRIP_OFFSETS, STRIP_SIZES)
    columns, rows = (
        (directory.integer(tag, 0) for tag in (322, 323)) if tiled else (width, directory.integer(278, height))
    )
    if rows < 1 or columns < 1:
        raise ValueError("its tiles have no size")
    across = -(-width // columns)
    for index, (offset, size) in enumerate(zip(directory.integers(offsets), directory.integers(sizes), strict=True)):
        top, left = index // across * rows, index % across * columns
        file.seek(offset)
        yield top, left, rows if tiled else min(rows, height - top), columns, file.read(size)


def _decoded(data: bytes, rows: int, columns: int, channels: int, distance: int) -> NDArray[np.float32]:
    """Floats ``[rows,columns,C]`` from bytes that were sorted by significance within each row, then subtracted."""
    import imagecodecs

    stride, length = distance * channels, 3 * columns * channels
    lines = np.zeros((rows, -(-length // stride) * stride), np.uint8)
    lines[:, :length] = np.frombuffer(data, np.uint8, rows * length).reshape(rows, length)
    summed = np.cumsum(lines.reshape(rows, -1, stride), 1, dtype=np.uint8).reshape(rows, -1)[:, :length]
    numbers = np.ascontiguousarray(summed.reshape(rows, 3, columns * channels).transpose(0, 2, 1))
    floats: NDArray[np.float32] = imagecodecs.float24_decode(numbers.tobytes(), byteorder=">")
    return floats.reshape(rows, columns, channels)


def float24_bytes(numbers: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Finite floats of any shape as 24-bit ones ``[...,3]``, big-endian, rounded to nearest, ties to even.

    What is smaller than the smallest normal one, 2^-62, becomes 0; what is larger than the largest, about 2^64, that.
    """
    codes = np.ascontiguousarray(numbers, np.float32).view(np.uint32)
    magnitude = codes & 0x7FFFFFFF
    rounded = ((magnitude + 0x3F + ((magnitude >> 7) & 1)) >> 7).clip(_EXPONENT_SHIFT, _EXPONENT_SHIFT + _LARGEST)
    rounded -= _EXPONENT_SHIFT
    rounded[rounded < 0x10000] = 0
    rounded |= codes >> 31 << 23
    return rounded.astype(">u4")[..., None].view(np.uint8)[..., 1:]
