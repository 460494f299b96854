"""Pictures in: every sample type, orientation and colour space, with Pillow and tifffile as independent writers."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms

from restorekit.color.primaries import conversion, transformed
from restorekit.errors import InputError
from restorekit.facts import Exposure
from restorekit.frame import Frame
from restorekit.io import read, read_bracket, write
from restorekit.io.icc import profile_of
from restorekit.io.metadata import exif_orientation
from restorekit.state import ImageState


def picture(height: int = 33, width: int = 47, channels: int = 3, dtype: str = "uint8") -> NDArray[np.generic]:
    """Smooth shapes, so that JPEG keeps them."""
    y, x = np.mgrid[0:height, 0:width] / 47
    planes = [0.5 + 0.4 * np.sin(3 * x + channel) * np.cos(4 * y - channel) for channel in range(channels)]
    return (np.stack(planes, -1) * np.iinfo(dtype).max).astype(dtype)


def interleaved(frame: Frame) -> NDArray[np.generic]:
    samples: NDArray[np.generic] = frame.pixels.permute(1, 2, 0).numpy()
    return samples


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 2}])
def test_jpeg_is_decoded_as_by_pillow(tmp_path: Path, options: dict[str, bool]) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(picture()).save(path, quality=90, **options)
    frame = read(path)
    assert frame.state == ImageState()
    assert frame.pixels.dtype == torch.uint8
    assert np.abs(interleaved(frame).astype(int) - np.asarray(Image.open(path)).astype(int)).max() <= 2


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1"])
def test_png_modes_are_decoded_as_by_pillow(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    source = Image.fromarray(picture()).convert(mode)
    source.save(path)
    frame = read(path)
    expected = np.asarray(source.convert({"P": "RGB", "1": "L"}.get(mode, mode)))
    expected = expected[..., None] if expected.ndim == 2 else expected
    colors = 1 if mode in ("L", "LA", "1") else 3
    assert frame.state.layout == ("gray" if colors == 1 else "rgb")
    np.testing.assert_array_equal(interleaved(frame), expected[..., :colors])
    if mode in ("RGBA", "LA"):
        assert frame.alpha is not None
        np.testing.assert_array_equal(frame.alpha[0].numpy(), expected[..., -1])
    else:
        assert frame.alpha is None


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(
    "options", [{}, {"compression": "lzw"}, {"compression": "deflate", "predictor": True}, {"byteorder": ">"}]
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_tiff_is_decoded_as_tifffile_wrote_it(
    tmp_path: Path, dtype: str, options: dict[str, str | bool], channels: int
) -> None:
    samples = picture(channels=channels, dtype=dtype)
    settings = {"photometric": "minisblack" if channels == 1 else "rgb", **options}
    if channels == 4:
        settings["extrasamples"] = ["unassalpha"]  # type: ignore[assignment]
    stored = samples[..., 0] if channels == 1 else samples
    order = str(settings.pop("byteorder", "<"))
    tifffile.imwrite(tmp_path / "a.tif", stored.astype(samples.dtype.newbyteorder(order)), byteorder=order, **settings)  # type: ignore[call-overload]
    frame = read(tmp_path / "a.tif")
    np.testing.assert_array_equal(interleaved(frame), samples[..., : min(channels, 3)])
    assert (frame.alpha is not None) == (channels == 4)


def test_planes_that_lie_apart_in_a_tiff(tmp_path: Path) -> None:
    samples = picture(dtype="uint16")
    tifffile.imwrite(tmp_path / "a.tif", samples.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(interleaved(read(tmp_path / "a.tif")), samples)


def test_further_pages_of_a_tiff_are_told(tmp_path: Path) -> None:
    """Smaller copies of the picture are no pages of their own."""
    with tifffile.TiffWriter(tmp_path / "two.tif") as tiff:
        tiff.write(picture(), photometric="rgb")
        tiff.write(picture()[::2, ::2], photometric="rgb", subfiletype=1)
        tiff.write(255 - picture(), photometric="rgb")
    frame = read(tmp_path / "two.tif")
    np.testing.assert_array_equal(interleaved(frame), picture())
    assert frame.notes == ("two.tif: has 2 pages, the first is taken",)
    with tifffile.TiffWriter(tmp_path / "one.tif") as tiff:
        tiff.write(picture(), photometric="rgb")
        tiff.write(picture()[::2, ::2], photometric="rgb", subfiletype=1)
    assert read(tmp_path / "one.tif").notes == ()


def test_both_notes_on_a_tiff_are_told(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for _ in range(3):
            tiff.write(picture(channels=4), photometric="rgb", extrasamples=["assocalpha"])
    premultiplied, pages = read(tmp_path / "a.tif").notes
    assert "multiplied by its alpha" in premultiplied and "has 3 pages" in pages


def test_webp_is_decoded_as_by_pillow(tmp_path: Path) -> None:
    source = Image.fromarray(picture(channels=4))
    source.save(tmp_path / "a.webp", lossless=True, exact=True)
    frame = read(tmp_path / "a.webp")
    np.testing.assert_array_equal(interleaved(frame), np.asarray(source)[..., :3])


def test_sixteen_bit_png(tmp_path: Path) -> None:
    frame = Frame(torch.from_numpy(picture(dtype="uint16")).permute(2, 0, 1))
    back = read(write(frame, tmp_path / "a.png"))
    assert torch.equal(back.pixels, frame.pixels), "the depth stays"
    gray = Image.fromarray(picture(channels=1, dtype="uint16")[..., 0])
    gray.save(tmp_path / "gray.png")
    np.testing.assert_array_equal(read(tmp_path / "gray.png").pixels[0].numpy(), np.asarray(gray))


@pytest.mark.parametrize("kind", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_undone(tmp_path: Path, kind: str, orientation: int) -> None:
    """A picture turned so that its orientation tag makes it upright comes back upright."""
    upright = picture()
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[274], exif[271] = orientation, "Maker"
    path = tmp_path / f"a.{kind}"
    Image.fromarray(np.ascontiguousarray(turned)).save(
        path, exif=exif, **({"lossless": True} if kind == "webp" else {})
    )
    frame = read(path)
    assert frame.pixels.shape == (3, 33, 47)
    assert np.abs(interleaved(frame).astype(int) - upright.astype(int)).mean() < (3 if kind == "jpg" else 0.001)
    assert frame.metadata.orientation == 1
    assert exif_orientation(frame.metadata.exif) == 1


@pytest.mark.parametrize("scene", ["Landscape", "Portrait"])
def test_real_pictures_of_all_orientations_look_alike(shared_data: Path, scene: str) -> None:
    """Each of the files has its number drawn in the middle; the rest of the scene is the same."""
    folder = shared_data / "metadata" / "exif_orientation"
    first, *others = (read(folder / f"{scene}_{number}.jpg") for number in range(9))
    for other in others:
        assert other.pixels.shape == first.pixels.shape
        difference = (other.pixels[:, ::4, ::4].float() - first.pixels[:, ::4, ::4].float()).abs()
        assert difference.mean() < 6


@pytest.mark.parametrize(
    ("name", "primaries", "transfer"),
    [
        ("libjxl_widegamut/P3-sRGB-color-ring.png", "p3", "gamma"),
        ("libjxl_widegamut/R2020-sRGB-color-bars.png", "bt2020", "gamma"),
        ("libjxl_wesaturate/u76c0g_bliznaca_srgb8.png", "bt709", "srgb"),
        ("libjxl_wesaturate/cvo9xd_keong_macan_grayscale.png", "bt709", "srgb"),
    ],
)
def test_real_profiles_name_their_space(shared_data: Path, name: str, primaries: str, transfer: str) -> None:
    frame = read(shared_data / "metadata" / name)
    assert (frame.state.primaries, frame.state.transfer) == (primaries, transfer) == frame.metadata.color
    assert frame.notes == ()


def test_a_profile_of_swapped_channels_gives_the_true_colours(shared_data: Path, tmp_path: Path) -> None:
    """The letters of its picture name the colours that stand behind them: red above, green left, blue right."""
    frame = read(shared_data / "metadata" / "libjxl_widegamut" / "rgb-to-gbr-test.png")
    assert frame.state == ImageState("rgb", "display", "linear", "bt2020")
    assert frame.metadata.color is None and frame.metadata.icc
    assert frame.notes == ()
    srgb = transformed(frame.pixels, conversion("bt2020", "bt709"))
    for (row, column), strongest in {(20, 530): 0, (620, 20): 1, (800, 950): 2}.items():
        color = srgb[:, row, column]
        assert color.argmax() == strongest
        assert color[strongest] > 0.9 and color.sum() < 1.3


def test_a_broken_profile_is_told(tmp_path: Path) -> None:
    broken = profile_of(ImageState())[:300]
    Image.fromarray(picture()).save(tmp_path / "a.png", icc_profile=broken)
    frame = read(tmp_path / "a.png")
    assert frame.state == ImageState()
    assert frame.metadata.color == ("bt709", "srgb")
    assert frame.notes == ("a.png: its colour profile is not understood, its numbers are taken for sRGB",)


def test_camera_facts_of_real_pictures(shared_data: Path) -> None:
    frame = read(shared_data / "brackets" / "motion_pingpong" / "Img1.JPG")
    assert frame.exposure == Exposure(1 / 1000, 5.0, 100)
    assert b"Canon" in frame.metadata.exif


def test_profile_and_cicp_of_png(tmp_path: Path) -> None:
    data = io.BytesIO()
    Image.fromarray(picture()).save(data, "PNG", icc_profile=profile_of(ImageState(primaries="p3")))
    content = data.getvalue()
    (tmp_path / "p3.png").write_bytes(content)
    assert read(tmp_path / "p3.png").state.primaries == "p3"
    import zlib

    chunk = b"cICP" + bytes((9, 16, 0, 1))
    cicp = (4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    (tmp_path / "pq.png").write_bytes(content[:33] + cicp + content[33:])
    frame = read(tmp_path / "pq.png")
    assert (frame.state.primaries, frame.state.transfer) == ("bt2020", "pq"), "cICP goes before an ICC profile"
    assert frame.metadata.icc == b"", "a profile that tells another space is of no use any more"


def test_adobe_rgb_of_cameras_without_profile(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(34665)[40961] = 65535
    exif.get_ifd(34665)[40965] = {1: "R03"}
    Image.fromarray(picture()).save(tmp_path / "a.jpg", exif=exif)
    assert read(tmp_path / "a.jpg").state.primaries == "adobe-rgb"


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["jpg", "progressive.jpg", "png", "tif", "webp"])
def test_cut_off_pictures_are_refused(tmp_path: Path, kind: str, share: float) -> None:
    whole, cut = tmp_path / f"whole.{kind}", tmp_path / f"cut.{kind}"
    options = {"progressive": True} if kind.startswith("progressive") else {}
    Image.effect_noise((200, 150), 60).convert("RGB").save(whole, **options)
    data = whole.read_bytes()
    read(whole)
    cut.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(InputError, match=f"cut.{kind}") as caught:
        read(cut)
    assert "\n" not in str(caught.value)


def test_pictures_that_are_not_supported_name_the_cure(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "deep.tif", picture().astype(np.uint32), photometric="rgb")
    with pytest.raises(InputError, match=r"deep\.tif.*uint32 samples; convert it"):
        read(tmp_path / "deep.tif")
    tifffile.imwrite(tmp_path / "complex.tif", picture()[..., 0].astype(np.complex64))
    with pytest.raises(InputError, match=r"complex\.tif.*complex64 samples; convert it"):
        read(tmp_path / "complex.tif")


def test_bmp_colour_and_gray(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.bmp")
    np.testing.assert_array_equal(read(tmp_path / "a.bmp").pixels.permute(1, 2, 0).numpy(), picture())
    Image.fromarray(picture()[..., 0]).save(tmp_path / "gray.bmp")
    gray = read(tmp_path / "gray.bmp")
    assert gray.state.layout == "gray"
    np.testing.assert_array_equal(gray.pixels[0].numpy(), picture()[..., 0])
    (tmp_path / "cut.bmp").write_bytes((tmp_path / "a.bmp").read_bytes()[:-200])
    with pytest.raises(InputError, match=r"cut\.bmp.*damaged"):
        read(tmp_path / "cut.bmp")


def test_a_bracket_is_sorted_by_its_exposures(tmp_path: Path) -> None:
    for name, time_s in (("a", 0.5), ("b", 0.125), ("c", 2.0)):
        exif = Image.Exif()
        exif.get_ifd(34665)[33434] = time_s
        Image.fromarray(picture()).save(tmp_path / f"{name}.jpg", exif=exif)
    bracket = read_bracket([tmp_path / f"{name}.jpg" for name in "abc"])
    assert [frame.exposure.time_s for frame in bracket] == [0.125, 0.5, 2.0]
    with pytest.raises(InputError, match="at least two"):
        read_bracket([])


def test_lab_profiles_are_no_rgb_spaces(tmp_path: Path) -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    Image.fromarray(picture()).save(tmp_path / "a.jpg", icc_profile=lab)
    assert read(tmp_path / "a.jpg").notes
