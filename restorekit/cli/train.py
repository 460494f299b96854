"""``restorekit train RECIPE``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from restorekit import bundled
from restorekit.cli import completion
from restorekit.errors import RestorekitError, installing

if TYPE_CHECKING:
    from restorekit.train.recipe import Recipe

UNITS = {"s": 1, "m": 60, "h": 3600}


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A recipe (YAML file), or a model that is to be trained further on pictures of yours.",
            autocompletion=completion.model_ids,
        ),
    ],
    data: Annotated[Path, typer.Option(metavar="FOLDER", help="Good pictures, with subfolders.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Weights, checkpoint and logs; training goes on there.")],
    inputs: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Poor pictures of the same names, where no degradation makes them."),
    ] = None,
    validation: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Good pictures that are measured and not trained on.")
    ] = None,
    validation_inputs: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The poor ones of --validation, as with --inputs.")
    ] = None,
    time_budget: Annotated[
        str | None, typer.Option(metavar="TIME", help="Stop after so long (90s, 9m, 1.5h); run again to go on.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, metavar="N", help="In place of the recipe's steps.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    devices: Annotated[int, typer.Option(min=1, metavar="N", help="So many of them, which share each batch.")] = 1,
    workers: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Processes that make samples; by default some with a GPU.")
    ] = None,
    checkpoint_every: Annotated[
        int, typer.Option(min=1, metavar="N", help="Steps between checkpoints and lines of progress.")
    ] = 500,
) -> None:
    """Train a network from a recipe, or train a model further on your own pictures.

    The result is OUT/weights.safetensors; name the file in place of a model, or bring it in with
    'restorekit models import'. A run that is stopped goes on where it was, with the same result.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch loads: idle threads sleep instead of spinning
    budget = None if time_budget is None else seconds(time_budget)
    chosen = _recipe(recipe, inputs is not None)
    if steps is not None:
        chosen = chosen.model_copy(update={"steps": steps})
    if validation_inputs is not None and validation is None:
        raise RestorekitError("--validation-inputs goes with --validation FOLDER, the good pictures")
    try:
        from restorekit.train.fit import Folders, Resources
        from restorekit.train.fit import train as fit
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("lightning", "tensorboard"):
            raise RestorekitError(f"training needs more packages: {installing('train')}") from None
        raise
    from restorekit import device as devices_

    where = devices_.choose(device)
    done = fit(
        chosen,
        Folders(data, inputs),
        out / "weights.safetensors",
        resources=Resources(budget, where, devices, _workers(workers, where.type, devices), checkpoint_every),
        validation=Folders(validation, validation_inputs) if validation else None,
        tell=lambda text: typer.echo(text, err=True),
    )
    raise typer.Exit(1 if done.interrupted else 0)


def seconds(text: str) -> float:
    """A time such as ``90s``, ``9m`` or ``1.5h``.

    Raises RestorekitError for other texts.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh])", text.strip())
    if not found or float(found[1]) == 0:
        raise RestorekitError(f"--time-budget {text}: is no time; write 90s, 9m or 1.5h")
    return float(found[1]) * UNITS[found[2]]


def _recipe(text: str, paired: bool) -> Recipe:
    from restorekit.train.recipe import fine_tuning, read_recipe
    from restorekit.zoo.cards import files

    if text in files():
        return fine_tuning(text, paired)
    shipped = bundled.folder("models") / f"{text}.yaml"
    if text.endswith(".recipe") and shipped.is_file():
        return read_recipe(shipped)
    if not text.endswith((".yaml", ".yml")) and not Path(text).is_file():
        raise RestorekitError(f"{text}: is neither a recipe file nor a model; restorekit models list names the models")
    return read_recipe(Path(text))


def _workers(wanted: int | None, device: str, devices: int) -> int:
    """Processes that make samples, of each device: on CPUs none, since the network needs all cores itself."""
    if wanted is not None:
        return wanted
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if device == "cpu" else max(1, min(8, cores // devices - 1))
