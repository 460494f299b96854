"""Smaller pictures are those of the evaluation, and lie where the large ones lie."""

from __future__ import annotations

from collections.abc import Mapping

import pydantic
import pytest
import torch
from torch import Tensor

from restorekit.data.degradation import Chain, Degradation, quantized, seeded, whole
from restorekit.data.downscale import Bicubic, Blur
from restorekit.data.noise import GaussianNoise
from restorekit.metrics.super_resolution import reduced

SCALES = range(2, 9)


def codes(height: int, width: int, seed: int = 0, step: int = 1) -> Tensor:
    """Random bytes in few or many steps: with few, sums lie exactly between two codes more often."""
    return torch.randint(0, 256, (3, height, width), generator=seeded(seed, step), dtype=torch.uint8) // step * step


def part(picture: Tensor, top: int, left: int, side: int, margin: int = 0) -> Tensor:
    return picture[:, top - margin : top + side + margin, left - margin : left + side + margin]


class TestBicubic:
    @pytest.mark.parametrize("scale", SCALES)
    @pytest.mark.parametrize("step", [1, 64])
    def test_is_exactly_what_is_measured(self, scale: int, step: int) -> None:
        for height, width in ((41, 60), (33, 7), (1, 2)):
            clean = codes(height * scale, width * scale, step=step)
            result = Bicubic(scale=scale).degrade(clean / 255.0, seeded(0))
            assert torch.equal(result, reduced(clean, scale) / 255.0)

    @pytest.mark.parametrize("scale", SCALES)
    @pytest.mark.parametrize("step", [1, 64])
    def test_a_patch_with_its_margin_is_exactly_a_part_of_the_whole(self, scale: int, step: int) -> None:
        clean = codes(60 * scale, 50 * scale, step=step)
        chain, generator = Chain([Bicubic(scale=scale)]), seeded(1)
        expected, edge = reduced(clean, scale) / 255.0, chain.margin // scale
        for _ in range(8):
            side = whole(generator, 5, 30)
            top, left = (whole(generator, edge, size - side - edge) for size in (60, 50))
            result = chain(part(clean, top * scale, left * scale, side * scale, chain.margin) / 255.0, generator)
            assert torch.equal(part(result, edge, edge, side), part(expected, top, left, side))

    def test_takes_what_an_earlier_step_made(self) -> None:
        """Noise that leaves 0..1 is averaged before it is clipped."""
        clean = torch.ones(3, 64, 64)
        result = Chain([GaussianNoise(sigma=(50, 50)), Bicubic(scale=4)])(clean, seeded(0))
        assert float(result.max()) == 1.0 and 0.95 < float(result.mean()) < 0.99


class TestBlur:
    @pytest.mark.parametrize("scale", range(1, 9))
    def test_turned_pictures_give_turned_results(self, scale: int) -> None:
        """By half a turn, with the same kernel: nothing is shifted."""
        clean, step = codes(12 * scale, 15 * scale) / 255.0, Blur(scale=scale, width=(0.3, 2.0))
        result, turned = (step.degrade(each, seeded(3)) for each in (clean, clean.flip(1, 2)))
        assert result.shape == (3, 12, 15)
        assert (turned.flip(1, 2) - result).abs().max() < 1.5 / 255

    @pytest.mark.parametrize("scale", SCALES)
    def test_lies_where_the_bicubic_reduction_lies(self, scale: int) -> None:
        """A pixel of the result further would be 9.7 codes on this ramp, half a pixel of the picture 0.6 at least."""
        ramp = (torch.arange(24.0 * scale)[None, :, None] * 9.7 / scale / 255).expand(3, -1, 24 * scale)
        for clean in (ramp, ramp.transpose(1, 2)):
            blurred = Blur(scale=scale, width=(1.0, 1.5)).degrade(clean, seeded(0))
            bicubic = Bicubic(scale=scale).degrade(clean, seeded(0))
            assert float((blurred - bicubic)[:, 8:-8, 8:-8].mean().abs()) * 255 < 0.3

    def test_keeps_the_mean(self) -> None:
        for number in range(5):
            clean = codes(64, 64, number) / 255.0
            blurred = Blur(width=(0.5, 4.0)).degrade(clean, seeded(number))
            assert float(blurred.mean()) == pytest.approx(float(clean.mean()), abs=1e-3)

    def test_flat_pictures_stay(self) -> None:
        flat = torch.full((3, 40, 40), 77 / 255)
        assert torch.equal(Blur(scale=2).degrade(flat, seeded(0)), flat[:, ::2, ::2])

    def test_wider_is_smoother(self) -> None:
        clean = codes(64, 64) / 255.0
        spreads = [float(Blur(width=(w, w)).degrade(clean, seeded(0)).std()) for w in (0.0, 0.5, 1.0, 2.0, 4.0)]
        assert spreads == sorted(spreads, reverse=True)
        assert torch.equal(Blur(width=(0.0, 0.0)).degrade(clean, seeded(0)), clean)

    def test_directions_are_drawn(self) -> None:
        """A point becomes longer now this way, now that way."""
        point = torch.zeros(3, 41, 41)
        point[:, 20, 20] = 1.0
        longer = set()
        for number in range(30):
            spot = Blur(width=(0.7, 4.0)).degrade(point, seeded(0, number))[0]
            longer.add(float((spot > 0).any(0).sum()) > float((spot > 0).any(1).sum()))
        assert longer == {False, True}

    @pytest.mark.parametrize("scale", [1, 2, 3, 4])
    def test_a_patch_with_its_margin_is_a_part_of_the_whole(self, scale: int) -> None:
        """Up to halves that round otherwise, as sums of floats do."""
        clean, chain = codes(50 * scale, 50 * scale) / 255.0, Chain([Blur(scale=scale, width=(0.5, 3.0))])
        edge = chain.margin // scale
        patch = part(chain(part(clean, 15 * scale, 17 * scale, 20 * scale, chain.margin), seeded(2)), edge, edge, 20)
        difference = (patch - part(chain(clean, seeded(2)), 15, 17, 20)).abs()
        assert difference.max() < 1.5 / 255 and float((difference > 0).double().mean()) < 0.01


@pytest.mark.parametrize("step", [Bicubic(scale=2), Blur(), Blur(scale=3)])
def test_results_have_eight_bits(step: Degradation) -> None:
    result = step.degrade(codes(24, 36) / 255.0, seeded(0))
    assert torch.equal(quantized(result), result)


@pytest.mark.parametrize(
    ("step", "parameters"),
    [
        (Bicubic, {"scale": 1}),
        (Bicubic, {"scale": 9}),
        (Bicubic, {"scale": 2.5}),
        (Blur, {"scale": 0}),
        (Blur, {"scale": 9}),
        (Blur, {"width": (-1, 2)}),
        (Blur, {"width": (2, 1)}),
        (Blur, {"width": 2}),
    ],
)
def test_parameters_out_of_range_are_refused(step: type[Degradation], parameters: Mapping[str, object]) -> None:
    with pytest.raises(pydantic.ValidationError):
        step(**parameters)
