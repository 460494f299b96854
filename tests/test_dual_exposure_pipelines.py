"""The shipped pipelines for pairs of exposures: two RAW files in, the light found, grays gray in what comes out."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import OpenEXR
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from restorekit.cli import app
from restorekit.color.primaries import rgb_to_xyz
from restorekit.data.degradation import seeded
from restorekit.data.exposures import DualExposure, dual_exposure_frames
from restorekit.facts import Calibration, Camera, Exposure
from restorekit.frame import Frame
from restorekit.io.dng.write import write_dng
from restorekit.state import ImageState

DAYLIGHT = (0.5, 1.0, 0.625)
"""What the camera sees of a white surface in D65; it has BT.709 primaries."""

LAMP = (0.9, 1.0, 0.35)
WRONG = (0.5, 1.0, 0.9)
BLACK, WHITE = 512, 16383
HEIGHT, WIDTH = 240, 320
GRAYS = ((slice(20, 60), slice(30, 90)), (slice(150, 200), slice(200, 280)))


def night(seed: int = 0) -> Frame:
    """A mosaic of surfaces of muted colours, two of them gray, and two lamps, of which one clips always."""
    random = np.random.default_rng(seed)
    pixels = np.full((3, HEIGHT, WIDTH), 0.15)
    for _ in range(300):
        y, x, h, w = random.integers(0, HEIGHT - 8), random.integers(0, WIDTH - 8), *random.integers(6, 50, 2)
        pixels[:, y : y + h, x : x + w] = random.uniform(0.02, 0.5) * np.exp(random.normal(0, 0.15, (3, 1, 1)))
    for (rows, columns), value in zip(GRAYS, (0.3, 0.1), strict=True):
        pixels[:, rows, columns] = value
    pixels[:, 100:130, 100:150] = 8.0
    pixels[:, 10:16, 250:256] = 500.0
    lit = pixels * np.array(LAMP)[:, None, None]
    plane = lit[1:2].copy()
    plane[:, 0::2, 0::2], plane[:, 1::2, 1::2] = lit[:1, 0::2, 0::2], lit[2:, 1::2, 1::2]
    state = ImageState("bayer", "scene", "linear", "camera")
    return Frame(torch.from_numpy(plane).float(), state, camera=Camera(cfa=("RG", "GB")))


def written(folder: Path, stops: float = 3.0) -> list[Path]:
    """A short and a long exposure as DNG files, which say a white balance that is wrong."""
    matrix = np.diag(DAYLIGHT) @ np.linalg.inv(rgb_to_xyz("bt709"))
    camera = Camera("Synthetic", "One", calibrations=(Calibration(6504.0, matrix),))
    folder.mkdir(parents=True)
    files = []
    effects = DualExposure(electrons=(4000.0, 4000.0), read_noise=(5e-4, 5e-4))
    for shot, frame in enumerate(dual_exposure_frames(night(), stops, seeded(1), effects)):
        numbers = (frame.pixels[0].numpy() * (WHITE - BLACK) + BLACK).round().clip(0, WHITE).astype(np.uint16)
        raw = Frame.from_bayer(
            numbers,
            pattern="RGGB",
            black=BLACK,
            white=WHITE,
            exposure=Exposure(time_s=0.1 * 2.0 ** (frame.exposure.ev_offset or 0.0), f_number=2, iso=100),
            neutral=WRONG,
            camera=camera,
        )
        files.append(folder / f"{shot}.dng")
        write_dng(files[-1], raw)
    return files


def run(pipeline: str, source: Path, out: Path, *options: str) -> str:
    done = CliRunner().invoke(app, ["run", pipeline, str(source), str(out), "--group", "folder", *options])
    assert done.exit_code == 0, done.stderr
    return done.stderr


def off_gray(picture: np.ndarray) -> float:
    """The angle between the mean colour of gray surfaces and gray, degrees: the worst of them."""
    colors = [picture[rows, columns].reshape(-1, 3).mean(0) for rows, columns in GRAYS]
    return max(float(np.degrees(np.arccos(c.sum() / np.linalg.norm(c) / 3**0.5))) for c in colors)


@pytest.mark.parametrize("method", ["eccc", "emlp"])
def test_a_pair_becomes_light_in_which_grays_are_gray(method: str, tmp_path: Path) -> None:
    written(tmp_path / "in")
    run("dual-exposure-hdr", tmp_path / "in", tmp_path / "out", "--set", f"illuminant.dual_exposure.method={method}")
    with OpenEXR.File(str(tmp_path / "out" / "in.exr")) as file:
        light = np.asarray(file.channels()["RGB"].pixels, np.float64)
    assert off_gray(light) < 7 < off_gray(light / np.array(LAMP) * np.array(WRONG)), "the file's balance is not used"
    assert light[110:120, 110:140].max() > 1.5, "the lamp is brighter than the long frame holds"
    lamp = light[12:14, 252:254].mean((0, 1))
    assert lamp.max() < 1.3 * lamp.min(), "what clips in both frames is white, not of the colour of the gains"
    picture = (tmp_path / "out" / "in.jpg").read_bytes()
    assert imagecodecs.ultrahdr_decode(picture)[..., :3].max() > 1.2


def test_a_pair_becomes_a_night_picture(tmp_path: Path) -> None:
    written(tmp_path / "in")
    run("dual-exposure-night", tmp_path / "in", tmp_path / "out")
    with Image.open(tmp_path / "out" / "in.jpg") as opened:
        picture = np.asarray(opened, np.float64)
    assert picture.shape == (HEIGHT, WIDTH, 3)
    assert off_gray((picture / 255) ** 2.2) < 7
    assert 40 < picture.mean() < 190 and picture[110:120, 110:140].mean() > 200


def test_one_file_is_no_pair(tmp_path: Path) -> None:
    written(tmp_path / "in")[1].unlink()
    files = [str(tmp_path / name) for name in ("in", "out")]
    done = CliRunner().invoke(app, ["run", "dual-exposure-night", *files, "--group", "folder"])
    assert done.exit_code == 1 and "is one frame, a bracket needs at least two" in done.stderr
