from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from restorekit.color.transfer import decode, encode
from restorekit.errors import StageError
from restorekit.frame import Bracket, Frame
from restorekit.stages import fusion_extreme
from restorekit.stages.fusion_extreme import Extreme
from restorekit.stages.fusion_plan import Look, Plan, curve
from restorekit.state import ImageState

ENCODED = ImageState("rgb", "display", "srgb", "bt709", "bracket")
LOOK = Look(anchor_ev=-4.0, detail=1.0, edge_ev=1.5)


def shot(light: Tensor, stops: float, noise: float = 0.0) -> Frame:
    """An 8-bit picture of linear light ``[3,H,W]``, exposed by so many stops, with noise in code values."""
    random = torch.Generator().manual_seed(int(stops * 10) + 100)
    codes = encode((light * 2.0**stops).clamp(0, 1), "srgb") * 255
    codes += torch.randn(codes.shape, generator=random) * noise
    return Frame(codes.round().clamp(0, 255).to(torch.uint8), ENCODED)


def room(height: int = 96, width: int = 128) -> Tensor:
    """A room of 0.02 to 0.2 times the white of a frame at 0 stops, with a window of 4 to 300 times that white."""
    y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    light = 0.05 * 2.0 ** (torch.sin(9 * x) + torch.cos(7 * y))
    outside = 35 * 2.0 ** (3 * torch.sin(11 * x + 5 * y))
    window = ((x - 0.6).abs() < 0.25) & ((y - 0.45).abs() < 0.3)
    color = torch.where(window[None], torch.tensor([0.8, 1.0, 1.2])[:, None, None], 1.0)
    return torch.where(window, outside, light)[None] * color


def mask(height: int, width: int, rows: slice, columns: slice) -> Tensor:
    where = torch.zeros(1, height, width, dtype=torch.bool)
    where[:, rows, columns] = True
    return where


def luma(frame: Frame) -> Tensor:
    return frame.pixels.mean(0)


def test_a_canvas_that_clips_nowhere_comes_out_as_it_is() -> None:
    light = room().clamp(max=0.5)
    result = Extreme().combine(Bracket((shot(light, -3), shot(light, 0))))
    assert torch.equal(result.pixels, shot(light, 0).as_float().pixels)


def test_tones_stay_in_order_from_black_to_twelve_stops_above_white() -> None:
    """A ramp of light gives a ramp: nothing that is brighter in the scene turns darker, up to a code or two."""
    light = (2.0 ** torch.linspace(-10, 9, 380)).expand(3, 60, -1)
    result = Extreme().combine(Bracket((shot(light, -9), shot(light, 0))))
    tones = luma(result).mean(0)
    fallen = torch.cummax(tones, 0).values - tones
    assert float(fallen.max()) < 0.015
    assert float(tones[0]) < 0.02
    assert float(tones[-1]) > 0.9


def test_highlights_show_what_the_dark_frame_saw_and_shadows_stay() -> None:
    light = room()
    result = Extreme().combine(Bracket((shot(light, -8), shot(light, 0))))
    window = light[1] > 1
    seen, truth = luma(result)[window], light.mean(0)[window].log2()
    assert float(torch.corrcoef(torch.stack((seen, truth)))[0, 1]) > 0.9
    assert float(seen.max() - seen.min()) > 0.25
    dark = light[1] < 0.04
    changed = (result.pixels - shot(light, 0).as_float().pixels).abs()[:, dark]
    assert float(changed.mean()) < 0.02
    assert float(luma(result)[window].median()) > float(luma(result)[~window].median())


def test_colours_of_highlights_are_those_of_the_dark_frame() -> None:
    light = room(96, 128)
    tinted = torch.where(light[1] > 1, torch.tensor([1.0, 0.6, 0.3])[:, None, None] * light[1], light)
    result = Extreme().combine(Bracket((shot(tinted, -8), shot(tinted, 0))))
    inside = decode(result.pixels, "srgb")[:, 35:52, 60:90].flatten(1).mean(1)
    assert inside.tolist() == sorted(inside.tolist(), reverse=True)
    assert float(inside[1] / inside[0]) < 0.8


def test_noise_of_the_dark_frame_is_not_amplified() -> None:
    light = torch.full((3, 80, 100), 0.1)
    light[:, :, 30:] = 3.0
    frames = Bracket((shot(light, -8, noise=1.0), shot(light, 0)))
    smooth, rough = (Extreme(smoothing=s).combine(frames).pixels[:, 10:70, 45:90] for s in (1.0, 0.0))
    assert float(smooth.std()) < 0.4 * float(rough.std())


@pytest.mark.parametrize("name", ["outside", "motion"])
def test_what_the_dark_frame_must_not_show_is_filled_in(name: str) -> None:
    """Whatever stands in the masked part of the dark frame, the result is the same, and like its surroundings."""
    light = torch.full((3, 80, 100), 0.1)
    light[:, 10:70, 20:90] = 20.0
    dark, bright = shot(light, -7), shot(light, 0)
    hole = mask(80, 100, slice(30, 50), slice(40, 60))
    results = []
    for code in (0, 255):
        pixels = torch.where(hole, torch.tensor(code, dtype=torch.uint8), dark.pixels)
        changed = replace(dark, pixels=pixels, masks={name: hole})
        results.append(Extreme().combine(Bracket((changed, bright))))
    assert torch.allclose(results[0].pixels, results[1].pixels, atol=0.02)
    whole = Extreme().combine(Bracket((dark, bright)))
    assert float((results[0].pixels - whole.pixels).abs()[:, 20:60, 30:80].max()) < 0.04
    assert not results[0].masks


def test_something_dark_that_only_the_dark_frame_shows_is_left_out() -> None:
    light = torch.full((3, 80, 100), 0.1)
    light[:, 10:70, 20:90] = 20.0
    passing = light.clone()
    passing[:, 30:50, 45:60] = 0.02
    result = luma(Extreme().combine(Bracket((shot(passing, -5), shot(light, 0)))))
    assert float((result[32:48, 47:58] - result[20, 40]).abs().max()) < 0.08


def test_a_masked_canvas_is_replaced_by_the_reference() -> None:
    """Of three frames the middle one is the reference; where the brightest may not be used its content is gone."""
    light = room()
    hole = mask(96, 128, slice(70, 88), slice(10, 40))
    bright = shot(light, 2)
    results = []
    for code in (0, 255):
        pixels = torch.where(hole, torch.tensor(code, dtype=torch.uint8), bright.pixels)
        masked = replace(bright, pixels=pixels, masks={"motion": hole})
        results.append(Extreme().combine(Bracket((shot(light, -6), shot(light, -1), masked))).pixels)
    part = (slice(None), slice(72, 86), slice(12, 38))
    assert torch.allclose(results[0][part], results[1][part], atol=0.05)
    whole = Extreme().combine(Bracket((shot(light, -6), shot(light, -1), bright))).pixels
    assert float((results[0] - whole)[part].abs().mean()) < 0.08


def test_the_exposure_is_found_by_histograms() -> None:
    light = room()
    pair = (shot(light, -4), shot(light, 1))
    assert Plan.made(pair, 1, LOOK).ev == pytest.approx(5, abs=0.3)


def test_the_curve_never_falls_and_leaves_darks_alone() -> None:
    random = torch.Generator().manual_seed(0)
    base = torch.cat((torch.randn(4000, generator=random) - 3, torch.randn(3000, generator=random) + 6))
    points, tones = curve(base[None], -4.0)
    slopes = np.diff(tones) / np.diff(points)
    assert slopes.min() > 0
    assert slopes.max() <= 1 + 1e-6
    assert np.abs(tones - points)[points < -5.5].max() < 1e-2
    assert tones[-1] == pytest.approx(0, abs=0.01)
    everything_fits = curve(torch.full((1, 50), -2.0), -4.0)
    assert np.allclose(*everything_fits, atol=1e-6)


def test_order_and_height_of_strips_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    light = room()
    frames = (shot(light, -8, noise=0.5), shot(light, 0))
    one = Extreme().combine(Bracket(frames)).pixels
    assert torch.equal(Extreme().combine(Bracket(frames[::-1])).pixels, one)
    monkeypatch.setattr(fusion_extreme, "STRIP_PIXELS", 128 * 7)
    assert torch.allclose(Extreme().combine(Bracket(frames)).pixels, one, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (2, 3), (8, 8), (33, 1)])
def test_sizes(size: tuple[int, int]) -> None:
    light = torch.full((3, *size), 2.0)
    result = Extreme().combine(Bracket((shot(light, -6), shot(light, 0))))
    assert result.pixels.shape == (3, *size)
    assert bool(result.pixels.isfinite().all())


def test_storage_types_and_damage() -> None:
    light = room()
    frames = [shot(light, -8), shot(light, 0)]
    wanted = Extreme().combine(Bracket(tuple(frames))).pixels
    before = [frame.pixels.clone() for frame in frames]
    floats = [frame.as_float() for frame in frames]
    got = Extreme(smoothing=1).combine(Bracket(tuple(floats))).pixels
    assert float((got - wanted).abs().mean()) < 0.02
    damaged = floats[0].pixels.clone()
    damaged[:, 40:44, 70:74], damaged[0, 5, 5], damaged[1, 6, 6] = torch.nan, torch.inf, -5.0
    unclamped = floats[1].with_pixels(floats[1].pixels * 1.2 - 0.1)
    kept = unclamped.pixels.clone()
    result = Extreme().combine(Bracket((floats[0].with_pixels(damaged), unclamped)))
    assert torch.equal(unclamped.pixels, kept)
    assert bool(result.pixels.isfinite().all())
    assert result.notes == ("fusion.extreme left out pixels that are no numbers",)
    assert all(torch.equal(frame.pixels, pixels) for frame, pixels in zip(frames, before, strict=True))
    black = Frame(torch.zeros(3, 20, 20), ENCODED)
    assert float(Extreme().combine(Bracket((black, black))).pixels.max()) == 0


def test_what_the_result_keeps() -> None:
    light = room()
    alpha = torch.full((1, 96, 128), 0.5)
    dark, bright = (replace(shot(light, ev), alpha=alpha).with_note(f"{ev}") for ev in (-8, 0))
    result = Extreme().combine(Bracket((dark, bright)))
    assert result.state == ENCODED.changed({"frames": "single"})
    assert result.notes == ("-8", "0")
    assert result.alpha is alpha
    assert result.pixels.dtype == torch.float32
    assert float(result.pixels.min()) >= 0
    assert float(result.pixels.max()) <= 1
    with pytest.raises(StageError, match=r"fusion\.extreme needs at least two exposures"):
        Extreme().combine(Bracket((dark,)))
