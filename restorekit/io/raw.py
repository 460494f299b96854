"""RAW files through LibRaw, and mosaics without any header. DNG files are read by :mod:`restorekit.io.dng.read`.

LibRaw gives stored values after the curve that a camera compressed them with (Nikon, Sony, Kodak), so that pixels
and levels here are linear. Only this module imports rawpy.
"""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

import numpy as np
import pydantic
from numpy.typing import NDArray
from pydantic.dataclasses import dataclass as pydantic_dataclass

from restorekit.errors import InputError
from restorekit.facts import Calibration, Camera, Exposure, Metadata
from restorekit.frame import BayerPattern, Frame
from restorekit.io import containers, metadata
from restorekit.io.cfa import check_supported
from restorekit.io.optical_black import with_measured_black
from restorekit.io.saturation import saturation_level
from restorekit.io.tiff import TiffError, read_directories, read_header
from restorekit.state import ImageState

if TYPE_CHECKING:
    import rawpy

DEPTHS = {"u8": "u1", "u16le": "<u2", "u16be": ">u2"}
"""Storage types of headerless mosaics, as numpy names them."""

KODAK_C330_BYTES = 2247168
_MARKS = (b"FOVb", b"\0MRM", b"ARRI", b"XPDS", b"NOKIARAW", b"IIII", b"MMMM", b"RIFF", b"qktk", b"qktn")
"""First bytes of RAW formats with a structure of their own."""

D65_K = 6504.0


def _size(value: object) -> object:
    """``768x512`` as two numbers; what is no such text is left to the type to judge."""
    found = re.fullmatch(r"\s*(\d+)\s*[xX]\s*(\d+)\s*", value) if isinstance(value, str) else None
    if isinstance(value, str) and found is None:
        raise ValueError("must be width x height, for example 768x512")
    return (int(found[1]), int(found[2])) if found else value


@pydantic_dataclass(frozen=True, kw_only=True, config=pydantic.ConfigDict(extra="forbid"))
class Headerless:
    """What a bare mosaic does not tell: rows of photosites, one after the other, and nothing else.

    ``size`` is width and height, in YAML ``768x512`` or ``[768, 512]``.
    """

    size: Annotated[
        tuple[pydantic.PositiveInt, pydantic.PositiveInt],
        pydantic.BeforeValidator(_size, json_schema_input_type=str | tuple[int, int]),
        pydantic.Field(description="Photosites in a row, and rows: 768x512"),
    ]
    pattern: Annotated[BayerPattern, pydantic.Field(description="Colours of the top left 2x2 photosites, row by row")]
    dtype: Annotated[
        Literal["u8", "u16le", "u16be"], pydantic.Field(description="8 bits, or 16 bits in little or big endian order")
    ] = "u16le"
    black: Annotated[float, pydantic.Field(ge=0, description="Digital number of no light")] = 0.0
    white: Annotated[float | None, pydantic.Field(gt=0, description="Digital number of the brightest light")] = None

    @pydantic.model_validator(mode="after")
    def _check_levels(self) -> Self:
        if self.black >= self.white_level:
            own = "" if self.white is not None else f", the largest number of {self.dtype}"
            raise ValueError(f"black {self.black:g} must lie below white {self.white_level:g}{own}")
        return self

    @property
    def width(self) -> int:
        return self.size[0]

    @property
    def height(self) -> int:
        return self.size[1]

    @property
    def white_level(self) -> float:
        """``white``, or the largest number of the type."""
        return float(np.iinfo(DEPTHS[self.dtype]).max) if self.white is None else self.white

    @property
    def bytes(self) -> int:
        """The size a file must have."""
        return self.width * self.height * np.dtype(DEPTHS[self.dtype]).itemsize


def read_headerless(path: Path, spec: Headerless) -> Frame:
    """A bare mosaic as a sensor-referred Bayer frame; without ``white`` its level is the largest number of the type.

    Raises InputError when the file does not have the size that was described.
    """
    size = path.stat().st_size
    if size != spec.bytes:
        raise InputError(
            f"{path}: has {size} bytes, but {spec.width}x{spec.height} {spec.dtype} makes {spec.bytes}; "
            "correct input: {headerless: {size, dtype}}"
        )
    mosaic = np.fromfile(path, DEPTHS[spec.dtype]).reshape(spec.height, spec.width)
    mosaic = mosaic.astype(mosaic.dtype.newbyteorder("="), copy=False)
    frame = Frame.from_bayer(mosaic, pattern=spec.pattern, black=spec.black, white=spec.white_level)
    return replace(frame, source=path)


def read_raw(path: Path) -> Frame:
    """A RAW file as a sensor-referred frame of 16-bit digital numbers, cropped to the visible area.

    A mosaic gives ``[1,H,W]``; files that hold full colour (Kodak YRGB, sRAW) ``[3,H,W]`` in layout ``rgb``. Where the
    camera names a smaller picture within the visible area, that crop is pending in the metadata.

    Raises InputError for what LibRaw cannot read, for files that end early, and for files without any header,
    which LibRaw would take for an old camera's by their size alone.
    """
    exif = metadata.find_exif(path)
    _check_complete(path)
    guessed = not _has_header(path) and not _known_by_content(path)
    if guessed and not _is_kodak_c330(path):
        if path.suffix.lower() not in (".raw", ".bin"):
            raise InputError(f"{path}: begins like no RAW file that LibRaw knows; it is damaged or has a wrong name")
        raise InputError(
            f"{path}: has no header that tells what it is; if it is a bare mosaic describe it, for example "
            "input: {headerless: {size: 6000x4000, pattern: RGGB, dtype: u16le, black: 512, white: 16383}}"
        )
    import rawpy

    try:
        with rawpy.imread(str(path)) as raw:
            frame = _frame(path, raw, exif)
    except rawpy.LibRawFileUnsupportedError as error:
        raise InputError(f"{path}: is no RAW file that LibRaw knows; convert it to DNG") from error
    except (rawpy.LibRawError, rawpy.NotSupportedError, NotImplementedError, MemoryError) as error:
        said = error.args[0] if error.args else type(error).__name__
        text = said.decode() if isinstance(said, bytes) else str(said)
        raise InputError(f"{path}: cannot be decoded ({text}); copy it again from the camera or card") from error
    if not guessed:
        return frame
    # The camera had balanced and encoded this picture as YCbCr, so that its gray is neutral.
    balanced = replace(frame.camera, make="Kodak", model="C330", neutral=(1.0, 1.0, 1.0))
    note = f"{path.name}: taken for a Kodak C330 file by its size and the order of its bytes, it has no header"
    return replace(frame, camera=balanced).with_note(note)


def _frame(path: Path, raw: rawpy.RawPy, exif: bytes) -> Frame:
    import torch

    visible = raw.raw_image_visible
    cfa: tuple[str, ...] = ()
    if raw.raw_pattern is None or visible.ndim == 3:
        pixels = np.ascontiguousarray(np.moveaxis(visible[..., :3], 2, 0))
        layout = "rgb"
    else:
        pixels = visible[None].copy()
        cfa = _pattern(path, raw)
        layout = {1: "gray", 2: "bayer", 6: "xtrans"}[len(cfa)]
        if layout == "gray":
            cfa = ()
    sizes = raw.sizes
    area = (sizes.top_margin, sizes.left_margin, sizes.top_margin + sizes.height, sizes.left_margin + sizes.width)
    if not pixels.any():
        raise InputError(f"{path}: decodes to nothing but zeros; the file is damaged, copy it again")
    state = ImageState().changed({"layout": layout, "reference": "sensor", "transfer": "linear", "primaries": "camera"})
    frame = Frame(
        torch.from_numpy(pixels),
        state,
        exposure=_exposure(raw, exif),
        camera=with_measured_black(_camera(path, raw, exif, cfa), raw.raw_image, area)
        if cfa
        else _camera(path, raw, exif, cfa),
        metadata=Metadata(exif=exif, orientation={3: 3, 5: 8, 6: 6}.get(sizes.flip, 1), crop=picture_crop(sizes)),
        source=path,
    )
    if abs(sizes.pixel_aspect - 1) > 0.01:
        frame = frame.with_note(f"{path.name}: pixels are not square (aspect {sizes.pixel_aspect:.3f}); not resampled")
    return frame


def picture_crop(sizes: rawpy.ImageSizes) -> tuple[int, int, int, int] | None:
    """The part of the visible area that the camera means to be the picture: top, left, bottom, right.

    It is the inset crop that LibRaw finds in maker notes, in coordinates of the whole sensor. ``None`` where there is
    none, where it is all of the visible area, and where it does not lie within it or keeps less than half of its width
    or height, which no border does.
    """
    top, left = sizes.crop_top_margin - sizes.top_margin, sizes.crop_left_margin - sizes.left_margin
    height, width = sizes.crop_height, sizes.crop_width
    inside = top >= 0 and left >= 0 and top + height <= sizes.height and left + width <= sizes.width
    if not inside or 2 * height < sizes.height or 2 * width < sizes.width:
        return None
    whole = (height, width) == (sizes.height, sizes.width)
    return None if whole else (top, left, top + height, left + width)


def _pattern(path: Path, raw: rawpy.RawPy) -> tuple[str, ...]:
    """The colours of the repeating cell from the top left of the visible area."""
    names = raw.color_desc.decode("ascii")
    pattern = raw.raw_pattern
    size = 0 if pattern is None else pattern.shape[0]
    top, left = raw.sizes.top_margin, raw.sizes.left_margin
    cell = tuple("".join(names[raw.raw_color(top + y, left + x)] for x in range(size)) for y in range(size))
    if size != 1:
        check_supported(path, cell)
    return cell


def _camera(path: Path, raw: rawpy.RawPy, exif: bytes, cfa: tuple[str, ...]) -> Camera:
    image, _ = metadata.exif_fields(exif)
    black = np.asarray(raw.black_level_per_channel, np.float32)
    white = float(raw.white_level)
    if cfa:
        top, left = raw.sizes.top_margin, raw.sizes.left_margin
        size = len(cfa)
        levels = np.array([[black[raw.raw_color(top + y, left + x)] for x in range(size)] for y in range(size)])[
            ..., None
        ]
        white = stated_white(white, raw.camera_white_level_per_channel, float(black.max()))
        if size == 2:
            white = saturation_level(raw.raw_image_visible, cfa, white)
        whites = np.array([white], np.float32)
    else:
        channels = 1 if raw.raw_pattern is not None else 3
        levels = black[:channels].reshape(1, 1, channels)
        whites = np.full(channels, white, np.float32)
    if not (whites > levels.max((0, 1))).all():
        raise InputError(
            f"{path}: its white level is not above its black level; copy it again from the camera or card, "
            "or convert it to DNG"
        )
    return Camera(
        make=image.text(metadata.MAKE),
        model=image.text(metadata.MODEL),
        cfa=cfa,
        black=levels.astype(np.float32),
        white=whites,
        neutral=_neutral(raw),
        calibrations=_calibrations(raw),
    )


def stated_white(camera_white: float, file_whites: Sequence[float] | None, black: float) -> float:
    """The digital number at which a mosaic clips, as far as LibRaw knows.

    ``file_whites`` are levels that the file itself tells for each channel (LibRaw's ``linear_max``; Canon's maker notes
    have them, and they change with ISO). The lowest of them holds, since beyond it colours are wrong. Without, or
    where they do not lie above ``black``, it is the level that LibRaw has for the camera.
    """
    lowest = min(file_whites or (0.0,))
    return float(lowest) if lowest > black else camera_white


def _neutral(raw: rawpy.RawPy) -> tuple[float, float, float] | None:
    """The inverse of the camera's gains; ``None`` where it gave none, or LibRaw put 1 for each."""
    red, green, blue = raw.camera_whitebalance[:3]
    if not all(math.isfinite(gain) and gain > 0 for gain in (red, green, blue)) or red == green == blue:
        return None
    return green / red, 1.0, green / blue


def _calibrations(raw: rawpy.RawPy) -> tuple[Calibration, ...]:
    """LibRaw's table of cameras has one matrix each, XYZ to camera for D65."""
    matrix: NDArray[np.float64] = np.asarray(raw.rgb_xyz_matrix, np.float64)[:3]
    usable = matrix.any() and np.isfinite(matrix).all() and not raw.rgb_xyz_matrix[3].any()
    return (Calibration(D65_K, matrix),) if usable else ()


def _exposure(raw: rawpy.RawPy, exif: bytes) -> Exposure:
    """The EXIF exposure, and LibRaw's reading of maker notes where EXIF is silent."""
    found, other = metadata.exposure_from_exif(exif), raw.other
    known = [
        value if value > 0 and math.isfinite(value) else None
        for value in (other.shutter_speed, other.aperture, other.iso_speed)
    ]
    return Exposure(found.time_s or known[0], found.f_number or known[1], found.iso or known[2])


def _check_complete(path: Path) -> None:
    """Raise InputError for files whose structure names data beyond their end; LibRaw decodes some of them in part."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(16)
        if read_header(file) is not None:
            try:
                directories = read_directories(file)
                largest = max(directories, key=lambda directory: directory.extent()[0])
                early = largest.extent()[1] > size
            except TiffError:
                early = True
        else:
            early = containers.kind_of(head) is not None and containers.ends_early(file)
    if early:
        raise InputError(
            f"{path}: is cut off, it names data beyond its {size} bytes; copy it again from the camera or card"
        )


def _has_header(path: Path) -> bool:
    """Whether the file begins with the mark of a RAW format."""
    with path.open("rb") as file:
        head = file.read(16)
        return read_header(file) is not None or containers.kind_of(head) is not None or head.startswith(_MARKS)


def _known_by_content(path: Path) -> bool:
    """Whether LibRaw knows the file by more than its size: with one byte more, it still does."""
    import rawpy

    try:
        with rawpy.imread(io.BytesIO(path.read_bytes() + b"\0")):
            return True
    except rawpy.LibRawError:
        return False


def _is_kodak_c330(path: Path) -> bool:
    """Whether bytes lie as that camera's Y Cb Y Cr: luma that changes little from pixel to pixel, chroma near 128.

    The low bytes of 16-bit numbers, which would lie in place of the luma, change by tens.
    """
    if path.stat().st_size != KODAK_C330_BYTES:
        return False
    values = np.fromfile(path, np.uint8).astype(np.int16)
    luma, chroma = values[0::2], values[1::2]
    return bool(np.abs(np.diff(luma)).mean() < 20 and abs(np.median(chroma) - 128) < 48)
