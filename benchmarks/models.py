"""Measure the models that have weights here again, and tell which numbers of their cards are stale.

    python benchmarks/models.py DATA_FOLDER [MODEL...] [--write] [--device auto]

Each number under ``measured`` of a card is measured by its own command, a card without any on the sets of its task.
Pictures lie in DATA_FOLDER/NAME, in small letters: set5, kodak24, classic5. One line a number: what the card says, what
was measured, and whether that is within 0.02 dB. The exit code is 1 where one is not. ``--write`` writes what was
measured into the cards, in place of their entries.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from restorekit.zoo import cards, store
from restorekit.zoo.card import ModelCard, Score

TOLERANCE_DB = 0.02

SETS = {
    "super-resolution": [("Set5", "")],
    "denoising": [("Kodak24", f"--sigma {sigma}") for sigma in (15, 25, 50)],
    "jpeg": [("classic5", f"--quality {quality}") for quality in (10, 20, 40)],
}
"""What a model of a task is measured on, with the options of ``restorekit eval``."""


class IndentedLists(yaml.SafeDumper):
    """Lists are indented below their key, as in the cards."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def wanted(card: ModelCard) -> Iterator[tuple[Score, str]]:
    """The entries of a card with their commands; for a card without any, those of its task, without numbers."""
    if card.measured:
        yield from ((score, command_of(card.id, score)) for score in card.measured)
        return
    for name, options in SETS.get(card.task, []):
        yield Score(set=name), f"restorekit eval {card.id} {place(name)} {options}".strip()


def place(name: str) -> str:
    """What stands for the folder of a set in a command."""
    return f"{name.upper()}_FOLDER"


def command_of(id: str, score: Score) -> str:
    return score.command or f"restorekit eval {id} {place(score.set)}"


def measured(command: str, name: str, data: Path, device: str) -> dict[str, Any]:
    """What a card says of a set, measured now by its command. Raises RuntimeError where the command fails."""
    arguments = [part.replace(place(name), str(data / name.lower())) for part in shlex.split(command)[1:]]
    program = [sys.executable, "-m", "restorekit", *arguments, "--device", device, "--json"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no words"])[-1])
    entry: dict[str, Any] = json.loads(done.stdout)["measured"]
    return {**entry, "set": name, "command": command}


def is_stale(score: Score, found: dict[str, Any]) -> bool:
    """Whether a card says another number than was measured, or none."""
    psnr = found.get("psnr", math.inf)  # which JSON has not
    return score.psnr is None or abs(score.psnr - psnr) > TOLERANCE_DB + 1e-9


def with_measured(text: str, entries: Sequence[dict[str, Any]]) -> str:
    """The text of a card with other entries under ``measured``; all other lines stay as they are."""
    block = yaml.dump({"measured": list(entries)}, Dumper=IndentedLists, sort_keys=False, width=120, allow_unicode=True)
    lines = text.splitlines(keepends=True)
    starts = [number for number, line in enumerate(lines) if line[0] not in " #-\n"]
    key = {lines[start].partition(":")[0]: start for start in starts}
    first = key.get("measured", key.get("notes", len(lines)))
    after = next((start for start in starts if start > first), len(lines)) if "measured" in key else first
    return "".join(lines[:first]) + block + "".join(lines[after:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("models", nargs="*", help="default: all that have weights here")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    stale = 0
    for id, card in cards.cards().items():
        if (options.models and id not in options.models) or store.weights_path(card) is None:
            continue
        entries = []
        for score, command in wanted(card):
            try:
                found = measured(command, score.set, options.data, options.device)
            except RuntimeError as error:
                print(f"failed  {command}: {error}")
                entries += [score.model_dump(exclude_defaults=True)] if score in card.measured else []
                stale += 1
                continue
            off = is_stale(score, found)
            stale += off
            print(f"{'stale' if off else 'good '}  {command}: card {score.psnr}, measured {found.get('psnr')} dB")
            note = {"source": score.source} if score.source and not off else {}
            entries.append({**found, **note})
        if options.write and entries:
            path = cards.files()[id]
            path.write_text(with_measured(path.read_text(encoding="utf-8"), entries), encoding="utf-8")
    sys.exit(1 if stale else 0)


if __name__ == "__main__":
    main()
