"""Quality of models beside what they cost: CPU seconds for a megapixel of the result, on one thread.

    python benchmarks/model_speed.py MODEL... [--size 512] [--rounds 3]

Networks have fresh weights of the card's size, so that models whose weights are not installed are measured too; PSNR is
what their cards say, measured or else published. Runs of all models are taken in turns, and the median is told.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import nullcontext

import torch

from restorekit import architectures
from restorekit.zoo.card import ModelCard
from restorekit.zoo.cards import card
from restorekit.zoo.model import channels_last

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}


def quality(model: ModelCard) -> str:
    """The first number of the card."""
    for scores, kind in ((model.measured, "measured"), (model.published, "published")):
        for score in scores:
            if score.psnr is not None:
                setting = f", {score.setting}" if score.setting else ""
                return f"{score.psnr:.2f} dB ({score.set}{setting}; {kind})"
    return ""


def seconds(network: torch.nn.Module, picture: torch.Tensor, dtype: torch.dtype | None) -> float:
    """CPU seconds of a run."""
    begun = time.process_time()
    with torch.inference_mode(), torch.autocast("cpu", dtype) if dtype else nullcontext():
        network(picture)
    return time.process_time() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--size", type=int, default=512, help="px a side of the result")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    models = [card(name) for name in arguments.models]
    networks = [channels_last(architectures.create(each.architecture, **each.config).eval()) for each in models]
    found: dict[tuple[int, str], list[float]] = {}
    for turn in range(arguments.rounds + 1):
        for number, network in enumerate(networks):
            side = arguments.size // models[number].scale
            picture = torch.rand(1, network.in_channels, side, side).contiguous(memory_format=torch.channels_last)
            for name, dtype in PRECISIONS.items():
                spent = seconds(network, picture, dtype) * 1e6 / (side * models[number].scale) ** 2
                if turn > 0:  # the first one warms up
                    found.setdefault((number, name), []).append(spent)
    print("| model | weights | fp32, s/MP | bf16, s/MP | PSNR |\n| --- | ---: | ---: | ---: | --- |")
    for number, (model, network) in enumerate(zip(models, networks, strict=True)):
        count = sum(value.numel() for value in network.parameters())
        times = [f"{statistics.median(found[number, name]):.2f}" for name in PRECISIONS]
        print(f"| `{model.id}` | {count:,} | {' | '.join(times)} | {quality(model)} |")


if __name__ == "__main__":
    main()
