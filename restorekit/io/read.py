"""Read any image file: what it is, is told by its content first, and by its name where content does not tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from restorekit.errors import InputError
from restorekit.io.limits import DEFAULT, Limits

if TYPE_CHECKING:
    from restorekit.frame import Bracket, Frame
    from restorekit.io.raw import Headerless

_RAW = (
    "3fr arw bay cap cr2 cr3 crw dc2 dcr dcs erf fff gpr iiq k25 kdc mdc mef mos mrw nef nrw orf pef ptx pxn r3d raf "
    "raw rw2 rwl rwz sr2 srf srw x3f"
)
RAW_EXTENSIONS = frozenset(f".{name}" for name in _RAW.split())
_OTHERS = "avif avifs bmp dng exr gif hdr heic heif hif jpeg jpg jxl pic png tif tiff webp"
READABLE = RAW_EXTENSIONS | {f".{name}" for name in _OTHERS.split()}
"""Extensions of files that can be read, in lower case; bare mosaics may have any other too."""

KINDS = "RAW, DNG, JPEG, PNG, TIFF, WebP, HEIC, AVIF, JPEG XL, GIF, BMP, EXR and Radiance files"
"""What can be read, for messages."""


def is_raw(path: Path) -> bool:
    """Whether a file is called like a RAW file."""
    return path.suffix.lower() in {*RAW_EXTENSIONS, ".dng"}


def is_finished(path: Path) -> bool:
    """Whether a file is a finished picture, of a display or of light, by its name and its content."""
    if is_raw(path) or path.suffix.lower() not in READABLE:
        return False
    try:
        return _kind(path, _head(path)) not in (None, "raw", "dng")
    except (InputError, OSError):
        return False  # whoever reads it will tell


PictureKind = Literal["jpeg", "png", "webp", "bmp", "tiff", "gif", "avif", "heif", "jxl"]
Kind = Literal[PictureKind, "dng", "exr", "radiance", "raw"]
"""What a file is by its content; a picture is display-referred, or a TIFF of floats."""

EMPTY_ROWS = 8
"""So many rows of nothing but zeros at the end of a mosaic are no part of a scene."""

_MAGICS: Mapping[bytes, Kind] = {
    b"\xff\xd8\xff": "jpeg",
    b"\x89PNG\r\n\x1a\n": "png",
    b"GIF87a": "gif",
    b"GIF89a": "gif",
    b"II+\0": "tiff",
    b"MM\0+": "tiff",
    b"\0\0\0\x0cJXL \r\n\x87\n": "jxl",
    b"\x76\x2f\x31\x01": "exr",
    b"#?RADIANCE": "radiance",
    b"#?RGBE": "radiance",
}
_BRANDS: Mapping[bytes, Kind] = {
    **dict.fromkeys((b"avif", b"avis"), "avif"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "heif"),
}
"""Brands of ISO base media files that hold pictures; AVIF files may name the general ones of HEIF too."""


def read(
    path: str | Path,
    *,
    headerless: Headerless | None = None,
    limits: Limits = DEFAULT,
    sidecar: bool = True,
    gain_map: Literal["ignore", "apply"] = "ignore",
) -> Frame:
    """One image file as a frame in the state its content has, with its metadata.

    RAW files give digital numbers of the sensor, pictures display-referred pixels turned upright, EXR and Radiance
    files scene-referred floats. ``headerless`` describes mosaics without a header, and is used for such files only.
    Files that declare a larger image than ``limits`` allow are refused before anything is decoded. With ``sidecar``
    the XMP file beside it is followed, see :mod:`restorekit.io.sidecar`. Pictures with a gain map give their standard
    rendition; ``gain_map="apply"`` gives that for HDR displays of JPEG files, linear, 1.0 = standard white.

    Raises InputError, naming the file and the cure, for what is missing, empty, damaged, cut off or of another kind.
    """
    path = Path(path)
    head = _head(path)
    kind = _kind(path, head)
    if kind is not None:
        limits.check(path, kind)
    frame = _decoded(path, head, kind, headerless, gain_map == "apply")
    if not sidecar:
        return frame
    from restorekit.io.sidecar import applied

    return applied(frame)


def _decoded(path: Path, head: bytes, kind: Kind | None, headerless: Headerless | None, gain_map: bool) -> Frame:
    """The frame that a file's own content gives."""
    if kind is None and headerless is not None:
        from restorekit.io.raw import read_headerless

        return read_headerless(path, headerless)
    if kind == "dng":
        from restorekit.io.dng.read import read_dng

        return _whole(read_dng(path))
    if kind == "exr":
        from restorekit.io.exr import read_exr

        return read_exr(path)
    if kind == "radiance":
        from restorekit.io.radiance import read_radiance

        return read_radiance(path)
    if kind is not None and kind != "raw":
        from restorekit.io.display import read_picture

        return read_picture(path, kind, gain_map=gain_map)
    if kind == "raw" or _may_be_raw(path, head):
        from restorekit.io.raw import read_raw

        return _whole(read_raw(path))
    raise _no_picture(path, head)


def require_picture(path: Path) -> None:
    """Look at the first bytes of a file that is called like a picture.

    Raises InputError where they are those of no file that can be read, or cannot be read themselves.
    """
    head = _head(path)
    if path.suffix.lower() in READABLE and _kind(path, head) is None and not _may_be_raw(path, head):
        raise _no_picture(path, head)


def _may_be_raw(path: Path, head: bytes) -> bool:
    """Whether a file whose content tells nothing may be that of a camera, by its name."""
    return path.suffix.lower() in {*RAW_EXTENSIONS, ".bin"} and not _is_text(head)


def _whole(frame: Frame) -> Frame:
    """The frame of a RAW file, refused when rows at its end are empty: copies that broke off are filled with zeros.

    Where black is 0, empty rows may be dark ones, and are only noted.
    """
    import torch

    if frame.pixels.dtype != torch.uint16 or frame.height <= EMPTY_ROWS:
        return frame
    numbers = frame.pixels.view(torch.int16)
    if numbers[:, -EMPTY_ROWS:].any():
        return frame
    filled = numbers.ne(0).any(2).any(0).nonzero()
    empty = frame.height - 1 - (int(filled[-1]) if len(filled) else -1)
    said = f"its last {empty} of {frame.height} rows are empty"
    if frame.camera.black is not None and frame.camera.black.min() > 0:
        raise InputError(f"{frame.name}: is damaged, {said}; copy it again from the camera or card")
    return frame.with_note(f"{frame.name}: {said}, it may be damaged")


def read_bracket(
    paths: Sequence[str | Path],
    ev: Sequence[float] = (),
    *,
    headerless: Headerless | None = None,
    limits: Limits = DEFAULT,
    sidecar: bool = True,
) -> Bracket:
    """Files of one scene at different exposures as a bracket, darkest first.

    ``ev`` gives exposure offsets in stops, in the order of the files, where EXIF does not tell them.

    Raises InputError as :func:`read` does, and when the frames do not fit together.
    """
    from restorekit.frame import Bracket

    if not paths:
        raise InputError("a bracket needs at least two files, got none")
    return Bracket.of([read(path, headerless=headerless, limits=limits, sidecar=sidecar) for path in paths], ev)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    if not head:
        raise InputError(f"{path}: is empty (0 bytes); copy it again from the camera or card")
    return head


def _kind(path: Path, head: bytes) -> Kind | None:
    """What a file is by its content; ``None`` where content does not tell."""
    from restorekit.io import containers

    for short, name in ((b"BM", "bmp"), (b"\xff\x0a", "jxl")):
        if head.startswith(short) and path.suffix.lower() == f".{name}":
            return cast(Kind, name)
    for magic, kind in _MAGICS.items():
        if head.startswith(magic):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp":
        end = min(int.from_bytes(head[:4], "big"), len(head))
        brands = [head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))]
        found = {_BRANDS[brand] for brand in brands if brand in _BRANDS}
        if found:
            return "avif" if "avif" in found else "heif"
    if containers.kind_of(head[:16]) is not None:
        return "raw"
    return _tiff_kind(path)


def _tiff_kind(path: Path) -> Kind | None:
    """Which of the formats with the structure of TIFF a file is."""
    from restorekit.io.tiff import TiffError, read_directories, read_directory, read_header

    with path.open("rb") as file:
        header = read_header(file)
        if header is None:
            return None
        try:
            first = read_directory(file, header[1], header[0], strict=False)
            if 50706 in first.fields:
                return "dng"
            directories = read_directories(file)
        except TiffError:
            suffix = path.suffix.lower()
            return "raw" if suffix in RAW_EXTENSIONS else "dng" if suffix == ".dng" else "tiff"
        file.seek(8)
        mosaic = any(directory.integer(262, 0) in (32803, 34892) for directory in directories)
        return "raw" if mosaic or file.read(2) == b"CR" or path.suffix.lower() in RAW_EXTENSIONS else "tiff"


def _is_text(head: bytes) -> bool:
    return all(byte in b"\t\n\r\f" or 32 <= byte < 127 for byte in head)


def _no_picture(path: Path, head: bytes) -> InputError:
    """What is said of a file that cannot be read."""
    return InputError(f"{path}: is {_said(path, head)}; readable are {KINDS}")


def _said(path: Path, head: bytes) -> str:
    """What to call a file that cannot be read."""
    suffix = path.suffix.lower()
    named = f"no {suffix[1:].upper()} file" if suffix in READABLE else "no image file"
    if _is_text(head):
        return f"{named} but text" if suffix in READABLE else "text"
    return f"{named}, its first bytes are {head[:4].hex(' ')}"
