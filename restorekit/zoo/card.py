"""Model cards: what a model is, where its weights come from, what they may be used for, how good they are.

A card is ``models/<architecture>.<tag>.yaml``; reading one loads no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pydantic

from restorekit.errors import ModelError
from restorekit.yaml_model import read_model

Task = Literal[
    "super-resolution", "denoising", "jpeg", "deblurring", "deraining", "weather", "dehazing", "reflection",
    "low-light", "enhancement", "illuminant",
]  # fmt: skip
"""What a model is for."""


class _Part(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Weights(_Part):
    """One file of weights. ``url`` can be downloaded, ``page`` must be visited by a person; ``file`` is its name there.

    Neither: the weights come with restorekit, or were made by the user.
    """

    file: str
    url: str | None = None
    page: str | None = None
    sha256: str | None = pydantic.Field(default=None, pattern="^[0-9a-f]{64}$")
    size: int | None = None
    licence: str
    note: str = ""


class Paper(_Part):
    """The publication of a model."""

    title: str
    authors: str
    year: int
    url: str


class Score(_Part):
    """Numbers on a test set. ``setting`` tells how its pictures were degraded where tasks leave a choice: ``sigma 25``.

    PSNR and SSIM are those that publications of the task compare: of luma for super-resolution and deraining, else of
    RGB or gray. ``source`` says who published them and where, ``command`` how to measure them again.
    """

    set: str
    setting: str = ""
    psnr: float | None = None
    ssim: float | None = None
    lpips: float | None = None
    source: str = ""
    command: str = ""


class ModelCard(_Part):
    """One model. ``id`` is the file's name without its ending: ``hat.x4``.

    ``pixels`` is what the network takes: RGB, the luma of BT.601 in its limited (``y``) or full range (``y-full``),
    or Y'CbCr in full range. ``reference`` and ``transfer`` name the image state it was trained for. ``padding`` is
    that of the published numbers: ``reflect`` at the far sides up to the next multiple of the grid, ``flip`` the
    mirrored picture appended there, 1..grid px always, ``none`` where any size goes. ``tile`` is the side of the tiles
    of a network that looks at the whole tile by nature; ``local`` is the side of the windows in which it weighs instead
    what it would weigh over a tile, 0 for none. ``estimate``: the longer side in px at which a model that
    judges a picture as a whole sees larger ones; 0: their own. ``shifts_color``: low frequencies of its
    results differ from the input's. ``independent``: built from a description, not checked against code of the authors.
    """

    id: str
    summary: str
    architecture: str
    config: dict[str, Any]
    task: Task
    scale: int = 1
    pixels: Literal["rgb", "y", "y-full", "ycbcr"] = "rgb"
    reference: Literal["display", "scene"] = "display"
    transfer: Literal["srgb", "linear"] = "srgb"
    trained_on: Literal["bicubic", "synthetic", "real", "raw"]
    data: str
    padding: Literal["none", "reflect", "flip"] = "none"
    tile: int | None = None
    local: int = pydantic.Field(default=0, ge=0)
    estimate: int = pydantic.Field(default=0, ge=0)
    precisions: tuple[Literal["fp32", "bf16", "fp16"], ...] = ("fp32",)
    shifts_color: bool = False
    independent: bool = False
    weights: Weights | None = None
    licence: str
    paper: Paper | None = None
    code: str | None = None
    recipe: str | None = None
    published: tuple[Score, ...] = ()
    measured: tuple[Score, ...] = ()
    notes: tuple[str, ...] = ()


def read_card(path: Path) -> ModelCard:
    """The card in a YAML file.

    Raises ModelError for a file that is no card, in one line with the first mistake.
    """
    return read_model(path, ModelCard, "model card", "architecture, config, task", ModelError, id=path.stem)
