"""Limits on the size of images, judged by their headers before anything is decoded.

A file of a kilobyte can declare billions of pixels. Here the declared size of every kind of file is read without
decoding: JPEG ITU-T T.81 B.2.2, PNG 3 11.2.1, WebP RFC 9649 and RFC 6386 9.1, GIF89a 18, TIFF 6.0, OpenEXR file
layout, ISO/IEC 14496-12 and 23008-12 6.5.3 (HEIF, AVIF), ISO/IEC 18181-1 (JPEG XL).
"""

from __future__ import annotations

import itertools
import mmap
import os
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from restorekit.errors import InputError

if TYPE_CHECKING:
    import tifffile

MAX_PIXELS = 512_000_000
"""More than cameras give today (400 megapixels by shifting the sensor); 3 GB as 16-bit RGB."""

_HEADER_BYTES = 1 << 20
_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd8\xff]", re.DOTALL)


@dataclass(frozen=True)
class Size:
    """What a header declares; ``pixel_bytes`` is what a decoded pixel takes."""

    width: int
    height: int
    pixel_bytes: float


@dataclass(frozen=True)
class Limits:
    """The largest image that is decoded.

    ``max_pixels`` counts width times height. ``max_memory_bytes`` is for the decoded samples alone; without it they
    must fit into the memory that is available when the file is opened.
    """

    max_pixels: int = MAX_PIXELS
    max_memory_bytes: int | None = None

    def check(self, path: Path, kind: str) -> None:
        """Refuse a file whose header declares too large an image; ``kind`` is what it is by its content.

        Costs no memory and milliseconds. A header that is damaged is left to the decoder to name.

        Raises InputError that names the file, its size, the limit and the option that raises it.
        """
        size = declared_size(path, kind)
        if size is None:
            return
        pixels = size.width * size.height
        said = f"{path}: is {size.width}x{size.height}, {pixels / 1e6:.0f} megapixels"
        if pixels > self.max_pixels:
            raise InputError(
                f"{said}, the limit is {self.max_pixels / 1e6:g}; if it is meant to be so large, "
                f"use --max-megapixels {-(-pixels // 1_000_000)}"
            )
        needed, free = round(pixels * size.pixel_bytes), self.memory_bytes
        if free is not None and needed > free:
            raise InputError(
                f"{said}, and needs {needed / 1e9:.1f} GB when decoded, the limit is {free / 1e9:.1f} GB; "
                "close other programs, or use a smaller image"
            )

    @property
    def memory_bytes(self) -> int | None:
        """The memory that decoding may take; ``None`` where the system does not tell."""
        return self.max_memory_bytes if self.max_memory_bytes is not None else available_memory()


DEFAULT = Limits()


def available_memory() -> int | None:
    """Bytes that can be had without swapping: of the machine, or of the control group it runs in."""
    found = [value for value in (_machine_memory(), _group_memory()) if value is not None]
    return min(found, default=None)


def declared_size(path: Path, kind: str) -> Size | None:
    """The size that a file declares, ``None`` where its header is damaged or the kind has none.

    Raises InputError when the file cannot be opened.
    """
    if kind == "raw":
        return _raw(path)
    if kind in ("tiff", "dng"):
        return _tiff(path, all_images=kind == "dng")
    measure = _SIZES.get(kind)
    if measure is None:
        return None
    try:
        with path.open("rb") as file:
            return measure(file)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    except (struct.error, LookupError, ValueError, OverflowError, StopIteration):
        return None


def _machine_memory() -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        names = ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES")  # Windows has no table of such names
        known = next((name for name in names if name in getattr(os, "sysconf_names", ())), None)
        return None if known is None else os.sysconf(known) * os.sysconf("SC_PAGE_SIZE")


def _group_memory() -> int | None:
    """What the memory controller of a Linux control group (version 2) leaves; its file cache can be given back."""
    group = Path("/sys/fs/cgroup")
    try:
        most, used = ((group / name).read_text() for name in ("memory.max", "memory.current"))
        cache = next(line for line in (group / "memory.stat").read_text().splitlines() if line.startswith("file "))
        return max(0, int(most) - int(used) + int(cache.split()[1]))
    except (OSError, ValueError, StopIteration):
        return None


def _jpeg(file: BinaryIO) -> Size | None:
    """Bytes between segments are passed over, as decoders do."""
    head = file.read(_HEADER_BYTES)
    return _jpeg_frame(head) or _jpeg_frame(head + file.read())


def _jpeg_frame(data: bytes) -> Size | None:
    at = 2
    while (found := _MARKER.search(data, at)) is not None:
        marker, at = data[found.end() - 1], found.end()
        if marker in (0xD9, 0xDA):
            return None
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            bits, height, width, components = struct.unpack_from(">BHHB", data, at + 2)
            return Size(width, height, components * (1 if bits == 8 else 2))
        if marker != 0x01:
            at += struct.unpack_from(">H", data, at)[0]
    return None


def _png(file: BinaryIO) -> Size:
    width, height, bits, color = struct.unpack(">IIBB", file.read(26)[16:])
    channels = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}.get(color, 4)
    return Size(width, height, channels * (2 if bits == 16 else 1))


def _webp(file: BinaryIO) -> Size | None:
    head = file.read(30)
    kind = head[12:16]
    if kind == b"VP8X":
        return Size(1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little"), 4)
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return Size(1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), 4)
    width, height = struct.unpack("<HH", head[26:30])
    return Size(width & 0x3FFF, height & 0x3FFF, 3) if kind == b"VP8 " else None


def _bmp(file: BinaryIO) -> Size:
    head = file.read(30)
    core = struct.unpack_from("<I", head, 14)[0] == 12
    width, height = struct.unpack_from("<HH" if core else "<ii", head, 18)
    return Size(abs(width), abs(height), 4)


def _gif(file: BinaryIO) -> Size:
    """The screen, or the first picture where that is larger."""
    from restorekit.io.gif import blocks

    data = file.read()
    width, height = struct.unpack_from("<HH", data, 6)
    with suppress(struct.error, IndexError, ValueError):
        _, _, bottom, right = blocks(data).covers or (0, 0, 0, 0)
        width, height = max(width, right), max(height, bottom)
    return Size(width, height, 4)


def _tiff(path: Path, *, all_images: bool = False) -> Size | None:
    """The first image of a TIFF file or its tile, which may be larger; with ``all_images`` the largest.

    tifffile is asked, which decodes it: a damaged file may say two things.
    """
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            pages = [tiff.pages.first]
            if all_images:
                pages += [page for page in tiff.pages[1:64] if isinstance(page, tifffile.TiffPage)]
                pages += [inner for page in pages for inner in page.pages or () if isinstance(inner, tifffile.TiffPage)]
            return max((_page_size(page) for page in pages), key=lambda size: size.width * size.height)
    except (tifffile.TiffFileError, ValueError, RuntimeError, IndexError, KeyError, TypeError, struct.error):
        return None


def _page_size(page: tifffile.TiffPage) -> Size:
    width, height = max(page.imagewidth, page.tilewidth), max(page.imagelength, page.tilelength)
    return Size(width, height * page.imagedepth, page.samplesperpixel * -(-page.bitspersample // 8))


def _exr(file: BinaryIO) -> Size | None:
    """The larger of data and display window of the largest part; samples are decoded to half or single floats."""
    found: list[Size] = []
    several_parts = struct.unpack("<I", file.read(8)[4:])[0] & 0x1000
    while True:
        windows: list[tuple[int, int]] = []
        pixel_bytes = 6
        while name := _text(file):
            _text(file)
            length = struct.unpack("<I", file.read(4))[0]
            start = file.tell()
            if name in (b"dataWindow", b"displayWindow"):
                left, top, right, bottom = struct.unpack("<4i", file.read(16))
                windows.append((right - left + 1, bottom - top + 1))
            elif name == b"channels":
                pixel_bytes = sum(4 if large else 2 for large in _exr_channels(file.read(min(length, _HEADER_BYTES))))
            file.seek(start + length)
        found += [Size(width, height, pixel_bytes) for width, height in windows]
        if not (windows and several_parts and len(found) < 1000):
            return max(found, key=lambda size: size.width * size.height)


def _text(file: BinaryIO) -> bytes:
    """Characters up to a NUL, of which there are at most 255."""
    at = file.tell()
    text, end, _ = file.read(256).partition(b"\0")
    if not end:
        raise ValueError("a name without an end")
    file.seek(at + len(text) + 1)
    return text


def _exr_channels(table: bytes) -> Iterator[int]:
    """Whether each channel of a list has more than half floats."""
    at = 0
    while at < len(table) and table[at] != 0:
        at = table.index(0, at) + 1
        yield struct.unpack_from("<i", table, at)[0] != 1
        at += 16


def _radiance(file: BinaryIO) -> Size:
    """The line of the resolution, ``-Y 512 +X 768``, follows an empty one."""
    lines = iter(file.read(1 << 16).split(b"\n"))
    next(line for line in lines if not line.strip())
    words = next(lines).split()
    found = {axis[-1:].upper(): int(length) for axis, length in zip(words[::2], words[1::2], strict=False)}
    return Size(found[b"X"], found[b"Y"], 12)


def _heif(file: BinaryIO) -> Size | None:
    """The largest of the image spatial extents; those of tiles are smaller than that of their grid."""
    extents = [(width, height) for width, height in _extents(_mapped(file), (b"meta", b"iprp", b"ipco"))]
    width, height = max(extents, key=lambda extent: extent[0] * extent[1])
    return Size(width, height, 6)


def _mapped(file: BinaryIO) -> bytes:
    """The bytes of a file, of which only those that are looked at are read."""
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # type: ignore[return-value]


def _extents(data: bytes, path: Sequence[bytes], start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
    """Width and height of the ``ispe`` boxes that lie in boxes of these types."""
    from restorekit.io.bmff import boxes

    for box in itertools.islice(boxes(data, start, end), 10_000):
        if path and box.kind == path[0]:
            inside = box.start + (4 if box.kind == b"meta" else 0)
            yield from _extents(data, path[1:], inside, min(box.end, len(data)))
        elif not path and box.kind == b"ispe":
            yield struct.unpack_from(">II", data, box.start + 4)


def _jxl(file: BinaryIO) -> Size | None:
    from restorekit.io.bmff import boxes

    data, start = _mapped(file), 0
    if data[:2] != b"\xff\x0a":
        box = next(box for box in itertools.islice(boxes(data), 10_000) if box.kind in (b"jxlc", b"jxlp"))
        start = box.start + (4 if box.kind == b"jxlp" else 0)
    head = data[start : start + 16]
    return _jxl_size(int.from_bytes(head[2:], "little")) if head[:2] == b"\xff\x0a" else None


_JXL_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def _jxl_size(bits: int) -> Size:
    """SizeHeader: height, then one of seven ratios or the width; bits are taken from the low end."""

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    def length(small: bool) -> int:
        return 8 * (take(5) + 1) if small else take((9, 13, 18, 30)[take(2)]) + 1

    small = bool(take(1))
    height = length(small)
    ratio = take(3)
    if ratio:
        wide, high = _JXL_RATIOS[ratio - 1]
        return Size(height * wide // high, height, 6)
    return Size(length(small), height, 6)


def _raw(path: Path) -> Size | None:
    """What LibRaw says before it unpacks anything."""
    import rawpy

    try:
        with rawpy.RawPy() as raw:
            raw.open_file(str(path))
            return Size(raw.sizes.raw_width, raw.sizes.raw_height, 2)
    except (rawpy.LibRawError, rawpy.NotSupportedError, NotImplementedError, MemoryError):
        return None


_SIZES: Mapping[str, Callable[[BinaryIO], Size | None]] = {
    "jpeg": _jpeg,
    "png": _png,
    "webp": _webp,
    "bmp": _bmp,
    "gif": _gif,
    "exr": _exr,
    "radiance": _radiance,
    "heif": _heif,
    "avif": _heif,
    "jxl": _jxl,
}
"""How the size of each kind is found."""
