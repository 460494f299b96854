"""Metadata inside JPEG, PNG and WebP files: found in their segments and chunks, and put into new ones.

JPEG: ITU-T T.81, Exif 3.0 (APP1), ICC.1 annex B (APP2), XMP part 3. PNG: W3C PNG 3 (iCCP, cICP, eXIf, iTXt).
WebP: RFC 9649.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from restorekit.errors import InputError

Kind = Literal["jpeg", "png", "webp"]

_EXIF = b"Exif\0\0"
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_ICC = b"ICC_PROFILE\0"
_LARGEST_SEGMENT = 65533
EXIF_LIMIT = _LARGEST_SEGMENT - len(_EXIF)
"""Bytes of an EXIF block that fit into a JPEG file."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_XMP = b"XML:com.adobe.xmp\0\0\0\0\0"
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)


@dataclass(frozen=True)
class Embedded:
    """What a file holds beside its pixels; ``cicp`` are colour primaries and transfer by ITU-T H.273."""

    exif: bytes = b""
    icc: bytes = b""
    xmp: bytes = b""
    cicp: tuple[int, int] | None = None


def find(kind: Kind, data: bytes) -> Embedded:
    """The metadata of a file, or of its beginning. Damaged pieces are passed over."""
    try:
        return {"jpeg": _find_jpeg, "png": _find_png, "webp": _find_webp}[kind](data)
    except (struct.error, zlib.error, IndexError):
        return Embedded()


def jpeg_ends(data: bytes) -> bool:
    """Whether a JPEG stream has its end marker, after the scans; decoders give gray for what is missing before it."""
    at = 2
    while True:
        found = _MARKER.search(data, at)
        if found is None:
            return False
        marker, at = data[found.start() + 1], found.end()
        if marker == 0xD9:
            return True
        if marker not in (0x01, 0xD8):
            if at + 2 > len(data):
                return False
            at += struct.unpack_from(">H", data, at)[0]


def jpeg_components(data: bytes) -> int:
    """The number of colour components a JPEG file says it has; 0 where it does not say."""
    for marker, content in _segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return content[5]
    return 0


def into_jpeg(data: bytes, embedded: Embedded) -> Iterator[bytes]:
    """The pieces of a JPEG file with metadata. What does not fit into a segment of 64 kB is left out."""
    start = 2 + (2 + struct.unpack_from(">H", data, 4)[0] if data[2:4] == b"\xff\xe0" else 0)
    yield data[:start]
    if embedded.exif and len(embedded.exif) <= EXIF_LIMIT:
        yield _segment(0xE1, _EXIF + embedded.exif)
    if embedded.xmp and len(_XMP) + len(embedded.xmp) <= _LARGEST_SEGMENT:
        yield _segment(0xE1, _XMP + embedded.xmp)
    room = _LARGEST_SEGMENT - len(_ICC) - 2
    parts = [embedded.icc[at : at + room] for at in range(0, len(embedded.icc), room)]
    for number, part in enumerate(parts, 1):
        yield _segment(0xE2, _ICC + bytes((number, len(parts))) + part)
    yield data[start:]


def into_png(data: bytes, embedded: Embedded, *, srgb: bool = False) -> Iterator[bytes]:
    """The pieces of a PNG file with metadata; ``srgb`` marks it as sRGB where it has no profile."""
    start = len(_PNG_SIGNATURE) + 25
    yield data[:start]
    if embedded.cicp:
        yield _chunk(b"cICP", bytes((*embedded.cicp, 0, 1)))
    if embedded.icc:
        yield _chunk(b"iCCP", b"ICC\0\0" + zlib.compress(embedded.icc, 9))
    elif srgb:
        yield _chunk(b"sRGB", b"\0")
    if embedded.exif:
        yield _chunk(b"eXIf", embedded.exif)
    if embedded.xmp:
        yield _chunk(b"iTXt", _PNG_XMP + embedded.xmp)
    yield data[start:]


def _find_jpeg(data: bytes) -> Embedded:
    exif = xmp = b""
    profile: dict[int, bytes] = {}
    for marker, content in _segments(data):
        if marker == 0xE1 and content.startswith(_EXIF):
            exif = exif or content[len(_EXIF) :]
        elif marker == 0xE1 and content.startswith(_XMP):
            xmp = xmp or content[len(_XMP) :]
        elif marker == 0xE2 and content.startswith(_ICC):
            profile[content[len(_ICC)]] = content[len(_ICC) + 2 :]
    return Embedded(exif, b"".join(profile[number] for number in sorted(profile)), xmp)


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


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _find_png(data: bytes) -> Embedded:
    exif = icc = xmp = b""
    cicp = None
    at = len(_PNG_SIGNATURE)
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        content = data[at + 8 : at + 8 + length] if kind not in (b"IDAT", b"fdAT") else b""
        at += 12 + length
        if kind == b"eXIf":
            exif = content.removeprefix(_EXIF)
        elif kind == b"iCCP":
            icc = zlib.decompressobj().decompress(content.partition(b"\0")[2][1:], 1 << 24)
        elif kind == b"cICP" and len(content) == 4:
            cicp = (content[0], content[1])
        elif kind == b"iTXt" and content.startswith(_PNG_XMP[:18]):
            packed, text = content[18], content[20:].split(b"\0", 2)[-1]
            xmp = zlib.decompressobj().decompress(text, 1 << 24) if packed else text
    return Embedded(exif, icc, xmp, cicp)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _find_webp(data: bytes) -> Embedded:
    found: dict[bytes, bytes] = {}
    at = 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        found.setdefault(kind, data[at + 8 : at + 8 + length])
        at += 8 + length + length % 2
    return Embedded(found.get(b"EXIF", b"").removeprefix(_EXIF), found.get(b"ICCP", b""), found.get(b"XMP ", b""))


def require_whole_jpeg(name: str, data: bytes) -> None:
    """Raise InputError for a JPEG file that was cut off."""
    if not jpeg_ends(data):
        raise InputError(
            f"{name}: is cut off, the end of the JPEG data is missing; copy it again from the camera or card"
        )
