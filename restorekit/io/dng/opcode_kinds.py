"""The operations of DNG opcode lists (DNG 1.7, chapter 7); :mod:`restorekit.io.dng.opcodes` reads and writes the lists.

List 1 acts on the stored numbers, list 2 on linear ones (black 0, white 1) of the active area, list 3 on the
demosaiced image of the active area.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from restorekit.errors import InputError

Version = tuple[int, int, int, int]

MOST_POINTS, MOST_PLANES, LARGEST = 1024, 4, 1e30
"""Points along a side of a gain map, its colours, and any parameter: more is damage, and would take all memory."""


class OpcodeError(InputError):
    """A list that ends early, or an operation whose parameters do not fit together."""


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation. Without those that are not ``optional`` a picture is not what its camera meant.

    ``version`` is the DNG version that a reader must know to apply it.
    """

    code: ClassVar[int] = 0

    optional: bool = field(default=False, kw_only=True)
    skip_for_preview: bool = field(default=False, kw_only=True)
    version: Version = field(default=(1, 3, 0, 0), kw_only=True)

    @property
    def name(self) -> str:
        """What the specification calls it."""
        return type(self).__name__

    def parameters(self) -> bytes:
        """Its parameters as a file holds them."""
        raise NotImplementedError

    @classmethod
    def of(cls, data: bytes) -> Self:
        """The operation with parameters as a file holds them."""
        raise NotImplementedError


@dataclass(frozen=True)
class Area:
    """Which pixels an operation acts on: every ``row_pitch``-th row and ``column_pitch``-th column of a rectangle.

    Colour planes from ``plane`` on, ``planes`` of them. A rectangle without content means the whole image.
    """

    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0
    plane: int = 0
    planes: int = 1
    row_pitch: int = 1
    column_pitch: int = 1

    SIZE: ClassVar[int] = 32

    @staticmethod
    def of(data: bytes) -> Area:
        area = Area(*struct.unpack_from(">4i4I", data))
        if not (area.planes and area.row_pitch and area.column_pitch):
            raise OpcodeError("an area without planes or pitch")
        return area

    def pack(self) -> bytes:
        rectangle = self.top, self.left, self.bottom, self.right
        return struct.pack(">4i4I", *rectangle, self.plane, self.planes, self.row_pitch, self.column_pitch)

    def rectangle(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Top, left, bottom and right within an image; none of it may lie inside."""
        if self.bottom <= self.top or self.right <= self.left:
            return 0, 0, height, width
        return self.top, self.left, min(self.bottom, height), min(self.right, width)

    def covers(self, height: int, width: int) -> bool:
        """Whether every pixel of an image belongs to it."""
        top, left, bottom, right = self.rectangle(height, width)
        whole = top <= 0 and left <= 0 and (bottom, right) == (height, width)
        return whole and self.row_pitch == self.column_pitch == 1


@dataclass(frozen=True)
class _Warp(Operation):
    """A tuple of coefficients for all colours, or one for each; the optical centre as fractions of width and height."""

    terms: ClassVar[int]

    planes: tuple[tuple[float, ...], ...]
    center_x: float = 0.5
    center_y: float = 0.5

    @classmethod
    def of(cls, data: bytes) -> Self:
        planes, (x, y) = _planes(data, cls.terms)
        return cls(planes, x, y)

    def parameters(self) -> bytes:
        return _packed_planes(self.planes, (self.center_x, self.center_y))


class WarpRectilinear(_Warp):
    """Distortion and lateral colour of a rectilinear lens: ``(kr0, kr1, kr2, kr3, kt0, kt1)`` a plane."""

    code, terms = 1, 6


class WarpFisheye(_Warp):
    """Distortion and lateral colour of a fisheye lens: ``(kr0, kr1, kr2, kr3)`` a plane."""

    code, terms = 2, 4


@dataclass(frozen=True)
class FixVignetteRadial(Operation):
    """A gain ``1 + k0 r^2 + k1 r^4 + ... + k4 r^10``; r is 1 at the corner farthest from the centre."""

    code = 3
    coefficients: tuple[float, ...]
    center_x: float = 0.5
    center_y: float = 0.5

    @classmethod
    def of(cls, data: bytes) -> Self:
        *coefficients, x, y = _doubles(data, 7)
        return cls(tuple(coefficients), x, y)

    def parameters(self) -> bytes:
        return struct.pack(">7d", *self.coefficients, self.center_x, self.center_y)


@dataclass(frozen=True)
class FixBadPixelsConstant(Operation):
    """Photosites that hold a certain number are bad.

    ``bayer_phase`` tells the top left photosite: 0 red, 1 green in a red row, 2 green in a blue row, 3 blue. Adobe's
    DNG SDK counts otherwise: 0 green in a red row, 1 red, 2 blue, 3 green in a blue row.
    """

    code = 4
    constant: int
    bayer_phase: int = 0

    @classmethod
    def of(cls, data: bytes) -> Self:
        return cls(*struct.unpack_from(">2I", data))

    def parameters(self) -> bytes:
        return struct.pack(">2I", self.constant, self.bayer_phase)


@dataclass(frozen=True)
class FixBadPixelsList(Operation):
    """Bad photosites by row and column, and rectangles of them (top, left, bottom, right)."""

    code = 5
    points: tuple[tuple[int, int], ...] = ()
    rectangles: tuple[tuple[int, int, int, int], ...] = ()
    bayer_phase: int = 0

    @classmethod
    def of(cls, data: bytes) -> Self:
        phase, points, rectangles = struct.unpack_from(">3I", data)
        end = 12 + 8 * points
        if len(data) < end + 16 * rectangles:
            raise OpcodeError("a list of bad pixels that ends early")
        corners = struct.iter_unpack(">4i", data[end : end + 16 * rectangles])
        return cls(tuple(struct.iter_unpack(">2i", data[12:end])), tuple(corners), phase)

    def parameters(self) -> bytes:
        head = struct.pack(">3I", self.bayer_phase, len(self.points), len(self.rectangles))
        points = b"".join(struct.pack(">2i", *point) for point in self.points)
        return head + points + b"".join(struct.pack(">4i", *corners) for corners in self.rectangles)


@dataclass(frozen=True)
class TrimBounds(Operation):
    """Only this rectangle of the image is to be kept."""

    code = 6
    top: int
    left: int
    bottom: int
    right: int

    @classmethod
    def of(cls, data: bytes) -> Self:
        return cls(*struct.unpack_from(">4i", data))

    def parameters(self) -> bytes:
        return struct.pack(">4i", self.top, self.left, self.bottom, self.right)


@dataclass(frozen=True, eq=False)
class MapTable(Operation):
    """16-bit numbers looked up in a table ``[N]`` uint16; those beyond its end get its last entry."""

    code = 7
    area: Area
    table: NDArray[np.uint16]

    @classmethod
    def of(cls, data: bytes) -> Self:
        count = struct.unpack_from(">I", data, Area.SIZE)[0]
        if not 0 < count <= 1 << 16:
            raise OpcodeError(f"a table of {count} entries")
        return cls(Area.of(data), _numbers(data, ">u2", count, Area.SIZE + 4).astype(np.uint16))

    def parameters(self) -> bytes:
        return self.area.pack() + struct.pack(">I", len(self.table)) + self.table.astype(">u2").tobytes()


@dataclass(frozen=True)
class MapPolynomial(Operation):
    """Values replaced by those of a polynomial, coefficients lowest order first, degree 8 at most."""

    code = 8
    area: Area
    coefficients: tuple[float, ...]

    @classmethod
    def of(cls, data: bytes) -> Self:
        degree = struct.unpack_from(">I", data, Area.SIZE)[0]
        if degree > 8:
            raise OpcodeError(f"a polynomial of degree {degree}")
        return cls(Area.of(data), _doubles(data, degree + 1, Area.SIZE + 4))

    def parameters(self) -> bytes:
        count = len(self.coefficients)
        return self.area.pack() + struct.pack(f">I{count}d", count - 1, *self.coefficients)


@dataclass(frozen=True, eq=False)
class GainMap(Operation):
    """Gains ``[V,H,P]`` float32 on a grid over the whole image; colours beyond its P planes take the last one.

    The first point lies at ``origin``, the next ``spacing`` further, both (v, h) as fractions of the image's height
    and width, in which the middle of the first pixel of ``n`` lies at ``0.5 / n``.
    """

    code = 9
    area: Area
    gains: NDArray[np.float32]
    spacing: tuple[float, float] = (1.0, 1.0)
    origin: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def of(cls, data: bytes) -> Self:
        rows, columns, *grid, planes = struct.unpack_from(">2I4dI", data, Area.SIZE)
        spacing, origin = (grid[0], grid[1]), (grid[2], grid[3])
        spaced = all(step > 0 or count == 1 for step, count in zip(spacing, (rows, columns), strict=True))
        points = 0 < rows <= MOST_POINTS and 0 < columns <= MOST_POINTS and 0 < planes <= MOST_PLANES
        if not (points and spaced and np.isfinite(grid).all()):
            raise OpcodeError(f"a gain map of {rows} x {columns} points for {planes} colours, {spacing} apart")
        gains = _numbers(data, ">f4", rows * columns * planes, Area.SIZE + 44).astype(np.float32)
        return cls(Area.of(data), gains.reshape(rows, columns, planes), spacing, origin)

    def parameters(self) -> bytes:
        rows, columns, planes = self.gains.shape
        grid = struct.pack(">2I4dI", rows, columns, *self.spacing, *self.origin, planes)
        return self.area.pack() + grid + self.gains.astype(">f4").tobytes()


@dataclass(frozen=True, eq=False)
class _PerLine(Operation):
    """A number ``[N]`` float32 for each row, or column, of an area."""

    area: Area
    numbers: NDArray[np.float32]

    @classmethod
    def of(cls, data: bytes) -> Self:
        count = struct.unpack_from(">I", data, Area.SIZE)[0]
        return cls(Area.of(data), _numbers(data, ">f4", count, Area.SIZE + 4).astype(np.float32))

    def parameters(self) -> bytes:
        return self.area.pack() + struct.pack(">I", len(self.numbers)) + self.numbers.astype(">f4").tobytes()


class DeltaPerRow(_PerLine):
    """A number added to each row of an area."""

    code = 10


class DeltaPerColumn(_PerLine):
    """A number added to each column of an area."""

    code = 11


class ScalePerRow(_PerLine):
    """A factor for each row of an area."""

    code = 12


class ScalePerColumn(_PerLine):
    """A factor for each column of an area."""

    code = 13


@dataclass(frozen=True)
class WarpPlane:
    """A plane of WarpRectilinear2: ``kr0..kr14``, ``kt0, kt1``, and the radii between which they hold.

    Radii are fractions of the distance from the optical centre to the farthest corner.
    """

    radial: tuple[float, ...]
    tangential: tuple[float, float] = (0.0, 0.0)
    valid_range: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class WarpRectilinear2(Operation):
    """Distortion and lateral colour with more terms (DNG 1.6); ``reciprocal``: the radial sum divides."""

    code = 14
    planes: tuple[WarpPlane, ...]
    center_x: float = 0.5
    center_y: float = 0.5
    reciprocal: bool = False
    version: Version = field(default=(1, 6, 0, 0), kw_only=True)

    @classmethod
    def of(cls, data: bytes) -> Self:
        planes, (x, y) = _planes(data, 19)
        (reciprocal,) = struct.unpack_from(">I", data, 4 + 8 * (19 * len(planes) + 2))
        return cls(tuple(WarpPlane(p[:15], (p[15], p[16]), (p[17], p[18])) for p in planes), x, y, reciprocal != 0)

    def parameters(self) -> bytes:
        planes = tuple((*plane.radial, *plane.tangential, *plane.valid_range) for plane in self.planes)
        return _packed_planes(planes, (self.center_x, self.center_y)) + struct.pack(">I", self.reciprocal)


@dataclass(frozen=True)
class Unknown(Operation):
    """An operation that DNG 1.7 does not know; ``data`` are its parameters."""

    number: int
    data: bytes

    @property
    def name(self) -> str:
        return f"opcode {self.number}"

    def parameters(self) -> bytes:
        return self.data


def _planes(data: bytes, terms: int) -> tuple[tuple[tuple[float, ...], ...], tuple[float, float]]:
    """Coefficients of each colour plane, and the optical centre (x, y)."""
    (count,) = struct.unpack_from(">I", data)
    *flat, x, y = _doubles(data, terms * count + 2, 4)
    if not count:
        raise OpcodeError("a warp without planes")
    return tuple(tuple(flat[at : at + terms]) for at in range(0, len(flat), terms)), (x, y)


def _packed_planes(planes: Sequence[Sequence[float]], center: tuple[float, float]) -> bytes:
    flat = [value for plane in planes for value in plane]
    return struct.pack(f">I{len(flat) + 2}d", len(planes), *flat, *center)


def _doubles(data: bytes, count: int, offset: int = 0) -> tuple[float, ...]:
    return tuple(_numbers(data, ">f8", count, offset).tolist())


def _numbers(data: bytes, kind: str, count: int, offset: int) -> NDArray[Any]:
    """Numbers of an array; OpcodeError when there are fewer, or when one is NaN or beyond what single floats hold."""
    if count > len(data):
        raise OpcodeError(f"{count} numbers in {len(data)} bytes")
    numbers = np.frombuffer(data, kind, count, offset)
    if not (np.abs(numbers) < LARGEST).all():
        raise OpcodeError("a parameter that is no number of use")
    return numbers
