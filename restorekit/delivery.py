"""The colour space an output is written in: what ``output.color`` makes of the state of a pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from restorekit.io.formats import COLOR_SPACES, FORMATS, OutputSpec, refusal
from restorekit.state import ImageState, Primaries, Transfer

_HDR = ("pq", "hlg")


def delivered(state: ImageState, spec: OutputSpec, source: tuple[Primaries, Transfer] | None = None) -> ImageState:
    """The state in which an output is written, given the state of the pipeline where it is taken.

    ``source`` is the colour space of the input, for ``color: source``; without it the state stays. Linear, PQ and
    HLG values keep their transfer function and change primaries only, unless PQ or HLG is asked for, or the format
    holds no linear light of a display, which is then encoded; gray ones have no primaries to change. A source's
    transfer function that the format cannot hold is left out, and where need be its primaries.
    """
    wanted = source if spec.color == "source" else COLOR_SPACES.get(spec.color or "")
    if spec.format == "ultrahdr":
        return _ultrahdr_base(state, wanted, chosen=spec.color not in (None, "source"))
    if spec.color == "source" and wanted is None:
        wanted = state.primaries, state.transfer
    if wanted is None or not _has_colors(state):
        return state
    primaries, transfer = wanted
    if state.layout == "gray":
        primaries = state.primaries
    kept = state.transfer not in ("srgb", "gamma") and spec.color not in _HDR
    transfers: list[Transfer] = [state.transfer if kept else transfer]
    if spec.color == "source":
        transfers.append(state.transfer)
    if kept and state.transfer == "linear" and state.reference == "display":
        transfers += [transfer, "srgb"]
    targets = [replace(state, primaries=primaries, transfer=each) for each in transfers]
    if spec.color == "source":
        targets += [replace(state, transfer=each) for each in transfers] + [state]
    fitting = (target for target in targets if not refusal(spec.format, spec.bits, target))
    return next(fitting, targets[-1] if spec.color == "source" else targets[0])


def _ultrahdr_base(state: ImageState, wanted: tuple[Primaries, Transfer] | None, *, chosen: bool) -> ImageState:
    """The standard picture of an Ultra HDR file: sRGB or Display P3, the latter for all wider spaces."""
    if not _has_colors(state) or state.reference != "display" or state.transfer in _HDR:
        return state
    primaries = wanted[0] if wanted else state.primaries
    if not chosen and primaries not in FORMATS["ultrahdr"].primaries:
        primaries = "p3"
    return replace(state, layout="rgb", primaries=primaries, transfer="srgb")


def hdr_problem(state: ImageState) -> str | None:
    """Why the HDR rendition of an Ultra HDR picture cannot come from a state, and what to do."""
    if not _has_colors(state):
        return f"ultrahdr wants light of a known colour space, hdr names a stage that gives {state}; name a later one"
    if state.reference == "sensor" or state.transfer not in ("linear", *_HDR):
        return (
            f"ultrahdr wants linear light, PQ or HLG for HDR displays, hdr names a stage that gives {state}; "
            "name one before color.encode"
        )
    return None


def problems(spec: OutputSpec, state: ImageState) -> Iterator[str]:
    """Why an output cannot be written from a state, one line each."""
    if spec.color is not None and not _has_colors(state):
        yield f"color: {spec.color} is for pictures of a known colour space, this is {state}; leave color out"
    elif message := refusal(spec.format, spec.bits, delivered(state, spec)):
        yield message


def _has_colors(state: ImageState) -> bool:
    return state.layout in ("rgb", "gray") and state.primaries not in ("camera", "icc")
