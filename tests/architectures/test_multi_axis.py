"""MLPs over two axes of a map, written out here token by token, and what mixes with what."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorekit.architectures import _multi_axis
from restorekit.architectures._multi_axis import CrossGating, GatedMlps, Sizes, enlarged, gelu, in_pieces, joined

SIZES = Sizes((2, 3), (4, 2))
"""Of maps of 8 x 12 px: cells of 4 x 4 px, and 2 x 6 blocks."""


def random(module: nn.Module) -> nn.Module:
    """With weights that all matter."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, value in module.named_parameters():
            value.normal_(1.0 if "norm" in name.lower() and "weight" in name else 0.0, 0.5)
    return module


def at_once_and_in_pieces(module: nn.Module, *maps: Tensor, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What a module gives with gradients, without, and in pieces as small as can be."""
    made = [module(*maps).detach()]
    with torch.no_grad():
        made.append(module(*maps))
        monkeypatch.setattr(_multi_axis, "CHUNK", 1)
        made.append(module(*maps))
    return made


def mixed_over_grid(maps: Tensor, layer: nn.Linear) -> Tensor:
    """Each output px is a sum over the px at its place in all cells."""
    result = torch.empty_like(maps)
    rows, columns = SIZES.grid
    height, width = maps.shape[1] // rows, maps.shape[2] // columns
    for y in range(height):
        for x in range(width):
            places = [(i * height + y, j * width + x) for i in range(rows) for j in range(columns)]
            for token, (top, left) in enumerate(places):
                pixels = [maps[:, a, b] * layer.weight[token, k] for k, (a, b) in enumerate(places)]
                result[:, top, left] = torch.stack(pixels).sum(0) + layer.bias[token]
    return result


def mixed_in_blocks(maps: Tensor, layer: nn.Linear) -> Tensor:
    """Each output px is a sum over the px of its block."""
    result = torch.empty_like(maps)
    rows, columns = SIZES.block
    for top in range(0, maps.shape[1], rows):
        for left in range(0, maps.shape[2], columns):
            places = [(top + i, left + j) for i in range(rows) for j in range(columns)]
            for token, (y, x) in enumerate(places):
                pixels = [maps[:, a, b] * layer.weight[token, k] for k, (a, b) in enumerate(places)]
                result[:, y, x] = torch.stack(pixels).sum(0) + layer.bias[token]
    return result


MIXED = {"Grid": mixed_over_grid, "Block": mixed_in_blocks}


def tanh_gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3)))


def test_gated_mlps_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    net = random(GatedMlps(4, SIZES, 2, 2, 2, bias=True))
    x = torch.randn(2, 8, 12, 4)
    shares = []
    for name, hidden in zip(MIXED, tanh_gelu(net.in_project(net.LayerNorm_in(x))).chunk(2, -1), strict=True):
        mlp = getattr(net, f"{name}GmlpLayer")
        unit = getattr(mlp, f"{name}GatingUnit")
        u, v = tanh_gelu(mlp.in_project(mlp.LayerNorm(hidden))).chunk(2, -1)
        shares.append(hidden + mlp.out_project(u * (MIXED[name](unit.intermediate_layernorm(v), unit.Dense_0) + 1)))
    expected = x + net.out_project(torch.cat(shares, -1))
    for made in at_once_and_in_pieces(net, x, monkeypatch=monkeypatch):
        torch.testing.assert_close(made, expected.detach(), atol=1e-5, rtol=1e-5)


def test_cross_gating_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    net = random(CrossGating(4, SIZES, 2, True, 6, 5))
    parts, below = torch.randn(2, 8, 12, 6), torch.randn(2, 4, 6, 5)
    x = net.Conv_0(parts.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    y = net.Conv_1(net.ConvTranspose_0(below.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)

    def gates(layer: nn.Module, maps: Tensor) -> Tensor:
        u, v = tanh_gelu(layer.in_project(layer.LayerNorm_in(maps))).chunk(2, -1)
        both = mixed_over_grid(u, layer.Dense_0), mixed_in_blocks(v, layer.Dense_1)
        return layer.out_project(torch.cat(both, -1))

    own = tanh_gelu(net.in_project_x(net.LayerNorm_x(x)))
    gate = tanh_gelu(net.in_project_y(net.LayerNorm_y(y)))
    second = y + net.out_project_y(gate * gates(net.SplitHeadMultiAxisGating_x, own))
    first = x + net.out_project_x(own * gates(net.SplitHeadMultiAxisGating_y, gate)) + second
    for index, expected in enumerate((first, second)):
        picked = _Picked(net, index)
        for made in at_once_and_in_pieces(picked, x.detach(), below, monkeypatch=monkeypatch):
            torch.testing.assert_close(made, expected.detach(), atol=2e-5, rtol=1e-5)


class _Picked(nn.Module):
    """One of the results."""

    def __init__(self, module: nn.Module, index: int) -> None:
        super().__init__()
        self.module, self.index = module, index

    def forward(self, *maps: Tensor) -> Tensor:
        result: Tensor = self.module(*maps)[self.index]
        return result


def test_a_pixel_is_mixed_with_its_grid_and_its_block_alone() -> None:
    net = random(GatedMlps(4, SIZES, 2, 2, 2, bias=True))
    x = torch.randn(1, 8, 12, 4)
    other = x.clone()
    other[0, 5, 7] += torch.randn(4)
    with torch.no_grad():
        changed = (net(x) - net(other)).abs().amax(-1)[0] > 1e-6
    expected = torch.zeros(8, 12, dtype=torch.bool)
    expected[1::4, 3::4] = True
    expected[4:8, 6:8] = True
    assert torch.equal(changed, expected)


@pytest.mark.parametrize("axis", ["grid", "block"])
def test_cells_are_put_together_again(axis: _multi_axis.Axis) -> None:
    x = torch.randn(2, 8, 12, 3)
    cells = SIZES.cells(x, axis)
    assert cells.shape == ((2, 2, 4, 3, 4, 3) if axis == "grid" else (2, 2, 4, 6, 2, 3))
    assert torch.equal(joined(cells), x)
    tokens = cells.permute(_multi_axis.TO_TOKENS[axis])
    assert tokens.shape[1:3] == torch.Size(SIZES.grid if axis == "grid" else SIZES.block)
    assert torch.equal(tokens.permute(_multi_axis.FROM_TOKENS[axis]), cells)


def test_sizes_say_what_sides_are_multiples_of() -> None:
    assert SIZES.multiple == 12 and Sizes((16, 16), (16, 16)).multiple == 16


def test_both_ways_to_gelu_are_one() -> None:
    x = torch.linspace(-30, 30, 10001)
    expected = F.gelu(x.double(), approximate="tanh")
    with torch.no_grad():
        torch.testing.assert_close(gelu(x).double(), expected, atol=2e-6, rtol=1e-5)
    with torch.enable_grad():
        torch.testing.assert_close(gelu(x).double(), expected, atol=2e-6, rtol=1e-5)
        assert torch.equal(gelu(x), F.gelu(x, approximate="tanh"))
    assert torch.equal(x, torch.linspace(-30, 30, 10001)), "the input stays as it was"


def test_pieces_are_added_onto_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    x, there = torch.randn(1, 5, 4, 2), torch.randn(1, 5, 4, 2)
    monkeypatch.setattr(_multi_axis, "CHUNK", 16)
    with torch.no_grad():
        calls: list[Tensor] = []

        def double(maps: Tensor) -> Tensor:
            calls.append(maps)
            return 2 * maps

        assert torch.equal(in_pieces(double, x, dim=1), 2 * x)
        assert [len(piece[0]) for piece in calls] == [2, 2, 1]
        torch.testing.assert_close(in_pieces(double, x, dim=1, onto=there.clone()), there + 2 * x)
    torch.testing.assert_close(in_pieces(double, x, dim=1, onto=there), there + 2 * x)


@pytest.mark.parametrize("bias", [True, False])
def test_enlarging_and_a_1x1_convolution_are_one_layer(bias: bool) -> None:
    torch.manual_seed(0)
    layer, after = nn.ConvTranspose2d(5, 4, 2, stride=2, bias=bias), nn.Conv2d(4, 3, 1, bias=bias)
    x = torch.randn(2, 3, 4, 5)
    expected = after(layer(x.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
    made = enlarged(x, layer, after.weight.flatten(1), after.bias)
    torch.testing.assert_close(made, expected, atol=1e-6, rtol=1e-5)
