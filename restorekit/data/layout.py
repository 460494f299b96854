"""Which files of a folder are the targets and inputs of a set's parts, as its card lays them out. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from restorekit.data import cards
from restorekit.data.card import DatasetCard, Split
from restorekit.data.pattern import Pattern
from restorekit.errors import InputError

SAMPLE = 1000
"""So many files are enough to tell which set a folder holds."""

Key = tuple[str, ...]
"""What an input and its target have in common: the folder that the set lies in, and the names of the pattern."""


@dataclass(frozen=True)
class Part:
    """The files of a part. ``doubles`` are targets of the same name as another one, such as 1.jpg beside 1.png."""

    split: Split
    targets: Mapping[Key, Path]
    inputs: Sequence[tuple[Key, Path]]
    doubles: Sequence[Path] = ()

    @property
    def files(self) -> Iterable[Path]:
        yield from self.targets.values()
        yield from (path for _, path in self.inputs)
        yield from self.doubles

    @cached_property
    def pairs(self) -> Sequence[tuple[Path, Path]]:
        """Inputs with their targets."""
        return [(path, self.targets[key]) for key, path in self.inputs if key in self.targets]

    @property
    def is_paired(self) -> bool:
        """Whether both inputs and targets are there; often only one of them is downloaded."""
        return bool(self.targets) and bool(self.inputs)

    @property
    def lonely_inputs(self) -> Sequence[Path]:
        """Inputs without a target, where there are targets."""
        return [path for key, path in self.inputs if key not in self.targets] if self.is_paired else []

    @property
    def lonely_targets(self) -> Sequence[Path]:
        """Targets without an input, where there are inputs."""
        keys = {key for key, _ in self.inputs}
        return [path for key, path in self.targets.items() if key not in keys] if self.is_paired else []


def sort(split: Split, paths: Iterable[Path]) -> Part:
    """The files of a part among absolute paths, in their order."""
    targets: dict[Key, Path] = {}
    inputs: list[tuple[Key, Path]] = []
    doubles: list[Path] = []
    target = Pattern(split.targets) if split.targets else None
    input = Pattern(split.inputs) if split.inputs else None
    shared = target.names if target else input.names if input else ()
    for path in paths:
        text = path.as_posix()
        if target and (found := target.at_end(text)):
            key = (found[0], *(found[1][name] for name in shared))
            if key in targets:
                doubles.append(path)
            else:
                targets[key] = path
        elif input and (found := input.at_end(text)):
            inputs.append(((found[0], *(found[1][name] for name in shared)), path))
    return Part(split, targets, inputs, doubles)


def recognise(paths: Sequence[Path]) -> DatasetCard | None:
    """The card whose layout most of the files have, of absolute paths; ``None`` where less than half have one.

    Broken cards are passed over.
    """
    some = [path.as_posix() for path in paths[:: max(1, len(paths) // SAMPLE)]]
    best: tuple[int, int] = ((len(some) + 1) // 2, 0)
    found = None
    for path in cards.files().values():
        try:
            card = cards.card(path.stem)
        except InputError:
            continue
        patterns = [
            Pattern(text) for text in {text for split in card.layout for text in (split.targets, split.inputs) if text}
        ]
        hits = [max((p.literal for p in patterns if p.at_end(text)), default=0) for text in some]
        rank = (sum(hit > 0 for hit in hits), sum(hits))
        if rank > best:
            best, found = rank, card
    return found
