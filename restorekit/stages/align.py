"""The frames of a bracket brought onto each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, Literal

import cv2
import numpy as np
import torch

from restorekit.frame import Bracket, Frame
from restorekit.planes import strip_rows, to_float
from restorekit.stage import BracketStage, StageSpec, param, parameters
from restorekit.stages.registration import Model, Pose, View, composed, find_pose, scaled, view_of_codes
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

        def shift(fixed: View, moving: View) -> Pose:
            levels = min(bits, max(1, int(np.log2(max(min(fixed.gray.shape), 16) / 16))))
            dx, dy = cv2.createAlignMTB(levels, 4, False).calculateShift(fixed.gray, moving.gray)
            return Pose(np.array([[1, 0, -dx], [0, 1, -dy], [0, 0, 1]], dtype=np.float64), "translation")

        return aligned(bracket, bracket_poses(bracket, shift), self.border, self.spec.name)


def either_way(fixed: View, moving: View, model: Model) -> Pose:
    """The pose of a view on another, or the inverse of the opposite one: matching starts from other places then."""
    pose = find_pose(fixed, moving, model=model)
    if pose.model != "none":
        return pose
    opposite = find_pose(moving, fixed, model=model)
    return pose if opposite.model == "none" else replace(opposite, matrix=np.asarray(np.linalg.inv(opposite.matrix), dtype=np.float64))


def bracket_poses(bracket: Bracket, find: Callable[[View, View], Pose]) -> list[Pose]:
    """The pose of every frame on the reference: found directly or, where that fails, through the neighbour."""
    frames, middle = bracket.frames, len(bracket) // 2
    poses = {middle: Pose(np.eye(3), "translation")}
    reference = view(frames[middle])
    for order in (range(middle - 1, -1, -1), range(middle + 1, len(frames))):
        neighbour, nearer = middle, reference
        for index in order:
            here = view(frames[index])
            pose = find(reference, here)
            if pose.model == "none" and neighbour != middle and poses[neighbour].model != "none":
                step = find(nearer, here)
                pose = step if step.model == "none" else composed(poses[neighbour], step)
            poses[index], neighbour, nearer = pose, index, here
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
        return view_of_codes(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()).squeeze())
    return _view_of_values(frame)


def _view_of_values(frame: Frame) -> View:
    """The view of other than 8-bit encoded frames: square roots of light, stretched; strip by strip."""
    mosaic = frame.state.is_mosaic
    linear = frame.state.transfer == "linear"
    step = 2 if mosaic else 1
    height, width = frame.height // step, frame.width // step
    values, usable = np.empty((height, width), np.float16), np.empty((height, width), np.uint8)
    ceiling = CLIP_MARGIN * (min(frame.facts.clip_level) if frame.facts.clip_level else 1.0)
    rows = strip_rows(frame.width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        strip = to_float(
            frame.pixels[:, top * step : bottom * step, : width * step],
            digital_numbers=frame.state.reference == "sensor",
        )
        marked = frame.masks.get("clipped")
        burnt = strip >= ceiling if marked is None else marked[:, top * step : bottom * step, : width * step]
        if mosaic:
            strip = torch.nn.functional.avg_pool2d(strip[None], 2)[0]
            burnt = burnt[:, 0::2, 0::2] | burnt[:, 1::2, 0::2] | burnt[:, 0::2, 1::2] | burnt[:, 1::2, 1::2]
        mean = strip.nan_to_num(0.0, 0.0, 0.0).mean(0)
        values[top:bottom] = (mean.clamp_(0, 1e4).sqrt_() if linear else mean).numpy()
        usable[top:bottom] = np.where(burnt.all(0).numpy(), np.uint8(0), np.uint8(255))
    step_px = max(1, min(height, width) // 512)
    top_value = float(np.percentile(values[::step_px, ::step_px].astype(np.float32), CODES_AT))
    codes = np.clip(values.astype(np.float32) * (245 / max(top_value, 1e-6)), 0, 255).astype(np.uint8)
    usable[codes < 2] = 0
    return View(codes, usable)
