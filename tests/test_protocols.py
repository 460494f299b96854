"""Each task is measured as its publications measure it; what is drawn hangs on the seed and the picture's number."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from restorekit.errors import InputError
from restorekit.evaluate import Score, evaluate, means, references
from restorekit.metrics.measures import MEASURES
from restorekit.metrics.super_resolution import Bicubic, reduced
from restorekit.planes import to_float
from restorekit.protocols import (
    Protocol,
    Reference,
    degradations,
    denoising,
    jpeg,
    paired,
    standard,
    super_resolution,
    synthetic,
)

RNG = np.random.default_rng(0)


@dataclass
class Function:
    """A model of one function; by default what it is given."""

    function: Callable[[Tensor], Tensor] = lambda x: x
    scale: int = 1

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(x)


def picture(height: int = 40, width: int = 48, channels: int = 3) -> Tensor:
    """Waves and noise, far from black and white."""
    y, x = np.mgrid[:height, :width]
    waves = np.stack([np.sin(x / (5 + c)) * np.cos(y / 7) for c in range(channels)])
    return torch.from_numpy((128 + 40 * waves + RNG.uniform(0, 15, waves.shape)).astype(np.uint8))


def saved(path: Path, pixels: Tensor) -> Path:
    array = pixels.permute(1, 2, 0).numpy()
    Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(path)
    return path


def reference(pixels: Tensor, number: int = 0) -> Reference:
    return Reference(Path("a.png"), number, pixels)


def scored(protocol: Protocol, paths: list[Path], model: Function | None = None) -> list[Score]:
    found = list(evaluate(model or Function(), paths, protocol=protocol))
    assert [score.error for score in found] == [None] * len(paths)
    return found


class TestSuperResolution:
    def test_the_input_is_the_reduced_picture_in_three_channels(self) -> None:
        gray = picture(channels=1)
        protocol = super_resolution(2)
        assert (protocol.scale, protocol.border, protocol.measures[0]) == (2, 2, "psnr_y_db")
        assert torch.equal(protocol.given(reference(gray)), to_float(reduced(gray.expand(3, -1, -1), 2)))


class TestDenoising:
    def test_noise_is_white_gaussian_and_not_clipped(self) -> None:
        white = torch.full((3, 200, 200), 255, dtype=torch.uint8)
        given = denoising(25).given(reference(white))
        noise = (given - 1) * 255
        assert float(noise.std()) == pytest.approx(25, rel=0.02) and float(noise.mean()) == pytest.approx(0, abs=0.4)
        assert float(given.max()) > 1.2

    def test_the_noise_of_a_picture_hangs_on_seed_and_number_alone(self) -> None:
        one, other = reference(picture(), 3), reference(picture() // 2, 3)
        noise = [denoising(25).given(each) - to_float(each.pixels) for each in (one, other)]
        assert torch.allclose(noise[0], noise[1], atol=1e-6)
        assert torch.equal(denoising(25).given(one), denoising(25).given(one))
        for changed in (denoising(25, seed=1).given(one), denoising(25).given(reference(one.pixels, 4))):
            assert not torch.allclose(changed, denoising(25).given(one), atol=0.05)

    def test_scores_are_the_same_whatever_the_other_pictures(self, tmp_path: Path) -> None:
        for name, height in (("a", 40), ("b", 44), ("c", 36)):
            saved(tmp_path / f"{name}.png", picture(height))
        before = scored(denoising(25), references(tmp_path))
        saved(tmp_path / "a.png", picture(60, 20))
        (tmp_path / "b.png").write_bytes(b"broken")
        after = list(evaluate(Function(), references(tmp_path), protocol=denoising(25)))
        assert after[1].error and after[2].measures == before[2].measures and after[0] != before[0]

    def test_the_input_measures_what_the_formula_says(self, tmp_path: Path) -> None:
        """20 log10(255 / sigma) where nothing is clipped; luma has less noise than a channel, in a smaller range."""
        brown = torch.tensor([140, 128, 115], dtype=torch.uint8)[:, None, None].expand(3, 256, 256)
        path = saved(tmp_path / "a.png", brown)
        (score,) = scored(denoising(25), [path])
        assert score.measures["psnr_rgb_db"] == pytest.approx(20 * math.log10(255 / 25), abs=0.05)
        share = math.hypot(0.299, 0.587, 0.114) * 219 / 255
        assert score.measures["psnr_y_db"] == pytest.approx(20 * math.log10(255 / 25 / share), abs=0.1)

    def test_gray_pictures_have_gray_noise_and_gray_results(self, tmp_path: Path) -> None:
        gray = torch.full((1, 128, 128), 128, dtype=torch.uint8)
        assert denoising(25).given(reference(gray)).shape == (1, 128, 128)
        shapes = []

        def model(x: Tensor) -> Tensor:
            shapes.append(x.shape)
            return x

        paths = [saved(tmp_path / "gray.png", gray), saved(tmp_path / "rgb.png", gray.expand(3, -1, -1))]
        for score in scored(denoising(25), paths, Function(model)):
            assert score.measures["psnr_rgb_db"] == pytest.approx(20.17, abs=0.1)
        assert shapes == [(1, 1, 128, 128)] * 2, "three equal channels are gray"

    def test_no_border_is_left_out(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "a.png", picture())

        def dark_corner(x: Tensor) -> Tensor:
            x = x.clone()
            x[..., 0, 0] = 0
            return x

        whole, spoilt = (scored(denoising(0), [path], Function(f))[0] for f in (lambda x: x, dark_corner))
        assert whole.measures["psnr_rgb_db"] == math.inf > spoilt.measures["psnr_rgb_db"]


class TestJpeg:
    def test_the_input_is_what_libjpeg_makes_of_the_picture(self) -> None:
        """Colours with chroma of half the size, as programs write them; gray pictures as gray files."""
        for channels in (1, 3):
            pixels = picture(channels=channels)
            given = jpeg(30).given(reference(pixels))
            assert given.shape == pixels.shape
            assert float((given * 255 - (given * 255).round()).abs().max()) < 1e-4, "8 bits"
            assert 20 < MEASURES["psnr_rgb_db"].of(pixels, (given * 255).round().byte()) < 40
        assert torch.equal(jpeg(10).given(reference(pixels, 0)), jpeg(10).given(reference(pixels, 7)))

    def test_chroma_of_colours_has_half_the_size(self) -> None:
        """Colours that change from pixel to pixel at equal luma come out even; at full size they would not."""
        stripes = torch.tensor([[200, 60, 128], [60, 129, 128]], dtype=torch.uint8).T
        pixels = stripes.repeat(1, 24)[:, None].expand(3, 32, 48).contiguous()
        given = jpeg(95).given(reference(pixels)) * 255
        assert float((given[:, :, 0::2] - given[:, :, 1::2]).abs().mean()) < 20
        assert float((to_float(pixels[:, :, 0::2]) - to_float(pixels[:, :, 1::2])).abs().mean()) * 255 > 60

    def test_less_quality_is_farther_away(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "a.png", picture(64, 64))
        found = [scored(jpeg(quality), [path])[0].measures for quality in (10, 40, 90)]
        for name in ("psnr_rgb_db", "psnr_b_db", "psnr_y_db", "ssim_rgb"):
            assert found[0][name] < found[1][name] < found[2][name]

    @pytest.mark.parametrize(("quality", "db", "blocks_db"), [(10, 27.82, 25.21), (20, 30.12, 27.50)])
    def test_classic5_measures_what_is_published(
        self, shared_data: Path, quality: int, db: float, blocks_db: float
    ) -> None:
        """AR-CNN (Dong et al., ICCV 2015), table of Classic5: PSNR and PSNR-B of JPEG."""
        mean = means(scored(jpeg(quality), references(shared_data / "bench" / "classic5")))
        assert mean["psnr_rgb_db"] == pytest.approx(db, abs=0.006)
        assert mean["psnr_b_db"] == pytest.approx(blocks_db, abs=0.02)


class TestPairs:
    def test_inputs_are_read_and_measured_as_they_are(self, tmp_path: Path) -> None:
        good, poor = picture(), picture()
        target, given = saved(tmp_path / "a.png", good), saved(tmp_path / "b.png", poor)
        protocol = paired(tmp_path, [given])
        (score,) = scored(protocol, [target])
        assert score.measures == {name: MEASURES[name].of(good, poor) for name in protocol.measures}
        assert scored(paired(tmp_path, [target]), [target])[0].measures["psnr_y_db"] == math.inf

    def test_deraining_is_compared_in_luma_and_low_light_in_rgb(self, tmp_path: Path) -> None:
        first = {task: paired(tmp_path, [], 1, task).measures[0] for task in ("deraining", "low-light", "weather")}
        assert first == {"deraining": "psnr_y_db", "low-light": "psnr_rgb_db", "weather": "psnr_rgb_db"}
        assert paired(tmp_path, [], 2, None).measures[0] == "psnr_y_db"

    def test_low_light_is_compared_with_the_mean_of_the_reference_too(self, tmp_path: Path) -> None:
        good = picture() // 2 + 60
        half = (good // 2 * 2) // 2
        target, given = saved(tmp_path / "a.png", good), saved(tmp_path / "b.png", half)
        (score,) = scored(paired(tmp_path, [given], 1, "low-light"), [target])
        assert score.measures["psnr_rgb_db"] < 15.0 and score.measures["psnr_corrected_db"] > 45.0
        (same,) = scored(paired(tmp_path, [target], 1, "low-light"), [target])
        assert same.measures["psnr_corrected_db"] == math.inf

    def test_inputs_are_smaller_by_the_scale(self, tmp_path: Path) -> None:
        good = picture(41, 48)
        target, small = saved(tmp_path / "a.png", good), saved(tmp_path / "b.png", reduced(good[:, :40], 2))
        bicubic = Function(Bicubic(2), 2)
        (own,), (read,) = (
            scored(each, [target], bicubic) for each in (super_resolution(2), paired(tmp_path, [small], 2))
        )
        assert read.measures == own.measures
        (wrong,) = evaluate(Function(), [target], protocol=paired(tmp_path, [small]))
        assert "b.png: is 24x20, for a.png it must be 48x41; see --scale" in (wrong.error or "")


class TestSynthetic:
    def test_degradations_are_made_with_fixed_seeds(self) -> None:
        text = "[blur: {width: [1, 1]}, gaussian_noise: {sigma: [5, 5]}]"
        one = reference(picture())
        given = synthetic(text).given(one)
        assert torch.equal(given, synthetic(text).given(one)) and given.shape == one.pixels.shape
        assert not torch.equal(given, synthetic(text, seed=1).given(one))
        assert not torch.equal(given, synthetic(text).given(reference(one.pixels, 1)))

    def test_other_pictures_are_mixed_in(self) -> None:
        black, text = reference(torch.zeros(3, 40, 48, dtype=torch.uint8)), "reflection: {methods: [ceilnet]}"
        assert float(synthetic(text, pictures=[picture()]).given(black).min()) > 0.05
        assert float(synthetic(text).given(black).max()) == 0.0

    def test_the_scale_is_that_of_the_degradation(self) -> None:
        protocol = synthetic("bicubic: {scale: 3}")
        assert (protocol.scale, protocol.border) == (3, 3)
        pixels = picture(39, 48)
        assert torch.allclose(protocol.given(reference(pixels)), super_resolution(3).given(reference(pixels)))

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("fog", "unknown degradation 'fog'"),
            ("jpg", "did you mean 'jpeg'"),
            ("gaussian_noise: {sigm: 3}", "sigm: "),
            ("gaussian_noise: 3", "gaussian_noise"),
            ("{blur: {}, jpeg: {}}", "write NAME"),
            ("3", "write NAME"),
            ("a: [", "write NAME"),
            ("[]", "is empty"),
        ],
    )
    def test_what_is_no_degradation_is_one_line(self, text: str, says: str) -> None:
        with pytest.raises(InputError) as raised:
            degradations(text)
        assert says in str(raised.value) and "\n" not in str(raised.value)


def test_a_task_has_its_standard_and_others_need_pairs() -> None:
    made = [standard("m", task, scale).setting for task, scale in (("denoising", 1), ("jpeg", 1), (None, 4))]
    assert made == ["sigma 25", "quality 10", "x4"]
    for task in ("deraining", "low-light", None):
        with pytest.raises(InputError, match="--inputs FOLDER"):
            standard("m", task, 1)


def test_a_model_of_another_scale_is_refused() -> None:
    denoising().check("m", 1)
    with pytest.raises(InputError, match=r"m: enlarges 2 times, but the input \(sigma 25\) has the size"):
        denoising().check("m", 2)
    with pytest.raises(InputError, match=r"m: keeps the size, but the input \(x4\) has 1/4 of the size"):
        super_resolution(4).check("m", 1)
