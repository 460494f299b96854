"""Learned restoration as a stage: a model of the zoo, run in tiles or bands, with guards on what it may change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import pydantic
import torch
from torch import Tensor

from restorekit.color.transfer import decode, encode
from restorekit.execution import Execution
from restorekit.frame import Frame, Region
from restorekit.names import did_you_mean
from restorekit.planes import to_float
from restorekit.stage import Stage, StageSpec, param, parameters
from restorekit.stages import chains
from restorekit.stages.geometry import finite
from restorekit.stages.guards import Guards
from restorekit.stages.resampling import enlarged_rows
from restorekit.state import ImageState
from restorekit.strips import RowStage
from restorekit.zoo import cards, store
from restorekit.zoo.card import ModelCard
from restorekit.zoo.files import SUFFIXES, files_of, is_file

PQ_OVERSHOOT = 0.5
"""The limit for light through PQ, in whose highlights a small step is much light."""


@parameters
class Restore(RowStage):
    """A learned model over the whole picture: super-resolution, denoising, deraining, as its card says.

    ``model`` is the id of a model (``restorekit models list``) or a file of weights. The picture is turned upright
    first and becomes ``scale`` times as large. Gray pictures stay gray. Alpha, and what of colours outside the gamut
    lies beyond 0..1, which no network has seen, are enlarged by cubic convolution; values that are not finite are
    replaced and noted. Models were trained on encoded display-referred pictures: with ``encoding: pq`` linear light
    goes through the PQ curve and back instead, diffuse white at 203 cd/m2, so that values above 1 are kept.

    Models that judge a dark or hazy picture, or one of a window, as a whole were trained on small ones. ``estimate``
    runs them on the picture reduced to so many px and carries what they change, not the detail, to the full size, as
    :mod:`restorekit.stages.carried` describes.

    Models that weigh channels over all they see were trained on small patches; ``local`` lets them do so in windows as
    small within larger tiles (DRSformer and Histoformer): no steps at cuts, but a veil of rain is judged less well.

    Guards: ``amount`` blends with the enlarged input, ``detail`` puts the finest detail of the input back,
    ``lock_color`` keeps the low frequencies of the input in linear light and its grays gray (by default for models
    whose card says that they shift colours), ``overshoot`` limits what goes beyond the range of the pixels around (with
    PQ to half of it where nothing is said, since the curve is steep in highlights).

    Raises ModelError when the model has no weights, or enlarges where ``estimate`` reduces, and RestorekitError when
    no tile fits into memory.
    """

    spec = StageSpec(
        name="restore",
        source="the paper of the model's card; PQ: SMPTE ST 2084, white: ITU-R BT.2408",
        accepts={"layout": ("rgb", "gray"), "reference": ("display",), "transfer": ("srgb", "gamma")},
    )
    model: Annotated[str, param("Id of a model, or a file of weights")]
    amount: Annotated[float, param("Share of the model's result; the rest is the enlarged input", ge=0, le=1)] = 1.0
    detail: Annotated[float, param("Share of the finest detail that is the input's own", ge=0, le=1)] = 0.0
    lock_color: Annotated[bool | None, param("Keep low frequencies and grays of the input; null: as the card says")] = (
        None
    )
    overshoot: Annotated[
        float | None, param("Limit beyond the range of the 3x3 input px around, share of it; null: none", ge=0, le=4)
    ] = None
    estimate: Annotated[
        int | None,
        param("Longer side at which the model sees the picture; 0: as it is, null: as the card says", unit="px", ge=0),
    ] = None
    local: Annotated[
        int | None,
        param(
            "Side of windows in which statistics over the tile are taken; 0: over it, null: as the card says",
            unit="px",
            ge=0,
        ),
    ] = None
    encoding: Annotated[Literal["display", "pq"], param("display: encoded pictures; pq: linear light through PQ")] = (
        "display"
    )

    @pydantic.field_validator("model")
    @classmethod
    def _known(cls, model: str) -> str:
        known = cards.files()
        if model not in known and not model.endswith(SUFFIXES) and not is_file(model):
            hint = did_you_mean(model, known) or "; restorekit models list names those there are"
            raise ValueError(f"there is no model of this name{hint}")
        return model

    @property
    def card(self) -> ModelCard | None:
        """The model's card; None for a file of weights."""
        return cards.card(self.model) if self.model in cards.files() else None

    def accepts(self) -> Mapping[str, tuple[str, ...]]:
        layouts, card = self.spec.accepts["layout"], self.card
        if self.encoding == "pq":
            return {"layout": layouts, "reference": ("scene", "display"), "transfer": ("linear",)}
        if card is not None and card.transfer == "linear":
            return {"layout": layouts, "reference": (card.reference,), "transfer": ("linear",)}
        return self.spec.accepts

    def open(self) -> None:
        from restorekit.zoo.model import load_model

        load_model(self.model, self.local)

    def files(self) -> Iterator[Path]:
        yield from files_of(self.model)

    def warnings(self, state: ImageState, before: Sequence[Stage] = ()) -> tuple[str, ...]:
        card = self.card
        if card is None:
            return ()
        said = []
        if store.weights_path(card) is None:
            said.append(f"model {card.id} has no weights installed; {store.cure(card)}")
        if card.trained_on == "bicubic":
            said.append(
                f"model {card.id} was trained on clean pictures reduced by bicubic; noise, JPEG blocks and blur of a "
                "real photo are kept or sharpened by it"
            )
        if self.encoding == "pq":
            said.append(f"model {card.id} was trained on display-referred pictures; through PQ it does less")
        models = (stage.card for stage in before if isinstance(stage, Restore))
        said += chains.warnings(card, [stage.spec.name for stage in before], [model for model in models if model])
        if self.estimate and card.scale > 1:
            said.append(f"model {card.id} enlarges, for which it needs the whole picture; leave estimate out")
        return tuple(said)

    def rows(self, frame: Frame, execution: Execution) -> Iterator[Frame]:
        from restorekit.zoo.model import load_model

        frame = frame.upright()
        if frame.pixels.dtype.is_floating_point:
            frame = finite(frame.as_float(), self)
        model = load_model(self.model, self.local)
        if self.estimate is not None:
            model = replace(model, estimate=self.estimate)
        whole = self._encoded(frame.pixels)
        image = _within(whole)
        gray = len(image) == 3 and torch.equal(image[0], image[1]) and torch.equal(image[0], image[2])
        beyond = image is not whole
        image = image[:1] if gray else image
        scale, height = model.scale, frame.height
        lock = self.lock_color if self.lock_color is not None else bool(model.card and model.card.shifts_color)
        transfer = "pq" if self.encoding == "pq" else frame.state.transfer
        most = PQ_OVERSHOOT if self.encoding == "pq" and self.overshoot is None else self.overshoot
        guards = Guards(self.amount, self.detail, lock, most, transfer)
        made = model.rows(image, execution)
        if not guards.idle:
            made = guards.apply(made, lambda top, bottom: to_float(image[:, top:bottom]), height, scale)
        for top, pixels in made:
            if gray:
                pixels = pixels.expand(3, -1, -1)
            if beyond:
                pixels = pixels + enlarged_rows(
                    lambda first, last: whole[:, first:last] - whole[:, first:last].clamp(0.0, 1.0),
                    height,
                    scale,
                    top,
                    top + pixels.shape[1],
                )
            strip = replace(
                frame,
                pixels=self._decoded(pixels),
                alpha=self._alpha(frame, scale, top, top + pixels.shape[1]),
                masks={name: _nearest(mask, scale, top, top + pixels.shape[1]) for name, mask in frame.masks.items()},
                state=self.emits(frame.state),
                facts=replace(frame.facts, noise=None),
                region=Region(top, height * scale),
            )
            for note in execution.notes:
                strip = strip.with_note(note)
            yield strip

    def _encoded(self, pixels: Tensor) -> Tensor:
        if self.encoding == "display":
            return pixels
        return encode(to_float(pixels), "pq")

    def _decoded(self, pixels: Tensor) -> Tensor:
        if self.encoding == "display":
            return pixels
        return decode(pixels, "pq")

    def _alpha(self, frame: Frame, scale: int, first: int, last: int) -> Tensor | None:
        alpha = frame.alpha
        if alpha is None:
            return None
        rows = enlarged_rows(lambda top, bottom: to_float(alpha[:, top:bottom]), frame.height, scale, first, last)
        return rows.clamp_(0.0, 1.0)


def models_of(stages: Iterable[Stage]) -> tuple[str, ...]:
    """The ids of the models that stages run; files of weights are left out."""
    known = cards.files()
    return tuple(stage.model for stage in stages if isinstance(stage, Restore) and stage.model in known)


def _within(pixels: Tensor) -> Tensor:
    """A picture limited to 0..1, which is all that networks have seen; itself where nothing lies beyond."""
    if not pixels.dtype.is_floating_point or (float(pixels.amin()) >= 0.0 and float(pixels.amax()) <= 1.0):
        return pixels
    return pixels.clamp(0.0, 1.0)


def _nearest(mask: Tensor, scale: int, first: int, last: int) -> Tensor:
    """Rows of a mask enlarged."""
    rows, columns = (torch.arange(a, b) // scale for a, b in ((first, last), (0, mask.shape[2] * scale)))
    return mask[:, rows][:, :, columns]
