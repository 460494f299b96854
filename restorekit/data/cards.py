"""Where dataset cards lie, and how they are found by id: those of restorekit, and the user's. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from restorekit import bundled
from restorekit.data.card import DatasetCard, read_card
from restorekit.errors import InputError
from restorekit.names import did_you_mean
from restorekit.zoo.cards import home


def user_folder() -> Path:
    """Where the user's cards lie; it need not exist."""
    return home() / "datasets"


def files() -> Mapping[str, Path]:
    """The files of all cards, by id; those that come with restorekit win over the user's."""
    found: dict[str, Path] = {}
    for folder in (user_folder(), bundled.folder("datasets")):
        found |= {path.stem: path for path in folder.glob("*.yaml")}
    return dict(sorted(found.items()))


def card(id: str) -> DatasetCard:
    """The card of a set.

    Raises InputError when there is none of this id, or its file is broken.
    """
    known = files()
    if id not in known:
        hint = did_you_mean(id, known) or "; restorekit datasets list names those there are"
        raise InputError(f"unknown dataset '{id}'{hint}")
    found = read_card(known[id])
    if found.id != id:
        raise InputError(f"{known[id]}: calls itself '{found.id}'; the file's name and the id must be equal")
    return found
