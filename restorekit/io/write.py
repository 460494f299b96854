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
from typing import TYPE_CHECKING, BinaryIO

from restorekit import __version__
from restorekit.errors import OutputError, RestorekitError
from restorekit.io.formats import COLOR_SPACES, FORMATS, OutputSpec, format_of_path, refusal

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from restorekit.frame import Frame

SOFTWARE = f"restorekit {__version__}"
HALF_MAX = 65504.0
STRIP_PIXELS = 1 << 19
"""Pixels that are converted at a time, so that float copies stay small."""


def write(frame: Frame, path: str | Path, spec: OutputSpec | None = None, *, software: str = SOFTWARE) -> Path:
    """Write a frame to a file, turned upright, with its metadata and its colour space; gives the path back.

    The format is that of ``spec``, or what the extension stands for, with the depth of the pixels where they are
    integers and the format has it. Float pixels are quantised; integers of the right depth are written as they are,
    without a copy where they lie interleaved in memory. What the format does not hold is left out, as
    :func:`restorekit.io.formats.losses` tells. ``software`` is the name of the program that the file tells.

    Raises OutputError, naming the file and the cure, when the format cannot hold the frame's state or size, and when
    the disk is full, the folder is missing or may not be written. Nothing half-written is left. Raises TypeError for
    pixels that are no frame.
    """
    from restorekit.frame import Frame

    path = Path(path)
    if not isinstance(frame, Frame):
        raise TypeError(f"write takes a Frame, got {type(frame).__name__}; make one of pixels [3,H,W]: Frame(pixels)")
    if spec is None:
        found = format_of_path(path)
        if found is None:
            known = ", ".join(dict.fromkeys(extension for kind in FORMATS.values() for extension in kind.extensions))
            raise OutputError(f"{path}: no format has the extension '{path.suffix}'; known are {known}")
        spec = OutputSpec(format=found, bits=_own_bits(frame, found))
    if spec.format == "ultrahdr":
        raise OutputError(f"{path}: ultrahdr holds two renditions; write them by restorekit.io.write_ultrahdr")
    if message := refusal(spec.format, spec.bits, frame.state):
        raise OutputError(f"{path}: {message}")
    wanted = COLOR_SPACES.get(spec.color or "", (frame.state.primaries,))[0]
    if frame.state.layout == "rgb" and frame.state.primaries != wanted:
        said = f"color: {spec.color} is asked for, the frame is {frame.state.primaries}"
        raise OutputError(f"{path}: {said}; name the output in a pipeline, or convert the frame by color.convert")
    if spec.format == "dng":
        from restorekit.io.dng.write import write_dng

        if frame.state.reference == "sensor":
            frame = replace(frame, pixels=stored(frame.pixels, spec))
        write_dng(path, frame, bits=spec.depth, software=software)
        return path
    kind = FORMATS[spec.format]
    if max(frame.height, frame.width) > kind.largest_px:
        raise OutputError(f"{path}: {spec.format} holds at most {kind.largest_px} px a side; write png or tiff")
    if frame.height * frame.width > kind.most_pixels:
        most = kind.most_pixels / 1e6
        raise OutputError(f"{path}: decoders of {spec.format} take at most {most:.0f} megapixels; write png or tiff")
    from restorekit.io.encode import ENCODERS

    frame = replace(frame, pixels=stored(frame.pixels, spec)).upright()
    with replacing(path) as file:
        ENCODERS[spec.format](file, frame, spec, software)
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
    """Float pixels ``[C,H,W]``, 0..1, as integers, rounded; what is outside is clamped, NaN is 0.

    8 bits give uint8, others uint16 of full range: of 10 and 12 bits the values of 16 that stand for their codes.
    """
    import torch

    kind, largest = (torch.uint8, 255.0) if bits == 8 else (torch.uint16, 65535.0)
    codes = pixels.detach().cpu().clamp(0.0, 1.0).mul_(float((1 << bits) - 1)).round_()
    if bits not in (8, 16):
        codes = codes.mul_(largest / ((1 << bits) - 1)).round_()
    return codes.nan_to_num_(0.0).to(kind)


def digital_numbers(pixels: Tensor) -> Tensor:
    """Float digital numbers of a sensor, rounded and clamped to 16 bits, NaN is 0."""
    import torch

    return pixels.round().clamp_(0, 65535).nan_to_num_(0.0).to(torch.uint16)


def quantiser(spec: OutputSpec) -> Callable[[Tensor], Tensor]:
    """The function that turns float strips into what an output's format stores.

    exr: half or single floats, half floats clamped to their range. Others of 32 bits: the floats as they are, and
    so for dng, whose writer rounds or scales them. Others: integers as :func:`quantise` makes them.
    """
    import torch

    if spec.depth == 32 or spec.format == "dng":
        return lambda pixels: pixels
    if spec.format == "exr":
        return lambda pixels: pixels.clamp(-HALF_MAX, HALF_MAX).to(torch.float16)
    return lambda pixels: quantise(pixels, spec.depth)


def stored(pixels: Tensor, spec: OutputSpec) -> Tensor:
    """Pixels in the type of the file, made strip by strip where they are not."""
    import torch

    from restorekit.planes import to_float

    if pixels.dtype == _stored_type(spec):
        return pixels
    numbers = spec.format == "dng"
    convert = digital_numbers if numbers else quantiser(spec)
    channels, height, width = pixels.shape
    whole: Tensor | None = None
    rows = max(16, STRIP_PIXELS // width)
    for top in range(0, height, rows):
        strip = convert(to_float(pixels[:, top : top + rows], digital_numbers=numbers))
        if whole is None:
            interleaved = not numbers
            shape = (height, width, channels) if interleaved else (channels, height, width)
            whole = torch.empty(shape, dtype=strip.dtype)
            whole = whole.permute(2, 0, 1) if interleaved else whole
        whole[:, top : top + rows] = strip
    assert whole is not None
    return whole


def _stored_type(spec: OutputSpec) -> torch.dtype:
    """The type of the samples that an encoder takes."""
    import torch

    if spec.depth == 32:
        return torch.float32
    if spec.format == "exr":
        return torch.float16
    return torch.uint8 if spec.depth == 8 else torch.uint16


def _own_bits(frame: Frame, format: str) -> int | None:
    """The depth of integer pixels, where a format has it for such pixels."""
    import torch

    bits = {torch.uint8: 8, torch.uint16: 16}.get(frame.pixels.dtype)
    return None if bits is None or refusal(format, bits, frame.state) else bits


def _failure(path: Path, error: Exception) -> str:
    """Cause and cure of a failed write, in words."""
    number = error.errno if isinstance(error, OSError) else None
    if os.strerror(errno.ENOSPC) in str(error):  # as OpenEXR says it
        number = errno.ENOSPC
    if number in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full; free some space or name another output folder"
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{path.parent} may not be written; change its permissions or name another output folder"
    if number in (errno.ENOENT, errno.ENOTDIR):
        return f"there is no folder {path.parent}; create it or name another output folder"
    said = (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
    return f"cannot be written ({said}); name another output folder or format"
