"""Boxes of HEIF files put together by hand: items in the file and in the box of items, properties in their order."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from restorekit.io import bmff
from restorekit.io.samples import turned


def box(kind: bytes, *content: bytes, version: int | None = None, flags: int = 0) -> bytes:
    head = b"" if version is None else struct.pack(">I", version << 24 | flags)
    body = head + b"".join(content)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def entry(number: int, kind: bytes, name: bytes = b"", *, hidden: bool = False) -> bytes:
    return box(b"infe", struct.pack(">HH4s", number, 0, kind), b"\0", name, version=2, flags=int(hidden))


EXIF = b"II*\0\x08\0\0\0\0\0\0\0\0\0"
XMP = b"<x:xmpmeta/>"


def heif(
    properties: list[bytes],
    *,
    inside: bool = False,
    links: list[bytes] | None = None,
    extra: tuple[bytes, ...] = (),
    owner: int = 1,
) -> bytes:
    """A file whose item 1 is the picture, 2 an EXIF block and 3 an XMP packet; ``owner`` has the properties."""
    contents = {2: struct.pack(">I", 6) + b"Exif\0\0" + EXIF, 3: XMP}
    data = b"".join(contents.values())

    def meta(start: int) -> bytes:
        places, at = b"", 0 if inside else start
        for number, content in contents.items():
            places += struct.pack(">HHHHII", number, int(inside), 0, 1, at, len(content))
            at += len(content)
        entries = [entry(1, b"av01"), entry(2, b"Exif"), entry(3, b"mime", b"application/rdf+xml\0"), *extra]
        owned = bytes(range(1, len(properties) + 1))
        return box(
            b"meta",
            box(b"pitm", struct.pack(">H", 1), version=0),
            box(b"iinf", struct.pack(">H", len(entries)), *entries, version=0),
            box(b"iloc", struct.pack(">HH", 0x4400, len(contents)), places, version=1),
            box(b"iref", *(links or [box(b"cdsc", struct.pack(">HHH", 2, 1, 1))]), version=0),
            box(
                b"iprp",
                box(b"ipco", *properties),
                box(b"ipma", struct.pack(">IHB", 1, owner, len(owned)), owned, version=0),
            ),
            box(b"idat", data) if inside else b"",
            version=0,
        )

    head = box(b"ftyp", b"avif\0\0\0\0avifmif1")
    whole = head + meta(0)
    return head + meta(len(whole) + 8) + box(b"mdat", b"" if inside else data)


ISPE = box(b"ispe", struct.pack(">II", 300, 200), version=0)


@pytest.mark.parametrize("inside", [False, True])
def test_items_and_properties(inside: bool) -> None:
    nclx = box(b"colr", b"nclx", struct.pack(">HHHB", 9, 16, 9, 128))
    profile = box(b"colr", b"prof", b"the profile")
    pixi = box(b"pixi", bytes((3, 10, 10, 10)), version=0)
    data = heif([ISPE, nclx, profile, pixi], inside=inside)
    found = bmff.picture(data)
    assert (found.embedded.exif, found.embedded.xmp) == (EXIF, XMP)
    assert (found.embedded.icc, found.embedded.cicp) == (b"the profile", (9, 16))
    assert (found.width, found.height, found.bits) == (300, 200, 10)
    assert (found.orientation, found.crop, found.frames, found.pictures) == (1, None, 0, 1)
    assert found.has_item and not found.gain_map
    assert [bmff.missing_bytes(data + tail) for tail in (b"", bytes(5), bytes(40))] == [0, 0, 0]
    assert bmff.missing_bytes(data[:-1]) == 1
    assert bmff.missing_bytes(data[:21]) == 3


def test_turns_and_reflections_in_their_order() -> None:
    """irot turns anticlockwise; imir exchanges top and bottom (0) or left and right (1)."""
    image = np.arange(12).reshape(3, 4)[..., None]
    for turns in range(4):
        for axis in (None, 0, 1):
            for mirrored_first in (False, True):
                steps = [box(b"irot", bytes([turns]))] + ([] if axis is None else [box(b"imir", bytes([axis]))])
                steps = steps[::-1] if mirrored_first else steps
                expected = image if mirrored_first else np.rot90(image, turns)
                if axis is not None:
                    expected = expected[:, ::-1] if axis else expected[::-1]
                expected = np.rot90(expected, turns) if mirrored_first else expected
                found = bmff.picture(heif([ISPE, *steps]))
                np.testing.assert_array_equal(turned(image, found.orientation), expected)


def test_clean_apertures() -> None:
    """Width, height and the offset of its centre, as fractions."""
    clap = box(b"clap", struct.pack(">IIIIiIiI", 200, 1, 100, 1, 20, 2, -40, 1))
    assert bmff.picture(heif([ISPE, clap])).crop == (10, 60, 110, 260)
    odd = box(b"clap", struct.pack(">IIIIiIiI", 299, 1, 199, 1, -1, 2, -1, 2))
    assert bmff.picture(heif([ISPE, odd])).crop == (0, 0, 199, 299)
    outside = box(b"clap", struct.pack(">IIIIiIiI", 400, 1, 100, 1, 0, 1, 0, 1))
    assert bmff.picture(heif([ISPE, outside])).crop is None


def test_other_pictures_in_a_file() -> None:
    """Tiles, thumbnails, masks and hidden ones do not stand for themselves."""
    extra = (*(entry(number, b"av01") for number in range(4, 8)), entry(8, b"av01", hidden=True))
    links = [
        box(b"dimg", struct.pack(">HHH", 1, 1, 4)),
        box(b"thmb", struct.pack(">HHH", 5, 1, 1)),
        box(b"auxl", struct.pack(">HHH", 6, 1, 1)),
    ]
    assert bmff.picture(heif([ISPE], extra=extra, links=links)).pictures == 2


def test_gain_maps_are_told() -> None:
    apple = box(b"auxC", b"urn:com:apple:photo:2020:aux:hdrgainmap\0", version=0)
    assert bmff.picture(heif([ISPE, apple])).gain_map
    assert bmff.picture(heif([ISPE], extra=(entry(9, b"tmap"),))).gain_map


def test_what_is_damaged_is_passed_over() -> None:
    data = heif([ISPE, box(b"irot", b"\1")])
    for end in range(0, len(data), 3):
        found = bmff.picture(data[:end])
        assert found.embedded.exif in (b"", EXIF) or EXIF.startswith(found.embedded.exif)
    rng = np.random.default_rng(0)
    for _ in range(300):
        broken = bytearray(data)
        for at in rng.integers(0, len(data), 3):
            broken[at] = rng.integers(0, 256)
        bmff.picture(bytes(broken))


def test_a_grid_has_the_colours_of_its_tiles() -> None:
    """Phones tag the tiles of a picture and not the grid they make."""
    profile = box(b"colr", b"prof", b"the profile")
    tile = box(b"dimg", struct.pack(">HHH", 1, 1, 7))
    assert (
        bmff.picture(heif([profile], links=[tile], extra=(entry(7, b"hvc1"),), owner=7)).embedded.icc == b"the profile"
    )
    assert bmff.picture(heif([profile], extra=(entry(7, b"hvc1"),), owner=7)).embedded.icc == b""
