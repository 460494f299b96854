"""A pipeline kept warm for a camera application: previews while the camera runs, pictures in the background.

>>> session = CameraSession("raw-to-srgb", preview=(1280, 720))
>>> shown = session.preview(packed)          # small, at once
>>> capture = session.capture(packed)        # full size, in the background
>>> session.set("tone.exposure", ev=0.5)     # from the next preview and capture on
>>> picture = capture.result()
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from restorekit import device as devices
from restorekit.engine import Run, process
from restorekit.errors import Cancelled, InputError, RestorekitError
from restorekit.frame import Bracket, Frame
from restorekit.io.buffers import Packed
from restorekit.pipeline import Pipeline
from restorekit.reduction import Box, reduced

Image = Frame | Bracket | Packed

SHARES = (1.0, 0.85, 0.7, 0.6, 0.5, 0.4, 0.33, 0.25)
"""Sizes that previews are reduced to where they take longer than they may."""

ROOM, PATIENCE = 0.6, 15
"""Previews grow again after so many in a row that took less than this share of their time."""

BACKGROUND_NICENESS = 10
"""Captures leave the processor to previews, where the system has priorities of threads."""


class Dropped(RestorekitError):
    """A capture that was not taken, since too many were waiting."""


class Capture:
    """A picture in the making. ``step`` and ``share`` (0..1) tell how far it is, ``dropped`` that it was not taken."""

    def __init__(self, image: Image, pipeline: Pipeline, told: Callable[[str, float], None] | None) -> None:
        self.step = ""
        self.share = 0.0
        self._image: Image | None = image
        self._pipeline = pipeline
        self._told = told
        self._stop = threading.Event()
        self._future: Future[Frame] = Future()

    def result(self, timeout_s: float | None = None) -> Frame:
        """The finished frame, waited for.

        Raises what the pipeline raises; Cancelled, Dropped; and TimeoutError where it is not finished in time.
        """
        return self._future.result(timeout_s)

    def cancel(self) -> None:
        """Stop it soon: between strips and tiles, where it has begun. ``result`` then raises Cancelled."""
        self._stop.set()

    def when_done(self, call: Callable[[Capture], object]) -> None:
        """Call this with the capture once it is done, from the thread that works; at once where it is."""
        self._future.add_done_callback(lambda _: call(self))

    @property
    def done(self) -> bool:
        """Whether it is finished, failed, was cancelled or dropped."""
        return self._future.done()

    @property
    def dropped(self) -> bool:
        return self.done and isinstance(self._future.exception(), Dropped)

    def run(self, options: Run) -> None:
        """Make the picture; called by the session."""
        image, self._image = self._image, None
        try:
            if self._stop.is_set() or image is None:
                raise Cancelled("the capture was cancelled before it began")
            options = replace(options, progress=self._tell, cancelled=self._stop.is_set)
            made = process(self._pipeline, image.frame() if isinstance(image, Packed) else image, options)
        except BaseException as error:
            self._future.set_exception(error)
        else:
            self.share = 1.0
            self._future.set_result(made)

    def drop(self, why: str) -> None:
        self._image = None
        self._future.set_exception(Dropped(why))

    def _tell(self, step: str, share: float) -> None:
        self.step, self.share = step, share
        if self._told is not None:
            self._told(step, share)


class CameraSession:
    """Previews and captures by one pipeline, whose parameters may change while it runs. Safe to use from any thread.

    ``preview`` is the box in px that previews fit into. With ``budget_ms`` they become smaller while they take longer.
    ``device`` is that of networks and stages. At most ``waiting`` captures wait behind the one in work; one more is
    dropped, and says so. ``ring`` frames are kept by :meth:`keep` for :meth:`burst`. Models are loaded at once.

    Raises PipelineError for a pipeline that cannot run, and what missing weights raise.
    """

    def __init__(
        self,
        pipeline: Pipeline | str | Path,
        *,
        preview: Box = (1280, 720),
        budget_ms: float | None = None,
        device: str = "auto",
        waiting: int = 4,
        ring: int = 8,
    ) -> None:
        devices.keep_freed_memory()
        self._device = devices.choose(device)
        self._box = preview
        self._budget_s = None if budget_ms is None else budget_ms / 1e3
        self._size, self._easy = 0, 0
        self._lock = threading.Lock()
        self._ring: deque[Frame | Packed] = deque(maxlen=ring)
        self._open(pipeline if isinstance(pipeline, Pipeline) else Pipeline.load(pipeline))
        self._captures: queue.SimpleQueue[Capture | None] = queue.SimpleQueue()
        self._most, self._unfinished = waiting + 1, list[Capture]()
        self._closed = False
        self._worker = threading.Thread(target=self._work, name="restorekit captures", daemon=True)
        self._worker.start()

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline with its parameters as they are now."""
        return self._pipeline

    def set(self, step: str, /, **params: Any) -> None:
        """Change parameters of a step; previews and captures that begin from now on have them.

        Raises PipelineError for an unknown step or parameter, or a value out of range; nothing is changed then.
        """
        with self._lock:
            self._open(self._pipeline.set(step, **params))

    def preview(self, image: Image) -> Frame:
        """The pipeline's result at a small size: of the image reduced to the box, without what ``preview`` skips.

        Raises InputError or StageError where the image does not fit the pipeline.
        """
        with self._lock:
            pipeline, share = self._previewed, SHARES[self._size]
        started = time.perf_counter()
        box = max(1, round(self._box[0] * share)), max(1, round(self._box[1] * share))
        made = process(pipeline, reduced(image, box), self._run())
        self._adapt(time.perf_counter() - started)
        return made

    def capture(self, image: Image, told: Callable[[str, float], None] | None = None) -> Capture:
        """Begin a picture at full size, the same as ``pipeline(image)``, in the background.

        ``told`` is called with the step in work and the finished share, from the thread that works.
        """
        if isinstance(image, Packed):
            image = replace(image, buffer=bytes(image.buffer))
        with self._lock:
            capture = Capture(image, self._pipeline, told)
            if self._closed:
                raise InputError("the camera session is closed; open another one")
            self._unfinished = [each for each in self._unfinished if not each.done]
            if taken := len(self._unfinished) < self._most:
                self._unfinished.append(capture)
                self._captures.put(capture)
        if not taken:
            capture.drop(f"dropped: {self._most} captures are in work or waiting; wait for one of them")
        return capture

    def keep(self, image: Frame | Packed) -> None:
        """Keep a frame of the running camera, for the moment just before the shutter is pressed."""
        kept = replace(image, buffer=bytes(image.buffer)) if isinstance(image, Packed) else image
        with self._lock:
            self._ring.append(kept)

    def burst(self, count: int = 2) -> Bracket:
        """The last frames that were kept, as a bracket.

        Raises InputError where fewer than two, or fewer than ``count``, are kept.
        """
        with self._lock:
            kept = list(self._ring)[-count:]
        if len(kept) < max(2, count):
            raise InputError(f"a burst of {count} frames: {len(kept)} are kept; keep more, or ask for fewer")
        return Bracket.of([each.frame() if isinstance(each, Packed) else each for each in kept])

    def close(self) -> None:
        """Cancel what is in work or waiting, and end."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for capture in self._unfinished:
                capture.cancel()
        self._captures.put(None)
        self._worker.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _open(self, pipeline: Pipeline) -> None:
        previewed = pipeline.previewed()
        pipeline.states()
        for step in pipeline.steps:
            step.stage.open()
        self._pipeline, self._previewed = pipeline, previewed

    def _run(self) -> Run:
        return Run(device=self._device, keep_memory=True)

    def _adapt(self, took_s: float) -> None:
        """A smaller size after a preview that took too long, a larger one after many that did not."""
        if self._budget_s is None:
            return
        with self._lock:
            self._easy = self._easy + 1 if took_s < ROOM * self._budget_s else 0
            if took_s > self._budget_s:
                self._size = min(self._size + 1, len(SHARES) - 1)
            elif self._easy >= PATIENCE and self._size > 0:
                self._size, self._easy = self._size - 1, 0

    def _work(self) -> None:
        if sys.platform.startswith("linux"):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), BACKGROUND_NICENESS)
        while (capture := self._captures.get()) is not None:
            capture.run(self._run())
