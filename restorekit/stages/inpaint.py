"""Hidden bright parts filled from what is bright around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

REDUCED = 4
"""What is filled in is computed at this part of the size."""

Plane = NDArray[Any]


def filled_in(pixels: Tensor, hidden: Tensor, floor: Sequence[float], step: int = 1) -> None:
    """Fill hidden pixels of ``[C,H,W]`` in place with the mean of those around that are brighter than ``floor``.

    The nearest ones count, by push-pull over a pyramid (Gortler et al., The Lumigraph, SIGGRAPH 1996). Pixels without
    such surroundings become ``floor``, a number a channel. ``step`` 2 fills the four planes of a Bayer mosaic apart.
    """
    for channel, (plane, holes) in enumerate(zip(pixels, hidden, strict=True)):
        least = floor[channel] if len(floor) == pixels.shape[0] else min(floor)
        for row in range(step):
            for column in range(step):
                part, where = plane[row::step, column::step], holes[row::step, column::step]
                if bool(where.any()):
                    values = part.numpy()
                    known = (values >= least) & ~where.numpy()
                    around = _around(values, known)
                    part[where] = torch.from_numpy(np.maximum(around, least))[where]


def _around(values: Plane, known: NDArray[np.bool_]) -> Plane:
    """Known values ``[H,W]`` and, between them, what is around; smooth, so that it is found at reduced size."""
    height, width = values.shape
    size = max(1, -(-width // REDUCED)), max(1, -(-height // REDUCED))
    weights = cv2.resize(known.astype(np.float32), size, interpolation=cv2.INTER_AREA).reshape(size[::-1])
    light = cv2.resize(np.where(known, values, 0).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    smooth = _push_pull(light.reshape(size[::-1]), weights)
    return np.asarray(cv2.resize(smooth, (width, height), interpolation=cv2.INTER_LINEAR).reshape(height, width))


def _push_pull(values: Plane, weights: Plane) -> Plane:
    """Weighted values ``[H,W]`` with those of coarser levels where nothing has weight."""
    height, width = values.shape
    if max(height, width) == 1:
        return np.asarray(values / np.maximum(weights, 1e-9))
    size = ((width + 1) // 2, (height + 1) // 2)
    coarse = _push_pull(
        *(cv2.resize(plane, size, interpolation=cv2.INTER_AREA).reshape(size[::-1]) for plane in (values, weights))
    )
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR).reshape(height, width)
    share = np.minimum(weights, 1)
    return np.asarray(values / np.maximum(weights, 1e-9) * share + smooth * (1 - share))
