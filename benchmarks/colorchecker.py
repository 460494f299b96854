"""Colour accuracy on a photographed ColorChecker, beside LibRaw's own conversion.

    python benchmarks/colorchecker.py RAW --corners "715,626 1251,613 1258,921 701,930" [--profile CAMERA.dcp ...]

The corners are the centres of the corner patches (dark skin, bluish green, black, white), in px of the
developed picture. Both conversions get the same white balance, measured on the chart's second-lightest gray,
and each the one exposure factor that makes its mean CIEDE2000 smallest; both are compared in
CIELAB D50 with the reference values of the ColorChecker 2005 (from colour-science, a dev dependency). Camera profiles
are tried by their matrices alone, and with their HueSatMap.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import colour
import numpy as np
import rawpy
import torch
from numpy.typing import NDArray

import restorekit as rk
from restorekit.color.adaptation import D50
from restorekit.color.difference import ciede2000, rgb_to_lab
from restorekit.state import Primaries

Array = NDArray[np.float64]
COLUMNS, ROWS = 6, 4
NEUTRALS = slice(18, 24)
BALANCED_ON = 19


def reference_lab() -> Array:
    """[24,3] CIELAB D50 of the ColorChecker 2005."""
    chart = colour.CCS_COLOURCHECKERS["ColorChecker 2005"]
    xyz = colour.xyY_to_XYZ(np.array(list(chart.data.values())))
    lab: Array = colour.XYZ_to_Lab(xyz, chart.illuminant)
    return lab


def patches(image: Array, corners: Array) -> Array:
    """[24,3] mean of the middle of every patch of an image [H,W,3]."""
    across = np.linalg.norm(corners[1] - corners[0]) / (COLUMNS - 1)
    half = max(2, int(across * 0.2))
    means = []
    for row in range(ROWS):
        for column in range(COLUMNS):
            u, v = column / (COLUMNS - 1), row / (ROWS - 1)
            top = corners[0] * (1 - u) + corners[1] * u
            bottom = corners[3] * (1 - u) + corners[2] * u
            x, y = (top * (1 - v) + bottom * v).round().astype(int)
            means.append(image[y - half : y + half, x - half : x + half].reshape(-1, 3).mean(0))
    return np.array(means)


def ours(path: Path, gains: tuple[float, float, float], profile: Path | None = None, tables: bool = True) -> Array:
    """Linear Rec.2020 [H,W,3] by raw-to-linear-exr with these gains, and with a camera profile."""
    pipe = rk.Pipeline.load("raw-to-linear-exr").set("color.white_balance", gains=gains)
    pipe = pipe.set("color.camera_matrix", profile=profile, hue_sat_map=tables)
    return pipe(rk.read(path)).pixels.permute(1, 2, 0).double().numpy()


def librawish(path: Path, gains: tuple[float, float, float]) -> Array:
    """Linear Rec.709 [H,W,3] by LibRaw with these gains."""
    with rawpy.imread(str(path)) as raw:
        image = raw.postprocess(
            output_color=rawpy.ColorSpace.sRGB,
            gamma=(1, 1),
            no_auto_bright=True,
            user_wb=[gains[0], gains[1], gains[2], gains[1]],
            output_bps=16,
            user_flip=0,
        )
    return image.astype(np.float64) / 65535


def camera_neutral(path: Path, corners: Array) -> tuple[float, float, float]:
    """Gains that make the gray patch neutral, from unbalanced camera RGB."""
    pipe = rk.Pipeline.load("raw-to-linear-exr")
    steps = [
        step
        for step in pipe.steps
        if step.stage.spec.name not in ("color.white_balance", "color.camera_matrix", "raw.highlights")
    ]
    frame = rk.Pipeline(steps)(rk.read(path))
    gray = patches(frame.pixels.permute(1, 2, 0).double().numpy(), corners)[BALANCED_ON]
    return float(gray[1] / gray[0]), 1.0, float(gray[1] / gray[2])


def score(measured: Array, primaries: Primaries, target: Array) -> dict[str, float]:
    """Errors of 24 linear patches at the exposure that suits them best."""
    wanted = torch.from_numpy(target.T.copy())

    def at(exposure: float) -> tuple[Array, Array]:
        lab = rgb_to_lab(torch.from_numpy((measured * exposure).T.copy()), primaries, D50)
        return ciede2000(lab, wanted).numpy(), lab.numpy()

    middle = 0.5 / measured[NEUTRALS].mean()
    exposure = min(middle * np.geomspace(0.25, 4, 801), key=lambda factor: float(at(factor)[0].mean()))
    differences, lab = at(exposure)
    chroma = np.hypot(*(lab[1:, NEUTRALS] - target.T[1:, NEUTRALS]))
    return {
        "mean CIEDE2000": float(differences.mean()),
        "95th percentile": float(np.percentile(differences, 95)),
        "worst": float(differences.max()),
        "mean chroma error of the six grays": float(chroma.mean()),
        "of the four lightest": float(chroma[:4].mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("raw", type=Path)
    parser.add_argument("--corners", required=True)
    parser.add_argument("--profile", type=Path, action="append", default=[])
    arguments = parser.parse_args()
    corners = np.array([[float(v) for v in point.split(",")] for point in arguments.corners.split()])
    target = reference_lab()
    gains = camera_neutral(arguments.raw, corners)
    rows = {
        "restorekit": score(patches(ours(arguments.raw, gains), corners), "bt2020", target),
        "LibRaw": score(patches(librawish(arguments.raw, gains), corners), "bt709", target),
    }
    for profile in arguments.profile:
        for said, tables in (("matrix", False), ("with HueSatMap", True)):
            seen = ours(arguments.raw, gains, profile, tables)
            rows[f"restorekit, {profile.stem}, {said}"] = score(patches(seen, corners), "bt2020", target)
    names = list(rows["LibRaw"])
    print(f"| | {' | '.join(names)} |\n| --- |{' --- |' * len(names)}")
    for program, values in rows.items():
        print(f"| {program} | {' | '.join(f'{values[name]:.2f}' for name in names)} |")


if __name__ == "__main__":
    main()
