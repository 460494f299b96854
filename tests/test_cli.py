"""The command line is a thin layer: exit codes, words on stderr, JSON on stdout, no torch for lists."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def restorekit(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "restorekit", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def photo(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 200, (48, 64, 3), dtype=np.uint8)).save(path)
    return path


@pytest.mark.parametrize(
    "arguments", [("--help",), ("pipelines", "list"), ("stages", "list"), ("models", "list"), ("run", "--help")]
)
def test_lists_and_help_import_no_torch(arguments: tuple[str, ...]) -> None:
    code = (
        "import sys; sys.argv = ['restorekit', *sys.argv[1:]]\n"
        "from restorekit.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout or arguments[0] == "models"


def test_run_makes_pictures_and_a_report(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "a.png")
    result = restorekit("run", "photo-enhance", tmp_path / "in", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "" and "1 done" in result.stderr
    assert json.loads((tmp_path / "out" / "report.json").read_text())["pipeline"] == "photo-enhance"
    again = restorekit("run", "photo-enhance", tmp_path / "in", tmp_path / "out")
    assert again.returncode == 0 and "up to date" in again.stderr


def test_a_report_that_cannot_be_written_stops_the_run_before_it_starts(tmp_path: Path) -> None:
    source = photo(tmp_path / "in" / "a.png")
    result = restorekit("run", "photo-resize", source, tmp_path / "out", "--report", tmp_path / "none" / "r.json")
    assert result.returncode == 2 and "there is no folder" in result.stderr
    assert not list((tmp_path / "out").glob("*.jpg"))
    inside = restorekit("run", "photo-resize", source, tmp_path / "out", "--report", tmp_path / "out" / "r.json")
    assert inside.returncode == 0, inside.stderr


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "a.png")
    result = restorekit("run", "photo-resize", tmp_path / "in", tmp_path / "out", "--dry-run")
    assert result.returncode == 0 and "would make" in result.stderr and not (tmp_path / "out").exists()


def test_set_changes_the_result(tmp_path: Path) -> None:
    source = photo(tmp_path / "a.png")
    result = restorekit("run", "photo-resize", source, tmp_path / "b.png", "--set", "geometry.resize.long_edge=32")
    assert result.returncode == 0, result.stderr
    with Image.open(tmp_path / "b.png") as image:
        assert image.size == (32, 24)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run", "photo-enhnce", "a.png", "out"), "did you mean 'photo-enhance'?"),
        (("run", "photo-enhance", "none.png", "out"), "none.png: no such file"),
        (("run", "photo-enhance", "a.png"), "INPUT"),
        (("run", "photo-enhance", "a.png", "out", "--set", "tone.exposure.evv=1"), "did you mean 'ev'?"),
        (("run", "photo-enhance", "a.png", "out", "--set", "nonsense"), "STAGE.PARAM=VALUE"),
        (("run", "photo-resize", "a.png", "out", "--set", "resize.long_edge=9"), "did you mean 'geometry.resize'?"),
        (("run", "photo-resize", "a.png", "out", "--set", "geometry.resize=9"), "write geometry.resize.PARAM=VALUE"),
        (("run", "photo-resize", "a.png", "out", "--set", "geometry.resize.size=9"), "; it has width, height,"),
        (("run", "photo-enhance", "a.png", "out", "--device", "cuda:9"), "cuda:9"),
        (("run", "bracket-fusion", "a.png", "out", "--ev", "a,b"), "-2,0,2"),
        (("run", "bracket-fusion", "a.png", "out", "--group", "1"), "--group"),
        (("run", "photo-enhance", "a.png", "out", "--tile", "3"), "--tile"),
        (("run", "photo-enhance", "a.png", "out", "--group", "3"), "single images"),
        (("run", "photo-enhance", "a.png", "out", "--decode-timeout", "3"), "--isolate"),
        (("run", "photo-enhance", "a.png", "out", "--max-megapixels", "0"), "--max-megapixels"),
        (("stages", "show", "tone.filmc"), "did you mean 'tone.filmic'?"),
        (("check", "bad.yaml"), "bad.yaml:3:5:"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    arguments: tuple[str, ...], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photo(tmp_path / "a.png")
    (tmp_path / "bad.yaml").write_text("restorekit: 1\nstages:\n  - tone.flmic\ninput: {state: scene-linear}\n")
    result = restorekit(*arguments)
    assert result.returncode == 2, result.stderr
    assert says in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_the_size_that_is_decoded_can_be_limited(tmp_path: Path) -> None:
    source = photo(tmp_path / "a.png")
    arguments = ("run", "photo-resize", source, tmp_path / "b.png", "--max-megapixels")
    result = restorekit(*arguments, "0.001")
    assert result.returncode == 1 and "is 64x48" in result.stderr and "use --max-megapixels 1" in result.stderr
    assert restorekit(*arguments, "1", "--isolate").returncode == 0


def test_failed_images_exit_1(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").write_bytes(b"")
    result = restorekit("run", "photo-enhance", tmp_path / "in", tmp_path / "out")
    assert result.returncode == 1 and "b.png" in result.stderr and (tmp_path / "out" / "a.jpg").exists()


def test_explain_and_show(tmp_path: Path) -> None:
    text = restorekit("explain", "raw-to-srgb").stdout
    assert "raw.demosaic" in text and "method=menon" in text
    explained = json.loads(restorekit("explain", "raw-to-srgb", "--json").stdout)
    assert explained["stages"][0] == {"raw.black_level": {}}
    shown = json.loads(restorekit("stages", "show", "tone.exposure", "--json").stdout)
    assert {row["name"] for row in shown["parameters"]} >= {"ev", "mode"}
    copy = tmp_path / "mine.yaml"
    copy.write_text(restorekit("pipelines", "show", "raw-to-srgb").stdout)
    assert restorekit("check", copy).returncode == 0


def test_pipelines_without_weights_stand_last_with_what_brings_them() -> None:
    lines = restorekit("pipelines", "list").stdout.splitlines()
    lacking = {line.split()[0]: line for line in lines if "no weights" in line}
    assert [line.split()[0] for line in lines[-len(lacking) :]] == list(lacking)
    assert "restorekit models show maxim.dehaze_outdoor" in lacking["dehaze"]
    assert "no weights of rrformer.reflection; there are none yet" in lacking["remove-reflection"]
    assert {"denoise", "raw-to-srgb", "night-photo"} & lacking.keys() == set()
    rows = json.loads(restorekit("pipelines", "list", "--json").stdout)
    assert {row["name"] for row in rows if row["lacks"]} == lacking.keys()


def test_check_tells_of_models_without_weights() -> None:
    checked = restorekit("check", "dehaze", "denoise")
    assert checked.returncode == 0
    first, warning, last = checked.stderr.splitlines()
    assert first.startswith("dehaze: ok") and last.startswith("denoise: ok")
    assert "model maxim.dehaze_outdoor has no weights installed; get" in warning


def test_compare(tmp_path: Path) -> None:
    first, second = photo(tmp_path / "a.png"), photo(tmp_path / "b.png")
    same = json.loads(restorekit("compare", first, second, "--json").stdout)
    assert same["psnr_db"] is None and same["ssim"] == pytest.approx(1.0) and same["ciede2000_mean"] == 0
    Image.new("RGB", (10, 10)).save(tmp_path / "c.png")
    assert "sizes differ" in restorekit("compare", first, tmp_path / "c.png").stderr
    one = restorekit("compare", first, tmp_path)
    assert one.returncode == 2 and one.stderr == f"{tmp_path}: is a folder; compare takes two files\n"
    both = restorekit("compare", tmp_path, tmp_path, "--html", tmp_path / "page.html")
    assert f"restorekit eval input {tmp_path} --inputs {tmp_path}" in both.stderr and both.returncode == 2


def test_doctor_finds_nothing_wrong_here() -> None:
    result = restorekit("doctor")
    assert result.returncode == 0, result.stderr
    assert "torch" in result.stdout


def test_tiles_do_not_change_the_result(tmp_path: Path) -> None:
    source = photo(tmp_path / "a.png")
    for tile in ("auto", "off", "16"):
        result = restorekit("run", "photo-enhance", source, tmp_path / f"{tile}.png", "--tile", tile)
        assert result.returncode == 0, result.stderr
    pictures = [np.asarray(Image.open(tmp_path / f"{tile}.png")) for tile in ("auto", "off", "16")]
    assert all(np.abs(other.astype(int) - pictures[0]).max() <= 1 for other in pictures[1:])
