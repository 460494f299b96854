"""DNG opcode lists (DNG 1.7, chapter 7): the polynomials that linearize lossy files; the others are named."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restorekit.facts import Camera
from restorekit.io.tiff import Directory

OPCODE_LISTS = LIST_1, LIST_2, LIST_3 = 51008, 51009, 51022
MAP_POLYNOMIAL = 8

NAMES: Mapping[int, str] = {
    1: "WarpRectilinear",
    2: "WarpFisheye",
    3: "FixVignetteRadial",
    4: "FixBadPixelsConstant",
    5: "FixBadPixelsList",
    6: "TrimBounds",
    7: "MapTable",
    8: "MapPolynomial",
    9: "GainMap",
    10: "DeltaPerRow",
    11: "DeltaPerColumn",
    12: "ScalePerRow",
    13: "ScalePerColumn",
    14: "WarpRectilinear2",
}


@dataclass(frozen=True)
class Opcode:
    """One operation; ``data`` are its parameters, big-endian in files of any byte order."""

    code: int
    data: bytes

    @property
    def name(self) -> str:
        return NAMES.get(self.code, f"opcode {self.code}")


def opcode_list(directory: Directory, tag: int) -> tuple[Opcode, ...]:
    """The operations of a list, empty where the tag is missing or damaged."""
    data = directory.fields[tag].data if tag in directory.fields else b""
    found: list[Opcode] = []
    at = 4
    for _ in range(struct.unpack(">I", data[:4])[0] if len(data) >= 4 else 0):
        if at + 16 > len(data):
            return ()
        code, _, _, length = struct.unpack_from(">IIII", data, at)
        found.append(Opcode(code, data[at + 16 : at + 16 + length]))
        at += 16 + length
    return tuple(found)


def applied(
    stored: NDArray[Any], camera: Camera, main: Directory, raw: Directory
) -> tuple[NDArray[Any], Camera, tuple[str, ...]]:
    """Pixels and camera after the operations that map whole colour planes; notes name those that were left out.

    A MapPolynomial of the second list works on values where black is 0 and white is 1, and so does its result,
    which is float32. Signed values below black are mapped too, so that noise keeps its mean.
    """
    second = opcode_list(raw, LIST_2)
    curves = _curves(second, stored)
    left = [*opcode_list(raw, LIST_1), *(() if curves else second), *opcode_list(raw, LIST_3)]
    names = ", ".join(dict.fromkeys(opcode.name for opcode in left))
    notes = (f"corrections that the DNG asks for are not applied: {names}",) if names else ()
    if not curves or camera.black is None or camera.white is None:
        return stored, camera, notes
    codes = np.arange(np.iinfo(stored.dtype).max + 1, dtype=np.float64)
    mapped = np.empty(stored.shape, np.float32)
    for channel, polynomials in curves.items():
        black = float(camera.black[..., channel].mean())
        values: NDArray[np.floating[Any]] = (codes - black) / (float(camera.white[channel]) - black)
        for polynomial in polynomials:
            values = np.polynomial.polynomial.polyval(values, polynomial)
        np.take(values.astype(np.float32), stored[..., channel], out=mapped[..., channel])
    channels = stored.shape[2]
    linear = replace(camera, black=np.zeros((1, 1, channels), np.float32), white=np.ones(channels, np.float32))
    return mapped, linear, notes


def _curves(opcodes: tuple[Opcode, ...], stored: NDArray[Any]) -> dict[int, list[tuple[float, ...]]]:
    """Polynomials (lowest order first) of every channel; empty unless the list holds nothing else.

    Only for integers ``[H,W,C]`` whose levels are the same everywhere, and operations on whole planes.
    """
    if stored.ndim != 3 or stored.dtype.kind != "u":
        return {}
    curves: dict[int, list[tuple[float, ...]]] = {channel: [] for channel in range(stored.shape[2])}
    for opcode in opcodes:
        if opcode.code != MAP_POLYNOMIAL or len(opcode.data) < 36:
            return {}
        top, left, bottom, right, plane, planes, row_pitch, column_pitch, degree = struct.unpack_from(
            ">9I", opcode.data
        )
        whole = (top, left) == (0, 0) and bottom >= stored.shape[0] and right >= stored.shape[1]
        if not whole or (row_pitch, column_pitch) != (1, 1) or len(opcode.data) < 36 + 8 * (degree + 1):
            return {}
        polynomial = struct.unpack_from(f">{degree + 1}d", opcode.data, 36)
        for channel in range(plane, min(plane + planes, stored.shape[2])):
            curves[channel].append(polynomial)
    return curves if opcodes else {}
