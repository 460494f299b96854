"""Write frames: encoded into a file beside the final one, which then takes its place at once.

The same frame gives the same bytes: nothing here writes the time of day.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from restorekit.errors import OutputError, RestorekitError
from restorekit.io.formats import FORMATS, OutputSpec, format_of_path, refusal

if TYPE_CHECKING:
    from torch import Tensor

    from restorekit.frame import Frame
    from restorekit.io.embedded import Embedded

Samples = NDArray[np.unsignedinteger[Any]]

HALF_MAX = 65504.0
STRIP_BYTES = 1 << 20
TIFF_MAX_BYTES = (1 << 32) - (1 << 20)
TIFF_COMPRESSIONS = {"none": 1, "deflate": 8, "zstd": 50000}


def write(frame: Frame, path: str | Path, spec: OutputSpec | None = None) -> Path:
    """Write a frame to a file, turned upright, with its EXIF block and a colour profile; gives the path back.

    The format is that of ``spec``, or what the extension stands for. Float pixels are quantised; integers of the
    right depth are written as they are, without a copy where they lie interleaved in memory. JPEG drops alpha.

    Raises OutputError, naming the file and the cure, when the format cannot hold the frame's state, and when the
    disk is full, the folder is missing or may not be written. Nothing half-written is left.
    """
    path = Path(path)
    if spec is None:
        found = format_of_path(path)
        if found is None:
            known = ", ".join(extension for kind in FORMATS.values() for extension in kind.extensions)
            raise OutputError(f"{path}: no format has the extension '{path.suffix}'; known are {known}")
        spec = OutputSpec(format=found)
    if message := refusal(spec.format, spec.bits, frame.state):
        raise OutputError(f"{path}: {message}")
    if spec.format == "dng":
        from restorekit.io.dng import write_dng

        write_dng(path, replace(frame, pixels=_stored(frame.pixels, spec)))
        return path
    frame = _upright(replace(frame, pixels=_stored(frame.pixels, spec)))
    encode = {"jpeg": _jpeg, "png": _png, "tiff": _tiff, "exr": _exr}[spec.format]
    with replacing(path) as file:
        encode(file, frame, spec)
    return path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file ``NAME.part`` to write to, which becomes the file itself at the end, and is removed on any failure.

    Raises OutputError with cause and cure where the system or an encoder fails.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        if isinstance(error, RestorekitError) or not isinstance(error, Exception):
            raise
        raise OutputError(f"{path}: {_failure(path, error)}") from error


def quantise(pixels: Tensor, bits: int) -> Tensor:
    """Float pixels ``[C,H,W]``, 0..1, as integers of 8 or 16 bits, rounded; what is outside is clamped, NaN is 0.

    The result is ``[C,H,W]`` over interleaved memory: ``permute(1, 2, 0)`` is contiguous. One pass over the
    samples in the processor's vector units, where a chain of tensor operations takes several.
    """
    import cv2
    import torch

    depth, largest = (cv2.CV_8U, 255.0) if bits == 8 else (cv2.CV_16U, 65535.0)
    limited = pixels.detach().cpu().to(torch.float32).clamp(0.0, 1.0).numpy()
    planes = [cv2.addWeighted(plane, largest, plane, 0.0, 0.0, dtype=depth) for plane in limited]
    samples = cv2.merge(planes) if len(planes) > 1 else planes[0][..., None]
    return torch.from_numpy(samples).permute(2, 0, 1)


def quantiser(spec: OutputSpec) -> Callable[[Tensor], Tensor]:
    """The function that turns float strips into what an output's format stores.

    jpeg, png, tiff: integers as :func:`quantise` makes them. exr: half or single floats, planes apart; half floats
    are clamped to their range. dng: digital numbers, rounded and clamped to 16 bits.
    """
    import torch

    if spec.format == "dng":
        return lambda pixels: pixels.round().clamp_(0, 65535).to(torch.uint16)
    if spec.format != "exr":
        return lambda pixels: quantise(pixels, spec.depth)
    if spec.depth == 32:
        return lambda pixels: pixels
    return lambda pixels: pixels.clamp(-HALF_MAX, HALF_MAX).to(torch.float16)


def _stored(pixels: Tensor, spec: OutputSpec) -> Tensor:
    """Pixels in the type of the file, made strip by strip where they are not."""
    import torch

    from restorekit.frame import to_float
    from restorekit.strips import strip_rows

    integers = {8: torch.uint8, 16: torch.uint16}
    floats = {16: torch.float16, 32: torch.float32}
    if pixels.dtype == (floats if spec.format == "exr" else integers)[spec.depth]:
        return pixels
    convert = quantiser(spec)
    numbers = spec.format == "dng"
    channels, height, width = pixels.shape
    stored: Tensor | None = None
    rows = strip_rows(width)
    for top in range(0, height, rows):
        strip = convert(to_float(pixels[:, top : top + rows], digital_numbers=numbers))
        if stored is None:
            interleaved = spec.format in ("jpeg", "png", "tiff")
            shape = (height, width, channels) if interleaved else (channels, height, width)
            stored = torch.empty(shape, dtype=strip.dtype)
            stored = stored.permute(2, 0, 1) if interleaved else stored
        stored[:, top : top + rows] = strip
    assert stored is not None
    return stored


def _upright(frame: Frame) -> Frame:
    """The frame turned upright; 16-bit integers as signed ones, for which alone torch has flips."""
    import torch

    if frame.metadata.orientation == 1 or frame.pixels.dtype != torch.uint16:
        return frame.upright()
    turned = replace(frame, pixels=frame.pixels.view(torch.int16)).upright()
    return replace(turned, pixels=turned.pixels.view(torch.uint16))


def _interleaved(frame: Frame, spec: OutputSpec) -> Samples:
    """Samples ``[H,W]`` or ``[H,W,C]``, with alpha last where there is one and the format has it."""
    samples: Samples = np.ascontiguousarray(frame.pixels.permute(1, 2, 0).cpu().numpy())
    if frame.alpha is not None and spec.format != "jpeg":
        alpha = _stored(frame.alpha, spec).permute(1, 2, 0).numpy()
        samples = np.concatenate((samples, alpha), axis=2)
    return samples[..., 0] if samples.shape[2] == 1 else samples


def _jpeg(file: BinaryIO, frame: Frame, spec: OutputSpec) -> None:
    import imagecodecs

    from restorekit.io import embedded

    if max(frame.height, frame.width) > 65535:
        raise OutputError(f"{file.name.removesuffix('.part')}: jpeg holds at most 65535 px a side; write png or tiff")
    coded = imagecodecs.jpeg8_encode(_interleaved(frame, spec), level=spec.quality, subsampling="444")
    file.writelines(embedded.into_jpeg(bytes(coded), _embedded(frame, limit=embedded.EXIF_LIMIT)))


def _png(file: BinaryIO, frame: Frame, spec: OutputSpec) -> None:
    """``fast``: Paeth filter and run lengths; ``small``: all filters and zlib's thorough search."""
    import imagecodecs

    from restorekit.io import embedded
    from restorekit.io.display import H273_PRIMARIES, H273_TRANSFERS

    small = spec.compression == "small"
    coded = imagecodecs.png_encode(
        _interleaved(frame, spec), level=6 if small else 1, strategy=0 if small else 3, filter=None if small else 128
    )
    carried = _embedded(frame)
    srgb = (frame.state.primaries, frame.state.transfer) == ("bt709", "srgb")
    if srgb and not frame.metadata.icc:
        carried = replace(carried, icc=b"")
    if frame.state.transfer in ("pq", "hlg"):
        primaries = next(code for code, name in H273_PRIMARIES.items() if name == frame.state.primaries)
        transfer = next(code for code, name in H273_TRANSFERS.items() if name == frame.state.transfer)
        carried = replace(carried, cicp=(primaries, transfer))
    file.writelines(embedded.into_png(bytes(coded), carried, srgb=srgb))


def _exr(file: BinaryIO, frame: Frame, spec: OutputSpec) -> None:
    from restorekit.io.hdr import write_exr

    write_exr(Path(file.name), frame, compression=spec.compression or "zip", software=_software())


def _tiff(file: BinaryIO, frame: Frame, spec: OutputSpec) -> None:
    """Strips of about a megabyte after the directory; EXIF as a directory of its own."""
    from restorekit.io import metadata
    from restorekit.io.tiff import BYTE, LONG, RATIONAL, SHORT, STRIP_OFFSETS, UNDEFINED, Field, Tree, lay_out
    from restorekit.io.tiff import STRIP_BYTES as SIZES

    samples = _interleaved(frame, spec)
    if samples.nbytes > TIFF_MAX_BYTES:
        raise OutputError(f"{file.name.removesuffix('.part')}: tiff holds at most 4 GB; write png or exr")
    height, width = samples.shape[:2]
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    compression = spec.compression or "none"
    tree: Tree = metadata.output_exif(
        frame.metadata.exif, width=width, height=height, software=_software(), srgb=_is_srgb(frame), order="<"
    )
    rows = max(1, STRIP_BYTES // samples[0].nbytes)
    strips = -(-height // rows)
    tree |= {
        256: Field.of(LONG, (width,)),
        257: Field.of(LONG, (height,)),
        258: Field.of(SHORT, (spec.depth,) * channels),
        259: Field.of(SHORT, (TIFF_COMPRESSIONS[compression],)),
        262: Field.of(SHORT, (1 if channels < 3 else 2,)),
        metadata.ORIENTATION: Field.of(SHORT, (1,)),
        277: Field.of(SHORT, (channels,)),
        278: Field.of(LONG, (rows,)),
        284: Field.of(SHORT, (1,)),
        339: Field.of(SHORT, (1,) * channels),
    }
    for tag, usual in (
        (282, Field.of(RATIONAL, (72,))),
        (283, Field.of(RATIONAL, (72,))),
        (296, Field.of(SHORT, (2,))),
    ):
        tree.setdefault(tag, usual)
    if compression != "none":
        tree[317] = Field.of(SHORT, (2,))
    if channels in (2, 4):
        tree[338] = Field.of(SHORT, (2,))
    profile = _profile(frame)
    if profile:
        tree[34675] = Field.of(UNDEFINED, profile)
    if frame.metadata.xmp:
        tree[700] = Field.of(BYTE, frame.metadata.xmp)

    def block(start: int, sizes: list[int]) -> bytes:
        offsets = np.cumsum([start, *sizes[:-1]]).tolist()
        return lay_out(
            {**tree, STRIP_OFFSETS: Field.of(LONG, offsets), SIZES: Field.of(LONG, sizes)},
            "<",
            metadata.maker_note(tree),
        )

    start = -(-len(block(0, [0] * strips)) // 16) * 16
    file.seek(start)
    if compression == "none":
        sizes = [samples[top : top + rows].nbytes for top in range(0, height, rows)]
        file.write(samples.astype(samples.dtype.newbyteorder("<"), copy=False).data)
    else:
        sizes = [file.write(_packed(samples[top : top + rows], compression)) for top in range(0, height, rows)]
    file.seek(0)
    file.write(block(start, sizes).ljust(start, b"\0"))


def _packed(samples: Samples, compression: str) -> bytes:
    """A strip as differences from the sample to the left (TIFF predictor 2), compressed."""
    import imagecodecs

    differences = samples.copy()
    differences[:, 1:] -= samples[:, :-1]
    encode = {"deflate": imagecodecs.zlib_encode, "zstd": imagecodecs.zstd_encode}[compression]
    return bytes(encode(differences.tobytes(), level=6 if compression == "deflate" else 3))


def _embedded(frame: Frame, limit: int | None = None) -> Embedded:
    from restorekit.io import metadata
    from restorekit.io.embedded import Embedded

    tree = metadata.output_exif(
        frame.metadata.exif, width=frame.width, height=frame.height, software=_software(), srgb=_is_srgb(frame)
    )
    return Embedded(metadata.exif_bytes(tree, limit), _profile(frame), frame.metadata.xmp)


def _profile(frame: Frame) -> bytes:
    """The profile the picture came with, where it tells the state of the pixels, else one made for that state.

    A profile that is not understood is kept for pixels that are called sRGB: its numbers were read as such.
    """
    from restorekit.io import icc

    own, state = frame.metadata.icc, frame.state
    if own and (own[16:20] == b"GRAY") == (state.layout == "gray"):
        space = icc.space_of(own)
        if space == (state.primaries, state.transfer) or (space is None and _is_srgb(frame)):
            return own
    return icc.profile_of(replace(state, frames="single"))


def _is_srgb(frame: Frame) -> bool:
    return (frame.state.primaries, frame.state.transfer) == ("bt709", "srgb")


def _software() -> str:
    from restorekit import __version__

    return f"restorekit {__version__}"


def _failure(path: Path, error: Exception) -> str:
    """Cause and cure of a failed write, in words."""
    number = error.errno if isinstance(error, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; free some space or name another output folder"
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{path.parent} may not be written; change its permissions or name another output folder"
    if number in (errno.ENOENT, errno.ENOTDIR):
        return f"there is no folder {path.parent}; create it or name another output folder"
    said = (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
    return f"cannot be written ({said}); name another output folder or format"
