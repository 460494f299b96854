"""Unprocessing is undone by our own stages: exactly where a picture is even, nearly where it is smooth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

import restorekit as rk
from restorekit.color.camera import camera_to_rgb
from restorekit.data.degradation import seeded, uniform
from restorekit.data.unprocess import PATTERNS, Development, Method, developed, random_camera, unprocess
from restorekit.errors import InputError
from restorekit.facts import Camera

METHODS: tuple[Method, ...] = get_args(Method)


def drawn(seed: int) -> Development:
    generator = seeded(seed)
    camera = random_camera(generator, uniform(generator, (1.2, 2.6)), uniform(generator, (1.3, 3.0)))
    return Development(camera, uniform(generator, (0.6, 1.0)), uniform(generator, (0.0, 1.0)))


def smooth(height: int = 64, width: int = 72) -> Tensor:
    y, x = torch.meshgrid(torch.linspace(0, 3, height), torch.linspace(0, 3, width), indexing="ij")
    return torch.stack([0.5 + 0.35 * torch.sin(x + c) * torch.cos(y - 2 * c) for c in range(3)])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(6))
def test_even_colours_come_back_exactly(seed: int, method: Method) -> None:
    development = drawn(seed)
    for colour in ((0.5, 0.5, 0.5), (0.9, 0.2, 0.1), (0.03, 0.02, 0.98), (0.0, 0.0, 0.0), (0.1, 0.7, 0.3)):
        flat = torch.tensor(colour).view(3, 1, 1).expand(3, 18, 20)
        result = developed(unprocess(flat, development), development, method)
        assert float((result.pixels - flat).abs().max()) < 2e-4, colour


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(4))
def test_smooth_pictures_come_back(seed: int, method: Method) -> None:
    picture, development = smooth(), drawn(seed)
    before = picture.clone()
    result = developed(unprocess(picture, development), development, method)
    assert (result.state.reference, result.state.transfer, result.state.primaries) == ("display", "srgb", "bt709")
    assert float((result.pixels - picture)[:, 2:-2, 2:-2].abs().max()) < 0.01
    assert torch.equal(picture, before)


def test_photographs_come_back_without_cast_or_shift(shared_data: Path) -> None:
    files = sorted((shared_data / "photos" / "train").iterdir())[::60]
    for seed, path in enumerate(files):
        picture = rk.read(path).as_float().pixels[:, 200:330, 200:330]
        development = drawn(seed)
        error = developed(unprocess(picture, development), development).pixels.clamp(0, 1) - picture
        assert float(error.mean((1, 2)).abs().max()) < 0.01
        assert float(error.square().mean().sqrt()) < 0.06


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_photosite_has_the_colour_of_its_phase(pattern: str) -> None:
    camera = replace(random_camera(seeded(1)), cfa=(pattern[:2], pattern[2:]))
    development = Development(camera, white=0.7)
    light = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)  # linear
    expected = np.linalg.inv(camera_to_rgb(camera, development.neutral, "bt709")) @ light.numpy() * 0.7
    encoded = (1.055 * light ** (1 / 2.4) - 0.055).float().view(3, 1, 1).expand(3, 6, 8)
    mosaic = unprocess(encoded, development)
    assert mosaic.state == rk.ImageState("bayer", "scene", "linear", "camera")
    for index, colour in enumerate(pattern):
        sites = mosaic.pixels[0, index // 2 :: 2, index % 2 :: 2]
        assert torch.allclose(sites, torch.tensor(expected["RGB".index(colour)]).float(), atol=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_white_clips_in_every_channel_and_grows_no_darker(seed: int) -> None:
    development = drawn(seed)
    assert float(unprocess(torch.ones(3, 8, 8), development).pixels.min()) > 1.9
    steps = torch.linspace(0.9, 1.0, 21)
    ramp = torch.stack([torch.full((3, 8, 8), float(step)) for step in steps])
    shown = torch.stack([developed(unprocess(step, development), development).pixels[:, 4, 4] for step in ramp])
    assert float((shown - shown.mean(1, keepdim=True)).abs().max()) < 1e-4, "whites have no tint"
    assert bool((shown.diff(dim=0) > -1e-5).all())
    assert float((shown - steps[:, None]).min()) > -1e-4
    assert float((shown - steps[:, None]).max()) < 0.025


def test_cameras_repeat_with_their_seed_and_differ_otherwise() -> None:
    cameras = [random_camera(seeded(seed)) for seed in (*range(40), 0)]
    matrices = [camera.calibrations[0].color_matrix for camera in cameras]
    assert np.array_equal(matrices[0], matrices[-1])
    assert cameras[0].cfa == cameras[-1].cfa
    assert not np.allclose(matrices[0], matrices[1], atol=1e-3)
    assert {"".join(camera.cfa) for camera in cameras} == set(PATTERNS)
    assert cameras[0].neutral == pytest.approx((1 / 2.1, 1.0, 1 / 1.7))


def test_patches_with_their_margin_are_the_whole() -> None:
    picture = torch.rand((3, 60, 64), generator=seeded(7))
    development = replace(drawn(2), sharpness=0.5)
    whole = developed(unprocess(picture, development), development).pixels
    part = developed(unprocess(picture[:, 10:54, 8:56], development), development).pixels
    assert torch.allclose(whole[:, 20:44, 18:46], part[:, 10:-10, 10:-10], atol=1e-5)


def test_what_cannot_be_unprocessed_says_so() -> None:
    with pytest.raises(InputError, match="3,H,W"):
        unprocess(torch.zeros(1, 8, 8), drawn(1))
    with pytest.raises(InputError, match="Bayer pattern"):
        unprocess(torch.zeros(3, 8, 8), Development(Camera()))
