"""VGG-19 as a source of features: the first layer of each of its five levels, with weights from a file of the user's.

Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015. Layers have the
numbers of torchvision's ``vgg19().features``. Nothing is downloaded.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorekit.architectures._bands import Band, Bands
from restorekit.errors import ModelError
from restorekit.zoo import checkpoint
from restorekit.zoo.cards import home

CHANNELS = (64, 128, 256, 512, 512)
"""Of the maps relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1."""

SHAPES = {
    0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128), 10: (256, 128), 12: (256, 256), 14: (256, 256),
    16: (256, 256), 19: (512, 256), 21: (512, 512), 23: (512, 512), 25: (512, 512), 28: (512, 512),
}  # fmt: skip
"""Channels out of and into each 3x3 convolution, by its number; those after relu5_1 are left out."""

STEPS = (((0, 2), 5), ((7,), 10), ((12, 14, 16), 19), ((21, 23, 25), 28))
"""The convolutions from the picture to relu2_1, from there to relu3_1 and so on: before the size halves, and after."""

FILE = "vgg19-dcbb9e9d.pth (download.pytorch.org/models)"

ROWS = 32
"""Pairs of rows of a band, at least, so that few are computed twice."""


class VGG19(nn.Module):
    """Maps of RGB in 0..1 ``[B,H,W,3]``, not normalised.

    Its weights are no parameters and no part of state dicts. They are read from :func:`folder` by :meth:`load`, or
    when they are needed first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loaded = False
        for index, (results, channels) in SHAPES.items():
            self.register_buffer(f"weight{index}", torch.empty(results, channels, 3, 3), persistent=False)
            self.register_buffer(f"bias{index}", torch.empty(results), persistent=False)

    def load(self) -> None:
        """Read the weights, once.

        Raises ModelError where there are none, or a file cannot be read.
        """
        if self.loaded:
            return
        state = _found(folder())
        for index in SHAPES:
            weight = self.get_buffer(f"weight{index}").copy_(state[f"{index}.weight"])
            setattr(self, f"weight{index}", weight.contiguous(memory_format=torch.channels_last))
            self.get_buffer(f"bias{index}").copy_(state[f"{index}.bias"])
        self.loaded = True

    def first(self, image: Tensor) -> Tensor:
        """relu1_1 ``[B,H,W,64]``, also under autocast in the type of the weights."""
        self.load()
        with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
            return self._layer(0, image.to(self.get_buffer("weight0").dtype))

    def coarser(self, image: Tensor, bands: Bands) -> list[Tensor]:
        """relu2_1, relu3_1, relu4_1 and relu5_1, ``[B,H/2,W/2,128]`` to ``[B,H/16,W/16,512]``, rounded down."""
        self.load()
        if bands.rows is not None:
            bands = replace(bands, rows=max(bands.rows, ROWS))
        found = [image]
        with torch.no_grad():
            for inside, after in STEPS:
                maps, even = found[-1], found[-1].shape[1] // 2 * 2
                step = partial(self._step, inside, after, maps[:, even:])
                pairs = torch.unflatten(maps[:, :even], 1, (-1, 2))
                found.append(bands.run(step, pairs, dim=1, halo=1 + -(-len(inside) // 2)))
        return found[1:]

    def _step(self, inside: tuple[int, ...], after: int, leftover: Tensor, band: Band, pairs: Tensor) -> Tensor:
        """``leftover`` is the last row of a map with an odd number of them: it is looked at, and makes no row."""
        maps = pairs.flatten(1, 2)
        if band.is_last and leftover.shape[1]:
            maps = torch.cat((maps, leftover.to(maps.device)), 1)
        for index in inside:
            maps = self.first(maps) if index == 0 else self._layer(index, maps)
        halved = F.max_pool2d(maps.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
        return self._layer(after, halved)

    def _layer(self, index: int, maps: Tensor) -> Tensor:
        weight, bias = self.get_buffer(f"weight{index}"), self.get_buffer(f"bias{index}")
        return F.relu_(F.conv2d(maps.permute(0, 3, 1, 2), weight, bias, padding=1)).permute(0, 2, 3, 1)


def folder() -> Path:
    """Where the file with the weights of VGG-19 lies: ``$RESTOREKIT_HOME/vgg19``."""
    return home() / "vgg19"


def _found(place: Path) -> dict[str, Tensor]:
    """The weights among the files of a folder, known by their content: torchvision's VGG-19, or its ``features``."""
    wanted: dict[str, tuple[int, ...]] = {}
    for index, (results, channels) in SHAPES.items():
        wanted |= {f"{index}.weight": (results, channels, 3, 3), f"{index}.bias": (results,)}
    for path in sorted(path for path in place.glob("*") if path.suffix in (".pth", ".safetensors")):
        state = {name.removeprefix("features."): tensor for name, tensor in checkpoint.read(path).items()}
        if all(name in state and state[name].shape == shape for name, shape in wanted.items()):
            broken = [name for name in wanted if not bool(state[name].isfinite().all())]
            if broken:
                raise ModelError(f"{path}: holds weights that are not finite ({broken[0]}); get the file again")
            return state
    raise ModelError(f"{place}: the weights of VGG-19 are missing; put {FILE} there")
