"""Black measured on the masked border of a sensor, where its files keep one."""

from __future__ import annotations

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


def measured_black(
    stored: NDArray[Any], area: tuple[int, int, int, int], stated: NDArray[np.float32], white: float
) -> NDArray[np.float32] | None:
    """Black levels ``[2,2,1]`` of the CFA cell from the masked border of a mosaic ``[H,W]``, or ``None``.

    ``area`` is the image within the sensor: top, left, bottom, right. The widest border beside the image rows is
    taken, outliers beyond four times the median deviation left out. The result stands for the stated levels
    (``[h,w,1]``) only where it is sure to be black: within the noise of a photosite and 0.5 % of the
    range around them. It differs from them in cameras whose black moves with temperature or gain.
    """
    top, left, bottom, right = area
    sides = (left, 0, left), (stored.shape[1] - right, right, stored.shape[1])
    width, first, last = max(sides)
    if width < LEAST_PX + 2 * EDGE_PX or bottom - top < LEAST_PX or stored.ndim != 2:
        return None
    first += EDGE_PX + (first + EDGE_PX - left) % 2
    border = stored[top:bottom, first : last - EDGE_PX].astype(np.float32)
    levels = np.empty((2, 2, 1), np.float32)
    for y in range(2):
        for x in range(2):
            values = border[y::2, x::2]
            middle = float(np.median(values))
            spread = float(np.median(np.abs(values - middle))) * 1.4826
            near = values[np.abs(values - middle) <= 4 * max(spread, 0.5)]
            nominal = float(stated[y % stated.shape[0], x % stated.shape[1], 0])
            levels[y, x] = near.mean()
            if abs(levels[y, x] - nominal) > min(max(spread, 1.0), LARGEST_SHIFT * (white - nominal)):
                return None
    return levels


def with_measured_black(camera: Camera, stored: NDArray[Any], area: tuple[int, int, int, int]) -> Camera:
    """The camera of a Bayer mosaic with black as its masked border shows it, where there is one."""
    if len(camera.cfa) != 2 or camera.black is None or camera.white is None:
        return camera
    measured = measured_black(stored, area, camera.black, float(camera.white[0]))
    return camera if measured is None else replace(camera, black=measured)
