"""Frames as linear light of one colour space, strip by strip, for measures that compare two of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from restorekit.color.primaries import CHROMATICITIES, conversion, transformed
from restorekit.color.transfer import decode
from restorekit.errors import InputError
from restorekit.frame import Frame
from restorekit.planes import strip_rows, to_float
from restorekit.state import ImageState, Primaries


def is_hdr(state: ImageState) -> bool:
    """Whether values above diffuse white are to be expected: scene-referred linear light, PQ and HLG."""
    return state.transfer in ("pq", "hlg") or (state.reference == "scene" and state.transfer == "linear")


@dataclass(frozen=True)
class Light:
    """A frame whose rows are wanted as linear light, 1.0 = diffuse white, in some primaries."""

    frame: Frame
    primaries: Primaries

    @property
    def channels(self) -> int:
        return self.frame.pixels.shape[0]

    def linear(self, rows: slice) -> Tensor:
        """Rows as float64 ``[C,h,W]``."""
        state = self.frame.state
        values = decode(to_float(self.frame.pixels[:, rows]).double(), state.transfer)
        if self.channels == 1 or state.primaries == self.primaries:
            return values
        return transformed(values, conversion(state.primaries, self.primaries))


def lights_of(reference: Frame, test: Frame) -> tuple[Light, Light]:
    """Two frames in the primaries of the reference (BT.2020 where that holds XYZ).

    Raises InputError for different layouts, and for primaries that differ while no standard defines one of them.
    """
    if reference.state.layout != test.state.layout:
        raise InputError(
            f"{test.name}: is {test.state.layout}, {reference.name} is {reference.state.layout}; "
            "compare images of one layout"
        )
    own, other = reference.state.primaries, test.state.primaries
    if own != other and reference.state.layout == "rgb":
        for name, primaries in ((reference.name, own), (test.name, other)):
            if primaries not in CHROMATICITIES:
                raise InputError(f"{name}: has {primaries} primaries and the other not; convert it to a standard space")
    target: Primaries = "bt2020" if own == "xyz" else own
    return Light(reference, target), Light(test, target)


def row_strips(height: int, width: int) -> Iterator[slice]:
    """Rows of an image, strip by strip."""
    step = strip_rows(width)
    for top in range(0, height, step):
        yield slice(top, min(top + step, height))
