"""What the keys and shapes of weights tell about hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


def count(state: Mapping[str, Tensor], pattern: str) -> int:
    """How many keys there are of a pattern with ``{}`` for 0, 1, 2 ..."""
    number = 0
    while pattern.format(number) in state:
        number += 1
    return number


def ratio(part: int, whole: int) -> float:
    """The factor f with ``int(whole * f) == part``."""
    exact = part / whole
    return exact if int(whole * exact) == part else (part + 0.5) / whole
