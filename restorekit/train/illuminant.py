"""Training of the estimators of ``illuminant.dual_exposure`` on synthetic pairs of exposures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from restorekit.data.degradation import uniform
from restorekit.data.exposures import DualExposure, dual_exposure_frames
from restorekit.data.relighting import Photograph
from restorekit.frame import Frame
from restorekit.stages.illuminant_dual import observed
from restorekit.stages.illuminant_models import Eccc, Emlp
from restorekit.state import ImageState

STOPS = (2.0, 4.0)
"""Between the short and the long frame of a pair."""

PHONE = DualExposure(
    clipped=(0.05, 0.25),
    electrons=(250.0, 5000.0),
    read_noise=(4e-4, 8e-3),
    black_error=2e-3,
    knee=(0.6, 0.95),
    bits=12,
)
"""A phone's sensor of about 5000 electrons a photosite, at ISO 100 to 2000: 2 electrons of read noise, or more."""

CAMERA_RGB = ImageState("rgb", "scene", "linear", "camera")


@dataclass(frozen=True, eq=False)
class Examples:
    """What estimators see of N pairs, and the light: ``[N,3,3]``, ``[N,2,BINS,BINS]``, ``[N,3]``."""

    features: Tensor
    histograms: Tensor
    lights: Tensor

    @staticmethod
    def of(pairs: Iterable[tuple[Frame, Frame, Tensor]]) -> Examples:
        """What estimators see of short and long frames with their lights."""
        seen = [(*observed(short, long), light) for short, long, light in pairs]
        features, histograms, lights = (torch.stack(column) for column in zip(*seen, strict=True))
        return Examples(features, histograms, lights)

    def chosen(self, which: Tensor) -> Examples:
        """Some of them, by a mask or by indices."""
        return Examples(self.features[which], self.histograms[which], self.lights[which])

    def without_feature(self) -> Examples:
        """The same pairs with the identity, which says nothing, for the feature."""
        return Examples(torch.eye(3).expand_as(self.features), self.histograms, self.lights)


@dataclass(frozen=True)
class Fit:
    """How an estimator is fitted. ``smoothness`` weighs squared differences between neighbouring bins.

    Of several starts the one with the least error in training counts: some leave the bias of ECCC where it is.
    """

    steps: int
    rate: float
    batch: int
    decay: float = 0.0
    smoothness: float = 0.0
    starts: int = 1


FITS = {
    "emlp": Fit(steps=1500, rate=1e-2, batch=256, decay=1e-2),
    "eccc": Fit(steps=500, rate=0.1, batch=128, smoothness=1e-3, starts=4),
}


def pair(photograph: Photograph, generator: torch.Generator, options: DualExposure = PHONE) -> tuple[Frame, Frame]:
    """A short and a long frame of a scene, a drawn number of stops apart."""
    frame = Frame(photograph.pixels.contiguous(), CAMERA_RGB)
    return dual_exposure_frames(frame, uniform(generator, STOPS), generator, options)


def angular_error(found: Tensor, truth: Tensor) -> Tensor:
    """The angle between lights ``[...,3]``, in degrees; smooth where it is small, off by less than 0.03 there."""
    cosine = torch.cosine_similarity(found, truth, dim=-1)
    return torch.rad2deg(cosine.clamp(-1.0, 1.0 - 1e-7).arccos())


def fitted(method: str, examples: Examples, seed: int) -> Emlp | Eccc:
    """An estimator with the smallest mean angular error that its fit finds, in eval mode."""
    fit = FITS[method]
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        found = [_fitted_once(method, examples, fit) for _ in range(fit.starts)]
    return min(found, key=lambda estimator: float(errors(estimator, examples).mean()))


def errors(estimator: Emlp | Eccc, examples: Examples) -> Tensor:
    """The angular error ``[N]`` of every example, in degrees."""
    return angular_error(estimator(examples.features, examples.histograms), examples.lights)


def _fitted_once(method: str, examples: Examples, fit: Fit) -> Emlp | Eccc:
    estimator: Emlp | Eccc = Emlp() if method == "emlp" else Eccc()
    optimizer = torch.optim.AdamW(estimator.parameters(), lr=fit.rate, weight_decay=fit.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, fit.rate, fit.steps)
    for _ in range(fit.steps):
        batch = examples.chosen(torch.randint(0, len(examples.lights), (fit.batch,)))
        loss = errors(estimator, batch).mean()
        if isinstance(estimator, Eccc):
            loss = loss + fit.smoothness * (_roughness(estimator.filters) + _roughness(estimator.biases))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return estimator.eval().requires_grad_(False)


def _roughness(maps: Tensor) -> Tensor:
    """The sum of squared differences between neighbouring bins, wrapped around, of the mean of maps ``[K,U,V]``."""
    return ((maps - maps.roll(1, 1)).square() + (maps - maps.roll(1, 2)).square()).mean(0).sum()
