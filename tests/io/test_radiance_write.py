"""Radiance RGBE written: as other readers see it, values rounded to what a common exponent can say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from restorekit.facts import Metadata
from restorekit.frame import Frame
from restorekit.io import read, write
from restorekit.io.metadata import exif_bytes, photo_tree
from restorekit.io.radiance_write import rounded
from restorekit.state import ImageState

SCENE = ImageState("rgb", "scene", "linear", "bt709")


def light(height: int = 21, width: int = 34) -> torch.Tensor:
    """Twenty stops, each channel for itself."""
    values = np.random.default_rng(6).uniform(-10, 10, (3, height, width)).astype(np.float32)
    return torch.from_numpy(np.exp2(values))


@pytest.mark.parametrize(("height", "width"), [(21, 34), (1, 1), (3, 7), (2, 8), (1, 40000), (5, 300)])
def test_light_comes_back_within_half_a_step_of_the_largest_channel(tmp_path: Path, height: int, width: int) -> None:
    frame = Frame(light(height, width), SCENE)
    write(frame, tmp_path / "a.hdr")
    back = read(tmp_path / "a.hdr")
    assert back.state == SCENE
    error = (back.pixels - frame.pixels).abs() / frame.pixels.amax(0)
    assert error.max() <= 1 / 256
    assert abs(float((back.pixels - frame.pixels).div(frame.pixels.amax(0)).mean())) < 2e-4 or height * width < 500


def test_others_read_the_same(tmp_path: Path) -> None:
    frame = Frame(light(), SCENE)
    write(frame, tmp_path / "a.hdr")
    found = cv2.imread(str(tmp_path / "a.hdr"), cv2.IMREAD_UNCHANGED)
    assert found is not None
    np.testing.assert_array_equal(found[..., ::-1], read(tmp_path / "a.hdr").pixels.permute(1, 2, 0).numpy())


def test_even_areas_are_short(tmp_path: Path) -> None:
    write(Frame(torch.full((3, 400, 600), 0.25), SCENE), tmp_path / "a.hdr")
    assert (tmp_path / "a.hdr").stat().st_size < 400 * 600 * 4 / 20


def test_values_that_rgbe_has_stay_and_others_go_to_the_nearest() -> None:
    values = np.array([[1.0, 0.5, 0.25], [0.75, 0.0, 2.0**-9], [0.999, 0.998, 0.0], [0.9999, 0.1, 0.0]], np.float32)
    wanted = [[1.0, 0.5, 0.25], [0.75, 0.0, 0.0], [256 / 256, 128 * 2 / 256, 0.0], [1.0, 26 / 256 * 1.0, 0.0]]
    found = rounded(values)
    np.testing.assert_array_equal(found[[0, 1]], wanted[:2])
    assert found[2].tolist() == [1.0, 1.0, 0.0], "rounded up into the next power of two, whose steps are twice as large"
    assert found[3].tolist() == [1.0, 13 / 128, 0.0]


def test_what_rgbe_cannot_say() -> None:
    nan, inf = float("nan"), float("inf")
    odd = np.array([[nan, -1, 5], [inf, 1, 1], [-inf, -inf, 0], [1e-33, 0, 0], [nan, nan, nan]], np.float32)
    found = rounded(odd)
    assert found[0].tolist() == [0, 0, 5]
    assert 1e38 < found[1, 0] < np.inf
    assert found[1, 1:].tolist() == [0, 0]
    assert not found[2:].any()


@pytest.mark.parametrize("primaries", ["p3", "bt2020", "adobe-rgb", "prophoto"])
def test_primaries_come_back(tmp_path: Path, primaries: str) -> None:
    frame = Frame(light(), SCENE.changed({"primaries": primaries}))
    write(frame, tmp_path / "a.hdr")
    assert read(tmp_path / "a.hdr").state == frame.state


def test_the_header(tmp_path: Path) -> None:
    from datetime import datetime

    block = exif_bytes(photo_tree(taken=datetime(2024, 2, 29, 23, 59, 58)))
    frame = replace(Frame(light(), SCENE), metadata=Metadata(exif=block, orientation=6))
    write(frame, tmp_path / "a.hdr", software="restorekit 1.2.3")
    lines = (tmp_path / "a.hdr").read_bytes().split(b"\n")
    assert lines[0] == b"#?RADIANCE"
    assert b"SOFTWARE=restorekit 1.2.3" in lines
    assert b"CAPDATE=2024:02:29 23:59:58" in lines
    assert b"EXPOSURE=1" in lines
    assert b"FORMAT=32-bit_rle_rgbe" in lines
    assert b"PRIMARIES=0.64 0.33 0.3 0.6 0.15 0.06 0.3127 0.329" in lines
    assert b"-Y 34 +X 21" in lines, "turned upright"


def test_gray_becomes_rgb_and_alpha_is_left_out(tmp_path: Path) -> None:
    gray = light()[:1]
    write(Frame(gray, SCENE.changed({"layout": "gray"}), alpha=torch.rand(1, 21, 34)), tmp_path / "a.hdr")
    back = read(tmp_path / "a.hdr")
    assert back.alpha is None
    assert torch.equal(back.pixels[0], back.pixels[2])
    torch.testing.assert_close(back.pixels[:1], gray, rtol=1 / 256, atol=0)
