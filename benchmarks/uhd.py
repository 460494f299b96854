"""Full-size restoration networks on a 3840 x 2160 picture, at their default way of running: CPU time and peak memory.

    python benchmarks/uhd.py MODEL... [--size 3840x2160] [--limit 600] [--precision fp32]

MODEL is the id of a card; its network gets fresh weights, which cost what trained ones do, and so does the VGG-19 of
RRFormer. Networks in tiles are stopped after ``--limit`` CPU seconds and a whole row of tiles; the time of all is
computed from the share that was finished, and the row says so. Networks in bands are run to the end. Each has a process
of its own.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from restorekit import device
from restorekit.architectures import create
from restorekit.architectures._vgg import VGG19
from restorekit.execution import Execution, Precision
from restorekit.zoo.cards import card
from restorekit.zoo.model import Model, channels_last


def measured(id: str, size: str, limit: float, precision: Precision) -> str:
    """A row of the table."""
    device.keep_freed_memory()
    width, height = (int(part) for part in size.split("x"))
    described = card(id)
    torch.manual_seed(0)
    network = channels_last(create(described.architecture, **described.config).eval().requires_grad_(False))
    for part in network.modules():
        if isinstance(part, VGG19):
            for weight in part.buffers():
                weight.normal_(std=0.02)
            part.loaded = True
    picture = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    execution = Execution(precision=precision)
    begun = time.process_time()
    done = 0
    for top, rows in Model(id, network, described).rows(picture, execution):
        done = top + rows.shape[1]
        spent = time.process_time() - begun
        if execution.mode == "tiles" and spent > limit:
            break
    finished = execution.finished if done < height * network.scale else 1.0
    spent = time.process_time() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    part = "" if finished == 1.0 else f" (computed from {finished:.1%} in {spent:.0f} s)"
    how = f"{execution.mode}, {execution.used}"
    return f"| `{id}` | {how} | {spent / finished:.0f}{part} | {peak / 1024:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--size", default="3840x2160")
    parser.add_argument("--limit", type=float, default=600.0)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, torch {torch.__version__}, {options.size} px")
    print("| model | run | CPU s | peak GiB |\n| --- | --- | ---: | ---: |")
    for id in options.models:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            print(pool.submit(measured, id, options.size, options.limit, options.precision).result(), flush=True)


if __name__ == "__main__":
    main()
