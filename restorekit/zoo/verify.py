"""Check that installed weights are whole, those of their card, and load."""

from __future__ import annotations

from restorekit.errors import ModelError
from restorekit.stages.illuminant_models import load_estimator
from restorekit.zoo import checkpoint, store
from restorekit.zoo.card import ModelCard
from restorekit.zoo.load import load_network


def problem(card: ModelCard) -> str | None:
    """What is wrong with the installed weights of a model, in one line with the cure, or None.

    Raises ModelError when there are none.
    """
    path = store.installed_weights(card)
    try:
        said = checkpoint.metadata(path)
        whole = said.get("fingerprint") in (None, checkpoint.fingerprint(checkpoint.read(path)))
        if whole and card.task == "illuminant":
            load_estimator(card)
        elif whole:
            load_network(card)
    except ModelError as error:
        return str(error)
    if not whole:
        return f"{path}: is not what was installed; {_again(card)}"
    expected = card.weights.sha256 if card.weights else None
    if expected is not None and expected not in (said.get("source_sha256"), store.sha256(path)):
        return f"{path}: is not made of the file that card {card.id} describes; {_again(card)}"
    return None


def _again(card: ModelCard) -> str:
    if card.weights and card.weights.url:
        return f"remove it and run: restorekit models download {card.id}"
    return f"import its file again: restorekit models import FILE --as {card.id}"
