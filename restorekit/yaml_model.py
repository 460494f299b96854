"""Cards and recipes: YAML files that hold one pydantic model."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import pydantic
import yaml

from restorekit.errors import RestorekitError, first_mistake

T = TypeVar("T", bound=pydantic.BaseModel)

LOADER: type[yaml.SafeLoader] | type[yaml.CSafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The loader in C where PyYAML was built with it: ten times as fast."""


def read_model(
    path: Path, kind: type[T], what: str, holds: str, refused: type[RestorekitError], *, id: str | None = None
) -> T:
    """The model in a file; ``id`` is its own where the file names none.

    Raises ``refused`` for a file that is no ``what``, such as a mapping that ``holds`` these keys, in one line with the
    first mistake.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        said = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise refused(f"{path}: cannot be read as a {what} ({said}); check the path, mend or remove it") from None
    if not isinstance(content, dict):
        raise refused(f"{path}: is no {what}, which is a mapping with {holds} ...; mend the file")
    try:
        return kind(**({} if id is None else {"id": id}) | content)
    except (TypeError, pydantic.ValidationError) as error:
        raise refused(f"{path}: {first_mistake(error)}; mend the {what.split()[-1]}") from None
