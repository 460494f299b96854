"""Colour of pictures in: one picture, told in many ways, is one picture; LittleCMS and colour-science agree."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import colour
import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image

from restorekit.color.adaptation import D50, D65, adaptation
from restorekit.color.difference import ciede2000, rgb_to_lab
from restorekit.color.primaries import CHROMATICITIES, Chromaticities, conversion, rgb_to_xyz, transformed
from restorekit.color.transfer import decode, encode
from restorekit.frame import Frame
from restorekit.io import cms, colorimetry, read
from restorekit.io.colorimetry import Described
from restorekit.io.icc import profile_of
from restorekit.state import ImageState, Primaries, Transfer

Samples = NDArray[np.generic]


def scene() -> torch.Tensor:
    """Linear Rec. 709 ``[3,24,36]``: grays, ramps of the primaries and muted colours."""
    x = torch.linspace(0, 1, 36)
    rows = [torch.stack((x, x, x))]
    rows += [torch.stack([x * part for part in color]) for color in np.eye(3).tolist()]
    rows += [torch.stack((0.2 + 0.6 * x, 0.9 - 0.6 * x, 0.3 + 0 * x)) * (level / 20) for level in range(1, 21)]
    return torch.stack(rows, 1)


def numbers(primaries: Primaries, transfer: Transfer | float, bits: int = 16) -> Samples:
    """The scene in a colour space, ``[H,W,3]`` integers."""
    light = transformed(scene(), conversion("bt709", primaries)).clamp(0, 1)
    encoded = light ** (1 / transfer) if isinstance(transfer, float) else encode(light, transfer)
    return (encoded.permute(1, 2, 0).numpy() * (2**bits - 1)).round().astype(f"u{bits // 8}")


def light_of(frame: Frame) -> torch.Tensor:
    """Linear Rec. 709 of a frame."""
    pixels = decode(frame.as_float().pixels, frame.state.transfer)
    return transformed(pixels, conversion(frame.state.primaries, "bt709"))


def difference(first: torch.Tensor, second: torch.Tensor) -> float:
    """Mean CIEDE2000 of linear Rec. 709."""
    return float(ciede2000(rgb_to_lab(first, "bt709"), rgb_to_lab(second, "bt709")).mean())


def matrix_profile(space: Chromaticities, curve: bytes) -> bytes:
    """A version 2 profile of three colorants and one curve, put together by hand."""
    xyz = np.array([[x, y, 1 - x - y] for x, y in (space.red, space.green, space.blue)]).T
    white = np.array([space.white[0], space.white[1], 1 - sum(space.white)]) / space.white[1]
    colorants = adaptation(space.white, D50) @ (xyz * np.linalg.solve(xyz, white))
    tags = {b"wtpt": fixed(0.9642, 1, 0.8249)} | dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    tags |= {
        name: fixed(*column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), colorants.T.tolist(), strict=True)
    }
    return assembled(tags, b"RGB ", b"XYZ ")


def fixed(*values: float) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))


def power(exponent: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(exponent * 256))


def assembled(tags: dict[bytes, bytes], space: bytes, connection: bytes) -> bytes:
    body, table = b"", struct.pack(">I", len(tags))
    for name, data in tags.items():
        table += struct.pack(">4sII", name, 132 + 12 * len(tags) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s", 128 + len(table) + len(body), bytes(4), 0x02400000, b"mntr", space, connection)
    head += struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + fixed(0.9642, 1, 0.8249)[8:] + bytes(48)
    return head + table + body


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_with(path: Path, samples: Samples, *chunks: bytes) -> Path:
    data = imagecodecs.png_encode(np.ascontiguousarray(samples))
    path.write_bytes(data[:33] + b"".join(chunks) + data[33:])
    return path


def chrm(space: Chromaticities) -> bytes:
    values = [round(value * 100_000) for xy in (space.white, space.red, space.green, space.blue) for value in xy]
    return chunk(b"cHRM", struct.pack(">8I", *values))


def gama(exponent: float) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", round(100_000 / exponent)))


PROPHOTO_18 = matrix_profile(CHROMATICITIES["prophoto"], power(1.8))
WIDE = Chromaticities((0.7347, 0.2653), (0.1152, 0.8264), (0.1566, 0.0177), D50)
"""Adobe Wide Gamut RGB."""


@pytest.mark.parametrize("primaries", ["bt709", "p3", "bt2020", "adobe-rgb", "prophoto"])
@pytest.mark.parametrize("transfer", ["srgb", "gamma", "linear"])
def test_profiles_of_known_spaces_keep_the_numbers(tmp_path: Path, primaries: Primaries, transfer: Transfer) -> None:
    profile = profile_of(ImageState("rgb", "display", transfer, primaries))
    samples = numbers(primaries, transfer)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", iccprofile=profile)
    frame = read(tmp_path / "a.tif")
    np.testing.assert_array_equal(frame.pixels.permute(1, 2, 0).numpy(), samples)
    assert frame.metadata.color == (primaries, transfer) == (frame.state.primaries, frame.state.transfer)
    assert frame.metadata.icc == profile
    assert difference(light_of(frame), scene()) < 0.05


@pytest.mark.parametrize("bits", [8, 16])
def test_other_primaries_and_curves_become_linear_rec_2020(tmp_path: Path, bits: int) -> None:
    tifffile.imwrite(tmp_path / "a.tif", numbers("prophoto", 1.8, bits), photometric="rgb", iccprofile=PROPHOTO_18)
    frame = read(tmp_path / "a.tif")
    assert frame.state == ImageState("rgb", "display", "linear", "bt2020")
    assert frame.pixels.dtype == torch.float32
    assert frame.metadata.color is None
    assert frame.metadata.icc == PROPHOTO_18
    assert frame.notes == ()
    assert difference(light_of(frame), scene()) < (0.3 if bits == 8 else 0.05)


def test_one_picture_told_in_many_ways_is_one_picture(tmp_path: Path) -> None:
    files = {
        "gAMA 2.2 of Adobe RGB": png_with(
            tmp_path / "a.png", numbers("adobe-rgb", "gamma"), gama(2.2), chrm(CHROMATICITIES["adobe-rgb"])
        ),
        "gAMA 1.8 of Rec. 2020": png_with(
            tmp_path / "b.png", numbers("bt2020", 1.8), gama(1.8), chrm(CHROMATICITIES["bt2020"])
        ),
        "linear gAMA": png_with(tmp_path / "c.png", numbers("bt709", "linear"), gama(1.0)),
        "cHRM alone": png_with(tmp_path / "d.png", numbers("p3", "srgb"), chrm(CHROMATICITIES["p3"])),
        "cICP PQ": png_with(tmp_path / "e.png", numbers("bt2020", "pq"), chunk(b"cICP", bytes((9, 16, 0, 1)))),
        "cICP HLG": png_with(tmp_path / "f.png", numbers("p3", "hlg"), chunk(b"cICP", bytes((12, 18, 0, 1)))),
        "cICP gamma 2.8": png_with(tmp_path / "g.png", numbers("bt709", 2.8), chunk(b"cICP", bytes((1, 5, 0, 1)))),
    }
    primaries = {"rec2020": ("bt2020", 9), "p3": ("p3", 12)}
    for name, (space, code) in primaries.items():
        files[f"AVIF {name}"] = tmp_path / f"{name}.avif"
        coded = imagecodecs.avif_encode(
            np.ascontiguousarray(numbers(space, "srgb") >> 4),
            level=100,
            bitspersample=12,
            primaries=code,
            transfer=13,  # type: ignore[arg-type]
        )
        files[f"AVIF {name}"].write_bytes(coded)
    found = {name: difference(light_of(read(path)), scene()) for name, path in files.items()}
    assert {name: value for name, value in found.items() if value > 0.3} == {}
    assert {name: read(path).notes for name, path in files.items() if read(path).notes} == {}


def test_cicp_goes_before_icc_and_icc_before_gamma(tmp_path: Path) -> None:
    packed = chunk(b"iCCP", b"x\0\0" + zlib.compress(profile_of(ImageState(primaries="p3"))))
    samples = numbers("p3", "srgb")
    both = read(png_with(tmp_path / "a.png", samples, chunk(b"cICP", bytes((9, 16, 0, 1))), packed))
    assert both.metadata.color == ("bt2020", "pq") and both.metadata.icc == b""
    icc = read(png_with(tmp_path / "b.png", samples, gama(1.0), packed))
    assert icc.metadata.color == ("p3", "srgb") and icc.metadata.icc
    srgb = read(png_with(tmp_path / "c.png", samples, gama(1.0), chunk(b"sRGB", b"\0")))
    assert srgb.metadata.color == ("bt709", "srgb")
    usual = read(png_with(tmp_path / "d.png", samples, gama(2.2), chrm(CHROMATICITIES["bt709"])))
    assert usual.metadata.color == ("bt709", "srgb"), "0.45455 is what writers of sRGB put there"
    same = read(png_with(tmp_path / "e.png", samples, chunk(b"cICP", bytes((12, 13, 0, 1))), packed))
    assert same.metadata.icc, "a profile that tells the same stays"


@pytest.mark.parametrize("values", [(0,) * 8, (31270, 32900) * 4, (31270, 0, 64000, 33000, 30000, 60000, 15000, 6000)])
def test_chromaticities_of_no_colours_are_passed_over(tmp_path: Path, values: tuple[int, ...]) -> None:
    frame = read(png_with(tmp_path / "a.png", numbers("bt709", "srgb"), chunk(b"cHRM", struct.pack(">8I", *values))))
    assert frame.metadata.color == ("bt709", "srgb")


@pytest.mark.parametrize(
    ("code", "name"), [(4, "NTSC (1953)"), (5, "ITU-R BT.470 - 625"), (6, "SMPTE 240M"), (11, "DCI-P3")]
)
def test_code_points_are_those_of_the_recommendation(code: int, name: str) -> None:
    meaning, theirs = colorimetry.by_code_points(code, 1), colour.RGB_COLOURSPACES[name]
    assert isinstance(meaning, Described)
    space = meaning.chromaticities
    np.testing.assert_allclose([space.red, space.green, space.blue], theirs.primaries, atol=1e-3)
    np.testing.assert_allclose(space.white, theirs.whitepoint, atol=1e-3)
    assert colorimetry.by_code_points(2, 13) is None
    assert colorimetry.by_code_points(1, 2) is None


def test_the_camera_curve_is_that_of_rec_709() -> None:
    encoded = np.linspace(-0.2, 1.1, 200, dtype=np.float32)[None, :, None].repeat(3, 2)
    light = colorimetry.working(encoded, "rgb", Described(CHROMATICITIES["bt2020"], "camera-video"))
    expected = colour.models.oetf_inverse_BT709(np.abs(encoded[0, :, 0])) * np.sign(encoded[0, :, 0])
    np.testing.assert_allclose(light[1, 0], expected, atol=2e-4)


def test_a_profile_of_curves_and_matrix_is_as_littlecms_has_it() -> None:
    """Integers go by tables of what each channel gives alone; LittleCMS is asked for all pixels here."""
    samples = np.random.default_rng(3).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    profile = matrix_profile(WIDE, power(1.5))
    ours = colorimetry.working(samples, "rgb", profile)
    np.testing.assert_allclose(np.moveaxis(ours, 0, -1), cms.to_working(samples, profile), atol=2e-5)
    deep = samples.astype(np.uint16) * 257
    np.testing.assert_allclose(colorimetry.working(deep, "rgb", profile), ours, atol=2e-5)
    floats = (samples / 255).astype(np.float32)
    np.testing.assert_allclose(colorimetry.working(floats, "rgb", profile), ours, atol=2e-5)


def table_profile(space: bytes, nodes: dict[tuple[int, ...], tuple[float, float, float]]) -> bytes:
    """A profile whose A2B0 is a table (``mft2``) of two nodes a channel, given as CIELAB; curves are straight."""
    channels = len(next(iter(nodes)))
    head = b"mft2" + bytes(4) + struct.pack(">BBBx", channels, 3, 2)
    head += struct.pack(">9i", *(65536 * (row == column) for row in range(3) for column in range(3)))
    straight = struct.pack(">HH", 0, 65535)
    grid = b""
    for index in np.ndindex(*(2,) * channels):
        lightness, a, b = nodes[index]
        encoded = (lightness * 652.8, (a + 128) * 256, (b + 128) * 256)
        grid += struct.pack(">3H", *(min(65535, round(value)) for value in encoded))
    table = head + struct.pack(">HH", 2, 2) + straight * channels + grid + straight * 3
    return assembled({b"wtpt": fixed(0.9642, 1, 0.8249), b"A2B0": table}, space, b"Lab ")


INKS = {(1, 0, 0): (55, -37, -50), (0, 1, 0): (48, 74, -3), (0, 0, 1): (89, -5, 93), (0, 0, 0): (100, 0, 0)}
CMYK_PROFILE = table_profile(
    b"CMYK",
    {
        index: (0.0, 0.0, 0.0) if index[3] else tuple(map(float, INKS.get(index[:3], (25, 0, 0))))  # type: ignore[misc]
        for index in np.ndindex(2, 2, 2, 2)
    },
)
"""Black is 0, inks over each other are dark grays."""


def lab_light(lab: tuple[float, float, float]) -> NDArray[np.float64]:
    """Linear Rec. 2020 of CIELAB under D50, by colour-science."""
    xyz = colour.Lab_to_XYZ(np.array(lab), D50)
    light: NDArray[np.float64] = np.linalg.inv(rgb_to_xyz("bt2020")) @ adaptation(D50, D65) @ xyz
    return light


@pytest.mark.parametrize("kind", ["jpg", "tif"])
def test_ink_with_a_profile_is_what_its_table_says(tmp_path: Path, kind: str) -> None:
    ink = np.zeros((32, 80, 4), np.uint8)
    ink[:, 16:32, 0], ink[:, 32:48, 1], ink[:, 48:64, 2], ink[:, 64:, 3] = 255, 255, 255, 128
    if kind == "tif":
        tifffile.imwrite(tmp_path / "a.tif", ink, photometric="separated", iccprofile=CMYK_PROFILE)
    else:
        Image.fromarray(ink, "CMYK").save(tmp_path / "a.jpg", quality=100, icc_profile=CMYK_PROFILE)
    frame = read(tmp_path / f"a.{kind}")
    assert frame.state == ImageState("rgb", "display", "linear", "bt2020")
    assert (frame.metadata.color, frame.metadata.icc, frame.notes) == (None, CMYK_PROFILE, ())
    half = (100 * (1 - 128 / 255), 0, 0)
    for column, lab in zip(range(8, 80, 16), ((100, 0, 0), *list(INKS.values())[:3], half), strict=True):
        np.testing.assert_allclose(frame.pixels[:, 16, column].numpy(), lab_light(lab), atol=4e-3)


def test_tables_for_rgb_are_used(tmp_path: Path) -> None:
    """A table is not additive, so that every pixel goes through LittleCMS."""
    nodes = {index: (100.0 * sum(index) / 3, 40.0 * (index[0] - index[1]), 0.0) for index in np.ndindex(2, 2, 2)}
    profile = table_profile(b"RGB ", nodes)  # type: ignore[arg-type]
    samples = np.zeros((4, 300, 3), np.uint16)
    samples[:, 100:] = 65535
    samples[:, 200:, 1:] = 0
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", iccprofile=profile)
    frame = read(tmp_path / "a.tif")
    assert frame.metadata.color is None
    for column, lab in ((50, (0, 0, 0)), (150, (100, 0, 0)), (250, (100 / 3, 40, 0))):
        np.testing.assert_allclose(frame.pixels[:, 2, column].numpy(), lab_light(lab), atol=3e-3)


def test_ink_without_a_profile_is_turned_plainly_and_told(tmp_path: Path) -> None:
    ink = np.random.default_rng(2).integers(0, 256, (8, 9, 4), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", ink, photometric="separated")
    frame = read(tmp_path / "a.tif")
    assert frame.state == ImageState() and frame.metadata.color == ("bt709", "srgb")
    expected = (255.0 - ink[..., :3]) * (255.0 - ink[..., 3:]) / 255
    np.testing.assert_allclose(frame.pixels.permute(1, 2, 0).numpy(), expected, atol=0.51)
    assert "CMYK colours without a profile" in frame.notes[0]


def test_gray_stays_gray_under_any_profile(tmp_path: Path) -> None:
    gray = np.arange(256, dtype=np.uint8)[None].repeat(2, 0)
    profile = assembled({b"wtpt": fixed(0.9642, 1, 0.8249), b"kTRC": power(1.8)}, b"GRAY", b"XYZ ")
    Image.fromarray(gray).save(tmp_path / "a.png", icc_profile=profile)
    frame = read(tmp_path / "a.png")
    assert frame.state == ImageState("gray", "display", "linear", "bt2020")
    np.testing.assert_allclose(frame.pixels[0, 0].numpy(), (gray[0] / 255) ** (461 / 256), atol=1e-4)
    Image.fromarray(gray).save(tmp_path / "b.jpg", quality=100, icc_profile=PROPHOTO_18)
    neutral = read(tmp_path / "b.jpg")
    assert neutral.state.layout == "gray"
    np.testing.assert_allclose(neutral.pixels[0, 0].numpy(), (gray[0] / 255) ** (461 / 256), atol=2e-4)


@pytest.mark.parametrize(
    ("model", "profile"),
    [("rgb", CMYK_PROFILE), ("cmyk", PROPHOTO_18), ("rgb", b"nonsense"), ("rgb", CMYK_PROFILE[:200])],
)
def test_profiles_of_other_pictures_are_not_used(model: colorimetry.Model, profile: bytes) -> None:
    meaning, note = colorimetry.by_profile(profile, model)
    assert meaning == colorimetry.SRGB
    assert "not understood" in note


def test_the_working_space_is_not_clamped(tmp_path: Path) -> None:
    """The green of Wide Gamut RGB lies outside of Rec. 2020."""
    samples = np.zeros((4, 4, 3), np.uint8)
    samples[..., 1] = 255
    Image.fromarray(samples).save(tmp_path / "a.png", icc_profile=matrix_profile(WIDE, power(2.2)))
    assert read(tmp_path / "a.png").pixels.amin() < -0.01


@pytest.mark.parametrize("name", ["P3-sRGB-color-ring", "R2020-sRGB-color-bars", "rgb-to-gbr-test"])
def test_real_charts_are_as_littlecms_has_them(shared_data: Path, name: str) -> None:
    path = shared_data / "metadata" / "libjxl_widegamut" / f"{name}.png"
    frame = read(path)
    samples = np.asarray(Image.open(path).convert("RGB"))
    theirs = torch.from_numpy(cms.to_working(samples, frame.metadata.icc)).permute(2, 0, 1)
    assert difference(light_of(frame), transformed(theirs, conversion("bt2020", "bt709"))) < 0.3


PROFILES = sorted(Path("/usr/share/color/icc").glob("*/*.icc"))


@pytest.mark.skipif(not PROFILES, reason="needs the profiles of colord or Ghostscript (/usr/share/color/icc)")
def test_installed_profiles_give_what_littlecms_gives(tmp_path: Path) -> None:
    worst = {}
    for path in PROFILES:
        profile = path.read_bytes()
        if profile[16:20] != b"RGB ":
            continue
        samples = np.random.default_rng(5).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(samples).save(tmp_path / "a.png", icc_profile=profile)
        frame = read(tmp_path / "a.png")
        if frame.notes:
            continue
        theirs = torch.from_numpy(cms.to_working(samples, profile)).permute(2, 0, 1)
        worst[path.name] = difference(light_of(frame), transformed(theirs, conversion("bt2020", "bt709")))
    assert len(worst) > 3
    assert {name: value for name, value in worst.items() if value > 0.3} == {}
