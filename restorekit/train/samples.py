"""Samples: pairs of patches, each of which depends on the seed and its number alone.

Sample 70,000 is the same whether training ran through, was resumed there, or ran in several processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from restorekit.color.ycbcr import luma, to_ycbcr
from restorekit.data.degradation import Chain, PictureList, chance, quantized, seeded, uniform, whole
from restorekit.errors import InputError
from restorekit.planes import to_float
from restorekit.stages.carried import reduced
from restorekit.stages.resampling import bicubic, resampled


class Samples(Dataset[tuple[Tensor, Tensor]]):
    """``(input [3,p,p], target [3,scale*p,scale*p])``, float32 in 0..1, from pictures ``[3,H,W]`` of 8 bits.

    ``names`` are what errors call the pictures. Pictures and places in them are drawn evenly, and with ``flips`` one of
    eight orientations. Inputs are degraded targets, or with ``inputs`` the same places of these pictures. Degradations
    mix in other targets, where they mix in pictures. Targets that are degraded are first reduced by a factor drawn from
    ``reduction``, and pairs by one drawn from ``estimate``, no further than the picture has pixels for.
    """

    def __init__(
        self,
        targets: PictureList,
        names: Sequence[object],
        patch: int,
        seed: int,
        chain: Chain | None = None,
        inputs: PictureList | None = None,
        *,
        scale: int = 1,
        flips: bool = True,
        pixels: str = "rgb",
        reduction: tuple[float, float] = (1.0, 1.0),
        estimate: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        if (chain is None) == (inputs is None):
            raise ValueError("inputs are either degraded targets or pictures of their own")
        self.targets, self.names, self.inputs = targets, names, inputs
        self.chain = chain.given(targets) if chain else None
        self.patch, self.seed, self.flips, self.pixels = patch, seed, flips, pixels
        self.reduction, self.estimate = reduction, estimate
        self.scale = chain.scale if chain else scale

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        generator = seeded(self.seed, number)
        index = whole(generator, 0, len(self.targets) - 1)
        if self.inputs is not None:
            pair = self._cut(self.inputs[index], self.targets[index], index, generator)
        else:
            pair = self._degraded(self.targets[index], index, generator)
        first, second = self._turned(pair, generator) if self.flips else pair
        return in_pixels(first, self.pixels), in_pixels(second, self.pixels)

    def _degraded(self, picture: Tensor, index: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        assert self.chain is not None
        margin, scale = self.chain.margin, self.scale
        side = self._estimated(picture, 2 * margin, generator)
        size = side * scale + 2 * margin
        clean = self._reduced(picture, size, index, generator)
        degraded = self.chain(clean, generator)
        edge = margin // scale
        inner = degraded[:, edge : edge + side, edge : edge + side]
        pair = inner, clean[:, margin : size - margin, margin : size - margin]
        if side == self.patch:
            return pair
        return reduced(pair[0], self.patch, self.patch), reduced(pair[1], self.patch, self.patch)

    def _estimated(self, picture: Tensor, beyond: int, generator: torch.Generator) -> int:
        """The side in px of the degraded patch, before it is reduced."""
        if self.estimate == (1.0, 1.0):
            return self.patch
        most = min(picture.shape[1:]) - beyond
        return max(self.patch, min(round(self.patch * uniform(generator, self.estimate)), most))

    def _reduced(self, picture: Tensor, size: int, index: int, generator: torch.Generator) -> Tensor:
        """A part of a picture in 0..1, ``size`` px a side after it was reduced."""
        if self.reduction == (1.0, 1.0):
            return to_float(self._square(picture, size, index, generator)[0])
        side = round(size * uniform(generator, self.reduction))
        side = max(size, min(side, *picture.shape[1:]))
        square = to_float(self._square(picture, side, index, generator)[0])
        return quantized(resampled(square, size, size, bicubic))

    def _cut(self, poor: Tensor, good: Tensor, index: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        scale = self.scale
        check_sizes(poor, good, scale, self.names[index])
        patch, (top, left) = self._square(poor, self.patch, index, generator)
        size = self.patch * scale
        target = good[:, top * scale : top * scale + size, left * scale : left * scale + size]
        return to_float(patch), to_float(target)

    def _square(
        self, picture: Tensor, side: int, index: int, generator: torch.Generator
    ) -> tuple[Tensor, tuple[int, int]]:
        """A part of a picture, and where it was."""
        _, height, width = picture.shape
        if min(height, width) < side:
            raise InputError(
                f"{self.names[index]}: is {width}x{height} px, {side}x{side} are cut out of each picture; leave it out"
            )
        top, left = whole(generator, 0, height - side), whole(generator, 0, width - side)
        return picture[:, top : top + side, left : left + side], (top, left)

    @staticmethod
    def _turned(pair: tuple[Tensor, Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        first, second = pair
        for dims in ((1,), (2,)):
            if chance(generator, 0.5):
                first, second = first.flip(dims), second.flip(dims)
        if chance(generator, 0.5):
            first, second = first.transpose(1, 2), second.transpose(1, 2)
        return first.contiguous(), second.contiguous()


class Batches:
    """Numbers of the samples of each step, from ``first_step`` on, without end; each process takes its share."""

    def __init__(self, batch: int, first_step: int = 0, process: int = 0, processes: int = 1) -> None:
        if batch % processes:
            raise InputError(f"a batch of {batch} cannot be shared among {processes} devices; change --devices")
        self.batch, self.first_step = batch, first_step
        self.share = slice(process * batch // processes, (process + 1) * batch // processes)

    def __iter__(self) -> Iterator[list[int]]:
        step = self.first_step
        while True:
            yield list(range(step * self.batch, (step + 1) * self.batch))[self.share]
            step += 1


def check_sizes(poor: Tensor, good: Tensor, scale: int, name: object) -> None:
    """Raise InputError where a target ``[3,H,W]`` is not ``scale`` times the size of its input."""
    if good.shape[1:] != (poor.shape[1] * scale, poor.shape[2] * scale):
        raise InputError(
            f"{name}: is {good.shape[2]}x{good.shape[1]} px, its input {poor.shape[2]}x{poor.shape[1]}; "
            f"targets are {scale} times the size"
        )


def in_pixels(rgb: Tensor, pixels: str) -> Tensor:
    """A picture ``[3,H,W]`` as a network takes it: ``rgb``, ``y`` (limited range), ``y-full`` or ``ycbcr``."""
    if pixels == "rgb":
        return rgb
    return to_ycbcr(rgb) if pixels == "ycbcr" else luma(rgb, limited=pixels == "y")


def collated(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Batches in the order of memory in which convolutions run fastest."""
    first, second = (torch.stack([pair[place] for pair in pairs]) for place in (0, 1))
    return first.contiguous(memory_format=torch.channels_last), second
