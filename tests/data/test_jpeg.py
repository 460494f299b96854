"""JPEG is libjpeg's, and its blocks begin where they should."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pydantic
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from restorekit.data.degradation import Chain, quantized, seeded
from restorekit.data.jpeg import Jpeg, compressed
from restorekit.io import read
from restorekit.metrics.psnr import psnr


def picture(height: int = 96, width: int = 96) -> Tensor:
    """Coarse and fine structure in all channels."""
    layers = [torch.rand((1, 3, *size), generator=seeded(*size)) for size in ((7, 9), (30, 25), (height, width))]
    large = [interpolate(layer, (height, width), mode="bilinear")[0] for layer in layers]
    return quantized(0.5 * large[0] + 0.3 * large[1] + 0.2 * large[2])


def jpeg(quality: int, subsampled: float = 0.0, shifted: float = 0.0, again: float = 0.0) -> Jpeg:
    return Jpeg(quality=(quality, quality), subsampled=subsampled, shifted=shifted, again=again)


def decibels(result: Tensor, clean: Tensor) -> float:
    return psnr(result.double(), clean.double())


def strongest_edge(result: Tensor, block: int) -> tuple[int, int]:
    """The row and the column, of those of a block, that differ most from the one before."""
    found = []
    for dim in (1, 2):
        steps = result.diff(dim=dim).abs().mean(dim=(0, 3 - dim))
        found.append(max(range(block), key=lambda first: float(steps[(first - 1) % block :: block].mean())))
    return found[0], found[1]


def test_classic5_has_the_published_psnr(shared_data: Path) -> None:
    """27.82 dB at quality 10: of the compressed pictures in Jiang et al. (FBCNN), and in papers since ARCNN."""
    values = []
    for number in range(1, 6):
        clean = read(shared_data / "bench" / "classic5" / f"{number}.bmp").as_float().pixels[:1].expand(3, -1, -1)
        values.append(decibels(jpeg(10).degrade(clean, seeded(0)), clean))
    assert sum(values) / 5 == pytest.approx(27.82, abs=0.005)


@pytest.mark.parametrize("subsampled", [0.0, 1.0])
def test_better_quality_is_nearer_to_the_picture(subsampled: float) -> None:
    values = [decibels(jpeg(q, subsampled).degrade(picture(), seeded(0)), picture()) for q in (5, 10, 20, 40, 80, 100)]
    assert values == sorted(values) and values[0] < 25 < values[-1]


def test_quality_100_is_all_but_lossless() -> None:
    assert (jpeg(100).degrade(picture(), seeded(0)) - picture()).abs().max() < 5 / 255


@pytest.mark.parametrize("again", [0.0, 1.0])
def test_the_result_has_eight_bits(again: float) -> None:
    result = jpeg(20, 0.5, 0.5, again).degrade(picture(), seeded(0))
    assert torch.equal(quantized(result), result)


def test_the_picture_is_rounded_first() -> None:
    """What does not have eight bits, or leaves 0..1, counts as the nearest code."""
    noisy = picture() + 0.4 * torch.randn((3, 96, 96), generator=seeded(1))
    assert torch.equal(jpeg(30).degrade(noisy, seeded(0)), jpeg(30).degrade(quantized(noisy), seeded(0)))


class TestGray:
    def test_channels_stay_equal(self) -> None:
        gray = picture()[:1].expand(3, -1, -1)
        for number in range(5):
            result = Jpeg(shifted=0.5, again=0.5).degrade(gray, seeded(0, number))
            assert torch.equal(result, result[:1].expand(3, -1, -1))

    def test_chroma_is_nothing_to_it(self) -> None:
        gray = picture()[:1].expand(3, -1, -1)
        assert torch.equal(*(compressed(gray, 20, subsampled) for subsampled in (False, True)))

    def test_colour_stays(self) -> None:
        red = torch.zeros(3, 32, 32)
        red[0] = 0.8
        assert (jpeg(60).degrade(red, seeded(0)) - red).abs().max() < 4 / 255


def test_subsampling_costs_chroma_alone() -> None:
    """Red and blue stripes of equal luma become one colour; a gray pattern stays."""
    stripes = torch.zeros(3, 64, 64)
    stripes[0, :, ::2], stripes[2, :, 1::2], stripes[1, :, 1::2] = 200 / 255, 200 / 255, 63 / 255
    full, half = (jpeg(90, share).degrade(stripes, seeded(0)) for share in (0.0, 1.0))
    assert (full - stripes).abs().mean() < 0.03 < 0.2 < (half - stripes).abs().mean()


class TestBlocks:
    @pytest.mark.parametrize("subsampled", [0.0, 1.0])
    def test_begin_at_the_edge(self, subsampled: float) -> None:
        assert strongest_edge(jpeg(3, subsampled).degrade(picture(), seeded(0)), 8) == (0, 0)

    def test_begin_elsewhere_where_shifted(self) -> None:
        found = [strongest_edge(jpeg(3, shifted=1).degrade(picture(), seeded(0, n)), 8) for n in range(40)]
        assert {row for row, _ in found} == {column for _, column in found} == set(range(1, 8))

    def test_begin_so_many_pixels_before_the_picture(self) -> None:
        assert strongest_edge(compressed(picture(), 3, False, (3, 6)), 8) == (5, 2)

    @pytest.mark.parametrize(("subsampled", "block"), [(0.0, 8), (1.0, 16)])
    def test_a_patch_with_its_margin_is_a_part_of_the_whole(self, subsampled: float, block: int) -> None:
        chain = Chain([jpeg(20, subsampled)])
        assert chain.margin == block
        clean = picture(96, 112)
        top, left, side, margin = 2 * block, block, 32, chain.margin
        cut = clean[:, top - margin : top + side + margin, left - margin : left + side + margin]
        patch = chain(cut, seeded(0))[:, margin:-margin, margin:-margin]
        assert torch.equal(patch, chain(clean, seeded(0))[:, top : top + side, left : left + side])

    def test_a_shift_stays_within_the_margin(self) -> None:
        """What continues the picture at its edge does not reach the patch."""
        for number in range(20):
            step, clean = Jpeg(quality=(10, 10), subsampled=0.5, shifted=1), picture()
            other = clean.clone()
            other[:, 0], other[:, :, 0] = 0.0, 1.0
            results = [step.degrade(each, seeded(number))[:, 16:-16, 16:-16] for each in (clean, other)]
            assert torch.equal(*results)


class TestAgain:
    def test_costs_more_than_once(self) -> None:
        once, twice = (
            [decibels(jpeg(20, again=again).degrade(picture(), seeded(0, n)), picture()) for n in range(8)]
            for again in (0.0, 1.0)
        )
        assert sum(twice) / 8 < sum(once) / 8 - 0.3

    def test_the_last_blocks_begin_at_the_edge(self) -> None:
        step = Jpeg(quality=(3, 3), subsampled=0.0, again=1.0)
        found = [strongest_edge(step.degrade(picture(), seeded(0, n)), 8) for n in range(5)]
        assert set(found) == {(0, 0)}

    def test_qualities_are_drawn_twice(self) -> None:
        """A poor one before a good one, too: worse than the good one alone would ever be."""
        step = Jpeg(quality=(5, 95), subsampled=0.0, again=1.0)
        values = [decibels(step.degrade(picture(), seeded(0, n)), picture()) for n in range(60)]
        once = [decibels(jpeg(q).degrade(picture(), seeded(0)), picture()) for q in (5, 95)]
        assert min(values) < once[0] + 1 and max(values) < once[1] - 1


@pytest.mark.parametrize(
    "parameters",
    [
        {"quality": (0, 50)},
        {"quality": (50, 101)},
        {"quality": (60, 40)},
        {"quality": (10.5, 20)},
        {"subsampled": 1.1},
        {"shifted": -0.1},
        {"again": 2},
        {"chroma": "420"},
    ],
)
def test_parameters_out_of_range_are_refused(parameters: Mapping[str, object]) -> None:
    with pytest.raises(pydantic.ValidationError):
        Jpeg(**parameters)  # type: ignore[arg-type]
