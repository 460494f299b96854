"""What can go wrong, as one-line messages that name the thing and the cure."""

from __future__ import annotations

from dataclasses import dataclass

FOREIGN = "update or remove the package that brings it"
"""The cure for a stage or network of another package that cannot be used."""


def installing(extra: str) -> str:
    """The command that brings an extra to the restorekit that is installed, from a checkout or not."""
    return f"pip install 'restorekit[{extra}]'"


class RestorekitError(Exception):
    """Base of every error that is the input's or the caller's fault, not a bug.

    The text is one line for a person to read: what is wrong, with which file or stage,
    and what to do about it.
    """


def first_mistake(error: Exception) -> str:
    """The first thing that pydantic finds wrong, as ``place: what``; the text of other errors."""
    found = getattr(error, "errors", None)
    if not callable(found):
        return " ".join(str(error).split())
    first = found()[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else str(first["msg"])


class InputError(RestorekitError):
    """A file, folder or array that cannot be used as it is."""


class OutputError(RestorekitError):
    """A result that cannot be written: wrong format for its state, full disk, no permission."""


class ModelError(RestorekitError):
    """A model that cannot be used: unknown, without weights, or weights that do not fit."""


class StageError(RestorekitError):
    """A stage that was given a frame it cannot work on."""


class ParameterError(StageError):
    """Parameters that a stage or an output does not take; ``mistakes`` are all of them, one line each."""

    def __init__(self, name: str, mistakes: tuple[str, ...]) -> None:
        self.mistakes = mistakes
        super().__init__(f"{name}: {'; '.join(mistakes)}")


@dataclass(frozen=True)
class Problem:
    """One mistake in a pipeline. ``line`` and ``column`` count from 1; both are 0 where it has no place in a file."""

    message: str
    line: int = 1
    column: int = 1


class PipelineError(RestorekitError):
    """A pipeline that cannot run, with every problem found in it.

    ``str()`` gives one ``file:line:col: message`` line a problem, without the place where there is none.
    """

    def __init__(self, source: str, problems: tuple[Problem, ...]) -> None:
        self.source = source
        self.problems = problems
        places = (f":{p.line}:{p.column}" if p.line else "" for p in problems)
        super().__init__("\n".join(f"{source}{place}: {p.message}" for place, p in zip(places, problems, strict=True)))


class Cancelled(RestorekitError):
    """The caller asked a running pipeline to stop."""
