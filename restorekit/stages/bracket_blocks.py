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

STRIP_ROWS = 128

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
    if frame.state.transfer != "linear":
        means = _encoded_blocks(frame, most)
    else:
        means = block_means(frame if frame.pixels.dtype.is_floating_point else frame.as_float(), most)
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
    values = np.empty((height, width, frame.pixels.shape[0]), np.float32)
    clean = np.empty((height, width), np.bool_)
    rows = max(1, STRIP_ROWS // factor)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        codes = frame.pixels[:, top * factor : bottom * factor, : width * factor].permute(1, 2, 0)
        stored = np.ascontiguousarray(codes.float().numpy() if codes.dtype == torch.float16 else codes.numpy())
        most_code = 1.0 if stored.dtype.kind == "f" else float(np.iinfo(stored.dtype).max)
        limits = tuple((bound,) * stored.shape[2] for bound in (-np.inf, ENCODED_CLIP * most_code))
        burnt = cv2.bitwise_not(cv2.inRange(stored, *limits))
        size = (width, bottom - top)
        mean = cv2.resize(stored.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        values[top:bottom] = mean.reshape(bottom - top, width, -1) / most_code
        clean[top:bottom] = cv2.resize(burnt, size, interpolation=cv2.INTER_AREA).reshape(bottom - top, width) == 0
    light = decode(torch.from_numpy(values).permute(2, 0, 1).contiguous(), frame.state.transfer)
    return BlockMeans(light, torch.from_numpy(clean) & light.isfinite().all(0))
