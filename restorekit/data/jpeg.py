"""Compression as JPEG, by libjpeg."""

from __future__ import annotations

from typing import Annotated

import imagecodecs
import numpy as np
import torch
from torch import Tensor

from restorekit.data.degradation import Degradation, chance, whole
from restorekit.data.ranges import ORDERED, Quality, Share
from restorekit.stage import param, parameters

LUMA_BLOCK, CHROMA_BLOCK = 8, 16
"""Sides in px of the blocks of luma, and of chroma of half the size."""


def compressed(picture: Tensor, quality: int, subsampled: bool, before: tuple[int, int] = (0, 0)) -> Tensor:
    """``[3,H,W]``, rounded to 8 bits, as it comes back from a JPEG file; gray where its channels are equal.

    ``subsampled`` chroma has half the size (4:2:0). The first block begins ``before`` px above and left of the picture,
    which is continued there by its edge.
    """
    top, left = before
    codes = picture.clamp(0.0, 1.0).mul(255.0).add(0.5).byte()
    gray = bool((codes[1:] == codes[:1]).all())
    pixels = codes[0].numpy() if gray else codes.permute(1, 2, 0).numpy()
    pixels = np.pad(pixels, ((top, 0), (left, 0), (0, 0))[: pixels.ndim], mode="edge")
    file = imagecodecs.jpeg8_encode(
        np.ascontiguousarray(pixels), level=quality, subsampling="420" if subsampled else "444"
    )
    decoded = torch.from_numpy(imagecodecs.jpeg8_decode(file)[top:, left:])
    return (decoded.expand(3, -1, -1) if gray else decoded.permute(2, 0, 1)).div(255.0)


@parameters
class Jpeg(Degradation):
    """Compresses as JPEG: gray where the three channels are equal, which stay equal; the result has 8 bits.

    Blocks begin at the picture's edge, or ``margin`` px before a patch that was cut with it, but for the ``shifted``
    ones. In a chain that holds where the margins of the other steps are multiples of 16 px too.
    """

    source = (
        "ITU-T T.81 with the tables of libjpeg; two compressions after Jiang, Zhang & Timofte, Towards Flexible Blind "
        "JPEG Artifacts Removal (FBCNN), ICCV 2021"
    )
    quality: Annotated[tuple[Quality, Quality], ORDERED, param("Quality as libjpeg counts, drawn between two")] = (
        5,
        95,
    )
    subsampled: Annotated[
        Share, param("Share of colour pictures with chroma of half the size (4:2:0); others are 4:4:4")
    ] = 0.5
    shifted: Annotated[Share, param("Share of pictures cropped after compression: their blocks begin elsewhere")] = 0.0
    again: Annotated[Share, param("Share of pictures compressed before at another quality, with other blocks")] = 0.0

    @property
    def margin(self) -> int:
        return CHROMA_BLOCK if self.subsampled else LUMA_BLOCK

    @property
    def grid(self) -> int:
        return self.margin

    def degrade(self, clean: Tensor, generator: torch.Generator) -> Tensor:
        again, shifted = chance(generator, self.again), chance(generator, self.shifted)
        if again:
            clean = self._compressed(clean, generator, least=0)
        return self._compressed(clean, generator, least=1 if shifted else None)

    def _compressed(self, picture: Tensor, generator: torch.Generator, least: int | None) -> Tensor:
        """Compressed once; the blocks are shifted by at least so many px, or not at all."""
        quality, subsampled = whole(generator, *self.quality), chance(generator, self.subsampled)
        most = (CHROMA_BLOCK if subsampled else LUMA_BLOCK) - 1
        before = (0, 0) if least is None else (whole(generator, least, most), whole(generator, least, most))
        return compressed(picture, quality, subsampled, before)
