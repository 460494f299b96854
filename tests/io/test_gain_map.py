"""Gain maps: their metadata as ISO 21496-1 lays them out, and the map itself."""

from __future__ import annotations

import struct
from xml.dom import minidom

import numpy as np
import pytest
import torch

from restorekit.io.gain_map import HDRGM, ISO_MARK, ISO_VERSION, OFFSET, GainCollector, GainMap, directory, gains


def fractions(block: bytes) -> list[float]:
    numbers = struct.unpack(f">{len(block) // 4}I", block)
    signed = [n - (1 << 32) if n >= 1 << 31 else n for n in numbers[::2]]
    return [n / d for n, d in zip(signed, numbers[1::2], strict=True)]


def test_the_iso_metadata() -> None:
    found = GainMap(np.zeros((1, 1, 3), np.uint8), -1.25, 3.5, 1.5, 2.75)
    assert ISO_VERSION.removeprefix(ISO_MARK) == bytes(4)
    assert found.iso.startswith(ISO_VERSION)
    flags, rest = found.iso[len(ISO_VERSION)], found.iso[len(ISO_VERSION) + 1 :]
    assert flags == 0x40, "one channel's numbers for all, in the colour space of the base"
    assert len(rest) == 14 * 4
    assert fractions(rest) == [0.0, 2.75, -1.25, 3.5, 1.5, 1 / 64, 1 / 64]


def test_the_packets_are_those_of_adobe_and_android() -> None:
    found = GainMap(np.zeros((1, 1, 3), np.uint8), -0.5, 3.0, 1.0, 3.0)
    (description,) = minidom.parseString(found.xmp).getElementsByTagName("rdf:Description")
    values = {item.localName: item.value for item in description.attributes.values() if item.namespaceURI == HDRGM}
    assert values == {
        "Version": "1.0", "GainMapMin": "-0.5", "GainMapMax": "3", "Gamma": "1", "OffsetSDR": "0.015625",
        "OffsetHDR": "0.015625", "HDRCapacityMin": "0", "HDRCapacityMax": "3", "BaseRenditionIsHDR": "False",
    }  # fmt: skip
    first, second = minidom.parseString(directory(1234)).getElementsByTagName("Container:Item")
    assert [item.getAttribute("Item:Semantic") for item in (first, second)] == ["Primary", "GainMap"]
    assert second.getAttribute("Item:Length") == "1234"


@pytest.mark.parametrize("gamma", [1.0, 0.7])
def test_codes_give_the_gains_back(gamma: float) -> None:
    random = torch.Generator().manual_seed(3)
    hdr, sdr = torch.rand(3, 48, 20, generator=random) * 8, torch.rand(3, 48, 20, generator=random)
    collector = GainCollector(48, 20)
    for top in (0, 16, 32):
        strip = gains(hdr[:, top : top + 16], sdr[:, top : top + 16])
        collector.take(top, strip, float(hdr.max()))
    found = collector.finish(gamma)
    assert found.codes.max() == 255
    assert found.headroom == pytest.approx(3.0, abs=0.01)
    stops = found.low + (found.codes / 255.0) ** (1 / gamma) * (found.high - found.low)
    shown = (sdr.permute(1, 2, 0).numpy() + OFFSET) * np.exp2(stops) - OFFSET
    step = (found.high - found.low) / 255 * (1 if gamma == 1 else 2)
    np.testing.assert_allclose(np.log2(shown + OFFSET), np.log2(hdr.permute(1, 2, 0).numpy() + OFFSET), atol=step)


def test_a_reduced_map_holds_the_means_of_its_squares() -> None:
    collector = GainCollector(5, 7, 2)
    stops = torch.arange(35.0).reshape(1, 5, 7).repeat(3, 1, 1) / 16
    collector.take(0, stops, 2.0)
    found = collector.finish()
    assert found.codes.shape == (3, 4, 3)
    assert found.low == stops[0, :2, :2].mean()
    assert found.high == stops[0, 4, 6]


@pytest.mark.parametrize("gamma", [1.0, 0.7, 1.5])
@pytest.mark.parametrize("low", [-1e-4, -0.01, -1.3, -6.0])
def test_no_gain_is_a_code(low: float, gamma: float) -> None:
    collector = GainCollector(1, 4)
    collector.take(0, torch.tensor([low, 0.0, 2.5, 1.0]).expand(3, 1, 4), 2.0)
    found = collector.finish(gamma)
    stops = found.low + (found.codes[0, :, 0] / 255.0) ** (1 / gamma) * (found.high - found.low)
    assert abs(stops[1]) < 1e-4
    assert found.low <= low + 1e-3
    assert found.high - found.low < 1.05 * (2.5 - low)


def test_renditions_that_are_alike_make_an_even_map() -> None:
    collector = GainCollector(4, 4)
    collector.take(0, torch.zeros(3, 4, 4), 0.5)
    found = collector.finish()
    assert found.codes.max() == 0
    assert found.low == 0 < found.high
    assert found.headroom > 0, "readers divide by it"
