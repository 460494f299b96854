"""``restorekit run PIPELINE INPUT... OUTPUT``."""

from __future__ import annotations

import json
import math
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from restorekit.cli import completion
from restorekit.errors import RestorekitError

if TYPE_CHECKING:
    from restorekit.engine import Progress
    from restorekit.io.brackets import Grouping
    from restorekit.jobs import Job, Plan
    from restorekit.pipeline import Pipeline
    from restorekit.report import JobReport, RunReport
    from restorekit.runner import Runner


WHOLE = 1 << 30
"""More rows than any image has."""


class ExistingFiles(StrEnum):
    """What to do with outputs that are there already."""

    SKIP = "skip"
    OVERWRITE = "overwrite"
    RENAME = "rename"
    ERROR = "error"


class Privacy(StrEnum):
    """What happens to metadata."""

    KEEP = "keep"
    LOCATION = "location"
    STRIP = "strip"


class Arithmetic(StrEnum):
    """In which precision networks compute."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


def run(
    pipeline: Annotated[
        str,
        typer.Argument(help="Name of a shipped pipeline, or a YAML file.", autocompletion=completion.pipeline_names),
    ],
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT... OUTPUT",
            help="Files and folders to read, and last the folder to write to (or, for one file, the file).",
        ),
    ],
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="STAGE.PARAM=VALUE",
            help="Change a parameter; may be repeated.",
            autocompletion=completion.settings,
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    tile: Annotated[
        str,
        typer.Option(
            metavar="auto|off|N",
            help="Networks in tiles of N px, other stages in strips of N rows; off: the whole image at once.",
        ),
    ] = "auto",
    precision: Annotated[
        Arithmetic, typer.Option(help="Of networks; auto: bf16 on a GPU for models tested in it, else fp32.")
    ] = Arithmetic.AUTO,
    ev: Annotated[
        str, typer.Option(metavar="EV,EV,...", help="Exposure offsets of a bracket's frames, in stops, in file order.")
    ] = "",
    group: Annotated[
        str,
        typer.Option(
            metavar="auto|folder|N",
            help="How files become brackets: by EXIF time and exposure, by folder, every N files.",
        ),
    ] = "",
    existing: Annotated[
        ExistingFiles,
        typer.Option(help="Outputs that exist: skip keeps those that are up to date and remakes our own stale ones."),
    ] = ExistingFiles.SKIP,
    isolate: Annotated[
        bool, typer.Option("--isolate", help="Decode in a child process, so that a crash of a decoder fails one file.")
    ] = False,
    decode_timeout: Annotated[
        float | None, typer.Option(min=0.1, metavar="SECONDS", help="With --isolate: time for a file (default 120).")
    ] = None,
    max_megapixels: Annotated[
        float | None, typer.Option(min=0.001, metavar="N", help="Refuse larger images unread (default 512).")
    ] = None,
    sidecar: Annotated[
        bool, typer.Option(help="Follow orientation, crop and rating of XMP files beside the inputs.")
    ] = True,
    privacy: Annotated[
        Privacy, typer.Option(help="location: outputs do not tell where; strip: no EXIF, XMP and IPTC.")
    ] = Privacy.KEEP,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Look into subfolders.")] = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first image that fails.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and stop.")] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the JSON report goes (default OUTPUT/report.json).")
    ] = None,
) -> None:
    """Run a pipeline on files and folders."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch loads: idle threads sleep instead of spinning
    from restorekit.jobs import for_output
    from restorekit.jobs import plan as make_plan
    from restorekit.schema import load

    if len(paths) < 2:
        raise RestorekitError("run takes inputs and an output: restorekit run PIPELINE INPUT... OUTPUT")
    pipe, _ = for_output(load(pipeline), paths[:-1], paths[-1])
    for text in assignments or []:
        pipe = assigned(pipe, text)
    bracket = pipe.input is not None and pipe.input.state.frames != "single"
    if (ev or group) and not bracket:
        raise RestorekitError(
            f"{'--ev' if ev else '--group'} is for brackets, pipeline {pipe.name} takes single images; leave it out"
        )
    if decode_timeout is not None and not isolate:
        raise RestorekitError("--decode-timeout is the time for a file in the child process of --isolate; add that")
    offsets = _offsets(ev)
    plan = make_plan(
        pipe,
        paths[:-1],
        paths[-1],
        grouping=_grouping(group, pipe),
        existing=existing.value,
        recursive=recursive,
        sidecars=sidecar,
        salt=_salt(offsets, privacy, sidecar, *_how_networks_run(pipe, precision, tile)),
    )
    if dry_run:
        show_plan(pipe, plan)
        raise typer.Exit(1 if plan.problems else 0)
    from restorekit import device as devices
    from restorekit.io.limits import Limits
    from restorekit.isolation import DECODE_TIMEOUT_S
    from restorekit.runner import Runner, RunOptions

    devices.keep_freed_memory()
    options = RunOptions(
        strip_rows=_strip_rows(tile_of(tile)),
        precision=precision.value,
        tile=tile_of(tile),
        device=devices.choose(device),
        ev=offsets,
        privacy=privacy.value,
        sidecar=sidecar,
        limits=Limits() if max_megapixels is None else Limits(round(max_megapixels * 1e6)),
        isolate=isolate,
        decode_timeout_s=decode_timeout or DECODE_TIMEOUT_S,
        fail_fast=fail_fast,
    )
    if any(job.action == "run" for job in plan.jobs):
        for step in pipe.steps:
            step.stage.open()
    runner = Runner(pipe, plan, options)
    if report is not None and not report.absolute().parent.is_dir():
        raise RestorekitError(f"{report}: there is no folder {report.parent} for the report; create it first")
    if runner.removed_leftovers:
        typer.echo(f"removed {runner.removed_leftovers} unfinished files of an earlier run", err=True)
    tell_passed_over(pipe, plan)
    result = _follow(runner)
    _summary(result)
    target = report or (None if plan.single_file else plan.folder / "report.json")
    if target is not None:
        try:
            result.write(target)
        except OSError as error:
            raise RestorekitError(
                f"{target}: the report cannot be written ({error.strerror}); name another by --report"
            ) from error
    raise typer.Exit(result.exit_code)


def assigned(pipe: Pipeline, text: str) -> Pipeline:
    """The pipeline after one ``stage.param=value``; the value is read as YAML."""
    import yaml

    from restorekit.errors import PipelineError

    address, equals, value = text.partition("=")
    address = address.strip()
    stage, _, name = address.rpartition(".")
    if address in [step.id for step in pipe.steps]:
        raise RestorekitError(f"--set {text}: names no parameter; write {address}.PARAM=VALUE")
    if not (equals and stage and name):
        raise RestorekitError(f"--set {text}: write STAGE.PARAM=VALUE, for instance tone.exposure.ev=0.5")
    try:
        return pipe.set(stage, **{name: yaml.safe_load(value)})
    except PipelineError as error:
        raise RestorekitError("\n".join(f"--set {text}: {problem.message}" for problem in error.problems)) from None
    except (yaml.YAMLError, ValueError):
        raise RestorekitError(
            f"--set {text}: the value cannot be read; put text with : [ {{ or # into quotes"
        ) from None


def _offsets(text: str) -> tuple[float, ...]:
    try:
        offsets = tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        offsets = (math.nan,)
    if not all(map(math.isfinite, offsets)):
        raise RestorekitError(f"--ev {text}: write stops separated by commas, for instance -2,0,2")
    return offsets


def _how_networks_run(pipe: Pipeline, precision: Arithmetic, tile: str) -> tuple[Arithmetic, str]:
    """What changes the results of networks; as usual where there are none, since strips change nothing."""
    from restorekit.strips import RowStage

    networks = any(isinstance(step.stage, RowStage) for step in pipe.steps)
    return (precision, tile) if networks else (Arithmetic.AUTO, "auto")


def _salt(offsets: tuple[float, ...], privacy: Privacy, sidecar: bool, precision: Arithmetic, tile: str) -> str:
    """The settings of a run that change results, where they are not the usual ones."""
    usual = ((), Privacy.KEEP, True, Arithmetic.AUTO, "auto")
    given = (offsets, privacy, sidecar, precision, tile)
    return "" if given == usual else " ".join(map(str, given))


def tile_of(text: str) -> int | Literal["auto", "off"]:
    """What ``--tile`` says. Raises RestorekitError for anything else than auto, off and px from 16."""
    if text in ("auto", "off"):
        return "auto" if text == "auto" else "off"
    if text.isdigit() and int(text) >= 16:
        return int(text)
    raise RestorekitError(f"--tile {text}: use auto, off (the whole image at once), or px of a tile, from 16")


def _strip_rows(tile: int | Literal["auto", "off"]) -> int | None:
    if isinstance(tile, int):
        return tile + tile % 2
    return None if tile == "auto" else WHOLE


def _grouping(text: str, pipe: Pipeline) -> Grouping | None:
    from restorekit.io.brackets import Grouping

    if not text:
        return None
    max_gap = (pipe.input.grouping if pipe.input else Grouping()).max_gap
    if text == "auto":
        return Grouping(by="auto", max_gap=max_gap)
    if text == "folder":
        return Grouping(by="folder", max_gap=max_gap)
    if text.isdigit() and int(text) > 1:
        return Grouping(by=int(text), max_gap=max_gap)
    raise RestorekitError(f"--group {text}: use auto, folder, or the number of frames of a bracket")


def show_plan(pipe: Pipeline, plan: Plan) -> None:
    """What a run would do, one line a picture and one of totals, on stderr."""
    from restorekit.edge import bridge
    from restorekit.io.read import is_raw
    from restorekit.jobs import formats_of
    from restorekit.state import SHORTHANDS

    typer.echo(f"pipeline {pipe.name}: {' > '.join(step.id for step in pipe.steps)}", err=True)
    typer.echo(f"outputs: {formats_of(plan.outputs)}", err=True)
    developed = pipe.input is not None and pipe.input.state.reference != "sensor"
    if pipe.input is not None and developed and any(is_raw(path) for job in plan.jobs for path in job.inputs):
        lead = bridge(SHORTHANDS["sensor-bayer"], pipe.input.state, "RAW files")
        typer.echo(f"RAW files are developed first: {' > '.join(step.stage.spec.name for step in lead)}", err=True)
    tell_passed_over(pipe, plan)
    for message in plan.problems:
        typer.echo(f"cannot use  {message}", err=True)
    for job in plan.jobs:
        what = {"run": "would make"}.get(job.action, job.action)
        why = f"  ({job.why})" if job.why else ""
        typer.echo(
            f"{what}  {', '.join(str(p) for p in job.inputs)} -> {', '.join(str(p) for p in job.outputs)}{why}",
            err=True,
        )
    actions = [job.action for job in plan.jobs]
    counts = {
        "to make": actions.count("run"),
        "up to date": actions.count("up to date"),
        "kept": actions.count("kept"),
        "cannot be used": len(plan.problems),
        "passed over": len(plan.passed_over),
    }
    typer.echo(", ".join(f"{count} {what}" for what, count in counts.items() if count), err=True)


def tell_passed_over(pipe: Pipeline, plan: Plan) -> None:
    """How many pictures of folders are no inputs, and why, in one line on stderr."""
    if count := len(plan.passed_over):
        what = "1 finished picture" if count == 1 else f"{count} finished pictures"
        typer.echo(f"passed over  {what}: pipeline {pipe.name} starts from RAW", err=True)


def _follow(runner: Runner) -> RunReport:
    """Run all jobs, with a progress bar on a terminal and plain lines elsewhere."""
    if not sys.stderr.isatty():
        try:
            for job, report in runner.run():
                typer.echo(_line(job, report), err=True)
        except KeyboardInterrupt:
            runner.report.interrupted = True
        return runner.report

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        total = bar.add_task("pictures", total=len(runner.plan.jobs))
        current = bar.add_task("", total=100)

        def progress(job: Job) -> Progress:
            def tell(step: str, share: float) -> None:
                bar.update(current, description=f"{job.name}: {step}", completed=round(100 * share))

            return tell

        try:
            for job, report in runner.run(progress):
                console.print(_line(job, report), highlight=False, markup=False, soft_wrap=True)
                bar.advance(total)
        except KeyboardInterrupt:
            runner.report.interrupted = True
    return runner.report


def _line(job: Job, report: JobReport) -> str:
    if report.status == "failed":
        return f"failed  {report.error}"
    if report.status != "done":
        return f"{report.status}  {', '.join(report.outputs)}" + (f": {job.why}" if report.status == "kept" else "")
    remade = f"  (remade: {job.why})" if job.why else ""
    size = f"{report.width}x{report.height}"
    text = f"done  {job.name} -> {', '.join(report.outputs)}  {size}  {report.wall_s:.1f} s{remade}"
    return "\n".join([text, *(f"  warning: {warning}" for warning in report.warnings)])


def _summary(report: RunReport) -> None:
    words = [
        f"{report.count(status)} {status}"
        for status in ("done", "up to date", "kept", "failed", "not started")
        if report.count(status)
    ]
    words += [f"{len(report.passed_over)} passed over"] if report.passed_over else []
    typer.echo(("interrupted: " if report.interrupted else "") + ", ".join(words), err=True)


def print_json(value: Any) -> None:
    """A result for programs, on stdout."""
    typer.echo(json.dumps(value, indent=1, default=str))
