"""Metadata put into encoded AVIF files: items of their meta box; among its properties colour profile and light level.

ISO/IEC 14496-12 (boxes, item locations, content light level), ISO/IEC 23008-12 (image items, annex A: Exif and XMP as
items).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from restorekit.io.embedded import Embedded
from restorekit.io.embedded_write import box

UNSPECIFIED = 2
"""The code point of ITU-T H.273 for primaries and transfer functions that something else tells."""

_MOST_LIGHT = 0xFFFF
_XMP_TYPE = b"application/rdf+xml\0"


def into_avif(data: bytes, embedded: Embedded) -> Iterator[bytes]:
    """The pieces of an AVIF file with metadata; its ``colr`` box, which tells the matrix, stays beside a profile.

    ``data`` is a file as libavif writes it: ``ftyp``, a ``meta`` box of version 0 items and one ``mdat``.
    """
    boxes = dict(_boxes(data, 0, len(data)))
    meta = dict(_boxes(boxes[b"meta"], 4, len(boxes[b"meta"])))
    places = _locations(meta[b"iloc"])
    primary = struct.unpack_from(">H", meta[b"pitm"], 4)[0]
    blocks = {b"Exif": bytes(4) + embedded.exif if embedded.exif else b"", b"mime": embedded.xmp}
    items = {max(places) + 1 + k: item for k, item in enumerate((kind, b) for kind, b in blocks.items() if b)}

    if embedded.icc:
        meta[b"iprp"] = _with_property(meta[b"iprp"], box(b"colr", b"prof" + embedded.icc), primary)
    if embedded.light_level:
        levels = (min(round(level), _MOST_LIGHT) for level in embedded.light_level)
        meta[b"iprp"] = _with_property(meta[b"iprp"], box(b"clli", struct.pack(">2H", *levels)), primary)
    meta[b"iinf"] = _with_entries(meta[b"iinf"], {number: kind for number, (kind, _) in items.items()})
    if items:
        meta[b"iref"] = _with_references(meta.get(b"iref", bytes(4)), list(items), primary)
    order = [kind for kind in (b"hdlr", b"pitm", b"iloc", b"iinf", b"iref", b"iprp") if kind in meta]

    def head(shift: int) -> bytes:
        """All before the image data, which lie ``shift`` bytes later than they did."""
        at = len(data) + shift
        located = {number: (place + shift, size) for number, (place, size) in places.items()}
        for number, (_, block) in items.items():
            located[number] = (at, len(block))
            at += len(block)
        inside = b"".join(box(kind, _item_locations(located) if kind == b"iloc" else meta[kind]) for kind in order)
        return box(b"ftyp", boxes[b"ftyp"]) + box(b"meta", boxes[b"meta"][:4] + inside)

    payload = boxes[b"mdat"]
    shift = len(head(0)) + 8 + len(payload) - len(data)
    yield head(shift)
    yield struct.pack(">I4s", 8 + len(payload) + sum(len(block) for _, block in items.values()), b"mdat")
    yield payload
    for _, block in items.values():
        yield block


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    while at < end:
        size, kind = struct.unpack_from(">I4s", data, at)
        yield kind, data[at + 8 : at + size]
        at += size


def _locations(iloc: bytes) -> dict[int, tuple[int, int]]:
    """Offset in the file and length of each item, from a box of version 0 with fields of four bytes."""
    version, sizes, count = struct.unpack_from(">I2H", iloc)
    if version or sizes != 0x4400:
        raise ValueError("the AVIF encoder wrote an item location box of an unknown kind")
    entries = struct.iter_unpack(">3H2I", iloc[8 : 8 + 14 * count])
    return {item: (offset, length) for item, _, _, offset, length in entries}


def _item_locations(places: dict[int, tuple[int, int]]) -> bytes:
    entries = b"".join(struct.pack(">3H2I", item, 0, 1, *place) for item, place in places.items())
    return struct.pack(">I2H", 0, 0x4400, len(places)) + entries


def _with_entries(iinf: bytes, kinds: dict[int, bytes]) -> bytes:
    """The item information box with further items."""
    version, count = struct.unpack_from(">IH", iinf)
    names = {b"Exif": b"Exif\0", b"mime": b"XMP\0" + _XMP_TYPE}
    entries = (
        box(b"infe", struct.pack(">I2H4s", 0x02000000, item, 0, kind) + names[kind]) for item, kind in kinds.items()
    )
    return struct.pack(">IH", version, count + len(kinds)) + iinf[6:] + b"".join(entries)


def _with_references(iref: bytes, items: list[int], primary: int) -> bytes:
    """The item reference box in which items describe the primary one."""
    return iref + b"".join(box(b"cdsc", struct.pack(">3H", item, 1, primary)) for item in items)


def _with_property(iprp: bytes, added: bytes, primary: int) -> bytes:
    """The item properties box with one more, as its last, associated with the primary item."""
    properties = dict(_boxes(iprp, 0, len(iprp)))
    container = properties[b"ipco"]
    number = sum(1 for _ in _boxes(container, 0, len(container))) + 1
    ipma = properties[b"ipma"]
    head, count = struct.unpack_from(">2I", ipma)
    if head or number > 127:
        raise ValueError("the AVIF encoder wrote a property association box of an unknown kind")
    entries, at = b"", 8
    for _ in range(count):
        item, n = struct.unpack_from(">HB", ipma, at)
        associations = ipma[at + 3 : at + 3 + n]
        at += 3 + n
        if item == primary:
            associations += bytes((number,))
        entries += struct.pack(">HB", item, len(associations)) + associations
    return box(b"ipco", container + added) + box(b"ipma", struct.pack(">2I", 0, count) + entries)
