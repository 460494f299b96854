"""``restorekit datasets``: what the cards say, and whether a folder of pictures is fit to be trained on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from restorekit.data.card import DatasetCard, Split
    from restorekit.data.check import Progress, Report

datasets = typer.Typer(help="The data sets of the field, and your own.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


@datasets.command("list")
def list_datasets(as_json: Json = False) -> None:
    """Dataset cards: id, what for, how many pictures, licence, and whether it allows products."""
    from restorekit.cli.run import print_json
    from restorekit.data import cards
    from restorekit.errors import InputError

    found = []
    for id in cards.files():
        try:
            found.append(cards.card(id))
        except InputError as error:
            typer.echo(f"warning: {error}", err=True)
    if as_json:
        shown = {"id", "tasks", "pictures", "licence", "commercial", "benchmark", "summary"}
        print_json([card.model_dump(mode="json", include=shown) for card in found])
        return
    table = [("id", "tasks", "pictures", "licence", "products")]
    for card in found:
        count = "" if card.pictures is None else str(card.pictures)
        licence = f"{card.licence}; benchmark" if card.benchmark else card.licence
        table.append((card.id, ", ".join(card.tasks), count, licence, card.commercial))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for id, tasks, count, licence, products in table:
        cells = (f"{id:<{widths[0]}}", f"{tasks:<{widths[1]}}", f"{count:>{widths[2]}}", f"{licence:<{widths[3]}}")
        typer.echo("  ".join((*cells, products)))


@datasets.command("show", no_args_is_help=True)
def show(
    id: Annotated[str, typer.Argument(metavar="ID", help="A set, for instance div2k.")], as_json: Json = False
) -> None:
    """All that is known about a set: licence, page, paper, how its files lie, what to beware of."""
    from restorekit.cli.run import print_json
    from restorekit.data import cards

    card = cards.card(id)
    if as_json:
        print_json(card.model_dump(mode="json"))
        return
    for line in _described(card):
        typer.echo(line)


@datasets.command("check", no_args_is_help=True)
def check(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A set, or pictures of your own.")],
    id: Annotated[str | None, typer.Option("--as", metavar="ID", help="The set that it is.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Look at names alone, read no picture.")] = False,
    as_json: Json = False,
) -> None:
    """Count and read the pictures of a folder, and pair inputs with targets. Exit code 1 if there are problems."""
    from restorekit.cli.run import print_json
    from restorekit.data import cards
    from restorekit.data.check import check as checked

    card = None if id is None else cards.card(id)
    with _bar() as progress:
        report = checked(folder, card, quick=quick, progress=progress)
    if as_json:
        print_json(_as_json(report))
    else:
        for line in _told(report, quick):
            typer.echo(line)
    raise typer.Exit(1 if report.problems else 0)


@contextmanager
def _bar() -> Iterator[Progress | None]:
    """A progress bar for pictures on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        row = bar.add_task("reading", total=None)
        yield lambda done, total: bar.update(row, completed=done, total=total)


def _as_json(report: Report) -> dict[str, object]:
    from dataclasses import asdict

    problems = [{"path": str(problem.path), "text": problem.text} for problem in report.problems]
    return {**asdict(report), "problems": problems}


def _told(report: Report, quick: bool) -> Iterator[str]:
    """A report as lines of text."""
    what = f"the layout of {report.card}" if report.card else "not the layout of a known set"
    yield f"{report.folder}: {report.pictures} pictures, {what}"
    for part in report.parts:
        role = f" ({part.role})" if part.role else ""
        counts = (
            ("targets", part.targets, part.pictures),
            ("inputs", part.inputs, part.input_pictures),
        )
        told = [
            f"{count} {kind}" + (f" of {wanted}" if wanted is not None else "")
            for kind, count, wanted in counts
            if count or wanted is not None
        ]
        yield f"  {part.name}{role}: {', '.join(told)}"
    if report.card and report.others:
        yield f"  {report.others} pictures belong to no part of it"
    if report.smallest and report.largest:
        smallest, largest = ("x".join(map(str, size)) for size in (report.smallest, report.largest))
        yield f"  sizes: {smallest} px" + (f" to {largest} px" if largest != smallest else "")
    yield from map(str, report.problems)
    if not report.problems:
        yield "no problems" + (" in the names" if quick else "")


def _described(card: DatasetCard) -> Iterator[str]:
    """A card as lines of text."""
    yield f"{card.id}: {card.name}, {card.summary}"
    yield ""
    yield f"tasks: {', '.join(card.tasks)}"
    if card.pictures is not None:
        yield f"pictures: {card.pictures}"
    yield f"licence: {card.licence}" + (f" ({card.terms})" if card.terms else "")
    yield f"products: {card.commercial}"
    if card.benchmark:
        yield "benchmark: results are measured on it, do not train on it"
    yield f"page: {card.url}"
    if card.paper is not None:
        yield f"paper: {card.paper.authors}: {card.paper.title}, {card.paper.year}, {card.paper.url}"
    if card.layout:
        yield "layout:"
    for split in card.layout:
        yield f"  {split.name} ({split.role}): {_laid_out(split)}"
    for archive in card.archives:
        facts = (
            archive.url,
            f"{archive.size} bytes" if archive.size else None,
            f"sha256 {archive.sha256}" if archive.sha256 else None,
        )
        yield f"archive: {archive.file} ({', '.join(filter(None, facts))})"
    for source in card.sources:
        yield f"source: {source.pictures} of {source.origin}, {source.licence}: {source.path} -> {source.name}"
    if card.commands:
        yield "made by:"
        yield from (f"  {command}" for command in card.commands)
    yield from (f"note: {note}" for note in card.notes)


def _laid_out(split: Split) -> str:
    inputs = split.pictures if split.input_pictures is None else split.input_pictures
    told = []
    if split.targets:
        told.append(f"{_number(split.pictures)}targets {split.targets}")
    if split.inputs:
        told.append(f"{_number(inputs)}inputs {split.inputs}")
    if split.scale is not None and split.scale > 1:
        told.append(f"targets {split.scale} times as large")
    return ", ".join(told)


def _number(count: int | None) -> str:
    return "" if count is None else f"{count} "
