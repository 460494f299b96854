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
        own: dict[str, Any] = {"$ref": f"#/$defs/{name}"}
        bare = not schema.get("required")
        choices.append(
            {
                "type": "object",
                "properties": {name: {"anyOf": [own, {"type": "null"}]} if bare else own},
                "required": [name],
                "additionalProperties": False,
            }
        )
        if bare:
            choices.append({"const": name, "description": entry.summary})
    axes = {axis: {"enum": list(values)} for axis, values in AXES.items() if axis != "frames"}
    state = {
        "anyOf": [{"enum": list(SHORTHANDS)}, {"type": "object", "properties": axes, "additionalProperties": False}]
    }
    output = pydantic.TypeAdapter(OutputSpec).json_schema()
    grouping = pydantic.TypeAdapter(Grouping).json_schema()
    grouping["properties"]["by"]["anyOf"] = [
        {"enum": ["auto", "folder"]},
        {"type": "integer", "minimum": 2},
        {"type": "string", "pattern": "^0*([2-9]|[1-9][0-9]+)$"},
    ]
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
                    "group": grouping,
                    "headerless": pydantic.TypeAdapter(Headerless).json_schema(),
                    "exposures": {"type": "array", "items": {"type": "number"}, "minItems": 2},
                },
            },
            "stages": {"type": "array", "items": {"anyOf": choices}},
            "output": {"anyOf": [output, {"type": "array", "items": output}]},
            "preview": {
                "type": "object",
                "description": "What previews do otherwise, by step: skip, or parameters",
                "additionalProperties": {"anyOf": [{"const": "skip"}, {"type": "object"}]},
            },
        },
        "$defs": definitions,
    }


def describe(stage: type[Stage]) -> Iterator[dict[str, Any]]:
    """The parameters of a stage as rows: name, type, default or that it is needed, range, unit, doc.

    ``exclusive`` tells that a value must lie above ``minimum`` and may not be it.
    """
    schema = pydantic.TypeAdapter(stage).json_schema()
    for name, item in schema.get("properties", {}).items():
        options = item.get("anyOf", [item])
        kinds = [option.get("type", "") for option in options]
        limits = {key: value for option in options for key, value in option.items()}
        yield {
            "name": name,
            "type": " or ".join(kind for kind in kinds if kind) or "choice",
            "choices": limits.get("enum", []),
            "default": item.get("default"),
            "needed": name in schema.get("required", ()),
            "minimum": limits.get("minimum", limits.get("exclusiveMinimum")),
            "exclusive": "exclusiveMinimum" in limits,
            "maximum": limits.get("maximum"),
            "unit": item.get("unit", ""),
            "doc": item.get("description", ""),
        }
