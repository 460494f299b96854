"""CRAFT against the authors' results, references written out here, and its laws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from restorekit.architectures.craft import CRAFT, _ChannelAttention
from restorekit.testing_networks import BandLaws, RefusalLaws, filled, run

OFFICIAL: dict[str, Any] = {"embed_dim": 48, "depths": [2] * 4, "num_heads": [6] * 4}
SMALL: dict[str, Any] = {"embed_dim": 32, "depths": [1, 1], "num_heads": [4, 2]}


def network(**config: Any) -> CRAFT:
    return filled(CRAFT(**config))


class TestCRAFT(BandLaws, RefusalLaws):
    kind = CRAFT
    build = staticmethod(network)
    configs = (SMALL,)
    others = (
        {**OFFICIAL, "upscale": 3},
        {**SMALL, "upscale": 4, "qkv_bias": False, "resi_connection": "identity", "mlp_ratio": 1.5},
        {**SMALL, "depths": [2, 1], "split_size_0": 2, "split_size_1": 8, "in_chans": 1},
    )
    published = (
        ({**OFFICIAL, "upscale": 2}, 737_756, 844),
        ({**OFFICIAL, "upscale": 3}, 744_251, 844),
        ({**OFFICIAL, "upscale": 4}, 753_344, 844),
    )
    size = (32, 16)
    autocast = 0.05
    casts = ((torch.bfloat16, 0.05),)
    without_slope = r"\.pos\."  # their norms are of a single channel, as in the published network
    untold = ("img_range", "qk_scale")
    told_by_shapes = False
    needs = ("temperature",)
    tall, rows = ((48, 32),), (16,)
    refused_sizes = ((32, 40, "multiples of 16 px; pad 40 x 32"),)


@pytest.mark.parametrize("name", ["CRAFT_x2_s4x16", "CRAFT_x4_s4x16", "CRAFT_x4_pad"])
def test_the_authors_results(authors: Any, name: str) -> None:
    case = authors(name)
    net = CRAFT(**case.config).eval()
    net.load_state_dict(case.weights)
    expected = case.tensors["output"]
    result = run(net, case.padded_input(16))[..., : expected.shape[2], : expected.shape[3]]
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=0)
    detected = CRAFT.detect(case.weights)
    assert detected is not None
    CRAFT(**detected.config).load_state_dict(case.weights)


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


def test_every_pixel_depends_on_every_other() -> None:
    net, x = network(**SMALL).double(), torch.rand(1, 3, 64, 64, dtype=torch.float64)
    other = x.clone()
    other[..., :8, :8] = 1 - other[..., :8, :8]
    with torch.inference_mode():
        assert ((net(other) - net(x))[..., 64:96, 64:96] != 0).all()
