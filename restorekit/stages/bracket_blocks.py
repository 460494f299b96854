"""Frames of a bracket averaged over equal blocks, for what compares whole frames with each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from restorekit.color.transfer import decode
from restorekit.frame import Frame
from restorekit.planes import to_float
from restorekit.stages.illuminant import BlockMeans, block_means

STRIP_ROWS = 128

CLIPPED, OUTSIDE, MOTION, GUESSED = "clipped", "outside", "motion", "guessed"
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
    means = block_means(frame, most) if frame.state.is_mosaic else _picture_blocks(frame, most)
    shown = torch.ones_like(means.clean)
    height, width = means.clean.shape
    for name in (OUTSIDE, MOTION):
        mask = frame.masks.get(name)
        if mask is not None and height and width:
            marks = mask[0].numpy().view(np.uint8) * np.uint8(255)
            share = cv2.resize(marks, (width, height), interpolation=cv2.INTER_AREA).reshape(height, width)
            shown &= torch.from_numpy(share == 0)
    return Blocks(means.values, means.clean, shown)


def _picture_blocks(frame: Frame, most: int) -> BlockMeans:
    """Blocks of RGB and gray frames, as :func:`block_means` makes them; encoded ones are averaged as codes."""
    factor = max(1, int(np.ceil(np.sqrt(frame.height * frame.width / most))))
    factor = min(factor, frame.height, frame.width)
    height, width = frame.height // factor, frame.width // factor
    values = np.empty((frame.pixels.shape[0], height, width), np.float32)
    clean = np.empty((height, width), np.bool_)
    marked = frame.masks.get(CLIPPED)
    limit = _limit(frame)
    rows = max(1, STRIP_ROWS // factor)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        part = slice(top * factor, bottom * factor), slice(0, width * factor)
        size = (width, bottom - top)
        strip = to_float(frame.pixels[:, *part])
        burnt = (strip >= limit if marked is None else marked[:, *part]).any(0)
        marks = burnt.numpy().view(np.uint8) * np.uint8(255)
        clean[top:bottom] = cv2.resize(marks, size, interpolation=cv2.INTER_AREA).reshape(bottom - top, width) == 0
        for plane, into in zip(strip, values, strict=True):
            mean = cv2.resize(plane.contiguous().numpy(), size, interpolation=cv2.INTER_AREA)
            into[top:bottom] = mean.reshape(bottom - top, width)
    light = decode(torch.from_numpy(values), frame.state.transfer)
    return BlockMeans(light, torch.from_numpy(clean) & light.isfinite().all(0))


def _limit(frame: Frame) -> Tensor:
    """The least values ``[C,1,1]`` that count as clipped."""
    if frame.state.transfer != "linear":
        return torch.tensor(ENCODED_CLIP)
    level = frame.facts.clip_level or (math.inf,)
    return torch.tensor(level if len(level) == frame.pixels.shape[0] else (min(level),))[:, None, None]
