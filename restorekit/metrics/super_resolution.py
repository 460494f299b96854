"""How the field measures super-resolution: bicubic reduction, 8-bit results, borders cropped, PSNR and SSIM of luma.

The steps are those of MATLAB programs since SRCNN (Dong et al., ECCV 2014) and of BasicSR, so that numbers stand beside
published ones. Pictures are uint8 ``[3,H,W]``, encoded RGB.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from restorekit.color.ycbcr import luma
from restorekit.metrics.psnr import psnr
from restorekit.metrics.ssim import ssim
from restorekit.metrics.window import WINDOW
from restorekit.stages.resampling import bicubic, resampled


@dataclass(frozen=True)
class Fidelity:
    """How near a picture is to its reference. PSNR is infinite for equal pictures.

    ``psnr_y`` (dB) and ``ssim_y`` are of BT.601 luma in its limited range, not rounded, with a peak of 255 as if it
    filled the range; ``psnr_rgb`` is over all three channels.
    """

    psnr_y: float
    ssim_y: float
    psnr_rgb: float


class Bicubic:
    """The baseline: enlarges ``[B,3,H,W]`` in 0..1 by cubic convolution, as MATLAB's ``imresize`` does."""

    def __init__(self, scale: int) -> None:
        self.scale = scale

    def __call__(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        planes = x.reshape(batch * channels, height, width).double()
        enlarged = resampled(planes, height * self.scale, width * self.scale, bicubic)
        return enlarged.reshape(batch, channels, *enlarged.shape[1:]).to(x.dtype)


def smallest_side(scale: int, inner: int = WINDOW) -> int:
    """The shortest side in px of a reference of which ``inner`` px are left without the borders: a window of SSIM."""
    return math.ceil(inner / scale) * scale + 2 * scale


def whole_multiple(picture: Tensor, scale: int) -> Tensor:
    """``[C,H,W]`` without its last rows and columns where sides are no multiples of ``scale`` (``modcrop``)."""
    _, height, width = picture.shape
    return picture[:, : height // scale * scale, : width // scale * scale]


def reduced(reference: Tensor, scale: int) -> Tensor:
    """The low-resolution input: uint8 ``[C,H,W]`` reduced by antialiased cubic convolution, and rounded."""
    _, height, width = reference.shape
    return _rounded(resampled(reference.double(), height // scale, width // scale, bicubic))


def eight_bit(picture: Tensor) -> Tensor:
    """A float picture in 0..1, clipped to it, as uint8."""
    return _rounded(picture.double().mul(255.0))


def fidelity(reference: Tensor, restored: Tensor, border: int) -> Fidelity:
    """Measures of two uint8 pictures ``[3,H,W]`` of one size, ``border`` px left out at each side.

    Raises ValueError for different shapes, or where less than 11x11 px are left.
    """
    first, second = (inside(picture, border) for picture in (reference, restored))
    luma_a, luma_b = (luma(picture.double() / 255.0, limited=True) for picture in (first, second))
    return Fidelity(psnr(luma_a, luma_b), ssim(luma_a, luma_b), psnr(first, second, 255.0))


def inside(picture: Tensor, border: int) -> Tensor:
    """``[C,H,W]`` without ``border`` px at each side."""
    _, height, width = picture.shape
    return picture[:, border : height - border, border : width - border]


def _rounded(values: Tensor) -> Tensor:
    """Values in 0..255 as uint8, halves up."""
    return values.add(0.5).floor_().clamp_(0, 255).byte()
