"""Run chains of pointwise and local stages strip by strip, so that no intermediate exists at full size.

Rows are pushed through the chain. A local stage keeps the last rows it saw, so that every row is
computed once, whatever the length of the chain: the line buffers of a camera's image processor.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from restorekit.frame import Frame, to_float
from restorekit.stage import Stage, run

STRIP_PIXELS = 1 << 19
"""Pixels of a strip. Its few float planes then stay in the processor's cache."""


class Sink(Protocol):
    """Takes the finished rows of a frame, top to bottom."""

    def take(self, strip: Frame) -> None:
        """One strip; ``strip.region`` says where it lies."""


class Collector:
    """A sink that puts strips together to a whole frame.

    ``convert`` turns a strip's pixels into the type to keep, for instance 16-bit integers.
    """

    def __init__(self, convert: Callable[[Tensor], Tensor] | None = None) -> None:
        self._convert = convert or (lambda pixels: pixels)
        self._planes: dict[str, Tensor] = {}
        self._last: Frame | None = None

    def take(self, strip: Frame) -> None:
        assert strip.region is not None
        self._store("pixels", self._convert(strip.pixels), strip)
        if strip.alpha is not None:
            self._store("alpha", strip.alpha, strip)
        for name, mask in strip.masks.items():
            self._store(f"mask {name}", mask, strip)
        notes = (*(self._last.notes if self._last else ()), *strip.notes)
        self._last = replace(strip, notes=tuple(dict.fromkeys(notes)))

    def _store(self, key: str, rows: Tensor, strip: Frame) -> None:
        assert strip.region is not None
        if key not in self._planes:
            shape = (rows.shape[0], strip.region.full_height, rows.shape[2])
            self._planes[key] = torch.empty(shape, dtype=rows.dtype)
        top = strip.region.top
        self._planes[key][:, top : top + rows.shape[1]] = rows

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


@dataclass
class _Link:
    """One stage of a running chain, with the rows it still needs and who gets its result."""

    stage: Stage
    sinks: tuple[Sink, ...]
    seconds: float = 0.0
    checked: bool = False
    next: _Link | None = None
    kept: Frame | None = None
    done: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def push(self, strip: Frame) -> None:
        assert strip.region is not None
        halo = self.stage.reach().halo
        if halo:
            joined = strip if self.kept is None else _stack(self.kept, strip)
            self._advance(joined, halo)
        else:
            self._emit(self._run(strip))

    def _advance(self, joined: Frame, halo: int) -> None:
        assert joined.region is not None
        end = joined.region.top + joined.height
        last = end == joined.region.full_height
        ready = end if last else end - halo
        if ready > self.done:
            result = self._run(joined)
            top = joined.region.top
            self._emit(result.rows(self.done - top, ready - top))
            self.done = ready
        keep_from = max(self.done - halo, joined.region.top) - joined.region.top
        self.kept = None if last else joined.rows(keep_from, joined.height)

    def _run(self, strip: Frame) -> Frame:
        if not self.checked:
            self.stage.check(strip)
            self.checked = True
        started = time.perf_counter()
        result = run(self.stage, strip)
        self.seconds += time.perf_counter() - started
        return result

    def _emit(self, strip: Frame) -> None:
        for sink in self.sinks:
            sink.take(to_cpu(strip) if self.device.type != "cpu" else strip)
        if self.next is not None:
            self.next.push(strip)


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
    return frame.planes(lambda plane: plane.cpu())


def strip_rows(width: int) -> int:
    """Rows of a strip for an image of this width: even, at least 16."""
    return max(16, STRIP_PIXELS // max(width, 1) // 2 * 2)


def run_chain(
    frame: Frame,
    stages: Sequence[Stage],
    sinks: Mapping[int, Sequence[Sink]],
    *,
    device: torch.device | None = None,
    rows: int | None = None,
    seconds: list[float] | None = None,
    progress: Callable[[float], None] | None = None,
) -> None:
    """Push a whole frame through stages that are pointwise or local and already measured.

    ``sinks`` maps the index of a stage to those who take its result. ``rows`` is the height of
    a strip (even), chosen by width where not given. ``seconds``, one number a stage, is set to
    the time each took; ``progress`` is told the finished share, and may raise to stop.
    """
    target = device or torch.device("cpu")
    links: list[_Link] = []
    for index, stage in enumerate(stages):
        links.append(_Link(stage, tuple(sinks.get(index, ())), device=target))
    for link, following in zip(links, links[1:], strict=False):
        link.next = following
    step = rows or strip_rows(frame.width)
    sensor = frame.state.reference == "sensor"
    for top in range(0, frame.height, step):
        strip = frame.rows(top, min(top + step, frame.height))
        if target.type != "cpu":
            strip = strip.planes(lambda plane: plane.to(target))
        strip = strip.with_pixels(to_float(strip.pixels, digital_numbers=sensor))
        links[0].push(strip)
        if progress is not None:
            progress(min(top + step, frame.height) / frame.height)
    if seconds is not None:
        seconds[:] = [link.seconds for link in links]
