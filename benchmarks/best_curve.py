"""Brighten pictures by the gain and the gamma that come nearest to their references: the best a global curve can.

    python benchmarks/best_curve.py INPUTS REFERENCES OUT [--one]

Each picture has its own curve; no program can know it without the reference. With ``--one`` all share one. Pictures are
called alike; OUT gets PNG files, to be measured by ``restorekit eval input REFERENCES --inputs OUT``. The curve is
``min(1, gain * value ^ gamma)`` of encoded values, the same for all channels, found by least squares over a histogram
of pairs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

LEVELS = np.arange(256) / 255.0


def best_curve(dark: NDArray[np.uint8], good: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The curve as a table of 256 values in 0..1, for pictures as flat arrays."""
    counts = np.bincount(dark.ravel(), minlength=256)
    sums = np.bincount(dark.ravel(), good.ravel() / 255.0, minlength=256)

    def table(parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        gain, gamma = np.exp(parameters)
        return np.minimum(1.0, gain * LEVELS**gamma)

    def error(parameters: NDArray[np.float64]) -> float:
        """Squared errors, but for what no curve changes: the variance of the reference at one level."""
        values = table(parameters)
        return float((counts * values**2 - 2.0 * values * sums).sum() / counts.sum())

    starts = [np.log([gain, gamma]) for gain in (1.0, 3.0, 9.0) for gamma in (0.4, 1.0)]
    found = min((minimize(error, start, method="Nelder-Mead") for start in starts), key=lambda result: result.fun)
    return table(found.x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", type=Path)
    parser.add_argument("references", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--one", action="store_true", help="one curve for all pictures")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    names = [path.name for path in sorted(options.references.glob("*.png"))]
    pairs = [tuple(cv2.imread(str(folder / name)) for folder in (options.inputs, options.references)) for name in names]
    shared = best_curve(*(np.concatenate([each.ravel() for each in side]) for side in zip(*pairs, strict=True)))
    for name, (dark, good) in zip(names, pairs, strict=True):
        curve = shared if options.one else best_curve(dark, good)
        cv2.imwrite(str(options.out / name), np.rint(255.0 * curve).astype(np.uint8)[dark])


if __name__ == "__main__":
    main()
