"""What a folder's outputs were made from, so that a rerun knows what is ours and what is up to date."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FOLDER = ".restorekit"
FILE = "journal.jsonl"


@dataclass(frozen=True)
class Entry:
    """The last word on an output: the key of the job, and size and time of the finished file.

    ``stamp`` is ``None`` for a file that was begun and not noted as finished: whatever is there is ours, and stale.
    ``inputs`` are the files that it was made from, and ``found`` is what was found of its picture, for the report of
    a rerun.
    """

    key: str
    stamp: tuple[int, int] | None
    inputs: tuple[str, ...] = ()
    found: Mapping[str, Any] = field(default_factory=dict)


class Journal:
    """The journal of an output folder: one JSON line when an output is begun, one when it is finished."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / FOLDER / FILE
        self._entries: dict[str, Entry] = {}
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except OSError:
            lines = []
        for line in lines:
            try:
                found = json.loads(line)
                stamp = found["stamp"]
                inputs = tuple(found.get("inputs", ()))
                entry = Entry(found["key"], stamp and (stamp[0], stamp[1]), inputs, dict(found.get("found", {})))
                self._entries[found["output"]] = entry
            except (ValueError, KeyError, TypeError, IndexError):
                continue  # a line that a killed run left half-written

    def entry(self, path: Path) -> Entry | None:
        """The entry of a file of this folder that is there and still as we left it."""
        try:
            found = self._entries.get(str(path.relative_to(self.folder)))
        except ValueError:
            return None
        if found is None or not path.exists() or found.stamp not in (None, stamp(path)):
            return None
        return found

    def open(self) -> None:
        """Make the journal's folder and file. Raises OSError where that is not possible."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()

    def begin(self, path: Path, key: str) -> None:
        """Note that a file is about to be made or replaced by us."""
        self._append(path, Entry(key, None))

    def finish(self, path: Path, key: str, inputs: Iterable[Path], found: Mapping[str, Any]) -> None:
        """Note that a file is there, whole, what it was made from, and what was found of its picture."""
        self._append(path, Entry(key, stamp(path), tuple(map(os.path.realpath, inputs)), found))

    def _append(self, path: Path, entry: Entry) -> None:
        name = str(path.relative_to(self.folder))
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"output": name, **asdict(entry)}) + "\n")
        self._entries[name] = entry


def stamp(path: Path) -> tuple[int, int]:
    """Size and modification time, by which a file is known to be unchanged."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns
