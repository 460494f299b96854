"""Frames and brackets: what is refused, and what turns along."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from restorekit.engine import process
from restorekit.errors import InputError, StageError
from restorekit.facts import Exposure, Metadata
from restorekit.frame import Bracket, Frame
from restorekit.pipeline import Pipeline
from restorekit.planes import orient
from restorekit.stage import Stage, StageSpec, parameters
from restorekit.stages.color import Decode
from restorekit.state import ImageState


@parameters
class Cropping(Stage):
    """Breaks its word: a pointwise stage that changes the size."""

    spec = StageSpec("test.cropping", "none")

    def apply(self, frame: Frame) -> Frame:
        return frame.with_pixels(frame.pixels[:, :3])


@pytest.mark.parametrize("pattern", ["RGBG", "GGRB", "RBGG", "RGB", "rggb", ""])
def test_patterns_that_are_no_bayer_cell(pattern: str) -> None:
    with pytest.raises(InputError, match="RGGB"):
        Frame.from_bayer(np.zeros((4, 4), np.uint16), pattern=pattern, white=1023)  # type: ignore[arg-type]


def test_arrays_of_any_order_and_endianness() -> None:
    plane = np.arange(48, dtype=">u2").reshape(6, 8)
    for array in (plane, plane[::-1, ::-1], np.asfortranarray(plane)):
        frame = Frame.from_bayer(array, pattern="RGGB", white=1023)
        np.testing.assert_array_equal(frame.pixels[0].numpy(), array)
    array = np.zeros((4, 4), np.uint16)
    frame = Frame.from_bayer(array, pattern="RGGB", white=1023)
    array[0, 0] = 7
    assert int(frame.pixels[0, 0, 0]) == 0, "the frame has its own copy"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"white": 10, "black": 64}, "not above"),
        ({"white": 1023, "black": (1, 2)}, "one level or four"),
        ({"white": 1023, "neutral": (0.0, 1.0, 0.7)}, "positive"),
        ({"white": 1023, "neutral": (float("nan"), 1.0, 0.7)}, "positive"),
    ],
)
def test_levels_that_make_no_sense(settings: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Frame.from_bayer(np.zeros((4, 4), np.uint16), pattern="RGGB", **settings)  # type: ignore[arg-type]


def test_shapes_that_do_not_fit_the_layout() -> None:
    with pytest.raises(InputError, match="20 channels"):
        Pipeline([Decode()])(Frame(torch.zeros(20, 20, 3)))
    with pytest.raises(InputError, match="tensor"):
        Frame(np.zeros((3, 4, 4)))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="not empty"):
        Frame(torch.zeros(3, 0, 4))


@pytest.mark.parametrize("kind", [torch.uint8, torch.uint16, torch.float32])
def test_orientations_of_every_storage_type(kind: torch.dtype) -> None:
    plane = torch.arange(6).reshape(1, 2, 3)
    rows = {
        1: [[0, 1, 2], [3, 4, 5]],
        2: [[2, 1, 0], [5, 4, 3]],
        3: [[5, 4, 3], [2, 1, 0]],
        4: [[3, 4, 5], [0, 1, 2]],
        5: [[0, 3], [1, 4], [2, 5]],
        6: [[3, 0], [4, 1], [5, 2]],
        7: [[5, 2], [4, 1], [3, 0]],
        8: [[2, 5], [1, 4], [0, 3]],
    }
    for orientation, expected in rows.items():
        assert orient(plane.to(kind), orientation).to(torch.int64)[0].tolist() == expected


def test_a_frame_goes_between_processes() -> None:
    frame = Frame(torch.randint(0, 999, (3, 4, 5)).to(torch.uint16), alpha=torch.ones(1, 4, 5), source=Path("a"))
    again = pickle.loads(pickle.dumps(frame))
    assert torch.equal(again.pixels.to(torch.int32), frame.pixels.to(torch.int32))
    assert torch.equal(again.alpha, frame.alpha) and again.source == frame.source and again.state == frame.state


def test_brackets_are_sorted_and_checked() -> None:
    def frame(time_s: float | None, size: int = 4) -> Frame:
        return Frame(torch.zeros(3, size, 4), exposure=Exposure(time_s=time_s))

    assert [f.exposure.time_s for f in Bracket.of([frame(1.0), frame(0.1), frame(0.5)])] == [0.1, 0.5, 1.0]
    assert [f.exposure.ev_offset for f in Bracket.of([frame(1.0), frame(0.1)], ev=(2, -2))] == [-2, 2]
    for frames, says in (([], "none"), ([frame(1.0)], "at least two"), ([frame(1.0), frame(2.0, 5)], "one size")):
        with pytest.raises(InputError, match=says):
            Bracket.of(frames)
    with pytest.raises(InputError, match="one a frame"):
        Bracket.of([frame(1.0), frame(2.0)], ev=(1,))


def test_a_stage_that_breaks_its_word_is_named() -> None:
    with pytest.raises(StageError, match=r"test\.cropping changed the size"):
        Pipeline([Cropping()])(Frame(torch.zeros(3, 40, 40)))


def test_a_bracket_must_be_fused() -> None:
    frames = Bracket.of([Frame(torch.zeros(3, 8, 8)), Frame(torch.ones(3, 8, 8))])
    with pytest.raises(InputError, match=r"fusion\.mertens"):
        Pipeline([Decode()])(frames)


def test_results_are_upright_floats() -> None:
    frame = Frame(torch.zeros(3, 4, 6, dtype=torch.uint8), metadata=Metadata(orientation=6))
    result = process(Pipeline([]), frame)
    assert result.pixels.shape == (3, 6, 4) and result.pixels.dtype == torch.float32
    assert result.metadata.orientation == 1


def test_stages_are_instances() -> None:
    with pytest.raises(TypeError, match="Decode"):
        Pipeline([Decode])  # type: ignore[list-item]


def test_a_fingerprint_follows_parameters_not_words() -> None:
    one, two = Pipeline([Decode()], summary="a"), Pipeline([Decode()], summary="b")
    assert one.fingerprint == two.fingerprint
    assert one.fingerprint != Pipeline([Decode(), Decode()]).fingerprint
    assert ImageState() == ImageState("rgb", "display", "srgb", "bt709", "single")
