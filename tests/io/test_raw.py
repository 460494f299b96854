"""RAW files of real cameras, bare mosaics, and containers that end early."""

from __future__ import annotations

import struct
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pydantic
import pytest
import rawpy
import torch
from PIL import Image

from restorekit.errors import InputError
from restorekit.facts import Exposure
from restorekit.frame import Frame
from restorekit.io import Headerless, read, read_capture
from restorekit.io.dng.write import write_dng
from restorekit.io.metadata import exif_fields
from restorekit.io.raw import picture_crop

CAMERA_FILES = (
    "canon_d30.crw",
    "canon_kissx4_colorchart.dng",
    "kodak_c330_yrgb.raw",
    "kodak_dc50.kdc",
    "nikon_d500_linear_DSC8695.dng",
)


@pytest.mark.parametrize("name", CAMERA_FILES)
def test_every_real_file_is_read_whole_and_plausible(shared_data: Path, name: str) -> None:
    frame = read(shared_data / "raw" / name)
    camera = frame.camera
    assert frame.state.reference == "sensor"
    assert frame.state.primaries == "camera"
    assert frame.pixels.shape[0] == (1 if camera.cfa else 3)
    assert camera.black is not None
    assert camera.white is not None
    assert (camera.white > camera.black.max((0, 1))).all()
    values = frame.pixels.to(torch.float32)
    assert values.max() <= 1.02 * camera.white.max()  # white is the middle of the clipped values where they spread
    assert values.mean() > camera.black.mean(), "light must lie above the black level"
    assert len(torch.unique(values[:, ::7, ::7])) > 100


def test_the_canon_d30_crw(shared_data: Path) -> None:
    path = shared_data / "raw" / "canon_d30.crw"
    frame = read(path)
    assert frame.pixels.shape == (1, 1448, 2176)
    assert frame.metadata.crop == (6, 8, 1446, 2168), "2160x1440, the size of the camera's own pictures"
    assert frame.camera.name == "Canon EOS D30"
    assert frame.camera.neutral is None, "its file holds gains of -1"
    assert frame.camera.white is not None
    assert 3800 < frame.camera.white[0] < 3830, "where it saturates; the stated level is 4095"
    assert frame.camera.cfa == ("RG", "GB")
    assert frame.camera.black is not None
    np.testing.assert_allclose(frame.camera.black[..., 0], 128, atol=2)  # stated, and as its masked border shows it
    with rawpy.imread(str(path)) as raw:
        np.testing.assert_array_equal(frame.pixels[0].numpy(), raw.raw_image_visible)
        other = raw.other
    taken, exposure = read_capture(path)
    assert taken == datetime(2018, 1, 1, 13, 3, 32)
    assert exposure.time_s == pytest.approx(other.shutter_speed)
    assert exposure.f_number == pytest.approx(other.aperture, rel=1e-6)
    assert exposure.iso == other.iso_speed
    assert frame.exposure == exposure


def test_the_canon_kiss_dng(shared_data: Path) -> None:
    path = shared_data / "raw" / "canon_kissx4_colorchart.dng"
    frame = read(path)
    camera = frame.camera
    with rawpy.imread(str(path)) as raw:  # 14-bit packed
        np.testing.assert_array_equal(frame.pixels[0].numpy(), raw.raw_image_visible)
    assert camera.black is not None
    np.testing.assert_allclose(camera.black[..., 0], 2056, atol=12)  # its masked border shows less than it states
    assert camera.white is not None
    assert camera.white.tolist() == [15000]
    np.testing.assert_allclose(camera.neutral, (1 / 2.477, 1, 1.462 / 2.477), rtol=1e-4)
    (calibration,) = camera.calibrations
    np.testing.assert_allclose(calibration.color_matrix[0], (0.6461, -0.1164, -0.0857))
    assert frame.exposure == Exposure(), "its exposure fields are zero"
    assert camera.baseline_exposure_ev == 0.0, "its baseline exposure is 0/0"


def test_the_nikon_linear_dng_is_a_dark_frame(shared_data: Path) -> None:
    """Taken with the lens cap on: noise a little above zero, which its own noise profile tells."""
    frame = read(shared_data / "raw" / "nikon_d500_linear_DSC8695.dng")
    assert frame.pixels.shape == (3, 400, 600)
    assert frame.pixels.dtype == torch.float32
    assert 0 < frame.pixels.mean() < 1e-4
    assert frame.pixels.min() < 0
    assert [c.temperature_k for c in frame.camera.calibrations] == [2856, 6504]
    assert all(c.forward_matrix is not None for c in frame.camera.calibrations)
    assert len(frame.camera.noise_profile) == 3
    read_noise = [b for _, b in frame.camera.noise_profile]
    assert frame.pixels.std() < max(read_noise) ** 0.5
    assert frame.exposure == Exposure(1 / 1600, 2.8, 400)
    assert exif_fields(frame.metadata.exif)[1].text(42036) == "24.0-70.0 mm f/2.8"


def test_the_kodak_c330_is_told_from_a_bare_mosaic(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "raw" / "kodak_c330_yrgb.raw"
    frame = read(path)
    assert frame.state.layout == "rgb"
    assert frame.pixels.shape == (3, 912, 1216)
    assert frame.camera.neutral == (1.0, 1.0, 1.0)
    assert "Kodak C330" in frame.notes[0]
    bare = tmp_path / "bare.raw"
    bare.write_bytes(np.random.default_rng(0).integers(0, 16384, path.stat().st_size // 2, dtype=np.uint16).tobytes())
    with pytest.raises(InputError, match="headerless"):
        read(bare)


def test_the_kodak_kdc(shared_data: Path) -> None:
    frame = read(shared_data / "raw" / "kodak_dc50.kdc")
    assert frame.camera.cfa == ("GR", "BG")
    assert (frame.camera.neutral, frame.camera.calibrations) == (None, ())
    assert frame.exposure.time_s == pytest.approx(0.00435)
    assert read_capture(shared_data / "raw" / "kodak_dc50.kdc")[0] == datetime(1997, 4, 23, 8, 0, 47)


@pytest.mark.parametrize("pattern", ["rggb", "bggr"])
def test_bare_mosaics_are_read_only_when_described(shared_data: Path, pattern: str) -> None:
    path = shared_data / "raw" / "plain" / f"isp_DSC_1339_768x512_{pattern}_u16le.raw"
    with pytest.raises(InputError, match=r"input: \{headerless"):
        read(path)
    spec = Headerless(size=(768, 512), pattern=pattern.upper(), dtype="u16le", black=600, white=16383)  # type: ignore[arg-type]
    frame = read(path, headerless=spec)
    assert frame.pixels.shape == (1, 512, 768)
    assert (int(frame.pixels.to(torch.int32).min()), int(frame.pixels.to(torch.int32).max())) == (616, 16383)
    assert "".join(frame.camera.cfa) == pattern.upper()
    with pytest.raises(InputError, match=r"786432 bytes, but 768x511"):
        read(path, headerless=Headerless(size=(768, 511), pattern="RGGB"))


@pytest.mark.parametrize(("dtype", "stored"), [("u8", "u1"), ("u16le", "<u2"), ("u16be", ">u2")])
def test_bare_mosaics_of_every_type(tmp_path: Path, dtype: str, stored: str) -> None:
    values = np.arange(48).reshape(6, 8) * 5
    path = tmp_path / "a.bin"
    path.write_bytes(values.astype(stored).tobytes())
    frame = read(path, headerless=Headerless(size=(8, 6), pattern="GRBG", dtype=dtype, black=1))  # type: ignore[arg-type]
    np.testing.assert_array_equal(frame.pixels[0].numpy(), values)
    assert frame.camera.white is not None
    assert frame.camera.white.tolist() == [255 if dtype == "u8" else 65535]


@pytest.mark.parametrize(
    ("levels", "says"),
    [
        ({"black": 600, "white": 500}, "black 600 must lie below white 500"),
        ({"black": 600, "white": 600}, "black 600 must lie below white 600"),
        ({"dtype": "u8", "black": 512}, "black 512 must lie below white 255, the largest number of u8"),
    ],
)
def test_levels_that_leave_no_room_are_refused(levels: dict[str, float], says: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=says):
        pydantic.TypeAdapter(Headerless).validate_python({"size": (8, 6), "pattern": "RGGB", **levels})


def test_a_description_does_not_change_other_files(shared_data: Path) -> None:
    spec = Headerless(size=(10, 10), pattern="RGGB")
    assert read(shared_data / "raw" / "kodak_dc50.kdc", headerless=spec).pixels.shape == (1, 512, 768)


def test_frames_and_errors_come_back_from_a_worker_process(shared_data: Path, tmp_path: Path) -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        path = shared_data / "raw" / "kodak_dc50.kdc"
        theirs, ours = pool.submit(read, path, headerless=None).result(), read(path)
        assert torch.equal(theirs.pixels, ours.pixels)
        assert (theirs.state, theirs.camera.cfa, theirs.metadata) == (ours.state, ours.camera.cfa, ours.metadata)
        with pytest.raises(InputError, match=r"nothing\.dng"):
            pool.submit(read, tmp_path / "nothing.dng").result()


def sizes(visible: tuple[int, int, int, int], crop: tuple[int, int, int, int]) -> rawpy.ImageSizes:
    """Sizes as LibRaw tells them, from top, left, height and width on a sensor of 4100x6200."""
    top, left, height, width = visible
    names = dict.fromkeys(rawpy.ImageSizes._fields, 0)
    names |= {"raw_height": 4100, "raw_width": 6200, "top_margin": top, "left_margin": left}
    names |= {"height": height, "width": width, "iheight": height, "iwidth": width, "pixel_aspect": 1}
    crops = ("crop_top_margin", "crop_left_margin", "crop_height", "crop_width")
    return rawpy.ImageSizes(**names | dict(zip(crops, crop, strict=True)))


@pytest.mark.parametrize(
    ("crop", "picture"),
    [
        ((38, 112, 4000, 6000), (8, 12, 4008, 6012)),
        ((30, 100, 4020, 6030), None),
        ((30, 100, 3400, 6030), (0, 0, 3400, 6030)),
        ((0, 0, 0, 0), None),
        ((0xFFFF, 0xFFFF, 0, 0), None),
        ((8, 12, 4000, 6000), None),
        ((38, 112, 4050, 6000), None),
        ((38, 112, 2000, 6000), None),
    ],
)
def test_the_picture_within_the_visible_area(
    crop: tuple[int, int, int, int], picture: tuple[int, int, int, int] | None
) -> None:
    assert picture_crop(sizes((30, 100, 4020, 6030), crop)) == picture


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.6, 0.9, 0.99, 0.9999])
@pytest.mark.parametrize("name", CAMERA_FILES)
def test_cut_off_files_are_refused(shared_data: Path, tmp_path: Path, name: str, share: float) -> None:
    data = (shared_data / "raw" / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError, match=name) as caught:
        read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["a.dng", "a.nef", "a.crw", "a.raf", "a.jpg", "a.png", "a.tif", "a.exr", "a.raw", "a.xyz"]
)
def test_text_is_refused_whatever_its_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("This is not a picture.\nIt is text.\n" * 100)
    with pytest.raises(InputError, match=f"{name}.*text"):
        read(path)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.dng: cannot be read"):
        read(tmp_path / "nothing.dng")
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path)


def raf(jpeg: bytes, sensor: bytes) -> bytes:
    """The head of a RAF file, its picture, and as much sensor data as named."""
    head = b"FUJIFILMCCD-RAW 0201FF000000Camera".ljust(84, b"\0")
    at = 148
    return (
        head
        + struct.pack(">6I", at, len(jpeg), at + len(jpeg), 0, at + len(jpeg), len(sensor))
        + bytes(40)
        + jpeg
        + sensor
    )


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def test_fujifilm_files_tell_their_exposure_and_end(tmp_path: Path) -> None:
    block = Image.Exif()
    block[271] = "FUJIFILM"
    block.get_ifd(34665)[33434] = 0.25
    Image.new("RGB", (8, 8)).save(tmp_path / "p.jpg", exif=block)
    data = raf((tmp_path / "p.jpg").read_bytes(), bytes(500))
    (tmp_path / "a.raf").write_bytes(data)
    (tmp_path / "cut.raf").write_bytes(data[:-1])
    assert read_capture(tmp_path / "a.raf")[1].time_s == 0.25
    with pytest.raises(InputError, match=r"cut\.raf: is cut off"):
        read(tmp_path / "cut.raf")


def test_canon_cr3_files_tell_their_exposure_and_end(tmp_path: Path) -> None:
    def block(tags: dict[int, object]) -> bytes:
        directory = Image.Exif()
        for tag, value in tags.items():
            directory[tag] = value
        return directory.tobytes().removeprefix(b"Exif\0\0")

    canon = bytes.fromhex("85c0b687820f11e08111f4ce462b6a48")
    camera = box(b"CMT1", block({271: "Canon", 272: "Canon EOS R"}))
    photo = box(b"CMT2", block({33434: 0.5, 34855: 1600, 36867: "2020:01:02 03:04:05"}))
    data = (
        box(b"ftyp", b"crx \0\0\0\1crx isom")
        + box(b"moov", box(b"uuid", canon + camera + photo))
        + box(b"mdat", bytes(900))
    )
    (tmp_path / "a.cr3").write_bytes(data)
    (tmp_path / "cut.cr3").write_bytes(data[:-1])
    taken, exposure = read_capture(tmp_path / "a.cr3")
    assert taken == datetime(2020, 1, 2, 3, 4, 5)
    assert (exposure.time_s, exposure.iso) == (0.5, 1600)
    with pytest.raises(InputError, match=r"cut\.cr3: is cut off"):
        read(tmp_path / "cut.cr3")


@pytest.mark.parametrize("black", [512.0, 0.0])
def test_a_copy_filled_with_zeros_is_noticed(tmp_path: Path, black: float) -> None:
    mosaic = np.random.default_rng(0).integers(600, 9000, (64, 48)).astype(np.uint16)
    mosaic[50:] = 0
    path = tmp_path / "cut.dng"
    write_dng(path, Frame.from_bayer(mosaic, pattern="RGGB", black=black, white=16383))
    if black:
        with pytest.raises(InputError, match=r"cut\.dng.*last 14 of 64 rows are empty"):
            read(path)
    else:
        assert "last 14 of 64 rows are empty" in read(path).notes[0]


def test_the_size_of_a_bare_mosaic_in_words() -> None:
    adapter = pydantic.TypeAdapter(Headerless)
    for size in ("768x512", [768, 512], " 768 X 512 "):
        spec = adapter.validate_python({"size": size, "pattern": "RGGB"})
        assert (spec.width, spec.height, spec.bytes) == (768, 512, 2 * 768 * 512)
    for size in ("768", "0x5", [768], "axb"):
        with pytest.raises(pydantic.ValidationError):
            adapter.validate_python({"size": size, "pattern": "RGGB"})
