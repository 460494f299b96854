"""How one picture lies on another, found coarse to fine: a first pose, then patches matched under it.

Only the neighbourhoods of patches are looked at in full size.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from restorekit.facts import Matrix
from restorekit.stages.patches import Gray, View, good_places, matched
from restorekit.stages.pose import INLIER_PX, Model, Points, Pose, apart, fitted, is_sane, scaled

COARSE_PX = 1024
"""Long side of the views on which the first pose is sought."""

SURE = 0.7
"""Share of agreeing patches from which on no better first pose is sought."""

ROUNDS, SETTLED_PX = 4, 0.25
"""Patches only shift, so that a turn is found bit by bit: in so many rounds, or until one moves no corner farther."""


def find_pose(fixed: View, moving: View, *, model: Model = "homography") -> Pose:
    """The pose of ``moving`` on ``fixed``, two views of one size, with a model of at most the freedom of ``model``.

    First poses come from phase correlation, and where patches do not confirm these, from SIFT features:
    the one under which the coarse views correlate best. The better supported one is refined on patches, at a quarter
    and at full size, there until it settles. A model is accepted when at least 16 patches (affine 10, translation 4)
    and 40 % of those that could be matched lie within 1 px of it (scenes with depth: 2 or 4 px), when these spread over
    the picture (standard deviation of 15 % of its sides, affine 10 %), and when it neither folds nor shears by more
    than 30 %. Else the next simpler one is tried, at last ``none``, the identity; so is it where a translation that
    nobody asked for leaves more than 1 px.

    Source: patches by Gauss-Newton (Baker & Matthews, Lucas-Kanade 20 Years On, IJCV 2004, with gain and offset); Lowe
    2004 (SIFT); Barath et al., MAGSAC++, CVPR 2020; iteratively reweighted least squares with Tukey's weights.
    """
    factor = 1
    while max(fixed.gray.shape) / factor > COARSE_PX:
        factor *= 2
    coarse_fixed, coarse_moving = fixed.reduced(factor), moving.reduced(factor)
    pose, points = Pose(np.eye(3)), np.empty((0, 2))
    for guess in _guesses(coarse_fixed, coarse_moving, model):
        places = good_places(coarse_fixed, coarse_moving, guess)
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
        if scale == 1 and apart(pose.matrix, matrix, *fixed.gray.shape) <= SETTLED_PX:
            break
    if pose.model == "translation" and model != "translation" and pose.residual_px > INLIER_PX:
        return Pose(np.eye(3), patches=pose.patches)
    return pose


def _refined(fixed: View, moving: View, matrix: Matrix, points: Points, model: Model) -> Pose:
    """A pose after patches around points were matched under it."""
    height, width = fixed.gray.shape
    return fitted(matched(fixed, moving, matrix, points), height, width, model)


def _guesses(fixed: View, moving: View, model: Model) -> Iterator[Matrix]:
    """First poses at small size: the best of the cheap ones, then the best of all."""
    flat, other = _equalised(fixed), _equalised(moving)
    shift = _phase_shift(flat, other)
    cheap = [np.eye(3), np.array([[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1]], dtype=np.float64)]
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
    return [matrix for matrix in found if is_sane(matrix, *fixed.shape)]


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
