"""OpenEXR files: linear light in half or single floats, read and written."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from restorekit.color.primaries import CHROMATICITIES, Chromaticities, luminance_weights
from restorekit.errors import InputError
from restorekit.facts import Exposure, Facts, Metadata
from restorekit.frame import Frame
from restorekit.io import metadata
from restorekit.io.metadata import ARTIST, MAKE, MODEL
from restorekit.io.tiff import ASCII, RATIONAL, SHORT, Field, Tree
from restorekit.planes import to_float
from restorekit.state import ImageState, Primaries

Plane = NDArray[np.floating[Any]]

COPYRIGHT, LENS_MAKE, LENS_MODEL, OFFSET_TIME_ORIGINAL = 33432, 42035, 42036, 36881
_ZONE = re.compile(r"([+-])(\d\d):(\d\d)")
_TEXTS = ("cameraMake", "cameraModel", "owner", "capDate", "lensMake", "lensModel")
_NUMBERS = {
    "expTime": (metadata.EXPOSURE_TIME, RATIONAL),
    "aperture": (metadata.F_NUMBER, RATIONAL),
    "isoSpeed": (metadata.ISO, SHORT),
}
_TOLERANCE = 0.002
SCALE = "restorekitScale"
"""The attribute of ``facts.scale``: values divided by it are fractions of the range of the sensor."""


def read_exr(path: Path) -> Frame:
    """An OpenEXR image as a scene-referred linear frame of its own float type; infinities and NaN stay, with a note.

    The standard attributes about the shot become EXIF, an ``xmp`` attribute is XMP, :data:`SCALE` ``facts.scale``.
    RGB, gray (Y) and luminance/chroma (Y, RY, BY) images are read; alpha (A) goes along, and the colours that OpenEXR
    has multiplied with it are divided by it (what glows where it is 0 stays). Primaries are those of
    the ``chromaticities`` attribute, Rec. 709 where there is none (the default of OpenEXR) or, with a note, where
    they are of no known space. Of files with several parts the first is taken.

    Raises InputError for damaged files and those without such channels.
    """
    import OpenEXR

    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            header = dict(file.header())
            planes: dict[str, Plane] = {name: channel.pixels for name, channel in file.channels().items()}
            several = len(file.parts) > 1
    except (RuntimeError, OSError, ValueError) as error:
        raise InputError(
            f"{path}: is no complete EXR file ({str(error).splitlines()[0]}); copy it again from where it came"
        ) from error
    primaries, notes = _primaries(header.get("chromaticities"))
    if several:
        notes.append("has several parts, only the first is read")
    pixels = _pixels(planes, primaries)
    alpha = (
        planes["A"][None] if pixels is not None and "A" in planes and planes["A"].shape == pixels.shape[1:] else None
    )
    if pixels is None:
        raise InputError(
            f"{path}: has the channels {', '.join(sorted(planes))}, only R G B, Y and Y RY BY can be read; "
            "save it with channels of these names"
        )
    notes += _not_finite(pixels)
    if alpha is not None:
        pixels = _straight(pixels, alpha)
    frame = Frame(
        torch.from_numpy(pixels),
        ImageState("rgb" if pixels.shape[0] == 3 else "gray", "scene", "linear", primaries),
        alpha=None if alpha is None else torch.from_numpy(alpha),
        exposure=Exposure(*(_positive(header.get(name)) for name in ("expTime", "aperture", "isoSpeed"))),
        facts=Facts(scale=_positive(header.get(SCALE)) or 1.0),
        metadata=Metadata(exif=_exif(header), xmp=_packet(header), color=(primaries, "linear")),
        source=path,
    )
    for note in notes:
        frame = frame.with_note(f"{path.name}: {note}")
    return frame


def write_exr(path: Path, frame: Frame, *, compression: str, quality: int = 95, software: str) -> None:
    """Write a linear frame of float16 or float32 pixels; the path is overwritten. Infinities and NaN stay.

    ``quality`` is for ``dwaa`` and ``dwab``: 95 is their usual level of 45, 100 a level of 0.
    Colours are multiplied with alpha where there is one, as OpenEXR asks; half floats are rounded once more by that.
    Attributes: ``chromaticities``, exposure, capture date, place, camera, lens, owner, XMP as ``xmp``, and the scale of
    scene light as :data:`SCALE`, where it is known.

    Raises RuntimeError or OSError where OpenEXR cannot write.
    """
    import OpenEXR

    pixels = np.ascontiguousarray(frame.pixels.permute(1, 2, 0).numpy())
    alpha = None if frame.alpha is None else to_float(frame.alpha)[0].numpy()
    if alpha is not None:
        pixels = _associated(pixels, alpha)
    channels = {"RGB": pixels} if pixels.shape[2] == 3 else {"Y": pixels[..., 0]}
    if alpha is not None:
        channels["A"] = np.ascontiguousarray(alpha.astype(pixels.dtype))
    header: dict[str, Any] = {
        "compression": getattr(OpenEXR, {"none": "NO"}.get(compression, compression.upper()) + "_COMPRESSION"),
        "type": OpenEXR.scanlineimage,
        "chromaticities": _chromaticities(CHROMATICITIES[frame.state.primaries]),
        "software": software,
        **({"dwaCompressionLevel": 9.0 * (100 - quality)} if compression in ("dwaa", "dwab") else {}),
        **({SCALE: float(frame.facts.scale)} if frame.state.reference == "scene" and frame.facts.scale != 1 else {}),
        **({"xmp": frame.metadata.xmp.decode("utf-8", "replace")} if frame.metadata.xmp else {}),
        **_capture_attributes(frame),
    }
    with OpenEXR.File(header, channels) as file:
        file.write(str(path))


def _pixels(planes: Mapping[str, Plane], primaries: Primaries) -> Plane | None:
    """``[C,H,W]`` of the colour channels, or ``None`` where they are not such."""
    if all(name in planes for name in "RGB"):
        return np.stack([planes[name] for name in "RGB"])
    if "Y" not in planes:
        return None
    luma = planes["Y"]
    if not ("RY" in planes and "BY" in planes):
        return luma[None].copy()
    red, _, blue = weights = luminance_weights(primaries)
    ry, by = (_enlarged(planes[name], luma.shape).astype(np.float32) for name in ("RY", "BY"))
    r, b = (ry + 1) * luma, (by + 1) * luma
    g = (luma - r * np.float32(red) - b * np.float32(blue)) / np.float32(weights[1])
    return np.stack([r, g, b]).astype(np.float32)


def _straight(pixels: Plane, alpha: Plane) -> Plane:
    """``[C,H,W]`` divided by alpha ``[1,H,W]``, in the same type, where that lies between 0 and 1."""
    cover = alpha.astype(np.float32)
    usable = (cover > 0) & (cover < 1)
    if not usable.any():
        return pixels
    divided = np.divide(pixels, cover, out=pixels.astype(np.float32), where=usable)
    most = np.float32(np.finfo(pixels.dtype).max)
    return np.where(np.isfinite(pixels), np.clip(divided, -most, most), pixels).astype(pixels.dtype)


def _associated(pixels: Plane, alpha: Plane) -> Plane:
    """``[H,W,C]`` multiplied with alpha ``[H,W]``, in the same type; hidden colours become 0, or they would glow."""
    cover = np.minimum(alpha.astype(np.float32), 1)[..., None]
    shown = np.multiply(pixels, cover, out=np.zeros(pixels.shape, np.float32), where=cover > 0)
    return shown.astype(pixels.dtype)


def _not_finite(pixels: Plane) -> list[str]:
    """A note that counts infinite values and those that are no numbers."""
    counts = np.zeros(2, np.int64)
    for rows in np.array_split(pixels, max(1, pixels.shape[1] // 64), axis=1):
        if not _all_finite(rows):
            counts += np.isinf(rows).sum(), np.isnan(rows).sum()
    said = [f"{count} {name} values" for count, name in zip(counts, ("infinite", "NaN"), strict=True) if count]
    return [f"has {' and '.join(said)}"] if said else []


def _all_finite(values: Plane) -> bool:
    """Half floats are looked at as bits: their exponent is all ones; this is ten times as fast."""
    if values.dtype == np.float16:
        return int((values.view(np.uint16) & 0x7C00).max()) != 0x7C00
    return bool(np.isfinite(values).all())


def _enlarged(chroma: Plane, shape: tuple[int, ...]) -> Plane:
    """Chroma of every second pixel at full size, in between linear."""
    import cv2

    if chroma.shape == shape:
        return chroma
    rows, columns = np.arange(shape[0], dtype=np.float32), np.arange(shape[1], dtype=np.float32)
    where = np.meshgrid(columns * (chroma.shape[1] / shape[1]), rows * (chroma.shape[0] / shape[0]))
    whole = chroma.astype(np.float32)
    return cv2.remap(whole, where[0], where[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)


def _primaries(given: tuple[float, ...] | None) -> tuple[Primaries, list[str]]:
    if given is None:
        return "bt709", []
    for name, space in CHROMATICITIES.items():
        if max(abs(a - b) for a, b in zip(given, _chromaticities(space), strict=True)) < _TOLERANCE:
            return name, []
    return "bt709", ["its chromaticities are of no known space and taken for Rec. 709"]


def _chromaticities(space: Chromaticities) -> tuple[float, ...]:
    return (*space.red, *space.green, *space.blue, *space.white)


def _capture_attributes(frame: Frame) -> dict[str, Any]:
    """The standard attributes of OpenEXR for how, when and where a picture was taken; unknown ones are left out."""
    image, photo = metadata.exif_fields(frame.metadata.exif)
    taken = metadata.capture_time(frame.metadata.exif)
    found = {
        "expTime": frame.exposure.time_s,
        "aperture": frame.exposure.f_number,
        "isoSpeed": frame.exposure.iso,
        "capDate": taken.strftime("%Y:%m:%d %H:%M:%S") if taken else None,
        "cameraMake": image.text(MAKE),
        "cameraModel": image.text(MODEL),
        "lensMake": photo.text(LENS_MAKE),
        "lensModel": photo.text(LENS_MODEL),
        "owner": image.text(COPYRIGHT) or image.text(ARTIST),
    }
    known: dict[str, Any] = {k: v if isinstance(v, str) else float(v) for k, v in found.items() if v}
    offset = _ZONE.fullmatch(photo.text(OFFSET_TIME_ORIGINAL))
    if offset and taken:
        sign, hours, minutes = offset.groups()
        known["utcOffset"] = (-1.0 if sign == "+" else 1.0) * (int(hours) * 3600 + int(minutes) * 60)
    return known | _place(metadata.exif_tree(frame.metadata.exif).get(metadata.GPS_IFD))


def _exif(header: Mapping[str, Any]) -> bytes:
    """An EXIF block of the standard attributes about camera and shot; empty where there are none."""
    texts = {name: value for name in _TEXTS if isinstance(value := header.get(name), str) and value}
    lens = {"lensMake": LENS_MAKE, "lensModel": LENS_MODEL}
    photo = {tag: Field.of(ASCII, texts[name]) for name, tag in lens.items() if name in texts}
    for name, (tag, kind) in _NUMBERS.items():
        value = _positive(header.get(name))
        if value is not None and (kind != SHORT or value < 65535):
            photo[tag] = Field.of(kind, (value,))
    taken = None
    with contextlib.suppress(ValueError):
        taken = datetime.strptime(texts.get("capDate", ""), "%Y:%m:%d %H:%M:%S")
    seconds = header.get("utcOffset")
    if taken and isinstance(seconds, int | float) and abs(seconds) <= 14 * 3600:
        minutes = round(-seconds / 60)
        zone = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
        photo[OFFSET_TIME_ORIGINAL] = Field.of(ASCII, zone)
    make, model, owner = (texts.get(name, "") for name in ("cameraMake", "cameraModel", "owner"))
    tree = metadata.photo_tree(make=make, model=model, artist=owner, taken=taken, photo=photo)
    return metadata.exif_bytes(tree) if tree else b""


def _packet(header: Mapping[str, Any]) -> bytes:
    packet = header.get("xmp", "")
    return metadata.clean_xmp(packet.encode("utf-8")) if isinstance(packet, str) and packet else b""


def _place(gps: Tree | Field | None) -> dict[str, float]:
    """Degrees north and east, and metres above the sea, of the GPS directory of EXIF."""
    fields = {tag: item for tag, item in gps.items() if isinstance(item, Field)} if isinstance(gps, dict) else {}
    found: dict[str, float] = {}
    for name, tag, negative in (("latitude", 2, "S"), ("longitude", 4, "W")):
        parts = fields[tag].numbers if tag in fields and tag - 1 in fields else ()
        if len(parts) == 3 and all(math.isfinite(part) for part in parts):
            degrees = parts[0] + parts[1] / 60 + parts[2] / 3600
            found[name] = -degrees if fields[tag - 1].text == negative else degrees
    height = fields[6].numbers if 6 in fields else ()
    if len(height) == 1 and math.isfinite(height[0]):
        below = 5 in fields and fields[5].data[:1] == b"\1"
        found["altitude"] = -height[0] if below else height[0]
    return found


def _positive(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) and value > 0 else None
