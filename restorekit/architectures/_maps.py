"""Pieces that networks share: the mean colour, and convolutions of maps, most of which lie as ``[B,H,W,C]``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

RGB_MEAN = (0.4488, 0.4371, 0.4040)
"""The mean colour of DIV2K, taken off the input."""


def mean_color(like: Tensor, channels: int) -> Tensor:
    """The colour that is taken off a picture of so many channels, ``[channels]``; nothing where it is not RGB."""
    return like.new_tensor(RGB_MEAN) if channels == 3 else like.new_zeros(channels)


def convolve(convolution: Callable[[Tensor], Tensor], maps: Tensor) -> Tensor:
    """A convolution of maps ``[B,H,W,C]``; no copies are made."""
    return convolution(maps.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def residual_convolution(kind: str, dim: int) -> nn.Module:
    """The convolution at the end of a group; raises ValueError for an unknown ``resi_connection``."""
    if kind == "1conv":
        return nn.Conv2d(dim, dim, 3, padding=1)
    if kind == "identity":
        return nn.Identity()
    raise ValueError(f"resi_connection is '{kind}'; there are '1conv' and 'identity'")


def precise(layer: nn.Module, maps: Tensor) -> Tensor:
    """The layer that takes or makes the picture, in the type of its weights also under autocast.

    Rounding in the layers between is spread over many channels; pixels rounded to bfloat16 are coarser than 8 bits.
    """
    with torch.autocast(maps.device.type, enabled=False):
        result: Tensor = layer(maps.to(next(layer.parameters()).dtype))
    return result


def pointwise(convolution: nn.Conv2d, maps: Tensor) -> Tensor:
    """A 1x1 convolution of maps ``[B,H,W,C]``: one product of matrices, which torch does not make of every Conv2d."""
    return F.linear(maps, convolution.weight.flatten(1), convolution.bias)
