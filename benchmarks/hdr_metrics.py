"""How far the result of a bracket is from the truth that ``make_bracket.py`` wrote beside it.

Alignment is measured where a program tells its matrices (``pose_error``) and in pictures (``tile_residual``), merged
radiance with PU21 (Azimi & Mantiuk, PU21: A novel perceptually uniform encoding for adapting existing quality metrics
for HDR, PCS 2021), merged mosaics against the least variance that their noise allows, and ghosts as the share of what
another shot saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from make_bracket import (
    FULL_WELL_ELECTRONS,
    LUMINANCE,
    READ_NOISE_ELECTRONS,
    Image32,
    Matrix,
    Truth,
    mosaic_of,
    moved,
)
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Picture = NDArray[np.uint8]
Window = tuple[slice, slice]

BORDER_PX = 60
PU21 = (0.353487901, 0.3734658629, 8.277049286e-05, 0.9062562627, 0.09150303166, 0.9099517204, 596.3148142)
"""Parameters of the variant for banding and glare."""
PU21_PEAK = 595.0
WHITE_NIT = 203.0
LEVELS = {"dark": (0.005, 0.05), "mid": (0.05, 0.5), "bright": (0.5, 2.0), "highlight": (2.0, 12.0)}
"""Ranges of luminance, 1.0 = white of the reference shot."""


@dataclass(frozen=True)
class Distances:
    """Distances in px; ``count`` is over how many points or tiles."""

    median: float
    p95: float
    max: float
    count: int

    @classmethod
    def of(cls, distances: Matrix) -> Distances:
        found = distances[np.isfinite(distances)]
        if not len(found):
            return cls(np.nan, np.nan, np.nan, 0)
        return cls(float(np.median(found)), float(np.quantile(found, 0.95)), float(found.max()), len(found))


def pose_error(estimated: Matrix, true: Matrix, width: int, height: int) -> Distances:
    """How far an estimated homography ``[3,3]`` takes points from where the true one does: a 20 x 14 grid.

    The grid covers the reference; points that the other shot does not see are left out.
    """
    x, y = np.meshgrid(np.linspace(0, width - 1, 20), np.linspace(0, height - 1, 14))
    points = np.column_stack([x.ravel(), y.ravel()])
    wanted = moved(true, points)
    inside = ((wanted >= 0) & (wanted <= (width - 1, height - 1))).all(1)
    return Distances.of(np.linalg.norm(moved(estimated, points) - wanted, axis=1)[inside])


def tile_residual(reference: Picture, aligned: Picture, moving: Mask | None = None) -> Distances:
    """Shifts that phase correlation still finds between two aligned pictures ``[H,W,3]`` of different exposure.

    Nine tiles of 768 px (smaller in small pictures) of the high-passed logarithm, without what is clipped in one of
    the two or ``moving`` ``[H,W]``; tiles with less than 35 percent left do not count.
    """
    still = np.ones(reference.shape[:2], bool) if moving is None else ~moving
    height, width = reference.shape[:2]
    size = transform_size(min(768, (height - 2 * BORDER_PX) // 2))
    shifts = []
    for row in (0.15, 0.5, 0.85):
        for column in (0.1, 0.5, 0.9):
            top = int(np.clip(row * height - size / 2, BORDER_PX, height - size - BORDER_PX))
            left = int(np.clip(column * width - size / 2, BORDER_PX, width - size - BORDER_PX))
            shifts.append(_tile_shift(reference, aligned, still, top, left, size))
    return Distances.of(np.linalg.norm(shifts, axis=1))


def _tile_shift(reference: Picture, aligned: Picture, still: Mask, top: int, left: int, size: int) -> Matrix:
    """The shift (x, y) of a tile, NaN where too little of it is seen.

    What clips is masked in both tiles alike, which draws the result to 0: so it is measured again from where it was
    found, to the nearest pixel, until it stays there.
    """
    x = y = 0
    shift = np.zeros(2)
    for _ in range(4):
        gray = [
            cv2.cvtColor(picture[top + v : top + v + size, left + u : left + u + size], cv2.COLOR_RGB2GRAY)
            for picture, u, v in ((reference, 0, 0), (aligned, x, y))
        ]
        seen = still[top : top + size, left : left + size]
        seen = np.logical_and.reduce([seen, *((g > 8) & (g < 247) for g in gray)])
        if seen.mean() < 0.35:
            return np.full(2, np.nan)
        logs = [np.log(g.astype(np.float32) + 4) for g in gray]
        details = [cv2.GaussianBlur(high_pass(log) * seen, (0, 0), 1.2) for log in logs]
        shift = shift_between(*details) + np.array([x, y])
        nearest = np.clip(np.rint(shift), -BORDER_PX, BORDER_PX).astype(int)
        if (nearest == (x, y)).all():
            break
        x, y = (int(n) for n in nearest)
    return shift


def transform_size(largest: int) -> int:
    """The largest even size up to this one that OpenCV does not pad: padded to odd it is half a px off."""
    return next(size for size in range(largest - largest % 2, 0, -2) if cv2.getOptimalDFTSize(size) == size)


def shift_between(first: Image32, second: Image32) -> Matrix:
    """The shift (x, y) of the middle of a plane against that of another by phase correlation, px."""
    sizes = [transform_size(min(extent, 2048)) for extent in first.shape]
    middle = tuple(slice((e - size) // 2, (e + size) // 2) for e, size in zip(first.shape, sizes, strict=True))
    window = cv2.createHanningWindow(sizes[::-1], cv2.CV_32F)
    shift, _ = cv2.phaseCorrelate(np.ascontiguousarray(first[middle]), np.ascontiguousarray(second[middle]), window)
    return np.array(shift)


def high_pass(plane: Image32) -> Image32:
    result: Image32 = plane - cv2.GaussianBlur(plane, (0, 0), 6)
    return result


def pu21(luminance: Image32) -> Image32:
    """Relative luminance (1.0 = 203 nit) in perceptually uniform units, 0 to 595."""
    a, b, c, d, e, f, g = PU21
    power = np.clip(luminance * WHITE_NIT, 0.005, 10000) ** np.float32(d)
    result: Image32 = np.maximum(g * (((a + b * power) / (1 + c * power)) ** np.float32(e) - f), 0)
    return result


def pu21_psnr(result: Image32, truth: Image32, region: Mask | slice = slice(None)) -> float:
    """PSNR in dB of two planes of luminance, PU21 encoded, all over or in a region."""
    error = np.mean((pu21(result[region]) - pu21(truth[region])) ** 2)
    return float(10 * np.log10(PU21_PEAK**2 / max(error, 1e-6)))


@dataclass(frozen=True)
class RadianceScore:
    """``pu21_db`` and ``quarter_db`` (a quarter of the size), ``log2_rmse`` in stops by level of luminance,
    ``angle`` the median angle between colours in degrees; ``scale_ev`` (stops) and ``shift`` (x, y; px) were undone
    before."""

    pu21_db: float
    quarter_db: float
    log2_rmse: dict[str, float]
    angle: float
    scale_ev: float
    shift: tuple[float, float]


class Placed(NamedTuple):
    """The part of a result that shows the truth: ``pixels`` on its scale, the ``window`` of the truth where they lie,
    the factor ``scale`` that they were brought by, and the ``shift`` (x, y) that was undone, px."""

    pixels: Image32
    window: Window
    scale: float
    shift: tuple[float, float]


def brought_onto(result: Image32, truth: Image32) -> Placed:
    """A merged picture ``[H,W,3]`` on the scale and in the place of the truth.

    What programs are free to choose is taken out: one global scale, one global shift (also of a cropped result), which
    is resampled only where it is more than 0.2 px off whole pixels.
    """
    result = np.nan_to_num(result, nan=0, posinf=0, neginf=0).clip(0).astype(np.float32)
    wanted = truth @ LUMINANCE
    scale, shift = np.float32(1), np.zeros(2)
    theirs = window = (slice(0, min(result.shape[0], truth.shape[0])), slice(0, min(result.shape[1], truth.shape[1])))
    for _ in range(2):
        ours = result[theirs] @ LUMINANCE
        scale = _scale(ours, wanted[window])
        shift = np.rint(shift) + shift_between(np.log(wanted[window] + 0.01), np.log(ours * scale + 0.01))
        x, y = (int(n) for n in np.rint(shift))
        window, theirs = overlap(wanted.shape, result.shape, x, y)
    part = result[theirs]
    rest = shift - np.rint(shift)
    if np.hypot(*rest) > 0.2:
        there = np.array([[1, 0, rest[0]], [0, 1, rest[1]]], np.float32)
        how = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        part = cv2.warpAffine(part, there, part.shape[1::-1], flags=how, borderMode=cv2.BORDER_REFLECT).clip(0)
    scale = _scale(part @ LUMINANCE, wanted[window])
    return Placed(part * scale, window, float(scale), (float(shift[0]), float(shift[1])))


def overlap(first: Sequence[int], second: Sequence[int], x: int, y: int) -> tuple[Window, Window]:
    """What two planes of these shapes share, in each, where the second shows everything (x, y) px further on."""
    shared = [
        (max(0, -by), min(extent, other - by)) for extent, other, by in zip(first[:2], second[:2], (y, x), strict=True)
    ]
    if any(start >= stop for start, stop in shared):
        raise ValueError(f"pictures of {tuple(first)} and {tuple(second)} that are ({x}, {y}) px apart share nothing")
    (top, bottom), (left, right) = shared
    return (slice(top, bottom), slice(left, right)), (slice(top + y, bottom + y), slice(left + x, right + x))


def _scale(ours: Image32, wanted: Image32) -> np.float32:
    """The factor that brings middle tones of a plane to those of another."""
    both = (wanted > 0.02) & (wanted < 1.5) & (ours > 0)
    return np.float32(np.exp(np.median(np.log(wanted[both]) - np.log(ours[both])))) if both.any() else np.float32(1)


def radiance_score(result: Image32, truth: Image32) -> RadianceScore:
    """A merged picture ``[H,W,3]`` in linear BT.709 against the radiance."""
    result, window, scale, shift = brought_onto(result, truth)
    inner = slice(BORDER_PX, -BORDER_PX)
    result, truth = result[inner, inner], truth[window][inner, inner]
    ours, wanted = result @ LUMINANCE, truth @ LUMINANCE
    small = [cv2.resize(p, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA) for p in (ours, wanted)]
    stops = np.log2(ours + 1e-4) - np.log2(wanted + 1e-4)
    inside = {name: (wanted > low) & (wanted < high) for name, (low, high) in LEVELS.items()}
    rmse = {name: float(np.sqrt(np.mean(stops[m] ** 2))) if m.any() else float("nan") for name, m in inside.items()}
    lengths = np.linalg.norm(result, axis=-1) * np.linalg.norm(truth, axis=-1)
    cosines = np.einsum("hwc,hwc->hw", result, truth) / (lengths + 1e-9)
    angle = float(np.degrees(np.median(np.arccos(np.clip(cosines, -1, 1)))))
    levels = pu21_psnr(ours, wanted), pu21_psnr(small[0], small[1])
    return RadianceScore(*levels, rmse, angle, float(np.log2(scale)), shift)


@dataclass(frozen=True)
class MosaicScore:
    """``psnr_db`` of a merged mosaic (peak 1.0 = white of the reference shot), ``bound_db`` that of the least variance,
    and ``excess_db``: the mean of squared error over least variance, pixel by pixel, 0 = as good as can be."""

    psnr_db: float
    bound_db: float
    excess_db: float


def least_variance(signal: Image32, evs: Sequence[float]) -> Image32:
    """The variance of the best unbiased merge of shots of a sensor signal (1.0 = clips in the reference).

    Every shot that does not clip gives an estimate with variance ``(s / full well + read noise^2) / gain^2``, where s
    is the signal times the gain ``2^ev``; the best mean weighs them inversely. Infinite where all clip.
    """
    information = np.zeros_like(signal)
    for ev in evs:
        gain = np.float32(2.0**ev)
        seen = signal * gain
        variance = (
            seen / FULL_WELL_ELECTRONS + np.float32((READ_NOISE_ELECTRONS / FULL_WELL_ELECTRONS) ** 2)
        ) / gain**2
        information += np.where(seen < 1, 1 / variance, 0)
    with np.errstate(divide="ignore"):
        result: Image32 = 1 / information
    return result


def mosaic_score(result: Image32, truth: Truth) -> MosaicScore:
    """A merged RGGB mosaic ``[H,W]`` without black level against the truth.

    One global scale, a global shift by whole cells of the filter (hdrmerge crops) and the border are left out, and
    pixels that are clipped in the darkest shot (within 3 sigma).
    """
    wanted = mosaic_of(truth.radiance)
    ours = result.astype(np.float32)
    same = tuple(slice(0, min(a, b)) for a, b in zip(ours.shape, wanted.shape, strict=True))
    greens = [
        np.log(plane[same][0::2, 1::2].clip(0) + 0.01) for plane in (wanted, ours * _scale(ours[same], wanted[same]))
    ]
    x, y = (2 * round(cells) for cells in shift_between(*greens))
    window, theirs = overlap(wanted.shape, ours.shape, x, y)
    inner = slice(BORDER_PX, -BORDER_PX)
    ours, wanted = ours[theirs][inner, inner], wanted[window][inner, inner]
    bound = least_variance(wanted, truth.evs)
    gain = 2.0 ** truth.evs[0]
    visible = wanted * gain + 3 * np.sqrt(wanted * gain / FULL_WELL_ELECTRONS) < 1
    squares = (ours * _scale(ours, wanted) - wanted)[visible] ** 2
    bound = bound[visible]

    def db(value: float) -> float:
        return float(10 * np.log10(value))

    return MosaicScore(-db(squares.mean()), -db(bound.mean()), db((squares / bound).mean()))


@dataclass(frozen=True)
class MotionScore:
    """What became of a moving object, against the truth of the reference shot.

    ``pu21_db`` where it is in any shot, ``reference_db`` what the reference shot alone has there (``nan`` where the
    result is no radiance). ``intruders`` is the share of other shots' objects in the details where the reference
    sees background (the largest of the shots), ``hole`` the share of background where it sees the object:
    0 no ghost, 0.5 a double exposure, 1 the wrong shot.
    """

    pu21_db: float
    reference_db: float
    intruders: float
    hole: float


def motion_score(result: Image32, truth: Truth, reference: Image32, *, radiance: bool = True) -> MotionScore:
    """A result ``[H,W,3]``, linear BT.709 in the frame of the reference, for a bracket of kind motion.

    ``reference`` is the reference shot alone, linear; ``radiance`` tells whether the result is one, rather than a
    picture whose tones were changed.
    """
    if truth.object is None:
        raise ValueError("this bracket has no moving object; make one with --kind motion")
    shape = truth.radiance.shape[:2]
    covers = [truth.object.covers(shape, shot) for shot in range(len(truth.evs))]
    own = covers.pop(truth.reference)
    others = np.logical_or.reduce(covers)
    light = result.clip(0) @ LUMINANCE
    wanted, behind = truth.radiance @ LUMINANCE, truth.background @ LUMINANCE
    shots = [shot for shot in range(len(truth.evs)) if shot != truth.reference]
    intruders = max(
        ghost_share(light, wanted, truth.scene(shot) @ LUMINANCE, mask & ~own)
        for shot, mask in zip(shots, covers, strict=True)
    )
    hole = ghost_share(light, wanted, behind, own & ~others)
    if not radiance:
        return MotionScore(np.nan, np.nan, intruders, hole)
    everywhere = own | others
    levels = [pu21_psnr(plane * _scale(plane, wanted), wanted, everywhere) for plane in (light, reference @ LUMINANCE)]
    return MotionScore(levels[0], levels[1], intruders, hole)


def ghost_share(result: Image32, own: Image32, other: Image32, region: Mask) -> float:
    """How much of the details of a region is another shot's, 0 to 1; planes of luminance.

    Least squares with the reference's and the other shot's details as the two unknown shares. Details are those of the
    logarithm between 3 and 24 px, which tone curves and errors of alignment of a px hardly change.
    """
    rows, columns = (np.flatnonzero(region.any(axis)) for axis in (1, 0))
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    inside = cv2.erode(region[window].astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    logs = [np.log(plane[window] + 0.003) for plane in (result, own, other)]
    details = [(cv2.GaussianBlur(log, (0, 0), 3) - cv2.GaussianBlur(log, (0, 0), 24))[inside] for log in logs]
    shares = np.abs(np.linalg.lstsq(np.stack(details[1:], 1), details[0], rcond=None)[0])
    return float(shares[1] / max(shares.sum(), 1e-6))
