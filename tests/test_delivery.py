"""The colour space of outputs: what `output.color` makes of the state of a pipeline, down to the pixels of files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from restorekit.color.primaries import conversion, transformed
from restorekit.color.transfer import decode
from restorekit.delivery import delivered, problems
from restorekit.edge import delivery
from restorekit.engine import render
from restorekit.errors import OutputError
from restorekit.facts import Metadata
from restorekit.frame import Frame
from restorekit.io.formats import Format, OutputSpec
from restorekit.io.write import quantiser, write
from restorekit.pipeline import InputSpec, Pipeline
from restorekit.stages.color import Decode, Encode
from restorekit.state import SHORTHANDS, ImageState, Primaries, Transfer

SRGB = SHORTHANDS["display-srgb"]


def display(primaries: Primaries, transfer: Transfer, layout: str = "rgb") -> ImageState:
    return SRGB.changed({"layout": layout, "primaries": primaries, "transfer": transfer})


@pytest.mark.parametrize(
    ("spec", "state", "source", "wanted"),
    [
        (OutputSpec(), SRGB, ("p3", "srgb"), SRGB),
        (OutputSpec(color="p3"), SRGB, None, display("p3", "srgb")),
        (OutputSpec(color="adobe-rgb"), SRGB, None, display("adobe-rgb", "gamma")),
        (OutputSpec(color="source"), SRGB, ("adobe-rgb", "gamma"), display("adobe-rgb", "gamma")),
        (OutputSpec(color="source"), SRGB, None, SRGB),
        (OutputSpec(color="p3"), display("bt709", "srgb", "gray"), None, display("bt709", "srgb", "gray")),
        (OutputSpec(format="png", bits=16, color="p3"), display("bt2020", "pq"), None, display("p3", "pq")),
        (OutputSpec(format="png", bits=16, color="source"), SRGB, ("bt2020", "pq"), display("bt2020", "pq")),
        (OutputSpec(format="jpeg", color="source"), SRGB, ("bt2020", "pq"), display("bt2020", "srgb")),
        (OutputSpec(format="avif", bits=10, color="pq"), SRGB, None, display("bt2020", "pq")),
        (OutputSpec(format="avif", bits=10, color="hlg"), display("p3", "linear"), None, display("bt2020", "hlg")),
        (
            OutputSpec(format="png", bits=16, color="pq"),
            display("bt709", "linear", "gray"),
            None,
            display("bt709", "pq", "gray"),
        ),
        (OutputSpec(format="png", color="srgb"), display("p3", "linear"), None, SRGB),
        (OutputSpec(format="webp", color="adobe-rgb"), display("p3", "linear"), None, display("adobe-rgb", "gamma")),
        (OutputSpec(format="tiff", color="p3"), display("bt709", "linear"), None, display("p3", "linear")),
        (OutputSpec(format="tiff", bits=8, color="p3"), display("bt709", "linear"), None, display("p3", "srgb")),
        (OutputSpec(format="png"), display("p3", "linear"), None, display("p3", "linear")),
        (OutputSpec(format="webp", color="pq"), display("p3", "linear"), None, display("bt2020", "pq")),
        (
            OutputSpec(format="png", color="srgb"),
            SHORTHANDS["scene-linear"],
            None,
            ImageState("rgb", "scene", "linear", "bt709"),
        ),
        (OutputSpec(format="png", color="source"), display("bt709", "linear"), None, SRGB),
        (OutputSpec(format="png", color="source"), display("bt709", "linear"), ("p3", "srgb"), display("p3", "srgb")),
        (OutputSpec(format="jpeg", color="source"), display("p3", "linear"), ("p3", "pq"), display("p3", "srgb")),
        (OutputSpec(format="jxl", color="source"), display("bt709", "linear"), ("p3", "srgb"), SRGB),
        (OutputSpec(format="ultrahdr"), display("bt709", "linear"), None, SRGB),
        (OutputSpec(format="ultrahdr"), display("bt2020", "linear"), None, display("p3", "srgb")),
        (OutputSpec(format="ultrahdr"), display("bt2020", "linear", "gray"), None, display("p3", "srgb")),
        (OutputSpec(format="ultrahdr", color="srgb"), display("bt2020", "linear"), None, SRGB),
        (OutputSpec(format="ultrahdr", color="source"), SRGB, ("p3", "srgb"), display("p3", "srgb")),
        (OutputSpec(format="ultrahdr", color="source"), SRGB, ("adobe-rgb", "gamma"), display("p3", "srgb")),
        (OutputSpec(format="ultrahdr"), display("bt2020", "pq"), None, display("bt2020", "pq")),
        (
            OutputSpec(format="exr", color="p3"),
            SHORTHANDS["scene-linear"],
            None,
            ImageState("rgb", "scene", "linear", "p3"),
        ),
    ],
)
def test_the_state_of_an_output(
    spec: OutputSpec, state: ImageState, source: tuple[Primaries, Transfer] | None, wanted: ImageState
) -> None:
    assert delivered(state, spec, source) == wanted


def test_writing_a_frame_of_another_space_is_refused(tmp_path: Path) -> None:
    """What a pipeline would convert, `write` alone does not, nor does it name it wrongly."""
    with pytest.raises(OutputError, match=r"a\.png: color: p3 is asked for, the frame is bt709"):
        write(Frame(torch.zeros(3, 2, 2), SRGB), tmp_path / "a.png", OutputSpec(format="png", color="p3"))
    assert list(tmp_path.iterdir()) == []


def test_what_has_no_colours_is_refused() -> None:
    assert "leave color out" in next(problems(OutputSpec(format="dng", color="p3"), SHORTHANDS["sensor-bayer"]))
    assert not list(problems(OutputSpec(format="png", color="p3"), SRGB))


def wide_frame() -> Frame:
    """Every 8-bit level in Display P3, greens that sRGB does not have among them."""
    ramp = torch.linspace(0, 1, 64)
    pixels = torch.stack([ramp.flip(0) * 0.2, ramp, ramp * 0.1])[:, None].expand(3, 20, 64)
    numbers = (pixels * 255).round().to(torch.uint8)
    return Frame(numbers, display("p3", "srgb"), metadata=Metadata(color=("p3", "srgb")))


@pytest.mark.parametrize("rows", [None, 16])
def test_colours_outside_srgb_come_through_an_srgb_pipeline(rows: int | None) -> None:
    """The edge and the delivery are unclamped: a P3 picture passes a pipeline that works in sRGB without a loss."""
    from restorekit.engine import Run

    frame = wide_frame()
    outputs = (OutputSpec(format="png", bits=8, color="source"), OutputSpec(format="png", bits=16, color="adobe-rgb"))
    pipeline = Pipeline([Decode(), Encode()], InputSpec(SRGB), outputs)
    (source,), (adobe,) = render(pipeline, [frame], quantiser, Run(strip_rows=rows))
    assert source.state == display("p3", "srgb")
    assert torch.equal(source.pixels, frame.pixels)
    linear = transformed(decode(frame.as_float().pixels, "srgb"), conversion("p3", "adobe-rgb"))
    got = decode(adobe.as_float().pixels, "gamma")
    assert adobe.state == display("adobe-rgb", "gamma")
    assert (got - linear.clamp(0, 1)).abs().max() < 1e-4


def test_an_unnamed_profile_is_written_back() -> None:
    """A picture in a profile that no state names is read as linear Rec. 2020, and its numbers come out again."""
    import numpy as np

    from restorekit.io import cms

    profile = _gamma_18_profile()
    numbers = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    linear = torch.from_numpy(cms.to_working(numbers, profile)).permute(2, 0, 1)
    frame = Frame(linear, cms.WORKING, metadata=Metadata(icc=profile))
    pipeline = Pipeline([Decode(), Encode()], InputSpec(SRGB), (OutputSpec(format="png", bits=8, color="source"),))
    ((result,),) = render(pipeline, [frame], quantiser)
    assert result.state.primaries == "icc"
    assert np.abs(result.pixels.permute(1, 2, 0).numpy().astype(int) - numbers).max() <= 1
    plain = replace(pipeline.outputs[0], color=None)
    ((srgb,),) = render(Pipeline(pipeline.steps, pipeline.input, (plain,)), [frame], quantiser)
    assert srgb.state == SRGB


def test_a_profile_that_colours_cannot_be_brought_to_is_left_out() -> None:
    """Profiles of scanners and cameras lead from their numbers to colours, not back."""
    one_way = bytearray(_gamma_18_profile())
    for curve in (b"rTRC", b"gTRC", b"bTRC"):
        one_way[one_way.index(curve)] = ord("x")
    stages, (told,) = delivery(SRGB, OutputSpec(color="source"), Metadata(icc=bytes(one_way)))
    assert stages == () and "input's rgb profile" in told


@pytest.mark.parametrize(
    ("format", "source", "said"),
    [
        ("jxl", ("p3", "srgb"), "jxl is written as bt709 srgb, the input is p3 srgb"),
        (
            "jpeg",
            ("bt2020", "pq"),
            "jpeg is written as bt2020 srgb, the input is bt2020 pq: what it has above",
        ),
        ("png", ("p3", "srgb"), ""),
    ],
)
def test_what_of_the_source_is_not_kept_is_said(format: Format, source: tuple[Primaries, Transfer], said: str) -> None:
    _, told = delivery(SRGB, OutputSpec(format=format, color="source"), Metadata(color=source))
    assert bool(told) == bool(said) and "".join(told).startswith(said)


def _gamma_18_profile() -> bytes:
    """Wide primaries of no standard with an exponent of 1.8, as a version 2 matrix profile."""
    import struct

    from restorekit.io.icc import profile_of

    profile = bytearray(profile_of(display("prophoto", "gamma")))
    at = profile.index(b"para")
    profile[at + 12 : at + 16] = struct.pack(">i", round(1.8 * 65536))
    return bytes(profile)
