"""What an installation brings: the restorekit package with its data, and no other importable name."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

DATA_FOLDERS = ("pipelines", "models", "datasets")
LOOK_AROUND = """
import importlib.util, json, restorekit
from restorekit.bundled import folder
other = [importlib.util.find_spec(name) for name in ("pipelines", "models", "datasets", "apps", "tests")]
print(json.dumps({
    "file": restorekit.__file__,
    "pipelines": sorted(path.name for path in folder("pipelines").glob("*.yaml")),
    "other": [str(place) for spec in other if spec for place in spec.submodule_search_locations or [spec.origin]],
}))
"""


def python(executable: Path | str, *arguments: str, cwd: Path | str) -> str:
    """What a Python program prints; its errors fail the test with their text."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([executable, *arguments], cwd=cwd, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def source(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree without builds and environments, so that building leaves the tree alone."""
    if not (checkout / "pyproject.toml").is_file():
        pytest.skip("these tests build the package from its source tree")
    copy = tmp_path_factory.mktemp("source") / "tree"
    generated = shutil.ignore_patterns(".*", "build", "dist", "out", "*.egg-info", "__pycache__")
    shutil.copytree(checkout, copy, ignore=generated)
    return copy


@pytest.fixture(scope="module")
def distributions(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the sdist and with the wheel that was built from that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    python(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), cwd=source)
    return folder


def environment(place: Path, *what: str) -> Path:
    """The interpreter of a new environment in which ``what`` is installed and our dependencies can be imported.

    They come by a .pth file. Python does not process .pth files of folders added that way, so an editable
    restorekit among the dependencies stays out.
    """
    python(sys.executable, "-m", "venv", "--without-pip", str(place), cwd="/")
    interpreter = place / ("Scripts" if os.name == "nt" else "bin") / "python"
    site = sysconfig.get_path("purelib", vars={"base": str(place), "platbase": str(place)})
    Path(site, "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--ignore-installed")
    python(sys.executable, "-m", "pip", "--python", str(interpreter), "install", *options, *what, cwd="/")
    return interpreter


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(
    request: pytest.FixtureRequest, source: Path, distributions: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """An interpreter with restorekit installed, and the folder that its package must come from."""
    place = tmp_path_factory.mktemp(request.param)
    if request.param == "editable":
        return environment(place, "--editable", str(source)), source
    (wheel,) = distributions.glob("*.whl")
    return environment(place, str(wheel)), place


@pytest.mark.parametrize("where", ["filesystem root", "source tree"])
def test_only_restorekit_is_importable_and_finds_its_pipelines(
    installed: tuple[Path, Path], source: Path, where: str
) -> None:
    interpreter, home = installed
    cwd = Path(source.anchor) if where == "filesystem root" else source
    found = json.loads(python(interpreter, "-P", "-c", LOOK_AROUND, cwd=cwd))
    assert Path(found["file"]).is_relative_to(home)
    assert found["pipelines"] == sorted(path.name for path in (source / "pipelines").glob("*.yaml"))
    assert found["pipelines"]
    assert not [place for place in found["other"] if Path(place).is_relative_to(source)]
    assert not [place for place in found["other"] if Path(place).is_relative_to(home)]


@pytest.mark.parametrize("where", ["filesystem root", "source tree"])
def test_command_runs(installed: tuple[Path, Path], source: Path, where: str) -> None:
    interpreter, _ = installed
    cwd = Path(source.anchor) if where == "filesystem root" else source
    version = python(interpreter, "-c", "import restorekit; print(restorekit.__version__)", cwd=cwd).strip()
    assert version in python(interpreter, "-m", "restorekit", "--version", cwd=cwd)
    assert version in python(interpreter.with_name("restorekit"), "--version", cwd=cwd)


def test_wheel_holds_the_package_alone(source: Path, distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"restorekit"}
    modules = {path.relative_to(source).as_posix() for path in (source / "restorekit").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == modules
    assert {"restorekit/py.typed", "restorekit/comparison_page.html"} <= set(names)


def test_sdist_can_be_built_and_tested(source: Path, distributions: Path) -> None:
    (sdist,) = distributions.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    wanted = {"pyproject.toml", "README.md", "LICENSE", "constraints.txt"}
    for folder in ("restorekit", "tests", *DATA_FOLDERS):
        files = (path for path in (source / folder).rglob("*") if path.is_file() and path.suffix != ".pyc")
        wanted |= {path.relative_to(source).as_posix() for path in files}
    assert wanted <= names


def test_every_package_and_data_folder_is_listed(checkout: Path) -> None:
    project = checkout / "pyproject.toml"
    if not project.is_file():
        pytest.skip("this test reads the source tree")
    listed = tomllib.loads(project.read_text())["tool"]["setuptools"]
    code = {
        ".".join(path.parent.relative_to(checkout).parts) for path in (checkout / "restorekit").rglob("__init__.py")
    }
    data = {f"restorekit._bundled.{name}" for name in DATA_FOLDERS if any((checkout / name).glob("*.*"))}
    assert set(listed["packages"]) == code | data
    assert set(listed["package-dir"]) == {"restorekit"} | data


def test_what_is_imported_is_declared(checkout: Path) -> None:
    project = checkout / "pyproject.toml"
    if not project.is_file():
        pytest.skip("this test reads the source tree")
    described = tomllib.loads(project.read_text())["project"]
    extras = {name: texts for name, texts in described["optional-dependencies"].items() if name != "dev"}
    requirements = [*described["dependencies"], *(text for texts in extras.values() for text in texts)]
    declared = {re.split(r"[<>=!~;\[ ]", text)[0].lower() for text in requirements}
    imported = set()
    for path in (checkout / "restorekit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
    distributions = {"pycvvdp": ["cvvdp"], **packages_distributions()}  # the one that is not installed for tests
    for name in imported - sys.stdlib_module_names - {"restorekit"}:
        brought_by = {owner.lower().replace("_", "-") for owner in (name, *distributions.get(name, ()))}
        assert brought_by & declared, f"{name} is imported; add what brings it to the dependencies"


def test_extras_are_installed_by_one_command_everywhere(checkout: Path) -> None:
    """``'.[web]'`` would need the checkout as the current folder; messages have the command from one place."""
    if not (checkout / "docs").is_dir():
        pytest.skip("this test reads the source tree")
    extras = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "optional-dependencies"
    ]
    pages = [checkout / "README.md", *(checkout / "docs").glob("*.md")]
    said = [extra for page in pages for extra in re.findall(r"(\S*)\[([\w,]+)\]'", page.read_text(encoding="utf-8"))]
    assert said and {name for name, extra in said if extra != "dev"} == {"'restorekit"}
    assert {part for _, extra in said for part in extra.split(",")} <= extras.keys()
    sources = (checkout / "restorekit").rglob("*.py")
    written = [path.name for path in sources if "pip install 'restorekit[" in path.read_text(encoding="utf-8")]
    assert written == ["errors.py"]
