"""Where model cards lie, and how they are found by id. Loads no torch.

Cards come with restorekit, lie in the user's folder, or are brought by other packages: the entry point group
``restorekit.models`` names a folder of YAML files in a package (``"package.folder"``).
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from restorekit import bundled
from restorekit.errors import ModelError
from restorekit.names import did_you_mean
from restorekit.zoo.card import ModelCard, read_card


def home() -> Path:
    """The user's folder of restorekit: ``$RESTOREKIT_HOME``, or one in the platform's place for data."""
    if given := os.environ.get("RESTOREKIT_HOME"):
        return Path(given).expanduser().absolute()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or "")
        base = base if base.is_absolute() else Path.home() / ".local" / "share"
    return base / "restorekit"


def user_folder() -> Path:
    """Where the user's cards and weights lie; it need not exist."""
    return home() / "models"


def files() -> Mapping[str, Path]:
    """The files of all cards, by id; those that come with restorekit win over the user's, and these over packages'."""
    found: dict[str, Path] = {}
    for folder in (*_package_folders(), user_folder(), bundled.folder("models")):
        found |= bundled.cards(folder)
    return dict(sorted(found.items()))


def cards() -> Mapping[str, ModelCard]:
    """All cards by id. A card is read when it is asked for, and ModelError is raised then if it is broken."""
    return _Cards(files())


def card(id: str) -> ModelCard:
    """The card of a model.

    Raises ModelError when there is none of this id, or its file is broken.
    """
    known = files()
    if id not in known:
        hint = did_you_mean(id, known) or "; restorekit models list names those there are"
        raise ModelError(f"unknown model '{id}'{hint}")
    return _Cards(known)[id]


class _Cards(Mapping[str, ModelCard]):
    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = paths

    def __getitem__(self, id: str) -> ModelCard:
        path = self._paths[id]
        found = read_card(path)
        if found.id != id:
            raise ModelError(f"{path}: calls itself '{found.id}'; the file's name and the id must be equal")
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


@cache
def _package_folders() -> tuple[Path, ...]:
    """Folders of cards in other packages, found without importing these."""
    folders = []
    for point in sorted(entry_points(group="restorekit.models"), key=lambda point: (point.name, point.value)):
        package, *below = point.value.replace(":", ".").split(".")
        spec = importlib.util.find_spec(package)
        places = spec.submodule_search_locations if spec else None
        folders += [Path(place, *below) for place in places or ()]
    return tuple(folders)
