"""JPEG XL: what the header of a codestream says (ISO/IEC 18181-1, annex D), and the boxes beside it (18181-2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from restorekit.color.adaptation import D65, XY
from restorekit.color.primaries import CHROMATICITIES, Chromaticities
from restorekit.io import bmff
from restorekit.io.embedded import EXIF_MARK, Embedded

SIGNATURE = b"\xff\x0a"
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_ALPHA, _SPOT, _CFA = 0, 2, 5
_RGB, _GRAY, _XYB = 0, 1, 2
_WHITES: Mapping[int, XY] = {1: D65, 10: (1 / 3, 1 / 3), 11: (0.314, 0.351)}
_PRIMARIES: Mapping[int, Chromaticities] = {
    1: CHROMATICITIES["bt709"],
    9: CHROMATICITIES["bt2020"],
    11: CHROMATICITIES["p3"],
}
_UNKNOWN_TRANSFER = 2


class Bits:
    """Numbers in a stream of bits, the lowest of each byte first; behind its end it is zeros.

    Raises EOFError when more than a byte beyond the end is asked for.
    """

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at

    def u(self, count: int) -> int:
        """An unsigned number of so many bits, up to 56."""
        first = self.at >> 3
        self.at += count
        if self.at > 8 * len(self.data) + 8:
            raise EOFError("the stream ends too early")
        return int.from_bytes(self.data[first : first + 8], "little") >> (self.at - count & 7) & ((1 << count) - 1)

    def flag(self) -> bool:
        return self.u(1) == 1

    def u32(self, *choices: tuple[int, int]) -> int:
        """One of four: a number to add to so many bits."""
        base, count = choices[self.u(2)]
        return base + self.u(count)

    def u64(self) -> int:
        """A number of up to 64 bits, small ones in a few."""
        selector = self.u(2)
        if selector < 3:
            base, count = ((0, 0), (1, 4), (17, 8))[selector]
            return base + self.u(count)
        value, shift = self.u(12), 12
        while self.flag():
            if shift == 60:
                return value | self.u(4) << shift
            value |= self.u(8) << shift
            shift += 8
        return value

    def enumerated(self) -> int:
        """A value of an enumeration."""
        return self.u32((0, 0), (1, 0), (2, 4), (18, 6))


@dataclass(frozen=True)
class Color:
    """An enumerated colour encoding: where primaries and white lie, and the curve.

    ``transfer`` is a code point of ITU-T H.273, or 0 where the encoded value is light to the power ``exponent``.
    """

    gray: bool = False
    chromaticities: Chromaticities = CHROMATICITIES["bt709"]
    transfer: int = 13
    exponent: float = 1.0


@dataclass(frozen=True)
class Header:
    """What a codestream says of its picture.

    ``bits`` a sample, ``is_float``, ``orientation`` (EXIF, 1..8; decoders apply it), ``premultiplied`` whether alpha is
    in the colours, ``transformed`` whether colours were coded as XYB, so that a decoder chooses the space it gives,
    ``color`` (``None`` where the stream carries an ICC profile or leaves it open), ``has_icc`` whether that profile
    begins at the bit ``end``, behind the header, ``is_gray``. ``depth_span`` and ``color_span`` are where the header
    tells bit depth and colour, as first bit and the one behind the last.
    """

    width: int
    height: int
    bits: int = 8
    is_float: bool = False
    orientation: int = 1
    animated: bool = False
    premultiplied: bool = False
    transformed: bool = True
    color: Color | None = Color()
    has_icc: bool = False
    end: int = 0
    is_gray: bool = False
    depth_span: tuple[int, int] = (0, 0)
    color_span: tuple[int, int] = (0, 0)


def codestream(data: bytes) -> bytes:
    """The codestream of a file, put together from the boxes that it may be spread over."""
    if data.startswith(SIGNATURE):
        return data
    parts = [
        data[box.start + (4 if box.kind == b"jxlp" else 0) : box.end]
        for box in bmff.boxes(data)
        if box.kind in (b"jxlc", b"jxlp")
    ]
    return parts[0] if len(parts) == 1 else b"".join(parts)


def metadata(data: bytes) -> tuple[Embedded, bool]:
    """EXIF block and XMP packet of a file, and whether a gain map goes with it; damaged boxes are passed over."""
    found: dict[bytes, bytes] = {}
    if not data.startswith(SIGNATURE):
        for kind, start, end in bmff.boxes(data):
            if kind == b"brob":
                kind, content = data[start : start + 4], _unpacked(data[start + 4 : end])
            elif kind in (b"Exif", b"xml "):
                content = data[start:end]
            else:
                content = b""
            found.setdefault(kind, content)
    exif = found.get(b"Exif", b"")
    block = exif[4 + int.from_bytes(exif[:4], "big") :].removeprefix(EXIF_MARK)
    return Embedded(block, xmp=found.get(b"xml ", b"")), b"jhgm" in found


def header(stream: bytes) -> Header:
    """The header of a codestream.

    Raises EOFError or ValueError where it is damaged.
    """
    if not stream.startswith(SIGNATURE):
        raise ValueError("no JPEG XL codestream")
    bits = Bits(stream, 16)
    width, height = _size(bits)
    found = Header(width, height)
    if not bits.flag():
        found = _image_metadata(bits, found)
    if not bits.flag():
        _transform_data(bits, found.transformed)
    return replace(found, end=bits.at)


def in_rec2020(stream: bytes, found: Header, profile_end: int) -> bytes:
    """A codestream of XYB colours that asks for Rec. 2020 with the curve of sRGB, in 16 bits or its floats.

    Such a stream has no numbers in the space of its profile; a decoder that cannot use the profile gives linear
    sRGB, of 8 bits and clipped where it says so. ``profile_end`` is the bit behind the profile.
    """
    bits = int.from_bytes(stream[: found.end // 8 + 1], "little")
    space, primaries = (1, ()) if found.is_gray else (0, ((2, 2), (4, 9 - 2)))
    depth = ((1, 0), (2, 3), (6, 16 - 1))
    color = ((1, 0), (1, 0), (2, space), (2, 1), *primaries, (1, 0), (2, 2), (4, 13 - 2), (2, 1))
    pieces: list[tuple[int, int]] = []

    def keep(start: int, end: int) -> None:
        pieces.append((end - start, bits >> start & ((1 << end - start) - 1)))

    keep(0, found.depth_span[0])
    if found.is_float:
        keep(*found.depth_span)
    else:
        pieces += depth
    keep(found.depth_span[1], found.color_span[0])
    pieces += color
    keep(found.color_span[1], found.end)
    written = length = 0
    for count, value in pieces:
        written |= value << length
        length += count
    return written.to_bytes(-(-length // 8), "little") + stream[-(-profile_end // 8) :]


def _unpacked(packed: bytes) -> bytes:
    import imagecodecs

    try:
        return bytes(imagecodecs.brotli_decode(packed))
    except (RuntimeError, ValueError):
        return b""


def _size(bits: Bits) -> tuple[int, int]:
    small = bits.flag()

    def length() -> int:
        return 8 * (1 + bits.u(5)) if small else bits.u32((1, 9), (1, 13), (1, 18), (1, 30))

    height = length()
    ratio = bits.u(3)
    if ratio == 0:
        return length(), height
    wide, high = _RATIOS[ratio - 1]
    return height * wide // high, height


def _image_metadata(bits: Bits, found: Header) -> Header:
    extra = bits.flag()
    if extra:
        found = replace(found, orientation=1 + bits.u(3))
        if bits.flag():
            _size(bits)
        if bits.flag():
            _preview(bits)
        if bits.flag():
            bits.u32((100, 0), (1000, 0), (1, 10), (1, 30))
            bits.u32((1, 0), (1001, 0), (1, 8), (1, 10))
            bits.u32((0, 0), (0, 3), (0, 16), (0, 32))
            bits.flag()
            found = replace(found, animated=True)
    depth_at = bits.at
    is_float, depth = _bit_depth(bits)
    depth_span = depth_at, bits.at
    bits.flag()
    channels = [_extra_channel(bits) for _ in range(bits.u32((0, 0), (1, 0), (2, 4), (1, 12)))]
    transformed = bits.flag()
    color_at = bits.at
    color, has_icc, gray = _color(bits)
    color_span = color_at, bits.at
    if extra and not bits.flag():
        bits.u(16 * 2 + 1 + 16)
    _extensions(bits)
    return replace(
        found,
        bits=depth,
        is_float=is_float,
        premultiplied=any(channels),
        transformed=transformed,
        color=color,
        has_icc=has_icc,
        is_gray=gray,
        depth_span=depth_span,
        color_span=color_span,
    )


def _preview(bits: Bits) -> None:
    small = bits.flag()

    def length() -> None:
        if small:
            bits.u32((16, 0), (32, 0), (1, 5), (33, 9))
        else:
            bits.u32((1, 6), (65, 8), (321, 10), (1345, 12))

    length()
    if bits.u(3) == 0:
        length()


def _bit_depth(bits: Bits) -> tuple[bool, int]:
    if not bits.flag():
        return False, bits.u32((8, 0), (10, 0), (12, 0), (1, 6))
    depth = bits.u32((32, 0), (16, 0), (24, 0), (1, 6))
    bits.u(4)
    return True, depth


def _extra_channel(bits: Bits) -> bool:
    """Reads what a channel beside colour is; the result is whether it is an alpha that is in the colours."""
    if bits.flag():
        return False
    kind = bits.enumerated()
    _bit_depth(bits)
    bits.u32((0, 0), (3, 0), (4, 0), (1, 3))
    for _ in range(bits.u32((0, 0), (0, 4), (16, 5), (48, 10))):
        bits.u(8)
    if kind == _ALPHA:
        return bits.flag()
    if kind == _SPOT:
        for _ in range(4):
            bits.u(16)
    elif kind == _CFA:
        bits.u32((1, 0), (0, 2), (3, 4), (19, 8))
    return False


def _color(bits: Bits) -> tuple[Color | None, bool, bool]:
    """The enumerated encoding, whether there is an ICC profile in its place, and whether it is for grays."""
    if bits.flag():
        return Color(), False, False
    has_icc = bits.flag()
    space = bits.enumerated()
    if has_icc:
        return None, True, space == _GRAY
    white, primaries, transfer, exponent = D65, CHROMATICITIES["bt709"], _UNKNOWN_TRANSFER, 1.0
    if space != _XYB:
        kind = bits.enumerated()
        white = _xy(bits) if kind == 2 else _WHITES.get(kind, D65)
        if space != _GRAY:
            kind = bits.enumerated()
            if kind != 2 and kind not in _PRIMARIES:
                raise ValueError(f"its header names primaries {kind}, which do not exist")
            primaries = Chromaticities(_xy(bits), _xy(bits), _xy(bits), white) if kind == 2 else _PRIMARIES[kind]
        if bits.flag():
            transfer, exponent = 0, bits.u(24) * 1e-7
        else:
            transfer = bits.enumerated()
    bits.enumerated()
    if space not in (_RGB, _GRAY) or transfer == _UNKNOWN_TRANSFER:
        return None, False, space == _GRAY
    return Color(space == _GRAY, replace(primaries, white=white), transfer, exponent), False, space == _GRAY


def _xy(bits: Bits) -> XY:
    def coordinate() -> float:
        packed = bits.u32((0, 19), (524288, 19), (1048576, 20), (2097152, 21))
        return (-(packed + 1 >> 1) if packed & 1 else packed >> 1) * 1e-6

    x = coordinate()
    return x, coordinate()


def _extensions(bits: Bits) -> None:
    named = bits.u64()
    lengths = [bits.u64() for number in range(64) if named >> number & 1]
    bits.at += sum(lengths)


def _transform_data(bits: Bits, transformed: bool) -> None:
    """How XYB turns to RGB and how planes are enlarged, where it is not as usual."""
    if transformed and not bits.flag():
        for _ in range(9 + 3 + 3 + 1):
            bits.u(16)
    mask = bits.u(3)
    for number, weights in enumerate((15, 55, 210)):
        for _ in range(weights if mask >> number & 1 else 0):
            bits.u(16)
