"""Patches of one picture found again in another, to a fraction of a pixel, whatever the exposures.

Works on 8-bit gray views with a mask of what is well exposed. Patches are compared up to gain and offset.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from restorekit.facts import Matrix
from restorekit.stages.pose import Matches, Points, projected

Gray = NDArray[np.uint8]

GRID = (12, 16)
"""Rows and columns of cells, each of which gives at most one patch."""

PATCH_PX, LEAST_PATCH_PX, SMOOTHING_PX, ITERATIONS = 80, 16, 1.0, 8
"""Patches of small pictures are a quarter of their shorter side, so that they tell apart what turns."""

LEAST_CORRELATION, LEAST_USABLE = 0.6, 0.35
LOWEST_CODE, HIGHEST_CODE = 2, 250
"""Codes of well exposed pixels; brighter ones may be clipped in all channels."""


@dataclass(frozen=True, eq=False)
class View:
    """What matching sees of a picture: ``gray`` uint8 ``[H,W]``, ``usable`` uint8 ``[H,W]``, 255 where it is well
    exposed."""

    gray: Gray
    usable: Gray
    _reduced: dict[int, View] = field(default_factory=dict, repr=False)

    def reduced(self, factor: int) -> View:
        """This view at a ``factor``-th of its size; usable where all pixels are. Kept for the next time."""
        if factor == 1:
            return self
        if factor in self._reduced:
            return self._reduced[factor]
        height, width = self.gray.shape
        size = max(1, width // factor), max(1, height // factor)
        area = (slice(0, size[1] * factor), slice(0, size[0] * factor)) if min(height, width) >= factor else (...,)
        gray = cv2.resize(self.gray[area], size, interpolation=cv2.INTER_AREA)
        share = cv2.resize(self.usable[area], size, interpolation=cv2.INTER_AREA)
        found = View(gray.astype(np.uint8), np.where(share > 250, np.uint8(255), np.uint8(0)))
        self._reduced[factor] = found
        return found


def view_of_codes(codes: NDArray[np.uint8]) -> View:
    """A view of an encoded picture, uint8 ``[H,W,3]`` or ``[H,W]``."""
    gray = cv2.cvtColor(codes, cv2.COLOR_RGB2GRAY) if codes.ndim == 3 else codes
    usable = cv2.inRange(gray, (LOWEST_CODE,), (HIGHEST_CODE,))
    return View(np.asarray(gray, dtype=np.uint8), np.asarray(usable, dtype=np.uint8))


def good_places(fixed: View, moving: View, matrix: Matrix) -> Points:
    """At most one place ``[N,2]`` a cell of the grid where both views have corners, at small size."""
    height, width = fixed.gray.shape
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpPerspective(moving.gray, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    usable = cv2.warpPerspective(moving.usable, matrix, (width, height), flags=flags)
    usable = cv2.erode(cv2.min(usable, fixed.usable), np.ones((5, 5), np.uint8), borderValue=0)
    strength = np.minimum(cv2.cornerMinEigenVal(fixed.gray, 7, ksize=3), cv2.cornerMinEigenVal(warped, 7, ksize=3))
    strength[usable < 255] = 0
    rows, columns = min(GRID[0], max(1, height // 8)), min(GRID[1], max(1, width // 8))
    found = []
    for top, bottom in zip(*_edges(height, rows), strict=True):
        for left, right in zip(*_edges(width, columns), strict=True):
            cell = strength[top:bottom, left:right]
            y, x = np.unravel_index(int(cell.argmax()), cell.shape)
            if cell[y, x] > 1e-6:
                found.append((left + x, top + y))
    return np.array(found, dtype=np.float64).reshape(-1, 2)


def _edges(length: int, count: int) -> tuple[list[int], list[int]]:
    edges = [length * index // count for index in range(count + 1)]
    return edges[:-1], edges[1:]


def matched(fixed: View, moving: View, matrix: Matrix, points: Points) -> Matches:
    found = [_match(fixed, moving, matrix, point) for point in points]
    kept = [(point, *match) for point, match in zip(points, found, strict=True) if match is not None]
    return Matches(
        np.array([row[0] for row in kept]).reshape(-1, 2),
        np.array([row[1] for row in kept]).reshape(-1, 2),
        np.array([row[2] for row in kept]),
    )


@cache
def _window(side: int) -> NDArray[np.float32]:
    """The weight of a patch's pixels, ``[side,side]``."""
    slope = np.hanning(side + 2)[1:-1]
    return np.outer(slope, slope).astype(np.float32)


def _match(fixed: View, moving: View, matrix: Matrix, point: Points) -> tuple[Points, float] | None:
    """Where the patch around a place lies in the moving picture, and how precisely, in 1/px^2."""
    height, width = fixed.gray.shape
    side = min(PATCH_PX, max(min(height, width) // 4, LEAST_PATCH_PX), height, width)
    left, top = (int(v) for v in np.clip(np.rint(point) - side // 2, 0, (width - side, height - side)))
    here = (slice(top, top + side), slice(left, left + side))
    template = cv2.GaussianBlur(fixed.gray[here].astype(np.float32), (0, 0), SMOOTHING_PX)
    valid = cv2.erode(fixed.usable[here], np.ones((3, 3), np.uint8))
    window = _window(side)
    corner = projected(matrix, np.array([[left, top], [left + side, top + side]], dtype=np.float64))
    low = np.floor(corner.min(0)).astype(int) - 12
    high = np.ceil(corner.max(0)).astype(int) + 12
    if (high < 8).any() or (low > (width - 8, height - 8)).any():
        return None
    x0, y0 = np.maximum(low, 0)
    x1, y1 = np.minimum(high, (width, height))
    if x1 - x0 < 8 or y1 - y0 < 8:
        return None
    area = (slice(y0, y1), slice(x0, x1))
    source = cv2.GaussianBlur(moving.gray[area].astype(np.float32), (0, 0), SMOOTHING_PX)
    usable = cv2.erode(moving.usable[area], np.ones((3, 3), np.uint8))
    inside = bool((low >= 0).all() and (high <= (width, height)).all())
    whole = inside and bool((usable == 255).all() and (valid == 255).all())
    to_area = np.array([[1, 0, -x0], [0, 1, -y0], [0, 0, 1]], dtype=np.float64) @ matrix
    shift = np.zeros(2)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for _ in range(ITERATIONS):
        place = to_area @ np.array([[1, 0, left + shift[0]], [0, 1, top + shift[1]], [0, 0, 1]])
        warped = cv2.warpPerspective(source, place, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        weight = window
        if not whole:
            good = cv2.warpPerspective(usable, place, (side, side), flags=flags, borderValue=0)
            weight = window * ((good == 255) & (valid == 255))
        total = float(weight.sum())
        if total < LEAST_USABLE * float(window.sum()):
            return None
        a, b = (plane - float((weight * plane).sum()) / total for plane in (template, warped))
        wb = weight * b
        aa, bb, ab = float((weight * a * a).sum()), float((wb * b).sum()), float((wb * a).sum())
        if ab <= LEAST_CORRELATION**2 * np.sqrt(aa * bb) or bb <= 1e-6:
            return None
        gain = float(np.sqrt(aa / bb))
        mixed = 0.5 * (template + gain * warped)
        gx, gy = (cv2.Sobel(mixed, cv2.CV_32F, *order, ksize=3, scale=0.125) for order in ((1, 0), (0, 1)))
        error = a - gain * b
        wx, wy = weight * gx, weight * gy
        normal = np.array([[(wx * gx).sum(), (wx * gy).sum()], [(wx * gy).sum(), (wy * gy).sum()]], dtype=np.float64)
        if np.linalg.det(normal) <= 1e-6 * np.trace(normal) ** 2 or np.trace(normal) <= 0:
            return None
        step = np.linalg.solve(normal, np.array([(wx * error).sum(), (wy * error).sum()], dtype=np.float64))
        shift += np.clip(step, -2, 2)
        if np.abs(shift).max() > 10:
            return None
        if np.abs(step).max() < 0.005:
            break
    if ab < LEAST_CORRELATION * np.sqrt(aa * bb):
        return None
    noise = float((weight * error * error).sum()) / total + 0.05
    middle = np.array([[left + (side - 1) / 2, top + (side - 1) / 2]])
    target = projected(matrix, middle + shift)[0] + (projected(matrix, point[None])[0] - projected(matrix, middle)[0])
    return target, float(np.linalg.eigvalsh(normal)[0] / noise)
