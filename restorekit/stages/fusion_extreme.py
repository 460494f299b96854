"""Fusion of extreme exposures: the highlights that a bright frame has lost, out of a frame many stops darker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from restorekit.color.transfer import encode
from restorekit.frame import Frame
from restorekit.stage import StageSpec, param, parameters
from restorekit.stages.denoise import GUIDED_CHROMA, GUIDED_LUMA, from_opponent, noise_sigma, opponent, self_guided
from restorekit.stages.fusion import ACCEPTS, Fusion, load, unusable
from restorekit.stages.fusion_plan import BLACK_EV, CLIP_FROM, CLIP_TO, LIFT, Look, Plan, Rows, merged, stops, view
from restorekit.stages.tone_luminance import recoloured, shouldered
from restorekit.strips import one_thread_an_operation, side_by_side

LUMA_RADIUS_PX, COLOR_RADIUS_PX = 4, 6
"""Windows in which the guide's noise is smoothed away."""

HALO_ROWS = 2 * COLOR_RADIUS_PX

CODE = 0.6 / 255
"""Noise of an 8-bit guide, which a median cannot tell where it is nearly black: about that of rounding and one bit."""

LEAST_NOISE, MOST_NOISE = 1e-4, 2 / 255
NOISE_ROWS = 64
DARK = 0.2
"""Encoded values of a guide below which its noise is amplified most."""

STRIP_PIXELS = 1 << 19

SHOULDER = 0.7
"""Display light above which highlights are bent to fit."""


@parameters
class Extreme(Fusion):
    """Recovers what the brightest frame has blown out from frames up to ten stops darker.

    The brightest frame is the canvas. Where it clips, luminance and colour come from the darker frame, the guide, whose
    brightness is brought to the canvas's by matching their histograms. Noise and quantisation of the guide are smoothed
    along edges before they are amplified. Where the two contradict each other (the canvas clips, the guide is far too
    dark for that) or the guide has no data (masks ``outside``, ``motion``), highlights are filled in from around.

    The joint light is then fitted into the display range: a guided filter parts it into base and detail; the base goes
    through a curve that never falls and leaves the darks of the canvas as they are; detail keeps its contrast. What
    is brighter than the canvas's white is not shown much darker than that, and so highlights do not turn gray.

    Of three frames and more the darkest two are fused first, the result with the next brighter, and so on. A canvas
    that clips nowhere, and has no masks, comes out as it is. The frames must be aligned. The result has metadata,
    exposure and alpha of the bracket's reference frame; masks and facts are dropped; values outside 0..1 are clamped.

    Raises StageError when there are fewer than two frames, or frames that differ in size or state.
    """

    spec = StageSpec(
        name="fusion.extreme",
        source="the task of Chen et al., UltraFusion, CVPR 2025, solved by He, Sun & Tang, Guided Image Filtering, "
        "ECCV 2010, and Larson, Rushmeier & Piatko, A Visibility Matching Tone Reproduction Operator, TVCG 1997",
        accepts=ACCEPTS,
        emits={"frames": "single"},
    )
    anchor_ev: Annotated[
        float, param("Canvas tones darker than this below its white stay as they are", unit="EV", ge=-10, le=-0.5)
    ] = -4.0
    detail: Annotated[float, param("Contrast of detail, 1: as in the frames", ge=0, le=2)] = 1.0
    edge_ev: Annotated[float, param("Differences up to this are detail, larger ones edges", unit="EV", gt=0, le=4)] = (
        1.5
    )
    saturation: Annotated[float, param("Saturation of recovered highlights", ge=0, le=1.5)] = 1.0
    smoothing: Annotated[float, param("Strength of the smoothing of the guide's noise", ge=0, le=5)] = 1.0

    def fuse(self, frames: Sequence[Frame], reference: int) -> Tensor:
        order = sorted(range(len(frames)), key=lambda index: _brightness(frames[index]))
        guide = frames[order[0]]
        for place, index in enumerate(order[1:], start=1):
            canvas = frames[index]
            told = reference in order[:place]
            pixels = self._fuse_pair((guide, canvas), 0 if told else 1)
            guide = replace(canvas, pixels=pixels, masks=_shared_masks(guide, canvas))
        return guide.pixels

    def _fuse_pair(self, pair: tuple[Frame, Frame], reference: int) -> Tensor:
        """The guide and the canvas as one: encoded pixels ``[3,H,W]``."""
        canvas = pair[1]
        look = Look(self.anchor_ev, self.detail, self.edge_ev)
        with one_thread_an_operation():
            plan = Plan.made(pair, reference, look)
        result = torch.empty((3, canvas.height, canvas.width))
        luma, color = _noise(pair)
        noise = (luma * self.smoothing, color * self.smoothing)

        def render(top: int, bottom: int) -> None:
            start, stop = max(0, top - HALO_ROWS), min(canvas.height, bottom + HALO_ROWS)
            (dark, bright), usable = load(pair, reference, start, stop)
            inner = slice(top - start, bottom - start)
            bright = bright[:, inner].clamp(0.0, 1.0)
            if plan.clips:
                dark = dark.clamp(0.0, 1.0)
                seen = plan.lost is not None or float(bright.max()) > CLIP_FROM
                dark = _smoothed(dark, noise, top - start, stop - bottom) if seen else dark[:, inner]
                own = [None if each is None else each[inner] for each in usable]
                bright = self._rendered(plan, view(plan, (dark, bright), own, top), top)
            result[:, top:bottom] = bright

        step = max(1, STRIP_PIXELS // (canvas.width * plan.factor)) * plan.factor
        side_by_side(render, [(top, min(top + step, canvas.height)) for top in range(0, canvas.height, step)])
        return result

    def _rendered(self, plan: Plan, rows: Rows, top: int) -> Tensor:
        """Encoded rows ``[3,h,w]`` of the joint light of both frames."""
        joint = merged(plan, rows)
        here = stops(joint.y)
        target = plan.gain_rows(here[0], top)[None].add_(here)
        below = (plan.white_stops - target).clamp_(min=0.0)
        target.addcmul_(below, joint.white, value=LIFT)
        shown = shouldered(target.exp2_().sub_(2.0**-BLACK_EV).clamp_(min=0.0), SHOULDER, plan.peak)
        unknown = joint.share * plan.color_floor + 1e-3
        y, light = joint.y + unknown, joint.light.add_(unknown)
        if self.saturation != 1:
            recovered = ((here - self.anchor_ev) / -self.anchor_ev).clamp_(0.0, 1.0).mul_(self.saturation - 1).add_(1)
            light = torch.addcmul(y, light.sub_(y), recovered)
        return encode(recoloured(light.clamp_(min=0.0), y, shown), rows.transfer)


def _smoothed(encoded: Tensor, noise: tuple[float, float], above: int, below: int) -> Tensor:
    """``[3,H,W]`` without noise of these standard deviations in luma and colour, and without its halo rows."""
    planes = F.pad(opponent(encoded), (HALO_ROWS, HALO_ROWS, HALO_ROWS - above, HALO_ROWS - below), mode="replicate")
    less = HALO_ROWS - 2 * LUMA_RADIUS_PX
    luma = self_guided(planes[0, less:-less, less:-less], LUMA_RADIUS_PX, (GUIDED_LUMA * noise[0]) ** 2 + 1e-10)
    color = [self_guided(plane, COLOR_RADIUS_PX, (GUIDED_CHROMA * noise[1]) ** 2 + 1e-10) for plane in planes[1:]]
    return from_opponent(torch.stack((luma, *color))).clamp_(min=0.0)


def _noise(pair: tuple[Frame, Frame]) -> tuple[float, float]:
    """Standard deviation of the noise in luma and colour of a guide: in its darks, where the canvas clips."""
    found = []
    for top in range(0, pair[0].height, max(NOISE_ROWS, pair[0].height // 8)):
        (dark, bright), _ = load(pair, 0, top, min(top + NOISE_ROWS, pair[0].height))
        amplified = (dark.amax(0) < DARK) & (bright.amax(0) >= CLIP_TO)
        found.append(noise_sigma(torch.where(amplified, opponent(dark), torch.nan)))
    luma, *color = torch.tensor(found).nan_to_num(0.0).amax(0).tolist()
    least = CODE if pair[0].pixels.dtype == torch.uint8 else LEAST_NOISE
    return min(max(least, luma), MOST_NOISE), min(max(least, *color), MOST_NOISE)


def _brightness(frame: Frame) -> float:
    """The mean of a frame, of about a thousand rows and columns; what is no number counts nothing."""
    rows, columns = max(1, frame.height // 1000), max(1, frame.width // 1000)
    sample = frame.pixels[:, ::rows, ::columns]
    return float(sample.to(torch.float64).nan_to_num(0.0, 0.0, 0.0).clamp_(-1e6, 1e6).mean())


def _shared_masks(guide: Frame, canvas: Frame) -> dict[str, Tensor]:
    """Where neither of two frames can be used, as a mask of the frame made of them."""
    masks = unusable(guide), unusable(canvas)
    return {} if masks[0] is None or masks[1] is None else {"motion": (masks[0] & masks[1])[None]}
