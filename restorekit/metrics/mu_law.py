"""PSNR of HDR images after compression by the mu-law.

N. Kalantari, R. Ramamoorthi: Deep High Dynamic Range Imaging of Dynamic Scenes, ACM TOG 36(4), 2017, equation 5.
"""

from __future__ import annotations

import math

from torch import Tensor

from restorekit.metrics.psnr import psnr

MU = 5000.0


def mu_law(linear: Tensor, mu: float = MU) -> Tensor:
    """``log(1 + mu x) / log(1 + mu)``: linear values, 0..1, of any shape as 0..1; negative ones become 0.

    Values above 1 go on along the curve.
    """
    return (linear.clamp(min=0) * mu).log1p_().div_(math.log1p(mu))


def mu_law_psnr(reference: Tensor, test: Tensor, mu: float = MU) -> float:
    """PSNR in dB (peak 1) of two linear tensors of one shape after the mu-law; inf when equal.

    Both are divided by the largest value of the reference before, so that this covers 0..1 as in the paper.

    Raises ValueError for different shapes, or when the reference has no positive value.
    """
    largest = float(reference.max())
    if not largest > 0:
        raise ValueError("the reference has no positive value")
    return psnr(mu_law(reference / largest, mu), mu_law(test / largest, mu))
