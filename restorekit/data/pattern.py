"""Patterns of file names, by which inputs find their targets: ``X2/{stem}x2.png`` belongs to ``HR/{stem}.png``."""

from __future__ import annotations

import re
from functools import cached_property

_PART = re.compile(r"\{(\w+)\}|(\*)")


class Pattern:
    """A path with ``/`` in which ``{name}`` stands for a text that other patterns share, and ``*`` for any text.

    Neither reaches over a ``/``, unless ``nested``. Upper and lower case are the same.
    """

    def __init__(self, text: str, *, nested: bool = False) -> None:
        self.text = text
        self._nested = nested

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names in braces, each once, in their order."""
        return tuple(dict.fromkeys(found[1] for found in _PART.finditer(self.text) if found[1]))

    @cached_property
    def literal(self) -> int:
        """How many characters are written out; the more, the less does it match by chance."""
        return len(_PART.sub("", self.text))

    def match(self, path: str) -> dict[str, str] | None:
        """What the names stand for in a path; ``None`` for paths of another form."""
        found = self._regex.fullmatch(path)
        return found and found.groupdict()

    def at_end(self, path: str) -> tuple[str, dict[str, str]] | None:
        """The same where the last folders of a path match: what stands before these, and what the names stand for."""
        parts = path.split("/")
        start = len(parts) - 1 - self.text.count("/")
        if start < 0 or (found := self.match("/".join(parts[start:]))) is None:
            return None
        return "/".join(parts[:start]), found

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        some, any_text = (".+", ".*") if self._nested else ("[^/]+", "[^/]*")
        regex, seen, end = "", set(), 0
        for found in _PART.finditer(self.text):
            regex += re.escape(self.text[end : found.start()])
            end, name = found.end(), found[1]
            regex += any_text if name is None else f"(?P={name})" if name in seen else f"(?P<{name}>{some})"
            seen.add(name)
        return re.compile(regex + re.escape(self.text[end:]), re.IGNORECASE)

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"
