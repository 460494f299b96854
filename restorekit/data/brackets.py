"""Brackets from the hand with things that move, made of one scene: every pose, shift and the light are known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import numpy as np
import pydantic
import torch
from torch import Tensor
from torch.nn import functional as F

from restorekit.data.degradation import chance, log_uniform, uniform, whole
from restorekit.data.ranges import ORDERED
from restorekit.data.sensor import Bits, Positives, Shares, level_reached, mosaicked, noisy, quantised, recorded
from restorekit.errors import InputError
from restorekit.facts import Camera, Exposure, Facts, Matrix
from restorekit.frame import Bracket, Frame
from restorekit.stage import param, parameters
from restorekit.stages.warp import Lookup, corrected
from restorekit.state import ImageState, Primaries

Least = Annotated[float, pydantic.Field(ge=0)]
Distances = Annotated[tuple[Least, Least], ORDERED]
Leaning = Annotated[float, pydantic.Field(ge=0, le=0.1)]
Leanings = Annotated[tuple[Leaning, Leaning], ORDERED]

REFERENCE_TIME_S = 1 / 100
RGGB = ("RG", "GB")
CAMERA = Camera(make="restorekit", model="Synthetic", cfa=RGGB, neutral=(1.0, 1.0, 1.0))

LEAST_SIDE, RESERVE_PX = 16, 4
"""Shortest side of a shot; what interpolation needs beside it, and perspective adds to shifts, in px."""

SOFT_EDGE_PX = 2.0
"""Width of the edge over which things become opaque."""

BRIGHTNESS_EV = (-1.5, 1.5)
"""How much brighter objects are than where they were cut out."""

RATIO = (0.7, 1.4)
"""Width of objects over their height."""


@parameters
class MovingBracket:
    """How a bracket is shot: exposures, movements of the camera and of things, the sensor.

    Ranges ``(least, most)`` are drawn from, those of the camera's pose for every shot but the middle one, which stays.
    ``None`` or 0 leaves an effect out.
    """

    evs: Annotated[tuple[float, ...], param("Exposures of the shots, against each other", unit="EV")] = (-2.0, 0.0, 2.0)
    shift: Annotated[Distances, param("How far a shot is shifted", unit="px")] = (2.0, 12.0)
    turn: Annotated[Distances, param("How far a shot is turned, to either side", unit="degrees")] = (0.0, 0.5)
    tilt: Annotated[Leanings, param("Perspective: how much longer the far edge is, as a share")] = (0.0, 0.001)
    objects: Annotated[int, param("How many things move", ge=0, le=16)] = 1
    size: Annotated[Shares, param("Height of things, as a share of the shorter side")] = (0.1, 0.25)
    motion: Annotated[Distances, param("How far things move from shot to shot", unit="px")] = (4.0, 24.0)
    clipped: Annotated[
        Shares | None, param("Share of the middle shot's pixels of which a channel clips; null: where the scene is 1")
    ] = (0.02, 0.15)
    electrons: Annotated[
        Positives | None, param("Electrons of a photosite that just clips, by their logarithm; null: no shot noise")
    ] = (2000.0, 20000.0)
    read_noise: Annotated[Positives | None, param("Its deviation, by its logarithm; null: none")] = (1e-4, 1e-3)
    bits: Annotated[Bits | None, param("Bits of the sensor's levels; null: not rounded, RAW: 16")] = 12
    layout: Annotated[Literal["rgb", "bayer"], param("Light in three colours, or RAW files")] = "rgb"

    def margin_px(self, height: int, width: int) -> int:
        """How much smaller than its scene, of this size, a bracket is at each side: so much no camera looks beyond."""
        reach = math.radians(self.turn[1]) + 2 * self.tilt[1]
        margin = math.ceil(self.shift[1] + reach * math.hypot(height, width) / 2)
        return margin + RESERVE_PX + margin % 2 if margin else 0


@dataclass(frozen=True, eq=False)
class MovingObject:
    """Something that is elsewhere in every shot: ``light`` ``[3,h,w]``, ``alpha`` ``[1,h,w]`` 0..1.

    ``corners`` are its top and left in every shot, in px of the middle one; they may lie outside of it.
    """

    light: Tensor
    alpha: Tensor
    corners: tuple[tuple[int, int], ...]

    def onto(self, planes: Tensor, shot: int, values: Tensor, margin: int = 0) -> None:
        """Lay values ``[C,h,w]`` over planes ``[C,H,W]`` where the object is in a shot, in place.

        The planes reach ``margin`` px over the picture.
        """
        (top, left), (height, width) = (corner + margin for corner in self.corners[shot]), self.alpha.shape[1:]
        rows = slice(max(top, 0), max(min(top + height, planes.shape[1]), 0))
        columns = slice(max(left, 0), max(min(left + width, planes.shape[2]), 0))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return
        part = slice(None), slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
        planes[:, rows, columns].lerp_(values[part], self.alpha[part].expand_as(values[part]))


@dataclass(frozen=True, eq=False)
class KnownBracket:
    """A bracket and what is true about it; shots are darkest first.

    ``background`` ``[3,H,W]`` is the scene without what moves, linear, 1.0 = where the middle shot clips. ``poses`` are
    ``[3,3]``, pixels (x, y, 1) of the middle shot to those of each shot, as ``facts.alignment`` has them.
    """

    bracket: Bracket
    background: Tensor
    poses: tuple[Matrix, ...]
    objects: tuple[MovingObject, ...]

    @property
    def radiance(self) -> Tensor:
        """``[3,H,W]``: the scene at the moment of the middle shot."""
        return self.scene(len(self.poses) // 2)

    def scene(self, shot: int) -> Tensor:
        """``[3,H,W]``: the scene at the moment of a shot, in the frame of the middle one."""
        return _with_objects(self.background, self.objects, shot)

    def covered(self, shot: int) -> Tensor:
        """``[1,H,W]`` bool: where something moving is in a shot, in the frame of the middle one."""
        mask = torch.zeros_like(self.background[:1])
        for item in self.objects:
            item.onto(mask, shot, torch.ones_like(item.alpha))
        return mask > 0


def moving_bracket(
    scene: Tensor, generator: torch.Generator, options: MovingBracket, primaries: Primaries = "bt709"
) -> KnownBracket:
    """A bracket of a scene ``[3,H,W]``, linear light at any scale, ``options.margin_px`` smaller at each side.

    The middle shot shows the scene as it is; the others see it through a homography (cubic B-splines). Things that move
    are ellipses cut out of the scene, brighter or darker, at whole pixels; they keep their pace and stay in the scene.
    Light clips at 1.0 after its noise. ``rgb`` frames are scene-linear in ``primaries`` and tell ``clipped``,
    ``clip_level`` and ``noise``. ``bayer`` frames are digital numbers as of a RAW file, RGGB, the scene taken for the
    sensor's own colours, white balanced. All tell ``exposure.ev_offset`` against the middle shot.

    Raises InputError for a scene that is too small or without light, and for fewer than two exposures.
    """
    _, height, width = scene.shape
    margin = options.margin_px(height, width)
    size = height - 2 * margin, width - 2 * margin
    if min(size) < LEAST_SIDE:
        raise InputError(
            f"a scene of {width}x{height} px is too small for shots that move {margin} px; take a larger one"
        )
    evs = sorted(options.evs)
    middle = len(evs) // 2
    objects = tuple(_moving_object(scene, margin, len(evs), generator, options) for _ in range(options.objects))
    poses = tuple(_pose(*size, generator, options) if shot != middle else np.eye(3) for shot in range(len(evs)))
    inside = slice(None), slice(margin, margin + size[0]), slice(margin, margin + size[1])
    gain = 1.0
    if options.clipped is not None:
        shown = _with_objects(scene[inside], objects, middle)
        gain = 1.0 / level_reached(shown, uniform(generator, options.clipped))
    scene, objects = scene * gain, tuple(replace(item, light=item.light * gain) for item in objects)
    sensor = _Sensor(
        0.0 if options.electrons is None else 1.0 / log_uniform(generator, options.electrons),
        0.0 if options.read_noise is None else log_uniform(generator, options.read_noise) ** 2,
        options.bits,
    )
    state = ImageState("rgb", "scene", "linear", "camera" if options.layout == "bayer" else primaries)
    frames = []
    for shot, (ev, pose) in enumerate(zip(evs, poses, strict=True)):
        light = _seen(_with_objects(scene, objects, shot, margin), pose, margin) * 2.0 ** (ev - evs[middle])
        exposure = Exposure(time_s=REFERENCE_TIME_S * 2.0 ** (ev - evs[middle]))
        frames.append(sensor.shot_of(Frame(light, state, exposure=exposure), options.layout, generator))
    bracket = Bracket.of(frames, ev=[ev - evs[middle] for ev in evs])
    return KnownBracket(bracket, scene[inside].clone(), poses, objects)


@dataclass(frozen=True)
class _Sensor:
    """Variance of noise ``shot * x + read``, and bits of the levels."""

    shot: float
    read: float
    bits: int | None

    def shot_of(self, frame: Frame, layout: str, generator: torch.Generator) -> Frame:
        """What the sensor makes of light ``[3,H,W]``."""
        if layout == "bayer":
            mosaic = mosaicked(frame.pixels, RGGB)
            state = frame.state.changed({"layout": "bayer"})
            light = replace(frame, pixels=mosaic, state=state, camera=CAMERA)
            return recorded(light, self.shot, self.read, self.bits or 16, generator)
        seen = noisy(frame.pixels, self.shot, self.read, generator)
        clipped, seen = seen >= 1.0, seen.clamp(max=1.0)
        noise = ((self.shot, self.read),) * 3 if self.shot or self.read else None
        pixels = seen if self.bits is None else quantised(seen, self.bits)
        return replace(
            frame, pixels=pixels, masks={"clipped": clipped}, facts=Facts(clip_level=(1.0,) * 3, noise=noise)
        )


def _with_objects(planes: Tensor, objects: Sequence[MovingObject], shot: int, margin: int = 0) -> Tensor:
    """A copy of a scene ``[3,H,W]`` with everything where it is in a shot."""
    planes = planes.clone()
    for item in objects:
        item.onto(planes, shot, item.light, margin)
    return planes


def _moving_object(
    scene: Tensor, margin: int, shots: int, generator: torch.Generator, options: MovingBracket
) -> MovingObject:
    """An ellipse cut out of the scene that lies in the picture of the middle shot, and its way through the others."""
    full = scene.shape[1], scene.shape[2]
    inner = full[0] - 2 * margin, full[1] - 2 * margin
    height = max(round(uniform(generator, options.size) * min(inner)), 4)
    width = min(max(round(height * uniform(generator, RATIO)), 4), inner[1])
    top, left = whole(generator, 0, full[0] - height), whole(generator, 0, full[1] - width)
    light = scene[:, top : top + height, left : left + width] * 2.0 ** uniform(generator, BRIGHTNESS_EV)
    y, x = (torch.arange(length).sub((length - 1) / 2).div(length / 2) for length in (height, width))
    alpha = (1.0 - torch.hypot(y[:, None], x)).mul_(min(height, width) / 2 / SOFT_EDGE_PX).clamp_(0.0, 1.0)
    start = whole(generator, 0, inner[0] - height), whole(generator, 0, inner[1] - width)
    angle, length = uniform(generator, (0.0, 2 * math.pi)), uniform(generator, options.motion)
    step = length * math.sin(angle), length * math.cos(angle)
    corners = []
    for shot in range(shots):
        row, column = (
            min(max(first + round((shot - shots // 2) * pace), -margin), whole_side - margin - side)
            for first, pace, whole_side, side in zip(start, step, full, (height, width), strict=True)
        )
        corners.append((row, column))
    return MovingObject(light, alpha[None], tuple(corners))


def _pose(height: int, width: int, generator: torch.Generator, options: MovingBracket) -> Matrix:
    """A shift, a turn about the middle, and a little perspective: ``[3,3]``, pixels of the middle shot to a shot's."""
    direction, length = uniform(generator, (0.0, 2 * math.pi)), uniform(generator, options.shift)
    angle = math.radians(uniform(generator, options.turn)) * (1 if chance(generator, 0.5) else -1)
    leaning, share = uniform(generator, (0.0, 2 * math.pi)), uniform(generator, options.tilt)
    tilts = np.array([math.cos(leaning), math.sin(leaning)]) * share / (math.hypot(height, width) / 2)
    center = np.array([(width - 1) / 2, (height - 1) / 2])
    to_center, back = np.eye(3), np.eye(3)
    to_center[:2, 2] = -center
    back[:2, 2] = center + length * np.array([math.cos(direction), math.sin(direction)])
    turned = np.array(
        [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [tilts[0], tilts[1], 1]]
    )
    pose = back @ turned @ to_center
    return np.asarray(pose / pose[2, 2], dtype=np.float64)


@dataclass(frozen=True, eq=False)
class _Homography(Lookup):
    """Where a scene shows what a shot does: ``matrix`` maps pixels (x, y, 1) of the shot to those of the scene."""

    matrix: Matrix = field(default_factory=lambda: np.eye(3))

    def moves(self, plane: int) -> bool:
        return True

    def source(self, plane: int, x: Tensor, y: Tensor, origin: tuple[int, int]) -> tuple[Tensor, Tensor]:
        x, y = x.double() + origin[0], y.double() + origin[1]
        u, v, w = (row[0] * x + row[1] * y + row[2] for row in self.matrix.tolist())
        return (u / w - origin[0]).float(), (v / w - origin[1]).float()


def _seen(scene: Tensor, pose: Matrix, margin: int) -> Tensor:
    """What a shot in this pose sees of a scene that reaches ``margin`` px over the picture: ``[3,H,W]``.

    Splines ring beside lamps, so values stay within those of the 3x3 pixels around.
    """
    _, height, width = scene.shape
    if not np.array_equal(pose, np.eye(3)):
        place = np.array([[1, 0, margin], [0, 1, margin], [0, 0, 1]], dtype=np.float64)
        lookup = _Homography(matrix=np.asarray(place @ np.linalg.inv(pose) @ np.linalg.inv(place), dtype=np.float64))
        x, y = lookup.source(0, torch.arange(width)[None], torch.arange(height)[:, None], (0, 0))
        near = slice(None), y.round().clamp_(0, height - 1).long(), x.round().clamp_(0, width - 1).long()
        high, low = F.max_pool2d(scene, 3, 1, 1), -F.max_pool2d(-scene, 3, 1, 1)
        scene = torch.minimum(torch.maximum(corrected(scene, lookup), low[near]), high[near])
    return scene[:, margin : height - margin, margin : width - margin]
