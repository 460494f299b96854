"""What every restoration network here is: its size rules, its two halves, and how its weights are recognised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from restorekit.architectures._bands import WHOLE, Bands
from restorekit.errors import ModelError
from restorekit.tiling import Tiling


@dataclass(frozen=True)
class Detected:
    """The hyperparameters that a state dict tells. ``assumed`` says in words what it cannot tell, one line each."""

    config: Mapping[str, Any]
    assumed: tuple[str, ...] = ()


class Network(nn.Module):
    """Base of the restoration networks: ``[B,C,H,W]`` in 0..1 to ``[B,C,scale*H,scale*W]``.

    H and W are multiples of ``tiling.grid`` and at least ``tiling.minimum``; networks do not pad, crop or clamp.
    ``forward`` is ``tail(features(x))``: ``features`` makes maps of the size of the input and may run them band by
    band, ``tail`` is local and looks at most ``tail_halo`` input px around; a network that is local as a whole may
    leave ``features`` as it is and do all in ``tail``. A network that is trained on more than its picture gives all
    of that by ``forward``, and the picture by ``picture``.
    """

    scale: int
    in_channels: int
    tiling: Tiling
    tail_halo: int = 0
    carries: Literal["gain", "difference"] = "gain"
    """What is carried to a picture whose reduction the network was given (:mod:`restorekit.stages.carried`)."""

    def features(self, x: Tensor, bands: Bands = WHOLE) -> Tensor:
        """``[B,C,H,W]`` in 0..1 to feature maps ``[B,D,H,W]``."""
        return x

    def tail(self, features: Tensor) -> Tensor:
        """Feature maps, or rows and columns of them, to the picture at ``scale``."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.features(x))

    def picture(self, x: Tensor) -> Tensor:
        """``[B,C,H,W]`` to the picture alone, in one run."""
        result: Tensor = self(x)
        return result

    def local_statistics(self, side: int) -> None:
        """Take what is weighted over a whole tile in windows of ``side`` px from now on, about as large as the patches
        that the network was trained on (TLC: Chu et al., "Improving Image Restoration by Revisiting Global Information
        Aggregation", ECCV 2022).

        Raises ModelError for networks without such attention, and for a side that is no multiple of the grid.
        """
        raise ModelError(f"{type(self).__name__} weighs nothing in windows; leave local out")

    @classmethod
    def detect(cls, state: Mapping[str, Tensor]) -> Detected | None:
        """The hyperparameters with which this class loads a state dict strictly, or None if it is of another class."""
        raise NotImplementedError
