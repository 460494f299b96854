"""Pictures written row by row: the files of the whole writer, in any pieces, and nothing left of what failed."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from restorekit.errors import OutputError
from restorekit.facts import Metadata
from restorekit.frame import Frame, Region
from restorekit.io import OutputSpec, exif_size, metadata, png_write, read, stream, tiff_write, write
from restorekit.io.icc import profile_of
from restorekit.io.samples import Samples
from restorekit.io.stream import file_shape, open_stream, outline, streams
from restorekit.io.tiff import ASCII, LONG8, RATIONAL, SHORT, UNDEFINED, Field
from restorekit.state import SHORTHANDS, ImageState

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/></x:xmpmeta>'
SPECS = [
    OutputSpec(format="png"),
    OutputSpec(format="png", compression="small"),
    OutputSpec(format="png", bits=16),
    OutputSpec(format="png", bits=16, compression="small"),
    OutputSpec(format="tiff", bits=8),
    OutputSpec(format="tiff"),
    OutputSpec(format="tiff", bits=32),
    OutputSpec(format="tiff", bits=8, compression="deflate"),
    OutputSpec(format="tiff", compression="zstd"),
    OutputSpec(format="tiff", bits=32, compression="deflate"),
]
NAMES = [f"{spec.format}-{spec.depth}-{spec.compression}" for spec in SPECS]


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of few rows, so that small pictures have several."""
    monkeypatch.setattr(png_write, "BLOCK_BYTES", 2000)
    monkeypatch.setattr(tiff_write, "STRIP_BYTES", 2000)


def exif_block() -> bytes:
    return metadata.exif_bytes(
        {
            271: Field.of(ASCII, "Maker"),
            exif_size.X_RESOLUTION: Field.of(RATIONAL, (300,)),
            exif_size.Y_RESOLUTION: Field.of(RATIONAL, (240,)),
            exif_size.RESOLUTION_UNIT: Field.of(SHORT, (2,)),
            metadata.EXIF_IFD: {
                metadata.EXPOSURE_TIME: Field.of(RATIONAL, (0.004,)),
                metadata.MAKER_NOTE: Field.of(UNDEFINED, b"Maker\0" + bytes(range(200))),
            },
        }
    )


def picture(spec: OutputSpec, *, gray: bool = False, alpha: bool = False, size: tuple[int, int] = (61, 47)) -> Frame:
    """Noise over a gradient in the type of the file, in Display P3, with metadata."""
    rng = np.random.default_rng(3)
    channels = (1 if gray else 3) + alpha
    values = np.linspace(0, 1, size[0] * size[1]).reshape(1, *size) * 0.9 + rng.random((channels, *size)) * 0.1
    kind = {8: np.uint8, 16: np.uint16, 32: np.float32}[spec.depth]
    most = 1.0 if spec.depth == 32 else float(2**spec.depth - 1)
    planes = torch.from_numpy((values * most).astype(kind))
    state = ImageState("gray" if gray else "rgb").changed({"primaries": "p3"})
    carried = Metadata(exif=exif_block(), xmp=XMP, iptc=b"\x1c\x02\x78\x00\x04text", icc=profile_of(state))
    colors = channels - alpha
    return Frame(planes[:colors], state, alpha=planes[colors:] if alpha else None, metadata=carried)


def samples_of(frame: Frame) -> Samples:
    planes = frame.pixels if frame.alpha is None else torch.cat((frame.pixels, frame.alpha))
    return planes.numpy().transpose(1, 2, 0)


def in_rows(path: Path, frame: Frame, spec: OutputSpec, rows: int) -> Path:
    """The frame written in pieces of so many rows, from what tells no pixels."""
    empty = outline(replace(frame.rows(0, 1), region=Region(0, frame.height)))
    with open_stream(path, empty, spec) as writer:
        for top in range(0, frame.height, rows):
            writer.write(samples_of(frame)[top : top + rows])
    return path


def chunks(path: Path) -> Iterator[tuple[bytes, bytes]]:
    data, at = path.read_bytes(), 8
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, data[at + 8 : at + 8 + length]
        at += 12 + length


def equal(first: Frame, second: Frame) -> None:
    assert torch.equal(first.pixels, second.pixels)
    assert (first.alpha is None) == (second.alpha is None)
    if first.alpha is not None and second.alpha is not None:
        assert torch.equal(first.alpha, second.alpha)
    assert (first.state, first.metadata, first.exposure) == (second.state, second.metadata, second.exposure)


@pytest.mark.parametrize("alpha", [False, True], ids=["opaque", "alpha"])
@pytest.mark.parametrize("gray", [False, True], ids=["rgb", "gray"])
@pytest.mark.parametrize("spec", SPECS, ids=NAMES)
def test_a_file_is_what_the_whole_writer_makes(tmp_path: Path, spec: OutputSpec, gray: bool, alpha: bool) -> None:
    frame = picture(spec, gray=gray, alpha=alpha)
    ours, whole = in_rows(tmp_path / "rows", frame, spec, 7), write(frame, tmp_path / "whole", spec)
    if spec.format == "tiff":
        assert ours.read_bytes() == whole.read_bytes()
    else:
        others = [[item for item in chunks(path) if item[0] != b"IDAT"] for path in (ours, whole)]
        assert others[0] == others[1]
        assert {b"iCCP", b"pHYs", b"eXIf", b"iTXt"} <= {kind for kind, _ in others[0]}
        assert sum(kind == b"IDAT" for kind, _ in chunks(ours)) > 1
    equal(read(ours), read(whole))
    told = read(ours)
    equal(replace(frame, state=told.state, metadata=told.metadata, exposure=told.exposure), told)


@pytest.mark.parametrize("spec", SPECS, ids=NAMES)
def test_pieces_do_not_show(tmp_path: Path, spec: OutputSpec) -> None:
    frame = picture(spec)
    whole = in_rows(tmp_path / "whole", frame, spec, frame.height).read_bytes()
    for rows in (1, 5, 14, 60):
        assert in_rows(tmp_path / f"{rows}", frame, spec, rows).read_bytes() == whole


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1)])
@pytest.mark.parametrize("spec", SPECS, ids=NAMES)
def test_any_shape_is_read_alike_by_others(tmp_path: Path, spec: OutputSpec, size: tuple[int, int]) -> None:
    frame = picture(spec, size=size)
    path = in_rows(tmp_path / "a", frame, spec, 100)
    if spec.format == "tiff":
        np.testing.assert_array_equal(tifffile.imread(path).reshape(*size, 3), samples_of(frame))
    else:
        found = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(found[..., ::-1], samples_of(frame))


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("bits", [8, 16, 32])
def test_tiff_above_4_gb_is_bigtiff(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: int, compression: str
) -> None:
    spec = OutputSpec(format="tiff", bits=bits, compression=compression)
    frame = picture(spec, alpha=True)
    classic = in_rows(tmp_path / "classic", frame, spec, 9)
    monkeypatch.setattr(tiff_write, "CLASSIC_BYTES", 1000)
    big = in_rows(tmp_path / "big", frame, spec, 9)
    assert write(frame, tmp_path / "whole", spec).read_bytes() == big.read_bytes()
    assert classic.read_bytes()[:4] == b"II\x2a\0"
    assert big.read_bytes()[:8] == b"II\x2b\0\x08\0\0\0"
    with tifffile.TiffFile(big) as file, tifffile.TiffFile(classic) as small:
        assert file.is_bigtiff
        page, other = file.pages.first, small.pages.first
        np.testing.assert_array_equal(page.asarray(), samples_of(frame))
        assert page.tags["StripOffsets"].dtype == LONG8
        assert {tag.code for tag in page.tags} == {tag.code for tag in other.tags}
        for tag in (tag for tag in page.tags if tag.code not in (273, 279, 34665)):
            assert tag.value == other.tags[tag.code].value, tag.name
        details = page.tags[34665].value
        assert details["ExposureTime"] == (1, 250)
        assert details["MakerNote"] == b"Maker\0" + bytes(range(200))
    found = Image.open(big) if bits == 8 else None  # the depth that Pillow knows
    if found is not None:
        np.testing.assert_array_equal(np.asarray(found), samples_of(frame))
    equal(replace(read(big), metadata=Metadata(), exposure=frame.exposure), replace(frame, metadata=Metadata()))


@pytest.mark.parametrize("spec", [SPECS[0], SPECS[5]], ids=["png", "tiff"])
def test_nothing_is_left_of_what_is_given_up(tmp_path: Path, spec: OutputSpec) -> None:
    frame = picture(spec)
    before = tmp_path / "a"
    before.write_bytes(b"what was there")
    writer = open_stream(before, frame, spec)
    writer.write(samples_of(frame)[:20])
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a", "a.part"]
    writer.abort()
    writer.abort()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert before.read_bytes() == b"what was there"
    with pytest.raises(OutputError, match="not written any more"):
        writer.write(samples_of(frame)[20:])
    with pytest.raises(RuntimeError, match="elsewhere"), open_stream(before, frame, spec):
        raise RuntimeError("elsewhere")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("spec", [SPECS[0], SPECS[5]], ids=["png", "tiff"])
def test_a_finished_file_stays(tmp_path: Path, spec: OutputSpec) -> None:
    frame = picture(spec)
    writer = open_stream(tmp_path / "a", frame, spec)
    writer.write(samples_of(frame))
    assert writer.close() == tmp_path / "a"
    writer.abort()
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("spec", [SPECS[0], SPECS[5]], ids=["png", "tiff"])
def test_rows_that_do_not_fit_are_refused_and_nothing_is_left(tmp_path: Path, spec: OutputSpec) -> None:
    frame = picture(spec)
    rows = samples_of(frame)

    def written(*pieces: Samples) -> None:
        with open_stream(tmp_path / "a", frame, spec) as writer:
            for piece in pieces:
                writer.write(piece)

    def refused(match: str, *pieces: Samples) -> None:
        with pytest.raises(OutputError, match=match):
            written(*pieces)
        assert list(tmp_path.iterdir()) == []

    refused("has 60 of its 61 rows", rows[:60])
    refused("has 0 of its 61 rows")
    refused("more than its 61 rows", rows, rows[:1])
    refused("convert them", rows[:, :-1])
    refused("convert them", rows[..., :1])
    refused("convert them", rows.astype(np.float64))


def test_a_full_disk_is_told_in_words_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = OutputSpec(format="tiff", bits=8)
    frame = picture(spec)
    writer = open_stream(tmp_path / "a", frame, spec)

    def full(*_: object) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tiff_write, "_strip", full)
    for _ in range(2):
        with pytest.raises(OutputError, match="the disk is full"):
            writer.write(samples_of(frame))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OutputError, match="there is no folder"):
        open_stream(tmp_path / "missing" / "a", frame, spec)


def test_only_what_can_come_row_by_row_is_opened(tmp_path: Path) -> None:
    png = OutputSpec(format="png", bits=16)
    frame = picture(png)
    turned = replace(frame, metadata=replace(frame.metadata, orientation=6))
    cropped = replace(frame, metadata=replace(frame.metadata, crop=(0, 0, 9, 9)))
    bright = replace(frame, state=frame.state.changed({"transfer": "pq", "primaries": "bt2020"}))
    hlg = replace(frame, state=frame.state.changed({"transfer": "hlg", "primaries": "bt2020"}))
    assert streams(frame, png) and streams(hlg, png)
    for other, spec in ((turned, png), (cropped, png), (bright, png), (frame, OutputSpec(format="webp"))):
        assert not streams(other, spec)
        with pytest.raises(OutputError, match="write it whole"):
            open_stream(tmp_path / "a", other, spec)
    with pytest.raises(OutputError, match="tone-mapping"):
        open_stream(tmp_path / "a", replace(frame, state=SHORTHANDS["scene-linear"]), png)
    assert list(tmp_path.iterdir()) == []


def test_an_outline_takes_no_memory(tmp_path: Path) -> None:
    strip = replace(picture(SPECS[0], alpha=True), region=Region(100, 1 << 30))
    whole = outline(strip)
    assert (whole.height, whole.width, whole.region) == (1 << 30, 47, None)
    assert file_shape(whole, SPECS[0]) == (1 << 30, 47, 4)
    assert whole.pixels.untyped_storage().nbytes() < 100
    assert stream.FORMATS_IN_ROWS == ("png", "tiff")
