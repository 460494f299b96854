"""Networks that weigh channels over all they see, on a large photo: what tiles, windows and reduced pictures do to it.

    python benchmarks/whole_picture.py PHOTO MODEL DEGRADATION --choices "tile 96" "local 96" [--size 3840x2160]

The middle of PHOTO is degraded (YAML, as for ``restorekit eval --degradation``) and restored in each of the ways:
``tile N`` in tiles of N px, ``local N`` in larger tiles with windows of N px for what is weighed, ``estimate N`` by the
light of the picture at N px, ``off`` at once. Columns: PSNR against the photo; the step between neighbouring tiles,
which is by how much the mean error of 8 px differs on both sides of a cut, for each 64 px of it, in 8-bit codes, and
the same half a tile away, where nothing was cut; CPU seconds and peak memory. Each way has a process of its own.
"""

from __future__ import annotations

import argparse
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from math import log10
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor

from restorekit import device, protocols
from restorekit.data.folders import Pictures
from restorekit.engine import Run, process
from restorekit.frame import Frame
from restorekit.inference import TILE
from restorekit.io.read import read
from restorekit.metrics.super_resolution import eight_bit
from restorekit.pipeline import InputSpec, Pipeline
from restorekit.planes import to_float
from restorekit.stages.restore import Restore
from restorekit.state import SHORTHANDS
from restorekit.zoo.model import load_model

SRGB = SHORTHANDS["display-srgb"]
BESIDE, ALONG, RAMP = 8, 64, 8
"""px on each side of a cut whose errors are compared, along it, and between both sides and the cut."""


def middle(path: Path, size: str) -> Tensor:
    width, height = (int(part) for part in size.split("x"))
    picture, _ = protocols.picture_of(read(path, sidecar=False))
    top, left = (max(0, (have - want) // 2) for have, want in zip(picture.shape[1:], (height, width), strict=True))
    return picture[:, top : top + height, left : left + width]


def psnr(result: Tensor, truth: Tensor) -> float:
    """Of 8-bit pictures."""
    return -10.0 * log10(float((result.double() - truth.double()).square().mean()) / 255.0**2)


def cuts(model: str, choice: str, length: int) -> list[int]:
    """Where neighbouring tiles meet along an axis."""
    kind, _, number = choice.partition(" ")
    loaded = load_model(model, int(number) if kind == "local" else 0)
    tiling = loaded.network.tiling
    card_tile = loaded.card.tile if loaded.card else None
    side = int(number) if kind == "tile" else (card_tile if kind != "local" else None) or tiling.fixed or TILE
    axis = tiling.axis(length, side)
    return [(rise + full) // 2 for rise, full, _, _ in axis.spans(tiling.halo)][1:]


def step(error: Tensor, places: list[int]) -> float:
    """The mean step of errors ``[3,H,W]`` across columns at ``places``, in 8-bit codes."""
    found = []
    for place in places:
        left, right = place - RAMP - BESIDE, place + RAMP
        if left < 0 or right + BESIDE > error.shape[2]:
            continue
        sides = (error[:, :, start : start + BESIDE].mean(2) for start in (left, right))
        difference = next(sides) - next(sides)
        whole = difference.shape[1] // ALONG * ALONG
        found.append(difference[:, :whole].unflatten(1, (-1, ALONG)).mean(2).abs().mean())
    return 255.0 * float(torch.stack(found).mean()) if found else 0.0


def steps(error: Tensor, model: str, choice: str) -> tuple[float, float]:
    """At cuts, and half a tile away from them."""
    if choice.startswith(("off", "estimate")):
        return 0.0, 0.0
    at, away = [], []
    for turned in (error, error.transpose(1, 2)):
        places = cuts(model, choice, turned.shape[2])
        if not places:
            continue
        half = places[0] // 2 if len(places) == 1 else (places[1] - places[0]) // 2
        at.append(step(turned, places))
        away.append(step(turned, [place + half for place in places]))
    return (sum(at) / len(at), sum(away) / len(away)) if at else (0.0, 0.0)


def measured(model: str, choice: str, given: Tensor, truth: Tensor) -> str:
    """A row of the table."""
    device.keep_freed_memory()
    kind, _, number = choice.partition(" ")
    stage = Restore(
        model=model,
        local=int(number) if kind == "local" else 0,
        estimate=int(number) if kind == "estimate" else 0,
    )
    tile = "off" if kind == "off" else int(number) if kind == "tile" else "auto"
    begun = time.process_time()
    made = process(Pipeline([stage], InputSpec(SRGB)), Frame(given, SRGB), Run(tile=tile)).pixels
    spent = time.process_time() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    at, away = steps(made - to_float(truth), model, choice)
    seams = f"{at:.2f} | {away:.2f}" if at else "none | "
    return f"| {choice} | {psnr(eight_bit(made), truth):.2f} | {seams} | {spent:.0f} | {peak:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    parser.add_argument("model")
    parser.add_argument("degradation")
    parser.add_argument("--size", default="3840x2160")
    parser.add_argument("--choices", nargs="+", required=True)
    options = parser.parse_args()
    truth = middle(options.photo, options.size)
    protocol = protocols.synthetic(options.degradation, 0, pictures=Pictures([options.photo]))
    given = eight_bit(protocol.given(protocols.Reference(options.photo, 0, truth)))
    print(f"{options.photo.name}, {truth.shape[2]} x {truth.shape[1]} px, degraded: {psnr(given, truth):.2f} dB")
    print(
        "| way | PSNR, dB | step at cuts | elsewhere | CPU s | peak MiB |\n| --- | ---: | ---: | ---: | ---: | ---: |"
    )
    for choice in options.choices:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            print(pool.submit(measured, options.model, choice, given, truth).result(), flush=True)


if __name__ == "__main__":
    main()
