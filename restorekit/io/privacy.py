"""What leaves the house with a picture: all of its metadata, all but where it was taken, or none."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from restorekit.facts import Exposure, Metadata
from restorekit.io import metadata
from restorekit.io.tiff import Tree
from restorekit.io.xmp import Name, Packet, XmpError

if TYPE_CHECKING:
    from restorekit.frame import Frame

Privacy = Literal["keep", "location", "strip"]

_PLACE = re.compile(
    r"(?i).*(gps|location|latitude|longitude|altitude|geohash|geotag).*"
    r"|city|state|province-?state|country|country-?(code|name)|world-?region|coverage"
)
"""Local names of XMP properties that say where: EXIF for XMP, Photoshop, IPTC, Dublin Core, drones."""

_WGS84 = "http://www.w3.org/2003/01/geo/wgs84_pos#"
_NAME = re.compile(rb"""[<\s"'][\w.-]+:([\w.-]+)""")
_IIM_PLACES = frozenset((26, 27, 90, 92, 95, 100, 101))
"""Datasets of IPTC-IIM 4.2, record 2: content location, city, sublocation, province, country."""


def private(frame: Frame, level: Privacy) -> Frame:
    """A frame with the metadata that may be published.

    ``location`` takes out where the picture was made: the GPS directory of EXIF, all places in XMP and IPTC, and the
    maker note, in which cameras repeat them in forms of their own. Words that a person wrote (title, caption,
    keywords) stay. XMP and IPTC that cannot be cleaned for certain are left out as a whole. ``strip`` leaves only the
    colour profile, and what is needed to show the picture upright: orientation, crop and colour space.
    """
    carried = frame.metadata
    if level == "keep":
        return frame
    if level == "strip":
        kept = Metadata(icc=carried.icc, orientation=carried.orientation, crop=carried.crop, color=carried.color)
        return replace(frame, metadata=kept, exposure=Exposure())
    cleaned = replace(
        carried,
        exif=exif_without_place(carried.exif),
        xmp=xmp_without_place(carried.xmp),
        iptc=iptc_without_place(carried.iptc),
    )
    return replace(frame, metadata=cleaned)


def exif_without_place(block: bytes) -> bytes:
    """An EXIF block without its GPS directory and maker note."""
    tree = metadata.exif_tree(block)
    tree.pop(metadata.GPS_IFD, None)
    photo = tree.get(metadata.EXIF_IFD)
    if isinstance(photo, dict):
        slim: Tree = {tag: item for tag, item in photo.items() if tag != metadata.MAKER_NOTE}
        tree[metadata.EXIF_IFD] = slim
    return metadata.exif_bytes(tree) if tree else b""


def xmp_without_place(packet: bytes) -> bytes:
    """An XMP packet without properties that name a place; empty where it is damaged, or one is still in it."""
    if not packet:
        return b""
    try:
        found = Packet(packet)
    except XmpError:
        return b""
    found.remove(_is_place)
    cleaned = found.to_bytes()
    named = (name.decode("utf-8", "replace") for name in _NAME.findall(cleaned))
    return b"" if any(_PLACE.fullmatch(name) for name in named) else cleaned


def iptc_without_place(records: bytes) -> bytes:
    """IPTC-IIM records without datasets that name a place; empty where they are damaged."""
    kept = bytearray()
    at = 0
    while at < len(records):
        head = records[at : at + 5]
        if len(head) < 5 or head[0] != 0x1C or head[3] & 0x80:
            return bytes(kept) if not records[at:].strip(b"\0") else b""
        end = at + 5 + int.from_bytes(head[3:], "big")
        if end > len(records):
            return b""
        if head[1] != 2 or head[2] not in _IIM_PLACES:
            kept += records[at:end]
        at = end
    return bytes(kept)


def _is_place(name: Name) -> bool:
    space, local = name
    return space == _WGS84 or _PLACE.fullmatch(local) is not None
