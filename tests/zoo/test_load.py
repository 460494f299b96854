"""Weights alone tell their network; cards and files open as networks with every weight in its place."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn

from restorekit import architectures
from restorekit.architectures import create
from restorekit.errors import ModelError
from restorekit.zoo import cards, community, convert, install, load, match, store, verify
from restorekit.zoo.card import ModelCard
from restorekit.zoo.recognise import outline, recognise

CFSR: dict[str, Any] = {
    "in_chans": 3, "embed_dim": 8, "depths": [1, 2], "dw_size": 5, "mlp_ratio": 2, "upscale": 2,
    "upsampler": "pixelshuffledirect",
}  # fmt: skip
HAT: dict[str, Any] = {
    "embed_dim": 12, "depths": [2], "num_heads": [2], "window_size": 4, "compress_ratio": 3, "squeeze_factor": 4,
    "conv_scale": 0.5, "upscale": 4, "upsampler": "pixelshuffle", "mlp_ratio": 2, "img_size": 64,
}  # fmt: skip


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one card in place of the user's, and no cards elsewhere."""
    monkeypatch.setenv("RESTOREKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(cards.bundled, "folder", lambda kind: tmp_path / "bundled")
    write_card("small.x2", "cfsr", CFSR, 2)
    return tmp_path / "home"


def write_card(id: str, architecture: str, config: Mapping[str, Any], scale: int, **more: Any) -> ModelCard:
    content = {
        "summary": "A model",
        "architecture": architecture,
        "config": dict(config),
        "task": "super-resolution",
        "scale": scale,
        "trained_on": "bicubic",
        "data": "DF2K",
        "weights": {"file": f"{id}.pth", "page": "https://example.org", "licence": "MIT"},
        "licence": "MIT",
        **more,
    }
    folder = cards.user_folder()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{id}.yaml").write_text(yaml.safe_dump(content))
    return cards.card(id)


def weights(architecture: str = "cfsr", seed: int = 0, **config: Any) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return create(architecture, **{**(HAT if architecture == "hat" else CFSR), **config}).state_dict()


def checkpoint(path: Path, state: Mapping[str, Tensor]) -> Path:
    torch.save({"params_ema": dict(state), "epoch": 3}, path)
    return path


def installed(card: ModelCard, path: Path) -> Path:
    return install.install(install.examined(path), card, path)


def test_weights_tell_architecture_and_hyperparameters() -> None:
    name, detected = load.detect(weights())
    assert name == "cfsr"
    assert {key: detected.config[key] for key in CFSR} == CFSR
    found = recognise(weights("hat"), "a.pth")
    assert (found.architecture, found.label, found.scale, found.in_channels) == ("hat", "HAT x4", 4, 3)
    assert any("conv_scale" in line for line in found.detected.assumed)


def test_unknown_weights_are_named_with_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(community, "installed", lambda: False)
    state = {f"layer{number}.w": torch.zeros(1) for number in range(9)}
    with pytest.raises(ModelError) as caught:
        load.detect(state, "a.pth")
    text = str(caught.value)
    assert text.startswith("a.pth: no architecture has weights called layer0.w, layer1.w, layer2.w ...; known are hat,")
    assert "pip install 'restorekit[spandrel]'" in text and "\n" not in text
    mangled = {key: tensor.flatten()[:1] for key, tensor in weights().items()}
    with pytest.raises(ModelError, match="no architecture has weights"):
        load.detect(mangled)


def test_architectures_are_asked_in_order_and_broken_ones_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("toy_networks")
    cfsr = architectures.architecture("cfsr")
    module.First = type("First", (cfsr,), {})  # type: ignore[attr-defined]
    module.Second = type("Second", (cfsr,), {})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "toy_networks", module)
    table = {"gone": "no_such_module:Gone", "first": "toy_networks:First", "second": "toy_networks:Second"}
    monkeypatch.setattr(architectures, "architectures", lambda: table)
    assert load.detect(weights_of(cfsr))[0] == "first"
    with pytest.raises(ModelError, match=r"gone.*does not load"):
        load.detect({"a": torch.zeros(1)})


def weights_of(cls: type[nn.Module]) -> dict[str, Tensor]:
    return cls(**CFSR).state_dict()


def test_a_card_opens_as_a_frozen_network_in_eval_mode(tmp_path: Path) -> None:
    card = cards.card("small.x2")
    with pytest.raises(
        ModelError, match=r"small\.x2 has no weights installed; get small\.x2\.pth from https://example.org"
    ):
        load.load_network(card)
    state = weights()
    installed(card, checkpoint(tmp_path / "a.pth", state))
    drawn = torch.random.get_rng_state()
    network = load.load_network(card)
    assert torch.equal(torch.random.get_rng_state(), drawn), "the caller's random numbers stay"
    assert not network.training and not any(weight.requires_grad for weight in network.parameters())
    assert all(torch.equal(network.state_dict()[key], tensor) for key, tensor in state.items())
    x = torch.rand(1, 3, 8, 8)
    original = create("cfsr", **CFSR).eval()
    original.load_state_dict(state)
    assert torch.equal(network(x), original(x))


@pytest.mark.parametrize("how", ["id", "text", "path"])
def test_models_open_by_id_and_by_file(how: str, tmp_path: Path) -> None:
    card = cards.card("small.x2")
    path = checkpoint(tmp_path / "a.pth", weights())
    installed(card, path)
    found = load.opened({"id": "small.x2", "text": str(path), "path": path}[how])
    assert found.network.scale == 2 and found.detected.config["embed_dim"] == 8
    assert found.card == (card if how == "id" else None)


def test_what_is_no_model_does_not_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"unknown model 'small.x3'; did you mean 'small.x2'\?"):
        load.opened("small.x3")
    with pytest.raises(ModelError, match=r"none\.pth: no such file"):
        load.opened("none.pth")
    with pytest.raises(ModelError, match=r"none\.pth: cannot be read"):
        load.opened(tmp_path / "none.pth")
    monkeypatch.chdir(tmp_path)
    checkpoint(Path("weights.x9"), weights())
    assert load.opened("weights.x9").network.scale == 2, "a file of any name, where no model has that name"


def test_installed_files_keep_what_weights_do_not_tell(tmp_path: Path) -> None:
    card = write_card("hat_small.x4", "hat", HAT, 4)
    target = installed(card, checkpoint(tmp_path / "a.pth", weights("hat")))
    found = load.opened(target)
    assert found.card == card and found.detected.config["conv_scale"] == 0.5 and not found.detected.assumed
    bare = load.opened(checkpoint(tmp_path / "b.pth", weights("hat")))
    assert bare.card is None and bare.detected.config.get("conv_scale", 0.01) == 0.01
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(found.network(x), load.load_network(card)(x))
    assert not torch.equal(found.network(x), bare.network(x))


def test_a_file_that_lies_about_itself_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for said in (
        {"architecture": "hat", "config": json.dumps(HAT)},
        {"architecture": "cfsr", "config": json.dumps({**CFSR, "embed_dim": 16})},
        {"architecture": "cfsr", "config": "{"},
        {"architecture": "cfsr", "config": "[" * 100_000},
        {"architecture": "os", "config": "{}"},
        {"architecture": "cfsr", "config": json.dumps({"nonsense": 1})},
    ):
        save_file(weights(), path, metadata=said)
        found = load.opened(path)
        assert found.card is None and found.detected.config["embed_dim"] == 8


@pytest.mark.parametrize(
    ("architecture", "config"),
    [
        ("cfsr", {**CFSR, "embed_dim": -8}),
        ("rlfn", {"feature_channels": -1}),
        ("dlgsanet", {"idynamic_num_heads": 0}),
        ("wavemixsr_v2", {"sr": "2"}),
        ("cfsr", {**CFSR, "mlp_ratio": float("inf")}),
    ],
)
def test_hyperparameters_that_no_network_has_are_told_in_one_line(
    architecture: str, config: dict[str, Any], tmp_path: Path
) -> None:
    for make in (create, lambda name, **config: outline(name, config)):
        with pytest.raises(ModelError, match=rf"^{architecture} cannot be built: .") as caught:
            make(architecture, **config)
        assert "\n" not in str(caught.value)
    card = write_card("broken.x2", architecture, config, 2)
    save_file(weights(), store.install_path("broken.x2"))
    assert (verify.problem(card) or "").startswith(f"{store.install_path('broken.x2')}: ")
    path = tmp_path / "a.safetensors"
    save_file(weights(), path, metadata={"architecture": architecture, "config": json.dumps(config)})
    assert load.opened(path).detected.config["embed_dim"] == 8, "the file is looked at"


def test_weights_that_make_detection_fail_are_of_another_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(state: Mapping[str, Tensor]) -> None:
        raise AssertionError

    monkeypatch.setattr(architectures.architecture("hat"), "detect", fail)
    assert load.detect(weights())[0] == "cfsr"


@pytest.mark.parametrize("depths", [[10**9], [1, 10**6]])
def test_no_network_is_built_that_is_far_larger_than_its_file(depths: list[int], tmp_path: Path) -> None:
    config = {**CFSR, "depths": depths}
    with pytest.raises(ModelError, match="far more weights than are there"):
        outline("cfsr", config, len(weights()))
    path = tmp_path / "a.safetensors"
    save_file(weights(), path, metadata={"architecture": "cfsr", "config": json.dumps(config)})
    assert load.opened(path).detected.config["depths"] == [1, 2]


def test_misfits_are_told_in_one_line() -> None:
    state = weights()
    del state["conv_first.bias"]
    state |= {"extra.weight": torch.zeros(1), "norm.weight": torch.zeros(9)}
    with pytest.raises(ModelError) as caught:
        load.build("cfsr", CFSR, state, "a.pth")
    assert str(caught.value) == (
        "a.pth: does not fit cfsr: 1 missing (conv_first.bias), 1 unexpected (extra.weight), "
        "1 of another shape (norm.weight [9] in place of [8]); get the whole file again"
    )


@pytest.mark.parametrize(
    ("architecture", "change", "says"),
    [
        ("cfsr", {"upscale": 4}, "is a CFSR x4 checkpoint, card small.x2 wants x2; import it as big.x4"),
        ("cfsr", {"upscale": 3}, "is a CFSR x3 checkpoint, card small.x2 wants x2; import it under a name of your own"),
        (
            "cfsr",
            {"embed_dim": 12},
            "is a CFSR x2 checkpoint with embed_dim 12, card small.x2 wants 8; import it under",
        ),
        ("hat", {}, "is a HAT x4 checkpoint, card small.x2 wants CFSR; import it as hat_small.x4"),
    ],
)
def test_weights_of_another_model_are_told_by_what_they_are(
    architecture: str, change: dict[str, Any], says: str, tmp_path: Path, home: Path
) -> None:
    write_card("big.x4", "cfsr", {**CFSR, "upscale": 4}, 4)
    write_card("untrained.x3", "cfsr", {**CFSR, "upscale": 3}, 3, weights=None)
    write_card("hat_small.x4", "hat", HAT, 4)
    path = checkpoint(tmp_path / "a.pth", weights(architecture, **change))
    found = install.examined(path)
    with pytest.raises(ModelError) as caught:
        install.choose(found, path, "small.x2")
    assert str(caught.value).startswith(f"{path}: {says}")
    target = installed(cards.card("small.x2"), checkpoint(tmp_path / "b.pth", weights()))
    save_file({key: tensor.contiguous() for key, tensor in found.state.items()}, target)
    with pytest.raises(ModelError) as caught:
        load.load_network(cards.card("small.x2"))
    assert str(caught.value).startswith(f"{target}: {says}"), "also where the file was swapped behind our back"


def test_cards_agree_with_weights_on_all_that_weights_tell() -> None:
    found = recognise(weights("hat"), "a.pth")
    for changed, agrees in (
        ({}, True),
        ({"conv_scale": 0.01}, True),
        ({"window_size": 8}, False),
        ({"depths": [1]}, False),
    ):
        card = write_card("hat_small.x4", "hat", {**HAT, **changed}, 4)
        assert match.fits(card, found) is agrees, changed
        assert bool(match.differences(card, found)) is not agrees, changed
    assert [card.id for card in match.fitting(recognise(weights(), "b.pth"))] == ["small.x2"]


def test_whatever_training_wrote_the_weights_are_those_of_the_card(tmp_path: Path) -> None:
    """An unmerged CFSR has other keys than the network; its configuration still tells whose it is."""
    state = weights()
    names = ("scale_sobel_x", "sobel_x_bias", "mask_sobel_x", "scale_sobel_y", "sobel_y_bias", "mask_sobel_y",
             "scale_laplacian", "laplacian_bias", "mask_laplacian")  # fmt: skip
    for key in [key for key in state if key.endswith("mlp.pos.weight")]:
        channels = len(state[key])
        for name in names:
            shape = (channels,) if "bias" in name else (channels, 1, 3, 3) if "mask" in name else (channels, 1, 1, 1)
            state[key.replace("pos.weight", name)] = torch.zeros(shape)
    path = checkpoint(tmp_path / "small.x2.pth", state)
    found = install.examined(path)
    card = install.choose(found, path, None)
    assert card.id == "small.x2"
    install.install(found, card, path)
    assert verify.problem(card) is None


def test_verifying_finds_damage_and_strangers(tmp_path: Path, home: Path) -> None:
    card = cards.card("small.x2")
    target = installed(card, checkpoint(tmp_path / "a.pth", weights()))
    assert verify.problem(card) is None
    data = bytearray(target.read_bytes())
    data[-40] ^= 1
    target.write_bytes(data)
    said = verify.problem(card)
    assert said is not None and "is not what was installed; import its file again" in said
    target.write_bytes(data[:-10])
    said = verify.problem(card)
    assert said is not None and "cut off or broken" in said
    installed(card, checkpoint(tmp_path / "a.pth", weights()))
    described = {"file": "a.pth", "url": "https://example.org/a", "sha256": "0" * 64, "licence": "MIT"}
    said = verify.problem(write_card("small.x2", "cfsr", CFSR, 2, weights=described))
    assert said is not None and "is not made of the file that card small.x2 describes; remove it and run" in said


def test_every_oracle_is_recognised_for_what_it_is(authors_index: dict[str, dict[str, Any]], authors: Any) -> None:
    seen = 0
    for case, facts in authors_index.items():
        if facts["architecture"] not in architectures.BUILT_IN or "_part_" in case:  # a part is no network
            continue
        state = authors(case).weights
        state = convert.from_flax(state) if convert.is_flax(state) else state
        name, detected = load.detect(state, case)
        assert name == facts["architecture"], case
        load.build(name, detected.config, state, case)
        seen += 1
    assert seen > 5


class FakeSpandrel(ModuleType):
    """A module like spandrel that knows one model, whose weights are called ``known``."""

    class UnsupportedModelError(Exception):
        pass

    class ImageModelDescriptor:
        def __init__(self) -> None:
            self.architecture = SimpleNamespace(name="SwinIR")
            self.scale, self.input_channels, self.output_channels = 2, 3, 3
            self.size_requirements = SimpleNamespace(minimum=16, multiple_of=8, square=False)
            self.model = nn.Upsample(scale_factor=2)

        def __call__(self, image: Tensor) -> Tensor:
            result: Tensor = self.model(image)
            return result.clamp(0, 1)

    class ModelLoader:
        def load_from_state_dict(self, state: dict[str, Tensor]) -> FakeSpandrel.ImageModelDescriptor:
            if "known" not in state:
                raise FakeSpandrel.UnsupportedModelError
            return FakeSpandrel.ImageModelDescriptor()


def test_other_networks_come_from_spandrel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", FakeSpandrel("spandrel"))
    monkeypatch.setattr(community, "installed", lambda: True)
    path = checkpoint(tmp_path / "a.pth", {"known": torch.zeros(3)})
    found = load.opened(path)
    assert found.network.scale == 2 and found.detected.assumed == ("spandrel knows it as SwinIR",)
    assert found.network.tiling.support == "approximate"
    assert (found.network.tiling.grid, found.network.tiling.minimum, found.network.tiling.fixed) == (8, 16, 256)
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(found.network(x), nn.functional.interpolate(x, scale_factor=2))
    examined = install.examined(path)
    card = install.choose(examined, path, "my.swinir")
    install.install(examined, card, path)
    assert card.architecture == "spandrel" and verify.problem(card) is None
    with pytest.raises(ModelError, match=r"no architecture has weights called other .*known are hat[^;]*$"):
        load.detect({"other": torch.zeros(1)})


def test_a_spandrel_that_does_not_load_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
            if name == "spandrel":
                raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.delitem(sys.modules, "spandrel", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    monkeypatch.setattr(community, "installed", lambda: True)
    with pytest.raises(
        ModelError, match=r"spandrel does not load \(operator torchvision::nms does not exist\); install"
    ):
        load.detect({"other": torch.zeros(1)})
    monkeypatch.setattr(community, "installed", lambda: False)
    with pytest.raises(
        ModelError, match=r"needs spandrel, which is not installed: pip install 'restorekit\[spandrel\]'"
    ):
        load.build("spandrel", {}, {"known": torch.zeros(1)}, "a.pth")


def test_the_real_spandrel_loads_what_we_have_no_file_for(tmp_path: Path) -> None:
    if importlib.util.find_spec("spandrel") is None:
        pytest.skip("needs spandrel, which wants a torchvision that goes with this torch")
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 16, 3), nn.PReLU(16), nn.Conv2d(16, 16, 3), nn.PReLU(16), nn.Conv2d(16, 12, 3))
    found = load.opened(checkpoint(tmp_path / "a.pth", {f"body.{key}": w for key, w in body.state_dict().items()}))
    assert found.network.scale == 2 and found.detected.assumed == ("spandrel knows it as RealESRGAN Compact",)
    assert found.network(torch.rand(1, 3, 16, 24)).shape == (1, 3, 32, 48)
    with pytest.raises(ModelError, match="no architecture has weights"):
        load.detect({"other": torch.zeros(1)})
