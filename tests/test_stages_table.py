"""The table of built-in stages: what it names is there, typed and documented, and keeps the laws as it comes."""

from __future__ import annotations

import ast
import dataclasses
import importlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle, product
from pathlib import Path

import numpy as np
import pytest
import torch

import restorekit.stages
from restorekit.facts import Calibration, Camera, CameraProfile, Exposure, Facts
from restorekit.frame import Bracket, Frame
from restorekit.json_schema import describe
from restorekit.registry import stage_class
from restorekit.stage import BracketStage, Stage
from restorekit.stages import BUILT_IN, Demosaic, Resize, Restore
from restorekit.state import AXES, ImageState
from restorekit.testing import BracketLaws, StageLaws, bayer_frame, rgb_frame

BRACKET_LAWS = tuple(name for name in vars(BracketLaws) if name.startswith("test_"))
LAWS = (
    "test_strips_equal_the_whole_image",
    "test_gives_the_state_it_declares",
    "test_leaves_its_input_alone",
    "test_is_deterministic",
)
PRIMARIES = ("camera", "bt709")
XTRANS = ("GBGGRG", "RGRBGB", "GBGGRG", "GRGGBG", "BGBRGR", "GRGGBG")
BLACK, WHITE = 512.0, 16383.0
MATRIX = np.array([(0.75, -0.2, -0.08), (-0.42, 1.22, 0.22), (-0.06, 0.2, 0.64)])


def made(name: str, state: ImageState | None = None) -> Stage:
    """A stage with its default parameters, but for those that it refuses to work without."""
    if name == "geometry.resize":
        return Resize(scale=0.7)
    if name == "raw.demosaic" and state and state.layout == "xtrans":
        return Demosaic(method="libraw")
    if name == "restore":
        return Restore(model="hat.x4")
    cls = stage_class(name)
    return cls(**{row["name"]: Path("absent") for row in describe(cls) if row["needed"]})


def states(stage: Stage) -> Iterator[ImageState]:
    """The states a stage says it takes, of those that occur: mosaics, say, are linear light in camera primaries."""
    for values in product(*(stage.spec.accepts.get(axis, AXES[axis]) for axis in AXES if axis != "frames")):
        state = ImageState(*values)  # type: ignore[arg-type]
        possible = {
            "sensor": state.transfer == "linear" and state.primaries == "camera",
            "scene": state.transfer == "linear" and (state.primaries == "camera" or not state.is_mosaic),
            "display": state.primaries != "camera" and not state.is_mosaic,
        }
        if possible[state.reference] and state.primaries in PRIMARIES:
            yield state


def frame(state: ImageState, height: int, width: int) -> Frame:
    """A frame in a state, with everything known that a stage may need."""
    made = bayer_frame(height, width) if state.is_mosaic else rgb_frame(height, width)
    pixels = made.pixels[:1] if state.layout == "gray" else made.pixels
    channels = len(pixels)
    clipped = torch.zeros_like(pixels, dtype=torch.bool)
    clipped[:, :6, -8:] = True
    pixels = torch.where(clipped, 1.0, pixels)
    if state.reference == "sensor":
        pixels = (pixels * (WHITE - BLACK) + BLACK).round()
    camera = Camera(
        make="Test",
        model="One",
        cfa={"bayer": ("GB", "RG"), "xtrans": XTRANS}.get(state.layout, ()),
        black=np.full((1, 1, channels), BLACK, np.float32),
        white=np.full(channels, WHITE, np.float32),
        neutral=(0.5, 1.0, 0.7),
        calibrations=(Calibration(6504.0, MATRIX),),
        profile=CameraProfile(tone_curve=np.array([(0, 0), (0.2, 0.4), (1, 1)], np.float32)),
    )
    facts = Facts(
        illuminant=(0.5, 1.0, 0.7),
        white_balance=(2.0, 1.0, 1 / 0.7),
        noise=((1e-4, 1e-6),) * channels,
        clip_level=(1.0,) * channels,
    )
    return replace(
        made,
        pixels=pixels,
        state=state,
        masks={} if state.reference == "sensor" else {"clipped": clipped},
        alpha=None if state.is_mosaic else torch.linspace(0, 1, width).expand(1, height, width).clone(),
        camera=camera,
        facts=facts,
    )


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", BUILT_IN)
def test_a_stage_keeps_the_laws_in_every_state_it_takes(name: str, law: str) -> None:
    stage = made(name)
    if any(row["needed"] for row in describe(type(stage))):
        pytest.skip("needs a file; its own tests hold the laws")
    if isinstance(stage, BracketStage):
        pytest.skip("takes a bracket, whose laws are tried below")
    if law == LAWS[0] and stage.reach().kind == "global":
        pytest.skip("looks at the whole image, so that it never gets strips")
    taken = tuple(states(stage))
    assert taken
    for state in taken:
        sizes = ((96, 102), (83, 91)) if state.layout == "xtrans" else ((46, 52), (37, 71))
        frames = tuple(frame(state, *size) for size in sizes)
        laws = type("Laws", (StageLaws,), {"stages": (made(name, state),), "frames": frames})
        getattr(laws(), law)()


def bracket(state: ImageState, height: int, width: int) -> Bracket:
    """Three exposures of a scene, a stop apart, the outer ones with masks as alignment leaves them."""
    frames = []
    for index, gain in enumerate((0.5, 1.0, 2.0)):
        made = frame(state, height, width)
        pixels = (made.pixels * gain).clamp(max=1.0)
        facts = replace(made.facts, exposure_gain=(1 / gain,) * len(pixels))
        outside = torch.zeros(1, height, width, dtype=torch.bool)
        outside[:, -3:] = True
        masks = {**made.masks, "clipped": pixels >= 1.0, **({"outside": outside} if gain != 1.0 else {})}
        exposure = Exposure(time_s=0.01 * gain, ev_offset=float(index - 1))
        frames.append(replace(made, pixels=pixels, facts=facts, masks=masks, exposure=exposure))
    return Bracket(tuple(frames))


@pytest.mark.parametrize("law", BRACKET_LAWS)
@pytest.mark.parametrize("name", [name for name in BUILT_IN if issubclass(stage_class(name), BracketStage)])
def test_a_bracket_stage_keeps_the_laws_in_the_states_it_takes(name: str, law: str) -> None:
    """In every layout and reference, of linear and of sRGB values."""
    stage = made(name)
    common = [state for state in states(stage) if state.transfer in ("linear", "srgb")]
    taken = [state for state in common if (state.primaries == "camera") == state.is_mosaic]
    assert taken
    brackets = tuple(bracket(state, *size) for state, size in zip(taken, cycle(((46, 52), (37, 71)))))
    getattr(type("Laws", (BracketLaws,), {"stages": (stage,), "brackets": brackets})(), law)()


def test_every_law_for_single_frames_is_named_here() -> None:
    known = {name for name in vars(StageLaws) if name.startswith("test_")}
    assert known == {*LAWS, "test_scales_with_exposure"}, "the last holds for some stages only; their own tests say so"


def assigned(body: list[ast.stmt]) -> dict[str, ast.expr]:
    """The values that names are set to in a module or class, by name."""
    pairs = [(target, node.value) for node in body if isinstance(node, ast.Assign) for target in node.targets]
    pairs += [(node.target, node.value) for node in body if isinstance(node, ast.AnnAssign) and node.value]
    return {target.id: value for target, value in pairs if isinstance(target, ast.Name)}


def own_cases(tree: ast.Module) -> set[str]:
    """The names that stand in ``stages`` of the StageLaws of a test module, those of its constants followed."""
    constants = assigned(tree.body)
    laws = [
        node
        for node in tree.body
        if isinstance(node, ast.ClassDef) and any(isinstance(b, ast.Name) and b.id == "StageLaws" for b in node.bases)
    ]
    waiting = [assigned(node.body)["stages"] for node in laws]
    found: set[str] = set()
    while waiting:
        for node in ast.walk(waiting.pop()):
            if isinstance(node, ast.Name) and node.id not in found:
                found.add(node.id)
                waiting += [constants[node.id]] if node.id in constants else []
    return found


def test_every_stage_has_laws_among_its_own_tests(checkout: Path) -> None:
    """Here only defaults are tried; the tests of a stage try its parameters."""
    folder = checkout / "tests" / "stages"
    tried = set().union(*(own_cases(ast.parse(path.read_text(encoding="utf-8"))) for path in folder.glob("test_*.py")))
    for name in BUILT_IN:
        cls = stage_class(name)
        assert cls.__name__ in tried or issubclass(cls, BracketStage), f"{name} has no StageLaws in tests/stages"


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_stage_is_what_the_table_says(name: str) -> None:
    module, _, attribute = BUILT_IN[name].target.partition(":")
    cls = getattr(importlib.import_module(module), attribute)
    assert stage_class(name) is cls is getattr(restorekit.stages, attribute)
    assert issubclass(cls, Stage) and dataclasses.is_dataclass(cls)
    spec = cls.spec
    assert spec.name == name
    assert BUILT_IN[name].summary and spec.source and cls.__doc__
    for axis, values in spec.accepts.items():
        assert values and set(values) <= set(AXES[axis])
    for axis, value in spec.emits.items():
        assert value in AXES[axis]
    assert {*spec.needs, *spec.adds} <= {field.name for field in dataclasses.fields(Facts)}
    for row in describe(cls):
        assert row["doc"], f"{name}: parameter {row['name']} has no doc"
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(made(name), row["name"], row["default"])


def test_the_package_names_the_classes_of_the_table() -> None:
    classes = [entry.target.partition(":")[2] for entry in BUILT_IN.values()]
    assert len(set(classes)) == len(classes), "class names tell the stages apart"
    assert restorekit.stages.__all__ == sorted(classes)
    assert set(classes) <= set(dir(restorekit.stages))
    with pytest.raises(AttributeError, match="no stage class 'Nonesuch'"):
        _ = restorekit.stages.Nonesuch


def test_type_checkers_see_every_class() -> None:
    tree = ast.parse(Path(restorekit.stages.__file__).read_text(encoding="utf-8"))
    (block,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    )
    seen = {
        f"{node.module}:{alias.name}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }
    assert seen == {entry.target for entry in BUILT_IN.values()}
