"""What OpenCV makes of a bracket of JPEGs, as a program of its own so that it can be measured like the others.

    python benchmarks/opencv_bracket.py align|mertens|debevec SHOT... OUT [--ev=-2,0,2]

AlignMTB, then MergeMertens (OUT is a picture), or CalibrateDebevec and MergeDebevec (OUT is a Radiance file), each with
its own defaults. ``align`` writes the aligned shots into the folder OUT.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("mode", choices=("align", "mertens", "debevec"))
    parser.add_argument("shots", nargs="+", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--ev", help="stops against the reference; debevec needs them")
    arguments = parser.parse_args()
    shots = [cv2.imread(str(path), cv2.IMREAD_COLOR) for path in arguments.shots]
    cv2.createAlignMTB().process(shots, shots)
    if arguments.mode == "align":
        arguments.out.mkdir(parents=True, exist_ok=True)
        for index, shot in enumerate(shots):
            cv2.imwrite(str(arguments.out / f"{index}.png"), shot)
    elif arguments.mode == "mertens":
        fused = cv2.createMergeMertens().process(shots)
        cv2.imwrite(str(arguments.out), np.clip(fused * 255, 0, 255).astype(np.uint8))
    else:
        times = np.float32([2.0 ** float(ev) / 100 for ev in arguments.ev.split(",")])
        response = cv2.createCalibrateDebevec().process(shots, times)
        cv2.imwrite(str(arguments.out), cv2.createMergeDebevec().process(shots, times, response))


if __name__ == "__main__":
    main()
