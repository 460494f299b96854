"""What HAT and DRCT share: shallow maps, groups of window attention, and the way from maps to the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from restorekit.architectures._bands import WHOLE, Band, Bands
from restorekit.architectures._maps import convolve, mean_color, precise, residual_convolution
from restorekit.architectures._network import Network
from restorekit.architectures._windows import init_transformer
from restorekit.errors import ModelError

WIDTH = 64
"""Channels of the maps while they are enlarged."""

TAIL_MEMORY = 720
"""Measured bytes a pixel of the picture while float32 maps are enlarged."""


class WindowSR(Network):
    """Base of super-resolution by residual groups: ``layers`` holds modules called as ``group(maps, bands)``.

    Maps are ``[B,H,W,embed_dim]`` in the type of the input, also under autocast: sums over blocks lose nothing.
    """

    tail_halo = 3

    def __init__(
        self,
        in_chans: int,
        embed_dim: int,
        groups: Sequence[nn.Module],
        patch_norm: bool,
        upscale: int,
        img_range: float,
        upsampler: str,
        resi_connection: str,
    ) -> None:
        super().__init__()
        if upsampler != "pixelshuffle":
            raise ValueError(f"upsampler is '{upsampler}'; there is 'pixelshuffle' only")
        self.scale = upscale
        self.in_channels = in_chans
        self.img_range = img_range
        self.conv_first = nn.Conv2d(in_chans, embed_dim, 3, padding=1)
        self.patch_embed = nn.ModuleDict({"norm": nn.LayerNorm(embed_dim)} if patch_norm else {})
        self.layers = nn.ModuleList(groups)
        self.norm = nn.LayerNorm(embed_dim)
        self.conv_after_body = residual_convolution(resi_connection, embed_dim)
        self.conv_before_upsample = nn.Sequential(nn.Conv2d(embed_dim, WIDTH, 3, padding=1), nn.LeakyReLU())
        self.upsample = _upsampler(upscale)
        self.conv_last = nn.Conv2d(WIDTH, in_chans, 3, padding=1)
        self.apply(init_transformer)

    def features(self, x: Tensor, bands: Bands = WHOLE) -> Tensor:
        """``[B,C,H,W]`` to ``[B,embed_dim,H,W]``. Raises ModelError if H or W is no multiple of the window."""
        grid = self.tiling.grid
        if x.shape[2] % grid or x.shape[3] % grid:
            raise ModelError(f"{type(self).__name__} takes multiples of {grid} px; pad {x.shape[3]} x {x.shape[2]} px")
        shallow = bands.run(self._shallow, x.permute(0, 2, 3, 1), dim=1, halo=1)
        maps = bands.run(self._embed, shallow, dim=1) if "norm" in self.patch_embed else shallow
        for group in self.layers:
            maps = group(maps, bands)
        return bands.run(self._deep, maps, shallow, dim=1, halo=1).permute(0, 3, 1, 2)

    def tail(self, features: Tensor) -> Tensor:
        x = precise(self.conv_last, self.upsample(self.conv_before_upsample(features)))
        return x / self.img_range + self._mean(x)[:, None, None]

    def _shallow(self, band: Band, image: Tensor) -> Tensor:
        return convolve(partial(precise, self.conv_first), (image - self._mean(image)) * self.img_range)

    def _embed(self, band: Band, maps: Tensor) -> Tensor:
        result: Tensor = self.patch_embed["norm"](maps)
        return result

    def _deep(self, band: Band, maps: Tensor, shallow: Tensor) -> Tensor:
        return convolve(self.conv_after_body, self.norm(maps)) + shallow

    def _mean(self, x: Tensor) -> Tensor:
        return mean_color(x, self.in_channels)


def resolution(img_size: int | Sequence[int], patch_size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width of the training pictures in patches."""
    size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
    patch = (patch_size, patch_size) if isinstance(patch_size, int) else tuple(patch_size)
    return size[0] // patch[0], size[1] // patch[1]


def detect_shell(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The hyperparameters that ``WindowSR`` itself has, as a state dict tells them."""
    return {
        "in_chans": state["conv_first.weight"].shape[1],
        "embed_dim": state["conv_first.weight"].shape[0],
        "patch_norm": "patch_embed.norm.weight" in state,
        "upscale": _detect_scale(state),
        "upsampler": "pixelshuffle",
        "resi_connection": "1conv" if "conv_after_body.weight" in state else "identity",
    }


def _upsampler(scale: int) -> nn.Sequential:
    if scale == 3:
        return nn.Sequential(nn.Conv2d(WIDTH, 9 * WIDTH, 3, padding=1), nn.PixelShuffle(3))
    if scale < 1 or scale & (scale - 1):
        raise ValueError(f"upscale is {scale}; it is 3 or a power of two")
    steps = scale.bit_length() - 1
    layers = ((nn.Conv2d(WIDTH, 4 * WIDTH, 3, padding=1), nn.PixelShuffle(2)) for _ in range(steps))
    return nn.Sequential(*(layer for pair in layers for layer in pair))


def _detect_scale(state: Mapping[str, Tensor]) -> int:
    convolutions = [key for key in state if key.startswith("upsample.") and key.endswith(".weight")]
    if len(convolutions) == 1 and state[convolutions[0]].shape[0] == 9 * WIDTH:
        return 3
    return int(2 ** len(convolutions))
