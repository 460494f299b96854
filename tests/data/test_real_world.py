"""The second-order degradation: aligned, of eight bits, and weaker with less strength."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pydantic
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from restorekit.data.degradation import quantized, seeded
from restorekit.data.real_world import Pass, RealWorld, SecondPass, resized

QUIET = {"sigma": (0, 0), "poisson": (0, 0), "quality": (95, 95)}


def picture(height: int = 96, width: int = 96) -> Tensor:
    layers = [torch.rand((1, 3, *size), generator=seeded(*size)) for size in ((7, 9), (30, 25), (height, width))]
    large = [interpolate(layer, (height, width), mode="bilinear")[0] for layer in layers]
    return quantized(0.5 * large[0] + 0.3 * large[1] + 0.2 * large[2])


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
class TestEveryScale:
    def test_size_and_codes(self, scale: int) -> None:
        for number in range(8):
            result = RealWorld(scale=scale).degrade(picture(84, 60), seeded(0, number))
            assert result.shape == (3, 84 // scale, 60 // scale)
            assert torch.equal(quantized(result), result)

    def test_stays_in_place(self, scale: int) -> None:
        """On ramps a shift shows as a change of the mean; a third of a pixel of the result is allowed for."""
        step = RealWorld(scale=scale, first=Pass(**QUIET), second=SecondPass(**QUIET))
        ramp = quantized(0.1 + 0.8 * torch.arange(120.0) / 119).expand(3, 120, 120)
        expected = interpolate(ramp[None], scale_factor=1 / scale, mode="area")[0]
        inner, a_pixel = slice(40 // scale, -(40 // scale)), 0.8 / 119 * scale
        for number in range(12):
            across, down = (step.degrade(each, seeded(0, number)) for each in (ramp, ramp.transpose(1, 2)))
            for result, where in ((across, expected), (down, expected.transpose(1, 2))):
                assert abs(float((result - where)[:, inner, inner].mean())) < a_pixel / 3

    def test_the_margin_is_a_multiple_of_the_scale(self, scale: int) -> None:
        assert RealWorld(scale=scale).margin % scale == 0


class TestStrength:
    def test_less_is_nearer_to_the_picture(self) -> None:
        clean = picture()[:1].expand(3, -1, -1)
        errors = [
            sum(
                float((RealWorld(scale=1, strength=strength).degrade(clean, seeded(0, n)) - clean).abs().mean())
                for n in range(25)
            )
            for strength in (0.0, 0.2, 0.5, 1.0)
        ]
        assert errors == sorted(errors) and errors[0] < 0.3 * errors[-1]

    def test_none_leaves_quality_100(self) -> None:
        whole_chroma = {"subsampled": 0.0}
        step = RealWorld(scale=1, strength=0, first=Pass(**whole_chroma), second=SecondPass(**whole_chroma))
        for number in range(6):
            assert (step.degrade(picture(), seeded(0, number)) - picture()).abs().max() < 7 / 255

    def test_all_is_what_was_asked_for(self) -> None:
        assert Pass().weakened(1.0) == Pass()

    def test_half_shrinks_ranges_by_half(self) -> None:
        half = Pass(width=(0.4, 2.0), sigma=(0, 30), quality=(40, 90), factor=(0.5, 2.0)).weakened(0.5)
        assert half.width == (0.2, 1.0) and half.sigma == (0, 15)
        assert half.quality == (70, 95) and half.factor == (0.75, 1.5)


class TestNoise:
    FLAT = torch.full((3, 64, 64), 0.5)

    def noise(self, **parameters: object) -> Tensor:
        return Pass(**parameters).noise(self.FLAT, seeded(1)) - self.FLAT  # type: ignore[arg-type]

    def test_gaussian(self) -> None:
        noise = self.noise(gaussian=1, sigma=(20, 20), gray=0)
        assert float(noise.std()) * 255 == pytest.approx(20, rel=0.03)

    def test_poisson_is_that_of_256_photons(self) -> None:
        for weight in (0.5, 1.0):
            noise = self.noise(gaussian=0, poisson=(weight, weight), gray=0)
            assert float(noise.std()) == pytest.approx(weight * math.sqrt(0.5 / 256), rel=0.03)
            assert float(noise.mean()) == pytest.approx(0.0, abs=2e-3)

    def test_poisson_grows_with_the_signal(self) -> None:
        steps = Pass(gaussian=0, poisson=(1, 1), gray=0)
        dark, bright = (steps.noise(torch.full((3, 64, 64), value), seeded(1)).std() for value in (0.1, 0.4))
        assert float(bright / dark) == pytest.approx(2.0, rel=0.05)

    @pytest.mark.parametrize("gaussian", [0, 1])
    def test_gray_noise_is_the_same_in_all_channels(self, gaussian: int) -> None:
        gray, colour = (self.noise(gaussian=gaussian, gray=share) for share in (1, 0))
        assert torch.allclose(gray, gray[:1].expand(3, -1, -1), atol=1e-6)
        assert not torch.allclose(colour, colour[:1].expand(3, -1, -1), atol=1e-2)


class TestBlur:
    def test_kernels_of_all_shapes_keep_flat_pictures(self) -> None:
        flat = torch.full((3, 32, 32), 0.3)
        for number in range(60):
            assert torch.allclose(Pass(ringing=0.3).blur(flat, seeded(0, number)), flat, atol=1e-4)

    def test_a_share_stays_sharp(self) -> None:
        kept = sum(torch.equal(Pass(blurred=0.8).blur(picture(), seeded(0, n)), picture()) for n in range(100))
        assert 8 <= kept <= 33


def test_sizes_in_between_are_drawn() -> None:
    step = Pass(enlarged=0.3, reduced=0.5, factor=(0.25, 1.5))
    sides = [step.resize(picture(), 96, 48, seeded(0, number)).shape[1:] for number in range(200)]
    heights = [height for height, _ in sides]
    assert 24 <= min(heights) < 30 and 138 < max(heights) <= 144
    assert heights.count(96) == pytest.approx(40, abs=25)
    assert all(abs(height - 2 * width) <= 2 for height, width in sides)


@pytest.mark.parametrize("side", [31, 64, 131])
def test_resizing_keeps_the_place(side: int) -> None:
    """By all methods: the middle of a symmetric picture stays its middle."""
    clean = picture()
    even = (clean + clean.flip(1, 2)) / 2
    results = [resized(even, side, side, seeded(0, number)) for number in range(12)]
    assert len({float(result.std()) for result in results}) >= 2
    assert all(torch.allclose(result, result.flip(1, 2), atol=1e-4) for result in results)


def test_parameters_left_out_of_the_second_pass_are_its_own() -> None:
    step = RealWorld(second={"sigma": (1, 2)})  # type: ignore[arg-type]
    assert step.second == SecondPass(sigma=(1, 2)) and step.second.width == (0.2, 1.5)


@pytest.mark.parametrize(
    "parameters",
    [
        {"scale": 5},
        {"scale": 0},
        {"strength": 1.1},
        {"strength": -0.1},
        {"ringing": 2},
        {"first": {"quality": (0, 90)}},
        {"first": {"factor": (1.1, 1.5)}},
        {"first": {"factor": (0.5, 0.9)}},
        {"second": {"enlarged": 0.6, "reduced": 0.5}},
        {"second": {"width": (2, 1)}},
        {"second": {"noise": 1}},
    ],
)
def test_parameters_out_of_range_are_refused(parameters: Mapping[str, object]) -> None:
    with pytest.raises(pydantic.ValidationError):
        RealWorld(**parameters)  # type: ignore[arg-type]
