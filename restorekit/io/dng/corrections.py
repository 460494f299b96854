"""DNG opcodes that change values but not places: maps, gains and offsets (DNG 1.7, chapter 7).

Where the specification leaves something open, Adobe's DNG SDK is followed: pixel centres lie at halves, grids end with
their last gains, and what lies below black is mapped as its mirror image. Unlike there nothing is clipped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restorekit.frame import Region
from restorekit.io.dng.opcode_kinds import (
    Area,
    DeltaPerColumn,
    DeltaPerRow,
    FixVignetteRadial,
    GainMap,
    MapPolynomial,
    MapTable,
    Operation,
    ScalePerColumn,
    ScalePerRow,
)

TABLE_RANGE = 65535.0
"""The number that stands for 1 in the tables of the second and third list."""


def is_correction(operation: Operation) -> bool:
    """Whether :func:`correct` knows an operation."""
    return isinstance(operation, MapTable) or type(operation) in _APPLY


def correct(
    pixels: Tensor, operations: Sequence[Operation], region: Region, *, table_range: float = TABLE_RANGE
) -> None:
    """Apply operations to float32 ``[C,h,W]`` in place; nothing is clipped, and other operations are left out.

    Values are linear with black 0 and white 1 (the second list), or stored numbers (the first list) with a
    ``table_range`` of 1. ``region`` tells where the rows lie in their image.
    """
    for operation in operations:
        if isinstance(operation, MapTable):
            _map_table(pixels, operation, region, table_range)
        elif type(operation) in _APPLY:
            _APPLY[type(operation)](pixels, operation, region)


@dataclass(frozen=True)
class _Part:
    """The pixels of an area that lie in a strip: its corner, planes, and rows and columns of the image."""

    corner: tuple[int, int]
    planes: range
    rows: range
    columns: range
    values: Tensor


def _part(pixels: Tensor, area: Area, region: Region) -> _Part | None:
    channels, height, width = pixels.shape
    top, left, bottom, right = area.rectangle(region.full_height, width)
    rows = range(_aligned(top, area.row_pitch, region.top), min(bottom, region.top + height), area.row_pitch)
    columns = range(_aligned(left, area.column_pitch, 0), right, area.column_pitch)
    planes = range(area.plane, min(area.plane + area.planes, channels))
    if not (len(rows) and len(columns) and len(planes)):
        return None
    values = pixels[
        planes.start : planes.stop,
        rows.start - region.top : rows.stop - region.top : rows.step,
        columns.start : columns.stop : columns.step,
    ]
    return _Part((top, left), planes, rows, columns, values)


def _aligned(start: int, pitch: int, least: int) -> int:
    """The first of ``start, start + pitch, ...`` that is not below a number."""
    return start + -(-max(least - start, 0) // pitch) * pitch


def _gain_map(pixels: Tensor, operation: GainMap, region: Region) -> None:
    part = _part(pixels, operation.area, region)
    if part is None:
        return
    weights = torch.from_numpy(_weights(operation, 0, part.rows, region.full_height)).to(pixels)
    across = torch.from_numpy(_across(operation, part.columns, pixels.shape[2])).to(pixels)
    for index, plane in enumerate(part.planes):
        part.values[index].mul_(weights @ across[min(plane, len(across) - 1)])


def _weights(operation: GainMap, axis: int, places: range, size: int) -> NDArray[np.float32]:
    """How much each point of a grid's axis counts for pixels along it ``[pixels, points]``: linear interpolation."""
    points = operation.gains.shape[axis]
    weights = np.zeros((len(places), points), np.float32)
    if points == 1:
        weights[:] = 1
        return weights
    centres = (np.arange(places.start, places.stop, places.step) + 0.5) / size
    position = ((centres - operation.origin[axis]) / operation.spacing[axis]).clip(0, points - 1)
    before = np.minimum(position.astype(np.int64), points - 2)
    share, every = (position - before).astype(np.float32), np.arange(len(places))
    weights[every, before], weights[every, before + 1] = 1 - share, share
    return weights


@lru_cache(maxsize=16)
def _across(operation: GainMap, columns: range, width: int) -> NDArray[np.float32]:
    """The gains of every row of the grid at columns of the image ``[P,V,columns]``, the same for every region."""
    gains = operation.gains.transpose(2, 0, 1) @ _weights(operation, 1, columns, width).T
    return np.ascontiguousarray(gains, np.float32)


def _vignette(pixels: Tensor, operation: FixVignetteRadial, region: Region) -> None:
    """The gain depends on the squared distance from the optical centre, 1 at the farthest corner of the image."""
    _, height, width = pixels.shape
    y = region.top + 0.5 + torch.arange(height, dtype=torch.float64) - operation.center_y * region.full_height
    x = 0.5 + torch.arange(width, dtype=torch.float64) - operation.center_x * width
    centres = (operation.center_y, region.full_height), (operation.center_x, width)
    scale = 1 / sum((max(centre, 1 - centre) * size) ** 2 for centre, size in centres)
    squared = (y.square() * scale).to(pixels)[:, None] + (x.square() * scale).to(pixels)
    gain = torch.zeros_like(squared)
    for coefficient in reversed(operation.coefficients):
        gain.add_(coefficient).mul_(squared)
    pixels.mul_(gain.add_(1))


def _map_table(pixels: Tensor, operation: MapTable, region: Region, table_range: float) -> None:
    part = _part(pixels, operation.area, region)
    if part is None:
        return
    table = torch.from_numpy(operation.table.astype(np.float32)).to(pixels)
    magnitude = part.values.abs().mul_(table_range).clamp_(max=len(table) - 1)
    before = magnitude.long().clamp_(max=max(len(table) - 2, 0))
    after = (before + 1).clamp_(max=len(table) - 1)
    mapped = torch.lerp(table[before], table[after], magnitude.sub_(before)).sub_(table[0])
    part.values.copy_(torch.where(part.values < 0, -mapped, mapped).add_(table[0]).mul_(1 / table_range))


def _map_polynomial(pixels: Tensor, operation: MapPolynomial, region: Region) -> None:
    part = _part(pixels, operation.area, region)
    if part is None:
        return
    constant, *higher = operation.coefficients
    magnitude = part.values.abs()
    mapped = torch.zeros_like(magnitude)
    for coefficient in reversed(higher):
        mapped.add_(coefficient).mul_(magnitude)
    part.values.copy_(torch.where(part.values < 0, -mapped, mapped).add_(constant))


def _per_line(
    pixels: Tensor, operation: DeltaPerRow | DeltaPerColumn | ScalePerRow | ScalePerColumn, region: Region
) -> None:
    """A number for each line of the area, in the order of its lines; lines beyond the numbers stay as they are."""
    part = _part(pixels, operation.area, region)
    if part is None:
        return
    by_row = isinstance(operation, DeltaPerRow | ScalePerRow)
    lines, start = (part.rows, part.corner[0]) if by_row else (part.columns, part.corner[1])
    first = (lines.start - start) // lines.step
    numbers = torch.from_numpy(operation.numbers[first : first + len(lines)]).to(pixels)
    values = part.values[:, : len(numbers)] if by_row else part.values[:, :, : len(numbers)]
    numbers = numbers[:, None] if by_row else numbers
    if isinstance(operation, DeltaPerRow | DeltaPerColumn):
        values.add_(numbers)
    else:
        values.mul_(numbers)


_APPLY: dict[type[Operation], Callable[[Tensor, Any, Region], None]] = {
    GainMap: _gain_map,
    FixVignetteRadial: _vignette,
    MapPolynomial: _map_polynomial,
    DeltaPerRow: _per_line,
    DeltaPerColumn: _per_line,
    ScalePerRow: _per_line,
    ScalePerColumn: _per_line,
}


def lowest_clip_level(level: float, operations: Sequence[Operation]) -> float:
    """The lowest value at which a pixel may be clipped after operations, when before them it was at ``level``.

    Never above ``level``, since areas may leave pixels out. Gain maps that share out the photosites of a mosaic among
    them count once.
    """
    shared = 1.0
    for operation in operations:
        if isinstance(operation, GainMap) and operation.area.row_pitch * operation.area.column_pitch > 1:
            shared = min(shared, float(operation.gains.min()))
        elif isinstance(operation, DeltaPerRow | DeltaPerColumn):
            level += float(operation.numbers.min(initial=0))
        elif isinstance(operation, GainMap | ScalePerRow | ScalePerColumn):
            gains = operation.gains if isinstance(operation, GainMap) else operation.numbers
            level *= float(gains.min(initial=1))
        elif isinstance(operation, FixVignetteRadial):
            squared = np.linspace(0.0, 1.0, 257)
            level *= float(np.polynomial.polynomial.polyval(squared, (1.0, *operation.coefficients)).min())
        elif isinstance(operation, MapPolynomial | MapTable):
            mapped = torch.full((1, 1, 1), level)
            correct(mapped, (replace(operation, area=Area()),), Region(0, 1))
            level = min(level, float(mapped))
    return level * shared
