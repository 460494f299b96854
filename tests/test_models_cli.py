"""``restorekit models``: weights go in checked and whole or not at all, and what was found is said."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open
from torch import Tensor

from restorekit import bundled
from restorekit.architectures import create
from restorekit.cli import main
from restorekit.zoo import cards, checkpoint

CFSR: dict[str, Any] = {
    "in_chans": 3, "embed_dim": 8, "depths": [1], "dw_size": 3, "mlp_ratio": 2, "upscale": 2,
    "upsampler": "pixelshuffledirect",
}  # fmt: skip


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        """The last line on stderr."""
        return self.err.splitlines()[-1]


Run = Callable[..., Done]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder, empty; two cards come with restorekit."""
    monkeypatch.setenv("RESTOREKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(bundled, "folder", lambda kind: tmp_path / "bundled")
    write_card(tmp_path, "small.x2", CFSR, 2, weights=told("Small_x2.pth", page="https://example.org/small"))
    write_card(
        tmp_path, "small.x4", {**CFSR, "upscale": 4}, 4, weights=told("Small_x4.pth", page="https://example.org")
    )
    return tmp_path / "home" / "models"


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*arguments: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["restorekit", "models", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        assert code is None or isinstance(code, int)
        texts = capsys.readouterr()
        return Done(code or 0, texts.out, texts.err)

    return command


def told(file: str, **more: Any) -> dict[str, Any]:
    return {"file": file, "licence": "MIT", **more}


def write_card(tmp_path: Path, id: str, config: Mapping[str, Any], scale: int, **more: Any) -> None:
    content = {
        "summary": f"A small one, x{scale}",
        "architecture": "cfsr",
        "config": dict(config),
        "task": "super-resolution",
        "scale": scale,
        "trained_on": "bicubic",
        "data": "DF2K",
        "licence": "Apache-2.0",
        **more,
    }
    path = tmp_path / "bundled" / f"{id}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(content))


def weights(seed: int = 0, **config: Any) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return create("cfsr", **{**CFSR, **config}).state_dict()


def saved(path: Path, state: Mapping[str, Tensor]) -> Path:
    torch.save({"params_ema": dict(state), "iter": 5}, path)
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_lists_say_what_is_there_and_what_brings_the_rest(run: Run, tmp_path: Path) -> None:
    write_card(tmp_path, "ours.x2", CFSR, 2)
    write_card(tmp_path, "web.x2", CFSR, 2, weights=told("w.pth", url="https://example.org/w", sha256="0" * 64))
    write_card(tmp_path, "jpeg.x1", {**CFSR, "upscale": 1, "upsampler": ""}, 1, task="jpeg")
    run("import", saved(tmp_path / "Small_x2.pth", weights()))
    rows = {row["id"]: row for row in json.loads(run("list", "--json").out)}
    assert {id: row["weights"] for id, row in rows.items()} == {
        "small.x2": "installed",
        "small.x4": "import",
        "ours.x2": "no weights",
        "web.x2": "download",
        "jpeg.x1": "no weights",
    }
    assert rows["small.x2"]["licence"] == "Apache-2.0" and rows["small.x4"]["scale"] == 4
    plain = run("list")
    first, *others = [line.split()[0] for line in plain.out.splitlines()]
    assert plain.code == 0 and first == "small.x2" and others == sorted(rows.keys() - {first})
    assert "small.x2  installed   Apache-2.0  A small one, x2" in plain.out.splitlines()
    assert [line.split()[0] for line in run("list", "--installed").out.splitlines()] == ["small.x2"]
    assert [line.split()[0] for line in run("list", "--task", "jpeg").out.splitlines()] == ["jpeg.x1"]
    wrong = run("list", "--task", "jpg")
    assert wrong.code == 2 and "did you mean 'jpeg'?" in wrong.last


def test_a_broken_card_is_named_and_the_others_listed(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bundled" / "broken.x2.yaml").write_text("task: [")
    listed = run("list")
    assert listed.code == 0 and len(listed.out.splitlines()) == 2
    assert listed.err.startswith("warning: ") and "broken.x2.yaml" in listed.err


def test_all_of_a_card_is_shown(run: Run, tmp_path: Path) -> None:
    score = {"set": "Set5", "psnr": 32.1, "ssim": 0.89, "source": "README", "command": "restorekit eval"}
    paper = {"title": "On Small Networks", "authors": "A. Author", "year": 2024, "url": "https://example.org/paper"}
    noisy = {"set": "Kodak24", "setting": "sigma 25", "psnr": 32.2}
    more = {
        "published": [score],
        "measured": [noisy],
        "paper": paper,
        "notes": ["Nothing else."],
        "precisions": ["fp32", "bf16"],
    }
    write_card(tmp_path, "full.x2", CFSR, 2, weights=told("f.pth", page="https://example.org/f"), **more)
    shown = run("show", "full.x2").out.splitlines()
    assert shown[0] == "full.x2: A small one, x2"
    assert {
        "task: super-resolution, x2",
        "licence: Apache-2.0",
        "weights: f.pth, licence MIT",
        "  page: https://example.org/f",
        "paper: A. Author: On Small Networks, 2024, https://example.org/paper",
        "precisions: fp32, bf16",
        "published:",
        "  Set5: PSNR 32.10, SSIM 0.8900 (README; restorekit eval)",
        "  Kodak24, sigma 25: PSNR 32.20",
        "note: Nothing else.",
        "  embed_dim: 8",
    } <= set(shown)
    assert any(line.startswith("large pictures: in bands") for line in shown)
    assert (
        "installed: no; get f.pth from https://example.org/f and run: restorekit models import f.pth --as full.x2"
        in shown
    )
    found = json.loads(run("show", "full.x2", "--json").out)
    assert found["published"][0]["psnr"] == 32.1 and found["installed"] is None
    assert found["network"]["parameters"] == sum(weight.numel() for weight in weights().values())
    write_card(tmp_path, "odd.x2", CFSR, 2, architecture="not_there")
    assert run("show", "odd.x2").code == 0, "a card of a network that is not installed"
    assert "did you mean 'full.x2'?" in run("show", "ful.x2").last


def test_a_file_is_imported_for_the_card_that_names_it(run: Run, home: Path, tmp_path: Path) -> None:
    file = saved(tmp_path / "Small_x2.pth", weights())
    done = run("import", file)
    assert done.code == 0 and done.out == ""
    assert f"{file}: CFSR x2, " in done.err and "img_range is not stored in the weights" in done.err
    assert "licence of the weights: MIT" in done.err
    assert names(home) == ["small.x2.safetensors"]
    target = home / "small.x2.safetensors"
    assert run("path", "small.x2").out == f"{target}\n"
    with safe_open(target, framework="pt") as opened:
        said = opened.metadata()
    assert said["architecture"] == "cfsr" and json.loads(said["config"]) == CFSR
    assert said["source"] == "Small_x2.pth" and said["source_sha256"] == digest(file)
    found = checkpoint.read(target)
    assert all(torch.equal(found[key], tensor) for key, tensor in weights().items())
    assert run("verify").out == "small.x2: ok\n"
    again = run("import", saved(tmp_path / "other.pth", weights(1)), "--as", "small.x2")
    assert again.code == 0 and "(replaced)" in again.err and names(home) == ["small.x2.safetensors"]


def test_without_a_name_in_a_card_the_choice_is_the_users(run: Run, home: Path, tmp_path: Path) -> None:
    write_card(tmp_path, "twin.x2", CFSR, 2, weights=told("Twin.pth", page="https://example.org"))
    file = saved(tmp_path / "mine.pth", weights())
    done = run("import", file)
    assert done.code == 2 and "fits small.x2, twin.x2; say which it is with --as ID" in done.last
    assert names(home) == []
    nobodys = run("import", saved(tmp_path / "big.pth", weights(embed_dim=12)))
    assert nobodys.code == 2 and "is a CFSR x2 checkpoint that no card stands for; name it: --as NAME" in nobodys.last
    assert run("import", file, "--as", "twin.x2").code == 0


def test_a_hash_tells_a_file_under_any_name(run: Run, home: Path, tmp_path: Path) -> None:
    file = saved(tmp_path / "renamed.pth", weights())
    described = told("Hashed.pth", page="https://example.org", sha256=digest(file))
    write_card(tmp_path, "hashed.x2", CFSR, 2, weights=described)
    assert run("import", file).code == 0 and names(home) == ["hashed.x2.safetensors"]
    forged = run("import", saved(tmp_path / "Hashed.pth", weights(1)), "--as", "hashed.x2")
    assert forged.code == 2 and "is not its file Hashed.pth (the sha256 differs)" in forged.last


def test_a_file_of_another_model_is_refused_with_what_it_is(run: Run, home: Path, tmp_path: Path) -> None:
    file = saved(tmp_path / "x.pth", weights(upscale=4))
    done = run("import", file, "--as", "small.x2")
    assert done.code == 2
    assert done.last == f"{file}: is a CFSR x4 checkpoint, card small.x2 wants x2; import it as small.x4"
    write_card(tmp_path, "ours.x4", {**CFSR, "upscale": 4}, 4)
    assert "no weights of ours.x4 exist yet" in run("import", file, "--as", "ours.x4").last
    assert names(home) == []


def test_what_does_not_fit_is_said_before_what_is_another_file(run: Run, home: Path, tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole.pth", weights())
    write_card(tmp_path, "one.x2", CFSR, 2, weights=told("whole.pth", url="https://x.org/w", sha256=digest(whole)))
    lacking = weights()
    lacking.pop("norm.bias")
    broken = weights()
    broken["norm.bias"][0] = torch.nan
    for state, said in (
        (lacking, "does not fit cfsr: 1 missing (norm.bias); get the whole file again"),
        ({**weights(), "norm.more": torch.zeros(1)}, "does not fit cfsr: 1 unexpected (norm.more)"),
        (broken, "holds weights that are not finite (norm.bias)"),
    ):
        done = run("import", saved(tmp_path / "file.pth", state), "--as", "one.x2")
        assert done.code == 2 and done.err.count("\n") == 1 and said in done.err, done.err
    other = run("import", saved(tmp_path / "other.pth", weights(seed=1)), "--as", "one.x2")
    assert other.code == 2 and "the sha256 differs" in other.err
    assert names(home / "models") == []


def test_a_name_of_ones_own_gets_a_card(run: Run, home: Path, tmp_path: Path) -> None:
    done = run("import", saved(tmp_path / "a.pth", weights(embed_dim=12)), "--as", "my.net")
    assert done.code == 0 and names(home) == ["my.net.safetensors", "my.net.yaml"]
    assert "my.net was not known" in done.last and "licence unknown, trained on synthetic pictures" in done.last
    assert str(home / "my.net.yaml") in done.last
    card = cards.card("my.net")
    assert (card.architecture, card.scale, card.licence) == ("cfsr", 2, "unknown")
    assert card.config["embed_dim"] == 12 and card.pixels == "rgb"
    assert run("verify", "my.net").out == "my.net: ok\n"
    assert "my.net" in run("list", "--installed").out
    for id in ("../my", "a/b", "", ".hidden", "a b", "x" * 200):
        wrong = run("import", tmp_path / "a.pth", "--as", id)
        assert wrong.code == 2 and "is no id of a model" in wrong.last, id
    assert len(names(home)) == 2


def test_what_a_file_cannot_tell_comes_from_cards_of_its_architecture(run: Run, tmp_path: Path) -> None:
    write_card(tmp_path, "gray.x2", {**CFSR, "in_chans": 1}, 2, pixels="y-full", padding="reflect")
    run("import", saved(tmp_path / "a.pth", weights(in_chans=1, embed_dim=12)), "--as", "my.gray")
    assert (cards.card("my.gray").pixels, cards.card("my.gray").padding) == ("y-full", "reflect")
    write_card(tmp_path, "a_gray.x4", {**CFSR, "in_chans": 1, "upscale": 4, "dw_size": 5}, 4, pixels="y")
    run("import", saved(tmp_path / "b.pth", weights(in_chans=1, embed_dim=10)), "--as", "my.other")
    assert cards.card("my.other").pixels == "y-full", "those of the most similar one"


class Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_a_pickle_with_a_program_is_refused_in_one_line(run: Run, home: Path, tmp_path: Path) -> None:
    file = tmp_path / "Small_x2.pth"
    torch.save({"params": weights(), "more": Bomb(tmp_path / "ran")}, file)
    done = run("import", file)
    assert done.code == 2 and len(done.err.splitlines()) == 1
    assert f"{file}: holds the Python object" in done.err
    assert not (tmp_path / "ran").exists() and names(home) == []


def test_what_cannot_be_written_is_one_line(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RESTOREKIT_HOME", str(tmp_path / "file"))
    done = run("import", saved(tmp_path / "Small_x2.pth", weights()))
    assert done.code == 2 and "cannot be written" in done.last


def test_a_card_that_cannot_be_written_takes_its_weights_along(
    run: Run, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **options: Any) -> int:
        raise OSError(28, "No space left on device")

    file = saved(tmp_path / "a.pth", weights(embed_dim=12))
    monkeypatch.setattr(Path, "write_text", full)
    done = run("import", file, "--as", "my.net")
    assert done.code == 2 and "my.net.yaml: cannot be written (No space left on device)" in done.last
    assert names(home) == []


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server of the files in ``web/``."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "web").mkdir()
    handler = functools.partial(Quiet, directory=str(tmp_path / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_weights_are_downloaded_checked_and_installed(run: Run, home: Path, tmp_path: Path, web: str) -> None:
    file = saved(tmp_path / "web" / "w.pth", weights())
    described = told("w.pth", url=f"{web}/w.pth", sha256=digest(file), size=file.stat().st_size, note="be kind")
    write_card(tmp_path, "web.x2", CFSR, 2, weights=described)
    missing = run("path", "web.x2")
    assert missing.code == 2 and missing.last.endswith("run: restorekit models download web.x2")
    offline = run("download", "web.x2", "--offline")
    assert offline.code == 2 and "needs the network" in offline.last and names(home) == []
    done = run("download", "web.x2")
    assert done.code == 0 and done.out == "" and "licence of the weights: MIT; be kind" in done.err
    assert names(home) == ["web.x2.safetensors"]
    assert run("verify", "web.x2").code == 0
    file.unlink()
    again = run("download", "web.x2")
    assert again.code == 0 and "is installed already" in again.err


def test_downloads_that_fail_leave_nothing(run: Run, home: Path, tmp_path: Path, web: str) -> None:
    file = saved(tmp_path / "web" / "w.pth", weights())
    other = saved(tmp_path / "web" / "other.pth", weights(upscale=4))
    for id, described in {
        "gone.x2": told("g.pth", url=f"{web}/gone.pth", sha256="0" * 64),
        "changed.x2": told("w.pth", url=f"{web}/w.pth", sha256="0" * 64, size=file.stat().st_size),
        "misfit.x2": told("w.pth", url=f"{web}/other.pth", sha256=digest(other)),
    }.items():
        write_card(tmp_path, id, CFSR, 2, weights=described)
    for id, says in (
        ("gone.x2", "HTTP 404"),
        ("changed.x2", "is not the file that card changed.x2 describes"),
        ("misfit.x2", f"{web}/other.pth: does not fit cfsr"),
        ("small.x2", "has no weights to download; get Small_x2.pth from https://example.org/small"),
        ("none.x2", "unknown model 'none.x2'"),
    ):
        done = run("download", id)
        assert done.code == 2 and says in done.last and len(done.err.splitlines()) == 1, id
        assert names(home) == []


def test_damage_is_found_and_the_exit_code_is_1(run: Run, home: Path, tmp_path: Path) -> None:
    assert run("verify").err == "no weights are installed\n"
    missing = run("verify", "small.x2")
    assert missing.code == 2 and "has no weights installed" in missing.last
    run("import", saved(tmp_path / "Small_x2.pth", weights()))
    run("import", saved(tmp_path / "Small_x4.pth", weights(upscale=4)))
    target = home / "small.x4.safetensors"
    data = bytearray(target.read_bytes())
    data[-9] ^= 64
    target.write_bytes(data)
    done = run("verify")
    assert done.code == 1 and done.out == "small.x2: ok\n"
    assert done.err.startswith(f"small.x4: {target}: is not what was installed") and len(done.err.splitlines()) == 1
    assert run("verify", "small.x2").code == 0
