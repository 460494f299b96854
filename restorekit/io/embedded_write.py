"""Metadata put into encoded JPEG, PNG, WebP and JPEG XL files, as their segments, chunks and boxes.

JPEG: ITU-T T.81, Exif 3.0 (APP1), ICC.1 annex B (APP2), XMP part 3 (APP1, with extended packets; APP13 with the image
resource of IPTC-IIM). Its JFIF header and PNG's pHYs chunk repeat the resolution in print of the EXIF block, since many
programs look nowhere else.
PNG: W3C PNG 3 (iCCP, cICP, cLLI, pHYs, eXIf, iTXt). WebP: RFC 9649. JPEG XL: ISO/IEC 18181-2.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from collections.abc import Iterator

from restorekit.io.embedded import (
    EXIF_MARK,
    EXTENDED_XMP_MARK,
    ICC_MARK,
    PHOTOSHOP_MARK,
    PNG_XMP,
    XMP_MARK,
    Embedded,
)
from restorekit.io.exif_size import pixels_per_inch
from restorekit.io.metadata import exif_fields
from restorekit.io.png_write import chunk
from restorekit.io.xmp import merged

_LARGEST_SEGMENT = 65533
EXIF_LIMIT = _LARGEST_SEGMENT - len(EXIF_MARK)
"""Bytes of an EXIF block that fit into a JPEG file."""

_LARGEST_INT = (1 << 31) - 1
_JFIF = b"\xff\xe0\0\x10JFIF\0"
_IPTC = PHOTOSHOP_MARK + b"8BIM\x04\x04\0\0"
_WRAPPER = re.compile(rb"<\?xpacket[^>]*\?>")
_EXTENDED = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:xmpNote="http://ns.adobe.com/xmp/note/" xmpNote:HasExtendedXMP="%s"/>'
    b"</rdf:RDF></x:xmpmeta>"
)
_JXL_FILE = b"\0\0\0\x0cJXL \r\n\x87\n" + b"\0\0\0\x14ftypjxl \0\0\0\0jxl "
_WEBP_ICC, _WEBP_ALPHA, _WEBP_EXIF, _WEBP_XMP = 0x20, 0x10, 0x08, 0x04


def into_jpeg(data: bytes, embedded: Embedded, own_xmp: bytes = b"") -> Iterator[bytes]:
    """The pieces of a JPEG file with metadata; the last one begins behind all metadata.

    XMP packets of more than a segment are extended ones. Other blocks that do not fit into a segment are left out.
    ``own_xmp`` is a short packet about the file itself, which stands in the first segment beside what fits.
    """
    header = data[2:11] == _JFIF
    start = 2 + (2 + struct.unpack_from(">H", data, 4)[0] if header else 0)
    density = pixels_per_inch(exif_fields(embedded.exif)[0].fields)
    if header and density:
        data = data[:13] + struct.pack(">B2H", 1, *(min(max(1, round(value)), 65535) for value in density)) + data[18:]
    yield data[:start]
    if embedded.exif and len(embedded.exif) <= EXIF_LIMIT:
        yield segment(0xE1, EXIF_MARK + embedded.exif)
    if embedded.xmp or own_xmp:
        yield from _xmp_segments(embedded.xmp, own_xmp)
    if embedded.iptc and len(_IPTC) + len(embedded.iptc) + 5 <= _LARGEST_SEGMENT:
        size = struct.pack(">I", len(embedded.iptc))
        yield segment(0xED, _IPTC + size + embedded.iptc + bytes(len(embedded.iptc) % 2))
    room = _LARGEST_SEGMENT - len(ICC_MARK) - 2
    parts = [embedded.icc[at : at + room] for at in range(0, len(embedded.icc), room)]
    for number, part in enumerate(parts, 1):
        yield segment(0xE2, ICC_MARK + bytes((number, len(parts))) + part)
    yield data[start:]


def png_chunks(embedded: Embedded, *, srgb: bool = False) -> Iterator[bytes]:
    """The chunks of metadata, which stand before the image; ``srgb`` marks it as sRGB where nothing else does."""
    if embedded.cicp:
        yield chunk(b"cICP", bytes((*embedded.cicp, 0, 1)))
        if embedded.light_level:
            yield chunk(b"cLLI", struct.pack(">2I", *(round(level * 10_000) for level in embedded.light_level)))
    elif embedded.icc:
        yield chunk(b"iCCP", b"ICC\0\0" + zlib.compress(embedded.icc, 9))
    elif srgb:
        yield chunk(b"sRGB", b"\0")
    if density := pixels_per_inch(exif_fields(embedded.exif)[0].fields):
        yield chunk(b"pHYs", struct.pack(">2IB", *(min(round(value / 0.0254), _LARGEST_INT) for value in density), 1))
    if embedded.exif:
        yield chunk(b"eXIf", embedded.exif)
    if embedded.xmp:
        yield chunk(b"iTXt", PNG_XMP + embedded.xmp)


def into_webp(data: bytes, embedded: Embedded, *, width: int, height: int) -> Iterator[bytes]:
    """The pieces of an extended WebP file with metadata, from a simple or extended one without."""
    image = [(kind, content) for kind, content in _riff_chunks(data) if kind in (b"ALPH", b"VP8 ", b"VP8L")]
    alpha = any(kind == b"ALPH" or (kind == b"VP8L" and content[4] & 0x10) for kind, content in image)
    before = [(b"ICCP", _WEBP_ICC, embedded.icc)]
    after = [(b"EXIF", _WEBP_EXIF, embedded.exif), (b"XMP ", _WEBP_XMP, embedded.xmp)]
    flags = sum(flag for _, flag, block in (*before, *after) if block) | (_WEBP_ALPHA if alpha else 0)
    header = struct.pack("<I", flags) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    chunks = [(b"VP8X", header), *((k, b) for k, _, b in before if b), *image, *((k, b) for k, _, b in after if b)]
    yield struct.pack("<4sI4s", b"RIFF", 4 + sum(8 + len(b) + len(b) % 2 for _, b in chunks), b"WEBP")
    for kind, block in chunks:
        yield struct.pack("<4sI", kind, len(block))
        yield block
        yield bytes(len(block) % 2)


def into_jxl(data: bytes, embedded: Embedded) -> Iterator[bytes]:
    """The pieces of a JPEG XL file with metadata, from a bare codestream or a file without."""
    bare = not data.startswith(_JXL_FILE[:12])
    start = len(_JXL_FILE)
    if not bare and data[start + 4 : start + 8] == b"jxll":  # the level has to stay in front
        start += struct.unpack_from(">I", data, start)[0]
    yield _JXL_FILE if bare else data[:start]
    if embedded.exif:
        yield box(b"Exif", bytes(4) + embedded.exif)
    if embedded.xmp:
        yield box(b"xml ", embedded.xmp)
    if bare:
        yield struct.pack(">I4s", 8 + len(data), b"jxlc")
    yield data if bare else data[start:]


def box(kind: bytes, content: bytes) -> bytes:
    """A box of ISO/IEC 14496-12."""
    return struct.pack(">I4s", 8 + len(content), kind) + content


def segment(marker: int, content: bytes) -> bytes:
    """A marker segment of a JPEG file (ITU-T T.81, B.1.1.4); ``marker`` is its second byte."""
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def _xmp_segments(packet: bytes, own: bytes) -> Iterator[bytes]:
    """A packet in one segment, or a short one that names the segments of the rest by their MD5 digest."""
    whole = merged(packet, own)
    if len(XMP_MARK) + len(whole) <= _LARGEST_SEGMENT:
        yield segment(0xE1, XMP_MARK + whole)
        return
    rest = _WRAPPER.sub(b"", packet).strip()
    name = hashlib.md5(rest, usedforsecurity=False).hexdigest().upper().encode()
    yield segment(0xE1, XMP_MARK + merged(_EXTENDED % name, own))
    room = _LARGEST_SEGMENT - len(EXTENDED_XMP_MARK) - 40
    for at in range(0, len(rest), room):
        place = name + struct.pack(">2I", len(rest), at)
        yield segment(0xE1, EXTENDED_XMP_MARK + place + rest[at : at + room])


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        yield kind, data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
