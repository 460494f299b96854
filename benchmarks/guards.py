"""What the guards of ``restore`` cost a faithful model, and what they take off an unfaithful one.

    python benchmarks/guards.py MODEL FOLDER

Cost: references are reduced bicubically and enlarged by the model, as ``restorekit eval`` does; mean change of
PSNR-RGB in dB by each guard (in brackets the picture that loses most). Cast: the picture enlarged bicubically is
tinted and laid under a gradient; CIEDE2000 of the low frequencies (a Gaussian of 16 px of the input) against the
input's, before and after ``lock_color``; and by how much of an 8-bit code a gray picture with the same cast is not
gray afterwards.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean

import cv2
import torch
from torch import Tensor
from torch.nn import functional as F

from restorekit import device, load_model
from restorekit.color.difference import ciede2000, rgb_to_lab
from restorekit.color.transfer import decode
from restorekit.evaluate import references
from restorekit.io.read import read
from restorekit.metrics.super_resolution import eight_bit, fidelity, reduced, whole_multiple
from restorekit.planes import to_float
from restorekit.stages.guards import Guards
from restorekit.stages.resampling import bicubic, resampled

SIGMA_PX = 16.0

SETTINGS = {
    "amount 0.8": Guards(amount=0.8),
    "detail 0.5": Guards(detail=0.5),
    "lock_color": Guards(lock_color=True),
    **{f"overshoot {share:g}": Guards(overshoot=share) for share in (0.5, 0.25, 0.1, 0.02)},
}


def guarded(guards: Guards, result: Tensor, source: Tensor, scale: int) -> Tensor:
    bands = guards.apply(iter([(0, result)]), lambda top, bottom: source[:, top:bottom], source.shape[1], scale)
    return torch.cat([rows for _, rows in bands], 1)


def low_frequencies(encoded: Tensor, scale: int) -> Tensor:
    """Lab of what a Gaussian leaves of linear light, on the grid of the input."""
    light = F.avg_pool2d(decode(encoded.clamp(0, 1), "srgb"), scale)
    smooth = cv2.GaussianBlur(light.permute(1, 2, 0).numpy(), (0, 0), SIGMA_PX, borderType=cv2.BORDER_REFLECT)
    return rgb_to_lab(torch.from_numpy(smooth).permute(2, 0, 1), "bt709")


def cast(picture: Tensor) -> Tensor:
    """A tint and a gradient on top of a picture."""
    _, height, width = picture.shape
    down, across = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    gradient = torch.stack((0.03 * across, 0.02 * (1 - down), 0.03 * down))
    return picture * torch.tensor([1.05, 1.0, 0.93])[:, None, None] + gradient


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    device.keep_freed_memory()
    model = load_model(options.model)
    scale = model.scale
    changes: dict[str, list[float]] = {name: [] for name in SETTINGS}
    before: list[float] = []
    after: list[float] = []
    colored: list[float] = []
    for path in references(options.folder):
        reference = whole_multiple(read(path).upright().pixels, scale)
        source = to_float(reduced(reference, scale))
        result = model(source[None])[0]

        def psnr(picture: Tensor, reference: Tensor = reference) -> float:
            return fidelity(reference, eight_bit(picture), border=scale).psnr_rgb

        plain = psnr(result)
        for name, guards in SETTINGS.items():
            changes[name].append(psnr(guarded(guards, result, source, scale)) - plain)
        _, height, width = reference.shape
        tinted = cast(resampled(source, height, width, bicubic))
        wanted = low_frequencies(source, 1)
        locked = guarded(SETTINGS["lock_color"], tinted, source, scale)
        before.append(float(ciede2000(low_frequencies(tinted, scale), wanted).mean()))
        after.append(float(ciede2000(low_frequencies(locked, scale), wanted).mean()))
        gray = source[1:2].expand(3, -1, -1).contiguous()
        made = guarded(SETTINGS["lock_color"], cast(resampled(gray, height, width, bicubic)), gray, scale)
        colored.append(255 * float((made[::2] - made[1]).abs().max()))
    print(f"{options.model}, {len(before)} pictures of {options.folder}")
    for name, values in changes.items():
        print(f"{name:<16} {mean(values):+.3f} dB ({min(values):+.2f})")
    print(f"cast, low frequencies: {mean(before):.2f} CIEDE2000, locked {mean(after):.3f} (worst {max(after):.3f})")
    print(f"gray with a cast, locked: R-G and B-G within {max(colored):.2f} codes")


if __name__ == "__main__":
    main()
