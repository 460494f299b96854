"""Training from a recipe to a file of weights, in as many runs as it takes."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from restorekit import architectures
from restorekit.architectures._network import Network
from restorekit.data.degradation import Chain
from restorekit.data.folders import MEMORY, Pictures, paired, unpaired
from restorekit.data.steps import chain
from restorekit.errors import RestorekitError
from restorekit.train.keeper import CHECKPOINT, RECIPE, Keeper, Tell
from restorekit.train.recipe import Recipe, read_recipe
from restorekit.train.restoration import RestorationModule
from restorekit.train.samples import Samples
from restorekit.train.validation import Validation
from restorekit.zoo.load import opened

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
"""What Lightning calls them."""

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Folders:
    """Where pictures lie: good ones, and poor ones of the same names where these are not made by degradation."""

    targets: Path
    inputs: Path | None = None


@dataclass(frozen=True)
class Resources:
    """What a run may use; none of it changes the result, but for the rounding of other devices.

    It ends after ``budget_s`` seconds, and the next one goes on from there. Every so many steps there is a checkpoint
    and a line of progress. ``workers`` are processes that make samples, of each device.
    """

    budget_s: float | None = None
    device: torch.device = CPU
    devices: int = 1
    workers: int = 0
    checkpoint_every: int = 500


@dataclass(frozen=True)
class Trained:
    """What a run ended with: averaged weights, the steps done so far, the last validation's PSNR (dB).

    ``interrupted`` by a signal (Ctrl-C, or the end of a batch job).
    """

    weights: Path
    steps: int
    psnr: float | None
    interrupted: bool


def train(
    recipe: Recipe,
    folders: Folders,
    weights: Path,
    *,
    resources: Resources | None = None,
    validation: Folders | None = None,
    tell: Tell | None = None,
) -> Trained:
    """Train by a recipe, or go on where the last run ended; ``weights`` is the safetensors file that becomes of it.

    Checkpoint, recipe and logs for TensorBoard lie beside it. A run that goes on gives the same weights, bit for bit,
    as one that was not interrupted (on GPUs, whose sums have no fixed order, to rounding). Raises RestorekitError for
    folders without pictures, pictures that are too small or cannot be read, losses that are not finite, and where the
    folder of ``weights`` holds the training of another recipe.
    """
    begun = time.monotonic()
    resources, tell = resources or Resources(), tell or (lambda text: None)
    out = weights.parent
    before = out / CHECKPOINT if (out / CHECKPOINT).is_file() else None
    if before is not None:
        _same(out / RECIPE, recipe)
    made = chain(recipe.degradation) if recipe.degradation else None
    _possible(recipe, made, resources)
    scale = _scale(recipe, made)
    network = _network(recipe, scale, None if before else recipe.start, tell)
    targets, inputs = _pictures(folders, made, resources)
    samples = Samples(
        targets, targets.paths, recipe.patch, recipe.seed, made, inputs, scale=scale, flips=recipe.flips,
        pixels=recipe.pixels, reduction=recipe.reduction, estimate=recipe.estimate,
    )  # fmt: skip
    held_out = None
    if validation is not None:
        good, poor = _pictures(validation, made, resources)
        held_out = Validation(
            good, good.paths, poor, made, scale=scale, pixels=recipe.pixels, grid=network.tiling.grid,
            estimate=recipe.estimate[1],
        )  # fmt: skip
        if held_out.left_out:
            tell(f"{validation.targets}: {held_out.left_out} pictures are too small to be measured")
    module = RestorationModule(network, recipe, samples, resources.workers)
    deadline = None if resources.budget_s is None else begun + resources.budget_s
    keeper = Keeper(weights, resources.checkpoint_every, deadline, held_out, tell)
    with _hushed(), keeper.stopping(), torch.random.fork_rng(devices=()):
        trainer = L.Trainer(
            accelerator=resources.device.type,
            devices=[resources.device.index] if resources.device.index is not None else resources.devices,
            strategy="ddp_find_unused_parameters_true" if resources.devices > 1 else "auto",
            precision=PRECISIONS[recipe.precision],  # type: ignore[arg-type]  # a literal type of Lightning
            max_steps=recipe.steps,
            max_epochs=-1,
            callbacks=[keeper],
            logger=TensorBoardLogger(out, name="", version="log"),
            log_every_n_steps=min(50, resources.checkpoint_every),
            gradient_clip_val=recipe.clip,
            use_distributed_sampler=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        try:
            trainer.fit(module, ckpt_path=before, weights_only=True)
        except RestorekitError as error:
            raise type(error)(_own_words(error)) from None
        except Exception as error:
            if before is not None and trainer.global_step == 0:  # it was not even loaded
                said = " ".join(str(error).split())[:200]
                raise RestorekitError(f"{before}: cannot be gone on from ({said}); delete it to begin again") from None
            raise
        keeper.settle(trainer, module)
    if trainer.is_global_zero:
        left = recipe.steps - trainer.global_step
        tell(f"{weights}: {trainer.global_step} steps{f', {left} are left; run again to go on' if left else ''}")
    return Trained(weights, trainer.global_step, keeper.psnr, keeper.interrupted)


def _possible(recipe: Recipe, made: Chain | None, resources: Resources) -> None:
    """Refuse what would run as something else."""
    if resources.device.index is not None and resources.devices > 1:
        raise RestorekitError(f"{resources.devices} devices, but {resources.device} is one; name it without a number")
    if recipe.precision == "fp16" and resources.device.type == "cpu":
        raise RestorekitError("precision: fp16: CPUs do not train in it; take bf16 or fp32 in the recipe")
    if recipe.reduction != (1.0, 1.0) and not recipe.degradation:
        raise RestorekitError("reduction: is for pictures that a degradation makes poor; leave it out for pairs")
    if recipe.estimate != (1.0, 1.0) and (made is None or made.scale != 1):
        raise RestorekitError("estimate: is for pairs of one size that a degradation makes; leave it out")
    if recipe.batch % resources.devices:
        raise RestorekitError(
            f"batch: {recipe.batch}: cannot be shared among {resources.devices} devices; take a multiple of that"
        )


def _scale(recipe: Recipe, made: Chain | None) -> int:
    if made is None:
        return recipe.scale
    if recipe.scale not in (1, made.scale):
        raise RestorekitError(f"scale: {recipe.scale}: the degradation reduces {made.scale} times; leave out scale")
    return made.scale


def _pictures(folders: Folders, made: Chain | None, resources: Resources) -> tuple[Pictures, Pictures | None]:
    """Targets, and their inputs where these are not made; each process keeps its share of memory full of them."""
    if folders.inputs is None and made is None:
        raise RestorekitError("the recipe has no degradation, so the poor pictures are needed too: --inputs FOLDER")
    if folders.inputs is not None and made is not None:
        raise RestorekitError("the recipe makes its inputs by a degradation; leave out --inputs, or the degradation")
    memory = MEMORY // (max(1, resources.workers) * resources.devices * (1 if folders.inputs is None else 2))
    if folders.inputs is None:
        return Pictures(unpaired(folders.targets), memory), None
    pairs = paired(folders.inputs, folders.targets)
    return Pictures([pair.target for pair in pairs], memory), Pictures([pair.input for pair in pairs], memory)


def _network(recipe: Recipe, scale: int, start: str | None, tell: Tell) -> Network:
    """The network to train, from its seed or from where it starts."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(recipe.seed)
        network = architectures.create(recipe.architecture, **recipe.config)
    channels = 1 if recipe.pixels in ("y", "y-full") else 3
    if network.in_channels != channels:
        raise RestorekitError(
            f"pixels: {recipe.pixels}: has {channels} channels, the network takes {network.in_channels}; "
            "change pixels or config in the recipe"
        )
    if network.scale != scale:
        raise RestorekitError(
            f"the network enlarges {network.scale} times, but its pictures are reduced {scale} times; "
            "change scale, degradation or config in the recipe"
        )
    tiling = network.tiling
    if recipe.patch % tiling.grid or recipe.patch < tiling.minimum:
        said = f"multiples of {tiling.grid} px from {tiling.minimum} px on"
        raise RestorekitError(f"patch: {recipe.patch}: the network takes {said}; change patch in the recipe")
    if start is not None:
        own, given = network.state_dict(), opened(start).network.state_dict()
        fitting = {key: value for key, value in given.items() if key in own and own[key].shape == value.shape}
        if not fitting:
            raise RestorekitError(f"{start}: no weight of it fits {recipe.architecture}; leave out start")
        network.load_state_dict(own | fitting)
        tell(f"starts from {start}: {len(fitting)} of {len(own)} tensors")
    return network


def _same(path: Path, recipe: Recipe) -> None:
    """Refuse to go on with another recipe than that of the checkpoint."""
    if not path.is_file():
        raise RestorekitError(f"{path.parent}: has a checkpoint without {path.name}; choose another --out")
    other = read_recipe(path)
    changed = [name for name in Recipe.model_fields if getattr(other, name) != getattr(recipe, name)]
    if changed:
        what = f"{', '.join(changed)} {'is' if len(changed) == 1 else 'are'} different in {path.name}"
        raise RestorekitError(f"{path.parent}: holds the training of another recipe ({what}); choose another --out")


def _own_words(error: RestorekitError) -> str:
    """What an error says, without what a process that made samples wrapped around it."""
    text = str(error)
    return text.strip().splitlines()[-1].partition(": ")[2] if text.startswith("Caught ") else text


@contextmanager
def _hushed() -> Iterator[None]:
    """Lightning tells what it finds and gives hints; what a person should know is said here."""
    names = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    loggers = {logging.getLogger(name): logging.getLogger(name).level for name in names}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in loggers.items():
                logger.setLevel(level)
