"""Which file a model's weights are in, given its id or the file itself. Loads no torch."""

from __future__ import annotations

from pathlib import Path

from restorekit.errors import ModelError
from restorekit.zoo import cards, store

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".tar")


def is_file(path_or_id: str) -> bool:
    """Whether a model is given as a file of weights, not as an id."""
    return path_or_id not in cards.files() and Path(path_or_id).is_file()


def file_of(path_or_id: str) -> Path:
    """The file of weights of a model.

    Raises ModelError for an unknown id, a file that is not there, and a model without weights.
    """
    if path_or_id not in cards.files():
        path = Path(path_or_id)
        if path.is_file():
            return path
        if path_or_id.endswith(SUFFIXES):
            raise ModelError(f"{path}: no such file of weights; check the path, or name a model of the list")
    return store.installed_weights(cards.card(path_or_id))
