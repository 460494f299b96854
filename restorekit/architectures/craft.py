"""CRAFT: super-resolution by rectangle window attention whose maps are fused with high frequencies.

Li, Zhang, Liu, Zhu, "Feature Modulation Transformer: Cross-Refinement of Global Representation via High-Frequency Prior
for Image Super-Resolution", ICCV 2023.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import isqrt, lcm
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorekit.architectures._bands import WHOLE, Band, Bands
from restorekit.architectures._maps import convolve, mean_color, pointwise, precise, residual_convolution
from restorekit.architectures._network import Detected, Network
from restorekit.architectures._rectangles import Places, RectangleAttention, window_offsets
from restorekit.architectures._weights import ratio
from restorekit.architectures._windows import Mlp, init_transformer, relative_position_index
from restorekit.errors import ModelError
from restorekit.tiling import Tiling


class CRAFT(Network):
    """``[B,C,H,W]`` RGB in 0..1 to ``upscale`` times the size; H and W are multiples of both sides of a window.

    Hyperparameters are those of the authors; ``upsampler``, ``img_size`` and ``window_size`` are ignored. Every
    picture sets the weights between its channels from all of its pixels, and shifted windows reach around its borders,
    so that a result depends on the size of a tile. Raises ValueError for values that do not go together.
    """

    tail_halo = 1

    def __init__(
        self,
        in_chans: int = 3,
        embed_dim: int = 96,
        depths: Sequence[int] = (6, 6, 6, 6),
        num_heads: Sequence[int] = (6, 6, 6, 6),
        split_size_0: int = 4,
        split_size_1: int = 16,
        mlp_ratio: float = 2.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        upscale: int = 2,
        img_range: float = 1.0,
        upsampler: str = "",
        resi_connection: str = "1conv",
        img_size: int | Sequence[int] = 64,
        window_size: int = 16,
    ) -> None:
        super().__init__()
        self.scale = upscale
        self.in_channels = in_chans
        self.img_range = img_range
        grid = lcm(split_size_0, split_size_1)
        # Published results are of whole pictures, so tiles are rather larger than the 64 px of the training. From 32 px
        # on, what differs next to a cut is no more than what differs everywhere, as channels are weighted by the tile.
        self.tiling = Tiling("approximate", grid=grid, halo=32, minimum=grid, fixed=512, memory=6144)
        size = (split_size_0, split_size_1)
        self.conv_first = nn.Conv2d(in_chans, embed_dim, 3, padding=1)
        self.layers = nn.ModuleList(
            _Group(embed_dim, depth, heads, size, mlp_ratio, qkv_bias, qk_scale)
            for depth, heads in zip(depths, num_heads, strict=True)
        )
        self.norm = _ChannelNorm(embed_dim)
        self.conv_after_body = residual_convolution(resi_connection, embed_dim)
        self.upsample = nn.Sequential(
            nn.Conv2d(embed_dim, in_chans * upscale**2, 3, padding=1), nn.PixelShuffle(upscale)
        )
        for name, (height, width) in (("h", size), ("v", size[::-1])):
            self.register_buffer(f"relative_position_index_{name}", relative_position_index(height, width))
            self.register_buffer(f"biases_{name}", window_offsets(height, width))
        self.apply(init_transformer)

    def features(self, x: Tensor, bands: Bands = WHOLE) -> Tensor:
        """``[B,C,H,W]`` to ``[B,embed_dim,H,W]``; only the MLPs run band by band.

        Raises ModelError if H or W is no multiple of the windows' sides.
        """
        grid = self.tiling.grid
        if x.shape[2] % grid or x.shape[3] % grid:
            raise ModelError(f"CRAFT takes multiples of {grid} px; pad {x.shape[3]} x {x.shape[2]} px")
        image = x.permute(0, 2, 3, 1).contiguous()  # and so all maps after it
        shallow = convolve(partial(precise, self.conv_first), (image - self._mean(image)) * self.img_range)
        places = ((self.biases_h, self.relative_position_index_h), (self.biases_v, self.relative_position_index_v))
        maps = shallow
        for group in self.layers:
            maps = group(maps, places, bands)
        maps = convolve(self.conv_after_body, self.norm(maps)) + shallow
        return maps.permute(0, 3, 1, 2)

    def tail(self, features: Tensor) -> Tensor:
        x = precise(self.upsample, features)
        return x / self.img_range + self._mean(x).view(-1, 1, 1)

    def _mean(self, like: Tensor) -> Tensor:
        return mean_color(like, self.in_channels)

    @classmethod
    def detect(cls, state: Mapping[str, Tensor]) -> Detected | None:
        block = "layers.0.residual_group."
        needed = (
            "conv_first.weight",
            "biases_h",
            "upsample.0.weight",
            f"{block}srwa_blocks.0.mlp.fc1.weight",
            f"{block}hf_blocks.0.attn.temperature",
        )
        if any(key not in state for key in needed):
            return None
        embed_dim, in_chans = state["conv_first.weight"].shape[:2]
        depths: list[int] = []
        num_heads: list[int] = []
        while (key := f"layers.{len(depths)}.residual_group.hf_blocks.0.attn.temperature") in state:
            group = key.removesuffix("0.attn.temperature")
            depths.append(len({name.removeprefix(group).split(".")[0] for name in state if name.startswith(group)}))
            num_heads.append(state[key].shape[0])
        height, width = (int(side) + 1 for side in state["biases_h"].amax(0))
        config: dict[str, Any] = {
            "in_chans": in_chans,
            "embed_dim": embed_dim,
            "depths": depths,
            "num_heads": num_heads,
            "split_size_0": height,
            "split_size_1": width,
            "mlp_ratio": ratio(state[f"{block}srwa_blocks.0.mlp.fc1.weight"].shape[0], embed_dim),
            "qkv_bias": f"{block}srwa_blocks.0.qkv.bias" in state,
            "upscale": isqrt(state["upsample.0.weight"].shape[0] // in_chans),
            "resi_connection": "1conv" if "conv_after_body.weight" in state else "identity",
        }
        return Detected(config, ("img_range and qk_scale are not stored in the weights; 1 and none are assumed",))


class _Group(nn.Module):
    def __init__(
        self,
        dim: int,
        depth: int,
        num_heads: int,
        size: tuple[int, int],
        mlp_ratio: float,
        qkv_bias: bool,
        qk_scale: float | None,
    ) -> None:
        super().__init__()
        self.residual_group = _Refinement(dim, depth, num_heads, size, mlp_ratio, qkv_bias, qk_scale)
        self.conv = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor, places: Sequence[Places], bands: Bands) -> Tensor:
        return x + convolve(self.conv, self.residual_group(x, places, bands))


class _Refinement(nn.Module):
    """In turn: two blocks of window attention beside one of high frequencies, and the fusion of the two."""

    def __init__(
        self,
        dim: int,
        depth: int,
        num_heads: int,
        size: tuple[int, int],
        mlp_ratio: float,
        qkv_bias: bool,
        qk_scale: float | None,
    ) -> None:
        super().__init__()
        self.srwa_blocks = nn.ModuleList(
            _RectangleBlock(dim, num_heads, size, i % 2 == 1, mlp_ratio, qkv_bias, qk_scale) for i in range(2 * depth)
        )
        self.hfer_blocks = nn.ModuleList(_HighFrequencies(dim) for _ in range(depth))
        self.hf_blocks = nn.ModuleList(_Fusion(dim, num_heads) for _ in range(depth))

    def forward(self, x: Tensor, places: Sequence[Places], bands: Bands) -> Tensor:
        for i, (enhance, fuse) in enumerate(zip(self.hfer_blocks, self.hf_blocks, strict=True)):
            low = x
            for block in (self.srwa_blocks[2 * i], self.srwa_blocks[2 * i + 1]):
                low = block(low, places, bands)
            x = fuse(low, enhance(x), bands)
        return x


class _RectangleBlock(RectangleAttention):
    """Window attention and an MLP. Shifted windows have no mask: they look around the borders of the picture."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        size: tuple[int, int],
        shifted: bool,
        mlp_ratio: float,
        qkv_bias: bool,
        qk_scale: float | None,
    ) -> None:
        super().__init__(dim, num_heads, size, shifted, False, qkv_bias, qk_scale)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor, places: Sequence[Places], bands: Bands) -> Tensor:
        x = x + self.attend(self.norm1(x), places)
        return bands.run(self._feed_forward, x, dim=1)

    def _feed_forward(self, band: Band, x: Tensor) -> Tensor:
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


class _HighFrequencies(nn.Module):
    """A convolution of half of the channels, the largest of 3x3 neighbours of the rest."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim // 2, dim // 2, 3, padding=1)
        self.fc = nn.Conv2d(dim // 2, dim // 2, 1)
        self.last_fc = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, -1)
        largest = F.max_pool2d(second.permute(0, 3, 1, 2), 3, 1, 1).permute(0, 2, 3, 1)
        local, high = convolve(self.conv, first), pointwise(self.fc, largest)
        return x + pointwise(self.last_fc, F.gelu(torch.cat((local, high), -1)))


class _Fusion(nn.Module):
    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = _ChannelNorm(dim)
        self.attn = _ChannelAttention(dim, num_heads)
        self.norm2 = _ChannelNorm(dim)
        self.ffn = _GatedMlp(dim, int(dim * 2.66))

    def forward(self, low: Tensor, high: Tensor, bands: Bands) -> Tensor:
        x = low + self.attn(self.norm1(low), high)
        return bands.run(self._feed_forward, x, dim=1, halo=1)

    def _feed_forward(self, band: Band, x: Tensor) -> Tensor:
        return x + self.ffn(self.norm2(x))  # type: ignore[no-any-return]


class _ChannelNorm(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)  # type: ignore[no-any-return]


class _ChannelAttention(nn.Module):
    """Attention between channels, over all pixels: queries from the high frequencies, keys and values from the low."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.heads = num_heads
        self.temperature = nn.Parameter(torch.ones(num_heads, 1, 1))
        self.q = nn.Conv2d(dim, dim, 1, bias=False)
        self.q_dwconv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False)
        self.kv = nn.Conv2d(dim, 2 * dim, 1, bias=False)
        self.kv_dwconv = nn.Conv2d(2 * dim, 2 * dim, 3, padding=1, groups=2 * dim, bias=False)
        self.project_out = nn.Conv2d(dim, dim, 1, bias=False)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        q = convolve(self.q_dwconv, pointwise(self.q, high)).flatten(1, 2)
        kv = convolve(self.kv_dwconv, pointwise(self.kv, low)).flatten(1, 2)
        k, v = kv.chunk(2, -1)
        # All channels with all others are one product of matrices, faster than head by head; heads are its diagonal.
        products = F.normalize(q, dim=1).transpose(1, 2) @ F.normalize(k, dim=1)
        batch, dim, _ = products.shape
        blocks = products.view(batch, self.heads, -1, self.heads, dim // self.heads).diagonal(dim1=1, dim2=3)
        weights = (blocks.permute(0, 3, 1, 2) * self.temperature).softmax(-1)
        # What follows is linear in v and the same at every pixel: one matrix [C,C] a picture.
        out = self.project_out.weight.view(dim, self.heads, -1).transpose(0, 1)
        matrix = (out @ weights).transpose(1, 2).reshape(products.shape)
        return (v @ matrix.transpose(1, 2)).view_as(low)


class _GatedMlp(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.project_in = nn.Conv2d(dim, 2 * hidden, 1, bias=False)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.project_out = nn.Conv2d(hidden, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = convolve(self.dwconv, pointwise(self.project_in, x)).chunk(2, -1)
        return pointwise(self.project_out, F.gelu(gate) * value)
