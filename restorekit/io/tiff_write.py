"""TIFF 6.0 files written, with floats and zstd as libtiff has them (Adobe TIFF Technical Note 3)."""

from __future__ import annotations

from typing import Any, BinaryIO

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from restorekit.errors import OutputError
from restorekit.frame import Frame
from restorekit.io import metadata
from restorekit.io.tagging import is_srgb, profile
from restorekit.io.tiff import (
    BYTE,
    LONG,
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
TIFF_MAX_BYTES = (1 << 32) - (1 << 20)
DEFLATE_LEVEL, ZSTD_LEVEL = 4, 3
TIFF_COMPRESSIONS = {"none": 1, "deflate": 8, "zstd": 50000}
XMP, IPTC, ICC = 700, 33723, 34675


def write_tiff(file: BinaryIO, frame: Frame, samples: Samples, compression: str, software: str) -> None:
    """Samples ``[H,W]`` or ``[H,W,C]`` in strips of about a megabyte, in the byte order of the EXIF block.

    The metadata are those of the frame. Raises OutputError for pictures of more than 4 GB.
    """
    if samples.nbytes > TIFF_MAX_BYTES:
        raise OutputError(f"{file.name.removesuffix('.part')}: tiff holds at most 4 GB; write png or exr")
    carried = frame.metadata
    tree = metadata.output_exif(
        carried.exif, width=frame.width, height=frame.height, software=software, srgb=is_srgb(frame.state)
    )
    order = metadata.order_of(tree)
    rows = max(1, STRIP_BYTES // samples[0].nbytes)
    tree = _image_fields(samples, rows, compression, order) | tree
    tree[metadata.ORIENTATION] = Field.of(SHORT, (1,), order)
    blocks = ((ICC, UNDEFINED, profile(frame)), (XMP, BYTE, carried.xmp), (IPTC, UNDEFINED, carried.iptc))
    tree |= {tag: Field.of(kind, data, order) for tag, kind, data in blocks if data}

    def block(start: int, sizes: list[int]) -> bytes:
        offsets = np.cumsum([start, *sizes[:-1]]).tolist()
        places: Tree = {STRIP_OFFSETS: Field.of(LONG, offsets, order), STRIP_SIZES: Field.of(LONG, sizes, order)}
        return lay_out(tree | places, order, metadata.maker_note(tree))

    tops = range(0, frame.height, rows)
    start = -(-len(block(0, [0] * len(tops))) // 16) * 16
    file.seek(start)
    sizes = [file.write(_strip(samples[top : top + rows], compression, order)) for top in tops]
    file.seek(0)
    file.write(block(start, sizes).ljust(start, b"\0"))


def _image_fields(samples: Samples, rows: int, compression: str, order: Order) -> Tree:
    """The fields of TIFF that describe the samples and their strips."""
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    floats = samples.dtype.kind == "f"
    tree: Tree = {
        256: Field.of(LONG, (samples.shape[1],), order),
        257: Field.of(LONG, (samples.shape[0],), order),
        258: Field.of(SHORT, (8 * samples.itemsize,) * channels, order),
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
        channels = 1 if samples.ndim == 2 else samples.shape[2]
        flat = samples.reshape(len(samples), -1)
        differences = flat.copy()
        np.subtract(flat[:, channels:], flat[:, :-channels], out=differences[:, channels:])
        data = differences.astype(typed, copy=False).data
    if compression == "deflate":
        return bytes(imagecodecs.deflate_encode(data, level=DEFLATE_LEVEL))
    return bytes(imagecodecs.zstd_encode(data, level=ZSTD_LEVEL))
