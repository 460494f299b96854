"""PSNR with the blocks of JPEG counted against a picture."""

from __future__ import annotations

import math

import torch
from torch import Tensor

BLOCK = 8
"""Px a side of the blocks of JPEG, which begin at the upper left corner."""


def psnr_b(reference: Tensor, restored: Tensor, peak: float = 1.0) -> float:
    """PSNR-B in dB of ``[C,H,W]``, 0..``peak``: ``10 log10(peak^2 / (MSE + BEF))``; the mean of the channels.

    BEF, the blocking effect factor of the restored picture, is by how much the mean squared step over the edges of its
    blocks exceeds that between other neighbours, times ``log 8 / log min(H, W)``; inf where both are 0
    (Yim & Bovik, Quality Assessment of Deblocked Images, IEEE TIP 20, 2011). Not symmetric.

    Raises ValueError for different shapes or less than 9x9 px.
    """
    if reference.shape != restored.shape:
        raise ValueError(f"shapes differ: {tuple(reference.shape)} and {tuple(restored.shape)}")
    if min(reference.shape[1:]) <= BLOCK:
        raise ValueError(f"PSNR-B needs at least {BLOCK + 1} px a side, got {tuple(reference.shape)}")
    found = []
    for good, made in zip(reference, restored, strict=True):
        plane = made.double()
        error = float((good.double() - plane).square_().mean()) + blocking_effect(plane)
        found.append(math.inf if error == 0 else 10 * math.log10(peak * peak / error))
    return math.fsum(found) / len(found)


def blocking_effect(plane: Tensor) -> float:
    """BEF of a plane ``[H,W]``, in the square of its unit; 0 where edges of blocks are no steeper than the rest."""
    at_edges, elsewhere = [], []
    for steps in (plane.diff(dim=1).square_(), plane.T.diff(dim=1).square_()):
        edge = torch.arange(1, steps.shape[1] + 1) % BLOCK == 0
        at_edges.append(steps[:, edge].flatten())
        elsewhere.append(steps[:, ~edge].flatten())
    excess = float(torch.cat(at_edges).mean() - torch.cat(elsewhere).mean())
    return max(0.0, excess) * math.log(BLOCK) / math.log(min(plane.shape))
