"""DRUNet: a U-Net of residual blocks without biases, made for denoising.

Zhang, Li, Zuo, Zhang, Van Gool, Timofte, "Plug-and-Play Image Restoration with Deep Denoiser Prior", TPAMI 2021; names
and order of layers are those of ``UNetRes`` in https://github.com/cszn/DPIR.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from restorekit.architectures._bands import WHOLE, Band, Bands
from restorekit.architectures._maps import convolve, precise
from restorekit.architectures._network import Detected, Network
from restorekit.tiling import Tiling

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "R": partial(nn.ReLU, inplace=True),
    "L": partial(nn.LeakyReLU, 0.2, inplace=True),
}
"""By the authors' letters."""

LEAST_ROWS = 12
"""Rows of a band for each block of a level, at least, so that few are computed twice: a sixth in all."""


class DRUNet(Network):
    """``[B,C,H,W]`` in 0..1 to the same size; H and W are multiples of ``2**(len(nc) - 1)``.

    ``nc`` are the channels of 2 to 5 levels, each half as large as the one before (the published network has 4),
    ``nb`` the blocks of a level. Without biases the network is homogeneous: a picture times a positive number gives the
    result times that number. It is blind here, it takes the picture alone; the networks that the authors released take
    a map of the noise as one more channel.

    Raises ValueError where ``in_nc`` and ``out_nc`` differ, for other numbers of levels or blocks, and for an unknown
    mode.
    """

    def __init__(
        self,
        in_nc: int = 1,
        out_nc: int = 1,
        nc: Sequence[int] = (64, 128, 256, 512),
        nb: int = 4,
        act_mode: Literal["R", "L"] = "R",
        downsample_mode: Literal["strideconv"] = "strideconv",
        upsample_mode: Literal["convtranspose"] = "convtranspose",
    ) -> None:
        super().__init__()
        if in_nc != out_nc:
            raise ValueError(
                f"in_nc is {in_nc} and out_nc {out_nc}; those that take a map of the noise are not supported"
            )
        if not 2 <= len(nc) <= 5 or nb < 1:
            raise ValueError(f"nc has {len(nc)} levels and nb is {nb}; there are 2 to 5 levels of 1 block or more")
        for name, given, known in (
            ("act_mode", act_mode, tuple(ACTIVATIONS)),
            ("downsample_mode", downsample_mode, ("strideconv",)),
            ("upsample_mode", upsample_mode, ("convtranspose",)),
        ):
            if given not in known:
                raise ValueError(f"{name} is '{given}'; there is {', '.join(known)}")
        self.scale = 1
        self.in_channels = in_nc
        self.nb = nb
        self.steps = range(1, len(nc))
        grid, halo = 2 ** (len(nc) - 1), _halo(nb, len(nc))
        self.tiling = Tiling("exact", grid=grid, halo=halo, memory=26 * nc[0], maps=_kept(nc))

        def blocks(channels: int) -> list[nn.Module]:
            return [_Block(channels, ACTIVATIONS[act_mode]()) for _ in range(nb)]

        self.m_head = _convolution(in_nc, nc[0])
        for step in self.steps:
            fine, coarse = nc[step - 1], nc[step]
            down = nn.Conv2d(fine, coarse, 2, stride=2, bias=False)
            up = nn.ConvTranspose2d(coarse, fine, 2, stride=2, bias=False)
            setattr(self, f"m_down{step}", nn.Sequential(*blocks(fine), down))
            setattr(self, f"m_up{step}", nn.Sequential(up, *blocks(fine)))
        self.m_body = nn.Sequential(*blocks(nc[-1])) if nb > 1 else blocks(nc[-1])[0]
        self.m_tail = _convolution(nc[0], out_nc)

    def forward(self, x: Tensor) -> Tensor:
        maps = precise(self.m_head, x)
        kept = []
        for step in self.steps:
            kept.append(maps)
            maps = self._layer("m_down", step)(maps)
        maps = self.m_body(maps) + maps
        for step in reversed(self.steps):
            maps = self._layer("m_up", step)(maps) + kept.pop()
        return precise(self.m_tail, maps)

    def features(self, x: Tensor, bands: Bands = WHOLE) -> Tensor:
        """The picture, as ``forward`` makes it; no maps of full size are kept, the first ones are computed twice.

        Maps are ``[B,H,W,C]``, and ``[B,H/2,2,W,C]`` where the level below is made of them or they of it.
        """
        if bands.rows is not None:
            bands = replace(bands, rows=max(bands.rows, LEAST_ROWS * self.nb))
        image = _pairs(x.permute(0, 2, 3, 1))
        maps = bands.run(self._enter, image, dim=1, halo=self.nb + 1)
        kept = []
        for step in self.steps[1:]:
            kept.append(maps)
            maps = bands.run(partial(self._down, step), _pairs(maps), dim=1, halo=self.nb)
        maps = bands.run(self._body, maps, dim=1, halo=2 * self.nb)
        for step in reversed(self.steps[1:]):
            skip = _pairs(kept.pop())  # written over: what a band needs of the rows beside it is in ``maps``
            maps = bands.run(partial(self._up, step), maps, skip, dim=1, halo=self.nb, reuse=skip).flatten(1, 2)
        return bands.run(self._leave, maps, image, dim=1, halo=self.nb + 1).flatten(1, 2).permute(0, 3, 1, 2)

    def tail(self, features: Tensor) -> Tensor:
        return features

    def _enter(self, band: Band, image: Tensor) -> Tensor:
        return convolve(self._layer("m_down", 1), self._head(image))

    def _down(self, step: int, band: Band, maps: Tensor) -> Tensor:
        return convolve(self._layer("m_down", step), maps.flatten(1, 2))

    def _body(self, band: Band, maps: Tensor) -> Tensor:
        return convolve(self.m_body, maps) + maps

    def _up(self, step: int, band: Band, maps: Tensor, skip: Tensor) -> Tensor:
        return _pairs(convolve(self._layer("m_up", step), maps)) + skip

    def _leave(self, band: Band, maps: Tensor, image: Tensor) -> Tensor:
        maps = convolve(self._layer("m_up", 1), maps) + self._head(image)
        return _pairs(convolve(partial(precise, self.m_tail), maps))

    def _head(self, image: Tensor) -> Tensor:
        return convolve(partial(precise, self.m_head), image.flatten(1, 2))

    def _layer(self, name: str, step: int) -> nn.Module:
        layer: nn.Module = getattr(self, f"{name}{step}")
        return layer

    @classmethod
    def detect(cls, state: Mapping[str, Tensor]) -> Detected | None:
        steps, nb = 0, 0
        while f"m_down{steps + 1}.0.res.0.weight" in state:
            steps += 1
        while f"m_down1.{nb}.res.0.weight" in state:
            nb += 1
        downs = [f"m_down{step + 1}.{nb}.weight" for step in range(steps)]
        ups = [f"m_up{step + 1}.0.weight" for step in range(steps)]
        ends = ["m_head.weight", "m_tail.weight"]
        if not steps or any(key not in state for key in (*downs, *ups, *ends)):
            return None
        if any(key.endswith(".bias") for key in state) or any(state[key].shape[2:] != (2, 2) for key in downs + ups):
            return None
        in_nc, out_nc = state["m_head.weight"].shape[1], state["m_tail.weight"].shape[0]
        if in_nc != out_nc:  # takes a map of the noise
            return None
        nc = [state["m_head.weight"].shape[0], *(state[key].shape[0] for key in downs)]
        return Detected(
            {"in_nc": in_nc, "out_nc": out_nc, "nc": nc, "nb": nb},
            ("act_mode is not stored in the weights; R is assumed",),
        )


class _Block(nn.Module):
    """Two convolutions with a shortcut past them."""

    def __init__(self, channels: int, activation: nn.Module) -> None:
        super().__init__()
        self.res = nn.Sequential(_convolution(channels, channels), activation, _convolution(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.res(x)
        return y.add_(x)  # in the type of autocast, and no derivative needs what the convolution gave


def _convolution(channels: int, results: int) -> nn.Conv2d:
    return nn.Conv2d(channels, results, 3, padding=1, bias=False)


def _pairs(maps: Tensor) -> Tensor:
    """``[B,H,W,C]`` as ``[B,H/2,2,W,C]``: as many pairs of rows as the level below has rows."""
    return torch.unflatten(maps, 1, (-1, 2))


def _halo(nb: int, levels: int) -> int:
    """How far a network looks, in px: just so far, where the pixel stands well in the grids of all levels."""
    reach = 2 * nb
    for _ in range(levels - 1):
        reach = 2 * reach + 1 + 4 * nb
    return reach + 2


def _kept(nc: Sequence[int]) -> int:
    """Bytes a pixel of what lies whole in memory: input, result, maps of the levels below full size, the last twice."""
    maps = [4 * channels >> 2 * level for level, channels in enumerate(nc)]
    return 24 + sum(maps[1:]) + maps[-1]
