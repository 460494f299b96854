"""DLGSANet: the authors' results, its operators written out, and its laws."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from restorekit.architectures._bands import Bands
from restorekit.architectures.dlgsanet import (
    ROWS,
    TLC_KERNEL,
    DLGSANet,
    _ChannelAttention,
    _DynamicConvolution,
    origins,
)

OFFICIAL: dict[str, Any] = {"buildblock_type": "sparseedge", "upsampler": "pixelshuffledirect"}
SMALL: dict[str, Any] = {**OFFICIAL, "dim": 12, "groups": 1, "blocks": 1, "restormer_num_heads": 3, "tlc_kernel": 8}


def network(**config: Any) -> DLGSANet:
    torch.manual_seed(0)
    return DLGSANet(**config).eval()


@pytest.mark.parametrize("name", ["DLGSANet_x2_tlc16", "DLGSANet_x4_tlc48"])
def test_results_of_the_authors(shared_data: Path, name: str) -> None:
    folder = shared_data.parent / "oracles"
    if not (folder / "INDEX.json").is_file():
        pytest.skip(f"needs the authors' results in {folder}")
    case = next(case for case in json.loads((folder / "INDEX.json").read_text()) if case["case"] == name)
    tensors = load_file(folder / case["file"])
    net = DLGSANet(**case["config"]).eval()
    net.load_state_dict({key.removeprefix("weights/"): v for key, v in tensors.items() if key.startswith("weights/")})
    with torch.inference_mode():
        result = net(tensors["input"])
        torch.testing.assert_close(result, tensors["output"], rtol=0, atol=2e-5 * float(tensors["output"].std()))
        flipped = net(torch.cat((tensors["input"].flip(3), tensors["input"])))
        torch.testing.assert_close(flipped[1:], result, rtol=0, atol=2e-5 * float(result.std()))


def test_dynamic_convolution_written_out() -> None:
    torch.manual_seed(0)
    layer = _DynamicConvolution(12, 5, 4)
    height, width = ROWS + 3, 9
    x = torch.randn(2, 12, height, width)
    with torch.inference_mode():
        kernels = layer.conv2(layer.conv1(x)).view(2, 3, 5, 5, height, width)
        padded = F.pad(x, (2, 2, 2, 2))
        expected = torch.zeros_like(x)
        for c in range(12):
            for i in range(5):
                for j in range(5):
                    expected[:, c] += padded[:, c, i : i + height, j : j + width] * kernels[:, c // 4, i, j]
        torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
        columns = layer(x.contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(columns, expected, rtol=1e-5, atol=1e-5)


def attend(layer: _ChannelAttention, qkv: Tensor) -> Tensor:
    """Channel attention of one window ``[B,3C,h,w]``, head by head."""
    results = []
    size = qkv.shape[1] // 3 // layer.heads
    q, k, v = (part.flatten(2).split(size, 1) for part in qkv.chunk(3, 1))
    for head in range(layer.heads):
        a, b = (t / t.square().sum(-1, keepdim=True).sqrt() for t in (q[head], k[head]))
        scores = torch.einsum("bcn,bdn->bcd", a, b) * layer.temperature[head]
        weights = layer.activation(scores) if layer.activation else scores.softmax(-1)
        results.append(torch.einsum("bcd,bdn->bcn", weights, v[head]))
    return torch.cat(results, 1).view(qkv.shape[0], -1, *qkv.shape[2:])


@pytest.mark.parametrize(("height", "width"), [(5, 21), (8, 16), (13, 30)])
@pytest.mark.parametrize("activation", [F.relu, None])
def test_attention_over_windows_written_out(height: int, width: int, activation: Any) -> None:
    torch.manual_seed(0)
    layer = _ChannelAttention(12, 3, 8, activation)
    torch.nn.init.normal_(layer.temperature)
    x = torch.randn(2, height, width, 12)

    def starts(length: int, k: int) -> list[int]:
        count = (length - 1) // k + 1
        step = k if count == 1 else math.ceil((length - k) / (count - 1))
        found, position = [], 0
        while position + k < length:
            found.append(position)
            position += step
        return [*found, length - k]

    with torch.inference_mode():
        qkv = layer.qkv_dwconv(layer.qkv(x)).permute(0, 3, 1, 2)
        total, count = torch.zeros(2, 12, height, width), torch.zeros(height, width)
        h, w = min(8, height), min(8, width)
        for top in starts(height, h):
            for left in starts(width, w):
                total[..., top : top + h, left : left + w] += attend(layer, qkv[..., top : top + h, left : left + w])
                count[top : top + h, left : left + w] += 1
        expected = layer.project_out((total / count).permute(0, 2, 3, 1))
        torch.testing.assert_close(layer.eval()(x), expected, rtol=1e-5, atol=1e-5)
        whole = layer.project_out(attend(layer, qkv).permute(0, 2, 3, 1))
        torch.testing.assert_close(layer.train()(x), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("length", [8, 9, 16, 17, 31, 100])
def test_windows_cover_everything(length: int) -> None:
    found = origins(length, 8)
    assert found[0] == 0 and found[-1] == length - 8
    assert all(0 < b - a <= 8 for a, b in pairwise(found))
    assert len(found) == -(-length // 8)


@pytest.mark.parametrize(
    ("dim", "groups", "blocks", "counts", "keys"),
    [
        (48, 3, 3, (565_710, 572_205, 581_298), 245),
        (48, 4, 3, (745_188, 751_683, 760_776), 325),
        (90, 6, 4, (4_733_724, 4_745_889, 4_762_920), 641),
    ],
)
def test_official_networks(dim: int, groups: int, blocks: int, counts: tuple[int, ...], keys: int) -> None:
    for upscale, count in zip((2, 3, 4), counts, strict=True):
        config = {**OFFICIAL, "dim": dim, "groups": groups, "blocks": blocks, "upscale": upscale}
        with torch.device("meta"):
            net = DLGSANet(**config, tlc_kernel=TLC_KERNEL[upscale])
        assert sum(value.numel() for value in net.parameters()) == count
        assert len(net.state_dict()) == keys
        assert net.tiling.fixed is not None and net.tiling.fixed % TLC_KERNEL[upscale] == 0
        found = DLGSANet.detect(net.state_dict())
        assert found is not None
        assert found.config.items() >= {**config, "tlc_kernel": TLC_KERNEL[upscale], "idynamic_num_heads": 6}.items()


@pytest.mark.parametrize(
    "config",
    [
        {**SMALL, "upscale": 3, "body_norm": True, "groups": 2},
        {**SMALL, "in_chans": 1, "window_size": 5, "idynamic_num_heads": 3, "blocks": 2},
        {**SMALL, "idynamic_ffn_expansion_factor": 2.66, "restormer_ffn_expansion_factor": 1.5},
    ],
)
def test_detects_what_it_wrote(config: dict[str, Any]) -> None:
    state = network(**config).state_dict()
    found = DLGSANet.detect(state)
    assert found is not None
    assert {"tlc_kernel" in line for line in found.assumed} == {True, False}
    same = {key: value for key, value in config.items() if key != "tlc_kernel" and "factor" not in key}
    assert found.config.items() >= same.items()
    DLGSANet(**found.config).load_state_dict(state)
    assert DLGSANet.detect({key: v for key, v in state.items() if "temperature" not in key}) is None


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"upsampler": ""}, "upsampler is ''; there is 'pixelshuffledirect'"),
        ({"idynamic_ffn_type": "BaseFFN"}, "idynamic_ffn_type is 'BaseFFN'"),
        ({"idynamic": False}, "idynamic is False"),
        ({"buildblock_type": "restormer"}, "there is 'sparseedge' or 'edge'"),
    ],
)
def test_hyperparameters_that_no_released_network_has(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DLGSANet(**{**SMALL, **config})


@pytest.mark.parametrize("kind", ["sparseedge", "edge"])
def test_batch_and_precisions(kind: str) -> None:
    net = network(**{**SMALL, "buildblock_type": kind})
    x = torch.rand(2, 3, 11, 20)
    with torch.inference_mode():
        y = net(x)
        assert y.shape == (2, 3, 44, 80)
        torch.testing.assert_close(torch.cat([net(x[:1]), net(x[1:])]), y, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(net.tail(net.features(x, Bands(rows=4))), y, rtol=0, atol=0)
        with torch.autocast("cpu", torch.bfloat16):
            assert float((net(x) - y).abs().mean()) < 0.01
        for dtype, tolerance in ((torch.float16, 0.002), (torch.bfloat16, 0.02)):
            half = network(**{**SMALL, "buildblock_type": kind}).to(dtype)(x.to(dtype))
            assert half.dtype == dtype
            assert float((half - y).abs().mean()) < tolerance


def test_tail_looks_one_pixel_around() -> None:
    net = network(**SMALL)
    with torch.inference_mode():
        maps = net.features(torch.rand(1, 3, 8, 16))
        piece = net.tail(maps[..., 3:11])[..., 4:-4]
        torch.testing.assert_close(piece, net.tail(maps)[..., 16:40], rtol=0, atol=1e-5)


def test_gradients_flow() -> None:
    net = network(**SMALL).train()
    net(torch.rand(1, 3, 12, 12)).square().mean().backward()
    assert all(value.grad is not None and bool(value.grad.any()) for value in net.parameters())
