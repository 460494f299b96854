"""The page: where things stand, and which event changes what."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gradio as gr

from restorekit import __version__
from restorekit.registry import stage_class, stage_entries
from restorekit.stage import Nothing
from restorekit.state import SHORTHANDS
from restorekit.strips import RowStage
from restorekit.web import catalogue, words
from restorekit.web.controls import Control, controls, needs_file
from restorekit.web.deliverables import AS_SAID, CHOICES
from restorekit.web.handlers import OWN, Handlers
from restorekit.web.sessions import Updates
from restorekit.web.settings import Settings

LOOK = ("slider", "histogram", "state")
TEXTS = ("yaml", "problems", "made_with")
DRAFT = (*TEXTS, "pipeline", "offer", "formats", "quality", "form")
TAGLINE = "Drop a photo, a RAW file or an exposure bracket, choose what is to be done, and make the picture."
RESULT = ("made", "made_with", "cut", "overview", "hdr", "clipping", "detail", "hdr_panel")
QUIET: dict[str, Any] = {"show_progress": "hidden"}
DRAFTS: dict[str, Any] = {"concurrency_id": "draft", "concurrency_limit": 1, **QUIET}
"""Changes of drafts, and forms drawn of them, take their turns: each is short."""
PREVIEWS: dict[str, Any] = {"concurrency_id": "preview", "concurrency_limit": 2, **QUIET}
TRIALS: dict[str, Any] = {"concurrency_id": "trial", "concurrency_limit": 1, **QUIET}
"""Learned models on a part of the picture, one at a time, so that other previews need not wait for them."""


def build(handlers: Handlers) -> gr.Blocks:
    """The whole page, with its events bound."""
    page: gr.Blocks
    with gr.Blocks(title="restorekit", analytics_enabled=False, fill_width=True) as page:
        parts: dict[str, Any] = {"form": gr.State(0)}
        gr.HTML(f'<h1 class="rk-title">restorekit <span>{__version__}</span></h1><p>{TAGLINE}</p>', padding=False)
        with gr.Tab("Pictures"), gr.Row(elem_classes="rk-page"):
            with gr.Column(elem_classes="rk-choice", min_width=0):
                _input(parts, handlers.sessions.settings)
            with gr.Column(elem_classes="rk-picture", min_width=0):
                _output(parts)
            with gr.Column(elem_classes="rk-editor", min_width=0):
                _editor(parts, handlers)
        with gr.Tab("Models"):
            gr.Dataframe(
                catalogue.model_rows(), headers=list(catalogue.MODEL_COLUMNS),
                column_widths=list(catalogue.MODEL_COLUMNS.values()), interactive=False, wrap=True,
                show_search="filter", label="Model cards", elem_id="models", max_height=720,
            )  # fmt: skip
        _bind(page, parts, handlers)
    return page


def _input(parts: dict[str, Any], settings: Settings) -> None:
    """Files and examples, and the choice of a pipeline."""
    parts["files"] = gr.File(
        file_count="multiple", label=f"A photo, a RAW file, or all files of a bracket (up to {settings.upload_mb} MB)",
        height=130, elem_id="files",
    )  # fmt: skip
    parts["brought"] = gr.HTML(elem_id="brought", padding=False)
    with gr.Row(elem_id="examples"):
        gr.HTML(words.note("Examples:"), padding=False, min_width=70)
        parts["examples"] = [gr.Button(each.title, size="sm", min_width=90) for each in catalogue.examples()]
    choices = [(offer.label, name) for name, offer in catalogue.offers().items()]
    parts["pipeline"] = gr.Dropdown([*choices, OWN], label="Pipeline", elem_id="pipeline", filterable=False)
    parts["offer"] = gr.HTML(elem_id="offer", padding=False)


def _editor(parts: dict[str, Any], handlers: Handlers) -> None:
    """The stages with their parameters, the format, and the YAML that says the same."""
    with gr.Accordion("Stages", open=True, elem_id="stages"):
        _form(parts, handlers)
        with gr.Row(elem_classes="rk-actions"):
            parts["stage"] = gr.Dropdown(list(_addable()), label="Another stage", value=None, elem_id="stage", scale=3)
            parts["after"] = gr.Number(label="after (0: last)", value=0, precision=0, minimum=0, min_width=90)
            parts["add"] = gr.Button("Add", size="sm", min_width=60, elem_id="add")
        parts["start"] = gr.Dropdown(list(SHORTHANDS), label="Or begin anew from", value=None, elem_id="start")
    parts["problems"] = gr.HTML(elem_id="problems", padding=False)
    with gr.Accordion("Pipeline as YAML", open=False, elem_id="yaml-panel"):
        parts["yaml"] = gr.Code(
            language="yaml", label="restorekit run mine.yaml in out", interactive=True, elem_id="yaml"
        )
        parts["paste"] = gr.Button("Apply", size="sm", elem_id="paste")


def _form(parts: dict[str, Any], handlers: Handlers) -> None:
    """The controls of every stage; drawn anew when stages come, go or move, not when values change."""

    @gr.render(  # type: ignore[untyped-decorator]
        inputs=[parts["form"]], triggers=[parts["form"].change], **DRAFTS
    )
    def form(_: int, request: gr.Request) -> None:
        draft = handlers.session(request).draft
        places: list[tuple[int, Control]] = []
        fields: list[Any] = []
        learned = False
        for index, part in enumerate(draft.parts):
            with gr.Accordion(f"{index + 1}  {part.name}", open=False, elem_classes="rk-stage"):
                entry = stage_entries().get(part.name)
                gr.HTML(words.note(entry.summary if entry else "unknown stage"), padding=False)
                declared = stage_class(part.name) if entry else Nothing
                learned |= issubclass(declared, RowStage)
                for control in controls(declared):
                    fields.append(_field(control, control.shown(draft.value(index, control.name))))
                    places.append((index, control))
                with gr.Row(elem_classes="rk-moves"):
                    for change, text in (("up", "Move up"), ("down", "Move down"), ("remove", "Remove")):
                        button = gr.Button(text, size="sm", min_width=60)
                        _change(button.click, handlers, handlers.edit, parts, given=(change, index), mode="once")
        if not fields:
            return

        def set_all(request: gr.Request, *values: Any) -> Iterator[Updates]:
            """In one event, since a second one would take longer than many a preview."""
            yield handlers.set(places, values, request)
            yield handlers.look(request)

        moved = [field.input for field in fields]
        seen = _on(moved, set_all, parts, (*TEXTS, *LOOK), fields, trigger_mode="always_last", **PREVIEWS)
        if learned:
            _on(seen.then, handlers.try_model, parts, LOOK, trigger_mode="always_last", **TRIALS)


def _field(control: Control, value: Any) -> Any:
    """The component of a control."""
    about: dict[str, Any] = {"label": control.label, "info": control.about, "value": value, "interactive": True}
    if control.kind == "switch":
        return gr.Checkbox(**about)
    if control.kind == "choice":
        choices = [
            (str(choice).lower() if isinstance(choice, bool) else str(choice), choice) for choice in control.choices
        ]
        return gr.Dropdown(choices, **about)
    if control.kind == "slider":
        low, high = control.ends(value)
        slider = gr.Slider(low, high, step=control.step, **about)
        checked = slider.preprocess
        # A number beyond the ends is taken as the field shows it once it is left; Gradio would refuse it.
        slider.preprocess = lambda payload: checked(min(max(payload, low), high))  # type: ignore[method-assign]
        return slider
    if control.kind == "number":
        whole = 0 if control.step == 1 else None
        return gr.Number(minimum=control.minimum, maximum=control.maximum, precision=whole, **about)
    return gr.Textbox(max_lines=1, **about)


def _output(parts: dict[str, Any]) -> None:
    """The picture before and after, the button, and what is known of the result."""
    parts["slider"] = gr.ImageSlider(
        label="Before and after", interactive=False, max_height=620, elem_id="slider", buttons=["fullscreen"],
        type="filepath",
    )  # fmt: skip
    with gr.Row(elem_classes="rk-actions"):
        parts["formats"] = gr.Dropdown(
            list(CHOICES), value=AS_SAID, label="File", elem_id="formats", min_width=150, filterable=False
        )
        parts["quality"] = gr.Slider(
            1, 100, 95, step=1, label="Quality", min_width=150, visible=False, elem_id="quality"
        )
        parts["develop"] = gr.Button("Make the picture", variant="primary", elem_id="develop", min_width=150)
        parts["cancel"] = gr.Button("Stop", variant="stop", visible=False, elem_id="cancel", min_width=80)
    parts["made"] = gr.File(label="Download", interactive=False, file_count="multiple", visible=False, elem_id="made")
    parts["state"] = gr.HTML(elem_id="state", padding=False)
    parts["made_with"] = gr.HTML(elem_id="made-with", padding=False)
    parts["histogram"] = gr.HTML(elem_id="histogram", padding=False)
    with gr.Row(visible=False, elem_id="detail") as parts["detail"]:
        with gr.Column(scale=1, min_width=260):
            parts["clipping"] = gr.Checkbox(label="Mark clipped parts: red too bright, blue black", elem_id="clipping")
            parts["overview"] = gr.Image(
                label="Click a place", interactive=False, type="filepath", height=220, buttons=[], elem_id="overview"
            )
            parts["x"] = gr.Slider(0, 100, 50, label="1:1 detail: across (%)", elem_id="x")
            parts["y"] = gr.Slider(0, 100, 50, label="1:1 detail: down (%)", elem_id="y")
        with gr.Column(scale=2, min_width=300):
            parts["cut"] = gr.ImageSlider(
                label="Pixel by pixel, 1:1", interactive=False, max_height=560, elem_id="cut", buttons=["fullscreen"],
                type="filepath",
            )  # fmt: skip
    with gr.Accordion("HDR", open=False, visible=False, elem_id="hdr-panel") as parts["hdr_panel"]:
        parts["hdr"] = gr.HTML(elem_id="hdr", padding=False)


def _bind(page: gr.Blocks, parts: dict[str, Any], handlers: Handlers) -> None:
    _on(page.load, handlers.begin, parts, DRAFT, **DRAFTS)
    page.unload(handlers.close)
    sent = [parts["files"]]
    _brought(parts["files"].upload, handlers, (handlers.reading, handlers.drop, handlers.suit), parts, sent)
    for number, button in enumerate(parts["examples"]):
        steps = (handlers.reading_example, handlers.example, handlers.suit_example)
        _brought(button.click, handlers, steps, parts, (), (number,))
    _change(parts["pipeline"].input, handlers, handlers.choose, parts, [parts["pipeline"]])
    _change(parts["add"].click, handlers, handlers.add, parts, [parts["stage"], parts["after"]], mode="once")
    _change(parts["start"].input, handlers, handlers.start, parts, [parts["start"]])
    _change(parts["paste"].click, handlers, handlers.paste, parts, [parts["yaml"]])
    delivery = [parts["formats"], parts["quality"]]
    chosen = [parts["formats"].input, parts["quality"].release]
    _on(chosen, handlers.deliver, parts, (*TEXTS, "formats", "quality", "state"), delivery, **DRAFTS)
    pressed = _on(parts["develop"].click, handlers.arm, parts, ("state", "develop", "cancel"), queue=False, **QUIET)
    _on(
        pressed.then, handlers.develop, parts, ("develop", "cancel", *LOOK, *RESULT), concurrency_id="full",
        concurrency_limit=handlers.sessions.settings.jobs, **QUIET,
    )  # fmt: skip
    _on(parts["cancel"].click, handlers.cancel, parts, ("state", "cancel"), queue=False, **QUIET)
    _on(parts["clipping"].input, handlers.clipping, parts, ("slider",), [parts["clipping"]], **PREVIEWS)
    place = [parts["x"], parts["y"]]
    _on([each.release for each in place], handlers.place, parts, ("cut",), place, **PREVIEWS)
    _on(parts["overview"].select, handlers.click, parts, ("x", "y", "cut"), **PREVIEWS)


def _brought(
    trigger: Any,
    handlers: Handlers,
    steps: Sequence[Callable[..., Updates]],
    parts: dict[str, Any],
    inputs: Sequence[Any],
    given: Sequence[Any] = (),
) -> None:
    """Bind what happens to files: said at once, read, a pipeline chosen for them, and previewed."""
    reading, take, suit = steps
    files = ("brought", "slider", "histogram", *RESULT)
    last: dict[str, Any] = {"given": given, "trigger_mode": "always_last", **QUIET}
    begun = _on(trigger, reading, parts, ("files", "state"), inputs, queue=False, **last)
    taken = _on(begun.then, take, parts, files, concurrency_id="read", concurrency_limit=2, **last)
    _change(taken.then, handlers, suit, parts, given=given)


def _change(
    trigger: Any,
    handlers: Handlers,
    handler: Callable[..., Updates],
    parts: dict[str, Any],
    inputs: Sequence[Any] = (),
    *,
    names: Sequence[str] = DRAFT,
    given: Sequence[Any] = (),
    mode: str = "always_last",
) -> None:
    """Bind a change of the draft, and the preview that follows it. Of changes that wait for one the last is made."""
    changed = _on(trigger, handler, parts, (*names, "state"), inputs, given=given, trigger_mode=mode, **DRAFTS)
    seen = _on(changed.then, handlers.look, parts, LOOK, trigger_mode="always_last", **PREVIEWS)
    _on(seen.then, handlers.try_model, parts, LOOK, trigger_mode="always_last", **TRIALS)


def _on(
    trigger: Any,
    handler: Callable[..., Updates | Iterator[Updates]],
    parts: dict[str, Any],
    names: Sequence[str],
    inputs: Sequence[Any] = (),
    *,
    given: Sequence[Any] = (),
    **options: Any,
) -> Any:
    """Bind a handler, whose updates are by name, to a trigger or to several. ``given`` are its first arguments."""
    options |= {"inputs": list(inputs), "outputs": [parts[name] for name in names], "api_visibility": "private"}
    bound = _by_component(handler, parts, names, given)
    return gr.on(trigger, bound, **options) if isinstance(trigger, list) else trigger(bound, **options)


def _by_component(
    handler: Callable[..., Any], parts: dict[str, Any], names: Sequence[str], given: Sequence[Any]
) -> Callable[..., Any]:
    """A handler as Gradio calls it, with the same request and event data, and updates in the order of outputs."""

    def ordered(updates: Updates) -> Any:
        values = [updates.get(name, gr.skip()) for name in names]
        return values[0] if len(values) == 1 else values

    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def steps(*arguments: Any) -> Iterator[Any]:
            for updates in handler(*given, *arguments):
                yield ordered(updates)

        return steps

    @functools.wraps(handler)
    def once(*arguments: Any) -> Any:
        return ordered(handler(*given, *arguments))

    if given:
        once.__signature__ = inspect.Signature(list(inspect.signature(handler).parameters.values())[len(given) :])  # type: ignore[attr-defined]
    return once


def _addable() -> Iterator[str]:
    """The stages that can be added: those that need no file of the server."""
    for name in stage_entries():
        try:
            declared = stage_class(name)
        except Exception:  # a stage of another package that does not load is left out
            continue
        if not needs_file(declared):
            yield name
