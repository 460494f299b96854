"""The blocks of a GIF file (GIF89a, CompuServe 1990): how many pictures it has, and where the first one lies."""

from __future__ import annotations

import struct
from dataclasses import dataclass

TRAILER, EXTENSION, IMAGE = 0x3B, 0x21, 0x2C


@dataclass(frozen=True)
class Blocks:
    """``frames`` of the file, the offset at which the first ``ends``, and what that one ``covers`` of the screen.

    This is top, left, bottom and right in px; ``None`` where the first picture is as large as the screen.
    """

    frames: int
    ends: int
    covers: tuple[int, int, int, int] | None


def blocks(data: bytes) -> Blocks:
    """The blocks of a file.

    Raises IndexError or struct.error for a file that ends before its trailer, ValueError where it has no picture.
    """
    width, height, packed = struct.unpack_from("<HHB", data, 6)
    at = 13 + _table(packed)
    frames = ends = 0
    covers = None
    while data[at] != TRAILER:
        if data[at] == IMAGE:
            left, top, wide, high, packed = struct.unpack_from("<HHHHB", data, at + 1)
            at = _after_data(data, at + 10 + _table(packed) + 1)
            if frames == 0:
                ends = at
                covers = None if (wide, high) == (width, height) else (top, left, top + high, left + wide)
            frames += 1
        elif data[at] == EXTENSION:
            at = _after_data(data, at + 2)
        else:
            raise ValueError("a block of an unknown kind")
    if frames == 0:
        raise ValueError("it has no picture")
    return Blocks(frames, ends, covers)


def _table(packed: int) -> int:
    """Bytes of a colour table."""
    return 3 << (packed & 7) + 1 if packed & 0x80 else 0


def _after_data(data: bytes, at: int) -> int:
    while data[at]:
        at += 1 + data[at]
    return at + 1
