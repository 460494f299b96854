"""Mosaics of colour filters: which photosite has which colour, where the nearest ones lie, Bayer as four planes.

A Bayer mosaic taken apart is four contiguous planes of a quarter of the pixels, so that filters on it are sums
of shifted planes and no operation looks at a mask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restorekit.errors import StageError
from restorekit.frame import Frame

NEAREST_PX = 3
"""How far away the nearest photosites of a colour are searched; X-Trans needs 3."""

Convert = Callable[[Tensor, int], Tensor]
RED, GREEN, BLUE = 0, 1, 2


def cfa_at(frame: Frame) -> tuple[str, ...]:
    """The repeating cell of colours from the first row of this frame or strip on.

    Raises StageError when the camera has no pattern.
    """
    cell = frame.camera.cfa
    if not cell:
        raise StageError(
            f"{frame.name}: the file names no colour filter pattern; give it with input.headerless or Frame.from_bayer"
        )
    start = (frame.region.top if frame.region else 0) % len(cell)
    return (*cell[start:], *cell[:start])


def red_parity(cell: tuple[str, ...], name: str) -> tuple[int, int]:
    """Row and column of the red photosite in a Bayer cell."""
    if len(cell) != 2 or sorted("".join(cell)) != ["B", "G", "G", "R"] or "G" not in cell[0] or "G" not in cell[1]:
        raise StageError(f"{name}: colour filter pattern {'/'.join(cell)} is not a Bayer pattern; use method: libraw")
    row = 0 if "R" in cell[0] else 1
    return row, cell[row].index("R")


@cache
def nearest(cell: tuple[str, ...], from_dy: int, from_dx: int, count: int, outside: int) -> NDArray[np.int64]:
    """Where the nearest photosites of one colour lie, for every photosite of a repeating cell.

    Seen from the photosite at row ``r`` and column ``c`` of the cell, ``[r, c]`` of the result ``[h,w,count,2]``
    holds offsets (dy, dx) of photosites that have the colour of the one at ``from_dy``, ``from_dx``. They
    are those nearest to it that lie more than ``outside`` px from the photosite itself in y or x.
    """
    height, width = len(cell), len(cell[0])
    ring = range(-NEAREST_PX, NEAREST_PX + 1)
    found = np.zeros((height, width, count, 2), dtype=np.int64)
    for row in range(height):
        for column in range(width):
            colour = cell[(row + from_dy) % height][(column + from_dx) % width]
            same = [
                (dy, dx)
                for dy in ring
                for dx in ring
                if max(abs(dy), abs(dx)) > outside and cell[(row + dy) % height][(column + dx) % width] == colour
            ]
            same.sort(key=lambda at: ((at[0] - from_dy) ** 2 + (at[1] - from_dx) ** 2, at))
            found[row, column] = same[:count]
    return found


@dataclass(frozen=True)
class Sites:
    """The photosites of one row parity and one column parity of a mosaic, all of one colour.

    They lie on the image, which has ``rows`` times ``columns`` cells of 2x2 photosites, or at most
    ``margin_y`` and ``margin_x`` px outside of it.
    """

    channel: int
    row: int
    column: int
    rows: int
    columns: int
    margin_y: int = 0
    margin_x: int = 0

    def within(self, margin_y: int, margin_x: int) -> Sites:
        """The same photosites out to other margins."""
        return replace(self, margin_y=margin_y, margin_x=margin_x)

    @property
    def parity(self) -> tuple[int, int]:
        """Row and column modulo 2."""
        return self.row, self.column

    def span_y(self) -> tuple[int, int]:
        """The first row of cells and one past the last."""
        return _span(self.row, self.rows, self.margin_y)

    def span_x(self) -> tuple[int, int]:
        """The first column of cells and one past the last."""
        return _span(self.column, self.columns, self.margin_x)


def _span(parity: int, cells: int, margin: int) -> tuple[int, int]:
    return -((margin + parity) // 2), (2 * cells + 1 + margin - parity) // 2


@dataclass(frozen=True, eq=False)
class Plane:
    """A value for each of some photosites."""

    sites: Sites
    values: Tensor

    def at(self, sites: Sites, dy: int = 0, dx: int = 0) -> Tensor:
        """What the photosites ``sites`` see at an offset of ``dy``, ``dx`` px: a view, one value each."""
        y = (sites.row + dy - self.sites.row) // 2 - self.sites.span_y()[0]
        x = (sites.column + dx - self.sites.column) // 2 - self.sites.span_x()[0]
        (top, bottom), (left, right) = sites.span_y(), sites.span_x()
        return self.values[top + y : bottom + y, left + x : right + x]

    def sum(self, sites: Sites, *offsets: tuple[int, int]) -> Tensor:
        """The sum of what ``sites`` see at two or more offsets."""
        first, second, *more = (self.at(sites, dy, dx) for dy, dx in offsets)
        total = first + second
        for term in more:
            total.add_(term)
        return total


@dataclass(frozen=True, eq=False)
class Neighbours:
    """A sub-lattice with those next to it in its rows, in its columns and at its corners."""

    own: Plane
    beside: Plane
    above: Plane
    opposite: Plane


@dataclass(frozen=True, eq=False)
class Mosaic:
    """A Bayer mosaic taken apart: red, green in the red rows, green in the blue rows, blue."""

    red: Plane
    green_r: Plane
    green_b: Plane
    blue: Plane

    @property
    def colours(self) -> tuple[Neighbours, Neighbours]:
        """Red and blue among their neighbours."""
        red, green_r, green_b, blue = self.red, self.green_r, self.green_b, self.blue
        return Neighbours(red, green_r, green_b, blue), Neighbours(blue, green_b, green_r, red)

    @property
    def greens(self) -> tuple[Neighbours, Neighbours]:
        """Green in the red rows and green in the blue rows among their neighbours."""
        red, green_r, green_b, blue = self.red, self.green_r, self.green_b, self.blue
        return Neighbours(green_r, red, blue, green_b), Neighbours(green_b, blue, red, green_r)


def reflected(positions: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Positions outside ``0..size-1`` reflected about the first and the last one; their parity stays."""
    wrapped = positions % (2 * (size - 1))
    return np.where(wrapped < size, wrapped, 2 * (size - 1) - wrapped)


def take_apart(mosaic: Tensor, red: tuple[int, int], margin: int, convert: Convert | None = None) -> Mosaic:
    """The four planes of a Bayer mosaic ``[H,W]`` of 2x2 px or more.

    ``red`` is the row and column parity of the red photosites; ``convert`` makes the contiguous values to work
    with from a strided view of a plane and its colour. Outside the image the mosaic is reflected about its
    first and last photosites, which keeps every photosite's colour, for odd sizes too.
    """
    height, width = mosaic.shape
    rows, columns = (height + 1) // 2, (width + 1) // 2
    y = torch.from_numpy(reflected(np.arange(-margin, 2 * rows + margin), height)).to(mosaic.device)
    x = torch.from_numpy(reflected(np.arange(-margin, 2 * columns + margin), width)).to(mosaic.device)
    bottom, right = margin + height, margin + width
    padded = mosaic.new_empty(2 * (rows + margin), 2 * (columns + margin))
    inside = padded[margin:bottom]
    inside[:, margin:right] = mosaic
    inside[:, :margin] = mosaic[:, x[:margin]]
    inside[:, right:] = mosaic[:, x[right:]]
    padded[:margin] = inside[y[:margin]]
    padded[bottom:] = inside[y[bottom:]]

    def plane(channel: int, row: int, column: int) -> Plane:
        values = padded[(margin + row) % 2 :: 2, (margin + column) % 2 :: 2]
        values = values.contiguous() if convert is None else convert(values, channel)
        return Plane(Sites(channel, row, column, rows, columns, margin, margin), values)

    (row, column), (other_row, other_column) = red, (1 - red[0], 1 - red[1])
    return Mosaic(
        plane(RED, row, column),
        plane(GREEN, row, other_column),
        plane(GREEN, other_row, column),
        plane(BLUE, other_row, other_column),
    )


@dataclass(frozen=True, eq=False)
class Canvas:
    """The picture ``[3,H,W]`` to be filled. Values are given one for each photosite on the image."""

    pixels: Tensor

    def known(self, mosaic: Tensor, red: tuple[int, int]) -> None:
        """Write the values ``[H,W]`` that the sensor measured."""
        row, column = red
        for channel, top, left in ((RED, row, column), (BLUE, 1 - row, 1 - column)):
            self.pixels[channel, top::2, left::2] = mosaic[top::2, left::2]
        for top, left in ((row, 1 - column), (1 - row, column)):
            self.pixels[GREEN, top::2, left::2] = mosaic[top::2, left::2]

    def put(self, channel: int, sites: Sites, values: Tensor, scale: float) -> None:
        """Write ``scale * values``."""
        target = self._target(channel, sites)
        torch.mul(_shown(values, target), scale, out=target)

    def add(self, channel: int, plane: Plane, values: Tensor, scale: float) -> None:
        """Write ``plane + scale * values``."""
        target = self._target(channel, plane.sites)
        base = plane.at(plane.sites.within(0, 0))
        torch.add(_shown(base, target), _shown(values, target), alpha=scale, out=target)

    def _target(self, channel: int, sites: Sites) -> Tensor:
        return self.pixels[channel, sites.row :: 2, sites.column :: 2]


def _shown(values: Tensor, target: Tensor) -> Tensor:
    """The values without the last row or column of cells where an odd size cuts it."""
    return values[: target.shape[0], : target.shape[1]]
