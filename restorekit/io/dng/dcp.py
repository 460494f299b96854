"""Camera profiles (DNG 1.7.1, ExtraCameraProfiles): DCP files, and the further profiles that lie inside a DNG.

Both begin with a byte order mark, the number 0x4352 and the offset of a TIFF directory with the profile's tags; all
offsets count from the byte order mark. Who may copy or embed a profile is not checked.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from restorekit.errors import InputError
from restorekit.facts import Calibration, CameraProfile
from restorekit.io.dng import color as dng_color
from restorekit.io.tiff import Directory, TiffError, read_directories

MAGIC = 0x4352
UNIQUE_MODEL, EXTRA_PROFILES, AS_SHOT_PROFILE = 50708, 50933, 50934

_LARGEST_PROFILE = 1 << 25


@dataclass(frozen=True, eq=False)
class DcpFile:
    """A camera profile from a file: ``model`` is the camera it was made for (UniqueCameraModel, may be empty)."""

    calibrations: tuple[Calibration, ...]
    profile: CameraProfile
    model: str
    notes: tuple[str, ...] = ()


def read_dcp(path: Path) -> DcpFile:
    """The camera profile of a DCP file.

    Raises InputError for what is no camera profile, is damaged, or has no matrix for three colours.
    """
    try:
        with path.open("rb") as file:
            directory = _directory(file, 0)
    except OSError as error:
        raise InputError(f"{path}: cannot be read as a camera profile ({error.strerror}); check the path") from None
    except TiffError as error:
        raise InputError(f"{path}: is no whole camera profile, {error}; give a .dcp file") from error
    bad = dng_color.damaged(directory)
    if bad:
        raise InputError(f"{path}: this camera profile is damaged in {', '.join(bad)}; get it again")
    calibrations = dng_color.calibrations(directory)
    if not calibrations:
        raise InputError(f"{path}: this camera profile has no ColorMatrix of three colours; use another profile")
    said = tuple(f"{path.name}: {note}" for note in dng_color.notes(directory))
    return DcpFile(calibrations, dng_color.camera_profile(directory), directory.text(UNIQUE_MODEL), said)


def as_shot(file: BinaryIO, main: Directory) -> Directory:
    """The directory of the profile that a DNG was shot with: ``main``, or that of an extra profile of that name."""
    wanted = main.text(AS_SHOT_PROFILE)
    if wanted and wanted != main.text(dng_color.PROFILE_NAME):
        for offset in main.integers(EXTRA_PROFILES):
            try:
                extra = _directory(file, offset)
            except TiffError:
                continue
            if extra.text(dng_color.PROFILE_NAME) == wanted and dng_color.calibrations(extra):
                return extra
    return main


def _directory(file: BinaryIO, offset: int) -> Directory:
    """The directory of a profile that begins at an offset. Raises TiffError."""
    file.seek(offset)
    data = file.read(_LARGEST_PROFILE)
    order = {b"II": "<", b"MM": ">"}.get(data[:2], "")
    if not order or data[2:4] != struct.pack(order + "H", MAGIC):
        raise TiffError("it does not begin as one")
    plain = data[:2] + struct.pack(order + "H", 42) + data[4:]
    found = read_directories(io.BytesIO(plain))
    if not found:
        raise TiffError("it has no directory")
    return found[0]
