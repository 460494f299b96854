"""The structure of TIFF 6.0, skeleton of DNG, EXIF and most RAW formats: directories of fields, read and laid out.

Only structure: what the fields mean is told by those who use them, and pixels are not touched.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Literal, TypeAlias

Order = Literal["<", ">"]
"""Byte order in the notation of ``struct``: ``<`` for files that begin with II, ``>`` for MM."""

BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, SRATIONAL, FLOAT, DOUBLE, LONG8 = 1, 2, 3, 4, 5, 7, 10, 11, 12, 16
_UNITS: Mapping[int, str] = {
    1: "B", 2: "B", 3: "H", 4: "I", 5: "II", 6: "b", 7: "B", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d", 13: "I",
    16: "Q",
}  # fmt: skip
"""``struct`` codes of one value of each field type."""

MAGICS = (42, 0x55, 0x4F52, 0x5352)
"""The number after the byte order: TIFF, and the variants of Panasonic (0x55) and Olympus RAW files."""

SUB_DIRECTORIES = 330
STRIP_OFFSETS, STRIP_SIZES, TILE_OFFSETS, TILE_SIZES = 273, 279, 324, 325

_LARGEST_FIELD = 1 << 24


class TiffError(ValueError):
    """A structure that is not TIFF, or that ends too early."""


@dataclass(frozen=True)
class Field:
    """One field: its type, its bytes in the order of its file, and where they lay (0 = in no file)."""

    kind: int
    data: bytes
    order: Order = "<"
    place: int = 0

    @staticmethod
    def of(kind: int, values: Sequence[float] | bytes | str, order: Order = "<") -> Field:
        """A field from values. Rationals are given as they are and stored to six or more significant digits."""
        if isinstance(values, str):
            return Field(kind, values.encode("utf-8") + b"\0", order)
        if isinstance(values, bytes):
            return Field(kind, values, order)
        flat: list[float] = []
        for value in values:
            flat += _rational(value, kind) if kind in (RATIONAL, SRATIONAL) else (value,)
        code = _UNITS[kind][0]
        numbers = flat if code in "fd" else [int(value) for value in flat]
        return Field(kind, struct.pack(f"{order}{len(numbers)}{code}", *numbers), order)

    @property
    def count(self) -> int:
        return len(self.data) // struct.calcsize("=" + _UNITS[self.kind])

    @property
    def numbers(self) -> tuple[float, ...]:
        """The values; rationals are divided, ``nan`` where the divisor is zero."""
        code = _UNITS[self.kind]
        flat = struct.unpack(f"{self.order}{self.count * len(code)}{code[0]}", self.data)
        if len(code) == 1:
            return flat
        return tuple(n / d if d else math.nan for n, d in zip(flat[::2], flat[1::2], strict=True))

    @property
    def text(self) -> str:
        """Characters up to the first NUL, without blanks at the end."""
        return self.data.partition(b"\0")[0].decode("utf-8", "replace").strip()

    def ordered(self, order: Order) -> Field:
        """This field in another byte order."""
        if order == self.order:
            return self
        code = _UNITS[self.kind]
        count = self.count * len(code)
        swapped = struct.pack(f"{order}{count}{code[0]}", *struct.unpack(f"{self.order}{count}{code[0]}", self.data))
        return Field(self.kind, swapped, order)


Tree: TypeAlias = "dict[int, Field | Tree]"
"""Fields by tag; a nested tree is a directory that its tag points to."""


@dataclass(frozen=True)
class Directory:
    """The fields of one image file directory, where it lay, and where the next one is (0 = it is the last)."""

    fields: Mapping[int, Field]
    offset: int
    following: int

    def numbers(self, tag: int) -> tuple[float, ...]:
        """The values of a field, empty where it is missing or not numeric."""
        found = self.fields.get(tag)
        return found.numbers if found is not None else ()

    def integers(self, tag: int) -> tuple[int, ...]:
        """The values of a field as integers."""
        return tuple(int(value) for value in self.numbers(tag) if math.isfinite(value))

    def integer(self, tag: int, default: int) -> int:
        """The first value of a field."""
        return next(iter(self.integers(tag)), default)

    def text(self, tag: int) -> str:
        """The characters of a field, empty where it is missing."""
        found = self.fields.get(tag)
        return found.text if found is not None else ""

    def extent(self) -> tuple[int, int]:
        """Bytes of image data this directory names, and the offset in the file at which they end."""
        total = end = 0
        for offsets, sizes in ((STRIP_OFFSETS, STRIP_SIZES), (TILE_OFFSETS, TILE_SIZES)):
            for offset, size in zip(self.integers(offsets), self.integers(sizes), strict=False):
                total, end = total + size, max(end, offset + size)
        return total, end


def read_header(file: BinaryIO) -> tuple[Order, int] | None:
    """Byte order and offset of the first directory, or ``None`` for what is no TIFF structure."""
    file.seek(0)
    head = file.read(8)
    order: Order | None = {b"II": "<", b"MM": ">"}.get(head[:2])  # type: ignore[assignment]
    if order is None or len(head) < 8:
        return None
    magic, first = struct.unpack(order + "HI", head[2:])
    return (order, first) if magic in MAGICS else None


def read_directory(file: BinaryIO, offset: int, order: Order, *, strict: bool = True) -> Directory:
    """The directory at an offset. Fields of unknown types are left out, and without ``strict`` damaged ones too.

    Raises TiffError when it, or with ``strict`` the data of one of its fields, lies beyond the end of the file.
    """
    file.seek(offset)
    head = file.read(2)
    count = struct.unpack(order + "H", head)[0] if len(head) == 2 else 0
    table = file.read(12 * count + 4)
    if offset < 8 or len(table) < 12 * count or (count == 0 and strict):
        raise TiffError("it ends before its directory")
    fields: dict[int, Field] = {}
    for entry in range(count):
        tag, kind, length, where = struct.unpack_from(order + "HHII", table, 12 * entry)
        size = length * struct.calcsize("=" + _UNITS.get(kind, ""))
        place = offset + 2 + 12 * entry + 8
        if size == 0 or size > _LARGEST_FIELD:
            continue
        if size <= 4:
            data = table[12 * entry + 8 : 12 * entry + 8 + size]
        else:
            place = where
            file.seek(where)
            data = file.read(size)
        if len(data) == size:
            fields[tag] = Field(kind, data, order, place)
        elif strict:
            raise TiffError("it ends before the data of its directory")
    following = struct.unpack_from(order + "I", table, 12 * count)[0] if len(table) == 12 * count + 4 else 0
    return Directory(fields, offset, following)


def read_directories(file: BinaryIO) -> tuple[Directory, ...]:
    """All image directories: the chain from the header, each followed by those it has inside.

    Raises TiffError for what is no TIFF structure or ends before one of them.
    """
    header = read_header(file)
    if header is None:
        raise TiffError("it is no TIFF structure")
    return tuple(_walk(file, header[1], header[0], set()))


def _walk(file: BinaryIO, offset: int, order: Order, seen: set[int]) -> Iterator[Directory]:
    while offset and offset not in seen and len(seen) < 64:
        seen.add(offset)
        directory = read_directory(file, offset, order)
        yield directory
        for inside in directory.integers(SUB_DIRECTORIES):
            yield from _walk(file, inside, order, seen)
        offset = directory.following


def lay_out(tree: Tree, order: Order = "<", pinned: Field | None = None, *, big: bool = False) -> bytes:
    """A complete TIFF structure of one directory and those inside it, without image data.

    All fields must be in the given byte order. The data of the ``pinned`` field, if it is in the tree, stay at the
    offset where they lay: a camera's maker note may hold offsets that count from the start of the file. ``big`` makes
    it a BigTIFF structure, whose offsets have 64 bits.
    """
    reserved = (pinned.place, pinned.place + len(pinned.data)) if pinned is not None else (0, 0)
    layout = _Layout(order, pinned, reserved, big)
    first = layout.directory(tree)
    block = bytearray(max(layout.cursor, max((at + len(data) for at, data in layout.chunks), default=0)))
    header = struct.pack(order + "HHHQ", 43, 8, 0, first) if big else struct.pack(order + "HI", 42, first)
    block[: 2 + len(header)] = (b"II" if order == "<" else b"MM") + header
    for at, data in layout.chunks:
        block[at : at + len(data)] = data
    return bytes(block)


class _Layout:
    """Gives every piece of a structure its place."""

    def __init__(self, order: Order, pinned: Field | None, reserved: tuple[int, int], big: bool) -> None:
        self.order = order
        self.pinned = pinned
        self.reserved = reserved
        self.cursor, self.align = (16, 8) if big else (8, 2)
        self.number, self.length = ("Q", "Q") if big else ("H", "I")
        self.room = 8 if big else 4
        self.chunks: list[tuple[int, bytes]] = []

    def take(self, size: int) -> int:
        """The next free place, on an even offset (BigTIFF: a multiple of 8)."""
        at = self._aligned(self.cursor)
        if at < self.reserved[1] and at + size > self.reserved[0]:
            at = self._aligned(self.reserved[1])
        self.cursor = at + size
        return at

    def directory(self, tree: Tree) -> int:
        """Place a directory, its data and what is inside it; the result is its offset."""
        entry = self.order + "HH" + self.length
        count = struct.pack(self.order + self.number, len(tree))
        at = self.take(len(count) + (struct.calcsize(entry) + self.room) * len(tree) + self.room)
        table = count
        for tag in sorted(tree):
            item = tree[tag]
            if isinstance(item, Field):
                table += struct.pack(entry, tag, item.kind, item.count) + self.value(item)
            else:
                inside = struct.pack(self.order + "I", self.directory(item)).ljust(self.room, b"\0")
                table += struct.pack(entry, tag, LONG, 1) + inside
        self.chunks.append((at, table + bytes(self.room)))
        return at

    def value(self, item: Field) -> bytes:
        """The four (BigTIFF: eight) bytes that hold a field's data or their offset."""
        if len(item.data) <= self.room:
            return item.data.ljust(self.room, b"\0")
        at = self.reserved[0] if item is self.pinned else self.take(len(item.data))
        self.chunks.append((at, item.data))
        return struct.pack(self.order + self.length, at)

    def _aligned(self, at: int) -> int:
        return -(-at // self.align) * self.align


def _rational(value: float, kind: int) -> tuple[int, int]:
    """Numerator and denominator: exact where the value is a short fraction, else as fine as 32 bits allow."""
    from fractions import Fraction

    limit = (1 << 31) - 1 if kind == SRATIONAL else (1 << 32) - 1
    short = Fraction(value).limit_denominator(10_000)
    if abs(float(short) - value) > 1e-9 * max(abs(value), 1e-3):
        largest = max(1, min(limit, int(limit / max(abs(value), 1e-9))))
        short = Fraction(value).limit_denominator(largest)
    return max(-limit, min(limit, short.numerator)), short.denominator
