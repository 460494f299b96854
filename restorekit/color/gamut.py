"""Bringing colours into a smaller gamut.

A colour is outside a gamut for one of two reasons. It is too saturated: a component of its RGB is negative,
however bright it is. Or it is too bright: a component is above the peak. The functions here treat the two apart,
the first by cutting chroma (:func:`desaturated`) or as ACES does (:func:`compressed`), the second by :func:`dimmed`;
:func:`into_gamut` puts them together. Tensors are ``[3,...]`` linear RGB, float32 or float64, on any device.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from restorekit.color.oklab import ROOTS_TO_LAB, cube_root, lms_to_rgb, rgb_to_lms
from restorekit.color.primaries import conversion, transformed
from restorekit.state import Primaries

Method = Literal["oklch", "aces"]
Triple = tuple[float, float, float]

TOLERANCE = 1e-6
"""What a component may be outside by rounding alone; such colours are clipped."""

LEAST_CONE_RESPONSE = 0.02
"""The least cone response to a light as a share of the largest. Within Rec.2020 it is 0.033."""

FADE_STOPS = 2.0
"""How far above the peak colours keep their lightness rather than their saturation."""

ACES_THRESHOLDS: Triple = (0.815, 0.803, 0.880)
ACES_LIMITS: Triple = (1.147, 1.264, 1.312)
ACES_POWER = 1.2
"""The parameters of the ACES 1.3 Reference Gamut Compression, for cyan, magenta and yellow in AP1."""

Cubics = tuple[Tensor, Tensor, Tensor, Tensor]
"""Coefficients of a polynomial in t, the constant ``[N]`` first, the others ``[3,N]``."""

_BRIGHTEST = 1e6
_HALVINGS = 17
"""Of a share of 0..1: it is found within 8e-6, half a step of 16 bits."""


def into_gamut(
    linear: Tensor,
    primaries: Primaries,
    *,
    peak: float | None = 1.0,
    method: Method = "oklch",
    knee: float = 0.0,
    limits: Triple = ACES_LIMITS,
) -> Tensor:
    """Linear RGB ``[3,...]``, unclamped, with every component brought to 0..``peak``.

    ``primaries`` are those of ``linear`` and of the gamut. ``oklch`` is :func:`desaturated` with its ``knee``;
    ``aces`` is :func:`compressed` with its ``limits``, and what is beyond them clipped at 0. Then comes
    :func:`dimmed`, unless ``peak`` is ``None``: scene-referred light has no brightest value.

    Where nothing is changed, the result is ``linear`` itself. NaN stays NaN.

    Raises ValueError for primaries ``camera`` or a knee outside 0..1.
    """
    if method == "aces":
        inside = compressed(linear, limits)
        inside = inside.clamp_min(0.0) if _below(inside, 0.0) else inside
    else:
        inside = desaturated(linear, primaries, knee=knee)
    return inside if peak is None else dimmed(inside, primaries, peak)


def desaturated(linear: Tensor, primaries: Primaries, *, knee: float = 0.0) -> Tensor:
    """Linear RGB ``[3,...]`` without negative components: chroma is cut to the edge of the gamut.

    Lightness of Oklab stays. So does its hue, within 3 degrees from Rec.2020 to sRGB; from cyan to blue it turns by up
    to 14, as in Munsell's. The edge is that of the cone which the primaries span, without an upper end, so twice
    the light gives twice the result. Colours without a negative component come back bit for bit; those beyond the
    edge lie on it afterwards, and what differed along the way there alone differs no more. A ``knee`` (below 1) keeps
    such colours apart: what is farther than ``1 - knee`` of the edge from gray is compressed by ``x / (1 + x)``,
    which moves colours inside too, and every pixel must be looked at.

    The way goes towards gray, straight in cone responses to the power of 2/3. In Oklab, which has them to the power
    of 1/3, the lines of constant hue near blue leave a gamut, come back and leave it for good, so neighbours would
    end far apart. In light itself, the power of 1, no line does that, but hues turn more. Midway between, every
    line from gray to the edge of a gamut is inside it, so the result is continuous.

    Cone responses below 2 % of a colour's largest are raised to that. Nothing in Rec.2020 has lower ones, but
    what cameras make of blue lamps does, which would have no hue or no lightness. What has no light at all is black.

    Source: Ottosson, sRGB gamut clipping (2021): chroma reduced at constant lightness.

    Raises ValueError for primaries ``camera`` or a knee outside 0..1.
    """
    if not 0 <= knee < 1:
        raise ValueError(f"knee is {knee}, must be 0 or more and below 1")
    if knee == 0 and not _below(linear, 0.0):
        return linear
    flat = linear.reshape(3, -1)
    if knee == 0:
        chosen, result = flat.amin(0) < -TOLERANCE, flat.clamp_min(0.0)
    else:
        chosen, result = _beyond_core(flat, primaries, knee), flat.clone()
    return _replaced(result, flat, chosen, lambda colors: _at_edge(colors, primaries, knee)).reshape(linear.shape)


def dimmed(linear: Tensor, primaries: Primaries, peak: float = 1.0) -> Tensor:
    """Linear RGB ``[3,...]``, not negative, with no component above ``peak``: colours too bright keep their Oklab hue.

    A colour just above the peak gets darker and keeps its saturation. The farther it is above, the more it keeps
    of its lightness instead, and two stops above it keeps all it can: it fades, up to white. In the plane of
    lightness and chroma it moves straight towards the gray of ``log2(largest / peak) / 2`` (0..1) of its lightness.
    Colours not above the peak come back bit for bit.

    Raises ValueError for primaries ``camera``.
    """
    if not _above(linear, peak):
        return linear
    flat = linear.reshape(3, -1)
    chosen, result = flat.amax(0) > peak * (1 + TOLERANCE), flat.clamp_max(peak)
    return _replaced(result, flat, chosen, lambda colors: _under_peak(colors, primaries, peak)).reshape(linear.shape)


def compressed(
    linear: Tensor, limits: Triple = ACES_LIMITS, thresholds: Triple = ACES_THRESHOLDS, power: float = ACES_POWER
) -> Tensor:
    """Linear RGB ``[3,...]`` with the distances of its components from the largest one compressed.

    The distance ``(largest - component) / |largest|`` is 0 for neutrals and 1 on the edge of the gamut.
    Distances of red, green and blue up to ``thresholds`` are left alone; above, a curve that starts with slope 1
    takes ``limits`` to 1. A limit of 1 or less leaves its component alone. Distances beyond the limits stay above
    1, their components negative.

    Source: ACES 1.3 Reference Gamut Compression (Academy LMT ReferenceGamutCompress a1.3.0), whose parameters for
    AP1 are the defaults. It protects the colours of the ColorChecker and brings those of cinema cameras to AP1.
    """
    if linear.numel() == 0:
        return linear
    flat = linear.reshape(3, -1)
    largest = flat.amax(0)
    size = largest.abs()
    result = flat
    for component, (threshold, limit) in enumerate(zip(thresholds, limits, strict=True)):
        if limit <= 1 + TOLERANCE:
            continue
        chosen = (largest - flat[component] > size * threshold).nonzero().squeeze(1)
        if chosen.numel() == 0:
            continue
        result = flat.clone() if result is flat else result
        peak, scale = largest[chosen], size[chosen].clamp_min_(torch.finfo(flat.dtype).tiny)
        beyond = (peak - flat[component][chosen]).div_(scale).sub_(threshold)
        result[component][chosen] = peak - _aces_curve(beyond, threshold, limit, power).mul_(scale)
    return linear if result is flat else result.reshape(linear.shape)


@lru_cache
def aces_limits(source: Primaries, target: Primaries) -> Triple:
    """Limits for :func:`compressed` that bring the whole gamut of ``source`` into that of ``target``.

    For red, green and blue: the largest distance from the achromatic that a colour of ``source`` has in ``target``.
    At most 1 where ``source`` does not reach beyond.

    Raises ValueError for ``camera``.
    """
    corners = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1], [1, 0, 0]], np.float64)
    steps = np.linspace(0, 1, 257)[:, None]
    hull = np.concatenate([start + (stop - start) * steps for start, stop in pairwise(corners)])
    rgb = hull @ conversion(source, target).T
    red, green, blue = (1 - rgb / rgb.max(axis=1, keepdims=True)).max(axis=0).tolist()
    return red, green, blue


def _aces_curve(beyond: Tensor, threshold: float, limit: float, power: float) -> Tensor:
    """The compressed distance for a distance ``beyond`` the threshold (>= 0), in place."""
    room = limit - threshold
    scale = room / (((1 - threshold) / room) ** -power - 1) ** (1 / power)
    beyond.mul_(1 / scale)
    return beyond.div_((beyond**power).add_(1.0).pow_(1 / power)).mul_(scale).add_(threshold)


def _below(values: Tensor, bound: float) -> bool:
    """Whether any value is below, or a NaN hides that."""
    return values.numel() > 0 and not float(values.amin()) >= bound


def _above(values: Tensor, bound: float) -> bool:
    """Whether any value is above, or a NaN hides that."""
    return values.numel() > 0 and not float(values.amax()) <= bound


def _replaced(result: Tensor, flat: Tensor, chosen: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """``result`` ``[3,N]``, in place, with the ``chosen`` ``[N]`` colours of ``flat`` changed."""
    index = chosen.nonzero().squeeze(1)
    if index.numel():
        result[:, index] = change(flat[:, index].clamp_(-_BRIGHTEST, _BRIGHTEST))
    return result


def _cone_roots(colors: Tensor, primaries: Primaries) -> tuple[Tensor, Tensor]:
    """Cube roots of the cone responses ``[3,N]``, lifted to what a light can have, and their lightness ``[N]``."""
    lms = transformed(colors, rgb_to_lms(primaries)).clamp_min_(0.0)
    roots = cube_root(torch.maximum(lms, lms.amax(0) * LEAST_CONE_RESPONSE))
    return roots, _lightness(roots)


def _lightness(roots: Tensor) -> Tensor:
    """Oklab L ``[N]`` of cube roots of cone responses ``[3,N]``."""
    red, green, blue = ROOTS_TO_LAB[0].tolist()
    lightness: Tensor = (roots[0] * red).add_(roots[1], alpha=green).add_(roots[2], alpha=blue)
    return lightness


def _at_edge(colors: Tensor, primaries: Primaries, knee: float) -> Tensor:
    """Colours ``[3,N]`` at the edge, or compressed towards it, at their lightness."""
    roots, lightness = _cone_roots(colors, primaries)
    core, gray = 1 - knee, lightness.square()
    way = roots.square_().sub_(gray)
    stretched = way / core
    share = _positive_share(gray, lambda tried: _from_squares(torch.addcmul(gray, stretched, tried), primaries))
    if knee:
        beyond = (core / share - core).div_(knee)
        share = (beyond / (1 + beyond)).mul_(knee).add_(core).mul_(share).div_(core)
    squares = way.mul_(share).add_(gray)
    relit = lightness.div_(_lightness(squares.sqrt()).clamp_min_(torch.finfo(gray.dtype).tiny))
    return _from_squares(squares.mul_(relit.square_()), primaries).clamp_min_(0.0)


def _beyond_core(colors: Tensor, primaries: Primaries, knee: float) -> Tensor:
    """Which colours ``[3,N]`` are nearer to the edge than the knee leaves alone, or have no hue."""
    roots, lightness = _cone_roots(colors.clamp(-_BRIGHTEST, _BRIGHTEST), primaries)
    gray = lightness.square_()
    stretched = _from_squares(roots.square_().sub_(gray).div_(1 - knee).add_(gray), primaries)
    return (stretched.amin(0) < -TOLERANCE * colors.amax(0)) | (colors.amin(0) < 0)


def _under_peak(colors: Tensor, primaries: Primaries, peak: float) -> Tensor:
    """Colours ``[3,N]`` that are too bright, dimmed and faded."""
    roots, lightness = _cone_roots(colors, primaries)
    faded = colors.amax(0).div_(peak).log2_().mul_(1 / FADE_STOPS).clamp_max_(1.0)
    gray = faded.mul_(lightness).clamp_max_(peak ** (1 / 3))
    way = roots.sub_(gray)
    constant, first, second, third = (term.neg_() for term in _cubics(gray, way, primaries))
    constant += peak
    share = _positive_share(
        gray, lambda tried: torch.addcmul(second, third, tried).mul_(tried).add_(first).mul_(tried).add_(constant)
    )
    return _from_roots(way.mul_(share).add_(gray), primaries).clamp_(0.0, peak)


def _from_roots(roots: Tensor, primaries: Primaries) -> Tensor:
    return transformed(roots.square().mul_(roots), lms_to_rgb(primaries))


def _from_squares(squares: Tensor, primaries: Primaries) -> Tensor:
    """RGB of cone responses to the power of 2/3; negative ones count as 0, in place."""
    return transformed(squares.clamp_min_(0.0).sqrt().mul_(squares), lms_to_rgb(primaries))


def _cubics(gray: Tensor, way: Tensor, primaries: Primaries) -> Cubics:
    """RGB of the cone roots ``gray + t * way`` as polynomials in t."""
    matrix = lms_to_rgb(primaries)
    square = way.square()
    second = transformed(square, matrix).mul_(gray).mul_(3.0)
    first = transformed(way, matrix).mul_(gray).mul_(gray).mul_(3.0)
    return gray**3, first, second, transformed(square.mul_(way), matrix)


def _positive_share(like: Tensor, margins: Callable[[Tensor], Tensor]) -> Tensor:
    """The t ``[N]`` in 0..1 up to which ``margins(t)`` ``[3,N]``, positive at 0, stay so: by bisection, from below."""
    share = torch.zeros_like(like)
    for halving in range(1, _HALVINGS + 1):
        tried = share + 0.5**halving
        share = torch.where(margins(tried).amin(0) >= 0, tried, share)
    return share
