"""Lens shading and other corrections of linear sensor values that a DNG brings with it."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from restorekit.errors import StageError
from restorekit.frame import Frame, Region
from restorekit.io.dng.corrections import correct, lowest_clip_level
from restorekit.io.dng.opcodes import parse
from restorekit.stage import Nothing, Stage, StageSpec, parameters


@parameters
class LensShading(Stage):
    """Apply what a DNG asks for between black level and demosaicing: the second opcode list.

    Takes and gives scene-referred ``[C,H,W]``, mosaics and linear camera RGB, 1 = white level. GainMap and
    FixVignetteRadial even out the fall-off of the lens, most often by a map for each photosite of the
    Bayer cell; ScalePerRow, ScalePerColumn, DeltaPerRow and DeltaPerColumn take away stripes; MapPolynomial and
    MapTable make values linear. Files without such a list are left as they are.

    Nothing is clipped: brightened corners exceed 1. ``facts.clip_level`` is then the lowest value at which a
    photosite may be clipped, and the mask ``clipped`` says which ones are. ``facts.noise`` stays that of a gain of 1,
    the middle of most pictures; elsewhere noise is higher by the gain. It belongs before white balance, and
    before raw.highlights, which makes clipped colours white that maps have brightened differently.

    Raises StageError after demosaicing, where the list of a mosaic means nothing any more.
    """

    spec: ClassVar[StageSpec] = StageSpec(
        name="raw.lens_shading",
        source="DNG 1.7.1, chapter 7, Opcode List Processing: OpcodeList2",
        accepts={"reference": ("scene",), "transfer": ("linear",), "primaries": ("camera",)},
    )

    def suited(self, frame: Frame) -> Stage:
        return self if frame.camera.opcode_lists[1] else Nothing()

    def apply(self, frame: Frame) -> Frame:
        first, second, third = frame.camera.opcode_lists
        if frame.camera.cfa and not frame.state.is_mosaic:
            raise StageError(f"{frame.name}: raw.lens_shading works on the mosaic; put it before raw.demosaic")
        operations = parse(second)
        pixels = frame.pixels.clone()
        correct(pixels, operations, frame.region or Region(0, frame.height))
        facts, level = frame.facts, frame.facts.clip_level
        if level is not None:
            facts = replace(facts, clip_level=tuple(lowest_clip_level(value, operations) for value in level))
        camera = replace(frame.camera, opcode_lists=(first, b"", third))
        return replace(frame, pixels=pixels, facts=facts, camera=camera)
