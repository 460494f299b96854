"""Make a RAW file from a photograph: what a camera with known matrices would have recorded.

    python benchmarks/make_raw.py PHOTO OUT.dng [--width 6000 --height 4000] [--pattern RGGB] [--ev 0]

The photo is decoded to linear light, scaled, its highlights lifted above the clipping point, taken
to camera RGB by the inverse of the DNG colour model, sampled by a Bayer filter, and given shot and
read noise (Foi et al., Practical Poissonian-Gaussian noise modeling, IEEE TIP 2008). Without PHOTO a
seeded synthetic scene is used, so that the file can be made on any machine.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from restorekit.color.camera import camera_to_rgb
from restorekit.facts import Calibration, Camera, Exposure
from restorekit.frame import Frame
from restorekit.io.dng.write import write_dng

BLACK = (512.0, 514.0, 511.0, 513.0)
WHITE = 16383.0
FULL_WELL_ELECTRONS = 12000.0
READ_NOISE_ELECTRONS = 4.0
NEUTRAL = (0.52, 1.0, 0.66)
STANDARD_A = np.array([[0.86, -0.26, -0.06], [-0.42, 1.22, 0.22], [-0.06, 0.18, 0.62]])
DAYLIGHT = np.array([[0.72, -0.18, -0.08], [-0.44, 1.24, 0.22], [-0.08, 0.20, 0.66]])


def camera() -> Camera:
    """A camera with invented but plausible matrices for standard illuminant A and D65."""
    return Camera(
        make="restorekit",
        model="Synthetic One",
        neutral=NEUTRAL,
        calibrations=(Calibration(2856.0, STANDARD_A), Calibration(6504.0, DAYLIGHT)),
        noise_profile=((1.0 / FULL_WELL_ELECTRONS, (READ_NOISE_ELECTRONS / FULL_WELL_ELECTRONS) ** 2),) * 3,
    )


def synthetic_scene(height: int, width: int) -> NDArray[np.float32]:
    """A seeded linear scene [H,W,3]: hills of colour, fine texture, hard edges, a small sun."""
    random = np.random.default_rng(7)
    coarse = random.uniform(0.02, 0.7, (12, 18, 3)).astype(np.float32)
    scene = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    bars = ((np.arange(width) // 9) % 2).astype(np.float32) * 0.25 + 0.75
    scene[height // 2 : height // 2 + height // 8] *= bars[None, :, None]
    cv2.circle(scene, (width // 4, height // 5), max(4, width // 60), (4.0, 3.8, 3.4), -1, cv2.LINE_AA)
    grain = cv2.GaussianBlur(random.standard_normal((height, width)).astype(np.float32), (0, 0), 0.9)
    return np.clip(scene * (1 + 0.15 * grain[..., None]), 0.001, None)


def scene_of_photo(path: Path, height: int, width: int) -> NDArray[np.float32]:
    """A photo as linear light [H,W,3], scaled to cover the size, with highlights lifted above white."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB).astype(np.float32) / 255.0
    linear = np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4).astype(np.float32)
    factor = max(height / linear.shape[0], width / linear.shape[1])
    size = (max(width, round(linear.shape[1] * factor)), max(height, round(linear.shape[0] * factor)))
    if size != (linear.shape[1], linear.shape[0]):
        linear = cv2.resize(linear, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
    top, left = (linear.shape[0] - height) // 2, (linear.shape[1] - width) // 2
    linear = np.clip(linear[top : top + height, left : left + width], 0, None)
    luminance = linear.mean(-1, keepdims=True)
    lifted: NDArray[np.float32] = linear * (1 + 3.0 * np.clip((luminance - 0.85) / 0.15, 0, 1) ** 2)
    return lifted


def expose(scene: NDArray[np.float32], pattern: str, ev: float, seed: int = 1) -> Frame:
    """The mosaic that the synthetic camera records of a linear BT.709 scene."""
    made = camera()
    to_camera = np.linalg.inv(camera_to_rgb(made, NEUTRAL, "bt709"))
    raw = cv2.transform(scene, to_camera.astype(np.float32)) * np.float32(2.0**ev)
    random = np.random.default_rng(seed)
    mosaic = np.empty(scene.shape[:2], np.uint16)
    for site, (colour, black) in enumerate(zip(pattern, BLACK, strict=True)):
        y, x = divmod(site, 2)
        light = np.clip(raw[y::2, x::2, "RGB".index(colour)], 0, None)
        sigma = np.sqrt(light / FULL_WELL_ELECTRONS + (READ_NOISE_ELECTRONS / FULL_WELL_ELECTRONS) ** 2)
        light = light + sigma * random.standard_normal(light.shape, dtype=np.float32)
        mosaic[y::2, x::2] = np.clip(np.rint(light * (WHITE - black) + black), 0, WHITE).astype(np.uint16)
    exposure = Exposure(time_s=2.0**ev / 125, f_number=8.0, iso=100.0)
    return Frame.from_bayer(
        mosaic, pattern=pattern, black=BLACK, white=WHITE, exposure=exposure, neutral=NEUTRAL, camera=made
    )  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photo", nargs="?", type=Path, help="a JPEG or PNG; left out: a synthetic scene")
    parser.add_argument("out", type=Path)
    parser.add_argument("--width", type=int, default=6000)
    parser.add_argument("--height", type=int, default=4000)
    parser.add_argument("--pattern", default="RGGB", choices=("RGGB", "BGGR", "GRBG", "GBRG"))
    parser.add_argument("--ev", type=float, default=0.0)
    arguments = parser.parse_args()
    size = (arguments.height, arguments.width)
    scene = scene_of_photo(arguments.photo, *size) if arguments.photo else synthetic_scene(*size)
    write_dng(arguments.out, expose(scene, arguments.pattern, arguments.ev))


if __name__ == "__main__":
    main()
