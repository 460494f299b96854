"""CIELAB and colour differences. Tensors are ``[3,...]`` float32 or float64, channels first."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from restorekit.color.adaptation import XY, adaptation, white_xyz
from restorekit.color.primaries import CHROMATICITIES, rgb_to_xyz, transformed
from restorekit.state import Primaries


def xyz_to_lab(xyz: Tensor, white: XY) -> Tensor:
    """XYZ ``[3,...]`` (Y = 1 for white) to CIE 1976 L*a*b* (L* 0..100) under a white, by ISO/CIE 11664-4."""
    delta = 6 / 29
    scale = torch.as_tensor(white_xyz(white), dtype=xyz.dtype, device=xyz.device)
    ratio = xyz / scale.reshape(3, *[1] * (xyz.ndim - 1))
    root = ratio.clamp_min(delta**3).pow_(1 / 3)
    fx, fy, fz = torch.where(ratio > delta**3, root, ratio / (3 * delta**2) + 4 / 29)
    return torch.stack((116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)))


def rgb_to_lab(linear: Tensor, primaries: Primaries, white: XY | None = None) -> Tensor:
    """Linear RGB ``[3,...]`` (1.0 = white) to CIELAB under a white, Bradford-adapted to it.

    Without ``white`` it is the white of the primaries. XYZ has no white of its own: use :func:`xyz_to_lab`.

    Raises ValueError for primaries ``camera``.
    """
    to_xyz, own = rgb_to_xyz(primaries), CHROMATICITIES[primaries].white
    target = white or own
    return xyz_to_lab(transformed(linear, adaptation(own, target) @ to_xyz), target)


def ciede2000(first: Tensor, second: Tensor) -> Tensor:
    """The colour difference of two CIELAB images ``[3,...]``, as ``[...]``; kL = kC = kH = 1.

    CIEDE2000, ISO/CIE 11664-6, in the form of Sharma, Wu and Dalal (2005); the numbers name their equations.
    """
    (l1, a1, b1), (l2, a2, b2) = first, second
    chroma = (torch.hypot(a1, b1) + torch.hypot(a2, b2)) / 2
    g = 0.5 * (1 - _saturating(chroma))  # (4)
    c1, c2 = torch.hypot((1 + g) * a1, b1), torch.hypot((1 + g) * a2, b2)  # (6)
    h1, h2 = _hue(b1, (1 + g) * a1), _hue(b2, (1 + g) * a2)  # (7)
    colourless = c1 * c2 == 0

    turn = h2 - h1
    turn = torch.where(turn.abs() > math.pi, turn - torch.sign(turn) * 2 * math.pi, turn)  # (10)
    dl, dc = l2 - l1, c2 - c1
    dh = 2 * torch.sqrt(c1 * c2) * torch.sin(turn / 2)  # (11), zero where a colour has no hue

    lightness, chroma = (l1 + l2) / 2, (c1 + c2) / 2
    total = h1 + h2
    wrapped = torch.where(total < 2 * math.pi, total + 2 * math.pi, total - 2 * math.pi)
    hue = torch.where((h1 - h2).abs() > math.pi, wrapped, total) / 2
    hue = torch.where(colourless, total, hue)  # (14)

    t = (
        1
        - 0.17 * torch.cos(hue - math.radians(30))
        + 0.24 * torch.cos(2 * hue)
        + 0.32 * torch.cos(3 * hue + math.radians(6))
        - 0.20 * torch.cos(4 * hue - math.radians(63))
    )  # (15)
    away = (lightness - 50).square()
    sl = 1 + 0.015 * away / torch.sqrt(20 + away)  # (18)
    sc = 1 + 0.045 * chroma  # (19)
    sh = 1 + 0.015 * chroma * t  # (20)
    rotation = math.radians(30) * torch.exp(-(((torch.rad2deg(hue) - 275) / 25).square()))  # (16)
    rt = -2 * _saturating(chroma) * torch.sin(2 * rotation)  # (17), (21)
    x, y, z = dl / sl, dc / sc, dh / sh
    return torch.sqrt((x * x + y * y + z * z + rt * y * z).clamp_min(0))  # (22)


def _saturating(chroma: Tensor) -> Tensor:
    """``sqrt(C^7 / (C^7 + 25^7))``, without overflow."""
    return torch.rsqrt(1 + (25 / chroma).pow(7))


def _hue(b: Tensor, a: Tensor) -> Tensor:
    """Hue angle 0..2 pi; 0 where there is none."""
    angle = torch.atan2(b, a)
    return torch.where(angle < 0, angle + 2 * math.pi, angle)
