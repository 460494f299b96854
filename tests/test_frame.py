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


def test_brackets_are_sorted_by_what_is_known() -> None:
    """By the offsets that are given, else the exposures, else by how bright the frames are."""

    def frame(level: float, exposure: Exposure) -> Frame:
        return Frame(torch.full((3, 6, 8), level), exposure=exposure)

    def levels(frames: list[Frame], ev: tuple[float, ...] = ()) -> list[float]:
        return [round(float(f.pixels.mean()), 3) for f in Bracket.of(frames, ev=ev)]

    times = [frame(0.1, Exposure(time_s=1.0)), frame(0.2, Exposure(time_s=0.1)), frame(0.3, Exposure(time_s=0.5))]
    assert levels(times, ev=(0, 2, -2)) == [0.3, 0.1, 0.2]
    assert levels(times) == [0.2, 0.3, 0.1]
    assert levels([times[0], frame(0.05, Exposure()), times[1]]) == [0.05, 0.1, 0.2], "one exposure is not known"
    wide, fast = Exposure(0.01, f_number=2.0, iso=100.0), Exposure(0.01, f_number=8.0, iso=400.0)
    assert levels([frame(0.1, wide), frame(0.2, fast)]) == [0.2, 0.1], "t S / N^2"
    same = [frame(level, Exposure(time_s=0.1)) for level in (0.3, 0.1, 0.2)]
    assert levels(same) == [0.3, 0.1, 0.2], "a burst keeps its order"


def test_brightness_is_that_of_all_colours_and_types() -> None:
    dark, bright = torch.zeros(1, 600, 800), torch.zeros(1, 600, 800)
    dark[:, 0::2, 0::2] = 0.5
    bright[:, 0::2, 1::2] = bright[:, 1::2, 0::2] = 0.4
    state = ImageState("bayer", "scene", "linear", "camera")
    assert Bracket.of([Frame(bright, state), Frame(dark, state)]).frames[0].pixels is dark
    for kind, most in ((torch.uint8, 255), (torch.uint16, 65535), (torch.float16, 1)):
        frames = [Frame(torch.full((3, 5, 5), level * most).to(kind)) for level in (0.9, 0.2, 0.5)]
        assert [f.pixels is frames[i].pixels for f, i in zip(Bracket.of(frames), (1, 2, 0), strict=True)] == [True] * 3
    odd = Frame(torch.tensor([torch.nan, torch.inf, 0.1]).expand(3, 4, 3).clone())
    even = Frame(torch.full((3, 4, 3), 0.2))
    assert Bracket.of([even, odd]).frames == (odd, even), "what is no number counts as black"


def test_the_reference_of_a_bracket_is_its_middle() -> None:
    for count, middle in ((2, 1), (3, 1), (4, 2), (7, 3)):
        bracket = Bracket(tuple(Frame(torch.full((1, 2, 2), float(index))) for index in range(count)))
        assert bracket.reference is bracket.frames[middle]
        other = Frame(torch.full((1, 2, 2), -1.0))
        changed = bracket.with_reference(other)
        assert changed.reference is other and len(changed) == count
        kept = [index for index in range(count) if index != middle]
        assert all(changed.frames[index] is bracket.frames[index] for index in kept)
        assert bracket.frames[middle] is not other, "brackets are never changed in place"


def test_brackets_of_scene_light_know_where_it_was_cut() -> None:
    """EXR files do not tell; many equal largest values do."""
    scene = ImageState("rgb", "scene", "linear", "bt2020")
    light = torch.rand(3, 40, 50) * 4
    cut, free = Bracket.of([Frame(light.clamp(max=1.0), scene), Frame(light, scene)])
    assert cut.facts.clip_level == (1.0, 1.0, 1.0) and torch.equal(cut.masks["clipped"][0], (light >= 1).any(0))
    assert free.facts.clip_level is not None and min(free.facts.clip_level) > float(light.max())
    assert "clipped" not in free.masks
    black, _ = Bracket.of([Frame(torch.zeros(3, 8, 8), scene), Frame(torch.ones(3, 8, 8), scene)])
    assert black.facts.clip_level is None


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


@pytest.mark.parametrize(
    ("image", "says"),
    [
        ("x.jpg", r"x\.jpg: is a path where a frame belongs; read it first: restorekit\.read\('x\.jpg'\)"),
        (Path("x.jpg"), r"restorekit\.read\('x\.jpg'\)"),
        (np.zeros((3, 4, 4)), r"ndarray stands where .* make one: restorekit\.Frame\(tensor\)"),
        ([Frame(torch.zeros(3, 4, 4))], r"list stands where .* make one: restorekit\.Bracket\.of\(frames\)"),
    ],
)
def test_what_is_no_frame_is_refused_with_the_call_that_makes_one(image: object, says: str) -> None:
    for stage_or_pipeline in (Decode(), Pipeline([Decode()])):
        with pytest.raises(InputError, match=says):
            stage_or_pipeline(image)  # type: ignore[arg-type]
