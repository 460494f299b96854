"""The colour of the light from a short and a long exposure of one scene."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import Annotated, Literal

import torch
from torch import Tensor

from restorekit.errors import StageError
from restorekit.frame import Bracket, Frame
from restorekit.stage import BracketStage, StageSpec, param, parameters
from restorekit.stages.illuminant import CAMERA_RGB, RGB, block_means, per_green, usable
from restorekit.stages.illuminant_models import (
    Eccc,
    Emlp,
    dual_exposure_feature,
    load_estimator,
    log_chroma_histogram,
)
from restorekit.zoo import cards

SAMPLES = 384 * 256
"""At most so many cells give the feature, and so many blocks the histograms: the pixels of the training pictures."""

LEAST_SAMPLES = 16
LEAST_STOPS = 0.5
"""Less apart, two frames count as one exposure."""

HARDLY_CLIPPED = 0.01
"""The estimators have learned from pairs of which 5 to 25 % of the long frame are clipped."""


@parameters
class DualExposure(BracketStage):
    """Estimate the light from what differs between a short and a long exposure, beside what a factor explains.

    The feature is the 3x3 matrix of least squares that maps the chromaticities of the darkest frame of the bracket to
    those of the brightest one. It is the identity where both are exact multiples of the light; clipping, noise and
    errors of the black level make it tell the colour of what was bright, and the mean colour. ``emlp`` (354 parameters)
    looks at the feature alone. ``eccc`` (6,156 parameters) looks at the histograms of both frames in log chroma as
    well, without clipped and nearly black blocks. Both are trained on synthetic pairs made of 30 photographs.

    The feature is taken of single cells of the mosaic, at most 98,304 on a grid, so that it has the noise of the
    sensor; frames need not be aligned to the pixel. Adds the fact ``illuminant`` to every frame. A long frame of which
    less than 1 % is clipped, unlike those of the training, gives a note.

    Raises StageError for a single frame, for frames less than half a stop apart, and where nothing is lit and not
    clipped; ModelError when the weights are not installed.
    """

    spec = StageSpec(
        name="illuminant.dual_exposure",
        source="Afifi, Hu & Liang, Optimizing Illuminant Estimation in Dual-Exposure HDR Imaging, ECCV 2024; the parts "
        "that the paper does not give are inferred (docs/illuminant.md)",
        accepts={**CAMERA_RGB, "frames": ("bracket",)},
        adds=("illuminant",),
    )
    method: Annotated[
        Literal["eccc", "emlp"], param("eccc: feature and histograms of both frames; emlp: the feature alone")
    ] = "eccc"

    def open(self) -> None:
        _estimator(self.method)

    def apply(self, frame: Frame) -> Frame:
        raise StageError(
            f"{frame.name}: {self.spec.name} needs a short and a long exposure, this is one frame; give it a bracket, "
            "or use illuminant.gray_world or another stage for single frames"
        )

    def combine(self, bracket: Bracket) -> Bracket:
        if len(bracket) < 2:
            self.apply(bracket.reference)
        short, long = self._outermost(bracket)
        features, histograms = observed(short, long)
        light = per_green(_rgb(_estimator(self.method)(features[None], histograms[None])[0]))
        if light is None:
            raise StageError(f"{short.name}: {self.spec.name} finds no colour of the light; use illuminant.gray_world")
        result = Bracket(tuple(replace(frame, facts=replace(frame.facts, illuminant=light)) for frame in bracket))
        clipped = 1.0 - float(block_means(long, SAMPLES).clean.float().mean())
        if clipped >= HARDLY_CLIPPED:
            return result
        told = f"of the brightest frame {clipped:.1%} is clipped; the estimate is best where it is 5 to 25 %"
        return result.with_reference(result.reference.with_note(f"{self.spec.name}: {told}"))

    def _outermost(self, bracket: Bracket) -> tuple[Frame, Frame]:
        """The darkest and the brightest frame."""
        short, long = bracket.frames[0].as_float(), bracket.frames[-1].as_float()
        stops = _stops(short, long)
        if not abs(stops) >= LEAST_STOPS:
            raise StageError(
                f"{short.name}: {self.spec.name} needs a short and a long exposure, and these are not half a stop "
                "apart in lit parts that are not clipped; use illuminant.gray_world"
            )
        return (short, long) if stops > 0 else (long, short)


def observed(short: Frame, long: Frame) -> tuple[Tensor, Tensor]:
    """What the estimators see of two frames: the feature ``[3,3]`` and the histograms ``[2,BINS,BINS]``.

    Scene-linear camera RGB or mosaics of one size; gains of a white balance are taken out. Raises StageError where
    too little is lit and not clipped in either frame.
    """
    histograms = []
    for frame in (short, long):
        means = block_means(frame, SAMPLES)
        samples = means.values[:, usable(means)]
        if samples.shape[1] < LEAST_SAMPLES:
            raise StageError(
                f"{frame.name}: illuminant.dual_exposure finds too little that is lit and not clipped; use "
                "illuminant.as_shot, or frames that are neither black nor overexposed"
            )
        histograms.append(log_chroma_histogram(samples / _gains(frame)))
    return dual_exposure_feature(_cells(short), _cells(long)), torch.stack(histograms)


def _cells(frame: Frame) -> Tensor:
    """Camera RGB ``[3,N]`` of single cells on a grid, at most the clip level."""
    cell = (len(frame.camera.cfa), len(frame.camera.cfa[0])) if frame.state.is_mosaic and frame.camera.cfa else (1, 1)
    rows, columns = frame.height // cell[0], frame.width // cell[1]
    step = max(1, math.ceil(math.sqrt(rows * columns / SAMPLES)))

    def thinned(plane: Tensor) -> Tensor:
        whole = plane[:, : rows * cell[0], : columns * cell[1]]
        kept = whole.reshape(-1, rows, cell[0], columns, cell[1])[:, ::step, :, ::step]
        return kept.reshape(len(plane), kept.shape[1] * cell[0], kept.shape[3] * cell[1])

    if not rows or not columns:
        return frame.pixels.new_zeros(3, 0)
    values = block_means(frame.planes(thinned), rows * columns).values.flatten(1)
    return values.minimum(torch.tensor(frame.facts.clip_level or (1.0,))[:, None]) / _gains(frame)


def _stops(short: Frame, long: Frame) -> float:
    """By how many stops the second frame is brighter, where both are lit and not clipped; NaN where nothing is."""
    dark, bright = block_means(short, SAMPLES), block_means(long, SAMPLES)
    both = usable(dark) & usable(bright)
    low, high = (means.values[:, both].sum(0) for means in (dark, bright))
    return float((high / low).log2().median()) if low.numel() else math.nan


def _gains(frame: Frame) -> Tensor:
    return torch.tensor(frame.facts.white_balance or (1.0, 1.0, 1.0))[:, None]


def _rgb(color: Tensor) -> RGB:
    red, green, blue = color.tolist()
    return red, green, blue


@lru_cache(maxsize=2)
def _estimator(method: str) -> Emlp | Eccc:
    return load_estimator(cards.card(f"illuminant.{method}"))
