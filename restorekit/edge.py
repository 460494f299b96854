"""Bring an image to the state a pipeline declares: the stages that run before its first one.

The checker never inserts a conversion inside a pipeline; this is the one place where stages
are added, from the declared input alone, and ``--dry-run`` shows them.
"""

from __future__ import annotations

from restorekit.errors import InputError
from restorekit.pipeline import Step
from restorekit.stage import Stage
from restorekit.state import ImageState


def bridge(have: ImageState, want: ImageState, name: str) -> tuple[Step, ...]:
    """The steps from one state to another. ``name`` is what errors call the image.

    A RAW file is developed by the stages of the shipped pipeline ``raw-to-linear-exr``, with automatic
    exposure and a filmic curve where a display state is wanted.

    Raises InputError where there is no way.
    """
    if have.reference == want.reference == "sensor":
        return ()
    if want.reference == "sensor":
        raise InputError(
            f"{name}: the pipeline starts from RAW, this is a finished picture; "
            "use a pipeline for photos such as photo-enhance"
        )
    stages: list[Stage] = []
    state = have
    if have.reference == "sensor":
        stages = _develop(want)
        state = have.changed(
            {"layout": "rgb", "reference": want.reference, "transfer": "linear", "primaries": _linear_primaries(want)}
        )
    if state.reference != want.reference:
        cure = (
            "add a tone-mapping stage to a pipeline for it"
            if want.reference == "display"
            else "start from RAW or EXR files, or from a pipeline for photos"
        )
        raise InputError(
            f"{name}: the pipeline starts from {want.reference}-referred images, "
            f"this is {have.reference}-referred; {cure}"
        )
    stages += _recolor(state, want, name)
    return tuple(Step(f"edge.{stage.spec.name}", stage) for stage in stages)


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
