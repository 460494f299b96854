"""A pipeline: ordered stages with a declared input and outputs, checked before a pixel is read."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from restorekit.delivery import hdr_problem
from restorekit.delivery import problems as delivery_problems
from restorekit.errors import ParameterError, PipelineError, Problem
from restorekit.frame import Bracket, Frame
from restorekit.io.brackets import Grouping
from restorekit.io.formats import OutputSpec
from restorekit.io.raw import Headerless
from restorekit.registry import did_you_mean
from restorekit.stage import Stage, missing_fact
from restorekit.stage import refusal as stage_refusal
from restorekit.state import ImageState


@dataclass(frozen=True)
class InputSpec:
    """What a pipeline starts from: a state, and how files become frames and brackets.

    ``exposures`` are those of the frames of every bracket in stops, in the order of the files, where these do not tell.
    """

    state: ImageState
    grouping: Grouping = Grouping()
    headerless: Headerless | None = None
    exposures: tuple[float, ...] = ()


@dataclass(frozen=True)
class Step:
    """A stage in its place, under the name by which ``--set`` and ``from`` address it."""

    id: str
    stage: Stage


@dataclass(frozen=True)
class PreviewChange:
    """What a preview does otherwise at one step: parameters that make it cheaper, or None to leave it out."""

    step: str
    params: tuple[tuple[str, Any], ...] | None = None


@dataclass(frozen=True)
class Pipeline:
    """Ordered stages, a declared input, and outputs. A plain value: compare, hash, print, call.

    ``steps`` may be given as bare stages; each then gets its own name as id, numbered when it
    comes again. ``input=None`` takes frames in whatever state the first stages accept.
    ``preview`` says what previews do otherwise (:meth:`previewed`).
    """

    steps: tuple[Step, ...]
    input: InputSpec | None = None
    outputs: tuple[OutputSpec, ...] = (OutputSpec(),)
    name: str = "pipeline"
    summary: str = ""
    source: str = field(default="pipeline", compare=False)
    preview: tuple[PreviewChange, ...] = ()

    def __init__(
        self,
        steps: Sequence[Step | Stage],
        input: InputSpec | None = None,
        outputs: Sequence[OutputSpec] = (OutputSpec(),),
        name: str = "pipeline",
        summary: str = "",
        source: str = "pipeline",
        preview: Sequence[PreviewChange] = (),
    ) -> None:
        for key, value in {
            "steps": tuple(_numbered(steps)),
            "input": input,
            "outputs": tuple(outputs),
            "name": name,
            "summary": summary,
            "source": source,
            "preview": tuple(preview),
        }.items():
            object.__setattr__(self, key, value)

    @staticmethod
    def load(name_or_path: str | Path) -> Pipeline:
        """A shipped pipeline by name, or one from a YAML file.

        Raises PipelineError with every problem of the file at once.
        """
        from restorekit.schema import load

        return load(name_or_path)

    def set(self, step: str, /, **params: Any) -> Pipeline:
        """This pipeline with parameters of one step changed. Steps are named by id or stage name.

        ``output`` names the outputs, all of them: ``set("output", color="p3")``.

        Raises PipelineError for an unknown step or parameter, or a value out of range.
        """
        if step == "output":
            return self._with_changed_outputs(params)
        matches = [s for s in self.steps if s.id == step] or [s for s in self.steps if s.stage.spec.name == step]
        if len(matches) != 1:
            ids = [s.id for s in self.steps]
            if matches:
                raise _refused(self.source, f"step '{step}': there are {len(matches)} of them, use an id")
            hint = did_you_mean(step, [*ids, "output"])
            raise _refused(self.source, f"no step '{step}'{hint} (the pipeline has {', '.join(ids) or 'none'})")
        stage = matches[0].stage
        messages = tuple(parameter_problems(type(stage), {**dataclasses.asdict(stage), **params}))  # type: ignore[call-overload]
        if messages:
            raise _refused(self.source, *(f"{step}: {message}" for message in messages))
        changed = Step(matches[0].id, type(stage)(**{**dataclasses.asdict(stage), **params}))  # type: ignore[call-overload]
        return replace_steps(self, tuple(changed if s is matches[0] else s for s in self.steps))

    def _with_changed_outputs(self, params: Mapping[str, Any]) -> Pipeline:
        wanted = [{**spec.as_dict(), **params} for spec in self.outputs]
        for content in wanted:
            for message in parameter_problems(OutputSpec, content):
                raise _refused(self.source, f"output: {message}")
        return self.with_outputs([OutputSpec(**content) for content in wanted])

    def with_outputs(self, outputs: Sequence[OutputSpec]) -> Pipeline:
        """This pipeline with other outputs."""
        return Pipeline(self.steps, self.input, outputs, self.name, self.summary, self.source, self.preview)

    def previewed(self) -> Pipeline:
        """This pipeline as previews run it: the steps that ``preview`` names left out or made cheaper; no outputs.

        Raises PipelineError where it names a step that is not there, or a value out of range.
        """
        made = self
        for change in self.preview:
            if change.params is not None:
                made = made.set(change.step, **dict(change.params))
            elif change.step not in [step.id for step in made.steps]:
                ids = [step.id for step in self.steps]
                raise _refused(self.source, f"preview: no step '{change.step}'{did_you_mean(change.step, ids)}")
            else:
                made = replace_steps(made, tuple(step for step in made.steps if step.id != change.step))
        return Pipeline(made.steps, self.input, (), self.name, self.summary, self.source)

    def states(self, start: ImageState | None = None) -> tuple[ImageState, ...]:
        """The state before the first stage and after each stage.

        Raises PipelineError when the states do not fit.
        """
        begin = start or (self.input.state if self.input else None)
        if begin is None:
            return ()
        found = fold(begin, [step.stage for step in self.steps])
        if found.problems:
            told = (f"stage {index + 1}, {self.steps[index].id}: {message}" for index, message in found.problems)
            raise _refused(self.source, *told)
        return found.states

    @cached_property
    def fingerprint(self) -> str:
        """A hash of everything that decides the result: stages, parameters, outputs, version."""
        from restorekit import __version__

        content = {**self.as_dict(), "version": __version__, "name": "", "summary": "", "preview": {}}
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def as_dict(self) -> dict[str, Any]:
        """The pipeline in the form of its YAML file, every parameter spelled out."""
        content: dict[str, Any] = {"restorekit": 1, "name": self.name}
        if self.summary:
            content["summary"] = self.summary
        if self.input is not None:
            content["input"] = _input_as_dict(self.input)
        content["stages"] = [
            {s.stage.spec.name: {**_plain(s.stage), **({"id": s.id} if s.id != s.stage.spec.name else {})}}
            for s in self.steps
        ]
        content["output"] = [spec.as_dict() for spec in self.outputs]
        if self.preview:
            content["preview"] = {
                change.step: "skip" if change.params is None else dict(change.params) for change in self.preview
            }
        return content

    def __call__(self, image: Frame | Bracket) -> Frame:
        """Run on a frame or bracket; the float32 frame after the last stage.

        A frame in another state than the declared one is converted at the edge, as files are.

        Raises InputError or StageError when the image does not fit the pipeline.
        """
        from restorekit.engine import process

        return process(self, image)


def replace_steps(pipeline: Pipeline, steps: tuple[Step, ...]) -> Pipeline:
    """The pipeline with other steps."""
    kept = pipeline
    return Pipeline(steps, kept.input, kept.outputs, kept.name, kept.summary, kept.source, kept.preview)


@dataclass(frozen=True)
class Folded:
    """What the checker found: the states it went through and (step index, message) problems."""

    states: tuple[ImageState, ...]
    problems: tuple[tuple[int, str], ...]


def fold(start: ImageState, stages: Sequence[Stage | None], known: Collection[str] = ()) -> Folded:
    """Walk the state through the stages and collect every mismatch; ``known`` are facts that are there from the start.

    ``None`` stands for a stage that is not known: what follows it is taken at its word. So is
    a stage after a complaint, so that one mistake is reported once.
    """
    state, states = start, [start]
    problems: list[tuple[int, str]] = []
    facts = set(known)
    guessing = False
    for index, stage in enumerate(stages):
        if stage is None:
            guessing = True
            states.append(state)
            continue
        spec = stage.spec
        accepts = stage.accepts()
        wrong = state.differences(accepts)
        if wrong and not guessing:
            problems.append((index, stage_refusal(stage, state, wrong)))
        if not guessing and not wrong:
            problems += [(index, missing_fact(spec, fact)) for fact in stage.needs() if fact not in facts]
        guessing = guessing and bool(wrong)
        state = stage.emits(state.changed({axis: accepts[axis][0] for axis in wrong}))
        facts |= {*spec.adds, *stage.needs()}
        states.append(state)
    return Folded(tuple(states), tuple(problems))


def output_problems(spec: OutputSpec, ids: Sequence[str], states: Sequence[ImageState]) -> Iterator[str]:
    """What is wrong with one output: a stage it names that is unknown, or a format that cannot hold the state there."""
    unknown = [name for name in (spec.tap, spec.hdr) if name is not None and name not in ids]
    yield from (f"output: no stage has the id '{name}'{did_you_mean(name, ids)}" for name in unknown)
    if spec.format == "ultrahdr" and spec.hdr is None:
        yield "output: ultrahdr needs hdr, the id of the stage whose light HDR displays show; hdr: ID"
        return
    if unknown:
        return
    state = states[tap_index(spec, ids) + 1]
    light = states[hdr_index(spec, ids) + 1] if spec.hdr is not None else state
    if frames := next((found.frames for found in (state, light) if found.frames != "single"), None):
        cure = "merge or fuse it first (merge.radiance, fusion.mertens)"
        yield f"output: the pipeline still holds a {frames} here; {cure}"
        return
    for message in delivery_problems(spec, state):
        yield f"output: {message}"
    if spec.hdr is not None and (unfit := hdr_problem(light)):
        yield f"output: {unfit}"


def tap_index(spec: OutputSpec, ids: Sequence[str]) -> int:
    """The index of the step whose result an output takes; -1 where there are no steps."""
    return len(ids) - 1 if spec.tap is None else list(ids).index(spec.tap)


def hdr_index(spec: OutputSpec, ids: Sequence[str]) -> int:
    """The index of the step whose result the HDR rendition of an Ultra HDR picture is made of."""
    assert spec.hdr is not None
    return list(ids).index(spec.hdr)


def parameter_problems(stage: type[Stage] | type[OutputSpec], params: Mapping[str, Any]) -> Iterator[str]:
    """Every mistake in the parameters of a stage or an output, one line each."""
    try:
        stage(**params)
    except ParameterError as error:
        yield from error.mistakes


def _refused(source: str, *messages: str) -> PipelineError:
    """What is wrong with a pipeline that is made, which may not come from a file."""
    return PipelineError(source, tuple(Problem(message, 0, 0) for message in messages))


def _numbered(steps: Sequence[Step | Stage]) -> Iterator[Step]:
    taken: dict[str, int] = {}
    for step in steps:
        if not isinstance(step, Step | Stage):
            raise TypeError(f"a pipeline is made of stages, got {step!r}; call the stage's class: Decode()")
        made = step if isinstance(step, Step) else Step(step.spec.name, step)
        count = taken[made.id] = taken.get(made.id, 0) + 1
        yield made if count == 1 else Step(f"{made.id}_{count}", made.stage)


def _plain(value: Any) -> dict[str, Any]:
    """A dataclass as plain YAML values."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(value), default=str))
    return plain


def _input_as_dict(spec: InputSpec) -> dict[str, Any]:
    content: dict[str, Any] = {"state": _plain(replace(spec.state, frames="single")), "frames": spec.state.frames}
    content["state"].pop("frames")
    if spec.grouping != Grouping():
        content["group"] = _plain(spec.grouping)
    if spec.exposures:
        content["exposures"] = list(spec.exposures)
    if spec.headerless is not None:
        content["headerless"] = _plain(spec.headerless)
    return content
