"""Pipelines kept warm for camera applications."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Annotated

import numpy as np
import pytest
import torch

import restorekit as rk
from restorekit import camera
from restorekit.camera import CameraSession, Dropped
from restorekit.engine import process
from restorekit.errors import Cancelled, InputError, PipelineError, StageError
from restorekit.frame import Frame
from restorekit.io.buffers import Packed
from restorekit.reduction import reduced
from restorekit.stage import GLOBAL, Reach, Stage, StageSpec, param, parameters
from restorekit.testing import rgb_frame

GATE = threading.Event()
ENTERED = threading.Semaphore(0)


@parameters
class Gate(Stage):
    """Waits until the test lets it pass."""

    spec = StageSpec(name="test.gate", source="none")
    gain: Annotated[float, param("Gain", ge=0)] = 1.0

    def reach(self) -> Reach:
        return GLOBAL

    def apply(self, frame: Frame) -> Frame:
        ENTERED.release()
        assert GATE.wait(20)
        return frame.with_pixels(frame.pixels * self.gain)


@pytest.fixture(autouse=True)
def gate() -> Iterator[None]:
    GATE.set()
    while ENTERED.acquire(blocking=False):
        pass
    yield
    GATE.set()


def packed(seed: int = 0) -> Packed:
    numbers = np.random.default_rng(seed).integers(0, 256, 120 * 160 * 5 // 4, dtype=np.uint8)
    return Packed(numbers, 160, 120, "RGGB", 10, black=64, neutral=(0.5, 1.0, 0.6))


def entered() -> None:
    assert ENTERED.acquire(timeout=20)


def test_a_capture_is_what_the_pipeline_makes() -> None:
    pipeline = rk.Pipeline.load("raw-to-srgb")
    with CameraSession(pipeline, device="cpu") as session:
        made = session.capture(packed()).result(60)
    assert torch.equal(made.pixels, pipeline(packed().frame()).pixels)


def test_a_preview_is_the_previewed_pipeline_on_the_reduced_image() -> None:
    pipeline = rk.Pipeline.load("raw-to-srgb")
    with CameraSession("raw-to-srgb", preview=(48, 48), device="cpu") as session:
        made = session.preview(packed())
    small = reduced(packed(), (48, 48))
    assert (made.width, made.height) == (48, 36)
    assert torch.equal(made.pixels, process(pipeline.previewed(), small).pixels)


def test_parameters_change_from_the_next_picture_on() -> None:
    frame = rgb_frame()
    with CameraSession(rk.Pipeline([Gate()]), device="cpu") as session:
        GATE.clear()
        begun = session.capture(frame)
        entered()
        session.set("test.gate", gain=2.0)
        later = session.capture(frame)
        GATE.set()
        one, other = begun.result(20), later.result(20)
        with pytest.raises(PipelineError, match="greater than or equal to 0"):
            session.set("test.gate", gain=-1.0)
        assert torch.equal(session.preview(frame).pixels, other.pixels)
    assert torch.equal(other.pixels, 2 * one.pixels)


def test_the_queue_says_what_it_drops() -> None:
    with CameraSession(rk.Pipeline([Gate()]), device="cpu", waiting=1) as session:
        GATE.clear()
        first = session.capture(rgb_frame())
        entered()
        waiting = session.capture(rgb_frame())
        too_many = session.capture(rgb_frame())
        assert too_many.dropped and not first.dropped and not waiting.dropped
        with pytest.raises(Dropped, match="are in work or waiting"):
            too_many.result(0)
        GATE.set()
        assert first.result(20) and waiting.result(20)
        assert not session.capture(rgb_frame()).dropped  # there is room again


def test_cancelled_captures_stop_and_the_next_goes_on() -> None:
    with CameraSession(rk.Pipeline([Gate(), Gate()]), device="cpu") as session:
        GATE.clear()
        begun, waiting, last = (session.capture(rgb_frame()) for _ in range(3))
        entered()
        begun.cancel()
        waiting.cancel()
        GATE.set()
        for capture in (begun, waiting):
            with pytest.raises(Cancelled):
                capture.result(20)
            assert capture.done and not capture.dropped
        assert last.result(20).height == rgb_frame().height


def test_progress_is_told_and_kept() -> None:
    told: list[tuple[str, float]] = []
    with CameraSession("raw-to-srgb", device="cpu") as session:
        capture = session.capture(packed(), lambda step, share: told.append((step, share)))
        capture.result(60)
    assert [share for _, share in told] == sorted(share for _, share in told) and len(told) > 3
    assert capture.share == 1.0 and capture.step == told[-1][0]


def test_errors_are_those_of_the_pipeline_and_the_session_goes_on() -> None:
    with CameraSession("photo-enhance", device="cpu") as session:
        failed = session.capture(Frame(torch.zeros(2, 8, 8)))
        with pytest.raises(InputError, match="has 2 channels"):
            failed.result(20)
        with pytest.raises((InputError, StageError)):
            session.preview(Frame(torch.zeros(2, 8, 8)))
        assert session.capture(rgb_frame()).result(20).width == rgb_frame().width


def test_a_buffer_may_be_filled_again_as_soon_as_the_call_returns() -> None:
    numbers = np.random.default_rng(3).integers(0, 256, 120 * 160 * 5 // 4, dtype=np.uint8)
    image = Packed(numbers, 160, 120, "RGGB", 10)
    expected = image.unpacked()
    with CameraSession(rk.Pipeline([Gate()]), device="cpu") as session:
        GATE.clear()
        session.capture(rgb_frame())
        entered()
        capture = session.capture(image)
        session.keep(image)
        session.keep(image)
        numbers[:] = 0
        GATE.set()
        assert np.array_equal(capture.result(20).pixels[0].numpy(), expected)
        assert np.array_equal(session.burst(2).frames[0].pixels[0].numpy(), expected)


def test_the_ring_keeps_the_last_frames() -> None:
    with CameraSession("photo-enhance", device="cpu", ring=3) as session:
        with pytest.raises(InputError, match="a burst of 2 frames: 0 are kept"):
            session.burst()
        for value in range(5):
            session.keep(Frame(torch.full((3, 4, 4), value / 10)))
        assert [round(float(f.pixels.mean()), 1) for f in session.burst(3)] == [0.2, 0.3, 0.4]
        with pytest.raises(InputError, match="a burst of 4 frames: 3 are kept"):
            session.burst(4)


def test_previews_shrink_to_their_budget_and_grow_again(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = {"now": 0.0, "each": 0.1}

    def counter() -> float:
        steps["now"] += steps["each"]
        return steps["now"]

    frame = rgb_frame(60, 60)
    with CameraSession("photo-enhance", preview=(60, 60), budget_ms=50, device="cpu") as session:
        monkeypatch.setattr(camera.time, "perf_counter", counter)
        sizes = [session.preview(frame).width for _ in range(4)]
        assert sizes[0] == 60 and sizes == sorted(sizes, reverse=True) and sizes[-1] < 45
        steps["each"] = 0.001
        grown = [session.preview(frame).width for _ in range(camera.PATIENCE * len(camera.SHARES))]
        assert grown[-1] == 60


def test_threads_side_by_side_get_the_same_as_one_alone() -> None:
    torch_threads = torch.get_num_threads()
    images = [packed(seed) for seed in range(4)]
    pipeline = rk.Pipeline.load("raw-to-srgb")
    with CameraSession(pipeline, preview=(64, 64), device="cpu", waiting=8) as session:
        alone = [session.preview(image).pixels for image in images]
        captures = [session.capture(image) for image in images]
        made: dict[int, list[torch.Tensor]] = {}

        def work(thread: int) -> None:
            made[thread] = [session.preview(image).pixels for image in images]

        threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        full = [capture.result(60).pixels for capture in captures]
    assert len(made) == 3
    for pictures in made.values():
        assert all(torch.equal(a, b) for a, b in zip(pictures, alone, strict=True))
    assert all(torch.equal(a, pipeline(b.frame()).pixels) for a, b in zip(full, images, strict=True))
    assert torch.get_num_threads() == torch_threads


def test_closing_cancels_and_nothing_is_taken_any_more() -> None:
    session = CameraSession(rk.Pipeline([Gate(), Gate()]), device="cpu")
    GATE.clear()
    begun, waiting = session.capture(rgb_frame()), session.capture(rgb_frame())
    entered()
    threading.Timer(0.05, GATE.set).start()
    session.close()
    session.close()
    for capture in (begun, waiting):
        with pytest.raises(Cancelled):
            capture.result(1)
    with pytest.raises(InputError, match="is closed"):
        session.capture(rgb_frame())


def test_waiting_for_a_result_ends_in_time() -> None:
    with CameraSession(rk.Pipeline([Gate()]), device="cpu") as session:
        GATE.clear()
        capture = session.capture(rgb_frame())
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            capture.result(0.05)
        assert time.monotonic() - started < 5 and not capture.done
        GATE.set()
        capture.result(20)
