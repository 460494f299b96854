"""The entropy coding of JPEG XL (ISO/IEC 18181-1, annex C): prefix codes, ANS, and copies of what was there before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from restorekit.io.jxl.header import Bits

_ANS_BITS = 12
_ANS_RANGE = 1 << _ANS_BITS
_ANS_END = 0x130000
_WINDOW = 1 << 20
_RUN = 13
_LOG_COUNTS = {
    (3, 0): 10, (7, 1): 12, (3, 2): 7, (4, 3): 3, (3, 4): 6, (3, 5): 8, (3, 6): 9, (4, 7): 5, (4, 9): 4, (4, 11): 1,
    (4, 15): 2, (5, 17): 0, (6, 33): 11, (7, 65): _RUN,
}  # fmt: skip
"""The prefix code of logarithms of counts (table C.3): length and bits, lowest first."""
_LENGTH_ORDER = (1, 2, 3, 4, 0, 5, 17, 6, 16, 7, 8, 9, 10, 11, 12, 13, 14, 15)
_LENGTH_CODE = {(2, 0): 0, (4, 7): 1, (3, 3): 2, (2, 2): 3, (2, 1): 4, (4, 15): 5}
"""The order of code lengths of the code of code lengths, and their code (RFC 7932, 3.5)."""


class _Config(NamedTuple):
    """How tokens stand for larger numbers (C.3.3): exponent up to which they are themselves, bits above and below."""

    split: int
    upper: int
    lower: int

    def value(self, token: int, bits: Bits) -> int:
        """The number that a token and the bits after it stand for."""
        if token < 1 << self.split:
            return token
        inside = self.upper + self.lower
        count = self.split - inside + (token - (1 << self.split) >> inside)
        low = token & ((1 << self.lower) - 1)
        high = token >> self.lower & ((1 << self.upper) - 1) | 1 << self.upper
        return (high << count | bits.u(min(count, 32))) << self.lower | low


class Symbols:
    """Numbers in a stream, each read in one of several contexts.

    Raises ValueError or EOFError for a stream that is damaged.
    """

    def __init__(self, bits: Bits, contexts: int) -> None:
        self._bits = bits
        self._copies = bits.flag()
        self._first_copy = self._shortest_copy = self._left = self._from = 0
        if self._copies:
            self._first_copy = bits.u32((224, 0), (512, 0), (4096, 0), (8, 15))
            self._shortest_copy = bits.u32((3, 0), (4, 0), (5, 2), (9, 8))
            self._lengths = _config(bits, 8)
            contexts += 1
        self._map = _context_map(bits, contexts) if contexts > 1 else [0]
        clusters = max(self._map) + 1
        by_prefix = bits.flag()
        alphabet = 15 if by_prefix else 5 + bits.u(2)
        self._configs = [_config(bits, alphabet) for _ in range(clusters)]
        self._state = 0
        if by_prefix:
            sizes = [_prefix_alphabet(bits) for _ in range(clusters)]
            self._readers = [_prefix_code(bits, size) for size in sizes]
        else:
            tables = [_alias_table(_counts(bits), alphabet) for _ in range(clusters)]
            self._readers = [self._ans(table, _ANS_BITS - alphabet) for table in tables]
            self._state = bits.u(32)
        self._by_ans = not by_prefix
        self._seen: list[int] = []

    def read(self, context: int) -> int:
        """The next number."""
        if self._left == 0:
            cluster = self._map[context]
            token = self._readers[cluster]()
            if not self._copies or token < self._first_copy:
                self._seen.append(self._configs[cluster].value(token, self._bits))
                return self._seen[-1]
            self._left = self._lengths.value(token - self._first_copy, self._bits) + self._shortest_copy
            cluster = self._map[-1]
            back = self._configs[cluster].value(self._readers[cluster](), self._bits) + 1
            self._from = len(self._seen) - min(back, len(self._seen), _WINDOW)
        self._left -= 1
        self._seen.append(self._seen[self._from] if self._from < len(self._seen) else 0)
        self._from += 1
        return self._seen[-1]

    def require_end(self) -> None:
        """Raises ValueError where the state is not what it must be after the last number."""
        if self._by_ans and self._state != _ANS_END:
            raise ValueError("the entropy coded stream is damaged")

    def _ans(self, table: Sequence[tuple[int, int, int, int, int, int]], entry_bits: int) -> Callable[[], int]:
        bits, inside = self._bits, (1 << entry_bits) - 1

        def symbol() -> int:
            place = self._state & (_ANS_RANGE - 1)
            cutoff, left, left_count, right, right_count, offset = table[place >> entry_bits]
            position = place & inside
            value, count, start = (left, left_count, 0) if position < cutoff else (right, right_count, offset)
            self._state = count * (self._state >> _ANS_BITS) + start + position
            if self._state < 1 << 16:
                self._state = self._state << 16 | bits.u(16)
            return value

        return symbol


def _config(bits: Bits, alphabet: int) -> _Config:
    split = bits.u(alphabet.bit_length())
    if split >= alphabet:
        return _Config(alphabet, 0, 0)
    upper = bits.u(split.bit_length())
    if upper > split:
        raise ValueError("a token has more bits than it can")
    lower = bits.u((split - upper).bit_length())
    if upper + lower > split:
        raise ValueError("a token has more bits than it can")
    return _Config(split, upper, lower)


def _context_map(bits: Bits, contexts: int) -> list[int]:
    """The cluster of every context (C.2.2)."""
    if bits.flag():
        width = bits.u(2)
        return [bits.u(width) for _ in range(contexts)]
    moved = bits.flag()
    symbols = Symbols(bits, 1)
    found = [symbols.read(0) for _ in range(contexts)]
    symbols.require_end()
    if max(found) > 255:
        raise ValueError("there are more clusters than there can be")
    if moved:
        front = list(range(256))
        for index, place in enumerate(found):
            front.insert(0, front.pop(place))
            found[index] = front[0]
    return found


def _var_len(bits: Bits) -> int:
    """A number of up to 8 bits (C.2.4)."""
    if not bits.flag():
        return 0
    count = bits.u(3)
    return bits.u(count) + (1 << count)


def _counts(bits: Bits) -> list[int]:
    """Counts of an ANS distribution, which add up to 4096 (C.2.5)."""
    if bits.flag():
        symbols = [_var_len(bits) for _ in range(1 + bits.u(1))]
        counts = [0] * (max(symbols) + 1)
        counts[symbols[-1]] = _ANS_RANGE
        if len(symbols) == 2:
            counts[symbols[0]] = bits.u(_ANS_BITS)
            counts[symbols[1]] = _ANS_RANGE - counts[symbols[0]]
        return counts
    if bits.flag():
        size = _var_len(bits) + 1
        return [_ANS_RANGE // size + (index < _ANS_RANGE % size) for index in range(size)]
    width = next((count for count in range(3) if not bits.flag()), 3)
    shift = (bits.u(width) | 1 << width) - 1
    size = _var_len(bits) + 3
    logs, runs = [0] * size, [0] * size
    index = 0
    while index < size:
        logs[index] = _coded(bits, _LOG_COUNTS)
        if logs[index] == _RUN:
            runs[index] = _var_len(bits) + 4
            index += runs[index] - 1
        index += 1
    plain = [-1 if log == _RUN else log for log in logs]
    omitted = plain.index(max(plain))
    counts = [0] * size
    repeat = previous = 0
    for index in range(size):
        if runs[index]:
            repeat, previous = runs[index], counts[index - 1] if index else 0
        if repeat:
            counts[index], repeat = previous, repeat - 1
        elif index != omitted and logs[index]:
            log = logs[index] - 1
            precision = max(0, min(log, shift - (_ANS_BITS - log >> 1)))
            counts[index] = (1 << log) + (bits.u(precision) << log - precision)
    counts[omitted] = _ANS_RANGE - sum(counts)
    if counts[omitted] <= 0:
        raise ValueError("a distribution is damaged")
    return counts


def _alias_table(counts: list[int], alphabet: int) -> list[tuple[int, int, int, int, int, int]]:
    """For every entry: cutoff, symbol and count below it, symbol, count and offset from it on (C.2.6)."""
    size, entry = 1 << alphabet, _ANS_RANGE >> alphabet
    if len(counts) > size:
        raise ValueError("a distribution has more symbols than its alphabet")
    counts = counts + [0] * (size - len(counts))
    if _ANS_RANGE in counts:
        symbol = counts.index(_ANS_RANGE)
        return [(0, symbol, _ANS_RANGE, symbol, _ANS_RANGE, entry * index) for index in range(size)]
    cutoffs, right, offsets = list(counts), list(range(size)), [0] * size
    under = [index for index, count in enumerate(counts) if count < entry]
    over = [index for index, count in enumerate(counts) if count > entry]
    while over:
        giver, taker = over.pop(), under.pop()
        cutoffs[giver] -= entry - cutoffs[taker]
        right[taker], offsets[taker] = giver, cutoffs[giver]
        if cutoffs[giver] < entry:
            under.append(giver)
        elif cutoffs[giver] > entry:
            over.append(giver)
    table = []
    for index in range(size):
        full = cutoffs[index] == entry
        cutoff = 0 if full else cutoffs[index]
        other = index if full else right[index]
        offset = 0 if full else offsets[index] - cutoffs[index]
        table.append((cutoff, index, counts[index], other, counts[other], offset))
    return table


def _prefix_alphabet(bits: Bits) -> int:
    if not bits.flag():
        return 1
    count = bits.u(4)
    return 1 + (1 << count) + bits.u(count)


def _prefix_code(bits: Bits, size: int) -> Callable[[], int]:
    """A reader of symbols in a prefix code, as Brotli has it (RFC 7932, 3.4 and 3.5)."""
    if size > 1 << 15:
        raise ValueError("a prefix code has more symbols than it can")
    lengths = {0: 0}
    if size > 1:
        kind = bits.u(2)
        lengths = _simple_lengths(bits, size) if kind == 1 else _complex_lengths(bits, size, kind)
    if len(lengths) == 1:
        only = next(iter(lengths))
        return lambda: only
    table = _canonical(lengths)
    return lambda: _coded(bits, table)


def _simple_lengths(bits: Bits, size: int) -> dict[int, int]:
    count = bits.u(2) + 1
    symbols = [bits.u((size - 1).bit_length()) for _ in range(count)]
    uneven = count == 4 and bits.flag()
    lengths = {1: (0,), 2: (1, 1), 3: (1, 2, 2), 4: (1, 2, 3, 3) if uneven else (2, 2, 2, 2)}[count]
    return dict(zip(symbols, lengths, strict=True))


def _complex_lengths(bits: Bits, size: int, skipped: int) -> dict[int, int]:
    of_lengths: dict[int, int] = {}
    space = 32
    for symbol in _LENGTH_ORDER[skipped:]:
        length = _coded(bits, _LENGTH_CODE)
        if length:
            of_lengths[symbol] = length
            space -= 32 >> length
            if space <= 0:
                break
    table = _canonical(of_lengths) if len(of_lengths) > 1 else None
    lengths: dict[int, int] = {}
    space, symbol, previous, repeat, repeated = 1 << 15, 0, 8, 0, 0
    while symbol < size and space > 0:
        length = next(iter(of_lengths), 0) if table is None else _coded(bits, table)
        if length < 16:
            repeat = 0
            if length:
                lengths[symbol], previous = length, length
                space -= 1 << 15 >> length
            symbol += 1
            continue
        extra, value = (2, previous) if length == 16 else (3, 0)
        if value != repeated:
            repeat, repeated = 0, value
        before = repeat
        repeat = (repeat - 2 << extra if repeat else 0) + bits.u(extra) + 3
        for _ in range(min(repeat - before, size - symbol)):
            if value:
                lengths[symbol] = value
                space -= 1 << 15 >> value
            symbol += 1
    if not lengths or (space and len(lengths) > 1):
        raise ValueError("a prefix code is damaged")
    return lengths


def _canonical(lengths: dict[int, int]) -> dict[tuple[int, int], int]:
    """Symbols by the length and the bits of their code, the first bit lowest."""
    table = {}
    code = last = 0
    for symbol, length in sorted(lengths.items(), key=lambda item: (item[1], item[0])):
        code <<= length - last
        table[length, int(f"{code:0{length}b}"[::-1], 2)] = symbol
        code, last = code + 1, length
    return table


def _coded(bits: Bits, table: dict[tuple[int, int], int]) -> int:
    code = 0
    for length in range(16):
        found = table.get((length, code)) if length else None
        if found is not None:
            return found
        code |= bits.u(1) << length
    raise ValueError("a prefix code is damaged")
