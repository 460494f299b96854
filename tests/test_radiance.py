"""Known light in, the same light out: synthetic RAW files of a known scene through the shipped pipelines.

What the camera records is computed here with plain numpy from the DNG specification (1.7, chapters 5 and 6), with
constants of the standards written out, so that a mistake of the colour code cannot cancel itself. Nothing is
rescaled before comparing: a surface of radiance 1.0 and the colour of the light puts green at the white level.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import OpenEXR
import pytest
import tifffile
from numpy.typing import NDArray

from restorekit.facts import Calibration, Camera, Metadata
from restorekit.frame import BayerPattern, Frame
from restorekit.io.dng.write import write_dng
from restorekit.jobs import plan
from restorekit.pipeline import Pipeline
from restorekit.runner import Runner

Array = NDArray[np.float64]

ANGLE_DEG, PSNR_DB = 0.5, 40.0
"""The bars: mean angle between true and found RGB, and PSNR with the largest true value as peak."""
FLAT = 5e-4
"""And where neither edges nor texture are: the largest error of any channel, as a share of the white level."""

HEIGHT, WIDTH = 160, 216
WHITE = 16383
BLACK = (513, 509, 517, 511)
PHASES: tuple[BayerPattern, ...] = ("RGGB", "BGGR", "GRBG", "GBRG")
GRAY = slice(64, 96), slice(88, 128)
"""The inside of the flat gray patch, whose radiance is 0.5 in every channel."""

LIGHT_XY, LIGHT_K = (0.4091, 0.3941), 3446.0
"""CIE illuminant FL3 (CIE 15, fluorescent lamps), at two thirds of the way from D65 to A in reciprocal kelvin."""
A_K, D65_K = 2856.0, 6504.0
D65_XY, D50_XY = (0.3127, 0.3290), (0.3457, 0.3585)

REC2020_XY = np.array([(0.708, 0.292), (0.170, 0.797), (0.131, 0.046)])
BRADFORD = np.array([(0.8951, 0.2664, -0.1614), (-0.7502, 1.7135, 0.0367), (0.0389, -0.0685, 1.0296)])

COLOR_A = np.array([(0.98, -0.36, -0.08), (-0.40, 1.18, 0.26), (-0.04, 0.14, 0.58)])
COLOR_D65 = np.array([(0.66, -0.16, -0.09), (-0.50, 1.32, 0.20), (-0.12, 0.26, 0.70)])
FORWARD_A = np.array([(0.72, 0.14, 0.1043), (0.30, 0.82, -0.12), (0.04, -0.26, 1.0451)])
FORWARD_D65 = np.array([(0.58, 0.28, 0.1043), (0.22, 0.86, -0.08), (0.01, -0.10, 0.9151)])
INDIVIDUAL_A = np.array([(1.04, 0.06, -0.05), (-0.03, 0.98, 0.05), (0.04, -0.06, 0.94)])
INDIVIDUAL_D65 = np.array([(0.95, 0.04, -0.02), (-0.05, 1.02, 0.04), (0.01, -0.05, 1.07)])
BALANCE = (1.6, 1.0, 0.7)


@dataclass(frozen=True)
class Model:
    """Which tags of the DNG colour model a camera carries beside its two colour matrices."""

    forward: bool = False
    individual: bool = False

    def camera(self) -> Camera:
        lights = (
            (A_K, COLOR_A, FORWARD_A, INDIVIDUAL_A),
            (D65_K, COLOR_D65, FORWARD_D65, INDIVIDUAL_D65),
        )
        return Camera(
            make="Synthetic",
            model="Two",
            calibrations=tuple(
                Calibration(k, color, forward if self.forward else None, own if self.individual else None)
                for k, color, forward, own in lights
            ),
            analog_balance=BALANCE if self.individual else (1.0, 1.0, 1.0),
        )


MODELS = (Model(), Model(forward=True), Model(individual=True), Model(forward=True, individual=True))
MODEL_NAMES = ("matrices", "forward", "individual", "forward-individual")
FULL = MODELS[-1]


def xyz(xy: tuple[float, float]) -> Array:
    return np.array([xy[0] / xy[1], 1.0, (1 - xy[0] - xy[1]) / xy[1]])


def rec2020_to_xyz() -> Array:
    """SMPTE RP 177 for the primaries and white of ITU-R BT.2020."""
    columns = np.stack([xyz((x, y)) for x, y in REC2020_XY], axis=1)
    return np.asarray(columns * np.linalg.solve(columns, xyz(D65_XY)), np.float64)


def bradford(source: Array, target: Array) -> Array:
    gains = np.diag(BRADFORD @ target / (BRADFORD @ source))
    return np.asarray(np.linalg.inv(BRADFORD) @ gains @ BRADFORD, np.float64)


def at_light(warm: Array, cool: Array) -> Array:
    """The matrix for the light, linear in the reciprocal of its temperature."""
    share = (1 / LIGHT_K - 1 / D65_K) / (1 / A_K - 1 / D65_K)
    return share * warm + (1 - share) * cool


def sensor_of_radiance(model: Model) -> tuple[Array, Array]:
    """``[3,3]`` linear Rec.2020 to camera RGB under the light, and the camera's neutral ``[3]``, green = 1."""
    own = np.diag(BALANCE) @ at_light(INDIVIDUAL_A, INDIVIDUAL_D65) if model.individual else np.eye(3)
    color = own @ at_light(COLOR_A, COLOR_D65)
    white = color @ xyz(LIGHT_XY)
    neutral = white / white[1]
    if model.forward:
        balanced_to_d50 = at_light(FORWARD_A, FORWARD_D65)
        to_camera = own @ np.diag(np.linalg.solve(own, neutral)) @ np.linalg.inv(balanced_to_d50)
        return to_camera @ bradford(xyz(D65_XY), xyz(D50_XY)) @ rec2020_to_xyz(), neutral
    return color @ bradford(xyz(D65_XY), xyz(LIGHT_XY)) @ rec2020_to_xyz() / white[1], neutral


def radiance() -> Array:
    """The scene ``[H,W,3]`` in linear Rec.2020: soft-edged colours, a gradient, texture, a flat gray patch."""
    random = np.random.default_rng(3)
    hues = random.dirichlet((1.6, 1.6, 1.6), (5, 7)) * 0.75 + 0.09
    patches = hues * random.uniform(0.45, 0.9, (5, 7, 1))
    scene = cv2.resize(patches, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    gradient = np.stack([x / WIDTH, y / HEIGHT, 1 - x / WIDTH], axis=2) * 0.5 + 0.1
    scene[-40:] = gradient[-40:]
    scene *= 1 + 0.1 * (np.sin(x / 2.1) * np.cos(y / 2.7))[..., None] * (y < 56)[..., None]
    scene[48:112, 72:144] = 0.5
    return np.asarray(cv2.GaussianBlur(scene, (0, 0), 2.5), np.float64)


def record(
    path: Path,
    pattern: BayerPattern,
    model: Model,
    *,
    deltas: bool = False,
    changed: Callable[[Camera], Camera] = lambda camera: camera,
    said: BayerPattern | None = None,
    orientation: int = 1,
) -> Path:
    """A DNG of the scene; ``changed`` and ``said`` make the file tell something else than what was recorded."""
    to_camera, neutral = sensor_of_radiance(model)
    light = radiance() @ to_camera.T
    assert light.min() > 0.005 and light.max() < 0.97, "the sensor sees all of the scene, and nothing clips"
    random = np.random.default_rng(5)
    rows = random.integers(-60, 60, HEIGHT) if deltas else np.zeros(HEIGHT, int)
    columns = random.integers(-60, 60, WIDTH) if deltas else np.zeros(WIDTH, int)
    black = np.tile(np.reshape(BLACK, (2, 2)), (HEIGHT // 2, WIDTH // 2)) + rows[:, None] + columns[None, :]
    sampled = np.empty((HEIGHT, WIDTH))
    for site, colour in enumerate(pattern):
        part = slice(site // 2, None, 2), slice(site % 2, None, 2)
        sampled[part] = light[(*part, "RGB".index(colour))]
    numbers = np.rint(black + sampled * (WHITE - black.max())).astype(np.uint16)
    camera = model.camera()
    if deltas:
        camera = replace(camera, black_rows=rows.astype(np.float32), black_columns=columns.astype(np.float32))
    red, green, blue = neutral.tolist()
    frame = Frame.from_bayer(
        numbers, pattern=said or pattern, black=BLACK, white=WHITE, neutral=(red, green, blue), camera=changed(camera)
    )
    write_dng(path, replace(frame, metadata=Metadata(orientation=orientation)))
    return path


def run(pipeline: str, source: Path, output: Path) -> Path:
    pipe = Pipeline.load(pipeline)
    runner = Runner(pipe, plan(pipe, [source], output))
    ((_, report),) = runner.run()
    assert report.status == "done" and not report.warnings, (report.error, report.warnings)
    return output


def developed(source: Path) -> Array:
    """What ``raw-to-linear-exr`` makes of a file, ``[H,W,3]``, read by OpenEXR itself."""
    output = run("raw-to-linear-exr", source, source.with_suffix(".exr"))
    with OpenEXR.File(str(output)) as file:
        assert file.header()["chromaticities"] == pytest.approx((*REC2020_XY.ravel(), *D65_XY), abs=1e-4)
        return np.asarray(file.channels()["RGB"].pixels, np.float64)


def errors(found: Array, truth: Array | None = None) -> tuple[float, float]:
    """Mean angle in degrees and PSNR in dB against the true radiance, without any rescaling."""
    truth = radiance() if truth is None else truth
    assert found.shape == truth.shape
    cosine = (found * truth).sum(2) / (np.linalg.norm(found, axis=2) * np.linalg.norm(truth, axis=2))
    angle = np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean()
    return float(angle), float(10 * np.log10(truth.max() ** 2 / np.mean((found - truth) ** 2)))


def passes(found: Array) -> bool:
    angle, psnr = errors(found)
    return angle <= ANGLE_DEG and psnr >= PSNR_DB


@pytest.mark.parametrize("model", MODELS, ids=MODEL_NAMES)
@pytest.mark.parametrize("pattern", PHASES)
def test_radiance_comes_back(pattern: BayerPattern, model: Model, tmp_path: Path) -> None:
    angle, psnr = errors(developed(record(tmp_path / "scene.dng", pattern, model)))
    assert angle <= ANGLE_DEG
    assert psnr >= PSNR_DB


@pytest.mark.parametrize("pattern", PHASES)
def test_radiance_comes_back_from_uneven_rows_and_columns(pattern: BayerPattern, tmp_path: Path) -> None:
    assert passes(developed(record(tmp_path / "scene.dng", pattern, FULL, deltas=True)))


UPRIGHT: dict[int, Callable[[Array], Array]] = {
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda stored: np.rot90(stored),
}
"""What to do with stored rows and columns for each TIFF 6.0 Orientation: 6 is a quarter turn clockwise."""


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_turned_camera_gives_an_upright_scene(orientation: int, tmp_path: Path) -> None:
    found = developed(record(tmp_path / "scene.dng", "GRBG", FULL, orientation=orientation))
    angle, psnr = errors(found, UPRIGHT[orientation](radiance()))
    assert angle <= ANGLE_DEG and psnr >= PSNR_DB


def flat_error(found: Array) -> float:
    """The largest error where the scene is flat: no interpolation errs there, only colour model and scale."""
    difference = np.abs(found - radiance()).max(axis=2)
    centres = (difference[y, x] for y in (80, 108) for x in (15, 46, 169, 200))
    return float(max(difference[GRAY].max(), *centres))


@pytest.mark.parametrize("model", MODELS, ids=MODEL_NAMES)
def test_flat_colours_come_back_to_half_a_thousandth_of_white(model: Model, tmp_path: Path) -> None:
    assert flat_error(developed(record(tmp_path / "scene.dng", "RGGB", model))) <= FLAT


def interpolated_in_kelvin(camera: Camera) -> Camera:
    share = (D65_K - LIGHT_K) / (D65_K - A_K)
    blend = share * COLOR_A + (1 - share) * COLOR_D65
    return replace(camera, calibrations=(Calibration(A_K, blend),))


def test_interpolation_in_kelvin_fails_that(tmp_path: Path) -> None:
    path = record(tmp_path / "scene.dng", "RGGB", Model(), changed=interpolated_in_kelvin)
    assert flat_error(developed(path)) > 10 * FLAT


@pytest.mark.parametrize("said", PHASES[1:])
def test_a_wrong_phase_fails(said: BayerPattern, tmp_path: Path) -> None:
    assert not passes(developed(record(tmp_path / "scene.dng", "RGGB", FULL, said=said)))


def only(index: int) -> Callable[[Camera], Camera]:
    return lambda camera: replace(camera, calibrations=camera.calibrations[index : index + 1])


def swapped(camera: Camera) -> Camera:
    warm, cool = camera.calibrations
    exchanged = (replace(cool, temperature_k=A_K), replace(warm, temperature_k=D65_K))
    return replace(camera, calibrations=exchanged)


def without_forward(camera: Camera) -> Camera:
    return replace(camera, calibrations=tuple(replace(known, forward_matrix=None) for known in camera.calibrations))


def without_individual(camera: Camera) -> Camera:
    return replace(camera, calibrations=tuple(replace(known, camera_calibration=None) for known in camera.calibrations))


def without_balance(camera: Camera) -> Camera:
    return replace(camera, analog_balance=(1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("changed", "model"),
    [
        pytest.param(only(0), Model(), id="only standard illuminant A"),
        pytest.param(only(0), FULL, id="only standard illuminant A, forward"),
        pytest.param(only(1), Model(), id="only D65"),
        pytest.param(swapped, Model(), id="illuminants exchanged"),
        pytest.param(swapped, FULL, id="illuminants exchanged, forward"),
        pytest.param(without_forward, FULL, id="no forward matrices"),
        pytest.param(without_individual, FULL, id="no camera calibration"),
        pytest.param(without_balance, Model(individual=True), id="no analog balance"),
    ],
)
def test_a_wrong_matrix_fails(changed: Callable[[Camera], Camera], model: Model, tmp_path: Path) -> None:
    assert not passes(developed(record(tmp_path / "scene.dng", "RGGB", model, changed=changed)))


def test_forgotten_black_deltas_fail(tmp_path: Path) -> None:
    def changed(camera: Camera) -> Camera:
        return replace(camera, black_rows=None, black_columns=None)

    assert not passes(developed(record(tmp_path / "scene.dng", "RGGB", FULL, deltas=True, changed=changed)))


@pytest.mark.parametrize("gamma", [1 / 2.2, 1 / 1.05, 2.2])
def test_a_gamma_fails(gamma: float, tmp_path: Path) -> None:
    found = developed(record(tmp_path / "scene.dng", "RGGB", FULL))
    assert passes(found) and not passes(found**gamma)


def test_the_file_says_what_was_meant(tmp_path: Path) -> None:
    """The tags by the numbers of the DNG specification, so that writer and reader cannot be wrong alike."""
    path = record(tmp_path / "scene.dng", "GBRG", FULL, deltas=True)
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        tags = {tag.code: tag.value for tag in page.tags.values()}
        assert page.asarray().dtype == np.uint16 and page.shape == (HEIGHT, WIDTH)
    assert bytes(tags[33422]) == bytes((1, 2, 0, 1)), "CFAPattern"
    assert tags[50717] == WHITE and (tags[50778], tags[50779]) == (17, 21), "WhiteLevel, CalibrationIlluminant1, 2"

    def rational(code: int) -> Array:
        pairs = np.reshape(np.array(tags[code], np.float64), (-1, 2))
        return pairs[:, 0] / pairs[:, 1]

    random = np.random.default_rng(5)
    expected: dict[int, Any] = {
        50714: BLACK,
        50716: random.integers(-60, 60, HEIGHT),  # BlackLevelDeltaV, one a row
        50715: random.integers(-60, 60, WIDTH),  # BlackLevelDeltaH, one a column
        50721: COLOR_A.ravel(),
        50722: COLOR_D65.ravel(),
        50723: INDIVIDUAL_A.ravel(),
        50724: INDIVIDUAL_D65.ravel(),
        50727: BALANCE,
        50728: sensor_of_radiance(FULL)[1],
        50964: FORWARD_A.ravel(),
        50965: FORWARD_D65.ravel(),
    }
    for code, values in expected.items():
        np.testing.assert_allclose(rational(code), values, rtol=1e-5, atol=1e-6, err_msg=str(code))


@pytest.mark.parametrize("pattern", PHASES)
def test_gray_stays_gray_in_the_finished_picture(pattern: BayerPattern, tmp_path: Path) -> None:
    output = run("raw-to-srgb", record(tmp_path / "scene.dng", pattern, FULL), tmp_path / "scene.tif")
    picture = tifffile.imread(output)
    assert picture.dtype == np.uint16 and picture.shape == (HEIGHT, WIDTH, 3)
    codes = picture[GRAY] / 257.0
    assert (codes.max(2) - codes.min(2)).max() <= 1.0, "neutral within one code of 8 bits"
    assert 80 < codes.mean() < 250, "and neither black nor burnt out"
    colours = picture / 257.0
    assert np.percentile(colours.max(2) - colours.min(2), 90) > 40, "while colours keep their colour"
