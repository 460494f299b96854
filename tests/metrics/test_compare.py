"""What is measured follows from the states of the two frames; strips, gaps and storage do not change it."""

from __future__ import annotations

import inspect
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import restorekit as rk
from restorekit.cli import app
from restorekit.cli.compare import compare
from restorekit.color.ictcp import delta_e_itp, rgb_to_ictcp
from restorekit.color.primaries import conversion, luminance
from restorekit.color.transfer import DIFFUSE_WHITE_NITS, encode
from restorekit.errors import InputError
from restorekit.frame import Frame
from restorekit.metrics import hdr, light
from restorekit.metrics.compare import compare_frames
from restorekit.metrics.mu_law import mu_law_psnr
from restorekit.metrics.pu21 import DARKEST_NITS, pu21_psnr, pu21_ssim
from restorekit.state import SHORTHANDS, ImageState

SCENE = SHORTHANDS["scene-linear"]
PHOTO = SHORTHANDS["display-srgb"]
RNG = torch.Generator().manual_seed(0)


def scene_light(height: int = 60, width: int = 50) -> Tensor:
    """RGB of three decades, up to about ten times white."""
    return 10.0 ** (torch.rand(3, height, width, generator=RNG) * 3 - 2)


REFERENCE = scene_light()
TEST = REFERENCE * (1 + 0.1 * torch.randn(3, 60, 50, generator=RNG)).clamp_(min=0.1)
FIRST, SECOND = Frame(REFERENCE, SCENE), Frame(TEST, SCENE)


def same(found: dict[str, Any], expected: dict[str, Any], tolerance: float = 1e-9) -> bool:
    """Whether all measures agree."""
    assert found.keys() == expected.keys()
    return all(found[key] == pytest.approx(value, abs=tolerance) for key, value in expected.items())


@pytest.fixture
def short_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strips of fewer rows than the window of SSIM has."""
    monkeypatch.setattr(light, "strip_rows", lambda width: 7)


def test_hdr_measures_are_those_of_whole_images() -> None:
    found = compare_frames(FIRST, SECOND, white_nits=150)
    a, b = REFERENCE.double(), TEST.double()
    first, second = (luminance(values, "bt2020") for values in (a, b))
    assert found["pu21_psnr_db"] == pytest.approx(pu21_psnr(a, b, 150))
    assert found["pu21_psnr_y_db"] == pytest.approx(pu21_psnr(first, second, 150))
    assert found["pu21_ssim"] == pytest.approx(pu21_ssim(first, second, 150))
    assert found["mu_law_psnr_db"] == pytest.approx(mu_law_psnr(a, b))
    error = delta_e_itp(rgb_to_ictcp(a, "bt2020", 150), rgb_to_ictcp(b, "bt2020", 150)).flatten()
    assert found["delta_e_itp_mean"] == pytest.approx(float(error.mean()))
    assert found["delta_e_itp_p95"] == pytest.approx(float(error.sort().values[2849]), rel=1e-6)
    darkest = DARKEST_NITS / 150
    stops = torch.log2(first.clamp(min=darkest) / second.clamp(min=darkest))
    assert found["log2_rmse"] == pytest.approx(math.sqrt(float(stops.square().mean())))
    cosine = (a * b).sum(0) / (a.norm(dim=0) * b.norm(dim=0))
    angles = np.sort(np.degrees(np.arccos(cosine.numpy())).ravel())
    assert found["rgb_angle_median_deg"] == pytest.approx(angles[1499], rel=1e-5)
    assert found["largest_difference"] == pytest.approx(float((a - b).abs().max()))
    assert (found["width"], found["height"], found["excluded_pixels"]) == (50, 60, 0)


def test_strips_do_not_matter(short_strips: None) -> None:
    broken = TEST.clone()
    broken[0, 13, 5] = math.nan
    whole = [compare_frames(FIRST, Frame(values, SCENE), fit_scale=True) for values in (TEST, broken)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(light, "strip_rows", lambda width: 1 << 20)
        expected = [compare_frames(FIRST, Frame(values, SCENE), fit_scale=True) for values in (TEST, broken)]
    assert all(same(*pair) for pair in zip(whole, expected, strict=True))


def test_equal_frames() -> None:
    found = compare_frames(FIRST, FIRST)
    assert found["pu21_psnr_db"] is None and found["pu21_psnr_y_db"] is None and found["mu_law_psnr_db"] is None
    assert found["pu21_ssim"] == pytest.approx(1)
    zeros = ("log2_rmse", "delta_e_itp_mean", "delta_e_itp_p95", "rgb_angle_median_deg", "largest_difference")
    assert [found[name] for name in zeros] == [0] * 5


def test_pixels_that_are_not_finite_are_left_out_and_counted() -> None:
    """The rest counts as if these were equal, but for the windows that they touch."""
    a, b = REFERENCE.clone(), TEST.clone()
    a[0, 3, 4], b[2, 3, 4], b[1, 30, 40] = math.nan, math.inf, -math.inf
    found = compare_frames(Frame(a, SCENE), Frame(b, SCENE))
    kept = torch.ones(60, 50, dtype=torch.bool)
    kept[3, 4] = kept[30, 40] = False
    row = [values[:, kept].reshape(3, 1, -1) for values in (REFERENCE, TEST)]
    expected = compare_frames(*(Frame(values, SCENE) for values in row))
    assert found.pop("excluded_pixels") == 2
    assert 0 < found.pop("pu21_ssim") < 1
    for name in ("width", "height", "excluded_pixels"):
        found.pop(name, None)
        expected.pop(name)
    assert same(found, expected)
    with pytest.raises(InputError, match="no finite pixel"):
        compare_frames(FIRST, Frame(TEST * math.nan, SCENE))


def test_pixels_of_pictures_that_are_not_finite_are_left_out_and_counted() -> None:
    a, b = (values.clamp(0, 1) for values in (REFERENCE.clone(), TEST.clone()))
    whole = compare_frames(Frame(a[:, :40], PHOTO), Frame(b[:, :40], PHOTO))
    a[0, 40:], b[2, 40:] = math.nan, math.inf
    found = compare_frames(Frame(a, PHOTO), Frame(b, PHOTO))
    assert (found.pop("excluded_pixels"), whole.pop("excluded_pixels")) == (20 * 50, 0)
    assert found.pop("height") - whole.pop("height") == 20
    assert same(found, whole, tolerance=1e-6)
    a[1, ::8, ::8] = -math.inf
    found = compare_frames(Frame(a, PHOTO), Frame(b, PHOTO))
    assert "ssim" not in found, "no window is left"
    assert all(value is None or math.isfinite(value) for value in found.values())
    with pytest.raises(InputError, match="no finite pixel"):
        compare_frames(Frame(a * math.nan, PHOTO), Frame(b, PHOTO))


def test_the_scale_is_fitted_and_told() -> None:
    plain = compare_frames(FIRST, SECOND)
    fitted = compare_frames(FIRST, Frame(TEST * 4, SCENE), fit_scale=True)
    again = compare_frames(FIRST, SECOND, fit_scale=True)
    assert "scale" not in plain and again.pop("scale") == pytest.approx(1, abs=0.01)
    assert fitted.pop("scale") == pytest.approx(0.25, rel=0.01)
    assert same(fitted, again, tolerance=1e-4)
    assert compare_frames(FIRST, Frame(REFERENCE * 8, SCENE), fit_scale=True)["scale"] == pytest.approx(1 / 8)
    dark = Frame(REFERENCE * 1e-5, SCENE)
    assert compare_frames(dark, FIRST, fit_scale=True)["scale"] == pytest.approx(1e-5, rel=1e-5)
    with pytest.raises(InputError, match="no scale fits"):
        compare_frames(FIRST, Frame(REFERENCE * 0, SCENE), fit_scale=True)
    with pytest.raises(InputError, match="--fit-scale"):
        compare_frames(FIRST, Frame(REFERENCE.clamp(max=1), PHOTO), fit_scale=True)


@pytest.mark.parametrize("transfer", ["pq", "hlg"])
def test_encoded_frames_are_compared_as_light(transfer: Any) -> None:
    state = ImageState("rgb", "display", transfer, "bt2020")
    found = compare_frames(FIRST, Frame(encode(TEST, transfer), state))
    assert same(found, compare_frames(FIRST, SECOND), tolerance=0.01)


def test_other_primaries_are_converted() -> None:
    matrix = torch.tensor(conversion("bt2020", "bt709"), dtype=torch.float32)
    narrow = Frame(torch.einsum("ij,jhw->ihw", matrix, TEST), replace(SCENE, primaries="bt709"))
    assert same(compare_frames(FIRST, narrow), compare_frames(FIRST, SECOND), tolerance=1e-3)


def test_frames_without_a_standard_space_have_fewer_measures() -> None:
    camera = [replace(frame, state=replace(SCENE, primaries="camera")) for frame in (FIRST, SECOND)]
    found = compare_frames(*camera, fit_scale=True)
    assert {"pu21_psnr_db", "mu_law_psnr_db", "rgb_angle_median_deg"} < found.keys()
    assert not found.keys() & {"delta_e_itp_mean", "pu21_ssim", "log2_rmse"}
    with pytest.raises(InputError, match="camera primaries"):
        compare_frames(FIRST, camera[1])
    with pytest.raises(InputError, match="camera primaries"):
        compare_frames(camera[0], Frame(TEST.clamp(0, 1), PHOTO))


def test_gray_frames_have_no_colour() -> None:
    gray = [Frame(values[:1], replace(SCENE, layout="gray")) for values in (REFERENCE, TEST)]
    found = compare_frames(*gray)
    assert {"pu21_psnr_db", "pu21_ssim", "log2_rmse"} < found.keys() and "delta_e_itp_mean" not in found
    with pytest.raises(InputError, match="one layout"):
        compare_frames(FIRST, gray[1])


@pytest.mark.parametrize("size", [(1, 1), (3, 8), (10, 40), (11, 11)])
@pytest.mark.parametrize("values", [(0.0, 0.0), (-1.0, 2.0), (0.0, 1.0), (1e30, 1.0)])
def test_small_and_odd_frames_give_numbers(size: tuple[int, int], values: tuple[float, float]) -> None:
    found = compare_frames(*(Frame(torch.full((3, *size), value), SCENE) for value in values))
    assert all(value is None or math.isfinite(value) for value in found.values())
    assert ("pu21_ssim" in found) == (size == (11, 11))


def test_inputs_are_left_alone() -> None:
    a, b = REFERENCE.clone(), TEST.clone()
    compare_frames(Frame(a, SCENE), Frame(b, SCENE), fit_scale=True)
    doubled = Frame(a.double(), SCENE)
    hdr.hdr_differences(doubled, doubled, white_nits=203, fit_scale=True)
    assert torch.equal(a, REFERENCE) and torch.equal(b, TEST) and torch.equal(doubled.pixels, REFERENCE.double())


def test_an_hdr_frame_and_a_picture_give_tmqi_in_either_order() -> None:
    source = scene_light(170, 180)
    scene = Frame(source, SCENE)
    picture = Frame((encode(source / (1 + source), "srgb") * 255).round().to(torch.uint8), PHOTO)
    found = compare_frames(scene, picture)
    assert found == compare_frames(picture, scene)
    assert set(found) == {"width", "height", "excluded_pixels", "tmqi", "tmqi_fidelity", "tmqi_naturalness"}
    q, s, n = (found[name] for name in ("tmqi", "tmqi_fidelity", "tmqi_naturalness"))
    assert q == pytest.approx(0.8012 * s**0.3046 + 0.1988 * n**0.7088) and 0.5 < s < 1
    linear = Frame(source / (1 + source), ImageState("rgb", "display", "linear", "bt709"))
    assert compare_frames(scene, linear)["tmqi"] == pytest.approx(q, abs=1e-3)
    broken = Frame(source.clone(), SCENE)
    broken.pixels[1, 80, 80] = math.nan
    assert compare_frames(broken, picture)["excluded_pixels"] == 1
    with pytest.raises(InputError, match="161x161"):
        compare_frames(FIRST, Frame(TEST.clamp(0, 1), PHOTO))
    with pytest.raises(InputError, match="too many values"):
        compare_frames(Frame(source * math.nan, SCENE), picture)


def test_pictures_of_one_kind_have_the_measures_of_before() -> None:
    a, b = (Frame((values.clamp(0, 1) * 255).to(torch.uint8), PHOTO) for values in (REFERENCE, TEST))
    found = compare_frames(a, b)
    error = (a.pixels.double() - b.pixels.double()) / 255
    assert found["psnr_db"] == pytest.approx(-10 * math.log10(float(error.square().mean())))
    assert found["largest_difference"] == pytest.approx(float(error.abs().max()))
    names = {"psnr_db", "ssim", "largest_difference", "ciede2000_mean", "ciede2000_p95"}
    assert set(found) == names | {"width", "height", "excluded_pixels"}
    with pytest.raises(InputError, match="one kind"):
        compare_frames(a, replace(b, state=replace(PHOTO, primaries="p3")))
    mosaic = Frame(a.pixels[:1], SHORTHANDS["sensor-bayer"])
    with pytest.raises(InputError, match="mosaic"):
        compare_frames(FIRST, mosaic)


def test_the_white_of_the_command_is_that_of_the_transfer_functions() -> None:
    assert inspect.signature(compare).parameters["white_nits"].default == DIFFUSE_WHITE_NITS


def test_the_command(tmp_path: Path) -> None:
    names = [str(tmp_path / name) for name in ("a.exr", "b.exr", "c.png")]
    source = scene_light(170, 180)
    rk.write(Frame(source, SCENE), names[0])
    rk.write(Frame(source * 2, SCENE), names[1])
    rk.write(Frame((encode(source.clamp(0, 1), "srgb") * 255).to(torch.uint8), PHOTO), names[2])
    runner = CliRunner()
    found = json.loads(runner.invoke(app, ["compare", *names[:2], "--json"]).stdout)
    assert found["log2_rmse"] == pytest.approx(1, abs=0.01) and found["white_nits"] == 203
    fitted = runner.invoke(app, ["compare", *names[:2], "--fit-scale", "--white-nits", "100"]).stdout
    assert "scale: 0.5000" in fitted and "white_nits: 100.0000" in fitted
    assert "tmqi" in json.loads(runner.invoke(app, ["compare", names[0], names[2], "--json"]).stdout)


def test_a_real_hdr_picture(shared_data: Path) -> None:
    church = rk.read(shared_data / "hdr" / "hdrvdp_nancy_church.hdr")
    church = church.with_pixels(church.pixels[:, ::3, ::3])
    noise = torch.randn(church.pixels.shape, generator=torch.Generator().manual_seed(0))
    scores = [
        compare_frames(church, church.with_pixels(church.pixels * (1 + share * noise).clamp(min=0)))
        for share in (0.02, 0.1, 0.4)
    ]
    for name in ("pu21_psnr_db", "pu21_psnr_y_db", "pu21_ssim", "mu_law_psnr_db"):
        assert scores[0][name] > scores[1][name] > scores[2][name]
    for name in ("log2_rmse", "delta_e_itp_mean", "rgb_angle_median_deg"):
        assert scores[0][name] < scores[1][name] < scores[2][name]
