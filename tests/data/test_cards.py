"""Every shipped card is whole, its layout is told from all others, and patterns mean what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from restorekit.data import cards
from restorekit.data.card import DatasetCard, Split, read_card
from restorekit.data.layout import recognise, sort
from restorekit.data.pattern import Pattern
from restorekit.errors import InputError

IDS = tuple(cards.files())
BENCHMARKS = (
    "set5", "set14", "bsds300", "bsd100", "cbsd68", "urban100", "manga109", "kodak24", "mcmaster", "classic5", "live1",
)  # fmt: skip
CARD = "name: Own\nsummary: mine\ntasks: [denoising]\nlicence: mine\ncommercial: 'yes'\nurl: https://example.org\n"


def example(pattern: str, value: str) -> str:
    """A path that a pattern matches."""
    for name in Pattern(pattern).names:
        pattern = pattern.replace(f"{{{name}}}", f"{value}{name[0]}")
    return pattern.replace("*.*", "1.png").replace(".*", ".png").replace("*", "7")


def laid_out(card: DatasetCard, root: Path, count: int = 3) -> list[Path]:
    """Paths as the card lays them out; nothing lies there."""
    texts = dict.fromkeys(text for split in card.layout for text in (split.targets, split.inputs) if text)
    return [root / example(text, f"{number}") for text in texts for number in range(count)]


@pytest.mark.parametrize("id", IDS)
def test_a_card_adds_up(id: str) -> None:
    card = cards.card(id)
    assert card.url.startswith("http")
    assert card.pictures is None or card.pictures > 0
    for split in card.layout:
        assert None in (split.pictures, card.pictures) or split.pictures <= card.pictures  # type: ignore[operator]
        assert split.inputs is not None or split.input_pictures is None
        assert split.pictures is not None or split.input_pictures is None
    assert sum(source.pictures for source in card.sources) in (0, card.pictures)
    assert all(len(source.stems) in (0, source.pictures) for source in card.sources)


def test_cards_of_the_field_are_there() -> None:
    assert len(IDS) >= 45
    assert [id for id in BENCHMARKS if not cards.card(id).benchmark] == []
    assert not cards.card("restorekit-photos").benchmark


@pytest.mark.parametrize("id", [id for id in IDS if cards.card(id).layout])
def test_a_layout_is_recognised_wherever_it_lies(id: str) -> None:
    card = cards.card(id)
    paths = laid_out(card, Path("/somewhere/else"))
    found = recognise(paths)
    assert found is not None and found.id == id
    parts = [sort(split, paths) for split in card.layout]
    assert {path for part in parts for path in part.files} == set(paths)
    for part in parts:
        assert not part.lonely_inputs
        assert bool(part.pairs) == (part.split.targets is not None and part.split.inputs is not None)


def test_pictures_of_ones_own_are_no_known_set() -> None:
    assert recognise([Path(f"/home/me/pictures/{n}.png") for n in range(5)]) is None
    some = laid_out(cards.card("lol"), Path("/data"))
    assert recognise(some + [Path(f"/data/{n}.png") for n in range(2 * len(some))]) is None


@pytest.mark.parametrize(
    ("pattern", "path", "found"),
    [
        ("HR/{stem}.png", "/a/b/HR/01.png", ("/a/b", {"stem": "01"})),
        ("HR/{stem}.png", "hr/01.PNG", ("", {"stem": "01"})),
        ("HR/{stem}.png", "/a/HR/b/01.png", None),
        ("{stem}x2.png", "/a/0001x2.png", ("/a", {"stem": "0001"})),
        ("{stem}_*.jpg", "/a/9_1_14.jpg", ("/a", {"stem": "9_1"})),
        ("{a}/{a}.png", "/x/y/y.png", ("/x", {"a": "y"})),
        ("{a}/{a}.png", "/x/y/z.png", None),
        ("a.b/{stem}.png", "/aXb/c.png", None),
    ],
)
def test_patterns_match_the_end_of_a_path(pattern: str, path: str, found: tuple[str, dict[str, str]] | None) -> None:
    assert Pattern(pattern).at_end(path) == found


def test_inputs_go_with_the_target_of_their_own_folder() -> None:
    split = Split(name="x", role="train", targets="gt/{n}.png", inputs="in/{n}_*.png")
    paths = [Path(f"/{top}/{name}") for top in "ab" for name in ("gt/1.png", "in/1_1.png", "in/1_2.png", "in/2_1.png")]
    part = sort(split, paths)
    assert part.pairs == [(Path(f"/{top}/in/1_{n}.png"), Path(f"/{top}/gt/1.png")) for top in "ab" for n in (1, 2)]
    assert part.lonely_inputs == [Path("/a/in/2_1.png"), Path("/b/in/2_1.png")]
    assert not part.lonely_targets


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a list", "is no dataset card"),
        ("name: [", "cannot be read"),
        (CARD + "colour: red\n", "colour: Extra inputs"),
        (CARD.replace("yes", "perhaps"), "commercial: Input should be"),
        (CARD + "layout: [{name: a, role: train}]\n", "neither targets nor inputs"),
        (CARD + "layout: [{name: a, role: train, targets: 'g/{b}', inputs: 'i/{c}'}]\n", "do not tell all"),
    ],
)
def test_broken_cards_say_so_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_card(path)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_cards_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESTOREKIT_HOME", str(tmp_path))
    folder = tmp_path / "datasets"
    folder.mkdir()
    for id in ("own", "div2k"):
        (folder / f"{id}.yaml").write_text(CARD)
    assert cards.card("own").name == "Own"
    assert cards.card("div2k").name == "DIV2K", "cards of restorekit win"
    with pytest.raises(InputError, match="did you mean 'own'"):
        cards.card("owm")
    (folder / "other.yaml").write_text(CARD + "id: own\n")
    with pytest.raises(InputError, match="must be equal"):
        cards.card("other")


def test_own_corpus_is_what_is_told(shared_data: Path) -> None:
    photos = shared_data / "photos"
    if not photos.is_dir():
        pytest.skip("without the photographs")
    parts = [sort(split, sorted(photos.rglob("*.*"))) for split in cards.card("restorekit-photos").layout]
    assert [len(part.targets) for part in parts] == [part.split.pictures for part in parts]
    names = {path.relative_to(photos).as_posix() for part in parts for path in part.files}
    for source in cards.card("restorekit-photos").sources:
        assert {source.name.format(stem=stem) for stem in source.stems} <= names
