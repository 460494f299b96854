"""DRUNet: a reference written out here, and its laws."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from restorekit import inference
from restorekit.architectures._bands import Bands
from restorekit.architectures.drunet import DRUNet
from restorekit.execution import Execution
from restorekit.testing_networks import BandLaws, RefusalLaws, tiled

RGB: dict[str, Any] = {"in_nc": 3, "out_nc": 3}
SMALL: dict[str, Any] = {**RGB, "nc": [8, 12, 16], "nb": 1}
SHAPES: list[dict[str, Any]] = [
    SMALL,
    {**RGB, "nc": [8, 12], "nb": 2},
    {"in_nc": 1, "out_nc": 1, "nc": [4, 6, 8, 10], "nb": 1},
    {**RGB, "nc": [4, 4, 6, 6, 8], "nb": 1},
]


def network(**config: Any) -> DRUNet:
    """With weights that make every level matter to the result."""
    torch.manual_seed(0)
    net = DRUNet(**config).eval()
    with torch.no_grad():
        for key, value in net.named_parameters():
            if "res" not in key:
                value.mul_(2)
    return net


class TestDRUNet(BandLaws, RefusalLaws):
    kind = DRUNet
    build = staticmethod(network)
    configs = tuple(SHAPES)
    published = (
        (RGB, 32_640_384, 64),
        ({"in_nc": 1, "out_nc": 1}, 32_638_080, 64),
        ({**RGB, "nc": [32, 64, 128], "nb": 2}, 1_042_112, 26),
        ({**RGB, "nc": [64, 128, 256, 512], "nb": 4}, 32_640_384, 64),
    )
    """That for colour takes a map of the noise besides as published: 576 more, which makes 32.6 million."""
    size = (16, 32)
    autocast = 0.01
    casts = ((torch.bfloat16, 0.02),)
    untold = ("act_mode",)
    needs = ("^m_up1.0.weight",)
    dtype = torch.float64  # which kernels of convolutions round alike differs from processor to processor
    tall, rows, band_tolerance = ((416, 16),), (1,), 1e-6
    refused = (
        ({"in_nc": 4, "out_nc": 3}, "in_nc is 4 and out_nc 3; those that take a map of the noise"),
        ({"nc": [8]}, "nc has 1 levels"),
        ({"nc": [8] * 6}, "nc has 6 levels"),
        ({"nb": 0}, "nb is 0"),
        ({"act_mode": "E"}, "act_mode is 'E'"),
        ({"downsample_mode": "avgpool"}, "downsample_mode is 'avgpool'"),
        ({"upsample_mode": "upconv"}, "upsample_mode is 'upconv'"),
    )


def reference(w: dict[str, Tensor], x: Tensor, levels: int, slope: float) -> Tensor:
    """The network written out; sizes change by matrix products of 2x2 px."""

    def conv(key: str, y: Tensor) -> Tensor:
        return F.conv2d(y, w[f"{key}.weight"], padding=1)

    def block(key: str, y: Tensor) -> Tensor:
        return y + conv(f"{key}.res.2", F.leaky_relu(conv(f"{key}.res.0", y), slope))

    def blocks(key: str, y: Tensor, first: int = 0) -> Tensor:
        if f"{key}.res.0.weight" in w:
            return block(key, y)
        while f"{key}.{first}.res.0.weight" in w:
            y, first = block(f"{key}.{first}", y), first + 1
        return y

    def down(level: int, y: Tensor) -> Tensor:
        y = blocks(f"m_down{level}", y)
        weight = next(v for k, v in w.items() if k.startswith(f"m_down{level}.") and "res" not in k)
        return torch.einsum("bcyixj,ocij->boyx", y.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)), weight)

    def up(level: int, y: Tensor) -> Tensor:
        y = torch.einsum("bcyx,coij->boyixj", y, w[f"m_up{level}.0.weight"]).flatten(4).flatten(2, 3)
        return blocks(f"m_up{level}", y, first=1)

    def inside(level: int, y: Tensor) -> Tensor:
        return up(level, inside(level + 1, down(level, y))) + y if level < levels else blocks("m_body", y) + y

    return conv("m_tail", inside(1, conv("m_head", x)))


@pytest.mark.parametrize("config", [*SHAPES, {**SMALL, "nb": 2, "act_mode": "L"}])
def test_equals_the_network_written_out(config: dict[str, Any]) -> None:
    net = network(**config)
    grid = net.tiling.grid
    assert grid == 2 ** (len(config["nc"]) - 1)
    x = torch.rand(2, config["in_nc"], 2 * grid, 3 * grid)
    expected = reference(dict(net.state_dict()), x, len(config["nc"]), 0.2 if "act_mode" in config else 0.0)
    with torch.inference_mode():
        torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-5)


def test_names_are_those_of_the_authors() -> None:
    named = {"m_head.weight", "m_down1.0.res.0.weight", "m_down1.0.res.2.weight", "m_tail.weight"}
    assert named < set(network(**SMALL).state_dict())


@pytest.mark.parametrize("config", SHAPES)
def test_other_weights_are_not_taken_for_it(config: dict[str, Any]) -> None:
    state = network(**config).state_dict()
    noise_map = torch.empty(config["nc"][0], config["in_nc"] + 1, 3, 3)
    assert DRUNet.detect({**state, "m_head.weight": noise_map}) is None
    assert DRUNet.detect({**state, "m_tail.bias": torch.zeros(3)}) is None
    assert DRUNet.detect({**state, "m_up1.0.weight": torch.zeros(12, 8, 3, 3)}) is None


@pytest.mark.parametrize("config", SHAPES)
def test_operators_are_entering_leaving_and_what_lies_between(config: dict[str, Any]) -> None:
    begun: list[float] = []
    with torch.inference_mode():
        network(**config).features(torch.rand(1, config["in_nc"], 416, 16), Bands(rows=1, checkpoint=begun.append))
    assert begun.count(0.0) == 2 * len(config["nc"]) - 1


def test_bands_make_the_whole_under_autocast() -> None:
    net, x = network(**SMALL), torch.rand(2, 3, 64, 20)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(net.features(x, Bands(rows=1)), net(x), rtol=0, atol=1e-2)


@pytest.mark.parametrize(("tile", "mode"), [("auto", "exact"), (24, "tiles")])
def test_large_pictures_have_no_seam(tile: Any, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "WHOLE_BYTES", 0)
    net, picture = network(**SMALL), torch.rand(3, 187, 110)
    execution = Execution(tile=tile)
    made = tiled(net, picture, execution)
    assert execution.mode == mode and (mode == "exact" or execution.tiles > 2)
    torch.testing.assert_close(made, tiled(net, picture, Execution(tile="off")), rtol=0, atol=1e-5)


def test_with_half_the_halo_there_would_be_seams() -> None:
    net, picture = network(**SMALL), torch.rand(3, 187, 110)
    net.tiling = replace(net.tiling, halo=net.tiling.halo // 2)
    difference = tiled(net, picture, Execution(tile=24)) - tiled(net, picture, Execution(tile="off"))
    assert float(difference.abs().max()) > 1e-4


@pytest.mark.parametrize("config", SHAPES[:3])
def test_halo_is_just_how_far_it_looks(config: dict[str, Any]) -> None:
    net = DRUNet(**config).eval()
    with torch.no_grad():
        for value in net.parameters():
            value.fill_(1 / value[0].numel())
    halo, grid = net.tiling.halo, net.tiling.grid
    width = -(-2 * (halo + grid) // grid) * grid
    middle = width // 2
    x = torch.zeros(grid, config["in_nc"], grid, width, dtype=torch.float64)
    for place in range(grid):
        x[place, ..., middle + place] = 1
    with torch.inference_mode():
        changed = net.double()(x).amax((1, 2)) > 0
    looks = [
        (middle + place - changed[place].nonzero().min(), changed[place].nonzero().max() - middle - place)
        for place in range(grid)
    ]
    assert max(max(int(left), int(right)) for left, right in looks) == halo


def test_grids_of_tiles_do_not_matter() -> None:
    net = network(**SMALL)
    x = torch.rand(1, 3, 8, 96)
    grid, halo = net.tiling.grid, net.tiling.halo
    with torch.inference_mode():
        whole, moved, astray = net(x), net(x[..., grid:]), net(x[..., 1:-3])
    torch.testing.assert_close(moved[..., halo:], whole[..., grid + halo :], rtol=0, atol=1e-6)
    assert float((astray[..., halo : 64 - halo] - whole[..., 1 + halo : 65 - halo]).abs().max()) > 1e-3


@pytest.mark.parametrize("factor", [0.25, 3.0])
def test_is_homogeneous(factor: float) -> None:
    net = network(**SMALL)
    x = torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(net(factor * x), factor * net(x), rtol=0, atol=1e-5)
        assert not torch.allclose(net(-x), -net(x), atol=1e-3), "it is not linear"


def test_first_and_last_convolution_are_precise_under_autocast() -> None:
    """Where the middle gives nothing, what is left is the picture through these two."""
    net = network(**SMALL)
    with torch.no_grad():
        for key, value in net.named_parameters():
            if key.startswith("m_up1.0"):
                value.zero_()
    x = torch.rand(1, 3, 16, 16)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        made = net(x)
    with torch.inference_mode():
        torch.testing.assert_close(made, net.m_tail(net.m_head(x)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("act_mode", ["R", "L"])
def test_gradients_are_right(act_mode: str) -> None:
    net = network(**{**SMALL, "nc": [4, 5, 6]}, act_mode=act_mode).double().train()
    x = torch.rand(1, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(net, (x,), eps=1e-7, atol=1e-5, fast_mode=True)
    weights = {key: value.detach() for key, value in net.named_parameters()}
    net(x).square().sum().backward()
    grads = {key: value.grad for key, value in net.named_parameters()}
    leaves = {key: value.clone().requires_grad_() for key, value in weights.items()}
    reference(leaves, x, 3, 0.2 if act_mode == "L" else 0.0).square().sum().backward()
    for key, grad in grads.items():
        assert grad is not None and bool(grad.any())
        torch.testing.assert_close(grad, leaves[key].grad)
