"""Many pictures on one sheet, each with its name.

python benchmarks/contact_sheet.py OUT.jpg PICTURE... [--columns 4] [--cell 360x260]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

import restorekit as rk


def thumbnail(path: Path, width: int, height: int) -> NDArray[np.uint8]:
    """A picture [height,width,3] in BGR, whole, on black."""
    pixels = rk.read(path).as_float().pixels
    image = pixels.expand(3, -1, -1).permute(1, 2, 0).mul(255).round().byte().numpy()[..., ::-1]
    factor = min(width / image.shape[1], height / image.shape[0])
    size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
    small = cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_AREA)
    cell = np.zeros((height, width, 3), np.uint8)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    cell[top : top + size[1], left : left + size[0]] = small
    return cell


def sheet(paths: list[Path], columns: int, width: int, height: int) -> NDArray[np.uint8]:
    """All thumbnails in rows, names below them."""
    rows = -(-len(paths) // columns)
    page = np.zeros((rows * (height + 22), columns * (width + 4), 3), np.uint8)
    for index, path in enumerate(paths):
        y, x = (index // columns) * (height + 22), (index % columns) * (width + 4)
        page[y : y + height, x : x + width] = thumbnail(path, width, height)
        where = (x + 4, y + height + 15)
        cv2.putText(page, path.stem[:48], where, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (220, 220, 220), 1, cv2.LINE_AA)
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--columns", type=int, default=4)
    parser.add_argument("--cell", default="360x260")
    arguments = parser.parse_args()
    width, height = (int(side) for side in arguments.cell.split("x"))
    page = sheet(arguments.pictures, arguments.columns, width, height)
    cv2.imwrite(str(arguments.out), page, [cv2.IMWRITE_JPEG_QUALITY, 88])


if __name__ == "__main__":
    main()
