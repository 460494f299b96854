"""Install a file of weights: find the card it belongs to, or make one, and keep it as safetensors."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import yaml

from restorekit.errors import ModelError
from restorekit.zoo import cards, checkpoint, match, store
from restorekit.zoo.card import ModelCard, Weights
from restorekit.zoo.load import build, described
from restorekit.zoo.recognise import Recognised, by_card, recognise


def examined(path: Path, source: str | None = None) -> Recognised:
    """What a file of weights is; ``source`` is what messages call it.

    Raises ModelError for a file that is no model.
    """
    state, said = checkpoint.read(path), checkpoint.metadata(path)
    if card := described(said, state, path):
        return by_card(state, source or str(path), card)
    return recognise(state, source or str(path))


def choose(found: Recognised, path: Path, id: str | None) -> ModelCard:
    """The card that a file is to be installed for; a new one of the user's for an id that is not known.

    Without an id it is the card of that configuration which names the file or its hash. Raises ModelError when the
    file is not what the card describes, or no card, or several, could be meant.
    """
    if id is None:
        return _proposed(found, path)
    if id not in cards.files():
        return own_card(found, path, id)
    card = cards.card(id)
    if card.weights is None and card.code is None:
        raise ModelError(f"no weights of {id} exist yet, so {path} cannot be those; import it under a name of your own")
    if not match.fits(card, found):
        raise ModelError(match.mismatch(card, found))
    if card.weights is not None and card.weights.sha256 not in (None, store.sha256(path)):
        build(card.architecture, card.config, found.state, found.source)  # what does not even fit is told so
        raise ModelError(
            f"{path}: fits {id} but is not its file {card.weights.file} (the sha256 differs); "
            "import it under a name of your own"
        )
    return card


def own_card(found: Recognised, path: Path, id: str) -> ModelCard:
    """A card of the user's for weights that no card stands for; what a file cannot tell is as for its architecture.

    Raises ModelError for an id that cannot be the name of a file.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", id) or id.endswith("."):
        raise ModelError(f"'{id}' is no id of a model; use letters, digits, '.', '-' and '_', for instance my.x4")
    if found.card is not None:
        return found.card.model_copy(update={"id": id, "weights": Weights(file=path.name, licence="unknown")})
    like = _relative(found)
    return ModelCard(
        id=id,
        summary=f"{found.label}, imported from {path.name}",
        architecture=found.architecture,
        config=json.loads(json.dumps(found.detected.config)),
        task=like.task if like else "super-resolution" if found.scale > 1 else "enhancement",
        scale=found.scale,
        pixels=like.pixels if like else "y" if found.in_channels == 1 else "rgb",
        trained_on="synthetic",
        data="unknown",
        padding=like.padding if like else "none",
        weights=Weights(file=path.name, licence="unknown"),
        licence="unknown",
    )


def install(found: Recognised, card: ModelCard, path: Path) -> Path:
    """Write the weights of a file, and the card where it is new, into the user's folder; where the weights lie then.

    Everything is there or nothing: the weights are loaded strictly first. Raises ModelError where they do not fit or
    the folder cannot be written.
    """
    build(card.architecture, card.config, found.state, found.source)
    target = store.install_path(card.id)
    checkpoint.write(
        target,
        found.state,
        {
            "model": card.id,
            "architecture": card.architecture,
            "config": json.dumps(card.config, sort_keys=True),
            "source": card.weights.file if card.weights else path.name,
            "source_sha256": store.sha256(path),
            "fingerprint": checkpoint.fingerprint(found.state),
        },
    )
    if card.id not in cards.files():
        try:
            write_card(card)
        except ModelError:
            target.unlink(missing_ok=True)
            raise
    return target


def write_card(card: ModelCard) -> Path:
    """Write a card into the user's folder.

    Raises ModelError where that cannot be written.
    """
    path = cards.user_folder() / f"{card.id}.yaml"
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    content = card.model_dump(mode="json", exclude={"id"}, exclude_defaults=True)
    try:
        part.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be written ({error.strerror or error}); make room or choose another $RESTOREKIT_HOME"
        ) from None
    finally:
        part.unlink(missing_ok=True)
    return path


def _proposed(found: Recognised, path: Path) -> ModelCard:
    fitting = match.fitting(found)
    digest = store.sha256(path)
    same = [card for card in fitting if card.weights and card.weights.sha256 == digest]
    named = [card for card in fitting if card.weights and card.weights.file == path.name and not card.weights.sha256]
    if len(same or named) == 1:
        return (same or named)[0]
    ids = [card.id for card in same or named or fitting]
    if not ids:
        raise ModelError(f"{path}: is a {found.label} checkpoint that no card stands for; name it: --as NAME")
    more = f" and {len(ids) - 6} more" if len(ids) > 6 else ""
    raise ModelError(
        f"{path}: is a {found.label} checkpoint that fits {', '.join(ids[:6])}{more}; say which it is with --as ID, "
        "or give it a name of your own"
    )


def _relative(found: Recognised) -> ModelCard | None:
    """The card of the same architecture, for as many channels, that is most like a file."""
    like = []
    known = cards.cards()
    for id in known:
        try:
            card = known[id]
            one_channel = card.pixels in ("y", "y-full")
            if card.architecture == found.architecture and one_channel == (found.in_channels == 1):
                like.append((len(match.differences(card, found)), card))
        except ModelError:
            continue
    return min(like, key=lambda entry: entry[0])[1] if like else None
