"""A model as users call it: any size, gray, batches; one-line errors for what it cannot take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from restorekit import load_model
from restorekit.errors import InputError, ModelError
from restorekit.execution import Execution
from restorekit.stages.resampling import bicubic, resampled

pytestmark = pytest.mark.usefixtures("with_tiny_models")


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 21)])
@pytest.mark.parametrize(("name", "scale"), [("tiny.x2", 2), ("tiny.luma_x3", 3), ("tiny.ycbcr_x2", 2)])
def test_any_size_comes_out_scaled(name: str, scale: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = load_model(name)
    assert model.scale == scale
    for channels in (1, 3):
        made = model(torch.rand(2, channels, *size))
        assert made.shape == (2, channels, size[0] * scale, size[1] * scale)
        assert made.dtype == torch.float32 and bool(made.isfinite().all())


def test_a_batch_is_its_pictures() -> None:
    torch.manual_seed(0)
    model, batch = load_model("tiny.x2"), torch.rand(3, 3, 20, 30)
    torch.testing.assert_close(model(batch), torch.cat([model(each[None]) for each in batch]))


def test_integers_are_fractions() -> None:
    model, codes = load_model("tiny.x2"), torch.randint(0, 256, (1, 3, 20, 30), dtype=torch.uint8)
    torch.testing.assert_close(model(codes), model(codes / 255))


def test_luma_changes_all_channels_alike() -> None:
    torch.manual_seed(0)
    picture = torch.rand(1, 3, 12, 14)
    made = load_model("tiny.luma_x3")(picture)[0]
    change = made - resampled(picture[0], 36, 42, bicubic)
    torch.testing.assert_close(change, change[:1].expand(3, -1, -1), atol=1e-5, rtol=0)


def test_a_file_is_found_out(with_tiny_models: Path) -> None:
    path = with_tiny_models / "models" / "tiny.luma_x3.safetensors"
    model, picture = load_model(path), torch.rand(1, 3, 12, 14)
    torch.testing.assert_close(model(picture), load_model("tiny.luma_x3")(picture))
    assert "Network" not in repr(model) and len(repr(model)) < 200


def test_execution_says_how() -> None:
    execution = Execution(tile=16, precision="bf16")
    load_model("tiny.x2")(torch.rand(1, 3, 150, 40), execution)
    assert execution.mode == "tiles" and execution.tiles > 1 and execution.used == "bf16"


@pytest.mark.parametrize(
    "wrong",
    [torch.rand(3, 8, 8), torch.rand(1, 4, 8, 8), torch.rand(1, 3, 0, 8), np.zeros((1, 3, 8, 8)), torch.rand(8, 8)],
    ids=["no batch", "four channels", "empty", "array", "plane"],
)
def test_what_is_no_picture_is_said_in_one_line(wrong: Any) -> None:
    with pytest.raises(InputError, match=r"^tiny\.x2: takes a tensor \[B,3,H,W\].*, got a[^\n]*$"):
        load_model("tiny.x2")(wrong)


def test_values_that_are_not_finite_are_the_inputs_fault() -> None:
    picture = torch.rand(1, 3, 8, 8)
    picture[0, 0, 0, 0] = torch.nan
    with pytest.raises(InputError, match="the picture holds NaN or infinity"):
        load_model("tiny.x2")(picture)


def test_unknown_models_and_missing_files() -> None:
    with pytest.raises(ModelError, match=r"unknown model 'tiny\.x'; did you mean 'tiny\.x2'"):
        load_model("tiny.x")
    with pytest.raises(ModelError, match="no such file of weights"):
        load_model("gone/away.pth")


def test_new_weights_are_loaded_again(with_tiny_models: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path, picture = tmp_path / "m.safetensors", torch.rand(1, 3, 8, 8)
    state = load_file(with_tiny_models / "models" / "tiny.x2.safetensors")
    save_file(state, path)
    before = load_model(path)(picture)
    assert load_model(path) is load_model(path)
    state["upsample.0.bias"] += 0.25
    save_file(state, path)
    torch.testing.assert_close(load_model(path)(picture), before + 0.25)
