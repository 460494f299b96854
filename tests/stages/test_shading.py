"""Lens shading by the maps of a DNG: a phone's picture, shaded and stored, comes out as it was before the lens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.interpolate import RegularGridInterpolator

from restorekit.engine import plan
from restorekit.errors import StageError
from restorekit.facts import Camera, Metadata
from restorekit.frame import LEFT_OUT, Bracket, Frame
from restorekit.io import read, write_dng
from restorekit.io.dng.opcode_kinds import (
    Area,
    DeltaPerColumn,
    FixVignetteRadial,
    GainMap,
    MapPolynomial,
    MapTable,
    Operation,
    ScalePerRow,
)
from restorekit.io.dng.opcodes import encode
from restorekit.pipeline import Pipeline
from restorekit.stage import Nothing
from restorekit.stages.color import WhiteBalance
from restorekit.stages.demosaic import Demosaic
from restorekit.stages.highlights import Highlights
from restorekit.stages.illuminant import AsShot
from restorekit.stages.raw import BlackLevel
from restorekit.stages.shading import LensShading
from restorekit.state import ImageState
from restorekit.testing import StageLaws, bayer_frame

BLACK, WHITE = 1024, 16383
HEIGHT, WIDTH = 300, 400
POINTS = 13, 17


def with_list(frame: Frame, *operations: Operation) -> Frame:
    return replace(frame, camera=replace(frame.camera, opcode_lists=(b"", encode(operations), b"")))


def random_map(area: Area, planes: int = 1, seed: int = 0) -> GainMap:
    gains = np.random.default_rng(seed).uniform(0.8, 3, (5, 6, planes)).astype(np.float32)
    return GainMap(area, gains, (0.25, 0.2))


PHONE = tuple(random_map(Area(y, x, 46, 52, 0, 1, 2, 2), seed=y * 2 + x) for y in (0, 1) for x in (0, 1))
OTHERS = (
    MapPolynomial(Area(0, 0, 46, 52, 0, 3), (0.0, 0.5, 0.5)),
    ScalePerRow(Area(3, 1, 40, 50, 0, 3, 3, 2), np.linspace(0.5, 2, 13, dtype=np.float32)),
    DeltaPerColumn(Area(0, 0, 46, 52, 1), np.linspace(-0.1, 0.1, 52, dtype=np.float32)),
    FixVignetteRadial((0.3, 0.2, 0.1, 0.0, 0.1), 0.4, 0.55),
    MapTable(Area(5, 0, 46, 52), np.linspace(0, 65535, 4096).astype(np.uint16)),
)
LINEAR = Frame(torch.rand(3, 46, 52, generator=torch.manual_seed(0)), ImageState("rgb", "scene", "linear", "camera"))


class TestLensShadingLaws(StageLaws):
    stages = (LensShading(),)
    frames = (
        with_list(bayer_frame(), *PHONE),
        with_list(bayer_frame(), *OTHERS),
        with_list(LINEAR, random_map(Area(0, 0, 46, 52, 0, 3), 3), *OTHERS),
    )


# ---- a phone


def attenuation(colour: float) -> NDArray[np.float64]:
    """How much of the light arrives at each point of the grid: cos^4 of the angle, stronger for some colours."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, count) for count in POINTS), indexing="ij")
    radius = np.hypot(0.75 * y, x) * 0.8
    result: NDArray[np.float64] = np.cos(np.arctan(radius)) ** (4 * colour)
    return result


def at_pixels(grid: NDArray[np.float64], height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.float64]:
    """A grid over the image read at the centres of its pixels, bilinear, by SciPy."""
    axes = [np.linspace(0, 1, count) for count in grid.shape]
    y, x = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
    result: NDArray[np.float64] = RegularGridInterpolator(axes, grid)(np.stack((y, x), -1))
    return result


COLOURS = {"R": 1.3, "G": 1.0, "B": 0.9}


def phone_maps(pattern: str) -> list[GainMap]:
    """A map for each photosite of the cell, as Android's cameras write them."""
    spacing = 1 / (POINTS[0] - 1), 1 / (POINTS[1] - 1)
    maps = []
    for index, colour in enumerate(pattern):
        gains = (1 / attenuation(COLOURS[colour])).astype(np.float32)[..., None]
        maps.append(GainMap(Area(index // 2, index % 2, HEIGHT, WIDTH, 0, 1, 2, 2), gains, spacing))
    return maps


def taken(path: Path, light: NDArray[np.float64], pattern: str, maps: list[GainMap] | None) -> Frame:
    """A scene ``[3,H,W]`` through the lens onto a 14-bit sensor, stored, read again, with linear values."""
    mosaic = np.empty((HEIGHT, WIDTH))
    for index, colour in enumerate(pattern):
        site = np.s_[index // 2 :: 2, index % 2 :: 2]
        gain = at_pixels(1 / attenuation(COLOURS[colour])) if maps else np.ones((HEIGHT, WIDTH))
        mosaic[site] = (light["RGB".index(colour)] / gain)[site]
    numbers = np.rint(mosaic * (WHITE - BLACK) + BLACK).clip(0, WHITE).astype(np.uint16)
    camera = Camera(neutral=(1.0, 1.0, 1.0), opcode_lists=(b"", encode(maps or []), b""))
    frame = Frame.from_bayer(numbers, pattern=pattern, black=BLACK, white=WHITE, camera=camera)  # type: ignore[arg-type]
    write_dng(path, frame)
    return BlackLevel()(read(path))


@pytest.mark.parametrize("pattern", ["RGGB", "GRBG", "BGGR", "GBRG"])
def test_a_flat_field_comes_out_flat(tmp_path: Path, pattern: str) -> None:
    light = np.full((3, HEIGHT, WIDTH), 0.4)
    frame = taken(tmp_path / "a.dng", light, pattern, phone_maps(pattern))
    assert frame.pixels.max() / frame.pixels.min() > 2.5, "the sensor saw it shaded"
    flat = LensShading()(frame)
    np.testing.assert_allclose(flat.pixels.numpy(), 0.4, rtol=5e-4)  # half a step of 14 bits, five times brightened
    assert float(flat.pixels.mean()) == pytest.approx(0.4, rel=1e-5)
    assert flat.camera.opcode_lists == (b"", b"", b"")


def test_a_scene_with_and_without_the_lens(tmp_path: Path) -> None:
    """Demosaiced, so that both the maps' places and the pattern of colours must be right."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    scene = 0.35 + 0.25 * np.sin(x / 23 + y / 31) * np.array([1.0, 0.8, -0.6])[:, None, None]
    shaded = taken(tmp_path / "a.dng", scene, "GRBG", phone_maps("GRBG"))
    plain = taken(tmp_path / "b.dng", scene, "GRBG", None)
    for demosaic, worst in ((Demosaic(method="bilinear"), 0.002), (Demosaic(), 0.02)):  # Menon may choose otherwise
        got, want = demosaic(LensShading()(shaded)).pixels, demosaic(plain).pixels
        assert float((got / want - 1).abs().max()) < worst
        assert float((got / want - 1).abs().mean()) < 0.0005
        assert float((demosaic(shaded).pixels / want - 1).abs().max()) > 0.4


def test_blown_corners_come_out_white(tmp_path: Path) -> None:
    """Clipped photosites get different gains; raw.highlights after it evens them out, before it could not."""
    light = np.full((3, HEIGHT, WIDTH), 0.3)
    light[:, 10:80, 10:90] = 20.0
    frame = AsShot()(taken(tmp_path / "a.dng", light, "RGGB", phone_maps("RGGB")))
    developed = Demosaic()(WhiteBalance()(Highlights()(LensShading()(frame))))
    blown = developed.pixels[:, 20:70, 20:80]
    assert float((blown.amax(0) / blown.amin(0)).max()) < 1.001
    assert blown.min() > 1.5
    np.testing.assert_allclose(developed.pixels[:, 150:, 200:].numpy(), 0.3, rtol=1e-3)


# ---- what is known


def test_facts_and_masks() -> None:
    frame = with_list(bayer_frame(), random_map(Area(0, 0, 46, 52)), random_map(Area(0, 0, 46, 52), seed=1))
    lowest = float(np.prod([random_map(Area(), seed=seed).gains.min() for seed in (0, 1)]))
    got = LensShading()(frame)
    assert lowest < 1 < got.pixels.max(), "nothing is clipped"
    assert got.facts.clip_level == pytest.approx((lowest,))
    assert got.facts.noise == frame.facts.noise
    assert torch.equal(got.masks["clipped"], frame.masks["clipped"])
    brighter = with_list(bayer_frame(), GainMap(Area(0, 0, 46, 52), np.full((1, 1, 1), 2, np.float32)))
    assert LensShading()(brighter).facts.clip_level == (1.0,)


def test_the_other_lists_wait() -> None:
    frame = with_list(bayer_frame(), *PHONE)
    first, third = encode([random_map(Area())]), encode([FixVignetteRadial((0.1,) * 5)])
    waiting = replace(frame, camera=replace(frame.camera, opcode_lists=(first, frame.camera.opcode_lists[1], third)))
    assert LensShading()(waiting).camera.opcode_lists == (first, b"", third)


def test_without_a_list_there_is_nothing_to_do() -> None:
    frame = bayer_frame()
    assert isinstance(LensShading().suited(frame), Nothing)
    assert LensShading()(frame).pixels is frame.pixels
    stage = LensShading()
    assert stage.suited(with_list(frame, *PHONE)) is stage


def test_one_frame_of_a_bracket_may_have_a_list() -> None:
    plain, shaded = bayer_frame(), with_list(bayer_frame(), *PHONE)
    pipeline = Pipeline([LensShading()])
    for frames in ((plain, shaded), (shaded, plain)):
        assert isinstance(plan(pipeline, Bracket(frames))[0].stage, LensShading)
    assert isinstance(plan(pipeline, Bracket((plain, plain)))[0].stage, Nothing)


def test_what_no_stage_applied_is_dropped_with_the_border_and_said() -> None:
    frame = with_list(bayer_frame(), *PHONE)
    assert frame.upright() is frame, "a mosaic is not turned"
    turned = Demosaic()(replace(frame, metadata=Metadata(orientation=6))).upright()
    assert (turned.height, turned.width) == (frame.width, frame.height)
    assert turned.camera.opcode_lists == (b"", b"", b"")
    assert turned.notes == (LEFT_OUT,)
    assert Demosaic()(bayer_frame()).upright().notes == ()


def test_after_demosaicing_it_is_too_late() -> None:
    frame = Demosaic()(with_list(bayer_frame(), *PHONE))
    with pytest.raises(StageError, match=r"before raw\.demosaic"):
        LensShading()(frame)
