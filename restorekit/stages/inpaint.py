"""Hidden bright parts filled from what is bright around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restorekit.stages.pyramid import filled

REDUCED = 4
"""What is filled in is computed at this part of the size."""

LEAST_SHARE = 1e-6
Plane = NDArray[Any]


def filled_in(pixels: Tensor, hidden: Tensor, floor: Sequence[float], step: int = 1) -> None:
    """Fill hidden pixels of ``[C,H,W]`` in place with the mean of those around that are brighter than ``floor``.

    The nearest ones count (:func:`restorekit.stages.pyramid.filled`). Pixels without such surroundings become
    ``floor``, a number a channel. ``step`` 2 fills the four planes of a Bayer mosaic apart.
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
    means = torch.from_numpy(light.reshape(size[::-1]) / np.maximum(weights, LEAST_SHARE))
    smooth = filled(means[None], torch.from_numpy(weights))[0].numpy()
    return np.asarray(cv2.resize(smooth, (width, height), interpolation=cv2.INTER_LINEAR).reshape(height, width))
