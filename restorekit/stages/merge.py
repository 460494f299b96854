"""Frames of a bracket merged to the light of the scene."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restorekit.errors import StageError
from restorekit.frame import Bracket, Frame
from restorekit.planes import strip_rows, to_float
from restorekit.stage import BracketStage, StageSpec, param, parameters
from restorekit.stages.bracket_blocks import CLIPPED, GUESSED, MOTION, OUTSIDE
from restorekit.stages.deghost import DEFAULT_NOISE
from restorekit.stages.exposures import gains
from restorekit.stages.inpaint import filled_in
from restorekit.strips import side_by_side

ROLL_OFF = (0.85, 0.98)
"""Shares of the clip level between which a value loses its weight."""

MUST_CLIP = 1.04
"""Times the clip level: where darker frames show so much light, a frame cannot be right."""

NEARLY_CLIPPED = 0.6
"""Share of the clip level above which values may be clipped for all that, near others that are: within a block of
JPEG. Lower and lonely ones are of something else."""

BLOCK_PX = 9

SURE = 0.5
"""Trust from which on a darker frame may say so: not in the blended edges of what is left out."""

FEATHER = 0.008
"""Width of the blend at the edge of what is left out, as a share of the diagonal."""

MUCH_CLIPPED = 0.2
BLEND = 3
"""Exponent of what is admitted: frames weigh so differently that a linear ramp would end in a step."""

LAST_RESORT = 1e-9
Weighting = Literal["poisson", "exposure", "debevec"]


@parameters
class Radiance(BracketStage):
    """Merge an aligned bracket to scene-linear light, on the scale of its reference: 1.0 is where that one clips.

    Every frame, multiplied by ``facts.exposure_gain``, enters with the weight

    - ``poisson``: 1 / variance of its noise, ``gain^2 (a x / gain + b)`` (``facts.noise``), at the light ``x`` of a
      first merge: the best unbiased estimate of it;
    - ``exposure``: the light it gathered: the best where all noise is that of photons;
    - ``debevec``: a hat over its code value (square root of light), averaging logarithms, as in the paper;

    times a roll-off from 85 to 98 % of the clip level, channel by channel, 0 where the mask ``clipped`` says so and
    where the masks ``motion`` and ``outside`` leave it out, with blended edges. What is clipped in all frames is taken
    from the darkest; what is clipped in the reference, with something else in front of it in all darker frames, is
    filled as bright as what is clipped around it. Both are marked in the mask ``clipped``. Where the reference is
    clipped, nothing comes out darker, by more than the roll-off, than the light at which a frame clips that is clipped
    there. Mosaics are merged photosite by photosite.

    The result has camera, metadata and exposure of the reference; ``facts.clip_level`` is where the darkest frame
    clips, ``facts.noise`` what is left in the shadows. Values that are no numbers get no weight, with a note.

    Raises StageError for fewer than two frames.
    """

    spec = StageSpec(
        name="merge.radiance",
        source="Granados et al., Optimal HDR Reconstruction with Linear Digital Cameras, CVPR 2010; Hanji et al., "
        "Noise-Aware Merging of High Dynamic Range Image Stacks, ECCV Workshops 2020; Debevec & Malik, SIGGRAPH 1997",
        accepts={
            "frames": ("bracket", "burst"),
            "layout": ("bayer", "rgb", "gray"),
            "reference": ("scene",),
            "transfer": ("linear",),
        },
        emits={"frames": "single"},
        needs=("exposure_gain",),
    )
    weighting: Annotated[
        Weighting, param("Weights of the frames: least noise, gathered light, or the hat of Debevec and Malik")
    ] = "poisson"

    def combine(self, bracket: Bracket) -> Frame:
        frames = bracket.frames
        reference = bracket.reference
        if len(frames) < 2:
            raise StageError(
                f"{reference.name}: {self.spec.name} needs at least two exposures, this is one frame; "
                "group its files with --group folder or --group N"
            )
        shots = [_Shot.of(frame) for frame in frames]
        channels, height, width = reference.pixels.shape
        pixels = torch.empty((channels, height, width))
        clipped = torch.empty((channels, height, width), dtype=torch.bool)
        hidden = torch.empty((channels, height, width), dtype=torch.bool)
        damage: list[tuple[int, int]] = []

        def work(top: int, bottom: int) -> None:
            strips = [shot.strip(top, bottom) for shot in shots]
            clipped[:, top:bottom], hidden[:, top:bottom] = _without_trust(strips, len(frames) // 2)
            unseen = strips[len(frames) // 2].trust <= LAST_RESORT
            pixels[:, top:bottom] = _at_least(self._merged(strips), strips, unseen)
            broken = [strip.broken for strip in strips if strip.broken is not None]
            if broken:
                everywhere = int(torch.stack(broken).all(0).sum()) if len(broken) == len(strips) else 0
                damage.append((sum(int(values.sum()) for values in broken), everywhere))

        rows = max(2, strip_rows(width) // 2)  # several frames at once have to stay in the cache
        side_by_side(work, [(top, min(top + rows, height)) for top in range(0, height, rows)])
        damaged, nowhere = (sum(counts) for counts in zip((0, 0), *damage, strict=True))
        if bool(hidden.any()):
            filled_in(pixels, hidden, shots[len(frames) // 2].clip_level, 2 if reference.state.is_mosaic else 1)
        noise = _merged_noise(shots) if reference.facts.noise else None
        facts = replace(reference.facts, clip_level=shots[0].clip_level, noise=noise, exposure_gain=None)
        notes = tuple(dict.fromkeys(note for frame in frames for note in frame.notes))
        result = replace(reference, pixels=pixels, masks={CLIPPED: clipped}, facts=facts, notes=notes)
        lost = float(clipped.sum()) / clipped.numel()
        if lost > MUCH_CLIPPED:
            result = result.with_note(f"{self.spec.name}: {lost:.0%} of the picture is clipped in all frames")
        if damaged:
            black = f", {nowhere} are one in no frame and become black" if nowhere else ""
            result = result.with_note(f"{self.spec.name}: {damaged} values are no numbers and left out{black}")
        return result

    def _merged(self, strips: Sequence[_Strip]) -> Tensor:
        """The light ``[C,h,W]`` of a strip."""
        first = _first_merge(strips)
        if self.weighting == "debevec":
            return _debevec(strips)
        if self.weighting == "exposure":
            return first
        first.clamp_min_(0.0)
        return _average(strips, [strip.trust / strip.variance(first) for strip in strips])


@dataclass(frozen=True, eq=False)
class _Strip:
    """Rows of a frame on the scale of the reference: light ``[C,h,W]`` and how far it counts (0..1); what it was
    multiplied by, its noise and its clip level on the frame's own scale, to be broadcast; what is admitted, what
    reaches the clip level, what is no number, and what may be clipped though it is below the clip level."""

    light: Tensor
    trust: Tensor
    gain: Tensor
    noise: tuple[Tensor, Tensor]
    clip: Tensor
    admitted: Tensor | None
    burnt: Tensor
    broken: Tensor | None
    doubtful: Tensor

    def variance(self, light: Tensor) -> Tensor:
        """The variance that light on the scale of the reference has in this frame."""
        a, b = self.noise
        return (light * (a * self.gain)).add_(b * self.gain**2)


@dataclass(frozen=True, eq=False)
class _Shot:
    """A frame with what its merging needs; gain, noise and clip level by colour ``[C]``."""

    frame: Frame
    gain: Tensor
    noise: tuple[Tensor, Tensor]
    clip: Tensor
    admitted: NDArray[np.uint8] | None
    clipping: NDArray[np.bool_] | None

    @staticmethod
    def of(frame: Frame) -> _Shot:
        colors = 1 if frame.state.layout == "gray" else 3
        noise, level = frame.facts.noise or (DEFAULT_NOISE,), frame.facts.clip_level or (1.0,)
        gain = gains(frame).flatten().expand(colors)
        a, b = (
            torch.tensor([(noise[c] if len(noise) == colors else noise[0])[k] for c in range(colors)]).clamp_min(1e-12)
            for k in (0, 1)
        )
        frame = _with_spread_clipping(frame)
        clip = torch.tensor([level[c] if len(level) == colors else min(level) for c in range(colors)])
        return _Shot(frame, gain, (a, b), clip, _admitted(frame), _near_clipping(frame))

    @property
    def clip_level(self) -> tuple[float, ...]:
        """Where this frame clips on the scale of the reference, by channel."""
        levels = tuple((self.clip * self.gain).tolist())
        return (min(levels),) if self.frame.state.is_mosaic else levels

    def strip(self, top: int, bottom: int) -> _Strip:
        stored = to_float(self.frame.pixels[:, top:bottom])
        gain, a, b, clip = (self._spread(values, top, bottom) for values in (self.gain, *self.noise, self.clip))
        first, last = ROLL_OFF
        trust = (stored / clip).sub_(last).div_(first - last).clamp_(0.0, 1.0)
        burnt = trust <= 0
        trust = trust.square().mul_(trust.mul_(-2).add_(3))
        marked = self.frame.masks.get(CLIPPED)
        if marked is not None:
            trust.masked_fill_(marked[:, top:bottom], 0.0)
        guessed = self.frame.masks.get(GUESSED)
        if guessed is not None:
            trust = torch.where(guessed[:, top:bottom], trust * LAST_RESORT, trust)
            burnt |= guessed[:, top:bottom]
        admitted = None
        if self.admitted is not None:
            admitted = torch.from_numpy(self.admitted[None, top:bottom]).float().mul_(1 / 255).pow_(BLEND)
            trust *= admitted
        broken = None
        if not bool(stored.sum().isfinite()):  # one pass where all is well
            broken = ~stored.isfinite()
            burnt &= ~broken
            trust.masked_fill_(broken, 0.0)
            stored = stored.masked_fill(broken, 0.0)
        doubtful = stored > clip * NEARLY_CLIPPED
        if self.clipping is not None:
            doubtful &= torch.from_numpy(self.clipping[top:bottom])
        return _Strip(stored * gain, trust, gain, (a, b), clip, admitted, burnt, broken, doubtful)

    def _spread(self, values: Tensor, top: int, bottom: int) -> Tensor:
        """Values by colour at the pixels of rows: ``[C,1,1]``, at the photosites of a mosaic ``[1,h,W]``."""
        if not self.frame.state.is_mosaic:
            return values[:, None, None]
        result = values.new_empty((1, bottom - top, self.frame.width))
        cell = self.frame.camera.cfa
        for row, colors in enumerate(cell):
            for column, color in enumerate(colors):
                result[:, (row - top) % len(cell) :: len(cell), column :: len(colors)] = values["RGB".index(color)]
        return result


def _merged_noise(shots: Sequence[_Shot]) -> tuple[tuple[float, float], ...]:
    """The noise that is left where all frames count, in the shadows: that of an average by inverse variance."""
    a = 1 / sum(1 / (shot.noise[0] * shot.gain) for shot in shots)
    b = 1 / sum(1 / (shot.noise[1] * shot.gain**2) for shot in shots)
    return tuple(zip(torch.as_tensor(a).tolist(), torch.as_tensor(b).tolist(), strict=True))


def _without_trust(strips: Sequence[_Strip], reference: int) -> tuple[Tensor, Tensor]:
    """Where no frame counts, ``[C,h,W]``, and where of that the darkest is left out.

    The darkest frame that is admitted is given trust there, or the reference.
    """
    lost = strips[0].trust <= 0
    for strip in strips[1:]:
        lost &= strip.trust <= 0
    hidden = torch.zeros_like(lost)
    if bool(lost.any()):
        left = lost.clone()
        for index, strip in enumerate(strips):
            taken = left if strip.admitted is None else left & (strip.admitted > 0)
            strip.trust.masked_fill_(taken, 1.0)
            left = left & ~taken
            if index == 0:
                hidden = left
        strips[reference].trust.masked_fill_(left, 1.0)
    return lost, hidden


def _at_least(merged: Tensor, strips: Sequence[_Strip], unseen: Tensor) -> Tensor:
    """Merged light, where the reference does not see it (``unseen``), raised to what every frame says of it that is
    clipped there and admitted, in the colour of that frame: leaves in the wind and the like are too small to be found
    as motion."""
    for strip in strips[1:]:
        counts = strip.burnt & unseen if strip.admitted is None else strip.burnt & unseen & (strip.admitted >= 1.0)
        if bool(counts.any()):
            least = torch.minimum(strip.light, strip.clip * strip.gain)  # rebuilt highlights are guesses
            counts = (counts & (merged < ROLL_OFF[0] * least)).any(0)
            merged = torch.where(counts, torch.maximum(least, merged), merged)
    return merged


def _first_merge(strips: Sequence[_Strip]) -> Tensor:
    """Light weighted by the light that was gathered, from the darkest frame on.

    A frame loses its trust where the darker ones say that it must be clipped: what JPEG makes of clipped pixels, and
    interpolation of those beside them, may lie well below the clip level.
    """
    weight = strips[0].trust / strips[0].gain
    total, weights, trusted = strips[0].light * weight, weight, strips[0].trust > SURE
    for strip in strips[1:]:
        must_clip = (total > weights * (strip.clip * strip.gain * MUST_CLIP)) & trusted & strip.doubtful
        strip.trust.masked_fill_(must_clip, 0.0)
        trusted |= strip.trust > SURE
        weight = strip.trust / strip.gain
        total.addcmul_(strip.light, weight)
        weights = weights + weight
    return total.div_(weights)


def _average(strips: Sequence[_Strip], weights: Sequence[Tensor]) -> Tensor:
    total, sum_of_weights = strips[0].light * weights[0], weights[0].clone()
    for strip, weight in zip(strips[1:], weights[1:], strict=True):
        total.addcmul_(strip.light, weight)
        sum_of_weights.add_(weight)
    return total.div_(sum_of_weights)


def _debevec(strips: Sequence[_Strip]) -> Tensor:
    """Logarithms of light averaged with the hat weight of the code, here the square root of light (eq. 4 and 6)."""
    total, weights = torch.zeros_like(strips[0].light), torch.zeros_like(strips[0].light)
    for strip in strips:
        code = (strip.light / strip.gain).div_(strip.clip).clamp_(0.0, 1.0).sqrt_()
        weight = torch.minimum(code, 1 - code).add_(LAST_RESORT).mul_(strip.trust)
        total.addcmul_(strip.light.clamp_min(1e-9).log_(), weight)
        weights.add_(weight)
    return total.div_(weights).exp_()


def _with_spread_clipping(frame: Frame) -> Frame:
    """A demosaiced frame with the mask ``clipped`` of its mosaic grown to what was interpolated from it."""
    mask = frame.masks.get(CLIPPED)
    if mask is None or frame.state.layout != "rgb" or mask.shape[0] != 1 or not bool(mask.any()):
        return frame
    grown = cv2.dilate(mask[0].numpy().view(np.uint8), np.ones((3, 3), np.uint8))
    return replace(frame, masks={**frame.masks, CLIPPED: torch.from_numpy(grown > 0)[None]})


def _near_clipping(frame: Frame) -> NDArray[np.bool_] | None:
    """Where clipped pixels are near, ``[H,W]``; ``None`` where it is not known what is clipped."""
    mask = frame.masks.get(CLIPPED)
    if mask is None:
        return None
    marks = np.bitwise_or.reduce(mask.numpy().view(np.uint8))
    return np.asarray(cv2.dilate(marks, np.ones((BLOCK_PX, BLOCK_PX), np.uint8))).view(np.bool_)


def _admitted(frame: Frame) -> NDArray[np.uint8] | None:
    """How far each pixel may be used, 0..255 ``[H,W]``: 0 where something moved or nothing is, more with distance."""
    left_out = [frame.masks[name][0].numpy() for name in (MOTION, OUTSIDE) if name in frame.masks]
    if not left_out or not any(mask.any() for mask in left_out):
        return None
    marks = np.maximum.reduce([mask.view(np.uint8) for mask in left_out]) * np.uint8(255)
    width = 2 * max(2, round(FEATHER * math.hypot(frame.height, frame.width))) + 1
    near = cv2.blur(marks, (width, width), borderType=cv2.BORDER_REPLICATE)
    return np.asarray(255 - cv2.max(cv2.add(near, near), marks), dtype=np.uint8)
