"""What networks share to convolve maps and to end a picture."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from restorekit.architectures import create
from restorekit.architectures._maps import convolve, mean_color, precise, residual_convolution
from restorekit.architectures._network import Network

NETWORKS: dict[str, dict[str, Any]] = {
    "hat": {"embed_dim": 12, "depths": [1], "num_heads": [2], "window_size": 4, "squeeze_factor": 6},
    "drct": {"embed_dim": 12, "depths": [6], "num_heads": [2], "window_size": 4, "gc": 4},
    "rgt": {"embed_dim": 32, "depth": [1], "num_heads": [2]},
    "craft": {"embed_dim": 32, "depths": [1], "num_heads": [2]},
    "dlgsanet": {"dim": 12, "groups": 1, "blocks": 1, "upsampler": "pixelshuffledirect"},
    "cfsr": {"embed_dim": 8, "depths": [1], "upsampler": "pixelshuffledirect"},
    "cfsr, its size kept": {"embed_dim": 8, "depths": [1]},
    "rlfn": {"feature_channels": 8, "blocks": 1},
    "espcn": {"variant": "lornatang", "upscale_factor": 2},
    "espcn, leftthomas": {"variant": "leftthomas", "upscale_factor": 2},
    "espcn, yjn870": {"variant": "yjn870", "scale_factor": 2},
    "wavemixsr": {"depth": 1},
    "wavemixsr_v2": {"sr": 2},
}


def network(name: str) -> Network:
    """With fresh weights."""
    torch.manual_seed(0)
    return create(name.split(",")[0], **NETWORKS[name]).eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_mixed_precision_keeps_a_ramp_smooth(name: str) -> None:
    """The pixels of bfloat16 itself would have 128 levels an octave."""
    net = network(name)
    x = torch.linspace(0.25, 0.75, 256).expand(1, net.in_channels, 32, 256).contiguous()
    with torch.inference_mode():
        exact = net(x)
        with torch.autocast("cpu", torch.bfloat16):
            y = net(x)
    assert y.dtype == torch.float32
    levels, wanted = y[:, :1].unique().numel(), exact[:, :1].unique().numel()
    assert levels > max(1000, 0.75 * wanted)
    assert float((y - exact).abs().mean()) < 0.02 * float(exact.std())


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_of_half_precision_end_in_it(name: str) -> None:
    net = network(name).bfloat16()
    x = torch.rand(1, net.in_channels, 32, 32).bfloat16()
    with torch.inference_mode():
        y = net(x)
        with torch.autocast("cpu", torch.bfloat16):
            assert net(x).dtype == torch.bfloat16
    assert y.dtype == torch.bfloat16 and bool(y.isfinite().all())


def test_a_precise_layer_computes_in_the_type_of_its_weights() -> None:
    layer = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.PixelShuffle(2))
    maps = torch.rand(1, 2, 5, 6).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(maps).dtype == torch.bfloat16
        made = precise(layer, maps)
    assert torch.equal(made, layer(maps.float()))
    assert precise(layer.double(), maps).dtype == torch.float64


def test_maps_are_convolved_as_pictures_are() -> None:
    convolution, maps = nn.Conv2d(3, 5, 3, padding=1), torch.rand(2, 6, 7, 3)
    expected = convolution(maps.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    assert torch.equal(convolve(convolution, maps), expected)


def test_only_rgb_has_a_mean_colour() -> None:
    like = torch.empty(0, dtype=torch.float64)
    assert mean_color(like, 3).dtype == torch.float64 and mean_color(like, 3).min() > 0.4
    assert torch.equal(mean_color(like, 1), torch.zeros(1, dtype=torch.float64))


def test_residual_convolutions() -> None:
    maps = torch.rand(1, 4, 5, 6)
    assert residual_convolution("1conv", 4)(maps).shape == maps.shape
    assert residual_convolution("identity", 4)(maps) is maps
    with pytest.raises(ValueError, match="resi_connection is '3conv'"):
        residual_convolution("3conv", 4)
