"""Colour by ICC profiles with tables, through LittleCMS. Profiles of known spaces need none of this."""

from __future__ import annotations

import logging
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from restorekit.errors import InputError
from restorekit.io.formats import Intent
from restorekit.io.icc import profile_of
from restorekit.state import ImageState

logging.getLogger("imagecodecs").addHandler(logging.NullHandler())

_SPACES = {b"RGB ": "rgb", b"GRAY": "gray", b"CMYK": "cmyk", b"Lab ": "lab"}
_INTENTS = {"perceptual": 0, "relative": 1, "saturation": 2, "absolute": 3}
_BLACK_POINT = int(imagecodecs.CMS.FLAGS.BLACKPOINTCOMPENSATION)
WORKING = ImageState("rgb", "display", "linear", "bt2020")
"""The state that pictures with such profiles are read in: wide, linear and unclamped."""


def space_of_profile(profile: bytes) -> str | None:
    """``rgb``, ``gray``, ``cmyk`` or ``lab``: what the numbers of a profile are; ``None`` for others."""
    return _SPACES.get(profile[16:20]) if profile[36:40] == b"acsp" else None


def writes(profile: bytes) -> bool:
    """Whether LittleCMS can bring colours to the numbers of a profile: those of scanners and cameras lack that way."""
    try:
        from_working(np.zeros((1, 1, 3), np.float32), profile)
    except InputError:
        return False
    return True


def to_working(
    samples: NDArray[Any], profile: bytes, *, intent: Intent = "relative", black_point: bool = True
) -> NDArray[np.float32]:
    """Samples ``[H,W,C]`` (``[H,W]`` for gray; uint8, uint16 or float32) as linear Rec. 2020 ``[H,W,3]``, unclamped.

    CMYK integers count ink: 0 is paper.

    Raises InputError for profiles that LittleCMS cannot use.
    """
    space = space_of_profile(profile)
    return _transformed(samples, profile, space, profile_of(WORKING), "rgb", intent, black_point)


def from_working(
    linear: NDArray[np.float32], profile: bytes, *, intent: Intent = "relative", black_point: bool = True
) -> NDArray[np.float32]:
    """Linear Rec. 2020 ``[H,W,3]`` as numbers 0..1 of an RGB, gray or CMYK profile, the inverse of ``to_working``.

    Raises InputError for profiles that LittleCMS cannot use in this direction.
    """
    return _transformed(linear, profile_of(WORKING), "rgb", profile, space_of_profile(profile), intent, black_point)


def _transformed(
    samples: NDArray[Any],
    source: bytes,
    source_space: str | None,
    target: bytes,
    target_space: str | None,
    intent: Intent,
    black_point: bool,
) -> NDArray[np.float32]:
    if source_space is None or target_space is None:
        raise InputError("the ICC profile is for no RGB, gray, CMYK or Lab numbers; convert the picture to RGB")
    if samples.dtype == np.float32 and source_space == "cmyk":
        samples = samples * np.float32(100)  # LittleCMS counts float ink in percent
    try:
        result: NDArray[np.float32] = imagecodecs.cms_transform(
            np.ascontiguousarray(samples),
            source,
            target,
            colorspace=source_space,
            outcolorspace=target_space,
            outdtype="float32",
            intent=_INTENTS[intent],
            flags=_BLACK_POINT if black_point else 0,
        )
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"LittleCMS cannot use the ICC profile ({str(error).splitlines()[0]}); convert the picture to sRGB"
        ) from error
    return result / np.float32(100) if target_space == "cmyk" else result
