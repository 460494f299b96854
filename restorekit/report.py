"""What a run did, as one JSON file: every image with times, warnings and errors, and the versions used."""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

Status = Literal["done", "up to date", "kept", "failed", "not started"]

REPORTED_PACKAGES = ("torch", "numpy", "rawpy", "tifffile", "imagecodecs", "OpenEXR", "opencv-python-headless")

FOUND = ("warnings", "measured", "networks", "width", "height")


@dataclass
class JobReport:
    """One image or bracket of a run.

    ``seconds`` is wall time by step (``read`` and ``write`` included), ``cpu_s`` the processor
    time of the whole job, ``peak_memory_mb`` the highest resident size of the process so far. ``measured`` is what
    stages found by their names (exposure in stops, temperature and tint), and the ``illuminant`` in camera RGB.
    ``networks`` says by step how a network was run: ``exact, fp32, cpu``. Of a picture that is up to date the report
    tells what the run found that made it; times are of this run alone.
    """

    inputs: list[str]
    outputs: list[str]
    status: Status = "not started"
    error: str = ""
    warnings: list[str] = field(default_factory=list)
    measured: dict[str, float | tuple[float, ...]] = field(default_factory=dict)
    networks: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_memory_mb: float = 0.0
    width: int = 0
    height: int = 0

    @property
    def found(self) -> dict[str, Any]:
        """What is true of the picture itself, and stays so when a rerun leaves it as it is."""
        return {name: getattr(self, name) for name in FOUND}


@dataclass
class RunReport:
    """A whole run. ``passed_over`` are finished pictures of folders, where the pipeline starts from RAW."""

    pipeline: str
    fingerprint: str
    device: str
    jobs: list[JobReport] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
    interrupted: bool = False
    versions: dict[str, str] = field(default_factory=lambda: versions())

    def count(self, status: Status) -> int:
        return sum(job.status == status for job in self.jobs)

    @property
    def exit_code(self) -> int:
        """0 when every image is there, 1 when some failed or were not reached."""
        return 1 if self.interrupted or self.count("failed") or self.count("not started") else 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def write(self, path: Path) -> None:
        """Write as JSON, whole or not at all."""
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(self.as_dict(), indent=1) + "\n", encoding="utf-8")
        os.replace(part, path)


def versions() -> dict[str, str]:
    """restorekit, Python, the platform, and the libraries that decide results."""
    from restorekit import __version__

    found = {"restorekit": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for name in REPORTED_PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def peak_memory_mb() -> float:
    """The highest resident size of this process so far; 0 where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
