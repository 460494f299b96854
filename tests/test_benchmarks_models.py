"""Numbers of model cards are measured again by their own commands, and written without touching the rest."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from restorekit.zoo.card import Score, read_card


@pytest.fixture(scope="module")
def models(checkout: Path) -> ModuleType:
    """A program beside the package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(checkout / "benchmarks"))
        return importlib.import_module("models")


@pytest.mark.parametrize("measured", ["measured:\n  - set: A\n    psnr: 1.0\n  - set: B\n", ""])
@pytest.mark.parametrize("after", ["notes:\n  - One\n# The end.\n", ""])
def test_entries_are_written_and_all_else_stays(models: ModuleType, measured: str, after: str, tmp_path: Path) -> None:
    head = "# A card.\nsummary: 'Text: quoted'\narchitecture: cfsr\nconfig: {a: [1,  2]}\ntask: denoising\n"
    head += "trained_on: real\ndata: none\nlicence: MIT\n"
    entries = [{"set": "Set5", "psnr": 38.08, "ssim": 0.9607, "command": "restorekit eval a --sigma 25"}]
    written = models.with_measured(head + measured + after, entries)
    assert written.startswith(head) and written.endswith(after)
    (tmp_path / "a.yaml").write_text(written)
    assert read_card(tmp_path / "a.yaml").measured == (Score(**entries[0]),)
    assert models.with_measured(written, entries) == written


def test_a_number_is_stale_from_two_hundredths_on(models: ModuleType) -> None:
    good, bad = ([30.0, 29.98, 30.02], [29.97, 30.03, None])
    assert not any(models.is_stale(Score(set="A", psnr=psnr), {"psnr": 30.0}) for psnr in good)
    assert all(models.is_stale(Score(set="A", psnr=psnr), {"psnr": 30.0}) for psnr in bad)


def test_a_card_is_measured_by_its_task(
    models: ModuleType,
    tiny_models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RESTOREKIT_HOME", str(shutil.copytree(tiny_models, tmp_path / "home")))
    (tmp_path / "set5").mkdir()
    pixels = np.random.default_rng(0).integers(60, 200, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "set5" / "a.png")
    monkeypatch.setattr("sys.argv", ["models.py", str(tmp_path), "tiny.x2", "--write", "--device", "cpu"])
    with pytest.raises(SystemExit) as ended:
        models.main()
    assert ended.value.code == 1 and capsys.readouterr().out.startswith("stale  restorekit eval tiny.x2 SET5_FOLDER")
    (score,) = read_card(tmp_path / "home" / "models" / "tiny.x2.yaml").measured
    assert (score.set, score.command) == ("Set5", "restorekit eval tiny.x2 SET5_FOLDER")
    assert score.psnr and score.ssim and score.source == "fp32, cpu"
