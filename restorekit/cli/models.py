"""``restorekit models``: what the cards say, and bringing weights in."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from restorekit.cli import completion
from restorekit.errors import ModelError

if TYPE_CHECKING:
    from restorekit.zoo.card import ModelCard, Score
    from restorekit.zoo.recognise import Recognised
    from restorekit.zoo.store import Progress

models = typer.Typer(help="The learned models.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Id = Annotated[
    str, typer.Argument(metavar="ID", help="A model, for instance hat.x4.", autocompletion=completion.model_ids)
]


@models.command("list")
def list_models(
    as_json: Json = False,
    installed: Annotated[bool, typer.Option("--installed", help="Only those that can be run now.")] = False,
    task: Annotated[str, typer.Option(metavar="TASK", help="Only those for it, for instance super-resolution.")] = "",
) -> None:
    """Model cards: id, whether weights are installed or what brings them, licence, and what they are for.

    Installed ones stand first.
    """
    from restorekit.cli.run import print_json
    from restorekit.names import did_you_mean
    from restorekit.zoo import cards, store

    rows = []
    tasks = set()
    for card in _readable(cards.cards()):
        tasks.add(card.task)
        row = {
            "id": card.id,
            "weights": store.status(card),
            "licence": card.licence,
            "task": card.task,
            "scale": card.scale,
            "architecture": card.architecture,
            "summary": card.summary,
        }
        if task in ("", card.task) and (not installed or row["weights"] == "installed"):
            rows.append(row)
    if task and task not in tasks:
        hint = did_you_mean(task, tasks) or f"; there are {', '.join(sorted(tasks))}"
        raise ModelError(f"no model is for '{task}'{hint}")
    rows.sort(key=lambda row: row["weights"] != "installed")
    if as_json:
        print_json(rows)
        return
    if not rows:
        typer.echo(
            "no models are installed; restorekit models list names those there are" if installed else "no models",
            err=True,
        )
    widths = {name: max((len(str(row[name])) for row in rows), default=0) for name in ("id", "weights", "licence")}
    for row in rows:
        columns = "  ".join(f"{row[name]:<{width}}" for name, width in widths.items())
        typer.echo(f"{columns}  {row['summary']}")


@models.command("show", no_args_is_help=True)
def show(id: Id, as_json: Json = False) -> None:
    """All that is known about a model: what it is for, licence, weights, paper, numbers, how it is tiled."""
    from restorekit.cli.run import print_json
    from restorekit.zoo import cards, store

    card = cards.card(id)
    path = store.weights_path(card)
    network = _network_facts(card)
    if as_json:
        print_json({**card.model_dump(mode="json"), "installed": str(path) if path else None, "network": network})
        return
    for line in _described(card, path, network):
        typer.echo(line)


@models.command("download", no_args_is_help=True)
def download(
    ids: Annotated[
        list[str],
        typer.Argument(
            metavar="ID...", help="Models, for instance cfsr.paper_x2.", autocompletion=completion.model_ids
        ),
    ],
    offline: Annotated[
        bool, typer.Option("--offline", help="Refused: this is the command that needs a network.")
    ] = False,
) -> None:
    """Get weights from where their authors keep them, check them, and install them."""
    from restorekit.zoo import cards, install, store

    if offline:
        raise ModelError("models download needs the network; without one, get the file elsewhere and use models import")
    for card in [cards.card(id) for id in ids]:
        if (there := store.weights_path(card)) is not None:
            typer.echo(f"{card.id} is installed already: {there}", err=True)
            continue
        with _bar(card.id) as progress, store.downloaded(card, progress) as path:
            assert card.weights is not None
            found = install.examined(path, card.weights.url)
            target = install.install(found, card, path)
        typer.echo(f"{card.id}: {target}", err=True)
        _say_licence(card)


@models.command("import", no_args_is_help=True)
def import_(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A checkpoint: .pth, .pt, .ckpt, .bin, .npz or .safetensors.")
    ],
    id: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="ID",
            help="The model it is; an id that is not known gets a card.",
            autocompletion=completion.model_ids,
        ),
    ] = None,
) -> None:
    """Install a file of weights. Its architecture and hyperparameters are found in it."""
    from restorekit.zoo import cards, install, store

    found = install.examined(file)
    values = sum(tensor.numel() for tensor in found.state.values() if tensor.is_floating_point())
    card = install.choose(found, file, id)
    known = card.id in cards.files()
    replaced = store.install_path(card.id).exists()
    target = install.install(found, card, file)
    typer.echo(f"{file}: {found.label}, {values:,} values in {len(found.state)} tensors", err=True)
    for line in _assumptions(found, card):
        typer.echo(f"  {line}", err=True)
    typer.echo(f"{card.id}: {target}{' (replaced)' if replaced else ''}", err=True)
    if known:
        _say_licence(card)
    else:
        typer.echo(
            f"  {card.id} was not known; its new card says: licence unknown, trained on {card.trained_on} pictures, "
            f"takes {card.pixels}; mend what is not so in {cards.files()[card.id]}",
            err=True,
        )


@models.command("verify")
def verify(
    id: Annotated[
        str | None,
        typer.Argument(
            metavar="ID",
            help="A model; without one, all that are installed.",
            autocompletion=completion.model_ids,
        ),
    ] = None,
) -> None:
    """Read installed weights again, compare hashes and load them. Exit code 1 if any are wrong."""
    from restorekit.zoo import cards, store
    from restorekit.zoo.verify import problem

    if id is not None:
        chosen = [cards.card(id)]
        store.installed_weights(chosen[0])
    else:
        chosen = [card for card in _readable(cards.cards()) if store.weights_path(card) is not None]
    if not chosen:
        typer.echo("no weights are installed", err=True)
    wrong = 0
    for card in chosen:
        said = problem(card)
        typer.echo(f"{card.id}: {said or 'ok'}", err=said is not None)
        wrong += said is not None
    raise typer.Exit(1 if wrong else 0)


@models.command("path", no_args_is_help=True)
def path(id: Id) -> None:
    """Where the installed weights of a model lie."""
    from restorekit.zoo import cards, store

    typer.echo(store.installed_weights(cards.card(id)))


def _readable(known: Any) -> Iterator[ModelCard]:
    """All cards but broken ones, which are named on stderr."""
    for id in known:
        try:
            yield known[id]
        except ModelError as error:
            typer.echo(f"warning: {error}", err=True)


def _say_licence(card: ModelCard) -> None:
    if card.weights is None:
        return
    note = f"; {card.weights.note}" if card.weights.note else ""
    typer.echo(f"  licence of the weights: {card.weights.licence}{note}", err=True)


def _assumptions(found: Recognised, card: ModelCard) -> Iterator[str]:
    """What the file could not tell, and what the card says of it."""
    from restorekit.zoo import match

    for line in found.detected.assumed:
        said = [f"{name} {value}" for name, value in card.config.items() if match.names(line, name)]
        yield f"{line}; the card says {', '.join(said)}" if said else line


@contextmanager
def _bar(what: str) -> Iterator[Progress | None]:
    """A progress bar for bytes on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        row = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(row, completed=done, total=total)


def _network_facts(card: ModelCard) -> dict[str, Any] | None:
    """Size and tiling of a card's network, or None where it cannot be built here."""
    from dataclasses import asdict

    from restorekit.zoo.recognise import outline

    try:
        network = outline(card.architecture, card.config)
    except ModelError:
        return None
    values = sum(weight.numel() for weight in network.parameters())
    return {"parameters": values, "channels": network.in_channels, "tiling": asdict(network.tiling)}


def _described(card: ModelCard, path: Path | None, network: dict[str, Any] | None) -> Iterator[str]:
    """A card as lines of text."""
    from restorekit.zoo import store

    yield f"{card.id}: {card.summary}"
    yield ""
    yield f"task: {card.task}" + (f", x{card.scale}" if card.scale > 1 else "")
    yield f"takes: {card.pixels}, {card.reference}-referred, {card.transfer}"
    yield f"trained on: {card.trained_on} pictures ({card.data})"
    yield f"licence: {card.licence}"
    if card.weights is not None:
        yield f"weights: {card.weights.file}, licence {card.weights.licence}"
        yield from (f"  {name}: {value}" for name, value in _where(card) if value)
    yield f"installed: {path}" if path else f"installed: no; {store.cure(card)}"
    if card.paper is not None:
        yield f"paper: {card.paper.authors}: {card.paper.title}, {card.paper.year}, {card.paper.url}"
    if card.code is not None:
        yield f"code of the authors: {card.code}"
    if card.recipe is not None:
        yield f"recipe: {card.recipe}"
    yield f"architecture: {card.architecture}"
    yield from (f"  {name}: {value}" for name, value in card.config.items())
    yield f"precisions: {', '.join(card.precisions)}"
    if network is not None:
        tiling = network["tiling"]
        yield f"parameters: {network['parameters']:,}"
        if tiling["support"] == "exact":
            yield f"large pictures: in bands, as the whole at once; in tiles with a halo of {tiling['halo']} px"
        else:
            yield f"large pictures: in tiles of {card.tile or tiling['fixed']} px, each of which it sees as a whole"
    if card.padding != "none":
        yield f"padding of the published numbers: {card.padding}"
    yield from _scores("published", card.published)
    yield from _scores("measured", card.measured)
    if card.shifts_color:
        yield "note: colours of its results differ from the input's"
    if card.independent:
        yield "note: built from a description, not checked against code of the authors"
    yield from (f"note: {note}" for note in card.notes)


def _where(card: ModelCard) -> Iterator[tuple[str, object]]:
    assert card.weights is not None
    yield "download", card.weights.url
    yield "page", card.weights.page
    yield "sha256", card.weights.sha256
    yield "bytes", card.weights.size
    yield "note", card.weights.note


def _scores(title: str, scores: tuple[Score, ...]) -> Iterator[str]:
    if scores:
        yield f"{title}:"
    for score in scores:
        numbers = [
            f"{name} {value:{form}}"
            for name, value, form in (
                ("PSNR", score.psnr, ".2f"),
                ("SSIM", score.ssim, ".4f"),
                ("LPIPS", score.lpips, ".4f"),
            )
            if value is not None
        ]
        origin = "; ".join(filter(None, (score.source, score.command)))
        what = ", ".join(filter(None, (score.set, score.setting)))
        yield f"  {what}: {', '.join(numbers)}" + (f" ({origin})" if origin else "")
