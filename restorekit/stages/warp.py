"""Geometry of lens corrections: where in the picture as taken each corrected pixel lies, and what light is there."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

TILE = 256
"""Side of the squares that are computed at a time, in px; their planes stay in the processor's cache."""

GREEN = 1
"""The plane whose distortion counts as that of the picture; the others differ from it by lateral colour."""

REACH = 8
"""How far the filter that makes spline coefficients looks, in px: its weights beyond are below 3e-5."""

LEAST_LIGHT = 1 / 16
"""Where a table says that less than this share of the light arrived, gains stop to grow: it was not measured there."""

POLE = math.sqrt(3.0) - 2.0
"""The recursive filter of the cubic B-spline: each coefficient further away weighs less by this factor."""

STEPS_BACK = 8
"""Steps of the fixed-point iteration that undoes a distortion; each divides the error by 5 or more."""


@dataclass(frozen=True)
class Distortion:
    """Where one colour lies: ``offset * factor(r)`` from the centre, and tangential terms, in units of the Warp.

    ``radial`` are the coefficients of ``factor``, a polynomial of the radius, lowest order first; ``tangential`` are
    kt0 and kt1 of the DNG specification. Outside of ``radii`` the factor does not change. ``reciprocal``: the
    polynomial divides. ``fisheye``: it is one of the angle ``atan(r)``, and the radius is its product with the angle.
    """

    radial: tuple[float, ...]
    tangential: tuple[float, float] = (0.0, 0.0)
    radii: tuple[float, float] = (0.0, math.inf)
    reciprocal: bool = False
    fisheye: bool = False

    @property
    def is_identity(self) -> bool:
        changes = self.fisheye or any(self.tangential) or any(self.radial[1:])
        return not changes and self.radial[0] == 1.0

    def excess(self, squared: Tensor) -> Tensor:
        """``factor - 1`` at squared radii; the input is overwritten."""
        low, high = self.radii
        if low > 0 or high < math.inf:
            squared.clamp_(low * low, high * high)
        if self.fisheye:
            radius = squared.sqrt_().clamp_min_(1e-6)
            angle = radius.atan()
            return _polynomial(self.radial, angle).mul_(angle).div_(radius).sub_(1.0)
        if self.reciprocal:
            return _polynomial(self.radial, squared.sqrt_()).reciprocal_().sub_(1.0)
        rest = (self.radial[0] - 1.0, *self.radial[1:])
        even = not any(rest[1::2])
        return _polynomial(rest[::2], squared) if even else _polynomial(rest, squared.sqrt_())


def _polynomial(coefficients: Sequence[float], x: Tensor) -> Tensor:
    *lower, highest = coefficients
    if not lower:
        return torch.full_like(x, highest)
    value = x * highest
    for coefficient in reversed(lower[1:]):
        value.add_(coefficient).mul_(x)
    return value.add_(lower[0])


@dataclass(frozen=True)
class Warp:
    """Distortions of red, green and blue, or one for all, about a centre (x, y in px) with radii in ``unit_px``."""

    center: tuple[float, float]
    unit_px: float
    planes: tuple[Distortion, ...]

    def source(self, plane: int, x: Tensor, y: Tensor, origin: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Where the picture as taken shows what belongs at ``x``, ``y``; px counted from ``origin`` (x, y)."""
        distortion = self.planes[min(plane, len(self.planes) - 1)]
        if distortion.is_identity:
            return x, y
        u = (x + (origin[0] - self.center[0])).mul_(1.0 / self.unit_px)
        v = (y + (origin[1] - self.center[1])).mul_(1.0 / self.unit_px)
        squared = u.square() + v.square()
        radial = squared.clone() if any(distortion.tangential) else squared
        excess = distortion.excess(radial).mul_(self.unit_px)
        dx, dy = excess * u, excess * v
        if any(distortion.tangential):
            kt0, kt1 = (term * self.unit_px for term in distortion.tangential)
            twice = 2.0 * u * v
            dx.add_(twice, alpha=kt0).add_(squared + 2.0 * u.square(), alpha=kt1)
            dy.add_(twice, alpha=kt1).add_(squared + 2.0 * v.square(), alpha=kt0)
        return dx.add_(x), dy.add_(y)


@dataclass(frozen=True)
class Falloff:
    """The share of light that arrives away from a centre (x, y in px).

    A polynomial of the squared radius, which is counted in ``unit_px``; lowest order first.
    """

    center: tuple[float, float]
    unit_px: float
    share: tuple[float, ...]

    def gain(self, top: int, left: int, like: Tensor) -> Tensor:
        """The gains for pixels ``[..., h, w]`` of which the first one lies at ``top``, ``left``."""
        height, width = like.shape[-2:]
        x = _axis(width, left - self.center[0], like).mul_(1.0 / self.unit_px).square_()
        y = _axis(height, top - self.center[1], like).mul_(1.0 / self.unit_px).square_()
        return self._gains(x + y[:, None])

    def lowest_gain(self, height: int, width: int) -> float:
        """The smallest gain in a picture."""
        across, down = (max(at, size - 1 - at) for at, size in zip(self.center, (width, height), strict=True))
        farthest = math.hypot(across, down) / self.unit_px
        return float(self._gains(torch.linspace(0.0, farthest, 257).square_()).min())

    def _gains(self, squared: Tensor) -> Tensor:
        return _polynomial(self.share, squared).clamp_min_(LEAST_LIGHT).reciprocal_()


def _axis(size: int, start: float, like: Tensor) -> Tensor:
    return torch.arange(size, dtype=torch.float32, device=like.device).add_(start)


@dataclass(frozen=True)
class Lookup:
    """Warps one after the other, as a file lists them, and what lies where in the picture before them all.

    ``lateral_only`` takes the colours to where green is and leaves the distortion of green as it was.
    """

    warps: tuple[Warp, ...] = ()
    lateral_only: bool = False

    def groups(self, channels: int) -> Iterator[tuple[slice, int]]:
        """Channels that lie alike, and the plane that says where; a single channel goes with green."""
        if channels == 1 or all(len(set(warp.planes)) == 1 for warp in self.warps):
            yield slice(0, channels), GREEN
        else:
            yield from ((slice(plane, plane + 1), plane) for plane in range(channels))

    def moves(self, plane: int) -> bool:
        """Whether anything of a colour plane lies elsewhere."""
        if self.lateral_only and plane == GREEN:
            return False
        return any(not warp.planes[min(plane, len(warp.planes) - 1)].is_identity for warp in self.warps)

    def source(self, plane: int, x: Tensor, y: Tensor, origin: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """As ``Warp.source``, through all warps."""
        if self.lateral_only:
            start_x, start_y = x, y
            for _ in range(STEPS_BACK):
                seen_x, seen_y = self._through(GREEN, x, y, origin)
                x, y = x + start_x - seen_x, y + start_y - seen_y
        return self._through(plane, x, y, origin)

    def _through(self, plane: int, x: Tensor, y: Tensor, origin: tuple[int, int]) -> tuple[Tensor, Tensor]:
        for warp in reversed(self.warps):
            x, y = warp.source(plane, x, y, origin)
        return x, y


def green_only(warp: Warp) -> Warp:
    """A warp that moves all colours as green."""
    return replace(warp, planes=(warp.planes[min(GREEN, len(warp.planes) - 1)],))


Sampler = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``(window [C,h,w], x, y [h',w'])``: the values ``[C,h',w']`` at places of a window, px from its first pixel."""


def corrected(planes: Tensor, lookup: Lookup, falloffs: Sequence[Falloff] = ()) -> Tensor:
    """``[C,H,W]`` float planes, evened out by ``falloffs`` and then warped, cubic B-splines between pixels.

    The spline goes through the pixels (Unser, Splines: a perfect fit for signal and image processing, IEEE Signal
    Processing Magazine 16, 1999). Places outside take the nearest pixel of the edge. Tile by tile: no map of
    coordinates exists for the whole picture.
    """
    return _tiled(planes, lookup, falloffs, _splined, REACH + 1)


def touched(mask: Tensor, lookup: Lookup) -> Tensor:
    """``[C,H,W]`` bool: set where one of the four pixels around is; a single plane takes what any colour sees."""
    if not bool(mask.any()):
        return mask
    if mask.shape[0] == 1 and len(list(lookup.groups(3))) > 1:
        return touched(mask.expand(3, -1, -1), lookup).any(0, keepdim=True)
    return _tiled(mask, lookup, (), _linear, 1) > 0


def _tiled(planes: Tensor, lookup: Lookup, falloffs: Sequence[Falloff], sampler: Sampler, margin: int) -> Tensor:
    _, height, width = planes.shape
    result = torch.empty(planes.shape, dtype=torch.float32, device=planes.device)
    for top, left in product(range(0, height, TILE), range(0, width, TILE)):
        tile = result[:, top : top + TILE, left : left + TILE]
        for channels, plane in lookup.groups(len(planes)):
            target = tile[channels]
            if lookup.moves(plane):
                x = _axis(target.shape[2], 0, target)[None]
                y = _axis(target.shape[1], 0, target)[:, None]
                x, y = lookup.source(plane, x, y, (left, top))
                x, first_x, last_x = _within(x, left, width)
                y, first_y, last_y = _within(y, top, height)
                first_x, first_y = first_x - margin, first_y - margin
                window = _window(planes[channels], first_y, last_y + margin, first_x, last_x + margin)
                window = _lit(window, falloffs, first_y, first_x)
                target.copy_(sampler(window, x.sub_(first_x - left), y.sub_(first_y - top)))
            else:
                target.copy_(_lit(planes[channels, top : top + TILE, left : left + TILE], falloffs, top, left))
    return result


def _within(places: Tensor, start: int, size: int) -> tuple[Tensor, int, int]:
    """Places kept inside the picture, as px from ``start``; the first pixel they need and one past the last."""
    places = places.nan_to_num(0.0).clamp_(-start, size - 1 - start)
    low, high = torch.aminmax(places)
    return places, math.floor(float(low)) + start, math.floor(float(high)) + start + 2


def _window(planes: Tensor, top: int, bottom: int, left: int, right: int) -> Tensor:
    """Rows ``top..bottom`` and columns ``left..right`` of ``[C,H,W]``, mirrored at the pixels of its edges."""
    _, height, width = planes.shape
    if top >= 0 and left >= 0 and bottom <= height and right <= width:
        return planes[:, top:bottom, left:right].to(torch.float32)
    rows, columns = (_mirrored(*span).to(planes.device) for span in ((top, bottom, height), (left, right, width)))
    first = int(columns.min())
    near = planes[:, :, first : int(columns.max()) + 1]
    return near[:, rows][:, :, columns - first].to(torch.float32)


def _mirrored(first: int, last: int, size: int) -> Tensor:
    """Positions ``first..last`` of an axis of ``size`` pixels, outside mirrored about its first and last one."""
    period = max(2 * (size - 1), 1)
    at = torch.arange(first, last).remainder_(period)
    return torch.minimum(at, period - at) if size > 1 else at


def _lit(window: Tensor, falloffs: Sequence[Falloff], top: int, left: int) -> Tensor:
    for falloff in falloffs:
        window = window * falloff.gain(top, left, window)
    return window


def _splined(window: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """A Sampler: the interpolating cubic B-spline; ``REACH`` + 1 px of the window lie around all places.

    The 16 coefficients around a place are weighted by four bilinear look-ups (C. Sigg and M. Hadwiger, Fast
    Third-Order Texture Filtering, GPU Gems 2, 2005).
    """
    coefficients = _coefficients(_coefficients(window, 1), 2)
    height, width = coefficients.shape[1:]
    left, right, right_share = _pairs(x - REACH)
    upper, lower, lower_share = _pairs(y - REACH)
    for position, size in ((left, width), (right, width), (upper, height), (lower, height)):
        position.mul_(2.0 / (size - 1)).sub_(1.0)
    grid = window.new_empty((4, 2, *x.shape))
    grid[0::2, 0], grid[1::2, 0], grid[:2, 1], grid[2:, 1] = left, right, upper, lower
    grid = grid.permute(0, 2, 3, 1)
    seen = F.grid_sample(coefficients.expand(4, -1, -1, -1), grid, "bilinear", "border", align_corners=True)
    above = torch.lerp(seen[0], seen[1], right_share)
    return above.lerp_(torch.lerp(seen[2], seen[3], right_share), lower_share)


def _pairs(at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of the four coefficients around places on an axis: where two look-ups find the first pair and the second pair,
    each weighted among themselves, and the share of the second."""
    base = at.floor()
    t = at - base
    squared = t.square()
    cubed = squared * t
    second = (t + squared).mul_(3.0).add_(1.0).sub_(cubed, alpha=2.0)  # six times the weights of the second pair
    first = base - (1.0 - t).pow_(3).div_(6.0 - second)
    return first, base.add_(1.0).add_(cubed.div_(second)), second.mul_(1.0 / 6.0)


def _coefficients(planes: Tensor, axis: int) -> Tensor:
    """Coefficients of the B-spline through values along an axis, ``REACH`` fewer at each end."""
    weights = [POLE**n for n in range(REACH + 1)]
    total = weights[0] + 2 * sum(weights[1:])
    size = planes.shape[axis] - 2 * REACH
    result = planes.narrow(axis, REACH, size) * (weights[0] / total)
    for n in range(1, REACH + 1):
        pair = planes.narrow(axis, REACH - n, size) + planes.narrow(axis, REACH + n, size)
        result.add_(pair, alpha=weights[n] / total)
    return result


def _linear(window: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """A Sampler: between the four pixels around."""
    height, width = window.shape[1:]
    grid = torch.stack((x * (2.0 / (width - 1)) - 1.0, y * (2.0 / (height - 1)) - 1.0), -1)
    return F.grid_sample(window[None], grid[None], "bilinear", "border", align_corners=True)[0]
