"""``docs/models.md`` shows every model card as it is, and ``docs/evaluation.md`` what was measured with them.

The tables are compared with the cards. After a change of cards, ``RESTOREKIT_UPDATE_DOCS=1 pytest
tests/zoo/test_model_docs.py`` writes them anew, and the change is read before it is committed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from restorekit import bundled
from restorekit.zoo.card import ModelCard, read_card

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


def measured_table(cards: Iterable[ModelCard]) -> str:
    """A row for every number that was measured with restorekit."""
    rows = [("id", "set", "input", "PSNR, dB", "SSIM", "LPIPS"), ("---", "---", "---", "---:", "---:", "---:")]
    for card in cards:
        for score in card.measured:
            given = score.setting or f"1/{card.scale}"
            numbers = [(score.psnr, 2), (score.ssim, 4), (score.lpips, 4)]
            cells = ["" if value is None else f"{value:.{decimals}f}" for value, decimals in numbers]
            rows.append((f"`{card.id}`", score.set, given, cells[0], cells[1], cells[2]))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


@pytest.mark.parametrize(
    ("page", "name", "table"),
    [("models.md", "models", markdown_table), ("evaluation.md", "measured", measured_table)],
    ids=["models", "measured"],
)
def test_the_table_shows_the_cards(
    checkout: Path, page: str, name: str, table: Callable[[Iterable[ModelCard]], str]
) -> None:
    file = checkout / "docs" / page
    if not file.is_file():
        pytest.skip("this test reads the source tree")
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, _, rest = file.read_text(encoding="utf-8").partition(begin)
    shown, _, after = rest.partition(end)
    assert after, f"{file} marks the table with {begin} and {end}"
    cards = [read_card(path) for path in bundled.cards(bundled.folder("models")).values()]
    expected = f"\n{table(cards)}"
    if os.environ.get("RESTOREKIT_UPDATE_DOCS"):
        file.write_text(f"{before}{begin}{expected}{end}{after}", encoding="utf-8")
        return
    assert shown == expected, "the cards were changed; RESTOREKIT_UPDATE_DOCS=1 pytest writes the table anew"
