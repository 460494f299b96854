"""WaveMixSR and WaveMixSR-V2: the authors' results, a reference written out here, and their laws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorekit.architectures._network import Network
from restorekit.architectures.wavemixsr import WaveMixSR, WaveMixSRV2, haar
from restorekit.testing_networks import RefusalLaws, run

SMALL: list[tuple[type[Network], dict[str, Any]]] = [
    (WaveMixSR, {"depth": 4, "mult": 1, "ff_channel": 12, "final_dim": 8}),
    (WaveMixSR, {"depth": 1, "mult": 2, "ff_channel": 8, "final_dim": 16, "upsample": "bilinear"}),
    (WaveMixSR, {"depth": 2, "mult": 1, "ff_channel": 8, "final_dim": 8, "scale": 3}),
    (WaveMixSR, {"depth": 2, "mult": 1, "ff_channel": 8, "final_dim": 8, "scale": 4}),
    (WaveMixSRV2, {"sr": 2, "blocks": 3, "mult": 2, "final_dim": 8}),
    (WaveMixSRV2, {"sr": 4, "blocks": 2, "mult": 1, "final_dim": 8, "upsample": "bilinear"}),
]


def network(cls: type[Network], config: dict[str, Any]) -> Network:
    """With statistics of the batch normalisation that matter."""
    torch.manual_seed(0)
    net = cls(**config).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.02, 0.1)
    return net


class TestWaveMixSR(RefusalLaws):
    kind = WaveMixSR
    configs = tuple(config for cls, config in SMALL if cls is WaveMixSR)
    published = (({"depth": 4, "mult": 1, "ff_channel": 144, "final_dim": 144}, 1_704_385, 60),)
    size = (8, 12)
    dtype = torch.float64
    untold = ("upsample", "scale")
    refused = (({"depth": 1, "final_dim": 10}, "final_dim is 10; it is a multiple of 4"),)

    def build(self, **config: Any) -> Network:
        return network(self.kind, config)


class TestWaveMixSRV2(TestWaveMixSR):
    kind = WaveMixSRV2
    configs = tuple(config for cls, config in SMALL if cls is WaveMixSRV2)
    published = (
        ({"sr": 2, "blocks": 2, "mult": 1, "final_dim": 144}, 375_769, None),
        ({"sr": 4, "blocks": 2, "mult": 1, "final_dim": 144}, 751_538, None),
    )
    untold = ("upsample",)
    refused = (({"sr": 6}, "sr is 6; it is a power of 2"),)


def convolve(w: dict[str, Tensor], key: str, x: Tensor) -> Tensor:
    weight = w[f"{key}.weight"]
    return F.conv2d(x, weight, w[f"{key}.bias"], padding=weight.shape[-1] // 2)


def enlarge(w: dict[str, Tensor], prefix: str, x: Tensor, scale: int, mode: str) -> Tensor:
    """One step of either network, with the Haar transform as a strided convolution."""
    large = F.interpolate(x, scale_factor=scale, mode=mode, align_corners=False)
    y = convolve(w, f"{prefix}path1.2", convolve(w, f"{prefix}path1.1", large[:, :1]))
    signs = torch.tensor([[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]]) / 2
    index = 0
    while f"{prefix}layers.{index}.reduction.weight" in w:
        layer = f"{prefix}layers.{index}"
        r = convolve(w, f"{layer}.reduction", y)
        c = r.shape[1]
        t = F.conv2d(r, signs.view(4, 1, 2, 2).repeat(c, 1, 1, 1), stride=2, groups=c)
        order = [4 * i for i in range(c)] + [4 * i + j for i in range(c) for j in (1, 2, 3)]
        t = convolve(w, f"{layer}.feedforward.3", F.gelu(convolve(w, f"{layer}.feedforward.0", t[:, order])))
        if f"{layer}.feedforward.6.weight" in w:
            t, last = convolve(w, f"{layer}.feedforward.5", F.pixel_shuffle(t, 2)), f"{layer}.feedforward.6"
        else:
            key, last = f"{layer}.feedforward.4", f"{layer}.feedforward.5"
            t = F.conv_transpose2d(t, w[f"{key}.weight"], w[f"{key}.bias"], stride=2, padding=1)
        mean, variance = w[f"{last}.running_mean"], w[f"{last}.running_var"]
        y = y + F.batch_norm(t, mean, variance, w[f"{last}.weight"], w[f"{last}.bias"])
        index += 1
    return torch.cat((convolve(w, f"{prefix}final.1", convolve(w, f"{prefix}final.0", y)), large[:, 1:]), 1)


@pytest.mark.parametrize("name", ["WaveMixSR_x2", "WaveMixSR_x2_bilinear"])
def test_results_of_the_authors(authors: Any, name: str) -> None:
    case = authors(name)
    net = WaveMixSR(**case.config, upsample=case.facts.get("upsample", "bicubic")).eval()
    net.load_state_dict(case.weights)
    torch.testing.assert_close(run(net, case.tensors["input"]), case.tensors["output"], rtol=0, atol=1e-5)


def test_the_published_network_looks_8_px_around() -> None:
    with torch.device("meta"):
        net = WaveMixSR(depth=4, mult=1, ff_channel=144, final_dim=144)
    assert net.tail_halo == net.tiling.halo == 8


@pytest.mark.parametrize(("cls", "config"), SMALL)
def test_weights_of_the_other_are_not_taken_for_it(cls: type[Network], config: dict[str, Any]) -> None:
    other = WaveMixSRV2 if cls is WaveMixSR else WaveMixSR
    assert other.detect(network(cls, config).state_dict()) is None


def test_haar() -> None:
    x = torch.arange(8.0).view(1, 2, 2, 2)
    assert haar(x).flatten().tolist() == [3, 11, -2, -1, 0, -2, -1, 0]
    noise = torch.randn(2, 3, 6, 10)
    torch.testing.assert_close(haar(noise).square().sum(), noise.square().sum())


@pytest.mark.parametrize(("cls", "config"), SMALL)
def test_equals_the_network_written_out(cls: type[Network], config: dict[str, Any]) -> None:
    net = network(cls, config)
    state, mode = net.state_dict(), config.get("upsample", "bicubic")
    x = expected = torch.rand(2, 3, 10, 14)
    if cls is WaveMixSR:
        expected = enlarge(state, "", x, net.scale, mode)
    else:
        for step in range(net.scale.bit_length() - 1):
            expected = enlarge(state, f"SR_blocks.{step}.", expected, 2, mode)
    with torch.inference_mode():
        assert net(x).shape == (2, 3, 10 * net.scale, 14 * net.scale)
        torch.testing.assert_close(net(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("cls", "config"), SMALL)
def test_a_piece_gives_what_the_whole_gives(cls: type[Network], config: dict[str, Any]) -> None:
    net = network(cls, config)
    s, grid = net.scale, net.tiling.grid
    margin = -(-net.tail_halo // grid) * grid
    x = torch.rand(1, 3, 12, 4 * margin + 16)
    left = margin + grid * 3
    with torch.inference_mode():
        whole = net(x)[..., left * s : (left + 6) * s]
        piece = net.tail(x[..., left - margin : left + 6 + margin])[..., margin * s : (margin + 6) * s]
        torch.testing.assert_close(piece, whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("cls", "config"), SMALL)
def test_the_halo_is_what_the_network_looks_at(cls: type[Network], config: dict[str, Any]) -> None:
    net = network(cls, config)
    s, middle = net.scale, 24
    x = torch.rand(1, 3, 6, 2 * middle, requires_grad=True)
    net(x)[..., middle * s : (middle + 2) * s].sum().backward()
    assert x.grad is not None
    columns = x.grad.abs().amax((0, 1, 2)).nonzero().flatten()
    reach = max(middle - int(columns[0]), int(columns[-1]) - middle - 1)
    assert net.tail_halo - 1 <= reach <= net.tail_halo
