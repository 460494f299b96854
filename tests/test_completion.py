"""Tab completes names of pipelines, models, stages and parameters, at once and without torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from restorekit import bundled, registry
from restorekit.cli import completion
from restorekit.json_schema import describe
from restorekit.zoo import cards

PROGRAM = (
    "import sys\n"
    "from restorekit.cli import app\n"
    "try: app(prog_name='restorekit')\n"
    "finally: print('torch' in sys.modules, file=sys.stderr)"
)


def completed(line: str, cwd: Path | None = None) -> list[str]:
    """What bash is told when Tab is pressed at the end of a line."""
    words = line.split(" ")
    environment = {
        **os.environ,
        "_RESTOREKIT_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.stderr == "False\n", done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("restorekit run upscale-", ["upscale-x2", "upscale-x3", "upscale-x4"]),
        ("restorekit explain den", ["denoise"]),
        ("restorekit check raw-to-srgb den", ["denoise"]),
        ("restorekit pipelines show photo-", ["photo-enhance", "photo-resize"]),
        ("restorekit stages show tone.film", ["tone.filmic"]),
        ("restorekit models show hat.real", ["hat.real_sharper_x4", "hat.real_x4"]),
        ("restorekit models download hat.x2 hat.real_x", ["hat.real_x4"]),
        ("restorekit eval drunet.", ["drunet.camera", "drunet.denoise", "drunet.jpeg"]),
        ("restorekit eval bic", ["bicubic"]),
        ("restorekit run raw-to-srgb a.dng out --set tone.filmic.mid", ["tone.filmic.middle_gray="]),
        ("restorekit eval denoise Set5 --set restore.am", ["restore.amount="]),
        ("restorekit explain hdr-to-display --set scene.min", ["scene.min_ev="]),
        ("restorekit explain denoise --set restore.amount=1 --set restore.mod", ["restore.model="]),
        ("restorekit explain mine.yaml --set mine.wid", ["mine.width="]),
        ("restorekit explain none.yaml --set a", []),
        ("restorekit explain bad.yaml --set a", []),
        ("restorekit run mine.", []),  # the shell offers files then
    ],
)
def test_a_shell_completes(line: str, expected: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("restorekit: 1\nstages:\n  - geometry.resize: {id: mine}\n  - no.such\n  -\n")
    (tmp_path / "bad.yaml").write_text("stages: [")
    assert completed(line, tmp_path) == expected


def test_all_names_are_offered() -> None:
    assert [name for name, _ in completion.pipeline_names()] == list(bundled.pipelines())
    assert [name for name, _ in completion.stage_names()] == list(registry.stage_entries())
    assert completion.model_ids() == list(cards.files())
    assert all(said for _, said in completion.pipeline_names() + completion.stage_names())


@pytest.mark.parametrize("name", list(registry.BUILT_IN))
def test_parameters_read_from_the_source_are_those_of_the_stage(name: str) -> None:
    rows = describe(registry.stage_class(name))
    assert sorted(completion._parameters(name)) == sorted((str(row["name"]), str(row["doc"])) for row in rows)
