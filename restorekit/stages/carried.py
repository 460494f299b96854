"""Estimate small, apply large: what a network does to a reduced picture, carried to the picture at its full size.

Networks that light a dark picture, or clear a haze, judge it as a whole and were trained on small ones. What they do to
a pixel hangs on its surroundings far more than on its finest detail: it is a gain that varies slowly, and jumps where
the picture has an edge. So it is estimated on a reduced picture, and upsampled with the picture as its guide (He & Sun,
Fast Guided Filter, arXiv 1505.00996, 2015), each channel guided by itself. The detail of the result is the input's, and
so is its noise, at the contrast that the network leaves them on the reduced picture.

What glass reflects is added to the picture, out of focus, and has no edge where the picture has one. It is taken off as
a difference, which is upsampled by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from restorekit.planes import to_float
from restorekit.stages.guided import linear_model
from restorekit.stages.resampling import BLOCK, area, resampled

DARK = 1 / 64
"""Added to encoded values before a ratio is taken: it stays finite in black, and noise there does not become gain."""

RADIUS = 2
"""Of the filter's windows, in px of the reduced picture."""

EDGE = 0.02
"""Contrast of the guide, as a difference of logarithms, up to which a window counts as flat."""

ROWS = 256
"""Rows of the result that are made at a time."""


def reduced_size(height: int, width: int, longest: int) -> tuple[int, int]:
    """The size at which the longer side is ``longest`` px; never larger than it was."""
    factor = min(1.0, longest / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def reduced(image: Tensor, height: int, width: int) -> Tensor:
    """``[C,H,W]`` of any storage type as float32 of another size, by means over areas; a block of rows at a time."""
    blocks = []
    for first in range(0, height, BLOCK):
        last = min(first + BLOCK, height)
        start, weights = area(image.shape[1], height, first, last)
        rows = to_float(image[:, start : start + weights.shape[1]])
        blocks.append(resampled(torch.from_numpy(weights).to(rows) @ rows, last - first, width, area))
    return torch.cat(blocks, 1)


def carried_gain(image: Tensor, small: Tensor, lit: Tensor) -> Iterator[tuple[int, Tensor]]:
    """``image`` ``[C,H,W]`` lit as ``small`` became ``lit``, both ``[C,h,w]``: ``(first row, float32 [C,rows,W])``."""
    guide = _logarithm(small)
    gain = _logarithm(lit.clamp_min(0.0)).sub_(guide)
    fits = [linear_model(*planes, RADIUS, EDGE**2) for planes in zip(guide, gain, strict=True)]
    slopes, offsets = (torch.stack(planes) for planes in zip(*fits, strict=True))
    least, most = gain.amin((1, 2), keepdim=True), gain.amax((1, 2), keepdim=True)
    height, width = image.shape[1:]
    for top in range(0, height, ROWS):
        bottom = min(top + ROWS, height)
        rows = to_float(image[:, top:bottom])
        slope, offset = (enlarged(planes, height, width, top, bottom) for planes in (slopes, offsets))
        gains = slope.mul_(_logarithm(rows)).add_(offset)
        yield top, gains.clamp_(least, most).exp_().mul_(rows + DARK).sub_(DARK)


def carried_difference(image: Tensor, small: Tensor, made: Tensor) -> Iterator[tuple[int, Tensor]]:
    """``image`` ``[C,H,W]`` and what was added to ``small`` for ``made``, ``[C,h,w]``, as :func:`carried_gain`."""
    difference = made - small
    height, width = image.shape[1:]
    for top in range(0, height, ROWS):
        bottom = min(top + ROWS, height)
        yield top, enlarged(difference, height, width, top, bottom).add_(to_float(image[:, top:bottom]))


CARRIED: Mapping[str, Callable[[Tensor, Tensor, Tensor], Iterator[tuple[int, Tensor]]]] = {
    "gain": carried_gain,
    "difference": carried_difference,
}
"""By what ``Network.carries`` says."""


def enlarged(planes: Tensor, height: int, width: int, top: int, bottom: int) -> Tensor:
    """The rows ``top..bottom`` of planes ``[C,h,w]`` at a larger size, by linear interpolation."""
    above, below, share = _neighbours(planes.shape[1], height, torch.arange(top, bottom))
    rows = torch.lerp(planes[:, above], planes[:, below], share[:, None])
    left, right, share = _neighbours(planes.shape[2], width, torch.arange(width))
    return torch.lerp(rows[:, :, left], rows[:, :, right], share)


def _neighbours(source: int, target: int, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The two source px beside each target px, and how far it lies from the first to the second."""
    places = ((positions.float() + 0.5) * (source / target) - 0.5).clamp_(0.0, source - 1.0)
    first = places.long()
    return first, (first + 1).clamp_max_(source - 1), places - first


def _logarithm(values: Tensor) -> Tensor:
    return values.add(DARK).log_()
