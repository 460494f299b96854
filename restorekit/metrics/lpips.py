"""LPIPS: how different two pictures look, as distance of the features of a classification network; 0 for equal ones.

R. Zhang, P. Isola, A. A. Efros, E. Shechtman, O. Wang: The Unreasonable Effectiveness of Deep Features as a Perceptual
Metric, CVPR 2018; version 0.1 of its weights. Values of different networks are not comparable. On SqueezeNet 1.1
(Iandola et al., arXiv 1602.07360) it is computed here, on AlexNet and VGG-16 by the authors' package ``lpips``.
Nothing is downloaded.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from restorekit.errors import InputError, ModelError
from restorekit.zoo import checkpoint
from restorekit.zoo.cards import home

Distance = Callable[[Tensor, Tensor], Tensor]
"""Two ``[B,3,H,W]`` of encoded RGB in 0..1, at least :data:`SMALLEST` px a side, to distances ``[B]``."""

SMALLEST = 31
"""The shortest side in px that all three networks take; it is AlexNet's."""

SHIFT, SPREAD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Taken off RGB in -1..1, and what is left divided by."""

TAPS = {1: 64, 4: 128, 7: 256, 9: 384, 10: 384, 11: 512, 12: 512}
"""Layers of SqueezeNet whose maps are compared, and their channels."""

FILES = "squeeze.pth (package lpips, weights/v0.1) and squeezenet1_1-b8a52dc0.pth (download.pytorch.org/models)"

BACKBONES: Mapping[str, str] = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}
"""The files of torchvision with which the authors' package computes features."""

CURE = (
    "LPIPS on {network} needs the package lpips and a torchvision built for this torch: "
    "pip install lpips torchvision, from where torch came, or take --lpips squeeze"
)


class SqueezeLpips(nn.Module):
    """LPIPS on SqueezeNet 1.1, a :data:`Distance`; weights come from :func:`load`."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 3, stride=2),
            nn.ReLU(),
            _pool(),
            _Fire(64, 16, 64),
            _Fire(128, 16, 64),
            _pool(),
            _Fire(128, 32, 128),
            _Fire(256, 32, 128),
            _pool(),
            _Fire(256, 48, 192),
            _Fire(384, 48, 192),
            _Fire(384, 64, 256),
            _Fire(512, 64, 256),
        )
        self.heads = nn.ModuleList(nn.Conv2d(channels, 1, 1, bias=False) for channels in TAPS.values())

    @torch.inference_mode()
    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        distance = first.new_zeros(first.shape[0])
        for head, a, b in zip(self.heads, self._maps(first), self._maps(second), strict=True):
            distance += head((a - b).square()).mean((1, 2, 3))
        return distance

    def _maps(self, rgb: Tensor) -> Iterator[Tensor]:
        """Features of the compared layers, each pixel's of length 1."""
        shift, spread = (rgb.new_tensor(values)[:, None, None] for values in (SHIFT, SPREAD))
        maps = (2.0 * rgb - 1.0 - shift) / spread
        for index, layer in enumerate(self.features):
            maps = layer(maps)
            if index in TAPS:
                yield maps / (maps.norm(dim=1, keepdim=True) + 1e-10)


class _Fire(nn.Module):
    """1x1 convolution to few channels, from these 1x1 and 3x3 ones side by side."""

    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x).relu_()
        return torch.cat((self.expand1x1(x), self.expand3x3(x)), 1).relu_()


def _pool() -> nn.Module:
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)


def load(folder: Path | None = None) -> SqueezeLpips:
    """LPIPS on SqueezeNet with the weights among the ``*.pth`` files of a folder, known by their content.

    Two files are needed: the linear weights of the authors, and torchvision's SqueezeNet 1.1 or its ``features``. The
    folder is ``$RESTOREKIT_HOME/lpips`` unless named.

    Raises ModelError when one is missing or a file cannot be read.
    """
    folder = folder or home() / "lpips"
    model = SqueezeLpips().eval().requires_grad_(False)
    wanted = model.state_dict()
    found: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.pth")):
        state = {_name(name): tensor for name, tensor in checkpoint.read(path).items()}
        for part in ("features", "heads"):
            names = [name for name in wanted if name.startswith(part)]
            if all(name in state and state[name].shape == wanted[name].shape for name in names):
                found |= {name: state[name] for name in names}
    if found.keys() != wanted.keys():
        raise ModelError(f"{folder}: the weights of LPIPS on SqueezeNet are missing; put {FILES} there")
    model.load_state_dict(found)
    return model


def _name(name: str) -> str:
    head = re.fullmatch(r"lin(\d)\.model\.1\.weight", name)
    if head:
        return f"heads.{head[1]}.weight"
    return f"features.{name}" if name[:1].isdigit() else name


def from_package(network: Literal["alex", "vgg"]) -> Distance:
    """LPIPS on AlexNet or VGG-16 as the authors' package computes it, with torchvision's weights of the network.

    Raises InputError, naming the cure, where the package or torchvision is absent or does not load, or where
    torchvision's weights are not on this machine.
    """
    try:
        import lpips
    except (ImportError, OSError, RuntimeError) as error:  # a torchvision of another torch raises RuntimeError
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{CURE.format(network=network)} ({said})") from error
    backbone = Path(torch.hub.get_dir()) / "checkpoints" / BACKBONES[network]
    if not backbone.is_file():
        url = f"https://download.pytorch.org/models/{backbone.name}"
        raise InputError(f"{backbone}: is missing, LPIPS on {network} needs it; download {url} to there")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torchvision, about arguments of the package
        model = lpips.LPIPS(net=network, verbose=False)

    def distance(first: Tensor, second: Tensor) -> Tensor:
        with torch.inference_mode():
            found: Tensor = model(2.0 * first - 1.0, 2.0 * second - 1.0)
        return found.flatten()

    return distance
