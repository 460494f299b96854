"""Pictures decoded by imagecodecs: JPEG, PNG, WebP, GIF, BMP, AVIF and JPEG XL, the first one of animations."""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np

from restorekit.color.primaries import CHROMATICITIES, Chromaticities
from restorekit.errors import InputError
from restorekit.io import bmff, cms, colorimetry, embedded, gif, icc
from restorekit.io.colorimetry import Meaning, Model
from restorekit.io.decoded import GAIN_MAP, Decoded, only_first
from restorekit.io.embedded import Embedded, Found
from restorekit.io.jxl import header as jxl
from restorekit.io.jxl import icc as jxl_icc
from restorekit.io.samples import Samples, full_range, straight_alpha

logging.getLogger("imagecodecs").addHandler(logging.NullHandler())  # warnings are for those who ask

_DAMAGE = (RuntimeError, ValueError, IndexError, EOFError, struct.error)
_STANDARD = "its standard picture is taken"
_ADOBE_YCCK = 2
_HDR_CURVES = (16, 18)
_BMP_RLE = (1, 2)


def decode(path: Path, kind: str, *, gain_map: bool = False) -> Decoded:
    """A picture file of a kind in :data:`DECODERS`; with ``gain_map`` the HDR rendition of a JPEG file that has one.

    Raises InputError for a file that is damaged, cut off, or has more than it should.
    """
    data = path.read_bytes()
    if kind == "jpeg":
        embedded.require_whole_jpeg(str(path), data)
    elif kind in ("avif", "jxl"):
        require_whole_boxes(path, data)
    try:
        found = DECODERS[kind](data)
    except _DAMAGE as error:
        said = (str(error) or type(error).__name__).splitlines()[0]
        if "ot implemented" in said or "nsupported" in said:
            raise InputError(
                f"{path}: uses what its decoder does not know ({said}); convert it to PNG or TIFF"
            ) from error
        raise InputError(f"{path}: is damaged or cut off ({said}); copy it again from where it came") from error
    return _hdr_rendition(data, found) if gain_map and kind == "jpeg" and GAIN_MAP in found.notes else found


def require_whole_boxes(path: Path, data: bytes) -> None:
    """Raise InputError for a file of ISO base media boxes that was cut off."""
    missing = 0 if data.startswith(jxl.SIGNATURE) else bmff.missing_bytes(data)
    if missing:
        raise InputError(
            f"{path}: is cut off, {len(data)} of at least {len(data) + missing} bytes are there; "
            "copy it again from where it came"
        )


def _jpeg(data: bytes) -> Decoded:
    """CMYK files with an Adobe marker hold the paper that is left, not ink (Adobe technical note 5116)."""
    frame, found = embedded.jpeg_frame(data), embedded.find("jpeg", data)
    notes = (GAIN_MAP,) if found.gain_map else ()
    if frame.components != 4:
        return Decoded(
            full_range(imagecodecs.jpeg8_decode(data), frame.bits), _model(frame.components), found, notes=notes
        )
    coded = "YCCK" if frame.adobe == _ADOBE_YCCK else "CMYK"
    ink = full_range(imagecodecs.jpeg8_decode(data, colorspace=coded, outcolorspace="CMYK"), frame.bits)
    if frame.adobe is not None:
        np.subtract(np.iinfo(ink.dtype).max, ink, out=ink)
    return Decoded(ink, "cmyk", found, notes=notes)


def _hdr_rendition(data: bytes, found: Decoded) -> Decoded:
    """A picture with all of its gain map applied: linear half floats, 1.0 is the white of the standard picture."""
    try:
        samples: Samples = imagecodecs.ultrahdr_decode(data)[..., :3]
    except _DAMAGE as error:
        said = (str(error) or type(error).__name__).splitlines()[0]
        return replace(found, notes=(f"carries a gain map that cannot be applied ({said}); {_STANDARD}",))
    profile = embedded.hdr_profile(data)
    space = icc.space_of(profile) if profile else colorimetry.SRGB
    if space is None:
        return replace(found, notes=(f"carries a gain map for colours of an unknown space; {_STANDARD}",))
    return replace(found, samples=samples, model="rgb", meaning=(space[0], "linear"), notes=())


def _png(data: bytes) -> Decoded:
    found = embedded.find("png", data)
    samples: Samples = imagecodecs.png_decode(data)
    meaning = _png_meaning(found)
    notes = only_first(found.frames)
    if found.narrow:
        notes = (*notes, "has numbers of narrow range, its black and white are not at their ends")
    return Decoded(samples, _model(samples), found, meaning, notes=notes)


def _png_meaning(found: Found) -> Meaning | None:
    """W3C PNG 3, 4.3: cICP goes before an ICC profile, this before sRGB, and all before gamma and chromaticities."""
    meaning = colorimetry.by_code_points(*found.cicp) if found.cicp else None
    if meaning or found.icc or found.srgb or not (found.gamma or found.chromaticities):
        return meaning
    space = CHROMATICITIES["bt709"]
    if found.chromaticities:
        white, red, green, blue = zip(found.chromaticities[::2], found.chromaticities[1::2], strict=True)
        space = Chromaticities(red, green, blue, white)
    meaning = colorimetry.described(space, 1 / found.gamma if found.gamma else "srgb")
    return colorimetry.SRGB if meaning == ("bt709", "gamma") else meaning


def _webp(data: bytes) -> Decoded:
    found = embedded.find("webp", data)
    samples: Samples = imagecodecs.webp_decode(data)
    return Decoded(samples, "rgb", found, notes=only_first(found.frames))


def _gif(data: bytes) -> Decoded:
    """Only the first picture is given to the decoder; where that is smaller than the screen, the rest is clear."""
    found = gif.blocks(data)
    samples: Samples = imagecodecs.gif_decode(data[: found.ends] + bytes([gif.TRAILER]), index=0)
    if found.covers is not None:
        top, left, bottom, right = found.covers
        whole = np.zeros((*samples.shape[:2], 4), np.uint8)
        whole[top:bottom, left:right, 3] = 255
        whole[top:bottom, left:right, : samples.shape[2]] = samples[top:bottom, left:right]
        samples = whole
    return Decoded(samples, "rgb", notes=only_first(found.frames))


def _bmp(data: bytes) -> Decoded:
    """By OpenCV: other decoders read past the end of damaged files. Alpha counts where the header has a mask for it."""
    import cv2

    header = struct.unpack_from("<I", data, 14)[0]
    compression, profile, has_alpha = 0, b"", False
    if header >= 40:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    else:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
    if compression in _BMP_RLE:
        end = struct.unpack_from("<I", data, 2)[0]
    else:
        end = struct.unpack_from("<I", data, 10)[0] + (width * bits + 31) // 32 * 4 * abs(height)
    if header >= 56:
        has_alpha = struct.unpack_from("<I", data, 66)[0] != 0
    if header >= 124 and data[70:74] == b"DEBM":
        offset, length = struct.unpack_from("<II", data, 126)
        profile = data[14 + offset : 14 + offset + length]
    before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # it prints what it raises or returns
    try:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if end <= len(data) else None
    finally:
        cv2.utils.logging.setLogLevel(before)
    if found is None:
        raise ValueError("no complete bitmap")
    samples: Samples = found
    if bits == 16:  # five or six bits, which OpenCV shifts up
        samples = samples | samples >> 5
    if samples.ndim == 3:
        samples = samples[..., [2, 1, 0, 3] if has_alpha and samples.shape[2] == 4 else [2, 1, 0]]
    return Decoded(samples, _model(samples), Embedded(icc=profile))


def _avif(data: bytes) -> Decoded:
    """The profile goes before code points, turns in the container before those in EXIF (AVIF 1.1, MIAF 7.3.9)."""
    found = bmff.picture(data)
    if found.frames > 1 and found.has_item:
        data = data.replace(b"ftypavis", b"ftypavif", 1)  # so that the decoder takes the still picture
    samples: Samples = imagecodecs.avif_decode(data)
    if found.frames > 1 and not found.has_item:
        samples = samples[0]
    if samples.dtype != np.uint8:
        samples = full_range(samples, found.bits or (10 if samples.max() < 1 << 10 else 12))
    samples = samples if samples.ndim == 3 else samples[..., None]
    if found.crop is not None:
        top, left, bottom, right = found.crop
        samples = samples[top:bottom, left:right]
    return Decoded(
        samples, _model(samples), found.embedded, heif_meaning(found), found.orientation, notes=heif_notes(found)
    )


def heif_meaning(found: bmff.Picture) -> Meaning | None:
    """The colour space of a HEIF picture that has no profile: sRGB where it does not say (MIAF 7.3.6.4)."""
    if found.embedded.icc:
        return None
    return (colorimetry.by_code_points(*found.embedded.cicp) if found.embedded.cicp else None) or colorimetry.SRGB


def heif_notes(found: bmff.Picture) -> tuple[str, ...]:
    """What a person should know about the other pictures in a file."""
    notes = only_first(found.frames)
    if found.pictures > 1:
        notes = (*notes, f"has {found.pictures} pictures, the primary one is taken")
    if found.gain_map:
        is_hdr = found.embedded.cicp is not None and found.embedded.cicp[1] in _HDR_CURVES
        notes = (*notes, "carries a gain map; its HDR picture is taken" if is_hdr else GAIN_MAP)
    return notes


def _jxl(data: bytes) -> Decoded:
    """The decoder turns pictures as their codestream asks, so that the EXIF orientation does not hold any more."""
    stream = jxl.codestream(data)
    header = jxl.header(stream)
    found, gain_map = jxl.metadata(data)
    notes = ("is animated, its first frame is taken",) if header.animated else ()
    meaning: Meaning | None = colorimetry.SRGB
    ink = False
    if header.color is not None:
        coded = header.color
        curve = 1 / coded.exponent if coded.transfer == 0 and coded.exponent else colorimetry.CURVES.get(coded.transfer)
        meaning = (colorimetry.described(coded.chromaticities, curve) if curve else None) or colorimetry.SRGB
    elif header.has_icc:
        profile, end = jxl_icc.profile(stream, header.end)
        if header.transformed:
            data, meaning = jxl.in_rec2020(stream, header, end), ("bt2020", "srgb")
            header = jxl.header(data)
        else:
            found, meaning = replace(found, icc=profile), None
            ink = cms.space_of_profile(profile) == "cmyk"
    samples: Samples = imagecodecs.jpegxl_decode(data, index=0)
    if samples.ndim == 3 and samples.shape[:2] not in ((header.height, header.width), (header.width, header.height)):
        samples = samples[0]
    if samples.dtype.kind == "u":
        samples = full_range(samples, header.bits)
    if header.premultiplied and samples.ndim == 3 and samples.shape[2] in (2, 4):
        samples = straight_alpha(samples)
    notes = (*notes, GAIN_MAP) if gain_map else notes
    if ink:  # black is a channel of its own, which the decoder does not give
        return Decoded(samples[..., :3], "cmyk", found, meaning, 1)
    return Decoded(samples, _model(samples), found, meaning, 1, notes=notes)


def _model(channels: Samples | int) -> Model:
    """Gray or RGB, by the number of channels."""
    count = channels if isinstance(channels, int) else 1 if channels.ndim == 2 else channels.shape[2]
    return "gray" if count in (1, 2) else "rgb"


DECODERS: Mapping[str, Callable[[bytes], Decoded]] = {
    "jpeg": _jpeg,
    "png": _png,
    "webp": _webp,
    "gif": _gif,
    "bmp": _bmp,
    "avif": _avif,
    "jxl": _jxl,
}
"""By the kind of file."""
