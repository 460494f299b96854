"""How far gamut mapping turns hues: ramps of saturated Rec.2020 blues and reds brought to Display P3 and sRGB.

    python benchmarks/gamut_hue.py [--picture docs/images/gamut.png]

Hue is the angle in six spaces of colour-science. Oklab is the one in which CSS Color 4 reduces chroma, and near which
the method ``oklch`` keeps. No model is right about all colours, least of all about blue, so colours of the Munsell
renotation (observers' judgements of hue) beyond each gamut are mapped too, and the result is placed between the
Munsell hues.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import colour
import cv2
import numpy as np
import torch
from colour.notation import MUNSELL_COLOURS
from numpy.typing import NDArray

from restorekit.color.adaptation import D65
from restorekit.color.gamut import aces_limits, into_gamut
from restorekit.color.oklab import oklab_to_rgb, rgb_to_oklab
from restorekit.color.primaries import conversion, rgb_to_xyz, transformed
from restorekit.color.transfer import encode

Array = NDArray[np.float64]
Target = Literal["p3", "bt709"]
Method = Callable[[torch.Tensor, Target], torch.Tensor]

NITS = 203.0
WHITE = colour.xy_to_XYZ(np.array(D65))
TARGETS: Mapping[Target, str] = {"p3": "Display P3", "bt709": "sRGB"}
COLOURS: Mapping[str, tuple[tuple[float, float, float], ...]] = {
    "blue": ((0, 0, 1), (0.1, 0, 1), (0.25, 0, 1), (0, 0.1, 1), (0, 0.25, 1)),
    "red": ((1, 0, 0), (1, 0, 0.1), (1, 0, 0.25), (1, 0.1, 0), (1, 0.25, 0)),
}
MUNSELL_FAMILIES = {"blue": (65.0, 80.0), "red": (97.5, 112.5)}
"""5B to 10PB and 7.5RP to 2.5YR, on the scale of 100 hues from 0RP on; reds run on past 100."""


def cam16(xyz: Array) -> Array:
    """[...,3] J and the components of M, for a display in a dim room."""
    view = colour.VIEWING_CONDITIONS_CAM16["Dim"]
    model = colour.XYZ_to_CAM16(xyz * 100, WHITE * 100, L_A=NITS / np.pi * 0.2, Y_b=20, surround=view)
    angle = np.radians(model.h)
    return np.stack([model.J, model.M * np.cos(angle), model.M * np.sin(angle)], -1)


SPACES: Mapping[str, Callable[[Array], Array]] = {
    "Oklab": colour.XYZ_to_Oklab,
    "IPT": colour.XYZ_to_IPT,
    "ICtCp": lambda xyz: colour.XYZ_to_ICtCp(xyz * NITS),
    "JzAzBz": lambda xyz: colour.XYZ_to_Jzazbz(xyz * NITS),
    "CAM16": cam16,
    "CIELAB": lambda xyz: colour.XYZ_to_Lab(xyz, np.array(D65)),
}


def css_color_4(rgb: torch.Tensor, target: Target) -> torch.Tensor:
    """[3,N] by the gamut mapping of CSS Color 4: chroma reduced in Oklch until clipping changes little."""
    lab = rgb_to_oklab(rgb, target)
    low, high = torch.zeros_like(lab[0]), torch.ones_like(lab[0])
    shrunk = lab.clone()
    for _ in range(30):
        share = (low + high) / 2
        shrunk[1:] = lab[1:] * share
        clipped = rgb_to_oklab(oklab_to_rgb(shrunk, target).clamp(0, 1), target)
        near = (clipped - shrunk).norm(dim=0) < 0.02
        low, high = torch.where(near, share, low), torch.where(near, high, share)
    shrunk[1:] = lab[1:] * low
    result = oklab_to_rgb(shrunk, target).clamp(0, 1)
    clipped = rgb.clamp(0, 1)
    as_it_is = (rgb_to_oklab(clipped, target) - lab).norm(dim=0) < 0.02
    result = torch.where(as_it_is, clipped, result)
    return torch.where(lab[0] >= 1, torch.ones_like(result), result)


METHODS: Mapping[str, Method] = {
    "clip": lambda rgb, target: rgb.clamp(0, 1),
    "CSS Color 4": css_color_4,
    "oklch": lambda rgb, target: into_gamut(rgb, target),
    "oklch, knee 0.2": lambda rgb, target: into_gamut(rgb, target, knee=0.2),
    "aces": lambda rgb, target: into_gamut(rgb, target, method="aces", limits=aces_limits("bt2020", target)),
}


def ramps(color: tuple[float, float, float]) -> Array:
    """[36,3] linear Rec.2020: from dark, from gray of the same luminance and from white to a colour."""
    share, pure = np.linspace(0.05, 1, 12)[:, None], np.array(color, np.float64)
    gray = rgb_to_xyz("bt2020")[1] @ pure
    return np.concatenate([share * pure, share * pure + (1 - share) * gray, share * pure + (1 - share)])


def to_target(rgb: Array, target: Target) -> torch.Tensor:
    """[N,3] linear Rec.2020 as [3,N] in the target, unclamped."""
    return transformed(torch.from_numpy(rgb.T.copy()), conversion("bt2020", target))


def to_xyz(rgb: torch.Tensor, target: Target) -> Array:
    xyz: Array = transformed(rgb, rgb_to_xyz(target)).numpy().T
    return xyz


def outside(rgb: torch.Tensor) -> NDArray[np.bool_]:
    return ((rgb.amin(0) < -1e-6) | (rgb.amax(0) > 1 + 1e-6)).numpy()


def hue(lab: Array) -> Array:
    return np.degrees(np.arctan2(lab[..., 2], lab[..., 1]))


def saturation(lab: Array) -> Array:
    """Chroma over lightness."""
    share: Array = np.hypot(lab[..., 1], lab[..., 2]) / lab[..., 0]
    return share


def turn(before: Array, after: Array) -> Array:
    """Signed difference of angles in degrees."""
    return (after - before + 180) % 360 - 180


def ramp_table(target: Target) -> None:
    """Hue errors of the ramps' colours outside the target, in degrees, but for results too gray to have a hue."""
    print(f"\nRec.2020 to {TARGETS[target]}, ramps: hue error in degrees, mean / largest")
    print(f"| | | {' | '.join(SPACES)} | CIEDE2000 | Delta E ITP |\n| --- | --- |{' --- |' * (len(SPACES) + 2)}")
    for family, colours in COLOURS.items():
        rgb = to_target(np.concatenate([ramps(color) for color in colours]), target)
        rgb = rgb[:, outside(rgb)]
        source = to_xyz(rgb, target)
        for name, method in METHODS.items():
            mapped = to_xyz(method(rgb, target), target)
            coloured = np.hypot(*colour.XYZ_to_Oklab(mapped).T[1:]) > 0.01
            cells = []
            for space in SPACES.values():
                error = np.abs(turn(hue(space(source[coloured])), hue(space(mapped[coloured]))))
                cells.append(f"{error.mean():.1f} / {error.max():.1f}")
            lab, itp = SPACES["CIELAB"], SPACES["ICtCp"]
            difference = colour.delta_E(lab(source), lab(mapped)).mean()
            weighted = np.linalg.norm((itp(source) - itp(mapped)) * (720, 360, 720), axis=-1).mean()
            print(f"| {family} | {name} | {' | '.join(cells)} | {difference:.1f} | {weighted:.0f} |")


def untouched_table(target: Target) -> None:
    """What happens to colours inside, and whether all come inside."""
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 41)] * 3), -1).reshape(-1, 3)
    rgb = to_target(grid, target).float()
    inside = ~outside(rgb.double())
    print(f"\nRec.2020 to {TARGETS[target]}, a grid of 41^3: {inside.mean():.0%} of it inside")
    print("| | largest change inside | least | largest value |\n| --- | --- | --- | --- |")
    for name, method in METHODS.items():
        mapped = method(rgb, target)
        change = float((mapped - rgb)[:, inside].abs().max())
        print(f"| {name} | {change:.1e} | {float(mapped.min()):.1e} | {float(mapped.max()):.7f} |")


class Munsell:
    """The Munsell renotation as loci of hue in Oklab, adapted from illuminant C to D65 (CAT02)."""

    def __init__(self) -> None:
        illuminant_c = colour.CCS_ILLUMINANTS["CIE 1931 2 Degree Standard Observer"]["C"]
        to_d65 = colour.adaptation.matrix_chromatic_adaptation_VonKries(colour.xy_to_XYZ(illuminant_c), WHITE, "CAT02")
        families = ["R", "YR", "Y", "GY", "G", "BG", "B", "PB", "P", "RP"]
        self.chips: dict[tuple[float, float], list[tuple[float, Array]]] = {}
        for (name, value, chroma), (x, y, luminance) in MUNSELL_COLOURS["Munsell Colours All"]:
            letters = name.lstrip("0123456789.")
            number = families.index(letters) * 10 + float(name.removesuffix(letters))
            magnesium_oxide = 0.975 / 100
            xyz = to_d65 @ colour.xyY_to_XYZ(np.array([x, y, luminance * magnesium_oxide]))
            self.chips.setdefault((value, number), []).append((chroma, xyz))
        self.loci: dict[float, list[tuple[float, Array, Array]]] = {}
        for (value, number), locus in self.chips.items():
            locus.sort(key=lambda chip: chip[0])
            labs = colour.XYZ_to_Oklab(np.array([xyz for _, xyz in locus]))
            angles = np.degrees(np.unwrap(np.radians(hue(labs))))
            self.loci.setdefault(value, []).append((number, saturation(labs), angles))

    def hue(self, xyz: Array, value: float) -> float:
        """The Munsell hue (0..100) of a colour among the loci of a value, between those of its Oklab saturation."""
        lab = colour.XYZ_to_Oklab(xyz)
        reached = [locus for locus in self.loci[value] if locus[1][-1] >= saturation(lab)]
        numbers = [number for number, _, _ in reached]
        angles = np.array([np.interp(saturation(lab), along, angle) for _, along, angle in reached])
        offset = turn(np.full(len(angles), hue(lab)), angles)
        above, below = np.where(offset >= 0, offset, 999.0), np.where(offset < 0, -offset, 999.0)
        up, down = int(above.argmin()), int(below.argmin())
        gap = (numbers[up] - numbers[down] + 50) % 100 - 50
        return float(numbers[down] + gap * below[down] / (below[down] + above[up]))

    def beyond(self, family: str, target: Target) -> list[tuple[float, float, Array]]:
        """Value, hue and XYZ of the chips of a family that are in Rec.2020 but not in the target."""
        first, last = MUNSELL_FAMILIES[family]
        chips = []
        for (value, number), locus in self.chips.items():
            if value < 1 or not (first <= number <= last or first <= number + 100 <= last):
                continue
            for _, xyz in locus:
                wide, narrow = (np.linalg.solve(rgb_to_xyz(space), xyz) for space in ("bt2020", target))
                if wide.min() >= 0 and wide.max() <= 1 and (narrow.min() < 0 or narrow.max() > 1):
                    chips.append((value, number, xyz))
        return chips


def munsell_table() -> None:
    """Errors of Munsell hue; one step of 100 counts 3.6 degrees."""
    munsell = Munsell()
    print("\nMunsell colours in Rec.2020 but not in the gamut: error of Munsell hue in degrees, mean / largest")
    print(f"| | | colours | {' | '.join(METHODS)} |\n| --- | --- | --- |{' --- |' * len(METHODS)}")
    for target, named in TARGETS.items():
        for family in COLOURS:
            chips = munsell.beyond(family, target)
            xyz = np.array([chip for _, _, chip in chips])
            rgb = torch.from_numpy(np.linalg.solve(rgb_to_xyz(target), xyz.T))
            before = [munsell.hue(chip, value) for value, _, chip in chips]
            cells = []
            for method in METHODS.values():
                mapped = to_xyz(method(rgb, target), target)
                after = [munsell.hue(color, value) for color, (value, _, _) in zip(mapped, chips, strict=True)]
                error = np.abs((np.array(after) - before + 50) % 100 - 50) * 3.6
                cells.append(f"{error.mean():.1f} / {error.max():.1f}")
            print(f"| {named} | {family} | {len(chips)} | {' | '.join(cells)} |")


def picture(path: Path) -> None:
    """Ramps and lamps in sRGB, a column a method."""
    methods = {name: METHODS[name] for name in ("clip", "CSS Color 4", "oklch", "aces")}
    width, rise = 240, np.linspace(0, 1, 240)[:, None]
    named = ((0, 0, 1), (0, 0.15, 1), (0.15, 0, 1), (1, 0, 0), (1, 0.15, 0), (1, 0, 0.15), (0, 1, 0), (1, 1, 0))
    y, x = np.mgrid[0:120, 0:width] - np.array([60, width // 2])[:, None, None]
    spot = 4 * np.exp(-((np.hypot(y, x) / 26) ** 2)).reshape(-1, 1)
    parts: list[tuple[Array, int]] = []
    for color in np.array(named, np.float64):
        parts += [(np.tile(rise**2.2 * color, (24, 1)), 24), (np.tile(rise * color + 1 - rise, (24, 1)), 24)]
    parts += [(spot * np.array(color) + 0.02, 120) for color in ((0.02, 0.05, 1), (1, 0.02, 0.02))]
    page = np.full((24 + sum(height for _, height in parts), len(methods) * (width + 4), 3), 255, np.uint8)
    for column, (name, method) in enumerate(methods.items()):
        left, top = column * (width + 4), 24
        cv2.putText(page, name, (left + 4, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
        for rgb, height in parts:
            shown = encode(method(to_target(rgb, "bt709"), "bt709"), "srgb").mul(255).round().byte()
            page[top : top + height, left : left + width] = shown.T.reshape(height, width, 3).numpy()[..., ::-1]
            top += height
    cv2.imwrite(str(path), page, [cv2.IMWRITE_PNG_COMPRESSION, 9])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    colour.utilities.filter_warnings(colour_usage_warnings=False)
    for target in TARGETS:
        ramp_table(target)
        untouched_table(target)
    munsell_table()
    if arguments.picture:
        picture(arguments.picture)


if __name__ == "__main__":
    main()
