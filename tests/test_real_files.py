"""Every shipped pipeline on files of real cameras and programs, from file to file."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import OpenEXR
import pytest
import rawpy
import tifffile
from numpy.typing import NDArray
from PIL import Image

from restorekit.io import read
from restorekit.jobs import plan
from restorekit.pipeline import Pipeline
from restorekit.report import JobReport, RunReport
from restorekit.runner import Runner

Array = NDArray[np.float64]

PICTURES = ("canon_d30.crw", "canon_kissx4_colorchart.dng", "kodak_c330_yrgb.raw", "kodak_dc50.kdc")
DARK_FRAME = "nikon_d500_linear_DSC8695.dng"
WARNINGS = {
    "canon_d30.crw": ("(Canon EOS D30) stored no white balance; gray world is used",),
    "canon_kissx4_colorchart.dng": (),
    "kodak_c330_yrgb.raw": ("taken for a Kodak C330 file", "Kodak C330 has no colour matrix; its RGB is taken as sRGB"),
    "kodak_dc50.kdc": ("DC50 Zoom Camera) stored no white balance; gray", "DC50 Zoom Camera has no colour matrix; its"),
    DARK_FRAME: (),
}
HEADERLESS = "headerless: {{size: 768x512, pattern: {pattern}, dtype: u16le, black: 600, white: 16383}}"


@dataclass(frozen=True)
class Finished:
    """The output folder of a run, and what was reported of each input by its name."""

    folder: Path
    jobs: dict[str, JobReport]

    def output(self, name: str) -> Path:
        (path,) = self.jobs[name].outputs
        return Path(path)


def restorekit(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "restorekit", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def command_line(pipeline: str, source: Path, folder: Path) -> Finished:
    result = restorekit("run", pipeline, source, folder)
    assert result.returncode == 0, result.stderr
    jobs = [JobReport(**job) for job in json.loads((folder / "report.json").read_text())["jobs"]]
    return Finished(folder, {Path(job.inputs[0]).name: job for job in jobs})


def run(pipeline: Pipeline, inputs: list[Path], output: Path) -> RunReport:
    runner = Runner(pipeline, plan(pipeline, inputs, output))
    list(runner.run())
    return runner.report


def done(pipeline: Pipeline, inputs: list[Path], output: Path) -> RunReport:
    report = run(pipeline, inputs, output)
    assert report.exit_code == 0, [job.error for job in report.jobs]
    return report


def encoded(path: Path) -> Array:
    """A finished picture ``[H,W,C]`` in RGB order, 0..1, by OpenCV, without turning it."""
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    assert picture is not None, path
    planes = picture[:, :, None] if picture.ndim == 2 else picture[:, :, [2, 1, 0, *range(3, picture.shape[2])]]
    return np.asarray(planes / (255.0 if picture.dtype == np.uint8 else 65535.0), np.float64)


def small(picture: NDArray[Any]) -> Array:
    return np.asarray(cv2.resize(picture.astype(np.float64), (64, 48), interpolation=cv2.INTER_AREA))


def alike(first: Array, second: Array) -> float:
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


@pytest.fixture(scope="module")
def finished(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return command_line("raw-to-srgb", shared_data / "raw", tmp_path_factory.mktemp("srgb"))


@pytest.fixture(scope="module")
def linear(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return command_line("raw-to-linear-exr", shared_data / "raw", tmp_path_factory.mktemp("exr"))


def scene(linear: Finished, name: str) -> Array:
    with OpenEXR.File(str(linear.output(name))) as file:
        return np.asarray(file.channels()["RGB"].pixels, np.float64)


def test_all_raw_files_are_done_and_only_they(finished: Finished, linear: Finished) -> None:
    assert set(finished.jobs) == set(linear.jobs) == {*PICTURES, DARK_FRAME}
    for made, extension in ((finished, ".tif"), (linear, ".exr")):
        outputs = sorted(path.name for path in made.folder.iterdir() if path.suffix == extension)
        assert outputs == sorted(Path(name).stem + extension for name in made.jobs)


@pytest.mark.parametrize("name", WARNINGS)
def test_fallbacks_are_named_in_the_report(finished: Finished, linear: Finished, name: str) -> None:
    for made in (finished, linear):
        warnings = made.jobs[name].warnings
        assert len(warnings) == len(WARNINGS[name]), warnings
        for said, expected in zip(warnings, WARNINGS[name], strict=True):
            assert expected in said


@pytest.mark.parametrize("name", PICTURES)
def test_a_finished_picture_is_neither_black_nor_burnt_nor_tinted(finished: Finished, name: str) -> None:
    picture = tifffile.imread(finished.output(name))
    assert picture.dtype == np.uint16
    codes = picture / 65535.0
    luminance = codes @ (0.2126, 0.7152, 0.0722)
    assert 0.15 < np.median(luminance) < 0.75
    assert luminance.std() > 0.05
    assert (picture == 65535).all(axis=2).mean() < 0.02, "little is white"
    assert (picture == 65535).any(axis=2).mean() < 0.04, "few colours are clipped"
    assert (picture == 0).any(axis=2).mean() < 0.1, "and few in the shadows"
    assert np.ptp(codes.mean(axis=(0, 1))) < 0.12, "the mean of a whole picture is nearly gray"


@pytest.mark.parametrize("name", PICTURES)
def test_libraw_shows_the_same_picture(shared_data: Path, finished: Finished, name: str) -> None:
    """Structure and colour differences agree, so nothing is turned, shifted, or exchanged between channels."""
    with rawpy.imread(str(shared_data / "raw" / name)) as raw:
        half = raw.postprocess(use_camera_wb=True, half_size=True)
        full = raw.sizes.height
    picture = tifffile.imread(finished.output(name))
    top, left, bottom, right = read(shared_data / "raw" / name).metadata.crop or (0, 0, *picture.shape[:2])
    assert picture.shape == (bottom - top, right - left, 3)
    scale = max(1, round(full / half.shape[0]))
    theirs = small(half[top // scale : bottom // scale, left // scale : right // scale])
    ours = small(picture)
    assert alike(ours.mean(axis=2), theirs.mean(axis=2)) > 0.95
    for channel in (0, 2):
        assert alike(ours[..., channel] - ours[..., 1], theirs[..., channel] - theirs[..., 1]) > 0.8


@pytest.mark.parametrize("name", PICTURES)
def test_linear_light_is_whole(linear: Finished, name: str) -> None:
    light = scene(linear, name)
    assert np.isfinite(light).all()
    luminance = light @ (0.2627, 0.678, 0.0593)
    assert np.median(luminance) > 0.03, "not black"
    assert np.percentile(luminance, 99.9) > 0.3
    assert light.min() > -0.1 and light.max() < 8
    assert len(np.unique(light)) > 1000


def test_highlights_of_linear_light_are_kept_above_white(linear: Finished) -> None:
    light = scene(linear, "canon_d30.crw")
    assert (light.min(axis=2) > 1.05).mean() > 0.005, "clipped lamps lie above 1.0, in all channels"


def test_a_dark_frame_stays_dark(shared_data: Path, finished: Finished, linear: Finished) -> None:
    """A file of a camera with its cap on, as its own preview tells; its noise comes out around zero, unclipped."""
    with tifffile.TiffFile(shared_data / "raw" / DARK_FRAME) as file:
        assert file.pages.first.asarray().max() <= 1, "the preview is black"
    light = scene(linear, DARK_FRAME)
    assert abs(light.mean()) < 1e-4 and 1e-6 < light.std() < 1e-3
    assert light.min() < 0 < light.max()
    assert tifffile.imread(finished.output(DARK_FRAME)).max() < 0.1 * 65535


def described(checkout: Path, folder: Path, pattern: str) -> Path:
    """The shipped pipeline, with the description of headerless mosaics that its input lacks."""
    text = (checkout / "pipelines" / "raw-to-srgb.yaml").read_text(encoding="utf-8")
    described = text.replace("sensor-bayer}", f"sensor-bayer, {HEADERLESS.format(pattern=pattern)}}}")
    assert described != text
    path = folder / f"{pattern}.yaml"
    path.write_text(described, encoding="utf-8")
    return path


def test_mosaics_without_header_need_a_description(checkout: Path, shared_data: Path, tmp_path: Path) -> None:
    """The two files hold one scene in two phases."""
    made = {}
    for phase in ("rggb", "bggr"):
        source = shared_data / "raw" / "plain" / f"isp_DSC_1339_768x512_{phase}_u16le.raw"
        for pattern in ("RGGB", "BGGR"):
            output = tmp_path / f"{phase}{pattern}.tif"
            report = done(Pipeline.load(described(checkout, tmp_path, pattern)), [source], output)
            assert any("no white balance" in warning for warning in report.jobs[0].warnings)
            assert any("no colour matrix" in warning for warning in report.jobs[0].warnings)
            made[phase, pattern] = small(tifffile.imread(output)) / 65535
    right = made["rggb", "RGGB"]
    assert np.median(right) > 0.1 and (right.max(axis=2) > 0.999).mean() < 0.02
    assert np.abs(right - made["bggr", "BGGR"]).mean() < 0.01
    assert np.abs(right - made["rggb", "BGGR"]).mean() > 0.03, "with the wrong phase red and blue change places"


def test_mosaics_without_header_are_refused_without_it(shared_data: Path, tmp_path: Path) -> None:
    report = run(Pipeline.load("raw-to-srgb"), [shared_data / "raw" / "plain"], tmp_path / "out")
    assert report.exit_code == 1 and len(report.jobs) == 2
    for job in report.jobs:
        assert job.status == "failed" and job.error.startswith(job.inputs[0])
        assert "input: {headerless: {size" in job.error and "\n" not in job.error
    assert not list((tmp_path / "out").glob("*.tif*"))


def test_a_description_of_the_wrong_size_is_refused(checkout: Path, shared_data: Path, tmp_path: Path) -> None:
    path = described(checkout, tmp_path, "RGGB")
    path.write_text(path.read_text().replace("size: 768x512", "size: 770x512"))
    source = shared_data / "raw" / "plain" / "isp_DSC_1339_768x512_rggb_u16le.raw"
    (job,) = run(Pipeline.load(path), [source], tmp_path / "a.tif").jobs
    assert "has 786432 bytes, but 770x512 u16le makes 788480" in job.error


def test_damaged_files_fail_alone(shared_data: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    shutil.copy(shared_data / "raw" / DARK_FRAME, source / "good.dng")
    for name in ("canon_d30.crw", "canon_kissx4_colorchart.dng", "kodak_dc50.kdc"):
        content = (shared_data / "raw" / name).read_bytes()
        (source / name).write_bytes(content[: len(content) * 6 // 10])
    (source / "letter.dng").write_text("Dear reader, this is no picture.\n" * 100)
    (source / "nothing.cr2").write_bytes(b"")
    before = {path: path.read_bytes() for path in source.iterdir()}
    result = restorekit("run", "raw-to-srgb", source, out)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "1 done" in result.stderr and "5 failed" in result.stderr
    failed = [line for line in result.stderr.splitlines() if line.startswith("failed  ")]
    for name, said in {
        "canon_d30.crw": "copy it again",
        "canon_kissx4_colorchart.dng": "cut off",
        "kodak_dc50.kdc": "copy it again",
        "letter.dng": "no DNG file but text",
        "nothing.cr2": "is empty (0 bytes)",
    }.items():
        (line,) = (line for line in failed if str(source / name) in line)
        assert said in line
    assert sorted(path.name for path in out.iterdir()) == [".restorekit", "good.tif", "report.json"]
    assert before == {path: path.read_bytes() for path in source.iterdir()}, "inputs are never touched"


@pytest.fixture(scope="module")
def photos(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One scene as JPEG, PNG of 8 and 16 bits, TIFF of 16, WebP and BMP; and two pictures of other programs."""
    folder = tmp_path_factory.mktemp("photos")
    picture = cv2.imread(str(shared_data / "brackets" / "jamyl_lighthouse" / "A.jpg"))
    assert picture is not None
    picture = cv2.resize(picture, (600, 400), interpolation=cv2.INTER_AREA)
    cv2.imwrite(
        str(folder / "a.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 98, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]
    )
    cv2.imwrite(str(folder / "b.png"), picture)
    cv2.imwrite(str(folder / "c.png"), picture.astype(np.uint16) * 257)
    cv2.imwrite(str(folder / "d.tif"), picture.astype(np.uint16) * 257)
    cv2.imwrite(str(folder / "e.webp"), picture, [cv2.IMWRITE_WEBP_QUALITY, 101])  # lossless
    cv2.imwrite(str(folder / "f.bmp"), picture)
    for name in ("cvo9xd_keong_macan_grayscale.png", "tmshre_riaphotographs_alpha.png"):
        shutil.copy(shared_data / "metadata" / "libjxl_wesaturate" / name, folder)
    return folder


def test_photo_enhance_brightens_and_keeps_the_picture(photos: Path, tmp_path: Path) -> None:
    done(Pipeline.load("photo-enhance"), [photos], tmp_path)
    for source in sorted(photos.iterdir()):
        before, after = encoded(source)[..., :3], encoded(tmp_path / f"{source.stem}.jpg")
        assert after.shape[:2] == before.shape[:2]
        gray_before, gray_after = before.mean(axis=2), after.mean(axis=2)
        assert alike(small(gray_before), small(gray_after)) > 0.95
        assert np.mean(gray_after) > np.mean(gray_before) - 0.01, "never darker"
        assert (gray_after > 0.996).mean() < (gray_before > 0.996).mean() + 0.02, "and not burnt"
    assert encoded(tmp_path / "a.jpg").mean() > encoded(photos / "a.jpg").mean() + 0.05, "dark photos get brighter"


def test_a_picture_is_the_same_from_every_container(photos: Path, tmp_path: Path) -> None:
    for name in ("photo-enhance", "photo-resize"):
        done(Pipeline.load(name), [photos], tmp_path / name)
        first = encoded(tmp_path / name / "b.jpg")
        for stem, allowed in (("c", 2e-5), ("d", 2e-5), ("e", 2e-5), ("f", 2e-5), ("a", 0.01)):
            assert np.abs(encoded(tmp_path / name / f"{stem}.jpg") - first).mean() < allowed, stem


def test_gray_stays_gray(photos: Path, tmp_path: Path) -> None:
    for name in ("photo-enhance", "photo-resize"):
        output = tmp_path / f"{name}.png"
        done(Pipeline.load(name), [photos / "cvo9xd_keong_macan_grayscale.png"], output)
        picture = encoded(output)
        assert picture.std() > 0.1
        assert np.ptp(picture, axis=2).max() == 0.0


def test_alpha_is_kept_where_the_format_has_it(photos: Path, tmp_path: Path) -> None:
    source = photos / "tmshre_riaphotographs_alpha.png"
    done(Pipeline.load("photo-enhance"), [source], tmp_path / "a.png")
    before, after = encoded(source), encoded(tmp_path / "a.png")
    assert after.shape == before.shape and before[..., 3].std() > 0.01
    np.testing.assert_allclose(after[..., 3], before[..., 3], rtol=0, atol=0.5 / 255)
    done(Pipeline.load("photo-resize").set("geometry.resize", long_edge=250), [source], tmp_path / "b.png")
    halved = cv2.resize(before[..., 3], (250, 250), interpolation=cv2.INTER_AREA)
    assert np.abs(encoded(tmp_path / "b.png")[..., 3] - halved).mean() < 0.01


@pytest.mark.parametrize("pipeline", ["photo-enhance", "photo-resize"])
@pytest.mark.parametrize("name", ["Landscape", "Portrait"])
def test_all_orientations_come_out_upright(shared_data: Path, tmp_path: Path, pipeline: str, name: str) -> None:
    """The nine files differ in how they are stored, and in the number drawn into their middle."""
    pipe = Pipeline.load(pipeline)
    if pipeline == "photo-resize":
        pipe = pipe.set("geometry.resize", long_edge=600)
    names = [f"{name}_{number}" for number in range(9 if pipeline == "photo-resize" else 7)]
    sources = [shared_data / "metadata" / "exif_orientation" / f"{each}.jpg" for each in names]
    done(pipe, sources, tmp_path)
    first, *others = (encoded(tmp_path / f"{each}.jpg") for each in names)
    height, width = first.shape[:2]
    assert (width > height) == (name == "Landscape")
    for other in others:
        assert other.shape == first.shape
        assert np.abs(other - first).mean() < 0.025
        assert np.abs(other[::-1] - first).mean() > 0.06, "the measure sees a picture that is upside down"
        assert np.abs(other[:, ::-1] - first).mean() > 0.06, "and one that is mirrored"
    for each in names:
        with Image.open(tmp_path / f"{each}.jpg") as picture:
            assert picture.getexif().get(0x0112, 1) == 1, "and no viewer turns it once more"


def test_photo_resize_makes_the_long_edge_and_never_enlarges(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "metadata" / "exif_orientation"
    pipe = Pipeline.load("photo-resize")
    done(pipe, [folder / "Landscape_6.jpg"], tmp_path / "same")
    assert encoded(tmp_path / "same" / "Landscape_6.jpg").shape == (1200, 1800, 3)
    half = pipe.set("geometry.resize", long_edge=900)
    done(half, [folder / "Landscape_6.jpg", folder / "Portrait_1.jpg"], tmp_path / "half")
    assert encoded(tmp_path / "half" / "Landscape_6.jpg").shape == (600, 900, 3)
    assert encoded(tmp_path / "half" / "Portrait_1.jpg").shape == (900, 600, 3)


def test_a_raw_file_is_developed_for_a_photo_pipeline(shared_data: Path, tmp_path: Path) -> None:
    pipe = Pipeline.load("photo-resize").set("geometry.resize", long_edge=512)
    done(pipe, [shared_data / "raw" / "kodak_dc50.kdc"], tmp_path / "a.jpg")
    picture = encoded(tmp_path / "a.jpg")
    assert picture.shape == (341, 512, 3) and 0.2 < np.median(picture) < 0.8


def badly_exposed(picture: Array) -> float:
    luma = picture.mean(axis=2)
    return float(((luma < 0.04) | (luma > 0.96)).mean())


def test_brackets_are_found_by_subfolder_and_fused(shared_data: Path, tmp_path: Path) -> None:
    names = ("jamyl_lighthouse", "jamyl_house")
    for name in names:
        shutil.copytree(shared_data / "brackets" / name, tmp_path / "in" / name)
    report = done(Pipeline.load("bracket-fusion"), [tmp_path / "in"], tmp_path / "out")
    assert sorted(len(job.inputs) for job in report.jobs) == [3, 4]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.*")) == [
        ".restorekit",
        *sorted(f"{n}.jpg" for n in names),
    ]
    for name in names:
        frames = [encoded(path) for path in (shared_data / "brackets" / name).iterdir()]
        fused = encoded(tmp_path / "out" / f"{name}.jpg")
        lost = np.subtract(frames[0].shape, fused.shape)
        assert (lost >= 0).all() and (lost <= 12).all(), "cropped to what all frames show"
        assert badly_exposed(fused) < 0.9 * min(badly_exposed(frame) for frame in frames)
        darkest, brightest = min(frame.mean() for frame in frames), max(frame.mean() for frame in frames)
        assert darkest < fused.mean() < brightest


def test_group_by_number(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "brackets" / "jamyl_room"
    result = restorekit("run", "bracket-fusion", folder, tmp_path, "--group", "3")
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert [[Path(path).name for path in job["inputs"]] for job in report["jobs"]] == [
        ["room1.png", "room2.png", "room3.png"],
        ["room4.png", "room5.png", "room6.png"],
    ]
    first, second = encoded(tmp_path / "room1.jpg"), encoded(tmp_path / "room4.jpg")
    assert abs(first.mean() - second.mean()) > 0.05, "one is made of the dark, one of the bright exposures"
