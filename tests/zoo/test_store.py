"""Cards are found where they may lie, and weights come from the network only whole and as the card describes them."""

from __future__ import annotations

import errno
import hashlib
import http.server
import importlib.metadata
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from restorekit import bundled
from restorekit.errors import ModelError
from restorekit.zoo import cards, store
from restorekit.zoo.card import ModelCard, Weights

CONTENT = bytes(range(256)) * 2000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of the user's."""
    monkeypatch.setenv("RESTOREKIT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


class Server(http.server.ThreadingHTTPServer):
    """A web server that counts its requests. ``/good`` gives the content, others go wrong in their own ways."""

    requests: list[str]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.requests.append(self.path)
        kind = self.path.rpartition("/")[2]
        if kind == "missing":
            self.send_error(404)
            return
        if kind == "moved":
            self.send_response(302)
            self.send_header("Location", "/good")
            self.end_headers()
            return
        body = {"wrong": CONTENT[::-1], "short": CONTENT[:-1], "long": CONTENT + b"more"}.get(kind, CONTENT)
        self.send_response(200)
        if kind not in ("unannounced", "endless"):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if kind == "cut":
            body = body[:1000]
        if kind == "endless":
            body = body * 20
        try:
            self.wfile.write(body)
        except OSError:  # the other side had enough
            return

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server(("127.0.0.1", 0), Handler) as running:
        running.requests = []
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def card(url: str | None = None, **weights: object) -> ModelCard:
    described = {"file": "a.pth", "licence": "MIT", "sha256": DIGEST, "size": len(CONTENT), **weights}
    return ModelCard(
        id="some.x2",
        summary="A model",
        architecture="cfsr",
        config={},
        task="super-resolution",
        scale=2,
        trained_on="bicubic",
        data="DF2K",
        licence="MIT",
        weights=Weights.model_validate({"url": url, **described}),
    )


def write_card(folder: Path, name: str, summary: str = "A model", **more: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "summary": summary,
        "architecture": "cfsr",
        "config": {},
        "task": "super-resolution",
        "trained_on": "bicubic",
        "data": "DF2K",
        "licence": "MIT",
        **more,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_users_folder_is_that_of_the_platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cards.user_folder() == tmp_path / "home" / "models"
    monkeypatch.delenv("RESTOREKIT_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "me")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    assert cards.home() == tmp_path / "xdg" / "restorekit"
    for unset in ("", "relative"):
        monkeypatch.setenv("XDG_DATA_HOME", unset)
        assert cards.home() == tmp_path / "me" / ".local" / "share" / "restorekit"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cards.home() == tmp_path / "me" / "Library" / "Application Support" / "restorekit"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cards.home() == tmp_path / "local" / "restorekit"


def test_cards_of_ours_the_user_and_packages_are_found(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = tmp_path / "ours"
    monkeypatch.setattr(bundled, "folder", lambda kind: ours)
    package = tmp_path / "site" / "example_zoo"
    for folder, name in ((ours, "ours"), (home / "models", "user"), (package / "cards", "package")):
        write_card(folder, f"only.{name}")
        write_card(folder, "all.x2", f"of {name}")
        if name != "ours":
            write_card(folder, "others.x2", f"of {name}")
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    points = [
        importlib.metadata.EntryPoint("zoo", "example_zoo.cards", "restorekit.models"),
        importlib.metadata.EntryPoint("gone", "no_such_package_at_all.cards", "restorekit.models"),
    ]
    monkeypatch.setattr(cards, "entry_points", lambda group: points if group == "restorekit.models" else [])
    cards._package_folders.cache_clear()
    try:
        found = cards.cards()
        assert list(found) == ["all.x2", "only.ours", "only.package", "only.user", "others.x2"]
        assert found["all.x2"].summary == "of ours" and found["others.x2"].summary == "of user"
        beside = package / "cards" / "only.package.safetensors"
        beside.touch()
        assert store.weights_path(found["only.package"]) == beside
    finally:
        cards._package_folders.cache_clear()


def test_unknown_and_broken_cards(home: Path) -> None:
    write_card(home / "models", "fine.x2")
    assert cards.card("fine.x2").id == "fine.x2"
    with pytest.raises(ModelError, match=r"unknown model 'fine.x3'; did you mean 'fine.x2'\?"):
        cards.card("fine.x3")
    with pytest.raises(ModelError, match="unknown model 'zzzzzzzzzz'; restorekit models list"):
        cards.card("zzzzzzzzzz")
    write_card(home / "models", "other.x2", id="fine.x2")
    with pytest.raises(ModelError, match=r"other.x2.yaml: calls itself 'fine.x2'"):
        cards.card("other.x2")
    write_card(home / "models", "broken.x2", task="dancing")
    with pytest.raises(ModelError, match=r"broken.x2.yaml: task: "):
        cards.card("broken.x2")
    assert cards.cards()["fine.x2"].task == "super-resolution", "a broken card harms no other"


def test_weights_lie_with_the_user_or_beside_the_card(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = tmp_path / "ours"
    monkeypatch.setattr(bundled, "folder", lambda kind: ours)
    write_card(ours, "some.x2")
    some = cards.card("some.x2")
    assert store.weights_path(some) is None and store.status(some) == "no weights"
    with pytest.raises(
        ModelError, match=r"model some\.x2 has no .*; no weights exist yet; name another .*models list --ins"
    ):
        store.installed_weights(some)
    (ours / "some.x2.safetensors").touch()
    assert store.weights_path(some) == ours / "some.x2.safetensors" and store.status(some) == "installed"
    (home / "models").mkdir(parents=True)
    (home / "models" / "some.x2.safetensors").touch()
    assert store.installed_weights(some) == home / "models" / "some.x2.safetensors", "the user's own come first"


def test_what_brings_weights_is_said() -> None:
    assert store.status(card("https://example.org/a.pth")) == "download"
    assert store.cure(card("https://example.org/a.pth")) == "run: restorekit models download some.x2"
    by_hand = card(page="https://example.org/drive")
    assert store.status(by_hand) == "import"
    command = "get a.pth from https://example.org/drive and run: restorekit models import a.pth --as some.x2"
    assert store.cure(by_hand) == command
    unpublished = by_hand.model_copy(update={"weights": None, "code": "https://example.org/code"})
    assert store.status(unpublished) == "no weights" and "--as some.x2" in store.cure(unpublished)


@pytest.mark.parametrize("path", ["good", "unannounced", "moved"])
def test_a_download_is_whole_and_gone_afterwards(server: Server, home: Path, path: str) -> None:
    steps: list[tuple[int, int | None]] = []
    url = f"http://127.0.0.1:{server.server_port}/{path}"
    with store.downloaded(card(url), lambda *step: steps.append(step)) as file:
        assert file.read_bytes() == CONTENT
        assert file.parent == home / "models"
    assert steps[-1] == (len(CONTENT), len(CONTENT)) and steps == sorted(steps)
    assert list((home / "models").iterdir()) == []


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("missing", r"/missing: HTTP 404 .*; get a.pth by hand and run: restorekit models import FILE --as some.x2"),
        ("wrong", r"/wrong: is not the file that card some.x2 describes \(sha256 "),
        ("short", r"/short: holds 511999 bytes, the card says 512000"),
        ("long", r"/long: holds 512004 bytes"),
        ("cut", r"/cut: ended after 1000 of 512000 bytes"),
        ("endless", r"/endless: sends more than the 512000 bytes"),
    ],
)
def test_a_download_that_goes_wrong_leaves_nothing(server: Server, home: Path, path: str, says: str) -> None:
    url = f"http://127.0.0.1:{server.server_port}/{path}"
    with pytest.raises(ModelError, match=says) as caught, store.downloaded(card(url)):
        pytest.fail("it was taken")
    assert "\n" not in str(caught.value)
    assert list((home / "models").iterdir()) == []


def test_without_a_network_the_error_says_what_else_to_do(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as closed:
        port = closed.server_port
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    unreachable = card(f"http://127.0.0.1:{port}/good", page="https://example.org")
    with pytest.raises(ModelError, match=r"cannot be reached \(.*refused\); .* get a.pth from https://example.org by"):
        store.downloaded(unreachable).__enter__()
    assert list((home / "models").iterdir()) == []


def test_a_silent_server_is_left(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "TIMEOUT_S", 0.05)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as listening:
        silent = card(f"http://127.0.0.1:{listening.server_port}/good")
        with pytest.raises(ModelError, match=r"cannot be reached \(timed out\)"):
            store.downloaded(silent).__enter__()
    assert list((home / "models").iterdir()) == []


def test_proxies_of_the_environment_are_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urllib.request, "_opener", None)  # it keeps the proxies of the first request
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    with store.downloaded(card("http://weights.invalid/good")) as file:
        assert file.read_bytes() == CONTENT
    assert server.requests == ["http://weights.invalid/good"]


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://example.org/a.pth", "a.pth"])
def test_only_web_addresses_are_opened(url: str) -> None:
    with pytest.raises(ModelError, match="is no web address"):
        store.downloaded(card(url)).__enter__()


def test_nothing_is_fetched_that_cannot_be_checked(server: Server) -> None:
    url = f"http://127.0.0.1:{server.server_port}/good"
    with pytest.raises(ModelError, match="gives no sha256"):
        store.downloaded(card(url, sha256=None)).__enter__()
    with pytest.raises(ModelError, match=r"has no weights to download; get a\.pth from"):
        store.downloaded(card(page="https://example.org")).__enter__()
    assert server.requests == []


def test_a_full_disk_is_one_line(server: Server, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    some = card(f"http://127.0.0.1:{server.server_port}/good")
    monkeypatch.setattr(store, "_copied", full)
    with pytest.raises(ModelError, match=r"models: cannot hold a.pth \(No space left on device\); make room"):
        store.downloaded(some).__enter__()
    assert list((home / "models").iterdir()) == []
    monkeypatch.setenv("RESTOREKIT_HOME", __file__)
    with pytest.raises(ModelError, match=r"cannot hold a\.pth"):
        store.downloaded(some).__enter__()
