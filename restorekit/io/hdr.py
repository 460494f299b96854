"""OpenEXR files: linear light in half or single floats, read and written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from restorekit.color.primaries import CHROMATICITIES, Chromaticities, luminance_weights
from restorekit.errors import InputError
from restorekit.facts import Exposure
from restorekit.frame import Frame
from restorekit.io import metadata
from restorekit.io.metadata import ARTIST, MAKE, MODEL
from restorekit.state import ImageState, Primaries

Plane = NDArray[np.floating[Any]]

_TOLERANCE = 0.002


def read_exr(path: Path) -> Frame:
    """An OpenEXR image as a scene-referred linear frame of its own float type; infinities and NaN stay.

    RGB, gray (Y) and luminance/chroma (Y, RY, BY) images are read; alpha (A) goes along. Primaries are those of
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
    if pixels is None:
        raise InputError(f"{path}: has the channels {', '.join(sorted(planes))}; only R G B, Y and Y RY BY can be read")
    frame = Frame(
        torch.from_numpy(pixels),
        ImageState("rgb" if pixels.shape[0] == 3 else "gray", "scene", "linear", primaries),
        alpha=torch.from_numpy(planes["A"][None]) if "A" in planes and planes["A"].shape == pixels.shape[1:] else None,
        exposure=Exposure(*(_positive(header.get(name)) for name in ("expTime", "aperture", "isoSpeed"))),
        source=path,
    )
    for note in notes:
        frame = frame.with_note(f"{path.name}: {note}")
    return frame


def write_exr(path: Path, frame: Frame, *, compression: str, software: str) -> None:
    """Write a linear frame of float16 or float32 pixels; the path is overwritten.

    Attributes: ``chromaticities`` of the primaries, exposure, capture date, camera and owner.

    Raises RuntimeError or OSError where OpenEXR cannot write.
    """
    import OpenEXR

    names = ("R", "G", "B") if frame.state.layout == "rgb" else ("Y",)
    channels = {name: np.ascontiguousarray(plane.numpy()) for name, plane in zip(names, frame.pixels, strict=True)}
    if frame.alpha is not None:
        channels["A"] = np.ascontiguousarray(frame.as_float().alpha[0].numpy()).astype(channels[names[0]].dtype)  # type: ignore[index]
    header: dict[str, Any] = {
        "compression": getattr(OpenEXR, {"none": "NO"}.get(compression, compression.upper()) + "_COMPRESSION"),
        "type": OpenEXR.scanlineimage,
        "chromaticities": _chromaticities(CHROMATICITIES[frame.state.primaries]),
        "software": software,
        **_exposure_attributes(frame),
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


def _exposure_attributes(frame: Frame) -> dict[str, Any]:
    """The standard attributes of OpenEXR for how a picture was taken; unknown ones are left out."""
    image, _ = metadata.exif_fields(frame.metadata.exif)
    taken = metadata.capture_time(frame.metadata.exif)
    found = {
        "expTime": frame.exposure.time_s,
        "aperture": frame.exposure.f_number,
        "isoSpeed": frame.exposure.iso,
        "capDate": taken.strftime("%Y:%m:%d %H:%M:%S") if taken else None,
        "cameraMake": image.text(MAKE),
        "cameraModel": image.text(MODEL),
        "owner": image.text(33432) or image.text(ARTIST),
    }
    return {name: value if isinstance(value, str) else float(value) for name, value in found.items() if value}


def _positive(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) and value > 0 else None
