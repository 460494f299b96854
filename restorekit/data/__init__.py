"""Data sets and degradations: what networks are trained on.

The table says where each degradation lives and what it is for; a recipe names them in a list, as a pipeline does its
stages. Nothing is imported until it is used.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from restorekit.errors import RestorekitError, first_mistake
from restorekit.names import did_you_mean

if TYPE_CHECKING:
    from restorekit.data.degradation import Degradation


class DegradationEntry(NamedTuple):
    """Where a degradation lives (``module:Class``) and what it is for, in one line."""

    target: str
    summary: str


DEGRADATIONS: Mapping[str, DegradationEntry] = {
    name: DegradationEntry(f"restorekit.data.{target}", summary)
    for name, target, summary in (
        ("bicubic", "downscale:Bicubic", "Reduce by antialiased cubic convolution, as MATLAB does, and round"),
        ("blur", "downscale:Blur", "Blur by an anisotropic Gaussian and take every n-th pixel"),
        ("gaussian_noise", "noise:GaussianNoise", "Add white Gaussian noise"),
        ("jpeg", "jpeg:Jpeg", "Compress as JPEG"),
        ("real_world", "real_world:RealWorld", "Blur, resize, noise and JPEG, twice over"),
        ("camera_noise", "camera_noise:CameraNoise", "Back to RAW, shot and read noise, and the ISP again"),
        ("low_light", "low_light:LowLight", "Less light on the sensor, or a curve that darkens, and the noise of that"),
        ("reflection", "reflection:Reflection", "Add what a glass pane in front of the camera reflects"),
        ("rain", "rain:Rain", "Let it rain: streaks of falling drops, and the veil of far ones"),
        ("raindrops", "raindrops:Raindrops", "Put drops of rain on the glass in front of the camera"),
        ("snow", "snow:Snow", "Let it snow: flakes one by one and their veil, or particles of noise"),
        ("haze", "haze:Haze", "Put haze in front of a depth that is drawn"),
        ("weather", "weather:Weather", "One of rain, raindrops, snow and haze"),
    )
}


def create(name: str, **parameters: Any) -> Degradation:
    """A degradation by its name.

    Raises RestorekitError for an unknown name, and for parameters that it does not take.
    """
    from pydantic import ValidationError

    entry = DEGRADATIONS.get(name)
    if entry is None:
        hint = did_you_mean(name, DEGRADATIONS) or f"; there are {', '.join(DEGRADATIONS)}"
        raise RestorekitError(f"unknown degradation '{name}'{hint}")
    module, _, attribute = entry.target.partition(":")
    kind: type[Degradation] = getattr(importlib.import_module(module), attribute)
    try:
        return kind(**parameters)
    except (ValidationError, TypeError) as error:
        raise RestorekitError(f"degradation {name}: {first_mistake(error)}") from None
