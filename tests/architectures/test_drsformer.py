"""DRSformer against the authors' results, references written out here, and its laws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from restorekit.architectures import create
from restorekit.architectures.drsformer import DRSformer, _Experts, _MixedScales, _SparseAttention
from restorekit.testing_networks import RefusalLaws, run

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


class TestDRSformer(RefusalLaws):
    kind = DRSformer
    build = staticmethod(network)
    configs = ({**SMALL, "mefc": True}, {**SMALL, "mefc": False})
    others = (
        {**SMALL, "mefc": False, "ffn_expansion_factor": 2.66, "bias": True},
        {**SMALL, "mefc": True, "LayerNorm_type": "BiasFree", "inp_channels": 1, "out_channels": 1},
    )
    published = (
        ({"mefc": True, "ffn_expansion_factor": 2.66}, 33_655_424, 924),
        ({"mefc": False, "ffn_expansion_factor": 2.66}, 32_610_304, 730),
    )
    size = (24, 16)
    dark = 1.0  # where scores are near each other, rounding makes others the largest
    dtype = torch.float64
    tolerance = 1e-7
    autocast = 0.05
    casts = ((torch.bfloat16, 0.1),)
    needs = ("temperature",)
    refused = (
        ({**SMALL, "inp_channels": 6}, "inp_channels is 6 and out_channels 3"),
        ({**SMALL, "num_blocks": [1, 1, 1]}, "both have 4 numbers"),
        ({**SMALL, "num_blocks": [0, 1, 1, 1]}, "above 0"),
        ({**SMALL, "heads": [1, 2, 3, 4]}, "3 heads share 32 channels"),
        ({**SMALL, "heads": [8, 2, 2, 4]}, "8 heads share 8 channels"),
        ({**SMALL, "LayerNorm_type": "None"}, "LayerNorm_type is 'None'; there are WithBias and BiasFree"),
    )
    refused_sizes = ((16, 20, "multiples of 8 px; pad 20 x 16"),)

    def off(self, made: Tensor, exact: Tensor, x: Tensor) -> float:
        """In what is added to the picture."""
        return super().off(made.float() - x, exact - x, x)


@pytest.mark.parametrize("name", ["drsformer_a_mefc", "drsformer_b_nomefc_odd"])
def test_the_authors_results(authors: Any, name: str) -> None:
    case = authors(name)
    net = create("drsformer", **case.config).eval()
    net.load_state_dict(case.weights)
    x, expected = case.padded_input(8), case.tensors["output"]
    height, width = expected.shape[2:]
    torch.testing.assert_close(run(net, x)[..., :height, :width], expected, atol=5e-5, rtol=0)
    precise = run(net.double(), x.double())[..., :height, :width]
    torch.testing.assert_close(precise, case.tensors["output_f64"], atol=1e-10, rtol=0)
    detected = DRSformer.detect(case.weights)
    assert detected is not None and detected.config == case.config and not detected.assumed


@pytest.mark.parametrize(("name", "mefc"), [("drsformer_full_mefc", True), ("drsformer_full_nomefc", False)])
def test_the_published_names(authors_shapes: Any, name: str, mefc: bool) -> None:
    with torch.device("meta"):
        state = DRSformer(mefc=mefc).state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == authors_shapes(name)


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


@pytest.mark.parametrize("factor", [1.3, 2.0, 3.7])
def test_any_width_of_the_mlps_is_told(factor: float) -> None:
    config = {**SMALL, "ffn_expansion_factor": factor, "mefc": False}
    state = DRSformer(**config).state_dict()
    detected = DRSformer.detect(state)
    assert detected is not None
    DRSformer(**detected.config).load_state_dict(state)


def test_every_pixel_depends_on_every_other() -> None:
    net, x = network(**SMALL).double(), torch.rand(1, 3, 64, 64, dtype=torch.float64)
    other = x.clone()
    other[..., :8, :8] = 1 - other[..., :8, :8]
    with torch.inference_mode():
        assert ((net(other) - net(x))[..., 48:, 48:] != 0).all()


def test_gradients_are_right() -> None:
    net = network(**{**SMALL, "dim": 4, "num_blocks": [1] * 4, "heads": [1, 1, 2, 2]}).double().train()
    x = torch.rand(1, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(net, (x,), eps=1e-7, atol=1e-5, fast_mode=True)
