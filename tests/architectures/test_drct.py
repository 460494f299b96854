"""DRCT against the authors' results, a reference written out here, and its laws."""

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
from restorekit.architectures._bands import Bands
from restorekit.architectures.drct import DRCT
from restorekit.architectures.hat import HAT
from restorekit.errors import ModelError

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
OTHERS: list[dict[str, Any]] = [
    {"upscale": 1, "qkv_bias": False, "patch_norm": False},
    {"upscale": 3, "in_chans": 1, "resi_connection": "identity", "mlp_ratio": 1.5},
    {"upscale": 4, "img_size": 4},
]


def network(**config: Any) -> DRCT:
    """With weights that make every part matter: those of fresh networks are small."""
    torch.manual_seed(0)
    net = DRCT(**{**SMALL, **config}).eval()
    with torch.no_grad():
        for key, value in net.named_parameters():
            if value.dim() > 1:
                value.normal_(0, 1 if key.endswith("table") else value[0].numel() ** -0.5)
            elif key.endswith("bias"):
                value.normal_(0, 0.1)
    return net


def picture(height: int = 12, width: int = 20, batch: int = 1, channels: int = 3) -> Tensor:
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(1))


def run(net: DRCT, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return net(x)  # type: ignore[no-any-return]


def flipped(x: Tensor, grid: int) -> Tensor:
    """With the mirrored picture appended up to the next multiple of the grid, always."""
    height, width = (side // grid * grid + grid for side in x.shape[2:])
    x = torch.cat((x, x.flip(2)), 2)[:, :, :height]
    return torch.cat((x, x.flip(3)), 3)[..., :width]


@pytest.mark.parametrize("name", ["DRCT_x2_ws8", "DRCT_x3_ws8_flip"])
def test_results_are_those_of_the_authors(shared_data: Path, name: str) -> None:
    folder = shared_data.parent / "oracles"
    if not (folder / "INDEX.json").is_file():
        pytest.skip(f"needs the authors' results in {folder}")
    case = next(case for case in json.loads((folder / "INDEX.json").read_text()) if case["case"] == name)
    tensors = load_file(folder / case["file"])
    net = create("drct", **case["config"]).eval()
    net.load_state_dict({key[8:]: value for key, value in tensors.items() if key.startswith("weights/")})
    x, expected = tensors["input"], tensors["output"]
    with torch.inference_mode():
        result = net(x if case["padding"] == "none" else flipped(x, 8))
    torch.testing.assert_close(result[..., : expected.shape[2], : expected.shape[3]], expected, atol=2e-5, rtol=0)


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


@pytest.mark.parametrize(
    ("groups", "counts"), [(6, (13_991_867, 14_176_507, 14_139_579)), (12, (27_433_007, 27_617_647, 27_580_719))]
)
def test_number_of_parameters(groups: int, counts: tuple[int, ...]) -> None:
    for upscale, expected in zip((2, 3, 4), counts, strict=True):
        with torch.device("meta"):
            net = DRCT(**OFFICIAL, depths=[6] * groups, num_heads=[6] * groups, upscale=upscale)
        assert sum(value.numel() for value in net.parameters()) == expected


@pytest.mark.parametrize("rows", [1, 4, 7, 8, 32])
def test_bands_make_the_whole(rows: int) -> None:
    net, x = network(), picture(20, 12, batch=2)
    with torch.inference_mode():
        whole = net.features(x)
        banded = net.features(x, Bands(rows=rows))
    torch.testing.assert_close(banded, whole, atol=5e-6, rtol=0)


@pytest.mark.parametrize("other", OTHERS)
def test_hyperparameters_are_told_by_the_weights(other: dict[str, Any]) -> None:
    net = network(**other)
    detected = DRCT.detect(net.state_dict())
    assert detected is not None and len(detected.assumed) == 2
    again = DRCT(**detected.config).eval()
    again.load_state_dict(net.state_dict())
    x = picture(16, 24, channels=net.in_channels)
    assert torch.equal(run(again, x), run(net, x))
    assert run(net, x).shape == (1, net.in_channels, 16 * net.scale, 24 * net.scale)


def test_hyperparameters_of_released_weights_are_told() -> None:
    config = {**OFFICIAL, "depths": (6,) * 12, "num_heads": (6,) * 12, "upscale": 4}
    with torch.device("meta"):
        state = DRCT(**config).state_dict()
    detected = DRCT.detect(state)
    assert detected is not None
    assert detected.config.items() >= config.items()
    assert HAT.detect(state) is None


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
    torch.testing.assert_close(run(net, picture()), run(network(window_size=4, img_size=4), picture()))


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
    assert (run(net.bfloat16(), x.bfloat16()).float() - exact).square().mean().sqrt() < 0.03 * exact.std()


def test_gradients_reach_every_weight() -> None:
    net, x = network(), picture()
    expected = run(net, x)
    result = net.train()(x)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)
    result.square().mean().backward()
    for key, value in net.named_parameters():
        assert value.grad is not None and value.grad.isfinite().all() and value.grad.abs().sum() > 0, key


def test_a_tile_on_the_grid_is_the_whole_and_another_is_not() -> None:
    """One group reaches 24 px and its convolutions 2 more, rounded up to windows."""
    net, x = network(depths=[6], num_heads=[3]), picture(64, 8)
    whole = run(net, x)
    torch.testing.assert_close(run(net, x[:, :, 16:])[:, :, 64:], whole[:, :, 96:], atol=1e-5, rtol=0)
    assert not torch.allclose(run(net, x[:, :, 18:62])[:, :, 60:80], whole[:, :, 96:116], atol=1e-2)


def test_what_it_cannot_do_is_refused() -> None:
    for wrong, said in (
        ({"ape": True}, "ape"),
        ({"upsampler": ""}, "upsampler"),
        ({"num_heads": [3]}, "num_heads"),
        ({"num_heads": [5, 5]}, "heads"),
        ({"img_size": 18}, "img_size"),
    ):
        with pytest.raises(ValueError, match=said):
            network(**wrong)
    with pytest.raises(ModelError, match="multiples of 4 px"):
        run(network(), picture(13, 12))
