"""The shipped pipelines for brackets from the command line: known light in, the same light out, and bad input told."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import OpenEXR
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin
from typer.testing import CliRunner

from restorekit.cli import app
from restorekit.color.primaries import rgb_to_xyz
from restorekit.engine import process
from restorekit.facts import Calibration, Camera, Exposure, Facts, Metadata
from restorekit.frame import Bracket, Frame
from restorekit.io import read, write
from restorekit.io.dng.write import write_dng
from restorekit.schema import parse
from restorekit.stages.raw import BlackLevel
from restorekit.stages.tone import Exposure as ToneExposure
from restorekit.state import SHORTHANDS

Array = NDArray[np.float64]

EVS = (-2.0, 0.0, 2.0)
HEIGHT, WIDTH, MARGIN = 240, 360, 16
SHIFTS = ((3.4, -2.3), (0.0, 0.0), (-4.2, 5.6))
"""Where a shot from the hand sees the scene (x, y), px."""

BT709_TO_BT2020 = np.array(
    [(0.6274039, 0.3292830, 0.0433131), (0.0690973, 0.9195404, 0.0113623), (0.0163914, 0.0880133, 0.8955953)]
)
NEUTRAL = (0.5, 1.0, 0.625)
BLACK, WHITE = 512, 16383
NOISE = 1 / 12000, (4 / 12000) ** 2


def scene(seed: int = 1) -> Array:
    """Light ``[H,W,3]`` in BT.709 with detail and edges, over 10 stops, up to three above white; with a margin."""
    random = np.random.default_rng(seed)
    size = WIDTH + 2 * MARGIN, HEIGHT + 2 * MARGIN
    stops = sum(cv2.resize(random.normal(0, s, (n, n * 3 // 2)), size) for n, s in ((4, 1.6), (12, 0.8), (60, 0.5)))
    for _ in range(12):
        x, y, w, h = (int(v) for v in random.uniform((0, 0, 20, 20), (size[0] - 60, size[1] - 60, 120, 90)))
        stops[y : y + h, x : x + w] += random.normal(0, 1)
    tints = cv2.resize(random.normal(0, 0.25, (9, 12, 3)), size)
    return np.asarray(
        cv2.GaussianBlur(2.0 ** (np.clip(stops, -5, 5)[..., None] + tints - 1.5), (0, 0), 0.8), np.float64
    )


def seen(light: Array, shift: tuple[float, float] = (0, 0)) -> Array:
    matrix = np.array([(1, 0, shift[0] - MARGIN), (0, 1, shift[1] - MARGIN)], np.float64)
    view = cv2.warpAffine(light, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC)
    return np.asarray(np.maximum(view, 1e-4), np.float64)


def exif(shot: int, ev: float, model: str = "One") -> Image.Exif:
    """What a camera writes: Make, Model, ExposureTime, FNumber, ISO, DateTimeOriginal and its fractions."""
    block = Image.Exif()
    block[271], block[272] = "Synthetic", model
    time = Fraction(1, 100) * Fraction(2.0**ev)
    block.get_ifd(0x8769).update(
        {
            33434: TiffImagePlugin.IFDRational(time.numerator, time.denominator),
            33437: TiffImagePlugin.IFDRational(8),
            34855: 100,
            36867: f"2026:01:02 10:00:{shot // 4:02}",
            37521: f"{shot % 4 * 250:03}",
        }
    )
    return block


def recorded(light: Array, ev: float, seed: int) -> Array:
    exposed = light * 2.0**ev
    deviation = np.sqrt(NOISE[0] * exposed + NOISE[1])
    return np.asarray(exposed + np.random.default_rng(seed).normal(0, 1, light.shape) * deviation, np.float64)


def jpeg(path: Path, light: Array, ev: float, shot: int = 0, model: str = "One", said: float | None = None) -> Path:
    """A photograph of sRGB, exposed by ``ev`` stops; ``said`` is what the file tells instead."""
    linear = recorded(light, ev, shot).clip(0, 1)
    codes = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.rint(codes * 255).astype(np.uint8))
    picture.save(path, quality=97, subsampling=0, exif=exif(shot, ev if said is None else said, model))
    return path


def dng(path: Path, light: Array, ev: float, shot: int = 0) -> Path:
    """A RGGB mosaic of a camera with BT.709 primaries."""
    seen_by = light * np.array(NEUTRAL)
    mosaic = seen_by[..., 1].copy()
    mosaic[0::2, 0::2], mosaic[1::2, 1::2] = seen_by[0::2, 0::2, 0], seen_by[1::2, 1::2, 2]
    numbers = np.rint(recorded(mosaic, ev, shot) * (WHITE - BLACK) + BLACK).clip(0, WHITE).astype(np.uint16)
    matrix = np.diag(NEUTRAL) @ np.linalg.inv(rgb_to_xyz("bt709"))
    camera = Camera("Synthetic", "One", calibrations=(Calibration(6504.0, matrix),), noise_profile=(NOISE,) * 3)
    frame = Frame.from_bayer(
        numbers,
        pattern="RGGB",
        black=BLACK,
        white=WHITE,
        exposure=Exposure(time_s=0.01 * 2.0**ev, f_number=8, iso=100),
        neutral=NEUTRAL,
        camera=camera,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    block = io.BytesIO(exif(shot, ev).tobytes()).getvalue().removeprefix(b"Exif\0\0")
    write_dng(path, replace(frame, metadata=Metadata(exif=block)))
    return path


def exr(path: Path, light: Array, ev: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = torch.from_numpy(np.minimum(light * 2.0**ev, 1)).permute(2, 0, 1).float()
    return write(Frame(pixels.contiguous(), SHORTHANDS["scene-linear"]), path)


WHOLE = "--set", "align.homography.border=fill"
"""Keeps the frame of the reference, in which the truth is known."""


def light_frames() -> list[Frame]:
    """Scene light without noise, clipped at 1."""
    views = [np.minimum(seen(scene()) * 2.0**ev, 1) for ev in EVS]
    state, facts = SHORTHANDS["scene-linear"], Facts(clip_level=(1.0,) * 3)
    return [Frame(torch.from_numpy(view).permute(2, 0, 1).float().contiguous(), state, facts=facts) for view in views]


def photos(folder: Path, *, shifts: Sequence[tuple[float, float]] = SHIFTS, seed: int = 1) -> list[Path]:
    light = scene(seed)
    return [
        jpeg(folder / f"{k}.jpg", seen(light, shift), ev, k)
        for k, (ev, shift) in enumerate(zip(EVS, shifts, strict=True))
    ]


@dataclass(frozen=True)
class Result:
    """What a run said and did."""

    code: int
    said: str
    jobs: list[dict[str, Any]]

    @property
    def warnings(self) -> str:
        return "; ".join(warning for job in self.jobs for warning in job["warnings"])


def run(pipeline: str, source: Path, out: Path, *options: str) -> Result:
    done = CliRunner().invoke(app, ["run", pipeline, str(source), str(out), *options])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert done.stdout == "" and "Traceback" not in done.stderr and "internal error" not in done.stderr, done.stderr
    return Result(done.exit_code, done.stderr, json.loads((out / "report.json").read_text())["jobs"])


def pictures(folder: Path) -> list[str]:
    """What lies in an output folder beside the report and the journal."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(str(path) for path in found if path.name != "report.json" and path.parts[0] != ".restorekit")


def refused(result: Result, out: Path, *says: str) -> None:
    """Exit 1, one line for the one job, nothing written."""
    assert result.code == 1 and pictures(out) == []
    (line,) = [line for line in result.said.splitlines() if line.startswith("failed")]
    assert all(word in line for word in says), line


def light_of(path: Path) -> Array:
    """An EXR file ``[H,W,3]``, read by OpenEXR itself."""
    with OpenEXR.File(str(path)) as file:
        assert file.header()["chromaticities"][:2] == pytest.approx((0.708, 0.292), abs=1e-4), "BT.2020"
        return np.asarray(file.channels()["RGB"].pixels, np.float64)


def off_ev(found: Array, truth: Array) -> Array:
    """By how many stops luminance is wrong, away from the edge of the picture, where all shots see the scene."""
    inside = np.s_[MARGIN:-MARGIN, MARGIN:-MARGIN]
    weights = np.array([0.2627, 0.6780, 0.0593])
    return np.asarray(np.log2(np.maximum(found[inside] @ weights, 1e-6) / (truth[inside] @ weights)), np.float64)


def test_photos_from_the_hand_become_their_light(tmp_path: Path) -> None:
    photos(tmp_path / "in")
    result = run("bracket-to-hdr", tmp_path / "in", tmp_path / "out", *WHOLE)
    assert result.code == 0 and pictures(tmp_path / "out") == ["0.exr", "0.jpg"]
    truth = seen(scene()) @ BT709_TO_BT2020.T
    visible = truth.max(2)[MARGIN:-MARGIN, MARGIN:-MARGIN] < 3.2
    assert (truth > 1).mean() > 0.05, "there is light that the reference does not hold"
    off = off_ev(light_of(tmp_path / "out" / "0.exr"), truth)[visible]
    assert abs(np.median(off)) < 0.02 and np.quantile(np.abs(off), 0.95) < 0.15
    assert result.jobs[0]["measured"]["merge.exposures ev"] == pytest.approx(EVS, abs=0.05)
    with Image.open(tmp_path / "out" / "0.jpg") as picture:
        assert picture.size == (WIDTH, HEIGHT) and picture.getexif()[272] == "One"
        assert 60 < np.asarray(picture).mean() < 190
    assert imagecodecs.ultrahdr_decode((tmp_path / "out" / "0.jpg").read_bytes())[..., :3].max() > 1.2


def test_pixels_win_where_a_file_tells_a_wrong_exposure(tmp_path: Path) -> None:
    """The brightest was exposed by a stop less than it says."""
    for k, (ev, said) in enumerate(zip(EVS, (-2.0, 0.0, 3.0), strict=True)):
        jpeg(tmp_path / "in" / f"{k}.jpg", seen(scene()), ev, k, said=said)
    result = run("bracket-to-hdr", tmp_path / "in", tmp_path / "out")
    assert result.code == 0
    assert "2.jpg: the files say +3.00 EV, the pixels +2.0" in result.warnings
    assert result.jobs[0]["measured"]["merge.exposures ev"] == pytest.approx(EVS, abs=0.05)


def test_unknown_exposures_are_measured(tmp_path: Path) -> None:
    for k, ev in enumerate(EVS):
        with Image.open(jpeg(tmp_path / f"{k}.jpg", seen(scene()), ev, k)) as picture:
            (tmp_path / "in").mkdir(exist_ok=True)
            picture.save(tmp_path / "in" / f"{k}.png")
    result = run("bracket-to-hdr", tmp_path / "in", tmp_path / "out", "--group", "folder")
    assert result.code == 0 and "exposures are unknown and measured from the pixels" in result.warnings
    assert result.jobs[0]["measured"]["merge.exposures ev"] == pytest.approx(EVS, abs=0.06)
    known = run("bracket-to-hdr", tmp_path / "in", tmp_path / "given", "--group", "folder", "--ev=-2,0,2")
    assert known.code == 0 and not known.warnings


def test_nothing_known_and_nothing_in_common(tmp_path: Path) -> None:
    """A frame as good as black and one as good as white."""
    for k, ev in enumerate((-16.0, 9.0)):
        with Image.open(jpeg(tmp_path / f"{k}.jpg", seen(scene()), ev, k)) as picture:
            (tmp_path / "in").mkdir(exist_ok=True)
            picture.save(tmp_path / "in" / f"{k}.png")
    result = run("bracket-to-hdr", tmp_path / "in", tmp_path / "out", "--group", "folder")
    refused(result, tmp_path / "out", "0.png and 1.png: nothing tells their exposures", "--ev")


def test_raw_files_from_the_hand_become_their_light(tmp_path: Path) -> None:
    for k, (ev, shift) in enumerate(zip(EVS, SHIFTS, strict=True)):
        dng(tmp_path / "in" / f"{k}.dng", seen(scene(), shift), ev, k)
    result = run("bracket-to-hdr", tmp_path / "in", tmp_path / "out", *WHOLE)
    assert result.code == 0 and pictures(tmp_path / "out") == ["0.exr", "0.jpg"]
    truth = seen(scene()) @ BT709_TO_BT2020.T
    visible = truth.max(2)[MARGIN:-MARGIN, MARGIN:-MARGIN] < 3.2
    off = off_ev(light_of(tmp_path / "out" / "0.exr"), truth)[visible]
    assert abs(np.median(off)) < 0.02 and np.quantile(np.abs(off), 0.95) < 0.15


def test_raw_files_are_merged_on_their_mosaic(tmp_path: Path) -> None:
    """From a tripod, so that every photosite can be compared with its own light."""
    light = seen(scene())
    for k, ev in enumerate(EVS):
        dng(tmp_path / "in" / f"{k}.dng", light, ev, k)
    result = run("bracket-to-dng", tmp_path / "in", tmp_path / "out")
    assert result.code == 0 and pictures(tmp_path / "out") == ["0.dng"]
    frame = read(tmp_path / "out" / "0.dng")
    assert frame.camera.cfa == ("RG", "GB") and frame.camera.model == "One" and frame.exposure.time_s == 0.01
    found = ToneExposure()(BlackLevel()(frame)).pixels[0].double().numpy()
    seen_by = light * np.array(NEUTRAL)
    wanted = seen_by[..., 1].copy()
    wanted[0::2, 0::2], wanted[1::2, 1::2] = seen_by[0::2, 0::2, 0], seen_by[1::2, 1::2, 2]
    held = (wanted < 3.2) & (wanted > 0.01)
    off = np.log2(found[held] / wanted[held])
    assert abs(np.median(off)) < 0.01 and np.quantile(np.abs(off), 0.95) < 0.12
    assert found.max() == pytest.approx(4.0, rel=0.01), "where the darkest frame clips"


def test_photos_are_fused(tmp_path: Path) -> None:
    files = photos(tmp_path / "in")
    result = run("bracket-fusion", tmp_path / "in", tmp_path / "out")
    assert result.code == 0 and pictures(tmp_path / "out") == ["0.jpg"]
    fused = read(tmp_path / "out" / "0.jpg").as_float().pixels
    middle = read(files[1]).as_float().pixels
    moved = [max(shift[axis] for shift in SHIFTS) - min(shift[axis] for shift in SHIFTS) for axis in (0, 1)]
    assert 0 <= WIDTH - moved[0] - fused.shape[2] < 2 and 0 <= HEIGHT - moved[1] - fused.shape[1] < 2, "what all see"
    lost = [float(((p > 0.98) | (p < 0.02)).float().mean()) for p in (fused, middle)]
    assert lost[0] < 0.3 * lost[1], "less is burnt or drowned than in the middle shot"


@pytest.mark.parametrize("pipeline", ["bracket-to-hdr", "bracket-fusion"])
def test_brackets_of_two_cameras_are_told_apart(pipeline: str, tmp_path: Path) -> None:
    light = seen(scene())
    for k, (model, ev) in enumerate((m, ev) for m in ("One", "Two") for ev in EVS):
        jpeg(tmp_path / "in" / f"{k}.jpg", light, ev, k, model)
    result = run(pipeline, tmp_path / "in", tmp_path / "out")
    assert result.code == 0 and "2 done" in result.said
    assert [[Path(p).name for p in job["inputs"]] for job in result.jobs] == [
        ["0.jpg", "1.jpg", "2.jpg"],
        ["3.jpg", "4.jpg", "5.jpg"],
    ]


def test_frames_of_two_cameras_in_one_bracket_are_told(tmp_path: Path) -> None:
    for k, (model, ev) in enumerate(zip(("One", "Two", "One"), EVS, strict=True)):
        jpeg(tmp_path / "in" / f"{k}.jpg", seen(scene()), ev, k, model)
    result = run("bracket-fusion", tmp_path / "in", tmp_path / "out", "--group", "folder")
    assert result.code == 0 and "different cameras" in result.warnings


PHOTO_PIPELINES = pytest.mark.parametrize("pipeline", ["bracket-to-hdr", "bracket-fusion"])


@PHOTO_PIPELINES
def test_one_frame_is_no_bracket(pipeline: str, tmp_path: Path) -> None:
    jpeg(tmp_path / "in" / "a.jpg", seen(scene()), 0)
    result = run(pipeline, tmp_path / "in", tmp_path / "out")
    refused(result, tmp_path / "out", "a.jpg: is one frame, a bracket needs at least two", "--group")


@PHOTO_PIPELINES
def test_sizes_that_differ_are_named(pipeline: str, tmp_path: Path) -> None:
    files = photos(tmp_path / "in")
    jpeg(files[2], seen(scene())[:200], 2, 2)
    result = run(pipeline, tmp_path / "in", tmp_path / "out", "--group", "folder")
    refused(result, tmp_path / "out", "2.jpg: is 360x200", "0.jpg", "360x240", "use frames of one size")


@PHOTO_PIPELINES
def test_a_damaged_file_fails_its_bracket_alone(pipeline: str, tmp_path: Path) -> None:
    damaged = photos(tmp_path / "in" / "a")
    photos(tmp_path / "in" / "b", seed=2)
    damaged[1].write_bytes(damaged[1].read_bytes()[:3000])
    result = run(pipeline, tmp_path / "in", tmp_path / "out")
    assert result.code == 1 and "1 done, 1 failed" in result.said
    (line,) = [line for line in result.said.splitlines() if line.startswith("failed")]
    assert str(damaged[1]) in line
    assert pictures(tmp_path / "out") and all(name.startswith("b") for name in pictures(tmp_path / "out"))


@PHOTO_PIPELINES
@pytest.mark.parametrize("light", [0.0, 50.0], ids=["black", "white"])
def test_frames_that_show_nothing(pipeline: str, light: float, tmp_path: Path) -> None:
    """A picture of nothing comes out, and it is said that the frames could not be aligned."""
    for k, ev in enumerate(EVS):
        jpeg(tmp_path / "in" / f"{k}.jpg", np.full((HEIGHT, WIDTH, 3), light), ev, k)
    result = run(pipeline, tmp_path / "in", tmp_path / "out")
    assert result.code == 0 and result.warnings.count("could not be aligned") == 2
    if pipeline == "bracket-to-hdr":
        found = light_of(tmp_path / "out" / "0.exr")
        assert np.abs(found).max() < 0.01 if light == 0 else found == pytest.approx(4.0, rel=1e-3), "as far as is seen"


@pytest.mark.parametrize("light", [0.0, 50.0], ids=["black", "white"])
def test_raw_files_that_show_nothing(light: float, tmp_path: Path) -> None:
    for k, ev in enumerate(EVS):
        dng(tmp_path / "in" / f"{k}.dng", np.full((HEIGHT, WIDTH, 3), light), ev, k)
    result = run("bracket-to-dng", tmp_path / "in", tmp_path / "out")
    assert result.code == 0 and result.warnings.count("could not be aligned") == 2
    found = ToneExposure()(BlackLevel()(read(tmp_path / "out" / "0.dng"))).pixels
    assert abs(float(found.mean()) - min(light, 4.0)) < 0.01 and bool(found.isfinite().all())


def test_finished_pictures_are_no_mosaics(tmp_path: Path) -> None:
    photos(tmp_path / "in")
    result = run("bracket-to-dng", tmp_path / "in", tmp_path / "out")
    refused(result, tmp_path / "out", "0.jpg: the pipeline starts from RAW, this is a finished picture", "use ")


@PHOTO_PIPELINES
def test_kinds_of_files_that_differ_are_named(pipeline: str, tmp_path: Path) -> None:
    photos(tmp_path / "in")
    exr(tmp_path / "in" / "3.exr", seen(scene()), 0)
    result = run(pipeline, tmp_path / "in", tmp_path / "out", "--group", "folder")
    refused(result, tmp_path / "out", "3.exr: is rgb-scene-linear", "0.jpg", "use one kind of file")


@PHOTO_PIPELINES
@pytest.mark.parametrize("size", [(8, 8), (3, 5), (1, 1)])
def test_tiny_pictures(pipeline: str, size: tuple[int, int], tmp_path: Path) -> None:
    for k, ev in enumerate(EVS):
        jpeg(tmp_path / "in" / f"{k}.jpg", seen(scene())[: size[0], : size[1]], ev, k)
    result = run(pipeline, tmp_path / "in", tmp_path / "out")
    assert result.code == 0
    assert read(tmp_path / "out" / "0.jpg").pixels.shape == (3, *size)


def test_frames_wait_for_each_other_in_half_floats() -> None:
    """A stage that works frame by frame: its light is kept to half a step, and stays a number where it is too much."""
    bracket = Bracket(
        tuple(replace(f, exposure=Exposure(ev_offset=ev)) for f, ev in zip(light_frames(), EVS, strict=True))
    )
    text = (
        "restorekit: 1\nname: t\ninput: {state: scene-linear, frames: bracket}\n"
        "stages: [tone.exposure: {ev: %s}, merge.exposures: {refine: false}, merge.radiance]\noutput: {format: exr}\n"
    )
    truth = torch.from_numpy(seen(scene())).permute(2, 0, 1)
    held = (truth < 3.0) & (truth > 1e-3)
    found = process(parse(text % 1.5, "t.yaml"), bracket).pixels
    assert float((found / (truth * 2**1.5) - 1)[held].abs().max()) < 2.0**-10
    assert bool(process(parse(text % 19, "t.yaml"), bracket).pixels.isfinite().all())


def test_light_that_is_no_number_is_left_out_and_told(tmp_path: Path) -> None:
    for k, ev in enumerate(EVS):
        light = seen(scene())
        if k == 2:
            light[100:104, 100:104] = np.nan
        exr(tmp_path / "in" / f"{k}.exr", light, ev)
    result = run("bracket-to-hdr", tmp_path / "in", tmp_path / "out", "--group", "folder", "--ev=-2,0,2")
    assert result.code == 0 and "48 values are no numbers and left out" in result.warnings
    found = light_of(tmp_path / "out" / "in.exr")
    off = off_ev(found, seen(scene()))
    assert np.isfinite(found).all() and np.quantile(np.abs(off), 0.95) < 0.1
