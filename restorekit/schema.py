"""Pipeline files: YAML in, a checked Pipeline or every problem with its place out.

Files are untrusted: the safe YAML loader builds plain values only.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import pydantic
import yaml

from restorekit import bundled
from restorekit.errors import PipelineError, Problem, RestorekitError
from restorekit.io.brackets import Grouping
from restorekit.io.formats import OutputSpec
from restorekit.io.raw import Headerless
from restorekit.pipeline import InputSpec, Pipeline, PreviewChange, Step, fold, output_problems, parameter_problems
from restorekit.registry import did_you_mean, stage_class
from restorekit.stage import Stage
from restorekit.state import AXES, SHORTHANDS, ImageState
from restorekit.yaml_syntax import syntax_problem, text_problem

VERSION = 1
TOP_KEYS = ("restorekit", "name", "summary", "input", "stages", "output", "preview")
INPUT_KEYS = ("state", "frames", "group", "headerless", "exposures")

Place = tuple[int, int]


@dataclass(frozen=True)
class _Located:
    """A YAML value and where it, its keys and its items stand."""

    value: Any
    place: Place
    keys: Mapping[str, Place] = field(default_factory=dict)
    children: Mapping[str, _Located] = field(default_factory=dict)
    items: tuple[_Located, ...] = ()


def load(name_or_path: str | Path) -> Pipeline:
    """A pipeline from a YAML file, or a shipped one by name.

    Raises PipelineError with all problems at once, or RestorekitError when there is no such pipeline.
    """
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise RestorekitError(
                f"{path}: there is no such pipeline file; restorekit pipelines list names the shipped ones"
            ) from None
        except OSError as error:
            raise RestorekitError(f"{path}: cannot be read as a pipeline: {error.strerror or error}") from None
        try:
            return parse(data.decode("utf-8"), str(path))
        except UnicodeDecodeError as error:
            raise PipelineError(str(path), (text_problem(data, error),)) from None
    names = bundled.pipelines()
    if str(name_or_path) not in names:
        hint = did_you_mean(str(name_or_path), names) or "; restorekit pipelines list names the shipped ones"
        raise RestorekitError(f"unknown pipeline '{name_or_path}'{hint}")
    return parse(names[str(name_or_path)].read_text(encoding="utf-8"), f"{name_or_path}.yaml")


def parse(text: str, source: str) -> Pipeline:
    """A pipeline from YAML text; ``source`` is what problems call the file.

    Raises PipelineError with all problems at once.
    """
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise PipelineError(
                    source, (Problem("YAML aliases are not used in pipelines; write the value out", line),)
                )
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except RecursionError:
        raise PipelineError(source, (Problem("nested too deeply for a pipeline"),)) from None
    except yaml.YAMLError as error:
        raise PipelineError(source, (syntax_problem(text, error),)) from None
    reader = _Reader(source)
    pipeline = reader.pipeline(reader.locate(node))
    if reader.problems or pipeline is None:
        raise PipelineError(source, tuple(sorted(reader.problems, key=lambda p: (p.line, p.column))))
    return pipeline


class _Reader:
    """Reads one file and collects its problems."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.problems: list[Problem] = []

    def complain(self, message: str, place: Place) -> None:
        self.problems.append(Problem(message, *place))

    def locate(self, node: yaml.Node | None) -> _Located:
        """Plain values with their places; keys given twice are a problem."""
        if node is None:
            return _Located(None, (1, 1))
        place = (node.start_mark.line + 1, node.start_mark.column + 1)
        if isinstance(node, yaml.MappingNode):
            keys: dict[str, Place] = {}
            children: dict[str, _Located] = {}
            for key_node, value_node in node.value:
                key = str(key_node.value)
                where = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
                if key in keys:
                    self.complain(f"'{key}' stands twice; keep one", where)
                keys[key], children[key] = where, self.locate(value_node)
            return _Located({k: v.value for k, v in children.items()}, place, keys, children)
        if isinstance(node, yaml.SequenceNode):
            items = tuple(self.locate(item) for item in node.value)
            return _Located([item.value for item in items], place, items=items)
        try:
            return _Located(_scalar(node), place)
        except (yaml.YAMLError, ValueError):
            self.complain(f"'{str(node.value)[:40]}' is no plain value; put text in quotes", place)
            return _Located(None, place)

    def pipeline(self, root: _Located) -> Pipeline | None:
        if not isinstance(root.value, dict):
            self.complain("a pipeline is a mapping with 'restorekit: 1' and 'stages'", root.place)
            return None
        self._known_keys(root, TOP_KEYS, "pipeline")
        version = root.value.get("restorekit")
        if version is not None and (type(version) is not int or version != VERSION):
            self.complain(
                f"version {version!r} of the pipeline format is not known; write restorekit: {VERSION}",
                root.keys["restorekit"],
            )
        elif version is None:
            self.complain(
                f"'restorekit: {VERSION}' is missing: the version of the pipeline format",
                root.keys.get("restorekit", (1, 1)),
            )
        for key in ("name", "summary"):
            if key in root.value and not isinstance(root.value[key], str):
                self.complain(f"'{key}' is text", root.children[key].place)
        spec = self._input(root)
        steps, places = self._stages(root)
        outputs = self._outputs(root)
        self._fold(spec, steps, places, outputs, root)
        known = [Step(name, stage) for name, stage in steps if stage is not None]
        preview = self._preview(root, known) if len(known) == len(steps) else ()
        if self.problems or spec is None:
            return None
        name = root.value.get("name") or Path(self.source).stem
        specs = [output for output, _ in outputs]
        made = Pipeline(known, spec, specs, name, root.value.get("summary", ""), self.source, preview)
        for _, message in fold(spec.state, [step.stage for step in made.previewed().steps]).problems:
            self.complain(f"preview: {message}", root.keys["preview"])
        return None if self.problems else made

    def _preview(self, root: _Located, steps: Sequence[Step]) -> tuple[PreviewChange, ...]:
        located = root.children.get("preview")
        if located is None:
            return ()
        if not isinstance(located.value, dict):
            self.complain("'preview' is a mapping of steps to skip or parameters, e.g. {restore: skip}", located.place)
            return ()
        stages = {step.id: step.stage for step in steps}
        changes: list[PreviewChange] = []
        for name, item in located.children.items():
            if name not in stages:
                self.complain(f"preview: no step '{name}'{did_you_mean(name, list(stages))}", located.keys[name])
            elif item.value == "skip":
                changes.append(PreviewChange(name))
            elif isinstance(item.value, dict):
                asked = {**dataclasses.asdict(stages[name]), **item.value}  # type: ignore[call-overload]
                for message in parameter_problems(type(stages[name]), asked):
                    key = message.partition("'")[2].partition("'")[0]
                    self.complain(f"preview: {name}: {message}", item.keys.get(key, item.place))
                changes.append(PreviewChange(name, tuple(item.value.items())))
            else:
                self.complain(f"preview: {name} is 'skip' or a mapping of parameters", item.place)
        return tuple(changes)

    def _known_keys(self, located: _Located, known: Sequence[str], what: str) -> None:
        for key, place in located.keys.items():
            if key not in known:
                hint = did_you_mean(key, known) or f"; known are {', '.join(known)}"
                self.complain(f"unknown key '{key}' in {what}{hint}", place)

    def _input(self, root: _Located) -> InputSpec | None:
        if "input" not in root.children:
            self.complain(
                "'input' is missing: say what the pipeline starts from, e.g. input: {state: display-srgb}", (1, 1)
            )
            return None
        located = root.children["input"]
        if not isinstance(located.value, dict):
            self.complain("'input' is a mapping, e.g. {state: sensor-bayer}", located.place)
            return None
        self._known_keys(located, INPUT_KEYS, "input")
        state = self._state(located)
        if state is None:
            return None
        grouping, headerless = Grouping(), None
        if "group" in located.children:
            grouping = self._build(Grouping, located.children["group"], "input.group") or grouping
        if "headerless" in located.children:
            headerless = self._build(Headerless, located.children["headerless"], "input.headerless")
        return InputSpec(state, grouping, headerless, self._exposures(located, state))

    def _exposures(self, located: _Located, state: ImageState) -> tuple[float, ...]:
        if "exposures" not in located.children:
            return ()
        given = located.children["exposures"]
        numbers = given.value if isinstance(given.value, list) else []
        if len(numbers) < 2 or not all(type(ev) in (int, float) and math.isfinite(ev) for ev in numbers):
            self.complain("exposures are the stops of the frames of a bracket, e.g. [-2, 0, 2]", given.place)
            return ()
        if state.frames == "single":
            self.complain("exposures are those of a bracket; add frames: bracket", given.place)
        return tuple(float(ev) for ev in numbers)

    def _state(self, located: _Located) -> ImageState | None:
        given = located.children.get("state")
        frames = located.value.get("frames", "single")
        if frames not in AXES["frames"]:
            hint = did_you_mean(str(frames), AXES["frames"])
            self.complain(
                f"frames is {frames!r}, must be one of {', '.join(AXES['frames'])}{hint}",
                located.children["frames"].place,
            )
            frames = "single"
        if given is None:
            self.complain(
                f"'state' is missing in input; use one of {', '.join(SHORTHANDS)} or name the axes", located.place
            )
            return None
        if isinstance(given.value, str):
            if given.value not in SHORTHANDS:
                hint = did_you_mean(given.value, SHORTHANDS) or f"; known are {', '.join(SHORTHANDS)}"
                self.complain(f"unknown state '{given.value}'{hint}", given.place)
                return None
            return SHORTHANDS[given.value].changed({"frames": frames})
        if not isinstance(given.value, dict):
            self.complain(f"a state is one of {', '.join(SHORTHANDS)} or a mapping of axes", given.place)
            return None
        axes = [axis for axis in AXES if axis != "frames"]
        self._known_keys(given, axes, "state")
        chosen = {"frames": frames}
        for axis in axes:
            value = given.value.get(axis, getattr(ImageState(), axis))
            if value not in AXES[axis]:
                hint = did_you_mean(str(value), AXES[axis])
                self.complain(
                    f"{axis} is {value!r}, must be one of {', '.join(AXES[axis])}{hint}", given.children[axis].place
                )
            else:
                chosen[axis] = value
        return ImageState().changed(chosen)

    def _build(self, cls: type[Any], located: _Located, what: str) -> Any:
        """A small settings class from a mapping, with its mistakes at their places."""
        if not isinstance(located.value, dict):
            self.complain(f"{what} is a mapping", located.place)
            return None
        adapter = pydantic.TypeAdapter(cls)
        try:
            return adapter.validate_python(located.value)
        except pydantic.ValidationError as error:
            hints = [alias.rstrip("_") for alias in get_type_hints(cls)]
            for item in error.errors():
                key = str(item["loc"][0]) if item["loc"] else ""
                place = located.keys.get(key, located.place)
                if item["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
                    hint = did_you_mean(key, hints) or f"; known are {', '.join(hints)}"
                    self.complain(f"unknown key '{key}' in {what}{hint}", place)
                elif item["type"] in ("missing", "missing_argument"):
                    self.complain(f"'{key}' is missing in {what}", located.place)
                else:
                    said = item["msg"].removeprefix("Value error, ")
                    named = f"{what}.{key}: " if key else f"{what}: "
                    got = f", got {item['input']!r}" if key else ""
                    self.complain(f"{named}{said[0].lower() + said[1:]}{got}", place)
            return None

    def _stages(self, root: _Located) -> tuple[list[tuple[str, Stage | None]], list[Place]]:
        located = root.children.get("stages")
        if located is None or not isinstance(located.value, list):
            self.complain(
                "'stages' is missing: a list of stages, e.g. - tone.filmic; [] only converts",
                located.place if located else (1, 1),
            )
            return [], []
        steps: list[tuple[str, Stage | None]] = []
        places: list[Place] = []
        taken: dict[str, int] = {}
        for item in located.items:
            name, params, place = self._stage_item(item)
            ident, stage = self._stage(name, params, place) if name else ("", None)
            taken[ident] = taken.get(ident, 0) + 1
            if ident and taken[ident] > 1:
                if params is not None and "id" in params.keys:
                    self.complain(f"the id '{ident}' stands twice; give each its own", params.keys["id"])
                ident = f"{ident}_{taken[ident]}"
            steps.append((ident, stage))
            places.append(place)
        return steps, places

    def _stage_item(self, item: _Located) -> tuple[str, _Located | None, Place]:
        if isinstance(item.value, str):
            return item.value, None, item.place
        if isinstance(item.value, dict) and len(item.value) == 1:
            (name,) = item.value
            params = item.children[name]
            if params.value is None:
                return name, None, item.place
            if isinstance(params.value, dict):
                return name, params, item.place
            self.complain(f"parameters of {name} are a mapping, e.g. - {name}: {{parameter: value}}", params.place)
            return name, None, item.place
        self.complain("a stage is a name, or one name with its parameters: - tone.exposure: {ev: 0.5}", item.place)
        return "", None, item.place

    def _stage(self, name: str, params: _Located | None, place: Place) -> tuple[str, Stage | None]:
        try:
            cls = stage_class(name)
        except RestorekitError as error:
            self.complain(str(error), place)
            return name, None
        values = dict(params.value) if params else {}
        ident = values.pop("id", name)
        if not isinstance(ident, str) or not ident:
            self.complain("'id' is a name", params.keys["id"] if params else place)
            ident = name
        found = list(parameter_problems(cls, values))
        for message in found:
            key = message.partition("'")[2].partition("'")[0]
            self.complain(f"{name}: {message}", params.keys.get(key, place) if params else place)
        if not found:
            return ident, cls(**values)
        needed = any(parameter_problems(cls, {}))
        return ident, None if needed else cls()

    def _outputs(self, root: _Located) -> list[tuple[OutputSpec, Place]]:
        located = root.children.get("output")
        if located is None:
            return [(OutputSpec(), (1, 1))]
        items = located.items if isinstance(located.value, list) else (located,)
        if not items:
            self.complain("'output' is an empty list; name at least one format", located.place)
        outputs: list[tuple[OutputSpec, Place]] = []
        for item in items:
            spec = self._build(OutputSpec, item, "output")
            if spec is not None:
                outputs.append((spec, item.place))
        names = [(spec.name, spec.extension) for spec, _ in outputs]
        for index, (_, place) in enumerate(outputs):
            if names[index] in names[:index]:
                self.complain('two outputs would write the same file; give one a name: "{stem}_second"', place)
        return outputs

    def _fold(
        self,
        spec: InputSpec | None,
        steps: Sequence[tuple[str, Stage | None]],
        places: Sequence[Place],
        outputs: Sequence[tuple[OutputSpec, Place]],
        root: _Located,
    ) -> None:
        if spec is None or not steps:
            return
        found = fold(spec.state, [stage for _, stage in steps])
        for index, message in found.problems:
            self.complain(message, places[index])
        ids = [ident for ident, _ in steps]
        fallback = root.keys.get("stages", (1, 1))
        unknown = any(stage is None for _, stage in steps)
        for output, place in outputs:
            if unknown and all(tap is None or tap in ids for tap in (output.tap, output.hdr)):
                continue  # the state there is not known
            for message in output_problems(output, ids, found.states):
                self.complain(message, place if "output" in root.keys else fallback)


def _scalar(node: yaml.Node) -> Any:
    return yaml.SafeLoader("").construct_object(node)
