"""Pictures made as bright as their reference."""

import pytest
import torch

from restorekit.color.ycbcr import luma
from restorekit.metrics.brightness import mean_corrected

REFERENCE = torch.randint(40, 120, (3, 6, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def gray(picture: torch.Tensor) -> float:
    return float(luma(picture.double(), limited=False).mean())


def test_the_mean_of_gray_becomes_that_of_the_reference_by_one_factor() -> None:
    dark = REFERENCE // 3
    corrected = mean_corrected(dark, REFERENCE)
    assert gray(corrected) == pytest.approx(gray(REFERENCE))
    ratio = corrected / dark
    assert float(ratio.min()) == pytest.approx(float(ratio.max()))


def test_white_is_not_exceeded() -> None:
    dark = torch.zeros(3, 4, 4, dtype=torch.uint8)
    dark[:, 0, 0] = 200
    assert float(mean_corrected(dark, torch.full_like(dark, 100)).max()) == 255.0


def test_black_stays_black() -> None:
    black = torch.zeros_like(REFERENCE)
    assert not mean_corrected(black, REFERENCE).any()
