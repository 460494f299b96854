"""C5 with its official weights (m = 7, 64 bins), as a contender of ``illuminant.py``.

M. Afifi, J. T. Barron, C. LeGendre, Y.-T. Tsai & F. Bleibel, Cross-Camera Convolutional Color Constancy, ICCV 2021;
weights of github.com/mahmoudnafifi/C5, Apache-2.0, read by their names. A network looks at the histograms of the
picture and of six others by the same camera and makes the filters and the bias of a convolutional colour constancy.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from restorekit.zoo import checkpoint

BINS = 64
LIMIT = 2.85
COMPANIONS = 6
SIZE = (384, 256)
Array = NDArray[np.float64]


def histograms(pixels: Tensor) -> Tensor:
    """What C5 sees of a picture ``[3,H,W]``: histograms of colours and of edges, and two ramps, ``[4,64,64]``."""
    image = pixels.permute(1, 2, 0).double().numpy()
    if image.shape[:2] != SIZE[::-1]:
        image = cv2.resize(image, SIZE)
    image = np.maximum(image, 0.0)
    padded = cv2.copyMakeBorder(image, 1, 1, 1, 1, cv2.BORDER_REFLECT)
    height, width = image.shape[:2]
    edges = np.zeros_like(image)
    for dy in range(3):
        for dx in range(3):
            edges += np.abs(image - padded[dy : dy + height, dx : dx + width]) / 8
    ramp = np.linspace(0, 1, BINS)
    planes = (_histogram(image), _histogram(edges), np.tile(ramp, (BINS, 1)), np.tile(ramp[::-1, None], (1, BINS)))
    return torch.from_numpy(np.stack(planes)).float()


def _histogram(image: Array) -> Array:
    """Square root of shares of light in bins of log chroma: columns log(g/r) rising, rows log(g/b) falling.

    A pixel counts in all bins whose centre lies within one step, weighted by its length.
    """
    colors = image.reshape(-1, 3)
    colors = colors[colors.sum(1) > 1e-9]
    logs = np.log(colors + 1e-9)
    step = 2 * LIMIT / (BINS - 1)
    light = np.sqrt((colors**2).sum(1))
    counted = np.zeros((BINS, BINS))
    first = [np.floor((logs[:, 1] - logs[:, channel] + LIMIT) / step).astype(int) for channel in (0, 2)]
    for up in (0, 1):
        for across in (0, 1):
            u, v = first[0] + across, first[1] + up
            inside = (u >= 0) & (u < BINS) & (v >= 0) & (v < BINS)
            np.add.at(counted, (BINS - 1 - v[inside], u[inside]), light[inside])
    return np.asarray(np.sqrt(counted / (counted.sum() + 1e-9)))


class C5:
    """The network, run from the state dict of the authors."""

    def __init__(self, path: Path) -> None:
        self.state: Mapping[str, Tensor] = checkpoint.read(path)

    def __call__(self, seen: Tensor) -> Tensor:
        """Lights ``[B,3]`` from histograms ``[B,7,4,64,64]``, those of the pictures themselves first."""
        latent = [seen[:, picture] for picture in range(seen.shape[1])]
        skipped: list[Tensor] = []
        for depth in range(4):
            for picture, maps in enumerate(latent):
                maps = self._double(f"encoder.encoders.{picture}.{depth}", maps)
                if picture == 0:
                    skipped.insert(0, maps)
                latent[picture] = F.max_pool2d(maps, 2)
            pooled = torch.stack(latent).amax(0)
            if depth < 3:
                latent = [
                    self._block(f"encoder.merge_layers.{picture}.{depth}", torch.cat([maps, pooled], 1))
                    for picture, maps in enumerate(latent)
                ]
        bottom = self._double("bottleneck", pooled)
        filters, bias = (self._decoded(f"decoder_{name}", bottom, skipped) for name in "FB")
        found = torch.fft.irfft2(torch.fft.rfft2(seen[:, 0, :2]) * torch.fft.rfft2(filters)).sum(1) + bias[:, 0]
        likely = found.clamp(-100, 100).flatten(1).softmax(1).view(-1, BINS, BINS)
        centres = (torch.arange(BINS) - (BINS - 1) / 2) * (2 * LIMIT / BINS)
        u, v = likely.sum(1) @ centres, likely.sum(2) @ centres.flip(0)
        return torch.stack([(-u).exp(), torch.ones_like(u), (-v).exp()], 1)

    def _block(self, name: str, x: Tensor, *, instance_norm: bool = False, activation: bool = True) -> Tensor:
        weight, bias = self.state[f"{name}.conv.weight"], self.state[f"{name}.conv.bias"]
        margin = weight.shape[-1] // 2
        x = F.conv2d(F.pad(x, (margin,) * 4, mode="replicate") if margin else x, weight, bias)
        norm = f"{name}.normalization"
        if f"{norm}.weight" in self.state:
            moments = (self.state[f"{norm}.running_mean"], self.state[f"{norm}.running_var"])
            x = F.batch_norm(x, *moments, self.state[f"{norm}.weight"], self.state[f"{norm}.bias"])
        elif instance_norm:
            x = F.instance_norm(x)
        return F.leaky_relu(x) if activation else x

    def _double(self, name: str, x: Tensor, *, instance_norm: bool = False) -> Tensor:
        return self._block(
            f"{name}.double_conv_2", self._block(f"{name}.double_conv_1", x), instance_norm=instance_norm
        )

    def _decoded(self, name: str, x: Tensor, skipped: list[Tensor]) -> Tensor:
        for depth, maps in enumerate(skipped):
            larger = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            x = self._double(f"{name}.decoder.{depth}", torch.cat([maps, larger], 1), instance_norm=True)
        return self._block(f"{name}.final_block", x, activation=False)
