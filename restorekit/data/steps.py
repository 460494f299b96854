"""Degradations as YAML lists them: a name, or ``name: {parameter: value}``. Loads no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pydantic

from restorekit.data import create

if TYPE_CHECKING:
    from restorekit.data.degradation import Chain


class Step(pydantic.BaseModel):
    """A degradation and its parameters; in YAML ``- name: {parameter: value}``."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str
    parameters: Mapping[str, Any] = {}

    @pydantic.model_validator(mode="before")
    @classmethod
    def _of_yaml(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, Mapping) and len(value) == 1 and "name" not in value:
            ((name, parameters),) = value.items()
            return {"name": name, "parameters": parameters or {}}
        return value

    @pydantic.field_validator("parameters")
    @classmethod
    def _as_in_yaml(cls, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
        """Lists for tuples, so that what is written and read back is the same."""
        content: Mapping[str, Any] = json.loads(json.dumps(parameters))
        return content


def chain(steps: Sequence[Step]) -> Chain:
    """The degradations one after another.

    Raises RestorekitError for an unknown one, and for parameters that one does not take.
    """
    from restorekit.data.degradation import Chain

    return Chain([create(step.name, **step.parameters) for step in steps])
