"""Run a pipeline on one image: conversion at the edge, groups of strips, whole images where a stage needs them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

import torch
from torch import Tensor

from restorekit.device import release_freed_memory
from restorekit.edge import bridge, delivery
from restorekit.errors import Cancelled, InputError
from restorekit.execution import Execution, Precision
from restorekit.frame import Bracket, Frame, check_image
from restorekit.io.dng.opcodes import parse
from restorekit.io.formats import OutputSpec
from restorekit.io.write import HALF_MAX
from restorekit.pipeline import Pipeline, Step, fold, hdr_index, tap_index
from restorekit.stage import BracketStage, Stage, run
from restorekit.strips import Collector, FrameSink, RowStage, Sink, push, run_chain, to_cpu

T = TypeVar("T")

SinkOf = Callable[[int, Sequence[Stage]], FrameSink]
"""Gives the sink of an output by its number; it runs the stages, all pointwise, on each strip."""

Progress = Callable[[str, float], None]
"""Told the step in work and the finished share (0..1) of the whole pipeline."""


@dataclass
class Run:
    """How to run a pipeline, and what it took. One value a processed image.

    ``strip_rows`` forces the height of strips (even), for tests and small memories; ``workers`` is the
    number of threads that run strips on the CPU. ``precision`` and ``tile`` are for networks
    (:class:`restorekit.execution.Execution`). With ``keep_memory`` what was freed is kept for the next picture rather
    than given back to the system. ``seconds`` holds the time by step id afterwards, summed over
    workers, ``networks`` how those of each step were run. ``cancelled`` is asked between strips and tiles.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: Precision = "auto"
    tile: int | Literal["auto", "off"] = "auto"
    strip_rows: int | None = None
    workers: int = field(default_factory=torch.get_num_threads)
    keep_memory: bool = False
    progress: Progress | None = None
    cancelled: Callable[[], bool] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    networks: dict[str, str] = field(default_factory=dict)

    def tell(self, step: str, share: float) -> None:
        if self.cancelled is not None and self.cancelled():
            raise Cancelled("stopped before it was finished; nothing was written")
        if self.progress is not None:
            self.progress(step, share)


def process(pipeline: Pipeline, image: Frame | Bracket, options: Run | None = None) -> Frame:
    """The float32 frame after the last stage of a pipeline, upright.

    Raises InputError or StageError when the image does not fit.
    """
    steps = plan(pipeline, image)
    result = _execute(steps, [image], {}, options or Run(), keep_result=True)
    if isinstance(result, Bracket):
        raise InputError(f"{result.reference.name}: pipeline {pipeline.name} ends with a bracket; add fusion.mertens")
    return result.as_float().upright()


def render(
    pipeline: Pipeline,
    images: list[Frame | Bracket],
    convert: Callable[[OutputSpec], Callable[[Tensor], Tensor]],
    options: Run | None = None,
    sink_of: SinkOf | None = None,
) -> list[tuple[Frame, ...]]:
    """The frame of every output of a pipeline, its pixels already in the type of the file.

    An Ultra HDR output has two: the standard picture, and the light that HDR displays show, in half floats.
    ``images`` holds the one image and is emptied, so that its memory can be freed on the way;
    ``convert`` gives the function that turns float strips into the stored type of an output. ``sink_of`` gives the
    sinks of outputs whose rows come from a network, top to bottom (:mod:`restorekit.delivery_stream`); the others,
    and without it all, are collected.
    """
    image = images[0]
    steps = plan(pipeline, image)
    first = image.reference if isinstance(image, Bracket) else image
    start = first.state.changed({"frames": "bracket" if isinstance(image, Bracket) else "single"})
    states = fold(start, [step.stage for step in steps]).states
    lead = len(steps) - len(pipeline.steps)
    ids = [step.id for step in pipeline.steps]
    outputs: list[tuple[tuple[FrameSink, ...], tuple[str, ...]]] = []
    taps: dict[int, list[Sink]] = {}
    for number, spec in enumerate(pipeline.outputs):
        index = tap_index(spec, ids) + lead
        stages, told = delivery(states[index + 1], spec, first.metadata)
        if sink_of is not None and _comes_in_rows(steps[: index + 1]):
            collectors: list[FrameSink] = [sink_of(number, stages)]
        else:
            collectors = [Collector(convert(spec), stages)]
        taps.setdefault(index, []).append(collectors[0])
        if spec.hdr is not None:
            collectors.append(Collector(convert(OutputSpec(format="exr"))))
            taps.setdefault(hdr_index(spec, ids) + lead, []).append(collectors[1])
        outputs.append((tuple(collectors), told))
    del image, first
    _execute(steps, images, taps, options or Run(), keep_result=False)
    return [tuple(_told(collector.frame(), told) for collector in collectors) for collectors, told in outputs]


def _comes_in_rows(steps: Sequence[Step]) -> bool:
    """Whether the result of the last step comes strip by strip from a network, and never exists whole."""
    whole = (step.stage for step in reversed(steps) if step.stage.reach().kind == "global")
    return isinstance(next(whole, None), RowStage)


def _told(frame: Frame, told: tuple[str, ...]) -> Frame:
    """A finished frame with what a person should know."""
    return replace(frame, notes=(*frame.notes, *told, *_left_out(frame)))


def _left_out(frame: Frame) -> tuple[str, ...]:
    """What a DNG asks for and no stage did; the file of a mosaic asks for it again."""
    if frame.state.is_mosaic or not any(frame.camera.opcode_lists):
        return ()
    names = dict.fromkeys(each.name for data in frame.camera.opcode_lists for each in parse(data))
    if not names:
        return ()
    return (
        f"corrections that the file asks for are left out: {', '.join(names)}; raw.lens_shading, lens.correct do them",
    )


def plan(pipeline: Pipeline, image: Frame | Bracket) -> tuple[Step, ...]:
    """The steps that will run on this image: those that bring it to the declared state, then the pipeline's.

    Raises InputError when the image cannot be brought there, or the stages do not take its state.
    """
    check_image(image)
    frames = image.frames if isinstance(image, Bracket) else (image,)
    have = frames[0].state.changed({"frames": "bracket" if isinstance(image, Bracket) else "single"})
    want = pipeline.input.state if pipeline.input else have
    name = frames[0].name
    if not frames[0].fits_its_layout:
        channels = frames[0].pixels.shape[0]
        raise InputError(
            f"{name}: has {channels} channels, layout {have.layout} has another number; pixels are [C,H,W]"
        )
    if have.frames != want.frames:
        cure = (
            "give it a bracket: several exposures in a folder, or --group"
            if want.frames != "single"
            else "process its files one by one"
        )
        raise InputError(
            f"{name}: pipeline {pipeline.name} takes a {want.frames} of frames, this is a {have.frames}; {cure}"
        )
    lead = bridge(have, want, name)
    steps = (*lead, *pipeline.steps)
    found = fold(have, [step.stage for step in steps], frames[0].facts.known)
    if found.problems:
        raise InputError(f"{name}: does not fit pipeline {pipeline.name}: {found.problems[0][1]}")
    return tuple(
        Step(step.id, _suited(step.stage, [replace(frame, state=state) for frame in frames]))
        for step, state in zip(steps, found.states, strict=False)
    )


def _suited(stage: Stage, frames: Sequence[Frame]) -> Stage:
    """A stage as it runs on all frames: changed where that suits each of them alike, else as it is."""
    first, *others = (stage.suited(frame) for frame in frames)
    return first if all(other == first for other in others) else stage


def _execute(
    steps: Sequence[Step],
    images: list[Frame | Bracket],
    taps: Mapping[int, Sequence[Sink]],
    options: Run,
    *,
    keep_result: bool,
) -> Frame | Bracket:
    """Run steps group by group. ``images`` is emptied at once; only the current image is held."""
    image = images.pop()
    total = len(steps)
    if -1 in taps or not steps:
        _deliver(image, taps.get(-1, ()))
    index = 0
    while index < total:
        if not options.keep_memory:
            release_freed_memory()
        step = steps[index]
        options.tell(step.id, index / total)
        stage = step.stage
        if isinstance(stage, BracketStage):
            image = _combine(stage, image, step.id, options)
            _deliver(image, taps.get(index, ()))
            index += 1
            continue
        last = _group_end(steps, index, image)
        sinks = {k - index: taps[k] for k in range(index, last + 1) if k in taps}
        whole = keep_result or last < total - 1
        if isinstance(image, Bracket):
            image = Bracket(
                tuple(
                    _halved(_group(steps[index : last + 1], [frame], sinks, options, True, index / total, total))
                    for frame in image
                )
            )
        else:
            held = [image]
            del image
            image = _group(steps[index : last + 1], held, sinks, options, whole, index / total, total)
        index = last + 1
    return image


def _halved(frame: Frame) -> Frame:
    """A frame of a bracket that waits for the others: sensor light in half floats, whose steps lie below its noise."""
    of_sensor = frame.state.reference == "scene" and frame.facts.clip_level is not None
    if not of_sensor or frame.pixels.dtype != torch.float32 or float(frame.pixels.amax()) > HALF_MAX:
        return frame
    return frame.with_pixels(frame.pixels.half())


def _group_end(steps: Sequence[Step], start: int, image: Frame | Bracket) -> int:
    """The last step that can run in one pass of strips with the step at ``start``."""
    if steps[start].stage.reach().kind == "global" and not isinstance(steps[start].stage, RowStage):
        return start
    frames = image.frames if isinstance(image, Bracket) else (image,)
    end = start
    for index in range(start + 1, len(steps)):
        stage = steps[index].stage
        breaks = stage.reach().kind == "global" or any(stage.needs_measure(frame) for frame in frames)
        if isinstance(stage, BracketStage) or breaks:
            break
        end = index
    return end


def _group(
    steps: Sequence[Step],
    held: list[Frame],
    sinks: Mapping[int, Sequence[Sink]],
    options: Run,
    whole: bool,
    base: float,
    total: int,
) -> Frame:
    """One global stage, or one pass of strips; ``held`` is emptied so that the input can be freed."""
    frame = held.pop()
    first = steps[0].stage
    if isinstance(first, RowStage):
        return _rows(first, steps, frame, sinks, options, whole, base, total)
    if first.needs_measure(frame) or first.reach().kind == "global":
        frame = frame.as_float()
    first.check(frame)
    if first.needs_measure(frame):
        frame = replace(frame, facts=_timed(options, steps[0].id, lambda: first.measure(frame)))
    if first.reach().kind == "global":
        moved = frame.planes(lambda plane: plane.to(options.device))
        result = to_cpu(_timed(options, steps[0].id, lambda: run(first, moved)))
        _deliver(result, sinks.get(0, ()))
        return result
    stages = [step.stage for step in steps]
    collector = Collector()
    everyone = {k: list(v) for k, v in sinks.items()}
    if whole:
        everyone.setdefault(len(stages) - 1, []).append(collector)
    seconds = [0.0] * len(stages)

    def progress(share: float) -> None:
        options.tell(steps[-1].id, base + share * len(steps) / total)

    run_chain(
        frame,
        stages,
        everyone,
        device=options.device,
        rows=options.strip_rows,
        workers=options.workers if options.device.type == "cpu" else 1,
        seconds=seconds,
        progress=progress,
    )
    for step, spent in zip(steps, seconds, strict=True):
        options.seconds[step.id] = options.seconds.get(step.id, 0.0) + spent
    return collector.frame() if whole else frame


def _rows(
    stage: RowStage,
    steps: Sequence[Step],
    frame: Frame,
    sinks: Mapping[int, Sequence[Sink]],
    options: Run,
    whole: bool,
    base: float,
    total: int,
) -> Frame:
    """A stage that hands out rows, and the pass of strips that follows it."""
    stage.check(frame)
    step = steps[0].id
    execution = Execution(options.device, options.precision, options.tile)
    execution.tell = lambda share: options.tell(step, base + share * len(steps) / total)
    following = [step.stage for step in steps[1:]]
    collector = Collector()
    everyone = {k - 1: list(v) for k, v in sinks.items()}
    if whole:
        everyone.setdefault(len(following) - 1, []).append(collector)
    seconds = [0.0] * len(following)

    def rows() -> Iterator[Frame]:
        """The strips; the time that making them takes is the stage's."""
        strips = stage.rows(frame, execution)
        while (strip := _timed(options, step, lambda: next(strips, None))) is not None:
            yield strip

    push(rows(), following, everyone, device=options.device, seconds=seconds)
    for each, spent in zip(steps[1:], seconds, strict=True):
        options.seconds[each.id] = options.seconds.get(each.id, 0.0) + spent
    options.networks[step] = execution.summary
    return collector.frame() if whole else frame


def _timed(options: Run, step: str, work: Callable[[], T]) -> T:
    started = time.perf_counter()
    result = work()
    options.seconds[step] = options.seconds.get(step, 0.0) + time.perf_counter() - started
    return result


def _combine(stage: BracketStage, image: Frame | Bracket, step: str, options: Run) -> Frame | Bracket:
    if not isinstance(image, Bracket):
        raise InputError(
            f"{image.name}: {stage.spec.name} needs a bracket of several frames, this is one; "
            "group the files with --group"
        )
    return _timed(options, step, lambda: stage.run(image))


def _deliver(image: Frame | Bracket, sinks: Sequence[Sink]) -> None:
    """Hand a whole frame to sinks as one strip."""
    if sinks and isinstance(image, Frame):
        frame = image.as_float()
        for sink in sinks:
            sink.take(frame.rows(0, frame.height))
