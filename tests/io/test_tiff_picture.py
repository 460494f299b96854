"""TIFF pictures of all sample types, with Pillow, tifffile and files put together by hand as oracles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import colour
import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms

from restorekit.color.adaptation import D50
from restorekit.color.primaries import conversion, transformed
from restorekit.errors import InputError
from restorekit.io import read
from restorekit.io.icc import profile_of
from restorekit.io.tiff import LONG, SHORT, UNDEFINED, Field, Order, lay_out
from restorekit.state import ImageState


def picture(channels: int = 3, dtype: str = "uint8") -> NDArray[Any]:
    y, x = np.mgrid[0:21, 0:34] / 34
    planes = [0.5 + 0.4 * np.sin(3 * x + channel) * np.cos(4 * y - channel) for channel in range(channels)]
    return (np.stack(planes, -1) * np.iinfo(dtype).max).astype(dtype)


def interleaved(path: Path) -> NDArray[Any]:
    samples: NDArray[Any] = read(path).pixels.permute(1, 2, 0).numpy()
    return samples


def packed(path: Path, rows: NDArray[np.uint8], width: int, bits: int, photometric: int, order: Order = "<") -> Path:
    """An uncompressed gray or palette picture of rows of bytes that hold several samples each."""
    fields: dict[int, Any] = {
        256: Field.of(LONG, (width,), order), 257: Field.of(LONG, (len(rows),), order),
        258: Field.of(SHORT, (bits,), order), 259: Field.of(SHORT, (1,), order),
        262: Field.of(SHORT, (photometric,), order), 277: Field.of(SHORT, (1,), order),
        278: Field.of(LONG, (len(rows),), order), 279: Field.of(LONG, (rows.size,), order),
    }  # fmt: skip
    head = lay_out({**fields, 273: Field.of(LONG, (0,), order)}, order)
    fields[273] = Field.of(LONG, (len(head),), order)
    path.write_bytes(lay_out(fields, order) + rows.tobytes())
    return path


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_fill_the_range(tmp_path: Path, bits: int, photometric: int) -> None:
    samples = np.random.default_rng(bits).integers(0, 1 << bits, (5, 16))
    flags = (samples[..., None] >> np.arange(bits)[::-1] & 1).reshape(5, -1).astype(np.uint8)
    found = interleaved(packed(tmp_path / "a.tif", np.packbits(flags, axis=1), 16, bits, photometric))
    expected = samples * 255 // ((1 << bits) - 1)
    np.testing.assert_array_equal(found[..., 0], expected if photometric else 255 - expected)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_bits_between_8_and_16_fill_the_range_of_16(tmp_path: Path, bits: int) -> None:
    samples = np.random.default_rng(bits).integers(0, 1 << bits, (5, 16))
    samples[0, :2] = 0, (1 << bits) - 1
    flags = (samples[..., None] >> np.arange(bits)[::-1] & 1).reshape(5, -1).astype(np.uint8)
    found = interleaved(packed(tmp_path / "a.tif", np.packbits(flags, axis=1), 16, bits, 1))
    assert found.dtype == np.uint16
    np.testing.assert_allclose(found[..., 0], samples * (65535 / ((1 << bits) - 1)), atol=1)
    assert (found[0, :2, 0] == (0, 65535)).all()


def test_palette_of_8_bits(tmp_path: Path) -> None:
    source = Image.fromarray(picture()).quantize(37)
    source.save(tmp_path / "a.tif")
    found = interleaved(tmp_path / "a.tif")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.asarray(source.convert("RGB")))


def test_palette_of_16_bits(tmp_path: Path) -> None:
    colormap = np.random.default_rng(8).integers(0, 65536, (3, 256), dtype=np.uint16)
    indices = picture(1)[..., 0]
    tifffile.imwrite(tmp_path / "a.tif", indices, photometric="palette", colormap=colormap)
    np.testing.assert_array_equal(interleaved(tmp_path / "a.tif"), colormap.T[indices])


def test_one_bit_as_pillow_writes_it(tmp_path: Path) -> None:
    source = Image.fromarray(picture(1)[..., 0]).convert("1")
    for name, options in {"plain": {}, "fax": {"compression": "group4"}, "bits": {"compression": "packbits"}}.items():
        source.save(tmp_path / f"{name}.tif", **options)
        found = interleaved(tmp_path / f"{name}.tif")
        np.testing.assert_array_equal(found[..., 0], np.asarray(source.convert("L")))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_floats_without_a_profile_are_light_of_a_scene(tmp_path: Path, dtype: str) -> None:
    light = np.random.default_rng(1).normal(0, 4, (9, 8, 3)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", light, photometric="rgb")
    frame = read(tmp_path / "a.tif")
    assert frame.state == ImageState("rgb", "scene", "linear", "bt709")
    assert frame.metadata.color == ("bt709", "linear")
    assert frame.pixels.dtype == (torch.float16 if dtype == "float16" else torch.float32)
    np.testing.assert_array_equal(frame.pixels.permute(1, 2, 0).numpy(), light.astype(frame.pixels.numpy().dtype))
    assert frame.notes == ("a.tif: has floats without a colour profile, they are taken for scene-linear Rec. 709",)


def test_floats_with_a_profile_are_finished(tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(0.5, 0.5, (9, 8, 3)).astype(np.float32)
    tifffile.imwrite(
        tmp_path / "a.tif", values, photometric="rgb", iccprofile=profile_of(ImageState(primaries="p3")),
        compression="deflate", predictor=3,
    )  # fmt: skip
    frame = read(tmp_path / "a.tif")
    assert frame.state == ImageState(primaries="p3")
    np.testing.assert_array_equal(frame.pixels.permute(1, 2, 0).numpy(), values)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_colours_multiplied_by_alpha_are_divided(tmp_path: Path, dtype: str) -> None:
    straight = picture(4, dtype)
    most = np.iinfo(dtype).max
    straight[..., 3] |= most // 2  # enough for the colours to be got back
    straight[0, :, 3] = 0
    multiplied = straight.astype(np.float64)
    multiplied[..., :3] *= multiplied[..., 3:] / most
    tifffile.imwrite(
        tmp_path / "a.tif", multiplied.round().astype(dtype), photometric="rgb", extrasamples=["assocalpha"]
    )
    frame = read(tmp_path / "a.tif")
    found = frame.pixels.permute(1, 2, 0).numpy().astype(int)
    assert np.abs(found[1:] - straight[1:, :, :3]).max() <= 1
    assert (found[0] == 0).all(), "what cannot be seen has no colour"
    assert frame.alpha is not None
    np.testing.assert_array_equal(frame.alpha[0].numpy(), straight[..., 3])
    assert "divided" in frame.notes[0]


def test_one_of_many_channels_is_alpha(tmp_path: Path) -> None:
    samples = picture(6)
    extra = ["unspecified", "unassalpha", "unspecified"]
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", extrasamples=extra, planarconfig="contig")
    frame = read(tmp_path / "a.tif")
    assert frame.alpha is not None
    np.testing.assert_array_equal(frame.alpha[0].numpy(), samples[..., 4])
    np.testing.assert_array_equal(frame.pixels.permute(1, 2, 0).numpy(), samples[..., :3])
    assert "3 channels beside its colours" in frame.notes[0]


def test_lab_is_as_littlecms_made_it(tmp_path: Path) -> None:
    colors = Image.fromarray(picture())
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    converted = ImageCms.profileToProfile(colors, srgb, lab, renderingIntent=1, outputMode="LAB")
    assert converted is not None
    converted.save(tmp_path / "a.tif")
    frame = read(tmp_path / "a.tif")
    assert frame.state == ImageState("rgb", "display", "linear", "bt2020")
    assert frame.metadata.color is None
    light = transformed(frame.pixels, conversion("bt2020", "bt709")).permute(1, 2, 0).numpy()
    found = np.where(light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 0) ** (1 / 2.4) - 0.055) * 255
    assert np.abs(found - picture()).mean() < 1.0


@pytest.mark.parametrize(("photometric", "offset"), [("cielab", 0), ("icclab", 128)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_encodings_of_lab(tmp_path: Path, photometric: str, offset: int, dtype: str) -> None:
    """L* 50, a* 40, b* -30, in each encoding that TIFF has for it."""
    unit = 1 if dtype == "uint8" else 256
    white = np.iinfo(dtype).max if photometric == "cielab" else 255 * unit
    numbers = (round(0.5 * white), (40 + offset) * unit % (256 * unit), (-30 + offset) * unit % (256 * unit))
    samples = np.broadcast_to(np.array(numbers, dtype), (4, 5, 3)).copy()
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric=photometric)
    found = read(tmp_path / "a.tif").pixels[:, 0, 0].numpy()
    xyz = colour.Lab_to_XYZ(np.array((50, 40, -30)), D50)
    expected = colour.XYZ_to_RGB(xyz, "ITU-R BT.2020", illuminant=D50, chromatic_adaptation_transform="Bradford")
    np.testing.assert_allclose(found, expected, atol=3e-3)


def test_luma_and_chroma(tmp_path: Path) -> None:
    """tifffile stores numbers as they are given: what it is given here is YCbCr of ITU-R BT.601."""
    coded = np.asarray(Image.fromarray(picture()).convert("YCbCr"))
    plain = {"photometric": "ycbcr", "subsampling": (1, 1)}
    for name, options in {"plain": {}, "packed": {"compression": "lzw"}, "jpeg": {"compression": "jpeg"}}.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", coded, **plain, **options)  # type: ignore[call-overload]
        assert np.abs(interleaved(tmp_path / f"{name}.tif").astype(int) - picture()).max() < (
            30 if name == "jpeg" else 4
        )
    Image.fromarray(picture()).save(tmp_path / "small.tif", compression="jpeg", quality=95)
    theirs = np.asarray(Image.open(tmp_path / "small.tif"))
    assert np.abs(interleaved(tmp_path / "small.tif").astype(int) - theirs).max() <= 2


def test_planes_that_lie_apart(tmp_path: Path) -> None:
    planes = picture().transpose(2, 0, 1)
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate", compression="lzw")
    np.testing.assert_array_equal(interleaved(tmp_path / "a.tif"), picture())


@pytest.mark.parametrize("compression", ["lzw", "deflate", "zstd", "packbits", "lzma"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_compressions(tmp_path: Path, compression: str, dtype: str) -> None:
    for order in "<>":
        for tile in (None, (16, 16)):
            stored = picture(3, dtype).astype(np.dtype(dtype).newbyteorder(order))
            tifffile.imwrite(
                tmp_path / "a.tif", stored, photometric="rgb", compression=compression, tile=tile, byteorder=order,
                predictor=compression in ("lzw", "deflate", "zstd"),
            )  # fmt: skip
            np.testing.assert_array_equal(interleaved(tmp_path / "a.tif"), picture(3, dtype))


def test_files_of_more_than_4_gigabytes_have_a_header_of_their_own(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", picture(), photometric="rgb", bigtiff=True)
    np.testing.assert_array_equal(interleaved(tmp_path / "a.tif"), picture())


def test_a_thumbnail_before_the_picture_is_passed_over(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(picture()[::4, ::4], photometric="rgb", subfiletype=1, compression="lzw")
        tiff.write(picture(), photometric="rgb", compression="lzw")
    np.testing.assert_array_equal(interleaved(tmp_path / "a.tif"), picture())
    assert read(tmp_path / "a.tif").notes == ()


@pytest.mark.parametrize(("order", "kind"), [("<", UNDEFINED), ("<", LONG), (">", LONG)])
def test_iptc_records(tmp_path: Path, order: str, kind: int) -> None:
    records = b"\x1c\x02\x78\x00\x0ba caption.."
    count = len(records) if kind == UNDEFINED else len(records) // 4
    value = records if kind == UNDEFINED else np.frombuffer(records, order + "u4").tolist()
    tifffile.imwrite(
        tmp_path / "a.tif", picture(), photometric="rgb", byteorder=order,
        extratags=[(33723, 7 if kind == UNDEFINED else 4, count, value, True)],
    )  # fmt: skip
    assert read(tmp_path / "a.tif").metadata.iptc[: len(records)] == records


def test_damaged_strips_are_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    for compression in ("lzw", "deflate"):
        tifffile.imwrite(tmp_path / "a.tif", noise, photometric="rgb", compression=compression)
        data = bytearray((tmp_path / "a.tif").read_bytes())
        data[-3000:] = bytes(3000)
        (tmp_path / "a.tif").write_bytes(data)
        with pytest.raises(InputError, match=r"a\.tif.*damaged"):
            read(tmp_path / "a.tif")
