"""Run a network over an image of any size: whole maps band by band (exact), or tile by tile (overlap).

Rows of the result come out top to bottom as they are finished, so that a result larger than memory never exists
whole. Only tiles and bands are on the device; half precision that overflows is done again in full precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from restorekit import device as devices
from restorekit.architectures._bands import WHOLE, Bands
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

Crop = Callable[[int, int, int, int], Tensor]
"""``(top, bottom, left, right)`` of the image to float32 ``[C,h,w]`` as the network takes it, on the CPU."""


@dataclass(frozen=True)
class Job:
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
    job = Job(network, name, crop, height, width, padding, _dtype(execution, tested))
    mode, side = _mode(job, execution, fixed)
    execution.mode = mode
    done = 0
    while True:
        try:
            maker = _exact_rows(job, execution, mode) if mode in ("whole", "exact") else _tiled(job, execution, side)
            for top, rows in maker:
                skip = done - top
                if skip < rows.shape[1]:
                    yield max(top, done), rows[:, max(skip, 0) :]
                    done = top + rows.shape[1]
                    if mode != "tiles":
                        execution.share(done / (height * network.scale))
            execution.share(1.0)
            return
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not devices.is_out_of_memory(error):
                raise
        devices.release(execution.device)
        mode, side = _smaller(job, execution, mode, side)
        execution.mode = mode


def _dtype(execution: Execution, tested: Sequence[str]) -> torch.dtype | None:
    """The type of mixed precision, None for float32 throughout."""
    wanted = execution.precision
    if wanted == "auto":
        wanted = "fp32"
        if execution.device.type != "cpu" and "bf16" in tested and devices.has_bfloat16(execution.device):
            wanted = "bf16"
    execution.used = wanted
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[wanted]


def _mode(job: Job, execution: Execution, fixed: int | None) -> tuple[str, int]:
    """``whole``, ``exact`` or ``tiles`` with their side."""
    tiling = job.network.tiling
    height, width = job.padded
    free = execution.memory or devices.free_memory(execution.device) or 4 << 30
    if execution.tile == "off":
        return "whole", 0
    if execution.tile != "auto":
        wanted = execution.tile + (tiling.overlap if tiling.support == "exact" else 0)
        return "tiles", -(-wanted // tiling.step) * tiling.step
    if tiling.support == "approximate":
        side = fixed or tiling.fixed or TILE
        return "tiles", _fitting(side, tiling, free)
    whole = height * width * tiling.memory
    if whole <= min(WHOLE_BYTES if execution.device.type == "cpu" else free, free):
        return "whole", 0
    band = max(tiling.grid, 1) * width * tiling.memory
    host = execution.memory or devices.free_memory(torch.device("cpu")) or 4 << 30
    if height * width * tiling.maps + band <= host // 2:
        return "exact", 0
    return "tiles", _fitting(TILE, tiling, free)


def _fitting(side: int, tiling: Tiling, free: int) -> int:
    """``side``, halved until a tile fits into half of what is free, or is the smallest."""
    while side > _least(tiling) and side * side * tiling.memory > free // 2:
        side = max(side // 2 // tiling.step * tiling.step, _least(tiling))
    return side


def _least(tiling: Tiling) -> int:
    """The side of the smallest tiles: what lies in their overlap is computed again and again."""
    least = max(tiling.minimum, tiling.overlap + max(tiling.overlap, 16) // 2)
    return -(-least // tiling.step) * tiling.step


def _smaller(job: Job, execution: Execution, mode: str, side: int) -> tuple[str, int]:
    """What to try after memory ran out: tiles, then tiles of half the side."""
    tiling = job.network.tiling
    least, longest = _least(tiling), max(job.padded)
    before = longest if mode in ("whole", "exact") else min(side, longest)
    if before <= least:
        raise RestorekitError(
            f"{job.name}: out of memory even with tiles of {before} px on {execution.device}; close other programs, "
            "use a smaller model, or --device cpu"
        )
    side = max(min(TILE, before // 2 // tiling.step * tiling.step), least)
    execution.note(f"{job.name} ran out of memory and went on in tiles of {side} px")
    return "tiles", side


def _autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


# exact: whole maps, operators band by band ----------------------------------------------------------------------------


def _exact_rows(job: Job, execution: Execution, mode: str) -> Iterator[tuple[int, Tensor]]:
    """Rows of the whole image's result; in full precision from where half precision overflows."""
    dtype, done = job.dtype, 0
    while True:
        for top, rows in _exact(job, execution, mode, dtype):
            skip = done - top
            if skip >= rows.shape[1]:
                continue
            if not bool(rows.isfinite().all()):
                break
            yield max(top, done), rows[:, max(skip, 0) :]
            done = top + rows.shape[1]
        else:
            return
        _higher(job, execution, dtype)
        dtype = None


def _higher(job: Job, execution: Execution, dtype: torch.dtype | None) -> None:
    """Say that half precision overflowed. Raises ModelError where it was full precision."""
    if dtype is None:
        raise ModelError(f"{job.name}: gives values that are not finite even in full precision; its weights are broken")
    short = {torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
    execution.note(f"{job.name} overflowed in {short}; what overflowed was done again in fp32")


def _exact(job: Job, execution: Execution, mode: str, dtype: torch.dtype | None) -> Iterator[tuple[int, Tensor]]:
    network, device, tiling = job.network, execution.device, job.network.tiling
    height, width = job.padded
    budget = CHUNK_BYTES if device.type == "cpu" else max(CHUNK_BYTES, (devices.free_memory(device) or 0) // 4)
    pixels = max(budget // tiling.memory, tiling.grid**2)
    execution.tiles += 1
    maps: Tensor | None = None
    if type(network).features is not Network.features:
        bands = WHOLE
        if mode == "exact":
            bands = Bands(max(tiling.grid, pixels // width), device, lambda: execution.share(0.0))
        with torch.inference_mode(), _autocast(device, dtype):
            x = job.window(0, height, 0, width)[None]
            resident = mode == "whole" or device.type == "cpu" or _fits(device, height * width * tiling.maps)
            maps = network.features(x.to(device) if resident else x, bands)

    def tail(top: int, bottom: int, left: int, right: int) -> Tensor:
        piece = job.window(top, bottom, left, right)[None] if maps is None else maps[:, :, top:bottom, left:right]
        with torch.inference_mode(), _autocast(device, dtype):
            result = network.tail(piece.to(device).contiguous(memory_format=torch.channels_last))
        return result[0].float().cpu()

    if mode == "whole":
        yield 0, tail(0, height, 0, width)[:, : job.height * network.scale, : job.width * network.scale]
        return
    yield from _tail_rows(job, tail, pixels)


def _tail_rows(job: Job, tail: Callable[[int, int, int, int], Tensor], pixels: int) -> Iterator[tuple[int, Tensor]]:
    """Rows of what a local function of areas of the image gives, from chunks of about as many pixels.

    Bands are wide and low, so that little of a large result is held at once.
    """
    (height, width), halo, scale = job.padded, job.network.tail_halo, job.network.scale
    rows = max(BAND_BYTES // (job.width * scale**2 * 12), 4 * halo, 8)
    columns = max(pixels // (rows + 2 * halo), 4 * halo, 32)
    for top in range(0, job.height, rows):
        bottom = min(top + rows, job.height)
        first, last = max(top - halo, 0), min(bottom + halo, height)
        band: Tensor | None = None
        for left in range(0, job.width, columns):
            right = min(left + columns, job.width)
            start, end = max(left - halo, 0), min(right + halo, width)
            made = tail(first, last, start, end)
            made = made[:, (top - first) * scale : (bottom - first) * scale, (left - start) * scale :]
            if band is None:
                band = made.new_empty((made.shape[0], made.shape[1], job.width * scale))
            band[:, :, left * scale : right * scale] = made[:, :, : (right - left) * scale]
        assert band is not None
        yield top * scale, band


def _fits(device: torch.device, needed: int) -> bool:
    return needed <= (devices.free_memory(device) or 0) // 2


# overlap: equal tiles, blended ----------------------------------------------------------------------------------------


def _tiled(job: Job, execution: Execution, side: int) -> Iterator[tuple[int, Tensor]]:
    """Rows of tiles, each blended with the one above."""
    tiling, scale = job.network.tiling, job.network.scale
    side = max(side, _least(tiling))
    down, across = (tiling.axis(length, side, job.padding) for length in (job.height, job.width))
    batch = _batch(execution, down.side * across.side * tiling.memory, len(across.origins))
    columns, rows = ramps(across, tiling.halo, scale), ramps(down, tiling.halo, scale)
    above: Tensor | None = None
    for index, (_, _, fall, _) in enumerate(down.spans(tiling.halo)):
        results = _row_of_tiles(job, execution, down, across, index, batch)
        strip = torch.zeros((results[0].shape[0], down.side * scale, job.width * scale))
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


def _batch(execution: Execution, bytes_a_tile: int, most: int) -> int:
    """Tiles that are run together: as many of a row as fit on a GPU, one on the CPU, whose caches gain nothing."""
    if execution.device.type == "cpu":
        return 1
    free = execution.memory or devices.free_memory(execution.device) or 0
    return max(1, min(most, free // 2 // max(bytes_a_tile, 1)))


def _row_of_tiles(job: Job, execution: Execution, down: Axis, across: Axis, index: int, batch: int) -> list[Tensor]:
    """The results ``[C,side,side]`` of a row of tiles, on the device, checked once for the whole row."""
    device, top = execution.device, down.origins[index]
    total = len(down.origins) * len(across.origins)

    def inputs(origins: Sequence[int]) -> Tensor:
        tiles = [job.window(top, top + down.side, left, left + across.side) for left in origins]
        return devices.sent(torch.stack(tiles), device).contiguous(memory_format=torch.channels_last)

    def forward(origins: Sequence[int], dtype: torch.dtype | None) -> Tensor:
        with torch.inference_mode(), _autocast(device, dtype):
            result: Tensor = job.network(inputs(origins))
        execution.tiles += len(origins)
        return result

    results: list[Tensor] = []
    for first in range(0, len(across.origins), batch):
        execution.share((index * len(across.origins) + first) / total)
        results += list(forward(across.origins[first : first + batch], job.dtype))
    finite = torch.stack([result.isfinite().all() for result in results]).cpu()
    for column in [k for k, good in enumerate(finite.tolist()) if not good]:
        _higher(job, execution, job.dtype)
        (results[column],) = forward([across.origins[column]], None)
        if not bool(results[column].isfinite().all()):
            _higher(job, execution, None)
    return results
