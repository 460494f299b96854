"""DNG opcode lists (DNG 1.7, chapter 7): corrections that a camera asks for, read and written.

A list is a count and its operations, big-endian in files of any byte order.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from restorekit.io.dng.opcode_kinds import (
    DeltaPerColumn,
    DeltaPerRow,
    FixBadPixelsConstant,
    FixBadPixelsList,
    FixVignetteRadial,
    GainMap,
    MapPolynomial,
    MapTable,
    OpcodeError,
    Operation,
    ScalePerColumn,
    ScalePerRow,
    TrimBounds,
    Unknown,
    WarpFisheye,
    WarpRectilinear,
    WarpRectilinear2,
)

OPCODE_LISTS = LIST_1, LIST_2, LIST_3 = 51008, 51009, 51022
"""Tags of the three lists."""

OPERATIONS: Mapping[int, type[Operation]] = {
    kind.code: kind
    for kind in (
        WarpRectilinear,
        WarpFisheye,
        FixVignetteRadial,
        FixBadPixelsConstant,
        FixBadPixelsList,
        TrimBounds,
        MapTable,
        MapPolynomial,
        GainMap,
        DeltaPerRow,
        DeltaPerColumn,
        ScalePerRow,
        ScalePerColumn,
        WarpRectilinear2,
    )
}
"""The operations of DNG 1.7 by their numbers."""


MOST_OPERATIONS = 1000
"""Cameras write a handful; each may take a pass over the picture."""


@lru_cache(maxsize=16)
def parse(data: bytes) -> tuple[Operation, ...]:
    """The operations of a list; none for no data.

    Raises OpcodeError for a list that is damaged.
    """
    try:
        return tuple(_parsed(data)) if data else ()
    except (struct.error, ValueError) as error:
        raise OpcodeError(str(error)) from error


def _parsed(data: bytes) -> list[Operation]:
    (count,) = struct.unpack_from(">I", data)
    if count > MOST_OPERATIONS:
        raise OpcodeError(f"it counts {count} operations")
    found: list[Operation] = []
    at = 4
    for _ in range(count):
        code, version, flags, length = struct.unpack_from(">I4sII", data, at)
        at += 16 + length
        if at > len(data):
            raise OpcodeError("it ends early")
        content = data[at - length : at]
        kind = OPERATIONS.get(code)
        operation = Unknown(code, content) if kind is None else kind.of(content)
        flagged = replace(operation, optional=bool(flags & 1), skip_for_preview=bool(flags & 2), version=tuple(version))
        found.append(flagged)
    return found


def encode(operations: Sequence[Operation]) -> bytes:
    """A list as files hold it; no operations make no list."""
    if not operations:
        return b""
    coded = [struct.pack(">I", len(operations))]
    for operation in operations:
        data = operation.parameters()
        code = operation.number if isinstance(operation, Unknown) else operation.code
        flags = operation.optional + 2 * operation.skip_for_preview
        coded += [struct.pack(">I4sII", code, bytes(operation.version), flags, len(data)), data]
    return b"".join(coded)
