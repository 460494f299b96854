"""Radiance pictures written: RGBE with run lengths (G. Ward, "Real Pixels", Graphics Gems II, 1991).

Readers differ in what a mantissa stands for: Radiance itself adds half a step, most others (OpenCV, stb, OpenImageIO)
take it as it is. Values are rounded for the latter.
"""

from __future__ import annotations

from typing import BinaryIO

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from restorekit.color.primaries import CHROMATICITIES
from restorekit.frame import Frame

Light = NDArray[np.float32]

_STRIP_PIXELS = 1 << 18
_LARGEST = np.float32(2.0**127 * (255 / 256))
_SMALLEST = np.float32(1e-32)
"""What is written; smaller light is black, as in Radiance."""

_EXPONENT = np.int32(0x7F800000)
"""The bits of a float that tell the power of two below it."""


def write_radiance(file: BinaryIO, frame: Frame, software: str) -> None:
    """Write a linear frame of float32 pixels, gray ones as RGB. Negative light and NaN are black, infinity the largest.

    The header tells format, primaries, an exposure of 1 (so that values are what they were), capture date and program.
    """
    from restorekit.io.metadata import capture_time

    space = CHROMATICITIES[frame.state.primaries]
    numbers = (*space.red, *space.green, *space.blue, *space.white)
    taken = capture_time(frame.metadata.exif)
    lines = [
        "#?RADIANCE",
        f"SOFTWARE={software}",
        *([f"CAPDATE={taken:%Y:%m:%d %H:%M:%S}"] if taken else ()),
        "FORMAT=32-bit_rle_rgbe",
        "EXPOSURE=1",
        f"PRIMARIES={' '.join(f'{number:g}' for number in numbers)}",
        "",
        f"-Y {frame.height} +X {frame.width}",
        "",
    ]
    file.write("\n".join(lines).encode("ascii", "replace"))
    rows = max(1, _STRIP_PIXELS // frame.width)
    room = bytearray(rows * (frame.width + 8) * 8)
    for top in range(0, frame.height, rows):
        strip = frame.pixels[:, top : top + rows].expand(3, -1, -1).permute(1, 2, 0).numpy()
        file.write(imagecodecs.rgbe_encode(rounded(strip), header=False, rle=True, out=room))


def rounded(light: Light) -> Light:
    """Light ``[...,3]`` as RGBE has it: a new array of multiples of a 256th of the power of two above the largest."""
    finite: Light = np.clip(np.where(np.isnan(light), 0, light), 0, _LARGEST)
    most = np.maximum(finite[..., 0], np.maximum(finite[..., 1], finite[..., 2]))[..., None]
    power = np.maximum(most, _SMALLEST).view(np.int32) & _EXPONENT
    step = power.view(np.float32) * np.float32(1 / 128)
    step[most >= np.float32(255.5) * step] *= 2  # rounds up into the next power of two
    result: Light = np.rint(finite / step)
    result *= step
    result *= most >= _SMALLEST
    return result
