"""The colour of the light: stages that add the fact ``illuminant`` and leave the pixels alone.

The estimators work on block means of the image (at most about a megapixel), so that a mosaic needs
no demosaicing and noise averages out. Blocks with a clipped photosite and nearly black blocks do
not count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from restorekit.color.adaptation import D65, white_xyz
from restorekit.errors import StageError
from restorekit.facts import Facts
from restorekit.frame import Frame
from restorekit.stage import Stage, StageSpec, param, parameters

BLOCKS = 1 << 20
"""The most blocks that statistics are taken of."""

NEARLY_BLACK = 0.02
"""Blocks below this share of the brightest percentile carry noise, not colour."""

D65_K = 6504.0

CAMERA_RGB = {
    "layout": ("bayer", "xtrans", "rgb"),
    "reference": ("scene",),
    "transfer": ("linear",),
    "primaries": ("camera",),
}

RGB = tuple[float, float, float]


def _spec(name: str, source: str) -> StageSpec:
    return StageSpec(name, source, accepts=CAMERA_RGB, adds=("illuminant",))


@dataclass(frozen=True, eq=False)
class BlockMeans:
    """Means over equal blocks of an image: ``values`` ``[C,h,w]``, ``clean`` ``[h,w]`` where nothing clipped."""

    values: Tensor
    clean: Tensor


def block_means(frame: Frame, most: int = BLOCKS) -> BlockMeans:
    """The image averaged over blocks, at most ``most`` of them; a mosaic gives RGB, one block a few CFA cells.

    A block is not clean when one of its photosites is in the mask ``clipped``, or, without that mask, reaches
    ``facts.clip_level``, and when its mean is not finite. Rows and columns beyond the last whole block are left
    out; an image smaller than a CFA cell gives no block.

    Raises StageError for a mosaic whose camera names no pattern.
    """
    mosaic = frame.state.is_mosaic
    if mosaic and not frame.camera.cfa:
        raise StageError(
            f"{frame.name}: a mosaic without the pattern of its colours (camera.cfa); demosaic needs it too"
        )
    cfa = frame.camera.cfa
    cell_h, cell_w = (len(cfa), len(cfa[0])) if mosaic else (1, 1)
    cells = max(1, (frame.height // cell_h) * (frame.width // cell_w))
    factor = min(math.ceil(math.sqrt(cells / most)), max(1, min(frame.height // cell_h, frame.width // cell_w)))
    block_h, block_w = cell_h * factor, cell_w * factor
    h, w = frame.height // block_h, frame.width // block_w
    pixels, clipped = frame.pixels, _clipped(frame)
    if not mosaic:
        values = _block_sums(pixels, factor).mul_(1.0 / factor**2)
        finite = values.isfinite().all(0)
        return BlockMeans(values, finite if clipped is None else finite & ~_any_of_blocks(clipped, factor))
    values = torch.zeros((3, h, w), device=pixels.device)
    dirty = torch.zeros((h, w), dtype=torch.bool, device=pixels.device)
    sites = [0] * 3
    for y in range(block_h):
        for x in range(block_w):
            rows, columns = slice(y, h * block_h, block_h), slice(x, w * block_w, block_w)
            channel = "RGB".index(cfa[y % cell_h][x % cell_w])
            values[channel] += pixels[0, rows, columns]
            sites[channel] += 1
            if clipped is not None:
                dirty |= clipped[:, rows, columns].any(0)
    values /= torch.tensor(sites, device=pixels.device).clamp_min(1)[:, None, None]
    return BlockMeans(values, ~dirty & values.isfinite().all(0))


def _block_sums(planes: Tensor, factor: int, most: bool = False) -> Tensor:
    """Sums over square blocks of ``[C,H,W]``, or the ``most`` in them: over rows first, then over what is left."""
    height, width = (side // factor * factor for side in planes.shape[1:])
    gather = torch.maximum if most else torch.add
    rows = planes[:, :height:factor, :width]
    for start in range(1, factor):
        rows = gather(rows, planes[:, start:height:factor, :width])
    result = rows[:, :, ::factor].clone()
    for start in range(1, factor):
        gather(result, rows[:, :, start::factor], out=result)
    return result


def _any_of_blocks(mask: Tensor, factor: int) -> Tensor:
    """Whether any value of any channel of a mask ``[C,H,W]`` is set in each block, ``[h,w]``."""
    anywhere = mask[0].clone()
    for channel in mask[1:]:
        anywhere |= channel
    return _block_sums(anywhere[None].view(torch.uint8), factor, most=True)[0] > 0


def _clipped(frame: Frame) -> Tensor | None:
    """Where the sensor clipped, ``[C,H,W]`` bool, or ``None`` where nothing is known."""
    if "clipped" in frame.masks:
        return frame.masks["clipped"]
    level = frame.facts.clip_level
    if level is None:
        return None
    if len(level) == frame.pixels.shape[0]:
        return frame.pixels >= torch.tensor(level, device=frame.pixels.device)[:, None, None]
    return frame.pixels >= min(level)


def usable(means: BlockMeans) -> Tensor:
    """Blocks ``[h,w]`` that are clean and bright enough to have a colour."""
    brightness = means.values.sum(0)
    clean = brightness[means.clean]
    if clean.numel() == 0:
        return means.clean
    bright = float(clean.kthvalue(max(1, round(0.99 * clean.numel()))).values)
    return means.clean & (brightness > max(NEARLY_BLACK * bright, 0.0))


def _minkowski(samples: Tensor, p: float) -> Tensor:
    """``(mean x^p)^(1/p)`` of ``[3,N]`` a channel; NaN without samples. Computed relative to the largest value."""
    if samples.numel() == 0:
        return torch.full((3,), torch.nan)
    if p == 1.0:
        return samples.mean(1)
    positive = samples.clamp_min(0)
    peak = positive.amax().clamp_min(torch.finfo(torch.float32).tiny)
    return (positive / peak).pow_(p).mean(1).pow_(1 / p) * peak


class _Estimator(Stage):
    """A stage that estimates the light from usable blocks and leaves the frame as it is."""

    def estimate(self, means: BlockMeans, usable: Tensor) -> Tensor:
        """The colour ``[3]`` of the light from block means and the blocks ``[h,w]`` that count."""
        raise StageError(f"{self.spec.name} has no estimate of its own; write its estimate method")

    def light(self, frame: Frame) -> RGB | None:
        """Camera RGB of the light, green = 1, without gains already applied; ``None`` where nothing shows it."""
        means = block_means(frame)
        color = self.estimate(means, usable(means)).tolist()
        red, green, blue = (x / gain for x, gain in zip(color, frame.facts.white_balance or (1.0,) * 3, strict=True))
        return per_green((red, green, blue))

    def measure(self, frame: Frame) -> Facts:
        light = self.light(frame)
        if light is None:
            raise StageError(
                f"{frame.name}: {self.spec.name} finds no lit, unclipped part to measure the light on; "
                "use illuminant.as_shot, or a frame that is neither black nor overexposed"
            )
        return replace(frame.facts, illuminant=light)

    def apply(self, frame: Frame) -> Frame:
        return frame


@parameters
class GrayWorld(_Estimator):
    """The mean of the scene is gray: the light is the mean camera RGB.

    Adds the fact ``illuminant``. Raises StageError when no unclipped, lit block exists.
    """

    spec = _spec(
        "illuminant.gray_world",
        "Buchsbaum, A spatial processor model for object colour perception, J. Franklin Inst. 310 (1980)",
    )

    def estimate(self, means: BlockMeans, usable: Tensor) -> Tensor:
        return _minkowski(means.values[:, usable], 1.0)


@parameters
class ShadesOfGray(_Estimator):
    """Between gray world (p = 1) and max-RGB (p large): the light is a Minkowski mean of the camera RGB.

    Adds the fact ``illuminant``. Raises StageError when no unclipped, lit block exists.
    """

    spec = _spec(
        "illuminant.shades_of_gray",
        "Finlayson & Trezzi, Shades of Gray and Colour Constancy, CIC 12 (2004)",
    )
    p: Annotated[float, param("Order of the Minkowski norm; the paper finds 6 best", ge=1, le=20)] = 6.0

    def estimate(self, means: BlockMeans, usable: Tensor) -> Tensor:
        return _minkowski(means.values[:, usable], self.p)


@parameters
class WhitePatch(_Estimator):
    """The brightest response of each channel comes from a white surface.

    A percentile of the unclipped blocks stands for the maximum, against noise and highlights.
    Adds the fact ``illuminant``. Raises StageError when no unclipped, lit block exists.
    """

    spec = _spec(
        "illuminant.white_patch",
        "Land, The Retinex Theory of Color Vision, Sci. Am. 237 (1977)",
    )
    percentile: Annotated[float, param("Percentile taken as the brightest value", unit="%", ge=50, le=100)] = 99.0

    def estimate(self, means: BlockMeans, usable: Tensor) -> Tensor:
        samples = means.values[:, usable]
        if samples.shape[1] == 0:
            return torch.full((3,), torch.nan)
        rank = max(1, math.ceil(self.percentile / 100 * samples.shape[1]))
        return samples.kthvalue(rank, dim=1).values


@parameters
class GrayEdge(_Estimator):
    """The mean colour difference in the scene is gray: the light is a Minkowski mean of the edges.

    ``sigma_px`` counts in blocks of the reduced image of about a megapixel on which the edges are taken.
    Adds the fact ``illuminant``. Raises StageError when no unclipped edge exists.
    """

    spec = _spec(
        "illuminant.gray_edge",
        "van de Weijer, Gevers & Gijsenij, Edge-Based Color Constancy, IEEE TIP 16 (2007), eq. 11",
    )
    order: Annotated[Literal[1, 2], param("Order of the spatial derivative")] = 1
    sigma_px: Annotated[float, param("Standard deviation of the Gaussian", unit="px", ge=0.5, le=10)] = 2.0
    p: Annotated[float, param("Order of the Minkowski norm", ge=1, le=20)] = 5.0

    def estimate(self, means: BlockMeans, usable: Tensor) -> Tensor:
        radius = math.ceil(3 * self.sigma_px)
        h, w = usable.shape
        if min(h, w) <= 2 * radius:
            return torch.full((3,), torch.nan)
        size = 2 * radius + 1  # a derivative counts where its whole kernel saw no clipped block
        dirty = (~means.clean).float()[None, None]
        dirty = F.max_pool2d(F.max_pool2d(dirty, (size, 1), stride=1), (1, size), stride=1)[0, 0]
        inside = usable[radius : h - radius, radius : w - radius] & (dirty == 0)
        return _minkowski(self._edges(means.values, radius)[:, inside], self.p)

    def _edges(self, values: Tensor, radius: int) -> Tensor:
        """Derivative magnitudes ``[3,h-2r,w-2r]``."""
        x = torch.arange(-radius, radius + 1, dtype=torch.float64)
        gauss = torch.exp(-0.5 * (x / self.sigma_px) ** 2)
        gauss /= gauss.sum()
        first = gauss * x / self.sigma_px**2
        second = gauss * (x**2 / self.sigma_px**2 - 1) / self.sigma_px**2
        second -= second.mean()

        def filtered(vertical: Tensor, horizontal: Tensor) -> Tensor:
            columns = F.conv2d(values[:, None], vertical.to(values).view(1, 1, -1, 1))
            return F.conv2d(columns, horizontal.to(values).view(1, 1, 1, -1))[:, 0]

        if self.order == 1:
            return torch.hypot(filtered(first, gauss), filtered(gauss, first))
        mixed = filtered(first, first)
        return (filtered(second, gauss) ** 2 + 4 * mixed**2 + filtered(gauss, second) ** 2).sqrt_()


@parameters
class AsShot(Stage):
    """The white balance that the camera stored.

    Adds the fact ``illuminant``. Where the camera stored none, or one that is not positive, ``fallback`` says
    what to do, and the frame gets a note: ``gray_world`` measures, ``daylight`` takes the camera's calibrated
    response to D65 (gray world for a camera without calibration), ``error`` raises StageError. Where gray world
    finds no lit, unclipped part to measure, the illuminant is (1, 1, 1): white balance then changes nothing.
    """

    spec = _spec(
        "illuminant.as_shot",
        "DNG 1.7.1, AsShotNeutral, ColorMatrix (chapter 6)",
    )
    fallback: Annotated[
        Literal["gray_world", "daylight", "error"], param("What to use when the camera stored no white balance")
    ] = "gray_world"

    def needs_measure(self, frame: Frame) -> bool:
        return self._stored(frame) is None and self.fallback != "error" and self._daylight(frame) is None

    def measure(self, frame: Frame) -> Facts:
        return replace(frame.facts, illuminant=GrayWorld().light(frame)) if self.needs_measure(frame) else frame.facts

    def apply(self, frame: Frame) -> Frame:
        stored = self._stored(frame)
        if stored is not None:
            return replace(frame, facts=replace(frame.facts, illuminant=stored))
        lacking = f"the camera ({frame.camera.name}) stored no white balance"
        if self.fallback == "error":
            raise StageError(f"{frame.name}: {lacking}; use another illuminant.* stage, or fallback: gray_world")
        daylight = self._daylight(frame)
        if daylight is not None:
            return replace(frame, facts=replace(frame.facts, illuminant=daylight)).with_note(
                f"{lacking}; its calibrated daylight (D65) is used"
            )
        why = f"{lacking}, and no calibration for daylight" if self.fallback == "daylight" else lacking
        if frame.facts.illuminant is not None:
            return frame.with_note(f"{why}; gray world is used")
        return replace(frame, facts=replace(frame.facts, illuminant=(1.0, 1.0, 1.0))).with_note(
            f"{why}, and no part of the picture can be measured; white balance is left as it is"
        )

    @staticmethod
    def _stored(frame: Frame) -> RGB | None:
        return per_green(frame.camera.neutral)

    def _daylight(self, frame: Frame) -> RGB | None:
        """Camera RGB of D65 by the calibration nearest to it in 1/CCT, if this fallback was chosen."""
        if self.fallback != "daylight" or not frame.camera.calibrations:
            return None
        nearest = min(frame.camera.calibrations, key=lambda c: abs(1 / max(c.temperature_k, 1.0) - 1 / D65_K))
        matrix = nearest.color_matrix
        if nearest.camera_calibration is not None:
            matrix = nearest.camera_calibration @ matrix
        red, green, blue = np.asarray(frame.camera.analog_balance) * (matrix @ white_xyz(D65))
        return per_green((float(red), float(green), float(blue)))


def per_green(rgb: RGB | None) -> RGB | None:
    """The colour with green = 1, or ``None`` where it is no colour of a light."""
    if rgb is None or not all(math.isfinite(value) and value > 0 for value in rgb):
        return None
    return rgb[0] / rgb[1], 1.0, rgb[2] / rgb[1]
