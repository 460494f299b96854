"""Write the inputs that ``restorekit eval --degradation`` measures with, for programs of others to restore.

    python benchmarks/make_inputs.py PICTURES DEGRADATION OUT [--seed 0]

DEGRADATION is YAML as there: a name, or 'NAME: {PARAMETER: VALUE}'. OUT gets a PNG of each picture, called like it, so
that results are measured by ``restorekit eval input PICTURES --inputs RESULTS``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2

from restorekit import protocols
from restorekit.data.folders import Pictures
from restorekit.evaluate import references
from restorekit.io.read import read
from restorekit.metrics.super_resolution import eight_bit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("degradation")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    paths = references(options.pictures)
    protocol = protocols.synthetic(options.degradation, options.seed, pictures=Pictures(paths))
    options.out.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(paths):
        picture, _ = protocols.picture_of(read(path, sidecar=False))
        given = eight_bit(protocol.given(protocols.Reference(path, number, picture)))
        cv2.imwrite(str(options.out / f"{path.stem}.png"), given.flip(0).permute(1, 2, 0).numpy())


if __name__ == "__main__":
    main()
