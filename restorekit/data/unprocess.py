"""From a finished picture back to the mosaic that a camera might have recorded, and forth again by our stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from restorekit.color.camera import camera_to_rgb
from restorekit.color.primaries import transformed
from restorekit.color.transfer import decode
from restorekit.data.sensor import mosaicked
from restorekit.errors import InputError
from restorekit.facts import Calibration, Camera, Facts
from restorekit.frame import Frame
from restorekit.stage import Stage
from restorekit.stages.color import CameraMatrix, Encode, WhiteBalance
from restorekit.stages.demosaic import Demosaic
from restorekit.stages.finish import Sharpen
from restorekit.stages.highlights import Highlights
from restorekit.stages.tone import Curve
from restorekit.state import ImageState

Method = Literal["bilinear", "malvar", "menon"]

XYZ_TO_CAMERA = np.array(
    [
        [[1.0234, -0.2969, -0.2266], [-0.5625, 1.6328, -0.0469], [-0.0703, 0.2188, 0.6406]],
        [[0.4913, -0.0541, -0.0202], [-0.6130, 1.3513, 0.2906], [-0.1564, 0.2151, 0.7183]],
        [[0.8380, -0.2630, -0.0639], [-0.2887, 1.0725, 0.2496], [-0.0627, 0.1427, 0.5438]],
        [[0.6596, -0.2079, -0.0562], [-0.4782, 1.3016, 0.1933], [-0.0970, 0.1581, 0.5181]],
    ]
)
"""Colour matrices ``[4,3,3]`` of the cameras of the Darmstadt Noise Dataset, as Brooks et al. give them."""

MATRIX_LIGHT_K = 6504.0
"""The light that the matrices were made for."""

PATTERNS = ("RGGB", "BGGR", "GRBG", "GBRG")

HIGHLIGHTS, BLOWN = 0.95, 2.0
"""Linear value, of the darkest channel, from which on highlights are lifted; and what white is lifted to in the channel
that clips last, where 1.0 clips: so far that noise does not bring it back."""

RAMP = 1024
"""Places at which the tone curve is looked at to undo it."""


@dataclass(frozen=True, eq=False)
class Development:
    """A camera in a light, and how its RAW files become pictures.

    ``camera`` has a Bayer pattern, a colour matrix and the ``neutral`` of the light. ``white`` is the RAW level of
    green, 1.0 = where it clips, that is shown as white; ``contrast`` and ``sharpness`` are those of ``tone.curve`` and
    ``finish.sharpen``. A camera that tells no neutral is balanced already.
    """

    camera: Camera
    white: float = 0.8
    contrast: float = 0.0
    sharpness: float = 0.0

    @property
    def neutral(self) -> tuple[float, float, float]:
        """Camera RGB of white."""
        return self.camera.neutral or (1.0, 1.0, 1.0)

    @property
    def curve(self) -> Curve:
        """The stage that makes RAW levels the light of a display."""
        return Curve(contrast=self.contrast, white=self.white)

    def stages(self, method: Method = "menon") -> tuple[Stage, ...]:
        """What makes encoded sRGB of a mosaic after black level."""
        sharpening = (Sharpen(amount=self.sharpness),) if self.sharpness else ()
        return (
            Highlights(method="clip"),
            WhiteBalance(),
            Demosaic(method=method),
            CameraMatrix(to="bt709"),
            self.curve,
            *sharpening,
            Encode(),
        )


def random_camera(generator: torch.Generator, red_gain: float = 2.1, blue_gain: float = 1.7) -> Camera:
    """A camera whose colour matrix is a random mean of four, with a random phase of its Bayer mosaic.

    The gains are those that balance its white.

    Source: Brooks et al., Unprocessing Images for Learned Raw Denoising, CVPR 2019, section 3 and released code.
    """
    weights = torch.rand(len(XYZ_TO_CAMERA), generator=generator, dtype=torch.float64).numpy()
    matrix = np.tensordot(weights / weights.sum(), XYZ_TO_CAMERA, axes=1)
    pattern = PATTERNS[int(torch.randint(len(PATTERNS), (), generator=generator))]
    return Camera(
        make="restorekit",
        model="Unprocessed",
        cfa=(pattern[:2], pattern[2:]),
        neutral=(1.0 / red_gain, 1.0, 1.0 / blue_gain),
        calibrations=(Calibration(MATRIX_LIGHT_K, matrix),),
    )


def unprocess(picture: Tensor, development: Development) -> Frame:
    """Encoded sRGB ``[3,H,W]`` 0..1 as the scene-referred Bayer mosaic ``[1,H,W]`` that is developed to it.

    Transfer function, tone curve, colour matrix and white balance are undone in this order, and each pixel keeps the
    colour of its photosite. White becomes light beyond 1.0, where the sensor will clip, in all channels: where the
    darkest one is above 0.95 (linear), light is lifted the more the whiter it is, so that blown skies have no noise
    (Brooks et al. lift each channel by itself, which tints what is nearly white). Values outside of 0..1 are cut;
    colours that the camera cannot see are negative. Nothing is noisy, rounded or clipped yet.

    Raises InputError for other shapes and for mosaics without pattern.
    """
    if picture.ndim != 3 or len(picture) != 3 or min(picture.shape[1:]) < 2:
        raise InputError(f"pictures to be unprocessed are [3,H,W] of 2x2 px or more, got {tuple(picture.shape)}")
    camera, neutral = development.camera, development.neutral
    if not camera.cfa:
        raise InputError(f"{camera.name} names no Bayer pattern to unprocess to; set cfa")
    light = _scene_light(decode(picture.clamp(0.0, 1.0), "srgb"), development)
    to_camera = np.asarray(np.linalg.inv(camera_to_rgb(camera, neutral, "bt709")), np.float64)
    mosaic = mosaicked(transformed(light, to_camera), camera.cfa)
    facts = Facts(illuminant=neutral, clip_level=(1.0,))
    return Frame(mosaic, ImageState("bayer", "scene", "linear", "camera"), camera=camera, facts=facts)


def developed(frame: Frame, development: Development, method: Method = "menon") -> Frame:
    """A mosaic after black level as encoded sRGB ``[3,H,W]``, by the stages of :class:`Development`."""
    for stage in development.stages(method):
        frame = stage(frame)
    return frame


def _scene_light(display: Tensor, development: Development) -> Tensor:
    """Display-linear light ``[3,H,W]`` as linear scene light in the same primaries, white at ``white`` or far above."""
    low, high = display.amin(0, keepdim=True), display.amax(0, keepdim=True)
    scene = display
    if development.contrast:
        new_low, new_high = _uncurved(torch.stack((low, high)), development)
        spread = (new_high - new_low).div_((high - low).clamp_min_(1e-7))
        scene = (display - low).mul_(spread).add_(new_low)
    lift = BLOWN / (development.white * min(development.neutral)) - 1.0
    whiteness = (low - HIGHLIGHTS).clamp_min_(0.0).mul_(1.0 / (1.0 - HIGHLIGHTS)).square_()
    return scene * whiteness.mul_(max(lift, 0.0)).add_(1.0).mul_(development.white)


def _uncurved(values: Tensor, development: Development) -> Tensor:
    """What the tone curve makes of values, undone: read off the curve itself, on the square-root axis."""
    root = torch.linspace(0.0, 1.0, RAMP)
    ramp = Frame(root.square().mul_(development.white).view(1, 1, -1), ImageState("gray", "scene", "linear"))
    shown = development.curve(ramp).pixels.flatten().sqrt_()
    table = torch.from_numpy(np.interp(root.numpy(), shown.numpy(), root.numpy()).astype(np.float32))
    place = values.sqrt().mul_(RAMP - 1)
    index = place.to(torch.int64).clamp_(0, RAMP - 2)
    return torch.lerp(table[index], table[index + 1], place.sub_(index)).square_()
