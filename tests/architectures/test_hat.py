"""HAT against the authors' results, a reference written out here, and its laws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from restorekit.architectures import create
from restorekit.architectures._bands import Band, Bands
from restorekit.architectures.drct import DRCT
from restorekit.architectures.hat import HAT
from restorekit.testing_networks import BandLaws, RefusalLaws, filled, picture, run

COMMON: dict[str, Any] = {"window_size": 16, "mlp_ratio": 2, "img_size": 64, "upsampler": "pixelshuffle"}
HAT_S: dict[str, Any] = {**COMMON, "embed_dim": 144, "compress_ratio": 24, "squeeze_factor": 24}
HAT_M: dict[str, Any] = {**COMMON, "embed_dim": 180, "compress_ratio": 3, "squeeze_factor": 30}
SMALL: dict[str, Any] = {
    "window_size": 4,
    "mlp_ratio": 2,
    "embed_dim": 12,
    "depths": [2, 3],
    "num_heads": [3, 2],
    "compress_ratio": 3,
    "squeeze_factor": 6,
    "conv_scale": 0.1,
    "upscale": 2,
}


def network(**config: Any) -> HAT:
    """With gates that let something through."""
    net = filled(HAT(**{**SMALL, **config}))
    with torch.no_grad():
        for key, value in net.named_parameters():
            if key.endswith("attention.1.bias"):
                value.fill_(1)
    return net


class TestHAT(BandLaws, RefusalLaws):
    kind = HAT
    build = staticmethod(network)
    configs = (SMALL,)
    others = (
        {**SMALL, "upscale": 1, "qkv_bias": False, "patch_norm": False},
        {**SMALL, "upscale": 3, "in_chans": 1, "resi_connection": "identity", "mlp_ratio": 1.5},
        {**SMALL, "upscale": 4, "window_size": 8, "overlap_ratio": 0.25, "compress_ratio": 5, "squeeze_factor": 5},
    )
    published = tuple(
        ({**config, "depths": [6] * depth, "num_heads": [6] * depth, "upscale": upscale}, count, None)
        for config, depth, counts in (
            (HAT_S, 6, (9_473_471, 9_658_111, 9_621_183)),
            (HAT_M, 6, (20_624_795, 20_809_435, 20_772_507)),
            (HAT_M, 12, (40_698_863, 40_883_503, 40_846_575)),
        )
        for upscale, count in zip((2, 3, 4), counts, strict=True)
    )
    size = (12, 20)
    autocast = 0.015
    casts = ((torch.bfloat16, 0.03),)
    untold = ("conv_scale", "img_range", "qk_scale", "windows are shifted")
    rounded = ("compress_ratio", "squeeze_factor")
    tall, rows, band_tolerance = ((20, 12),), (1, 4, 7, 8, 32), 5e-6
    refused = (
        ({**SMALL, "ape": True}, "ape"),
        ({**SMALL, "upsampler": "nearest+conv"}, "upsampler"),
        ({**SMALL, "upscale": 5}, "upscale"),
        ({**SMALL, "num_heads": [3]}, "num_heads"),
        ({**SMALL, "num_heads": [5, 5]}, "heads"),
        ({**SMALL, "img_size": 2}, "img_size"),
        ({**SMALL, "overlap_ratio": 0.25}, "overlap_ratio"),
        ({**SMALL, "resi_connection": "3conv"}, "resi_connection"),
    )
    refused_sizes = ((13, 12, "multiples of 4 px"),)


@pytest.mark.parametrize("name", ["HAT_x2_ws16", "HAT_x4_ws8"])
def test_results_are_those_of_the_authors(authors: Any, name: str) -> None:
    case = authors(name)
    net = create("hat", **case.config).eval()
    net.load_state_dict(case.weights)
    torch.testing.assert_close(run(net, case.tensors["input"]), case.tensors["output"], atol=2e-5, rtol=0)


# the network again, step by step on one picture, in the order of the paper's figures ----------------------------------


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


def overlapping_attention(p: dict[str, Tensor], name: str, x: Tensor, size: int, heads: int, margin: int) -> Tensor:
    h, w, c = x.shape
    q, k, v = linear(p, f"{name}.qkv", norm(p, f"{name}.norm1", x)).split(c, 2)
    k, v = (F.pad(y, (0, 0, margin, margin, margin, margin)) for y in (k, v))
    outer = size + 2 * margin
    bias = p[f"{name}.relative_position_bias_table"][p["relative_position_index_OCA"]].permute(2, 0, 1)
    result = torch.empty_like(x)
    for top in range(0, h, size):
        for left in range(0, w, size):
            window = slice(top, top + size), slice(left, left + size)
            around = slice(top, top + outer), slice(left, left + outer)
            attended = softmax_attention(*(y.reshape(-1, c) for y in (q[window], k[around], v[around])), heads, bias)
            result[window] = attended.view(size, size, c)
    x = linear(p, f"{name}.proj", result) + x
    return x + mlp(p, f"{name}.mlp", norm(p, f"{name}.norm2", x))


def reference(net: HAT, x: Tensor, config: dict[str, Any]) -> Tensor:
    p = net.state_dict()
    size = config["window_size"]
    mean = torch.tensor([0.4488, 0.4371, 0.4040])
    shallow = convolution(p, "conv_first", x[0].permute(1, 2, 0) - mean)
    maps = norm(p, "patch_embed.norm", shallow)
    for i, (depth, heads) in enumerate(zip(config["depths"], config["num_heads"], strict=True)):
        group = f"layers.{i}.residual_group"
        y = maps
        for j in range(depth):
            block = f"{group}.blocks.{j}"
            normed = norm(p, f"{block}.norm1", y)
            convolved = convolution(p, f"{block}.conv_block.cab.0", normed)
            convolved = convolution(p, f"{block}.conv_block.cab.2", F.gelu(convolved))
            squeezed = convolution(p, f"{block}.conv_block.cab.3.attention.1", convolved.mean((0, 1), keepdim=True))
            gate = convolution(p, f"{block}.conv_block.cab.3.attention.3", squeezed.relu()).sigmoid()
            attended = window_attention(p, f"{block}.attn", normed, size, heads, size // 2 if j % 2 else 0)
            y = y + attended + convolved * gate * config["conv_scale"]
            y = y + mlp(p, f"{block}.mlp", norm(p, f"{block}.norm2", y))
        y = overlapping_attention(p, f"{group}.overlap_attn", y, size, heads, size // 4)
        maps = convolution(p, f"layers.{i}.conv", y) + maps
    maps = convolution(p, "conv_after_body", norm(p, "norm", maps)) + shallow
    y = F.leaky_relu(convolution(p, "conv_before_upsample.0", maps), 0.01)
    y = F.pixel_shuffle(convolution(p, "upsample.0", y).permute(2, 0, 1), 2).permute(1, 2, 0)
    return (convolution(p, "conv_last", y) + mean).permute(2, 0, 1)[None]


def test_results_are_those_of_the_reference() -> None:
    net, x = network(), picture(12, 20)
    with torch.no_grad():
        expected = reference(net, x, SMALL)
    assert expected.std() > 0.2
    torch.testing.assert_close(run(net, x), expected, atol=2e-5, rtol=0)


# its laws -------------------------------------------------------------------------------------------------------------


def test_bands_hold_what_operators_make_to_a_band(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = network(), picture(40, 8)
    taken: list[int] = []
    original = HAT._deep

    def watched(self: HAT, band: Band, maps: Tensor, shallow: Tensor) -> Tensor:
        taken.append(maps.shape[1])
        return original(self, band, maps, shallow)

    monkeypatch.setattr(HAT, "_deep", watched)
    with torch.inference_mode():
        net.features(x, Bands(rows=8))
    assert taken == [9, 10, 10, 10, 9]


def test_channel_attention_looks_at_the_whole_picture() -> None:
    """And is all that does: without it, what is far away does not matter."""
    x = picture(64, 8)
    other = x.clone()
    other[:, :, :4] = 0
    for conv_scale, same in ((0.0, True), (0.1, False)):
        net = network(conv_scale=conv_scale, depths=[1], num_heads=[2])
        off = (run(net, x) - run(net, other)).abs()[:, :, 96:].amax()
        assert (off < 1e-6) == same


def test_weights_are_not_taken_for_those_of_its_sibling() -> None:
    assert DRCT.detect(network().state_dict()) is None


def test_training_runs_the_same_network() -> None:
    net, x = network(), picture(12, 20)
    expected = run(net, x)
    torch.testing.assert_close(net.train()(x), expected, atol=1e-5, rtol=0)


def test_maps_are_precise_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        assert network().features(picture(12, 20)).dtype == torch.float32
