"""Exposure fusion: the best exposed parts of a bracket in one picture, without going through radiance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restorekit.errors import StageError
from restorekit.facts import Facts
from restorekit.frame import Bracket, Frame
from restorekit.planes import strip_rows, to_float
from restorekit.stage import BracketStage, StageSpec, param, parameters
from restorekit.stages.pyramid import Layer, Layers, blend
from restorekit.stages.tone import luminance
from restorekit.state import Primaries

ACCEPTS = {
    "frames": ("bracket",),
    "reference": ("display",),
    "transfer": ("srgb", "gamma"),
    "layout": ("rgb",),
}
"""The brackets that fusion works on: encoded pictures."""

UNUSABLE_MASKS = ("outside", "motion")
"""Masks of what a frame does not show, or not as the reference frame has it."""

LARGEST = 1e4
"""Values of float frames beyond this, and those that are no numbers, are no picture."""

LEAST_WEIGHT = 1e-12
"""Weight of a pixel that no criterion likes, so that frames which are all bad are averaged."""

FEATHER_BLOCKS, FEATHER_SHARE, LEAST_FEATHER = 500, 0.04, 1e-3
"""Weights rise beside masks over this share of the short side, worked out in about so many blocks on it."""

Preset = Literal["paper", "enfuse", "opencv"]


@dataclass(frozen=True)
class Weights:
    """How much each criterion counts, and what is well exposed."""

    contrast: float
    saturation: float
    exposedness: float
    sigma: float = 0.2
    optimum: float = 0.5


PRESETS: dict[Preset, Weights] = {
    "paper": Weights(contrast=1, saturation=1, exposedness=1),
    "enfuse": Weights(contrast=0, saturation=0.2, exposedness=1),
    "opencv": Weights(contrast=1, saturation=1, exposedness=0),
}
"""What the paper, enfuse 4.2 and OpenCV's MergeMertens do where they are told nothing."""


class Fusion(BracketStage):
    """What the fusions of a bracket to one frame share: which brackets they take, and what the result keeps.

    The frames must be aligned. The result has metadata, exposure and alpha of the bracket's reference frame; masks
    and facts are dropped.

    Raises StageError when there are fewer than two frames, or frames that differ in size or state.
    """

    def fuse(self, frames: Sequence[Frame], reference: int) -> Tensor:
        """The pixels ``[3,H,W]`` made of upright frames that fit each other; ``reference`` is an index."""
        raise NotImplementedError

    def combine(self, bracket: Bracket) -> Frame:
        turn = bracket.reference.metadata  # frames lie alike, however the camera was held when it wrote their tag
        frames = [
            replace(frame, metadata=replace(frame.metadata, orientation=turn.orientation, crop=turn.crop)).upright()
            for frame in bracket
        ]
        index = len(frames) // 2
        reference = frames[index]
        self._check_bracket(frames, reference)
        notes = [note for frame in frames for note in frame.notes]
        if any(frame.pixels.dtype.is_floating_point and not _is_sound(frame.pixels) for frame in frames):
            notes.append(f"{self.spec.name} left out pixels that are no numbers")
        return replace(
            reference,
            pixels=self.fuse(frames, index),
            state=self.emits(reference.state),
            masks={},
            facts=Facts(measured=reference.facts.measured),
            notes=tuple(dict.fromkeys(notes)),
        )

    def _check_bracket(self, frames: Sequence[Frame], reference: Frame) -> None:
        if len(frames) < 2:
            raise StageError(
                f"{reference.name}: {self.spec.name} needs at least two exposures, this is one frame; "
                "group its files with --group folder or --group N"
            )
        for frame in frames:
            self.check(frame)
            if (frame.height, frame.width) != (reference.height, reference.width):
                raise StageError(
                    f"{frame.name}: is {frame.width}x{frame.height}, {reference.name} is "
                    f"{reference.width}x{reference.height}; {self.spec.name} needs frames of one size: "
                    "take the odd one out of the bracket, or group the files anew"
                )
            if frame.state != reference.state:
                raise StageError(
                    f"{frame.name}: is {frame.state}, {reference.name} is {reference.state}; "
                    f"{self.spec.name} needs frames of one kind: convert the odd one, or take it out"
                )


@parameters
class Mertens(Fusion):
    """Exposure fusion by Mertens, Kautz and Van Reeth, from encoded frames to one encoded frame.

    Every pixel of every frame is weighted by local contrast, saturation and nearness to middle brightness; the frames
    are blended with these weights in a Laplacian pyramid. ``preset`` says what counts how much where nothing else is
    said: ``paper`` (all three alike), ``opencv`` (no nearness to middle brightness), both of which multiply the
    criteria, each to the power of its parameter; or ``enfuse`` (nearness and a fifth of saturation), which sums the
    criteria, each times its parameter, and takes saturation from HSL and brightness from the mean of the channels.

    Pixels in the masks ``outside`` and ``motion`` of a frame get no weight there, nor do those that are no numbers;
    where that leaves no frame, the reference frame is used. The frames must be aligned. The result has metadata,
    exposure and alpha of the bracket's reference frame; masks and facts are dropped. It is clamped to the range of the
    frames, at least 0..1.

    Raises StageError when there are fewer than two frames, or frames that differ in size or state.
    """

    spec = StageSpec(
        name="fusion.mertens",
        source="Mertens, Kautz & Van Reeth, Exposure Fusion, Pacific Graphics 2007; enfuse: version 4.2, measured",
        accepts=ACCEPTS,
        emits={"frames": "single"},
    )
    preset: Annotated[Preset, param("Whose criteria and defaults")] = "paper"
    contrast: Annotated[float | None, param("What local contrast counts; none: as the preset", ge=0, le=4)] = None
    saturation: Annotated[float | None, param("What saturation counts; none: as the preset", ge=0, le=4)] = None
    exposedness: Annotated[float | None, param("What the right brightness counts; none: preset", ge=0, le=4)] = None
    sigma: Annotated[float | None, param("Width of what is well exposed; none: as the preset", gt=0.01, le=2)] = None
    optimum: Annotated[float | None, param("Encoded value that is well exposed; none: preset", ge=0, le=1)] = None

    @property
    def weights(self) -> Weights:
        """What counts: the parameters that are given, else those of the preset."""
        given = {
            "contrast": self.contrast,
            "saturation": self.saturation,
            "exposedness": self.exposedness,
            "sigma": self.sigma,
            "optimum": self.optimum,
        }
        return replace(PRESETS[self.preset], **{name: value for name, value in given.items() if value is not None})

    def fuse(self, frames: Sequence[Frame], reference: int) -> Tensor:
        layers = _Exposures(frames, reference, self.weights, summed=self.preset == "enfuse")
        return blend(layers, int(math.log2(min(layers.height, layers.width))), limits=_range(frames))


class _Exposures(Layers):
    """Frames as layers of a blend, weighted by how good they are."""

    def __init__(self, frames: Sequence[Frame], reference: int, weights: Weights, *, summed: bool) -> None:
        self.feathers = [Feather.of(frame) for frame in frames]
        damaged = [frame.pixels.dtype.is_floating_point and not _is_sound(frame.pixels) for frame in frames]
        partial = [k for k in range(len(frames)) if damaged[k] or self.feathers[k] is not None]
        super().__init__(len(frames), frames[0].height, frames[0].width, partial)
        self.frames, self.reference, self.weights, self.summed = frames, reference, weights, summed

    def rows(self, start: int, stop: int) -> list[Layer]:
        planes, usable = load(self.frames, self.reference, start, stop)
        quality = quality_sum if self.summed else quality_product
        weights = [quality(each, self.frames[0].state.primaries, self.weights) for each in planes]
        covers = [None if each is None else each.float() for each in usable]
        for weight, cover, feather in zip(weights, covers, self.feathers, strict=True):
            if feather is not None:
                weight *= feather.rows(start, stop)
            if cover is not None:
                weight *= cover
        total = weights[0].clone()
        for weight in weights[1:]:
            total += weight
        for weight in weights:
            weight /= total
        return [Layer(*each) for each in zip(planes, weights, covers, strict=True)]


def load(frames: Sequence[Frame], reference: int, start: int, stop: int) -> tuple[list[Tensor], list[Tensor | None]]:
    """Rows ``start..stop`` of every frame as float32 ``[3,h,w]``, and where it can be used: ``[h,w]`` bool.

    ``None`` where that is everywhere. What is no number is 0. The reference frame counts as usable where no frame is.
    """
    planes = [_planar(frame.pixels[:, start:stop]) for frame in frames]
    usable: list[Tensor | None] = []
    for index, frame in enumerate(frames):
        known = None
        if frame.pixels.dtype.is_floating_point and not _is_sound(planes[index]):
            known = (planes[index].abs() <= LARGEST).all(0)
            planes[index] = torch.where(known, planes[index], 0.0)
        masked = unusable(frame, start, stop)
        if masked is not None and bool(masked.any()):
            known = ~masked if known is None else known.logical_and_(~masked)
        usable.append(known)
    own = usable[reference]
    if own is not None:
        others = [each for k, each in enumerate(usable) if k != reference]
        if all(each is not None for each in others):
            own |= ~torch.stack([each for each in others if each is not None]).any(0)
    return planes, usable


def unusable(frame: Frame, start: int = 0, stop: int | None = None) -> Tensor | None:
    """Rows of where the masks of a frame say that it must not be used, ``[h,w]`` bool; ``None`` without such masks."""
    masks = [frame.masks[name][:, start:stop].any(0) for name in UNUSABLE_MASKS if name in frame.masks]
    return torch.stack(masks).any(0) if masks else None


class Feather:
    """What a weight is multiplied by beside the masks of a frame: it rises from them on, so that no seam shows.

    ``masked`` ``[h,w]`` uint8 is above 0 in blocks of a frame of ``size`` where a pixel is masked.
    """

    def __init__(self, masked: NDArray[np.uint8], size: tuple[int, int]) -> None:
        self.size = size
        distance = cv2.distanceTransform((masked == 0).astype(np.uint8), cv2.DIST_L2, 3)
        reach = max(2.0, FEATHER_SHARE * min(masked.shape))
        self.ramp = torch.from_numpy(np.asarray(distance, np.float32)).div_(reach).clamp_(LEAST_FEATHER, 1.0)

    @staticmethod
    def of(frame: Frame) -> Feather | None:
        """The feather of a frame, ``None`` if nothing of it is masked."""
        block = max(1, min(frame.height, frame.width) // FEATHER_BLOCKS)
        width, step = -(-frame.width // block), block * max(1, 64 // block)
        parts = []
        for top in range(0, frame.height, step):
            rows = unusable(frame, top, min(top + step, frame.height))
            if rows is None:
                return None
            size = width, -(-rows.shape[0] // block)
            parts.append(cv2.resize(rows.numpy().view(np.uint8) * 255, size, interpolation=cv2.INTER_AREA))
        masked = np.concatenate(parts).astype(np.uint8)
        return Feather(masked, (frame.height, frame.width)) if masked.any() else None

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows ``start..stop`` at full size, ``[h,w]``."""
        if self.ramp.shape == self.size:
            return self.ramp[start:stop]
        last = self.ramp.shape[0] - 1
        places = (torch.arange(start, stop) + 0.5).mul_((last + 1) / self.size[0]).sub_(0.5).clamp_(0, last)
        above = places.floor().long()
        rows = torch.lerp(self.ramp[above], self.ramp[(above + 1).clamp_(max=last)], (places - above)[:, None])
        wide = cv2.resize(rows.numpy(), (self.size[1], stop - start), interpolation=cv2.INTER_LINEAR)
        return torch.from_numpy(np.asarray(wide, np.float32))


def quality_product(rgb: Tensor, primaries: Primaries, weights: Weights) -> Tensor:
    """The paper's quality ``[h,w]`` of encoded pixels ``[3,h,w]``, above 0: contrast, saturation and nearness of all
    three channels to the optimum, each to a power, multiplied."""
    mean = (rgb[0] + rgb[1]).add_(rgb[2]).mul_(1 / 3)
    spread = (rgb[0] - mean).square_()
    for plane in rgb[1:]:
        difference = plane - mean
        spread.addcmul_(difference, difference)
    if weights.exposedness:
        off = mean.sub_(weights.optimum)
        distance = torch.addcmul(spread, off, off, value=3.0)
        quality = _exp(distance.mul_(-0.5 * weights.exposedness / weights.sigma**2))
    else:
        quality = torch.ones_like(mean)
    if weights.saturation:
        quality.mul_(_power(spread.mul_(1 / 3), weights.saturation / 2))
    if weights.contrast:
        quality.mul_(_power(_contrast(rgb, primaries), weights.contrast))
    return quality.add_(LEAST_WEIGHT)


def quality_sum(rgb: Tensor, primaries: Primaries, weights: Weights) -> Tensor:
    """Enfuse's quality ``[h,w]`` of encoded pixels ``[3,h,w]``, above 0: nearness of the mean of the channels to the
    optimum, HSL saturation and contrast, each times a factor, summed. Contrast is the paper's."""
    mean = (rgb[0] + rgb[1]).add_(rgb[2]).mul_(1 / 3)
    quality = _exp(mean.sub_(weights.optimum).square_().mul_(-0.5 / weights.sigma**2)).mul_(weights.exposedness)
    if weights.saturation:
        high, low = torch.maximum(rgb[0], rgb[1]), torch.minimum(rgb[0], rgb[1])
        torch.maximum(high, rgb[2], out=high)
        torch.minimum(low, rgb[2], out=low)
        chroma = high - low
        room = high.add_(low).sub_(1.0).abs_().neg_().add_(1.0).clamp_(min=1e-6)
        quality.add_(chroma.div_(room).clamp_(max=1.0), alpha=weights.saturation)
    if weights.contrast:
        quality.add_(_contrast(rgb, primaries), alpha=weights.contrast)
    return quality.add_(LEAST_WEIGHT)


def _contrast(rgb: Tensor, primaries: Primaries) -> Tensor:
    """The absolute response ``[h,w]`` of luminance to the Laplacian (4 neighbours)."""
    gray = luminance(rgb, primaries)[0].numpy()
    response = cv2.Laplacian(gray, cv2.CV_32F, ksize=1, borderType=cv2.BORDER_REPLICATE)
    return torch.from_numpy(np.asarray(response)).abs_()


def _exp(values: Tensor) -> Tensor:
    """The exponential in place; OpenCV's is several times as fast as torch's."""
    cv2.exp(values.numpy(), values.numpy())
    return values


def _power(values: Tensor, exponent: float) -> Tensor:
    """Values >= 0 to a power, in place."""
    if exponent == 1:
        return values
    if exponent == 0.5:
        cv2.sqrt(values.numpy(), values.numpy())
        return values
    return values.pow_(exponent)


def _planar(pixels: Tensor) -> Tensor:
    """``[3,h,w]`` float32, plane by plane in memory, of pixels of any storage type and order."""
    if pixels.dtype not in (torch.uint8, torch.uint16) or pixels.stride(0) != 1 or pixels.stride(2) != 3:
        return to_float(pixels)
    result = torch.empty(pixels.shape)
    woven = pixels.permute(1, 2, 0).numpy()
    for channel, out in enumerate(result):
        out.copy_(torch.from_numpy(np.asarray(cv2.extractChannel(woven, channel))))
    return result.mul_(1.0 / torch.iinfo(pixels.dtype).max)


def _is_sound(pixels: Tensor) -> bool:
    """Whether all float values are of a picture."""
    low, high = torch.aminmax(pixels)
    return bool(low >= -LARGEST) and bool(high <= LARGEST)


def _range(frames: Sequence[Frame]) -> tuple[float, float]:
    """The least and the largest value of the frames, at most 0 and at least 1: colours outside the gamut go beyond."""
    values = [0.0, 1.0]
    for frame in frames:
        if not frame.pixels.dtype.is_floating_point:
            continue
        step = strip_rows(frame.width)
        for top in range(0, frame.height, step):
            rows = frame.pixels[:, top : top + step]
            rows = rows if _is_sound(rows) else rows.nan_to_num(0.0)
            values += [max(-LARGEST, min(LARGEST, float(extreme))) for extreme in torch.aminmax(rows)]
    return min(values), max(values)
