"""Bad weather of one kind or another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

import pydantic
import torch
from torch import Tensor

from restorekit.data.degradation import Degradation, choice
from restorekit.data.haze import Haze
from restorekit.data.rain import Rain
from restorekit.data.raindrops import Raindrops
from restorekit.data.ranges import Share
from restorekit.data.snow import Snow
from restorekit.stage import param, parameters

Generators = Literal["first", "second", "all"]

PART: Mapping[Generators, slice] = {"first": slice(0, 1), "second": slice(1, 2), "all": slice(None)}
"""Of the methods of each kind, in the order that they are listed in by default."""


@parameters
class Weather(Degradation):
    """One of rain, raindrops, snow and haze, drawn by their shares, with the ranges that each has by default.

    Each is made in two ways that share little: its ``first`` follows light (``drops`` of rain, ``refraction`` in
    raindrops, ``flakes`` of snow, haze after ``koschmieder``), its ``second`` draws as published sets do (``noise``,
    ``blur``, ``noise``, ``reside``). Networks trained on one are judged on the other.
    """

    source = (
        "Li, Tan & Cheong, All in One Bad Weather Removal using Architectural Search, CVPR 2020 (one network for all); "
        "each kind after its own sources"
    )
    rain: Annotated[Share, param("How often it rains, beside the other three")] = 0.4
    raindrops: Annotated[Share, param("How often there are drops on the glass")] = 0.2
    snow: Annotated[Share, param("How often it snows")] = 0.2
    haze: Annotated[Share, param("How often there is haze")] = 0.2
    generators: Annotated[Generators, param("Which way of making each: its first, its second, or either")] = "all"

    @pydantic.model_validator(mode="after")
    def _check_shares(self) -> Self:
        if not any(self._shares):
            raise ValueError("rain, raindrops, snow and haze are all 0; make one of them more")
        return self

    @property
    def margin(self) -> int:
        return max(kind.margin for share, kind in zip(self._shares, self._kinds, strict=True) if share)

    def degrade(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        return self._kinds[choice(generator, self._shares)].degrade(clean, generator)

    @property
    def _shares(self) -> tuple[float, ...]:
        return self.rain, self.raindrops, self.snow, self.haze

    @property
    def _kinds(self) -> tuple[Degradation, ...]:
        part = PART[self.generators]
        return (
            Rain(methods=Rain().methods[part]),
            Raindrops(methods=Raindrops().methods[part]),
            Snow(methods=Snow().methods[part]),
            Haze(methods=Haze().methods[part]),
        )
