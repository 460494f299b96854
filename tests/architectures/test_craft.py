"""CRAFT against the authors' results, references written out here, and its laws."""

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
from restorekit.architectures.craft import CRAFT, _ChannelAttention

OFFICIAL: dict[str, Any] = {"embed_dim": 48, "depths": [2] * 4, "num_heads": [6] * 4}
SMALL: dict[str, Any] = {"embed_dim": 32, "depths": [1, 1], "num_heads": [4, 2]}


def network(**config: Any) -> CRAFT:
    """With position biases that matter: those of fresh ones are near 0."""
    torch.manual_seed(0)
    net = CRAFT(**config).eval()
    with torch.no_grad():
        for key, value in net.named_parameters():
            if ".pos." in key or "qkv" in key:
                value.normal_(0, 0.5)
    return net


def flip_padded(x: Tensor) -> Tensor:
    """The picture with its mirrored self behind it, cut to the next multiple of 16 px above its size."""
    height, width = ((side // 16 + 1) * 16 for side in x.shape[2:])
    x = torch.cat((x, x.flip(2)), 2)[:, :, :height]
    return torch.cat((x, x.flip(3)), 3)[..., :width]


@pytest.mark.parametrize("name", ["CRAFT_x2_s4x16", "CRAFT_x4_s4x16", "CRAFT_x4_pad"])
def test_the_authors_results(shared_data: Path, name: str) -> None:
    folder = shared_data.parent / "oracles"
    if not (folder / "INDEX.json").is_file():
        pytest.skip(f"needs the authors' results in {folder}")
    case = next(case for case in json.loads((folder / "INDEX.json").read_text()) if case["case"] == name)
    tensors = load_file(folder / case["file"])
    weights = {key.removeprefix("weights/"): value for key, value in tensors.items() if key.startswith("weights/")}
    net = CRAFT(**case["config"]).eval()
    net.load_state_dict(weights)
    x, expected = tensors["input"], tensors["output"]
    with torch.inference_mode():
        result = net(x if case["padding"] == "none" else flip_padded(x))
    torch.testing.assert_close(result[..., : expected.shape[2], : expected.shape[3]], expected, atol=1e-4, rtol=0)
    detected = CRAFT.detect(weights)
    assert detected is not None
    CRAFT(**detected.config).load_state_dict(weights)


@pytest.mark.parametrize(("scale", "count"), [(2, 737_756), (3, 744_251), (4, 753_344)])
def test_the_published_size(scale: int, count: int) -> None:
    with torch.device("meta"):
        net = CRAFT(**OFFICIAL, upscale=scale)
    assert sum(weight.numel() for weight in net.parameters()) == count
    assert len(net.state_dict()) == 844


def test_channel_attention_is_softmax_over_channels_of_a_head() -> None:
    torch.manual_seed(0)
    module = _ChannelAttention(8, 2).eval()
    torch.nn.init.uniform_(module.temperature, 1, 9)
    low, high = torch.randn(2, 2, 8, 5, 7)
    q, kv = module.q_dwconv(module.q(high)), module.kv_dwconv(module.kv(low))
    heads = []
    for head, (q_h, k_h, v_h) in enumerate(zip(*(t.flatten(2).chunk(2, 1) for t in (q, *kv.chunk(2, 1))), strict=True)):
        scores = F.normalize(q_h, dim=2) @ F.normalize(k_h, dim=2).transpose(1, 2) * module.temperature[head]
        heads.append(scores.softmax(-1) @ v_h)
    expected = module.project_out(torch.cat(heads, 1).view_as(low))
    result = module(low.permute(0, 2, 3, 1), high.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize(
    "config",
    [
        {**OFFICIAL, "upscale": 3},
        {**SMALL, "upscale": 4, "qkv_bias": False, "resi_connection": "identity", "mlp_ratio": 1.5},
        {**SMALL, "depths": [2, 1], "split_size_0": 2, "split_size_1": 8, "in_chans": 1},
    ],
)
def test_weights_tell_the_configuration(config: dict[str, Any]) -> None:
    state = CRAFT(**config).state_dict()
    detected = CRAFT.detect(state)
    assert detected is not None
    assert {key: detected.config[key] for key in config} == config
    CRAFT(**detected.config).load_state_dict(state)
    assert CRAFT.detect({key: value for key, value in state.items() if "temperature" not in key}) is None


def test_pictures_of_a_batch_do_not_meet() -> None:
    net, x = network(**SMALL), torch.rand(2, 3, 32, 16)
    with torch.inference_mode():
        torch.testing.assert_close(net(x), torch.cat([net(x[:1]), net(x[1:])]))


def test_bands_give_what_the_whole_gives() -> None:
    net, x = network(**SMALL), torch.rand(1, 3, 48, 32)
    with torch.inference_mode():
        torch.testing.assert_close(net.features(x, Bands(rows=16)), net.features(x), atol=1e-5, rtol=0)


def test_every_pixel_depends_on_every_other() -> None:
    net, x = network(**SMALL).double(), torch.rand(1, 3, 64, 64, dtype=torch.float64)
    other = x.clone()
    other[..., :8, :8] = 1 - other[..., :8, :8]
    with torch.inference_mode():
        assert ((net(other) - net(x))[..., 64:96, 64:96] != 0).all()


def test_bfloat16_is_close() -> None:
    net, x = network(**SMALL), torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        expected = net(x)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = net(x)
        half = net.bfloat16()(x.bfloat16()).float()
    assert mixed.dtype == torch.float32
    spread = expected.std()
    assert (mixed - expected).square().mean().sqrt() < 0.05 * spread
    assert (half - expected).square().mean().sqrt() < 0.05 * spread


def test_gradients_reach_every_weight() -> None:
    net = network(**SMALL).train()
    net(torch.rand(1, 3, 16, 32)).square().mean().backward()
    without = [key for key, weight in net.named_parameters() if weight.grad is None or not weight.grad.isfinite().all()]
    assert without == []
    assert all(weight.grad.any() for key, weight in net.named_parameters() if key.endswith("qkv.weight"))


def test_sizes_off_the_windows_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 16 px; pad 40 x 32"):
        network(**SMALL)(torch.rand(1, 3, 32, 40))
