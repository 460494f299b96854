from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from restorekit.errors import StageError
from restorekit.frame import Frame
from restorekit.stages.defringe import Defringe
from restorekit.state import SHORTHANDS, ImageState
from restorekit.testing import StageLaws, rgb_frame

LINEAR = SHORTHANDS["display-linear"]
DARK, BRIGHT = 0.02, 1.0
Plane = NDArray[np.float64]


def frame(*planes: Plane) -> Frame:
    return Frame(torch.from_numpy(np.stack(planes).astype(np.float32)), LINEAR)


def edges() -> Plane:
    """A bright window in a dark wall: a rectangle and a disk, antialiased."""
    picture = np.full((160, 240), DARK)
    cv2.rectangle(picture, (30, 30), (100, 130), BRIGHT, -1)
    cv2.circle(picture, (170, 80), 45, BRIGHT, -1)
    return cv2.GaussianBlur(picture, (0, 0), 0.6)


def fringed(sharp: Plane, sigma_px: float = 2.0) -> Plane:
    """A colour out of focus: the light of the bright side, four times what is clipped, spreads over the dark one."""
    spread = DARK + 4 * (cv2.GaussianBlur(sharp, (0, 0), sigma_px) - DARK)
    return np.maximum(np.minimum(spread, BRIGHT), sharp)


def colourfulness(result: Frame, where: NDArray[np.bool_]) -> float:
    pixels = result.pixels.numpy()
    return float((pixels.max(0) - pixels.min(0))[where].sum())


class TestLaws(StageLaws):
    stages = (Defringe(), Defringe(radius_px=2, edge_ev=0.2), Defringe(purple=0.5, green=0.0))
    frames = (
        rgb_frame(60, 52, state=LINEAR),
        frame(fringed(edges())[:90, :130], edges()[:90, :130], fringed(edges())[:90, :130]),
        frame(edges()[:90, :130], fringed(edges())[:90, :130], edges()[:90, :130]),
    )


class TestFringes:
    @pytest.mark.parametrize("colour", ["purple", "green"])
    def test_more_than_nine_tenths_of_a_fringe_go(self, colour: str) -> None:
        sharp, soft = edges(), fringed(edges())
        picture = frame(soft, sharp, soft) if colour == "purple" else frame(sharp, soft, sharp)
        dark_side = sharp < 0.5
        before = colourfulness(picture, dark_side)
        after = colourfulness(Defringe(radius_px=6)(picture), dark_side)
        assert before > 500
        assert after < 0.1 * before

    def test_a_violet_fringe_becomes_neutral(self) -> None:
        sharp, wide, narrow = edges(), fringed(edges(), 2.0), fringed(edges(), 1.3)
        picture = frame(narrow, sharp, wide)
        dark_side = sharp < 0.5
        before = colourfulness(picture, dark_side)
        assert colourfulness(Defringe(radius_px=6)(picture), dark_side) < 0.3 * before

    def test_the_sharp_channel_stays(self) -> None:
        sharp, soft = edges(), fringed(edges())
        result = Defringe(green=0.0)(frame(soft, sharp, soft)).pixels
        assert torch.equal(result[1], frame(soft, sharp, soft).pixels[1])
        assert bool((result[0] <= frame(soft, sharp, soft).pixels[0] + 1e-6).all())

    def test_amounts(self) -> None:
        sharp, soft = edges(), fringed(edges())
        picture = frame(soft, sharp, soft)
        none, half, full = (Defringe(purple=amount)(picture).pixels for amount in (0.0, 0.5, 1.0))
        assert torch.equal(none, picture.pixels)
        assert float((half - (none + full) / 2).abs().max()) < 1e-5
        assert Defringe(purple=0, green=0).suited(picture) != Defringe(purple=0, green=0)

    def test_the_strength_of_the_edge_counts(self) -> None:
        sharp, soft = edges() * 0.2 + 0.5, fringed(edges()) * 0.2 + 0.5  # less than half a stop
        picture = frame(soft, sharp, soft)
        assert torch.equal(Defringe()(picture).pixels, picture.pixels)
        assert not torch.equal(Defringe(edge_ev=0.1)(picture).pixels, picture.pixels)


class TestWhatStays:
    def test_flat_purple_and_green_stay_to_the_bit(self) -> None:
        rng = np.random.default_rng(0)
        for color in ((0.4, 0.1, 0.6), (0.1, 0.6, 0.15)):
            planes = [value * (1 + 0.02 * rng.standard_normal((80, 80))) for value in color]
            assert torch.equal(Defringe()(frame(*planes)).pixels, frame(*planes).pixels)

    @pytest.mark.parametrize("color", [(0.12, 0.02, 0.2), (0.02, 0.15, 0.03)])
    def test_a_flower_keeps_its_colour_up_to_a_bright_border(self, color: tuple[float, float, float]) -> None:
        planes = [np.full((80, 120), value) for value in color]
        for plane in planes:
            plane[:, 70:] = BRIGHT
        assert float((Defringe()(frame(*planes)).pixels - frame(*planes).pixels).abs().max()) < 1e-6

    @pytest.mark.parametrize("color", [(0.01, 0.01, 0.3), (0.3, 0.01, 0.02), (0.1, 0.2, 0.02), (0.01, 0.2, 0.2)])
    def test_narrow_things_of_other_hues_stay(self, color: tuple[float, float, float]) -> None:
        """Blue ink, red cables, leaves and cyan lines on white paper."""
        planes = [np.full((60, 60), BRIGHT) for _ in range(3)]
        for plane, value in zip(planes, color, strict=True):
            plane[:, 28:32] = value
        assert torch.equal(Defringe()(frame(*planes)).pixels, frame(*planes).pixels)

    def test_lights_are_no_fringes(self) -> None:
        """A thin purple neon tube in the night is the brightest thing around."""
        planes = [np.full((60, 60), 0.01) for _ in range(3)]
        for plane, value in zip(planes, (0.8, 0.3, 1.0), strict=True):
            plane[:, 28:32] = value
        assert torch.equal(Defringe()(frame(*planes)).pixels, frame(*planes).pixels)

    def test_values_that_are_not_finite_do_not_spread(self) -> None:
        sharp, soft = edges(), fringed(edges())
        picture = frame(soft, sharp, soft)
        spoiled = replace(picture, pixels=picture.pixels.clone())
        spoiled.pixels[0, 29, 60], spoiled.pixels[2, 80, 216] = math.nan, math.inf
        result, wanted = Defringe()(spoiled).pixels, Defringe()(picture).pixels
        assert int((~result.isfinite()).sum()) == 2
        far = torch.ones_like(result, dtype=torch.bool)
        far[:, 14:45, 45:76], far[:, 65:96, 200:232] = False, False
        assert torch.equal(result[far], wanted[far])

    def test_camera_colours_are_refused(self) -> None:
        state = ImageState("rgb", "scene", "linear", "camera")
        with pytest.raises(StageError, match=r"add color\.camera_matrix before it"):
            Defringe()(rgb_frame(state=state))
