"""What the page shows of a draft before anything is made: its preview, and a learned model on a part of the picture."""

from __future__ import annotations

from collections.abc import Callable

from restorekit import device as devices
from restorekit.errors import Cancelled, PipelineError, RestorekitError
from restorekit.frame import Frame
from restorekit.pipeline import Pipeline
from restorekit.web import catalogue, words
from restorekit.web.display import fitted, histogram, saved, shown
from restorekit.web.growth import check
from restorekit.web.previews import for_reduced, runs_model, shows_in
from restorekit.web.runs import NOTHING
from restorekit.web.sessions import Session, Source, Updates
from restorekit.web.settings import Settings


def preview(session: Session, settings: Settings) -> Updates:
    """What the draft makes of the small copy: nothing new where a newer change came meanwhile."""

    def make(change: int) -> Updates:
        return _shown(session, settings, lambda source, pipeline: _preview(session, source, pipeline, change))

    return session.previewed.of(session, make, session.is_newest)


def trial(session: Session, settings: Settings) -> Updates:
    """What a learned model makes of a part: nothing new where something else is read, changed or made meanwhile."""

    def make(change: int) -> Updates:
        return _shown(session, settings, lambda source, pipeline: _trial(session, settings, source, pipeline, change))

    return session.tried.of(session, make, session.may_try)


def _shown(session: Session, settings: Settings, make: Callable[[Source, Pipeline], Updates]) -> Updates:
    """What ``make`` shows of the draft's pipeline, or why there is nothing to see."""
    source = session.source
    if source is None:
        return {"state": words.note(NOTHING)}
    nothing: Updates = {"slider": None, "histogram": ""}
    try:
        pipeline = session.draft.pipeline()
        check(pipeline, source.size, settings)
        return make(source, pipeline)
    except PipelineError:
        return {**nothing, "state": words.note("No preview: the pipeline has problems, which stand at its stages.")}
    except Cancelled:
        return {}
    except RestorekitError as error:
        return {**nothing, "state": words.problems(session.told(error).splitlines())}


def _preview(session: Session, source: Source, pipeline: Pipeline, change: int) -> Updates:
    picture = before = source.before
    if not runs_model(pipeline):
        small = for_reduced(pipeline, source.share)
        picture = source.preview.make(small, source.small, lambda: not session.is_newest(change))
        said = words.note("Preview at reduced size; the button makes the files.")
    elif _part(source, pipeline):
        said = words.busy("Trying the learned model on the middle of the picture ...")
        if source.shown:
            return {"state": said}
    elif catalogue.missing(pipeline):
        said = words.note("No preview, and no picture: this pipeline runs a learned model that is not installed here.")
    else:
        said = words.note("This pipeline runs a learned model: the button shows what it does.")
    source.shown = source.shown or str(saved(before, session.place("before")))
    after = source.shown if picture is before else str(saved(picture, session.place("preview")))
    return {"slider": (source.shown, after), "histogram": histogram(picture), "state": said}


def _trial(session: Session, settings: Settings, source: Source, pipeline: Pipeline, change: int) -> Updates:
    part = _part(source, pipeline)
    if part is None:
        return {}
    device = devices.choose(settings.device)  # as full-size runs, whose models it shares
    picture = source.trial.make(pipeline, part, lambda: not session.may_try(change), device)
    before = fitted(shown(part), picture)
    pair = [
        str(saved(each, session.place(f"part-{name}"), lossless=True))
        for name, each in (("before", before), ("after", picture))
    ]
    said = words.note(
        f"Preview of the learned model on {part.width}x{part.height} px in the middle of the picture; "
        "the button makes all of it."
    )
    return {"slider": tuple(pair), "histogram": histogram(picture), "state": said}


def _part(source: Source, pipeline: Pipeline) -> Frame | None:
    """The part of the picture that shows what a pipeline with a learned model does, where there is one."""
    part = source.part
    fits = part is not None and runs_model(pipeline) and not catalogue.missing(pipeline) and shows_in(part, pipeline)
    return part if fits else None
