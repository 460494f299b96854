"""ISO base media files that hold pictures (AVIF, HEIC, JPEG XL): their boxes, and what HEIF says of the primary item.

ISO/IEC 14496-12 (boxes, items), ISO/IEC 23008-12 (HEIF: properties of pictures), ISO/IEC 23000-22 (MIAF).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from restorekit.io.embedded import EXIF_MARK, Embedded
from restorekit.io.samples import turned

_GAIN_MAPS = (b"hdrgainmap", b"urn:iso:std:iso:ts:21496")
_PICTURES = (b"av01", b"hvc1", b"grid", b"iden", b"iovl", b"jpeg", b"avc1", b"unci", b"j2k1", b"vvc1")


class Box(NamedTuple):
    """The type of a box, where its content lies, and where it says that it ends."""

    kind: bytes
    start: int
    end: int


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Box]:
    """The boxes between two offsets. The last one may say that it ends behind the data."""
    end = len(data) if end is None else end
    while start + 8 <= end:
        length, kind = struct.unpack_from(">I4s", data, start)
        content = start + 8
        if length == 1 and start + 16 <= end:
            length, content = struct.unpack_from(">Q", data, start + 8)[0], start + 16
        last = end if length == 0 else start + length
        if last < content:
            return
        yield Box(kind, content, last)
        start = last


def missing_bytes(data: bytes) -> int:
    """How many bytes a file lacks by what its boxes say; they are there unless it was cut off.

    What follows the boxes and has no name of letters is no box, and is passed over.
    """
    last = 0
    for kind, _, end in boxes(data):
        if not (kind.isascii() and kind.decode("ascii").isprintable()):
            return 0
        last = end
    rest = data[last : last + 8]
    return max(0, last - len(data), 8 - len(rest) if rest.strip(b"\0") else 0)


@dataclass(frozen=True)
class Picture:
    """What a HEIF file says of its primary picture, and of what else it holds.

    ``bits`` a channel (0 = it does not say), ``crop`` (top, left, bottom, right; px) before ``orientation`` (EXIF,
    1..8) is applied, ``has_item`` whether there is a picture outside of a sequence, ``frames`` of a sequence (0 = it
    is none), ``pictures`` that stand for themselves, ``gain_map`` whether a gain map for HDR goes with it.
    """

    embedded: Embedded = field(default_factory=Embedded)
    width: int = 0
    height: int = 0
    bits: int = 0
    crop: tuple[int, int, int, int] | None = None
    orientation: int = 1
    has_item: bool = False
    frames: int = 0
    pictures: int = 1
    gain_map: bool = False


@dataclass
class _Items:
    """The items of a ``meta`` box: types, hidden ones, places (None: in the file; else in ``idat``), properties."""

    primary: int = 0
    kinds: dict[int, bytes] = field(default_factory=dict)
    hidden: set[int] = field(default_factory=set)
    places: dict[int, tuple[bool, list[tuple[int, int]]]] = field(default_factory=dict)
    properties: dict[int, list[tuple[bytes, bytes]]] = field(default_factory=dict)
    references: list[tuple[bytes, int, tuple[int, ...]]] = field(default_factory=list)
    data: bytes = b""


def picture(data: bytes) -> Picture:
    """The primary picture of an AVIF or HEIC file. What is damaged is passed over."""
    top = {box.kind: box for box in boxes(data)}
    items = _Items()
    try:
        if b"meta" in top:
            _read_meta(data, top[b"meta"], items)
    except (struct.error, IndexError):
        return Picture()
    frames = _frames(data, top[b"moov"]) if b"moov" in top else 0
    exif = _item(data, items, b"Exif")
    offset = int.from_bytes(exif[:4], "big")
    xmp = _item(data, items, b"mime")
    properties = items.properties.get(items.primary, [])
    icc, cicp = b"", None
    for kind, content in _coloured(items):
        if kind == b"colr" and content[:4] in (b"prof", b"rICC"):
            icc = icc or content[4:]
        elif kind == b"colr" and content[:4] == b"nclx" and len(content) >= 8:
            cicp = cicp or struct.unpack_from(">HH", content, 4)
    first = dict(reversed(properties))
    width, height = struct.unpack_from(">II", first.get(b"ispe", bytes(12)).ljust(12, b"\0"), 4)
    pixi = first.get(b"pixi", b"")
    return Picture(
        Embedded(exif[4 + offset :].removeprefix(EXIF_MARK), icc, xmp, cicp),
        width,
        height,
        max(pixi[5 : 5 + pixi[4]], default=0) if len(pixi) > 4 else 0,
        _clean_aperture(first.get(b"clap", b""), width, height),
        _orientation(properties),
        items.primary in items.kinds,
        frames,
        _standing_alone(items),
        b"tmap" in items.kinds.values()
        or any(mark in content for found in items.properties.values() for _, content in found for mark in _GAIN_MAPS),
    )


def _read_meta(data: bytes, meta: Box, items: _Items) -> None:
    for kind, start, end in boxes(data, meta.start + 4, min(meta.end, len(data))):
        version = data[start]
        if kind == b"pitm":
            items.primary = struct.unpack_from(">H" if version == 0 else ">I", data, start + 4)[0]
        elif kind == b"idat":
            items.data = data[start:end]
        elif kind == b"iinf":
            for entry in boxes(data, start + (6 if version == 0 else 8), end):
                _read_entry(data, entry, items)
        elif kind == b"iloc":
            _read_places(data, start, items)
        elif kind == b"iref":
            _read_references(data, Box(kind, start, end), items)
        elif kind == b"iprp":
            _read_properties(data, Box(kind, start, end), items)


def _read_entry(data: bytes, entry: Box, items: _Items) -> None:
    """An ``infe`` box; XMP packets are told from other texts by their content type."""
    version, flags = data[entry.start], data[entry.start + 3]
    if version < 2:
        return
    number = struct.unpack_from(">H" if version == 2 else ">I", data, entry.start + 4)[0]
    at = entry.start + (8 if version == 2 else 10)
    kind = data[at : at + 4]
    content_type = data[at + 4 : entry.end].split(b"\0")[1:2]
    if kind == b"mime" and content_type != [b"application/rdf+xml"]:
        kind = b"text"
    items.kinds[number] = kind
    if flags & 1:
        items.hidden.add(number)


def _read_places(data: bytes, start: int, items: _Items) -> None:
    version = data[start]
    sizes = struct.unpack_from(">H", data, start + 4)[0]
    offset_size, length_size, base_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_size = sizes & 15 if version else 0
    wide = 4 if version == 2 else 2
    at = start + 6

    def number(size: int) -> int:
        nonlocal at
        at += size
        if at > len(data):
            raise IndexError
        return int.from_bytes(data[at - size : at], "big")

    for _ in range(number(wide)):
        item = number(wide)
        inside = version > 0 and number(2) & 15 == 1
        number(2)
        base = number(base_size)
        extents = []
        for _ in range(number(2)):
            number(index_size)
            extents.append((base + number(offset_size), number(length_size)))
        items.places[item] = inside, extents


def _read_references(data: bytes, box: Box, items: _Items) -> None:
    wide = ">I" if data[box.start] else ">H"
    step = struct.calcsize(wide)
    for kind, start, _ in boxes(data, box.start + 4, box.end):
        origin, count = struct.unpack_from(f"{wide}H", data, start)
        targets = struct.unpack_from(f">{count}{wide[1]}", data, start + step + 2)
        items.references.append((kind, origin, targets))


def _read_properties(data: bytes, box: Box, items: _Items) -> None:
    listed: list[tuple[bytes, bytes]] = []
    for kind, start, end in boxes(data, box.start, box.end):
        if kind == b"ipco":
            listed = [(inner.kind, data[inner.start : inner.end]) for inner in boxes(data, start, end)]
        elif kind == b"ipma":
            at = start + 8
            for _ in range(struct.unpack_from(">I", data, start + 4)[0]):
                item = struct.unpack_from(">I" if data[start] else ">H", data, at)[0]
                at += 4 if data[start] else 2
                count, at = data[at], at + 1
                wide = data[start + 3] & 1
                for number in struct.unpack_from(f">{count}{'H' if wide else 'B'}", data, at):
                    index = number & (0x7FFF if wide else 0x7F)
                    if 0 < index <= len(listed):
                        items.properties.setdefault(item, []).append(listed[index - 1])
                at += count * (2 if wide else 1)


def _item(data: bytes, items: _Items, kind: bytes) -> bytes:
    """The content of the first item of a kind; one that describes the primary picture goes before others."""
    found = [number for number in items.kinds if items.kinds[number] == kind]
    about = {origin for name, origin, targets in items.references if name == b"cdsc" and items.primary in targets}
    found.sort(key=lambda number: number not in about)
    if not found or found[0] not in items.places:
        return b""
    inside, extents = items.places[found[0]]
    source = items.data if inside else data
    return b"".join(source[start : start + length if length else None] for start, length in extents)


def _coloured(items: _Items) -> Sequence[tuple[bytes, bytes]]:
    """The properties that tell the colours: those of the primary picture, or of its first tile where it is a grid."""
    own = items.properties.get(items.primary, [])
    if any(kind == b"colr" for kind, _ in own):
        return own
    tiles = [targets[0] for kind, origin, targets in items.references if kind == b"dimg" and origin == items.primary]
    return items.properties.get(tiles[0], []) if tiles else own


def _standing_alone(items: _Items) -> int:
    """Pictures that are no part, thumbnail, mask or gain map of another one."""
    parts = {number for kind, _, targets in items.references if kind == b"dimg" for number in targets}
    parts |= {origin for kind, origin, _ in items.references if kind in (b"thmb", b"auxl", b"prem")}
    shown = [number for number, kind in items.kinds.items() if kind in _PICTURES and number not in items.hidden]
    return max(1, len([number for number in shown if number not in parts]))


def _orientation(properties: Sequence[tuple[bytes, bytes]]) -> int:
    """The EXIF orientation that does the same as the turns (anticlockwise) and reflections of a picture, in order."""
    first = steps = np.arange(6).reshape(2, 3)
    for kind, content in properties:
        if kind == b"irot" and content:
            steps = np.rot90(steps, content[0] & 3)
        elif kind == b"imir" and content:
            steps = steps[:, ::-1] if content[0] & 1 else steps[::-1]
    return next(n for n in range(1, 9) if np.array_equal(turned(first[..., None], n)[..., 0], steps))


def _clean_aperture(content: bytes, width: int, height: int) -> tuple[int, int, int, int] | None:
    """A ``clap`` property as a crop of whole px; ``None`` where it is none."""
    if len(content) < 32:
        return None
    wide, wide_by, high, high_by, across, across_by, down, down_by = struct.unpack(">IIIIiIiI", content[:32])
    if 0 in (wide_by, high_by, across_by, down_by):
        return None
    columns, rows = wide / wide_by, high / high_by
    left = round(across / across_by + (width - columns) / 2)
    top = round(down / down_by + (height - rows) / 2)
    bottom, right = top + round(rows), left + round(columns)
    return (top, left, bottom, right) if 0 <= top < bottom <= height and 0 <= left < right <= width else None


def _frames(data: bytes, movie: Box) -> int:
    """Pictures of the first track that has more than one."""
    path = (b"trak", b"mdia", b"minf", b"stbl")

    def below(box: Box, names: Sequence[bytes]) -> Iterator[Box]:
        if not names:
            yield box
            return
        for inner in boxes(data, box.start, min(box.end, len(data))):
            if inner.kind == names[0]:
                yield from below(inner, names[1:])

    counts = [
        struct.unpack_from(">I", data, box.start + 8)[0]
        for box in below(movie, (*path, b"stsz"))
        if box.start + 12 <= len(data)
    ]
    return max(counts, default=0)
