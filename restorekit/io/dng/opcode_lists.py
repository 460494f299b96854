"""What reading a DNG does with its opcode lists: the first is applied, of the second what maps whole colour planes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from restorekit.facts import Camera
from restorekit.frame import Region
from restorekit.io.dng.bad_pixels import MOST_BAD, bad_share, repaired
from restorekit.io.dng.corrections import correct, is_correction
from restorekit.io.dng.opcode_kinds import (
    Area,
    FixBadPixelsConstant,
    FixBadPixelsList,
    MapPolynomial,
    MapTable,
    OpcodeError,
    Operation,
    TrimBounds,
    Unknown,
)
from restorekit.io.dng.opcodes import OPCODE_LISTS, encode, parse
from restorekit.io.tiff import Directory

Rectangle = tuple[int, int, int, int]


@dataclass(frozen=True)
class OpcodeLists:
    """The three lists of a DNG, and what a person should know of them; damaged ones are empty."""

    first: tuple[Operation, ...] = ()
    second: tuple[Operation, ...] = ()
    third: tuple[Operation, ...] = ()
    notes: tuple[str, ...] = ()


def opcode_lists(raw: Directory) -> OpcodeLists:
    """The lists of the directory of a RAW image. Notes name what is damaged or unknown, and so is not applied."""
    lists: list[tuple[Operation, ...]] = []
    notes: list[str] = []
    for number, tag in enumerate(OPCODE_LISTS, start=1):
        try:
            lists.append(parse(raw.fields[tag].data if tag in raw.fields else b""))
        except OpcodeError as error:
            lists.append(())
            notes.append(f"its OpcodeList{number} is damaged ({error}), the corrections in it are not applied")
    unknown = [each for each in (*lists[0], *lists[1], *lists[2]) if isinstance(each, Unknown)]
    if unknown:
        notes.append(_missing(unknown, "newer than DNG 1.7"))
    return OpcodeLists(lists[0], lists[1], lists[2], tuple(notes))


def corrected(
    stored: NDArray[Any], operations: Sequence[Operation], green_parity: int | None
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Stored numbers ``[H,W]`` or ``[H,W,C]`` after the first list, in their own type; notes name what is left out.

    ``green_parity`` is that of row plus column of the green photosites of a Bayer mosaic, ``None`` for other images.
    """
    left: list[Operation] = []
    notes: list[str] = []
    for operation in operations:
        if isinstance(operation, FixBadPixelsConstant | FixBadPixelsList):
            if green_parity is None:
                left.append(operation)
            elif bad_share(stored, operation) > MOST_BAD:
                notes.append(_missing([operation], f"of more than {MOST_BAD:.0%} of all photosites"))
            else:
                stored = repaired(stored, operation, green_parity)
        elif is_correction(operation):
            stored = _with_values(stored, operation)
        elif not isinstance(operation, TrimBounds | Unknown):
            left.append(operation)
    if left:
        notes.append(_missing(left, "not for this kind of image"))
    return stored, tuple(notes)


def _with_values(stored: NDArray[Any], operation: Operation) -> NDArray[Any]:
    """Stored numbers after an operation that changes values, rounded and kept in the range of their type."""
    planes = np.atleast_3d(stored).transpose(2, 0, 1)
    values = torch.from_numpy(np.array(planes, np.float32, order="C"))
    correct(values, (operation,), Region(0, values.shape[1]), table_range=1.0)
    result = values.numpy()
    if stored.dtype.kind == "u":
        result = np.rint(result).clip(0, np.iinfo(stored.dtype).max)
    return result.transpose(1, 2, 0).reshape(stored.shape).astype(stored.dtype)


def linear(
    stored: NDArray[Any], camera: Camera, operations: Sequence[Operation]
) -> tuple[NDArray[Any], Camera, tuple[Operation, ...], tuple[str, ...]]:
    """Pixels and camera after what the second list begins with, as far as it maps whole planes of a linear image.

    Lossy files are stored in steps that follow the eye; these polynomials or tables make them linear. Their result is
    float32 with black 0 and white 1. What is left of the list waits for raw.lens_shading; notes name what does
    not fit there.
    """
    known = [each for each in operations if is_correction(each)]
    odd = [each for each in operations if not (is_correction(each) or isinstance(each, TrimBounds | Unknown))]
    notes = (_missing(odd, "not for the second list"),) if odd else ()
    maps = _whole_maps(stored, camera, known)
    if not maps or camera.black is None or camera.white is None:
        return stored, camera, tuple(known), notes
    channels = stored.shape[2]
    black = camera.black[0, 0].astype(np.float64)[:, None]
    codes = np.arange(np.iinfo(stored.dtype).max + 1, dtype=np.float64)
    table = torch.from_numpy(((codes - black) / (camera.white[:, None] - black))[:, None])
    correct(table, maps, Region(0, 1))
    mapped = np.empty(stored.shape, np.float32)
    for channel in range(channels):
        np.take(table[channel, 0].numpy().astype(np.float32), stored[..., channel], out=mapped[..., channel])
    levels = replace(camera, black=np.zeros((1, 1, channels), np.float32), white=np.ones(channels, np.float32))
    return mapped, levels, tuple(known[len(maps) :]), notes


def _whole_maps(stored: NDArray[Any], camera: Camera, operations: Sequence[Operation]) -> tuple[Operation, ...]:
    """The first operations, while each maps whole planes, as they act on a table of all numbers.

    Only for integers ``[H,W,C]`` whose levels are the same everywhere.
    """
    even = camera.black is not None and bool((camera.black == camera.black[0, 0]).all())
    if stored.ndim != 3 or stored.dtype.kind != "u" or not even:
        return ()
    if camera.black_rows is not None or camera.black_columns is not None:
        return ()
    height, width = stored.shape[:2]
    first = takewhile(
        lambda each: isinstance(each, MapPolynomial | MapTable) and each.area.covers(height, width), operations
    )
    return tuple(
        replace(each, area=Area(plane=each.area.plane, planes=each.area.planes))
        for each in first
        if isinstance(each, MapPolynomial | MapTable)
    )


def trims(operations: Sequence[Operation], top: int = 0, left: int = 0) -> tuple[Rectangle, ...]:
    """The rectangles (top, left, bottom, right) to which a list trims the image, seen from a place in it."""
    bounds = [each for each in operations if isinstance(each, TrimBounds)]
    return tuple((each.top - top, each.left - left, each.bottom - top, each.right - left) for each in bounds)


def remaining(second: Sequence[Operation], third: Sequence[Operation]) -> tuple[bytes, bytes, bytes]:
    """The lists that stages have still to apply, as a camera holds them."""
    return b"", encode(second), encode(third)


def _missing(operations: Sequence[Operation], why: str) -> str:
    names = ", ".join(dict.fromkeys(each.name + ("" if each.optional else " (mandatory)") for each in operations))
    return f"corrections that the DNG asks for are not applied, being {why}: {names}"
