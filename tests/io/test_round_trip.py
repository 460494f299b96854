"""What each output format keeps: the table of docs/formats.md, each cell proven by writing and reading back.

Files are read by other libraries (Pillow, OpenCV, tifffile, OpenEXR, LittleCMS, imagecodecs' decoders) and by ours.
"""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import colour
import cv2
import imagecodecs
import numpy as np
import OpenEXR
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms, IptcImagePlugin, TiffImagePlugin

from restorekit.color.transfer import decode
from restorekit.facts import Camera, Facts, Metadata
from restorekit.frame import Frame
from restorekit.io import OutputSpec, read, write, write_ultrahdr
from restorekit.io.formats import FORMATS, losses, refusal
from restorekit.io.metadata import clean_exif
from restorekit.stages.raw import BlackLevel
from restorekit.state import AXES, ImageState

ROWS = [(name, bits) for name, kind in FORMATS.items() for bits in kind.bits]
HEIGHT, WIDTH = 24, 40
SOFTWARE = "restorekit 1.2.3 a-pipeline 0123456789abcdef"
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4"/></rdf:RDF></x:xmpmeta>'
)
IPTC = b"\x1c\x02\x00\x00\x02\x00\x04" + b"\x1c\x02\x78\x00\x05Words"
MAKER_NOTE = b"Maker\0" + bytes(range(200))
H273 = {"bt709": 1, "bt2020": 9, "p3": 12}, {"linear": 8, "srgb": 13, "pq": 16, "hlg": 18}


def exif_block() -> bytes:
    block = Image.Exif()
    block[271], block[274] = "Maker", 6
    photo = block.get_ifd(34665)
    photo[33434], photo[36867] = TiffImagePlugin.IFDRational(1, 250), "2024:02:29 23:59:58"
    photo[37521], photo[36881], photo[37500] = "25", "+02:00", MAKER_NOTE
    gps = block.get_ifd(34853)
    gps[1], gps[2] = "N", tuple(TiffImagePlugin.IFDRational(part, 1) for part in (48, 8, 0))
    gps[3], gps[4] = "E", tuple(TiffImagePlugin.IFDRational(part, 1) for part in (11, 34, 0))
    return clean_exif(block.tobytes().removeprefix(b"Exif\0\0"))


def picture(state: ImageState, alpha: bool = False) -> Frame:
    """Smooth colours with a dark corner at the top left, as floats, with all that a file can carry."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] / WIDTH
    channels = 3 if state.layout == "rgb" else 1
    planes = np.stack([0.5 + 0.3 * np.sin(4 * x + 3 * y + c) for c in range(channels)]).astype(np.float32)
    planes[:, :8, :8] = 0.0
    carried = Metadata(exif=exif_block(), xmp=XMP, iptc=IPTC)
    pixels = torch.from_numpy(planes)
    if state.is_mosaic:
        camera = Camera(make="Maker", cfa=("RG", "GB"))
        if state.reference == "scene":
            return Frame(pixels, state, camera=camera, facts=Facts(clip_level=(1.0,)), metadata=carried)
        base = Frame.from_bayer((pixels[0] * 65535).to(torch.uint16), pattern="RGGB", white=65535, camera=camera)
        return replace(base, metadata=carried)
    cover = torch.from_numpy((1 - x / 2).astype(np.float32))[None] if alpha else None
    return Frame(pixels, state, alpha=cover, metadata=carried)


def states(name: str, bits: int) -> list[ImageState]:
    """All states that a format holds in so many bits."""
    axes = ((r, t, p, layout) for r in AXES["reference"] for t in AXES["transfer"] for p in AXES["primaries"]
            for layout in ("rgb", "gray", "bayer"))  # fmt: skip
    made = [ImageState(layout, r, t, p) for r, t, p, layout in axes]  # type: ignore[arg-type]
    return [state for state in made if state.primaries != "icc" and refusal(name, bits, state) is None]


def usual(name: str, bits: int) -> ImageState:
    return next(
        (s for s in states(name, bits) if (s.primaries, s.transfer) == ("bt709", "srgb")), states(name, bits)[0]
    )


@dataclass
class Found:
    """What other libraries find in a file; ``tags`` are the names of its colour space by kind."""

    pixels: NDArray[Any]
    exif: Image.Exif | None = None
    xmp: bytes = b""
    iptc: bytes = b""
    tags: dict[str, Any] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)


def others(path: Path) -> Found:
    """A file as other libraries read it."""
    return {".tiff": by_tifffile, ".dng": by_tifffile, ".exr": by_openexr, ".jxl": by_boxes, ".hdr": by_opencv}.get(
        path.suffix, by_pillow
    )(path)


def by_pillow(path: Path) -> Found:
    image = Image.open(path)
    image.load()
    data = path.read_bytes()
    tags = {"ICC": image.info["icc_profile"]} if image.info.get("icc_profile") else {}
    pixels = np.asarray(image)
    if path.suffix == ".png":
        chunks = dict(png_chunks(data))
        assert (b"iCCP" in chunks) == ("ICC" in tags)
        tags |= {"sRGB chunk": True} if b"sRGB" in chunks else {}
        tags |= {"CICP": tuple(chunks[b"cICP"][:2])} if b"cICP" in chunks else {}
        if chunks[b"IHDR"][8] == 16:
            pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            pixels = pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    if path.suffix == ".avif":
        pixels = imagecodecs.avif_decode(data)
        primaries, transfer = struct.unpack_from(">2H", data, data.index(b"colrnclx") + 8)
        tags |= {"CICP": (primaries, transfer)} if (primaries, transfer) != (2, 2) else {}
    iptc = IptcImagePlugin.getiptcinfo(image)
    words = b"" if not iptc else bytes(iptc[(2, 120)])  # type: ignore[arg-type]
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp", "")
    return Found(pixels, image.getexif(), xmp if isinstance(xmp, bytes) else xmp.encode(), words, tags)


def by_tifffile(path: Path) -> Found:
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        found = {tag.code: tag.value for tag in page.tags}
        pixels = float24_tile(path, page) if page.bitspersample == 24 else page.asarray()
    exif = Image.Exif()
    exif.load(path.read_bytes())
    words = bytes(found[33723]).rpartition(b"\x05")[2] if 33723 in found else b""
    tags = {"ICC": found[34675]} if 34675 in found else {}
    return Found(pixels, exif, bytes(found.get(700, b"")), words, tags)


def float24_tile(path: Path, page: tifffile.TiffPage) -> NDArray[np.float32]:
    """The only tile of a page, whose 24-bit floats tifffile cannot bring out of the predictor."""
    at, size = page.dataoffsets[0], page.databytecounts[0]
    rows = np.frombuffer(zlib.decompress(path.read_bytes()[at : at + size]), np.uint8).reshape(page.tilelength, -1, 2)
    planes = np.cumsum(rows, axis=1, dtype=np.uint8).reshape(page.tilelength, 3, page.tilewidth)
    floats = imagecodecs.float24_decode(np.moveaxis(planes, 1, 2).tobytes(), byteorder=">")
    tile: NDArray[np.float32] = floats.reshape(page.tilelength, -1)[: page.imagelength, : page.imagewidth]
    return tile


def by_openexr(path: Path) -> Found:
    with OpenEXR.File(str(path)) as file:
        header, channels = dict(file.header()), file.channels()
        pixels = np.concatenate([np.atleast_3d(channels[name].pixels) for name in sorted(channels, reverse=True)], 2)
    xmp = header.get("xmp", "").encode()
    return Found(pixels, xmp=xmp, header=header, tags={"chromaticities": header["chromaticities"]})


def by_opencv(path: Path) -> Found:
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    line = next(line for line in path.read_bytes().splitlines() if line.startswith(b"PRIMARIES="))
    return Found(pixels[..., ::-1], tags={"chromaticities": [float(word) for word in line[10:].split()]})


def by_boxes(path: Path) -> Found:
    data = path.read_bytes()
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        found[kind] = data[at + 8 : at + size]
        at += size
    exif = Image.Exif()
    exif.load(b"Exif\0\0" + found[b"Exif"][4:])
    return Found(imagecodecs.jpegxl_decode(data), exif, found.get(b"xml ", b""), tags={"codestream": True})


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, data[at + 8 : at + 8 + length]
        at += 12 + length


@cache
def folder() -> Path:
    import tempfile

    return Path(tempfile.mkdtemp(prefix="restorekit-round-trip-"))


@pytest.fixture(scope="module", autouse=True)
def _cleared() -> Iterator[None]:
    yield
    shutil.rmtree(folder(), ignore_errors=True)
    folder.cache_clear()
    written.cache_clear()


@cache
def written(spec: OutputSpec, state: ImageState, alpha: bool = False, orientation: int = 1) -> Path:
    """A file with everything that a frame can carry."""
    frame = picture(state, alpha)
    frame = replace(frame, metadata=replace(frame.metadata, orientation=orientation))
    number = len(list(folder().iterdir()))
    path = folder() / f"{number}.{spec.format}"
    if spec.format == "ultrahdr":
        light = frame.with_pixels(decode(frame.pixels, "srgb") * 2)
        light = replace(light, state=frame.state.changed({"transfer": "linear"}))
        return write_ultrahdr(frame, light, path, spec, software=SOFTWARE)
    return write(frame, path, spec, software=SOFTWARE)


def expected(frame: Frame, spec: OutputSpec) -> NDArray[Any]:
    """The samples that a file should hold, alpha last."""
    planes = frame.pixels if frame.alpha is None else torch.cat((frame.pixels, frame.alpha))
    values = np.squeeze(planes.permute(1, 2, 0).numpy())
    if frame.state.is_mosaic and frame.state.reference == "scene":
        mantissa, exponent = np.frexp(values * np.float32(1 << 14))  # numbers below a white level of 15 bits
        digits = {16: 11, 24: 17, 32: 24}[spec.depth]
        numbers = np.ldexp(np.round(np.ldexp(mantissa, digits)), exponent - digits)
        return numbers.astype(np.float16 if spec.depth == 16 else np.float32)
    if frame.state.is_mosaic:
        return values
    if spec.depth == 32 or spec.format == "exr":
        return values.astype(np.float32 if spec.depth == 32 else np.float16)
    return np.rint(values * np.float32(2**spec.depth - 1)).astype(np.uint8 if spec.depth == 8 else np.uint16)


def all_or_none(*proofs: bool) -> str:
    assert len(set(proofs)) == 1, f"only some of it is kept: {proofs}"
    return "yes" if proofs[0] else "no"


class Prove:
    """Each method finds out what a cell of the table has to say."""

    @staticmethod
    def samples(name: str, bits: int) -> str:
        kinds, found = {}, set()
        made = sorted(states(name, bits), key=lambda state: state.layout == "rgb")
        for state in {state.reference: state for state in (*made, usual(name, bits))}.values():
            for compression in FORMATS[name].compressions:
                spec = OutputSpec(format=name, bits=bits, compression=compression)  # type: ignore[arg-type]
                pixels = np.squeeze(others(written(spec, state)).pixels)
                wanted = expected(picture(state), spec)
                assert (pixels.shape, pixels.dtype) == (wanted.shape, wanted.dtype)
                difference = np.abs(pixels.astype(np.float64) - wanted).mean()
                assert difference < (0.01 if wanted.dtype.kind == "f" else 0.015 * 2**bits)
                ours = read(written(spec, state)).as_float()
                ours = BlackLevel()(ours) if (state.is_mosaic, state.reference) == (True, "scene") else ours
                against = torch.from_numpy(picture(state).as_float().pixels.numpy())
                assert (ours.pixels - against).abs().mean() < 0.015
                found.add("lossless" if difference == 0 else "lossy")
                kinds[{"u": "integers", "f": "half floats" if bits == 16 else "floats"}[wanted.dtype.kind]] = None
        return f"{' or '.join(kinds)}, {' or '.join(sorted(found, reverse=True))}"

    @staticmethod
    def alpha(name: str, bits: int) -> str:
        spec = OutputSpec(format=name, bits=bits)  # type: ignore[arg-type]
        frame = picture(usual(name, bits), alpha=True)
        if frame.alpha is None:
            return "no"
        path = written(spec, frame.state, alpha=True)
        pixels, ours = others(path).pixels, read(path).as_float().alpha
        kept = pixels.shape[2] == 4
        if kept:
            wanted = expected(frame, spec)[..., 3].astype(np.float64)
            assert np.abs(pixels[..., 3] - wanted).max() <= (0 if wanted.max() > 1 else 1e-3)
            assert ours is not None
            assert (ours - frame.alpha).abs().max() < 0.5 / 255 + 1e-6
        assert any("transparency" in text for text in losses(spec, True)) is not kept
        return all_or_none(kept, ours is not None)

    @staticmethod
    def colour(name: str, bits: int) -> str:
        found: dict[str, None] = {}
        for state in states(name, bits):
            if not state.is_mosaic:
                found |= dict.fromkeys(others(written(OutputSpec(format=name, bits=bits), state)).tags)  # type: ignore[arg-type]
        return ", ".join(found) or "camera"

    @staticmethod
    def transfer(name: str, bits: int) -> str:
        found: dict[str, None] = {}
        for state in states(name, bits):
            back = read(written(OutputSpec(format=name, bits=bits), state)).state  # type: ignore[arg-type]
            assert back.transfer == state.transfer
            assert back.primaries == state.primaries or state.layout == "gray"
            found[back.transfer] = None
        return ", ".join(found)

    @staticmethod
    def exif(name: str, bits: int) -> str:
        path = written(OutputSpec(format=name, bits=bits), usual(name, bits))  # type: ignore[arg-type]
        found = others(path)
        if found.exif is None and not found.header:
            return all_or_none(bool(read(path).metadata.exif))
        if found.exif is None:
            wanted = {"software": SOFTWARE, "cameraMake": "Maker", "capDate": "2024:02:29 23:59:58",
                      "utcOffset": -7200.0, "latitude": 48 + 8 / 60, "longitude": 11 + 34 / 60}  # fmt: skip
            for key, value in wanted.items():
                assert found.header[key] == (pytest.approx(value) if isinstance(value, float) else value)
            return "as attributes"
        photo, gps = found.exif.get_ifd(34665), found.exif.get_ifd(34853)
        mine = Image.Exif()
        mine.load(b"Exif\0\0" + read(path).metadata.exif)
        return all_or_none(
            found.exif.get(305) == SOFTWARE,
            found.exif.get(271) == mine.get(271) == "Maker",
            (photo.get(36867), photo.get(37521), photo.get(36881)) == ("2024:02:29 23:59:58", "25", "+02:00"),
            photo.get(33434) == mine.get_ifd(34665).get(33434) == TiffImagePlugin.IFDRational(1, 250),
            (gps.get(1), gps.get(2)) == ("N", (48, 8, 0)),
            mine.get_ifd(34853).get(2) == (48, 8, 0),
        )

    @staticmethod
    def maker_note(name: str, bits: int) -> str:
        path = written(OutputSpec(format=name, bits=bits), usual(name, bits))  # type: ignore[arg-type]
        exif = others(path).exif
        return all_or_none(exif is not None and exif.get_ifd(34665).get(37500) == MAKER_NOTE)

    @staticmethod
    def xmp(name: str, bits: int) -> str:
        spec = OutputSpec(format=name, bits=bits)  # type: ignore[arg-type]
        path = written(spec, usual(name, bits))
        said = any("XMP" in text for text in losses(spec, False, Metadata(xmp=XMP)))
        kept = others(path).xmp
        whole = b'Rating="4"' in kept if name == "ultrahdr" else kept == XMP  # which has to say more in its packet
        return all_or_none(whole, b'Rating="4"' in read(path).metadata.xmp, not said)

    @staticmethod
    def iptc(name: str, bits: int) -> str:
        spec = OutputSpec(format=name, bits=bits)  # type: ignore[arg-type]
        path = written(spec, usual(name, bits))
        said = any("IPTC" in text for text in losses(spec, False, Metadata(iptc=IPTC)))
        return all_or_none(others(path).iptc == b"Words", read(path).metadata.iptc == IPTC, not said)

    @staticmethod
    def orientation(name: str, bits: int) -> str:
        """Orientation 6 turns the dark corner to the top right."""
        state = usual(name, bits)
        path = written(OutputSpec(format=name, bits=bits), state, orientation=6)  # type: ignore[arg-type]
        found, ours = others(path), read(path)
        if state.is_mosaic:
            assert found.exif is not None
            assert (found.exif.get(274), ours.metadata.orientation) == (6, 6)
            return "kept"
        assert found.pixels.shape[:2] == (ours.height, ours.width) == (WIDTH, HEIGHT)
        assert found.pixels[:6, -6:].max() < 0.1 * found.pixels.max() < found.pixels[-6:].max()
        assert ours.metadata.orientation == 1
        assert found.exif is None or found.exif.get(274, 1) == 1
        return "applied"


COLUMNS = {
    "samples": Prove.samples,
    "alpha": Prove.alpha,
    "transfer functions": Prove.transfer,
    "colour space told by": Prove.colour,
    "EXIF": Prove.exif,
    "maker note": Prove.maker_note,
    "XMP": Prove.xmp,
    "IPTC": Prove.iptc,
    "orientation": Prove.orientation,
}


def table(text: str, first: str) -> dict[tuple[str, ...], dict[str, str]]:
    """The Markdown table whose header begins with a cell, by its first two columns."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {first} |"))
    header = cells(lines[start])
    found = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        row = dict(zip(header, cells(line), strict=True))
        found[tuple(list(row.values())[:2])] = row
    return found


def cells(line: str) -> list[str]:
    return [cell.strip().strip("`") for cell in line.strip("|").split("|")]


@pytest.fixture(scope="session")
def documented(checkout: Path) -> str:
    return (checkout / "docs" / "formats.md").read_text(encoding="utf-8")


def test_the_documented_table_has_a_row_for_each_depth_of_each_format(documented: str) -> None:
    assert list(table(documented, "written as")) == [(name, str(bits)) for name, bits in ROWS]
    assert all(list(row)[2:] == list(COLUMNS) for row in table(documented, "written as").values())


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize(("name", "bits"), ROWS)
def test_a_cell_of_the_documented_table(documented: str, name: str, bits: int, column: str) -> None:
    assert table(documented, "written as")[name, str(bits)][column] == COLUMNS[column](name, bits)


def test_the_documented_choices_are_those_of_the_table_of_formats(documented: str) -> None:
    wanted = {
        (name, " ".join(kind.extensions)): {
            "bits": ", ".join(map(str, kind.bits)),
            "compression": ", ".join(kind.compressions),
            "primaries": ", ".join(kind.primaries),
            "longest side, px": str(kind.largest_px) if kind.largest_px < 1 << 31 - 1 else "",
        }
        for name, kind in FORMATS.items()
    }
    found = table(documented, "format")
    assert list(found) == list(wanted)
    assert {key: {name: row[name] for name in wanted[key]} for key, row in found.items()} == wanted


WALK = [(name, bits, state) for name, bits in ROWS for state in states(name, bits) if not state.is_mosaic]


@pytest.mark.parametrize(
    ("name", "bits", "state"), WALK, ids=lambda value: str(value) if not isinstance(value, str) else value
)
def test_each_file_tells_its_colour_space_once_and_rightly(name: str, bits: int, state: ImageState) -> None:
    path = written(OutputSpec(format=name, bits=bits), state)  # type: ignore[arg-type]
    ((kind, tag),) = others(path).tags.items()
    if kind == "ICC":
        assert_profile_is(tag, state, gray=state.layout == "gray" and name != "webp")
    elif kind == "CICP":
        assert tag == (H273[0][state.primaries], H273[1][state.transfer])
    elif kind == "sRGB chunk":
        assert (state.primaries, state.transfer) == ("bt709", "srgb")
    elif kind == "chromaticities":
        if state.primaries not in ("xyz", "ap1"):
            space = colour_space(state.primaries)
            np.testing.assert_allclose(tag, [*np.ravel(space.primaries), *space.whitepoint], atol=1e-3)
    else:
        assert (name, state.primaries) == ("jxl", "bt709")


def colour_space(primaries: str) -> colour.RGB_Colourspace:
    names = {"bt709": "sRGB", "p3": "Display P3", "bt2020": "ITU-R BT.2020", "adobe-rgb": "Adobe RGB (1998)",
             "prophoto": "ProPhoto RGB"}  # fmt: skip
    return colour.RGB_COLOURSPACES[names[primaries]]


def assert_profile_is(profile: bytes, state: ImageState, *, gray: bool) -> None:
    """LittleCMS takes patches by the profile to sRGB, as colour-science does by its own numbers."""
    patches = np.array([[[160, 140, 120], [120, 150, 140], [200, 190, 205], [100, 100, 100]]], np.uint8)
    if gray:
        patches = patches[..., 0]
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    target = ImageCms.createProfile("sRGB")
    image = Image.fromarray(patches)
    found = np.asarray(ImageCms.profileToProfile(image, source, target, renderingIntent=1, outputMode="RGB"))
    encoded = patches / 255
    light = {
        "srgb": colour.models.eotf_sRGB(encoded),
        "gamma": encoded**2.2,
        "linear": encoded,
    }[state.transfer]
    if gray:
        linear = np.repeat(light[..., None], 3, 2)
    else:
        linear = colour.RGB_to_RGB(
            light,
            colour_space(state.primaries),
            colour.RGB_COLOURSPACES["sRGB"],
            chromatic_adaptation_transform="Bradford",
        )
    wanted = 255 * colour.models.eotf_inverse_sRGB(np.clip(linear, 0, 1))
    np.testing.assert_allclose(found, wanted, atol=2)


@pytest.mark.parametrize(("bits", "transfer"), [(8, "srgb"), (16, "linear")])
@pytest.mark.parametrize("layout", ["rgb", "gray"])
def test_openimageio_finds_the_colour_space_of_jpeg_xl(bits: int, transfer: str, layout: str) -> None:
    oiio = pytest.importorskip("OpenImageIO")
    state = ImageState(layout, "display", transfer, "bt709")  # type: ignore[arg-type]
    path = written(OutputSpec(format="jxl", bits=bits), state)
    codes = oiio.ImageInput.open(str(path)).spec().getattribute("CICP")
    assert codes[0] == (1 if layout == "rgb" else 0)
    assert codes[1] == H273[1][transfer]


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="needs exiftool")
@pytest.mark.parametrize("name", ["jpeg", "ultrahdr", "png", "tiff", "webp", "avif", "jxl", "dng"])
def test_exiftool_reads_the_metadata_without_complaint(name: str) -> None:
    spec = OutputSpec(format=name)  # type: ignore[arg-type]
    path = written(spec, usual(name, spec.depth))
    tags = (
        "Software",
        "SubSecTimeOriginal",
        "OffsetTimeOriginal",
        "Rating",
        "GPSLatitude",
        "Caption-Abstract",
        "Validate",
    )
    command = ["exiftool", "-s", "-n", *(f"-{tag}" for tag in tags), str(path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = dict((part.strip() for part in line.split(":", 1)) for line in said.splitlines())
    assert (found["Software"], found["Rating"]) == (SOFTWARE, "4")
    assert (found["SubSecTimeOriginal"], found["OffsetTimeOriginal"]) == ("25", "+02:00")
    assert float(found["GPSLatitude"]) == pytest.approx(48 + 8 / 60)
    assert found.get("Caption-Abstract") == ("Words" if "iptc" in FORMATS[name].metadata else None)
