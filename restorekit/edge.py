"""Bring an image to the state a pipeline declares, and its result to the colour space an output is written in.

The checker never inserts a conversion inside a pipeline; this is the one place where stages are added, from the
declared input and the declared outputs alone, and ``--dry-run`` shows those of the input.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from restorekit.delivery import delivered
from restorekit.errors import InputError
from restorekit.facts import Metadata
from restorekit.frame import Frame
from restorekit.io import cms
from restorekit.io.formats import Intent, OutputSpec, refusal
from restorekit.pipeline import Step
from restorekit.stage import Stage, StageSpec
from restorekit.state import ImageState, Primaries, Transfer


def bridge(have: ImageState, want: ImageState, name: str) -> tuple[Step, ...]:
    """The steps from one state to another. ``name`` is what errors call the image.

    A RAW file is developed by the stages of the shipped pipeline ``raw-to-linear-exr``, with automatic
    exposure and a filmic curve where a display state is wanted. Photographs of a bracket become scene light by
    ``merge.response`` where such is wanted.

    Raises InputError where there is no way.
    """
    if have.reference == want.reference == "sensor":
        return ()
    if want.reference == "sensor":
        raise InputError(needs_raw(name, want.frames != "single"))
    stages: list[Stage] = []
    state = have
    if have.reference == "sensor":
        stages = _develop(want)
        state = have.changed(
            {"layout": "rgb", "reference": want.reference, "transfer": "linear", "primaries": _linear_primaries(want)}
        )
    if state.reference == "display" and want.reference == "scene" and state.frames != "single":
        stages.append(_response(state, want, name))
        state = stages[-1].emits(state)
    if state.reference != want.reference:
        cure = (
            f"use {'hdr-to-display' if want.frames == 'single' else 'bracket-to-hdr'}, or a pipeline with tone mapping"
            if want.reference == "display"
            else "start from RAW or EXR files, or from a pipeline for photos"
        )
        raise InputError(
            f"{name}: the pipeline starts from {want.reference}-referred images, "
            f"this is {have.reference}-referred; {cure}"
        )
    stages += _recolor(state, want, name)
    return tuple(Step(f"edge.{stage.spec.name}", stage) for stage in stages)


def needs_raw(name: str, bracket: bool) -> str:
    """What is said of a picture, or of one of a bracket, that a pipeline for RAW files is given."""
    photos = "bracket-to-hdr" if bracket else "photo-enhance"
    return (
        f"{name}: the pipeline starts from RAW, this is a finished picture; use a pipeline for photos such as {photos}"
    )


def delivery(have: ImageState, spec: OutputSpec, metadata: Metadata) -> tuple[tuple[Stage, ...], tuple[str, ...]]:
    """The stages from the state of a pipeline to the colour space of an output, and what a person should know.

    ``metadata`` are those of the picture, for ``color: source``; an ICC profile without a name here is used itself.
    """
    own = cms.space_of_profile(metadata.icc) if metadata.icc and metadata.color is None else None
    named = spec.format == "ultrahdr"  # which is written in spaces with a name only
    if spec.color != "source" or own is None or named or have.layout != "rgb" or have.reference != "display":
        want = delivered(have, spec, metadata.color)
        told = _not_as_source(want, spec, metadata.color) if spec.color == "source" and metadata.color else ()
        return tuple(_recolor(have, want, spec.format)), told
    profile_state = replace(have, primaries="icc", transfer="srgb")
    if own != "rgb" or refusal(spec.format, spec.bits, profile_state) or not cms.writes(metadata.icc):
        return (), (f"{spec.format} is not written with the input's {own} profile, its colours are {have.primaries}",)
    return (*_recolor(have, cms.WORKING, spec.format), ToProfile(metadata.icc, spec.intent, spec.black_point)), ()


def _not_as_source(want: ImageState, spec: OutputSpec, source: tuple[Primaries, Transfer]) -> tuple[str, ...]:
    """What ``color: source`` could not keep of the colours of the input."""
    if want.layout != "rgb" or want.transfer == "linear" or (want.primaries, want.transfer) == source:
        return ()
    said = f"{spec.format} is written as {want.primaries} {want.transfer}, the input is {source[0]} {source[1]}"
    if source[1] in ("pq", "hlg") and want.transfer not in ("pq", "hlg"):
        said += ": what it has above white is cut; write png of 16 bits or avif of 10 to keep it"
    return (said,)


@dataclass(frozen=True)
class ToProfile(Stage):
    """Linear Rec. 2020 to the numbers of an RGB profile, by LittleCMS."""

    profile: bytes
    intent: Intent = "relative"
    black_point: bool = True

    spec: ClassVar[StageSpec] = StageSpec(
        name="edge.to_profile",
        source="ICC.1:2022",
        accepts={"layout": ("rgb",), "reference": ("display",), "transfer": ("linear",), "primaries": ("bt2020",)},
        emits={"primaries": "icc", "transfer": "srgb"},
    )

    def apply(self, frame: Frame) -> Frame:
        linear = frame.pixels.permute(1, 2, 0).cpu().numpy()
        numbers = cms.from_working(linear, self.profile, intent=self.intent, black_point=self.black_point)
        return frame.with_pixels(torch.from_numpy(numbers).permute(2, 0, 1))


def _response(have: ImageState, want: ImageState, name: str) -> Stage:
    """The stage that takes photographs of a bracket back to the light of the scene."""
    from restorekit.stages.response import Response

    if have.differences({**Response.spec.accepts, "frames": (have.frames,)}):
        raise InputError(f"{name}: is {have}, from which no scene light can be found; use RAW, EXR or sRGB files")
    return Response(to=_linear_primaries(want))  # type: ignore[arg-type]


def _linear_primaries(want: ImageState) -> str:
    return want.primaries if want.primaries in ("bt709", "p3", "bt2020") else "bt2020"


def _develop(want: ImageState) -> list[Stage]:
    from restorekit.schema import load
    from restorekit.stages.color import CameraMatrix
    from restorekit.stages.tone import Exposure, Filmic

    stages: list[Stage] = []
    for step in load("raw-to-linear-exr").steps:
        if isinstance(step.stage, CameraMatrix):
            if want.reference == "display":
                stages.append(Exposure(mode="auto"))
            stages.append(CameraMatrix(to=_linear_primaries(want)))  # type: ignore[arg-type]
        else:
            stages.append(step.stage)
    return [*stages, Filmic()] if want.reference == "display" else stages


def _recolor(have: ImageState, want: ImageState, name: str) -> list[Stage]:
    """Layout, primaries and transfer within one reference."""
    from restorekit.stages.color import Convert, Decode, Encode, ToRgb

    stages: list[Stage] = []
    if have.layout == "rgb" and want.layout == "gray":
        raise InputError(f"{name}: the pipeline takes gray images, this one has colours; declare layout: rgb")
    if have.layout == "gray" and want.layout == "rgb":
        stages.append(ToRgb())
    if (have.transfer, have.primaries) == (want.transfer, want.primaries):
        return stages
    if have.transfer != "linear":
        stages.append(Decode())
    if have.primaries != want.primaries:
        stages.append(Convert(to=want.primaries))  # type: ignore[arg-type]
    if want.transfer != "linear":
        stages.append(Encode(to=want.transfer))
    return stages
