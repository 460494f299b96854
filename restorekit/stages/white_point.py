"""The colour of the light as a person sets it: by temperature and tint, or by a gray patch in the picture."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from restorekit.color.camera import neutral_of_white, white_of_neutral
from restorekit.color.temperature import temperature_and_duv, xy_from_temperature
from restorekit.errors import InputError, StageError
from restorekit.facts import Camera, Facts
from restorekit.frame import Frame
from restorekit.stage import Stage, StageSpec, param, parameters
from restorekit.stages.illuminant import CAMERA_RGB, RGB, block_means, per_green

TINT_PER_DUV = 3000.0
"""Tint, in the units of Adobe's converters, of a light whose Duv (CIE 1960 uv) is 1: daylight (D55) has tint 10."""


@parameters
class Temperature(Stage):
    """The light by its correlated colour temperature and its tint, through the camera's calibration.

    ``tint`` is 3000 times the distance Duv from the Planckian locus: greenish lights have a positive tint, magenta
    ones a negative one, and 5500 K with tint 10 is CIE D55. A higher temperature makes the picture warmer, a higher
    tint makes it more magenta. Adds the fact ``illuminant``. Raises StageError for a camera without matrices.
    """

    spec = StageSpec(
        name="illuminant.temperature",
        source="DNG 1.7.1, chapter 6 (white balance xy to camera neutral); Robertson, J. Opt. Soc. Am. 58 (1968)",
        accepts=CAMERA_RGB,
        adds=("illuminant",),
    )
    kelvin: Annotated[
        float, param("Correlated colour temperature", unit="K", ge=1700, le=50000, usual=(2000, 12000))
    ] = 5500.0
    tint: Annotated[float, param("Greenness of the light: 3000 times its Duv", ge=-150, le=150)] = 0.0

    def apply(self, frame: Frame) -> Frame:
        camera = frame.camera
        if not camera.calibrations:
            raise StageError(
                f"{frame.name}: {self.spec.name} needs the colour matrices of the camera, and {camera.name} has none; "
                "use illuminant.gray_patch, illuminant.as_shot or an estimator"
            )
        light = per_green(neutral_of_white(camera, xy_from_temperature(self.kelvin, self.tint / TINT_PER_DUV)))
        if light is None:
            raise StageError(
                f"{frame.name}: {camera.name} sees no light of {self.kelvin:g} K and tint {self.tint:g} "
                f"({self.spec.name}); take a tint nearer to 0"
            )
        return replace(frame, facts=replace(frame.facts, illuminant=light))


@parameters
class GrayPatch(Stage):
    """A patch of the picture is gray: the light is its mean camera RGB.

    The patch is given in px of the upright picture, as a developed file of full size shows it; a size left out
    reaches to the edge, for a gray card that fills the picture. Pixels with a clipped channel, and cells of a mosaic
    with a clipped photosite, do not count; of the rest each channel's middle half does, so that dust and stuck
    photosites do not. Adds the fact ``illuminant``, and for a camera with matrices the light's temperature in kelvin
    and its tint as ``facts.measured["illuminant.gray_patch"]``.

    Raises StageError for a patch that is not within the picture, smaller than a cell of the mosaic, more than half
    clipped, or black.
    """

    spec = StageSpec(
        name="illuminant.gray_patch",
        source="DNG 1.7.1, AsShotNeutral (camera RGB of a neutral colour); Huber, Robust Statistics (1981)",
        accepts=CAMERA_RGB,
        adds=("illuminant",),
    )
    left: Annotated[int, param("First column of the patch", unit="px", ge=0)] = 0
    top: Annotated[int, param("First row of the patch", unit="px", ge=0)] = 0
    width: Annotated[int | None, param("Width of the patch", unit="px", ge=1)] = None
    height: Annotated[int | None, param("Height of the patch", unit="px", ge=1)] = None

    def measure(self, frame: Frame) -> Facts:
        light = self._light(frame)
        white = _temperature_and_tint(frame.camera, light)
        measured = {**frame.facts.measured, **({} if white is None else {self.spec.name: white})}
        return replace(frame.facts, illuminant=light, measured=measured)

    def apply(self, frame: Frame) -> Frame:
        return frame

    def _light(self, frame: Frame) -> RGB:
        top, left, bottom, right = self._in_frame(frame)
        means = block_means(frame.planes(lambda plane: plane[:, top:bottom, left:right]))
        clean = means.values[:, means.clean]
        if 2 * clean.shape[1] < means.clean.numel():
            raise self._refused(frame, "is clipped; choose a darker one, or expose less")
        trim = clean.shape[1] // 4
        middle = clean.sort(dim=1).values[:, trim : clean.shape[1] - trim].mean(1).tolist()
        gains = frame.facts.white_balance or (1.0, 1.0, 1.0)
        light = per_green((middle[0] / gains[0], middle[1] / gains[1], middle[2] / gains[2]))
        if light is None:
            raise self._refused(frame, "has a black channel; choose a brighter one")
        return light

    def _in_frame(self, frame: Frame) -> tuple[int, int, int, int]:
        """Top, left, bottom and right of the patch in the frame as it lies, in whole cells of a mosaic."""
        orientation, crop = frame.metadata.orientation, frame.metadata.crop or (0, 0, frame.height, frame.width)
        height, width = crop[2] - crop[0], crop[3] - crop[1]
        if orientation >= 5:
            height, width = width, height
        top, left = self.top, self.left
        bottom = height if self.height is None else top + self.height
        right = width if self.width is None else left + self.width
        if not (top < bottom <= height and left < right <= width):
            raise self._refused(frame, f"is not within the picture of {width}x{height} px; give one inside of it")
        if orientation in (3, 4, 7, 8):  # the rows were turned around
            top, bottom = height - bottom, height - top
        if orientation in (2, 3, 6, 7):  # the columns were
            left, right = width - right, width - left
        if orientation >= 5:  # rows became columns
            top, left, bottom, right = left, top, right, bottom
        cell = frame.camera.cfa if frame.state.is_mosaic and frame.camera.cfa else (" ",)
        rows, columns = len(cell), len(cell[0])
        top, left = -(-(crop[0] + top) // rows) * rows, -(-(crop[1] + left) // columns) * columns
        bottom, right = (crop[0] + bottom) // rows * rows, (crop[1] + right) // columns * columns
        if top >= bottom or left >= right:
            raise self._refused(frame, f"holds no whole {columns}x{rows} cell of the mosaic; choose a larger one")
        return top, left, bottom, right

    def _refused(self, frame: Frame, why: str) -> StageError:
        size = "" if self.width is None or self.height is None else f" of {self.width}x{self.height} px"
        return StageError(f"{frame.name}: {self.spec.name}: the patch{size} at left {self.left}, top {self.top} {why}")


def _temperature_and_tint(camera: Camera, light: RGB) -> tuple[float, float] | None:
    """The light as ``illuminant.temperature`` would set it; ``None`` where the camera's matrices do not tell."""
    try:
        kelvin, duv = temperature_and_duv(white_of_neutral(camera, light))
    except InputError:
        return None
    return kelvin, duv * TINT_PER_DUV
