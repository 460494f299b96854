"""MaxCLL and MaxFALL of PQ pictures, in AVIF and PNG files."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from restorekit.color.transfer import encode
from restorekit.frame import Frame
from restorekit.io import OutputSpec, read, write
from restorekit.io.bmff import boxes
from restorekit.io.light_level import light_level
from restorekit.state import ImageState

PQ = ImageState(transfer="pq", primaries="bt2020")


def frame(nits: list[list[float]]) -> Frame:
    """A row of pixels by their RGB in cd/m2, each 64 px wide."""
    light = torch.tensor(nits).T[:, None].repeat_interleave(64, 2).repeat(1, 64, 1) / 203
    return Frame(encode(light, "pq"), PQ)


PATCHES = frame([[1000.0, 10.0, 10.0], [0.0, 0.0, 0.0], [5.0, 200.0, 100.0], [50.0, 50.0, 50.0]])
MAX_CLL, MAX_FALL = 1000.0, (1000 + 0 + 200 + 50) / 4


@pytest.mark.parametrize("bits", [10, 12])
def test_avif_tells_light_levels_in_a_property_of_its_picture(tmp_path: Path, bits: int) -> None:
    write(PATCHES, tmp_path / "a.avif", OutputSpec(format="avif", bits=bits))
    data = (tmp_path / "a.avif").read_bytes()
    meta = next(box for box in boxes(data) if box.kind == b"meta")
    iprp = next(box for box in boxes(data, meta.start + 4, meta.end) if box.kind == b"iprp")
    ipco, ipma = boxes(data, iprp.start, iprp.end)
    properties = list(boxes(data, ipco.start, ipco.end))
    number = [box.kind for box in properties].index(b"clli") + 1
    clli = properties[number - 1]
    assert clli.end - clli.start == 4
    levels = struct.unpack_from(">2H", data, clli.start)
    assert levels == (pytest.approx(MAX_CLL, rel=0.01), pytest.approx(MAX_FALL, rel=0.01))
    assert number in [byte & 0x7F for byte in data[ipma.start + 8 : ipma.end]]
    back = read(tmp_path / "a.avif")
    assert back.state == PQ
    assert (back.as_float().pixels - PATCHES.pixels).abs().max() < 0.02


def test_png_tells_light_levels_before_the_image(tmp_path: Path) -> None:
    write(PATCHES, tmp_path / "a.png", OutputSpec(format="png", bits=16))
    data = (tmp_path / "a.png").read_bytes()
    at = data.index(b"cLLI")
    assert data[at - 4 : at] == b"\0\0\0\x08"
    assert data.index(b"cICP") < at < data.index(b"IDAT")
    levels = [value / 10_000 for value in struct.unpack_from(">2I", data, at + 4)]
    assert levels == pytest.approx([MAX_CLL, MAX_FALL], rel=2e-3)
    assert read(tmp_path / "a.png").state == PQ


@pytest.mark.parametrize("transfer", ["srgb", "hlg"])
@pytest.mark.parametrize(("name", "bits"), [("avif", 10), ("png", 16)])
def test_others_than_pq_have_no_light_levels(tmp_path: Path, transfer: str, name: str, bits: int) -> None:
    other = Frame(PATCHES.pixels, PQ.changed({"transfer": transfer}))
    path = write(other, tmp_path / f"a.{name}", OutputSpec(format=name, bits=bits))  # type: ignore[arg-type]
    assert b"cLLI" not in path.read_bytes() and b"clli" not in path.read_bytes()


def test_alpha_does_not_count_and_gray_does() -> None:
    codes = np.zeros((4, 4, 2), np.uint16)
    codes[..., 1] = 65535
    codes[0, 0, 0] = 65535
    found = light_level(codes, PQ.changed({"layout": "gray"}))
    assert found == (pytest.approx(10_000), pytest.approx(625))
    assert light_level(codes[..., 0], PQ.changed({"layout": "gray"})) == found
