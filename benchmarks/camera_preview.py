"""How fast previews of packed RAW come, and whether memory stays flat.

    python benchmarks/camera_preview.py [--frames 2000] [--size 4000x3000] [--bits 10] [--preview 1280x720]
                                        [--markdown FILE]

A scene that moves is packed as a camera packs it, eight frames that come in turn. Each is unpacked, reduced, and taken
through black level, white balance, camera matrix, filmic tone and encoding, once with fixed exposure and once measured
anew every frame (``auto``). Times are those of a whole call, from the packed bytes to floats that can be shown.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import restorekit as rk


def packed(width: int, height: int, bits: int, number: int) -> rk.Packed:
    """A frame of gradients and noise, shifted by its number."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[0:height, 0:width]
    light = 0.1 + 0.8 * (0.5 + 0.5 * np.sin((x + 40 * number) / 180) * np.cos(y / 140)) ** 2
    light *= np.where((x + y) % 2, 1.0, 0.6)
    white = 2**bits - 1
    numbers = np.clip(64 + light * (white - 64) + rng.normal(0, 2, light.shape), 0, white).astype(np.uint16)
    return rk.Packed(pack(numbers, bits), width, height, "RGGB", bits, black=64, neutral=(0.5, 1.0, 0.6))  # type: ignore[arg-type]


def pack(numbers: NDArray[np.uint16], bits: int) -> NDArray[np.uint8]:
    pixels = 4 if bits == 10 else 2
    groups = numbers.reshape(-1, pixels)
    low_bits = bits - 8
    shifts = np.arange(pixels) * low_bits
    low = ((groups & (2**low_bits - 1)) << shifts).sum(1)
    return np.column_stack([groups >> low_bits, low]).astype(np.uint8).ravel()


def resident_mb() -> float:
    """Memory of this process as it is now; Linux only."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--size", default="4000x3000")
    parser.add_argument("--bits", type=int, default=10, choices=(10, 12))
    parser.add_argument("--preview", default="1280x720")
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    box = tuple(map(int, options.preview.split("x")))
    frames = [packed(width, height, options.bits, number) for number in range(8)]
    what = f"{options.size}, RAW{options.bits}, within {options.preview}"
    rows = [
        f"| {what} | median, ms | 99 %, ms | frames/s | memory after 100, MB | at the end, MB |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for mode in ("fixed", "auto"):
        pipeline = rk.Pipeline.load("raw-to-srgb").set("tone.exposure", mode=mode)
        with rk.CameraSession(pipeline, preview=box, device="cpu") as session:  # type: ignore[arg-type]
            times, memory = [], []
            for number in range(options.frames):
                started = time.perf_counter()
                session.preview(frames[number % len(frames)])
                times.append(1e3 * (time.perf_counter() - started))
                memory.append(resident_mb())
        times = sorted(times[20:])
        median, slow = statistics.median(times), times[int(0.99 * len(times))]
        early = max(memory[:100])
        speed = f"{median:.1f} | {slow:.1f} | {1e3 / median:.0f}"
        rows.append(f"| exposure {mode} | {speed} | {early:.0f} | {memory[-1]:.0f} |")
    text = "\n".join(rows)
    print(text)
    if options.markdown:
        options.markdown.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
