"""How well an SDR picture renders an HDR frame."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from restorekit.color.primaries import CHROMATICITIES, luminance
from restorekit.color.transfer import encode
from restorekit.errors import InputError
from restorekit.frame import Frame
from restorekit.metrics.light import Light, row_strips
from restorekit.metrics.tmqi import MINIMUM, tmqi
from restorekit.planes import to_float


def rendition_quality(hdr: Frame, sdr: Frame) -> dict[str, Any]:
    """TMQI of two frames of one size: its quality, structural fidelity and statistical naturalness, by name.

    The HDR frame gives linear luminance, the picture the luma of its encoded values (linear ones are encoded by sRGB).
    Pixels with a value that is not finite are left out and counted.

    Raises InputError for frames that are too small, or whose primaries no standard defines.
    """
    for frame in (hdr, sdr):
        if frame.state.layout == "rgb" and frame.state.primaries not in CHROMATICITIES:
            raise InputError(
                f"{frame.name}: has {frame.state.primaries} primaries, of which luminance is not known; "
                "convert it to a standard space"
            )
    if min(hdr.width, hdr.height) < MINIMUM:
        raise InputError(
            f"{sdr.name}: is {sdr.width}x{sdr.height}, TMQI needs at least {MINIMUM}x{MINIMUM}; compare larger pictures"
        )
    light, luma = (torch.empty(hdr.height, hdr.width) for _ in range(2))
    source = Light(hdr, hdr.state.primaries)
    for rows in row_strips(hdr.height, hdr.width):
        light[rows] = luminance(source.linear(rows), source.primaries)[0]
        luma[rows] = _luma(sdr, rows)
    valid = torch.isfinite(light).logical_and_(torch.isfinite(luma))
    try:
        found = tmqi(light, luma, valid)
    except ValueError as error:
        raise InputError(f"{hdr.name}: has too many values that are not finite ({error}); render it again") from error
    return {
        "width": hdr.width,
        "height": hdr.height,
        "excluded_pixels": valid.numel() - int(valid.sum()),
        "tmqi": found.quality,
        "tmqi_fidelity": found.fidelity,
        "tmqi_naturalness": found.naturalness,
    }


def _luma(frame: Frame, rows: slice) -> Tensor:
    """Luma 0..255 ``[h,W]`` of rows of a picture: its encoded RGB weighted as luminance is."""
    values = to_float(frame.pixels[:, rows])
    if frame.state.transfer == "linear":
        values = encode(values, "srgb")
    return luminance(values.double(), frame.state.primaries)[0].mul_(255)
