"""What happens when something is clicked, moved or dropped: sessions change, and texts and pictures come back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from restorekit.errors import Cancelled, PipelineError, RestorekitError
from restorekit.frame import Bracket
from restorekit.io.formats import OutputSpec
from restorekit.pipeline import Pipeline
from restorekit.web import catalogue, drafts, looks, words
from restorekit.web.controls import Control
from restorekit.web.deliverables import AS_SAID, declared, deliverables
from restorekit.web.display import Picture, cut, histogram, saved, with_clipping
from restorekit.web.drafts import Draft
from restorekit.web.runs import Moment, run
from restorekit.web.sessions import Result, Session, Sessions, Updates

CUT_PX = 768
OWN = "of my own"
STOPPING = "Stopping ..."


class Handlers:
    """The page's events. Each takes the request, which tells the session, and gives updates by the component's name."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions

    def session(self, request: gr.Request) -> Session:
        return self.sessions.of(str(request.session_hash))

    def close(self, request: gr.Request) -> None:
        """The tab is gone."""
        self.sessions.close(str(request.session_hash))

    def begin(self, request: gr.Request) -> Updates:
        """A new tab."""
        session = self.session(request)
        return {**self._drafted(session), "form": session.numbered()}

    def reading(self, sent: Sequence[str] | None, request: gr.Request) -> Updates:
        """Files were dropped, and will be read; those dropped before and not yet begun give way to them."""
        session = self.session(request)
        session.sent = tuple(Path(path) for path in sent or ())
        return {"files": None, **self._reading(session, len(session.sent))}

    def reading_example(self, number: int, request: gr.Request) -> Updates:
        """An example was chosen, and will be read."""
        return self._reading(self.session(request), len(catalogue.examples()[number].files))

    def _reading(self, session: Session, count: int) -> Updates:
        """The pipeline that is chosen now may give way to one that takes what is read."""
        session.asked = session.draft
        return {"state": words.busy(f"Reading {_files(count)} ...")}

    def drop(self, request: gr.Request) -> Updates:
        """The files that were dropped last are read, unless they are already."""
        session = self.session(request)
        sent, session.sent = session.sent, ()
        return self._taken(session, sent, copy=False) if sent else {}

    def example(self, number: int, request: gr.Request) -> Updates:
        """The files of an example are read."""
        return self._taken(self.session(request), catalogue.examples()[number].files, copy=True)

    def _taken(self, session: Session, files: Sequence[Path], *, copy: bool) -> Updates:
        try:
            brought = words.brought(self.sessions.take(session, files, copy=copy))
        except RestorekitError as error:
            brought = words.problems(session.told(error).splitlines())
            session.forget()
        return {
            "brought": brought,
            "slider": None,
            "histogram": "",
            "made": gr.update(value=None, visible=False),
            "cut": None,
            "overview": None,
            "hdr": "",
            "clipping": False,
            **_panels(None),
        }

    def suit(self, request: gr.Request) -> Updates:
        """A pipeline that takes what was dropped is chosen where the present one does not."""
        session = self.session(request)
        return self._suited(session, "" if session.source is None else _suited(session))

    def suit_example(self, number: int, request: gr.Request) -> Updates:
        """The pipeline of an example is chosen."""
        return self._suited(self.session(request), catalogue.examples()[number].pipeline)

    def _suited(self, session: Session, name: str) -> Updates:
        """Choose a pipeline, unless another one was chosen since the files were dropped."""
        draft = session.draft
        if name and draft.head is session.asked.head:
            draft = session.asked = drafts.shipped(name)
        together = session.source is not None and session.source.is_bracket
        return self._changed(session, replace(draft, together=together))

    def choose(self, name: str, request: gr.Request) -> Updates:
        """A shipped pipeline was chosen."""
        session = self.session(request)
        if name == OWN:
            return {}
        return self._changed(session, replace(drafts.shipped(name), together=session.draft.together))

    def add(self, name: str | None, after: float | None, request: gr.Request) -> Updates:
        """One more stage, behind that of a number, or behind all where that is 0."""
        session = self.session(request)
        if not name:
            return {}
        try:
            place = int(after or len(session.draft.parts))
            return self._changed(session, session.draft.added(name, place))
        except RestorekitError as error:
            return {"problems": words.problems([str(error)])}

    def start(self, state: str, request: gr.Request) -> Updates:
        """A pipeline of one's own begins from a state."""
        session = self.session(request)
        return self._changed(session, replace(drafts.empty(state), together=session.draft.together))

    def edit(self, change: str, index: int, request: gr.Request) -> Updates:
        """A stage goes ``up``, ``down``, or is taken out: ``remove``."""
        session = self.session(request)
        draft = session.draft
        if index >= len(draft.parts):
            return {}
        by = {"up": -1, "down": 1}
        return self._changed(session, draft.moved(index, by[change]) if change in by else draft.removed(index))

    def _changed(self, session: Session, draft: Draft) -> Updates:
        form = {} if draft.parts == session.draft.parts else {"form": session.numbered()}  # else what is open stays so
        session.draft = draft
        session.changed()
        return {**self._drafted(session), **self._looking(session), **form}

    def set(self, places: Sequence[tuple[int, Control]], values: Sequence[Any], request: gr.Request) -> Updates:
        """Controls were moved: those whose value is another are taken over."""
        session = self.session(request)
        complaints: list[str] = []
        for (index, control), given in zip(places, values, strict=True):
            if index >= len(session.draft.parts):
                break
            try:
                value = control.given(given)
            except RestorekitError as error:
                complaints.append(str(error))
                continue
            if value != session.draft.value(index, control.name):
                session.draft = session.draft.set(index, control.name, value)
        session.changed()
        return {**self._texts(session, complaints), **self._looking(session)}

    def deliver(self, wanted: str, quality: float, request: gr.Request) -> Updates:
        """Another format, or another quality."""
        session = self.session(request)
        if wanted not in _deliverables(session.draft):
            held = f"{wanted} cannot hold what this pipeline makes; choose another file, or another pipeline"
            session.changed()  # what is being tried has nothing to say after this
            return {"state": words.problems([held]), **self._formats(session)}
        same = wanted == session.draft.wanted
        session.draft = replace(session.draft, wanted=wanted, quality=int(quality) if same else None)
        return {**self._texts(session), **self._formats(session)}

    def paste(self, text: str, request: gr.Request) -> Updates:
        """YAML of a person becomes the draft, or its problems are said."""
        session = self.session(request)
        try:
            draft = drafts.read(text)
        except RestorekitError as error:
            return {"problems": words.problems(str(error).splitlines())}
        return self._changed(session, replace(draft, together=session.draft.together))

    def arm(self, request: gr.Request) -> Updates:
        """The button was pressed: from now on it can be stopped."""
        self.session(request).stop.clear()
        waiting = words.progress(Moment("waiting for a free place", 0.0))
        stoppable = gr.update(visible=True, interactive=True)
        return {"state": waiting, "develop": gr.update(interactive=False), "cancel": stoppable}

    def cancel(self, request: gr.Request) -> Updates:
        """The run was told to stop, and will once the step in work lets it."""
        self.session(request).stop.set()
        return {"state": words.busy(STOPPING), "cancel": gr.update(interactive=False)}

    def develop(self, request: gr.Request) -> Iterator[Updates]:
        """The full-size run: progress, then the result, its files and what is known of it."""
        session = self.session(request)
        free: Updates = {"develop": gr.update(interactive=True), "cancel": gr.update(visible=False)}
        try:
            if lacking := catalogue.missing(session.draft.pipeline()):
                yield {**free, "state": words.lacking(lacking)}
                return
            for moment in run(session, self.sessions):
                if isinstance(moment, Moment):
                    yield {"state": words.busy(STOPPING) if session.stop.is_set() else words.progress(moment)}
                    continue
                session.keep(moment)
                session.previewed.clear()
                session.tried.settle(session.changes)
                yield {
                    **free,
                    "state": words.result(moment),
                    "made": gr.update(value=[str(path) for path in moment.files], visible=True),
                    "slider": self._pair(session, moment, moment.shown),
                    "histogram": histogram(moment.after),
                    "cut": self._cut(session, moment, 0.5, 0.5),
                    "overview": str(saved(_small(moment.after), session.place("overview"))),
                    "hdr": words.hdr(moment.hdr),
                    "clipping": False,
                    "made_with": words.made_with(moment, session.draft.text),
                    **_panels(moment),
                }
        except PipelineError:
            yield {**free, "state": words.problems(session.draft.complaints())}
        except Cancelled as stopped:
            yield {**free, "state": words.note(str(stopped))}
        except RestorekitError as error:
            yield {**free, "state": words.problems(str(error).splitlines())}

    def clipping(self, wanted: bool, request: gr.Request) -> Updates:
        """The last full-size result with its clipped parts marked, or as it is."""
        session = self.session(request)
        result = session.result
        if result is None:
            return {}
        path = saved(with_clipping(result.after), session.place("clipped")) if wanted else result.shown
        return {"slider": self._pair(session, result, path)}

    def place(self, x: float, y: float, request: gr.Request) -> Updates:
        """Another place for the cut at full size, in percent."""
        session = self.session(request)
        return {} if session.result is None else {"cut": self._cut(session, session.result, x / 100, y / 100)}

    def click(self, chosen: gr.SelectData, request: gr.Request) -> Updates:
        """A place was clicked in the overview."""
        session = self.session(request)
        if session.result is None:
            return {}
        high, wide = _small(session.result.after).shape[:2]
        x, y = chosen.index[0] / wide, chosen.index[1] / high
        return {"x": round(100 * x, 1), "y": round(100 * y, 1), "cut": self._cut(session, session.result, x, y)}

    def look(self, request: gr.Request) -> Updates:
        """The slider, the histogram and a word: what the draft makes of the small copy. Older wishes give way."""
        return looks.preview(self.session(request), self.sessions.settings)

    def try_model(self, request: gr.Request) -> Updates:
        """The same of a part of the picture for a pipeline with a learned model; full-size runs have precedence."""
        return looks.trial(self.session(request), self.sessions.settings)

    def _looking(self, session: Session) -> Updates:
        """What is said until the preview is there."""
        return {"state": words.busy("Making the preview ...")} if session.source is not None else {}

    def _pair(self, session: Session, result: Result, after: Path) -> tuple[str, str]:
        return str(saved(result.before, session.place("whole"))), str(after)

    def _cut(self, session: Session, result: Result, x: float, y: float) -> tuple[str, str]:
        before, after = (
            saved(cut(picture, x, y, CUT_PX), session.place(f"cut-{name}"), lossless=True)
            for name, picture in (("before", result.before), ("after", result.after))
        )
        return str(before), str(after)

    def _drafted(self, session: Session) -> Updates:
        """The editor but for its form: the YAML, problems, the choice of pipeline and its words, formats."""
        name = str(session.draft.head.get("name", ""))
        offers = catalogue.offers()
        choice = name if name in offers and drafts.shipped(name).parts == session.draft.parts else OWN
        return {
            **self._formats(session),
            **self._texts(session),
            "pipeline": choice,
            "offer": words.offer(offers.get(choice)),
        }

    def _formats(self, session: Session) -> Updates:
        """What can be written, and the quality where that is lossy and chosen here."""
        found = _deliverables(session.draft)
        if session.draft.wanted not in found:
            session.draft = replace(session.draft, wanted=AS_SAID, quality=None)
        wanted = session.draft.wanted
        lossy = wanted != AS_SAID and found[wanted][0].format in ("jpeg", "ultrahdr", "avif")
        quality = session.draft.quality or (found[wanted][0].quality if lossy else 95)
        said = declared(found[AS_SAID])
        return {
            "formats": gr.update(label=f"File (the pipeline's own: {said})" if said else "File", value=wanted),
            "quality": gr.update(visible=lossy, value=quality),
        }

    def _texts(self, session: Session, complaints: Sequence[str] = ()) -> Updates:
        draft = session.draft
        return {
            "yaml": draft.text,
            "problems": words.problems([*complaints, *draft.complaints()]),
            "made_with": words.made_with(session.result, draft.text),
        }


def _panels(result: Result | None) -> Updates:
    """Whether the panels are shown that need a result, and one in HDR."""
    return {
        "detail": gr.update(visible=result is not None),
        "hdr_panel": gr.update(visible=result is not None and result.hdr is not None),
    }


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"


def _deliverables(draft: Draft) -> Mapping[str, tuple[OutputSpec, ...]]:
    """What a draft can be written as; one with problems as it says only."""
    try:
        return deliverables(draft.declared())
    except PipelineError:
        return {AS_SAID: ()}


def _small(picture: Picture) -> Picture:
    """A picture reduced for the overview."""
    step = max(1, max(picture.shape[:2]) // 640)
    return picture[::step, ::step]


def _suited(session: Session) -> str:
    """The name of a pipeline for what was dropped, where that of the session cannot take it; else nothing."""
    source = session.source
    assert source is not None
    reference = source.first.state.reference
    if isinstance(source.small, Bracket):
        if session.draft.takes_bracket:
            return ""
        return "bracket-fusion" if reference == "display" else "bracket-to-hdr"
    try:
        given: Pipeline | None = session.draft.pipeline()
    except PipelineError:
        return ""
    wants = given.input.state if given is not None and given.input is not None else None
    if wants is None or (wants.frames == "single" and reference == wants.reference):
        return ""
    if reference == "scene":
        return "hdr-to-display"
    return "raw-to-srgb" if reference == "sensor" else "photo-enhance"
