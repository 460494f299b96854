from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from restorekit.errors import ModelError
from restorekit.stages.illuminant_models import (
    BIN,
    BINS,
    ESTIMATORS,
    LOWEST,
    Eccc,
    Emlp,
    dual_exposure_feature,
    load_estimator,
    log_chroma_histogram,
)
from restorekit.zoo import cards, checkpoint
from restorekit.zoo.verify import problem

METHODS = pytest.mark.parametrize("method", ESTIMATORS)


def points(count: int = 500, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(0.05, 1.0, (3, count))).float()


def test_frames_that_differ_by_a_factor_give_the_identity() -> None:
    assert torch.allclose(dual_exposure_feature(points(), 4 * points()), torch.eye(3), atol=1e-5)


def test_the_feature_is_the_solution_of_least_squares() -> None:
    short, long = points(seed=1).double(), points(seed=2).double()
    chromaticities = [(frame / frame.sum(0)).numpy() for frame in (short, long)]
    solution, *_ = np.linalg.lstsq(chromaticities[0].T, chromaticities[1].T, rcond=None)
    assert dual_exposure_feature(short.float(), long.float()).numpy() == pytest.approx(solution.T, abs=1e-5)


def test_the_feature_does_not_depend_on_exposure() -> None:
    found = dual_exposure_feature(points(seed=1), points(seed=2))
    assert torch.allclose(dual_exposure_feature(3 * points(seed=1), points(seed=2) / 7), found, atol=1e-5)


def test_noise_makes_the_feature_tell_the_mean_colour() -> None:
    """Least squares with noise in the short frame shrink to what is common to all points: the mean chromaticity."""
    light = torch.tensor([[0.5], [0.3], [0.2]])
    short = light + 0.05 * torch.randn(3, 20000, generator=torch.Generator().manual_seed(0))
    found = dual_exposure_feature(short, light.expand(3, 20000))
    assert torch.allclose(found.mean(1), light[:, 0], atol=0.01)


def test_points_without_light_or_number_do_not_count() -> None:
    short, long = points(seed=1), points(seed=2)
    spoiled = torch.tensor([[0.0, np.nan, -1.0], [0.0, 0.2, -1.0], [0.0, 0.2, -1.0]])
    found = dual_exposure_feature(torch.cat([short, spoiled], 1), torch.cat([long, points(3)], 1))
    assert torch.allclose(found, dual_exposure_feature(short, long), atol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_points_give_a_small_matrix(count: int) -> None:
    short = points(count)
    found = dual_exposure_feature(short, short)
    assert torch.allclose(found, found @ found, atol=1e-5), "a projection: what is not seen becomes 0"
    assert round(float(found.trace())) == count


def test_a_histogram_lies_where_its_colours_do() -> None:
    u, v = 0.4, -0.3
    color = torch.tensor([[float(np.exp(-u))], [1.0], [float(np.exp(-v))]]) * 0.2
    shares = log_chroma_histogram(color).square()
    centres = LOWEST + BIN * torch.arange(BINS)
    assert float(shares.sum()) == pytest.approx(1.0, rel=1e-4)
    assert float(shares.sum(1) @ centres) == pytest.approx(u, abs=1e-4)
    assert float(shares.sum(0) @ centres) == pytest.approx(v, abs=1e-4)
    assert int((shares > 0).sum()) == 4


def test_a_histogram_knows_neither_brightness_nor_number() -> None:
    samples = points()
    assert torch.allclose(
        log_chroma_histogram(torch.cat([samples, 5 * samples], 1)), log_chroma_histogram(samples), atol=1e-5
    )


def test_what_is_outside_of_a_histogram_does_not_count() -> None:
    outside = torch.tensor([[1e-4, -1.0, 0.0, 50.0], [1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    assert not log_chroma_histogram(outside).any()


def test_the_parameters_are_as_many_as_in_the_paper() -> None:
    counted = [sum(weights.numel() for weights in estimator().parameters()) for estimator in (Emlp, Eccc)]
    assert counted == [354, 6156]


def test_the_identity_takes_all_biases_alike_and_shares_add_up() -> None:
    features = torch.eye(3) + torch.randn(20, 3, 3, generator=torch.Generator().manual_seed(1))
    weights = Eccc().weights(torch.cat([torch.eye(3)[None], features]))
    assert torch.allclose(weights[0], torch.full((4,), 0.25))
    assert torch.allclose(weights.sum(1), torch.ones(21)) and bool((weights >= 0).all())


def test_a_light_that_shifts_the_histograms_shifts_the_estimate() -> None:
    """Convolution: colours moved by some bins move the light by as many, with no bias."""
    estimator = Eccc()
    with torch.no_grad():
        estimator.filters[:, 0, 0] = 40.0
    histograms = torch.zeros(2, 2, BINS, BINS)
    histograms[0, :, 10, 12] = histograms[1, :, 13, 11] = 1.0
    with torch.no_grad():
        found = estimator(torch.eye(3).expand(2, 3, 3), histograms).log()
    assert torch.allclose(found[1] - found[0], torch.tensor([-3 * BIN, 0.0, BIN]), atol=1e-4)


@METHODS
def test_the_weights_in_the_box_are_whole_and_small(method: str) -> None:
    card = cards.card(f"illuminant.{method}")
    assert problem(card) is None
    assert card.architecture == method and card.task == "illuminant"
    found = load_estimator(card)
    assert not any(weights.requires_grad for weights in found.parameters())


def test_wrong_weights_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESTOREKIT_HOME", str(tmp_path))
    checkpoint.write(tmp_path / "models" / "illuminant.emlp.safetensors", {"layers.0.weight": torch.zeros(2)}, {})
    with pytest.raises(ModelError, match="holds no weights of emlp"):
        load_estimator(cards.card("illuminant.emlp"))
