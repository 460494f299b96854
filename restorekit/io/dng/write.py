"""DNG files written: Bayer mosaics by the DNG 1.7 specification (Adobe).

Digital numbers of a sensor are stored as they are; light of a scene as floats, for which see
:mod:`restorekit.io.dng.float_write`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from restorekit.errors import OutputError
from restorekit.frame import Frame
from restorekit.io.dng.fields import mosaic_fields, picture_fields
from restorekit.io.dng.float_write import write_light
from restorekit.io.tiff import LONG, SHORT, STRIP_OFFSETS, STRIP_SIZES, Field, lay_out
from restorekit.io.write import SOFTWARE, replacing

DIGITAL_NUMBERS, NEEDED_FOR_THEM = (1, 4, 0, 0), (1, 2, 0, 0)
"""Version of the specification that files of digital numbers follow, and the one a reader needs."""


def write_dng(path: Path, frame: Frame, *, bits: int = 16, software: str = SOFTWARE) -> None:
    """Write a Bayer mosaic of camera RGB; camera with its profile, exposure, EXIF, orientation, pending crop and
    opcode lists go with it, and :func:`restorekit.io.dng.read.read_dng` gives them back.

    A sensor-referred one of 16-bit digital numbers becomes an uncompressed DNG 1.4, or 1.6 where its calibrations
    (three of them, or lights that EXIF has no name for) or its opcodes need that. A scene-referred one becomes a DNG
    of floats with 16, 24 or 32 ``bits``, as :func:`restorekit.io.dng.float_write.write_light` tells. ``software`` is
    the program that the file names.

    Raises OutputError for other frames, and where the file cannot be written.
    """
    state = frame.state
    if state.layout == "bayer" and len(frame.camera.cfa) != 2:
        raise OutputError(f"{path}: the camera of the frame does not tell the colours of its mosaic; set camera.cfa")
    if (state.layout, state.transfer, state.primaries) == ("bayer", "linear", "camera") and frame.fits_its_layout:
        if state.reference == "scene":
            write_light(path, frame, bits, software=software)
            return
        if state.reference == "sensor" and frame.pixels.dtype == torch.uint16:
            _write_numbers(path, frame, software)
            return
    raise OutputError(
        f"{path}: dng takes a Bayer mosaic, of 16-bit digital numbers or of scene light, this is {state}; "
        "write exr or tiff"
    )


def _write_numbers(path: Path, frame: Frame, software: str) -> None:
    """A mosaic of digital numbers in one uncompressed strip."""
    mosaic = np.ascontiguousarray(frame.pixels[0].cpu().numpy(), dtype="<u2")
    tree = picture_fields(frame, software, DIGITAL_NUMBERS, NEEDED_FOR_THEM) | mosaic_fields(frame, 16)
    tree |= {259: Field.of(SHORT, (1,)), 278: Field.of(LONG, (frame.height,))}

    def block(start: int) -> bytes:
        place = {STRIP_OFFSETS: Field.of(LONG, (start,)), STRIP_SIZES: Field.of(LONG, (mosaic.nbytes,))}
        return lay_out(tree | place)

    start = -(-len(block(0)) // 16) * 16
    with replacing(path) as file:
        file.write(block(start).ljust(start, b"\0"))
        file.write(mosaic.data)
