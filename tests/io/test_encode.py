"""Encoders: exact samples, sizes and containers, as other libraries read them."""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from restorekit.facts import Metadata
from restorekit.frame import Frame
from restorekit.io import OutputSpec, exif_size, metadata, png_write, quantiser, read, write
from restorekit.io.formats import FORMATS, Format
from restorekit.io.tiff import Field
from restorekit.state import ImageState

EXIF = b"II*\0\x08\0\0\0\x01\0\x0f\x01\x02\0\x02\0\0\0M\0\0\0" + bytes(4)


def integers(bits: int, channels: int = 3, height: int = 37, width: int = 52) -> torch.Tensor:
    values = np.random.default_rng(7).integers(0, 2**bits, (height, width, channels), dtype=f"uint{bits}")
    return torch.from_numpy(values).permute(2, 0, 1)


def smooth(channels: int = 3) -> torch.Tensor:
    y, x = np.mgrid[0:37, 0:52] / 52
    return torch.from_numpy(
        np.stack([0.5 + 0.4 * np.sin(4 * x + 3 * y + c) for c in range(channels)]).astype(np.float32)
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [10, 12])
def test_codes_of_10_and_12_bits_come_back_exactly(tmp_path: Path, bits: int, channels: int) -> None:
    codes = np.random.default_rng(5).integers(0, 2**bits, (37, 52, channels), dtype=np.uint16)
    floats = torch.from_numpy(codes.astype(np.float32) / (2**bits - 1)).permute(2, 0, 1)
    spec = OutputSpec(format="avif", bits=bits, compression="lossless")
    path = write(Frame(floats, ImageState("rgb" if channels == 3 else "gray")), tmp_path / "a.avif", spec)
    np.testing.assert_array_equal(imagecodecs.avif_decode(path.read_bytes()), np.squeeze(codes))
    strips = replace(Frame(quantiser(spec)(floats)), state=ImageState("rgb" if channels == 3 else "gray"))
    assert write(strips, tmp_path / "b.avif", spec).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("compression", ["none", "deflate", "zstd"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_float_tiff_keeps_every_bit(tmp_path: Path, compression: str, channels: int) -> None:
    values = np.random.default_rng(6).normal(0.5, 2.0, (300, 52, channels)).astype(np.float32)
    values[0, :3, 0] = np.inf, -np.inf, np.nan
    planes = torch.from_numpy(values).permute(2, 0, 1)
    frame = Frame(planes[:3], ImageState("rgb" if channels > 1 else "gray", "scene", "linear", "bt2020"))
    frame = replace(frame, alpha=planes[3:] if channels == 4 else None)
    path = write(frame, tmp_path / "a.tif", OutputSpec(format="tiff", bits=32, compression=compression))
    np.testing.assert_array_equal(tifffile.imread(path), np.squeeze(values))


@pytest.mark.parametrize("compression", ["fast", "small"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("size", [(1, 1), (1, 70), (70, 1), (5000, 300)])
def test_png_of_any_shape_is_read_alike_by_others(
    tmp_path: Path, size: tuple[int, int], bits: int, compression: str
) -> None:
    for channels in (1, 3):
        frame = Frame(integers(bits, channels, *size), ImageState("rgb" if channels == 3 else "gray"))
        path = write(frame, tmp_path / "a.png", OutputSpec(format="png", bits=bits, compression=compression))
        found = np.atleast_3d(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))[..., ::-1]
        np.testing.assert_array_equal(found, frame.pixels.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("name", ["jpeg", "png", "tiff", "webp", "avif", "jxl"])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1)])
def test_integers_of_one_pixel_a_side(tmp_path: Path, size: tuple[int, int], name: Format) -> None:
    path = tmp_path / f"a{FORMATS[name].extensions[0]}"
    write(Frame(torch.full((3, *size), 128, dtype=torch.uint8), ImageState()), path, OutputSpec(format=name, bits=8))
    assert torch.allclose(read(path).as_float().pixels, torch.tensor(128 / 255), atol=2 / 255)


def test_image_data_of_png_may_lie_in_several_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png_write, "LARGEST_CHUNK", 1000)
    path = write(Frame(integers(8)), tmp_path / "a.png")
    assert path.read_bytes().count(b"IDAT") > 5
    np.testing.assert_array_equal(np.asarray(Image.open(path)), integers(8).permute(1, 2, 0).numpy())


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_the_resolution_in_print_stands_where_programs_look_for_it(tmp_path: Path, suffix: str) -> None:
    fields = {exif_size.X_RESOLUTION: Field.of(5, (300,)), exif_size.Y_RESOLUTION: Field.of(5, (240,))}
    block = metadata.exif_bytes({271: Field.of(2, "M"), **fields, exif_size.RESOLUTION_UNIT: Field.of(3, (2,))})
    frame = Frame(smooth(), metadata=Metadata(exif=block))
    image = Image.open(write(frame, tmp_path / f"a{suffix}"))
    assert image.info["dpi"] == pytest.approx((300, 240), abs=0.02)
    half = metadata.exif_bytes({271: Field.of(2, "M"), 282: Field.of(5, (300,))})
    image = Image.open(write(replace(frame, metadata=Metadata(exif=half)), tmp_path / f"b{suffix}"))
    assert image.info.get("dpi", (72, 72)) in ((72, 72), (1, 1))


def test_small_png_is_smaller(tmp_path: Path) -> None:
    y, x = np.mgrid[0:400, 0:600]
    made = np.stack([127 + 60 * np.sin(x / 50) + 60 * np.sin((y + c * x) / 30) for c in range(3)]).astype(np.uint8)
    sizes = [
        write(Frame(torch.from_numpy(made)), tmp_path / "a.png", OutputSpec(format="png", compression=each)).stat()
        for each in ("fast", "small")
    ]
    reference = io.BytesIO()
    Image.fromarray(made.transpose(1, 2, 0)).save(reference, "png")
    assert sizes[1].st_size < min(sizes[0].st_size, 1.05 * len(reference.getvalue()))


@pytest.mark.parametrize("suffix", [".webp", ".avif"])
def test_modern_formats_are_read_alike_by_pillow(tmp_path: Path, suffix: str) -> None:
    frame = Frame(smooth(), alpha=smooth(1))
    image = np.asarray(Image.open(write(frame, tmp_path / f"a{suffix}"))).astype(int)
    png = np.asarray(Image.open(write(frame, tmp_path / "a.png"))).astype(int)
    assert np.abs(image - png).mean() < 2
    np.testing.assert_array_equal(image[..., 3], png[..., 3])


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".avif", ".jxl"])
def test_quality_decides_the_size(tmp_path: Path, suffix: str) -> None:
    for layout in ("rgb", "gray"):
        frame = Frame(smooth(3 if layout == "rgb" else 1) + 0.05 * torch.randn(37, 52), ImageState(layout))  # type: ignore[arg-type]
        name = {".jpg": "jpeg"}.get(suffix, suffix[1:])
        specs = [OutputSpec(format=name, quality=quality) for quality in (20, 60, 99)]  # type: ignore[arg-type]
        sizes = [write(frame, tmp_path / f"a{suffix}", spec).stat().st_size for spec in specs]
        assert sizes == sorted(sizes)
        assert sizes[0] < 0.7 * sizes[2]


@pytest.mark.parametrize(("bits", "reader"), [(8, "pillow"), (16, "tifffile")])
@pytest.mark.parametrize("compression", ["none", "deflate", "zstd"])
def test_tiff_is_read_alike_by_others(tmp_path: Path, bits: int, reader: str, compression: str) -> None:
    frame = Frame(integers(bits, height=700))
    path = write(frame, tmp_path / "a.tif", OutputSpec(format="tiff", bits=bits, compression=compression))
    found = np.asarray(Image.open(path)) if reader == "pillow" else tifffile.imread(path)
    np.testing.assert_array_equal(found, frame.pixels.permute(1, 2, 0).numpy())


def test_png_and_jpeg_are_read_alike_by_pillow(tmp_path: Path) -> None:
    frame = Frame(smooth())
    png = np.asarray(Image.open(write(frame, tmp_path / "a.png")))
    np.testing.assert_array_equal(png, np.rint(frame.pixels.permute(1, 2, 0).numpy() * 255).astype(np.uint8))
    jpeg = Image.open(write(frame, tmp_path / "a.jpg"))
    assert np.abs(np.asarray(jpeg).astype(int) - png.astype(int)).mean() < 1
    assert jpeg.layer[0][1:3] == (1, 1)  # type: ignore[attr-defined]  # chroma at full resolution
    gray = Image.open(write(Frame(smooth(1), ImageState("gray")), tmp_path / "gray.jpg"))
    assert gray.mode == "L"


def test_a_packet_of_more_than_a_segment_goes_into_several(tmp_path: Path) -> None:
    words = "".join(f"<rdf:li>word {number}</rdf:li>" for number in range(9000))
    packet = (
        '<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/">'
        f"<dc:subject><rdf:Bag>{words}</rdf:Bag></dc:subject></rdf:Description></rdf:RDF></x:xmpmeta>"
        '<?xpacket end="w"?>'
    ).encode()
    path = write(replace(Frame(smooth()), metadata=Metadata(xmp=packet)), tmp_path / "a.jpg")
    assert path.read_bytes().count(b"http://ns.adobe.com/xmp/extension/") == len(packet) // 65000 + 1
    back = read(path).metadata.xmp
    assert back.count(b"<rdf:li>") == 9000
    assert b"word 8999" in back
    assert Image.open(path).size == (52, 37)


def test_the_level_of_a_jpeg_xl_file_stays_in_front(tmp_path: Path) -> None:
    frame = replace(Frame(integers(16), ImageState(transfer="linear")), metadata=Metadata(exif=EXIF))
    path = write(frame, tmp_path / "a.jxl", OutputSpec(format="jxl", bits=16, compression="lossless"))
    kinds, data, at = [], path.read_bytes(), 0
    while at < len(data):
        kinds.append(data[at + 4 : at + 8])
        at += int.from_bytes(data[at : at + 4], "big")
    assert kinds == [b"JXL ", b"ftyp", b"jxll", b"Exif", b"jxlc"]


def test_pq_is_named_in_png(tmp_path: Path) -> None:
    state = ImageState(transfer="pq", primaries="bt2020")
    path = write(Frame(smooth(), state), tmp_path / "a.png", OutputSpec(format="png", bits=16))
    assert bytes((9, 16, 0, 1)) in path.read_bytes()[:80]
    assert read(path).state == state


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".avif", ".jxl"])
def test_thumbnails_do_not_go_along(tmp_path: Path, suffix: str) -> None:
    block = Image.Exif()
    block[271] = "Maker"
    plain = block.tobytes().removeprefix(b"Exif\0\0")
    order = "<" if plain[:2] == b"II" else ">"
    first = struct.unpack(order + "I", plain[4:8])[0]
    entries = struct.unpack_from(order + "H", plain, first)[0]
    thumbnail = b"\xff\xd8" + b"thumbnail" * 100 + b"\xff\xd9"
    second = struct.pack(order + "HHHII", 1, 513, 4, 1, len(plain) + 18) + bytes(4)
    old = bytearray(plain + second + thumbnail)
    struct.pack_into(order + "I", old, first + 2 + 12 * entries, len(plain))
    path = write(Frame(smooth(), metadata=Metadata(exif=bytes(old))), tmp_path / f"a{suffix}")
    assert b"Maker" in path.read_bytes()
    assert b"thumbnail" not in path.read_bytes()
