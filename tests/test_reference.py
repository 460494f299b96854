"""``docs/reference/`` shows every command, pipeline and stage as the code has it.

The pages are compared with what the code says. After a change ``RESTOREKIT_UPDATE_DOCS=1 pytest
tests/test_reference.py`` writes them anew, and the change is read before it is committed.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from restorekit import bundled
from restorekit.cli import app
from restorekit.json_schema import describe
from restorekit.pipeline import Pipeline
from restorekit.registry import stage_class
from restorekit.stages import BUILT_IN

GENERATED = "Made from the code; `RESTOREKIT_UPDATE_DOCS=1 pytest tests/test_reference.py` writes it anew.\n\n"


def escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|").replace("<", "&lt;")


def commands() -> str:
    """Every verb with its arguments and options."""
    return f"# Commands\n\n{GENERATED}{''.join(_command(typer.main.get_command(app), 'restorekit'))}"


def _command(command: Any, name: str) -> Iterator[str]:
    if hasattr(command, "commands"):
        for verb, child in command.commands.items():
            yield from _command(child, f"{name} {verb}")
        return
    context = typer.Context(command)
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    usage = " ".join([name, *(_argument(argument, context) for argument in arguments)])
    yield f"## {name}\n\n    {usage}\n\n{_prose(inspect.cleandoc(command.help or ''))}\n\n"
    rows = [(_argument(argument, context), argument.help or "") for argument in arguments]
    options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    rows += [option.get_help_record(context) for option in options if not option.hidden and "--help" not in option.opts]
    if rows:
        yield "| | |\n| --- | --- |\n"
        yield "".join(f"| `{_cell(what)}` | {escaped(said)} |\n" for what, said in rows)
        yield "\n"


def _argument(argument: Any, context: typer.Context) -> str:
    """What stands for an argument: FOLDER, [OUTPUT], or INPUT... for several."""
    text = " ".join(argument.get_usage_pieces(context)).replace("{", "").replace("}", "")
    text = text.removesuffix("...") if text.count("...") > 1 or " " in text else text
    return text.upper() if text.islower() else text


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def pipelines() -> str:
    """The shipped pipelines: what they start from, their stages, their models, what they write."""
    return f"# Pipelines\n\n{GENERATED}{''.join(map(_pipeline, sorted(bundled.pipelines())))}"


def _pipeline(name: str) -> str:
    pipe = Pipeline.load(name)
    assert pipe.input is not None
    models = [step.stage.model for step in pipe.steps if step.stage.spec.name == "restore"]  # type: ignore[attr-defined]
    lines = [
        f"## {name}\n\n{pipe.summary}.\n",
        f"- from: {pipe.input.state}",
        f"- stages: {', '.join(f'`{step.id}`' for step in pipe.steps)}",
        *([f"- models: {', '.join(f'`{model}`' for model in models)}"] if models else []),
        f"- writes: {', '.join(spec.format for spec in pipe.outputs)}",
    ]
    return "\n".join(lines) + "\n\n"


def stages() -> str:
    """Every built-in stage with its doc, source and parameters."""
    return f"# Stages\n\n{GENERATED}{''.join(map(_stage, BUILT_IN))}"


def _stage(name: str) -> str:
    cls = stage_class(name)
    parts = [f"## {name}\n\n{_prose(inspect.cleandoc(cls.__doc__ or ''))}\n\nSource: {escaped(cls.spec.source)}\n\n"]
    rows = list(describe(cls))
    if rows:
        parts.append("| parameter | default | range | |\n| --- | --- | --- | --- |\n")
        parts += [f"| `{row['name']}` | {_default(row)} | {_range(row)} | {escaped(row['doc'])} |\n" for row in rows]
        parts.append("\n")
    return "".join(parts)


def _default(row: dict[str, Any]) -> str:
    return "needed" if row["needed"] else escaped(str(row["default"]))


def _range(row: dict[str, Any]) -> str:
    if row["choices"]:
        return ", ".join(map(str, row["choices"]))
    low, high = row["minimum"], row["maximum"]
    least = "" if low is None else f"above {low:g}" if row["exclusive"] else f"{low:g}"
    most = "" if high is None else f"{high:g}"
    both = f"{least} to {most}" if least and most else f"at most {most}" if most else f"from {least}" if least else ""
    return f"{both} {row['unit']}".strip()


def _prose(text: str) -> str:
    """A docstring as Markdown: its double backquotes are single ones there."""
    text = re.sub(r":(?:class|func|meth|mod|data):`~?([^`]*)`", r"`\1`", text)
    return text.replace("``", "`").replace("<", "&lt;")


@pytest.mark.parametrize("page", [commands, pipelines, stages], ids=lambda page: page.__name__)
def test_the_reference_shows_the_code(checkout: Path, page: Callable[[], str]) -> None:
    file = checkout / "docs" / "reference" / f"{page.__name__}.md"
    if not file.parent.parent.is_dir():
        pytest.skip("this test reads the source tree")
    expected = page().rstrip("\n") + "\n"
    if os.environ.get("RESTOREKIT_UPDATE_DOCS"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(expected, encoding="utf-8")
        return
    shown = file.read_text(encoding="utf-8") if file.is_file() else ""
    assert shown == expected, "the code was changed; RESTOREKIT_UPDATE_DOCS=1 pytest writes the page anew"
