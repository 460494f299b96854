"""What a shell offers when Tab is pressed: names of pipelines, models, stages and parameters. Loads no torch."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

Item = tuple[str, str]
"""A value and what is said beside it by shells that do."""

BASELINES = (("bicubic", "the baseline of super-resolution"), ("input", "the baseline of other tasks"))


def pipeline_names() -> list[Item]:
    """The shipped pipelines; shells offer files where no name fits."""
    from restorekit import bundled

    return [(name, str(_content(path).get("summary", ""))) for name, path in bundled.pipelines().items()]


def model_ids() -> list[str]:
    """The ids of all model cards."""
    from restorekit.zoo import cards

    return list(cards.files())


def stage_names() -> list[Item]:
    """All stages, those of other packages too."""
    from restorekit.registry import stage_entries

    return [(name, entry.summary) for name, entry in stage_entries().items()]


def evaluated() -> list[Item]:
    """What ``eval`` measures: models, pipelines and baselines."""
    return [*((id, "model") for id in model_ids()), *pipeline_names(), *BASELINES]


def settings(ctx: typer.Context) -> list[Item]:
    """``stage.param=`` for every parameter of the pipeline that stands on the command line already."""
    from restorekit import bundled

    read = ctx.params.get("pipeline") or ctx.params.get("model")
    name = str(read or next(iter(ctx.args), ""))  # what stands before an option without its value is not read yet
    path = bundled.pipelines().get(name, Path(name))
    found: list[Item] = []
    for item in _content(path).get("stages") or ():
        stage, given = next(iter(item.items())) if isinstance(item, dict) and item else (item, None)
        address = given.get("id", stage) if isinstance(given, dict) else stage
        found += [(f"{address}.{parameter}=", doc) for parameter, doc in _parameters(str(stage))]
    return found


def _content(path: Path) -> dict[str, Any]:
    """The mapping in a pipeline file; an empty one where there is none, since a shell wants no errors."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), loader)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def _parameters(stage: str) -> Iterator[Item]:
    """Parameters of a built-in stage with their docs, read from its source: importing it would load torch."""
    from restorekit import stages

    entry = stages.BUILT_IN.get(stage)
    if entry is None:
        return
    module, _, name = entry.target.partition(":")
    source = Path(stages.__file__).with_name(f"{module.rpartition('.')[2]}.py").read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            fields = (field for field in node.body if isinstance(field, ast.AnnAssign))
            yield from ((ast.unparse(field.target), _doc(field)) for field in fields if _doc(field))


def _doc(field: ast.AnnAssign) -> str:
    """The text of ``param(...)`` in the annotation of a field; nothing for those that are no parameters."""
    calls = (node for node in ast.walk(field.annotation) if isinstance(node, ast.Call))
    texts = (call.args[0] for call in calls if ast.unparse(call.func) == "param" and call.args)
    return next((str(text.value) for text in texts if isinstance(text, ast.Constant)), "")
