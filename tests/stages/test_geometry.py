from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from restorekit.errors import ParameterError, StageError
from restorekit.facts import Facts, Metadata
from restorekit.frame import Frame
from restorekit.pipeline import parameter_problems
from restorekit.stages.geometry import Crop, Resize, Rotate
from restorekit.state import ImageState
from restorekit.testing import StageLaws, bayer_frame, rgb_frame

LINEAR = ImageState("rgb", "display", "linear", "bt709")
GRAY = LINEAR.changed({"layout": "gray"})


def masked(frame: Frame) -> Frame:
    alpha = torch.linspace(0, 1, frame.width).expand(1, frame.height, -1)
    return replace(frame, alpha=alpha.clone(), masks={"clipped": frame.pixels > 0.7})


class TestLaws(StageLaws):
    stages = (
        Resize(scale=0.6),
        Resize(long_edge=90),
        Resize(width=10, height=20),
        Crop(left=3, top=4, width=20),
        Crop(aspect="16:9"),
        Rotate(degrees=90),
        Rotate(degrees=-7.5, flip="horizontal"),
        Rotate(degrees=30, corners="fill", fill=0.5),
    )
    frames = (rgb_frame(state=LINEAR), masked(rgb_frame(40, 61, state=LINEAR)))


@pytest.mark.parametrize(
    ("before", "after"),
    [((123, 201), (61, 77)), ((50, 40), (131, 97)), ((7, 9), (1, 30)), ((1, 50), (1, 20)), ((80, 90), (80, 31))],
)
class TestOracles:
    def plane(self, before: tuple[int, int]) -> torch.Tensor:
        return torch.from_numpy(np.random.default_rng(0).random(before).astype(np.float32))

    def test_lanczos_is_pillows(self, before: tuple[int, int], after: tuple[int, int]) -> None:
        plane = self.plane(before)
        image = Image.fromarray(plane.numpy(), mode="F").resize(after[::-1], Image.Resampling.LANCZOS)
        result = Resize(height=after[0], width=after[1], method="lanczos")(Frame(plane[None], GRAY)).pixels[0]
        assert np.abs(result.numpy() - np.asarray(image)).max() < 1e-5

    def test_area_is_opencvs(self, before: tuple[int, int], after: tuple[int, int]) -> None:
        if after[0] > before[0] or after[1] > before[1]:
            after = (min(after[0], before[0]), min(after[1], before[1]))
        plane = self.plane(before)
        wanted = cv2.resize(plane.numpy(), after[::-1], interpolation=cv2.INTER_AREA)
        result = Resize(height=after[0], width=after[1], method="area")(Frame(plane[None], GRAY)).pixels[0]
        assert np.abs(result.numpy() - wanted).max() < 1e-5


class TestResize:
    @pytest.mark.parametrize(
        ("stage", "size"),
        [
            (Resize(), (300, 400)),
            (Resize(scale=0.5), (150, 200)),
            (Resize(long_edge=100), (75, 100)),
            (Resize(width=133), (100, 133)),
            (Resize(height=1), (1, 1)),
            (Resize(width=20, height=30), (30, 20)),
            (Resize(long_edge=800, enlarge=False), (300, 400)),
            (Resize(scale=2), (600, 800)),
        ],
        ids=str,
    )
    def test_sizes(self, stage: Resize, size: tuple[int, int]) -> None:
        assert stage(Frame(torch.full((3, 300, 400), 0.3), LINEAR)).pixels.shape[1:] == size

    @pytest.mark.parametrize("method", ["area", "lanczos"])
    @pytest.mark.parametrize("scale", [0.13, 0.5, 0.97, 2.6])
    def test_constant_images_stay(self, method: str, scale: float) -> None:
        result = Resize(scale=scale, method=method)(Frame(torch.full((3, 31, 43), 0.4), LINEAR))
        assert float((result.pixels - 0.4).abs().max()) < 1e-6

    def test_auto_averages_areas_for_strong_reductions(self) -> None:
        frame = rgb_frame(60, 90, state=LINEAR)
        for scale, method in ((0.3, "area"), (0.5, "lanczos"), (2.0, "lanczos")):
            assert torch.equal(Resize(scale=scale)(frame).pixels, Resize(scale=scale, method=method)(frame).pixels)

    def test_overshoot_is_clamped_only_on_request(self) -> None:
        frame = Frame((torch.arange(64) // 16 % 2).float().expand(1, 64, 64).clone(), GRAY)
        assert float(Resize(scale=2)(frame).pixels.max()) > 1.02
        clamped = Resize(scale=2, clamp_overshoot=True)(frame).pixels
        assert (float(clamped.min()), float(clamped.max())) == (0.0, 1.0)

    @pytest.mark.parametrize(
        "sizes", [{"scale": 0.5, "width": 10}, {"long_edge": 5, "scale": 2}, {"height": 4, "long_edge": 9}]
    )
    def test_two_sizes_are_refused_before_a_picture_is_read(self, sizes: dict[str, float]) -> None:
        (problem,) = parameter_problems(Resize, sizes)
        assert problem == "the size is given in two ways; keep one of long_edge, scale, or width and height"

    def test_no_size_is_warned_about(self) -> None:
        assert "give long_edge, scale, or width and height" in Resize().warnings(LINEAR)[0]
        assert all(not Resize(**{name: 2}).warnings(LINEAR) for name in ("width", "height", "long_edge", "scale"))

    def test_encoded_and_mosaic_frames_are_refused_with_the_cure(self) -> None:
        with pytest.raises(StageError, match=r"color\.decode"):
            Resize(scale=0.5)(rgb_frame(state=LINEAR.changed({"transfer": "srgb"})))
        with pytest.raises(StageError, match=r"raw\.demosaic"):
            Resize(scale=0.5)(bayer_frame())

    @pytest.mark.parametrize("method", ["area", "lanczos"])
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_a_value_that_is_not_finite_stays_where_it_is(self, method: str, value: float) -> None:
        frame = rgb_frame(80, 90, state=LINEAR)
        spoiled = replace(frame, pixels=frame.pixels.clone())
        spoiled.pixels[1, 40, 45] = value
        stage = Resize(scale=0.5, method=method, clamp_overshoot=True)
        result, wanted = stage(spoiled), stage(frame)
        changed = (result.pixels - wanted.pixels).abs() > 1e-6
        assert bool(result.pixels.isfinite().all())
        assert int(changed.sum()) <= 36
        assert not changed[0].any() and not changed[2].any() and not changed[:, :12].any()
        assert wanted.notes == ()
        assert "geometry.resize replaced values that are not finite (1)" in result.notes[0]

    def test_what_replaces_values_that_are_not_finite(self) -> None:
        pixels = torch.tensor([[[0.2, math.nan, math.inf, -math.inf, 0.5, -0.1]]])
        frame = Frame(pixels, GRAY, alpha=torch.tensor([[[1.0, math.nan, 1.0, 1.0, 1.0, 1.0]]]))
        result = Resize(width=12, height=1, method="area")(replace(frame, alpha=None))
        assert result.pixels[0, 0, ::2].tolist() == pytest.approx([0.2, 0.0, 0.5, -0.1, 0.5, -0.1])
        result = Resize(width=12, height=1, method="area")(frame)
        assert result.alpha is not None
        assert result.alpha[0, 0, ::2].tolist() == pytest.approx([1.0, 0.0, 1.0, 1.0, 1.0, 1.0])
        assert "not finite (4)" in result.notes[0]
        nothing = Frame(torch.full((1, 4, 4), math.nan), GRAY)
        assert torch.equal(Resize(width=2)(nothing).pixels, torch.zeros(1, 2, 2))

    def test_large_values_are_no_infinite_ones(self) -> None:
        frame = Frame(torch.full((1, 8, 8), 3e38), GRAY)
        result = Resize(width=4, method="area")(frame)
        assert result.notes == ()
        assert float(result.pixels.min()) == pytest.approx(3e38, rel=1e-5)

    def test_transparent_colours_do_not_bleed(self) -> None:
        pixels = torch.zeros(3, 8, 8)
        pixels[0, :, :4], pixels[1, :, 4:] = 1.0, 1.0
        alpha = torch.zeros(1, 8, 8)
        alpha[:, :, :4] = 1.0
        frame = Frame(pixels, LINEAR, alpha=(alpha * 255).to(torch.uint8))
        result = Resize(width=2, height=2, method="area")(replace(frame, pixels=pixels.roll(1, 2), alpha=frame.alpha))
        assert result.alpha is not None
        assert result.alpha[0, 0].tolist() == pytest.approx([1.0, 0.0])
        shifted = alpha.roll(1, 2)
        result = Resize(width=2, height=2, method="area")(replace(frame, pixels=pixels.roll(1, 2), alpha=shifted))
        assert result.alpha is not None
        assert result.alpha[0, 0].tolist() == pytest.approx([0.75, 0.25])
        assert result.pixels[:, 0, 0].tolist() == pytest.approx([1.0, 0.0, 0.0], abs=1e-5)

    def test_a_mask_is_set_where_it_touches(self) -> None:
        mask = torch.zeros(1, 40, 40, dtype=torch.bool)
        mask[0, 17, 22] = True
        frame = Frame(torch.zeros(3, 40, 40), LINEAR, masks={"clipped": mask}, facts=Facts(noise=((0.1, 0.1),)))
        result = Resize(width=10, height=10)(frame)
        assert result.masks["clipped"].dtype == torch.bool
        assert result.masks["clipped"].nonzero().tolist() == [[0, 4, 5]]
        assert result.facts.noise is None

    def test_is_done_upright(self) -> None:
        frame = replace(rgb_frame(30, 50, state=LINEAR), metadata=Metadata(orientation=6))
        result = Resize(width=15)(frame)
        assert result.pixels.shape == (3, 25, 15)
        assert result.metadata.orientation == 1


class TestCrop:
    def test_rectangle(self) -> None:
        frame = masked(rgb_frame(state=LINEAR))
        result = Crop(left=5, top=7, width=11, height=13)(frame)
        assert torch.equal(result.pixels, frame.pixels[:, 7:20, 5:16])
        assert torch.equal(result.masks["clipped"], frame.masks["clipped"][:, 7:20, 5:16])
        assert result.alpha is not None
        assert frame.alpha is not None
        assert torch.equal(result.alpha, frame.alpha[:, 7:20, 5:16])

    @pytest.mark.parametrize(
        ("stage", "size", "corner"),
        [
            (Crop(aspect="1:1"), (30, 30), (0, 10)),
            (Crop(aspect="1:1", centre_x=0), (30, 30), (0, 0)),
            (Crop(aspect="1:1", centre_x=1), (30, 30), (0, 20)),
            (Crop(aspect="2.5:1"), (20, 50), (5, 0)),
            (Crop(aspect="1:3", left=10, width=5), (15, 5), (8, 10)),
        ],
        ids=str,
    )
    def test_aspect(self, stage: Crop, size: tuple[int, int], corner: tuple[int, int]) -> None:
        place = torch.arange(30)[:, None] * 100 + torch.arange(50)
        result = stage(Frame(place[None].float(), GRAY)).pixels
        assert result.shape[1:] == size
        assert divmod(int(result[0, 0, 0]), 100) == corner

    @pytest.mark.parametrize("stage", [Crop(left=50), Crop(top=28, height=3), Crop(width=51)], ids=str)
    def test_outside_is_an_error_with_the_size(self, stage: Crop) -> None:
        with pytest.raises(StageError, match="the picture has 50x30"):
            stage(Frame(torch.zeros(1, 30, 50), GRAY))

    @pytest.mark.parametrize("aspect", ["3", "3:0", "a:b", "-3:2"])
    def test_senseless_ratios_are_refused(self, aspect: str) -> None:
        with pytest.raises(ParameterError):
            Crop(aspect=aspect)


class TestRotate:
    def test_right_angles_move_pixels(self) -> None:
        frame = masked(rgb_frame(30, 50, state=LINEAR))
        turned = Rotate(degrees=90)(frame).pixels
        assert torch.equal(turned[:, 0, -1], frame.pixels[:, 0, 0])  # top left goes to top right
        assert torch.equal(Rotate(degrees=180)(frame).pixels, frame.pixels.flip(1, 2))
        assert torch.equal(Rotate(degrees=270)(frame).pixels, Rotate(degrees=-90)(frame).pixels)
        assert torch.equal(Rotate(degrees=-90)(Rotate(degrees=90)(frame)).pixels, frame.pixels)
        assert torch.equal(Rotate(degrees=360)(frame).pixels, frame.pixels)

    def test_flips_come_first(self) -> None:
        frame = rgb_frame(30, 50, state=LINEAR)
        assert torch.equal(Rotate(flip="horizontal")(frame).pixels, frame.pixels.flip(2))
        assert torch.equal(Rotate(flip="vertical")(frame).pixels, frame.pixels.flip(1))
        both = Rotate(flip="horizontal", degrees=90)(frame).pixels
        assert torch.equal(both, frame.pixels.flip(2).rot90(-1, (1, 2)))

    @pytest.mark.parametrize("degrees", [3.0, -12.0, 40.0, 110.0])
    def test_other_angles_are_opencvs(self, degrees: float) -> None:
        y, x = np.mgrid[0:81, 0:121].astype(np.float32)
        scene = 0.5 + 0.2 * np.sin(x / 9) + 0.2 * np.cos(y / 7)
        result = Rotate(degrees=degrees, corners="fill")(Frame(torch.from_numpy(scene)[None], GRAY)).pixels[0].numpy()
        height, width = result.shape
        matrix = cv2.getRotationMatrix2D((60.0, 40.0), -degrees, 1.0)
        matrix[:, 2] += (width - 1) / 2 - 60, (height - 1) / 2 - 40
        wanted = cv2.warpAffine(scene, matrix, (width, height), flags=cv2.INTER_CUBIC)
        inside = cv2.warpAffine(np.ones_like(scene), matrix, (width, height), flags=cv2.INTER_NEAREST)
        inside = cv2.erode(inside, np.ones((7, 7))) > 0
        assert inside.sum() > 4000
        assert np.abs(result - wanted)[inside].max() < 5e-3  # OpenCV interpolates at 1/32 px

    @pytest.mark.parametrize("degrees", [0.5, 5.0, -20.0, 44.0, 45.0, 80.0, 135.0])
    @pytest.mark.parametrize("size", [(40, 60), (60, 40), (50, 50), (10, 200)])
    def test_cropping_leaves_no_empty_corner(self, degrees: float, size: tuple[int, int]) -> None:
        frame = Frame(torch.ones(1, *size), GRAY, masks={"clipped": torch.ones(1, *size, dtype=torch.bool)})
        result = Rotate(degrees=degrees)(frame)
        assert float((result.pixels - 1).abs().max()) < 1e-5
        filled = Rotate(degrees=degrees, corners="fill")(frame)
        margin = [(a - b) // 2 for a, b in zip(filled.pixels.shape[1:], result.pixels.shape[1:], strict=True)]
        window = filled.pixels[0, margin[0] + 2 : -margin[0] - 2, margin[1] + 2 : -margin[1] - 2]
        assert window.numel() == 0 or float(window.min()) > 0.99

    def test_the_crop_is_the_largest(self) -> None:
        result = Rotate(degrees=45)(Frame(torch.ones(1, 100, 100), GRAY)).pixels
        assert result.shape[1:] == (70, 70)  # a square turned by 45 degrees holds one of side 100 / sqrt 2
        assert Rotate(degrees=30)(Frame(torch.ones(1, 10, 100), GRAY)).pixels.shape[1:] == (5, 10)

    def test_filling(self) -> None:
        result = Rotate(degrees=45, corners="fill", fill=0.5)(Frame(torch.ones(3, 40, 40), LINEAR)).pixels
        assert result[:, 0, 0].tolist() == pytest.approx([0.5] * 3, abs=1e-6)
        assert result[:, 28, 28].tolist() == pytest.approx([1.0] * 3, abs=1e-5)

    @pytest.mark.parametrize("corners", ["crop", "fill"])
    def test_a_value_that_is_not_finite_stays_where_it_is(self, corners: str) -> None:
        frame = rgb_frame(60, 80, state=LINEAR)
        spoiled = replace(frame, pixels=frame.pixels.clone())
        spoiled.pixels[0, 30, 40] = math.nan
        stage = Rotate(degrees=7, corners=corners)
        result = stage(spoiled)
        assert bool(result.pixels.isfinite().all())
        assert int(((result.pixels - stage(frame).pixels).abs() > 1e-6).sum()) <= 25
        assert "geometry.rotate replaced values that are not finite (1)" in result.notes[0]

    def test_warns_on_encoded_values(self) -> None:
        encoded = LINEAR.changed({"transfer": "srgb"})
        assert "before color.encode" in Rotate(degrees=3).warnings(encoded)[0]
        assert Rotate(degrees=90).warnings(encoded) == ()
        assert Rotate(degrees=3).warnings(LINEAR) == ()
