"""White balance by temperature and tint, and by a gray patch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from restorekit.color.camera import temperature_of_neutral, white_of_neutral
from restorekit.color.temperature import temperature_and_duv
from restorekit.errors import StageError
from restorekit.facts import Calibration, Camera, Facts, Metadata
from restorekit.frame import Frame
from restorekit.planes import orient
from restorekit.stages.color import WhiteBalance
from restorekit.stages.white_point import GrayPatch, Temperature
from restorekit.state import ImageState
from restorekit.testing import StageLaws, bayer_frame

SCENE_CAMERA = ImageState("rgb", "scene", "linear", "camera")
WARM = np.array([[0.75, -0.20, -0.06], [-0.45, 1.30, 0.15], [-0.05, 0.20, 0.55]])
COOL = np.array([[0.68, -0.15, -0.08], [-0.48, 1.25, 0.22], [-0.08, 0.22, 0.62]])
CAMERA = Camera("Test", "Dual", cfa=("RG", "GB"), calibrations=(Calibration(2856, WARM), Calibration(6504, COOL)))
XTRANS = ("GBGGRG", "RGRBGB", "GBGGRG", "GRGGBG", "BGBRGR", "GRGGBG")
LIGHT = (0.45, 1.0, 0.62)
PATCH = GrayPatch(left=20, top=12, width=16, height=10)


def calibrated(frame: Frame) -> Frame:
    return replace(frame, camera=replace(CAMERA, cfa=frame.camera.cfa))


class TestTemperatureLaws(StageLaws):
    stages = (Temperature(), Temperature(kelvin=3200, tint=-12))
    frames = (calibrated(bayer_frame()),)


class TestGrayPatchLaws(StageLaws):
    stages = (PATCH, GrayPatch(left=0, top=0, width=52, height=46))
    frames = (bayer_frame(), bayer_frame(pattern="GBRG"), calibrated(bayer_frame()))


def frame_of(pixels: torch.Tensor, **known: object) -> Frame:
    return replace(Frame(pixels, SCENE_CAMERA, camera=CAMERA), **known)  # type: ignore[arg-type]


@pytest.mark.parametrize("kelvin", [2000, 2856, 3333, 4700, 5500, 6504, 9000, 15000])
@pytest.mark.parametrize("tint", [-40, 0, 10])
def test_temperature_to_light_and_back(kelvin: float, tint: float) -> None:
    facts = Temperature(kelvin=kelvin, tint=tint)(frame_of(torch.ones(3, 4, 4))).facts
    assert facts.illuminant is not None
    assert facts.illuminant[1] == 1.0
    assert temperature_of_neutral(CAMERA, facts.illuminant) == pytest.approx(kelvin, abs=1)
    duv = temperature_and_duv(white_of_neutral(CAMERA, facts.illuminant))[1]
    assert 3000 * duv == pytest.approx(tint, abs=0.05)


def test_tint_counts_as_in_adobes_converters() -> None:
    """Their daylight, 5500 K with tint 10, is CIE D55."""
    facts = Temperature(kelvin=5500, tint=10)(frame_of(torch.ones(3, 4, 4))).facts
    assert facts.illuminant is not None
    assert white_of_neutral(CAMERA, facts.illuminant) == pytest.approx((0.33242, 0.34743), abs=1e-4)


def test_higher_temperature_is_warmer_and_higher_tint_more_magenta() -> None:
    gray = frame_of(torch.ones(3, 4, 4))

    def balanced(kelvin: float, tint: float) -> list[float]:
        return WhiteBalance()(Temperature(kelvin=kelvin, tint=tint)(gray)).pixels[:, 0, 0].tolist()

    red, _, blue = balanced(5000, 0)
    warmer = balanced(7000, 0)
    assert warmer[0] > red
    assert warmer[2] < blue
    magenta = balanced(5000, 30)
    assert min(magenta[0] / red, magenta[2] / blue) > 1, "against green, which stays 1"


def test_temperature_needs_matrices() -> None:
    with pytest.raises(StageError, match=r"colour matrices of the camera, and Blind Cam has none; use illuminant\."):
        Temperature()(replace(frame_of(torch.ones(3, 4, 4)), camera=Camera("Blind", "Cam")))


def test_a_light_that_the_camera_cannot_see_is_refused() -> None:
    blind = Camera("T", "C", calibrations=(Calibration(6504, np.array([[1, 0, 0], [0, 1, 0], [-1, 0, 1.0]])),))
    with pytest.raises(StageError, match="sees no light of 1700 K"):
        Temperature(kelvin=1700)(replace(frame_of(torch.ones(3, 4, 4)), camera=blind))


def patched(height: int = 60, width: int = 80) -> torch.Tensor:
    """Red everywhere, but for a patch of 16 columns and 10 rows at column 20, row 12, which has the light's colour."""
    pixels = torch.tensor([0.8, 0.1, 0.1])[:, None, None].expand(3, height, width).clone()
    pixels[:, 12:22, 20:36] = 0.3 * torch.tensor(LIGHT)[:, None, None]
    return pixels


def mosaic(pixels: torch.Tensor, cfa: tuple[str, ...], layout: str) -> Frame:
    plane = torch.empty(1, *pixels.shape[1:])
    for y, row in enumerate(cfa):
        for x, color in enumerate(row):
            channel = pixels["RGB".index(color), y :: len(cfa), x :: len(row)]
            plane[0, y :: len(cfa), x :: len(row)] = channel
    state = SCENE_CAMERA.changed({"layout": layout})
    return Frame(plane, state, camera=replace(CAMERA, cfa=cfa))


@pytest.mark.parametrize(
    "frame",
    [
        frame_of(patched()),
        mosaic(patched(), ("RG", "GB"), "bayer"),
        mosaic(patched(), ("GB", "RG"), "bayer"),
        mosaic(patched(), XTRANS, "xtrans"),
    ],
    ids=["rgb", "rggb", "gbrg", "xtrans"],
)
def test_the_light_is_that_of_the_patch_alone(frame: Frame) -> None:
    facts = PATCH(frame).facts
    assert facts.illuminant == pytest.approx(LIGHT, rel=1e-5)
    kelvin, tint = facts.measured["illuminant.gray_patch"]  # type: ignore[misc]
    assert facts.illuminant is not None
    assert kelvin == pytest.approx(temperature_of_neutral(CAMERA, facts.illuminant))
    found = Temperature(kelvin=kelvin, tint=tint)(frame).facts.illuminant
    assert found == pytest.approx(LIGHT, rel=2e-3)


def test_a_gray_card_may_fill_the_picture() -> None:
    assert GrayPatch()(frame_of(patched()[:, 12:22, 20:36])).facts.illuminant == pytest.approx(LIGHT, rel=1e-5)
    assert GrayPatch(left=20, top=12)(frame_of(patched()[:, :22, :36])).facts.illuminant == pytest.approx(
        LIGHT, rel=1e-5
    )


def test_a_camera_without_matrices_gets_its_light_and_no_temperature() -> None:
    facts = PATCH(replace(frame_of(patched()), camera=Camera())).facts
    assert facts.illuminant == pytest.approx(LIGHT, rel=1e-5)
    assert facts.measured == {}


def test_gains_already_applied_are_taken_out() -> None:
    balanced = WhiteBalance(gains=(2.0, 1.0, 1.5))(replace(frame_of(patched()), facts=Facts()))
    assert PATCH(balanced).facts.illuminant == pytest.approx(LIGHT, rel=1e-5)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("cropped", [False, True])
@pytest.mark.parametrize("layout", ["rgb", "bayer"])
def test_the_patch_is_where_one_sees_it(orientation: int, cropped: bool, layout: str) -> None:
    """On the upright, cropped picture; the frame still lies as the sensor does."""
    crop = (6, 4, 56, 74) if cropped else None
    frame = frame_of(patched()) if layout == "rgb" else mosaic(patched(), ("RG", "GB"), "bayer")
    frame = replace(frame, metadata=Metadata(orientation=orientation, crop=crop))
    marks = torch.zeros(1, 60, 80, dtype=torch.bool)
    marks[:, 12:22, 20:36] = True
    top, left, bottom, right = crop or (0, 0, 60, 80)
    rows, columns = orient(marks[:, top:bottom, left:right], orientation)[0].nonzero(as_tuple=True)
    seen = GrayPatch(
        left=int(columns.min()),
        top=int(rows.min()),
        width=int(columns.max() - columns.min()) + 1,
        height=int(rows.max() - rows.min()) + 1,
    )
    assert seen(frame).facts.illuminant == pytest.approx(LIGHT, rel=1e-5)


def test_dust_noise_and_clipped_pixels_do_not_count() -> None:
    random = np.random.default_rng(2)
    pixels = patched()
    pixels[:, 12:22, 20:36] += torch.from_numpy(random.normal(0, 0.003, (3, 10, 16)).astype(np.float32))
    pixels[:, 13, 22:28] = 0.01
    pixels[0, 15, 25] = 40.0
    pixels[:, 19:22, 20:30] = 1.0
    clipped = pixels >= 1.0
    clipped[0, 15, 25] = False
    found = PATCH(frame_of(pixels, masks={"clipped": clipped})).facts.illuminant
    assert found == pytest.approx(LIGHT, rel=0.005)


@pytest.mark.parametrize(
    ("stage", "frame", "message"),
    [
        (GrayPatch(left=70, top=0, width=11, height=5), frame_of(patched()), "not within the picture of 80x60 px"),
        (GrayPatch(left=0, top=60, width=1, height=1), frame_of(patched()), "not within the picture"),
        (GrayPatch(left=80), frame_of(patched()), "not within the picture"),
        (
            GrayPatch(left=60, top=0, width=10, height=10),
            frame_of(patched(), metadata=Metadata(orientation=6)),
            "not within the picture of 60x80 px",
        ),
        (
            GrayPatch(left=60, top=0, width=10, height=10),
            frame_of(patched(), metadata=Metadata(crop=(0, 0, 40, 50))),
            "not within the picture of 50x40 px",
        ),
        (
            GrayPatch(left=21, top=13, width=1, height=9),
            mosaic(patched(), ("RG", "GB"), "bayer"),
            "no whole 2x2 cell of the mosaic; choose a larger",
        ),
        (PATCH, frame_of(patched(), masks={"clipped": patched() > 0.05}), "is clipped; choose a darker"),
        (PATCH, frame_of(patched(), facts=Facts(clip_level=(0.1, 0.1, 0.1))), "is clipped; choose a darker"),
        (PATCH, frame_of(torch.zeros(3, 60, 80)), "has a black channel; choose a brighter"),
        (PATCH, frame_of(patched() * torch.tensor([1.0, 1, -1])[:, None, None]), "has a black channel"),
    ],
)
def test_patches_that_tell_nothing_are_refused(stage: GrayPatch, frame: Frame, message: str) -> None:
    with pytest.raises(StageError, match=message) as refused:
        stage(frame)
    assert "illuminant.gray_patch" in str(refused.value)
