"""Decoding in a child process: what crashes, hangs or grows without end there fails one file, and nothing else.

The child is a fresh Python program, not a fork, so that no lock or thread of ours is in it. It does one thing after
the other, and lives until something goes wrong; the next file then gets a new one. Pixels come back through a plain
pipe, straight into the memory that they stay in. A child has the rights of its parent: it is no defence against files
that take over a decoder.
"""

from __future__ import annotations

import faulthandler
import importlib
import io
import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from restorekit.errors import InputError, RestorekitError
from restorekit.io.limits import available_memory

DECODE_TIMEOUT_S = 120.0
_START_TIMEOUT_S = 120.0
_PIPE_BYTES = 1 << 20
_GRACE_S = 10.0
_HELP = "it is damaged or of an unknown kind"

T = TypeVar("T")


class Isolation:
    """A child process that reads files. Use as a context manager, or close it.

    ``timeout_s`` is the time for one file, ``memory_bytes`` what the child may allocate beyond what it has when it
    is ready (as far as the system enforces it: Linux does); what is available when it starts, if not given.
    ``preload`` names modules that it imports before, so that their time is not that of the first file.

    Raises RestorekitError on Windows, whose processes do not take over open pipes.
    """

    def __init__(
        self,
        timeout_s: float = DECODE_TIMEOUT_S,
        memory_bytes: int | None = None,
        preload: Sequence[str] = ("restorekit.frame", "restorekit.io.read"),
    ) -> None:
        if os.name != "posix":
            raise RestorekitError("decoding in a child process works on Linux and macOS only; run without --isolate")
        self.timeout_s = timeout_s
        self.memory_bytes = memory_bytes
        self.preload = tuple(preload)
        self._child: _Child | None = None

    def __enter__(self) -> Isolation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child, whatever it is doing."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def call(self, path: str | Path, function: Callable[..., T], /, *arguments: Any, **keywords: Any) -> T:
        """What a function of an importable module gives, called in the child; ``path`` is what messages name.

        Raises what the function raises where it is a RestorekitError, and InputError, naming the file, when the
        child crashes, takes longer than ``timeout_s``, or needs too much memory.
        """
        if self._child is None:
            self._child = _Child(self.timeout_s, self.memory_bytes, self.preload)
        child = self._child
        try:
            with child.deadline(self.timeout_s):
                child.send((function, arguments, keywords))
                kind, value = child.receive()
        except (EOFError, OSError):
            child.wait(_GRACE_S)  # for what it says by the way it ends
            self.close()
            if child.expired:
                cure = "raise the limit with --decode-timeout if it is only slow"
                raise InputError(f"{path}: decoding took longer than {self.timeout_s:g} s; {_HELP}, {cure}") from None
            raise InputError(f"{path}: {child.last_words()}; {_HELP}") from None
        except BaseException:
            self.close()  # an answer that nobody waits for any more would be taken for that of the next file
            raise
        if child.expired:  # it was ended after its answer, and cannot take the next file
            self.close()
        if kind == "result":
            result: T = value
            return result
        if kind == "memory":
            self.close()
            raise InputError(f"{path}: needs more memory than decoding may take ({child.allowance}); {_HELP}")
        raise value if isinstance(value, RestorekitError) else RestorekitError(f"{path}: {value}")


class _Child:
    """The running program, and the two pipes to it."""

    def __init__(self, timeout_s: float, memory_bytes: int | None, preload: tuple[str, ...]) -> None:
        self.expired = False
        free = memory_bytes if memory_bytes is not None else available_memory()
        self.allowance = "that is all there is" if free is None else f"{free / 1e9:.1f} GB"
        requests, self._requests = os.pipe()
        self._answers, answers = os.pipe()
        code = f"import sys; sys.path[:] = {sys.path!r}; from restorekit.isolation import _serve; "
        code += f"_serve({requests}, {answers}, {timeout_s + _GRACE_S!r}, {free!r}, {preload!r})"
        with suppress(ImportError, OSError, AttributeError):  # not all systems let a pipe grow
            import fcntl

            fcntl.fcntl(answers, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(requests, answers),
                start_new_session=True,  # Ctrl-C is for the parent, which ends the child
            )
        finally:
            os.close(requests)
            os.close(answers)
        self._out = os.fdopen(self._requests, "wb", buffering=0)
        self._in = os.fdopen(self._answers, "rb", buffering=0)
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        try:
            with self.deadline(_START_TIMEOUT_S):
                self.receive()
        except BaseException as error:
            self.kill()
            if not isinstance(error, EOFError | OSError):
                raise
            raise RestorekitError("the child process for decoding does not start; run without --isolate") from error

    @contextmanager
    def deadline(self, seconds: float) -> Iterator[None]:
        """Kill the child if what follows takes longer; what waits for it then finds the end of the pipe."""

        def expire() -> None:
            self.expired = True
            self._process.kill()

        timer = threading.Timer(seconds, expire)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def send(self, message: object) -> None:
        _send(self._out, message)

    def receive(self) -> Any:
        return _receive(self._in)

    def wait(self, seconds: float) -> None:
        """Wait until it has ended, but not longer than this."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._out.close()
        self._in.close()

    def last_words(self) -> str:
        """How it ended, once it was killed or had ended before."""
        code = self._process.returncode or 0
        if code == -signal.SIGKILL:
            return "decoding was ended by the system, most likely for want of memory"
        return f"the decoder crashed on this file ({signal.Signals(-code).name if code < 0 else 'it ended'})"


def internal_error(error: BaseException) -> str:
    """What is said of an error that is ours, with the place in the code."""
    trace = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(trace.filename).name}:{trace.lineno}"
    return f"internal error at {where}: {type(error).__name__}: {error}; please report it with this file"


def _serve(requests: int, answers: int, timeout_s: float, memory_bytes: int | None, preload: tuple[str, ...]) -> None:
    """The child's life: answer requests until their pipe ends."""
    for module in preload:
        importlib.import_module(module)
    with os.fdopen(requests, "rb", buffering=0) as source, os.fdopen(answers, "wb", buffering=0) as sink:
        if memory_bytes is not None:
            _limit_memory(memory_bytes)
        quiet = open(os.devnull, "w")  # noqa: SIM115
        with suppress(EOFError, BrokenPipeError):
            _send(sink, ("ready", None))
            while True:
                request = _receive(source)
                faulthandler.dump_traceback_later(timeout_s, exit=True, file=quiet)  # should the parent not be there to
                answer = _answer(*request)
                faulthandler.cancel_dump_traceback_later()
                _send(sink, answer)
                del answer  # its pixels


def _answer(function: Callable[..., object], arguments: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[str, Any]:
    try:
        return "result", function(*arguments, **keywords)
    except MemoryError:
        return "memory", None
    except RestorekitError as error:
        return "error", error
    except Exception as error:
        return "error", internal_error(error)


def _limit_memory(memory_bytes: int) -> None:
    """Limit what this process may allocate from now on; systems without such a limit have none."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        status = Path("/proc/self/status").read_text()
        used = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData:"))
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = used + memory_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard < 0 else min(wanted, hard), hard))


class _Pickler(pickle.Pickler):
    """Arrays leave beside the pickle, in the order of axes of their memory, without a copy where that has no gaps."""

    def reducer_override(self, value: object) -> Any:
        if not isinstance(value, np.ndarray) or value.nbytes == 0 or value.dtype.hasobject:
            return NotImplemented
        axes = sorted(range(value.ndim), key=lambda axis: -value.strides[axis])
        base = np.ascontiguousarray(value.transpose(axes))
        back = tuple(axes.index(axis) for axis in range(value.ndim))
        return _restored, (pickle.PickleBuffer(base.data), value.dtype.str, base.shape, back)


def _restored(data: bytearray, dtype: str, shape: tuple[int, ...], axes: tuple[int, ...]) -> NDArray[Any]:
    return np.frombuffer(data, dtype).reshape(shape).transpose(axes)


def _send(pipe: BinaryIO | io.FileIO, message: object) -> None:
    """A pickle and the buffers beside it, each after its length."""
    buffers: list[pickle.PickleBuffer] = []
    packed = io.BytesIO()
    _Pickler(packed, 5, buffer_callback=buffers.append).dump(message)
    parts = [packed.getbuffer(), *(buffer.raw() for buffer in buffers)]
    _write(pipe, memoryview(struct.pack(f"<Q{len(parts)}Q", len(parts), *(part.nbytes for part in parts))))
    for part in parts:
        _write(pipe, part)


def _receive(pipe: BinaryIO | io.FileIO) -> Any:
    """The message that :func:`_send` sent. Raises EOFError at the end of the pipe."""
    (count,) = struct.unpack("<Q", _read(pipe, 8))
    lengths = struct.unpack(f"<{count}Q", _read(pipe, 8 * count))
    packed, *buffers = [_read(pipe, length) for length in lengths]
    return pickle.loads(packed, buffers=buffers)


def _write(pipe: BinaryIO | io.FileIO, data: memoryview) -> None:
    while data:
        data = data[pipe.write(data[:_PIPE_BYTES]) :]


def _read(pipe: BinaryIO | io.FileIO, length: int) -> bytearray:
    data = bytearray(length)
    view = memoryview(data)
    while view:
        got = pipe.readinto(view)  # type: ignore[union-attr]
        if not got:
            raise EOFError("the pipe has ended")
        view = view[got:]
    return data
