"""The schedule, the average and the batches of a training are what its recipe says."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from torch import Tensor

pytest.importorskip("lightning")

from restorekit.architectures import create
from restorekit.data.steps import Step, chain
from restorekit.train.recipe import Recipe
from restorekit.train.restoration import RestorationModule, supervised
from restorekit.train.samples import Samples

RECIPE = Recipe(
    summary="A small one",
    architecture="rlfn",
    config={"feature_channels": 8, "upscale": 2, "blocks": 1},
    data="own pictures",
    degradation=(Step(name="bicubic", parameters={"scale": 2}),),
    patch=16,
    batch=2,
    steps=110,
    learning_rate=2e-3,
    warmup=10,
    final=0.1,
    ema=0.9,
)


def module(recipe: Recipe = RECIPE) -> RestorationModule:
    picture = torch.zeros(3, 64, 64, dtype=torch.uint8)
    network = create(recipe.architecture, **recipe.config)
    return RestorationModule(network, recipe, Samples([picture], "a", 16, 0, chain(recipe.degradation)))


def rates(recipe: Recipe) -> list[float]:
    training = module(recipe)
    made = training.configure_optimizers()
    found = []
    for _ in range(recipe.steps + 1):
        found.append(made["optimizer"].param_groups[0]["lr"])
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    return found


def test_rate_rises_then_falls_along_half_a_cosine() -> None:
    found = rates(RECIPE)
    assert found[:10] == pytest.approx([2e-3 * (step + 1) / 11 for step in range(10)])
    assert found[10] == pytest.approx(2e-3)
    assert found[60] == pytest.approx(2e-3 * (0.1 + 0.9 / 2))
    assert found[110] == pytest.approx(2e-4)
    assert all(after < before for before, after in pairwise(found[10:]))


def test_rate_is_taken_up_each_step_and_not_each_epoch() -> None:
    assert module().configure_optimizers()["lr_scheduler"]["interval"] == "step"


def moved(step: int, decay: float, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    training = module(RECIPE.model_copy(update={"ema": decay}))
    monkeypatch.setattr(type(training), "global_step", property(lambda self: step))
    average = torch.zeros(3)
    training._move([average], [torch.ones(3)], None)
    return average


def test_average_moves_by_its_decay_and_further_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert moved(100_000, 0.9, monkeypatch) == pytest.approx([0.1] * 3)
    assert moved(0, 0.9, monkeypatch) == pytest.approx([0.9] * 3)
    assert moved(10, 0.999, monkeypatch) == pytest.approx([9 / 20] * 3)


def test_average_is_not_trained() -> None:
    training = module()
    assert not [name for name, weight in training.average.named_parameters() if weight.requires_grad]
    optimized = {
        id(weight) for group in training.configure_optimizers()["optimizer"].param_groups for weight in group["params"]
    }
    assert optimized == {id(weight) for weight in training.network.parameters()}


def test_loss_is_that_of_the_recipe() -> None:
    training = module(RECIPE.model_copy(update={"loss": {"l2": 2.0}}))
    training.log_dict = training.log = lambda *_, **__: None  # type: ignore[method-assign]  # there is no trainer
    low, high = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 32, 32)
    network = copy.deepcopy(training.network)
    expected = 2 * (network(low) - high).square().mean()
    assert training.training_step((low, high)).item() == pytest.approx(expected.item(), rel=1e-5)


def test_networks_of_several_stages_are_supervised_at_every_size() -> None:
    """MAXIM's own reductions of a picture are what its smaller results are compared with."""
    network = create(
        "maxim",
        features=4,
        depth=2,
        num_supervision_scales=2,
        block_size_hr=(2, 2),
        grid_size_hr=(2, 2),
        block_size_lr=(2, 2),
    )
    target = torch.rand((1, 3, network.tiling.grid, network.tiling.grid))
    pairs = supervised(network(target), target)
    assert len(pairs) == 4
    assert all(result.shape == wanted.shape for result, wanted in pairs)
    assert torch.equal(pairs[0][1], target[:, :, 1::2, 1::2])
    assert torch.equal(pairs[-1][1], target)
    assert len(supervised(target, target)) == 1
