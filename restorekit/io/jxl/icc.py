"""ICC profiles in JPEG XL codestreams (ISO/IEC 18181-1, annex E.4): packed by what profiles have in common."""

from __future__ import annotations

from restorekit.io.jxl.entropy import Symbols
from restorekit.io.jxl.header import Bits

_LARGEST_BYTES = 1 << 21
_CONTEXTS = 41
_TAGS = b"cprt wtpt bkpt rXYZ gXYZ bXYZ kXYZ rTRC gTRC bTRC kTRC chad desc chrm dmnd dmdd lumi".split()
_TYPES = (b"XYZ ", b"desc", b"text", b"mluc", b"para", b"curv", b"sf32", b"gbd ")
_XYZ_TAGS = frozenset((b"rXYZ", b"gXYZ", b"bXYZ", b"kXYZ", b"wtpt", b"bkpt", b"lumi"))
_PLATFORMS = {b"A": b"APPL", b"M": b"MSFT", b"SG": b"SGI ", b"SU": b"SUNW"}


def profile(stream: bytes, at: int) -> tuple[bytes, int]:
    """The profile that begins at a bit of a codestream, and the bit behind it.

    Raises ValueError, IndexError or EOFError where it is damaged or larger than 2 MB.
    """
    bits = Bits(stream, at)
    size = bits.u64()
    if size > _LARGEST_BYTES:
        raise ValueError("its profile is larger than 2 MB")
    symbols = Symbols(bits, _CONTEXTS)
    packed = bytearray()
    last = before = 0
    for index in range(size):
        context = 0 if index <= 128 else 1 + _KINDS[last] + 8 * _KINDS_BEFORE[before]
        last, before = symbols.read(context), last
        packed.append(last)
    symbols.require_end()
    return _unpacked(bytes(packed)), bits.at


def _kind(byte: int) -> int:
    if chr(byte).isascii() and chr(byte).isalpha():
        return 0
    if chr(byte) in "0123456789.,":
        return 1
    if byte < 2:
        return 2 + byte
    return 4 if byte < 16 else 6 if byte == 255 else 5 if byte > 240 else 7


def _kind_before(byte: int) -> int:
    kind = _kind(byte)
    return kind if kind < 2 else 2 if byte < 16 else 3 if byte > 240 else 4


_KINDS = [_kind(byte) for byte in range(256)]
_KINDS_BEFORE = [_kind_before(byte) for byte in range(256)]


class _Reader:
    """Bytes one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    @property
    def ended(self) -> bool:
        return self.at >= len(self.data)

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise EOFError("its profile ends too early")
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self) -> int:
        return self.take(1)[0]

    def number(self) -> int:
        """Seven bits a byte, the lowest first."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128 or shift > 63:
                return value


def _unpacked(packed: bytes) -> bytes:
    reader = _Reader(packed)
    size = reader.number()
    if size > _LARGEST_BYTES:
        raise ValueError("its profile is larger than 2 MB")
    commands = _Reader(reader.take(reader.number()))
    result = _header(reader, size)
    if not commands.ended:
        _tag_table(commands, reader, result)
    while not commands.ended:
        _element(commands.byte(), commands, reader, result)
        if len(result) > size:
            break
    if len(result) != size:
        raise ValueError("its profile is not of the length it says")
    return bytes(result)


def _header(reader: _Reader, size: int) -> bytearray:
    """The first 128 bytes, as differences from what most profiles have there."""
    usual = bytearray(128)
    usual[0:4] = size.to_bytes(4, "big")
    usual[8] = 4
    usual[12:24] = b"mntrRGB XYZ "
    usual[36:40] = b"acsp"
    usual[68:80] = bytes((0, 0, 246, 214, 0, 1, 0, 0, 0, 0, 211, 45))
    result = bytearray()
    for index in range(min(128, size)):
        if index == 8:
            usual[80:84] = result[4:8]
        elif index in (41, 42):
            usual[40:44] = _PLATFORMS.get(bytes(result[40:index]), bytes(usual[40:44]))
        result.append(usual[index] + reader.byte() & 255)
    return result


def _tag_table(commands: _Reader, reader: _Reader, result: bytearray) -> None:
    count = commands.number()
    if count == 0:
        return
    result += (count - 1).to_bytes(4, "big")
    start, length = 128 + 12 * (count - 1), 0
    while not commands.ended:
        command = commands.byte()
        code = command & 63
        if code == 0:
            return
        tag = reader.take(4) if code == 1 else {2: b"rTRC", 3: b"rXYZ"}.get(code) or _TAGS[code - 4]
        start = commands.number() if command & 64 else start + length
        length = 20 if tag in _XYZ_TAGS else length
        length = commands.number() if command & 128 else length
        named = [(tag, start)]
        if code == 2:
            named += [(b"gTRC", start), (b"bTRC", start)]
        elif code == 3:
            named += [(b"gXYZ", start + length), (b"bXYZ", start + 2 * length)]
        for name, place in named:
            result += name + (place & 0xFFFFFFFF).to_bytes(4, "big") + (length & 0xFFFFFFFF).to_bytes(4, "big")


def _element(command: int, commands: _Reader, reader: _Reader, result: bytearray) -> None:
    if command == 1:
        result += reader.take(commands.number())
    elif command in (2, 3):
        result += _woven(reader.take(commands.number()), 2 if command == 2 else 4)
    elif command == 4:
        _predicted(commands, reader, result)
    elif command == 10:
        result += b"XYZ " + bytes(4) + reader.take(12)
    elif 16 <= command < 24:
        result += _TYPES[command - 16] + bytes(4)
    else:
        raise ValueError("its profile has an unknown command")


def _woven(data: bytes, width: int) -> bytes:
    """Numbers of ``width`` bytes whose first bytes came first, then their second ones."""
    rows = -(-len(data) // width)
    result = bytearray()
    for row in range(rows):
        result += data[row::rows]
    return bytes(result)


def _predicted(commands: _Reader, reader: _Reader, result: bytearray) -> None:
    """Numbers of 1, 2 or 4 bytes as differences from a line or curve through those ``stride`` bytes before."""
    flags = commands.byte()
    width, order = 1 + (flags & 3), flags >> 2 & 3
    stride = commands.number() if flags & 16 else width
    if width == 3 or order == 3 or stride < width or 4 * stride >= len(result):
        raise ValueError("its profile is predicted from what is not there")
    data = reader.take(commands.number())
    if width > 1:
        data = _woven(data, width)
    weights = ((1,), (2, -1), (3, -3, 1))[order]
    for start in range(0, len(data), width):
        at = len(result)
        earlier = [int.from_bytes(result[at - n * stride :][:width], "big") for n in range(1, len(weights) + 1)]
        guess = sum(weight * value for weight, value in zip(weights, earlier, strict=True)) % (1 << 8 * width)
        result += bytes(
            byte + part & 255
            for byte, part in zip(data[start : start + width], guess.to_bytes(width, "big"), strict=False)
        )
