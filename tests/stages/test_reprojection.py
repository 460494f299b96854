"""Frames resampled onto another: where pixels come from, what is marked, what stays exactly as it was."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from restorekit.facts import Facts, Matrix, Metadata
from restorekit.frame import Frame
from restorekit.stages import reprojection
from restorekit.stages.pose import corners, projected
from restorekit.stages.reprojection import Window, common_window, cropped_metadata, reprojected
from restorekit.state import SHORTHANDS
from restorekit.testing import Scene, coded, mosaicked

HEIGHT, WIDTH = 120, 150
WHOLE = Window(0, 0, HEIGHT, WIDTH)
LINEAR = SHORTHANDS["scene-linear"]
TURNED = np.array([[0.9997, -0.021, 3.4], [0.0212, 0.9995, -2.7], [2e-5, -1e-5, 1.0]])
PATTERNS = ("RGGB", "GRBG", "GBRG", "BGGR")


def shifted(dx: float, dy: float) -> Matrix:
    return np.array([[1, 0, dx], [0, 1, dy], [0, 0, 1]], dtype=np.float64)


@cache
def scene() -> Scene:
    return Scene(HEIGHT, WIDTH)


def dots(points: np.ndarray) -> torch.Tensor:
    """``[1,H,W]`` black with a soft dot of light around each point (x, y)."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    light = sum(np.exp(-((x - px) ** 2 + (y - py) ** 2) / 8) for px, py in points)
    return torch.from_numpy(np.asarray(light, dtype=np.float32))[None]


def center(plane: torch.Tensor, around: np.ndarray) -> np.ndarray:
    """The center of gravity (x, y) of the light near a place."""
    x0, y0 = (int(v) - 6 for v in np.rint(around))
    part = plane[y0 : y0 + 13, x0 : x0 + 13].double().numpy()
    y, x = np.mgrid[y0 : y0 + 13, x0 : x0 + 13]
    return np.array([(part * x).sum(), (part * y).sum()]) / part.sum()


def test_the_alignment_says_where_every_pixel_was_shot() -> None:
    """Dots in the frame as it was shot are found, in the result, where the inverse of the fact says."""
    points = np.array([[30.0, 25.0], [110.25, 40.5], [60.5, 90.75], [125.0, 95.0]])
    frame = Frame(dots(points).expand(3, -1, -1).clone(), LINEAR)
    window = Window(6, 8, 110, 140)
    result = reprojected(frame, TURNED, window)
    assert result.pixels.shape == (3, *window.size)
    alignment = result.facts.alignment
    assert alignment is not None and alignment[2, 2] == 1
    for point, place in zip(points, projected(np.linalg.inv(alignment), points), strict=True):
        found = center(result.pixels[0], place)
        np.testing.assert_allclose(found, place, atol=0.05)
        np.testing.assert_allclose(projected(alignment, found[None])[0], point, atol=0.05)
        np.testing.assert_allclose(projected(TURNED, found[None] + (window.left, window.top))[0], point, atol=0.05)


@pytest.mark.parametrize("kind", [torch.uint8, torch.uint16, torch.float16, torch.float32])
@pytest.mark.parametrize("planar", [True, False])
def test_types_stay_and_values_are_those_of_the_scene(kind: torch.dtype, planar: bool) -> None:
    light = scene().light(TURNED).clamp(max=1)
    most = 1 if kind.is_floating_point else torch.iinfo(kind).max
    stored = (light * most if most == 1 else (light * most).round()).to(kind)
    if not planar:
        stored = stored.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    state = LINEAR if most == 1 else SHORTHANDS["display-linear"]
    result = reprojected(Frame(stored, state), TURNED, WHOLE)
    assert result.pixels.dtype == kind
    error = (result.as_float().pixels - scene().light().clamp(max=1))[:, 8:-8, 8:-8].abs()
    assert float(error.mean()) < 0.004 and float(error.quantile(0.99)) < 0.02


def test_light_above_white_and_below_black_is_kept() -> None:
    frame = Frame(scene().light(TURNED) * 40 - 8, LINEAR)
    error = (reprojected(frame, TURNED, WHOLE).pixels - (scene().light() * 40 - 8))[:, 8:-8, 8:-8].abs()
    assert bool((frame.pixels > 10).any()) and bool((frame.pixels < -1).any())
    assert float(error.mean()) < 0.15


@pytest.mark.parametrize("pattern", PATTERNS)
def test_mosaics_keep_the_phase_of_their_pattern(pattern: str) -> None:
    """Every photosite of the result shows its own colour of the scene as the reference frame would."""
    frame = mosaicked(scene().light(TURNED).clamp(max=1), pattern)
    window = Window(4, 6, HEIGHT - 4, WIDTH - 6)
    result = reprojected(frame, TURNED, window)
    truth = mosaicked(scene().light().clamp(max=1), pattern).pixels[:, 4:-4, 6:-6]
    assert result.camera.cfa == frame.camera.cfa and result.pixels.shape == truth.shape
    error = (result.pixels - truth)[0, 4:-4, 4:-4].abs()
    for row in (0, 1):
        for column in (0, 1):
            photosites = error[row::2, column::2]
            assert float(photosites.mean()) < 0.006, f"{pattern} {row} {column}"
            assert float(photosites.quantile(0.99)) < 0.05


def test_mosaics_do_not_depend_on_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = mosaicked(scene().shot(TURNED))
    whole = reprojected(frame, TURNED, WHOLE).pixels
    monkeypatch.setattr(reprojection, "STRIP_ROWS", 16)
    assert torch.allclose(reprojected(frame, TURNED, WHOLE).pixels, whole, atol=2e-3)


@pytest.mark.parametrize("size", [(2, 2), (2, 9), (5, 3), (7, 7)])
def test_tiny_mosaics_and_odd_sizes(size: tuple[int, int]) -> None:
    frame = mosaicked(torch.full((3, *size), 0.5))
    result = reprojected(frame, shifted(0.4, -0.3), Window(0, 0, *size))
    assert torch.allclose(result.pixels, frame.pixels, atol=1e-3)


@pytest.mark.parametrize(("dx", "dy"), [(3, -2), (-5, 7), (0, 4)])
def test_whole_shifts_move_the_very_values(dx: int, dy: int) -> None:
    for kind in (torch.uint8, torch.uint16, torch.float16, torch.float32):
        pixels = (scene().shot() * 200).to(kind)
        pixels[0, 40, 40] = 77
        marks = pixels.to(torch.float32) > 150
        frame = Frame(pixels, alpha=pixels[:1].float() / 255, masks={"clipped": marks, "mine": marks[:1]})
        result = reprojected(frame, shifted(dx, dy), WHOLE)
        rows = np.clip(np.arange(HEIGHT) + dy, 0, HEIGHT - 1)
        columns = np.clip(np.arange(WIDTH) + dx, 0, WIDTH - 1)
        wanted = pixels.numpy()[:, rows][:, :, columns]
        np.testing.assert_array_equal(result.pixels.numpy(), wanted)
        assert result.alpha is not None
        np.testing.assert_array_equal(result.alpha.numpy(), wanted[:1].astype(np.float32) / 255)
        np.testing.assert_array_equal(result.masks["clipped"].numpy(), marks.numpy()[:, rows][:, :, columns])


def test_whole_shifts_of_mosaics_are_even_ones() -> None:
    frame = mosaicked(scene().shot())
    even = reprojected(frame, shifted(4, -2), Window(2, 0, HEIGHT, WIDTH - 4))
    assert torch.equal(even.pixels, frame.pixels[:, :-2, 4:])
    odd = reprojected(frame, shifted(3, 0), Window(0, 0, HEIGHT, WIDTH - 4))
    assert not torch.equal(odd.pixels, frame.pixels[:, :, 3:-1]), "an odd shift would give each site another's colour"


@pytest.mark.parametrize("pose", [TURNED, shifted(5, 0), shifted(-2.5, 3.5)], ids=["turn", "whole", "half"])
@pytest.mark.parametrize("mosaic", [False, True])
def test_outside_is_where_the_frame_has_no_data_and_nowhere_else(pose: Matrix, mosaic: bool) -> None:
    light = scene().light(pose).clamp(max=1)
    frame = mosaicked(light) if mosaic else Frame(light, LINEAR)
    result = reprojected(frame, pose, WHOLE)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    at = projected(pose, np.stack((x.ravel(), y.ravel()), -1).astype(np.float64))
    beyond = np.maximum(np.maximum(-at, at - (WIDTH - 1, HEIGHT - 1)).max(1), -10).reshape(HEIGHT, WIDTH)
    outside = result.masks["outside"][0].numpy()
    assert outside[beyond > 0.05].all(), "what was not seen is marked"
    assert not outside[beyond < -0.05].any(), "what was seen is not"
    edge = torch.from_numpy(outside)
    assert bool(result.pixels.isfinite().all()) and float(result.pixels[:, edge].max()) <= 1.5, "edges are repeated"


def test_no_mask_where_nothing_is_outside() -> None:
    frame = Frame(scene().light(), LINEAR)
    for pose in (np.eye(3), shifted(2.5, -3.25), TURNED):
        assert "outside" not in reprojected(frame, pose, Window(20, 20, 90, 120)).masks
    assert "outside" not in reprojected(frame, shifted(4, 2), Window(0, 0, HEIGHT - 2, WIDTH - 4)).masks
    assert "outside" in reprojected(frame, shifted(4, 2), Window(0, 0, HEIGHT - 2, WIDTH - 3)).masks


def test_frames_may_be_aligned_twice() -> None:
    """The mask of the first time goes along and the new one is added to it; the way back is that of both."""
    first = reprojected(Frame(scene().light(), LINEAR), shifted(6, 0), Window(2, 3, HEIGHT, WIDTH))
    for pose in (shifted(0, 5), shifted(0.5, 4.5), TURNED):
        second = reprojected(first, pose, Window(0, 0, first.height, first.width))
        assert second.facts.alignment is not None
        np.testing.assert_allclose(second.facts.alignment, shifted(9, 2) @ pose, atol=1e-9)
        y, x = np.mgrid[0 : second.height, 0 : second.width]
        at = projected(second.facts.alignment, np.stack((x.ravel(), y.ravel()), -1).astype(np.float64))
        seen = ((at > 1) & (at < (WIDTH - 2, HEIGHT - 2))).all(1) & (x.ravel() < first.width - 8)
        unseen = ((at < -1) | (at > (WIDTH, HEIGHT))).any(1)
        marks = second.masks["outside"][0].numpy().ravel()
        assert marks[unseen].all() and unseen.any()
        assert not marks[seen & (y.ravel() > 4) & (y.ravel() < second.height - 8) & (x.ravel() > 4)].any()


@pytest.mark.parametrize("mosaic", [False, True])
def test_what_clips_spoils_all_that_it_is_mixed_into(mosaic: bool) -> None:
    """Pixels that a clipped one changes are marked; the mask is no larger than interpolation is."""
    light = scene().light(TURNED).clamp(max=0.8)
    frame = mosaicked(light) if mosaic else Frame(light, LINEAR)
    burnt = torch.zeros_like(frame.pixels, dtype=torch.bool)
    burnt[:, 50:53, 70:72] = True
    frame = replace(frame, masks={"clipped": burnt, "mine": burnt[:1]})
    other = frame.with_pixels(torch.where(burnt, frame.pixels + 0.5, frame.pixels))
    result, changed = reprojected(frame, TURNED, WHOLE), reprojected(other, TURNED, WHOLE)
    spoilt = (result.pixels - changed.pixels).abs() > 0.01
    assert bool(spoilt.any()) and not bool((spoilt & ~result.masks["clipped"]).any())
    assert int(result.masks["clipped"][0].sum()) < 14 * 14
    assert 1 < int(result.masks["mine"].sum()) <= 20, "other masks do not grow"
    y, x = np.argwhere(result.masks["mine"][0].numpy()).mean(0)
    np.testing.assert_allclose(projected(TURNED, np.array([[x, y]]))[0], (70.5, 51), atol=0.6)


def test_alpha_goes_along() -> None:
    alpha = dots(np.array([[60.0, 50.0]]))
    result = reprojected(Frame(scene().light(), LINEAR, alpha=alpha), TURNED, WHOLE)
    assert result.alpha is not None and result.alpha.dtype == torch.float32
    place = projected(np.linalg.inv(TURNED), np.array([[60.0, 50.0]]))[0]
    np.testing.assert_allclose(center(result.alpha[0], place), place, atol=0.05)
    opaque = torch.full((1, HEIGHT, WIDTH), 255, dtype=torch.uint8)
    result = reprojected(Frame(scene().light(), LINEAR, alpha=opaque), TURNED, WHOLE)
    assert result.alpha is not None and torch.equal(result.alpha, opaque)


@pytest.mark.parametrize("step", [1, 2])
def test_the_common_window_is_seen_by_all_and_could_not_be_larger(step: int) -> None:
    poses = [np.eye(3), TURNED, shifted(-4.5, 6.25)]
    window = common_window(HEIGHT, WIDTH, poses, step)
    assert window is not None
    for edge in (window.top, window.left, window.bottom, window.right):
        assert edge % step == 0

    def seen(window: Window) -> bool:
        ends = projected(window.shift, corners(*window.size))
        everywhere = np.concatenate([projected(pose, ends) for pose in poses])
        return bool((everywhere >= -1e-6).all() and (everywhere <= (WIDTH - 1, HEIGHT - 1)).all())

    assert seen(window)
    top, left, bottom, right = window.top, window.left, window.bottom, window.right
    assert not seen(Window(top - step, left - step, bottom + step, right + step))
    assert not seen(Window(top - step, left, bottom, right)) or not seen(Window(top, left, bottom + step, right))


def test_no_window_where_hardly_anything_is_common() -> None:
    assert common_window(HEIGHT, WIDTH, [shifted(WIDTH * 0.95, 0)]) is None
    assert common_window(HEIGHT, WIDTH, [shifted(WIDTH * 2, HEIGHT * 2)]) is None
    assert common_window(1, 1, [np.eye(3)]) == Window(0, 0, 1, 1)
    assert common_window(HEIGHT, WIDTH, [np.eye(3)]) == WHOLE
    assert common_window(7, 9, [np.eye(3)], 2) == Window(0, 0, 6, 8)


def test_the_crop_that_is_still_to_be_done_moves_along() -> None:
    metadata = Metadata(crop=(10, 12, 100, 140), orientation=6)
    frame = Frame(scene().light(), LINEAR, metadata=metadata)
    window = Window(4, 20, 110, 130)
    moved = cropped_metadata(frame, window)
    assert moved.crop == (6, 0, 96, 110) and moved.orientation == 6
    assert reprojected(frame, np.eye(3), window).metadata.crop == moved.crop
    kept = reprojected(frame, np.eye(3), window).pixels[:, 6:96, 0:110]
    assert torch.equal(kept, frame.pixels[:, 10:100, 20:130]), "what the crop and the window have in common"
    assert reprojected(replace(frame, metadata=Metadata()), np.eye(3), window).metadata.crop is None


def test_other_facts_stay() -> None:
    facts = Facts(clip_level=(0.9,), noise=((1e-4, 1e-6),), exposure_gain=(2.0,))
    result = reprojected(Frame(scene().light(), LINEAR, facts=facts), TURNED, WHOLE).facts
    assert (result.clip_level, result.noise, result.exposure_gain) == (facts.clip_level, facts.noise, (2.0,))


@pytest.mark.parametrize("pose", [TURNED, shifted(3, 2)])
def test_the_input_stays_as_it_was(pose: Matrix) -> None:
    frame = replace(coded(scene().shot()), masks={"clipped": torch.zeros(3, HEIGHT, WIDTH, dtype=torch.bool)})
    before = frame.pixels.clone()
    reprojected(frame, pose, WHOLE)
    assert torch.equal(frame.pixels, before) and not bool(frame.masks["clipped"].any())
    assert frame.facts.alignment is None and set(frame.masks) == {"clipped"}


def test_pixels_that_are_no_numbers_do_not_spread() -> None:
    """They spoil what is mixed from them, not whole rows."""
    light = scene().light(TURNED)
    light[:, 60, 70] = torch.nan
    light[:, 20, 30] = torch.inf
    for frame in (Frame(light, LINEAR), Frame(light.half(), LINEAR), mosaicked(light)):
        result = reprojected(frame, TURNED, WHOLE)
        assert int((~result.pixels.isfinite()).any(0).sum()) < 500
