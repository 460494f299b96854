"""The declarations of stages and pipeline files, for editors, help pages and sliders."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pydantic

from restorekit.errors import RestorekitError
from restorekit.io.brackets import Grouping
from restorekit.io.formats import OutputSpec
from restorekit.io.raw import Headerless
from restorekit.registry import stage_class, stage_entries
from restorekit.schema import VERSION
from restorekit.stage import Stage
from restorekit.state import AXES, SHORTHANDS


def json_schema() -> dict[str, Any]:
    """The JSON schema of pipeline files, for editors: stages, their parameters with ranges and docs."""
    definitions: dict[str, Any] = {}
    choices: list[dict[str, Any]] = []
    for name, entry in stage_entries().items():
        try:
            schema = pydantic.TypeAdapter(stage_class(name)).json_schema()
        except RestorekitError:
            continue
        schema.setdefault("properties", {})["id"] = {
            "type": "string",
            "description": "Name of this step for --set and from",
        }
        schema["description"] = entry.summary
        definitions[name] = schema
        needed = {
            "type": "object",
            "properties": {name: {"$ref": f"#/$defs/{name}"}},
            "required": [name],
            "additionalProperties": False,
        }
        choices += [{"const": name, "description": entry.summary}, needed]
    axes = {axis: {"enum": list(values)} for axis, values in AXES.items() if axis != "frames"}
    state = {
        "anyOf": [{"enum": list(SHORTHANDS)}, {"type": "object", "properties": axes, "additionalProperties": False}]
    }
    output = pydantic.TypeAdapter(OutputSpec).json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "restorekit pipeline",
        "type": "object",
        "required": ["restorekit", "input", "stages"],
        "additionalProperties": False,
        "properties": {
            "restorekit": {"const": VERSION},
            "name": {"type": "string"},
            "summary": {"type": "string"},
            "input": {
                "type": "object",
                "required": ["state"],
                "additionalProperties": False,
                "properties": {
                    "state": state,
                    "frames": {"enum": list(AXES["frames"])},
                    "group": pydantic.TypeAdapter(Grouping).json_schema(),
                    "headerless": pydantic.TypeAdapter(Headerless).json_schema(),
                },
            },
            "stages": {"type": "array", "minItems": 1, "items": {"anyOf": choices}},
            "output": {"anyOf": [output, {"type": "array", "items": output}]},
        },
        "$defs": definitions,
    }


def describe(stage: type[Stage]) -> Iterator[dict[str, Any]]:
    """The parameters of a stage as rows: name, type, default, range, unit, doc."""
    schema = pydantic.TypeAdapter(stage).json_schema()
    for name, item in schema.get("properties", {}).items():
        kinds = [option.get("type", "") for option in item.get("anyOf", [item])]
        yield {
            "name": name,
            "type": " or ".join(kind for kind in kinds if kind) or "choice",
            "choices": item.get("enum", []),
            "default": item.get("default"),
            "minimum": item.get("minimum", item.get("exclusiveMinimum")),
            "maximum": item.get("maximum"),
            "unit": item.get("unit", ""),
            "doc": item.get("description", ""),
        }
