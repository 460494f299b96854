"""What a run will do: a job a picture, outputs named, what is up to date."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from restorekit.delivery import delivered
from restorekit.errors import InputError, RestorekitError
from restorekit.io.brackets import Grouping
from restorekit.io.formats import FORMATS, Format, OutputColor, OutputSpec, format_of_path
from restorekit.io.read import KINDS, READABLE
from restorekit.io.sidecar import beside
from restorekit.journal import Journal, stamp
from restorekit.names import did_you_mean
from restorekit.pipeline import Pipeline, output_problems, tap_index
from restorekit.sources import find

Existing = Literal["skip", "overwrite", "rename", "error"]
Action = Literal["run", "up to date", "kept"]

_KNOWN = READABLE | {".jp2", ".j2k", ".jxr", ".pdf", ".pfm", ".ppm", ".psb", ".psd", ".svg", ".tga", ".xcf"}
FOREIGN = _KNOWN - {extension for kind in FORMATS.values() for extension in kind.extensions}
"""Extensions of pictures that are not written, whether they are read or not."""


@dataclass(frozen=True)
class Job:
    """One picture to make: the files it comes from, the files it gives, and what is to be done."""

    inputs: tuple[Path, ...]
    outputs: tuple[Path, ...]
    key: str
    action: Action = "run"
    why: str = ""

    @property
    def name(self) -> str:
        if len(self.inputs) == 1:
            return self.inputs[0].name
        return f"{self.inputs[0].parent.name}/{self.inputs[0].name} and {len(self.inputs) - 1} more"


@dataclass(frozen=True)
class Plan:
    """Everything a run will do. ``folder`` is where outputs go; ``problems`` name inputs that cannot be used.

    ``passed_over`` are the finished pictures of folders, where the pipeline starts from RAW. ``single_file`` is true
    where the output was named as one file, not as a folder.
    """

    jobs: tuple[Job, ...]
    folder: Path
    outputs: tuple[OutputSpec, ...]
    journal: Journal
    problems: tuple[str, ...] = ()
    passed_over: tuple[Path, ...] = ()
    single_file: bool = False

    def remove_leftovers(self) -> int:
        """Remove what a killed run left half-written; how many files that were."""
        parts = [path.with_name(path.name + ".part") for job in self.jobs for path in job.outputs]
        found = [part for part in parts if part.exists()]
        for part in found:
            part.unlink()
        return len(found)


def plan(
    pipeline: Pipeline,
    inputs: Sequence[Path],
    output: Path,
    *,
    grouping: Grouping | None = None,
    existing: Existing = "skip",
    recursive: bool = False,
    sidecars: bool = True,
    salt: str = "",
) -> Plan:
    """List the jobs of a run. Nothing is opened but the headers that grouping needs.

    ``salt`` joins the key of every job: settings of the run that change results. With ``sidecars`` the XMP files
    beside inputs do too.

    Raises InputError when an input does not exist or nothing readable was found, PipelineError when the
    states of the pipeline do not fit, and RestorekitError when an output cannot hold its state, would overwrite an
    input, or exists under ``existing="error"``.
    """
    pipeline, single = for_output(pipeline, inputs, output)
    outputs = pipeline.outputs
    _check(pipeline, outputs, output)
    folder = output.parent if single else output
    journal = Journal(folder)
    sources = find(pipeline, inputs, journal, grouping, recursive)
    if not sources.found and not sources.problems:
        names = ", ".join(str(path) for path in inputs)
        where = "" if recursive else " (subfolders only with --recursive)"
        raise InputError(f"{names}: no readable image found{where}; readable are {KINDS}")
    if single and len(sources.found) > 1:
        raise RestorekitError(f"{output}: is one file, but {len(sources.found)} pictures would be made; name a folder")
    used: set[Path] = set()
    jobs: list[Job] = []
    touched = {os.path.realpath(path) for source in sources.found for path in source.files}
    settings = repr((pipeline.fingerprint, salt, _stamped(pipeline)))
    for source in sources.found:
        wanted = (output,) if single else _names(outputs, folder, source.name, source.files, used)
        clash = [path for path in wanted if os.path.realpath(path) in touched]
        if clash:
            raise RestorekitError(f"{clash[0]}: the output would overwrite its input; name another output folder")
        job = _decide(Job(source.files, wanted, _key(settings, source.files, sidecars)), journal, existing, used)
        used |= set(job.outputs)
        jobs.append(job)
    problems, passed_over = tuple(sources.problems), tuple(sources.passed_over)
    return Plan(tuple(jobs), folder, tuple(outputs), journal, problems, passed_over, single)


def _single_file(inputs: Sequence[Path], output: Path) -> bool:
    """Whether the output is one named file: a known extension, and no folder of that name."""
    if output.is_dir():
        return False
    if format_of_path(output) is None:
        if output.suffix.lower() in FOREIGN:
            raise RestorekitError(f"{output}: cannot be written as {output.suffix}; written are {', '.join(FORMATS)}")
        known = [extension for form in FORMATS.values() for extension in form.extensions]
        if len(inputs) == 1 and inputs[0].is_file() and (hint := did_you_mean(output.suffix.lower(), known)):
            raise RestorekitError(f"{output}: no format has the extension {output.suffix}{hint}")
        return False
    folder = next((path for path in inputs if path.is_dir()), None)
    if folder is not None:
        raise RestorekitError(
            f"{output}: is one file, but the input {folder} is a folder; name a folder for the output"
        )
    return True


def _check(pipeline: Pipeline, outputs: Sequence[OutputSpec], output: Path) -> None:
    """Refuse before any work what parameters set later, or the extension of the output, have made impossible."""
    states = pipeline.states()
    ids = [step.id for step in pipeline.steps]
    for spec in outputs if states else ():
        for message in output_problems(spec, ids, states):
            raise RestorekitError(f"{output}: {message.removeprefix('output: ')}{_other_pipeline(pipeline, spec)}")


def _other_pipeline(pipeline: Pipeline, spec: OutputSpec) -> str:
    """The shipped pipeline for linear light of RAW files, where a format for that cannot hold what this one makes."""
    start = pipeline.input.state if pipeline.input else None
    from_raw = start is not None and (start.reference, start.frames) == ("sensor", "single")
    light = FORMATS[spec.format].transfers == ("linear",) and spec.format != "dng"
    return "; for linear light of RAW files use raw-to-linear-exr" if from_raw and light else ""


def _stamped(pipeline: Pipeline) -> list[tuple[Path, object]]:
    """The files that stages read, each with what tells its versions apart."""
    return [(path, stamp(path)) for step in pipeline.steps for path in step.stage.files()]


def for_output(pipeline: Pipeline, inputs: Sequence[Path], output: Path) -> tuple[Pipeline, bool]:
    """The pipeline with the one output that is named where ``output`` is a file, and whether it is one.

    Raises RestorekitError for a file of a format that is not written, and for one file for a folder of inputs.
    """
    if not _single_file(inputs, output):
        return pipeline, False
    return pipeline.with_outputs(_specs_for_file(pipeline, output)), True


def _specs_for_file(pipeline: Pipeline, output: Path) -> tuple[OutputSpec, ...]:
    """The output the pipeline declares for this extension, or its first one in that format.

    The colour space, the stage it is taken from, and a depth that the format has too are kept. ``.jpg`` stands for an
    Ultra HDR picture where the pipeline declares one and no JPEG before it. A format that cannot hold the first output
    gets the standard picture of an Ultra HDR one, if need be in the colour space that this has there, or in sRGB.
    """
    wanted = format_of_path(output)
    assert wanted is not None
    same = [spec for spec in pipeline.outputs if output.suffix.lower() in FORMATS[spec.format].extensions]
    if same:
        return (same[0],)
    ids, states = [step.id for step in pipeline.steps], pipeline.states()
    made = [_in_format(pipeline.outputs[0], wanted)]
    for spec in pipeline.outputs if states else ():
        if spec.format == "ultrahdr" and not any(output_problems(spec, ids, states)):
            base = delivered(states[tap_index(spec, ids) + 1], spec)
            colors: tuple[OutputColor | None, ...] = (spec.color, "p3" if base.primaries == "p3" else "srgb", "srgb")
            made += [replace(_in_format(spec, wanted), color=color) for color in colors]
    fitting = (spec for spec in made if states and not any(output_problems(spec, ids, states)))
    return (next(fitting, made[0]),)


def _in_format(spec: OutputSpec, wanted: Format) -> OutputSpec:
    """An output in another format that holds one picture."""
    bits = spec.bits if spec.bits in FORMATS[wanted].bits else None
    return replace(spec, format=wanted, bits=bits, compression=None, from_=spec.tap, hdr=None, sdr=None, headroom=None)


def _names(
    specs: Sequence[OutputSpec], folder: Path, relative: Path, paths: Sequence[Path], used: set[Path]
) -> tuple[Path, ...]:
    """Output paths; a picture whose names are taken by another of this run gets its extension into them."""

    def paths_for(stem: str) -> tuple[Path, ...]:
        return tuple(folder / relative.parent / (spec.name.format(stem=stem) + spec.extension) for spec in specs)

    wanted = paths_for(relative.name)
    if any(path in used for path in wanted):
        wanted = paths_for(f"{relative.name}_{paths[0].suffix.lstrip('.').lower()}")
    if any(path in used for path in wanted):
        raise RestorekitError(
            f"{paths[0]}: its output {wanted[0].name} is already made from another input of this run; "
            "run them into two folders"
        )
    return wanted


def _key(settings: str, paths: Sequence[Path], sidecars: bool) -> str:
    """What decides the bytes of an output: pipeline, settings, and names, sizes and times of inputs and sidecars.

    A file that cannot be asked has none of these, and fails when it is read.
    """
    files = [*paths, *(found for path in paths if sidecars and (found := beside(path)) is not None)]
    stats = [(path.name, stamp(path) if path.exists() else None) for path in files]
    return hashlib.sha256(repr((settings, stats)).encode()).hexdigest()[:16]


def _decide(job: Job, journal: Journal, existing: Existing, used: set[Path]) -> Job:
    there = [path for path in job.outputs if path.exists()]
    if existing == "rename" and (there or any(path in used for path in job.outputs)):
        return replace(job, outputs=_free_names(job.outputs, used))
    if not there or existing == "overwrite":
        return job
    if existing == "error":
        raise RestorekitError(f"{there[0]}: exists already; choose --existing skip, overwrite or rename")
    entries = [entry for path in there if (entry := journal.entry(path)) is not None]
    if len(entries) < len(there):
        why = "exists and was not made by this pipeline here; --existing overwrite replaces it"
        return replace(job, action="kept", why=why)
    if any(entry.stamp is None for entry in entries):
        return replace(job, why="it was not finished")
    if any(entry.key != job.key for entry in entries):
        others = {file for entry in entries for file in entry.inputs}
        if others and others.isdisjoint(map(os.path.realpath, job.inputs)):
            why = f"was made from {min(others)}; --existing rename keeps both, overwrite replaces it"
            return replace(job, action="kept", why=why)
        return replace(job, why="the pipeline or the input changed")
    if len(there) < len(job.outputs):
        return replace(job, why="an output is missing")
    return replace(job, action="up to date", why="made by the same pipeline from the same input")


def _free_names(paths: Sequence[Path], used: set[Path]) -> tuple[Path, ...]:
    number = 1
    while True:
        renamed = tuple(path.with_name(f"{path.stem}_{number}{path.suffix}") for path in paths)
        if not any(path.exists() or path in used for path in renamed):
            return renamed
        number += 1


def formats_of(specs: Iterable[OutputSpec]) -> str:
    """The formats of outputs in words."""
    colors = {None: "", "source": " in the colours of the input"}
    return ", ".join(f"{spec.format} {spec.depth} bit{colors.get(spec.color, f' {spec.color}')}" for spec in specs)
