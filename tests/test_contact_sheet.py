"""A sheet shows where the input is farthest from the reference, pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from restorekit.contact_sheet import Sheets, farthest, sheet, shown_input
from restorekit.evaluate import Restoration
from restorekit.planes import to_float
from restorekit.protocols import denoising, super_resolution

RNG = torch.Generator().manual_seed(0)


def restoration(height: int = 50, width: int = 70, scale: int = 1) -> Restoration:
    reference, restored = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=RNG)
    given = to_float(reference)[:, ::scale, ::scale].clone()
    return Restoration(Path("a.png"), reference, given, restored)


@pytest.mark.parametrize(("y", "x"), [(0, 0), (25, 40), (49, 69)])
def test_the_crop_holds_the_largest_difference_and_lies_in_the_picture(y: int, x: int) -> None:
    first = torch.zeros(3, 50, 70, dtype=torch.uint8)
    second = first.clone()
    second[:, y, x] = 9
    top, left, height, width = farthest(first, second, 16)
    assert (height, width) == (16, 16) and top <= y < top + 16 and left <= x < left + 16
    assert 0 <= top <= 34 and 0 <= left <= 54
    assert farthest(first, second, 60)[2:] == (50, 60), "no more than there is"


def test_three_pictures_stand_side_by_side_as_they_are() -> None:
    made = restoration()
    page = sheet(made, "m", denoising())
    cell = (page.shape[2] + 8) // 3
    for index, picture in enumerate((made.reference, made.reference, made.restored)):
        assert torch.equal(page[:, :50, index * cell : index * cell + 70], picture)
    assert all(page[:, 50:, index * cell : (index + 1) * cell].max() > 100 for index in range(3)), "labels"


def test_small_inputs_are_enlarged_and_noise_is_clipped() -> None:
    enlarged, said = shown_input(restoration(scale=2).given, 2)
    assert enlarged.shape == (3, 50, 70) and said == "input, bicubic"
    noisy, said = shown_input(torch.tensor([-0.5, 0.5, 1.5]).view(1, 1, 3), 1)
    assert noisy.tolist() == [[[0, 128, 255]]] * 3 and said == "input"


def test_files_are_named_after_picture_and_model(tmp_path: Path) -> None:
    sheets = Sheets(tmp_path, "folder/my model:1.pth", super_resolution(2))
    made = restoration(scale=2)
    sheets(made)
    sheets(made)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["a_my_model_1.pth.png", "a_my_model_1.pth_2.png"]
    assert (
        np.asarray(Image.open(tmp_path / names[0]))
        == sheet(made, "my model:1.pth", super_resolution(2)).permute(1, 2, 0).numpy()
    ).all()
