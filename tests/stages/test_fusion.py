from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from restorekit.errors import StageError
from restorekit.facts import Exposure, Facts, Metadata
from restorekit.frame import Bracket, Frame
from restorekit.stages.fusion import Mertens, Preset
from restorekit.stages.pyramid import Layers
from restorekit.state import ImageState
from restorekit.testing import rgb_frame

ENCODED = ImageState("rgb", "display", "srgb", "bt709", "bracket")


def bracket(height: int = 90, width: int = 70, exposures: tuple[float, ...] = (0.4, 1.0, 2.5)) -> Bracket:
    """8-bit frames of one synthetic scene."""
    scene = rgb_frame(height, width, peak=0.7).pixels
    codes = [((scene * gain).clamp(0, 1) * 255).round().to(torch.uint8) for gain in exposures]
    times = [Exposure(time_s=0.01 * gain) for gain in exposures]
    frames = zip(codes, times, strict=True)
    return Bracket(tuple(Frame(c, ENCODED, exposure=t, source=Path(f"f{t.time_s}.jpg")) for c, t in frames))


def masked(frames: Bracket) -> Bracket:
    """The same with a part of the first frame outside, a part of the last moving."""
    first, *others, last = frames
    outside, motion = (torch.zeros(1, first.height, first.width, dtype=torch.bool) for _ in range(2))
    outside[:, :9], motion[:, 20:50, 31:44] = True, True
    return Bracket((replace(first, masks={"outside": outside}), *others, replace(last, masks={"motion": motion})))


def from_files(folder: Path) -> tuple[Bracket, list[np.ndarray]]:
    images = [cv2.imread(str(path)) for path in sorted(folder.iterdir())]
    frames = [Frame(torch.from_numpy(image[:, :, ::-1].transpose(2, 0, 1).copy()), ENCODED) for image in images]
    return Bracket(tuple(frames)), images


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((a - b) ** 2)))


@pytest.mark.parametrize("name", ["jamyl_house", "jamyl_lighthouse"])
def test_real_brackets_come_out_as_opencvs(shared_data: Path, name: str) -> None:
    frames, images = from_files(shared_data / "brackets" / name)
    wanted = np.clip(cv2.createMergeMertens(1, 1, 1).process(images)[:, :, ::-1], 0, 1)
    result = Mertens().combine(frames)
    assert isinstance(result, Frame)
    assert psnr(result.pixels.permute(1, 2, 0).numpy(), wanted) > 40


def test_exponents_are_opencvs() -> None:
    frames = bracket()
    images = [frame.pixels.permute(1, 2, 0).numpy()[:, :, ::-1] for frame in frames]
    for exponents in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (0.5, 2, 1)):
        contrast, saturation, exposedness = exponents
        stage = Mertens(contrast=contrast, saturation=saturation, exposedness=exposedness)
        wanted = np.clip(cv2.createMergeMertens(*exponents).process(images)[:, :, ::-1], 0, 1)
        assert psnr(stage.combine(frames).pixels.permute(1, 2, 0).numpy(), wanted) > 33


def test_the_height_of_strips_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = masked(bracket(91, 67))
    whole = Mertens().combine(frames).pixels
    for rows in (2, 16, 34):
        cut = [(top, min(top + rows, 91)) for top in range(0, 91, rows)]
        monkeypatch.setattr(
            Layers, "strips", lambda layers, cut=cut: cut if layers.height == 91 else [(0, layers.height)]
        )
        assert torch.allclose(Mertens().combine(frames).pixels, whole, atol=1e-6)


def test_equal_frames_give_that_frame() -> None:
    one = bracket().reference
    result = Mertens().combine(Bracket((one, one, one)))
    assert torch.allclose(result.pixels, one.as_float().pixels, atol=1e-5)


@pytest.mark.parametrize(("exponent", "sigma"), [(1.0, 0.2), (0.5, 0.2), (1.0, 0.4)])
def test_well_exposed_frames_weigh_more(exponent: float, sigma: float) -> None:
    """Of flat frames only the exposedness differs: exp(-3 (v - 0.5)^2 / (2 sigma^2)) to the exponent."""
    frames = Bracket(tuple(Frame(torch.full((3, 20, 30), value), ENCODED) for value in (0.1, 0.5, 0.8)))
    result = Mertens(contrast=0, saturation=0, exposedness=exponent, sigma=sigma).combine(frames).pixels
    values = np.array([0.1, 0.5, 0.8])
    weights = np.exp(-3 * (values - 0.5) ** 2 / (2 * sigma**2)) ** exponent
    assert result.flatten().tolist() == pytest.approx([(weights * values).sum() / weights.sum()] * 1800, abs=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (2, 3), (33, 1), (5, 5)])
def test_sizes(size: tuple[int, int]) -> None:
    frames = bracket(*size)
    result = Mertens().combine(frames)
    assert result.pixels.shape == (3, *size)
    assert bool(result.pixels.isfinite().all())


def test_gray_scenes_stay_neutral_and_in_range() -> None:
    gray = torch.linspace(0, 1, 80).expand(3, 60, -1)
    frames = Bracket(tuple(Frame((gray * gain).clamp(0, 1), ENCODED) for gain in (0.5, 1.0, 2.0)))
    result = Mertens().combine(frames).pixels
    assert float((result[0] - result[2]).abs().max()) < 1e-5
    assert float(result.min()) >= 0
    assert float(result.max()) <= 1


def test_what_the_result_keeps() -> None:
    frames = bracket()
    marked = [replace(f, facts=Facts(scale=2.0)).with_note(f"note {k}") for k, f in enumerate(frames)]
    result = Mertens().combine(Bracket(tuple(marked)))
    assert result.exposure == frames.reference.exposure
    assert result.source == frames.reference.source
    assert result.notes == ("note 0", "note 1", "note 2")
    assert result.facts.scale == 1
    assert result.state == ENCODED.changed({"frames": "single"})
    assert result.pixels.dtype == torch.float32


def test_frames_are_turned_upright() -> None:
    turned = Bracket(tuple(replace(frame, metadata=Metadata(orientation=6)) for frame in bracket()))
    result = Mertens().combine(turned)
    assert result.pixels.shape == (3, 70, 90)
    assert result.metadata.orientation == 1
    assert torch.allclose(result.pixels, Mertens().combine(bracket()).pixels.rot90(-1, (1, 2)), atol=0.05)


def test_frames_that_do_not_fit_are_named_with_the_cure() -> None:
    frames = bracket().frames
    small = replace(bracket(80, 70).frames[0], source=Path("small.jpg"))
    with pytest.raises(StageError, match=r"small\.jpg: is 70x80, .* is 70x90.*out of the bracket"):
        Mertens().combine(Bracket((*frames, small)))
    other = replace(frames[0], source=Path("wide.jpg"), state=ENCODED.changed({"primaries": "p3"}))
    with pytest.raises(StageError, match=r"wide\.jpg: is rgb-display-srgb-p3"):
        Mertens().combine(Bracket((*frames, other)))
    with pytest.raises(StageError, match="at least two exposures"):
        Mertens().combine(Bracket(frames[:1]))
    linear = tuple(replace(frame, state=ENCODED.changed({"transfer": "linear"})) for frame in frames)
    with pytest.raises(StageError, match=r"color\.encode"):
        Mertens().combine(Bracket(linear))


def test_a_single_frame_is_refused() -> None:
    with pytest.raises(StageError, match="cannot work on a single frame"):
        Mertens()(bracket().reference)


def test_colours_outside_the_gamut_stay_outside() -> None:
    """Equal frames of Display P3's colours in sRGB come out as they are."""
    outside = torch.tensor([-0.5, 1.02, -0.3])[:, None, None].expand(3, 40, 30).contiguous()
    result = Mertens().combine(Bracket((Frame(outside, ENCODED), Frame(outside, ENCODED))))
    assert torch.allclose(result.pixels, outside, atol=1e-5)


def test_presets_are_what_the_programs_do_by_themselves() -> None:
    frames = bracket()
    assert torch.equal(Mertens().combine(frames).pixels, Mertens(preset="paper").combine(frames).pixels)
    images = [frame.pixels.permute(1, 2, 0).numpy()[:, :, ::-1] for frame in frames]
    wanted = np.clip(cv2.createMergeMertens().process(images)[:, :, ::-1], 0, 1)
    assert psnr(Mertens(preset="opencv").combine(frames).pixels.permute(1, 2, 0).numpy(), wanted) > 33


@pytest.mark.parametrize(
    ("exposedness", "saturation", "color", "wanted"),
    [
        (1.0, 0.0, (0.7, 0.7, 0.7), (0.54623, 0.54623, 0.54623)),
        (None, None, (0.7, 0.5, 0.3), (0.58175, 0.47636, 0.37095)),
        (None, None, (0.9, 0.8, 0.2), (0.67349, 0.62382, 0.32584)),
        (1.0, 1.0, (0.9, 0.8, 0.2), (0.72882, 0.66685, 0.29511)),
    ],
)
def test_flat_frames_come_out_as_enfuses(
    exposedness: float | None,
    saturation: float | None,
    color: tuple[float, float, float],
    wanted: tuple[float, float, float],
) -> None:
    """What enfuse 4.2 made of a flat frame of this colour and one of 0.45 (16 bits)."""
    flat = [torch.tensor(each)[:, None, None].expand(3, 24, 24) for each in (color, (0.45, 0.45, 0.45))]
    stage = Mertens(preset="enfuse", exposedness=exposedness, saturation=saturation)
    result = stage.combine(Bracket(tuple(Frame(each, ENCODED) for each in flat))).pixels
    assert result[:, 12, 12].tolist() == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("preset", ["paper", "enfuse", "opencv"])
def test_parameters_override_the_preset(preset: Preset) -> None:
    assert Mertens(preset=preset, saturation=0.7, optimum=0.4).weights == replace(
        Mertens(preset=preset).weights, saturation=0.7, optimum=0.4
    )
    assert Mertens(preset=preset, contrast=0, saturation=0, exposedness=0).weights.exposedness == 0


def test_the_optimum_is_what_weighs_most() -> None:
    frames = Bracket(tuple(Frame(torch.full((3, 16, 16), value), ENCODED) for value in (0.3, 0.7)))
    assert float(Mertens(contrast=0, saturation=0, optimum=0.3).combine(frames).pixels.mean()) < 0.35
    assert float(Mertens(contrast=0, saturation=0, optimum=0.7).combine(frames).pixels.mean()) > 0.65


@pytest.mark.parametrize("mask", ["outside", "motion"])
def test_nothing_of_a_masked_part_is_seen(mask: str) -> None:
    """Whatever stands in the masked part of a frame, the result is the same, beside the part too."""
    frames = list(bracket())
    where = torch.zeros(1, 90, 70, dtype=torch.bool)
    where[:, 30:61, 22:49] = True
    results = []
    for code in (0, 255):
        pixels = frames[2].pixels.clone()
        pixels[where.expand(3, -1, -1)] = code
        changed = replace(frames[2], pixels=pixels, masks={mask: where})
        results.append(Mertens(contrast=0).combine(Bracket((*frames[:2], changed))))
    assert torch.allclose(results[0].pixels, results[1].pixels, atol=2e-3)
    assert not results[0].masks


def test_a_masked_part_leaves_no_seam() -> None:
    """Equal frames, one of them partly masked: the result is that frame, there and around."""
    one = bracket().reference
    where = torch.zeros(1, 90, 70, dtype=torch.bool)
    where[:, 30:61, 22:49] = True
    black = replace(one, pixels=torch.where(where, 0, one.pixels).to(torch.uint8), masks={"motion": where})
    result = Mertens().combine(Bracket((black, one, one))).pixels
    assert float((result - one.as_float().pixels).abs().max()) < 0.02


def test_where_every_frame_is_masked_the_reference_is_used() -> None:
    everywhere = torch.ones(1, 90, 70, dtype=torch.bool)
    frames = Bracket(tuple(replace(frame, masks={"outside": everywhere}) for frame in bracket()))
    assert torch.allclose(Mertens().combine(frames).pixels, frames.reference.as_float().pixels, atol=1e-5)


def test_what_is_no_number_is_left_out() -> None:
    frames = [frame.as_float() for frame in bracket()]
    damaged = frames[0].pixels.clone()
    damaged[0, 10:14, 10:14], damaged[1, 40, 40], damaged[2, 50, 50] = torch.nan, torch.inf, -torch.inf
    result = Mertens().combine(Bracket((frames[0].with_pixels(damaged), *frames[1:])))
    assert bool(result.pixels.isfinite().all())
    assert result.notes == ("fusion.mertens left out pixels that are no numbers",)
    assert float((result.pixels - Mertens().combine(Bracket(tuple(frames))).pixels).abs().median()) < 1e-3
    nothing = Frame(torch.full((3, 8, 8), torch.nan), ENCODED)
    assert bool(Mertens().combine(Bracket((nothing, nothing))).pixels.isfinite().all())


@pytest.mark.parametrize("kind", [torch.uint16, torch.float16, torch.float32])
def test_storage_types_give_the_same(kind: torch.dtype) -> None:
    frames = bracket()
    scale = 257 if kind == torch.uint16 else 1 / 255
    others = [replace(f, pixels=(f.pixels.to(torch.float64) * scale).to(kind)) for f in frames]
    woven = [replace(f, pixels=f.pixels.permute(1, 2, 0).contiguous().permute(2, 0, 1)) for f in others]
    wanted = Mertens().combine(frames).pixels
    before = [frame.pixels.clone() for frame in others]
    for each in (others, woven):
        error = (Mertens().combine(Bracket(tuple(each))).pixels - wanted).abs()
        assert float(error.max()) < (0.02 if kind == torch.float16 else 1e-4)
    assert all(torch.equal(frame.pixels, pixels) for frame, pixels in zip(others, before, strict=True))


def test_nine_frames_with_alpha() -> None:
    frames = bracket(64, 50, tuple(0.1 * 1.6**k for k in range(9))).frames
    alpha = torch.full((1, 64, 50), 0.5)
    result = Mertens().combine(Bracket(tuple(replace(frame, alpha=alpha) for frame in frames)))
    assert result.alpha is not None
    assert torch.equal(result.alpha, alpha)
    low = torch.stack([frame.as_float().pixels for frame in frames]).amin(0)
    assert bool((result.pixels.mean() > low.mean()).all())


def test_frames_lie_alike_whatever_their_orientation_says() -> None:
    """A camera that points down turns its tag between the frames; their pixels lie alike."""
    frames = bracket()
    turned = [replace(f, metadata=Metadata(orientation=o)) for f, o in zip(frames, (1, 1, 6), strict=True)]
    assert torch.equal(Mertens().combine(Bracket(tuple(turned))).pixels, Mertens().combine(frames).pixels)
