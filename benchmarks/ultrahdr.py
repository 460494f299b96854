"""How truly Ultra HDR files give back the HDR rendition that went in, by libultrahdr, and what that costs.

    python benchmarks/ultrahdr.py HDR_FILE... [--quality 95] [--headroom 3] [--sweep]

Each HDR file (EXR, Radiance) is exposed automatically and tone-mapped by tone.filmic to the standard picture; its own
light is the HDR rendition: as that of a scene, and, cut at 1000 cd/m2, as that of a display. Beside the files stands a
ramp of gray over 13 stops. imagecodecs' libultrahdr decodes what was written. Relative errors are those of all channels
of at least 1 cd/m2 (white is 203), and of those above white.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import torch

from restorekit.color.transfer import encode
from restorekit.frame import Frame
from restorekit.io import read
from restorekit.io.encode import in_jpeg
from restorekit.io.ultrahdr import assembled, gain_map_of, map_quality, renditions
from restorekit.io.write import quantise
from restorekit.stages.color import Convert
from restorekit.stages.tone import Exposure, Filmic
from restorekit.state import ImageState

DIM, PEAK = 1 / 203, 1000 / 203


def ramp() -> Frame:
    light = torch.linspace(-8, 5, 4096).exp2_().expand(3, 256, -1).contiguous()
    return Frame(light, ImageState("rgb", "scene", "linear", "p3"))


def pictures(paths: list[Path]) -> Iterator[tuple[str, Frame]]:
    for path in paths:
        yield path.stem, Convert(to="p3")(Exposure(mode="auto")(read(path)))
    yield "ramp", ramp()


def standard(scene: Frame) -> Frame:
    """The standard picture in 8 bits."""
    toned = Filmic()(scene)
    return replace(toned, pixels=quantise(encode(toned.pixels, "srgb"), 8), state=replace(toned.state, transfer="srgb"))


def measured(sdr: Frame, hdr: Frame, quality: int, coded: int, reduction: int, gamma: float, headroom: float) -> str:
    """Cells of one file: errors in percent, sizes in kB, CPU seconds."""
    samples = np.ascontiguousarray(sdr.pixels.permute(1, 2, 0).numpy())
    started = time.process_time()
    base = bytes(imagecodecs.jpeg8_encode(samples, level=quality, subsampling="444"))
    found = gain_map_of(base, sdr, hdr, headroom, reduction=reduction, gamma=gamma)
    data = b"".join(assembled(base, found, coded, in_jpeg(sdr, "benchmark")))
    spent = time.process_time() - started
    wanted = hdr.pixels.float()
    if hdr.state.reference == "scene":
        wanted = torch.cat([shown for _, _, shown in renditions(base, sdr, hdr, headroom)], 1)
    wanted = wanted.permute(1, 2, 0)
    shown = torch.from_numpy(imagecodecs.ultrahdr_decode(data)[..., :3].astype(np.float32))
    lit = wanted >= DIM
    errors = ((shown - wanted).abs() / wanted)[lit].numpy() * 100
    lights = errors[(wanted > 1)[lit].numpy()]
    cells = [np.median(errors), np.percentile(errors, 99)]
    cells += [np.median(lights), np.percentile(lights, 99)] if len(lights) else [np.nan, np.nan]
    sizes = f"{len(base) / 1000:.0f} | {(len(data) - len(base)) / 1000:.0f}"
    return " | ".join(f"{cell:.2f}" for cell in cells) + f" | {sizes} | {spent:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--quality", type=int, default=95)
    parser.add_argument("--headroom", type=float, default=3.0)
    parser.add_argument("--sweep", action="store_true", help="other sizes, qualities and gammas of the map as well")
    arguments = parser.parse_args()
    usual = (map_quality(arguments.quality), 1, 1.0)
    others = [(arguments.quality, 1, 1.0), (98, 1, 1.0), (100, 1, 1.0), (99, 2, 1.0), (99, 1, 0.7), (99, 1, 1.5)]
    print("| picture | light | map size | map quality | gamma | median, % | 99 %, % | above white: median, % | 99 %, % "
          "| picture, kB | map, kB | CPU s |")  # fmt: skip
    print("| --- " * 3 + "| ---: " * 9 + "|")
    for name, scene in pictures(arguments.files):
        cut = replace(scene.with_pixels(scene.pixels.clamp(max=PEAK)), state=replace(scene.state, reference="display"))
        for hdr in (scene, cut):
            sdr, reference = standard(hdr), hdr.state.reference
            for coded, reduction, gamma in (usual, *(others if arguments.sweep else ())):
                cells = measured(sdr, hdr, arguments.quality, coded, reduction, gamma, arguments.headroom)
                size = "full" if reduction == 1 else "half"
                print(f"| {name} | {reference} | {size} | {coded} | {gamma:g} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
