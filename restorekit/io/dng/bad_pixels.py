"""Bad photosites that a DNG lists (FixBadPixelsConstant, FixBadPixelsList; DNG 1.7, chapter 7)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from restorekit.io.dng.opcode_kinds import FixBadPixelsConstant, FixBadPixelsList

_STRAIGHT = (((-2, 0), (2, 0)), ((0, -2), (0, 2)))
_GREEN = np.array((((-1, -1), (1, 1)), ((-1, 1), (1, -1)), *_STRAIGHT))
_OTHER = np.array((*_STRAIGHT, ((-2, -2), (2, 2)), ((-2, 2), (2, -2))))
"""Pairs ``[4,2,2]`` of photosites of the same colour on opposite sides of a green one, and of a red or blue one."""


MOST_BAD = 0.05
"""Share of the photosites beyond which a list is not one of defects."""

CHUNK = 1 << 16
"""Photosites that are estimated at a time."""


def bad_share(mosaic: NDArray[Any], operation: FixBadPixelsConstant | FixBadPixelsList) -> float:
    """The share of the photosites of a mosaic ``[H,W]`` that are bad."""
    return float(_marked(mosaic, operation).mean())


def repaired(
    mosaic: NDArray[Any], operation: FixBadPixelsConstant | FixBadPixelsList, green_parity: int
) -> NDArray[Any]:
    """A Bayer mosaic ``[H,W]`` as a file stores it, its bad photosites interpolated from good ones of their colour.

    Each gets the mean of that pair of opposite neighbours which differs least, so that edges go on; where no pair is
    whole, the mean of the good neighbours there are. Clusters are filled from their rim inwards. A mosaic without
    any good photosite of a colour keeps its values. Green are the photosites whose row plus column is even
    (``green_parity`` 0) or odd (1), as the pattern of the file tells: the numbers of the operation's own BayerPhase
    mean something else in the specification than in Adobe's DNG SDK.
    """
    bad = _marked(mosaic, operation)
    left = int(np.count_nonzero(bad))
    if not left:
        return mosaic
    mended = mosaic.copy()
    while left:
        y, x = bad.nonzero()
        green = (y + x) % 2 == green_parity
        for chosen, pairs in ((green, _GREEN), (~green, _OTHER)):
            rows, columns = y[chosen], x[chosen]
            parts = [slice(start, start + CHUNK) for start in range(0, len(rows), CHUNK)]
            values = np.concatenate(
                [np.empty(0), *(_estimates(mended, bad, rows[part], columns[part], pairs) for part in parts)]
            )
            known = np.isfinite(values)
            mended[rows[known], columns[known]] = np.rint(values[known]) if mosaic.dtype.kind == "u" else values[known]
            bad[rows[known], columns[known]] = False
        before, left = left, int(np.count_nonzero(bad))
        if left == before:
            break
    return mended


def _marked(mosaic: NDArray[Any], operation: FixBadPixelsConstant | FixBadPixelsList) -> NDArray[np.bool_]:
    """Which photosites are bad ``[H,W]``; those named outside of the mosaic are left out."""
    if isinstance(operation, FixBadPixelsConstant):
        return np.asarray(mosaic == operation.constant)
    height, width = mosaic.shape
    bad = np.zeros((height, width), bool)
    points = np.array(operation.points, np.int64).reshape(-1, 2)
    inside = ((points >= 0) & (points < (height, width))).all(1)
    bad[points[inside, 0], points[inside, 1]] = True
    for top, left, bottom, right in operation.rectangles:
        bad[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = True
    return bad


def _estimates(
    mosaic: NDArray[Any],
    bad: NDArray[np.bool_],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    pairs: NDArray[np.int64],
) -> NDArray[np.float64]:
    """What the good neighbours of photosites say ``[N]``; NaN for those without any."""
    height, width = mosaic.shape
    y, x = rows[:, None, None] + pairs[..., 0], columns[:, None, None] + pairs[..., 1]
    outside = (y < 0) | (y >= height) | (x < 0) | (x >= width)
    y, x = y.clip(0, height - 1), x.clip(0, width - 1)
    values = mosaic[y, x].astype(np.float64)
    good = ~(outside | bad[y, x])
    differences = np.where(good.all(2), np.abs(values[..., 0] - values[..., 1]), np.inf)
    best = differences.argmin(1)
    across = np.take_along_axis(values.mean(2), best[:, None], 1)[:, 0]
    count = good.sum((1, 2))
    mean = np.where(good, values, 0).sum((1, 2)) / np.where(count, count, np.nan)
    return np.where(np.isfinite(differences.min(1)), across, mean)
