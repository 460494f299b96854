"""Colour filter arrays: those that can be demosaiced, and what the others are called."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from restorekit.errors import InputError
from restorekit.frame import BayerPattern

_BLOCKS: Mapping[int, str] = {2: "quad-Bayer", 3: "nona-Bayer", 4: "hexadeca-Bayer"}
"""Mosaics of square blocks of one colour, by the side of a block."""

_COLOURS: Mapping[str, str] = {"RGBW": "RGBW", "RGBE": "RGBE", "RGBC": "RGBE", "CMYG": "CMYG"}
"""Mosaics of other colours than red, green and blue; DNG has no code for emerald and calls it cyan."""


def check_supported(path: Path, cell: tuple[str, ...]) -> None:
    """Raise InputError, naming the kind of mosaic, for a repeating cell that is neither Bayer nor X-Trans."""
    shape, colours = (len(cell), len(cell[0]) if cell else 0), "".join(cell)
    if shape == (2, 2) and colours in get_args(BayerPattern):
        return
    if shape == (6, 6) and (colours.count("R"), colours.count("G"), colours.count("B")) == (8, 20, 8):
        return
    name = _block_name(cell) or next((said for known, said in _COLOURS.items() if set(colours) == set(known)), "")
    filters = "/".join(cell) or "?"
    what = f"its mosaic is {name} ({filters})" if name else f"its colour filters are {filters}"
    cure = "have the camera write a Bayer or linear DNG" if name in _BLOCKS.values() else "convert it to a linear DNG"
    raise InputError(f"{path}: {what}, supported are Bayer and X-Trans; {cure}")


def _block_name(cell: tuple[str, ...]) -> str:
    """What a Bayer pattern of blocks is called, empty for anything else."""
    side = len(cell) // 2
    if side not in _BLOCKS or any(len(row) != 2 * side for row in cell):
        return ""
    corners = "".join(cell[y][x] for y in (0, side) for x in (0, side))
    whole = all(cell[y][x] == corners[y // side * 2 + x // side] for y in range(2 * side) for x in range(2 * side))
    return _BLOCKS[side] if whole and corners in get_args(BayerPattern) else ""
