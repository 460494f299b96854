"""Parameters that pydantic checks, and what it finds wrong in words of this program."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pydantic

from restorekit.errors import ParameterError
from restorekit.names import did_you_mean


class Checked(type):
    """The class of stages and outputs: calling one raises ParameterError where pydantic refuses its parameters."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().__call__(*args, **kwargs)
        except pydantic.ValidationError as error:
            spec = getattr(cls, "spec", None)  # of a stage
            raise ParameterError(spec.name if spec else cls.__name__, tuple(mistakes(cls, error))) from None


def mistakes(cls: type[Any], error: pydantic.ValidationError) -> Iterator[str]:
    """Every mistake that pydantic found in the parameters of a class, one line each."""
    known = [each.name for each in dataclasses.fields(cls)]
    for item in error.errors():
        name = str(item["loc"][0]) if item["loc"] else ""
        if item["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            there = f"; it has {', '.join(known)}" if known else "; it has none"
            yield f"unknown parameter '{name}'{did_you_mean(name, known) or there}"
        elif item["type"] == "unexpected_positional_argument":
            yield f"parameters are given by name, NAME=VALUE, got {item['input']!r}"
        elif item["type"].startswith("missing"):
            yield f"parameter '{name}' is needed"
        else:
            said = item["msg"].removeprefix("Value error, ")
            said = (said[0].lower() + said[1:]).replace("input should", "should")
            yield f"parameter '{name}': {said}, got {item['input']!r}" if name else said
