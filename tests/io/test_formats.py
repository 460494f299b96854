"""The table of output formats, what each refuses, and the output item of pipeline files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pydantic
import pytest

from restorekit.errors import ParameterError
from restorekit.facts import Metadata
from restorekit.io.formats import FORMATS, OutputSpec, format_of_path, losses, refusal
from restorekit.state import ImageState

SRGB = ImageState()
SCENE = ImageState("rgb", "scene", "linear", "bt2020")
MOSAIC = ImageState("bayer", "sensor", "linear", "camera")


def test_the_table_needs_no_torch() -> None:
    heavy = "'torch', 'cv2', 'rawpy', 'imagecodecs', 'OpenEXR', 'tifffile'"
    code = f"import sys, restorekit.io.formats; sys.exit(any(name in sys.modules for name in ({heavy})))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_formats_are_told_by_extension() -> None:
    assert format_of_path("a.JPEG") == "jpeg"
    assert format_of_path(Path("x/y.tif")) == "tiff"
    assert format_of_path("a.exr") == "exr"
    assert [format_of_path(f"a.{name}") for name in ("webp", "avif", "jxl")] == ["webp", "avif", "jxl"]
    assert format_of_path("a.gif") is None
    assert format_of_path("a.jpg") == "jpeg", "of one picture; Ultra HDR files hold two and are asked for by name"
    assert FORMATS["ultrahdr"].extensions == FORMATS["jpeg"].extensions
    extensions = [extension for name, kind in FORMATS.items() if name != "ultrahdr" for extension in kind.extensions]
    assert len(set(extensions)) == len(extensions)


@pytest.mark.parametrize(
    ("name", "bits", "state"),
    [
        ("jpeg", None, SRGB),
        ("jpeg", 8, SRGB.changed({"layout": "gray", "primaries": "p3"})),
        ("png", 16, SRGB.changed({"transfer": "pq", "primaries": "bt2020"})),
        ("tiff", 16, SRGB.changed({"transfer": "linear"})),
        ("exr", 16, SCENE),
        ("hdr", None, SCENE),
        ("ultrahdr", None, SRGB.changed({"primaries": "p3"})),
        ("exr", 32, ImageState("gray", "display", "linear", "bt709")),
        ("dng", None, MOSAIC),
        ("tiff", 32, SCENE),
        ("tiff", 32, SRGB.changed({"transfer": "linear", "primaries": "p3"})),
        ("webp", None, SRGB.changed({"primaries": "icc"})),
        ("avif", 10, SRGB.changed({"transfer": "hlg", "primaries": "p3"})),
        ("avif", 8, SRGB.changed({"transfer": "gamma", "primaries": "adobe-rgb"})),
        ("jxl", None, SRGB),
        ("jxl", 16, SRGB.changed({"transfer": "linear"})),
    ],
)
def test_what_a_format_holds(name: str, bits: int | None, state: ImageState) -> None:
    assert refusal(name, bits, state) is None


@pytest.mark.parametrize(
    ("name", "bits", "state", "cure"),
    [
        ("jpeg", 16, SRGB, "8 bits"),
        ("jpeg", None, SCENE, "tone-mapping"),
        ("jpeg", None, SRGB.changed({"transfer": "linear"}), "color.encode"),
        ("jpeg", None, SRGB.changed({"transfer": "pq"}), "write png"),
        ("png", None, SRGB.changed({"transfer": "pq"}), "bits: 16"),
        ("tiff", 8, SRGB.changed({"transfer": "linear"}), "bits: 16"),
        ("tiff", None, SRGB.changed({"primaries": "camera"}), "color.camera_matrix"),
        ("png", None, SRGB.changed({"primaries": "ap1"}), "color: srgb"),
        ("png", 16, SRGB.changed({"transfer": "pq", "primaries": "prophoto"}), "color: bt2020"),
        ("avif", None, SRGB.changed({"transfer": "pq"}), "bits: 10"),
        ("avif", 16, SRGB, "8, 10 or 12 bits"),
        ("avif", 12, SRGB.changed({"transfer": "linear"}), "color.encode"),
        ("jxl", None, SRGB.changed({"primaries": "p3"}), "set output: {color: srgb}"),
        ("jxl", None, SRGB.changed({"transfer": "gamma", "primaries": "adobe-rgb"}), "set output: {color: srgb}"),
        ("jxl", 16, SRGB, "bits: 8"),
        ("ultrahdr", None, SCENE, "tone-mapping"),
        ("ultrahdr", None, SRGB.changed({"layout": "gray"}), "color.to_rgb"),
        ("ultrahdr", None, SRGB.changed({"primaries": "bt2020"}), "color: srgb"),
        ("hdr", None, SRGB, "color.decode"),
        ("hdr", None, SRGB.changed({"transfer": "pq"}), "write png or avif"),
        ("hdr", None, SCENE.changed({"primaries": "ap1"}), "color: srgb"),
        ("jxl", None, SRGB.changed({"primaries": "icc"}), "set output: {color: srgb}"),
        ("tiff", None, SCENE, "bits: 32"),
        ("tiff", 32, SRGB.changed({"transfer": "pq"}), "write png or avif"),
        ("exr", None, SRGB.changed({"transfer": "linear", "primaries": "icc"}), "color: srgb"),
        ("exr", None, SRGB, "color.decode"),
        ("exr", None, MOSAIC, "raw.demosaic"),
        ("exr", None, MOSAIC.changed({"layout": "rgb"}), "raw.black_level"),
        ("tiff", None, MOSAIC.changed({"reference": "scene"}), "raw.demosaic"),
        ("dng", None, SRGB, "exr"),
    ],
)
def test_what_a_format_refuses_names_the_cure(name: str, bits: int | None, state: ImageState, cure: str) -> None:
    said = refusal(name, bits, state)
    assert said is not None
    assert cure in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "name", ["{stem}", "{stem}_linear", "a.b {stem}.{stem}", "{{{stem}}}", "plain", "\u00e9t\u00e9"]
)
def test_names_that_pass_make_a_file_name(name: str) -> None:
    made = OutputSpec(name=name).name.format(stem="IMG_1")
    assert Path(made).name == made


def test_a_choice_that_a_format_lacks_is_told_with_those_it_has() -> None:
    with pytest.raises(ParameterError, match=r"parameter 'bits': must be 8 for jpeg, got 16"):
        OutputSpec(format="jpeg", bits=16)
    with pytest.raises(ParameterError, match=r"parameter 'compression': must be fast or small for png, got 'zip'"):
        OutputSpec(format="png", compression="zip")


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_transparency_that_is_lost_is_told(name: str) -> None:
    spec = OutputSpec(format=name)  # type: ignore[arg-type]
    assert losses(spec, False) == ()
    said = losses(spec, True)
    assert [text.split()[0] for text in said] == ([name] if name in ("jpeg", "ultrahdr", "hdr", "dng") else [])
    assert all("write png" in text and "\n" not in text for text in said)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_metadata_that_is_lost_is_told_with_formats_that_keep_it(name: str) -> None:
    spec = OutputSpec(format=name)  # type: ignore[arg-type]
    assert losses(spec, False, Metadata()) == ()
    for block, word in (("xmp", "XMP"), ("iptc", "IPTC")):
        said = losses(spec, False, Metadata(**{block: b"x"}))
        assert [word in text for text in said] == ([] if block in FORMATS[name].metadata else [True])
        assert all("write jpeg" in text and "\n" not in text for text in said)


def test_exif_that_is_lost_is_told() -> None:
    """EXR keeps what it can say by its own attributes."""
    lost = [name for name in FORMATS if losses(OutputSpec(format=name), False, Metadata(exif=b"x"))]  # type: ignore[arg-type]
    assert lost == ["hdr"]


def test_gain_maps_that_many_programs_do_not_apply_are_told() -> None:
    assert losses(OutputSpec(format="ultrahdr"), False, longest_px=8192) == ()
    (said,) = losses(OutputSpec(format="ultrahdr"), False, longest_px=8193)
    assert "8192 px" in said and "\n" not in said
    assert losses(OutputSpec(), False, longest_px=9000) == ()


def test_blocks_without_room_are_told() -> None:
    large = bytes(70_000)
    (said,) = losses(OutputSpec(), False, Metadata(exif=large))
    assert (
        said
        == "jpeg has no room for the EXIF block of 70000 bytes, the maker note is left out first; "
        + said.partition("; ")[2]
    )
    assert "png" in said and "jpeg" not in said.partition("; ")[2]
    assert "dropped" in losses(OutputSpec(), False, Metadata(iptc=large))[0]
    assert losses(OutputSpec(), False, Metadata(xmp=large)) == ()
    assert losses(OutputSpec(format="tiff"), False, Metadata(exif=large, xmp=large, iptc=large)) == ()


def test_output_items_know_from_under_its_yaml_name() -> None:
    adapter = pydantic.TypeAdapter(OutputSpec)
    spec = adapter.validate_python({"format": "exr", "from": "scene", "bits": 32})
    assert spec == OutputSpec(format="exr", from_="scene", bits=32)
    assert (spec.extension, spec.depth) == (".exr", 32)
    assert adapter.validate_python(spec.as_dict()) == spec
    assert "from" in adapter.json_schema()["properties"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"format": "gif"},
        {"format": "jpeg", "bits": 16},
        {"quality": 0},
        {"format": "exr", "compression": "deflate"},
        {"name": "../{stem}"},
        {"name": "{date}"},
        {"name": "{stem"},
        {"name": "{stem!s}"},
        {"name": "{stem!z}"},
        {"name": "{stem:5}"},
        {"name": "{stem:{stem}}"},
        {"name": "{stem[0]}"},
        {"name": "{stem.format}"},
        {"name": "{}"},
        {"name": ""},
        {"name": " "},
        {"name": ".."},
        {"name": ".{stem}"},
        {"name": "a\n{stem}"},
        {"name": "{stem}\0"},
        {"naem": "x"},
    ],
)
def test_wrong_output_items_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(pydantic.ValidationError):
        pydantic.TypeAdapter(OutputSpec).validate_python(wrong)
