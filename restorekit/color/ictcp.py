"""ICtCp and the colour difference of HDR television. Tensors are ``[3,...]`` float32 or float64, channels first."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from restorekit.color.primaries import conversion, transformed
from restorekit.color.transfer import DIFFUSE_WHITE_NITS, encode
from restorekit.state import Primaries

_RGB_TO_LMS = np.array([[1688, 2146, 262], [683, 2951, 462], [99, 309, 3688]]) / 4096
_LMS_TO_ICTCP = np.array([[2048, 2048, 0], [6610, -13613, 7003], [17933, -17390, -543]]) / 4096


def rgb_to_ictcp(linear: Tensor, primaries: Primaries, white_nits: float = DIFFUSE_WHITE_NITS) -> Tensor:
    """Linear RGB ``[3,...]`` to ICtCp by ITU-R BT.2100, table 7, with PQ; I is 0..1, Ct and Cp about -0.5..0.5.

    ``white_nits`` is the luminance of 1.0 in cd/m2. What lies outside the cones' range, below zero, is taken for
    no light. Errors stay below 1e-4 in float32 (0.1 of the colour difference); float64 is as good as exact.

    Raises ValueError for primaries ``camera`` and ``icc``.
    """
    lms = transformed(linear, _RGB_TO_LMS @ conversion(primaries, "bt2020") * (white_nits / DIFFUSE_WHITE_NITS))
    return transformed(encode(lms.clamp_(min=0), "pq"), _LMS_TO_ICTCP)


def delta_e_itp(first: Tensor, second: Tensor) -> Tensor:
    """The colour difference of two ICtCp images ``[3,...]``, as ``[...]``; 1 is just noticeable.

    ITU-R BT.2124: ``720 sqrt(dI^2 + dT^2 + dP^2)`` with T = Ct / 2 and P = Cp.
    """
    intensity, tritan, protan = first - second
    return torch.sqrt(intensity.square() + 0.25 * tritan.square() + protan.square()).mul_(720)
