"""ICC profiles of RGB and gray pictures (ICC.1:2022): told apart by their numbers, and made for a state.

Only matrix profiles (primaries and one curve) are understood; profiles with tables stay what they are, bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from restorekit.color.adaptation import D50, adaptation
from restorekit.color.primaries import CHROMATICITIES, rgb_to_xyz
from restorekit.color.transfer import GAMMA
from restorekit.state import ImageState, Primaries, Transfer

_COLORANTS = (b"rXYZ", b"gXYZ", b"bXYZ")
_CURVES = (b"rTRC", b"gTRC", b"bTRC")
_D50_XYZ = (0.9642, 1.0, 0.8249)
_SRGB_PARAMETERS = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_TOLERANCE = 0.004
_NAMES: Mapping[str, str] = {
    "bt709": "sRGB",
    "p3": "Display P3",
    "bt2020": "Rec. 2020",
    "adobe-rgb": "Adobe RGB (1998) compatible",
    "prophoto": "ProPhoto RGB compatible",
}


def space_of(profile: bytes) -> tuple[Primaries, Transfer] | None:
    """Primaries and transfer function of a profile, ``None`` where they are not those of a known space.

    Primaries are compared with the known ones adapted to D50, curves at 17 levels with sRGB, a power of 2.2, and
    linear. A gray profile has the primaries of sRGB.
    """
    tags = _tags(profile)
    transfer = _transfer([tags[name] for name in (_CURVES if _CURVES[0] in tags else (b"kTRC",)) if name in tags])
    if transfer is None:
        return None
    if profile[16:20] == b"GRAY":
        return "bt709", transfer
    if profile[16:20] != b"RGB " or b"A2B0" in tags or not all(name in tags for name in _COLORANTS):
        return None
    found = np.array([_xyz(tags[name]) for name in _COLORANTS])
    for primaries in _NAMES:
        if np.abs(found - _adapted(primaries).T).max() < _TOLERANCE:  # type: ignore[arg-type]
            return primaries, transfer  # type: ignore[return-value]
    return None


@lru_cache
def profile_of(state: ImageState) -> bytes:
    """A matrix profile (version 4, always the same bytes) for a display-referred state; empty where ICC has none.

    PQ and HLG have no profile here: formats that hold them name them by ITU-T H.273 instead.
    """
    if state.transfer in ("pq", "hlg") or state.primaries not in _NAMES:
        return b""
    curve = _parametric(state.transfer)
    name = _NAMES[state.primaries] + {"srgb": "", "gamma": " gamma 2.2", "linear": " linear"}[state.transfer]
    if (state.primaries, state.transfer) == ("adobe-rgb", "gamma"):
        name = _NAMES["adobe-rgb"]
    tags = {b"desc": _text(name), b"cprt": _text("No copyright, use freely"), b"wtpt": _xyz_type(_D50_XYZ)}
    if state.layout == "gray":
        tags[b"kTRC"] = curve
    else:
        tags |= dict(zip(_COLORANTS, (_xyz_type(column) for column in _adapted(state.primaries).T), strict=True))
        tags |= dict.fromkeys(_CURVES, curve)
    return _assembled(tags, b"GRAY" if state.layout == "gray" else b"RGB ")


def _adapted(primaries: Primaries) -> NDArray[np.float64]:
    """``[3,3]`` RGB to XYZ under D50, whose columns are a profile's colorants."""
    matrix: NDArray[np.float64] = adaptation(CHROMATICITIES[primaries].white, D50) @ rgb_to_xyz(primaries)
    return matrix


def _tags(profile: bytes) -> dict[bytes, bytes]:
    if len(profile) < 132 or profile[36:40] != b"acsp":
        return {}
    count = struct.unpack_from(">I", profile, 128)[0]
    if 132 + 12 * count > len(profile):
        return {}
    places = (struct.unpack_from(">4sII", profile, 132 + 12 * index) for index in range(count))
    return {name: profile[at : at + length] for name, at, length in places}


def _xyz(data: bytes) -> tuple[float, float, float]:
    x, y, z = struct.unpack_from(">3i", data.ljust(20, b"\0"), 8)
    return x / 65536, y / 65536, z / 65536


def _transfer(curves: list[bytes]) -> Transfer | None:
    """The transfer function that all curves follow."""
    levels = np.linspace(0, 1, 17)
    shapes = [_curve_values(curve, levels) for curve in curves]
    known: dict[Transfer, NDArray[np.float64]] = {
        "srgb": np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4),
        "gamma": levels**GAMMA,
        "linear": levels,
    }
    distances = {
        name: max(
            (np.inf if shape is None else float(np.abs(shape - values).max()) for shape in shapes), default=np.inf
        )
        for name, values in known.items()
    }
    best = min(distances, key=lambda name: distances[name])
    return best if distances[best] < _TOLERANCE else None


def _curve_values(data: bytes, levels: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Linear light of encoded levels by a ``curv`` or ``para`` tag."""
    if data[:4] == b"curv" and len(data) >= 12:
        count = struct.unpack_from(">I", data, 8)[0]
        if len(data) < 12 + 2 * count:
            return None
        entries = np.frombuffer(data, ">u2", count, 12).astype(np.float64)
        if count <= 1:
            return levels ** (float(entries[0]) / 256 if count else 1.0)
        return np.interp(levels, np.linspace(0, 1, count), entries / 65535)
    kind = struct.unpack_from(">H", data, 8)[0] if data[:4] == b"para" and len(data) >= 16 else -1
    count = {0: 1, 3: 5, 4: 7}.get(kind, 0)
    if count == 0 or len(data) < 12 + 4 * count:
        return None
    given = [value / 65536 for value in struct.unpack_from(f">{count}i", data, 12)]
    g, a, b, c, d, e, f = given + [1.0, 0.0, 0.0, -1.0, 0.0, 0.0][count - 1 :]
    decoded: NDArray[np.float64] = np.where(levels >= d, np.maximum(a * levels + b, 0) ** g + e, c * levels + f)
    return decoded


def _parametric(transfer: Transfer) -> bytes:
    if transfer == "srgb":
        return b"para" + bytes(4) + struct.pack(">HH5i", 3, 0, *(round(value * 65536) for value in _SRGB_PARAMETERS))
    exponent = GAMMA if transfer == "gamma" else 1.0
    return b"para" + bytes(4) + struct.pack(">HHi", 0, 0, round(exponent * 65536))


def _xyz_type(xyz: tuple[float, ...] | NDArray[np.float64]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(float(value) * 65536) for value in xyz))


def _text(text: str) -> bytes:
    encoded = text.encode("utf-16-be")
    return b"mluc" + bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(encoded), 28) + encoded


def _assembled(tags: dict[bytes, bytes], space: bytes) -> bytes:
    """Header, tag table and data; equal data are stored once."""
    places: dict[bytes, int] = {}
    body = b""
    start = 132 + 12 * len(tags)
    for data in tags.values():
        if data not in places:
            places[data] = start + len(body)
            body += data + bytes(-len(data) % 4)
    table = b"".join(struct.pack(">4sII", name, places[data], len(data)) for name, data in tags.items())
    date = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)
    header = struct.pack(">I4sI4s4s4s", start + len(body), bytes(4), 0x04400000, b"mntr", space, b"XYZ ")
    header += date + b"acsp" + bytes(28) + _xyz_type(_D50_XYZ)[8:] + bytes(48)
    return header + struct.pack(">I", len(tags)) + table + body
