"""Which files of a folder belong together: exposures of one scene, found by capture time, folder or count."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pydantic
from pydantic.dataclasses import dataclass as pydantic_dataclass

from restorekit.errors import InputError
from restorekit.io.read import is_raw, require_picture

if TYPE_CHECKING:
    from restorekit.facts import Exposure

SAME_EXPOSURE_EV = 1 / 6
"""Exposures closer than this are the same one: half of the smallest step of bracketing cameras."""

UNITS_S = {"ms": 0.001, "s": 1.0, "min": 60.0}


def _by(value: Any) -> Any:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if value in ("auto", "folder") or (type(value) is int and value >= 2):
        return value
    raise ValueError("must be auto, folder, or a number of files from 2")


def _duration_s(value: Any) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|min)?", str(value).strip())
    if found is None or isinstance(value, bool):
        raise ValueError("must be a duration such as 2s, 500ms or 1min")
    return float(found[1]) * UNITS_S[found[2] or "s"]


@pydantic_dataclass(frozen=True, config=pydantic.ConfigDict(extra="forbid"))
class Grouping:
    """How files become brackets.

    ``by`` is ``auto`` (capture time and exposure), ``folder`` (the files of a folder are one bracket) or a number
    (so many files in name order). ``max_gap`` belongs to ``auto``: the longest pause in seconds between the end of
    one exposure and the start of the next of the same bracket; in YAML also ``2s``, ``500ms``, ``1min``.
    """

    by: Annotated[Literal["auto", "folder"] | int, pydantic.BeforeValidator(_by)] = "auto"
    max_gap: Annotated[float, pydantic.BeforeValidator(_duration_s, json_schema_input_type=float | str)] = 2.0


@dataclass(frozen=True)
class Shot:
    """What grouping needs to know about a file; ``taken`` is the start of its exposure.

    ``unreadable`` says why it is no picture at all; empty where it may be one.
    """

    path: Path
    taken: datetime | None
    exposure: Exposure
    camera: str = ""
    size: tuple[int, int] | None = None
    unreadable: str = ""

    @property
    def light(self) -> float | None:
        """Gathered light, relative; ``None`` where the file does not tell."""
        return self.exposure.relative or None


def group_brackets(
    paths: Sequence[Path],
    rule: Grouping | None = None,
    *,
    subfolder: bool = False,
    read: Callable[[Path], Shot] | None = None,
) -> list[tuple[Path, ...]]:
    """Put files into brackets, each sorted from the darkest exposure to the brightest (by name where one is unknown).

    Files of different folders never share a bracket. With ``auto`` a new bracket starts after a pause longer than
    ``rule.max_gap``, when the camera or the size of the picture changes, and when an exposure comes again; RAW files
    and finished pictures are grouped apart.
    A file that does not tell its time and exposure stands alone; where ``subfolder`` says that the files lie in
    folders below the one given as input, all files of its folder are one bracket. ``read`` is how a file is asked.

    Raises InputError when no file outside subfolders tells time and exposure, and when a count does not divide the
    files; a file among them that is no picture is named then.
    """
    rule = rule or Grouping()
    ask = read or _read
    brackets: list[tuple[Path, ...]] = []
    for folder, members in groupby(sorted(paths, key=name_order), key=lambda path: path.parent):
        shots = [ask(path) for path in members]
        if isinstance(rule.by, int):
            groups = _counted(shots, rule.by, folder)
        elif rule.by == "folder":
            groups = [shots]
        else:  # cameras write RAW files and photographs of the same shots side by side
            kinds = [[shot for shot in shots if is_raw(shot.path) is kind] for kind in (True, False)]
            groups = [group for kind in kinds if kind for group in _found(kind, rule.max_gap, subfolder)]
        brackets += [tuple(shot.path for shot in _by_light(group)) for group in groups]
    return brackets


def _found(shots: Sequence[Shot], max_gap_s: float, subfolder: bool) -> Iterable[Sequence[Shot]]:
    """The brackets of one folder, as far as its files tell."""
    silent = [shot for shot in shots if shot.taken is None or shot.light is None]
    if silent and subfolder:
        return [shots]
    if silent == shots:
        _require_pictures(shots)
        lacks = "capture time" if shots[0].taken is None else "exposure time"
        raise InputError(
            f"{shots[0].path}: has no {lacks}, so its bracket cannot be found; add --group folder where all pictures "
            "of a folder are one bracket, or --group N where every N of them are"
        )
    return [*_timed([shot for shot in shots if shot not in silent], max_gap_s), *([shot] for shot in silent)]


def _counted(shots: Sequence[Shot], count: int, folder: Path) -> Iterable[Sequence[Shot]]:
    """Every ``count`` shots in name order."""
    extra = len(shots) % count
    if extra:
        _require_pictures(shots)
        names = ", ".join(shot.path.name for shot in shots[-extra:])
        raise InputError(
            f"{folder}: {len(shots)} files cannot be put into brackets of {count}, {names} would be left over; "
            "take them away, add the missing files, or use another --group"
        )
    return (shots[start : start + count] for start in range(0, len(shots), count))


def _require_pictures(shots: Sequence[Shot]) -> None:
    """Name the first file that is no picture, before the others are blamed."""
    for shot in shots:
        if shot.unreadable:
            raise InputError(shot.unreadable)


def _timed(shots: Iterable[Shot], max_gap_s: float) -> Iterator[Sequence[Shot]]:
    """Runs of shots by capture time; every shot tells time and exposure."""
    group: list[Shot] = []
    for shot in sorted(shots, key=lambda shot: (_local(shot.taken), name_order(shot.path))):
        if group and not _continues(group, shot, max_gap_s):
            yield group
            group = []
        group.append(shot)
    if group:
        yield group


def _continues(group: Sequence[Shot], shot: Shot, max_gap_s: float) -> bool:
    """Whether a shot belongs to the bracket of those just before it."""
    last = group[-1]
    if (shot.camera, shot.size) != (last.camera, last.size):
        return False
    start, end = _local(shot.taken), _local(last.taken) + timedelta(seconds=last.exposure.time_s or 0.0)
    # A time in whole seconds was cut, so that the exposure ended up to one second later than it says.
    cut_s = 0.0 if last.taken is not None and last.taken.microsecond else 1.0
    if (start - end).total_seconds() > max_gap_s + cut_s:
        return False
    return all(abs(math.log2(_light(shot) / _light(other))) > SAME_EXPOSURE_EV for other in group)


def _by_light(group: Sequence[Shot]) -> Sequence[Shot]:
    if any(shot.light is None for shot in group):
        return sorted(group, key=lambda shot: name_order(shot.path))
    return sorted(group, key=lambda shot: (_light(shot), name_order(shot.path)))


def _light(shot: Shot) -> float:
    assert shot.light is not None
    return shot.light


def _local(taken: datetime | None) -> datetime:
    """The time on the camera's clock; shots with and without a time zone can then be compared."""
    assert taken is not None
    return taken.replace(tzinfo=None)


def name_order(path: Path) -> tuple[str, list[tuple[str, int]], str]:
    """The order in which a person lists names: IMG_9 comes before IMG_10."""
    parts = re.findall(r"(\D*)(\d*)", path.name.lower())
    return str(path.parent), [(text, int(number or -1)) for text, number in parts], path.name


def _read(path: Path) -> Shot:
    """What a file's EXIF block tells, and of a file that has none whether it is a picture."""
    from restorekit.io import metadata

    block, unreadable = b"", ""
    try:
        block = metadata.find_exif(path)
        if not block:
            require_picture(path)
    except InputError as error:
        unreadable = str(error)
    _, photo = metadata.exif_fields(block)
    camera = metadata.camera_name(block)
    size = photo.integer(metadata.PIXEL_X, 0), photo.integer(metadata.PIXEL_Y, 0)
    return Shot(path, metadata.capture_time(block), metadata.exposure_from_exif(block), camera, size, unreadable)
