"""DRSformer against the authors' results, references written out here, and its laws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from restorekit.architectures import create
from restorekit.architectures.drsformer import DRSformer, _Experts, _MixedScales, _SparseAttention

SMALL: dict[str, Any] = {"dim": 8, "num_blocks": [1, 1, 1, 2], "heads": [1, 2, 2, 4]}


def network(**config: Any) -> DRSformer:
    """With weights that make the network matter to the result."""
    torch.manual_seed(0)
    net = DRSformer(**config).eval()
    with torch.no_grad():
        for value in net.parameters():
            if value.ndim > 1:
                value.mul_(1.5)
    return net


def channels_last(module: Any, x: Tensor) -> Tensor:
    """What a part that takes ``[B,H,W,C]`` makes of ``[B,C,H,W]``."""
    y: Tensor = module(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return y


@pytest.mark.parametrize("name", ["drsformer_a_mefc", "drsformer_b_nomefc_odd"])
def test_the_authors_results(shared_data: Path, name: str) -> None:
    folder = shared_data.parent / "oracles"
    if not (folder / "INDEX.json").is_file():
        pytest.skip(f"needs the authors' results in {folder}")
    case = next(case for case in json.loads((folder / "INDEX.json").read_text()) if case["case"] == name)
    tensors = load_file(folder / case["file"])
    weights = {key.removeprefix("weights/"): value for key, value in tensors.items() if key.startswith("weights/")}
    net = create("drsformer", **case["config"]).eval()
    net.load_state_dict(weights)
    x = tensors["input"]
    height, width = x.shape[2:]
    padded = F.pad(x, (0, -width % 8, 0, -height % 8), "reflect")
    with torch.inference_mode():
        made = net(padded)[..., :height, :width]
        precise = net.double()(padded.double())[..., :height, :width]
    torch.testing.assert_close(made, tensors["output"], atol=5e-5, rtol=0)
    torch.testing.assert_close(precise, tensors["output_f64"], atol=1e-10, rtol=0)
    detected = DRSformer.detect(weights)
    assert detected is not None and detected.config == case["config"] and not detected.assumed


@pytest.mark.parametrize(("mefc", "count", "tensors"), [(True, 33_655_424, 924), (False, 32_610_304, 730)])
def test_the_published_size(mefc: bool, count: int, tensors: int) -> None:
    with torch.device("meta"):
        net = DRSformer(mefc=mefc)
        detected = DRSformer.detect(net.state_dict())
    assert sum(weight.numel() for weight in net.parameters()) == count
    assert len(net.state_dict()) == tensors
    assert detected is not None
    assert detected.config["mefc"] is mefc and detected.config["ffn_expansion_factor"] == 2.66


@pytest.mark.parametrize(("name", "mefc"), [("drsformer_full_mefc", True), ("drsformer_full_nomefc", False)])
def test_the_published_names(shared_data: Path, name: str, mefc: bool) -> None:
    file = shared_data.parent / "oracles" / "full_keys" / f"{name}.json"
    if not file.is_file():
        pytest.skip(f"needs the authors' names in {file}")
    with torch.device("meta"):
        state = DRSformer(mefc=mefc).state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == json.loads(file.read_text())


def test_attention_is_the_weighted_sum_of_four() -> None:
    torch.manual_seed(0)
    module = _SparseAttention(24, 2, True).eval()
    module.temperature.data.uniform_(1, 9)
    for number in range(1, 5):
        module.get_parameter(f"attn{number}").data.normal_()
    x = torch.randn(2, 24, 5, 7)
    q, k, v = (t.unflatten(1, (2, 12)).flatten(3) for t in module.qkv_dwconv(module.qkv(x)).chunk(3, 1))
    scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * module.temperature
    total = torch.zeros_like(v)
    for number, kept in enumerate((6, 8, 9, 9), 1):
        least = scores.topk(kept, -1).values[..., -1:]
        weights = scores.masked_fill(scores < least, float("-inf")).softmax(-1)
        total = total + module.get_parameter(f"attn{number}") * (weights @ v)
    expected = module.project_out(total.view_as(x))
    torch.testing.assert_close(channels_last(module, x), expected, rtol=1e-4, atol=1e-5)


def test_every_share_of_scores_is_rounded_down() -> None:
    scores = torch.arange(5.0).expand(1, 1, 5, 5)
    module = _SparseAttention(5, 1, False)
    for number, kept in enumerate((2, 3, 3, 4), 1):
        for other in range(1, 5):
            module.get_parameter(f"attn{other}").data.fill_(other == number)
        assert int((module.weights(scores) > 0).sum(-1)[0, 0, 0]) == kept


@pytest.mark.parametrize("hidden", [10, 13])
def test_mlp_mixes_neighbouring_channels_of_both_sizes(hidden: int) -> None:
    torch.manual_seed(0)
    module = _MixedScales(6, hidden, True).eval()
    x = torch.randn(2, 6, 9, 8)
    y = module.project_in(x)
    small, large = module.dwconv3x3(y).relu(), module.dwconv5x5(y).relu()
    first = torch.cat((small[:, :hidden], large[:, :hidden]), 1)
    second = torch.cat((small[:, hidden:], large[:, hidden:]), 1)
    mixed = torch.cat((module.dwconv3x3_1(first), module.dwconv5x5_1(second)), 1).relu()
    torch.testing.assert_close(channels_last(module, x), module.project_out(mixed), rtol=1e-4, atol=1e-5)


def test_experts_are_weighted_by_the_mean() -> None:
    torch.manual_seed(0)
    module = _Experts(6).double().eval()
    w = module.state_dict()
    x = torch.randn(2, 6, 9, 8, dtype=torch.float64)

    def depthwise(key: str, y: Tensor, dilation: int = 1) -> Tensor:
        weight = w[f"{key}.weight"]
        padding = weight.shape[-1] // 2 * dilation
        return F.conv2d(y, weight, padding=padding, dilation=dilation, groups=6)

    def expert(key: str, number: int, y: Tensor) -> Tensor:
        if number == 7:
            return F.avg_pool2d(y, 3, 1, 1, count_include_pad=False)
        key = f"{key}.{number}.op"
        y = F.conv2d(depthwise(f"{key}.0", y, 2 if number > 3 else 1), w[f"{key}.1.weight"])
        return y if number > 3 else F.conv2d(depthwise(f"{key}.3", y.relu()), w[f"{key}.4.weight"])

    def linear(key: str, y: Tensor) -> Tensor:
        return F.linear(y, w[f"layers.0.ca_fc.{key}.weight"], w[f"layers.0.ca_fc.{key}.bias"])

    weights = linear("2", linear("0", x.mean((2, 3))).relu()).view(2, 4, 8).softmax(-1)
    y = F.conv2d(x, w["layers.1.preprocess.op.0.weight"]).relu()
    for step in range(4):
        key = f"layers.1._ops.{step}"
        made = [expert(f"{key}._ops", n, y) * weights[:, step, n].view(-1, 1, 1, 1) for n in range(8)]
        y = (F.conv2d(torch.cat(made, 1), w[f"{key}._out.0.weight"]).relu() + y).relu()
    torch.testing.assert_close(channels_last(module, x), y)


@pytest.mark.parametrize(
    "config",
    [
        {**SMALL, "mefc": False, "ffn_expansion_factor": 2.66, "bias": True},
        {**SMALL, "mefc": True, "LayerNorm_type": "BiasFree", "inp_channels": 1, "out_channels": 1},
    ],
)
def test_weights_tell_the_configuration(config: dict[str, Any]) -> None:
    state = DRSformer(**config).state_dict()
    detected = DRSformer.detect(state)
    assert detected is not None
    assert {key: detected.config[key] for key in config} == config
    DRSformer(**detected.config).load_state_dict(state)
    assert DRSformer.detect({key: value for key, value in state.items() if "temperature" not in key}) is None


@pytest.mark.parametrize("factor", [1.3, 2.0, 3.7])
def test_any_width_of_the_mlps_is_told(factor: float) -> None:
    config = {**SMALL, "ffn_expansion_factor": factor, "mefc": False}
    state = DRSformer(**config).state_dict()
    detected = DRSformer.detect(state)
    assert detected is not None
    DRSformer(**detected.config).load_state_dict(state)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"inp_channels": 6}, "inp_channels is 6 and out_channels 3"),
        ({"num_blocks": [1, 1, 1]}, "both have 4 numbers"),
        ({"num_blocks": [0, 1, 1, 1]}, "above 0"),
        ({"heads": [1, 2, 3, 4]}, "3 heads share 32 channels"),
        ({"heads": [8, 2, 2, 4]}, "8 heads share 8 channels"),
        ({"LayerNorm_type": "None"}, "LayerNorm_type is 'None'; there are WithBias and BiasFree"),
    ],
)
def test_networks_that_there_are_not(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DRSformer(**{**SMALL, **config})


def test_sizes_off_the_grid_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 8 px; pad 20 x 16"):
        network(**SMALL)(torch.rand(1, 3, 16, 20))


@pytest.mark.parametrize("mefc", [True, False])
def test_pictures_of_a_batch_do_not_meet(mefc: bool) -> None:
    net, x = network(**SMALL, mefc=mefc).double(), torch.rand(2, 3, 24, 16, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(net(x), torch.cat([net(x[:1]), net(x[1:])]))
        torch.testing.assert_close(net(x.contiguous(memory_format=torch.channels_last)), net(x))


def test_every_pixel_depends_on_every_other() -> None:
    net, x = network(**SMALL).double(), torch.rand(1, 3, 64, 64, dtype=torch.float64)
    other = x.clone()
    other[..., :8, :8] = 1 - other[..., :8, :8]
    with torch.inference_mode():
        assert ((net(other) - net(x))[..., 48:, 48:] != 0).all()


@pytest.mark.parametrize("mefc", [True, False])
def test_bfloat16_is_close(mefc: bool) -> None:
    net, x = network(**SMALL, mefc=mefc), torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        expected = net(x) - x
        with torch.autocast("cpu", torch.bfloat16):
            mixed = net(x)
        half = net.bfloat16()(x.bfloat16())
    assert mixed.dtype == torch.float32 and half.dtype == torch.bfloat16
    assert float((mixed - x - expected).square().mean().sqrt()) < 0.05 * float(expected.std())
    assert float((half.float() - x - expected).square().mean().sqrt()) < 0.1 * float(expected.std())


@pytest.mark.parametrize("autocast", [False, True])
def test_gradients_reach_every_weight(autocast: bool) -> None:
    net = network(**SMALL).train()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = (net(torch.rand(2, 3, 16, 24)) - 0.5).square().mean()
    loss.backward()
    grads = {key: weight.grad for key, weight in net.named_parameters()}
    assert [key for key, grad in grads.items() if grad is None or not bool(grad.isfinite().all())] == []
    assert all(grad is not None and bool(grad.any()) for key, grad in grads.items() if "ffn" in key or "attn" in key)


def test_gradients_are_right() -> None:
    net = network(**{**SMALL, "dim": 4, "num_blocks": [1] * 4, "heads": [1, 1, 2, 2]}).double().train()
    x = torch.rand(1, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(net, (x,), eps=1e-7, atol=1e-5, fast_mode=True)
