"""Recipes: everything that makes a model out of pictures, in one YAML file. Reading one loads no torch.

The recipe of a shipped model stands beside its card, ``models/<id>.recipe.yaml``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml

from restorekit import bundled
from restorekit.data.ranges import ORDERED
from restorekit.data.steps import Step
from restorekit.errors import RestorekitError
from restorekit.yaml_model import read_model
from restorekit.zoo.card import ModelCard, Task
from restorekit.zoo.cards import card, files

SUFFIX = ".recipe.yaml"

Decay = Annotated[float, pydantic.Field(ge=0, lt=1)]
"""What is left of an average after a step."""

Factor = Annotated[float, pydantic.Field(ge=1, le=8)]
"""By how much both sides of a picture become smaller."""


class Recipe(pydantic.BaseModel):
    """How a model is trained.

    ``patch`` px of the degraded picture make a sample, ``batch`` samples a step, of all devices together. The learning
    rate rises over ``warmup`` steps to ``learning_rate`` and falls along half a cosine to ``final`` of it at the last
    of ``steps``. ``ema`` is the decay a step of the averaged weights, which are the result. ``loss`` weighs losses by
    name (:mod:`restorekit.train.losses`). ``start`` is a model, or a file, whose weights are taken where name and shape
    agree. Good pictures are reduced by a factor drawn from ``reduction`` before they are degraded, which leaves less of
    their own noise and JPEG, and more detail. Pairs are reduced by a factor drawn from ``estimate`` after that, as the
    models see larger pictures whose cards say ``estimate``. ``task`` and ``pixels`` are those of model cards. Without a
    ``degradation`` the inputs come from a folder of their own. ``precision`` is that of the layers in between; weights,
    optimizer and loss are float32.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    summary: str
    architecture: str
    config: Mapping[str, Any] = {}
    task: Task | None = None
    pixels: Literal["rgb", "y", "y-full", "ycbcr"] = "rgb"
    data: str
    degradation: tuple[Step, ...] = ()
    scale: int = pydantic.Field(default=1, ge=1, le=16, description="Of pairs; a degradation has its own")
    start: str | None = None
    reduction: Annotated[tuple[Factor, Factor], ORDERED] = (1.0, 1.0)
    estimate: Annotated[tuple[Factor, Factor], ORDERED] = (1.0, 1.0)
    patch: int = pydantic.Field(ge=8, le=1024)
    batch: int = pydantic.Field(ge=1)
    steps: int = pydantic.Field(ge=1)
    loss: Mapping[str, float] = {"l1": 1.0}
    learning_rate: float = pydantic.Field(gt=0)
    final: float = pydantic.Field(default=0.0, ge=0, le=1)
    warmup: int = pydantic.Field(default=0, ge=0)
    betas: tuple[Decay, Decay] = (0.9, 0.99)
    weight_decay: float = pydantic.Field(default=0.0, ge=0)
    clip: float | None = pydantic.Field(default=None, gt=0, description="Largest norm of the gradient")
    ema: Decay = 0.999
    flips: bool = True
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    seed: int = pydantic.Field(default=0, ge=0)
    notes: tuple[str, ...] = ()

    @property
    def trained_on(self) -> Literal["bicubic", "synthetic", "real"]:
        """What kind of pictures, as model cards say it."""
        kinds = {step.name for step in self.degradation}
        if not kinds or "real_world" in kinds:
            return "real"
        return "bicubic" if kinds == {"bicubic"} else "synthetic"

    def written(self) -> str:
        """The recipe as YAML; what is as by default is left out."""
        content = self.model_dump(mode="json", exclude_defaults=True)
        if self.degradation:
            content["degradation"] = [{step.name: dict(step.parameters)} for step in self.degradation]
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)


def read_recipe(path: Path) -> Recipe:
    """The recipe in a YAML file.

    Raises RestorekitError for a file that is none, in one line with the first mistake.
    """
    return read_model(path, Recipe, "recipe", "architecture, degradation, steps", RestorekitError)


def recipe_of(model: ModelCard) -> Recipe | None:
    """The recipe with which a model was trained, where it comes with one."""
    if model.recipe is None:
        return None
    beside = files()[model.id].with_name(model.recipe)
    return read_recipe(beside if beside.is_file() else bundled.folder("models") / model.recipe)


DEGRADED_BY: Mapping[str, Step] = {
    "denoising": Step(name="gaussian_noise", parameters={"sigma": (0, 50), "clipped": 0.5}),
    "jpeg": Step(name="jpeg", parameters={"quality": (10, 95)}),
}
"""What stands for the degradation of a task where no recipe says more."""


def fine_tuning(id: str, paired: bool) -> Recipe:
    """A recipe that goes on from the weights of a model: at a tenth of its learning rate, for a tenth of its steps.

    ``paired``: the inputs come from a folder of their own. Raises RestorekitError for a model of a task that cannot be
    synthesised, without such a folder.
    """
    model = card(id)
    base = recipe_of(model)
    summary = f"{id}, trained further"
    if base is not None:
        return base.model_copy(
            update={
                "summary": summary,
                "data": "own pictures",
                "start": id,
                "learning_rate": base.learning_rate / 10,
                "warmup": 20,
                "steps": max(500, base.steps // 10),
                "degradation": () if paired else base.degradation,
                "scale": model.scale if paired else 1,
            }
        )
    step = DEGRADED_BY.get(model.task)
    if model.task == "super-resolution":
        kind = "bicubic" if model.trained_on == "bicubic" else "real_world"
        step = Step(name=kind, parameters={"scale": model.scale})
    if not paired and step is None:
        raise RestorekitError(
            f"{id}: {model.task} cannot be made from good pictures alone; give the poor ones too: --inputs FOLDER"
        )
    return Recipe(
        summary=summary,
        architecture=model.architecture,
        config=model.config,
        task=model.task,
        pixels=model.pixels,
        data="own pictures",
        degradation=() if paired or step is None else (step,),
        scale=model.scale if paired else 1,
        start=id,
        warmup=20,
        patch=64 if model.scale > 1 else 128,
        batch=8,
        steps=2000,
        learning_rate=5e-5,
        precision="bf16" if "bf16" in model.precisions else "fp32",
    )
