"""Pictures as cameras hand them over in memory: packed RAW of 10 and 12 bits, NV12 and YUYV.

Rows may be longer than their pixels: ``stride`` is the bytes from one row to the next. Buffers are bytes, memory maps,
or uint8 arrays, and are read only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restorekit.color.ycbcr import WEIGHTS
from restorekit.errors import InputError
from restorekit.facts import Camera, Exposure
from restorekit.frame import BayerPattern, Frame
from restorekit.state import ImageState

Buffer = bytes | bytearray | memoryview | NDArray[np.uint8]

Matrix = Literal["bt601", "bt709"]

LUMA: dict[Matrix, tuple[float, float]] = {"bt601": (WEIGHTS[0], WEIGHTS[2]), "bt709": (0.2126, 0.0722)}
"""Weights of R and B in luma: ITU-R BT.601 and BT.709."""


@dataclass(frozen=True, eq=False)
class Packed:
    """A Bayer mosaic of a MIPI CSI-2 camera as it lies in memory: RAW10 or RAW12.

    RAW10 holds four photosites in five bytes, RAW12 two in three; the last byte has their low bits, those of the first
    photosite lowest (MIPI Alliance, Camera Serial Interface 2, 11.4). ``black``, ``white`` (in digital numbers; without
    it the largest there is), ``neutral``, ``exposure`` and ``camera`` are those of :meth:`Frame.from_bayer`.

    Raises InputError where the width is no multiple of a group, the height is odd, or the buffer is too short.
    """

    buffer: Buffer
    width: int
    height: int
    pattern: BayerPattern
    bits: Literal[10, 12] = 10
    stride: int | None = None
    black: float | Sequence[float] = 0.0
    white: float | None = None
    neutral: tuple[float, float, float] | None = None
    exposure: Exposure | None = None
    camera: Camera | None = None

    def __post_init__(self) -> None:
        if self.bits not in (10, 12):
            raise InputError(f"packed RAW has 10 or 12 bits, not {self.bits}; unpack it and use Frame.from_bayer")
        if self.width % self._pixels or self.height % 2:
            raise InputError(
                f"{self.kind}: {self.width}x{self.height} is no whole number of groups of {self._pixels} photosites in "
                "rows of an even number"
            )
        _rows(self.buffer, self._used, self.height, self.stride, self.kind)

    @property
    def kind(self) -> str:
        return f"RAW{self.bits}"

    def frame(self, mosaic: NDArray[np.uint16] | None = None) -> Frame:
        """The sensor-referred frame, unpacked to uint16; or one of another ``mosaic`` of this camera."""
        return Frame.from_bayer(
            self.unpacked() if mosaic is None else mosaic,
            pattern=self.pattern,
            black=self.black,
            white=self.white if self.white is not None else float(2**self.bits - 1),
            neutral=self.neutral,
            exposure=self.exposure,
            camera=self.camera,
        )

    def unpacked(self) -> NDArray[np.uint16]:
        """The digital numbers ``[H,W]``."""
        groups = self._groups()
        low = groups[:, :, -1]
        mosaic = np.empty((self.height, self.width), np.uint16)
        for index in range(self._pixels):
            part = mosaic[:, index :: self._pixels]
            np.left_shift(groups[:, :, index], self._low_bits, out=part, dtype=np.uint16)
            part |= (low >> (index * self._low_bits)) & self._mask
        return mosaic

    def block_sums(self, blocks: int, top: int, bottom: int) -> NDArray[np.uint16]:
        """Sums over the photosites of a colour in blocks of ``2 blocks`` px a side: ``[2,2,h,w]`` by row and column.

        Rows ``top..bottom`` of blocks. ``blocks`` is at most 4, and even for RAW10: 16 bits hold the sums, and low bits
        are summed as they lie, without unpacking.
        """
        step = 2 * blocks
        columns, per_block = self.width // step, step // self._pixels
        groups = self._groups()[top * step : bottom * step]
        shape = bottom - top, blocks, 2, self.width // self._pixels
        # High bytes of a group are one number, of which every other byte has 16 bits for its sum.
        number = np.uint32 if self.bits == 10 else np.uint16
        high = np.ascontiguousarray(groups[:, :, : self._pixels].view(number)).reshape(shape)
        low = np.ascontiguousarray(groups[:, :, self._pixels]).reshape(shape)
        apart = number(0x00FF00FF if self.bits == 10 else 0x00FF)
        field, shift = (0x33, 2) if self.bits == 10 else (0x0F, 4)
        result = np.empty((2, 2, bottom - top, columns), np.uint16)
        for column in range(2):
            total = ((high >> number(8 * column)) & apart).sum(1, dtype=number)
            small = ((low >> (shift * column)) & field).sum(1, dtype=np.uint8)
            if self.bits == 10:
                total += total >> number(16)
                small = (small & 15) + (small >> 4)
            total <<= number(self._low_bits)
            sums = total.astype(np.uint16, copy=False)
            sums += small
            summed = sums[..., : columns * per_block : per_block]
            for part in range(1, per_block):
                summed = summed + sums[..., part : columns * per_block : per_block]
            result[:, column] = summed.transpose(1, 0, 2)
        return result

    @property
    def _pixels(self) -> int:
        """Photosites of a group."""
        return 4 if self.bits == 10 else 2

    @property
    def _low_bits(self) -> int:
        return self.bits - 8

    @property
    def _mask(self) -> int:
        return int(2**self._low_bits - 1)

    @property
    def _used(self) -> int:
        return self.width // self._pixels * (self._pixels + 1)

    def _groups(self) -> NDArray[np.uint8]:
        rows = _rows(self.buffer, self._used, self.height, self.stride, self.kind)
        return rows.reshape(self.height, -1, self._pixels + 1)


def nv12(
    buffer: Buffer,
    width: int,
    height: int,
    stride: int | None = None,
    *,
    matrix: Matrix = "bt601",
    full_range: bool = False,
) -> Frame:
    """A display-referred frame from NV12: a plane of luma, then one of Cb and Cr for every 2x2 px, of the same stride.

    Chroma is taken to lie in the middle of its four pixels. Raises InputError for odd sizes and short buffers.
    """
    if width % 2 or height % 2:
        raise InputError(f"NV12 has one chroma for 2x2 px, so its sides are even; {width}x{height} are not")
    rows = _rows(buffer, width, height + height // 2, stride, "NV12")
    chroma = torch.from_numpy(rows[height:].reshape(height // 2, width // 2, 2).astype(np.float32))
    return _display(torch.from_numpy(rows[:height].astype(np.float32)), chroma, matrix, full_range)


def yuyv(
    buffer: Buffer,
    width: int,
    height: int,
    stride: int | None = None,
    *,
    matrix: Matrix = "bt601",
    full_range: bool = False,
) -> Frame:
    """A display-referred frame from YUYV (YUY2): Y, Cb, Y, Cr for every two pixels of a row.

    Chroma is taken to lie in the middle of its two pixels. Raises InputError for odd widths and short buffers.
    """
    if width % 2:
        raise InputError(f"YUYV has one chroma for two pixels of a row, so its width is even; {width} is not")
    rows = _rows(buffer, 2 * width, height, stride, "YUYV").reshape(height, width // 2, 4)
    values = torch.from_numpy(rows.astype(np.float32))
    return _display(values[..., 0::2].reshape(height, width), values[..., 1::2], matrix, full_range)


def _display(y: Tensor, chroma: Tensor, matrix: Matrix, full_range: bool) -> Frame:
    """Encoded sRGB of luma ``[H,W]`` and chroma ``[h,w,2]``, codes of 8 bits; unclamped (ITU-R BT.601, BT.709)."""
    planes = torch.nn.functional.interpolate(chroma.permute(2, 0, 1)[None], y.shape, mode="bilinear")[0]
    red, blue = LUMA[matrix]
    if full_range:
        y, planes = y / 255, (planes - 128) / 255
    else:
        y, planes = (y - 16) / 219, (planes - 128) / 224
    r = y + 2 * (1 - red) * planes[1]
    b = y + 2 * (1 - blue) * planes[0]
    g = (y - red * r - blue * b) / (1 - red - blue)
    return Frame(torch.stack((r, g, b)), ImageState())


def _rows(buffer: Buffer, used: int, height: int, stride: int | None, kind: str) -> NDArray[np.uint8]:
    """``[H,used]`` bytes; what lies behind the last row need not be there."""
    length = stride if stride is not None else used
    if length < used:
        raise InputError(f"{kind}: rows of {used} bytes do not fit into a stride of {length}")
    values = buffer.reshape(-1) if isinstance(buffer, np.ndarray) else np.frombuffer(buffer, np.uint8)
    if values.dtype != np.uint8:
        raise InputError(f"{kind}: a buffer holds bytes (uint8), not {values.dtype}")
    needed = (height - 1) * length + used
    if height < 1 or used < 1 or len(values) < needed:
        raise InputError(f"{kind}: {height} rows of {length} bytes are {needed} bytes, the buffer has {len(values)}")
    return np.lib.stride_tricks.as_strided(values, (height, used), (length, 1), writeable=False)
