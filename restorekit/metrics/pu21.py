"""PU21: luminance on a scale where equal steps are equally visible, for measures made for SDR pictures.

R. Mantiuk, M. Azimi: PU21: A novel perceptually uniform encoding for adapting existing quality metrics for HDR,
Picture Coding Symposium 2021; the parameters are those of its ``banding_glare`` variant, which the authors recommend.
"""

from __future__ import annotations

from torch import Tensor

from restorekit.color.transfer import DIFFUSE_WHITE_NITS
from restorekit.metrics.psnr import psnr
from restorekit.metrics.ssim import ssim

DARKEST_NITS, BRIGHTEST_NITS = 0.005, 10000.0
"""The range of the encoding; luminances outside are taken for its ends."""

PEAK = 256.0
"""The peak of the authors' PSNR, and the range of their SSIM: about the value of 100 cd/m2, white of an SDR display.

So values near those of SDR measures come out, and PSNR may be low or even negative for HDR highlights. With
595.4, the value of 10,000 cd/m2, for a peak, the same errors give 7.33 dB more.
"""

_P1, _P2, _P3, _P4, _P5, _P6, _P7 = (
    0.353487901,
    0.3734658629,
    8.277049286e-05,
    0.9062562627,
    0.09150303166,
    0.9099517204,
    596.3148142,
)


def pu21_encode(nits: Tensor) -> Tensor:
    """Absolute luminance or linear RGB in cd/m2, any shape, as PU21 values: 256.4 at 100, 595.4 at 10,000.

    Clamped to 0.005 (value 0)..10,000 cd/m2. Errors stay below 1e-3 in float32.
    """
    light = nits.clamp(DARKEST_NITS, BRIGHTEST_NITS).pow_(_P4)
    divisor = (light * _P3).add_(1.0)
    return light.mul_(_P2).add_(_P1).div_(divisor).pow_(_P5).sub_(_P6).mul_(_P7)


def pu21_psnr(first: Tensor, second: Tensor, white_nits: float = DIFFUSE_WHITE_NITS, peak: float = PEAK) -> float:
    """PSNR in dB of two linear tensors of one shape after PU21; inf when equal.

    On RGB it is the authors' PSNR, on luminance their PSNRY. ``white_nits`` is the luminance of 1.0 in cd/m2.

    Raises ValueError for different shapes.
    """
    return psnr(pu21_encode(first * white_nits), pu21_encode(second * white_nits), peak)


def pu21_ssim(first: Tensor, second: Tensor, white_nits: float = DIFFUSE_WHITE_NITS, peak: float = PEAK) -> float:
    """Mean SSIM of two linear luminance images ``[1,H,W]``, at least 11x11, after PU21.

    ``white_nits`` is the luminance of 1.0 in cd/m2, ``peak`` the dynamic range that SSIM's constants refer to.

    Raises ValueError for different shapes or images smaller than the window.
    """
    return ssim(pu21_encode(first * white_nits), pu21_encode(second * white_nits), peak)
