"""EXIF fields that hold for one size only, and the resolution in print."""

from __future__ import annotations

import pytest

from restorekit.io import metadata
from restorekit.io.exif_size import pixels_per_inch
from restorekit.io.tiff import Field, Tree

SUBJECT_AREA, SUBJECT_LOCATION, COMPRESSED_BITS, EXPOSURE_TIME = 37396, 41492, 37122, 33434
FOCAL_PLANE_X, FOCAL_PLANE_Y, FOCAL_PLANE_UNIT = 41486, 41487, 41488


def block(orientation: int = 1, size: tuple[int, int] = (4000, 3000)) -> bytes:
    photo: Tree = {
        SUBJECT_AREA: Field.of(3, (2003, 1506, 2209, 1327)),
        SUBJECT_LOCATION: Field.of(3, (2003, 1506)),
        COMPRESSED_BITS: Field.of(5, (2,)),
        EXPOSURE_TIME: Field.of(5, (0.01,)),
        FOCAL_PLANE_X: Field.of(5, (4438.4,)),
        FOCAL_PLANE_Y: Field.of(5, (4446.0,)),
        FOCAL_PLANE_UNIT: Field.of(3, (2,)),
        metadata.PIXEL_X: Field.of(4, size[:1]),
        metadata.PIXEL_Y: Field.of(4, size[1:]),
    }
    return metadata.exif_bytes({metadata.ORIENTATION: Field.of(3, (orientation,)), metadata.EXIF_IFD: photo})


def photo_fields(exif: bytes, width: int, height: int) -> dict[int, Field]:
    tree = metadata.output_exif(metadata.clean_exif(exif), width=width, height=height, software="p")
    return dict(metadata.exif_fields(metadata.exif_bytes(tree))[1].fields)


@pytest.mark.parametrize(("size", "same"), [((4000, 3000), True), ((3980, 2988), True), ((2000, 1500), False)])
def test_places_and_sensor_pitch_hold_for_one_size(size: tuple[int, int], same: bool) -> None:
    found = photo_fields(block(), *size)
    for tag in (SUBJECT_AREA, SUBJECT_LOCATION, FOCAL_PLANE_X, FOCAL_PLANE_Y, FOCAL_PLANE_UNIT):
        assert (tag in found) is same, tag
    assert EXPOSURE_TIME in found
    assert (found[metadata.PIXEL_X].numbers, found[metadata.PIXEL_Y].numbers) == (size[:1], size[1:])


@pytest.mark.parametrize("orientation", [2, 3, 6])
def test_places_go_when_the_picture_is_turned_and_the_sensor_pitch_stays(orientation: int) -> None:
    size = (3000, 4000) if orientation >= 5 else (4000, 3000)
    found = photo_fields(block(orientation), *size)
    assert SUBJECT_AREA not in found
    assert SUBJECT_LOCATION not in found
    assert FOCAL_PLANE_X in found


def test_bits_of_the_old_compression_go() -> None:
    assert COMPRESSED_BITS not in photo_fields(block(), 4000, 3000)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({282: Field.of(5, (300,)), 283: Field.of(5, (150,)), 296: Field.of(3, (2,))}, (300, 150)),
        ({282: Field.of(5, (300,)), 283: Field.of(5, (300,))}, (300, 300)),
        ({282: Field.of(5, (100,)), 283: Field.of(5, (100,)), 296: Field.of(3, (3,))}, (254, 254)),
        ({282: Field.of(5, (300,)), 283: Field.of(5, (300,)), 296: Field.of(3, (1,))}, None),
        ({282: Field.of(5, (300,)), 296: Field.of(3, (2,))}, None),
        ({282: Field(9, bytes(4)), 283: Field(9, bytes(4)), 296: Field.of(3, (2,))}, None),
        ({282: Field(5, bytes(8)), 283: Field(5, bytes(8))}, None),
        ({}, None),
    ],
)
def test_a_resolution_in_print_is_whole_or_left_out(
    fields: dict[int, Field], expected: tuple[float, float] | None
) -> None:
    assert pixels_per_inch(fields) == pytest.approx(expected)
    tree = metadata.output_exif(metadata.exif_bytes({271: Field.of(2, "M"), **fields}), width=1, height=1, software="p")
    assert (282 in tree, 283 in tree) == ((expected is not None,) * 2)
