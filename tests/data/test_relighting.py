from __future__ import annotations

import pytest
import torch

from restorekit.data.degradation import seeded
from restorekit.data.relighting import (
    Photograph,
    drawn_light,
    log_chroma,
    matched,
    random_camera,
    sees,
)

LIGHT = torch.tensor([0.5, 0.8, 0.3])


def photograph() -> Photograph:
    reflectance = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0)) * 0.9
    reflectance[:, 3, 4] = 0.7  # a gray surface
    return Photograph(reflectance * LIGHT[:, None, None] / LIGHT.max(), LIGHT)


def test_gray_surfaces_have_the_colour_of_the_new_light() -> None:
    other = torch.tensor([1.0, 1.0, 0.4])
    for lit in (photograph().relit(other), photograph().seen_by(random_camera(seeded(1), 0.05))):
        gray = lit.pixels[:, 3, 4]
        assert torch.allclose(gray / gray[1], lit.light / lit.light[1], atol=1e-5)


def test_green_stays_when_the_light_changes() -> None:
    assert torch.equal(photograph().relit(torch.tensor([1.0, 1.0, 0.4])).pixels[1], photograph().pixels[1])


def test_what_is_clipped_becomes_a_lamp_of_the_light() -> None:
    clipped = photograph()
    clipped.pixels[0, 2, 2] = 1.0
    found = clipped.beyond_clipping().pixels
    assert torch.allclose(found[:, 2, 2] / found[1, 2, 2], LIGHT / LIGHT[1]) and float(found[:, 2, 2].min()) > 100
    found[:, 2, 2] = clipped.pixels[:, 2, 2]
    assert torch.equal(found, clipped.pixels)


def test_pictures_beside_each_other_are_in_one_light() -> None:
    other = Photograph(
        torch.full((3, 20, 10), 0.5) * torch.tensor([1.0, 0.9, 0.2])[:, None, None], torch.tensor([1.0, 0.9, 0.2])
    )
    found = photograph().beside(other, 0.5)
    assert found.pixels.shape == (3, 20, 40) and torch.equal(found.light, LIGHT)
    left, right = found.pixels[:, :, :30], found.pixels[:, :, 30:]
    assert torch.allclose(right[:, 0, 0] / right[1, 0, 0], LIGHT / LIGHT[1], atol=1e-5), (
        "a gray card in the other light"
    )
    assert float(left.mean()) == pytest.approx(1.0, rel=1e-4)
    assert float(right.mean()) == pytest.approx(0.5, rel=1e-4)


def test_a_part_lies_in_the_picture() -> None:
    whole = photograph()
    for seed in range(5):
        part = whole.part(seeded(seed), 0.5, 2).pixels
        assert part.shape[1] >= 5 and part.shape[2] >= 7
        assert bool(torch.isin(part, whole.pixels).all())


def test_lights_are_matched_in_log_chroma() -> None:
    random = torch.Generator().manual_seed(0)
    lights, like = torch.rand(50, 3, generator=random) + 0.2, torch.rand(40, 3, generator=random) + 0.1
    found = log_chroma(matched(lights, like))
    assert torch.allclose(found.mean(0), log_chroma(like).mean(0), atol=1e-5)
    assert torch.allclose(found.std(0), log_chroma(like).std(0), atol=1e-5)


def test_a_drawn_light_is_near_one_of_the_list() -> None:
    lights = torch.tensor([[0.5, 1.0, 0.6], [1.0, 1.0, 0.3]])
    for seed in range(10):
        away = (log_chroma(drawn_light(lights, seeded(seed), 0.02)[None]) - log_chroma(lights)).abs().amax(1)
        assert 0 < float(away.min()) < 0.1


@pytest.mark.parametrize(("light", "seen"), [((0.5, 1.0, 0.6), True), ((1.0, 1.0, 0.05), False)])
def test_cameras_that_miss_a_channel_are_known(light: tuple[float, ...], seen: bool) -> None:
    assert sees(torch.eye(3), torch.tensor(light)) == seen
