"""A pipeline in the making: stages added, removed, moved and set, and the YAML that says the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import yaml

from restorekit import bundled
from restorekit.errors import PipelineError, Problem, RestorekitError
from restorekit.pipeline import Pipeline
from restorekit.registry import did_you_mean, stage_class
from restorekit.schema import parse
from restorekit.web.controls import controls, file_parameters, takes_model
from restorekit.web.deliverables import AS_SAID, deliverables
from restorekit.zoo import cards

SOURCE = "mine.yaml"
"""What problems call the pipeline of the page."""

MAX_CHARACTERS = 65536
MAX_STAGES = 64
MAX_DEPTH = 12


@dataclass(frozen=True)
class Part:
    """One stage by its name, with the parameters that are given; ``id`` stands among them where it has one."""

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Draft:
    """A pipeline as its file says it. It may be wrong: :meth:`problems` tells what is.

    ``head`` is what stands before the stages (name, summary, input) and other sections, ``output`` what the file itself
    declares, ``wanted`` what is written in its place (a name of :func:`restorekit.web.deliverables.deliverables`) in
    ``quality``. ``together`` tells that the files of a bracket are those of the folder.
    """

    head: Mapping[str, Any]
    parts: tuple[Part, ...]
    output: Any = None
    wanted: str = AS_SAID
    quality: int | None = None
    together: bool = False

    def added(self, name: str, place: int) -> Draft:
        """With one more stage behind so many others. Raises RestorekitError when there are too many."""
        if len(self.parts) >= MAX_STAGES:
            raise RestorekitError(f"a pipeline of this page has at most {MAX_STAGES} stages; remove one")
        return replace(self, parts=(*self.parts[:place], Part(name), *self.parts[place:]))

    def removed(self, index: int) -> Draft:
        """Without a stage, and without what previews would do otherwise at it."""
        part = self.parts[index]
        head = dict(self.head)
        if isinstance(previewed := head.pop("preview", None), Mapping):
            kept = {name: change for name, change in previewed.items() if name != part.params.get("id", part.name)}
            head |= {"preview": kept} if kept else {}
        return replace(self, head=head, parts=(*self.parts[:index], *self.parts[index + 1 :]))

    def moved(self, index: int, by: int) -> Draft:
        """With a stage so many places further down, or up."""
        others = [part for at, part in enumerate(self.parts) if at != index]
        others.insert(min(max(index + by, 0), len(others)), self.parts[index])
        return replace(self, parts=tuple(others))

    def set(self, index: int, name: str, value: Any) -> Draft:
        """With one parameter of a stage set; at its default it is not said."""
        part = self.parts[index]
        params = {**part.params, name: value}
        if name in (defaults := _defaults(part.name)) and defaults[name] == value:
            del params[name]
        return replace(self, parts=(*self.parts[:index], Part(part.name, params), *self.parts[index + 1 :]))

    def value(self, index: int, name: str) -> Any:
        """The value of a parameter: what is given, else the default."""
        part = self.parts[index]
        return part.params.get(name, _defaults(part.name).get(name))

    @property
    def takes_bracket(self) -> bool:
        given = self.head.get("input")
        return isinstance(given, Mapping) and given.get("frames", "single") != "single"

    def declared(self) -> Pipeline:
        """The checked pipeline with the outputs that its file declares.

        Raises PipelineError with every problem.
        """
        return checked(self._text(self.output))

    def pipeline(self) -> Pipeline:
        """The checked pipeline as :attr:`text` says it. Raises PipelineError with every problem."""
        return checked(self.text)

    def problems(self) -> tuple[str, ...]:
        """What the checker complains about, one line each, at its place in :attr:`text`."""
        try:
            self.pipeline()
        except PipelineError as error:
            return tuple(str(error).splitlines())
        return ()

    def complaints(self) -> tuple[str, ...]:
        """The problems in words of the page: stages by number and name, no places in a file."""
        try:
            self.pipeline()
        except PipelineError as error:
            first = self.text.splitlines().index("stages:") + 2 if self.parts else 1  # each stage is one line
            return tuple(self._complaint(problem, problem.line - first) for problem in error.problems)
        return ()

    def _complaint(self, problem: Problem, index: int) -> str:
        if not self.parts or not 0 <= index < len(self.parts):
            return problem.message
        name = self.parts[index].name
        told = problem.message.removeprefix(name).lstrip(": ")
        return f"Stage {index + 1}, {name}: {told}"

    @property
    def text(self) -> str:
        """The pipeline as YAML, with the outputs that are wanted where it can be written so."""
        if self.wanted == AS_SAID:
            return self._text(self.output)
        try:
            found = deliverables(self.declared()).get(self.wanted)
        except PipelineError:
            found = None
        if found is None:
            return self._text(self.output)
        (spec,) = found
        return self._text(_brief(replace(spec, quality=self.quality or spec.quality).as_dict()))

    def _text(self, output: Any) -> str:
        head = dict(self.head)
        if self.together and self.takes_bracket:
            head["input"] = {**head["input"], "group": {"by": "folder"}}
        lines = [f"{key}: {_flow(value)}" for key, value in head.items()]
        lines.append("stages:" if self.parts else "stages: []")
        lines += [
            f"  - {_flow({part.name: dict(part.params)})[1:-1] if part.params else part.name}" for part in self.parts
        ]
        if isinstance(output, list):
            lines += ["output:", *(f"  - {_flow(item)}" for item in output)]
        elif output is not None:
            lines.append(f"output: {_flow(output)}")
        return "\n".join(lines) + "\n"


def shipped(name: str) -> Draft:
    """A shipped pipeline. Raises RestorekitError when there is none of this name."""
    known = bundled.pipelines()
    if name not in known:
        hint = did_you_mean(name, known) or "; choose one of the list"
        raise RestorekitError(f"unknown pipeline '{name}'{hint}")
    return read(known[name].read_text(encoding="utf-8"))


def empty(state: str, frames: str = "single") -> Draft:
    """A pipeline without stages that starts from a state; it writes PNG files."""
    given = {"state": state} if frames == "single" else {"state": state, "frames": frames}
    return Draft({"restorekit": 1, "name": "mine", "input": given}, (), {"format": "png"})


def read(text: str) -> Draft:
    """A draft from the YAML that a person gives.

    Raises PipelineError for what is no pipeline at all and for files that it names; other mistakes stay in the draft.
    """
    refused = tuple(_refused(text))
    if refused:
        raise PipelineError(SOURCE, refused)
    content = yaml.safe_load(text)
    if not isinstance(content, dict) or not isinstance(content.get("stages"), list):
        parse(text, SOURCE)
    parts = [_part(item, text) for item in content["stages"]]
    head = {str(key): value for key, value in content.items() if key not in ("stages", "output")}
    return Draft(head, tuple(parts), content.get("output"))


@lru_cache(maxsize=64)
def checked(text: str) -> Pipeline:
    """The pipeline that YAML of a person says; it may name no files, since they would be those of the server.

    Raises PipelineError with every problem.
    """
    refused = tuple(_refused(text))
    if refused:
        raise PipelineError(SOURCE, refused)
    return parse(text, SOURCE)


def _part(item: Any, text: str) -> Part:
    if isinstance(item, str):
        return Part(item)
    if isinstance(item, dict) and len(item) == 1:
        ((name, params),) = item.items()
        if params is None or isinstance(params, dict):
            return Part(str(name), params or {})
    parse(text, SOURCE)  # says what is wrong with it
    raise PipelineError(SOURCE, (Problem("a stage is a name, or one name with its parameters"),))


def _refused(text: str) -> Iterator[Problem]:
    """Files that a pipeline names, found before any stage is made: making one may look for them."""
    if len(text) > MAX_CHARACTERS:
        yield Problem(f"a pipeline of this page has at most {MAX_CHARACTERS} characters; shorten it")
        return
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent):
                yield Problem("YAML aliases are not used in pipelines; write the value out")
                return
            if depth > MAX_DEPTH:  # of which a parser could take minutes
                yield Problem("nested too deeply for a pipeline; write it flat")
                return
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError):
        parse(text, SOURCE)  # says what is wrong with it
        return
    for name, key, value in _given(root):
        place = (key.start_mark.line + 1, key.start_mark.column + 1)
        try:
            declared = stage_class(name)
        except RestorekitError:
            continue
        if key.value in file_parameters(declared):
            yield Problem(
                f"{name}: parameter '{key.value}' names a file, which this page does not take; leave it out", *place
            )
        elif key.value == "model" and takes_model(declared) and value.value not in cards.files():
            yield Problem(f"{name}: parameter 'model' takes the id of a model here; the second page lists them", *place)


def _given(root: yaml.Node | None) -> Iterator[tuple[str, yaml.ScalarNode, yaml.Node]]:
    """Every parameter that stages are given: the stage's name, and the nodes of the parameter and its value."""
    for key, value in root.value if isinstance(root, yaml.MappingNode) else ():
        if key.value != "stages" or not isinstance(value, yaml.SequenceNode):
            continue
        for item in value.value:
            for name, params in item.value if isinstance(item, yaml.MappingNode) else ():
                for inner, given in params.value if isinstance(params, yaml.MappingNode) else ():
                    yield str(name.value), inner, given


def _defaults(name: str) -> Mapping[str, Any]:
    try:
        declared = stage_class(name)
    except RestorekitError:
        return {}
    return {control.name: control.default for control in controls(declared)}


def _brief(output: Mapping[str, object]) -> dict[str, object]:
    """An output without what is as usual."""
    usual: Mapping[str, object] = {"quality": 95, "intent": "relative", "black_point": True, "name": "{stem}"}
    return {key: value for key, value in output.items() if usual.get(key) != value}


def _flow(value: Any) -> str:
    """A value on one line of YAML."""
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1 << 20, allow_unicode=True)
    return text.removesuffix("\n...\n").strip()
