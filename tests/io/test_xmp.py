"""XMP packets: what is stale goes, what describes stays as it was, and nothing dangerous is parsed."""

from __future__ import annotations

import pytest

from restorekit.io.xmp import EXIF, PHOTOSHOP, RDF, TIFF, XMP, Packet, XmpError, clean_xmp, merged

DC = "http://purl.org/dc/elements/1.1/"
CRS = "http://ns.adobe.com/camera-raw-settings/1.0/"
MM = "http://ns.adobe.com/xap/1.0/mm/"
HDRGM = "http://ns.adobe.com/hdr-gain-map/1.0/"
CONTAINER = "http://ns.google.com/photos/1.0/container/"


def packet(*descriptions: str) -> bytes:
    body = "".join(descriptions)
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}">{body}</rdf:RDF></x:xmpmeta>'.encode()


def about(spaces: dict[str, str], attributes: str = "", inside: str = "") -> str:
    declared = " ".join(f'xmlns:{prefix}="{space}"' for prefix, space in spaces.items())
    return f'<rdf:Description rdf:about="" {declared} {attributes}>{inside}</rdf:Description>'


SPACES = {"dc": DC, "crs": CRS, "xmp": XMP, "tiff": TIFF, "exif": EXIF, "mm": MM, "photoshop": PHOTOSHOP}
TITLE = '<dc:title><rdf:Alt><rdf:li xml:lang="x-default">a &lt;title&gt;</rdf:li></rdf:Alt></dc:title>'


def test_a_packet_with_nothing_stale_stays_byte_for_byte() -> None:
    kept = b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>' + packet(about(SPACES, 'xmp:Rating="4"', TITLE))
    kept += b"\n" * 2000 + b'<?xpacket end="w"?>'
    assert clean_xmp(kept) == kept


def test_what_described_the_old_file_goes() -> None:
    stale = packet(
        about(
            SPACES,
            'tiff:Orientation="6" tiff:ImageWidth="6000" exif:PixelXDimension="6000" exif:FNumber="28/10" '
            'crs:Exposure2012="+1.0" photoshop:ICCProfile="Adobe RGB" mm:InstanceID="xmp.iid:1" '
            'mm:OriginalDocumentID="1" dc:format="image/dng" xmp:Rating="3" tiff:Make="Maker" '
            'tiff:Software="another program" exif:FocalPlaneXResolution="4438/1"',
            TITLE + "<exif:SubjectArea><rdf:Seq><rdf:li>2003</rdf:li></rdf:Seq></exif:SubjectArea>"
            "<crs:ToneCurve><rdf:Seq><rdf:li>0, 0</rdf:li></rdf:Seq></crs:ToneCurve>"
            "<xmp:Thumbnails><rdf:Alt><rdf:li>/9j/4AAQ</rdf:li></rdf:Alt></xmp:Thumbnails>"
            "<mm:History><rdf:Seq><rdf:li>derived</rdf:li></rdf:Seq></mm:History>",
        )
    )
    values = Packet(clean_xmp(stale)).values
    assert values == {
        (EXIF, "FNumber"): "28/10",
        (MM, "OriginalDocumentID"): "1",
        (XMP, "Rating"): "3",
        (TIFF, "Make"): "Maker",
        (DC, "title"): "a <title>",
    }
    assert clean_xmp(clean_xmp(stale)) == clean_xmp(stale)


def test_names_count_by_namespace_and_not_by_prefix() -> None:
    odd = packet(about({"tiff": DC, "own": TIFF}, 'tiff:Orientation="6" own:Orientation="6" own:Make="M"'))
    assert set(Packet(clean_xmp(odd)).values) == {(DC, "Orientation"), (TIFF, "Make")}


def test_gain_maps_and_other_parts_of_the_old_file_go_and_the_rest_stays() -> None:
    spaces = {"hdrgm": HDRGM, "Container": CONTAINER, "note": "http://ns.adobe.com/xmp/note/", "xmp": XMP}
    directory = "<Container:Directory><rdf:Seq><rdf:li/></rdf:Seq></Container:Directory>"
    attributes = 'hdrgm:Version="1.0" note:HasExtendedXMP="ABCD"'
    assert clean_xmp(packet(about(spaces, attributes, directory))) == b""
    left = clean_xmp(packet(about(spaces, attributes + ' xmp:Rating="2"', directory)))
    assert Packet(left).values == {(XMP, "Rating"): "2"}


@pytest.mark.parametrize(
    ("told", "given", "kept"),
    [("", 1, True), ('tiff:Orientation="1"', 1, True), ('tiff:Orientation="6"', 1, False), ("", 8, False)],
)
def test_faces_go_where_the_picture_is_turned(told: str, given: int, kept: bool) -> None:
    spaces = {"tiff": TIFF, "xmp": XMP, "mwg-rs": "http://www.metadataworkinggroup.com/schemas/regions/"}
    faces = (
        '<mwg-rs:Regions rdf:parseType="Resource"><mwg-rs:RegionList><rdf:Bag/></mwg-rs:RegionList></mwg-rs:Regions>'
    )
    values = Packet(clean_xmp(packet(about(spaces, f'xmp:Rating="3" {told}', faces)), given)).values
    assert (any(local == "Regions" for _, local in values), (XMP, "Rating") in values) == (kept, True)


def test_line_breaks_in_attributes_survive() -> None:
    given = packet(about(SPACES, 'photoshop:Instructions="one&#xA;two" crs:Version="1"'))
    assert Packet(clean_xmp(given)).values == {(PHOTOSHOP, "Instructions"): "one\ntwo"}


def test_merging_takes_all_of_the_other_and_keeps_the_rest() -> None:
    mine = packet(about(SPACES, 'xmp:Rating="1" photoshop:City="Bern"', TITLE))
    other = packet(about({"p": XMP}, 'p:Rating="5"'), about({"p": DC}, "", "<p:title>new</p:title>"))
    both = merged(mine, other)
    assert Packet(both).values == {(XMP, "Rating"): "5", (PHOTOSHOP, "City"): "Bern", (DC, "title"): "new"}
    assert both.count(b"Rating") == 1
    assert merged(b"", other) == other and merged(mine, b"") == mine
    assert merged(b"<broken", other) == other


def test_padding_of_zeros_is_no_damage() -> None:
    assert Packet(packet(about(SPACES, 'xmp:Rating="4"')) + bytes(500)).values == {(XMP, "Rating"): "4"}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b'<!DOCTYPE x [<!ENTITY a "b">]>' + packet(), "document type"),
        (b'<!DOCTYPE x SYSTEM "file:///dev/zero">' + packet(), "document type"),
        (packet(about(SPACES, "", "<dc:a>" * 100 + "</dc:a>" * 100)), "more parts"),
        (packet(about(SPACES, "", "<dc:a/>" * 200_000)), "more parts"),
        (packet() + b"\xff", "damaged"),
        (packet(about({}, 'unknown:a="b"')), "damaged"),
        (b"<a/>", "no XMP"),
        (b"", "damaged"),
        (b'<?xml version="1.0" encoding="no-such-encoding"?><a/>', "damaged"),
    ],
)
def test_dangerous_and_damaged_packets_are_refused(data: bytes, says: str) -> None:
    with pytest.raises(XmpError, match=says):
        Packet(data)
    assert clean_xmp(data) == b""
