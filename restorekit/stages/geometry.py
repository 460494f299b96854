"""Size and orientation of a picture: resize, crop, turn. All work on upright, whole frames."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal, Self

import pydantic
import torch
from torch import Tensor
from torch.nn import functional as F

from restorekit.errors import StageError
from restorekit.frame import Frame
from restorekit.planes import to_float
from restorekit.stage import GLOBAL, Reach, Stage, StageSpec, param, parameters
from restorekit.stages.resampling import area, lanczos, resampled
from restorekit.state import ImageState

AREA_FROM = 3.0
"""Reduction from which on ``auto`` averages areas: the sharper kernel would gain little but ringing."""

TURNED_ROWS = 256
"""Rows of a turned picture that are sampled at a time."""


def transformed(frame: Frame, color: Callable[[Tensor], Tensor], touch: Callable[[Tensor], Tensor]) -> Frame:
    """A frame with all planes resampled: colours weighted with alpha, masks set wherever they touch.

    ``color`` and ``touch`` take and give float planes; the weights of ``touch`` are not negative.
    """
    masks = {name: touch(mask.to(torch.float32)) > 0 for name, mask in frame.masks.items()}
    facts = replace(frame.facts, noise=None)
    if frame.alpha is None:
        return replace(frame, pixels=color(frame.pixels), masks=masks, facts=facts)
    alpha = to_float(frame.alpha)
    new_alpha = color(alpha).clamp_(0.0, 1.0)
    weighted = color(frame.pixels * alpha).div_(new_alpha.clamp_min(1e-3))
    pixels = torch.where(new_alpha > 1e-3, weighted, color(frame.pixels))
    return replace(frame, pixels=pixels, alpha=new_alpha, masks=masks, facts=facts)


def finite(frame: Frame, stage: Stage) -> Frame:
    """The frame with values that resampling would spread over their surroundings replaced, and a note of how many."""
    pixels, count = _replaced(frame.pixels)
    alpha, in_alpha = (None, 0) if frame.alpha is None else _replaced(to_float(frame.alpha))
    if count + in_alpha == 0:
        return frame
    return replace(frame, pixels=pixels, alpha=alpha).with_note(
        f"{stage.spec.name} replaced values that are not finite ({count + in_alpha}): "
        "NaN by 0, infinite ones by the largest or smallest finite one"
    )


def _replaced(planes: Tensor) -> tuple[Tensor, int]:
    """Planes with finite values only, and how many were replaced; the planes themselves where none was."""
    if bool(planes.sum().isfinite()):
        return planes, 0
    known = planes.isfinite()
    values = planes[known]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)
    return planes.nan_to_num(0.0, posinf=high, neginf=low), known.numel() - len(values)


PICTURE = {"layout": ("rgb", "gray"), "reference": ("scene", "display")}


@parameters
class Resize(Stage):
    """Another size in pixels, in linear light, so that fine bright detail keeps its brightness.

    Give ``long_edge``, or ``scale``, or ``width`` and ``height`` (one of them keeps the aspect ratio, both are
    taken as they are); none leaves the size. The frame is turned upright first. ``lanczos`` is antialiased and
    may overshoot at edges, ``clamp_overshoot`` limits it to the range of the input; ``area`` averages and
    never overshoots; ``auto`` takes it for reductions to a third or less. Colours are weighted with alpha. A mask is
    set where any of its pixels went in. The noise facts hold no longer and are dropped. Values that are not finite
    are replaced and noted. Sizes given in two ways are refused.
    """

    spec = StageSpec(
        name="geometry.resize",
        source="Turkowski, Filters for Common Resampling Tasks, Graphics Gems (1990)",
        accepts={**PICTURE, "transfer": ("linear",)},
    )
    width: Annotated[int | None, param("Width", unit="px", ge=1, le=100_000)] = None
    height: Annotated[int | None, param("Height", unit="px", ge=1, le=100_000)] = None
    long_edge: Annotated[int | None, param("The longer side", unit="px", ge=1, le=100_000)] = None
    scale: Annotated[float | None, param("Factor for both sides", gt=0, le=16)] = None
    enlarge: Annotated[bool, param("Enlarge smaller images too; otherwise they stay as they are")] = True
    method: Annotated[Literal["auto", "area", "lanczos"], param("How pixels are weighted")] = "auto"
    clamp_overshoot: Annotated[bool, param("Keep to the range of the input")] = False

    @pydantic.model_validator(mode="after")
    def _check_size(self) -> Self:
        given = (self.width or self.height, self.long_edge, self.scale)
        if sum(value is not None for value in given) > 1:
            raise ValueError("the size is given in two ways; keep one of long_edge, scale, or width and height")
        return self

    def reach(self) -> Reach:
        return GLOBAL

    def warnings(self, state: ImageState, before: Sequence[Stage] = ()) -> tuple[str, ...]:
        if self.width or self.height or self.long_edge or self.scale:
            return ()
        return (f"{self.spec.name} leaves the size as it is; give long_edge, scale, or width and height",)

    def apply(self, frame: Frame) -> Frame:
        frame = frame.upright()
        height, width = self._size(frame)
        if (height, width) == (frame.height, frame.width):
            return frame
        frame = finite(frame, self)
        reduction = min(frame.height / height, frame.width / width)
        use_area = self.method == "area" or (self.method == "auto" and reduction >= AREA_FROM)
        to_size = partial(resampled, height=height, width=width)
        result = transformed(
            frame, partial(to_size, kernel=area if use_area else lanczos), partial(to_size, kernel=area)
        )
        if self.clamp_overshoot:
            low, high = (extreme(frame.pixels, (1, 2), keepdim=True) for extreme in (torch.amin, torch.amax))
            result = result.with_pixels(torch.clamp(result.pixels, low, high))
        return result

    def _size(self, frame: Frame) -> tuple[int, int]:
        """Height and width of the result."""
        height, width = frame.height, frame.width
        if self.width is not None and self.height is not None:
            sides = self.height, self.width
        else:
            factor = self.scale or 1.0
            if self.long_edge is not None:
                factor = self.long_edge / max(height, width)
            elif self.width is not None:
                factor = self.width / width
            elif self.height is not None:
                factor = self.height / height
            sides = max(1, round(height * factor)), max(1, round(width * factor))
        if not self.enlarge and (sides[0] > height or sides[1] > width):
            return height, width
        return sides


@parameters
class Crop(Stage):
    """A rectangle of the upright picture.

    ``left``, ``top``, ``width`` and ``height`` name it; a size left out reaches to the edge. With ``aspect``
    the largest rectangle of that ratio inside it is taken, its middle as near to ``centre_x``, ``centre_y``
    (shares of the rectangle) as fits.

    Raises StageError when the rectangle is not inside the picture.
    """

    spec = StageSpec(name="geometry.crop", source="plain selection of rows and columns", accepts=PICTURE)
    left: Annotated[int, param("First column", unit="px", ge=0)] = 0
    top: Annotated[int, param("First row", unit="px", ge=0)] = 0
    width: Annotated[int | None, param("Width", unit="px", ge=1)] = None
    height: Annotated[int | None, param("Height", unit="px", ge=1)] = None
    aspect: Annotated[
        str,
        param("Ratio of width to height, e.g. 3:2 or 2.39:1"),
        pydantic.StringConstraints(pattern=r"^([1-9]\d*(\.\d+)?:[1-9]\d*(\.\d+)?)?$"),
    ] = ""
    centre_x: Annotated[float, param("Middle of the aspect crop, share of the width", ge=0, le=1)] = 0.5
    centre_y: Annotated[float, param("Middle of the aspect crop, share of the height", ge=0, le=1)] = 0.5

    def reach(self) -> Reach:
        return GLOBAL

    def apply(self, frame: Frame) -> Frame:
        frame = frame.upright()
        width = frame.width - self.left if self.width is None else self.width
        height = frame.height - self.top if self.height is None else self.height
        if width < 1 or height < 1 or self.left + width > frame.width or self.top + height > frame.height:
            raise StageError(
                f"{frame.name}: {self.spec.name} asks for columns {self.left}..{self.left + width} and rows "
                f"{self.top}..{self.top + height}, the picture has {frame.width}x{frame.height}; make it smaller"
            )
        left, top = self.left, self.top
        if self.aspect:
            across, down = (float(part) for part in self.aspect.split(":"))
            ratio = across / down
            fit_width = min(width, max(1, round(height * ratio)))
            fit_height = min(height, max(1, round(width / ratio)))
            left += _placed(self.centre_x, fit_width, width)
            top += _placed(self.centre_y, fit_height, height)
            width, height = fit_width, fit_height
        return frame.planes(lambda plane: plane[:, top : top + height, left : left + width].contiguous())


def _placed(centre: float, size: int, available: int) -> int:
    """Where a span starts so that its middle comes as near to ``centre`` (share of what is available) as fits."""
    return min(max(round(centre * available - size / 2), 0), available - size)


@parameters
class Rotate(Stage):
    """Mirror the upright picture, then turn it clockwise.

    Multiples of 90 degrees move pixels and change none. Other angles interpolate bicubically (in linear light
    best) and give the largest upright rectangle without empty corners, or with ``corners: fill`` the whole
    picture on a larger canvas whose corners hold ``fill`` (alpha, if any, is 0 there). Nothing is clamped, but
    values that are not finite are replaced and noted.
    """

    spec = StageSpec(
        name="geometry.rotate",
        source="Keys, Cubic Convolution Interpolation for Digital Image Processing, IEEE TASSP 29 (1981)",
        accepts=PICTURE,
    )
    degrees: Annotated[float, param("Angle, clockwise", unit="deg", ge=-360, le=360, usual=(-90, 90))] = 0.0
    flip: Annotated[Literal["none", "horizontal", "vertical"], param("Mirror left-right or top-bottom first")] = "none"
    corners: Annotated[Literal["crop", "fill"], param("What becomes of empty corners")] = "crop"
    fill: Annotated[float, param("Value of empty corners", ge=0)] = 0.0

    def reach(self) -> Reach:
        return GLOBAL

    def warnings(self, state: ImageState, before: Sequence[Stage] = ()) -> tuple[str, ...]:
        if state.transfer == "linear" or self.degrees % 90 == 0:
            return ()
        return (f"{self.spec.name} by {self.degrees:g} deg interpolates encoded values; put it before color.encode",)

    def apply(self, frame: Frame) -> Frame:
        frame = frame.upright()
        if self.flip != "none":
            axis = 2 if self.flip == "horizontal" else 1
            frame = frame.planes(lambda plane: plane.flip(axis))
        turns = round(self.degrees / 90)
        if turns % 4:
            frame = frame.planes(lambda plane: plane.rot90(-turns, (1, 2)).contiguous())
        rest = math.radians(self.degrees - 90 * turns)
        if abs(rest) < 1e-9:
            return frame
        frame = finite(frame, self)
        cropped = self.corners == "crop"
        size = (_inscribed if cropped else _bounding)(frame.height, frame.width, abs(rest))
        turn = partial(_turned, angle=rest, size=size, padding="border" if cropped else "zeros")
        result = transformed(frame, partial(turn, mode="bicubic"), partial(turn, mode="bilinear"))
        if cropped or self.fill == 0:
            return result
        coverage = turn(torch.ones_like(frame.pixels[:1]), mode="bicubic")
        return result.with_pixels(result.pixels + (1.0 - coverage).mul_(self.fill))


def _turned(planes: Tensor, *, angle: float, size: tuple[int, int], padding: str, mode: str) -> Tensor:
    """``[C,H,W]`` float planes turned clockwise about their middle, seen through a window ``size`` of theirs."""
    height, width = size
    cos, sin = math.cos(angle), math.sin(angle)
    result = planes.new_empty((planes.shape[0], height, width))
    across = torch.arange(width, device=planes.device) + (0.5 - width / 2)
    for first in range(0, height, TURNED_ROWS):
        rows = result[:, first : first + TURNED_ROWS]
        down = torch.arange(first, first + rows.shape[1], device=planes.device)[:, None] + (0.5 - height / 2)
        x, y = cos * across + sin * down, cos * down - sin * across
        grid = torch.stack((x * (2 / planes.shape[2]), y * (2 / planes.shape[1])), -1)
        rows.copy_(F.grid_sample(planes[None], grid[None], mode, padding, align_corners=False)[0])
    return result


def _inscribed(height: int, width: int, angle: float) -> tuple[int, int]:
    """Height and width of the largest upright rectangle in a rectangle turned by 0..45 degrees (in radians)."""
    cos, sin = math.cos(angle), math.sin(angle)
    short, long = sorted((height, width))
    if short <= 2 * sin * cos * long:  # two corners on the long sides, the others inside
        along, aside = short / 2 / sin, short / 2 / cos
    else:
        narrowing = cos * cos - sin * sin
        along, aside = (long * cos - short * sin) / narrowing, (short * cos - long * sin) / narrowing
    along, aside = max(1, math.floor(along + 1e-6)), max(1, math.floor(aside + 1e-6))
    return (aside, along) if width >= height else (along, aside)


def _bounding(height: int, width: int, angle: float) -> tuple[int, int]:
    """Height and width of the upright rectangle around a rectangle turned by 0..45 degrees (in radians)."""
    cos, sin = math.cos(angle), math.sin(angle)
    return math.ceil(height * cos + width * sin - 1e-6), math.ceil(width * cos + height * sin - 1e-6)
