"""Which files make one picture each: folders listed, brackets grouped, and pictures named after what they come from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from restorekit.edge import needs_raw
from restorekit.errors import InputError
from restorekit.io.brackets import Grouping, group_brackets, name_order
from restorekit.io.read import READABLE, is_finished
from restorekit.journal import Journal
from restorekit.pipeline import Pipeline


@dataclass(frozen=True)
class Source:
    """The files of one picture, and what it is called: a path relative to the output folder, without extension."""

    files: tuple[Path, ...]
    name: Path


@dataclass
class Sources:
    """What the inputs of a run give.

    ``problems`` name inputs that cannot be used. ``passed_over`` are finished pictures of folders, such as cameras
    write beside their RAW files, where the pipeline starts from RAW.
    """

    found: list[Source] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    passed_over: list[Path] = field(default_factory=list)


def find(
    pipeline: Pipeline, inputs: Sequence[Path], journal: Journal, grouping: Grouping | None, recursive: bool
) -> Sources:
    """List the inputs of a pipeline. Files come before folders; only headers are read.

    Raises InputError for an input that does not exist.
    """
    start = pipeline.input.state if pipeline.input else None
    brackets = start is not None and start.frames != "single"
    from_raw = start is not None and start.reference == "sensor"
    rule = grouping or (pipeline.input.grouping if pipeline.input else Grouping())
    made = Sources()
    loose: dict[Path, Path] = {}
    for path in inputs:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder; check the path")
        if path.is_file():
            if path.suffix.lower() == ".xmp":
                continue  # a sidecar, which belongs to a picture
            if from_raw and is_finished(path):
                made.problems.append(needs_raw(str(path), brackets))
            else:
                loose.setdefault(path.resolve(), path)
            continue
        for files, where in _folders(path, journal, recursive, brackets, made.problems):
            if from_raw:
                finished = {file for file in files if is_finished(file)}
                made.passed_over += sorted(finished)
                files = [file for file in files if file not in finished]
            if brackets:
                made.found += _grouped(files, where, rule, made.problems, by_folder=rule.by == "folder")
            else:
                made.found += [Source((file,), where / file.stem) for file in files]
    named = list(loose.values())
    if brackets and named:
        together = grouping is None and len({path.parent for path in named}) == 1
        rule = Grouping(by="folder") if together else rule
        by_folder = rule.by == "folder" and not together
        made.found[:0] = _grouped(named, Path(), rule, made.problems, by_folder=by_folder)
    else:
        made.found[:0] = [Source((file,), Path(file.stem)) for file in named]
    if made.passed_over and not made.found and not made.problems:
        made.problems.append(needs_raw(str(made.passed_over[0]), brackets))
    return made


def _grouped(
    files: Sequence[Path], where: Path, rule: Grouping, problems: list[str], *, by_folder: bool
) -> list[Source]:
    """The brackets of one folder, ``where`` below the input; called for it where asked for, or where it holds one."""
    try:
        groups = group_brackets(files, rule, subfolder=where != Path())
    except InputError as error:
        problems.append(str(error))
        return []
    by_folder = by_folder or (len(groups) == 1 and where != Path())
    named: list[Source] = []
    for group in groups:
        members = tuple(sorted(group, key=name_order))
        folder = where if where != Path() else Path(Path(os.path.abspath(members[0].parent)).name)
        named.append(Source(members, folder if by_folder and folder.name else where / members[0].stem))
    return named


def _folders(
    root: Path, journal: Journal, recursive: bool, brackets: bool, problems: list[str]
) -> Iterator[tuple[list[Path], Path]]:
    """The folders to look into, with their readable files: subfolders one level deep for brackets.

    The output folder below an input folder, and files that we made, are no inputs. A folder that cannot be listed is
    a problem, and the others go on.
    """
    pattern = "**/" if recursive else "*/"
    below = sorted(path for path in root.glob(pattern) if path.is_dir()) if recursive or brackets else []
    output, base = journal.folder.resolve(), root.resolve()
    below_input = output != base and output.is_relative_to(base)
    for folder in [root, *(path for path in below if path != root)]:
        parts = folder.relative_to(root).parts
        if any(part.startswith(".") for part in parts) or (below_input and folder.resolve().is_relative_to(output)):
            continue
        try:
            files = sorted(path for path in folder.iterdir() if _is_input(path) and journal.entry(path) is None)
        except OSError as error:
            problems.append(f"{folder}: cannot be read ({error.strerror}); check its permissions")
            continue
        if files:
            yield files, folder.relative_to(root)


def _is_input(path: Path) -> bool:
    """Whether a file of a folder is called like a picture; a link to nowhere is, and fails when it is read."""
    called = path.suffix.lower() in READABLE and not path.name.startswith(".")
    return called and (path.is_file() or not path.exists())
