"""Losses: values worked out by hand, and the laws of each."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restorekit.errors import InputError, ModelError, RestorekitError
from restorekit.metrics.lpips import SMALLEST, TAPS, SqueezeLpips
from restorekit.metrics.lpips import load as load_lpips
from restorekit.train.losses import LOSSES, Loss, angular, charbonnier, combined, fft, pearson, psnr


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with seeded weights of LPIPS."""
    home = tmp_path_factory.mktemp("home")
    (home / "lpips").mkdir()
    torch.manual_seed(0)
    weights = SqueezeLpips().state_dict()
    linear = {f"lin{i}.model.1.weight": weights[f"heads.{i}.weight"].abs() for i in range(len(TAPS))}
    torch.save(linear, home / "lpips" / "linear.pth")
    torch.save({name: value for name, value in weights.items() if "heads" not in name}, home / "lpips" / "features.pth")
    return home


@pytest.fixture(autouse=True)
def user(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESTOREKIT_HOME", str(home))


def loss(name: str) -> Loss:
    found = LOSSES[name]
    return found() if isinstance(found, type) else found


def pictures(count: int = 2, side: int = 32) -> Tensor:
    """``[count,2,3,side,side]``: pairs of different pictures."""
    return torch.rand(count, 2, 3, side, side, generator=torch.Generator().manual_seed(3))


FLAT = torch.full((2, 3, 32, 32), 0.25)
BLACK = torch.zeros(2, 3, 32, 32)
SOME = pictures()[0]


@pytest.mark.parametrize("name", LOSSES)
class TestEveryLoss:
    def test_is_0_for_equal_pictures_and_above_it_for_others(self, name: str) -> None:
        for picture in (SOME, FLAT, BLACK):
            assert float(loss(name)(picture, picture.clone()).abs()) < 1e-5
        assert float(loss(name)(*pictures())) > 1e-3

    def test_is_symmetric(self, name: str) -> None:
        first, second = pictures()
        torch.testing.assert_close(loss(name)(first, second), loss(name)(second, first))

    @pytest.mark.parametrize("result", [SOME, FLAT, BLACK], ids=["some", "flat", "black"])
    @pytest.mark.parametrize("target", [SOME, FLAT, BLACK], ids=["some", "flat", "black"])
    def test_gradients_are_finite(self, name: str, result: Tensor, target: Tensor) -> None:
        variable = result.clone().requires_grad_()
        value = loss(name)(variable, target)
        value.backward()
        assert value.shape == () and bool(value.isfinite())
        assert variable.grad is not None and bool(variable.grad.isfinite().all())

    def test_a_step_against_the_gradient_makes_it_less(self, name: str) -> None:
        first, second = pictures()
        first.requires_grad_()
        before = loss(name)(first, second)
        (gradient,) = torch.autograd.grad(before, first)
        step = 1e-2 / float(gradient.norm())
        assert bool(loss(name)(first - step * gradient, second) < before)

    def test_of_a_batch_is_the_mean_of_its_pictures(self, name: str) -> None:
        first, second = pictures()
        alone = torch.stack([loss(name)(a[None], b[None]) for a, b in zip(first, second, strict=True)])
        torch.testing.assert_close(loss(name)(first, second), alone.mean())

    def test_of_pictures_of_noise_does_not_depend_on_their_size(self, name: str) -> None:
        small, large = (loss(name)(*pictures(side=side)) for side in (48, 128))
        assert float(large) == pytest.approx(float(small), rel=0.05)


def test_values_by_hand() -> None:
    target = torch.tensor([0.1, 0.2, 0.3, 0.4]).view(1, 1, 2, 2)
    result = target + torch.tensor([0.3, 0.0, -0.4, 0.0]).view(1, 1, 2, 2)
    for name, expected in (("l1", 0.7 / 4), ("l2", 0.25 / 4)):
        assert float(loss(name)(result, target)) == pytest.approx(expected)
    roots = math.sqrt(0.09 + 0.01) + math.sqrt(0.16 + 0.01) + 2 * 0.1
    assert float(charbonnier(result, target, eps=0.1)) == pytest.approx(roots / 4 - 0.1)


def test_psnr_counts_decibels_below_50_picture_by_picture() -> None:
    errors = torch.tensor([0.1, 0.01])  # 20 and 40 dB
    result = errors[:, None, None, None].expand(2, 3, 8, 8)
    assert float(psnr(result, torch.zeros(2, 3, 8, 8))) == pytest.approx((30 + 10) / 2, abs=0.5)
    halves = psnr(result, torch.zeros(2, 3, 8, 8)) - psnr(result / 2, torch.zeros(2, 3, 8, 8))
    assert float(halves) == pytest.approx(20 * math.log10(2), rel=0.1)


def test_charbonnier_is_between_l2_and_l1() -> None:
    large, small = torch.full((1, 1, 4, 4), 0.5), torch.full((1, 1, 4, 4), 1e-5)
    zero = torch.zeros(1, 1, 4, 4)
    assert float(charbonnier(large, zero)) == pytest.approx(0.5, abs=1e-3)
    assert float(charbonnier(small.double(), zero.double())) == pytest.approx(1e-10 / 2e-3, rel=1e-3)


class TestFft:
    def test_of_a_single_pixel_is_that_of_cosines_and_sines(self) -> None:
        """The transform of a pixel at (1, 2) of 4x4 px: ``exp(-i pi/2 (v + 2u)) / 4`` for u of 0..2."""
        target = torch.zeros(1, 1, 4, 4)
        result = target.clone()
        result[0, 0, 1, 2] = 0.8
        angles = [-math.pi / 2 * (v + 2 * u) for v in range(4) for u in range(3)]
        expected = sum(abs(math.cos(angle)) + abs(math.sin(angle)) for angle in angles) * 0.8 / 4 / 24
        assert float(fft(result, target)) == pytest.approx(expected)

    def test_of_an_offset_is_its_one_coefficient(self) -> None:
        assert float(fft(FLAT, BLACK)) == pytest.approx(0.25 * 32 / (32 * 17 * 2))

    @pytest.mark.parametrize("side", [32, 64, 256])
    def test_of_grain_does_not_depend_on_the_size(self, side: int) -> None:
        """Smoothed noise, wrapped round: white noise of 0.1 through a 3x3 mean."""
        noise = 0.1 * torch.randn(8, 3, side, side, generator=torch.Generator().manual_seed(5))
        grain = F.avg_pool2d(F.pad(noise, (1, 1, 1, 1), mode="circular"), 3, stride=1)
        wave = torch.arange(2048) / 2048 * 2 * math.pi
        gain = (1 + 2 * wave.cos()).abs().mean() / 3  # mean over frequencies of what the mean of 3 px lets through
        expected = 0.1 * math.sqrt(0.5) * math.sqrt(2 / math.pi) * float(gain) ** 2
        assert float(fft(grain, torch.zeros_like(grain))) == pytest.approx(expected, rel=0.04)


class TestPearson:
    @pytest.mark.parametrize(("gain", "offset"), [(0.5, 0.0), (1.0, -0.3), (3.0, 0.2)])
    def test_gain_and_offset_do_not_matter(self, gain: float, offset: float) -> None:
        first, second = pictures()
        expected = pearson(first, second)
        torch.testing.assert_close(pearson(gain * first + offset, second), expected, rtol=1e-4, atol=1e-4)
        assert float(pearson(gain * first + offset, first)) == pytest.approx(0, abs=1e-4)
        assert float(pearson(offset - gain * first, first)) == pytest.approx(2, abs=1e-4)

    def test_is_one_less_the_correlation_of_each_picture(self) -> None:
        first, second = pictures()
        second = (first + second) / 2
        pairs = [
            torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] for a, b in zip(first, second, strict=True)
        ]
        assert float(pearson(first, second)) == pytest.approx(1 - float(sum(pairs)) / 2, abs=1e-4)
        assert 0.2 < float(pearson(first, second)) < 0.4

    def test_of_a_flat_picture_with_another_is_1(self) -> None:
        assert float(pearson(FLAT, SOME)) == pytest.approx(1, abs=0.01)


class TestAngular:
    @pytest.mark.parametrize(
        ("first", "second", "degrees"),
        [
            ((1.0, 0.0, 0.0), (1.0, 0.0, 0.0), 0.0),
            ((1.0, 0.0, 0.0), (0.0, 2.0, 0.0), 90.0),
            ((1.0, 1.0, 1.0), (1.0, 1.0, 0.0), 35.2643897),
            ((1.0, 0.0, 0.0), (-1.0, 0.0, 0.0), 180.0),
            ((1.0, 0.0, 0.0), (1.0, 1e-5, 0.0), math.degrees(1e-5)),
        ],
    )
    def test_of_illuminants(self, first: tuple[float, ...], second: tuple[float, ...], degrees: float) -> None:
        a, b = torch.tensor([first]), torch.tensor([second])
        assert math.degrees(float(angular(a, b))) == pytest.approx(degrees, rel=1e-5)
        assert float(angular(a[..., None, None], b[..., None, None])) == float(angular(a, b))

    @pytest.mark.parametrize("gain", [1e-3, 7.0])
    def test_brightness_does_not_matter(self, gain: float) -> None:
        first, second = pictures()
        shades = gain * (0.1 + SOME[:, :1])
        torch.testing.assert_close(angular(shades * first, second), angular(first, second), rtol=1e-4, atol=1e-5)

    def test_gradient_at_small_angles_is_that_of_large_ones(self) -> None:
        for angle in (1e-4, 1e-2, 1.0):
            vector = torch.tensor([[math.cos(angle), math.sin(angle), 0.0]], requires_grad=True)
            angular(vector, torch.tensor([[1.0, 0.0, 0.0]])).backward()
            assert vector.grad is not None
            assert float(vector.grad.norm()) == pytest.approx(1, rel=1e-4)

    @pytest.mark.parametrize("brightness", [0.0, 1e-30, 1e-20, 1e-10, 1e-7])
    def test_nearly_black_has_no_angle_and_no_steep_gradient(self, brightness: float) -> None:
        first, second = pictures()
        first = (brightness * first).requires_grad_()
        value = angular(first, second)
        value.backward()
        assert 0 <= float(value.detach()) < 1e-6
        assert first.grad is not None
        assert float(first.grad.norm(dim=1).max()) * first[:, 0].numel() < 2

    def test_needs_three_channels(self) -> None:
        with pytest.raises(InputError, match="compares RGB, the result has 1 channels"):
            angular(FLAT[:, :1], FLAT[:, :1])


class TestPerceptual:
    def test_is_the_mean_of_the_metric(self) -> None:
        first, second = pictures(side=40)
        torch.testing.assert_close(loss("perceptual")(first, second), load_lpips()(first, second).mean())

    def test_gradients_reach_the_result_alone(self) -> None:
        perceptual = loss("perceptual")
        assert isinstance(perceptual, nn.Module)
        first, second = (picture.requires_grad_() for picture in pictures())
        perceptual(first, second).backward()
        assert first.grad is not None and bool(first.grad.any())
        assert second.grad is None
        assert all(not weight.requires_grad and weight.grad is None for weight in perceptual.parameters())

    def test_gray_is_rgb_of_equal_channels(self) -> None:
        first, second = (picture[:, :1] for picture in pictures())
        perceptual = loss("perceptual")
        torch.testing.assert_close(
            perceptual(first, second), perceptual(first.repeat(1, 3, 1, 1), second.repeat(1, 3, 1, 1))
        )

    def test_small_patches_are_refused(self) -> None:
        perceptual = loss("perceptual")
        assert float(perceptual(*pictures(side=SMALLEST))) > 0
        with pytest.raises(InputError, match=f"a patch is 24 px, it takes {SMALLEST}; raise patch"):
            perceptual(*pictures(side=24))

    def test_without_weights_the_cure_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RESTOREKIT_HOME", str(tmp_path))
        with pytest.raises(ModelError, match=r"weights of LPIPS on SqueezeNet are missing; put squeeze\.pth"):
            combined({"l1": 1.0, "perceptual": 0.1})


class TestCombined:
    def test_is_the_weighted_sum(self) -> None:
        weights = {"l1": 0.7, "fft": 0.05, "pearson": 2, "perceptual": 0.1}
        first, second = pictures()
        first.requires_grad_()
        total, parts = combined(weights)(first, second)
        assert list(parts) == list(weights)
        for name, part in parts.items():
            torch.testing.assert_close(part, loss(name)(first, second).detach())
            assert not part.requires_grad
        torch.testing.assert_close(
            total.detach(), sum((w * parts[name] for name, w in weights.items()), torch.zeros(()))
        )
        expected = sum((w * loss(name)(first, second) for name, w in weights.items()), torch.zeros(()))
        assert isinstance(expected, Tensor)
        torch.testing.assert_close(*(torch.autograd.grad(value, first)[0] for value in (total, expected)))

    def test_is_computed_in_float32_under_autocast(self) -> None:
        first, second = pictures(side=40)
        both = combined({"l1": 1.0, "perceptual": 1.0})
        expected, _ = both(first, second)
        with torch.autocast("cpu", torch.bfloat16):
            total, _ = both(first, second)
        assert torch.equal(total, expected)
        assert both(first.bfloat16(), second)[0].dtype == torch.float32

    def test_holds_what_has_weights(self) -> None:
        assert combined({"l1": 1.0, "perceptual": 1.0}).state_dict().keys() != combined({"l1": 1.0}).state_dict().keys()
        assert not list(combined({"l1": 1.0, "fft": 1.0}).parameters())

    @pytest.mark.parametrize(
        ("weights", "said"),
        [
            ({}, "name some of l1, l2"),
            ({"charbonier": 1.0}, "unknown loss 'charbonier'; did you mean 'charbonnier'?"),
            ({"l1": 1.0, "ssim": 1.0}, "unknown loss 'ssim'; there are l1, l2"),
            ({"l1": 0.0}, "loss 'l1' has the weight 0.0"),
            ({"l1": -1.0}, "loss 'l1' has the weight -1.0"),
            ({"l1": math.nan}, "loss 'l1' has the weight nan"),
        ],
    )
    def test_what_cannot_be_weighed_is_told(self, weights: dict[str, float], said: str) -> None:
        with pytest.raises(RestorekitError) as caught:
            combined(weights)
        assert said in str(caught.value)

    def test_shapes_that_differ_are_refused(self) -> None:
        with pytest.raises(InputError, match=r"gives \[1, 3, 8, 8\], the target is \[1, 3, 16, 16\]"):
            combined({"l1": 1.0})(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 16, 16))
