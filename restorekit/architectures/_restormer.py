"""The U of Restormer, into which other networks set blocks of their own.

Zamir, Arora, Khan, Hayat, Khan, Yang, "Restormer: Efficient Transformer for High-Resolution Image Restoration",
CVPR 2022; names of layers are those of https://github.com/swz30/Restormer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from restorekit.architectures._bands import WHOLE, Bands
from restorekit.architectures._maps import convolve, pointwise, precise
from restorekit.architectures._network import Network
from restorekit.architectures._weights import count
from restorekit.errors import ModelError
from restorekit.tiling import plan, ramps

MIN_WINDOW = 64
"""The side of the smallest windows of statistics, in px: 8 px at the last level."""

LEVELS = 4
"""Level 1 has the size of the picture, each other half the size of the one before and twice its channels."""

DOWN, UP = range(1, LEVELS), range(LEVELS - 1, 0, -1)

LOCAL_TILE = 512
"""The side of tiles in px where statistics are taken in windows: few pixels lie in overlaps."""

LayerNorm = Literal["WithBias", "BiasFree"]
"""By the authors' names."""

BLOCKS = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")
"""The blocks of each level, those of the way up left out."""


class RestormerShell(Network):
    """Base of networks that work at four sizes: ``[B,C,H,W]`` in 0..1 to the same size, multiples of 8 px.

    ``block(channels, heads)`` makes a block, which is called with maps ``[B,H,W,channels]`` and keeps their shape; its
    attention looks over the whole of them, or, after ``local_statistics``, over windows. A level has ``num_blocks`` on
    the way down and as many on the way up; before and after them stand ``encoder_level0`` and ``refinement``. What
    comes out is added to the picture.

    Raises ValueError where picture and result have other channels, and for other numbers of levels.
    """

    def __init__(
        self,
        inp_channels: int,
        out_channels: int,
        dim: int,
        num_blocks: Sequence[int],
        heads: Sequence[int],
        bias: bool,
        block: Callable[[int, int], GlobalBlock],
    ) -> None:
        super().__init__()
        if inp_channels != out_channels:
            raise ValueError(f"inp_channels is {inp_channels} and out_channels {out_channels}; they are the same")
        if len(num_blocks) != LEVELS or len(heads) != LEVELS or min(num_blocks) < 1:
            raise ValueError(f"num_blocks is {num_blocks} and heads {heads}; both have {LEVELS} numbers above 0")
        self.scale = 1
        self.in_channels = inp_channels

        def blocks(level: int, channels: int) -> nn.Sequential:
            return nn.Sequential(*(block(channels, heads[level - 1]) for _ in range(num_blocks[level - 1])))

        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(inp_channels, dim, 3, padding=1, bias=bias)})
        self.encoder_level0: nn.Module = nn.Identity()
        for level in DOWN:
            channels = dim << level - 1
            setattr(self, f"encoder_level{level}", blocks(level, channels))
            setattr(self, f"down{level}_{level + 1}", _resized(channels, channels // 2, nn.PixelUnshuffle(2)))
        self.latent = blocks(LEVELS, dim << LEVELS - 1)
        for level in UP:
            channels = dim << level
            setattr(self, f"up{level + 1}_{level}", _resized(channels, channels * 2, nn.PixelShuffle(2)))
            if level > 1:  # at full size all channels are kept
                setattr(self, f"reduce_chan_level{level}", nn.Conv2d(channels, channels // 2, 1, bias=bias))
                channels //= 2
            setattr(self, f"decoder_level{level}", blocks(level, channels))
        self.refinement: nn.Module = nn.Identity()
        self.output = nn.Conv2d(dim * 2, out_channels, 3, padding=1, bias=bias)

    def features(self, x: Tensor, bands: Bands = WHOLE) -> Tensor:
        """The result; runs at once, whatever ``bands`` says. Raises ModelError if H or W is no multiple of 8."""
        if x.shape[2] % 8 or x.shape[3] % 8:
            raise ModelError(f"{type(self).__name__} takes multiples of 8 px; pad {x.shape[3]} x {x.shape[2]} px")
        picture = x.permute(0, 2, 3, 1).contiguous()  # and so all maps after it
        maps = self.encoder_level0(convolve(partial(precise, self.patch_embed["proj"]), picture))
        kept = []
        lower = picture
        for level in DOWN:
            maps = self._layer(f"encoder_level{level}")(maps)
            kept.append(maps)
            maps, lower = self.lowered(level, maps, lower)
        maps = self.latent(maps)
        for level in UP:
            maps = torch.cat((convolve(self._layer(f"up{level + 1}_{level}.body"), maps), kept.pop()), -1)
            if level > 1:
                maps = pointwise(self._layer(f"reduce_chan_level{level}"), maps)
            maps = self._layer(f"decoder_level{level}")(maps.to(picture.dtype))
        maps = convolve(partial(precise, self.output), self.refinement(maps)) + picture
        return maps.permute(0, 3, 1, 2)

    def lowered(self, level: int, maps: Tensor, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Maps of a level, and what goes with them of the picture, at the next one."""
        return convolve(self._layer(f"down{level}_{level + 1}.body"), maps).to(maps.dtype), picture

    def tail(self, features: Tensor) -> Tensor:
        return features

    def local_statistics(self, side: int) -> None:
        if side % self.tiling.grid or side < MIN_WINDOW:
            raise ModelError(
                f"windows have {side} px; they are multiples of {self.tiling.grid} px, {MIN_WINDOW} at least"
            )
        for name, module in self.named_modules():
            if isinstance(module, GlobalBlock):
                module.window = side >> _halvings(name)
        self.tiling = replace(self.tiling, fixed=max(LOCAL_TILE, side))

    def _layer(self, name: str) -> Any:
        return self.get_submodule(name)


class GlobalBlock(nn.Module):
    """A block whose attention looks over the whole maps, or over windows of ``window`` px of them."""

    window: int | None = None

    def attended(self, attention: Callable[[Tensor], Tensor], maps: Tensor) -> Tensor:
        """``attention`` of maps ``[B,H,W,C]``, whose shape it keeps.

        In windows, those that share pixels are blended; what the zeros beyond their sides reach does not count.
        """
        if self.window is None or max(maps.shape[1:3]) <= self.window:
            return attention(maps)
        down, across = (plan(length, length, self.window, self.window // 4, 1) for length in maps.shape[1:3])
        rows, columns = ramps(down, 1, 1), ramps(across, 1, 1)
        total = torch.zeros_like(maps)
        for top, (first, heights) in zip(down.origins, rows, strict=True):
            for left, (start, widths) in zip(across.origins, columns, strict=True):
                made = attention(maps[:, top : top + down.side, left : left + across.side])
                weights = (heights[:, None] * widths)[..., None].to(made)
                last, end = first + len(heights), start + len(widths)
                total[:, first:last, start:end] += (
                    made[:, first - top : last - top, start - left : end - left] * weights
                )
        return total


def _halvings(name: str) -> int:
    """How often the size was halved for the maps of a block, by the name of the layer that it is in."""
    level = name.partition(".")[0]
    return LEVELS - 1 if level == "latent" else int(level[-1]) - 1 if level[-1].isdigit() else 0


def is_with_bias(kind: str) -> bool:
    """Whether a kind of layer norm has a bias. Raises ValueError for an unknown one."""
    if kind not in get_args(LayerNorm):
        raise ValueError(f"LayerNorm_type is '{kind}'; there are {' and '.join(get_args(LayerNorm))}")
    return kind == "WithBias"


class ScaleNorm(nn.Module):
    """A layer norm without a bias: channels ``[...,C]`` are divided by their deviation, their mean stays."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return by_deviation(x) * self.weight


def by_deviation(x: Tensor) -> Tensor:
    """Channels ``[...,C]`` divided by their deviation."""
    return x * (x.var(-1, keepdim=True, correction=0) + 1e-5).rsqrt()


def cosines(q: Tensor, k: Tensor) -> Tensor:
    """The cosines between rows of ``q`` and rows of ``k``: ``[...,R,N]`` each to ``[...,R,R]``.

    Sums over thousands of pixels are in float32 at least, also under autocast.
    """
    with torch.autocast(q.device.type, enabled=False):
        q, k = (rows if rows.dtype == torch.float64 else rows.float() for rows in (q, k))
        across, down = (rows.square().sum(-1).sqrt().clamp_min(1e-12) for rows in (k, q))
        return q @ k.mT / (down[..., None] * across[..., None, :])


def _resized(channels: int, made: int, shuffle: nn.Module) -> nn.ModuleDict:
    return nn.ModuleDict({"body": nn.Sequential(nn.Conv2d(channels, made, 3, padding=1, bias=False), shuffle)})


def detect_shell(state: Mapping[str, Tensor], attention: str, factors: Sequence[float]) -> dict[str, Any] | None:
    """The hyperparameters that all networks of this shape have, or None where weights are not of one.

    ``attention`` is the name of a block's attention, ``factors`` are published values of ``ffn_expansion_factor``, of
    which one is told where it fits the weights.
    """
    first = [f"{name}.0.{attention}.temperature" for name in BLOCKS]
    needed = ("patch_embed.proj.weight", "up2_1.body.0.weight", "latent.0.ffn.project_in.weight", "output.weight")
    if any(key not in state for key in (*first, *needed)):
        return None
    dim, inp_channels = state[needed[0]].shape[:2]
    hidden, widest = state[needed[2]].shape[0] // 2, dim << LEVELS - 1
    return {
        "inp_channels": inp_channels,
        "out_channels": state["output.weight"].shape[0],
        "dim": dim,
        "num_blocks": [count(state, f"{name}.{{}}.{attention}.temperature") for name in BLOCKS],
        "heads": [state[key].shape[0] for key in first],
        # The widest level tells it best, and half a channel more keeps the others off the edge of rounding.
        "ffn_expansion_factor": next(
            (factor for factor in factors if int(widest * factor) == hidden), (hidden + 0.5) / widest
        ),
        "bias": "patch_embed.proj.bias" in state,
    }
