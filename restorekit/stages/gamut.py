"""The stage that brings colours into a gamut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from restorekit.color.gamut import ACES_LIMITS, Triple, aces_limits, into_gamut
from restorekit.frame import Frame
from restorekit.stage import Stage, StageSpec, param, parameters
from restorekit.stages.color import Convert
from restorekit.state import ImageState


@parameters
class Gamut(Stage):
    """Linear RGB to other primaries, with the colours that their gamut lacks brought into it.

    ``oklch`` cuts the chroma of too saturated colours at their lightness and nearly their hue, without steps between
    neighbours; colours within the gamut stay as they are, but for a ``knee``. ``aces`` compresses all saturated
    colours, as cameras need it that see light beyond what is visible: with the published limits, or where the source
    reaches farther, with those that bring its hull to that of the target; what is beyond them is clipped.

    Display-referred pictures get no value above ``peak`` either: slightly brighter colours darken, much brighter ones
    fade to white, at their hue. Scene-referred light is kept however bright. Clip level and noise change as in
    ``color.convert``.
    """

    spec: ClassVar[StageSpec] = StageSpec(
        name="color.gamut",
        source="Ottosson, A perceptual color space for image processing (2020) and sRGB gamut clipping (2021); "
        "ACES 1.3, Reference Gamut Compression",
        accepts={
            "layout": ("rgb",),
            "reference": ("scene", "display"),
            "transfer": ("linear",),
            "primaries": ("bt2020", "bt709", "p3", "adobe-rgb", "prophoto", "ap1", "xyz"),
        },
        emits={"primaries": "bt709"},
    )
    to: Annotated[Literal["bt709", "p3", "bt2020", "adobe-rgb", "ap1"], param("Primaries of the gamut")] = "bt709"
    method: Annotated[
        Literal["oklch", "aces"], param("Cut chroma at nearly constant hue, or ACES reference gamut compression")
    ] = "oklch"
    peak: Annotated[
        float, param("Largest value of a display-referred picture; 1 = white", gt=0, le=64, usual=(0.5, 8))
    ] = 1.0
    knee: Annotated[
        float, param("Share of the way to the edge over which oklch compresses; 0 leaves the gamut alone", ge=0, le=0.5)
    ] = 0.0

    def emits(self, state: ImageState) -> ImageState:
        return state.changed({"primaries": self.to})

    def warnings(self, state: ImageState, before: Sequence[Stage] = ()) -> tuple[str, ...]:
        return ("knee has no effect with method aces",) if self.method == "aces" and self.knee else ()

    def apply(self, frame: Frame) -> Frame:
        converted = Convert(to=self.to).apply(frame)
        scene = frame.state.reference == "scene"
        pixels = into_gamut(
            converted.pixels,
            self.to,
            peak=None if scene else self.peak,
            method=self.method,
            knee=self.knee,
            limits=self._limits(frame, scene),
        )
        return replace(converted, pixels=pixels)

    def _limits(self, frame: Frame, scene: bool) -> Triple:
        """The extent of the source's gamut; scene-referred light goes as far beyond it as cameras do."""
        red, green, blue = aces_limits(frame.state.primaries, self.to)
        if not scene:
            return red, green, blue
        return max(red, ACES_LIMITS[0]), max(green, ACES_LIMITS[1]), max(blue, ACES_LIMITS[2])
