"""What makes a poor picture of a good one: declared with its parameters like a stage, and repeatable by its seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Protocol, Self

import torch
from torch import Tensor


class PictureList(Protocol):
    """Pictures ``[3,H,W]`` of 8 bits, by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor: ...


class Degradation:
    """Base of all degradations; subclasses carry the ``parameters`` decorator of :mod:`restorekit.stage`.

    ``source`` cites the paper. What is random is drawn from the generator alone, so that a seed gives the same result
    whatever ran before; a pair ``(least, most)`` is a range to draw from.
    """

    source: ClassVar[str]

    @property
    def scale(self) -> int:
        """By how much the result is smaller."""
        return 1

    @property
    def margin(self) -> int:
        """So many px around a patch change what becomes of it. A multiple of ``scale``, and of ``grid``."""
        return 0

    @property
    def grid(self) -> int:
        """Patches begin at a multiple of so many px of what this degradation is given."""
        return self.scale

    def given(self, pictures: PictureList) -> Self:
        """The same degradation, with the pictures that it may mix in."""
        return self

    def degrade(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """``[3,H,W]`` float32, encoded sRGB, to ``[3,H/scale,W/scale]``; H and W are multiples of ``scale``.

        A picture of 8 bits has values k/255. Values beyond 0..1 are only there where an earlier step made them.
        """
        raise NotImplementedError


class Chain:
    """Degradations one after another."""

    def __init__(self, steps: Sequence[Degradation]) -> None:
        self.steps = tuple(steps)
        self.scale = math.prod(step.scale for step in steps)
        reach, grid, scale = 0, self.scale, 1
        for step in steps:
            reach += step.margin * scale
            grid = math.lcm(grid, step.grid * scale)
            scale *= step.scale
        self.margin = math.ceil(reach / grid) * grid

    def given(self, pictures: PictureList) -> Chain:
        """The same chain, with the pictures that its steps may mix in."""
        return Chain([step.given(pictures) for step in self.steps])

    def __call__(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        """``[3,H,W]`` in 0..1 to ``[3,H/scale,W/scale]``."""
        for step in self.steps:
            clean = step.degrade(clean, generator)
        return clean


def seeded(*numbers: int) -> torch.Generator:
    """A generator for these numbers: seed, index of the picture, ...; other numbers give independent draws."""
    import numpy as np

    # How many they are goes in too: alone, numbers that end in zeros give what shorter ones give.
    state = np.random.SeedSequence((len(numbers), *numbers)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]) >> 1)


def uniform(generator: torch.Generator, between: tuple[float, float]) -> float:
    """A number between two, each as likely."""
    low, high = between
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def log_uniform(generator: torch.Generator, between: tuple[float, float]) -> float:
    """A positive number between two, the same ratio each as likely."""
    return math.exp(uniform(generator, (math.log(between[0]), math.log(between[1]))))


def whole(generator: torch.Generator, least: int, most: int) -> int:
    """A whole number of ``least``..``most``, both possible."""
    return int(torch.randint(least, most + 1, (), generator=generator))


def chance(generator: torch.Generator, share: float) -> bool:
    """True in this share of all draws."""
    return uniform(generator, (0.0, 1.0)) < share


def choice(generator: torch.Generator, shares: Sequence[float]) -> int:
    """The index of one of several, each as likely as its share."""
    return int(torch.multinomial(torch.tensor(shares, dtype=torch.float64), 1, generator=generator))


def quantized(picture: Tensor) -> Tensor:
    """Clipped to 0..1 and rounded to multiples of 1/255, as a file of 8 bits keeps it."""
    return picture.clamp(0.0, 1.0).mul(255.0).add(0.5).floor().div(255.0)
