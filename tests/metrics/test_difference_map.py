"""The map of differences agrees with the measures, and says nothing where there is none."""

from __future__ import annotations

import math

import pytest
import torch

from restorekit.frame import Frame
from restorekit.metrics import light
from restorekit.metrics.compare import compare_frames
from restorekit.metrics.difference_map import difference_map
from restorekit.state import SHORTHANDS, ImageState

SCENE, PHOTO = SHORTHANDS["scene-linear"], SHORTHANDS["display-srgb"]
GRAY, GRAY_SCENE = ImageState("gray"), ImageState("gray", "scene", "linear", "bt709")
RNG = torch.Generator().manual_seed(0)


def pair(state: ImageState) -> tuple[Frame, Frame]:
    """A frame, and the same with its middle darker."""
    pixels = torch.rand(3 if state.layout == "rgb" else 1, 40, 30, generator=RNG) * 0.8 + 0.1
    other = pixels.clone()
    other[:, 10:20, 5:15] *= 0.5
    return Frame(pixels, state), Frame(other, state)


@pytest.mark.parametrize("state", [PHOTO, SCENE, GRAY, GRAY_SCENE], ids=str)
def test_differences_are_where_the_frames_differ(state: ImageState, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(light, "strip_rows", lambda width: 7)
    first, second = pair(state)
    found = difference_map(first, second, white_nits=203)
    assert found is not None and found.values.shape == (40, 30) and float(found.values.min()) == 0
    inside = torch.zeros(40, 30, dtype=torch.bool)
    inside[10:20, 5:15] = True
    assert torch.equal(found.values > 0, inside)
    equal = difference_map(first, first, white_nits=203)
    assert equal is not None and not equal.values.any()


@pytest.mark.parametrize(("state", "name"), [(PHOTO, "ciede2000_mean"), (SCENE, "delta_e_itp_mean")])
def test_its_mean_is_that_of_the_measures(state: ImageState, name: str) -> None:
    first, second = pair(state)
    found = difference_map(first, second, white_nits=150)
    assert found is not None
    assert float(found.values.mean()) == pytest.approx(compare_frames(first, second, white_nits=150)[name], rel=1e-5)


def test_the_scale_and_the_units() -> None:
    first, _ = pair(GRAY_SCENE)
    twice = difference_map(first, Frame(first.pixels * 2, GRAY_SCENE), white_nits=203)
    fitted = difference_map(first, Frame(first.pixels * 2, GRAY_SCENE), white_nits=203, scale=0.5)
    assert twice is not None and fitted is not None
    assert twice.values.numpy() == pytest.approx(1.0, abs=1e-5) and twice.measure == "difference in stops"
    assert not fitted.values.any()
    gray = difference_map(*pair(GRAY), white_nits=203)
    assert gray is not None and 5 <= float(gray.values.max()) <= 45  # half of 0.1 to 0.9, in percent


def test_pixels_that_are_not_finite_count_as_equal() -> None:
    first, second = pair(PHOTO)
    second.pixels[1, 12, 8], second.pixels[0, 0, 0] = math.nan, math.inf
    found = difference_map(first, second, white_nits=203)
    assert found is not None and found.values[12, 8] == 0 and found.values[0, 0] == 0


def test_an_hdr_frame_and_a_picture_have_no_scale_in_common() -> None:
    assert difference_map(pair(SCENE)[0], pair(PHOTO)[0], white_nits=203) is None
