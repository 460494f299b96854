"""Lens corrections: distortion, lateral colour and vignetting, as the file says or as lensfun knows the lens."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Annotated, ClassVar, Literal

from torch import Tensor

from restorekit.errors import StageError, installing
from restorekit.frame import Frame, Region
from restorekit.io import lensfun, metadata
from restorekit.io.dng.corrections import correct, lowest_clip_level
from restorekit.io.dng.opcode_kinds import OpcodeError
from restorekit.io.dng.opcodes import parse
from restorekit.stage import GLOBAL, Nothing, Reach, Stage, StageSpec, param, parameters
from restorekit.stages.geometry import finite, transformed
from restorekit.stages.lens_plan import Plan, Step, Wanted, plan_of_file, plan_of_lens
from restorekit.stages.warp import corrected, touched

LENS_MODEL, SUBJECT_DISTANCE, FOCAL_LENGTH_35MM = 42036, 37382, 41989


@parameters
class Correct(Stage):
    """Straight lines straight, colours on top of each other, corners as bright as the middle.

    ``file`` applies what a DNG asks for after demosaicing (OpcodeList3): WarpRectilinear, WarpRectilinear2,
    WarpFisheye, FixVignetteRadial, gain maps and the like; TrimBounds joins the crop that is still to be done. Its
    coordinates are those of the whole frame, and places outside of it take the nearest pixel, as the specification
    says. ``lensfun`` looks camera and lens up in the lensfun database (extra ``lens``) by EXIF, or by ``camera``,
    ``lens``, ``focal_length_mm``, ``crop_factor`` and ``distance_m`` where these are given. ``auto`` is ``file``
    where the file has corrections, else ``lensfun`` where it knows the lens, else nothing. Whether a camera has
    corrected its JPEG itself cannot be told: ``auto`` notes when it corrects a picture that is no RAW.

    Takes and gives linear RGB ``[3,H,W]``, best camera RGB right after raw.demosaic, since lateral colour is one of
    the sensor's channels, and before stages that crop, turn or resize. Each channel is resampled once, by cubic
    B-splines, which may overshoot at edges. Vignetting is undone before that. A mask is set where it touches.
    ``facts.clip_level`` is then the lowest value at which a pixel may be clipped; the noise facts hold no
    longer and are dropped. Values that are not finite are replaced and noted. ``scale: auto`` enlarges or reduces what
    lensfun corrects so that it just fills the frame.

    Raises StageError where ``source: lensfun`` lacks lensfunpy, and where the database does not have the camera or
    lens that a parameter names.
    """

    spec: ClassVar[StageSpec] = StageSpec(
        name="lens.correct",
        source="DNG 1.7.1, chapter 7 (WarpRectilinear, WarpFisheye, FixVignetteRadial); lensfun and its database; "
        "resampling: M. Unser, Splines, IEEE Signal Processing Magazine 16 (1999)",
        accepts={"layout": ("rgb",), "reference": ("scene", "display"), "transfer": ("linear",)},
    )

    source: Annotated[Literal["auto", "file", "lensfun"], param("Where the corrections come from")] = "auto"
    distortion: Annotated[bool, param("Straighten what the lens bends")] = True
    vignetting: Annotated[bool, param("Brighten the corners")] = True
    lateral_ca: Annotated[bool, param("Bring red and blue to where green is")] = True
    scale: Annotated[Literal["auto", "none"], param("lensfun: fill the frame without empty borders, or keep")] = "auto"
    camera: Annotated[str, param("lensfun: the camera, where EXIF does not tell it, e.g. Canon EOS 5D Mark III")] = ""
    lens: Annotated[str, param("lensfun: the lens, where EXIF does not tell it")] = ""
    focal_length_mm: Annotated[float | None, param("lensfun: focal length", unit="mm", gt=0)] = None
    crop_factor: Annotated[float | None, param("lensfun: diagonal of 35 mm film by the sensor's", gt=0)] = None
    distance_m: Annotated[float | None, param("lensfun: distance of the subject", unit="m", gt=0)] = None

    def reach(self) -> Reach:
        return GLOBAL

    def suited(self, frame: Frame) -> Stage:
        plan = self._plan(frame)
        if plan.steps or plan.crop != frame.metadata.crop:
            return self
        return Remark(note=plan.note) if plan.note else Nothing()

    def apply(self, frame: Frame) -> Frame:
        plan = self._plan(frame)
        if plan.note:
            frame = frame.with_note(plan.note)
        if plan.steps:
            frame = finite(frame, self)
        for step in plan.steps:
            frame = _after(step, frame)
        first, second, _ = frame.camera.opcode_lists
        return replace(
            frame,
            camera=replace(frame.camera, opcode_lists=(first, second, plan.remaining)),
            metadata=replace(frame.metadata, crop=plan.crop),
        )

    def _plan(self, frame: Frame) -> Plan:
        """What is to be done with a frame; the same for every strip and stage of it."""
        wanted = Wanted(self.distortion, self.vignetting, self.lateral_ca)
        nothing = Plan.nothing(frame)
        if self.source != "lensfun":
            try:
                operations = parse(frame.camera.opcode_lists[2])
            except OpcodeError as error:
                said = f"{frame.name}: its OpcodeList3 is damaged ({error}) and not applied"
                return replace(nothing, remaining=b"", note=said)
            if operations or self.source == "file":
                return plan_of_file(frame, operations, wanted)
        if not lensfun.installed():
            if self.source == "auto":
                return nothing
            raise StageError(f"{frame.name}: lens.correct needs lensfunpy; {installing('lens')}")
        try:
            known = lensfun.find(self._shot(frame))
        except lensfun.LensUnknown as error:
            if self.lens or self.camera:
                raise StageError(f"{frame.name}: lens.correct: {error}") from None
            worth_saying = self.source == "lensfun" or error.named
            return replace(nothing, note=f"lens.correct leaves the lens as it is: {error}") if worth_saying else nothing
        plan = plan_of_lens(frame, known, wanted, fill=self.scale == "auto")
        if plan.steps and self.source == "auto" and frame.camera.white is None and not self.lens:
            said = f"lens.correct corrects the {known.name} by lensfun; take it out if the camera has done so already"
            return replace(plan, note=said)
        return plan

    def _shot(self, frame: Frame) -> lensfun.Shot:
        """What EXIF says of camera and lens, and what parameters say instead."""
        image, photo = metadata.exif_fields(frame.metadata.exif)
        return lensfun.Shot(
            make="" if self.camera else image.text(metadata.MAKE) or frame.camera.make,
            model=self.camera or image.text(metadata.MODEL) or frame.camera.model,
            lens=self.lens or photo.text(LENS_MODEL),
            focal_length_mm=self.focal_length_mm or _positive(photo.numbers(metadata.FOCAL_LENGTH)),
            f_number=frame.exposure.f_number,
            distance_m=self.distance_m or _positive(photo.numbers(SUBJECT_DISTANCE)),
            crop_factor=self.crop_factor,
            equivalent_mm=_positive(photo.numbers(FOCAL_LENGTH_35MM)),
        )


@parameters
class Remark(Stage):
    """Leaves a frame as it is and says why."""

    spec: ClassVar[StageSpec] = StageSpec(name="lens.correct", source="no change")
    note: str

    def apply(self, frame: Frame) -> Frame:
        return frame.with_note(self.note)


def _after(step: Step, frame: Frame) -> Frame:
    """A frame after one step of corrections."""
    if step.operations:
        pixels = frame.pixels.clone()
        correct(pixels, step.operations, Region(0, frame.height))
        frame = frame.with_pixels(pixels)
    if frame.facts.clip_level is not None:
        lowest = math.prod(min(1.0, falloff.lowest_gain(frame.height, frame.width)) for falloff in step.falloffs)
        levels = tuple(lowest_clip_level(value, step.operations) * lowest for value in frame.facts.clip_level)
        frame = replace(frame, facts=replace(frame.facts, clip_level=levels))
    if not (step.falloffs or step.lookup.warps):
        return frame

    def color(planes: Tensor) -> Tensor:
        is_alpha = planes.shape[0] == 1
        return corrected(planes, step.lookup, () if is_alpha else step.falloffs)

    return transformed(frame, color, partial(touched, lookup=step.lookup))


def _positive(values: tuple[float, ...]) -> float | None:
    """The first value of a field; ``None`` where it is missing, zero or no number."""
    value = next(iter(values), 0.0)
    return value if 0 < value < float("inf") else None
