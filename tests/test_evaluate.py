"""Any callable with a scale is measured over a folder of references; one bad file does not stop the rest."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import restorekit as rk
from restorekit.errors import InputError
from restorekit.evaluate import Score, evaluate, means, references
from restorekit.frame import Frame
from restorekit.metrics.super_resolution import Bicubic, eight_bit, fidelity, reduced, whole_multiple
from restorekit.planes import to_float
from restorekit.state import SHORTHANDS

RNG = np.random.default_rng(0)


@dataclass
class Upscaler:
    """A model of one function; keeps the inputs that it is given."""

    scale: int
    function: Callable[[Tensor], Tensor]

    def __post_init__(self) -> None:
        self.given: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        self.given.append(x)
        return self.function(x)


def smooth(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Pixels of a picture that bicubic interpolation restores well but not perfectly."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / (3 + c) + c) * np.cos(y / (4 - c / 2)) for c in range(channels)]
    return ((np.stack(waves, -1) + 1) * 110 + RNG.uniform(0, 30, (height, width, channels))).astype(np.uint8)


def photo(path: Path, height: int = 45, width: int = 38) -> Path:
    Image.fromarray(smooth(height, width)).save(path)
    return path


def one(model: Upscaler | Bicubic, path: Path) -> Score:
    (score,) = evaluate(model, [path])
    return score


def test_measures_are_those_of_the_protocol(tmp_path: Path) -> None:
    path = photo(tmp_path / "a.png")
    model = Upscaler(2, Bicubic(2))
    score = one(model, path)
    reference = whole_multiple(rk.read(path).pixels, 2)
    (given,) = model.given
    assert torch.equal(given, to_float(reduced(reference, 2))[None]) and given.shape == (1, 3, 22, 19)
    found = fidelity(reference, eight_bit(Bicubic(2)(given)[0]), 2)
    assert (score.width, score.height, score.error, score.notes) == (38, 44, None, ())
    expected = {"psnr_y_db": found.psnr_y, "ssim_y": found.ssim_y, "psnr_rgb_db": found.psnr_rgb}
    assert score.measures == expected and 15 < found.psnr_y < 50


def test_a_perfect_model_has_an_infinite_psnr(tmp_path: Path) -> None:
    path = photo(tmp_path / "a.png")
    reference = whole_multiple(rk.read(path).pixels, 3)
    score = one(Upscaler(3, lambda x: reference[None] / 255), path)
    assert score.measures["psnr_y_db"] == score.measures["psnr_rgb_db"] == math.inf
    assert score.measures["ssim_y"] == pytest.approx(1)


def test_equal_pictures_are_left_out_of_the_mean() -> None:
    scores = [
        Score(Path(name), measures={"psnr": value}) for name, value in (("a", 30.0), ("b", math.inf), ("c", 34.0))
    ]
    assert means(scores) == {"psnr": 32.0}
    assert means([scores[1]]) == {"psnr": math.inf}


def test_values_outside_the_range_are_clipped(tmp_path: Path) -> None:
    path = photo(tmp_path / "a.png")
    wide = one(Upscaler(2, lambda x: Bicubic(2)(x) * 3 - 1), path)
    narrow = one(Upscaler(2, lambda x: (Bicubic(2)(x) * 3 - 1).clamp(0, 1)), path)
    assert wide.measures == narrow.measures


def test_gray_is_a_picture_of_three_equal_channels(tmp_path: Path) -> None:
    gray = smooth(40, 40, 1)
    Image.fromarray(gray[..., 0]).save(tmp_path / "gray.png")
    Image.fromarray(gray.repeat(3, 2)).save(tmp_path / "rgb.png")
    first, second = evaluate(Bicubic(2), [tmp_path / "gray.png", tmp_path / "rgb.png"])
    assert first.error is None and first.measures == second.measures


def test_what_is_left_out_of_a_reference_is_noted(tmp_path: Path) -> None:
    pixels = smooth(40, 40)
    Image.fromarray(pixels).save(tmp_path / "plain.png")
    Image.fromarray(np.concatenate([pixels, pixels[..., :1]], -1)).save(tmp_path / "alpha.png")
    cv2.imwrite(str(tmp_path / "deep.png"), pixels[..., ::-1].astype(np.uint16) * 257)
    plain, alpha, sixteen = evaluate(Bicubic(2), [tmp_path / f"{name}.png" for name in ("plain", "alpha", "deep")])
    assert plain.measures == alpha.measures == sixteen.measures
    assert not plain.notes and "alpha is ignored" in alpha.notes[0] and "rounded to 8" in sixteen.notes[0]


def test_a_file_that_cannot_be_used_is_named_and_the_rest_go_on(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:200])
    photo(tmp_path / "c.png", 18, 30)
    rk.write(Frame(torch.rand(3, 40, 40), SHORTHANDS["scene-linear"]), tmp_path / "d.exr")
    photo(tmp_path / "e.png")
    scores = list(evaluate(Bicubic(4), references(tmp_path)))
    said = [score.error or "" for score in scores]
    assert said[0] == said[4] == "" and all(str(score.path) in score.error for score in scores if score.error)
    assert "is 30x18, a scale of 4 needs at least 20x20 px" in said[2] and "SDR pictures" in said[3] and said[1]
    expected = (scores[0].measures["psnr_y_db"] + scores[4].measures["psnr_y_db"]) / 2
    assert means(scores)["psnr_y_db"] == pytest.approx(expected)
    assert means(scores[1:4]) == {}


def test_a_model_that_does_not_keep_its_promise_is_refused(tmp_path: Path) -> None:
    path = photo(tmp_path / "a.png")
    assert "the model makes 19x22 instead of 38x44" in (one(Upscaler(2, lambda x: x), path).error or "")
    assert "not finite" in (one(Upscaler(2, lambda x: Bicubic(2)(x) / 0), path).error or "")


def test_lpips_is_of_the_inside_of_rgb(tmp_path: Path) -> None:
    path = photo(tmp_path / "a.png")
    shapes = []

    def distance(first: Tensor, second: Tensor) -> Tensor:
        shapes.append((first.shape, second.shape, float(first.max()) <= 1))
        return (first - second).abs().mean((1, 2, 3))

    (score,) = evaluate(Bicubic(2), [path], distance)
    assert shapes == [((1, 3, 40, 34), (1, 3, 40, 34), True)] and 0 < score.measures["lpips"] < 0.2
    small = photo(tmp_path / "b.png", 30, 40)
    assert one(Bicubic(2), small).error is None
    (refused,) = evaluate(Bicubic(2), [small], distance)
    assert "needs at least 36x36" in (refused.error or "")


def test_references_are_the_pictures_of_a_folder_in_their_order(tmp_path: Path) -> None:
    for name in ("b10.png", "b9.png", "notes.txt", ".hidden.png", "A1.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "inner.png").mkdir()
    assert [path.name for path in references(tmp_path)] == ["A1.jpg", "b9.png", "b10.png"]
    with pytest.raises(InputError, match="holds no readable image"):
        references(tmp_path / "inner.png")
    with pytest.raises(InputError, match="is no folder"):
        references(tmp_path / "b9.png")
