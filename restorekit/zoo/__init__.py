"""The model zoo: cards that say what a model is, and where its weights lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from restorekit.zoo.convert import convert_state_dict as convert_state_dict

__all__ = ["convert_state_dict"]


def __getattr__(name: str) -> Any:
    if name == "convert_state_dict":
        from restorekit.zoo.convert import convert_state_dict  # loads torch, which cards do without

        return convert_state_dict
    raise AttributeError(f"module 'restorekit.zoo' has no attribute '{name}'")
