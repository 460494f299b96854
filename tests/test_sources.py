"""Which files of folders are inputs, what is passed over, and what their pictures are called."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from restorekit.cli import app
from restorekit.errors import InputError, RestorekitError
from restorekit.frame import Frame
from restorekit.io import write
from restorekit.jobs import plan
from restorekit.pipeline import Pipeline
from restorekit.state import ImageState

CONVERT = "restorekit: 1\nname: convert\ninput: {state: sensor-bayer}\nstages: []\noutput: {format: dng}\n"


def photo(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 200, (30, 40, 3), dtype=np.uint8)).save(path)
    return path


def raw(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    mosaic = torch.randint(600, 4000, (40, 60), dtype=torch.int32, generator=torch.manual_seed(1)).numpy()
    frame = Frame.from_bayer(mosaic.astype(np.uint16), pattern="RGGB", black=512, white=16383, neutral=(0.5, 1, 0.7))
    write(frame, path)
    return path


@pytest.fixture
def convert(tmp_path: Path) -> Path:
    """A pipeline that starts from RAW and does as little as can be."""
    path = tmp_path / "convert.yaml"
    path.write_text(CONVERT)
    return path


def run(pipeline: str | Path, *paths: str | Path) -> tuple[int, list[str]]:
    done = CliRunner().invoke(app, ["run", *map(str, (pipeline, *paths))])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stderr.splitlines()


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_photographs_beside_raw_files_are_passed_over(convert: Path, options: tuple[str], tmp_path: Path) -> None:
    for name in ("IMG_1", "IMG_2"):
        raw(tmp_path / "in" / f"{name}.dng")
        photo(tmp_path / "in" / f"{name}.JPG")
    code, said = run(convert, tmp_path / "in", tmp_path / "out", *options)
    assert code == 0 and "passed over  2 finished pictures: pipeline convert starts from RAW" in said
    assert not any(".JPG" in line for line in said)
    assert sum(line.startswith(("done", "would make")) for line in said) == 2


def test_a_photograph_that_is_named_is_an_error_for_a_raw_pipeline(convert: Path, tmp_path: Path) -> None:
    files = raw(tmp_path / "a.dng"), photo(tmp_path / "a.jpg")
    for options, word in (((), "failed"), (("--dry-run",), "cannot use")):
        code, said = run(convert, *files, tmp_path / "out", *options)
        assert code == 1 and not any(line.startswith("passed over") for line in said)
        assert any(line.startswith(f"{word}  {files[1]}: the pipeline starts from RAW") for line in said), said
    assert (tmp_path / "out" / "a.dng").exists()


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
def test_a_folder_of_photographs_is_no_input_of_a_raw_pipeline(
    convert: Path, options: tuple[str], tmp_path: Path
) -> None:
    first = photo(tmp_path / "in" / "a.jpg")
    photo(tmp_path / "in" / "b.jpg")
    code, said = run(convert, tmp_path / "in", tmp_path / "out", *options)
    assert code == 1
    (line,) = (line for line in said if line.startswith(("failed", "cannot use")))
    assert f"{first}: the pipeline starts from RAW" in line and "photo-enhance" in line


def test_what_is_called_a_photograph_but_holds_a_mosaic_is_taken(convert: Path, tmp_path: Path) -> None:
    raw(tmp_path / "in" / "a.dng").rename(tmp_path / "in" / "a.tif")
    code, said = run(convert, tmp_path / "in", tmp_path / "out")
    assert code == 0 and (tmp_path / "out" / "a.dng").exists(), said


@pytest.mark.parametrize("folder", [True, False])
def test_photographs_given_to_a_pipeline_for_raw_brackets(folder: bool, tmp_path: Path) -> None:
    """What is wrong is said before anything is asked about times, exposures and groups."""
    files = [photo(tmp_path / "in" / f"{k}.jpg", k) for k in range(2)]
    code, said = run("bracket-to-dng", *([tmp_path / "in"] if folder else files), tmp_path / "out")
    failures = [line for line in said if line.startswith("failed")]
    assert code == 1 and len(failures) == (1 if folder else 2)
    assert all("starts from RAW" in line and "bracket-to-hdr" in line for line in failures)


def test_a_file_that_cannot_be_read_fails_alone(tmp_path: Path) -> None:
    photo(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").symlink_to("nowhere")
    (tmp_path / "in" / "c.png").symlink_to("c.png")
    photo(tmp_path / "in" / "d.png")
    code, said = run("photo-resize", tmp_path / "in", tmp_path / "out")
    assert code == 1 and said[-1] == "2 done, 2 failed"
    failures = [line for line in said if line.startswith("failed")]
    for name, line in zip("bc", failures, strict=True):
        assert f"{tmp_path / 'in' / name}.png: cannot be read" in line and "check the path" in line


def test_a_folder_that_cannot_be_read_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo(tmp_path / "in" / "a.png")
    photo(tmp_path / "in" / "closed" / "b.png")
    photo(tmp_path / "in" / "open" / "c.png")
    listed = Path.iterdir

    def iterdir(folder: Path) -> Iterator[Path]:
        if folder.name == "closed":
            raise PermissionError(13, "Permission denied", str(folder))
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    code, said = run("photo-resize", tmp_path / "in", tmp_path / "out", "--recursive")
    assert code == 1 and said[-1] == "2 done, 1 failed"
    assert f"failed  {tmp_path / 'in' / 'closed'}: cannot be read (Permission denied); check its permissions" in said


def plans(*arguments: str | Path) -> list[str]:
    """What brackets would be called, without their extension."""
    code, said = run("bracket-fusion", *arguments, "--dry-run")
    assert code == 0, said
    return [Path(line.rpartition(" -> ")[2]).stem for line in said if line.startswith("would make")]


def test_brackets_by_folder_are_called_for_their_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("in", "in/church", "in/lake.2"):
        for k in range(2):
            photo(tmp_path / folder / f"{k}.png", k)
    source, out = tmp_path / "in", tmp_path / "out"
    assert plans(source, out, "--group", "folder") == ["in", "church", "lake.2"]
    assert plans(source / "church", out, "--group", "folder") == ["church"]
    files = [*source.glob("church/*.png"), *source.glob("lake.2/*.png")]
    assert plans(*files, out, "--group", "folder") == ["church", "lake.2"]
    monkeypatch.chdir(source / "church")
    assert plans(".", out, "--group", "folder") == plans("0.png", "1.png", out, "--group", "folder") == ["church"]


def test_files_that_are_named_are_called_for_the_first(tmp_path: Path) -> None:
    files = [photo(tmp_path / "in" / f"{k}.png", k) for k in range(2)]
    assert plans(*files, tmp_path / "out") == ["0"]


def test_a_dry_run_ends_with_totals(convert: Path, tmp_path: Path) -> None:
    for name in "abc":
        raw(tmp_path / "in" / f"{name}.dng")
    photo(tmp_path / "in" / "a.jpg")
    run(convert, tmp_path / "in" / "a.dng", tmp_path / "out")
    (tmp_path / "out" / "b.dng").write_bytes(b"of another")
    named = photo(tmp_path / "d.jpg")
    _, said = run(convert, tmp_path / "in", named, tmp_path / "out", "--dry-run")
    assert said[-1] == "1 to make, 1 up to date, 1 kept, 1 cannot be used, 1 passed over"
    _, said = run(convert, tmp_path / "in" / "c.dng", tmp_path / "out", "--dry-run")
    assert said[-1] == "1 to make"


def test_an_empty_folder_is_told_what_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match=r"no readable image found.*; readable are RAW, DNG, JPEG[^.]*$"):
        plan(Pipeline.load("photo-resize"), [tmp_path / "in"], tmp_path / "out")


@pytest.mark.parametrize("options", [(), ("--group", "2")])
def test_what_is_no_picture_is_named_before_the_pictures_of_its_bracket(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    for k in (1, 3):
        photo(tmp_path / "in" / f"{k}.png", k)
    (tmp_path / "in" / "2.jpg").write_text("a page that was downloaded in place of a picture")
    code, said = run("bracket-to-hdr", tmp_path / "in", tmp_path / "out", *options, "--dry-run")
    assert code == 1
    (line,) = (line for line in said if line.startswith("cannot use"))
    assert f"{tmp_path / 'in' / '2.jpg'}: is no JPG file but text" in line


def test_light_given_to_a_pipeline_for_photos_is_sent_to_the_one_for_displays(tmp_path: Path) -> None:
    light = Frame(torch.rand(3, 8, 8), ImageState(reference="scene", transfer="linear"))
    code, said = run("photo-enhance", write(light, tmp_path / "a.exr"), tmp_path / "out")
    assert code == 1 and "use hdr-to-display" in said[0]


def test_an_exr_file_of_a_pipeline_for_displays_names_the_one_for_light(tmp_path: Path) -> None:
    with pytest.raises(RestorekitError, match=r"b\.exr: exr holds linear light.*; .*use raw-to-linear-exr$"):
        plan(Pipeline.load("raw-to-srgb"), [raw(tmp_path / "a.dng")], tmp_path / "b.exr")
    with pytest.raises(RestorekitError, match=r"or write png or tiff$"):
        plan(Pipeline.load("photo-enhance"), [photo(tmp_path / "a.jpg")], tmp_path / "b.exr")
