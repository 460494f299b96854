"""How well a model restores the pictures of a folder, by the protocol of :mod:`restorekit.metrics.super_resolution`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from restorekit.errors import InputError, ModelError, RestorekitError
from restorekit.frame import Frame
from restorekit.io.brackets import name_order
from restorekit.io.read import READABLE, read
from restorekit.metrics import lpips
from restorekit.metrics.light import is_hdr
from restorekit.metrics.super_resolution import eight_bit, fidelity, inside, reduced, smallest_side, whole_multiple
from restorekit.metrics.window import WINDOW
from restorekit.planes import to_float


class Model(Protocol):
    """What enlarges ``[B,3,H,W]``, encoded RGB in 0..1, to ``scale`` times the size."""

    @property
    def scale(self) -> int: ...

    def __call__(self, x: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class Score:
    """What was measured with one reference, ``width`` x ``height`` px of it, or the ``error`` why nothing was.

    ``measures`` are ``psnr_y_db``, ``ssim_y``, ``psnr_rgb_db`` and, where asked for, ``lpips``; PSNR is infinite for
    equal pictures.
    """

    path: Path
    width: int = 0
    height: int = 0
    measures: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    error: str | None = None


def references(folder: Path) -> list[Path]:
    """The image files of a folder, without subfolders, in the order in which a person lists them.

    Raises InputError where there are none.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder; name the folder of reference pictures")
    files = (path for path in folder.iterdir() if path.suffix.lower() in READABLE and not path.name.startswith("."))
    found = sorted((path for path in files if path.is_file()), key=name_order)
    if not found:
        raise InputError(f"{folder}: holds no readable image (subfolders are not looked into)")
    return found


def evaluate(model: Model, paths: Sequence[Path], distance: lpips.Distance | None = None) -> Iterator[Score]:
    """Measure a model with each reference; a file that cannot be used gives a score with an error, and the rest go on.

    With ``distance`` LPIPS is measured too.
    """
    for path in paths:
        try:
            yield _score(model, path, distance)
        except RestorekitError as error:
            yield Score(path, error=str(error))


def means(scores: Sequence[Score]) -> dict[str, float]:
    """Means over the references that could be measured; empty where none could."""
    measured = [score.measures for score in scores if score.error is None]
    return {name: math.fsum(one[name] for one in measured) / len(measured) for name in (measured or [{}])[0]}


def _score(model: Model, path: Path, distance: lpips.Distance | None) -> Score:
    scale = model.scale
    frame = read(path, sidecar=False)
    picture, notes = _eight_bit_rgb(frame)
    reference = whole_multiple(picture, scale)
    _, height, width = reference.shape
    needed = smallest_side(scale, WINDOW if distance is None else lpips.SMALLEST)
    if min(height, width) < needed:
        raise InputError(
            f"{path}: is {frame.width}x{frame.height}, a scale of {scale} needs at least {needed}x{needed} px; "
            "use larger references"
        )
    with torch.inference_mode():
        result = model(to_float(reduced(reference, scale))[None]).cpu()[0]
    if result.shape != reference.shape:
        made = f"{result.shape[2]}x{result.shape[1]} instead of {width}x{height}"
        raise ModelError(f"{path}: the model makes {made}; its scale is not {scale}")
    if not bool(result.isfinite().all()):
        raise ModelError(f"{path}: the model gives values that are not finite; run it in fp32")
    restored = eight_bit(result)
    found = fidelity(reference, restored, border=scale)
    measures = {"psnr_y_db": found.psnr_y, "ssim_y": found.ssim_y, "psnr_rgb_db": found.psnr_rgb}
    if distance is not None:
        pair = (to_float(inside(image, scale))[None] for image in (reference, restored))
        measures["lpips"] = float(distance(*pair))
    return Score(path, width, height, measures, notes)


def _eight_bit_rgb(frame: Frame) -> tuple[Tensor, tuple[str, ...]]:
    """A reference as uint8 ``[3,H,W]``, and what a person should know of it; gray has three equal channels."""
    state = frame.state
    if state.is_mosaic or state.reference != "display" or state.transfer == "linear" or is_hdr(state):
        raise InputError(f"{frame.name}: is {state}; references are SDR pictures, such as PNG files of 8 bits")
    notes = list(frame.notes)
    if frame.alpha is not None:
        notes.append(f"{frame.name}: alpha is ignored")
    pixels = frame.pixels
    if pixels.dtype != torch.uint8:
        pixels = eight_bit(to_float(pixels))
        notes.append(f"{frame.name}: has more than 8 bits; it is rounded to 8")
    return pixels.expand(3, -1, -1), tuple(notes)
