"""Archives of arrays that ``numpy.savez`` wrote: read without running what they hold, and not at any size."""

from __future__ import annotations

import zipfile
from math import prod
from pathlib import Path

import numpy as np
import torch
from numpy.lib import format
from torch import Tensor

from restorekit.errors import ModelError

SUFFIX = ".npy"


def is_archive(path: Path) -> bool:
    """Whether a file is a zip archive of arrays and nothing else."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return False
    return bool(names) and all(name.endswith(SUFFIX) for name in names)


def read(path: Path, growth: int) -> dict[str, Tensor]:
    """The arrays of numbers by name; other ones are left out.

    Raises ModelError for an archive that unpacks to more than ``growth`` times its size, holds Python objects, or whose
    arrays are not of the size that they say, and errors of any kind for a broken one.
    """
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        held = sum(entry.file_size for entry in entries)
        if held > growth * path.stat().st_size:
            raise ModelError(
                f"{path}: unpacks to {held} bytes, so it is broken or made to do harm; get it again from its authors"
            )
        found = {entry.filename.removesuffix(SUFFIX): _array(path, archive, entry) for entry in entries}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def _array(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Tensor | None:
    with archive.open(entry) as file:
        version = format.read_magic(file)
        read_header = {(1, 0): format.read_array_header_1_0, (2, 0): format.read_array_header_2_0}[version]
        shape, by_columns, kind = read_header(file)
        if kind.hasobject:
            raise ModelError(
                f"{path}: {entry.filename} holds Python objects, which may run a program, and is not opened; "
                "get a file of plain numbers"
            )
        if kind.kind not in "biuf":
            return None
        content = file.read()
    if len(content) != prod(shape) * kind.itemsize:
        raise ModelError(f"{path}: {entry.filename} is cut off or broken; get it again")
    array = np.frombuffer(content, kind).reshape(shape, order="F" if by_columns else "C")
    return torch.from_numpy(array.astype(kind.newbyteorder("="), order="C"))
