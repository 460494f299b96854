from __future__ import annotations

import colour
import numpy as np
import pytest
import torch

from restorekit.color.adaptation import D50, D65, adaptation, chromaticity, white_xyz
from restorekit.color.primaries import CHROMATICITIES, conversion, luminance, luminance_weights, rgb_to_xyz, transformed
from restorekit.state import Primaries

ORACLES: dict[Primaries, str] = {
    "bt709": "ITU-R BT.709",
    "p3": "Display P3",
    "bt2020": "ITU-R BT.2020",
    "adobe-rgb": "Adobe RGB (1998)",
    "prophoto": "ProPhoto RGB",
    "ap1": "ACEScg",
}


@pytest.mark.parametrize(("name", "oracle"), ORACLES.items())
def test_primaries_and_matrix_are_those_of_colour_science(name: Primaries, oracle: str) -> None:
    space = colour.RGB_COLOURSPACES[oracle]
    ours = CHROMATICITIES[name]
    assert np.allclose([ours.red, ours.green, ours.blue], space.primaries, atol=1e-12)
    assert np.allclose(ours.white, space.whitepoint, atol=1e-12)
    expected = colour.models.normalised_primary_matrix(space.primaries, space.whitepoint)
    assert np.allclose(rgb_to_xyz(name), expected, atol=1e-12)


def test_bt709_matrix_is_the_published_one() -> None:
    published = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    assert np.allclose(rgb_to_xyz("bt709"), published, atol=1e-4)


def test_luminance_weights_are_those_of_the_recommendations() -> None:
    assert np.allclose(luminance_weights("bt709"), [0.2126, 0.7152, 0.0722], atol=1e-4)
    assert np.allclose(luminance_weights("bt2020"), [0.2627, 0.6780, 0.0593], atol=1e-4)
    assert np.allclose(luminance_weights("xyz"), [0, 1, 0])


@pytest.mark.parametrize("primaries", CHROMATICITIES)
def test_luminance_is_the_y_of_xyz(primaries: Primaries) -> None:
    rgb = torch.rand(3, 4, 5, dtype=torch.float64, generator=torch.manual_seed(0)) * 4 - 1
    before = rgb.clone()
    wanted = np.einsum("j,jhw->hw", rgb_to_xyz(primaries)[1], rgb.numpy())
    assert np.allclose(luminance(rgb, primaries)[0].numpy(), wanted, atol=1e-12)
    assert torch.equal(luminance(rgb[:1], primaries), rgb[:1]), "gray is its own"
    assert torch.equal(rgb, before)


@pytest.mark.parametrize("source", CHROMATICITIES)
@pytest.mark.parametrize("target", CHROMATICITIES)
def test_conversions_invert_each_other_and_keep_white(source: Primaries, target: Primaries) -> None:
    there, back = conversion(source, target), conversion(target, source)
    assert np.allclose(back @ there, np.eye(3), atol=1e-12)
    if "xyz" not in (source, target):
        assert np.allclose(there.sum(axis=1), 1, atol=1e-12)


@pytest.mark.parametrize("target", ["p3", "bt2020", "prophoto", "ap1"])
def test_conversion_matches_colour_science_with_bradford(target: Primaries) -> None:
    expected = colour.matrix_RGB_to_RGB(
        colour.RGB_COLOURSPACES["ITU-R BT.709"],
        colour.RGB_COLOURSPACES[ORACLES[target]],
        chromatic_adaptation_transform="Bradford",
    )
    # colour-science takes the rounded matrices of some standards
    assert np.allclose(conversion("bt709", target), expected, atol=3e-4)


def test_xyz_is_never_adapted() -> None:
    assert np.allclose(conversion("prophoto", "xyz"), rgb_to_xyz("prophoto"))
    assert np.allclose(conversion("prophoto", "xyz").sum(axis=1), white_xyz(D50))


def test_camera_primaries_are_refused() -> None:
    for call in (rgb_to_xyz, luminance_weights, lambda name: conversion(name, "bt709")):
        with pytest.raises(ValueError, match="camera matrix"):
            call("camera")


def test_matrices_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        conversion("bt709", "bt2020")[0, 0] = 1


def test_bradford_matches_colour_science() -> None:
    for source, target in ((D65, D50), (D50, D65), ((0.44758, 0.40745), D50)):
        expected = colour.adaptation.matrix_chromatic_adaptation_VonKries(
            colour.xy_to_XYZ(source), colour.xy_to_XYZ(target), transform="Bradford"
        )
        assert np.allclose(adaptation(source, target), expected, atol=1e-9)


def test_bradford_takes_one_white_to_the_other() -> None:
    assert np.allclose(adaptation(D65, D50) @ white_xyz(D65), white_xyz(D50))
    assert np.allclose(adaptation(D65, D50) @ adaptation(D50, D65), np.eye(3))
    assert np.allclose(chromaticity(white_xyz(D65)), D65)


def test_transformed_is_the_matrix_product() -> None:
    matrix = np.array([[0.5, 0.25, 0.0], [-1.0, 2.0, 0.125], [0.1, 0.2, 0.3]])
    pixels = torch.rand(3, 5, 7) - 0.5
    before = pixels.clone()
    result = transformed(pixels, matrix)
    expected = np.einsum("ij,jhw->ihw", matrix, pixels.double().numpy())
    assert np.abs(result.numpy() - expected).max() < 1e-6
    assert torch.equal(pixels, before)
    assert torch.equal(result[:, 2:4], transformed(pixels[:, 2:4], matrix))
