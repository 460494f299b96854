from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import convolve

from restorekit.engine import Run, process
from restorekit.errors import StageError
from restorekit.facts import Camera, Facts
from restorekit.frame import Frame
from restorekit.pipeline import Pipeline
from restorekit.stage import GLOBAL, Nothing
from restorekit.stages.demosaic import Demosaic, Method
from restorekit.state import ImageState
from restorekit.testing import StageLaws, bayer_frame

PATTERNS = ("RGGB", "BGGR", "GRBG", "GBRG")
XTRANS = ("GBGGRG", "RGRBGB", "GBGGRG", "GRGGBG", "BGBRGR", "GRGGBG")
BAYER_METHODS = ("bilinear", "malvar", "menon")
LIGHT = (0.5, 1.0, 0.7)
UNKNOWN = Facts()


def channels(cfa: tuple[str, ...], height: int, width: int) -> np.ndarray:
    """The channel of every photosite [H,W]."""
    cell = np.array([["RGB".index(colour) for colour in row] for row in cfa])
    return np.tile(cell, (-(-height // cell.shape[0]), -(-width // cell.shape[1])))[:height, :width]


def mosaic_of(picture: np.ndarray, cfa: tuple[str, ...] = ("RG", "GB"), facts: Facts = UNKNOWN) -> Frame:
    """A picture [3,H,W] seen through a colour filter array."""
    _, height, width = picture.shape
    plane = np.take_along_axis(picture, channels(cfa, height, width)[None], 0)
    layout = "bayer" if len(cfa) == 2 else "xtrans"
    state = ImageState(layout, "scene", "linear", "camera")  # type: ignore[arg-type]
    return Frame(torch.from_numpy(plane.astype(np.float32)), state, camera=Camera(cfa=cfa), facts=facts)


def scene(height: int = 40, width: int = 54, seed: int = 0) -> np.ndarray:
    """Coloured shapes with soft and hard edges, 0.05..1."""
    y, x = np.mgrid[0:height, 0:width] / 40
    random = np.random.default_rng(seed)
    texture = convolve(random.random((height, width)), np.full((3, 3), 1 / 9), mode="mirror")
    planes = [
        0.1 + 0.5 * texture + 0.25 * np.sin(5 * x + k) * np.cos(4 * y) ** 2 + 0.2 * (x + 0.4 * y > 0.7)
        for k in range(3)
    ]
    return np.clip(np.stack(planes), 0.05, 1)


def psnr(got: np.ndarray, want: np.ndarray, border: int = 10) -> float:
    error = (got - want)[:, border:-border, border:-border]
    return float(-10 * np.log10(np.mean(error**2)))


class TestLaws(StageLaws):
    stages = (Demosaic(method="bilinear"), Demosaic(method="malvar"), Demosaic(), Demosaic(interpolates="light"))
    frames = (
        *(bayer_frame(pattern=pattern) for pattern in PATTERNS),
        bayer_frame(45, 51, pattern="GRBG"),
        bayer_frame(51, 30),
        bayer_frame(2, 2),
        bayer_frame(3, 7, pattern="GBRG"),
        bayer_frame(8, 5, pattern="BGGR"),
    )
    tolerance = 0.0


class TestExposure(StageLaws):
    stages = TestLaws.stages
    frames = (bayer_frame(),)
    scales_with_exposure = True


class TestRgbPassesThrough(StageLaws):
    stages = (Demosaic(),)
    frames = (Frame(torch.rand(3, 9, 11), ImageState("rgb", "scene", "linear", "camera")),)

    def test_unchanged(self) -> None:
        assert torch.equal(self.stages[0](self.frames[0]).pixels, self.frames[0].pixels)


@pytest.mark.parametrize("method", BAYER_METHODS)
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("facts", [Facts(), Facts(illuminant=LIGHT)], ids=["light unknown", "light known"])
def test_a_flat_colour_comes_back(method: str, pattern: str, facts: Facts) -> None:
    picture = np.array([0.3, 0.8, 0.5])[:, None, None] * np.ones((3, 21, 18))
    frame = mosaic_of(picture, (pattern[:2], pattern[2:]), facts)
    got = Demosaic(method=method)(frame).pixels.numpy()  # type: ignore[arg-type]
    np.testing.assert_allclose(got, picture, rtol=0, atol=3e-6)


@pytest.mark.parametrize("method", BAYER_METHODS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_measured_values_stay(method: str, pattern: str) -> None:
    frame = mosaic_of(scene(31, 33), (pattern[:2], pattern[2:]), Facts(illuminant=LIGHT))
    got = Demosaic(method=method)(frame).pixels  # type: ignore[arg-type]
    where = torch.from_numpy(channels(frame.camera.cfa, 31, 33))[None]
    assert torch.equal(got.gather(0, where), frame.pixels)


@pytest.mark.parametrize("method", BAYER_METHODS)
@pytest.mark.parametrize("interpolates", ["roots", "light"])
def test_four_phases_are_flips_of_one(method: str, interpolates: str) -> None:
    """A mirrored mosaic of even size has another pattern, and must give the mirrored picture."""
    stage = Demosaic(method=method, interpolates=interpolates)  # type: ignore[arg-type]
    frame = mosaic_of(scene(24, 30))
    want = stage(frame).pixels
    for pattern, dims in (("GRBG", (2,)), ("GBRG", (1,)), ("BGGR", (1, 2))):
        flipped = replace(frame, pixels=frame.pixels.flip(dims), camera=Camera(cfa=(pattern[:2], pattern[2:])))
        torch.testing.assert_close(stage(flipped).pixels.flip(dims), want, rtol=0, atol=2e-6)


@pytest.mark.parametrize("method", BAYER_METHODS)
def test_transposed_mosaic_gives_the_transposed_picture(method: str) -> None:
    frame = mosaic_of(scene(26, 34))
    want = Demosaic(method=method)(frame).pixels  # type: ignore[arg-type]
    turned = replace(frame, pixels=frame.pixels.transpose(1, 2).contiguous())
    got = Demosaic(method=method)(turned).pixels.transpose(1, 2)  # type: ignore[arg-type]
    torch.testing.assert_close(got, want, rtol=0, atol=2e-6)


def by_kernels(frame: Frame, kernels: dict[str, np.ndarray]) -> np.ndarray:
    """Oracle for linear methods: one 5x5 kernel for each kind of photosite and colour, at full size."""
    plane = frame.pixels[0].numpy().astype(np.float64)
    where = channels(frame.camera.cfa, *plane.shape)
    red_rows = (where == 0).any(axis=1)[:, None] & np.ones_like(where, bool)
    result = np.where(where[None] == np.arange(3)[:, None, None], plane, 0)
    for colour, other in ((0, 2), (2, 0)):
        in_rows = red_rows if colour == 0 else ~red_rows
        result[1][where == colour] = convolve(plane, kernels["green"], mode="mirror")[where == colour]
        result[other][where == colour] = convolve(plane, kernels["opposite"], mode="mirror")[where == colour]
        for rows, kernel in ((in_rows, kernels["row"]), (~in_rows, kernels["row"].T)):
            here = (where == 1) & rows
            result[colour][here] = convolve(plane, kernel, mode="mirror")[here]
    return result


MALVAR = {
    "green": np.array([[0, 0, -1, 0, 0], [0, 0, 2, 0, 0], [-1, 2, 4, 2, -1], [0, 0, 2, 0, 0], [0, 0, -1, 0, 0]]) / 8,
    "row": np.array([[0, 0, 0.5, 0, 0], [0, -1, 0, -1, 0], [-1, 4, 5, 4, -1], [0, -1, 0, -1, 0], [0, 0, 0.5, 0, 0]])
    / 8,
    "opposite": np.array(
        [[0, 0, -1.5, 0, 0], [0, 2, 0, 2, 0], [-1.5, 0, 6, 0, -1.5], [0, 2, 0, 2, 0], [0, 0, -1.5, 0, 0]]
    )
    / 8,
}
BILINEAR = {
    "green": np.pad(np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]]) / 4, 1),
    "row": np.pad(np.array([[0, 0, 0], [1, 0, 1], [0, 0, 0]]) / 2, 1),
    "opposite": np.pad(np.array([[1, 0, 1], [0, 0, 0], [1, 0, 1]]) / 4, 1),
}


@pytest.mark.parametrize(("method", "kernels"), [("bilinear", BILINEAR), ("malvar", MALVAR)])
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("size", [(24, 30), (25, 31)])
def test_linear_methods_equal_convolution(
    method: str, kernels: dict[str, np.ndarray], pattern: str, size: tuple[int, int]
) -> None:
    frame = mosaic_of(scene(*size), (pattern[:2], pattern[2:]))
    got = Demosaic(method=method)(frame).pixels.numpy()  # type: ignore[arg-type]
    np.testing.assert_allclose(got, by_kernels(frame, kernels), rtol=0, atol=1e-6)


def test_menon_follows_edges() -> None:
    """Along gray stripes of any contrast green is exact, whichever way they run; bilinear is not."""
    stripes = np.repeat(np.array([0.2, 0.8, 0.4, 0.9, 0.3, 0.7])[:, None], 30, axis=1).repeat(1, axis=0)
    stripes = np.tile(stripes, (5, 1))
    for lines in (stripes, stripes.T):
        frame = mosaic_of(np.stack([lines] * 3))
        menon = Demosaic(interpolates="light")(frame).pixels.numpy()[1]
        bilinear = Demosaic(method="bilinear")(frame).pixels.numpy()[1]
        inside = (slice(8, -8), slice(8, -8))
        assert np.abs(menon - lines)[inside].max() < 1e-5 < np.abs(bilinear - lines)[inside].max()


def test_balance_does_not_depend_on_where_it_is_done() -> None:
    """A known light gives what white balance before the mosaic's interpolation would give."""
    picture = scene(30, 36)
    light = np.array(LIGHT)[:, None, None]
    for method in ("malvar", "menon"):
        stage = Demosaic(method=method, interpolates="light")  # type: ignore[arg-type]
        before = stage(mosaic_of(picture, facts=Facts(illuminant=LIGHT, white_balance=(2.0, 1.0, 1 / 0.7))))
        after = stage(mosaic_of(picture * light, facts=Facts(illuminant=LIGHT)))
        np.testing.assert_allclose(after.pixels.numpy() / light, before.pixels.numpy(), rtol=0, atol=5e-6)


def test_negative_values_and_noise_keep_their_mean() -> None:
    """Interpolating square roots must not shift dark, noisy areas by more than a tenth of the noise."""
    noise = 0.01
    plane = np.random.default_rng(0).normal(0.5 * noise, noise, (1, 300, 300)).astype(np.float32)
    state = ImageState("bayer", "scene", "linear", "camera")
    facts = Facts(noise=((1e-4, noise**2),), clip_level=(1.0,))
    frame = Frame(torch.from_numpy(plane), state, camera=Camera(cfa=("RG", "GB")), facts=facts)
    got = Demosaic()(frame).pixels
    assert (got < 0).any()
    assert float((got.mean((1, 2)) - 0.5 * noise).abs().max()) < 0.1 * noise


@pytest.fixture(scope="module")
def photographs(shared_data: Path) -> list[np.ndarray]:
    folder = shared_data / "bench" / "kodak24"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    files = [folder / f"{name}.png" for name in ("05", "08", "19", "23")]
    return [np.asarray(Image.open(file).convert("RGB"), np.float32).transpose(2, 0, 1) / 255 for file in files]


def test_quality_on_photographs(photographs: list[np.ndarray]) -> None:
    """Encoded values, as in the paper, against what colour-demosaicing 0.2.7 reaches on these photographs."""
    for method, known in (("bilinear", 28.357), ("malvar", 34.334), ("menon", 38.778)):
        stage = Demosaic(method=method, interpolates="light")  # type: ignore[arg-type]
        mean = np.mean([psnr(stage(mosaic_of(p)).pixels.numpy().clip(0, 1), p) for p in photographs])
        assert abs(mean - known) < 0.02, f"{method}: {mean:.3f} dB"


def test_roots_are_the_better_domain_for_light(photographs: list[np.ndarray]) -> None:
    def decoded(p: np.ndarray) -> np.ndarray:
        return np.where(p <= 0.04045, p / 12.92, ((p + 0.055) / 1.055) ** 2.4)

    gain = []
    for picture in photographs:
        light = decoded(picture)
        roots, plain = (
            psnr(Demosaic(interpolates=domain)(mosaic_of(light)).pixels.numpy(), light)  # type: ignore[arg-type]
            for domain in ("roots", "light")
        )
        gain.append(roots - plain)
    assert np.mean(gain) > 1.5


@pytest.mark.parametrize("algorithm", ["LINEAR", "VNG", "PPG", "AHD", "DCB", "DHT", "AAHD"])
def test_libraw_keeps_levels_and_phase(algorithm: str) -> None:
    """A coloured ramp that leaves 0..1 comes back; a wrong phase would swap its colours."""
    ramp = np.linspace(-0.02, 1.6, 60)[None, None] * np.array([0.9, 0.6, 0.3])[:, None, None] * np.ones((3, 44, 1))
    for pattern in PATTERNS:
        frame = mosaic_of(ramp, (pattern[:2], pattern[2:]), Facts(illuminant=(0.9, 0.6, 0.3)))
        stage = Demosaic(method="libraw", libraw_algorithm=algorithm)  # type: ignore[arg-type]
        assert stage.reach() == GLOBAL
        result = stage(frame)
        assert result.state.layout == "rgb"
        error = np.abs(result.pixels.numpy() - ramp)
        assert error[:, :, 4:-4].max() < 2e-3, f"{pattern}: {error[:, :, 4:-4].max()}"


@pytest.mark.parametrize("size", [(30, 40), (520, 530)])
def test_libraw_takes_xtrans(size: tuple[int, int]) -> None:
    y, x = np.mgrid[0 : size[0], 0 : size[1]]
    picture = np.stack([0.2 + 0.3 * x / size[1], 0.5 + 0.2 * y / size[0], 0.3 + 0.1 * x / size[1]])
    got = Demosaic(method="libraw")(mosaic_of(picture, XTRANS)).pixels.numpy()
    error = np.abs(got - picture)
    assert error[:, 8:-8, 8:-8].max() < 0.01
    assert error.max() < 0.05, "borders are no darker"


def test_rgb_runs_through_without_rows_around_it() -> None:
    seen = Frame(torch.rand(3, 8, 8), ImageState("rgb", "scene", "linear", "camera"))
    for stage in (Demosaic(), Demosaic(method="libraw")):
        assert isinstance(stage.suited(seen), Nothing)


def test_xtrans_goes_through_libraw_whatever_the_method() -> None:
    mosaic = mosaic_of(scene(), XTRANS)
    wanted = Demosaic(method="libraw")(mosaic).pixels
    assert torch.equal(Demosaic(method="bilinear")(mosaic).pixels, wanted)
    assert torch.equal(Pipeline([Demosaic()])(mosaic).pixels, wanted)
    with pytest.raises(StageError, match="method: libraw"):
        Demosaic().apply(mosaic)


def test_mosaic_without_pattern_and_too_small_are_refused() -> None:
    frame = bayer_frame()
    with pytest.raises(StageError, match="names no colour filter pattern"):
        Demosaic()(replace(frame, camera=Camera()))
    with pytest.raises(StageError, match="2x2 px or more"):
        Demosaic()(bayer_frame(1, 5))
    with pytest.raises(StageError, match="not a Bayer pattern"):
        Demosaic()(replace(frame, camera=Camera(cfa=("CY", "MG"))))
    with pytest.raises(StageError, match="6x6"):
        Demosaic(method="libraw")(bayer_frame(4, 40))


def test_masks_and_facts_go_along() -> None:
    frame = bayer_frame()
    frame = replace(frame, masks={"motion": frame.pixels > 0.5})
    result = Demosaic()(frame)
    assert torch.equal(result.masks["motion"], frame.masks["motion"]) and bool(frame.masks["motion"].any())
    assert result.facts is frame.facts


@pytest.mark.parametrize("method", ["bilinear", "malvar", "menon", "libraw"])
def test_colours_of_clipped_photosites_are_clipped_where_they_are_interpolated(method: Method) -> None:
    """Red glass: only its red clips, at a quarter of the photosites."""
    mosaic = torch.full((1, 40, 40), 0.2)
    mosaic[:, 0::2, 0::2] = 0.5
    mosaic[:, 10:30:2, 10:30:2] = 1.0
    frame = replace(bayer_frame(40, 40), pixels=mosaic, masks={"clipped": mosaic >= 1.0})
    result = Demosaic(method=method)(frame)
    marked = result.masks["clipped"][0]
    assert bool(marked[9:30, 9:30].all()) and int(marked.sum()) == 21 * 21
    if method != "libraw":
        pipe = Pipeline([Demosaic(method=method)])
        in_strips = process(pipe, frame, Run(strip_rows=16))
        assert torch.equal(in_strips.masks["clipped"], result.masks["clipped"])
