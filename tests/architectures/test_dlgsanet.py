"""DLGSANet: the authors' results, its operators written out, and its laws."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
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
from restorekit.testing_networks import RefusalLaws, picture, run

OFFICIAL: dict[str, Any] = {"buildblock_type": "sparseedge", "upsampler": "pixelshuffledirect"}
SMALL: dict[str, Any] = {**OFFICIAL, "dim": 12, "groups": 1, "blocks": 1, "restormer_num_heads": 3, "tlc_kernel": 8}


def network(**config: Any) -> DLGSANet:
    torch.manual_seed(0)
    return DLGSANet(**config).eval()


class TestDLGSANet(RefusalLaws):
    kind = DLGSANet
    build = staticmethod(network)
    configs = (SMALL, {**SMALL, "buildblock_type": "edge"})
    others = (
        {**SMALL, "upscale": 3, "body_norm": True, "groups": 2},
        {**SMALL, "in_chans": 1, "window_size": 5, "idynamic_num_heads": 3, "blocks": 2},
        {**SMALL, "idynamic_ffn_expansion_factor": 2.66, "restormer_ffn_expansion_factor": 1.5},
    )
    published = tuple(
        ({**OFFICIAL, "dim": dim, "groups": groups, "blocks": blocks, "upscale": upscale}, count, keys)
        for dim, groups, blocks, counts, keys in (
            (48, 3, 3, (565_710, 572_205, 581_298), 245),
            (48, 4, 3, (745_188, 751_683, 760_776), 325),
            (90, 6, 4, (4_733_724, 4_745_889, 4_762_920), 641),
        )
        for upscale, count in zip((2, 3, 4), counts, strict=True)
    )
    size = (11, 20)
    autocast = 0.01
    casts = ((torch.float16, 0.002), (torch.bfloat16, 0.02))
    untold = ("buildblock_type", "activation", "tlc_kernel", "img_range")
    rounded = ("idynamic_ffn_expansion_factor", "restormer_ffn_expansion_factor")
    needs = ("temperature",)
    refused = (
        ({**SMALL, "upsampler": ""}, "upsampler is ''; there is 'pixelshuffledirect'"),
        ({**SMALL, "idynamic_ffn_type": "BaseFFN"}, "idynamic_ffn_type is 'BaseFFN'"),
        ({**SMALL, "idynamic": False}, "idynamic is False"),
        ({**SMALL, "buildblock_type": "restormer"}, "there is 'sparseedge' or 'edge'"),
    )


@pytest.mark.parametrize("name", ["DLGSANet_x2_tlc16", "DLGSANet_x4_tlc48"])
def test_results_of_the_authors(authors: Any, name: str) -> None:
    case = authors(name)
    net = DLGSANet(**case.config).eval()
    net.load_state_dict(case.weights)
    x, expected = case.tensors["input"], case.tensors["output"]
    result = run(net, x)
    torch.testing.assert_close(result, expected, rtol=0, atol=2e-5 * float(expected.std()))
    flipped = run(net, torch.cat((x.flip(3), x)))
    torch.testing.assert_close(flipped[1:], result, rtol=0, atol=2e-5 * float(result.std()))


@pytest.mark.parametrize("upscale", [2, 3, 4])
def test_what_is_assumed_is_what_is_published(upscale: int) -> None:
    with torch.device("meta"):
        net = DLGSANet(**OFFICIAL, upscale=upscale, tlc_kernel=TLC_KERNEL[upscale])
        found = DLGSANet.detect(net.state_dict())
    assert net.tiling.fixed is not None and net.tiling.fixed % TLC_KERNEL[upscale] == 0
    assert found is not None
    assert found.config.items() >= {**OFFICIAL, "tlc_kernel": TLC_KERNEL[upscale], "idynamic_num_heads": 6}.items()
    assert {"tlc_kernel" in line for line in found.assumed} == {True, False}


@pytest.mark.parametrize("kind", ["sparseedge", "edge"])
def test_bands_change_nothing(kind: str) -> None:
    net, x = network(**{**SMALL, "buildblock_type": kind}), picture(11, 20)
    with torch.inference_mode():
        assert torch.equal(net.features(x, Bands(rows=4)), net.features(x))


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
