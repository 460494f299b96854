"""The guided filter on one plane: in every window the result is a linear function of the guide."""

from __future__ import annotations

import torch
from torch import Tensor


def box_mean(plane: Tensor, radius: int) -> Tensor:
    """Means of ``[h,w]`` over windows of ``2 radius + 1``; beyond the border the nearest pixel counts."""
    return _running_mean(_running_mean(plane, radius).t(), radius).t()


def _running_mean(plane: Tensor, radius: int) -> Tensor:
    """Means of ``2 radius + 1`` neighbouring columns, as differences of sums in double precision."""
    length = 2 * radius + 1
    left, right = plane[:, :1].expand(-1, radius + 1), plane[:, -1:].expand(-1, radius)
    sums = torch.cat((left, plane, right), 1).to(torch.float64).cumsum_(1)
    return (sums[:, length:] - sums[:, :-length]).div_(length).to(plane.dtype)


def linear_model(guide: Tensor, target: Tensor, radius: int, epsilon: float) -> tuple[Tensor, Tensor]:
    """``(slope, offset)`` ``[h,w]`` of ``target = slope * guide + offset``, fitted in windows and averaged over them.

    ``epsilon`` is the variance of the guide up to which a window counts as flat (He, Sun & Tang, Guided Image
    Filtering, ECCV 2010, eq. 5, 6, 8).
    """
    mean, mean_target = box_mean(guide, radius), box_mean(target, radius)
    covariance = box_mean(guide * target, radius).sub_(mean * mean_target)
    variance = box_mean(guide * guide, radius).sub_(mean * mean).clamp_min_(0.0)
    slope = covariance.div_(variance.add_(epsilon))
    offset = mean_target.sub_(slope * mean)
    return box_mean(slope, radius), box_mean(offset, radius)


def guided(guide: Tensor, radius: int, epsilon: float) -> Tensor:
    """``[h,w]`` smoothed with itself as guide: what varies less than ``epsilon`` goes, edges stay."""
    slope, offset = linear_model(guide, guide, radius, epsilon)
    return slope.mul_(guide).add_(offset)
