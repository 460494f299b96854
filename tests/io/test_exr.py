"""OpenEXR: exact round trips, attributes, real files, and luminance/chroma images."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR
import pytest
import torch

from restorekit.color.primaries import CHROMATICITIES
from restorekit.errors import InputError
from restorekit.facts import Exposure, Facts, Metadata
from restorekit.frame import Frame
from restorekit.io import OutputSpec, read, write
from restorekit.io.metadata import capture_time, exif_bytes, exif_fields, photo_tree
from restorekit.io.tiff import ASCII, RATIONAL, SHORT, Field
from restorekit.state import SHORTHANDS, ImageState
from restorekit.testing import rgb_frame

SCENE = ImageState("rgb", "scene", "linear", "bt2020")


def light(channels: int = 3) -> torch.Tensor:
    """Seven stops up and down, with negative values."""
    values = np.random.default_rng(4).normal(0, 3, (channels, 21, 34)).astype(np.float32)
    return torch.from_numpy(np.sign(values) * np.exp2(values))


@pytest.mark.parametrize("compression", ["zip", "zips", "piz", "rle", "none"])
def test_single_floats_come_back_exactly(tmp_path: Path, compression: str) -> None:
    frame = Frame(light(), SCENE)
    write(frame, tmp_path / "a.exr", OutputSpec(format="exr", bits=32, compression=compression))
    back = read(tmp_path / "a.exr")
    assert back.state == SCENE
    assert torch.equal(back.pixels, frame.pixels)


@pytest.mark.parametrize("compression", ["dwaa", "dwab"])
def test_dwa_is_small_and_its_level_follows_the_quality(tmp_path: Path, compression: str) -> None:
    y, x = np.mgrid[0:256, 0:256].astype(np.float32) / 256
    noise = np.random.default_rng(3).normal(0, 0.02, (3, 256, 256)).astype(np.float32)
    frame = Frame(torch.from_numpy(np.stack([x * 8, y, x + y]) + 0.5 + noise), SCENE)
    sizes, errors = [], []
    for quality in (100, 95, 60):
        spec = OutputSpec(format="exr", compression=compression, quality=quality)
        write(frame, tmp_path / "a.exr", spec)
        with OpenEXR.File(str(tmp_path / "a.exr")) as file:
            assert file.header()["dwaCompressionLevel"] == 9 * (100 - quality)
        sizes.append((tmp_path / "a.exr").stat().st_size)
        errors.append(float((read(tmp_path / "a.exr").pixels.float() - frame.pixels).abs().mean()))
    write(frame, tmp_path / "a.exr", OutputSpec(format="exr"))
    assert sizes[0] > sizes[1] > sizes[2]
    assert sizes[1] < (tmp_path / "a.exr").stat().st_size
    assert errors[0] < errors[1] < errors[2] < 0.05


def test_the_scale_of_scene_light_comes_back(tmp_path: Path) -> None:
    merged = replace(Frame(light(), SCENE), facts=Facts(scale=2.5))
    write(merged, tmp_path / "a.exr")
    with OpenEXR.File(str(tmp_path / "a.exr")) as file:
        assert file.header()["restorekitScale"] == 2.5
        assert "whiteLuminance" not in file.header(), "1.0 is no luminance"
    assert read(tmp_path / "a.exr").facts.scale == 2.5
    write(replace(merged, state=replace(SCENE, reference="display")), tmp_path / "a.exr")
    assert read(tmp_path / "a.exr").facts.scale == 1.0


@pytest.mark.parametrize("bits", [16, 32])
def test_nan_stays_and_infinity_where_floats_have_room(tmp_path: Path, bits: int) -> None:
    pixels = light()
    pixels[:, 0, 0], pixels[:, 0, 1] = float("nan"), float("inf")
    write(Frame(pixels, SCENE), tmp_path / "a.exr", OutputSpec(format="exr", bits=bits))
    back = read(tmp_path / "a.exr")
    assert back.pixels[:, 0, 0].isnan().all()
    assert back.pixels[0, 0, 1] == (65504 if bits == 16 else float("inf"))
    assert "NaN" in back.notes[0]


def test_half_floats_are_the_default_and_clamped_to_their_range(tmp_path: Path) -> None:
    pixels = light()
    pixels[0, 0, :3] = torch.tensor([1e6, -1e6, float("inf")])
    write(Frame(pixels, SCENE), tmp_path / "a.exr")
    back = read(tmp_path / "a.exr").pixels
    assert back.dtype == torch.float16
    assert back[0, 0, :3].tolist() == [65504, -65504, 65504]
    torch.testing.assert_close(back[:, 1:].float(), pixels[:, 1:], rtol=2**-11, atol=2**-24)


@pytest.mark.parametrize("primaries", list(CHROMATICITIES))
def test_primaries_are_told_by_chromaticities(tmp_path: Path, primaries: str) -> None:
    state = SCENE.changed({"primaries": primaries})
    write(Frame(light(), state), tmp_path / "a.exr")
    assert read(tmp_path / "a.exr").state == state


def test_gray_and_alpha(tmp_path: Path) -> None:
    gray = Frame(light(1), SCENE.changed({"layout": "gray"}), alpha=torch.rand(1, 21, 34))
    write(gray, tmp_path / "a.exr", OutputSpec(format="exr", bits=32))
    back = read(tmp_path / "a.exr")
    assert back.state.layout == "gray"
    assert back.alpha is not None
    assert gray.alpha is not None
    assert torch.equal(back.alpha, gray.alpha)


def test_colours_are_multiplied_with_alpha_in_the_file_and_straight_in_a_frame(tmp_path: Path) -> None:
    alpha = torch.tensor([0.0, 0.25, 0.5, 1.0]).expand(1, 2, 4)
    pixels = torch.full((3, 2, 4), 2.0)
    pixels[0, 0, 0] = float("inf")
    for bits in (16, 32):
        path = tmp_path / f"{bits}.exr"
        write(Frame(pixels, SCENE, alpha=alpha), path, OutputSpec(format="exr", bits=bits))
        with OpenEXR.File(str(path), separate_channels=True) as file:
            np.testing.assert_array_equal(file.channels()["R"].pixels[0], [0.0, 0.5, 1.0, 2.0])
        back = read(path)
        assert back.pixels[:, :, 1:].unique().tolist() == [2.0]
        assert back.pixels[:, :, 0].unique().tolist() == [0.0]
    with OpenEXR.File(
        {"type": OpenEXR.scanlineimage},
        {"RGB": np.full((2, 4, 3), 0.5, np.float32), "A": alpha[0].numpy().copy()},
    ) as file:
        file.write(str(tmp_path / "glow.exr"))
    np.testing.assert_array_equal(read(tmp_path / "glow.exr").pixels[1, 1], [0.5, 2.0, 1.0, 0.5])


def test_standard_attributes(tmp_path: Path) -> None:
    block = exif_bytes(photo_tree(make="Maker", model="Model 1", artist="Somebody"))
    frame = replace(Frame(light(), SCENE), exposure=Exposure(1 / 60, 2.8, 400), metadata=Metadata(exif=block))
    write(frame, tmp_path / "a.exr")
    with OpenEXR.File(str(tmp_path / "a.exr")) as file:
        header = dict(file.header())
    assert header["expTime"] == pytest.approx(1 / 60)
    assert header["aperture"] == pytest.approx(2.8)
    assert (header["cameraMake"], header["cameraModel"], header["owner"]) == ("Maker", "Model 1", "Somebody")
    assert header["software"].startswith("restorekit ")
    assert read(tmp_path / "a.exr").exposure.iso == 400


def test_orientation_is_applied(tmp_path: Path) -> None:
    frame = replace(Frame(light(), SCENE), metadata=Metadata(orientation=6))
    write(frame, tmp_path / "a.exr", OutputSpec(format="exr", bits=32))
    np.testing.assert_array_equal(read(tmp_path / "a.exr").pixels.numpy(), np.rot90(frame.pixels.numpy(), -1, (1, 2)))


def test_luminance_and_chroma_images_are_as_the_format_defines_them(tmp_path: Path) -> None:
    red, green, blue = (plane.astype(np.float32) for plane in np.random.default_rng(1).uniform(0.1, 4, (3, 20, 30)))
    weights = (0.2126, 0.7152, 0.0722)
    luma = weights[0] * red + weights[1] * green + weights[2] * blue
    channels = {"Y": luma, "RY": (red - luma) / luma, "BY": (blue - luma) / luma}
    with OpenEXR.File({"type": OpenEXR.scanlineimage}, channels) as file:
        file.write(str(tmp_path / "a.exr"))
    back = read(tmp_path / "a.exr").pixels.numpy()
    np.testing.assert_allclose(back, np.stack([red, green, blue]), rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "layout", "size"),
    [
        ("openexr_StillLife.exr", "rgb", (846, 1240)),
        ("openexr_CandleGlass.exr", "rgb", (810, 1000)),
        ("openexr_CrissyField.exr", "rgb", (810, 1218)),
        ("openexr_GrayRampsDiagonal.exr", "gray", (800, 800)),
        ("libvips_sample.exr", "rgb", (406, 610)),
    ],
)
def test_real_files(shared_data: Path, name: str, layout: str, size: tuple[int, int]) -> None:
    frame = read(shared_data / "hdr" / name)
    assert (frame.state.layout, frame.state.reference, frame.state.transfer) == (layout, "scene", "linear")
    assert tuple(frame.pixels.shape[1:]) == size
    assert frame.notes == ()
    values = frame.pixels.float()
    assert values.isfinite().all()
    assert values.amax() > 0.9
    if layout == "rgb":
        means = values.mean((1, 2))
        assert means.max() / means.min() < 12, "no channel is lost"


def test_infinities_and_nan_stay(shared_data: Path) -> None:
    frame = read(shared_data / "hdr" / "openexr_AllHalfValues.exr")
    counts = [int(found.sum()) for found in (frame.pixels.isinf(), frame.pixels.isnan())]
    assert min(counts) > 0
    assert frame.notes == (f"openexr_AllHalfValues.exr: has {counts[0]} infinite values and {counts[1]} NaN values",)


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_values_that_are_not_finite_are_counted(tmp_path: Path, kind: type[np.floating[Any]]) -> None:
    plane = np.ones((130, 20), kind)
    plane[100, 3], plane[5, 5] = np.inf, -np.inf
    with OpenEXR.File({"type": OpenEXR.scanlineimage}, {"Y": plane}) as file:
        file.write(str(tmp_path / "a.exr"))
    assert read(tmp_path / "a.exr").notes == ("a.exr: has 2 infinite values",)
    assert read(tmp_path / "a.exr").metadata.color == ("bt709", "linear")


def test_damaged_files_are_refused(shared_data: Path, tmp_path: Path) -> None:
    data = (shared_data / "hdr" / "openexr_Desk.exr").read_bytes()
    for share in (0.001, 0.3, 0.99):
        (tmp_path / "cut.exr").write_bytes(data[: int(len(data) * share)])
        with pytest.raises(InputError, match=r"cut\.exr"):
            read(tmp_path / "cut.exr")


def test_files_without_colour_are_refused(tmp_path: Path) -> None:
    with OpenEXR.File({"type": OpenEXR.scanlineimage}, {"Z": np.ones((4, 4), np.float32)}) as file:
        file.write(str(tmp_path / "depth.exr"))
    with pytest.raises(InputError, match=r"depth\.exr: has the channels Z"):
        read(tmp_path / "depth.exr")


def test_what_is_known_of_the_shot_comes_back(tmp_path: Path) -> None:
    """Attributes that OpenEXR has for it are EXIF again, and the XMP packet goes along."""
    photo = {
        33434: Field.of(RATIONAL, (1 / 125,)),
        33437: Field.of(RATIONAL, (2.8,)),
        34855: Field.of(SHORT, (400,)),
        42036: Field.of(ASCII, "A lens"),
        36881: Field.of(ASCII, "+05:30"),
    }
    tree = photo_tree(make="Maker", model="One", artist="Somebody", taken=datetime(2024, 5, 6, 7, 8, 9), photo=photo)
    packet = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4"/></rdf:RDF></x:xmpmeta>'
    )
    frame = rgb_frame(state=SHORTHANDS["scene-linear"])
    known = replace(frame, metadata=Metadata(exif=exif_bytes(tree), xmp=packet), exposure=Exposure(1 / 125, 2.8, 400))
    write(known, tmp_path / "a.exr")
    found = read(tmp_path / "a.exr")
    assert found.metadata.xmp == packet
    image, shot = exif_fields(found.metadata.exif)
    assert [image.text(tag) for tag in (271, 272, 315)] == ["Maker", "One", "Somebody"]
    assert (shot.text(42036), shot.text(36881), shot.integer(34855, 0)) == ("A lens", "+05:30", 400)
    assert shot.numbers(33434) == pytest.approx([1 / 125]) and shot.numbers(33437) == pytest.approx([2.8])
    assert capture_time(found.metadata.exif) == datetime.fromisoformat("2024-05-06T07:08:09+05:30")
