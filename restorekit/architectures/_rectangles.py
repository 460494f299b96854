"""Attention in rectangular windows, flat ones for half of the channels and upright ones for the other half.

Chen, Zhang, Gu, Zhang, Kong, Yuan, "Cross Aggregation Transformer for Image Restoration", NeurIPS 2022. Maps are
``[B,H,W,C]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorekit.architectures._windows import MASKED, attention, join_windows, split_windows

Places = tuple[Tensor, Tensor]
"""Offsets between pixels of a window ``[M,2]``, and ``[N,N]``: which of them lies between which two pixels."""


class RectangleAttention(nn.Module):
    """Windows of ``split_size`` px (height, width) for the first half of the heads, turned by 90 degrees for the rest.

    A shifted one moves its windows by half their size, around the borders of the map; ``masked`` keeps pixels apart
    that only so come together. Maps are padded with zero queries, keys and values to multiples of the longer side. A
    depthwise convolution of the values is added.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        split_size: Sequence[int],
        shifted: bool,
        masked: bool,
        qkv_bias: bool,
        qk_scale: float | None,
    ) -> None:
        super().__init__()
        if num_heads < 2 or num_heads % 2 or dim % num_heads:
            raise ValueError(f"num_heads is {num_heads}; it takes an even number that divides {dim} channels")
        height, width = split_size
        self.heads = num_heads // 2
        self.sizes = ((height, width), (width, height))
        self.shifted = shifted
        self.masked = masked
        self.scale = qk_scale
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.get_v = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.attns = nn.ModuleList(_Branch(dim // 8, self.heads) for _ in self.sizes)

    def attend(self, x: Tensor, places: Sequence[Places]) -> Tensor:
        """``[B,H,W,C]`` to the same; ``places`` are those of the flat and of the upright windows."""
        height, width = x.shape[1:3]
        multiple = max(self.sizes[0])
        qkv = F.linear(x, _by_branch(self.qkv.weight), None if self.qkv.bias is None else _by_branch(self.qkv.bias))
        branches = []
        for maps, size, branch, place in zip(qkv.chunk(2, -1), self.sizes, self.attns, places, strict=True):
            if height % multiple or width % multiple:
                maps = F.pad(maps, (0, 0, 0, -width % multiple, 0, -height % multiple))
            branches.append(self._windows(maps, size, branch(*place))[:, :height, :width])
        values = torch.cat([maps.chunk(3, -1)[2] for maps in qkv.chunk(2, -1)], -1)
        local = self.get_v(values.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.proj(torch.cat(branches, -1) + local)  # type: ignore[no-any-return]

    def _windows(self, qkv: Tensor, size: tuple[int, int], bias: Tensor) -> Tensor:
        if not self.shifted:
            return self._attention(qkv, size, bias)
        shift = (size[0] // 2, size[1] // 2)
        rolled = torch.roll(qkv, (-shift[0], -shift[1]), (1, 2))
        if not self.masked:
            return torch.roll(self._attention(rolled, size, bias), shift, (1, 2))
        # Windows inside, in the last column, in the last row and in the corner have one mask each.
        below, beside = qkv.shape[1] - size[0], qkv.shape[2] - size[1]
        kinds = product((slice(0, below), slice(below, None)), (slice(0, beside), slice(beside, None)))
        result = qkv.new_empty((*qkv.shape[:3], qkv.shape[3] // 3))
        for (rows, columns), mask in zip(kinds, shift_masks(2 * size[0], 2 * size[1], size, bias.device), strict=True):
            piece = rolled[:, rows, columns]
            if piece.numel():
                result[:, rows, columns] = self._attention(piece, size, bias + mask)
        return torch.roll(result, shift, (1, 2))

    def _attention(self, qkv: Tensor, size: tuple[int, int], bias: Tensor) -> Tensor:
        tokens = split_windows(qkv, *size)
        q, k, v = tokens.view(*tokens.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        found = attention(q, k, v, bias, self.scale).transpose(1, 2).flatten(2)
        return join_windows(found, *size, *qkv.shape[1:3])


class _Branch(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.pos = DynamicPositionBias(dim, heads)

    def forward(self, offsets: Tensor, index: Tensor) -> Tensor:
        return self.pos(offsets, index)  # type: ignore[no-any-return]


class DynamicPositionBias(nn.Module):
    """A bias of the scores by the offset between two pixels (Wang et al., CrossFormer, ICLR 2022)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        hidden = dim // 4
        if hidden < 1:
            raise ValueError("embed_dim is too small for a position bias; it takes 32 channels at least")
        self.pos_proj = nn.Linear(2, hidden)
        self.pos1 = nn.Sequential(nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, hidden))
        self.pos2 = nn.Sequential(nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, hidden))
        self.pos3 = nn.Sequential(nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, heads))

    def forward(self, offsets: Tensor, index: Tensor) -> Tensor:
        """``[1,heads,N,N]`` from offsets ``[M,2]`` and an index ``[N,N]`` of them."""
        table = self.pos3(self.pos2(self.pos1(self.pos_proj(offsets))))
        return table[index].permute(2, 0, 1)[None].contiguous()  # type: ignore[no-any-return]


def window_offsets(height: int, width: int) -> Tensor:
    """``[(2h-1)*(2w-1),2]`` float: the offsets (down, right) between two pixels of a window, row after row."""
    down, right = torch.arange(1 - height, height), torch.arange(1 - width, width)
    return torch.stack(torch.meshgrid(down, right, indexing="ij"), -1).flatten(0, 1).float()


def shift_masks(height: int, width: int, size: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """``[windows,N,N]`` for the windows of a map that was rolled up and left by half their size.

    ``MASKED`` where one pixel is from this side of the map and the other from the opposite side, else 0.
    """
    down = torch.arange(height, device=device) >= height - size[0] // 2
    right = torch.arange(width, device=device) >= width - size[1] // 2
    side = split_windows((down[:, None] * 2 + right * 1)[None, :, :, None], *size)
    apart = side != side.transpose(1, 2)
    return torch.zeros(apart.shape, device=device).masked_fill(apart, MASKED)


def _by_branch(rows: Tensor) -> Tensor:
    """Rows of (q, k, v), each of two branches, in the order of two branches, each of (q, k, v)."""
    return rows.view(3, 2, -1, *rows.shape[1:]).transpose(0, 1).reshape(rows.shape)
