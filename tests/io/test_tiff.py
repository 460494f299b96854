"""The TIFF structure: fields, directories, layout, and files that end early."""

from __future__ import annotations

import io
import math

import pytest

from restorekit.io.tiff import (
    ASCII,
    DOUBLE,
    LONG,
    RATIONAL,
    SHORT,
    SRATIONAL,
    UNDEFINED,
    Field,
    Order,
    TiffError,
    Tree,
    lay_out,
    read_directories,
    read_directory,
    read_header,
)


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_structure_comes_back_as_it_was_laid_out(order: Order) -> None:
    tree: Tree = {
        271: Field.of(ASCII, "Maker", order),
        274: Field.of(SHORT, (6,), order),
        51041: Field.of(DOUBLE, (1e-4, 2.5e-9), order),
        34665: {33434: Field.of(RATIONAL, (1 / 8000,), order), 37500: Field.of(UNDEFINED, b"\1\2\3", order)},
    }
    file = io.BytesIO(lay_out(tree, order))
    header = read_header(file)
    assert header is not None
    assert header[0] == order
    first = read_directory(file, header[1], order)
    inside = read_directory(file, first.integer(34665, 0), order)
    assert first.text(271) == "Maker"
    assert first.integers(274) == (6,)
    assert first.numbers(51041) == (1e-4, 2.5e-9)
    assert inside.numbers(33434) == (1 / 8000,)
    assert inside.fields[37500].data == b"\1\2\3"
    assert first.following == 0


@pytest.mark.parametrize(
    "value", [0.0, 0.5, 1 / 3, 0.4567, -0.2771, 1.4229, 1e-5, 123.456, 16383.25, 1 / 12800, 2.0**31 - 1]
)
def test_rationals_keep_nine_digits(value: float) -> None:
    kept = Field.of(SRATIONAL, (value,)).numbers[0]
    assert kept == pytest.approx(value, rel=1e-9, abs=1e-12)


def test_a_rational_without_divisor_is_not_a_number() -> None:
    assert math.isnan(Field(RATIONAL, bytes(8)).numbers[0])


def test_fields_change_their_byte_order() -> None:
    swapped = Field.of(RATIONAL, (0.25, 7.0), "<").ordered(">")
    assert swapped.data == bytes.fromhex("0000000100000004 0000000700000001")
    assert swapped.numbers == (0.25, 7.0)


def test_a_pinned_field_keeps_its_offset() -> None:
    note = Field(UNDEFINED, bytes(range(200)), "<", place=90)
    tree: Tree = {
        271: Field.of(ASCII, "a maker with a long name"),
        34665: {37500: note, 37510: Field.of(ASCII, "long comment")},
    }
    block = lay_out(tree, "<", note)
    assert block[90:290] == note.data
    file = io.BytesIO(block)
    inside = read_directory(file, read_directories(file)[0].integer(34665, 0), "<")
    assert inside.fields[37500].data == note.data
    assert inside.text(37510) == "long comment"


def test_every_truncation_of_a_directory_is_noticed() -> None:
    block = lay_out({271: Field.of(ASCII, "some maker"), 273: Field.of(LONG, (1, 2, 3))})
    for size in range(len(block)):
        with pytest.raises(TiffError):
            read_directories(io.BytesIO(block[:size]))


def test_directories_that_point_at_each_other_end() -> None:
    block = bytearray(lay_out({271: Field.of(ASCII, "m")}))
    block[-4:] = (8).to_bytes(4, "little")
    assert len(read_directories(io.BytesIO(bytes(block)))) == 1
