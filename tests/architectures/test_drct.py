"""DRCT against the authors' results, a reference written out here, and its laws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from restorekit.architectures import create
from restorekit.architectures.drct import DRCT
from restorekit.architectures.hat import HAT
from restorekit.testing_networks import BandLaws, RefusalLaws, filled, picture, run

OFFICIAL: dict[str, Any] = {"window_size": 16, "mlp_ratio": 2, "img_size": 64, "embed_dim": 180, "gc": 32}
SMALL: dict[str, Any] = {
    "window_size": 4,
    "mlp_ratio": 2,
    "img_size": 16,
    "embed_dim": 12,
    "gc": 4,
    "depths": [6, 6],
    "num_heads": [3, 2],
    "upscale": 2,
}


def network(**config: Any) -> DRCT:
    return filled(DRCT(**{**SMALL, **config}))


class TestDRCT(BandLaws, RefusalLaws):
    kind = DRCT
    build = staticmethod(network)
    configs = (SMALL,)
    others = (
        {**SMALL, "upscale": 1, "qkv_bias": False, "patch_norm": False},
        {**SMALL, "upscale": 3, "in_chans": 1, "resi_connection": "identity", "mlp_ratio": 1.5},
        {**SMALL, "upscale": 4, "img_size": 4},
    )
    published = tuple(
        ({**OFFICIAL, "depths": [6] * groups, "num_heads": [6] * groups, "upscale": upscale}, count, None)
        for groups, counts in (
            (6, (13_991_867, 14_176_507, 14_139_579)),
            (12, (27_433_007, 27_617_647, 27_580_719)),
        )
        for upscale, count in zip((2, 3, 4), counts, strict=True)
    )
    size = (12, 20)
    autocast = 0.015
    casts = ((torch.bfloat16, 0.03),)
    untold = ("img_range", "qk_scale")
    tall, rows, band_tolerance = ((20, 12),), (1, 4, 7, 8, 32), 5e-6
    refused = (
        ({**SMALL, "ape": True}, "ape"),
        ({**SMALL, "upsampler": ""}, "upsampler"),
        ({**SMALL, "num_heads": [3]}, "num_heads"),
        ({**SMALL, "num_heads": [5, 5]}, "heads"),
        ({**SMALL, "img_size": 18}, "img_size"),
    )
    refused_sizes = ((13, 12, "multiples of 4 px"),)


@pytest.mark.parametrize("name", ["DRCT_x2_ws8", "DRCT_x3_ws8_flip"])
def test_results_are_those_of_the_authors(authors: Any, name: str) -> None:
    case = authors(name)
    net = create("drct", **case.config).eval()
    net.load_state_dict(case.weights)
    expected = case.tensors["output"]
    result = run(net, case.padded_input(8))[..., : expected.shape[2], : expected.shape[3]]
    torch.testing.assert_close(result, expected, atol=2e-5, rtol=0)


# the network again, step by step on one picture -----------------------------------------------------------------------


def linear(p: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])


def norm(p: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], p[f"{name}.weight"], p[f"{name}.bias"])


def convolution(p: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """On ``[H,W,C]``."""
    weight = p[f"{name}.weight"]
    return F.conv2d(x.permute(2, 0, 1), weight, p[f"{name}.bias"], padding=weight.shape[-1] // 2).permute(1, 2, 0)


def mlp(p: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return linear(p, f"{name}.fc2", F.gelu(linear(p, f"{name}.fc1", x)))


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor) -> Tensor:
    """``[N,C]`` to ``[M,C]`` with a bias ``[heads,N,M]``."""
    n, c = q.shape
    q, k, v = (x.view(-1, heads, c // heads).transpose(0, 1) for x in (q, k, v))
    scores = q @ k.transpose(1, 2) / (c // heads) ** 0.5 + bias
    return (scores.softmax(-1) @ v).transpose(0, 1).reshape(n, c)


def window_attention(p: dict[str, Tensor], name: str, x: Tensor, size: int, heads: int, shift: int) -> Tensor:
    """Every pixel looks at those in its window of the grid moved by ``shift``, but not around the borders."""
    h, w, c = x.shape
    row, column = (places.flatten() for places in torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij"))
    down, right = row[:, None] - row, column[:, None] - column
    window = (row - shift) // size * w + (column - shift) // size
    table = p[f"{name}.relative_position_bias_table"].view(2 * size - 1, 2 * size - 1, heads)
    bias = table[(down + size - 1).clamp(0, 2 * size - 2), (right + size - 1).clamp(0, 2 * size - 2)].permute(2, 0, 1)
    bias = bias.masked_fill(window[:, None] != window, -torch.inf)
    q, k, v = linear(p, f"{name}.qkv", x).view(h * w, 3 * c).split(c, 1)
    return linear(p, f"{name}.proj", softmax_attention(q, k, v, heads, bias)).view(h, w, c)


def reference(net: DRCT, x: Tensor, config: dict[str, Any]) -> Tensor:
    p = net.state_dict()
    size, dim, growth = config["window_size"], config["embed_dim"], config["gc"]
    mean = torch.tensor([0.4488, 0.4371, 0.4040])
    shallow = convolution(p, "conv_first", x[0].permute(1, 2, 0) - mean)
    maps = norm(p, "patch_embed.norm", shallow)
    for i, heads in enumerate(config["num_heads"]):
        dense = maps
        for k in range(1, 6):
            block = f"layers.{i}.swin{k}"
            width = dim + (k - 1) * growth
            fewer = heads if k == 1 else heads - width % heads
            shift = size // 2 if k in (2, 4) else 0
            y = dense + window_attention(p, f"{block}.attn", norm(p, f"{block}.norm1", dense), size, fewer, shift)
            y = y + mlp(p, f"{block}.mlp", norm(p, f"{block}.norm2", y))
            y = convolution(p, f"layers.{i}.adjust{k}", y)
            dense = torch.cat((dense, F.leaky_relu(y, 0.2)), 2) if k < 5 else y
        maps = dense * 0.2 + maps
    maps = convolution(p, "conv_after_body", norm(p, "norm", maps)) + shallow
    y = F.leaky_relu(convolution(p, "conv_before_upsample.0", maps), 0.01)
    y = F.pixel_shuffle(convolution(p, "upsample.0", y).permute(2, 0, 1), 2).permute(1, 2, 0)
    return (convolution(p, "conv_last", y) + mean).permute(2, 0, 1)[None]


@pytest.mark.parametrize("size", [(12, 20), (16, 16), (4, 8)])
def test_results_are_those_of_the_reference(size: tuple[int, int]) -> None:
    net, x = network(), picture(*size)
    with torch.no_grad():
        expected = reference(net, x, SMALL)
    assert expected.std() > 0.2
    torch.testing.assert_close(run(net, x), expected, atol=2e-5, rtol=0)


# its laws -------------------------------------------------------------------------------------------------------------


def test_buffers_are_those_of_the_authors() -> None:
    state = network().state_dict()
    assert state["layers.1.swin4.attn_mask"].shape == (16, 16, 16)
    assert state["layers.1.swin4.attn_mask"].unique().tolist() == [-100, 0]
    assert "layers.1.swin3.attn_mask" not in state
    assert not any("attn_mask" in key for key in network(img_size=4).state_dict())


def test_a_picture_no_larger_than_the_window_is_the_window() -> None:
    net = network(window_size=8, img_size=4)
    assert net.tiling.grid == 4
    net.load_state_dict(network(window_size=4, img_size=4).state_dict())
    torch.testing.assert_close(run(net, picture(12, 20)), run(network(window_size=4, img_size=4), picture(12, 20)))


def test_a_tile_on_the_grid_is_the_whole_and_another_is_not() -> None:
    """One group reaches 24 px and its convolutions 2 more, rounded up to windows."""
    net, x = network(depths=[6], num_heads=[3]), picture(64, 8)
    whole = run(net, x)
    torch.testing.assert_close(run(net, x[:, :, 16:])[:, :, 64:], whole[:, :, 96:], atol=1e-5, rtol=0)
    assert not torch.allclose(run(net, x[:, :, 18:62])[:, :, 60:80], whole[:, :, 96:116], atol=1e-2)


def test_weights_are_not_taken_for_those_of_its_sibling() -> None:
    assert HAT.detect(network().state_dict()) is None


def test_training_runs_the_same_network() -> None:
    net, x = network(), picture(12, 20)
    expected = run(net, x)
    torch.testing.assert_close(net.train()(x), expected, atol=1e-5, rtol=0)
