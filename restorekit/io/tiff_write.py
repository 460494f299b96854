"""TIFF 6.0 files written, with floats and zstd as libtiff has them (Adobe TIFF Technical Note 3).

Above 4 GB they are BigTIFF, the same structure with offsets of 64 bits.
"""

from __future__ import annotations

from typing import Any, BinaryIO

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from restorekit.frame import Frame
from restorekit.io import metadata
from restorekit.io.tagging import is_srgb, profile
from restorekit.io.tiff import (
    BYTE,
    LONG,
    LONG8,
    RATIONAL,
    SHORT,
    STRIP_OFFSETS,
    STRIP_SIZES,
    UNDEFINED,
    Field,
    Order,
    Tree,
    lay_out,
)

Samples = NDArray[Any]

STRIP_BYTES = 1 << 20
CLASSIC_BYTES = 4_000_000_000
"""Bytes of samples above which a file is BigTIFF: metadata, and what does not compress, come on top of them."""

DEFLATE_LEVEL, ZSTD_LEVEL = 4, 3
TIFF_COMPRESSIONS = {"none": 1, "deflate": 8, "zstd": 50000}
XMP, IPTC, ICC = 700, 33723, 34675


class TiffRows:
    """A TIFF file whose strips are written one after the other, top to bottom; none of them is kept.

    ``shape`` ``[H,W,C]`` and ``kind`` (uint8, uint16, float32) are those of the samples, 1 to 4 channels, the second
    or fourth alpha; the metadata are those of ``frame``, whose pixels are not looked at. Strips hold ``rows`` rows,
    about a megabyte, in the byte order of the EXIF block. Room for the directory is left in front of them.
    """

    def __init__(
        self,
        file: BinaryIO,
        frame: Frame,
        shape: tuple[int, int, int],
        kind: np.dtype[Any],
        compression: str,
        software: str,
    ) -> None:
        height, width, channels = shape
        carried = frame.metadata
        tree = metadata.output_exif(
            carried.exif, width=width, height=height, software=software, srgb=is_srgb(frame.state)
        )
        order = metadata.order_of(tree)
        row_bytes = width * channels * kind.itemsize
        self.rows = max(1, STRIP_BYTES // row_bytes)
        tree = _image_fields(shape, kind, self.rows, compression, order) | tree
        tree[metadata.ORIENTATION] = Field.of(SHORT, (1,), order)
        blocks = ((ICC, UNDEFINED, profile(frame)), (XMP, BYTE, carried.xmp), (IPTC, UNDEFINED, carried.iptc))
        self._tree = tree | {tag: Field.of(place, data, order) for tag, place, data in blocks if data}
        self._order = order
        self._file = file
        self._compression = compression
        self._big = height * row_bytes > CLASSIC_BYTES
        self._sizes: list[int] = []
        self._start = -(-len(self._head(0, [0] * -(-height // self.rows))) // 16) * 16
        file.seek(self._start)

    def write(self, block: Samples) -> None:
        """The next strip ``[n,W,C]``: ``rows`` rows, fewer at the bottom."""
        self._sizes.append(self._file.write(_strip(block, self._compression, self._order)))

    def finish(self) -> None:
        """Put the directory in front, after the last strip."""
        self._file.seek(0)
        self._file.write(self._head(self._start, self._sizes).ljust(self._start, b"\0"))

    def _head(self, start: int, sizes: list[int]) -> bytes:
        """All that stands before strips of these sizes, the first of them at ``start``."""
        offsets = np.cumsum([start, *sizes[:-1]]).tolist()
        places: Tree = {
            STRIP_OFFSETS: Field.of(LONG8 if self._big else LONG, offsets, self._order),
            STRIP_SIZES: Field.of(LONG, sizes, self._order),
        }
        return lay_out(self._tree | places, self._order, metadata.maker_note(self._tree), big=self._big)


def write_tiff(file: BinaryIO, frame: Frame, samples: Samples, compression: str, software: str) -> None:
    """Samples ``[H,W,C]`` (uint8, uint16, float32; 1 to 4 channels) with the metadata of the frame."""
    height, width, channels = samples.shape
    target = TiffRows(file, frame, (height, width, channels), samples.dtype, compression, software)
    for top in range(0, height, target.rows):
        target.write(samples[top : top + target.rows])
    target.finish()


def _image_fields(shape: tuple[int, int, int], kind: np.dtype[Any], rows: int, compression: str, order: Order) -> Tree:
    """The fields of TIFF that describe the samples and their strips."""
    height, width, channels = shape
    floats = kind.kind == "f"
    tree: Tree = {
        256: Field.of(LONG, (width,), order),
        257: Field.of(LONG, (height,), order),
        258: Field.of(SHORT, (8 * kind.itemsize,) * channels, order),
        259: Field.of(SHORT, (TIFF_COMPRESSIONS[compression],), order),
        262: Field.of(SHORT, (1 if channels < 3 else 2,), order),
        277: Field.of(SHORT, (channels,), order),
        278: Field.of(LONG, (rows,), order),
        282: Field.of(RATIONAL, (72,), order),
        283: Field.of(RATIONAL, (72,), order),
        284: Field.of(SHORT, (1,), order),
        296: Field.of(SHORT, (2,), order),
        339: Field.of(SHORT, (3 if floats else 1,) * channels, order),
    }
    if compression != "none":
        tree[317] = Field.of(SHORT, (3 if floats else 2,), order)
    if channels in (2, 4):
        tree[338] = Field.of(SHORT, (2,), order)
    return tree


def _strip(samples: Samples, compression: str, order: Order) -> bytes | memoryview:
    """A strip in the byte order of the file; compressed ones as differences to the left (TIFF predictors 2 and 3)."""
    typed = samples.dtype.newbyteorder(order)
    if compression == "none":
        return samples.astype(typed, copy=False).data
    data: Any
    if samples.dtype.kind == "f":
        data = imagecodecs.floatpred_encode(samples, axis=1).tobytes()
    else:
        channels = samples.shape[2]
        flat = samples.reshape(len(samples), -1)
        differences = flat.copy()
        np.subtract(flat[:, channels:], flat[:, :-channels], out=differences[:, channels:])
        data = differences.astype(typed, copy=False).data
    if compression == "deflate":
        return bytes(imagecodecs.deflate_encode(data, level=DEFLATE_LEVEL))
    return bytes(imagecodecs.zstd_encode(data, level=ZSTD_LEVEL))
