"""Pictures in memory as cameras pack them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from restorekit.errors import InputError
from restorekit.io.buffers import Packed, nv12, yuyv


def raw10(mosaic: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """By the words of the standard: the eight high bits of four photosites, then their low bits, first lowest."""
    packed = []
    for row in mosaic.tolist():
        for at in range(0, len(row), 4):
            four = row[at : at + 4]
            packed += [value >> 2 for value in four]
            packed.append(sum((value & 3) << (2 * index) for index, value in enumerate(four)))
    return np.array(packed, np.uint8)


def raw12(mosaic: NDArray[np.uint16]) -> NDArray[np.uint8]:
    packed = []
    for row in mosaic.tolist():
        for first, second in zip(row[::2], row[1::2], strict=True):
            packed += [first >> 4, second >> 4, (first & 15) | (second & 15) << 4]
    return np.array(packed, np.uint8)


PACKERS = {10: raw10, 12: raw12}


@pytest.fixture(params=[10, 12])
def bits(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def numbers(bits: int, height: int = 16, width: int = 24) -> NDArray[np.uint16]:
    return np.random.default_rng(bits).integers(0, 2**bits, (height, width), dtype=np.uint16)


def test_numbers_come_back(bits: int) -> None:
    mosaic = numbers(bits)
    packed = Packed(PACKERS[bits](mosaic), 24, 16, "RGGB", bits)  # type: ignore[arg-type]
    assert np.array_equal(packed.unpacked(), mosaic)


def test_the_frame_knows_pattern_and_levels(bits: int) -> None:
    buffer = PACKERS[bits](numbers(bits)).tobytes()
    frame = Packed(buffer, 24, 16, "GRBG", bits, black=16, neutral=(0.5, 1.0, 0.7)).frame()  # type: ignore[arg-type]
    assert frame.camera.cfa == ("GR", "BG") and frame.camera.neutral == (0.5, 1.0, 0.7)
    assert frame.camera.white is not None and float(frame.camera.white[0]) == 2**bits - 1
    assert frame.state.reference == "sensor" and frame.pixels.dtype == torch.uint16


def test_rows_may_be_longer_than_their_pixels(bits: int) -> None:
    mosaic = numbers(bits)
    rows = PACKERS[bits](mosaic).reshape(16, -1)
    padded = np.full((16, rows.shape[1] + 13), 255, np.uint8)
    padded[:, : rows.shape[1]] = rows
    short_last_row = padded.reshape(-1)[:-13]
    packed = Packed(short_last_row, 24, 16, "RGGB", bits, stride=padded.shape[1])  # type: ignore[arg-type]
    assert np.array_equal(packed.unpacked(), mosaic)


def test_sums_over_blocks_are_those_of_the_unpacked_numbers(bits: int) -> None:
    for blocks in (2, 4) if bits == 10 else (1, 2, 3, 4):
        mosaic = numbers(bits, 24, 48)
        mosaic[:, :8] = 2**bits - 1  # the largest sums there are
        packed = Packed(PACKERS[bits](mosaic), 48, 24, "RGGB", bits)  # type: ignore[arg-type]
        height, width = 24 // (2 * blocks), 48 // (2 * blocks)
        cut = mosaic[: 2 * blocks * height, : 2 * blocks * width].astype(np.int64)
        expected = cut.reshape(height, blocks, 2, width, blocks, 2).sum((1, 4)).transpose(1, 3, 0, 2)
        assert np.array_equal(packed.block_sums(blocks, 0, height), expected)
        assert np.array_equal(packed.block_sums(blocks, 1, height), expected[:, :, 1:])


@pytest.mark.parametrize(
    ("width", "height", "bits", "length", "says"),
    [
        (22, 16, 10, 480, "RAW10: 22x16 is no whole number of groups of 4"),
        (24, 15, 12, 600, "in rows of an even number"),
        (24, 16, 10, 479, "RAW10: 16 rows of 30 bytes are 480 bytes, the buffer has 479"),
        (24, 16, 14, 900, "10 or 12 bits, not 14"),
    ],
)
def test_what_cannot_be_is_refused_at_once(width: int, height: int, bits: int, length: int, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Packed(bytes(length), width, height, "RGGB", bits)  # type: ignore[arg-type]


def scene(height: int = 32, width: int = 48) -> NDArray[np.uint8]:
    """A smooth picture, RGB: chroma of half the size loses nothing of it."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([60 + 2 * x, 180 - 3 * y, 90 + x + y], -1).astype(np.uint8)


def test_nv12_is_the_picture_that_opencv_reads() -> None:
    picture = scene()
    i420 = cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420)
    luma, chroma = i420[:32], i420[32:].reshape(2, 16, 24)
    buffer = np.concatenate([luma.ravel(), chroma.transpose(1, 2, 0).ravel()])
    frame = nv12(buffer, 48, 32)
    reference = cv2.cvtColor(buffer.reshape(48, 48), cv2.COLOR_YUV2RGB_NV12)
    assert (frame.pixels.permute(1, 2, 0).numpy() * 255 - reference)[2:-2, 2:-2] == pytest.approx(0, abs=3.5)
    assert (frame.pixels.permute(1, 2, 0).numpy() * 255 - picture)[2:-2, 2:-2] == pytest.approx(0, abs=3.5)


def test_yuyv_is_the_picture_that_opencv_reads() -> None:
    picture = scene()
    buffer = cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_YUY2)
    frame = yuyv(buffer, 48, 32)
    assert (frame.pixels.permute(1, 2, 0).numpy() * 255 - picture)[:, 2:-2] == pytest.approx(0, abs=4)


def test_white_and_black_of_both_ranges() -> None:
    for black, white, full in ((16, 235, False), (0, 255, True)):
        for code, value in ((black, 0.0), (white, 1.0)):
            buffer = np.concatenate([np.full(16 * 8, code, np.uint8), np.full(16 * 4, 128, np.uint8)])
            frame = nv12(buffer, 16, 8, matrix="bt709", full_range=full)
            assert frame.pixels == pytest.approx(value, abs=1e-6)
            assert frame.state.transfer == "srgb"


def test_odd_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="NV12 has one chroma for 2x2 px"):
        nv12(bytes(1000), 15, 8)
    with pytest.raises(InputError, match="YUYV has one chroma for two pixels"):
        yuyv(bytes(1000), 15, 8)
    with pytest.raises(InputError, match="holds bytes"):
        nv12(np.zeros(1000, np.uint16), 16, 8)  # type: ignore[arg-type]
