"""Two frames as pictures that any screen shows, so that they can be looked at side by side."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from restorekit.color.primaries import CHROMATICITIES, conversion, transformed
from restorekit.color.transfer import decode
from restorekit.edge import bridge
from restorekit.errors import InputError
from restorekit.frame import Frame
from restorekit.io.write import quantise
from restorekit.metrics.light import is_hdr
from restorekit.planes import to_float
from restorekit.stages.color import Encode, ToRgb
from restorekit.stages.gamut import Gamut
from restorekit.stages.geometry import Resize
from restorekit.stages.tone import Exposure, Filmic
from restorekit.state import SHORTHANDS, ImageState

Box = tuple[int, int, int, int]
"""Top, left, height and width in px."""

LINEAR = SHORTHANDS["display-linear"]
EXPOSURE = Exposure(mode="auto", min_ev=-20, max_ev=20)


@dataclass(frozen=True)
class View:
    """One frame and how it is shown. HDR light is multiplied by ``scale``, exposed by ``ev`` and tone-mapped."""

    frame: Frame
    scale: float = 1.0
    ev: float = 0.0

    @property
    def hdr(self) -> bool:
        return is_hdr(self.frame.state)

    def overview(self, long_edge: int) -> Tensor:
        """The whole as uint8 ``[3,h,w]`` sRGB, reduced in linear light where it is larger than ``long_edge`` px."""
        return self._finished(self._reduced(long_edge))

    def crop(self, box: Box) -> Tensor:
        """A part, pixel by pixel, as uint8 ``[3,h,w]`` sRGB."""
        top, left, height, width = box
        part = self.frame.pixels[:, top : top + height, left : left + width]
        return self._finished(self._light(self.frame.with_pixels(part)))

    def exposed(self, long_edge: int) -> float:
        """The stops by which automatic exposure brings the light of this frame to middle gray."""
        measured = EXPOSURE.measure(self._reduced(long_edge)).measured[EXPOSURE.spec.name]
        assert isinstance(measured, float)
        return measured

    def _reduced(self, long_edge: int) -> Frame:
        return Resize(long_edge=long_edge, enlarge=False)(self._light(self.frame))

    def _light(self, frame: Frame) -> Frame:
        """Finite linear light: of HDR frames that of a scene, in RGB, of others that of an sRGB display."""
        state = frame.state
        shown = Frame(to_float(frame.pixels), state, source=frame.source)
        if not self.hdr:
            for step in bridge(state, LINEAR, frame.name):
                shown = step.stage(shown)
            return shown.with_pixels(shown.pixels.nan_to_num(0.0, 0.0, 0.0))
        light = decode(shown.pixels, state.transfer) * self.scale
        if state.primaries == "xyz":
            light = transformed(light, conversion("xyz", "bt2020"))
        scene = ImageState(state.layout, "scene", "linear", "bt2020" if state.primaries == "xyz" else state.primaries)
        return Frame(light.nan_to_num_(0.0, 0.0, 0.0), scene, source=frame.source)

    def _finished(self, light: Frame) -> Tensor:
        if self.hdr:
            light = Filmic()(Exposure(ev=self.ev)(light))
            light = ToRgb()(light) if light.state.layout == "gray" else Gamut()(light)
        return quantise(Encode()(light).pixels, 8)


def views(first: Frame, second: Frame, *, scale: float = 1.0, long_edge: int) -> tuple[View, View]:
    """Two frames as they are shown beside each other: HDR frames by one exposure, that of the first of them.

    ``scale`` is the factor of the second frame.

    Raises InputError for colours of no standard, which a page cannot show.
    """
    for frame in (first, second):
        if (
            frame.state.layout == "rgb"
            and frame.state.primaries not in CHROMATICITIES
            and frame.state.primaries != "xyz"
        ):
            raise InputError(
                f"{frame.name}: has {frame.state.primaries} primaries, which a page cannot show; "
                "convert it to a standard space, or leave out --html"
            )
    pair = View(first), View(second, scale)
    bright = next((view for view in pair if view.hdr), None)
    ev = bright.exposed(long_edge) if bright else 0.0
    return replace(pair[0], ev=ev), replace(pair[1], ev=ev)
