"""Runs whose outputs go to their files row by row: files and reports as of whole pictures, and nothing left over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from restorekit import delivery_stream
from restorekit.errors import StageError
from restorekit.execution import Execution
from restorekit.frame import Frame, Region
from restorekit.io import OutputSpec, read
from restorekit.jobs import plan
from restorekit.pipeline import InputSpec, Pipeline
from restorekit.report import JobReport
from restorekit.runner import Runner
from restorekit.stage import StageSpec, parameters
from restorekit.stages.color import Decode, Encode
from restorekit.state import SHORTHANDS
from restorekit.strips import RowStage


@parameters
class Doubled(RowStage):
    """Every pixel four times, given in strips of 10 rows; fails after the strip at row ``until``."""

    spec = StageSpec(name="doubled", source="test")
    until: int = 1000

    def rows(self, frame: Frame, execution: Execution) -> Iterator[Frame]:
        whole = frame.as_float().planes(lambda plane: plane.repeat_interleave(2, 1).repeat_interleave(2, 2))
        for top in range(0, whole.height, 10):
            if top > self.until:
                raise StageError("the network broke")
            strip = whole.rows(top, min(top + 10, whole.height))
            yield replace(strip, region=Region(top, whole.height)).with_note("doubled")


OUTPUTS = (
    OutputSpec(format="png"),
    OutputSpec(format="tiff", color="p3", name="{stem}_p3"),
    OutputSpec(format="webp", compression="lossless", name="{stem}_web"),
)


def go(folder: Path, *, until: int = 1000) -> tuple[JobReport, dict[str, Path]]:
    source = folder / "in" / "a.png"
    source.parent.mkdir(parents=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (45, 32, 4), dtype=np.uint8)).save(source, dpi=(300, 300))
    pipeline = Pipeline((Doubled(until=until), Decode(), Encode()), InputSpec(SHORTHANDS["display-srgb"]), OUTPUTS)
    runner = Runner(pipeline, plan(pipeline, [source], folder / "out"))
    ((_, report),) = runner.run()
    return report, {path.name: path for path in (folder / "out").iterdir() if path.is_file()}


def test_files_and_report_are_those_of_whole_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, wanted = go(tmp_path / "whole")
    monkeypatch.setattr(delivery_stream, "STREAM_BYTES", 0)
    report, found = go(tmp_path / "rows")
    assert report.status == "done"
    assert (report.width, report.height, report.warnings) == (whole.width, whole.height, whole.warnings)
    assert "doubled" in report.warnings
    assert found.keys() == wanted.keys() == {"a.png", "a_p3.tif", "a_web.webp"}
    for name in ("a_p3.tif", "a_web.webp"):
        assert found[name].read_bytes() == wanted[name].read_bytes()
    ours, others = read(found["a.png"]), read(wanted["a.png"])
    assert torch.equal(ours.pixels, others.pixels)
    assert ours.alpha is not None and others.alpha is not None and torch.equal(ours.alpha, others.alpha)
    assert ours.metadata == others.metadata
    assert found["a.png"].read_bytes() != wanted["a.png"].read_bytes(), "it was not streamed"


def test_a_failure_on_the_way_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_stream, "STREAM_BYTES", 0)
    begun: list[str] = []
    opened = delivery_stream.open_stream
    monkeypatch.setattr(
        delivery_stream, "open_stream", lambda path, *a, **k: begun.append(path.name) or opened(path, *a, **k)
    )
    report, found = go(tmp_path, until=30)
    assert (report.status, report.error) == ("failed", "the network broke")
    assert begun == ["a.png", "a_p3.tif"]
    assert found == {}
