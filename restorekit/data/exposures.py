"""A short and a long exposure of one scene, as one sensor gathers them one after the other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from restorekit.data.degradation import log_uniform, uniform
from restorekit.data.sensor import Bits, Positives, Shares, bent, level_reached, noisy, quantised
from restorekit.errors import InputError
from restorekit.frame import Frame
from restorekit.stage import param, parameters


@parameters
class DualExposure:
    """What sets two exposures apart from exact multiples of the scene; ``None`` or 0 leaves an effect out.

    Ranges ``(least, most)`` are drawn from for each pair: one camera takes both frames. The error of the black level
    is drawn for each frame and channel. Levels are shares of the range, 1.0 = where the sensor clips.
    """

    clipped: Annotated[
        Shares | None, param("Share of the long frame's pixels of which a channel clips; null: as bright as the scene")
    ] = (0.05, 0.25)
    electrons: Annotated[
        Positives | None, param("Electrons of a photosite that just clips, by their logarithm; null: no shot noise")
    ] = (1000.0, 20000.0)
    read_noise: Annotated[Positives | None, param("Its deviation, by its logarithm; null: none")] = (1e-4, 1.5e-3)
    black_error: Annotated[float, param("Largest error of the black level", ge=0, le=0.1)] = 1e-3
    knee: Annotated[Shares | None, param("Level from which on the response bends; null: linear until it clips")] = None
    bits: Annotated[Bits | None, param("Bits of the sensor's levels; null: not rounded")] = 12


@dataclass(frozen=True)
class _Sensor:
    """One camera's draws."""

    shot: float
    read: float
    knee: float | None
    clips: bool

    @property
    def full(self) -> float:
        """Light at which it clips."""
        return 1.0 if self.knee is None else 2.0 - self.knee


def dual_exposure(
    scene: Tensor, stops: float, generator: torch.Generator, options: DualExposure
) -> tuple[Tensor, Tensor]:
    """The short and the long frame of a scene, both ``[C,H,W]`` float32, 1.0 = where the sensor clips.

    ``scene`` ``[C,H,W]`` is linear light in the colours of the sensor, not white-balanced, at any scale: the long
    frame is exposed so that the drawn share of its pixels clips in one channel or more (flat areas clip as a whole; a
    share of 0 lets the brightest pixel just reach 1.0). The short frame gets ``2^-stops`` of that light. With all
    effects left out the long frame is the scene itself and nothing is cut.

    Raises InputError for a scene without light.
    """
    (short, _), (long, _) = _pair(scene, stops, generator, options)[0]
    return short, long


def dual_exposure_frames(
    frame: Frame, stops: float, generator: torch.Generator, options: DualExposure
) -> tuple[Frame, Frame]:
    """As :func:`dual_exposure`, for a scene-referred linear frame: camera RGB, or a Bayer mosaic of even size.

    Of a mosaic, a pixel is a cell of 2x2 photosites with a channel each. The frames tell ``exposure.ev_offset`` (0
    for the long one), the mask ``clipped`` and the facts ``clip_level`` and ``noise``.

    Raises InputError for other frames.
    """
    state = frame.state
    if (state.reference, state.transfer, state.primaries) != ("scene", "linear", "camera") or state.layout == "xtrans":
        raise InputError(f"{frame.name}: is {state}; exposures are made of scene-linear camera RGB or Bayer mosaics")
    mosaic = state.is_mosaic
    if mosaic and (frame.height % 2 or frame.width % 2):
        raise InputError(f"{frame.name}: is {frame.width}x{frame.height}, a mosaic of whole 2x2 cells is needed; crop")
    scene = frame.as_float().pixels
    shots, sensor = _pair(F.pixel_unshuffle(scene, 2) if mosaic else scene, stops, generator, options)
    channels = frame.pixels.shape[0]
    noise = ((sensor.shot, sensor.read),) * channels if sensor.shot or sensor.read else None
    facts = replace(frame.facts, clip_level=(1.0,) * channels if sensor.clips else None, noise=noise)
    frames = []
    for (pixels, clipped), ev in zip(shots, (-stops, 0.0), strict=True):
        if mosaic:
            pixels, clipped = F.pixel_shuffle(pixels, 2), F.pixel_shuffle(clipped, 2)
        masks = {**frame.masks, "clipped": clipped}
        exposure = replace(frame.exposure, ev_offset=ev)
        frames.append(replace(frame, pixels=pixels, masks=masks, exposure=exposure, facts=facts))
    return frames[0], frames[1]


def _pair(
    scene: Tensor, stops: float, generator: torch.Generator, options: DualExposure
) -> tuple[list[tuple[Tensor, Tensor]], _Sensor]:
    """Pixels and what of them clipped, of the short and the long frame; and the sensor that took them."""
    sensor = _Sensor(
        0.0 if options.electrons is None else 1.0 / log_uniform(generator, options.electrons),
        0.0 if options.read_noise is None else log_uniform(generator, options.read_noise) ** 2,
        None if options.knee is None else uniform(generator, options.knee),
        options.clipped is not None or options.knee is not None,
    )
    gain = 1.0
    if options.clipped is not None:
        gain = sensor.full / level_reached(scene, uniform(generator, options.clipped))
    gains = (gain * 2.0**-stops, gain)
    return [_exposed(scene * gain, sensor, options, generator) for gain in gains], sensor


def _exposed(
    light: Tensor, sensor: _Sensor, options: DualExposure, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A frame ``[C,H,W]`` and what of it clipped."""
    seen = noisy(light if sensor.knee is None else bent(light, sensor.knee), sensor.shot, sensor.read, generator)
    clipped = seen >= 1.0 if sensor.clips else torch.zeros_like(seen, dtype=torch.bool)
    seen = seen.clamp(max=1.0) if sensor.clips else seen
    if options.black_error:
        errors = torch.rand((len(seen), 1, 1), generator=generator).mul_(2.0).sub_(1.0)
        seen = seen + options.black_error * errors
    return (seen if options.bits is None else quantised(seen, options.bits)), clipped
