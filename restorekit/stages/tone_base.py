"""The frame of local tone mapping: a gain in stops, computed at a working size, brought to full size along edges."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from restorekit.frame import Frame
from restorekit.planes import strip_rows
from restorekit.stage import GLOBAL, Reach, Stage
from restorekit.stages.guided import linear_model
from restorekit.stages.tone_luminance import light, positive_luminance, quantile, range_of, recoloured, shouldered
from restorekit.strips import side_by_side

WORKING_PIXELS = 1_500_000
"""Gains are computed on at most about this many pixels; larger images are averaged over blocks for it."""

FIT_RADIUS_PX = 3
"""Half the window, at the working size, in which a gain is modelled as linear in log luminance."""

FIT_EPSILON = 1e-3
"""Variance in square stops below which there is no edge for the gain to follow."""

BRIGHT_SHARE, HEADROOM_EV = 0.99, 3.5
"""Exposure leaves this share of the picture within so many stops above the key."""

WHITE_SHARE = 0.999
"""Of the picture, that stays below white."""

KNEE = 0.4
"""Display value above which highlights are bent to fit."""


class LocalOperator(Stage):
    """Base of operators that compress log luminance by a gain that varies over the picture.

    Subclasses give ``gain``: stops to add to a plane of stops of luminance relative to the mean. What is darker than
    night gets the gain of night, so that it stays dark. The mean of what that gives is exposed
    to ``key`` (darker where over a hundredth of the picture would be far brighter), highlights are bent to fit below
    white, and RGB follows luminance. The result depends on neither the scale of the values nor, but for
    texture of single pixels, the size of the image.
    """

    key: float
    saturation: float

    def reach(self) -> Reach:
        return GLOBAL

    def gain(self, stops: Tensor) -> Tensor:
        """Stops to add, ``[h,w]``, for stops of luminance relative to the mean ``[h,w]``."""
        raise NotImplementedError

    def apply(self, frame: Frame) -> Frame:
        factor = block_size(frame)
        stops = block_luminance(frame, factor).log2_()
        found = range_of(stops)
        floor = found.night - found.mean
        stops.sub_(found.mean).clamp_min_(floor)
        gain = self.gain(stops)
        mapped = stops + gain
        level = max(float(mapped.double().mean()), quantile(mapped, BRIGHT_SHARE) - HEADROOM_EV)
        gain.add_(math.log2(self.key) - level)
        white = self.key * 2.0 ** (quantile(mapped, WHITE_SHARE) - level)
        upsampler = Upsampler(stops, gain, factor)
        result = torch.empty_like(frame.pixels)

        def render(top: int, bottom: int) -> None:
            clean = light(frame.pixels[:, top:bottom])
            y = positive_luminance(clean, frame.state.primaries)
            here = y.log2().sub_(found.mean)
            target = upsampler.rows(here[0].clamp_min(floor), top).add_(here[0]).exp2_()[None]
            target = shouldered(target, KNEE, white)
            result[:, top:bottom] = recoloured(clean, y, target, saturation=self.saturation)

        side_by_side(render, strips(frame, factor))
        return frame.with_pixels(result)


def block_size(frame: Frame) -> int:
    """The side, in px, of the blocks that bring an image to the working size."""
    return math.ceil(math.sqrt(frame.height * frame.width / WORKING_PIXELS))


def strips(frame: Frame, factor: int) -> list[tuple[int, int]]:
    """Rows ``(top, bottom)`` of strips of whole blocks."""
    step = -(-strip_rows(frame.width) // factor) * factor
    return [(top, min(top + step, frame.height)) for top in range(0, frame.height, step)]


def block_luminance(frame: Frame, factor: int) -> Tensor:
    """``[h,w]`` mean luminance of blocks of ``factor`` px, above 0; the last ones may be smaller."""
    result = frame.pixels.new_empty((-(-frame.height // factor), -(-frame.width // factor)))

    def average(top: int, bottom: int) -> None:
        y = positive_luminance(light(frame.pixels[:, top:bottom]), frame.state.primaries)
        blocks = F.avg_pool2d(y, factor, ceil_mode=True) if factor > 1 else y
        result[top // factor : top // factor + blocks.shape[1]] = blocks[0]

    side_by_side(average, strips(frame, factor))
    return result


class Upsampler:
    """A gain ``[h,w]`` known for blocks of ``factor`` px, as a function of full-size rows of the guide.

    In windows of blocks the gain is a linear function of the guide; slope and offset are interpolated between
    blocks, so that the gain follows edges at full size (Chen et al., Bilateral Guided Upsampling, SIGGRAPH Asia 2016;
    He & Sun, Fast Guided Filter, 2015). ``factor`` 1 gives the gain as it is.
    """

    def __init__(self, guide: Tensor, gain: Tensor, factor: int) -> None:
        self._factor = factor
        self._planes = gain[None] if factor == 1 else torch.stack(linear_model(guide, gain, FIT_RADIUS_PX, FIT_EPSILON))

    def rows(self, guide: Tensor, top: int) -> Tensor:
        """The gain ``[n,W]`` for rows of the guide ``[n,W]`` from ``top``, a multiple of the factor; a new tensor."""
        rows, width = guide.shape
        if self._factor == 1:
            return self._planes[0, top : top + rows].clone()
        first, count = top // self._factor, -(-rows // self._factor)
        index = torch.arange(first - 1, first + count + 1, device=guide.device).clamp_(0, self._planes.shape[1] - 1)
        wide = F.interpolate(self._planes[:, index][None], scale_factor=float(self._factor), mode="bilinear")[0]
        slope, offset = wide[:, self._factor : self._factor + rows, :width].unbind()
        return torch.addcmul(offset, slope, guide)


def inner_range(plane: Tensor) -> float:
    """The range of a plane but for its outermost hundredths."""
    return quantile(plane, 0.99) - quantile(plane, 0.01)


def compression(plane: Tensor, range_ev: float) -> float:
    """The factor, at most 1, that brings the inner range of a plane of stops to ``range_ev``."""
    return min(1.0, range_ev / max(inner_range(plane), 1e-3))
