"""Quality of demosaicing: CPSNR over a folder of full-colour pictures.

    python benchmarks/demosaic_quality.py FOLDER

Each picture is decoded from sRGB to linear light, sampled by an RGGB filter, demosaiced, and compared with itself
after sRGB encoding, a border of 10 px left out. CPSNR pools the squared error of the three channels; the mean over the
pictures is given. LibRaw's own methods get the same mosaic.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

import restorekit as rk
from restorekit.color.transfer import decode, encode
from restorekit.facts import Facts
from restorekit.frame import Frame
from restorekit.metrics.psnr import psnr
from restorekit.stages.demosaic import Demosaic
from restorekit.state import ImageState

BORDER_PX = 10
METHODS = {
    "bilinear": Demosaic(method="bilinear"),
    "malvar": Demosaic(method="malvar"),
    "menon, interpolating light": Demosaic(method="menon", interpolates="light"),
    "menon (default)": Demosaic(method="menon"),
    "LibRaw AHD": Demosaic(method="libraw", libraw_algorithm="AHD"),
    "LibRaw DHT": Demosaic(method="libraw", libraw_algorithm="DHT"),
    "LibRaw AAHD": Demosaic(method="libraw", libraw_algorithm="AAHD"),
}


def mosaic_of(linear: torch.Tensor) -> Frame:
    """The scene-referred RGGB mosaic of linear RGB [3,H,W]."""
    plane = linear[1].clone()
    plane[0::2, 0::2] = linear[0, 0::2, 0::2]
    plane[1::2, 1::2] = linear[2, 1::2, 1::2]
    frame = Frame.from_bayer(plane, pattern="RGGB", white=1.0)
    facts = Facts(clip_level=(1.0,), illuminant=(1.0, 1.0, 1.0))
    return replace(frame, state=ImageState("bayer", "scene", "linear", "camera"), facts=facts)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    pictures = sorted(parser.parse_args().folder.glob("*.png"))
    scores: dict[str, list[float]] = {name: [] for name in METHODS}
    inner = slice(BORDER_PX, -BORDER_PX)
    for path in pictures:
        wanted = rk.read(path).as_float().pixels
        mosaic = mosaic_of(decode(wanted, "srgb"))
        for name, stage in METHODS.items():
            got = encode(stage(mosaic).pixels.clamp(0, 1), "srgb")
            scores[name].append(psnr(got[:, inner, inner], wanted[:, inner, inner]))
    print("| method | CPSNR, dB |\n| --- | --- |")
    for name, values in scores.items():
        print(f"| {name} | {sum(values) / len(values):.2f} |")
    print(f"\n{len(pictures)} pictures.")


if __name__ == "__main__":
    main()
