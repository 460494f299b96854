"""Files in, files out: resuming, failing files, and never touching what is not ours."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from restorekit import bundled
from restorekit.errors import InputError, OutputError, RestorekitError
from restorekit.frame import Frame
from restorekit.io import read, write
from restorekit.jobs import for_output, plan
from restorekit.pipeline import Pipeline
from restorekit.report import RunReport
from restorekit.runner import Runner, RunOptions
from restorekit.schema import parse
from restorekit.stages.raw import HotPixels
from restorekit.state import ImageState

PIPE = """\
restorekit: 1
name: brighten
input: {state: display-srgb}
stages:
  - color.decode
  - tone.exposure: {ev: 0.3}
  - color.encode: {to: srgb}
output: {format: png}
"""


def photo(path: Path, size: tuple[int, int] = (40, 30), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 200, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def go(source: Path, out: Path, text: str = PIPE, **options: object) -> RunReport:
    pipe = parse(text, "p.yaml")
    runner = Runner(pipe, plan(pipe, [source], out, **options))  # type: ignore[arg-type]
    list(runner.run())
    return runner.report


def statuses(report: RunReport) -> dict[str, str]:
    return {Path(job.inputs[0]).name: job.status for job in report.jobs}


def test_a_rerun_makes_only_what_is_missing_or_stale(tmp_path: Path) -> None:
    for name in "abc":
        photo(tmp_path / "in" / f"{name}.png", seed=ord(name))
    out = tmp_path / "out"
    assert set(statuses(go(tmp_path / "in", out)).values()) == {"done"}
    first = (out / "a.png").read_bytes()
    assert set(statuses(go(tmp_path / "in", out)).values()) == {"up to date"}
    (out / "b.png").unlink()
    photo(tmp_path / "in" / "c.png", seed=99)
    again = go(tmp_path / "in", out)
    assert statuses(again) == {"a.png": "up to date", "b.png": "done", "c.png": "done"}
    changed = go(tmp_path / "in", out, PIPE.replace("0.3", "0.6"))
    assert set(statuses(changed).values()) == {"done"}
    assert (out / "a.png").read_bytes() != first
    go(tmp_path / "in", out)
    assert (out / "a.png").read_bytes() == first


def test_files_of_others_are_kept_and_it_is_said(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").write_bytes(b"mine")
    report = go(tmp_path / "in", tmp_path / "out")
    assert statuses(report) == {"a.png": "kept"}
    assert (tmp_path / "out" / "a.png").read_bytes() == b"mine" and report.exit_code == 0
    assert statuses(go(tmp_path / "in", tmp_path / "out", existing="rename")) == {"a.png": "done"}
    assert (tmp_path / "out" / "a_1.png").exists()
    with pytest.raises(RestorekitError, match="exists already"):
        go(tmp_path / "in", tmp_path / "out", existing="error")
    assert statuses(go(tmp_path / "in", tmp_path / "out", existing="overwrite")) == {"a.png": "done"}
    assert (tmp_path / "out" / "a.png").read_bytes() != b"mine"


def test_an_output_that_was_edited_is_not_ours_any_more(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "a.png")
    go(tmp_path / "in", tmp_path / "out")
    (tmp_path / "out" / "a.png").write_bytes(b"retouched by hand")
    assert statuses(go(tmp_path / "in", tmp_path / "out", PIPE.replace("0.3", "0.6"))) == {"a.png": "kept"}


def test_what_another_picture_gave_is_not_replaced(tmp_path: Path) -> None:
    """Two cards with the same file names, to one folder."""
    photo(tmp_path / "first" / "a.png", seed=1)
    photo(tmp_path / "second" / "a.png", seed=2)
    out = tmp_path / "out"
    go(tmp_path / "first", out)
    made = (out / "a.png").read_bytes()
    report = go(tmp_path / "second", out)
    assert statuses(report) == {"a.png": "kept"} and (out / "a.png").read_bytes() == made and report.exit_code == 0
    assert statuses(go(tmp_path / "second", out, existing="rename")) == {"a.png": "done"} and (out / "a_1.png").exists()
    (tmp_path / "first").rename(tmp_path / "moved")
    assert statuses(go(tmp_path / "moved", out)) == {"a.png": "up to date"}
    assert statuses(go(tmp_path / "second", out, existing="overwrite")) == {"a.png": "done"}


def test_one_bad_file_fails_alone(tmp_path: Path) -> None:
    source = tmp_path / "in"
    photo(source / "a.png")
    (source / "b.png").write_bytes(b"")
    (source / "c.dng").write_text("this is text")
    (source / "d.jpg").write_bytes(photo(tmp_path / "whole.jpg", (300, 200)).read_bytes()[:-2000])
    photo(source / "e.png")
    report = go(source, tmp_path / "out")
    assert statuses(report) == {
        "a.png": "done",
        "b.png": "failed",
        "c.dng": "failed",
        "d.jpg": "failed",
        "e.png": "done",
    }
    assert report.exit_code == 1
    for job in report.jobs:
        if job.status == "failed":
            assert job.inputs[0] in job.error and "\n" not in job.error
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [".restorekit", "a.png", "e.png"]


def test_fail_fast_stops(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"")
    photo(tmp_path / "in" / "b.png")
    pipe = parse(PIPE, "p.yaml")
    runner = Runner(pipe, plan(pipe, [tmp_path / "in"], tmp_path / "out"), RunOptions(fail_fast=True))
    list(runner.run())
    assert statuses(runner.report) == {"a.png": "failed", "b.png": "not started"}


def test_names_that_clash_are_kept_apart(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "a.png")
    photo(tmp_path / "in" / "a.jpg")
    report = go(tmp_path / "in", tmp_path / "out")
    assert sorted(Path(job.outputs[0]).name for job in report.jobs) == ["a.png", "a_png.png"]
    assert report.exit_code == 0


def test_subfolders_only_when_asked(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "a.png")
    photo(tmp_path / "in" / "sub" / "deep" / "b.png")
    assert len(go(tmp_path / "in", tmp_path / "out").jobs) == 1
    report = go(tmp_path / "in", tmp_path / "out", recursive=True)
    assert len(report.jobs) == 2 and (tmp_path / "out" / "sub" / "deep" / "b.png").exists()


def test_an_input_is_never_overwritten(tmp_path: Path) -> None:
    source = photo(tmp_path / "in" / "a.png")
    before = source.read_bytes()
    with pytest.raises(RestorekitError, match="overwrite its input"):
        go(tmp_path / "in", tmp_path / "in", existing="overwrite")
    with pytest.raises(RestorekitError, match="overwrite its input"):
        go(source, source, existing="overwrite")
    assert source.read_bytes() == before


def test_a_single_output_file_takes_its_format_from_its_name(tmp_path: Path) -> None:
    source = photo(tmp_path / "a.png")
    report = go(source, tmp_path / "b.jpg")
    assert report.exit_code == 0
    with Image.open(tmp_path / "b.jpg") as image:
        assert image.format == "JPEG" and image.size == (40, 30)
    with pytest.raises(InputError, match="no such file"):
        go(tmp_path / "none.png", tmp_path / "c.png")


def test_a_single_output_file_keeps_what_the_pipeline_says_of_its_colours(tmp_path: Path) -> None:
    """The extension changes the format; the space, and a depth that it has too, stay."""
    frame = Frame(torch.rand(3, 20, 24, generator=torch.manual_seed(0)), ImageState(primaries="p3"))
    write(frame, tmp_path / "a.png")
    pipeline = Pipeline.load("photo-resize")
    for name, bits, wanted in (("b.avif", None, 8), ("c.png", None, 8), ("d.png", 16, 16)):
        target, single = for_output(pipeline, [tmp_path / "a.png"], tmp_path / name)
        assert single
        target = target.set("output", bits=bits) if bits else target
        made = plan(target, [tmp_path / "a.png"], tmp_path / name)
        ((_, report),) = Runner(target, made).run()
        assert report.status == "done"
        result = read(tmp_path / name)
        assert result.state.primaries == "p3"
        assert result.pixels.dtype == (torch.uint8 if wanted == 8 else torch.uint16)


def test_what_stages_measured_is_reported(tmp_path: Path) -> None:
    mosaic = (torch.rand(40, 60, generator=torch.manual_seed(1)) * 3000 + 600).to(torch.uint16).numpy()
    write(Frame.from_bayer(mosaic, pattern="RGGB", black=512, white=16383, neutral=(0.5, 1, 0.7)), tmp_path / "a.dng")
    report = go(tmp_path / "a.dng", tmp_path / "b.png", bundled.pipelines()["raw-to-srgb"].read_text())
    (job,) = report.jobs
    assert job.measured["illuminant"] == pytest.approx((0.5, 1, 0.7), abs=1e-5)
    assert 0 < job.measured["tone.exposure"] < 4  # type: ignore[operator]


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match="no readable image"):
        go(tmp_path / "in", tmp_path / "out")


def test_an_output_folder_that_cannot_be_made(tmp_path: Path) -> None:
    source = photo(tmp_path / "a.png")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write here"):
        go(source, tmp_path / "file" / "out")


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png.part").write_bytes(b"half")
    go(tmp_path / "in", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.part"))


def test_a_full_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo(tmp_path / "in" / "a.png")
    photo(tmp_path / "in" / "b.png")
    real = os.fsync
    calls = iter((OSError(28, "No space left on device"), None))

    def full_once(handle: int) -> None:
        error = next(calls, None)
        if error is not None:
            raise error
        real(handle)

    monkeypatch.setattr(os, "fsync", full_once)
    report = go(tmp_path / "in", tmp_path / "out")
    assert [job.status for job in report.jobs] == ["failed", "done"]
    assert "full" in report.jobs[0].error
    assert not list((tmp_path / "out").glob("*.part")) and not (tmp_path / "out" / "a.png").exists()


def test_isolated_decoding_gives_the_same_bytes(tmp_path: Path) -> None:
    source = photo(tmp_path / "in" / "a.png")
    go(source, tmp_path / "plain")
    pipe = parse(PIPE, "p.yaml")
    runner = Runner(pipe, plan(pipe, [source], tmp_path / "isolated"), RunOptions(isolate=True))
    list(runner.run())
    assert (tmp_path / "isolated" / "a.png").read_bytes() == (tmp_path / "plain" / "a.png").read_bytes()


def test_the_report_tells_times_versions_and_memory(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "a.png")
    report = go(tmp_path / "in", tmp_path / "out")
    report.write(tmp_path / "report.json")
    content = json.loads((tmp_path / "report.json").read_text())
    (job,) = content["jobs"]
    assert {"read", "color.decode", "tone.exposure", "color.encode", "write"} <= set(job["seconds"])
    assert job["peak_memory_mb"] > 10 and content["versions"]["torch"]


def test_single_photos_are_refused_by_a_bracket_pipeline(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "a.png")
    pipe = Pipeline.load("bracket-fusion")
    runner = Runner(pipe, plan(pipe, [tmp_path / "in"], tmp_path / "out"))
    list(runner.run())
    assert runner.report.exit_code == 1
    assert "--group" in runner.report.jobs[0].error and "a.png" in runner.report.jobs[0].error


def test_brackets_in_subfolders_become_one_picture_each(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        for index in range(3):
            photo(tmp_path / "in" / folder / f"{index}.png", (64, 48), seed=index)
    pipe = Pipeline.load("bracket-fusion")
    runner = Runner(pipe, plan(pipe, [tmp_path / "in"], tmp_path / "out"))
    list(runner.run())
    assert runner.report.exit_code == 0, [job.error for job in runner.report.jobs]
    assert sorted(p.name for p in (tmp_path / "out").glob("*.jpg")) == ["one.jpg", "two.jpg"]


def test_frames_of_different_sizes_are_refused(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "b" / "1.png", (64, 48))
    photo(tmp_path / "in" / "b" / "2.png", (48, 64))
    pipe = Pipeline.load("bracket-fusion")
    runner = Runner(pipe, plan(pipe, [tmp_path / "in"], tmp_path / "out"))
    list(runner.run())
    assert "one size" in runner.report.jobs[0].error and runner.report.exit_code == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_ctrl_c_ends_cleanly(tmp_path: Path) -> None:
    for index in range(40):
        photo(tmp_path / "in" / f"{index:02}.png", (1500, 1200), seed=index)
    command = [sys.executable, "-m", "restorekit", "run", "photo-enhance", str(tmp_path / "in"), str(tmp_path / "out")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out").glob("*.jpg")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, words = process.communicate(timeout=60)
    assert process.returncode == 1 and "interrupted" in words and "Traceback" not in words
    assert not list((tmp_path / "out").glob("*.part"))
    for path in (tmp_path / "out").glob("*.jpg"):
        with Image.open(path) as image:
            image.load()


TWO = PIPE.replace("output: {format: png}", "output: [{format: png}, {format: tiff, bits: 16}]")


def test_a_second_output_that_failed_is_made_by_the_rerun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo(tmp_path / "in" / "a.png")
    real = os.fsync
    calls = iter((None, OSError(28, "No space left on device")))

    def full_later(handle: int) -> None:
        error = next(calls, None)
        if error is not None:
            raise error
        real(handle)

    monkeypatch.setattr(os, "fsync", full_later)
    assert statuses(go(tmp_path / "in", tmp_path / "out", TWO)) == {"a.png": "failed"}
    assert (tmp_path / "out" / "a.png").exists() and not (tmp_path / "out" / "a.tif").exists()
    assert statuses(go(tmp_path / "in", tmp_path / "out", TWO)) == {"a.png": "done"}
    assert (tmp_path / "out" / "a.tif").exists()
    assert statuses(go(tmp_path / "in", tmp_path / "out", TWO)) == {"a.png": "up to date"}


def test_a_run_killed_before_its_last_note_is_remade(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "a.png")
    go(tmp_path / "in", tmp_path / "out")
    journal = tmp_path / "out" / ".restorekit" / "journal.jsonl"
    begun, finished = journal.read_text().splitlines()
    journal.write_text(f"{begun}\n{finished[:20]}")
    report = go(tmp_path / "in", tmp_path / "out")
    assert statuses(report) == {"a.png": "done"}


def test_a_single_output_file_is_remade_when_the_pipeline_changes(tmp_path: Path) -> None:
    source = photo(tmp_path / "a.png")
    target = tmp_path / "result" / "b.png"
    assert go(source, target).jobs[0].status == "done"
    first = target.read_bytes()
    assert go(source, target).jobs[0].status == "up to date"
    assert go(source, target, PIPE.replace("0.3", "0.6")).jobs[0].status == "done"
    assert target.read_bytes() != first


def test_renamed_outputs_do_not_meet(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "a.png", seed=1)
    photo(tmp_path / "in" / "a_1.png", seed=2)
    photo(tmp_path / "out" / "a.png", seed=3)
    report = go(tmp_path / "in", tmp_path / "out", existing="rename")
    names = [Path(job.outputs[0]).name for job in report.jobs]
    assert len(set(names)) == 2 and "a.png" not in names and report.exit_code == 0


def test_a_changed_file_parameter_makes_outputs_stale(tmp_path: Path) -> None:
    source = photo(tmp_path / "a.png")
    pixels = tmp_path / "bad.txt"
    pixels.write_text("1 1\n")
    keys = []
    for content in ("1 1\n", "1 1\n2 2\n"):
        pixels.write_text(content)
        pipeline = Pipeline([HotPixels(bad_pixels=pixels)])
        keys.append(plan(pipeline, [source], tmp_path / "out").jobs[0].key)
    assert keys[0] != keys[1]
    pixels.unlink()
    with pytest.raises(InputError, match="no such file"):
        plan(pipeline, [source], tmp_path / "out")


def test_our_own_outputs_are_no_inputs(tmp_path: Path) -> None:
    photo(tmp_path / "same" / "a.png")
    text = PIPE.replace("png", "jpeg")
    assert statuses(go(tmp_path / "same", tmp_path / "same", text)) == {"a.png": "done"}
    assert statuses(go(tmp_path / "same", tmp_path / "same", text)) == {"a.png": "up to date"}
    photo(tmp_path / "rec" / "sub" / "a.png")
    for status in ("done", "up to date"):
        assert statuses(go(tmp_path / "rec", tmp_path / "rec" / "out", recursive=True)) == {"a.png": status}


def test_outputs_that_cannot_be_are_refused_before_any_work(tmp_path: Path) -> None:
    source = photo(tmp_path / "a.png")
    for output, says in ((tmp_path / "b.heic", "heic"), (tmp_path / "b.psd", "psd"), (tmp_path / "b.exr", "linear")):
        with pytest.raises(RestorekitError, match=says):
            go(source, output)
    with pytest.raises(RestorekitError, match="name a folder"):
        go(tmp_path, tmp_path / "b.jpg")
    pipe = Pipeline.load("photo-enhance").set("color.encode", to="pq")
    with pytest.raises(RestorekitError, match="jpeg"):
        plan(pipe, [source], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bracket_keeps_file_order_for_given_exposures(tmp_path: Path) -> None:
    for index, time_s in enumerate((0.01, 0.0025, 0.04)):
        exif = Image.Exif()
        exif.get_ifd(34665)[33434] = time_s
        (tmp_path / "in" / "s").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (40 * index, 90, 90)).save(tmp_path / "in" / "s" / f"{index}.jpg", exif=exif)
    (job,) = plan(Pipeline.load("bracket-fusion"), [tmp_path / "in"], tmp_path / "out").jobs
    assert [path.name for path in job.inputs] == ["0.jpg", "1.jpg", "2.jpg"]


def test_a_rerun_tells_what_the_first_run_found(tmp_path: Path) -> None:
    """Warnings, sizes and measurements of pictures that are up to date; not of those that were made anew."""
    text = PIPE.replace("{ev: 0.3}", "{mode: auto}").replace("format: png", "format: jpeg")
    for name in "ab":
        see_through = Image.fromarray(np.random.default_rng(ord(name)).integers(0, 200, (30, 40, 4), dtype=np.uint8))
        (tmp_path / "in").mkdir(exist_ok=True)
        see_through.save(tmp_path / "in" / f"{name}.png")
    first = go(tmp_path / "in", tmp_path / "out", text)
    photo(tmp_path / "in" / "b.png", (20, 10))
    again = go(tmp_path / "in", tmp_path / "out", text)
    last = go(tmp_path / "in", tmp_path / "out", text)
    assert statuses(again) == {"a.png": "up to date", "b.png": "done"}
    assert first.jobs[0].warnings and (first.jobs[0].width, first.jobs[0].height) == (40, 30)
    for report, other, index in ((again, first, 0), (last, first, 0), (last, again, 1)):
        known, made = report.jobs[index], other.jobs[index]
        assert (known.warnings, known.measured, known.width, known.height) == (
            made.warnings, made.measured, made.width, made.height)  # fmt: skip
        assert known.wall_s == 0 and known.seconds == {}
    assert last.jobs[1].warnings == [] and last.jobs[1].width == 20
