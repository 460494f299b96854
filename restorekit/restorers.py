"""What can be measured by its name: models, pipelines, and the baselines ``input`` and ``bicubic``."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from restorekit import bundled
from restorekit.engine import Run, process
from restorekit.errors import InputError, ModelError
from restorekit.execution import Execution
from restorekit.frame import Frame
from restorekit.metrics import super_resolution
from restorekit.pipeline import Pipeline
from restorekit.stages.restore import Restore
from restorekit.state import SHORTHANDS
from restorekit.zoo import cards
from restorekit.zoo.model import Model, load_model

INPUT, BICUBIC = "input", "bicubic"

SRGB = SHORTHANDS["display-srgb"]
GRAY = SRGB.changed({"layout": "gray"})


@dataclass
class Restorer:
    """Takes ``[1,C,H,W]``, encoded sRGB or gray, to ``scale`` times the size. ``task`` is that of a model's card.

    ``told`` are texts for a person, each once; ``arithmetic`` is precision and device of the network that was run last.
    """

    name: str
    scale: int = 1
    task: str | None = None
    told: list[str] = field(default_factory=list)
    arithmetic: str = ""

    def __call__(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def tell(self, *texts: str) -> None:
        self.told += [text for text in dict.fromkeys(texts) if text not in self.told]


class Unchanged(Restorer):
    """The baseline ``input``: what the poor picture itself measures."""

    def __call__(self, x: Tensor) -> Tensor:
        return x


class Enlarged(Restorer):
    """The baseline ``bicubic`` of super-resolution."""

    def __call__(self, x: Tensor) -> Tensor:
        return super_resolution.Bicubic(self.scale)(x)


@dataclass
class OfModel(Restorer):
    """A model, with how it is run."""

    model: Model = field(kw_only=True)
    settings: Execution = field(kw_only=True)

    def __call__(self, x: Tensor) -> Tensor:
        execution = Execution(self.settings.device, self.settings.precision, self.settings.tile)
        result = self.model(x, execution)
        self.arithmetic = f"{execution.used}, {execution.device}"
        self.tell(f"{execution.mode}, {self.arithmetic}", *execution.notes)
        return result


@dataclass
class OfPipeline(Restorer):
    """A pipeline, with how it is run. Its pictures have 8 bits, as files do: noisy ones are clipped and rounded."""

    pipeline: Pipeline = field(kw_only=True)
    settings: Execution = field(kw_only=True)

    def __call__(self, x: Tensor) -> Tensor:
        frame = Frame(super_resolution.eight_bit(x[0]), GRAY if x.shape[1] == 1 else SRGB)
        run = Run(device=self.settings.device, precision=self.settings.precision, tile=self.settings.tile)
        result = process(self.pipeline, frame, run)
        if result.state not in (SRGB, GRAY):
            raise InputError(f"{self.name}: ends in {result.state}; sRGB pictures are compared, end with color.encode")
        for how in run.networks.values():
            self.arithmetic = how.partition(", ")[2]
        self.tell(*(f"{step}: {how}" for step, how in run.networks.items()), *result.notes)
        return result.pixels[None]


def is_pipeline(name: str) -> bool:
    """Whether a name is that of a shipped pipeline or of a pipeline's file, and of no model."""
    return name not in cards.files() and (name.endswith((".yaml", ".yml")) or name in bundled.pipelines())


def baseline(name: str, scale: int | None) -> Restorer:
    """``input`` or ``bicubic``. Raises InputError for a scale that does not go with it."""
    if name == INPUT:
        if scale not in (None, 1):
            raise InputError(f"input: is as large as the reference, with --scale {scale} it would not be; name bicubic")
        return Unchanged(name)
    if scale is None:
        raise InputError("bicubic needs a scale; add --scale 2, 3 or 4")
    return Enlarged(name, scale)


def of_model(name: str, scale: int | None, settings: Execution) -> Restorer:
    """A model of the list, or a file of weights.

    Raises ModelError where it cannot be loaded, enlarges by another factor, or does not take finished pictures.
    """
    model = load_model(name)
    card = model.card
    if scale not in (None, model.scale):
        raise ModelError(f"--scale {scale}: {name} enlarges {model.scale} times; leave out --scale")
    if card is not None and (card.reference, card.transfer) != ("display", "srgb"):
        takes = f"{card.reference}-referred {card.transfer}"
        raise ModelError(f"{name}: takes {takes} pictures, eval measures finished sRGB ones; use restorekit compare")
    return OfModel(name, model.scale, card.task if card else None, model=model, settings=settings)


def of_pipeline(name: str, pipeline: Pipeline, scale: int | None, settings: Execution) -> Restorer:
    """A pipeline for finished photos; it enlarges as its models do where no ``scale`` is given.

    Raises InputError for pipelines that start from something else.
    """
    start = pipeline.input.state if pipeline.input else SRGB
    if start.reference != "display" or start.frames != "single":
        raise InputError(f"{name}: starts from {start}; eval measures pipelines for finished photos, display-srgb")
    restores = [step.stage for step in pipeline.steps if isinstance(step.stage, Restore)]
    found = math.prod(load_model(stage.model, stage.local).scale for stage in restores)
    tasks = [stage.card.task for stage in restores if stage.card is not None]
    task = tasks[0] if tasks else None
    return OfPipeline(name, scale or found, task, pipeline=pipeline, settings=settings)
