"""The pictures and the table of docs/tone_mapping.md: every tone mapping operator with its default parameters.

python benchmarks/tone_mapping.py HDR_FILE... [--images docs/images] [--no-times]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from contact_sheet import sheet
from torch.nn import functional as F

import restorekit as rk
from restorekit.engine import process
from restorekit.frame import Frame
from restorekit.pipeline import Pipeline
from restorekit.registry import stage_class
from restorekit.stage import Stage
from restorekit.stages import Encode, Exposure
from restorekit.state import ImageState

FIXED = ("filmic", "hable", "aces", "agx", "bt2390")
"""Take the exposure as it is; here tone.exposure in auto mode comes before them."""

MEASURED = ("reinhard", "drago", "reinhard_local", "guided", "local_laplacian", "gradient")
LOCAL = MEASURED[2:]
LARGE = (4000, 6000)
EDGE_EV = 8.0
DISPLAYED = ImageState("rgb", "display", "linear", "bt709")


def stages(name: str) -> list[Stage]:
    """An operator with its defaults and what belongs before it."""
    if name == "exposure":
        return [Exposure(mode="auto")]
    before: list[Stage] = [Exposure(mode="auto")] if name in FIXED else []
    return [*before, stage_class(f"tone.{name}")()]


def picture(frame: Frame, name: str, out: Path) -> None:
    """One operator's rendering as a PNG; light above 1, for HDR displays, is shown darker by its peak."""
    result = process(Pipeline(stages(name)), frame)
    if name == "bt2390":
        result = result.with_pixels(result.pixels * (203 / 1000))
    shown = Encode()(replace(result, state=result.state.changed({"reference": "display"})))
    rk.write(shown.with_pixels(shown.pixels.clamp(0, 1)), out)


def halo(name: str) -> float:
    """The largest overshoot, in stops, along straight, slanted and round edges of 8 stops, at two sizes."""
    worst = 0.0
    for height, width in ((600, 800), (2000, 3000)):
        y, x = np.mgrid[0:height, 0:width]
        straight, slanted = x - 0.503 * width, x + 0.31 * y - 0.62 * width
        for distance in (straight, slanted, 0.25 * height - np.hypot(x - width / 2.03, y - height / 2.01)):
            bright, far = distance > 0, np.abs(distance) > 0.12 * height
            edge = torch.from_numpy(np.where(bright, 1.0, 2.0**-EDGE_EV).astype(np.float32))[None]
            frame = Frame(edge, ImageState("gray", "scene", "linear", "bt709"))
            result = stages(name)[-1](frame).pixels[0].log2().numpy()
            over = result[bright].max() - np.median(result[bright & far])
            under = np.median(result[~bright & far]) - result[~bright].min()
            worst = max(worst, float(over), float(under))
    return worst


def measure(name: str, path: Path) -> None:
    """CPU seconds and peak memory (MB beyond the image that comes in) on 24 megapixels, printed as JSON."""
    frame = rk.read(path).as_float()
    if isinstance(frame, Frame):
        large = F.interpolate(frame.pixels[None], size=LARGE, mode="bilinear")[0].clamp_min_(0.0)
        state = DISPLAYED if name == "expand" else frame.state
        frame = Frame(large.clamp_max_(1.0) if name == "expand" else large, state)
    del large
    chain = [stage_class("tone.expand")()] if name == "expand" else stages(name)[-1:]
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak that making the image took (Linux)
    held, before = _memory_mb("VmRSS"), resource.getrusage(resource.RUSAGE_SELF)
    process(Pipeline(chain), frame)
    after = resource.getrusage(resource.RUSAGE_SELF)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps([seconds, _memory_mb("VmHWM") - held]))


def _memory_mb(name: str) -> float:
    """A size from this process's status (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--images", type=Path, default=Path("docs/images"))
    parser.add_argument("--no-times", action="store_true")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure, arguments.files[0])
        return
    for path in arguments.files:
        frame = rk.read(path)
        with tempfile.TemporaryDirectory() as folder:
            pictures = []
            for name in ("exposure", *MEASURED[:2], *FIXED, *LOCAL):
                pictures.append(Path(folder) / f"tone.{name}.png")
                picture(frame, name, pictures[-1])
            cell = (400, 300) if frame.width > frame.height else (300, 400)
            page = sheet(pictures, 4, *cell)
        out = arguments.images / f"tone_{path.stem.split('_', 1)[-1].lower()}.jpg"
        cv2.imwrite(str(out), page, [cv2.IMWRITE_JPEG_QUALITY, 86])
        print(out)
    if arguments.no_times:
        return
    print("| operator | CPU s | extra MB | halo EV |\n| --- | --- | --- | --- |")
    for name in (*MEASURED[:2], *FIXED, *LOCAL, "expand"):
        command = [sys.executable, __file__, str(arguments.files[0]), "--measure", name]
        runs = [
            json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout) for _ in range(2)
        ]
        seconds, memory = min(run[0] for run in runs), min(run[1] for run in runs)
        print(f"| `tone.{name}` | {seconds:.1f} | {memory:.0f} | {halo(name) if name in LOCAL else 0:.2f} |")


if __name__ == "__main__":
    main()
