"""Histoformer against the authors' results, references written out here, and its laws.

Whole networks are compared in float64: with weights that are not trained, float32 puts other pixels first in the order.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorekit.architectures import create
from restorekit.architectures.histoformer import (
    Histoformer,
    _DualScales,
    _HistogramAttention,
    _Smaller,
    ascending,
)
from restorekit.testing_networks import RefusalLaws, run

SMALL: dict[str, Any] = {
    "dim": 8,
    "num_blocks": [1, 1, 1, 2],
    "num_refinement_blocks": 1,
    "heads": [1, 2, 2, 4],
    "ffn_expansion_factor": 2.5,
}


def network(**config: Any) -> Histoformer:
    torch.manual_seed(0)
    return Histoformer(**config).eval()


def channels_last(module: Any, x: Tensor) -> Tensor:
    """What a part that takes ``[B,H,W,C]`` makes of ``[B,C,H,W]``."""
    y: Tensor = module(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return y


class TestHistoformer(RefusalLaws):
    kind = Histoformer
    build = staticmethod(network)
    configs = (SMALL, {**SMALL, "LayerNorm_type": "BiasFree"})
    others = (
        {**SMALL, "bias": True},
        {**SMALL, "num_refinement_blocks": 3, "heads": [1, 1, 2, 8], "dim": 16},
    )
    published = (({"ffn_expansion_factor": 2.667}, 16_615_100, 339),)
    size = (24, 16)
    dtype = torch.float64
    tolerance = 1e-7
    autocast, casts = 1.0, ((torch.bfloat16, 1.0),)
    """What it makes cannot be close: rounding makes another order."""
    untold = ("LayerNorm_type",)
    rounded = ("ffn_expansion_factor",)
    needs = ("temperature",)
    refused = (
        ({**SMALL, "inp_channels": 1, "out_channels": 1}, "inp_channels is 1; there is 3"),
        ({**SMALL, "out_channels": 1}, "inp_channels is 3 and out_channels 1"),
        ({**SMALL, "dual_pixel_task": True}, "dual_pixel_task is True; there is False"),
        (
            {**SMALL, "ffn_expansion_factor": 2.66},
            "8 channels times ffn_expansion_factor are 21; they are a multiple of 4",
        ),
        ({**SMALL, "heads": [1, 3, 2, 4]}, "heads are 3; they divide 16 channels"),
        ({**SMALL, "LayerNorm_type": "None"}, "LayerNorm_type is 'None'"),
    )
    refused_sizes = ((16, 20, "multiples of 8 px; pad 20 x 16"),)

    def off(self, made: Tensor, exact: Tensor, x: Tensor) -> float:
        """In what is added to the picture."""
        return super().off(made.float() - x, exact - x, x)


@pytest.mark.parametrize("name", ["histoformer_a", "histoformer_b_odd"])
def test_the_authors_results(authors: Any, name: str) -> None:
    case = authors(name)
    net = create("histoformer", **case.config).eval()
    net.load_state_dict(case.weights)
    expected = case.tensors["output_f64"]
    made = run(net.double(), case.padded_input(8).double())[..., : expected.shape[2], : expected.shape[3]]
    torch.testing.assert_close(made, expected, atol=1e-8, rtol=0)
    detected = Histoformer.detect(case.weights)
    assert detected is not None
    assert {**case.config, **detected.config} == case.config


@pytest.mark.parametrize("part", ["attn", "ffn", "skip"])
def test_the_authors_results_of_parts(authors: Any, part: str) -> None:
    """Parts are compared in float32 too: a single sorting is not chaotic."""
    case = authors(f"histoformer_part_{part}")
    config, x = case.config, case.tensors["input"]
    module: nn.Module
    if part == "attn":
        module = _HistogramAttention(config["dim"], config["num_heads"], config["bias"])
    elif part == "ffn":
        module = _DualScales(config["dim"], int(config["dim"] * config["ffn_expansion_factor"]), config["bias"])
    else:
        module = _Smaller(False)
    module.load_state_dict(case.weights)
    with torch.inference_mode():
        made, precise = channels_last(module, x), channels_last(module.double(), x.double())
    torch.testing.assert_close(made, case.tensors["output"], atol=5e-6, rtol=0)
    torch.testing.assert_close(precise, case.tensors["output_f64"], atol=1e-12, rtol=0)


def test_the_published_widths_are_told() -> None:
    with torch.device("meta"):
        detected = Histoformer.detect(Histoformer().state_dict())
    assert detected is not None and detected.config["ffn_expansion_factor"] == 2.667


def test_the_published_names(authors_shapes: Any) -> None:
    with torch.device("meta"):
        state = Histoformer().state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == authors_shapes("histoformer_full")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("threads", [1, 3])
def test_equal_values_keep_their_order(dtype: torch.dtype, threads: int) -> None:
    torch.manual_seed(0)
    before = torch.get_num_threads()
    values = (torch.randn(3, 2, 5, 64) * 3).round().mul(0.5).to(dtype)  # ties, zeros of both signs, both signs
    torch.set_num_threads(threads)
    try:
        for given in (values, values.transpose(2, 3), values * 1e-40, values * 1e30):
            torch.testing.assert_close(ascending(given), given.sort(dim=-1, stable=True).indices, rtol=0, atol=0)
    finally:
        torch.set_num_threads(before)


def test_float32_is_sorted_as_exactly_as_float64() -> None:
    torch.manual_seed(0)
    values = torch.randn(4, 4096) * torch.logspace(-6, 6, 4)[:, None]
    torch.testing.assert_close(ascending(values), ascending(values.double()), rtol=0, atol=0)


@pytest.mark.parametrize(("heads", "height", "width"), [(1, 6, 8), (4, 6, 8), (4, 5, 7)])
def test_attention_of_sorted_pixels(heads: int, height: int, width: int) -> None:
    torch.manual_seed(0)
    module = _HistogramAttention(8, heads, True).double().eval()
    module.temperature.data.uniform_(1, 4)
    x = torch.randn(2, 8, height, width, dtype=torch.float64)
    first, columns = x[:, :4].sort(2)
    first, rows = first.sort(3)
    y = module.qkv_dwconv(module.qkv(torch.cat((first, x[:, 4:]), 1))).flatten(2)
    order = y[:, 32:].sort(-1).indices
    q1, k1, q2, k2, v = (F.pad(part.gather(2, order), (0, -part.shape[2] % heads)) for part in y.chunk(5, 1))

    def attend(q: Tensor, k: Tensor, near: bool) -> Tensor:
        """Token by token: the pixels of a bin of a channel are one, and its scores have a softmax with one more."""
        result = torch.zeros_like(v)
        each, count = 8 // heads, v.shape[2]
        bins = [
            torch.arange(count)[b * count // heads :][: count // heads] if near else torch.arange(count)[b::heads]
            for b in range(heads)
        ]
        for head in range(heads):
            tokens = [(channel, places) for channel in range(head * each, head * each + each) for places in bins]
            for channel, places in tokens:
                query = F.normalize(q[:, channel, places], dim=-1)
                keys = torch.stack([F.normalize(k[:, c, p], dim=-1) for c, p in tokens], 1)
                scores = (keys @ query[..., None])[..., 0] * module.temperature[head, 0]
                weights = scores.exp() / (1 + scores.exp().sum(-1, keepdim=True))
                values = torch.stack([v[:, c, p] for c, p in tokens], 1)
                result[:, channel, places] = (weights[..., None] * values).sum(1)
        return result

    made = (attend(q1, k1, True) * attend(q2, k2, False))[..., : height * width]
    made = torch.zeros_like(made).scatter(2, order, made).view_as(x)
    expected = module.project_out(made)
    back = torch.zeros_like(first).scatter(3, rows, expected[:, :4])
    expected = torch.cat((torch.zeros_like(first).scatter(2, columns, back), expected[:, 4:]), 1)
    torch.testing.assert_close(channels_last(module, x), expected)


def test_mlp_spreads_channels_over_pixels() -> None:
    torch.manual_seed(0)
    module = _DualScales(6, 16, True).eval()
    x = torch.randn(2, 6, 5, 7)
    first, second = F.pixel_shuffle(module.project_in(x), 2).chunk(2, 1)
    gated = F.mish(module.dwconv_dilated2_1(second)) * module.dwconv_5(first)
    expected = module.project_out(F.pixel_unshuffle(gated, 2))
    torch.testing.assert_close(channels_last(module, x), expected, rtol=1e-4, atol=1e-5)


def test_every_pixel_depends_on_every_other() -> None:
    net, x = network(**SMALL).double(), torch.rand(1, 3, 64, 64, dtype=torch.float64)
    other = x.clone()
    other[..., :8, :8] = 1 - other[..., :8, :8]
    with torch.inference_mode():
        assert ((net(other) - net(x))[..., 48:, 48:] != 0).all()


def test_a_picture_of_one_colour_is_the_same_twice() -> None:
    """All its values are equal, so that their order is that of the pixels."""
    net, x = network(**SMALL), torch.full((1, 3, 32, 32), 0.25)
    with torch.inference_mode():
        y = net(x)
        assert bool(y.isfinite().all())
        assert torch.equal(net(x), y)


def test_gradients_are_right() -> None:
    config = {**SMALL, "dim": 4, "num_blocks": [1] * 4, "heads": [1, 1, 2, 2], "ffn_expansion_factor": 2}
    net = network(**config).double().train()
    x = torch.rand(1, 3, 16, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(net, (x,), eps=1e-9, atol=1e-5, fast_mode=True)
