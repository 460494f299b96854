"""Stages of other packages, found by the entry point group ``restorekit.stages``: real little packages, installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

VIGNETTE = '''\
from typing import Annotated, ClassVar

import torch

from restorekit.frame import Frame, Region
from restorekit.stage import Stage, StageSpec, param, parameters


@parameters
class Vignette(Stage):
    """Darken towards the corners."""

    spec: ClassVar[StageSpec] = StageSpec(
        name="example.vignette",
        source="the fourth power law of lenses, shortened",
        accepts={"layout": ("rgb", "gray"), "transfer": ("linear",)},
    )
    strength: Annotated[float, param("Share of light lost in the corners", ge=0, le=1)] = 0.5
    radius_px: Annotated[float | None, param("Distance of the corners; none: as it is", unit="px", gt=0)] = None

    def apply(self, frame: Frame) -> Frame:
        region = self.place(frame)
        y = torch.arange(region.top, region.top + frame.height) - (region.full_height - 1) / 2
        x = torch.arange(frame.width) - (frame.width - 1) / 2
        corner = self.radius_px or ((region.full_height / 2) ** 2 + (frame.width / 2) ** 2) ** 0.5
        far = (y[:, None] ** 2 + x[None, :] ** 2) / corner**2
        return frame.with_pixels(frame.pixels * (1 - self.strength * far))

    def place(self, frame: Frame) -> Region:
        return frame.region or Region(0, frame.height)


@parameters
class Careless(Vignette):
    """Takes every strip for a whole image."""

    spec: ClassVar[StageSpec] = StageSpec(name="example.careless", source="a common mistake")

    def place(self, frame: Frame) -> Region:
        return Region(0, frame.height)
'''
LAWS = """\
from example_vignette import Careless, Vignette
from restorekit.testing import StageLaws, rgb_frame


class TestVignette(StageLaws):
    stages = (Vignette(), Vignette(strength=0.9, radius_px=40))
    frames = (rgb_frame(), rgb_frame(height=70, width=31))
    scales_with_exposure = True


class TestCareless(StageLaws):
    stages = (Careless(),)
    frames = (rgb_frame(),)
"""
PIPELINE = """\
restorekit: 1
input: {state: display-srgb}
stages:
  - color.decode
  - example.vignette: {strength: 0.8}
  - color.encode: {to: srgb}
output: {format: png}
"""
BROKEN = {"needy": "import no_such_library\n", "garbled": "def def\n", "angry": "raise RuntimeError('no licence')\n"}


def project(folder: Path, name: str, modules: Mapping[str, str], stages: Mapping[str, str]) -> Path:
    """The source tree of a package with modules and entry points for stages."""
    folder.mkdir(parents=True)
    for module, code in modules.items():
        (folder / f"{module}.py").write_text(code)
    lines = [
        "[build-system]",
        'requires = ["setuptools"]',
        'build-backend = "setuptools.build_meta"',
        "[project]",
        f'name = "{name}"',
        'version = "1.0"',
        'dependencies = ["restorekit"]',
        '[project.entry-points."restorekit.stages"]',
        *(f'"{stage}" = "{target}"' for stage, target in stages.items()),
        "[tool.setuptools]",
        f"py-modules = {json.dumps(list(modules))}",
    ]
    (folder / "pyproject.toml").write_text("\n".join(lines) + "\n")
    return folder


def installed(source: Path, target: Path) -> Path:
    """The folder into which pip installed a source tree, without a network."""
    options = ("--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check")
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(source)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return target


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugin")
    stages = {"example.vignette": "example_vignette:Vignette", "tone.exposure": "example_vignette:Vignette"}
    return installed(
        project(folder / "source", "example-vignette", {"example_vignette": VIGNETTE}, stages), folder / "site"
    )


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package whose modules fail in three ways, and an entry point for a class that is not there."""
    folder = tmp_path_factory.mktemp("broken")
    modules = {f"example_{name}": code for name, code in BROKEN.items()} | {"example_empty": ""}
    stages = {f"broken.{module.removeprefix('example_')}": f"{module}:Stage" for module in modules}
    return installed(project(folder / "source", "example-broken", modules, stages), folder / "site")


def python(site: Path, checkout: Path, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run Python with what was installed into a folder, and with the restorekit under test."""
    paths = [str(site), str(checkout), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def restorekit(site: Path, checkout: Path, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return python(site, checkout, "-m", "restorekit", *arguments, cwd=cwd)


def green(path: Path) -> NDArray[np.float64]:
    """The green plane ``[H,W]`` of a picture, 0..255."""
    picture = cv2.imread(str(path))
    assert picture is not None
    return picture[..., 1].astype(np.float64)


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def test_a_stage_of_another_package_is_listed_and_shown(plugin: Path, checkout: Path, tmp_path: Path) -> None:
    listed = restorekit(plugin, checkout, "stages", "list", "--json", cwd=tmp_path)
    summaries = {row["name"]: row["summary"] for row in json.loads(listed.stdout)}
    assert summaries["example.vignette"] == "from package example-vignette"
    assert "package" not in summaries["tone.exposure"], "a built-in stage cannot be replaced behind one's back"
    plain = restorekit(plugin, checkout, "stages", "list", cwd=tmp_path).stdout
    assert any(line.split()[:1] == ["example.vignette"] for line in lines(plain))
    text = restorekit(plugin, checkout, "stages", "show", "example.vignette", cwd=tmp_path).stdout
    assert {"takes: layout rgb or gray, transfer linear", "gives: as it came"} <= set(lines(text))
    assert "  strength = 0.5 [0..1]: Share of light lost in the corners" in lines(text)
    shown = json.loads(
        restorekit(plugin, checkout, "stages", "show", "example.vignette", "--json", cwd=tmp_path).stdout
    )
    assert shown["doc"] == "Darken towards the corners." and "fourth power" in shown["source"]
    strength, radius = shown["parameters"]
    assert (strength["name"], strength["default"], strength["minimum"], strength["maximum"]) == ("strength", 0.5, 0, 1)
    assert (radius["name"], radius["unit"], radius["doc"]) == (
        "radius_px",
        "px",
        "Distance of the corners; none: as it is",
    )


def test_its_parameters_are_checked_like_ours(plugin: Path, checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(PIPELINE)
    (tmp_path / "bad.yaml").write_text(
        "restorekit: 1\n"
        "input: {state: display-srgb}\n"
        "stages:\n"
        "  - color.decode\n"
        "  - example.vignette: {strenght: 0.8, radius_px: -3}\n"
        "  - example.vignete\n"
        "  - color.encode\n"
    )
    (tmp_path / "state.yaml").write_text(PIPELINE.replace("  - color.decode\n", ""))
    result = restorekit(plugin, checkout, "check", "good.yaml", "bad.yaml", "state.yaml", cwd=tmp_path)
    assert result.returncode == 2
    good, *problems = lines(result.stderr)
    assert good == "good.yaml: ok, 3 stages"
    assert (
        problems[0].startswith("bad.yaml:5:24: ")
        and "unknown parameter 'strenght'; did you mean 'strength'?" in problems[0]
    )
    assert (
        problems[1].startswith("bad.yaml:5:39: ") and "'radius_px'" in problems[1] and "greater than 0" in problems[1]
    )
    assert problems[2].startswith("bad.yaml:6:5: ") and "did you mean 'example.vignette'?" in problems[2]
    assert problems[3].startswith("state.yaml:4:5: example.vignette wants transfer linear")
    assert len(problems) == 4


def test_it_runs_in_a_pipeline(plugin: Path, checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "vignette.yaml").write_text(PIPELINE)
    cv2.imwrite(str(tmp_path / "gray.png"), np.full((600, 800, 3), 128, np.uint8))
    result = restorekit(plugin, checkout, "run", "vignette.yaml", "gray.png", "out.png", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    made = green(tmp_path / "out.png")
    assert abs(made[300, 400] - 128) <= 1, "the centre stays"
    light = ((128 / 255 + 0.055) / 1.055) ** 2.4
    y, x = np.mgrid[0:600, 0:800]
    expected = light * (1 - 0.8 * ((y - 299.5) ** 2 + (x - 399.5) ** 2) / 500**2)
    encoded = np.where(expected <= 0.0031308, 12.92 * expected, 1.055 * expected ** (1 / 2.4) - 0.055)
    assert np.abs(made - encoded * 255).max() < 1, "across all strips"
    changed = ("run", "vignette.yaml", "gray.png", "none.png", "--set", "example.vignette.strength=0")
    result = restorekit(plugin, checkout, *changed, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert np.abs(green(tmp_path / "none.png") - 128).max() <= 1


def test_the_laws_hold_for_it_and_catch_a_careless_one(plugin: Path, checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "test_laws.py").write_text(LAWS)
    options = ("-q", "-p", "no:cacheprovider", "-rA", "test_laws.py")
    result = python(plugin, checkout, "-m", "pytest", *options, cwd=tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr
    ended = [
        line.split(" - ")[0].split("::", 1) for line in lines(result.stdout) if line.startswith(("PASSED", "FAILED"))
    ]
    failed = [test for how, test in ended if how.startswith("FAILED")]
    passed = [test for how, test in ended if how.startswith("PASSED")]
    assert failed == ["TestCareless::test_strips_equal_the_whole_image"], "Careless() forgets where its strips lie"
    assert "in strips of 16: differs by" in result.stdout
    assert sum(test.startswith("TestVignette::") for test in passed) == 5


def test_a_broken_package_is_named_and_breaks_nothing_else(broken: Path, checkout: Path, tmp_path: Path) -> None:
    names = [f"broken.{name}" for name in (*BROKEN, "empty")]
    listed = restorekit(broken, checkout, "stages", "list", cwd=tmp_path)
    assert listed.returncode == 0 and listed.stderr == ""
    assert {line.split()[0] for line in lines(listed.stdout)} >= {*names, "tone.exposure"}
    stages = "".join(f"  - {name}\n" for name in names)
    (tmp_path / "broken.yaml").write_text(f"restorekit: 1\ninput: {{state: display-srgb}}\nstages:\n{stages}")
    result = restorekit(broken, checkout, "check", "photo-enhance", "broken.yaml", "raw-to-srgb", cwd=tmp_path)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    first, *problems, last = lines(result.stderr)
    assert first.startswith("photo-enhance: ok") and last.startswith("raw-to-srgb: ok")
    assert len(problems) == len(names)
    for number, (name, problem) in enumerate(zip(names, problems, strict=True), start=4):
        assert problem.startswith(
            f"broken.yaml:{number}:5: stage '{name}' (example_{name.removeprefix('broken.')}:Stage)"
        )
        assert "does not load: " in problem
    assert "no_such_library" in problems[0] and "no licence" in problems[2]


def test_showing_a_broken_stage_is_one_line(broken: Path, checkout: Path, tmp_path: Path) -> None:
    result = restorekit(broken, checkout, "stages", "show", "broken.angry", cwd=tmp_path)
    assert result.returncode == 2 and result.stdout == ""
    assert lines(result.stderr) == [
        "stage 'broken.angry' (example_angry:Stage) does not load: no licence; "
        "update or remove the package that brings it"
    ]


def test_the_schema_and_the_doctor_live_with_broken_packages(broken: Path, checkout: Path, tmp_path: Path) -> None:
    schema = restorekit(broken, checkout, "pipelines", "schema", cwd=tmp_path)
    assert schema.returncode == 0, schema.stderr
    definitions = json.loads(schema.stdout)["$defs"]
    assert "tone.filmic" in definitions and not any(name.startswith("broken.") for name in definitions)
    doctor = restorekit(broken, checkout, "doctor", cwd=tmp_path)
    assert doctor.returncode == 1 and "Traceback" not in doctor.stderr
    problems = [line for line in lines(doctor.stderr) if line.startswith("problem: ")]
    assert len(problems) == 4 and all("remove the package that brings it" in line for line in problems)
