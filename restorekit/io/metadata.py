"""EXIF blocks: found in files, cleaned, and read for what a pipeline needs (CIPA DC-008, Exif 3.0).

A block is a TIFF structure without the ``Exif\\0\\0`` header. Cleaning keeps what describes the picture and drops
what described the file it came from: thumbnails, image structure, and of RAW files maker notes that only hold where
they lay.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import BinaryIO, Literal

from restorekit.errors import InputError
from restorekit.facts import Exposure
from restorekit.io import exif_size
from restorekit.io.exif_size import PIXEL_X as PIXEL_X
from restorekit.io.exif_size import PIXEL_Y as PIXEL_Y
from restorekit.io.maker_note import is_self_contained, without_previews
from restorekit.io.tiff import (
    ASCII,
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
from restorekit.io.xmp import clean_xmp as clean_xmp

MAKE, MODEL, ORIENTATION, SOFTWARE, DATE_TIME, ARTIST = 271, 272, 274, 305, 306, 315
EXIF_IFD, GPS_IFD, INTEROP_IFD = 34665, 34853, 40965
EXPOSURE_TIME, F_NUMBER, ISO, FOCAL_LENGTH = 33434, 33437, 34855, 37386
DATE_TIME_ORIGINAL, DATE_TIME_DIGITIZED, MAKER_NOTE, MAKER_NOTE_SAFETY = 36867, 36868, 37500, 50741
OFFSET, OFFSET_ORIGINAL, OFFSET_DIGITIZED = 36880, 36881, 36882
SUBSEC, SUBSEC_ORIGINAL, SUBSEC_DIGITIZED = 37520, 37521, 37522
RATING, RATING_PERCENT = 18246, 18249
SHUTTER_SPEED_VALUE, APERTURE_VALUE, ISO_SPEED, RECOMMENDED_INDEX = 37377, 37378, 34867, 34866
COLOR_SPACE = 40961

_IMAGE_TAGS = frozenset((270, MAKE, MODEL, ORIENTATION, 282, 283, 296, SOFTWARE, DATE_TIME, ARTIST, 316, 18246, 18249,
                         33432, *range(40091, 40096)))  # fmt: skip
"""Tags of the first directory that describe the picture: title, camera, resolution, dates, author, rating, rights."""

_PHOTO_TAGS = frozenset((EXPOSURE_TIME, F_NUMBER, 34850, 34852, ISO, *range(34864, 34870), *range(36864, 37387),
                         *range(37520, 37523), *range(40960, 40964), *range(41483, 42081)))  # fmt: skip
"""Tags that Exif has in a directory of its own; TIFF/EP files (Kodak) hold them in the first one."""

EXIF_VERSION, _COMPRESSED_BITS, _PADDING = 36864, 37122, 59932
_OF_FILE = (_COMPRESSED_BITS, _PADDING, INTEROP_IFD)
"""Fields of the Exif directory that described how the old file was stored."""

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
    return _compact(io.BytesIO(block), orientation, in_place=True)


def raw_exif(file: BinaryIO, *, keep_orientation: bool = False) -> bytes:
    """The EXIF block of a TIFF-structured file; empty if damaged. Its orientation becomes 1.

    The maker note stays where it means the same elsewhere (:func:`restorekit.io.maker_note.is_self_contained`), or the
    file says that it may be copied (DNG MakerNoteSafety). Others, such as Canon's, hold offsets into the file.
    """
    return _compact(file, None if keep_orientation else 1, in_place=False)


def output_exif(
    block: bytes, *, width: int, height: int, software: str, srgb: bool = True, order: Order | None = None
) -> Tree:
    """The fields to write with a picture: those of the block, with its size, colour space and the program's name.

    What held for another size is left out, and so is a resolution (in print) that is not complete.
    ``order`` converts to a byte order; a maker note that is not whole in itself is then lost if its order differs.
    """
    found = _parse(io.BytesIO(block), in_place=True)
    tree: Tree = found[1] if found else {}
    source: Order = found[0] if found else "<"
    order = order or source
    if order != source:
        tree = _converted(tree, order)
    tree[SOFTWARE] = Field.of(ASCII, software, order)
    exif_size.require_resolution(tree)
    photo = tree.get(EXIF_IFD)
    if isinstance(photo, dict):
        exif_size.resize(photo, width, height, order)
        photo[COLOR_SPACE] = Field.of(SHORT, (1 if srgb else 65535,), order)
        photo.pop(INTEROP_IFD, None)
    return tree


def exif_bytes(tree: Tree, limit: int | None = None) -> bytes:
    """A block from fields; without its maker note where it would otherwise exceed ``limit`` bytes."""
    order = order_of(tree)
    photo = tree.get(EXIF_IFD)
    block = lay_out(tree, order, maker_note(tree))
    if limit is not None and len(block) > limit and isinstance(photo, dict):
        slim = {tag: item for tag, item in photo.items() if tag != MAKER_NOTE}
        block = lay_out({**tree, EXIF_IFD: slim}, order)
    return block if limit is None or len(block) <= limit else b""


def order_of(tree: Tree) -> Order:
    """The byte order of fields."""
    return next((item.order for item in tree.values() if isinstance(item, Field)), "<")


def maker_note(tree: Tree) -> Field | None:
    """The maker note among fields, where it has to stay at its offset."""
    photo = tree.get(EXIF_IFD)
    note = photo.get(MAKER_NOTE) if isinstance(photo, dict) else None
    return note if isinstance(note, Field) and note.place else None


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


def camera_name(block: bytes) -> str:
    """Make and model that a block tells; empty where it tells none."""
    image, _ = exif_fields(block)
    return f"{image.text(MAKE)} {image.text(MODEL)}".strip()


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
    """When the exposure began, by the camera's clock, with fractions of a second where the block has them.

    The time has a time zone where the block tells the clock's offset from UTC (Exif 2.31).
    """
    image, photo = exif_fields(block)
    candidates = (
        (photo.text(DATE_TIME_ORIGINAL), photo.text(SUBSEC_ORIGINAL), photo.text(OFFSET_ORIGINAL)),
        (photo.text(DATE_TIME_DIGITIZED), photo.text(SUBSEC_DIGITIZED), photo.text(OFFSET_DIGITIZED)),
        (image.text(DATE_TIME), photo.text(SUBSEC), photo.text(OFFSET)),
    )
    for text, fraction, offset in candidates:
        try:
            taken = datetime.strptime(text, "%Y:%m:%d %H:%M:%S")
        except ValueError:
            continue
        if fraction.isascii() and fraction.isdigit():
            taken += timedelta(seconds=float(f"0.{fraction}"))
        return taken.replace(tzinfo=_zone(offset))
    return None


def _zone(offset: str) -> timezone | None:
    """The time zone of ``+09:00``; ``None`` for what is no such text (cameras without a setting write blanks)."""
    found = re.fullmatch(r"([+-])(\d\d):([0-5]\d)", offset)
    if found is None or int(found[2]) > 14:
        return UTC if offset == "Z" else None
    shift = timedelta(hours=int(found[2]), minutes=int(found[3]))
    return timezone(-shift if found[1] == "-" else shift)


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
    return _find(path)[0]


def applied_orientation(path: Path) -> int:
    """The orientation of a picture's stored pixels, which is applied when it is read; 1 where it does not say.

    Raises InputError when the file cannot be opened.
    """
    return _find(path)[1]


def _find(path: Path) -> tuple[bytes, int]:
    from restorekit.io import bmff, containers, embedded
    from restorekit.io.jxl import header as jxl

    try:
        with path.open("rb") as file:
            if read_header(file) is not None:
                return raw_exif(file), exif_orientation(raw_exif(file, keep_orientation=True))
            file.seek(0)
            head = file.read(16)
            if containers.kind_of(head) is not None:
                return containers.exif(file), 1
            kind = next((kind for kind, magic in _PICTURE_MAGICS.items() if head.startswith(magic)), None)
            file.seek(0)
            if kind is not None:
                block = embedded.find(kind, file.read(_HEADER_BYTES if kind == "jpeg" else -1)).exif
                return clean_exif(block), exif_orientation(block)
            if head[4:8] == b"ftyp":
                found = bmff.picture(file.read())
                return clean_exif(found.embedded.exif), found.orientation
            if head.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
                data = file.read()
                return clean_exif(jxl.metadata(data)[0].exif), jxl.header(jxl.codestream(data)).orientation
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    except (ValueError, EOFError, LookupError):
        return b"", 1  # a damaged file, which its decoder will name
    return b"", 1


def exif_tree(block: bytes) -> Tree:
    """The fields of a cleaned block, to be changed and laid out again by :func:`exif_bytes`; empty if damaged."""
    found = _parse(io.BytesIO(block), in_place=True)
    return found[1] if found else {}


def rated(block: bytes, rating: int) -> bytes:
    """A block with a rating of 0 to 5 stars; without one for the rating -1 (rejected), which EXIF cannot say."""
    tree = exif_tree(block)
    tree.pop(RATING_PERCENT, None)
    tree.pop(RATING, None)
    if rating >= 0:
        tree[RATING] = Field.of(SHORT, (rating,), order_of(tree))
    return exif_bytes(tree) if tree else b""


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
    found = _parse(io.BytesIO(block), in_place=False)
    photo = found[1].get(EXIF_IFD) if found else None
    interop = photo.get(INTEROP_IFD) if isinstance(photo, dict) else None
    index = interop.get(1) if isinstance(interop, dict) else None
    return isinstance(index, Field) and index.text == "R03"


def _compact(file: BinaryIO, orientation: int | None, *, in_place: bool) -> bytes:
    found = _parse(file, in_place=in_place)
    if found is None:
        return b""
    order, tree = found
    if orientation is not None:
        before, photo = tree.get(ORIENTATION), tree.get(EXIF_IFD)
        if isinstance(photo, dict) and isinstance(before, Field) and before.numbers not in ((), (1,), (orientation,)):
            exif_size.turn(photo)
        tree[ORIENTATION] = Field.of(SHORT, (orientation,), order)
    return exif_bytes(tree)


def _parse(file: BinaryIO, *, in_place: bool) -> tuple[Order, Tree] | None:
    """The fields of a block or file that describe its picture, or ``None`` for what is no TIFF structure.

    ``in_place`` keeps any maker note at its offset; without it only those are kept that mean the same elsewhere.
    """
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
    note = photo.pop(MAKER_NOTE, None)
    details: Tree = {tag: item for tag, item in _trimmed(photo).items() if tag not in _OF_FILE}
    safe = MAKER_NOTE_SAFETY in image and image[MAKER_NOTE_SAFETY].numbers == (1,)
    if note is not None:
        note = replace(note, data=without_previews(note.data))
    if note is not None and in_place:
        details[MAKER_NOTE] = note
    elif note is not None and (safe or is_self_contained(note.data)):
        details[MAKER_NOTE] = Field(note.kind, note.data, note.order)
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
        if tag != MAKER_NOTE or (isinstance(item, Field) and is_self_contained(item.data))
    }


def _positive(values: Iterable[float]) -> float | None:
    """The first value that is a positive number."""
    return next((float(value) for value in values if math.isfinite(value) and value > 0), None)
