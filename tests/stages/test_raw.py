from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from restorekit.errors import InputError, StageError
from restorekit.facts import Camera
from restorekit.frame import Frame, Region
from restorekit.io import write_dng
from restorekit.stages.raw import BlackLevel, HotPixels
from restorekit.state import ImageState
from restorekit.testing import StageLaws, bayer_frame, in_strips

SENSOR_RGB = ImageState("rgb", "sensor", "linear", "camera")
XTRANS = ("GBGGRG", "RGRBGB", "GBGGRG", "GRGGBG", "BGBRGR", "GRGGBG")
PATTERNS = ("RGGB", "BGGR", "GRBG", "GBRG")


def numbers(height: int = 46, width: int = 52, top: int = 4000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, top, (height, width)).astype(np.uint16)


def sensor_frame(**changes: object) -> Frame:
    frame = Frame.from_bayer(numbers(), pattern="RGGB", black=(60, 64, 65, 71), white=3900)
    return replace(frame, camera=replace(frame.camera, **changes))  # type: ignore[arg-type]


DELTAS = sensor_frame(
    black_rows=np.linspace(-3, 4, 46, dtype=np.float32), black_columns=np.linspace(2, -2, 52, dtype=np.float32)
)
SIX_ROWS = sensor_frame(black=np.arange(50, 68, dtype=np.float32).reshape(6, 3, 1))
LINEARIZED = sensor_frame(linearization=(np.arange(3000, dtype=np.float32) * 1.3))


class TestBlackLevelLaws(StageLaws):
    stages = (BlackLevel(),)
    frames = (sensor_frame(), DELTAS, SIX_ROWS, LINEARIZED)


def test_black_becomes_zero_and_white_one_at_every_photosite() -> None:
    cell = np.array([[60, 64], [65, 71]])
    black = np.tile(cell, (23, 26)).astype(np.uint16)
    camera = {"pattern": "RGGB", "black": (60, 64, 65, 71), "white": 3900}
    dark = BlackLevel()(Frame.from_bayer(black, **camera))  # type: ignore[arg-type]
    assert torch.equal(dark.pixels, torch.zeros(1, 46, 52))
    full = BlackLevel()(Frame.from_bayer(np.full((46, 52), 3900, np.uint16), **camera))  # type: ignore[arg-type]
    span = 3900 - 71  # the same for all photosites: they share a gain
    torch.testing.assert_close(full.pixels[0, :2, :2], torch.from_numpy((3900 - cell) / span).float())
    assert full.masks["clipped"].all() and not dark.masks["clipped"].any()
    assert full.facts.clip_level == (1.0,)


def test_levels_follow_the_dng_formula() -> None:
    got = BlackLevel()(DELTAS)
    camera = DELTAS.camera
    assert camera.black is not None and camera.black_rows is not None and camera.black_columns is not None
    black = np.tile(camera.black[:, :, 0], (23, 26)).astype(float)
    black += camera.black_rows[:, None] + camera.black_columns
    want = (DELTAS.pixels[0].numpy() - black) / (3900 - black.max())
    np.testing.assert_allclose(got.pixels[0].numpy(), want, atol=2e-6)
    assert got.pixels.min() < 0, "noise below black must stay negative"
    np.testing.assert_array_equal(got.masks["clipped"][0].numpy(), numbers() >= 3900 - 0.01 * (3900 - black.max()))


def test_linearization_comes_before_black() -> None:
    got = BlackLevel()(LINEARIZED).pixels[0].numpy()
    looked_up = np.minimum(numbers(), 2999) * np.float32(1.3)
    black = np.tile([[60, 64], [65, 71]], (23, 26))
    np.testing.assert_allclose(got, (looked_up - black) / (3900 - 71), atol=2e-6)


def test_rgb_sensor_frame_has_levels_a_channel() -> None:
    camera = Camera(
        black=np.array([[[10, 20, 30]]], dtype=np.float32), white=np.array([100, 120, 230], dtype=np.float32)
    )
    pixels = torch.tensor([55.0, 70.0, 130.0]).view(3, 1, 1).expand(3, 4, 5)
    got = BlackLevel()(Frame(pixels, SENSOR_RGB, camera=camera))
    torch.testing.assert_close(got.pixels, torch.full((3, 4, 5), 0.5))
    assert got.facts.clip_level == (1.0, 1.0, 1.0) and got.masks["clipped"].shape == (3, 4, 5)


def test_noise_profile_becomes_a_fact() -> None:
    assert BlackLevel()(sensor_frame(noise_profile=((1e-4, 1e-6),))).facts.noise == ((1e-4, 1e-6),)


@pytest.mark.parametrize("missing", ["black", "white"])
def test_missing_levels_are_refused(missing: str) -> None:
    with pytest.raises(StageError, match=r"needs black and white levels.*headerless"):
        BlackLevel()(sensor_frame(**{missing: None}))


def test_white_below_black_is_refused() -> None:
    with pytest.raises(StageError, match="not above black"):
        BlackLevel()(sensor_frame(white=np.array([70], dtype=np.float32)))


# ---- hot pixels


def smooth(cfa: tuple[str, ...] = ("RG", "GB"), height: int = 48, width: int = 60, noise: float = 0.002) -> Frame:
    """A mosaic with a soft gradient whose colours have different levels, and a little noise."""
    y, x = np.mgrid[0:height, 0:width]
    level = {"R": 0.5, "G": 1.0, "B": 0.7}
    colours = np.array([[level[c] for c in row] for row in cfa])
    tiled = np.tile(colours, (-(-height // len(cfa)), -(-width // len(cfa[0]))))[:height, :width]
    light = tiled * (0.2 + 0.2 * x / width + 0.1 * y / height)
    light = light + np.random.default_rng(3).normal(0, noise, light.shape)
    pixels = torch.from_numpy(light.astype(np.float32))[None]
    layout = "bayer" if len(cfa) == 2 else "xtrans"
    state = ImageState(layout, "scene", "linear", "camera")  # type: ignore[arg-type]
    return Frame(pixels, state, masks={"clipped": pixels >= 1}, camera=Camera(cfa=cfa))


def with_values(frame: Frame, values: dict[tuple[int, int], float]) -> Frame:
    pixels = frame.pixels.clone()
    for (y, x), value in values.items():
        pixels[0, y, x] = value
    return replace(frame, pixels=pixels, masks={"clipped": pixels >= 1})


STUCK = {(0, 0): 1.0, (9, 14): 1.0, (20, 31): 0.9, (33, 2): 0.8, (40, 58): 0.0, (47, 59): 1.0, (15, 40): 0.0}
MARKED = with_values(smooth(), STUCK)


class TestHotPixelLaws(StageLaws):
    stages = (HotPixels(), HotPixels(threshold=0.2), HotPixels(detect=False))
    frames = (MARKED, smooth(XTRANS), bayer_frame(45, 51), bayer_frame(2, 2), bayer_frame(3, 8))
    tolerance = 0.0


@pytest.mark.parametrize("cfa", [*((p[:2], p[2:]) for p in PATTERNS), XTRANS])
def test_stuck_photosites_are_replaced_and_nothing_else(cfa: tuple[str, ...]) -> None:
    clean = smooth(cfa)
    got = HotPixels()(with_values(clean, STUCK))
    changed = (got.pixels - with_values(clean, STUCK).pixels)[0].nonzero()
    assert {(int(y), int(x)) for y, x in changed} == set(STUCK)
    assert float((got.pixels - clean.pixels).abs().max()) < 0.03
    assert not got.masks["clipped"].any(), "a replaced photosite is not clipped any more"


def test_points_of_light_stay() -> None:
    """A star falls on neighbouring photosites of all colours, however sharp the lens."""
    frame = with_values(smooth(), {})
    star = torch.tensor([[0.1, 0.3, 0.1], [0.3, 0.6, 0.3], [0.1, 0.3, 0.1]])
    for y, x in ((8, 9), (21, 30), (30, 17), (40, 40)):
        frame.pixels[0, y - 1 : y + 2, x - 1 : x + 2] += star
    assert torch.equal(HotPixels()(frame).pixels, frame.pixels)


def test_edges_and_lines_stay() -> None:
    frame = with_values(smooth(noise=0), {})
    frame.pixels[0, :, 30:] += 0.5
    frame.pixels[0, 12, :] += 0.4
    for step in range(40):
        frame.pixels[0, step, step] += 0.3
    assert torch.equal(HotPixels()(frame).pixels, frame.pixels)


def test_noise_alone_is_left() -> None:
    frame = smooth(height=200, width=300, noise=0.03)
    changed = (HotPixels()(frame).pixels != frame.pixels).sum()
    assert changed <= 3, "60,000 photosites of plain noise"


def test_detection_can_be_off_and_rgb_is_not_searched() -> None:
    assert torch.equal(HotPixels(detect=False)(MARKED).pixels, MARKED.pixels)
    rgb = Frame(torch.rand(3, 20, 20), ImageState("rgb", "scene", "linear", "camera"))
    assert torch.equal(HotPixels()(rgb).pixels, rgb.pixels)


def test_list_of_bad_pixels(tmp_path: Path) -> None:
    """The list is dcraw's: column, row, time; a pair side by side is mended too, and in every strip."""
    pair = with_values(smooth(), {(20, 30): 1.0, (20, 31): 1.0, (22, 30): 1.0})
    assert torch.equal(HotPixels(detect=False)(pair).pixels, pair.pixels)
    listed = tmp_path / "bad.txt"
    listed.write_text("# camera 7\n30 20 1289345\n31 20\n\n30 22 0  # since May\n")
    stage = HotPixels(detect=False, bad_pixels=listed)
    got = stage(pair)
    assert float((got.pixels - smooth().pixels).abs().max()) < 0.03
    assert torch.equal(in_strips(stage, pair, 16).pixels, got.pixels)


def test_image_of_bad_pixels_works_on_rgb_too(tmp_path: Path) -> None:
    marks = np.zeros((12, 15), np.uint8)
    marks[5, 6] = 255
    Image.fromarray(marks).save(tmp_path / "bad.png")
    pixels = torch.full((3, 12, 15), 0.25)
    pixels[:, 5, 6] = torch.tensor([1.0, 0.3, 0.9])
    frame = Frame(pixels, ImageState("rgb", "scene", "linear", "camera"))
    got = HotPixels(bad_pixels=tmp_path / "bad.png")(frame)
    assert torch.equal(got.pixels, torch.full((3, 12, 15), 0.25))


def test_dark_frame_marks_its_bright_photosites(tmp_path: Path) -> None:
    dark = np.full((48, 60), 512, np.uint16)
    dark[20, 30:32] = 4000
    taken = Frame.from_bayer(dark, pattern="RGGB", black=512, white=16383)
    write_dng(tmp_path / "dark.dng", taken)
    frame = with_values(smooth(), {(20, 30): 0.7, (20, 31): 0.7})
    got = HotPixels(detect=False, dark_frame=tmp_path / "dark.dng")(frame)
    assert float((got.pixels - smooth().pixels).abs().max()) < 0.03
    with pytest.raises(InputError, match=r"dark\.dng.*60x48.*same camera"):
        HotPixels(dark_frame=tmp_path / "dark.dng")(smooth(height=20))


@pytest.mark.parametrize(
    ("text", "said"), [("3\n", "not 'x y'"), ("1 2\n60 1\n", ":2:.*lies outside"), ("a b", "not 'x y'")]
)
def test_wrong_list_names_its_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "bad.txt").write_text(text)
    with pytest.raises(InputError, match=said):
        HotPixels(bad_pixels=tmp_path / "bad.txt")(smooth())


def test_missing_list_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.txt.*check the path"):
        HotPixels(bad_pixels=tmp_path / "nowhere.txt")(smooth())


def test_strip_knows_the_colours_of_its_rows() -> None:
    """An X-Trans strip that begins inside a cell of six rows."""
    frame = with_values(smooth(XTRANS), STUCK)
    strip = replace(frame.rows(8, 40), region=Region(8, 48))
    got = HotPixels().apply(strip).pixels[:, 4:-4]
    assert torch.equal(got, HotPixels()(frame).pixels[:, 12:36])
