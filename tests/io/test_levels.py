"""Levels that are measured because files state others: black on the masked border, saturation by its pile."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from restorekit.io.optical_black import measured_black
from restorekit.io.raw import stated_white
from restorekit.io.saturation import saturation_level

BLACKS = np.array([[512, 514], [509, 511]], np.float32)
STATED = np.full((1, 1, 1), 518, np.float32)


def sensor(border: int = 48, noise: float = 12.0) -> tuple[NDArray[np.uint16], tuple[int, int, int, int]]:
    """A mosaic with light to the right of a masked border, its area starting at an odd column."""
    random = np.random.default_rng(3)
    height, width = 200, 300
    top, left = 10, border + border % 2 + 1
    black = np.empty((height, width), np.float32)
    for y in range(2):
        for x in range(2):
            black[(top + y) % 2 :: 2, (left + x) % 2 :: 2] = BLACKS[y, x]
    mosaic = black + random.normal(0, noise, black.shape)
    mosaic[top:, left:] += 3000
    return np.clip(np.rint(mosaic), 0, 16383).astype(np.uint16), (top, left, height, width)


def test_black_is_measured_at_every_site_of_the_cell() -> None:
    mosaic, area = sensor()
    mosaic[40:60, 20] = 16000
    found = measured_black(mosaic, area, STATED, 16383)
    assert found is not None
    np.testing.assert_allclose(found[..., 0], BLACKS, atol=0.7)


def test_what_is_not_sure_to_be_black_is_not_taken() -> None:
    mosaic, area = sensor()
    assert measured_black(mosaic, area, STATED + 100, 16383) is None, "too far from the stated level"
    assert measured_black(mosaic[:, area[1] - 6 :], (area[0], 6, 200, 250), STATED, 16383) is None, "too narrow"
    quiet, area = sensor(noise=1.0)
    assert measured_black(quiet, area, STATED, 16383) is None, "beyond the noise of a photosite"


def test_the_named_masked_areas_are_measured() -> None:
    """Rectangles that begin at any phase of the cell, and reach beyond the sensor."""
    mosaic, area = sensor(border=12)
    assert measured_black(mosaic, area, STATED, 16383) is None, "its border alone is too narrow"
    found = measured_black(mosaic, area, STATED, 16383, ((0, 0, 10, 999), (11, 1, 200, 11), (300, 300, 310, 310)))
    assert found is not None
    np.testing.assert_allclose(found[..., 0], BLACKS, atol=0.7)
    assert measured_black(mosaic, area, STATED, 16383, ((12, 20, 40, 60),)) is None, "there is light in it"
    assert measured_black(mosaic, area, STATED, 16383, ((0, 0, 4, 30),)) is None, "too few photosites"


def test_a_level_of_the_file_goes_before_that_of_the_camera() -> None:
    """Canon's maker notes tell the level of each channel for the ISO of the shot."""
    assert stated_white(16383, (13520, 13500, 13510, 13500), 2048) == 13500
    assert stated_white(16383, None, 2048) == 16383
    assert stated_white(16383, (), 2048) == 16383
    assert stated_white(16383, (13500, 0, 0, 0), 2048) == 16383, "a channel without a level"


def saturated(level: float, spread: float, colours: str) -> NDArray[np.uint16]:
    random = np.random.default_rng(4)
    mosaic = random.uniform(200, 3000, (128, 128))
    for y, row in enumerate(("RG", "GB")):
        for x, colour in enumerate(row):
            if colour in colours:
                clipped = random.normal(level, spread, (20, 64))
                mosaic[y::2, x::2][:20] = clipped
    return np.clip(np.rint(mosaic), 0, 4095).astype(np.uint16)


def test_a_pile_of_two_colours_is_where_the_sensor_saturates() -> None:
    assert abs(saturation_level(saturated(3815, 6, "RGB"), ("RG", "GB"), 4095) - 3815) < 10
    assert abs(saturation_level(saturated(3815, 6, "GB"), ("RG", "GB"), 4095) - 3815) < 10


def test_other_bright_parts_leave_the_stated_level() -> None:
    assert saturation_level(saturated(3815, 6, "G"), ("RG", "GB"), 4095) == 4095, "one colour may be a surface"
    assert saturation_level(saturated(3300, 150, "RGB"), ("RG", "GB"), 4095) == 4095, "a bright surface is spread out"
    assert saturation_level(saturated(4095, 0, "RGB"), ("RG", "GB"), 4095) == 4095
    assert saturation_level(saturated(2000, 5, "RGB"), ("RG", "GB"), 4095) == 4095, "nothing is bright"
