"""What a person can set, read from the declarations of stages and outputs: nothing is declared twice."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import pydantic
import yaml

from restorekit.errors import RestorekitError
from restorekit.zoo import cards

Kind = Literal["switch", "choice", "slider", "number", "words", "values"]

Declared = Any
"""The class of a stage, or that of an output."""

STEPS = 1000
"""About so many steps has a slider."""

UNSET = "not set"
"""What is shown for a value that is left to the stage."""


@dataclass(frozen=True)
class Control:
    """One parameter as a person sets it.

    ``kind``: a ``switch``, a ``choice`` among values, a ``slider`` where both limits are known, a ``number`` where one
    is open, ``words`` for text, and ``values`` for lists and for numbers that may be left out, written as in YAML (an
    empty number field of the page would count as 0). ``usual`` is the part of the range that a slider shows.
    """

    name: str
    kind: Kind
    default: Any
    doc: str = ""
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    usual: tuple[float, float] | None = None
    choices: tuple[Any, ...] = ()
    optional: bool = False

    @property
    def about(self) -> str:
        """The doc, with the range where the control itself does not show it."""
        if (self.kind != "values" and self.usual is None) or (self.minimum is None and self.maximum is None):
            return self.doc
        least = "" if self.minimum is None else f"from {self.minimum:g} "
        most = "" if self.maximum is None else f"to {self.maximum:g}"
        where = "" if self.usual is None else "in YAML "
        return f"{self.doc} ({where}{(least + most).strip()})"

    def ends(self, value: Any) -> tuple[float, float]:
        """The ends of a slider: those of the usual range, or a value beyond them, within the range."""
        least, most = self.minimum or 0.0, self.maximum or 0.0
        low, high = self.usual or (least, most)
        if not isinstance(value, int | float):
            return low, high
        return max(min(low, value), least), min(max(high, value), most)

    @property
    def label(self) -> str:
        """The name with its unit."""
        *first, last = self.name.split("_")
        told = bool(first) and last in (self.unit.lower(), "percent", "nits")
        name = " ".join(first if told else [*first, last])
        return f"{name} ({self.unit})" if self.unit else name

    def shown(self, value: Any) -> Any:
        """A parameter's value as its control shows it."""
        if self.kind == "values":
            return "" if value is None else yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()
        return UNSET if value is None and self.kind == "choice" else value

    def given(self, shown: Any) -> Any:
        """The parameter's value that a control stands for.

        Raises RestorekitError for a list that is no YAML.
        """
        if self.kind == "values":
            try:
                return yaml.safe_load(shown) if shown else None
            except yaml.YAMLError:
                raise RestorekitError(f"{self.name}: write a number, or a list such as [1.0, 1.2, 0.9]") from None
        if self.kind == "choice" and shown == UNSET:
            return None
        if isinstance(self.default, float) and isinstance(shown, int) and not isinstance(shown, bool):
            return float(shown)
        return shown


def controls(declared: Declared) -> tuple[Control, ...]:
    """The controls of a stage's parameters, or of an output; parameters that name files are left out."""
    return _controls(declared)


@cache
def _controls(declared: Declared) -> tuple[Control, ...]:
    properties = _properties(declared)
    found = (_control(name, item) for name, item in properties.items() if name not in file_parameters(declared))
    return tuple(_with_models(declared, control) for control in found)


def file_parameters(declared: Declared) -> frozenset[str]:
    """The parameters that name files, which would be those of the server."""
    found = _properties(declared).items()
    return frozenset(name for name, item in found if any(option.get("format") == "path" for option in _options(item)))


def needs_file(declared: Declared) -> bool:
    """Whether a stage cannot do without a file, so that the page does not offer it."""
    return bool(file_parameters(declared) & set(_schema(declared).get("required", ())))


def takes_model(declared: Declared) -> bool:
    """Whether a stage's parameter ``model`` takes the id of a model, or a file of weights."""
    return getattr(declared, "card", None) is not None and "model" in _properties(declared)


@cache
def _schema(declared: Declared) -> Mapping[str, Any]:
    return pydantic.TypeAdapter(declared).json_schema()


def _properties(declared: Declared) -> Mapping[str, Mapping[str, Any]]:
    found: Mapping[str, Mapping[str, Any]] = _schema(declared).get("properties", {})
    return found


def _options(item: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(item.get("anyOf", [item]))


def _control(name: str, item: Mapping[str, Any]) -> Control:
    options = [option for option in _options(item) if option.get("type") != "null"]
    optional = len(options) < len(_options(item))
    limits = {key: value for option in options for key, value in option.items()}
    about = {"doc": item.get("description", ""), "unit": item.get("unit", ""), "optional": optional}
    default = item.get("default")
    kind = limits.get("type")
    none = (UNSET,) if optional else ()
    if "enum" in limits:
        return Control(name, "choice", default, choices=(*none, *limits["enum"]), **about)
    if kind == "boolean":
        if optional:
            return Control(name, "choice", default, choices=(*none, True, False), **about)
        return Control(name, "switch", default, **about)
    if kind == "string" and len(options) == 1:
        return Control(name, "words", default or "", **about)
    if len(options) > 1 or kind not in ("number", "integer"):
        return Control(name, "values", default, **about)
    low, high = limits.get("minimum", limits.get("exclusiveMinimum")), limits.get("maximum")
    usual = tuple(item["usual"]) if "usual" in item else None
    first, last = usual or (low, high)
    step = 1.0 if kind == "integer" else None if first is None or last is None else _step(last - first)
    if low is not None and "exclusiveMinimum" in limits:
        low += step or 0.0
    ranged: Kind = "values" if optional else "slider" if low is not None and high is not None else "number"
    return Control(name, ranged, default, minimum=low, maximum=high, step=step, usual=usual, **about)


def _step(span: float) -> float:
    """The length of a step: 1, 2 or 5 times a power of ten."""
    wanted = span / STEPS
    power: float = 10.0 ** math.floor(math.log10(wanted))
    factor = next(factor for factor in (1, 2, 5, 10) if factor * power >= wanted * 0.99)
    return float(f"{factor * power:.6g}")


def _with_models(declared: Declared, control: Control) -> Control:
    """The control of a model, which is chosen among those that have a card."""
    if control.name != "model" or not takes_model(declared):
        return control
    return Control("model", "choice", None, control.doc, choices=tuple(cards.files()))
