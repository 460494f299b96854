"""Maker notes: the part of an EXIF block that each camera maker writes in a form of its own.

Most hold offsets that count from the start of the file, and mean nothing anywhere else. Which makers count from the
start of the note is documented by the exiftool project from the files of cameras.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

from restorekit.io.embedded import jpeg_end
from restorekit.io.tiff import Directory, Order, TiffError, read_directory


@dataclass(frozen=True)
class _Form:
    """A form of note: its first bytes, from where its offsets count, and where its byte order and directory are."""

    mark: bytes
    base: int
    order: int | None
    directory: int
    points: bool = False
    """Whether ``directory`` is the place of the directory's offset."""


_NIKON = _Form(b"Nikon\0\2", 10, 10, 14, points=True)
_FORMS = (
    _NIKON,
    _Form(b"OLYMPUS\0", 0, 8, 12),
    _Form(b"OM SYSTEM\0", 0, 12, 16),
    _Form(b"Apple iOS\0", 0, 12, 14),
    _Form(b"PENTAX \0", 0, 8, 10),
    _Form(b"FUJIFILM", 0, None, 8, points=True),
)
_JPEG_START, _FIRST_MARKERS = b"\xff\xd8\xff", (b"\xdb", b"\xe0", b"\xe1", b"\xc0", b"\xc4")
_NIKON_PREVIEW, _JPEG_OFFSET, _JPEG_SIZE = 17, 513, 514


def is_self_contained(note: bytes) -> bool:
    """Whether a maker note means the same at any place: its offsets count from its own start, and stay inside it.

    True for whole notes of Nikon (from type 2 on), Olympus, OM System, Fujifilm, Apple, and Pentax in DNG files. A
    Nikon note that points to a preview elsewhere in its file is not self-contained.
    """
    form = next((form for form in _FORMS if note.startswith(form.mark)), None)
    if form is None:
        return False
    try:
        order: Order = ">" if form.order is not None and note[form.order : form.order + 2] == b"MM" else "<"
        at = struct.unpack_from(order + "I", note, form.directory)[0] if form.points else form.directory
        own = note[form.base :]
        found = read_directory(io.BytesIO(own), at, order)
        return form is not _NIKON or all(_holds_preview(own, place, order) for place in found.integers(_NIKON_PREVIEW))
    except (struct.error, TiffError):
        return False


def without_previews(note: bytes) -> bytes:
    """A maker note of the same length whose JPEG pictures, small ones of the picture as it was, are zeros.

    Olympus, Minolta and others keep them there.
    """
    at = -1
    while (at := note.find(_JPEG_START, at + 1)) >= 0:
        length = jpeg_end(note[at:]) if note[at + 3 : at + 4] in _FIRST_MARKERS else 0
        note = note[:at] + bytes(length) + note[at + length :]
    return note


def _holds_preview(own: bytes, place: int, order: Order) -> bool:
    """Whether the preview of a directory inside a note lies in it too."""
    preview: Directory = read_directory(io.BytesIO(own), place, order)
    return preview.integer(_JPEG_OFFSET, 0) + preview.integer(_JPEG_SIZE, 0) <= len(own)
