"""Luma and colour differences of encoded RGB, as networks that were trained on them take them.

Source: ITU-R BT.601 and, for the full range, ITU-T T.871 (JFIF), with the rounded constants of OpenCV and kornia, in
which such networks were trained.
"""

from __future__ import annotations

import torch
from torch import Tensor

WEIGHTS = (0.299, 0.587, 0.114)
"""Of R, G and B in luma."""


def luma(rgb: Tensor, limited: bool) -> Tensor:
    """Luma ``[1,H,W]`` of encoded RGB ``[3,H,W]`` in 0..1; black at 16/255 and white at 235/255 where ``limited``."""
    full = sum(weight * channel for weight, channel in zip(WEIGHTS, rgb, strict=True))
    assert isinstance(full, Tensor)
    return (full * (219 / 255) + 16 / 255 if limited else full)[None]


def to_ycbcr(rgb: Tensor) -> Tensor:
    """Y'CbCr ``[3,H,W]`` in full range, 0.5 in the middle of Cb and Cr, of encoded RGB."""
    y = luma(rgb, limited=False)[0]
    return torch.stack((y, (rgb[2] - y) * 0.564 + 0.5, (rgb[0] - y) * 0.713 + 0.5))


def from_ycbcr(ycbcr: Tensor) -> Tensor:
    """The inverse of ``to_ycbcr``, to its rounded constants."""
    y, cb, cr = ycbcr[0], ycbcr[1] - 0.5, ycbcr[2] - 0.5
    return torch.stack((y + 1.403 * cr, y - 0.714 * cr - 0.344 * cb, y + 1.773 * cb))
