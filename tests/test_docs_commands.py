"""Every command of the documentation runs, on small files of the names that stand there; so does its Python.

What would train, measure for long, download, or need files of others is parsed only.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

import restorekit as rk
from restorekit.cli import app, main

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

PARSED_ONLY = re.compile(
    r"restorekit (train|models (import|download)|web)|MODEL|FOLDER|TARGETS|_xN|hat\.|rlfn\.x[24]|checkpoint"
    r"|runs/mine|datasets check /data| PIPELINE | A B "
)
"""Commands of others' weights, placeholders, and those that take long or do not end."""


def commands() -> Iterator[tuple[str, str]]:
    """The page and text of every ``restorekit`` command in a block of code."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8") if page.is_file() else ""
        blocks = re.findall(r"^```sh\n(.*?)^```", text, re.S | re.M) + re.findall(r"^ {4}restorekit .*\n", text, re.M)
        for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
            command = re.sub(r"\s{2,}(#|[a-z]).*", "", line.strip())
            if command.startswith("restorekit ") and "--install-completion" not in command:
                yield page.name, command


COMMANDS = sorted(set(commands()))


def photo(path: Path, seed: int = 0, gain: float = 1.0, size: tuple[int, int] = (72, 56)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(30, 220, (7, 9, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(noise).resize(size)) * gain
    Image.fromarray(smooth.clip(0, 255).astype(np.uint8)).save(path)


def raw(path: Path, seed: int = 0, gain: float = 1.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(100, 900, (48, 64))
    mosaic = (64 + (noise - 64) * gain).clip(0, 1023).astype(np.uint16)
    exposure = rk.Exposure(time_s=0.01 * gain, iso=100.0, f_number=4.0)
    camera = rk.read(ROOT / "docs" / "sample" / "lake.dng").camera
    frame = rk.Frame.from_bayer(
        mosaic, pattern="RGGB", black=64, white=1023, neutral=(0.5, 1.0, 0.6), exposure=exposure, camera=camera
    )
    rk.write(frame, path)


def light(path: Path, seed: int = 0) -> None:
    pixels = np.random.default_rng(seed).random((3, 24, 32), dtype=np.float32) * 8
    import torch

    rk.write(rk.Frame(torch.from_numpy(pixels), rk.ImageState("rgb", "scene", "linear", "bt2020")), path)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small files under all the names that the documentation uses."""
    folder = tmp_path_factory.mktemp("docs")
    for name in ("photos", "in", "web", "renderings", "Set5", "Kodak24", "classic5"):
        photo(folder / name / "one.png"), photo(folder / name / "two.png", 1)
    for index, gain in enumerate((0.4, 1.0, 1.8)):
        photo(folder / "PHOTOS" / f"{index}.jpg", 2, gain), photo(folder / "PHOTOS" / f"{index + 3}.jpg", 2, gain)
        photo(folder / "brackets" / "one" / f"{index}.jpg", 2, gain)
        photo(folder / f"{'abc'[index]}.jpg", 2, gain)
        raw(folder / "raws" / "one" / f"{index}.dng", 3, gain)
    raw(folder / "shoot" / "one.dng")
    raw(folder / "a.dng")
    for place in ("pairs/scene", "pair"):
        raw(folder / place / "short.dng", 4, 0.25), raw(folder / place / "long.dng", 4, 1.0)
    for index, name in enumerate(("a.png", "b.png", "kodim23.png", "kodim05.png", "kodim04.png", "page.png")):
        photo(folder / name, index)
    photo(folder / "parrot.png"), photo(folder / "motocross.png"), photo(folder / "quality-10.jpg")
    light(folder / "merged.exr"), light(folder / "truth.exr", 1), light(folder / "light.exr")
    photo(folder / "out" / "lake.png"), photo(folder / "out" / "soft.png", 1), photo(folder / "out" / "small.png")
    for name in ("mine.yaml", "out/my-look.yaml"):
        shutil.copy(ROOT / "pipelines" / "raw-to-srgb.yaml", folder / name)
    raw(folder / "docs" / "sample" / "lake.dng")
    photo(folder / "docs" / "images" / "lake.jpg")
    return folder


def arguments(command: str) -> list[str]:
    """What a shell would pass on, without what it sends to files."""
    words = shlex.split(command)
    return words[1 : words.index(">")] if ">" in words else words[1:]


def test_the_documentation_has_commands() -> None:
    if not (ROOT / "docs").is_dir():
        pytest.skip("this test reads the source tree")
    assert len(COMMANDS) > 50 and sum(PARSED_ONLY.search(command) is None for _, command in COMMANDS) > 30


def outside_out(folder: Path) -> set[Path]:
    """The files of a folder but those in ``out/``, which Git ignores."""
    return {path for path in folder.rglob("*") if path.is_file() and path.relative_to(folder).parts[0] != "out"}


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[f"{page}:{command}" for page, command in COMMANDS])
def test_a_command_of_the_documentation_works(
    page: str,
    command: str,
    files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = arguments(command)
    if PARSED_ONLY.search(command):
        group = typer.main.get_command(app)
        while hasattr(group, "commands") and given and not given[0].startswith("-"):
            group = group.commands[given.pop(0)]
        group.make_context(command, [re.sub(r"^N$", "2", word) for word in given], resilient_parsing=not given)
        return
    shutil.copytree(files, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(sys, "argv", ["restorekit", *given])
    before = outside_out(tmp_path / "work")
    try:
        main()
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    assert code == 0, capsys.readouterr().err
    assert page != "tutorial.md" or outside_out(tmp_path / "work") == before


def python_blocks() -> Iterator[tuple[str, str]]:
    """The page and text of every block of Python that stands alone."""
    for name in ("tutorial.md", "howto.md"):
        page = ROOT / "docs" / name
        text = page.read_text(encoding="utf-8") if page.is_file() else ""
        yield from ((name, block) for block in re.findall(r"^```python\n(.*?)^```", text, re.S | re.M))


@pytest.mark.parametrize(("page", "text"), python_blocks())
def test_python_of_the_documentation_works(
    page: str, text: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("docs", "out"):
        shutil.copytree(files / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    source = tmp_path / f"{page}.py"
    source.write_text(text, encoding="utf-8")
    before = outside_out(tmp_path)
    done = subprocess.run([sys.executable, source], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert page != "tutorial.md" or outside_out(tmp_path) == before
