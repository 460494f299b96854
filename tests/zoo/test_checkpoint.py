"""Files of weights are read without running them, whatever a training program wrapped them in."""

from __future__ import annotations

import argparse
import codecs
import os
import pickle
import tracemalloc
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from restorekit.errors import ModelError
from restorekit.zoo import checkpoint


def weights(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "conv.weight": torch.randn(4, 3, 3, 3, generator=generator),
        "conv.bias": torch.randn(4, generator=generator),
        "index": torch.arange(6).view(2, 3),
    }


def assert_same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert list(found) == list(wanted)
    for key, tensor in wanted.items():
        assert found[key].dtype == tensor.dtype and torch.equal(found[key], tensor), key


def saved(path: Path, content: Any, zipped: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


@pytest.mark.parametrize("name", ["a.pth", "a.pt", "a.pth.tar", "a.ckpt", "a.bin", "without_a_suffix"])
@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_saves_is_read_whatever_its_name(name: str, zipped: bool, tmp_path: Path) -> None:
    assert_same(checkpoint.read(saved(tmp_path / name, OrderedDict(weights()), zipped)), weights())


def test_safetensors_are_read_whatever_their_name(tmp_path: Path) -> None:
    for name in ("a.safetensors", "a.bin"):
        save_file(weights(), tmp_path / name)
        found = checkpoint.read(tmp_path / name)
        assert found.keys() == weights().keys()
        assert all(torch.equal(found[key], tensor) for key, tensor in weights().items())


def wrapped(name: str) -> Callable[[dict[str, Tensor]], dict[str, Any]]:
    return lambda state: {"epoch": 3, name: state, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "lr": 0.1}}


@pytest.mark.parametrize(
    "wrap",
    [
        *map(wrapped, checkpoint.WRAPPERS),
        lambda state: {"params": weights(1), "params_ema": state},
        lambda state: {"state_dict": weights(1), "iterations": 5, "params_ema": state},
        lambda state: {"state_dict": {"params": weights(1), "params_ema": state}},
        lambda state: {"model": {"state_dict": state}, "epoch": torch.tensor(4)},
        lambda state: {"icnn": state, "opt_g": {"state": {}, "param_groups": [{"lr": 1.0}]}},
        lambda state: {**state, "epoch": 4, "name": "x"},
        lambda state: {"module." + key: value for key, value in state.items()},
        lambda state: {"module._orig_mod." + key: value for key, value in state.items()},
        lambda state: {"_orig_mod.module." + key: value for key, value in state.items()},
        lambda state: {"params": {"netG." + key: value for key, value in state.items()}},
        lambda state: {"state_dict": {"model." + key: value for key, value in state.items()}},
        lambda state: {"n_averaged": torch.tensor(9), **{"module." + key: value for key, value in state.items()}},
        lambda state: {
            key: nn.Parameter(value, requires_grad=value.is_floating_point()) for key, value in state.items()
        },
    ],
)
def test_wrappings_are_taken_off(wrap: Callable[[dict[str, Tensor]], dict[str, Any]], tmp_path: Path) -> None:
    found = checkpoint.read(saved(tmp_path / "a.pth", wrap(weights())))
    assert_same(found, weights())
    assert not any(tensor.requires_grad for tensor in found.values())


def test_names_that_only_look_like_wrappings_stay(tmp_path: Path) -> None:
    sequential = {"model.0.weight": torch.zeros(2), "model.3.bias": torch.ones(2)}
    assert_same(checkpoint.read(saved(tmp_path / "a.pth", sequential)), sequential)
    half = {"module.weight": torch.zeros(2), "bias": torch.ones(2)}
    assert_same(checkpoint.read(saved(tmp_path / "b.pth", half)), half)


def test_what_programs_save_beside_weights_is_not_needed_to_exist(tmp_path: Path) -> None:
    content = {
        "args": argparse.Namespace(lr=0.1, out=Path("x")),
        "best": np.float64(31.5),
        "step": np.int64(7),
        "state_dict": weights(),
    }
    assert_same(checkpoint.read(saved(tmp_path / "a.ckpt", content)), weights())


class Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.target),)


def plain_pickle(path: Path, content: Any, protocol: int) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def test_programs_in_pickles_are_refused_and_never_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    content = {"params": weights(), "more": Bomb(ran)}
    files = [
        saved(tmp_path / "zip.pth", content),
        saved(tmp_path / "old.pth", content, zipped=False),
        *(plain_pickle(tmp_path / f"plain{protocol}.pth", Bomb(ran), protocol) for protocol in (2, 3, 4, 5)),
        plain_pickle(tmp_path / "ascii.pth", Bomb(ran), 0),
        saved(tmp_path / "module.pth", nn.Linear(2, 2)),
    ]
    for path in files:
        with pytest.raises(ModelError) as caught:
            checkpoint.read(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert not ran.exists()
    with pytest.raises(ModelError, match=r"holds the Python object (posix|nt)\.mkdir"):
        checkpoint.read(files[0])
    pickle.loads(files[2].read_bytes())
    assert ran.exists(), "the bomb would have gone off"


class Made:
    """Unpickling it calls something with arguments."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.made = call, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.made


def doubled(times: int) -> Any:
    """Two bytes that are told to be encoded as twice as many, and those again."""
    content: Any = b"ab"
    for _ in range(times):
        content = Made(codecs.encode, content, "Hex-Codec")
    return content


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("made", "called"),
    [
        (Made(bytearray, 1 << 27), r"builtins\.bytearray"),
        (Made(torch.Tensor, 1 << 25), r"torch\.Tensor"),
        (doubled(26), r"_codecs\.encode"),
    ],
)
def test_small_files_make_nothing_large(made: Any, called: str, zipped: bool, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", {"params": weights(), "more": made}, zipped)
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match=f"holds the Python object {called}, ") as caught:
            checkpoint.read(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 23
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)


def test_every_plain_value_beside_weights_is_read(tmp_path: Path) -> None:
    content: dict[str, Any] = {
        "milestones": Counter([3, 5]),
        "seen": {1, 2},
        "roots": [1j, -1j],
        "raw": b"\x00\xff",
        "note": "hex of nothing",
        "shape": torch.zeros(2, 3).shape,
        "device": torch.device("cpu"),
        "type": torch.bfloat16,
        "whole": torch.zeros(3, dtype=torch.float64),
        "params": weights(),
    }
    assert_same(checkpoint.read(saved(tmp_path / "old.pth", content, zipped=False)), weights())
    content |= {"narrow": torch.zeros(3, dtype=torch.float8_e4m3fn), "wide": torch.zeros(3, dtype=torch.uint16)}
    assert_same(checkpoint.read(saved(tmp_path / "zip.pth", content)), weights())


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(3, 3).to_sparse(),
        torch.zeros(3, dtype=torch.complex64),
        torch.zeros(3, device="meta"),
    ],
    ids=str,
)
def test_tensors_of_other_kinds_are_called_so(tensor: Tensor, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="a is no plain tensor"):
        checkpoint.read(saved(tmp_path / "a.pth", {"a": tensor}))


@pytest.mark.parametrize("form", ["zip", "old", "safetensors"])
def test_cut_off_files_are_named_in_one_line(form: str, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    if form == "safetensors":
        save_file(weights(), whole)
    else:
        saved(whole, weights(), zipped=form == "zip")
    data = whole.read_bytes()
    part = tmp_path / "part.pth"
    for length in (0, 1, 7, 20, 100, len(data) // 2, len(data) - 1):
        part.write_bytes(data[:length])
        with pytest.raises(ModelError) as caught:
            checkpoint.read(part)
        assert str(part) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["zip", "old", "safetensors"])
def test_damaged_files_never_fail_in_another_way(form: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    if form == "safetensors":
        save_file(weights(), path)
    else:
        saved(path, weights(), zipped=form == "zip")
    data = path.read_bytes()
    random = np.random.default_rng(0)
    refused: list[str] = []
    for _ in range(150):
        damaged = bytearray(data)
        for position in random.integers(0, min(len(data), 900), 4):
            damaged[position] = random.integers(256)
        path.write_bytes(damaged)
        try:
            found = checkpoint.read(path)
        except ModelError as error:
            refused.append(str(error))
        else:
            assert all(isinstance(tensor, Tensor) for tensor in found.values())
    assert len(refused) > 10 and not any("\n" in text for text in refused)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>quota exceeded", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "no file of weights"),
        (b"hello", "no file of weights"),
    ],
)
def test_other_files_are_called_what_they_are(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=says):
        checkpoint.read(path)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none.pth: cannot be read \(no such file"):
        checkpoint.read(tmp_path / "none.pth")
    with pytest.raises(ModelError, match="cannot be read"):
        checkpoint.read(tmp_path)


def test_other_archives_and_programs_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("hello.pth", "x")
    with pytest.raises(ModelError, match="unpack it"):
        checkpoint.read(tmp_path / "a.pth")
    saved(tmp_path / "b.pth", {"epoch": 3, "params": {"lr": 0.1}})
    with pytest.raises(ModelError, match="holds no weights"):
        checkpoint.read(tmp_path / "b.pth")
    saved(tmp_path / "c.pth", [torch.zeros(3)])
    with pytest.raises(ModelError, match="holds no weights"):
        checkpoint.read(tmp_path / "c.pth")
    with zipfile.ZipFile(tmp_path / "d.pth", "w") as archive:
        archive.writestr("d/data.pkl", pickle.dumps({}, 2))
        archive.writestr("d/constants.pkl", pickle.dumps((), 2))
    with pytest.raises(ModelError, match="is a TorchScript program"):
        checkpoint.read(tmp_path / "d.pth")


def test_bombs_do_not_fill_the_memory(tmp_path: Path) -> None:
    saved(tmp_path / "wide.pth", {"a": torch.zeros(1).expand(1 << 40)})
    with pytest.raises(ModelError, match="claims 4398046511104 bytes"):
        checkpoint.read(tmp_path / "wide.pth")
    many = torch.zeros(1 << 10).expand(20, -1)
    saved(tmp_path / "many.pth", {f"a{number}": many for number in range(20)})
    with pytest.raises(ModelError, match="claims"):
        checkpoint.read(tmp_path / "many.pth")
    saved(tmp_path / "plain.pth", {"a": torch.zeros(1 << 20)})
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(tmp_path / "zip.pth", "w") as squeezed:
        for name in plain.namelist():
            squeezed.writestr(name, plain.read(name), zipfile.ZIP_DEFLATED)
    assert (tmp_path / "zip.pth").stat().st_size < 1 << 16
    with pytest.raises(ModelError, match="unpacks to"):
        checkpoint.read(tmp_path / "zip.pth")


def test_weights_that_share_memory_are_written_apart(tmp_path: Path) -> None:
    base = torch.arange(12.0)
    state = {
        "whole": base,
        "again": base,
        "rows": base.view(3, 4)[1:],
        "columns": base.view(3, 4).T,
        "half": torch.ones(3, dtype=torch.bfloat16),
        "number": torch.tensor(5),
        "none": torch.zeros(0, 3),
    }
    path = tmp_path / "deep" / "a.safetensors"
    checkpoint.write(path, state, {"architecture": "hat"})
    found = checkpoint.read(path)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], tensor) and found[key].dtype == tensor.dtype for key, tensor in state.items())
    assert checkpoint.metadata(path) == {"format": "pt", "architecture": "hat"}
    with safe_open(path, framework="numpy") as opened:
        assert "whole" in opened.keys()  # noqa: SIM118
    plain = tmp_path / "plain"
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode, "others may read it where they may read new files"
    assert [path.name for path in path.parent.iterdir()] == ["a.safetensors"]


def test_what_cannot_be_written_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    checkpoint.write(path, weights(), {})
    before = path.read_bytes()

    def full(tensors: Any, filename: Path, metadata: Any) -> None:
        filename.write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(ModelError, match=r"a.safetensors: cannot be written .*No space left"):
        checkpoint.write(path, weights(1), {})
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match="cannot be written"):
        checkpoint.write(tmp_path / "file" / "a.safetensors", weights(), {})


def test_only_safetensors_say_something(tmp_path: Path) -> None:
    assert checkpoint.metadata(saved(tmp_path / "a.pth", weights())) == {}


def test_a_fingerprint_is_of_names_types_shapes_and_values(tmp_path: Path) -> None:
    same = checkpoint.fingerprint(weights())
    assert same == checkpoint.fingerprint(dict(reversed(weights().items())))
    assert same == checkpoint.fingerprint(checkpoint.read(saved(tmp_path / "a.pth", weights())))
    changed = [
        {**weights(), "conv.bias": weights()["conv.bias"] + 1e-6},
        {**weights(), "conv.bias": weights()["conv.bias"].view(2, 2)},
        {**weights(), "conv.bias": weights()["conv.bias"].view(torch.int32)},
        {"other" if key == "index" else key: value for key, value in weights().items()},
    ]
    assert len({same, *map(checkpoint.fingerprint, changed)}) == 5
