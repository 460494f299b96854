"""Where weights lie, and how they are downloaded. Loads no torch; nothing is downloaded that was not asked for."""

from __future__ import annotations

import hashlib
import http.client
import os
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Literal

from restorekit import __version__
from restorekit.errors import ModelError
from restorekit.zoo import cards
from restorekit.zoo.card import ModelCard, Weights

Progress = Callable[[int, int | None], None]
"""Called with the bytes that have come and, where known, those that will."""

TIMEOUT_S = 30.0
"""Longest silence of a server."""

CHUNK = 1 << 18


def install_path(id: str) -> Path:
    """Where a model's weights are installed: in the user's folder."""
    return cards.user_folder() / f"{id}.safetensors"


def weights_path(card: ModelCard) -> Path | None:
    """The installed weights of a model: the user's, else those that lie beside its card."""
    beside = cards.files().get(card.id)
    places = [install_path(card.id), *([beside.with_name(f"{card.id}.safetensors")] if beside else [])]
    return next((path for path in places if path.is_file()), None)


def status(card: ModelCard) -> Literal["installed", "download", "import", "no weights"]:
    """Whether a model can be run, and if not what brings its weights."""
    if weights_path(card) is not None:
        return "installed"
    if card.weights is not None and card.weights.url is not None:
        return "download"
    return "import" if card.weights is not None and card.weights.page is not None else "no weights"


def without_weights(ids: Iterable[str]) -> list[ModelCard]:
    """Those of these models that have no weights here, each once. Raises ModelError for a broken card."""
    known = [cards.card(id) for id in dict.fromkeys(ids)]
    return [card for card in known if weights_path(card) is None]


def _others(card: ModelCard) -> str:
    """Models that do the same and have weights, installed ones first."""
    same = [each for each in cards.cards().values() if (each.task, each.scale) == (card.task, card.scale)]
    order = {state: number for number, state in enumerate(("installed", "download", "import"))}
    found = sorted((each for each in same if status(each) in order), key=lambda each: order[status(each)])
    if not found:
        return "name another model, restorekit models list --installed shows those that can run"
    names = ", ".join(each.id for each in found[:3])
    return f"others for {card.task} are {names}: restorekit models show ID tells more, --set restore.model=ID takes one"


def cure(card: ModelCard) -> str:
    """What brings the weights of a model that has none installed, in words."""
    weights = card.weights
    if weights is None and card.code is None:
        return f"no weights exist yet; {_others(card)}"
    if weights is None:
        return f"no public ones are known; if you have the file, run: restorekit models import FILE --as {card.id}"
    if weights.url is not None:
        return f"run: restorekit models download {card.id}"
    if weights.page is not None:
        return f"get {weights.file} from {weights.page} and run: restorekit models import {weights.file} --as {card.id}"
    return f"its file {weights.file} is gone; import it again: restorekit models import FILE --as {card.id}"


def installed_weights(card: ModelCard) -> Path:
    """The installed weights of a model.

    Raises ModelError that says what brings them when there are none.
    """
    path = weights_path(card)
    if path is None:
        raise ModelError(f"model {card.id} has no weights installed; {cure(card)}")
    return path


def sha256(path: Path) -> str:
    """The hash of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def downloaded(card: ModelCard, progress: Progress | None = None) -> Iterator[Path]:
    """The file of weights that a card's ``url`` gives, of the size and hash that the card says; it is gone afterwards.

    Proxies are those of the environment. Raises ModelError when it cannot be had or is another file.
    """
    weights = card.weights
    if weights is None or weights.url is None:
        raise ModelError(f"model {card.id} has no weights to download; {cure(card)}")
    if weights.sha256 is None:
        raise ModelError(
            f"model {card.id}: its card gives no sha256, so a download cannot be checked; {_by_hand(card)}"
        )
    if urllib.parse.urlsplit(weights.url).scheme not in ("http", "https"):
        raise ModelError(f"model {card.id}: {weights.url} is no web address; {_by_hand(card)}")
    part = cards.user_folder() / f"{card.id}.{os.getpid()}.part"
    try:
        digest = _fetched(card, weights, weights.url, part, progress)
        if digest != weights.sha256:
            raise ModelError(
                f"{weights.url}: is not the file that card {card.id} describes (sha256 {digest}, "
                f"not {weights.sha256}); update restorekit, or {_by_hand(card)}"
            )
        yield part
    finally:
        with suppress(OSError):  # where there is no folder there is no file
            part.unlink()


def _fetched(card: ModelCard, weights: Weights, url: str, part: Path, progress: Progress | None) -> str:
    """Copy what a URL gives into a file; its sha256. What goes wrong becomes a ModelError."""
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            return _copied(weights, url, file, progress)
    except urllib.error.HTTPError as error:
        raise ModelError(f"{url}: HTTP {error.code} {error.reason}; {_by_hand(card)}") from None
    except (urllib.error.URLError, TimeoutError, ConnectionError, ssl.SSLError, http.client.HTTPException) as error:
        said = getattr(error, "reason", None) or error
        raise ModelError(f"{url}: cannot be reached ({_line(said)}); check the network, or {_by_hand(card)}") from None
    except OSError as error:
        raise ModelError(f"{part.parent}: cannot hold {weights.file} ({_line(error)}); make room there") from None


def _copied(weights: Weights, url: str, file: BinaryIO, progress: Progress | None) -> str:
    digest = hashlib.sha256()
    request = urllib.request.Request(url, headers={"User-Agent": f"restorekit/{__version__}"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        announced = response.headers.get("Content-Length", "")
        total = int(announced) if announced.isdigit() else weights.size
        if weights.size is not None and total != weights.size:
            raise ModelError(f"{url}: holds {total} bytes, the card says {weights.size}; update restorekit")
        done = 0
        while chunk := response.read(CHUNK):
            done += len(chunk)
            if total is not None and done > total:
                raise ModelError(f"{url}: sends more than the {total} bytes it should hold; update restorekit")
            digest.update(chunk)
            file.write(chunk)
            if progress is not None:
                progress(done, total)
    if total is not None and done != total:
        raise ModelError(f"{url}: ended after {done} of {total} bytes; try again")
    return digest.hexdigest()


def _by_hand(card: ModelCard) -> str:
    assert card.weights is not None
    place = f" from {card.weights.page}" if card.weights.page else ""
    return f"get {card.weights.file}{place} by hand and run: restorekit models import FILE --as {card.id}"


def _line(said: object) -> str:
    return " ".join(str(getattr(said, "strerror", None) or said).split())
