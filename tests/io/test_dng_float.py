"""Light of merged brackets in DNG files of floats: what comes back, and how other programs develop it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import OpenEXR
import pytest
import rawpy
import tifffile
import torch
from numpy.typing import NDArray

from restorekit.delivery import problems
from restorekit.engine import render
from restorekit.errors import OutputError
from restorekit.facts import Calibration, Camera, CameraProfile, Exposure, Facts, Metadata
from restorekit.frame import Frame
from restorekit.io import OutputSpec, quantiser, read, write, write_dng
from restorekit.io.dng.float24 import float24_bytes
from restorekit.io.dng.float_write import predicted
from restorekit.io.dng.opcode_kinds import Area, GainMap, WarpRectilinear
from restorekit.io.dng.opcodes import encode
from restorekit.io.metadata import exif_bytes, exif_fields, photo_tree
from restorekit.io.tiff import ASCII, SRATIONAL, Field
from restorekit.pipeline import Pipeline
from restorekit.stages.color import WhiteBalance
from restorekit.stages.raw import BlackLevel
from restorekit.stages.tone import Exposure as ToneExposure
from restorekit.state import ImageState

LIGHT = ImageState("bayer", "scene", "linear", "camera")
SRGB_TO_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175],
                        [0.0193339, 0.119192, 0.9503041]])  # fmt: skip
NEUTRAL = (0.5, 1.0, 0.625)
MATRIX = np.diag(NEUTRAL) @ np.linalg.inv(SRGB_TO_XYZ)
CAMERA = Camera(make="Maker", model="Model 1", cfa=("RG", "GB"), neutral=NEUTRAL,
                calibrations=(Calibration(6504, MATRIX),))  # fmt: skip
WARP = WarpRectilinear(((1.0, 0.1, 0, 0, 0, 0),))
COLORS = ((1, 0.2, 0.2), (0.2, 1, 0.2), (0.2, 0.2, 1), (0.6, 0.4, 0.3))
HEIGHT, WIDTH, PATCHES = 384, 768, 12


def merged(light: NDArray[np.float32], clip: float = 4.0, camera: Camera = CAMERA, **facts: object) -> Frame:
    """A frame as merging leaves it."""
    known = replace(Facts(clip_level=(clip,), noise=((2e-4, 3e-8),)), **facts)  # type: ignore[arg-type]
    return Frame(torch.from_numpy(light)[None], LIGHT, exposure=Exposure(1 / 60, 8.0, 100), camera=camera, facts=known)


def noisy(height: int = 70, width: int = 90, clip: float = 4.0) -> NDArray[np.float32]:
    """Light from deep shadows to a quarter above where the merge clips, with noise around black."""
    generator = np.random.default_rng(5)
    light = clip * 1.25 * 2.0 ** generator.uniform(-24, 0, (height, width))
    light[:8] = generator.normal(0, 1e-4, (8, width))
    return light.astype(np.float32)


def restored(path: Path) -> Frame:
    """A file as a pipeline has it after black level and exposure."""
    return ToneExposure()(BlackLevel()(read(path)))


def written(frame: Frame, path: Path, bits: int = 32) -> Path:
    return write(frame, path, OutputSpec(format="dng", bits=bits))


@pytest.mark.parametrize("clip", [1.0, 4.0, 64.0])
def test_32_bits_give_back_every_value(tmp_path: Path, clip: float) -> None:
    light = noisy(600, 530, clip)
    back = restored(written(merged(light, clip), tmp_path / "a.dng"))
    np.testing.assert_array_equal(back.pixels[0].numpy(), light)


@pytest.mark.parametrize(("bits", "digits"), [(16, 11), (24, 17), (32, 24)])
@pytest.mark.parametrize("clip", [1.0, 3.97, 37.5])
def test_values_come_back_within_half_a_step_of_their_depth(
    tmp_path: Path, bits: int, digits: int, clip: float
) -> None:
    """And within the few roundings that bring floats back to their scale; the white level is rounded too, but since
    BaselineExposure tells how much light it is, that makes no error."""
    light = noisy(clip=clip)
    back = restored(written(merged(light, clip), tmp_path / "a.dng", bits)).pixels[0].numpy()
    np.testing.assert_allclose(back, light, rtol=2.0**-digits + 2.0**-22, atol=clip * 2.0**-39)


def test_facts_come_back_with_the_scale(tmp_path: Path) -> None:
    camera = replace(CAMERA, baseline_exposure_ev=0.5)
    frame = merged(noisy(clip=6.0), 6.0, camera)
    path = written(frame, tmp_path / "a.dng")
    linear = BlackLevel()(read(path))
    assert linear.state == LIGHT
    assert linear.facts.clip_level == (1.0,)
    assert linear.facts.noise is not None
    np.testing.assert_allclose(linear.facts.noise, ((2e-4 / 6, 3e-8 / 36),), rtol=1e-6)
    wanted, back = ToneExposure()(frame), ToneExposure()(linear)
    np.testing.assert_allclose(back.pixels, wanted.pixels, rtol=1e-6)
    assert back.facts.clip_level == pytest.approx(wanted.facts.clip_level)
    np.testing.assert_allclose(back.facts.noise, wanted.facts.noise, rtol=1e-6)  # type: ignore[arg-type]


def test_camera_and_metadata_go_along(tmp_path: Path) -> None:
    lists = (b"", encode([GainMap(Area(0, 0, 70, 90), np.full((2, 2, 1), 1.5, np.float32))]), encode([WARP]))
    warm = Calibration(2856, MATRIX * 1.1, np.eye(3), np.diag((1.1, 1, 0.9)))
    profile = CameraProfile("Vivid", tone_curve=np.array([(0, 0), (0.3, 0.5), (1, 1)], np.float32))
    camera = replace(
        CAMERA,
        calibrations=(warm, *CAMERA.calibrations),
        analog_balance=(1.1, 1.0, 0.9),
        profile=profile,
        opcode_lists=lists,
    )
    block = exif_bytes(photo_tree(artist="Somebody", photo={42036: Field.of(ASCII, "A lens")}))
    carried = Metadata(exif=block, orientation=8, crop=(2, 4, 60, 80))
    path = written(replace(merged(noisy(), 4.0, camera), metadata=carried), tmp_path / "a.dng", 16)
    back = read(path)
    image, photo = exif_fields(back.metadata.exif)
    assert (image.text(271), image.text(315), photo.text(42036)) == ("Maker", "Somebody", "A lens")
    assert back.exposure == Exposure(1 / 60, 8.0, 100)
    assert (back.metadata.orientation, back.metadata.crop) == (8, (2, 4, 60, 80))
    assert back.camera.opcode_lists == lists
    assert (back.camera.cfa, back.camera.neutral) == (camera.cfa, NEUTRAL)
    assert back.camera.analog_balance == pytest.approx(camera.analog_balance)
    assert back.camera.profile.name == "Vivid"
    np.testing.assert_array_equal(back.camera.profile.tone_curve, profile.tone_curve)  # type: ignore[arg-type]
    for ours, theirs in zip(back.camera.calibrations, camera.calibrations, strict=True):
        np.testing.assert_allclose(ours.color_matrix, theirs.color_matrix, rtol=1e-8)
    np.testing.assert_allclose(back.camera.calibrations[0].camera_calibration, warm.camera_calibration)  # type: ignore[arg-type]
    with tifffile.TiffFile(path) as tiff:
        tags = tiff.pages[0].tags  # type: ignore[union-attr]
        assert tuple(tags["DNGVersion"].value) == tuple(tags["DNGBackwardVersion"].value) == (1, 4, 0, 0)


@pytest.mark.parametrize(("bias", "clip", "wanted"), [(None, 4.0, -2), (0.5, 4.0, -1.5), (0.5, 1.0, 0.5)])
def test_the_exposure_bias_is_that_of_the_white_level(
    tmp_path: Path, bias: float | None, clip: float, wanted: float
) -> None:
    photo = {37380: Field.of(SRATIONAL, (bias,))} if bias is not None else {}
    frame = replace(merged(noisy(), clip), metadata=Metadata(exif=exif_bytes(photo_tree(make="Maker", photo=photo))))
    back = read(written(frame, tmp_path / "a.dng"))
    assert exif_fields(back.metadata.exif)[1].numbers(37380) == (wanted,)
    assert back.camera.baseline_exposure_ev == pytest.approx(np.log2(clip))


def test_white_balance_is_undone_and_the_light_is_that_of_the_pipeline(tmp_path: Path) -> None:
    light = noisy()
    balanced = WhiteBalance()(merged(light, illuminant=(0.4, 1.0, 0.8)))
    back = restored(written(balanced, tmp_path / "a.dng"))
    np.testing.assert_allclose(back.pixels[0], light, rtol=1e-6)
    assert back.camera.neutral == pytest.approx((0.4, 1.0, 0.8))
    assert back.facts.clip_level == pytest.approx((4.0,) * 3)
    np.testing.assert_allclose(back.facts.noise, ((2e-4, 3e-8),) * 3, rtol=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_what_is_no_light_harms_nothing_else(tmp_path: Path, bits: int) -> None:
    light = noisy()
    light[20, :4] = np.nan, np.inf, -np.inf, 1e30
    back = restored(written(merged(light), tmp_path / "a.dng", bits)).pixels[0].numpy()
    assert np.isfinite(back).all()
    assert back[20, 0] == 0
    assert back[20, 1] > 8 and back[20, 2] < -8 and back[20, 3] > 8
    np.testing.assert_allclose(back[21:], light[21:], rtol=1e-3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 8), (7, 3), (8, 8), (512, 514)])
@pytest.mark.parametrize("value", [0.0, 2.5])
def test_any_size_and_black_images_are_written(tmp_path: Path, shape: tuple[int, int], value: float) -> None:
    """Where the clip level is unknown the largest value takes its place, if that is more than white."""
    frame = merged(np.full(shape, value, np.float32))
    path = written(replace(frame, facts=Facts()), tmp_path / "a.dng")
    assert read(path).camera.baseline_exposure_ev == pytest.approx(np.log2(max(value, 1)))
    np.testing.assert_allclose(restored(path).pixels[0], value, rtol=1e-6)


@pytest.mark.parametrize("bits", [16, 32])
def test_bytes_are_predicted_as_by_imagecodecs(bits: int) -> None:
    numbers = noisy()
    floats = numbers.astype(np.float16 if bits == 16 else np.float32)
    wanted = imagecodecs.floatpred_encode(floats, axis=-1, dist=2)
    assert predicted(numbers, bits).tobytes() == wanted.tobytes()


def test_24_bit_floats_are_rounded_to_nearest() -> None:
    exponents = np.random.default_rng(1).uniform(-61, 63, 100_000)
    numbers = (2.0**exponents * np.resize([1, -1], exponents.shape)).astype(np.float32)
    numbers[:4] = 1023.99999, 0.0, 1e-30, 1e30
    back = imagecodecs.float24_decode(float24_bytes(numbers).tobytes(), byteorder=">")
    assert back[:3].tolist() == [1024, 0, 0]
    assert back[3] == np.float32(2.0**64 - 2.0**47)
    np.testing.assert_allclose(back[4:], numbers[4:], rtol=2.0**-17)


def test_the_same_frame_gives_the_same_bytes(tmp_path: Path) -> None:
    files = [written(merged(noisy()), tmp_path / name, 16).read_bytes() for name in ("a.dng", "b.dng")]
    assert files[0] == files[1]


def test_pipelines_may_end_with_light_on_a_mosaic(tmp_path: Path) -> None:
    """The checker takes it, strips are joined as floats, and what the camera asks for is left to the file."""
    assert list(problems(OutputSpec(format="dng"), LIGHT)) == []
    assert list(problems(OutputSpec(format="dng", bits=32), LIGHT)) == []
    (said,) = problems(OutputSpec(format="dng", bits=24), LIGHT.changed({"reference": "sensor"}))
    assert "raw.black_level" in said
    (said,) = problems(OutputSpec(format="dng"), LIGHT.changed({"layout": "rgb"}))
    assert "mosaic" in said
    numbers = np.random.default_rng(2).integers(500, 16000, (200, 120), dtype=np.uint16)
    lists = (b"", b"", encode([WARP]))
    camera = replace(CAMERA, opcode_lists=lists)
    frame = Frame.from_bayer(numbers, pattern="RGGB", black=512, white=16000, camera=camera)
    pipeline = Pipeline([BlackLevel()], outputs=(OutputSpec(format="dng", bits=32),))
    ((result,),) = render(pipeline, [frame], quantiser)
    assert (result.state, result.notes) == (LIGHT, ())
    back = restored(write(result, tmp_path / "a.dng", OutputSpec(format="dng", bits=32)))
    np.testing.assert_allclose(back.pixels, BlackLevel()(frame).pixels, rtol=1e-6, atol=1e-9)
    assert back.camera.opcode_lists == lists


def test_wrong_depths_and_mosaics_without_colours_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"a\.dng: floats of a dng have 16, 24 or 32 bits, not 8"):
        write_dng(tmp_path / "a.dng", merged(noisy()), bits=8)
    with pytest.raises(OutputError, match=r"a\.dng: .* set camera\.cfa"):
        write_dng(tmp_path / "a.dng", merged(noisy(), camera=Camera()))
    assert list(tmp_path.iterdir()) == []


def scene(brightest: float) -> NDArray[np.float32]:
    """Linear sRGB ``[H,W,3]``: a row of grays, each twice as bright as the one before, above a row of colours."""
    picture = np.empty((HEIGHT, WIDTH, 3), np.float32)
    for index in range(PATCHES):
        columns = slice(index * WIDTH // PATCHES, (index + 1) * WIDTH // PATCHES)
        picture[: HEIGHT // 2, columns] = brightest * 2.0 ** (index + 1 - PATCHES)
        picture[HEIGHT // 2 :, columns] = np.array(COLORS[index % 4]) * (0.1, 0.4, brightest / 2)[index // 4]
    return picture


def mosaic(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the camera sees of linear sRGB, with noise that is the same everywhere (without, the file is too small
    for RawTherapee, which takes none of less than 100 kB)."""
    response = picture * np.float32(NEUTRAL)
    light = response[..., 1].copy()
    light[::2, ::2], light[1::2, 1::2] = response[::2, ::2, 0], response[1::2, 1::2, 2]
    noise = np.random.default_rng(3).normal(0, 2e-4, light.shape)
    return (light + noise).astype(np.float32)


def patches(picture: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mean colours of the middle of the gray and of the coloured patches, ``[N,3]`` each."""
    height, width = picture.shape[:2]
    found = []
    for row in (0, 1):
        for index in range(PATCHES):
            y, x = (2 * row + 1) * height // 4, (2 * index + 1) * width // (2 * PATCHES)
            found.append(picture[y - 30 : y + 30, x - 12 : x + 12].astype(np.float64).mean((0, 1)))
    return np.array(found[:PATCHES]), np.array(found[PATCHES:])


def assert_developed(picture: NDArray[np.floating], brightest: float, gain: float, tolerance: float = 0.01) -> None:
    """That the patches have their linear colours, times a gain."""
    for found, wanted in zip(patches(picture), patches(scene(brightest)), strict=True):
        np.testing.assert_allclose(found, wanted * gain, rtol=tolerance, atol=6e-4 * gain)


@pytest.mark.parametrize("bits", [16, 24, 32])
@pytest.mark.parametrize("clip", [4.0, 7.25])
def test_libraw_has_the_same_numbers_and_colours(tmp_path: Path, bits: int, clip: float) -> None:
    light = mosaic(scene(clip * 0.9))
    path = written(merged(light, clip), tmp_path / "a.dng", bits)
    with rawpy.imread(str(path)) as raw:
        white = raw.white_level
        assert white == read(path).camera.white
        numbers = light / clip * white
        np.testing.assert_allclose(raw.raw_image_visible, numbers.clip(0), rtol=2.0**-11, atol=1.001)
        picture = raw.postprocess(
            gamma=(1, 1), no_auto_bright=True, output_bps=16, use_camera_wb=True, adjust_maximum_thr=0
        )
    assert_developed(picture / 65535.0, clip * 0.9, 1 / clip)


def run_headless(command: list[str], folder: Path) -> None:
    """Run a program that finds no configuration but what it writes into a folder."""
    private = {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder / "config"), "XDG_CACHE_HOME": str(folder / "cache")}
    environment: Mapping[str, str] = {**os.environ, **private, "QT_QPA_PLATFORM": "offscreen"}
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)


def by_darktable(path: Path, folder: Path, workflow: str) -> NDArray[np.floating]:
    """Linear sRGB ``[H,W,3]`` as darktable develops a file by default in one of its workflows."""
    result = folder / f"{path.stem} {workflow}.exr"
    private = ["--configdir", str(folder / "dt"), "--cachedir", str(folder / "dt"), "--tmpdir", str(folder)]
    core = ["--core", *private, "--library", ":memory:", "--disable-opencl"]
    chosen = ["--conf", f"plugins/darkroom/workflow={workflow}"]
    run_headless(["darktable-cli", str(path), str(result), "--icc-type", "LIN_REC709", *core, *chosen], folder)
    with OpenEXR.File(str(result)) as file:
        picture: NDArray[np.floating] = file.channels()["RGB"].pixels
    return picture


@pytest.mark.skipif(shutil.which("darktable-cli") is None, reason="needs darktable-cli")
@pytest.mark.parametrize("bits", [16, 24, 32])
def test_darktable_develops_the_light_of_a_merge(tmp_path: Path, bits: int) -> None:
    """Without a look its picture is linear, with the white level at 1; nothing is clipped or changes its colour."""
    path = written(merged(mosaic(scene(3.9))), tmp_path / "a.dng", bits)
    assert_developed(by_darktable(path, tmp_path, "none"), 3.9, 1 / 4)


@pytest.mark.skipif(shutil.which("darktable-cli") is None, reason="needs darktable-cli")
def test_darktable_shows_a_merge_as_bright_as_its_reference(tmp_path: Path) -> None:
    """By default it evens out the exposure bias. The tone curve has another contrast where it has more to hold."""
    light = mosaic(scene(3.9))
    paths = [written(merged(light.clip(None, clip), clip), tmp_path / f"{clip}.dng", 16) for clip in (1, 4)]
    reference, merge = (patches(by_darktable(path, tmp_path, "scene-referred"))[0][:, 1] for path in paths)
    assert 0.1 < reference[7] < 0.4  # 0.24 of white
    assert merge[7] == pytest.approx(reference[7], rel=0.15)
    assert (np.diff(merge) > 0.01 * merge[1:]).all()


NEUTRAL_PROFILE = """[Exposure]
Compensation=-{stops}
HighlightCompr=0
[HLRecovery]
Enabled=true
Method=Coloropp
"""


@pytest.mark.skipif(shutil.which("rawtherapee-cli") is None, reason="needs rawtherapee-cli")
@pytest.mark.parametrize("bits", [16, 24, 32])
def test_rawtherapee_develops_the_light_of_a_merge(tmp_path: Path, bits: int) -> None:
    """It applies BaselineExposure, so that the reference's white is white; two stops darker all of it is seen."""
    path = written(merged(mosaic(scene(3.9))), tmp_path / "a.dng", bits)
    for stops in (0, 2):
        profile = tmp_path / f"{stops}.pp3"
        profile.write_text(NEUTRAL_PROFILE.format(stops=stops))
        target = tmp_path / f"{stops}.tif"
        command = ["rawtherapee-cli", "-o", str(target), "-p", str(profile), "-t", "-b32", "-Y", "-c", str(path)]
        run_headless(command, tmp_path)
    shown = [decoded(tifffile.imread(tmp_path / f"{stops}.tif")) for stops in (0, 2)]
    np.testing.assert_allclose(patches(shown[0])[0][:9], patches(scene(3.9))[0][:9], rtol=0.03, atol=2e-3)
    assert_developed(shown[1], 3.9, 1 / 4, 0.03)


def decoded(picture: NDArray[np.floating]) -> NDArray[np.floating]:
    """sRGB as linear light (IEC 61966-2-1)."""
    values = picture.clip(0, None)
    linear: NDArray[np.floating] = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return linear
