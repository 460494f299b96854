"""Keeps what a training has reached: checkpoints and weights, a line of progress, and an end in good order."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from restorekit.errors import InputError, ModelError, RestorekitError
from restorekit.train.restoration import RestorationModule
from restorekit.train.validation import Validation
from restorekit.zoo import checkpoint
from restorekit.zoo.card import ModelCard

CHECKPOINT, RECIPE = "last.ckpt", "recipe.yaml"

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""The first one ends a run after the step; a second one at once."""

Tell = Callable[[str], None]


class Keeper(Callback):
    """Writes checkpoint, recipe and weights every so many steps and at the end, which a deadline or a signal brings."""

    def __init__(
        self, weights: Path, every: int, deadline: float | None, validation: Validation | None, tell: Tell
    ) -> None:
        self.weights, self.every, self.deadline, self.validation, self.tell = weights, every, deadline, validation, tell
        self.psnr: float | None = None
        self.interrupted = False
        self.kept = -1
        self.losses: list[Tensor] = []
        self.since = 0.0

    @contextmanager
    def stopping(self) -> Iterator[None]:
        """Signals end the run in good order while this lasts; outside of the main thread they cannot be had."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.kept = trainer.global_step
        self.since = time.monotonic()
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:  # Lightning has put its own there, which save nothing
                signal.signal(number, self._stop)

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, *_: Any) -> None:
        self.losses.append(outputs["loss"].detach())
        if trainer.global_step % self.every == 0:
            self._keep(trainer, module)
        late = self.deadline is not None and time.monotonic() >= self.deadline
        if trainer.world_size > 1:
            late = trainer.strategy.reduce_boolean_decision(late or self.interrupted, all=False)
        trainer.should_stop = trainer.should_stop or late or self.interrupted

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._keep(trainer, module)

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        # A picture that cannot be used is found between two steps, so that what was reached can be kept.
        if isinstance(exception, InputError) and self.losses:
            self._keep(trainer, module)

    def settle(self, trainer: L.Trainer, module: RestorationModule) -> None:
        """Write the weights if those there are of another step, as when a run was killed between two files."""
        if trainer.is_global_zero and self._written() != str(trainer.global_step):
            self._write(trainer, module)

    def _stop(self, number: int, _: object) -> None:
        self.interrupted = True
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)

    def _keep(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        step = trainer.global_step
        if step == self.kept:
            return
        assert isinstance(module, RestorationModule)
        loss = math.fsum(float(value) for value in self.losses) / len(self.losses)
        finite = all(bool(weights.isfinite().all()) for weights in module.network.parameters())
        if not (math.isfinite(loss) and finite):
            rest = f"step {self.kept} is kept" if self.kept > 0 else "nothing is kept"
            raise RestorekitError(f"step {step}: the loss is not finite; take a lower learning_rate ({rest})")
        self.kept = step
        trainer.save_checkpoint(self.weights.parent / CHECKPOINT)
        now = time.monotonic()
        pace = (now - self.since) / len(self.losses)
        self.losses.clear()
        if trainer.is_global_zero:
            (self.weights.parent / RECIPE).write_text(module.recipe.written(), encoding="utf-8")
            self._write(trainer, module)
            said = f"step {step} of {module.recipe.steps}: loss {loss:.5f}"
            if self.validation:
                self.psnr = self.validation.score(module.averaged, module.device)
                module.logger.log_metrics({"validation/psnr": self.psnr}, step)  # type: ignore[union-attr]
                said += f", validation {self.psnr:.2f} dB"
            self.tell(f"{said}, {pace:.3f} s a step")
        self.since = time.monotonic()

    def _written(self) -> str | None:
        """The step of the weights that are there."""
        try:
            return checkpoint.metadata(self.weights).get("step") if self.weights.is_file() else None
        except ModelError:
            return None

    def _write(self, trainer: L.Trainer, module: RestorationModule) -> None:
        recipe = module.recipe
        card = ModelCard(
            id=self.weights.stem,
            summary=recipe.summary,
            architecture=recipe.architecture,
            config=dict(recipe.config),
            task=recipe.task or ("super-resolution" if module.network.scale > 1 else "enhancement"),
            scale=module.network.scale,
            pixels=recipe.pixels,
            trained_on=recipe.trained_on,
            data=recipe.data,
            padding="reflect" if module.network.tiling.grid > 1 else "none",
            tile=module.network.tiling.fixed,
            precisions=("fp32",) if recipe.precision == "fp32" else ("fp32", recipe.precision),
            licence="unknown",
        )
        checkpoint.write(
            self.weights,
            module.averaged.state_dict(),
            {
                "card": card.model_dump_json(exclude={"id"}, exclude_defaults=True),
                "step": str(trainer.global_step),
                "recipe": recipe.written(),
            },
        )
