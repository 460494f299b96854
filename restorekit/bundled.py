"""Where the files that come with restorekit lie: pipelines, model cards, dataset recipes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

Kind = Literal["pipelines", "models", "datasets"]


def folder(kind: Kind) -> Path:
    """The folder of bundled files of a kind; it need not exist while nothing of the kind is bundled.

    An installed wheel carries it as ``restorekit/_bundled/<kind>``. In a checkout, and so after
    ``pip install -e``, it is ``<kind>`` beside the ``restorekit`` folder.
    """
    package = Path(__file__).parent
    installed = package / "_bundled"
    return installed / kind if installed.is_dir() else package.parent / kind


def pipelines() -> Mapping[str, Path]:
    """The files of the shipped pipelines, by name."""
    return {path.stem: path for path in sorted(folder("pipelines").glob("*.yaml"))}


def cards(folder: Path) -> Mapping[str, Path]:
    """The model cards in a folder, by id; recipes lie beside them as ``<id>.recipe.yaml``."""
    return {path.stem: path for path in sorted(folder.glob("*.yaml")) if not path.name.endswith(".recipe.yaml")}
