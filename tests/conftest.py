"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does: idle threads sleep instead of spinning

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of the source tree."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real camera files that are not part of the source tree: ``$RESTOREKIT_DATA``, or ``shared/data`` beside it."""
    folder = Path(os.environ.get("RESTOREKIT_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"needs the camera files of {folder} (set RESTOREKIT_DATA to where they are)")
    return folder
