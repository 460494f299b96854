"""The value that flows through a pipeline: one image with what is known about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restorekit.errors import InputError
from restorekit.facts import Camera, Exposure, Facts, Metadata
from restorekit.planes import orient, to_float
from restorekit.state import ImageState

BayerPattern = Literal["RGGB", "BGGR", "GRBG", "GBRG"]


LEFT_OUT = (
    "corrections that the file asks for are left out; raw.lens_shading and lens.correct do them, before stages that "
    "crop, turn or resize"
)


@dataclass(frozen=True)
class Region:
    """Where a strip lies in its image: its first row, and the height of the whole."""

    top: int
    full_height: int


@dataclass(frozen=True, eq=False)
class Frame:
    """One image: pixels, their meaning, and what is known about them. Never changed in place.

    ``pixels`` is ``[C,H,W]``, C = 1 for a mosaic or gray, in RGB order. The type is the one
    it came in (uint8, uint16, float16, float32) until a stage needs float: integers of a
    sensor-referred frame are digital numbers, other integers are fractions of their maximum.
    ``alpha`` is ``[1,H,W]`` in 0..1 (or an integer type), ``masks`` are bool planes ``[1,H,W]``
    or ``[C,H,W]`` by name (``clipped``, ``motion``).
    """

    pixels: Tensor
    state: ImageState = ImageState()
    alpha: Tensor | None = None
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    exposure: Exposure = Exposure()
    camera: Camera = Camera()
    facts: Facts = Facts()
    metadata: Metadata = Metadata()
    source: Path | None = None
    region: Region | None = None
    notes: tuple[str, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        """Tensors as arrays: torch would send them between processes through shared memory, which may be small."""
        planes = {"pixels": self.pixels.numpy(), "alpha": None if self.alpha is None else self.alpha.numpy()}
        return {**self.__dict__, **planes, "masks": {name: mask.numpy() for name, mask in self.masks.items()}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        masks = {name: torch.from_numpy(mask) for name, mask in state["masks"].items()}
        alpha = None if state["alpha"] is None else torch.from_numpy(state["alpha"])
        self.__dict__.update(state, pixels=torch.from_numpy(state["pixels"]), alpha=alpha, masks=masks)

    def __post_init__(self) -> None:
        if not isinstance(self.pixels, Tensor):
            raise InputError(
                f"a frame's pixels are a torch tensor, got {type(self.pixels).__name__}; use torch.as_tensor"
            )
        if self.pixels.ndim != 3 or 0 in self.pixels.shape:
            raise InputError(f"a frame's pixels are [C,H,W] and not empty, got shape {tuple(self.pixels.shape)}")

    @property
    def fits_its_layout(self) -> bool:
        """Whether there are as many channels as the layout has: 3 for rgb, else 1."""
        return self.pixels.shape[0] == (3 if self.state.layout == "rgb" else 1)

    @property
    def height(self) -> int:
        return self.pixels.shape[1]

    @property
    def width(self) -> int:
        return self.pixels.shape[2]

    @property
    def name(self) -> str:
        """What messages call this frame."""
        return str(self.source) if self.source else "frame"

    def with_pixels(self, pixels: Tensor) -> Frame:
        """This frame with other pixels of the same meaning."""
        return replace(self, pixels=pixels)

    def with_note(self, note: str) -> Frame:
        """This frame with a warning for the report (each text once)."""
        return self if note in self.notes else replace(self, notes=(*self.notes, note))

    def as_float(self) -> Frame:
        """This frame with float32 pixels and alpha: integers become 0..1, digital numbers stay as they are."""
        alpha = None if self.alpha is None else to_float(self.alpha)
        pixels = to_float(self.pixels, digital_numbers=self.state.reference == "sensor")
        return self if pixels is self.pixels and alpha is self.alpha else replace(self, pixels=pixels, alpha=alpha)

    def planes(self, apply: Callable[[Tensor], Tensor]) -> Frame:
        """This frame with a geometric operation applied to pixels, alpha and masks alike."""
        return replace(
            self,
            pixels=apply(self.pixels),
            alpha=None if self.alpha is None else apply(self.alpha),
            masks={name: apply(mask) for name, mask in self.masks.items()} if self.masks else self.masks,
        )

    def rows(self, start: int, stop: int) -> Frame:
        """The rows ``start..stop`` of this frame as a strip that knows its place."""
        if start == 0 and stop == self.height and self.region is not None:
            return self
        here = self.region or Region(0, self.height)
        strip = self.planes(lambda plane: plane[:, start:stop])
        return replace(strip, region=Region(here.top + start, here.full_height))

    def upright(self) -> Frame:
        """This frame cropped and turned as its metadata still ask. Mosaics are left as they are.

        Opcode lists that no stage has applied are dropped and noted: they fit the frame as the sensor gave it only.
        """
        orientation, crop, lists = self.metadata.orientation, self.metadata.crop, self.camera.opcode_lists
        if (orientation == 1 and crop is None and not any(lists)) or self.state.is_mosaic:
            return self
        if any(lists):
            camera = replace(self.camera, opcode_lists=(b"", b"", b""))
            return replace(self, camera=camera).with_note(LEFT_OUT).upright()
        top, left, bottom, right = crop or (0, 0, self.height, self.width)
        finished = self.planes(lambda plane: orient(plane[:, top:bottom, left:right], orientation))
        return replace(finished, metadata=replace(self.metadata, orientation=1, crop=None))

    @staticmethod
    def from_bayer(
        mosaic: NDArray[np.generic] | Tensor,
        *,
        pattern: BayerPattern,
        black: float | Sequence[float] = 0.0,
        white: float,
        exposure: Exposure | None = None,
        neutral: tuple[float, float, float] | None = None,
        camera: Camera | None = None,
    ) -> Frame:
        """A sensor-referred frame from a mosaic ``[H,W]`` of digital numbers.

        ``black`` is one level or four, in the order of ``pattern``; ``white`` the level at which
        the sensor clips; ``neutral`` the camera RGB of a white surface. ``camera`` may bring the
        colour calibration; its mosaic and levels are replaced by those given here.

        Raises InputError for a wrong shape, an unknown pattern or a white level not above black.
        """
        if not isinstance(mosaic, Tensor):
            native = np.asarray(mosaic)
            mosaic = torch.from_numpy(np.array(native, dtype=native.dtype.newbyteorder("="), order="C"))
        plane = mosaic
        if plane.ndim != 2:
            raise InputError(f"a bayer mosaic is [H,W], got shape {tuple(plane.shape)}")
        if pattern not in get_args(BayerPattern):
            raise InputError(f"bayer pattern {pattern!r} is none of RGGB, BGGR, GRBG, GBRG")
        levels = np.asarray(black, dtype=np.float32).reshape(-1)
        if levels.size not in (1, 4):
            raise InputError(f"black is one level or four, got {levels.size}")
        if not white > levels.max():
            raise InputError(f"white level {white} is not above black level {levels.max()}")
        if neutral is not None and not (np.isfinite(neutral).all() and min(neutral) > 0):
            raise InputError(f"neutral {neutral} is not three positive numbers, the camera RGB of a white surface")
        cell = levels.reshape(1, 1, 1) if levels.size == 1 else levels.reshape(2, 2, 1)
        base = camera or Camera()
        return Frame(
            plane[None],
            ImageState("bayer", "sensor", "linear", "camera"),
            exposure=exposure or Exposure(),
            camera=replace(
                base,
                cfa=(pattern[:2], pattern[2:]),
                black=cell,
                white=np.asarray([white], dtype=np.float32),
                neutral=neutral or base.neutral,
            ),
        )


PILE, PILE_SHARE, HEADROOM = 8, 1e-4, 2.0
"""So many equal largest values, and this share of all, mean that light was cut there; else it was so far above."""

PROBE_PX = 256
"""About so many pixels a side are looked at to tell which frame is brighter."""


def _brightness(frame: Frame) -> float:
    """The mean of a sparse sample of the pixels; those that are no numbers count as black."""
    step = max(1, min(frame.height, frame.width) // PROBE_PX)
    step += 1 - step % 2  # odd, so that all colours of a mosaic are met
    sample = to_float(frame.pixels[:, ::step, ::step], digital_numbers=frame.state.reference == "sensor")
    return float(sample.nan_to_num(0.0, 0.0, 0.0).mean())


def _with_clip_level(frame: Frame) -> Frame:
    """A frame of a bracket that tells where it clips: at its largest value where that piles up, else far above.

    Files of scene light (EXR) do not tell where it was cut; merging has to know.
    """
    if frame.state.reference != "scene" or frame.facts.clip_level is not None or "clipped" in frame.masks:
        return frame
    values = to_float(frame.pixels)
    finite = values.isfinite()
    largest = float(values[finite].max()) if bool(finite.any()) else 0.0
    if largest <= 0:
        return frame
    reached = values >= largest
    if int((reached & finite).sum()) < max(PILE, PILE_SHARE * values.numel()):
        return replace(frame, facts=replace(frame.facts, clip_level=(HEADROOM * largest,) * values.shape[0]))
    facts = replace(frame.facts, clip_level=(largest,) * values.shape[0])
    return replace(frame, facts=facts, masks={**frame.masks, "clipped": reached.any(0, keepdim=True)})


@dataclass(frozen=True, eq=False)
class Bracket:
    """Frames of one scene at different exposures, darkest first (a burst: all the same)."""

    frames: tuple[Frame, ...]

    def __post_init__(self) -> None:
        if not self.frames:
            raise InputError("a bracket needs at least one frame")

    @staticmethod
    def of(frames: Sequence[Frame], ev: Sequence[float] = ()) -> Bracket:
        """Frames of one scene as a bracket, darkest first: by exposure, or where it is unknown by their mean.

        ``ev`` gives exposure offsets in stops, in the order of the frames.

        Raises InputError when there is one frame only, when sizes or states differ, or when
        ``ev`` has another length.
        """
        if not frames:
            raise InputError("a bracket needs at least two frames, got none")
        first = frames[0]
        if len(frames) < 2:
            raise InputError(
                f"{first.name}: is one frame, a bracket needs at least two; "
                "group its files with --group folder or --group N"
            )
        if ev and len(ev) != len(frames):
            raise InputError(
                f"{first.name}: {len(ev)} exposure offsets for a bracket of {len(frames)} frames; give one a frame"
            )
        for frame in frames[1:]:
            if (frame.height, frame.width) != (first.height, first.width):
                raise InputError(
                    f"{frame.name}: is {frame.width}x{frame.height}, but {first.name} of the same bracket is "
                    f"{first.width}x{first.height}; use frames of one size"
                )
            if frame.state != first.state:
                raise InputError(
                    f"{frame.name}: is {frame.state}, but {first.name} of the same bracket is {first.state}; "
                    "use one kind of file"
                )
        frames = [_with_clip_level(frame) for frame in frames]
        if ev:
            marked = [replace(f, exposure=replace(f.exposure, ev_offset=e)) for f, e in zip(frames, ev, strict=True)]
            return Bracket(tuple(sorted(marked, key=lambda frame: frame.exposure.ev_offset or 0.0)))
        if all(frame.exposure.relative is not None for frame in frames):
            return Bracket(tuple(sorted(frames, key=lambda frame: frame.exposure.relative or 0.0)))
        return Bracket(tuple(sorted(frames, key=_brightness)))

    def __iter__(self) -> Iterator[Frame]:
        return iter(self.frames)

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def state(self) -> ImageState:
        """The state of its frames, which must be equal."""
        return self.frames[0].state

    @property
    def reference(self) -> Frame:
        """The frame that the others are measured against: the middle one."""
        return self.frames[len(self.frames) // 2]

    def with_reference(self, frame: Frame) -> Bracket:
        """This bracket with another frame in place of its reference."""
        middle = len(self.frames) // 2
        return Bracket((*self.frames[:middle], frame, *self.frames[middle + 1 :]))


def check_image(image: object) -> None:
    """Raise InputError, with the call that makes one, for what is neither a frame nor a bracket."""
    if isinstance(image, Frame | Bracket):
        return
    if isinstance(image, str | Path):
        raise InputError(f"{image}: is a path where a frame belongs; read it first: restorekit.read({str(image)!r})")
    cure = "restorekit.Bracket.of(frames)" if isinstance(image, list | tuple) else "restorekit.Frame(tensor)"
    raise InputError(f"{type(image).__name__} stands where a frame or a bracket belongs; make one: {cure}")
