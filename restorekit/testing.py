"""Laws that every stage keeps, as a base class for tests; plugin authors use it too.

>>> class TestMyStage(StageLaws):
...     stages = (MyStage(), MyStage(radius=5))
...     frames = (rgb_frame(), rgb_frame(height=33, width=47))
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch

from restorekit.facts import Camera, Facts
from restorekit.frame import Frame
from restorekit.stage import Stage
from restorekit.state import ImageState
from restorekit.strips import Collector, run_chain

STRIP_HEIGHTS = (16, 34, 128)


def rgb_frame(
    height: int = 45, width: int = 52, *, state: ImageState | None = None, peak: float = 1.0, seed: int = 0
) -> Frame:
    """A seeded frame of smooth shapes, edges and a little noise, values 0..``peak``."""
    return Frame(_scene(3, height, width, peak, seed), state or ImageState(transfer="linear"), facts=_facts(3))


def bayer_frame(height: int = 46, width: int = 52, *, pattern: str = "RGGB", peak: float = 1.0, seed: int = 0) -> Frame:
    """A seeded scene-referred mosaic after black level, with its camera and facts."""
    plane = _scene(1, height, width, peak, seed)
    camera = Camera(make="Test", model="Mosaic", cfa=(pattern[:2], pattern[2:]), neutral=(0.5, 1.0, 0.7))
    masks = {"clipped": plane >= 1.0}
    return Frame(plane, ImageState("bayer", "scene", "linear", "camera"), masks=masks, camera=camera, facts=_facts(1))


def _facts(channels: int) -> Facts:
    return Facts(illuminant=(0.5, 1.0, 0.7), clip_level=(1.0,) * channels, noise=((1e-4, 1e-6),) * channels)


def _scene(channels: int, height: int, width: int, peak: float, seed: int) -> torch.Tensor:
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    planes = []
    for channel in range(channels):
        smooth = 0.5 + 0.3 * np.sin(7 * x + channel) * np.cos(5 * y - channel)
        edge = 0.25 * ((x + 0.3 * y) > 0.45) * (channel + 1) / channels
        planes.append(smooth * 0.7 + edge + random.normal(0, 0.01, (height, width)))
    scene = np.clip(np.stack(planes), 0.01, 1.0) * peak
    return torch.from_numpy(scene.astype(np.float32))


def in_strips(stage: Stage, frame: Frame, rows: int) -> Frame:
    """What the engine makes of one pointwise or local stage with strips of this height."""
    stage.check(frame)
    frame = frame.as_float()
    if stage.needs_measure(frame):
        frame = replace(frame, facts=stage.measure(frame))
    collector = Collector()
    run_chain(frame, [stage], {0: [collector]}, rows=rows)
    return collector.frame()


class StageLaws:
    """Inherit, set ``stages`` and ``frames``, and pytest checks every stage on every frame."""

    stages: ClassVar[tuple[Stage, ...]] = ()
    frames: ClassVar[tuple[Frame, ...]] = ()
    tolerance: ClassVar[float] = 1e-5
    scales_with_exposure: ClassVar[bool] = False

    def _cases(self) -> list[tuple[Stage, Frame]]:
        assert self.stages and self.frames, "name the stages and frames to test"
        return [(stage, frame) for stage in self.stages for frame in self.frames]

    def test_strips_equal_the_whole_image(self) -> None:
        for stage, frame in self._cases():
            if stage.reach().kind == "global":
                continue
            whole = stage(frame)
            for rows in STRIP_HEIGHTS:
                strips = in_strips(stage, frame, rows)
                _close(strips.pixels, whole.pixels, self.tolerance, f"{stage} in strips of {rows}")
                for name, mask in whole.masks.items():
                    _close(strips.masks[name], mask, 0.0, f"{stage} mask {name} in strips of {rows}")
                if whole.alpha is not None:
                    assert strips.alpha is not None
                    _close(strips.alpha, whole.alpha, self.tolerance, f"{stage} alpha in strips of {rows}")

    def test_gives_the_state_it_declares(self) -> None:
        channels = {"bayer": 1, "xtrans": 1, "gray": 1, "rgb": 3}
        for stage, frame in self._cases():
            result = stage(frame)
            assert result.state == stage.emits(frame.state)
            assert result.pixels.shape[0] == channels[result.state.layout]
            assert result.pixels.dtype == torch.float32
            for plane in (result.alpha, *result.masks.values()):
                assert plane is None or plane.shape[1:] == result.pixels.shape[1:]
            for fact in stage.spec.adds:
                assert getattr(result.facts, fact) is not None, f"{stage} does not add {fact}"

    def test_leaves_its_input_alone(self) -> None:
        for stage, frame in self._cases():
            before = frame.pixels.clone()
            masks = {name: mask.clone() for name, mask in frame.masks.items()}
            stage(frame)
            assert torch.equal(frame.pixels, before), f"{stage} changed its input"
            assert all(torch.equal(frame.masks[name], mask) for name, mask in masks.items())

    def test_is_deterministic(self) -> None:
        for stage, frame in self._cases():
            assert torch.equal(stage(frame).pixels, stage(frame).pixels)

    def test_scales_with_exposure(self) -> None:
        if not self.scales_with_exposure:
            return
        for stage, frame in self._cases():
            brighter = replace(frame, pixels=frame.as_float().pixels * 2, facts=frame.facts.scaled((2.0,)))
            _close(stage(brighter).pixels, stage(frame).pixels * 2, 4 * self.tolerance, f"{stage} at twice the light")


def _close(got: torch.Tensor, want: torch.Tensor, tolerance: float, what: Any) -> None:
    assert got.shape == want.shape, f"{what}: shape {tuple(got.shape)} instead of {tuple(want.shape)}"
    if got.numel():
        error = float((got.float() - want.float()).abs().max())
        assert error <= tolerance, f"{what}: differs by {error:.2e}"
