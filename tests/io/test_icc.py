"""ICC profiles: those made are understood by LittleCMS (through Pillow), and known again."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from restorekit.io.icc import profile_of, space_of
from restorekit.state import ImageState, Primaries, Transfer

SPACES: list[tuple[Primaries, Transfer]] = [
    (primaries, transfer)
    for primaries in ("bt709", "p3", "bt2020", "adobe-rgb", "prophoto")
    for transfer in ("srgb", "gamma", "linear")
]


@pytest.mark.parametrize(("primaries", "transfer"), SPACES)
def test_a_made_profile_is_known_again(primaries: Primaries, transfer: Transfer) -> None:
    assert space_of(profile_of(ImageState("rgb", "display", transfer, primaries))) == (primaries, transfer)
    assert space_of(profile_of(ImageState("gray", "display", transfer, "bt709"))) == ("bt709", transfer)


def test_the_made_srgb_is_that_of_littlecms() -> None:
    ours = ImageCms.ImageCmsProfile(io.BytesIO(profile_of(ImageState())))
    theirs = ImageCms.createProfile("sRGB")
    colors = np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    image = Image.fromarray(colors)
    converted = ImageCms.profileToProfile(image, ours, theirs, renderingIntent=1)
    assert np.abs(np.asarray(converted).astype(int) - colors).max() <= 1


def test_wide_gamut_is_converted_by_littlecms_as_by_the_matrix() -> None:
    from restorekit.color.primaries import conversion

    ours = ImageCms.ImageCmsProfile(io.BytesIO(profile_of(ImageState(primaries="p3"))))
    encoded = np.array([[[200, 90, 60]]], np.uint8)
    image = ImageCms.profileToProfile(Image.fromarray(encoded), ours, ImageCms.createProfile("sRGB"), renderingIntent=1)
    assert image is not None
    levels = encoded[0, 0] / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    there = np.clip(conversion("p3", "bt709") @ linear, 0, 1)
    expected = np.where(there <= 0.0031308, there * 12.92, 1.055 * there ** (1 / 2.4) - 0.055) * 255
    assert np.abs(np.asarray(image)[0, 0] - expected).max() < 1.5


def test_littlecms_own_srgb_is_known() -> None:
    assert space_of(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()) == ("bt709", "srgb")


def test_profiles_of_other_kinds_are_not_taken_for_rgb_spaces() -> None:
    assert space_of(ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()) is None
    assert space_of(b"") is None
    profile = profile_of(ImageState())
    for size in (10, 131, 140, 300):
        assert space_of(profile[:size]) is None


def test_hdr_transfers_have_no_profile() -> None:
    assert profile_of(ImageState(transfer="pq", primaries="bt2020")) == b""
