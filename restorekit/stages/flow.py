"""Frames of a bracket brought onto each other pixel by pixel, where depth lets no homography fit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restorekit.facts import Matrix
from restorekit.frame import Bracket, Frame
from restorekit.stage import BracketStage, StageSpec, param, parameters
from restorekit.stages.align import ALIGNED, bracket_poses, either_way, measured_poses, view
from restorekit.stages.bracket_blocks import CLIPPED, MOTION, OUTSIDE
from restorekit.stages.patches import View
from restorekit.stages.reprojection import MASK_MARGIN_PX, way_back

FLOW_PX, LEAST_FLOW_PX = 2048, 16
"""Long side of the pictures whose flow is computed; it is enlarged for larger ones. Smaller short sides have none."""

CONSISTENT, CONSISTENT_PX = 0.01, 1.0
"""Forward and backward flow may differ by this share of their length, and this length, of the pictures of the flow."""

SMOOTH_PX = 12.0
STRIP_ROWS = 512

Plane = NDArray[np.float32]


@parameters
class Flow(BracketStage):
    """Bring frames from the hand onto the middle one by a homography and, on top of it, dense optical flow.

    For scenes with depth, which move against each other with the camera, and things that moved a little. The flow (DIS)
    is computed both ways between frames that were brought to the same brightness by their histograms. Where both
    ways contradict each other by more than 1 % of their length and one pixel, something is hidden in one of the
    frames: the mask ``motion`` leaves it out. Where a frame is clipped or black no flow is seen; that of the
    surroundings is carried on. All of the reference is kept; where a frame has no data the mask ``outside`` says so.
    ``facts.alignment`` holds the homography alone.
    """

    spec = StageSpec(
        name="align.flow",
        source="Kroeger et al., Fast Optical Flow using Dense Inverse Search, ECCV 2016; forward-backward check: "
        "Sundaram, Brox & Keutzer, Dense Point Trajectories by GPU-accelerated Large Displacement Optical Flow, 2010",
        accepts={**ALIGNED, "layout": ("rgb", "gray")},
        adds=("alignment",),
    )
    occlusions: Annotated[bool, param("Leave out what is hidden in a frame, by the mask motion")] = True

    def combine(self, bracket: Bracket) -> Bracket:
        poses = bracket_poses(bracket, lambda fixed, moving: either_way(fixed, moving, "homography"))
        reference = view(bracket.reference)
        frames = []
        for index, (frame, pose) in enumerate(zip(bracket, poses, strict=True)):
            if index == len(bracket) // 2 or pose.model == "none":
                facts = replace(frame.facts, alignment=way_back(frame, np.eye(3)))
                frames.append(replace(frame, facts=facts))
                continue
            field, hidden = _flow(reference, view(frame), pose.matrix)
            frames.append(_moved(frame, pose.matrix, field, hidden if self.occlusions else None))
        return measured_poses(Bracket(tuple(frames)), poses, self.spec.name)


def _flow(fixed: View, moving: View, pose: Matrix) -> tuple[Plane, NDArray[np.bool_]]:
    """How far, beyond a pose, pixels of the reference lie away in a frame, ``[h,w,2]`` px of full size at reduced size,
    and where the frame does not show them."""
    height, width = fixed.gray.shape
    if min(height, width) < LEAST_FLOW_PX:
        return np.zeros((height, width, 2), np.float32), np.zeros((height, width), np.bool_)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    gray = cv2.warpPerspective(moving.gray, pose, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    usable = cv2.warpPerspective(moving.usable, pose, (width, height), flags=flags, borderValue=0)
    warped = View(np.asarray(gray, np.uint8), np.asarray(usable, np.uint8))
    factor = _factor(height, width)
    small, other = fixed.reduced(factor), warped.reduced(factor)
    seen = (small.usable >= 255) & (other.usable >= 255)
    a, b = _alike(small.gray, other.gray, seen)
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    forward, backward = (search.calc(*pair, np.zeros((*a.shape, 2), np.float32)) for pair in ((a, b), (b, a)))
    there = np.stack(np.meshgrid(np.arange(a.shape[1]), np.arange(a.shape[0])), -1).astype(np.float32) + forward
    back = cv2.remap(backward, there[..., 0], there[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    length = np.hypot(*np.moveaxis(forward, -1, 0)) + np.hypot(*np.moveaxis(back, -1, 0))
    apart = np.hypot(*np.moveaxis(forward + back, -1, 0))
    hidden = (apart > CONSISTENT * length + CONSISTENT_PX) & seen
    sure = (seen & ~hidden).astype(np.float32)
    blurred = cv2.GaussianBlur(forward * sure[..., None], (0, 0), SMOOTH_PX)
    weight = cv2.GaussianBlur(sure, (0, 0), SMOOTH_PX)
    carried = blurred / np.maximum(weight, 1e-3)[..., None]
    near = cv2.GaussianBlur(sure, (0, 0), 2.0)[..., None]
    field = near * forward + (1 - near) * carried
    return (field * factor).astype(np.float32), hidden


def _factor(height: int, width: int) -> int:
    """How many times smaller the pictures of the flow are."""
    return max(1, -(-max(height, width) // FLOW_PX))


def _alike(fixed: NDArray[np.uint8], moving: NDArray[np.uint8], usable: NDArray[np.bool_]) -> tuple[Any, Any]:
    """Both pictures in the brightness of the fixed one, by ranks of their usable values; contrast evened out."""
    if usable.sum() < 64:
        return cv2.equalizeHist(fixed), cv2.equalizeHist(moving)
    counts = [np.bincount(plane[usable], minlength=256).cumsum() / usable.sum() for plane in (fixed, moving)]
    table = np.interp(counts[1], counts[0], np.arange(256)).round().astype(np.uint8)
    even = cv2.createCLAHE(2.0, (8, 8))
    return even.apply(fixed), even.apply(np.maximum.accumulate(table)[moving])


@dataclass(frozen=True, eq=False)
class _Map:
    """Where every pixel of rows of the reference lies in a frame."""

    x: Plane
    y: Plane

    def sampled(self, plane: NDArray[Any], flags: int, border: int | None = None) -> NDArray[Any]:
        mode = cv2.BORDER_REPLICATE if border is None else cv2.BORDER_CONSTANT
        return cv2.remap(plane, self.x, self.y, flags, borderMode=mode, borderValue=border or 0)


def _moved(frame: Frame, pose: Matrix, field: Plane, hidden: NDArray[np.bool_] | None) -> Frame:
    """A frame resampled once by a pose and a flow on top of it, strip by strip."""
    height, width = frame.height, frame.width
    pixels = torch.empty((height, width, frame.pixels.shape[0]), dtype=frame.pixels.dtype)
    source = _interleaved(frame.pixels)
    alpha = None if frame.alpha is None else torch.empty_like(frame.alpha)
    opacity = None if frame.alpha is None else _interleaved(frame.alpha)
    masks = {name: torch.empty_like(mask) for name, mask in frame.masks.items()}
    outside = torch.empty((1, height, width), dtype=torch.bool)
    grown = {name: _grown(mask) if name == CLIPPED else mask for name, mask in frame.masks.items()}
    full = np.full((height, width), 255, np.uint8)
    for top in range(0, height, STRIP_ROWS):
        rows = slice(top, min(top + STRIP_ROWS, height))
        where = _map(pose, field, rows, (height, width))
        pixels[rows] = torch.from_numpy(where.sampled(source, cv2.INTER_CUBIC)).reshape(rows.stop - top, width, -1)
        outside[0, rows] = torch.from_numpy(where.sampled(full, cv2.INTER_LINEAR, 0) < 255)
        if alpha is not None and opacity is not None:
            alpha[0, rows] = torch.from_numpy(where.sampled(opacity, cv2.INTER_LINEAR))
        for name, mask in grown.items():
            for plane, into in zip(mask, masks[name], strict=True):
                marks = where.sampled(plane.numpy().view(np.uint8) * np.uint8(255), cv2.INTER_LINEAR)
                into[rows] = torch.from_numpy(marks > 0)
    if bool(outside.any()):
        masks[OUTSIDE] = outside | masks[OUTSIDE] if OUTSIDE in masks else outside
    if hidden is not None and hidden.any():
        whole = cv2.resize(hidden.astype(np.uint8) * np.uint8(255), (width, height), interpolation=cv2.INTER_LINEAR)
        moving = torch.from_numpy(whole >= 128)[None]
        masks[MOTION] = moving | masks[MOTION] if MOTION in masks else moving
    facts = replace(frame.facts, alignment=way_back(frame, pose))
    return replace(frame, pixels=pixels.permute(2, 0, 1), alpha=alpha, masks=masks, facts=facts)


def _interleaved(plane: Tensor) -> NDArray[Any]:
    """``[C,H,W]`` as ``[H,W,C]``, of a type that OpenCV resamples."""
    stored = plane.float() if plane.dtype == torch.float16 else plane
    return np.ascontiguousarray(stored.permute(1, 2, 0).numpy())


def _map(pose: Matrix, field: Plane, rows: slice, size: tuple[int, int]) -> _Map:
    """The pose applied to pixels that the flow has moved."""
    height, width = size
    share = 1 / _factor(height, width)
    scale = np.array([[share, 0, 0], [0, share, 0], [0, 0, 1]], dtype=np.float64)
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]], dtype=np.float64)
    start = np.array([[1, 0, 0], [0, 1, rows.start], [0, 0, 1]], dtype=np.float64)
    place = np.linalg.inv(half) @ scale @ half @ start
    count = rows.stop - rows.start
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    flow = cv2.warpAffine(field, place[:2], (width, count), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    x = flow[..., 0] + np.arange(width, dtype=np.float32)
    y = flow[..., 1] + np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]
    m = pose.astype(np.float64)
    w = m[2, 0] * x + m[2, 1] * y + m[2, 2]
    return _Map(
        ((m[0, 0] * x + m[0, 1] * y + m[0, 2]) / w).astype(np.float32),
        ((m[1, 0] * x + m[1, 1] * y + m[1, 2]) / w).astype(np.float32),
    )


def _grown(mask: Tensor) -> Tensor:
    kernel = np.ones((2 * MASK_MARGIN_PX + 1,) * 2, np.uint8)
    return torch.from_numpy(np.stack([cv2.dilate(plane.numpy().view(np.uint8), kernel) for plane in mask]) > 0)
