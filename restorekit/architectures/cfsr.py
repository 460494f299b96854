"""CFSR: super-resolution by convolutions alone, large depthwise kernels in place of attention.

Wu, Jiang, Jiang, Liu, "Transforming Image Super-Resolution: A ConvFormer-based Efficient Approach", IEEE TIP 2024.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorekit.architectures._bands import WHOLE, Band, Bands
from restorekit.architectures._depthwise import Depthwise
from restorekit.architectures._maps import convolve, mean_color, pointwise, precise
from restorekit.architectures._network import Detected, Network
from restorekit.tiling import Tiling

EDGES = {
    "sobel_x": ("scale_sobel_x", "mask_sobel_x", "sobel_x_bias"),
    "sobel_y": ("scale_sobel_y", "mask_sobel_y", "sobel_y_bias"),
    "laplacian": ("scale_laplacian", "mask_laplacian", "laplacian_bias"),
}
"""The branches beside a depthwise convolution while the authors train: scale times mask is a kernel, and a bias."""


class CFSR(Network):
    """``[B,C,H,W]`` RGB in 0..1 to ``scale`` times the size; any H and W.

    Weights load in the merged form that the authors release, and in the form they train, whose edge branches are
    summed into the depthwise convolutions while loading; a branch that is there in part is reported as missing keys.
    Without ``upsampler="pixelshuffledirect"`` the network keeps the size and ``upscale`` is ignored.
    """

    tail_halo = 1

    def __init__(
        self,
        in_chans: int = 3,
        embed_dim: int = 96,
        depths: Sequence[int] = (6, 6, 6, 6),
        dw_size: int = 3,
        mlp_ratio: float = 4.0,
        upscale: int = 2,
        img_range: float = 1.0,
        upsampler: str = "",
    ) -> None:
        super().__init__()
        enlarges = upsampler == "pixelshuffledirect"
        self.scale = upscale if enlarges else 1
        self.in_channels = in_chans
        self.img_range = img_range
        self.tiling = Tiling("exact", halo=32, memory=1536, maps=512)
        self.conv_first = nn.Conv2d(in_chans, embed_dim, 3, padding=1)
        self.layers = nn.ModuleList(_Layer(embed_dim, depth, dw_size, mlp_ratio) for depth in depths)
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.conv_after_body = nn.Conv2d(embed_dim, embed_dim, 3, padding=1)
        if enlarges:
            self.upsample = nn.Sequential(
                nn.Conv2d(embed_dim, in_chans * upscale**2, 3, padding=1), nn.PixelShuffle(upscale)
            )
        else:
            self.conv_last = nn.Conv2d(embed_dim, in_chans, 3, padding=1)

    def features(self, x: Tensor, bands: Bands = WHOLE) -> Tensor:
        """Maps ``[B,embed_dim,H,W]``; where the network keeps the size, with the input behind them."""
        image = x.permute(0, 2, 3, 1)
        maps = bands.run(self._shallow, image, dim=1, halo=1)
        for layer in self.layers:
            assert isinstance(layer, _Layer)
            for block in layer.blocks:
                assert isinstance(block, _Block)
                maps = bands.run(block.mix, maps, dim=1, halo=block.attn.halo)
                maps = bands.run(block.feed_forward, maps, dim=1, halo=1)
            maps = bands.run(layer.join, maps, dim=1, reuse=maps)
        maps = bands.run(self._deep, maps, image, dim=1, halo=1).permute(0, 3, 1, 2)
        return maps if self.scale > 1 else torch.cat((maps, x), 1)

    def _shallow(self, band: Band, image: Tensor) -> Tensor:
        return convolve(partial(precise, self.conv_first), (image - self._mean(image)) * self.img_range)

    def _deep(self, band: Band, maps: Tensor, image: Tensor) -> Tensor:
        # The first convolution is cheaper to run twice than its result is to keep.
        y: Tensor = self.norm(maps)
        return convolve(self.conv_after_body, y) + self._shallow(band, image)

    def tail(self, features: Tensor) -> Tensor:
        if self.scale > 1:
            y = precise(self.upsample, features)
            return y / self.img_range + self._mean(y).view(-1, 1, 1)
        maps, x = features.tensor_split((-self.in_channels,), 1)
        return x + precise(self.conv_last, maps) / self.img_range

    def _mean(self, like: Tensor) -> Tensor:
        return mean_color(like, self.in_channels)

    @classmethod
    def detect(cls, state: Mapping[str, Tensor]) -> Detected | None:
        needed = (
            "conv_first.weight",
            "layers.0.blocks.0.attn.a.2.lkb_reparam.weight",
            "layers.0.blocks.0.mlp.pos.bias",
        )
        if any(key not in state for key in needed):
            return None
        embed_dim, in_chans = state["conv_first.weight"].shape[:2]
        depths: list[int] = []
        while f"layers.{len(depths)}.conv.weight" in state:
            layer = f"layers.{len(depths)}.blocks."
            depths.append(len({key.removeprefix(layer).split(".")[0] for key in state if key.startswith(layer)}))
        config: dict[str, Any] = {
            "in_chans": in_chans,
            "embed_dim": embed_dim,
            "depths": depths,
            "dw_size": state[needed[1]].shape[-1],
            "mlp_ratio": state[needed[2]].shape[0] / embed_dim,
            "upscale": 1,
            "upsampler": "",
        }
        if "upsample.0.weight" in state:
            config["upscale"] = isqrt(state["upsample.0.weight"].shape[0] // in_chans)
            config["upsampler"] = "pixelshuffledirect"
        return Detected(config, ("img_range is not stored in the weights; 1 is assumed",))


class _Layer(nn.Module):
    """Blocks, then a 1x1 convolution. Its network runs the blocks, so that it can let go of every map in turn."""

    def __init__(self, dim: int, depth: int, dw_size: int, mlp_ratio: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(dim, dw_size, mlp_ratio) for _ in range(depth))
        self.conv = nn.Conv2d(dim, dim, 1)

    def join(self, band: Band, x: Tensor) -> Tensor:
        """The rows of ``[B,H,W,C]`` that come out of the blocks, with the convolution's result added."""
        return x + pointwise(self.conv, x)


class _Block(nn.Module):
    def __init__(self, dim: int, dw_size: int, mlp_ratio: float) -> None:
        super().__init__()
        self.attn = _ConvMod(dim, dw_size)
        self.mlp = _MLP(dim, int(dim * mlp_ratio))
        self.layer_scale_1 = nn.Parameter(torch.full((dim,), 1e-6))
        self.layer_scale_2 = nn.Parameter(torch.full((dim,), 1e-6))

    def mix(self, band: Band, x: Tensor) -> Tensor:
        """The rows of ``[B,H,W,C]`` with the large kernel's result added."""
        y: Tensor = self.attn(x)
        return x + self.layer_scale_1 * y

    def feed_forward(self, band: Band, x: Tensor) -> Tensor:
        """The rows of ``[B,H,W,C]`` with the MLP's result added."""
        y: Tensor = self.mlp(x)
        return x + self.layer_scale_2 * y


class _ConvMod(nn.Module):
    """A large depthwise kernel whose result multiplies the values, as attention would."""

    def __init__(self, dim: int, dw_size: int) -> None:
        super().__init__()
        self.halo = dw_size // 2
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.a = nn.Sequential(nn.Conv2d(dim, dim, 1), nn.GELU(), _LargeKernelConv(dim, dw_size))
        self.v = nn.Conv2d(dim, dim, 1)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(x)
        first, gelu, kernel = self.a
        assert isinstance(first, nn.Conv2d)
        attended = convolve(kernel, gelu(pointwise(first, y)))
        return pointwise(self.proj, attended * pointwise(self.v, y))


class _LargeKernelConv(nn.Module):
    def __init__(self, dim: int, size: int) -> None:
        super().__init__()
        self.lkb_reparam = Depthwise(dim, size)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.lkb_reparam(x)
        return y


class _MLP(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.pos = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.fc2 = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(pointwise(self.fc1, self.norm(x)))
        return pointwise(self.fc2, y + F.gelu(convolve(self.pos, y)))

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        # torch hands a copy of the user's mapping, and loads ``pos`` from it after this.
        branches = [[prefix + name for name in names] for names in EDGES.values()]
        found = {key: state_dict.pop(key) for keys in branches for key in keys if key in state_dict}
        weight, bias = prefix + "pos.weight", prefix + "pos.bias"
        if found:
            missing_keys.extend(key for keys in branches for key in keys if key not in found)
        if len(found) == sum(map(len, branches)) and weight in state_dict and bias in state_dict:
            for scale, mask, shift in branches:
                state_dict[weight] = state_dict[weight] + found[scale] * found[mask]
                state_dict[bias] = state_dict[bias] + found[shift]
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
