"""What is to be done to correct a lens: from a DNG's third opcode list, or from what lensfun knows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from restorekit.frame import Frame
from restorekit.io.dng.corrections import is_correction
from restorekit.io.dng.opcode_kinds import (
    FixVignetteRadial,
    GainMap,
    Operation,
    TrimBounds,
    Unknown,
    WarpFisheye,
    WarpRectilinear,
    WarpRectilinear2,
)
from restorekit.io.dng.opcodes import encode
from restorekit.io.lensfun import KnownLens, Polynomial
from restorekit.stages.warp import Distortion, Falloff, Lookup, Warp, green_only

LARGEST_SCALE = 1.25
"""How far a picture is reduced at most to fill the frame; distortions are known a little beyond its corners only."""

AnyWarp = WarpRectilinear | WarpRectilinear2 | WarpFisheye
Rectangle = tuple[int, int, int, int]


@dataclass(frozen=True)
class Wanted:
    """The corrections that are asked for."""

    distortion: bool = True
    vignetting: bool = True
    lateral_ca: bool = True


@dataclass(frozen=True)
class Step:
    """Corrections done in one pass over the picture: operations on values, then fall-off, then warps."""

    operations: tuple[Operation, ...] = ()
    falloffs: tuple[Falloff, ...] = ()
    lookup: Lookup = field(default_factory=Lookup)

    @property
    def is_idle(self) -> bool:
        moves = any(self.lookup.moves(plane) for _, plane in self.lookup.groups(3))
        return not (moves or self.operations or self.falloffs)


@dataclass(frozen=True)
class Plan:
    """The steps for a frame; ``crop`` and the ``remaining`` third list are what holds after them."""

    steps: tuple[Step, ...] = ()
    crop: Rectangle | None = None
    remaining: bytes = b""
    note: str = ""

    @staticmethod
    def nothing(frame: Frame) -> Plan:
        """Leave everything as it is."""
        return Plan(crop=frame.metadata.crop, remaining=frame.camera.opcode_lists[2])


def plan_of_file(frame: Frame, operations: Sequence[Operation], wanted: Wanted) -> Plan:
    """The third list of a DNG in its order; warps that follow each other become one.

    Without ``distortion`` colours are moved to where green is; without ``lateral_ca`` all move as green.
    """
    steps: list[Step] = []
    current, crop, odd = Step(lookup=_lookup((), wanted)), frame.metadata.crop, []
    for operation in operations:
        if isinstance(operation, TrimBounds):
            crop = _within(crop, (operation.top, operation.left, operation.bottom, operation.right), frame)
        elif isinstance(operation, AnyWarp):
            warps = (*current.lookup.warps, _warp(operation, frame.height, frame.width))
            current = replace(current, lookup=_lookup(warps, wanted))
        elif not is_correction(operation):
            odd.append(operation)
        elif wanted.vignetting or not isinstance(operation, FixVignetteRadial | GainMap):
            if current.lookup.warps:
                steps.append(current)
                current = Step(lookup=_lookup((), wanted))
            current = replace(current, operations=(*current.operations, operation))
    names = ", ".join(dict.fromkeys(each.name for each in odd if not isinstance(each, Unknown)))
    note = f"{frame.name}: corrections that mean nothing after demosaicing are not applied: {names}" if names else ""
    steps.append(current)
    return Plan(tuple(step for step in steps if not step.is_idle), crop, encode(odd), note)


def plan_of_lens(frame: Frame, known: KnownLens, wanted: Wanted, *, fill: bool) -> Plan:
    """What lensfun knows, about the middle of the picture (the crop still to be done).

    ``fill`` scales the picture so that its edge just shows the edge of what was taken, as far as it is known.
    """
    top, left, bottom, right = frame.metadata.crop or (0, 0, frame.height, frame.width)
    height, width = bottom - top, right - left
    center = left + (width - 1) / 2, top + (height - 1) / 2
    unit_px = max(math.hypot(width - 1, height - 1) / 2, 1.0)
    planes = known.distortion(width, height, geometry=wanted.distortion, lateral_ca=wanted.lateral_ca)
    if planes and wanted.distortion and fill:
        planes = filling(planes, (min(height, width) - 1) / 2 / unit_px)
    warps = (Warp(center, unit_px, tuple(Distortion(plane) for plane in planes)),) if planes else ()
    light = known.vignetting if wanted.vignetting else ()
    falloffs = (Falloff(center, unit_px, light),) if light else ()
    step = Step((), falloffs, Lookup(warps))
    return replace(Plan.nothing(frame), steps=() if step.is_idle else (step,))


def filling(planes: Sequence[Polynomial], nearest: float) -> tuple[Polynomial, ...]:
    """Factors of the radius for a picture scaled to fill its frame, whose edge lies at radii from ``nearest`` to 1.

    A place of the edge shows what lies ``s f(s r)`` times as far out; s is the largest scale for which none of these
    exceeds 1, for no colour.
    """
    radii = np.linspace(nearest, 1.0, 257)
    low, high = 0.25, LARGEST_SCALE
    for _ in range(50):
        scale = (low + high) / 2
        outermost = max(float((np.polynomial.polynomial.polyval(scale * radii, plane)).max()) for plane in planes)
        low, high = (scale, high) if scale * outermost <= 1.0 else (low, scale)
    return tuple(tuple(k * low ** (power + 1) for power, k in enumerate(plane)) for plane in planes)


def _lookup(warps: tuple[Warp, ...], wanted: Wanted) -> Lookup:
    if not wanted.lateral_ca:
        return Lookup(tuple(green_only(warp) for warp in warps) if wanted.distortion else ())
    return Lookup(warps, lateral_only=not wanted.distortion)


def _warp(operation: AnyWarp, height: int, width: int) -> Warp:
    """A warp of the DNG specification, whose unit of length is the distance from the centre to the farthest pixel."""
    x, y = operation.center_x * (width - 1), operation.center_y * (height - 1)
    unit_px = max(math.hypot(max(x, width - 1 - x), max(y, height - 1 - y)), 1.0)
    if isinstance(operation, WarpRectilinear2):
        planes = tuple(
            Distortion(plane.radial, plane.tangential, plane.valid_range, reciprocal=operation.reciprocal)
            for plane in operation.planes
        )
    else:
        planes = tuple(
            Distortion(_even(plane[:4]), (plane[4], plane[5]))
            if len(plane) > 4
            else Distortion(_even(plane), fisheye=True)
            for plane in operation.planes
        )
    return Warp((x, y), unit_px, planes)


def _even(coefficients: Sequence[float]) -> tuple[float, ...]:
    """Coefficients of even powers as those of all powers."""
    first, *rest = coefficients
    return (first, *(value for k in rest for value in (0.0, k)))


def _within(crop: Rectangle | None, bounds: Rectangle, frame: Frame) -> Rectangle | None:
    """What a crop and trimmed bounds have in common; the crop as it was where that is nothing or everything."""
    top, left, bottom, right = crop or (0, 0, frame.height, frame.width)
    top, left = max(top, bounds[0]), max(left, bounds[1])
    bottom, right = min(bottom, bounds[2]), min(right, bounds[3])
    if bottom <= top or right <= left or (top, left, bottom, right) == (0, 0, frame.height, frame.width):
        return crop
    return top, left, bottom, right
