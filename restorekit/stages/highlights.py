"""Clipped highlights: rebuilt from the colours that are left, or cut to white. Both without a colour cast."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from restorekit.errors import StageError
from restorekit.frame import Frame, Region
from restorekit.stage import POINTWISE, Reach, Stage, StageSpec, local, param, parameters
from restorekit.stages.demosaic import demosaic
from restorekit.stages.mosaic import cfa_at, red_parity
from restorekit.stages.raw import CLIP_MARGIN

BLOCK_PX = 6
"""Blocks in which the colour around a highlight is measured: whole cells of Bayer (2) and X-Trans (6)."""

RAMP = 0.2
"""A channel loses its say over this share of its clip level, just below it."""

PRIOR = 0.02
"""How much neutral light, as a share of the lowest clip level, joins the colour of the surround."""

REACH_PX = 18
"""Farther away nothing changes an estimate: three blocks."""

WINDOW_PX = 1536
"""Columns that are worked on together: whole blocks."""

CHUNK = 1 << 16
"""Photosites that are worked on at a time, so that they stay in the processor's cache."""


@parameters
class Highlights(Stage):
    """Replace clipped values so that blown parts of the picture come out white, not magenta.

    Takes and gives scene-referred ``[C,H,W]``, mosaics and camera RGB, before or after white balance. All
    that follows is said of balanced values, in which the light's white has three equal values and each
    channel clips at a level of its own.

    ``clip`` cuts all channels at the lowest of the three levels; ``facts.clip_level`` and the mask ``clipped`` follow.

    ``reconstruct`` replaces each clipped value by what the other two channels say: their local means, times the ratio
    of the channels in the bright unclipped surround (about 15 px), which tends to 1 where there is none. A channel
    loses weight over the last fifth below its own clip level; where none has any the larger one counts, so that
    fully blown areas are white at the highest of the three levels. Values only ever rise, by a share that grows
    from 0 with the number of clipped photosites around, so that the rim has no seam; results exceed 1.
    ``facts.clip_level`` and the mask ``clipped`` stay: they tell which values the sensor measured.
    """

    spec: ClassVar[StageSpec] = StageSpec(
        name="raw.highlights",
        source="cross-channel estimation after Zhang and Brainard, Estimation of saturated pixel values in digital "
        "color imaging, JOSA A 21(12), 2004; ratios of the surround after Masood, Zhu and Tappen, Automatic correction "
        "of saturated regions in photographs using cross-channel correlation, Computer Graphics Forum 28(7), 2009",
        accepts={
            "layout": ("bayer", "xtrans", "rgb"),
            "reference": ("scene",),
            "transfer": ("linear",),
            "primaries": ("camera",),
        },
        needs=("illuminant", "clip_level"),
    )

    method: Annotated[
        Literal["clip", "reconstruct"], param("Cut all channels at one level, or rebuild clipped ones from the others")
    ] = "reconstruct"

    def reach(self) -> Reach:
        return POINTWISE if self.method == "clip" else local(REACH_PX)

    def apply(self, frame: Frame) -> Frame:
        gains = _gains(frame).to(frame.pixels.device)
        levels = torch.tensor(frame.facts.clip_level or (1.0,)).to(gains).expand(3) * gains
        if self.method == "clip":
            return _cut(frame, levels.min() / gains)
        clipped = frame.masks.get("clipped")
        if clipped is None:
            raise StageError(f"{frame.name}: raw.highlights needs the mask 'clipped'; add raw.black_level before it")
        if not _any(clipped):
            return frame
        if len(clipped) != len(frame.pixels):  # a mosaic's mask on a demosaiced image
            clipped = frame.pixels >= (levels / gains).view(3, 1, 1) * (1 - CLIP_MARGIN)
        return frame.with_pixels(_by_windows(frame, clipped, gains, levels))


def _gains(frame: Frame) -> Tensor:
    """What balances the channels ``[3]``: nothing after white balance, 1 / illuminant before."""
    light = frame.facts.illuminant
    if frame.facts.white_balance is not None or light is None:
        return torch.ones(3)
    if not min(light) > 0:
        raise StageError(f"{frame.name}: raw.highlights got the illuminant {light}, not positive; set another one")
    return 1 / torch.tensor(light)


def _cell(frame: Frame) -> Tensor:
    """The channel of every value of the repeating cell ``[C,h,w]``, from the first row of this strip on."""
    if not frame.state.is_mosaic:
        return torch.arange(3).view(3, 1, 1)
    return torch.tensor([["RGB".index(colour) for colour in row] for row in cfa_at(frame)])[None]


def _cut(frame: Frame, limits: Tensor) -> Frame:
    """The frame with each channel cut at its limit."""
    cell, pixels = _cell(frame), frame.pixels
    period, columns = cell.shape[1:]
    across = limits[cell.repeat(1, 1, -(-frame.width // columns))[:, :, : frame.width]].to(pixels.device)
    light, clipped = torch.empty_like(pixels), torch.empty_like(pixels, dtype=torch.bool)
    for row in range(min(period, frame.height)):
        part = slice(row, None, period)
        torch.minimum(pixels[:, part], across[:, row : row + 1], out=light[:, part])
        torch.ge(pixels[:, part], across[:, row : row + 1], out=clipped[:, part])
    masks = dict(frame.masks)
    masks["clipped"] = masks["clipped"] | clipped if "clipped" in masks else clipped
    facts = replace(frame.facts, clip_level=tuple(limits.tolist()))
    return replace(frame, pixels=light, masks=masks, facts=facts)


def _any(mask: Tensor, *dims: int) -> Tensor:
    """``mask.any`` over all or some dimensions, many times faster than torch's on a CPU."""
    return mask.view(torch.uint8).amax(dims).bool()


def _by_windows(frame: Frame, clipped: Tensor, gains: Tensor, levels: Tensor) -> Tensor:
    """The rebuilt pixels; only windows around clipped ones are worked on, and no rows that the engine throws away."""
    result = frame.pixels.clone()
    here = frame.region or Region(0, frame.height)
    first = REACH_PX if here.top > 0 else 0
    last = frame.height - (REACH_PX if here.top + frame.height < here.full_height else 0)
    for left in range(0, frame.width, WINDOW_PX) if last > first else ():
        right = min(left + WINDOW_PX, frame.width)
        rows = _any(clipped[:, first:last, left:right], 0, 2).nonzero()
        if not len(rows):
            continue
        top, bottom = first + int(rows[0]), first + int(rows[-1]) + 1
        y, x = max(top - REACH_PX, 0), max(left - REACH_PX, 0)
        part = (slice(None), slice(y, bottom + REACH_PX), slice(x, right + REACH_PX))
        region = Region(here.top + y, here.full_height)
        window = replace(frame, pixels=frame.pixels[part].contiguous(), masks={}, alpha=None, region=region)
        rebuilt = _rebuilt(window, clipped[part], gains, levels)
        result[:, top:bottom, left:right] = rebuilt[:, top - y : bottom - y, left - x : right - x]
    return result


def _rebuilt(frame: Frame, clipped: Tensor, gains: Tensor, levels: Tensor) -> Tensor:
    """The pixels with the clipped values estimated from the other channels."""
    cell, pixels, width = _cell(frame), frame.pixels, frame.width
    means, share = _local_means(frame), _share_clipped(clipped, *cell.shape[1:])
    start = -(frame.region.top if frame.region else 0) % BLOCK_PX
    colour = _surround(pixels, clipped, cell, start, gains, levels)
    block_y = torch.arange(frame.height, device=pixels.device).sub_(start).div_(BLOCK_PX, rounding_mode="floor")
    block_y = block_y.clamp_(0, colour.shape[1] - 1).mul_(colour.shape[2])
    block_x = (
        torch.arange(width, device=pixels.device).div_(BLOCK_PX, rounding_mode="floor").clamp_(max=colour.shape[2] - 1)
    )
    limit, gain = levels.tolist(), gains.tolist()
    result = pixels.clone(memory_format=torch.contiguous_format)
    for plane, row, column in np.ndindex(*cell.shape):
        own = int(cell[plane, row, column])
        every = (plane, slice(row, None, cell.shape[1]), slice(column, None, cell.shape[2]))
        for chunk in torch.split(clipped[every].nonzero(), CHUNK):
            y, x = chunk[:, 0] * cell.shape[1] + row, chunk[:, 1] * cell.shape[2] + column
            block = block_y.index_select(0, y).add_(block_x.index_select(0, x))
            at = y.mul_(width).add_(x)
            said = []
            for other in {0, 1, 2} - {own}:
                mean = means[other].view(-1).index_select(0, at).mul_(gain[other])
                ratio = (colour[own] / colour[other]).view(-1).index_select(0, block)
                weight = torch.sub(limit[other], mean).mul_(1 / (RAMP * limit[other])).clamp_(0, 1)
                said.append((mean, ratio.mul_(mean), weight))
            estimate = _agreed(*said)
            measured = result[plane].view(-1).index_select(0, at)
            rise = estimate.mul_(1 / gain[own]).sub_(measured).clamp_(min=0)
            rise.mul_(share[plane].view(-1).index_select(0, at))
            result[plane].view(-1).index_copy_(0, at, measured.add_(rise))
    return result


Said = tuple[Tensor, Tensor, Tensor]
"""A channel's local mean, what it says of another channel by the ratio of the two in the surround, and its weight."""


def _agreed(first: Said, second: Said) -> Tensor:
    """What two channels say of the third: their weighted mean, the larger of the two where none has any weight.

    Not less than the plain mean, since a clipped channel says too little.
    """
    (one_mean, one, one_weight), (two_mean, two, two_weight) = first, second
    silent = (1 - one_weight).mul_(1 - two_weight)
    total = (one_weight + two_weight).clamp_(min=1e-6)
    weighted = (one * one_weight).addcmul_(two, two_weight).div_(total)
    agreed = weighted.maximum((one + two).mul_(1 / 2))
    return torch.lerp(agreed, torch.maximum(one_mean, two_mean), silent)


def _local_means(frame: Frame) -> Tensor:
    """The mean of each colour at every photosite ``[3,H,W]``, from the nearest ones."""
    if not frame.state.is_mosaic:
        return frame.pixels
    if frame.state.layout == "bayer":
        if min(frame.height, frame.width) < 2:
            raise StageError(f"{frame.name}: raw.highlights needs 2x2 px or more, this is {frame.width}x{frame.height}")
        return demosaic(frame.pixels[0], red_parity(cfa_at(frame), frame.name), "bilinear")
    cell = _cell(frame)
    colours = cell.repeat(1, -(-frame.height // cell.shape[1]), -(-frame.width // cell.shape[2]))
    member = F.one_hot(colours[0, : frame.height, : frame.width], 3).permute(2, 0, 1).to(frame.pixels)
    tent = torch.tensor([1.0, 2.0, 3.0, 2.0, 1.0]).to(frame.pixels)
    kernel = (tent[:, None] * tent).expand(3, 1, 5, 5)
    weight = F.conv2d(member, kernel, padding=2, groups=3)
    return F.conv2d(member.mul_(frame.pixels), kernel, padding=2, groups=3).div_(weight)


def _share_clipped(clipped: Tensor, *period: int) -> Tensor:
    """How many ``[C,H,W]`` of the same place in 5x5 cells around are clipped: 0 for a lonely one, 1 for all.

    Those nearby count more: it is two 3x3 means, one after the other. At its edges an image sees itself.
    """
    count = clipped.view(torch.uint8)
    for dim, step in (*enumerate(period, start=1), *enumerate(period, start=1)):
        size = count.shape[dim]
        step = min(step, size)
        before = torch.cat((count.narrow(dim, 0, step), count.narrow(dim, 0, size - step)), dim)
        after = torch.cat((count.narrow(dim, step, size - step), count.narrow(dim, size - step, step)), dim)
        count = before.add_(count).add_(after)
    return count.to(torch.float32).sub_(9).mul_(1 / 72).clamp_(min=0)


def _surround(pixels: Tensor, clipped: Tensor, cell: Tensor, start: int, gains: Tensor, levels: Tensor) -> Tensor:
    """The balanced colour of what is bright and unclipped around each block ``[3,h,w]``; only its ratios count.

    Blocks begin at row ``start``, which is the same row of the image for every strip. Of each block its first cell
    is looked at.
    """
    rows, columns = (pixels.shape[1] - start) // BLOCK_PX, pixels.shape[2] // BLOCK_PX
    if rows <= 0 or columns <= 0:
        return torch.ones(3, 1, 1, device=pixels.device)

    def first_cells(values: Tensor) -> Tensor:
        places = [values[p, start + y :: BLOCK_PX, x::BLOCK_PX] for p, y, x in np.ndindex(*cell.shape)]
        return torch.stack([place[:rows, :columns] for place in places])

    member = F.one_hot(cell.roll(-start, 1).flatten(), 3).to(pixels)
    means: Tensor = torch.tensordot(member / member.sum(0), first_cells(pixels), ([0], [0])).mul_(gains.view(3, 1, 1))
    brightness = (means / levels.view(3, 1, 1)).amax(0).clamp_(min=0)
    means.mul_(brightness.square_().masked_fill_(_any(first_cells(clipped), 0), 0))
    for _ in range(2):
        means = F.avg_pool2d(means, 3, stride=1, padding=1)
    means = means + PRIOR * levels.min()
    return means.div_(means.amax(0)).clamp_(min=0.2)
