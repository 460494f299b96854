"""Training from a recipe to a file of weights, in as many sittings as it takes."""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from restorekit import architectures, data
from restorekit.architectures._network import Network
from restorekit.data.degradation import Chain
from restorekit.data.folders import Pictures, paired, unpaired
from restorekit.errors import RestorekitError
from restorekit.train.recipe import Recipe, read_recipe
from restorekit.train.restoration import Restoration
from restorekit.train.samples import Samples
from restorekit.train.validation import Validation
from restorekit.zoo import checkpoint
from restorekit.zoo.load import opened

CHECKPOINT, RECIPE = "last.ckpt", "recipe.yaml"

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
"""What Lightning calls them."""

CPU = torch.device("cpu")

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Folders:
    """Where pictures lie: good ones, and poor ones of the same names where these are not made by degradation."""

    targets: Path
    inputs: Path | None = None


@dataclass(frozen=True)
class Sitting:
    """How one sitting runs; none of it changes the result, but for the rounding of other devices.

    It ends after ``budget_s`` seconds, and the next one goes on from there. Every so many steps there is a checkpoint
    and a line of progress.
    """

    budget_s: float | None = None
    device: torch.device = CPU
    devices: int = 1
    workers: int = 0
    every: int = 500


@dataclass(frozen=True)
class Trained:
    """What a sitting ended with: the averaged weights, the steps done so far, and PSNR (dB) of a validation."""

    weights: Path
    steps: int
    psnr: float | None


def train(
    recipe: Recipe,
    folders: Folders,
    weights: Path,
    *,
    sitting: Sitting | None = None,
    validation: Folders | None = None,
    tell: Tell | None = None,
) -> Trained:
    """Train by a recipe, or go on where the last sitting ended; ``weights`` is the safetensors file that becomes of it.

    Checkpoints, the recipe and logs for TensorBoard lie beside it. A sitting that goes on gives the same weights, bit
    for bit, as one that was not interrupted. Raises RestorekitError for folders without pictures, for pictures that are
    too small, and where the folder of ``weights`` holds the training of another recipe.
    """
    begun = time.monotonic()
    sitting, tell = sitting or Sitting(), tell or (lambda text: None)
    out = weights.parent
    chain = Chain([data.create(step.name, **step.parameters) for step in recipe.degradation])
    made = chain if recipe.degradation else None
    scale = chain.scale if made else recipe.scale
    targets, inputs = _pictures(folders, made)
    samples = Samples(
        targets, targets.paths, recipe.patch, recipe.seed, made, inputs, scale, recipe.flips, recipe.pixels
    )
    held_out = Validation(*_pictures(validation, made), made, scale, recipe.pixels) if validation else None
    network = _network(recipe, scale, tell)
    _claim(out, recipe)
    module = Restoration(network, recipe, samples, sitting.workers)
    keeper = _Keeper(weights, sitting, begun, held_out, tell)
    _hush()
    trainer = L.Trainer(
        accelerator=sitting.device.type,
        devices=[sitting.device.index] if sitting.device.index is not None else sitting.devices,
        strategy="ddp" if sitting.devices > 1 else "auto",
        precision=PRECISIONS[recipe.precision],  # type: ignore[arg-type]  # a literal type of Lightning
        max_steps=recipe.steps,
        max_epochs=-1,
        callbacks=[keeper],
        logger=TensorBoardLogger(out, name="", version="log"),
        log_every_n_steps=min(50, sitting.every),
        gradient_clip_val=recipe.clip,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    before = out / CHECKPOINT
    trainer.fit(module, ckpt_path=before if before.is_file() else None, weights_only=True)
    if trainer.is_global_zero:
        left = recipe.steps - trainer.global_step
        tell(f"{weights}: {trainer.global_step} steps{f', {left} are left; run again to go on' if left else ''}")
    return Trained(weights, trainer.global_step, keeper.psnr)


class _Keeper(Callback):
    """Keeps checkpoints and weights, says how training gets on, and ends the sitting in time."""

    def __init__(
        self, weights: Path, sitting: Sitting, begun: float, validation: Validation | None, tell: Tell
    ) -> None:
        self.weights, self.sitting, self.begun, self.validation, self.tell = weights, sitting, begun, validation, tell
        self.psnr: float | None = None
        self.kept = -1
        self.mark = (0, 0.0)

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.kept = trainer.global_step
        self.mark = (trainer.global_step, time.monotonic())

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        if trainer.global_step % self.sitting.every == 0:
            self._keep(trainer, module)
        budget = self.sitting.budget_s
        if budget is not None:
            over = time.monotonic() - self.begun >= budget
            trainer.should_stop = trainer.strategy.broadcast(over) or trainer.should_stop

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._keep(trainer, module)

    def _keep(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        step = trainer.global_step
        if step == self.kept:
            return
        self.kept = step
        trainer.save_checkpoint(self.weights.parent / CHECKPOINT)
        if not trainer.is_global_zero:
            return
        assert isinstance(module, Restoration)
        averaged, recipe = module.averaged, module.recipe
        checkpoint.write(
            self.weights,
            averaged.state_dict(),
            {
                "architecture": recipe.architecture,
                "config": json.dumps(dict(recipe.config), sort_keys=True),
                "steps": f"{step} of {recipe.steps}",
                "recipe": recipe.written(),
            },
        )
        loss = float(trainer.callback_metrics["loss"])
        said = f"step {step} of {recipe.steps}: loss {loss:.5f}"
        if self.validation:
            self.psnr = self.validation.score(averaged, module.device)
            module.logger.log_metrics({"validation/psnr": self.psnr}, step)  # type: ignore[union-attr]
            said += f", validation {self.psnr:.2f} dB"
        now, (before, then) = time.monotonic(), self.mark
        self.mark = (step, now)
        self.tell(f"{said}, {(now - then) / max(1, step - before):.3f} s a step")


def _pictures(folders: Folders, chain: Chain | None) -> tuple[Pictures, Pictures | None]:
    """Targets, and their inputs where these are not made."""
    if folders.inputs is None:
        if chain is None:
            raise RestorekitError("the recipe has no degradation, so the poor pictures are needed too: --inputs FOLDER")
        return Pictures(unpaired(folders.targets)), None
    if chain is not None:
        raise RestorekitError("the recipe makes its inputs by a degradation; leave out --inputs, or the degradation")
    pairs = paired(folders.inputs, folders.targets)
    return Pictures([pair.target for pair in pairs]), Pictures([pair.input for pair in pairs])


def _network(recipe: Recipe, scale: int, tell: Tell) -> Network:
    """The network to train, from its seed or from where it starts."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(recipe.seed)
        network = architectures.create(recipe.architecture, **recipe.config)
    if network.scale != scale:
        raise RestorekitError(
            f"the network enlarges {network.scale} times, its pictures are reduced {scale} times; mend the recipe"
        )
    if recipe.patch % network.tiling.grid or recipe.patch < network.tiling.minimum:
        grid, least = network.tiling.grid, network.tiling.minimum
        raise RestorekitError(f"patch: {recipe.patch}: the network takes multiples of {grid} px from {least} px on")
    if recipe.start is not None:
        own, given = network.state_dict(), opened(recipe.start).network.state_dict()
        fitting = {key: value for key, value in given.items() if key in own and own[key].shape == value.shape}
        if not fitting:
            raise RestorekitError(f"{recipe.start}: no weight of it fits {recipe.architecture}; leave out start")
        network.load_state_dict(own | fitting)
        tell(f"starts from {recipe.start}: {len(fitting)} of {len(own)} tensors")
    return network


def _claim(out: Path, recipe: Recipe) -> None:
    """Put the recipe into the folder, or see that it is the one there."""
    path = out / RECIPE
    if path.is_file():
        if read_recipe(path) != recipe:
            raise RestorekitError(f"{out}: holds the training of another recipe ({path}); choose another --out")
        return
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(recipe.written(), encoding="utf-8")


def _hush() -> None:
    """Lightning tells what it finds and gives hints; what a person should know is said here."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
