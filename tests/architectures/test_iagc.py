"""IAGC: gamma correction by a series, the network written out, and its laws."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from restorekit import inference
from restorekit.architectures import iagc
from restorekit.architectures._bands import Bands
from restorekit.architectures._windows import relative_position_index
from restorekit.architectures.iagc import COARSE_RANGE, DARKEST, FINE_RANGE, IAGC, gamma_correction
from restorekit.execution import Execution
from restorekit.testing_networks import BandLaws, RefusalLaws, filled, tiled

SMALL: dict[str, Any] = {"dim": 8, "num_blocks": [1, 1, 1], "head_dim": 8, "window": 2, "regions": 3}
GRAY: dict[str, Any] = {**SMALL, "in_channels": 1, "num_blocks": [2, 2, 1], "head_dim": 4, "expansion": 3}


@pytest.fixture(autouse=True)
def low_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small maps go into several bands too."""
    monkeypatch.setattr(iagc, "LEAST_ROWS", 1)


def network(**config: Any) -> IAGC:
    """With a residual of the size of what the curves change."""
    net = filled(IAGC(**config), 1.2)
    with torch.no_grad():
        net.fine.weight.mul_(0.05)
    return net


class TestIAGC(BandLaws, RefusalLaws):
    kind = IAGC
    build = staticmethod(network)
    configs = (SMALL, GRAY)
    others = ({"dim": 32, "num_blocks": [2, 2, 4], "head_dim": 32, "window": 8},)
    published = (({}, 1_181_955, None), ({"dim": 24, "num_blocks": (1, 1, 2), "head_dim": 24}, 374_887, None))
    size = (32, 48)
    dtype = torch.float64
    autocast = 0.02
    casts = ((torch.bfloat16, 0.05),)
    without_slope = r"far\.key\.bias"  # softmax does not see what all keys share
    untold = ("regions", "terms")
    needs = ("coarse.tell", "fine", "at_eighth", "relative_position")
    tall, rows = ((80, 32),), (4,)
    refused = (
        ({"num_blocks": [1, 1]}, r"num_blocks is \[1, 1\]"),
        ({"num_blocks": [1, 1, 0]}, "there are 3 levels"),
        ({"dim": 24, "head_dim": 32}, "dim is 24 and head_dim 32; heads must go into 48 channels"),
        ({"window": 0}, "are 1 or more"),
        ({"terms": 0}, "are 1 or more"),
    )
    refused_sizes = ((16, 24, "multiples of 16 px; pad 24 x 16 px"),)


# gamma correction -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def powers() -> tuple[Tensor, Tensor]:
    """Values from the darkest to 1, and gammas as far as a network may choose them."""
    furthest = math.log10(COARSE_RANGE * FINE_RANGE)
    values = torch.logspace(math.log10(DARKEST), 0, 1001, dtype=torch.float64)[:, None]
    return values, torch.logspace(-furthest, furthest, 101, dtype=torch.float64)


def test_the_series_is_the_power_also_in_the_darks(powers: tuple[Tensor, Tensor]) -> None:
    values, gamma = powers
    expected = values**gamma
    made = gamma_correction(values.float(), gamma.float())
    assert made.dtype == torch.float32
    difference = (made - expected).abs()
    assert float(difference.max()) < 2e-6
    assert float((difference / expected)[expected > 1e-4].max()) < 2e-3


def test_a_series_about_0_alone_would_not_be(powers: tuple[Tensor, Tensor]) -> None:
    """The same number of terms, without halvings, already for gammas that brighten four times."""
    exponent = powers[0].log() * 0.25
    series = torch.stack([exponent**term / math.factorial(term) for term in range(iagc.TERMS + 1)]).sum(0)
    assert float((series - exponent.exp()).abs().max()) > 0.1


def test_more_terms_are_nearer(powers: tuple[Tensor, Tensor]) -> None:
    values, gamma = powers
    worst = [float((gamma_correction(values, gamma, n) - values**gamma).abs().max()) for n in (1, 2, 3)]
    assert worst[0] > 5 * worst[1] > 25 * worst[2]


def test_curves_rise_from_0(powers: tuple[Tensor, Tensor]) -> None:
    x = torch.cat((torch.linspace(-0.2, 0, 11), torch.logspace(-7, 0, 400)))[:, None]
    made = gamma_correction(x, powers[1].float())
    assert bool((made[:11] == 0).all()) and bool((made[11:] >= 0).all())
    assert float((made.diff(dim=0)).min()) > -1e-6
    torch.testing.assert_close(gamma_correction(x[11:], torch.ones(1)), x[11:], rtol=1e-3, atol=1e-6)


def test_its_derivatives_are_those_of_the_power() -> None:
    x = torch.tensor([0.0, 1e-5, 1e-3, 0.02, 0.3, 1.0])
    gamma = torch.tensor([0.2, 0.3, 0.25, 0.5, 2.0, 0.7], requires_grad=True)
    gamma_correction(x, gamma).sum().backward()
    values = x.clamp(min=DARKEST)
    assert gamma.grad is not None
    expected = values ** gamma.detach() * values.log() * (x / DARKEST).clamp(max=1)
    torch.testing.assert_close(gamma.grad, expected, rtol=1e-3, atol=1e-5)


# the network ----------------------------------------------------------------------------------------------------------


def reference(net: IAGC, x: Tensor) -> Tensor:
    """The network written out, channels first, with powers in place of the series."""
    w = dict(net.state_dict())
    window, regions = net.tiling.grid // 8, SMALL["regions"]

    def conv(key: str, y: Tensor, **how: int) -> Tensor:
        weight = w[f"{key}.weight"]
        groups = y.shape[1] // weight.shape[1]
        return F.conv2d(y, weight, w[f"{key}.bias"], groups=groups, **{"padding": weight.shape[-1] // 2, **how})

    def linear(key: str, tokens: Tensor) -> Tensor:
        return tokens @ w[f"{key}.weight"].T + w[f"{key}.bias"]

    def norm(key: str, tokens: Tensor) -> Tensor:
        return F.layer_norm(tokens, tokens.shape[-1:], w[f"{key}.weight"], w[f"{key}.bias"])

    def bend(y: Tensor, furthest: float) -> Tensor:
        return furthest ** y.tanh()

    def power(y: Tensor, gamma: Tensor) -> Tensor:
        return torch.where(y > DARKEST, y.clamp(min=DARKEST) ** gamma, y / DARKEST * DARKEST**gamma)

    def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
        results = []
        for head, (a, b, c) in enumerate(zip(*(t.chunk(heads, -1) for t in (q, k, v)), strict=True)):
            scores = a @ b.mT / math.sqrt(a.shape[-1])
            results.append((scores if bias is None else scores + bias[..., head]).softmax(-1) @ c)
        return torch.cat(results, -1)

    def block(key: str, y: Tensor) -> Tensor:
        b, c, h, width = y.shape
        table = w[f"{key}.near.relative_position_bias_table"]
        heads, bias = table.shape[1], table[relative_position_index(window, window)]
        result = y.clone()
        for top in range(0, h, window):
            for left in range(0, width, window):
                area = (..., slice(top, top + window), slice(left, left + window))
                tokens = norm(f"{key}.near_norm", y[area].flatten(2).mT)
                q, k, v = linear(f"{key}.near.qkv", tokens).chunk(3, -1)
                near = linear(f"{key}.near.proj", attend(q, k, v, heads, bias))
                result[area] += near.mT.reshape(b, c, window, window)
        y = result
        windows = y.unflatten(3, (-1, window)).unflatten(2, (-1, window)).mean((3, 5))
        size = (min(regions, windows.shape[2]), min(regions, windows.shape[3]))
        means = norm(f"{key}.far.norm", F.adaptive_avg_pool2d(windows, size).flatten(2).mT)
        q = linear(f"{key}.far.query", norm(f"{key}.far_norm", y.flatten(2).mT))
        k, v = (linear(f"{key}.far.{name}", means) for name in ("key", "value"))
        y = y + linear(f"{key}.far.proj", attend(q, k, v, heads)).mT.view_as(y)
        normed = norm(f"{key}.norm", y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return y + conv(f"{key}.narrow", F.gelu(conv(f"{key}.spread", conv(f"{key}.widen", normed))))

    def blocks(key: str, y: Tensor) -> Tensor:
        number = 0
        while any(name.startswith(f"{key}.{number}.") for name in w):
            one = f"{key}.{number}"
            plain = f"{one}.first.weight" in w
            y = y + conv(f"{one}.second", conv(f"{one}.first", y).relu()) if plain else block(one, y)
            number += 1
        return y

    def up(key: str, y: Tensor) -> Tensor:
        return conv(key, y).repeat_interleave(2, 2).repeat_interleave(2, 3)

    small = F.adaptive_avg_pool2d(x, 64)
    y = torch.cat((small, small.clamp(min=DARKEST).log() / math.log(DARKEST)), 1)
    for step in range(3):
        y = F.gelu(conv(f"coarse.see.{step}", y, stride=2))
    coarse = bend(linear("coarse.tell", y.mean((2, 3))), COARSE_RANGE)[:, :, None, None]

    both = torch.cat((x, power(x, coarse)), 1)
    folded = torch.cat([both[..., i::2, j::2] for i in (0, 1) for j in (0, 1)], 1)
    first = blocks("at_half", conv("head", folded))
    second = blocks("at_quarter", conv("to_quarter", first, stride=2, padding=0))
    y = blocks("at_eighth", conv("to_eighth", second, stride=2, padding=0))
    y = blocks("at_quarter_again", up("from_eighth", y) + second)
    made = conv("fine", blocks("at_half_again", up("from_quarter", y) + first))
    unfolded = made.new_empty(len(x), made.shape[1] // 4, *x.shape[2:])
    for number, part in enumerate(made.chunk(4, 1)):
        unfolded[..., number // 2 :: 2, number % 2 :: 2] = part
    bent, residual = unfolded.chunk(2, 1)
    return power(x, coarse * bend(bent, FINE_RANGE)) + residual


@pytest.mark.parametrize("config", [SMALL, GRAY])
def test_equals_the_network_written_out(config: dict[str, Any]) -> None:
    net = network(**config)
    x = torch.rand(2, net.in_channels, 48, 80).square()
    with torch.inference_mode():
        expected = reference(net, x)
        assert float((expected - x).std()) > 0.1
        torch.testing.assert_close(net(x), expected, rtol=0, atol=2e-5)


def test_fresh_weights_leave_a_picture_as_it_is() -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(IAGC(**SMALL)(x), x, rtol=0, atol=2e-6)


def test_large_pictures_are_run_as_a_whole_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "WHOLE_BYTES", 0)
    monkeypatch.setattr(inference, "CHUNK_BYTES", 1 << 16)
    net, picture = network(**SMALL), torch.rand(3, 99, 70)
    execution = Execution()
    made = tiled(net, picture, execution)
    assert execution.mode == "exact"
    torch.testing.assert_close(made, tiled(net, picture, Execution(tile="off")), rtol=0, atol=1e-5)


@pytest.mark.parametrize("place", [(0, 0), (0, 127), (127, 0), (60, 70)])
def test_every_pixel_depends_on_every_other(place: tuple[int, int]) -> None:
    """Far beyond the reach of the convolutions, through attention alone."""
    net = network(**SMALL)
    with torch.no_grad():
        net.coarse.tell.weight.zero_()
    net = net.double()
    x = torch.full((1, 3, 128, 128), 0.3, dtype=torch.float64)
    changed = x.clone()
    changed[..., place[0], place[1]] = 0.9
    with torch.inference_mode():
        difference = (net.features(changed) - net.features(x))[:, 3:].abs().amax((0, 1))
    assert bool((difference > 0).all())


def test_gamma_alone_is_the_result_without_the_residual() -> None:
    net = network(**SMALL)
    x = torch.rand(2, 3, 32, 48)
    with torch.inference_mode():
        gamma, residual = net.gamma(x), net.features(x)[:, 6:]
        assert gamma.shape == x.shape
        furthest = COARSE_RANGE * FINE_RANGE
        assert 1 / furthest < float(gamma.min()) < float(gamma.max()) < furthest
        torch.testing.assert_close(gamma_correction(x, gamma) + residual, net(x))


def test_bands_make_the_whole_under_autocast() -> None:
    net, x = network(**SMALL), torch.rand(2, 3, 64, 48) * torch.tensor([0.1, 1.0]).view(2, 1, 1, 1)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(net.tail(net.features(x, Bands(rows=4))), net(x), rtol=0, atol=0.05)


def test_curves_are_precise_under_autocast() -> None:
    net = network(**SMALL)
    with torch.no_grad():
        net.fine.weight.zero_()
        net.fine.bias.zero_()
    x = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        expected = net(x)
        assert not torch.allclose(expected, x, atol=0.01)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-6)


def test_gradients_are_right() -> None:
    net = network(**SMALL).train()
    x = torch.rand(1, 3, 32, 32)
    x[..., :4, :4] = 0
    target = torch.rand_like(x)
    made = net(x)
    (made - target).square().mean().backward()
    step = 1e-2
    for key, value in net.named_parameters():
        assert value.grad is not None and bool(value.grad.isfinite().all()), key
    weights = [value for value in net.parameters() if value.grad is not None]
    slope = sum(float(value.grad.square().sum()) for value in weights if value.grad is not None)
    size = math.sqrt(slope)
    losses = []
    with torch.no_grad():
        for sign in (1, -2):
            for value in weights:
                assert value.grad is not None
                value.add_(value.grad, alpha=sign * step / size)
            losses.append(float((net(x) - target).square().mean()))
    assert (losses[0] - losses[1]) / (2 * step) == pytest.approx(size, rel=0.05)


def test_trains_under_autocast_from_fresh_weights() -> None:
    torch.manual_seed(0)
    net = IAGC(**SMALL).train()
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    x = torch.rand(2, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    losses = []
    for _ in range(12):
        with torch.autocast("cpu", torch.bfloat16):
            loss = (net(x**3).float() - x).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    for key, value in net.named_parameters():
        assert value.grad is not None and bool(value.grad.isfinite().all()), key
        assert bool(value.grad.any()) or key.endswith("far.key.bias"), "softmax does not see what all keys share"
