"""The pose of one picture on another: a homography, or a simpler map, fitted to places that were matched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from restorekit.facts import Matrix

Model = Literal["homography", "affine", "translation", "none"]
MODELS: tuple[Model, ...] = ("homography", "affine", "translation")
Points = NDArray[np.float64]

INLIER_PX, PARALLAX = 1.0, 0.002
"""A patch agrees with a model within this distance. Scenes with depth get twice and four times it, as long as that is
at most this share of the diagonal."""

LEAST_INLIERS = {"homography": 16, "affine": 10, "translation": 4}
LEAST_SHARE = 0.4
"""Share of agreeing patches that carries a model."""

LEAST_SPREAD = {"homography": 0.15, "affine": 0.1, "translation": 0.0}
"""Standard deviation of the places of agreeing patches, as a share of height and width."""

LARGEST_SHEAR = 0.3
STILL_PX = 0.1
"""A pose that moves no corner farther is taken for a tripod's: nothing is resampled."""


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
        return apart(self.matrix, np.eye(3), height, width) <= STILL_PX


@dataclass(frozen=True, eq=False)
class Matches:
    """Places ``[N,2]`` in the fixed picture, where they lie in the moving one, and the precision ``[N]`` of that."""

    points: Points
    targets: Points
    precision: NDArray[np.float64]


def projected(matrix: Matrix, points: Points) -> Points:
    """Points ``[N,2]`` (x, y) mapped by a homography."""
    mapped = np.concatenate((points, np.ones((len(points), 1))), 1) @ matrix.T
    return np.asarray(mapped[:, :2] / mapped[:, 2:], dtype=np.float64)


def corners(height: int, width: int) -> Points:
    return np.array([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]], dtype=np.float64)


def apart(one: Matrix, other: Matrix, height: int, width: int) -> float:
    """How far apart two poses bring a corner, in px along an axis."""
    ends = corners(height, width)
    return float(np.abs(projected(one, ends) - projected(other, ends)).max())


def scaled(matrix: Matrix, scale: float) -> Matrix:
    """A pose for pictures ``scale`` times as large; pixels are areas, with centres at integers."""
    shift = (scale - 1) / 2
    grow = np.array([[scale, 0, shift], [0, scale, shift], [0, 0, 1]])
    return np.asarray(grow @ matrix @ np.linalg.inv(grow), dtype=np.float64)


def composed(first: Pose, then: Pose) -> Pose:
    """The pose that maps by ``first`` and then by ``then``; its model is the freer one of the two."""
    models = [pose.model for pose in (first, then) if pose.model != "none"]
    model = min(models, key=MODELS.index) if models else "none"
    matrix = then.matrix @ first.matrix
    residual = float(np.hypot(first.residual_px, then.residual_px))
    return replace(then, matrix=matrix / matrix[2, 2], model=model, residual_px=residual)


def fitted(found: Matches, height: int, width: int, model: Model) -> Pose:
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
        if enough and spread.min() >= LEAST_SPREAD[name] and is_sane(matrix, height, width):
            return Pose(matrix, name, float(np.median(distance[close])), kept, len(found.points))
    return Pose(np.eye(3), patches=len(found.points))


def _start(found: Matches, model: Model, limit: float) -> Matrix | None:
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
    found: Matches, matrix: Matrix, model: Model, widest: float
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


def is_sane(matrix: Matrix, height: int, width: int) -> bool:
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
