"""``restorekit datasets``: cards are listed and shown, and a folder's problems decide the exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restorekit.cli import main
from restorekit.data import cards


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs ``restorekit datasets`` in this process."""

    def run(*arguments: object) -> Done:
        capfd.readouterr()
        monkeypatch.setattr("sys.argv", ["restorekit", "datasets", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        said = capfd.readouterr()
        assert isinstance(end.value.code, int | None)
        return Done(end.value.code or 0, said.out, said.err)

    return run


@pytest.fixture
def lol(tmp_path: Path) -> Path:
    """One pair of LOL's test part, and an input without its target."""
    for seed, name in enumerate(("high/1", "low/1", "low/2")):
        path = tmp_path / "eval15" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return tmp_path


def test_list(run: Run) -> None:
    done = run("list")
    assert done.code == 0
    head, *lines = done.out.splitlines()
    assert head.split() == ["id", "tasks", "pictures", "licence", "products"]
    assert [line.split()[0] for line in lines] == list(cards.files())
    found = {row["id"]: row for row in json.loads(run("list", "--json").out)}
    assert found["div2k"]["commercial"] == "no" and found["set5"]["benchmark"] is True
    assert all(row["licence"] in line for row, line in zip(found.values(), lines, strict=True))


def test_a_broken_card_of_the_user_spoils_no_list(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESTOREKIT_HOME", str(tmp_path))
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "own.yaml").write_text("name: Own\n")
    done = run("list")
    assert done.code == 0 and "own.yaml" in done.err and "div2k" in done.out


def test_show(run: Run) -> None:
    done = run("show", "div2k")
    card = cards.card("div2k")
    assert done.code == 0
    for text in (card.name, card.terms, card.url, card.layout[0].targets, card.archives[0].sha256, card.notes[0]):
        assert str(text) in done.out
    shown = json.loads(run("show", "div2k", "--json").out)
    assert shown == card.model_dump(mode="json")


def test_show_of_the_own_corpus_tells_how_it_is_made(run: Run) -> None:
    out = run("show", "restorekit-photos").out
    assert "apt-get download" in out and "CC BY-SA 4.0" in out


def test_an_unknown_set_is_refused(run: Run) -> None:
    done = run("show", "div2l")
    assert (done.code, done.out) == (2, "")
    assert "did you mean 'div2k'" in done.err


def test_problems_decide_the_exit_code(run: Run, lol: Path) -> None:
    done = run("check", lol)
    assert done.code == 1
    lines = done.out.splitlines()
    assert lines[0] == f"{lol}: 3 pictures, the layout of lol"
    assert lines[1:3] == ["  eval15 (test): 1 targets of 15, 2 inputs of 15", "  sizes: 6x4 px"]
    assert lines[3] == f"{lol / 'eval15' / 'low' / '2.png'}: has no target"
    shown = json.loads(run("check", lol, "--json").out)
    assert (shown["card"], shown["pictures"]) == ("lol", 3)
    assert shown["problems"][0] == {"path": str(lol / "eval15" / "low" / "2.png"), "text": "has no target"}


def test_own_pictures_without_problems(run: Run, lol: Path) -> None:
    done = run("check", lol / "eval15" / "high" / "..", "--quick", "--as", "lol-v2")
    assert done.code == 2 and "no file of the layout of lol-v2" in done.err
    (lol / "eval15" / "low" / "2.png").unlink()
    (lol / "eval15").rename(lol / "mine")
    done = run("check", lol / "mine")
    assert done.code == 0
    assert "not the layout of a known set" in done.out and done.out.endswith("no problems\n")
