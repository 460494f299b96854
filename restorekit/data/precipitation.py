"""What rain and snow have in common: something falls before a camera."""

from __future__ import annotations

from typing import NamedTuple


class Precipitation(NamedTuple):
    """How it rains or snows, and how that is photographed."""

    rate: float
    """mm/h of water."""
    wind: float
    """Across the picture, m/s; positive blows to the right."""
    exposure: float
    """Seconds."""
    focal: float
    """Of the lens, px."""
    aperture: float
    """Diameter, mm."""
    focus: float
    """Distance in focus, m."""
