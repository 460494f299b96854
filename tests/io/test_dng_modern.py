"""Ways in which newer DNGs store their pixels: JPEG XL, lossy JPEG, floats of 16 to 32 bits, packed and interleaved."""

from __future__ import annotations

import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import rawpy
import tifffile
import torch
from numpy.typing import NDArray

from restorekit.errors import InputError
from restorekit.io import read
from restorekit.io.tiff import BYTE, LONG, SHORT, Field, Tree, lay_out
from restorekit.stages.raw import BlackLevel

LINEAR_RAW = 34892
JPEG_XL, LOSSY_JPEG = 52546, 34892
RANDOM = np.random.default_rng(7)


def mosaic(height: int = 98, width: int = 130) -> NDArray[np.uint16]:
    """A slope with noise whose photosites of a cell differ, as colours do."""
    y, x = np.mgrid[0:height, 0:width]
    cell = np.tile([[1.0, 2.0], [1.8, 0.7]], (height // 2, width // 2))
    return (cell * (3000 + 60 * x + 40 * y) + RANDOM.normal(0, 20, (height, width))).round().astype(np.uint16)


def linear() -> NDArray[np.uint16]:
    plane = mosaic() // 4
    return np.stack([plane, plane * 2, plane * 3], -1)


def tiff_dng(path: Path, image: NDArray[Any], tags: dict[int, tuple[str, Any]] | None = None, **options: Any) -> Path:
    """A DNG with one image, by tifffile: a mosaic ``[H,W]`` or linear ``[H,W,3]``; in tiles unless told otherwise."""
    fields: dict[int, tuple[str, Any]] = {50706: ("B", (1, 7, 1, 0)), 50708: ("s", "Maker Model")}
    if image.ndim == 2:
        fields |= {33421: ("H", (2, 2)), 33422: ("B", (0, 1, 1, 2))}
    extra = []
    for tag, (kind, values) in sorted((fields | (tags or {})).items()):
        extra.append((tag, kind, len(values) + 1 if kind == "s" else len(values), values, True))
    options = {"tile": (64, 64)} | options
    photometric: Any = "CFA" if image.ndim == 2 else LINEAR_RAW
    tifffile.imwrite(
        path,
        image,
        photometric=photometric,
        planarconfig="contig" if image.ndim == 3 else None,
        extratags=extra,
        **options,
    )
    return path


def coded_dng(path: Path, shape: tuple[int, int], data: bytes, fields: Tree) -> Path:
    """A DNG with one strip of bytes."""
    tree: Tree = {
        254: Field.of(LONG, (0,)),
        256: Field.of(LONG, (shape[1],)),
        257: Field.of(LONG, (shape[0],)),
        259: Field.of(SHORT, (1,)),
        262: Field.of(SHORT, (32803,)),
        277: Field.of(SHORT, (1,)),
        278: Field.of(LONG, (shape[0],)),
        279: Field.of(LONG, (len(data),)),
        33421: Field.of(SHORT, (2, 2)),
        33422: Field.of(BYTE, (0, 1, 1, 2)),
        50706: Field.of(BYTE, (1, 4, 0, 0)),
    } | fields
    start = len(lay_out({**tree, 273: Field.of(LONG, (0,))}))
    path.write_bytes(lay_out({**tree, 273: Field.of(LONG, (start,))}) + data)
    return path


# ---- JPEG XL and lossy JPEG


@pytest.mark.parametrize("image", [mosaic(), linear()], ids=["mosaic", "linear"])
def test_lossless_jpeg_xl(tmp_path: Path, image: NDArray[np.uint16]) -> None:
    path = tiff_dng(tmp_path / "a.dng", image, compression=JPEG_XL, compressionargs={"lossless": True})
    frame = read(path)
    assert frame.state.layout == ("bayer" if image.ndim == 2 else "rgb")
    assert frame.pixels.dtype == torch.uint16
    np.testing.assert_array_equal(frame.pixels.permute(1, 2, 0).squeeze(-1).numpy(), image)


@pytest.mark.parametrize("image", [mosaic(), linear()], ids=["mosaic", "linear"])
def test_lossy_jpeg_xl_with_its_table(tmp_path: Path, image: NDArray[np.uint16]) -> None:
    """As Adobe's converter writes it: numbers in steps that follow the noise, and a table that makes them linear."""
    table = np.arange(65536.0) ** 2 / 65535
    stored = np.sqrt(image * 65535.0).round().astype(np.uint16)
    tags = {50712: ("H", table.round().astype(int).tolist())}
    options = {"compression": JPEG_XL, "compressionargs": {"lossless": False, "distance": 0.1}}
    frame = read(tiff_dng(tmp_path / "a.dng", stored, tags, **options))
    got = frame.pixels.permute(1, 2, 0).squeeze(-1).numpy().astype(float)
    assert float(np.abs(got / image - 1).mean()) < 0.02
    assert not np.array_equal(got, image)


@pytest.mark.parametrize(("white", "stretched"), [(65535, True), (4000, False), (4095, False)])
def test_jpeg_xl_of_fewer_bits(tmp_path: Path, white: int, stretched: bool) -> None:
    """Adobe's reader stretches 12 bits to 16, so files for it have levels of 16 bits."""
    image = mosaic() >> 4
    options = {"compression": JPEG_XL, "compressionargs": {"lossless": True, "bitspersample": 12}}
    frame = read(tiff_dng(tmp_path / "a.dng", image, {50717: ("I", (white,))}, **options))
    want = np.rint(image * (65535 / 4095)) if stretched else image
    np.testing.assert_array_equal(frame.pixels[0].numpy(), want)


def interleaved(image: NDArray[Any], rows: int, columns: int) -> NDArray[Any]:
    """The fields of an image side by side: every ``columns``-th column, then those beside them; rows alike."""
    fields = [[image[y::rows, x::columns] for x in range(columns)] for y in range(rows)]
    return np.concatenate([np.concatenate(row, 1) for row in fields], 0)


@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (1, 2), (2, 1), (3, 2), (4, 5)])
@pytest.mark.parametrize("size", [(98, 130), (45, 67)])
def test_interleaved_fields_are_joined(tmp_path: Path, rows: int, columns: int, size: tuple[int, int]) -> None:
    image = RANDOM.integers(0, 65535, size).astype(np.uint16)
    tags = {50975: ("I", (rows,)), 52547: ("I", (columns,))}
    stored = interleaved(image, rows, columns)
    path = tiff_dng(tmp_path / "a.dng", stored, tags, compression=JPEG_XL, compressionargs={"lossless": True})
    np.testing.assert_array_equal(read(path).pixels[0].numpy(), image)


def test_an_interleaved_linear_image(tmp_path: Path) -> None:
    image = linear()
    tags = {50975: ("I", (2,)), 52547: ("I", (2,))}
    path = tiff_dng(tmp_path / "a.dng", interleaved(image, 2, 2), tags)
    np.testing.assert_array_equal(read(path).pixels.permute(1, 2, 0).numpy(), image)


def test_blocks_within_tiles_are_refused(tmp_path: Path) -> None:
    path = tiff_dng(tmp_path / "a.dng", mosaic(), {50974: ("I", (2, 2))})
    with pytest.raises(InputError, match=r"a\.dng: stores its tiles in blocks"):
        read(path)


def test_lossy_jpeg(tmp_path: Path) -> None:
    y, x = np.mgrid[0:98, 0:130]
    image = np.stack([x + y, 200 - x, 30 + y], -1).astype(np.uint8)
    path = tiff_dng(tmp_path / "a.dng", image, compression=LOSSY_JPEG, compressionargs={"level": 95})
    frame = read(path)
    assert frame.pixels.dtype == torch.uint8
    assert frame.camera.white is not None
    assert frame.camera.white.tolist() == [255] * 3
    difference = frame.pixels.permute(1, 2, 0).numpy().astype(int) - image
    assert np.abs(difference).mean() < 1


def test_damaged_jpeg_xl_is_refused(tmp_path: Path) -> None:
    path = tiff_dng(tmp_path / "a.dng", mosaic(), compression=JPEG_XL, compressionargs={"lossless": True})
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        start, size = page.dataoffsets[1], page.databytecounts[1]
    data = bytearray(path.read_bytes())
    data[start : start + size] = bytes(size)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.dng: its RAW image cannot be decoded"):
        read(path)


# ---- floats


@pytest.mark.parametrize("kind", [np.float16, np.float32])
@pytest.mark.parametrize("predictor", [1, 3, 34894, 34895])
def test_deflated_floats(tmp_path: Path, kind: type[np.floating[Any]], predictor: int) -> None:
    image = (mosaic() / 65535).astype(kind)
    image[3, 4:6] = -0.01, 7.5
    path = tiff_dng(tmp_path / "a.dng", image, compression=8, predictor=predictor if predictor > 1 else None)
    frame = read(path)
    np.testing.assert_array_equal(frame.pixels[0].numpy(), image)
    assert frame.camera.white is not None
    assert frame.camera.black is not None
    assert (frame.camera.black.ravel().tolist(), frame.camera.white.tolist()) == ([0.0], [1.0])
    light = BlackLevel()(frame)
    np.testing.assert_array_equal(light.pixels[0].numpy(), image.astype(np.float32))
    assert light.masks["clipped"].sum() == (image >= 0.99).sum(), "values above white are kept, and marked"


def float24(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Bytes ``[H,W,3]`` of floats with 1 bit of sign, 7 of exponent (63 is 1) and 16 of mantissa."""
    mantissa, exponent = np.frexp(np.abs(image).astype(float))
    number = (exponent + 62).astype(np.int64) << 16 | np.rint((mantissa * 2 - 1) * 65536).astype(np.int64)
    number = np.where(image == 0, 0, number) | (image < 0).astype(np.int64) << 23
    return np.stack([number >> 16, number >> 8 & 255, number & 255], -1).astype(np.uint8)


def predicted(numbers: NDArray[np.uint8], distance: int) -> NDArray[np.uint8]:
    """Bytes of each row by significance, then less those ``distance`` before (TIFF Technical Note 3)."""
    lines = numbers.transpose(0, 2, 1).reshape(len(numbers), -1)
    result = lines.copy()
    result[:, distance:] -= lines[:, :-distance]
    return result


@pytest.mark.parametrize(("predictor", "distance"), [(3, 1), (34894, 2), (34895, 4)])
def test_floats_of_24_bits(tmp_path: Path, predictor: int, distance: int) -> None:
    """As HDRMerge writes them, with the levels of the camera's integers."""
    image = (RANDOM.integers(1, 1 << 16, (50, 70)) / 16).astype(np.float32)
    image[0, :4] = 0.0, -3.5, 65535.0, 1.0
    fields: Tree = {
        258: Field.of(SHORT, (24,)),
        259: Field.of(SHORT, (8,)),
        317: Field.of(SHORT, (predictor,)),
        339: Field.of(SHORT, (3,)),
        50714: Field.of(SHORT, (512,)),
        50717: Field.of(LONG, (15000,)),
    }
    data = zlib.compress(predicted(float24(image), distance).tobytes())
    frame = read(coded_dng(tmp_path / "a.dng", image.shape, data, fields))
    np.testing.assert_array_equal(frame.pixels[0].numpy(), image)
    np.testing.assert_allclose(BlackLevel()(frame).pixels[0].numpy(), (image - 512) / (15000 - 512), atol=1e-6)
    with pytest.raises(InputError, match=r"b\.dng: its RAW image cannot be decoded"):
        read(coded_dng(tmp_path / "b.dng", image.shape, bytes(2) + data[2:], fields))


def test_a_bomb_is_unpacked_no_further_than_its_strip(tmp_path: Path) -> None:
    fields: Tree = {tag: Field.of(SHORT, (value,)) for tag, value in ((258, 24), (259, 8), (317, 34894), (339, 3))}
    data = zlib.compress(bytes(1 << 28), 1)
    tracemalloc.start()
    read(coded_dng(tmp_path / "a.dng", (8, 70), data, fields))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1 << 25


def test_floats_of_24_bits_in_tiles(tmp_path: Path) -> None:
    image = (RANDOM.integers(1, 1 << 16, (50, 70)) / 16).astype(np.float32)
    tiles = np.zeros((64, 96), np.float32)
    tiles[:50, :70] = image
    coded = [
        zlib.compress(predicted(float24(tiles[y : y + 32, x : x + 48]), 2).tobytes()) for y in (0, 32) for x in (0, 48)
    ]
    fields: Tree = {
        258: Field.of(SHORT, (24,)),
        259: Field.of(SHORT, (8,)),
        317: Field.of(SHORT, (34894,)),
        322: Field.of(LONG, (48,)),
        323: Field.of(LONG, (32,)),
        324: Field.of(LONG, [0] * 4),
        325: Field.of(LONG, [len(data) for data in coded]),
        339: Field.of(SHORT, (3,)),
    }
    path = coded_dng(tmp_path / "a.dng", image.shape, b"".join(coded), fields)
    start = path.stat().st_size - sum(map(len, coded))
    places = [start + sum(map(len, coded[:index])) for index in range(4)]
    coded_dng(path, image.shape, b"".join(coded), fields | {324: Field.of(LONG, places)})
    np.testing.assert_array_equal(read(path).pixels[0].numpy(), image)


# ---- packed


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_packed_numbers(tmp_path: Path, bits: int) -> None:
    image = RANDOM.integers(0, 1 << bits, (40, 60)).astype(np.uint16)
    data = image.tobytes() if bits == 16 else bytes(imagecodecs.packints_encode(image, bits))
    path = coded_dng(tmp_path / "a.dng", image.shape, data, {258: Field.of(SHORT, (bits,))})
    frame = read(path)
    np.testing.assert_array_equal(frame.pixels[0].numpy(), image)
    assert frame.camera.white is not None
    assert frame.camera.white.tolist() == [(1 << bits) - 1]
    with rawpy.imread(str(path)) as raw:
        np.testing.assert_array_equal(raw.raw_image_visible, image)


def test_other_numbers_of_channels_are_refused(tmp_path: Path) -> None:
    image = np.ones((20, 30, 4), np.uint16)
    path = tiff_dng(tmp_path / "a.dng", image, tile=None, extrasamples=["unspecified"])
    with pytest.raises(InputError, match=r"a\.dng: has 4 values a pixel"):
        read(path)


def test_gopro_files_are_refused_by_the_name_of_their_compression(tmp_path: Path) -> None:
    path = tiff_dng(tmp_path / "a.dng", mosaic())
    data = bytearray(path.read_bytes())
    at = data.index((259).to_bytes(2, "little") + (3).to_bytes(2, "little"))
    data[at + 8] = 9
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.dng: is compressed by VC-5 \(GoPro\)"):
        read(path)
