"""``restorekit eval``: the table and JSON on stdout, words on stderr, exit codes 0, 1 and 2."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from restorekit.architectures import create
from restorekit.cli import main
from restorekit.metrics.lpips import SqueezeLpips

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def restorekit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The program: exit code, stdout and stderr."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["restorekit", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three references: one of them gray, one with alpha."""
    result = tmp_path / "set3"
    result.mkdir()
    pixels = np.random.default_rng(0).integers(60, 200, (48, 52, 4), dtype=np.uint8)
    Image.fromarray(pixels[..., :3]).resize((40, 40)).save(result / "a.png")
    Image.fromarray(pixels[..., 0]).resize((41, 39)).save(result / "b.bmp")
    Image.fromarray(pixels).save(result / "c.png")
    return result


def test_a_table_with_the_mean(restorekit: Run, folder: Path) -> None:
    code, out, err = restorekit("eval", "bicubic", folder, "--scale", 2)
    assert code == 0 and "bicubic x2: 3 references of" in err and "c.png: alpha is ignored" in err
    heading, *rows = [line.split() for line in out.splitlines()]
    assert heading == ["image", "PSNR-Y", "dB", "SSIM-Y", "PSNR-RGB", "dB"]
    assert [row[0] for row in rows] == ["a.png", "b.bmp", "c.png", "mean"]
    values = np.array([row[1:] for row in rows], dtype=float)
    assert values[3] == pytest.approx(values[:3].mean(0), abs=0.006)
    assert len({len(line) for line in out.splitlines()}) == 1


def test_json_has_the_same_numbers(restorekit: Run, folder: Path) -> None:
    code, out, _ = restorekit("eval", "bicubic", folder, "--scale", 3, "--json")
    found = json.loads(out)
    assert code == 0 and (found["model"], found["scale"], found["failed"]) == ("bicubic", 3, [])
    assert [Path(image["image"]).name for image in found["images"]] == ["a.png", "b.bmp", "c.png"]
    assert (found["images"][0]["width"], found["images"][0]["height"]) == (39, 39)
    for name in ("psnr_y_db", "ssim_y", "psnr_rgb_db"):
        assert found["mean"][name] == pytest.approx(np.mean([image[name] for image in found["images"]]))
    again = restorekit("eval", "bicubic", folder, "--scale", 3, "--json")
    assert again[1] == out


def test_equal_pictures_are_called_so(restorekit: Run, tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), (90, 120, 30)).save(tmp_path / "flat.png")
    code, out, _ = restorekit("eval", "bicubic", tmp_path, "--scale", 2)
    assert code == 0 and out.splitlines()[-1].split() == ["mean", "equal", "1.0000", "equal"]
    assert json.loads(restorekit("eval", "bicubic", tmp_path, "--scale", 2, "--json")[1])["mean"]["psnr_y_db"] is None


def test_one_broken_file_is_named_and_the_exit_code_is_1(restorekit: Run, folder: Path) -> None:
    (folder / "b.bmp").write_bytes(b"BM not a picture")
    code, out, err = restorekit("eval", "bicubic", folder, "--scale", 2)
    assert code == 1 and [line.split()[0] for line in out.splitlines()] == ["image", "a.png", "c.png", "mean"]
    (failure,) = [line for line in err.splitlines() if line.startswith("failed")]
    assert str(folder / "b.bmp") in failure and "1 of 3 failed" in err
    code, out, _ = restorekit("eval", "bicubic", folder, "--scale", 2, "--json")
    found = json.loads(out)
    assert code == 1 and len(found["images"]) == 2 and found["failed"][0]["image"] == str(folder / "b.bmp")


def test_lpips_is_a_column_more(restorekit: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESTOREKIT_HOME", str(tmp_path / "home"))
    code, out, err = restorekit("eval", "bicubic", folder, "--scale", 2, "--lpips", "squeeze")
    assert (code, out) == (2, "") and err.count("\n") == 1 and str(tmp_path / "home" / "lpips") in err
    weights = tmp_path / "home" / "lpips"
    weights.mkdir(parents=True)
    state = SqueezeLpips().state_dict()
    torch.save({f"lin{i}.model.1.weight": state[f"heads.{i}.weight"] for i in range(7)}, weights / "lin.pth")
    torch.save({name: state[name] for name in state if name.startswith("features")}, weights / "features.pth")
    code, out, _ = restorekit("eval", "bicubic", folder, "--scale", 2, "--lpips", "squeeze")
    assert code == 0 and out.splitlines()[0].endswith("LPIPS-squeeze")
    code, out, _ = restorekit("eval", "bicubic", folder, "--scale", 2, "--lpips", "squeeze", "--json")
    assert code == 0 and json.loads(out)["lpips_network"] == "squeeze" and "lpips" in json.loads(out)["images"][0]


@pytest.mark.parametrize("network", ["alex", "vgg"])
def test_a_package_that_is_missing_is_one_line(
    restorekit: Run, folder: Path, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)  # type: ignore[arg-type]
    code, out, err = restorekit("eval", "bicubic", folder, "--scale", 2, "--lpips", network)
    assert (code, out) == (2, "") and err.count("\n") == 1 and "pip install lpips" in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("bicubic", "set3"), "bicubic needs a scale: --scale 2, 3 or 4"),
        (("bicubic", "none", "--scale", "2"), "none: is no folder"),
        (("bicubic", ".", "--scale", "2"), "holds no readable image"),
    ],
)
def test_what_cannot_start_is_one_line_and_exit_code_2(
    restorekit: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], says: str
) -> None:
    monkeypatch.chdir(folder.parent)
    code, out, err = restorekit("eval", *arguments)
    assert (code, out) == (2, "") and err.count("\n") == 1 and says in err


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """A file of weights of a small network that nobody trained; it doubles the size."""
    torch.manual_seed(0)
    cfsr = create("cfsr", embed_dim=8, depths=(1,), dw_size=3, mlp_ratio=2.0, upsampler="pixelshuffledirect")
    path = tmp_path / "small.pth"
    torch.save({"params": cfsr.state_dict()}, path)
    return path


def test_a_file_of_weights_is_a_model_and_knows_its_scale(restorekit: Run, folder: Path, network: Path) -> None:
    code, out, err = restorekit("eval", network, folder, "--device", "cpu")
    assert code == 0 and f"{network} x2: 3 references" in err and "fp32, cpu" in err
    assert restorekit("eval", network, folder, "--scale", 2, "--tile", 64, "--device", "cpu")[1] == out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--scale", "4"), "--scale 4: "),
        (("--tile", "7"), "--tile 7: use auto, off"),
        (("--device", "cuda:99"), "is not on this machine"),
    ],
    ids=" ".join,
)
def test_options_that_a_model_cannot_follow_are_refused(
    restorekit: Run, folder: Path, network: Path, options: tuple[str, ...], says: str
) -> None:
    code, out, err = restorekit("eval", network, folder, *options)
    assert (code, out) == (2, "") and err.count("\n") == 1 and says in err


def test_a_model_that_is_not_known_is_one_line(restorekit: Run, folder: Path) -> None:
    code, out, err = restorekit("eval", "hat.x5", folder)
    assert (code, out) == (2, "") and err.count("\n") == 1 and "hat.x" in err
