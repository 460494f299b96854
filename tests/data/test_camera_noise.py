"""Camera noise repeats with its seed, has the levels that it says, correlates as after demosaicing, casts no colour."""

from __future__ import annotations

from typing import Any

import numpy as np
import pydantic
import pytest
import torch
from torch import Tensor

from restorekit.data.camera_noise import CameraNoise, read_noise
from restorekit.data.degradation import seeded
from restorekit.data.sensor import recorded
from restorekit.data.unprocess import Development, random_camera, unprocess
from restorekit.errors import InputError
from restorekit.stages.raw import BlackLevel
from restorekit.testing import bayer_frame, rgb_frame


def gray(level: float, side: int = 96) -> Tensor:
    return torch.full((3, side, side), level)


def at(shot: float, **more: Any) -> CameraNoise:
    return CameraNoise(shot=(shot, shot), **{"sharpened": 0.0, **more})


def test_a_seed_repeats_and_another_differs() -> None:
    picture = torch.rand((3, 40, 44), generator=seeded(1))
    before = picture.clone()
    noise = CameraNoise()
    first, again, other = (noise.degrade(picture, seeded(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(picture, before)


def test_results_are_pictures_of_8_bits() -> None:
    for seed in range(4):
        result = CameraNoise(sharpened=0.5).degrade(torch.rand((3, 33, 47), generator=seeded(seed)), seeded(seed))
        assert result.shape == (3, 33, 47)
        assert result.dtype == torch.float32
        assert float(result.min()) >= 0
        assert float(result.max()) <= 1
        assert torch.equal((result * 255).round() / 255, result)


def test_light_on_the_sensor_has_the_variance_that_is_said() -> None:
    development = Development(random_camera(seeded(1)))
    shot, read = 2e-3, 3e-5
    for level in (0.1, 0.5, 0.85):
        clean = unprocess(gray(level, 240), development)
        numbers = recorded(clean, shot, read, 14, seeded(3))
        assert numbers.state.reference == "sensor"
        assert numbers.pixels.dtype == torch.uint16
        seen = BlackLevel()(numbers)
        assert seen.facts.noise == ((shot, read),) * 3
        for row in (0, 1):
            for column in (0, 1):
                x = clean.pixels[0, row::2, column::2].double()
                noise = seen.pixels[0, row::2, column::2].double() - x
                expected = shot * float(x.mean()) + read
                assert float(noise.var()) == pytest.approx(expected, rel=0.06)
                assert abs(float(noise.mean())) < 4 * (expected / noise.numel()) ** 0.5 + 1e-4


def test_recording_without_noise_rounds_to_the_levels_and_no_more() -> None:
    frame = bayer_frame()
    for bits in (10, 12, 14):
        numbers = recorded(frame, 0.0, 0.0, bits, seeded(1))
        assert int(numbers.pixels.numpy().max()) <= 2**bits - 1
        error = BlackLevel()(numbers).pixels - frame.pixels
        assert float(error.abs().max()) < 0.6 / (2**bits * 15 / 16)


def test_only_mosaics_of_light_are_recorded() -> None:
    with pytest.raises(InputError, match="scene-referred Bayer mosaics"):
        recorded(rgb_frame(), 0.0, 0.0, 12, seeded(1))


def test_read_noise_follows_the_line_of_the_paper() -> None:
    """log(read) = 2.18 log(shot) + 1.20: for 0.01, exp(-10.0393 + 1.20)."""
    assert read_noise(0.01) == pytest.approx(1.450e-4, rel=1e-3)
    assert read_noise(0.01, 0.26) == pytest.approx(1.450e-4 * 1.29693, rel=1e-3)


def test_more_electrons_less_noise() -> None:
    deviations = [float(at(shot).degrade(gray(0.5), seeded(2)).std()) for shot in (1e-4, 1e-3, 1e-2)]
    assert deviations[0] < 0.5 * deviations[1] < 0.25 * deviations[2]


def test_noise_is_coarse_and_colourful_as_after_demosaicing() -> None:
    result = at(2e-3, contrast=(0.0, 0.0)).degrade(gray(0.6, 200), seeded(3)).double()
    noise = result - result.mean((1, 2), keepdim=True)
    beside = [float((plane[:, 1:] * plane[:, :-1]).mean() / plane.square().mean()) for plane in noise]
    assert beside[0] > 0.2, "red is interpolated between photosites two apart"
    assert beside[2] > 0.2
    red, green, blue = (float(plane.std()) for plane in noise)
    assert min(red, blue) > green, "white balance multiplies the noise of red and blue"


def test_pictures_keep_their_colour() -> None:
    colours = torch.tensor([(0.5, 0.5, 0.5), (0.7, 0.4, 0.3), (0.3, 0.5, 0.7), (0.9, 0.9, 0.9)])
    for seed, colour in enumerate(colours):
        flat = colour.view(3, 1, 1).expand(3, 128, 128)
        shift = at(1e-3).degrade(flat, seeded(seed)).mean((1, 2)) - colour
        assert float(shift.abs().max()) < 0.01


def test_nothing_moves() -> None:
    y, x = np.mgrid[:64, :64]
    blob = torch.from_numpy(np.exp(-((x - 30.3) ** 2 + (y - 33.7) ** 2) / 60).astype(np.float32)).mul(0.7).add(0.1)
    places = torch.from_numpy(np.stack((x - 30.3, y - 33.7)))
    centres = []
    for seed in range(24):
        weight = (at(1e-4).degrade(blob.expand(3, -1, -1), seeded(seed)).double() - 0.15).clamp(min=0)
        centres.append((weight[:, None] * places).sum((2, 3)) / weight.sum((1, 2))[:, None])
    assert float(torch.stack(centres).mean(0).abs().max()) < 0.05, "half a photosite would be 0.5"


def test_blown_highlights_have_no_noise() -> None:
    for seed in range(4):
        assert torch.equal(at(2e-3).degrade(gray(1.0), seeded(seed)), gray(1.0))


def test_margin_is_what_demosaicing_and_sharpening_look_at() -> None:
    assert CameraNoise(methods=("bilinear",), sharpened=0.0).margin == 2
    assert CameraNoise(methods=("malvar", "menon"), sharpened=0.0).margin == 8
    assert CameraNoise(sharpened=0.1).margin == 10


@pytest.mark.parametrize(
    "wrong", [{"shot": (1e-2, 1e-4)}, {"shot": (0.0, 1e-2)}, {"white": (0.1, 0.5)}, {"methods": ()}, {"bits": (40,)}]
)
def test_parameters_out_of_range_are_refused(wrong: Any) -> None:
    with pytest.raises(pydantic.ValidationError):
        CameraNoise(**wrong)
