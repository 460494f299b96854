"""What one server allows: its device, and how much strangers may ask of it."""

from __future__ import annotations

from dataclasses import dataclass

from restorekit.io.limits import Limits

MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Settings:
    """``jobs`` full-size runs at once, ``queue`` that wait, and the largest files and pictures that are taken.

    ``visitors`` are the browser tabs whose files are kept, ``idle_s`` is how long one without a sign of life keeps its.
    """

    device: str = "auto"
    jobs: int = 1
    queue: int = 16
    upload_mb: int = 200
    megapixels: float = 100.0
    files: int = 16
    visitors: int = 32
    idle_s: float = 3600.0

    @property
    def limits(self) -> Limits:
        return Limits(round(self.megapixels * 1e6))
