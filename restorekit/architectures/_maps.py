"""What networks share that hold their maps as ``[B,H,W,C]``, in which windows and channels lie together."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

RGB_MEAN = (0.4488, 0.4371, 0.4040)
"""The mean colour of DIV2K, taken off the input."""


def mean_color(like: Tensor, channels: int) -> Tensor:
    """The colour that is taken off a picture of so many channels, ``[channels]``; nothing where it is not RGB."""
    return like.new_tensor(RGB_MEAN) if channels == 3 else like.new_zeros(channels)


def convolve(convolution: Callable[[Tensor], Tensor], maps: Tensor) -> Tensor:
    """A convolution of maps ``[B,H,W,C]``; no copies are made."""
    return convolution(maps.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
