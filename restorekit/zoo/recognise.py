"""Tell from weights alone what network they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from restorekit import architectures
from restorekit.architectures._network import Detected, Network
from restorekit.errors import ModelError, installing
from restorekit.zoo import community
from restorekit.zoo.card import ModelCard

CALLS = 100
"""More calls of torch than a network makes for each of its weights while it is built; there are about seven."""


@dataclass(frozen=True)
class Recognised:
    """What a file of weights turned out to be. ``label`` is for people: ``HAT x4``.

    ``card`` is that of a file of ours, which brings one.
    """

    source: str
    state: Mapping[str, Tensor]
    architecture: str
    detected: Detected
    scale: int
    in_channels: int
    label: str
    card: ModelCard | None = None


def detect(state: Mapping[str, Tensor], source: str = "the state dict") -> tuple[str, Detected]:
    """The architecture of a state dict, and its hyperparameters.

    Architectures are asked in the order of their table. Raises ModelError when none of them, nor spandrel where that
    is installed, knows the weights; ``source`` is named there.
    """
    absent = []
    for name in architectures.architectures():
        try:
            cls = architectures.architecture(name)
        except ModelError as error:
            absent.append(str(error))
            continue
        try:
            found = cls.detect(state)
        except Exception:  # weights of its names in shapes that it cannot have
            continue
        if found is not None:
            return name, found
    said = community.recognise(state, source)
    if said is not None:
        return community.NAME, Detected({}, (f"spandrel knows it as {said}",))
    first = ", ".join(list(state)[:3])
    known = ", ".join(architectures.architectures())
    more = "" if community.installed() else f"; {installing('spandrel')} adds those of spandrel"
    broken = f" ({'; '.join(absent)})" if absent else ""
    raise ModelError(f"{source}: no architecture has weights called {first} ...; known are {known}{broken}{more}")


def recognise(state: Mapping[str, Tensor], source: str) -> Recognised:
    """What a state dict is, in full.

    Raises ModelError as ``detect`` does.
    """
    name, detected = detect(state, source)
    if name == community.NAME:
        network, known_as = community.network(state, source), f"{name} model"
    else:
        network = outline(name, detected.config, len(state))
        known_as = architectures.architecture(name).__name__
    return _recognised(source, state, name, detected, network, known_as)


def by_card(state: Mapping[str, Tensor], source: str, card: ModelCard) -> Recognised:
    """What a state dict is, as the card tells that came with it."""
    network = outline(card.architecture, card.config, len(state))
    known_as = architectures.architecture(card.architecture).__name__
    return replace(_recognised(source, state, card.architecture, Detected(card.config), network, known_as), card=card)


def _recognised(
    source: str, state: Mapping[str, Tensor], name: str, detected: Detected, network: Network, known_as: str
) -> Recognised:
    label = f"{known_as} x{network.scale}" if network.scale > 1 else known_as
    return Recognised(source, state, name, detected, network.scale, network.in_channels, label)


def outline(architecture: str, config: Mapping[str, Any], weights: int | None = None) -> Network:
    """A network without values, for its shapes, scale and tiling.

    Raises ModelError as ``architectures.create`` does, and before one is built that has far more than ``weights``.
    """
    with nullcontext() if weights is None else _Limit(CALLS * weights), torch.device("meta"):
        return architectures.create(architecture, **config)


def shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The shape of every weight."""
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


class _Limit(TorchFunctionMode):
    """Lets so many calls of torch through in this thread."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.left = calls

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.left -= 1
        if self.left < 0:
            raise ModelError("it would have far more weights than are there")
        return func(*args, **(kwargs or {}))
