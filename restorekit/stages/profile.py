"""Camera profiles: the matrices, tables and tone curve that a DNG or a DCP file brings, and the stages of its look."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from restorekit.color.primaries import conversion, transformed
from restorekit.color.profile import hue_sat_mapped, is_identity, tone_curve_table, tone_mapped
from restorekit.errors import StageError
from restorekit.facts import Camera, CameraProfile
from restorekit.frame import Frame
from restorekit.io.dng.dcp import DcpFile, read_dcp
from restorekit.stage import Stage, StageSpec, changed_at, param, parameters

KNOWN_RGB = {
    "layout": ("rgb",),
    "reference": ("scene",),
    "transfer": ("linear",),
    "primaries": ("bt2020", "bt709", "p3", "adobe-rgb", "prophoto", "ap1"),
}


@parameters
class Look(Stage):
    """The look table of a camera profile: hue, saturation and value of scene light as its maker likes them.

    The profile is that of the frame (its file's, or the one ``color.camera_matrix`` used), or ``profile``. A frame
    whose profile has no look table stays as it is. Belongs after ``tone.exposure`` and before the tone curve. The
    table acts on linear ProPhoto RGB, and nothing is clamped: light above 1 takes the table's brightest step.
    """

    spec = StageSpec(
        name="color.look",
        source="DNG 1.7.1, ProfileLookTableData; chapter 6: Applying the Hue/Saturation/Value Mapping Table",
        accepts=KNOWN_RGB,
    )
    profile: Annotated[Path | None, param("Camera profile (.dcp) instead of that of the frame")] = None

    def apply(self, frame: Frame) -> Frame:
        frame, profile = _profile(frame, self.profile, self)
        if profile.look_table is None or is_identity(profile.look_table):
            return frame
        there, back = conversion(frame.state.primaries, "prophoto"), conversion("prophoto", frame.state.primaries)
        mapped = hue_sat_mapped(transformed(frame.pixels, there), profile.look_table, profile.look_encoding)
        return frame.with_pixels(transformed(mapped, back))


@parameters
class ProfileCurve(Stage):
    """The tone curve of a camera profile, from scene light to a display-referred picture.

    The profile is that of the frame (its file's, or the one ``color.camera_matrix`` used), or ``profile``. Light is
    clamped to 0..1 in ProPhoto RGB, so what the sensor held above white is lost. The largest and the smallest channel
    follow the curve, the one between keeps its place, so the hexcone hue stays. Colours outside of the frame's
    primaries keep their values below 0 or above 1.

    Raises StageError for a profile without a curve, as those have that rely on the curve of their maker's program.
    """

    spec = StageSpec(
        name="tone.profile_curve",
        source="DNG 1.7.1, ProfileToneCurve; Adobe DNG SDK 1.7.1 (natural cubic spline, hue kept)",
        accepts=KNOWN_RGB,
        emits={"reference": "display"},
    )
    profile: Annotated[Path | None, param("Camera profile (.dcp) instead of that of the frame")] = None

    def apply(self, frame: Frame) -> Frame:
        frame, profile = _profile(frame, self.profile, self)
        if profile.tone_curve is None:
            which = str(self.profile or (f"the profile '{profile.name}'" if profile.name else "this file"))
            raise StageError(
                f"{frame.name}: {self.spec.name} finds no tone curve in {which}; use tone.filmic, or name a profile "
                "(.dcp) that has one"
            )
        there, back = conversion(frame.state.primaries, "prophoto"), conversion("prophoto", frame.state.primaries)
        toned = tone_mapped(transformed(frame.pixels, there), tone_curve_table(profile.tone_curve))
        return frame.with_pixels(transformed(toned, back))


def with_profile(frame: Frame, path: Path, stage: Stage) -> Frame:
    """The frame with the calibrations, the tables and the look of a DCP file instead of its own.

    A profile for another camera model is noted. CameraCalibration of the frame's own calibrations is left out, as
    the specification wants for a profile of other origin; its analog balance stays.

    Raises InputError, naming the ``stage`` that wants it, for a file that is missing, or is no camera profile.
    """
    dcp = _read(path, changed_at(path, stage))
    return _noted(replace(frame, camera=_profiled(frame.camera, dcp)), path, dcp)


def _profile(frame: Frame, path: Path | None, stage: Stage) -> tuple[Frame, CameraProfile]:
    """The profile of a file, or of the frame, and the frame with what there is to say about it."""
    if path is None:
        return frame, frame.camera.profile
    dcp = _read(path, changed_at(path, stage))
    return _noted(frame, path, dcp), dcp.profile


def _noted(frame: Frame, path: Path, dcp: DcpFile) -> Frame:
    for note in dcp.notes:
        frame = frame.with_note(note)
    camera = frame.camera
    if dcp.model and camera.model and _words(dcp.model, camera) != _words(camera.model, camera):
        frame = frame.with_note(f"the camera profile {path.name} is for {dcp.model}, the picture is of {camera.name}")
    return frame


def _words(model: str, camera: Camera) -> list[str]:
    """The words of a model's name without those of its maker, who stands in some names and not in others."""
    makers = set(camera.make.lower().split())
    return [word for word in model.lower().split() if word not in makers]


@lru_cache(maxsize=64)
def _profiled(camera: Camera, dcp: DcpFile) -> Camera:
    """The same camera for every strip, so that what is computed from its calibrations is found again."""
    return replace(camera, calibrations=dcp.calibrations, profile=dcp.profile)


@lru_cache(maxsize=8)
def _read(path: Path, changed: int) -> DcpFile:
    return read_dcp(path)
