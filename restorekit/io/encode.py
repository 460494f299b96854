"""Encoders: a frame whose pixels are already of the stored type, into an open file, with its metadata."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from restorekit.frame import Frame
from restorekit.io import embedded_write, metadata
from restorekit.io.embedded import Embedded
from restorekit.io.embedded_write_avif import UNSPECIFIED, into_avif
from restorekit.io.exr import write_exr
from restorekit.io.formats import FORMATS, OutputSpec
from restorekit.io.light_level import light_level
from restorekit.io.png_write import write_png
from restorekit.io.radiance_write import write_radiance
from restorekit.io.tagging import code_points, is_srgb, profile
from restorekit.io.tiff_write import write_tiff
from restorekit.io.write import stored

Samples = NDArray[Any]
Encoder = Callable[[BinaryIO, Frame, OutputSpec, str], None]

AVIF_THREADS = 4
"""libavif cuts a picture into tiles by the number of threads: one number gives the same bytes everywhere."""

AVIF_SPEED = 9
JXL_EFFORT, JXL_LOSSLESS_EFFORT = 3, 2
WEBP_METHOD, WEBP_LOSSLESS_METHOD, WEBP_LOSSLESS_EFFORT = 4, 3, 30
"""How hard the encoders try: where more time gives hardly smaller files (benchmarks/format_speed.py)."""


def jpeg(file: BinaryIO, frame: Frame, spec: OutputSpec, software: str) -> None:
    """Baseline JPEG at full colour resolution."""
    coded = imagecodecs.jpeg8_encode(_interleaved(frame, spec), level=spec.quality, subsampling="444")
    file.writelines(embedded_write.into_jpeg(bytes(coded), in_jpeg(frame, software)))


def in_jpeg(frame: Frame, software: str) -> Embedded:
    """The metadata of a picture as far as JPEG has room for them."""
    room = FORMATS["jpeg"].block_bytes
    limit = room if len(frame.metadata.exif) > room else embedded_write.EXIF_LIMIT
    carried = _embedded(frame, software, profile(frame), limit)
    return replace(carried, iptc=b"") if len(carried.iptc) > room else carried


def png(file: BinaryIO, frame: Frame, spec: OutputSpec, software: str) -> None:
    """PNG: ``fast`` with differences to the row above, ``small`` with all filters and a thorough search."""
    samples = _interleaved(frame, spec)
    ancillary = png_ancillary(frame, software, light_level(samples, frame.state))
    write_png(file, samples, ancillary, small=spec.compression == "small")


def png_ancillary(frame: Frame, software: str, level: tuple[float, float] | None = None) -> Iterator[bytes]:
    """The chunks of metadata and colour space of a PNG file; ``level`` is the :func:`light_level` of PQ."""
    codes = code_points(frame.state) if frame.state.transfer in ("pq", "hlg") else None
    short = is_srgb(frame.state) and not frame.metadata.icc
    carried = _embedded(frame, software, b"" if codes or short else profile(frame))
    return embedded_write.png_chunks(replace(carried, cicp=codes, light_level=level), srgb=short)


def exr(file: BinaryIO, frame: Frame, spec: OutputSpec, software: str) -> None:
    """OpenEXR of half or single floats."""
    compression = spec.compression or "zip"
    write_exr(Path(file.name), frame, compression=compression, quality=spec.quality, software=software)


def radiance(file: BinaryIO, frame: Frame, spec: OutputSpec, software: str) -> None:
    """Radiance RGBE with run lengths."""
    write_radiance(file, frame, software)


def webp(file: BinaryIO, frame: Frame, spec: OutputSpec, software: str) -> None:
    """WebP, lossy at half the colour resolution or lossless; gray pictures are stored as RGB, which it needs."""
    if frame.state.layout == "gray":
        rgb = replace(frame.state, layout="rgb")
        frame = replace(frame, pixels=frame.pixels.expand(3, -1, -1), state=rgb)
    lossless = spec.compression == "lossless"
    coded = imagecodecs.webp_encode(
        _interleaved(frame, spec),
        level=WEBP_LOSSLESS_EFFORT if lossless else spec.quality,
        lossless=lossless,
        method=WEBP_LOSSLESS_METHOD if lossless else WEBP_METHOD,
    )
    carried = _embedded(frame, software, profile(frame))
    file.writelines(embedded_write.into_webp(bytes(coded), carried, width=frame.width, height=frame.height))


def avif(file: BinaryIO, frame: Frame, spec: OutputSpec, software: str) -> None:
    """AVIF of 8, 10 or 12 bits at full colour resolution; quality 100 is lossless."""
    full = _interleaved(frame, spec)
    level = light_level(full, frame.state)
    samples = _codes(full, spec.depth)
    del full
    lossless = spec.compression == "lossless" or spec.quality == 100
    codes = code_points(frame.state)
    primaries, transfer = codes or (UNSPECIFIED, UNSPECIFIED)
    gray = samples.ndim == 2 and not lossless  # gray samples are always encoded losslessly, RGB made gray as asked
    coded = imagecodecs.avif_encode(
        np.repeat(samples[..., None], 3, 2) if gray else samples,
        level=100 if lossless else spec.quality,
        speed=AVIF_SPEED,
        bitspersample=spec.depth,
        pixelformat="yuv400" if gray else "yuv444",
        primaries=primaries,
        transfer=transfer,
        matrix=_avif_matrix(primaries, lossless and samples.ndim == 3),
        numthreads=AVIF_THREADS,
    )
    carried = replace(_embedded(frame, software, b"" if codes else profile(frame)), light_level=level)
    file.writelines(into_avif(bytes(coded), carried))


def jxl(file: BinaryIO, frame: Frame, spec: OutputSpec, software: str) -> None:
    """JPEG XL: sRGB of 8 bits or linear light of 16, which its encoder names in the codestream by itself."""
    lossless = spec.compression == "lossless" or spec.quality == 100
    coded = imagecodecs.jpegxl_encode(
        _interleaved(frame, spec),
        effort=JXL_LOSSLESS_EFFORT if lossless else JXL_EFFORT,
        lossless=lossless,
        distance=0.0 if lossless else _jxl_distance(spec.quality),
        usecontainer=False,
    )
    file.writelines(embedded_write.into_jxl(bytes(coded), _embedded(frame, software, b"")))


def tiff(file: BinaryIO, frame: Frame, spec: OutputSpec, software: str) -> None:
    """TIFF 6.0 of integers or floats."""
    samples = _interleaved(frame, spec)
    samples = samples[..., None] if samples.ndim == 2 else samples
    write_tiff(file, frame, samples, spec.compression or "none", software)


ENCODERS: Mapping[str, Encoder] = {
    "jpeg": jpeg,
    "png": png,
    "tiff": tiff,
    "exr": exr,
    "hdr": radiance,
    "webp": webp,
    "avif": avif,
    "jxl": jxl,
}
"""By the name of the format."""


def interleaved(pixels: Tensor) -> Samples:
    """Planes ``[C,H,W]`` as samples ``[H,W,C]``, with the strides that encoders ask for where a side is 1 px too."""
    samples = np.ascontiguousarray(pixels.permute(1, 2, 0).cpu().numpy())
    return samples.ravel().reshape(samples.shape)


def _interleaved(frame: Frame, spec: OutputSpec) -> Samples:
    """Samples ``[H,W]`` or ``[H,W,C]``, with alpha last where there is one and the format has it."""
    samples = interleaved(frame.pixels)
    if frame.alpha is not None and FORMATS[spec.format].alpha:
        alpha = stored(frame.alpha, spec).permute(1, 2, 0).numpy()
        samples = np.concatenate((samples, alpha), axis=2)
    return samples[..., 0] if samples.shape[2] == 1 else samples


def _codes(samples: Samples, bits: int) -> Samples:
    """Samples of 16 bits as codes of 10 or 12, rounded; those of 8 bits as they are."""
    if bits == 8:
        return samples
    codes = np.empty_like(samples)
    for row, into in zip(samples, codes, strict=True):
        wide = row * np.uint32((1 << bits) - 1) + np.uint32(1 << 15)
        np.right_shift(wide + (wide >> 16), 16, out=into, casting="unsafe")  # exact division by 65535
    return codes


def _avif_matrix(primaries: int, identity: bool) -> int:
    """The matrix coefficients of ITU-T H.273: RGB as it is, BT.2020 or, as for JPEG, BT.601."""
    return 0 if identity else 9 if primaries == 9 else 6


def _jxl_distance(quality: int) -> float:
    """The Butteraugli distance of a quality of JPEG, by the formula of libjxl's ``cjxl``."""
    if quality >= 30:
        return 0.1 + (100 - quality) * 0.09
    return 53 / 3000 * quality * quality - 23 / 20 * quality + 25.0


def _embedded(frame: Frame, software: str, icc: bytes, limit: int | None = None) -> Embedded:
    """EXIF block of at most ``limit`` bytes, profile, XMP and IPTC of a picture."""
    tree = metadata.output_exif(
        frame.metadata.exif, width=frame.width, height=frame.height, software=software, srgb=is_srgb(frame.state)
    )
    return Embedded(metadata.exif_bytes(tree, limit), icc, frame.metadata.xmp, iptc=frame.metadata.iptc)
