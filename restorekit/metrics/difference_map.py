"""How far two frames differ at each pixel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from restorekit.color.difference import ciede2000, rgb_to_lab
from restorekit.color.ictcp import delta_e_itp, rgb_to_ictcp
from restorekit.color.primaries import CHROMATICITIES
from restorekit.color.transfer import decode
from restorekit.frame import Frame
from restorekit.metrics.light import Light, is_hdr, lights_of, row_strips
from restorekit.metrics.pu21 import DARKEST_NITS
from restorekit.planes import to_float
from restorekit.state import ImageState


@dataclass(frozen=True)
class DifferenceMap:
    """Differences float32 ``[H,W]``, none below 0; pixels that are not finite in both frames have 0.

    ``measure`` is what they are in words, ``visible`` a difference that a person just sees, in its unit.
    """

    values: Tensor
    measure: str
    visible: float


def difference_map(first: Frame, second: Frame, *, white_nits: float, scale: float = 1.0) -> DifferenceMap | None:
    """Where two frames that :func:`restorekit.metrics.compare.compare_frames` accepts differ, and how far.

    Two SDR pictures: CIEDE2000, of gray ones the difference of the encoded values in percent. Two HDR frames, the
    second times ``scale``, with 1.0 at ``white_nits`` cd/m2: delta E ITP, of gray ones the difference in stops.
    ``None`` for an HDR frame and an SDR picture, which have no common scale.
    """
    if is_hdr(first.state) != is_hdr(second.state):
        return None
    if is_hdr(first.state):
        return _of_light(lights_of(first, second), white_nits, scale)
    colors = first.state.layout == "rgb" and first.state.reference == "display" and first.state.primaries != "camera"
    values = _empty(first)
    for rows in row_strips(first.height, first.width):
        a, b = (to_float(frame.pixels[:, rows]) for frame in (first, second))
        values[rows] = ciede2000_encoded(first.state, a, b) if colors else (a - b).abs_().amax(0).mul_(100)
    measure, visible = ("CIEDE2000", 1.0) if colors else ("difference of encoded values in percent", 1.0)
    return DifferenceMap(_finite(values), measure, visible)


def ciede2000_encoded(state: ImageState, a: Tensor, b: Tensor) -> Tensor:
    """CIEDE2000 of RGB ``[3,h,W]``, encoded as a state says, as ``[h,W]``."""
    return ciede2000(*(rgb_to_lab(decode(pixels, state.transfer), state.primaries) for pixels in (a, b)))


def _of_light(lights: tuple[Light, Light], white_nits: float, scale: float) -> DifferenceMap:
    frame, primaries = lights[0].frame, lights[0].primaries
    colors = lights[0].channels == 3 and primaries in CHROMATICITIES
    darkest = DARKEST_NITS / white_nits
    values = _empty(frame)
    for rows in row_strips(frame.height, frame.width):
        a, b = lights[0].linear(rows), lights[1].linear(rows).mul_(scale)
        if colors:
            values[rows] = delta_e_itp(*(rgb_to_ictcp(light, primaries, white_nits) for light in (a, b)))
        else:
            first, second = (light.mean(0).clamp_(min=darkest).log2_() for light in (a, b))
            values[rows] = (first - second).abs_()
    measure, visible = ("ΔE ITP", 1.0) if colors else ("difference in stops", 0.1)
    return DifferenceMap(_finite(values), measure, visible)


def _empty(frame: Frame) -> Tensor:
    return torch.empty(frame.height, frame.width)


def _finite(values: Tensor) -> Tensor:
    return values.nan_to_num_(0.0, 0.0, 0.0)
