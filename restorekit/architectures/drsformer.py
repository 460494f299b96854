"""DRSformer: deraining by attention among channels that keeps the largest scores only.

Chen, Li, Li, Pan, "Learning A Sparse Transformer Network for Effective Image Deraining", CVPR 2023; names and order of
layers are those of https://github.com/cschenxiang/DRSformer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorekit.architectures._depthwise import Depthwise, depthwise
from restorekit.architectures._maps import convolve, pointwise
from restorekit.architectures._network import Detected
from restorekit.architectures._restormer import (
    GlobalBlock,
    LayerNorm,
    RestormerShell,
    ScaleNorm,
    cosines,
    detect_shell,
    is_with_bias,
)
from restorekit.tiling import Tiling

KEPT = ((1, 2), (2, 3), (3, 4), (4, 5))
"""The shares of scores that the four attentions keep."""

STEPS, OPERATIONS = 4, 8
"""Layers of a mixture of experts, and experts of a layer."""


class DRSformer(RestormerShell):
    """``[B,C,H,W]`` in 0..1 to the same size; H and W are multiples of 8.

    ``mefc`` tells the two published networks apart: with mixtures of experts before and after the U (Rain200H,
    DID-Data, DDN-Data), or without (Rain200L, SPA-Data); the authors have a file of code for each. The weights between
    channels and those of the experts are set from the whole picture, so that a result depends on the size of a tile.

    Raises ValueError for values that do not go together.
    """

    def __init__(
        self,
        inp_channels: int = 3,
        out_channels: int = 3,
        dim: int = 48,
        num_blocks: Sequence[int] = (4, 6, 6, 8),
        heads: Sequence[int] = (1, 2, 4, 8),
        ffn_expansion_factor: float = 2.66,
        bias: bool = False,
        LayerNorm_type: LayerNorm = "WithBias",
        mefc: bool = True,
    ) -> None:
        with_bias = is_with_bias(LayerNorm_type)

        def block(channels: int, heads: int) -> GlobalBlock:
            return _Block(channels, heads, int(channels * ffn_expansion_factor), bias, with_bias)

        super().__init__(inp_channels, out_channels, dim, num_blocks, heads, bias, block)
        if mefc:
            self.encoder_level0 = _Experts(dim)
            self.refinement = _Experts(2 * dim)
        # The authors trained on patches of 128 px: in tiles of that side, channels are weighted as they were then. From
        # about 16 px on, what differs next to a cut is little more than what differs everywhere; more overlap costs
        # much at 128 px.
        self.tiling = Tiling("approximate", grid=8, halo=16, minimum=8, fixed=128, memory=16384 * dim // 48)

    @classmethod
    def detect(cls, state: Mapping[str, Tensor]) -> Detected | None:
        config = detect_shell(state, "attn", (2.66,))
        if config is None or "latent.0.attn.attn1" not in state or "latent.0.norm1.body.weight" not in state:
            return None
        with_bias = "latent.0.norm1.body.bias" in state
        more = {
            "LayerNorm_type": "WithBias" if with_bias else "BiasFree",
            "mefc": "encoder_level0.layers.0.ca_fc.0.weight" in state,
        }
        return Detected({**config, **more})


class _Block(GlobalBlock):
    def __init__(self, dim: int, heads: int, hidden: int, bias: bool, with_bias: bool) -> None:
        super().__init__()
        self.norm1 = nn.ModuleDict({"body": nn.LayerNorm(dim) if with_bias else ScaleNorm(dim)})
        self.attn = _SparseAttention(dim, heads, bias)
        self.norm2 = nn.ModuleDict({"body": nn.LayerNorm(dim) if with_bias else ScaleNorm(dim)})
        self.ffn = _MixedScales(dim, hidden, bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attended(self.attn, self.norm1["body"](x))
        x = x + self.ffn(self.norm2["body"](x))
        return x


class _SparseAttention(nn.Module):
    """Attention among the channels of a head, over all pixels, four times with ever more of the scores of a channel.

    All four multiply the same values, and the convolution after them is linear too, so that they make one matrix
    ``[C,C]`` a picture.
    """

    def __init__(self, dim: int, heads: int, bias: bool) -> None:
        super().__init__()
        if dim % heads or dim // heads < 2:
            raise ValueError(f"{heads} heads share {dim} channels; each takes as many, and 2 at least")
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(dim, dim * 3, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(dim * 3, dim * 3, 3, padding=1, groups=dim * 3, bias=bias)
        self.project_out = nn.Conv2d(dim, dim, 1, bias=bias)
        for number in range(1, len(KEPT) + 1):
            self.register_parameter(f"attn{number}", nn.Parameter(torch.tensor([0.2])))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = convolve(self.qkv_dwconv, pointwise(self.qkv, x)).flatten(1, 2).chunk(3, -1)
        q, k = (torch.unflatten(maps, -1, (self.heads, -1)).permute(0, 2, 3, 1) for maps in (q, k))
        weights = self.weights(cosines(q, k) * self.temperature)
        out = torch.unflatten(self.project_out.weight.flatten(1), 1, (self.heads, -1)).transpose(0, 1)
        matrix = (out @ weights.to(out.dtype)).transpose(1, 2).flatten(2)
        y: Tensor = v @ matrix.transpose(1, 2)
        return (y if self.project_out.bias is None else y + self.project_out.bias).view_as(x)

    def weights(self, scores: Tensor) -> Tensor:
        """The sum of softmax over the largest scores of each row, for each of the shares in ``KEPT``.

        With the scores in order, what a share divides by is a sum up to the last one that it keeps.
        """
        c = scores.shape[-1]
        kept = [c * part // whole for part, whole in KEPT]
        largest, places = scores.topk(max(kept), dim=-1)
        exponentials = (largest - largest[..., :1]).exp()
        sums = exponentials.cumsum(-1)
        ranks = torch.arange(max(kept), device=scores.device)
        share = torch.zeros_like(exponentials)
        for number, last in enumerate(kept, 1):
            share = share + self.get_parameter(f"attn{number}") / sums[..., last - 1 : last] * (ranks < last)
        return torch.zeros_like(scores).scatter(-1, places, exponentials * share)


class _MixedScales(nn.Module):
    """An MLP with depthwise convolutions of two sizes, whose results are mixed and convolved again."""

    def __init__(self, dim: int, hidden: int, bias: bool) -> None:
        super().__init__()
        self.hidden = hidden
        self.project_in = nn.Conv2d(dim, hidden * 2, 1, bias=bias)
        self.dwconv3x3 = nn.Conv2d(hidden * 2, hidden * 2, 3, padding=1, groups=hidden * 2, bias=bias)
        self.dwconv5x5 = nn.Conv2d(hidden * 2, hidden * 2, 5, padding=2, groups=hidden * 2, bias=bias)
        self.dwconv3x3_1 = nn.Conv2d(hidden * 2, hidden, 3, padding=1, groups=hidden, bias=bias)
        self.dwconv5x5_1 = nn.Conv2d(hidden * 2, hidden, 5, padding=2, groups=hidden, bias=bias)
        self.project_out = nn.Conv2d(hidden * 2, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Half of the channels after the other, so that few large maps are held at a time."""
        results = []
        for half, mix in enumerate((self.dwconv3x3_1, self.dwconv5x5_1)):
            hidden = _half(self.project_in, x, half)
            hidden = torch.cat([_half(layer, hidden, half) for layer in (self.dwconv3x3, self.dwconv5x5)], -1)
            results.append(_pairs(mix, hidden.relu_()).relu_())
        return pointwise(self.project_out, torch.cat(results, -1))


def _half(convolution: nn.Conv2d, maps: Tensor, half: int) -> Tensor:
    """The first (0) or second (1) half of the channels that a convolution, depthwise or 1x1, makes."""
    weight = convolution.weight.chunk(2)[half]
    bias = None if convolution.bias is None else convolution.bias.chunk(2)[half]
    if convolution.groups == 1:
        return convolve(lambda x: F.conv2d(x, weight, bias), maps)
    return convolve(lambda x: depthwise(x, weight, bias), maps)


def _pairs(convolution: nn.Conv2d, maps: Tensor) -> Tensor:
    """A convolution with two channels in and one out a group, as the sum of two depthwise ones: these are fast."""
    weight = convolution.weight
    maps = convolve(lambda x: depthwise(x, weight.reshape(-1, 1, *weight.shape[2:])), maps)
    maps = maps[..., ::2] + maps[..., 1::2]
    return maps if convolution.bias is None else maps + convolution.bias


class _Experts(nn.Module):
    """Layers of convolutions of many sizes, weighted by the mean of the maps."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList((_Gate(dim), _Layers(dim)))

    def forward(self, x: Tensor) -> Tensor:
        gate, layers = self.layers
        y: Tensor = layers(x, gate(x))
        return y


class _Gate(nn.Module):
    """The weights of the experts of each layer, ``[B,STEPS,OPERATIONS]``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        made = STEPS * OPERATIONS
        self.ca_fc = nn.Sequential(nn.Linear(dim, made * 2), nn.ReLU(), nn.Linear(made * 2, made))

    def forward(self, x: Tensor) -> Tensor:
        return torch.unflatten(self.ca_fc(x.mean((1, 2))), -1, (STEPS, OPERATIONS)).softmax(-1)


class _Layers(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.preprocess = nn.ModuleDict({"op": nn.Sequential(nn.Conv2d(dim, dim, 1, bias=False), nn.ReLU(True))})
        self._ops = nn.ModuleList(_Mixture(dim) for _ in range(STEPS))

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        x = convolve(self.preprocess["op"], x).to(x.dtype)
        for mixture, weight in zip(self._ops, weights.unbind(1), strict=True):
            x = x + mixture(x, weight)  # not below 0, neither of them
        return x


class _Mixture(nn.Module):
    """Eight experts, and a 1x1 convolution of what they make.

    Each ends with a 1x1 convolution, and the weight of an expert is a factor, so that all of this together is one
    matrix ``[C,C]`` an expert and picture.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        separable = (_Expert(*_depthwise(dim, size), nn.ReLU(True), *_depthwise(dim, size)) for size in (1, 3, 5, 7))
        dilated = (_Expert(*_depthwise(dim, size, 2)) for size in (3, 5, 7))
        self._ops = nn.ModuleList((*separable, *dilated, nn.AvgPool2d(3, 1, 1, count_include_pad=False)))
        self._out = nn.Sequential(nn.Conv2d(dim * OPERATIONS, dim, 1, bias=False), nn.ReLU())

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        total = torch.zeros_like(x).flatten(1, 2)
        parts = self._out.get_parameter("0.weight").flatten(1).chunk(OPERATIONS, 1)
        for expert, weight, matrix in zip(self._ops, weights.unbind(1), parts, strict=True):
            if isinstance(expert, _Expert):
                maps, matrix = expert(x), matrix @ expert.last
            else:
                maps = convolve(expert, x)
            total = total + maps.flatten(1, 2) @ (matrix * weight[:, None, None]).mT
        return total.relu_().view_as(x)


class _Expert(nn.Module):
    """Depthwise and 1x1 convolutions; the last of them is left to the mixture."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.op = nn.Sequential(*layers)

    @property
    def last(self) -> Tensor:
        """``[C,C]``"""
        return self.op.get_parameter(f"{len(self.op) - 1}.weight").flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return convolve(self.op[:-1], x)


def _depthwise(dim: int, size: int, dilation: int = 1) -> tuple[nn.Module, nn.Module]:
    if size == 1:
        return _Factors(dim, dim, 1, groups=dim, bias=False), nn.Conv2d(dim, dim, 1, bias=False)
    each = Depthwise(dim, size, dilation=dilation, bias=False)
    return each, nn.Conv2d(dim, dim, 1, bias=False)


class _Factors(nn.Conv2d):
    """A depthwise 1x1 convolution: a factor a channel, for which torch has no fast convolution."""

    def forward(self, input: Tensor) -> Tensor:
        return input * self.weight.view(-1, 1, 1)
