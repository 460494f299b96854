"""RLFN: plain convolutions and one spatial attention a block, made for speed.

Kong et al., "Residual Local Feature Network for Efficient Super-Resolution", CVPR Workshops 2022 (winner of the
runtime track of the NTIRE 2022 challenge on efficient super-resolution).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import isqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorekit.architectures._bands import WHOLE, Band, Bands
from restorekit.architectures._maps import convolve, pointwise, precise
from restorekit.architectures._network import Detected, Network
from restorekit.tiling import Tiling

RANGE = 255.0
"""The authors train on values of 0..255."""


class RLFN(Network):
    """``[B,C,H,W]`` RGB in 0..1 to ``upscale`` times the size; H and W from 15 px.

    The published network has 6 blocks of 52 channels, its small sibling RLFN-S 48 channels, and the one of the
    challenge 4 blocks of 46 channels with 48 ``mid_channels``. Spatial attention comes from a coarse map that is
    stretched over the image, so a tile cut out of it differs a little from the whole; bands do not.
    """

    tail_halo = 1

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        feature_channels: int = 52,
        upscale: int = 4,
        mid_channels: int | None = None,
        blocks: int = 6,
    ) -> None:
        super().__init__()
        self.scale = upscale
        self.in_channels = in_channels
        self.blocks = blocks
        self.tiling = Tiling("exact", halo=16, minimum=15, memory=1024, maps=512)
        self.conv_1 = nn.Conv2d(in_channels, feature_channels, 3, padding=1)
        for index in range(blocks):
            setattr(self, f"block_{index + 1}", _Block(feature_channels, mid_channels or feature_channels))
        self.conv_2 = nn.Conv2d(feature_channels, feature_channels, 3, padding=1)
        self.upsampler = nn.Sequential(
            nn.Conv2d(feature_channels, out_channels * upscale**2, 3, padding=1), nn.PixelShuffle(upscale)
        )

    def features(self, x: Tensor, bands: Bands = WHOLE) -> Tensor:
        """``[B,C,H,W]`` to ``[B,feature_channels,H,W]``."""
        image = x.permute(0, 2, 3, 1)
        maps = bands.run(self._shallow, image, dim=1, halo=1)
        for index in range(self.blocks):
            block = getattr(self, f"block_{index + 1}")
            maps = bands.run(block.convolve, maps, dim=1, halo=3)
            coarse = block.esa.coarse(maps, bands)
            maps = bands.run(partial(block.esa.gate, coarse), maps, dim=1, reuse=maps)
        return bands.run(self._deep, maps, image, dim=1, halo=1).permute(0, 3, 1, 2)

    def tail(self, features: Tensor) -> Tensor:
        return precise(self.upsampler, features) / RANGE

    def _shallow(self, band: Band, image: Tensor) -> Tensor:
        return convolve(partial(precise, self.conv_1), image * RANGE)

    def _deep(self, band: Band, maps: Tensor, image: Tensor) -> Tensor:
        # The first convolution is cheaper to run twice than its result is to keep.
        return convolve(self.conv_2, maps) + self._shallow(band, image)

    @classmethod
    def detect(cls, state: Mapping[str, Tensor]) -> Detected | None:
        needed = ("conv_1.weight", "block_1.c1_r.weight", "block_1.esa.conv_f.weight", "upsampler.0.weight")
        if any(key not in state for key in needed):
            return None
        feature_channels, in_channels = state["conv_1.weight"].shape[:2]
        results = state["upsampler.0.weight"].shape[0]
        upscale = isqrt(results // in_channels)
        if upscale**2 * in_channels != results:
            return None
        return Detected(
            {
                "in_channels": in_channels,
                "out_channels": in_channels,
                "feature_channels": feature_channels,
                "upscale": upscale,
                "mid_channels": state["block_1.c1_r.weight"].shape[0],
                "blocks": len({key.split(".")[0] for key in state if key.startswith("block_")}),
            }
        )


class _Block(nn.Module):
    """Three convolutions with a shortcut past them, and a 1x1 convolution; the attention ``esa`` comes after it."""

    def __init__(self, channels: int, mid_channels: int) -> None:
        super().__init__()
        self.c1_r = nn.Conv2d(channels, mid_channels, 3, padding=1)
        self.c2_r = nn.Conv2d(mid_channels, mid_channels, 3, padding=1)
        self.c3_r = nn.Conv2d(mid_channels, channels, 3, padding=1)
        self.c5 = nn.Conv2d(channels, channels, 1)
        self.esa = _Attention(channels)

    def convolve(self, band: Band, x: Tensor) -> Tensor:
        """The rows of ``[B,H,W,C]`` that the attention weighs."""
        y = x.permute(0, 3, 1, 2)
        for layer in (self.c1_r, self.c2_r, self.c3_r):
            y = F.leaky_relu(layer(y), 0.05, inplace=True)
        return pointwise(self.c5, y.permute(0, 2, 3, 1) + x)


class _Attention(nn.Module):
    """Enhanced spatial attention: a weight for every value from its pixel and from a coarse map of the image."""

    def __init__(self, channels: int, width: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1)
        self.conv_f = nn.Conv2d(width, width, 1)
        self.conv2 = nn.Conv2d(width, width, 3, stride=2)
        self.conv3 = nn.Conv2d(width, width, 3, padding=1)
        self.conv4 = nn.Conv2d(width, channels, 1)

    def coarse(self, x: Tensor, bands: Bands) -> Tensor:
        """``[B,H,W,C]`` to the map ``[B,16,H/6,W/6]``, where the operators run; rows by rows up to half the size."""
        height = (x.shape[1] - 1) // 2
        step = bands.rows or height
        rows = []
        for top in range(0, height, step):
            piece = x[:, 2 * top : 2 * min(top + step, height) + 1]
            piece = pointwise(self.conv1, piece if bands.device is None else piece.to(bands.device))
            rows.append(self.conv2(piece.permute(0, 3, 1, 2)))
        y: Tensor = self.conv3(F.max_pool2d(torch.cat(rows, 2), 7, stride=3))
        return y

    def gate(self, coarse: Tensor, band: Band, x: Tensor) -> Tensor:
        """The rows of ``[B,H,W,C]``, weighed."""
        y = pointwise(self.conv_f, pointwise(self.conv1, x))
        return x * pointwise(self.conv4, y + stretch(coarse, band, x.shape[2]).permute(0, 2, 3, 1)).sigmoid()


def stretch(coarse: Tensor, band: Band, width: int) -> Tensor:
    """The rows of a band of ``[B,C,h,w]`` interpolated linearly to the height of the image and ``width``."""
    rows = torch.arange(band.top, band.bottom, device=coarse.device, dtype=torch.float32)
    position = ((rows + 0.5) * (coarse.shape[2] / band.height) - 0.5).clamp(min=0)
    above = position.long()
    below = (above + 1).clamp(max=coarse.shape[2] - 1)
    share = (position - above).to(coarse.dtype)[:, None]
    y = coarse[:, :, above] * (1 - share) + coarse[:, :, below] * share
    return F.interpolate(y, (len(rows), width), mode="bilinear", align_corners=False)
