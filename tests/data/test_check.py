"""What is wrong with a folder of pictures is found, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restorekit.data.card import DatasetCard, Split
from restorekit.data.check import Report, check
from restorekit.errors import InputError

PAIRS = Split(name="pairs", role="train", targets="gt/{n}.png", inputs="in/{n}.png", pictures=3, scale=2)
OTHERS = Split(name="others", role="test", targets="test/{n}.png")
CARD = DatasetCard(
    id="small",
    name="Small",
    summary="",
    tasks=("denoising",),
    licence="",
    commercial="no",
    url="",
    layout=(PAIRS, OTHERS),
)


def picture(path: Path, width: int, height: int, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """Three pairs, targets twice as large."""
    for number in range(3):
        picture(tmp_path / "gt" / f"{number}.png", 16, 12, number)
        picture(tmp_path / "in" / f"{number}.png", 8, 6, 10 + number)
    return tmp_path


def said(report: Report) -> list[str]:
    """The problems, with paths below the folder."""
    return [str(problem).replace(f"{report.folder}/", "") for problem in report.problems]


def test_a_whole_set_has_no_problems(whole: Path) -> None:
    report = check(whole, CARD)
    assert said(report) == []
    assert (report.pictures, report.others, report.card) == (6, 0, "small")
    assert (report.smallest, report.largest) == ((8, 6), (16, 12))
    assert [(part.name, part.targets, part.inputs) for part in report.parts] == [("pairs", 3, 3)]


def test_every_problem_is_named(whole: Path) -> None:
    picture(whole / "in" / "2.png", 8, 7, 12)
    picture(whole / "in" / "9.png", 8, 6, 19)
    (whole / "gt" / "1.png").write_bytes((whole / "gt" / "1.png").read_bytes()[:200])
    (whole / "in" / "0.png").unlink()
    (whole / "test").mkdir()
    (whole / "test" / "5.png").write_bytes((whole / "gt" / "0.png").read_bytes())
    found = said(check(whole, CARD))
    assert len(found) == 5
    assert found[0].startswith("gt/1.png: ")
    assert found[1:] == [
        "in/9.png: has no target",
        "gt/0.png: has no input",
        "in/2.png: is 8x7 px, its target gt/2.png is 16x12 and not of 2 times the size",
        "test/5.png: is the same file as gt/0.png, which is for train",
    ]


def test_names_alone_are_quick(whole: Path) -> None:
    (whole / "gt" / "1.png").write_bytes(b"no picture")
    picture(whole / "in" / "2.png", 8, 7, 12)
    (whole / "in" / "0.png").unlink()
    report = check(whole, CARD, quick=True)
    assert said(report) == ["gt/0.png: has no input", f"{whole}: holds 2 pictures in/{{n}}.png, the card tells 3"]
    assert report.smallest is None


def test_parts_that_were_not_downloaded_are_no_problem(whole: Path) -> None:
    for path in (whole / "in").iterdir():
        path.unlink()
    assert said(check(whole, CARD)) == []


def test_repeated_targets_are_told_by_the_card(whole: Path) -> None:
    (whole / "gt" / "2.png").write_bytes((whole / "gt" / "1.png").read_bytes())
    assert said(check(whole, CARD)) == ["gt/2.png: is the same file as gt/1.png"]
    again = CARD.model_copy(update={"layout": (PAIRS.model_copy(update={"repeats": True}),)})
    assert said(check(whole, again)) == []


def test_targets_of_one_name(whole: Path) -> None:
    loose = CARD.model_copy(
        update={"layout": (Split(name="pairs", role="train", targets="gt/{n}.*", inputs="in/{n}.png"),)}
    )
    picture(whole / "gt" / "1.tif", 16, 12, 30)
    assert said(check(whole, loose)) == ["gt/1.tif: is called like another target"]


@pytest.mark.parametrize("quick", [True, False])
def test_two_folders_of_ones_own_are_pairs(whole: Path, quick: bool) -> None:
    report = check(whole, quick=quick)
    assert report.card is None
    assert [(part.targets, part.inputs) for part in report.parts] == [(3, 3)]
    assert said(report) == []
    (whole / "gt" / "2.png").rename(whole / "gt" / "7.png")
    picture(whole / "in" / "1.png", 8, 5, 40)
    wrong = [] if quick else ["in/1.png: is 8x5 px, its target gt/1.png is 16x12 and not of 2 times the size"]
    assert set(said(check(whole, quick=quick))) >= set(wrong)
    assert sum("has no" in text for text in said(check(whole, quick=quick))) == 2


def test_pictures_of_ones_own_are_only_read(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "1.png", 4, 4, 1)
    picture(tmp_path / "b" / "2.png", 6, 4, 2)
    picture(tmp_path / "b" / "3.png", 9, 4, 3)
    report = check(tmp_path)
    assert (report.card, report.parts, said(report)) == (None, (), [])
    assert (report.pictures, report.smallest, report.largest) == (3, (4, 4), (9, 4))


def test_progress_ends_with_all(whole: Path) -> None:
    told: list[tuple[int, int]] = []
    check(whole, CARD, progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 6) for done in range(1, 7)]


def test_another_layout_than_the_one_asked_for(tmp_path: Path) -> None:
    picture(tmp_path / "1.png", 4, 4, 1)
    with pytest.raises(InputError, match="no file of the layout of small"):
        check(tmp_path, CARD)
    with pytest.raises(InputError, match="is no folder"):
        check(tmp_path / "nowhere", CARD)


def test_benchmarks_at_hand_are_recognised(shared_data: Path) -> None:
    folder = shared_data / "bench" / "kodak24"
    if not folder.is_dir():
        pytest.skip("without Kodak24")
    report = check(folder, quick=True)
    assert (report.card, [(part.targets, part.pictures) for part in report.parts]) == ("kodak24", [(24, 24)])
    assert said(report) == []
