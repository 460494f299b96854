"""Pictures out: round trips with their metadata, quantisation, atomic replacement, and every way of failing."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, TiffImagePlugin

from restorekit.errors import OutputError
from restorekit.facts import Camera, Metadata
from restorekit.frame import Frame
from restorekit.io import OutputSpec, quantise, quantiser, read, write
from restorekit.io.formats import FORMATS, format_of_path, losses
from restorekit.io.icc import profile_of, space_of
from restorekit.io.metadata import clean_exif
from restorekit.state import ImageState


def exif_block() -> bytes:
    block = Image.Exif()
    block[271], block[274], block[33432] = "Maker", 1, "somebody's"
    photo = block.get_ifd(34665)
    photo[33434], photo[36867] = TiffImagePlugin.IFDRational(1, 250), "2024:02:29 23:59:58"
    photo[37500] = b"Maker\0" + bytes(range(200))
    return clean_exif(block.tobytes().removeprefix(b"Exif\0\0"))


def integers(bits: int, channels: int = 3, height: int = 37, width: int = 52) -> torch.Tensor:
    values = np.random.default_rng(7).integers(0, 2**bits, (height, width, channels), dtype=f"uint{bits}")
    return torch.from_numpy(values).permute(2, 0, 1)


def smooth(channels: int = 3) -> torch.Tensor:
    y, x = np.mgrid[0:37, 0:52] / 52
    return torch.from_numpy(
        np.stack([0.5 + 0.4 * np.sin(4 * x + 3 * y + c) for c in range(channels)]).astype(np.float32)
    )


LOSSLESS = [
    (".png", OutputSpec(format="png")),
    (".png", OutputSpec(format="png", compression="small")),
    (".png", OutputSpec(format="png", bits=16)),
    (".tif", OutputSpec(format="tiff")),
    (".tif", OutputSpec(format="tiff", bits=8)),
    (".tif", OutputSpec(format="tiff", compression="deflate")),
    (".tif", OutputSpec(format="tiff", bits=8, compression="zstd")),
    (".avif", OutputSpec(format="avif", compression="lossless")),
    (".avif", OutputSpec(format="avif", quality=100)),
    (".jxl", OutputSpec(format="jxl", compression="lossless")),
]


@pytest.mark.parametrize(("suffix", "spec"), LOSSLESS)
@pytest.mark.parametrize("channels", [1, 3])
def test_integers_come_back_exactly(tmp_path: Path, suffix: str, spec: OutputSpec, channels: int) -> None:
    state = ImageState(layout="rgb" if channels == 3 else "gray")
    frame = Frame(integers(spec.depth, channels), state)
    back = read(write(frame, tmp_path / f"a{suffix}", spec))
    assert back.state == state
    assert torch.equal(back.pixels, frame.pixels)


@pytest.mark.parametrize(("suffix", "spec"), LOSSLESS)
def test_alpha_goes_along(tmp_path: Path, suffix: str, spec: OutputSpec) -> None:
    frame = Frame(integers(spec.depth), alpha=integers(spec.depth, 1))
    back = read(write(frame, tmp_path / f"a{suffix}", spec))
    assert torch.equal(back.pixels, frame.pixels)
    assert frame.alpha is not None
    assert back.alpha is not None
    assert torch.equal(back.alpha, frame.alpha)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".avif"])
def test_exif_survives_with_maker_note_and_program(tmp_path: Path, suffix: str) -> None:
    frame = replace(Frame(smooth()), metadata=Metadata(exif=exif_block()))
    image = Image.open(write(frame, tmp_path / f"a{suffix}"))
    exif = image.getexif()
    photo = exif.get_ifd(34665)
    assert (exif[271], exif[33432]) == ("Maker", "somebody's")
    assert exif.get(274, 1) == 1
    assert exif[305].startswith("restorekit ")
    assert (photo[33434], photo[36867]) == (TiffImagePlugin.IFDRational(1, 250), "2024:02:29 23:59:58")
    assert photo[37500].startswith(b"Maker\0")
    assert (photo[40962], photo[40963], photo[40961]) == (52, 37, 1)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize("primaries", ["bt709", "p3", "adobe-rgb", "bt2020"])
def test_a_profile_of_the_state_is_embedded(tmp_path: Path, suffix: str, primaries: str) -> None:
    state = ImageState().changed({"primaries": primaries, "transfer": "gamma" if primaries == "adobe-rgb" else "srgb"})
    path = write(Frame(smooth(), state), tmp_path / f"a{suffix}")
    profile = Image.open(path).info.get("icc_profile", b"")
    if (suffix, primaries) == (".png", "bt709"):
        assert b"sRGB" in path.read_bytes()[:64], "a chunk of one byte says it"
    else:
        assert space_of(profile) == (state.primaries, state.transfer)
        ImageCms.ImageCmsProfile(io.BytesIO(profile))
    assert read(path).state == state


def test_the_own_profile_is_kept_only_while_it_is_true(tmp_path: Path) -> None:
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    frame = replace(Frame(smooth()), metadata=Metadata(icc=own))
    assert read(write(frame, tmp_path / "a.png")).metadata.icc == own
    converted = replace(frame, state=ImageState(primaries="p3"))
    assert read(write(converted, tmp_path / "b.jpg")).metadata.icc == profile_of(converted.state)
    gray = replace(Frame(smooth(1), ImageState("gray")), metadata=Metadata(icc=own))
    assert read(write(gray, tmp_path / "c.jpg")).metadata.icc == profile_of(gray.state)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".avif"])
def test_numbers_of_a_profile_are_written_with_it(tmp_path: Path, suffix: str) -> None:
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() + bytes(8)
    frame = Frame(smooth(), ImageState(primaries="icc"), metadata=Metadata(icc=own))
    path = write(frame, tmp_path / f"a{suffix}")
    assert Image.open(path).info["icc_profile"] == own


def test_a_profile_of_other_numbers_is_not_written(tmp_path: Path) -> None:
    unknown = profile_of(ImageState())[:128] + bytes(400)
    frame = Frame(smooth(), metadata=Metadata(icc=unknown))
    assert Image.open(write(frame, tmp_path / "a.jpg")).info["icc_profile"] == profile_of(ImageState())


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".avif", ".jxl", ".exr"])
def test_the_program_is_named_where_nothing_was_known(tmp_path: Path, suffix: str) -> None:
    frame = Frame(smooth())
    if suffix == ".exr":
        frame = replace(frame, state=ImageState("rgb", "scene", "linear", "bt709"))
    path = write(frame, tmp_path / f"a{suffix}", software="restorekit 9.8.7 look 0123")
    if suffix in (".jxl", ".exr"):
        assert b"restorekit 9.8.7 look 0123" in path.read_bytes()
    else:
        exif = Image.open(path).getexif()
        assert exif[305] == "restorekit 9.8.7 look 0123"
        assert not exif.get_ifd(34665)


def test_large_profiles_and_blocks_fit_into_jpeg_segments(tmp_path: Path) -> None:
    own = profile_of(ImageState()) + bytes(150_000)
    note = Image.Exif()
    note[271] = "Maker"
    note.get_ifd(34665)[37500] = bytes(70_000)
    exif = clean_exif(note.tobytes().removeprefix(b"Exif\0\0"))
    path = write(replace(Frame(smooth()), metadata=Metadata(exif=exif, icc=own)), tmp_path / "a.jpg")
    back = read(path)
    assert back.metadata.icc == own
    assert Image.open(path).getexif()[271] == "Maker", "only the maker note was too large"
    assert losses(OutputSpec(), False, Metadata(exif=exif, icc=own))
    whole = write(replace(Frame(smooth()), metadata=Metadata(exif=exif)), tmp_path / "a.webp")
    assert len(Image.open(whole).getexif().get_ifd(34665)[37500]) == 70_000


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_frames_are_turned_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    frame = replace(Frame(smooth()), metadata=Metadata(exif=exif_block(), orientation=orientation))
    expected = frame.upright().pixels
    path = write(frame, tmp_path / f"a{suffix}")
    assert Image.open(path).getexif().get(274, 1) == 1
    back = read(path).as_float().pixels
    assert back.shape == expected.shape
    assert (back - expected).abs().mean() < (0.01 if suffix == ".jpg" else 0.003)


def test_alpha_of_16_bits_is_turned_too(tmp_path: Path) -> None:
    frame = replace(Frame(integers(16), alpha=integers(16, 1)), metadata=Metadata(orientation=8))
    back = read(write(frame, tmp_path / "a.tif"))
    assert back.alpha is not None
    assert frame.alpha is not None
    np.testing.assert_array_equal(back.alpha[0].numpy(), np.rot90(frame.alpha[0].numpy()))


def test_the_same_frame_gives_the_same_bytes(tmp_path: Path) -> None:
    frame = replace(Frame(smooth()), metadata=Metadata(exif=exif_block()))
    for suffix in (".jpg", ".png", ".tif", ".webp", ".avif", ".jxl"):
        first = write(frame, tmp_path / f"a{suffix}").read_bytes()
        assert write(frame, tmp_path / f"b{suffix}").read_bytes() == first


@pytest.mark.parametrize("bits", [10, 12])
def test_quantising_to_other_depths_fills_16_bits(bits: int) -> None:
    largest = 2**bits - 1
    codes = torch.arange(largest + 1, dtype=torch.float64)
    for off in (0.0, -0.4, 0.4):
        stored = quantise(((codes + off) / largest).to(torch.float32).expand(3, 1, -1), bits)
        filled = stored[2, 0].to(torch.float64)
        assert torch.equal((filled * largest / 65535).round(), codes)
        assert (filled - codes * 65535 / largest).abs().max() < 0.51
    odd = torch.tensor([-1.0, 2.0, float("inf"), -float("inf"), float("nan")]).reshape(1, 1, -1)
    assert quantise(odd, bits)[0, 0].tolist() == [0, 65535, 65535, 0, 0]


@pytest.mark.parametrize("bits", [8, 16])
def test_quantising_rounds_and_clamps(bits: int) -> None:
    largest = 2**bits - 1
    codes = torch.arange(largest + 1, dtype=torch.float64)
    values = torch.cat((codes, codes[:-1] + 0.4, codes[1:] - 0.4)) / largest
    pixels = values.to(torch.float32).expand(3, 1, -1).contiguous()
    stored = quantise(pixels, bits)
    expected = torch.cat((codes, codes[:-1], codes[1:])).to(torch.int64)
    assert torch.equal(stored[1, 0].to(torch.int64), expected)
    odd = torch.tensor([-1.0, 2.0, float("inf"), -float("inf"), float("nan")]).reshape(1, 1, -1)
    assert quantise(odd, bits)[0, 0].tolist() == [0, largest, largest, 0, 0]
    assert odd[0, 0, 0] == -1.0, "the input is left alone"


def test_quantised_strips_are_written_without_another_pass(tmp_path: Path) -> None:
    frame, spec = Frame(smooth()), OutputSpec(format="tiff")
    strips = [quantiser(spec)(frame.pixels[:, top : top + 16]) for top in range(0, 37, 16)]
    whole = (
        torch.cat([strip.permute(1, 2, 0).view(torch.int16) for strip in strips]).view(torch.uint16).permute(2, 0, 1)
    )
    a = write(replace(frame, pixels=whole), tmp_path / "a.tif", spec).read_bytes()
    assert write(frame, tmp_path / "b.tif", spec).read_bytes() == a


def test_a_state_that_does_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"a\.jpg: jpeg holds display-referred.*tone-mapping"):
        write(Frame(smooth(), ImageState("rgb", "scene", "linear", "bt2020")), tmp_path / "a.jpg")
    with pytest.raises(OutputError, match=r"a\.gif: no format has the extension '\.gif'"):
        write(Frame(smooth()), tmp_path / "a.gif")
    with pytest.raises(TypeError, match=r"write takes a Frame, got Tensor; .* Frame\(pixels\)"):
        write(smooth(), tmp_path / "a.png")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def failing(number: int) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".exr", ".dng", ".webp", ".avif", ".jxl"])
@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "may not be written"), (errno.EIO, "cannot be written")],
)
def test_failures_of_the_system_leave_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, number: int, said: str
) -> None:
    frame = Frame(smooth())
    if suffix == ".exr":
        frame = replace(frame, state=ImageState("rgb", "scene", "linear", "bt709"))
    if suffix == ".dng":
        frame = Frame.from_bayer(integers(16, 1)[0].contiguous(), pattern="RGGB", white=65535, camera=Camera())
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"the old picture")
    monkeypatch.setattr(os, "fsync", failing(number))
    with pytest.raises(OutputError, match=said) as caught:
        write(frame, path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"the old picture"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".exr"])
def test_a_full_disk(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.with_name(path.name + ".part").symlink_to("/dev/full")
    frame = Frame(integers(8, height=600))
    if suffix == ".exr":
        frame = Frame(torch.rand(3, 300, 300), ImageState("rgb", "scene", "linear", "bt709"))
    with pytest.raises(OutputError, match="the disk is full"):
        write(frame, path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_missing_or_is_a_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="there is no folder"):
        write(Frame(smooth()), tmp_path / "missing" / "a.png")
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="there is no folder"):
        write(Frame(smooth()), tmp_path / "file" / "a.png")
    (tmp_path / "a.png").mkdir()
    with pytest.raises(OutputError, match=r"a\.png"):
        write(Frame(smooth()), tmp_path / "a.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "file"]


@pytest.mark.parametrize("suffix", [".png", ".exr"])
def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    state = ImageState() if suffix == ".png" else ImageState("rgb", "scene", "linear", "bt709")
    with pytest.raises(KeyboardInterrupt):
        write(Frame(smooth(), state), tmp_path / f"a{suffix}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".avif"])
def test_the_longest_side_is_read_by_others_and_one_more_is_refused(tmp_path: Path, suffix: str) -> None:
    name = format_of_path(f"a{suffix}")
    assert name is not None
    largest = FORMATS[name].largest_px
    path = write(Frame(torch.full((3, 2, largest), 0.5)), tmp_path / f"a{suffix}")
    image = Image.open(path)
    image.load()
    assert image.size == (largest, 2)
    with pytest.raises(OutputError, match=f"holds at most {largest} px a side; write png or tiff"):
        write(Frame(torch.zeros(3, 2, largest + 1)), tmp_path / f"b{suffix}")
    assert list(tmp_path.iterdir()) == [path]


def test_pictures_that_decoders_refuse_are_refused(tmp_path: Path) -> None:
    vast = Frame(torch.zeros(1, dtype=torch.uint8).expand(3, 16385, 16385))
    with pytest.raises(OutputError, match="decoders of avif take at most 268 megapixels; write png or tiff"):
        write(vast, tmp_path / "a.avif")
