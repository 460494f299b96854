"""How networks are run on one image: device, precision, tiles; and what became of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch

Precision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass
class Execution:
    """How networks run, and what became of it. One value a processed image.

    ``tile``: ``auto`` is exact where the maps fit into memory and in tiles elsewhere, ``off`` the whole image at once,
    a number the px of a tile's side, to which networks that bear tiles get a halo. ``precision``: ``auto`` is half
    precision on a GPU where the model was tested in it, else fp32. ``memory`` limits the bytes that ``auto`` plans
    with, in place of what is free. ``tell`` is called with the finished share and may raise to stop. ``mode``,
    ``used`` and ``tiles`` are how it was run (``whole``, ``exact`` or ``tiles``; the precision; how many),
    ``finished`` the share that was told last, ``notes`` what a person should know.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: Precision = "auto"
    tile: int | Literal["auto", "off"] = "auto"
    memory: int | None = None
    tell: Callable[[float], None] | None = None
    tiles: int = 0
    mode: str = ""
    used: str = ""
    finished: float = 0.0
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def share(self, share: float) -> None:
        """Tell a finished share; what was told before counts where a run begins again."""
        self.finished = max(self.finished, share)
        if self.tell is not None:
            self.tell(self.finished)

    @property
    def summary(self) -> str:
        """How it was run, in words: ``exact, fp32, cpu``."""
        how = f"{self.tiles} tiles" if self.mode == "tiles" else self.mode
        return f"{how}, {self.used}, {self.device}"
