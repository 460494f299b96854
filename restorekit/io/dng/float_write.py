"""DNG files of floats: the light of a scene as a Bayer mosaic, for other programs to develop (DNG 1.7, chapter 2).

Tiles that are deflated and predicted are what LibRaw, darktable and RawTherapee all read. They keep numbers above the
white level, but only what lies below it is safe from their reconstruction of clipped highlights, and take what lies
below black for black.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import imagecodecs
import numpy as np
import torch
from numpy.typing import NDArray

from restorekit.errors import OutputError
from restorekit.frame import Frame
from restorekit.io import metadata
from restorekit.io.dng.fields import mosaic_fields, picture_fields
from restorekit.io.dng.float24 import FLOATING, PREDICTOR, SAMPLE_FORMAT, float24_bytes
from restorekit.io.dng.pixels import COMPRESSION
from restorekit.io.tiff import (
    LONG,
    SHORT,
    SRATIONAL,
    TILE_OFFSETS,
    TILE_SIZES,
    Field,
    Tree,
    lay_out,
)
from restorekit.io.write import HALF_MAX, SOFTWARE, replacing
from restorekit.planes import to_float

FLOATS = (1, 4, 0, 0)
"""The version of the specification that brought floats."""

TILE_PX = 512
TIFF_MAX_BYTES = (1 << 32) - (1 << 20)
DEFLATE, DEFLATE_LEVEL = 8, 4
PREDICTOR_X2, DISTANCE = 34894, 2
"""Floats sorted by the significance of their bytes, then subtracted from the next but one: that of the same colour."""

EXPOSURE_BIAS = 37380
WHITE_BITS = 15
"""White levels have so many bits: half floats keep 28 stops below them and one above in full precision, and LibRaw,
which makes integers of floats, takes numbers up to 32767 as they are."""


@dataclass(frozen=True)
class Scale:
    """How light becomes stored numbers.

    ``gain``, a power of two, multiplies it; what white balance had multiplied red, green and blue by, ``balance``, is
    divided out again. ``white`` is the number at which the merge clips, ``ev`` how many stops that lies above 1.
    """

    gain: float
    balance: tuple[float, float, float]
    white: int
    ev: float

    @staticmethod
    def of(frame: Frame) -> Scale:
        """The scale for the clip level of a frame; where that is unknown, for its largest value, at least 1."""
        red, green, blue = frame.facts.white_balance or (1.0, 1.0, 1.0)
        levels = frame.facts.clip_level or (max(1.0, _largest(frame)),)
        known = levels if len(levels) == 3 else levels[:1] * 3
        clip = max(level / gain for level, gain in zip(known, (red, green, blue), strict=True))
        if not (math.isfinite(clip) and clip > 0):
            clip = 1.0
        share, exponent = math.frexp(clip)
        gain, white = 2.0 ** (WHITE_BITS - exponent), round(share * 2**WHITE_BITS)
        return Scale(gain, (red, green, blue), white, math.log2(white / gain))

    def noise(self, pairs: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
        """Noise of light (``variance = a x + b``, one pair or three) as that of values whose 1 is the white level."""
        factors = [self.gain / (self.white * gain) for gain in self.balance]
        each = pairs * 3 if len(pairs) == 1 and len(set(factors)) > 1 else pairs
        return tuple((a * k, b * k * k) for (a, b), k in zip(each, factors, strict=False))

    def numbers(self, light: NDArray[np.float32], cell: tuple[str, ...]) -> NDArray[np.float32]:
        """Stored numbers of light ``[h,w]``, whose top left photosite begins the cell; NaN is 0, infinity 65504."""
        result: NDArray[np.float32] = light * np.float32(self.gain)
        if self.balance != (1.0, 1.0, 1.0):
            for y, x in itertools.product(range(2), repeat=2):
                result[y::2, x::2] /= np.float32(self.balance["RGB".index(cell[y][x])])
        return np.nan_to_num(result, copy=False, nan=0.0, posinf=HALF_MAX, neginf=-HALF_MAX)


def write_light(path: Path, frame: Frame, bits: int = 16, *, software: str = SOFTWARE) -> None:
    """Write a scene-referred Bayer mosaic of linear camera RGB ``[1,H,W]``, 0 = black, as a DNG 1.4 of floats.

    ``bits`` are 16 (half floats), 24 or 32, of which the latter store every value exactly. The white level is where
    the frame clips (``facts.clip_level``), so that no program takes light of a merged bracket for clipped;
    BaselineExposure tells how many stops it lies above the white level of the reference frame, beside what the camera
    asks for. A reader that subtracts black, divides by white and applies BaselineExposure has the values of the
    frame, as ``raw.black_level`` and ``tone.exposure`` do. Since darktable leaves BaselineExposure out and looks at the
    exposure bias of EXIF instead, that is lowered by as many stops. Numbers above white and below black are kept.

    A white balance that was applied is divided out again; AsShotNeutral is ``facts.illuminant``, else the camera's.
    NoiseProfile is the noise of the frame (``facts.noise``), in the units of the file.

    Raises OutputError for other depths and for more than 4 GB, and where the file cannot be written.
    """
    if bits not in (16, 24, 32):
        raise OutputError(f"{path}: floats of a dng have 16, 24 or 32 bits, not {bits}; choose one of them")
    if frame.height * frame.width * bits // 8 > TIFF_MAX_BYTES:
        raise OutputError(f"{path}: dng holds at most 4 GB; write fewer bits, or demosaic and write exr")
    scale = Scale.of(frame)
    stored = _as_stored(frame, scale)
    tile = [min(TILE_PX, -(-side // 16) * 16) for side in (frame.height, frame.width)]
    tree = picture_fields(stored, software, FLOATS, FLOATS) | mosaic_fields(stored, bits)
    tree |= {
        COMPRESSION: Field.of(SHORT, (DEFLATE,)),
        PREDICTOR: Field.of(SHORT, (PREDICTOR_X2,)),
        SAMPLE_FORMAT: Field.of(SHORT, (FLOATING,)),
        322: Field.of(LONG, (tile[1],)),
        323: Field.of(LONG, (tile[0],)),
    }
    _lower_exposure_bias(tree, scale.ev)

    def block(start: int, sizes: list[int]) -> bytes:
        places = np.cumsum([start, *sizes[:-1]]).tolist()
        return lay_out({**tree, TILE_OFFSETS: Field.of(LONG, places), TILE_SIZES: Field.of(LONG, sizes)})

    count = math.ceil(frame.height / tile[0]) * math.ceil(frame.width / tile[1])
    start = -(-len(block(0, [0] * count)) // 16) * 16
    with replacing(path) as file:
        file.seek(start)
        sizes = [file.write(data) for data in _tiles(frame, scale, tile[0], tile[1], bits)]
        file.seek(0)
        file.write(block(start, sizes).ljust(start, b"\0"))


def _as_stored(frame: Frame, scale: Scale) -> Frame:
    """The frame with the levels, noise, neutral and exposure that its file tells."""
    camera = replace(
        frame.camera,
        black=None,
        black_rows=None,
        black_columns=None,
        white=np.asarray([scale.white], np.float32),
        noise_profile=scale.noise(frame.facts.noise or frame.camera.noise_profile),
        neutral=frame.facts.illuminant or frame.camera.neutral,
        baseline_exposure_ev=frame.camera.baseline_exposure_ev + scale.ev,
    )
    return replace(frame, camera=camera)


def _lower_exposure_bias(tree: Tree, ev: float) -> None:
    """Take stops off the exposure bias among EXIF fields, in place; where none is told it was 0."""
    photo = tree[metadata.EXIF_IFD]
    assert isinstance(photo, dict)
    told = photo.get(EXPOSURE_BIAS)
    bias = told.numbers[0] if isinstance(told, Field) and told.numbers else 0.0
    if ev:
        photo[EXPOSURE_BIAS] = Field.of(SRATIONAL, ((bias if math.isfinite(bias) else 0.0) - ev,))


def _tiles(frame: Frame, scale: Scale, rows: int, columns: int, bits: int) -> Iterator[bytes]:
    """The compressed tiles, row by row; those at the border are filled up with their last values."""
    for top, left in itertools.product(range(0, frame.height, rows), range(0, frame.width, columns)):
        part = to_float(frame.pixels[0, top : top + rows, left : left + columns].detach().cpu()).numpy()
        numbers = scale.numbers(part, frame.camera.cfa)
        missing = ((0, rows - part.shape[0]), (0, columns - part.shape[1]))
        if missing != ((0, 0), (0, 0)):
            numbers = np.pad(numbers, missing, "edge")
        yield bytes(imagecodecs.deflate_encode(predicted(numbers, bits).tobytes(), level=DEFLATE_LEVEL))


def predicted(numbers: NDArray[np.float32], bits: int) -> NDArray[np.uint8]:
    """Floats ``[rows,columns]`` as the bytes ``[rows,columns * bits / 8]`` that TIFF predictor 34894 makes of them.

    Floats of 16 bits are rounded to nearest and kept within 65504, those of 24 are rounded to nearest.
    """
    rows, columns = numbers.shape
    if bits == 16:
        floats = numbers.clip(-HALF_MAX, HALF_MAX).astype(">f2").view(np.uint8)
    elif bits == 24:
        floats = float24_bytes(numbers)
    else:
        floats = numbers.astype(">f4").view(np.uint8)
    planes = floats.reshape(rows, columns, bits // 8).transpose(0, 2, 1).reshape(rows, -1)
    result = planes.copy()
    result[:, DISTANCE:] -= planes[:, :-DISTANCE]
    return result


def _largest(frame: Frame) -> float:
    """The largest finite value of the pixels, 0 where there is none above."""
    return float(torch.nan_to_num(frame.pixels.float(), 0.0, 0.0, 0.0).max())
