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
from restorekit.stages import fusion
from restorekit.stages.fusion import Mertens, down, up
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
    frames = bracket(91, 67)
    whole = Mertens().combine(frames).pixels
    for rows in (2, 16, 34):
        monkeypatch.setattr(fusion, "strip_rows", lambda width, rows=rows: rows)
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


def test_the_pyramid_is_burt_and_adelsons() -> None:
    plane = torch.rand(1, 37, 52)
    smaller = down(plane)
    assert np.abs(smaller[0].numpy() - cv2.pyrDown(plane[0].numpy())).max() < 1e-6
    larger = up(smaller, 0, 37, 52)[0].numpy()
    wanted = cv2.pyrUp(smaller[0].numpy(), dstsize=(52, 37))
    assert np.abs(larger - wanted)[2:-2, 2:-2].max() < 1e-6
    assert torch.allclose(up(smaller, 10, 24, 52)[0], torch.from_numpy(larger[10:24]), atol=1e-6)


def test_colours_outside_the_gamut_stay_outside() -> None:
    """Equal frames of Display P3's colours in sRGB come out as they are."""
    outside = torch.tensor([-0.5, 1.02, -0.3])[:, None, None].expand(3, 40, 30).contiguous()
    result = Mertens().combine(Bracket((Frame(outside, ENCODED), Frame(outside, ENCODED))))
    assert torch.allclose(result.pixels, outside, atol=1e-5)
