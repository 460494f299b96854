"""Pictures that can be looked at: JPEG, PNG, TIFF and WebP of 8 or 16 bits, turned upright."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from restorekit.errors import InputError
from restorekit.facts import Metadata
from restorekit.frame import Frame
from restorekit.io import embedded, icc, metadata
from restorekit.io.embedded import Embedded
from restorekit.state import ImageState, Primaries, Transfer

for _name in ("imagecodecs", "tifffile"):  # their warnings are for those who ask; errors are raised all the same
    logging.getLogger(_name).addHandler(logging.NullHandler())

H273_PRIMARIES: Mapping[int, Primaries] = {1: "bt709", 9: "bt2020", 12: "p3"}
H273_TRANSFERS: Mapping[int, Transfer] = {8: "linear", 13: "srgb", 16: "pq", 18: "hlg"}
"""Code points of ITU-T H.273 for the spaces known here."""

Pixels = NDArray[Any]


@dataclass(frozen=True)
class _Decoded:
    """Samples ``[H,W]`` or ``[H,W,C]``, with their metadata and what a person should know."""

    samples: Pixels
    embedded: Embedded
    notes: tuple[str, ...] = ()


def read_picture(path: Path, kind: Literal["jpeg", "png", "webp", "bmp", "tiff"]) -> Frame:
    """A finished picture as a display-referred frame of 8 or 16 bit integers.

    The EXIF orientation is applied. The colour space is that of a cICP chunk, the ICC profile or the EXIF mark
    for Adobe RGB, and sRGB where there is none or it is not understood (then with a note). ``pixels`` is a
    ``[C,H,W]`` view of interleaved memory.

    Raises InputError for damaged and cut off files, and for sample types that are no 8 or 16 bit gray or RGB.
    """
    found = _tiff(path) if kind == "tiff" else _coded(path, kind)
    samples, carried = found.samples, found.embedded
    if samples.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path}: has {samples.dtype} samples; convert it to 8 or 16 bits, or to EXR")
    orientation = metadata.exif_orientation(carried.exif)
    samples = _upright(samples[..., None] if samples.ndim == 2 else samples, orientation)
    channels = samples.shape[2]
    if channels > 4:
        raise InputError(f"{path}: has {channels} channels; convert it to gray or RGB")
    planes = torch.from_numpy(samples).permute(2, 0, 1)
    colors = channels - (channels in (2, 4))
    (primaries, transfer), note = _space(carried, gray=colors == 1)
    frame = Frame(
        planes[:colors],
        ImageState("rgb" if colors == 3 else "gray", "display", transfer, primaries),
        alpha=planes[colors:] if channels > colors else None,
        exposure=metadata.exposure_from_exif(carried.exif),
        metadata=Metadata(
            exif=metadata.clean_exif(carried.exif), icc=carried.icc, xmp=metadata.clean_xmp(carried.xmp), orientation=1
        ),
        source=path,
    )
    for text in (*found.notes, note):
        frame = frame.with_note(f"{path.name}: {text}") if text else frame
    return frame


def _coded(path: Path, kind: Literal["jpeg", "png", "webp", "bmp"]) -> _Decoded:
    import imagecodecs

    data = path.read_bytes()
    if kind == "jpeg":
        embedded.require_whole_jpeg(str(path), data)
        if embedded.jpeg_components(data) == 4:
            raise InputError(f"{path}: is a CMYK picture for print; convert it to RGB")
    decoders = {"jpeg": "jpeg8_decode", "png": "png_decode", "webp": "webp_decode", "bmp": "bmp_decode"}
    decode = getattr(imagecodecs, decoders[kind])
    try:
        samples: Pixels = decode(data)
    except (RuntimeError, ValueError) as error:
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path}: is damaged or cut off ({said}); copy it again from where it came") from error
    return _Decoded(samples, Embedded() if kind == "bmp" else embedded.find(kind, data))


def _tiff(path: Path) -> _Decoded:
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages[0]
            assert isinstance(page, tifffile.TiffPage)
            if page.photometric not in (0, 1, 2, 6):
                raise InputError(
                    f"{path}: has {tifffile.PHOTOMETRIC(page.photometric).name} colours; convert it to gray or RGB"
                )
            end = max(
                (offset + size for offset, size in zip(page.dataoffsets, page.databytecounts, strict=True)), default=0
            )
            if end > path.stat().st_size:
                raise InputError(
                    f"{path}: is cut off, {path.stat().st_size} of at least {end} bytes are there; copy it again"
                )
            samples: Pixels = page.asarray()
            separate = page.planarconfig == 2 and samples.ndim == 3
            premultiplied = 1 in page.extrasamples
            inverted = page.photometric == 0
            pages = sum(isinstance(p, tifffile.TiffPage) and not p.is_reduced for p in tiff.pages)
            profile, packet = (page.tags.valueof(tag, b"") for tag in (34675, 700))
    except (ValueError, RuntimeError, OSError, IndexError, KeyError) as error:
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{path}: is damaged or of an unknown kind ({said}); copy it again from where it came"
        ) from error
    if separate:
        samples = np.moveaxis(samples, 0, -1)
    if inverted and samples.dtype.kind == "u":
        samples = np.iinfo(samples.dtype).max - samples
    with path.open("rb") as file:
        exif = metadata.raw_exif(file, keep_orientation=True)
    notes = {
        "its colours are multiplied by its alpha channel": premultiplied,
        f"has {pages} pages, the first is taken": pages > 1,
    }
    told = tuple(note for note, holds in notes.items() if holds)
    return _Decoded(samples, Embedded(exif, bytes(profile), bytes(packet)), told)


def _upright(samples: Pixels, orientation: int) -> Pixels:
    """Samples ``[H,W,C]`` turned as the EXIF orientation asks; torch cannot flip 16-bit integers."""
    if orientation >= 5:
        samples = samples.transpose(1, 0, 2)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(samples[::rows, ::columns])


def _space(carried: Embedded, *, gray: bool) -> tuple[tuple[Primaries, Transfer], str]:
    """Primaries and transfer of a picture, and a note where they are a guess against what it carries."""
    if carried.cicp is not None:
        primaries, transfer = H273_PRIMARIES.get(carried.cicp[0]), H273_TRANSFERS.get(carried.cicp[1])
        if primaries is not None and transfer is not None:
            return (primaries, transfer), ""
    if carried.icc:
        space = icc.space_of(carried.icc)
        fits = (carried.icc[16:20] == b"GRAY") == gray
        if space is not None and (fits or not gray):
            return space, ""
        return (
            "bt709",
            space[1] if space and gray else "srgb",
        ), "its colour profile is not understood, its numbers are taken for sRGB"
    if metadata.says_adobe_rgb(carried.exif):
        return ("adobe-rgb", "gamma"), ""
    return ("bt709", "srgb"), ""
