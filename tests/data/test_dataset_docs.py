"""``docs/datasets.md`` shows every dataset card as it is.

The table is compared with the cards. After a change of cards, ``RESTOREKIT_UPDATE_DOCS=1 pytest
tests/data/test_dataset_docs.py`` writes it anew, and the change is read before it is committed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from restorekit import bundled
from restorekit.data.card import DatasetCard, read_card

BEGIN, END = "<!-- datasets: begin -->", "<!-- datasets: end -->"
HEAD = ("id", "what", "tasks", "pictures", "licence", "products")


def markdown_table(cards: Iterable[DatasetCard]) -> str:
    """A row a card; benchmarks are marked."""
    rows = [HEAD, ("---",) * len(HEAD)]
    rows += [
        (
            f"[`{card.id}`]({card.url})",
            f"**benchmark** {card.summary}" if card.benchmark else card.summary,
            ", ".join(card.tasks),
            "" if card.pictures is None else f"{card.pictures:,}",
            card.licence,
            card.commercial,
        )
        for card in cards
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def test_the_table_shows_the_cards(checkout: Path) -> None:
    page = checkout / "docs" / "datasets.md"
    if not page.is_file():
        pytest.skip("this test reads the source tree")
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    shown, _, after = rest.partition(END)
    assert after, f"{page} marks the table with {BEGIN} and {END}"
    cards = [read_card(path) for path in sorted(bundled.folder("datasets").glob("*.yaml"))]
    expected = f"\n{markdown_table(cards)}"
    if os.environ.get("RESTOREKIT_UPDATE_DOCS"):
        page.write_text(f"{before}{BEGIN}{expected}{END}{after}", encoding="utf-8")
        return
    assert shown == expected, "the cards were changed; RESTOREKIT_UPDATE_DOCS=1 pytest writes the table anew"
