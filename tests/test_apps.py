"""The programs in apps/, run as a person runs them."""

from __future__ import annotations

import io
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

APPS = Path(__file__).parents[1] / "apps"


def picture(path: Path, seed: int = 0, gain: float = 1.0) -> Path:
    noise = np.random.default_rng(seed).integers(40, 200, (6, 8, 3), dtype=np.uint8)
    smooth = Image.fromarray(noise).resize((96, 72))
    Image.fromarray((np.asarray(smooth) * gain).clip(0, 255).astype(np.uint8)).save(path)
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(app: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(APPS / app), *map(str, arguments)]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield program
    finally:
        program.kill()
        program.communicate()


def fetched(url: str, content: bytes | None = None, within_s: float = 60.0) -> bytes:
    """What a server answers, asked until it listens."""
    end = time.monotonic() + within_s
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, content), timeout=60) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError:
            raise
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def test_a_folder_is_played_as_a_camera(tmp_path: Path) -> None:
    folder, out = tmp_path / "camera", tmp_path / "out"
    folder.mkdir()
    picture(folder / "a.png"), picture(folder / "b.png", 1)
    with running("camera_preview.py", folder, "--out", out, "--port", 0) as program:
        assert program.stdout is not None
        address = re.match(r"http://127\.0\.0\.1:\d+", program.stdout.readline())
        assert address is not None
        assert b"/stream" in fetched(f"{address[0]}/")
        with urllib.request.urlopen(f"{address[0]}/stream", timeout=30) as stream:
            head = stream.read(60)
            start = head.index(b"\xff\xd8")
            content = head[start:] + stream.read(20000)
        assert Image.open(io.BytesIO(content)).size == (96, 72)
        assert fetched(f"{address[0]}/set?ev=1.0", b"") == b"set"
        assert b"0001.png" in fetched(f"{address[0]}/shutter", b"")
        assert program.stdout.readline().strip().endswith("0001.png")
    assert Image.open(out / "0001.png").size == (96, 72)


def test_a_camera_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, APPS / "camera_preview.py", tmp_path / "none.avi"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1 and "none.avi: is no camera, video or folder" in done.stderr.splitlines()[-1]


def test_finished_brackets_become_pictures_and_others_wait(tmp_path: Path) -> None:
    folder, out = tmp_path / "shots", tmp_path / "out"
    for name in ("one", "two"):
        (folder / name).mkdir(parents=True)
        for index, gain in enumerate((0.4, 1.0, 1.8)):
            picture(folder / name / f"{index}.png", 3, gain)

    def watched(settle_s: float) -> list[str]:
        command = [sys.executable, str(APPS / "burst_watch.py"), str(folder), str(out), "--settle", str(settle_s)]
        done = subprocess.run([*command, "--once"], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    assert watched(3600) == [] and not list(out.glob("*.jpg"))
    made = watched(0)
    assert len(made) == 2 and len(list(out.rglob("*.jpg"))) == 2
    assert watched(0) == []


def test_a_posted_picture_comes_back_as_the_command_makes_it(tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    photo, port = picture(tmp_path / "photo.png"), free_port()
    with running("http_service.py", "--port", port, "--largest-mb", 1):
        address = f"http://127.0.0.1:{port}"
        options = "name=photo.png&format=png&set=tone.exposure.ev=0.5"
        made = fetched(f"{address}/photo-enhance?{options}", photo.read_bytes())
        for content, asked, code, says in (
            (b"nothing", "photo-enhance?name=a.png", 422, b"a.png"),
            (photo.read_bytes(), "photo-enhance?name=a.png&set=tone.exposure.ev=99", 422, b"tone.exposure"),
            (photo.read_bytes(), "none?name=a.png", 422, b"unknown pipeline"),
            (photo.read_bytes(), "x.yaml?name=a.png", 422, b"unknown pipeline"),
            (photo.read_bytes(), "photo-enhance?name=a.png&format=..%2F..%2Fx.png", 422, b"without folders"),
            (photo.read_bytes(), "photo-enhance?name=..", 422, b"without folders"),
            (photo.read_bytes(), "photo-enhance?name=..%2Fa.png", 422, b"without folders"),
            (photo.read_bytes(), f"denoise?name=a.png&set=restore.model={photo}", 422, b"takes the id of a model"),
            (
                photo.read_bytes(),
                "raw-to-srgb?name=a.png&set=raw.hot_pixels.dark_frame=%2Fetc%2Fpasswd",
                422,
                b"names a file",
            ),
            (bytes(2_000_000), "photo-enhance?name=a.png", 413, b"larger than 1 MB"),
        ):
            with pytest.raises(urllib.error.HTTPError) as refused:
                fetched(f"{address}/{asked}", content)
            answer = refused.value.read()
            assert refused.value.code == code and says in answer and str(tmp_path).encode() not in answer
            assert b"/tmp" not in answer
    command = ["run", "photo-enhance", str(photo), str(tmp_path / "photo.out.png"), "--set", "tone.exposure.ev=0.5"]
    done = subprocess.run([sys.executable, "-m", "restorekit", *command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(made))), np.asarray(Image.open(tmp_path / "photo.out.png")))
