"""Files of visitors: taken, decoded apart, never mixed, and gone when the visitor is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from restorekit.cli import app
from restorekit.errors import InputError, RestorekitError
from restorekit.web.drafts import empty, shipped
from restorekit.web.runs import run
from restorekit.web.sessions import Result, Session, Sessions
from restorekit.web.settings import Settings


@pytest.fixture
def sessions(tmp_path: Path) -> Iterator[Sessions]:
    made = Sessions(tmp_path / "root", Settings(device="cpu", upload_mb=2, megapixels=1))
    yield made
    made.close_all()


def sent(sessions: Sessions, path: Path) -> Path:
    """A file as a browser's upload leaves it."""
    target = sessions.root / f"upload-{path.stem}" / path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(path.read_bytes())
    return target


def finished(session: Session, sessions: Sessions) -> Result:
    last = list(run(session, sessions))[-1]
    assert isinstance(last, Result)
    return last


def test_result_is_bit_for_bit_that_of_the_command_line(
    sessions: Sessions, photo: Callable[..., Path], tmp_path: Path
) -> None:
    original = photo("a.jpg")
    session = sessions.of("one")
    sessions.take(session, [sent(sessions, original)])
    session.draft = replace(shipped("photo-enhance").set(2, "contrast", 0.5), wanted="PNG, 16 bit")
    (made,) = finished(session, sessions).files
    (tmp_path / "mine.yaml").write_text(session.draft.text)
    done = CliRunner().invoke(
        app, ["run", str(tmp_path / "mine.yaml"), str(original.parent), str(tmp_path / "out"), "--device", "cpu"]
    )
    assert done.exit_code == 0, done.output
    assert made.name == "a-photo-enhance.png"
    assert made.read_bytes() == (tmp_path / "out" / "a.png").read_bytes()


def test_upload_is_moved_and_everything_is_gone_afterwards(sessions: Sessions, photo: Callable[..., Path]) -> None:
    upload = sent(sessions, photo("a.jpg"))
    session = sessions.of("one")
    sessions.take(session, [upload])
    assert not upload.exists() and not upload.parent.exists()
    finished(session, sessions)
    assert session.folder.is_dir()
    sessions.close("one")
    assert not session.folder.exists()
    sessions.close_all()
    assert not sessions.root.exists()


def test_a_new_file_replaces_the_old_ones(sessions: Sessions, photo: Callable[..., Path]) -> None:
    session = sessions.of("one")
    first = sessions.take(session, [sent(sessions, photo("a.jpg"))])
    made = finished(session, sessions)
    session.keep(made)
    second = sessions.take(session, [sent(sessions, photo("b.jpg", seed=2))])
    assert not first.folder.exists() and second.folder.is_dir()
    assert not np.array_equal(first.before, second.before)


def test_only_what_was_sent_is_taken(sessions: Sessions, photo: Callable[..., Path]) -> None:
    """Neither files of the server, nor those of other visitors, whatever a browser claims to have sent."""
    other = sessions.take(sessions.of("other"), [sent(sessions, photo("a.jpg"))])
    outside = photo("b.jpg")
    for path in (other.files[0], outside, sessions.root / ".." / "photos" / "b.jpg"):
        with pytest.raises(InputError, match="was not sent by this page"):
            sessions.take(sessions.of("one"), [path])
        assert path.exists()


def test_a_broken_file_says_what_the_command_line_says(
    sessions: Sessions, photo: Callable[..., Path], tmp_path: Path
) -> None:
    good = photo("good.jpg")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(good.read_bytes()[:900])
    session = sessions.of("one")
    kept = sessions.take(session, [sent(sessions, good)])
    with pytest.raises(InputError) as refused:
        sessions.take(session, [sent(sessions, broken)])
    done = CliRunner().invoke(app, ["run", "photo-enhance", str(broken), str(tmp_path / "out")])
    line = next(line for line in done.output.splitlines() if line.startswith("failed"))
    assert line.removeprefix("failed  ").replace(f"{tmp_path}/", "") == str(refused.value)
    assert session.source is kept
    assert finished(session, sessions).files


def test_limits(sessions: Sessions, photo: Callable[..., Path], tmp_path: Path) -> None:
    session = sessions.of("one")
    with pytest.raises(InputError, match=r"^large.jpg: is 1500x1000, 2 megapixels, the limit is 1"):
        sessions.take(session, [sent(sessions, photo("large.jpg", width=1500, height=1000))])
    heavy = tmp_path / "heavy.jpg"
    heavy.write_bytes(b"\xff" * (2 * 1024 * 1024 + 1))
    with pytest.raises(InputError, match=r"^heavy.jpg: is larger than 2 MB"):
        sessions.take(session, [sent(sessions, heavy)])
    many = [sent(sessions, photo(f"{number}.jpg")) for number in range(17)]
    with pytest.raises(InputError, match="17 files are too many; send at most 16"):
        sessions.take(session, many)


def test_no_more_visitors_are_kept_than_allowed(tmp_path: Path) -> None:
    few = Sessions(tmp_path / "few", Settings(visitors=2))
    first, *_, last = [few.of(key).folder for key in "abcd"]
    assert not first.exists() and last.exists()
    few.close_all()


def test_what_is_stopped_writes_nothing(sessions: Sessions, photo: Callable[..., Path]) -> None:
    session = sessions.of("one")
    sessions.take(session, [sent(sessions, photo("a.jpg"))])
    session.stop.set()
    with pytest.raises(RestorekitError, match="stopped before it was finished"):
        finished(session, sessions)
    assert not [path for path in session.folder.rglob("*") if path.suffix in (".jpg", ".part") and "out" in str(path)]
    session.stop.clear()
    assert finished(session, sessions).files


def test_pictures_are_not_made_larger_than_the_server_bears(sessions: Sessions, photo: Callable[..., Path]) -> None:
    session = sessions.of("one")
    sessions.take(session, [sent(sessions, photo("a.jpg", width=900, height=600))])
    session.draft = empty("display-linear").added("geometry.resize", 0).added("color.encode", 1).set(0, "scale", 3.0)
    with pytest.raises(RestorekitError, match="would become 2700x1800, 5 megapixels, this server makes at most 4"):
        finished(session, sessions)
    session.draft = session.draft.set(0, "scale", 1.5)
    assert finished(session, sessions).after.shape == (900, 1350, 3)


def test_several_pictures_one_by_one_show_the_same_one_before_and_after(
    sessions: Sessions, photo: Callable[..., Path]
) -> None:
    session = sessions.of("one")
    source = sessions.take(session, [sent(sessions, photo(f"{seed}.jpg", seed)) for seed in (1, 2, 3)])
    session.draft = replace(shipped("photo-resize"), together=True)
    made = finished(session, sessions)
    assert sorted(path.name for path in made.files) == [f"{seed}-photo-resize.jpg" for seed in (1, 2, 3)]
    assert made.shown.name == f"{source.looked_at.stem}-photo-resize.jpg"
    assert np.abs(made.before.astype(int) - made.after).mean() < 3


def test_a_bracket_is_called_for_its_first_file(sessions: Sessions, photo: Callable[..., Path]) -> None:
    session = sessions.of("one")
    sessions.take(session, [sent(sessions, photo(f"{seed}{{}}.jpg", seed)) for seed in (1, 2, 3)])
    session.draft = replace(shipped("bracket-fusion"), together=True)
    assert [path.name for path in finished(session, sessions).files] == ["1{}-bracket-fusion.jpg"]


def test_one_picture_is_no_bracket(sessions: Sessions, photo: Callable[..., Path]) -> None:
    session = sessions.of("one")
    sessions.take(session, [sent(sessions, photo("a.jpg"))])
    session.draft = shipped("bracket-fusion")
    with pytest.raises(RestorekitError, match="drop all exposures of the scene together"):
        finished(session, sessions)


def test_files_stay_while_they_may_be_downloaded(sessions: Sessions, photo: Callable[..., Path]) -> None:
    """Those of the result before the last, which a browser may have asked for when the last came; not older ones."""
    session = sessions.of("one")
    sessions.take(session, [sent(sessions, photo("a.jpg"))])
    made = [finished(session, sessions) for _ in range(3)]
    there = []
    for result in made:
        session.keep(result)
        there.append([each.files[0].exists() for each in made])
    assert there == [[True, True, True], [True, True, True], [False, True, True]]
    session.forget()
    assert not any(result.files[0].exists() for result in made)


def test_what_was_brought_and_made_can_be_forgotten(sessions: Sessions, photo: Callable[..., Path]) -> None:
    session = sessions.of("one")
    source = sessions.take(session, [sent(sessions, photo("a.jpg"))])
    session.keep(made := finished(session, sessions))
    session.forget()
    assert not source.folder.exists() and not made.files[0].exists()
    with pytest.raises(RestorekitError, match="drop a readable picture first"):
        finished(session, sessions)
