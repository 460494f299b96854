"""The DNG colour model against cameras whose true colours are known."""

from __future__ import annotations

from dataclasses import replace

import colour
import numpy as np
import pytest
from numpy.typing import NDArray

from restorekit.color.adaptation import D50, D65, adaptation, white_xyz
from restorekit.color.camera import (
    camera_to_rgb,
    camera_to_xyz_d50,
    hue_sat_map,
    illuminant_temperature_k,
    neutral_of_white,
    temperature_of_neutral,
    white_of_neutral,
    white_of_spectrum,
    xyz_to_camera,
)
from restorekit.color.primaries import conversion, rgb_to_xyz
from restorekit.color.temperature import temperature_and_duv, xy_from_temperature
from restorekit.errors import InputError
from restorekit.facts import Calibration, Camera, Matrix

WARM = np.array([[0.75, -0.20, -0.06], [-0.45, 1.30, 0.15], [-0.05, 0.20, 0.55]])
COOL = np.array([[0.68, -0.15, -0.08], [-0.48, 1.25, 0.22], [-0.08, 0.22, 0.62]])
INDIVIDUAL = np.array([[1.02, 0.01, 0.0], [0.0, 0.99, 0.01], [0.005, 0.0, 1.03]])
BALANCE = (0.9, 1.0, 1.1)
A = (0.44758, 0.40745)
COLORS = np.random.default_rng(1).uniform(0.05, 1, (3, 20))
"""XYZ of twenty surfaces under the light at hand."""


def dual(**changes: Matrix | None) -> Camera:
    return Camera("Test", "Dual", calibrations=(Calibration(2856, WARM, **changes), Calibration(6504, COOL, **changes)))


def blend(temperature_k: float) -> Matrix:
    share = np.clip((1 / temperature_k - 1 / 6504) / (1 / 2856 - 1 / 6504), 0, 1)
    return share * WARM + (1 - share) * COOL


def test_colour_matrices_are_linear_in_reciprocal_temperature() -> None:
    halfway = 2 / (1 / 2856 + 1 / 6504)
    assert np.allclose(xyz_to_camera(dual(), halfway), (WARM + COOL) / 2)
    assert np.allclose(xyz_to_camera(dual(), 5000), blend(5000))


def test_colour_matrices_stay_constant_outside_the_calibrations() -> None:
    assert np.allclose(xyz_to_camera(dual(), 2000), WARM)
    assert np.allclose(xyz_to_camera(dual(), 12000), COOL)


def test_a_third_calibration_lies_between_its_neighbours() -> None:
    middle = (WARM + COOL) / 2 + 0.05
    camera = Camera(calibrations=(Calibration(6504, COOL), Calibration(4150, middle), Calibration(2856, WARM)))
    assert np.allclose(xyz_to_camera(camera, 4150), middle)
    assert np.allclose(xyz_to_camera(camera, 2 / (1 / 4150 + 1 / 6504)), (middle + COOL) / 2)


@pytest.mark.parametrize("white", [A, D50, D65, (0.40, 0.395), (0.32, 0.36), xy_from_temperature(9000)])
def test_the_white_is_found_from_its_neutral(white: tuple[float, float]) -> None:
    camera = Camera("T", "C", calibrations=dual(camera_calibration=INDIVIDUAL).calibrations, analog_balance=BALANCE)
    temperature_k = temperature_and_duv(white)[0]
    response = np.diag(BALANCE) @ INDIVIDUAL @ blend(temperature_k) @ white_xyz(white)
    neutral = tuple((response / response[1]).tolist())
    assert neutral_of_white(camera, white) == pytest.approx(neutral)
    assert white_of_neutral(camera, neutral) == pytest.approx(white, abs=1e-6)
    assert temperature_of_neutral(camera, neutral) == pytest.approx(temperature_k, rel=1e-4)


@pytest.mark.parametrize("white", [A, D50, (0.40, 0.395)])
def test_without_forward_matrix_colours_are_adapted_to_d50(white: tuple[float, float]) -> None:
    """A camera that obeys its colour matrices gives the true XYZ, Bradford-adapted, with Y of the white 1."""
    camera = Camera("T", "C", calibrations=dual(camera_calibration=INDIVIDUAL).calibrations, analog_balance=BALANCE)
    neutral = neutral_of_white(camera, white)
    sensor = np.diag(BALANCE) @ INDIVIDUAL @ blend(temperature_and_duv(white)[0])
    level = (sensor @ white_xyz(white))[1]
    seen = camera_to_xyz_d50(camera, neutral) @ (sensor @ COLORS / level)
    assert np.allclose(seen, adaptation(white, D50) @ COLORS, atol=1e-5)


def forward_of(color_matrix: Matrix, white: tuple[float, float]) -> Matrix:
    """The forward matrix that says the same as a colour matrix: ``CAT * inv(CM) * diag(neutral)``."""
    neutral = color_matrix @ white_xyz(white)
    return adaptation(white, D50) @ np.linalg.inv(color_matrix) @ np.diag(neutral)


@pytest.mark.parametrize(("white", "matrix"), [(A, WARM), (D65, COOL)])
def test_both_paths_agree_at_a_calibration_light(white: tuple[float, float], matrix: Matrix) -> None:
    """At its own light, an equivalent forward matrix gives what the colour matrix gives."""
    lights = {"A": (2856.0, A, WARM), "D65": (6504.0, D65, COOL)}
    plain = Camera("T", "C", calibrations=dual(camera_calibration=INDIVIDUAL).calibrations, analog_balance=BALANCE)
    forward = Camera(
        "T",
        "C",
        calibrations=tuple(Calibration(t, cm, forward_of(cm, w), INDIVIDUAL) for t, w, cm in lights.values()),
        analog_balance=BALANCE,
    )
    response = np.diag(BALANCE) @ INDIVIDUAL @ matrix @ white_xyz(white)
    neutral = tuple((response / response[1]).tolist())
    assert np.allclose(camera_to_xyz_d50(forward, neutral), camera_to_xyz_d50(plain, neutral), atol=2e-3)


def test_forward_path_is_the_formula_of_the_specification() -> None:
    forward = forward_of(COOL, D65) @ (np.eye(3) + 0.05 * np.array([[1, -1, 0], [0, 1, -1], [-1, 0, 1]]))
    camera = Camera("T", "C", calibrations=(Calibration(6504, COOL, forward, INDIVIDUAL),), analog_balance=BALANCE)
    neutral = np.array([0.5, 1.0, 0.7])
    ab_cc = np.diag(BALANCE) @ INDIVIDUAL
    reference = np.linalg.inv(ab_cc) @ neutral
    expected = forward @ np.linalg.inv(np.diag(reference)) @ np.linalg.inv(ab_cc)
    assert np.allclose(camera_to_xyz_d50(camera, (0.5, 1.0, 0.7)), expected, atol=1e-9)


def test_a_lone_forward_matrix_serves_all_temperatures() -> None:
    forward = forward_of(COOL, D65)
    camera = Camera(calibrations=(Calibration(2856, WARM), Calibration(6504, COOL, forward)))
    for white in (A, D50):
        neutral = neutral_of_white(camera, white)
        expected = forward @ np.diag(1 / np.array(neutral))
        assert np.allclose(camera_to_xyz_d50(camera, neutral), expected, atol=1e-9)


@pytest.mark.parametrize("scaled", [1.0, 0.37])
@pytest.mark.parametrize("with_forward", [False, True])
@pytest.mark.parametrize("neutral", [(0.5, 1.0, 0.7), (0.8, 1.0, 0.35), (0.45, 0.9, 0.8)])
def test_the_neutral_becomes_white(neutral: tuple[float, float, float], with_forward: bool, scaled: float) -> None:
    """Also with a forward matrix that is not normalised."""
    matrices = {"forward_matrix": scaled * forward_of(COOL, D65)} if with_forward else {}
    camera = dual(**matrices)
    assert np.allclose(camera_to_xyz_d50(camera, neutral) @ neutral, white_xyz(D50), atol=1e-9)
    for primaries in ("bt2020", "bt709", "p3", "ap1", "prophoto"):
        assert np.allclose(camera_to_rgb(camera, neutral, primaries) @ neutral, 1, atol=1e-9)


def test_targets_differ_by_their_conversion() -> None:
    neutral = (0.5, 1.0, 0.7)
    through = conversion("bt2020", "bt709") @ camera_to_rgb(dual(), neutral, "bt2020")
    assert np.allclose(camera_to_rgb(dual(), neutral, "bt709"), through, atol=1e-9)


def test_a_camera_with_srgb_primaries_gives_its_own_rgb_back() -> None:
    to_camera = np.linalg.inv(rgb_to_xyz("bt709"))
    camera = Camera(calibrations=(Calibration(6504, to_camera),))
    assert np.allclose(camera_to_rgb(camera, (1.0, 1.0, 1.0), "bt709"), np.eye(3), atol=1e-6)


def test_what_cannot_be_solved_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="Blind Cam has no colour matrix"):
        temperature_of_neutral(Camera("Blind", "Cam"), (0.5, 1.0, 0.7))
    with pytest.raises(InputError, match="cannot be inverted"):
        camera_to_rgb(Camera(calibrations=(Calibration(6504, np.zeros((3, 3))),)), (0.5, 1.0, 0.7), "bt709")
    with pytest.raises(InputError, match="no light gives Test Dual"):
        camera_to_rgb(dual(), (0.01, 0.01, 5.0), "bt709")


def test_light_source_codes() -> None:
    assert illuminant_temperature_k(17) == 2856
    assert illuminant_temperature_k(21) == 6504
    assert all(illuminant_temperature_k(code) is not None for code in (1, 2, 3, 4, *range(9, 17), *range(17, 25)))
    assert [illuminant_temperature_k(code) for code in (0, 5, 255)] == [None, None, None]


def table(shift: float) -> NDArray[np.float32]:
    return np.tile(np.array([shift, 1 + shift / 100, 1], np.float32), (1, 6, 4, 1))


def test_tables_are_interpolated_like_matrices() -> None:
    """Linear in reciprocal temperature: at the harmonic mean, the mean."""
    warm, cool = Calibration(2856, WARM, hue_sat_map=table(-20)), Calibration(6504, COOL, hue_sat_map=table(10))
    camera = Camera("Test", "Tables", calibrations=(warm, cool))
    for temperature_k, wanted in ((2856, -20), (2 / (1 / 2856 + 1 / 6504), -5), (6504, 10), (2000, -20), (9000, 10)):
        blended = hue_sat_map(camera, neutral_of_white(camera, xy_from_temperature(temperature_k)))
        assert blended is not None
        assert np.allclose(blended, table(wanted), atol=0.01)


def test_a_lone_table_serves_all_lights_and_no_table_none() -> None:
    camera = Camera(calibrations=(Calibration(2856, WARM), Calibration(6504, COOL, hue_sat_map=table(10))))
    blended = hue_sat_map(camera, neutral_of_white(camera, A))
    assert blended is not None
    assert np.allclose(blended, table(10))
    assert hue_sat_map(dual(), (0.5, 1.0, 0.7)) is None


def test_of_two_calibrations_for_one_temperature_the_later_counts() -> None:
    """The third calibration of a DNG is meant for the light of the shot."""
    shot = COOL + 0.03
    camera = Camera(calibrations=(Calibration(2856, WARM), Calibration(6504, COOL), Calibration(6504, shot)))
    assert np.allclose(xyz_to_camera(camera, 6504), shot)
    assert np.allclose(xyz_to_camera(camera, 9000), shot)
    assert np.allclose(xyz_to_camera(camera, 2 / (1 / 2856 + 1 / 6504)), (WARM + shot) / 2)


def test_cameras_that_differ_in_colour_are_not_taken_for_each_other() -> None:
    neutral = (0.5, 1.0, 0.7)
    camera = dual()
    same = replace(camera, baseline_exposure_ev=1.0)
    assert camera_to_rgb(same, neutral, "bt2020") is camera_to_rgb(camera, neutral, "bt2020")
    other = replace(camera, analog_balance=BALANCE)
    assert not np.allclose(camera_to_rgb(other, neutral, "bt2020"), camera_to_rgb(camera, neutral, "bt2020"))


@pytest.mark.parametrize(
    ("name", "every"), [("A", 1), ("A", 4), ("C", 4), ("D50", 4), ("D65", 1), ("FL2", 1), ("FL11", 1), ("LED-B3", 1)]
)
def test_the_white_of_a_spectrum(name: str, every: int) -> None:
    """Against CIE 1931 xy from colour-science, with samples every 5 or 20 nm."""
    light = colour.SDS_ILLUMINANTS[name].copy().interpolate(colour.SpectralShape(380, 780, 5))
    found = white_of_spectrum(light.wavelengths[::every], light.values[::every])
    expected = colour.CCS_ILLUMINANTS["CIE 1931 2 Degree Standard Observer"][name]
    assert np.allclose(found, expected, atol=0.002)
