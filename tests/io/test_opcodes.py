"""DNG opcode lists: their bytes by the letter of the specification, and what the operations do, pixel by pixel."""

from __future__ import annotations

import math
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from restorekit.frame import Region
from restorekit.io.dng.bad_pixels import repaired
from restorekit.io.dng.corrections import correct, is_correction, lowest_clip_level
from restorekit.io.dng.opcode_kinds import (
    Area,
    DeltaPerColumn,
    DeltaPerRow,
    FixBadPixelsConstant,
    FixBadPixelsList,
    FixVignetteRadial,
    GainMap,
    MapPolynomial,
    MapTable,
    OpcodeError,
    Operation,
    ScalePerColumn,
    ScalePerRow,
    TrimBounds,
    Unknown,
    WarpFisheye,
    WarpPlane,
    WarpRectilinear,
    WarpRectilinear2,
)
from restorekit.io.dng.opcodes import OPERATIONS, encode, parse

AREA = Area(1, 2, 9, 12, 0, 1, 2, 3)
AREA_BYTES = struct.pack(">8I", 1, 2, 9, 12, 0, 1, 2, 3)
SIX = (1.01, -0.02, 0.003, 0.0, 1e-4, -2e-4)
LONG = tuple(1.0 / (term + 1) for term in range(15))

CASES: tuple[tuple[Operation, bytes], ...] = (
    (WarpRectilinear((SIX,), 0.5, 0.25), struct.pack(">I8d", 1, *SIX, 0.5, 0.25)),
    (WarpRectilinear((SIX, SIX[::-1], SIX), 0.4, 0.6), struct.pack(">I20d", 3, *SIX, *SIX[::-1], *SIX, 0.4, 0.6)),
    (WarpFisheye((SIX[:4],), 0.5, 0.5), struct.pack(">I6d", 1, *SIX[:4], 0.5, 0.5)),
    (FixVignetteRadial((0.1, 0.2, 0.3, 0.4, 0.5), 0.5, 0.45), struct.pack(">7d", 0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.45)),
    (FixBadPixelsConstant(7, 2), struct.pack(">2I", 7, 2)),
    (FixBadPixelsList(((3, 4), (5, 6)), ((1, 2, 3, 4),), 1), struct.pack(">11I", 1, 2, 1, 3, 4, 5, 6, 1, 2, 3, 4)),
    (TrimBounds(1, 2, 30, 40), struct.pack(">4I", 1, 2, 30, 40)),
    (MapTable(AREA, np.array([3, 70, 65535], np.uint16)), AREA_BYTES + struct.pack(">I3H", 3, 3, 70, 65535)),
    (MapPolynomial(AREA, (0.0, 0.5, 0.5)), AREA_BYTES + struct.pack(">I3d", 2, 0, 0.5, 0.5)),
    (
        GainMap(AREA, np.arange(1, 13, dtype=np.float32).reshape(2, 3, 2), (1.0, 0.5), (0.0, 0.125)),
        AREA_BYTES + struct.pack(">2I4dI12f", 2, 3, 1.0, 0.5, 0.0, 0.125, 2, *range(1, 13)),
    ),
    (DeltaPerRow(AREA, np.array([1, -2, 3, 4], np.float32)), AREA_BYTES + struct.pack(">I4f", 4, 1, -2, 3, 4)),
    (DeltaPerColumn(AREA, np.array([0.5], np.float32)), AREA_BYTES + struct.pack(">If", 1, 0.5)),
    (ScalePerRow(AREA, np.array([1.5, 2], np.float32)), AREA_BYTES + struct.pack(">I2f", 2, 1.5, 2)),
    (ScalePerColumn(AREA, np.array([1.5], np.float32)), AREA_BYTES + struct.pack(">If", 1, 1.5)),
    (
        WarpRectilinear2((WarpPlane(LONG, (0.1, 0.2), (0.0, 0.9)),), 0.5, 0.5, True),
        struct.pack(">I21dI", 1, *LONG, 0.1, 0.2, 0.0, 0.9, 0.5, 0.5, 1),
    ),
    (Unknown(99, b"abc"), b"abc"),
)


def listed(operation: Operation, data: bytes, flags: int = 0) -> bytes:
    code = operation.number if isinstance(operation, Unknown) else operation.code
    return struct.pack(">II4BII", 1, code, *operation.version, flags, len(data)) + data


@pytest.mark.parametrize(
    ("operation", "data"), CASES, ids=lambda each: each.name if isinstance(each, Operation) else ""
)
def test_every_operation_is_read_and_written_by_the_specification(operation: Operation, data: bytes) -> None:
    assert encode((operation,)) == listed(operation, data)
    (back,) = parse(listed(operation, data))
    assert type(back) is type(operation)
    for field, value in vars(operation).items():
        if isinstance(value, np.ndarray):
            assert getattr(back, field).dtype == value.dtype
            np.testing.assert_array_equal(getattr(back, field), value)
        else:
            assert getattr(back, field) == value


def test_all_opcodes_of_the_specification_are_known() -> None:
    assert set(OPERATIONS) == set(range(1, 15)) == {each.code for each, _ in CASES} - {0}


def test_flags_and_versions_are_kept() -> None:
    for flags in range(4):
        asked = FixBadPixelsConstant(
            0, optional=bool(flags & 1), skip_for_preview=bool(flags & 2), version=(1, 4, 0, 0)
        )
        assert encode((asked,)) == listed(asked, bytes(8), flags)
        assert parse(encode((asked,))) == (asked,)
    assert parse(b"") == parse(bytes(4)) == ()
    assert encode(()) == b""


def test_a_list_that_ends_early_is_damaged() -> None:
    whole = encode([operation for operation, _ in CASES if not isinstance(operation, Unknown)])
    assert len(parse(whole)) == len(CASES) - 1
    for end in range(1, len(whole)):
        with pytest.raises(OpcodeError):
            parse(whole[:end])
    for operation, data in CASES:
        if not isinstance(operation, Unknown):
            with pytest.raises(OpcodeError):
                parse(listed(operation, data[:-1]))


@pytest.mark.parametrize(
    ("operation", "data"),
    [
        (TrimBounds, b""),
        (MapPolynomial, AREA_BYTES + struct.pack(">I", 1 << 31)),
        (MapTable, AREA_BYTES + struct.pack(">I", 0)),
        (GainMap, AREA_BYTES + struct.pack(">2I4dIf", 1, 2, 1, 0, 0, 0, 1, 1)),
        (GainMap, AREA_BYTES + struct.pack(">2I4dIf", 1, 1, 1, 1, 0, 0, 1, math.nan)),
        (GainMap, AREA_BYTES + struct.pack(">2I4dI", 1 << 31, 1 << 31, 1, 1, 0, 0, 1 << 31)),
        (ScalePerRow, struct.pack(">8IIf", 0, 0, 1, 1, 0, 1, 0, 1, 1, 1.0)),
        (WarpRectilinear, struct.pack(">I2d", 0, 0.5, 0.5)),
        (FixBadPixelsList, struct.pack(">3I", 0, 1 << 31, 1 << 31)),
        (WarpRectilinear, struct.pack(">I8d", 1, 1, math.nan, 0, 0, 0, 0, 0.5, 0.5)),
        (WarpFisheye, struct.pack(">I6d", 1, 1, 0, 0, 0, math.inf, 0.5)),
        (FixVignetteRadial, struct.pack(">7d", 0, 0, 0, 0, math.nan, 0.5, 0.5)),
        (MapPolynomial, AREA_BYTES + struct.pack(">I2d", 1, 0, math.inf)),
        (DeltaPerColumn, AREA_BYTES + struct.pack(">If", 1, math.nan)),
        (FixVignetteRadial, struct.pack(">7d", 1e300, 0, 0, 0, 0, 0.5, 0.5)),
        (GainMap, AREA_BYTES + struct.pack(">2I4dI", 9999, 1, 1, 1, 0, 0, 1) + bytes(4 * 9999)),
        (GainMap, AREA_BYTES + struct.pack(">2I4dI", 1, 1, 1, 1, 0, 0, 9999) + bytes(4 * 9999)),
    ],
)
def test_nonsense_is_damaged(operation: type[Operation], data: bytes) -> None:
    with pytest.raises(OpcodeError):
        parse(struct.pack(">IIIII", 1, operation.code, 0x01030000, 0, len(data)) + data)


def test_more_operations_than_any_camera_writes_are_damage() -> None:
    with pytest.raises(OpcodeError, match="2000 operations"):
        parse(encode([TrimBounds(0, 0, 1, 1)] * 2000))


# ---- values


def image(channels: int = 1, height: int = 11, width: int = 13, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-0.2, 1.2, (channels, height, width)).astype(np.float32)


def done(pixels: NDArray[np.float32], *operations: Operation) -> NDArray[np.float32]:
    planes = torch.from_numpy(pixels.copy())
    correct(planes, operations, Region(0, pixels.shape[1]))
    return planes.numpy()


def members(area: Area, shape: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Plane, row and column of every pixel of an area, in the words of the specification."""
    return [
        (plane, row, column)
        for plane in range(area.plane, min(area.plane + area.planes, shape[0]))
        for row in range(area.top, min(area.bottom, shape[1]), area.row_pitch)
        for column in range(area.left, min(area.right, shape[2]), area.column_pitch)
    ]


def gain_at(operation: GainMap, plane: int, row: int, column: int, shape: tuple[int, ...]) -> float:
    """The gain at a pixel: its centre in relative coordinates of the image, bilinear, the rim beyond it."""
    points, planes = operation.gains.shape[:2], operation.gains.shape[2]
    at: list[tuple[int, int, float]] = []
    for axis, place in enumerate((row, column)):
        relative = (place + 0.5) / shape[1 + axis]
        index = (relative - operation.origin[axis]) / operation.spacing[axis]
        index = min(max(index, 0.0), points[axis] - 1.0)
        low = math.floor(index)
        at.append((low, min(low + 1, points[axis] - 1), index - low))
    (top, bottom, v), (left, right, h) = at
    grid = operation.gains[:, :, min(plane, planes - 1)].astype(float)
    upper = grid[top, left] * (1 - h) + grid[top, right] * h
    lower = grid[bottom, left] * (1 - h) + grid[bottom, right] * h
    return float(upper * (1 - v) + lower * v)


GAINS = np.random.default_rng(1).uniform(0.5, 3, (4, 5, 3)).astype(np.float32)
WHOLE = Area(0, 0, 11, 13)


@pytest.mark.parametrize(
    "operation",
    [
        GainMap(WHOLE, GAINS[..., :1], (1 / 3, 1 / 4)),
        GainMap(WHOLE, GAINS[..., :1], (0.2, 0.15), (0.25, 0.3)),
        GainMap(Area(1, 0, 11, 13, 0, 1, 2, 2), GAINS[..., :1], (1 / 3, 1 / 4)),
        GainMap(Area(2, 3, 8, 9, 1, 2), GAINS, (1 / 3, 1 / 4)),
        GainMap(Area(0, 0, 99, 99, 0, 9), GAINS[..., :2], (0.3, 0.2), (0.05, 0.1)),
        GainMap(Area(3, 1, 11, 13, 0, 3, 3, 5), GAINS[:1], (1.0, 1 / 4)),
        GainMap(WHOLE, GAINS[:1, :1, :1]),
    ],
)
def test_gain_maps_pixel_by_pixel(operation: GainMap) -> None:
    pixels = image(3)
    want = pixels.astype(float)
    for plane, row, column in members(operation.area, pixels.shape):
        want[plane, row, column] *= gain_at(operation, plane, row, column, pixels.shape)
    np.testing.assert_allclose(done(pixels, operation), want, rtol=1e-5)
    assert done(pixels, operation).max() > 1.2, "nothing is clipped"


def test_gains_lie_at_pixel_centres() -> None:
    """Two points, at the left and right rim of four pixels, whose centres are at 1/8, 3/8, 5/8 and 7/8."""
    slope = GainMap(Area(0, 0, 4, 4), np.array([[[1], [9]]], np.float32), (1.0, 1.0))
    np.testing.assert_allclose(done(np.ones((1, 4, 4), np.float32), slope)[0, 0], (2, 4, 6, 8), rtol=1e-6)
    upright = replace(slope, gains=slope.gains.transpose(1, 0, 2))
    np.testing.assert_allclose(done(np.ones((1, 4, 4), np.float32), upright)[0, :, 0], (2, 4, 6, 8), rtol=1e-6)


@pytest.mark.parametrize("area", [WHOLE, Area(2, 1, 10, 12, 1, 1, 3, 2), Area(0, 0, 11, 13, 0, 3)])
def test_numbers_for_rows_and_columns(area: Area) -> None:
    rows = (
        np.random.default_rng(2)
        .uniform(0.5, 2, 11)
        .astype(np.float32)[: -(-(area.bottom - area.top) // area.row_pitch)]
    )
    columns = np.random.default_rng(3).uniform(0.5, 2, 13).astype(np.float32)
    columns = columns[: -(-(area.right - area.left) // area.column_pitch)]
    for kind, by_row, adds in (
        (DeltaPerRow, True, True),
        (ScalePerRow, True, False),
        (DeltaPerColumn, False, True),
        (ScalePerColumn, False, False),
    ):
        pixels = image(3)
        want = pixels.astype(float)
        for plane, row, column in members(area, pixels.shape):
            place = (row - area.top) // area.row_pitch if by_row else (column - area.left) // area.column_pitch
            number = rows[place] if by_row else columns[place]
            want[plane, row, column] = want[plane, row, column] + number if adds else want[plane, row, column] * number
        got = done(pixels, kind(area, rows if by_row else columns))
        np.testing.assert_allclose(got, want, rtol=1e-6, err_msg=kind.__name__)


def test_lines_beyond_the_numbers_stay() -> None:
    got = done(np.ones((1, 5, 6), np.float32), ScalePerRow(Area(0, 0, 5, 6), np.array([2, 3], np.float32)))
    assert got[0, :, 0].tolist() == [2, 3, 1, 1, 1]


@pytest.mark.parametrize("centre", [(0.5, 0.5), (0.3, 0.8)])
def test_radial_vignetting(centre: tuple[float, float]) -> None:
    k = (0.3, -0.1, 0.05, 0.2, 0.1)
    pixels = image(2)
    _, height, width = pixels.shape
    x, y = centre[0] * width, centre[1] * height
    corners = [math.hypot(px - x, py - y) for px in (0, width) for py in (0, height)]
    want = pixels.astype(float)
    for row in range(height):
        for column in range(width):
            r = math.hypot(column + 0.5 - x, row + 0.5 - y) / max(corners)
            want[:, row, column] *= 1 + sum(factor * r ** (2 * power + 2) for power, factor in enumerate(k))
    np.testing.assert_allclose(done(pixels, FixVignetteRadial(k, *centre)), want, rtol=1e-5, atol=1e-7)


def test_polynomials_mirror_what_is_below_black() -> None:
    """So a curve that is steep or flat at black treats noise on both sides of it alike."""
    pixels = image()
    got = done(pixels, MapPolynomial(WHOLE, (0.1, 0.25, 0.0, 0.65)))
    magnitude = np.abs(pixels).astype(float)
    want = 0.1 + np.sign(pixels) * (0.25 * magnitude + 0.65 * magnitude**3)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(done(pixels, MapPolynomial(WHOLE, (0.5,))), np.full_like(pixels, 0.5))


def test_tables_are_looked_up() -> None:
    table = (np.arange(40) ** 2 + 7).astype(np.uint16)
    numbers = np.arange(-5, 60, dtype=np.float32).reshape(1, 5, 13)
    planes = torch.from_numpy(numbers.copy())
    correct(planes, (MapTable(Area(), table),), Region(0, 5), table_range=1.0)
    index = np.abs(numbers).clip(0, 39).astype(int)
    want = np.where(numbers < 0, 2.0 * table[0] - table[index], table[index])
    np.testing.assert_array_equal(planes.numpy(), want)
    linear = done(numbers / 65535, MapTable(Area(), table)) * 65535
    np.testing.assert_allclose(linear, want, rtol=1e-3)
    between = done(np.full((1, 1, 1), 2.5 / 65535, np.float32), MapTable(Area(), table))
    np.testing.assert_allclose(between * 65535, (table[2] + table[3]) / 2, rtol=1e-3)
    assert done(image(), MapTable(Area(), table[:1])).min() == np.float32(7 / 65535), "a table of one entry"


def test_only_corrections_of_values_are_applied() -> None:
    pixels = image()
    left = [operation for operation, _ in CASES if not is_correction(operation)]
    assert {each.name for each in left} == {
        *("WarpRectilinear", "WarpFisheye", "WarpRectilinear2", "TrimBounds", "opcode 99"),
        *("FixBadPixelsConstant", "FixBadPixelsList"),
    }
    np.testing.assert_array_equal(done(pixels, *left), pixels)


def test_the_lowest_clip_level() -> None:
    halves = [
        GainMap(Area(y, x, 11, 13, 0, 1, 2, 2), np.full((1, 1, 1), 0.5, np.float32)) for y in (0, 1) for x in (0, 1)
    ]
    assert lowest_clip_level(1.0, halves) == 0.5, "each photosite is in one of them"
    scale = ScalePerRow(WHOLE, np.array([0.5, 3], np.float32))
    even = GainMap(WHOLE, np.full((1, 1, 1), 0.8, np.float32))
    assert lowest_clip_level(2.0, [even, scale]) == pytest.approx(0.8)
    assert lowest_clip_level(1.0, [GainMap(WHOLE, np.full((2, 2, 1), 1.5, np.float32))]) == 1.0
    assert lowest_clip_level(1.0, [DeltaPerRow(WHOLE, np.array([0.1, -0.2], np.float32))]) == pytest.approx(0.8)
    assert lowest_clip_level(1.0, [MapPolynomial(WHOLE, (0.0, 0.5, 0.2))]) == pytest.approx(0.7)
    assert lowest_clip_level(0.5, [MapTable(WHOLE, np.array([0, 13107], np.uint16))]) == pytest.approx(0.2)


@pytest.mark.parametrize("coefficients", [(0.5, 0.0, 0.0, 0.0, 0.0), (-0.6, 0.5, 0.0, 0.0, 0.0)])
def test_the_lowest_clip_level_of_vignetting(coefficients: tuple[float, ...]) -> None:
    operation = FixVignetteRadial(coefficients, 0.4, 0.6)
    level = lowest_clip_level(1.0, [operation])
    assert level == pytest.approx(min(1.0, float(done(np.ones((1, 301, 401), np.float32), operation).min())), abs=1e-3)


# ---- bad photosites

PATTERNS = ("RGGB", "GRBG", "GBRG", "BGGR")


def flat_mosaic(pattern: str, height: int = 12, width: int = 14) -> NDArray[np.uint16]:
    levels = {"R": 300, "G": 800, "B": 500}
    cell = np.array([levels[colour] for colour in pattern], np.uint16).reshape(2, 2)
    return np.tile(cell, (height // 2, width // 2))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_bad_photosites_are_filled_by_their_own_colour(pattern: str) -> None:
    """Points in corners and inside, a bad column, two side by side, a bad row, and a block of 5x4."""
    points = ((0, 0), (11, 13), (5, 5), (5, 6))
    rectangles = ((0, 3, 12, 4), (0, 8, 12, 10), (9, 0, 10, 14), (2, 4, 7, 8))
    good = flat_mosaic(pattern)
    broken = good.copy()
    for point in points:
        broken[point] = 4095
    for top, left, bottom, right in rectangles:
        broken[top:bottom, left:right] = 0
    before = broken.copy()
    got = repaired(broken, FixBadPixelsList(points, rectangles), pattern.index("G"))
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got, good)
    np.testing.assert_array_equal(broken, before)
    marked = np.where(good == broken, good, 65535).astype(np.uint16)
    np.testing.assert_array_equal(repaired(marked, FixBadPixelsConstant(65535), pattern.index("G")), good)


def test_nothing_but_bad_photosites_changes_and_edges_go_on() -> None:
    """A sharp upright edge: the value comes from above and below, not from across."""
    mosaic = np.where(np.arange(20) < 10, 100, 900) + np.zeros((16, 1), int)
    mosaic = mosaic.astype(np.uint16)
    points = ((6, 9), (9, 10), (7, 9), (12, 10))
    broken = mosaic.copy()
    for point in points:
        broken[point] = 0
    np.testing.assert_array_equal(repaired(broken, FixBadPixelsList(points), 1), mosaic)
    noisy = np.random.default_rng(0).integers(0, 999, (16, 20)).astype(np.uint16)
    changed = np.argwhere(repaired(noisy, FixBadPixelsList(points), 1) != noisy)
    assert {tuple(place) for place in changed.tolist()} <= set(points)


def test_a_slope_is_interpolated_on_floats_too() -> None:
    y, x = np.mgrid[0:16, 0:20]
    slope = (0.01 * x + 0.02 * y).astype(np.float32)
    broken = slope.copy()
    broken[7, 8] = broken[8, 5] = np.nan
    got = repaired(broken, FixBadPixelsList(((7, 8), (8, 5))), 1)
    np.testing.assert_allclose(got, slope, atol=1e-6)


def test_places_outside_and_hopeless_mosaics_are_left() -> None:
    mosaic = flat_mosaic("RGGB")
    outside = FixBadPixelsList(((-1, 3), (12, 0), (3, 14)), ((-5, -5, 0, 0), (12, 0, 20, 9)))
    np.testing.assert_array_equal(repaired(mosaic, outside, 1), mosaic)
    np.testing.assert_array_equal(repaired(mosaic, FixBadPixelsList((), ((0, 0, 12, 14),)), 1), mosaic)
