"""The name that was meant, in any case and without its family."""

from __future__ import annotations

import pytest

from restorekit.names import did_you_mean

KNOWN = ("geometry.resize", "tone.exposure", "hat.x2", "hat.x4", "craft.x4")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("geometry.resiz", "geometry.resize"),
        ("Tone.Exposure", "tone.exposure"),
        ("resize", "geometry.resize"),
        ("resiez", "geometry.resize"),
        ("hat.x3", "hat.x4"),
    ],
)
def test_the_closest_name_is_offered(typed: str, meant: str) -> None:
    assert did_you_mean(typed, iter(KNOWN)) == f"; did you mean '{meant}'?"


@pytest.mark.parametrize("typed", ["", "x4", "sharpen"])
def test_nothing_is_guessed_where_nothing_or_much_is_close(typed: str) -> None:
    assert did_you_mean(typed, KNOWN) == ""
