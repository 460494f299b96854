"""What the page says, as HTML; everything that comes from files and people is escaped."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from restorekit.report import JobReport
from restorekit.stages import Restore
from restorekit.web.catalogue import Offer
from restorekit.web.runs import Moment
from restorekit.web.sessions import Result, Source
from restorekit.zoo import cards


def offer(found: Offer | None) -> str:
    """A shipped pipeline: a small picture, its summary, and what it lacks."""
    if found is None:
        return '<p class="rk-quiet">A pipeline of your own.</p>'
    picture = ""
    if found.picture is not None:
        data = base64.b64encode(found.picture.read_bytes()).decode()
        picture = f'<img class="rk-what" alt="before and after" src="data:image/jpeg;base64,{data}">'
    return f"{picture}<p>{escape(found.summary)}</p>{lacking(found.lacks)}"


def lacking(models: Mapping[str, str]) -> str:
    """Models that are not installed; what brings them is for who runs the server, in small print."""
    return "".join(
        f'<div class="rk-problem">The model <b>{escape(id)}</b> is not installed on this server.'
        f"<details><summary>For who runs it</summary>{escape(cure)}</details></div>"
        for id, cure in models.items()
    )


def problems(lines: Sequence[str]) -> str:
    """Complaints, one line each."""
    if not lines:
        return ""
    return f'<div class="rk-problem" role="alert">{"".join(f"<div>{escape(line)}</div>" for line in lines)}</div>'


def note(text: str) -> str:
    return f'<p class="rk-quiet">{escape(text)}</p>'


def busy(text: str) -> str:
    """What is being worked on; the picture that is shown is the one before."""
    return f'<p class="rk-quiet rk-busy" role="status">{escape(text)}</p>'


def brought(source: Source) -> str:
    """The files of a visitor in one line."""
    names = ", ".join(path.name for path in source.files)
    wide, high = source.size
    kind = {"sensor": "RAW", "scene": "light of a scene"}.get(source.first.state.reference, "picture")
    what = f"bracket of {len(source.files)} frames" if source.is_bracket else kind
    return f'<p class="rk-brought"><b>{escape(names)}</b> {what}, {wide}×{high}</p>'  # noqa: RUF001


def progress(moment: Moment) -> str:
    """A bar with the step in work."""
    percent = round(100 * moment.share)
    return (
        f'<div class="rk-progress" role="progressbar" aria-valuenow="{percent}" aria-valuemin="0" aria-valuemax="100">'
        f'<div style="width:{percent}%"></div></div><p class="rk-quiet">{escape(moment.step)}, {percent} %</p>'
    )


def result(found: Result) -> str:
    """What a run did: time by stage, size, how networks were run, models and their licences, warnings."""
    parts = [_report(report, found.device) for report in found.reports]
    for step in found.pipeline.steps:
        if isinstance(step.stage, Restore) and step.stage.model in cards.files():
            card = cards.card(step.stage.model)
            parts.append(
                f"<p>Model <b>{escape(card.id)}</b>, licence {escape(card.licence)}: {escape(card.summary)}</p>"
            )
    return f'<div class="rk-info">{"".join(parts)}</div>'


def made_with(found: Result | None, text: str) -> str:
    """What the files to download were made with, and whether ``text``, the present pipeline, says something else."""
    if found is None:
        return ""
    since = "" if found.text == text else " Pipeline or settings were changed since: the button makes the files anew."
    return f'<p class="rk-made-with">Made with <b>{escape(found.pipeline.name)}</b>.{since}</p>'


def hdr(path: Path | None) -> str:
    """The picture as displays with more than standard white show it."""
    if path is None:
        return ""
    source = f"gradio_api/file={path}"
    return (
        f'<picture><img class="rk-hdr" alt="HDR result" src="{escape(source)}"></picture>'
        '<p class="rk-quiet">On an HDR display, in a browser that shows HDR (Chrome, Edge, Safari 26), highlights are '
        "brighter than the page's white. Elsewhere this is the standard picture.</p>"
    )


def _report(report: JobReport, device: str) -> str:
    name = escape(", ".join(Path(path).name for path in report.inputs))
    if report.status == "failed":
        return f'<div class="rk-problem">{escape(report.error)}</div>'
    times = "".join(f"<tr><td>{escape(step)}</td><td>{spent:.2f} s</td></tr>" for step, spent in report.seconds.items())
    networks = "".join(f"<p>{escape(step)}: {escape(how)}</p>" for step, how in report.networks.items())
    warned = "".join(f"<li>{escape(text)}</li>" for text in report.warnings)
    return (
        f"<p><b>{name}</b> {report.width}×{report.height} in {report.wall_s:.1f} s on {escape(device)}</p>"  # noqa: RUF001
        f"{networks}{f'<ul>{warned}</ul>' if warned else ''}"
        f"<details><summary>Time by stage</summary><table>{times}</table></details>"
    )
