"""Retinexformer: a reference written out here, equal to the authors' code to 1e-12 in float64, and its laws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from restorekit import inference
from restorekit.architectures import retinexformer
from restorekit.architectures._bands import Bands
from restorekit.architectures.retinexformer import Retinexformer
from restorekit.execution import Execution
from restorekit.testing_networks import BandLaws, RefusalLaws, filled, tiled

SMALL: dict[str, Any] = {"n_feat": 8, "num_blocks": [1, 1, 1]}
SHAPES: list[dict[str, Any]] = [SMALL, {"n_feat": 4, "num_blocks": [2, 1, 3], "stage": 2}]


@pytest.fixture(autouse=True)
def low_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small maps go into several bands too."""
    monkeypatch.setattr(retinexformer, "LEAST_ROWS", 1)


def network(**config: Any) -> Retinexformer:
    """With attention that is far from even."""
    net = filled(Retinexformer(**config), 0.8)
    with torch.no_grad():
        for key, value in net.named_parameters():
            if "rescale" in key:
                value.copy_(torch.linspace(2, 6, value.numel()).view_as(value))
    return net


class TestRetinexformer(BandLaws, RefusalLaws):
    """The released networks have 1.61 million parameters, as the paper says."""

    kind = Retinexformer
    build = staticmethod(network)
    configs = tuple(SHAPES)
    others = ({"n_feat": 40, "num_blocks": [1, 2, 2]},)
    published = (({}, 1_605_701, 122),)
    autocast = 0.02
    casts = ((torch.bfloat16, 0.05),)
    needs = ("mapping", "depth_conv.weight", "to_q")
    tall, rows = ((36, 12),), (1, 5)
    refused = (
        ({"in_channels": 1}, "in_channels is 1 and out_channels 3"),
        ({"num_blocks": [1, 1]}, r"num_blocks is \[1, 1\]"),
        ({"num_blocks": [1, 0, 1]}, "there are 3 levels"),
        ({"stage": 0}, "stage 0"),
        ({"n_feat": 31}, "n_feat is 31; it is a multiple of 4"),
    )
    refused_sizes = ((8, 10, "multiples of 4 px; pad 10 x 8 px"),)


def reference(w: dict[str, Tensor], x: Tensor) -> Tensor:
    """The network written out, channels first, head by head."""

    def conv(key: str, y: Tensor, **how: int) -> Tensor:
        weight = w[f"{key}.weight"]
        padding = how.pop("padding", weight.shape[-1] // 2)
        groups = y.shape[1] // weight.shape[1]
        return F.conv2d(y, weight, w.get(f"{key}.bias"), padding=padding, groups=groups, **how)

    def linear(key: str, y: Tensor) -> Tensor:
        return torch.einsum("oc,bchw->bohw", w[f"{key}.weight"], y)

    def block(key: str, y: Tensor, light: Tensor) -> Tensor:
        q, k, v = (linear(f"{key}.0.to_{name}", y) for name in "qkv")
        heads = w[f"{key}.0.rescale"].shape[0]
        parts = []
        for head in range(heads):
            size = y.shape[1] // heads
            a, b, c = (t[:, head * size : (head + 1) * size].flatten(2) for t in (k, q, v * light))
            a, b = (t / t.square().sum(-1, keepdim=True).sqrt() for t in (a, b))
            scores = torch.einsum("bin,bjn->bij", a, b) * w[f"{key}.0.rescale"][head]
            parts.append(torch.einsum("bij,bjn->bin", scores.exp() / scores.exp().sum(-1, keepdim=True), c))
        far = linear(f"{key}.0.proj", torch.cat(parts, 1).view_as(y)) + w[f"{key}.0.proj.bias"][:, None, None]
        near = conv(f"{key}.0.pos_emb.2", F.gelu(conv(f"{key}.0.pos_emb.0", v)))
        y = far + near + y
        mean, variance = y.mean(1, keepdim=True), y.var(1, keepdim=True, unbiased=False)
        normed = (y - mean) / (variance + 1e-5).sqrt()
        normed = normed * w[f"{key}.1.norm.weight"][:, None, None] + w[f"{key}.1.norm.bias"][:, None, None]
        hidden = F.gelu(conv(f"{key}.1.fn.net.2", F.gelu(conv(f"{key}.1.fn.net.0", normed))))
        return conv(f"{key}.1.fn.net.4", hidden) + y

    def blocks(key: str, y: Tensor, light: Tensor) -> Tensor:
        number = 0
        while f"{key}.blocks.{number}.0.to_q.weight" in w:
            y, number = block(f"{key}.blocks.{number}", y, light), number + 1
        return y

    def inside(key: str, level: int, y: Tensor, light: Tensor) -> Tensor:
        if level == 2:
            return blocks(f"{key}.bottleneck", y, light)
        y = blocks(f"{key}.encoder_layers.{level}.0", y, light)
        below, dim = f"{key}.encoder_layers.{level}", f"{key}.decoder_layers.{1 - level}"
        coarse, dark = (conv(f"{below}.{i}", t, stride=2, padding=1) for i, t in ((1, y), (2, light)))
        coarse = inside(key, level + 1, coarse, dark)
        fine = F.conv_transpose2d(coarse, w[f"{dim}.0.weight"], w[f"{dim}.0.bias"], stride=2)
        return blocks(f"{dim}.2", conv(f"{dim}.1", torch.cat((fine, y), 1)), light)

    stage = 0
    while f"body.{stage}.estimator.conv1.weight" in w:
        light = conv(f"body.{stage}.estimator.conv1", torch.cat((x, x.mean(1, keepdim=True)), 1))
        light = conv(f"body.{stage}.estimator.depth_conv", light)
        lit = x * conv(f"body.{stage}.estimator.conv2", light) + x
        key = f"body.{stage}.denoiser"
        x = conv(f"{key}.mapping", inside(key, 0, conv(f"{key}.embedding", lit), light)) + lit
        stage += 1
    return x


@pytest.mark.parametrize("config", [*SHAPES, {}])
def test_equals_the_network_written_out(config: dict[str, Any]) -> None:
    net = network(**config)
    x = torch.rand(2, 3, 20, 28)
    with torch.inference_mode():
        expected = reference({key: value.double() for key, value in net.state_dict().items()}, x.double())
        assert 0.1 < float(expected.std()) < 10, "there is something to compare"
        difference = net(x) - expected
        assert float(difference.abs().max()) < 1e-5 * float(expected.abs().max())


def test_names_are_those_of_the_authors() -> None:
    assert {
        "body.0.estimator.depth_conv.bias",
        "body.0.denoiser.encoder_layers.1.0.blocks.0.0.pos_emb.2.weight",
        "body.0.denoiser.encoder_layers.0.2.weight",
        "body.0.denoiser.bottleneck.blocks.0.1.fn.net.4.weight",
        "body.0.denoiser.decoder_layers.0.0.bias",
        "body.0.denoiser.decoder_layers.1.2.blocks.0.0.rescale",
    } < set(network(**SMALL).state_dict())


def test_bands_make_the_whole_under_autocast() -> None:
    net, x = network(**SMALL), torch.rand(2, 3, 48, 20) * torch.tensor([0.1, 1.0]).view(2, 1, 1, 1)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        whole = net(x)
        assert float((net.features(x, Bands(rows=4)) - whole).abs().mean()) < 0.01 * float(whole.std())


def test_large_pictures_are_run_as_a_whole_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "WHOLE_BYTES", 0)
    monkeypatch.setattr(inference, "CHUNK_BYTES", 1 << 16)
    net, picture = network(**SMALL), torch.rand(3, 99, 62)
    execution = Execution()
    made = tiled(net, picture, execution)
    assert execution.mode == "exact"
    whole = tiled(net, picture, Execution(tile="off"))
    assert float((made - whole).abs().max()) < 1e-5 * float(whole.abs().max())


def test_a_tile_is_lit_by_what_is_in_it() -> None:
    """So tiles, in contrast to bands, differ from the whole."""
    net = network(**SMALL)
    picture = torch.rand(1, 3, 16, 256)
    picture[..., 128:] *= 0.05
    with torch.inference_mode():
        whole, tile = net(picture), net(picture[..., :128])
        far = whole[..., :64] - tile[..., :64]
    assert float(far.abs().max()) > 0.01 * float(whole.std())


def test_illumination_is_what_the_picture_is_multiplied_by() -> None:
    """Where the restoring half gives nothing, the result is the lit picture."""
    net = network(**SMALL)
    with torch.no_grad():
        net.get_parameter("body.0.denoiser.mapping.weight").zero_()
    x = torch.rand(2, 3, 12, 16)
    with torch.inference_mode():
        factors = net.illumination(x)
        assert factors.shape == x.shape and float(factors.std()) > 0.1
        torch.testing.assert_close(net(x), x * factors, rtol=1e-5, atol=1e-6)
        piece = net.illumination(x[:, :, 2:, 3:])
        torch.testing.assert_close(piece[:, :, 2:, 2:], factors[:, :, 4:, 5:], rtol=1e-5, atol=1e-5)


def test_lighting_is_precise_under_autocast() -> None:
    net = network(**SMALL)
    with torch.no_grad():
        net.get_parameter("body.0.denoiser.mapping.weight").zero_()
    x = torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        expected = net(x)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-5)


def test_black_pictures_are_finite() -> None:
    """No key has a length there, nor has a query."""
    net = network(**SMALL)
    with torch.no_grad():
        for key, value in net.named_parameters():
            if key.endswith("bias"):
                value.zero_()
    net.train()(torch.zeros(1, 3, 8, 8)).sum().backward()
    assert all(value.grad is None or bool(value.grad.isfinite().all()) for value in net.parameters())


def test_gradients_are_right() -> None:
    net = network(**SMALL).train()
    x = torch.rand(1, 3, 8, 12)
    net(x).square().mean().backward()
    leaves = {key: value.detach().double().requires_grad_() for key, value in net.named_parameters()}
    reference(leaves, x.double()).square().mean().backward()
    for key, value in net.named_parameters():
        grad, wanted = value.grad, leaves[key].grad
        assert grad is not None and wanted is not None and bool(grad.any())
        assert float((grad - wanted).abs().max()) < 1e-3 * float(wanted.abs().max()), key
