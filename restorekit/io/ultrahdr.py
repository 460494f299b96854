"""Ultra HDR JPEG files: a standard picture that every program shows, and a gain map that HDR displays add to it.

ISO 21496-1 (gain map, annex C for JPEG), CIPA DC-007 (the Multi-Picture Format that tells where the map lies), and for
older readers the hdrgm packets of Adobe's Gain Map 1.0 and the GContainer directory of Android's Ultra HDR 1.1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import imagecodecs
import torch
from torch import Tensor

from restorekit.color.primaries import conversion, luminance, transformed
from restorekit.color.transfer import DIFFUSE_WHITE_NITS, decode
from restorekit.errors import OutputError
from restorekit.frame import Frame
from restorekit.io import embedded_write
from restorekit.io.embedded import Embedded
from restorekit.io.encode import in_jpeg, interleaved
from restorekit.io.formats import DEFAULT_HEADROOM_EV, FORMATS, OutputSpec, refusal
from restorekit.io.gain_map import ISO_VERSION, GainCollector, GainMap, directory, gains
from restorekit.io.hdr_rendition import SceneScale, rendition, scene_scale, smoothstep
from restorekit.io.write import HALF_MAX, SOFTWARE, STRIP_PIXELS, replacing, stored
from restorekit.planes import to_float
from restorekit.state import ImageState

MAP_REDUCTION = 1
MAP_GAMMA = 1.0
"""Size and gamma of the map; docs/benchmarks.md tells what others cost."""

BRIGHTEST = 10000 / DIFFUSE_WHITE_NITS
"""The most that readers show: what PQ can say, in units of diffuse white."""

_SAMPLES = 1 << 20
_ALIKE = (1 / 64, 1 / 16)
"""Stops between renditions up to which they count as alike, and from which not at all."""

_MPF_MARK = b"MPF\0"
_MPF_BYTES = 90


def write_ultrahdr(
    sdr: Frame, hdr: Frame, path: str | Path, spec: OutputSpec | None = None, *, software: str = SOFTWARE
) -> Path:
    """Write two renditions of one picture to an Ultra HDR JPEG file; gives the path back.

    ``sdr`` is the standard picture: RGB in sRGB or Display P3, 0..1 or integers of 8 bits; its metadata go along.
    ``hdr`` is light of the same size: linear, PQ or HLG. Display-referred light (1.0 = diffuse white) is shown as it is
    on displays that can; light of a scene is rendered by :mod:`restorekit.io.hdr_rendition`, to at most
    ``spec.headroom`` stops above white. What the primaries of ``sdr`` do not hold moves to their edge; negative and NaN
    values count as 0. Both are turned upright first.

    Raises OutputError, naming the file and the cure, where a rendition is in another state, sizes differ, or the file
    cannot be written. Nothing half-written is left.
    """
    path, spec = Path(path), spec or OutputSpec(format="ultrahdr")
    _check(path, sdr, hdr, spec)
    sdr, hdr = replace(sdr, pixels=stored(sdr.pixels, spec)).upright(), hdr.upright()
    if (sdr.height, sdr.width) != (hdr.height, hdr.width):
        sizes = f"the standard picture is {sdr.width}x{sdr.height}, the HDR one {hdr.width}x{hdr.height}"
        raise OutputError(f"{path}: {sizes}; take both after the stages that change the size")
    most = FORMATS["ultrahdr"].largest_px
    if max(sdr.height, sdr.width) > most:
        raise OutputError(f"{path}: ultrahdr holds at most {most} px a side; write avif or exr")
    with replacing(path) as file:
        base = bytes(imagecodecs.jpeg8_encode(interleaved(sdr.pixels), level=spec.quality, subsampling="444"))
        found = gain_map_of(base, sdr, hdr, spec.headroom or DEFAULT_HEADROOM_EV)
        file.writelines(assembled(base, found, map_quality(spec.quality), in_jpeg(sdr, software)))
    return path


def assembled(base: bytes, found: GainMap, quality: int, carried: Embedded) -> Iterator[bytes]:
    """The pieces of an Ultra HDR file: a JPEG file with metadata, and a map that is coded with some quality."""
    coded_map = bytes(imagecodecs.jpeg8_encode(found.codes, level=quality, subsampling="444"))
    *head, rest = embedded_write.into_jpeg(coded_map, Embedded(xmp=found.xmp))
    second = b"".join((*head, embedded_write.segment(0xE2, found.iso), rest))
    *head, coded = embedded_write.into_jpeg(base, carried, directory(len(second)))
    head.append(embedded_write.segment(0xE2, ISO_VERSION))
    at = sum(len(piece) for piece in head)
    head.append(_multi_picture(at, at + _MPF_BYTES + len(coded), len(second)))
    yield from (*head, coded, second)


def gain_map_of(
    base: bytes,
    sdr: Frame,
    hdr: Frame,
    headroom_ev: float,
    *,
    reduction: int = MAP_REDUCTION,
    gamma: float = MAP_GAMMA,
) -> GainMap:
    """The map from a standard picture (8 bits) as ``base``, its JPEG file, has it, to an HDR rendition."""
    collector = GainCollector(hdr.height, hdr.width, reduction)
    for top, standard, shown in renditions(base, sdr, hdr, headroom_ev):
        collector.take(top, gains(shown, standard), float(shown.max()))
    return collector.finish(gamma)


def renditions(base: bytes, sdr: Frame, hdr: Frame, headroom_ev: float) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Strip by strip the first row, and linear light ``[3,h,w]`` of the standard picture and of the HDR rendition.

    Their rows are multiples of 16. The standard picture is what decoders make of ``base``, the JPEG file of ``sdr``.
    """
    codes = torch.from_numpy(imagecodecs.jpeg8_decode(base)).permute(2, 0, 1)
    state = sdr.state
    table = decode(torch.arange(256) / 255, state.transfer)
    scale = _scene_scale(codes, table, state, hdr, headroom_ev) if hdr.state.reference == "scene" else None
    rows = max(16, STRIP_PIXELS // hdr.width // 16 * 16)
    for top in range(0, hdr.height, rows):
        standard = _linear(codes[:, top : top + rows], table)
        light = _light(hdr, top, rows, state)
        if scale is None:
            meant = _linear(sdr.pixels[:, top : top + rows], table)
            yield top, standard, _unlike(standard, meant, light.clamp_(0.0, BRIGHTEST))
        else:
            yield top, standard, rendition(standard, light, state.primaries, scale)


def _unlike(standard: Tensor, meant: Tensor, light: Tensor) -> Tensor:
    """The light where it differs from the standard picture that was ``meant``, else that picture as it was coded.

    Else the map would hold what JPEG coding did to the picture, at several times its size.
    """
    share = smoothstep(gains(light, meant).abs_().amax(0, keepdim=True), *_ALIKE)
    return light.sub_(standard).mul_(share).add_(standard)


def map_quality(quality: int) -> int:
    """The JPEG quality of a map: errors of its gains are errors of light, and seen more than those of the picture."""
    return round(100 - (100 - quality) / 5)


def _check(path: Path, sdr: Frame, hdr: Frame, spec: OutputSpec) -> None:
    if spec.format != "ultrahdr":
        raise OutputError(f"{path}: {spec.format} holds one picture; write it by write, or set format: ultrahdr")
    if message := refusal("ultrahdr", spec.bits, sdr.state):
        raise OutputError(f"{path}: {message}")
    known = hdr.state.layout in ("rgb", "gray") and hdr.state.primaries not in ("camera", "icc")
    if not known or hdr.state.reference == "sensor" or hdr.state.transfer not in ("linear", "pq", "hlg"):
        raise OutputError(
            f"{path}: ultrahdr wants linear light, PQ or HLG for HDR displays, this is {hdr.state}; "
            "name a stage that gives it by hdr"
        )


def _linear(codes: Tensor, table: Tensor) -> Tensor:
    """Codes of 8 bits, ``[3,h,w]``, as linear light."""
    planes = codes.to(torch.int32, memory_format=torch.contiguous_format)
    return table.index_select(0, planes.flatten()).reshape(planes.shape)


def _light(hdr: Frame, top: int, rows: int, base: ImageState, step: int = 1) -> Tensor:
    """Rows of the HDR frame, every ``step`` px, as finite linear light in the primaries of the standard picture."""
    light = to_float(hdr.pixels[:, top : top + rows : step, ::step].contiguous())
    if hdr.state.transfer != "linear":
        light = decode(light, hdr.state.transfer)
    light = light.nan_to_num(0.0, HALF_MAX, -HALF_MAX)
    if light.shape[0] == 1:
        return light.repeat(3, 1, 1)
    if hdr.state.primaries == base.primaries:
        return light
    return transformed(light, conversion(hdr.state.primaries, base.primaries))


def _scene_scale(codes: Tensor, table: Tensor, state: ImageState, hdr: Frame, headroom_ev: float) -> SceneScale:
    """Matched on an even grid of a million px; the brightest light is looked for everywhere."""
    step = max(1, round((hdr.height * hdr.width / _SAMPLES) ** 0.5))
    standard = luminance(_linear(codes[:, ::step, ::step], table), state.primaries)
    scene = luminance(_light(hdr, 0, hdr.height, state, step), state.primaries)
    rows = max(16, STRIP_PIXELS // hdr.width)
    strips = (_light(hdr, top, rows, state) for top in range(0, hdr.height, rows))
    brightest = max(float(luminance(strip, state.primaries).max()) for strip in strips)
    return scene_scale(standard.flatten(), scene.flatten(), brightest, headroom_ev)


def _multi_picture(at: int, size: int, map_size: int) -> bytes:
    """The segment of CIPA DC-007 that tells of two pictures: one of ``size`` bytes that begins the file, and the map.

    ``at`` is where the segment stands; offsets count from its byte order mark.
    """
    start = at + 4 + len(_MPF_MARK)
    entries = struct.pack(">3I2H", 0x030000, size, 0, 0, 0) + struct.pack(">3I2H", 0, map_size, size - start, 0, 0)
    version = struct.pack(">2HI4s", 0xB000, 7, 4, b"0100")
    count = struct.pack(">2H2I", 0xB001, 4, 1, 2)
    fields = struct.pack(">H", 3) + version + count + struct.pack(">2H2I", 0xB002, 7, len(entries), 50)
    return embedded_write.segment(0xE2, _MPF_MARK + b"MM\0*\0\0\0\x08" + fields + bytes(4) + entries)
