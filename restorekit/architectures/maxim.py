"""MAXIM: restoration by gated MLPs that mix pixels within blocks, and across a grid over the whole picture.

Tu, Talebi, Zhang, Yang, Milanfar, Bovik, Li, "MAXIM: Multi-Axis MLP for Image Processing", CVPR 2022; names and order
of layers are those of https://github.com/google-research/maxim, with ``.`` for ``/``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isqrt, lcm
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorekit.architectures._bands import WHOLE, Bands
from restorekit.architectures._maps import convolve, pointwise, precise
from restorekit.architectures._multi_axis import (
    CrossGating,
    GatedMlps,
    Sizes,
    convolution,
    dense,
    enlarged,
    enlarging,
    gelu,
    norm,
    side_by_side,
    started,
)
from restorekit.architectures._network import Detected, Network
from restorekit.architectures._weights import count
from restorekit.errors import ModelError
from restorekit.tiling import Tiling

VARIANTS: Mapping[str, Mapping[str, int]] = {
    f"{size}-{stages}": {"features": features, "num_stages": stages, "num_groups": 2, "num_bottleneck_blocks": 2}
    for size, features in (("S", 32), ("M", 64))
    for stages in (1, 2, 3)
}
"""Hyperparameters by the authors' names of their networks. Those they published have 3 supervision scales besides."""

SLOPE = 0.2
"""Of the leaky ReLU. The authors' network takes ``lrelu_slope`` and does not hand it on."""

TRAINED = 256
"""Side in px of the patches that the authors train on."""


class MAXIM(Network):
    """``[B,3,H,W]`` RGB in 0..1 to a list over stages of lists over scales, each ``[B,3,h,w]``, the full size last.

    ``features`` gives that last picture alone. H and W are multiples of ``tiling.grid``: 64 px for the published sizes
    of blocks. The grid has the same number of cells in a picture of any size, and means are taken over all of it, so
    that tiles are not restored as the whole is. Hyperparameters are those of the authors; ``lrelu_slope``,
    ``dropout_rate`` and ``grid_size_lr``, for which their network takes ``block_size_lr``, are ignored.

    Raises ValueError for values that do not go together, and for networks without global MLPs or cross gating.
    """

    def __init__(
        self,
        features: int = 64,
        depth: int = 3,
        num_stages: int = 2,
        num_groups: int = 1,
        use_bias: bool = True,
        num_supervision_scales: int = 1,
        lrelu_slope: float = 0.2,
        use_global_mlp: bool = True,
        use_cross_gating: bool = True,
        high_res_stages: int = 2,
        block_size_hr: Sequence[int] = (16, 16),
        block_size_lr: Sequence[int] = (8, 8),
        grid_size_hr: Sequence[int] = (16, 16),
        grid_size_lr: Sequence[int] = (8, 8),
        num_bottleneck_blocks: int = 1,
        block_gmlp_factor: int = 2,
        grid_gmlp_factor: int = 2,
        input_proj_factor: int = 2,
        channels_reduction: int = 4,
        num_outputs: int = 3,
        dropout_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if not use_global_mlp or not use_cross_gating or num_outputs != 3:
            raise ValueError("networks without global MLPs or cross gating, or not to RGB, are not supported")
        if not 1 <= num_supervision_scales <= depth:
            raise ValueError(f"num_supervision_scales is {num_supervision_scales}; there are 1 to depth, {depth}")
        if min(num_stages, num_groups, num_bottleneck_blocks) < 1:
            raise ValueError("num_stages, num_groups and num_bottleneck_blocks are 1 or more")
        self.scale = 1
        self.in_channels = 3
        self.depth, self.num_stages = depth, num_stages
        self.num_supervision_scales, self.num_bottleneck_blocks = num_supervision_scales, num_bottleneck_blocks
        factors = input_proj_factor, grid_gmlp_factor, block_gmlp_factor
        plan = _Plan(num_groups, factors, channels_reduction, use_bias)
        high, low = Sizes(grid_size_hr, block_size_hr), Sizes(block_size_lr, block_size_lr)
        levels = [_Level(features << k, high if k < high_res_stages else low, plan) for k in range(depth)]
        deepest = _Level(levels[-1].channels, low, plan)
        for stage in range(num_stages):
            self._add_encoder(stage, levels, deepest)
            self._add_decoder(stage, levels)
        grid = lcm(*(level.sizes.multiple << k for k, level in enumerate([*levels, deepest])))
        # In an overlap of 64 px the halo is what the ramp leaves.
        side = -(-TRAINED // grid) * grid
        self.tiling = Tiling("approximate", grid=grid, halo=24, minimum=grid, fixed=side, memory=112 * features)

    def _add_encoder(self, stage: int, levels: Sequence[_Level], deepest: _Level) -> None:
        given = levels[0].channels
        for k, level in enumerate(levels):
            if k < self.num_supervision_scales:
                given += level.channels
                self._add(stage, "input_conv", k, level.convolution(3, level.channels, 3))
                if stage > 0:
                    self._add(stage, "input_fuse_sam", k, level.cross_gating(level.channels))
            self._add(stage, "encoder_block", k, _Encoder(level, given, crossed=stage > 0))
            given = level.channels
        for k in range(self.num_bottleneck_blocks):
            self._add(stage, "global_block", k, _Bottleneck(deepest))

    def _add_decoder(self, stage: int, levels: Sequence[_Level]) -> None:
        for k, level in enumerate(levels):
            below = levels[min(k + 1, self.depth - 1)].channels
            self._add(stage, "cross_gating_block", k, level.cross_gating(self.depth * level.channels, below))
            self._add(stage, "decoder_block", k, _Decoder(level, below, self.depth))
            for user in ("cross_gating_block", "decoder_block"):
                for other, source in enumerate(levels):
                    resampled = _UpSampleRatio(level, source.channels, other - k)
                    self.add_module(self._resampler(stage, user, k, other), resampled)
            if k < self.num_supervision_scales and stage < self.num_stages - 1:
                self._add(stage, "supervised_attention_module", k, _SupervisedAttention(level))
            elif k < self.num_supervision_scales:
                self._add(stage, "output_conv", k, level.convolution(level.channels, 3, 3))

    def _add(self, stage: int, name: str, level: int, module: nn.Module) -> None:
        self.add_module(f"stage_{stage}_{name}_{level}", module)

    def _part(self, stage: int, name: str, level: int) -> Any:
        return self.get_submodule(f"stage_{stage}_{name}_{level}")

    def _resampler(self, stage: int, user: str, level: int, other: int) -> str:
        """The name of what brings maps of another level to one; the authors' are numbered in the order of calls."""
        decodes = user == "decoder_block"
        nth = self.depth - 1 - other if decodes else other
        return f"UpSampleRatio_{((2 * stage + decodes + 1) * self.depth - 1 - level) * self.depth + nth}"

    def forward(self, x: Tensor) -> list[list[Tensor]]:  # type: ignore[override]  # what training takes
        grid, (height, width) = self.tiling.grid, x.shape[2:]
        if height % grid or width % grid:
            raise ModelError(f"MAXIM takes sides that are multiples of {grid} px, not {width} x {height} px; pad them")
        image = x.permute(0, 2, 3, 1)
        halves = [1 << k for k in range(self.num_supervision_scales - 1)]
        images = [image, *(image[:, half :: 2 * half, half :: 2 * half] for half in halves)]
        made: list[list[Tensor]] = []
        attended: list[Tensor] = []
        before: list[Tensor] = []
        for stage in range(self.num_stages):
            encoded, deepest = self._encode(stage, self._inputs(stage, images, attended), before)
            decoded = self._decode(stage, self._cross(stage, encoded, deepest), deepest)
            pictures, attended = self._results(stage, decoded, images)
            made.append([picture.permute(0, 3, 1, 2) for picture in reversed(pictures)])
            if attended:
                before = [old + new for old, new in zip(encoded, decoded, strict=True)]
        return made

    def features(self, x: Tensor, bands: Bands = WHOLE) -> Tensor:
        """The picture; it is worked on as a whole."""
        return self(x)[-1][-1]  # type: ignore[no-any-return]

    def tail(self, features: Tensor) -> Tensor:
        return features

    def picture(self, x: Tensor) -> Tensor:
        return self.features(x)

    def _inputs(self, stage: int, images: Sequence[Tensor], attended: Sequence[Tensor]) -> list[Tensor]:
        """Maps of the pictures, full size first, with what the stage before hands on."""
        result = []
        for k, image in enumerate(images):
            maps = convolve(partial(precise, self._part(stage, "input_conv", k)), image)
            if attended:
                block = self._part(stage, "input_fuse_sam", k)
                maps = block(side_by_side(block.Conv_0, maps), attended[k])[0]
            result.append(maps)
        return result

    def _encode(self, stage: int, inputs: Sequence[Tensor], before: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Maps of all levels, and those of the bottleneck. ``before`` is what the stage before had at each level."""
        encoded, maps = [], inputs[0]
        for k in range(self.depth):
            block = self._part(stage, "encoder_block", k)
            own, maps = block(side_by_side(block.Conv_0, maps, *inputs[k : k + 1]), before[k] if before else None)
            encoded.append(own)
        for k in range(self.num_bottleneck_blocks):
            maps = self._part(stage, "global_block", k)(maps)
        return encoded, maps

    def _cross(self, stage: int, encoded: Sequence[Tensor], gate: Tensor) -> list[Tensor]:
        """What the decoder is given of each level: maps of all levels, gated by what comes from below."""
        skips = []
        for k in reversed(range(self.depth)):
            block = self._part(stage, "cross_gating_block", k)
            maps = self._gathered(stage, "cross_gating_block", k, encoded, block.Conv_0.weight, block.Conv_0.bias)
            skip, gate = block(maps, gate)
            skips.append(skip)
        return skips[::-1]

    def _decode(self, stage: int, skips: Sequence[Tensor], maps: Tensor) -> list[Tensor]:
        decoded = []
        for k in reversed(range(self.depth)):
            decoder = self._part(stage, "decoder_block", k)
            block = decoder.UNetEncoderBlock_0
            own, others = block.Conv_0.weight.flatten(1).tensor_split([skips[k].shape[-1]], 1)
            maps = enlarged(maps, decoder.ConvTranspose_0, own, block.Conv_0.bias)
            maps = block(maps.add_(self._gathered(stage, "decoder_block", k, skips, others, None)))
            decoded.append(maps)
        return decoded[::-1]

    def _gathered(
        self, stage: int, user: str, level: int, maps: Sequence[Tensor], weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        """Maps of all levels at the size of one, through a 1x1 convolution; a decoder's begins with the deepest."""
        places = list(range(self.depth))[:: -1 if user == "decoder_block" else 1]
        total: Tensor | None = None
        for k, share in zip(places, weight.flatten(1).chunk(self.depth, 1), strict=True):
            resampler = self.get_submodule(self._resampler(stage, user, level, k))
            brought: Tensor = resampler(maps[k], share, bias if total is None else None)
            total = brought if total is None else total.add_(brought)
        assert total is not None
        return total

    def _results(
        self, stage: int, decoded: Sequence[Tensor], images: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Pictures, full size first, and what the next stage is given."""
        pictures, attended = [], []
        for k, image in enumerate(images):
            if stage < self.num_stages - 1:
                handed, picture = self._part(stage, "supervised_attention_module", k)(decoded[k], image)
                attended.append(handed)
            else:
                picture = convolve(partial(precise, self._part(stage, "output_conv", k)), decoded[k]) + image
            pictures.append(picture)
        return pictures, attended

    @classmethod
    def detect(cls, state: Mapping[str, Tensor]) -> Detected | None:
        block = "stage_0_encoder_block_0."
        mlps = f"{block}SplitHeadMultiAxisGmlpLayer_0."
        squeezed = f"{block}channel_attention_block_10.channel_attention.Conv_0.weight"
        if any(key not in state for key in ("stage_0_input_conv_0.weight", f"{mlps}in_project.weight", squeezed)):
            return None
        depth = count(state, "stage_0_encoder_block_{}.Conv_1.weight")
        low = _tokens(state, "global_block_0")
        levels = [_tokens(state, f"encoder_block_{k}") for k in range(depth)]
        few, channels = state[squeezed.replace("_block_0", f"_block_{depth - 1}")].shape[:2]

        def factor(layer: str) -> int:
            return state[f"{mlps}{layer}.weight"].shape[0] // state[f"{mlps}{layer}.weight"].shape[1]

        config: dict[str, Any] = {
            "features": len(state["stage_0_input_conv_0.weight"]),
            "depth": depth,
            "num_stages": count(state, "stage_{}_encoder_block_0.Conv_1.weight"),
            "num_groups": count(state, f"{mlps[:-2]}{{}}.in_project.weight"),
            "use_bias": "stage_0_input_conv_0.bias" in state,
            "num_supervision_scales": count(state, "stage_0_input_conv_{}.weight"),
            "high_res_stages": sum(level != low for level in levels) or min(2, depth),
            "block_size_hr": _square(levels[0][1]),
            "block_size_lr": _square(low[1]),
            "grid_size_hr": _square(levels[0][0]),
            "num_bottleneck_blocks": count(state, "stage_0_global_block_{}.input_proj.weight"),
            "block_gmlp_factor": factor("BlockGmlpLayer.in_project"),
            "grid_gmlp_factor": factor("GridGmlpLayer.in_project"),
            "input_proj_factor": factor("in_project"),
            "channels_reduction": channels // few,
        }
        assumed = ["of block_size_hr, block_size_lr and grid_size_hr weights tell the product; squares are assumed"]
        if levels[0] == low:
            assumed.append(f"high_res_stages is not stored in these weights; {config['high_res_stages']} is assumed")
        return Detected(config, tuple(assumed))


def _tokens(state: Mapping[str, Tensor], block: str) -> tuple[int, int]:
    """How many tokens a block mixes over the grid and within blocks."""
    layer = f"stage_0_{block}.SplitHeadMultiAxisGmlpLayer_0"
    grid, inner = (len(state[f"{layer}.{axis}GmlpLayer.{axis}GatingUnit.Dense_0.weight"]) for axis in ("Grid", "Block"))
    return grid, inner


def _square(product: int) -> list[int]:
    """Two sides of this product, as equal as can be."""
    least = next(side for side in range(isqrt(product), 0, -1) if product % side == 0)
    return [least, product // least]


@dataclass(frozen=True)
class _Plan:
    """What all blocks have in common; factors are those of input, grid and block."""

    groups: int
    factors: tuple[int, int, int]
    reduction: int
    bias: bool


@dataclass(frozen=True)
class _Level:
    """A level of the U-Net, and what is built for it."""

    channels: int
    sizes: Sizes
    plan: _Plan

    def convolution(self, given: int, channels: int, side: int) -> nn.Conv2d:
        return convolution(given, channels, side, self.plan.bias)

    def mlps(self) -> GatedMlps:
        return GatedMlps(self.channels, self.sizes, *self.plan.factors, self.plan.bias)

    def cross_gating(self, given: int, below: int | None = None) -> CrossGating:
        return CrossGating(self.channels, self.sizes, self.plan.factors[0], self.plan.bias, given, below)


class _Block(nn.Module):
    """Groups of MLPs and convolutions with a shortcut past them, then gates by what another stage had."""

    def __init__(self, level: _Level, given: int, crossed: bool = False) -> None:
        super().__init__()
        self.groups = level.plan.groups
        self.Conv_0 = level.convolution(given, level.channels, 1)
        for group in range(self.groups):
            self.add_module(f"SplitHeadMultiAxisGmlpLayer_{group}", level.mlps())
            self.add_module(f"channel_attention_block_1{group}", _AttendedConvolutions(level))
        self.cross_gating_block = level.cross_gating(level.channels) if crossed else None

    def forward(self, maps: Tensor, before: Tensor | None = None) -> Tensor:
        shortcut = maps
        for group in range(self.groups):
            maps = self.get_submodule(f"SplitHeadMultiAxisGmlpLayer_{group}")(maps)
            maps = self.get_submodule(f"channel_attention_block_1{group}")(maps)
        maps = maps + shortcut
        if self.cross_gating_block is None:
            return maps
        result: Tensor = self.cross_gating_block(side_by_side(self.cross_gating_block.Conv_0, maps), before)[0]
        return result


class _Encoder(_Block):
    """Gives its maps, and those at half the size."""

    def __init__(self, level: _Level, given: int, crossed: bool) -> None:
        super().__init__(level, given, crossed)
        halving = nn.Conv2d(level.channels, level.channels, 4, stride=2, padding=1, bias=level.plan.bias)
        self.Conv_1 = started(halving, (level.channels * 16) ** -0.5)

    def forward(self, maps: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        maps = super().forward(maps, before)
        return maps, convolve(self.Conv_1, maps)


class _Decoder(nn.Module):
    """A block, and what enlarges the maps of the level below."""

    def __init__(self, level: _Level, below: int, depth: int) -> None:
        super().__init__()
        self.ConvTranspose_0 = enlarging(below, level.channels, level.plan.bias)
        self.UNetEncoderBlock_0 = _Block(level, (depth + 1) * level.channels)


class _Bottleneck(nn.Module):
    def __init__(self, level: _Level) -> None:
        super().__init__()
        self.groups = level.plan.groups
        self.input_proj = level.convolution(level.channels, level.channels, 1)
        for group in range(self.groups):
            self.add_module(f"SplitHeadMultiAxisGmlpLayer_{group}", level.mlps())
            self.add_module(f"channel_attention_block_1_{group}", _AttendedMlp(level))

    def forward(self, maps: Tensor) -> Tensor:
        maps = shortcut = pointwise(self.input_proj, maps)
        for group in range(self.groups):
            maps = self.get_submodule(f"SplitHeadMultiAxisGmlpLayer_{group}")(maps)
            maps = self.get_submodule(f"channel_attention_block_1_{group}")(maps)
        return maps + shortcut


class _ChannelAttention(nn.Module):
    """What each channel is multiplied by, told by the means of all of them."""

    def __init__(self, level: _Level) -> None:
        super().__init__()
        few = level.channels // level.plan.reduction
        self.Conv_0 = level.convolution(level.channels, few, 1)
        self.Conv_1 = level.convolution(few, level.channels, 1)

    def forward(self, maps: Tensor) -> Tensor:
        few = F.relu(pointwise(self.Conv_0, maps.mean((1, 2), keepdim=True)))
        return pointwise(self.Conv_1, few).sigmoid()


class _AttendedConvolutions(nn.Module):
    def __init__(self, level: _Level) -> None:
        super().__init__()
        self.LayerNorm = norm(level.channels)
        self.conv1 = level.convolution(level.channels, level.channels, 3)
        self.conv2 = level.convolution(level.channels, level.channels, 3)
        self.channel_attention = _ChannelAttention(level)

    def forward(self, maps: Tensor) -> Tensor:
        hidden = F.leaky_relu(convolve(self.conv1, self.LayerNorm(maps)), SLOPE, inplace=True)
        made = convolve(self.conv2, hidden)
        return torch.addcmul(maps, made, self.channel_attention(made))


class _AttendedMlp(nn.Module):
    def __init__(self, level: _Level) -> None:
        super().__init__()
        self.LayerNorm = norm(level.channels)
        layer = partial(dense, level.channels, level.channels, level.plan.bias)
        self.channel_mixing = nn.ModuleDict({"Dense_0": layer(), "Dense_1": layer()})
        self.channel_attention = _ChannelAttention(level)

    def forward(self, maps: Tensor) -> Tensor:
        made = self.channel_mixing["Dense_1"](gelu(self.channel_mixing["Dense_0"](self.LayerNorm(maps))))
        return torch.addcmul(maps, made, self.channel_attention(made))


class _UpSampleRatio(nn.Module):
    """Maps of a level at the size, and with the channels, of one that lies ``steps`` levels above, or below."""

    def __init__(self, level: _Level, given: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.Conv_0 = level.convolution(given, level.channels, 1)

    def forward(self, maps: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The maps through the convolution here, then times ``weight`` ``[D,C]``: one layer, run where it is less."""
        if self.Conv_0.bias is not None:
            bias = weight @ self.Conv_0.bias if bias is None else weight @ self.Conv_0.bias + bias
        weight = weight @ self.Conv_0.weight.flatten(1)
        if self.steps <= 0:
            maps = convolve(partial(_resized, steps=self.steps), maps) if self.steps else maps
            return F.linear(maps, weight, bias)
        return convolve(partial(_resized, steps=self.steps), F.linear(maps, weight, bias))


def _resized(maps: Tensor, steps: int) -> Tensor:
    """``[B,C,H,W]`` at ``2**steps`` times the size, by linear interpolation; reduced, by triangles as wide."""
    if steps > 0:
        return F.interpolate(maps, scale_factor=2**steps, mode="bilinear", align_corners=False)
    factor, channels = 1 << -steps, maps.shape[1]
    triangle = factor - (torch.arange(2 * factor, device=maps.device) + 0.5 - factor).abs()
    triangle = triangle.to(maps.dtype)
    run = partial(F.conv1d, weight=triangle[None, None], stride=factor, padding=factor // 2)
    rows, columns = (run(maps.new_ones(1, 1, side))[0, 0] for side in maps.shape[2:])
    weight = torch.outer(triangle, triangle).expand(channels, 1, -1, -1)
    summed = F.conv2d(maps, weight, stride=factor, padding=factor // 2, groups=channels)
    return summed / torch.outer(rows, columns)  # of the weights that lie within


class _SupervisedAttention(nn.Module):
    """A picture, and maps weighed by it for the next stage."""

    def __init__(self, level: _Level) -> None:
        super().__init__()
        self.Conv_0 = level.convolution(level.channels, level.channels, 3)
        self.Conv_1 = level.convolution(level.channels, 3, 3)
        self.Conv_2 = level.convolution(3, level.channels, 3)

    def forward(self, maps: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        picture = convolve(partial(precise, self.Conv_1), maps) + image
        weights = convolve(self.Conv_2, picture).sigmoid()
        return maps + convolve(self.Conv_0, maps) * weights, picture
