"""Which files a model is in, given its id or its file of weights. Loads no torch."""

from __future__ import annotations

from pathlib import Path

from restorekit.errors import ModelError
from restorekit.zoo import cards, store

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".tar", ".npz")


def is_file(path_or_id: str) -> bool:
    """Whether a model is given as a file of weights, not as an id."""
    return path_or_id not in cards.files() and Path(path_or_id).is_file()


def files_of(path_or_id: str) -> tuple[Path, ...]:
    """The file of weights of a model, and its card where it has one.

    Raises ModelError for an unknown id, a file that is not there, and a model without weights.
    """
    known = cards.files()
    if path_or_id in known:
        return store.installed_weights(cards.card(path_or_id)), known[path_or_id]
    path = Path(path_or_id)
    if path.is_file():
        return (path,)
    if path_or_id.endswith(SUFFIXES):
        raise ModelError(f"{path}: no such file of weights; check the path, or name a model of the list")
    return (store.installed_weights(cards.card(path_or_id)),)
