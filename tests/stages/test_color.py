from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from restorekit.color.camera import camera_to_rgb, hue_sat_map
from restorekit.color.primaries import conversion, transformed
from restorekit.color.profile import hue_sat_mapped
from restorekit.errors import ParameterError, StageError
from restorekit.facts import Calibration, Camera, Facts
from restorekit.frame import Frame, Region
from restorekit.stage import Stage
from restorekit.stages.color import CameraMatrix, Convert, Decode, Encode, ToRgb, WhiteBalance
from restorekit.state import ImageState
from restorekit.testing import StageLaws, bayer_frame, rgb_frame

XTRANS = ("GBGGRG", "RGRBGB", "GBGGRG", "GRGGBG", "BGBRGR", "GRGGBG")
CAMERA = Camera(
    "Test",
    "Dual",
    cfa=("RG", "GB"),
    calibrations=(
        Calibration(2856, np.array([[0.75, -0.20, -0.06], [-0.45, 1.30, 0.15], [-0.05, 0.20, 0.55]])),
        Calibration(6504, np.array([[0.68, -0.15, -0.08], [-0.48, 1.25, 0.22], [-0.08, 0.22, 0.62]])),
    ),
)
SCENE_CAMERA = ImageState("rgb", "scene", "linear", "camera")
LIGHT = (0.5, 1.0, 0.7)


def camera_frame(camera: Camera = CAMERA) -> Frame:
    return replace(rgb_frame(state=SCENE_CAMERA), camera=camera)


def balanced_frame(camera: Camera = CAMERA) -> Frame:
    return WhiteBalance()(camera_frame(camera))


def xtrans_frame() -> Frame:
    mosaic = bayer_frame()
    return replace(mosaic, state=mosaic.state.changed({"layout": "xtrans"}), camera=Camera(cfa=XTRANS))


def flat(values: tuple[float, float, float], state: ImageState, **known: object) -> Frame:
    pixels = torch.tensor(values).reshape(3, 1, 1).expand(3, 4, 6)
    return replace(Frame(pixels, state), **known)  # type: ignore[arg-type]


class TestWhiteBalanceLaws(StageLaws):
    stages = (WhiteBalance(), WhiteBalance(gains=(2.0, 1.1, 1.5)))
    frames = (bayer_frame(), bayer_frame(pattern="GBRG"), xtrans_frame(), camera_frame())
    scales_with_exposure = True


def hue_table(shift: float, saturate: float, steps: int = 1) -> NDArray[np.float32]:
    return np.tile(np.array([shift, saturate, 1.0], np.float32), (steps, 6, 4, 1))


PROFILED = replace(
    CAMERA,
    calibrations=(
        replace(CAMERA.calibrations[0], hue_sat_map=hue_table(-12, 0.8)),
        replace(CAMERA.calibrations[1], hue_sat_map=hue_table(24, 1.2)),
    ),
)


class TestCameraMatrixLaws(StageLaws):
    stages = (CameraMatrix(), CameraMatrix(to="bt709"), CameraMatrix(to="p3"), CameraMatrix(hue_sat_map=False))
    frames = (balanced_frame(), balanced_frame(Camera("No", "Matrix")), balanced_frame(PROFILED))
    scales_with_exposure = True


class TestConvertLaws(StageLaws):
    stages = (Convert(), Convert(to="bt2020"), Convert(to="prophoto"))
    frames = (rgb_frame(), rgb_frame(state=ImageState("rgb", "scene", "linear", "ap1")))
    scales_with_exposure = True


class TestEncodeLaws(StageLaws):
    stages = tuple(Encode(to=to) for to in ("srgb", "gamma", "pq", "hlg"))
    frames = (rgb_frame(), rgb_frame(peak=3.0).with_pixels(rgb_frame(peak=3.0).pixels - 0.5))


class TestDecodeLaws(StageLaws):
    stages = (Decode(),)
    frames = tuple(rgb_frame(peak=0.6, state=ImageState(transfer=t)) for t in ("srgb", "gamma", "pq", "hlg"))


class TestToRgbLaws(StageLaws):
    stages = (ToRgb(),)
    frames = (replace(rgb_frame(), pixels=rgb_frame().pixels[:1], state=ImageState("gray")),)


@pytest.mark.parametrize("pattern", ["RGGB", "BGGR", "GRBG", "GBRG"])
@pytest.mark.parametrize("top", [0, 2, 16])
def test_every_photosite_gets_the_gain_of_its_colour(pattern: str, top: int) -> None:
    frame = replace(bayer_frame(9, 7, pattern=pattern), region=Region(top, 100))
    result = WhiteBalance()(frame)
    gains = {"R": 2.0, "G": 1.0, "B": 1 / 0.7}
    for y in range(9):
        for x in range(7):
            gain = gains[pattern[2 * (y % 2) + x % 2]]
            assert result.pixels[0, y, x].item() == pytest.approx(gain * frame.pixels[0, y, x].item(), rel=1e-6)


def test_a_strip_of_xtrans_knows_its_row() -> None:
    frame = replace(xtrans_frame(), region=Region(16, 100))
    ratio = WhiteBalance(gains=(2.0, 1.0, 3.0))(frame).pixels[0] / frame.pixels[0]
    expected = [[{"R": 2, "G": 1, "B": 3}[XTRANS[(16 + y) % 6][x % 6]] for x in range(52)] for y in range(46)]
    assert torch.allclose(ratio, torch.tensor(expected, dtype=torch.float32))


def test_the_illuminant_becomes_neutral_and_the_facts_follow() -> None:
    facts = Facts(illuminant=LIGHT, clip_level=(1.0, 1.0, 1.0), noise=((1e-3, 1e-5),) * 3)
    result = WhiteBalance()(flat(LIGHT, SCENE_CAMERA, facts=facts, camera=CAMERA))
    assert torch.allclose(result.pixels, torch.ones(3, 4, 6))
    assert result.facts.white_balance == pytest.approx((2.0, 1.0, 1 / 0.7))
    assert result.facts.clip_level == pytest.approx((2.0, 1.0, 1 / 0.7))
    assert result.facts.noise is not None
    assert result.facts.noise[0] == pytest.approx((2e-3, 4e-5))


def test_facts_of_a_mosaic_become_one_a_colour() -> None:
    assert WhiteBalance()(bayer_frame()).facts.clip_level == pytest.approx((2.0, 1.0, 1 / 0.7))


def test_white_balances_multiply() -> None:
    twice = WhiteBalance(gains=(1.5, 1.0, 0.5))(WhiteBalance(gains=(2.0, 1.0, 3.0))(camera_frame()))
    assert twice.facts.white_balance == pytest.approx((3.0, 1.0, 1.5))
    assert torch.allclose(twice.pixels, camera_frame().pixels * torch.tensor([3.0, 1.0, 1.5])[:, None, None])


def test_gains_are_positive() -> None:
    with pytest.raises(ParameterError):
        WhiteBalance(gains=(0.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (replace(camera_frame(), facts=Facts()), "illuminant"),
        (replace(camera_frame(), facts=Facts(illuminant=(0.0, 1.0, 1.0))), "not positive"),
        (replace(bayer_frame(), camera=Camera()), "camera.cfa"),
        (replace(bayer_frame(), camera=Camera(cfa=("CY", "MG"))), "CY/MG"),
        (rgb_frame(), "display-referred"),
    ],
)
def test_white_balance_says_what_it_lacks(frame: Frame, message: str) -> None:
    with pytest.raises(StageError, match=message):
        WhiteBalance()(frame)


@pytest.mark.parametrize("gains", [(2.0, 1.0, 1 / 0.7), (1.6, 1.0, 2.4), (2.2, 1.1, 1.5)])
@pytest.mark.parametrize("to", ["bt2020", "bt709", "p3"])
def test_balanced_white_stays_white_whatever_the_gains(gains: tuple[float, float, float], to: str) -> None:
    frame = flat((0.8, 0.8, 0.8), SCENE_CAMERA, facts=Facts(white_balance=gains), camera=CAMERA)
    result = CameraMatrix(to=to)(frame)
    assert torch.allclose(result.pixels, torch.full((3, 4, 6), 0.8), atol=1e-6)
    assert result.state == ImageState("rgb", "scene", "linear", to)  # type: ignore[arg-type]


def test_white_balance_and_matrix_are_together_the_dng_model() -> None:
    raw = camera_frame()
    result = CameraMatrix()(WhiteBalance()(raw))
    matrix = camera_to_rgb(CAMERA, LIGHT, "bt2020")
    expected = np.einsum("ij,jhw->ihw", matrix, raw.pixels.double().numpy())
    assert np.abs(result.pixels.numpy() - expected).max() < 1e-5
    assert result.notes == ()


def test_after_the_matrix_the_lowest_clip_level_counts_for_all() -> None:
    frame = balanced_frame()
    assert CameraMatrix()(frame).facts.clip_level == (1.0, 1.0, 1.0)


def test_noise_after_the_matrix_is_what_a_simulation_gives() -> None:
    generator = torch.Generator().manual_seed(2)
    noise = ((4e-4, 1e-5), (2e-4, 2e-5), (6e-4, 3e-5))
    level = 0.5
    sigma = torch.tensor([a * level + b for a, b in noise]).sqrt()[:, None, None]
    pixels = level + sigma * torch.randn(3, 200, 200, generator=generator)
    facts = Facts(white_balance=(2.0, 1.0, 1.5), noise=noise)
    result = CameraMatrix()(Frame(pixels, SCENE_CAMERA, camera=CAMERA, facts=facts))
    assert result.facts.noise is not None
    for plane, (a, b) in zip(result.pixels, result.facts.noise, strict=True):
        assert plane.var().item() == pytest.approx(a * level + b, rel=0.05)


def test_a_camera_without_matrix_is_noted_and_taken_as_srgb() -> None:
    result = CameraMatrix(to="bt2020")(balanced_frame(Camera("Kodak", "DC50")))
    assert result.notes == ("Kodak DC50 has no colour matrix; its RGB is taken as sRGB primaries",)
    expected = np.einsum("ij,jhw->ihw", conversion("bt709", "bt2020"), balanced_frame().pixels.double().numpy())
    assert np.abs(result.pixels.numpy() - expected).max() < 1e-6


def test_the_matrix_needs_a_white_balance() -> None:
    with pytest.raises(StageError, match=r"color\.white_balance"):
        CameraMatrix()(camera_frame())


def test_convert_there_and_back() -> None:
    frame = rgb_frame()
    wide = Convert(to="bt2020")(frame)
    assert wide.state.primaries == "bt2020"
    assert (wide.pixels - frame.pixels).abs().max() > 0.01
    assert torch.allclose(Convert(to="bt709")(wide).pixels, frame.pixels, atol=1e-6)
    assert Convert(to="bt709")(frame).pixels is frame.pixels


@pytest.mark.parametrize("to", ["srgb", "gamma", "pq", "hlg"])
def test_decode_undoes_encode_by_the_state_alone(to: str) -> None:
    frame = rgb_frame()
    encoded = Encode(to=to)(frame)
    assert encoded.state.transfer == to
    assert (encoded.facts.noise, encoded.facts.clip_level) == (None, None)
    back = Decode()(encoded)
    assert back.state == frame.state
    assert torch.allclose(back.pixels, frame.pixels, atol=1e-4)


@pytest.mark.parametrize(
    ("stage", "state"),
    [
        (Encode(), ImageState("rgb", "scene", "linear", "bt2020")),
        (Encode(), ImageState("rgb", "display", "srgb", "bt709")),
        (Decode(), ImageState("rgb", "display", "linear", "bt709")),
        (Convert(), SCENE_CAMERA),
        (Convert(), ImageState("rgb", "display", "srgb", "bt709")),
        (CameraMatrix(), ImageState("rgb", "scene", "linear", "bt2020")),
    ],
)
def test_other_states_are_refused(stage: Stage, state: ImageState) -> None:
    with pytest.raises(StageError, match=stage.spec.name):
        stage(rgb_frame(state=state))


def test_gray_becomes_three_equal_channels() -> None:
    gray = Frame(torch.rand(1, 3, 4), ImageState("gray"), facts=Facts(clip_level=(1.0,)))
    result = ToRgb()(gray)
    assert result.state.layout == "rgb"
    assert all(torch.equal(plane, gray.pixels[0]) for plane in result.pixels)
    assert result.facts.clip_level == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("to", ["bt2020", "bt709", "p3"])
def test_the_table_acts_on_prophoto_between_the_matrices(to: str) -> None:
    frame = balanced_frame(PROFILED)
    gains = frame.facts.white_balance
    assert gains is not None
    neutral = (1 / gains[0], 1 / gains[1], 1 / gains[2])
    table = hue_sat_map(PROFILED, neutral)
    assert table is not None
    assert -12 < table[0, 0, 0, 0] < 24, "a mixture of both lights"
    prophoto = transformed(frame.pixels, camera_to_rgb(PROFILED, neutral, "prophoto") * neutral)
    expected = transformed(hue_sat_mapped(prophoto, table), conversion("prophoto", to))  # type: ignore[arg-type]
    result = CameraMatrix(to=to)(frame)  # type: ignore[arg-type]
    assert torch.allclose(result.pixels, expected, atol=1e-6)
    plain = CameraMatrix(to=to)(balanced_frame())  # type: ignore[arg-type]
    assert float((result.pixels - plain.pixels).abs().max()) > 0.01
    assert result.facts.clip_level == plain.facts.clip_level


def test_the_table_can_be_left_out() -> None:
    without = CameraMatrix(hue_sat_map=False)(balanced_frame(PROFILED))
    assert torch.equal(without.pixels, CameraMatrix()(balanced_frame()).pixels)


def test_an_identity_table_changes_no_bit() -> None:
    same = replace(CAMERA, calibrations=(replace(CAMERA.calibrations[0], hue_sat_map=hue_table(0, 1)),))
    lone = replace(CAMERA, calibrations=CAMERA.calibrations[:1])
    assert torch.equal(CameraMatrix()(balanced_frame(same)).pixels, CameraMatrix()(balanced_frame(lone)).pixels)
