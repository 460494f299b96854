"""How good a network is on pictures that it is not trained on, degraded with fixed seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from restorekit.architectures._network import Network
from restorekit.data.degradation import Chain, PictureList, seeded
from restorekit.errors import InputError
from restorekit.metrics.psnr import psnr
from restorekit.planes import to_float
from restorekit.stages.carried import reduced
from restorekit.train.samples import check_sizes, in_pixels

SIDE = 256
"""Of each picture the middle is taken, at most so many px of the degraded picture a side."""

GRID = 32
"""The sides are multiples of this, or of the grid of the network, so that networks need no padding."""


class Validation:
    """Pairs cut out of the middle of pictures once, and the mean PSNR (dB, RGB) of a network on them.

    ``names`` are what errors call the pictures. Degradations mix in other targets, where they mix in pictures. Raises
    InputError for pairs whose sizes do not go together, and where no picture is large enough; ``left_out`` are not.
    Pairs that are degraded are reduced ``estimate`` times.
    """

    def __init__(
        self,
        targets: PictureList,
        names: Sequence[object],
        inputs: PictureList | None = None,
        chain: Chain | None = None,
        *,
        scale: int = 1,
        pixels: str = "rgb",
        grid: int = 1,
        estimate: float = 1.0,
    ) -> None:
        self.border, self.left_out = scale, 0
        chain = chain.given(targets) if chain else None
        grid = math.lcm(GRID, grid)
        self.pairs: list[tuple[Tensor, Tensor]] = []
        for index in range(len(targets)):
            target = targets[index]
            seen = [min(max(SIDE, grid), int(side // scale / estimate)) // grid * grid for side in target.shape[1:]]
            if 0 in seen:
                self.left_out += 1
                continue
            height, width = (round(side * estimate) for side in seen)
            top, left = (target.shape[1] // scale - height) // 2, (target.shape[2] // scale - width) // 2
            good = target[:, top * scale : (top + height) * scale, left * scale : (left + width) * scale]
            if inputs is not None:
                check_sizes(inputs[index], target, scale, names[index])
                poor = to_float(inputs[index][:, top : top + height, left : left + width])
            else:
                assert chain is not None
                poor = chain(to_float(good), seeded(0, 0, index))
            pair = poor, to_float(good)
            if estimate != 1.0:
                pair = reduced(pair[0], *seen), reduced(pair[1], *seen)
            self.pairs.append((in_pixels(pair[0], pixels), in_pixels(pair[1], pixels)))
        if not self.pairs:
            least = math.ceil(grid * scale * estimate)
            raise InputError(
                f"{names[0]}: too small to be measured, as all of them; take pictures of {least} px or more"
            )

    def score(self, network: Network, device: torch.device) -> float:
        """Mean PSNR in dB, a border of ``scale`` px left out, results clipped to 0..1."""
        training = network.training
        network.eval()
        with torch.inference_mode():
            values = [
                psnr(
                    self._inner(network.picture(poor[None].to(device)).float().cpu()[0].clamp(0, 1)), self._inner(good)
                )
                for poor, good in self.pairs
            ]
        network.train(training)
        return math.fsum(values) / len(values)

    def _inner(self, picture: Tensor) -> Tensor:
        edge = self.border if self.border > 1 else 0
        return picture[:, edge : picture.shape[1] - edge, edge : picture.shape[2] - edge]
