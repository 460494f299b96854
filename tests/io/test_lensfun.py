from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from restorekit.io.lensfun import KnownLens, LensUnknown, Shot, find

lensfunpy = pytest.importorskip("lensfunpy")

KIT = Shot("Canon", "Canon EOS 550D", "EF-S18-55mm f/3.5-5.6 IS", 18.0, 3.5)
ZOOM = Shot("Canon", "Canon EOS 5D Mark III", "EF24-105mm f/4L IS USM", 24.0, 4.0)
FOUR_THIRDS = Shot("Panasonic", "DMC-GX7", "LUMIX G VARIO 12-32/F3.5-5.6", 12.0, 3.5)
FISHEYE = Shot("Canon", "Canon EOS 5D Mark III", "Canon EF 8-15mm f/4L Fisheye USM", 8.0, 4.0)
COMPACT = Shot("Canon", "Canon PowerShot G12", "", 6.1, 2.8)


def modifier(known: KnownLens, width: int, height: int, flags: int) -> Any:
    made = lensfunpy.Modifier(known.lens, known.crop_factor, width, height)
    f_number = known.shot.f_number or 8.0
    made.initialize(known.focal_length_mm, f_number, 1000.0, 1.0, pixel_format=np.float32, flags=flags)
    return made


class TestDistortion:
    @pytest.mark.parametrize("shot", [KIT, ZOOM, FOUR_THIRDS, COMPACT], ids=lambda shot: shot.model)
    @pytest.mark.parametrize("size", [(6000, 4000), (3000, 4000), (1920, 1080)])
    def test_is_lensfuns_to_a_hundredth_of_a_pixel(self, shot: Shot, size: tuple[int, int]) -> None:
        """Pixel by pixel: along rows lensfun adds up rounding errors of 0.2 px and more."""
        known, (width, height) = find(shot), size
        planes = known.distortion(width, height, geometry=True, lateral_ca=True)
        own = modifier(known, width, height, 1 | 8)
        middle = np.array((width - 1, height - 1)) / 2
        for x in np.linspace(0, width - 1, 9):
            for y in np.linspace(0, height - 1, 7):
                wanted = own.apply_subpixel_geometry_distortion(x, y, 1, 1)[0, 0]
                offset = (x, y) - middle
                radius = np.linalg.norm(offset) / np.linalg.norm(middle)
                for plane, at in zip(planes, wanted, strict=True):
                    got = middle + offset * np.polynomial.polynomial.polyval(radius, plane)
                    assert np.abs(got - at).max() < 0.01

    def test_kinds_of_correction(self) -> None:
        known = find(KIT)
        red, green, blue = known.distortion(600, 400, geometry=True, lateral_ca=False)
        assert red == green == blue
        red, green, blue = known.distortion(600, 400, geometry=False, lateral_ca=True)
        assert green == (1.0,)
        assert abs(red[0] - 1) > 1e-4 and abs(blue[0] - 1) > 1e-4
        assert known.distortion(600, 400, geometry=False, lateral_ca=False) == ()

    def test_does_not_depend_on_resolution(self) -> None:
        known, radii = find(ZOOM), np.linspace(0.1, 1.0, 20)
        small, large = (
            known.distortion(*size, geometry=True, lateral_ca=True)[0] for size in ((601, 401), (6001, 4001))
        )
        values = [np.polynomial.polynomial.polyval(radii, plane) for plane in (small, large)]
        assert np.abs(values[0] - values[1]).max() < 2e-6

    def test_strong_fisheyes_stay_within_a_fiftieth_of_a_pixel(self) -> None:
        known = find(FISHEYE)
        planes = known.distortion(6000, 4000, geometry=True, lateral_ca=True)
        own = modifier(known, 6000, 4000, 1 | 8)
        for x in (0, 1000, 2000, 2990, 4444, 5999):
            wanted = own.apply_subpixel_geometry_distortion(x, 700.0, 1, 1)[0, 0, 0]
            offset = np.array((x - 2999.5, 700 - 1999.5))
            factor = np.polynomial.polynomial.polyval(np.linalg.norm(offset) / np.hypot(2999.5, 1999.5), planes[0])
            assert np.abs(offset * factor + (2999.5, 1999.5) - wanted).max() < 0.02


class TestVignetting:
    @pytest.mark.parametrize("shot", [KIT, ZOOM, FOUR_THIRDS], ids=lambda shot: shot.model)
    @pytest.mark.parametrize("size", [(301, 201), (201, 301)])
    def test_is_lensfuns(self, shot: Shot, size: tuple[int, int]) -> None:
        known, (width, height) = find(shot), size
        gain = np.ones((height, width, 3), np.float32)
        modifier(known, width, height, 2).apply_color_modification(gain)
        y, x = np.mgrid[0:height, 0:width]
        middle = np.array((width - 1, height - 1)) / 2
        squared = ((x - middle[0]) ** 2 + (y - middle[1]) ** 2) / (middle**2).sum()
        light = np.polynomial.polynomial.polyval(squared, known.vignetting)
        assert gain.max() > 1.2
        assert np.abs(gain[..., 1] * light - 1).max() < 1e-4

    def test_the_aperture_counts(self) -> None:
        wide, narrow = (sum(find(replace(KIT, f_number=f_number)).vignetting) for f_number in (3.5, 11.0))
        assert wide < narrow < 1
        assert find(replace(KIT, f_number=None)).vignetting == ()

    def test_far_away_is_far_away(self) -> None:
        assert find(replace(KIT, distance_m=1e9)).vignetting == find(KIT).vignetting


class TestFinding:
    @pytest.mark.parametrize(
        ("shot", "name"),
        [
            (KIT, "Canon EF-S 18-55mm f/3.5-5.6 IS"),
            (replace(KIT, lens="EF-S18-55mm f/3.5-5.6 IS STM"), "Canon EF-S 18-55mm f/3.5-5.6 IS STM"),
            (ZOOM, "Canon EF 24-105mm f/4L IS USM"),
            (replace(ZOOM, lens="EF24-105mm f/4L IS II USM"), "Canon EF 24-105mm f/4L IS II USM"),
            (FOUR_THIRDS, "Lumix G Vario 12-32mm f/3.5-5.6 Asph. Mega OIS"),
            (COMPACT, "Canon PowerShot G12 & compatibles (Standard)"),
            (Shot("SONY", "ILCE-7M3", "FE 24-105mm F4 G OSS", 24.0, 4.0), "FE 24-105mm f/4 G OSS"),
            (Shot("FUJIFILM", "X-T3", "XF18-55mmF2.8-4 R LM OIS", 18.0, 2.8), "XF18-55mmF2.8-4 R LM OIS"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_names_as_cameras_write_them(self, shot: Shot, name: str) -> None:
        assert find(shot).name == name

    @pytest.mark.parametrize(
        "shot",
        [
            replace(KIT, lens="18-55mm"),
            Shot("NIKON CORPORATION", "NIKON D500", "24.0-70.0 mm f/2.8", 70.0, 2.8),
            Shot("Canon", "Canon EOS 550D", "24-105mm", 24.0),
        ],
        ids=lambda shot: shot.lens,
    )
    def test_nothing_is_guessed_of_several(self, shot: Shot) -> None:
        with pytest.raises(LensUnknown, match="several lenses") as error:
            find(shot)
        assert error.value.named

    @pytest.mark.parametrize(
        ("shot", "message"),
        [
            (replace(KIT, lens="Secret 12-34mm f/1"), "does not know the lens 'Secret 12-34mm f/1' of Canon EOS 550D"),
            (replace(KIT, lens=""), "a lens without a name"),
            (replace(KIT, focal_length_mm=200.0), "does not know the lens"),
            (replace(KIT, focal_length_mm=None), "give focal_length_mm"),
            (replace(KIT, model="Canon EOS 9999D"), "does not know the camera 'Canon EOS 9999D'"),
            (Shot(), "a camera without a name"),
        ],
    )
    def test_what_is_missing_is_said(self, shot: Shot, message: str) -> None:
        with pytest.raises(LensUnknown, match=message):
            find(shot)

    def test_a_new_camera_needs_its_crop_factor(self) -> None:
        new = replace(KIT, model="Canon EOS 9999D", lens="Canon EF-S 18-55mm f/3.5-5.6 IS")
        assert find(replace(new, crop_factor=1.6)).crop_factor == 1.6
        assert find(replace(new, equivalent_mm=29.0)).crop_factor == pytest.approx(29 / 18)
        assert find(replace(new, crop_factor=1.6)).name == "Canon EF-S 18-55mm f/3.5-5.6 IS"

    def test_primes_need_no_focal_length(self) -> None:
        assert find(Shot("Canon", "Canon EOS 550D", "EF50mm f/1.8 II")).focal_length_mm == 50

    def test_larger_sensors_calibrate_smaller_ones(self) -> None:
        """A lens measured on both sizes of sensor: on full frame only the larger one will do."""
        full, small = find(ZOOM), find(replace(ZOOM, model="Canon EOS 550D"))
        assert full.lens.crop_factor == pytest.approx(1.0, abs=0.01)
        assert small.name == full.name and small.lens.crop_factor <= 1.05 * small.crop_factor
