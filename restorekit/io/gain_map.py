"""Gain maps of ISO 21496-1: the quotient of an HDR and a standard rendition as a picture of 8 bits, and its metadata.

With offsets ``k`` = 1/64 of white, the gain of each channel is ``log2((HDR + k) / (SDR + k))``. The map holds
``((gain - low) / (high - low)) ** gamma``; a display of so many stops of headroom shows
``(SDR + k) 2 ** (W gain) - k``, where W goes from 0 to 1 with its headroom over that of the map.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restorekit.io.samples import row_blocks

OFFSET = 1 / 64
ISO_MARK = b"urn:iso:std:iso:ts:21496:-1\0"
HDRGM = "http://ns.adobe.com/hdr-gain-map/1.0/"
_USE_BASE_COLOR_SPACE = 0x40
_DENOMINATOR = 1 << 16
_LEAST_RANGE = 1 / 64
_PACKET = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:hdrgm="{space}" {body}</rdf:RDF></x:xmpmeta>'
)


@dataclass(frozen=True)
class GainMap:
    """A map ``[h,w,3]`` of codes (uint8), alike for all channels, and what they stand for.

    ``low`` and ``high`` are the gains of the codes 0 and 255 in stops, ``headroom`` the stops above white that a
    display needs to show all of the HDR rendition.
    """

    codes: NDArray[np.uint8]
    low: float
    high: float
    gamma: float
    headroom: float

    @property
    def iso(self) -> bytes:
        """The metadata of ISO 21496-1, annex C.2.2: fractions of one channel that stand for all three."""
        numbers = (0.0, self.headroom, self.low, self.high, self.gamma, OFFSET, OFFSET)
        fractions = b"".join(struct.pack(">iI", round(value * _DENOMINATOR), _DENOMINATOR) for value in numbers)
        return ISO_MARK + struct.pack(">2HB", 0, 0, _USE_BASE_COLOR_SPACE) + fractions

    @property
    def xmp(self) -> bytes:
        """The packet of the map by Adobe's Gain Map 1.0, for readers that do not know the ISO metadata."""
        values = {
            "GainMapMin": self.low,
            "GainMapMax": self.high,
            "Gamma": self.gamma,
            "OffsetSDR": OFFSET,
            "OffsetHDR": OFFSET,
            "HDRCapacityMin": 0.0,
            "HDRCapacityMax": self.headroom,
        }
        said = " ".join(f'hdrgm:{name}="{value:.8g}"' for name, value in values.items())
        body = f'hdrgm:Version="1.0" {said} hdrgm:BaseRenditionIsHDR="False"/>'
        return _PACKET.format(space=HDRGM, body=body).encode()


ISO_VERSION = ISO_MARK + struct.pack(">2H", 0, 0)
"""The metadata of the standard picture: the versions that its map needs and has."""


def directory(map_bytes: int) -> bytes:
    """The packet of a standard picture that tells that a map of so many bytes follows (GContainer, Ultra HDR 1.1)."""
    item = '<rdf:li rdf:parseType="Resource"><Container:Item Item:Mime="image/jpeg" {said}/></rdf:li>'
    items = item.format(said='Item:Semantic="Primary"') + item.format(
        said=f'Item:Semantic="GainMap" Item:Length="{map_bytes}"'
    )
    body = (
        'xmlns:Container="http://ns.google.com/photos/1.0/container/" '
        'xmlns:Item="http://ns.google.com/photos/1.0/container/item/" hdrgm:Version="1.0">'
        f"<Container:Directory><rdf:Seq>{items}</rdf:Seq></Container:Directory></rdf:Description>"
    )
    return _PACKET.format(space=HDRGM, body=body).encode()


def gains(hdr: Tensor, sdr: Tensor) -> Tensor:
    """Gains in stops of two renditions of any one shape, both linear, at least 0, 1.0 = white."""
    return (hdr + OFFSET).log2_().sub_((sdr + OFFSET).log2_())


class GainCollector:
    """Takes gains strip by strip, top to bottom, and makes them a map of full size or less."""

    def __init__(self, height: int, width: int, reduction: int = 1) -> None:
        self._reduction = reduction
        shape = -(-height // reduction), -(-width // reduction), 3
        self._gains = torch.empty(shape, dtype=torch.float16)
        self._low, self._high = math.inf, -math.inf
        self._peak = 0.0

    def take(self, top: int, strip: Tensor, brightest: float) -> None:
        """Gains ``[3,h,w]`` of rows from ``top``, a multiple of the reduction; ``brightest`` of the HDR rendition."""
        if self._reduction > 1:
            strip = torch.nn.functional.avg_pool2d(strip[None], self._reduction, ceil_mode=True)[0]
        self._low, self._high = min(self._low, float(strip.min())), max(self._high, float(strip.max()))
        self._peak = max(self._peak, brightest)
        first = top // self._reduction
        self._gains[first : first + strip.shape[1]] = strip.permute(1, 2, 0)

    def finish(self, gamma: float = 1.0) -> GainMap:
        """The map of all that was taken, its range just so wide that all gains, and none at all, have a code."""
        high = math.ceil(max(self._high, self._low + _LEAST_RANGE) * _DENOMINATOR) / _DENOMINATOR
        low = _below(self._low, high, gamma)
        headroom = max(math.log2(max(self._peak, 1.0)), _LEAST_RANGE)
        codes = np.empty(tuple(self._gains.shape), np.uint8)
        into = torch.from_numpy(codes)
        for rows in row_blocks(codes):
            share = self._gains[rows].float().sub_(low).mul_(1 / (high - low)).clamp_(0.0, 1.0)
            into[rows] = (share if gamma == 1 else share.pow_(gamma)).mul_(255.0).round_()
        return GainMap(codes, low, high, gamma, headroom)


def _below(low: float, high: float, gamma: float) -> float:
    """The largest number up to ``low`` for which 0, where it lies in between, is a code."""
    if low < 0 < high:
        code = math.ceil(255 * (-low / (high - low)) ** gamma)
        share = (code / 255) ** (1 / gamma)
        low = min(low, -share * high / (1 - share)) if code < 255 else low
    return math.floor(low * _DENOMINATOR) / _DENOMINATOR
