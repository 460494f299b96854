"""What of a picture's metadata may be published: all, all but the place, or nothing."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from restorekit.facts import Exposure, Metadata
from restorekit.frame import Frame
from restorekit.io import metadata, read, write
from restorekit.io.privacy import exif_without_place, iptc_without_place, private, xmp_without_place
from restorekit.io.tiff import Field, Tree
from restorekit.io.xmp import RDF, XMP, Packet

NOTE = b"Apple iOS\0\0\1MM" + b"\0\0" + b"latitude 48.137"


def exif() -> bytes:
    gps: Tree = {1: Field.of(2, "N"), 2: Field.of(5, (48, 8, 0)), 29: Field.of(2, "2024:02:29")}
    photo: Tree = {33434: Field.of(5, (0.004,)), 37500: Field.of(7, NOTE), 42033: Field.of(2, "body 123")}
    return metadata.exif_bytes({271: Field.of(2, "Maker"), 315: Field.of(2, "somebody"), 34665: photo, 34853: gps})


def packet(*descriptions: str) -> bytes:
    body = "".join(descriptions)
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}">{body}</rdf:RDF></x:xmpmeta>'.encode()


SPACES = {
    "exif": "http://ns.adobe.com/exif/1.0/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "Iptc4xmpCore": "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "geo": "http://www.w3.org/2003/01/geo/wgs84_pos#",
    "drone-dji": "http://www.dji.com/drone-dji/1.0/",
    "mwg-coll": "http://www.metadataworkinggroup.com/schemas/collections/",
    "xmp": XMP,
    "dc": "http://purl.org/dc/elements/1.1/",
    "odd": "http://example.com/",
}
PLACES = (
    'exif:GPSLatitude="48,8.2N"',
    'exif:GPSAltitude="519/1"',
    'photoshop:City="Munich"',
    'photoshop:State="Bavaria"',
    'photoshop:Country="Germany"',
    'Iptc4xmpCore:Location="Marienplatz"',
    'Iptc4xmpCore:CountryCode="DE"',
    'geo:lat="48.1"',
    'geo:long="11.5"',
    'drone-dji:GpsLatitude="48.1"',
    'drone-dji:AbsoluteAltitude="+519"',
    'odd:gpsTrack="1"',
    'dc:coverage="Munich"',
)
SHOWN = (
    "<Iptc4xmpExt:LocationShown><rdf:Bag><rdf:li><rdf:Description Iptc4xmpExt:City='Munich'/></rdf:li></rdf:Bag>"
    "</Iptc4xmpExt:LocationShown>"
)
NESTED = (
    "<mwg-coll:Collections><rdf:Bag><rdf:li><odd:Country>Germany</odd:Country></rdf:li></rdf:Bag>"
    "</mwg-coll:Collections>"
)
TITLE = '<dc:title><rdf:Alt><rdf:li xml:lang="x-default">Markets</rdf:li></rdf:Alt></dc:title>'


def about(attributes: str = "", inside: str = "") -> str:
    declared = " ".join(f'xmlns:{prefix}="{space}"' for prefix, space in SPACES.items())
    return f'<rdf:Description rdf:about="" {declared} {attributes}>{inside}</rdf:Description>'


@pytest.mark.parametrize("place", PLACES)
def test_every_form_of_a_place_leaves_xmp(place: str) -> None:
    cleaned = xmp_without_place(packet(about(f'{place} xmp:Rating="4"', TITLE)))
    assert set(Packet(cleaned).values) == {(XMP, "Rating"), (SPACES["dc"], "title")}


@pytest.mark.parametrize("inside", [SHOWN, NESTED])
def test_places_inside_of_structures_leave_xmp(inside: str) -> None:
    cleaned = xmp_without_place(packet(about('xmp:Rating="4"', TITLE + inside)))
    assert set(Packet(cleaned).values) == {(XMP, "Rating"), (SPACES["dc"], "title")}


def test_a_packet_that_cannot_be_cleaned_for_certain_is_left_out() -> None:
    outside = packet(about('xmp:Rating="4"')).replace(
        b"<rdf:RDF", b'<o:GPSPosition xmlns:o="o:">48</o:GPSPosition><rdf:RDF'
    )
    assert xmp_without_place(outside) == b""
    assert xmp_without_place(packet(about(PLACES[0]))[:-9]) == b""
    assert xmp_without_place(b"") == b""


def test_places_and_maker_note_leave_exif_and_the_rest_stays() -> None:
    cleaned = exif_without_place(exif())
    image, photo = metadata.exif_fields(cleaned)
    assert metadata.GPS_IFD not in image.fields and metadata.MAKER_NOTE not in photo.fields
    assert (image.text(271), image.text(315), photo.text(42033)) == ("Maker", "somebody", "body 123")
    assert b"latitude" not in cleaned and b"2024:02:29" not in cleaned
    assert exif_without_place(b"") == b""


def record(number: int, text: bytes) -> bytes:
    return struct.pack(">BBBH", 0x1C, 2, number, len(text)) + text


def test_places_leave_iptc() -> None:
    kept = record(5, b"title") + record(80, b"somebody") + record(120, b"caption")
    places = b"".join(record(number, b"Munich") for number in (26, 27, 90, 92, 95, 100, 101))
    charset = b"\x1c\x01\x5a\x00\x03\x1b%G"
    assert iptc_without_place(charset + kept + places) == charset + kept
    assert iptc_without_place(charset + places + kept + b"\0") == charset + kept
    for damaged in (kept + b"Munich", kept + record(90, b"Munich")[:-2], b"\x1c\x02\x5a\x80\x04\0\0\0\1a"):
        assert iptc_without_place(damaged) == b""


def frame() -> Frame:
    carried = Metadata(
        exif=exif(), icc=b"profile", xmp=packet(about(PLACES[0] + ' xmp:Rating="4"')), iptc=record(5, b"a title"),
        orientation=6, crop=(0, 0, 4, 4), color=("p3", "srgb"),
    )  # fmt: skip
    return replace(Frame(torch.zeros(3, 8, 8)), metadata=carried, exposure=Exposure(0.004, 2.8, 100))


def test_keep_keeps_all() -> None:
    whole = frame()
    assert private(whole, "keep") is whole


def test_strip_leaves_what_shows_the_picture_right() -> None:
    bare = private(frame(), "strip")
    assert bare.metadata == Metadata(icc=b"profile", orientation=6, crop=(0, 0, 4, 4), color=("p3", "srgb"))
    assert bare.exposure == Exposure()


def test_location_keeps_exposure_profile_and_what_is_pending() -> None:
    whole, shared = frame(), private(frame(), "location")
    assert shared.exposure == whole.exposure
    same = replace(shared.metadata, exif=whole.metadata.exif, xmp=whole.metadata.xmp)
    assert same == whole.metadata and Packet(shared.metadata.xmp).values == {(XMP, "Rating"): "4"}


@pytest.mark.parametrize("name", ["brackets/motion_pingpong/Img1.JPG", "brackets/jamyl_lighthouse/A.jpg"])
def test_files_of_cameras(name: str, shared_data: Path, tmp_path: Path) -> None:
    """A Canon whose maker note holds serial numbers; a picture by Lightroom, given a place here."""
    found = read(shared_data / name)
    tree = metadata.exif_tree(found.metadata.exif)
    tree[metadata.GPS_IFD] = {1: Field.of(2, "N", metadata.order_of(tree))}
    located = packet(about('photoshop:City="Munich"', TITLE))
    given = replace(found.metadata, exif=metadata.exif_bytes(tree), xmp=found.metadata.xmp or located)
    small = replace(found, metadata=given, pixels=found.pixels[:, :64, :64])
    path = write(private(small, "location"), tmp_path / "a.jpg")
    data = path.read_bytes()
    assert not re.search(rb"Munich|GPS|0580216792|L0178424UU", data)
    with Image.open(path) as image:
        block = image.getexif()
        assert block[271] == metadata.exif_fields(found.metadata.exif)[0].text(271)
        assert metadata.GPS_IFD not in block and block.get_ifd(metadata.EXIF_IFD)[33434] > 0
    data = write(private(small, "strip"), tmp_path / "b.jpg").read_bytes()
    assert not re.search(rb"Canon|NIKON|Lightroom|xap", data)
