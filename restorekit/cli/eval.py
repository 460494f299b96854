"""``restorekit eval MODEL FOLDER``."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from restorekit.cli.run import Arithmetic, print_json, tile_of
from restorekit.errors import RestorekitError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import Tensor

    from restorekit.evaluate import Model, Score
    from restorekit.metrics.lpips import Distance
    from restorekit.zoo.model import Model as LoadedModel

BICUBIC = "bicubic"

COLUMNS = (("psnr_y_db", "PSNR-Y dB", 2), ("ssim_y", "SSIM-Y", 4), ("psnr_rgb_db", "PSNR-RGB dB", 2))
"""Measures in the table, with their headings and decimals."""


class LpipsNetwork(StrEnum):
    """The network whose features LPIPS compares."""

    SQUEEZE = "squeeze"
    ALEX = "alex"
    VGG = "vgg"


def evaluate(
    model: Annotated[str, typer.Argument(help="A model, a file of weights, or 'bicubic', the baseline.")],
    folder: Annotated[Path, typer.Argument(help="Reference pictures; they are reduced, restored and compared.")],
    scale: Annotated[
        int | None, typer.Option(min=2, max=16, metavar="N", help="Factor of enlargement; a model knows its own.")
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
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Measure a super-resolution model as publications do.

    References are reduced bicubically, restored, and compared: PSNR and SSIM of luma, PSNR of RGB, a border of N px
    left out; for each picture and in the mean.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch loads: idle threads sleep instead of spinning
    from restorekit.evaluate import evaluate as scores_of
    from restorekit.evaluate import means, references

    paths = references(folder)
    distance = _distance(lpips)
    restorer = _model(model, scale, device, precision, tile)
    table = None if as_json else Table(max(len(path.name) for path in paths), lpips)
    typer.echo(f"{model} x{restorer.scale}: {len(paths)} references of {folder}", err=True)
    scores: list[Score] = []
    for score in scores_of(restorer, paths, distance):
        scores.append(score)
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
        print_json(_as_json(model, restorer.scale, lpips, scores, mean))
    if failed:
        typer.echo(f"{failed} of {len(scores)} failed; the mean is that of the rest", err=True)
    raise typer.Exit(1 if failed else 0)


class Table:
    """Rows on stdout as they are found, the headings before the first."""

    def __init__(self, name_width: int, lpips: LpipsNetwork | None) -> None:
        self._name_width = max(name_width, len("image"))
        self._columns = [*COLUMNS, ("lpips", f"LPIPS-{lpips}", 4)] if lpips else COLUMNS
        self._empty = True

    def row(self, name: str, measures: Mapping[str, float]) -> None:
        if self._empty:
            self._line("image", [heading for _, heading, _ in self._columns])
            self._empty = False
        self._line(name, [_said(measures[measure], decimals) for measure, _, decimals in self._columns])

    def _line(self, name: str, cells: list[str]) -> None:
        padded = (cell.rjust(len(heading)) for cell, (_, heading, _) in zip(cells, self._columns, strict=True))
        typer.echo("  ".join((name.ljust(self._name_width), *padded)))


def _said(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}" if math.isfinite(value) else "equal"


@dataclass(frozen=True)
class Restorer:
    """A model with how it is run; what the run tells goes to stderr, each text once."""

    model: LoadedModel
    device: torch.device
    precision: Arithmetic
    tile: int | Literal["auto", "off"]
    told: set[str] = field(default_factory=set)

    @property
    def scale(self) -> int:
        return self.model.scale

    def __call__(self, x: Tensor) -> Tensor:
        from restorekit.execution import Execution

        execution = Execution(self.device, self.precision.value, self.tile)
        result = self.model(x, execution)
        for text in (f"{self.model.name}: {execution.mode}, {execution.used}, {execution.device}", *execution.notes):
            if text not in self.told:
                self.told.add(text)
                typer.echo(text, err=True)
        return result


def _model(name: str, scale: int | None, device: str, precision: Arithmetic, tile: str) -> Model:
    """The model of a name, or the baseline."""
    if name == BICUBIC:
        from restorekit.metrics.super_resolution import Bicubic

        if scale is None:
            raise RestorekitError("bicubic needs a scale: --scale 2, 3 or 4")
        return Bicubic(scale)
    from restorekit import device as devices
    from restorekit.zoo.model import load_model

    model = load_model(name)
    if scale not in (None, model.scale):
        raise RestorekitError(f"--scale {scale}: {name} enlarges {model.scale} times; leave out --scale")
    if model.scale == 1:
        raise RestorekitError(f"{name}: does not enlarge; eval measures super-resolution")
    devices.keep_freed_memory()
    return Restorer(model, devices.choose(device), precision, tile_of(tile))


def _distance(network: LpipsNetwork | None) -> Distance | None:
    """LPIPS on a network."""
    if network is None:
        return None
    from restorekit.metrics.lpips import from_package, load

    if network is LpipsNetwork.SQUEEZE:
        return load()
    return from_package("alex" if network is LpipsNetwork.ALEX else "vgg")


def _as_json(
    model: str, scale: int, lpips: LpipsNetwork | None, scores: list[Score], mean: Mapping[str, float]
) -> dict[str, Any]:
    return {
        "model": model,
        "scale": scale,
        "lpips_network": lpips,
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
    }


def _finite(measures: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has no infinity; a PSNR of equal pictures is null."""
    return {name: value if math.isfinite(value) else None for name, value in measures.items()}
