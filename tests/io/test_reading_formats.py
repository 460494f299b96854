"""AVIF, HEIC, GIF, BMP, CMYK JPEG and animations in, with Pillow, pillow-heif and OpenCV as independent writers."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from restorekit.errors import InputError
from restorekit.io import read
from restorekit.io.icc import profile_of
from restorekit.io.read import READABLE
from restorekit.state import ImageState


def picture(channels: int = 3, dtype: str = "uint8", size: tuple[int, int] = (33, 47)) -> NDArray[Any]:
    y, x = np.mgrid[0 : size[0], 0 : size[1]] / 47
    planes = [0.5 + 0.4 * np.sin(3 * x + channel) * np.cos(4 * y - channel) for channel in range(channels)]
    return (np.stack(planes, -1) * np.iinfo(dtype).max).astype(dtype)


def interleaved(path: Path) -> NDArray[Any]:
    samples: NDArray[Any] = read(path).pixels.permute(1, 2, 0).numpy()
    return samples


def away(found: NDArray[Any], expected: NDArray[Any]) -> int:
    """The largest difference."""
    return int(np.abs(found.astype(int) - expected).max())


TURNED = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: np.rot90(image),
    7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    8: lambda image: np.rot90(image, -1),
}
"""What a picture looks like that its orientation makes upright."""


@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_is_turned_as_its_container_asks(tmp_path: Path, orientation: int) -> None:
    """Pillow writes the EXIF orientation as irot and imir, and keeps the tag, which must not turn it again."""
    exif = Image.Exif()
    exif[274], exif[271] = orientation, "Maker"
    turned = Image.fromarray(np.ascontiguousarray(TURNED[orientation](picture())))
    turned.save(tmp_path / "a.avif", exif=exif, quality=100, subsampling="4:4:4")
    assert away(interleaved(tmp_path / "a.avif"), picture()) <= 3
    assert b"Maker" in read(tmp_path / "a.avif").metadata.exif


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_avif_fills_the_range(tmp_path: Path, bits: int) -> None:
    samples = picture(3, "uint16") >> 16 - bits
    samples[0, 0] = (1 << bits) - 1
    coded = samples.astype(np.uint8 if bits == 8 else np.uint16)
    (tmp_path / "a.avif").write_bytes(imagecodecs.avif_encode(coded, level=100, bitspersample=bits))
    found = interleaved(tmp_path / "a.avif")
    most = 255 if bits == 8 else 65535
    np.testing.assert_allclose(found, samples * (most / ((1 << bits) - 1)), atol=1)
    assert (found[0, 0] == most).all()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_avif_modes(tmp_path: Path, mode: str) -> None:
    samples = picture(len(mode))
    options = {"subsampling": "4:4:4"} if len(mode) > 1 else {}
    Image.fromarray(samples if len(mode) > 1 else samples[..., 0]).save(tmp_path / "a.avif", quality=100, **options)
    frame = read(tmp_path / "a.avif")
    assert frame.state.layout == ("gray" if mode == "L" else "rgb")
    assert away(interleaved(tmp_path / "a.avif"), samples[..., :3]) <= 6
    assert (frame.alpha is not None) == (mode == "RGBA")
    if frame.alpha is not None:
        np.testing.assert_array_equal(frame.alpha[0].numpy(), samples[..., 3])


def test_profiles_and_packets_of_avif(tmp_path: Path) -> None:
    profile = profile_of(ImageState(primaries="p3"))
    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    packet += b'<rdf:Description xmlns:e="http://example.org/"><e:a>b</e:a></rdf:Description></rdf:RDF></x:xmpmeta>'
    Image.fromarray(picture()).save(tmp_path / "a.avif", icc_profile=profile, xmp=packet)
    frame = read(tmp_path / "a.avif")
    assert frame.metadata.color == ("p3", "srgb")
    assert (frame.metadata.icc, frame.metadata.xmp) == (profile, packet)


@pytest.mark.parametrize(("primaries", "transfer", "named"), [
    (9, 16, ("bt2020", "pq")), (9, 18, ("bt2020", "hlg")), (12, 13, ("p3", "srgb")), (1, 8, ("bt709", "linear")),
    (2, 2, ("bt709", "srgb")),
])  # fmt: skip
def test_code_points_of_avif(tmp_path: Path, primaries: int, transfer: int, named: tuple[str, str]) -> None:
    coded = imagecodecs.avif_encode(picture(), level=100, primaries=primaries, transfer=transfer)
    (tmp_path / "a.avif").write_bytes(coded)
    frame = read(tmp_path / "a.avif")
    assert frame.metadata.color == named == (frame.state.primaries, frame.state.transfer)
    assert away(interleaved(tmp_path / "a.avif"), picture()) <= 1


def test_a_clean_aperture_of_avif_is_cut_out(tmp_path: Path) -> None:
    coded = bytearray(imagecodecs.avif_encode(picture(), level=100))
    clap = struct.pack(">I4sIIIIiIiI", 40, b"clap", 20, 1, 10, 1, -3, 2, 1, 2)
    (tmp_path / "a.avif").write_bytes(with_property(bytes(coded), clap))
    assert away(interleaved(tmp_path / "a.avif"), picture()[12:22, 12:32]) <= 1


def with_property(data: bytes, added: bytes) -> bytes:
    """A still AVIF file of one item with one essential property more; all offsets behind it move along."""
    ipma = data.index(b"ipma")
    count_at = ipma + 4 + 4 + 4 + 2
    count = data[count_at]
    index = 1 + ipco_boxes(data)
    data = data[: count_at + 1 + count] + bytes([0x80 | index]) + data[count_at + 1 + count :]
    data = data[:count_at] + bytes([count + 1]) + data[count_at + 1 :]
    end = ipma - 4
    data = data[:end] + added + data[end:]
    grown = {b"meta": len(added) + 1, b"iprp": len(added) + 1, b"ipco": len(added), b"ipma": 1}
    for kind, more in grown.items():
        at = data.index(kind) - 4
        data = data[:at] + struct.pack(">I", struct.unpack_from(">I", data, at)[0] + more) + data[at + 4 :]
    offset = data.index(b"iloc") + 4 + 4 + 2 + 2 + 2 + 2 + 2
    moved = struct.unpack_from(">I", data, offset)[0] + len(added) + 1
    return data[:offset] + struct.pack(">I", moved) + data[offset + 4 :]


def ipco_boxes(data: bytes) -> int:
    at = data.index(b"ipco") + 4
    end = at - 8 + struct.unpack_from(">I", data, at - 8)[0]
    count = 0
    while at < end:
        at += struct.unpack_from(">I", data, at)[0]
        count += 1
    return count


@pytest.fixture
def pillow_heif() -> Any:
    return pytest.importorskip("pillow_heif")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_turned_as_its_container_asks(tmp_path: Path, pillow_heif: Any, orientation: int) -> None:
    exif = Image.Exif()
    exif[274], exif[271] = orientation, "Maker"
    turned = np.ascontiguousarray(TURNED[orientation](picture(size=(64, 128))))
    file = pillow_heif.from_bytes(mode="RGB", size=turned.shape[1::-1], data=turned.tobytes())
    file.info["exif"] = exif.tobytes()
    file.save(tmp_path / "a.heic", quality=-1, chroma=444)
    assert away(interleaved(tmp_path / "a.heic"), picture(size=(64, 128))) <= 3
    assert b"Maker" in read(tmp_path / "a.heic").metadata.exif


@pytest.mark.parametrize(
    ("mode", "channels"), [("RGB;16", 3), ("RGBA;16", 4), ("L;16", 1), ("RGB", 3), ("RGBA", 4), ("L", 1)]
)
def test_heic_modes_fill_the_range(tmp_path: Path, pillow_heif: Any, mode: str, channels: int) -> None:
    samples = picture(channels, "uint16" if "16" in mode else "uint8")
    samples[:8, :8] = np.iinfo(samples.dtype).max
    pillow_heif.from_bytes(mode=mode, size=(47, 33), data=samples.tobytes()).save(
        tmp_path / "a.heic", quality=-1, chroma=444
    )
    frame = read(tmp_path / "a.heic")
    assert frame.state.layout == ("gray" if channels == 1 else "rgb")
    step = 65535 / 1023 if "16" in mode else 1
    assert away(interleaved(tmp_path / "a.heic"), samples[..., :3]) <= 6 * step
    assert interleaved(tmp_path / "a.heic")[4, 4].min() >= np.iinfo(samples.dtype).max - 3 * step
    assert (frame.alpha is not None) == (channels == 4)


def test_colour_of_heic(tmp_path: Path, pillow_heif: Any) -> None:
    profile = profile_of(ImageState(primaries="p3"))
    file = pillow_heif.from_bytes(mode="RGB", size=(47, 33), data=picture().tobytes())
    file.info["icc_profile"], file.info["icc_profile_type"] = profile, "prof"
    file.save(tmp_path / "a.heic")
    assert read(tmp_path / "a.heic").metadata.color == ("p3", "srgb")
    assert read(tmp_path / "a.heic").metadata.icc == profile
    file = pillow_heif.from_bytes(mode="RGB;16", size=(47, 33), data=picture(3, "uint16").tobytes())
    file.save(tmp_path / "b.heic", color_primaries=9, transfer_characteristics=16, matrix_coefficients=9)
    assert read(tmp_path / "b.heic").metadata.color == ("bt2020", "pq")


def test_of_several_pictures_the_primary_one_is_taken(tmp_path: Path, pillow_heif: Any) -> None:
    file = pillow_heif.HeifFile()
    for samples in (picture(), 255 - picture()):
        file.add_frombytes("RGB", (47, 33), samples.tobytes())
    file.save(tmp_path / "a.heic", quality=-1, chroma=444, primary_index=1)
    assert away(interleaved(tmp_path / "a.heic"), 255 - picture()) <= 3
    assert read(tmp_path / "a.heic").notes == ("a.heic: has 2 pictures, the primary one is taken",)


def test_tiles_of_heic_are_one_picture(tmp_path: Path, pillow_heif: Any) -> None:
    """As phones write them: a grid of tiles that is turned as a whole."""
    exif = Image.Exif()
    exif[274] = 6
    whole = picture(size=(300, 500))
    file = pillow_heif.from_bytes(mode="RGB", size=(500, 300), data=whole.tobytes())
    file.info["exif"] = exif.tobytes()
    file.save(tmp_path / "a.heic", quality=-1, chroma=444, tile_size=256)
    assert b"grid" in (tmp_path / "a.heic").read_bytes()
    assert away(interleaved(tmp_path / "a.heic"), np.rot90(whole, -1)) <= 3
    assert read(tmp_path / "a.heic").notes == ()


def test_without_the_extra_heic_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.heic").write_bytes(struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(InputError, match=r"a\.heic: needs the extra heif: pip install 'restorekit\[heif\]'$"):
        read(tmp_path / "a.heic")


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "avif"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path, kind: str) -> None:
    frames = [Image.fromarray(np.ascontiguousarray(np.roll(picture(), 9 * k, 1))).quantize(64) for k in range(4)]
    frames = frames if kind == "gif" else [frame.convert("RGB") for frame in frames]
    options = {"webp": {"lossless": True}, "avif": {"quality": 100, "subsampling": "4:4:4"}}.get(kind, {})
    path = tmp_path / f"a.{kind}"
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)  # type: ignore[arg-type]
    expected = np.asarray(frames[0].convert("RGB"))
    assert away(interleaved(path)[..., :3], expected) <= (3 if kind == "avif" else 0)
    assert read(path).notes == (f"a.{kind}: is animated (4 frames), the first is taken",)
    frames[0].save(path, **options)  # type: ignore[arg-type]
    assert read(path).notes == ()


def gif(width: int, height: int, place: tuple[int, int, int, int], indices: NDArray[Any], clear: int | None) -> bytes:
    """A GIF whose only picture lies at (left, top, width, height) of its screen; LZW codes are never compressed."""
    table = bytes(range(24))
    data = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80 | 2, 0, 0) + table
    if clear is not None:
        data += b"\x21\xf9\x04" + bytes((1, 0, 0, clear)) + b"\0"
    bits = length = 0
    codes = [8]
    for position, index in enumerate(indices.ravel().tolist()):
        codes += [8] if position % 6 == 5 else []
        codes.append(index)
    for code in (*codes, 9):
        bits, length = bits | code << length, length + 4
    packed = bits.to_bytes(-(-length // 8), "little")
    blocks = b"".join(bytes([len(packed[at : at + 255])]) + packed[at : at + 255] for at in range(0, len(packed), 255))
    return data + b"\x2c" + struct.pack("<HHHHB", *place, 0) + b"\x03" + blocks + b"\0\x3b"


def test_the_screen_of_a_gif_beside_its_picture_is_clear(tmp_path: Path) -> None:
    indices = np.random.default_rng(0).integers(0, 8, (5, 7))
    (tmp_path / "a.gif").write_bytes(gif(12, 9, (2, 3, 7, 5), indices, None))
    frame = read(tmp_path / "a.gif")
    assert frame.alpha is not None
    shown = np.zeros((9, 12), bool)
    shown[3:8, 2:9] = True
    np.testing.assert_array_equal(frame.alpha[0].numpy(), shown * 255)
    colors = np.arange(24, dtype=np.uint8).reshape(8, 3)
    np.testing.assert_array_equal(frame.pixels.permute(1, 2, 0).numpy()[3:8, 2:9], colors[indices])


def test_a_clear_colour_of_a_gif(tmp_path: Path) -> None:
    indices = np.random.default_rng(1).integers(0, 8, (9, 12))
    (tmp_path / "a.gif").write_bytes(gif(12, 9, (0, 0, 12, 9), indices, 5))
    frame = read(tmp_path / "a.gif")
    assert frame.alpha is not None
    np.testing.assert_array_equal(frame.alpha[0].numpy() == 0, indices == 5)


def test_ink_of_adobe_counts_the_paper_that_is_left(tmp_path: Path) -> None:
    """Pillow writes CMYK with an Adobe marker; imagecodecs writes YCCK with one, and CMYK without."""
    ink = picture(4)
    Image.fromarray(ink, "CMYK").save(tmp_path / "a.jpg", quality=98)
    ycck = imagecodecs.jpeg8_encode(255 - ink, level=98, colorspace="CMYK", outcolorspace="YCCK")
    (tmp_path / "b.jpg").write_bytes(ycck)
    adobe = imagecodecs.jpeg8_encode(ink, level=98, colorspace="CMYK", outcolorspace="CMYK")
    at = adobe.index(b"\xff\xee")
    (tmp_path / "c.jpg").write_bytes(adobe[:at] + adobe[at + 2 + struct.unpack_from(">H", adobe, at + 2)[0] :])
    expected = (255.0 - ink[..., :3]) * (255.0 - ink[..., 3:]) / 255
    for name in "abc":
        assert np.abs(interleaved(tmp_path / f"{name}.jpg") - expected).max() < 8
        assert "CMYK" in read(tmp_path / f"{name}.jpg").notes[0]


def test_jpeg_of_12_bits(tmp_path: Path) -> None:
    samples = picture(3, "uint16") >> 4
    (tmp_path / "a.jpg").write_bytes(imagecodecs.jpeg8_encode(samples, level=98, bitspersample=12, subsampling="444"))
    np.testing.assert_allclose(interleaved(tmp_path / "a.jpg"), samples * (65535 / 4095), atol=100)


def bmp(
    bits: int, compression: int, rows: bytes, width: int, height: int, *, header: int = 40, masks: bytes = b""
) -> bytes:
    """A bitmap with a palette of grays where it needs one."""
    colors = 1 << bits if bits <= 8 else 0
    palette = b"".join(bytes([round(255 * k / (colors - 1))] * (3 if header == 12 else 4)) for k in range(colors))
    if header == 12:
        info = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        info = struct.pack("<IiiHHIIiiII", header, width, height, 1, bits, compression, len(rows), 0, 0, colors, 0)
        info += masks.ljust(header - 40, b"\0") if header > 40 else masks
    start = 14 + len(info) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + info + palette + rows


def test_bitmaps_of_few_bits(tmp_path: Path) -> None:
    for bits in (1, 4, 8):
        indices = np.random.default_rng(bits).integers(0, 1 << bits, (6, 32))
        flags = (indices[..., None] >> np.arange(bits)[::-1] & 1).reshape(6, -1).astype(np.uint8)
        rows = np.packbits(flags, axis=1)[::-1].tobytes()
        for header in (12, 40):
            (tmp_path / "a.bmp").write_bytes(bmp(bits, 0, rows, 32, 6, header=header))
            np.testing.assert_array_equal(interleaved(tmp_path / "a.bmp")[..., 0], indices * 255 // ((1 << bits) - 1))


def test_bitmaps_of_run_lengths(tmp_path: Path) -> None:
    """Runs (count, value), literal bytes (0, count, values), end of line (0, 0) and of the picture (0, 1)."""
    rows = [bytes((5, 20, 0, 3, 1, 2, 3, 0, 0, 0)), bytes((8, 200, 0, 1))]
    (tmp_path / "a.bmp").write_bytes(bmp(8, 1, b"".join(rows), 8, 2))
    np.testing.assert_array_equal(interleaved(tmp_path / "a.bmp")[..., 0], [[200] * 8, [20] * 5 + [1, 2, 3]])
    (tmp_path / "cut.bmp").write_bytes((tmp_path / "a.bmp").read_bytes()[:-4])
    with pytest.raises(InputError, match=r"cut\.bmp: is damaged or cut off"):
        read(tmp_path / "cut.bmp")


def test_bitmaps_of_16_and_32_bits_and_upside_down(tmp_path: Path) -> None:
    value = np.arange(8, dtype=np.uint16)
    five = (value << 10 | (value + 8) << 5 | 31 - value)[None].repeat(2, 0)
    (tmp_path / "a.bmp").write_bytes(bmp(16, 0, five.astype("<u2").tobytes(), 8, 2))
    found = interleaved(tmp_path / "a.bmp")
    expected = np.stack((value, value + 8, 31 - value), -1) * 255 / 31
    assert np.abs(found[0] - expected).max() <= 5
    four = np.dstack([picture(size=(8, 8))[..., ::-1], np.full((8, 8), 7, np.uint8)])
    (tmp_path / "b.bmp").write_bytes(bmp(32, 0, four.tobytes(), 8, -8))
    np.testing.assert_array_equal(interleaved(tmp_path / "b.bmp")[..., :3], picture(size=(8, 8)))


def test_a_profile_in_a_bitmap(tmp_path: Path) -> None:
    profile = profile_of(ImageState(primaries="p3"))
    rows = picture(size=(8, 8))[::-1, :, ::-1].tobytes()
    tail = bytes(16) + b"DEBM" + bytes(36 + 12 + 4) + struct.pack("<III", 124 + len(rows), len(profile), 0)
    (tmp_path / "a.bmp").write_bytes(bmp(24, 0, rows, 8, 8, header=124, masks=tail) + profile)
    frame = read(tmp_path / "a.bmp")
    assert frame.metadata.color == ("p3", "srgb")
    np.testing.assert_array_equal(frame.pixels.permute(1, 2, 0).numpy(), picture(size=(8, 8)))
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "a.bmp"))[..., ::-1], picture(size=(8, 8)))


def test_webp_and_png_as_opencv_writes_them(tmp_path: Path) -> None:
    for kind in ("webp", "png"):
        options = [cv2.IMWRITE_WEBP_QUALITY, 101] if kind == "webp" else []
        cv2.imwrite(str(tmp_path / f"a.{kind}"), picture()[..., ::-1], options)
        np.testing.assert_array_equal(interleaved(tmp_path / f"a.{kind}"), picture())


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize(
    "kind", ["avif", "gif", "bmp", "heic", "cmyk.jpg", "animated.webp", "animated.gif", "animated.avif"]
)
def test_cut_off_pictures_are_refused(tmp_path: Path, kind: str, share: float) -> None:
    noise = Image.effect_noise((120, 90), 60).convert("CMYK" if "cmyk" in kind else "RGB")
    data = io.BytesIO()
    if kind == "heic":
        pytest.importorskip("pillow_heif").from_pillow(noise).save(data)
    else:
        options = {"save_all": True, "append_images": [noise.rotate(90)]} if "animated" in kind else {}
        noise.save(data, {"jpg": "jpeg"}.get(suffix := kind.rpartition(".")[2], suffix), **options)
    cut = tmp_path / f"cut.{kind}"
    cut.write_bytes(data.getvalue()[: int(len(data.getvalue()) * share)])
    with pytest.raises(InputError, match=r"cut\.") as caught:
        read(cut)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["avif", "gif", "png", "webp", "bmp", "jpg", "heic", "tif"])
def test_damaged_pictures_are_refused_or_read_but_never_crash(tmp_path: Path, kind: str) -> None:
    data = io.BytesIO()
    if kind == "heic":
        pytest.importorskip("pillow_heif").from_bytes(mode="RGB", size=(47, 33), data=picture().tobytes()).save(data)
    else:
        Image.fromarray(picture()).save(data, {"jpg": "jpeg", "tif": "tiff"}.get(kind, kind))
    rng = np.random.default_rng(3)
    said: list[str] = []
    path = tmp_path / f"a.{kind}"
    for attempt in range(30):
        broken = bytearray(data.getvalue())
        for at in rng.integers(8, min(len(broken), 300) if attempt % 2 else len(broken), 3):
            broken[at] = rng.integers(0, 256)
        path.write_bytes(broken)
        try:
            read(path)
        except InputError as error:
            said.append(str(error))
    assert all(str(path) in text and "\n" not in text for text in said)


def test_names_that_are_listed_can_be_read(tmp_path: Path) -> None:
    assert {".heic", ".heif", ".hif", ".avif", ".jxl", ".hdr", ".pic", ".gif"} <= READABLE
    Image.fromarray(picture()).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.heic")
    assert torch.equal(read(tmp_path / "a.heic").pixels, torch.from_numpy(picture()).permute(2, 0, 1)), "by content"
    (tmp_path / "b.jxl").write_text("no picture")
    with pytest.raises(InputError, match=r"b\.jxl: is no JXL file but text; readable are .*JPEG XL"):
        read(tmp_path / "b.jxl")
