"""Soft proof: how a printer, or any device with an ICC profile, will render a picture."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch

from restorekit.color.primaries import conversion, transformed
from restorekit.errors import InputError
from restorekit.frame import Frame
from restorekit.io import cms
from restorekit.stage import Stage, StageSpec, changed_at, param, parameters

MARK = (1.0, 0.0, 1.0)
"""Linear colour of places outside the gamut: magenta, which photographs hold least."""

OUTSIDE = 0.02
"""Difference between a linear colour and its relative colorimetric copy from which it counts as outside, 1 = white."""


@parameters
class SoftProof(Stage):
    """The picture as the device of an ICC profile will show it, in the colours it had: for looking at, before printing.

    Takes display-linear RGB of any primaries and gives the same state. Colours go to the numbers of the profile by
    ``intent`` (with black-point compensation), are clamped there to what the device has, and come back by relative
    colorimetry; with ``paper`` by absolute colorimetry, so that paper white and ink black look as they are.
    ``gamut_warning`` paints colours magenta that the device cannot show.

    Raises InputError for a file that is no ICC profile or has no table for this direction.
    """

    spec: ClassVar[StageSpec] = StageSpec(
        name="color.soft_proof",
        source="ICC.1:2022, clause 6.2 (rendering intents), proofing transform as LittleCMS defines it",
        accepts={
            "layout": ("rgb",),
            "reference": ("display",),
            "transfer": ("linear",),
            "primaries": ("bt709", "p3", "bt2020", "adobe-rgb", "prophoto", "ap1", "xyz"),
        },
    )
    profile: Annotated[Path, param("ICC profile of the printer, paper or display")]
    intent: Annotated[
        Literal["perceptual", "relative", "saturation", "absolute"], param("How colours are brought to the device")
    ] = "relative"
    black_point: Annotated[bool, param("Black-point compensation")] = True
    paper: Annotated[bool, param("Show the white of the paper and the black of the ink")] = False
    gamut_warning: Annotated[bool, param("Paint colours the device cannot show magenta")] = False

    def apply(self, frame: Frame) -> Frame:
        profile = _read(self.profile, changed_at(self.profile, self))
        working = transformed(frame.pixels, conversion(frame.state.primaries, "bt2020")).cpu()
        linear = np.ascontiguousarray(working.permute(1, 2, 0).numpy())
        try:
            device = cms.from_working(linear, profile, intent=self.intent, black_point=self.black_point).clip(0, 1)
            back = cms.to_working(
                device, profile, intent="absolute" if self.paper else "relative", black_point=not self.paper
            )
            if self.gamut_warning:
                exact = cms.from_working(linear, profile, intent="relative", black_point=False).clip(0, 1)
                copy = cms.to_working(exact, profile, intent="relative", black_point=False)
                back[np.abs(copy - linear).max(2) > OUTSIDE] = MARK
        except InputError as error:
            raise InputError(f"{self.profile}: {error}") from error
        shown = torch.from_numpy(back).permute(2, 0, 1).to(frame.pixels.device)
        return frame.with_pixels(transformed(shown, conversion("bt2020", frame.state.primaries)))


@lru_cache(maxsize=2)
def _read(path: Path, changed: int) -> bytes:
    try:
        profile = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: color.soft_proof cannot read it ({error.strerror}); check the path") from error
    if cms.space_of_profile(profile) is None:
        raise InputError(f"{path}: is no ICC profile of a device with RGB, gray or CMYK; name an .icc or .icm file")
    return profile
