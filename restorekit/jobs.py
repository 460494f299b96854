"""Which files make which pictures: inputs listed, brackets grouped, outputs named, what is up to date."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from restorekit.errors import InputError, RestorekitError
from restorekit.io.brackets import Grouping, group_brackets
from restorekit.io.formats import FORMATS, OutputSpec, format_of_path
from restorekit.io.read import READABLE
from restorekit.pipeline import Pipeline

Existing = Literal["skip", "overwrite", "rename", "error"]
Action = Literal["run", "up to date", "kept"]

STATE_FOLDER = ".restorekit"
JOURNAL = "journal.jsonl"


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
    """Everything a run will do. ``folder`` is where outputs go; ``problems`` name inputs that cannot be used."""

    jobs: tuple[Job, ...]
    folder: Path
    outputs: tuple[OutputSpec, ...]
    journal: Path | None
    problems: tuple[str, ...] = ()


def plan(
    pipeline: Pipeline,
    inputs: Sequence[Path],
    output: Path,
    *,
    grouping: Grouping | None = None,
    existing: Existing = "skip",
    recursive: bool = False,
    salt: str = "",
) -> Plan:
    """List the jobs of a run. Nothing is opened but the headers that grouping needs.

    ``salt`` joins the key of every job: settings of the run that change results.

    Raises InputError when an input does not exist or nothing readable was found, and
    RestorekitError when an output would overwrite an input or exists under ``existing="error"``.
    """
    single = _single_file(inputs, output)
    outputs = _specs_for_file(pipeline, output) if single else pipeline.outputs
    folder = output.parent if single else output
    sources, problems = _sources(pipeline, inputs, folder, grouping, recursive)
    if not sources and not problems:
        names = ", ".join(str(path) for path in inputs)
        where = "" if recursive else " (subfolders only with --recursive)"
        raise InputError(f"{names}: no readable image found{where}; readable are {', '.join(sorted(READABLE))}")
    if single and len(sources) > 1:
        raise RestorekitError(f"{output}: is one file, but {len(sources)} pictures would be made; name a folder")
    journal = None if single else folder / STATE_FOLDER / JOURNAL
    known = read_journal(journal) if journal else {}
    used: set[Path] = set()
    jobs: list[Job] = []
    touched = {path.resolve() for paths, _ in sources for path in paths}
    for paths, relative in sources:
        wanted = (output,) if single else _names(outputs, folder, relative, paths, used)
        used |= set(wanted)
        clash = [path for path in wanted if path.resolve() in touched]
        if clash:
            raise RestorekitError(f"{clash[0]}: the output would overwrite its input; name another output folder")
        key = _key(pipeline, paths, salt)
        jobs.append(_decide(Job(tuple(paths), wanted, key), known, existing, folder))
    return Plan(tuple(jobs), folder, tuple(outputs), journal, tuple(problems))


def _single_file(inputs: Sequence[Path], output: Path) -> bool:
    """Whether the output is one named file: a known extension, and no folder of that name."""
    return format_of_path(output) is not None and not output.is_dir() and not any(path.is_dir() for path in inputs)


def _specs_for_file(pipeline: Pipeline, output: Path) -> tuple[OutputSpec, ...]:
    """The output the pipeline declares for this extension, or that format with its defaults."""
    wanted = format_of_path(output)
    assert wanted is not None
    same = [spec for spec in pipeline.outputs if spec.format == wanted]
    return (same[0] if same else OutputSpec(format=wanted),)


def _sources(
    pipeline: Pipeline, inputs: Sequence[Path], folder: Path, grouping: Grouping | None, recursive: bool
) -> tuple[list[tuple[tuple[Path, ...], Path]], list[str]]:
    """Groups of files that make one picture each, with their name relative to the output folder."""
    brackets = pipeline.input is not None and pipeline.input.state.frames != "single"
    rule = grouping or (pipeline.input.grouping if pipeline.input else Grouping())
    found: list[tuple[tuple[Path, ...], Path]] = []
    problems: list[str] = []
    loose: list[Path] = []
    for path in inputs:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
        if path.is_file():
            loose.append(path)
            continue
        for files, where in _folders(path, folder, recursive, brackets):
            if not brackets:
                found += [((file,), where / file.stem) for file in files]
                continue
            found += _grouped(files, where, rule, problems)
    if brackets and loose:
        rule = grouping or (Grouping(by="folder") if len({path.parent for path in loose}) == 1 else rule)
        found = _grouped(loose, Path(), rule, problems) + found
    else:
        found = [((file,), Path(file.stem)) for file in loose] + found
    return found, problems


def _grouped(
    files: Sequence[Path], where: Path, rule: Grouping, problems: list[str]
) -> list[tuple[tuple[Path, ...], Path]]:
    try:
        groups = group_brackets(files, rule, subfolder=where != Path())
    except InputError as error:
        problems.append(str(error))
        return []
    named: list[tuple[tuple[Path, ...], Path]] = []
    for group in groups:
        alone = len(groups) == 1 and where != Path()
        named.append((group, where.parent / where.name if alone else where / min(group).stem))
    return named


def _folders(root: Path, output: Path, recursive: bool, brackets: bool) -> Iterable[tuple[list[Path], Path]]:
    """The folders to look into, with their readable files: subfolders one level deep for brackets."""
    pattern = "**/" if recursive else "*/"
    below = sorted(path for path in root.glob(pattern) if path.is_dir()) if recursive or brackets else []
    skipped = output.resolve()
    for folder in [root, *(path for path in below if path != root)]:
        parts = folder.relative_to(root).parts
        if any(part.startswith(".") for part in parts) or (folder != root and folder.resolve() == skipped):
            continue
        files = sorted(
            p for p in folder.iterdir() if p.is_file() and p.suffix.lower() in READABLE and not p.name.startswith(".")
        )
        if files:
            yield files, folder.relative_to(root)


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


def _key(pipeline: Pipeline, paths: Sequence[Path], salt: str) -> str:
    """What decides the bytes of an output: pipeline, settings, and the inputs' names, sizes and times."""
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return hashlib.sha256(repr((pipeline.fingerprint, salt, stats)).encode()).hexdigest()[:16]


def _decide(job: Job, known: Mapping[str, Mapping[str, Any]], existing: Existing, folder: Path) -> Job:
    there = [path for path in job.outputs if path.exists()]
    if not there or existing == "overwrite":
        return job
    if existing == "error":
        raise RestorekitError(f"{there[0]}: exists already; choose --existing skip, overwrite or rename")
    if existing == "rename":
        return replace(job, outputs=_free_names(job.outputs))
    entries = [known.get(str(path.relative_to(folder))) for path in job.outputs]
    ours = [
        entry
        for path, entry in zip(job.outputs, entries, strict=True)
        if entry and path.exists() and entry["stamp"] == stamp(path)
    ]
    if len(ours) == len(job.outputs) and all(entry["key"] == job.key for entry in ours):
        return replace(job, action="up to date", why="made by the same pipeline from the same input")
    if len(ours) == len(there):
        return replace(
            job, why="the pipeline or the input changed" if len(there) == len(job.outputs) else "an output is missing"
        )
    return replace(
        job, action="kept", why="exists and was not made by this pipeline here; --existing overwrite replaces it"
    )


def _free_names(paths: Sequence[Path]) -> tuple[Path, ...]:
    number = 1
    while True:
        renamed = tuple(path.with_name(f"{path.stem}_{number}{path.suffix}") for path in paths)
        if not any(path.exists() for path in renamed):
            return renamed
        number += 1


def stamp(path: Path) -> list[int]:
    """Size and modification time, by which a file is known to be unchanged."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def read_journal(path: Path) -> dict[str, dict[str, Any]]:
    """The last entry of every output; lines a killed run left half-written are passed over."""
    entries: dict[str, dict[str, Any]] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    for line in lines:
        try:
            entry = json.loads(line)
            entries[entry["output"]] = entry
        except (ValueError, KeyError, TypeError):
            continue
    return entries


def formats_of(specs: Iterable[OutputSpec]) -> str:
    """The formats of outputs in words."""
    return ", ".join(f"{spec.format} {spec.bits or FORMATS[spec.format].default_bits} bit" for spec in specs)
