"""Bare planes ``[C,H,W]``: storage types, orientation, and how many rows make a strip."""

from __future__ import annotations

import torch
from torch import Tensor

STRIP_PIXELS = 1 << 18
"""Pixels of a strip. Its few float planes then stay in the processor's cache."""


def to_float(pixels: Tensor, *, digital_numbers: bool = False) -> Tensor:
    """Pixels of any storage type as float32; integers are divided by their maximum."""
    if pixels.dtype == torch.float32:
        return pixels
    floats = pixels.to(torch.float32, memory_format=torch.contiguous_format)
    if pixels.dtype.is_floating_point or pixels.dtype == torch.bool or digital_numbers:
        return floats
    return floats.mul_(1.0 / torch.iinfo(pixels.dtype).max)


def orient(plane: Tensor, orientation: int) -> Tensor:
    """``[C,H,W]`` turned as the EXIF orientation (1..8, TIFF 6.0 tag 274) asks."""
    if orientation in (5, 6, 7, 8):
        plane = plane.transpose(1, 2)
    flips = {2: (2,), 3: (1, 2), 4: (1,), 6: (2,), 7: (1, 2), 8: (1,)}.get(orientation, ())
    if not flips:
        return plane
    if plane.dtype == torch.uint16:  # torch flips signed integers only
        return plane.view(torch.int16).flip(flips).view(torch.uint16)
    return plane.flip(flips)


def strip_rows(width: int) -> int:
    """Rows of a strip for an image of this width: even, at least 16."""
    return max(16, STRIP_PIXELS // max(width, 1) // 2 * 2)
