"""ColorVideoVDP, the authors' own program (the package ``cvvdp``), as an optional measure.

R. Mantiuk, P. Hanji, M. Ashraf, Y. Asano, A. Chapiro: ColorVideoVDP: A visual difference predictor for image, video and
display distortions, ACM TOG 43(4), 2024.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from restorekit.color.primaries import CHROMATICITIES
from restorekit.color.transfer import DIFFUSE_WHITE_NITS, encode
from restorekit.errors import InputError
from restorekit.frame import Frame
from restorekit.metrics.light import Light, is_hdr, row_strips
from restorekit.state import Primaries

HDR_DISPLAY, SDR_DISPLAY = "standard_hdr_linear", "standard_4k"
"""The authors' display models, 30 inches and 4K, seen from twice their height: 1500 cd/m2 at 10 lx, 200 at 250 lx."""

CURE = (
    "ColorVideoVDP needs the package cvvdp and a torchvision built for this torch: "
    "pip install cvvdp torchvision, from where torch came, or leave out --cvvdp"
)


def cvvdp_jod(reference: Frame, test: Frame, white_nits: float = DIFFUSE_WHITE_NITS) -> float:
    """The quality of a frame in just-objectionable differences: 10 for no visible difference, less is worse.

    HDR frames are shown on the authors' standard HDR display, linear 1.0 at ``white_nits`` cd/m2, clipped at its peak
    of 1500; SDR pictures on their standard display. Values that are not finite in one of the frames are black in both.
    On the CPU; it needs some gigabytes for ten megapixels.

    Raises InputError where the package is absent or does not load, naming the cure, for an HDR and an SDR frame, and
    for primaries that no standard defines.
    """
    pycvvdp = package()
    hdr = is_hdr(reference.state)
    if hdr != is_hdr(test.state):
        raise InputError(f"{test.name}: ColorVideoVDP compares two HDR or two SDR files; leave out --cvvdp")
    shown = [_shown(frame, white_nits if hdr else None) for frame in (test, reference)]
    finite = torch.isfinite(shown[0]) & torch.isfinite(shown[1])
    metric = pycvvdp.cvvdp(display_name=HDR_DISPLAY if hdr else SDR_DISPLAY, quiet=True, device=torch.device("cpu"))
    jod, _ = metric.predict(*(torch.where(finite, values, 0) for values in shown), dim_order="CHW")
    return float(jod)


def package() -> Any:
    """The module ``pycvvdp``. Raises InputError, naming the cure, where it is absent or does not load."""
    try:
        import pycvvdp
    except (ImportError, OSError, RuntimeError) as error:  # a torchvision of another torch raises RuntimeError
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{CURE} ({said})") from error
    return pycvvdp


def _shown(frame: Frame, white_nits: float | None) -> Tensor:
    """A frame for the display models, float32 ``[3,H,W]`` BT.709: in cd/m2, or without a white, sRGB values 0..1."""
    if frame.state.layout == "rgb" and frame.state.primaries not in CHROMATICITIES:
        raise InputError(f"{frame.name}: has {frame.state.primaries} primaries; convert it to a standard space")
    primaries: Primaries = "bt709"
    result = torch.empty(3, frame.height, frame.width)
    light = Light(frame, primaries)
    for rows in row_strips(frame.height, frame.width):
        linear = light.linear(rows)
        result[:, rows] = linear * white_nits if white_nits else encode(linear, "srgb").clamp_(0, 1)
    return result
