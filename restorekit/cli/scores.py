"""What ``restorekit eval`` found: a table as it is found, JSON, and Markdown."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from restorekit.evaluate import Score
    from restorekit.protocols import Protocol

Columns = Sequence[tuple[str, str, int]]
"""Measures with their headings and decimals."""


@dataclass(frozen=True)
class Evaluation:
    """What is measured with which pictures. ``options`` are those of the command beside the protocol's."""

    model: str
    folder: Path
    protocol: Protocol
    lpips: str | None = None
    options: tuple[str, ...] = ()

    @property
    def columns(self) -> Columns:
        from restorekit.metrics.measures import MEASURES

        of_protocol = [(name, MEASURES[name].heading, MEASURES[name].decimals) for name in self.protocol.measures]
        return [*of_protocol, *([("lpips", f"LPIPS-{self.lpips}", 4)] if self.lpips else [])]

    def command(self, folder: str) -> str:
        """The command that measures this again with the pictures of a folder."""
        own = (shlex.join(self.options), self.protocol.options, f"--lpips {self.lpips}" if self.lpips else "")
        return " ".join(filter(None, (f"restorekit eval {shlex.quote(self.model)} {folder}", *own)))

    def card_entry(self, mean: Mapping[str, float], arithmetic: str) -> dict[str, Any]:
        """What stands under ``measured`` of a model card: the first PSNR and SSIM of the protocol."""
        entry: dict[str, Any] = {"set": self.folder.resolve().name}
        if self.protocol.scale == 1:
            entry["setting"] = self.protocol.setting
        for key, decimals in (("psnr", 2), ("ssim", 4), ("lpips", 4)):
            found = next((name for name in mean if name.startswith(key)), None)
            if found is not None and math.isfinite(mean[found]):
                entry[key] = round(mean[found], decimals)
        place = f"{self.folder.resolve().name.upper()}_FOLDER"
        entry |= {"source": arithmetic} if arithmetic else {}
        return {**entry, "command": self.command(place)}


class Table:
    """Rows on stdout as they are found, the headings before the first."""

    def __init__(self, name_width: int, columns: Columns) -> None:
        self._name_width = max(name_width, len("image"))
        self._columns = columns
        self._empty = True

    def row(self, name: str, measures: Mapping[str, float]) -> None:
        if self._empty:
            self._line("image", [heading for _, heading, _ in self._columns])
            self._empty = False
        self._line(name, cells(measures, self._columns))

    def _line(self, name: str, cells: list[str]) -> None:
        padded = (cell.rjust(len(heading)) for cell, (_, heading, _) in zip(cells, self._columns, strict=True))
        typer.echo("  ".join((name.ljust(self._name_width), *padded)))


def cells(measures: Mapping[str, float], columns: Columns) -> list[str]:
    """Numbers as they stand in tables; infinite PSNR is ``equal``."""
    values = ((measures[name], decimals) for name, _, decimals in columns)
    return [f"{value:.{decimals}f}" if math.isfinite(value) else "equal" for value, decimals in values]


def as_json(what: Evaluation, scores: list[Score], mean: Mapping[str, float], arithmetic: str) -> dict[str, Any]:
    """All numbers for programs, and under ``measured`` what a model card says of them."""
    return {
        "model": what.model,
        "scale": what.protocol.scale,
        "setting": what.protocol.setting,
        "command": what.command(shlex.quote(str(what.folder))),
        "arithmetic": arithmetic,
        "lpips_network": what.lpips,
        "mean": _finite(mean),
        "images": [
            {
                "image": str(score.path),
                "width": score.width,
                "height": score.height,
                **_finite(score.measures),
                "notes": score.notes,
            }
            for score in scores
            if score.error is None
        ],
        "failed": [{"image": str(score.path), "error": score.error} for score in scores if score.error is not None],
        "measured": what.card_entry(mean, arithmetic) if mean else None,
    }


def as_markdown(what: Evaluation, scores: list[Score], mean: Mapping[str, float], arithmetic: str) -> str:
    """A page with the command, the mean and a row a picture."""
    return "\n".join(_page(what, scores, mean, arithmetic)) + "\n"


def _page(what: Evaluation, scores: list[Score], mean: Mapping[str, float], arithmetic: str) -> Iterator[str]:
    from restorekit import __version__

    yield f"# {what.model}, {what.protocol.setting}, {what.folder.resolve().name}"
    yield ""
    yield f"    {what.command(shlex.quote(str(what.folder)))}"
    yield ""
    yield f"restorekit {__version__}{', ' if arithmetic else ''}{arithmetic}"
    yield ""
    yield f"| image | {' | '.join(heading for _, heading, _ in what.columns)} |"
    yield f"| --- |{' ---: |' * len(what.columns)}"
    measured = [score for score in scores if score.error is None]
    if mean:
        yield f"| **mean of {len(measured)}** | {' | '.join(f'**{cell}**' for cell in cells(mean, what.columns))} |"
    for score in measured:
        yield f"| {score.path.name.replace('|', chr(92) + '|')} | {' | '.join(cells(score.measures, what.columns))} |"
    failed = [score for score in scores if score.error is not None]
    yield from (f"\nFailed: {score.error}" for score in failed)


def _finite(measures: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has no infinity; a PSNR of equal pictures is null."""
    return {name: value if math.isfinite(value) else None for name, value in measures.items()}
