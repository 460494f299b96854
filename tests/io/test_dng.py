"""DNG files: written ones come back exactly and are read alike by LibRaw; others by the letter of the specification."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import rawpy
import tifffile
import torch
from numpy.typing import NDArray

from restorekit.errors import InputError, OutputError
from restorekit.facts import Calibration, Camera, CameraProfile, Exposure, Metadata
from restorekit.frame import BayerPattern, Frame
from restorekit.io import read, write, write_dng
from restorekit.io.dng.opcode_kinds import (
    Area,
    DeltaPerRow,
    FixBadPixelsConstant,
    FixBadPixelsList,
    GainMap,
    MapPolynomial,
    Operation,
    ScalePerRow,
    TrimBounds,
    Unknown,
    WarpPlane,
    WarpRectilinear,
    WarpRectilinear2,
)
from restorekit.io.dng.opcodes import OPCODE_LISTS, encode, parse
from restorekit.io.metadata import exif_bytes, exif_fields, photo_tree
from restorekit.io.tiff import (
    ASCII,
    BYTE,
    DOUBLE,
    LONG,
    RATIONAL,
    SHORT,
    SRATIONAL,
    UNDEFINED,
    Field,
    Tree,
    lay_out,
    read_directories,
)
from restorekit.stages.raw import BlackLevel
from restorekit.stages.shading import LensShading

PATTERNS: tuple[BayerPattern, ...] = ("RGGB", "BGGR", "GRBG", "GBRG")
MATRIX = np.array([[0.8813, -0.321, -0.1036], [-0.4703, 1.2868, 0.2021], [-0.1054, 0.194, 0.6129]])
FORWARD = np.array([[0.4348, 0.3538, 0.1757], [0.2292, 0.717, 0.0537], [0.1031, 0.0016, 0.7204]])


def mosaic(height: int = 40, width: int = 60) -> NDArray[np.uint16]:
    return np.random.default_rng(3).integers(500, 16000, (height, width), dtype=np.uint16)


def full_frame(pattern: BayerPattern = "RGGB") -> Frame:
    """A frame that uses everything a DNG can say."""
    camera = Camera(
        make="Maker",
        model="Model 1",
        calibrations=(
            Calibration(2856, MATRIX * 1.1, FORWARD, np.diag([1.02, 1.0, 0.98])),
            Calibration(6504, MATRIX, FORWARD * 0.9, np.eye(3)),
        ),
        analog_balance=(1.1, 1.0, 0.9),
        baseline_exposure_ev=-0.35,
        noise_profile=((1.03875791561762e-4, 1.69e-8),),
    )
    frame = Frame.from_bayer(
        mosaic(),
        pattern=pattern,
        black=[512, 513.25, 511.5, 514],
        white=16001,
        exposure=Exposure(1 / 125, 4.0, 200),
        neutral=(0.4567, 1.0, 0.6543),
        camera=camera,
    )
    return replace(frame, metadata=Metadata(orientation=6))


def stored_dng(path: Path, image: NDArray[np.generic], fields: Tree, data: bytes | None = None) -> Path:
    """A DNG by hand: one strip (of ``data``, if given), and only the given fields beside the structural ones."""
    channels = 1 if image.ndim == 2 else image.shape[2]
    data = image.tobytes() if data is None else data
    tree: Tree = {
        254: Field.of(LONG, (0,)),
        256: Field.of(LONG, (image.shape[1],)),
        257: Field.of(LONG, (image.shape[0],)),
        258: Field.of(SHORT, (image.dtype.itemsize * 8,) * channels),
        259: Field.of(SHORT, (1,)),
        262: Field.of(SHORT, (32803 if channels == 1 else 34892,)),
        271: Field.of(ASCII, "Maker"),
        272: Field.of(ASCII, "Model"),
        277: Field.of(SHORT, (channels,)),
        278: Field.of(LONG, (image.shape[0],)),
        279: Field.of(LONG, (len(data),)),
        284: Field.of(SHORT, (1,)),
        50706: Field.of(BYTE, (1, 4, 0, 0)),
        50708: Field.of(ASCII, "Maker Model"),
        50721: Field.of(SRATIONAL, MATRIX.reshape(-1).tolist()),
        50728: Field.of(RATIONAL, (0.5, 1, 0.75)),
    }
    if channels == 1:
        tree |= {33421: Field.of(SHORT, (2, 2)), 33422: Field.of(BYTE, (0, 1, 1, 2))}
    tree |= fields
    start = len(lay_out({**tree, 273: Field.of(LONG, (0,))}))
    path.write_bytes(lay_out({**tree, 273: Field.of(LONG, (start,))}) + data)
    return path


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_written_frame_comes_back_exactly(tmp_path: Path, pattern: BayerPattern) -> None:
    frame = full_frame(pattern)
    write_dng(tmp_path / "a.dng", frame)
    back = read(tmp_path / "a.dng")
    assert back.state == frame.state
    assert back.pixels.dtype == torch.uint16
    assert torch.equal(back.pixels, frame.pixels)
    assert back.exposure == frame.exposure
    assert back.metadata.orientation == 6
    ours, theirs = back.camera, frame.camera
    assert (ours.make, ours.model, ours.cfa) == (theirs.make, theirs.model, theirs.cfa)
    assert ours.black is not None
    assert theirs.black is not None
    np.testing.assert_array_equal(ours.black, theirs.black)
    np.testing.assert_array_equal(ours.white, theirs.white)
    np.testing.assert_allclose(ours.neutral, theirs.neutral, rtol=1e-9)
    np.testing.assert_allclose(ours.analog_balance, theirs.analog_balance, rtol=1e-9)
    assert ours.baseline_exposure_ev == pytest.approx(-0.35)
    assert ours.noise_profile == theirs.noise_profile
    assert len(ours.calibrations) == 2
    for a, b in zip(ours.calibrations, theirs.calibrations, strict=True):
        assert a.temperature_k == b.temperature_k
        np.testing.assert_allclose(a.color_matrix, b.color_matrix, rtol=1e-9)
        assert a.forward_matrix is not None
        assert b.forward_matrix is not None
        np.testing.assert_allclose(a.forward_matrix, b.forward_matrix, rtol=1e-9)
        np.testing.assert_allclose(a.camera_calibration, b.camera_calibration, rtol=1e-9)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_libraw_reads_a_written_frame_alike(tmp_path: Path, pattern: BayerPattern) -> None:
    frame = full_frame(pattern)
    write_dng(tmp_path / "a.dng", frame)
    with rawpy.imread(str(tmp_path / "a.dng")) as raw:
        np.testing.assert_array_equal(raw.raw_image_visible, frame.pixels[0].numpy())
        assert raw.raw_pattern is not None
        colors = "".join("RGBG"[raw.raw_color(y, x)] for y in (0, 1) for x in (0, 1))
        gains = np.array(raw.camera_whitebalance[:3])
        assert colors == pattern
        assert raw.white_level == 16001
        np.testing.assert_allclose(gains / gains[1], (1 / 0.4567, 1, 1 / 0.6543), rtol=1e-3)
        assert raw.other.shutter_speed == pytest.approx(1 / 125)
        assert raw.other.iso_speed == 200
        assert raw.sizes.flip == 6


def test_tifffile_reads_a_written_frame_alike(tmp_path: Path) -> None:
    frame = full_frame()
    write(frame, tmp_path / "a.dng")
    with tifffile.TiffFile(tmp_path / "a.dng") as tiff:
        page = tiff.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        np.testing.assert_array_equal(page.asarray(), frame.pixels[0].numpy())
        assert page.tags[34665].value["ExposureTime"] == (1, 125)
        assert page.tags["CalibrationIlluminant2"].value == 21


def test_exif_goes_through_a_dng(tmp_path: Path) -> None:
    block = exif_bytes(photo_tree(make="Other", artist="Somebody", photo={42036: Field.of(ASCII, "A lens")}))
    frame = replace(full_frame(), metadata=Metadata(exif=block))
    write_dng(tmp_path / "a.dng", frame)
    image, photo = exif_fields(read(tmp_path / "a.dng").metadata.exif)
    assert (image.text(271), image.text(315), photo.text(42036)) == ("Maker", "Somebody", "A lens")
    assert photo.numbers(33434) == (1 / 125,)


def test_the_same_frame_gives_the_same_bytes(tmp_path: Path) -> None:
    write_dng(tmp_path / "a.dng", full_frame())
    write_dng(tmp_path / "b.dng", full_frame())
    assert (tmp_path / "a.dng").read_bytes() == (tmp_path / "b.dng").read_bytes()


def test_a_camera_profile_goes_through_a_dng(tmp_path: Path) -> None:
    """Tables, curve and offsets come back; lights that EXIF has no name for are told by their chromaticity."""
    table = np.random.default_rng(0).random((2, 6, 3, 3), dtype=np.float32)
    profile = CameraProfile(
        name="Vivid",
        hue_sat_encoding="srgb",
        look_table=table[:1] + 1,
        look_encoding="srgb",
        tone_curve=np.array([(0, 0), (0.25, 0.5), (1, 1)], np.float32),
        baseline_exposure_ev=0.25,
    )
    lamp = Calibration(3417.0, MATRIX, hue_sat_map=table)
    camera = replace(
        full_frame().camera,
        calibrations=(lamp, replace(lamp, temperature_k=6504.0, hue_sat_map=table * 2)),
        profile=profile,
        baseline_sharpness=1.5,
    )
    write_dng(tmp_path / "a.dng", replace(full_frame(), camera=camera))
    found = read(tmp_path / "a.dng").camera
    assert [c.temperature_k for c in found.calibrations] == pytest.approx([3417, 6504], rel=2e-3)
    for calibration, factor in zip(found.calibrations, (1, 2), strict=True):
        assert calibration.hue_sat_map is not None
        np.testing.assert_array_equal(calibration.hue_sat_map, table * factor)
    assert (found.baseline_sharpness, found.profile.baseline_exposure_ev) == (1.5, 0.25)
    assert (found.profile.name, found.profile.hue_sat_encoding, found.profile.look_encoding) == (
        "Vivid",
        "srgb",
        "srgb",
    )
    assert found.profile.look_table is not None and found.profile.tone_curve is not None
    np.testing.assert_array_equal(found.profile.look_table, table[:1] + 1)
    np.testing.assert_array_equal(found.profile.tone_curve, profile.tone_curve)


def test_three_calibrations_and_high_speeds(tmp_path: Path) -> None:
    frame = full_frame()
    three = (*frame.camera.calibrations, Calibration(5003, MATRIX * 0.95))
    changed = replace(frame, camera=replace(frame.camera, calibrations=three), exposure=Exposure(iso=204800))
    write_dng(tmp_path / "a.dng", changed)
    back = read(tmp_path / "a.dng")
    assert [c.temperature_k for c in back.camera.calibrations] == [2856, 6504, 5003]
    assert back.exposure == Exposure(iso=204800)


def test_only_bayer_mosaics_of_16_bits_can_be_written(tmp_path: Path) -> None:
    frame = full_frame()
    with pytest.raises(OutputError, match="mosaic"):
        write_dng(tmp_path / "a.dng", replace(frame, pixels=frame.pixels.to(torch.float32)))


def test_the_mosaic_starts_at_the_active_area_as_for_libraw(tmp_path: Path) -> None:
    image = mosaic()
    area = (3, 5, 39, 57)
    path = stored_dng(tmp_path / "a.dng", image, {50829: Field.of(LONG, area), 33422: Field.of(BYTE, (1, 0, 2, 1))})
    frame = read(path)
    assert frame.camera.cfa == ("GR", "BG")
    np.testing.assert_array_equal(frame.pixels[0].numpy(), image[3:39, 5:57])
    with rawpy.imread(str(path)) as raw:
        colors = ["".join("RGBG"[raw.raw_color(3 + y, 5 + x)] for x in (0, 1)) for y in (0, 1)]
        assert tuple(colors) == frame.camera.cfa
        # LibRaw moves odd corners by one, to where a full cell begins.
        np.testing.assert_array_equal(raw.raw_image_visible, frame.pixels[0, 1:, 1:].numpy())


@pytest.mark.parametrize("components", [1, 2])
def test_lossless_jpeg_is_decoded_as_by_libraw(tmp_path: Path, components: int) -> None:
    """Cameras and converters store the columns in turn as two components, so that each predicts its own colour."""
    image = mosaic()
    planes = image if components == 1 else image.reshape(40, 30, 2)
    data = imagecodecs.jpeg_encode(planes, lossless=True, predictor=1, bitspersample=16, colorspace=0, outcolorspace=0)
    path = stored_dng(tmp_path / "a.dng", image, {259: Field.of(SHORT, (7,))}, bytes(data))
    np.testing.assert_array_equal(read(path).pixels[0].numpy(), image)
    with rawpy.imread(str(path)) as raw:
        np.testing.assert_array_equal(raw.raw_image_visible, image)


def test_damaged_compressed_data_are_refused(tmp_path: Path) -> None:
    data = bytes(imagecodecs.jpeg_encode(mosaic(), lossless=True, predictor=1, bitspersample=16))
    path = stored_dng(tmp_path / "a.dng", mosaic(), {259: Field.of(SHORT, (7,))}, bytes(40) + data[40:])
    with pytest.raises(InputError, match=r"a\.dng: its RAW image cannot be decoded"):
        read(path)


def test_the_linearization_table_is_applied_once_as_by_libraw(tmp_path: Path) -> None:
    image = np.random.default_rng(5).integers(0, 256, (40, 60)).astype(np.uint16)
    table = (np.arange(200) ** 2).astype(int)
    path = stored_dng(
        tmp_path / "a.dng", image, {50712: Field.of(SHORT, table.tolist()), 50717: Field.of(LONG, (39601,))}
    )
    frame = read(path)
    expected = np.minimum(image, 199).astype(int) ** 2
    np.testing.assert_array_equal(frame.pixels[0].numpy(), expected)
    assert frame.camera.linearization is None
    with rawpy.imread(str(path)) as raw:
        inside = image < 200  # beyond the table LibRaw goes its own way
        np.testing.assert_array_equal(raw.raw_image_visible[inside], expected[inside])


def test_tables_of_other_numbers_keep_to_16_bits(tmp_path: Path) -> None:
    table: Tree = {50712: Field.of(SRATIONAL, (-3, 70000))}
    frame = read(stored_dng(tmp_path / "a.dng", np.array([[0, 1], [1, 0]], np.uint16), table))
    assert frame.pixels.tolist() == [[[0, 65535], [65535, 0]]]


def test_black_levels_of_rows_and_columns_are_kept_apart(tmp_path: Path) -> None:
    image = mosaic()
    rows, columns = np.linspace(-2, 2, 40), np.linspace(0, 3, 60)
    fields: Tree = {
        50713: Field.of(SHORT, (2, 2)),
        50714: Field.of(RATIONAL, (100, 101, 102, 103.5)),
        50715: Field.of(SRATIONAL, columns.tolist()),
        50716: Field.of(SRATIONAL, rows.tolist()),
    }
    camera = read(stored_dng(tmp_path / "a.dng", image, fields)).camera
    assert camera.black is not None
    np.testing.assert_array_equal(camera.black[..., 0], [[100, 101], [102, 103.5]])
    assert camera.black_rows is not None
    np.testing.assert_allclose(camera.black_rows, rows, rtol=1e-6)
    assert camera.black_columns is not None
    np.testing.assert_allclose(camera.black_columns, columns, rtol=1e-6)
    assert camera.white is not None
    assert camera.white.tolist() == [65535]


def test_the_white_of_a_light_stands_in_for_the_neutral(tmp_path: Path) -> None:
    x, y = 0.3127, 0.3290
    path = stored_dng(
        tmp_path / "a.dng", mosaic(), {50729: Field.of(RATIONAL, (x, y)), 50728: Field.of(RATIONAL, (0, 0, 0))}
    )
    expected = MATRIX @ np.array([x / y, 1, (1 - x - y) / y])
    np.testing.assert_allclose(read(path).camera.neutral, expected / expected[1], rtol=1e-6)


def test_a_linear_image_has_levels_for_each_channel(tmp_path: Path) -> None:
    image = np.random.default_rng(2).integers(100, 4000, (30, 50, 3), dtype=np.uint16)
    fields: Tree = {50714: Field.of(SHORT, (60, 64, 68)), 50717: Field.of(LONG, (4000, 4001, 4002))}
    frame = read(stored_dng(tmp_path / "a.dng", image, fields))
    assert (frame.state.layout, frame.state.reference, frame.state.primaries) == ("rgb", "sensor", "camera")
    np.testing.assert_array_equal(frame.pixels.permute(1, 2, 0).numpy(), image)
    assert frame.camera.black is not None
    assert frame.camera.black.shape == (1, 1, 3)
    assert frame.camera.black.reshape(-1).tolist() == [60, 64, 68]
    assert frame.camera.white is not None
    assert frame.camera.white.tolist() == [4000, 4001, 4002]


def opcode(code: int, data: bytes) -> bytes:
    return struct.pack(">IIII", code, 0x01030000, 0, len(data)) + data


def test_polynomials_make_a_linear_image_linear(tmp_path: Path) -> None:
    image = np.random.default_rng(2).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    curves = [(0.0, 0.25, 0.0, 0.75), (0.0, 0.5, 0.5), (0.0, 1.0)]
    area = [struct.pack(">8I", 0, 0, 30, 50, channel, 1, 1, 1) for channel in range(3)]
    coded = [opcode(8, a + struct.pack(f">I{len(c)}d", len(c) - 1, *c)) for a, c in zip(area, curves, strict=True)]
    fields: Tree = {
        50714: Field.of(SHORT, (51, 51, 51)),
        50717: Field.of(LONG, (255, 255, 255)),
        51009: Field.of(UNDEFINED, struct.pack(">I", 3) + b"".join(coded)),
    }
    frame = read(stored_dng(tmp_path / "a.dng", image, fields))
    assert frame.notes == ()
    assert frame.camera.black is not None
    assert not frame.camera.black.any()
    for channel, (constant, slope, *rest) in enumerate(curves):
        x = np.abs(image[..., channel] - 51.0) / 204
        value = slope * x + sum(factor * x ** (2 + power) for power, factor in enumerate(rest))
        expected = constant + np.where(image[..., channel] < 51, -value, value)
        np.testing.assert_allclose(frame.pixels[channel].numpy(), expected, atol=1e-6)
    assert frame.camera.opcode_lists == (b"", b"", b"")


def with_lists(first: Sequence[Operation] = (), second: Sequence[Operation] = (), third: bytes = b"") -> Tree:
    lists = (encode(first), encode(second), third)
    return {tag: Field.of(UNDEFINED, data) for tag, data in zip(OPCODE_LISTS, lists, strict=True) if data}


def test_maps_before_gains_are_applied_and_gains_wait(tmp_path: Path) -> None:
    image = np.random.default_rng(2).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    curve = MapPolynomial(Area(0, 0, 30, 50, 0, 3), (0.0, 0.0, 1.0))
    gains = GainMap(Area(0, 0, 30, 50, 0, 3), np.full((1, 1, 1), 2, np.float32))
    frame = read(stored_dng(tmp_path / "a.dng", image, with_lists(second=(curve, gains, curve))))
    np.testing.assert_allclose(frame.pixels.permute(1, 2, 0).numpy(), (image / 255.0) ** 2, atol=1e-6)
    waiting = parse(frame.camera.opcode_lists[1])
    assert [each.name for each in waiting] == ["GainMap", "MapPolynomial"]
    assert LensShading()(BlackLevel()(frame)).pixels.max() == pytest.approx(4.0, rel=1e-5)


def test_the_first_list_comes_before_the_linearization_table(tmp_path: Path) -> None:
    """On stored numbers of the whole sensor, masked border and all; the photosite of a colour is mended by its own."""
    image = np.tile(np.array([[10, 20], [20, 40]], np.uint16), (20, 30))
    image[:, :4] = 3
    broken = image.copy()
    broken[11, 13], broken[20, 30] = 0, 99
    broken[8, 4:] //= 2
    first = (
        ScalePerRow(Area(8, 4, 9, 60), np.array([2], np.float32)),
        FixBadPixelsConstant(0),
        FixBadPixelsList(((20, 30),)),
        DeltaPerRow(Area(0, 0, 40, 4), np.full(40, -1.0, np.float32)),
    )
    table = [value * 3 for value in range(100)]
    fields = with_lists(first) | {
        50712: Field.of(SHORT, table),
        50829: Field.of(LONG, (1, 4, 40, 60)),
        33422: Field.of(BYTE, (1, 2, 0, 1)),
    }
    frame = read(stored_dng(tmp_path / "a.dng", broken, fields))
    assert frame.camera.cfa == ("GB", "RG")
    np.testing.assert_array_equal(frame.pixels[0].numpy(), 3 * image[1:, 4:])
    assert frame.camera.opcode_lists == (b"", b"", b"") and frame.notes == ()
    broken[:, :4] += 1
    shifted = read(stored_dng(tmp_path / "b.dng", broken, fields | {50829: Field.of(LONG, (0, 0, 40, 60))}))
    assert (shifted.pixels[0, :, :4] == 9).all(), "3 stored as 4, less one, times three"


def test_corrections_do_not_leave_the_range_of_numbers(tmp_path: Path) -> None:
    image = np.full((20, 30), 40000, np.uint16)
    up, down = (
        ScalePerRow(Area(0, 0, 1, 30), np.full(1, 3.0, np.float32)),
        DeltaPerRow(Area(1, 0, 2, 30), np.full(1, -5e4, np.float32)),
    )
    frame = read(stored_dng(tmp_path / "a.dng", image, with_lists((up, down))))
    assert [int(frame.pixels[0, row, 0]) for row in range(3)] == [65535, 0, 40000]


def test_gain_maps_begin_at_the_active_area(tmp_path: Path) -> None:
    """A mosaic of 30x50 on a sensor of 40x60; its map is 1 at the left rim of the image and 3 at the right one."""
    image = np.zeros((40, 60), np.uint16)
    image[6:36, 8:58] = np.rint(60000 / (1 + 2 * (np.arange(50) + 0.5) / 50))
    gains = GainMap(Area(0, 0, 30, 50), np.array([[[1.0], [3.0]]], np.float32))
    fields = with_lists(second=(gains,), third=b"third") | {50829: Field.of(LONG, (6, 8, 36, 58))}
    fields[51022] = Field.of(UNDEFINED, encode((TrimBounds(1, 1, 29, 49),)))
    frame = read(stored_dng(tmp_path / "a.dng", image, fields))
    assert frame.notes == ()
    assert frame.camera.opcode_lists == (b"", encode((gains,)), encode((TrimBounds(1, 1, 29, 49),)))
    flat = LensShading()(BlackLevel()(frame)).pixels
    np.testing.assert_allclose(flat.numpy(), 60000 / 65535, rtol=5e-5)


def test_what_is_missing_of_the_lists_is_named(tmp_path: Path) -> None:
    def notes(fields: Tree, image: NDArray[np.generic] | None = None) -> str:
        return " ".join(read(stored_dng(tmp_path / "a.dng", mosaic() if image is None else image, fields)).notes)

    damaged = {51009: Field.of(UNDEFINED, struct.pack(">I", 1) + opcode(9, bytes(80)))}
    assert "a.dng: its OpcodeList2 is damaged" in notes(damaged)
    assert read(tmp_path / "a.dng").camera.opcode_lists == (b"", b"", b"")
    unknown = notes(with_lists((Unknown(98, b"", optional=True),), (Unknown(99, b"abc"),)))
    assert "newer than DNG 1.7: opcode 98, opcode 99 (mandatory)" in unknown
    linear = np.ones((20, 30, 3), np.uint16)
    assert "FixBadPixelsConstant (mandatory)" in notes(with_lists((FixBadPixelsConstant(0),)), linear)
    warp = WarpRectilinear(((1.0, 0, 0, 0, 0, 0),), optional=True)
    assert "not for the second list: WarpRectilinear" in notes(with_lists(second=(warp,)))
    assert notes(with_lists((DeltaPerRow(Area(0, 0, 1, 1), np.ones(1, np.float32)),), third=encode((warp,)))) == ""


@pytest.mark.parametrize(
    ("fields", "crop"),
    [
        ({}, None),
        ({50719: (0, 0), 50720: (50, 30)}, None),
        ({50719: (6, 4), 50720: (40, 24)}, (4, 6, 28, 46)),
        ({50719: (6.5, 4.4), 50720: (40.2, 24)}, (4, 6, 28, 47)),
        ({50719: (6, 4)}, (4, 6, 30, 50)),
        ({50719: (1e308, 4), 50720: (1e308, 24)}, None),
        ({50719: (6, 4), 50720: (400, 240)}, (4, 6, 30, 50)),
        ({50719: (60, 40), 50720: (10, 10)}, None),
        ({51125: (0.1, 0.2, 0.9, 1.0)}, (3, 10, 27, 50)),
        ({50719: (10, 5), 50720: (40, 20), 51125: (0.25, 0.5, 0.75, 1.0)}, (10, 30, 20, 50)),
        ({51125: (0.9, 0.2, 0.1, 1.0)}, None),
    ],
)
def test_the_default_crop_is_pending(
    tmp_path: Path, fields: dict[int, Sequence[float]], crop: tuple[int, int, int, int] | None
) -> None:
    tree: Tree = {tag: Field.of(RATIONAL, values) for tag, values in fields.items()}
    area: Tree = {50829: Field.of(LONG, (6, 8, 36, 58))}
    frame = read(stored_dng(tmp_path / "a.dng", np.ones((40, 60), np.uint16), tree | area))
    assert (frame.height, frame.width) == (30, 50)
    assert frame.metadata.crop == crop


def test_trim_bounds_narrow_the_crop(tmp_path: Path) -> None:
    """Of the first list in coordinates of the sensor, of the second in those of the image, which begins at (6, 8)."""
    fields = with_lists((TrimBounds(10, 10, 34, 60),), (TrimBounds(0, 0, 26, 44),)) | {
        50829: Field.of(LONG, (6, 8, 36, 58)),
        50719: Field.of(SHORT, (1, 1)),
        50720: Field.of(SHORT, (48, 28)),
    }
    frame = read(stored_dng(tmp_path / "a.dng", np.ones((40, 60), np.uint16), fields))
    assert frame.metadata.crop == (4, 2, 26, 44)
    assert frame.camera.opcode_lists == (b"", b"", b"") and frame.notes == ()


def test_crop_and_lists_come_back(tmp_path: Path) -> None:
    frame = full_frame()
    second = encode([GainMap(Area(0, 0, 40, 60), np.full((2, 2, 1), 1.5, np.float32))])
    third = encode([WarpRectilinear(((1.0, 0.1, 0, 0, 0, 0),)), TrimBounds(0, 0, 38, 58)])
    camera = replace(frame.camera, opcode_lists=(b"", second, third))
    given = replace(frame, camera=camera, metadata=replace(frame.metadata, crop=(2, 4, 36, 50)))
    write_dng(tmp_path / "a.dng", given)
    back = read(tmp_path / "a.dng")
    assert back.camera.opcode_lists == (b"", second, third)
    assert back.metadata.crop == (2, 4, 36, 50)
    assert torch.equal(back.pixels, frame.pixels)
    with rawpy.imread(str(tmp_path / "a.dng")) as raw:
        assert (raw.sizes.crop_top_margin, raw.sizes.crop_left_margin) == (2, 4)
        assert (raw.sizes.crop_height, raw.sizes.crop_width) == (34, 46)


def test_pixels_that_are_not_square_are_noted(tmp_path: Path) -> None:
    (note,) = read(stored_dng(tmp_path / "a.dng", mosaic(), {50718: Field.of(RATIONAL, (1, 0.5))})).notes
    assert "1 x 0.5" in note and "not resampled" in note
    assert read(stored_dng(tmp_path / "b.dng", mosaic(), {50718: Field.of(RATIONAL, (1, 1))})).notes == ()


def test_black_is_measured_in_masked_areas(tmp_path: Path) -> None:
    """Rows above the image, at 7 below the stated level; a number of colour per photosite of the cell."""
    random = np.random.default_rng(0)
    image = random.normal(4000, 20, (120, 160))
    cell = np.array([[505, 507], [503, 509]])
    image[:20] = np.tile(cell, (10, 80)) + random.normal(0, 12, (20, 160))
    fields: Tree = {
        50714: Field.of(SHORT, (512,)),
        50717: Field.of(LONG, (16383,)),
        50829: Field.of(LONG, (21, 1, 120, 160)),
        33422: Field.of(BYTE, (2, 1, 1, 0)),
        50830: Field.of(LONG, (0, 0, 8, 160, 10, 0, 20, 160)),
    }
    stored = np.rint(image).astype(np.uint16)
    black = read(stored_dng(tmp_path / "a.dng", stored, fields)).camera.black
    assert black is not None
    np.testing.assert_allclose(black[..., 0], cell[::-1, ::-1], atol=1.5)
    del fields[50830]
    stated = read(stored_dng(tmp_path / "b.dng", stored, fields)).camera.black
    assert stated is not None
    assert stated.ravel().tolist() == [512]


QUAD = "RRGG" * 2 + "GGBB" * 2
NONA = "GGGRRR" * 3 + "BBBGGG" * 3


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (QUAD, "mosaic is quad-Bayer (RRGG/RRGG/GGBB/GGBB)"),
        (NONA, "mosaic is nona-Bayer (GGGRRR/"),
        ("".join(c * 4 for c in "RG" * 4 + "GB" * 4), "mosaic is hexadeca-Bayer"),
        ("RGCB", "mosaic is RGBE (RG/CB)"),
        ("RGWB", "mosaic is RGBW ("),
        ("WBWG" + "BWGW" + "WGWR" + "GWRW", "mosaic is RGBW ("),
        ("GMCY", "mosaic is CMYG (GM/CY)"),
        ("RGGR", "colour filters are RG/GR"),
        ("GRGB" * 4, "colour filters are GRGB/"),
    ],
)
def test_mosaics_of_other_kinds_are_refused_by_name(tmp_path: Path, cell: str, said: str) -> None:
    side = round(len(cell) ** 0.5)
    fields: Tree = {
        33421: Field.of(SHORT, (side, side)),
        33422: Field.of(BYTE, ["RGBCMYW".index(colour) for colour in cell]),
    }
    with pytest.raises(InputError, match=rf"a\.dng: its {re.escape(said)}.*supported are Bayer and X-Trans"):
        read(stored_dng(tmp_path / "a.dng", mosaic(), fields))


def test_staggered_mosaics_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"staggered .CFALayout 2"):
        read(stored_dng(tmp_path / "a.dng", mosaic(), {50711: Field.of(SHORT, (2,))}))
    with pytest.raises(InputError, match="orders its colours"):
        read(stored_dng(tmp_path / "a.dng", mosaic(), {50710: Field.of(BYTE, (2, 1, 0))}))


def test_an_xtrans_mosaic(tmp_path: Path) -> None:
    cell = "GBGGRGRGRBGBGBGGRGGRGGBGBGBRGRGRGGBG"
    fields: Tree = {
        33421: Field.of(SHORT, (6, 6)),
        33422: Field.of(BYTE, ["RGB".index(colour) for colour in cell]),
    }
    frame = read(stored_dng(tmp_path / "a.dng", mosaic(), fields))
    assert frame.state.layout == "xtrans"
    assert "".join(frame.camera.cfa) == cell


def test_damaged_dngs_are_refused_by_name(tmp_path: Path) -> None:
    strange = stored_dng(tmp_path / "strange.dng", mosaic(), {33422: Field.of(BYTE, (0, 1, 2, 1))})
    with pytest.raises(InputError, match=r"strange\.dng.*colour filters are RG/BG"):
        read(strange)
    dark = stored_dng(tmp_path / "dark.dng", mosaic(), {50714: Field.of(SHORT, (900,)), 50717: Field.of(LONG, (800,))})
    with pytest.raises(InputError, match=r"dark\.dng.*white level"):
        read(dark)
    preview = stored_dng(tmp_path / "preview.dng", mosaic(), {262: Field.of(SHORT, (1,))})
    with pytest.raises(InputError, match=r"preview\.dng.*no RAW image"):
        read(preview)


def test_levels_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    wrong: list[tuple[Tree, str]] = [
        ({50713: Field.of(SHORT, (2, 2)), 50714: Field.of(SHORT, (60, 61, 62))}, "3 black levels for"),
        ({50716: Field.of(SRATIONAL, (1.0,) * 10)}, "rows or columns"),
        ({50715: Field.of(SRATIONAL, (1.0,) * 61)}, "rows or columns"),
    ]
    for fields, said in wrong:
        with pytest.raises(InputError, match=said):
            read(stored_dng(tmp_path / "a.dng", mosaic(), fields))
    many: Tree = {50713: Field.of(SHORT, (65535, 65535)), 50714: Field.of(SHORT, (60,))}
    black = read(stored_dng(tmp_path / "a.dng", mosaic(), many)).camera.black
    assert black is not None and black.tolist() == [[[60.0]]], "one level holds everywhere"


def test_numbers_of_more_than_16_bits_are_refused(tmp_path: Path) -> None:
    fields: Tree = {258: Field.of(SHORT, (32,)), 50717: Field.of(LONG, (60000,))}
    with pytest.raises(InputError, match="type uint32"):
        read(stored_dng(tmp_path / "a.dng", mosaic().astype(np.uint32), fields))


def test_a_damaged_noise_profile_is_noted(tmp_path: Path) -> None:
    frame = read(stored_dng(tmp_path / "a.dng", mosaic(), {51041: Field.of(DOUBLE, (math.nan, 1e-8))}))
    assert frame.camera.noise_profile == ()
    assert "NoiseProfile" in " ".join(frame.notes)


def test_black_of_larger_cells_is_not_measured(tmp_path: Path) -> None:
    levels = np.arange(16) % 3 + 60
    fields: Tree = {
        50713: Field.of(SHORT, (4, 4)),
        50714: Field.of(SHORT, levels.tolist()),
        50829: Field.of(LONG, (0, 28, 40, 60)),
    }
    image = mosaic()
    image[:, :28] = 61
    black = read(stored_dng(tmp_path / "a.dng", image, fields)).camera.black
    assert black is not None and black.reshape(-1).tolist() == levels.tolist()


def test_a_list_of_bad_photosites_that_are_too_many_is_left_out(tmp_path: Path) -> None:
    image = mosaic()
    frame = read(stored_dng(tmp_path / "a.dng", image, with_lists((FixBadPixelsList((), ((0, 0, 20, 60),)),))))
    np.testing.assert_array_equal(frame.pixels[0].numpy(), image)
    assert "more than 5% of all photosites: FixBadPixelsList (mandatory)" in " ".join(frame.notes)


def test_readers_too_old_for_the_opcodes_are_told(tmp_path: Path) -> None:
    def versions(*operations: Operation) -> list[tuple[int, ...]]:
        frame = full_frame()
        camera = replace(frame.camera, opcode_lists=(b"", b"", encode(operations)))
        write_dng(tmp_path / "a.dng", replace(frame, camera=camera))
        with (tmp_path / "a.dng").open("rb") as file:
            main = read_directories(file)[0]
        return [main.integers(50706), main.integers(50707)]

    plain = WarpRectilinear(((1.0, 0, 0, 0, 0, 0),))
    assert versions() == versions(replace(plain, optional=True)) == [(1, 4, 0, 0), (1, 2, 0, 0)]
    assert versions(plain) == [(1, 4, 0, 0), (1, 3, 0, 0)]
    assert versions(WarpRectilinear2((WarpPlane((1.0, *(0.0,) * 14)),))) == [(1, 6, 0, 0), (1, 6, 0, 0)]


def test_a_noise_profile_and_unknown_lights(tmp_path: Path) -> None:
    fields: Tree = {
        51041: Field.of(DOUBLE, (1e-4, 1e-8, 2e-4, 2e-8, 3e-4, 3e-8)),
        50722: Field.of(SRATIONAL, (MATRIX * 2).reshape(-1).tolist()),
        50779: Field.of(SHORT, (255,)),
    }
    camera = read(stored_dng(tmp_path / "a.dng", mosaic(), fields)).camera
    assert camera.noise_profile == ((1e-4, 1e-8), (2e-4, 2e-8), (3e-4, 3e-8))
    assert len(camera.calibrations) == 1
    np.testing.assert_allclose(camera.calibrations[0].color_matrix, MATRIX, rtol=1e-9)
