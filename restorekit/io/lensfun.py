"""Corrections of known lenses from the lensfun database, through lensfunpy (extra ``lens``)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restorekit.errors import RestorekitError

Polynomial = tuple[float, ...]
"""Coefficients, lowest order first."""

FAR_M = 1000.0
"""Distance at which lensfun's tables hold the values for infinity."""

SAMPLED_TO, SAMPLES = 1.3, 64
"""How the distortion is asked from lensfun: at so many radii, up to 1.3 times that of the corner."""

DEGREES, EXACT_PX = (4, 6, 8), 0.002
"""Degrees of the polynomial through these samples, and the error below which no higher one is tried. The models of
lensfun are polynomials; those of lateral colour, of a radius that is one itself, have the highest degree."""


class LensUnknown(RestorekitError):
    """A camera or lens that the database does not have, or has several of; ``named``: its name is known."""

    def __init__(self, message: str, *, named: bool = False) -> None:
        super().__init__(message)
        self.named = named


@dataclass(frozen=True)
class Shot:
    """What is known about a picture's camera and lens: names as EXIF writes them, empty or ``None`` where unknown.

    ``equivalent_mm`` is the focal length with the same angle of view on 35 mm film; it gives the crop factor of
    cameras that the database does not have.
    """

    make: str = ""
    model: str = ""
    lens: str = ""
    focal_length_mm: float | None = None
    f_number: float | None = None
    distance_m: float | None = None
    crop_factor: float | None = None
    equivalent_mm: float | None = None


@dataclass(frozen=True, eq=False)
class KnownLens:
    """A lens of the database and the picture it was used for; ``crop_factor`` is the camera's."""

    lens: Any
    name: str
    crop_factor: float
    focal_length_mm: float
    shot: Shot

    @property
    def vignetting(self) -> Polynomial:
        """Light that reaches a place, as a polynomial of r^2; empty where unknown. r is 1 at the picture's corners.

        The model is ``1 + k1 r^2 + k2 r^4 + k3 r^6`` (pa), r counted from the corner of the sensor that was measured.
        """
        if self.shot.f_number is None:
            return ()
        distance = min(self.shot.distance_m or FAR_M, FAR_M)
        found = self.lens.interpolate_vignetting(self.focal_length_mm, self.shot.f_number, distance)
        if found is None or found.model.name != "PA":
            return ()
        ratio = self.lens.crop_factor / self.crop_factor
        return (1.0, *(float(k) * ratio ** (2 * n) for n, k in enumerate(found.terms[:3], start=1)))

    def distortion(self, width: int, height: int, *, geometry: bool, lateral_ca: bool) -> tuple[Polynomial, ...]:
        """How far out red, green and blue lie in the picture, as factors of the radius at which they belong.

        Polynomials of the radius, which is 1 at the middle of the picture's corner pixels; empty where the database
        knows nothing, or nothing is asked for.
        """
        import lensfunpy

        geometry = geometry and self.lens.interpolate_distortion(self.focal_length_mm) is not None
        lateral_ca = lateral_ca and self.lens.interpolate_tca(self.focal_length_mm) is not None
        if not (geometry or lateral_ca):
            return ()
        flags = lensfunpy.ModifyFlags
        wanted = (flags.DISTORTION if geometry else 0) | (flags.TCA if lateral_ca else 0)
        width, height = max(width, 2), max(height, 2)
        modifier = lensfunpy.Modifier(self.lens, self.crop_factor, width, height)
        modifier.initialize(self.focal_length_mm, 8.0, FAR_M, 1.0, pixel_format=np.float32, flags=wanted)
        radii = np.linspace(0.0, SAMPLED_TO, SAMPLES + 1)[1:]
        middle = np.array((width - 1, height - 1)) / 2
        seen: NDArray[np.float64] = np.array(
            [modifier.apply_subpixel_geometry_distortion(*(middle * (1 + r)), 1, 1)[0, 0] for r in radii], np.float64
        )
        radii_px = radii * np.linalg.norm(middle)
        factors = np.linalg.norm(seen - middle, axis=2) / radii_px[:, None]
        for degree in DEGREES:
            fitted = np.polynomial.polynomial.polyfit(radii, factors, degree, w=radii)
            errors_px = (np.polynomial.polynomial.polyval(radii, fitted).T - factors) * radii_px[:, None]
            if np.abs(errors_px).max() < EXACT_PX:
                break
        red, green, blue = (tuple(plane) for plane in fitted.T.tolist())
        if not geometry:
            green = (1.0,)
        return (red, green, blue) if lateral_ca else (green, green, green)


def installed() -> bool:
    """Whether lensfunpy can be imported."""
    return find_spec("lensfunpy") is not None


@lru_cache(maxsize=64)
def find(shot: Shot) -> KnownLens:
    """The lens of a picture.

    A name has to fit one lens of the camera's mount, or word for word; nothing is guessed. Cameras whose lens
    cannot be changed need no name. Of a camera that is not in the database the crop factor must be known.

    Raises LensUnknown.
    """
    cameras = _database().find_cameras(shot.make or None, shot.model) if shot.model else []
    camera = cameras[0] if cameras else None
    crop_factor = shot.crop_factor or (float(camera.crop_factor) if camera else None)
    if crop_factor is None and shot.equivalent_mm and shot.focal_length_mm:
        crop_factor = shot.equivalent_mm / shot.focal_length_mm
    if crop_factor is None:
        what = f"the camera '{shot.model}'" if shot.model else "a camera without a name"
        raise LensUnknown(f"lensfun does not know {what}; give camera or crop_factor", named=bool(shot.lens))
    lens = _chosen(_candidates(camera, shot.lens), shot, crop_factor)
    focal_length_mm = shot.focal_length_mm or float(lens.min_focal)
    if shot.focal_length_mm is None and lens.max_focal > lens.min_focal:
        raise LensUnknown(f"the focal length of the zoom lens {lens.model} is not known; give focal_length_mm")
    return KnownLens(lens, str(lens.model), crop_factor, focal_length_mm, shot)


@cache
def _database() -> Any:
    import lensfunpy

    return lensfunpy.Database()


def _candidates(camera: Any, name: str) -> list[Any]:
    """Lenses that may be meant, the likeliest first."""
    fixed = camera is not None and camera.mount is not None and camera.mount[:1].islower()
    if not name:
        return list(_database().find_lenses(camera)) if fixed else []
    if camera is None:
        return [lens for lens in _database().lenses if _is_called(lens, name)]
    plain = re.sub(r"(\d)\.0(?=\D)", r"\1", name).replace(" mm", "mm")
    return [lens for form in dict.fromkeys((name, plain)) for lens in _database().find_lenses(camera, None, form)]


def _chosen(candidates: list[Any], shot: Shot, crop_factor: float) -> Any:
    """The one lens that is meant: of those that have the focal length, the one of that name, or the only one."""
    focal = shot.focal_length_mm
    fitting = [lens for lens in candidates if focal is None or 0.95 * lens.min_focal <= focal <= 1.05 * lens.max_focal]
    exact = [lens for lens in fitting if _is_called(lens, shot.lens)]
    names = list(dict.fromkeys(lens.model for lens in exact or fitting))
    if len(names) == 1:
        # calibrated on a sensor as large as the picture's, or larger, but no more than needed
        same = sorted(exact or fitting, key=lambda lens: (lens.crop_factor > crop_factor * 1.05, -lens.crop_factor))
        return same[0]
    named = bool(shot.lens)
    what = f"the lens '{shot.lens}'" if named else "a lens without a name"
    if names:
        found = ", ".join(names[:4])
        raise LensUnknown(f"lensfun has several lenses for {what}: {found}; give lens as one of them", named=named)
    raise LensUnknown(f"lensfun does not know {what} of {shot.model or 'this camera'}; give lens", named=named)


def _is_called(lens: Any, name: str) -> bool:
    """Whether a name has the words and numbers of a lens's name in the database, with or without its maker."""
    makers = set(_words(lens.maker))
    return [w for w in _words(lens.model) if w not in makers] == [w for w in _words(name) if w not in makers]


@lru_cache(maxsize=4096)
def _words(name: str) -> tuple[str, ...]:
    return tuple(sorted(re.findall(r"[a-z]+|\d+(?:\.\d+)?", name.lower())))
