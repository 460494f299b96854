"""CFSR against the authors' results, a reference written out here, and its laws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from restorekit.architectures._bands import Bands
from restorekit.architectures.cfsr import CFSR

OFFICIAL: dict[str, Any] = {
    "embed_dim": 48,
    "depths": [6, 6],
    "dw_size": 9,
    "mlp_ratio": 2,
    "upsampler": "pixelshuffledirect",
}
SMALL: dict[str, Any] = {**OFFICIAL, "embed_dim": 8, "depths": [2, 1]}


def oracle(shared_data: Path, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    folder = shared_data.parent / "oracles"
    if not (folder / "INDEX.json").is_file():
        pytest.skip(f"needs the authors' results in {folder}")
    case = next(case for case in json.loads((folder / "INDEX.json").read_text()) if case["case"] == name)
    return case["config"], load_file(folder / case["file"])


def part(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}/"): value for key, value in tensors.items() if key.startswith(f"{name}/")}


def network(**config: Any) -> CFSR:
    """With weights that matter: the layer scales of fresh ones are 1e-6."""
    torch.manual_seed(0)
    net = CFSR(**config).eval()
    with torch.no_grad():
        for key, value in net.named_parameters():
            if "layer_scale" in key or key.endswith(".bias"):
                value.normal_(0, 0.5)
    return net


def edge_kernels() -> dict[str, Tensor]:
    return {
        "sobel_x": torch.tensor([[0.0, 1, -1], [2, 0, -2], [1, 0, -1]]),
        "sobel_y": torch.tensor([[1.0, 2, 1], [0, 0, 0], [-1, -2, -1]]),
        "laplacian": torch.tensor([[1.0, 0, 0], [1, -4, 1], [0, 1, 0]]),
    }


def with_branches(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict as it is while the authors train."""
    result = {key: value.clone() for key, value in state.items()}
    for key in [key for key in state if key.endswith("mlp.pos.weight")]:
        mlp = key.removesuffix("pos.weight")
        hidden = state[key].shape[0]
        for name, kernel in edge_kernels().items():
            result[f"{mlp}scale_{name}"] = torch.randn(hidden, 1, 1, 1)
            result[f"{mlp}{name}_bias"] = torch.randn(hidden)
            result[f"{mlp}mask_{name}"] = kernel.expand(hidden, 1, 3, 3).clone()
    return result


def reference(w: dict[str, Tensor], x: Tensor, scale: int) -> Tensor:
    """The network written out channels first, with the edge branches of the training form where there are some."""

    def conv(key: str, y: Tensor) -> Tensor:
        weight = w[f"{key}.weight"]
        return F.conv2d(
            y, weight, w[f"{key}.bias"], padding=weight.shape[-1] // 2, groups=y.shape[1] // weight.shape[1]
        )

    def norm(key: str, y: Tensor) -> Tensor:
        y = (y - y.mean(1, keepdim=True)) / torch.sqrt(y.var(1, keepdim=True, unbiased=False) + 1e-6)
        return y * w[f"{key}.weight"][:, None, None] + w[f"{key}.bias"][:, None, None]

    def block(key: str, y: Tensor) -> Tensor:
        n = norm(f"{key}.attn.norm", y)
        n = conv(f"{key}.attn.a.2.lkb_reparam", F.gelu(conv(f"{key}.attn.a.0", n))) * conv(f"{key}.attn.v", n)
        y = y + w[f"{key}.layer_scale_1"][:, None, None] * conv(f"{key}.attn.proj", n)
        n = F.gelu(conv(f"{key}.mlp.fc1", norm(f"{key}.mlp.norm", y)))
        p = conv(f"{key}.mlp.pos", n)
        for name in edge_kernels():
            if f"{key}.mlp.scale_{name}" in w:
                kernel = w[f"{key}.mlp.scale_{name}"] * w[f"{key}.mlp.mask_{name}"]
                p = p + F.conv2d(n, kernel, w[f"{key}.mlp.{name}_bias"], padding=1, groups=n.shape[1])
        return y + w[f"{key}.layer_scale_2"][:, None, None] * conv(f"{key}.mlp.fc2", n + F.gelu(p))

    mean = torch.tensor([0.4488, 0.4371, 0.4040]).view(3, 1, 1)
    first = y = conv("conv_first", x - mean)
    layer = 0
    while f"layers.{layer}.conv.weight" in w:
        index = 0
        while f"layers.{layer}.blocks.{index}.layer_scale_1" in w:
            y = block(f"layers.{layer}.blocks.{index}", y)
            index += 1
        y = y + conv(f"layers.{layer}.conv", y)
        layer += 1
    y = first + conv("conv_after_body", norm("norm", y))
    if "upsample.0.weight" in w:
        return F.pixel_shuffle(conv("upsample.0", y), scale) + mean
    return x + conv("conv_last", y)


@pytest.mark.parametrize(
    ("name", "form"),
    [("CFSR_x2", "weights"), ("CFSR_x4_unmerged", "weights"), ("CFSR_x4_unmerged", "weights_unmerged")],
)
def test_results_of_the_authors(shared_data: Path, name: str, form: str) -> None:
    config, tensors = oracle(shared_data, name)
    net = CFSR(**config).eval()
    net.load_state_dict(part(tensors, form))
    with torch.inference_mode():
        torch.testing.assert_close(net(tensors["input"]), tensors["output"], rtol=0, atol=2e-5)


@pytest.mark.parametrize("upsampler", ["pixelshuffledirect", ""])
@pytest.mark.parametrize("branches", [False, True])
def test_equals_the_network_written_out(upsampler: str, branches: bool) -> None:
    net = network(**{**SMALL, "upsampler": upsampler, "upscale": 3})
    state = dict(net.state_dict())
    if branches:
        state = with_branches(state)
        net.load_state_dict(state)
    x = torch.rand(2, 3, 13, 17)
    expected = reference(state, x, 3)
    with torch.inference_mode():
        assert net(x).shape == (2, 3, 13 * net.scale, 17 * net.scale)
        torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_strict_loading() -> None:
    net = network(**SMALL)
    state = with_branches(dict(net.state_dict()))
    net.load_state_dict(state)
    for gone in ("layers.0.blocks.1.mlp.mask_sobel_y", "layers.0.blocks.1.mlp.laplacian_bias"):
        with pytest.raises(RuntimeError, match=f'Missing key.*"{gone}"'):
            net.load_state_dict({key: value for key, value in state.items() if key != gone})
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"layers\.0\.blocks\.1\.mlp\.scale_prewitt"'):
        net.load_state_dict({**state, "layers.0.blocks.1.mlp.scale_prewitt": torch.zeros(1)})


def test_loading_leaves_the_state_dict_as_it_was() -> None:
    net = network(**SMALL)
    state = with_branches(dict(net.state_dict()))
    before = {key: value.clone() for key, value in state.items()}
    net.load_state_dict(state)
    assert state.keys() == before.keys()
    assert all(torch.equal(state[key], before[key]) for key in before)


@pytest.mark.parametrize(("upscale", "count"), [(2, 291_324), (3, 297_819), (4, 306_912)])
def test_official_networks(upscale: int, count: int) -> None:
    with torch.device("meta"):
        net = CFSR(**OFFICIAL, upscale=upscale)
    assert sum(value.numel() for value in net.parameters()) == count
    assert len(net.state_dict()) == 252
    found = CFSR.detect(net.state_dict())
    assert found is not None
    assert found.config == {**OFFICIAL, "in_chans": 3, "upscale": upscale}


@pytest.mark.parametrize(
    "config",
    [{**SMALL, "upscale": 3}, {**SMALL, "upsampler": "", "upscale": 1, "in_chans": 1}, {**SMALL, "dw_size": 5}],
)
@pytest.mark.parametrize("branches", [False, True])
def test_detects_what_it_wrote(config: dict[str, Any], branches: bool) -> None:
    state = dict(CFSR(**config).state_dict())
    found = CFSR.detect(with_branches(state) if branches else state)
    assert found is not None
    assert found.config == {"in_chans": 3, "upscale": 2, **config}
    CFSR(**found.config).load_state_dict(state)
    assert CFSR.detect({key: value for key, value in state.items() if "lkb" not in key}) is None


@pytest.mark.parametrize("rows", [1, 8, 24])
@pytest.mark.parametrize("upsampler", ["pixelshuffledirect", ""])
def test_bands_give_what_the_whole_gives(rows: int, upsampler: str) -> None:
    net = network(**{**SMALL, "upsampler": upsampler})
    x = torch.rand(1, 3, 37, 21)
    with torch.inference_mode():
        torch.testing.assert_close(net.tail(net.features(x, Bands(rows=rows))), net(x), rtol=1e-5, atol=1e-5)


def test_far_pixels_do_not_matter() -> None:
    net = network(**SMALL)
    reach = 3 * (4 + 1) + 3
    x = torch.rand(1, 3, 8, 64)
    other = x.clone()
    other[..., 40:] = torch.rand(1, 3, 8, 24)
    with torch.inference_mode():
        difference = (net(x) - net(other)).abs().amax((0, 1, 2))
    assert float(difference[: 2 * (40 - reach)].max()) < 1e-5
    assert float(difference[2 * 39 :].max()) > 1e-3


def test_tail_looks_one_pixel_around() -> None:
    net = network(**SMALL)
    x = torch.rand(1, 3, 12, 16)
    with torch.inference_mode():
        maps, whole = net.features(x), net(x)
        piece = net.tail(maps[..., 4 - net.tail_halo : 10 + net.tail_halo])[..., 2 * net.tail_halo : -2 * net.tail_halo]
    torch.testing.assert_close(piece, whole[..., 8:20], rtol=0, atol=1e-5)


def test_batch_and_precisions() -> None:
    net = network(**SMALL)
    x = torch.rand(2, 3, 16, 20)
    with torch.inference_mode():
        y = net(x)
        torch.testing.assert_close(torch.cat([net(x[:1]), net(x[1:])]), y, rtol=0, atol=1e-5)
        with torch.autocast("cpu", torch.bfloat16):
            assert float((net(x) - y).abs().mean()) < 0.02 * float(y.std())
        half = net.bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert float((half - y).abs().mean()) < 0.04 * float(y.std())


def test_gradients_flow() -> None:
    net = network(**SMALL).train()
    net(torch.rand(1, 3, 12, 12)).square().mean().backward()
    assert all(value.grad is not None and bool(value.grad.any()) for value in net.parameters())
