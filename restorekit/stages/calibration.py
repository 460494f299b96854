"""Calibration frames: a dark frame subtracted, a flat field divided out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restorekit.errors import InputError, StageError
from restorekit.facts import Exposure
from restorekit.frame import Frame
from restorekit.io.dng.opcode_kinds import FixVignetteRadial, GainMap
from restorekit.io.dng.opcodes import encode, parse
from restorekit.stage import Stage, StageSpec, changed_at, param, parameters
from restorekit.stages.raw import BlackLevel, HotPixels

MIDDLE = 0.1
"""Share of height and width around the centre whose median counts as 1 in a flat field."""

DARKEST, MOST_CLIPPED = 0.02, 0.005
"""A flat field whose middle is darker, as a share of white, or of which more is clipped, is refused."""

Plane = NDArray[np.float32]

LINEAR_RAW: Mapping[str, tuple[str, ...]] = {
    "layout": ("bayer", "xtrans", "rgb"),
    "reference": ("scene",),
    "transfer": ("linear",),
    "primaries": ("camera",),
}
TEXTBOOK = "S. Howell, Handbook of CCD Astronomy, 2nd ed., chapter 4"


@parameters
class DarkFrame(Stage):
    """Subtract a dark frame: what the sensor gives without light, its glow and its warm photosites.

    Takes and gives scene-referred ``[C,H,W]``, mosaics and linear camera RGB, 1 = white level; it belongs right after
    raw.black_level. ``file`` is a RAW file of the same camera, taken with the lens cap on, best with the same
    exposure time, ISO and temperature; its own black level is subtracted first. ``scale: auto`` multiplies it by
    the ratio of the exposures (time, and ISO where both have it), for dark current grows with them. Nothing is
    clipped. Photosites in the mask ``clipped`` stay as they are, since their value is only a lower bound, and so
    ``facts.clip_level`` goes on to hold. ``facts.noise`` gets the read noise of the dark frame on top of that of
    the picture.

    Raises InputError for a file that cannot be read, is no RAW or does not fit, StageError after a white balance.
    """

    spec: ClassVar[StageSpec] = StageSpec(
        name="raw.dark_frame", source=f"dark subtraction of CCD photometry: {TEXTBOOK}", accepts=LINEAR_RAW
    )

    file: Annotated[Path, param("RAW file taken with the lens cap on")]
    scale: Annotated[Literal["none", "auto"], param("As it is, or by the ratio of the exposures")] = "none"

    def apply(self, frame: Frame) -> Frame:
        _check_unbalanced(frame, self)
        dark, exposure = _dark(self.file, changed_at(self.file, self), _full_shape(frame))
        factor = 1.0
        if self.scale == "auto":
            ratio = _ratio(frame.exposure.time_s, exposure.time_s)
            if ratio is None:
                frame = frame.with_note(f"{self.spec.name} did not scale {self.file}: exposure times are not known")
            else:
                factor = ratio * (_ratio(frame.exposure.iso, exposure.iso) or 1.0)
        pixels = torch.sub(frame.pixels, _rows(dark, frame), alpha=factor * frame.facts.scale)
        if "clipped" in frame.masks:
            pixels = torch.where(frame.masks["clipped"], frame.pixels, pixels)
        noise = frame.facts.noise
        if noise is not None:
            noise = tuple((a, b * (1 + factor * factor)) for a, b in noise)
        return replace(frame, pixels=pixels, facts=replace(frame.facts, noise=noise))


@parameters
class FlatField(Stage):
    """Divide by a flat field: vignetting, colour shading and the shadows of dust on the sensor go.

    Takes and gives scene-referred ``[C,H,W]``, mosaics and linear camera RGB; it belongs after raw.black_level, in
    place of raw.lens_shading. ``file`` is a RAW file of an evenly lit surface, by the same camera and lens at the
    same aperture and focus. Its stuck photosites are mended, each colour of it is smoothed over ``radius_px``, so that
    its noise does not get into the picture, and the median of its middle becomes 1. With ``keep_color`` every colour
    counts from its own middle, so that a tint of the light does not tint the picture; without, that light is taken
    as white, which is a white balance (``facts.white_balance``) and takes the place of color.white_balance. Gains
    are at most ``max_gain`` times those in the middle. Nothing is clipped. ``facts.clip_level`` is then the lowest
    value at which a photosite may be clipped, and the mask ``clipped`` says which ones are; ``facts.noise`` stays
    that of the middle.

    What a DNG itself brings against shading and vignetting (GainMap, FixVignetteRadial) is dropped and noted, since
    the flat field has both; after raw.lens_shading the picture would be evened out twice.

    Raises InputError for a file that cannot be read, is no RAW, does not fit, or is under- or overexposed, StageError
    after a white balance.
    """

    spec: ClassVar[StageSpec] = StageSpec(
        name="raw.flat_field",
        source=f"flat-field correction of CCD photometry: {TEXTBOOK}; each colour smoothed by normalized convolution: "
        "H. Knutsson and C.-F. Westin, CVPR 1993",
        accepts=LINEAR_RAW,
    )

    file: Annotated[Path, param("RAW file of an evenly lit surface")]
    radius_px: Annotated[int, param("Radius of the smoothing; dust needs a small one", unit="px", ge=0, le=500)] = 6
    max_gain: Annotated[float, param("Largest gain, which keeps the noise of dark corners low", ge=1, le=64)] = 8.0
    keep_color: Annotated[bool, param("A tint of the flat field's light does not tint the picture")] = True

    def apply(self, frame: Frame) -> Frame:
        _check_unbalanced(frame, self)
        cell = frame.camera.cfa if frame.state.is_mosaic else ()
        flat = _flat(self.file, changed_at(self.file, self), _full_shape(frame), cell, self)
        facts = frame.facts
        if not self.keep_color:
            facts = replace(facts.scaled(flat.balance), white_balance=flat.balance)
        if facts.clip_level is not None:
            facts = replace(facts, clip_level=tuple(value * flat.lowest for value in facts.clip_level))
        frame = _without_shading(frame, self)
        return replace(frame, pixels=frame.pixels * _rows(flat.gains, frame), facts=facts)


@dataclass(frozen=True, eq=False)
class Flat:
    """Gains ``[C,H,W]`` of a flat field.

    ``balance`` is what they do to red, green and blue in the middle, ``lowest`` the smallest of them relative to that.
    """

    gains: Tensor
    balance: tuple[float, float, float]
    lowest: float


def _without_shading(frame: Frame, stage: Stage) -> Frame:
    """The frame without the corrections of its own file that a flat field takes the place of."""
    lists = frame.camera.opcode_lists
    if not any(lists[1:]):
        return frame
    kept = [[each for each in parse(data) if not isinstance(each, GainMap | FixVignetteRadial)] for data in lists[1:]]
    second, third = (encode(operations) for operations in kept)
    if (second, third) == lists[1:]:
        return frame
    changed = replace(frame, camera=replace(frame.camera, opcode_lists=(lists[0], second, third)))
    return changed.with_note(f"{stage.spec.name} takes the place of the file's own shading maps, which are left out")


def _check_unbalanced(frame: Frame, stage: Stage) -> None:
    if frame.facts.white_balance is not None:
        raise StageError(f"{frame.name}: {stage.spec.name} works on the sensor's values; put it before white balance")


def _full_shape(frame: Frame) -> tuple[int, int, int]:
    """Channels, height and width of the whole image."""
    return len(frame.pixels), frame.region.full_height if frame.region else frame.height, frame.width


def _rows(planes: Tensor, frame: Frame) -> Tensor:
    """The rows of planes of the whole image that belong to a strip."""
    top = frame.region.top if frame.region else 0
    return planes[:, top : top + frame.height].to(frame.pixels.device)


def _ratio(value: float | None, reference: float | None) -> float | None:
    return value / reference if value and reference else None


def _light(path: Path, shape: tuple[int, int, int], what: str) -> Frame:
    """A RAW file of this shape after its black level."""
    from restorekit.io import read

    frame = read(path)
    if frame.state.reference != "sensor" or tuple(frame.pixels.shape) != shape:
        raise InputError(
            f"{path}: this {what} is {frame.width}x{frame.height} px, {frame.state.reference} {frame.state.layout}; "
            f"the frame has {shape[0]} channels of {shape[2]}x{shape[1]} px; take a RAW file of the same camera"
        )
    return BlackLevel()(frame)


@lru_cache(maxsize=2)
def _dark(path: Path, version: int, shape: tuple[int, int, int]) -> tuple[Tensor, Exposure]:
    """The light ``[C,H,W]`` of a dark frame, and how it was exposed."""
    frame = _light(path, shape, "dark frame")
    return frame.pixels, frame.exposure


@lru_cache(maxsize=2)
def _flat(path: Path, version: int, shape: tuple[int, int, int], cell: tuple[str, ...], stage: FlatField) -> Flat:
    """The gains that a flat field asks for."""
    frame = _light(path, shape, "flat field")
    if cell and frame.camera.cfa != cell:
        patterns = "/".join(frame.camera.cfa), "/".join(cell)
        raise InputError(
            f"{path}: this flat field has the pattern {patterns[0]}, the frame {patterns[1]}; use one camera"
        )
    clipped = float(frame.masks["clipped"].float().mean())
    if clipped > MOST_CLIPPED:
        raise InputError(f"{path}: this flat field is overexposed, {clipped:.1%} of it are clipped; expose it less")
    light = (HotPixels()(frame) if cell else frame).pixels.numpy()
    gains, middles = np.empty_like(light), []
    for (plane, sites), (target, _) in zip(_colors(light, cell), _colors(gains, cell), strict=True):
        even = _smoothed(plane, sites, stage.radius_px)
        middle = _middle(even, sites)
        if middle < DARKEST:
            raise InputError(f"{path}: this flat field is too dark, {middle:.1%} of white; expose it more")
        np.copyto(target, middle / np.maximum(even, middle / stage.max_gain), where=sites)
        middles.append(middle)
    lowest = min(1.0, float(gains.min()))
    balance = (1.0, 1.0, 1.0) if stage.keep_color else (middles[1] / middles[0], 1.0, middles[1] / middles[2])
    for factor, (target, sites) in zip(balance, _colors(gains, cell), strict=True):
        np.multiply(target, np.float32(factor), out=target, where=sites)
    return Flat(torch.from_numpy(gains), balance, lowest)


def _colors(planes: Plane, cell: tuple[str, ...]) -> Iterator[tuple[Plane, NDArray[np.bool_]]]:
    """Red, green and blue of ``[C,H,W]``: the plane ``[H,W]`` that holds the colour, and where in it."""
    height, width = planes.shape[1:]
    for index, color in enumerate("RGB"):
        if cell:
            period = np.array([[site == color for site in row] for row in cell])
            repeats = -(-height // period.shape[0]), -(-width // period.shape[1])
            yield planes[0], np.tile(period, repeats)[:height, :width]
        else:
            yield planes[index], np.ones((height, width), np.bool_)


def _smoothed(plane: Plane, sites: NDArray[np.bool_], radius: int) -> Plane:
    """``[H,W]`` averaged over the photosites of one colour around each place, by two boxes of half the radius."""
    weight = sites.astype(np.float32)
    sums = [plane * weight, weight]
    side = radius // 2 * 2 + 1
    for _ in range(2):
        sums = [np.asarray(cv2.blur(each, (side, side), borderType=cv2.BORDER_CONSTANT), np.float32) for each in sums]
    smooth: Plane = np.divide(sums[0], sums[1], out=np.zeros_like(sums[0]), where=sums[1] > 0)
    return smooth


def _middle(plane: Plane, sites: NDArray[np.bool_]) -> float:
    """The median of the photosites ``sites`` around the centre of ``[H,W]``."""
    rows, columns = (slice(int(size * (0.5 - MIDDLE / 2)), int(size * (0.5 + MIDDLE / 2)) + 7) for size in plane.shape)
    return float(np.median(plane[rows, columns][sites[rows, columns]]))
