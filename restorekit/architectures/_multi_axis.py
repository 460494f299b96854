"""MLPs over two axes of a map: half of the channels mix pixels a grid apart, half those within a block.

Tu et al., "MAXIM: Multi-Axis MLP for Image Processing", CVPR 2022, after Liu, Dai, So, Le, "Pay Attention to MLPs"
(gMLP), NeurIPS 2021. Maps are ``[B,H,W,C]``. Names of layers are those of https://github.com/google-research/maxim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import lcm, prod
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorekit.architectures._maps import convolve, pointwise

CHUNK = 1 << 18
"""Values of a map that a CPU works on at once, so that what it computes between stays in its cache."""

GELU = 1.5957691216057308
"""Twice the square root of 2 / pi."""

Axis = Literal["grid", "block"]
Layer = TypeVar("Layer", nn.Conv2d, nn.ConvTranspose2d, nn.Linear)

ROWS: dict[Axis, int] = {"grid": 2, "block": 1}
"""The dimension of cells along which nothing mixes, so that they can be worked on piece by piece."""

TO_TOKENS: dict[Axis, tuple[int, ...]] = {"grid": (0, 1, 3, 2, 4, 5), "block": (0, 2, 4, 1, 3, 5)}
FROM_TOKENS: dict[Axis, tuple[int, ...]] = {"grid": (0, 1, 3, 2, 4, 5), "block": (0, 3, 1, 4, 2, 5)}
"""Orders of the dimensions of cells: in front, the two that mix, and back."""


@dataclass(frozen=True)
class Sizes:
    """Rows and columns of the grid, in cells, and of a block, in px."""

    grid: Sequence[int]
    block: Sequence[int]

    @property
    def multiple(self) -> int:
        """What both sides of a map are multiples of."""
        return lcm(*self.grid, *self.block)

    def cells(self, maps: Tensor, axis: Axis) -> Tensor:
        """``[B,h,fh,w,fw,C]``: h x w cells of the grid, or blocks of fh x fw px. A view."""
        if axis == "grid":
            return torch.unflatten(torch.unflatten(maps, 2, (self.grid[1], -1)), 1, (self.grid[0], -1))
        return torch.unflatten(torch.unflatten(maps, 2, (-1, self.block[1])), 1, (-1, self.block[0]))


def joined(cells: Tensor) -> Tensor:
    """The map of cells."""
    return cells.flatten(3, 4).flatten(1, 2)


def in_pieces(operator: Callable[..., Tensor], *maps: Tensor, dim: int = 1, onto: Tensor | None = None) -> Tensor:
    """The result of an operator for which positions along a dimension do not matter to each other.

    It is added to ``onto``, which may be written over. A CPU that keeps no gradients works piece by piece.
    """
    if _at_once(maps[0]):
        made = operator(*maps)
        return made if onto is None else onto + made
    length = maps[0].shape[dim]
    step = max(1, CHUNK * length // maps[0].numel())
    result = onto
    for start in range(0, length, step):
        made = operator(*(each.narrow(dim, start, min(step, length - start)) for each in maps))
        if result is None:
            result = made.new_empty([*made.shape[:dim], length, *made.shape[dim + 1 :]])
        place = result.narrow(dim, start, made.shape[dim])
        if onto is None:
            place.copy_(made)
        else:
            place.add_(made)
    assert result is not None
    return result


def _at_once(maps: Tensor) -> bool:
    """Whether a map is computed with gradients, or not on a CPU; else there are faster ways."""
    return torch.is_grad_enabled() or maps.device.type != "cpu"


def gelu(maps: Tensor) -> Tensor:
    """GELU in its approximation by tanh, which is that of JAX."""
    if _at_once(maps) or maps.dtype != torch.float32:
        return F.gelu(maps, approximate="tanh")
    # 1 + tanh(z) is 2 sigmoid(2 z), which torch computes in less than half the time.
    slope = maps.new_full((), GELU)
    return torch.addcmul(slope, maps, maps, value=0.044715 * GELU).mul_(maps).sigmoid_().mul_(maps)


def norm(channels: int) -> nn.LayerNorm:
    """With the epsilon of flax."""
    return nn.LayerNorm(channels, eps=1e-6)


def convolution(given: int, channels: int, side: int, bias: bool) -> nn.Conv2d:
    return started(nn.Conv2d(given, channels, side, padding=side // 2, bias=bias), (given * side**2) ** -0.5)


def enlarging(given: int, channels: int, bias: bool) -> nn.ConvTranspose2d:
    return started(nn.ConvTranspose2d(given, channels, 2, stride=2, bias=bias), (given * 4) ** -0.5)


def dense(given: int, channels: int, bias: bool, std: float = 0.02, start: float = 0.0) -> nn.Linear:
    return started(nn.Linear(given, channels, bias=bias), std, start)


def started(layer: Layer, std: float, bias: float = 0.0) -> Layer:
    """A layer with the weights that the authors begin with: normal, within two deviations."""
    nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
    if layer.bias is not None:
        nn.init.constant_(layer.bias, bias)
    return layer


def mixed(dense: nn.Linear, tokens: Tensor) -> Tensor:
    """Tokens ``[B,n,m,C]`` through a layer that mixes the n of them."""
    flat = tokens.flatten(2)
    weight = dense.weight.expand(len(flat), -1, -1)
    made = torch.bmm(weight, flat) if dense.bias is None else torch.baddbmm(dense.bias[:, None], weight, flat)
    return made.view_as(tokens)


def side_by_side(convolution: nn.Conv2d, *maps: Tensor) -> Tensor:
    """A 1x1 convolution of the channels of all these maps."""
    return in_pieces(lambda *pieces: pointwise(convolution, torch.cat(pieces, -1)), *maps)


def enlarged(maps: Tensor, layer: nn.ConvTranspose2d, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Maps at twice the size, then times ``weight`` ``[D,C]``: as one layer, which both of them are."""
    kernel = torch.einsum("ncyx,dc->ndyx", layer.weight, weight)
    if layer.bias is not None:
        bias = weight @ layer.bias if bias is None else weight @ layer.bias + bias
    return convolve(lambda given: F.conv_transpose2d(given, kernel, bias, stride=2), maps)


class _TwoAxes(nn.Module):
    """``[B,H,W,C]`` to the same shape; what is done to tokens ``[B,n,m,C]`` of an axis is left to the classes below."""

    shortcut = False

    def __init__(self, dim: int, sizes: Sizes, factor: int, bias: bool, std: float = 0.02) -> None:
        super().__init__()
        if dim * factor % 2:
            raise ValueError(f"{dim} channels times {factor} are shared by two axes; that takes an even number")
        self.sizes = sizes
        self.each = dim * factor // 2
        self.LayerNorm_in = norm(dim)
        self.in_project = dense(dim, dim * factor, bias, std)
        self.out_project = dense(dim * factor, dim, bias, std)

    def forward(self, maps: Tensor) -> Tensor:
        cells = self.sizes.cells
        made = joined(in_pieces(partial(self._axis, "grid"), cells(maps, "grid"), dim=ROWS["grid"]))
        operator = partial(self._axis, "block")
        return joined(in_pieces(operator, cells(maps, "block"), dim=ROWS["block"], onto=cells(made, "block")))

    def _axis(self, axis: Axis, cells: Tensor) -> Tensor:
        """What an axis adds to the result; shortcut and bias come with the first one."""
        first = axis == "grid"
        own = slice(self.each) if first else slice(self.each, None)
        ordered = cells.permute(TO_TOKENS[axis])
        tokens = ordered.flatten(3, 4).flatten(1, 2)
        into, out = self.in_project, self.out_project
        bias = None if into.bias is None else into.bias[own]
        made = self.mix(axis, gelu(F.linear(self.LayerNorm_in(tokens), into.weight[own], bias)))
        made = F.linear(made, out.weight[:, own], out.bias if first else None)
        if first and self.shortcut:
            made = made + tokens
        return made.view(ordered.shape).permute(FROM_TOKENS[axis])

    def mix(self, axis: Axis, tokens: Tensor) -> Tensor:
        raise NotImplementedError


class GatedMlps(_TwoAxes):
    """A gated MLP for each axis, and a shortcut past both."""

    shortcut = True

    def __init__(self, dim: int, sizes: Sizes, factor: int, grid_factor: int, block_factor: int, bias: bool) -> None:
        super().__init__(dim, sizes, factor, bias)
        self.GridGmlpLayer = _GatedMlp(self.each, prod(sizes.grid), grid_factor, bias, "GridGatingUnit")
        self.BlockGmlpLayer = _GatedMlp(self.each, prod(sizes.block), block_factor, bias, "BlockGatingUnit")

    def mix(self, axis: Axis, tokens: Tensor) -> Tensor:
        result: Tensor = (self.GridGmlpLayer if axis == "grid" else self.BlockGmlpLayer)(tokens)
        return result


class _GatedMlp(nn.Module):
    """Tokens ``[B,n,m,C]`` to the same shape."""

    def __init__(self, dim: int, tokens: int, factor: int, bias: bool, unit: str) -> None:
        super().__init__()
        if dim * factor % 2:
            raise ValueError(f"{dim} channels times {factor} gate each other; that takes an even number")
        self.unit = unit
        self.LayerNorm = norm(dim)
        self.in_project = dense(dim, dim * factor, bias)
        self.add_module(unit, _GatingUnit(dim * factor // 2, tokens, bias))
        self.out_project = dense(dim * factor // 2, dim, bias)

    def forward(self, tokens: Tensor) -> Tensor:
        gated = self.get_submodule(self.unit)(gelu(self.in_project(self.LayerNorm(tokens))))
        return tokens + self.out_project(gated)  # type: ignore[no-any-return]


class _GatingUnit(nn.Module):
    """Half of the channels, times one more than the other half after that was mixed along the tokens."""

    def __init__(self, dim: int, tokens: int, bias: bool) -> None:
        super().__init__()
        self.intermediate_layernorm = norm(dim)
        self.Dense_0 = dense(tokens, tokens, bias)

    def forward(self, tokens: Tensor) -> Tensor:
        values, gate = tokens.chunk(2, -1)
        return torch.addcmul(values, values, mixed(self.Dense_0, self.intermediate_layernorm(gate)))


class _Gates(_TwoAxes):
    """What another map is multiplied by: a layer for each axis."""

    def __init__(self, dim: int, sizes: Sizes, factor: int, bias: bool) -> None:
        super().__init__(dim, sizes, factor, bias, dim**-0.5)
        self.Dense_0 = dense(prod(sizes.grid), prod(sizes.grid), bias, start=1.0)
        self.Dense_1 = dense(prod(sizes.block), prod(sizes.block), bias, start=1.0)

    def mix(self, axis: Axis, tokens: Tensor) -> Tensor:
        return mixed(self.Dense_0 if axis == "grid" else self.Dense_1, tokens)


class CrossGating(nn.Module):
    """Two maps ``[B,H,W,dim]`` gate each other; gives what became of both together, and of the second.

    The first is given as it comes out of ``Conv_0``, which takes ``given`` channels. Where ``below`` is given, the
    second comes with so many channels at half the size, and is enlarged.
    """

    def __init__(self, dim: int, sizes: Sizes, factor: int, bias: bool, given: int, below: int | None) -> None:
        super().__init__()
        self.enlarges = below is not None
        if below is not None:
            self.ConvTranspose_0 = enlarging(below, dim, bias)
        self.Conv_0 = convolution(given, dim, 1, bias)
        self.Conv_1 = convolution(dim, dim, 1, bias)
        self.LayerNorm_x, self.LayerNorm_y = norm(dim), norm(dim)
        layer = partial(dense, dim, dim, bias, dim**-0.5)
        self.in_project_x, self.in_project_y, self.out_project_x, self.out_project_y = (layer() for _ in range(4))
        self.SplitHeadMultiAxisGating_x = _Gates(dim, sizes, factor, bias)
        self.SplitHeadMultiAxisGating_y = _Gates(dim, sizes, factor, bias)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if self.enlarges:
            y = enlarged(y, self.ConvTranspose_0, self.Conv_1.weight.flatten(1), self.Conv_1.bias)
        else:
            y = side_by_side(self.Conv_1, y)
        own = in_pieces(lambda x: gelu(self.in_project_x(self.LayerNorm_x(x))), x)
        gate = in_pieces(lambda y: gelu(self.in_project_y(self.LayerNorm_y(y))), y)
        of_own, of_gate = self.SplitHeadMultiAxisGating_x(own), self.SplitHeadMultiAxisGating_y(gate)
        y = in_pieces(lambda y, gate, by: y + self.out_project_y(gate * by), y, gate, of_own)
        return in_pieces(lambda x, y, own, by: x + self.out_project_x(own * by) + y, x, y, own, of_gate), y
