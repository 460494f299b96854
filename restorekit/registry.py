"""Built-in stages and those that other packages bring, found by name.

Third parties name theirs in the entry point group ``restorekit.stages``
(``mystage = "package.module:Class"``). Nothing registers itself by being imported.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from restorekit.errors import FOREIGN, RestorekitError
from restorekit.names import did_you_mean as did_you_mean
from restorekit.stages import BUILT_IN, StageEntry

if TYPE_CHECKING:
    from restorekit.stage import Stage


@cache
def stage_entries() -> Mapping[str, StageEntry]:
    """Built-in stages and those that installed packages bring, by name; built-ins win."""
    plugins = {
        point.name: StageEntry(point.value, f"from package {point.dist.name if point.dist else point.module}")
        for point in entry_points(group="restorekit.stages")
    }
    return {**plugins, **BUILT_IN}


def stage_class(name: str) -> type[Stage]:
    """The class of a stage.

    Raises RestorekitError when there is no such stage, or its package does not load.
    """
    entry = stage_entries().get(name)
    if entry is None:
        hint = did_you_mean(name, stage_entries()) or "; restorekit stages list names those there are"
        raise RestorekitError(f"unknown stage '{name}'{hint}")
    module, _, attribute = entry.target.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # whatever a foreign module raises while it is imported
        said = " ".join(str(error).split()) or type(error).__name__
        raise RestorekitError(f"stage '{name}' ({entry.target}) does not load: {said}; {FOREIGN}") from error
    from restorekit.stage import Stage

    if not (isinstance(found, type) and issubclass(found, Stage) and is_dataclass(found)):
        raise RestorekitError(f"stage '{name}' ({entry.target}) is no Stage with the parameters decorator; {FOREIGN}")
    if found.spec.name != name:
        raise RestorekitError(
            f"stage '{name}' ({entry.target}) calls itself '{found.spec.name}', the names must be equal; {FOREIGN}"
        )
    return found
