"""How one picture lies on another: patches matched to a fraction of a pixel, and a homography fitted to them.

Works on 8-bit gray views with a mask of what is well exposed. Patches are compared up to gain and offset, so that
exposures need not be known; coarse to fine, so that only the neighbourhoods of patches are looked at in full size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from restorekit.facts import Matrix

Model = Literal["homography", "affine", "translation", "none"]
MODELS: tuple[Model, ...] = ("homography", "affine", "translation")
Gray = NDArray[np.uint8]
Points = NDArray[np.float64]

COARSE_PX = 1024
"""Long side of the views on which the first pose is sought."""

GRID = (12, 16)
"""Rows and columns of cells, each of which gives at most one patch."""

PATCH_PX, LEAST_PATCH_PX, SMOOTHING_PX, ITERATIONS = 80, 16, 1.0, 8
"""Patches of small pictures are a quarter of their shorter side, so that they tell apart what turns."""

LEAST_CORRELATION, LEAST_USABLE = 0.6, 0.35
INLIER_PX, PARALLAX = 1.0, 0.002
"""A patch agrees with a model within this distance. Scenes with depth get twice and four times it, as long as that is
at most this share of the diagonal."""

LEAST_INLIERS = {"homography": 16, "affine": 10, "translation": 4}
LEAST_SHARE, SURE = 0.4, 0.7
"""Shares of agreeing patches: the least that carries a model, and that from which no better first pose is sought."""

LEAST_SPREAD = {"homography": 0.15, "affine": 0.1, "translation": 0.0}
"""Standard deviation of the places of agreeing patches, as a share of height and width."""

LOWEST_CODE, HIGHEST_CODE = 2, 250
"""Codes of well exposed pixels; brighter ones may be clipped in all channels."""

LARGEST_SHEAR = 0.3
ROUNDS, SETTLED_PX = 4, 0.25
"""Patches only shift, so that a turn is found bit by bit: in so many rounds, or until one moves no corner farther."""

STILL_PX = 0.1
"""A pose that moves no corner farther is taken for a tripod's: nothing is resampled."""


@dataclass(frozen=True, eq=False)
class View:
    """What matching sees of a picture: ``gray`` uint8 ``[H,W]``, ``usable`` uint8 ``[H,W]``, 255 where it is well
    exposed."""

    gray: Gray
    usable: Gray
    _reduced: dict[int, View] = field(default_factory=dict, repr=False)

    def reduced(self, factor: int) -> View:
        """This view at a ``factor``-th of its size; usable where all pixels are. Kept for the next time."""
        if factor == 1:
            return self
        if factor in self._reduced:
            return self._reduced[factor]
        height, width = self.gray.shape
        size = max(1, width // factor), max(1, height // factor)
        area = (slice(0, size[1] * factor), slice(0, size[0] * factor)) if min(height, width) >= factor else (...,)
        gray = cv2.resize(self.gray[area], size, interpolation=cv2.INTER_AREA)
        share = cv2.resize(self.usable[area], size, interpolation=cv2.INTER_AREA)
        found = View(gray.astype(np.uint8), np.where(share > 250, np.uint8(255), np.uint8(0)))
        self._reduced[factor] = found
        return found


@dataclass(frozen=True, eq=False)
class Pose:
    """``matrix`` ``[3,3]`` maps pixels (x, y, 1) of the fixed picture to those of the moving one.

    ``residual_px`` is the median distance of the agreeing patches from it.
    """

    matrix: Matrix
    model: Model = "none"
    residual_px: float = 0.0
    inliers: int = 0
    patches: int = 0

    def is_still(self, height: int, width: int) -> bool:
        """Whether the pose moves no corner by more than the precision of matching."""
        return _apart(self.matrix, np.eye(3), height, width) <= STILL_PX


def find_pose(fixed: View, moving: View, *, model: Model = "homography", start: Matrix | None = None) -> Pose:
    """The pose of ``moving`` on ``fixed``, two views of one size, with a model of at most the freedom of ``model``.

    First poses come from phase correlation and ``start``, and where patches do not confirm these, from SIFT features:
    the one under which the coarse views correlate best. The better supported one is refined on patches, at a quarter
    and at full size, there until it settles. A model is accepted when at least 16 patches (affine 10, translation 4)
    and 40 % of those that could be matched lie within 1 px of it (scenes with depth: 2 or 4 px), when these spread over
    the picture (standard deviation of 15 % of its sides, affine 10 %), and when it neither folds nor shears by more
    than 30 %. Else the next simpler one is tried, at last ``none``, the identity.

    Source: patches by Gauss-Newton (Baker & Matthews, Lucas-Kanade 20 Years On, IJCV 2004, with gain and offset); Lowe
    2004 (SIFT); Barath et al., MAGSAC++, CVPR 2020; iteratively reweighted least squares with Tukey's weights.
    """
    factor = 1
    while max(fixed.gray.shape) / factor > COARSE_PX:
        factor *= 2
    coarse_fixed, coarse_moving = fixed.reduced(factor), moving.reduced(factor)
    pose, points = Pose(np.eye(3)), np.empty((0, 2))
    for guess in _guesses(coarse_fixed, coarse_moving, None if start is None else scaled(start, 1 / factor), model):
        places = _good_places(coarse_fixed, coarse_moving, guess)
        found = _refined(coarse_fixed, coarse_moving, guess, places, model)
        if found.inliers >= pose.inliers:
            pose, points = found, places
        if found.model == model and found.inliers >= SURE * found.patches:
            break
    for scale in (*sorted({min(4, factor), 1}, reverse=True), *(1,) * (ROUNDS - 1)):
        if pose.model == "none":
            break
        points, matrix = (points + 0.5) * (factor / scale) - 0.5, scaled(pose.matrix, factor / scale)
        found = _refined(fixed.reduced(scale), moving.reduced(scale), matrix, points, model)
        if found.model == "none" and scale == factor:
            break
        pose, factor = found, scale
        if scale == 1 and _apart(pose.matrix, matrix, *fixed.gray.shape) <= SETTLED_PX:
            break
    return pose


def _refined(fixed: View, moving: View, matrix: Matrix, points: Points, model: Model) -> Pose:
    """A pose after patches around points were matched under it."""
    height, width = fixed.gray.shape
    return _fitted(_matched(fixed, moving, matrix, points), height, width, model)


def view_of_codes(codes: NDArray[np.uint8]) -> View:
    """A view of an encoded picture, uint8 ``[H,W,3]`` or ``[H,W]``."""
    gray = cv2.cvtColor(codes, cv2.COLOR_RGB2GRAY) if codes.ndim == 3 else codes
    usable = cv2.inRange(gray, (LOWEST_CODE,), (HIGHEST_CODE,))
    return View(np.asarray(gray, dtype=np.uint8), np.asarray(usable, dtype=np.uint8))


def projected(matrix: Matrix, points: Points) -> Points:
    """Points ``[N,2]`` (x, y) mapped by a homography."""
    mapped = np.concatenate((points, np.ones((len(points), 1))), 1) @ matrix.T
    return np.asarray(mapped[:, :2] / mapped[:, 2:], dtype=np.float64)


def corners(height: int, width: int) -> Points:
    return np.array([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]], dtype=np.float64)


def _apart(one: Matrix, other: Matrix, height: int, width: int) -> float:
    """How far apart two poses bring a corner, in px along an axis."""
    ends = corners(height, width)
    return float(np.abs(projected(one, ends) - projected(other, ends)).max())


def scaled(matrix: Matrix, scale: float) -> Matrix:
    """A pose for pictures ``scale`` times as large; pixels are areas, with centres at integers."""
    shift = (scale - 1) / 2
    grow = np.array([[scale, 0, shift], [0, scale, shift], [0, 0, 1]])
    return np.asarray(grow @ matrix @ np.linalg.inv(grow), dtype=np.float64)


def _guesses(fixed: View, moving: View, start: Matrix | None, model: Model) -> Iterator[Matrix]:
    """First poses at small size: the best of the cheap ones, then the best of all."""
    flat, other = _equalised(fixed), _equalised(moving)
    shift = _phase_shift(flat, other)
    cheap = [np.eye(3), np.array([[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1]], dtype=np.float64)]
    if start is not None:
        cheap.append(start)
    agreement = {index: _agreement(fixed, moving, matrix) for index, matrix in enumerate(cheap)}
    best = max(agreement, key=lambda index: agreement[index])
    yield cheap[best]
    if model != "translation":
        for matrix in _feature_poses(flat, other, model):
            if (found := _agreement(fixed, moving, matrix)) > agreement[best]:
                cheap.append(matrix)
                best = len(cheap) - 1
                agreement[best] = found
    yield cheap[best]


def _equalised(view: View) -> Gray:
    """Ranks instead of values: alike whatever the exposure."""
    return np.asarray(cv2.equalizeHist(view.gray), dtype=np.uint8)


def _phase_shift(fixed: Gray, moving: Gray) -> tuple[float, float]:
    if min(fixed.shape) < 8:
        return 0.0, 0.0
    planes = [
        plane.astype(np.float32) - cv2.GaussianBlur(plane.astype(np.float32), (0, 0), 6) for plane in (fixed, moving)
    ]
    window = cv2.createHanningWindow(fixed.shape[::-1], cv2.CV_32F)
    (dx, dy), _ = cv2.phaseCorrelate(planes[0], planes[1], window)
    return float(dx), float(dy)


def _feature_poses(fixed: Gray, moving: Gray, model: Model) -> list[Matrix]:
    """Poses by SIFT features: a similarity, and what the model allows."""
    detector = cv2.SIFT.create(2500)
    places_f, words_f = detector.detectAndCompute(fixed, None)
    places_m, words_m = detector.detectAndCompute(moving, None)
    if words_f is None or words_m is None or min(len(places_f), len(places_m)) < 8:
        return []
    pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(words_f, words_m, k=2)
    good = [pair[0] for pair in pairs if len(pair) == 2 and pair[0].distance < 0.8 * pair[1].distance]
    if len(good) < 8:
        return []
    source = np.array([places_f[match.queryIdx].pt for match in good])
    target = np.array([places_m[match.trainIdx].pt for match in good])
    cv2.setRNGSeed(0)
    found: list[Matrix] = []
    similarity, _ = cv2.estimateAffinePartial2D(source, target, method=cv2.RANSAC, ransacReprojThreshold=2.0)
    if similarity is not None:
        found.append(np.vstack((similarity, (0, 0, 1))))
    if model == "homography":
        matrix, _ = cv2.findHomography(source, target, cv2.USAC_MAGSAC, 2.0, maxIters=2000, confidence=0.999)
        if matrix is not None:
            found.append(np.asarray(matrix, dtype=np.float64))
    return [matrix for matrix in found if _is_sane(matrix, *fixed.shape)]


def _agreement(fixed: View, moving: View, matrix: Matrix) -> float:
    """Correlation of detail where both views are usable and overlap, times the root of how much that is."""
    height, width = fixed.gray.shape
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpPerspective(moving.gray, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    usable = cv2.warpPerspective(moving.usable, matrix, (width, height), flags=flags) >= 255
    usable &= fixed.usable >= 255
    if usable.mean() < 0.02:
        return 0.0
    a, b = _detail(fixed.gray)[usable], _detail(np.asarray(warped, dtype=np.uint8))[usable]
    return float((a * b).mean() / (np.sqrt((a * a).mean() * (b * b).mean()) + 1e-9) * np.sqrt(usable.mean()))


def _detail(gray: Gray) -> NDArray[np.float32]:
    """Band-pass detail over its local strength, so that dim and bright parts count alike."""
    plane = cv2.GaussianBlur(gray.astype(np.float32), (0, 0), 1.0)
    plane = plane - cv2.GaussianBlur(plane, (0, 0), 4.0)
    strength = cv2.GaussianBlur(plane * plane, (0, 0), 8.0)
    return np.asarray(plane / np.sqrt(strength + 0.25), dtype=np.float32)


def _good_places(fixed: View, moving: View, matrix: Matrix) -> Points:
    """At most one place ``[N,2]`` a cell of the grid where both views have corners, at small size."""
    height, width = fixed.gray.shape
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpPerspective(moving.gray, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    usable = cv2.warpPerspective(moving.usable, matrix, (width, height), flags=flags)
    usable = cv2.erode(cv2.min(usable, fixed.usable), np.ones((5, 5), np.uint8), borderValue=0)
    strength = np.minimum(cv2.cornerMinEigenVal(fixed.gray, 7, ksize=3), cv2.cornerMinEigenVal(warped, 7, ksize=3))
    strength[usable < 255] = 0
    rows, columns = min(GRID[0], max(1, height // 8)), min(GRID[1], max(1, width // 8))
    found = []
    for top, bottom in zip(*_edges(height, rows), strict=True):
        for left, right in zip(*_edges(width, columns), strict=True):
            cell = strength[top:bottom, left:right]
            y, x = np.unravel_index(int(cell.argmax()), cell.shape)
            if cell[y, x] > 1e-6:
                found.append((left + x, top + y))
    return np.array(found, dtype=np.float64).reshape(-1, 2)


def _edges(length: int, count: int) -> tuple[list[int], list[int]]:
    edges = [length * index // count for index in range(count + 1)]
    return edges[:-1], edges[1:]


@dataclass(frozen=True, eq=False)
class _Matches:
    """Places ``[N,2]`` in the fixed picture, where they lie in the moving one, and the precision ``[N]`` of that."""

    points: Points
    targets: Points
    precision: NDArray[np.float64]


def _matched(fixed: View, moving: View, matrix: Matrix, points: Points) -> _Matches:
    found = [_match(fixed, moving, matrix, point) for point in points]
    kept = [(point, *match) for point, match in zip(points, found, strict=True) if match is not None]
    return _Matches(
        np.array([row[0] for row in kept]).reshape(-1, 2),
        np.array([row[1] for row in kept]).reshape(-1, 2),
        np.array([row[2] for row in kept]),
    )


@cache
def _window(side: int) -> NDArray[np.float32]:
    """The weight of a patch's pixels, ``[side,side]``."""
    slope = np.hanning(side + 2)[1:-1]
    return np.outer(slope, slope).astype(np.float32)


def _match(fixed: View, moving: View, matrix: Matrix, point: Points) -> tuple[Points, float] | None:
    """Where the patch around a place lies in the moving picture, and how precisely, in 1/px^2."""
    height, width = fixed.gray.shape
    side = min(PATCH_PX, max(min(height, width) // 4, LEAST_PATCH_PX), height, width)
    left, top = (int(v) for v in np.clip(np.rint(point) - side // 2, 0, (width - side, height - side)))
    here = (slice(top, top + side), slice(left, left + side))
    template = cv2.GaussianBlur(fixed.gray[here].astype(np.float32), (0, 0), SMOOTHING_PX)
    valid = cv2.erode(fixed.usable[here], np.ones((3, 3), np.uint8))
    window = _window(side)
    corner = projected(matrix, np.array([[left, top], [left + side, top + side]], dtype=np.float64))
    low = np.floor(corner.min(0)).astype(int) - 12
    high = np.ceil(corner.max(0)).astype(int) + 12
    if (high < 8).any() or (low > (width - 8, height - 8)).any():
        return None
    x0, y0 = np.maximum(low, 0)
    x1, y1 = np.minimum(high, (width, height))
    if x1 - x0 < 8 or y1 - y0 < 8:
        return None
    area = (slice(y0, y1), slice(x0, x1))
    source = cv2.GaussianBlur(moving.gray[area].astype(np.float32), (0, 0), SMOOTHING_PX)
    usable = cv2.erode(moving.usable[area], np.ones((3, 3), np.uint8))
    inside = bool((low >= 0).all() and (high <= (width, height)).all())
    whole = inside and bool((usable == 255).all() and (valid == 255).all())
    to_area = np.array([[1, 0, -x0], [0, 1, -y0], [0, 0, 1]], dtype=np.float64) @ matrix
    shift = np.zeros(2)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for _ in range(ITERATIONS):
        place = to_area @ np.array([[1, 0, left + shift[0]], [0, 1, top + shift[1]], [0, 0, 1]])
        warped = cv2.warpPerspective(source, place, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        weight = window
        if not whole:
            good = cv2.warpPerspective(usable, place, (side, side), flags=flags, borderValue=0)
            weight = window * ((good == 255) & (valid == 255))
        total = float(weight.sum())
        if total < LEAST_USABLE * float(window.sum()):
            return None
        a, b = (plane - float((weight * plane).sum()) / total for plane in (template, warped))
        wb = weight * b
        aa, bb, ab = float((weight * a * a).sum()), float((wb * b).sum()), float((wb * a).sum())
        if ab <= LEAST_CORRELATION**2 * np.sqrt(aa * bb) or bb <= 1e-6:
            return None
        gain = float(np.sqrt(aa / bb))
        mixed = 0.5 * (template + gain * warped)
        gx, gy = (cv2.Sobel(mixed, cv2.CV_32F, *order, ksize=3, scale=0.125) for order in ((1, 0), (0, 1)))
        error = a - gain * b
        wx, wy = weight * gx, weight * gy
        normal = np.array([[(wx * gx).sum(), (wx * gy).sum()], [(wx * gy).sum(), (wy * gy).sum()]], dtype=np.float64)
        if np.linalg.det(normal) <= 1e-6 * np.trace(normal) ** 2 or np.trace(normal) <= 0:
            return None
        step = np.linalg.solve(normal, np.array([(wx * error).sum(), (wy * error).sum()], dtype=np.float64))
        shift += np.clip(step, -2, 2)
        if np.abs(shift).max() > 10:
            return None
        if np.abs(step).max() < 0.005:
            break
    if ab < LEAST_CORRELATION * np.sqrt(aa * bb):
        return None
    noise = float((weight * error * error).sum()) / total + 0.05
    middle = np.array([[left + (side - 1) / 2, top + (side - 1) / 2]])
    target = projected(matrix, middle + shift)[0] + (projected(matrix, point[None])[0] - projected(matrix, middle)[0])
    return target, float(np.linalg.eigvalsh(normal)[0] / noise)


def _fitted(found: _Matches, height: int, width: int, model: Model) -> Pose:
    """The first model, from the given one down, that the matches accept."""
    widest = max(INLIER_PX, PARALLAX * float(np.hypot(height, width)))
    limits = [limit for limit in (INLIER_PX, 2 * INLIER_PX, 4 * INLIER_PX) if limit <= widest]
    for name, limit in product(MODELS[MODELS.index(model) :], limits):
        if len(found.points) < LEAST_INLIERS[name]:
            continue
        matrix = _start(found, name, limit)
        if matrix is None:
            continue
        matrix, distance, close = _robust(found, matrix, name, limit)
        kept = int(close.sum())
        enough = kept >= LEAST_INLIERS[name] and kept >= LEAST_SHARE * len(found.points)
        spread = found.points[close].std(0) / (width, height) if kept else np.zeros(2)
        if enough and spread.min() >= LEAST_SPREAD[name] and _is_sane(matrix, height, width):
            return Pose(matrix, name, float(np.median(distance[close])), kept, len(found.points))
    return Pose(np.eye(3), patches=len(found.points))


def _start(found: _Matches, model: Model, limit: float) -> Matrix | None:
    cv2.setRNGSeed(0)
    if model == "homography":
        matrix, _ = cv2.findHomography(found.points, found.targets, cv2.USAC_MAGSAC, limit, maxIters=2000)
        return None if matrix is None else np.asarray(matrix, dtype=np.float64)
    if model == "affine":
        rows, _ = cv2.estimateAffine2D(found.points, found.targets, method=cv2.RANSAC, ransacReprojThreshold=limit)
        return None if rows is None else np.vstack((rows, (0, 0, 1)))
    moved = np.median(found.targets - found.points, axis=0)
    return np.array([[1, 0, moved[0]], [0, 1, moved[1]], [0, 0, 1]])


def _robust(
    found: _Matches, matrix: Matrix, model: Model, widest: float
) -> tuple[Matrix, NDArray[np.float64], NDArray[np.bool_]]:
    """Reweighted Gauss-Newton: the matrix, the distance of every match in px, and which agree with it."""
    points, targets = found.points, found.targets
    middle, size = points.mean(0), max(float(points.std()), 1.0)
    center = np.array([[1 / size, 0, -middle[0] / size], [0, 1 / size, -middle[1] / size], [0, 0, 1]])
    back = np.linalg.inv(center)
    source, wanted = projected(center, points), projected(center, targets)
    current = center @ matrix @ back
    current /= current[2, 2]
    precise = np.minimum(found.precision, np.quantile(found.precision, 0.75))
    distance, limit = np.zeros(len(points)), widest
    for _ in range(12):
        error = wanted - projected(current, source)
        distance = np.hypot(*error.T) * size
        near = distance <= widest
        limit = min(widest, max(6 * float(np.median(distance[near])), 0.1)) if near.any() else widest
        weight = precise * np.clip(1 - (distance / limit) ** 2, 0, None) ** 2
        if np.count_nonzero(weight) < LEAST_INLIERS[model]:
            break
        jacobian = _jacobian(current, source, model)
        normal = np.einsum("n,nki,nkj->ij", weight, jacobian, jacobian)
        side = np.einsum("n,nki,nk->i", weight, jacobian, error)
        step = np.linalg.lstsq(normal, side, rcond=1e-12)[0]
        current = _moved(current, step, model)
        if np.abs(step).max() < 1e-9:
            break
    result = back @ current @ center
    return result / result[2, 2], distance, distance <= limit


def _jacobian(matrix: Matrix, points: Points, model: Model) -> NDArray[np.float64]:
    """``[N,2,P]``: how mapped points follow the parameters."""
    x, y = points.T
    zero, one = np.zeros_like(x), np.ones_like(x)
    if model == "translation":
        return np.stack((np.stack((one, zero), -1), np.stack((zero, one), -1)), 1)
    u, v, w = matrix @ np.stack((x, y, one))
    first = [x / w, y / w, one / w, zero, zero, zero]
    second = [zero, zero, zero, x / w, y / w, one / w]
    if model == "homography":
        first += [-u * x / w**2, -u * y / w**2]
        second += [-v * x / w**2, -v * y / w**2]
    return np.stack((np.stack(first, -1), np.stack(second, -1)), 1)


def _moved(matrix: Matrix, step: NDArray[np.float64], model: Model) -> Matrix:
    """The matrix after a step of its parameters."""
    change = np.zeros((3, 3))
    if model == "translation":
        change[:2, 2] = step
    else:
        change.flat[: len(step)] = step
    return np.asarray(matrix + change, dtype=np.float64)


def _is_sane(matrix: Matrix, height: int, width: int) -> bool:
    """Whether a picture stays nearly as it is but for shift and turn: no fold, no strong shear or scaling."""
    if not np.isfinite(matrix).all():
        return False
    ends = corners(height, width)
    if ((matrix[2] @ np.concatenate((ends, np.ones((4, 1))), 1).T) / matrix[2, 2] <= 0.2).any():
        return False
    moved = projected(matrix, ends)
    sides: Sequence[tuple[int, int]] = ((0, 1), (2, 3), (0, 2), (1, 3), (0, 3), (1, 2))
    ratios = [np.hypot(*(moved[a] - moved[b])) / max(float(np.hypot(*(ends[a] - ends[b]))), 1e-9) for a, b in sides]
    return bool(max(ratios) < 1 + LARGEST_SHEAR and min(ratios) > 1 - LARGEST_SHEAR)


def composed(first: Pose, then: Pose) -> Pose:
    """The pose that maps by ``first`` and then by ``then``; its model is the freer one of the two."""
    models = [pose.model for pose in (first, then) if pose.model != "none"]
    model = min(models, key=MODELS.index) if models else "none"
    matrix = then.matrix @ first.matrix
    residual = float(np.hypot(first.residual_px, then.residual_px))
    return replace(then, matrix=matrix / matrix[2, 2], model=model, residual_px=residual)
