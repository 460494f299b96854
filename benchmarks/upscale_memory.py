"""Memory of an upscaling run from file to file, beside the program, the weights and the decoded input (Linux).

    python benchmarks/upscale_memory.py PHOTO 7680x4320 OUTPUT.png [--model ID]

The photo is repeated to the size and run through ``restore``. Without ``--model`` the network is an ESPCN of 64
channels with random weights, x4, RGB: a light network, so that what is measured is the way through the program.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from restorekit import device, runner
from restorekit.architectures import create
from restorekit.frame import Frame
from restorekit.io.formats import OutputSpec, format_of_path
from restorekit.io.read import read
from restorekit.io.write import write
from restorekit.jobs import plan
from restorekit.pipeline import InputSpec, Pipeline
from restorekit.stages import Restore
from restorekit.state import ImageState
from restorekit.zoo.model import load_model

CONFIG = {"variant": "lornatang", "in_channels": 3, "out_channels": 3, "channels": 64, "upscale_factor": 4}


def resident_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    parser.add_argument("size")
    parser.add_argument("output", type=Path)
    parser.add_argument("--model", default="")
    options = parser.parse_args()
    device.keep_freed_memory()
    width, height = (int(part) for part in options.size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or os.path.join(folder, "light.safetensors")
        if not options.model:
            torch.manual_seed(0)
            save_file(create("espcn", **CONFIG).state_dict(), model)
        pixels = read(options.photo).upright().pixels
        times = 1, -(-height // pixels.shape[1]), -(-width // pixels.shape[2])
        source = Path(folder) / "input.png"
        write(Frame(pixels.repeat(times)[:, :height, :width].contiguous(), ImageState()), source)
        del pixels
        load_model(model)
        kind = format_of_path(options.output)
        assert kind is not None, "name an output of a known format"
        spec = OutputSpec(format=kind, bits=8)
        pipeline = Pipeline([Restore(model=model)], InputSpec(ImageState()), [spec])
        base: list[float] = []
        render = runner.render

        def measured(*arguments: object) -> object:
            """Called when the input is decoded: what is there then is the base, and the peak starts anew."""
            device.release_freed_memory()
            Path("/proc/self/clear_refs").write_text("5")
            base.append(resident_mb("VmRSS"))
            return render(*arguments)  # type: ignore[arg-type]

        runner.render = measured  # type: ignore[assignment]
        started, cpu = time.perf_counter(), time.process_time()
        for _, report in runner.Runner(pipeline, plan(pipeline, [source], options.output, existing="overwrite")).run():
            assert report.status == "done", report.error
            wall, cpu = time.perf_counter() - started, time.process_time() - cpu
            print(f"{report.width} x {report.height} {kind}, {report.networks['restore']}")
            print(f"base {base[0]:.0f} MB, peak above it {resident_mb('VmHWM') - base[0]:.0f} MB")
            print(f"{cpu:.0f} CPU s, {wall:.0f} s, of them writing {report.seconds['write']:.0f} s")


if __name__ == "__main__":
    main()
