"""Outputs written as they are computed: the files of collecting and writing whole, in any order of strips."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from restorekit.delivery_stream import StreamSink
from restorekit.errors import OutputError
from restorekit.facts import Metadata
from restorekit.frame import Frame, Region
from restorekit.io import OutputSpec, quantiser, read, write
from restorekit.io.privacy import private
from restorekit.stage import Stage
from restorekit.stages.color import Decode, Encode
from restorekit.state import ImageState
from restorekit.strips import Collector, run_chain

SPECS = [OutputSpec(format="png"), OutputSpec(format="png", bits=16), OutputSpec(format="tiff", bits=32)]
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/></x:xmpmeta>'


def picture(*, alpha: bool = True) -> Frame:
    generator = torch.Generator().manual_seed(5)
    planes = torch.rand((4, 150, 40), generator=generator)
    opacity = (planes[3:] * 255).to(torch.uint8) if alpha else None
    return Frame(planes[:3], ImageState(), alpha=opacity, metadata=Metadata(xmp=XMP))


def sink_for(path: Path, spec: OutputSpec, stages: Sequence[Stage] = (), from_bytes: int = 0) -> StreamSink:
    return StreamSink(path, spec, quantiser(spec), stages, software="test", from_bytes=from_bytes)


def collected(path: Path, frame: Frame, spec: OutputSpec, stages: Sequence[Stage] = ()) -> Path:
    collector = Collector(quantiser(spec), stages)
    collector.take(frame.rows(0, frame.height))
    return write(collector.frame(), path, spec, software="test")


def same(ours: Path, whole: Path) -> bool:
    if ours.read_bytes()[:4] == b"II\x2a\0":
        return ours.read_bytes() == whole.read_bytes()
    found, wanted = read(ours), read(whole)
    assert found.alpha is not None and wanted.alpha is not None
    equal = torch.equal(found.pixels, wanted.pixels) and torch.equal(found.alpha, wanted.alpha)
    return equal and found.metadata == wanted.metadata


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.format}-{spec.depth}")
@pytest.mark.parametrize("order", ["downwards", "shuffled"])
def test_strips_in_any_order_make_the_file_of_the_whole(tmp_path: Path, spec: OutputSpec, order: str) -> None:
    frame, stages = picture(), (Decode(), Encode())
    sink = sink_for(tmp_path / "rows", spec, stages)
    strips = [frame.rows(top, min(top + 16, frame.height)) for top in range(0, frame.height, 16)]
    for strip in strips if order == "downwards" else random.Random(1).sample(strips, len(strips)):
        sink.take(strip)
    assert sink.streamed
    assert not (tmp_path / "rows").exists()
    sink.finish()
    assert same(tmp_path / "rows", collected(tmp_path / "whole", frame, spec, stages))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows", "whole"]


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_side_by_side_make_the_same_file(tmp_path: Path, workers: int) -> None:
    frame, spec = picture(), SPECS[1]
    sink = sink_for(tmp_path / "rows", spec)
    run_chain(frame, (Decode(), Encode()), {1: [sink]}, rows=4, workers=workers)
    sink.finish()
    assert same(tmp_path / "rows", collected(tmp_path / "whole", frame, spec, (Decode(), Encode())))


def test_a_streamed_frame_has_size_notes_and_metadata_and_no_content(tmp_path: Path) -> None:
    frame = picture()
    sink = sink_for(tmp_path / "rows", SPECS[0])
    for top in (0, 100):
        sink.take(replace(frame.rows(top, min(top + 100, frame.height)), notes=("everywhere", f"at {top}")))
    found = sink.frame()
    assert (found.height, found.width, found.region) == (150, 40, None)
    assert found.notes == ("everywhere", "at 0", "at 100")
    assert found.metadata == frame.metadata
    assert found.pixels.untyped_storage().nbytes() < 100
    sink.abort()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("why", ["small", "turned", "format"])
def test_what_cannot_or_need_not_be_streamed_is_collected(tmp_path: Path, why: str) -> None:
    spec = OutputSpec(format="webp") if why == "format" else SPECS[0]
    frame = picture(alpha=False)
    if why == "turned":
        frame = replace(frame, metadata=replace(frame.metadata, orientation=6))
    sink = sink_for(tmp_path / "a", spec, from_bytes=150 * 40 * 3 + (why == "small"))
    for top in range(0, 150, 50):
        sink.take(frame.rows(top, top + 50))
    assert not sink.streamed
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(sink.frame().pixels, quantiser(spec)(frame.pixels))
    sink.abort()


def test_metadata_are_changed_before_they_are_written(tmp_path: Path) -> None:
    frame, spec = picture(), SPECS[0]
    for name in ("keep", "strip"):
        sink = StreamSink(
            tmp_path / name,
            spec,
            quantiser(spec),
            prepare=lambda whole, name=name: private(whole, name),  # type: ignore[misc]
            from_bytes=0,
        )
        sink.take(frame.rows(0, 150))
        sink.finish()
    assert [XMP in (tmp_path / name).read_bytes() for name in ("keep", "strip")] == [True, False]


def test_a_failure_in_one_thread_is_told_by_all_and_leaves_nothing(tmp_path: Path) -> None:
    frame = replace(picture(), state=ImageState(reference="scene", transfer="linear"))
    sink = sink_for(tmp_path / "a", SPECS[0])
    for _ in range(2):
        with pytest.raises(OutputError, match="tone-mapping"):
            sink.take(frame.rows(0, 10))
    late = sink_for(tmp_path / "a", SPECS[0])
    late.take(picture().rows(0, 100))
    with pytest.raises(OutputError, match="has 100 of its 150 rows"):
        late.finish()
    beside = sink_for(tmp_path / "missing" / "a", SPECS[0])
    with pytest.raises(OutputError, match="there is no folder"):
        beside.take(replace(picture(), region=Region(0, 150)))
    assert list(tmp_path.iterdir()) == []
