"""Pairs of a dark and a well-exposed picture, from brackets that a camera took on a tripod.

    python benchmarks/dark_exposures.py BRACKETS OUT

BRACKETS holds folders of exposures, OUT gets dark/NAME.png and good/NAME.png, to be measured by
``restorekit eval MODEL OUT/good --inputs OUT/dark``. No generator made them: noise, curve and 8 bits are those of
cameras. Folders and exposures that are not there are passed over and named.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import restorekit as rk

PAIRS = (
    ("jamyl_house", "A.jpg", "C.jpg"),
    ("jamyl_house", "B.jpg", "C.jpg"),
    ("jamyl_lighthouse", "A.jpg", "B.jpg"),
    ("jamyl_mask", "A.jpg", "C.jpg"),
    ("jamyl_mask", "B.jpg", "C.jpg"),
    ("jamyl_room", "room1.png", "room6.png"),
    ("jamyl_room", "room2.png", "room6.png"),
    ("jamyl_room", "room3.png", "room6.png"),
    ("motion_SculptureGarden", "1.png", "4.png"),
    ("motion_SculptureGarden", "2.png", "4.png"),
)
"""Folder, a dark exposure, and the one that shows the most of the scene."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("brackets", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    for folder, dark, good in PAIRS:
        sources = [options.brackets / folder / name for name in (dark, good)]
        if not all(source.exists() for source in sources):
            print(f"{folder}: no {dark} or {good}")
            continue
        for source, kind in zip(sources, ("dark", "good"), strict=True):
            target = options.out / kind / f"{folder}_{Path(dark).stem}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.suffix == ".png":
                shutil.copyfile(source, target)
            else:
                rk.write(rk.read(source), target)


if __name__ == "__main__":
    main()
