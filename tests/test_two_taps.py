"""Outputs made of two stages' results: checked at load, rendered in one pass, written beside other outputs."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import torch
from PIL import Image

from restorekit import bundled
from restorekit.color.transfer import decode
from restorekit.errors import PipelineError, RestorekitError
from restorekit.frame import Frame
from restorekit.io import read, write
from restorekit.io.brackets import Grouping
from restorekit.io.formats import FORMATS, OutputSpec
from restorekit.jobs import for_output, plan
from restorekit.pipeline import Pipeline
from restorekit.report import RunReport
from restorekit.runner import Runner, RunOptions
from restorekit.schema import parse
from restorekit.state import ImageState

SCENE = """\
restorekit: 1
name: both
input: {state: scene-linear}
stages:
  - tone.exposure: {ev: 0.5, id: scene}
  - tone.filmic: {id: tone}
  - color.encode: {to: srgb, id: encoded}
output:
  - {format: exr, from: scene}
  - {format: ultrahdr, hdr: scene, sdr: tone}
"""
PHOTO = """\
restorekit: 1
name: brighter
input: {state: display-srgb}
stages:
  - color.decode: {id: photo}
  - tone.exposure: {ev: 2, id: bright}
output:
  - {format: ultrahdr, hdr: bright, sdr: photo, color: source}
  - {format: avif, bits: 10, color: pq}
"""


def light(path: Path) -> Path:
    y, x = np.mgrid[0:70, 0:110].astype(np.float32) / 110
    pixels = np.stack([np.exp2(8 * x - 5 + c * y) for c in range(3)]).astype(np.float32)
    return write(Frame(torch.from_numpy(pixels), ImageState("rgb", "scene", "linear", "bt2020")), path)


def go(text: str, source: Path, out: Path, options: RunOptions | None = None) -> RunReport:
    pipe = parse(text, "p.yaml")
    runner = Runner(pipe, plan(pipe, [source], out), options)
    list(runner.run())
    assert [job.error for job in runner.report.jobs if job.error] == []
    return runner.report


def problems(text: str) -> list[str]:
    with pytest.raises(PipelineError) as raised:
        parse(text, "p.yaml")
    return [problem.message for problem in raised.value.problems]


def test_two_files_of_one_run(tmp_path: Path) -> None:
    report = go(SCENE, light(tmp_path / "a.exr"), tmp_path / "out")
    assert (report.jobs[0].width, report.jobs[0].height) == (110, 70)
    assert sorted(path.name for path in (tmp_path / "out").glob("a.*")) == ["a.exr", "a.jpg"]
    standard, shown = read(tmp_path / "out" / "a.jpg"), read(tmp_path / "out" / "a.jpg", gain_map="apply")
    assert standard.state == ImageState(primaries="p3"), "what is wider than sRGB"
    assert shown.state == ImageState(transfer="linear", primaries="p3")
    linear = read(tmp_path / "out" / "a.exr").pixels
    bright = (linear.amax(0) > 2) & (linear.amax(0) < 3.5)
    assert bright.any()
    ratio = shown.pixels.sum(0)[bright] / linear.sum(0)[bright]
    assert ratio.std() / ratio.mean() < 0.1, "lights are in proportion to the scene"


def test_strips_of_any_height_give_the_same_file(tmp_path: Path) -> None:
    light(tmp_path / "a.exr")
    for rows in (16, 64):
        go(SCENE, tmp_path / "a.exr", tmp_path / f"{rows}", RunOptions(strip_rows=rows))
    assert (tmp_path / "16" / "a.jpg").read_bytes() == (tmp_path / "64" / "a.jpg").read_bytes()


@pytest.mark.parametrize("space", ["bt709", "p3"])
def test_the_standard_picture_is_the_photo_itself(tmp_path: Path, space: str) -> None:
    pixels = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (3, 40, 48), dtype=np.uint8))
    photo = write(Frame(pixels, ImageState(primaries=space)), tmp_path / "a.png")  # type: ignore[arg-type]
    go(PHOTO, photo, tmp_path / "out")
    back = read(tmp_path / "out" / "a.jpg")
    assert back.state.primaries == space
    wanted = imagecodecs.jpeg8_decode(
        imagecodecs.jpeg8_encode(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()), level=95, subsampling="444")
    )
    assert np.array_equal(back.pixels.permute(1, 2, 0).numpy(), wanted)
    shown = read(tmp_path / "out" / "a.jpg", gain_map="apply").pixels
    assert float(shown.float().mean()) == pytest.approx(4 * float((back.as_float().pixels ** 2.2).mean()), rel=0.1)
    coded = read(tmp_path / "out" / "a.avif")
    assert (coded.state.transfer, coded.state.primaries) == ("pq", "bt2020")


def test_gray_input_becomes_rgb(tmp_path: Path) -> None:
    pixels = torch.from_numpy(np.arange(1024, dtype=np.uint16).astype(np.uint8).reshape(1, 32, 32))
    gray = write(Frame(pixels, ImageState("gray")), tmp_path / "a.png")
    go(PHOTO.replace("state: display-srgb", "state: {layout: gray}").replace(", color: pq}", ", color: pq, name: b}"),
       gray, tmp_path / "out")  # fmt: skip
    assert read(tmp_path / "out" / "a.jpg").state.layout == "rgb"
    assert read(tmp_path / "out" / "a.jpg", gain_map="apply").pixels.amax() > 3


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("hdr: scene, ", "", "ultrahdr needs hdr"),
        ("hdr: scene", "hdr: scen", "no stage has the id 'scen'; did you mean 'scene'?"),
        ("sdr: tone", "sdr: tona", "no stage has the id 'tona'; did you mean 'tone'?"),
        ("hdr: scene", "hdr: encoded", "name one before color.encode"),
        ("sdr: tone", "sdr: scene", "add a tone-mapping stage"),
        ("sdr: tone", "from: tone", "not from 'from'"),
        ("sdr: tone", "headroom: 0", "headroom"),
        ("sdr: tone", "color: adobe-rgb", "no name for adobe-rgb primaries; set output: {color: srgb}"),
        ("{format: exr, from: scene}", "{format: exr, hdr: scene}", "hdr is for ultrahdr, not for exr"),
        ("{format: exr, from: scene}", "{format: jpeg, name: '{stem}'}", "two outputs would write the same file"),
        (
            "{format: exr, from: scene}",
            "{format: avif, bits: 10, color: pq, from: scene}",
            "avif holds display-referred pictures",
        ),
    ],
)
def test_what_is_wrong_is_told_at_load(old: str, new: str, said: str) -> None:
    assert old in SCENE
    (text,) = problems(SCENE.replace(old, new))
    assert said in text
    assert "\n" not in text


def test_a_bracket_is_no_light_yet() -> None:
    text = SCENE.replace("{state: scene-linear}", "{state: scene-linear, frames: bracket}")
    assert any("merge or fuse it first" in message for message in problems(text))


def test_the_last_stage_is_the_standard_picture_where_none_is_named() -> None:
    pipe = parse(SCENE.replace(", sdr: tone", ""), "p.yaml")
    assert pipe.outputs[1].tap is None
    again = [OutputSpec(**{"from_" if key == "from" else key: v for key, v in spec.as_dict().items()})  # type: ignore[arg-type]
             for spec in pipe.outputs]  # fmt: skip
    assert tuple(again) == pipe.outputs


def test_renditions_of_different_sizes_fail_by_name(tmp_path: Path) -> None:
    text = SCENE.replace("  - tone.filmic", "  - geometry.resize: {long_edge: 32}\n  - tone.filmic")
    pipe = parse(text, "p.yaml")
    runner = Runner(pipe, plan(pipe, [light(tmp_path / "a.exr")], tmp_path / "out"))
    list(runner.run())
    (job,) = runner.report.jobs
    assert job.status == "failed"
    assert job.error is not None and "take both after the stages that change the size" in job.error
    assert not list((tmp_path / "out").glob("*.jp*"))


def test_a_jpg_that_is_named_is_the_ultra_hdr_picture_that_the_pipeline_declares(tmp_path: Path) -> None:
    source = light(tmp_path / "a.exr")
    both = parse(SCENE, "p.yaml")
    for name in ("b.jpg", "b.JPEG"):
        (made,) = for_output(both, [source], tmp_path / name)[0].outputs
        assert made.format == "ultrahdr"
    (made,) = for_output(both, [source], tmp_path / "b.exr")[0].outputs
    assert (made.format, made.from_) == ("exr", "scene"), "as the first output says"
    alone = parse(SCENE.replace("  - {format: exr, from: scene}\n", ""), "p.yaml")
    (made,) = for_output(alone, [source], tmp_path / "b.png")[0].outputs
    assert (made.format, made.from_, made.hdr, made.sdr) == ("png", "tone", None, None)
    plain = parse(SCENE.replace("{format: exr, from: scene}", "{format: jpeg, from: encoded, name: plain}"), "p.yaml")
    (made,) = for_output(plain, [source], tmp_path / "b.jpg")[0].outputs
    assert made.format == "jpeg"


@pytest.mark.parametrize("name", ["bracket-to-hdr", "hdr-to-display", "sdr-to-hdr"])
def test_any_picture_file_can_be_named(tmp_path: Path, name: str) -> None:
    """A format for displays gets the standard picture where the first output is not for it; EXR stays light."""
    source = light(tmp_path / "a.exr")
    pipe = bundled_pipeline(name)
    for kind in (".jpg", ".jpeg", ".png", ".tif", ".webp", ".avif", ".jxl", ".exr", ".hdr"):
        made = plan(pipe, [source], tmp_path / f"b{kind}", grouping=Grouping(by="folder"))
        (spec,) = made.outputs
        assert kind in FORMATS[spec.format].extensions
        if kind in (".png", ".webp", ".jxl"):
            assert spec.tap == next(each.sdr for each in pipe.outputs if each.format == "ultrahdr")
    if name == "bracket-to-hdr":
        assert plan(pipe, [source], tmp_path / "b.exr").outputs[0].from_ == "scene"


def bundled_pipeline(name: str) -> Pipeline:
    return parse(bundled.pipelines()[name].read_text(), name)


def test_a_named_png_is_the_standard_picture_in_its_colours(tmp_path: Path) -> None:
    wide = Frame(torch.rand(3, 8, 8, generator=torch.manual_seed(3)).repeat_interleave(8, 1).repeat_interleave(8, 2),
                 ImageState(primaries="p3"))  # fmt: skip
    for name, source in (
        ("hdr-to-display", light(tmp_path / "a.exr")),
        ("sdr-to-hdr", write(wide, tmp_path / "a.png", OutputSpec(format="png", bits=16))),
    ):
        pipe = bundled_pipeline(name)
        for kind in ("jpg", "png", "jxl"):
            target = tmp_path / f"{name}.{kind}"
            list(Runner(for_output(pipe, [source], target)[0], plan(pipe, [source], target)).run())
        shown, found = read(tmp_path / f"{name}.jpg"), read(tmp_path / f"{name}.png")
        assert found.state == shown.state == ImageState(primaries="p3")
        difference = (shown.as_float().pixels - found.as_float().pixels).abs()
        assert float(difference.mean()) < 0.01
        assert read(tmp_path / f"{name}.jxl").state == ImageState()


def test_a_named_jpg_is_made(tmp_path: Path) -> None:
    source = light(tmp_path / "a.exr")
    pipe = parse(SCENE, "p.yaml")
    runner = Runner(for_output(pipe, [source], tmp_path / "b.jpg")[0], plan(pipe, [source], tmp_path / "b.jpg"))
    list(runner.run())
    assert imagecodecs.ultrahdr_decode((tmp_path / "b.jpg").read_bytes())[..., :3].max() > 2
    with Image.open(tmp_path / "b.jpg") as image:
        assert image.size == (110, 70)


def test_the_shipped_pipeline_for_hdr_files(tmp_path: Path) -> None:
    go(bundled.pipelines()["hdr-to-display"].read_text(), light(tmp_path / "a.hdr"), tmp_path / "out")
    shown = read(tmp_path / "out" / "a.jpg", gain_map="apply")
    coded = read(tmp_path / "out" / "a.avif")
    assert (coded.state.transfer, coded.state.primaries) == ("pq", "bt2020")
    peak = float(decode(coded.as_float().pixels, "pq").max()) * 203
    assert peak == pytest.approx(1000, rel=0.1)
    assert shown.pixels.max() > 3
    assert read(tmp_path / "out" / "a.jpg").state == ImageState(primaries="p3")


def test_the_shipped_pipeline_for_photos(tmp_path: Path) -> None:
    y, x = np.mgrid[0:90, 0:120] / 120
    spot = 255 * np.clip(np.exp(-((x - 0.7) ** 2 + (y - 0.3) ** 2) * 60) * 1.3, 0.2, 1)
    pixels = torch.from_numpy(np.stack([spot, spot * 0.97, spot * 0.9]).astype(np.uint8))
    photo = write(Frame(pixels, ImageState()), tmp_path / "a.png")
    go(bundled.pipelines()["sdr-to-hdr"].read_text(), photo, tmp_path / "out")
    base, shown = read(tmp_path / "out" / "a.jpg"), read(tmp_path / "out" / "a.jpg", gain_map="apply")
    assert (base.pixels.float() - pixels).abs().mean() < 2
    linear = decode(base.as_float().pixels, "srgb")
    dark = linear.amax(0) < 0.4
    ratio = (shown.pixels.float()[:, dark] / linear[:, dark]).median()
    assert ratio == pytest.approx(1.0, rel=0.02), "what is no highlight stays"
    assert shown.pixels.max() > 1.5
    assert read(tmp_path / "out" / "a.avif").state.transfer == "pq"


def test_settings_of_the_output_can_be_changed() -> None:
    pipe = parse(PHOTO, "p.yaml")
    with pytest.raises(RestorekitError, match="headroom is for ultrahdr"):
        pipe.set("output", headroom=2.0)
    alone = pipe.with_outputs(pipe.outputs[:1]).set("output", headroom=2.0)
    assert alone.outputs[0].headroom == 2.0
