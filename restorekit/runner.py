"""Files in, files out: the single-image call in a loop, with a journal, and nothing lost when one fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from restorekit.delivery_stream import StreamSink
from restorekit.engine import Progress, Run, render
from restorekit.errors import OutputError, RestorekitError
from restorekit.execution import Precision
from restorekit.frame import Bracket, Frame
from restorekit.io import read, write, write_ultrahdr
from restorekit.io.formats import OutputSpec, losses
from restorekit.io.limits import DEFAULT, Limits
from restorekit.io.metadata import camera_name
from restorekit.io.privacy import Privacy, private
from restorekit.io.raw import Headerless
from restorekit.io.write import SOFTWARE, quantiser
from restorekit.isolation import DECODE_TIMEOUT_S, Isolation, internal_error
from restorekit.jobs import Job, Plan
from restorekit.pipeline import Pipeline
from restorekit.report import FOUND, JobReport, RunReport, peak_memory_mb
from restorekit.stage import Stage

Reader = Callable[[Path, Headerless | None], Frame]
"""Decodes a file; what is said of mosaics without a header comes with it."""


@dataclass(frozen=True)
class RunOptions:
    """Settings of a run that are not the pipeline's.

    ``ev`` gives the exposure offsets of a bracket's frames in file order, in stops.
    ``strip_rows`` is the height of strips, chosen by width where not given; ``precision`` and ``tile`` are for
    networks (:class:`restorekit.execution.Execution`).
    ``isolate`` decodes in a child process, so that a crash of a decoder fails one file, as does one that takes longer
    than ``decode_timeout_s``. ``limits`` refuse images that are too large before they are decoded, ``sidecar`` follows
    XMP files beside the inputs, and ``privacy`` chooses the metadata of outputs (:mod:`restorekit.io.privacy`).
    """

    strip_rows: int | None = None
    precision: Precision = "auto"
    tile: int | Literal["auto", "off"] = "auto"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    ev: tuple[float, ...] = ()
    privacy: Privacy = "keep"
    sidecar: bool = True
    limits: Limits = DEFAULT
    isolate: bool = False
    decode_timeout_s: float = DECODE_TIMEOUT_S
    fail_fast: bool = False


class Runner:
    """Runs the jobs of a plan one after the other.

    ``reader`` decodes a file in place of what the options say; a server shares one decoder among its runs.

    Raises OutputError on construction when the output folder cannot be made or written.
    """

    def __init__(
        self, pipeline: Pipeline, plan: Plan, options: RunOptions | None = None, reader: Reader | None = None
    ) -> None:
        self.pipeline = pipeline.with_outputs(plan.outputs)
        self.plan = plan
        self.options = options or RunOptions()
        self.report = RunReport(pipeline.name, pipeline.fingerprint, str(self.options.device))
        self.report.passed_over = [str(path) for path in plan.passed_over]
        self.removed_leftovers = 0
        self._software = " ".join(filter(None, (SOFTWARE, pipeline.name, pipeline.fingerprint)))
        self._reader = reader
        self._isolation = Isolation(self.options.decode_timeout_s) if self.options.isolate else None
        self._prepare()

    def _prepare(self) -> None:
        """Make the output folder, and remove what a killed run left half-written."""
        try:
            self.plan.folder.mkdir(parents=True, exist_ok=True)
            self.plan.journal.open()
            self.removed_leftovers = self.plan.remove_leftovers()
        except OSError as error:
            raise OutputError(
                f"{self.plan.folder}: cannot write here ({error.strerror}); name another output folder"
            ) from error

    def run(self, progress: Callable[[Job], Progress] | None = None) -> Iterator[tuple[Job, JobReport]]:
        """Do every job and yield it with what became of it; ``self.report`` grows along.

        An interrupt (Ctrl-C) ends the run cleanly: the report then says so.
        """
        for message in self.plan.problems:
            self.report.jobs.append(JobReport([], [], "failed", error=message))
            yield Job((Path(message.partition(":")[0]),), (), ""), self.report.jobs[-1]
        waiting = list(self.plan.jobs)
        try:
            while waiting:
                job = waiting.pop(0)
                report = self._job(job, progress(job) if progress else None)
                self.report.jobs.append(report)
                yield job, report
                if report.status == "failed" and self.options.fail_fast:
                    break
        except KeyboardInterrupt:
            self.report.interrupted = True
            waiting.insert(0, job)
        finally:
            if self._isolation is not None:
                self._isolation.close()
        for job in waiting:
            self.report.jobs.append(_job_report(job))

    def _job(self, job: Job, progress: Progress | None) -> JobReport:
        report = _job_report(job)
        if job.action != "run":
            return replace(report, status=job.action, **self._found_before(job))
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            self._make(job, report, progress)
            report.status = "done"
        except RestorekitError as error:
            report.status, report.error = "failed", str(error)
        except MemoryError:
            report.status, report.error = (
                "failed",
                f"{job.name}: out of memory; close other programs or use a smaller image",
            )
        except Exception as error:
            report.status, report.error = "failed", f"{job.name}: {internal_error(error)}"
        report.wall_s = round(time.perf_counter() - wall, 3)
        report.cpu_s = round(time.process_time() - cpu, 3)
        report.peak_memory_mb = round(peak_memory_mb(), 1)
        return report

    def _make(self, job: Job, report: JobReport, progress: Progress | None) -> None:
        options = self.options
        run = Run(options.device, options.precision, options.tile, options.strip_rows, progress=progress)
        started = time.perf_counter()
        images: list[Frame | Bracket] = [self._read(job.inputs)]
        deep = _has_sixteen_bits(images[0])
        run.seconds["read"] = time.perf_counter() - started
        with ExitStack() as unfinished:
            streams: dict[Path, StreamSink] = {}

            def sink_of(number: int, stages: Sequence[Stage]) -> StreamSink:
                path = job.outputs[number]
                streams[path] = self._stream(path, self.pipeline.outputs[number], stages)
                unfinished.callback(streams[path].abort)
                return streams[path]

            frames = render(self.pipeline, images, quantiser, run, sink_of)
            report.networks = run.networks
            if deep and any(spec.bits is None and spec.format == "png" for spec in self.pipeline.outputs):
                report.warnings.append("the input has 16 bits, the PNG file 8; --set output.bits=16 keeps them")
            self._write(job, frames, streams, report, run)
        report.seconds = {step: round(spent, 4) for step, spent in run.seconds.items()}

    def _found_before(self, job: Job) -> dict[str, Any]:
        """What the run that made the picture of a job found of it."""
        entry = self.plan.journal.entry(job.outputs[-1]) if job.action == "up to date" else None
        return {name: value for name, value in entry.found.items() if name in FOUND} if entry else {}

    def _stream(self, path: Path, spec: OutputSpec, stages: Sequence[Stage]) -> StreamSink:
        """What takes an output whose rows come one after the other: large pictures go to their files at once."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"{path}: cannot be written ({error.strerror or error}); name another output folder"
            ) from error
        published = partial(private, level=self.options.privacy)
        return StreamSink(path, spec, quantiser(spec), stages, prepare=published, software=self._software)

    def _write(
        self,
        job: Job,
        frames: list[tuple[Frame, ...]],
        streams: Mapping[Path, StreamSink],
        report: JobReport,
        run: Run,
    ) -> None:
        """Write what was collected, and put streamed files in their places."""
        started = time.perf_counter()
        report.width, report.height = _written_size(frames[0][0])
        facts = frames[0][0].facts
        report.measured = dict(facts.measured) | ({"illuminant": facts.illuminant} if facts.illuminant else {})
        try:
            for spec, path in zip(self.pipeline.outputs, job.outputs, strict=True):
                frame, *hdr = frames.pop(0)
                frame = private(frame, self.options.privacy)
                stream = streams[path] if path in streams and streams[path].streamed else None
                transparent = stream is None and _is_transparent(frame)  # files in rows keep it
                notes = (*frame.notes, *losses(spec, transparent, frame.metadata, max(frame.pixels.shape)))
                report.warnings += [note for note in notes if note not in report.warnings]
                path.parent.mkdir(parents=True, exist_ok=True)
                self.plan.journal.begin(path, job.key)
                if stream is not None:
                    stream.finish()
                elif hdr:
                    write_ultrahdr(frame, hdr[0], path, spec, software=self._software)
                else:
                    write(frame, path, spec, software=self._software)
                self.plan.journal.finish(path, job.key, job.inputs, report.found)
        except OSError as error:
            raise OutputError(
                f"{path}: cannot be written ({error.strerror or error}); name another output folder"
            ) from error
        run.seconds["write"] = time.perf_counter() - started + sum(stream.seconds for stream in streams.values())

    def _read(self, paths: Sequence[Path]) -> Frame | Bracket:
        frames = [self._read_one(path) for path in paths]
        spec = self.pipeline.input
        if spec is None or spec.state.frames == "single":
            return frames[0]
        bracket = Bracket.of(frames, self.options.ev or spec.exposures)
        cameras = sorted({name for frame in frames if (name := camera_name(frame.metadata.exif))})
        if len(cameras) > 1:
            said = f"the frames of a bracket are of different cameras: {', '.join(cameras)}"
            return bracket.with_reference(bracket.reference.with_note(said))
        return bracket

    def _read_one(self, path: Path) -> Frame:
        options = self.options
        headerless = self.pipeline.input.headerless if self.pipeline.input else None
        if self._reader is not None:
            return self._reader(path, headerless)
        if self._isolation is None:
            return read(path, headerless=headerless, limits=options.limits, sidecar=options.sidecar)
        call = self._isolation.call
        return call(path, read, path, headerless=headerless, limits=options.limits, sidecar=options.sidecar)


def _written_size(frame: Frame) -> tuple[int, int]:
    """Width and height after the crop and turn that are still pending."""
    if frame.state.is_mosaic:
        return frame.width, frame.height
    top, left, bottom, right = frame.metadata.crop or (0, 0, frame.height, frame.width)
    size = right - left, bottom - top
    return size[::-1] if frame.metadata.orientation >= 5 else size


def _has_sixteen_bits(image: Frame | Bracket) -> bool:
    """Whether a picture, not the mosaic of a sensor, came with 16 bits."""
    frame = image.reference if isinstance(image, Bracket) else image
    return frame.state.reference == "display" and frame.pixels.dtype == torch.uint16


def _is_transparent(frame: Frame) -> bool:
    """Whether anything of the frame is not wholly opaque."""
    if frame.alpha is None:
        return False
    opaque = 1.0 if frame.alpha.dtype.is_floating_point else float(torch.iinfo(frame.alpha.dtype).max)
    return bool(frame.alpha.numpy().min() < opaque)


def _job_report(job: Job) -> JobReport:
    return JobReport(
        [str(path) for path in job.inputs],
        [str(path) for path in job.outputs],
        warnings=[job.why] if job.action == "kept" else [],
    )
