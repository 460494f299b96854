"""HAT against the authors' results, a reference written out here, and its laws."""

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
from restorekit.architectures._bands import Band, Bands
from restorekit.architectures.drct import DRCT
from restorekit.architectures.hat import HAT
from restorekit.errors import ModelError

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
OTHERS: list[dict[str, Any]] = [
    {"upscale": 1, "qkv_bias": False, "patch_norm": False},
    {"upscale": 3, "in_chans": 1, "resi_connection": "identity", "mlp_ratio": 1.5},
    {"upscale": 4, "window_size": 8, "overlap_ratio": 0.25, "compress_ratio": 5, "squeeze_factor": 5},
]


def network(**config: Any) -> HAT:
    """With weights that make every part matter: those of fresh networks are small."""
    torch.manual_seed(0)
    net = HAT(**{**SMALL, **config}).eval()
    with torch.no_grad():
        for key, value in net.named_parameters():
            if value.dim() > 1:
                value.normal_(0, 1 if key.endswith("table") else value[0].numel() ** -0.5)
            elif key.endswith("bias"):
                value.normal_(0, 0.1)
    return net


def picture(height: int = 12, width: int = 20, batch: int = 1, channels: int = 3) -> Tensor:
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(1))


def run(net: HAT, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return net(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["HAT_x2_ws16", "HAT_x4_ws8"])
def test_results_are_those_of_the_authors(shared_data: Path, name: str) -> None:
    folder = shared_data.parent / "oracles"
    if not (folder / "INDEX.json").is_file():
        pytest.skip(f"needs the authors' results in {folder}")
    case = next(case for case in json.loads((folder / "INDEX.json").read_text()) if case["case"] == name)
    tensors = load_file(folder / case["file"])
    net = create("hat", **case["config"]).eval()
    net.load_state_dict({key[8:]: value for key, value in tensors.items() if key.startswith("weights/")})
    with torch.inference_mode():
        torch.testing.assert_close(net(tensors["input"]), tensors["output"], atol=2e-5, rtol=0)


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
    net, x = network(), picture()
    with torch.no_grad():
        expected = reference(net, x, SMALL)
    assert expected.std() > 0.2
    torch.testing.assert_close(run(net, x), expected, atol=2e-5, rtol=0)


# its laws -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "depth", "counts"),
    [
        (HAT_S, 6, (9_473_471, 9_658_111, 9_621_183)),
        (HAT_M, 6, (20_624_795, 20_809_435, 20_772_507)),
        (HAT_M, 12, (40_698_863, 40_883_503, 40_846_575)),
    ],
)
def test_number_of_parameters(config: dict[str, Any], depth: int, counts: tuple[int, ...]) -> None:
    for upscale, expected in zip((2, 3, 4), counts, strict=True):
        with torch.device("meta"):
            net = HAT(**config, depths=[6] * depth, num_heads=[6] * depth, upscale=upscale)
        assert sum(value.numel() for value in net.parameters()) == expected


@pytest.mark.parametrize("rows", [1, 4, 7, 8, 32])
def test_bands_make_the_whole(rows: int) -> None:
    net, x = network(), picture(20, 12, batch=2)
    with torch.inference_mode():
        whole = net.features(x)
        banded = net.features(x, Bands(rows=rows))
    torch.testing.assert_close(banded, whole, atol=5e-6, rtol=0)


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


@pytest.mark.parametrize("other", OTHERS)
def test_hyperparameters_are_told_by_the_weights(other: dict[str, Any]) -> None:
    net = network(**other)
    detected = HAT.detect(net.state_dict())
    assert detected is not None and len(detected.assumed) == 4
    again = HAT(**{**detected.config, "conv_scale": SMALL["conv_scale"]}).eval()
    again.load_state_dict(net.state_dict())
    x = picture(16, 24, channels=net.in_channels)
    assert torch.equal(run(again, x), run(net, x))
    assert run(net, x).shape == (1, net.in_channels, 16 * net.scale, 24 * net.scale)


@pytest.mark.parametrize("config", [HAT_S, HAT_M])
def test_hyperparameters_of_released_weights_are_told(config: dict[str, Any]) -> None:
    config = {**config, "depths": (6,) * 6, "num_heads": (6,) * 6, "upscale": 4}
    with torch.device("meta"):
        state = HAT(**config).state_dict()
    detected = HAT.detect(state)
    assert detected is not None
    assert detected.config.items() >= config.items()
    assert DRCT.detect(state) is None


def test_pictures_of_a_batch_do_not_mix() -> None:
    net, x = network(), picture(batch=3)
    torch.testing.assert_close(run(net, x), torch.cat([run(net, one[None]) for one in x]), atol=1e-5, rtol=0)


def test_low_precision_is_close() -> None:
    net, x = network(), picture(32, 32)
    exact = run(net, x)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = run(net, x)
    assert mixed.dtype == torch.float32
    assert (mixed - exact).square().mean().sqrt() < 0.015 * exact.std()
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        assert net.features(x).dtype == torch.float32
    assert (run(net.bfloat16(), x.bfloat16()).float() - exact).square().mean().sqrt() < 0.03 * exact.std()


def test_gradients_reach_every_weight() -> None:
    net, x = network(), picture()
    with torch.no_grad():
        for key, value in net.named_parameters():
            if key.endswith("attention.1.bias"):
                value.fill_(1)  # no dead ReLU
    expected = run(net, x)
    result = net.train()(x)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)
    result.square().mean().backward()
    for key, value in net.named_parameters():
        assert value.grad is not None and value.grad.isfinite().all() and value.grad.abs().sum() > 0, key


def test_channel_attention_looks_at_the_whole_picture() -> None:
    """And is all that does: without it, what is far away does not matter."""
    x = picture(64, 8)
    other = x.clone()
    other[:, :, :4] = 0
    for conv_scale, same in ((0.0, True), (0.1, False)):
        net = network(conv_scale=conv_scale, depths=[1], num_heads=[2])
        off = (run(net, x) - run(net, other)).abs()[:, :, 96:].amax()
        assert (off < 1e-6) == same


def test_what_it_cannot_do_is_refused() -> None:
    for wrong, said in (
        ({"ape": True}, "ape"),
        ({"upsampler": "nearest+conv"}, "upsampler"),
        ({"upscale": 5}, "upscale"),
        ({"num_heads": [3]}, "num_heads"),
        ({"num_heads": [5, 5]}, "heads"),
        ({"img_size": 2}, "img_size"),
        ({"overlap_ratio": 0.25}, "overlap_ratio"),
        ({"resi_connection": "3conv"}, "resi_connection"),
    ):
        with pytest.raises(ValueError, match=said):
            network(**wrong)
    with pytest.raises(ModelError, match="multiples of 4 px"):
        run(network(), picture(13, 12))
