"""The stages of camera profiles, and the exposure and sharpness that cameras and profiles ask for."""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from restorekit.color.primaries import conversion, transformed
from restorekit.color.profile import hue_sat_mapped, tone_curve_table, tone_mapped
from restorekit.errors import InputError, StageError
from restorekit.facts import Calibration, Camera, CameraProfile, Facts
from restorekit.frame import Frame
from restorekit.io.tiff import ASCII, LONG, SHORT, SRATIONAL, Field, Tree, lay_out
from restorekit.pipeline import Pipeline
from restorekit.stages.color import CameraMatrix, WhiteBalance
from restorekit.stages.finish import Sharpen
from restorekit.stages.profile import Look, ProfileCurve
from restorekit.stages.tone import Exposure
from restorekit.state import ImageState
from restorekit.testing import StageLaws, rgb_frame

FLOAT = 11
SCENE = ImageState("rgb", "scene", "linear", "bt2020")
SCENE_CAMERA = ImageState("rgb", "scene", "linear", "camera")
WARM = np.array([[0.75, -0.20, -0.06], [-0.45, 1.30, 0.15], [-0.05, 0.20, 0.55]])
COOL = np.array([[0.68, -0.15, -0.08], [-0.48, 1.25, 0.22], [-0.08, 0.22, 0.62]])
CURVE = np.array([[0, 0], [0.1, 0.06], [0.4, 0.6], [1, 1]], np.float32)


def table(steps: int, seed: int) -> NDArray[np.float32]:
    values = np.random.default_rng(seed).uniform((-20, 0.7, 0.8), (20, 1.3, 1.1), (steps, 6, 4, 3))
    values[:, :, 0, 2] = 1
    return values.astype(np.float32)


PROFILE = CameraProfile("Test", look_table=table(3, 1), look_encoding="srgb", tone_curve=CURVE)
CAMERA = Camera("Maker", "Maker Model 1", calibrations=(Calibration(6504, COOL),), profile=PROFILE)


def scene(primaries: str = "bt2020", camera: Camera = CAMERA, peak: float = 3.0) -> Frame:
    state = SCENE.changed({"primaries": primaries})
    return replace(rgb_frame(state=state, peak=peak), camera=camera)


def camera_scene(camera: Camera = CAMERA) -> Frame:
    facts = Facts(white_balance=(2.0, 1.0, 1.6), clip_level=(1.0, 1.0, 1.0))
    return replace(rgb_frame(state=SCENE_CAMERA), camera=camera, facts=facts)


def dcp(path: Path, changes: Tree | None = None, model: str = "MAKER MODEL 1") -> Path:
    tags: Tree = {
        50708: Field.of(ASCII, model),
        50721: Field.of(SRATIONAL, WARM.reshape(-1).tolist()),
        50778: Field.of(SHORT, (17,)),
        50936: Field.of(ASCII, "Other"),
        50937: Field.of(LONG, (6, 4, 1)),
        50938: Field.of(FLOAT, table(1, 2).reshape(-1).tolist()),
        50940: Field.of(FLOAT, (0, 0, 0.5, 0.8, 1, 1)),
        50981: Field.of(LONG, (6, 4, 1)),
        50982: Field.of(FLOAT, table(1, 3).reshape(-1).tolist()),
        51109: Field.of(SRATIONAL, (0.5,)),
    }
    block = lay_out(tags | (changes or {}))
    path.write_bytes(block[:2] + struct.pack("<H", 0x4352) + block[4:])
    return path


class TestLookLaws(StageLaws):
    stages = (Look(),)
    frames = (scene(), scene("ap1"), scene(camera=Camera()))


class TestLookWithoutValueStepsLaws(StageLaws):
    stages = (Look(),)
    frames = (scene(camera=replace(CAMERA, profile=CameraProfile(look_table=table(1, 4)))),)
    scales_with_exposure = True


class TestProfileCurveLaws(StageLaws):
    stages = (ProfileCurve(),)
    frames = (scene(), scene("p3"))


@pytest.mark.parametrize("primaries", ["bt2020", "bt709", "prophoto", "ap1"])
def test_the_look_acts_on_prophoto(primaries: str) -> None:
    frame = scene(primaries)
    there = transformed(frame.pixels, conversion(primaries, "prophoto"))  # type: ignore[arg-type]
    assert PROFILE.look_table is not None
    mapped = hue_sat_mapped(there, PROFILE.look_table, "srgb")
    expected = transformed(mapped, conversion("prophoto", primaries))  # type: ignore[arg-type]
    result = Look()(frame)
    assert torch.allclose(result.pixels, expected, atol=1e-6)
    assert float((result.pixels - frame.pixels).abs().max()) > 0.01
    assert float(result.pixels.max()) > 2, "light above white stays"


def test_without_a_table_the_look_changes_nothing() -> None:
    frame = scene(camera=Camera())
    assert Look()(frame).pixels is frame.pixels


def test_the_curve_acts_on_prophoto_and_gives_a_display_picture() -> None:
    frame = scene()
    there = transformed(frame.pixels, conversion("bt2020", "prophoto"))
    expected = transformed(tone_mapped(there, tone_curve_table(CURVE)), conversion("prophoto", "bt2020"))
    result = ProfileCurve()(frame)
    assert torch.allclose(result.pixels, expected, atol=1e-6)
    assert result.state.reference == "display"


def test_grays_follow_the_curve() -> None:
    gray = Frame(torch.tensor([0.0, 0.1, 0.4, 1.0, 5.0]).expand(3, 1, 5), SCENE, camera=CAMERA)
    wanted = torch.tensor([0.0, 0.06, 0.6, 1.0, 1.0]).expand(3, 1, 5)
    assert torch.allclose(ProfileCurve()(gray).pixels, wanted, atol=1e-5)


def test_a_profile_without_a_curve_is_refused_with_a_cure(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"no tone curve in this file; use tone\.filmic"):
        ProfileCurve()(scene(camera=replace(CAMERA, profile=CameraProfile())))
    bare = dcp(tmp_path / "bare.dcp", {50940: Field.of(FLOAT, (0, 0, 1, 1)), 50936: Field.of(ASCII, "x")})
    assert ProfileCurve(profile=bare)(scene()).state.reference == "display"


def test_a_dcp_takes_the_place_of_the_file_and_stays_for_later_stages(tmp_path: Path) -> None:
    path = dcp(tmp_path / "a.dcp")
    result = CameraMatrix(profile=path)(camera_scene())
    assert result.notes == ()
    assert result.camera.profile.name == "Other"
    assert result.camera.calibrations[0].temperature_k == 2856
    same = CameraMatrix()(camera_scene(result.camera))
    assert torch.equal(result.pixels, same.pixels)
    assert not torch.allclose(result.pixels, CameraMatrix()(camera_scene()).pixels, atol=0.01)
    assert torch.equal(Look()(result).pixels, Look(profile=path)(CameraMatrix(profile=path)(camera_scene())).pixels)
    toned = ProfileCurve()(result)
    assert torch.equal(toned.pixels, ProfileCurve(profile=path)(result).pixels)


def test_a_dcp_serves_a_camera_without_matrices(tmp_path: Path) -> None:
    result = CameraMatrix(profile=dcp(tmp_path / "a.dcp"))(camera_scene(Camera("Maker", "Model 1")))
    assert result.notes == ()


def test_look_and_curve_may_have_profiles_of_their_own(tmp_path: Path) -> None:
    path = dcp(tmp_path / "a.dcp")
    frame = scene()
    looked = Look(profile=path)(frame)
    assert looked.camera.profile is frame.camera.profile, "only color.camera_matrix changes the frame's profile"
    assert not torch.allclose(looked.pixels, Look()(frame).pixels, atol=1e-3)
    assert not torch.allclose(ProfileCurve(profile=path)(frame).pixels, ProfileCurve()(frame).pixels, atol=1e-3)


@pytest.mark.parametrize(
    ("camera", "noted"),
    [
        (Camera("MAKER Corporation", "Maker Model 1"), False),
        (Camera("Maker", "Model 1"), False),
        (Camera("Maker", "Model 2"), True),
        (Camera(), False),
    ],
)
def test_a_profile_for_another_camera_is_noted(tmp_path: Path, camera: Camera, noted: bool) -> None:
    notes = Look(profile=dcp(tmp_path / "a.dcp"))(scene(camera=camera)).notes
    assert bool(notes) == noted
    if noted:
        assert "a.dcp is for MAKER MODEL 1, the picture is of Maker Model 2" in notes[0]


def test_a_profile_is_read_again_when_it_changed(tmp_path: Path) -> None:
    path = dcp(tmp_path / "a.dcp")
    before = ProfileCurve(profile=path)(scene()).pixels
    dcp(path, {50940: Field.of(FLOAT, (0, 0, 0.5, 0.2, 1, 1))})
    os.utime(path, ns=(1, 1))
    assert not torch.allclose(ProfileCurve(profile=path)(scene()).pixels, before, atol=0.01)


def test_a_profile_that_is_not_there_is_named(tmp_path: Path) -> None:
    for stage in (Look(profile=tmp_path / "no.dcp"), ProfileCurve(profile=tmp_path / "no.dcp")):
        with pytest.raises(InputError, match=r"no\.dcp: .*check the path"):
            stage(scene())


def test_a_pipeline_uses_the_profile_it_names(tmp_path: Path) -> None:
    """As the engine runs it: every stage is prepared before the matrix has brought the profile."""
    path = dcp(tmp_path / "a.dcp")
    frame = replace(rgb_frame(state=SCENE_CAMERA), camera=Camera("Maker", "Model 1"))
    stages = (WhiteBalance(gains=(2.0, 1.0, 1.6)), CameraMatrix(profile=path), Exposure(), Look(), ProfileCurve())
    result = Pipeline(list(stages))(frame)
    assert isinstance(result, Frame)
    for stage in stages:
        frame = stage(frame)
    assert torch.allclose(result.pixels, frame.pixels, atol=1e-6)
    assert result.camera.profile.name == "Other"
    assert result.camera.profile.baseline_exposure_ev == 0.0, "its exposure was added"


def test_the_exposure_of_a_profile_is_added_once_and_to_that_of_the_camera() -> None:
    camera = replace(CAMERA, baseline_exposure_ev=0.5, profile=replace(PROFILE, baseline_exposure_ev=-1.5))
    frame = scene(camera=camera)
    once = Exposure(ev=1.0)(frame)
    assert torch.allclose(once.pixels, frame.pixels)
    assert (once.camera.baseline_exposure_ev, once.camera.profile.baseline_exposure_ev) == (0.0, 0.0)
    assert once.camera.profile.look_table is PROFILE.look_table
    twice = Exposure()(Exposure()(frame))
    assert torch.allclose(twice.pixels, frame.pixels / 2)
    assert torch.equal(Exposure(baseline=False)(frame).pixels, frame.pixels)


def test_a_camera_that_needs_more_sharpening_gets_it() -> None:
    frame = scene(peak=1.0)
    soft = replace(frame, camera=replace(CAMERA, baseline_sharpness=1.5))
    assert torch.allclose(Sharpen(amount=0.8)(soft).pixels, Sharpen(amount=1.2)(frame).pixels, atol=1e-6)
    thresholded = Sharpen(amount=0.8, threshold=0.01)
    assert torch.allclose(thresholded(soft).pixels, Sharpen(amount=1.2, threshold=0.01)(frame).pixels, atol=1e-6)
