"""The full-size run of a session: the pipeline of the page through the very code of ``restorekit run``."""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from restorekit import device as devices
from restorekit.engine import Progress
from restorekit.errors import Cancelled, RestorekitError
from restorekit.io.read import read
from restorekit.isolation import internal_error
from restorekit.jobs import Job, plan
from restorekit.pipeline import Pipeline
from restorekit.runner import Runner, RunOptions
from restorekit.web.deliverables import hdr_output
from restorekit.web.display import fitted, saved, shown
from restorekit.web.drafts import Draft
from restorekit.web.growth import check
from restorekit.web.previews import require_bracket, shown_output, takes_bracket
from restorekit.web.sessions import Result, Session, Sessions, Source
from restorekit.web.settings import MEGABYTE

TELL_S = 0.2
"""So often is progress told at least."""

SHOWN_AS_THEY_ARE = ("jpeg", "ultrahdr", "avif", "webp")
SHOWN_BYTES = 32 * MEGABYTE
"""Files of these formats up to this size are shown themselves, with their colours and their HDR."""

NOTHING = "drop a readable picture first, or take one of the examples"


@dataclass(frozen=True)
class Moment:
    """How far a run is: the step in work and the finished share."""

    step: str
    share: float


def run(session: Session, sessions: Sessions) -> Iterator[Moment | Result]:
    """Run the draft of a session on its files; moments of progress, and the result last.

    Raises RestorekitError, without folders of the server, when nothing came of it; Cancelled when it was stopped.
    """
    if session.source is None:
        raise RestorekitError(NOTHING)
    draft, source = session.draft, session.source
    pipeline = draft.pipeline()
    require_bracket(pipeline, source.small)
    told: queue.Queue[Moment | Result | RestorekitError] = queue.Queue()

    def work() -> None:
        try:
            with session.working:
                told.put(_made(session, draft, source, sessions, lambda step, share: told.put(Moment(step, share))))
        except RestorekitError as error:
            kind = Cancelled if isinstance(error, Cancelled) else RestorekitError
            told.put(kind(session.told(error)))
        except Exception as error:
            told.put(RestorekitError(session.told(internal_error(error))))
        finally:
            if session.closed:
                session.close()  # what was written since

    threading.Thread(target=work, daemon=True, name="run").start()
    last: Moment | Result | RestorekitError = Moment("waiting", 0.0)
    while True:
        try:
            last = told.get(timeout=TELL_S)
            while isinstance(last, Moment):
                last = told.get_nowait()
        except queue.Empty:
            pass
        if isinstance(last, RestorekitError):
            raise last
        yield last
        if isinstance(last, Result):
            return


def _made(session: Session, draft: Draft, source: Source, sessions: Sessions, progress: Progress) -> Result:
    """Everything but threads: plan, run as the command line does, and look at what came out."""

    def tell(step: str, share: float) -> None:
        if session.stop.is_set():
            raise Cancelled("stopped before it was finished; nothing was written")
        progress(step, share)

    tell("weights", 0.0)
    pipeline = draft.pipeline()
    check(pipeline, source.size, sessions.settings)
    folder = session.place("out")
    what = plan(_named(pipeline, source), [source.folder], folder, existing="overwrite")
    for step in pipeline.steps:
        step.stage.open()
    options = RunOptions(device=devices.choose(sessions.settings.device), limits=sessions.settings.limits)
    runner = Runner(pipeline, what, options, sessions.decoded)

    def of_job(job: Job) -> Progress:
        tell("read", 0.0)
        return tell

    reports = []
    for _, report in runner.run(of_job):
        report.error = session.told(report.error)
        report.warnings = [session.told(warning) for warning in report.warnings]
        reports.append(report)
    done = [report for report in reports if report.status == "done"]
    if not done:
        if session.stop.is_set():
            raise Cancelled("stopped before it was finished; nothing was written")
        raise RestorekitError("\n".join(report.error for report in reports))
    progress("picture", 1.0)
    files = tuple(Path(path) for report in done for path in report.outputs)
    same = next((report for report in done if str(source.looked_at) in report.inputs), None)
    number, outputs = shown_output(pipeline), [Path(path) for path in (same or done[0]).outputs]
    chosen, spec = outputs[number], pipeline.outputs[number]
    after = shown(read(chosen, sidecar=False))
    as_it_is = spec.format in SHOWN_AS_THEY_ARE and chosen.stat().st_size <= SHOWN_BYTES
    picture = chosen if as_it_is else saved(after, session.place("after"))
    in_hdr = hdr_output(pipeline, source.first.metadata.color)
    hdr = None if in_hdr is None else outputs[in_hdr]
    if same is not None:
        before = source.before if source.whole is None else shown(source.whole)
    else:  # the file that the page shows failed, another one did not
        before = shown(sessions.decoded(Path(done[0].inputs[0])))
    before = fitted(before, after)
    return Result(draft.text, pipeline, runner.report.device, files, tuple(reports), before, after, picture, hdr)


def _named(pipeline: Pipeline, source: Source) -> Pipeline:
    """A pipeline whose files are called for it and for their input, a bracket's for its first file."""
    grouped = source.is_bracket and takes_bracket(pipeline)
    stem = source.files[0].stem.replace("{", "{{").replace("}", "}}") if grouped else "{stem}"
    name = f"{stem}-{re.sub(r'[^0-9A-Za-z_.-]+', '-', pipeline.name)}"
    return pipeline.with_outputs([replace(spec, name=spec.name.replace("{stem}", name)) for spec in pipeline.outputs])
