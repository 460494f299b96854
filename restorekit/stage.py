"""The one verb of a pipeline: a stage takes a frame and gives a frame.

A stage is a frozen dataclass whose fields are its parameters, declared once with range, unit
and doc; the YAML checker, ``--set``, the JSON schema and the web sliders all read that declaration.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, dataclass_transform

import pydantic
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic.fields import FieldInfo

from restorekit.checked import Checked
from restorekit.errors import InputError, StageError
from restorekit.facts import Facts
from restorekit.frame import Bracket, Frame, check_image
from restorekit.state import ImageState

T = TypeVar("T")


@dataclass(frozen=True)
class Reach:
    """How far a stage looks around a pixel to compute it.

    ``pointwise`` not at all, ``local`` at most ``halo`` px, ``global`` anywhere.
    """

    kind: Literal["pointwise", "local", "global"]
    halo: int = 0


POINTWISE = Reach("pointwise")
GLOBAL = Reach("global")


def local(halo: int) -> Reach:
    """A reach of ``halo`` px, rounded up to even so that strips keep the phase of a Bayer mosaic."""
    return Reach("local", halo + halo % 2)


@dataclass(frozen=True)
class StageSpec:
    """What every instance of a stage promises.

    ``accepts`` maps an axis of ImageState to the values it takes (an axis left out: any),
    ``emits`` to the value it gives (left out: as it came). ``needs`` and ``adds`` are names
    of Facts fields. ``source`` cites the paper, equation or standard it follows.
    """

    name: str
    source: str
    accepts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    emits: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    adds: tuple[str, ...] = ()


def param(
    doc: str,
    *,
    unit: str = "",
    ge: float | None = None,
    le: float | None = None,
    gt: float | None = None,
    usual: tuple[float, float] | None = None,
) -> FieldInfo:
    """The declaration of a stage's parameter: ``gain: Annotated[float, param("Gain", ge=0)] = 1.0``.

    ``usual`` is the part of a wide range that sliders show.
    """
    extra: dict[str, Any] = {"unit": unit} if unit else {}
    extra |= {"usual": list(usual)} if usual else {}
    info: FieldInfo = pydantic.Field(description=doc, ge=ge, le=le, gt=gt, json_schema_extra=extra or None)
    return info


@dataclass_transform(frozen_default=True, kw_only_default=True)
def parameters(cls: type[T]) -> type[T]:
    """Class decorator: the annotated fields of a stage become its validated parameters."""
    config = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=False)
    return pydantic_dataclass(frozen=True, kw_only=True, config=config)(cls)  # type: ignore[return-value]


class Stage(metaclass=Checked):
    """Base of all stages that work on one frame at a time (every frame of a bracket alike).

    Subclasses set ``spec``, carry the ``parameters`` decorator, and implement ``apply``.
    ``apply`` gets float32 pixels, never changes its input, and never clamps unless its doc
    says so. On a strip (``frame.region`` set) it computes what it would on the whole image,
    but for ``reach.halo`` rows next to the cut, which the engine throws away.

    Raises ParameterError for parameters that it does not have, or values out of their range.
    """

    spec: ClassVar[StageSpec]

    def reach(self) -> Reach:
        """How far this stage looks; may depend on its parameters."""
        return POINTWISE

    def accepts(self) -> Mapping[str, tuple[str, ...]]:
        """The states this stage takes; may depend on its parameters."""
        return self.spec.accepts

    def emits(self, state: ImageState) -> ImageState:
        """The state after this stage, given the state before it."""
        return state.changed(self.spec.emits)

    def suited(self, frame: Frame) -> Stage:
        """This stage as it runs on a frame: itself, or with a parameter changed that does not go with the frame.

        ``Nothing()`` where there is nothing to do, so that strips run through. What counts is the frame's state,
        camera, exposure and metadata; its pixels may be those of an earlier stage.
        """
        return self

    def needs(self) -> tuple[str, ...]:
        """The facts this stage needs; may depend on its parameters."""
        return self.spec.needs

    def needs_measure(self, frame: Frame) -> bool:
        """Whether ``measure`` must see the whole image first; overridden where it depends on the frame."""
        return type(self).measure is not Stage.measure

    def measure(self, frame: Frame) -> Facts:
        """Whole-image statistics: the facts with which ``apply`` then runs on every strip."""
        return frame.facts

    def apply(self, frame: Frame) -> Frame:
        """The frame after this stage, with pixels of the state that ``emits`` promises."""
        raise StageError(f"stage {self.spec.name} cannot work on a single frame")

    def warnings(self, state: ImageState, before: Sequence[Stage] = ()) -> tuple[str, ...]:
        """What ``explain`` should warn about when this stage meets this state, behind these stages."""
        return ()

    def open(self) -> None:
        """Load what is large and needed for every picture, such as weights. Raises RestorekitError where it fails."""

    def files(self) -> Iterator[Path]:
        """The files this stage reads beside the picture; results are made again when they change.

        Raises RestorekitError when one is not there, before any picture is opened.
        """
        for parameter in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, parameter.name)
            if isinstance(value, Path):
                if not value.is_file():
                    raise InputError(f"{value}: no such file (parameter {parameter.name} of {self.spec.name})")
                yield value

    def __call__(self, frame: Frame) -> Frame:
        """Run on a whole frame: check the state and facts, measure, apply, declare the new state."""
        check_image(frame)
        self.check(frame)
        stage, frame = self.suited(frame), frame.as_float()
        if stage.needs_measure(frame):
            frame = replace(frame, facts=stage.measure(frame))
        return run(stage, frame)

    def check(self, frame: Frame) -> None:
        """Raise StageError when the frame is in a state, or lacks a fact, that this stage cannot work with."""
        wrong = frame.state.differences({k: v for k, v in self.accepts().items() if k != "frames"})
        if wrong:
            raise StageError(f"{frame.name}: {refusal(self, frame.state, wrong)}")
        for fact in self.needs():
            if getattr(frame.facts, fact) is None:
                raise StageError(f"{frame.name}: {missing_fact(self.spec, fact)}")


@parameters
class Nothing(Stage):
    """A stage that leaves every frame as it is."""

    spec: ClassVar[StageSpec] = StageSpec(name="nothing", source="no change")

    def apply(self, frame: Frame) -> Frame:
        return frame


class BracketStage(Stage):
    """Base of stages that see all frames of a bracket at once: align, merge, fuse."""

    def reach(self) -> Reach:
        return GLOBAL

    def combine(self, bracket: Bracket) -> Frame | Bracket:
        """One frame made of the bracket, or the bracket with its frames changed."""
        raise StageError(f"stage {self.spec.name} cannot combine a bracket")

    def run(self, bracket: Bracket) -> Frame | Bracket:
        """Check every frame, combine, and stamp the state that ``emits`` promises."""
        for frame in bracket:
            self.check(frame)
        emitted = self.emits(bracket.state.changed({"frames": "bracket"})).changed({"frames": "single"})
        result = self.combine(bracket)
        if isinstance(result, Frame):
            return replace(result, state=emitted)
        return Bracket(tuple(replace(frame, state=emitted) for frame in result))


def changed_at(path: Path, stage: Stage) -> int:
    """When a file that a stage's parameter names was last changed, in ns: tells versions of it apart in caches.

    Raises InputError for a file that is not there.
    """
    try:
        return path.stat().st_mtime_ns
    except OSError as error:
        raise InputError(f"{path}: {stage.spec.name} cannot read it ({error.strerror}); check the path") from None


def run(stage: Stage, frame: Frame) -> Frame:
    """Apply a stage to a checked, measured frame and stamp the state it emits.

    Raises StageError when the stage gives something else than it promises.
    """
    result = stage.apply(frame)
    if not isinstance(result, Frame):
        raise StageError(f"stage {stage.spec.name} gave {type(result).__name__} instead of a frame; mend its apply")
    moved = (result.height, result.width) != (frame.height, frame.width)
    if moved and stage.reach().kind != "global":
        raise StageError(
            f"stage {stage.spec.name} changed the size of its frame; only stages whose reach is GLOBAL may"
        )
    stamped = replace(result, state=stage.emits(frame.state))
    if not stamped.fits_its_layout:
        raise StageError(f"stage {stage.spec.name} gave {stamped.pixels.shape[0]} channels for {stamped.state}")
    return stamped


CURES: Mapping[str, Callable[[str, str], str]] = {
    "reference": lambda have, want: {
        ("sensor", "scene"): "add raw.black_level before it",
        (
            "sensor",
            "display",
        ): "develop the RAW first: raw.black_level, raw.demosaic, color.camera_matrix, a tone.* stage",
        ("scene", "display"): "add a tone-mapping stage (tone.filmic, tone.reinhard) before it",
        ("display", "scene"): "move it before the tone-mapping stage",
    }.get((have, want), "move it to where the pipeline is in that state"),
    "layout": lambda have, want: {"bayer": "add raw.demosaic before it", "xtrans": "add raw.demosaic before it"}.get(
        have, "add color.to_rgb before it" if (have, want) == ("gray", "rgb") else "move it before raw.demosaic"
    ),
    "transfer": lambda have, want: (
        "add color.decode before it" if want == "linear" else "take it out, or add color.encode before it"
    ),
    "primaries": lambda have, want: (
        "add color.camera_matrix before it" if have == "camera" else "move it before color.camera_matrix"
    ),
    "frames": lambda have, want: (
        "set input.frames: bracket, or move it before the stage that merges or fuses it"
        if have == "single"
        else "merge or fuse the bracket before it"
    ),
}
"""What to do about a state a stage does not take: (what there is, what it wants) -> advice, by axis."""


def refusal(stage: Stage, state: ImageState, wrong: tuple[str, ...]) -> str:
    """Why a stage does not take a state and what to do, for the first axis that is wrong."""
    spec = stage.spec
    order = [axis for axis in ("frames", "reference", "layout", "transfer", "primaries") if axis in wrong]
    axis = order[0]
    have, allowed = getattr(state, axis), stage.accepts()[axis]
    said = {"reference": "-referred"}.get(axis, "")
    what = {
        "reference": "",
        "frames": "frames: ",
        "layout": "layout ",
        "transfer": "transfer ",
        "primaries": "primaries ",
    }
    wants = " or ".join(f"{value}{said}" for value in allowed)
    cure = CURES[axis](have, allowed[0])
    if axis == "reference" and state.frames != "single" and (have, allowed[0]) == ("display", "scene"):
        cure = "add merge.response before it"
    return f"{spec.name} wants {what[axis]}{wants}, what comes before it gives {have}{said}; {cure}"


def missing_fact(spec: StageSpec, fact: str) -> str:
    """Why a stage cannot run without a fact and which stage family brings it."""
    cure = {
        "illuminant": "add an illuminant.* stage before it",
        "clip_level": "add raw.black_level before it",
        "white_balance": "add color.white_balance before it",
        "alignment": "add an align.* stage before it",
        "exposure_gain": "add merge.exposures before it",
        "noise": "use a camera with a noise profile, or set the noise parameters of the stage",
    }.get(fact, "add the stage that measures it")
    return f"{spec.name} needs the fact '{fact}', which nothing before it gives; {cure}"
