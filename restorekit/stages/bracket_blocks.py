"""Frames of a bracket averaged over equal blocks, for what compares whole frames with each other."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

from restorekit.color.transfer import decode
from restorekit.frame import Frame
from restorekit.planes import to_float
from restorekit.stages.illuminant import BlockMeans, block_means
from restorekit.stages.reprojection import OUTSIDE

ENCODED_CLIP = 0.985
"""Share of the largest code from which on an encoded value counts as clipped."""


def bracket_blocks(frames: Sequence[Frame], most: int) -> list[BlockMeans]:
    """Every frame as light in at most ``most`` blocks, the same ones in all frames, and which of them are usable.

    A block is not clean where something of it is clipped, or lies outside of a frame that was moved. Encoded frames
    are averaged as codes and then decoded.
    """
    return [_blocks(frame, most) for frame in frames]


def _blocks(frame: Frame, most: int) -> BlockMeans:
    if frame.state.transfer == "linear":
        means = block_means(frame, most)
    else:
        means = _encoded_blocks(frame, most)
    outside = frame.masks.get(OUTSIDE)
    if outside is None:
        return means
    height, width = means.clean.shape
    share = cv2.resize(outside[0].numpy().view(np.uint8) * np.uint8(255), (width, height), interpolation=cv2.INTER_AREA)
    return BlockMeans(means.values, means.clean & torch.from_numpy(share == 0))


def _encoded_blocks(frame: Frame, most: int) -> BlockMeans:
    factor = max(1, int(np.ceil(np.sqrt(frame.height * frame.width / most))))
    factor = min(factor, frame.height, frame.width)
    height, width = frame.height // factor, frame.width // factor
    values = torch.empty((frame.pixels.shape[0], height, width))
    clean = torch.ones((height, width), dtype=torch.bool)
    for plane, into in zip(frame.pixels[:, : height * factor, : width * factor], values, strict=True):
        stored = np.ascontiguousarray(plane.float().numpy() if plane.dtype == torch.float16 else plane.numpy())
        most_code = 1.0 if stored.dtype.kind == "f" else float(np.iinfo(stored.dtype).max)
        mean = cv2.resize(stored.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        into.copy_(torch.from_numpy(mean.reshape(height, width) / most_code))
        burnt = (stored >= ENCODED_CLIP * most_code).view(np.uint8) * np.uint8(255)
        clean &= torch.from_numpy(cv2.resize(burnt, (width, height), interpolation=cv2.INTER_AREA).reshape(height, width) == 0)
    light = decode(values, frame.state.transfer)
    return BlockMeans(light, clean & light.isfinite().all(0))


def light_of(frame: Frame, top: int, bottom: int) -> Tensor:
    """Rows of a frame as linear light, float32 ``[C,h,W]``."""
    return decode(to_float(frame.pixels[:, top:bottom]), frame.state.transfer)
