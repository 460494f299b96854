"""A chain run strip by strip gives what the stages give on the whole image."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar

import pytest
import torch
from torch.nn import functional as F

from restorekit.errors import StageError
from restorekit.frame import Frame
from restorekit.stage import Reach, Stage, StageSpec, local, param, parameters
from restorekit.state import ImageState
from restorekit.strips import Collector, run_chain
from restorekit.testing import StageLaws, in_strips, rgb_frame


@parameters
class Blur(Stage):
    """A box blur over rows, by reflection at the edges."""

    spec: ClassVar[StageSpec] = StageSpec("test.blur", "none")
    radius: Annotated[int, param("Radius", ge=0, le=9)] = 2

    def reach(self) -> Reach:
        return local(self.radius)

    def apply(self, frame: Frame) -> Frame:
        size = 2 * self.radius + 1
        padded = F.pad(frame.pixels[None], (0, 0, self.radius, self.radius), mode="reflect")
        return frame.with_pixels(F.avg_pool2d(padded, (size, 1), stride=1)[0])


@parameters
class RowRamp(Stage):
    """Adds the number of the row, to see that strips know their place."""

    spec: ClassVar[StageSpec] = StageSpec("test.ramp", "none")

    def apply(self, frame: Frame) -> Frame:
        top = frame.region.top if frame.region else 0
        rows = torch.arange(top, top + frame.height, dtype=torch.float32)
        return frame.with_pixels(frame.pixels + rows[None, :, None])


@parameters
class ShortSighted(Blur):
    """Claims a smaller reach than it has."""

    def reach(self) -> Reach:
        return local(0)


@parameters
class Tagged(Stage):
    """Notes and masks something."""

    spec: ClassVar[StageSpec] = StageSpec(
        "test.tagged", "none", accepts={"transfer": ("linear",)}, emits={"transfer": "srgb"}
    )

    def apply(self, frame: Frame) -> Frame:
        return replace(frame, masks={"bright": frame.pixels > 0.5}).with_note("tagged")


class TestBlur(StageLaws):
    stages = (Blur(), Blur(radius=0), Blur(radius=7), RowRamp())
    frames = (rgb_frame(), rgb_frame(height=33, width=20), rgb_frame(height=200, width=8))


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("rows", [16, 18, 40, 400])
@pytest.mark.parametrize("height", [30, 97, 320])
def test_a_chain_in_strips_equals_the_stages_one_by_one(rows: int, height: int, workers: int) -> None:
    frame = replace(rgb_frame(height, 21), alpha=torch.rand(1, height, 21))
    chain = [Blur(radius=3), RowRamp(), Blur(radius=6), Tagged(), Blur(radius=1)]
    last, middle = Collector(), Collector()
    run_chain(frame, chain, {4: [last], 1: [middle]}, rows=rows, workers=workers)
    whole = frame
    for index, stage in enumerate(chain):
        whole = stage(whole)
        if index == 1:
            torch.testing.assert_close(middle.frame().pixels, whole.pixels, atol=1e-4, rtol=0)
    result = last.frame()
    torch.testing.assert_close(result.pixels, whole.pixels, atol=1e-4, rtol=0)
    assert torch.equal(result.masks["bright"], whole.masks["bright"])
    assert result.alpha is not None and torch.equal(result.alpha, frame.alpha)  # type: ignore[arg-type]
    assert result.state == whole.state and result.state.transfer == "srgb"
    assert result.notes == ("tagged",) and result.region is None


def test_a_wrong_reach_is_noticed() -> None:
    frame = rgb_frame(64, 8)
    stage = ShortSighted(radius=4)
    assert not torch.allclose(in_strips(stage, frame, 16).pixels, stage(frame).pixels, atol=1e-4)


def test_integers_become_fractions_and_are_kept_as_the_sink_asks() -> None:
    pixels = torch.randint(0, 256, (3, 50, 9), dtype=torch.uint8)
    collector = Collector(lambda strip: strip.mul(255).round().to(torch.uint8))
    run_chain(Frame(pixels), [Blur(radius=0)], {0: [collector]}, rows=16)
    assert torch.equal(collector.frame().pixels, pixels)


def test_the_state_is_checked_before_the_first_strip() -> None:
    with pytest.raises(StageError, match=r"color\.decode"):
        run_chain(Frame(torch.zeros(3, 8, 8), ImageState(transfer="srgb")), [Tagged()], {})


def test_a_failing_worker_stops_the_others_and_is_heard() -> None:
    def give_up(share: float) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        run_chain(rgb_frame(640, 8), [Blur()], {}, rows=16, workers=2, progress=give_up)


def test_progress_reaches_one_and_seconds_are_counted() -> None:
    shares: list[float] = []
    seconds = [0.0, 0.0]
    run_chain(rgb_frame(100, 8), [Blur(), Blur()], {}, rows=16, progress=shares.append, seconds=seconds)
    assert shares == sorted(shares) and shares[-1] == 1.0
    assert all(spent > 0 for spent in seconds)
