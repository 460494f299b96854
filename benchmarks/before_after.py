"""Pictures before and after at 100 %, side by side, a pair a row, or as many as --columns says.

python benchmarks/before_after.py OUT.jpg BEFORE AFTER X,Y [BEFORE AFTER X,Y ...] [--size 320x320] [--columns 1]

X,Y is the top left of the part that is shown, in px of AFTER. A smaller BEFORE is enlarged by cubic convolution.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

import restorekit as rk
from restorekit.contact_sheet import beside
from restorekit.data.folders import read_rgb8
from restorekit.metrics.super_resolution import eight_bit
from restorekit.planes import to_float
from restorekit.stages.resampling import bicubic, resampled

GAP = 16


def pair(before: Path, after: Path, left: int, top: int, width: int, height: int) -> Tensor:
    """uint8 [3,h,w]: a part of both pictures."""
    first, second = read_rgb8(before), read_rgb8(after)
    size = f"{first.shape[2]}x{first.shape[1]}"
    if first.shape != second.shape:
        first = eight_bit(resampled(to_float(first), *second.shape[1:], bicubic))
    if left + width > first.shape[2] or top + height > first.shape[1]:
        raise SystemExit(f"{after}: {width}x{height} px from {left},{top} on reach beyond the picture")
    labels = [f"{before.stem}, {size}", after.stem]
    return beside([each[:, top : top + height, left : left + width] for each in (first, second)], labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("pairs", nargs="+", metavar="BEFORE AFTER X,Y")
    parser.add_argument("--size", default="320x320", help="px of the part, WIDTHxHEIGHT")
    parser.add_argument("--columns", type=int, default=1, help="pairs a row")
    arguments = parser.parse_args()
    if len(arguments.pairs) % 3:
        parser.error("give BEFORE AFTER X,Y for each pair")
    width, height = (int(x) for x in arguments.size.split("x"))
    triples = zip(*(iter(arguments.pairs),) * 3, strict=True)
    pairs = [pair(Path(a), Path(b), *(int(x) for x in place.split(",")), width, height) for a, b, place in triples]
    if arguments.columns < 1 or len(pairs) % arguments.columns:
        parser.error(f"{len(pairs)} pairs do not fill rows of {arguments.columns}")
    gap = pairs[0].new_zeros((3, pairs[0].shape[1], GAP))
    rows = []
    for first in range(0, len(pairs), arguments.columns):
        line, *others = pairs[first : first + arguments.columns]
        for other in others:
            line = torch.cat((line, gap, other), 2)
        rows.append(line)
    rk.write(rk.Frame(torch.cat(rows, 1)), arguments.out)


if __name__ == "__main__":
    main()
