"""What fusion of extreme exposures finds out about a pair of frames before it works on them at full size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from restorekit.color.transfer import decode
from restorekit.frame import Frame
from restorekit.stages.fusion import load
from restorekit.stages.guided import box_mean, linear_model
from restorekit.stages.pyramid import filled
from restorekit.stages.tone import luminance
from restorekit.stages.tone_base import Upsampler, block_size
from restorekit.stages.tone_luminance import quantile
from restorekit.state import Primaries, Transfer

CLIP_FROM, CLIP_TO = 0.88, 0.985
"""Encoded values of a canvas's largest channel between which the guide takes over."""

BLACK_EV = 10.0
"""Light so many stops below white is added before stops are counted."""

WHITE_FROM = 0.6
"""Luminance above which a canvas counts as white, more and more."""

MATCHED_LEAST, MATCHED_MOST = 0.3, 0.95
"""Linear light of the canvas by which the guide's brightness is matched."""

MATCHED_SAMPLES, MATCHED_LEVELS = 1 << 18, 513

CONTRADICTION_EV = 1.5
"""A guide that is darker than the canvas's white by more than this, where the canvas clips, shows something else."""

BASE_SIZE = 16
"""The short side of the picture, in windows of the base."""

CURVE_STEPS = 1024
CURVE_BLUR_EV = 0.35
CURVE_FLOOR = 0.15
"""Of the largest slope, what tones that hardly occur get."""

LIFT = 0.7
"""How much of what is missing to the tone of the canvas's white is added where light is brighter than that."""


@dataclass(frozen=True)
class Look:
    """What a person can set: see the parameters of the stage."""

    anchor_ev: float
    detail: float
    edge_ev: float


@dataclass(frozen=True)
class Rows:
    """Rows of both frames: encoded ``[3,h,w]``; where guide and canvas cannot be trusted, 0..1 ``[1,h,w]``, and what
    stands in for the guide there, ``[3,h,w]`` linear on the scale of the canvas (``None``: all is well)."""

    guide: Tensor
    canvas: Tensor
    transfer: Transfer
    primaries: Primaries
    distrust: Tensor | None = None
    lost: Tensor | None = None
    fill: Tensor | None = None


@dataclass(frozen=True)
class Plan:
    """What is known about a pair; planes are of blocks of ``factor`` px.

    ``ev`` stops from guide to canvas; ``clips`` whether there is anything to recover; ``white_stops`` the tone of
    the canvas's white; ``peak`` what is shown as white; ``color_floor`` light of the guide below which its colour is
    not known; ``distrust``, ``lost``, ``fill`` as in ``Rows``.
    """

    factor: int
    ev: float
    clips: bool
    transfer: Transfer
    primaries: Primaries
    white_stops: float = 0.0
    peak: float = 1.0
    gain: Upsampler | None = None
    distrust: Tensor | None = None
    lost: Tensor | None = None
    fill: Tensor | None = None

    @property
    def color_floor(self) -> float:
        return float(decode(torch.tensor([1 / 255]), self.transfer)[0] * 2.0**self.ev)

    def gain_rows(self, here: Tensor, top: int) -> Tensor:
        """Stops to add to rows ``[h,w]`` of stops from ``top``."""
        assert self.gain is not None
        return self.gain.rows(here, top)

    @staticmethod
    def made(pair: tuple[Frame, Frame], reference: int, look: Look) -> Plan:
        """The plan for a guide and a canvas; ``reference`` is the one used where neither can be."""
        state = pair[1].state
        factor = block_size(pair[1])
        (guide, canvas), (seen, kept) = _blocks(pair, reference, factor)
        light = [decode(each, state.transfer) for each in (guide, canvas)]
        dark, bright = (luminance(each, state.primaries)[0] for each in light)
        ev = _match(dark, bright, (seen == 1) & (kept == 1))
        lost = _feathered(kept < 1) if bool((kept < 1).any()) else None
        share = clipped_share(canvas) * (kept == 1)
        if lost is None and float(share.max()) == 0:
            return Plan(factor, ev, False, state.transfer, state.primaries)
        distrust = _distrust(light[0].amax(0), ev, share[0], seen, state.transfer)
        plan = Plan(factor, ev, True, state.transfer, state.primaries, distrust=distrust, lost=lost)
        if distrust is not None:
            known = (1 - distrust[0]) * share[0]
            fill = filled(light[0] * 2.0**ev, known) if bool(known.any()) else torch.ones_like(light[0])
            plan = replace(plan, fill=fill)
        rows = Rows(guide, canvas, state.transfer, state.primaries, distrust, lost, plan.fill)
        return _toned(plan, rows, look)


def _toned(plan: Plan, rows: Rows, look: Look) -> Plan:
    """The plan with what tone mapping needs."""
    here = stops(merged(plan, rows).y)[0]
    radius = max(2, min(here.shape) // BASE_SIZE)
    slope, offset = linear_model(here, here, radius, look.edge_ev**2)
    base = slope.mul_(here).add_(offset)
    points, tones = curve(base, look.anchor_ev)
    target = torch.from_numpy(np.interp(base.numpy(), points, tones).astype(np.float32))
    target.add_(here - base, alpha=look.detail)
    white = float(np.interp(0.0, points, tones))
    gain = Upsampler(here, target - here, plan.factor)
    return replace(plan, white_stops=white, peak=2.0 ** quantile(target, 0.999), gain=gain)


def curve(base: Tensor, anchor_ev: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points of a curve that never falls, in stops: as it is below ``anchor_ev``, its largest value at most 0.

    Between these, tones get room by how often they occur (to the half), at most what they have (Larson et al. 1997).
    """
    top = max(quantile(base, 0.999) + 0.5, 0.0)
    points = np.linspace(min(-BLACK_EV, anchor_ev) - 1.0, top, CURVE_STEPS + 1)
    step = points[1] - points[0]
    counts = np.histogram(base.numpy(), points)[0].astype(np.float64)
    often = _blurred(counts, CURVE_BLUR_EV / step)
    upper = (points[:-1] + points[1:]) / 2 > anchor_ev
    wish = np.sqrt(often / max(float(often[upper].max(initial=0.0)), 1e-9)) + CURVE_FLOOR
    low, high = 0.0, 1.0 / CURVE_FLOOR
    for _ in range(40):
        middle = (low + high) / 2
        slopes = _blurred(np.where(upper, np.minimum(1.0, middle * wish), 1.0), CURVE_BLUR_EV / step)
        low, high = (low, middle) if slopes.sum() * step + points[0] > 0 else (middle, high)
    return points, points[0] + np.concatenate(([0.0], np.cumsum(slopes) * step))


@dataclass(frozen=True)
class Joint:
    """Linear light ``[3,h,w]`` of both frames, canvas white = 1, its luminance, the guide's share of it, and how near
    the canvas is to white as a whole (not one channel alone), ``[1,h,w]``."""

    light: Tensor
    y: Tensor
    share: Tensor
    white: Tensor


def merged(plan: Plan, rows: Rows) -> Joint:
    """The light that guide and canvas show together."""
    share = clipped_share(rows.canvas)
    light = decode(rows.guide, rows.transfer).mul_(2.0**plan.ev)
    canvas = decode(rows.canvas, rows.transfer)
    least = luminance(canvas, rows.primaries)
    if rows.distrust is not None and rows.fill is not None:
        light = torch.lerp(light, rows.fill, rows.distrust)
    if rows.lost is not None:
        lost = rows.lost if rows.distrust is None else rows.lost * (1 - rows.distrust)
        share = torch.maximum(share, lost)
        least = least * (1 - lost)
    light = torch.lerp(canvas, light, share)
    y = luminance(light, rows.primaries)
    missing = (least - y).clamp_(min=0.0)
    white = ((least - WHITE_FROM) / (1 - WHITE_FROM)).clamp_(0.0, 1.0)
    return Joint(light.add_(missing), y.add_(missing), share, white)


def clipped_share(canvas: Tensor) -> Tensor:
    """How much of encoded pixels ``[3,h,w]`` is lost to clipping, 0..1 ``[1,h,w]``: a smooth step."""
    t = canvas.amax(0, keepdim=True).sub_(CLIP_FROM).mul_(1 / (CLIP_TO - CLIP_FROM)).clamp_(0.0, 1.0)
    return t * t * (3 - 2 * t)


def stops(y: Tensor) -> Tensor:
    """Luminance in stops above the canvas's white; black is ``-BLACK_EV``."""
    return torch.add(y, 2.0**-BLACK_EV).log2_()


def view(plan: Plan, pair: tuple[Tensor, Tensor], usable: Sequence[Tensor | None], top: int) -> Rows:
    """Rows of guide and canvas from ``top`` with what the plan says about them."""
    guide, canvas = pair
    seen, kept = usable

    def enlarged(planes: Tensor | None, own: Tensor | None = None) -> Tensor | None:
        if planes is None:
            return None
        large = _enlarged(planes, plan.factor, top, canvas.shape[1], canvas.shape[2])
        return large if own is None else torch.maximum(large, (~own)[None].float())

    distrust, lost, fill = enlarged(plan.distrust, seen), enlarged(plan.lost, kept), enlarged(plan.fill)
    return Rows(guide, canvas, plan.transfer, plan.primaries, distrust, lost, fill)


def _enlarged(planes: Tensor, factor: int, top: int, rows: int, width: int) -> Tensor:
    """Rows of planes ``[C,h,w]`` of blocks at full size, bilinear."""
    if factor == 1:
        return planes[:, top : top + rows]
    first, count = top // factor, -(-rows // factor)
    index = torch.arange(first - 1, first + count + 1).clamp_(0, planes.shape[1] - 1)
    wide = F.interpolate(planes[:, index][None], scale_factor=float(factor), mode="bilinear")[0]
    return wide[:, factor : factor + rows, :width]


def _blocks(
    pair: tuple[Frame, Frame], reference: int, factor: int
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Means of encoded values ``[3,h,w]`` and shares that can be used ``[h,w]`` of both frames, by blocks."""
    height = pair[1].height
    step = factor * max(1, 128 // factor)
    parts: list[list[Tensor]] = [[], [], [], []]
    for top in range(0, height, step):
        planes, usable = load(pair, reference, top, min(top + step, height))
        for index, (each, own) in enumerate(zip(planes, usable, strict=True)):
            known = torch.ones(each.shape[1:]) if own is None else own.float()
            parts[index].append(F.avg_pool2d(each.clamp(0.0, 1.0), factor, ceil_mode=True))
            parts[2 + index].append(F.avg_pool2d(known[None], factor, ceil_mode=True)[0])
    guide, canvas = torch.cat(parts[0], 1), torch.cat(parts[1], 1)
    return (guide, canvas), (torch.cat(parts[2]), torch.cat(parts[3]))


def _match(dark: Tensor, bright: Tensor, both: Tensor) -> float:
    """Stops from guide to canvas, by the shares of pixels below levels: histogram matching."""
    if not bool(both.any()):
        return 0.0
    step = max(1, both.numel() // MATCHED_SAMPLES)
    guide, canvas = (_levels(each[both][::step]) for each in (box_mean(dark, 2), bright))
    faint = 1e-4  # half an 8-bit code of sRGB
    fits = (canvas > MATCHED_LEAST) & (canvas < MATCHED_MOST) & (guide > faint / 4)
    if not bool(fits.any()):
        return math.log2(
            MATCHED_MOST / max(faint, float(guide[int((canvas <= MATCHED_MOST).sum().clamp(max=MATCHED_LEVELS - 1))]))
        )
    return max(0.0, float((canvas[fits] / guide[fits]).log2_().median()))


def _levels(values: Tensor) -> Tensor:
    """What equal steps of shares of ``[N]`` values lie below, ascending."""
    return values.sort().values[torch.linspace(0, values.numel() - 1, MATCHED_LEVELS).long()]


def _distrust(dark: Tensor, ev: float, share: Tensor, seen: Tensor, transfer: Transfer) -> Tensor | None:
    """Where the guide shows something else than the canvas, or nothing: ``[1,h,w]`` with soft edges, or ``None``."""
    least = 2.0 ** -(ev + CONTRADICTION_EV)
    unseen = seen < 1
    if least > float(decode(torch.tensor([1.5 / 255]), transfer)[0]):
        unseen = unseen | ((share > 0.5) & (box_mean(dark, 1) < least))
    return _feathered(unseen) if bool(unseen.any()) else None


def _feathered(where: Tensor) -> Tensor:
    """A mask ``[h,w]`` grown by a block and softened, as 0..1 ``[1,h,w]``."""
    grown = F.max_pool2d(where[None].float(), 3, 1, 1)
    return box_mean(grown[0], 1)[None].maximum(where[None].float())


def _blurred(values: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    smooth: NDArray[np.float64] = np.asarray(cv2.GaussianBlur(values[None], (0, 0), sigma), np.float64)
    return smooth.reshape(-1)
