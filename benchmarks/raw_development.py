"""Time and memory of developing a 24-megapixel RAW file, beside other programs, in one interleaved run.

    python benchmarks/raw_development.py [--rounds 3] [--work FOLDER] [--markdown FILE]

Makes eight 6000x4000 16-bit RGGB DNG files (benchmarks/make_raw.py), then runs, round by round:
restorekit's raw-to-srgb to 16-bit TIFF on all eight (per image, start-up amortised), the same with
bilinear demosaicing, and darktable-cli, rawtherapee-cli and LibRaw's dcraw_emu on one, as far as they are installed.
CPU time is user + system of the process and its children, memory the largest resident size.
The smallest CPU time of the rounds is reported.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
IMAGES = 8


@dataclass
class Contender:
    """A program to measure: its command, and how many images one call makes."""

    name: str
    command: Sequence[str]
    images: int
    output: Path
    cpu_s: list[float] = field(default_factory=list)
    peak_mb: list[float] = field(default_factory=list)

    def run(self) -> None:
        if self.output.is_dir():
            shutil.rmtree(self.output)
        self.output.unlink(missing_ok=True)
        process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        _, status, usage = os.wait4(process.pid, 0)
        words = process.stderr.read().decode() if process.stderr else ""
        if status != 0:
            raise SystemExit(f"{self.name} failed: {words}")
        self.cpu_s.append((usage.ru_utime + usage.ru_stime) / self.images)
        self.peak_mb.append(usage.ru_maxrss / 1024)


def contenders(work: Path) -> list[Contender]:
    one, many = work / "raw" / "0.dng", work / "raw"
    ours = [sys.executable, "-m", "restorekit", "run", "raw-to-srgb", str(many)]
    found = [
        Contender("restorekit raw-to-srgb (Menon)", [*ours, str(work / "menon")], IMAGES, work / "menon"),
        Contender(
            "restorekit raw-to-srgb (bilinear)",
            [*ours, str(work / "bilinear"), "--set", "raw.demosaic.method=bilinear"],
            IMAGES,
            work / "bilinear",
        ),
    ]
    peers = {
        "darktable-cli": (
            str(one),
            str(work / "darktable.tif"),
            "--core",
            "--configdir",
            str(work / "dt"),
            "--library",
            ":memory:",
            "--disable-opencl",
        ),
        "rawtherapee-cli": ("-o", str(work / "rawtherapee.tif"), "-t", "-b16", "-Y", "-d", "-c", str(one)),
        "dcraw_emu": ("-T", "-w", "-q", "3", "-Z", str(work / "dcraw.tif"), str(one)),
    }
    for name, arguments in peers.items():
        program = shutil.which(name) or shutil.which(f"/usr/lib/libraw/{name}")
        if program is None:
            print(f"{name}: not installed, left out", file=sys.stderr)
            continue
        out = next(Path(a) for a in arguments if a.endswith(".tif"))
        found.append(Contender(name, [program, *arguments], 1, out))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--markdown", type=Path, default=None)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work: Path = arguments.work or Path(temporary)
        raw = work / "raw"
        raw.mkdir(parents=True, exist_ok=True)
        if not (raw / "0.dng").exists():
            subprocess.run([sys.executable, str(HERE / "make_raw.py"), str(raw / "0.dng")], check=True)
        for index in range(1, IMAGES):
            if not (raw / f"{index}.dng").exists():
                os.link(raw / "0.dng", raw / f"{index}.dng")
        field_ = contenders(work)
        loads = []
        for _ in range(arguments.rounds):
            for contender in field_:
                loads.append(os.getloadavg()[0])
                contender.run()
    rows = ["| program | CPU s an image | peak MB |", "| --- | --- | --- |"]
    rows += [
        f"| {c.name} | {min(c.cpu_s):.2f} (of {', '.join(f'{s:.2f}' for s in c.cpu_s)}) | {max(c.peak_mb):.0f} |"
        for c in field_
    ]
    rows.append(
        f"\n{platform.machine()}, {os.cpu_count()} threads, load {min(loads):.1f} to {max(loads):.1f}, "
        f"{arguments.rounds} rounds interleaved."
    )
    text = "\n".join(rows)
    print(text)
    if arguments.markdown:
        arguments.markdown.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
