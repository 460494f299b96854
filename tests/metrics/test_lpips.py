"""LPIPS on SqueezeNet against a plain computation and known values; what is said where weights or packages lack."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from restorekit.errors import InputError, ModelError
from restorekit.metrics.lpips import BACKBONES, SMALLEST, TAPS, SqueezeLpips, from_package, load

Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def weights() -> Weights:
    """Seeded weights by our names; linear ones are not negative, as learned ones are."""
    torch.manual_seed(0)
    state = SqueezeLpips().state_dict()
    return {name: tensor.abs() if name.startswith("heads") else tensor for name, tensor in state.items()}


def save(folder: Path, weights: Weights, prefix: str = "features.") -> Path:
    """The two files as the authors and torchvision name what is in them; ``prefix`` is that of a file's own."""
    folder.mkdir(exist_ok=True)
    linear = {f"lin{i}.model.1.weight": weights[f"heads.{i}.weight"] for i in range(len(TAPS))}
    torch.save(linear, folder / "a.pth")
    features = {name.replace("features.", prefix): weights[name] for name in weights if name.startswith("features")}
    torch.save(features | {"classifier.1.weight": torch.zeros(3, 512, 1, 1)} if prefix else features, folder / "b.pth")
    return folder


def plain_lpips(weights: Weights, first: Tensor, second: Tensor) -> Tensor:
    """LPIPS layer by layer as the paper has it."""

    def convolved(x: Tensor, name: str, **options: int) -> Tensor:
        return F.relu(F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], **options))

    def features(x: Tensor) -> list[Tensor]:
        means, deviations = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        x = (x - means.view(1, 3, 1, 1)) / deviations.view(1, 3, 1, 1)
        x = convolved(x, "features.0", stride=2)
        found = [x]
        for layer in range(3, 13):
            if layer in (3, 6, 9):
                x = F.max_pool2d(x, 3, 2, ceil_mode=True)
            if layer in (5, 8):
                continue
            x = convolved(x, f"features.{layer}.squeeze")
            wide = convolved(x, f"features.{layer}.expand3x3", padding=1)
            x = torch.cat([convolved(x, f"features.{layer}.expand1x1"), wide], 1)
            if layer in TAPS:
                found.append(x)
        return found

    distance = torch.zeros(first.shape[0])
    for index, (a, b) in enumerate(zip(features(first), features(second), strict=True)):
        difference = F.normalize(a, dim=1) - F.normalize(b, dim=1)
        weighted = difference.square() * weights[f"heads.{index}.weight"].reshape(1, -1, 1, 1)
        distance += weighted.sum(1).mean((1, 2))
    return distance


@pytest.mark.parametrize("prefix", ["features.", ""])
def test_is_what_a_plain_computation_gives(tmp_path: Path, weights: Weights, prefix: str) -> None:
    model = load(save(tmp_path, weights, prefix))
    first, second = torch.rand(2, 3, 3, 45, 38, generator=torch.Generator().manual_seed(1)).unbind(0)
    found = model(first, second)
    assert found.shape == (3,) and float(found.min()) > 0.01
    assert torch.allclose(found, plain_lpips(weights, first, second), rtol=1e-4)
    assert torch.equal(model(second, first), found)
    assert torch.equal(model(first, first), torch.zeros(3))
    assert torch.allclose(model(first[1:2], second[1:2]), found[1:2], rtol=1e-5)


def test_the_smallest_size_is_enough(weights: Weights) -> None:
    model = SqueezeLpips()
    model.load_state_dict(weights)
    pair = torch.rand(2, 1, 3, SMALLEST, SMALLEST)
    assert float(model(pair[0], pair[1])) > 0


def test_weights_are_looked_for_in_the_users_folder(
    tmp_path: Path, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESTOREKIT_HOME", str(tmp_path))
    save(tmp_path / "lpips", weights)
    assert torch.equal(load().state_dict()["heads.6.weight"], weights["heads.6.weight"])


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def with_too_few_layers(folder: Path) -> None:
    """The linear weights of AlexNet and VGG-16 are named as those of SqueezeNet."""
    linear = torch.load(folder / "a.pth", weights_only=True)
    torch.save({name: linear[name] for name in list(linear)[:5]}, folder / "a.pth")


@pytest.mark.parametrize("spoil", [without("a.pth"), without("b.pth"), with_too_few_layers], ids=["a", "b", "layers"])
def test_weights_that_are_missing_are_named(tmp_path: Path, weights: Weights, spoil: Callable[[Path], None]) -> None:
    spoil(save(tmp_path, weights))
    with pytest.raises(ModelError, match=r"squeezenet1_1-b8a52dc0\.pth"):
        load(tmp_path)


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harm",)


def test_files_run_nothing(tmp_path: Path, weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"lin0.model.1.weight": Harmful()}, save(tmp_path, weights) / "c.pth")
    with pytest.raises(ModelError, match=r"c\.pth"):
        load(tmp_path)
    assert not Path("harm").exists()


@pytest.mark.parametrize(("seed", "expected"), [(42, 0.1005), (123, 0.1008)])
def test_the_learned_weights_give_known_values(shared_data: Path, seed: int, expected: float) -> None:
    """The examples in the documentation of torchmetrics' ``learned_perceptual_image_patch_similarity``."""
    torch.manual_seed(seed)
    first, second = torch.rand(10, 3, 100, 100), torch.rand(10, 3, 100, 100)
    model = load(shared_data / "weights" / "lpips")
    assert float(model(first, second).mean()) == pytest.approx(expected, abs=5e-5)


class Package:
    """Stands for the class of the authors' package: half the mean difference, as it sees -1..1."""

    def __init__(self, net: str, verbose: bool) -> None:
        assert net in BACKBONES and not verbose

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        assert float(first.min()) == -1
        return (first - second).abs().mean((1, 2, 3), keepdim=True) / 2


@pytest.mark.parametrize("network", ["alex", "vgg"])
class TestPackage:
    def test_is_given_what_it_expects(self, network: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=Package))  # type: ignore[arg-type]
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
        with pytest.raises(InputError, match=rf"{BACKBONES[network]}: is missing.*download https://"):
            from_package(network)
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints" / BACKBONES[network]).touch()
        found = from_package(network)(torch.zeros(2, 3, 4, 5), torch.full((2, 3, 4, 5), 0.25))
        assert found.tolist() == [0.25, 0.25]

    def test_where_it_is_absent_the_cure_is_named(self, network: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "lpips", None)  # type: ignore[arg-type]
        with pytest.raises(InputError, match=rf"LPIPS on {network} needs .* pip install lpips torchvision") as caught:
            from_package(network)
        assert "\n" not in str(caught.value)
