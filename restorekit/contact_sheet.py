"""A contact sheet of one restoration: reference, input and result side by side, each with its name and its dB."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from restorekit.evaluate import Restoration
from restorekit.frame import Frame
from restorekit.io.write import write
from restorekit.metrics.measures import MEASURES
from restorekit.metrics.super_resolution import Bicubic, eight_bit, inside
from restorekit.protocols import Protocol

SIDE_PX = 256
"""The side of the crops, which are shown pixel by pixel; of smaller pictures the whole is shown."""

GAP_PX, LABEL_PX, LINE = 8, 24, cv2.LINE_AA


@dataclass(frozen=True)
class Sheets:
    """Writes a sheet for each restoration into ``folder``: ``NAME_MODEL.png``, numbered where a name comes again."""

    folder: Path
    model: str
    protocol: Protocol
    taken: dict[str, int] = field(default_factory=dict)

    def __call__(self, made: Restoration) -> None:
        """Raises OutputError where the file cannot be written."""
        model = re.sub(r"[^\w.-]+", "_", Path(self.model).name)
        name = f"{made.path.stem}_{model}"
        count = self.taken[name] = self.taken.get(name, 0) + 1
        page = sheet(made, Path(self.model).name, self.protocol)
        write(Frame(page), self.folder / (f"{name}.png" if count == 1 else f"{name}_{count}.png"))


def sheet(made: Restoration, model: str, protocol: Protocol) -> Tensor:
    """uint8 ``[3,h,w]``: where the input is farthest from the reference, at 100 %.

    The dB are those of the whole pictures, by the first measure of the protocol.
    """
    name = protocol.measures[0]
    measure, heading = MEASURES[name].of, MEASURES[name].heading.removesuffix(" dB")
    given, said = shown_input(made.given, protocol.scale)
    top, left, side_y, side_x = farthest(made.reference, given)
    pictures = [made.reference, given, made.restored]
    labels = [f"reference  ({heading})"]
    for text, picture in ((said, given), (model, made.restored)):
        good, other = (inside(each, protocol.border) for each in (made.reference, picture))
        labels.append(f"{text}  {measure(good, other):.2f} dB")
    return beside([picture[:, top : top + side_y, left : left + side_x] for picture in pictures], labels)


def shown_input(given: Tensor, scale: int) -> tuple[Tensor, str]:
    """An input as uint8 ``[3,H,W]`` of the size of the reference, and what it is called."""
    if scale == 1:
        return eight_bit(given).expand(3, -1, -1), "input"
    return eight_bit(Bicubic(scale)(given[None])[0]).expand(3, -1, -1), "input, bicubic"


def farthest(reference: Tensor, given: Tensor, side: int = SIDE_PX) -> tuple[int, int, int, int]:
    """Top, left, height and width of the crop in which two ``[C,H,W]`` differ most in the square."""
    error = (reference.double() - given.double()).square_().sum(0)
    height, width = (min(side, length) for length in error.shape)
    sums = torch.from_numpy(cv2.integral(error.numpy()))
    boxes = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    top, left = divmod(int(boxes.argmax()), boxes.shape[1])
    return top, left, height, width


def beside(pictures: Sequence[Tensor], labels: Sequence[str]) -> Tensor:
    """Pictures of one size, uint8 ``[3,h,w]``, in a row on black, a label below each."""
    _, height, width = pictures[0].shape
    widest = max(cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, 0.42, 1)[0][0] for label in labels)
    cell = max(width, widest) + GAP_PX
    page = np.zeros((height + LABEL_PX, len(pictures) * cell - GAP_PX, 3), np.uint8)
    for index, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        page[:height, index * cell : index * cell + width] = picture.permute(1, 2, 0).numpy()
        where = (index * cell, height + LABEL_PX - GAP_PX)
        cv2.putText(page, label, where, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (220, 220, 220), 1, LINE)
    return torch.from_numpy(page).permute(2, 0, 1)
