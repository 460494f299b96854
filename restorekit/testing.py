"""Laws that every stage keeps, as a base class for tests; plugin authors use it too.

>>> class TestMyStage(StageLaws):
...     stages = (MyStage(), MyStage(radius=5))
...     frames = (rgb_frame(), rgb_frame(height=33, width=47))
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

import cv2
import numpy as np
import torch

from restorekit.color.transfer import encode
from restorekit.facts import Camera, Facts, Matrix
from restorekit.frame import Bracket, Frame
from restorekit.stage import BracketStage, Stage
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


class Scene:
    """A seeded scene of some ten stops, known between its pixels: what any camera sees of it has a known truth.

    >>> scene = Scene(300, 400)
    >>> dark, moved = coded(scene.shot(ev=-2)), coded(scene.shot(pose, seed=1))
    """

    MARGIN_PX = 64
    """What cameras may see beside the picture that the identity sees; beyond, the scene is mirrored."""

    def __init__(self, height: int, width: int, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        rows, columns = 2 * (height + 2 * self.MARGIN_PX), 2 * (width + 2 * self.MARGIN_PX)
        stops = np.zeros((rows, columns, 3), np.float32)
        for cell, strength in ((3, 0.15), (8, 0.3), (24, 0.5), (80, 0.9), (240, 1.7)):
            noise = random.normal(size=(rows // cell + 2, columns // cell + 2, 3)).astype(np.float32)
            noise = 0.2 * noise + noise.mean(2, keepdims=True)
            stops += strength * cv2.resize(noise, (columns, rows), interpolation=cv2.INTER_CUBIC)
        for _ in range(60):
            middle = float(random.uniform(0, columns)), float(random.uniform(0, rows))
            size = float(random.uniform(10, columns / 8)), float(random.uniform(10, rows / 8))
            corners = cv2.boxPoints((middle, size, float(random.uniform(0, 90)))).astype(np.int32)
            inside = np.zeros((rows, columns), np.uint8)
            cv2.fillConvexPoly(inside, corners, 1)
            stops[inside > 0] += (random.normal(0, 1, 1) + random.normal(0, 0.3, 3)).astype(np.float32)
        light = np.exp2(cv2.GaussianBlur(stops, (0, 0), 1.6) - 2.5)
        self.height, self.width = height, width
        self._light = torch.from_numpy(light).permute(2, 0, 1).contiguous()

    def light(self, pose: Matrix | None = None) -> torch.Tensor:
        """``[3,H,W]`` linear light; ``pose`` ``[3,3]`` maps (x, y, 1) of the unmoved picture to this one."""
        back = np.linalg.inv(np.eye(3) if pose is None else pose)
        x, y = np.meshgrid(np.arange(self.width), np.arange(self.height))
        at = np.stack((x, y, np.ones_like(x)), -1) @ back.T
        size = np.array([self.width + 2 * self.MARGIN_PX, self.height + 2 * self.MARGIN_PX])
        places = (at[..., :2] / at[..., 2:] + self.MARGIN_PX + 0.5) * 2 / size - 1
        grid = torch.from_numpy(places.astype(np.float32))[None]
        settings: dict[str, Any] = {"mode": "bicubic", "padding_mode": "reflection", "align_corners": False}
        return torch.nn.functional.grid_sample(self._light[None], grid, **settings)[0].clamp_(min=1e-5)

    def shot(
        self, pose: Matrix | None = None, *, ev: float = 0.0, seed: int = 0, electrons: float = 2e4
    ) -> torch.Tensor:
        """``[3,H,W]`` as a sensor gathers it: with shot noise, 1.0 where it clips, at ``electrons``."""
        expected = self.light(pose).numpy() * 2.0**ev * electrons
        counted = np.random.default_rng(seed).poisson(expected).astype(np.float32)
        return torch.from_numpy(counted / np.float32(electrons)).clamp_(max=1.0)


def coded(light: torch.Tensor) -> Frame:
    """Light ``[3,H,W]`` or ``[1,H,W]`` 0..1 as a frame of 8-bit sRGB codes."""
    state = ImageState() if len(light) == 3 else ImageState(layout="gray")
    return Frame((encode(light, "srgb") * 255).round().to(torch.uint8), state)


def mosaicked(light: torch.Tensor, pattern: str = "RGGB") -> Frame:
    """Light ``[3,H,W]`` as a scene-referred mosaic ``[1,H,W]`` after black level, with what clips marked."""
    mosaic = torch.empty_like(light[:1])
    for index, color in enumerate(pattern):
        row, column = divmod(index, 2)
        mosaic[0, row::2, column::2] = light["RGB".index(color), row::2, column::2]
    camera = Camera(make="Test", model="Mosaic", cfa=(pattern[:2], pattern[2:]))
    facts = Facts(clip_level=(1.0,))
    state = ImageState("bayer", "scene", "linear", "camera")
    return Frame(mosaic, state, masks={"clipped": mosaic >= 1.0}, camera=camera, facts=facts)


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


class BracketLaws:
    """Inherit, set ``stages`` and ``brackets``, and pytest checks every bracket stage on every bracket."""

    stages: ClassVar[tuple[BracketStage, ...]] = ()
    brackets: ClassVar[tuple[Bracket, ...]] = ()

    def _cases(self) -> list[tuple[BracketStage, Bracket]]:
        assert self.stages and self.brackets, "name the stages and brackets to test"
        return [(stage, bracket) for stage in self.stages for bracket in self.brackets]

    def test_gives_the_state_it_declares(self) -> None:
        for stage, bracket in self._cases():
            result = stage.run(bracket)
            declared = stage.emits(bracket.state.changed({"frames": "bracket"}))
            assert isinstance(result, Frame) == (declared.frames == "single"), f"{stage} gives {type(result).__name__}"
            assert isinstance(result, Frame) or len(result) == len(bracket)
            sizes = {(frame.height, frame.width) for frame in _frames(result)}
            assert len(sizes) == 1, f"{stage} gives frames of {len(sizes)} sizes"
            for frame in _frames(result):
                assert frame.state == declared.changed({"frames": "single"})
                assert frame.fits_its_layout
                for plane in (frame.alpha, *frame.masks.values()):
                    assert plane is None or plane.shape[1:] == frame.pixels.shape[1:]
                assert all(mask.dtype == torch.bool for mask in frame.masks.values())
                for fact in stage.spec.adds:
                    assert getattr(frame.facts, fact) is not None, f"{stage} does not add {fact}"

    def test_leaves_its_input_alone(self) -> None:
        for stage, bracket in self._cases():
            before = [
                [plane.clone() for plane in (frame.pixels, frame.alpha, *frame.masks.values()) if plane is not None]
                for frame in bracket
            ]
            stage.run(bracket)
            for frame, planes in zip(bracket, before, strict=True):
                after = [plane for plane in (frame.pixels, frame.alpha, *frame.masks.values()) if plane is not None]
                assert len(after) == len(planes)
                assert all(map(_same, after, planes)), f"{stage} changed its input"

    def test_is_deterministic(self) -> None:
        for stage, bracket in self._cases():
            first, second = stage.run(bracket), stage.run(bracket)
            for one, other in zip(_frames(first), _frames(second), strict=True):
                assert _same(one.pixels, other.pixels), f"{stage} gives something else the second time"
                assert one.masks.keys() == other.masks.keys()
                assert all(torch.equal(mask, other.masks[name]) for name, mask in one.masks.items())


def _frames(result: Frame | Bracket) -> Iterator[Frame]:
    yield from (result,) if isinstance(result, Frame) else result


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether the values are the same, those that are no numbers included."""
    return one.dtype == other.dtype and np.array_equal(one.numpy(), other.numpy(), equal_nan=one.is_floating_point())
