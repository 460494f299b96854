from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from restorekit.data.degradation import seeded
from restorekit.data.relighting import Photograph
from restorekit.train import illuminant
from restorekit.train.illuminant import PHONE, Examples, angular_error, errors, fitted, pair

LIGHTS = torch.tensor([[0.5, 1.0, 0.65], [0.8, 1.0, 0.45], [1.05, 1.0, 0.35]])


def examples(seed: int, count: int = 24) -> Examples:
    """Scenes of muted colours under three lights."""
    pairs = []
    for index in range(count):
        generator = seeded(seed, index)
        light = LIGHTS[index % 3]
        surfaces = torch.rand(3, 8, 10, generator=generator) * 0.2 + torch.rand(1, 8, 10, generator=generator)
        picture = Photograph(surfaces.repeat_interleave(6, 1).repeat_interleave(6, 2) * light[:, None, None], light)
        pairs.append((*pair(picture, generator), light))
    return Examples.of(pairs)


def test_the_angular_error_is_an_angle() -> None:
    a = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 2.0, 3.0]])
    b = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [2.0, 4.0, 6.0]])
    assert angular_error(a, b).tolist() == pytest.approx([90.0, 45.0, 0.0], abs=0.03)


def test_a_pair_is_a_short_and_a_long_exposure() -> None:
    short, long = pair(Photograph(torch.rand(3, 40, 50), LIGHTS[0]), seeded(1))
    assert long.exposure.ev_offset == 0 and -4 <= (short.exposure.ev_offset or 0) <= -2
    clipped = long.masks["clipped"].any(0).float().mean()
    assert 0.03 < float(clipped) < 0.3


def shorter(monkeypatch: pytest.MonkeyPatch, method: str, steps: int, starts: int) -> None:
    recipe = replace(illuminant.FITS[method], steps=steps, batch=24, starts=starts)
    monkeypatch.setitem(illuminant.FITS, method, recipe)


@pytest.mark.parametrize(("method", "steps"), [("emlp", 400), ("eccc", 60)])
def test_an_estimator_learns(method: str, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shorter(monkeypatch, method, steps, 1)
    trained, tested = examples(1), examples(2)
    estimator = fitted(method, trained, seed=0)
    error = angular_error(estimator(tested.features, tested.histograms), tested.lights).mean()
    fixed = angular_error(trained.lights.mean(0).expand_as(tested.lights), tested.lights).mean()
    assert float(error) < 0.6 * float(fixed), "better than the mean light"


def test_training_is_repeatable_and_leaves_the_callers_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    shorter(monkeypatch, "eccc", 10, 2)
    trained = examples(1, 6)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, other = (fitted("eccc", trained, seed=3).state_dict() for _ in range(2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_best_of_several_starts_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = examples(1, 12)
    found = []
    for starts in (1, 4):
        shorter(monkeypatch, "eccc", 10, starts)
        found.append(float(errors(fitted("eccc", trained, seed=1), trained).mean()))
    assert found[1] <= found[0]


def test_without_the_feature_all_pairs_look_like_exact_multiples() -> None:
    plain = examples(1, 3).without_feature()
    assert torch.equal(plain.features, torch.eye(3).expand(3, 3, 3))


def test_a_phone_shows_all_effects() -> None:
    assert None not in (PHONE.clipped, PHONE.electrons, PHONE.read_noise, PHONE.knee, PHONE.bits) and PHONE.black_error
