"""Laws of the guards: any bands give the same pixels, the input's colours and flat areas stay, halos are bounded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from restorekit.color.difference import ciede2000, rgb_to_lab
from restorekit.color.transfer import decode
from restorekit.errors import InputError
from restorekit.stages.guard_strips import STRIP
from restorekit.stages.guards import Guards
from restorekit.stages.resampling import bicubic, resampled

SIZES = ((1, 1), (1, 9), (9, 1), (2, 3), (17, 30), (100, 21))
SCALES = (1, 2, 3, 4)
ALL = Guards(amount=0.7, detail=0.5, lock_color=True, overshoot=0.1)
CODE = 1 / 255


def guarded(guards: Guards, output: Tensor, picture: Tensor, rows: int = 10_000) -> Tensor:
    """The whole result, from bands of ``rows``."""
    given = output.clone()
    height, scale = picture.shape[1], output.shape[1] // picture.shape[1]
    bands = ((top, output[:, top : top + rows]) for top in range(0, output.shape[1], rows))
    pieces, end = [], 0
    for top, band in guards.apply(bands, lambda first, last: picture[:, first:last], height, scale):
        assert top == end
        end += band.shape[1]
        pieces.append(band)
    assert torch.equal(output.nan_to_num(), given.nan_to_num())
    return torch.cat(pieces, 1)


def enlarged(picture: Tensor, scale: int) -> Tensor:
    return resampled(picture, picture.shape[1] * scale, picture.shape[2] * scale, bicubic)


def sample(channels: int, height: int, width: int, scale: int) -> tuple[Tensor, Tensor]:
    """A picture of smooth areas and noise, and a network's output that deviates from it."""
    random = torch.Generator().manual_seed(height * width + scale)
    coarse = torch.rand((channels, height // 8 + 1, width // 8 + 1), generator=random)
    picture = resampled(coarse, height, width, bicubic) + 0.05 * torch.randn(
        (channels, height, width), generator=random
    )
    picture = picture.clamp(0, 1)
    output = enlarged(picture, scale)
    return picture, output * 1.03 + 0.05 * torch.randn(output.shape, generator=random)


def cast(output: Tensor) -> Tensor:
    """A strong tint: a gain a channel, and gradients."""
    down, across = torch.meshgrid(*(torch.linspace(0, 1, size) for size in output.shape[1:]), indexing="ij")
    gains = torch.tensor([1.05, 1.0, 0.93])[:, None, None]
    return output * gains + torch.stack((0.03 * across, 0.02 * (1 - down), 0.03 * down))


def low_frequency_difference(result: Tensor, picture: Tensor) -> float:
    """Mean CIEDE2000 of two pictures smoothed by a Gaussian of 16 px in linear light."""
    labs = []
    for encoded in (result.clamp(0, 1), picture):
        light = decode(encoded, "srgb").permute(1, 2, 0).numpy()
        small = cv2.resize(light, picture.shape[:0:-1], interpolation=cv2.INTER_AREA)
        smooth = cv2.GaussianBlur(small, (0, 0), 16.0, borderType=cv2.BORDER_REFLECT)
        labs.append(rgb_to_lab(torch.from_numpy(smooth).permute(2, 0, 1), "bt709"))
    return float(ciede2000(*labs).mean())


def kodak(folder: Path, name: str) -> Tensor:
    image = cv2.imread(str(folder / "bench" / "kodak24" / name))
    if image is None:
        pytest.skip(f"needs {name} of the Kodak set in {folder}")
    return torch.from_numpy(np.ascontiguousarray(image[:, :, ::-1])).permute(2, 0, 1).float().div(255)


class TestBands:
    @pytest.mark.parametrize("scale", SCALES)
    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("size", SIZES)
    def test_any_bands_give_the_same_bits(self, size: tuple[int, int], channels: int, scale: int) -> None:
        picture, output = sample(channels, *size, scale)
        whole = guarded(ALL, output, picture)
        assert whole.shape == output.shape
        assert bool(whole.isfinite().all())
        for rows in (1, 7, 8 * scale):
            assert torch.equal(whole, guarded(ALL, output, picture, rows))

    def test_only_the_halo_is_read_ahead(self) -> None:
        picture, output = sample(3, 300, 8, 2)
        given = 0

        def bands() -> Iterator[tuple[int, Tensor]]:
            nonlocal given
            for top in range(0, 600, 10):
                given = top + 10
                yield top, output[:, top : top + 10]

        for top, band in ALL.apply(bands(), lambda first, last: picture[:, first:last], 300, 2):
            assert given <= top + band.shape[1] + 2 * (ALL.halo + STRIP) + 10

    def test_nothing_outside_the_halo_counts(self) -> None:
        picture, output = sample(3, 30 * STRIP, 20, 1)
        middle = slice(12 * STRIP, 14 * STRIP)
        top, bottom = middle.start - -(-ALL.halo // STRIP) * STRIP, middle.stop + ALL.halo
        part = guarded(ALL, output[:, top:bottom], picture[:, top:bottom])
        whole = guarded(ALL, output, picture)
        assert torch.allclose(part[:, middle.start - top : middle.stop - top], whole[:, middle], atol=1e-6)

    @pytest.mark.parametrize(
        "bands", [((0, 4), (5, 4)), ((0, 4),), ((4, 4), (0, 4)), ((0, 12),)], ids=("gap", "end", "order", "too many")
    )
    def test_bands_that_do_not_fit_are_refused(self, bands: tuple[tuple[int, int], ...]) -> None:
        given = iter([(first, torch.zeros(3, rows, 8)) for first, rows in bands])
        with pytest.raises(InputError, match="band"):
            list(Guards().apply(given, lambda first, last: torch.zeros(3, last - first, 4), 4, 2))

    def test_values_that_are_not_finite_are_replaced(self) -> None:
        picture, output = sample(3, 40, 30, 2)
        picture[:, 3, 3] = torch.nan
        output[:, 20:23, 20:30] = torch.tensor([torch.nan, torch.inf, -torch.inf])[:, None]
        for guards in (Guards(), ALL):
            assert bool(guarded(guards, output, picture).isfinite().all())
        there = guarded(Guards(), output, picture)[:, 20:23, 20:30]
        assert torch.allclose(there, enlarged(picture.nan_to_num(), 2)[:, 20:23, 20:30], atol=1e-6)


class TestAmountAndDetail:
    def test_without_guards_nothing_changes(self) -> None:
        picture, output = sample(3, 21, 30, 3)
        assert torch.equal(guarded(Guards(), output, picture), output)

    @pytest.mark.parametrize("scale", SCALES)
    def test_no_amount_is_the_input_enlarged(self, scale: int) -> None:
        picture, output = sample(3, 21, 30, scale)
        for guards in (Guards(amount=0), Guards(amount=0, detail=0.5, lock_color=True, overshoot=0.0)):
            assert torch.allclose(guarded(guards, output, picture), enlarged(picture, scale), atol=1e-6)

    def test_an_amount_is_a_share(self) -> None:
        picture, output = sample(1, 21, 30, 2)
        wanted = 0.25 * output + 0.75 * enlarged(picture, 2)
        assert torch.allclose(guarded(Guards(amount=0.25), output, picture), wanted, atol=1e-6)

    def test_detail_is_that_of_the_wavelet(self) -> None:
        picture, output = sample(1, 40, 50, 1)

        def fine(plane: Tensor) -> NDArray[np.float32]:
            smooth = values = np.asarray(plane[0], np.float32)
            for spacing in (1, 2):
                spline = np.zeros(4 * spacing + 1)
                spline[::spacing] = np.array([1, 4, 6, 4, 1]) / 16
                smooth = np.asarray(
                    cv2.sepFilter2D(smooth, -1, spline, spline, borderType=cv2.BORDER_REFLECT), np.float32
                )
            return values - smooth

        result = guarded(Guards(detail=0.6), output, picture)[0].numpy()
        wanted = output[0].numpy() + 0.6 * (fine(picture) - fine(output))
        np.testing.assert_allclose(result, wanted, atol=1e-6)

    @pytest.mark.parametrize("scale", SCALES)
    def test_all_detail_leaves_coarse_changes_of_the_network(self, scale: int) -> None:
        picture = sample(1, 40, 50, scale)[0]
        ripple = 0.1 * torch.cos(torch.arange(50 * scale) * (2 * torch.pi / scale / 2.5))  # finer than two levels
        output = enlarged(picture, scale) + 0.1 + ripple
        result = guarded(Guards(detail=1.0), output, picture)[:, :, 12 * scale : -12 * scale]
        wanted = enlarged(picture, scale)[:, :, 12 * scale : -12 * scale] + 0.1
        assert float((result - wanted).abs().max()) < 0.01

    @pytest.mark.parametrize("values", [{"amount": 1.1}, {"detail": -0.1}, {"overshoot": -1.0}, {"amount": torch.nan}])
    def test_values_out_of_range_are_refused(self, values: dict[str, float]) -> None:
        with pytest.raises(InputError, match=next(iter(values))):
            Guards(**values)  # type: ignore[arg-type]


class TestColor:
    @pytest.mark.parametrize("scale", SCALES)
    def test_a_uniform_cast_goes(self, scale: int) -> None:
        picture = torch.tensor([0.6, 0.5, 0.3])[:, None, None].expand(3, 45, 30).contiguous()
        output = enlarged(picture, scale) * torch.tensor([1.1, 0.95, 0.8])[:, None, None]
        result = guarded(Guards(lock_color=True), output, picture)
        assert torch.allclose(result, enlarged(picture, scale), atol=1e-5)

    def test_a_faithful_output_stays(self) -> None:
        picture = sample(3, 60, 50, 1)[0]
        assert torch.allclose(guarded(Guards(lock_color=True), picture, picture), picture, atol=1e-5)

    @pytest.mark.parametrize("scale", SCALES)
    def test_gray_stays_gray(self, scale: int) -> None:
        gray = sample(1, 40, 50, scale)[0].expand(3, -1, -1)
        for overshoot in (None, 0.02):
            result = guarded(Guards(lock_color=True, overshoot=overshoot), cast(enlarged(gray, scale)), gray)
            assert float((result.amax(0) - result.amin(0)).max()) <= 0.5 * CODE

    @pytest.mark.parametrize("name", ["03.png", "14.png", "23.png"])
    def test_low_frequencies_are_those_of_a_photograph(self, shared_data: Path, name: str) -> None:
        picture = kodak(shared_data, name)[:, ::2, ::2].contiguous()
        output = cast(enlarged(picture, 2))
        assert low_frequency_difference(output, picture) > 3.5
        for overshoot in (None, 0.02):
            result = guarded(Guards(lock_color=True, overshoot=overshoot), output, picture)
            assert low_frequency_difference(result, picture) <= 0.3

    def test_low_frequencies_are_those_of_a_made_picture(self) -> None:
        picture = sample(3, 120, 160, 2)[0]
        output = cast(enlarged(picture, 2))
        assert low_frequency_difference(output, picture) > 3.0
        assert low_frequency_difference(guarded(Guards(lock_color=True), output, picture), picture) <= 0.3

    def test_gray_pictures_keep_their_brightness(self) -> None:
        picture, output = sample(1, 120, 60, 2)
        before, after = (
            (decode(x, "srgb").mean() - decode(picture, "srgb").mean()).abs()
            for x in (output, guarded(Guards(lock_color=True), output, picture))
        )
        assert float(after) < 0.2 * float(before)


class TestOvershoot:
    @pytest.mark.parametrize("scale", SCALES)
    def test_halos_are_bounded_and_flat_areas_exact(self, scale: int) -> None:
        picture = torch.full((3, 40, 40), 0.2)
        picture[:, :, 14:] = 0.8
        picture[:, :, 28:] = 1.0
        picture[:, 20:, :14] = 0.0
        smooth = enlarged(picture, scale)
        output = smooth + 0.1 * torch.randn(smooth.shape, generator=torch.Generator().manual_seed(1))
        result = guarded(Guards(lock_color=True, overshoot=0.02), output, picture)
        step = result[:, : 18 * scale, : 26 * scale]
        assert float(output.min()) < 0.1 < 0.2 - 0.02 * 0.6 - 1e-6 <= float(step.min())
        assert float(step.max()) <= 0.8 + 0.02 * 0.6 + 1e-6
        assert bool((result[:, :, 30 * scale :] == 1).all())
        assert bool((result[:, 22 * scale :, : 12 * scale] == 0).all())

    def test_the_range_is_that_of_nine_pixels(self) -> None:
        picture, output = sample(3, 25, 31, 1)
        image = picture.permute(1, 2, 0).numpy()
        box = np.ones((3, 3), np.uint8)
        low, high = cv2.erode(image, box), cv2.dilate(image, box)
        wanted = np.clip(output.permute(1, 2, 0).numpy(), low - 0.25 * (high - low), high + 0.25 * (high - low))
        result = guarded(Guards(overshoot=0.25), output, picture).permute(1, 2, 0).numpy()
        np.testing.assert_allclose(result, wanted, atol=1e-6)

    def test_values_within_the_range_stay(self) -> None:
        picture = torch.rand((3, 25, 31), generator=torch.Generator().manual_seed(1))
        output = enlarged(picture, 2) + 0.2
        assert torch.equal(guarded(Guards(overshoot=1e4), output, picture), output)
