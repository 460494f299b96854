from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from restorekit.errors import InputError, StageError
from restorekit.facts import Exposure, Facts
from restorekit.frame import Frame
from restorekit.io import write_dng
from restorekit.io.dng.opcode_kinds import Area, FixVignetteRadial, GainMap, ScalePerRow
from restorekit.io.dng.opcodes import encode
from restorekit.stages.calibration import DarkFrame, FlatField
from restorekit.stages.raw import BlackLevel
from restorekit.stages.shading import LensShading
from restorekit.state import ImageState
from restorekit.testing import StageLaws, bayer_frame, in_strips, rgb_frame

BLACK, WHITE = 512, 15872
HEIGHT, WIDTH = 192, 264
PANEL = (0.45, 0.8, 0.6)
Plane = NDArray[np.float64]


def mosaic(light: Plane, *, pattern: str = "RGGB", exposure: Exposure | None = None) -> Frame:
    """A sensor-referred frame of light 0..1."""
    numbers = np.round(BLACK + light * (WHITE - BLACK)).clip(0, WHITE).astype(np.uint16)
    return Frame.from_bayer(numbers, pattern=pattern, black=BLACK, white=WHITE, exposure=exposure)  # type: ignore[arg-type]


def saved(path: Path, frame: Frame) -> Path:
    write_dng(path, frame)
    return path


def colored(color: tuple[float, float, float]) -> Plane:
    """A mosaic ``RGGB`` of one colour."""
    plane = np.full((HEIGHT, WIDTH), color[1])
    plane[0::2, 0::2], plane[1::2, 1::2] = color[0], color[2]
    return plane


def shading(*, strength: float = 0.6) -> Plane:
    """Light that falls off to the corners, and the shadows of two grains of dust."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    squared = ((x - WIDTH / 2) ** 2 + (y - HEIGHT / 2) ** 2) / (WIDTH**2 + HEIGHT**2) * 4
    light = 1 - strength * squared
    for row, column in ((40, 60), (140, 200)):
        light *= 1 - 0.15 * np.exp(-((x - column) ** 2 + (y - row) ** 2) / 2 / 10.0**2)
    return light


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("calibration")


@pytest.fixture(scope="module")
def flat(folder: Path) -> Path:
    noise = np.random.default_rng(3).normal(1, 0.01, (HEIGHT, WIDTH))
    return saved(folder / "flat.dng", mosaic(colored(PANEL) * shading() * noise))


@pytest.fixture(scope="module")
def dark(folder: Path) -> Path:
    light = np.zeros((HEIGHT, WIDTH))
    light[:, -20:] = 0.02
    light[10, 10], light[40, 51] = 0.3, 0.1
    return saved(folder / "dark.dng", mosaic(light, exposure=Exposure(time_s=10.0, iso=400)))


class TestDarkFrame:
    def test_glow_and_warm_photosites_go(self, dark: Path) -> None:
        scene = bayer_frame(HEIGHT, WIDTH).pixels[0].double().numpy() * 0.5
        warm = BlackLevel()(mosaic(scene + BlackLevel()(mosaic_of(dark)).pixels[0].double().numpy()))
        result = DarkFrame(file=dark)(warm).pixels[0].numpy()
        assert np.abs(result - scene).max() < 1.5 / (WHITE - BLACK)
        assert np.abs(warm.pixels[0].numpy() - scene).max() > 0.29

    def test_the_ratio_of_exposures(self, dark: Path) -> None:
        blank = BlackLevel()(mosaic(np.full((HEIGHT, WIDTH), 0.5), exposure=Exposure(time_s=20.0, iso=200)))
        taken = {
            scale: 0.5 - float(DarkFrame(file=dark, scale=scale)(blank).pixels[0, 10, 10]) for scale in ("none", "auto")
        }
        assert taken["none"] == pytest.approx(0.3, abs=1e-3)
        assert taken["auto"] == pytest.approx(0.3, abs=1e-3)  # twice the time at half the gain
        longer = replace(blank, exposure=Exposure(time_s=5.0))
        result = DarkFrame(file=dark, scale="auto")(longer)
        assert 0.5 - float(result.pixels[0, 10, 10]) == pytest.approx(0.15, abs=1e-3)
        unknown = DarkFrame(file=dark, scale="auto")(replace(blank, exposure=Exposure()))
        assert "exposure times are not known" in unknown.notes[0]

    def test_strips_get_their_own_rows(self, dark: Path) -> None:
        frame = BlackLevel()(mosaic(np.full((HEIGHT, WIDTH), 0.5)))
        whole = DarkFrame(file=dark)(frame)
        for rows in (16, 34):
            assert torch.equal(in_strips(DarkFrame(file=dark), frame, rows).pixels, whole.pixels)

    def test_clipped_photosites_and_the_clip_level_stay(self, dark: Path) -> None:
        light = np.full((HEIGHT, WIDTH), 0.5)
        light[:, -10:] = 1.0
        result = DarkFrame(file=dark)(BlackLevel()(mosaic(light)))
        assert result.facts.clip_level == (1.0,)
        assert torch.equal(result.pixels[0, :, -10:], torch.ones(HEIGHT, 10))
        assert float(result.pixels[0, 50, -15]) == pytest.approx(0.48, abs=1e-3)

    def test_its_noise_is_added(self, dark: Path) -> None:
        frame = replace(BlackLevel()(mosaic(colored(PANEL))), facts=Facts(noise=((1e-4, 2e-6),)))
        assert DarkFrame(file=dark)(frame).facts.noise == ((1e-4, 4e-6),)

    def test_linear_rgb(self, folder: Path) -> None:
        """A dark frame of one channel is not one of three."""
        file = saved(folder / "small.dng", mosaic(np.zeros((HEIGHT, WIDTH))))
        frame = rgb_frame(HEIGHT, WIDTH, state=ImageState("rgb", "scene", "linear", "camera"))
        with pytest.raises(InputError, match=f"the frame has 3 channels of {WIDTH}x{HEIGHT} px"):
            DarkFrame(file=file)(frame)


def mosaic_of(path: Path) -> Frame:
    from restorekit.io import read

    return read(path)


class TestFlatField:
    def test_shading_and_dust_go_and_colours_stay(self, flat: Path) -> None:
        color = (0.2, 0.5, 0.3)
        seen = BlackLevel()(mosaic(colored(color) * shading()))
        result = FlatField(file=flat)(seen)
        ratio = result.pixels[0].double().numpy() / colored(color)
        assert np.abs(ratio - 1)[6:-6, 6:-6].max() < 0.02
        assert np.abs(ratio - 1).max() < 0.08  # at the border only one side can be averaged
        assert np.abs(seen.pixels[0].numpy() / colored(color) - 1).max() > 0.5
        means = [ratio[row::2, column::2].mean() for row, column in ((0, 0), (0, 1), (1, 0), (1, 1))]
        assert max(means) / min(means) < 1.002

    def test_it_takes_the_place_of_the_maps_of_the_file(self, flat: Path) -> None:
        seen = BlackLevel()(mosaic(colored(PANEL) * shading() * 0.5))
        gains = GainMap(Area(), np.full((1, 1, 1), 2, np.float32))
        stripes = ScalePerRow(Area(), np.ones(HEIGHT, np.float32))
        lists = (b"", encode([gains, stripes]), encode([FixVignetteRadial((0.5, 0, 0, 0, 0))]))
        result = FlatField(file=flat)(replace(seen, camera=replace(seen.camera, opcode_lists=lists)))
        assert result.camera.opcode_lists == (b"", encode([stripes]), b"")
        assert "shading maps" in result.notes[0]
        plain = FlatField(file=flat)(seen)
        assert plain.notes == ()
        assert torch.equal(LensShading()(result).pixels, plain.pixels)

    def test_its_noise_does_not_get_in(self, flat: Path) -> None:
        """A flat field with 1 % of noise, over a tenth of the picture where nothing else changes."""
        seen = BlackLevel()(mosaic(colored((0.2, 0.5, 0.3)) * shading()))
        smooth, raw = (FlatField(file=flat, radius_px=radius)(seen).pixels[0].numpy() for radius in (6, 0))
        spread = [float((plane / colored((0.2, 0.5, 0.3)))[80:110, 110:150].std()) for plane in (smooth, raw)]
        assert spread[1] > 0.009
        assert spread[0] < 0.003

    def test_the_light_taken_as_white(self, flat: Path) -> None:
        frame = BlackLevel()(mosaic(colored(PANEL) * shading()))
        result = FlatField(file=flat, keep_color=False)(frame)
        balance = result.facts.white_balance
        assert balance == pytest.approx((0.8 / 0.45, 1.0, 0.8 / 0.6), rel=5e-3)
        assert np.abs(result.pixels.numpy() / 0.8 - 1)[:, 6:-6, 6:-6].max() < 0.02
        assert result.facts.clip_level is not None and len(result.facts.clip_level) == 3
        kept = FlatField(file=flat)(frame).facts
        assert kept.white_balance is None and kept.clip_level is not None
        ratios = [clip / kept.clip_level[0] for clip in result.facts.clip_level]
        assert ratios == pytest.approx(balance)

    def test_gains_are_limited(self, folder: Path) -> None:
        file = saved(folder / "steep.dng", mosaic(colored((0.8, 0.8, 0.8)) * shading(strength=0.97)))
        frame = BlackLevel()(mosaic(np.full((HEIGHT, WIDTH), 0.1)))
        assert float(FlatField(file=file)(frame).pixels.max()) > 0.45
        assert float(FlatField(file=file, max_gain=1.5)(frame).pixels.max()) == pytest.approx(0.15, abs=1e-3)

    def test_a_dead_photosite_of_the_flat_leaves_no_spot(self, folder: Path) -> None:
        light = colored(PANEL)
        light[40, 60] = 0.0
        file = saved(folder / "dead.dng", mosaic(light))
        result = FlatField(file=file)(BlackLevel()(mosaic(colored((0.3, 0.3, 0.3)))))
        assert float((result.pixels / 0.3 - 1).abs().max()) < 2e-3

    def test_the_clip_level_is_the_lowest_there_is(self, folder: Path) -> None:
        """The flat is brighter at the left than in its middle: there a full photosite ends up below 1."""
        light = np.linspace(0.9, 0.5, WIDTH)[None].repeat(HEIGHT, 0)
        file = saved(folder / "tilted.dng", mosaic(light))
        result = FlatField(file=file)(BlackLevel()(mosaic(np.full((HEIGHT, WIDTH), 1.0))))
        assert result.facts.clip_level == pytest.approx((0.7 / 0.9,), rel=0.02)
        assert float(result.pixels.min()) >= result.facts.clip_level[0] - 1e-6

    def test_strips_get_their_own_rows(self, flat: Path) -> None:
        frame = BlackLevel()(mosaic(colored(PANEL) * shading()))
        whole = FlatField(file=flat)(frame)
        for rows in (16, 34):
            strips = in_strips(FlatField(file=flat), frame, rows)
            assert torch.equal(strips.pixels, whole.pixels) and strips.facts.clip_level == whole.facts.clip_level

    def test_xtrans_cells(self) -> None:
        from restorekit.stages.calibration import _colors, _smoothed

        cell = ("GBGGRG", "RGRBGB", "GBGGRG", "GRGGBG", "BGBRGR", "GRGGBG")
        values = dict(zip("RGB", PANEL, strict=True))
        plane = np.array([[values[site] for site in row] for row in cell], np.float32)
        plane = np.tile(plane, (6, 7))[:35, :40]
        for (found, sites), color in zip(_colors(plane[None], cell), PANEL, strict=True):
            assert np.abs(_smoothed(found, sites, 6)[sites] - color).max() < 1e-5

    @pytest.mark.parametrize(
        ("light", "message"),
        [(0.004, r"too dark, 0\.4% of white; expose it more"), (1.1, r"overexposed, 100\.0% of it are clipped")],
    )
    def test_badly_exposed_ones_are_refused(self, tmp_path: Path, light: float, message: str) -> None:
        file = saved(tmp_path / "bad.dng", mosaic(np.full((HEIGHT, WIDTH), light)))
        with pytest.raises(InputError, match=message):
            FlatField(file=file)(BlackLevel()(mosaic(colored(PANEL))))

    def test_other_patterns_are_refused(self, tmp_path: Path) -> None:
        file = saved(tmp_path / "other.dng", mosaic(colored(PANEL), pattern="BGGR"))
        with pytest.raises(InputError, match="has the pattern BG/GR, the frame RG/GB"):
            FlatField(file=file)(BlackLevel()(mosaic(colored(PANEL))))


@pytest.mark.parametrize("kind", [DarkFrame, FlatField])
class TestFiles:
    def test_sizes_must_match(self, kind: type[DarkFrame | FlatField], flat: Path) -> None:
        frame = BlackLevel()(mosaic(np.full((HEIGHT + 2, WIDTH), 0.5)))
        with pytest.raises(InputError, match=rf"is {WIDTH}x{HEIGHT} px, .*of {WIDTH}x{HEIGHT + 2} px; take a RAW"):
            kind(file=flat)(frame)

    def test_missing_files(self, kind: type[DarkFrame | FlatField], tmp_path: Path) -> None:
        with pytest.raises(InputError, match="cannot read it"):
            kind(file=tmp_path / "none.dng")(BlackLevel()(mosaic(colored(PANEL))))

    def test_changed_files_are_read_again(self, kind: type[DarkFrame | FlatField], tmp_path: Path) -> None:
        file = saved(tmp_path / "one.dng", mosaic(colored(PANEL)))
        frame = BlackLevel()(mosaic(colored((0.9, 0.9, 0.9))))
        before = kind(file=file)(frame).pixels
        saved(file, mosaic(colored(PANEL) * shading()))
        os.utime(file, ns=(1, 1))
        assert not torch.equal(kind(file=file)(frame).pixels, before)

    def test_after_white_balance_they_are_refused(self, kind: type[DarkFrame | FlatField], flat: Path) -> None:
        frame = BlackLevel()(mosaic(colored(PANEL)))
        frame = replace(frame, facts=replace(frame.facts, white_balance=(2.0, 1.0, 1.5)))
        with pytest.raises(StageError, match="before white balance"):
            kind(file=flat)(frame)


class TestLaws(StageLaws):
    stages = (DarkFrame(file=Path("written by the fixtures")), FlatField(file=Path("written by the fixtures")))
    frames = (bayer_frame(HEIGHT, WIDTH),)

    @pytest.fixture(autouse=True)
    def _with_files(self, dark: Path, flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(type(self), "stages", (DarkFrame(file=dark), FlatField(file=flat)))
