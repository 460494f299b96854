"""A picture as its decoder leaves it: samples, and what the file says about them."""

from __future__ import annotations

from dataclasses import dataclass, field

from restorekit.io.colorimetry import Meaning, Model
from restorekit.io.embedded import Embedded
from restorekit.io.samples import Samples


@dataclass(frozen=True)
class Decoded:
    """Samples ``[H,W]`` or ``[H,W,C]``: uint8 or uint16 of full range, or floats; channels after the colours are alpha.

    ``meaning`` is the colour space, where its container tells one (``None``: the profile and EXIF tell);
    ``orientation`` is still to be applied (``None``: the one in EXIF); ``scene`` marks light of a scene.
    ``notes`` are what a person should know.
    """

    samples: Samples
    model: Model = "rgb"
    embedded: Embedded = field(default_factory=Embedded)
    meaning: Meaning | None = None
    orientation: int | None = None
    scene: bool = False
    notes: tuple[str, ...] = ()


def only_first(frames: int) -> tuple[str, ...]:
    """The note on a picture that moves; none where there is one frame."""
    return (f"is animated ({frames} frames), the first is taken",) if frames > 1 else ()


GAIN_MAP = "carries a gain map; its standard picture is taken"
"""The note on pictures that carry a second rendition for HDR displays."""
