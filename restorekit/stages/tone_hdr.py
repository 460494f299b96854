"""To HDR displays: the range of a scene brought to a display's peak, and pictures made for SDR expanded to it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Literal

import torch
from torch import Tensor

from restorekit.color.transfer import DIFFUSE_WHITE_NITS, decode, encode
from restorekit.errors import StageError
from restorekit.facts import Facts
from restorekit.frame import Frame
from restorekit.stage import GLOBAL, Reach, Stage, StageSpec, param, parameters
from restorekit.stages.guided import box_mean, guided
from restorekit.stages.tone import LINEAR_PICTURE
from restorekit.stages.tone_base import Upsampler, block_luminance, block_size, strips
from restorekit.stages.tone_luminance import LEAST, light, positive_luminance, recoloured
from restorekit.strips import side_by_side

PQ_PEAK_NITS = 10000.0
"""The most that PQ can say; a brighter source counts as this."""

NOISE = 0.03
"""Linear differences up to about this are noise or texture when highlights are looked for."""

RIM = 0.7
"""Share of the expansion, in stops, that highlights get at their rim and where they are small."""


@parameters
class Bt2390(Stage):
    """The EETF of BT.2390: light up to ``peak_nits`` for an HDR display; 1.0 stays diffuse white, 203 cd/m2.

    On the PQ scale everything below the knee stays as it is, and a Hermite spline bends what lies above it so that
    the source's peak becomes the display's. Where the source's peak is not higher, nothing changes, except that light
    above the display's peak is scaled down to it, all channels alike. ``luminance`` bends luminance and lets bright
    saturated light fade to white, ``max_rgb`` bends the largest channel and keeps all saturation. Place the exposure
    before it: values are taken as they are. The result is display-referred linear, 0 to ``peak_nits / 203``.
    """

    spec = StageSpec(
        name="tone.bt2390",
        source="ITU-R BT.2390-8, 5.4.1, and BT.2408-7, annex 5 (EETF); SMPTE ST 2084 (PQ)",
        accepts=LINEAR_PICTURE,
        emits={"reference": "display"},
    )
    peak_nits: Annotated[float, param("Peak of the display", unit="cd/m2", ge=100, le=10000, usual=(100, 4000))] = (
        1000.0
    )
    source_peak_nits: Annotated[
        float | None,
        param("Light that becomes the peak; none: the largest finite value of the image", unit="cd/m2", ge=100),
    ] = None
    method: Annotated[Literal["luminance", "max_rgb"], param("What the curve acts on")] = "luminance"

    def needs_measure(self, frame: Frame) -> bool:
        return self.source_peak_nits is None

    def measure(self, frame: Frame) -> Facts:
        rows = (frame.pixels[:, top:bottom] for top, bottom in strips(frame, 1))
        top = max((float(each.nan_to_num(0.0, 0.0, 0.0).max()) for each in rows if each.numel()), default=0.0)
        return replace(frame.facts, measured={**frame.facts.measured, self.spec.name: top * DIFFUSE_WHITE_NITS})

    def apply(self, frame: Frame) -> Frame:
        source = self.source_peak_nits or frame.facts.measured.get(self.spec.name)
        if not isinstance(source, float):
            raise StageError(f"{frame.name}: {self.spec.name} has not measured the image; call the stage itself")
        source, peak = min(source, PQ_PEAK_NITS), self.peak_nits / DIFFUSE_WHITE_NITS
        clean = light(frame.pixels)
        if self.method == "max_rgb" or source <= self.peak_nits:
            largest = clean.amax(0, keepdim=True).clamp_min_(LEAST)
            return frame.with_pixels(clean.mul_(self._bent(largest, source) / largest).clamp_max_(peak))
        y = positive_luminance(clean, frame.state.primaries)
        return frame.with_pixels(recoloured(clean, y, self._bent(y, source), peak=peak))

    def _bent(self, values: Tensor, source_nits: float) -> Tensor:
        """Linear values through the EETF, as a new tensor; black levels of source and display are 0."""
        if source_nits <= self.peak_nits:
            return values.clamp_max(self.peak_nits / DIFFUSE_WHITE_NITS)
        top = float(encode(torch.tensor([source_nits / DIFFUSE_WHITE_NITS], dtype=torch.float64), "pq"))
        limit = float(encode(torch.tensor([self.peak_nits / DIFFUSE_WHITE_NITS], dtype=torch.float64), "pq")) / top
        knee = 1.5 * limit - 0.5
        e = encode(values, "pq").div_(top).clamp_max_(1.0)
        t = e.sub(knee).clamp_min_(0.0).div_(1 - knee)
        bent = t.mul(2.0).sub_(3.0).mul_(t).mul_(t).add_(1.0).mul_(knee)
        bent.add_(t.sub(2.0).mul_(t).add_(1.0).mul_(t).mul_(1 - knee))
        bent.add_(t.mul(-2.0).add_(3.0).mul_(t).mul_(t).mul_(limit))
        high = decode(torch.where(e > knee, bent, e).mul_(top), "pq")
        return torch.where(e > knee, high, values)


@parameters
class Expand(Stage):
    """Highlights of a picture made for SDR expanded for an HDR display; 1.0 stays diffuse white, 203 cd/m2.

    Above ``knee`` brightness is raised ever more, white up to ``peak_nits``; what lies below stays as it is. How much
    is read from an edge-keeping smooth of luminance, so that noise and the steps of 8-bit files are not raised with
    it, and grows towards the middle of clipped areas, which are flat otherwise. Where more than ``area_percent`` of
    the picture is highlight (snow, paper, an overcast sky), all of it is raised less. Colours keep their hue. The
    result is display-referred linear, 0 to ``peak_nits / 203``.
    """

    spec = StageSpec(
        name="tone.expand",
        source="Banterle et al., Inverse Tone Mapping, GRAPHITE 2006 (expand map); Rempel et al., Ldr2Hdr, SIGGRAPH "
        "2007 (brightness of clipped areas); Akyuz et al., Do HDR Displays Support LDR Content?, SIGGRAPH 2007",
        accepts={**LINEAR_PICTURE, "reference": ("display",)},
    )
    peak_nits: Annotated[
        float, param("Brightness of expanded white", unit="cd/m2", ge=203, le=10000, usual=(203, 4000))
    ] = 1000.0
    knee: Annotated[float, param("Linear value up to which nothing changes", ge=0.1, le=0.95)] = 0.5
    area_percent: Annotated[
        float, param("Highlights that get the full peak", unit="%", ge=0.1, le=100, usual=(0.1, 20))
    ] = 5.0
    radius: Annotated[float, param("Radius of the smooth, share of the diagonal", gt=0, le=0.1)] = 0.01

    def reach(self) -> Reach:
        return GLOBAL

    def apply(self, frame: Frame) -> Frame:
        factor = block_size(frame)
        small = block_luminance(frame, factor).clamp_max_(1.0)
        upsampler = Upsampler(small, self._gain(small), factor)
        peak = self.peak_nits / DIFFUSE_WHITE_NITS
        result = torch.empty_like(frame.pixels)

        def render(top: int, bottom: int) -> None:
            pixels = frame.pixels[:, top:bottom]
            y = positive_luminance(light(pixels), frame.state.primaries)[0].clamp_max_(1.0)
            gain = upsampler.rows(y, top).clamp_(0.0, math.log2(peak)).exp2_()
            torch.mul(pixels.nan_to_num(0.0, 1.0, 0.0), gain, out=result[:, top:bottom]).clamp_max_(peak)

        side_by_side(render, strips(frame, factor))
        return frame.with_pixels(result)

    def _gain(self, y: Tensor) -> Tensor:
        """Stops ``[h,w]`` to raise blocks of luminance ``y`` ``[h,w]`` by."""
        radius = max(1, round(self.radius * math.hypot(*y.shape)))
        smooth = guided(y, radius, NOISE**2).clamp_(0.0, 1.0)
        bright = smooth.sub_(self.knee).clamp_min_(0.0).mul_(1 / (1 - self.knee))
        bright = bright.mul(-2.0).add_(3.0).mul_(bright).mul_(bright)
        share = float(bright.double().mean())
        peak = self.peak_nits / DIFFUSE_WHITE_NITS
        room = min(1.0, math.sqrt(self.area_percent / 100 / max(share, 1e-9)))
        middle = sum((box_mean(bright, radius * size) for size in (1, 2, 4)), torch.zeros_like(bright)).mul_(1 / 3)
        dome = middle.mul_(1 - RIM).add_(RIM)
        return bright.mul_(dome).mul_(math.log2(1 + (peak - 1) * room))
