"""Classical denoising: luminance and colour apart, because noise in colour disturbs more and hides less."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from restorekit.errors import StageError
from restorekit.facts import Facts
from restorekit.frame import Frame
from restorekit.stage import Reach, Stage, StageSpec, local, param, parameters

SAMPLES = 1 << 20
"""About how many pixels the noise is measured on."""

LEAST_SIGMA = 1e-5
"""Noise below this is none."""

NLMEANS_LUMA, NLMEANS_CHROMA = 0.8, 1.0
"""Filter parameter h of non-local means in standard deviations of the noise: best PSNR on photographs."""

GUIDED_LUMA, GUIDED_CHROMA = 1.5, 3.0
"""Square root of the guided filter's regularisation in standard deviations of the noise, found alike."""


def opponent(rgb: Tensor) -> Tensor:
    """``[3,H,W]`` RGB as luma ``(R+G+B)/3``, ``(R-B)/2`` and ``(R-2G+B)/4``; gray as it is."""
    if rgb.shape[0] == 1:
        return rgb
    red, green, blue = rgb
    outer = red + blue
    return torch.stack(((outer + green).mul_(1 / 3), (red - blue).mul_(0.5), (outer - 2 * green).mul_(0.25)))


def from_opponent(planes: Tensor) -> Tensor:
    """The inverse of :func:`opponent`, as a new tensor."""
    if planes.shape[0] == 1:
        return planes.clone()
    luma, red_blue, green = planes
    outer = torch.add(luma, green, alpha=2 / 3)
    return torch.stack((outer + red_blue, torch.sub(luma, green, alpha=4 / 3), outer - red_blue))


def noise_sigma(planes: Tensor) -> tuple[float, ...]:
    """The standard deviation of white noise in each plane of ``[C,H,W]``, robust against edges.

    The median absolute response to Immerkaer's Laplacian difference mask, over 0.6745 and the mask's norm 6.
    On images smaller than 3x3 there is nothing to measure: 0.
    """
    height, width = planes.shape[1:]
    if height < 3 or width < 3:
        return (0.0,) * planes.shape[0]
    step = max(1, round(height * width / SAMPLES))
    rows = planes[:, 0 : height - 2 : step] - 2 * planes[:, 1 : height - 1 : step] + planes[:, 2::step]
    response = rows[:, :, :-2] - 2 * rows[:, :, 1:-1] + rows[:, :, 2:]
    median = response.abs_().flatten(1).nanmedian(dim=1).values
    return tuple((median / (0.6745 * 6.0)).tolist())


class _Denoise(Stage):
    """What the stages here share: strengths, and noise measured where it is not given."""

    luma_sigma: float
    chroma_sigma: float

    def needs_measure(self, frame: Frame) -> bool:
        return self.luma_sigma == 0 or (self.chroma_sigma == 0 and frame.state.layout == "rgb")

    def measure(self, frame: Frame) -> Facts:
        luma, *chroma = noise_sigma(opponent(frame.pixels))
        sigmas = (luma, max(chroma, default=0.0))
        return replace(frame.facts, measured={**frame.facts.measured, self.spec.name: sigmas})

    def _sigmas(self, frame: Frame) -> tuple[float, float]:
        """Noise in luma and colour: the parameters, or what was measured."""
        measured = frame.facts.measured.get(self.spec.name)
        if isinstance(measured, tuple):
            return self.luma_sigma or measured[0], self.chroma_sigma or measured[1]
        if self.needs_measure(frame):
            raise StageError(f"{frame.name}: {self.spec.name} has not measured the noise; call the stage itself")
        return self.luma_sigma, self.chroma_sigma


@parameters
class NlMeans(_Denoise):
    """Non-local means on an encoded picture: every pixel becomes a mean of those whose surroundings look alike.

    Runs OpenCV's integer implementation with 16 bits on luma and on the two colour planes together. What it
    takes away is subtracted from the float pixels, so that values outside 0..1 and precision survive. On
    encoded values noise is about even, so linear frames are not taken. Slow: more than a second a megapixel.
    Nothing is clamped.
    """

    spec = StageSpec(
        name="denoise.nlmeans",
        source="Buades, Coll & Morel, Non-Local Means Denoising, IPOL 1 (2011); "
        "noise: Immerkaer, Fast Noise Variance Estimation, CVIU 64 (1996)",
        accepts={"layout": ("rgb", "gray"), "reference": ("display",), "transfer": ("srgb", "gamma")},
    )
    strength: Annotated[float, param("Scale of the luma filter", ge=0, le=5)] = 1.0
    chroma_strength: Annotated[float, param("Scale of the colour filter", ge=0, le=5)] = 1.0
    luma_sigma: Annotated[
        float, param("Noise in luma, standard deviation; 0: measured", ge=0, le=0.5, usual=(0, 0.1))
    ] = 0.0
    chroma_sigma: Annotated[
        float, param("Noise in colour, standard deviation; 0: measured", ge=0, le=0.5, usual=(0, 0.1))
    ] = 0.0
    search_radius_px: Annotated[int, param("Reach of the search for similar pixels", unit="px", ge=1, le=20)] = 7
    patch_radius_px: Annotated[int, param("Size of the surroundings compared", unit="px", ge=1, le=5)] = 2

    def reach(self) -> Reach:
        return local(self.search_radius_px + self.patch_radius_px)

    def apply(self, frame: Frame) -> Frame:
        luma_sigma, chroma_sigma = self._sigmas(frame)
        planes = opponent(frame.pixels)
        noise = torch.zeros_like(planes)
        noise[:1] = self._noise_of(planes[:1], NLMEANS_LUMA * luma_sigma * self.strength)
        noise[1:] = self._noise_of(planes[1:], NLMEANS_CHROMA * chroma_sigma * self.chroma_strength)
        return frame.with_pixels(frame.pixels - from_opponent(noise))

    def _noise_of(self, planes: Tensor, h: float) -> Tensor | float:
        """What the filter takes away from ``[C,H,W]`` planes of one range."""
        if h <= LEAST_SIGMA or planes.numel() == 0:
            return 0.0
        signed = planes.shape[0] > 1
        codes = torch.add(planes, 0.5 if signed else 0.0).mul_(65535.0).round_().clamp_(0.0, 65535.0)
        image = np.ascontiguousarray(codes.cpu().numpy().transpose(1, 2, 0).astype(np.uint16))
        window, template = 2 * self.search_radius_px + 1, 2 * self.patch_radius_px + 1
        strengths = [h * 65535.0] * planes.shape[0]
        smooth = cv2.fastNlMeansDenoising(image, strengths, None, template, window, cv2.NORM_L1)
        taken: NDArray[np.float32] = image.astype(np.float32) - smooth.reshape(image.shape).astype(np.float32)
        return torch.from_numpy(taken).permute(2, 0, 1).to(planes.device) / 65535.0


@parameters
class Guided(_Denoise):
    """Guided filter, each plane its own guide: smooths where there is only noise, keeps edges that exceed it.

    Where the variance in the window is the noise's, the result is the mean; where it is larger, the pixel
    stays. On scene-referred frames with ``facts.noise`` the noise follows the brightness (Poisson-Gaussian),
    else it is one standard deviation, given or measured. Fast, and kind to fine texture. Nothing is clamped.
    """

    spec = StageSpec(
        name="denoise.guided",
        source="He, Sun & Tang, Guided Image Filtering, ECCV 2010, eq. 5, 6, 8; "
        "noise: Immerkaer, Fast Noise Variance Estimation, CVIU 64 (1996)",
        accepts={"layout": ("rgb", "gray"), "reference": ("scene", "display")},
    )
    strength: Annotated[float, param("Scale of the noise taken out of luma", ge=0, le=10, usual=(0, 3))] = 1.0
    chroma_strength: Annotated[float, param("Scale of the noise taken out of colour", ge=0, le=10, usual=(0, 3))] = 1.0
    luma_sigma: Annotated[
        float, param("Noise in luma, standard deviation; 0: known or measured", ge=0, le=1, usual=(0, 0.1))
    ] = 0.0
    chroma_sigma: Annotated[
        float, param("Noise in colour, standard deviation; 0: known or measured", ge=0, le=1, usual=(0, 0.1))
    ] = 0.0
    radius_px: Annotated[int, param("Radius of the window", unit="px", ge=1, le=16)] = 2

    def reach(self) -> Reach:
        return local(2 * self.radius_px)

    def needs_measure(self, frame: Frame) -> bool:
        return not self._follows_model(frame) and super().needs_measure(frame)

    def _follows_model(self, frame: Frame) -> bool:
        given = self.luma_sigma != 0 or self.chroma_sigma != 0
        return not given and frame.state.reference == "scene" and frame.facts.noise is not None

    def apply(self, frame: Frame) -> Frame:
        radius = self.radius_px
        planes = F.pad(opponent(frame.pixels), (2 * radius,) * 4, mode="replicate")
        noises = self._variances(frame, _box_mean(planes[0], radius))
        smooth = [self_guided(plane, radius, noises[min(index, 1)]) for index, plane in enumerate(planes)]
        return frame.with_pixels(from_opponent(torch.stack(smooth)))

    def _variances(self, frame: Frame, mean: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """Regularisation for luma and colour; with a noise model as planes that follow the mean luma."""
        luma_scale, chroma_scale = (GUIDED_LUMA * self.strength) ** 2, (GUIDED_CHROMA * self.chroma_strength) ** 2
        noise, tiny = frame.facts.noise, LEAST_SIGMA**2
        if noise is None or not self._follows_model(frame):
            luma, chroma = self._sigmas(frame)
            return luma_scale * luma**2 + tiny, chroma_scale * chroma**2 + tiny
        mean_a, mean_b = (sum(pair[k] for pair in noise) / len(noise) for k in (0, 1))
        variance = mean.clamp_min(0.0).mul_(mean_a).add_(mean_b)
        in_luma, in_color = (1.0, 1.0) if frame.state.layout == "gray" else (1 / 3, 1 / 2)
        return variance * (in_luma * luma_scale) + tiny, variance * (in_color * chroma_scale) + tiny


def self_guided(plane: Tensor, radius: int, noise: Tensor | float) -> Tensor:
    """``[H,W]`` smoothed with itself as guide: ``[H-4r,W-4r]`` (eq. 5, 6, 8).

    ``noise`` is the regularisation, a number or a plane ``[H-2r,W-2r]``: variance below it is smoothed away.
    """
    mean = _box_mean(plane, radius)
    variance = _box_mean(plane * plane, radius).sub_(mean * mean).clamp_min_(0.0)
    slope = variance.div_(variance + noise)
    offset = mean.sub_(slope * mean)
    inner = slice(2 * radius, -2 * radius)
    return _box_mean(slope, radius).mul_(plane[inner, inner]).add_(_box_mean(offset, radius))


def _box_mean(plane: Tensor, radius: int) -> Tensor:
    """Means over windows of ``2 radius + 1``: ``[H,W]`` gives ``[H-2r,W-2r]``."""
    sums = _running_sum(_running_sum(plane, 2 * radius + 1).t(), 2 * radius + 1).t()
    return sums * (1.0 / (2 * radius + 1) ** 2)


def _running_sum(plane: Tensor, length: int) -> Tensor:
    """Sums of ``length`` neighbouring rows by doubling: ``[H,W]`` gives ``[H-length+1,W]``, the same bits anywhere."""
    rows = plane.shape[0] - length + 1
    power, size = plane, 1
    total: Tensor | None = None
    offset = 0
    while True:
        if length & size:
            part = power[offset : offset + rows]
            total = part.clone() if total is None else total.add_(part)
            offset += size
        if 2 * size > length:
            assert total is not None
            return total
        power = power[:-size] + power[size:]
        size *= 2
