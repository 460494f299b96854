"""Radiance pictures (RGBE and XYZE): linear light in 32 bits a pixel (G. Ward, "Real Pixels", Graphics Gems II, 1991).

The header is that of Radiance's file formats: variables, an empty line, and a resolution line that tells the order of
scanlines.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from restorekit.color.primaries import Chromaticities
from restorekit.errors import InputError
from restorekit.facts import Metadata
from restorekit.frame import Frame
from restorekit.io import colorimetry
from restorekit.io.samples import Samples
from restorekit.state import ImageState, Primaries

_HEADER_BYTES = 1 << 16
_RESOLUTION = re.compile(rb"([-+])([XY]) +(\d+) +([-+])([XY]) +(\d+)\s*$")
_FORMATS = (b"32-bit_rle_rgbe", b"32-bit_rle_xyze")


@dataclass(frozen=True)
class _Header:
    """``steps`` are sign, axis and length of the scanlines and of the pixels inside one; ``start`` of the pixels."""

    xyz: bool
    exposure: float
    chromaticities: Chromaticities | None
    steps: tuple[tuple[bytes, bytes, int], tuple[bytes, bytes, int]]
    start: int


def read_radiance(path: Path) -> Frame:
    """A Radiance picture as a scene-referred linear frame of float32, upright, with its EXPOSURE divided out.

    Primaries are those of the PRIMARIES line; without one they are taken for Rec. 709, as all but the earliest
    programs do. Those of no known space are converted to linear Rec. 2020. The white of XYZE files is (1, 1, 1).

    Raises InputError for damaged and cut off files.
    """
    import imagecodecs

    data = path.read_bytes()
    header = _header(path, data)
    (_, _, lines), (_, _, length) = header.steps
    samples = np.empty((lines, length, 3), np.float32)
    try:
        imagecodecs.rgbe_decode(memoryview(data)[header.start :], header=False, rle=True, out=samples)  # type: ignore[arg-type]
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{path}: is damaged or cut off ({error}); copy it again from where it came") from error
    samples = _upright(samples, header)
    if header.exposure != 1:
        samples /= np.float32(header.exposure)
    planes = torch.from_numpy(np.ascontiguousarray(samples)).permute(2, 0, 1)
    primaries: Primaries = "xyz" if header.xyz else "bt709"
    if header.chromaticities is not None and not header.xyz:
        meaning = colorimetry.described(header.chromaticities, "linear")
        if isinstance(meaning, tuple):
            primaries = meaning[0]
        elif meaning is not None:
            planes = torch.from_numpy(colorimetry.working(samples, "rgb", meaning))
            primaries = "bt2020"
    return Frame(
        planes,
        ImageState("rgb", "scene", "linear", primaries),
        metadata=Metadata(color=(primaries, "linear")),
        source=path,
    )


def _header(path: Path, data: bytes) -> _Header:
    text, gap, rest = data[:_HEADER_BYTES].partition(b"\n\n")
    line, end, _ = rest.partition(b"\n")
    found = _RESOLUTION.match(line)
    if not gap or not end or found is None or found[2] == found[5]:
        raise InputError(f"{path}: is damaged, its header has no resolution; copy it again from where it came")
    exposure, chromaticities, xyz = 1.0, None, False
    for variable in text.split(b"\n"):
        name, _, value = variable.partition(b"=")
        name, value = name.strip(), value.strip()
        if name == b"FORMAT":
            if value not in _FORMATS:
                raise InputError(f"{path}: has the pixel format {value.decode('latin-1')}; convert it to EXR")
            xyz = value == _FORMATS[1]
        elif name == b"EXPOSURE":
            exposure *= _numbers(value, 1)[0]
        elif name == b"PRIMARIES":
            chromaticities = _chromaticities(_numbers(value, 8))
    lengths = int(found[3]), int(found[6])
    if 0 in lengths or not 0 < exposure < float("inf"):
        raise InputError(f"{path}: is damaged, its header makes no sense; copy it again from where it came")
    return _Header(
        xyz,
        exposure,
        chromaticities,
        ((found[1], found[2], lengths[0]), (found[4], found[5], lengths[1])),
        len(text) + len(gap) + len(line) + len(end),
    )


def _numbers(value: bytes, count: int) -> tuple[float, ...]:
    """Numbers of a variable; all are 0 where it has others."""
    try:
        numbers = tuple(float(word) for word in value.split())
    except ValueError:
        numbers = ()
    return numbers if len(numbers) == count else (0.0,) * count


def _chromaticities(numbers: tuple[float, ...]) -> Chromaticities:
    red, green, blue, white = zip(numbers[::2], numbers[1::2], strict=True)
    return Chromaticities(red, green, blue, white)


def _upright(samples: Samples, header: _Header) -> Samples:
    """Rows from the top, pixels from the left: ``-Y`` counts rows down, ``+X`` columns to the right."""
    (outer, axis, _), (inner, _, _) = header.steps
    if axis == b"X":
        samples, outer, inner = samples.transpose(1, 0, 2), inner, outer
    return samples[:: 1 if outer == b"-" else -1, :: 1 if inner == b"+" else -1]
