"""Colour stages: white balance, camera matrix, primaries, transfer functions. All pointwise, none clamps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import pydantic
import torch
from torch import Tensor

from restorekit.color.camera import camera_to_rgb, hue_sat_map
from restorekit.color.primaries import conversion, transformed
from restorekit.color.profile import hue_sat_mapped, is_identity
from restorekit.color.transfer import decode, encode
from restorekit.errors import StageError
from restorekit.facts import Facts, Matrix
from restorekit.frame import Frame
from restorekit.stage import Stage, StageSpec, missing_fact, param, parameters
from restorekit.stages.profile import with_profile
from restorekit.state import ImageState

Gain = Annotated[float, pydantic.Field(gt=0)]
RgbPrimaries = Literal["bt709", "p3", "bt2020", "adobe-rgb", "prophoto", "ap1", "xyz"]


@parameters
class WhiteBalance(Stage):
    """Scale the channels so that the white of the scene's light has three equal values.

    The gains are ``1 / illuminant``, green = 1, or those given. On a mosaic each photosite gets the gain
    of its colour. Several white balances multiply: ``facts.white_balance`` holds the product.
    """

    spec: ClassVar[StageSpec] = StageSpec(
        name="color.white_balance",
        source="von Kries diagonal model in camera RGB; DNG 1.7, AsShotNeutral",
        accepts={
            "layout": ("rgb", "bayer", "xtrans"),
            "reference": ("scene",),
            "transfer": ("linear",),
            "primaries": ("camera",),
        },
        needs=("illuminant",),
        adds=("white_balance",),
    )
    gains: Annotated[
        tuple[Gain, Gain, Gain] | None, param("Gains for red, green and blue, instead of those of the illuminant")
    ] = None

    def needs(self) -> tuple[str, ...]:
        return () if self.gains else self.spec.needs

    def apply(self, frame: Frame) -> Frame:
        gains = self.gains or self._illuminant_gains(frame)
        before = frame.facts.white_balance or (1.0, 1.0, 1.0)
        total = (before[0] * gains[0], before[1] * gains[1], before[2] * gains[2])
        facts = replace(frame.facts.scaled(gains), white_balance=total)
        pixels = self._on_mosaic(frame, gains) if frame.state.is_mosaic else frame.pixels * _column(frame.pixels, gains)
        return replace(frame, pixels=pixels, facts=facts)

    def _illuminant_gains(self, frame: Frame) -> tuple[float, float, float]:
        light = frame.facts.illuminant
        if light is None:
            raise StageError(f"{frame.name}: {missing_fact(self.spec, 'illuminant')}")
        if not min(light) > 0:
            wrong = f"{self.spec.name} got the illuminant {light}, not positive everywhere"
            raise StageError(f"{frame.name}: {wrong}; use another illuminant.* stage, or set gains")
        return light[1] / light[0], 1.0, light[1] / light[2]

    def _on_mosaic(self, frame: Frame, gains: Sequence[float]) -> Tensor:
        """One multiplication per row of the repeating cell, by a row of gains."""
        cell = frame.camera.cfa
        if not cell or not set("".join(cell)) <= set("RGB"):
            said = "/".join(cell) or "an empty pattern"
            raise StageError(f"{frame.name}: {self.spec.name} needs a mosaic of R, G and B, not {said}; set camera.cfa")
        pixels, top = frame.pixels, frame.region.top if frame.region else 0
        result = torch.empty_like(pixels)
        for row in range(min(len(cell), frame.height)):
            colors = cell[(top + row) % len(cell)]
            period = torch.tensor([gains["RGB".index(color)] for color in colors], dtype=pixels.dtype)
            line = period.repeat(-(-frame.width // len(colors)))[: frame.width].to(pixels.device)
            torch.mul(pixels[:, row :: len(cell)], line, out=result[:, row :: len(cell)])
        return result


@parameters
class CameraMatrix(Stage):
    """White-balanced camera RGB to linear RGB by the DNG colour model; white stays (1, 1, 1).

    ``profile``, a DCP file, takes the place of what the frame's own file says of its camera: matrices, table of hues,
    and for ``color.look`` and ``tone.profile_curve`` further on, look and tone curve. With ``hue_sat_map`` the
    profile's table of hue, saturation and value is applied after the matrix, to linear ProPhoto RGB without clipping.

    The light whose white the gains of the white balance make neutral decides the temperature at which the
    calibrations of the camera are interpolated; the gains are divided out of the matrix. A camera without
    calibrations is noted, and its RGB taken as sRGB primaries.

    Channels mix, so a clipped one spoils all three: the clip level of every channel becomes the lowest of
    the three, up to which neutral colours are true. Noise becomes that of neutral colours, correlations left out.
    """

    spec: ClassVar[StageSpec] = StageSpec(
        name="color.camera_matrix",
        source="DNG 1.7.1, chapter 6: Mapping Camera Color Space to CIE XYZ Space, Applying the Hue/Saturation/Value "
        "Mapping Table",
        accepts={
            "layout": ("rgb",),
            "reference": ("scene",),
            "transfer": ("linear",),
            "primaries": ("camera",),
        },
        emits={"primaries": "bt2020"},
        needs=("white_balance",),
    )
    to: Annotated[Literal["bt2020", "bt709", "p3"], param("Target primaries")] = "bt2020"
    profile: Annotated[Path | None, param("Camera profile (.dcp) instead of that of the file")] = None
    hue_sat_map: Annotated[bool, param("Apply the profile's table of hue, saturation and value, if it has one")] = True

    def emits(self, state: ImageState) -> ImageState:
        return state.changed({"primaries": self.to})

    def apply(self, frame: Frame) -> Frame:
        gains = frame.facts.white_balance
        if gains is None:
            raise StageError(f"{frame.name}: {missing_fact(self.spec, 'white_balance')}")
        if self.profile is not None:
            frame = with_profile(frame, self.profile, self)
        camera = frame.camera
        if not camera.calibrations:
            frame = frame.with_note(f"{camera.name} has no colour matrix; its RGB is taken as sRGB primaries")
            return _mixed(frame, conversion("bt709", self.to))
        neutral = (1 / gains[0], 1 / gains[1], 1 / gains[2])
        matrix = camera_to_rgb(camera, neutral, self.to) * neutral
        table = hue_sat_map(camera, neutral) if self.hue_sat_map else None
        if table is None or is_identity(table):
            return _mixed(frame, matrix)
        rgb = transformed(frame.pixels, camera_to_rgb(camera, neutral, "prophoto") * neutral)
        mapped = hue_sat_mapped(rgb, table, camera.profile.hue_sat_encoding)
        pixels = transformed(mapped, conversion("prophoto", self.to))
        return replace(frame, pixels=pixels, facts=_mixed_facts(frame.facts, matrix))


@parameters
class Convert(Stage):
    """Linear RGB to other primaries; whites that differ are adapted by Bradford.

    Colours outside the new gamut get negative values. Clip level and noise change as in ``color.camera_matrix``.
    """

    spec: ClassVar[StageSpec] = StageSpec(
        name="color.convert",
        source="SMPTE RP 177 (matrices from primaries), ICC.1 annex E (Bradford)",
        accepts={
            "layout": ("rgb",),
            "reference": ("scene", "display"),
            "transfer": ("linear",),
            "primaries": ("bt2020", "bt709", "p3", "adobe-rgb", "prophoto", "ap1", "xyz"),
        },
        emits={"primaries": "bt709"},
    )
    to: Annotated[RgbPrimaries, param("Target primaries")] = "bt709"

    def emits(self, state: ImageState) -> ImageState:
        return state.changed({"primaries": self.to})

    def apply(self, frame: Frame) -> Frame:
        if frame.state.primaries == self.to:
            return frame
        return _mixed(frame, conversion(frame.state.primaries, self.to))


@parameters
class ToRgb(Stage):
    """Gray to RGB with three equal channels."""

    spec: ClassVar[StageSpec] = StageSpec(
        name="color.to_rgb",
        source="equal channels are neutral in every RGB space",
        accepts={"layout": ("gray",)},
        emits={"layout": "rgb"},
    )

    def apply(self, frame: Frame) -> Frame:
        return replace(frame, pixels=frame.pixels.repeat(3, 1, 1), facts=frame.facts.scaled((1.0, 1.0, 1.0)))


@parameters
class Encode(Stage):
    """Display-linear light to encoded values. Unclamped: values outside 0..1 stay outside.

    PQ and HLG place 1.0 at the diffuse white of ITU-R BT.2408: 203 cd/m2, HLG signal 0.75. Facts that
    speak of linear light (noise, clip level) end here.
    """

    spec: ClassVar[StageSpec] = StageSpec(
        name="color.encode",
        source="IEC 61966-2-1 (sRGB), SMPTE ST 2084 (PQ), ITU-R BT.2100 (HLG), ITU-R BT.2408",
        accepts={"layout": ("rgb", "gray"), "reference": ("display",), "transfer": ("linear",)},
        emits={"transfer": "srgb"},
    )
    to: Annotated[Literal["srgb", "gamma", "pq", "hlg"], param("Transfer function")] = "srgb"

    def emits(self, state: ImageState) -> ImageState:
        return state.changed({"transfer": self.to})

    def apply(self, frame: Frame) -> Frame:
        facts = replace(frame.facts, noise=None, clip_level=None)
        return replace(frame, pixels=encode(frame.pixels, self.to), facts=facts)


@parameters
class Decode(Stage):
    """Encoded values to display-linear light, by the transfer function that the state names."""

    spec: ClassVar[StageSpec] = StageSpec(
        name="color.decode",
        source="IEC 61966-2-1 (sRGB), SMPTE ST 2084 (PQ), ITU-R BT.2100 (HLG), ITU-R BT.2408",
        accepts={
            "layout": ("rgb", "gray"),
            "reference": ("display",),
            "transfer": ("srgb", "gamma", "pq", "hlg"),
        },
        emits={"transfer": "linear"},
    )

    def apply(self, frame: Frame) -> Frame:
        return frame.with_pixels(decode(frame.pixels, frame.state.transfer))


def _column(pixels: Tensor, gains: Sequence[float]) -> Tensor:
    return torch.tensor(gains, dtype=pixels.dtype, device=pixels.device)[:, None, None]


def _mixed(frame: Frame, matrix: Matrix) -> Frame:
    """The frame after a 3x3 matrix, its facts with it."""
    return replace(frame, pixels=transformed(frame.pixels, matrix), facts=_mixed_facts(frame.facts, matrix))


def _mixed_facts(facts: Facts, matrix: Matrix) -> Facts:
    """Lowest clip level; variances add with the squares of the weights, ``a`` for equal channels."""
    clip = None if facts.clip_level is None else (min(facts.clip_level),) * 3
    if len(set(facts.exposure_gain or ())) > 1:  # gains of channels that are no more
        facts = replace(facts, exposure_gain=None)
    if facts.noise is None:
        return replace(facts, clip_level=clip)
    noise = np.array(facts.noise * (3 if len(facts.noise) == 1 else 1))
    mixed = tuple((a, b) for a, b in (matrix**2 @ noise).tolist())
    return replace(facts, clip_level=clip, noise=mixed)
