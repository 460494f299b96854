"""Frames made small for previews."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import restorekit as rk
from restorekit.errors import InputError
from restorekit.facts import Camera
from restorekit.frame import Bracket, Frame
from restorekit.io.buffers import Packed
from restorekit.reduction import fitted, reduced
from restorekit.state import SHORTHANDS, ImageState
from restorekit.testing import rgb_frame

XTRANS = ("GGRGGB", "GGBGGR", "BRGRBG", "GGBGGR", "GGRGGB", "RBGBRG")


def mosaic(height: int, width: int, pattern: str = "RGGB", colours: tuple[int, int, int] = (300, 500, 200)) -> Frame:
    """One colour all over, as digital numbers."""
    values = dict(zip("RGB", colours, strict=True))
    cell = np.array([[values[pattern[0]], values[pattern[1]]], [values[pattern[2]], values[pattern[3]]]], np.uint16)
    return Frame.from_bayer(
        np.tile(cell, (height // 2, width // 2)),
        pattern=pattern,
        black=(10, 20, 30, 40),
        white=1000,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("size", "box", "expected"),
    [
        ((4000, 3000), (1280, 720), (960, 720)),
        ((3000, 4000), (1280, 720), (540, 720)),
        ((64, 48), (1280, 720), (64, 48)),
    ],
)
def test_the_shape_is_kept_and_nothing_enlarged(
    size: tuple[int, int], box: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert fitted(*size, box) == expected


@pytest.mark.parametrize("pattern", ["RGGB", "BGGR", "GRBG", "GBRG"])
def test_a_mosaic_becomes_the_colours_of_its_photosites(pattern: str) -> None:
    small = reduced(mosaic(60, 80, pattern), (20, 20))
    assert isinstance(small, Frame)
    assert small.pixels.shape == (3, 15, 20) and small.state == ImageState("rgb", "sensor", "linear", "camera")
    assert small.pixels.mean((1, 2)).tolist() == pytest.approx([300, 500, 200])
    assert small.pixels.std((1, 2)).tolist() == pytest.approx([0, 0, 0])


def test_black_levels_are_those_of_each_colour() -> None:
    small = reduced(mosaic(16, 16), (4, 4))
    assert isinstance(small, Frame) and small.camera.black is not None and small.camera.white is not None
    assert small.camera.black.ravel().tolist() == [10, 25, 40]
    assert small.camera.white.tolist() == [1000, 1000, 1000] and small.camera.cfa == ()


def test_light_is_kept_however_large_the_blocks() -> None:
    numbers = np.random.default_rng(0).integers(0, 1000, (96, 144), dtype=np.uint16)
    frame = Frame.from_bayer(numbers, pattern="RGGB", white=1023)
    for box in ((72, 48), (36, 24), (24, 16), (12, 8), (3, 2)):
        small = reduced(frame, box)
        assert isinstance(small, Frame) and (small.width, small.height) == box
        assert float(small.pixels[0].mean()) == pytest.approx(numbers[::2, ::2].mean(), rel=1e-4)


def test_an_edge_lies_at_the_same_place_in_all_colours() -> None:
    light = np.zeros((64, 64), np.uint16)
    light[:, 32:] = 1000
    small = reduced(Frame.from_bayer(light, pattern="RGGB", white=1023), (16, 16))
    assert isinstance(small, Frame)
    assert torch.equal(small.pixels[0], small.pixels[1]) and torch.equal(small.pixels[1], small.pixels[2])


def test_xtrans_too() -> None:
    numbers = np.zeros((36, 48), np.float32)
    for y in range(36):
        for x in range(48):
            numbers[y, x] = {"R": 0.3, "G": 0.5, "B": 0.2}[XTRANS[y % 6][x % 6]]
    state = ImageState("xtrans", "scene", "linear", "camera")
    small = reduced(Frame(torch.from_numpy(numbers)[None], state, camera=Camera(cfa=XTRANS)), (4, 4))
    assert isinstance(small, Frame) and (small.width, small.height) == (4, 3)
    assert small.pixels.mean((1, 2)).tolist() == pytest.approx([0.3, 0.5, 0.2])


@pytest.mark.parametrize(("bits", "size"), [(10, 96 * 144 * 5 // 4), (12, 96 * 144 * 3 // 2)])
def test_packed_raw_gives_what_the_unpacked_gives(bits: int, size: int) -> None:
    numbers = np.random.default_rng(1).integers(0, 256, size, dtype=np.uint8)
    packed = Packed(numbers, 144, 96, "GBRG", bits, black=4)  # type: ignore[arg-type]
    for box in ((72, 48), (48, 48), (36, 24), (18, 12), (9, 6)):
        one, other = reduced(packed, box), reduced(packed.frame(), box)
        assert isinstance(one, Frame) and isinstance(other, Frame)
        assert one.pixels == pytest.approx(other.pixels, abs=1e-2)
        assert np.array_equal(one.camera.black, other.camera.black)  # type: ignore[arg-type]


def test_noise_is_that_of_means() -> None:
    frame = mosaic(16, 16)
    frame = replace(frame, camera=replace(frame.camera, noise_profile=((4e-3, 8e-5),)))
    small = reduced(frame, (4, 4))
    assert isinstance(small, Frame)
    assert small.camera.noise_profile[0] == pytest.approx((1e-3, 2e-5))
    assert small.camera.noise_profile[1] == pytest.approx((5e-4, 1e-5))


def test_finished_pictures_keep_their_type_and_state() -> None:
    for kind in (torch.uint8, torch.uint16, torch.float16, torch.float32):
        pixels = torch.full((3, 40, 60), 1).to(kind)
        frame = Frame(pixels, masks={"clipped": torch.zeros(1, 40, 60, dtype=torch.bool)}, alpha=pixels[:1])
        small = reduced(frame, (30, 30))
        assert isinstance(small, Frame) and small.pixels.dtype == kind and small.state == frame.state
        assert small.pixels.shape == (3, 20, 30) and float(small.pixels.float().mean()) == 1.0
        assert small.alpha is not None and small.alpha.shape == (1, 20, 30)
        assert small.masks["clipped"].dtype == torch.bool and not small.masks["clipped"].any()


def test_a_pixel_of_a_mask_is_not_lost() -> None:
    clipped = torch.zeros(1, 40, 60, dtype=torch.bool)
    clipped[0, 21, 31] = True
    small = reduced(Frame(torch.zeros(3, 40, 60), masks={"clipped": clipped}), (15, 10))
    assert isinstance(small, Frame) and int(small.masks["clipped"].sum()) == 1


def test_turned_and_cropped_pictures_fit_as_they_will_be_seen() -> None:
    frame = rgb_frame(40, 80)
    frame = replace(frame, metadata=replace(frame.metadata, orientation=6, crop=(0, 20, 40, 60)))
    small = reduced(frame, (10, 20))
    assert isinstance(small, Frame)
    upright = small.upright()
    assert (upright.width, upright.height) == (10, 10)
    raw = mosaic(40, 80)
    raw = replace(raw, metadata=replace(raw.metadata, crop=(1, 1, 39, 79)))
    cut = reduced(raw, (80, 40))
    assert isinstance(cut, Frame) and cut.pixels.mean((1, 2)).tolist() == pytest.approx([300, 500, 200])


def test_every_frame_of_a_bracket() -> None:
    bracket = Bracket.of([rgb_frame(32, 48), rgb_frame(32, 48)])
    small = reduced(bracket, (24, 24))
    assert isinstance(small, Bracket) and [(f.width, f.height) for f in small] == [(24, 16)] * 2


def test_a_raw_preview_looks_like_the_picture() -> None:
    frame = rk.read("docs/sample/lake.dng")
    pipeline = rk.Pipeline.load("raw-to-srgb")
    small = pipeline.previewed()(reduced(frame, (160, 160)))  # type: ignore[arg-type]
    full = pipeline(frame)
    assert (small.width, small.height) == fitted(full.width, full.height, (160, 160))
    scaled = reduced(full, (160, 160))
    assert isinstance(scaled, Frame)
    difference = small.pixels - scaled.pixels
    assert abs(float(difference.mean())) < 0.01 and float(difference.abs().mean()) < 0.04
    assert small.state == SHORTHANDS["display-srgb"]


def test_what_cannot_be_reduced_is_one_line() -> None:
    with pytest.raises(InputError, match="at least one pixel; 0x10 has none"):
        reduced(rgb_frame(), (0, 10))
    with pytest.raises(InputError, match="without the pattern of its colours"):
        reduced(Frame(torch.zeros(1, 8, 8), ImageState("bayer", "sensor", "linear", "camera")), (4, 4))
