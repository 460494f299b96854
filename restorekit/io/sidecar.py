"""XMP sidecars: what a photo manager noted beside a picture, in a file of its own.

``IMG_1.CR2.xmp`` belongs to ``IMG_1.CR2`` alone, ``IMG_1.xmp`` to every ``IMG_1`` for which Adobe's
``photoshop:SidecarForExtension`` does not name another extension. Read are orientation, crop, rating and what
describes the picture (title, keywords, rights); settings of developers are not.

Adobe's crop is given in fractions of the picture as it is stored, before its orientation; of a RAW file, of its
default crop. So it is here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from restorekit.io import metadata, xmp
from restorekit.io.xmp import CAMERA_RAW, PHOTOSHOP, TIFF, XMP, Name, Packet, XmpError

if TYPE_CHECKING:
    from restorekit.frame import Frame

_EXTENSIONS = (".xmp", ".XMP")
_SMALLEST_ANGLE = 0.005
"""Degrees by which a crop may be turned and still be taken as upright: half a pixel in a row of 6000."""

Crop = tuple[int, int, int, int]


def beside(path: Path) -> Path | None:
    """The sidecar of a file, by its name: the longer one comes first."""
    names = (path.name + extension for extension in _EXTENSIONS), (path.stem + extension for extension in _EXTENSIONS)
    candidates = (path.with_name(name) for group in names for name in group)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def applied(frame: Frame) -> Frame:
    """A frame as its file was read, with what its sidecar says; without a sidecar the frame itself.

    Orientation and crop of a RAW file become the pending ones of its metadata. A picture was already turned upright:
    it is turned back, and then turned and cropped as the sidecar asks, whose orientation replaces the file's own.
    Rating and description go into the XMP packet, and the rating into the EXIF block too.

    A note tells what was taken. A sidecar that is damaged, or asks for a crop at an angle, is left out as far as it
    cannot be followed, which a note tells too.
    """
    path = None if frame.source is None else beside(frame.source)
    if frame.source is None or path is None:
        return frame
    name = frame.source.name
    try:
        if path.stat().st_size > xmp.LARGEST_BYTES:
            raise XmpError(f"is larger than {xmp.LARGEST_BYTES >> 20} MB")
        data = path.read_bytes()
        values = Packet(data).values
    except (XmpError, OSError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        return frame.with_note(f"{name}: its sidecar {path.name} is left out, it {said or 'cannot be read'}")
    meant_for = values.get((PHOTOSHOP, "SidecarForExtension"), "").lower()
    if path.stem != name and meant_for not in ("", frame.source.suffix[1:].lower()):
        return frame
    taken: list[str] = []
    orientation = _orientation(values)
    fractions, refused = _crop(values)
    frame = _turned(frame, orientation, fractions, taken)
    rating = _rating(values)
    carried = frame.metadata
    if rating is not None:
        carried = replace(carried, exif=metadata.rated(carried.exif, rating))
        taken.append("rating")
    frame = replace(frame, metadata=replace(carried, xmp=xmp.merged(carried.xmp, xmp.clean_xmp(data))))
    nonsense = {"orientation": ((TIFF, "Orientation"), orientation), "rating": ((XMP, "Rating"), rating)}
    for word, (key, understood) in nonsense.items():
        if understood is None and values.get(key):
            frame = frame.with_note(f"{name}: its sidecar's {word} '{values[key][:20]}' is not understood")
    if refused:
        frame = frame.with_note(f"{name}: its sidecar's crop is left out, it {refused}")
    if taken:
        is_or_are = "is" if len(taken) == 1 else "are"
        frame = frame.with_note(f"{name}: its sidecar's {' and '.join(taken)} {is_or_are} taken")
    return frame


def _turned(
    frame: Frame, orientation: int | None, fractions: tuple[float, float, float, float] | None, taken: list[str]
) -> Frame:
    """The frame with orientation and crop, pending for RAW files and done for pictures; adds the words for a note."""
    from restorekit.planes import orient

    assert frame.source is not None
    is_raw = frame.state.reference == "sensor"
    before = frame.metadata.orientation if is_raw else metadata.applied_orientation(frame.source)
    turned = orientation is not None and orientation != before
    if not turned and fractions is None:
        return frame
    taken += [word for word, holds in (("orientation", turned), ("crop", fractions is not None)) if holds]
    if not is_raw and before != 1:
        undone = {6: 8, 8: 6}.get(before, before)
        frame = frame.planes(lambda plane: orient(plane, undone))
    crop = frame.metadata.crop if fractions is None else _cut(frame, fractions)
    frame = replace(frame, metadata=replace(frame.metadata, orientation=orientation or before, crop=crop))
    return frame if is_raw else frame.upright()


def _cut(frame: Frame, fractions: tuple[float, float, float, float]) -> Crop:
    """The rectangle of fractions (top, left, bottom, right) of what the frame is cropped to already, 1 px at least."""
    top, left, bottom, right = frame.metadata.crop or (0, 0, frame.height, frame.width)
    rows = _span(top, bottom, fractions[0], fractions[2])
    columns = _span(left, right, fractions[1], fractions[3])
    return rows[0], columns[0], rows[1], columns[1]


def _span(start: int, end: int, first: float, last: float) -> tuple[int, int]:
    begin = min(start + round(first * (end - start)), end - 1)
    return begin, max(begin + 1, start + round(last * (end - start)))


def _orientation(values: Mapping[Name, str]) -> int | None:
    text = values.get((TIFF, "Orientation"), "")
    return int(text) if text in tuple("12345678") else None


def _rating(values: Mapping[Name, str]) -> int | None:
    """Stars 0 to 5, -1 for rejected; ``None`` where there are none, or nonsense."""
    number = _number(values.get((XMP, "Rating")))
    return int(number) if number in (-1, 0, 1, 2, 3, 4, 5) else None


def _crop(values: Mapping[Name, str]) -> tuple[tuple[float, float, float, float] | None, str]:
    """Top, left, bottom and right of a crop as fractions, or ``None`` and why it cannot be followed."""
    if values.get((CAMERA_RAW, "HasCrop"), "").lower() != "true":
        return None, ""
    if values.get((CAMERA_RAW, "AlreadyApplied"), "").lower() == "true":
        return None, ""
    defaults = {"CropTop": "0", "CropLeft": "0", "CropBottom": "1", "CropRight": "1", "CropAngle": "0"}
    numbers = [_number(values.get((CAMERA_RAW, name), default)) for name, default in defaults.items()]
    top, left, bottom, right, angle = numbers
    if abs(angle) >= _SMALLEST_ANGLE:
        return None, f"is turned by {angle:g} degrees; turn and crop with stages geometry.rotate and geometry.crop"
    if not (0 <= top < bottom <= 1 and 0 <= left < right <= 1):
        return None, "is no rectangle inside the picture"
    return None if (top, left, bottom, right) == (0, 0, 1, 1) else (top, left, bottom, right), ""


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
