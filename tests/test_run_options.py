"""What is asked of a run beside its pipeline: isolation, limits, sidecars and privacy."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import restorekit
from restorekit.errors import InputError
from restorekit.facts import Calibration, Camera, Metadata
from restorekit.frame import Frame
from restorekit.io import write
from restorekit.io.limits import Limits
from restorekit.jobs import plan
from restorekit.report import RunReport
from restorekit.runner import Runner, RunOptions
from restorekit.schema import parse

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


def test_a_decoder_that_crashes_or_hangs_fails_its_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner calls ``read`` in the child; here one stands for it that goes wrong on files of some names."""
    (tmp_path / "fake_reader.py").write_text(
        "import ctypes, time\n"
        "from restorekit.io import read as whole\n"
        "def read(path, **keywords):\n"
        "    if path.stem == 'b': ctypes.string_at(0)\n"
        "    if path.stem == 'd': time.sleep(1000)\n"
        "    return whole(path, **keywords)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("restorekit.runner.read", importlib.import_module("fake_reader").read)
    for index, name in enumerate("abcde"):
        photo(tmp_path / "in" / f"{name}.png", seed=index)
    pipe = parse(PIPE, "p.yaml")
    options = RunOptions(isolate=True, decode_timeout_s=3)
    runner = Runner(pipe, plan(pipe, [tmp_path / "in"], tmp_path / "out"), options)
    list(runner.run())
    assert [job.status for job in runner.report.jobs] == ["done", "failed", "done", "failed", "done"]
    crashed, hung = (runner.report.jobs[index].error for index in (1, 3))
    assert "b.png: the decoder crashed on this file (SIGSEGV)" in crashed
    assert "d.png: decoding took longer than 3 s" in hung


def test_too_large_images_fail_before_they_are_decoded(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "a.png", (40, 30))
    photo(tmp_path / "in" / "b.png", (400, 300))
    pipe = parse(PIPE, "p.yaml")
    for isolate in (False, True):
        options = RunOptions(limits=Limits(100_000), isolate=isolate)
        runner = Runner(pipe, plan(pipe, [tmp_path / "in"], tmp_path / "out", existing="overwrite"), options)
        list(runner.run())
        assert statuses(runner.report) == {"a.png": "done", "b.png": "failed"}
        assert "b.png: is 400x300" in runner.report.jobs[1].error


SIDECAR = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/" crs:HasCrop="True"
 crs:CropTop="0" crs:CropLeft="0" crs:CropBottom="{bottom}" crs:CropRight="1"/></rdf:RDF></x:xmpmeta>"""


def test_a_changed_sidecar_remakes_its_picture(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "a.png")
    photo(tmp_path / "in" / "b.png")
    for bottom, height in ((0.5, 15), (0.1, 3)):
        (tmp_path / "in" / "a.xmp").write_text(SIDECAR.format(bottom=bottom))
        report = go(tmp_path / "in", tmp_path / "out")
        assert report.jobs[0].status == "done" and report.jobs[0].height == height
        assert report.jobs[0].warnings == ["a.png: its sidecar's crop is taken"]
        assert statuses(go(tmp_path / "in", tmp_path / "out")) == {"a.png": "up to date", "b.png": "up to date"}
    (tmp_path / "in" / "a.xmp").unlink()
    assert statuses(go(tmp_path / "in", tmp_path / "out")) == {"a.png": "done", "b.png": "up to date"}
    with Image.open(tmp_path / "out" / "a.png") as image:
        assert image.size == (40, 30)


def test_the_report_tells_the_size_that_is_written(tmp_path: Path) -> None:
    """A RAW file is cropped and turned at the end, when it is written."""
    mosaic = np.random.default_rng(4).integers(64, 1000, (40, 60), dtype=np.uint16)
    camera = Camera(calibrations=(Calibration(6504.0, np.eye(3)),))
    frame = Frame.from_bayer(mosaic, pattern="RGGB", black=64, white=1023, neutral=(0.5, 1, 0.5), camera=camera)
    source = write(replace(frame, metadata=Metadata(orientation=6, crop=(4, 8, 34, 48))), tmp_path / "a.dng")
    (job,) = go(source, tmp_path / "b.png").jobs
    with Image.open(tmp_path / "b.png") as image:
        assert image.size == (job.width, job.height) == (30, 40), job.error


def test_sidecars_are_no_inputs_and_can_be_ignored(tmp_path: Path) -> None:
    source = photo(tmp_path / "a.png")
    sidecar = tmp_path / "a.xmp"
    sidecar.write_text(SIDECAR.format(bottom=0.5))
    pipe = parse(PIPE, "p.yaml")
    (job,) = plan(pipe, [source, sidecar], tmp_path / "out", sidecars=False).jobs
    assert job.inputs == (source,)
    sidecar.write_text(SIDECAR.format(bottom=0.25))
    made = plan(pipe, [source], tmp_path / "out", sidecars=False)
    assert made.jobs[0].key == job.key
    runner = Runner(pipe, made, RunOptions(sidecar=False))
    list(runner.run())
    assert runner.report.jobs[0].height == 30 and runner.report.jobs[0].warnings == []
    with pytest.raises(InputError, match="no readable image"):
        plan(pipe, [sidecar], tmp_path / "out")


@pytest.mark.parametrize("privacy", ["keep", "location", "strip"])
def test_outputs_hold_the_metadata_that_privacy_allows(privacy: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[271] = "Maker"
    exif.get_ifd(34853)[1] = "N"
    Image.new("RGB", (32, 32)).save(tmp_path / "a.jpg", exif=exif)
    pipe = parse(PIPE, "p.yaml")
    options = RunOptions(privacy=privacy)  # type: ignore[arg-type]
    list(Runner(pipe, plan(pipe, [tmp_path / "a.jpg"], tmp_path / "b.png"), options).run())
    with Image.open(tmp_path / "b.png") as image:
        found = image.getexif()
    assert (271 in found) == (privacy != "strip")
    assert bool(found.get_ifd(34853)) == (privacy == "keep")


def test_outputs_name_the_pipeline_that_made_them(tmp_path: Path) -> None:
    source = photo(tmp_path / "a.png")
    pipe = parse(PIPE, "p.yaml")
    list(Runner(pipe, plan(pipe, [source], tmp_path / "b.png")).run())
    with Image.open(tmp_path / "b.png") as image:
        assert image.getexif()[305] == f"restorekit {restorekit.__version__} brighten {pipe.fingerprint}"
