"""Statistics of angular errors for ``illuminant.py``: with intervals, paired, clustered by scene, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats
from illuminant_data import SCENES
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]

RESAMPLINGS = 2000
LEVEL = 95.0
STATISTICS = ("mean", "median", "trimean", "best 25 %", "worst 25 %")


def statistics(errors: Array) -> Array:
    """Mean, median, trimean, and the means of the best and the worst quarter."""
    ranked = np.sort(errors)
    first, middle, third = np.percentile(ranked, [25, 50, 75])
    quarter = max(1, round(len(ranked) / 4))
    return np.array(
        [ranked.mean(), middle, (first + 2 * middle + third) / 4, ranked[:quarter].mean(), ranked[-quarter:].mean()]
    )


def resampled(pictures: Index, clusters: Sequence[Sequence[int]]) -> Iterable[Index]:
    """Which tests to take: clusters drawn with replacement, all tests of their pictures; the same draws each time."""
    members = [np.flatnonzero(np.isin(pictures, cluster)) for cluster in clusters]
    random = np.random.default_rng(0)
    for _ in range(RESAMPLINGS):
        yield np.concatenate([members[k] for k in random.integers(0, len(members), len(members))])


def interval(values: Array) -> Array:
    """The limits of the middle ``LEVEL`` % of rows."""
    return np.asarray(np.percentile(values, [(100 - LEVEL) / 2, (100 + LEVEL) / 2], axis=0))


def with_intervals(errors: Array, pictures: Index) -> list[str]:
    """Each statistic with its interval, by scenes."""
    low, high = interval(np.array([statistics(errors[tests]) for tests in resampled(pictures, SCENES)]))
    return [f"{v:.2f} ({a:.2f}-{b:.2f})" for v, a, b in zip(statistics(errors), low, high, strict=True)]


@dataclass(frozen=True)
class Difference:
    """How much smaller the errors of one method are than those of another, test by test."""

    mean: float
    by_picture: tuple[float, float]
    by_scene: tuple[float, float]
    wilcoxon: float

    def row(self) -> tuple[str, ...]:
        """For a table with the columns ``DIFFERENCE``."""
        said = [f"{low:+.2f} to {high:+.2f}" for low, high in (self.by_picture, self.by_scene)]
        return f"{self.mean:+.2f}", *said, f"{self.wilcoxon:.4f}"


DIFFERENCE = ("mean difference", "95 % by picture", "95 % by scene", "Wilcoxon p")


def difference(one: Array, other: Array, pictures: Index) -> Difference:
    """The mean of paired differences; its intervals; and Wilcoxon's signed-rank test of the means of pictures."""
    pairs = one - other
    by_picture = [(number,) for number in np.unique(pictures)]
    limits = [
        interval(np.array([pairs[tests].mean() for tests in resampled(pictures, clusters)]))
        for clusters in (by_picture, SCENES)
    ]
    means = np.array([pairs[pictures == number].mean() for (number,) in by_picture])
    tested = scipy.stats.wilcoxon(means).pvalue if means.any() else 1.0
    return Difference(float(pairs.mean()), (limits[0][0], limits[0][1]), (limits[1][0], limits[1][1]), float(tested))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
