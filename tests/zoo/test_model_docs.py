"""``docs/models.md`` shows every model card as it is.

The table is compared with the cards. After a change of cards, ``RESTOREKIT_UPDATE_DOCS=1 pytest
tests/zoo/test_model_docs.py`` writes it anew, and the change is read before it is committed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from restorekit import bundled
from restorekit.zoo.card import ModelCard, read_card

BEGIN, END = "<!-- models: begin -->", "<!-- models: end -->"
HEAD = ("id", "what", "scale", "licence of the weights", "weights", "Set5", "Urban100")


def markdown_table(cards: Iterable[ModelCard]) -> str:
    """A row a card: what it is, how its weights are had, and PSNR in dB as published."""
    rows = [HEAD, ("---",) * len(HEAD)]
    rows += [
        (
            f"`{card.id}`",
            card.summary.removesuffix(f", x{card.scale}"),
            str(card.scale),
            card.weights.licence if card.weights else "",
            _weights(card),
            _published(card, "Set5"),
            _published(card, "Urban100"),
        )
        for card in cards
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _weights(card: ModelCard) -> str:
    if card.weights is None:
        return "none"
    return "download" if card.weights.url else f"[by hand]({card.weights.page})" if card.weights.page else "included"


def _published(card: ModelCard, test_set: str) -> str:
    found = [score.psnr for score in card.published if score.set == test_set and score.psnr is not None]
    return f"{found[0]:.2f}" if found else ""


def test_the_table_shows_the_cards(checkout: Path) -> None:
    page = checkout / "docs" / "models.md"
    if not page.is_file():
        pytest.skip("this test reads the source tree")
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    shown, _, after = rest.partition(END)
    assert after, f"{page} marks the table with {BEGIN} and {END}"
    cards = [read_card(path) for path in sorted(bundled.folder("models").glob("*.yaml"))]
    expected = f"\n{markdown_table(cards)}"
    if os.environ.get("RESTOREKIT_UPDATE_DOCS"):
        page.write_text(f"{before}{BEGIN}{expected}{END}{after}", encoding="utf-8")
        return
    assert shown == expected, "the cards were changed; RESTOREKIT_UPDATE_DOCS=1 pytest writes the table anew"
