"""LibRaw's demosaicing, for any mosaic.

LibRaw only works on files, so the mosaic is handed over as a small DNG in memory (DNG 1.7, chapter 4) that
says black 0, white 65535 and neutral 1, 1, 1: nothing but the interpolation happens to its values.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from restorekit.errors import StageError

PERIOD_PX = 6
"""Both cells, 2x2 and 6x6, repeat after this many photosites."""

SMALLEST_PX = 516
"""LibRaw's X-Trans method wants tiles of 512 px; smaller mosaics are padded to this."""


def libraw_demosaic(mosaic: NDArray[np.uint16], cfa: Sequence[str], algorithm: str) -> NDArray[np.uint16]:
    """The colour image ``[H,W,3]`` of a mosaic ``[H,W]``, values in the mosaic's own scale 0..65535.

    ``cfa`` names the colours of the repeating cell from the mosaic's first photosite on: two rows of two
    for Bayer, six of six for X-Trans. ``algorithm`` is a name of rawpy's DemosaicAlgorithm; X-Trans has
    LINEAR, VNG, and Markesteijn's method with one pass for PPG and three for all others.

    Raises StageError for a mosaic smaller than 6x6, and where LibRaw cannot demosaic it.
    """
    import rawpy

    height, width = mosaic.shape
    if min(height, width) < PERIOD_PX:
        raise StageError(
            f"LibRaw cannot demosaic {width}x{height} px, only {PERIOD_PX}x{PERIOD_PX} and more; crop less"
        )
    padded = mosaic[np.ix_(_repeated(height), _repeated(width))]
    try:
        with rawpy.imread(io.BytesIO(_dng(padded, cfa))) as raw:
            developed = raw.postprocess(
                demosaic_algorithm=rawpy.DemosaicAlgorithm[algorithm],
                output_color=rawpy.ColorSpace.raw,
                output_bps=16,
                gamma=(1, 1),
                user_wb=[1, 1, 1, 1],
                user_flip=0,
                user_black=0,
                user_sat=65535,
                adjust_maximum_thr=0.0,
                no_auto_bright=True,
            )
    except (rawpy.LibRawError, rawpy.NotSupportedError) as error:
        raise StageError(f"LibRaw cannot demosaic with {algorithm} ({error}); set another libraw_algorithm") from None
    picture = np.asarray(developed, dtype=np.uint16)
    if picture.shape != (*padded.shape, 3):
        raise StageError(f"LibRaw with {algorithm} changed the size of the image; set another libraw_algorithm")
    return picture[PERIOD_PX:, PERIOD_PX:][:height, :width]


def _repeated(size: int) -> NDArray[np.int64]:
    """Where the rows of a padded mosaic come from: the cells at its ends repeat, so that colours keep their places."""
    after = max(PERIOD_PX, SMALLEST_PX - PERIOD_PX - size)
    positions = np.arange(-PERIOD_PX, size + after)
    before_end = size - PERIOD_PX + (positions - size) % PERIOD_PX
    return np.where(positions < 0, positions % PERIOD_PX, np.where(positions < size, positions, before_end))


def _dng(mosaic: NDArray[np.uint16], cfa: Sequence[str]) -> bytes:
    """An uncompressed DNG that holds the mosaic as it is."""
    import tifffile

    colours = bytes("RGB".index(colour) for row in cfa for colour in row)
    identity = tuple(value for row in np.eye(3, dtype=int) for entry in row for value in (int(entry), 1))
    tags = [
        (33421, "H", 2, (len(cfa), len(cfa[0])), True),  # CFARepeatPatternDim
        (33422, "B", len(colours), colours, True),  # CFAPattern
        (50706, "B", 4, bytes((1, 4, 0, 0)), True),  # DNGVersion
        (50708, "s", 0, "restorekit", True),  # UniqueCameraModel
        (50714, "H", 1, 0, True),  # BlackLevel
        (50717, "H", 1, 65535, True),  # WhiteLevel
        (50721, "2i", 9, identity, True),  # ColorMatrix1
        (50728, "2I", 3, (1, 1, 1, 1, 1, 1), True),  # AsShotNeutral
    ]
    file = io.BytesIO()
    tifffile.imwrite(file, mosaic, photometric="CFA", metadata=None, extratags=tags)
    return file.getvalue()
