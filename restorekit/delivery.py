"""The colour space an output is written in: what ``output.color`` makes of the state of a pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from restorekit.io.formats import COLOR_SPACES, OutputSpec, refusal
from restorekit.state import ImageState, Primaries, Transfer


def delivered(state: ImageState, spec: OutputSpec, source: tuple[Primaries, Transfer] | None = None) -> ImageState:
    """The state in which an output is written, given the state of the pipeline where it is taken.

    ``source`` is the colour space of the input, for ``color: source``; without it the state stays. Linear, PQ and
    HLG values keep their transfer function and change primaries only, gray ones have no primaries to change. A
    source's transfer function that the format cannot hold is left out.
    """
    wanted = source if spec.color == "source" else COLOR_SPACES.get(spec.color or "")
    if wanted is None or not _has_colors(state):
        return state
    primaries, transfer = wanted
    if state.layout == "gray":
        primaries = state.primaries
    if state.transfer not in ("srgb", "gamma"):
        transfer = state.transfer
    target = replace(state, primaries=primaries, transfer=transfer)
    if spec.color == "source" and refusal(spec.format, spec.bits, target):
        target = replace(state, primaries=primaries)
        return state if refusal(spec.format, spec.bits, target) else target
    return target


def problems(spec: OutputSpec, state: ImageState) -> Iterator[str]:
    """Why an output cannot be written from a state, one line each."""
    if spec.color is not None and not _has_colors(state):
        yield f"color: {spec.color} is for pictures of a known colour space, this is {state}; leave color out"
    elif message := refusal(spec.format, spec.bits, delivered(state, spec)):
        yield message


def _has_colors(state: ImageState) -> bool:
    return state.layout in ("rgb", "gray") and state.primaries not in ("camera", "icc")
