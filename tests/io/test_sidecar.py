"""XMP sidecars: orientation, crop and rating taken, descriptions merged, settings left out, broken ones survived."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from restorekit.facts import Metadata
from restorekit.frame import Frame
from restorekit.io import metadata, read, write
from restorekit.io.sidecar import beside
from restorekit.io.xmp import EXIF, XMP, Packet
from restorekit.planes import orient

DC = "http://purl.org/dc/elements/1.1/"
SPACES = {
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "crs": "http://ns.adobe.com/camera-raw-settings/1.0/",
    "xmp": XMP,
    "exif": EXIF,
    "dc": DC,
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "darktable": "http://darktable.sf.net/",
}


def packet(inside: str = "", /, **attributes: object) -> bytes:
    """A sidecar as Adobe writes it; ``tiff_Orientation=6`` becomes the attribute ``tiff:Orientation="6"``."""
    spaces = " ".join(f'xmlns:{prefix}="{space}"' for prefix, space in SPACES.items())
    values = " ".join(f'{name.replace("_", ":", 1)}="{value}"' for name, value in attributes.items())
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" {spaces} {values}>{inside}</rdf:Description></rdf:RDF></x:xmpmeta>'
        '<?xpacket end="w"?>'
    ).encode()


def crop(top: float, left: float, bottom: float, right: float | str, **more: object) -> dict[str, object]:
    edges = {"crs_CropTop": top, "crs_CropLeft": left, "crs_CropBottom": bottom, "crs_CropRight": right}
    return {"crs_HasCrop": "True", **edges, **more}


def photo(path: Path, orientation: int = 1) -> torch.Tensor:
    """A picture of 20x10 stored pixels; gives them."""
    stored = np.random.default_rng(3).integers(0, 255, (10, 20, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[274], exif[271] = orientation, "Maker"
    Image.fromarray(stored).save(path, exif=exif)
    return torch.from_numpy(stored).permute(2, 0, 1)


def raw(path: Path, orientation: int = 1, area: tuple[int, int, int, int] | None = None) -> Path:
    mosaic = np.random.default_rng(4).integers(64, 1000, (40, 60), dtype=np.uint16)
    frame = Frame.from_bayer(mosaic, pattern="RGGB", black=64, white=1023)
    return write(replace(frame, metadata=Metadata(orientation=orientation, crop=area)), path)


def test_without_a_sidecar_nothing_changes(tmp_path: Path) -> None:
    stored = photo(tmp_path / "a.png")
    frame = read(tmp_path / "a.png")
    assert torch.equal(frame.pixels, stored) and frame.notes == ()


@pytest.mark.parametrize("own", range(1, 9))
def test_its_orientation_replaces_the_pictures_own(own: int, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    stored = photo(path, own)
    for wanted in range(1, 9):
        path.with_suffix(".xmp").write_bytes(packet(tiff_Orientation=wanted))
        frame = read(path)
        assert torch.equal(frame.pixels, orient(stored, wanted))
        assert bool(frame.notes) == (wanted != own)
        assert frame.metadata.orientation == 1 and metadata.exif_orientation(frame.metadata.exif) == 1
    assert torch.equal(read(path, sidecar=False).pixels, orient(stored, own))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_its_crop_is_of_the_stored_pixels(orientation: int, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    stored = photo(path, orientation)
    path.with_suffix(".xmp").write_bytes(packet(tiff_Orientation=orientation, **crop(0.1, 0.25, 0.8, 1)))
    frame = read(path)
    assert torch.equal(frame.pixels, orient(stored[:, 1:8, 5:20], orientation))
    assert frame.notes == ("a.png: its sidecar's crop is taken",)


def test_a_crop_alone_keeps_the_pictures_orientation(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    stored = photo(path, 6)
    path.with_suffix(".xmp").write_bytes(packet(**crop(0, 0, 0.5, 0.5)))
    assert torch.equal(read(path).pixels, orient(stored[:, :5, :10], 6))


def test_raw_files_get_pending_orientation_and_crop(tmp_path: Path) -> None:
    path = raw(tmp_path / "a.dng", 3)
    before = read(path)
    path.with_suffix(".xmp").write_bytes(packet(tiff_Orientation=8, **crop(0.1, 0.2, 0.9, 0.7), xmp_Rating=4))
    frame = read(path)
    assert torch.equal(frame.pixels, before.pixels)
    assert (before.metadata.orientation, frame.metadata.orientation) == (3, 8)
    assert frame.metadata.crop == (4, 12, 36, 42)
    assert frame.notes == ("a.dng: its sidecar's orientation and crop and rating are taken",)


def test_a_crop_is_of_the_default_crop(tmp_path: Path) -> None:
    path = raw(tmp_path / "a.dng", area=(10, 20, 30, 60))
    own = read(path).metadata.crop or (0, 0, 40, 60)
    path.with_suffix(".xmp").write_bytes(packet(**crop(0.25, 0.25, 0.75, 0.5)))
    top, left, bottom, right = own
    height, width = bottom - top, right - left
    expected = (top + height // 4, left + width // 4, top + height * 3 // 4, left + width // 2)
    assert read(path).metadata.crop == expected


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (crop(0.1, 0.1, 0.9, 0.9, crs_CropAngle=-2.5), "turned by -2.5 degrees"),
        (crop(0.9, 0.1, 0.1, 0.9), "no rectangle"),
        (crop(-0.1, 0.1, 0.9, 0.9), "no rectangle"),
        (crop(0.1, 0.1, 0.9, "nan"), "no rectangle"),
        (crop(0.1, 0.1, 0.9, 0.9, crs_AlreadyApplied="True"), ""),
        (crop(0.1, 0.1, 0.9, 0.9, crs_HasCrop="False"), ""),
        (crop(0, 0, 1, 1), ""),
    ],
)
def test_crops_that_cannot_be_followed_are_left_out(asked: dict[str, object], says: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    stored = photo(path)
    path.with_suffix(".xmp").write_bytes(packet(**asked))
    frame = read(path)
    assert torch.equal(frame.pixels, stored)
    assert len(frame.notes) == bool(says) and says in "".join(frame.notes)


def test_a_tiny_crop_keeps_a_pixel(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    photo(path)
    path.with_suffix(".xmp").write_bytes(packet(**crop(0.999, 0.999, 1, 1)))
    assert read(path).pixels.shape == (3, 1, 1)


@pytest.mark.parametrize(("text", "stars"), [("4", 4), ("0", 0), ("5.0", 5), ("-1", None), ("9", None), ("x", None)])
@pytest.mark.parametrize("as_element", [False, True])
def test_its_rating_goes_into_exif_and_xmp(text: str, stars: int | None, as_element: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    photo(path)
    rating = packet(f"<xmp:Rating>{text}</xmp:Rating>") if as_element else packet(xmp_Rating=text)
    path.with_suffix(".xmp").write_bytes(rating)
    frame = read(path)
    image, _ = metadata.exif_fields(frame.metadata.exif)
    assert image.integer(metadata.RATING, -1) == (-1 if stars is None else stars)
    assert image.text(metadata.MAKE) == "Maker"
    out = write(frame, tmp_path / "b.jpg")
    with Image.open(out) as image_file:
        assert image_file.getexif().get(metadata.RATING) == stars
    assert Packet(read(out).metadata.xmp).values[XMP, "Rating"] == text


def test_the_longer_name_wins(tmp_path: Path) -> None:
    path = tmp_path / "IMG_1.png"
    photo(path)
    assert beside(path) is None
    for name in ("IMG_1.XMP", "IMG_1.xmp", "IMG_1.png.XMP", "IMG_1.png.xmp"):
        (tmp_path / name).write_bytes(packet(xmp_Rating=1))
        assert beside(path) == tmp_path / name


def test_a_sidecar_of_another_file_is_not_taken(tmp_path: Path) -> None:
    """Beside IMG_1.CR2 and IMG_1.JPG lies one IMG_1.xmp, which tells whose it is."""
    stored = photo(tmp_path / "a.png")
    sidecar = tmp_path / "a.xmp"
    sidecar.write_bytes(packet(**crop(0, 0, 0.5, 0.5), photoshop_SidecarForExtension="CR2"))
    assert torch.equal(read(tmp_path / "a.png").pixels, stored)
    sidecar.write_bytes(packet(**crop(0, 0, 0.5, 0.5), photoshop_SidecarForExtension="PNG"))
    assert read(tmp_path / "a.png").width == 10


TITLE = '<dc:title><rdf:Alt><rdf:li xml:lang="x-default">{}</rdf:li></rdf:Alt></dc:title>'


def test_descriptions_are_merged_and_settings_are_not(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    photo(path)
    own = packet(TITLE.format("old"), photoshop_City="Bern", xmp_Rating=1)
    path = write(replace(read(path), metadata=Metadata(xmp=own)), path)
    subject = "<dc:subject><rdf:Bag><rdf:li>sea &amp; sky</rdf:li></rdf:Bag></dc:subject>"
    history = "<darktable:history><rdf:Seq><rdf:li>x</rdf:li></rdf:Seq></darktable:history>"
    given = packet(TITLE.format("new") + subject + history, crs_Exposure2012="+1.00", xmp_Rating=3)
    path.with_suffix(".xmp").write_bytes(given)
    values = Packet(read(path).metadata.xmp).values
    assert values[DC, "title"] == "new" and values[DC, "subject"] == "sea & sky"
    assert values[SPACES["photoshop"], "City"] == "Bern" and values[XMP, "Rating"] == "3"
    assert not [name for name in values if name[0] in (SPACES["crs"], SPACES["darktable"])]


BROKEN = {
    "cut": packet(xmp_Rating=3)[:-40],
    "entities": b'<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>' + packet("<dc:title>&b;</dc:title>"),
    "external": b'<!DOCTYPE x SYSTEM "file:///etc/passwd">' + packet(),
    "text": b"rating: 5",
    "other": b"<html><body/></html>",
    "deep": packet("<dc:a>" * 70 + "</dc:a>" * 70),
    "many": packet("<dc:a/>" * 200_001),
    "large": packet() + b" " * (1 << 24),
    "empty": b"",
    "hidden": '<?xml version="1.0" encoding="cp037"?><!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>'.encode("cp037"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_sidecars_are_told_and_survived(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    stored = photo(path)
    path.with_suffix(".xmp").write_bytes(BROKEN[kind])
    frame = read(path)
    assert torch.equal(frame.pixels, stored) and frame.metadata.xmp == b""
    (note,) = frame.notes
    assert note.startswith("a.png: its sidecar a.xmp is left out, it ") and "\n" not in note


def test_sidecars_in_utf16_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    photo(path)
    path.with_suffix(".xmp").write_bytes(packet(TITLE.format("Zürich")).decode().encode("utf-16"))
    assert Packet(read(path).metadata.xmp).values[DC, "title"] == "Zürich"


def test_what_is_not_understood_is_said(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    (tmp_path / "a.xmp").write_bytes(packet(tiff_Orientation=77, xmp_Rating="banana"))
    notes = " ".join(read(tmp_path / "a.png").notes)
    assert "orientation '77' is not understood" in notes and "rating 'banana' is not understood" in notes
