"""Write a picture row by row, so that it never exists whole: PNG and TIFF files, as :func:`write` would make them.

As there, the file lies beside the final one until it is complete, and the same rows give the same bytes, in whatever
pieces they come.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol

import numpy as np

from restorekit.errors import OutputError
from restorekit.frame import Frame
from restorekit.io.encode import png_ancillary
from restorekit.io.formats import FORMATS, OutputSpec, refusal
from restorekit.io.png_write import PngRows
from restorekit.io.samples import Samples
from restorekit.io.tiff_write import TiffRows
from restorekit.io.write import SOFTWARE, replacing

FORMATS_IN_ROWS = ("png", "tiff")


class RowTarget(Protocol):
    """A file format written in blocks of ``rows`` rows, of fewer at the bottom."""

    rows: int

    def write(self, block: Samples) -> None:
        """The next block ``[n,W,C]``."""

    def finish(self) -> None:
        """All rows are there."""


def streams(frame: Frame, spec: OutputSpec) -> bool:
    """Whether a frame of this state can be written row by row: PNG or TIFF, upright, and not PQ.

    PNG tells how bright a PQ picture is in front of its pixels. The pixels of ``frame`` are not looked at.
    """
    turned = frame.metadata.orientation != 1 or frame.metadata.crop is not None
    bright = spec.format == "png" and frame.state.transfer == "pq"
    return spec.format in FORMATS_IN_ROWS and not turned and not bright


def outline(strip: Frame) -> Frame:
    """The whole frame that a strip is of, without its content: planes of the right shape that take no memory."""
    height = strip.region.full_height if strip.region is not None else strip.height
    whole = strip.planes(lambda plane: plane.new_zeros(()).expand(plane.shape[0], height, plane.shape[2]))
    return replace(whole, region=None)


def file_shape(frame: Frame, spec: OutputSpec) -> tuple[int, int, int]:
    """Height, width and channels of the samples in a file, alpha among them where there is one and it is kept."""
    alpha = frame.alpha is not None and FORMATS[spec.format].alpha
    return frame.height, frame.width, frame.pixels.shape[0] + alpha


def open_stream(path: str | Path, frame: Frame, spec: OutputSpec, *, software: str = SOFTWARE) -> RowWriter:
    """Begin a file whose rows will come top to bottom.

    ``frame`` tells size, channels, state and metadata, and whether there is alpha; its pixels are not looked at and
    may be those of :func:`outline`. The format is that of ``spec``, ``software`` the name of the program.

    Raises OutputError, naming the file and the cure, when the format cannot hold the frame's state or not row by row,
    and when the disk is full, the folder is missing or may not be written.
    """
    path = Path(path)
    if message := refusal(spec.format, spec.bits, frame.state):
        raise OutputError(f"{path}: {message}")
    if not streams(frame, spec):
        raise OutputError(f"{path}: {spec.format} of this picture is not written row by row; write it whole")
    return RowWriter(path, frame, spec, software)


class RowWriter:
    """A file that is being written. Use as a context manager, or close or abort it.

    Rows are ``[n,W,C]`` of the type of the file: uint8, uint16 or float32, alpha behind the colours. Any failure
    removes the file.
    """

    def __init__(self, path: Path, frame: Frame, spec: OutputSpec, software: str) -> None:
        self.path = path
        self.shape = file_shape(frame, spec)
        self.kind: np.dtype[Any] = np.dtype({8: np.uint8, 16: np.uint16, 32: np.float32}[spec.depth])
        self.done = 0
        self._held = 0
        self._failure: OutputError | None = None
        self._place = contextlib.ExitStack()
        with self._removed_on_failure():
            file = self._place.enter_context(replacing(path))
            self._target = _target(file, frame, self.shape, self.kind, spec, software)
            self._block = np.empty((self._target.rows, *self.shape[1:]), self.kind)

    def write(self, rows: Samples) -> None:
        """The next rows.

        Raises OutputError where they do not fit the picture or cannot be written, and again after that.
        """
        with self._removed_on_failure():
            if rows.shape[1:] != self.shape[1:] or rows.dtype != self.kind:
                expected = f"[n,{self.shape[1]},{self.shape[2]}] of {self.kind}"
                raise OutputError(
                    f"{self.path}: rows are {list(rows.shape)} of {rows.dtype}, the file takes {expected}; convert them"
                )
            if self.done + len(rows) > self.shape[0]:
                raise OutputError(f"{self.path}: gets more than its {self.shape[0]} rows; open it with the full height")
            for block in self._blocks(rows):
                self._target.write(block)

    def close(self) -> Path:
        """Complete the file and put it in its place; gives its path.

        Raises OutputError where rows are missing or it cannot be written.
        """
        with self._removed_on_failure():
            if self.done < self.shape[0]:
                raise OutputError(f"{self.path}: has {self.done} of its {self.shape[0]} rows; write them all")
            if self._held:
                self._target.write(self._block[: self._held])
                self._held = 0
            self._target.finish()
            self._place.close()
        return self.path

    def abort(self) -> None:
        """Remove what was written. Nothing happens where the file is complete or removed already."""
        self._remove(_Aborted())

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            self.close()
        else:
            self.abort()

    def _blocks(self, rows: Samples) -> Iterator[Samples]:
        """Rows put together to full blocks; what is left over is kept."""
        size = len(self._block)
        self.done += len(rows)
        while len(rows):
            if self._held == 0 and len(rows) >= size:
                yield np.ascontiguousarray(rows[:size])
                rows = rows[size:]
                continue
            taken = min(size - self._held, len(rows))
            self._block[self._held : self._held + taken] = rows[:taken]
            self._held += taken
            rows = rows[taken:]
            if self._held == size:
                self._held = 0
                yield self._block

    @contextlib.contextmanager
    def _removed_on_failure(self) -> Iterator[None]:
        if self._failure is not None:
            raise self._failure
        try:
            yield
        except BaseException as error:
            self._remove(error)
            raise

    def _remove(self, error: BaseException) -> None:
        """Leave the file's place as on an error, which is told in words where the system raised it."""
        try:
            self._place.__exit__(type(error), error, error.__traceback__)
        except OutputError as told:
            self._failure = told
            raise
        if self._failure is None:
            given_up = OutputError(f"{self.path}: is not written any more; open it again")
            self._failure = error if isinstance(error, OutputError) else given_up


class _Aborted(BaseException):
    """Tells that a file is given up."""


def _target(
    file: BinaryIO, frame: Frame, shape: tuple[int, int, int], kind: np.dtype[Any], spec: OutputSpec, software: str
) -> RowTarget:
    if spec.format == "png":
        return PngRows(file, shape, kind, png_ancillary(frame, software), small=spec.compression == "small")
    return TiffRows(file, frame, shape, kind, spec.compression or "none", software)
