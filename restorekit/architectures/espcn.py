"""ESPCN: three convolutions and a pixel shuffle, on luma.

Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural
Network", CVPR 2016. Its authors released no code; the variants are the three implementations whose weights are
about: https://github.com/Lornatang/ESPCN-PyTorch, https://github.com/leftthomas/ESPCN and
https://github.com/yjn870/ESPCN-pytorch.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import Any, Literal

from torch import Tensor, nn

from restorekit.architectures._maps import precise
from restorekit.architectures._network import Detected, Network
from restorekit.tiling import Tiling

Variant = Literal["lornatang", "leftthomas", "yjn870"]

HYPERPARAMETERS: Mapping[str, tuple[str, ...]] = {
    "lornatang": ("in_channels", "out_channels", "channels", "upscale_factor"),
    "leftthomas": ("upscale_factor",),
    "yjn870": ("num_channels", "scale_factor"),
}

LAYERS: Mapping[str, tuple[str, str, str]] = {
    "lornatang": ("feature_maps.0", "feature_maps.2", "sub_pixel.0"),
    "leftthomas": ("conv1", "conv2", "conv3"),
    "yjn870": ("first_part.0", "first_part.2", "last_part.0"),
}


class ESPCN(Network):
    """``[B,C,H,W]`` in 0..1, usually the luma alone, to ``scale`` times the size; any H and W.

    The variants name their layers and hyperparameters differently and end differently: ``lornatang`` clamps its
    result to 0..1, ``leftthomas`` takes the sigmoid, ``yjn870`` gives what the last convolution gives. Raises
    ValueError for a hyperparameter that a variant does not have, and without the one that says the scale.
    """

    tail_halo = 4

    def __init__(
        self,
        variant: Variant = "lornatang",
        in_channels: int | None = None,
        out_channels: int | None = None,
        channels: int | None = None,
        upscale_factor: int | None = None,
        scale_factor: int | None = None,
        num_channels: int | None = None,
    ) -> None:
        super().__init__()
        given = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "channels": channels,
            "upscale_factor": upscale_factor,
            "scale_factor": scale_factor,
            "num_channels": num_channels,
        }
        if variant not in HYPERPARAMETERS:
            raise ValueError(f"variant is '{variant}'; there are {', '.join(HYPERPARAMETERS)}")
        for name, value in given.items():
            if value is not None and name not in HYPERPARAMETERS[variant]:
                raise ValueError(f"{variant} has no {name}; it has {', '.join(HYPERPARAMETERS[variant])}")
        factor = scale_factor if variant == "yjn870" else upscale_factor
        if factor is None:
            raise ValueError(f"{variant} needs {HYPERPARAMETERS[variant][-1]}")
        self.variant = variant
        self.scale = factor
        self.in_channels = in_channels or num_channels or 1
        self.tiling = Tiling("exact", halo=4, memory=768, maps=16)

        width = channels or 64
        results = (out_channels or num_channels or 1) * factor**2
        first = nn.Conv2d(self.in_channels, width, 5, padding=2)
        second = nn.Conv2d(width, width // 2, 3, padding=1)
        last = nn.Conv2d(width // 2, results, 3, padding=1)
        if variant == "lornatang":
            self.feature_maps = nn.Sequential(first, nn.Tanh(), second, nn.Tanh())
            self.sub_pixel = nn.Sequential(last, nn.PixelShuffle(factor))
        elif variant == "yjn870":
            self.first_part = nn.Sequential(first, nn.Tanh(), second, nn.Tanh())
            self.last_part = nn.Sequential(last, nn.PixelShuffle(factor))
        else:
            self.conv1, self.conv2, self.conv3 = first, second, last
            self.pixel_shuffle = nn.PixelShuffle(factor)

    def tail(self, features: Tensor) -> Tensor:
        """The whole network; its features are its input."""
        if self.variant == "lornatang":
            return precise(self.sub_pixel, self.feature_maps[1:](precise(self.feature_maps[0], features))).clamp(0, 1)
        if self.variant == "yjn870":
            return precise(self.last_part, self.first_part[1:](precise(self.first_part[0], features)))
        maps = self.conv2(precise(self.conv1, features).tanh()).tanh()
        result: Tensor = self.pixel_shuffle(precise(self.conv3, maps))
        return result.sigmoid()

    @classmethod
    def detect(cls, state: Mapping[str, Tensor]) -> Detected | None:
        variant = next((name for name, layers in LAYERS.items() if set(state) == _keys(layers)), None)
        if variant is None:
            return None
        weights = [state[f"{layer}.weight"] for layer in LAYERS[variant]]
        if [tuple(weight.shape[2:]) for weight in weights] != [(5, 5), (3, 3), (3, 3)]:
            return None
        channels, in_channels = weights[0].shape[:2]
        results = weights[2].shape[0]
        out_channels = next((n for n in (in_channels, 1, 3) if isqrt(results // n) ** 2 * n == results), None)
        if out_channels is None:
            return None
        factor = isqrt(results // out_channels)
        if variant == "lornatang":
            config: dict[str, Any] = {
                "in_channels": in_channels,
                "out_channels": out_channels,
                "channels": channels,
                "upscale_factor": factor,
            }
        elif variant == "yjn870":
            config = {"scale_factor": factor, "num_channels": in_channels}
        else:
            config = {"upscale_factor": factor}
        return Detected({"variant": variant, **config})


def _keys(layers: tuple[str, ...]) -> set[str]:
    return {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
