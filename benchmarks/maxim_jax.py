"""MAXIM beside its authors' code on JAX: CPU time and agreement, same weights, same picture, one core, in turns.

    python -m venv jax && jax/bin/pip install jax flax einops
    python benchmarks/maxim_jax.py ../maxim --python jax/bin/python [--variant S-2] [--size 256] [--rounds 5]

``../maxim`` is a checkout of https://github.com/google-research/maxim. Weights are random: those of layers with as
many inputs as keep the size of what goes through them. JAX compiles before the first run, which does not count.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

CONFIG = {"num_supervision_scales": 3, "num_outputs": 3, "use_bias": True}


def authors(checkout: str, folder: Path, variant: str, size: int) -> None:
    """In the environment of JAX: write weights, picture and result, then a run and its CPU seconds for every line."""
    sys.path.insert(0, checkout)
    import jax
    from maxim.models.maxim import Model

    model = Model(variant=variant, dropout_rate=0.0, **CONFIG)
    random = np.random.default_rng(0)
    x = random.random((1, size, size, 3)).astype(np.float32)
    shapes = jax.eval_shape(model.init, jax.random.PRNGKey(0), x)["params"]

    def drawn(path: Any, leaf: Any) -> np.ndarray:
        kind = path[-1].key
        values = random.normal(0, 1, leaf.shape)
        if kind == "kernel":
            small = leaf.ndim == 2  # of gates over places
            return (values * (0.02 if small else np.prod(leaf.shape[:-1]) ** -0.5)).astype(np.float32)
        return ((kind == "scale") + 0.05 * values).astype(np.float32)

    weights = jax.tree_util.tree_map_with_path(drawn, shapes)
    names = jax.tree_util.tree_flatten_with_path(weights)[0]
    flat = {"/".join(["opt", "target", *(key.key for key in path)]): leaf for path, leaf in names}
    np.savez(folder / "weights.npz", **flat)
    run = jax.jit(lambda w, picture: model.apply({"params": w}, picture))
    np.savez(folder / "result.npz", x=x, y=np.asarray(run(weights, x)[-1][-1]))
    print("ready", flush=True)
    for _ in sys.stdin:
        begun = time.process_time()
        jax.block_until_ready(run(weights, x))
        print(time.process_time() - begun, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout")
    parser.add_argument("--python", help="of the environment with JAX")
    parser.add_argument("--variant", default="S-2")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if options.folder:
        authors(options.checkout, options.folder, options.variant, options.size)
        return
    import torch

    from restorekit.zoo.convert import convert_state_dict
    from restorekit.zoo.load import build, detect
    from restorekit.zoo.model import channels_last

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [options.python, __file__, options.checkout, "--folder", name]
        command += ["--variant", options.variant, "--size", str(options.size)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdin is not None and child.stdout is not None
            if child.stdout.readline().strip() != "ready":
                raise SystemExit("the authors' code did not run; its message stands above")
            state = convert_state_dict("maxim", dict(np.load(folder / "weights.npz")))
            name, detected = detect(state, "weights.npz")
            network = channels_last(build(name, detected.config, state, "weights.npz"))
            kept = np.load(folder / "result.npz")
            x = torch.from_numpy(kept["x"]).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
            theirs, ours = [], []
            with torch.inference_mode():
                made = network.picture(x)
                for _ in range(options.rounds):
                    child.stdin.write("run\n")
                    child.stdin.flush()
                    theirs.append(float(child.stdout.readline()))
                    begun = time.process_time()
                    network(x)
                    ours.append(time.process_time() - begun)
            child.stdin.close()
    off = float((made.permute(0, 2, 3, 1) - torch.from_numpy(kept["y"])).abs().max())
    ratio = statistics.median(a / b for a, b in zip(theirs, ours, strict=True))
    largest = np.abs(kept["y"]).max()
    print(f"MAXIM {options.variant}, {options.size} x {options.size} px, largest difference {off:.1e} of {largest:.1f}")
    print(f"authors {statistics.median(theirs):.2f} CPU s, here {statistics.median(ours):.2f} CPU s, {ratio:.2f} times")


if __name__ == "__main__":
    main()
