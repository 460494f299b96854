"""All measures of two HDR frames at once, strip by strip."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from restorekit.color.ictcp import delta_e_itp, rgb_to_ictcp
from restorekit.color.primaries import CHROMATICITIES, luminance
from restorekit.errors import InputError
from restorekit.frame import Frame
from restorekit.metrics.light import Light, lights_of, row_strips
from restorekit.metrics.mu_law import mu_law
from restorekit.metrics.pu21 import DARKEST_NITS, PEAK, pu21_encode
from restorekit.metrics.ssim import ssim_map
from restorekit.metrics.window import OVERLAP, WINDOW, windows_inside
from restorekit.state import Primaries

FITTED = (0.02, 1.5)
"""Luminances of the reference, in parts of its white, whose pixels tell the scale: neither noise nor highlights."""


def hdr_differences(reference: Frame, test: Frame, *, white_nits: float, fit_scale: bool) -> dict[str, Any]:
    """Measures of two linear, PQ or HLG frames of one size, in the primaries of the reference, by name.

    ``white_nits`` is the luminance of linear 1.0 in cd/m2. With ``fit_scale`` the test frame is first multiplied by
    the median ratio of luminances (of the channels' means where primaries are of no standard). Pixels with a value
    that is not finite in one of the frames are left out and counted. Measures of luminance and colour need primaries
    that a standard defines, SSIM 11x11 px. PSNR is ``None`` for equal frames. All is reckoned in float64.

    Raises InputError for frames of different layouts or without a common colour space or finite pixel.
    """
    lights = lights_of(reference, test)
    largest, excluded = _survey(lights)
    scale = _fitted_scale(lights, white_nits) if fit_scale else 1.0
    sums = _Sums(lights, white_nits, max(largest, DARKEST_NITS / white_nits))
    for good, a, b in _pairs(lights):
        sums.add(good, a, b.mul_(scale) if scale != 1.0 else b)
    return {
        "width": reference.width,
        "height": reference.height,
        "excluded_pixels": excluded,
        "white_nits": white_nits,
        **({"scale": scale} if fit_scale else {}),
        **sums.results(),
    }


def _pairs(lights: tuple[Light, Light]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Strips of what is finite in both, bool ``[h,W]``, and their linear values ``[C,h,W]``, 0 where it is not."""
    first = lights[0].frame
    for rows in row_strips(first.height, first.width):
        a, b = (light.linear(rows) for light in lights)
        good = torch.isfinite(a).all(0) & torch.isfinite(b).all(0)
        if not bool(good.all()):
            a, b = (torch.where(good, values, 0) for values in (a, b))
        yield good, a, b


def _survey(lights: tuple[Light, Light]) -> tuple[float, int]:
    """The largest value of the reference, and how many pixels are not finite in one of the frames."""
    largest, excluded, finite = 0.0, 0, 0
    for good, a, _ in _pairs(lights):
        largest = max(largest, float(a.max()))
        finite += int(good.sum())
        excluded += good.numel() - int(good.sum())
    if not finite:
        raise InputError(f"{lights[1].frame.name}: shares no finite pixel with {lights[0].frame.name}; render it again")
    return largest, excluded


def _fitted_scale(lights: tuple[Light, Light], white_nits: float) -> float:
    """The median ratio of luminances, reference over test.

    Over pixels of the reference between 0.02 and 1.5 of its white; over all that are lit in both where fewer than a
    hundredth are such.
    """
    usual, lit = _Values(lights), _Values(lights)
    for _, a, b in _pairs(lights):
        first, second = (_brightness(values, lights[0].primaries) for values in (a, b))
        both = (first > 0) & (second > 0)
        ratios = torch.log2(first[both]) - torch.log2(second[both])
        level = first[both]
        lit.add(ratios)
        usual.add(ratios[(level > FITTED[0]) & (level < FITTED[1])])
    chosen = usual if usual.count * 100 >= lit.count else lit
    if not chosen.count:
        raise InputError(
            f"{lights[1].frame.name}: is black where {lights[0].frame.name} is lit, no scale fits; "
            "leave out --fit-scale"
        )
    return float(2.0 ** chosen.quantile(0.5))


def _brightness(linear: Tensor, primaries: Primaries) -> Tensor:
    return luminance(linear, primaries) if primaries in CHROMATICITIES else linear.mean(0, keepdim=True)


class _Values:
    """Values of pixels, gathered as float32 for a quantile of all of them."""

    def __init__(self, lights: tuple[Light, Light]) -> None:
        frame = lights[0].frame
        self._room = torch.empty(frame.height * frame.width, dtype=torch.float32)
        self.count = 0
        self.total = 0.0

    def add(self, values: Tensor) -> None:
        self._room[self.count : self.count + values.numel()] = values.flatten()
        self.count += values.numel()
        self.total += float(values.sum())

    def quantile(self, share: float) -> float:
        """The value that ``share`` of all do not exceed. The order of the values is lost."""
        values = self._room[: self.count].numpy()
        at = max(0, round(share * self.count) - 1)
        values.partition(at)
        return float(values[at])


@dataclass
class _Sums:
    """What is added up over the strips of two frames."""

    lights: tuple[Light, Light]
    white_nits: float
    largest: float
    squares: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    difference: float = 0.0
    ssim_sum: float = 0.0
    ssim_count: int = 0
    above: tuple[Tensor, Tensor, Tensor] | None = None

    def __post_init__(self) -> None:
        self.primaries = self.lights[0].primaries
        self.colorimetric = self.lights[0].channels == 1 or self.primaries in CHROMATICITIES
        self.colors = self.lights[0].channels == 3
        self.itp, self.angles = _Values(self.lights), _Values(self.lights)

    def add(self, good: Tensor, a: Tensor, b: Tensor) -> None:
        """One strip: finite pixels ``[h,W]``, linear values ``[C,h,W]``."""
        self.difference = max(self.difference, float((a - b).abs().max()))
        pu = [pu21_encode(values * self.white_nits) for values in (a, b)]
        self._square("pu21_psnr_db", good, pu[0] - pu[1])
        self._square("mu_law_psnr_db", good, mu_law(a / self.largest) - mu_law(b / self.largest))
        if self.colors:
            angle = _angle(a, b)
            self.angles.add(angle[torch.isfinite(angle) & good])
        if not self.colorimetric:
            return
        if self.colors:
            itp = delta_e_itp(*(rgb_to_ictcp(values, self.primaries, self.white_nits) for values in (a, b)))
            self.itp.add(itp[good])
            a, b = (luminance(values, self.primaries) for values in (a, b))
            pu = [pu21_encode(values * self.white_nits) for values in (a, b)]
            self._square("pu21_psnr_y_db", good, pu[0] - pu[1])
        darkest = DARKEST_NITS / self.white_nits
        a, b = (values.clamp(min=darkest).log2_() for values in (a, b))
        self._square("log2_rmse", good, a - b)
        self._windows(good, *(values.reshape(good.shape) for values in pu))

    def _square(self, name: str, good: Tensor, error: Tensor) -> None:
        """Pixels that are left out are 0 in both frames and add nothing."""
        self.squares[name] = self.squares.get(name, 0.0) + float(error.square_().sum())
        self.counts[name] = self.counts.get(name, 0) + int(good.sum()) * (error.numel() // good.numel())

    def _windows(self, good: Tensor, a: Tensor, b: Tensor) -> None:
        """SSIM of the windows that end in this strip; the last rows of the one above are kept for them."""
        if self.above is not None:
            good, a, b = (torch.cat(rows) for rows in zip(self.above, (good, a, b), strict=True))
        self.above = (good[-OVERLAP:], a[-OVERLAP:], b[-OVERLAP:])
        if min(good.shape) < WINDOW:
            return
        inside = windows_inside(good)
        self.ssim_sum += float(torch.where(inside, ssim_map(a, b, PEAK), 0).sum())
        self.ssim_count += int(inside.sum())

    def results(self) -> dict[str, Any]:
        """The measures by name."""
        means = {name: self.squares[name] / self.counts[name] for name in self.squares}
        peaks = {"pu21_psnr_db": PEAK, "pu21_psnr_y_db": PEAK, "mu_law_psnr_db": 1.0}
        found: dict[str, Any] = {
            name: 10 * math.log10(peak * peak / means[name]) if means[name] else None
            for name, peak in peaks.items()
            if name in means
        }
        if self.ssim_count:
            found["pu21_ssim"] = self.ssim_sum / self.ssim_count
        if "log2_rmse" in means:
            found["log2_rmse"] = math.sqrt(means["log2_rmse"])
        if self.itp.count:
            found["delta_e_itp_mean"] = self.itp.total / self.itp.count
            found["delta_e_itp_p95"] = self.itp.quantile(0.95)
        if self.angles.count:
            found["rgb_angle_median_deg"] = self.angles.quantile(0.5)
        return {**found, "largest_difference": self.difference}


def _angle(a: Tensor, b: Tensor) -> Tensor:
    """The angle in degrees between two RGB colours ``[3,...]``, as ``[...]``; NaN where one is black."""
    cross = torch.linalg.cross(a, b, dim=0).square_().sum(0).sqrt_()
    angle = torch.rad2deg(torch.atan2(cross, (a * b).sum(0)))
    return torch.where(a.any(0) & b.any(0), angle, math.nan)
