"""TMQI against the paper's equations written out once more, and in cases whose result can be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.stats import beta, norm

from restorekit.metrics.tmqi import MINIMUM, naturalness, tmqi

Plane = NDArray[np.float64]
RNG = np.random.default_rng(0)


def scene(height: int, width: int) -> Plane:
    """Luminance of three decades with detail at all sizes."""
    layers = sum(gaussian_filter(RNG.normal(size=(height, width)), s) * s for s in (1, 4, 16, 40))
    return 10.0 ** np.asarray(layers / np.abs(layers).max() * 1.5)


def rendered(light: Plane) -> Plane:
    """A plausible picture of it, 0..255."""
    scaled = light / np.exp(np.log(light).mean()) * 0.18
    return np.round((scaled / (1 + scaled)) ** (1 / 2.2) * 255)


def equations(hdr: Plane, sdr: Plane) -> tuple[float, float, float]:
    """Q, S and N by the equations, without strips, for images without gaps."""
    side = [size // 11 * 11 for size in sdr.shape]
    blocks = sdr[: side[0], : side[1]].reshape(side[0] // 11, 11, side[1] // 11, 11)
    contrast = blocks.std(axis=(1, 3), ddof=1).mean() / 64.29
    most = beta.pdf((4.4 - 1) / (4.4 + 10.1 - 2), 4.4, 10.1)
    natural = norm.pdf(sdr.mean(), 115.94, 27.99) / norm.pdf(0, 0, 27.99) * beta.pdf(contrast, 4.4, 10.1) / most

    def mean(x: Plane) -> Plane:
        blurred: Plane = gaussian_filter(x, 1.5, radius=5)[5:-5, 5:-5]
        return blurred

    a, b = (hdr - hdr.min()) / (hdr.max() - hdr.min()) * (2.0**32 - 1), sdr
    fidelity = 1.0
    for f, weight in zip((16, 8, 4, 2, 1), (0.0448, 0.2856, 0.3001, 0.2363, 0.1333), strict=True):
        ma, mb = mean(a), mean(b)
        sa, sb = np.sqrt(np.maximum(mean(a * a) - ma * ma, 0)), np.sqrt(np.maximum(mean(b * b) - mb * mb, 0))
        both = mean(a * b) - ma * mb
        threshold = 128 / (math.sqrt(2) * 100 * 2.6 * (0.0192 + 0.114 * f) * math.exp(-((0.114 * f) ** 1.1)))
        pa, pb = norm.cdf(sa, threshold, threshold / 3), norm.cdf(sb, threshold, threshold / 3)
        score = (2 * pa * pb + 0.01) / (pa * pa + pb * pb + 0.01) * (both + 10) / (sa * sb + 10)
        fidelity *= max(score.mean(), 0) ** weight
        pad = [(0, size % 2) for size in a.shape]
        a, b = (np.pad(x, pad, mode="edge") for x in (a, b))
        a, b = ((x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4 for x in (a, b))
    return 0.8012 * fidelity**0.3046 + (1 - 0.8012) * natural**0.7088, fidelity, natural


@pytest.mark.parametrize("size", [(200, 300), (MINIMUM, MINIMUM), (333, 1201)])
def test_strips_give_what_the_equations_give(size: tuple[int, int]) -> None:
    light = scene(*size)
    picture = rendered(light)
    found = tmqi(torch.from_numpy(light), torch.from_numpy(picture))
    quality, fidelity, natural = equations(light, picture)
    assert found.fidelity == pytest.approx(fidelity, abs=1e-5)
    assert found.naturalness == pytest.approx(natural, abs=1e-6) and natural > 0.01
    assert found.quality == pytest.approx(quality, abs=1e-5)


def test_a_picture_that_is_its_scene_keeps_all_structure() -> None:
    """Of checks of 16 px, which all five scales can show."""
    checks = (torch.arange(320)[:, None] // 16 + torch.arange(320) // 16) % 2 * 255.0
    found = tmqi(checks * 0.01, checks)
    assert found.scales == pytest.approx((1, 1, 1, 1, 1), abs=1e-3)
    assert tmqi(checks * 0.01, 255 - checks).fidelity == 0


def test_a_flat_picture_of_a_scene_by_hand() -> None:
    """Contrast that is visible everywhere becomes none: one deviation is far above, one 3 sigma below the threshold."""
    light = torch.from_numpy(RNG.random((200, 200)))
    found = tmqi(light, torch.full((200, 200), 115.94))
    unseen = norm.cdf(-3)
    fidelity = ((2 * unseen + 0.01) / (1 + unseen**2 + 0.01)) ** 1.0001  # the sum of the weights
    assert found.fidelity == pytest.approx(fidelity, rel=1e-6)
    assert found.naturalness == 0
    assert found.quality == pytest.approx(0.8012 * fidelity**0.3046, rel=1e-6)


def test_scale_and_offset_of_the_scene_do_not_matter() -> None:
    light = scene(200, 220)
    picture = torch.from_numpy(rendered(light))
    first = tmqi(torch.from_numpy(light), picture)
    assert tmqi(torch.from_numpy(light * 37 + 5), picture).quality == pytest.approx(first.quality, abs=1e-6)


def test_fidelity_falls_with_noise_and_blur() -> None:
    light = scene(240, 240)
    picture = rendered(light)
    noise = RNG.normal(size=picture.shape)
    hdr = torch.from_numpy(light)
    noisy = [tmqi(hdr, torch.from_numpy(picture + s * noise).clamp(0, 255)).fidelity for s in (0, 3, 10, 30)]
    blurred = [tmqi(hdr, torch.from_numpy(gaussian_filter(picture, s))).fidelity for s in (0.01, 1, 3, 9)]
    assert noisy == sorted(noisy, reverse=True) and noisy[0] > 1.1 * noisy[-1]
    assert blurred == sorted(blurred, reverse=True) and blurred[0] > 1.2 * blurred[-1]
    assert tmqi(hdr, torch.from_numpy(255 - picture)).fidelity < 0.01


def test_naturalness_is_one_at_the_modes_of_its_densities() -> None:
    contrast = 3.4 / 12.5 * 64.29
    signs = (torch.arange(220)[:, None] + torch.arange(220)) % 2 * 2.0 - 1
    flat = signs - signs.reshape(20, 11, 20, 11).mean((1, 3)).repeat_interleave(11, 0).repeat_interleave(11, 1)
    deviation = float(flat[:11, :11].std())
    assert naturalness(115.94 + flat.double() * contrast / deviation) == pytest.approx(1, abs=1e-3)
    assert naturalness(torch.full((50, 50), 115.94)) == 0


def test_gaps_are_left_out() -> None:
    light = scene(220, 230)
    picture = torch.from_numpy(rendered(light))
    whole = tmqi(torch.from_numpy(light), picture)
    broken = torch.from_numpy(light.copy())
    broken[100, 50:53] = math.nan
    broken[7, 7] = math.inf
    valid = torch.isfinite(broken)
    found = tmqi(broken, picture, valid)
    assert found.fidelity == pytest.approx(whole.fidelity, abs=0.01)
    assert found.naturalness == pytest.approx(whole.naturalness, abs=0.05)
    other = torch.where(valid, broken, 1e30)
    assert tmqi(other, torch.where(valid, picture, 0), valid) == found
    with pytest.raises(ValueError, match="finite"):
        tmqi(broken, picture)
    with pytest.raises(ValueError, match="valid"):
        tmqi(broken, picture, torch.zeros_like(valid))


@pytest.mark.parametrize("value", [0.0, 5.0])
def test_a_flat_scene_gives_numbers(value: float) -> None:
    found = tmqi(torch.full((170, 170), value), torch.full((170, 170), 100.0))
    assert found.fidelity == pytest.approx(1) and found.naturalness == 0


def test_small_or_different_images_are_refused() -> None:
    with pytest.raises(ValueError, match="161x161"):
        tmqi(torch.rand(160, 200), torch.rand(160, 200))
    with pytest.raises(ValueError, match="one shape"):
        tmqi(torch.rand(200, 200), torch.rand(200, 201))
