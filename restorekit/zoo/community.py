"""Networks that restorekit has no file for, by way of spandrel where that is installed (``restorekit[spandrel]``)."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from math import lcm
from typing import Any

from torch import Tensor

from restorekit.architectures._network import Network
from restorekit.errors import ModelError, installing
from restorekit.tiling import Tiling

NAME = "spandrel"
"""The architecture that cards and files of such models name."""

SIDE = 256
"""Least side of the tiles, in px."""


def installed() -> bool:
    """Whether spandrel is there; it may still not load."""
    return importlib.util.find_spec("spandrel") is not None


def recognise(state: Mapping[str, Tensor], source: str) -> str | None:
    """What spandrel calls a state dict, or None where it is not installed or does not know it.

    Raises ModelError when spandrel does not load, or the model takes more than a picture.
    """
    if not installed():
        return None
    descriptor = _described(state, source)
    return None if descriptor is None else str(descriptor.architecture.name)


def network(state: Mapping[str, Tensor], source: str) -> Network:
    """The network that spandrel makes of a state dict.

    Raises ModelError when it makes none.
    """
    descriptor = _described(state, source) if installed() else None
    if descriptor is None:
        why = "does not know it" if installed() else f"is not installed: {installing('spandrel')}"
        raise ModelError(f"{source}: needs spandrel, which {why}")
    return CommunityNetwork(descriptor)


class CommunityNetwork(Network):
    """A network of spandrel: ``[1,C,H,W]`` in 0..1 to ``[1,C,scale*H,scale*W]``, clamped to 0..1, without gradients."""

    def __init__(self, descriptor: Any) -> None:
        super().__init__()
        self.scale = int(descriptor.scale)
        self.in_channels = int(descriptor.input_channels)
        grid = int(descriptor.size_requirements.multiple_of)
        minimum = max(1, int(descriptor.size_requirements.minimum))
        side = -(-max(SIDE, minimum) // grid) * grid
        self.tiling = Tiling("approximate", grid, halo=lcm(16, grid), minimum=minimum, fixed=side, memory=32768)
        self.model = descriptor.model
        self._descriptor = descriptor

    def tail(self, features: Tensor) -> Tensor:
        result: Tensor = self._descriptor(features)
        return result


def _described(state: Mapping[str, Tensor], source: str) -> Any:
    try:
        import spandrel
    except Exception as error:  # torchvision that does not go with torch fails in many ways
        said = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{source}: is of no architecture of restorekit, and spandrel does not load ({said}); "
            "install a torchvision that goes with your torch"
        ) from None
    try:
        descriptor = spandrel.ModelLoader().load_from_state_dict(dict(state))
    except spandrel.UnsupportedModelError:
        return None
    except Exception as error:  # weights that it takes for what they are not
        said = " ".join(str(error).split())[:200]
        raise ModelError(f"{source}: spandrel cannot load it ({said}); get the file again, or take another") from None
    if not isinstance(descriptor, spandrel.ImageModelDescriptor):
        raise ModelError(
            f"{source}: is a {descriptor.architecture.name} model, which wants a mask beside the picture; take another"
        )
    if descriptor.input_channels != descriptor.output_channels:
        channels = f"{descriptor.input_channels} channels and gives {descriptor.output_channels}"
        raise ModelError(f"{source}: is a {descriptor.architecture.name} model, which takes {channels}; take another")
    return descriptor
