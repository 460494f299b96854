"""RAW files that are no TIFF structures: Canon CRW and CR3, Fujifilm RAF. Their EXIF, and where they must end.

CRW is the CIFF of Canon's "CIFF Specification on Image Data File" (1997); RAF and CR3 are as documented by
the exiftool and libopenraw projects from the files of cameras.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import BinaryIO, Literal

from restorekit.io import embedded, metadata
from restorekit.io.tiff import RATIONAL, SHORT, Field, Order, TiffError, Tree, read_directory, read_header

Kind = Literal["crw", "raf", "cr3"]

_CANON_BOX = bytes.fromhex("85c0b687820f11e08111f4ce462b6a48")


def kind_of(head: bytes) -> Kind | None:
    """Which container a file is, by its first 16 bytes."""
    if head[6:14] == b"HEAPCCDR":
        return "crw"
    if head.startswith(b"FUJIFILMCCD-RAW"):
        return "raf"
    return "cr3" if head[4:12] == b"ftypcrx " else None


def exif(file: BinaryIO) -> bytes:
    """The EXIF block of the container, with orientation 1; empty where it has none or is damaged."""
    file.seek(0)
    kind = kind_of(file.read(16))
    try:
        if kind == "raf":
            return _raf_exif(file)
        tree = _crw_exif(file) if kind == "crw" else _cr3_exif(file)
    except (TiffError, struct.error):
        return b""
    return metadata.clean_exif(metadata.exif_bytes(tree)) if tree else b""


def ends_early(file: BinaryIO) -> bool:
    """Whether the container is cut off: it names data beyond its end."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    kind = kind_of(file.read(16))
    try:
        if kind == "crw":
            return any(at + length > size for _, at, length in _ciff_entries(file))
        if kind == "raf":
            file.seek(84)
            places = struct.unpack(">6I", file.read(24))
            return any(at + length > size for at, length in zip(places[::2], places[1::2], strict=True))
        return _last_box_end(file, size) > size
    except (TiffError, struct.error):
        return True


def _ciff_entries(file: BinaryIO) -> Iterator[tuple[int, int, int]]:
    """Tag, offset in the file and length of every piece of data of a CIFF file."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    order, start = _ciff_header(file.read(6))
    yield from _heap(file, order, start, size, 0)


def _ciff_header(head: bytes) -> tuple[Order, int]:
    order: Order = "<" if head[:2] == b"II" else ">"
    return order, struct.unpack(order + "I", head[2:])[0]


def _heap(file: BinaryIO, order: Order, start: int, end: int, depth: int) -> Iterator[tuple[int, int, int]]:
    """A heap ends with the offset of its directory: entries of tag, length and offset, or data of up to 8 bytes."""
    file.seek(max(end - 4, 0))
    table = start + struct.unpack(order + "I", file.read(4))[0]
    if not start <= table < end or depth > 8:
        raise TiffError("its directory lies outside of it")
    file.seek(table)
    count = struct.unpack(order + "H", file.read(2))[0]
    if table + 2 + 10 * count > end:
        raise TiffError("its directory ends early")
    entries = file.read(10 * count)
    for index in range(count):
        tag, length, offset = struct.unpack_from(order + "HII", entries, 10 * index)
        if tag & 0xC000 == 0x4000:
            yield tag & 0x3FFF, table + 2 + 10 * index + 2, 8
        elif tag & 0x3800 in (0x2800, 0x3000):
            yield from _heap(file, order, start + offset, start + offset + length, depth + 1)
        else:
            yield tag & 0x3FFF, start + offset, length


def _crw_exif(file: BinaryIO) -> Tree:
    found: dict[int, bytes] = {}
    for tag, at, length in list(_ciff_entries(file)):
        if tag in (0x080A, 0x0810, 0x102A, 0x1029, 0x180E):
            file.seek(at)
            found[tag] = file.read(length)
    file.seek(0)
    order = _ciff_header(file.read(6))[0]
    make, _, rest = found.get(0x080A, b"").partition(b"\0")
    photo: dict[int, Field] = {}
    shot = _shorts(found.get(0x102A, b""), order)
    if len(shot) > 5:  # ISO, aperture and time as logarithms to the base 2, in steps of 1/32
        photo[metadata.EXPOSURE_TIME] = Field.of(RATIONAL, (2.0 ** (-shot[5] / 32),))
        photo[metadata.F_NUMBER] = Field.of(RATIONAL, (2.0 ** (shot[4] / 64),))
        photo[metadata.ISO] = Field.of(SHORT, (round(2.0 ** (shot[2] / 32) * 100 / 32),))
    focal = _shorts(found.get(0x1029, b""), order)
    if len(focal) > 1:
        photo[metadata.FOCAL_LENGTH] = Field.of(RATIONAL, (float(focal[1]),))
    stamp = struct.unpack_from(order + "I", found[0x180E])[0] if 0x180E in found else 0
    taken = datetime.fromtimestamp(stamp, UTC) if stamp else None  # seconds of the camera's own clock
    return metadata.photo_tree(
        make=_text(make),
        model=_text(rest.partition(b"\0")[0]),
        artist=_text(found.get(0x0810, b"").partition(b"\0")[0]),
        taken=taken,
        photo=photo,
    )


def _shorts(data: bytes, order: Order) -> tuple[int, ...]:
    return struct.unpack(f"{order}{len(data) // 2}h", data[: len(data) // 2 * 2])


def _text(data: bytes) -> str:
    return data.decode("latin-1").strip()


def _raf_exif(file: BinaryIO) -> bytes:
    """A RAF file holds a JPEG picture with the EXIF block of the shot."""
    file.seek(84)
    at, length = struct.unpack(">II", file.read(8))
    file.seek(at)
    return metadata.clean_exif(embedded.find("jpeg", file.read(length)).exif)


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Type, start of content and end of every ISO base media box between two offsets."""
    at = start
    while at + 8 <= end:
        file.seek(at)
        length, kind = struct.unpack(">I4s", file.read(8))
        content = at + 8
        if length == 1:
            length, content = struct.unpack(">Q", file.read(8))[0], at + 16
        last = end if length == 0 else at + length
        if last <= at:
            return
        yield kind, content, last
        at = last


def _last_box_end(file: BinaryIO, size: int) -> int:
    return max((last for _, _, last in _boxes(file, 0, size)), default=size + 1)


def _cr3_exif(file: BinaryIO) -> Tree:
    """The boxes CMT1, CMT2 and CMT4 hold the first, the Exif and the GPS directory, each as a TIFF structure."""
    size = file.seek(0, os.SEEK_END)
    movie = [(start, end) for kind, start, end in _boxes(file, 0, size) if kind == b"moov"]
    found: dict[bytes, Tree] = {}
    for start, end in movie[:1]:
        for kind, inner, last in _boxes(file, start, end):
            file.seek(inner)
            if kind != b"uuid" or file.read(16) != _CANON_BOX:
                continue
            for name, at, stop in _boxes(file, inner + 16, last):
                if name in (b"CMT1", b"CMT2", b"CMT4"):
                    file.seek(at)
                    found[name] = _directory(file.read(stop - at))
    tree = found.get(b"CMT1", {})
    if b"CMT2" in found:
        tree[metadata.EXIF_IFD] = {tag: item for tag, item in found[b"CMT2"].items() if tag != metadata.MAKER_NOTE}
    if b"CMT4" in found:
        tree[metadata.GPS_IFD] = found[b"CMT4"]
    return tree


def _directory(block: bytes) -> Tree:
    file = io.BytesIO(block)
    header = read_header(file)
    if header is None:
        return {}
    return {**read_directory(file, header[1], header[0], strict=False).fields}
