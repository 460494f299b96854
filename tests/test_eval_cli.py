"""``restorekit eval``: the table and JSON on stdout, words on stderr, exit codes 0, 1 and 2."""

from __future__ import annotations

import json
import shlex
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
from restorekit.zoo import card

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
        (("bicubic", "set3"), "bicubic needs a scale; add --scale 2, 3 or 4"),
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


def test_a_model_is_measured_by_the_task_of_its_card(restorekit: Run, folder: Path, with_tiny_models: Path) -> None:
    code, out, err = restorekit("eval", "tiny.noise", folder, "--device", "cpu")
    assert code == 0 and "tiny.noise sigma 25: 3 references" in err
    assert out.startswith("image  PSNR-RGB dB  SSIM-RGB  PSNR-Y dB  SSIM-Y\n")
    assert restorekit("eval", "tiny.noise", folder, "--sigma", 25, "--device", "cpu")[1] == out
    assert restorekit("eval", "tiny.noise", folder, "--sigma", 25, "--seed", 1, "--device", "cpu")[1] != out
    code, out, err = restorekit("eval", "tiny.noise", folder, "--quality", 20, "--device", "cpu")
    assert code == 0 and "quality 20" in err and "PSNR-B dB" in out


def test_the_input_itself_is_measured(restorekit: Run, folder: Path) -> None:
    found = [restorekit("eval", "input", folder, "--sigma", sigma, "--json") for sigma in (5, 25)]
    assert [json.loads(out)["setting"] for _, out, _ in found] == ["sigma 5", "sigma 25"]
    near, far = (json.loads(out)["mean"]["psnr_rgb_db"] for _, out, _ in found)
    assert 34 < near < 35 and 20 < far < 21
    code, out, _ = restorekit("eval", "input", folder, "--degradation", "blur: {width: [2, 2]}")
    assert code == 0 and out.splitlines()[-1].startswith("mean")


def test_references_are_reflected_in_each_other(restorekit: Run, tmp_path: Path) -> None:
    """A black one alone stays black; beside a white one it may be lit, each time alike."""
    black = tmp_path / "black"
    black.mkdir()
    Image.new("RGB", (48, 48)).save(black / "0.png")
    command = "eval", "input", black, "--degradation", "reflection: {methods: [ceilnet]}", "--json"
    assert json.loads(restorekit(*command)[1])["images"][0]["psnr_rgb_db"] is None
    Image.new("RGB", (48, 48), "white").save(black / "1.png")
    found = [json.loads(restorekit(*command, "--seed", seed)[1])["images"][0] for seed in (0, 1, 2, 3, 4, 0)]
    assert found[0] == found[-1] and any(one["psnr_rgb_db"] is not None for one in found)


def test_json_has_what_a_card_says_of_it(restorekit: Run, folder: Path) -> None:
    """The entry fits the card, and its command gives the same numbers."""
    found = json.loads(restorekit("eval", "input", folder, "--sigma", 15, "--seed", 3, "--json")[1])
    entry = card.Score(**found["measured"])
    assert (entry.set, entry.setting) == ("set3", "sigma 15")
    assert entry.psnr == round(found["mean"]["psnr_rgb_db"], 2) and entry.ssim == round(found["mean"]["ssim_rgb"], 4)
    assert entry.command == "restorekit eval input SET3_FOLDER --sigma 15 --seed 3"
    again = shlex.split(entry.command.replace("SET3_FOLDER", str(folder)))[1:]
    assert json.loads(restorekit(*again, "--json")[1])["mean"] == found["mean"]
    upscaled = json.loads(restorekit("eval", "bicubic", folder, "--scale", 2, "--json")[1])["measured"]
    assert upscaled["command"] == "restorekit eval bicubic SET3_FOLDER --scale 2" and "setting" not in upscaled


def test_markdown_has_the_command_the_mean_and_every_picture(restorekit: Run, folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    _, out, _ = restorekit("eval", "bicubic", folder, "--scale", 2, "--markdown", page)
    lines = page.read_text().splitlines()
    assert f"    restorekit eval bicubic {folder} --scale 2" in lines
    rows = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    heading, _, mean, *images = rows
    assert heading == ["image", "PSNR-Y dB", "SSIM-Y", "PSNR-RGB dB"] and mean[0] == "mean of 3"
    assert [" ".join(row) for row in (*images, ["mean", *mean[1:]])] == [
        " ".join(line.split()) for line in out.splitlines()[1:]
    ]


def test_pictures_show_reference_input_and_result(restorekit: Run, folder: Path, tmp_path: Path) -> None:
    sheets = tmp_path / "sheets"
    code, *_ = restorekit("eval", "bicubic", folder, "--scale", 2, "--pictures", sheets)
    assert code == 0 and sorted(file.name for file in sheets.iterdir()) == [f"{name}_bicubic.png" for name in "abc"]
    page = np.asarray(Image.open(sheets / "a_bicubic.png"))
    original = np.asarray(Image.open(folder / "a.png"))
    assert (page[:40, :40] == original).all() and page.shape[2] == 3


def test_inputs_of_their_own_are_found_by_name(restorekit: Run, folder: Path, tmp_path: Path) -> None:
    inputs = tmp_path / "rain"
    inputs.mkdir()
    for path in folder.iterdir():
        Image.open(path).convert("RGB").save(inputs / f"{path.stem}.png")
    code, out, _ = restorekit("eval", "input", folder, "--inputs", inputs)
    assert code == 0 and out.splitlines()[-1].split() == ["mean", "equal", "1.0000", "equal", "1.0000"]
    for path in sorted(inputs.iterdir()):
        path.rename(inputs / f"{path.stem}-rain.png")
    code, out, err = restorekit("eval", "input", folder, "--inputs", inputs)
    assert (code, out) == (2, "") and err.count("\n") == 1 and "a-rain.png: has no target in" in err
    code, out, _ = restorekit("eval", "input", folder, "--inputs", inputs, "--pattern", "{stem}-rain", "--json")
    assert code == 0 and json.loads(out)["command"].endswith(f"--pattern '{{stem}}-rain' --inputs {inputs}")


def test_a_task_may_be_named_for_its_measures(restorekit: Run, folder: Path) -> None:
    code, out, _ = restorekit("eval", "input", folder, "--degradation", "low_light", "--task", "low-light", "--json")
    assert code == 0
    found = json.loads(out)
    assert list(found["mean"]) == ["psnr_rgb_db", "ssim_rgb", "psnr_corrected_db", "psnr_y_db", "ssim_y"]
    assert "--task low-light" in found["command"] and found["mean"]["psnr_corrected_db"] > found["mean"]["psnr_rgb_db"]


def test_a_pipeline_gives_the_numbers_of_its_model(restorekit: Run, folder: Path, with_tiny_models: Path) -> None:
    (folder / "b.bmp").unlink()  # pipelines keep gray pictures gray, models may colour them
    model = json.loads(restorekit("eval", "tiny.x2", folder, "--json", "--device", "cpu")[1])
    arguments = ("upscale-x2", folder, "--set", "restore.model=tiny.x2", "--device", "cpu")
    code, out, err = restorekit("eval", *arguments, "--json")
    assert code == 0 and "upscale-x2 x2: 2 references" in err and "upscale-x2: restore: " in err
    assert json.loads(out)["mean"] == pytest.approx(model["mean"], abs=0.01)
    file = with_tiny_models / "mine.yaml"
    file.write_text(
        "restorekit: 1\nname: mine\ninput: {state: display-srgb}\nstages:\n  - restore: {model: tiny.x2, amount: 0}\n"
        "output: {format: png}\n"
    )
    found, bicubic = (
        json.loads(restorekit("eval", *arguments, "--json")[1])["mean"]
        for arguments in ((file, folder), ("bicubic", folder, "--scale", 2))
    )
    assert found == pytest.approx(bicubic, abs=0.02), "without the model it is cubic convolution"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("input", "set3"), "input: does not tell what it is for; add --inputs FOLDER, or --sigma"),
        (("input", "set3", "--scale", "2", "--sigma", "25"), "name bicubic"),
        (("input", "set3", "--sigma", "25", "--quality", "10"), "--sigma and --quality: inputs are made in one way"),
        (("input", "set3", "--degradation", "fog"), "unknown degradation 'fog'"),
        (("input", "set3", "--sigma", "25", "--pattern", "{stem}x2"), "--pattern {stem}x2: "),
        (("input", "set3", "--sigma", "25", "--set", "a.b=1"), "input is no pipeline"),
        (("bicubic", "set3", "--scale", "2", "--sigma", "25"), "bicubic: enlarges 2 times, but the input (sigma 25)"),
        (("raw-to-srgb", "set3", "--sigma", "25"), "starts from bayer-sensor"),
        (("input", "set3", "--sigma", "25", "--markdown", "none/a.md"), "there is no folder none"),
        (("input", "set3", "--sigma", "25", "--pictures", "none/sheets"), "there is no folder none"),
        (("input", "set3", "--inputs", "none"), "none: is no folder"),
        (
            ("input", "set3", "--sigma", "25", "--task", "rain"),
            "--task rain: there is no such task; there are super-resolution, denoising, ",
        ),
    ],
)
def test_what_does_not_go_together_is_one_line(
    restorekit: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], says: str
) -> None:
    monkeypatch.chdir(folder.parent)
    code, out, err = restorekit("eval", *arguments)
    assert (code, out) == (2, "") and err.count("\n") == 1 and says in err
