"""Purple and green fringes along bright edges: axial chromatic aberration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from restorekit.frame import Frame
from restorekit.stage import Nothing, Reach, Stage, StageSpec, local, param, parameters

FLOOR = 0.02
"""Added to values before their contrast is taken, so that noise in shadows makes no edges."""

DARKER = 0.3
"""The least channel of a fringe is lower than that of what is bright near it, by this share for all of the effect; that
of a coloured light in the dark is not."""

PURPLE = (0.0, 0.3, 1.5, 3.0)
"""Excess of red over green as a share of that of blue: none of blue (hue 240 degrees), all of violet (258) to pink
(320), none of red (340)."""

GREENISH = (0.7, 1.0, 2.0, 4.0)
"""Excess of green over red as a share of that over blue: none of most leaves, all of pure greens, none of cyan."""

Extreme = Callable[[Tensor, Tensor], Tensor]


@parameters
class Defringe(Stage):
    """Takes the colour out of purple and green fringes along edges of strong contrast.

    Takes and gives white-balanced linear RGB ``[3,H,W]``. A pixel is treated when three things come together: the
    least of its channels is lower than near by, within ``radius_px``, where something white makes an edge of more than
    ``edge_ev`` stops (all of the effect one stop above); its hue is that of a fringe, violet to pink or pure
    green, not blue, red or the yellowish green of leaves; and it is more coloured than anything around it that is wider
    than ``2 radius_px`` (the top-hat of the excess of red and blue over green, or of green over both). Areas of
    such colours are thus left alone, at their borders too; lines of them along a bright edge cannot be told from
    fringes. Of purple fringes red and blue are brought to green, of green ones green to the higher of the two.
    Nothing is clamped.
    """

    spec: ClassVar[StageSpec] = StageSpec(
        name="lens.defringe",
        source="detection by edge and hue, then desaturation: B.-K. Kim and R.-H. Park, Automatic detection and "
        "correction of purple fringing using the gradient information and desaturation, EUSIPCO 2008; width by the "
        "top-hat transform: F. Meyer, 1979",
        accepts={
            "layout": ("rgb",),
            "reference": ("scene", "display"),
            "transfer": ("linear",),
            "primaries": ("bt709", "p3", "bt2020", "adobe-rgb", "prophoto", "ap1"),
        },
    )

    purple: Annotated[float, param("Share of purple fringes that is taken away", ge=0, le=1)] = 1.0
    green: Annotated[float, param("Share of green fringes that is taken away", ge=0, le=1)] = 1.0
    radius_px: Annotated[int, param("Half the width of the widest fringe", unit="px", ge=1, le=50, usual=(1, 15))] = 5
    edge_ev: Annotated[float, param("Least contrast of an edge", unit="stops", ge=0, le=10, usual=(0, 4))] = 1.0

    def reach(self) -> Reach:
        return local(2 * self.radius_px)

    def suited(self, frame: Frame) -> Stage:
        return self if self.purple or self.green else Nothing()

    def apply(self, frame: Frame) -> Frame:
        planes = red, green, blue = tuple(frame.pixels)
        edge = self._edge(frame.pixels)
        if not bool(edge.any()):
            return frame
        if self.purple:
            over_red, over_blue = red - green, blue - green
            colour = _within(over_red, over_blue, PURPLE).mul_(torch.maximum(over_red, over_blue).clamp_(min=0))
            share = self._fringe(colour, edge)
            if share is not None:
                red, blue = _lowered(red, over_red, share * self.purple), _lowered(blue, over_blue, share * self.purple)
        if self.green:
            over_red, over_blue = green - frame.pixels[0], green - frame.pixels[2]
            excess = torch.minimum(over_red, over_blue).clamp_(min=0)
            colour = _within(over_red, over_blue, GREENISH).mul_(excess)
            share = self._fringe(colour, edge)
            if share is not None:
                green = _lowered(green, excess, share * self.green)
        changed = any(a is not b for a, b in zip((red, green, blue), planes, strict=True))
        return frame.with_pixels(torch.stack((red, green, blue))) if changed else frame

    def _edge(self, pixels: Tensor) -> Tensor:
        """0..1 ``[H,W]``: whether there is a strong edge near with a bright side whiter than the pixel itself."""
        white = pixels.amin(0).nan_to_num_(0.0).clamp_(min=0).add_(FLOOR)
        bright, dark = (_extreme(white, self.radius_px, extreme) for extreme in (torch.maximum, torch.minimum))
        contrast = dark.reciprocal_().mul_(bright).log2_().sub_(self.edge_ev).clamp_(0, 1)
        return white.div_(bright).sub_(1.0).mul_(-1.0 / DARKER).clamp_(0, 1).mul_(contrast)

    def _fringe(self, colour: Tensor, edge: Tensor) -> Tensor | None:
        """The share of a colour ``[H,W]`` that belongs to narrow structures at edges; ``None`` where there is none."""
        colour = colour.nan_to_num_(0.0, posinf=0.0)
        if not bool((colour * edge).any()):
            return None
        wide = _extreme(_extreme(colour, self.radius_px, torch.minimum), self.radius_px, torch.maximum)
        return (colour - wide).div_(colour.clamp(min=1e-6)).mul_(edge)


def _lowered(plane: Tensor, excess: Tensor, share: Tensor) -> Tensor:
    """A plane less a share of its excess; where that share is 0, exactly as it was."""
    return torch.where(share > 0, plane - excess * share, plane)


def _within(part: Tensor, whole: Tensor, limits: tuple[float, float, float, float]) -> Tensor:
    """1 where ``part / whole`` lies between the inner limits, 0 outside of the outer ones, and for negative parts."""
    low, low_full, high_full, high = limits
    ratio = part / whole.clamp(min=1e-6)
    rising = ((ratio - low) * (1 / (low_full - low))).clamp_(0, 1)
    falling = ratio.sub_(high).mul_(1 / (high_full - high)).clamp_(0, 1)
    return torch.minimum(rising, falling)


def _extreme(plane: Tensor, radius: int, extreme: Extreme) -> Tensor:
    """The highest or lowest value of ``[H,W]`` in the square of 2 ``radius`` + 1 px around each; edges repeat."""
    for axis in (0, 1):
        padded = _repeated(plane, radius, axis)
        width, size = 1, plane.shape[axis]
        while width < 2 * radius + 1:  # the extreme of twice as many pixels, from two that overlap or meet
            step = min(width, 2 * radius + 1 - width)
            length = padded.shape[axis] - step
            padded = extreme(padded.narrow(axis, 0, length), padded.narrow(axis, step, length))
            width += step
        plane = padded.narrow(axis, 0, size)
    return plane


def _repeated(plane: Tensor, count: int, axis: int) -> Tensor:
    """``[H,W]`` with its first and last row or column repeated."""
    sizes = list(plane.shape)
    sizes[axis] = count
    first, last = plane.narrow(axis, 0, 1), plane.narrow(axis, plane.shape[axis] - 1, 1)
    return torch.cat((first.expand(sizes), plane, last.expand(sizes)), axis)
