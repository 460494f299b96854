"""JPEG XL: headers put together bit by bit, profiles packed by libjxl, and pixels."""

from __future__ import annotations

import base64
import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from restorekit.color.adaptation import D50, D65, adaptation
from restorekit.color.difference import ciede2000, rgb_to_lab
from restorekit.color.primaries import CHROMATICITIES, conversion, rgb_to_xyz, transformed
from restorekit.color.transfer import decode
from restorekit.errors import InputError
from restorekit.frame import Frame
from restorekit.io import read
from restorekit.io.icc import profile_of
from restorekit.io.jxl import header as jxl
from restorekit.io.jxl import icc as jxl_icc
from restorekit.state import ImageState

SIZE = (24, 40)


def picture() -> NDArray[np.uint8]:
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1]] / 40
    planes = [0.5 + 0.4 * np.sin(3 * x + channel) * np.cos(4 * y - channel) for channel in range(3)]
    return (np.stack(planes, -1) * 255).astype(np.uint8)


class Writer:
    """Bits, the lowest of each byte first."""

    def __init__(self) -> None:
        self.value = self.length = 0

    def put(self, *fields: tuple[int, int]) -> Writer:
        """Fields of so many bits."""
        for count, value in fields:
            self.value |= value << self.length
            self.length += count
        return self

    def enumerated(self, value: int) -> Writer:
        if value < 2:
            return self.put((2, value))
        return self.put((2, 2), (4, value - 2)) if value < 18 else self.put((2, 3), (6, value - 18))

    def to_bytes(self) -> bytes:
        return self.value.to_bytes(-(-self.length // 8), "little")


def header(color: Writer, *, xyb: bool, orientation: int = 1, bits: int = 8) -> bytes:
    """A signature and header for a picture of ``SIZE``."""
    written = Writer().put((16, 0x0AFF), (1, 1), (5, SIZE[0] // 8 - 1), (3, 0), (5, SIZE[1] // 8 - 1))
    written.put((1, 0), (1, int(orientation > 1)))
    if orientation > 1:
        written.put((3, orientation - 1), (1, 0), (1, 0), (1, 0))
    written.put((1, 0), (2, {8: 0, 10: 1, 12: 2}[bits]), (1, 1), (2, 0), (1, int(xyb)))
    written.put((color.length, color.value))
    if orientation > 1:
        written.put((1, 1))
    return written.put((2, 0), (1, 1)).to_bytes()


def encoded_color(white: int = 1, primaries: int = 1, transfer: int = 13, exponent: float = 0.0) -> Writer:
    """An enumerated RGB colour encoding, relative intent."""
    written = Writer().put((1, 0), (1, 0), (2, 0)).enumerated(white).enumerated(primaries)
    if exponent:
        written.put((1, 1), (24, round(exponent * 1e7)))
    else:
        written.put((1, 0)).enumerated(transfer)
    return written.enumerated(1)


def custom_xy(x: float, y: float) -> Writer:
    """A chromaticity in millionths; those here need the first or the second of four lengths."""
    written = Writer()
    for value in (x, y):
        packed = 2 * round(value * 1e6) if value >= 0 else -2 * round(value * 1e6) - 1
        group = min(packed // 524288, 2)
        written.put((2, group), (19 if group < 2 else 20, packed - 524288 * group))
    return written


def frames_of(samples: NDArray[Any], **options: Any) -> bytes:
    """What follows the header in a codestream, from the next whole byte on."""
    stream = jxl.codestream(bytes(imagecodecs.jpegxl_encode(samples, **options)))
    return stream[-(-jxl.header(stream).end // 8) :]


def lossless(color: Writer, **options: Any) -> bytes:
    return header(color, xyb=False, **options) + frames_of(picture(), lossless=True)


def light_of(frame: Frame) -> torch.Tensor:
    pixels = decode(frame.as_float().pixels, frame.state.transfer)
    return transformed(pixels, conversion(frame.state.primaries, "bt709"))


def difference(first: torch.Tensor, second: torch.Tensor) -> float:
    return float(ciede2000(rgb_to_lab(first, "bt709"), rgb_to_lab(second, "bt709")).mean())


@pytest.mark.parametrize(
    ("color", "named"),
    [
        (encoded_color(), ("bt709", "srgb")),
        (encoded_color(primaries=11), ("p3", "srgb")),
        (encoded_color(primaries=9, transfer=16), ("bt2020", "pq")),
        (encoded_color(primaries=9, transfer=18), ("bt2020", "hlg")),
        (encoded_color(transfer=8), ("bt709", "linear")),
        (encoded_color(primaries=9, exponent=1 / 2.2), ("bt2020", "gamma")),
        (Writer().put((1, 1)), ("bt709", "srgb")),
    ],
)
def test_enumerated_encodings_have_names(tmp_path: Path, color: Writer, named: tuple[str, str]) -> None:
    (tmp_path / "a.jxl").write_bytes(lossless(color))
    frame = read(tmp_path / "a.jxl")
    assert frame.metadata.color == named == (frame.state.primaries, frame.state.transfer)
    np.testing.assert_array_equal(frame.pixels.permute(1, 2, 0).numpy(), picture())


def test_encodings_without_a_name_are_converted(tmp_path: Path) -> None:
    """ProPhoto RGB as libjxl writes it: chromaticities of its own under D50, and a curve of 1.8."""
    space = CHROMATICITIES["prophoto"]
    color = Writer().put((1, 0), (1, 0), (2, 0)).enumerated(2)
    for xy in (space.white, space.red, space.green, space.blue):
        if xy == space.red:
            color.enumerated(2)
        written = custom_xy(*xy)
        color.put((written.length, written.value))
    color.put((1, 1), (24, round(1e7 / 1.8))).enumerated(1)
    (tmp_path / "a.jxl").write_bytes(lossless(color))
    frame = read(tmp_path / "a.jxl")
    assert frame.state == ImageState("rgb", "display", "linear", "bt2020") and frame.metadata.color is None
    light = torch.from_numpy((picture() / 255.0) ** 1.8).permute(2, 0, 1).float()
    assert difference(light_of(frame), transformed(light, conversion("prophoto", "bt709"))) < 0.05


def test_p3_by_its_colorants_under_d50_is_p3(tmp_path: Path) -> None:
    """Encoders that were given an ICC profile write what its colorants say."""
    matrix = adaptation(D65, D50) @ rgb_to_xyz("p3")
    color = Writer().put((1, 0), (1, 0), (2, 0)).enumerated(2)
    for index, xyz in enumerate((matrix.sum(1), *matrix.T)):
        if index == 1:
            color.enumerated(2)
        written = custom_xy(*(xyz[:2] / xyz.sum()).tolist())
        color.put((written.length, written.value))
    color.put((1, 0)).enumerated(13).enumerated(1)
    (tmp_path / "a.jxl").write_bytes(lossless(color))
    assert read(tmp_path / "a.jxl").metadata.color == ("p3", "srgb")


@pytest.mark.parametrize("orientation", range(2, 9))
def test_the_orientation_of_the_codestream_is_applied_once(tmp_path: Path, orientation: int) -> None:
    """EXIF may say the same, or something else: it does not count."""
    exif = Image.Exif()
    exif[274] = 3
    stream = lossless(encoded_color(), orientation=orientation)
    assert jxl.header(stream).orientation == orientation
    (tmp_path / "a.jxl").write_bytes(container(stream, (b"Exif", bytes(4) + exif.tobytes()[6:])))
    turned = {
        2: picture()[:, ::-1],
        3: picture()[::-1, ::-1],
        4: picture()[::-1],
        5: picture().transpose(1, 0, 2),
        6: np.rot90(picture(), -1),
        7: picture()[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(picture()),
    }[orientation]
    np.testing.assert_array_equal(read(tmp_path / "a.jxl").pixels.permute(1, 2, 0).numpy(), turned)


def container(stream: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    """A file of boxes, its codestream in two parts."""
    parts = ((b"jxlp", struct.pack(">I", 0) + stream[:7]), (b"jxlp", struct.pack(">I", 1 << 31 | 1) + stream[7:]))
    boxes = ((b"JXL ", b"\r\n\x87\n"), (b"ftyp", b"jxl \0\0\0\0jxl "), *extra, *parts)
    return b"".join(struct.pack(">I4s", 8 + len(content), kind) + content for kind, content in boxes)


def test_boxes_hold_exif_and_xmp(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[271] = "Maker"
    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    packet += b'<rdf:Description xmlns:e="http://example.org/"><e:a>b</e:a></rdf:Description></rdf:RDF></x:xmpmeta>'
    block = bytes(4) + exif.tobytes()[6:]
    plain = container(lossless(encoded_color()), (b"Exif", block), (b"xml ", packet))
    packed = container(
        lossless(encoded_color()),
        (b"brob", b"Exif" + bytes(imagecodecs.brotli_encode(block))),
        (b"brob", b"xml " + bytes(imagecodecs.brotli_encode(packet))),
    )
    for data in (plain, packed):
        (tmp_path / "a.jxl").write_bytes(data)
        found = read(tmp_path / "a.jxl").metadata
        assert b"Maker" in found.exif
        assert found.xmp == packet
    (tmp_path / "a.jxl").write_bytes(
        container(lossless(encoded_color()), (b"brob", b"Exif\0nonsense"), (b"jhgm", b"x"))
    )
    frame = read(tmp_path / "a.jxl")
    assert frame.metadata.exif == b""
    assert "gain map" in frame.notes[0]


P3_LOSSLESS = base64.b64decode(
    "/wrLQAiXCgMS5gHQ1JFbenHmdUTA68vdZ48KLXwFliBztVdY3h7AzBY0s0kc3QytQd4Q4BPXhbJY/EUsrfjG4lDXiSGGJUydhWUNzQOEMnnm/JL1"
    "SA1kWMc3wNFX2FzZ1FNUOizA2tkyQFPZ0lLWHGqv9dlpp2nQQcOQ3l///fffHag0CI2lwlFzEBQNE2dQZI3swKapCZX3BKdmMFPoneEGCAABAHgB"
    "SyijumXU40FLzB4UFBYKB79RUHBEYwEKkYiCAgPxdysaGy7YodNGAICAEMAAQXgDiBzmAuiZUbYVpNghaMVzZqnvuyAdIk3/U8wCkSTDrbcD9LuF"
    "W2/+g36YHG1OBw=="
)
"""A lossless picture of 64x48 px, written by libjxl 0.12 with a profile of Display P3 that this project made."""


def test_a_profile_in_the_codestream_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jxl").write_bytes(P3_LOSSLESS)
    frame = read(tmp_path / "a.jxl")
    assert frame.metadata.icc == profile_of(ImageState(primaries="p3"))
    assert frame.metadata.color == ("p3", "srgb")
    assert frame.pixels.shape == (3, 48, 64)
    y, x = np.mgrid[0:48, 0:64]
    np.testing.assert_array_equal(frame.pixels.permute(1, 2, 0).numpy(), np.stack([x * 4, y * 5, (x + y) * 2], -1))


def test_a_profile_that_is_damaged_is_refused(tmp_path: Path) -> None:
    data = bytearray(P3_LOSSLESS)
    data[60:64] = b"\xff\0\xff\0"
    (tmp_path / "a.jxl").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.jxl.*damaged"):
        read(tmp_path / "a.jxl")


def test_ink_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its black lies in a channel of its own, which is not decoded."""
    profile = bytearray(profile_of(ImageState()))
    profile[16:20] = b"CMYK"
    monkeypatch.setattr(jxl_icc, "profile", lambda stream, at: (bytes(profile), at))
    (tmp_path / "a.jxl").write_bytes(P3_LOSSLESS)
    with pytest.raises(InputError, match=r"a\.jxl: has 3 channels for cmyk colours; convert it"):
        read(tmp_path / "a.jxl")


@pytest.mark.parametrize("bits", [8, 12])
def test_xyb_with_a_profile_is_decoded_to_rec_2020(tmp_path: Path, bits: int) -> None:
    """What stands in the profile does not matter: XYB tells the colours themselves."""
    found = jxl.header(P3_LOSSLESS)
    _, profile_end = jxl_icc.profile(P3_LOSSLESS, found.end)
    profile = int.from_bytes(P3_LOSSLESS, "little") >> found.end & (1 << profile_end - found.end) - 1
    head = Writer().put((16, 0x0AFF), (1, 1), (5, SIZE[0] // 8 - 1), (3, 0), (5, SIZE[1] // 8 - 1), (1, 0), (1, 0))
    head.put((1, 0), (2, 0 if bits == 8 else 2), (1, 1), (2, 0), (1, 1), (1, 0), (1, 1), (2, 0), (2, 0), (1, 1))
    head.put((profile_end - found.end, profile))
    (tmp_path / "a.jxl").write_bytes(head.to_bytes() + frames_of(picture(), distance=0.1))
    frame = read(tmp_path / "a.jxl")
    assert frame.pixels.dtype == torch.uint16
    assert frame.metadata.color == ("bt2020", "srgb")
    expected = decode(torch.from_numpy(picture() / np.float32(255)).permute(2, 0, 1), "srgb")
    assert difference(light_of(frame), expected) < 0.4


@pytest.mark.parametrize("bits", [10, 12])
def test_bits_between_8_and_16_fill_the_range(tmp_path: Path, bits: int) -> None:
    samples = picture().astype(np.uint16) << bits - 8
    samples[0, 0] = (1 << bits) - 1
    (tmp_path / "a.jxl").write_bytes(imagecodecs.jpegxl_encode(samples, lossless=True, bitspersample=bits))
    found = read(tmp_path / "a.jxl").pixels.permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found, samples * (65535 / ((1 << bits) - 1)), atol=1)
    assert (found[0, 0] == 65535).all()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_floats_stay_floats(tmp_path: Path, dtype: str) -> None:
    """imagecodecs tags what is not of 8 bits as linear."""
    values = (picture() / 100.0).astype(dtype)
    (tmp_path / "a.jxl").write_bytes(imagecodecs.jpegxl_encode(values, lossless=True))
    frame = read(tmp_path / "a.jxl")
    assert frame.state == ImageState("rgb", "display", "linear", "bt709")
    np.testing.assert_array_equal(frame.pixels.permute(1, 2, 0).numpy(), values)


def test_gray_and_alpha(tmp_path: Path) -> None:
    for samples in (picture()[..., 0], picture()[..., :2], np.dstack([picture(), picture()[..., 0]])):
        (tmp_path / "a.jxl").write_bytes(imagecodecs.jpegxl_encode(samples, lossless=True))
        frame = read(tmp_path / "a.jxl")
        channels = 1 if samples.ndim == 2 else samples.shape[2]
        assert frame.state.layout == ("gray" if channels < 3 else "rgb")
        flat = samples.reshape(*SIZE, -1)
        np.testing.assert_array_equal(frame.pixels.permute(1, 2, 0).numpy(), flat[..., : 3 if channels > 2 else 1])
        assert (frame.alpha is not None) == (channels in (2, 4))
        if frame.alpha is not None:
            np.testing.assert_array_equal(frame.alpha[0].numpy(), flat[..., -1])


def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a.jxl").write_bytes(imagecodecs.jpegxl_encode(np.stack([picture(), 255 - picture()]), lossless=True))
    frame = read(tmp_path / "a.jxl")
    np.testing.assert_array_equal(frame.pixels.permute(1, 2, 0).numpy(), picture())
    assert frame.notes == ("a.jxl: is animated, its first frame is taken",)


@pytest.mark.parametrize(("width", "height"), [(40, 24), (300, 9), (8, 4000), (1000, 1000), (16, 9), (40, 30)])
def test_sizes_are_those_that_libjxl_wrote(width: int, height: int) -> None:
    stream = jxl.codestream(bytes(imagecodecs.jpegxl_encode(np.zeros((height, width), np.uint8), effort=1)))
    found = jxl.header(stream)
    assert (found.width, found.height) == (width, height)


@pytest.mark.parametrize("share", [0.02, 0.2, 0.6, 0.9, 0.999])
def test_files_that_are_cut_off_are_refused(tmp_path: Path, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = [bytes(imagecodecs.jpegxl_encode(noise, distance=1)), container(lossless(encoded_color())), P3_LOSSLESS]
    for data in whole:
        (tmp_path / "cut.jxl").write_bytes(data[: max(2, int(len(data) * share))])
        with pytest.raises(InputError, match=r"cut\.jxl"):
            read(tmp_path / "cut.jxl")


def test_primaries_that_do_not_exist_are_damage(tmp_path: Path) -> None:
    (tmp_path / "a.jxl").write_bytes(lossless(encoded_color(primaries=5)))
    with pytest.raises(InputError, match=r"a\.jxl: is damaged"):
        read(tmp_path / "a.jxl")
