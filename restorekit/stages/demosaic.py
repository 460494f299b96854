"""From one colour a photosite to three: demosaicing.

The Bayer methods work on the mosaic's four planes (see ``restorekit.stages.mosaic``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from restorekit.errors import StageError
from restorekit.frame import Frame
from restorekit.stage import GLOBAL, Nothing, Reach, Stage, StageSpec, local, param, parameters
from restorekit.stages.mosaic import (
    BLUE,
    GREEN,
    RED,
    Canvas,
    Mosaic,
    Plane,
    Sites,
    cfa_at,
    red_parity,
    take_apart,
)

Method = Literal["bilinear", "malvar", "menon", "libraw"]
Interpolates = Literal["roots", "light"]
LibrawAlgorithm = Literal["LINEAR", "VNG", "PPG", "AHD", "DCB", "DHT", "AAHD"]

Gains = tuple[float, float, float]
UNIT: Gains = (1.0, 1.0, 1.0)

Offsets = tuple[tuple[int, int], ...]
ROW = ((0, -1), (0, 1))
COLUMN = ((-1, 0), (1, 0))
CORNERS = ((-1, -1), (-1, 1), (1, -1), (1, 1))
ROW_2 = ((0, -2), (0, 2))
COLUMN_2 = ((-2, 0), (2, 0))


def bilinear(mosaic: Mosaic, canvas: Canvas) -> None:
    """The mean of the two or four nearest photosites of each colour. Looks 1 px far."""
    for near in mosaic.colours:
        sites = near.own.sites.within(0, 0)
        green = near.beside.sum(sites, *ROW).add_(near.above.sum(sites, *COLUMN))
        canvas.put(GREEN, sites, green, 1 / 4)
        canvas.put(near.opposite.sites.channel, sites, near.opposite.sum(sites, *CORNERS), 1 / 4)
    for near in mosaic.greens:
        sites = near.own.sites.within(0, 0)
        canvas.put(near.beside.sites.channel, sites, near.beside.sum(sites, *ROW), 1 / 2)
        canvas.put(near.above.sites.channel, sites, near.above.sum(sites, *COLUMN), 1 / 2)


def malvar(mosaic: Mosaic, canvas: Canvas) -> None:
    """Bilinear, corrected by the Laplacian of the known colour (Malvar, He, Cutler 2004, fig. 2). Looks 2 px far.

    The gains are the paper's alpha = 1/2, beta = 5/8, gamma = 3/4.
    """
    for near in mosaic.colours:
        sites = near.own.sites.within(0, 0)
        second = near.own.sum(sites, *ROW_2, *COLUMN_2)
        green = near.beside.sum(sites, *ROW).add_(near.above.sum(sites, *COLUMN)).mul_(1 / 4)
        canvas.add(GREEN, Plane(sites, green.add_(near.own.at(sites), alpha=1 / 2)), second, -1 / 8)
        other = near.opposite.sum(sites, *CORNERS).mul_(1 / 4).add_(near.own.at(sites), alpha=3 / 4)
        canvas.add(near.opposite.sites.channel, Plane(sites, other), second, -3 / 16)
    for near in mosaic.greens:
        sites = near.own.sites.within(0, 0)
        corners = near.opposite.sum(sites, *CORNERS)
        row_2, column_2 = near.own.sum(sites, *ROW_2), near.own.sum(sites, *COLUMN_2)
        around = near.own.at(sites).mul(5 / 8).sub_(corners, alpha=1 / 8)
        ways = ((near.beside, ROW, row_2, column_2), (near.above, COLUMN, column_2, row_2))
        for plane, offsets, along, across in ways:
            value = plane.sum(sites, *offsets).mul_(1 / 2).add_(around).sub_(along, alpha=1 / 8)
            canvas.add(plane.sites.channel, Plane(sites, value), across, 1 / 16)


def menon(mosaic: Mosaic, canvas: Canvas) -> None:
    """Directional filtering with a posteriori decision (Menon, Andriani, Calvagno 2007), with its refining step.

    Green is interpolated along rows and along columns (Hamilton-Adams filter); at each red and blue
    photosite the direction is taken along which the colour difference changes less in a 5x5
    neighbourhood. Everything else interpolates colour differences: red and blue at green in the line that
    has them, red at blue and blue at red in the chosen direction. The refining step then averages
    differences over three photosites in the chosen direction. Looks 8 px far.

    Only differences to green are kept; to save multiplications they are kept 2, 4, 12 and 24 times too large.
    """
    rows, columns, weights = _directions(mosaic)
    chosen = {}  # red or blue minus green, at red or blue, 2 times
    for near in mosaic.colours:
        channel, sites = near.own.sites.channel, near.own.sites.within(4, 4)
        by_column, by_row = columns[channel].at(sites), rows[channel].at(sites)
        chosen[channel] = Plane(sites, torch.lerp(by_column, by_row, weights[channel].values))
    del rows, columns
    first = _at_greens(mosaic, chosen, 3)  # red and blue minus green at green, 4 times
    refined = {}  # as chosen, after the refining step, 12 times
    for near in mosaic.colours:
        channel, sites = near.own.sites.channel, near.own.sites.within(2, 2)
        along_row = first[near.beside.sites.parity][channel].sum(sites, *ROW)
        along_column = first[near.above.sites.parity][channel].sum(sites, *COLUMN)
        mean = torch.lerp(along_column, along_row, weights[channel].at(sites), out=along_row)
        refined[channel] = Plane(sites, mean.add_(chosen[channel].at(sites), alpha=2))
        canvas.add(GREEN, near.own, refined[channel].at(sites.within(0, 0)), -1 / 12)
    second = _at_greens(mosaic, refined, 1)  # as first, after the refining step, 24 times
    red_blue = {}  # red minus blue at green: the sum that the mean of three needs, 72 times
    for near in mosaic.greens:
        here, sites = near.own.sites.parity, near.own.sites.within(1, 1)
        for channel, plane in second[here].items():
            canvas.add(channel, near.own, plane.at(sites.within(0, 0)), 1 / 24)
        total = second[here][RED].values - second[here][BLUE].values
        total.add_(first[here][RED].at(sites), alpha=3).sub_(first[here][BLUE].at(sites), alpha=3)
        red_blue[here] = Plane(sites, total)
    for near, sign in zip(mosaic.colours, (-1, 1), strict=True):
        sites = near.own.sites.within(0, 0)
        along_row = red_blue[near.beside.sites.parity].sum(sites, *ROW)
        along_column = red_blue[near.above.sites.parity].sum(sites, *COLUMN)
        mean = torch.lerp(along_column, along_row, weights[near.own.sites.channel].at(sites), out=along_row)
        canvas.add(near.opposite.sites.channel, near.own, mean, sign / 72)


def _directions(mosaic: Mosaic) -> tuple[dict[int, Plane], dict[int, Plane], dict[int, Plane]]:
    """Twice the colour difference to green along rows and along columns, and the decision (1 = along rows)."""
    rows, columns, row_changes, column_changes = {}, {}, {}, {}
    for near in mosaic.colours:
        channel, sites = near.own.sites.channel, near.own.sites.within(6, 6)
        rows[channel] = row = Plane(sites, _difference(near.own, near.beside, sites, ROW, ROW_2))
        columns[channel] = column = Plane(sites, _difference(near.own, near.above, sites, COLUMN, COLUMN_2))
        row_changes[channel] = _change(row, near.beside.sites.within(6, 5), ROW)
        column_changes[channel] = _change(column, near.above.sites.within(5, 6), COLUMN)
    weights = {}
    for near in mosaic.colours:
        channel, other = near.own.sites.channel, near.opposite.sites.channel
        sites, tall, wide = near.own.sites.within(4, 4), near.own.sites.within(6, 4), near.own.sites.within(4, 6)
        pairs = Plane(tall, row_changes[channel].sum(tall, *ROW))
        in_rows = _activity(pairs, COLUMN_2, row_changes[other], COLUMN, sites)
        pairs = Plane(wide, column_changes[channel].sum(wide, *COLUMN))
        in_columns = _activity(pairs, ROW_2, column_changes[other], ROW, sites)
        weights[channel] = Plane(sites, torch.ge(in_columns, in_rows, out=in_rows))
    return rows, columns, weights


def _difference(own: Plane, green: Plane, sites: Sites, near: Offsets, far: Offsets) -> Tensor:
    """Twice the difference of a colour to green interpolated in one direction (the paper's eq. 3 and 4)."""
    difference = own.sum(sites, *far)
    torch.add(own.at(sites), difference, alpha=1 / 2, out=difference)
    return difference.sub_(green.at(sites, *near[0])).sub_(green.at(sites, *near[1]))


def _change(difference: Plane, between: Sites, offsets: Offsets) -> Plane:
    """How much a colour difference changes from one photosite of its colour to the next, kept between the two."""
    change = difference.at(between, *offsets[0]) - difference.at(between, *offsets[1])
    return Plane(between, change.abs_())


def _activity(pairs: Plane, far: Offsets, opposite: Plane, near: Offsets, sites: Sites) -> Tensor:
    """The sum of changes in a 5x5 neighbourhood, those in the line of the photosite itself three times."""
    total = pairs.sum(sites, *far).add_(pairs.at(sites), alpha=3)
    return total.add_(opposite.at(sites, *near[0])).add_(opposite.at(sites, *near[1]))


def _at_greens(mosaic: Mosaic, differences: dict[int, Plane], margin: int) -> dict[tuple[int, int], dict[int, Plane]]:
    """At the greens, by parity and colour: the two nearest differences of a colour, in its row or column, added."""
    sums = {}
    for near in mosaic.greens:
        sites = near.own.sites.within(margin, margin)
        beside, above = near.beside.sites.channel, near.above.sites.channel
        sums[sites.parity] = {
            beside: Plane(sites, differences[beside].sum(sites, *ROW)),
            above: Plane(sites, differences[above].sum(sites, *COLUMN)),
        }
    return sums


METHODS: Mapping[str, tuple[Callable[[Mosaic, Canvas], None], int]] = {
    "bilinear": (bilinear, 1),
    "malvar": (malvar, 2),
    "menon": (menon, 8),
}
"""The methods for Bayer mosaics, and how many px each of them looks."""


@dataclass(frozen=True)
class Domain:
    """The values that are interpolated: ``gain * x`` of each colour, or the square root of ``gain * x + offset``.

    All methods but bilinear lean on differences between colours that change little within a neighbourhood,
    so channels are balanced first. Light varies by ratios and its noise grows with its square root (Anscombe
    1948), so differences of square roots are the steadier ones. Roots of negative values are negative.
    """

    gains: Gains = UNIT
    offset: float | None = None

    def enter(self, values: Tensor, channel: int) -> Tensor:
        """A contiguous copy of a colour's values in this domain."""
        gain = self.gains[channel]
        scaled = values.contiguous() if gain == 1 else values * gain
        if self.offset is None:
            return scaled
        scaled = scaled + self.offset if gain == 1 else scaled.add_(self.offset)
        return scaled.abs().sqrt_().copysign_(scaled)

    def leave(self, picture: Tensor) -> None:
        """Bring a picture ``[3,H,W]`` back to light on the scale of the sensor, in place."""
        for values, gain in zip(picture, self.gains, strict=True):
            if self.offset is not None:
                values.mul_(values.abs()).sub_(self.offset)
            if gain != 1:
                values.mul_(1 / gain)


LIGHT = Domain()


def demosaic(mosaic: Tensor, red: tuple[int, int], method: str, domain: Domain = LIGHT) -> Tensor:
    """The picture ``[3,H,W]`` of a Bayer mosaic ``[H,W]``; the photosites' own values stay as they are.

    ``red`` is the row and column parity of the red photosites, ``method`` a name in ``METHODS``, ``domain``
    says what is interpolated.
    """
    fill, reach_px = METHODS[method]
    canvas = Canvas(mosaic.new_empty(3, *mosaic.shape))
    fill(take_apart(mosaic, red, reach_px, domain.enter), canvas)
    domain.leave(canvas.pixels)
    canvas.known(mosaic, red)
    return canvas.pixels


BLACK_OFFSET = 0.002
"""Offset under the square root where the noise is unknown, as a share of the clip level: about the read noise."""


@parameters
class Demosaic(Stage):
    """Interpolate the two colours that each photosite lacks.

    Takes scene-referred mosaics ``[1,H,W]`` of 2x2 px or more, gives camera RGB ``[3,H,W]`` on the same scale,
    unclamped; a photosite's own colour keeps the value it has. A frame that is RGB already passes through.
    Where the light is known and the channels are not balanced yet, all methods but bilinear work on
    balanced values; the result is on the camera's scale again. ``menon`` is the paper's method with its refining
    step, applied to the square roots of the values (``interpolates: light`` for the values themselves).
    ``libraw`` needs the whole image and rounds to 16 bit; X-Trans mosaics always go through it. The mask ``clipped``
    grows by a pixel, to those beside a clipped photosite, most of whose missing colours come from there.

    Raises StageError for a camera without CFA pattern, and mosaics too small.
    """

    spec: ClassVar[StageSpec] = StageSpec(
        name="raw.demosaic",
        source="Menon, Andriani, Calvagno, Demosaicing with directional filtering and a posteriori decision, "
        "IEEE TIP 16(1), 2007; Malvar, He, Cutler, High-quality linear interpolation for demosaicing of "
        "Bayer-patterned color images, ICASSP 2004; Anscombe, Biometrika 35, 1948 (square roots); LibRaw",
        accepts={"layout": ("bayer", "xtrans", "rgb"), "reference": ("scene",), "transfer": ("linear",)},
        emits={"layout": "rgb"},
    )

    method: Annotated[Method, param("bilinear is fastest, menon best; X-Trans always goes through libraw")] = "menon"
    interpolates: Annotated[Interpolates, param("What menon interpolates: square roots of light, or light")] = "roots"
    libraw_algorithm: Annotated[LibrawAlgorithm, param("LibRaw's algorithm for method libraw")] = "AHD"

    def suited(self, frame: Frame) -> Stage:
        if frame.state.layout == "rgb":
            return Nothing()
        return replace(self, method="libraw") if frame.state.layout == "xtrans" else self

    def reach(self) -> Reach:
        return GLOBAL if self.method == "libraw" else local(METHODS[self.method][1])

    def apply(self, frame: Frame) -> Frame:
        if frame.state.layout == "rgb":
            return frame
        if frame.state.layout == "xtrans" and self.method != "libraw":
            raise StageError(
                f"{frame.name}: raw.demosaic with method: {self.method} takes Bayer mosaics, this is X-Trans; "
                "use method: libraw"
            )
        cell, mosaic = cfa_at(frame), frame.pixels[0]
        if self.method == "libraw":
            return _developed(frame, _by_libraw(mosaic, cell, _balance(frame), self.libraw_algorithm))
        if min(mosaic.shape) < 2:
            raise StageError(f"{frame.name}: raw.demosaic needs 2x2 px or more, this is {frame.width}x{frame.height}")
        return _developed(frame, demosaic(mosaic, red_parity(cell, frame.name), self.method, self._domain(frame)))

    def _domain(self, frame: Frame) -> Domain:
        if self.method == "bilinear":
            return LIGHT
        roots = self.method == "menon" and self.interpolates == "roots"
        return Domain(_balance(frame), noise_offset(frame) if roots else None)


def _developed(frame: Frame, picture: Tensor) -> Frame:
    """A mosaic's frame with its picture ``[3,H,W]``, where what has a clipped photosite beside it is clipped too."""
    masks = dict(frame.masks)
    if "clipped" in masks:
        masks["clipped"] = _grown(masks["clipped"])
    return replace(frame, pixels=picture, masks=masks)


def _grown(mask: Tensor) -> Tensor:
    """A mask ``[C,H,W]`` and the eight neighbours of what it marks."""
    wide = mask.clone()
    wide[:, :, 1:] |= mask[:, :, :-1]
    wide[:, :, :-1] |= mask[:, :, 1:]
    grown = wide.clone()
    grown[:, 1:] |= wide[:, :-1]
    grown[:, :-1] |= wide[:, 1:]
    return grown


def _balance(frame: Frame) -> Gains:
    """The gains that balance the channels, or 1 where the light is unknown or they are balanced already."""
    light = frame.facts.illuminant
    if frame.facts.white_balance is not None or light is None or min(light) <= 0:
        return UNIT
    return 1 / light[0], 1 / light[1], 1 / light[2]


def noise_offset(frame: Frame) -> float:
    """The offset that makes noise of variance ``a x + b`` even under a square root: ``b / a``."""
    clip = min(frame.facts.clip_level or (1.0,))
    noise = frame.facts.noise
    if not noise or min(a for a, _ in noise) <= 0:
        return BLACK_OFFSET * clip
    return min(sum(b / a for a, b in noise) / len(noise), clip)


def _by_libraw(mosaic: Tensor, cell: tuple[str, ...], gains: Gains, algorithm: str) -> Tensor:
    """LibRaw's picture ``[3,H,W]``; the range of the balanced mosaic is stretched over 16 bits and back."""
    from restorekit.io.libraw_demosaic import libraw_demosaic

    balanced = mosaic.cpu().clone()
    for row, colours in enumerate(cell):
        for column, colour in enumerate(colours):
            balanced[row :: len(cell), column :: len(colours)] *= gains["RGB".index(colour)]
    low, high = min(0.0, float(balanced.min())), max(1.0, float(balanced.max()))
    numbers = balanced.sub_(low).mul_(65535 / (high - low)).round_().numpy().astype(np.uint16)
    picture = torch.from_numpy(libraw_demosaic(numbers, cell, algorithm).astype(np.float32)).permute(2, 0, 1)
    scale = torch.tensor(gains).reciprocal_().view(3, 1, 1)
    return picture.mul((high - low) / 65535).add_(low).mul_(scale).contiguous().to(mosaic.device)
