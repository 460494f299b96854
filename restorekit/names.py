"""Names that a person typed, and the known one that was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the closest known name, or nothing.

    Case does not count. Where nothing is close, ``resize`` means ``geometry.resize`` if no other name ends like that.
    """
    names = list(known)
    ends = [each.lower().rpartition(".")[2] for each in names]
    whole = {each.lower(): each for each in names}
    short = {end: each for end, each in zip(ends, names, strict=True) if ends.count(end) == 1}
    for forms in (whole, short):
        if close := difflib.get_close_matches(name.lower(), forms, n=1, cutoff=0.6):
            return f"; did you mean '{forms[close[0]]}'?"
    return ""
