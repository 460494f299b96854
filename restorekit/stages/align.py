"""The frames of a bracket brought onto each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Literal

import cv2
import numpy as np
import torch
from torch.nn import functional as F

from restorekit.frame import Bracket, Frame
from restorekit.planes import strip_rows, to_float
from restorekit.stage import BracketStage, StageSpec, param, parameters
from restorekit.stages.bracket_blocks import CLIPPED
from restorekit.stages.patches import HIGHEST_CODE, LOWEST_CODE, Gray, View, view_of_codes
from restorekit.stages.pose import Model, Pose, composed, scaled
from restorekit.stages.registration import find_pose
from restorekit.stages.reprojection import Window, common_window, reprojected

ALIGNED = {
    "frames": ("bracket", "burst"),
    "layout": ("bayer", "rgb", "gray"),
    "reference": ("scene", "display"),
}
CLIP_MARGIN = 0.98
"""Share of the clip level from which on a linear value counts as clipped."""

CODES_AT = 99.5
"""Percentile of a linear frame that gets the highest code of its view."""

LEAST_BITMAP_PX, LEAST_BITMAP_SHARE, LEAST_BITMAP_AGREEMENT = 16, 0.02, 0.6
"""Short side of pictures whose bitmaps are compared; share of the picture, and of what is not too close to the median,
that has to agree: half does by chance."""

Border = Literal["crop", "fill"]


@parameters
class Homography(BracketStage):
    """Bring handheld frames onto the middle one by rotation, shift and perspective, to a fraction of a pixel.

    Every frame is matched directly with the reference, up to gain and offset, so that exposures need not be known;
    where too little of both is well exposed, through its neighbour. A homography is fitted to the matches, an affine
    map or a translation where they do not carry it, and a frame that cannot be matched at all stays as it is, with a
    note; the tests are those of :func:`restorekit.stages.registration.find_pose`. Frames that lie within 0.1 px are
    not resampled. Mosaics are matched on the means of their 2x2 cells and resampled colour by colour.

    ``border: crop`` keeps what all frames show, ``fill`` all of the reference; where a frame has no data the mask
    ``outside`` says so. Masks go along, ``facts.alignment`` is the way back to each frame as it was shot.
    ``facts.measured`` of the reference tells the matrices and the residuals.
    """

    spec = StageSpec(
        name="align.homography",
        source="Baker & Matthews, Lucas-Kanade 20 Years On, IJCV 2004 (patches); Lowe, IJCV 2004 (SIFT); Barath et "
        "al., MAGSAC++, CVPR 2020; Hartley & Zisserman, Multiple View Geometry (2004), 4.3",
        accepts=ALIGNED,
        adds=("alignment",),
    )
    model: Annotated[
        Literal["homography", "affine", "translation"], param("The freest model; simpler ones are fallen back to")
    ] = "homography"
    border: Annotated[Border, param("Keep what all frames show, or all of the reference frame")] = "crop"

    def combine(self, bracket: Bracket) -> Bracket:
        poses = bracket_poses(bracket, lambda fixed, moving: either_way(fixed, moving, self.model))
        return aligned(bracket, poses, self.border, self.spec.name)


@parameters
class Mtb(BracketStage):
    """Bring frames onto the middle one by whole pixels, on bitmaps of what is brighter than the median.

    Cheap and very robust to exposure; it knows no rotation, so that frames from the hand keep an error of some pixels
    towards their corners. Mosaics move by even numbers. ``border`` as in ``align.homography``.
    """

    spec = StageSpec(
        name="align.mtb",
        source="Ward, Fast, Robust Image Registration for Compositing High Dynamic Range Photographs, JGT 8(2), 2003",
        accepts=ALIGNED,
        adds=("alignment",),
    )
    largest_shift: Annotated[int, param("Largest shift found", unit="px", ge=2, le=512)] = 128
    border: Annotated[Border, param("Keep what all frames show, or all of the reference frame")] = "crop"

    def combine(self, bracket: Bracket) -> Bracket:
        step = 2 if bracket.state.is_mosaic else 1
        bits = max(1, int(np.ceil(np.log2(self.largest_shift / step))))
        poses = bracket_poses(bracket, lambda fixed, moving: _by_bitmaps(fixed.gray, moving.gray, bits))
        return aligned(bracket, poses, self.border, self.spec.name)


def _by_bitmaps(fixed: Gray, moving: Gray, bits: int) -> Pose:
    """The shift of whole pixels, of at most about ``bits`` bits; none where the bitmaps tell nothing."""
    if min(fixed.shape) < LEAST_BITMAP_PX:
        return Pose(np.eye(3))
    levels = min(bits, max(1, int(np.log2(min(fixed.shape) / LEAST_BITMAP_PX))))
    method = cv2.createAlignMTB(levels, 4, False)
    dx, dy = method.calculateShift(fixed, moving)
    bitmap, certain = method.computeBitmaps(fixed)
    other, also = (method.shiftMat(plane, (dx, dy)) for plane in method.computeBitmaps(moving))
    told = cv2.bitwise_and(certain, also)
    agreeing = cv2.countNonZero(told) - cv2.countNonZero(cv2.bitwise_and(cv2.bitwise_xor(bitmap, other), told))
    if agreeing <= max(LEAST_BITMAP_SHARE * told.size, LEAST_BITMAP_AGREEMENT * cv2.countNonZero(told)):
        return Pose(np.eye(3))
    return Pose(np.array([[1, 0, -dx], [0, 1, -dy], [0, 0, 1]], dtype=np.float64), "translation")


def either_way(fixed: View, moving: View, model: Model) -> Pose:
    """The pose of a view on another, or the inverse of the opposite one: matching starts from other places then."""
    pose = find_pose(fixed, moving, model=model)
    if pose.model != "none":
        return pose
    opposite = find_pose(moving, fixed, model=model)
    inverse = np.asarray(np.linalg.inv(opposite.matrix), dtype=np.float64)
    return replace(opposite, matrix=inverse / inverse[2, 2])


def bracket_poses(bracket: Bracket, find: Callable[[View, View], Pose]) -> list[Pose]:
    """The pose of every frame on the reference: found directly or, where that fails, through the nearest one."""
    frames, middle = bracket.frames, len(bracket) // 2
    poses = {middle: Pose(np.eye(3), "translation")}
    reference = view(frames[middle])
    for order in (range(middle - 1, -1, -1), range(middle + 1, len(frames))):
        neighbour, nearer = middle, reference
        for index in order:
            here = view(frames[index])
            pose = find(reference, here)
            if pose.model == "none" and neighbour != middle:
                step = find(nearer, here)
                pose = step if step.model == "none" else composed(poses[neighbour], step)
            poses[index] = pose
            if pose.model != "none":
                neighbour, nearer = index, here
    cell = 2.0 if bracket.state.is_mosaic else 1.0
    return [replace(poses[index], matrix=scaled(poses[index].matrix, cell)) for index in range(len(frames))]


def aligned(bracket: Bracket, poses: Sequence[Pose], border: Border, name: str) -> Bracket:
    """The bracket with every frame resampled to its pose; what could not be matched stays as it is, with a note."""
    reference = bracket.reference
    height, width = reference.height, reference.width
    matrices = [np.eye(3) if pose.is_still(height, width) else pose.matrix for pose in poses]
    window: Window | None = Window(0, 0, height, width)
    notes: list[str] = []
    if border == "crop" and any(reference.camera.opcode_lists):
        notes.append(f"{name} keeps the whole picture, since corrections that the file asks for are still to be done")
    elif border == "crop":
        window = common_window(height, width, matrices, 2 if bracket.state.is_mosaic else 1)
        if window is None:
            notes.append(f"{name}: the frames have too little in common to crop to it; the whole reference is kept")
            window = Window(0, 0, height, width)
    assert window is not None
    frames = tuple(reprojected(frame, matrix, window) for frame, matrix in zip(bracket, matrices, strict=True))
    return measured_poses(Bracket(frames), poses, name, notes)


def measured_poses(bracket: Bracket, poses: Sequence[Pose], name: str, notes: Sequence[str] = ()) -> Bracket:
    """The bracket whose reference tells how the frames were aligned, and which could not be."""
    failed = [
        f"{frame.name}: could not be aligned ({pose.inliers} of {pose.patches} places agree), is used as it is"
        for frame, pose in zip(bracket, poses, strict=True)
        if pose.model == "none"
    ]
    measured: dict[str, float | tuple[float, ...]] = {
        f"{name} {index}": tuple(frame.facts.alignment.flatten().tolist())
        for index, frame in enumerate(bracket)
        if frame.facts.alignment is not None
    }
    measured[f"{name} residual_px"] = tuple(round(pose.residual_px, 3) for pose in poses)
    own = bracket.reference
    for note in (*notes, *failed):
        own = own.with_note(note)
    own = replace(own, facts=replace(own.facts, measured={**own.facts.measured, **measured}))
    return bracket.with_reference(own)


def view(frame: Frame) -> View:
    """What matching sees of a frame: 8-bit codes, of a mosaic those of its 2x2 cells."""
    pixels = frame.pixels
    if pixels.dtype == torch.uint8 and not frame.state.is_mosaic and frame.state.transfer != "linear":
        codes = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
        return view_of_codes(codes if codes.shape[2] > 1 else codes[:, :, 0])
    return _view_of_values(frame)


def _view_of_values(frame: Frame) -> View:
    """The view of other than 8-bit encoded frames: square roots of light, stretched; strip by strip."""
    mosaic, linear = frame.state.is_mosaic, frame.state.transfer == "linear"
    step = 2 if mosaic else 1
    height, width = frame.height // step, frame.width // step
    codes, usable = np.empty((height, width), np.uint8), np.empty((height, width), np.uint8)
    ceiling = CLIP_MARGIN * (min(frame.facts.clip_level) if frame.facts.clip_level else 1.0)
    scale = HIGHEST_CODE / _brightest(frame)
    marked = frame.masks.get(CLIPPED)
    rows = strip_rows(frame.width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        part = slice(top * step, bottom * step), slice(0, width * step)
        strip = to_float(frame.pixels[:, *part])
        burnt = strip >= ceiling if marked is None else marked[:, *part]
        if mosaic:
            strip = F.avg_pool2d(strip[None], 2)[0]
            burnt = F.max_pool2d(burnt[None].float(), 2)[0] > 0
        mean = strip.sum(0).mul_(scale / strip.shape[0])
        if linear:
            mean = mean.mul_(HIGHEST_CODE).clamp_min_(0.0).sqrt_()
        codes[top:bottom] = mean.nan_to_num_(0.0, 255.0, 0.0).clamp_(0.0, 255.0).byte().numpy()
        usable[top:bottom] = np.where(burnt.all(0).numpy(), np.uint8(0), np.uint8(255))
    usable[codes < LOWEST_CODE] = 0
    return View(codes, usable)


def _brightest(frame: Frame) -> float:
    """The value that gets the highest code: nearly the largest of a sparse sample."""
    step = max(1, min(frame.height, frame.width) // 512)
    step += 1 - step % 2  # odd, so that all colours of a mosaic are met
    sample = to_float(frame.pixels[:, ::step, ::step]).mean(0).nan_to_num_(0.0, 1.0, 0.0)
    return max(float(np.percentile(sample.numpy(), CODES_AT)), 1e-6)
