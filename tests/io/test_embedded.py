"""Metadata in segments and chunks: IPTC, extended XMP, what PNG says of colour, frames and gain maps."""

from __future__ import annotations

import hashlib
import io
import struct
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import torch
from PIL import Image

from restorekit.color.transfer import decode
from restorekit.io import embedded, read
from restorekit.io.xmp import Packet
from restorekit.state import ImageState


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)).save(file, "JPEG")
    return file.getvalue()


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def with_segments(*segments: bytes) -> bytes:
    data = jpeg()
    return data[:2] + b"".join(segments) + data[2:]


def resource(number: int, content: bytes, name: bytes = b"") -> bytes:
    named = bytes([len(name)]) + name
    padded = named + bytes(len(named) % 2)
    return (
        b"8BIM"
        + struct.pack(">H", number)
        + padded
        + struct.pack(">I", len(content))
        + content
        + bytes(len(content) % 2)
    )


IIM = b"\x1c\x02\x78\x00\x07caption"


def test_iptc_among_photoshop_resources(tmp_path: Path) -> None:
    resources = resource(0x03ED, b"abc", b"name") + resource(0x0404, IIM) + resource(0x0425, bytes(16))
    pieces = [segment(0xED, b"Photoshop 3.0\0" + part) for part in (resources[:20], resources[20:])]
    (tmp_path / "a.jpg").write_bytes(with_segments(*pieces))
    assert read(tmp_path / "a.jpg").metadata.iptc == IIM


@pytest.mark.parametrize(
    "resources", [b"", b"8BIM", b"8BIM\x04\x04\0\0", b"8BI", resource(0x0404, IIM)[:14], b"x" * 40]
)
def test_damaged_resources_hold_no_iptc_or_what_is_left_of_it(resources: bytes) -> None:
    assert IIM.startswith(embedded.iptc_of_resources(resources))


def packet(properties: str, extended: str = "") -> bytes:
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description xmlns:e="http://example.org/" xmlns:xmpNote="http://ns.adobe.com/xmp/note/" {extended}>'
        f"{properties}</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


def test_an_extended_packet_is_joined_in_the_order_of_its_parts(tmp_path: Path) -> None:
    extension = packet(f"<e:long>{'long ' * 30_000}</e:long>")
    identity = hashlib.md5(extension).hexdigest().upper().encode()
    main = packet("<e:short>short</e:short>", f'xmpNote:HasExtendedXMP="{identity.decode()}"')
    parts = [(at, extension[at : at + 60_000]) for at in range(0, len(extension), 60_000)]
    extra = [
        segment(0xE1, embedded.EXTENDED_XMP_MARK + identity + struct.pack(">II", len(extension), at) + part)
        for at, part in reversed(parts)
    ]
    stray = segment(0xE1, embedded.EXTENDED_XMP_MARK + b"0" * 32 + struct.pack(">II", 4, 0) + b"<a/>")
    (tmp_path / "a.jpg").write_bytes(with_segments(segment(0xE1, embedded.XMP_MARK + main), stray, *extra))
    found = Packet(read(tmp_path / "a.jpg").metadata.xmp).values
    assert found["http://example.org/", "short"] == "short"
    assert found["http://example.org/", "long"] == ("long " * 30_000).strip()
    assert not any(space == "http://ns.adobe.com/xmp/note/" for space, _ in found)


def test_the_standard_picture_of_a_file_with_a_gain_map(shared_data: Path) -> None:
    path = shared_data / "hdr" / "libvips_ultra-hdr_gainmap.jpg"
    frame = read(path)
    assert frame.state == ImageState()
    assert frame.notes == ("libvips_ultra-hdr_gainmap.jpg: carries a gain map; its standard picture is taken",)
    theirs = np.asarray(Image.open(path).convert("RGB"))
    assert np.abs(frame.pixels.permute(1, 2, 0).numpy()[::8, ::8].astype(int) - theirs[::8, ::8]).max() <= 4
    assert b"gain-map" not in frame.metadata.xmp


def gain_mapped(gamut: int) -> tuple[bytes, np.ndarray]:
    """An Ultra HDR file of three flat colours, one of them brighter than white."""
    light = np.ones((64, 96, 4), np.float16)
    light[:, :32, :3], light[:, 32:64, :3], light[:, 64:, :3] = (0.5, 0.4, 0.3), (3.0, 2.5, 2.0), (0.05, 0.06, 0.2)
    return bytes(imagecodecs.ultrahdr_encode(light, gamut=gamut, transfer=imagecodecs.ULTRAHDR.CT.LINEAR)), light


@pytest.mark.parametrize(("gamut", "primaries"), [(0, "bt709"), (1, "p3"), (2, "bt2020")])
def test_a_gain_map_is_applied_on_request(tmp_path: Path, gamut: int, primaries: str) -> None:
    data, light = gain_mapped(gamut)
    (tmp_path / "a.jpg").write_bytes(data)
    frame = read(tmp_path / "a.jpg", gain_map="apply")
    assert (frame.state.reference, frame.state.transfer, frame.state.primaries) == ("display", "linear", primaries)
    assert frame.metadata.color == (primaries, "linear")
    assert frame.notes == ()
    for column in (16, 48, 80):
        np.testing.assert_allclose(
            frame.pixels[:, 32, column].float().numpy(), light[32, column, :3], rtol=0.05, atol=0.01
        )


def test_without_a_gain_map_nothing_is_applied(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg())
    first, second = read(tmp_path / "a.jpg"), read(tmp_path / "a.jpg", gain_map="apply")
    assert torch.equal(first.pixels, second.pixels) and second.notes == ()


def test_a_gain_map_that_cannot_be_applied_is_told(tmp_path: Path) -> None:
    """Apple's gain maps lie elsewhere."""
    mark = packet("<e:a>HDRGainMap</e:a>")
    marked = with_segments(segment(0xE1, embedded.XMP_MARK + mark))
    (tmp_path / "a.jpg").write_bytes(marked)
    assert read(tmp_path / "a.jpg").notes == (), "the map itself is gone"
    (tmp_path / "a.jpg").write_bytes(marked + jpeg())
    frame = read(tmp_path / "a.jpg", gain_map="apply")
    assert "carries a gain map that cannot be applied" in frame.notes[0]
    assert torch.equal(frame.pixels, read(tmp_path / "a.jpg").pixels)


def test_the_standard_rendition_is_that_of_the_gain_map_at_no_boost(shared_data: Path) -> None:
    """libultrahdr without boost gives the light of the standard picture, so that 1.0 is its white."""
    path = shared_data / "hdr" / "libvips_ultra-hdr_gainmap.jpg"
    flat = imagecodecs.ultrahdr_decode(path.read_bytes(), boost=1.0)[::16, ::16, :3].astype(np.float32)
    light = decode(read(path).as_float().pixels[:, ::16, ::16], "srgb").permute(1, 2, 0).numpy()
    assert np.abs(flat - light).mean() < 0.003
