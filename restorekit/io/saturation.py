"""Where a sensor really saturates, when its files state a level that it never reaches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LOWEST = 0.75
"""Share of the stated range below which a pile of values is taken for part of the scene."""

WIDTH = 0.02
"""Width of a pile: saturated photosites differ by less than this share of their level."""


def saturation_level(mosaic: NDArray[np.uint16], cell: Sequence[str], white: float) -> float:
    """The level at which the photosites of a Bayer mosaic ``[H,W]`` pile up, at most the stated white level.

    A pile is the highest values of a colour within 2 %, at least 0.01 % of its photosites, and five times as
    many as in the 2 % below. It is saturation only where at least two colours pile up at one level, which surfaces in
    a scene do not; else the stated level stands. Some cameras state the range of their converter instead (dcraw and
    LibRaw correct for it in a similar way).
    """
    found: dict[str, float] = {}
    for y, row in enumerate(cell):
        for x, colour in enumerate(row):
            level = _pile(mosaic[y::2, x::2], white)
            if level is not None:
                found[colour] = min(level, found.get(colour, level))
    if len(found) < 2 or max(found.values()) > (1 + WIDTH / 2) * min(found.values()):
        return white
    return min(white, min(found.values()))


def _pile(values: NDArray[Any], white: float) -> float | None:
    """The middle of the pile of the largest values of one colour, if there is one."""
    top = float(values.max(initial=0))
    if not LOWEST * white < top < white:
        return None
    upper = values[values >= top * (1 - 2 * WIDTH)]
    pile = upper[upper >= top * (1 - WIDTH)]
    enough = pile.size >= max(16, 1e-4 * values.size) and pile.size >= 5 * (upper.size - pile.size)
    return float(np.median(pile)) if enough else None
