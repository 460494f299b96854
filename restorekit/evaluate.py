"""How well a model restores the pictures of a folder, by the protocol of its task (:mod:`restorekit.protocols`)."""

from __future__ import annotations

import math
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from restorekit.errors import InputError, ModelError, RestorekitError
from restorekit.io.brackets import name_order
from restorekit.io.read import READABLE, read
from restorekit.metrics import lpips
from restorekit.metrics.measures import MEASURES
from restorekit.metrics.super_resolution import eight_bit, inside, smallest_side, whole_multiple
from restorekit.metrics.window import WINDOW
from restorekit.planes import to_float
from restorekit.protocols import Protocol, Reference, picture_of, super_resolution


class Model(typing.Protocol):
    """What restores ``[B,C,H,W]``, encoded RGB in 0..1 or gray (C = 1), to ``scale`` times the size.

    Noisy inputs go beyond 0..1.
    """

    @property
    def scale(self) -> int: ...

    def __call__(self, x: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class Score:
    """What was measured with one reference, ``width`` x ``height`` px of it, or the ``error`` why nothing was.

    ``measures`` are those of the protocol by name and, where asked for, ``lpips``; PSNR is infinite for equal
    pictures.
    """

    path: Path
    width: int = 0
    height: int = 0
    measures: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class Restoration:
    """The pictures behind a score: the reference and the result, uint8 ``[3,H,W]``, and the input, float32."""

    path: Path
    reference: Tensor
    given: Tensor
    restored: Tensor
    notes: tuple[str, ...] = ()


def references(folder: Path) -> list[Path]:
    """The image files of a folder, without subfolders, in the order in which a person lists them.

    Raises InputError where there are none.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder; name the folder of reference pictures")
    files = (path for path in folder.iterdir() if path.suffix.lower() in READABLE and not path.name.startswith("."))
    found = sorted((path for path in files if path.is_file()), key=name_order)
    if not found:
        raise InputError(f"{folder}: holds no readable image (subfolders are not looked into); name another folder")
    return found


def evaluate(
    model: Model,
    paths: Sequence[Path],
    distance: lpips.Distance | None = None,
    protocol: Protocol | None = None,
    shown: Callable[[Restoration], None] | None = None,
) -> Iterator[Score]:
    """Measure a model with each reference; a file that cannot be used gives a score with an error, and the rest go on.

    Without a ``protocol`` by that of super-resolution. With ``distance`` LPIPS is measured too. ``shown`` is given the
    pictures after they were measured.
    """
    protocol = protocol or super_resolution(model.scale)
    for number, path in enumerate(paths):
        try:
            made = restored(model, path, number, protocol, WINDOW if distance is None else lpips.SMALLEST)
            measures = measured(protocol, made.reference, made.restored, distance)
        except RestorekitError as error:
            yield Score(path, error=str(error))
            continue
        _, height, width = made.reference.shape
        yield Score(path, width, height, measures, made.notes)
        if shown is not None:
            shown(made)


def restored(model: Model, path: Path, number: int, protocol: Protocol, inner: int = WINDOW) -> Restoration:
    """Make or read the input of one reference, and restore it.

    Raises InputError where less than ``inner`` px a side are left to be measured, and ModelError for results of another
    size or that are not finite.
    """
    scale = protocol.scale
    frame = read(path, sidecar=False)
    picture, notes = picture_of(frame)
    reference = Reference(path, number, whole_multiple(picture, scale))
    _, height, width = reference.pixels.shape
    needed = smallest_side(scale, inner) if protocol.border else inner
    if min(height, width) < needed:
        raise InputError(
            f"{path}: is {frame.width}x{frame.height}, a scale of {scale} needs at least {needed}x{needed} px; "
            "use larger references"
        )
    given = protocol.given(reference)
    with torch.inference_mode():
        result = model(given[None]).cpu()[0]
    if result.shape[1:] != (height, width):
        made = f"{result.shape[2]}x{result.shape[1]} instead of {width}x{height}"
        raise ModelError(f"{path}: the model makes {made}, its scale is not {scale}; give the scale it has by --scale")
    if not bool(result.isfinite().all()):
        raise ModelError(f"{path}: the model gives values that are not finite; run it in fp32")
    return Restoration(path, reference.rgb, given, eight_bit(result).expand(3, -1, -1), notes)


def measured(
    protocol: Protocol, reference: Tensor, restored: Tensor, distance: lpips.Distance | None = None
) -> dict[str, float]:
    """The measures of a protocol for two pictures, uint8 ``[3,H,W]``, by name; with ``distance`` LPIPS too."""
    good, made = (inside(picture, protocol.border) for picture in (reference, restored))
    measures = {name: MEASURES[name].of(good, made) for name in protocol.measures}
    if distance is not None:
        measures["lpips"] = float(distance(*(to_float(picture)[None] for picture in (good, made))))
    return measures


def means(scores: Sequence[Score]) -> dict[str, float]:
    """Means over the references that could be measured; empty where none could.

    The infinite PSNR of equal pictures is left out, unless all are equal.
    """
    found = [score.measures for score in scores if score.error is None]
    made = {}
    for name in (found or [{}])[0]:
        finite = [one[name] for one in found if math.isfinite(one[name])]
        made[name] = math.fsum(finite) / len(finite) if finite else math.inf
    return made
