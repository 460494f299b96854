"""What can run stands first in the lists of the page, and what is missing is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from restorekit.web import catalogue, words
from restorekit.zoo import store
from restorekit.zoo.cards import ModelCard


def test_pipelines_without_their_model_come_last_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def weights_path(card: ModelCard) -> Path | None:
        return None if card.id == "drunet.jpeg" else Path("weights")

    monkeypatch.setattr(store, "weights_path", weights_path)
    *_, last = catalogue.offers().values()
    assert last.name == "repair-jpeg" and last.label.endswith("(model not installed)")
    assert [offer.name for offer in catalogue.offers().values() if offer.lacks] == ["repair-jpeg"]
    assert words.offer(last).count("is not installed on this server") == 1


def test_installed_models_come_first() -> None:
    column = list(catalogue.MODEL_COLUMNS).index("weights")
    missing = [row[column] != "installed" for row in catalogue.model_rows()]
    assert missing == sorted(missing)
