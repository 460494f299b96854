"""Weights of flax become state dicts that compute the same, from dictionaries and from files."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

import restorekit.zoo
from restorekit.architectures.maxim import MAXIM
from restorekit.errors import ModelError
from restorekit.zoo import checkpoint, convert_state_dict
from restorekit.zoo.install import choose, examined, install
from restorekit.zoo.model import load_model

Arrays = dict[str, NDArray[Any]]

CONFIG: dict[str, Any] = {
    "features": 4, "num_stages": 1, "depth": 2, "high_res_stages": 1, "num_supervision_scales": 2,
    "block_size_hr": [4, 4], "grid_size_hr": [4, 4], "block_size_lr": [2, 2],
}  # fmt: skip


def as_flax(state: dict[str, Tensor]) -> Arrays:
    """A state dict as the authors' programs write it."""
    arrays = {}
    for key, value in state.items():
        *path, kind = key.split(".")
        if value.ndim == 4 and path[-1].startswith("ConvTranspose"):
            value, kind = value.flip(2, 3).permute(2, 3, 0, 1), "kernel"
        elif value.ndim == 4:
            value, kind = value.permute(2, 3, 1, 0), "kernel"
        elif value.ndim == 2:
            value, kind = value.t(), "kernel"
        elif kind == "weight":
            kind = "scale"
        arrays["/".join(["opt", "target", *path, kind])] = value.contiguous().numpy()
    return arrays


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    net = MAXIM(**CONFIG)
    with torch.no_grad():
        for value in net.parameters():
            value.normal_(0, 0.2)
    return dict(net.state_dict())


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    assert all(value.is_contiguous() for value in found.values())


@pytest.mark.parametrize("tensors", [False, True])
@pytest.mark.parametrize("prefixed", [False, True])
def test_there_and_back(state: dict[str, Tensor], tensors: bool, prefixed: bool) -> None:
    arrays: dict[str, Any] = {
        key.removeprefix("" if prefixed else "opt/target/"): v for key, v in as_flax(state).items()
    }
    if tensors:
        arrays = {key: torch.from_numpy(value) for key, value in arrays.items()}
    found = convert_state_dict("maxim", arrays)
    assert_same(found, state)
    for value in found.values():
        value.zero_()
    again = convert_state_dict("maxim", arrays)
    assert_same(again, state)


def test_what_an_optimiser_keeps_is_left_out(state: dict[str, Tensor]) -> None:
    more: Arrays = {
        "opt/state/step": np.array(7),
        "opt/state/param_states/a/kernel": np.zeros((2, 2)),
        "rng": np.zeros(2),
    }
    assert_same(convert_state_dict("maxim", {**as_flax(state), **more}), state)


def test_layers_of_flax_compute_as_flax_says() -> None:
    """Written out from what flax documents: a dense layer, a convolution, and one transposed with stride 2."""
    random = np.random.default_rng(0)
    dense, kernel, up = random.normal(size=(5, 3)), random.normal(size=(3, 3, 2, 4)), random.normal(size=(2, 2, 2, 4))
    found = convert_state_dict("maxim", {"a/kernel": dense, "b/Conv_0/kernel": kernel, "c/ConvTranspose_0/kernel": up})
    x = random.normal(size=(1, 6, 5, 2))
    image = torch.from_numpy(x).permute(0, 3, 1, 2)
    y = random.normal(size=5)
    np.testing.assert_allclose(F.linear(torch.from_numpy(y), found["a.weight"]).numpy(), y @ dense)

    made = F.conv2d(image, found["b.Conv_0.weight"]).permute(0, 2, 3, 1).numpy()
    window = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
    np.testing.assert_allclose(made, np.einsum("byxcij,ijco->byxo", window, kernel))

    # A correlation with the input spread over every other pixel: the far tap of the kernel meets the input first.
    spread = np.zeros((1, 13, 11, 2))
    spread[:, 1:-1:2, 1:-1:2] = x
    window = np.lib.stride_tricks.sliding_window_view(spread, (2, 2), axis=(1, 2))
    expected = np.einsum("byxcij,ijco->byxo", window, up)
    made = F.conv_transpose2d(image, found["c.ConvTranspose_0.weight"], stride=2).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(made, expected)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({}, "there are no weights"),
        ({"a/mean": np.zeros(3)}, "a/mean: is no kernel, bias or scale"),
        ({"a/scale": np.zeros((3, 3))}, "a/scale: is no kernel"),
        ({"a/kernel": np.zeros((3, 3, 3))}, r"a/kernel: a kernel of shape \[3, 3, 3\]"),
        ({"a/bias": np.array(["x"])}, "a/bias: is no array of numbers"),
        ({"a/bias": np.array([object()])}, "a/bias: is no array of numbers"),
    ],
)
def test_what_is_no_flax_is_refused(arrays: Arrays, said: str) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        convert_state_dict("maxim", arrays)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "hint"), [("hat", "there are maxim"), ("maxin", "did you mean 'maxim'")])
def test_other_architectures_need_no_conversion(name: str, hint: str) -> None:
    with pytest.raises(ModelError, match=f"'{name}'.*{hint}"):
        convert_state_dict(name, {})


def test_the_package_has_no_other_names() -> None:
    assert restorekit.zoo.__all__ == ["convert_state_dict"]
    with pytest.raises(AttributeError, match="has no attribute 'convert'"):
        restorekit.zoo.__getattr__("convert")


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_is_read_as_what_it_holds(state: dict[str, Tensor], packed: bool, tmp_path: Path) -> None:
    path = tmp_path / "weights of any name"
    with path.open("wb") as file:
        (np.savez_compressed if packed else np.savez)(file, **as_flax(state))
    found = checkpoint.read(path)
    assert_same({key: found[key] for key in state}, state)
    assert list(found) == list(state)


def test_arrays_by_names_of_pytorch_stay_as_they_are(tmp_path: Path) -> None:
    kinds: Arrays = {
        "a.weight": np.arange(6.0).reshape(2, 3), "by_columns": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "half": np.ones(3, np.float16), "whole": np.array(5, np.uint8), "none": np.zeros((0, 2), np.float32),
        "big": np.arange(3, dtype=">f4"), "yes": np.array([True, False]),
    }  # fmt: skip
    np.savez(tmp_path / "a.npz", **kinds, said=np.array("text"))  # type: ignore[arg-type]
    found = checkpoint.read(tmp_path / "a.npz")
    assert found.keys() == kinds.keys(), "text is no weight"
    assert all(np.array_equal(found[key].numpy(), value) for key, value in kinds.items())
    assert found["by_columns"].is_contiguous()


def archive(path: Path, name: str, content: bytes, squeezed: bool = False) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if squeezed else zipfile.ZIP_STORED) as opened:
        opened.writestr(name, content)
    return path


def header(shape: tuple[int, ...], kind: str = "<f4") -> bytes:
    text = io.BytesIO()
    np.lib.format.write_array_header_1_0(text, {"descr": kind, "fortran_order": False, "shape": shape})
    return text.getvalue()


def test_archives_made_to_do_harm_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "objects.npz", a=np.array([print], dtype=object))
    bomb = archive(tmp_path / "bomb.npz", "a.npy", header((1 << 24,)) + bytes(1 << 26), squeezed=True)
    lies = archive(tmp_path / "lies.npz", "a.npy", header((1 << 40,)) + bytes(16))
    short = archive(tmp_path / "short.npz", "a.npy", header((2,)) + bytes(16))
    other = archive(tmp_path / "other.npz", "a.npy", b"hello")
    flax = tmp_path / "flax.npz"
    np.savez(flax, **{"opt/target/a/mean": np.zeros(3)})
    for path, said in (
        (tmp_path / "objects.npz", "holds Python objects"),
        (bomb, "unpacks to"),
        (lies, "cut off or broken"),
        (short, "cut off or broken"),
        (other, "cut off or broken"),
        (flax, "a/mean: is no kernel"),
    ):
        with pytest.raises(ModelError, match=said) as caught:
            checkpoint.read(path)
        assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_damaged_archives_never_fail_in_another_way(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    few = dict(list(as_flax(state).items())[:4])
    np.savez(path, **few)  # type: ignore[arg-type]
    data = path.read_bytes()
    random = np.random.default_rng(0)
    refused: list[str] = []
    for number in range(60):
        damaged = bytearray(data[: random.integers(len(data))] if number % 3 == 0 else data)
        for position in random.integers(0, max(len(damaged), 1), 3):
            if position < len(damaged):
                damaged[position] = random.integers(256)
        path.write_bytes(damaged)
        try:
            checkpoint.read(path)
        except ModelError as error:
            refused.append(str(error))
    assert len(refused) > 20 and not any("\n" in text for text in refused)


def test_a_file_of_the_authors_is_imported_and_run(
    state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESTOREKIT_HOME", str(tmp_path / "home"))
    path = tmp_path / "checkpoint.npz"
    np.savez(path, **as_flax(state))  # type: ignore[arg-type]
    found = examined(path)
    assert (found.architecture, found.label) == ("maxim", "MAXIM")
    card = choose(found, path, "my.denoise")
    assert json.loads(json.dumps(card.config))["block_size_hr"] == [4, 4]
    install(found, card, path)
    net = MAXIM(**CONFIG).eval()
    net.load_state_dict(state)
    x = torch.rand(1, 3, 16, 24)
    made = load_model("my.denoise")(x)
    with torch.inference_mode():
        torch.testing.assert_close(made, net.picture(x), atol=1e-5, rtol=1e-4)
