"""``restorekit train``: times, refusals in one line, and an end in good order when a signal comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("lightning")
pytest.importorskip("tensorboard")

from restorekit.cli import app
from restorekit.cli.train import seconds
from restorekit.errors import RestorekitError
from restorekit.zoo import checkpoint

RECIPE = """
summary: A small one
architecture: rlfn
config: {feature_channels: 8, upscale: 2, blocks: 1}
data: own pictures
degradation: [{bicubic: {scale: 2}}]
patch: 16
batch: 2
steps: 4
learning_rate: 1.0e-3
precision: fp32
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "photos" / "a.png"), noise)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return tmp_path


def trained(place: Path, *more: str, recipe: str = "recipe.yaml") -> str:
    """What the command says; RestorekitError is raised as it comes."""
    path = str(place / recipe) if recipe.endswith(".yaml") else recipe
    arguments = ["train", path, "--data", str(place / "photos"), "--out", str(place / "out"), "--device", "cpu", *more]
    done = CliRunner().invoke(app, arguments)
    if isinstance(done.exception, RestorekitError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize(("text", "expected"), [("90s", 90), ("9m", 540), ("1.5h", 5400), (" 2 m ", 120)])
def test_times(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "9", "m", "-1m", "0s", "1d", "nan s", "9 minutes"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(RestorekitError, match="90s, 9m or"):
        seconds(text)


def test_runs_go_on_and_tell(place: Path) -> None:
    assert "1 steps, 3 are left; run again to go on" in trained(place, "--time-budget", "0.001s")
    said = trained(place, "--checkpoint-every", "2")
    assert [line.split(":")[0] for line in said.splitlines()[:2]] == ["step 2 of 4", "step 4 of 4"]
    assert "4 steps" in said and "left" not in said
    (place / "out" / "weights.safetensors").unlink()
    trained(place)
    assert checkpoint.metadata(place / "out" / "weights.safetensors")["step"] == "4"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("{scale: 2}", "{scale: 20}", "degradation bicubic: scale: "),
        ("{scale: 2}", "{scal: 2}", "degradation bicubic: scal: "),
        ("bicubic", "bycubic", "did you mean 'bicubic'"),
        ("rlfn", "rlfm", "rlfm"),
        ("blocks: 1", "blocks: 1, width: 3", "width"),
        ("steps: 4", "steps: 4\nloss: {l3: 1}", "l3"),
        ("steps: 4", "steps: 4\nbetas: [2, 3]", "betas.0"),
        ("steps: 4", "steps: 4\npixels: y", "pixels: y: has 1 channels, the network takes 3"),
        ("steps: 4", "steps: 4\nscale: 3", "reduces 2 times"),
        ("patch: 16", "patch: 48", r"a\.png: is 64x64 px"),
        ("precision: fp32", "precision: fp16", "CPUs"),
        ("1.0e-3", "1.0e+30", "not finite"),
    ],
)
def test_what_cannot_be_trained_is_told_in_one_line_and_leaves_the_folder_free(
    place: Path, old: str, new: str, said: str
) -> None:
    (place / "recipe.yaml").write_text(RECIPE.replace(old, new))
    with pytest.raises(RestorekitError, match=said) as caught:
        trained(place)
    assert "\n" not in str(caught.value)
    (place / "recipe.yaml").write_text(RECIPE)
    assert "4 steps" in trained(place)


def test_another_recipe_is_named(place: Path) -> None:
    trained(place)
    with pytest.raises(RestorekitError, match=r"another recipe \(steps is different in recipe\.yaml\)"):
        trained(place, "--steps", "9")


def test_broken_checkpoint_is_named(place: Path) -> None:
    trained(place, "--time-budget", "0.001s")
    path = place / "out" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(RestorekitError, match=r"last\.ckpt: cannot be gone on from .*delete it") as caught:
        trained(place)
    assert "\n" not in str(caught.value)


def test_bad_picture_ends_training_and_what_was_reached_is_kept(place: Path) -> None:
    (place / "recipe.yaml").write_text(RECIPE.replace("steps: 4", "steps: 400").replace("batch: 2", "batch: 1"))
    for number in range(9):
        (place / "photos" / f"b{number}.png").write_bytes((place / "photos" / "a.png").read_bytes())
    (place / "photos" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    for workers in ("0", "1"):
        with pytest.raises(RestorekitError, match=r"^\S*broken\.png: ") as caught:
            trained(place, "--workers", workers)
        assert "\n" not in str(caught.value)
    assert int(checkpoint.metadata(place / "out" / "weights.safetensors")["step"]) > 0


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_training_after_the_step(place: Path, number: signal.Signals) -> None:
    (place / "recipe.yaml").write_text(RECIPE.replace("steps: 4", "steps: 1000000"))
    arguments = [
        "train",
        "recipe.yaml",
        "--data",
        "photos",
        "--out",
        "out",
        "--device",
        "cpu",
        "--checkpoint-every",
        "5",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "restorekit", *arguments], cwd=place, stderr=subprocess.PIPE, text=True
    )
    weights = place / "out" / "weights.safetensors"
    until = time.monotonic() + 120
    while not weights.is_file() and time.monotonic() < until:
        time.sleep(0.1)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "are left; run again to go on" in said.splitlines()[-1]
    assert int(checkpoint.metadata(weights)["step"]) >= 5
