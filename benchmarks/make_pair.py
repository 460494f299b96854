"""Make a short and a long RAW exposure of a scene in lamp light: what dual-exposure pipelines are for.

    python benchmarks/make_pair.py SCENE OUT_FOLDER [--stops 3] [--lamp 0.9,1,0.35] [--clipped 0.2] [--seed 1]

SCENE is an HDR picture or a photograph; its light is taken as that of surfaces in white light, coloured by the lamp
(what the camera sees of a white surface), and recorded twice by one sensor with shot and read noise, rounding and
clipping (Foi et al., IEEE TIP 2008). The files, ``short.dng`` and ``long.dng``, say the white balance of daylight, as a
camera set to it does. The camera is invented, with BT.709 primaries.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

import restorekit as rk
from restorekit.color.primaries import rgb_to_xyz, transformed
from restorekit.color.transfer import decode
from restorekit.data.degradation import seeded
from restorekit.data.exposures import DualExposure, dual_exposure_frames
from restorekit.data.sensor import mosaicked
from restorekit.facts import Calibration, Camera, Exposure
from restorekit.frame import Frame
from restorekit.io.dng.write import write_dng
from restorekit.state import ImageState

DAYLIGHT = (0.5, 1.0, 0.625)
"""What the camera sees of a white surface in D65."""

BLACK, WHITE = 512, 16383
ELECTRONS, READ_NOISE = 12000.0, 3e-4
LONG_S = 0.1


def scene(path: Path, lamp: tuple[float, float, float]) -> Frame:
    """The light of a picture in lamp light, as a mosaic."""
    frame = rk.read(path).upright().as_float()
    transfer = frame.state.transfer
    light = frame.pixels if transfer == "linear" else decode(frame.pixels, transfer)
    light = transformed(light[:3], np.diag(lamp)).clamp_(min=0.0)
    light = light[:, : light.shape[1] // 2 * 2, : light.shape[2] // 2 * 2]
    camera = Camera(cfa=("RG", "GB"))
    return Frame(mosaicked(light, camera.cfa), ImageState("bayer", "scene", "linear", "camera"), camera=camera)


def write(path: Path, frame: Frame) -> None:
    """An exposure as a DNG file with the white balance of daylight."""
    matrix = np.diag(DAYLIGHT) @ np.linalg.inv(rgb_to_xyz("bt709"))
    numbers = (frame.pixels[0] * (WHITE - BLACK)).add_(BLACK).round_().clamp_(0, WHITE).to(torch.uint16)
    camera = Camera("restorekit", "Synthetic Pair", calibrations=(Calibration(6504.0, matrix),))
    exposure = Exposure(time_s=LONG_S * 2.0 ** (frame.exposure.ev_offset or 0.0), f_number=2, iso=100)
    raw = Frame.from_bayer(
        numbers, pattern="RGGB", black=BLACK, white=WHITE, exposure=exposure, neutral=DAYLIGHT, camera=camera
    )
    write_dng(path, raw)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("scene", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--stops", type=float, default=3.0)
    parser.add_argument("--lamp", default="0.9,1,0.35")
    parser.add_argument("--clipped", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    red, green, blue = (float(value) for value in arguments.lamp.split(","))
    effects = DualExposure(
        clipped=(arguments.clipped, arguments.clipped),
        electrons=(ELECTRONS, ELECTRONS),
        read_noise=(READ_NOISE, READ_NOISE),
    )
    pair = dual_exposure_frames(
        scene(arguments.scene, (red, green, blue)), arguments.stops, seeded(arguments.seed), effects
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, frame in zip(("short", "long"), pair, strict=True):
        write(arguments.out / f"{name}.dng", frame)


if __name__ == "__main__":
    main()
