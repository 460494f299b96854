"""``restorekit pipelines | stages``: what there is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from restorekit.cli import completion

if TYPE_CHECKING:
    from restorekit.zoo.card import ModelCard

pipelines = typer.Typer(help="The shipped pipelines.", no_args_is_help=True)
stages = typer.Typer(help="The stages that pipelines are made of.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


def _rows(rows: list[dict[str, str]], as_json: bool, nothing: str) -> None:
    """Two columns, or JSON."""
    if as_json:
        import json

        typer.echo(json.dumps(rows, indent=1))
        return
    if not rows:
        typer.echo(nothing, err=True)
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        lacks = f" ({row['lacks']})" if row.get("lacks") else ""
        typer.echo(f"{row['name']:<{width}}  {row['summary']}{lacks}")


@pipelines.command("list")
def list_pipelines(as_json: Json = False) -> None:
    """Names and what they are for; those whose models have no weights here stand last and say so."""
    import yaml

    from restorekit import bundled
    from restorekit.zoo import store

    rows = []
    for name, path in bundled.pipelines().items():
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        stages = [stage for stage in content["stages"] if isinstance(stage, dict)]
        models = [stage["restore"]["model"] for stage in stages if "restore" in stage]
        lacks = "; ".join(_lack(card) for card in store.without_weights(models))
        rows.append({"name": name, "summary": str(content.get("summary", "")), "lacks": lacks})
    _rows(sorted(rows, key=lambda row: bool(row["lacks"])), as_json, "no pipelines are installed")


def _lack(card: ModelCard) -> str:
    """What a pipeline lacks whose model has no weights, and the command that helps."""
    from restorekit.zoo import store

    cures = {
        "download": f"get them: restorekit models download {card.id}",
        "import": f"how to get them: restorekit models show {card.id}",
    }
    return f"no weights of {card.id}; {cures.get(store.status(card), 'there are none yet')}"


@pipelines.command("show", no_args_is_help=True)
def show_pipeline(
    name: Annotated[str, typer.Argument(autocompletion=completion.pipeline_names)],
) -> None:
    """The YAML of a shipped pipeline, to copy and change."""
    from restorekit import bundled
    from restorekit.errors import RestorekitError
    from restorekit.registry import did_you_mean

    known = bundled.pipelines()
    if name not in known:
        hint = did_you_mean(name, known) or "; restorekit pipelines list names the shipped ones"
        raise RestorekitError(f"unknown pipeline '{name}'{hint}")
    typer.echo(known[name].read_text(encoding="utf-8"), nl=False)


@pipelines.command("schema")
def schema() -> None:
    """The JSON schema of pipeline files, for editors."""
    import json

    from restorekit.json_schema import json_schema

    typer.echo(json.dumps(json_schema(), indent=1))


@stages.command("list")
def list_stages(as_json: Json = False) -> None:
    """Names and what they do; stages of other installed packages included."""
    from restorekit.registry import stage_entries

    rows = [{"name": name, "summary": entry.summary} for name, entry in stage_entries().items()]
    _rows(rows, as_json, "no stages are installed")


@stages.command("show", no_args_is_help=True)
def show_stage(
    name: Annotated[str, typer.Argument(autocompletion=completion.stage_names)], as_json: Json = False
) -> None:
    """What a stage takes and gives, and its parameters with ranges and units."""
    import inspect

    from restorekit.cli.run import print_json
    from restorekit.json_schema import describe
    from restorekit.registry import stage_class

    cls = stage_class(name)
    spec = cls.spec
    rows = list(describe(cls))
    doc = inspect.cleandoc(cls.__doc__ or "")
    if as_json:
        states = {"accepts": spec.accepts, "emits": spec.emits, "needs": spec.needs, "adds": spec.adds}
        print_json({"name": name, "doc": doc, "source": spec.source, **states, "parameters": rows})
        return
    typer.echo(f"{name}\n\n{doc}\n\nsource: {spec.source}")
    typer.echo(f"takes: {_axes({axis: ' or '.join(values) for axis, values in spec.accepts.items()}) or 'any state'}")
    typer.echo(f"gives: {_axes(spec.emits) or 'as it came'}")
    for title, facts in (("needs", spec.needs), ("adds", spec.adds)):
        if facts:
            typer.echo(f"{title} the facts: {', '.join(facts)}")
    typer.echo("parameters:" if rows else "no parameters")
    for row in rows:
        above = ">" if row["exclusive"] and row["minimum"] is not None else ""
        unlimited = row["minimum"] is None and row["maximum"] is None
        limits = "" if unlimited else f" [{above}{_limit(row['minimum'])}..{_limit(row['maximum'])}]"
        choices = f" {'|'.join(map(str, row['choices']))}" if row["choices"] else ""
        unit = f" {row['unit']}" if row["unit"] else ""
        value = "needed" if row["needed"] else f"= {row['default']}"
        typer.echo(f"  {row['name']} {value}{unit}{limits}{choices}: {row['doc']}")


def _axes(values: Mapping[str, str]) -> str:
    return ", ".join(f"{axis} {value}" for axis, value in values.items())


def _limit(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
