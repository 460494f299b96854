"""The doctor names what is wrong with its cure; what is optional and absent is a note and no problem."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from restorekit import bundled, device, doctor
from restorekit.cli import app
from restorekit.io import limits
from restorekit.zoo import cards

GPU = "GPU 0: NVIDIA H200 (UUID: GPU-1)\n"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of the user."""
    monkeypatch.setenv("RESTOREKIT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def problems(check: Any) -> list[str]:
    return [finding.text for finding in check() if finding.problem]


def notes(check: Any) -> list[str]:
    return [finding.text for finding in check() if not finding.problem]


def failing(monkeypatch: pytest.MonkeyPatch, module: str, error: Exception) -> None:
    """Let a module fail to load."""
    load = importlib.import_module

    def stand_in(name: str, package: str | None = None) -> Any:
        if name == module:
            raise error
        return load(name, package)

    monkeypatch.setattr(importlib, "import_module", stand_in)


def test_nothing_is_wrong_here() -> None:
    result = CliRunner().invoke(app, ["doctor", "--json"])
    told = json.loads(result.stdout)
    assert result.exit_code == 0 and told["problems"] == [], told
    assert {"restorekit", "torch"} <= told["versions"].keys() and "processor" in told["machine"]


def test_problems_decide_the_exit_code_and_notes_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [doctor.Finding("an extra is absent", problem=False)]
    monkeypatch.setattr(doctor, "findings", lambda: found)
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0 and result.output.startswith(
        "no problems found\nnote: an extra is absent\nrestorekit "
    )
    found.append(doctor.Finding("torch is broken"))
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert result.output.startswith("1 problem found\nproblem: torch is broken\nnote: an extra is absent\nrestorekit ")
    told = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    assert (told["problems"], told["notes"]) == (["torch is broken"], ["an extra is absent"])


def test_a_library_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, "cv2", ImportError("libGL.so.1: cannot open\nshared object"))
    (said,) = problems(doctor.findings)
    assert said.startswith("cv2 does not load (libGL.so.1: cannot open shared object)") and "pip install" in said
    assert doctor.machine() == {}


@pytest.mark.parametrize(
    ("there", "limits", "good"),
    [
        ("2.6", ">=2.6,<3", True),
        ("2.6.0+cpu", "<3,>=2.6", True),
        ("3.0", ">=2.6,<3", False),
        ("2.10", ">=2.9", True),
        ("2.5.9", ">=2.6", False),
        ("2026.3.6", ">=2025.11.11", True),
        ("1.0", "", True),
    ],
)
def test_versions_keep_limits(there: str, limits: str, good: bool) -> None:
    assert doctor._within(there, limits) == good


def test_packages_of_a_wrong_version_and_missing_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["torch<2,>=1", "no-such-package>=1", 'no-such-extra>=1; extra == "heif"', 'numpy>=999; extra == "x"']
    monkeypatch.setattr(doctor, "requires", lambda name: wanted)
    old, missing, extra = problems(doctor._versions)
    assert old.startswith("torch is ") and old.endswith("restorekit needs <2,>=1; run: pip install 'torch<2,>=1'")
    assert missing == "the package no-such-package is missing; run: pip install 'no-such-package>=1'"
    assert "numpy>=999" in extra


@pytest.mark.parametrize(("part", "format"), [("AVIF", "AVIF"), ("JPEGXL", "JPEG XL"), ("JPEG8", "JPEG")])
def test_codecs_that_are_missing(part: str, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems(doctor._codecs) == []
    monkeypatch.setattr(f"imagecodecs.{part}", SimpleNamespace(available=False))
    (said,) = problems(doctor._codecs)
    assert f"without {part}, which {format} needs; " in said and "imagecodecs" in said


def test_extras_that_are_absent_are_notes_and_broken_ones_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "EXTRAS", (("heif", "no_such_module", "reads HEIC"), ("lens", "json", "lenses")))
    failing(monkeypatch, "json", OSError("liblensfun.so: undefined symbol"))
    (absent,) = notes(doctor._extras)
    assert "extra heif (reads HEIC) is not installed" in absent and "pip install 'restorekit[heif]'" in absent
    (broken,) = problems(doctor._extras)
    assert "extra lens (lenses) does not load (liblensfun.so: undefined symbol)" in broken


def test_pipelines_without_weights_are_notes_with_the_command() -> None:
    said = {text.split()[2]: text for text in notes(doctor._pipelines)}
    assert "models import checkpoint.npz --as maxim." in said["deblur"]
    assert "denoise" not in said and problems(doctor._pipelines) == []


def test_weights_that_should_have_come_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = tmp_path / "models"
    models.mkdir()
    for path in bundled.folder("models").glob("drunet.jpeg.*"):
        if path.suffix != ".safetensors":
            shutil.copy(path, models)
    folder = bundled.folder
    monkeypatch.setattr(bundled, "folder", lambda kind: models if kind == "models" else folder(kind))
    (said,) = problems(doctor._weights)
    assert said.startswith("the weights of drunet.jpeg, which come with restorekit, are missing in ")
    assert "pip install --force-reinstall restorekit" in said


def test_damaged_weights_and_cards(home: Path) -> None:
    (home / "models").mkdir(parents=True)
    source = bundled.folder("models") / "drunet.jpeg.safetensors"
    content = bytearray(source.read_bytes())
    content[-1] ^= 1
    (home / "models" / source.name).write_bytes(content)
    (home / "models" / "mine.x2.yaml").write_text("summary: [")
    wrong, unreadable = sorted(problems(doctor._weights), key=lambda text: "mine.x2" in text)
    assert wrong.startswith(str(home)) and "models import" in wrong
    assert "mine.x2.yaml" in unreadable and "mend or remove it" in unreadable


def test_folders_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems(doctor._folders) == []
    (tmp_path / "file").touch()
    monkeypatch.setenv("RESTOREKIT_HOME", str(tmp_path / "file" / "home"))
    (said,) = problems(doctor._folders)
    assert said == (
        f"{tmp_path / 'file'}: may not be written; change its permissions, or set RESTOREKIT_HOME to another folder"
    )
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert len(problems(doctor._folders)) == 2

    def none() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(tempfile, "gettempdir", none)
    assert "TMPDIR" in problems(doctor._folders)[0]


def test_a_full_disk_and_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=300 << 20))
    said = problems(doctor._folders)
    assert len(said) == 2 and all("only 0.3 GiB are free in" in text for text in said)
    assert "RESTOREKIT_HOME" in said[1]
    monkeypatch.setattr(limits, "available_memory", lambda: 500 << 20)
    (memory,) = problems(doctor._memory)
    assert "only 0.5 GiB of memory are free" in memory and "close other programs" in memory
    monkeypatch.setattr(limits, "available_memory", lambda: None)
    assert problems(doctor._memory) == []


@pytest.mark.parametrize(
    ("built_for", "told", "says"),
    [
        (None, (0, GPU), "NVIDIA H200: is not used, torch"),
        ("12.8", (0, GPU), "built for CUDA 12.8; update the driver"),
        (None, (9, "no driver"), ""),
        (None, (0, "No devices found\n"), ""),
    ],
)
def test_a_gpu_that_torch_does_not_see(
    built_for: str | None, told: tuple[int, str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built_for)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=told[0], stdout=told[1]))
    said = problems(doctor._accelerator)
    assert len(said) == bool(says) and says in "".join(said)


def test_no_gpu_is_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert device.unseen_gpu() is None
    assert cards.home().name == "home"
