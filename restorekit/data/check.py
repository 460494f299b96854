"""Whether a folder of pictures can be trained on: all there, in pairs, readable, of sizes that go together."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from restorekit.data.card import DatasetCard, Role, Split
from restorekit.data.folders import unpaired
from restorekit.data.layout import Key, Part, recognise, sort
from restorekit.errors import InputError, RestorekitError
from restorekit.io.read import read

Size = tuple[int, int]
"""Width and height in px."""

Progress = Callable[[int, int], None]
"""Is told how many pictures of how many have been read."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with a file, or with a folder."""

    path: Path
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


@dataclass(frozen=True)
class Counted:
    """How many targets and inputs of a part are there, and how many of each the card tells, where it does."""

    name: str
    role: Role | None
    targets: int
    inputs: int
    pictures: int | None
    input_pictures: int | None


@dataclass(frozen=True)
class Report:
    """What was found. ``card`` is the set whose layout the folder has; ``others`` pictures belong to no part of it.

    ``smallest`` and ``largest`` are the sizes of the least and the most px, ``None`` where no picture was read.
    """

    folder: Path
    card: str | None
    pictures: int
    others: int
    parts: tuple[Counted, ...]
    smallest: Size | None
    largest: Size | None
    problems: tuple[Problem, ...]


def check(
    folder: Path, card: DatasetCard | None = None, *, quick: bool = False, progress: Progress | None = None
) -> Report:
    """Compare a folder with the layout of a card (else of the one whose layout it has), and read all its pictures.

    Parts that are not there at all are no problem, nor is it when only the targets or only the inputs of one are. Two
    subfolders of pictures with the same names are taken as pairs where no card fits. ``quick`` looks at names alone:
    nothing is read, neither sizes nor contents are compared.

    Raises InputError where there are no pictures, or none that ``card`` lays out.
    """
    folder = folder.absolute()
    paths = unpaired(folder)
    known = card or recognise(paths)
    sizes, problems = ({}, []) if quick else _read(paths, progress)
    parts = _own(folder, paths, sizes) if known is None else _laid_out(known, folder, paths)
    for part in parts:
        problems += [*_alone(part), *([] if known is None else _miscounted(part, folder)), *_misfits(part, sizes)]
    if not quick:
        problems += _copies(paths, parts)
    by_area = sorted(sizes.values(), key=_area)
    return Report(
        folder=folder,
        card=None if known is None else known.id,
        pictures=len(paths),
        others=len(set(paths) - {path for part in parts for path in part.files}),
        parts=tuple(_counted(part, known) for part in parts),
        smallest=by_area[0] if by_area else None,
        largest=by_area[-1] if by_area else None,
        problems=tuple(dict.fromkeys(problems)),
    )


def _read(paths: Sequence[Path], progress: Progress | None) -> tuple[dict[Path, Size], list[Problem]]:
    """Sizes of all pictures that can be decoded, and what is wrong with the others."""

    def size_of(path: Path) -> Size | Problem:
        try:
            frame = read(path, sidecar=False)
        except RestorekitError as error:
            return Problem(path, str(error).removeprefix(f"{path}: "))
        return frame.width, frame.height

    sizes, problems = {}, []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, found in zip(paths, pool.map(size_of, paths), strict=True):
            if isinstance(found, Problem):
                problems.append(found)
            else:
                sizes[path] = found
            if progress is not None:
                progress(len(sizes) + len(problems), len(paths))
    return sizes, problems


def _laid_out(card: DatasetCard, folder: Path, paths: Sequence[Path]) -> list[Part]:
    """The parts of a set that are there."""
    parts = [part for part in (sort(split, paths) for split in card.layout) if part.targets or part.inputs]
    if not parts:
        raise InputError(
            f"{folder}: has no file of the layout of {card.id}; restorekit datasets show {card.id} tells how it lies"
        )
    return parts


def _own(folder: Path, paths: Sequence[Path], sizes: Mapping[Path, Size]) -> list[Part]:
    """Two subfolders that share most names, as one part; the larger pictures are the targets."""
    by_folder: dict[str, dict[Key, Path]] = defaultdict(dict)
    for path in paths:
        first, *rest = path.relative_to(folder).with_suffix("").parts
        by_folder[first if rest else ""][tuple(rest)] = path
    if len(by_folder) != 2 or "" in by_folder:
        return []
    of_input, of_target = sorted(by_folder, key=lambda name: sum(_area(sizes.get(p)) for p in by_folder[name].values()))
    inputs, targets = by_folder[of_input], by_folder[of_target]
    shared = inputs.keys() & targets.keys()
    if 2 * len(shared) < min(len(inputs), len(targets)):
        return []
    ratios = Counter(
        sizes[targets[key]][0] // sizes[inputs[key]][0] for key in shared if {inputs[key], targets[key]} <= sizes.keys()
    )
    scale = max(1, ratios.most_common(1)[0][0]) if ratios else 1
    name = f"{of_input} and {of_target}"
    return [Part(Split(name=name, role="train", targets=of_target, scale=scale), targets, [*inputs.items()])]


def _counted(part: Part, card: DatasetCard | None) -> Counted:
    split = part.split
    if card is None:
        return Counted(split.name, None, len(part.targets), len(part.inputs), None, None)
    wanted = split.pictures if split.targets else None
    return Counted(split.name, split.role, len(part.targets), len(part.inputs), wanted, _wanted_inputs(split))


def _wanted_inputs(split: Split) -> int | None:
    return None if split.inputs is None else split.pictures if split.input_pictures is None else split.input_pictures


def _alone(part: Part) -> Iterator[Problem]:
    """Files of a part without a partner, and targets of one name."""
    for path in part.lonely_inputs:
        yield Problem(path, "has no target")
    for path in part.lonely_targets:
        yield Problem(path, "has no input")
    for path in part.doubles:
        yield Problem(path, "is called like another target")


def _miscounted(part: Part, folder: Path) -> Iterator[Problem]:
    """Other numbers than the card tells, of what is there at all."""
    split = part.split
    for pattern, there, wanted in (
        (split.targets, len(part.targets), split.pictures),
        (split.inputs, len(part.inputs), _wanted_inputs(split)),
    ):
        if pattern is not None and wanted is not None and there not in (0, wanted):
            yield Problem(folder, f"holds {there} pictures {pattern}, the card tells {wanted}")


def _misfits(part: Part, sizes: Mapping[Path, Size]) -> Iterator[Problem]:
    """Targets that are not ``scale`` times as large as their inputs."""
    scale = part.split.scale
    for input, target in part.pairs:
        if scale is None or input not in sizes or target not in sizes:
            continue
        (width, height), (wide, high) = sizes[input], sizes[target]
        if (wide, high) != (scale * width, scale * height):
            needs = "the same size" if scale == 1 else f"{scale} times the size"
            yield Problem(input, f"is {width}x{height} px, its target {target} is {wide}x{high} and not of {needs}")


def _copies(paths: Sequence[Path], parts: Sequence[Part]) -> Iterator[Problem]:
    """Files with the same bytes as an earlier one, but for targets of which the card says that they come again."""
    role = {path: part.split.role for part in parts for path in part.files}
    again = {path for part in parts if part.split.repeats for path in part.targets.values()}
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in paths:
        by_size[path.stat().st_size].append(path)
    first: dict[bytes, Path] = {}
    for path in (path for same in by_size.values() if len(same) > 1 for path in same):
        with path.open("rb") as file:
            earlier = first.setdefault(hashlib.file_digest(file, "sha256").digest(), path)
        if earlier is path or {path, earlier} <= again:
            continue
        mixed = role.get(path) != role.get(earlier)
        yield Problem(
            path, f"is the same file as {earlier}" + (f", which is for {role.get(earlier, 'nothing')}" if mixed else "")
        )


def _area(size: Size | None) -> int:
    return 0 if size is None else size[0] * size[1]
