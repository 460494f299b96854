"""One visitor: the files brought, the pipeline in the making, and what came of them, in a folder that is removed."""

from __future__ import annotations

import itertools
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from restorekit.errors import InputError, RestorekitError
from restorekit.frame import Bracket, Frame
from restorekit.io.brackets import name_order
from restorekit.io.raw import Headerless
from restorekit.io.read import read
from restorekit.isolation import Isolation
from restorekit.pipeline import Pipeline
from restorekit.reduction import reduced
from restorekit.report import JobReport
from restorekit.web.display import Picture, shown
from restorekit.web.drafts import Draft, shipped
from restorekit.web.previews import BRACKET_PX, PREVIEW_PX, Preview, middle
from restorekit.web.settings import MEGABYTE, Settings

UPLOAD_S = 900.0
"""So long may a file that was sent lie about before it is taken into a session."""

Updates = dict[str, Any]
"""New values by the names of the page's components; those that are not named stay as they are."""


@dataclass(eq=False)
class Source:
    """What a visitor brought: the files in their folder, small copies, and the picture before anything is done.

    ``looked_at`` is the file that the picture before shows. ``shown`` is the file of that picture, once it was written.
    ``whole`` is a photograph at its full size, ``part`` its middle; the picture before of RAW files and brackets is
    that of the small copy. ``preview`` makes previews of the small copy, ``trial`` of the part.
    """

    folder: Path
    files: tuple[Path, ...]
    looked_at: Path
    small: Frame | Bracket
    share: float
    before: Picture
    whole: Frame | None
    part: Frame | None
    size: tuple[int, int]
    shown: str = ""
    preview: Preview = field(default_factory=Preview)
    trial: Preview = field(default_factory=Preview)

    @property
    def is_bracket(self) -> bool:
        return isinstance(self.small, Bracket)

    @property
    def first(self) -> Frame:
        return self.small.reference if isinstance(self.small, Bracket) else self.small


@dataclass(frozen=True, eq=False)
class Result:
    """What a full-size run gave: files to download, the reports, and the picture as the page shows it.

    ``text`` is the YAML that they were made by.
    """

    text: str
    pipeline: Pipeline
    device: str
    files: tuple[Path, ...]
    reports: tuple[JobReport, ...]
    before: Picture
    after: Picture
    shown: Path
    hdr: Path | None = None


class Newest:
    """What the page was given for the newest change of a session: made once, by one event at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._change = -1
        self._updates: Updates = {}

    def of(self, session: Session, make: Callable[[int], Updates], wanted: Callable[[int], bool]) -> Updates:
        """What ``make`` gives of the newest change, or gave before; nothing where it is not wanted any more."""
        with self._lock:
            change = session.changes
            if change != self._change:
                updates = make(change)
                if not wanted(change):
                    return {}
                self._change, self._updates = change, updates
            return self._updates

    def clear(self) -> None:
        """The page shows something else now."""
        self._updates = {}

    def settle(self, change: int) -> None:
        """Nothing is to be made of this change any more."""
        self._change, self._updates = change, {}


class Session:
    """The state of one browser tab."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, mode=0o700)
        self.folder = folder
        self.draft: Draft = shipped("photo-enhance")
        self.asked = self.draft
        self.sent: tuple[Path, ...] = ()
        self.source: Source | None = None
        self.result: Result | None = None
        self._results: list[Path] = []
        self.stop = threading.Event()
        self.working = threading.Lock()
        self.seen = time.monotonic()
        self.closed = False
        self._numbers = itertools.count(1)
        self.changes = 0
        self.previewed, self.tried = Newest(), Newest()

    def place(self, name: str) -> Path:
        """A new path in the folder, ``name`` with a number; older ones of this name are removed, but for the last."""
        number = next(self._numbers)
        for old in self.folder.glob(f"{name}_*"):
            if old.is_file() and number - int(old.stem.rpartition("_")[2]) > 8:
                old.unlink(missing_ok=True)
        return self.folder / f"{name}_{number}"

    def keep(self, result: Result) -> None:
        """Hold a result. Files of the one before stay, for they may be on their way to the browser; older ones go."""
        self.result = result
        folder = result.files[0].parent
        if folder not in self._results:
            self._results.append(folder)
        for old in self._results[:-2]:
            shutil.rmtree(old, ignore_errors=True)
        del self._results[:-2]

    def forget(self) -> None:
        """Remove what was brought, and what was made of it."""
        if self.source is not None:
            shutil.rmtree(self.source.folder, ignore_errors=True)
        for folder in self._results:
            shutil.rmtree(folder, ignore_errors=True)
        self._results.clear()
        self.source = self.result = None
        self.changed()

    def numbered(self) -> int:
        """A number that was not given before."""
        return next(self._numbers)

    def changed(self) -> None:
        """Count a change of the draft or the picture; previews of what was there before are not wanted any more."""
        self.changes += 1

    def is_newest(self, change: int) -> bool:
        return change == self.changes and not self.closed

    def may_try(self, change: int) -> bool:
        """Whether a learned model may still be tried: no newer change, and nothing read or made meanwhile."""
        return self.is_newest(change) and not self.working.locked()

    def told(self, message: object) -> str:
        """A message without the folders of the server."""
        text = str(message)
        places = [self.source.folder] if self.source else []
        for place in (*places, *(path for path in self.folder.glob("*") if path.is_dir()), self.folder):
            text = text.replace(f"{place}/", "").replace(str(place), place.name.partition("_")[0])
        return text

    def close(self) -> None:
        """Stop what is running and remove the folder."""
        self.closed = True
        self.stop.set()
        self.source = self.result = None
        shutil.rmtree(self.folder, ignore_errors=True)


class Sessions:
    """All visitors of a server by the key of their browser tab, and the decoder they share.

    ``root`` is where their folders lie, beside what they send.
    """

    def __init__(self, root: Path, settings: Settings) -> None:
        self.root, self.settings = root, settings
        self._sessions: dict[str, Session] = {}
        self._guard, self._decoding = threading.Lock(), threading.Lock()
        self._isolation = Isolation()

    def of(self, key: str) -> Session:
        """The session of a tab, which begins with the first call."""
        with self._guard:
            self._sweep()
            if key not in self._sessions:
                self._sessions[key] = Session(self.root / "sessions" / secrets.token_urlsafe(18))
            session = self._sessions[key]
            session.seen = time.monotonic()
            return session

    def close(self, key: str) -> None:
        """End the session of a tab."""
        with self._guard:
            session = self._sessions.pop(key, None)
        if session is not None:
            session.close()

    def close_all(self) -> None:
        """End every session, and the decoder."""
        for key in list(self._sessions):
            self.close(key)
        self._isolation.close()
        shutil.rmtree(self.root, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what was left: sessions without a sign of life, and files that were sent but never taken."""
        now = time.monotonic()
        resting = [(key, session) for key, session in self._sessions.items() if not session.working.locked()]
        resting.sort(key=lambda item: item[1].seen)
        for key, session in resting:
            if now - session.seen > self.settings.idle_s or len(self._sessions) > self.settings.visitors:
                del self._sessions[key]
                session.close()
        with suppress(OSError):  # another request may take a file just now
            for path in self.root.iterdir():
                if path.name != "sessions" and time.time() - path.stat().st_mtime > UPLOAD_S:
                    shutil.rmtree(path, ignore_errors=True)

    def warm(self) -> None:
        """Start the child process that decodes, so that the first visitor need not wait for it."""
        with self._decoding, suppress(RestorekitError):
            self._isolation.call("decoder", len, ())

    def decoded(self, path: Path, headerless: Headerless | None = None) -> Frame:
        """A file decoded in the child process, as ``run --isolate`` does it."""
        with self._decoding:
            return self._isolation.call(path, read, path, headerless=headerless, limits=self.settings.limits)

    def take(self, session: Session, sent: Sequence[Path], *, copy: bool = False) -> Source:
        """Bring files into a session, moved there, and decode them in a child process.

        Raises InputError for files that cannot be read, are too large or too many; the session then stays as it was.
        """
        session.stop.set()
        with session.working:
            session.stop.clear()
            folder = session.place("in")
            folder.mkdir()
            try:
                files = [self._moved(Path(path), folder, copy) for path in sent]
                source = self._decoded(folder, files)
            except BaseException as error:
                shutil.rmtree(folder, ignore_errors=True)
                if isinstance(error, InputError):
                    raise InputError(str(error).replace(f"{folder}/", "")) from None
                raise
            if session.source is not None:
                shutil.rmtree(session.source.folder, ignore_errors=True)
            session.source, session.result = source, None
            session.changed()
            return source

    def _moved(self, path: Path, folder: Path, copy: bool) -> Path:
        inside = path.resolve().is_relative_to(self.root.resolve())
        if not copy and (not inside or path.resolve().is_relative_to((self.root / "sessions").resolve())):
            raise InputError(f"{path.name}: was not sent by this page; choose it again")
        if not path.is_file():
            raise InputError(f"{path.name}: did not arrive; send it again")
        if path.stat().st_size > self.settings.upload_mb * MEGABYTE:
            raise InputError(
                f"{path.name}: is larger than {self.settings.upload_mb} MB, the limit here; send a smaller file"
            )
        target = folder / path.name
        if copy:
            shutil.copyfile(path, target)
        else:
            shutil.move(path, target)
            shutil.rmtree(path.parent, ignore_errors=True)
        return target

    def _decoded(self, folder: Path, files: Sequence[Path]) -> Source:
        pictures = sorted((path for path in files if path.suffix.lower() != ".xmp"), key=name_order)
        if not pictures:
            raise InputError("no picture among the files; send XMP files together with their pictures")
        if len(pictures) > self.settings.files:
            raise InputError(f"{len(pictures)} files are too many; send at most {self.settings.files} at a time")
        several = len(pictures) > 1
        small: list[Frame] = []
        for path in pictures:
            frame = self.decoded(path)
            longest = BRACKET_PX if several else PREVIEW_PX
            copy = reduced(frame, (longest, longest))
            assert isinstance(copy, Frame)
            small.append(copy)
        share = max(small[-1].height, small[-1].width) / max(frame.height, frame.width)
        image: Frame | Bracket = Bracket.of(small) if several else small[0]
        first = image.reference if isinstance(image, Bracket) else image
        whole = frame if not several and frame.state.reference == "display" else None
        looked_at = next(path for path, copy in zip(pictures, small, strict=True) if copy.name == first.name)
        size = frame.width, frame.height
        part = None if whole is None else middle(whole)
        return Source(folder, tuple(pictures), looked_at, image, share, shown(first), whole, part, size)
