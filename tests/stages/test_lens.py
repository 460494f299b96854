from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from restorekit.errors import StageError
from restorekit.facts import Camera, Exposure, Facts, Metadata
from restorekit.frame import Frame
from restorekit.io import lensfun, metadata, read, write_dng
from restorekit.io.dng.opcode_kinds import (
    Area,
    FixBadPixelsList,
    FixVignetteRadial,
    GainMap,
    Operation,
    TrimBounds,
    WarpFisheye,
    WarpPlane,
    WarpRectilinear,
    WarpRectilinear2,
)
from restorekit.io.dng.opcodes import encode, parse
from restorekit.io.tiff import ASCII, RATIONAL, Field
from restorekit.stage import Nothing
from restorekit.stages.demosaic import Demosaic
from restorekit.stages.lens import Correct
from restorekit.stages.lens_plan import Wanted, plan_of_file, plan_of_lens
from restorekit.stages.raw import BlackLevel
from restorekit.stages.warp import Distortion, Falloff, Lookup, Warp, corrected
from restorekit.state import ImageState
from restorekit.testing import StageLaws, rgb_frame

LINEAR = ImageState("rgb", "scene", "linear", "camera")
BLACK, WHITE = 512.0, 15360.0
PITCH_PX = 40

Map = NDArray[np.float64]
Places = Callable[[int, Map, Map], tuple[Map, Map]]
"""``(plane, x, y)``: where the picture as taken shows what belongs at x, y."""

BARREL = WarpRectilinear(
    (
        (1.0012, -0.06, 0.02, -0.004, 0.002, -0.001),
        (1.0, -0.06, 0.02, -0.004, 0.002, -0.001),
        (0.9988, -0.06, 0.02, -0.004, 0.002, -0.001),
    ),
    center_x=0.48,
    center_y=0.53,
)


def with_list(frame: Frame, *operations: Operation) -> Frame:
    return replace(frame, camera=replace(frame.camera, opcode_lists=(b"", b"", encode(operations))))


def ramps(height: int, width: int) -> Frame:
    """Red holds the column, green the row, blue the column: corrected, they tell from where each pixel came."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return Frame(torch.from_numpy(np.stack((x, y, x))), LINEAR)


def grid(height: int, width: int) -> tuple[Map, Map]:
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    return x, y


def by_specification(warp: WarpRectilinear, height: int, width: int) -> Places:
    """The equations of WarpRectilinear in the DNG specification, word by word."""

    def places(plane: int, x: Map, y: Map) -> tuple[Map, Map]:
        kr0, kr1, kr2, kr3, kt0, kt1 = warp.planes[min(plane, len(warp.planes) - 1)]
        x0, y0, x1, y1 = 0, 0, width - 1, height - 1
        cx, cy = x0 + warp.center_x * (x1 - x0), y0 + warp.center_y * (y1 - y0)
        mx, my = max(abs(x0 - cx), abs(x1 - cx)), max(abs(y0 - cy), abs(y1 - cy))
        m = np.sqrt(mx**2 + my**2)
        dx, dy = (x - cx) / m, (y - cy) / m
        r = np.sqrt(dx**2 + dy**2)
        f = kr0 + kr1 * r**2 + kr2 * r**4 + kr3 * r**6
        dx_t = kt0 * (2 * dx * dy) + kt1 * (r**2 + 2 * dx**2)
        dy_t = kt1 * (2 * dx * dy) + kt0 * (r**2 + 2 * dy**2)
        return cx + m * (f * dx + dx_t), cy + m * (f * dy + dy_t)

    return places


def undone(places: Places, plane: int, x: Map, y: Map) -> tuple[Map, Map]:
    """Where that belongs which the picture as taken shows at x, y: fixed-point iteration until nothing moves."""
    at_x, at_y = x, y
    for _ in range(60):
        seen_x, seen_y = places(plane, at_x, at_y)
        at_x, at_y = at_x + x - seen_x, at_y + y - seen_y
    assert np.abs(np.stack(places(plane, at_x, at_y)) - (x, y)).max() < 1e-6
    return at_x, at_y


def lines(x: Map, y: Map) -> Map:
    """A scene of bright lines, 3 px wide, on every multiple of the pitch."""
    profiles = [np.exp(-0.5 * ((at + PITCH_PX / 2) % PITCH_PX - PITCH_PX / 2) ** 2 / 1.3**2) for at in (x, y)]
    return 0.1 + 0.7 * np.maximum(*profiles)


def line_errors(plane: Map) -> Map:
    """How far vertical lines are from where they belong, between the horizontal ones, in px."""
    height, width = plane.shape
    rows = np.concatenate([np.arange(at + 12, at + PITCH_PX - 11) for at in range(0, height - PITCH_PX, PITCH_PX)])
    offsets = np.arange(-6, 7)
    errors = []
    for line in range(PITCH_PX, width - PITCH_PX // 2, PITCH_PX):
        light = plane[rows][:, line - 6 : line + 7] - 0.1
        errors.append((light * offsets).sum(1) / light.sum(1))
    return np.abs(np.stack(errors))


def as_taken(places: Places, height: int, width: int) -> Map:
    """A grid seen through a lens and a Bayer filter (RGGB), 0..1."""
    x, y = grid(height, width)
    planes = [lines(*undone(places, plane, x, y)) for plane in range(3)]
    mosaic = planes[1].copy()
    mosaic[0::2, 0::2], mosaic[1::2, 1::2] = planes[0][0::2, 0::2], planes[2][1::2, 1::2]
    return mosaic


def exif(make: str, model: str, lens: str, focal_mm: float) -> bytes:
    photo = {42036: Field.of(ASCII, lens), metadata.FOCAL_LENGTH: Field.of(RATIONAL, (focal_mm,))}
    return metadata.exif_bytes(metadata.photo_tree(make=make, model=model, photo=photo))


KIT_LENS = Metadata(exif=exif("Canon", "Canon EOS 550D", "EF-S18-55mm f/3.5-5.6 IS", 18.0))
KIT_SHOT = lensfun.Shot("Canon", "Canon EOS 550D", "EF-S18-55mm f/3.5-5.6 IS", 18.0, 3.5)
WIDE_OPEN = Exposure(f_number=3.5)


def kit_lens(frame: Frame) -> Frame:
    """A frame by a camera and lens of the lensfun database, zoomed out and wide open."""
    return replace(frame, metadata=KIT_LENS, exposure=WIDE_OPEN)


def masked(frame: Frame) -> Frame:
    alpha = torch.linspace(0, 1, frame.width).expand(1, frame.height, -1)
    return replace(frame, alpha=alpha.clone(), masks={"clipped": frame.pixels > 0.7})


class TestLaws(StageLaws):
    stages = (Correct(), Correct(distortion=False), Correct(lateral_ca=False, vignetting=False))
    frames = (
        with_list(rgb_frame(state=LINEAR), FixVignetteRadial((0.2, 0.1, 0.0, 0.0, 0.0)), BARREL),
        with_list(masked(rgb_frame(33, 61, state=LINEAR)), BARREL),
        with_list(rgb_frame(state=LINEAR), TrimBounds(4, 4, 40, 40)),
        rgb_frame(state=LINEAR),
    )


class TestLensfunLaws(StageLaws):
    stages = (Correct(source="lensfun"), Correct(source="lensfun", scale="none"))
    frames = (kit_lens(rgb_frame(state=LINEAR)), kit_lens(masked(rgb_frame(61, 33, state=LINEAR))))

    @pytest.fixture(autouse=True)
    def database(self) -> None:
        pytest.importorskip("lensfunpy")


class TestDng:
    def test_a_mosaic_of_bent_lines_becomes_straight(self, tmp_path: Path) -> None:
        height, width = 320, 480
        places = by_specification(BARREL, height, width)
        mosaic = as_taken(places, height, width)
        numbers = torch.from_numpy(np.round(BLACK + mosaic * (WHITE - BLACK)).astype(np.uint16))
        frame = Frame.from_bayer(numbers, pattern="RGGB", black=BLACK, white=WHITE)
        write_dng(tmp_path / "bent.dng", with_list(frame, BARREL))
        frame = read(tmp_path / "bent.dng")
        developed = Demosaic()(BlackLevel()(frame))
        result = Correct()(developed)
        for plane in range(3):
            bent = places(plane, *grid(height, width)) - np.stack(grid(height, width))
            assert np.abs(bent).max() > 8
            assert line_errors(result.pixels[plane].double().numpy()).max() < 0.1
        assert result.camera.opcode_lists[2] == b""

    def test_places_are_those_of_the_specification(self) -> None:
        height, width = 300, 420
        result = Correct()(with_list(ramps(height, width), BARREL)).pixels.numpy()
        inside = (slice(4, -4), slice(4, -4))
        for plane in range(3):
            wanted = by_specification(BARREL, height, width)(plane, *grid(height, width))[plane % 2]
            assert np.abs(result[plane] - wanted)[inside].max() < 2e-3

    def test_places_are_exact_in_large_pictures(self) -> None:
        height, width, tile = 5464, 8192, 200
        frame = Frame(torch.zeros(1, 1, 1).expand(3, height, width), LINEAR)
        (step,) = plan_of_file(frame, (BARREL,), Wanted()).steps
        for top, left in ((0, 0), (height - tile, width - tile), (height // 2, width - tile)):
            x, y = torch.arange(float(tile))[None], torch.arange(float(tile))[:, None]
            got = step.lookup.source(0, x, y, (left, top))
            wanted = by_specification(BARREL, height, width)(0, x.numpy() + left, y.numpy() + top)
            for coordinate, start, want in zip(got, (left, top), wanted, strict=True):
                assert np.abs(coordinate.numpy() + start - want).max() < 2e-3

    def test_without_distortion_only_red_and_blue_move(self) -> None:
        height, width = 200, 300
        frame, places = with_list(ramps(height, width), BARREL), by_specification(BARREL, height, width)
        result = Correct(distortion=False)(frame).pixels
        assert torch.equal(result[1], frame.pixels[1])
        x, y = grid(height, width)
        red_x, _ = places(0, *undone(places, 1, x, y))
        assert np.abs(result[0].numpy() - red_x)[6:-6, 6:-6].max() < 2e-3
        assert np.abs(red_x - x).max() > 0.1

    def test_without_lateral_colour_all_move_as_green(self) -> None:
        frame = with_list(ramps(200, 300), BARREL)
        alike = with_list(ramps(200, 300), replace(BARREL, planes=BARREL.planes[1:2]))
        assert torch.equal(Correct(lateral_ca=False)(frame).pixels, Correct()(alike).pixels)
        assert isinstance(Correct(distortion=False).suited(alike), Nothing)

    def test_two_warps_are_one_after_the_other(self) -> None:
        height, width = 200, 300
        second = WarpRectilinear(((1.01, 0.03, 0.0, 0.0, 0.0, 0.0),))
        result = Correct()(with_list(ramps(height, width), BARREL, second)).pixels.numpy()
        between = by_specification(second, height, width)(0, *grid(height, width))
        wanted = by_specification(BARREL, height, width)(0, *between)[0]
        assert np.abs(result[0] - wanted.clip(0, width - 1))[4:-4, 4:-4].max() < 2e-2

    def test_vignetting(self) -> None:
        height, width = 601, 901
        operation = FixVignetteRadial((0.5, 0.2, 0.1, 0.05, 0.02), 0.5, 0.5)
        x, y = grid(height, width)
        squared = ((x - 450) ** 2 + (y - 300) ** 2) / (450**2 + 300**2)
        gain = 1 + sum(k * squared ** (n + 1) for n, k in enumerate(operation.coefficients))
        seen = torch.from_numpy(np.stack([0.4 / gain] * 3).astype(np.float32))
        result = Correct()(with_list(Frame(seen, LINEAR, facts=Facts(clip_level=(1.0,) * 3)), operation))
        assert np.abs(result.pixels.numpy() / 0.4 - 1).max() < 5e-3
        assert result.facts.clip_level == pytest.approx((1.0,) * 3)
        off = Correct(vignetting=False).suited(with_list(Frame(seen, LINEAR), operation))
        assert isinstance(off, Nothing)

    def test_vignetting_is_undone_where_the_light_fell(self) -> None:
        """Before the warp: what lies at r in the picture as taken gets the gain of r."""
        height, width = 200, 300
        vignette = FixVignetteRadial((1.0, 0.0, 0.0, 0.0, 0.0), BARREL.center_x, BARREL.center_y)
        flat = Frame(torch.ones(3, height, width), LINEAR)
        result = Correct()(with_list(flat, vignette, BARREL)).pixels[1].numpy()
        x, y = by_specification(BARREL, height, width)(1, *grid(height, width))
        across, down = 299 * BARREL.center_x, 199 * BARREL.center_y
        farthest = max(across, 299 - across) ** 2 + max(down, 199 - down) ** 2
        wanted = 1 + ((x - across) ** 2 + (y - down) ** 2) / farthest
        assert np.abs(result / wanted - 1)[4:-4, 4:-4].max() < 5e-3

    def test_gain_maps_come_before_or_after_as_the_list_says(self) -> None:
        half = GainMap(Area(planes=3), np.full((1, 1, 1), 0.5, np.float32))
        frame = with_list(replace(rgb_frame(state=LINEAR), facts=Facts(clip_level=(1.0,) * 3)), BARREL, half)
        result = Correct()(frame)
        assert torch.allclose(result.pixels, 0.5 * Correct()(with_list(frame, BARREL)).pixels, atol=1e-6)
        assert result.facts.clip_level == (0.5,) * 3

    def test_fisheye(self) -> None:
        height, width = 200, 300
        result = Correct()(with_list(ramps(height, width), WarpFisheye(((1.1, -0.2, 0.05, 0.01),)))).pixels[0].numpy()
        x, y = grid(height, width)
        m = math.hypot(149.5, 99.5)
        dx, dy = (x - 149.5) / m, (y - 99.5) / m
        r = np.hypot(dx, dy)
        angle = np.arctan(r)
        wanted = 149.5 + m * dx / r * (1.1 * angle - 0.2 * angle**3 + 0.05 * angle**5 + 0.01 * angle**7)
        assert np.abs(result - wanted)[4:-4, 4:-4].max() < 2e-3

    @pytest.mark.parametrize("reciprocal", [False, True])
    def test_rectilinear_2(self, reciprocal: bool) -> None:
        height, width = 200, 300
        radial = (1.02, 0.01, -0.03, 0.004, -0.01, *(0.001,) * 10)
        plane = WarpPlane(radial, (0.001, -0.002), (0.1, 0.8))
        operation = WarpRectilinear2((plane,), 0.45, 0.5, reciprocal=reciprocal)
        result = Correct()(with_list(ramps(height, width), operation)).pixels[0].numpy()
        x, y = grid(height, width)
        cx, cy = 0.45 * 299, 99.5
        m = math.hypot(299 - cx, 99.5)
        dx, dy = (x - cx) / m, (y - cy) / m
        r = np.hypot(dx, dy)
        f = np.polynomial.polynomial.polyval(r.clip(0.1, 0.8), radial)
        f = 1 / f if reciprocal else f
        wanted = cx + m * (f * dx + 0.001 * 2 * dx * dy - 0.002 * (r**2 + 2 * dx**2))
        assert np.abs(result - wanted.clip(0, 299))[6:-6, 6:-6].max() < 1e-2

    def test_trim_bounds_join_the_crop(self) -> None:
        frame = with_list(rgb_frame(60, 80, state=LINEAR), TrimBounds(5, 6, 50, 70))
        assert Correct()(frame).metadata.crop == (5, 6, 50, 70)
        cropped = replace(frame, metadata=Metadata(crop=(0, 10, 60, 80), orientation=6))
        result = Correct()(cropped)
        assert result.metadata.crop == (5, 10, 50, 70) and result.metadata.orientation == 6
        assert torch.equal(result.pixels, frame.pixels)
        assert result.upright().pixels.shape == (3, 60, 45)

    def test_what_it_does_not_know_stays_in_the_list_and_is_noted(self) -> None:
        odd = FixBadPixelsList(((1, 1),))
        result = Correct()(with_list(rgb_frame(state=LINEAR), odd, BARREL))
        assert parse(result.camera.opcode_lists[2]) == (odd,)
        assert "FixBadPixelsList" in result.notes[0]

    def test_damaged_lists_are_noted(self) -> None:
        frame = rgb_frame(state=LINEAR)
        spoiled = replace(frame, camera=Camera(opcode_lists=(b"", b"", encode((BARREL,))[:50])))
        result = Correct()(spoiled)
        assert torch.equal(result.pixels, frame.pixels) and "damaged" in result.notes[0]


class TestResampling:
    SHIFT = Lookup((Warp((0.0, 0.0), 1.0, (Distortion((0.98,)),)),))

    @pytest.mark.parametrize(("cycles_per_px", "largest"), [(0.05, 1e-3), (0.1, 2e-3), (0.2, 1e-2), (0.3, 5e-2)])
    def test_fine_detail_keeps_its_contrast(self, cycles_per_px: float, largest: float) -> None:
        """Root mean square error of a sinusoid, as a share of its own."""
        x, y = grid(200, 200)

        def wave(x: Map, y: Map) -> Map:
            return np.sin(2 * np.pi * cycles_per_px * (0.8 * x + 0.6 * y))

        seen = torch.from_numpy(wave(x, y).astype(np.float32))[None]
        result = corrected(seen, self.SHIFT)[0].numpy()
        wanted = wave(0.98 * x, 0.98 * y)
        error = (result - wanted)[10:-10, 10:-10]
        assert np.sqrt((error**2).mean() / (wanted**2).mean()) < largest

    def test_nothing_changes_where_nothing_moves(self) -> None:
        planes = rgb_frame(40, 50, state=LINEAR).pixels
        still = Lookup((Warp((20.0, 10.0), 30.0, (Distortion((1.0, 0.0)),)),))
        assert torch.equal(corrected(planes, still), planes)

    def test_whole_pixels_come_back(self) -> None:
        """Samples that lie on pixels give these: the spline interpolates."""
        planes = rgb_frame(64, 64, state=LINEAR).pixels
        mirrored = Lookup((Warp((31.5, 31.5), 1.0, (Distortion((-1.0,)),)),))
        assert float((corrected(planes, mirrored) - planes.flip(1, 2)).abs().max()) < 2e-4

    def test_tiles_leave_no_seams(self, monkeypatch: pytest.MonkeyPatch) -> None:
        frame = with_list(masked(rgb_frame(90, 130, state=LINEAR)), BARREL)
        whole = Correct()(frame)
        monkeypatch.setattr("restorekit.stages.warp.TILE", 32)
        tiled = Correct()(frame)
        assert float((whole.pixels - tiled.pixels).abs().max()) < 1e-5
        assert torch.equal(whole.masks["clipped"], tiled.masks["clipped"])

    @pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2), (9, 300)])
    def test_small_pictures(self, size: tuple[int, int]) -> None:
        frame = with_list(Frame(torch.full((3, *size), 0.4), LINEAR), BARREL)
        assert torch.allclose(Correct()(frame).pixels, frame.pixels, atol=1e-4)

    @pytest.mark.parametrize("tile", [16, 256])
    def test_outside_the_edge_goes_on(self, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("restorekit.stages.warp.TILE", tile)
        wide = WarpRectilinear(((1.9, 0.0, 0.0, 0.0, 0.0, 0.0),))
        frame = with_list(rgb_frame(80, 90, state=LINEAR), wide)
        result = Correct()(frame).pixels
        for row, column in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
            rows, columns = (slice(0, 18) if at == 0 else slice(-18, None) for at in (row, column))
            corner = frame.pixels[:, row, column].view(3, 1, 1)
            assert float((result[:, rows, columns] - corner).abs().max()) < 1e-3

    def test_masks_go_along_and_cover_all_they_touch(self) -> None:
        height, width = 120, 160
        frame = ramps(height, width)
        mask = torch.zeros(1, height, width, dtype=torch.bool)
        mask[:, 20:40, 30:60] = True
        marked = torch.where(mask, 1.0, 0.0).expand(3, -1, -1).clone()
        frame = with_list(replace(frame, pixels=marked, masks={"motion": mask, "clipped": marked > 0}), BARREL)
        result = Correct()(frame)
        touched = result.pixels > 0.2
        assert bool((result.masks["clipped"] >= touched).all())
        assert bool((result.masks["motion"] >= touched.any(0)).all())
        assert int(result.masks["motion"].sum()) < 800

    def test_values_that_are_not_finite_stay_where_they_are(self) -> None:
        frame = with_list(rgb_frame(60, 80, state=LINEAR), BARREL)
        spoiled = replace(frame, pixels=frame.pixels.clone())
        spoiled.pixels[0, 30, 40] = math.nan
        result = Correct()(spoiled)
        assert bool(result.pixels.isfinite().all())
        assert int(((result.pixels - Correct()(frame).pixels).abs() > 1e-2).sum()) <= 25
        assert "lens.correct replaced values that are not finite (1)" in result.notes[0]

    def test_gains_end_where_nothing_was_measured(self) -> None:
        """Tables of round fisheyes go below zero outside of the circle."""
        falloff = Falloff((50.0, 40.0), 64.0, (1.0, -0.7, 2.5, -15.0))
        result = corrected(torch.ones(3, 81, 101), Lookup(), (falloff,))
        assert float(result.max()) == 16.0 and float(result.min()) > 0
        assert falloff.lowest_gain(81, 101) == pytest.approx(float(result.min()), abs=1e-4)

    def test_noise_facts_hold_no_longer(self) -> None:
        assert Correct()(with_list(rgb_frame(state=LINEAR), BARREL)).facts.noise is None


class TestLensfun:
    @pytest.fixture(autouse=True)
    def database(self) -> None:
        pytest.importorskip("lensfunpy")

    def modifier(self, height: int, width: int, flags: int, *, reverse: bool = False, scale: float = 1.0) -> object:
        import lensfunpy

        known = lensfun.find(KIT_SHOT)
        modifier = lensfunpy.Modifier(known.lens, known.crop_factor, width, height)
        modifier.initialize(18.0, 3.5, 1000.0, scale, pixel_format=np.float32, flags=flags, reverse=reverse)
        return modifier

    def test_places_are_lensfuns(self) -> None:
        height, width = 300, 400
        result = Correct(scale="none", vignetting=False)(kit_lens(ramps(height, width))).pixels.numpy()
        modifier = self.modifier(height, width, 1 | 8)
        rows, columns = np.arange(6, height - 6, 23), np.arange(6, width - 6, 23)
        wanted = np.array(
            [[modifier.apply_subpixel_geometry_distortion(x, y, 1, 1)[0, 0] for x in columns] for y in rows]
        )
        for plane in range(3):
            got = result[plane][np.ix_(rows, columns)]
            assert np.abs(got - wanted[:, :, plane, plane % 2]).max() < 5e-3

    def test_bent_lines_become_straight(self) -> None:
        """A grid bent by lensfun's own reverse model."""
        height, width = 320, 480
        seen = self.modifier(height, width, 8, reverse=True).apply_geometry_distortion(0, 0, width, height)
        scene = lines(seen[..., 0].astype(np.float64), seen[..., 1].astype(np.float64))
        picture = kit_lens(Frame(torch.from_numpy(np.stack([scene] * 3).astype(np.float32)), LINEAR))
        stage = Correct(scale="none", vignetting=False, lateral_ca=False)
        assert np.abs(seen - np.stack(grid(height, width), -1)).max() > 3
        assert line_errors(stage(picture).pixels[1].double().numpy()).max() < 0.1

    def test_a_flat_field_becomes_flat(self) -> None:
        height, width = 200, 300
        seen = np.full((height, width, 3), 0.5, np.float32)
        self.modifier(height, width, 2, reverse=True).apply_color_modification(seen)
        assert seen.min() < 0.25
        frame = kit_lens(Frame(torch.from_numpy(seen.transpose(2, 0, 1).copy()), LINEAR))
        frame = replace(frame, facts=Facts(clip_level=(1.0,) * 3))
        result = Correct(distortion=False, lateral_ca=False)(frame)
        assert float((result.pixels / 0.5 - 1).abs().max()) < 5e-3
        assert result.facts.clip_level == pytest.approx((1.0,) * 3)

    @pytest.mark.parametrize("size", [(200, 300), (300, 200)])
    def test_filling_leaves_no_empty_border_and_loses_nothing(self, size: tuple[int, int]) -> None:
        """The edge of the result shows the edge of what was taken, to a pixel, and nothing beyond."""
        (step,) = plan_of_lens(ramps(*size), lensfun.find(KIT_SHOT), Wanted(vignetting=False), fill=True).steps
        x, y = torch.arange(float(size[1]))[None], torch.arange(float(size[0]))[:, None]
        extremes = []
        for plane in range(3):
            at_x, at_y = step.lookup.source(plane, x, y, (0, 0))
            extremes += [float(at_x.min()), size[1] - 1 - float(at_x.max()), float(at_y.min())]
        assert min(extremes) > -1e-3
        assert min(extremes) < 0.1

    def test_the_scale_is_lensfuns(self) -> None:
        height, width = 300, 400
        by_lensfun = self.modifier(height, width, 8 | 32, scale=0.0)
        seen = by_lensfun.apply_geometry_distortion(209.5, 149.5, 1, 1)[0, 0, 0] - 199.5
        wanted = Wanted(vignetting=False, lateral_ca=False)
        (step,) = plan_of_lens(ramps(height, width), lensfun.find(KIT_SHOT), wanted, fill=True).steps
        at_x, _ = step.lookup.source(1, torch.tensor([[209.5]]), torch.tensor([[149.5]]), (0, 0))
        assert float(at_x) - 199.5 == pytest.approx(seen, rel=2e-3)

    @pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2)])
    def test_small_pictures(self, size: tuple[int, int]) -> None:
        frame = kit_lens(Frame(torch.full((3, *size), 0.4), LINEAR))
        assert torch.allclose(Correct(vignetting=False)(frame).pixels, frame.pixels, atol=1e-4)

    def test_the_middle_is_that_of_the_crop(self) -> None:
        frame = kit_lens(ramps(300, 400))
        cropped = replace(frame, metadata=replace(KIT_LENS, crop=(20, 10, 260, 330)))
        stage = Correct(scale="none", vignetting=False)
        wanted = stage(kit_lens(ramps(240, 320))).pixels
        got = stage(cropped).pixels[:, 20:260, 10:330]
        offset = torch.tensor((10.0, 20.0, 10.0)).view(3, 1, 1)
        assert float((got - offset - wanted)[:, 6:-6, 6:-6].abs().max()) < 5e-3

    def test_parameters_stand_in_for_exif(self) -> None:
        frame = ramps(120, 160)
        wanted = Correct()(kit_lens(frame)).pixels
        by_name = Correct(camera="Canon EOS 550D", lens="Canon EF-S 18-55mm f/3.5-5.6 IS", focal_length_mm=18)
        assert torch.equal(by_name(replace(frame, exposure=WIDE_OPEN)).pixels, wanted)

    def test_the_file_comes_first(self) -> None:
        frame = kit_lens(rgb_frame(state=LINEAR))
        both = with_list(frame, BARREL)
        assert torch.equal(Correct()(both).pixels, Correct(source="file")(both).pixels)
        assert torch.equal(Correct(source="lensfun")(both).pixels, Correct(source="lensfun")(frame).pixels)
        assert isinstance(Correct(source="file").suited(frame), Nothing)

    def test_pictures_that_may_be_corrected_already_are_noted(self) -> None:
        frame = kit_lens(rgb_frame(state=LINEAR))
        assert "if the camera has done so already" in Correct()(frame).notes[0]
        assert Correct(source="lensfun")(frame).notes == ()
        raw = replace(frame, camera=Camera(white=np.ones(1, np.float32)))
        assert Correct()(raw).notes == ()

    def test_unknown_lenses(self) -> None:
        frame = rgb_frame(state=LINEAR)
        unknown = replace(frame, metadata=Metadata(exif=exif("Canon", "Canon EOS 550D", "Secret 12-34mm", 18.0)))
        result = Correct()(unknown)
        assert torch.equal(result.pixels, frame.pixels)
        assert len(result.notes) == 1 and "does not know the lens 'Secret 12-34mm'" in result.notes[0]
        assert Correct().suited(unknown).reach().kind == "pointwise"
        nameless = replace(frame, metadata=Metadata(exif=exif("Canon", "Canon EOS 550D", "", 18.0)))
        assert isinstance(Correct().suited(nameless), Nothing)
        assert "a lens without a name" in Correct(source="lensfun")(nameless).notes[0]
        with pytest.raises(StageError, match="Secret 12-34mm"):
            Correct(lens="Secret 12-34mm", camera="Canon EOS 550D")(frame)


def test_without_lensfunpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lensfun, "installed", lambda: False)
    frame = kit_lens(rgb_frame(state=LINEAR))
    assert isinstance(Correct().suited(frame), Nothing)
    with pytest.raises(StageError, match=r"pip install 'restorekit\[lens\]'"):
        Correct(source="lensfun")(frame)
