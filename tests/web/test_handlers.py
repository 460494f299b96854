"""What events of the page change, called as the page calls them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from restorekit.web.deliverables import hdr_output
from restorekit.web.drafts import shipped
from restorekit.web.handlers import Handlers
from restorekit.web.previews import Preview
from restorekit.web.sessions import Session, Sessions
from restorekit.web.settings import Settings


@pytest.fixture(scope="module")
def handlers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Handlers]:
    sessions = Sessions(tmp_path_factory.mktemp("web") / "root", Settings(device="cpu", megapixels=4))
    yield Handlers(sessions)
    sessions.close_all()


@pytest.fixture
def tab(request: pytest.FixtureRequest) -> Any:
    """What a handler sees of a request: each test is a tab of its own."""
    return SimpleNamespace(session_hash=request.node.name)


@pytest.fixture
def session(handlers: Handlers, tab: Any) -> Session:
    return handlers.session(tab)


def sent(handlers: Handlers, *paths: Path) -> list[str]:
    """Files as a browser's upload leaves them."""
    targets = [handlers.sessions.root / f"upload-{path.stem}" / path.name for path in paths]
    for path, target in zip(paths, targets, strict=True):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return [str(target) for target in targets]


def dropped(handlers: Handlers, tab: Any, *paths: Path) -> dict[str, Any]:
    handlers.reading(sent(handlers, *paths), tab)
    handlers.drop(tab)
    return handlers.suit(tab)


def test_files_dropped_while_others_are_read_replace_them(
    handlers: Handlers, tab: Any, session: Session, photo: Callable[..., Path], checkout: Path
) -> None:
    """The second drop is announced while the first is in work; the page sends the events that waited afterwards."""
    sample = checkout / "docs" / "sample" / "lake.dng"
    if not sample.is_file():
        pytest.skip("this test reads the source tree")
    assert handlers.reading(sent(handlers, *(photo(f"{seed}.jpg", seed) for seed in (1, 2, 3))), tab)["files"] is None
    handlers.drop(tab)
    handlers.reading(sent(handlers, sample), tab)
    handlers.suit(tab)
    assert session.draft.head["name"] == "bracket-fusion"
    handlers.drop(tab)
    handlers.suit(tab)
    assert session.source is not None and [path.name for path in session.source.files] == ["lake.dng"]
    assert session.draft.head["name"] == "raw-to-srgb"
    assert handlers.drop(tab) == {}


def test_a_pipeline_chosen_while_files_are_read_stays(
    handlers: Handlers, tab: Any, session: Session, photo: Callable[..., Path]
) -> None:
    handlers.reading(sent(handlers, *(photo(f"{seed}.jpg", seed) for seed in (1, 2, 3))), tab)
    handlers.drop(tab)
    handlers.choose("extreme-fusion", tab)
    handlers.suit(tab)
    assert session.draft.head["name"] == "extreme-fusion"


def test_stages_are_drawn_anew_for_other_stages_only(handlers: Handlers, tab: Any, photo: Callable[..., Path]) -> None:
    """What is open in them would fold up."""
    assert "form" in handlers.begin(tab)
    assert "form" not in dropped(handlers, tab, photo("a.jpg"))
    assert "form" not in dropped(handlers, tab, photo("b.jpg", seed=2))
    assert "form" in handlers.choose("photo-resize", tab)
    assert "form" in handlers.edit("remove", 0, tab)


def test_a_learned_model_is_tried_on_the_middle_of_a_photograph(
    handlers: Handlers, tab: Any, photo: Callable[..., Path]
) -> None:
    dropped(handlers, tab, photo("a.jpg", width=500, height=400))
    handlers.choose("upscale-x2", tab)
    looked = handlers.look(tab)
    assert "rk-busy" in looked["state"] and looked["slider"]
    tried = handlers.try_model(tab)
    assert "on 256x256 px in the middle" in tried["state"]
    before, after = (np.asarray(Image.open(path)) for path in tried["slider"])
    assert before.shape == after.shape == (512, 512, 3)
    assert np.abs(before.astype(int) - after).mean() < 8
    assert handlers.try_model(tab) == tried  # for the event of an older change, which comes late


def test_a_trial_gives_way_to_changes_and_to_full_size_runs(
    handlers: Handlers, tab: Any, session: Session, photo: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped(handlers, tab, photo("a.jpg"))
    handlers.choose("denoise", tab)
    handlers.look(tab)
    with session.working:
        assert handlers.try_model(tab) == {}
    make = Preview.make

    def changed_meanwhile(preview: Preview, *arguments: Any) -> Any:
        session.changed()
        return make(preview, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Preview, "make", changed_meanwhile)
        assert handlers.try_model(tab) == {}
    assert "in the middle" in handlers.try_model(tab)["state"]
    *_, last = handlers.develop(tab)
    assert last["slider"] and handlers.try_model(tab) == {}


def test_nothing_is_tried_of_raw_files_nor_without_a_model(
    handlers: Handlers, tab: Any, photo: Callable[..., Path], checkout: Path
) -> None:
    dropped(handlers, tab, photo("a.jpg"))
    assert "reduced size" in handlers.look(tab)["state"]
    assert handlers.try_model(tab) == {}
    sample = checkout / "docs" / "sample" / "lake.dng"
    if sample.is_file():
        dropped(handlers, tab, sample)
        handlers.choose("raw-to-2x", tab)
        assert "the button shows" in handlers.look(tab)["state"]
        assert handlers.try_model(tab) == {}


@pytest.mark.parametrize(
    ("name", "wanted", "number"),
    [
        ("photo-enhance", None, None),
        ("photo-enhance", "AVIF, 10 bit", None),
        ("bracket-to-hdr", None, 1),
        ("sdr-to-hdr", None, 0),
        ("raw-to-srgb", "Ultra HDR JPEG", 0),
    ],
)
def test_hdr_is_shown_of_outputs_that_have_it(name: str, wanted: str | None, number: int | None) -> None:
    draft = shipped(name)
    draft = draft if wanted is None else replace(draft, wanted=wanted)
    assert hdr_output(draft.pipeline(), ("bt709", "srgb")) == number


@pytest.mark.parametrize(("name", "shown"), [("photo-enhance", False), ("sdr-to-hdr", True)])
def test_the_panel_of_hdr_is_there_where_the_result_has_it(
    handlers: Handlers, tab: Any, photo: Callable[..., Path], name: str, shown: bool
) -> None:
    dropped(handlers, tab, photo("a.jpg"))
    handlers.choose(name, tab)
    *_, last = handlers.develop(tab)
    assert last["detail"]["visible"] is True
    assert last["hdr_panel"]["visible"] is shown
    assert ("<img" in last["hdr"]) is shown


def test_a_file_that_cannot_be_chosen_is_not_talked_over(
    handlers: Handlers, tab: Any, session: Session, photo: Callable[..., Path]
) -> None:
    """The model that is being tried meanwhile has nothing to say after it."""
    dropped(handlers, tab, photo("a.jpg"))
    session.draft = shipped("denoise")
    being_tried = session.changes
    said = handlers.deliver("EXR, linear light", 95, tab)
    assert "cannot hold" in said["state"] and not session.may_try(being_tried)
