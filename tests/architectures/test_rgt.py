"""RGT against the authors' results, references written out here, and its laws."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from restorekit.architectures.rgt import RGT, _GlobalAttention, _recursions
from restorekit.errors import ModelError
from restorekit.testing_networks import BandLaws, RefusalLaws, filled, run

OFFICIAL: dict[str, Any] = {"depth": [6] * 8, "num_heads": [6] * 8, "mlp_ratio": 2, "split_size": [8, 32]}
OFFICIAL_S: dict[str, Any] = {**OFFICIAL, "depth": [6] * 6, "num_heads": [6] * 6}
SMALL: dict[str, Any] = {
    "embed_dim": 96,  # 3 channels for position biases: norms of fewer have no slope
    "depth": [3, 1],
    "num_heads": [4, 2],
    "mlp_ratio": 2,
    "split_size": [4, 8],
}
TINY: dict[str, Any] = {"embed_dim": 32, "depth": [2], "num_heads": [2], "mlp_ratio": 1, "split_size": [2, 4]}


def network(**config: Any) -> RGT:
    return filled(RGT(**config))


class TestRGT(BandLaws, RefusalLaws):
    kind = RGT
    build = staticmethod(network)
    configs = (SMALL,)
    others = (
        {**OFFICIAL_S, "depth": [2, 2], "num_heads": [6, 6], "upscale": 4, "embed_dim": 180},
        {**SMALL, "upscale": 3, "qkv_bias": False, "resi_connection": "3conv", "c_ratio": 0.75},
        {**TINY, "in_chans": 1, "upscale": 2},
    )
    published = tuple(
        ({**config, "upscale": scale}, count, keys)
        for config, scale, count, keys in (
            (OFFICIAL_S, 2, 10_051_055, 1520),
            (OFFICIAL_S, 3, 10_235_695, 1520),
            (OFFICIAL_S, 4, 10_198_767, 1522),
            (OFFICIAL, 2, 13_217_831, 2022),
            (OFFICIAL, 3, 13_402_471, 2022),
            (OFFICIAL, 4, 13_365_543, 2024),
        )
    )
    size = (32, 40)
    autocast = 0.02
    casts = ((torch.bfloat16, 0.02),)
    without_slope = r"attn\.k\.bias"  # softmax does not see what all keys share
    untold = ("img_range", "qk_scale")
    told_by_shapes = False
    needs = ("before_RG",)
    tall, rows = ((50, 32),), (16,)
    refused = (({**TINY, "split_size": [6, 12]}, "divisors of 64"),)


@pytest.mark.parametrize("name", ["RGT_x2_s4x8", "RGT_x4_s2x4"])
def test_the_authors_results(authors: Any, name: str) -> None:
    case = authors(name)
    net = RGT(**case.config).eval()
    for key, value in net.state_dict().items():
        if "attn_mask" in key or "rpe_biases" in key or "relative_position_index" in key:
            assert torch.equal(value, case.weights[key]), key
    net.load_state_dict(case.weights)
    torch.testing.assert_close(run(net, case.tensors["input"]), case.tensors["output"], atol=1e-4, rtol=0)
    detected = RGT.detect(case.weights)
    assert detected is not None
    RGT(**detected.config).load_state_dict(case.weights)


@pytest.mark.parametrize("recursions", [2, 3])
def test_global_attention_is_softmax_over_the_summary(recursions: int) -> None:
    torch.manual_seed(0)
    module = _GlobalAttention(24, 3, qkv_bias=True, qk_scale=None, c_ratio=0.5).eval()
    x = torch.randn(2, 24, 70, 64)
    small = x
    for _ in range(recursions):
        small = module.reduction1(small)
    tokens = module.norm_act(module.conv(module.dwconv(small)).flatten(2).transpose(1, 2))
    v = module.v(tokens).transpose(1, 2)
    v = (v + module.cpe(v.unflatten(2, small.shape[2:])).flatten(2)).transpose(1, 2)
    heads = []
    q = module.q(x.flatten(2).transpose(1, 2))
    for q_h, k_h, v_h in zip(*(t.chunk(3, -1) for t in (q, module.k(tokens), v)), strict=True):
        heads.append((q_h @ k_h.transpose(1, 2) / 4**0.5).softmax(-1) @ v_h)
    expected = module.proj(torch.cat(heads, -1)).view(2, 70, 64, 24)
    torch.testing.assert_close(module(x.permute(0, 2, 3, 1), recursions), expected, atol=1e-5, rtol=1e-5)


def test_the_number_of_recursions_is_the_authors() -> None:
    for side in (16, 63, 64, 255, 256, 1023, 1024, 1030, 4095, 4096, 16384):
        assert _recursions(side, training=False) == max(int(math.log(side // 16, 4)), 2)
        assert _recursions(side, training=True) == int(math.log(side // 4, 4))


@pytest.mark.parametrize(("height", "width", "least"), [(15, 40, 16), (40, 15, 16), (63, 1024, 64), (255, 4096, 256)])
def test_pictures_too_small_for_the_summary_are_refused(height: int, width: int, least: int) -> None:
    with torch.device("meta"):
        net, x = RGT(**TINY).eval(), torch.rand(1, 3, height, width)
    with pytest.raises(ModelError, match=rf"at least {least} px where the longer has .* px \(size rule"):
        net(x)


@pytest.mark.parametrize(("height", "width"), [(16, 1023), (64, 1024), (17, 35)])
def test_every_size_within_the_rule_is_taken(height: int, width: int) -> None:
    with torch.inference_mode():
        result = network(**TINY).features(torch.rand(1, 3, height, width))
    assert result.shape == (1, 32, height, width)
    assert result.isfinite().all()
