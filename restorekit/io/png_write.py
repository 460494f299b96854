"""PNG files written: filtered rows, compressed (W3C PNG 3, chapters 9 and 10; RFC 1950).

Whole pictures by libdeflate, several times faster than libpng; pictures that come row by row by zlib, which keeps no
more than its window.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
from numpy.typing import NDArray

Samples = NDArray[Any]
Bytes = NDArray[np.uint8]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
FAST_LEVEL, SMALL_LEVEL = 1, 7
ROWS_FAST = {1: (1, zlib.Z_DEFAULT_STRATEGY), 2: (1, zlib.Z_RLE)}
"""Level and strategy of zlib by the bytes of a sample: in the noise of lower bytes only runs are worth a search."""

ROWS_SMALL = (6, zlib.Z_FILTERED)
BLOCK_BYTES = 1 << 20
LARGEST_CHUNK = 1 << 30
"""Half of what PNG allows (5.3)."""


def write_png(file: BinaryIO, samples: Samples, ancillary: Iterable[bytes], *, small: bool) -> None:
    """Samples ``[H,W]`` or ``[H,W,C]`` (uint8, uint16; 1 to 4 channels, the second or fourth alpha) as a PNG file.

    ``ancillary`` are chunks to stand before the image. Rows are differences to those above, or, when it is to be
    ``small``, what of the filters of PNG leaves the smallest sum of differences; that takes about four times as long.
    """
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    _begin(file, (samples.shape[0], samples.shape[1], channels), samples.dtype, ancillary)
    rows: Any = _filtered(samples, small=small)
    room: Any = np.empty(rows.nbytes + rows.nbytes // 1000 + BLOCK_BYTES, np.uint8)  # its pages are used as they fill
    coded = imagecodecs.deflate_encode(rows, level=SMALL_LEVEL if small else FAST_LEVEL, out=room)
    del rows
    for at in range(0, len(coded), LARGEST_CHUNK):
        part = coded[at : at + LARGEST_CHUNK]
        file.write(struct.pack(">I4s", len(part), b"IDAT"))
        file.write(part)
        file.write(struct.pack(">I", zlib.crc32(part, zlib.crc32(b"IDAT"))))
    file.write(chunk(b"IEND", b""))


class PngRows:
    """A PNG file whose rows are written block after block, top to bottom, as one zlib stream in several chunks.

    ``shape`` ``[H,W,C]`` and ``kind`` (uint8, uint16) are those of the samples, 1 to 4 channels, the second or fourth
    alpha. Blocks hold ``rows`` rows, about a megabyte. ``ancillary`` and ``small`` are those of :func:`write_png`, and
    so are the filters.
    """

    def __init__(
        self,
        file: BinaryIO,
        shape: tuple[int, int, int],
        kind: np.dtype[Any],
        ancillary: Iterable[bytes],
        *,
        small: bool,
    ) -> None:
        _begin(file, shape, kind, ancillary)
        row = shape[1] * shape[2] * kind.itemsize
        self.rows = max(1, BLOCK_BYTES // row)
        self._file = file
        self._small = small
        level, strategy = ROWS_SMALL if small else ROWS_FAST[kind.itemsize]
        self._zlib = zlib.compressobj(level, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL + 1, strategy)
        self._above = np.zeros((1, row), np.uint8)

    def write(self, block: Samples) -> None:
        """The next rows ``[n,W,C]``: ``rows`` of them, fewer at the bottom."""
        into = np.empty((len(block), 1 + self._above.size), np.uint8)
        self._above = _filter(block, self._above, into, small=self._small).copy()
        self._put(self._zlib.compress(into.data))

    def finish(self) -> None:
        """End the file, after the last row."""
        self._put(self._zlib.flush())
        self._file.write(chunk(b"IEND", b""))

    def _put(self, coded: bytes) -> None:
        if coded:
            self._file.write(chunk(b"IDAT", coded))


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk with its checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _begin(file: BinaryIO, shape: tuple[int, int, int], kind: np.dtype[Any], ancillary: Iterable[bytes]) -> None:
    """All that stands before the image data."""
    height, width, channels = shape
    header = struct.pack(">2I5B", width, height, 8 * kind.itemsize, COLOR_TYPES[channels], 0, 0, 0)
    file.write(SIGNATURE + chunk(b"IHDR", header))
    file.writelines(ancillary)


def _filtered(samples: Samples, *, small: bool) -> Bytes:
    """``[H, 1 + bytes of a row]``: the number of a row's filter, and its bytes after that filter."""
    height = len(samples)
    row = samples[0].nbytes
    result = np.empty((height, row + 1), np.uint8)
    above = np.zeros((1, row), np.uint8)
    rows = max(1, BLOCK_BYTES // row)
    for top in range(0, height, rows):
        above = _filter(samples[top : top + rows], above, result[top : top + rows], small=small)
    return result


def _filter(block: Samples, above: Bytes, into: Bytes, *, small: bool) -> Bytes:
    """Filter rows that stand below ``above`` ``[1, bytes of a row]``; gives the bytes of the last one."""
    numbers = np.ascontiguousarray(block, block.dtype.newbyteorder(">")).view(np.uint8).reshape(len(block), -1)
    up = np.concatenate((above, numbers[:-1]))
    if small:
        _choose(numbers, up, block.itemsize * (1 if block.ndim == 2 else block.shape[2]), into)
    else:
        into[:, 0] = 2
        np.subtract(numbers, up, out=into[:, 1:])
    return numbers[-1:]


def _choose(numbers: Bytes, up: Bytes, step: int, into: Bytes) -> None:
    """Each row by the filter (1 to 4) that leaves the smallest sum of absolute differences."""
    left, corner = np.zeros_like(numbers), np.zeros_like(numbers)
    left[:, step:], corner[:, step:] = numbers[:, :-step], up[:, :-step]
    guesses = (left, up, (left & up) + ((left ^ up) >> 1), _paeth(left, up, corner))
    best = np.full(len(numbers), np.iinfo(np.int64).max)
    for number, guess in enumerate(guesses, 1):
        differences = numbers - guess
        size = np.minimum(differences, 0 - differences).sum(1, dtype=np.int64)
        better = size < best
        best[better] = size[better]
        into[better, 0] = number
        into[better, 1:] = differences[better]


def _paeth(left: Bytes, up: Bytes, corner: Bytes) -> Bytes:
    """Which of three neighbours is nearest to ``left + up - corner`` (Paeth 1991)."""
    a, b, c = (plane.astype(np.int16) for plane in (left, up, corner))
    to_left, to_up = b - c, a - c
    to_corner = np.abs(to_left + to_up)
    np.abs(to_left, out=to_left)
    np.abs(to_up, out=to_up)
    nearest = np.where(to_up <= to_corner, up, corner)
    return np.where((to_left <= to_up) & (to_left <= to_corner), left, nearest)
