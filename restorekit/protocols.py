"""How each task is measured: what the input is made of, what border is left out, which measures are taken.

Inputs are either made from the references, with fixed seeds, or read from a folder of their own. Sources:

- super-resolution: :mod:`restorekit.metrics.super_resolution`.
- denoising: white Gaussian noise that is neither clipped nor rounded, PSNR over all channels and pixels (Dabov, Foi,
  Katkovnik & Egiazarian, IEEE TIP 16, 2007, C-BM3D; Zhang et al., IEEE TIP 26, 2017, DnCNN; Liang et al., ICCVW 2021,
  SwinIR).
- JPEG: compressed by libjpeg at one quality; PSNR, SSIM and PSNR-B of gray pictures in gray, of colours in RGB and Y
  (Dong et al., ICCV 2015, AR-CNN; Jiang, Zhang & Timofte, ICCV 2021, FBCNN).
- deraining: luma, by convention since Yang et al., CVPR 2017 (JORDER); other pairs: RGB and luma.
- low light: RGB as it is, and after :func:`restorekit.metrics.brightness.mean_corrected`.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic
import torch
import yaml
from torch import Tensor

from restorekit.data.degradation import Chain, PictureList, seeded
from restorekit.data.steps import Step, chain
from restorekit.errors import InputError, RestorekitError
from restorekit.frame import Frame
from restorekit.io.read import read
from restorekit.metrics.light import is_hdr
from restorekit.metrics.super_resolution import eight_bit, reduced
from restorekit.planes import to_float

SIGMA, QUALITY = 25.0, 10
"""The noise (of 255) and the quality of JPEG where nothing is said."""

Y_FIRST = ("psnr_y_db", "ssim_y", "psnr_rgb_db")
RGB_FIRST = ("psnr_rgb_db", "ssim_rgb", "psnr_y_db", "ssim_y")
LIT = ("psnr_rgb_db", "ssim_rgb", "psnr_corrected_db", "psnr_y_db", "ssim_y")

Y_TASKS = ("super-resolution", "deraining")
"""Tasks that publications measure in luma."""

LIT_TASKS = ("low-light",)
"""Tasks that publications measure with the brightness of the reference too."""


@dataclass(frozen=True)
class Reference:
    """A picture to be restored to: uint8 ``[C,H,W]``, C = 1 where it is gray, and its number in the list."""

    path: Path
    number: int
    pixels: Tensor

    @property
    def rgb(self) -> Tensor:
        """uint8 ``[3,H,W]``; gray has three equal channels."""
        return self.pixels.expand(3, -1, -1)


@dataclass(frozen=True)
class Protocol:
    """How results are made comparable with others.

    ``given`` makes the input, float32 ``[C,H/scale,W/scale]`` of encoded sRGB, from a reference whose sides are
    multiples of ``scale``. ``border`` px at each side are left out of all ``measures``
    (:data:`restorekit.metrics.measures.MEASURES`), of which the first PSNR and the first SSIM are those of model cards.
    ``setting`` tells the input in words, ``options`` those of the command that asks for it.
    """

    setting: str
    options: str
    measures: tuple[str, ...]
    given: Callable[[Reference], Tensor]
    scale: int = 1
    border: int = 0

    def check(self, name: str, scale: int) -> None:
        """Raise InputError where the input of the protocol is not what a model of this ``scale`` takes."""
        if scale != self.scale:
            has = "keeps the size" if scale == 1 else f"enlarges {scale} times"
            wants = "the size of the references" if self.scale == 1 else f"1/{self.scale} of the size of the references"
            cure = f"name a model of scale {self.scale}, or other options"
            raise InputError(f"{name}: {has}, but the input ({self.setting}) has {wants}; {cure}")


def super_resolution(scale: int) -> Protocol:
    """References reduced bicubically and rounded; ``scale`` px of border are left out."""

    def given(reference: Reference) -> Tensor:
        return to_float(reduced(reference.rgb, scale))

    return Protocol(f"x{scale}", "", Y_FIRST, given, scale, border=scale)


def denoising(sigma: float = SIGMA, seed: int = 0) -> Protocol:
    """White Gaussian noise of ``sigma`` (of 255), neither clipped nor rounded; that of each picture from its number."""
    from restorekit.data.noise import GaussianNoise

    noise = GaussianNoise(sigma=(sigma, sigma))

    def given(reference: Reference) -> Tensor:
        return noise.degrade(to_float(reference.pixels), seeded(seed, reference.number))

    return Protocol(f"sigma {sigma:g}", f"--sigma {sigma:g}{_seed(seed)}", RGB_FIRST, given)


def jpeg(quality: int = QUALITY) -> Protocol:
    """References compressed by libjpeg at one quality, gray ones as gray, colours with chroma of half the size."""
    from restorekit.data.jpeg import Jpeg

    compression = Jpeg(quality=(quality, quality), subsampled=1.0)

    def given(reference: Reference) -> Tensor:
        return compression.degrade(to_float(reference.rgb), seeded(0, reference.number))[: len(reference.pixels)]

    measures = ("psnr_rgb_db", "ssim_rgb", "psnr_b_db", "psnr_y_db", "ssim_y")
    return Protocol(f"quality {quality}", f"--quality {quality}", measures, given)


def synthetic(text: str, seed: int = 0, task: str | None = None, pictures: PictureList = ()) -> Protocol:
    """Degradations of :mod:`restorekit.data`, written as YAML: a name, ``name: {parameter: value}``, or a list of such.

    ``pictures`` are those that they may mix in. Raises InputError where the text is none.
    """
    steps = degradations(text).given(pictures)

    def given(reference: Reference) -> Tensor:
        return steps(to_float(reference.rgb), seeded(seed, reference.number))

    border = steps.scale if steps.scale > 1 else 0
    options = f"--degradation {shlex.quote(text)}{_seed(seed)}"
    return Protocol(text, options, measures_of(task, steps.scale), given, steps.scale, border)


def paired(folder: Path, inputs: Sequence[Path], scale: int = 1, task: str | None = None) -> Protocol:
    """Inputs that lie in ``folder``, one for each reference in its order."""

    def given(reference: Reference) -> Tensor:
        path = inputs[reference.number]
        picture, _ = picture_of(read(path, sidecar=False))
        _, height, width = reference.pixels.shape
        if picture.shape[1:] != (height // scale, width // scale):
            has, needs = f"{picture.shape[2]}x{picture.shape[1]}", f"{width // scale}x{height // scale}"
            raise InputError(f"{path}: is {has}, for {reference.path.name} it must be {needs}; see --scale")
        return to_float(picture)

    border = scale if scale > 1 else 0
    options = f"--inputs {shlex.quote(str(folder))}"
    return Protocol(folder.name, options, measures_of(task, scale), given, scale, border)


STANDARD: Mapping[str, Callable[[int, int], Protocol]] = {
    "super-resolution": lambda scale, seed: super_resolution(scale),
    "denoising": lambda scale, seed: denoising(seed=seed),
    "jpeg": lambda scale, seed: jpeg(),
}
"""What measures a task of model cards where nothing else is asked for, of a scale and a seed."""


def standard(name: str, task: str | None, scale: int, seed: int = 0) -> Protocol:
    """The protocol of a task; without one, as for weights that no card describes, that of super-resolution or none.

    Raises InputError where inputs of this task cannot be made from references.
    """
    made = STANDARD.get(task or ("super-resolution" if scale > 1 else ""))
    if made is None:
        what = f"is for {task}, whose inputs cannot be made" if task else "does not tell what it is for"
        raise InputError(f"{name}: {what}; add --inputs FOLDER, or --sigma, --quality or --degradation")
    return made(scale, seed)


def measures_of(task: str | None, scale: int) -> tuple[str, ...]:
    """The measures of a task, those that its publications compare first."""
    if task in LIT_TASKS:
        return LIT
    return Y_FIRST if task in Y_TASKS or (task is None and scale > 1) else RGB_FIRST


def degradations(text: str) -> Chain:
    """Degradations written as YAML: a name, ``name: {parameter: value}``, or a list of such.

    Raises InputError where the text is none.
    """
    try:
        content: Any = yaml.safe_load(text)
        items = content if isinstance(content, list) else [content]
        if not items:
            raise InputError(f"--degradation {text}: is empty; write NAME, or 'NAME: {{PARAMETER: VALUE}}'")
        return chain([Step.model_validate(item) for item in items])
    except (yaml.YAMLError, RecursionError, pydantic.ValidationError):
        raise InputError(f"--degradation {text}: write NAME, or 'NAME: {{PARAMETER: VALUE}}', or a list") from None
    except RestorekitError as error:
        raise InputError(f"--degradation {text}: {error}") from None


def picture_of(frame: Frame) -> tuple[Tensor, tuple[str, ...]]:
    """A finished picture as uint8 ``[C,H,W]``, gray (C = 1) where its channels are equal, and what to know of it."""
    state = frame.state
    if state.is_mosaic or state.reference != "display" or state.transfer == "linear" or is_hdr(state):
        raise InputError(f"{frame.name}: is {state}; references are SDR pictures, such as PNG files of 8 bits")
    notes = list(frame.notes)
    if frame.alpha is not None:
        notes.append(f"{frame.name}: alpha is ignored")
    pixels = frame.pixels
    if pixels.dtype != torch.uint8:
        pixels = eight_bit(to_float(pixels))
        notes.append(f"{frame.name}: has more than 8 bits; it is rounded to 8")
    gray = all(torch.equal(pixels[0], channel) for channel in pixels[1:])
    return pixels[:1] if gray else pixels, tuple(notes)


def _seed(seed: int) -> str:
    return f" --seed {seed}" if seed else ""
