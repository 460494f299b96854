"""ICtCp and its colour difference, against colour-science and the recommendations."""

from __future__ import annotations

import colour
import numpy as np
import pytest
import torch

from restorekit.color.ictcp import delta_e_itp, rgb_to_ictcp
from restorekit.color.primaries import conversion

RNG = np.random.default_rng(0)
LIGHT = RNG.random((3, 400)) ** 4 * 20
OTHER = LIGHT * RNG.uniform(0.8, 1.2, (3, 400))


@pytest.mark.parametrize("white_nits", [100.0, 203.0])
def test_ictcp_is_that_of_colour_science(white_nits: float) -> None:
    ours = rgb_to_ictcp(torch.from_numpy(LIGHT), "bt2020", white_nits)
    theirs = colour.RGB_to_ICtCp(LIGHT.T * white_nits, method="ITU-R BT.2100-2 PQ", L_p=10000)
    assert np.abs(ours.numpy().T - theirs).max() < 1e-9


def test_difference_is_that_of_colour_science() -> None:
    first, second = (rgb_to_ictcp(torch.from_numpy(light), "bt2020") for light in (LIGHT, OTHER))
    theirs = colour.difference.delta_E_ITP(first.numpy().T, second.numpy().T)
    ours = delta_e_itp(first, second).numpy()
    assert np.abs(ours - theirs).max() < 1e-9 and ours.mean() > 1


def test_gray_has_no_colour_and_pq_for_intensity() -> None:
    gray = torch.full((3, 2), 100 / 203, dtype=torch.float64)
    intensity, tritan, protan = rgb_to_ictcp(gray, "bt2020")
    assert intensity.numpy() == pytest.approx(0.508078, abs=1e-6)  # PQ of 100 cd/m2
    assert max(float(tritan.abs().max()), float(protan.abs().max())) < 1e-12


def test_other_primaries_are_converted() -> None:
    light = torch.from_numpy(LIGHT)
    wide = torch.from_numpy(conversion("bt709", "bt2020") @ LIGHT)
    assert torch.allclose(rgb_to_ictcp(light, "bt709"), rgb_to_ictcp(wide, "bt2020"), atol=1e-9)


def test_float32_and_what_no_display_shows() -> None:
    light = torch.from_numpy(np.concatenate([LIGHT, -LIGHT, np.zeros((3, 1))], axis=1))
    exact = rgb_to_ictcp(light, "bt2020")
    single = rgb_to_ictcp(light.float(), "bt2020")
    assert (single.double() - exact).abs().max() < 1e-4
    assert torch.equal(rgb_to_ictcp(-light.abs(), "bt2020"), rgb_to_ictcp(light * 0, "bt2020"))
