"""Frames of a bracket averaged over equal blocks, for what compares whole frames with each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from restorekit.color.transfer import decode
from restorekit.frame import Frame
from restorekit.stages.illuminant import BlockMeans, block_means

CLIPPED, OUTSIDE, MOTION = "clipped", "outside", "motion"
"""Masks of frames of a bracket: clipped; without data after alignment; other than in the reference."""

ENCODED_CLIP = 0.985
"""Share of the largest code from which on an encoded value counts as clipped."""


@dataclass(frozen=True, eq=False)
class Blocks:
    """A frame as light in blocks ``[C,h,w]``; ``clean`` ``[h,w]`` where nothing of a block is clipped, ``shown`` where
    the frame has data that may be used."""

    values: Tensor
    clean: Tensor
    shown: Tensor


def bracket_blocks(frames: Sequence[Frame], most: int) -> list[Blocks]:
    """Every frame as light in at most ``most`` blocks, the same ones in all frames.

    Blocks that touch the masks ``outside`` or ``motion`` are not shown. Encoded frames are averaged as codes and then
    decoded.
    """
    return [_blocks(frame, most) for frame in frames]


def _blocks(frame: Frame, most: int) -> Blocks:
    means = block_means(frame, most) if frame.state.transfer == "linear" else _encoded_blocks(frame, most)
    shown = torch.ones_like(means.clean)
    height, width = means.clean.shape
    for name in (OUTSIDE, MOTION):
        mask = frame.masks.get(name)
        if mask is not None and height and width:
            marks = mask[0].numpy().view(np.uint8) * np.uint8(255)
            share = cv2.resize(marks, (width, height), interpolation=cv2.INTER_AREA).reshape(height, width)
            shown &= torch.from_numpy(share == 0)
    return Blocks(means.values, means.clean, shown)


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
        clean &= torch.from_numpy(
            cv2.resize(burnt, (width, height), interpolation=cv2.INTER_AREA).reshape(height, width) == 0
        )
    light = decode(values, frame.state.transfer)
    return BlockMeans(light, clean & light.isfinite().all(0))
