"""Run a network over an image of any size: whole maps band by band (exact), or tile by tile (overlap).

Rows of the result come out top to bottom as they are finished, so that a result larger than memory never exists
whole. Only tiles and bands are on the device; half precision that overflows is done again in full precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from restorekit import device as devices
from restorekit.architectures._bands import Bands
from restorekit.architectures._network import Network
from restorekit.errors import ModelError, RestorekitError
from restorekit.execution import Execution
from restorekit.tiling import Axis, Padding, Tiling, mirrored, ramps

TILE = 768
"""The largest side of a tile that ``auto`` takes: larger ones save no more than a tenth of the pixels."""

CHUNK_BYTES = 24 << 20
"""Memory for the intermediates of a band or chunk on the CPU; more does not run faster."""

BAND_BYTES = 8 << 20
"""Of a finished band of the result."""

WHOLE_BYTES = 64 << 20
"""Images that need no more than this are run at once on the CPU; larger ones run faster in bands."""

MAPS_SHARE = 0.85
"""Of the time that goes into the maps; the rest makes the picture of them. For the progress bar."""

UNKNOWN_MEMORY = 4 << 30
"""Taken to be free where the system does not tell."""

GPU_MEMORY = 2.5
"""Memory of a pixel on a GPU, which runs whole tiles where a CPU runs bands of them; not measured on one yet."""

Crop = Callable[[int, int, int, int], Tensor]
"""``(top, bottom, left, right)`` of the image to float32 ``[C,h,w]`` as the network takes it, on the CPU."""


@dataclass(frozen=True)
class Task:
    """A network, the image it runs over, and how its far sides are mirrored."""

    network: Network
    name: str
    crop: Crop
    height: int
    width: int
    padding: Padding
    dtype: torch.dtype | None

    @property
    def padded(self) -> tuple[int, int]:
        tiling = self.network.tiling
        return tiling.padded(self.height, self.padding), tiling.padded(self.width, self.padding)

    def window(self, top: int, bottom: int, left: int, right: int) -> Tensor:
        """``[C,h,w]`` of the image, mirrored beyond its far sides."""
        if bottom <= self.height and right <= self.width:
            return self.crop(top, bottom, left, right)
        rows = mirrored(top, bottom, self.height, self.padding)
        columns = mirrored(left, right, self.width, self.padding)
        first, start = int(rows.min()), int(columns.min())
        known = self.crop(first, int(rows.max()) + 1, start, int(columns.max()) + 1)
        return known[:, rows - first][:, :, columns - start]


def run_rows(
    network: Network,
    crop: Crop,
    height: int,
    width: int,
    execution: Execution,
    *,
    name: str = "the network",
    padding: Padding = "reflect",
    tested: Sequence[str] = ("fp32", "bf16"),
    fixed: int | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """The picture that a network makes of an image: ``(first row, [C,rows,scale*width] float32 on the CPU)`` in order.

    ``tested`` are the precisions that ``auto`` may choose, ``fixed`` is the side of tiles for a network that looks at
    the whole tile by nature.

    Raises RestorekitError when even the smallest tile does not fit into memory, and ModelError when the result is not
    finite in full precision.
    """
    task = Task(network, name, crop, height, width, padding, _dtype(execution, tested, name))
    way = _first_way(task, execution, fixed)
    done = 0
    while True:
        execution.mode = way.mode
        try:
            made = _tiled(task, execution, way) if way.mode == "tiles" else _exact_rows(task, execution, way.mode)
            for top, rows in made:
                skip = done - top
                if skip < rows.shape[1]:
                    yield max(top, done), rows[:, max(skip, 0) :]
                    done = top + rows.shape[1]
            execution.share(1.0)
            return
        except (MemoryError, RuntimeError) as error:
            if not devices.is_out_of_memory(error):
                raise
        devices.release(execution.device)
        way = _next_way(task, execution, way)


def _dtype(execution: Execution, tested: Sequence[str], name: str) -> torch.dtype | None:
    """The type of mixed precision, None for float32 throughout."""
    wanted = execution.precision
    if wanted == "auto":
        wanted = "fp32"
        if execution.device.type != "cpu" and "bf16" in tested and devices.has_bfloat16(execution.device):
            wanted = "bf16"
    execution.used = wanted
    if wanted == "fp16" and execution.device.type == "cpu":
        execution.note("fp16 is emulated on CPUs and slow; bf16 and fp32 are fast")
    elif wanted not in (*tested, "fp32"):
        execution.note(f"{name} was not tested in {wanted}")
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[wanted]


@dataclass(frozen=True)
class Way:
    """How a task is run: ``whole``, ``exact``, or ``tiles`` of ``side`` px, at most ``batch`` at a time."""

    mode: Literal["whole", "exact", "tiles"]
    side: int = 0
    batch: int = 1


def _first_way(task: Task, execution: Execution, fixed: int | None) -> Way:
    tiling, device = task.network.tiling, execution.device
    height, width = task.padded
    free = execution.memory or devices.free_memory(device) or UNKNOWN_MEMORY
    a_pixel = _memory(task, device)
    if execution.tile == "off":
        return Way("whole")
    if execution.tile != "auto":
        side = execution.tile + (tiling.overlap if tiling.support == "exact" else 0)
        return _in_tiles(task, execution, -(-side // tiling.step) * tiling.step)
    if tiling.support == "approximate":
        return _in_tiles(task, execution, _fitting(fixed or tiling.fixed or TILE, tiling, free // 2 // a_pixel))
    if height * width * a_pixel <= min(WHOLE_BYTES if device.type == "cpu" else free // 2, free // 2):
        return Way("whole")
    host = execution.memory or devices.free_memory(torch.device("cpu")) or UNKNOWN_MEMORY
    if height * width * tiling.maps + tiling.grid * width * a_pixel <= host // 2:
        return Way("exact")
    return _in_tiles(task, execution, _fitting(TILE, tiling, free // 2 // a_pixel))


def _in_tiles(task: Task, execution: Execution, side: int) -> Way:
    """Tiles; on a GPU as many at a time as fit into half of what is free, on a CPU, which gains nothing, one."""
    if execution.device.type == "cpu":
        return Way("tiles", side)
    free = execution.memory or devices.free_memory(execution.device) or 0
    return Way("tiles", side, max(1, free // 2 // (side * side * _memory(task, execution.device))))


def _memory(task: Task, device: torch.device) -> int:
    """Bytes an input pixel while a tile is run."""
    return round(task.network.tiling.memory * (1.0 if device.type == "cpu" else GPU_MEMORY))


def _fitting(side: int, tiling: Tiling, pixels: int) -> int:
    """``side``, halved until a tile has no more than so many pixels, or is the smallest."""
    while side > _least(tiling) and side * side > pixels:
        side = max(side // 2 // tiling.step * tiling.step, _least(tiling))
    return side


def _least(tiling: Tiling) -> int:
    """The side of the smallest tiles: what lies in their overlap is computed again and again."""
    least = max(tiling.minimum, tiling.overlap + max(tiling.overlap, 16) // 2)
    return -(-least // tiling.step) * tiling.step


def _next_way(task: Task, execution: Execution, way: Way) -> Way:
    """What to try after memory ran out: bands, then tiles, one at a time, then of half the side."""
    tiling = task.network.tiling
    if way.mode == "whole" and tiling.support == "exact":
        execution.note(f"{task.name} ran out of memory and went on in bands")
        return Way("exact")
    least, longest = _least(tiling), max(task.padded)
    before = min(way.side, longest) if way.mode == "tiles" else longest
    if way.batch > 1:
        return Way("tiles", way.side, 1)
    if before <= least:
        raise RestorekitError(
            f"{task.name}: out of memory even with tiles of {before} px on {execution.device}; close other programs, "
            "use a smaller model, or --device cpu"
        )
    side = max(min(TILE, before // 2 // tiling.step * tiling.step), least)
    execution.note(f"{task.name} ran out of memory and went on in tiles of {side} px")
    return Way("tiles", side)


def _autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


# exact: whole maps, operators band by band ----------------------------------------------------------------------------


def _exact_rows(task: Task, execution: Execution, mode: str) -> Iterator[tuple[int, Tensor]]:
    """Rows of the whole image's result; in full precision from where half precision overflows."""
    dtype, done = task.dtype, 0
    while True:
        for top, rows in _exact(task, execution, mode, dtype):
            skip = done - top
            if skip >= rows.shape[1]:
                continue
            if not bool(rows.isfinite().all()):
                break
            yield max(top, done), rows[:, max(skip, 0) :]
            done = top + rows.shape[1]
        else:
            return
        _higher(task, execution, dtype)
        dtype = None


def _higher(task: Task, execution: Execution, dtype: torch.dtype | None) -> None:
    """Say that half precision overflowed. Raises ModelError where it was full precision."""
    if dtype is None:
        raise ModelError(
            f"{task.name}: gives values that are not finite even in full precision, so its weights are broken; "
            "get them again"
        )
    short = {torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
    execution.note(f"{task.name} overflowed in {short}; what overflowed was done again in fp32")


def _exact(task: Task, execution: Execution, mode: str, dtype: torch.dtype | None) -> Iterator[tuple[int, Tensor]]:
    network, device, tiling = task.network, execution.device, task.network.tiling
    height, width = task.padded
    budget = CHUNK_BYTES if device.type == "cpu" else max(CHUNK_BYTES, (devices.free_memory(device) or 0) // 4)
    pixels = max(budget // tiling.memory, tiling.grid**2)
    execution.tiles += 1
    maps: Tensor | None = None
    if type(network).features is not Network.features:
        rows = max(tiling.grid, pixels // width) if mode == "exact" else None
        bands = Bands(rows, device, None if execution.tell is None else _progress(task, execution))
        with torch.inference_mode(), _autocast(device, dtype):
            x = task.window(0, height, 0, width)[None].contiguous(memory_format=torch.channels_last)
            resident = mode == "whole" or device.type == "cpu" or _fits(device, height * width * tiling.maps)
            maps = network.features(x.to(device) if resident else x, bands)

    def tail(top: int, bottom: int, left: int, right: int) -> Tensor:
        piece = task.window(top, bottom, left, right)[None] if maps is None else maps[:, :, top:bottom, left:right]
        with torch.inference_mode(), _autocast(device, dtype):
            result = network.tail(piece.to(device).contiguous(memory_format=torch.channels_last))
        return result[0].float().cpu()

    if mode == "whole":
        execution.share(MAPS_SHARE)
        yield 0, tail(0, height, 0, width)[:, : task.height * network.scale, : task.width * network.scale]
        return
    for top, band in _tail_rows(task, tail, pixels):
        share = (top / network.scale + band.shape[1] / network.scale) / task.height
        execution.share(share if maps is None else MAPS_SHARE + (1 - MAPS_SHARE) * share)
        yield top, band


def _progress(task: Task, execution: Execution) -> Callable[[float], None]:
    """Told the finished share of each operator of ``features`` in turn, tells the share of the whole run."""
    begun, operators = 0, _operators(task)

    def tell(share: float) -> None:
        nonlocal begun
        begun += share == 0.0
        execution.share(min((begun - 1 + share) / operators, 1.0) * MAPS_SHARE)

    return tell


def _operators(task: Task) -> int:
    """How many operators a network runs over its maps, counted on the smallest input."""
    tiling, network = task.network.tiling, task.network
    side = tiling.up(max(tiling.minimum, tiling.grid))
    weights = next(network.parameters())
    counted: list[float] = []
    with torch.inference_mode():
        network.features(weights.new_zeros((1, network.in_channels, side, side)), Bands(checkpoint=counted.append))
    return max(len(counted), 1)


def _tail_rows(task: Task, tail: Callable[[int, int, int, int], Tensor], pixels: int) -> Iterator[tuple[int, Tensor]]:
    """Rows of what a local function of areas of the image gives, from chunks of about as many pixels.

    Bands are wide and low, so that little of a large result is held at once.
    """
    (height, width), halo, scale = task.padded, task.network.tail_halo, task.network.scale
    rows = max(min(BAND_BYTES // (task.width * scale**2 * 12), int(pixels**0.5)), 4 * halo, 8)
    columns = max(pixels // (rows + 2 * halo), 4 * halo, 32)
    for top in range(0, task.height, rows):
        bottom = min(top + rows, task.height)
        first, last = max(top - halo, 0), min(bottom + halo, height)
        band: Tensor | None = None
        for left in range(0, task.width, columns):
            right = min(left + columns, task.width)
            start, end = max(left - halo, 0), min(right + halo, width)
            made = tail(first, last, start, end)
            made = made[:, (top - first) * scale : (bottom - first) * scale, (left - start) * scale :]
            if band is None:
                band = made.new_empty((made.shape[0], made.shape[1], task.width * scale))
            band[:, :, left * scale : right * scale] = made[:, :, : (right - left) * scale]
        assert band is not None
        yield top * scale, band


def _fits(device: torch.device, needed: int) -> bool:
    return needed <= (devices.free_memory(device) or 0) // 2


# overlap: equal tiles, blended ----------------------------------------------------------------------------------------


def _tiled(task: Task, execution: Execution, way: Way) -> Iterator[tuple[int, Tensor]]:
    """Rows of tiles, each blended with the one above."""
    tiling, scale = task.network.tiling, task.network.scale
    side = max(way.side, _least(tiling))
    down, across = (tiling.axis(length, side, task.padding) for length in (task.height, task.width))
    columns, rows = ramps(across, tiling.halo, scale), ramps(down, tiling.halo, scale)
    above: Tensor | None = None
    for index, (_, _, fall, _) in enumerate(down.spans(tiling.halo)):
        results = _row_of_tiles(task, execution, down, across, index, way.batch)
        strip = torch.zeros((results[0].shape[0], down.side * scale, task.width * scale))
        for tile, origin, (start, weight) in zip(results, across.origins, columns, strict=True):
            part = tile[:, :, start - origin * scale : start - origin * scale + len(weight)].cpu()
            strip[:, :, start : start + len(weight)] += part.float() * weight
        del results
        start, weight = rows[index]
        strip = strip[:, start - down.origins[index] * scale :][:, : len(weight)] * weight[:, None]
        if above is not None:
            strip[:, : above.shape[1]] += above
        ready = fall * scale - start
        yield start, strip[:, :ready]
        above = strip[:, ready:].clone()


def _row_of_tiles(task: Task, execution: Execution, down: Axis, across: Axis, index: int, batch: int) -> list[Tensor]:
    """The results ``[C,side,side]`` of a row of tiles, on the device, checked once for the whole row."""
    device, top = execution.device, down.origins[index]
    total = len(down.origins) * len(across.origins)

    def inputs(origins: Sequence[int]) -> Tensor:
        tiles = [task.window(top, top + down.side, left, left + across.side) for left in origins]
        return devices.sent(torch.stack(tiles), device).contiguous(memory_format=torch.channels_last)

    def forward(origins: Sequence[int], dtype: torch.dtype | None) -> Tensor:
        with torch.inference_mode(), _autocast(device, dtype):
            result = task.network.picture(inputs(origins))
        execution.tiles += len(origins)
        return result

    results: list[Tensor] = []
    for first in range(0, len(across.origins), batch):
        execution.share((index * len(across.origins) + first) / total)
        results += list(forward(across.origins[first : first + batch], task.dtype))
    finite = torch.stack([result.isfinite().all() for result in results]).cpu()
    for column in [k for k, good in enumerate(finite.tolist()) if not good]:
        _higher(task, execution, task.dtype)
        (results[column],) = forward([across.origins[column]], None)
        if not bool(results[column].isfinite().all()):
            _higher(task, execution, None)
    return results
