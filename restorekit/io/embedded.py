"""Metadata inside JPEG, PNG and WebP files, found in their segments and chunks.

JPEG: ITU-T T.81, Exif 3.0 (APP1), ICC.1 annex B (APP2), XMP part 3 with its extended packets, IPTC-IIM in Photoshop
resources (APP13). PNG: W3C PNG 3 (iCCP, cICP, sRGB, gAMA, cHRM, eXIf, iTXt, acTL). WebP: RFC 9649.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from restorekit.errors import InputError
from restorekit.io.xmp import XmpError, merged

Kind = Literal["jpeg", "png", "webp"]

EXIF_MARK = b"Exif\0\0"
XMP_MARK = b"http://ns.adobe.com/xap/1.0/\0"
ICC_MARK = b"ICC_PROFILE\0"
EXTENDED_XMP_MARK = b"http://ns.adobe.com/xmp/extension/\0"
PHOTOSHOP_MARK = b"Photoshop 3.0\0"
_GAIN_MAPS = (b"hdr-gain-map", b"HDRGainMap", b"urn:iso:std:iso:ts:21496:-1")
_IPTC_RESOURCE = 0x0404

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_XMP = b"XML:com.adobe.xmp\0\0\0\0\0"
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)


@dataclass(frozen=True)
class Embedded:
    """What a file holds beside its pixels; ``cicp`` are colour primaries and transfer by ITU-T H.273.

    ``iptc`` are IPTC-IIM records, ``light_level`` the brightest pixel and the average of a PQ picture, cd/m2.
    """

    exif: bytes = b""
    icc: bytes = b""
    xmp: bytes = b""
    cicp: tuple[int, int] | None = None
    iptc: bytes = b""
    light_level: tuple[float, float] | None = None


@dataclass(frozen=True)
class Found(Embedded):
    """What was found in a file, with what it says about its picture.

    ``frames`` of an animation, ``gain_map`` whether a rendition for HDR goes with the picture. PNG alone has
    ``gamma``, the exponent from light to encoded values, ``chromaticities``, x and y of white, red, green and blue,
    ``srgb`` whether it says it is, and ``narrow`` whether black and white lie inside of the range of its numbers.
    """

    frames: int = 1
    gain_map: bool = False
    gamma: float | None = None
    chromaticities: tuple[float, ...] | None = None
    srgb: bool = False
    narrow: bool = False


def find(kind: Kind, data: bytes) -> Found:
    """The metadata of a file, or of its beginning. Damaged pieces are passed over."""
    try:
        return {"jpeg": _find_jpeg, "png": _find_png, "webp": _find_webp}[kind](data)
    except (struct.error, IndexError):
        return Found()


def jpeg_end(data: bytes) -> int:
    """Where a JPEG stream ends, behind its end marker; 0 where it has none, and decoders give gray for what is missing.

    Other pictures may follow.
    """
    at = 2
    while True:
        found = _MARKER.search(data, at)
        if found is None:
            return 0
        marker, at = data[found.start() + 1], found.end()
        if marker == 0xD9:
            return at
        if marker not in (0x01, 0xD8):
            if at + 2 > len(data):
                return 0
            at += struct.unpack_from(">H", data, at)[0]


def hdr_profile(data: bytes) -> bytes:
    """The profile of the HDR rendition of a JPEG file with a gain map (ISO 21496-1, annex C).

    It is that of the gain map, the picture behind the first one, and where this has none, that of the picture.
    """
    return _find_jpeg(_following(data)).icc or _find_jpeg(data).icc


def _following(data: bytes) -> bytes:
    """The JPEG file behind the first one, empty where there is none."""
    at = data.find(b"\xff\xd8\xff", jpeg_end(data) or len(data))
    return data[at:] if at >= 0 else b""


@dataclass(frozen=True)
class JpegFrame:
    """What a JPEG file says of its samples; ``adobe`` is the transform of an Adobe marker, ``None`` without one."""

    bits: int = 8
    components: int = 0
    adobe: int | None = None


def jpeg_frame(data: bytes) -> JpegFrame:
    """Sample precision, components and Adobe marker (ITU-T T.872, 6.5.3) of a JPEG file."""
    bits, components, adobe = 8, 0, None
    for marker, content in _segments(data):
        if marker == 0xEE and content.startswith(b"Adobe") and len(content) >= 12:
            adobe = content[11]
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and len(content) >= 6:
            bits, components = content[0], content[5]
    return JpegFrame(bits, components, adobe)


def iptc_of_resources(resources: bytes) -> bytes:
    """The IPTC-IIM records among Photoshop image resources, empty where there are none.

    Each resource is ``8BIM``, a number, a name and data, both padded to even lengths (Adobe Photoshop file formats).
    """
    at = 0
    while resources[at : at + 4] == b"8BIM" and at + 12 <= len(resources):
        number, name_length = struct.unpack_from(">HB", resources, at + 4)
        at += 6 + (1 + name_length + 1) // 2 * 2
        length = int.from_bytes(resources[at : at + 4], "big")
        if number == _IPTC_RESOURCE:
            return resources[at + 4 : at + 4 + length]
        at += 4 + length + length % 2
    return b""


def _find_jpeg(data: bytes) -> Found:
    exif = xmp = resources = b""
    profile: dict[int, bytes] = {}
    extended: dict[bytes, list[tuple[int, bytes]]] = {}
    marked = False
    for marker, content in _segments(data):
        marked |= marker in (0xE1, 0xE2) and any(mark in content for mark in _GAIN_MAPS)
        if marker == 0xE1 and content.startswith(EXIF_MARK):
            exif = exif or content[len(EXIF_MARK) :]
        elif marker == 0xE1 and content.startswith(XMP_MARK):
            xmp = xmp or content[len(XMP_MARK) :]
        elif marker == 0xE1 and content.startswith(EXTENDED_XMP_MARK):
            identity, _, offset = struct.unpack_from(">32sII", content, len(EXTENDED_XMP_MARK))
            extended.setdefault(identity, []).append((offset, content[len(EXTENDED_XMP_MARK) + 40 :]))
        elif marker == 0xE2 and content.startswith(ICC_MARK):
            profile[content[len(ICC_MARK)]] = content[len(ICC_MARK) + 2 :]
        elif marker == 0xED and content.startswith(PHOTOSHOP_MARK):
            resources += content[len(PHOTOSHOP_MARK) :]
    icc = b"".join(profile[number] for number in sorted(profile))
    gain_map = marked and bool(_following(data))
    return Found(exif, icc, _whole_xmp(xmp, extended), iptc=iptc_of_resources(resources), gain_map=gain_map)


def _whole_xmp(packet: bytes, extended: dict[bytes, list[tuple[int, bytes]]]) -> bytes:
    """A packet with the extended one that it names by its MD5 digest (XMP part 3, 1.1.3.1)."""
    for identity, parts in extended.items():
        if identity in packet:
            try:
                return merged(packet, b"".join(part for _, part in sorted(parts)))
            except XmpError:
                return packet
    return packet


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and content of the segments before the first scan."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in (0xD9, 0xDA):
            return
        length = struct.unpack_from(">H", data, at + 2)[0]
        yield marker, data[at + 4 : at + 2 + length]
        at += 2 + length


def _find_png(data: bytes) -> Found:
    exif = icc = xmp = b""
    cicp = gamma = chromaticities = None
    srgb = narrow = False
    frames = 1
    at = len(PNG_SIGNATURE)
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        content = data[at + 8 : at + 8 + length] if kind not in (b"IDAT", b"fdAT") else b""
        at += 12 + length
        if kind == b"eXIf":
            exif = content.removeprefix(EXIF_MARK)
        elif kind == b"iCCP":
            icc = _inflated(content.partition(b"\0")[2][1:])
        elif kind == b"cICP" and len(content) == 4:
            cicp, narrow = (content[0], content[1]), content[3] == 0
        elif kind == b"sRGB":
            srgb = True
        elif kind == b"gAMA" and len(content) == 4:
            gamma = int.from_bytes(content, "big") / 100_000 or None
        elif kind == b"cHRM" and len(content) == 32:
            chromaticities = tuple(value / 100_000 for value in struct.unpack(">8I", content))
        elif kind == b"acTL" and len(content) == 8:
            frames = int.from_bytes(content[:4], "big")
        elif kind == b"iTXt" and content.startswith(PNG_XMP[:18]):
            packed, text = content[18], content[20:].split(b"\0", 2)[-1]
            xmp = _inflated(text) if packed else text
    return Found(
        exif, icc, xmp, cicp, frames=frames, gamma=gamma, chromaticities=chromaticities, srgb=srgb, narrow=narrow
    )


def _inflated(packed: bytes) -> bytes:
    """Text or a profile of at most 16 MB; empty where it is damaged."""
    try:
        return zlib.decompressobj().decompress(packed, 1 << 24)
    except zlib.error:
        return b""


def _find_webp(data: bytes) -> Found:
    found: dict[bytes, bytes] = {}
    frames = 0
    at = 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        frames += kind == b"ANMF"
        if kind in (b"EXIF", b"ICCP", b"XMP "):
            found.setdefault(kind, data[at + 8 : at + 8 + length])
        at += 8 + length + length % 2
    exif = found.get(b"EXIF", b"").removeprefix(EXIF_MARK)
    return Found(exif, found.get(b"ICCP", b""), found.get(b"XMP ", b""), frames=max(1, frames))


def require_whole_jpeg(name: str, data: bytes) -> None:
    """Raise InputError for a JPEG file that was cut off."""
    if not jpeg_end(data):
        raise InputError(
            f"{name}: is cut off, the end of the JPEG data is missing; copy it again from the camera or card"
        )
