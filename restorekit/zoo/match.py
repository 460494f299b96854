"""Compare weights with cards: which of them they fit, and why not."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from math import isclose
from typing import Any

from torch import Tensor

from restorekit import architectures
from restorekit.errors import ModelError
from restorekit.zoo import cards
from restorekit.zoo.card import ModelCard
from restorekit.zoo.community import NAME as COMMUNITY
from restorekit.zoo.recognise import Recognised, outline, recognise, shapes


def differences(card: ModelCard, found: Recognised) -> dict[str, tuple[Any, Any]]:
    """Hyperparameters of which weights tell another value than a card of their architecture: (card's, weights')."""
    if card.architecture == COMMUNITY:
        return {}
    parameters = inspect.signature(architectures.architecture(card.architecture).__init__).parameters
    wanted = {**{name: parameter.default for name, parameter in parameters.items()}, **card.config}
    return {
        name: (wanted.get(name), value)
        for name, value in found.detected.config.items()
        if not is_assumed(name, found) and not _equal(wanted.get(name), value)
    }


def is_assumed(name: str, found: Recognised) -> bool:
    """Whether a hyperparameter is among those that weights do not tell."""
    return any(names(line, name) for line in found.detected.assumed)


def names(line: str, name: str) -> bool:
    """Whether a hyperparameter is named in a line about what was assumed."""
    return re.search(rf"\b{re.escape(name)}\b", line) is not None


def fits(card: ModelCard, found: Recognised) -> bool:
    """Whether weights can be those of a card."""
    if card.architecture != found.architecture or card.scale != found.scale:
        return False
    if not differences(card, found):
        return True
    try:
        return shapes(outline(card.architecture, card.config).state_dict()) == shapes(found.state)
    except ModelError:
        return False


def fitting(found: Recognised) -> list[ModelCard]:
    """The cards that weights can be those of; not those of networks of ours that are yet to be trained.

    Broken cards are passed over.
    """
    result = []
    known = cards.cards()
    for id in known:
        try:
            card = known[id]
            if (card.weights is not None or card.code is not None) and fits(card, found):
                result.append(card)
        except ModelError:
            continue
    return result


def mismatch(card: ModelCard, found: Recognised) -> str:
    """Why weights are not those of a card, and what to import them as; one line."""
    if card.architecture != found.architecture:
        wants = f"card {card.id} wants {_class_name(card.architecture)}"
        what = ""
    elif card.scale != found.scale:
        wants = f"card {card.id} wants x{card.scale}"
        what = ""
    else:
        other = list(differences(card, found).items())[:3]
        what = " with " + ", ".join(f"{name} {value}" for name, (_, value) in other) if other else ""
        wants = f"card {card.id} wants " + (", ".join(str(wanted) for _, (wanted, _) in other) or "other weights")
    ids = [fit.id for fit in fitting(found)]
    cure = f"import it as {' or '.join(ids[:4])}" if ids else "import it under a name of your own: --as NAME"
    return f"{found.source}: is a {found.label} checkpoint{what}, {wants}; {cure}"


def explained(card: ModelCard, state: Mapping[str, Tensor], source: str) -> str | None:
    """Why a state dict is not that of a card, or None where that cannot be said better than by its keys."""
    try:
        found = recognise(state, source)
        return None if fits(card, found) else mismatch(card, found)
    except ModelError:
        return None


def _class_name(architecture: str) -> str:
    try:
        return architectures.architecture(architecture).__name__
    except ModelError:
        return architecture


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(_equal(a, b) for a, b in zip(first, second, strict=True))
    if isinstance(first, float) or isinstance(second, float):
        try:
            return isclose(first, second, rel_tol=1e-6)
        except TypeError:
            return False
    return bool(first == second)
