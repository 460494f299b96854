from __future__ import annotations

import colour
import numpy as np
import pytest
import torch

from restorekit.color.transfer import HLG_WHITE, PQ_WHITE, decode, encode
from restorekit.state import Transfer

CURVES: tuple[Transfer, ...] = ("srgb", "gamma", "pq", "hlg")
LIGHT = np.concatenate([np.linspace(0, 0.01, 1001), np.geomspace(1e-6, 8.0, 5000), [0.0031308, 0.0031309, 1.0]])


def reference(linear: np.ndarray, transfer: Transfer) -> np.ndarray:
    """The standards' formulas, by colour-science, for light >= 0."""
    if transfer == "srgb":
        return np.asarray(colour.models.eotf_inverse_sRGB(linear))
    if transfer == "gamma":
        return linear ** (1 / 2.2)
    if transfer == "pq":
        return np.asarray(colour.models.eotf_inverse_ST2084(linear * 203.0))
    return np.asarray(colour.models.oetf_BT2100_HLG(linear * HLG_WHITE))


@pytest.mark.parametrize("transfer", CURVES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 2e-7), (torch.float32, 1e-5)])
def test_encode_follows_the_standard(transfer: Transfer, dtype: torch.dtype, tolerance: float) -> None:
    got = encode(torch.tensor(LIGHT, dtype=dtype), transfer).double().numpy()
    assert np.abs(got - reference(LIGHT, transfer)).max() < tolerance


def test_srgb_in_float32_is_exact_to_a_tenth_of_a_16_bit_step() -> None:
    inside = LIGHT[LIGHT <= 1]
    got = encode(torch.tensor(inside, dtype=torch.float32), "srgb").double().numpy()
    assert np.abs(got - reference(inside, "srgb")).max() < 0.1 / 65535


@pytest.mark.parametrize("transfer", CURVES)
def test_decode_follows_the_standard(transfer: Transfer) -> None:
    codes = torch.tensor(reference(LIGHT, transfer))
    got = decode(codes, transfer).numpy()
    assert np.abs(got - LIGHT).max() < 2e-7


@pytest.mark.parametrize("transfer", CURVES)
def test_decode_undoes_encode_in_float32_above_white_and_below_zero(transfer: Transfer) -> None:
    light = torch.tensor(np.concatenate([-LIGHT[::-1], LIGHT]), dtype=torch.float32)
    back = decode(encode(light, transfer), transfer)
    assert ((back - light).abs() <= 1e-4 * light.abs() + 1e-6).all()


@pytest.mark.parametrize("transfer", CURVES)
def test_curves_are_odd_and_rise(transfer: Transfer) -> None:
    light = torch.linspace(0, 2, 2001, dtype=torch.float64)[1:]
    codes, mirrored = encode(light, transfer), encode(-light, transfer)
    assert torch.allclose(mirrored, -codes, atol=1e-12)
    assert (codes.diff() > 0).all()
    assert encode(torch.zeros(1), transfer).abs() < 1e-6


def test_black_is_exactly_black_in_srgb() -> None:
    assert encode(torch.zeros(3, 2, 5), "srgb").abs().max() == 0
    assert decode(torch.zeros(3, 2, 5), "srgb").abs().max() == 0


def test_known_values() -> None:
    """BT.2408: diffuse white of 203 cd/m2 is 58 % PQ and 75 % HLG; IEC 61966-2-1: middle gray is 46 %."""
    one = torch.ones(1, dtype=torch.float64)
    assert encode(one, "pq").item() == pytest.approx(0.5807, abs=1e-4)
    assert encode(one, "hlg").item() == pytest.approx(0.75, abs=1e-6)
    assert encode(one, "srgb").item() == pytest.approx(1.0, abs=1e-6)
    assert encode(one * 0.18, "srgb").item() == pytest.approx(0.46135, abs=1e-5)
    assert encode(one / PQ_WHITE, "pq").item() == pytest.approx(1.0, abs=1e-9)
    assert encode(one / HLG_WHITE, "hlg").item() == pytest.approx(1.0, abs=1e-7)
    assert encode(one * 1000 / 203, "pq").item() == pytest.approx(0.7518, abs=1e-4)


def test_a_plane_does_not_depend_on_the_others() -> None:
    image = torch.rand(3, 7, 11) - 0.2
    for transfer in CURVES:
        whole = encode(image, transfer)
        for plane, result in zip(image, whole, strict=True):
            assert torch.allclose(encode(plane, transfer), result, atol=1e-6)


def test_the_input_stays_and_nan_does_not_spread() -> None:
    image = torch.tensor([[[-0.5, float("nan"), 0.5]]])
    before = image.clone()
    codes = encode(image, "srgb")
    assert torch.equal(image.nan_to_num(7), before.nan_to_num(7))
    assert codes[0, 0, 0] == -codes[0, 0, 2] < 0
    assert codes[0, 0, 1].isnan()


def test_linear_is_left_as_it_is() -> None:
    image = torch.rand(3, 2, 2)
    assert encode(image, "linear") is image
    assert decode(image, "linear") is image


def test_empty_images_pass() -> None:
    assert encode(torch.zeros(3, 0, 4), "srgb").shape == (3, 0, 4)
