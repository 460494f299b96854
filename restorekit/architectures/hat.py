"""HAT: super-resolution by window attention, channel attention and attention to overlapping windows.

Chen, Wang, Zhou, Qiao, Dong, "Activating More Pixels in Image Super-Resolution Transformer", CVPR 2023.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from math import isqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorekit.architectures._bands import Band, Bands
from restorekit.architectures._maps import convolve, residual_convolution
from restorekit.architectures._network import Detected
from restorekit.architectures._weights import count, ratio
from restorekit.architectures._window_sr import TAIL_MEMORY, WindowSR, detect_shell, resolution
from restorekit.architectures._windows import (
    Mlp,
    PositionBias,
    WindowAttention,
    attention,
    in_cache,
    join_windows,
    keys_and_values,
    over_windows,
    queries,
    relative_position_index,
    roll,
    split_windows,
)
from restorekit.tiling import Tiling


class HAT(WindowSR):
    """``[B,C,H,W]`` RGB in 0..1 to ``upscale`` times the size; H and W are multiples of ``window_size``.

    Hyperparameters are those of the authors. ``img_size`` and ``patch_size`` only decide whether windows are shifted:
    they are if a training picture is larger than a window. Drop-out, stochastic depth and ``use_checkpoint`` are
    ignored. Raises ValueError for values that do not go together, for ``ape``, and for any other ``upsampler``.
    """

    def __init__(
        self,
        img_size: int | Sequence[int] = 64,
        patch_size: int | Sequence[int] = 1,
        in_chans: int = 3,
        embed_dim: int = 96,
        depths: Sequence[int] = (6, 6, 6, 6),
        num_heads: Sequence[int] = (6, 6, 6, 6),
        window_size: int = 7,
        compress_ratio: int = 3,
        squeeze_factor: int = 30,
        conv_scale: float = 0.01,
        overlap_ratio: float = 0.5,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        ape: bool = False,
        patch_norm: bool = True,
        use_checkpoint: bool = False,
        upscale: int = 2,
        img_range: float = 1.0,
        upsampler: str = "pixelshuffle",
        resi_connection: str = "1conv",
    ) -> None:
        smallest = min(resolution(img_size, patch_size))
        overlap = int(overlap_ratio * window_size)
        if ape:
            raise ValueError("ape is not supported: absolute positions tie the network to one size")
        if len(depths) != len(num_heads):
            raise ValueError(f"depths has {len(depths)} groups and num_heads {len(num_heads)}")
        if smallest < window_size:
            raise ValueError(f"img_size is smaller than a window of {window_size} px")
        if overlap % 2 or not 0 <= overlap <= 2 * window_size:
            raise ValueError(
                f"overlap_ratio {overlap_ratio} makes {overlap} px; it takes an even number up to two windows"
            )
        shift = window_size // 2 if smallest > window_size else 0
        groups = [
            _Group(
                [
                    _HybridBlock(
                        embed_dim, window_size, shift * (i % 2), heads, compress_ratio, squeeze_factor, conv_scale,
                        mlp_ratio, qkv_bias, qk_scale,
                    )
                    for i in range(depth)
                ],
                _OverlappingAttention(embed_dim, window_size, overlap, heads, mlp_ratio, qkv_bias, qk_scale),
                residual_convolution(resi_connection, embed_dim),
            )
            for depth, heads in zip(depths, num_heads, strict=True)
        ]  # fmt: skip
        super().__init__(in_chans, embed_dim, groups, patch_norm, upscale, img_range, upsampler, resi_connection)
        self.tiling = Tiling(
            "exact",
            grid=window_size,
            halo=48,
            minimum=window_size,
            memory=max(28 * embed_dim, TAIL_MEMORY * upscale**2),
            maps=22 * embed_dim,
        )
        index = relative_position_index(window_size, window_size)
        self.register_buffer("relative_position_index_SA", index)
        self.register_buffer("relative_position_index_OCA", _overlapping_index(window_size, window_size + overlap))

    @classmethod
    def detect(cls, state: Mapping[str, Tensor]) -> Detected | None:
        """See ``Network.detect``."""
        block = "layers.0.residual_group.blocks.0."
        table = "layers.{}.residual_group.overlap_attn.relative_position_bias_table"
        required = ("conv_first.weight", "relative_position_index_SA", "relative_position_index_OCA", table.format(0),
                    f"{block}conv_block.cab.0.weight", f"{block}conv_block.cab.3.attention.1.weight",
                    f"{block}mlp.fc1.weight")  # fmt: skip
        if not all(key in state for key in required):
            return None
        dim = state["conv_first.weight"].shape[0]
        window = isqrt(state["relative_position_index_SA"].shape[0])
        overlap = isqrt(state["relative_position_index_OCA"].shape[1]) - window
        groups = count(state, table)
        config = {
            **detect_shell(state),
            "depths": tuple(count(state, f"layers.{i}.residual_group.blocks.{{}}.norm1.weight") for i in range(groups)),
            "num_heads": tuple(state[table.format(i)].shape[1] for i in range(groups)),
            "window_size": window,
            "compress_ratio": dim // state[f"{block}conv_block.cab.0.weight"].shape[0],
            "squeeze_factor": dim // state[f"{block}conv_block.cab.3.attention.1.weight"].shape[0],
            "overlap_ratio": ratio(overlap, window),
            "mlp_ratio": ratio(state[f"{block}mlp.fc1.weight"].shape[0], dim),
            "qkv_bias": f"{block}attn.qkv.bias" in state,
            "ape": "absolute_pos_embed" in state,
        }
        assumed = (
            "conv_scale is not stored in the weights; 0.01 is assumed",
            "img_range is not stored in the weights; 1 is assumed",
            "qk_scale is not stored in the weights; that of the head size is assumed",
            "whether windows are shifted is not stored in the weights; they are assumed to be",
        )
        return Detected({**config, "img_size": max(64, 2 * window)}, assumed)


class _Group(nn.Module):
    """Hybrid blocks, attention to overlapping windows and a convolution, around which the maps are added."""

    def __init__(self, blocks: Sequence[nn.Module], overlap_attn: nn.Module, conv: nn.Module) -> None:
        super().__init__()
        self.residual_group = _Blocks(blocks, overlap_attn)
        self.conv = conv

    def forward(self, x: Tensor, bands: Bands) -> Tensor:
        return bands.run(self._add, self.residual_group(x, bands), x, dim=1, halo=1)

    def _add(self, band: Band, x: Tensor, shortcut: Tensor) -> Tensor:
        return convolve(self.conv, x) + shortcut


class _Blocks(nn.Module):
    def __init__(self, blocks: Sequence[nn.Module], overlap_attn: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.overlap_attn = overlap_attn

    def forward(self, x: Tensor, bands: Bands) -> Tensor:
        for block in self.blocks:
            x = block(x, bands)
        attended: Tensor = self.overlap_attn(x, bands)
        return attended


class _HybridBlock(nn.Module):
    """Window attention and, beside it, convolutions with channel attention; then an MLP.

    Without gradients, a block with shifted windows may overwrite the maps that it is given.
    """

    def __init__(
        self,
        dim: int,
        window: int,
        shift: int,
        heads: int,
        compress_ratio: int,
        squeeze_factor: int,
        conv_scale: float,
        mlp_ratio: float,
        qkv_bias: bool,
        qk_scale: float | None,
    ) -> None:
        super().__init__()
        self.window = window
        self.shift = shift
        self.conv_scale = conv_scale
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, window, heads, qkv_bias, qk_scale)
        self.conv_block = _ConvBlock(dim, dim // compress_ratio, dim // squeeze_factor)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor, bands: Bands) -> Tensor:
        convolved = bands.run(self._convolve, x, dim=1, halo=2)
        gate = self.conv_block.gate(convolved) * self.conv_scale
        if self.shift:
            rolled = roll(x, self.shift)
            rolled = in_cache(bands, x).run(self._attend, rolled, dim=1, grid=self.window, reuse=rolled)
            x = roll(rolled, -self.shift, into=x)
        else:
            x = in_cache(bands, x).run(self._attend, x, dim=1, grid=self.window)

        def mix(band: Band, attended: Tensor, convolved: Tensor) -> Tensor:
            mixed = attended + convolved * gate
            hidden: Tensor = self.mlp(self.norm2(mixed))
            return mixed + hidden

        return in_cache(bands, x).run(mix, x, convolved, dim=1, reuse=x)

    def _convolve(self, band: Band, x: Tensor) -> Tensor:
        convolved: Tensor = self.conv_block(self.norm1(x))
        return convolved

    def _attend(self, band: Band, x: Tensor) -> Tensor:
        def attend(tokens: Tensor, mask: Tensor | None) -> Tensor:
            attended: Tensor = self.attn(self.norm1(tokens), mask)
            return tokens + attended

        return over_windows(attend, x, self.window, self.shift, band.is_last)


class _ConvBlock(nn.Module):
    """Two convolutions ``[B,H,W,C]``, and the factors of their channels."""

    def __init__(self, dim: int, hidden: int, squeezed: int) -> None:
        super().__init__()
        self.cab = nn.Sequential(
            nn.Conv2d(dim, hidden, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(hidden, dim, 3, padding=1),
            _ChannelAttention(dim, squeezed),
        )

    def forward(self, x: Tensor) -> Tensor:
        return convolve(self.cab[:3], x)

    def gate(self, maps: Tensor) -> Tensor:
        """``[B,1,1,C]`` from the means over whole maps, on the device of the weights."""
        mean = maps.mean((1, 2), keepdim=True, dtype=torch.float32).to(maps.dtype)
        return convolve(self.cab[3], mean.to(next(self.parameters()).device))


class _ChannelAttention(nn.Module):
    def __init__(self, dim: int, squeezed: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            nn.Identity(), nn.Conv2d(dim, squeezed, 1), nn.ReLU(), nn.Conv2d(squeezed, dim, 1), nn.Sigmoid()
        )

    def forward(self, mean: Tensor) -> Tensor:
        """Factors ``[B,C,1,1]`` from mean values."""
        factors: Tensor = self.attention(mean)
        return factors


class _OverlappingAttention(PositionBias):
    """Every window looks at a larger window about itself, which is zero outside the picture; then an MLP."""

    def __init__(
        self, dim: int, window: int, overlap: int, heads: int, mlp_ratio: float, qkv_bias: bool, qk_scale: float | None
    ) -> None:
        super().__init__()
        self.window = window
        self.margin = overlap // 2
        self.heads = heads
        self.scale = qk_scale
        self.norm1 = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window + overlap - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor, bands: Bands) -> Tensor:
        bands = in_cache(bands, x)
        if bands.rows is not None:
            bands = replace(bands, rows=max(self.window, bands.rows // self.window * self.window))
        return bands.run(self._attend, x, dim=1, halo=self.margin)

    def _attend(self, band: Band, x: Tensor) -> Tensor:
        """A band of whole windows and, unless the picture ends there, ``margin`` rows above and below."""
        above, below = self.margin * (band.top > 0), self.margin * (not band.is_last)
        rows = slice(above, x.shape[1] - below)
        normed = self.norm1(x)
        q = split_windows(queries(self.qkv, normed[:, rows]), self.window, self.window)
        kv = self._larger_windows(keys_and_values(self.qkv, normed), above, below)
        tokens = self._overlapping(q, kv)
        x = x[:, rows]
        x = x + self.proj(join_windows(tokens, self.window, self.window, x.shape[1], x.shape[2]))
        x = x + self.mlp(self.norm2(x))
        return F.pad(x, (0, 0, 0, 0, above, below)) if above or below else x

    def _larger_windows(self, kv: Tensor, above: int, below: int) -> Tensor:
        """Keys and values ``[B,H,W,2C]`` to ``[B*windows,M,2C]``."""
        margin, size = self.margin, self.window + 2 * self.margin
        kv = F.pad(kv, (0, 0, margin, margin, margin - above, margin - below))
        windows = kv.unfold(1, size, self.window).unfold(2, size, self.window)
        return windows.permute(0, 1, 2, 4, 5, 3).reshape(-1, size**2, kv.shape[3])

    def _overlapping(self, q: Tensor, kv: Tensor) -> Tensor:
        """Attention of ``[windows,N,C]`` to ``[windows,M,2C]``."""
        bias = self.position_bias(_cached_index(self.window, self.window + 2 * self.margin, q.device))
        k, v = kv.view(*kv.shape[:2], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        q = q.reshape(*q.shape[:2], self.heads, -1).transpose(1, 2)
        return attention(q, k, v, bias, self.scale).transpose(1, 2).flatten(2)


def _overlapping_index(inner: int, outer: int) -> Tensor:
    """``[N,M]`` int64: the row of a bias table for a pixel of a window and one of the larger window about it.

    It is the authors' numbering, which is partly negative and there counts from the end of the table.
    """
    inside, around = torch.arange(inner), torch.arange(outer)
    offset = around[None, :] - inside[:, None] + inner - outer + 1
    rows = offset[:, None, :, None] * (inner + outer - 1)
    return (rows + offset[None, :, None, :]).reshape(inner**2, outer**2)


@lru_cache(maxsize=8)
def _cached_index(inner: int, outer: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False), device:
        return _overlapping_index(inner, outer)
