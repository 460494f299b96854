"""Mistakes in the syntax of YAML files, in words of a person who writes them: the parser's own are of its inside."""

from __future__ import annotations

import re

import yaml

from restorekit.errors import Problem

ENDS = {"{": "}", "[": "]"}


def syntax_problem(text: str, error: yaml.YAMLError) -> Problem:
    """What is wrong with YAML text, where it is mended, and how."""
    if isinstance(error, yaml.reader.ReaderError):
        before = text[: error.position]
        said = f"the character {error.character:#x} cannot stand in YAML; take it out"
        return Problem(f"not valid YAML: {said}", before.count("\n") + 1, len(before) - before.rfind("\n"))
    if not isinstance(error, yaml.MarkedYAMLError):
        return Problem(f"not valid YAML: {' '.join(str(error).split())}")
    here = error.problem_mark or error.context_mark
    opened = error.context_mark or here
    said, mark = _said(error, here, opened)
    return Problem(f"not valid YAML: {said}", *((mark.line + 1, mark.column + 1) if mark else (1, 1)))


def _said(
    error: yaml.MarkedYAMLError, here: yaml.Mark | None, opened: yaml.Mark | None
) -> tuple[str, yaml.Mark | None]:
    """The words, and the mark of the place: where the parser stopped, or where what is not closed began."""
    context, problem = error.context or "", error.problem or ""
    if context in ("while parsing a flow mapping", "while parsing a flow sequence"):
        bracket = "{" if context.endswith("mapping") else "["
        return f"this {bracket} has no {ENDS[bracket]}, or a comma is missing between its entries", opened
    if context == "while scanning a quoted scalar":
        return "this quote has no end; write it twice where it is part of the text", opened
    if context == "while scanning a simple key":
        return "a colon is missing; write KEY: VALUE", opened
    if problem == "mapping values are not allowed here":
        return (
            "this colon cannot stand here; put text with a colon into quotes, or mend the line above if it lacks one",
            here,
        )
    if problem.startswith("expected <block end>") and "<scalar>" not in problem:
        return "this does not begin in the column of the entries above it; align them", here
    if "'\\t'" in problem:
        return "a tab cannot stand here; indent by spaces", here
    if found := re.fullmatch(r"found character '(.)' that cannot start any token", problem):
        return f"no value begins with {found[1]}; put text into quotes", here
    return f"{problem}; look at the quotes, colons and indentation of this line", here


def text_problem(data: bytes, error: UnicodeDecodeError) -> Problem:
    """What is wrong with a file that is no text in UTF-8, and where."""
    if b"\0" in data:
        return Problem("this is no text; a pipeline is a YAML file, in UTF-8")
    line, column = data[: error.start].count(b"\n") + 1, error.start - data.rfind(b"\n", 0, error.start)
    return Problem(f"the byte {data[error.start]:#x} is no UTF-8; save the file in UTF-8", line, column)
