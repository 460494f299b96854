"""How well the light is estimated: two exposures against one, cross-validated, and what carries the feature.

    python benchmarks/illuminant.py DATA --c5 C5_m_7_h_64.pth --save errors.json    # cross-validation, tables
    python benchmarks/illuminant.py DATA --ablate                                   # what carries the feature
    python benchmarks/illuminant.py DATA --train models                             # the weights that ship

``illuminant_data.py`` tells what DATA holds and how pairs of exposures are made of it. A picture is never tested by an
estimator that has seen its scene. Tests are the 30 pictures in their own light (``real``: real light, synthetic
exposures) and under lights of other tables by random cameras (``relit``). Single-frame methods run on the short and on
the long frame. Everything is drawn from fixed seeds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from illuminant_c5 import C5, COMPANIONS, histograms
from illuminant_data import FINAL, FOLDS, TRAINING, Data, tested_pictures, training_pairs
from illuminant_report import DIFFERENCE, STATISTICS, difference, statistics, table, with_intervals
from torch import Tensor

from restorekit.data.degradation import seeded
from restorekit.data.exposures import DualExposure
from restorekit.errors import StageError
from restorekit.frame import Frame
from restorekit.stages.illuminant import GrayEdge, GrayWorld, ShadesOfGray, WhitePatch, block_means, usable
from restorekit.train.illuminant import PHONE, Examples, angular_error, fitted, pair
from restorekit.train.illuminant import errors as errors_of
from restorekit.zoo import checkpoint

TESTS = {"real": 4, "relit": 8}
"""Pairs of exposures a picture."""

DRAWS, FEW_DRAWS, FINAL_DRAWS = 64, 12, 96
"""Pairs a picture for training: of the comparison, of the ablation, of the weights that ship."""

HALF_AS_MANY = tuple(one + other for one, other in zip(FOLDS[::2], FOLDS[1::2], strict=True))
"""Folds of the ablation."""

ONE_FRAME = {
    "gray world": GrayWorld(),
    "shades of gray": ShadesOfGray(),
    "white patch": WhitePatch(),
    "gray edge": GrayEdge(),
}

NOTHING = DualExposure(clipped=None, electrons=None, read_noise=None, black_error=0.0, knee=None, bits=None)
EFFECTS: dict[str, dict[str, object]] = {
    "clipping": {"clipped": PHONE.clipped},
    "black-level error": {"black_error": PHONE.black_error},
    "noise": {"electrons": PHONE.electrons, "read_noise": PHONE.read_noise, "bits": PHONE.bits},
    "knee": {"knee": PHONE.knee},
}


@dataclass(frozen=True)
class Test:
    """A pair of exposures with its truth and what estimators see of it."""

    picture: int
    kind: str
    draw: int
    frames: tuple[Frame, Frame]
    light: Tensor


@dataclass
class Errors:
    """Angular errors by method, with the picture and the kind of every test."""

    pictures: list[int] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    methods: dict[str, list[float]] = field(default_factory=dict)

    def enter(self, test: Test) -> Test:
        """Note which test comes next."""
        self.pictures.append(test.picture)
        self.kinds.append(test.kind)
        return test

    def of(self, method: str, kind: str) -> tuple[np.ndarray, np.ndarray]:
        chosen = np.array([kind in (k, "both") for k in self.kinds])
        return np.array(self.methods[method])[chosen], np.array(self.pictures)[chosen]


def tests(data: Data, draws: dict[str, int], options: DualExposure) -> Iterator[Test]:
    for kind, count in draws.items():
        for number, draw, picture, generator in tested_pictures(data, kind, count, options):
            yield Test(number, kind, draw, pair(picture, generator, options), picture.light)


def statistics_of_one(frame: Frame) -> Tensor:
    """Nine numbers of one frame for the same network: chromaticities by gray world, shades of gray, white patch."""
    means = block_means(frame)
    chosen = usable(means)
    rows = [stage.estimate(means, chosen) for stage in (GrayWorld(), ShadesOfGray(), WhitePatch())]
    return torch.stack([row / row.sum() for row in rows]).nan_to_num(1 / 3)


class Seen:
    """What is seen of pairs: both frames, as examples, and nine numbers of the short frame in place of the feature."""

    def __init__(self, pairs: Iterable[tuple[Frame, Frame, Tensor]]) -> None:
        short: list[Tensor] = []

        def noted() -> Iterator[tuple[Frame, Frame, Tensor]]:
            for one, other, light in pairs:
                short.append(statistics_of_one(one))
                yield one, other, light

        self.both = Examples.of(noted())
        self.short = replace(self.both, features=torch.stack(short))


def compare(data: Data, c5: C5 | None) -> Errors:
    """Errors of all methods."""
    errors, others = Errors(), []

    def shown() -> Iterator[tuple[Frame, Frame, Tensor]]:
        for test in tests(data, TESTS, PHONE):
            errors.enter(test)
            for name, stage in ONE_FRAME.items():
                for which, frame in zip(("short", "long"), test.frames, strict=True):
                    errors.methods.setdefault(f"{name}, {which}", []).append(_error(stage, frame, test.light))
            if c5 is not None:
                others.append((test.kind, test.draw, [histograms(_unclipped(frame)) for frame in test.frames]))
            yield (*test.frames, test.light)

    probed = Seen(shown())
    if c5 is not None:
        for index, which in enumerate(("short", "long")):
            found = torch.cat([_by_c5(c5, others, number, index) for number in range(len(others))])
            errors.methods[f"C5, {which}"] = angular_error(found, probed.both.lights).tolist()
    for fold in FOLDS:
        known = [number for number in data.numbers() if number not in fold]
        seen = Seen(training_pairs(data, known, DRAWS, TRAINING, PHONE))
        tested = torch.tensor([picture in fold for picture in errors.pictures])
        _test(errors, "EMLP's network on the short frame alone", "emlp", seen.short, probed.short, tested)
        for method in ("emlp", "eccc"):
            plain = seen.both.without_feature(), probed.both.without_feature()
            _test(errors, method.upper(), method, seen.both, probed.both, tested)
            _test(errors, f"{method.upper()} without the feature", method, *plain, tested)
    return errors


def ablate(data: Data) -> str:
    """What each effect brings: EMLP alone by the feature, with some effects only and without some."""
    everything = {key: value for effect in EFFECTS.values() for key, value in effect.items()}
    sets: dict[str, dict[str, object]] = {"none": {}}
    sets |= {f"{name} alone": effect for name, effect in EFFECTS.items()}
    sets["clipping and knee"] = {**EFFECTS["clipping"], **EFFECTS["knee"]}
    sets |= {
        f"all but {name}": {key: value for key, value in everything.items() if key not in effect}
        for name, effect in EFFECTS.items()
    }
    sets["all"] = everything
    rows = []
    for name, effects in sets.items():
        options = replace(NOTHING, **effects)  # type: ignore[arg-type]
        errors = Errors()
        probed = Examples.of(
            (*test.frames, test.light) for test in map(errors.enter, tests(data, {"relit": 4}, options))
        )
        methods = ("emlp", "eccc") if name == "none" else ("emlp",)
        for fold in HALF_AS_MANY:
            known = [number for number in data.numbers() if number not in fold]
            examples = Examples.of(training_pairs(data, known, FEW_DRAWS, TRAINING, options))
            tested = torch.tensor([picture in fold for picture in errors.pictures])
            for method in methods:
                plain = examples.without_feature(), probed.without_feature()
                _test(errors, method, method, examples, probed, tested)
                _test(errors, f"{method} without", method, *plain, tested)
        away = (probed.features - torch.eye(3)).abs().amax((1, 2)).median()
        for method in methods:
            (with_it, pictures), (without, _) = (errors.of(m, "both") for m in (method, f"{method} without"))
            told = difference(with_it, without, pictures)
            means = [f"{statistics(errors)[0]:.2f}" for errors in (with_it, without)]
            rows.append((name, method.upper(), f"{away:.1g}", *means, *told.row()))
            print(rows[-1], flush=True)
    head = ("effects", "estimator", "feature off identity", "with it", "without it", *DIFFERENCE)
    return table(head, rows)


def train(data: Data, folder: Path) -> None:
    """Write the weights that ship, trained on all pictures."""
    examples = Examples.of(training_pairs(data, data.numbers(), FINAL_DRAWS, FINAL, PHONE))
    for method in ("emlp", "eccc"):
        state = fitted(method, examples, FINAL).state_dict()
        told = {"model": f"illuminant.{method}", "fingerprint": checkpoint.fingerprint(state)}
        checkpoint.write(folder / f"illuminant.{method}.safetensors", state, told)


def report(errors: Errors) -> str:
    """The tables as Markdown."""
    parts = []
    for kind, count in TESTS.items():
        rows = [(name, *with_intervals(*errors.of(name, kind))) for name in errors.methods]
        parts.append(
            f"{kind}, {count} pairs of each of 30 pictures, degrees:\n\n{table(('method', *STATISTICS), rows)}"
        )
    best = min(("short", "long"), key=lambda which: np.mean(errors.methods[f"shades of gray, {which}"]))
    rows = []
    others = [name for name in errors.methods if name.endswith("short") and not name.startswith("shades")]
    for one in ("EMLP", "ECCC"):
        for other in (f"shades of gray, {best}", f"{one} without the feature", *others):
            for kind in (*TESTS, "both"):
                (first, pictures), (second, _) = errors.of(one, kind), errors.of(other, kind)
                rows.append((one, other, kind, *difference(first, second, pictures).row()))
    head = ("method", "against", "tests", *DIFFERENCE)
    return "\n".join([*parts, table(head, rows)])


def _test(errors: Errors, name: str, method: str, trained: Examples, probed: Examples, tested: Tensor) -> None:
    """Fit an estimator and enter its errors for the tested pictures."""
    estimator = fitted(method, trained, TRAINING)
    chosen = probed.chosen(tested)
    found = errors_of(estimator, chosen)
    entered = errors.methods.setdefault(name, [float("nan")] * len(errors.pictures))
    for index, error in zip(tested.nonzero()[:, 0].tolist(), found.tolist(), strict=True):
        entered[index] = error


def _error(stage: Callable[[Frame], Frame], frame: Frame, light: Tensor) -> float:
    """The error of a stage; where it finds no light, that of taking the camera's gray for it."""
    try:
        found = stage(frame).facts.illuminant
    except StageError:
        found = (1.0, 1.0, 1.0)
    return float(angular_error(torch.tensor(found), light))


def _unclipped(frame: Frame) -> Tensor:
    """Pixels with those that clip in a channel black: C5 does not look at black ones."""
    return torch.where(frame.masks["clipped"].any(0), 0.0, frame.pixels)


def _by_c5(c5: C5, others: list[tuple[str, int, list[Tensor]]], number: int, which: int) -> Tensor:
    """C5's estimate, with other frames of the same camera and exposure beside."""
    kind, draw, own = others[number]
    beside = [seen for index, (k, d, seen) in enumerate(others) if (k, d) == (kind, draw) and index != number]
    chosen = torch.randperm(len(beside), generator=seeded(number))[:COMPANIONS].tolist()
    return c5(torch.stack([own[which], *(beside[k][which] for k in chosen)])[None])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the pictures and lights")
    parser.add_argument("--c5", type=Path, help="official weights of C5")
    parser.add_argument("--save", type=Path, help="write all errors as JSON")
    parser.add_argument("--load", type=Path, help="make the tables of errors that were saved")
    parser.add_argument("--ablate", action="store_true")
    parser.add_argument("--train", type=Path, metavar="FOLDER", help="write weights for the box there")
    options = parser.parse_args()
    data = Data.read(options.data)
    if options.train is not None:
        train(data, options.train)
    elif options.ablate:
        print(ablate(data))
    else:
        if options.load is not None:
            errors = Errors(**json.loads(options.load.read_text()))
        else:
            errors = compare(data, C5(options.c5) if options.c5 else None)
        if options.save is not None:
            options.save.write_text(json.dumps(errors.__dict__))
        print(report(errors))


if __name__ == "__main__":
    main()
