"""``restorekit check`` and ``restorekit explain``."""

from __future__ import annotations

from typing import Annotated

import typer

from restorekit.cli import completion


def check(
    pipelines: Annotated[
        list[str],
        typer.Argument(
            metavar="PIPELINE...",
            help="Names of shipped pipelines, or YAML files.",
            autocompletion=completion.pipeline_names,
        ),
    ],
) -> None:
    """Check pipelines without running them: every problem, one line each. Exit code 2 if there are any."""
    from restorekit.errors import RestorekitError
    from restorekit.schema import load
    from restorekit.stages.restore import models_of
    from restorekit.zoo import store

    failed = False
    for name in pipelines:
        try:
            pipe = load(name)
        except RestorekitError as error:
            typer.echo(str(error), err=True)
            failed = True
        else:
            typer.echo(f"{name}: ok, {len(pipe.steps)} stages", err=True)
            for card in store.without_weights(models_of(step.stage for step in pipe.steps)):
                typer.echo(f"  warning: model {card.id} has no weights installed; {store.cure(card)}", err=True)
    if failed:
        raise typer.Exit(2)


def explain(
    pipeline: Annotated[
        str,
        typer.Argument(help="Name of a shipped pipeline, or a YAML file.", autocompletion=completion.pipeline_names),
    ],
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="STAGE.PARAM=VALUE",
            help="Change a parameter; may be repeated.",
            autocompletion=completion.settings,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the pipeline with every parameter as JSON.")] = False,
) -> None:
    """Say what a pipeline does: every stage with its parameters, the image state after it, and how it runs."""
    from restorekit.cli.run import assigned, print_json
    from restorekit.jobs import formats_of
    from restorekit.registry import stage_entries
    from restorekit.schema import load

    pipe = load(pipeline)
    for text in assignments or []:
        pipe = assigned(pipe, text)
    if as_json:
        print_json({**pipe.as_dict(), "fingerprint": pipe.fingerprint})
        return
    states = pipe.states()
    typer.echo(f"{pipe.name}: {pipe.summary}" if pipe.summary else pipe.name)
    typer.echo(f"  takes {states[0]}")
    content = pipe.as_dict()["stages"]
    for number, (step, state, item) in enumerate(zip(pipe.steps, states[1:], content, strict=True), 1):
        entry = stage_entries()[step.stage.spec.name]
        reach = step.stage.reach()
        how = (
            f"looks {reach.halo} px around"
            if reach.kind == "local"
            else {"pointwise": "pixel by pixel", "global": "whole image"}[reach.kind]
        )
        params = {key: value for key, value in next(iter(item.values())).items() if key != "id"}
        name = step.stage.spec.name
        called = name if step.id == name else f"{step.id} ({name})"
        typer.echo(f"{number:>2}. {called}: {entry.summary} ({how})")
        if params:
            typer.echo("      " + ", ".join(f"{key}={value}" for key, value in params.items()))
        for warning in step.stage.warnings(states[number - 1], [each.stage for each in pipe.steps[: number - 1]]):
            typer.echo(f"      warning: {warning}")
        typer.echo(f"      -> {state}")
    typer.echo(f"  writes {formats_of(pipe.outputs)}")
