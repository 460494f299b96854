"""What the numbers of an image mean: layout, reference, transfer, primaries, frames.

The image states are those of ISO 22028-1; transfer functions and primaries carry the names
of ITU-T H.273 where it has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal, get_args

Layout = Literal["bayer", "xtrans", "rgb", "gray"]
Reference = Literal["sensor", "scene", "display"]
Transfer = Literal["linear", "srgb", "gamma", "pq", "hlg"]
Primaries = Literal["camera", "bt709", "p3", "bt2020", "adobe-rgb", "prophoto", "xyz", "ap1", "icc"]
Frames = Literal["single", "bracket", "burst"]

AXES: Mapping[str, tuple[str, ...]] = {
    "layout": get_args(Layout),
    "reference": get_args(Reference),
    "transfer": get_args(Transfer),
    "primaries": get_args(Primaries),
    "frames": get_args(Frames),
}


@dataclass(frozen=True)
class ImageState:
    """The meaning of a frame's pixels.

    ``reference`` is ``sensor`` for the digital numbers a sensor gave, ``scene`` for values
    proportional to scene light (1.0 = white level of the reference frame, values above are
    kept) and ``display`` for a rendered picture (0..1). Primaries ``icc`` are those of the profile that the file
    brought, in whose numbers (with ``srgb`` for their transfer function, whatever it is) a result is written back.
    """

    layout: Layout = "rgb"
    reference: Reference = "display"
    transfer: Transfer = "srgb"
    primaries: Primaries = "bt709"
    frames: Frames = "single"

    def __post_init__(self) -> None:
        for axis, allowed in AXES.items():
            value = getattr(self, axis)
            if value not in allowed:
                raise ValueError(f"{axis} is {value!r}, must be one of {', '.join(allowed)}")

    def changed(self, changes: Mapping[str, str]) -> ImageState:
        """This state with some axes set."""
        return replace(self, **changes)  # type: ignore[arg-type]

    def differences(self, accepts: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
        """The axes on which this state is not among the accepted values."""
        return tuple(axis for axis, allowed in accepts.items() if getattr(self, axis) not in allowed)

    def __str__(self) -> str:
        return "-".join(str(getattr(self, f.name)) for f in fields(self) if f.name != "frames") + (
            "" if self.frames == "single" else f" {self.frames}"
        )

    @property
    def is_mosaic(self) -> bool:
        """One colour a photosite, not yet demosaiced."""
        return self.layout in ("bayer", "xtrans")


SHORTHANDS: Mapping[str, ImageState] = {
    "sensor-bayer": ImageState("bayer", "sensor", "linear", "camera"),
    "scene-linear": ImageState("rgb", "scene", "linear", "bt2020"),
    "display-linear": ImageState("rgb", "display", "linear", "bt709"),
    "display-srgb": ImageState("rgb", "display", "srgb", "bt709"),
}
"""Names for the states that pipelines declare most."""
