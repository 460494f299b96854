"""The files that a pipeline's result can be downloaded as: those it declares, and other formats that can hold it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from restorekit.delivery import delivered
from restorekit.io.formats import Format, OutputColor, OutputSpec
from restorekit.pipeline import Pipeline, output_problems, tap_index
from restorekit.state import Primaries, Transfer

AS_SAID = "The pipeline's own"

_OFFERED: Mapping[str, tuple[Format, int | None]] = {
    "JPEG": ("jpeg", None),
    "Ultra HDR JPEG": ("ultrahdr", None),
    "AVIF, 10 bit": ("avif", 10),
    "PNG, 16 bit": ("png", 16),
    "TIFF, 16 bit": ("tiff", 16),
    "EXR, linear light": ("exr", None),
}
CHOICES = (AS_SAID, *_OFFERED)
"""All that can be chosen; :func:`deliverables` tells which of them a pipeline bears."""


def deliverables(pipeline: Pipeline) -> Mapping[str, tuple[OutputSpec, ...]]:
    """What a pipeline can be written as: a name for people, and the outputs that it stands for.

    Formats that cannot hold the last result take that of the latest stage that they can hold, linear light first where
    the format is made for it.
    """
    found: dict[str, tuple[OutputSpec, ...]] = {AS_SAID: pipeline.outputs}
    states, ids = pipeline.states(), [step.id for step in pipeline.steps]
    for name, (kind, bits) in _OFFERED.items():
        fitting = (spec for spec in _candidates(pipeline, kind, bits) if not any(output_problems(spec, ids, states)))
        spec = next(fitting, None)
        if spec is not None:
            found[name] = (spec,)
    return found


def declared(outputs: Sequence[OutputSpec]) -> str:
    """The formats that a pipeline itself declares, in words: ``EXR and Ultra HDR JPEG``."""
    return " and ".join("Ultra HDR JPEG" if spec.format == "ultrahdr" else spec.format.upper() for spec in outputs)


def hdr_output(pipeline: Pipeline, source: tuple[Primaries, Transfer] | None) -> int | None:
    """The number of the first output with light above white that browsers show: Ultra HDR, or AVIF in PQ or HLG.

    ``source`` is the colour space of the input.
    """
    states, ids = pipeline.states(), [step.id for step in pipeline.steps]
    for number, spec in enumerate(pipeline.outputs):
        transfer = delivered(states[tap_index(spec, ids) + 1], spec, source).transfer
        if spec.format == "ultrahdr" or (spec.format == "avif" and transfer in ("pq", "hlg")):
            return number
    return None


def _candidates(pipeline: Pipeline, kind: Format, bits: int | None) -> Iterator[OutputSpec]:
    """Outputs of a format, the most fitting first; some cannot be written."""
    yield from (replace(spec, bits=bits or spec.bits) for spec in pipeline.outputs if spec.format == kind)
    first = pipeline.outputs[0]
    taps = [first.tap, None, *(step.id for step in reversed(pipeline.steps))]
    scenes = [
        step.id
        for step, state in zip(pipeline.steps, pipeline.states()[1:], strict=False)
        if state.reference == "scene" and state.layout == "rgb" and state.primaries != "camera"
    ]
    if kind == "ultrahdr":
        for hdr in reversed(scenes):
            yield from (OutputSpec(format=kind, hdr=hdr, sdr=tap, color=first.color) for tap in taps[:2])
        return
    if kind == "exr":
        taps = [*reversed(scenes), *taps]
    colors: tuple[OutputColor | None, ...]
    colors = (first.color, None, "srgb") if first.color not in ("pq", "hlg") else (None, "srgb")
    yield from (OutputSpec(format=kind, bits=bits, color=color, from_=tap) for tap in taps for color in colors)
