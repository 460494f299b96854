"""Brackets through restorekit and other programs: time, memory, and distance from the truth.

    python benchmarks/hdr_brackets.py BRACKET... [--rounds 3] [--only NAME,...] [--work FOLDER] [--markdown FILE]

Each BRACKET is a folder that ``make_bracket.py`` wrote. Every contender runs once a round on each, one after the other,
as far as it is installed: align_image_stack and enfuse (Debian's hugin-tools, enfuse), OpenCV, luminance-hdr-cli
(luminance-hdr), hdrmerge, and those restorekit pipelines that are there. CPU time is user + system of the program and
its children, memory the largest resident size of one of them; the smallest CPU time of the rounds counts.
Results of programs that choose the reference themselves are compared in the frame of every shot, and the best counts.
``--only`` takes those whose name contains one of the words; ``--rounds 0`` measures again what lies in the work folder.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from hdr_contenders import Bracket, Contender, folder_of, ours, peers, read_picture, warped
from hdr_metrics import (
    Distances,
    RadianceScore,
    brought_onto,
    mosaic_score,
    motion_score,
    pose_error,
    radiance_score,
    tile_residual,
)
from make_bracket import Image32, Truth, linear

import restorekit as rk
from restorekit.color.primaries import conversion
from restorekit.color.transfer import decode

POSE_ERROR = "pose error, px: median / 95 % / max"
RESIDUAL = "residual of tiles, px: median / 95 % / max"
TABLES = (
    ("CPU s", "wall s", "peak MB"),
    (POSE_ERROR, RESIDUAL),
    (
        "PU21-PSNR / quarter size, dB",
        "log2 RMSE, stops: dark / mid / bright / highlight",
        "colour, degrees",
        "scale, stops",
    ),
    ("PSNR, dB", "bound, dB", "excess, dB"),
    ("PU21-PSNR of motion, dB", "reference alone, dB", "intruders", "hole"),
)
"""Columns of the tables."""


def read_radiance(path: Path) -> Image32:
    """Linear BT.709 light of any picture, ``[H,W,3]``; pictures for a display are decoded."""
    frame = rk.read(path).as_float()
    pixels = decode(frame.pixels, frame.state.transfer) if frame.state.transfer != "linear" else frame.pixels
    light = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
    if frame.state.primaries not in ("bt709", "camera"):
        light = cv2.transform(light, np.asarray(conversion(frame.state.primaries, "bt709"), np.float32))
    return light


def read_mosaic(path: Path) -> Image32:
    """A merged mosaic without black level and relative to white, ``[H,W]``."""
    frame = rk.read(path)
    levels = frame.pixels[0].numpy().astype(np.float32)
    if frame.state.reference != "sensor" or frame.camera.black is None or frame.camera.white is None:
        return levels
    black = np.float32(frame.camera.black.mean())
    return (levels - black) / (np.float32(frame.camera.white[0]) - black)


def cells(contender: Contender, bracket: Bracket) -> dict[str, str]:
    """What a contender's last run left, by the columns of the tables."""
    truth = bracket.truth
    frames = bracket.frames if contender.any_frame else {truth.reference: truth}
    found: dict[str, str] = {}
    if contender.cpu_s:
        found["CPU s"] = f"{min(contender.cpu_s):.1f} ({', '.join(f'{s:.1f}' for s in contender.cpu_s)})"
        found |= {"wall s": f"{min(contender.wall_s):.1f}", "peak MB": f"{max(contender.peak_mb):.0f}"}
    others = [shot for shot in range(len(truth.evs)) if shot != truth.reference]
    matrices = contender.matrices() if contender.matrices is not None else {}
    if matrices:
        size = truth.radiance.shape[1], truth.radiance.shape[0]
        found[POSE_ERROR] = by_shot(
            [pose_error(matrices[shot], truth.poses[shot], *size) for shot in others if shot in matrices], 3
        )
    if contender.aligned is not None and (matrices or contender.matrices is None):
        shots = contender.aligned()
        found[RESIDUAL] = by_shot([tile_residual(shots[truth.reference], shots[shot], truth.moving) for shot in others])
    if contender.makes in ("picture", "radiance"):
        result = read_radiance(contender.output())
        if contender.makes == "radiance":
            scores = {shot: radiance_score(result, frame.radiance) for shot, frame in frames.items()}
            best = max(scores, key=lambda shot: scores[shot].pu21_db)
            found |= radiance_cells(scores[best])
            result = result if best == truth.reference else warped(result, truth.poses[best])
        if truth.object is not None:
            alone = linear(read_picture(Path(bracket.jpegs[truth.reference])).astype(np.float32) / 255)
            ghosts = motion_score(placed(result, truth), truth, alone, radiance=contender.makes == "radiance")
            found["intruders"], found["hole"] = f"{ghosts.intruders:.2f}", f"{ghosts.hole:.2f}"
            if contender.makes == "radiance":
                found["PU21-PSNR of motion, dB"] = f"{ghosts.pu21_db:.2f}"
                found["reference alone, dB"] = f"{ghosts.reference_db:.2f}"
    if contender.makes == "mosaic":
        scored = read_mosaic(contender.output())
        mosaic = max((mosaic_score(scored, frame) for frame in frames.values()), key=lambda score: score.psnr_db)
        found["PSNR, dB"], found["bound, dB"] = f"{mosaic.psnr_db:.2f}", f"{mosaic.bound_db:.2f}"
        found["excess, dB"] = f"{mosaic.excess_db:.2f}"
    return found


def known_poses_and_response(bracket: Bracket) -> Image32:
    """What a plain weighted mean of the JPEGs gives when poses, exposures and response need not be found."""
    total, weights = np.float32(0), np.float32(1e-9)
    for path, pose, ev in zip(bracket.jpegs, bracket.truth.poses, bracket.truth.evs, strict=True):
        shot = warped(read_picture(Path(path)), pose).astype(np.float32) / 255
        light = linear(shot) / np.float32(2.0**ev)
        highest, lowest = shot.max(-1, keepdims=True), shot.min(-1, keepdims=True)
        weight = ((0.985 - highest) / 0.15).clip(0, 1) * (lowest / 0.03).clip(0.02, 1) * np.float32(2.0**ev)
        weight = np.maximum(weight, 1e-4 if ev == bracket.truth.evs[0] else 0)
        total, weights = total + weight * light, weights + weight
    result: Image32 = total / weights
    return result


def by_shot(distances: Sequence[Distances], digits: int = 2) -> str:
    return ", ".join(" / ".join(f"{value:.{digits}f}" for value in (d.median, d.p95, d.max)) for d in distances)


def placed(result: Image32, truth: Truth) -> Image32:
    """A result moved onto the truth as a whole; what it lacks is filled with the truth."""
    whole = truth.radiance.copy()
    part = brought_onto(result, truth.radiance)
    whole[part.window] = part.pixels
    return whole


def without_programs(bracket: Bracket) -> dict[str, dict[str, str]]:
    """Rows of what nobody did, and of what could be done."""
    truth = bracket.truth
    shots = [read_picture(Path(path)) for path in bracket.jpegs]
    others = [shot for shot in range(len(shots)) if shot != truth.reference]
    size = truth.radiance.shape[1], truth.radiance.shape[0]
    rows: dict[str, dict[str, str]] = {}
    for name, poses in (("not aligned", np.stack([np.eye(3)] * len(shots))), ("true poses", truth.poses)):
        rows[name] = {
            POSE_ERROR: by_shot([pose_error(poses[shot], truth.poses[shot], *size) for shot in others]),
            RESIDUAL: by_shot(
                [
                    tile_residual(shots[truth.reference], warped(shots[shot], poses[shot]), truth.moving)
                    for shot in others
                ]
            ),
        }
    if truth.object is None:
        score = radiance_score(known_poses_and_response(bracket), truth.radiance)
        rows["weighted mean, poses and response known"] = radiance_cells(score)
    return rows


def radiance_cells(score: RadianceScore) -> dict[str, str]:
    return {
        TABLES[2][0]: f"{score.pu21_db:.2f} / {score.quarter_db:.2f}",
        TABLES[2][1]: " / ".join(f"{value:.3f}" for value in score.log2_rmse.values()),
        TABLES[2][2]: f"{score.angle:.2f}",
        TABLES[2][3]: f"{score.scale_ev:+.2f}",
    }


def table(rows: dict[str, dict[str, str]], columns: Sequence[str]) -> Iterator[str]:
    """A markdown table of the rows that have one of these columns."""
    shown = {name: row for name, row in rows.items() if any(column in row for column in columns)}
    used = [column for column in columns if any(column in row for row in shown.values())]
    if used:
        yield f"| | {' | '.join(used)} |"
        yield f"| --- |{' ---: |' * len(used)}"
        for name, row in shown.items():
            yield f"| {name} | {' | '.join(row.get(column, '') for column in used)} |"
        yield ""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("brackets", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only")
    parser.add_argument("--work", type=Path, default=Path("hdr_brackets_work"))
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    lines: list[str] = []
    for folder in arguments.brackets:
        bracket, work = Bracket(folder.resolve()), arguments.work.resolve() / folder.name
        wanted = arguments.only.split(",") if arguments.only else [""]
        field_ = [c for c in (*ours(bracket, work), *peers(bracket, work)) if any(word in c.name for word in wanted)]
        if not arguments.rounds:
            field_ = [contender for contender in field_ if contender.recall(work)]
        loads = []
        for _ in range(arguments.rounds):
            for contender in field_:
                if not contender.failure:
                    loads.append(os.getloadavg()[0])
                    contender.run(folder_of(work, contender.name))
                    contender.keep(work)
        rows = without_programs(bracket)
        for contender in field_:
            rows[contender.name] = (
                {"CPU s": f"failed: {contender.failure}"} if contender.failure else cells(contender, bracket)
            )
        height, width = bracket.truth.radiance.shape[:2]
        lines += [f"### {folder.name}: {len(bracket.truth.evs)} shots of {width}x{height}, EV {bracket.evs}", ""]
        for columns in TABLES:
            lines += table(rows, columns)
        lines += [
            f"{platform.machine()}, {os.cpu_count()} threads, load {min(loads, default=0):.1f} to "
            f"{max(loads, default=0):.1f}, {arguments.rounds} rounds interleaved. Distances shot by shot, "
            "without the reference, darkest first.",
            "",
        ]
        text = "\n".join(lines)
        if arguments.markdown:
            arguments.markdown.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
