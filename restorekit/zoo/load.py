"""From a card or a file of weights to a network, with every weight in its place."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from restorekit import architectures
from restorekit.architectures._network import Detected, Network
from restorekit.errors import ModelError
from restorekit.zoo import cards, checkpoint, community, match, store
from restorekit.zoo.card import ModelCard
from restorekit.zoo.files import files_of, is_file
from restorekit.zoo.recognise import detect as detect
from restorekit.zoo.recognise import outline, shapes


class Opened(NamedTuple):
    """A model ready to run; ``card`` is None for a file that no card stands for."""

    card: ModelCard | None
    network: Network
    detected: Detected


def build(architecture: str, config: Mapping[str, Any], state: Mapping[str, Tensor], source: str) -> Network:
    """A float32 network on the CPU with the weights of a state dict, in eval mode and without gradients.

    The random numbers of the caller stay as they are. Raises ModelError when the network cannot be built, and when a
    weight is missing, left over, of another shape or not finite.
    """
    if architecture == community.NAME:
        network = community.network(state, source)
    else:
        try:
            with torch.random.fork_rng(devices=()):
                network = architectures.create(architecture, **config)
        except ModelError as error:
            raise ModelError(f"{source}: {error}") from None
        try:
            network.load_state_dict(state, strict=True)
        except RuntimeError as error:
            misfit = _misfit(network, state, error)
            raise ModelError(f"{source}: does not fit {architecture}: {misfit}; get the whole file again") from None
    broken = [name for name, weights in network.named_parameters() if not bool(weights.isfinite().all())]
    if broken:
        raise ModelError(f"{source}: holds weights that are not finite ({broken[0]}); get the file again")
    return network.eval().requires_grad_(False)


def load_network(card_or_path: ModelCard | Path) -> Network:
    """The network of a card's installed weights, or of a file, in eval mode and without gradients.

    Raises ModelError when there are no weights, or they do not fit.
    """
    if isinstance(card_or_path, ModelCard):
        return _of_card(card_or_path, store.installed_weights(card_or_path))
    return _of_file(card_or_path).network


def opened(path_or_id: str | Path) -> Opened:
    """A model by its id, or by a file of weights whose architecture and hyperparameters are found in it.

    Raises ModelError for an unknown id, a model without weights, and a file that is no model.
    """
    text = os.fspath(path_or_id)
    if isinstance(path_or_id, Path) or is_file(text):
        return _of_file(Path(text))
    path = files_of(text)[0]
    card = cards.card(text)
    return Opened(card, _of_card(card, path), Detected(card.config))


def _of_card(card: ModelCard, path: Path) -> Network:
    if card.task == "illuminant":
        raise ModelError(f"{card.id} estimates the light and makes no picture; use the stage illuminant.dual_exposure")
    state = checkpoint.read(path)
    try:
        return build(card.architecture, card.config, state, str(path))
    except ModelError as error:
        raise ModelError(match.explained(card, state, str(path)) or str(error)) from None


def _of_file(path: Path) -> Opened:
    state = checkpoint.read(path)
    said = checkpoint.metadata(path)
    if card := described(said, state, path):
        return Opened(card, build(card.architecture, card.config, state, str(path)), Detected(card.config))
    if told := _told(said, state):
        name, config = told
        card = cards.cards().get(said.get("model", ""))
        return Opened(card, build(name, config, state, str(path)), Detected(config))
    name, detected = detect(state, str(path))
    return Opened(None, build(name, detected.config, state, str(path)), detected)


def described(said: Mapping[str, str], state: Mapping[str, Tensor], path: Path) -> ModelCard | None:
    """The card that a file of ours brings along, where it is one of a network that has these weights."""
    try:
        card = ModelCard(**{**json.loads(said.get("card", "")), "id": path.stem})
    except (ValueError, TypeError, RecursionError):
        return None
    return card if _fits(card.architecture, card.config, state) else None


def _told(said: Mapping[str, str], state: Mapping[str, Tensor]) -> tuple[str, dict[str, Any]] | None:
    """Architecture and hyperparameters as a file of ours tells them, where they are those of its weights."""
    name = said.get("architecture", "")
    try:
        config = json.loads(said.get("config", ""))
    except (ValueError, RecursionError):
        return None
    return (name, config) if isinstance(config, dict) and _fits(name, config, state) else None


def _fits(name: str, config: Mapping[str, Any], state: Mapping[str, Tensor]) -> bool:
    """Whether a network of ours has weights of these names and shapes."""
    try:
        return name in architectures.architectures() and shapes(
            outline(name, config, len(state)).state_dict()
        ) == shapes(state)
    except ModelError:
        return False


def _misfit(network: Network, state: Mapping[str, Tensor], error: RuntimeError) -> str:
    """Which weights do not fit, in one line."""
    wanted, given = shapes(network.state_dict()), shapes(state)
    parts = [
        f"{len(keys)} {what} ({', '.join(keys[:3])}{' ...' if len(keys) > 3 else ''})"
        for what, keys in (
            ("missing", [key for key in wanted if key not in given]),
            ("unexpected", [key for key in given if key not in wanted]),
            (
                "of another shape",
                [
                    f"{key} {list(given[key])} in place of {list(wanted[key])}"
                    for key in wanted
                    if key in given and given[key] != wanted[key]
                ],
            ),
        )
        if keys
    ]
    return ", ".join(parts) or " ".join(str(error).split())[:300]
