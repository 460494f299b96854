"""The measures of restored pictures by name, with their headings in tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor

from restorekit.color.ycbcr import luma
from restorekit.metrics.brightness import mean_corrected
from restorekit.metrics.psnr import psnr
from restorekit.metrics.psnr_b import psnr_b
from restorekit.metrics.ssim import ssim


class Measure(NamedTuple):
    """``of`` takes a reference and a restored picture, uint8 ``[3,H,W]`` of one size; gray has three equal channels."""

    heading: str
    decimals: int
    of: Callable[[Tensor, Tensor], float]


def _luma(picture: Tensor) -> Tensor:
    """BT.601 luma in its limited range, not rounded, as MATLAB programs and BasicSR take it."""
    return luma(picture.double() / 255.0, limited=True)


MEASURES: Mapping[str, Measure] = {
    "psnr_y_db": Measure("PSNR-Y dB", 2, lambda a, b: psnr(_luma(a), _luma(b))),
    "ssim_y": Measure("SSIM-Y", 4, lambda a, b: ssim(_luma(a), _luma(b))),
    "psnr_rgb_db": Measure("PSNR-RGB dB", 2, lambda a, b: psnr(a, b, 255.0)),
    "ssim_rgb": Measure("SSIM-RGB", 4, lambda a, b: ssim(a, b, 255.0)),
    "psnr_corrected_db": Measure("corrected dB", 2, lambda a, b: psnr(a, mean_corrected(b, a), 255.0)),
    "psnr_b_db": Measure("PSNR-B dB", 2, lambda a, b: psnr_b(a, b, 255.0)),
}
"""Over three channels, those of gray pictures are measures of their gray values."""
