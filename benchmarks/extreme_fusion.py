"""Two exposures many stops apart, fused: how much of the scene is seen, by TMQI and by local structure.

    python benchmarks/extreme_fusion.py HDR... [--stops 9] [--bracket DARK BRIGHT]... [--sheet sheet.jpg]

From every HDR picture two 8-bit sRGB photographs are made: one exposed for its highlights (its brightest parts, but
for ``--clipped`` of them, are just white), one so many stops brighter, with shot noise (8000 electrons at white) and
read noise (3 electrons). Each method gets these two. TMQI compares its result with the luminance of the scene between
what the dark frame clips and what the bright one drowns in noise. Structure is the mean correlation of luma with the
scene's logarithm in windows of 11x11 px, apart for where the bright frame clips (highlights) and where not (rest).
Windows that are flat in the scene are left out. ``--bracket`` adds photographs to the sheet, without numbers.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import restorekit as rk
from restorekit.color.transfer import encode
from restorekit.frame import Bracket, Frame
from restorekit.metrics.tmqi import tmqi
from restorekit.stages.fusion import Fusion, Mertens
from restorekit.stages.fusion_extreme import Extreme
from restorekit.stages.tone import luminance
from restorekit.state import ImageState

ENCODED = ImageState("rgb", "display", "srgb", "bt709", "bracket")
ELECTRONS, READ_NOISE = 8000.0, 3.0
WINDOW = 11
FLAT_EV = 0.05
METHODS: Mapping[str, Fusion] = {
    "mertens paper": Mertens(),
    "mertens opencv": Mertens(preset="opencv"),
    "mertens enfuse": Mertens(preset="enfuse"),
    "extreme": Extreme(),
}


def photograph(light: NDArray[np.float64], seed: int) -> Frame:
    """An 8-bit sRGB frame of light ``[3,H,W]``, 1 = white."""
    random = np.random.default_rng(seed)
    electrons = random.poisson(np.clip(light, 0, 1) * ELECTRONS) + random.normal(0, READ_NOISE, light.shape)
    shown = encode(torch.from_numpy(np.clip(electrons / ELECTRONS, 0, 1)).float(), "srgb")
    return Frame((shown * 255).round().to(torch.uint8), ENCODED)


def structure(luma: Tensor, scene: Tensor) -> Tensor:
    """Correlations ``[H,W]`` of windows; NaN where the scene is flat."""
    planes = [each.double().numpy() for each in (luma, scene)]
    mean = [cv2.blur(each, (WINDOW, WINDOW)) for each in planes]
    variance = [np.maximum(cv2.blur(p * p, (WINDOW, WINDOW)) - m * m, 0) for p, m in zip(planes, mean, strict=True)]
    shared = cv2.blur(planes[0] * planes[1], (WINDOW, WINDOW)) - mean[0] * mean[1]
    # the window of a flat result (of rounding only) correlates with nothing
    correlation = shared / np.sqrt((variance[0] + (0.3 / 255) ** 2) * np.maximum(variance[1], 1e-12))
    return torch.from_numpy(np.where(variance[1] > FLAT_EV**2, correlation, np.nan))


def scene_of(path: Path, clipped: float) -> NDArray[np.float64]:
    light = rk.read(path).as_float().pixels.nan_to_num(0.0, posinf=65504.0).clamp(min=0).double().numpy()
    scaled: NDArray[np.float64] = light / np.quantile(light.max(0), 1 - clipped)
    return scaled


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hdr", nargs="*", type=Path)
    parser.add_argument("--stops", type=float, default=9.0)
    parser.add_argument("--clipped", type=float, default=0.003)
    parser.add_argument("--bracket", nargs=2, type=Path, action="append", default=[])
    parser.add_argument("--sheet", type=Path, help="JPEG of the two frames, mertens paper and extreme side by side")
    parser.add_argument("--height", type=int, default=340, help="of a row of the sheet")
    options = parser.parse_args()
    rows: list[list[Tensor]] = []
    print("| scene | method | TMQI | fidelity | naturalness | structure of highlights | of the rest |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for path in options.hdr:
        light = scene_of(path, options.clipped)
        frames = (photograph(light, 0), photograph(light * 2.0**options.stops, 1))
        y = luminance(torch.from_numpy(light), "bt709")[0]
        seen = y.clamp(2.0 ** -(options.stops + 8), 1.0)
        lost = torch.from_numpy((light * 2.0**options.stops).min(0) >= 1)
        shown = [frame.as_float().pixels for frame in frames]
        for name, method in METHODS.items():
            result = method.combine(Bracket(frames)).pixels
            luma = luminance(result, "bt709")[0]
            quality = tmqi(seen, luma.double() * 255)
            local = structure(luma, seen.log2())
            parts = [float(local[part].nanmean()) for part in (lost, ~lost)]
            values = (quality.quality, quality.fidelity, quality.naturalness, *parts)
            print(f"| {path.stem} | {name} | " + " | ".join(f"{value:.3f}" for value in values) + " |", flush=True)
            if name in ("mertens paper", "extreme"):
                shown.append(result)
        rows.append(shown)
    for dark, bright in options.bracket:
        read = [rk.read(path) for path in (dark, bright)]
        pair = Bracket(tuple(Frame(frame.pixels, ENCODED) for frame in read))
        fused = [METHODS[name].combine(pair).pixels for name in ("mertens paper", "extreme")]
        rows.append([*(frame.as_float().pixels for frame in read), *fused])
    if options.sheet:
        write_sheet(options.sheet, rows, options.height)


def write_sheet(path: Path, rows: list[list[Tensor]], height: int) -> None:
    """Rows of pictures, scaled to one height, in the middle of the widest row."""
    strips = []
    for row in rows:
        images = [(each.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()[:, :, ::-1] for each in row]
        widths = [round(image.shape[1] * height / image.shape[0]) for image in images]
        sized = [cv2.resize(i, (w, height), interpolation=cv2.INTER_AREA) for i, w in zip(images, widths, strict=True)]
        strips.append(
            np.hstack([cv2.copyMakeBorder(i, 3, 3, 3, 3, cv2.BORDER_CONSTANT, value=(255,) * 3) for i in sized])
        )
    widest = max(strip.shape[1] for strip in strips)
    sides = [(widest - strip.shape[1]) // 2 for strip in strips]
    parts = [
        cv2.copyMakeBorder(s, 0, 0, k, widest - s.shape[1] - k, cv2.BORDER_CONSTANT, value=(255,) * 3)
        for s, k in zip(strips, sides, strict=True)
    ]
    cv2.imwrite(str(path), np.vstack(parts), [cv2.IMWRITE_JPEG_QUALITY, 85])


if __name__ == "__main__":
    main()
