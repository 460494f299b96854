"""Outputs written while they are computed: large pictures go to their files row by row and are never held whole."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
from torch import Tensor

from restorekit.frame import Frame
from restorekit.io.encode import interleaved
from restorekit.io.formats import OutputSpec
from restorekit.io.samples import Samples
from restorekit.io.stream import RowWriter, file_shape, open_stream, outline, streams
from restorekit.io.write import SOFTWARE, stored
from restorekit.planes import strip_rows
from restorekit.stage import Stage, run
from restorekit.strips import Collector

STREAM_BYTES = 1 << 26
"""Bytes of samples from which on a picture is written row by row; smaller ones compress faster whole."""


class StreamSink:
    """A sink that writes a large picture to its file as the rows come, and collects others to be written whole.

    ``convert`` turns float strips into what the file stores, ``stages``, all pointwise, run on each strip before;
    both as in :class:`restorekit.strips.Collector`. ``prepare`` changes the metadata of the frame before they are
    written, ``software`` is the name of the program, and pictures of ``from_bytes`` bytes and more are large
    (``STREAM_BYTES`` if not given). ``seconds`` is the time that encoding and writing the rows took.

    Strips may come in any order, from several threads; those that come before their turn are held.
    """

    def __init__(
        self,
        path: Path,
        spec: OutputSpec,
        convert: Callable[[Tensor], Tensor],
        stages: Sequence[Stage] = (),
        *,
        prepare: Callable[[Frame], Frame] = lambda frame: frame,
        software: str = SOFTWARE,
        from_bytes: int | None = None,
    ) -> None:
        self.path = path
        self._spec = spec
        self._convert = convert
        self._stages = stages
        self._prepare = prepare
        self._software = software
        self._from_bytes = STREAM_BYTES if from_bytes is None else from_bytes
        self.seconds = 0.0
        self._whole: Collector | None = None
        self._writer: RowWriter | None = None
        self._outline: Frame | None = None
        self._waiting: dict[int, Samples] = {}
        self._lock = threading.Lock()

    @property
    def streamed(self) -> bool:
        """Whether the rows are in the file; known after the first strip."""
        return self._writer is not None

    def take(self, strip: Frame) -> None:
        """One strip. Raises OutputError where the file cannot be written, which is then removed."""
        step = strip_rows(strip.width)
        for top in range(0, strip.height, step):
            self._take(strip.rows(top, min(top + step, strip.height)))

    def frame(self) -> Frame:
        """The frame after the last strip, given once: whole, or where it was streamed with planes without content."""
        if self._whole is not None:
            whole, self._whole = self._whole, None
            return whole.frame()
        assert self._outline is not None
        return self._outline

    def finish(self) -> None:
        """Put a streamed file in its place, after the last strip. Raises OutputError where that fails."""
        assert self._writer is not None
        self._writer.close()

    def abort(self) -> None:
        """Remove what was written of a file that is not finished."""
        if self._writer is not None:
            self._writer.abort()
        self._waiting.clear()

    def _take(self, strip: Frame) -> None:
        for stage in self._stages:
            strip = run(stage, strip)
        with self._lock:
            self._note(strip)
        if self._whole is not None:
            self._whole.take(strip)
            return
        assert self._writer is not None and strip.region is not None
        rows = self._stored(strip)
        with self._lock:
            started = time.perf_counter()
            self._waiting[strip.region.top] = rows
            while (ready := self._waiting.pop(self._writer.done, None)) is not None:
                self._writer.write(ready)
            self.seconds += time.perf_counter() - started

    def _note(self, strip: Frame) -> None:
        """Decide by the first strip, and remember what strips tell."""
        frame = outline(strip)
        if self._outline is None:
            small = prod(file_shape(frame, self._spec)) * self._spec.depth // 8 < self._from_bytes
            if small or not streams(frame, self._spec):
                self._whole = Collector(self._convert)
            else:
                self._writer = open_stream(self.path, self._prepare(frame), self._spec, software=self._software)
        notes = (*(self._outline.notes if self._outline else ()), *strip.notes)
        self._outline = replace(frame, notes=tuple(dict.fromkeys(notes)))

    def _stored(self, strip: Frame) -> Samples:
        """The rows ``[n,W,C]`` of a file."""
        rows = interleaved(self._convert(strip.pixels))
        if strip.alpha is None:
            return rows
        return np.concatenate((rows, interleaved(stored(strip.alpha, self._spec))), axis=2)
