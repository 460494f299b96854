"""The shipped pipelines and the models, as the page tells of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from restorekit import bundled
from restorekit.errors import RestorekitError
from restorekit.pipeline import Pipeline
from restorekit.schema import load
from restorekit.stages.restore import models_of
from restorekit.zoo import cards, store

ASSETS = Path(__file__).parent / "assets"
SAMPLE = Path(__file__).parents[2] / "docs" / "sample" / "lake.dng"
"""The RAW file of the repository; an installed wheel has none."""

MODEL_COLUMNS = {
    "model": "180px",
    "task": "150px",
    "scale": "70px",
    "licence": "170px",
    "weights": "110px",
    "measured here": "240px",
    "published": "280px",
    "how to get the weights": "480px",
}
"""What is told of a model, and how wide."""


@dataclass(frozen=True)
class Offer:
    """A shipped pipeline: what it is for, and perhaps a small picture of what it does.

    ``lacks`` are the models without weights here, and what brings them.
    """

    name: str
    summary: str
    lacks: Mapping[str, str]
    picture: Path | None

    @property
    def label(self) -> str:
        told = f"{self.name}: {self.summary}"
        return f"{told} (model not installed)" if self.lacks else told


@dataclass(frozen=True)
class Example:
    """Files to try, and the pipeline to try them with."""

    title: str
    pipeline: str
    files: tuple[Path, ...]


def offers() -> Mapping[str, Offer]:
    """The shipped pipelines by name, those that cannot run last; weights are looked up anew, they may have come."""
    found = {}
    for name, (summary, models) in _shipped().items():
        picture = ASSETS / f"{name}.jpg"
        found[name] = Offer(name, summary, _without_weights(models), picture if picture.is_file() else None)
    return dict(sorted(found.items(), key=lambda item: bool(item[1].lacks)))


@cache
def _shipped() -> Mapping[str, tuple[str, tuple[str, ...]]]:
    """The summary of every shipped pipeline, and the models that it runs."""
    found = {}
    for name in bundled.pipelines():
        pipeline = load(name)
        found[name] = pipeline.summary, _models(pipeline)
    return found


def missing(pipeline: Pipeline) -> Mapping[str, str]:
    """The models of a pipeline that have no weights here, and what brings them."""
    return _without_weights(_models(pipeline))


def _models(pipeline: Pipeline) -> tuple[str, ...]:
    return models_of(step.stage for step in pipeline.steps)


def _without_weights(models: Sequence[str]) -> Mapping[str, str]:
    return {card.id: store.cure(card) for card in store.without_weights(models)}


def examples() -> tuple[Example, ...]:
    """Those examples whose files are there."""
    bracket = tuple(sorted(ASSETS.glob("example_bracket_*.jpg")))
    known = (
        Example("A RAW file", "raw-to-srgb", (SAMPLE,)),
        Example("A photo, too dark", "photo-enhance", (ASSETS / "example_photo.jpg",)),
        Example("A bracket of three", "bracket-fusion", bracket),
        Example("A poor JPEG", "repair-jpeg", (ASSETS / "example_jpeg.jpg",)),
    )
    return tuple(each for each in known if each.files and all(path.is_file() for path in each.files))


def model_rows() -> list[list[str]]:
    """The models in rows of :data:`MODEL_COLUMNS`, installed ones first; a card that is broken is left out."""
    rows = []
    for id in cards.files():
        try:
            card = cards.card(id)
        except RestorekitError:
            continue
        status = store.status(card)
        how = "" if status == "installed" else store.cure(card)
        scores = [
            "; ".join(
                f"{score.set}{f' {score.setting}' if score.setting else ''} {score.psnr:g} dB"
                for score in found
                if score.psnr is not None
            )
            for found in (card.measured, card.published)
        ]
        rows.append([card.id, card.task, f"x{card.scale}", card.licence, status, *scores, how])
    return sorted(rows, key=lambda row: row[list(MODEL_COLUMNS).index("weights")] != "installed")
