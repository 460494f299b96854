"""Ultra HDR JPEG: read back by libultrahdr and by us, by exiftool, and as what a plain decoder shows."""

from __future__ import annotations

import shutil
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from restorekit.color.primaries import conversion, transformed
from restorekit.color.transfer import decode, encode
from restorekit.errors import InputError, OutputError
from restorekit.facts import Metadata
from restorekit.frame import Frame
from restorekit.io import OutputSpec, read, write, write_ultrahdr
from restorekit.io.embedded import jpeg_end
from restorekit.io.metadata import exif_bytes, photo_tree
from restorekit.io.ultrahdr import map_quality
from restorekit.stages.tone import Filmic
from restorekit.state import ImageState, Primaries

Light = NDArray[np.float32]
SRGB, P3 = ImageState(), ImageState(primaries="p3")
LINEAR = ImageState(transfer="linear")


def scene(primaries: Primaries = "bt709", height: int = 96, width: int = 160) -> Frame:
    """Smooth light over ten stops with a lamp of a colour in it."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / width
    light = np.stack([np.exp2(9 * x - 5 + np.sin(6 * y + c)) for c in range(3)])
    lamp = np.exp(-((x - 0.6) ** 2 + (y - 0.3) ** 2) * 300)
    light += lamp * np.array([30.0, 14.0, 4.0])[:, None, None]
    return Frame(torch.from_numpy(light.astype(np.float32)), ImageState("rgb", "scene", "linear", primaries))


def toned(frame: Frame) -> Frame:
    """The standard picture of a scene."""
    light = Filmic()(frame)
    return replace(light, pixels=encode(light.pixels, "srgb"), state=replace(light.state, transfer="srgb"))


def renditions(path: Path) -> tuple[Light, Light]:
    """Linear light of the base, and of the HDR rendition by libultrahdr."""
    data = path.read_bytes()
    base = decode(torch.from_numpy(imagecodecs.jpeg8_decode(data)) / 255, "srgb").numpy()
    return base, imagecodecs.ultrahdr_decode(data)[..., :3].astype(np.float32)


def errors(found: Light, wanted: Light) -> tuple[float, float]:
    """Median and 99th percentile of relative errors, of what is at least 1 cd/m2."""
    lit = wanted >= 1 / 203
    relative = np.abs(found - wanted)[lit] / wanted[lit]
    return float(np.median(relative)), float(np.percentile(relative, 99))


@pytest.mark.parametrize("primaries", ["bt709", "p3"])
def test_display_light_comes_back(tmp_path: Path, primaries: Primaries) -> None:
    light = scene(primaries)
    shown = replace(light, state=replace(light.state, reference="display"))
    write_ultrahdr(toned(light), shown, tmp_path / "a.jpg")
    _, found = renditions(tmp_path / "a.jpg")
    median, most = errors(found, light.pixels.permute(1, 2, 0).numpy().clip(0, 10000 / 203))
    assert median <= 0.015
    assert most <= 0.06


def test_light_of_a_scene_equals_the_base_in_the_mid_tones_and_the_scene_in_the_lights(tmp_path: Path) -> None:
    light = scene()
    write_ultrahdr(toned(light), light, tmp_path / "a.jpg")
    base, found = renditions(tmp_path / "a.jpg")
    luma = base @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    truth = light.pixels.permute(1, 2, 0).numpy()
    dark, bright = luma < 0.17, (luma > 0.75) & (truth.max(2) < 4)
    assert dark.any() and bright.any()
    median, most = errors(found[dark], base[dark])
    assert median <= 0.015
    assert most <= 0.06
    ratio = found[bright] / truth[bright]
    assert np.median(ratio) == pytest.approx(1.0, abs=0.1), "filmic keeps middle gray, so that the exposure is about 1"
    assert np.percentile(np.abs(ratio / np.median(ratio) - 1), 95) < 0.03
    assert found.max() <= 8 * 1.05


@pytest.mark.parametrize("headroom", [1.0, 4.0])
def test_headroom_is_kept(tmp_path: Path, headroom: float) -> None:
    light = scene()
    write_ultrahdr(toned(light), light, tmp_path / "a.jpg", OutputSpec(format="ultrahdr", headroom=headroom))
    assert renditions(tmp_path / "a.jpg")[1].max() == pytest.approx(2**headroom, rel=0.05)


@pytest.mark.parametrize("transfer", ["pq", "hlg"])
def test_pq_and_hlg_in_other_primaries_are_light_too(tmp_path: Path, transfer: str) -> None:
    light = scene()
    limited = light.pixels.clamp(max=3.5)
    wide = transformed(limited, conversion("bt709", "bt2020"))
    coded = Frame(encode(wide, transfer), ImageState("rgb", "display", transfer, "bt2020"))  # type: ignore[arg-type]
    write_ultrahdr(toned(light), coded, tmp_path / "a.jpg")
    median, most = errors(renditions(tmp_path / "a.jpg")[1], limited.permute(1, 2, 0).numpy())
    assert median <= 0.015
    assert most <= 0.06


def test_a_ramp_shows_no_bands(tmp_path: Path) -> None:
    """In the lights, where the base is white or nearly so, each step is as fine as codes of the map allow."""
    ramp = torch.linspace(-2, 4, 2048).exp2_().expand(3, 64, -1)
    light = Frame(ramp, ImageState("rgb", "scene", "linear", "bt709"))
    shown = replace(light, state=replace(light.state, reference="display"))
    write_ultrahdr(toned(light), shown, tmp_path / "a.jpg")
    row = renditions(tmp_path / "a.jpg")[1][32].mean(1)
    steps = np.diff(np.log2(row))
    assert np.abs(steps).max() < 0.04
    means = np.convolve(row, np.ones(8) / 8, "valid")[::8]
    assert (np.diff(means) > 0).all()


def test_other_programs_show_the_standard_picture(tmp_path: Path) -> None:
    light = scene("p3")
    base = toned(light)
    write_ultrahdr(base, light, tmp_path / "a.jpg")
    write(base, tmp_path / "b.jpg")
    with Image.open(tmp_path / "a.jpg") as found, Image.open(tmp_path / "b.jpg") as plain:
        assert np.array_equal(np.asarray(found), np.asarray(plain))
        assert found.info["icc_profile"] == plain.info["icc_profile"]
    assert torch.equal(read(tmp_path / "a.jpg").pixels, read(tmp_path / "b.jpg").pixels)


def test_both_renditions_come_back_upright_with_metadata(tmp_path: Path) -> None:
    light = scene("p3")
    carried = Metadata(exif=exif_bytes(photo_tree(make="Maker", model="Model", artist="Somebody")), orientation=6)
    write_ultrahdr(replace(toned(light), metadata=carried), replace(light, metadata=carried), tmp_path / "a.jpg")
    standard, applied = read(tmp_path / "a.jpg"), read(tmp_path / "a.jpg", gain_map="apply")
    assert standard.state == P3
    assert "gain map" in standard.notes[0]
    assert applied.state == replace(P3, transfer="linear")
    assert applied.notes == ()
    assert applied.pixels.shape == standard.pixels.shape == (3, light.width, light.height)
    assert (applied.metadata.exif, applied.metadata.orientation) == (standard.metadata.exif, 1)
    assert b"Somebody" in standard.metadata.exif
    assert applied.pixels.max() > 4


def test_the_packet_of_the_picture_is_kept_beside_that_of_the_file(tmp_path: Path) -> None:
    head = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    body = b'<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" dc:source="%s"/>'
    for count in (5, 100_000):
        packet = head + body % (b"x" * count) + b"</rdf:RDF></x:xmpmeta>"
        base = replace(toned(scene()), metadata=Metadata(xmp=packet))
        data = write_ultrahdr(base, scene(), tmp_path / "a.jpg").read_bytes()
        assert b"x" * count in read(tmp_path / "a.jpg").metadata.xmp
        assert b"hdr-gain-map" not in read(tmp_path / "a.jpg").metadata.xmp
        first = data[: data.index(b"http://ns.adobe.com/xap/1.0/\0") + 3000]
        assert b'hdrgm:Version="1.0"' in first and b"Container:Directory" in first
        assert read(tmp_path / "a.jpg", gain_map="apply").pixels.max() > 2


def test_the_container_tells_where_the_map_lies(tmp_path: Path) -> None:
    data = write_ultrahdr(toned(scene()), scene(), tmp_path / "a.jpg").read_bytes()
    start = data.index(b"\xff\xe2\0\x58MPF\0") + 8
    assert data[start : start + 8] == b"MM\0*\0\0\0\x08"
    first, second = struct.iter_unpack(">3I2H", data[start + 50 : start + 82])
    at = start + second[2]
    assert first == (0x030000, at, 0, 0, 0)
    assert second[:2] == (0, len(data) - at)
    assert jpeg_end(data) == at
    gain_map = data[at:]
    assert jpeg_end(gain_map) == len(gain_map)
    assert gain_map.count(b"urn:iso:std:iso:ts:21496:-1\0") == data[:at].count(b"urn:iso:std:iso:ts:21496:-1\0") == 1
    assert f'Item:Length="{len(gain_map)}"'.encode() in data[:at]
    assert imagecodecs.jpeg8_decode(gain_map).shape == (96, 160, 3)


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="needs exiftool")
def test_exiftool_finds_the_map(tmp_path: Path) -> None:
    path = write_ultrahdr(toned(scene()), scene(), tmp_path / "a.jpg")
    data = path.read_bytes()
    image = subprocess.run(["exiftool", "-b", "-MPImage2", str(path)], capture_output=True, check=True).stdout
    assert image == data[jpeg_end(data) :]
    said = subprocess.run(["exiftool", "-s3", "-XMP-hdrgm:Version", str(path)], capture_output=True, check=True).stdout
    assert said.strip() == b"1.0"


def test_the_same_renditions_give_the_same_bytes(tmp_path: Path) -> None:
    made = [write_ultrahdr(toned(scene()), scene(), tmp_path / f"{n}.jpg").read_bytes() for n in range(2)]
    assert made[0] == made[1]


@pytest.mark.parametrize("reference", ["scene", "display"])
@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 9), (7, 8)])
@pytest.mark.parametrize("value", [0.0, 1.0, 1e6, -1.0, float("nan"), float("inf")])
def test_odd_pictures_are_written_and_read(tmp_path: Path, reference: str, size: tuple[int, int], value: float) -> None:
    light = Frame(torch.full((3, *size), value), ImageState("rgb", reference, "linear", "bt709"))  # type: ignore[arg-type]
    base = Frame(torch.full((3, *size), min(max(value, 0.0), 1.0)), SRGB)
    path = write_ultrahdr(base, light, tmp_path / "a.jpg")
    found = imagecodecs.ultrahdr_decode(path.read_bytes())
    assert found.shape[:2] == size
    assert np.isfinite(found).all()


def test_a_gray_light_goes_with_an_rgb_picture(tmp_path: Path) -> None:
    light = scene()
    gray = Frame(light.pixels[1:2], ImageState("gray", "scene", "linear", "bt709"))
    write_ultrahdr(toned(light), gray, tmp_path / "a.jpg")
    assert renditions(tmp_path / "a.jpg")[1].max() > 4


@pytest.mark.parametrize(
    ("sdr", "hdr", "said"),
    [
        (Frame(torch.zeros(3, 8, 8), LINEAR), scene(height=8, width=8), "color.encode"),
        (Frame(torch.zeros(1, 8, 8), replace(SRGB, layout="gray")), scene(height=8, width=8), "color.to_rgb"),
        (Frame(torch.zeros(3, 8, 8), SRGB), Frame(torch.zeros(3, 8, 8), SRGB), "linear light"),
        (Frame(torch.zeros(3, 8, 8), SRGB), scene(height=8, width=9), "8x8, the HDR one 9x8"),
        (
            Frame(torch.zeros(3, 8, 8), SRGB),
            Frame(torch.zeros(3, 8, 8), ImageState("rgb", "scene", "linear", "camera")),
            "linear light",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, sdr: Frame, hdr: Frame, said: str) -> None:
    with pytest.raises(OutputError, match=said):
        write_ultrahdr(sdr, hdr, tmp_path / "a.jpg")
    assert list(tmp_path.iterdir()) == []


def test_one_frame_or_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="write_ultrahdr"):
        write(Frame(torch.zeros(3, 8, 8), SRGB), tmp_path / "a.jpg", OutputSpec(format="ultrahdr"))
    with pytest.raises(OutputError, match="format: ultrahdr"):
        write_ultrahdr(toned(scene()), scene(), tmp_path / "a.jpg", OutputSpec(format="jpeg"))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1)])
def test_pictures_of_one_pixel_a_side(tmp_path: Path, size: tuple[int, int]) -> None:
    codes = Frame(torch.full((3, *size), 128, dtype=torch.uint8), SRGB)
    for base in (codes, codes.as_float()):
        write_ultrahdr(base, Frame(torch.full((3, *size), 3.0), LINEAR), tmp_path / "a.jpg")
        assert torch.allclose(read(tmp_path / "a.jpg", gain_map="apply").pixels.float(), torch.tensor(3.0), rtol=0.05)


def test_inputs_stay_as_they_were(tmp_path: Path) -> None:
    light = scene()
    base = toned(light)
    before = light.pixels.clone(), base.pixels.clone()
    write_ultrahdr(base, light, tmp_path / "a.jpg")
    assert torch.equal(light.pixels, before[0])
    assert torch.equal(base.pixels, before[1])


def test_damaged_files_give_a_picture_or_an_error(tmp_path: Path) -> None:
    data = write_ultrahdr(toned(scene()), scene(), tmp_path / "a.jpg").read_bytes()
    random = np.random.default_rng(5)
    outcomes = set()
    for turn in range(60):
        broken = bytearray(data[: random.integers(1, len(data))] if turn % 3 == 0 else data)
        for at in random.integers(0, len(broken), turn % 3 * 4):
            broken[at] = random.integers(0, 256)
        (tmp_path / "b.jpg").write_bytes(broken)
        try:
            outcomes.add(str(read(tmp_path / "b.jpg", gain_map="apply").pixels.dtype))
        except InputError:
            outcomes.add("refused")
    assert "refused" in outcomes
    assert len(outcomes) > 1


def test_where_display_light_equals_the_standard_picture_the_map_is_even(tmp_path: Path) -> None:
    """What JPEG coding did to the picture does not go into the map, which would be several times as large."""
    random = np.random.default_rng(8)
    codes = torch.from_numpy(random.integers(30, 200, (3, 64, 64), dtype=np.uint8))
    light = decode(codes / 255, "srgb")
    light[:, :, 40:] *= 3
    shown = Frame(light, LINEAR)
    data = write_ultrahdr(Frame(codes, SRGB), shown, tmp_path / "a.jpg").read_bytes()
    gain_map = imagecodecs.jpeg8_decode(data[jpeg_end(data) :])
    left, right = gain_map[:, :32].astype(int), gain_map[:, 48:].astype(int)
    assert np.ptp(left) <= 1
    assert right.min() > left.max()
    base, found = renditions(tmp_path / "a.jpg")
    np.testing.assert_allclose(found[:, :32], base[:, :32], rtol=0.05)  # libultrahdr does not round its RGB
    assert errors(found[:, :32], base[:, :32])[0] < 0.01
    assert errors(found[:, 48:], light.permute(1, 2, 0).numpy()[:, 48:])[0] < 0.015


def test_the_quality_of_the_map_is_above_that_of_the_picture() -> None:
    assert [map_quality(quality) for quality in (1, 75, 90, 95, 100)] == [80, 95, 98, 99, 100]
