"""CPU time and agreement of the networks with their authors' own code, on the same weights and the same picture.

    python benchmarks/networks.py --official hat=../HAT [--official drct=../DRCT ...] [--size 128] [--groups 2]
        [--rounds 3] [--threads 1]

``../HAT`` is a checkout of the authors' repository (https://github.com/XPixelGroup/HAT,
https://github.com/ming053l/DRCT, https://github.com/AVC2-UESTC/CRAFT-SR, https://github.com/zhengchen1999/RGT,
https://github.com/cschenxiang/DRSformer, https://github.com/sunshangquan/Histoformer). Their code needs einops; the few
lines of basicsr and timm that it imports are stood in for. Both networks get fresh weights of the authors'
initialisation; their configuration is that of the paper, where there are residual groups with only ``--groups`` of
them, 0 for all. Histoformer sorts, so that with fresh weights rounding makes another picture; that it agrees is tested
in double precision. Times are CPU seconds of the process; the runs are taken in turns, so that what else the machine
does falls on all of them, and a ratio is the median of the rounds' ratios to the official float32 run. Differences and
PSNR (peak 1) are against that run, too. Allocator settings come from the environment:

    MALLOC_MMAP_THRESHOLD_=8589934592 MALLOC_TRIM_THRESHOLD_=17179869184 python benchmarks/networks.py ...

takes page faults out of all of them, which helps code that makes large intermediates.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import time
import types
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from math import inf, log10
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from restorekit.architectures import create
from restorekit.zoo.model import channels_last


@dataclass(frozen=True)
class Official:
    """Where a class stands in its authors' repository, and the configuration that is measured.

    ``depths`` is the name of the hyperparameter with one number a residual group, like ``num_heads``, and empty where
    there are none. ``own`` are hyperparameters that the authors' class does not have.
    """

    file: str
    name: str
    config: dict[str, Any]
    depths: str = "depths"
    own: dict[str, Any] = field(default_factory=dict)


SHARED = {
    "img_size": 64,
    "upscale": 4,
    "img_range": 1.0,
    "upsampler": "pixelshuffle",
    "window_size": 16,
    "mlp_ratio": 2,
}
NETWORKS = {
    "hat": Official(
        "hat/archs/hat_arch.py",
        "HAT",
        {
            **SHARED,
            "embed_dim": 144,
            "depths": [6] * 6,
            "num_heads": [6] * 6,
            "compress_ratio": 24,
            "squeeze_factor": 24,
        },
    ),
    "drct": Official(
        "drct/archs/DRCT_arch.py",
        "DRCT",
        {**SHARED, "embed_dim": 180, "depths": [6] * 6, "num_heads": [6] * 6, "gc": 32},
    ),
    "craft": Official(
        "basicsr/archs/craft_arch.py",
        "CRAFT",
        {**SHARED, "embed_dim": 48, "depths": [2] * 4, "num_heads": [6] * 4},
    ),
    "rgt": Official(
        "basicsr/archs/rgt_arch.py",
        "RGT",
        {
            "upscale": 4,
            "embed_dim": 180,
            "depth": [6] * 8,
            "num_heads": [6] * 8,
            "mlp_ratio": 2,
            "split_size": [8, 32],
        },
        depths="depth",
    ),
    "drsformer": Official("basicsr/models/archs/DRSformer_arch.py", "DRSformer", {}, depths=""),
    "drsformer-light": Official(
        "basicsr/models/archs/DRSformer_arch_200L+SPA.py", "DRSformer", {}, depths="", own={"mefc": False}
    ),
    "histoformer": Official(
        "basicsr/models/archs/histoformer_arch.py",
        "Histoformer",
        {"dim": 36, "num_blocks": [4, 4, 6, 8], "ffn_expansion_factor": 2.667},
        depths="",
    ),
}


def stand_in_for_basicsr() -> None:
    """The names that the authors' files import from basicsr and timm, without the rest of them."""

    def module(name: str, **content: Any) -> None:
        made = types.ModuleType(name)
        made.__dict__.update(content, __path__=[])
        sys.modules[name] = made

    class Registry:
        def register(self) -> Callable[[type], type]:
            return lambda cls: cls

    module("basicsr")
    module("basicsr.utils")
    module("basicsr.utils.registry", ARCH_REGISTRY=Registry())
    module("basicsr.archs")
    module(
        "basicsr.archs.arch_util",
        to_2tuple=lambda x: tuple(x) if isinstance(x, list | tuple) else (x, x),
        trunc_normal_=nn.init.trunc_normal_,
    )
    module("timm")
    module("timm.models")
    module("timm.models.layers", DropPath=nn.Identity, trunc_normal_=nn.init.trunc_normal_)


def official_class(official: Official, checkout: Path) -> Any:
    """The authors' class, from its file alone."""
    path = checkout / official.file
    spec = importlib.util.spec_from_file_location(f"official_{official.name}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise SystemExit(f"{path}: is not there; name the folder of the authors' checkout")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        raise SystemExit(f"{path}: needs {error.name}; pip install {error.name}") from None
    return getattr(module, official.name)


def picture(size: int) -> Tensor:
    """``[1,3,size,size]`` in 0..1 with more low than high frequencies."""
    noise = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    smooth = nn.functional.interpolate(noise[..., : size // 8, : size // 8], size=(size, size), mode="bicubic")
    return (0.8 * smooth + 0.2 * noise).clamp(0, 1)


def measure(name: str, checkout: Path, size: int, groups: int, rounds: int) -> None:
    """Prints the table of one network."""
    official = NETWORKS[name]
    config = dict(official.config)
    if groups and official.depths:
        for key in (official.depths, "num_heads"):
            config[key] = config[key][:groups]
    torch.manual_seed(0)
    theirs = official_class(official, checkout)(**config).eval()
    ours = channels_last(create(name.partition("-")[0], **config, **official.own).eval())
    ours.load_state_dict(theirs.state_dict())
    x = picture(size)
    mixed = torch.autocast("cpu", torch.bfloat16)
    runs: dict[str, tuple[nn.Module, Any]] = {
        "official float32": (theirs, nullcontext()),
        "official bfloat16 autocast": (theirs, mixed),
        "restorekit float32": (ours, nullcontext()),
        "restorekit bfloat16 autocast": (ours, mixed),
    }
    seconds: dict[str, list[float]] = {label: [] for label in runs}
    outputs: dict[str, Tensor] = {}
    with torch.inference_mode():
        ours(x[..., :64, :64])
        for _ in range(rounds):
            for label, (network, context) in runs.items():
                with context:
                    start = time.process_time()
                    outputs[label] = network(x).float()
                    seconds[label].append(time.process_time() - start)
    reference = next(iter(runs))
    parameters = sum(weight.numel() for weight in ours.parameters()) / 1e6
    depths = f" {config[official.depths]}," if official.depths else ""
    print(f"\n{name},{depths} {parameters:.1f} M parameters, {size} x {size} px, x{ours.scale}")
    print(f"{'':30}{'CPU s':>8}{'ratio':>8}{'max diff':>10}{'PSNR dB':>9}")
    for label in runs:
        ratio = statistics.median(a / b for a, b in zip(seconds[reference], seconds[label], strict=True))
        off = outputs[label] - outputs[reference]
        error = float(off.double().square().mean())
        psnr = -10 * log10(error) if error else inf
        print(f"{label:30}{min(seconds[label]):8.2f}{ratio:8.2f}{float(off.abs().max()):10.1e}{psnr:9.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--official", action="append", required=True, metavar="NETWORK=CHECKOUT")
    parser.add_argument("--size", type=int, default=128, help="side of the picture in px")
    parser.add_argument("--groups", type=int, default=2, help="residual groups, 0 for all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    allocator = {key: value for key, value in os.environ.items() if key.startswith(("MALLOC_", "LD_PRELOAD", "THP_"))}
    print(f"torch {torch.__version__}, {arguments.threads} thread(s), allocator {allocator or 'as it comes'}")
    stand_in_for_basicsr()
    for pair in arguments.official:
        name, _, checkout = pair.partition("=")
        if name not in NETWORKS:
            raise SystemExit(f"{name}: there are {', '.join(NETWORKS)}")
        measure(name, Path(checkout), arguments.size, arguments.groups, arguments.rounds)


if __name__ == "__main__":
    main()
