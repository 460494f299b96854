"""All measures of two frames at once, for the command ``compare``."""

from __future__ import annotations

import math
from typing import Any

import torch

from restorekit.color.transfer import DIFFUSE_WHITE_NITS
from restorekit.errors import InputError
from restorekit.frame import Frame
from restorekit.metrics.difference_map import ciede2000_encoded
from restorekit.metrics.hdr import hdr_differences
from restorekit.metrics.light import is_hdr, row_strips
from restorekit.metrics.psnr import psnr
from restorekit.metrics.rendition import rendition_quality
from restorekit.metrics.ssim import ssim
from restorekit.metrics.window import WINDOW


def compare_frames(
    first: Frame, second: Frame, *, white_nits: float = DIFFUSE_WHITE_NITS, fit_scale: bool = False
) -> dict[str, Any]:
    """Measures of two frames by name; the first is the reference.

    Two SDR pictures of one state: PSNR (dB; ``None`` for equal pictures), SSIM, CIEDE2000 (mean, 95th percentile) and
    the largest difference; PSNR and SSIM are over the encoded RGB values, as the field does. Pixels with a value that
    is not finite in one of them are left out and counted, and so are windows of SSIM that hold one.
    Two HDR frames (scene-linear, PQ or HLG): see :func:`restorekit.metrics.hdr.hdr_differences`, for which
    ``white_nits`` and ``fit_scale`` are.
    An HDR frame and an SDR picture, in either order: TMQI, see :mod:`restorekit.metrics.rendition`.

    Raises InputError when sizes differ, the states do not go together, no pixel is finite, or an image is a mosaic.
    """
    if (first.width, first.height) != (second.width, second.height):
        sizes = f"{first.width}x{first.height} and {second.width}x{second.height}"
        raise InputError(f"{second.name}: sizes differ ({sizes}); compare pictures of one size")
    for frame in (first, second):
        if frame.state.is_mosaic:
            raise InputError(f"{frame.name}: is a mosaic; develop both first and compare the pictures")
    if is_hdr(first.state) and is_hdr(second.state):
        return hdr_differences(first, second, white_nits=white_nits, fit_scale=fit_scale)
    if fit_scale:
        sdr = second if is_hdr(first.state) else first
        raise InputError(f"{sdr.name}: is {sdr.state}, a scale is fitted to two HDR files only; leave out --fit-scale")
    if is_hdr(first.state):
        return rendition_quality(first, second)
    if is_hdr(second.state):
        return rendition_quality(second, first)
    return _sdr_differences(first, second)


def _sdr_differences(first: Frame, second: Frame) -> dict[str, Any]:
    if first.state != second.state:
        raise InputError(
            f"{second.name}: is {second.state}, {first.name} is {first.state}; compare pictures of one kind"
        )
    a, b = first.as_float().pixels, second.as_float().pixels
    strips = list(row_strips(first.height, first.width))
    good = torch.isfinite(a).all(0).logical_and_(torch.isfinite(b).all(0))
    share = int(good.sum()) / good.numel()
    if not share:
        raise InputError(f"{second.name}: shares no finite pixel with {first.name}; render it again")
    if share < 1:
        a, b = (torch.where(good, values, 0) for values in (a, b))
    result: dict[str, Any] = {
        "width": first.width,
        "height": first.height,
        "excluded_pixels": good.numel() - int(good.sum()),
        "psnr_db": None if torch.equal(a, b) else psnr(a, b) + 10 * math.log10(share),
    }
    if min(first.width, first.height) >= WINDOW:
        score = ssim(a, b, valid=good if share < 1 else None)
        result |= {} if math.isnan(score) else {"ssim": score}
    result["largest_difference"] = max(float((a[:, rows] - b[:, rows]).abs().max()) for rows in strips)
    if first.state.layout == "rgb" and first.state.reference == "display" and first.state.primaries != "camera":
        difference = torch.cat([ciede2000_encoded(first.state, a[:, rows], b[:, rows])[good[rows]] for rows in strips])
        result["ciede2000_mean"] = float(difference.mean())
        result["ciede2000_p95"] = float(difference.kthvalue(max(1, round(0.95 * difference.numel()))).values)
    return result
