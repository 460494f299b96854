"""Sizes told by headers alone, with real encoders as oracles; and files that declare too much, refused unopened."""

from __future__ import annotations

import io
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from restorekit.errors import InputError
from restorekit.io import read
from restorekit.io.limits import DEFAULT, Limits, available_memory, declared_size
from restorekit.io.tiff import BYTE, LONG, SHORT, Field, lay_out

HUGE = 60000


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def png(side: int) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    pieces = (chunk(b"IHDR", header), chunk(b"IDAT", bytes(1 << 20)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(pieces)


def jpeg(side: int) -> bytes:
    data = bytearray(imagecodecs.jpeg8_encode(np.zeros((16, 16, 3), np.uint8)))
    struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, side, side)
    return bytes(data)


def jpeg_with_rubbish(side: int) -> bytes:
    """Decoders skip bytes that are no marker."""
    data = jpeg(side)
    at = data.index(b"\xff\xc0")
    return data[:at] + b"\0rubbish\xff\xff" + data[at + 1 :]


def jpeg_with_long_metadata(side: int) -> bytes:
    data = jpeg(side)
    return data[:2] + 40 * (b"\xff\xed\xff\xff" + bytes(65533)) + data[2:]


def gif(side: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", side, side) + bytes(3) + b";"


def gif_with_a_picture_beyond_its_screen(side: int) -> bytes:
    data = io.BytesIO()
    Image.new("P", (4, 4)).save(data, "GIF")
    whole = bytearray(data.getvalue())
    at = whole.index(b"\x2c" + bytes(4) + struct.pack("<HH", 4, 4))
    struct.pack_into("<HH", whole, at + 5, side, side)
    return bytes(whole)


def bmp(side: int) -> bytes:
    data = bytearray(imagecodecs.bmp_encode(np.zeros((4, 4, 3), np.uint8)))
    struct.pack_into("<ii", data, 18, side, -side)
    return bytes(data)


def webp(side: int) -> bytes:
    small = imagecodecs.webp_encode(np.zeros((4, 4, 3), np.uint8), lossless=True)[12:]
    canvas = bytes(4) + struct.pack("<I", side - 1)[:3] * 2
    content = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + canvas + small
    return b"RIFF" + struct.pack("<I", len(content)) + content


def webp_lossless(side: int) -> bytes:
    data = bytearray(imagecodecs.webp_encode(np.zeros((4, 4, 3), np.uint8), lossless=True))
    struct.pack_into("<I", data, 21, 16383 | 16383 << 14)
    return bytes(data)


def tiff_fields(side: int) -> dict[int, Field]:
    numbers = {256: side, 257: side, 258: 8, 259: 8, 262: 1, 273: 8, 277: 1, 278: side, 279: 100}
    return {tag: Field.of(LONG if tag in (256, 257, 273, 278, 279) else SHORT, (n,)) for tag, n in numbers.items()}


def tiff(side: int) -> bytes:
    return lay_out({**tiff_fields(side)}) + bytes(200)


def tiff_with_two_widths(side: int) -> bytes:
    """The same tag twice: parsers differ in which one holds."""
    data = bytearray(tiff(side))
    first = struct.unpack_from("<I", data, 4)[0]
    at = first + 2 + 12 * 3
    struct.pack_into("<HHII", data, at, 256, LONG, 1, 16)
    return bytes(data)


def tiff_with_huge_tiles(side: int) -> bytes:
    tree = tiff_fields(16) | {322: Field.of(LONG, (side,)), 323: Field.of(LONG, (side,))}
    places = {324: Field.of(LONG, (8,)), 325: Field.of(LONG, (100,))}
    return lay_out({tag: item for tag, item in {**tree, **places}.items() if tag not in (273, 278, 279)}) + bytes(200)


def dng(side: int) -> bytes:
    return lay_out({**tiff_fields(side), 50706: Field.of(BYTE, (1, 4, 0, 0))}) + bytes(200)


def exr(side: int) -> bytes:
    def attribute(name: bytes, kind: bytes, data: bytes) -> bytes:
        return name + b"\0" + kind + b"\0" + struct.pack("<I", len(data)) + data

    window = struct.pack("<4i", 0, 0, side - 1, side - 1)
    channels = b"R\0" + struct.pack("<iiii", 1, 0, 1, 1) + b"\0"
    pieces = (
        attribute(b"comments", b"string", b"x" * (2 << 20)),  # a header may be long
        attribute(b"channels", b"chlist", channels),
        attribute(b"dataWindow", b"box2i", window),
    )
    return b"\x76\x2f\x31\x01" + struct.pack("<I", 2) + b"".join(pieces) + b"\0"


def radiance(side: int) -> bytes:
    return b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y %d +X %d\n" % (side, side) + bytes(100)


def heif(brand: bytes) -> Callable[[int], bytes]:
    def build(side: int) -> bytes:
        small, large = (box(b"ispe", struct.pack(">III", 0, edge, edge)) for edge in (512, side))
        properties = box(b"iprp", box(b"ipco", small + large))
        return box(b"ftyp", brand + bytes(4) + brand) + box(b"meta", bytes(4) + properties)

    return build


def jxl_stream(side: int) -> bytes:
    bits = 0 | 3 << 1 | (side - 1) << 3 | 1 << 33  # not small, 30 bits of height, square
    return b"\xff\x0a" + bits.to_bytes(20, "little")


def jxl_file(side: int) -> bytes:
    head = box(b"JXL ", b"\r\n\x87\n") + box(b"ftyp", b"jxl \0\0\0\0jxl ") + box(b"Exif", bytes(5000))
    return head + box(b"jxlp", struct.pack(">I", 0) + jxl_stream(side))


BOMBS: dict[str, Callable[[int], bytes]] = {
    "a.png": png,
    "a.jpg": jpeg,
    "rubbish.jpg": jpeg_with_rubbish,
    "long.jpg": jpeg_with_long_metadata,
    "a.gif": gif,
    "screen.gif": gif_with_a_picture_beyond_its_screen,
    "a.bmp": bmp,
    "a.webp": webp,
    "a.tif": tiff,
    "two-widths.tif": tiff_with_two_widths,
    "tiles.tif": tiff_with_huge_tiles,
    "a.dng": dng,
    "a.exr": exr,
    "a.hdr": radiance,
    "a.avif": heif(b"avif"),
    "a.heic": heif(b"heic"),
    "a.jxl": jxl_stream,
    "boxes.jxl": jxl_file,
}


@pytest.mark.parametrize("name", BOMBS)
def test_too_large_images_are_refused_before_decoding(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    path.write_bytes(BOMBS[name](HUGE))

    def decode(*_: object) -> None:
        raise AssertionError("nothing may be decoded")

    monkeypatch.setattr(sys.modules["restorekit.io.read"], "_decoded", decode)
    with pytest.raises(InputError):  # imports what it needs
        read(path)
    tracemalloc.start()
    with pytest.raises(InputError, match=rf"^{path}: is 60000x60000, 3600 megapixels, the limit is 512; .*--max-meg"):
        read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20
    assert path.stat().st_size < 4 << 20


def test_the_largest_webp_is_refused_where_the_limit_is_lower(tmp_path: Path) -> None:
    path = tmp_path / "a.webp"
    path.write_bytes(webp_lossless(0))
    with pytest.raises(InputError, match=r"16384x16384, 268 megapixels, the limit is 100; .*--max-megapixels 269"):
        read(path, limits=Limits(100_000_000))


@pytest.mark.parametrize(("width", "height"), [(1, 1), (40, 30), (333, 77), (48, 32), (24, 256), (600, 5)])
@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "webp", "lossless.webp", "tif", "avif", "jxl"])
def test_declared_sizes_are_those_of_the_picture(suffix: str, width: int, height: int, tmp_path: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))
    path = tmp_path / f"a.{suffix}"
    if suffix == "jxl":
        path.write_bytes(imagecodecs.jpegxl_encode(np.asarray(picture), lossless=True))
    else:
        picture.save(path, lossless=True) if suffix == "lossless.webp" else picture.save(path)
    kinds = {"jpg": "jpeg", "tif": "tiff", "lossless.webp": "webp"}
    size = declared_size(path, kinds.get(suffix, suffix))
    assert size is not None and (size.width, size.height) == (width, height)


def test_bytes_of_a_pixel_follow_its_samples(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((20, 30, 3), np.float32), photometric="rgb")
    size = declared_size(path, "tiff")
    assert size is not None and size.pixel_bytes == 12
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((20, 30), np.uint16)).save(path)
    size = declared_size(path, "png")
    assert size is not None and size.pixel_bytes == 2


def test_big_tiff_declares_its_size_too(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((20, 30), np.uint8), bigtiff=True)
    size = declared_size(path, "tiff")
    assert size is not None and (size.width, size.height) == (30, 20)


def test_every_part_of_an_exr_file_counts(tmp_path: Path) -> None:
    small, large = exr(10), exr(HUGE)
    path = tmp_path / "a.exr"
    path.write_bytes(small[:4] + struct.pack("<I", 0x1002) + small[8:] + large[8:] + b"\0")
    with pytest.raises(InputError, match="3600 megapixels"):
        DEFAULT.check(path, "exr")


def test_memory_is_a_limit_too(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (1000, 1000)).save(path)
    with pytest.raises(InputError, match=r"a\.png: is 1000x1000.* needs 0\.0 GB when decoded, the limit is 0\.0 GB"):
        read(path, limits=Limits(max_memory_bytes=2_999_999))
    assert read(path, limits=Limits(max_memory_bytes=3_000_000)).width == 1000


def test_the_system_tells_its_memory() -> None:
    free = available_memory()
    assert free is None or free > 1 << 20


def test_damaged_headers_are_left_to_the_decoder(tmp_path: Path) -> None:
    for name, build in BOMBS.items():
        data = build(100)
        for length in (9, 12, 20, 26, len(data) // 2):
            path = tmp_path / name
            path.write_bytes(data[:length])
            for kind in ("png", "jpeg", "gif", "bmp", "webp", "tiff", "dng", "exr", "radiance", "heif", "jxl"):
                declared_size(path, kind)


def test_raw_files_tell_their_size_before_they_are_unpacked(shared_data: Path) -> None:
    path = shared_data / "raw" / "canon_d30.crw"
    size = declared_size(path, "raw")
    assert size is not None and size.width * size.height > 3_000_000
    with pytest.raises(InputError, match="--max-megapixels 4"):
        read(path, limits=Limits(1_000_000))


def test_a_profile_that_expands_without_end_is_cut(tmp_path: Path) -> None:
    """A compressed ICC profile of PNG: 30 kB that would become 30 MB."""
    data = io.BytesIO()
    Image.new("RGB", (8, 8)).save(data, "PNG")
    whole = data.getvalue()
    bomb = chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(30 << 20), 9))
    path = tmp_path / "a.png"
    path.write_bytes(whole[:33] + bomb + whole[33:])
    assert len(read(path).metadata.icc) <= 1 << 24
