"""WaveMixSR and WaveMixSR-V2: super-resolution by mixing the bands of a Haar transform.

Jeevan, Srinidhi, Prathiba, Sethi, "WaveMixSR: A Resource-efficient Neural Network for Image Super-resolution", WACV
2024; Jeevan, Nixon, Sethi, "WaveMixSR-V2: Enhancing Super-resolution with Higher Efficiency", AAAI 2025.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from restorekit.architectures._maps import precise
from restorekit.architectures._network import Detected, Network
from restorekit.tiling import Tiling

Upsample = Literal["bicubic", "bilinear"]

REACH: Mapping[Upsample, int] = {"bicubic": 2, "bilinear": 1}
"""How far, in px of its input, interpolation looks."""


class WaveMixSR(Network):
    """Y'CbCr ``[B,3,H,W]`` in 0..1 to ``scale`` times the size; any H and W, or even ones at an odd scale.

    Luma is interpolated and then goes through the network, chroma is only interpolated. ``upsample`` says how: the
    authors' programs use both ways, and their weights do not tell which. ``final_dim`` is a multiple of 4.
    """

    def __init__(
        self,
        *,
        depth: int,
        mult: int = 1,
        ff_channel: int = 16,
        final_dim: int = 16,
        dropout: float = 0.3,
        scale: int = 2,
        upsample: Upsample = "bicubic",
    ) -> None:
        super().__init__()
        self.scale = scale
        self.in_channels = 3
        halo = _halo(depth, scale, upsample)
        self.tail_halo = halo
        memory = 6 * 4 * final_dim * scale**2
        self.tiling = Tiling("exact", grid=1 + scale % 2, halo=halo, memory=memory, maps=16)
        self.layers = nn.ModuleList(_Level1Waveblock(mult, ff_channel, final_dim, dropout) for _ in range(depth))
        self.final = _final(final_dim)
        self.path1 = _path1(final_dim, scale, upsample)
        self.path2 = _path2(scale, upsample)

    def tail(self, features: Tensor) -> Tensor:
        """The whole network; its features are its input."""
        return _enlarge(features, self.path1, self.layers, self.final, self.path2)

    @classmethod
    def detect(cls, state: Mapping[str, Tensor]) -> Detected | None:
        block = "layers.0.feedforward."
        if any(key not in state for key in (f"{block}0.weight", f"{block}4.weight", "path1.2.weight", "final.1.bias")):
            return None
        widened, final_dim = state[f"{block}0.weight"].shape[:2]
        config = {
            "depth": len({key.split(".")[1] for key in state if key.startswith("layers.")}),
            "mult": widened // final_dim,
            "ff_channel": state[f"{block}4.weight"].shape[0],
            "final_dim": final_dim,
        }
        return Detected(
            config,
            (
                "scale is not stored in the weights; 2 is assumed",
                "upsample is not stored in the weights; bicubic is assumed",
            ),
        )


class WaveMixSRV2(Network):
    """Y'CbCr ``[B,3,H,W]`` in 0..1 to ``sr`` times the size, a power of 2, twofold after twofold; any H and W.

    Built from the description in the paper (figure 4c), as the authors' program does not run: after the multi-layer
    perceptron a pixel shuffle, a 3x3 convolution back to ``final_dim`` channels and the batch normalisation. At
    ``final_dim=144`` that gives 375,769 parameters for x2 and 751,538 for x4, where the paper says 0.7 M. Names of
    layers follow the authors' program.
    """

    def __init__(
        self,
        *,
        sr: int = 2,
        blocks: int = 2,
        mult: int = 1,
        final_dim: int = 16,
        dropout: float = 0.3,
        upsample: Upsample = "bicubic",
    ) -> None:
        super().__init__()
        stages = sr.bit_length() - 1
        if sr < 2 or sr != 2**stages:
            raise ValueError(f"sr is {sr}; it is a power of 2, 2 or more")
        self.scale = sr
        self.in_channels = 3
        halo = 0
        for _ in range(stages):
            halo = _halo(blocks, 2, upsample, halo)
        self.tail_halo = halo
        self.tiling = Tiling("exact", halo=halo, memory=4 * 4 * final_dim * sr**2, maps=16)
        self.SR_blocks = nn.ModuleList(_Twofold(blocks, mult, final_dim, dropout, upsample) for _ in range(stages))

    def tail(self, features: Tensor) -> Tensor:
        """The whole network; its features are its input."""
        for block in self.SR_blocks:
            features = block(features)
        return features

    @classmethod
    def detect(cls, state: Mapping[str, Tensor]) -> Detected | None:
        block = "SR_blocks.0.layers.0.feedforward."
        if any(key not in state for key in (f"{block}0.weight", f"{block}5.weight", "SR_blocks.0.final.1.bias")):
            return None
        widened, final_dim = state[f"{block}0.weight"].shape[:2]
        config = {
            "sr": 2 ** len({key.split(".")[1] for key in state if key.startswith("SR_blocks.")}),
            "blocks": len({key.split(".")[3] for key in state if key.startswith("SR_blocks.0.layers.")}),
            "mult": widened // final_dim,
            "final_dim": final_dim,
        }
        return Detected(config, ("upsample is not stored in the weights; bicubic is assumed",))


class _Twofold(nn.Module):
    """One step of WaveMixSR-V2: Y'CbCr to twice the size."""

    def __init__(self, blocks: int, mult: int, final_dim: int, dropout: float, upsample: Upsample) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_V2Block(mult, final_dim, dropout) for _ in range(blocks))
        self.final = _final(final_dim)
        self.path1 = _path1(final_dim, 2, upsample)
        self.path2 = _path2(2, upsample)

    def forward(self, x: Tensor) -> Tensor:
        return _enlarge(x, self.path1, self.layers, self.final, self.path2)


class _Mixer(nn.Module):
    """Reduction to a quarter of the channels, the Haar transform, ``feedforward`` back to the size and channels."""

    feedforward: nn.Sequential

    def __init__(self, final_dim: int) -> None:
        super().__init__()
        if final_dim % 4:
            raise ValueError(f"final_dim is {final_dim}; it is a multiple of 4")
        self.reduction = nn.Conv2d(final_dim, final_dim // 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.feedforward(haar(self.reduction(x)))
        return y


class _Level1Waveblock(_Mixer):
    def __init__(self, mult: int, ff_channel: int, final_dim: int, dropout: float) -> None:
        super().__init__(final_dim)
        self.feedforward = nn.Sequential(
            nn.Conv2d(final_dim, final_dim * mult, 1),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Conv2d(final_dim * mult, ff_channel, 1),
            nn.ConvTranspose2d(ff_channel, final_dim, 4, stride=2, padding=1),
            nn.BatchNorm2d(final_dim),
        )


class _V2Block(_Mixer):
    def __init__(self, mult: int, final_dim: int, dropout: float) -> None:
        super().__init__(final_dim)
        self.feedforward = nn.Sequential(
            nn.Conv2d(final_dim, final_dim * mult, 1),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Conv2d(final_dim * mult, final_dim, 1),
            nn.PixelShuffle(2),
            nn.Conv2d(final_dim // 4, final_dim, 3, padding=1),
            nn.BatchNorm2d(final_dim),
        )


def haar(x: Tensor) -> Tensor:
    """The orthonormal Haar transform of ``[B,C,H,W]``, one level: ``[B,4C,H/2,W/2]``.

    First the means of all channels, then channel by channel the differences of rows, of columns and of both.
    """
    total, across = x[..., ::2] + x[..., 1::2], x[..., ::2] - x[..., 1::2]
    low = (total[..., ::2, :] + total[..., 1::2, :]) / 2
    rows = (total[..., ::2, :] - total[..., 1::2, :]) / 2
    columns = (across[..., ::2, :] + across[..., 1::2, :]) / 2
    both = (across[..., ::2, :] - across[..., 1::2, :]) / 2
    return torch.cat((low, torch.stack((rows, columns, both), 2).flatten(1, 2)), 1)


def _path1(final_dim: int, scale: int, upsample: Upsample) -> nn.Sequential:
    return nn.Sequential(
        nn.Upsample(scale_factor=scale, mode=upsample, align_corners=False),
        nn.Conv2d(1, final_dim // 2, 3, padding=1),
        nn.Conv2d(final_dim // 2, final_dim, 3, padding=1),
    )


def _path2(scale: int, upsample: Upsample) -> nn.Sequential:
    return nn.Sequential(nn.Upsample(scale_factor=scale, mode=upsample, align_corners=False))


def _final(final_dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(final_dim, final_dim // 2, 3, padding=1), nn.Conv2d(final_dim // 2, 1, 1))


def _enlarge(
    x: Tensor, path1: nn.Sequential, layers: Iterable[nn.Module], final: nn.Sequential, path2: nn.Module
) -> Tensor:
    y = path1[2](precise(path1[1], path1[0](x[:, :1])))
    for layer in layers:
        y = layer(y) + y
    return torch.cat((precise(final[1], final[0](y)), path2(x[:, 1:])), 1)


def _halo(blocks: int, scale: int, upsample: Upsample, more: int = 0) -> int:
    """How far, in px of its input, a network looks if what comes after it looks ``more`` px of its output.

    At the large size a block looks 2 px, a 3x3 convolution 1 px.
    """
    return -(-(more + 2 * blocks + 3) // scale) + REACH[upsample]
