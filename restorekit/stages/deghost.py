"""What moved between the frames of a bracket, so that each moving thing comes from one frame alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from restorekit.frame import Bracket, Frame
from restorekit.stage import BracketStage, StageSpec, param, parameters
from restorekit.stages.bracket_blocks import MOTION, Blocks, bracket_blocks
from restorekit.stages.exposures import gains

BLOCKS = 1 << 20
"""The most blocks that are compared: those of 24 megapixels are 5 px wide."""

DEFAULT_NOISE = (1e-4, 2e-6)
CORRELATED = 4
"""Neighbouring pixels share their noise (demosaicing, JPEG): a block averages so many times fewer values."""

LEAST_SNR = 3.0
MODEL_EV, MISALIGNED_PX = 0.04, 0.6
"""What may differ without motion: the response of the camera at the least, and edges by a rest of misalignment."""

GROW = 0.5
"""Share of the threshold to which motion spreads from where it was found."""

LEAST_BLOCKS = 3
"""Fewer blocks beyond the threshold are noise."""

SAMPLE = 100_000
BINS, LEAST_IN_BIN, LARGEST_CORRECTION_EV, LARGEST_SPREAD_EV = 24, 200, 0.5, 0.2

CELLS, LEAST_OF_CELL, LARGEST_SLOW_EV = (6, 8), 0.2, 0.4
"""Cells, rows and columns, whose medians tell what changes slowly over the picture, and by how much at most."""

Plane = NDArray[np.float32]
Mask = NDArray[np.bool_]


@parameters
class Deghost(BracketStage):
    """Mark in every frame of an aligned bracket what is not where the reference, the middle frame, has it.

    Frames are compared in blocks of a few pixels, on logarithms of light: what differs by more than a misalignment of
    0.6 px makes of edges, and ``threshold`` times the noise (Poisson-Gaussian, ``facts.noise``, and the uncertainty of
    the response), has moved. From there motion spreads to all that is connected and differs by half as much, and by
    ``margin`` beyond. Where the reference is clipped, the next darker frame that is not stands for it, unless it is
    darker than clipped light can be; where the reference drowns in noise, the next brighter one: so each part of the
    picture has one frame that is to be believed, whole areas the same. Merging and fusion leave out what the mask
    ``motion`` marks and blend its edges.

    Differences that depend on brightness alone, or change slowly over the picture, and the usual spread of what is left
    are taken for the response of the camera, not for motion; encoded frames need no exposures, which are among them.
    """

    spec = StageSpec(
        name="merge.deghost",
        source="reference-based detection with a noise model: Granados et al., Automatic Noise Modeling for Ghost-free "
        "HDR Reconstruction, SIGGRAPH Asia 2013; hysteresis: Canny, PAMI 8(6), 1986",
        accepts={"frames": ("bracket", "burst"), "layout": ("bayer", "rgb", "gray"), "reference": ("scene", "display")},
    )
    threshold: Annotated[
        float, param("Difference that is motion, in standard deviations", ge=1, le=50, usual=(1, 10))
    ] = 4.0
    margin: Annotated[float, param("Width added around what moved, of the diagonal", unit="%", ge=0, le=5)] = 0.4

    def combine(self, bracket: Bracket) -> Bracket:
        frames = bracket.frames
        looks = _looks(frames)
        middle = len(frames) // 2
        believed, source = self._believed(looks, middle)
        masks = [self._moved(look, believed, source != index) for index, look in enumerate(looks)]
        marked = [_with_motion(frame, mask) for frame, mask in zip(frames, masks, strict=True)]
        share = tuple(round(float(mask.mean()), 4) for mask in masks)
        own = marked[middle]
        facts = replace(own.facts, measured={**own.facts.measured, f"{self.spec.name} moved": share})
        return Bracket(tuple(marked)).with_reference(replace(own, facts=facts))

    def _believed(self, looks: Sequence[_Look], middle: int) -> tuple[_Look, NDArray[np.int32]]:
        """What the picture shows, each part as one frame has it, and the index ``[h,w]`` of that frame.

        The reference where it can be compared; what is clipped there from darker frames, what is dark from brighter
        ones, unless they contradict what the reference says of it: that it is at least so bright.
        """
        reference = looks[middle]
        source = np.full(reference.valid.shape, middle, np.int32)
        burnt, dark = (_widened(mask) for mask in (reference.burnt, ~reference.valid & ~reference.burnt))
        for order, missing in ((range(middle - 1, -1, -1), burnt), (range(middle + 1, len(looks)), dark)):
            for index in order:
                contradicts = self._regions(looks[index], reference, missing)
                taken = missing & looks[index].valid & ~contradicts
                source[taken] = index
                missing = missing & ~taken
        logs, noise, edges = (
            _picked([getattr(each, plane) for each in looks], source) for plane in ("logs", "noise", "edges")
        )
        valid, burnt = (
            _picked([getattr(each, mask)[None] for each in looks], source)[0] for mask in ("valid", "burnt")
        )
        return _Look(logs, noise, edges, valid, burnt), source

    def _moved(self, look: _Look, believed: _Look, elsewhere: Mask) -> Mask:
        """Blocks in which a frame shows something else than the one that is believed, and what lies around them."""
        found = self._regions(look, believed, elsewhere)
        if not found.any():
            return found
        width = max(1, round(self.margin / 100 * math.hypot(*found.shape)))
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * width + 1,) * 2)
        closed = cv2.morphologyEx(found.astype(np.uint8), cv2.MORPH_CLOSE, kernel, borderValue=0)
        return np.asarray(cv2.dilate(closed, kernel) > 0)

    def _regions(self, look: _Look, other: _Look, where: Mask) -> Mask:
        """Connected blocks in which two frames contradict each other.

        Clipped blocks are at least as bright as they look, so that only their excess counts: that of luminance, since
        mixed channels may fall where one of those that they are made of clips.
        """
        difference = look.logs - other.logs
        burnt = look.burnt | other.burnt
        brightness = _brightness(look.logs[:, burnt]) - _brightness(other.logs[:, burnt])
        brightness[look.burnt[burnt]] = np.maximum(brightness[look.burnt[burnt]], 0)
        brightness[other.burnt[burnt]] = np.minimum(brightness[other.burnt[burnt]], 0)
        difference[:, burnt] = brightness
        excess = np.maximum(np.abs(difference) - np.maximum(look.edges, other.edges), 0)
        score = np.sqrt(np.mean(excess**2 / (look.noise**2 + other.noise**2), axis=0)) / self.threshold
        score = cv2.medianBlur(np.where(where, score, 0).astype(np.float32), 3)
        count, labels = cv2.connectedComponents((score > GROW).astype(np.uint8), connectivity=8)
        seeds = np.bincount(labels[score > 1].ravel(), minlength=count)
        return np.asarray((seeds >= LEAST_BLOCKS)[labels] & (labels > 0))


@dataclass(frozen=True, eq=False)
class _Look:
    """A frame in blocks: log2 of light ``[C,h,w]`` on the scale of the reference, its standard deviation, what a rest
    of misalignment makes of it; where it can be compared ``[h,w]``, and where it is clipped, at least as bright."""

    logs: Plane
    noise: Plane
    edges: Plane
    valid: Mask
    burnt: Mask


def _looks(frames: Sequence[Frame]) -> list[_Look]:
    blocks = bracket_blocks(frames, BLOCKS)
    looks = [_look(frame, means) for frame, means in zip(frames, blocks, strict=True)]
    middle = len(frames) // 2
    for order in (range(middle - 1, -1, -1), range(middle + 1, len(frames))):
        neighbour = middle
        for index in order:
            exposed = frames[index].facts.exposure_gain is not None
            looks[index] = _on_scale_of(looks[index], looks[neighbour], exposed)
            neighbour = index
    return looks


def _look(frame: Frame, means: Blocks) -> _Look:
    values = np.nan_to_num(means.values.numpy().astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    pixels = frame.height * frame.width / values[0].size
    noise = frame.facts.noise or (DEFAULT_NOISE,)
    model = np.asarray([noise[min(c, len(noise) - 1)] for c in range(len(values))], np.float32)[:, :, None, None]
    variance = (model[:, 0] * np.maximum(values, 0) + model[:, 1]) / max(1.0, pixels / CORRELATED)
    deviation = np.sqrt(variance)
    light = np.maximum(values, deviation)
    logs = np.log2(light)
    edges = np.stack([_steepness(plane) for plane in logs]) * np.float32(MISALIGNED_PX / math.sqrt(pixels))
    clean, shown = means.clean.numpy(), means.shown.numpy()
    return _Look(
        logs + np.log2(gains(frame).numpy()),
        np.hypot(deviation / light / np.float32(math.log(2)), np.float32(MODEL_EV)),
        edges,
        shown & clean & (values > LEAST_SNR * deviation).all(0),
        shown & ~clean,
    )


def _steepness(logs: Plane) -> Plane:
    """The largest change to a neighbouring block, around each."""
    across = cv2.Sobel(logs, cv2.CV_32F, 1, 0, ksize=3, scale=0.125)
    down = cv2.Sobel(logs, cv2.CV_32F, 0, 1, ksize=3, scale=0.125)
    return np.asarray(cv2.dilate(cv2.magnitude(across, down), np.ones((3, 3), np.uint8)), dtype=np.float32)


def _on_scale_of(look: _Look, other: _Look, exposed: bool) -> _Look:
    """A frame whose brightness differs from another's by nothing that depends on brightness or place alone.

    The spread of what is left is added to its noise. Where the two have too little in common, and their exposures are
    not known, nothing can be said of motion, and the noise is infinite.
    """
    both = look.valid & other.valid
    where = np.flatnonzero(both)
    if len(where) < LEAST_IN_BIN:
        return look if exposed else replace(look, noise=np.full_like(look.noise, np.inf))
    where = where[:: max(1, len(where) // SAMPLE)]
    logs, noise = np.empty_like(look.logs), np.empty_like(look.noise)
    for channel, (own, known) in enumerate(zip(look.logs, other.logs, strict=True)):
        seen = own.ravel()[where]
        difference = known.ravel()[where] - seen
        common = float(np.median(difference))
        edges = np.quantile(seen, np.linspace(0, 1, BINS + 1))
        places, steps, spreads = [], [], []
        for low, high in pairwise(edges):
            inside = difference[(seen >= low) & (seen <= high)]
            if len(inside) >= min(LEAST_IN_BIN, len(seen) // BINS):
                middle = float(np.median(inside))
                places.append((low + high) / 2)
                steps.append(middle)
                spreads.append(1.4826 * float(np.median(np.abs(inside - middle))))
        limited = np.clip(steps, common - LARGEST_CORRECTION_EV, common + LARGEST_CORRECTION_EV)
        smooth = np.convolve(np.pad(limited, 1, mode="edge"), (0.25, 0.5, 0.25), mode="valid")
        logs[channel] = own + np.interp(own, places, smooth)
        logs[channel] += _slow_change(known - logs[channel], both)
        noise[channel] = np.hypot(look.noise[channel], np.interp(own, places, np.minimum(spreads, LARGEST_SPREAD_EV)))
    return replace(look, logs=logs, noise=noise)


def _slow_change(difference: Plane, both: Mask) -> Plane:
    """What differs by place alone, slowly over the picture: vignetting, flicker, the local tone curves of phones."""
    rows, columns = (max(1, min(cells, length // 8)) for cells, length in zip(CELLS, difference.shape, strict=True))
    bands = np.array_split(np.where(both, difference, np.nan), rows)
    medians = np.full((rows, columns), np.nan)
    for row, band in enumerate(bands):
        for column, cell in enumerate(np.array_split(band, columns, axis=1)):
            if np.isfinite(cell).mean() > LEAST_OF_CELL:
                medians[row, column] = np.nanmedian(cell)
    if not np.isfinite(medians).any():
        return np.zeros_like(difference)
    medians -= np.nanmedian(medians)
    filled = np.clip(np.nan_to_num(medians), -LARGEST_SLOW_EV, LARGEST_SLOW_EV).astype(np.float32)
    return np.asarray(cv2.resize(filled, difference.shape[::-1], interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def _brightness(logs: Plane) -> Plane:
    """log2 of luminance ``[N]``, as far as it matters here, of log2 of light ``[C,N]``."""
    weights = np.array((0.25, 0.5, 0.25) if len(logs) == 3 else (1.0,), np.float32)
    return np.asarray(np.log2(weights @ np.exp2(logs)), dtype=np.float32)


def _picked(planes: Sequence[NDArray[Any]], source: NDArray[np.int32]) -> NDArray[Any]:
    """``[C,h,w]`` put together of planes, each block from the one that ``source`` names."""
    picked: NDArray[Any] = np.take_along_axis(np.stack(planes), source[None, None], 0)[0]
    return picked


def _widened(mask: Mask) -> Mask:
    """A mask grown by a block."""
    return np.asarray(cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)


def _with_motion(frame: Frame, moved: Mask) -> Frame:
    """A frame with the mask of its motion at full size; without one where nothing moved."""
    if not moved.any():
        return frame
    soft = moved.astype(np.uint8) * np.uint8(255)
    whole = cv2.resize(soft, (frame.width, frame.height), interpolation=cv2.INTER_LINEAR) >= 128
    found = torch.from_numpy(whole)[None]
    known = frame.masks.get(MOTION)
    return replace(frame, masks={**frame.masks, MOTION: found if known is None else known | found})
