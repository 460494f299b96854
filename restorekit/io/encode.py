"""Encoders: a frame whose pixels are already of the stored type, into an open file, with its metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from restorekit import __version__
from restorekit.errors import OutputError
from restorekit.frame import Frame
from restorekit.io import embedded, hdr, icc, metadata
from restorekit.io.display import H273_PRIMARIES, H273_TRANSFERS
from restorekit.io.embedded import Embedded
from restorekit.io.formats import FORMATS, OutputSpec
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
from restorekit.io.write import stored

Samples = NDArray[np.unsignedinteger[Any]]
Encoder = Callable[[BinaryIO, Frame, OutputSpec], None]

SOFTWARE = f"restorekit {__version__}"
STRIP_BYTES = 1 << 20
TIFF_MAX_BYTES = (1 << 32) - (1 << 20)
TIFF_COMPRESSIONS = {"none": 1, "deflate": 8, "zstd": 50000}


def jpeg(file: BinaryIO, frame: Frame, spec: OutputSpec) -> None:
    """Baseline JPEG at full colour resolution.

    Raises OutputError for pictures of more than 65535 px a side.
    """
    if max(frame.height, frame.width) > 65535:
        raise OutputError(f"{_name(file)}: jpeg holds at most 65535 px a side; write png or tiff")
    coded = imagecodecs.jpeg8_encode(_interleaved(frame, spec), level=spec.quality, subsampling="444")
    file.writelines(embedded.into_jpeg(bytes(coded), _embedded(frame, limit=embedded.EXIF_LIMIT)))


def png(file: BinaryIO, frame: Frame, spec: OutputSpec) -> None:
    """PNG: ``fast`` with the Paeth filter and run lengths, ``small`` with all filters and zlib's thorough search."""
    samples = _interleaved(frame, spec)
    if spec.compression == "small":
        coded = imagecodecs.png_encode(samples, level=6)
    else:
        coded = imagecodecs.png_encode(samples, level=1, strategy=3, filter=128)
    carried = _embedded(frame)
    if _is_srgb(frame) and not frame.metadata.icc:
        carried = replace(carried, icc=b"")
    if frame.state.transfer in ("pq", "hlg"):
        primaries = next(code for code, name in H273_PRIMARIES.items() if name == frame.state.primaries)
        transfer = next(code for code, name in H273_TRANSFERS.items() if name == frame.state.transfer)
        carried = replace(carried, cicp=(primaries, transfer))
    file.writelines(embedded.into_png(bytes(coded), carried, srgb=_is_srgb(frame)))


def exr(file: BinaryIO, frame: Frame, spec: OutputSpec) -> None:
    """OpenEXR of half or single floats."""
    hdr.write_exr(Path(file.name), frame, compression=spec.compression or "zip", software=SOFTWARE)


def tiff(file: BinaryIO, frame: Frame, spec: OutputSpec) -> None:
    """TIFF 6.0 in strips of about a megabyte, in the byte order of the EXIF block, which goes with it.

    Raises OutputError for pictures of more than 4 GB.
    """
    samples = _interleaved(frame, spec)
    if samples.nbytes > TIFF_MAX_BYTES:
        raise OutputError(f"{_name(file)}: tiff holds at most 4 GB; write png or exr")
    compression = spec.compression or "none"
    tree = metadata.output_exif(
        frame.metadata.exif, width=frame.width, height=frame.height, software=SOFTWARE, srgb=_is_srgb(frame)
    )
    order = metadata.order_of(tree)
    rows = max(1, STRIP_BYTES // samples[0].nbytes)
    tree = _image_fields(samples, rows, compression, order) | tree
    tree[metadata.ORIENTATION] = Field.of(SHORT, (1,), order)
    for tag, kind, data in ((34675, UNDEFINED, _profile(frame)), (700, BYTE, frame.metadata.xmp)):
        if data:
            tree[tag] = Field.of(kind, data, order)

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


ENCODERS: Mapping[str, Encoder] = {"jpeg": jpeg, "png": png, "tiff": tiff, "exr": exr}
"""By the name of the format."""


def _image_fields(samples: Samples, rows: int, compression: str, order: Order) -> Tree:
    """The fields of TIFF that describe the samples and their strips."""
    channels = 1 if samples.ndim == 2 else samples.shape[2]
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
        339: Field.of(SHORT, (1,) * channels, order),
    }
    if compression != "none":
        tree[317] = Field.of(SHORT, (2,), order)
    if channels in (2, 4):
        tree[338] = Field.of(SHORT, (2,), order)
    return tree


def _strip(samples: Samples, compression: str, order: Order) -> bytes | memoryview:
    """A strip in the byte order of the file; compressed ones as differences to the left (TIFF predictor 2)."""
    typed = samples.dtype.newbyteorder(order)
    if compression == "none":
        return samples.astype(typed, copy=False).data
    differences = samples.copy()
    differences[:, 1:] -= samples[:, :-1]
    data = differences.astype(typed, copy=False).tobytes()
    if compression == "deflate":
        return bytes(imagecodecs.zlib_encode(data, level=6))
    return bytes(imagecodecs.zstd_encode(data, level=3))


def _interleaved(frame: Frame, spec: OutputSpec) -> Samples:
    """Samples ``[H,W]`` or ``[H,W,C]``, with alpha last where there is one and the format has it."""
    samples: Samples = np.ascontiguousarray(frame.pixels.permute(1, 2, 0).cpu().numpy())
    if frame.alpha is not None and FORMATS[spec.format].alpha:
        alpha = stored(frame.alpha, spec).permute(1, 2, 0).numpy()
        samples = np.concatenate((samples, alpha), axis=2)
    return samples[..., 0] if samples.shape[2] == 1 else samples


def _embedded(frame: Frame, limit: int | None = None) -> Embedded:
    """EXIF block of at most ``limit`` bytes, profile and XMP of a picture."""
    tree = metadata.output_exif(
        frame.metadata.exif, width=frame.width, height=frame.height, software=SOFTWARE, srgb=_is_srgb(frame)
    )
    return Embedded(metadata.exif_bytes(tree, limit), _profile(frame), frame.metadata.xmp)


def _profile(frame: Frame) -> bytes:
    """The profile the picture came with, where it tells the state of the pixels, else one made for that state.

    A profile that is not understood is kept for pixels that are called sRGB: its numbers were read as such.
    """
    own, state = frame.metadata.icc, frame.state
    if own and (own[16:20] == b"GRAY") == (state.layout == "gray"):
        space = icc.space_of(own)
        if space == (state.primaries, state.transfer) or (space is None and _is_srgb(frame)):
            return own
    return icc.profile_of(state)


def _is_srgb(frame: Frame) -> bool:
    return (frame.state.primaries, frame.state.transfer) == ("bt709", "srgb")


def _name(file: BinaryIO) -> str:
    return file.name.removesuffix(".part")
