"""EXIF blocks: found in files, cleaned, and read for what a pipeline needs (CIPA DC-008, Exif 3.0).

A block is a TIFF structure without the ``Exif\\0\\0`` header. Cleaning keeps what describes the picture and drops
what described the file it came from: thumbnails, image structure, and of RAW files the maker note.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Literal

from restorekit.errors import InputError
from restorekit.facts import Exposure
from restorekit.io.tiff import (
    ASCII,
    LONG,
    SHORT,
    UNDEFINED,
    Directory,
    Field,
    Order,
    TiffError,
    Tree,
    lay_out,
    read_directory,
    read_header,
)

MAKE, MODEL, ORIENTATION, SOFTWARE, DATE_TIME, ARTIST = 271, 272, 274, 305, 306, 315
EXIF_IFD, GPS_IFD, INTEROP_IFD = 34665, 34853, 40965
EXPOSURE_TIME, F_NUMBER, ISO, FOCAL_LENGTH = 33434, 33437, 34855, 37386
DATE_TIME_ORIGINAL, DATE_TIME_DIGITIZED, SUBSEC_ORIGINAL, MAKER_NOTE = 36867, 36868, 37521, 37500
SHUTTER_SPEED_VALUE, APERTURE_VALUE, ISO_SPEED, RECOMMENDED_INDEX = 37377, 37378, 34867, 34866
COLOR_SPACE, PIXEL_X, PIXEL_Y = 40961, 40962, 40963

_IMAGE_TAGS = frozenset((270, MAKE, MODEL, ORIENTATION, 282, 283, 296, SOFTWARE, DATE_TIME, ARTIST, 316, 18246, 18249,
                         33432, *range(40091, 40096)))  # fmt: skip
"""Tags of the first directory that describe the picture: title, camera, resolution, dates, author, rating, rights."""

_PHOTO_TAGS = frozenset((EXPOSURE_TIME, F_NUMBER, 34850, 34852, ISO, *range(34864, 34870), *range(36864, 37387),
                         *range(37520, 37523), *range(40960, 40964), *range(41483, 42081)))  # fmt: skip
"""Tags that Exif has in a directory of its own; TIFF/EP files (Kodak) hold them in the first one."""

EXIF_VERSION, _PADDING = 36864, 59932
_HEADER_BYTES = 1 << 18
_PICTURE_MAGICS: Mapping[Literal["jpeg", "png", "webp"], bytes] = {
    "jpeg": b"\xff\xd8\xff",
    "png": b"\x89PNG\r\n\x1a\n",
    "webp": b"RIFF",
}


def clean_exif(block: bytes, orientation: int = 1) -> bytes:
    """An EXIF block without thumbnail and image structure, and with this orientation; empty if it is damaged.

    The maker note stays, at the offset where it was, since the offsets inside it count from the block's start.
    """
    return _compact(io.BytesIO(block), orientation, maker_note=True)


def raw_exif(file: BinaryIO, *, keep_orientation: bool = False) -> bytes:
    """The EXIF block of a TIFF-structured file, without maker note; empty if damaged. Its orientation becomes 1."""
    return _compact(file, None if keep_orientation else 1, maker_note=False)


def output_exif(
    block: bytes, *, width: int, height: int, software: str, srgb: bool = True, order: Order | None = None
) -> Tree:
    """The fields to write with a picture: those of the block, with its size, colour space and the program's name.

    ``order`` converts to a byte order; a maker note, which cannot be converted, is then lost if its order differs.
    """
    found = _parse(io.BytesIO(block), maker_note=True)
    tree: Tree = found[1] if found else {}
    source: Order = found[0] if found else "<"
    order = order or source
    if order != source:
        tree = _converted(tree, order)
    tree[SOFTWARE] = Field.of(ASCII, software, order)
    photo = tree.get(EXIF_IFD)
    if isinstance(photo, dict):
        photo[PIXEL_X] = Field.of(LONG, (width,), order)
        photo[PIXEL_Y] = Field.of(LONG, (height,), order)
        photo[COLOR_SPACE] = Field.of(SHORT, (1 if srgb else 65535,), order)
        photo.pop(INTEROP_IFD, None)
    return tree


def exif_bytes(tree: Tree, limit: int | None = None) -> bytes:
    """A block from fields; without its maker note where it would otherwise exceed ``limit`` bytes."""
    order = order_of(tree)
    photo, note = tree.get(EXIF_IFD), maker_note(tree)
    block = lay_out(tree, order, note)
    if limit is not None and len(block) > limit and isinstance(photo, dict) and note is not None:
        slim = {tag: item for tag, item in photo.items() if tag != MAKER_NOTE}
        block = lay_out({**tree, EXIF_IFD: slim}, order)
    return block if limit is None or len(block) <= limit else b""


def order_of(tree: Tree) -> Order:
    """The byte order of fields."""
    return next((item.order for item in tree.values() if isinstance(item, Field)), "<")


def maker_note(tree: Tree) -> Field | None:
    """The maker note among fields, which has to stay at its offset."""
    photo = tree.get(EXIF_IFD)
    note = photo.get(MAKER_NOTE) if isinstance(photo, dict) else None
    return note if isinstance(note, Field) else None


def exif_fields(block: bytes) -> tuple[Directory, Directory]:
    """The first directory of a block and its Exif directory; both empty for an empty or damaged block."""
    empty = Directory({}, 0, 0)
    file = io.BytesIO(block)
    header = read_header(file)
    if header is None:
        return empty, empty
    try:
        image = read_directory(file, header[1], header[0], strict=False)
        at = image.integer(EXIF_IFD, 0)
        return image, read_directory(file, at, header[0], strict=False) if at else empty
    except TiffError:
        return empty, empty


def exif_orientation(block: bytes) -> int:
    """The EXIF orientation 1..8; 1 where a block does not say, or says nonsense."""
    value = exif_fields(block)[0].integer(ORIENTATION, 1)
    return value if 1 <= value <= 8 else 1


def exposure_from_exif(block: bytes) -> Exposure:
    """Exposure time, aperture and ISO of a block; what is missing, zero or infinite is ``None``."""
    _, photo = exif_fields(block)
    time_s = _positive(photo.numbers(EXPOSURE_TIME))
    if EXPOSURE_TIME not in photo.fields:
        time_s = _positive(2.0**-value for value in photo.numbers(SHUTTER_SPEED_VALUE) if abs(value) < 64)
    f_number = _positive(photo.numbers(F_NUMBER))
    if F_NUMBER not in photo.fields:
        f_number = _positive(2.0 ** (value / 2) for value in photo.numbers(APERTURE_VALUE) if abs(value) < 64)
    speed = _positive(photo.numbers(ISO))
    if speed is None or speed >= 65535:  # the field is too small for higher speeds, which then stand elsewhere
        speed = _positive((*photo.numbers(RECOMMENDED_INDEX), *photo.numbers(ISO_SPEED))) or speed
    return Exposure(time_s, f_number, speed)


def capture_time(block: bytes) -> datetime | None:
    """When the exposure began, by the camera's clock, with fractions of a second where the block has them."""
    image, photo = exif_fields(block)
    candidates = photo.text(DATE_TIME_ORIGINAL), photo.text(DATE_TIME_DIGITIZED), image.text(DATE_TIME)
    for text in candidates:
        try:
            taken = datetime.strptime(text, "%Y:%m:%d %H:%M:%S")
        except ValueError:
            continue
        fraction = photo.text(SUBSEC_ORIGINAL)
        if text == candidates[0] and fraction.isascii() and fraction.isdigit():
            taken += timedelta(seconds=float(f"0.{fraction}"))
        return taken
    return None


def read_capture(path: Path) -> tuple[datetime | None, Exposure]:
    """Capture time and exposure of a file, without decoding pixels; what it does not tell is ``None``.

    Raises InputError when the file cannot be opened.
    """
    block = find_exif(path)
    return capture_time(block), exposure_from_exif(block)


def find_exif(path: Path) -> bytes:
    """The cleaned EXIF block of a picture or RAW file of any kind, empty where it has none.

    Raises InputError when the file cannot be opened.
    """
    from restorekit.io import containers, embedded

    try:
        with path.open("rb") as file:
            if read_header(file) is not None:
                return raw_exif(file)
            file.seek(0)
            head = file.read(16)
            if containers.kind_of(head) is not None:
                return containers.exif(file)
            for kind, magic in _PICTURE_MAGICS.items():
                if head.startswith(magic):
                    file.seek(0)
                    return clean_exif(embedded.find(kind, file.read(_HEADER_BYTES if kind == "jpeg" else -1)).exif)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    return b""


def clean_xmp(packet: bytes) -> bytes:
    """An XMP packet without what no longer holds for a processed picture; empty where that is its point.

    The orientation becomes 1. Packets that describe a gain map or a layout of images in the file are dropped.
    """
    if any(word in packet for word in (b"hdr-gain-map", b"photos/1.0/container", b"HDRGainMap")):
        return b""
    packet = re.sub(rb"(tiff:Orientation=[\"'])\d", rb"\g<1>1", packet)
    return re.sub(rb"(<tiff:Orientation>)\d", rb"\g<1>1", packet)


def photo_tree(
    *,
    make: str = "",
    model: str = "",
    artist: str = "",
    taken: datetime | None = None,
    photo: Mapping[int, Field] | None = None,
) -> Tree:
    """Little-endian EXIF fields from facts that a file of another structure holds; empty facts are left out."""
    texts = {MAKE: make, MODEL: model, ARTIST: artist}
    tree: Tree = {tag: Field.of(ASCII, text) for tag, text in texts.items() if text}
    details: Tree = dict(photo or {})
    if taken is not None:
        details[DATE_TIME_ORIGINAL] = Field.of(ASCII, taken.strftime("%Y:%m:%d %H:%M:%S"))
    if details:
        tree[EXIF_IFD] = {EXIF_VERSION: Field.of(UNDEFINED, b"0232"), **details}
    return tree


def says_adobe_rgb(block: bytes) -> bool:
    """Whether a camera marked a picture as Adobe RGB, by the interoperability index of DCF 2.0 ("R03")."""
    found = _parse(io.BytesIO(block), maker_note=False)
    photo = found[1].get(EXIF_IFD) if found else None
    interop = photo.get(INTEROP_IFD) if isinstance(photo, dict) else None
    index = interop.get(1) if isinstance(interop, dict) else None
    return isinstance(index, Field) and index.text == "R03"


def _compact(file: BinaryIO, orientation: int | None, *, maker_note: bool) -> bytes:
    found = _parse(file, maker_note=maker_note)
    if found is None:
        return b""
    order, tree = found
    if orientation is not None:
        tree[ORIENTATION] = Field.of(SHORT, (orientation,), order)
    return exif_bytes(tree)


def _parse(file: BinaryIO, *, maker_note: bool) -> tuple[Order, Tree] | None:
    """The fields of a block or file that describe its picture, or ``None`` for what is no TIFF structure."""
    header = read_header(file)
    if header is None:
        return None
    order, first = header
    try:
        image = read_directory(file, first, order, strict=False).fields
        photo = {tag: item for tag, item in image.items() if tag in _PHOTO_TAGS}
        photo |= _inside(file, image, EXIF_IFD, order)
        interop = _inside(file, photo, INTEROP_IFD, order)
        gps = _inside(file, image, GPS_IFD, order)
    except TiffError:
        return None
    tree: Tree = {tag: item for tag, item in _trimmed(image).items() if tag in _IMAGE_TAGS}
    dropped = {_PADDING, INTEROP_IFD} | (set() if maker_note else {MAKER_NOTE})
    details: Tree = {tag: item for tag, item in _trimmed(photo).items() if tag not in dropped}
    if interop:
        details[INTEROP_IFD] = {**interop}
    if details:
        tree[EXIF_IFD] = details
    if gps:
        tree[GPS_IFD] = {**gps}
    return order, tree


def _trimmed(fields: Mapping[int, Field]) -> dict[int, Field]:
    """Fields whose texts end with one NUL, as TIFF asks (cameras pad them); empty texts are left out."""
    kept = {tag: item for tag, item in fields.items() if item.kind != ASCII or item.data.strip(b"\0 ")}
    return {
        tag: Field(ASCII, item.data.rstrip(b"\0 ") + b"\0", item.order) if item.kind == ASCII else item
        for tag, item in kept.items()
    }


def _inside(file: BinaryIO, fields: Mapping[int, Field], tag: int, order: Order) -> dict[int, Field]:
    """The fields of the directory that a tag points to; none where it is missing or damaged."""
    pointer = fields.get(tag)
    if pointer is None or not pointer.numbers:
        return {}
    try:
        return dict(read_directory(file, int(pointer.numbers[0]), order, strict=False).fields)
    except TiffError:
        return {}


def _converted(tree: Tree, order: Order) -> Tree:
    return {
        tag: item.ordered(order) if isinstance(item, Field) else _converted(item, order)
        for tag, item in tree.items()
        if tag != MAKER_NOTE
    }


def _positive(values: Iterable[float]) -> float | None:
    """The first value that is a positive number."""
    return next((float(value) for value in values if math.isfinite(value) and value > 0), None)
