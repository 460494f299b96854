"""What the numbers of a picture file mean in colour, and numbers of nameless spaces as linear Rec. 2020.

A file tells its colour space by code points (ITU-T H.273), by chromaticities and a curve, or by an ICC profile.
Spaces that have a name here (``ImageState``) leave the samples as they are; all others are converted, unclamped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from restorekit.color import transfer as transfers
from restorekit.color.adaptation import D50, D65, XY, adaptation, white_xyz
from restorekit.color.primaries import CHROMATICITIES, Chromaticities, rgb_to_xyz
from restorekit.errors import InputError
from restorekit.facts import Matrix
from restorekit.io import cms, icc
from restorekit.io.samples import Samples, row_blocks
from restorekit.state import Primaries, Transfer

Model = Literal["gray", "rgb", "cmyk", "lab"]
"""What the channels of decoded samples are; CMYK counts ink, Lab is L* in percent, a* and b*."""

CHANNELS: Mapping[Model, int] = {"gray": 1, "rgb": 3, "cmyk": 4, "lab": 3}

Named = tuple[Primaries, Transfer]
Curve = Transfer | Literal["camera-video"] | float
"""From encoded values to light: a transfer function, the camera curve of ITU-R BT.709, or an exponent."""

H273_PRIMARIES: Mapping[int, Primaries] = {1: "bt709", 9: "bt2020", 12: "p3"}
H273_TRANSFERS: Mapping[int, Transfer] = {8: "linear", 13: "srgb", 16: "pq", 18: "hlg"}
"""Code points of ITU-T H.273 for the spaces known here."""

_ILLUMINANT_C = (0.310, 0.316)
_MORE_PRIMARIES: Mapping[int, Chromaticities] = {
    4: Chromaticities((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), _ILLUMINANT_C),
    5: Chromaticities((0.64, 0.33), (0.29, 0.60), (0.15, 0.06), D65),
    6: Chromaticities((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), D65),
    7: Chromaticities((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), D65),
    8: Chromaticities((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), _ILLUMINANT_C),
    11: Chromaticities((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    22: Chromaticities((0.630, 0.340), (0.295, 0.605), (0.155, 0.077), D65),
}
CURVES: Mapping[int, Curve] = {
    **H273_TRANSFERS,
    **dict.fromkeys((1, 6, 11, 12, 14, 15), "camera-video"),
    4: "gamma",
    5: 2.8,
    17: 2.6,
}
_TRANSFERS: frozenset[Curve] = frozenset(get_args(Transfer))
_NAMED: tuple[Primaries, ...] = ("bt709", "p3", "bt2020", "adobe-rgb", "prophoto")
_TOLERANCE = 0.004
_EXPONENT_TOLERANCE = 0.02
_PROBES = 256


@dataclass(frozen=True)
class Described:
    """A colour space without a name here: where primaries and white lie, and its curve."""

    chromaticities: Chromaticities
    curve: Curve


Meaning = Named | Described | bytes
"""Bytes are an ICC profile that LittleCMS can use."""

SRGB: Named = ("bt709", "srgb")


def by_code_points(primaries: int, transfer: int) -> Meaning | None:
    """The space that code points of ITU-T H.273 name; ``None`` where they leave it open or are none."""
    name = H273_PRIMARIES.get(primaries)
    space = CHROMATICITIES[name] if name else _MORE_PRIMARIES.get(primaries)
    curve = CURVES.get(transfer)
    return None if space is None or curve is None else described(space, curve)


def described(space: Chromaticities, curve: Curve) -> Named | Described | None:
    """Primaries and a curve, by name where they have one; an exponent of about 2.2 is ``gamma``.

    ``None`` for chromaticities that are those of no colours.
    """
    corners = (space.red, space.green, space.blue)
    if abs(np.linalg.det([[x, y, 1.0] for x, y in corners])) < 1e-3 or not 0 < space.white[1] < 1:
        return None
    if isinstance(curve, float) and abs(curve - transfers.GAMMA) < _EXPONENT_TOLERANCE:
        curve = "gamma"
    if isinstance(curve, float) and abs(curve - 1) < 1e-3:
        curve = "linear"
    matrix = _to_xyz_d50(space)
    for name in _NAMED:
        if np.abs(matrix - _to_xyz_d50(CHROMATICITIES[name])).max() < _TOLERANCE and curve in _TRANSFERS:
            return name, cast(Transfer, curve)
    return Described(space, curve)


def by_profile(profile: bytes, model: Model) -> tuple[Meaning, str]:
    """The space of an ICC profile for samples of a model, and a note where it cannot be used and sRGB stands in."""
    own = cms.space_of_profile(profile)
    if model in ("gray", "rgb"):
        space = icc.space_of(profile)
        if space is not None:
            return space, ""
        fits = own == model or (own, model) == ("rgb", "gray")
    else:
        fits = own == model
    note = "its colour profile is not understood, its numbers are taken for sRGB"
    if not fits:
        return SRGB, note
    try:
        cms.to_working(np.zeros((1, 1, CHANNELS[cast(Model, own)]), np.uint8), profile)
    except InputError:
        return SRGB, note
    return profile, ""


def working(samples: Samples, model: Model, meaning: Described | bytes) -> NDArray[np.float32]:
    """Samples ``[H,W,C]`` of a model as linear Rec. 2020 planes ``[3,H,W]`` (``[1,H,W]`` for gray), unclamped.

    Block by block of rows, so that little more than the result is needed.

    Raises InputError where LittleCMS refuses the profile.
    """
    if samples.dtype == np.float16:
        samples = samples.astype(np.float32)
    if model == "gray":
        return _gray(samples, meaning)
    if samples.dtype.kind == "f":
        return _by_blocks(samples, lambda block: _light(block, meaning))
    shaped = _shaped(samples.dtype, meaning) if model == "rgb" else None
    if shaped is None:
        return _by_blocks(samples, lambda block: _light(block, meaning))
    curves, matrix = shaped
    result = np.empty((3, *samples.shape[:2]), np.float32)
    for rows in row_blocks(samples):
        block = samples[rows]
        light = np.stack([np.take(curve, block[..., index]) for index, curve in enumerate(curves)])
        result[:, rows] = (matrix @ light.reshape(3, -1)).reshape(light.shape)
    return result


def lab_to_working(lab: Samples) -> NDArray[np.float32]:
    """CIELAB ``[H,W,3]`` under D50 (L* 0..100) as linear Rec. 2020 planes ``[3,H,W]`` (ISO/CIE 11664-4)."""
    matrix = np.linalg.inv(rgb_to_xyz("bt2020")) @ adaptation(D50, D65)

    def light(block: Samples) -> Samples:
        values = block.astype(np.float32)
        fy = (values[..., 0] + 16) / 116
        roots = np.stack((fy + values[..., 1] / 500, fy, fy - values[..., 2] / 200), -1)
        ratios = np.where(roots > 6 / 29, roots**3, 3 * (6 / 29) ** 2 * (roots - 4 / 29))
        return cast(Samples, ratios * white_xyz(D50) @ matrix.T)

    return _by_blocks(lab, light)


def ink_to_srgb(ink: Samples) -> Samples:
    """CMYK ``[H,W,4]`` without a profile as RGB of the same type: each ink takes its share, ``(1 - C)(1 - K)``."""
    most = 1.0 if ink.dtype.kind == "f" else float(np.iinfo(ink.dtype).max)
    result = np.empty((*ink.shape[:2], 3), ink.dtype)
    for rows in row_blocks(ink):
        paper = np.float32(most) - ink[rows].astype(np.float32)
        paper[..., :3] *= paper[..., 3:] * np.float32(1 / most)
        result[rows] = paper[..., :3] if ink.dtype.kind == "f" else np.rint(paper[..., :3])
    return result


def _by_blocks(samples: Samples, light: Callable[[Samples], Samples]) -> NDArray[np.float32]:
    result = np.empty((3, *samples.shape[:2]), np.float32)
    for rows in row_blocks(samples):
        result[:, rows] = np.moveaxis(light(samples[rows]), -1, 0)
    return result


def _light(block: Samples, meaning: Described | bytes) -> Samples:
    """Linear Rec. 2020 ``[rows,W,3]`` of samples ``[rows,W,C]``."""
    if isinstance(meaning, bytes):
        return cms.to_working(block, meaning)
    light = _decoded(block.astype(np.float32), meaning.curve)
    return cast(Samples, light @ _to_bt2020(meaning.chromaticities).T)


def _gray(samples: Samples, meaning: Described | bytes) -> NDArray[np.float32]:
    """One plane, since grays stay gray; under an RGB profile they are its neutrals."""
    if samples.dtype.kind == "f":
        channels = 3 if isinstance(meaning, Described) or cms.space_of_profile(meaning) == "rgb" else 1
        repeated = (np.repeat(samples[rows], channels, 2) for rows in row_blocks(samples))
        return np.concatenate([_light(block, meaning)[None, ..., 1] for block in repeated], 1)
    levels = np.arange(np.iinfo(samples.dtype).max + 1).astype(samples.dtype)[:, None, None]
    table = _gray(levels.astype(np.float32) / levels.max(), meaning)[0, :, 0]
    return np.take(table, samples[None, ..., 0])


def _shaped(kind: np.dtype[Any], meaning: Described | bytes) -> tuple[list[NDArray[np.float32]], Samples] | None:
    """Curves of light by level, and the matrix after them, ``[3,3]``; ``None`` for spaces that are not of that form.

    LittleCMS is asked for what each channel alone gives. Where the sum of these is what it gives for all channels
    together, the profile is one of curves and a matrix, and need not be asked for every pixel.
    """
    levels = np.arange(np.iinfo(kind).max + 1).astype(kind)
    if isinstance(meaning, Described):
        curve = _decoded(levels.astype(np.float32) / np.float32(levels.max()), meaning.curve)
        return [curve] * 3, _to_bt2020(meaning.chromaticities)
    alone = np.zeros((3, len(levels), 3), kind)
    for channel in range(3):
        alone[channel, :, channel] = levels
    light = cms.to_working(alone, meaning)
    probes = np.random.default_rng(0).integers(0, len(levels), (_PROBES, 1, 3)).astype(kind)
    together = cms.to_working(probes, meaning)[:, 0]
    parts = [light[channel][probes[:, 0, channel]] for channel in range(3)]
    if np.abs(np.sum(parts, 0) - together).max() > 1e-4:
        return None
    columns = light[:, -1].T
    strongest = np.abs(columns).argmax(0)
    curves = [light[c, :, strongest[c]] / columns[strongest[c], c] for c in range(3)]
    return [np.ascontiguousarray(curve) for curve in curves], np.ascontiguousarray(columns)


def _decoded(encoded: NDArray[np.float32], curve: Curve) -> NDArray[np.float32]:
    """Light of encoded values; below zero as an odd function."""
    if curve in _TRANSFERS:
        return cast("NDArray[np.float32]", transfers.decode(torch.from_numpy(encoded), cast(Transfer, curve)).numpy())
    size = np.abs(encoded)
    if isinstance(curve, float):
        light = size ** np.float32(curve)
    else:
        light = np.where(size < 0.081, size / np.float32(4.5), ((size + 0.099) / np.float32(1.099)) ** (1 / 0.45))
    return np.copysign(light, encoded).astype(np.float32)


def _matrix(space: Chromaticities, white: XY) -> Matrix:
    """``[3,3]`` linear RGB to XYZ, its white adapted to another (Bradford), as in SMPTE RP 177."""
    xyz = np.array([[x, y, 1 - x - y] for x, y in (space.red, space.green, space.blue)]).T
    return cast(Matrix, adaptation(space.white, white) @ (xyz * np.linalg.solve(xyz, white_xyz(space.white))))


@lru_cache(maxsize=64)
def _to_xyz_d50(space: Chromaticities) -> Matrix:
    return _matrix(space, D50)


def _to_bt2020(space: Chromaticities) -> NDArray[np.float32]:
    matrix = np.linalg.inv(rgb_to_xyz("bt2020")) @ _matrix(space, D65)
    return cast("NDArray[np.float32]", matrix.astype(np.float32))
