"""Cut an image into equal tiles on a network's grid, and put the results together without a seam.

Origins and sides of tiles are multiples of the grid, always: a window-attention network whose tile begins elsewhere
computes another function. What is missing at the far sides is mirrored, so that the grid begins at the first pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import lcm
from typing import Literal

import torch
from torch import Tensor

Padding = Literal["reflect", "flip"]

RAMP = 16
"""Input px over which neighbouring tiles are blended, at least."""


@dataclass(frozen=True)
class Tiling:
    """How a network may be cut into tiles.

    ``support``: ``exact`` where it can run over whole maps band by band (all but its global averages is local),
    ``approximate`` where it looks at the whole tile by nature and is run at a fixed tile size.
    ``grid``: sides and origins of tiles are multiples of it. ``phase``: origins are multiples of it too, where the
    network fills its windows itself and takes other sides as well. ``halo``: input px around a tile's core that bring
    the core within 70 dB of the whole image. ``minimum``: the smallest side of a tile.
    ``fixed``: the side, in px, at which an ``approximate`` network is run.
    ``memory``: measured peak bytes an input pixel while a float32 tile is run, ``maps``: the same for what stays
    allocated between bands in exact mode.
    """

    support: Literal["exact", "approximate"]
    grid: int = 1
    halo: int = 0
    minimum: int = 1
    fixed: int | None = None
    memory: int = 4096
    maps: int = 1024
    phase: int = 1

    def up(self, pixels: int) -> int:
        """The next multiple of the grid."""
        return -(-pixels // self.grid) * self.grid

    def padded(self, length: int, padding: Padding = "reflect") -> int:
        """The side of the image with what is added at the far side: up to the grid; ``flip`` always adds something."""
        if padding == "flip":
            return max((length // self.grid + 1) * self.grid, self.up(self.minimum))
        return max(self.up(length), self.up(self.minimum))

    @property
    def step(self) -> int:
        """What origins of tiles are multiples of."""
        return lcm(self.grid, self.phase)

    @property
    def overlap(self) -> int:
        """The px that neighbouring tiles share: a halo for each, and the ramp between them."""
        return -(-(2 * self.halo + (RAMP if self.halo else 0)) // self.step) * self.step

    def axis(self, length: int, side: int, padding: Padding = "reflect") -> Axis:
        """Tiles of at most ``side`` px over an image; of just ``side`` for a network that sees the whole tile."""
        padded = self.padded(length, padding)
        if padded <= side:
            return Axis(length, padded, (0,))
        padded = -(-padded // self.step) * self.step
        if self.support == "approximate":
            return fixed_plan(length, padded, side, self.overlap, self.step)
        axis = plan(length, padded, side, self.overlap, self.step)
        return axis if axis.side >= self.minimum else plan(length, padded, self.minimum, self.overlap, self.step)


@dataclass(frozen=True)
class Axis:
    """Tiles along one axis: ``side`` px each, at ``origins``. ``length`` is the image's, without what is padded."""

    length: int
    side: int
    origins: tuple[int, ...]

    def spans(self, halo: int) -> Iterator[tuple[int, int, int, int]]:
        """For each tile, the px where its weight rises from 0 to 1 and falls again: ``(rise, full, fall, end)``.

        Neighbours add up to 1; within ``halo`` of a tile's cut side it does not count.
        """
        ramps = [(0, 0)]
        steps = [right - left for left, right in pairwise(self.origins)]
        for right, step in zip(self.origins[1:], steps, strict=True):
            room = self.side - step
            width = min(max(room - 2 * halo, 0), min(steps))
            start = right + (room - width) // 2
            ramps.append((start, start + width))
        ramps.append((self.length, self.length))
        for (rise, full), (fall, end) in pairwise(ramps):
            yield rise, full, fall, end


def plan(length: int, padded: int, side: int, overlap: int, grid: int) -> Axis:
    """Equal tiles of at most ``side`` px over ``padded`` px, sharing at least ``overlap``; all multiples of the grid.

    The tiles shrink to what the image needs. ``side`` is raised where it would leave no room beside the overlap.
    """
    side = max(side // grid * grid, overlap + grid)
    if padded <= side:
        return Axis(length, padded, (0,))
    count = -(-(padded - overlap) // (side - overlap))
    side = -(-(padded + (count - 1) * overlap) // count // grid) * grid
    steps = (padded - side) // grid
    return Axis(length, side, tuple(index * steps // (count - 1) * grid for index in range(count)))


def fixed_plan(length: int, padded: int, side: int, overlap: int, grid: int) -> Axis:
    """As ``plan``, with tiles of just this side where the image is larger."""
    if padded <= side:
        return Axis(length, padded, (0,))
    count = -(-(padded - overlap) // (side - overlap))
    steps = (padded - side) // grid
    return Axis(length, side, tuple(index * steps // (count - 1) * grid for index in range(count)))


def ramps(axis: Axis, halo: int, scale: int) -> list[tuple[int, Tensor]]:
    """The weight of each tile along an axis of the output: its first output px, and weights of 0..1 from there."""
    found = []
    last = len(axis.origins) - 1
    for index, span in enumerate(axis.spans(halo)):
        rise, full, fall, end = (scale * px for px in span)
        positions = torch.arange(rise, end, dtype=torch.float32) + 0.5
        weights = torch.ones(end - rise)
        if full > rise and index > 0:
            weights = torch.minimum(weights, (positions - rise) / (full - rise))
        if end > fall and index < last:
            weights = torch.minimum(weights, (end - positions) / (end - fall))
        found.append((rise, weights))
    return found


def mirrored(first: int, last: int, length: int, padding: Padding) -> Tensor:
    """The pixels that stand at positions ``first..last`` of an axis of ``length`` px mirrored on and on.

    ``reflect`` does not repeat the edge pixel, ``flip`` does.
    """
    positions = torch.arange(first, last)
    if length == 1:
        return torch.zeros_like(positions)
    if padding == "flip":
        folded = positions % (2 * length)
        return torch.minimum(folded, 2 * length - 1 - folded)
    folded = positions % (2 * length - 2)
    return torch.minimum(folded, 2 * length - 2 - folded)
