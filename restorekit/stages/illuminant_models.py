"""Two small estimators of the light from a short and a long exposure, what they look at, and their weights.

The paper (M. Afifi, Z. Hu & L. Liang, Optimizing Illuminant Estimation in Dual-Exposure HDR Imaging, ECCV 2024) gives
the idea of each and its number of parameters; what is inferred from these is marked so here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from restorekit.errors import ModelError
from restorekit.zoo import checkpoint, store
from restorekit.zoo.card import ModelCard

BINS = 32
"""Bins of log chroma a side (inferred)."""

LOWEST, BIN = -1.5, 0.125
"""Centre of the first bin and width of all, in natural logarithms (inferred): green to red, green to blue, 0.25..11."""

FARTHEST = 2.0
"""Entries of the feature count as at most so far from those of the identity (inferred)."""

STEEPNESS = 4.0
"""Of the logistic functions that lead the bias, about what an entry of the feature differs by (inferred)."""

NO_LIGHT = 1e-6
"""Points of a smaller sum have no chromaticity."""


def dual_exposure_feature(short: Tensor, long: Tensor) -> Tensor:
    """The matrix ``[3,3]`` that maps the chromaticities of the short frame to those of the long one.

    ``short`` and ``long`` are camera RGB ``[3,N]`` of the same N points, linear; chromaticities are
    ``rgb / (r + g + b)``, of values below zero that of zero. The matrix is that of least squares over all points, of
    those that do equally well the smallest: the identity for frames that differ by a factor alone.
    """
    short, long = (frame.double().clamp_min(0.0) for frame in (short, long))
    sums = short.sum(0), long.sum(0)
    lit = (sums[0] > NO_LIGHT) & (sums[1] > NO_LIGHT) & (sums[0] + sums[1]).isfinite()
    short, long = (torch.where(lit, frame / total, 0.0) for frame, total in zip((short, long), sums, strict=True))
    inverse: Tensor = torch.linalg.pinv(short @ short.T, hermitian=True, rtol=1e-10)
    return (long @ short.T @ inverse).float()


def log_chroma_histogram(samples: Tensor) -> Tensor:
    """Where camera RGB ``[3,N]`` lies in log chroma: ``[BINS,BINS]``, rows log(g/r), columns log(g/b).

    Each sample is shared among the four bins nearest to it; those outside, and those that are not positive, do not
    count. The square root of the shares of all is given, as in C5 (inferred).
    """
    samples = samples[:, (samples > 0).all(0)]
    u, v = (((samples[1] / samples[channel]).log() - LOWEST) / BIN for channel in (0, 2))
    inside = (u >= 0) & (u < BINS - 1) & (v >= 0) & (v < BINS - 1)
    u, v = u[inside], v[inside]
    row, column = u.floor(), v.floor()
    down, right = u - row, v - column
    first = (row * BINS + column).long()
    histogram = samples.new_zeros(BINS * BINS)
    for step, share in (
        (0, (1 - down) * (1 - right)),
        (1, (1 - down) * right),
        (BINS, down * (1 - right)),
        (BINS + 1, down * right),
    ):
        histogram += torch.bincount(first + step, share, BINS * BINS)
    return (histogram / histogram.sum().clamp_min(1.0)).sqrt().view(BINS, BINS)


class Emlp(nn.Module):
    """The light from the feature alone: a multilayer perceptron 9-13-13-3, 354 parameters (widths inferred).

    ``[B,3,3]`` features (histograms are not looked at) to ``[B,3]`` camera RGB, green = 1. It sees what the feature
    adds to the identity; its outputs are logarithms (inferred).
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(9, 13), nn.Tanh(), nn.Linear(13, 13), nn.Tanh(), nn.Linear(13, 3))

    def forward(self, features: Tensor, histograms: Tensor) -> Tensor:
        found: Tensor = self.layers(_beyond_identity(features).flatten(1))
        return (found - found[:, 1:2]).exp()


class Eccc(nn.Module):
    """Convolutional colour constancy on the histograms of both frames, with a bias led by the feature.

    Each histogram is convolved with a learned filter, circularly; the sum and a bias, by softmax over the bins, is
    where the light lies. The bias is interpolated between four learned ones, the corners of a square; the point in it
    has two coordinates, each a logistic function of ``row' (C - 1) column`` of the feature C. Two filters, four biases
    of 32x32 and 2 x (3 + 3) numbers are the 6,156 parameters of the paper (all of this division is inferred). The
    identity takes the mean of the four.

    ``[B,3,3]`` features and ``[B,2,BINS,BINS]`` histograms, the short frame first, to ``[B,3]`` camera RGB, green = 1.
    Source of the convolution: J. T. Barron & Y.-T. Tsai, Fast Fourier Color Constancy, CVPR 2017.
    """

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Parameter(torch.zeros(2, BINS, BINS))
        self.biases = nn.Parameter(torch.zeros(4, BINS, BINS))
        self.rows = nn.Parameter(0.5 * torch.randn(2, 3))
        self.columns = nn.Parameter(0.5 * torch.randn(2, 3))

    def forward(self, features: Tensor, histograms: Tensor) -> Tensor:
        size = (BINS, BINS)
        seen = torch.fft.irfft2(torch.fft.rfft2(histograms) * torch.fft.rfft2(self.filters), s=size).sum(1)
        scores = seen + torch.einsum("bk,kuv->buv", self.weights(features), self.biases)
        likely = scores.flatten(1).softmax(1).view(-1, *size)
        centres = LOWEST + BIN * torch.arange(BINS, device=likely.device)
        u, v = (likely.sum(axis) @ centres for axis in (2, 1))
        return torch.stack([(-u).exp(), torch.ones_like(u), (-v).exp()], 1)

    def weights(self, features: Tensor) -> Tensor:
        """The shares ``[B,4]`` of the four biases, which add up to 1."""
        led = torch.einsum("ki,bij,kj->bk", self.rows, _beyond_identity(features), self.columns)
        x, y = (STEEPNESS * led).sigmoid().unbind(1)
        return torch.stack([(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y], 1)


ESTIMATORS: dict[str, type[Emlp] | type[Eccc]] = {"emlp": Emlp, "eccc": Eccc}


def load_estimator(card: ModelCard) -> Emlp | Eccc:
    """The estimator of a card with its installed weights, without gradients.

    Raises ModelError when there are none, or they do not fit.
    """
    path = store.installed_weights(card)
    if card.architecture not in ESTIMATORS:
        known = ", ".join(ESTIMATORS)
        raise ModelError(f"model {card.id}: '{card.architecture}' estimates no light; there are {known}; mend the card")
    estimator = ESTIMATORS[card.architecture]()
    try:
        estimator.load_state_dict(checkpoint.read(path), strict=True)
    except RuntimeError:
        raise ModelError(f"{path}: holds no weights of {card.architecture}; get the whole file again") from None
    return estimator.eval().requires_grad_(False)


def _beyond_identity(features: Tensor) -> Tensor:
    return (features - torch.eye(3, device=features.device)).clamp(-FARTHEST, FARTHEST)
