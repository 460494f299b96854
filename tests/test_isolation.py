"""What goes wrong in a decoder fails one file: crashes, hangs, runaway memory; and no child is left behind."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from restorekit.errors import InputError, RestorekitError
from restorekit.frame import Frame
from restorekit.io import read
from restorekit.isolation import Isolation, _Pickler

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX pipes and signals")

DECODERS = """\
import ctypes, os, signal, time
import numpy as np
from restorekit.errors import InputError

def good(value):
    print("codecs talk to the standard output")
    return np.full((3, 2), value, np.uint16), os.getpid()

def crash(_):
    ctypes.string_at(0)

def hang(_):
    time.sleep(1000)

def hang_without_python(_):
    ctypes.PyDLL(None).pause()  # never gives the interpreter lock back

def grow(_):
    kept = []
    while True:
        kept.append(np.ones(1 << 22))

def leave(_):
    raise SystemExit(3)

def refuse(path):
    raise InputError(f"{path}: is no picture")

def stumble(_):
    raise KeyError("a bug")
"""


@pytest.fixture
def decoders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module of fake decoders that a child can import too."""
    (tmp_path / "fake_decoders.py").write_text(DECODERS)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("fake_decoders")
    del sys.modules["fake_decoders"]


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_one_child_answers_call_after_call(decoders: ModuleType) -> None:
    with Isolation(preload=()) as isolation:
        first, pid = isolation.call("a.raw", decoders.good, 7)
        second, same = isolation.call("b.raw", decoders.good, 9)
        assert (first == 7).all() and (second == 9).all() and first.dtype == np.uint16
        assert pid == same != os.getpid() and is_running(pid)
    assert not is_running(pid)


def test_a_crash_fails_one_file(decoders: ModuleType) -> None:
    with Isolation(preload=()) as isolation:
        _, pid = isolation.call("a.raw", decoders.good, 7)
        with pytest.raises(InputError, match=r"b\.raw: the decoder crashed on this file \(SIGSEGV\)"):
            isolation.call("b.raw", decoders.crash, 0)
        value, other = isolation.call("c.raw", decoders.good, 9)
        assert (value == 9).all() and other != pid and not is_running(pid)


@pytest.mark.parametrize("kind", ["hang", "hang_without_python"])
def test_a_hang_fails_one_file(decoders: ModuleType, kind: str) -> None:
    with Isolation(timeout_s=0.5, preload=()) as isolation:
        with pytest.raises(InputError, match=r"b\.raw: decoding took longer than 0\.5 s.*--decode-timeout"):
            isolation.call("b.raw", getattr(decoders, kind), 0)
        isolation.timeout_s = 60
        assert isolation.call("c.raw", decoders.good, 9)[0].sum() == 54


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process")
def test_runaway_memory_fails_one_file(decoders: ModuleType) -> None:
    with Isolation(memory_bytes=1 << 28, preload=()) as isolation:
        with pytest.raises(InputError, match=r"b\.raw: needs more memory than decoding may take \(0\.3 GB\)"):
            isolation.call("b.raw", decoders.grow, 0)
        assert isolation.call("c.raw", decoders.good, 9)[0].sum() == 54


def test_a_decoder_that_ends_the_program_fails_one_file(decoders: ModuleType) -> None:
    with Isolation() as isolation:
        with pytest.raises(InputError, match=r"a\.jpg: the decoder crashed on this file \(it ended\)"):
            isolation.call("a.jpg", decoders.leave, "a.jpg")
        assert isolation.call("b", decoders.good, 2)[0][0, 0] == 2


def test_a_child_that_was_ended_after_its_answer_takes_no_file_with_it(
    decoders: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Isolation(timeout_s=1) as isolation:
        isolation.call("a", decoders.good, 1)
        child = isolation._child
        assert child is not None
        receive = child.receive

        def late() -> object:
            answer = receive()
            child._process.wait(10)
            return answer

        monkeypatch.setattr(child, "receive", late)
        assert isolation.call("b", decoders.good, 2)[0][0, 0] == 2
        assert child.expired
        assert isolation.call("c", decoders.good, 3)[0][0, 0] == 3


def test_systems_without_the_means_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys; sys.modules['fcntl'] = sys.modules['resource'] = None; import restorekit.runner as r; "
    code += "from restorekit.report import peak_memory_mb; print(peak_memory_mb())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("0.0", "")
    monkeypatch.setattr("restorekit.isolation.os.name", "nt")
    with pytest.raises(RestorekitError, match="Linux and macOS only; run without --isolate"):
        Isolation()


def test_errors_come_back_as_they_are(decoders: ModuleType) -> None:
    with Isolation(preload=()) as isolation:
        with pytest.raises(InputError) as refused:
            isolation.call("a.raw", decoders.refuse, "a.raw")
        assert str(refused.value) == "a.raw: is no picture"
        with pytest.raises(RestorekitError, match=r"a\.raw: internal error at fake_decoders\.py:\d+: KeyError"):
            isolation.call("a.raw", decoders.stumble, 0)


def test_a_frame_comes_back_as_it_is_read_here(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (30, 40, 4), dtype=np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    here = read(path)
    with Isolation() as isolation:
        there = isolation.call(path, read, path)
    assert torch.equal(here.pixels, there.pixels) and there.pixels.permute(1, 2, 0).is_contiguous()
    assert here.alpha is not None and there.alpha is not None and torch.equal(here.alpha, there.alpha)
    assert (here.state, here.metadata, here.source) == (there.state, there.metadata, there.source)


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_pixels_leave_without_a_copy(axes: tuple[int, int, int]) -> None:
    buffers: list[object] = []

    class Sink:
        size = 0

        def write(self, data: bytes) -> None:
            self.size += len(data)

    sink, frame = Sink(), Frame(torch.zeros(64, 64, 3).permute(axes))
    _Pickler(sink, 5, buffer_callback=buffers.append).dump(frame)
    assert len(buffers) == 1 and sink.size < 8192


def test_an_interrupt_leaves_no_child(tmp_path: Path) -> None:
    (tmp_path / "fake_decoders.py").write_text(DECODERS)
    program = textwrap.dedent(
        f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        import fake_decoders
        from restorekit.isolation import Isolation
        with Isolation(preload=()) as isolation:
            print(isolation.call("a", fake_decoders.good, 1)[1], flush=True)
            isolation.call("b", fake_decoders.hang, 1)
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
    deadline = time.monotonic() + 30
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(child)
