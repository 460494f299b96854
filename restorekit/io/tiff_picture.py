"""TIFF pictures (TIFF 6.0, its supplements 1 and 2): gray, RGB, palettes, CMYK and CIELAB of any depth, and floats."""

from __future__ import annotations

import logging
import struct
from pathlib import Path

import numpy as np
import tifffile

from restorekit.errors import InputError
from restorekit.io import metadata
from restorekit.io.colorimetry import CHANNELS, Model
from restorekit.io.decoded import Decoded
from restorekit.io.embedded import Embedded, iptc_of_resources
from restorekit.io.samples import Samples, full_range, straight_alpha

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # warnings are for those who ask

_MIN_IS_WHITE, _PALETTE, _YCBCR, _CIELAB, _ICCLAB = 0, 3, 6, 8, 9
_MODELS: dict[int, Model] = {0: "gray", 1: "gray", 2: "rgb", 3: "rgb", 5: "cmyk", 6: "rgb", 8: "lab", 9: "lab"}
"""By photometric interpretation."""
_JPEG = (6, 7)
_BY_LIBTIFF = (5, 8, 32946, 50000)
"""Compressions that libtiff undoes in less time: LZW, deflate and Zstandard."""
_ASSOCIATED = 1
_ICC, _XMP, _IPTC, _PHOTOSHOP = 34675, 700, 33723, 34377


def decode(path: Path) -> Decoded:
    """The first picture of a file that is no smaller copy of another one.

    Palettes become RGB, integers of less than 8 or 16 bits are scaled to these. Colours that are multiplied by alpha
    are divided by it. Floats without a profile are taken for scene-linear Rec. 709.

    Raises InputError for files that are damaged, cut off, or hold what is no such picture.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            whole = [page for page in tiff.pages if isinstance(page, tifffile.TiffPage) and not page.is_reduced]
            page = whole[0] if whole else tiff.pages.first
            _require_known(path, page)
            samples = _samples(path, page)
            carried = _embedded(path, tiff, page)
            pages = len(whole)
            colormap = page.colormap
    except (ValueError, RuntimeError, OSError, IndexError, KeyError, TypeError, struct.error) as error:
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{path}: is damaged or of an unknown kind ({said}); copy it again from where it came"
        ) from error
    notes: list[str] = []
    model = _MODELS[page.photometric]
    if page.photometric == _PALETTE and colormap is not None:
        samples = _colors(colormap)[samples if samples.ndim == 2 else samples[..., 0]]
    samples = _ranged(samples, page)
    samples = samples[..., None] if samples.ndim == 2 else samples
    colors = CHANNELS[model]
    if samples.ndim != 3 or samples.shape[2] < colors:
        raise InputError(f"{path}: has samples of shape {samples.shape}; convert it to gray or RGB")
    if samples.shape[2] > colors:
        samples, told = _with_alpha(samples, colors, tuple(page.extrasamples))
        notes += told
    if model == "lab":
        samples = _lab(samples, page.photometric)
    scene = samples.dtype.kind == "f" and model != "lab" and not carried.icc
    if scene:
        notes.append("has floats without a colour profile, they are taken for scene-linear Rec. 709")
    if pages > 1:
        notes.append(f"has {pages} pages, the first is taken")
    return Decoded(samples, model, carried, scene=scene, notes=tuple(notes))


def _require_known(path: Path, page: tifffile.TiffPage) -> None:
    if page.photometric not in _MODELS:
        raise InputError(
            f"{path}: has {tifffile.PHOTOMETRIC(page.photometric).name} colours; convert it to gray or RGB"
        )
    kind = page.dtype
    if kind is None or kind.kind not in "ufb" or kind.itemsize > (8 if kind.kind == "f" else 2):
        raise InputError(f"{path}: has {kind or 'unknown'} samples; convert it to 8 or 16 bits, or to floats")
    end = max((offset + size for offset, size in zip(page.dataoffsets, page.databytecounts, strict=True)), default=0)
    if end > path.stat().st_size:
        raise InputError(f"{path}: is cut off, {path.stat().st_size} of at least {end} bytes are there; copy it again")


def _samples(path: Path, page: tifffile.TiffPage) -> Samples:
    """The samples of a page ``[H,W]`` or ``[H,W,C]`` in the machine's byte order, not yet scaled."""
    import imagecodecs

    if page.photometric == _YCBCR and page.compression not in _JPEG:
        rgb: Samples = imagecodecs.tiff_decode(path.read_bytes(), index=page.index, asrgb=True)
        return rgb[..., :3]
    plain = page.photometric in (0, 1, 2) and page.planarconfig == 1 and page.bitspersample in (8, 16)
    if plain and page.compression in _BY_LIBTIFF and page.index == 0:
        return np.asarray(imagecodecs.tiff_decode(path.read_bytes()))
    samples: Samples = page.asarray()
    return np.moveaxis(samples, 0, -1) if page.planarconfig == 2 and samples.ndim == 3 else samples


def _ranged(samples: Samples, page: tifffile.TiffPage) -> Samples:
    """Integers of full range where larger is lighter, or single or half floats."""
    if samples.dtype.kind == "f":
        return samples.astype(np.float32, copy=False) if samples.dtype != np.float16 else samples
    if samples.dtype.kind == "b":
        samples = samples.astype(np.uint8)
    if page.photometric != _PALETTE:
        samples = full_range(samples, int(page.bitspersample))
    return np.iinfo(samples.dtype).max - samples if page.photometric == _MIN_IS_WHITE else samples


def _colors(colormap: Samples) -> Samples:
    """A palette ``[3,N]`` of 16 bits as ``[N,3]``; of 8 bits where it is no finer, or was written as such."""
    table = colormap.T.astype(np.uint16)
    if table.max() < 256:
        return table.astype(np.uint8)
    high = table >> 8
    return (
        high.astype(np.uint8) if np.isin(table - high * 256, (0, *np.unique(high))).all() and _coarse(table) else table
    )


def _coarse(table: Samples) -> bool:
    """Whether 16-bit values are 8-bit ones, repeated or with zeros below."""
    return bool(((table & 255 == table >> 8) | (table & 255 == 0)).all())


def _with_alpha(samples: Samples, colors: int, extra: tuple[int, ...]) -> tuple[Samples, list[str]]:
    """Colours and one alpha; channels of other use are left out."""
    count = samples.shape[2] - colors
    alpha = next((index for index, kind in enumerate(extra) if kind in (1, 2)), 0)
    notes = [f"has {count} channels beside its colours, one is taken for alpha"] if count > 1 else []
    kept = np.concatenate([samples[..., :colors], samples[..., colors + alpha, None]], 2) if count > 1 else samples
    if alpha < len(extra) and extra[alpha] == _ASSOCIATED:
        notes.append("its colours were multiplied by its alpha channel, and are divided by it")
        kept = straight_alpha(kept)
    return kept, notes


def _lab(samples: Samples, photometric: int) -> Samples:
    """L* 0..100, a* and b* of encoded CIELAB: signed a*, b* (TIFF 6.0, 23) or with an offset (supplement 2, ICC)."""
    if samples.dtype.kind == "f":
        return samples
    if photometric == _CIELAB:
        lightness = samples[..., :1].astype(np.float32) * np.float32(100 / np.iinfo(samples.dtype).max)
        signed = samples[..., 1:3].astype(f"i{samples.itemsize}").astype(np.float32)
        return np.concatenate([lightness, signed / (1 if samples.itemsize == 1 else 256), *_rest(samples)], 2)
    unit = 1 if samples.itemsize == 1 else 256
    lightness = samples[..., :1].astype(np.float32) * np.float32(100 / (255 * unit))
    return np.concatenate([lightness, samples[..., 1:3].astype(np.float32) / unit - 128, *_rest(samples)], 2)


def _rest(samples: Samples) -> list[Samples]:
    """Alpha after the colours, as a fraction."""
    return [samples[..., 3:].astype(np.float32) / np.iinfo(samples.dtype).max] if samples.shape[2] > 3 else []


def _embedded(path: Path, tiff: tifffile.TiffFile, page: tifffile.TiffPage) -> Embedded:
    with path.open("rb") as file:
        exif = metadata.raw_exif(file, keep_orientation=True)

    def content(tag: int) -> bytes:
        value = page.tags.valueof(tag, b"")
        if isinstance(value, tuple) and all(isinstance(number, int) for number in value):
            return struct.pack(f"{tiff.byteorder}{len(value)}I", *value)  # bytes that were written as words
        return value if isinstance(value, bytes) else b""

    return Embedded(exif, content(_ICC), content(_XMP), iptc=content(_IPTC) or iptc_of_resources(content(_PHOTOSHOP)))
