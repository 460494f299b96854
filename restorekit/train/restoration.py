"""What Lightning trains: a network, its averaged weights, losses, and the schedule of a recipe."""

from __future__ import annotations

import math
import signal
from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from restorekit.architectures._network import Network
from restorekit.data.degradation import seeded
from restorekit.train.losses import combined
from restorekit.train.recipe import Recipe
from restorekit.train.samples import Batches, Samples, collated
from restorekit.zoo.model import channels_last

Several = list[Tensor] | tuple[Tensor, ...]


class RestorationModule(L.LightningModule):
    """A network in training. Batches go on after the step that a checkpoint was written at."""

    def __init__(self, network: Network, recipe: Recipe, samples: Samples, workers: int = 0) -> None:
        super().__init__()
        self.recipe, self.samples, self.workers = recipe, samples, workers
        self.network = channels_last(network.train())
        self.average = AveragedModel(self.network, multi_avg_fn=self._move)
        self.average.requires_grad_(False)
        self.loss = combined(recipe.loss)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        batches = Batches(self.recipe.batch, self.global_step, self.global_rank, self.trainer.world_size)
        return DataLoader(
            self.samples,
            batch_sampler=batches,
            num_workers=self.workers,
            collate_fn=collated,
            worker_init_fn=_deaf,
            pin_memory=self.device.type != "cpu",
        )

    def on_train_batch_start(self, *_: Any) -> None:
        # Networks with dropout draw from the generator of the whole process.
        seed = seeded(self.recipe.seed, self.global_step, self.global_rank).initial_seed()
        torch.manual_seed(seed)

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        degraded, target = batch
        scored = [self.loss(result.float(), wanted) for result, wanted in supervised(self.network(degraded), target)]
        total = torch.stack([loss for loss, _ in scored]).sum()
        self.log_dict({f"loss/{name}": value for name, value in scored[-1][1].items()})
        self.log("loss", total)
        assert isinstance(total, Tensor)
        return total

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.average.update_parameters(self.network)

    def configure_optimizers(self) -> Any:
        recipe = self.recipe
        optimizer = torch.optim.AdamW(
            self.network.parameters(), recipe.learning_rate, recipe.betas, weight_decay=recipe.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _share(self, step: int) -> float:
        """The learning rate at a step, as share of the highest."""
        recipe = self.recipe
        if step < recipe.warmup:
            return (step + 1) / (recipe.warmup + 1)
        done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
        return recipe.final + (1 - recipe.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    def _move(self, averages: Several, weights: Several, _: Any) -> None:
        """Averages towards weights; further in the beginning, so that the first, random ones are soon forgotten."""
        share = 1 - min(self.recipe.ema, (1 + self.global_step) / (10 + self.global_step))
        for average, current in zip(averages, weights, strict=True):
            average.lerp_(current, share)

    @property
    def averaged(self) -> Network:
        """The network with averaged weights: the result."""
        module = self.average.module
        assert isinstance(module, Network)
        return module


def supervised(made: Tensor | Sequence[Sequence[Tensor]], target: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Results and what they should be; of a network of several stages, each picture of every stage at its own size.

    Targets are reduced to the nearest pixel, as such networks reduce what they are given (Tu et al., MAXIM, CVPR 2022).
    """
    if isinstance(made, Tensor):
        return [(made, target)]
    return [
        (picture, F.interpolate(target, picture.shape[2:], mode="nearest-exact")) for stage in made for picture in stage
    ]


def _deaf(worker: int) -> None:
    """Ctrl-C goes to all processes of a terminal; these wait until the first one ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
