"""HEIC and HEIF pictures, decoded by libheif through pillow-heif (the extra ``heif``)."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from restorekit.errors import InputError, installing
from restorekit.io import bmff
from restorekit.io.decoded import Decoded
from restorekit.io.decoders import heif_meaning, heif_notes, require_whole_boxes
from restorekit.io.samples import Samples, full_range, straight_alpha


def decode(path: Path) -> Decoded:
    """The primary picture, 8 bits as uint8 and 10 or 12 bits as uint16 of full range.

    libheif crops, turns and mirrors as the container asks, so that the EXIF orientation does not hold any more.

    Raises InputError where the extra is not installed, and for files that are damaged or cut off.
    """
    try:
        import pillow_heif
    except ImportError as error:
        raise InputError(f"{path}: needs the extra heif: {installing('heif')}") from error
    data = path.read_bytes()
    require_whole_boxes(path, data)
    try:
        image = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False, hdr_to_16bit=False)
        samples: Samples = np.array(image)
    except (ValueError, EOFError, SyntaxError, RuntimeError, OSError, IndexError) as error:
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path}: is damaged or cut off ({said}); copy it again from where it came") from error
    mode, _, bits = image.mode.partition(";")
    samples = full_range(samples, int(bits) if bits else 8)
    if mode in ("RGBa", "La"):
        samples = straight_alpha(samples)
    found = bmff.picture(data)
    return Decoded(
        samples, "gray" if mode[0] in "LI" else "rgb", found.embedded, heif_meaning(found), 1, notes=heif_notes(found)
    )
