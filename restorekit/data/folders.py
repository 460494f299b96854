"""Pictures of folders as they are trained on: single ones, or an input and its target, 8 bits of sRGB."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from restorekit.data.card import Split
from restorekit.data.layout import sort
from restorekit.data.pattern import Pattern
from restorekit.edge import bridge
from restorekit.errors import InputError
from restorekit.frame import Frame
from restorekit.io.brackets import name_order
from restorekit.io.read import READABLE, read
from restorekit.metrics.light import is_hdr
from restorekit.metrics.super_resolution import eight_bit
from restorekit.planes import to_float
from restorekit.state import SHORTHANDS

MEMORY = 4 << 30
"""Bytes of decoded pictures that are kept."""

SRGB = SHORTHANDS["display-srgb"]


class Pair(NamedTuple):
    """A poor picture and the good one it should become."""

    input: Path
    target: Path


def unpaired(folder: Path) -> list[Path]:
    """The image files of a folder and its subfolders, in the order in which a person lists them.

    Hidden ones are left out. Raises InputError where there is no folder, or no image in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder; name a folder of pictures")
    inside = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in READABLE)
    seen = [path for path in inside if not any(part.startswith(".") for part in path.parts)]
    found = [folder / path for path in sorted(seen, key=_natural) if (folder / path).is_file()]
    if not found:
        raise InputError(f"{folder}: holds no readable image, nor do its subfolders; name a folder of pictures")
    return found


def paired(inputs: Path, targets: Path, pattern: str = "{stem}", target_pattern: str = "{stem}") -> list[Pair]:
    """Inputs with their targets, which are named alike: by the path in their folder, without its ending.

    Where no target is called like an input, ``pattern`` tells how inputs are called: ``{stem}x2`` belongs to the target
    ``{stem}``, and ``{stem}_*`` are several inputs of one. ``target_pattern`` is for targets with more in their names.

    Raises InputError with the first input or target that has no partner, and for patterns that cannot go together.
    """
    shape, target_shape = (Pattern(text, nested=True) for text in (pattern, target_pattern))
    if missing := set(target_shape.names) - set(shape.names) or {"stem"} - set(target_shape.names):
        raise InputError(f"patterns {pattern} and {target_pattern}: {{{min(missing)}}} must stand in both")
    by_name: dict[str, Path] = {}
    for path in unpaired(targets):
        if (other := by_name.setdefault(_name(path, targets), path)) is not path:
            raise InputError(f"{path}: is called like {other.name}; keep one of the two targets")
    by_key = {_key(target_shape, name, target_shape): path for name, path in by_name.items()}
    pairs, lonely = [], []
    for path in unpaired(inputs):
        name = _name(path, inputs)
        key = _key(shape, name, target_shape)
        target = by_name.get(name) or (by_key.get(key) if key else None)
        if target is None:
            lonely.append(path)
        else:
            pairs.append(Pair(path, target))
    found = {pair.target for pair in pairs}
    for kind, partner, alone in (
        ("inputs", f"target in {targets}", lonely),
        ("targets", f"input in {inputs}", [path for path in by_name.values() if path not in found]),
    ):
        if alone:
            raise InputError(
                f"{alone[0]}: has no {partner} ({len(alone)} such {kind}); complete the folders, or give the pattern "
                "of the inputs' names, such as {stem}x2"
            )
    return pairs


def split_pairs(split: Split, folder: Path) -> list[Pair]:
    """The inputs and targets of a part of a set, as its card lays them out, wherever below the folder they lie.

    Raises InputError where there are none, and with the first input or target that has no partner.
    """
    part = sort(split, [path.absolute() for path in unpaired(folder)])
    if not part.pairs:
        raise InputError(f"{folder}: holds no pairs {split.inputs} and {split.targets}; name the folder they lie in")
    for kind, alone in (("inputs", part.lonely_inputs), ("targets", part.lonely_targets)):
        if alone:
            raise InputError(f"{alone[0]}: has no partner ({len(alone)} such {kind} of {split.name}); complete the set")
    return [Pair(*pair) for pair in part.pairs]


def read_rgb8(path: Path) -> Tensor:
    """A finished picture as uint8 ``[3,H,W]``, encoded sRGB, upright.

    Gray has three equal channels, alpha is ignored, more bits are rounded, and wider colours are cut to the gamut.

    Raises InputError for files that cannot be read, for RAW files, and for scene light and HDR pictures.
    """
    frame = read(path, sidecar=False)
    if frame.state.reference != "display" or is_hdr(frame.state):
        raise InputError(f"{path}: is {frame.state}; use finished SDR pictures, such as PNG or JPEG files")
    if frame.pixels.dtype == torch.uint8 and frame.state in (SRGB, replace(SRGB, layout="gray")):
        return frame.pixels.expand(3, -1, -1).contiguous()
    return eight_bit(to_float(_srgb(frame).pixels)).contiguous()


class Pictures:
    """Pictures as uint8 ``[3,H,W]`` sRGB, decoded when they are asked for, by :func:`read_rgb8`.

    They are kept while they take less than ``memory`` bytes together; the others are decoded every time. Do not change
    a picture in place: it may be the one that is kept.
    """

    def __init__(self, paths: Sequence[Path], memory: int = MEMORY) -> None:
        self.paths = tuple(paths)
        self._free = memory
        self._kept: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        index = range(len(self.paths))[index]
        if (kept := self._kept.get(index)) is not None:
            return kept
        picture = read_rgb8(self.paths[index])
        if picture.nbytes <= self._free:
            self._free -= picture.nbytes
            self._kept[index] = picture
        return picture


def _natural(path: Path) -> tuple[object, ...]:
    """The order of a person, in subfolders too: a/9.png comes before a/10.png, and files before folders."""
    return tuple((index < len(path.parts) - 1, name_order(Path(part))) for index, part in enumerate(path.parts))


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _key(shape: Pattern, name: str, target: Pattern) -> tuple[str, ...] | None:
    """What an input and its target have in common; ``None`` for names of another shape."""
    found = shape.match(name)
    return None if found is None else tuple(found[part] for part in target.names)


def _srgb(frame: Frame) -> Frame:
    frame = frame.as_float()
    for step in bridge(frame.state, SRGB, frame.name):
        frame = replace(step.stage.apply(frame), state=step.stage.emits(frame.state))
    return frame
