"""All measures of two frames at once, for the command ``compare``."""

from __future__ import annotations

from typing import Any

import torch

from restorekit.color.difference import ciede2000, rgb_to_lab
from restorekit.color.transfer import decode
from restorekit.errors import InputError
from restorekit.frame import Frame
from restorekit.metrics.psnr import psnr
from restorekit.metrics.ssim import WINDOW, ssim


def compare_frames(first: Frame, second: Frame) -> dict[str, Any]:
    """Size, PSNR (dB; ``None`` for equal pictures), SSIM, CIEDE2000 (mean, 95th percentile), largest difference.

    PSNR and SSIM are over the encoded RGB values of display-referred pictures, as the field does.

    Raises InputError when sizes or states differ, or the images are mosaics.
    """
    if (first.width, first.height) != (second.width, second.height):
        sizes = f"{first.width}x{first.height} and {second.width}x{second.height}"
        raise InputError(f"{second.name}: sizes differ ({sizes}); compare pictures of one size")
    if first.state != second.state:
        raise InputError(
            f"{second.name}: is {second.state}, {first.name} is {first.state}; compare pictures of one kind"
        )
    if first.state.is_mosaic:
        raise InputError(f"{first.name}: is a mosaic; develop both first and compare the pictures")
    a, b = first.as_float().pixels, second.as_float().pixels
    result: dict[str, Any] = {
        "width": first.width,
        "height": first.height,
        "psnr_db": None if torch.equal(a, b) else psnr(a, b),
    }
    if min(first.width, first.height) >= WINDOW:
        result["ssim"] = ssim(a, b)
    result["largest_difference"] = float((a - b).abs().max())
    if first.state.layout == "rgb" and first.state.reference == "display" and first.state.primaries != "camera":
        labs = [rgb_to_lab(decode(pixels, first.state.transfer), first.state.primaries) for pixels in (a, b)]
        difference = ciede2000(*labs).flatten()
        result["ciede2000_mean"] = float(difference.mean())
        result["ciede2000_p95"] = float(difference.kthvalue(max(1, round(0.95 * difference.numel()))).values)
    return result
