"""What is known about an image beside its pixels: exposure, camera, facts of the scene, metadata of its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from restorekit.state import Primaries, Transfer

Matrix = NDArray[np.float64]
Table = NDArray[np.float32]


@dataclass(frozen=True)
class Exposure:
    """How the light was gathered. Unknown values are ``None``.

    ``time_s`` seconds, ``f_number`` the aperture N, ``iso`` the exposure index,
    ``ev_offset`` stops relative to the reference frame of a bracket, when it is known.
    """

    time_s: float | None = None
    f_number: float | None = None
    iso: float | None = None
    ev_offset: float | None = None

    @property
    def relative(self) -> float | None:
        """Gathered light, ``t * S / N^2`` (ISO 100 and unknown apertures count as 1)."""
        if self.time_s is None:
            return None
        return self.time_s * (self.iso or 100.0) / 100.0 / (self.f_number or 1.0) ** 2


@dataclass(frozen=True, eq=False)
class Calibration:
    """The DNG colour model of a camera for one calibration illuminant (DNG 1.7, chapter 6).

    ``temperature_k`` the illuminant's correlated colour temperature in kelvin, ``color_matrix`` ``[3,3]`` XYZ to
    camera, ``forward_matrix`` ``[3,3]`` white-balanced camera to XYZ D50, ``camera_calibration`` ``[3,3]`` reference
    camera to this camera, ``hue_sat_map`` ``[V,H,S,3]`` hue shift in degrees, factors of saturation and value at
    steps of value, hue and saturation (DNG ProfileHueSatMapData).
    """

    temperature_k: float
    color_matrix: Matrix
    forward_matrix: Matrix | None = None
    camera_calibration: Matrix | None = None
    hue_sat_map: Table | None = None


@dataclass(frozen=True, eq=False)
class CameraProfile:
    """The look of a camera profile (DNG 1.7, chapter 6), beside its calibrations; what it does not have is ``None``.

    ``look_table`` ``[V,H,S,3]`` as ``Calibration.hue_sat_map``; ``tone_curve`` ``[N,2]`` points of linear input and
    linear output, 0..1; the encodings tell how value steps of the tables are spaced. ``baseline_exposure_ev`` is the
    profile's BaselineExposureOffset in stops.
    """

    name: str = ""
    hue_sat_encoding: Literal["linear", "srgb"] = "linear"
    look_table: Table | None = None
    look_encoding: Literal["linear", "srgb"] = "linear"
    tone_curve: Table | None = None
    baseline_exposure_ev: float = 0.0


@dataclass(frozen=True, eq=False)
class Camera:
    """What a camera says about its sensor. Levels are digital numbers, before any scaling.

    ``cfa`` names the colours of the repeating cell row by row (``("RG", "GB")``; six rows of
    six for X-Trans; empty where there is no mosaic). ``black`` ``[h,w,C]`` repeats over the image
    like the cell (C is the number of channels), ``white`` ``[C]``; C is 1 for a mosaic.
    ``black_rows``/``black_columns`` are the DNG BlackLevelDeltaV/H. ``neutral`` ``[3]`` is the
    camera's response to the light's white, green = 1. ``opcode_lists`` are the DNG OpcodeList1 to 3 as the file holds
    them, as far as they are still to be applied; their coordinates are those of this frame.
    """

    make: str = ""
    model: str = ""
    cfa: tuple[str, ...] = ()
    black: NDArray[np.float32] | None = None
    white: NDArray[np.float32] | None = None
    black_rows: NDArray[np.float32] | None = None
    black_columns: NDArray[np.float32] | None = None
    linearization: NDArray[np.float32] | None = None
    neutral: tuple[float, float, float] | None = None
    calibrations: tuple[Calibration, ...] = ()
    analog_balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    baseline_exposure_ev: float = 0.0
    baseline_sharpness: float = 1.0
    noise_profile: tuple[tuple[float, float], ...] = ()
    profile: CameraProfile = CameraProfile()
    opcode_lists: tuple[bytes, bytes, bytes] = (b"", b"", b"")

    @property
    def name(self) -> str:
        """Make and model as a person says them, for messages."""
        first = self.model.lower().split(" ")[0]
        if first and first in self.make.lower().split():
            return self.model
        return " ".join(part for part in (self.make, self.model) if part) or "unknown camera"


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known about the scene and the signal, beside the pixels.

    illuminant
        camera RGB of a white surface, green = 1 (the DNG AsShotNeutral).
    white_balance
        gains already applied to the channels, or ``None``.
    noise
        Poisson-Gaussian model ``variance = a * x + b`` a channel, in current pixel units.
    clip_level
        value at which each channel of the sensor clips, in current pixel units.
    scale
        factor between current pixel values and the sensor's 0..1 range.
    alignment
        ``[3,3]`` homography that brought this frame onto its reference: pixels (x, y, 1) of this frame to those of
        the frame as it was shot.
    exposure_gain
        what this frame of a bracket is multiplied by, a number a channel, to be on the scale of its reference.
    measured
        whole-image statistics of stages that need them, by stage name.
    """

    illuminant: tuple[float, float, float] | None = None
    white_balance: tuple[float, float, float] | None = None
    noise: tuple[tuple[float, float], ...] | None = None
    clip_level: tuple[float, ...] | None = None
    scale: float = 1.0
    alignment: Matrix | None = None
    exposure_gain: tuple[float, ...] | None = None
    measured: Mapping[str, float | tuple[float, ...]] = field(default_factory=dict)

    @property
    def known(self) -> frozenset[str]:
        """The names of those that are known."""
        return frozenset(each.name for each in fields(self) if getattr(self, each.name) is not None)

    def scaled(self, gains: Sequence[float]) -> Facts:
        """These facts after the pixels were multiplied, a gain a channel (or one for all).

        Variance follows the square of the gain: ``a' = g a``, ``b' = g^2 b``.
        """
        g = tuple(gains) * (3 if len(gains) == 1 else 1)
        changed = self
        if self.clip_level is not None:
            clip = self.clip_level * (len(g) if len(self.clip_level) == 1 else 1)
            changed = replace(changed, clip_level=tuple(c * k for c, k in zip(clip, g, strict=True)))
        if self.noise is not None:
            noise = self.noise * (len(g) if len(self.noise) == 1 else 1)
            changed = replace(changed, noise=tuple((a * k, b * k * k) for (a, b), k in zip(noise, g, strict=True)))
        if len(set(g)) == 1:
            changed = replace(changed, scale=self.scale * g[0])
        return changed


@dataclass(frozen=True)
class Metadata:
    """What a file carried beside its pixels; bytes are kept as the container held them.

    ``exif`` is a TIFF-structured block without the ``Exif\\0\\0`` header, ``icc`` the profile
    of the pixels, ``iptc`` IPTC-IIM records, ``orientation`` the EXIF orientation (1..8) still to be applied,
    ``crop`` the rectangle (top, left, bottom, right; px of this frame as it lies) still to be cut out, which is
    done before the frame is turned. ``color`` is the colour space the file's pixels were in, ``None`` where it has
    no name here (an ICC profile with tables, camera RGB).
    """

    exif: bytes = b""
    icc: bytes = b""
    xmp: bytes = b""
    iptc: bytes = b""
    orientation: int = 1
    crop: tuple[int, int, int, int] | None = None
    color: tuple[Primaries, Transfer] | None = None
