"""How time and memory of bracket processing grow with the number of frames and with their size.

    python benchmarks/hdr_growth.py PHOTO [--rounds 2] [--frames 2,3,5,7,9] [--megapixels 1,3,6,12,24,50,100]
        [--work FOLDER] [--only NAME,...] [--plot docs/images/hdr_growth.png]

Makes brackets out of the photograph (``make_bracket.py``, JPEGs, kept in the work folder): nine shots of 24 megapixels
one stop apart, of which the middle ones are taken, and three shots of every size. Runs the restorekit pipelines that
are there and OpenCV's AlignMTB with MergeMertens, interleaved; CPU time is user + system, memory the largest resident
size, both including start-up. Prints tables and draws them; results are kept in ``growth.json`` of the work folder, and
with ``--rounds 0`` it draws those.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from hdr_contenders import HERE, Contender, shipped
from make_bracket import make_bracket
from PIL import Image, ImageDraw, ImageFont

PIPELINES = ("bracket-fusion", "bracket-to-hdr")
COLOURS = {"restorekit bracket-fusion": (25, 105, 175), "restorekit bracket-to-hdr": (20, 140, 90)}
OTHER_COLOUR = (200, 95, 30)
BASE_MEGAPIXELS = 24.0
WIDTH, HEIGHT, SHARPER = 560, 340, 2
"""Size of one plot in px, and by how much finer it is drawn than kept."""

Results = dict[str, dict[str, dict[str, tuple[float, float]]]]
"""CPU seconds and peak MB by axis (frames, megapixels), program, and place on the axis."""


def contenders(shots: Sequence[Path], pipelines: Sequence[str]) -> Iterator[Contender]:
    files = [str(shot) for shot in shots]
    for pipeline in pipelines:
        command = [sys.executable, "-m", "restorekit", "run", pipeline, *files, "out"]
        yield Contender(f"restorekit {pipeline}", "", [command], Path)
    command = [sys.executable, str(HERE / "opencv_bracket.py"), "mertens", *files, "o.png"]
    yield Contender("OpenCV AlignMTB + Mertens", "", [command], Path)


def brackets(
    photo: Path, work: Path, frames: Sequence[int], sizes: Sequence[float]
) -> Iterator[tuple[str, str, list[Path]]]:
    """Axis, place on it, and the shots of every bracket to measure; those not there yet are made."""

    def made(folder: Path, megapixels: float, evs: Sequence[float]) -> list[Path]:
        shots = [folder / f"b{shot}.jpg" for shot in range(len(evs))]
        if not all(shot.exists() for shot in shots):
            make_bracket([photo], folder, megapixels=megapixels, evs=evs, formats=("jpeg",))
        return shots

    if frames:
        most = max(frames)
        evs = [float(shot - most // 2) for shot in range(most)]
        shots = made(work / f"frames_{most}", BASE_MEGAPIXELS, evs)
        for count in frames:
            start = most // 2 - count // 2
            yield "frames", str(count), shots[start : start + count]
    for size in sizes:
        yield "megapixels", f"{size:g}", made(work / f"size_{size:g}", size, (-2, 0, 2))


def table(results: Results, axis: str) -> Iterator[str]:
    programs = results.get(axis, {})
    places = sorted({place for row in programs.values() for place in row}, key=float)
    if places:
        yield f"| {axis} | {' | '.join(places)} |"
        yield f"| --- |{' ---: |' * len(places)}"
        for which, unit in ((0, "CPU s"), (1, "peak MB")):
            for program, row in programs.items():
                cells = [f"{row[place][which]:.{1 - which}f}" if place in row else "" for place in places]
                yield f"| {program}, {unit} | {' | '.join(cells)} |"
        yield ""


def draw(results: Results, path: Path) -> None:
    """Four plots: CPU time and memory against frames and megapixels."""
    sheet = Image.new("RGB", (2 * WIDTH * SHARPER, 2 * HEIGHT * SHARPER), "white")
    for row, (axis, label) in enumerate(
        (("frames", "frames of 24 megapixels"), ("megapixels", "megapixels, 3 frames"))
    ):
        for column, (which, unit) in enumerate(((0, "CPU seconds"), (1, "peak memory, GB"))):
            lines = {
                program: [
                    (float(at), values[which] / (1, 1000)[which])
                    for at, values in sorted(places.items(), key=lambda p: float(p[0]))
                ]
                for program, places in results.get(axis, {}).items()
            }
            if lines:
                sheet.paste(_plot(lines, label, unit), (column * WIDTH * SHARPER, row * HEIGHT * SHARPER))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.resize((2 * WIDTH, 2 * HEIGHT), Image.Resampling.LANCZOS).save(path, optimize=True)


def _plot(lines: dict[str, list[tuple[float, float]]], label: str, unit: str) -> Image.Image:
    """One plot with axes from 0."""
    k = SHARPER
    picture = Image.new("RGB", (WIDTH * k, HEIGHT * k), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(12 * k)
    left, right, top, bottom = 52 * k, (WIDTH - 20) * k, 34 * k, (HEIGHT - 44) * k
    xs, ys = (
        _ticks(max(x for line in lines.values() for x, _ in line)),
        _ticks(max(y for line in lines.values() for _, y in line)),
    )

    def at(x: float, y: float) -> tuple[float, float]:
        return left + (right - left) * x / xs[-1], bottom - (bottom - top) * y / ys[-1]

    for y in ys:
        pen.line((at(0, y), at(xs[-1], y)), fill=(225, 225, 225), width=k)
        pen.text((left - 6 * k, at(0, y)[1]), f"{y:g}", fill="black", font=font, anchor="rm")
    for x in xs:
        pen.text((at(x, 0)[0], bottom + 6 * k), f"{x:g}", fill="black", font=font, anchor="ma")
    pen.line((at(0, 0), at(xs[-1], 0)), fill="black", width=k)
    pen.text(((left + right) / 2, (HEIGHT - 8) * k), label, fill="black", font=font, anchor="md")
    pen.text((8 * k, 6 * k), unit, fill="black", font=font)
    for index, (name, line) in enumerate(lines.items()):
        colour = COLOURS.get(name, OTHER_COLOUR)
        points = [at(x, y) for x, y in line]
        pen.line(points, fill=colour, width=2 * k, joint="curve")
        for x, y in points:
            pen.ellipse((x - 3 * k, y - 3 * k, x + 3 * k, y + 3 * k), fill=colour)
        pen.text((left + 10 * k, top + (4 + 16 * index) * k), name, fill=colour, font=font)
    return picture


def _ticks(most: float) -> list[float]:
    """Round numbers from 0 to at least ``most``, at most seven."""
    magnitude = 10.0 ** np.floor(np.log10(max(most, 1e-9) / 6))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude * 6 >= most)
    return [float(step * index) for index in range(int(np.ceil(most / step)) + 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("photo", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--frames", default="2,3,5,7,9")
    parser.add_argument("--megapixels", default="1,3,6,12,24,50,100")
    parser.add_argument("--only", default="")
    parser.add_argument("--work", type=Path, default=Path("hdr_growth_work"))
    parser.add_argument("--plot", type=Path, default=HERE.parent / "docs" / "images" / "hdr_growth.png")
    arguments = parser.parse_args()
    work: Path = arguments.work.resolve()
    kept = work / "growth.json"
    results: Results = json.loads(kept.read_text()) if kept.exists() else {}
    frames = [int(count) for count in arguments.frames.split(",") if count]
    sizes = [float(size) for size in arguments.megapixels.split(",") if size]
    loads = [os.getloadavg()[0]]
    if arguments.rounds:
        pipelines = shipped(PIPELINES)
        for axis, place, shots in brackets(arguments.photo, work, frames, sizes):
            field_ = [
                c for c in contenders(shots, pipelines) if any(word in c.name for word in arguments.only.split(","))
            ]
            for _ in range(arguments.rounds):
                for contender in field_:
                    loads.append(os.getloadavg()[0])
                    contender.run(work / "run")
            for contender in field_:
                if contender.failure:
                    print(f"{contender.name}, {axis} {place}: {contender.failure}", file=sys.stderr)
                    continue
                row = results.setdefault(axis, {}).setdefault(contender.name, {})
                row[place] = (min(contender.cpu_s), max(contender.peak_mb))
            kept.write_text(json.dumps(results, indent=1))
    draw(results, arguments.plot)
    print("\n".join([*table(results, "frames"), *table(results, "megapixels")]))
    print(f"Load {min(loads):.1f} to {max(loads):.1f}, {arguments.rounds} rounds interleaved.")


if __name__ == "__main__":
    main()
