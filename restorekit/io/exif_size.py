"""EXIF fields that hold for one size of a picture, and its resolution in print (Exif 3.0, 4.6; TIFF 6.0, 8)."""

from __future__ import annotations

import math
from collections.abc import Mapping

from restorekit.io.tiff import LONG, RATIONAL, Field, Order, Tree

X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
PIXEL_X, PIXEL_Y = 40962, 40963

_PLACES = (37396, 41492)
"""Subject area and location, in pixels of the picture as it was."""

_SENSOR = (41486, 41487, 41488)
"""Pixels on a length of the sensor, and its unit."""

_PER_INCH = {2: 1.0, 3: 2.54}
_SAME_SIZE = 0.02
"""By how much sides may differ: RAW files name the size of their preview, which has a few pixels less."""


def resize(photo: Tree, width: int, height: int, order: Order) -> None:
    """Note the size in an Exif directory, and take out what held for another one."""
    sides = [item.numbers[:1] for tag in (PIXEL_X, PIXEL_Y) if isinstance(item := photo.get(tag), Field)]
    if len(sides) == 2 and all(sides):
        pairs = zip(sorted(side[0] for side in sides), sorted((width, height)), strict=True)
        if any(abs(before - after) > _SAME_SIZE * before for before, after in pairs):
            _take_out(photo, (*_PLACES, *_SENSOR))
    photo[PIXEL_X] = Field.of(LONG, (width,), order)
    photo[PIXEL_Y] = Field.of(LONG, (height,), order)


def turn(photo: Tree) -> None:
    """Take out of an Exif directory what held for the picture as it lay."""
    _take_out(photo, _PLACES)


def require_resolution(tree: Tree) -> None:
    """Take out a resolution in print that is not complete."""
    if pixels_per_inch(tree) is None:
        _take_out(tree, (X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT))


def pixels_per_inch(tree: Mapping[int, Field | Tree] | Mapping[int, Field]) -> tuple[float, float] | None:
    """Horizontal and vertical resolution in print, ``None`` where fields do not tell both, or no unit of length."""
    found: list[float] = []
    for tag in (X_RESOLUTION, Y_RESOLUTION):
        item = tree.get(tag)
        numbers = item.numbers if isinstance(item, Field) and item.kind == RATIONAL else ()
        found += (value for value in numbers[:1] if math.isfinite(value) and value > 0)
    unit = tree.get(RESOLUTION_UNIT)
    scale = _PER_INCH.get(int(unit.numbers[0]) if isinstance(unit, Field) and unit.numbers else 2)
    return None if len(found) < 2 or scale is None else (found[0] * scale, found[1] * scale)


def _take_out(tree: Tree, tags: tuple[int, ...]) -> None:
    for tag in tags:
        tree.pop(tag, None)
