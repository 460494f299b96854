"""Run chains of pointwise and local stages strip by strip, so that no intermediate exists at full size.

Rows are pushed through the chain. A local stage keeps the last rows it saw, so that every row is
computed once, whatever the length of the chain: the line buffers of a camera's image processor.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from restorekit.errors import StageError
from restorekit.execution import Execution
from restorekit.frame import Frame
from restorekit.planes import strip_rows, to_float
from restorekit.stage import GLOBAL, Reach, Stage, run

ONE_STRIP_PIXELS = 1 << 20
"""A picture of no more is one strip: what each strip costs by itself is more than its place in a cache saves."""


class Sink(Protocol):
    """Takes the finished rows of a frame, top to bottom."""

    def take(self, strip: Frame) -> None:
        """One strip; ``strip.region`` says where it lies."""


class FrameSink(Sink, Protocol):
    """A sink that tells of what frame the strips were."""

    def frame(self) -> Frame:
        """The frame, after the last strip."""


class Collector:
    """A sink that puts strips together to a whole frame. Strips may come in any order, from several threads.

    ``convert`` turns a strip's pixels into the type a file holds, for instance 16-bit integers;
    these are stored pixel by pixel, as files want them, and masks, which files do not hold, are left out.
    ``stages``, all pointwise, run on each strip before.
    """

    def __init__(self, convert: Callable[[Tensor], Tensor] | None = None, stages: Sequence[Stage] = ()) -> None:
        self._convert = convert
        self._stages = stages
        self._planes: dict[str, Tensor] = {}
        self._last: Frame | None = None
        self._lock = threading.Lock()

    def take(self, strip: Frame) -> None:
        for stage in self._stages:
            strip = run(stage, strip)
        pixels = strip.pixels if self._convert is None else self._convert(strip.pixels)
        planes = {"pixels": pixels}
        if strip.alpha is not None:
            planes["alpha"] = strip.alpha
        if self._convert is None:
            planes |= {f"mask {name}": mask for name, mask in strip.masks.items()}
        assert strip.region is not None
        with self._lock:
            for key, rows in planes.items():
                if key not in self._planes:
                    self._planes[key] = self._room(rows, strip.region.full_height)
            notes = (*(self._last.notes if self._last else ()), *strip.notes)
            self._last = replace(strip, notes=tuple(dict.fromkeys(notes)))
        for key, rows in planes.items():
            self._planes[key][:, strip.region.top : strip.region.top + rows.shape[1]] = rows

    def _room(self, rows: Tensor, height: int) -> Tensor:
        channels, _, width = rows.shape
        if self._convert is None:
            return torch.empty((channels, height, width), dtype=rows.dtype)
        return torch.empty((height, width, channels), dtype=rows.dtype).permute(2, 0, 1)

    def frame(self) -> Frame:
        """The whole frame, after the last strip."""
        assert self._last is not None
        masks = {key[5:]: plane for key, plane in self._planes.items() if key.startswith("mask ")}
        return replace(
            self._last,
            pixels=self._planes["pixels"],
            alpha=self._planes.get("alpha"),
            masks=masks,
            region=None,
        )


class RowStage(Stage):
    """Base of stages that give their result row band by row band, so that it never exists whole: networks."""

    def reach(self) -> Reach:
        return GLOBAL

    def rows(self, frame: Frame, execution: Execution) -> Iterator[Frame]:
        """The frame after this stage as strips from top to bottom, of the state that ``emits`` promises.

        The pixels of ``frame`` are of any storage type.
        """
        raise StageError(f"stage {self.spec.name} gives no rows")

    def apply(self, frame: Frame) -> Frame:
        collector = Collector()
        for strip in self.rows(frame, Execution()):
            collector.take(strip)
        return collector.frame()


@dataclass
class _Link:
    """One stage of a running chain, with the rows it still needs and who gets its result."""

    stage: Stage
    sinks: tuple[Sink, ...]
    seconds: float = 0.0
    checked: bool = False
    kept: Frame | None = None
    done: int = 0

    def feed(self, strip: Frame) -> Frame | None:
        """The rows that are finished once this strip is there."""
        halo = self.stage.reach().halo
        result = self._advance(strip, halo) if halo else self._run(strip)
        if result is not None:
            for sink in self.sinks:
                sink.take(to_cpu(result))
        return result

    def _advance(self, strip: Frame, halo: int) -> Frame | None:
        assert strip.region is not None
        if self.kept is None:
            self.done = strip.region.top + halo if strip.region.top else 0
        joined = strip if self.kept is None else _stack(self.kept, strip)
        assert joined.region is not None
        top = joined.region.top
        last = top + joined.height == joined.region.full_height
        ready = top + joined.height - (0 if last else halo)
        start = self.done
        self.done = max(ready, start)
        self.kept = None if last else joined.rows(max(self.done - halo - top, 0), joined.height)
        return self._run(joined).rows(start - top, ready - top) if ready > start else None

    def _run(self, strip: Frame) -> Frame:
        if not self.checked:
            self.stage.check(strip)
            self.checked = True
        started = time.perf_counter()
        result = run(self.stage, strip)
        self.seconds += time.perf_counter() - started
        return result


def _stack(above: Frame, below: Frame) -> Frame:
    """Two strips that follow each other as one."""
    joined = replace(
        below,
        pixels=torch.cat((above.pixels, below.pixels), 1),
        alpha=None if below.alpha is None or above.alpha is None else torch.cat((above.alpha, below.alpha), 1),
        masks={name: torch.cat((above.masks[name], mask), 1) for name, mask in below.masks.items()},
        region=above.region,
    )
    return joined


def to_cpu(frame: Frame) -> Frame:
    """The frame with all its planes in main memory."""
    return frame if frame.pixels.device.type == "cpu" else frame.planes(lambda plane: plane.cpu())


def push(
    strips: Iterator[Frame],
    stages: Sequence[Stage],
    sinks: Mapping[int, Sequence[Sink]],
    *,
    device: torch.device | None = None,
    seconds: list[float] | None = None,
) -> None:
    """Push strips, as they come from top to bottom, through stages that are pointwise or local and already measured.

    ``sinks`` maps the index of a stage to those who take its result, -1 to those who take the strips themselves.
    """
    links = [_Link(stage, tuple(sinks.get(k, ()))) for k, stage in enumerate(stages)]
    for given in strips:
        for sink in sinks.get(-1, ()):
            sink.take(to_cpu(given))
        strip: Frame | None = _loaded(given, device) if links else None
        for link in links:
            if strip is None:
                break
            strip = link.feed(strip)
    if seconds is not None:
        seconds[:] = [link.seconds for link in links]


def run_chain(
    frame: Frame,
    stages: Sequence[Stage],
    sinks: Mapping[int, Sequence[Sink]],
    *,
    device: torch.device | None = None,
    rows: int | None = None,
    workers: int = 1,
    seconds: list[float] | None = None,
    progress: Callable[[float], None] | None = None,
) -> None:
    """Push a whole frame through stages that are pointwise or local and already measured.

    ``sinks`` maps the index of a stage to those who take its result, top to bottom with one worker.
    ``rows`` is the height of a strip (even), chosen by size where not given. With several
    ``workers`` each thread runs the chain on a band of the image of its own, which scales where threads inside
    each operation would wait for each other. ``seconds``, one number a stage, is set to the time each took, summed
    over workers; ``progress`` is told the finished share, and may raise to stop.
    """
    small = frame.height * frame.width <= ONE_STRIP_PIXELS
    step = rows or (frame.height if small else strip_rows(frame.width))
    halos = sum(stage.reach().halo for stage in stages)
    bands = _bands(frame.height, step, workers)
    passed = [0] * len(bands)
    total = sum(min(stop + halos, frame.height) - max(start - halos, 0) for start, stop in bands)
    stop_all = threading.Event()

    def work(index: int) -> list[_Link]:
        start, stop = bands[index]
        links = [
            _Link(stage, tuple(_Band(sink, start, stop) for sink in sinks.get(k, ()))) for k, stage in enumerate(stages)
        ]
        first, last = max(start - halos, 0), min(stop + halos, frame.height)
        for top in range(first, last, step):
            if stop_all.is_set():
                break
            end = min(top + step, last)
            strip: Frame | None = _loaded(frame.rows(top, end), device)
            for link in links:
                if strip is None:
                    break
                strip = link.feed(strip)
            passed[index] = end - first
            if progress is not None and (len(bands) == 1 or index == 0):
                progress(min(1.0, sum(passed) / total))
        return links

    if len(bands) == 1:
        done = [work(0)]
    else:
        with ThreadPoolExecutor(len(bands)) as pool, one_thread_an_operation():
            futures = [pool.submit(work, index) for index in range(len(bands))]
            try:
                done = [future.result() for future in futures]
            finally:
                stop_all.set()
        if progress is not None:
            progress(1.0)
    if seconds is not None:
        seconds[:] = [sum(links[index].seconds for links in done) for index in range(len(stages))]


def _loaded(strip: Frame, device: torch.device | None) -> Frame:
    """A strip of the stored frame as floats on the device."""
    if device is not None and device.type != "cpu":
        strip = strip.planes(lambda plane: plane.to(device))
    return strip.with_pixels(to_float(strip.pixels, digital_numbers=strip.state.reference == "sensor"))


@dataclass(frozen=True)
class _Band:
    """A sink that takes only the rows ``start..stop``; those around it belong to other workers."""

    sink: Sink
    start: int
    stop: int

    def take(self, strip: Frame) -> None:
        assert strip.region is not None
        top = strip.region.top
        first, last = max(self.start, top), min(self.stop, top + strip.height)
        if first < last:
            self.sink.take(strip.rows(first - top, last - top))


def _bands(height: int, step: int, workers: int) -> list[tuple[int, int]]:
    """Rows shared out to workers in whole strips; fewer bands where there are few strips."""
    strips = -(-height // step)
    count = max(1, min(workers, strips // 4))
    edges = [min(height, strips * index // count * step) for index in range(count)] + [height]
    return list(pairwise(edges))


def side_by_side(work: Callable[[int, int], None], strips: Sequence[tuple[int, int]]) -> None:
    """Call ``work`` on the first and last row (exclusive) of every strip, on as many threads as torch uses.

    For stages that cut brackets or whole frames into strips themselves; these must not write where others read.
    """
    if len(strips) == 1:
        work(*strips[0])
        return
    with ThreadPoolExecutor(torch.get_num_threads()) as pool, one_thread_an_operation():
        for _ in pool.map(lambda strip: work(*strip), strips):
            pass


@contextmanager
def one_thread_an_operation() -> Iterator[None]:
    """While bands run side by side, torch must not split single operations as well."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
