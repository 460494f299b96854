"""``restorekit eval MODEL FOLDER``."""

from __future__ import annotations

import os
import typing
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from restorekit.cli import completion
from restorekit.cli.run import Arithmetic, assigned, print_json, tile_of
from restorekit.errors import OutputError, RestorekitError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from restorekit.evaluate import Score
    from restorekit.metrics.lpips import Distance
    from restorekit.protocols import Protocol
    from restorekit.restorers import Restorer

ALIKE = "{stem}"
"""The pattern of inputs that are called like their references."""


class LpipsNetwork(StrEnum):
    """The network whose features LPIPS compares."""

    SQUEEZE = "squeeze"
    ALEX = "alex"
    VGG = "vgg"


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            help="A model, a file of weights, a pipeline, or a baseline: 'input', or 'bicubic' of super-resolution.",
            autocompletion=completion.evaluated,
        ),
    ],
    folder: Annotated[Path, typer.Argument(help="Reference pictures; what is restored is compared with them.")],
    sigma: Annotated[
        float | None, typer.Option(min=0.0, max=255.0, metavar="S", help="Inputs with white noise, S of 255.")
    ] = None,
    quality: Annotated[
        int | None, typer.Option(min=1, max=100, metavar="Q", help="Inputs compressed as JPEG of quality Q.")
    ] = None,
    degradation: Annotated[
        str | None,
        typer.Option(metavar="YAML", help="Inputs made by it: NAME or 'NAME: {PARAMETER: VALUE}', or a list of them."),
    ] = None,
    inputs: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Inputs of their own, called like the references.")
    ] = None,
    pattern: Annotated[
        str, typer.Option(metavar="NAME", help="How --inputs are called where not alike, for instance {stem}x2.")
    ] = ALIKE,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of what is drawn at random for the inputs.")] = 0,
    scale: Annotated[
        int | None, typer.Option(min=1, max=16, metavar="N", help="Factor of enlargement; a model knows its own.")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Measures of this task; a model knows its own."),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="STAGE.PARAM=VALUE",
            help="Change a parameter of a pipeline; may be repeated.",
            autocompletion=completion.settings,
        ),
    ] = None,
    lpips: Annotated[
        LpipsNetwork | None,
        typer.Option(help="LPIPS too, on this network; alex and vgg need the package lpips."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    precision: Annotated[
        Arithmetic, typer.Option(help="Of a model; auto: bf16 on a GPU for models tested in it, else fp32.")
    ] = Arithmetic.AUTO,
    tile: Annotated[
        str, typer.Option(metavar="auto|off|N", help="A model in tiles of N px; off: the whole image at once.")
    ] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a table with the command, the mean and every picture.")
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write a contact sheet of each picture: reference, input, result."),
    ] = None,
) -> None:
    """Measure a model or a pipeline as publications of its task do.

    Inputs are made of the references: reduced bicubically for super-resolution, with noise of 25 for denoising, JPEG of
    quality 10 for compression; or what an option says, or a folder of inputs. Results are compared: PSNR and SSIM for
    each picture and in the mean.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch loads: idle threads sleep instead of spinning
    from restorekit.cli.scores import Evaluation, Table, as_json, as_markdown
    from restorekit.contact_sheet import Sheets
    from restorekit.evaluate import evaluate as scores_of
    from restorekit.evaluate import means

    ways = {"--sigma": sigma, "--quality": quality, "--degradation": degradation, "--inputs": inputs}
    asked = {option: value for option, value in ways.items() if value is not None}
    if len(asked) > 1:
        raise RestorekitError(f"{' and '.join(asked)}: inputs are made in one way; name one of them")
    if pattern != ALIKE and inputs is None:
        raise RestorekitError(f"--pattern {pattern}: tells how the pictures of --inputs FOLDER are called; add that")
    for file in (markdown, pictures):
        if file is not None and not file.absolute().parent.is_dir():
            raise OutputError(f"{file}: there is no folder {file.parent}; create it first")
    if markdown is not None and markdown.is_dir():
        raise OutputError(f"{markdown}: is a folder; name the file to write")
    paths, of_their_own = _pictures(folder, inputs, pattern)
    distance = _distance(lpips)
    restorer = _restorer(model, scale, assignments or [], device, precision, tile)
    if task is not None:
        restorer.task = _task(task)
    protocol = _protocol(restorer, asked, paths, of_their_own, seed)
    protocol.check(model, restorer.scale)
    own = _options(pattern, scale, task, assignments or [], precision, tile)
    what = Evaluation(model, folder, protocol, lpips, own)
    sheets = None
    if pictures is not None:
        pictures.mkdir(exist_ok=True)
        sheets = Sheets(pictures, model, protocol)
    table = None if json else Table(max(len(path.name) for path in paths), what.columns)
    typer.echo(f"{model} {protocol.setting}: {len(paths)} references of {folder}", err=True)
    scores: list[Score] = []
    told = 0
    for score in scores_of(restorer, paths, distance, protocol, sheets):
        scores.append(score)
        for text in restorer.told[told:]:
            typer.echo(f"{model}: {text}", err=True)
        told = len(restorer.told)
        for note in score.notes:
            typer.echo(f"note: {note}", err=True)
        if score.error is not None:
            typer.echo(f"failed  {score.error}", err=True)
        elif table:
            table.row(score.path.name, score.measures)
    mean, failed = means(scores), sum(score.error is not None for score in scores)
    if table and mean:
        table.row("mean", mean)
    if not table:
        print_json(as_json(what, scores, mean, restorer.arithmetic))
    if markdown is not None:
        markdown.write_text(as_markdown(what, scores, mean, restorer.arithmetic), encoding="utf-8")
    if failed:
        typer.echo(f"{failed} of {len(scores)} failed; the mean is that of the rest", err=True)
    raise typer.Exit(1 if failed else 0)


def _pictures(folder: Path, inputs: Path | None, pattern: str) -> tuple[list[Path], list[Path]]:
    """The references, and the inputs where these lie in a folder of their own."""
    if inputs is None:
        from restorekit.evaluate import references

        return references(folder), []
    from restorekit.data.folders import paired

    pairs = paired(inputs, folder, pattern)
    return [pair.target for pair in pairs], [pair.input for pair in pairs]


def _restorer(
    name: str, scale: int | None, assignments: list[str], device: str, precision: Arithmetic, tile: str
) -> Restorer:
    """What a name stands for: a baseline, a pipeline or a model."""
    from restorekit import device as devices
    from restorekit import restorers, schema
    from restorekit.execution import Execution

    if assignments and not restorers.is_pipeline(name):
        raise RestorekitError(f"--set {assignments[0]}: {name} is no pipeline; leave out --set")
    if name in (restorers.INPUT, restorers.BICUBIC):
        return restorers.baseline(name, scale)
    settings = Execution(devices.choose(device), precision.value, tile_of(tile))
    devices.keep_freed_memory()
    if not restorers.is_pipeline(name):
        return restorers.of_model(name, scale, settings)
    pipeline = schema.load(name)
    for text in assignments:
        pipeline = assigned(pipeline, text)
    return restorers.of_pipeline(name, pipeline, scale, settings)


def _protocol(
    restorer: Restorer, asked: Mapping[str, Any], paths: list[Path], inputs: list[Path], seed: int
) -> Protocol:
    """The protocol that an option asks for, or that of the task of the model."""
    from restorekit import protocols
    from restorekit.data.folders import Pictures

    makers: Mapping[str, Callable[[Any], Protocol]] = {
        "--sigma": lambda sigma: protocols.denoising(sigma, seed),
        "--quality": lambda quality: protocols.jpeg(quality),
        "--degradation": lambda text: protocols.synthetic(text, seed, restorer.task, Pictures(paths)),
        "--inputs": lambda folder: protocols.paired(folder, inputs, restorer.scale, restorer.task),
    }
    for option, value in asked.items():
        return makers[option](value)
    return protocols.standard(restorer.name, restorer.task, restorer.scale, seed)


def _options(
    pattern: str, scale: int | None, task: str | None, assignments: list[str], precision: Arithmetic, tile: str
) -> tuple[str, ...]:
    """What decides the numbers beside the protocol, as it is written on the command line."""
    given = [
        ("--pattern", pattern, ALIKE),
        ("--scale", scale, None),
        ("--task", task, None),
        ("--precision", precision.value, "auto"),
        ("--tile", tile, "auto"),
        *(("--set", text, None) for text in assignments),
    ]
    return tuple(part for option, value, default in given if value != default for part in (option, str(value)))


def _task(name: str) -> str:
    from restorekit.zoo.card import Task

    known = typing.get_args(Task)
    if name not in known:
        raise RestorekitError(f"--task {name}: there is no such task; there are {', '.join(known)}")
    return name


def _distance(network: LpipsNetwork | None) -> Distance | None:
    """LPIPS on a network."""
    if network is None:
        return None
    from restorekit.metrics.lpips import from_package, load

    if network is LpipsNetwork.SQUEEZE:
        return load()
    return from_package("alex" if network is LpipsNetwork.ALEX else "vgg")
