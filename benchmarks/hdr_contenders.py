"""The programs that ``hdr_brackets.py`` and ``hdr_growth.py`` measure: their commands, and where their results lie."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from make_bracket import Matrix, Truth, seen
from numpy.typing import NDArray

HERE = Path(__file__).parent
MEASURED = ("cpu_s", "wall_s", "peak_mb", "failure")
LAUNCHER = """
import os, sys
pid = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)
_, status, used = os.wait4(pid, 0)
with open(sys.argv[1], "w") as file:
    print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, file=file)
sys.exit(status != 0)
"""
"""Runs a command from a small process: Linux counts what the starting process held as memory of the started one."""
Picture = NDArray[np.uint8]


@dataclass
class Bracket:
    """A folder with shots and their truth."""

    folder: Path

    @cached_property
    def truth(self) -> Truth:
        return Truth.load(self.folder)

    @cached_property
    def frames(self) -> dict[int, Truth]:
        """The truth in the frame of every shot; some programs take another reference."""
        truth = self.truth
        height, width = truth.radiance.shape[:2]
        return {
            shot: replace(truth, radiance=seen(truth.radiance, pose, width, height, 0))
            for shot, pose in enumerate(truth.poses)
        }

    @property
    def jpegs(self) -> list[str]:
        return self._shots("b*.jpg")

    @property
    def dngs(self) -> list[str]:
        return self._shots("r*.dng")

    @property
    def evs(self) -> str:
        return ",".join(f"{ev:g}" for ev in self.truth.evs)

    def _shots(self, pattern: str) -> list[str]:
        return [str(path) for path in sorted(self.folder.glob(pattern), key=lambda path: int(path.stem[1:]))]


@dataclass
class Contender:
    """A program to measure: commands that run one after the other, and what they leave.

    ``makes`` is what kind of picture ``output`` is, or nothing but aligned shots. ``aligned`` gives the aligned shots,
    ``matrices`` the poses that it found, where it tells them. ``any_frame`` is for programs whose result may lie in the
    frame of another shot than the middle one.
    """

    name: str
    makes: str
    commands: Sequence[Sequence[str]]
    output: Callable[[], Path]
    aligned: Callable[[], list[Picture]] | None = None
    matrices: Callable[[], dict[int, Matrix]] | None = None
    any_frame: bool = False
    cpu_s: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    peak_mb: list[float] = field(default_factory=list)
    failure: str = ""

    def run(self, work: Path) -> None:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        (work / "home").mkdir()
        environment = os.environ | {"QT_QPA_PLATFORM": "offscreen", "XDG_CONFIG_HOME": str(work / "home")}
        cpu = peak = 0.0
        started = time.perf_counter()
        for command in self.commands:
            launch = [sys.executable, "-I", "-S", "-c", LAUNCHER, "used.txt", *command]
            done = subprocess.run(launch, cwd=work, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            if done.returncode:
                words = done.stdout.decode(errors="replace").split()
                self.failure = " ".join(words)[-200:] or f"exit status {done.returncode}"
                return
            seconds, megabytes = map(float, (work / "used.txt").read_text().split())
            cpu, peak = cpu + seconds, max(peak, megabytes)
        self.cpu_s.append(cpu)
        self.wall_s.append(time.perf_counter() - started)
        self.peak_mb.append(peak)

    def keep(self, work: Path) -> None:
        """Write what was measured beside the folder of the run."""
        measured = {name: getattr(self, name) for name in MEASURED}
        folder_of(work, self.name).with_suffix(".json").write_text(json.dumps(measured))

    def recall(self, work: Path) -> bool:
        """Take up what an earlier run measured; whether there is one."""
        kept = folder_of(work, self.name).with_suffix(".json")
        if kept.exists():
            for name, value in json.loads(kept.read_text()).items():
                setattr(self, name, value)
        return kept.exists()


def peers(bracket: Bracket, work: Path) -> Iterator[Contender]:
    """Other programs, each in the folder that ``work`` has for it."""
    jpegs, reference = bracket.jpegs, bracket.truth.reference
    first = [jpegs[reference], *(jpeg for index, jpeg in enumerate(jpegs) if index != reference)]
    order = [reference, *(index for index in range(len(jpegs)) if index != reference)]
    python = [sys.executable, str(HERE / "opencv_bracket.py")]
    tiffs = [f"ais_{index:04}.tif" for index in range(len(jpegs))]

    def at(name: str, file: str) -> Callable[[], Path]:
        return lambda: folder_of(work, name) / file

    def pictures(name: str, files: Iterable[str], shots: Sequence[int]) -> Callable[[], list[Picture]]:
        def read() -> list[Picture]:
            found = dict(zip(shots, files, strict=True))
            return [read_picture(folder_of(work, name) / found[shot]) for shot in range(len(found))]

        return read

    if installed("align_image_stack", "enfuse"):
        fuse = ["enfuse", "-o", "fused.tif", *tiffs]
        for name, files, shots, options in (
            ("align_image_stack + enfuse", jpegs, list(range(len(jpegs))), []),
            ("align_image_stack to the reference + enfuse", first, order, ["--align-to-first"]),
        ):
            align = ["align_image_stack", "-m", *options, "-a", "ais_", *files]
            yield Contender(name, "picture", [align, fuse], at(name, "fused.tif"), pictures(name, tiffs, shots))
    name = "OpenCV AlignMTB"
    aligned = pictures(name, [f"{index}.png" for index in range(len(jpegs))], range(len(jpegs)))
    yield Contender(name, "", [[*python, "align", *jpegs, "."]], at(name, "0.png"), aligned)
    name = "OpenCV AlignMTB + Mertens"
    yield Contender(name, "picture", [[*python, "mertens", *jpegs, "o.png"]], at(name, "o.png"))
    name = "OpenCV AlignMTB + Debevec"
    debevec = [*python, "debevec", *jpegs, "o.hdr", f"--ev={bracket.evs}"]
    yield Contender(name, "radiance", [debevec], at(name, "o.hdr"))
    if installed("luminance-hdr-cli"):
        merge = ["luminance-hdr-cli", "-e", bracket.evs, "--hdrResponseCurve", "srgb", "-s", "o.exr"]
        for name, options in (
            ("luminance-hdr", []),
            ("luminance-hdr -a MTB", ["-a", "MTB"]),
            ("luminance-hdr -a AIS", ["-a", "AIS"]),
            ("luminance-hdr -a AIS -t 0.5", ["-a", "AIS", "-t", "0.5"]),
        ):
            yield Contender(name, "radiance", [[*merge, *options, *jpegs]], at(name, "o.exr"), any_frame=True)
    if installed("hdrmerge") and bracket.dngs:
        merge = ["hdrmerge", "-b", "32", "-o", "o.dng", *bracket.dngs]
        yield Contender("hdrmerge", "mosaic", [merge], at("hdrmerge", "o.dng"), any_frame=True)


def ours(bracket: Bracket, work: Path) -> Iterator[Contender]:
    """The restorekit pipelines for brackets, as far as they are there."""
    there = shipped(("bracket-fusion", "bracket-to-hdr", "bracket-to-dng"))
    for pipeline, makes, shots, kinds in (
        ("bracket-fusion", "picture", bracket.jpegs, (".jpg", ".png", ".tif")),
        ("bracket-to-hdr", "radiance", bracket.jpegs, (".exr", ".hdr")),
        ("bracket-to-dng", "mosaic", bracket.dngs, (".dng", ".exr", ".tif")),
    ):
        if pipeline not in there or not shots:
            continue
        name = f"restorekit {pipeline}"
        folder = folder_of(work, name)

        def output(folder: Path = folder, kinds: Sequence[str] = kinds) -> Path:
            outputs = [Path(path) for path in report(folder)["outputs"]]
            found = min((p for p in outputs if p.suffix in kinds), key=lambda p: kinds.index(p.suffix))
            return found if found.is_absolute() else folder / found

        def matrices(folder: Path = folder) -> dict[int, Matrix]:
            return poses_of(report(folder)["measured"], len(bracket.jpegs) // 2)

        def aligned(
            shots: Sequence[str] = shots, matrices: Callable[[], dict[int, Matrix]] = matrices
        ) -> list[Picture]:
            found = matrices()
            return [
                warped(read_picture(Path(path)), found[shot]) if shot in found else read_picture(Path(path))
                for shot, path in enumerate(shots)
            ]

        command = [sys.executable, "-m", "restorekit", "run", pipeline, *shots, "out", "--report", "report.json"]
        yield Contender(name, makes, [command], output, aligned if makes != "mosaic" else None, matrices)


def shipped(pipelines: Iterable[str]) -> list[str]:
    """Those of these pipelines that restorekit has."""
    command = [sys.executable, "-m", "restorekit", "pipelines", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    missing = [pipeline for pipeline in pipelines if pipeline not in listed]
    if missing:
        print(f"restorekit {', '.join(missing)}: not there, left out", file=sys.stderr)
    return [pipeline for pipeline in pipelines if pipeline in listed]


def folder_of(work: Path, name: str) -> Path:
    return work / name.replace(" ", "_").replace("+", "and").replace(".", "")


def installed(*programs: str) -> bool:
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        print(f"{', '.join(missing)}: not installed, left out", file=sys.stderr)
    return not missing


def report(folder: Path) -> dict[str, Any]:
    """What restorekit's report says of the only job of its run."""
    (job,) = json.loads((folder / "report.json").read_text())["jobs"]
    return job


def poses_of(measured: dict[str, Sequence[float]], reference: int) -> dict[int, Matrix]:
    """Homographies by shot from ``align.homography N`` in a report, from the reference as it was shot.

    Those of the report are from the aligned frames, which may be cropped; the reference tells by how much.
    """
    found = {
        int(key.rsplit(" ", 1)[1]): np.array(value, float).reshape(3, 3)
        for key, value in measured.items()
        if key.startswith("align.homography ") and key.rsplit(" ", 1)[1].isdigit()
    }
    cropped = np.linalg.inv(found.get(reference, np.eye(3)))
    return {shot: pose @ cropped for shot, pose in found.items()}


def read_picture(path: Path) -> Picture:
    """``[H,W,3]``."""
    picture: Picture = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    return picture


def warped(picture: NDArray[Any], pose: Matrix) -> NDArray[Any]:
    """A shot brought onto the reference by its pose."""
    size = (picture.shape[1], picture.shape[0])
    return cv2.warpPerspective(picture, pose, size, flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)
