"""Decoded samples ``[H,W,C]`` made what frames hold: integers of full range, straight alpha, the right way up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[Any]

_BLOCK_SAMPLES = 1 << 18


def row_blocks(samples: Samples) -> Iterator[slice]:
    """Rows of ``[H,...]``, block after block, of a size that stays in the processor's cache."""
    rows = max(1, _BLOCK_SAMPLES // max(1, samples[0].size))
    return (slice(top, top + rows) for top in range(0, len(samples), rows))


def full_range(samples: Samples, bits: int) -> Samples:
    """Integers of 1 to 16 bits as uint8 (up to 8 bits) or uint16 whose maximum is white; larger numbers are white.

    Above 8 bits the upper ones are repeated below (W3C PNG 3, 13.12), within 1/65535 of exact scaling. Arrays that
    are of full range already are returned as they are, others may be changed.
    """
    if bits in (8, 16) and samples.dtype.itemsize * 8 == bits:
        return samples
    if bits <= 8:
        table = np.round(np.arange(1 << bits) * (255 / ((1 << bits) - 1))).astype(np.uint8)
        return np.take(table, samples, mode="clip")
    samples = samples.astype(np.uint16, copy=False)
    if not samples.flags.writeable:
        samples = samples.copy()
    for rows in row_blocks(samples):
        block = np.minimum(samples[rows], np.uint16((1 << bits) - 1), out=samples[rows])
        lower = block >> (2 * bits - 16)
        block <<= 16 - bits
        block |= lower
    return samples


def straight_alpha(samples: Samples) -> Samples:
    """Colours divided by the alpha they were multiplied with, the last channel; where it is 0 they become 0."""
    result = np.empty_like(samples)
    most = 1.0 if samples.dtype.kind == "f" else float(np.iinfo(samples.dtype).max)
    for rows in row_blocks(samples):
        block = samples[rows].astype(np.float32)
        alpha = block[..., -1:]
        np.divide(block[..., :-1] * np.float32(most), alpha, out=block[..., :-1], where=alpha > 0)
        block[..., :-1] *= alpha > 0
        result[rows] = block if samples.dtype.kind == "f" else np.clip(np.rint(block), 0, most)
    return result


def turned(samples: Samples, orientation: int) -> Samples:
    """A view of ``[H,W,C]`` turned as an EXIF orientation (1..8, TIFF 6.0 tag 274) asks."""
    if orientation >= 5:
        samples = samples.transpose(1, 0, 2)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return samples[::rows, ::columns]
