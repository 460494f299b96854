"""EXIF blocks: cleaning, exposures and times, with Pillow as the independent writer and reader."""

from __future__ import annotations

import io
import struct
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from PIL import Image, TiffImagePlugin

from restorekit.errors import InputError
from restorekit.io import metadata
from restorekit.io.maker_note import is_self_contained, without_previews
from restorekit.io.metadata import (
    capture_time,
    clean_exif,
    exif_orientation,
    exposure_from_exif,
    output_exif,
    read_capture,
)
from restorekit.io.tiff import Field

RATIONAL = TiffImagePlugin.IFDRational


def exif(orientation: int = 6, **photo: object) -> bytes:
    """A block as Pillow writes it, without the header."""
    block = Image.Exif()
    block[271], block[272], block[274] = "Maker", "Model 1", orientation
    block[33432] = "somebody's"
    inside = block.get_ifd(34665)
    inside[33434] = RATIONAL(1, 250)
    inside[33437] = RATIONAL(28, 10)
    inside[34855] = 800
    inside[36867] = "2024:02:29 23:59:58"
    inside[37521] = "25"
    inside[42036] = "A lens"
    for name, value in photo.items():
        inside[int(name[1:])] = value
    gps = block.get_ifd(34853)
    gps[1], gps[2] = "N", (RATIONAL(48, 1), RATIONAL(8, 1), RATIONAL(0, 1))
    return block.tobytes().removeprefix(b"Exif\0\0")


def parsed(block: bytes) -> Image.Exif:
    found = Image.Exif()
    found.load(b"Exif\0\0" + block)
    return found


def test_cleaning_keeps_what_describes_the_picture() -> None:
    found = parsed(clean_exif(exif()))
    assert (found[271], found[272], found[274], found[33432]) == ("Maker", "Model 1", 1, "somebody's")
    photo = found.get_ifd(34665)
    assert photo[33434] == RATIONAL(1, 250)
    assert (photo[34855], photo[42036]) == (800, "A lens")
    assert found.get_ifd(34853)[1] == "N"


def test_cleaning_twice_changes_nothing_more() -> None:
    once = clean_exif(exif())
    assert clean_exif(once) == once


def test_the_orientation_is_set_and_read() -> None:
    for orientation in range(1, 9):
        assert exif_orientation(clean_exif(exif(), orientation)) == orientation
    assert exif_orientation(b"") == 1
    assert clean_exif(b"", 3) == b""


def test_texts_end_with_one_nul() -> None:
    block = metadata.exif_bytes(
        {271: Field(2, b"Maker\0\0\0"), 306: Field(2, bytes(20)), 34665: {42036: Field(2, b"Lens  \0")}}
    )
    image, photo = metadata.exif_fields(clean_exif(block))
    assert image.fields[271].data == b"Maker\0"
    assert 306 not in image.fields
    assert photo.fields[42036].data == b"Lens\0"


def test_a_thumbnail_does_not_survive() -> None:
    block = Image.Exif()
    block[271] = "Maker"
    plain = block.tobytes().removeprefix(b"Exif\0\0")
    order = "<" if plain[:2] == b"II" else ">"
    first = struct.unpack(order + "I", plain[4:8])[0]
    entries = struct.unpack_from(order + "H", plain, first)[0]
    thumbnail = b"\xff\xd8" + b"thumbnail" * 100 + b"\xff\xd9"
    at = len(plain) + len(plain) % 2
    second = struct.pack(order + "HHHII", 1, 513, 4, 1, at + 18) + bytes(4)
    with_thumbnail = bytearray(plain.ljust(at, b"\0") + second + thumbnail)
    struct.pack_into(order + "I", with_thumbnail, first + 2 + 12 * entries, at)
    assert b"thumbnail" in with_thumbnail
    cleaned = clean_exif(bytes(with_thumbnail))
    assert b"thumbnail" not in cleaned
    assert parsed(cleaned)[271] == "Maker"


def test_a_maker_note_keeps_its_offset() -> None:
    note = b"Maker\0" + bytes(range(250)) * 8
    block = exif(_37500=note)
    cleaned = clean_exif(block)
    assert cleaned.index(note) == block.index(note)
    written = metadata.exif_bytes(output_exif(cleaned, width=10, height=20, software="program 1"))
    assert written.index(note) == block.index(note)
    assert note not in metadata.exif_bytes(output_exif(cleaned, width=10, height=20, software="p"), limit=1000)


def note_of(mark: bytes, base: int, at: int, order: str = "<", value: bytes = b"a value") -> bytes:
    """A maker note with one field, whose data lie behind its directory; offsets count from ``base``."""
    entry = struct.pack(order + "HHHII", 1, 2, 2, len(value), at - base + 18)
    return mark.ljust(at, b"\0") + entry + bytes(4) + value


SELF_CONTAINED = {
    "nikon": note_of(b"Nikon\0\2\x11\0\0MM\0*\0\0\0\x08", 10, 18, ">"),
    "olympus": note_of(b"OLYMPUS\0II\3\0", 0, 12),
    "om system": note_of(b"OM SYSTEM\0\0\0II\4\0", 0, 16),
    "apple": note_of(b"Apple iOS\0\0\1MM", 0, 14, ">"),
    "pentax": note_of(b"PENTAX \0MM", 0, 10, ">"),
    "fujifilm": note_of(b"FUJIFILM\x0c\0\0\0", 0, 12),
}


@pytest.mark.parametrize("maker", SELF_CONTAINED)
def test_maker_notes_that_hold_anywhere_survive_from_raw_files(maker: str) -> None:
    note = SELF_CONTAINED[maker]
    assert is_self_contained(note)
    assert not is_self_contained(note[:-1]), "its data end beyond it"
    kept = metadata.raw_exif(io.BytesIO(exif(_37500=note)))
    assert metadata.exif_fields(kept)[1].fields[37500].data == note
    for order in ("<", ">"):
        tree = output_exif(kept, width=1, height=1, software="p", order=order)  # type: ignore[arg-type]
        assert metadata.exif_fields(metadata.exif_bytes(tree))[1].fields[37500].data == note


def test_maker_notes_that_hold_only_in_their_file_do_not() -> None:
    canon = note_of(b"", 0, 0)
    assert not is_self_contained(canon)
    kept = metadata.raw_exif(io.BytesIO(exif(_37500=canon)))
    assert 37500 not in metadata.exif_fields(kept)[1].fields
    assert exposure_from_exif(kept).iso == 800


def test_a_nikon_note_whose_preview_lies_elsewhere_is_dropped() -> None:
    start = b"Nikon\0\2\x11\0\0II*\0\x08\0\0\0"
    for offset, holds in ((56, True), (5000, False)):
        directory = struct.pack("<HHHII", 1, 17, 4, 1, 26) + bytes(4)
        preview = struct.pack("<HHHIIHHII", 2, 513, 4, 1, offset, 514, 4, 1, 10) + bytes(4)
        assert is_self_contained(start + directory + preview + bytes(10)) == holds


def test_a_preview_in_a_maker_note_does_not_survive() -> None:
    preview = io.BytesIO()
    Image.linear_gradient("L").save(preview, "jpeg", exif=b"Exif\0\0" + exif())
    note = b"OLYMP\0\1\0" + b"\xff\xd8\xff\x07" + preview.getvalue() + b"and more"
    kept = metadata.exif_fields(clean_exif(exif(_37500=note)))[1].fields[37500].data
    assert kept == note.replace(preview.getvalue(), bytes(len(preview.getvalue())))
    cut = note[:-100]
    assert without_previews(cut) == cut, "no picture without an end"


def test_a_dng_may_say_that_its_maker_note_can_be_copied() -> None:
    for safety, kept in ((0, False), (1, True)):
        block = metadata.exif_bytes(
            {
                50741: Field.of(3, (safety,)),
                34665: {37500: Field.of(7, b"some maker's own form"), 36864: Field(7, b"0232")},
            }
        )
        assert (37500 in metadata.exif_fields(metadata.raw_exif(io.BytesIO(block)))[1].fields) == kept


def test_a_rating_replaces_the_old_one() -> None:
    block = metadata.exif_bytes({271: Field.of(2, "Maker"), 18246: Field.of(3, (2,)), 18249: Field.of(3, (25,))})
    image, _ = metadata.exif_fields(metadata.rated(block, 5))
    assert (image.integer(18246, 0), 18249 in image.fields, image.text(271)) == (5, False, "Maker")
    assert 18246 not in metadata.exif_fields(metadata.rated(block, -1))[0].fields
    assert metadata.exif_fields(metadata.rated(b"", 3))[0].integer(18246, 0) == 3
    assert metadata.rated(b"", -1) == b""


def test_output_fields_name_size_program_and_colour_space() -> None:
    tree = output_exif(
        clean_exif(exif(_40962=1, _40963=1, _40961=1)), width=300, height=200, software="program 1", srgb=False
    )
    found = parsed(metadata.exif_bytes(tree))
    photo = found.get_ifd(34665)
    assert found[305] == "program 1"
    assert (photo[40962], photo[40963], photo[40961]) == (300, 200, 65535)


def test_exposure_and_time() -> None:
    exposure = exposure_from_exif(exif())
    assert (exposure.time_s, exposure.f_number, exposure.iso) == (1 / 250, 2.8, 800)
    assert capture_time(exif()) == datetime(2024, 2, 29, 23, 59, 58, 250000)


def test_times_know_their_zone_where_the_camera_tells_it() -> None:
    zone = timezone(timedelta(hours=-3, minutes=-30))
    assert capture_time(exif(_36881="-03:30")) == datetime(2024, 2, 29, 23, 59, 58, 250000, zone)
    for nonsense in ("   :  ", "+99:00", "03:30", "+3"):
        taken = capture_time(exif(_36881=nonsense))
        assert taken is not None and taken.tzinfo is None
    # The zone and fraction of another time do not count for this one.
    digitized = capture_time(
        exif(_36867="", _36868="2024:03:01 10:00:00", _37522="5", _36882="+01:00", _36881="+02:00")
    )
    assert digitized == datetime(2024, 3, 1, 10, 0, 0, 500000, timezone(timedelta(hours=1)))


def test_zero_and_missing_exposures_are_unknown() -> None:
    zero = exposure_from_exif(exif(_33434=RATIONAL(0, 1), _33437=RATIONAL(0, 0), _34855=0))
    assert (zero.time_s, zero.f_number, zero.iso) == (None, None, None)
    assert exposure_from_exif(b"") == exposure_from_exif(b"II*\0garbage")
    assert capture_time(exif(_36867="0000:00:00 00:00:00")) is None


def test_speeds_beyond_the_iso_field_stand_elsewhere() -> None:
    assert exposure_from_exif(exif(_34855=65535, _34866=204800)).iso == 204800


def test_apex_values_serve_where_the_plain_ones_are_missing() -> None:
    block = Image.Exif()
    block.get_ifd(34665)[37377] = TiffImagePlugin.IFDRational(8, 1)
    block.get_ifd(34665)[37378] = TiffImagePlugin.IFDRational(4, 1)
    exposure = exposure_from_exif(block.tobytes().removeprefix(b"Exif\0\0"))
    assert (exposure.time_s, exposure.f_number) == (1 / 256, 4.0)


def test_damaged_blocks_give_nothing_and_no_error() -> None:
    block = exif()
    for size in range(0, len(block), 7):
        cleaned = clean_exif(block[:size])
        exposure_from_exif(block[:size])
        assert cleaned == b"" or exif_orientation(cleaned) == 1


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_captures_are_read_from_every_kind_of_picture(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    block = Image.Exif()
    block.load(b"Exif\0\0" + exif())
    Image.new("RGB", (8, 8)).save(path, exif=block)
    taken, exposure = read_capture(path)
    assert taken == datetime(2024, 2, 29, 23, 59, 58, 250000)
    assert (exposure.time_s, exposure.iso) == (1 / 250, 800)


def test_files_without_exif_tell_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("not a picture")
    assert read_capture(path)[0] is None
    with pytest.raises(InputError, match=r"nothing\.jpg"):
        read_capture(tmp_path / "nothing.jpg")


def test_adobe_rgb_is_told_by_the_interoperability_index() -> None:
    inside = {40965: {1: Field.of(2, "R03")}}
    block = metadata.exif_bytes({271: Field.of(2, "Maker"), 34665: {36864: Field.of(7, b"0230"), **inside}})
    assert metadata.says_adobe_rgb(block)
    assert not metadata.says_adobe_rgb(exif())


def test_image_files_are_told_from_their_first_bytes_only(tmp_path: Path) -> None:
    """A JPEG's block is found although the file goes on after it, and ends early."""
    data = io.BytesIO()
    block = Image.Exif()
    block.load(b"Exif\0\0" + exif())
    Image.effect_noise((256, 256), 50).save(data, "JPEG", exif=block, quality=95)
    path = tmp_path / "cut.jpg"
    path.write_bytes(data.getvalue()[: len(data.getvalue()) // 2])
    assert read_capture(path)[1].iso == 800
