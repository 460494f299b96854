"""What bands and tiles do to the result of a network, against the whole image at once.

    python benchmarks/seams.py PHOTO MODEL [MODEL ...] [--groups 1] [--crop 1632x1224] [--tile N]

MODEL is the id of a card. Installed weights are taken; a model without any gets random ones of its authors'
initialisation, with three times the queries and keys and position biases of N(0, 0.5), so that windows matter as they
do in a trained network. ``--groups`` leaves that many groups of a window network, since the whole image at once takes
long and much memory. The picture is cut to ``--crop``. Columns: the largest difference, PSNR (peak 1), pixels that
were run for each pixel of the picture, and CPU seconds.
"""

from __future__ import annotations

import argparse
import time
from math import inf, log10
from pathlib import Path

import torch
from torch import Tensor

from restorekit import device, inference
from restorekit.architectures import create
from restorekit.architectures._network import Network
from restorekit.execution import Execution
from restorekit.io.read import read
from restorekit.zoo import cards, load, store
from restorekit.zoo.model import Model, channels_last

BIASES = ("relative_position_bias_table", "rpb")


def randomised(network: Network) -> None:
    """Weights under which attention and its position biases matter."""
    with torch.no_grad():
        for name, weights in network.named_parameters():
            if name.endswith(BIASES):
                weights.normal_(0.0, 0.5)
            elif name.endswith("qkv.weight"):
                weights.mul_(3.0)


def prepared(id: str, groups: int) -> tuple[Model, str]:
    card = cards.card(id)
    if store.weights_path(card) is not None:
        return Model(id, channels_last(load.load_network(card)), card), "the authors'"
    config = dict(card.config)
    said = "random"
    for key in ("depths", "depth", "num_heads"):
        if groups and isinstance(config.get(key), list):
            config[key] = config[key][:groups]
            said = f"random, {groups} of {len(card.config[key])} groups"
    torch.manual_seed(0)
    network = create(card.architecture, **config).eval().requires_grad_(False)
    randomised(network)
    return Model(id, channels_last(network), card), said


def made(model: Model, picture: Tensor, execution: Execution) -> tuple[Tensor, float]:
    started = time.process_time()
    rows = torch.cat([rows for _, rows in model.rows(picture, execution)], 1)
    return rows, time.process_time() - started


def pixels_a_pixel(model: Model, picture: Tensor, side: int) -> float:
    _, height, width = picture.shape
    down, across = (model.network.tiling.axis(length, side) for length in (height, width))
    return len(down.origins) * len(across.origins) * down.side * across.side / (height * width)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--groups", type=int, default=0)
    parser.add_argument("--crop", default="1632x1224")
    parser.add_argument("--tile", type=int, default=0, help="px of a tile without its halo; 0: as auto takes it")
    options = parser.parse_args()
    device.keep_freed_memory()
    width, height = (int(part) for part in options.crop.split("x"))
    picture = read(options.photo).upright().pixels[:, :height, :width]
    print(f"{options.photo.name}, {picture.shape[2]} x {picture.shape[1]} px")
    print("| model | weights | run | largest difference | PSNR, dB | pixels | CPU s |")
    print("|---|---|---|---:|---:|---:|---:|")
    for id in options.models:
        model, weights = prepared(id, options.groups)
        whole, seconds = made(model, picture, Execution(tile="off"))
        print(f"| {id} | {weights} | at once | | | 1.00 | {seconds:.1f} |", flush=True)
        inference.WHOLE_BYTES = 0
        tiling = model.network.tiling
        tile = options.tile or inference.TILE - tiling.overlap
        if tiling.support == "exact":
            side, runs = tile + tiling.overlap, [("bands", Execution()), ("tiles", Execution(tile=tile))]
        else:
            side = options.tile or tiling.fixed or inference.TILE
            runs = [("tiles", Execution(tile=options.tile or "auto"))]
        for name, execution in runs:
            result, seconds = made(model, picture, execution)
            difference = result - whole
            error = float(difference.square().mean(dtype=torch.float64))
            psnr = -10 * log10(error) if error else inf
            pixels = pixels_a_pixel(model, picture, side) if name == "tiles" else 1.0
            largest = float(difference.abs().max())
            print(
                f"| {id} | {weights} | {name} | {largest:.1e} | {psnr:.1f} | {pixels:.2f} | {seconds:.1f} |", flush=True
            )


if __name__ == "__main__":
    main()
