"""Dataset cards: what a set of pictures is, what it may be used for, where it comes from, how its files lie.

A card is ``datasets/<id>.yaml``; reading one loads no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pydantic

from restorekit.data.pattern import Pattern
from restorekit.errors import InputError
from restorekit.yaml_model import read_model
from restorekit.zoo.card import Paper

Role = Literal["train", "validation", "test", "folds"]
"""What a part is for; ``folds`` are sets on which the field measures by cross-validation."""

Task = Literal[
    "super-resolution", "denoising", "jpeg", "deraining", "weather", "reflection", "low-light", "enhancement",
    "illuminant", "fusion", "hdr",
]  # fmt: skip


class _Part(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Split(_Part):
    """A part of a set. ``targets`` and ``inputs`` are patterns of :mod:`restorekit.data.pattern`.

    They are matched with the end of a path, so that the set may lie anywhere. An input belongs to the target in which
    all names of the target's pattern stand for the same; several inputs may have one target. ``pictures`` counts the
    targets (the inputs where there are no targets), ``input_pictures`` the inputs where their number is another. Sides
    of a target are ``scale`` times those of its input; ``None`` says nothing about them. ``repeats``: the same target
    lies there under several names.
    """

    name: str
    role: Role
    targets: str | None = None
    inputs: str | None = None
    pictures: int | None = None
    input_pictures: int | None = None
    scale: int | None = pydantic.Field(default=None, ge=1)
    repeats: bool = False

    @pydantic.model_validator(mode="after")
    def _patterns_go_together(self) -> Split:
        if self.targets is None and self.inputs is None:
            raise ValueError("has neither targets nor inputs")
        if self.targets is not None and self.inputs is not None:
            wanted, there = (Pattern(text).names for text in (self.targets, self.inputs))
            if not wanted or not set(wanted) <= set(there):
                raise ValueError(f"inputs {self.inputs} do not tell all that targets {self.targets} are named by")
        return self


class Archive(_Part):
    """A file in which (a part of) the set is published, ``size`` in bytes."""

    file: str
    url: str | None = None
    size: int | None = None
    sha256: str | None = pydantic.Field(default=None, pattern="^[0-9a-f]{64}$")


class Source(_Part):
    """Where pictures of a collected set come from: ``path`` within ``origin`` becomes ``name`` here.

    Both are patterns with ``{stem}``, which stands for each of ``stems``, or for all there are where none are named.
    """

    origin: str
    licence: str
    pictures: int
    path: str
    name: str
    stems: tuple[str, ...] = ()


class DatasetCard(_Part):
    """One set. ``id`` is the file's name without its ending: ``div2k``.

    ``licence`` is what is said of the pictures, in a few words, and ``terms`` who says so and what else; ``commercial``
    whether they may be used for products. ``benchmark``: results are measured on it, it is never trained on.
    ``pictures`` counts targets once, whatever the number of their inputs. ``commands`` make the set from its sources.
    """

    id: str
    name: str
    summary: str
    tasks: tuple[Task, ...] = pydantic.Field(min_length=1)
    licence: str
    terms: str = ""
    commercial: Literal["yes", "no", "unclear"]
    benchmark: bool = False
    url: str
    paper: Paper | None = None
    pictures: int | None = None
    layout: tuple[Split, ...] = ()
    archives: tuple[Archive, ...] = ()
    sources: tuple[Source, ...] = ()
    commands: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_card(path: Path) -> DatasetCard:
    """The card in a YAML file.

    Raises InputError for a file that is no card, in one line with the first mistake.
    """
    return read_model(path, DatasetCard, "dataset card", "name, tasks, licence", InputError, id=path.stem)
