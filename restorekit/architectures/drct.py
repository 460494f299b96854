"""DRCT: super-resolution by window attention in densely connected groups.

Hsu, Lee, Chou, "DRCT: Saving Image Super-Resolution away from Information Bottleneck", CVPR workshops (NTIRE) 2024.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorekit.architectures._bands import Band, Bands
from restorekit.architectures._network import Detected
from restorekit.architectures._weights import count, ratio
from restorekit.architectures._window_sr import TAIL_MEMORY, WindowSR, detect_shell, resolution
from restorekit.architectures._windows import (
    Mlp,
    WindowAttention,
    in_cache,
    over_windows,
    relative_position_index,
    roll,
    shift_masks,
)
from restorekit.tiling import Tiling

BLOCKS = 5
"""Blocks of a group; ``depths`` of the authors does not change it."""


class DRCT(WindowSR):
    """``[B,C,H,W]`` RGB in 0..1 to ``upscale`` times the size; H and W are multiples of the window.

    Hyperparameters are those of the authors. ``depths`` says how many groups there are and nothing else. Where a
    training picture of ``img_size`` is no larger than a window, the window is that picture and windows are not
    shifted. ``compress_ratio``, ``squeeze_factor``, ``conv_scale`` and ``overlap_ratio`` mean nothing here;
    drop-out, stochastic depth and ``use_checkpoint`` are ignored. Raises ValueError for values that do not go
    together, for ``ape``, and for any other ``upsampler``.
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
        gc: int = 32,
    ) -> None:
        size = resolution(img_size, patch_size)
        if ape:
            raise ValueError("ape is not supported: absolute positions tie the network to one size")
        if len(depths) != len(num_heads):
            raise ValueError(f"depths has {len(depths)} groups and num_heads {len(num_heads)}")
        shift = window_size // 2 if min(size) > window_size else 0
        window = min(*size, window_size)
        if shift and (size[0] % window or size[1] % window):
            raise ValueError(f"img_size is no multiple of a window of {window} px")
        groups = [
            _Group(embed_dim, gc, heads, window, shift, size, mlp_ratio, qkv_bias, qk_scale)
            for _, heads in zip(depths, num_heads, strict=True)
        ]
        super().__init__(in_chans, embed_dim, groups, patch_norm, upscale, img_range, upsampler, resi_connection)
        self.tiling = Tiling(
            "exact",
            grid=window,
            halo=32,
            minimum=window,
            memory=max(24 * embed_dim, TAIL_MEMORY * upscale**2),
            maps=20 * embed_dim,
        )

    @classmethod
    def detect(cls, state: Mapping[str, Tensor]) -> Detected | None:
        """See ``Network.detect``."""
        table = "layers.{}.swin1.attn.relative_position_bias_table"
        required = ("conv_first.weight", "layers.0.adjust1.weight", "layers.0.swin1.mlp.fc1.weight", table.format(0),
                    "layers.0.swin1.attn.relative_position_index")  # fmt: skip
        if not all(key in state for key in required):
            return None
        dim = state["conv_first.weight"].shape[0]
        window = isqrt(state["layers.0.swin1.attn.relative_position_index"].shape[0])
        masks = state.get("layers.0.swin2.attn_mask")
        groups = count(state, table)
        config = {
            **detect_shell(state),
            "img_size": window if masks is None else window * isqrt(masks.shape[0]),
            "depths": (6,) * groups,
            "num_heads": tuple(state[table.format(i)].shape[1] for i in range(groups)),
            "window_size": window,
            "mlp_ratio": ratio(state["layers.0.swin1.mlp.fc1.weight"].shape[0], dim),
            "qkv_bias": "layers.0.swin1.attn.qkv.bias" in state,
            "ape": "absolute_pos_embed" in state,
            "gc": state["layers.0.adjust1.weight"].shape[0],
        }
        assumed = (
            "img_range is not stored in the weights; 1 is assumed",
            "qk_scale is not stored in the weights; that of the head size is assumed",
        )
        return Detected(config, assumed)


class _Group(nn.Module):
    """Five blocks, each on the maps of all before it; ``adjust`` makes few channels of a block's many."""

    def __init__(
        self,
        dim: int,
        growth: int,
        heads: int,
        window: int,
        shift: int,
        size: tuple[int, int],
        mlp_ratio: float,
        qkv_bias: bool,
        qk_scale: float | None,
    ) -> None:
        super().__init__()
        self.window = window
        for k in range(BLOCKS):
            width = dim + k * growth
            block = _Block(
                width,
                heads - width % heads if k else heads,
                window,
                shift * (k % 2),
                size,
                mlp_ratio if k < 3 else 1,
                qkv_bias,
                qk_scale,
            )
            setattr(self, f"swin{k + 1}", block)
            setattr(self, f"adjust{k + 1}", nn.Conv2d(width, growth if k < BLOCKS - 1 else dim, 1))

    def forward(self, x: Tensor, bands: Bands) -> Tensor:
        maps = [x]
        for k in range(BLOCKS):
            maps.append(self._grown(k, maps, bands))
        return maps[-1]

    def _grown(self, k: int, maps: Sequence[Tensor], bands: Bands) -> Tensor:
        block, adjust = getattr(self, f"swin{k + 1}"), getattr(self, f"adjust{k + 1}")
        last = k == BLOCKS - 1

        def grow(band: Band, *pieces: Tensor) -> Tensor:
            def narrowed(tokens: Tensor, mask: Tensor | None) -> Tensor:
                grown = F.linear(block(tokens, mask), adjust.weight.flatten(1), adjust.bias).to(tokens.dtype)
                return grown * 0.2 + tokens[..., : grown.shape[-1]] if last else F.leaky_relu(grown, 0.2)

            return over_windows(narrowed, torch.cat(pieces, 3), self.window, block.shift, band.is_last)

        if block.shift:
            maps = [roll(piece, block.shift) for piece in maps]
        grown = in_cache(bands, maps[0]).run(grow, *maps, dim=1, grid=self.window)
        return roll(grown, -block.shift) if block.shift else grown


class _Block(nn.Module):
    """Window attention and an MLP, each with a shortcut, on the tokens of windows."""

    def __init__(
        self,
        dim: int,
        heads: int,
        window: int,
        shift: int,
        size: tuple[int, int],
        mlp_ratio: float,
        qkv_bias: bool,
        qk_scale: float | None,
    ) -> None:
        super().__init__()
        self.shift = shift
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, window, heads, qkv_bias, qk_scale)
        self.attn.register_buffer("relative_position_index", relative_position_index(window, window))
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.register_buffer("attn_mask", shift_masks(*size, window, shift) if shift else None)

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        tokens = tokens + self.attn(self.norm1(tokens), mask)
        result: Tensor = tokens + self.mlp(self.norm2(tokens))
        return result
