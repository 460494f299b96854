"""Black measured on the masked border of a sensor, where its files keep one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restorekit.facts import Camera

LEAST_PX = 16
"""A border narrower than this is not measured."""

EDGE_PX = 4
"""Photosites next to the image and to the end of the sensor, into which light or electronics leak."""

LARGEST_SHIFT = 0.005
"""A measured level further than this share of the range from the stated one is not black but something else."""


Rectangle = tuple[int, int, int, int]


def measured_black(
    stored: NDArray[Any],
    area: Rectangle,
    stated: NDArray[np.float32],
    white: float,
    masked: Sequence[Rectangle] = (),
) -> NDArray[np.float32] | None:
    """Black levels ``[2,2,1]`` of the CFA cell from the masked photosites of a mosaic ``[H,W]``, or ``None``.

    ``area`` is the image within the sensor, ``masked`` what the file says is masked: top, left, bottom, right.
    Without the latter the widest border beside the image rows is taken. Outliers beyond four times the median
    deviation are left out. The result stands for the stated levels (``[h,w,1]``) only where it is sure to
    be black: within the noise of a photosite and 0.5 % of the range around them. It differs from them in cameras
    whose black moves with temperature or gain.
    """
    if stored.ndim != 2:
        return None
    top, left = area[:2]
    rectangles = [part for part in (_within(each, stored.shape) for each in masked) if part is not None]
    rectangles = rectangles or _border(stored.shape, area)
    levels = np.empty((2, 2, 1), np.float32)
    for y in range(2):
        for x in range(2):
            values = _at_site(stored, rectangles, top + y, left + x)
            if values.size < LEAST_PX * LEAST_PX // 4:
                return None
            middle = float(np.median(values))
            spread = float(np.median(np.abs(values - middle))) * 1.4826
            near = values[np.abs(values - middle) <= 4 * max(spread, 0.5)]
            nominal = float(stated[y % stated.shape[0], x % stated.shape[1], 0])
            levels[y, x] = near.mean()
            if abs(levels[y, x] - nominal) > min(max(spread, 1.0), LARGEST_SHIFT * (white - nominal)):
                return None
    return levels


def _at_site(stored: NDArray[Any], rectangles: Sequence[Rectangle], row: int, column: int) -> NDArray[np.float32]:
    """The values in rectangles at every second row and column, counted from a photosite."""
    parts = [
        stored[top + (row - top) % 2 : bottom : 2, left + (column - left) % 2 : right : 2].ravel()
        for top, left, bottom, right in rectangles
    ]
    return np.concatenate(parts or [np.empty(0)]).astype(np.float32)


def _border(shape: tuple[int, ...], area: Rectangle) -> list[Rectangle]:
    """The widest border beside the rows of the image, without its edges; nothing where it is narrow."""
    top, left, bottom, right = area
    width, first, last = max((left, 0, left), (shape[1] - right, right, shape[1]))
    if width < LEAST_PX + 2 * EDGE_PX or bottom - top < LEAST_PX:
        return []
    return [(top, first + EDGE_PX, bottom, last - EDGE_PX)]


def _within(rectangle: Rectangle, shape: tuple[int, ...]) -> Rectangle | None:
    """The part of a rectangle that lies on the sensor."""
    top, left, bottom, right = rectangle
    top, left, bottom, right = max(top, 0), max(left, 0), min(bottom, shape[0]), min(right, shape[1])
    return (top, left, bottom, right) if top < bottom and left < right else None


def with_measured_black(camera: Camera, stored: NDArray[Any], area: Rectangle, masked: Sequence[int] = ()) -> Camera:
    """The camera of a Bayer mosaic with black as its masked photosites show it, where there are some.

    ``masked`` are four numbers for each rectangle of them, as the DNG tag MaskedAreas has them. Cameras that state
    black by row and column, or for more photosites than those of their cell, are left alone.
    """
    if len(camera.cfa) != 2 or camera.black is None or camera.white is None or max(camera.black.shape[:2]) > 2:
        return camera
    if camera.black_rows is not None or camera.black_columns is not None:
        return camera
    named = list(zip(masked[::4], masked[1::4], masked[2::4], masked[3::4], strict=False))
    measured = measured_black(stored, area, camera.black, float(camera.white[0]), named)
    return camera if measured is None else replace(camera, black=measured)
