"""What training makes small: distances of results and targets, by the names that a recipe weighs.

All take two batches ``[B,C,H,W]`` of one shape, float32 in encoded 0..1, and give a scalar that is 0 for equal ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorekit.errors import InputError, RestorekitError
from restorekit.metrics import lpips
from restorekit.names import did_you_mean

Loss = Callable[[Tensor, Tensor], Tensor]
"""The result and the target to a scalar."""


def charbonnier(result: Tensor, target: Tensor, eps: float = 1e-3) -> Tensor:
    """The mean of ``sqrt(d^2 + eps^2) - eps``: the square of small differences, the amount of large ones.

    Lai, Huang, Ahuja, Yang, "Deep Laplacian Pyramid Networks for Fast and Accurate Super-Resolution", CVPR 2017. They
    leave ``eps`` in; it changes no gradient.
    """
    return ((result - target).square() + eps**2).sqrt().mean() - eps


def psnr(result: Tensor, target: Tensor, eps: float = 1e-5) -> Tensor:
    """The mean over pictures of the decibels that one lacks to 50 dB: ``10 log10(1 + MSE / eps)``.

    Of a hopeless and of a nearly clean picture the same share of the error counts. Chen et al., "HINet: Half Instance
    Normalization Network for Image Restoration", CVPR workshops 2021; ``eps`` is added here, so that equal pictures
    have a slope.
    """
    errors = (result - target).square().flatten(1).mean(1)
    return (10 / math.log(10)) * torch.log1p(errors / eps).mean()


def fft(result: Tensor, target: Tensor) -> Tensor:
    """The mean amount of the differences of Fourier coefficients, of real and imaginary parts alike.

    Cho et al., "Rethinking Coarse-to-Fine Approach in Single Image Deblurring" (MIMO-UNet), ICCV 2021. The transform is
    orthonormal here, so that noise and errors of texture weigh the same in patches of any size; theirs is not, and
    gives 256 times as much in their patches of 256 px, weighed by 0.1.
    """
    return torch.view_as_real(torch.fft.rfft2(result - target, norm="ortho")).abs().mean()


def pearson(result: Tensor, target: Tensor, eps: float = 1e-6) -> Tensor:
    """One less the correlation over all values of a picture: 0..2, whatever the gain and the offset of either.

    Sun et al., "Restoring Images in Adverse Weather Conditions via Histogram Transformer" (Histoformer), ECCV 2024, who
    take half of it. ``eps`` is added to variances and covariance, which lets flat pictures be equal too.
    """
    a, b = (picture.flatten(1) - picture.flatten(1).mean(1, keepdim=True) for picture in (result, target))
    covariance, variances = (a * b).mean(1), (a.square().mean(1) + eps) * (b.square().mean(1) + eps)
    return (1 - (covariance + eps) / variances.sqrt()).mean()


def angular(result: Tensor, target: Tensor, dark: float = 1e-6) -> Tensor:
    """The mean angle in radians between RGB vectors of two pictures, or of two batches of illuminants ``[B,3]``.

    An arc tangent, whose gradient stays finite at 0 where an arc cosine's does not. Vectors whose lengths have a
    product below ``dark`` have no direction to speak of, their angle is 0.

    Raises InputError where there are not three channels.
    """
    if result.shape[1] != 3:
        raise InputError(f"angular: compares RGB, the result has {result.shape[1]} channels; take another loss")
    across = torch.linalg.vector_norm(torch.linalg.cross(result, target, dim=1), dim=1)
    along = (result * target).sum(1)
    seen = across.square() + along.square() > dark**2
    return torch.atan2(across, torch.where(seen, along, 1.0)).mean()


class Perceptual(lpips.SqueezeLpips):
    """The mean LPIPS on SqueezeNet, with gradients of the first picture alone; gray is taken as RGB.

    Raises ModelError, which says what to put where, when its weights are not on this machine, and InputError for
    patches of fewer than :data:`restorekit.metrics.lpips.SMALLEST` px.
    """

    def __init__(self) -> None:
        super().__init__()
        self.load_state_dict(lpips.load().state_dict())
        self.requires_grad_(False)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        if min(first.shape[2:]) < lpips.SMALLEST:
            side = min(first.shape[2:])
            raise InputError(f"perceptual: a patch is {side} px, it takes {lpips.SMALLEST}; raise patch in the recipe")
        with torch.no_grad():
            wanted = list(self._maps(second.expand(-1, 3, -1, -1)))
        maps = self._maps(first.expand(-1, 3, -1, -1))
        parts = [head((a - b).square()).mean() for head, a, b in zip(self.heads, maps, wanted, strict=True)]
        return torch.stack(parts).sum()


LOSSES: Mapping[str, Loss | type[Perceptual]] = {
    "l1": F.l1_loss,
    "l2": F.mse_loss,
    "charbonnier": charbonnier,
    "psnr": psnr,
    "fft": fft,
    "pearson": pearson,
    "angular": angular,
    "perceptual": Perceptual,
}
"""Functions, and classes of those that have weights of their own."""


class Combined(nn.Module):
    """A weighted sum: ``(total, parts)``, where the parts are without their weights and gradients, for a log.

    It is computed in float32 under autocast too. Raises InputError for shapes that differ.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.weights = dict(weights)
        self.losses: dict[str, Loss] = {}
        for name in weights:
            found = LOSSES[name]
            loss = self.losses[name] = found() if isinstance(found, type) else found
            if isinstance(loss, nn.Module):
                self.add_module(name, loss)

    def forward(self, result: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        if result.shape != target.shape:
            raise InputError(f"the network gives {list(result.shape)}, the target is {list(target.shape)}; mend scale")
        with torch.autocast(result.device.type, enabled=False):
            parts = {name: loss(result.float(), target.float()) for name, loss in self.losses.items()}
        total = torch.stack([self.weights[name] * part for name, part in parts.items()]).sum()
        return total, {name: part.detach() for name, part in parts.items()}


def combined(weights: Mapping[str, float]) -> Combined:
    """The sum of losses by name, each times its weight.

    Raises RestorekitError for an unknown name, no names, and weights that are not above 0, and ModelError where a loss
    needs weights that are not on this machine.
    """
    if not weights:
        raise RestorekitError(f"there is no loss to train by; name some of {', '.join(LOSSES)}")
    for name, weight in weights.items():
        if name not in LOSSES:
            hint = did_you_mean(name, LOSSES) or f"; there are {', '.join(LOSSES)}"
            raise RestorekitError(f"unknown loss '{name}'{hint}")
        if not 0 < weight < math.inf:
            raise RestorekitError(f"loss '{name}' has the weight {weight}; weights are above 0, leave it out for none")
    return Combined(weights)
